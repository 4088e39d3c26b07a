//! What clients did: what they asked for, when, and what they were told. Plain data, written by the load, read by the checks.

use std::time::Instant;

use kvist::pb::mvccpb::KeyValue;
use parking_lot::Mutex;

/// A value as the load writes it: no two writes have the same one.
pub type Value = u64;

/// A live key as an answer shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub value: Value,
    pub created: i64,
    pub modified: i64,
    pub version: i64,
    pub lease: i64,
}

impl Pair {
    /// A pair of the wire; its value begins with a number.
    pub fn of(kv: &KeyValue) -> Pair {
        let text = std::str::from_utf8(&kv.value).expect("values are text");
        let number = text.split(' ').next().expect("the first word");
        Pair {
            value: number.parse().expect("values begin with a number"),
            created: kv.create_revision,
            modified: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        }
    }
}

/// The bytes of a value, padded to `length`.
pub fn bytes(value: Value, length: usize) -> Vec<u8> {
    format!("{:<length$}", format!("{value} ")).into_bytes()
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Several keys are put in one transaction.
    Put {
        keys: Vec<String>,
        value: Value,
        lease: i64,
    },
    Delete {
        key: String,
    },
    /// Puts if the key's modification revision is `guard`, else reads it.
    Swap {
        key: String,
        guard: i64,
        value: Value,
    },
    Get {
        key: String,
        is_local: bool,
    },
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// That of the header.
    pub revision: i64,
    /// A write changed something: a put does, a swap and a delete may.
    pub has_changed: bool,
    /// What a read found.
    pub pair: Option<Pair>,
}

/// One request. Times are microseconds since the start of the history.
#[derive(Clone, Debug)]
pub struct Operation {
    /// For the reader of a violation.
    #[allow(dead_code)]
    pub client: u32,
    pub call: Call,
    pub invoked: u64,
    /// When it was answered, and how. Without an answer nobody knows what became of it, now or later.
    pub answer: Option<(u64, Answer)>,
}

impl Operation {
    /// The keys that it may change or reads.
    pub fn keys(&self) -> &[String] {
        match &self.call {
            Call::Put { keys, .. } => keys,
            Call::Delete { key } | Call::Swap { key, .. } | Call::Get { key, .. } => {
                std::slice::from_ref(key)
            }
        }
    }

    pub fn is_local(&self) -> bool {
        matches!(self.call, Call::Get { is_local: true, .. })
    }
}

/// A lease and what its client was told about it.
#[derive(Clone, Debug)]
pub struct LeaseRecord {
    /// For the reader of a violation.
    #[allow(dead_code)]
    pub id: i64,
    /// Seconds.
    pub ttl: i64,
    pub key: String,
    /// When the last request was sent that the server answered with the full TTL: the grant, or a renewal.
    pub renewed: u64,
    /// When a renewal was answered that found no lease.
    pub gone: Option<u64>,
}

/// All that clients did in one history.
pub struct Journal {
    start: Instant,
    pub operations: Mutex<Vec<Operation>>,
    pub leases: Mutex<Vec<LeaseRecord>>,
}

impl Journal {
    pub fn new() -> Journal {
        Journal { start: Instant::now(), operations: Mutex::default(), leases: Mutex::default() }
    }

    /// Microseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).expect("a short history")
    }
}
