//! Response headers of KV, Compact, Cluster and Lease calls: contract 3.

use kvist::pb::etcdserverpb as pb;
use pb::ResponseHeader;

use crate::client::{Stop, ToOp, delete, get, own, put, txn};

/// Contract 3: who answered is the same everywhere; the revision is that of the call, 0 only for Cluster calls.
#[tokio::test]
async fn contract_3_headers_of_every_call() {
    let c = own(&[]).await;
    let first = c.range(get("h")).await.header.expect("header");
    assert!(first.cluster_id != 0 && first.member_id != 0 && first.raft_term > 0);
    assert_eq!(first.revision, 1);
    let at = |revision| Some(ResponseHeader { revision, ..first });
    assert_eq!(c.try_put(put("h", "")).await.expect("put").header, at(2));
    assert_eq!(c.range(pb::RangeRequest { revision: 1, ..get("h") }).await.header, at(2));
    assert_eq!(c.range(pb::RangeRequest { serializable: true, ..get("h") }).await.header, at(2));
    assert_eq!(c.txn(txn([], [put("h", "").op()], [])).await.header, at(3));
    assert_eq!(c.txn(txn([], [get("h").op()], [])).await.header, at(3));
    assert_eq!(c.delete(delete("h")).await.header, at(4));
    assert_eq!(c.delete(delete("h")).await.header, at(4));
    assert_eq!(c.compact(2).await.header, at(4));
    for linearizable in [false, true] {
        let members = c.cluster.clone().member_list(pb::MemberListRequest { linearizable }).await;
        assert_eq!(
            members.expect("member list").into_inner().header,
            at(0),
            "Cluster calls tell no revision"
        );
    }
    let mut lease = c.lease.clone();
    let granted =
        lease.lease_grant(pb::LeaseGrantRequest { ttl: 600, id: 0 }).await.expect("grant").into_inner();
    assert_eq!(granted.header, at(4));
    let id = granted.id;
    c.try_put(pb::PutRequest { lease: id, ..put("h", "") }).await.expect("put");
    let asked = pb::LeaseTimeToLiveRequest { id, keys: false };
    assert_eq!(lease.lease_time_to_live(asked).await.expect("time to live").into_inner().header, at(5));
    let leases = lease.lease_leases(pb::LeaseLeasesRequest {}).await.expect("leases").into_inner();
    assert_eq!(leases.header, at(5));
    assert_eq!(c.revoke(id).await.header, at(6));
    let status = c.maintenance.clone().status(pb::StatusRequest {}).await.expect("status").into_inner();
    assert_eq!(status.header, at(6));
    let mut stream = c.kv.clone().range_stream(get("h")).await.expect("range stream").into_inner();
    let last = stream.message().await.expect("a healthy stream").expect("a message");
    assert_eq!(last.range_response.expect("a response").header, at(6));
}

/// Contract 3: cluster and member ids stay over a restart; the term never falls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_3_ids_over_a_restart() {
    let mut c = own(&[]).await;
    c.put("h", "").await;
    let before = c.range(get("h")).await.header.expect("header");
    c.restart(Stop::Terminate).await;
    let after = c.range(get("h")).await.header.expect("header");
    assert_eq!((after.cluster_id, after.member_id, after.revision), (before.cluster_id, before.member_id, 2));
    assert!(after.raft_term >= before.raft_term);
}
