//! The Oxia's early client protocol: requests into the engine's vocabulary, outcomes back.

use super::protocol::Protocol;

/// The protocol.
pub const PROTOCOL: Protocol =
    Protocol { name: "oxia", services: &[], is_for_learners: |_| false, open: |_| Vec::new() };
