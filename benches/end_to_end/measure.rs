//! One run of one scenario on one fresh cluster: start, load, take figures. The load tool fills, warms up, measures and
//! checks; what goes on around the load happens here. Called by `main` for every round.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Result;
use crate::figures::{self as f, Figures};
use crate::options::Options;
use crate::scenario::{Plan, Scenario, Upkeep};
use crate::scrape::Scrapes;
use crate::server::{Cluster, Contestant, PATIENCE};
use crate::tool::{Outcome, Running};

const MIB: f64 = (1 << 20) as f64;
/// Puts per second while a store is compacted or defragmented: far below what any server can take, so that only the
/// upkeep can make one of them wait.
pub(crate) const UPKEEP_PUTS: u32 = 2000;
/// From the start of the load tool to the begin of the upkeep: enough for the puts to be under way.
const BEFORE_UPKEEP: Duration = Duration::from_secs(1);
/// Longest wait for a compaction or defragmentation.
const UPKEEP_PATIENCE: Duration = Duration::from_secs(600);

/// What one run has shown. With a problem, its figures do not enter the report.
#[derive(Debug, Serialize)]
pub struct Run {
    pub scenario: &'static str,
    pub server: &'static str,
    pub round: u32,
    pub figures: Figures,
    /// Latencies of the load, as HDR histogram (V2, deflated, base64).
    pub histogram: Option<String>,
    pub problem: Option<String>,
}

/// A run, while it goes on.
pub struct Bench<'a> {
    pub scenario: &'static Scenario,
    pub contestant: &'a Contestant,
    pub options: &'a Options,
    pub round: u32,
    /// Requests per second of [`Plan::Open`].
    pub rate: f64,
}

/// Figures, and the histogram if the load has one.
pub(crate) type Found = (Figures, Option<String>);

