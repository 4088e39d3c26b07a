//! What a monitor sees of a member besides what its parts count themselves: who it is, and what can be read when
//! somebody asks. Called by `server` once the member has started.

use crate::api::protocol;
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::command::AlarmKind;
use crate::limits;
use crate::metrics::{self, METRICS, Scraped};
use crate::types::MemberId;
use crate::version::{ETCD_VERSION, KVIST_VERSION};

/// Shows what does not change, and begins to answer scrapes; until the result is dropped.
pub fn start(config: &Config, engine: &Engine) -> Scraped {
    metrics::grpc::show(config.monitoring.extensive, protocol::services(&config.protocols));
    let (server, own) = (&METRICS.server, &METRICS.own);
    let id = hex(engine.identity().member);
    server.id.with_label_values(&[&id]).set(1);
    server.version.with_label_values(&[ETCD_VERSION]).set(1);
    own.build.with_label_values(&[KVIST_VERSION, ETCD_VERSION]).set(1);
    server.quota.set(config.storage.quota_bytes.map_or(-1, |bytes| bytes as i64));
    for (name, stage, is_open) in config.gates.states() {
        server.feature_enabled.with_label_values(&[name, stage]).set(i64::from(is_open));
    }
    let engine = engine.clone();
    metrics::on_scrape(move || {
        consensus(&engine);
        store(&engine);
        process();
    })
}

fn hex(id: MemberId) -> String {
    format!("{id:x}")
}

fn consensus(engine: &Engine) {
    let (server, status, me) = (&METRICS.server, engine.status(), engine.identity().member);
    server.has_leader.set(i64::from(status.leader != 0));
    server.is_leader.set(i64::from(status.leader == me));
    server.is_learner.set(i64::from(status.is_learner));
    server.proposals_committed.set(status.committed.max(status.applied) as i64);
    server.proposals_applied.set(status.applied as i64);
    server.cluster_version.reset();
    server.cluster_version.with_label_values(&[&engine.versions().cluster.short()]).set(1);
    server.known_peers.reset();
    for member in engine.members() {
        server.known_peers.with_label_values(&[&hex(me), &hex(member.id)]).set(1);
    }
    let alarms = engine.alarms();
    server.alarms.reset();
    for (member, kind) in alarms {
        let name = match kind {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        };
        server.alarms.with_label_values(&[&hex(member), name]).set(1);
    }
}

fn store(engine: &Engine) {
    let (mvcc, watch, own, now) = (&METRICS.mvcc, &METRICS.watch, &METRICS.own, engine.gauges());
    mvcc.db_bytes.set(now.store.file_bytes as i64);
    mvcc.db_bytes_in_use.set(now.store.bytes_in_use.min(now.store.file_bytes) as i64);
    mvcc.keys.set(now.keys);
    mvcc.revision.set(now.revision);
    mvcc.compacted.set(now.compacted);
    watch.watchers.set(now.watch.watchers as i64);
    watch.slow_watchers.set(now.watch.unsynced as i64);
    watch.pending_events.set(now.watch.queued_events as i64);
    own.leases.set(now.leases as i64);
    own.memtable_bytes.set(now.unflushed_bytes as i64);
    own.removed_revision.set(now.removed);
    own.pins.set(now.pinned as i64);
}

fn process() {
    METRICS.server.fd_used.set(limits::descriptors_used().map_or(0, |used| used as i64));
    METRICS
        .server
        .fd_limit
        .set(limits::descriptors_max().map_or(0, |max| i64::try_from(max).unwrap_or(i64::MAX)));
}
