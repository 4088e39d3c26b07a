//! Black-box compatibility tests: one running server, the wire protocol, nothing of kvist inside.

#[path = "../support/mod.rs"]
mod support;

mod backup_in;
mod backup_out;
mod client;
mod cluster;
mod compact;
mod etcdctl;
mod etcdctl_watch;
mod header;
mod health;
mod kv_mvcc;
mod kv_put_delete;
mod kv_range;
mod kv_range_model;
mod large_read;
mod lease;
mod lease_expiry;
mod limits;
mod limits_keys;
mod maintenance;
mod quota;
mod range_stream;
mod robustness;
mod robustness_grpc;
mod rpc;
mod snapshot;
mod txn;
mod txn_compare;
mod txn_shape;
mod watch;
mod watch_client;
mod watch_order;
mod watch_progress;
mod watch_resume;
mod watch_slow;
