//! The draft of etcd's third API: requests into the engine's vocabulary, outcomes back.
//!
//! It has one service without a package, whose calls are thin: `convert` makes commands and reads of messages, `kv` and
//! `lease` get them through the engine, `range` and `watch` write pairs straight from storage (`wire`). An *index* is a
//! revision. What the store decides about a request is told in the header of the answer ([`error`]). The draft leaves
//! much open; docs/protocols/rfc.md says what was chosen.

mod calls;
mod convert;
mod error;
mod kv;
mod lease;
mod range;
mod token;
mod watch;
mod wire;

use super::protocol::{Context, Protocol, Serve};
use crate::engine::Engine;
use crate::metrics::grpc::{BIDI, Service, UNARY};
use crate::pb::rfc::ResponseHeader;
use crate::shutdown::Shutdown;
use std::time::Duration;
use tower::util::BoxCloneSyncService;

/// The protocol.
pub const PROTOCOL: Protocol = Protocol {
    name: "rfc",
    services: SERVICES,
    // As of etcd's API, what a learner could answer may be old, and nothing here lets a client ask for that.
    is_for_learners: |_| false,
    open,
};

const SERVICES: &[Service] = &[(
    SERVICE,
    &[
        ("Range", UNARY),
        ("Put", UNARY),
        ("DeleteRange", UNARY),
        ("Tnx", UNARY),
        ("WatchRange", BIDI),
        ("Compact", UNARY),
        ("LeaseCreate", UNARY),
        ("LeaseRevoke", UNARY),
        ("LeaseAttach", UNARY),
        ("LeaseTnx", UNARY),
        ("LeaseKeepAlive", BIDI),
    ],
)];

/// Its name, package included.
const SERVICE: &str = "etcd";

fn open(context: &Context) -> Vec<(&'static str, Serve)> {
    vec![(SERVICE, BoxCloneSyncService::new(calls::Calls::new(Rfc::new(context))))]
}

/// State of the adapter. Cheap to clone.
#[derive(Clone)]
struct Rfc {
    engine: Engine,
    txn_ops_max: usize,
    progress_interval: Duration,
    errors_as_status: bool,
    shutdown: Shutdown,
}

impl Rfc {
    fn new(context: &Context) -> Rfc {
        Rfc {
            engine: context.engine.clone(),
            txn_ops_max: context.txn_ops_max,
            progress_interval: context.progress_interval,
            errors_as_status: context.settings.rfc_errors_as_status,
            shutdown: context.shutdown.clone(),
        }
    }

    /// The id that tokens carry.
    fn cluster(&self) -> u64 {
        self.engine.identity().cluster
    }

    /// The header of an answer at `index`.
    fn header(&self, index: i64) -> ResponseHeader {
        let identity = self.engine.identity();
        ResponseHeader {
            error: None,
            cluster_id: Some(identity.cluster),
            member_id: Some(identity.member),
            index: Some(index),
            raft_term: Some(self.engine.term()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn case_43_the_bytes_of_a_header() {
        let header = ResponseHeader {
            error: None,
            cluster_id: Some(0x1000),
            member_id: Some(1),
            index: Some(1),
            raft_term: Some(1),
        };
        assert_eq!(header.encode_to_vec(), [0x10, 0x80, 0x20, 0x18, 0x01, 0x20, 0x01, 0x28, 0x01]);
    }

    #[test]
    fn every_call_of_the_draft_is_served() {
        assert_eq!(SERVICES[0].1.len(), 11);
        assert_eq!(crate::pb::rfc::etcd_server::SERVICE_NAME, SERVICE);
    }
}
