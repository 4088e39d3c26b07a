//! The RFC draft of etcd v3: requests into the engine's vocabulary, outcomes back.

use super::protocol::Protocol;

/// The protocol.
pub const PROTOCOL: Protocol =
    Protocol { name: "rfc", services: &[], is_for_learners: |_| false, open: |_| Vec::new() };
