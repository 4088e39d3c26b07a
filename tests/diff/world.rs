//! What one run has learned of its server: revisions, ids that the server chose, tokens, keys of locks.
//!
//! A sequence names such things by symbols, and answers are rewritten to the same symbols, so that what two servers say
//! can be compared. Symbols for numbers: `now`, `now-1`, `compacted`, `compacted+1`, `lease:0` (the first that the server
//! chose), `member`, `cluster`. For bytes: `{"key": 0}`, the first key of a lock or candidate. For a message:
//! `{"leader": 0}`, what the first campaign answered.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::last::LEASES;

/// Fields whose value is the server's own affair; that they are set is compared.
const OWN: [&str; 7] =
    ["raft_term", "raftTerm", "raftIndex", "raftAppliedIndex", "dbSize", "dbSizeInUse", "remaining_bytes"];
/// TTLs up to this are waited for; longer ones never end within a run.
pub const SHORT_TTL_SECS: i64 = 3;
/// Ids that a server chooses are large, so that none is taken for a count or a revision.
const OWN_ID_MIN: u64 = 1 << 32;

/// A lease that will expire soon.
#[derive(Clone, Debug)]
pub struct Short {
    pub id: i64,
    pub ttl_secs: i64,
    /// Just before the last request that set its deadline.
    pub since: Instant,
}

