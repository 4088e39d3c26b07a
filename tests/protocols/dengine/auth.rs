//! Users: the protocol knows none, so nobody gets in once etcd's API has turned auth on, unless he shows a token.

use super::client::{Client, Session, insert, own, refused};
use kvist::pb::authpb::{Permission, permission::Type};
use kvist::pb::d_engine::client as pb;
use kvist::pb::etcdserverpb as etcd;
use tonic::{Code, Request};

/// A server whose user `reader` may read and write below `/mine/`; the token of that user, and of root.
async fn with_users() -> (Session, [String; 2]) {
    let client = own(&["--bcrypt-cost=4"]);
    client.put("/mine/a", "1").await;
    client.put("/other/a", "1").await;
    let mut auth = client.etcd.auth.clone();
    for name in ["root", "reader"] {
        auth.role_add(etcd::AuthRoleAddRequest { name: name.into() }).await.expect("role");
        let user =
            etcd::AuthUserAddRequest { name: name.into(), password: name.into(), ..Default::default() };
        auth.user_add(user).await.expect("user");
        auth.user_grant_role(etcd::AuthUserGrantRoleRequest { user: name.into(), role: name.into() })
            .await
            .expect("grant");
    }
    let perm = Permission {
        perm_type: Type::Readwrite as i32,
        key: b"/mine/".to_vec(),
        range_end: b"/mine0".to_vec(),
    };
    auth.role_grant_permission(etcd::AuthRoleGrantPermissionRequest {
        name: "reader".into(),
        perm: Some(perm),
    })
    .await
    .expect("permission");
    auth.auth_enable(etcd::AuthEnableRequest {}).await.expect("enable");
    let mut tokens = [String::new(), String::new()];
    for (token, name) in tokens.iter_mut().zip(["reader", "root"]) {
        let login = etcd::AuthenticateRequest { name: name.into(), password: name.into() };
        *token = auth.authenticate(login).await.expect("login").into_inner().token;
    }
    (client, tokens)
}

fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().expect("plain text"));
    request
}

fn read(key: &'static str) -> pb::ClientReadRequest {
    pb::ClientReadRequest { client_id: 7, keys: vec![key.into()], consistency_policy: Some(2) }
}

fn write(key: &'static str) -> pb::ClientWriteRequest {
    let command = Some(pb::WriteCommand { operation: Some(insert(key, "2", 1)) });
    pb::ClientWriteRequest { client_id: 7, command }
}

/// UNAUTHENTICATED for all: the crate reads PERMISSION_DENIED as "this node does not lead".
#[tokio::test]
async fn nobody_in_particular_is_refused_every_call() {
    let (client, _) = with_users().await;
    let Client { mut kv, mut cluster, .. } = (*client).clone();
    refused(client.try_read(&["/mine/a"], None).await, Code::Unauthenticated);
    refused(client.try_write(insert("/mine/a", "2", 0)).await, Code::Unauthenticated);
    refused(client.try_write(insert("/mine/a", "2", 5)).await, Code::Unauthenticated);
    refused(client.try_write(super::client::delete("/mine/a")).await, Code::Unauthenticated);
    let scan = pb::ScanRequest { client_id: 7, prefix: "/mine/".into() };
    refused(kv.handle_client_scan(scan).await, Code::Unauthenticated);
    refused(client.try_watch("/mine/a", false, false).await.map(drop), Code::Unauthenticated);
    refused(kv.watch_membership(pb::WatchMembershipRequest::default()).await, Code::Unauthenticated);
    let metadata = kvist::pb::d_engine::server::cluster::MetadataRequest {};
    refused(cluster.get_cluster_metadata(metadata).await, Code::Unauthenticated);
}

#[tokio::test]
async fn tokens_of_etcds_api_are_good_for_what_their_users_may() {
    let (client, [reader, root]) = with_users().await;
    let Client { mut kv, mut cluster, .. } = (*client).clone();
    kv.handle_client_read(by(&reader, read("/mine/a"))).await.expect("may read");
    kv.handle_client_write(by(&reader, write("/mine/b"))).await.expect("may write");
    kv.watch(by(&reader, pb::WatchRequest { key: "/mine/".into(), prefix: true, ..Default::default() }))
        .await
        .expect("may watch");
    let metadata = kvist::pb::d_engine::server::cluster::MetadataRequest {};
    cluster.get_cluster_metadata(by(&reader, metadata)).await.expect("is known");
    refused(kv.handle_client_read(by(&reader, read("/other/a"))).await, Code::Unauthenticated);
    refused(kv.handle_client_write(by(&reader, write("/other/a"))).await, Code::Unauthenticated);
    let scan = || pb::ScanRequest { client_id: 7, prefix: "/".into() };
    refused(kv.handle_client_scan(by(&reader, scan())).await, Code::Unauthenticated);
    let watch = pb::WatchRequest { key: "/other/a".into(), ..Default::default() };
    refused(kv.watch(by(&reader, watch)).await.map(drop), Code::Unauthenticated);
    let found = kv.handle_client_scan(by(&root, scan())).await.expect("root may").into_inner();
    assert!(found.entries.len() >= 2);
    refused(kv.handle_client_read(by("nonsense", read("/mine/a"))).await, Code::Unauthenticated);
}
