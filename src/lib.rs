//! kvist: a server for the etcd v3 API over LMDB and openraft.

// Logs are the server's voice; only `main` and `cli` speak on the terminal.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
pub mod auth;
pub mod bbolt;
pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod datadir;
pub mod dump;
pub mod engine;
pub mod identity;
pub mod import;
pub mod lease;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod mvcc;
pub mod pb;
pub mod raft;
pub mod server;
pub mod shutdown;
pub mod storage;
pub mod telemetry;
pub mod tls;
pub mod types;
pub mod version;
