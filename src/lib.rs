//! kvist: a server for the etcd v3 API over LMDB and openraft.

pub mod pb;
pub mod engine;
pub mod lease;
pub mod mvcc;
pub mod storage;
pub mod types;
