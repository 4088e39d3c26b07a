//! What was called, how it ended, and whether that is enough to say something.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::sequence::Step;
use crate::wire;

/// Services of which every method must have been called.
const SERVICES: [&str; 5] = ["KV", "Watch", "Lease", "Auth", "Maintenance"];
/// Below so many calls, shares say nothing.
const CALLS_MIN: u64 = 5000;
/// Bounds in percent: a generator that makes only good requests, or only bad ones, finds little.
const OK_MIN: u64 = 40;
const REFUSED_MIN: u64 = 15;

/// Counts of one method.
#[derive(Default, Clone, Copy)]
struct Count {
    ok: u64,
    refused: u64,
}

/// Counts by method.
#[derive(Default)]
pub struct Stats {
    counts: BTreeMap<String, Count>,
    pub events: u64,
    pub sequences: u64,
    pub differences: u64,
    pub skipped: u64,
    pub retried: u64,
    pub allowed: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// Counts what `etcd` answered to a generated step.
    pub fn count(&mut self, step: &Step, answer: &Value) {
        if wire::method(&step.call).is_none() && step.raw.is_none() {
            self.events += answer["streams"].to_string().matches("\"mod_revision\"").count() as u64;
            return;
        }
        let count = self.counts.entry(step.call.clone()).or_default();
        let answer = if answer["answer"].is_null() { answer } else { &answer["answer"] };
        if answer["code"].is_null() {
            count.ok += 1;
        } else {
            count.refused += 1;
        }
    }

    pub fn calls(&self) -> u64 {
        self.counts.values().map(|count| count.ok + count.refused).sum()
    }

    /// What the generator missed.
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        let calls = self.calls();
        if calls < CALLS_MIN {
            return gaps;
        }
        for call in SERVICES.iter().flat_map(|service| wire::methods_of(service)) {
            if self.counts.get(&call).is_none_or(|count| count.ok == 0) {
                gaps.push(format!("{call} never succeeded"));
            }
        }
        let ok: u64 = self.counts.values().map(|count| count.ok).sum();
        if ok * 100 < calls * OK_MIN {
            gaps.push(format!("only {ok} of {calls} calls succeeded"));
        }
        if (calls - ok) * 100 < calls * REFUSED_MIN {
            gaps.push(format!("only {} of {calls} calls failed", calls - ok));
        }
        if self.events == 0 {
            gaps.push("no watcher ever saw an event".into());
        }
        if self.skipped * 50 > self.sequences {
            gaps.push(format!("{} of {} sequences could not be compared", self.skipped, self.sequences));
        }
        gaps
    }

    /// Calls by service.
    fn areas(&self) -> BTreeMap<&str, u64> {
        let mut areas = BTreeMap::new();
        for (call, count) in &self.counts {
            let area = call.split('/').next().unwrap_or_default();
            *areas.entry(area).or_default() += count.ok + count.refused;
        }
        areas
    }

    /// A line for each method.
    pub fn table(&self) -> String {
        let line = |(call, count): (&String, &Count)| {
            format!("{call:32} {:8} ok {:8} refused\n", count.ok, count.refused)
        };
        self.counts.iter().map(line).collect()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sequences, {} calls, {} events, {} differences",
            self.sequences,
            self.calls(),
            self.events,
            self.differences
        )?;
        write!(f, "; {} allowed", self.allowed.values().sum::<u64>())?;
        for (anchor, count) in &self.allowed {
            write!(f, " {anchor}: {count}")?;
        }
        write!(f, "; {} played again, {} skipped;", self.retried, self.skipped)?;
        for (area, count) in self.areas() {
            write!(f, " {area} {count}")?;
        }
        Ok(())
    }
}
