//! The native transport between members: gRPC on the peer port (`proto/kvist/peer.proto`), entries as the log stores them.
//!
//! Three connections lead to each peer, so that bulk never delays what keeps the cluster alive: one for entries, one for
//! snapshots, one for everything else (heartbeats, votes, questions, forwarded commands). They are made when first used, and
//! made again when they break.
//!
//! Who calls: `network` (as openraft's transport) and `transport` of the parent (what members want of each other beside it).
//! Who is called: [`server::Service`], behind the peer port.

mod calls;
pub(super) mod client;
mod identity;
mod link;
pub mod server;
pub(super) mod wire;

pub use identity::{Identity, caller};
pub use link::{Lane, Link, Links};
