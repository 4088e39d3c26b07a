//! Families about other members: what is sent to them and comes from them, how long they take, who is there.
//!
//! Ids are labels, in hexadecimal as etcd prints them. The series of a peer are looked up when a connection to it or from it
//! begins; counting then costs an atomic addition. Snapshots are rare enough to look up each time.

use super::doubling;
use super::families::{counters, gauges, histograms};
use parking_lot::Mutex;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Peers with series of their own; further ones share those of the peer 0. Who calls says by itself who it is.
const PEERS_MAX: usize = 64;

/// See the module.
pub struct Peers {
    sent_bytes: IntCounterVec,
    received_bytes: IntCounterVec,
    sent_failures: IntCounterVec,
    received_failures: IntCounterVec,
    round_trip: HistogramVec,
    active: IntGaugeVec,
    disconnected: IntCounterVec,
    snapshots_sent: Snapshots,
    snapshots_received: Snapshots,
    known: Mutex<HashMap<u64, Arc<Peer>>>,
}

/// The series of one peer.
pub struct Peer {
    /// Bytes sent on connections between the two members.
    pub sent_bytes: IntCounter,
    /// Bytes received on them.
    pub received_bytes: IntCounter,
    /// Calls of consensus that failed.
    pub sent_failures: IntCounter,
    /// Connections that broke while this member read.
    pub received_failures: IntCounter,
    /// Seconds of each heartbeat, with its answer.
    pub round_trip: Histogram,
}

impl Peers {
    pub(super) fn new() -> Peers {
        Peers {
            sent_bytes: counters(
                "etcd_network_peer_sent_bytes_total",
                "The total number of bytes sent to peers.",
                &["To"],
            ),
            received_bytes: counters(
                "etcd_network_peer_received_bytes_total",
                "The total number of bytes received from peers.",
                &["From"],
            ),
            sent_failures: counters(
                "etcd_network_peer_sent_failures_total",
                "The total number of send failures from peers.",
                &["To"],
            ),
            received_failures: counters(
                "etcd_network_peer_received_failures_total",
                "The total number of receive failures from peers.",
                &["From"],
            ),
            round_trip: histograms(
                "etcd_network_peer_round_trip_time_seconds",
                "Round-Trip-Time histogram between peers",
                doubling(0.0001, 16),
                &["To"],
            ),
            active: gauges(
                "etcd_network_active_peers",
                "The current number of active peer connections.",
                &["Local", "Remote"],
            ),
            disconnected: counters(
                "etcd_network_disconnected_peers_total",
                "The total number of disconnected peers.",
                &["Local", "Remote"],
            ),
            snapshots_sent: Snapshots::new("send", "sends", "To"),
            snapshots_received: Snapshots::new("receive", "receives", "From"),
            known: Mutex::default(),
        }
    }

    /// The series of a peer.
    pub fn of(&self, id: u64) -> Arc<Peer> {
        let mut known = self.known.lock();
        let id = if known.contains_key(&id) || known.len() < PEERS_MAX { id } else { 0 };
        Arc::clone(known.entry(id).or_insert_with(|| Arc::new(self.open(id))))
    }

    /// The id that labels the series of a peer.
    fn label(&self, id: u64) -> u64 {
        self.of(id);
        if self.known.lock().contains_key(&id) { id } else { 0 }
    }

    fn open(&self, id: u64) -> Peer {
        let id = [&*hex(id)];
        Peer {
            sent_bytes: self.sent_bytes.with_label_values(&id),
            received_bytes: self.received_bytes.with_label_values(&id),
            sent_failures: self.sent_failures.with_label_values(&id),
            received_failures: self.received_failures.with_label_values(&id),
            round_trip: self.round_trip.with_label_values(&id),
        }
    }

    /// To the member `me`, which leads, a peer answers again.
    pub fn becomes_active(&self, me: u64, peer: u64) {
        self.active.with_label_values(&[&hex(me), &hex(peer)]).set(1);
        self.disconnected.with_label_values(&[&hex(me), &hex(peer)]);
    }

