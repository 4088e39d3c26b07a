//! With and without a quorum: who answers what.

use kvist::pb::etcdserverpb as pb;
use tonic::Code;

use crate::cluster::Cluster;
use crate::cluster::api::with_leader;
use crate::expect_error;

/// Without a quorum, local reads are answered, and nothing else; with it, everything goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_alone_answers_local_reads_only() {
    let mut cluster = Cluster::start(3).await;
    cluster.api(0).put("key", "1").await.expect("put");
    let api = cluster.api(2);
    assert_eq!(api.value("key").await.as_deref(), Some("1"));
    cluster.members[0].kill();
    cluster.members[1].kill();
    let local = api.get("key", true).await.expect("a local read").expect("a pair");
    assert_eq!(local.value, b"1");
    // A client that asks for a leader learns at once that there is none.
    crate::cluster::eventually("the member to miss its leader", crate::cluster::READY_TIMEOUT, || {
        let api = api.clone();
        async move { (api.status().await.ok()?.leader == 0).then_some(()) }
    })
    .await;
    let put = pb::PutRequest { key: b"key".into(), value: b"2".into(), ..Default::default() };
    let refused = api.kv.clone().put(with_leader(put.clone())).await;
    expect_error(refused, Code::Unavailable, "etcdserver: no leader");
    let status = api.status().await.expect("status");
    assert!(status.errors.iter().any(|text| text == "etcdserver: no leader"), "{status:?}");
    let (write, read) = tokio::join!(api.put("key", "2"), api.get("key", false));
    for code in [write.map(drop).unwrap_err().code(), read.map(drop).unwrap_err().code()] {
        assert!(matches!(code, Code::Unavailable | Code::DeadlineExceeded), "{code:?}");
    }
    cluster.start_all();
    cluster.leader().await;
    api.put("key", "3").await.expect("put");
    assert_eq!(api.value("key").await.as_deref(), Some("3"));
}

/// A follower takes every kind of write, and its own reads show what it acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_takes_writes_of_every_kind() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.other(leader);
    let api = cluster.api(follower);
    let lease = api.grant(600).await.expect("grant");
    let put = pb::PutRequest { key: b"key".into(), value: b"1".into(), lease, ..Default::default() };
    api.kv.clone().put(put.clone()).await.expect("put");
    assert_eq!(api.get("key", true).await.expect("get").expect("a pair").lease, lease);
    let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) };
    let txn = pb::TxnRequest { success: vec![op], ..Default::default() };
    assert!(api.kv.clone().txn(txn).await.expect("txn").into_inner().succeeded);
    let pair = api.get("key", true).await.expect("get").expect("a pair");
    assert_eq!(pair.version, 2);
    api.lease.clone().lease_revoke(pb::LeaseRevokeRequest { id: lease }).await.expect("revoke");
    assert_eq!(api.get("key", true).await.expect("get"), None);
    let delete = pb::DeleteRangeRequest { key: b"key".into(), ..Default::default() };
    assert_eq!(api.kv.clone().delete_range(delete).await.expect("delete").into_inner().deleted, 0);
    let compact = pb::CompactionRequest { revision: pair.mod_revision, physical: true };
    api.kv.clone().compact(compact).await.expect("compact");
    for index in [0, 1, 2] {
        let old = pb::RangeRequest { key: b"key".into(), revision: 1, ..Default::default() };
        let refused = cluster.api(index).kv.clone().range(old).await;
        expect_error(refused, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    }
}

/// Users made by way of a follower may log in at every member.
#[tokio::test(flavor = "multi_thread")]
async fn users_are_known_on_all_members() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.other(leader);
    let mut auth = cluster.api(follower).auth;
    let user =
        pb::AuthUserAddRequest { name: "root".into(), password: "secret".into(), ..Default::default() };
    auth.user_add(user).await.expect("user add");
    let role = pb::AuthRoleAddRequest { name: "root".into() };
    auth.role_add(role).await.expect("role add");
    let grant = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    auth.user_grant_role(grant).await.expect("grant role");
    auth.auth_enable(pb::AuthEnableRequest {}).await.expect("enable");
    for (index, api) in cluster.apis().into_iter().enumerate() {
        crate::cluster::eventually("users to arrive", crate::cluster::READY_TIMEOUT, || {
            let api = api.clone();
            async move { api.put("key", "0").await.is_err().then_some(()) }
        })
        .await;
        let login = pb::AuthenticateRequest { name: "root".into(), password: "secret".into() };
        let token = api.auth.clone().authenticate(login).await.expect("authenticate").into_inner().token;
        // The token is good on the other members too.
        let other = cluster.api((index + 1) % 3);
        let put = pb::PutRequest { key: b"key".into(), value: b"1".into(), ..Default::default() };
        let mut request = tonic::Request::new(put);
        request.metadata_mut().insert("token", token.parse().expect("plain text"));
        other.kv.clone().put(request).await.expect("put by root");
    }
}
