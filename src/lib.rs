//! kvist: a server for the etcd v3 API over LMDB and openraft.

pub mod config;
pub mod datadir;
pub mod limits;
pub mod logging;
pub mod pb;
pub mod server;
pub mod shutdown;
pub mod version;
