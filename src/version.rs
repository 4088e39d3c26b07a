//! What this program calls itself. The etcd version is the one whose behaviour we answer with: clients and
//! orchestrators compare it, so it is a constant of the contract and not of the build.

/// Release of etcd whose API and behaviour this server has.
pub const ETCD_VERSION: &str = "3.7.1";
/// Version of this program.
pub const KVIST_VERSION: &str = env!("CARGO_PKG_VERSION");
