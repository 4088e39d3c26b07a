//! Stands in for the crate of this name, by which openraft counts the sizes of its batches. It shows them only with its
//! feature `runtime-stats`, which is off here; but the first histogram of the real crate makes tables of 26 MiB.
//! Nothing is counted here, and every figure is 0. See `docs/adr/0012-openraft-without-histograms.md`.

use std::fmt;
use std::marker::PhantomData;

/// Counts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Default for Histogram<T> {
    fn default() -> Histogram<T> {
        Histogram(PhantomData)
    }
}

impl<T> Histogram<T> {
    /// An empty one.
    pub fn new() -> Histogram<T> {
        Histogram::default()
    }

    /// Forgets a value.
    pub fn record(&mut self, _value: u64) {}

    /// Forgets a value that came several times.
    pub fn record_n(&mut self, _value: u64, _count: u64) {}

    /// All 0.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// What a histogram knows of its values.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // percentiles, by their names
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not counted")
    }
}

/// An empty drawing.
#[derive(Debug, Default, Clone)]
pub struct AsciiChart;

impl AsciiChart {
    /// Draws nothing.
    pub fn new() -> AsciiChart {
        AsciiChart
    }

    /// Adds nothing.
    #[must_use]
    pub fn add(self, _name: &str, _histogram: Histogram) -> AsciiChart {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
