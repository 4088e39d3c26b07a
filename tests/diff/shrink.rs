//! A smaller sequence that still shows a difference: fewer steps, smaller messages. Bounded in tries and time.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sequence::Sequence;

const TIME_MAX: Duration = Duration::from_secs(120);
const TRIES_MAX: usize = 600;

/// Takes away from `sequence` whatever `differs` does not need.
pub fn shrink(sequence: Sequence, mut differs: impl FnMut(&Sequence) -> bool) -> Sequence {
    let mut state =
        Shrink { best: sequence, tries: 0, end: Instant::now() + TIME_MAX, differs: &mut differs };
    loop {
        let before = state.best.clone();
        state.drop_steps();
        state.drop_flags();
        state.simplify_messages();
        if state.best == before || state.is_over() {
            return state.best;
        }
    }
}

struct Shrink<'d> {
    best: Sequence,
    tries: usize,
    end: Instant,
    differs: &'d mut dyn FnMut(&Sequence) -> bool,
}

impl Shrink<'_> {
    fn is_over(&self) -> bool {
        self.tries >= TRIES_MAX || Instant::now() > self.end
    }

    /// Keeps `candidate` if it still shows a difference.
    fn try_one(&mut self, candidate: Sequence) -> bool {
        if self.is_over() || candidate == self.best {
            return false;
        }
        self.tries += 1;
        let is_kept = (self.differs)(&candidate);
        if is_kept {
            self.best = candidate;
        }
        is_kept
    }

    /// First long runs of steps, then shorter ones, from the end.
    fn drop_steps(&mut self) {
        let mut len = self.best.steps.len().div_ceil(2);
        while len > 0 {
            let mut end = self.best.steps.len();
            while end > 0 {
                let start = end.saturating_sub(len);
                let mut candidate = self.best.clone();
                candidate.steps.drain(start..end.min(candidate.steps.len()));
                self.try_one(candidate);
                end = start;
            }
            len /= 2;
        }
    }

    fn drop_flags(&mut self) {
        for n in (0..self.best.flags.len()).rev() {
            let mut candidate = self.best.clone();
            candidate.flags.remove(n);
            self.try_one(candidate);
        }
    }

    fn simplify_messages(&mut self) {
        for n in (0..self.best.steps.len()).rev() {
            let mut plain = self.best.clone();
            (plain.steps[n].session, plain.steps[n].stream) = (0, 0);
            self.try_one(plain);
            let mut unnamed = self.best.clone();
            unnamed.steps[n].by = None;
            self.try_one(unnamed);
            for m in (0..self.best.steps[n].messages.len()).rev() {
                let mut at = 0;
                // Each smaller message is one place further on, unless it was taken.
                while let Some(message) = smaller(&self.best.steps[n].messages[m], &mut at.clone()) {
                    let mut candidate = self.best.clone();
                    candidate.steps[n].messages[m] = message;
                    if !self.try_one(candidate) {
                        at += 1;
                    }
                    if self.is_over() {
                        return;
                    }
                }
            }
        }
    }
}

/// `value` without its part number `at`, counting members of objects and elements of lists, the outer ones first.
fn smaller(value: &Value, at: &mut usize) -> Option<Value> {
    let parts: Vec<Value> = match value {
        Value::Object(fields) => fields.keys().map(|name| Value::String(name.clone())).collect(),
        Value::Array(values) => (0..values.len()).map(Value::from).collect(),
        _ => return None,
    };
    for part in &parts {
        let mut without = value.clone();
        let inner = match (&mut without, part) {
            (Value::Object(fields), Value::String(name)) => fields.remove(name),
            (Value::Array(values), Value::Number(n)) => {
                n.as_u64().and_then(|n| usize::try_from(n).ok()).map(|n| values.remove(n))
            }
            _ => None,
        };
        if *at == 0 {
            return Some(without);
        }
        *at -= 1;
        if let Some(inner) = inner.and_then(|inner| smaller(&inner, at)) {
            let mut with = value.clone();
            match (&mut with, part) {
                (Value::Object(fields), Value::String(name)) => _ = fields.insert(name.clone(), inner),
                (Value::Array(values), Value::Number(n)) => {
                    if let Some(n) = n.as_u64().and_then(|n| usize::try_from(n).ok()) {
                        values[n] = inner;
                    }
                }
                _ => {}
            }
            return Some(with);
        }
    }
    None
}
