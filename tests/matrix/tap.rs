//! What a suite says on its stdout: TAP, flat, one line a case as soon as it is over.
//!
//! ```text
//! # client: etcd-client 0.21.1
//! ok - kv/put and get
//! not ok - watch/replay from a revision: expected 3 events, got 2
//! ok - maintenance/snapshot # SKIP the client lacks it
//! 1..3
//! ```
//!
//! A suite that breaks these rules, dies early or says nothing has failed, whatever its cases say: [`Tap::finish`] adds
//! a failed case of the feature "suite" for each reason. Called by `suite.rs`; plain data, no processes.

use serde::Serialize;

/// What a case can be about, in the order of the table.
pub const FEATURES: [&str; 13] = [
    "kv",
    "txn",
    "watch",
    "reconnect",
    "lease",
    "lock",
    "election",
    "auth",
    "tls",
    "large",
    "cancel",
    "maintenance",
    "app",
];
/// The feature of what is wrong with a suite as a whole.
pub const SUITE: &str = "suite";

const CASES_MAX: usize = 5_000;
/// Diagnostics that are kept for the end; all are in the log.
const NOTES_MAX: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// One case that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    pub feature: String,
    pub name: String,
    pub outcome: Outcome,
    /// Why it failed or was skipped.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Case {
    /// A failure of the suite as a whole.
    pub fn broken(name: &str, reason: String) -> Case {
        Case { feature: SUITE.to_owned(), name: name.to_owned(), outcome: Outcome::Failed, reason }
    }
}

/// What a suite has said so far.
#[derive(Default)]
pub struct Tap {
    cases: Vec<Case>,
    /// The client and its version, from the line `# client: …`.
    pub client: String,
    /// The last diagnostic lines, without their `#`.
    pub notes: std::collections::VecDeque<String>,
    plan: Option<usize>,
    broken: Vec<Case>,
}

impl Tap {
    /// Takes the next line; returns the case that it tells of.
    pub fn line(&mut self, line: &str) -> Option<&Case> {
        let line = line.trim_end();
        if let Some(note) = line.strip_prefix('#') {
            self.note(note.strip_prefix(' ').unwrap_or(note));
            return None;
        }
        if let Some(count) = line.strip_prefix("1..") {
            match (count.parse(), self.plan) {
                (Ok(count), None) => self.plan = Some(count),
                _ => self.complain("plan", format!("a second or unreadable plan: {line}")),
            }
            return None;
        }
        let (passed, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => {
                self.note(line); // something that the suite's tools printed
                return None;
            }
        };
        match case(passed, rest) {
            Ok(case) => self.push(case),
            Err(reason) => {
                self.complain("line", format!("{reason}: {line}"));
                None
            }
        }
    }

    fn push(&mut self, case: Case) -> Option<&Case> {
        if self.cases.len() == CASES_MAX {
            self.complain("cases", format!("more than {CASES_MAX}"));
            return None;
        }
        if self.cases.iter().any(|other| other.feature == case.feature && other.name == case.name) {
            self.complain("cases", format!("two are called {}/{}", case.feature, case.name));
        }
        self.cases.push(case);
        self.cases.last()
    }

    fn note(&mut self, note: &str) {
        if let Some(client) = note.strip_prefix("client: ") {
            client.clone_into(&mut self.client);
        }
        if self.notes.len() == NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(note.to_owned());
    }

    fn complain(&mut self, name: &str, reason: String) {
        if self.broken.len() < NOTES_MAX {
            self.broken.push(Case::broken(name, reason));
        }
    }

    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// All cases, and what is wrong with the suite. `ended` says how the program ended: `Ok` for exit code 0.
    pub fn finish(mut self, ended: Result<(), String>) -> Vec<Case> {
        match self.plan {
            Some(plan) if plan == self.cases.len() => {}
            Some(plan) => self.complain("plan", format!("{plan} cases planned, {} seen", self.cases.len())),
            None => self.complain("plan", format!("none after {} cases: it ended early", self.cases.len())),
        }
        if self.cases.is_empty() {
            self.complain("cases", "there are none".to_owned());
        }
        // A suite may tell by its exit code that cases failed; with none failed, the code means something else.
        if let Err(reason) = ended
            && self.cases.iter().all(|case| case.outcome != Outcome::Failed)
        {
            self.complain("end", reason);
        }
        self.cases.append(&mut self.broken);
        self.cases
    }
}

/// Reads what follows "ok " or "not ok ".
fn case(passed: bool, rest: &str) -> Result<Case, String> {
    // TAP allows a number before the name.
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    let rest = rest.strip_prefix("- ").ok_or("no \"- \" before the name")?;
    let (feature, rest) = rest.split_once('/').ok_or("no feature")?;
    if !FEATURES.contains(&feature) {
        return Err(format!("unknown feature {feature:?}"));
    }
    let (name, reason, outcome) = match (passed, rest.split_once(" # SKIP"), rest.split_once(": ")) {
        (true, Some((name, reason)), _) => (name, reason, Outcome::Skipped),
        (true, None, _) => (rest, "", Outcome::Passed),
        (false, _, Some((name, reason))) => (name, reason, Outcome::Failed),
        (false, _, None) => (rest, "no reason given", Outcome::Failed),
    };
    if outcome == Outcome::Skipped && reason.trim().is_empty() {
        return Err("skipped without a reason".to_owned());
    }
    let text = |text: &str| text.trim().to_owned();
    Ok(Case { feature: feature.to_owned(), name: text(name), outcome, reason: text(reason) })
}
