//! The replicated state machine and its front door. Knows nothing of gRPC, HTTP or openraft.

pub mod apply;
pub mod command;
pub mod entry;
pub mod read;