impl Bench<'_> {
    /// Runs the scenario; an error becomes a problem of the run, so that the others go on.
    pub fn run(&self) -> Run {
        match self.measure() {
            Ok((figures, histogram)) => {
                Run { figures, histogram, problem: None, ..self.failed(String::new()) }
            }
            Err(error) => self.failed(error.to_string()),
        }
    }

    /// A run that has shown nothing but a problem.
    pub fn failed(&self, problem: String) -> Run {
        let (scenario, server, round) = (self.scenario.name, self.contestant.kind.name, self.round);
        Run { scenario, server, round, figures: Figures::new(), histogram: None, problem: Some(problem) }
    }

    /// The requests per second that the contestant takes when a thousand wait.
    ///
    /// # Errors
    /// As for any run.
    pub fn peak(&self) -> Result<f64> {
        let cluster = self.start()?;
        let words = format!("put --clients=1000 --conns=16 --key-space-size={}", self.options.keys().0);
        let outcome = self.load(&cluster, &[&words, &self.timing(self.options.seconds())])?.finish()?;
        Ok(outcome.operations as f64 / outcome.seconds)
    }

    fn measure(&self) -> Result<Found> {
        let mut cluster = self.start()?;
        let (keys, many) = self.options.keys();
        let words =
            self.scenario.load.replace("{keys}", &keys.to_string()).replace("{many}", &many.to_string());
        let timing = self.timing(self.options.seconds());
        match self.scenario.plan {
            Plan::Load => self.plain(&cluster, &[&words, &timing]),
            Plan::Whole => self.plain(&cluster, &[&words]),
            Plan::Open(_) => {
                let mut found =
                    self.plain(&cluster, &[&words, &timing, &format!("--rate={:.0}", self.rate)])?;
                found.0.insert(f::RATE.to_owned(), self.rate);
                Ok(found)
            }
            Plan::Fanout { puts } => self.fanout(&cluster, &words, puts, &timing),
            Plan::Restart => self.restart(&mut cluster, &words, many),
            Plan::Upkeep(upkeep) => self.upkeep(&cluster, &words, upkeep),
            Plan::Followers => {
                let leader = cluster.leader()?;
                let load =
                    self.load_by(cluster.tool_flags_of(|member| member != leader), &[&words, &timing])?;
                let outcome = load.finish()?;
                Ok((outcome.figures(), outcome.histogram()))
            }
            Plan::Failover => self.failover(&mut cluster),
            Plan::Transfer => self.transfer(&cluster),
            Plan::CatchUp => self.catch_up(&mut cluster, &words),
        }
    }

    fn start(&self) -> Result<Cluster> {
        Cluster::start(self.contestant, &self.options.dir(), self.scenario.security, self.scenario.flags)
    }

    /// Starts the load tool with some groups of words.
    pub(crate) fn load(&self, cluster: &Cluster, groups: &[&str]) -> Result<Running> {
        self.load_by(cluster.tool_flags(), groups)
    }

    /// The same with the flags that tell it where to go.
    pub(crate) fn load_by(&self, flags: Vec<String>, groups: &[&str]) -> Result<Running> {
        let mut words: Vec<String> =
            groups.iter().flat_map(|group| group.split(' ')).map(str::to_owned).collect();
        words.extend(flags);
        // The cluster is thrown away afterwards: nobody has to delete the keys.
        words.extend([format!("--seed={}", self.round), "--json".to_owned(), "--keep".to_owned()]);
        Running::start(&self.options.tool(), &words)
    }

    fn timing(&self, seconds: f64) -> String {
        // Whole numbers: the tool knows units, but no fractions.
        format!("--duration={:.0}ms --warmup={:.0}ms", seconds * 1e3, self.options.warmup() * 1e3)
    }

    fn plain(&self, cluster: &Cluster, groups: &[&str]) -> Result<Found> {
        let scrapes = self.scenario.is_scraped.then(|| Scrapes::start(cluster.access().port));
        let outcome = self.load(cluster, groups)?.finish()?;
        let mut figures = outcome.figures();
        if let Some(scrapes) = scrapes {
            figures.extend(scrapes.finish()?);
        }
        Ok((figures, outcome.histogram()))
    }

    /// First the puts with nobody watching, then with the watchers. Delivery costs what the second spends beyond the
    /// share of its puts in the first.
    fn fanout(&self, cluster: &Cluster, words: &str, puts: u32, timing: &str) -> Result<Found> {
        let alone = format!("put --clients=16 --conns=8 --rate={puts}");
        let alone = self.load(cluster, &[&alone, timing])?.finish()?;
        let outcome = self.load(cluster, &[words, &format!("--put-rate={puts}"), timing])?.finish()?;
        let mut figures = outcome.figures();
        // An operation is an event that came; the tool counts the puts as a kind of its own.
        let events = outcome.operations as f64;
        let puts =
            outcome.figures.get("put_ops_per_s").copied().flatten().ok_or("no puts among the watch")?;
        let per_put = alone.server_cpu_us() / alone.operations as f64;
        let delivery = outcome.server_cpu_us() - puts * per_put;
        let per_event = figures.remove(f::CPU_PER_OP).ok_or("no CPU time of the server")?;
        figures.insert(f::CPU_PER_EVENT_RAW.to_owned(), per_event);
        figures.insert(f::CPU_PER_EVENT.to_owned(), delivery / events);
        figures.insert(f::CPU_PER_PUT.to_owned(), per_put);
        Ok((figures, outcome.histogram()))
    }

    /// Fills, then times a start after a polite stop, and one after a crash. The files are in the page cache both times,
    /// for all servers. All keys must be there after each start.
    fn restart(&self, cluster: &mut Cluster, words: &str, keys: u64) -> Result<Found> {
        let outcome = self.load(cluster, &[words, "--warmup=0s"])?.finish()?;
        let mut figures = outcome.figures();
        let mut note = |name: &str, figure: f64| figures.insert(name.to_owned(), figure);
        note(f::STOP, millis(cluster.terminate()?));
        note(f::DISK_MIB, cluster.disk_bytes()? as f64 / MIB);
        note(f::RESTART_TERM, millis(cluster.restart()?));
        check_keys(cluster, keys, "SIGTERM")?;
        note(f::RESTART_ANON_MIB, cluster.anon_bytes()? as f64 / MIB);
        cluster.kill()?;
        note(f::RESTART_KILL, millis(cluster.restart()?));
        check_keys(cluster, keys, "SIGKILL")?;
        Ok((figures, outcome.histogram()))
    }

    /// Fills, then puts at a fixed rate: first alone, which shows what the machine does to the longest of them, then
    /// while the store is compacted or defragmented.
    fn upkeep(&self, cluster: &Cluster, words: &str, upkeep: Upkeep) -> Result<Found> {
        self.load(cluster, &[words, "--warmup=0s"])?.finish()?;
        let puts =
            format!("put --clients=64 --conns=8 --key-space-size=1000 --rate={UPKEEP_PUTS} --prefix=upkeep/");
        let timing = format!("--duration={:.0}ms --warmup=0s", self.options.upkeep_seconds() * 1e3);
        let before = self.load(cluster, &[&puts, &timing])?.finish()?;
        let during = self.load(cluster, &[&puts, &timing])?;
        std::thread::sleep(BEFORE_UPKEEP);
        let started = Instant::now();
        match upkeep {
            Upkeep::Compact => cluster.access().compact(UPKEEP_PATIENCE)?,
            Upkeep::Defragment => cluster.access().defragment(UPKEEP_PATIENCE)?,
        }
        let took = started.elapsed();
        let during = during.finish()?;
        if (took + BEFORE_UPKEEP).as_secs_f64() > self.options.upkeep_seconds() {
            return Err(format!("the puts ended before the upkeep, which took {took:.1?}").into());
        }
        let longest = |outcome: &Outcome| outcome.slowest_ms().ok_or("no latency from the load tool");
        let mut figures = during.figures();
        figures.insert(f::UPKEEP_S.to_owned(), took.as_secs_f64());
        figures.insert(f::LONGEST_PUT.to_owned(), longest(&during)?);
        figures.insert(f::LONGEST_PUT_BEFORE.to_owned(), longest(&before)?);
        Ok((figures, during.histogram()))
    }
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn check_keys(cluster: &Cluster, keys: u64, after: &str) -> Result<()> {
    let (found, _) = cluster.access().keys_and_revision(PATIENCE)?;
    if found == keys { Ok(()) } else { Err(format!("{found} of {keys} keys after {after}").into()) }
}
