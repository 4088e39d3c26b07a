//! How many pings a client may send: grpc-go's enforcement policy as etcd sets it (`MinTime` from
//! `--grpc-keepalive-min-time`, `PermitWithoutStream` false), contract section 8.
//!
//! A ping is a strike if it comes too early after the one before: within `MinTime`, or within two hours while no stream is
//! open. The third strike ends the connection. Whatever the server says on a stream (HEADERS or DATA) clears the strikes
//! and excuses the next ping, so that bandwidth probes, which follow received data, are free.
//!
//! Open streams are counted exactly, from the frames that pass: opened by the client's HEADERS, closed by the server's
//! END_STREAM or by RST_STREAM of either side.

use super::frame::{ACK, DATA, END_STREAM, HEADERS, Head, PING, RST_STREAM};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Strikes that are forgiven.
const STRIKES_MAX: u8 = 2;
/// Least time between pings while no stream is open.
const IDLE_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);
/// What grpc-go takes for a `MinTime` of zero.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// Streams that are remembered as open; further ones are not, which matters only if all of these end before them.
const OPEN_MAX: usize = 1 << 16;

/// The policy and what it knows of one connection.
#[derive(Debug)]
pub struct Pings {
    interval: Duration,
    last: Option<Instant>,
    strikes: u8,
    /// The server has sent HEADERS or DATA since the last ping.
    spoke: bool,
    /// Ascending, as clients number their streams. Old streams are watches, new ones are calls about to end: both ends
    /// of the queue are cheap to remove from.
    open: VecDeque<u32>,
    last_stream: u32,
}

impl Pings {
    /// A policy that wants `interval` between pings.
    pub fn new(interval: Duration) -> Pings {
        let interval = if interval.is_zero() { INTERVAL_DEFAULT } else { interval };
        Pings { interval, last: None, strikes: 0, spoke: false, open: VecDeque::new(), last_stream: 0 }
    }

    /// Takes note of a frame from the client.
    pub fn client_sent(&mut self, head: Head) {
        match head.kind() {
            HEADERS if head.stream() > self.last_stream => {
                self.last_stream = head.stream();
                if self.open.len() < OPEN_MAX {
                    self.open.push_back(head.stream());
                }
            }
            RST_STREAM => self.close(head.stream()),
            PING if !head.has(ACK) => self.ping(Instant::now()),
            _ => {}
        }
    }

    /// Takes note of a frame from the server.
    pub fn server_sent(&mut self, head: Head) {
        match head.kind() {
            DATA | HEADERS => {
                self.spoke = true;
                if head.has(END_STREAM) {
                    self.close(head.stream());
                }
            }
            RST_STREAM => self.close(head.stream()),
            _ => {}
        }
    }

    /// Whether the connection must end.
    pub fn too_many(&self) -> bool {
        self.strikes > STRIKES_MAX
    }

    /// The highest stream that the client opened.
    pub fn last_stream(&self) -> u32 {
        self.last_stream
    }

    fn close(&mut self, stream: u32) {
        if let Ok(at) = self.open.binary_search(&stream) {
            self.open.remove(at);
        }
    }

    fn ping(&mut self, now: Instant) {
        let before = self.last.replace(now);
        if std::mem::take(&mut self.spoke) {
            self.strikes = 0;
            return;
        }
        let interval = if self.open.is_empty() { IDLE_INTERVAL } else { self.interval };
        if before.is_some_and(|before| now.duration_since(before) < interval) {
            self.strikes = self.strikes.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn opened(pings: &mut Pings, stream: u32) {
        pings.client_sent(Head::new(HEADERS, 0, stream, 10));
    }

    /// Pings `count` times, `interval` apart, and says after how many it was too many.
    fn flood(pings: &mut Pings, count: usize, interval: Duration) -> Option<usize> {
        let mut now = pings.last.unwrap_or_else(Instant::now);
        (1..=count).find(|_| {
            now += interval;
            pings.ping(now);
            pings.too_many()
        })
    }

    #[test]
    fn the_fourth_ping_at_once_is_too_many() {
        assert_eq!(flood(&mut Pings::new(5 * SECOND), 10, Duration::ZERO), Some(4));
    }

    #[test]
    fn open_streams_permit_the_configured_interval() {
        let mut pings = Pings::new(5 * SECOND);
        opened(&mut pings, 1);
        assert_eq!(flood(&mut pings, 100, 5 * SECOND), None);
        assert_eq!(flood(&mut pings, 100, 4 * SECOND), Some(3));
    }

    #[test]
    fn idle_connections_ping_every_two_hours() {
        let mut pings = Pings::new(5 * SECOND);
        assert_eq!(flood(&mut pings, 100, IDLE_INTERVAL), None);
        assert_eq!(flood(&mut pings, 100, IDLE_INTERVAL - SECOND), Some(3));
    }

    #[test]
    fn zero_is_five_minutes() {
        let mut pings = Pings::new(Duration::ZERO);
        opened(&mut pings, 1);
        assert_eq!(flood(&mut pings, 100, INTERVAL_DEFAULT), None);
        assert_eq!(flood(&mut pings, 100, INTERVAL_DEFAULT - SECOND), Some(3));
    }

    #[test]
    fn answers_clear_the_strikes() {
        let mut pings = Pings::new(5 * SECOND);
        opened(&mut pings, 1);
        for kind in [HEADERS, DATA].repeat(50) {
            assert_eq!(flood(&mut pings, 2, Duration::ZERO), None);
            pings.server_sent(Head::new(kind, 0, 1, 10));
        }
        // Settings and answers to pings do not.
        pings.server_sent(Head::new(4, 0, 0, 0));
        pings.server_sent(Head::new(PING, ACK, 0, 8));
        assert_eq!(flood(&mut pings, 10, Duration::ZERO), Some(4));
    }

    #[test]
    fn streams_end_once() {
        let mut pings = Pings::new(5 * SECOND);
        for stream in [1, 3, 5] {
            opened(&mut pings, stream);
        }
        pings.client_sent(Head::new(HEADERS, END_STREAM, 5, 10)); // trailers
        assert_eq!(pings.open, [1, 3, 5]);
        pings.server_sent(Head::new(HEADERS, END_STREAM, 3, 10));
        pings.server_sent(Head::new(RST_STREAM, 0, 3, 4));
        pings.client_sent(Head::new(RST_STREAM, 0, 3, 4));
        assert_eq!(pings.open, [1, 5]);
        pings.client_sent(Head::new(RST_STREAM, 0, 1, 4));
        pings.server_sent(Head::new(DATA, END_STREAM, 5, 0));
        assert!(pings.open.is_empty());
        assert_eq!(pings.last_stream(), 5);
    }

    #[test]
    fn acknowledgements_are_no_pings() {
        let mut pings = Pings::new(5 * SECOND);
        for _ in 0..10 {
            pings.client_sent(Head::new(PING, ACK, 0, 8));
        }
        assert!(!pings.too_many());
    }
}
