//! Black-box compatibility tests: one running server, the wire protocol, nothing of kvist inside.

#[path = "../support/mod.rs"]
mod support;

mod etcdctl;
mod etcdctl_watch;
mod health;
mod lease;
mod lease_expiry;
mod maintenance;
mod quota;
mod robustness;
mod robustness_grpc;
mod watch;
mod watch_client;
mod watch_order;
mod watch_progress;
mod watch_resume;
mod watch_slow;
