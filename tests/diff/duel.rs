//! One sequence on a fresh etcd and a fresh kvist at the same time.

use serde_json::Value;

use crate::compare::{Difference, compare};
use crate::run::{Transcript, play};
use crate::sequence::Sequence;
use crate::servers::Pair;

/// What came of it.
pub enum Verdict {
    Same,
    /// The answers depend on the time, for this reason: the sequence may be played again.
    Doubt(String),
    Different(Box<Different>),
}

/// A difference, with all that both said up to it.
pub struct Different {
    pub difference: Difference,
    pub etcd: Vec<Value>,
    pub kvist: Vec<Value>,
}

/// A verdict, etcd's answers, and the anchors of the differences that were meant to be.
pub struct Outcome {
    pub verdict: Verdict,
    pub answers: Vec<Value>,
    pub allowed: Vec<&'static str>,
}

/// Plays `sequence` on both. Called from a thread of its own: it waits for the servers.
pub fn duel(pair: &Pair, sequence: &Sequence) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (etcd, kvist): (Transcript, Transcript) =
        runtime.block_on(async { tokio::join!(play(&pair.etcd, sequence), play(&pair.kvist, sequence)) });
    let mut allowed = Vec::new();
    let difference = compare(sequence, &etcd.answers, &kvist.answers, |anchor| allowed.push(anchor));
    let verdict = match (etcd.doubt, kvist.doubt, difference) {
        // One that waits in vain while the other does not is no matter of time.
        (Some(why), _, _) => Verdict::Doubt(format!("etcd: {why}")),
        (None, Some(why), _) => Verdict::Doubt(format!("kvist: {why}")),
        (None, None, None) => Verdict::Same,
        (None, None, Some(difference)) => {
            let up_to = |answers: &[Value]| answers[..=difference.step].to_vec();
            let (etcd, kvist) = (up_to(&etcd.answers), up_to(&kvist.answers));
            Verdict::Different(Box::new(Different { difference, etcd, kvist }))
        }
    };
    Outcome { verdict, answers: etcd.answers, allowed }
}
