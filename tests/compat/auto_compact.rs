//! Compaction by the server itself: contract 8. The schedule in detail is a matter of unit tests.

use std::time::Duration;

use tonic::Code;

use crate::client::{COMPACTED, expect_error, get, own};

/// A period of a second: history older than that goes, the newest version of a key stays, and the log says so.
#[tokio::test]
async fn contract_8_auto_compaction_by_time() {
    let c = own(&["--auto-compaction-mode=periodic", "--auto-compaction-retention=1s"]).await;
    let old = c.put("a", "1").await;
    c.put("a", "2").await;
    let at_old = || c.try_range(kvist::pb::etcdserverpb::RangeRequest { revision: old, ..get("a") });
    let compacted = async {
        while at_old().await.is_ok() {
            c.put("b", "").await; // an idle store is compacted once
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), compacted).await.expect("history goes");
    expect_error(at_old().await, Code::OutOfRange, COMPACTED);
    assert_eq!(c.get("a").await.expect("the key stays").value, b"2");
    let logged = |text: &str| c.server().log_lines().iter().any(|line| line.contains(text));
    crate::support::wait_until("the log", Duration::from_secs(10), || {
        logged("starting auto periodic compaction") && logged("completed auto periodic compaction")
    });
}
