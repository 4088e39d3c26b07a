//! The replicated state machine and its front door. Knows nothing of gRPC, HTTP or openraft.

pub mod command;
