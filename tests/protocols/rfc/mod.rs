//! The RFC draft of etcd v3, over the wire. A test whose name begins with `case_` is a case, or several, of the table in
//! docs/compat.md. Numbers are relative to the index before the test, as a fresh store begins at 1.

mod auth;
mod client;
mod cluster;
mod errors;
mod kv;
mod lease;
mod lease_tnx;
mod range;
mod tnx;
mod watch;
mod watch_history;
mod wire;
