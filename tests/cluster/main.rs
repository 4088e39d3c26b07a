//! Clusters of several members as clients and operators see them: real processes on loopback, which are killed, paused,
//! added and removed. `KVIST_TEST_SERVER=/path/to/etcd` runs the same tests against a real etcd.

mod bootstrap;
mod capture;
#[path = "../support/cluster/mod.rs"]
mod cluster;
mod corruption;
mod discovery;
mod etcdctl;
mod failover;
mod leases;
mod members;
mod metrics;
mod quorum;
mod recovery;
mod refusals;
mod replaced;
mod restored;
mod storage;
#[path = "../support/mod.rs"]
mod support;
mod watches;
mod wolf;

use std::fmt::Debug;

use tonic::{Code, Status};

/// Checks that a call failed with exactly this code and text.
#[track_caller]
fn expect_error<T: Debug>(result: Result<T, Status>, code: Code, text: &str) {
    let status = result.expect_err("the call must fail");
    assert_eq!((status.code(), status.message()), (code, text));
}
