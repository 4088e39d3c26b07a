//! Users, tokens and permissions: those of etcd's API, made by its Auth service.

use kvist::pb::authpb::{Permission, UserAddOptions, permission::Type};
use kvist::pb::etcdserverpb as v3;
use kvist::pb::rfc as pb;
use tonic::{Code, Request, Status};
use v3::auth_client::AuthClient;

use super::client::{Client, attachment, put, put_op, range, range_op, refused, sound, start, tnx, watch};

const DENIED: (Code, &str) = (Code::PermissionDenied, "etcdserver: permission denied");
const NOBODY: (Code, &str) = (Code::InvalidArgument, "etcdserver: user name is empty");

/// A request with a token.
fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("token", token.parse().expect("plain text"));
    }
    request
}

#[track_caller]
fn fails<T: std::fmt::Debug>(answer: Result<T, Status>, (code, text): (Code, &str)) {
    let status = answer.expect_err("the call must fail");
    assert_eq!((status.code(), status.message()), (code, text));
}

/// Makes root and a user `u`, who may read and write what begins with `u`, and turns auth on; their tokens.
async fn with_users(client: &Client) -> (String, String) {
    let mut auth = AuthClient::new(client.channel.clone());
    for name in ["root", "u"] {
        let options = Some(UserAddOptions { no_password: false });
        let request = v3::AuthUserAddRequest {
            name: name.into(),
            password: name.into(),
            options,
            ..Default::default()
        };
        auth.user_add(request).await.expect("add a user");
        auth.role_add(v3::AuthRoleAddRequest { name: name.into() }).await.expect("add a role");
        let request = v3::AuthUserGrantRoleRequest { user: name.into(), role: name.into() };
        auth.user_grant_role(request).await.expect("grant a role");
    }
    let perm = Permission { perm_type: Type::Readwrite as i32, key: "u".into(), range_end: "v".into() };
    let request = v3::AuthRoleGrantPermissionRequest { name: "u".into(), perm: Some(perm) };
    auth.role_grant_permission(request).await.expect("grant a permission");
    auth.auth_enable(v3::AuthEnableRequest {}).await.expect("enable");
    let mut tokens = Vec::new();
    for name in ["root", "u"] {
        let request = v3::AuthenticateRequest { name: name.into(), password: name.into() };
        tokens.push(auth.authenticate(request).await.expect("log in").into_inner().token);
    }
    (tokens[0].clone(), tokens[1].clone())
}

#[tokio::test]
async fn permissions_are_those_of_etcd() {
    let (_server, client) = start(&["--bcrypt-cost=4"]).await;
    let mut rfc = client.rfc.clone();
    client.put("a", "").await;
    let (root, user) = with_users(&client).await;
    fails(rfc.put(put("u1", "")).await, NOBODY);
    fails(rfc.range(range("u1", "")).await, NOBODY);
    fails(
        rfc.range(by("none", range("u1", ""))).await,
        (Code::Unauthenticated, "etcdserver: invalid auth token"),
    );

    let written = rfc.put(by(&user, put("u1", "v"))).await.expect("allowed").into_inner();
    sound(&written.header);
    let found = rfc.range(by(&user, range("u", "v"))).await.expect("allowed").into_inner();
    assert_eq!(found.kvs.len(), 1);
    fails(rfc.put(by(&user, put("a", ""))).await, DENIED);
    fails(rfc.range(by(&user, range("a", "z"))).await, DENIED);
    let request = pb::DeleteRangeRequest { key: put("t", "").key, range_end: put("v", "").key };
    fails(rfc.delete_range(by(&user, request)).await, DENIED);
    // Both lists count, and so do reads.
    fails(rfc.tnx(by(&user, tnx([], [put_op("u1", "")], [range_op("a", "")]))).await, DENIED);
    fails(rfc.tnx(by(&user, tnx([], [range_op("a", "")], []))).await, DENIED);
    fails(rfc.compact(by(&user, pb::CompactionRequest { index: Some(1) })).await, DENIED);
    rfc.put(by(&root, put("a", ""))).await.expect("root may");

    fails(rfc.lease_create(pb::LeaseCreateRequest::default()).await, NOBODY);
    let created =
        rfc.lease_create(by(&user, pb::LeaseCreateRequest { ttl: Some(600) })).await.expect("allowed");
    let lease = created.into_inner().lease_id.expect("an id");
    let attached = rfc.lease_attach(by(&user, attachment(lease, "u1"))).await.expect("allowed");
    sound(&attached.into_inner().header);
    fails(rfc.lease_attach(by(&user, attachment(lease, "a"))).await, DENIED);
    // Whoever may end a lease may delete all its keys.
    rfc.lease_attach(by(&root, attachment(lease, "a"))).await.expect("root may");
    fails(rfc.lease_attach(by(&user, attachment(lease, "u1"))).await, DENIED);
    fails(rfc.lease_revoke(by(&user, pb::LeaseRevokeRequest { lease_id: Some(lease) })).await, DENIED);
    let revoked = rfc.lease_revoke(by(&root, pb::LeaseRevokeRequest { lease_id: Some(lease) })).await;
    sound(&revoked.expect("root may").into_inner().header);
}

/// A watch of keys that the caller may not read is refused by itself.
#[tokio::test]
async fn a_watch_that_is_not_allowed_does_not_end_the_stream() {
    let (_server, client) = start(&["--bcrypt-cost=4"]).await;
    let (_, user) = with_users(&client).await;
    let mut rfc = client.rfc.clone();
    let requests = [watch("a", "z"), watch("u", "v"), pb::WatchRangeRequest::default()];
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    for request in requests {
        sender.send(request).await.expect("room");
    }
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = rfc.watch_range(by(&user, requests)).await.expect("a stream").into_inner();
    let mut next = async || answers.message().await.expect("a healthy stream").expect("more to come");
    refused(&next().await.header, DENIED.1);
    refused(&next().await.header, super::client::EMPTY_KEY);
    rfc.put(by(&user, put("u1", "v"))).await.expect("allowed");
    assert_eq!(next().await.events.len(), 1);
}
