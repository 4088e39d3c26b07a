//! Who may: users, roles and tokens are etcd's.

use kvist::pb::authpb::{Permission, permission::Type};
use kvist::pb::etcdserverpb as etcd;
use kvist::pb::oxia as pb;
use pb::BatchRequest;
use tonic::Code;

use super::client::{
    Client, delete, delete_range, get, get_error, get_range, is_not_found, next_assignments, put, refuses,
    stat,
};
use crate::support::Server;

const NOBODY: &str = "etcdserver: user name is empty";
const DENIED: &str = "etcdserver: permission denied";

/// A user whose password is its name, with one role of the same name.
async fn add(client: &Client, name: &str, permission: Option<(Type, &str, &str)>) {
    let mut auth = client.etcd.auth.clone();
    let user = etcd::AuthUserAddRequest { name: name.into(), password: name.into(), ..Default::default() };
    auth.user_add(user).await.expect("add a user");
    auth.role_add(etcd::AuthRoleAddRequest { name: name.into() }).await.expect("add a role");
    if let Some((kind, key, range_end)) = permission {
        let (key, range_end) = (key.into(), range_end.into());
        let perm = Some(Permission { perm_type: kind.into(), key, range_end });
        let grant = etcd::AuthRoleGrantPermissionRequest { name: name.into(), perm };
        auth.role_grant_permission(grant).await.expect("grant a permission");
    }
    let grant = etcd::AuthUserGrantRoleRequest { user: name.into(), role: name.into() };
    auth.user_grant_role(grant).await.expect("grant a role");
}

async fn login(client: &Client, name: &str) -> Client {
    let request = etcd::AuthenticateRequest { name: name.into(), password: name.into() };
    let token = client.etcd.auth.clone().authenticate(request).await.expect("log in").into_inner().token;
    client.with_token(&token)
}

/// A server with users; nobody in particular, root, and some more of them.
async fn with_users() -> (Client, Client) {
    let client = Client::of(Server::start_with(&["--bcrypt-cost=4"])).await;
    add(&client, "root", None).await;
    add(&client, "both", Some((Type::Readwrite, "a/", "a0"))).await;
    add(&client, "reader", Some((Type::Read, "a/", "a0"))).await;
    add(&client, "all", Some((Type::Readwrite, "\0", "\0"))).await;
    add(&client, "writer", Some((Type::Write, "a/", "a0"))).await;
    client.etcd.auth.clone().auth_enable(etcd::AuthEnableRequest {}).await.expect("enable");
    let root = login(&client, "root").await;
    (client, root)
}

fn puts(key: &str) -> BatchRequest {
    BatchRequest { puts: vec![put(key, "x")], ..Default::default() }
}

#[tokio::test]
async fn nobody_in_particular_may_nothing() {
    let (nobody, root) = with_users().await;
    refuses(nobody.try_batch(puts("a/1")).await, Code::InvalidArgument, NOBODY);
    let gets = vec![get("a/1")];
    let reads = BatchRequest { gets, ..Default::default() };
    refuses(nobody.try_batch(reads).await, Code::InvalidArgument, NOBODY);
    refuses(nobody.assignments().await, Code::InvalidArgument, NOBODY);
    let wrong = nobody.with_token("wrong");
    refuses(wrong.try_batch(puts("a/1")).await, Code::Unauthenticated, "etcdserver: invalid auth token");
    assert_eq!(stat(&root.put(put("b/1", "x")).await).version, 0);
    assert_eq!(next_assignments(&mut root.assignments().await.expect("a stream")).await.len(), 1);
}

#[tokio::test]
async fn a_batch_needs_the_permissions_of_all_its_items() {
    let (nobody, root) = with_users().await;
    let both = login(&nobody, "both").await;
    assert_eq!(stat(&both.put(put("a/1", "x")).await).version, 0);
    let denied = [
        puts("b/1"),
        BatchRequest { deletes: vec![delete("b/1")], ..puts("a/2") },
        BatchRequest { gets: vec![get("b/1")], ..puts("a/2") },
        BatchRequest { get_ranges: vec![get_range("a/", "", false)], ..puts("a/2") },
        BatchRequest { delete_ranges: vec![delete_range("", "b")], ..puts("a/2") },
        BatchRequest { gets: vec![get("b/1")], ..Default::default() },
    ];
    for request in denied {
        refuses(both.try_batch(request).await, Code::PermissionDenied, DENIED);
    }
    is_not_found(get_error(&root.get("a/2").await));
    assert_eq!(both.delete_range("a/", "a0").await, ["a/1"]);
    // Whoever has all keys may ask for all keys.
    let all = login(&nobody, "all").await;
    all.put(put("z", "x")).await;
    assert_eq!(all.list("", "").await.len(), 1);
    assert_eq!(all.delete_range("", "").await, ["z"]);
    assert_eq!(next_assignments(&mut both.assignments().await.expect("a stream")).await.len(), 1);
}

/// The answer to a put tells something of the key, so it takes both permissions; a plain delete takes one.
#[tokio::test]
async fn a_put_reads_and_writes() {
    let (nobody, root) = with_users().await;
    root.put(put("a/1", "x")).await;
    let (reader, writer) = (login(&nobody, "reader").await, login(&nobody, "writer").await);
    refuses(reader.try_batch(puts("a/1")).await, Code::PermissionDenied, DENIED);
    refuses(writer.try_batch(puts("a/1")).await, Code::PermissionDenied, DENIED);
    let gets = BatchRequest { gets: vec![get("a/1")], ..Default::default() };
    refuses(writer.try_batch(gets).await, Code::PermissionDenied, DENIED);
    assert_eq!(reader.get("a/1").await.payload.as_deref(), Some(&b"x"[..]));
    assert_eq!(writer.delete(delete("a/1")).await.error, None);
}
