//! What a monitor may know: the metric families of etcd 3.7.1 by name, type and labels, and kvist's own as `kvist_...`.
//!
//! The lowest layer: any module counts what it does in [`METRICS`], which costs an atomic addition or two. What can be
//! read at any time, such as sizes, is not kept here: a source registered by [`on_scrape`] fills it in when somebody
//! asks. Names, help and buckets are facts of etcd (contract section 6); `docs/metrics.md` lists them.

pub mod clients;
mod families;
pub mod grpc;
pub mod peers;
pub mod traffic;

pub use families::{Disk, Lease, METRICS, Metrics, Mvcc, Own, Server, Watch};
pub use prometheus::{Histogram, IntCounter, IntGauge};

use families::REGISTRY;
use parking_lot::Mutex;
use prometheus::{Encoder, TextEncoder, core::Collector};
use std::sync::LazyLock;
use std::time::Instant;

/// Buckets that begin at `first` and double `count` times.
pub fn doubling(first: f64, count: usize) -> Vec<f64> {
    prometheus::exponential_buckets(first, 2.0, count).expect("positive and not empty")
}

/// Makes a family visible. Each name may be registered once in a process.
pub fn register<C: Collector + Clone + 'static>(family: C) -> C {
    REGISTRY.register(Box::new(family.clone())).expect("each family is registered once");
    family
}

type Source = Box<dyn Fn() + Send + Sync>;

static SOURCE: Mutex<Option<Source>> = Mutex::new(None);

/// While this lives, a source is asked.
pub struct Scraped(());

impl Drop for Scraped {
    fn drop(&mut self) {
        *SOURCE.lock() = None;
    }
}

/// Calls `source` before each scrape; it sets gauges and must not wait for anything. There is one at a time.
pub fn on_scrape(source: impl Fn() + Send + Sync + 'static) -> Scraped {
    *SOURCE.lock() = Some(Box::new(source));
    Scraped(())
}

/// Content type and text of everything there is to know now.
pub fn render() -> (&'static str, Vec<u8>) {
    LazyLock::force(&METRICS);
    if let Some(source) = &*SOURCE.lock() {
        source();
    }
    let mut text = Vec::with_capacity(256 << 10);
    TextEncoder::new().encode(&REGISTRY.gather(), &mut text).expect("the families have valid names");
    (prometheus::TEXT_FORMAT, text)
}

/// Observes seconds from `started` until now.
pub fn observe_since(histogram: &Histogram, started: Instant) {
    histogram.observe(started.elapsed().as_secs_f64());
}
