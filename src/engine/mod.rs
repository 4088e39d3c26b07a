//! The replicated state machine and its front door. Knows nothing of gRPC, HTTP or openraft.

pub mod apply;
pub mod command;
pub mod consensus;
pub mod entry;
pub mod error;
pub mod flusher;
pub mod read;
pub mod watch;