    /// It does not answer any more.
    pub fn becomes_inactive(&self, me: u64, peer: u64) {
        self.active.with_label_values(&[&hex(me), &hex(peer)]).set(0);
        self.disconnected.with_label_values(&[&hex(me), &hex(peer)]).inc();
    }

    /// It is no member any more.
    pub fn is_gone(&self, me: u64, peer: u64) {
        // An error says that it was never there.
        let _ = self.active.remove_label_values(&[&hex(me), &hex(peer)]);
    }

    /// Who does not lead does not know who is active.
    pub fn leads_no_more(&self) {
        self.active.reset();
    }

    /// Counts a snapshot on its way to a peer.
    pub fn sends_snapshot(&self, to: u64) -> Transfer {
        self.snapshots_sent.begin(self.label(to))
    }

    /// Counts a snapshot on its way from a peer.
    pub fn receives_snapshot(&self, from: u64) -> Transfer {
        self.snapshots_received.begin(self.label(from))
    }
}

fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// Snapshots in one direction.
struct Snapshots {
    success: IntCounterVec,
    failures: IntCounterVec,
    inflight: IntGaugeVec,
    duration: HistogramVec,
}

impl Snapshots {
    fn new(verb: &str, noun: &str, label: &str) -> Snapshots {
        let name = |what: &str| format!("etcd_network_snapshot_{verb}_{what}");
        let labels = [label];
        Snapshots {
            success: counters(
                &name("success"),
                &format!("Total number of successful snapshot {noun}"),
                &labels,
            ),
            failures: counters(
                &name("failures"),
                &format!("Total number of snapshot {verb} failures"),
                &labels,
            ),
            inflight: gauges(
                &name("inflights_total"),
                &format!("Total number of inflight snapshot {noun}"),
                &labels,
            ),
            duration: histograms(
                &name("total_duration_seconds"),
                &format!("Total latency distributions of v3 snapshot {noun}"),
                doubling(0.1, 10),
                &labels,
            ),
        }
    }

    fn begin(&self, peer: u64) -> Transfer {
        let peer = [&*hex(peer)];
        let transfer = Transfer {
            success: self.success.with_label_values(&peer),
            failures: self.failures.with_label_values(&peer),
            inflight: self.inflight.with_label_values(&peer),
            duration: self.duration.with_label_values(&peer),
            begun: Instant::now(),
            has_succeeded: false,
        };
        transfer.inflight.inc();
        transfer
    }
}

/// A snapshot on its way; it failed if this is dropped before it [`succeeded`](Transfer::succeeded).
pub struct Transfer {
    success: IntCounter,
    failures: IntCounter,
    inflight: IntGauge,
    duration: Histogram,
    begun: Instant,
    has_succeeded: bool,
}

impl Transfer {
    /// The snapshot is in place.
    pub fn succeeded(mut self) {
        self.has_succeeded = true;
        self.success.inc();
        self.duration.observe(self.begun.elapsed().as_secs_f64());
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.inflight.dec();
        if !self.has_succeeded {
            self.failures.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::METRICS;
    use std::sync::Arc;

    #[test]
    fn a_snapshot_succeeds_or_fails() {
        let families = &METRICS.peers.snapshots_sent;
        let labels = ["ffff000000000001"];
        let (id, seen) = (0xffff_0000_0000_0001, || {
            let inflight = families.inflight.with_label_values(&labels).get();
            let success = families.success.with_label_values(&labels).get();
            (inflight, success, families.failures.with_label_values(&labels).get())
        });
        let (first, second) = (METRICS.peers.sends_snapshot(id), METRICS.peers.sends_snapshot(id));
        assert_eq!(seen(), (2, 0, 0));
        first.succeeded();
        drop(second);
        assert_eq!(seen(), (0, 1, 1));
        assert_eq!(families.duration.with_label_values(&labels).get_sample_count(), 1);
    }

    #[test]
    fn a_peer_has_one_set_of_series() {
        assert!(Arc::ptr_eq(&METRICS.peers.of(77), &METRICS.peers.of(77)));
        assert!(!Arc::ptr_eq(&METRICS.peers.of(77), &METRICS.peers.of(78)));
    }
}
