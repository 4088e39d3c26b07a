//! Who calls whom: every call between members says so, and a stranger is refused.

use crate::types::MemberId;
use http::HeaderMap;
use http::header::USER_AGENT;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

const CLUSTER: &str = "kvist-cluster";
const FROM: &str = "kvist-from";
const TO: &str = "kvist-to";
/// What the caller began with: `identity::Founding::origin`, hexadecimal; only in calls of the first members.
const ORIGIN: &str = "kvist-origin";
/// The same refusal of the same caller is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// How a member learns that it was removed; the code is used for nothing else here.
const REMOVED: Code = Code::OutOfRange;

/// Who this member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub member: MemberId,
}

impl Identity {
    /// Signs a call to `target`.
    pub fn sign(self, target: MemberId, metadata: &mut MetadataMap) {
        for (key, id) in [(CLUSTER, self.cluster), (FROM, self.member), (TO, target)] {
            metadata.insert(key, format!("{id:x}").parse().expect("hexadecimal digits are ASCII"));
        }
    }
}

/// What the header `user-agent` begins with in calls between members, however the calls are made.
const AGENT: &str = "kvist-member/";

impl Identity {
    /// Names the caller for all calls of a connection.
    pub fn agent(self) -> String {
        format!("{AGENT}{:x}.{:x}", self.cluster, self.member)
    }
}

/// Who calls by its own account, if it is of the cluster. For counting; `Gate` lets in.
pub fn caller(headers: &HeaderMap, cluster: u64) -> Option<MemberId> {
    let agent = headers.get(USER_AGENT)?.to_str().ok()?.strip_prefix(AGENT)?;
    let (its_cluster, member) = agent.split(' ').next()?.split_once('.')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    (number(its_cluster)? == cluster).then(|| number(member))?
}

/// Says in a call what the caller began with.
pub fn sign_origin(origin: u64, metadata: &mut MetadataMap) {
    metadata.insert(ORIGIN, format!("{origin:x}").parse().expect("hexadecimal digits are ASCII"));
}

/// Whether a refusal says that the caller was removed from the cluster.
pub fn tells_removal(status: &Status) -> bool {
    status.code() == REMOVED
}

/// Lets members in, and nobody else.
pub struct Gate {
    me: Identity,
    origin: Option<u64>,
    is_removed: Box<dyn Fn(MemberId) -> bool + Send + Sync>,
    logged: Mutex<HashMap<String, Instant>>,
}

impl Gate {
    /// For calls to `me`, which began with `origin`; `is_removed` knows who was a member and is none any more.
    pub fn new(
        me: Identity,
        origin: Option<u64>,
        is_removed: impl Fn(MemberId) -> bool + Send + Sync + 'static,
    ) -> Gate {
        Gate { me, origin, is_removed: Box::new(is_removed), logged: Mutex::default() }
    }

    /// Says who calls, or why that one may not.
    pub fn admit(&self, metadata: &MetadataMap) -> Result<MemberId, Status> {
        let read = |key: &str| {
            let text = metadata.get(key).and_then(|value| value.to_str().ok());
            text.and_then(|text| u64::from_str_radix(text, 16).ok())
        };
        let (Some(cluster), Some(from), Some(to)) = (read(CLUSTER), read(FROM), read(TO)) else {
            return Err(self.refuse("a caller that does not say who it is".into()));
        };
        if cluster != self.me.cluster {
            return Err(self.refuse(format!(
                "cluster ID mismatch: member {from:x} of cluster {cluster:x} called, this is cluster {:x}",
                self.me.cluster
            )));
        }
        if to != self.me.member {
            return Err(self.refuse(format!(
                "member ID mismatch: member {from:x} called {to:x}, this is {:x}",
                self.me.member
            )));
        }
        // Who came later has none, and got its state from those who have.
        if let (Some(origin), Some(own)) = (read(ORIGIN), self.origin)
            && origin != own
        {
            return Err(self.refuse(format!(
                "snapshot mismatch: member {from:x} was restored from another snapshot than {:x}, or from none, or with other flags",
                self.me.member
            )));
        }
        if (self.is_removed)(from) {
            return Err(Status::new(
                REMOVED,
                format!("member {from:x} was removed from the cluster for good"),
            ));
        }
        Ok(from)
    }

    fn refuse(&self, why: String) -> Status {
        let mut logged = self.logged.lock();
        let now = Instant::now();
        logged.retain(|_, at| now.duration_since(*at) < LOG_INTERVAL);
        if !logged.contains_key(&why) {
            tracing::error!(reason = why, "refused a call on the peer port");
            logged.insert(why.clone(), now);
        }
        Status::failed_precondition(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_members_of_other_clusters_and_removed_ones_are_refused() {
        let gate = Gate::new(Identity { cluster: 0xc, member: 1 }, None, |id| id == 9);
        let call = |cluster, from, to| {
            let mut metadata = MetadataMap::new();
            Identity { cluster, member: from }.sign(to, &mut metadata);
            gate.admit(&metadata)
        };
        assert_eq!(call(0xc, 2, 1).unwrap(), 2);
        for (status, text) in [
            (gate.admit(&MetadataMap::new()).unwrap_err(), "does not say who"),
            (
                call(0xd, 2, 1).unwrap_err(),
                "cluster ID mismatch: member 2 of cluster d called, this is cluster c",
            ),
            (call(0xc, 2, 3).unwrap_err(), "member ID mismatch"),
        ] {
            assert!(status.message().contains(text) && !tells_removal(&status), "{status}");
        }
        assert!(tells_removal(&call(0xc, 9, 1).unwrap_err()));
    }

    #[test]
    fn members_of_the_cluster_are_known_by_their_agent() {
        let call = |agent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, agent.parse().unwrap());
            caller(&headers, 0xc)
        };
        let agent = Identity { cluster: 0xc, member: u64::MAX }.agent();
        assert_eq!(call(&agent), Some(u64::MAX));
        assert_eq!(call(&format!("{agent} tonic/0.14")), Some(u64::MAX));
        for agent in ["kvist-member/d.1", "kvist-member/c", "kvist-member/c.x", "kvist-member/", "curl/8 c.1"]
        {
            assert_eq!(call(agent), None, "{agent}");
        }
        assert_eq!(caller(&HeaderMap::new(), 0xc), None);
    }

    #[test]
    fn members_that_were_restored_from_different_snapshots_refuse_each_other() {
        let me = Identity { cluster: 0xc, member: 1 };
        let call = |own, origin: Option<u64>| {
            let mut metadata = MetadataMap::new();
            Identity { member: 2, ..me }.sign(1, &mut metadata);
            origin.into_iter().for_each(|origin| sign_origin(origin, &mut metadata));
            Gate::new(me, own, |_| false).admit(&metadata)
        };
        for (own, origin) in [(None, None), (Some(7), Some(7)), (Some(7), None), (None, Some(7))] {
            assert_eq!(call(own, origin).unwrap(), 2);
        }
        let refused = call(Some(7), Some(8)).unwrap_err();
        assert!(refused.message().contains("snapshot mismatch") && !tells_removal(&refused), "{refused}");
    }
}