/// See the module.
#[derive(Default)]
pub struct World {
    pub now: i64,
    pub compacted: i64,
    pub leases: Vec<i64>,
    pub short: Option<Short>,
    pub tokens: HashMap<String, Vec<String>>,
    pub keys: Vec<Vec<u8>>,
    pub leaders: Vec<Value>,
    member: u64,
    cluster: u64,
    /// Texts that are replaced in answers, such as the address of the server.
    texts: Vec<(String, &'static str)>,
}

impl World {
    /// A fresh server, in whose answers these texts are replaced.
    pub fn new(texts: Vec<(String, &'static str)>) -> World {
        World { now: 1, texts, ..World::default() }
    }

    /// The number that a symbol stands for; an unknown one stands for 0.
    pub fn number(&self, symbol: &str) -> i64 {
        let split = symbol.find(['+', '-']).unwrap_or(symbol.len());
        let offset: i64 = symbol[split..].parse().unwrap_or(0);
        let base = match &symbol[..split] {
            "now" => self.now,
            "compacted" => self.compacted,
            "member" => self.member.cast_signed(),
            "cluster" => self.cluster.cast_signed(),
            other => {
                let n = other.strip_prefix("lease:").and_then(|n| n.parse::<usize>().ok());
                n.and_then(|n| self.leases.get(n)).copied().unwrap_or_default()
            }
        };
        base.wrapping_add(offset)
    }

    /// The token of a step's `by`.
    pub fn token(&self, by: &str) -> String {
        if let Some(text) = by.strip_prefix('!') {
            return text.to_owned();
        }
        let (name, n) = by.split_once('#').unwrap_or((by, ""));
        let tokens = self.tokens.get(name).map_or(&[][..], Vec::as_slice);
        let token = n.parse::<usize>().map_or_else(|_| tokens.last(), |n| tokens.get(n));
        token.cloned().unwrap_or_else(|| format!("no-token-of-{name}"))
    }

    /// Takes what an answer tells before it is rewritten.
    pub fn learn(&mut self, call: &str, request: &Value, answer: &Value) {
        let header =
            if call == "KV/RangeStream" { &answer["range_response"]["header"] } else { &answer["header"] };
        if let Some(revision) = header["revision"].as_i64() {
            self.now = self.now.max(revision);
        }
        if let (Some(cluster), Some(member)) = (header["cluster_id"].as_u64(), header["member_id"].as_u64())
            && self.cluster == 0
        {
            (self.cluster, self.member) = (cluster, member);
        }
        match call {
            "Lease/LeaseGrant" => {
                let id = answer["ID"].as_i64().unwrap_or_default();
                if request["ID"].as_i64().unwrap_or_default() == 0 && id != 0 {
                    self.leases.push(id);
                }
            }
            "Auth/Authenticate" => {
                if let (Some(name), Some(token)) = (request["name"].as_str(), answer["token"].as_str()) {
                    self.tokens.entry(name.to_owned()).or_default().push(token.to_owned());
                }
            }
            "Lease/LeaseLeases" => {
                // Locks and elections make leases that they do not always tell of.
                let leases = answer["leases"].as_array().into_iter().flatten();
                let ids: Vec<i64> = leases.filter_map(|lease| lease["ID"].as_i64()).collect();
                for id in ids {
                    if is_own(id.cast_unsigned()) && !LEASES.contains(&id) && !self.leases.contains(&id) {
                        self.leases.push(id);
                    }
                }
            }
            "Lock/Lock" => self.learn_key(request, &answer["key"]),
            "Election/Campaign" => {
                self.learn_key(request, &answer["leader"]["key"]);
                self.leaders.push(answer["leader"].clone());
            }
            _ => {}
        }
    }

    /// A lock's key ends with the lease, which the server chose if the request named none.
    fn learn_key(&mut self, request: &Value, key: &Value) {
        let Some(key) = key.as_str() else { return };
        self.keys.push(key.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect());
        let lease = key.rsplit('/').next().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        if let Some(lease) = lease.map(u64::cast_signed)
            && request["lease"].as_i64().unwrap_or_default() == 0
            && !self.leases.contains(&lease)
        {
            self.leases.push(lease);
        }
    }

    /// An answer with symbols in the place of what differs from server to server.
    pub fn rewrite(&self, value: Value) -> Value {
        match value {
            Value::Object(fields) => Value::Object(self.rewrite_fields(fields)),
            Value::Array(values) => values.into_iter().map(|v| self.rewrite(v)).collect(),
            Value::String(text) => Value::String(self.rewrite_text(text)),
            Value::Number(number) => {
                let id = number.as_u64().or(number.as_i64().map(i64::cast_unsigned)).unwrap_or_default();
                self.symbol(id).map_or(Value::Number(number), Value::String)
            }
            other => other,
        }
    }

    fn rewrite_fields(&self, fields: Map<String, Value>) -> Map<String, Value> {
        let rewrite = |(name, value): (String, Value)| {
            let value = match name.as_str() {
                own if OWN.contains(&own) => json!("set"),
                "token" => json!(shape_of_token(value.as_str().unwrap_or_default())),
                _ => self.rewrite(value),
            };
            (name, value)
        };
        fields.into_iter().map(rewrite).collect()
    }

    fn symbol(&self, id: u64) -> Option<String> {
        if !is_own(id) {
            return None;
        }
        let lease = self.leases.iter().position(|lease| lease.cast_unsigned() == id);
        match lease {
            Some(n) => Some(format!("lease:{n}")),
            None if id == self.member => Some("member".into()),
            None if id == self.cluster => Some("cluster".into()),
            None => None,
        }
    }

    /// Replaces ids and addresses in a text.
    pub fn rewrite_text(&self, mut text: String) -> String {
        for (n, lease) in self.leases.iter().enumerate() {
            text = text.replace(&format!("{lease:x}"), &format!("lease:{n}"));
        }
        if self.member != 0 {
            text = text.replace(&self.member.to_string(), "member");
            text = text.replace(&format!("{:x}", self.member), "member");
        }
        for (from, to) in &self.texts {
            text = text.replace(from, to);
        }
        // etcd prints alarms with one blank or two between fields, differently from build to build.
        text.replace("  ", " ")
    }
}

fn is_own(id: u64) -> bool {
    id >= OWN_ID_MIN
}

/// Sixteen letters, a dot and an index of the log, which is the server's own affair.
fn shape_of_token(token: &str) -> String {
    let index = token.split_once('.').filter(|(letters, _)| letters.chars().all(|c| c.is_ascii_alphabetic()));
    match index {
        Some((letters, index)) if index.parse::<u64>().is_ok() => format!("{} letters.index", letters.len()),
        _ => token.to_owned(),
    }
}
