//! Users and roles: who may do what, and what a client with a stale token does.

use etcd_client::{
    Client, ConnectOptions, Error, GetOptions, Permission, PermissionType, RoleRevokePermissionOptions,
    UserAddOptions, WatchOptions,
};

use crate::control::Server;
use crate::help::*;
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("auth/users and roles", users_and_roles),
    crate::case!("auth/enable needs root", enable_needs_root),
    crate::case!("auth/permissions decide", permissions),
    crate::case!("auth/wrong password, nobody, no user", wrong_password),
    crate::case!("auth/a watch needs the permission", watch_denied),
    crate::case!("auth/changed permissions count at once", changed),
    crate::case!("auth/an expired token is renewed", renewed, ["--auth-token-ttl=4"]),
    crate::case!("auth/another user on the same client", another_user),
    crate::case!("auth/disable", disable),
];

const DENIED: &str = "etcdserver: permission denied";

/// Makes root (password "r") and "ann" (password "a", may read and write below "a/" and read "b"), and turns users on.
async fn with_users(server: &Server) {
    let mut client = connect(server).await;
    client.user_add("root", "r", None).await.expect("user add");
    client.user_grant_role("root", "root").await.expect("grant role");
    client.user_add("ann", "a", None).await.expect("user add");
    client.role_add("reader").await.expect("role add");
    let all = Permission::read_write("a/").with_prefix();
    client.role_grant_permission("reader", all).await.expect("grant permission");
    client.role_grant_permission("reader", Permission::read("b")).await.expect("grant permission");
    client.user_grant_role("ann", "reader").await.expect("grant role");
    put(&mut client, &["a/x=1", "b=2", "c=3"]).await;
    client.auth_enable().await.expect("enable");
}

async fn connect_as(server: &Server, name: &str, password: &str) -> Client {
    connect_with(server, ConnectOptions::new().with_user(name, password)).await
}

async fn users_and_roles(server: Server) {
    let mut client = connect(&server).await;
    client.user_add("ann", "a", None).await.expect("user add");
    client.user_add("bob", "", Some(UserAddOptions::new().with_no_pwd())).await.expect("user add");
    assert_eq!(
        refused(client.user_add("ann", "a", None).await),
        status(FAILED_PRECONDITION, "etcdserver: user name already exists")
    );
    assert_eq!(
        refused(client.user_add("", "a", None).await),
        status(INVALID_ARGUMENT, "etcdserver: user name is empty")
    );
    assert_eq!(client.user_list().await.expect("users").users(), ["ann", "bob"]);
    for role in ["r2", "r1"] {
        client.role_add(role).await.expect("role add");
    }
    assert_eq!(client.role_list().await.expect("roles").roles(), ["r1", "r2"]);
    assert_eq!(
        refused(client.role_add("r1").await),
        status(FAILED_PRECONDITION, "etcdserver: role name already exists")
    );
    for role in ["r2", "r1"] {
        client.user_grant_role("ann", role).await.expect("grant role");
    }
    assert_eq!(client.user_get("ann").await.expect("user").roles(), ["r1", "r2"]);
    assert_eq!(
        refused(client.user_grant_role("ann", "r3").await),
        status(FAILED_PRECONDITION, "etcdserver: role name not found")
    );
    let range = Permission::new(PermissionType::Write, "k").with_range_end("m");
    client.role_grant_permission("r1", range).await.expect("grant permission");
    client.role_grant_permission("r1", Permission::read("k")).await.expect("grant permission");
    let permissions = client.role_get("r1").await.expect("role").permissions();
    let shown: Vec<_> =
        permissions.iter().map(|one| (one.get_type(), text(one.key()), text(one.range_end()))).collect();
    let (read, write) = (PermissionType::Read as i32, PermissionType::Write as i32);
    assert_eq!(shown, [(write, "k".into(), "m".into()), (read, "k".into(), String::new())]);
    let options = RoleRevokePermissionOptions::new().with_range_end("m");
    client.role_revoke_permission("r1", "k", Some(options.clone())).await.expect("revoke permission");
    assert_eq!(
        refused(client.role_revoke_permission("r1", "k", Some(options)).await),
        status(FAILED_PRECONDITION, "etcdserver: permission is not granted to the role")
    );
    client.user_revoke_role("ann", "r2").await.expect("revoke role");
    client.role_delete("r1").await.expect("role delete");
    assert!(client.user_get("ann").await.expect("user").roles().is_empty());
    client.user_change_password("ann", "b").await.expect("change password");
    client.user_delete("bob").await.expect("user delete");
    assert_eq!(
        refused(client.user_get("bob").await),
        status(FAILED_PRECONDITION, "etcdserver: user name not found")
    );
}

async fn enable_needs_root(server: Server) {
    let mut client = connect(&server).await;
    assert_eq!(
        refused(client.auth_enable().await),
        status(FAILED_PRECONDITION, "etcdserver: root user does not exist")
    );
    client.user_add("root", "r", None).await.expect("user add");
    assert_eq!(
        refused(client.auth_enable().await),
        status(FAILED_PRECONDITION, "etcdserver: root user does not have root role")
    );
}

async fn permissions(server: Server) {
    with_users(&server).await;
    let mut ann = connect_as(&server, "ann", "a").await;
    let denied = status(PERMISSION_DENIED, DENIED);
    put(&mut ann, &["a/y=2"]).await;
    assert_eq!(all(&mut ann, "a/").await, ["a/x=1", "a/y=2"]);
    assert_eq!(all(&mut ann, "a/x").await, ["a/x=1"]);
    assert_eq!(pairs(ann.get("b", None).await.expect("get").kvs()), ["b=2"]);
    assert_eq!(refused(ann.put("b", "3", None).await), denied);
    assert_eq!(refused(ann.get("c", None).await), denied);
    assert_eq!(refused(ann.get("a", Some(GetOptions::new().with_prefix())).await), denied);
    assert_eq!(refused(ann.delete("b", None).await), denied);
    assert_eq!(refused(ann.user_add("eve", "e", None).await), denied);
    assert_eq!(refused(ann.compact(2, None).await), denied);
    let mut root = connect_as(&server, "root", "r").await;
    assert_eq!(all(&mut root, "").await, ["a/x=1", "a/y=2", "b=2", "c=3"]);
}

async fn wrong_password(server: Server) {
    with_users(&server).await;
    for (name, password) in [("ann", "b"), ("nobody", "a")] {
        let options = ConnectOptions::new().with_user(name, password);
        match Client::connect([&server.endpoint], Some(options)).await {
            Err(Error::GRpcStatus(status)) => {
                assert_eq!(
                    (status.code() as i32, status.message()),
                    (INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password")
                );
            }
            other => panic!("{:?}", other.map(drop)),
        }
    }
    let mut anybody = connect(&server).await;
    assert_eq!(
        refused(anybody.get("b", None).await),
        status(INVALID_ARGUMENT, "etcdserver: user name is empty")
    );
}

async fn watch_denied(server: Server) {
    with_users(&server).await;
    let mut ann = connect_as(&server, "ann", "a").await;
    let mut stream = ann.watch("a/", Some(WatchOptions::new().with_prefix())).await.expect("watch");
    assert!(next(&mut stream).await.created());
    put(&mut ann, &["a/y=2"]).await;
    let response = next(&mut stream).await;
    assert_eq!(response.events().len(), 1);
    stream.watch("c", None).await.expect("watch");
    let refused = next(&mut stream).await;
    assert!(refused.created() && refused.canceled() && refused.watch_id() == -1, "{refused:?}");
    assert_eq!(refused.cancel_reason(), format!("rpc error: code = PermissionDenied desc = {DENIED}"));
}

async fn changed(server: Server) {
    with_users(&server).await;
    let mut ann = connect_as(&server, "ann", "a").await;
    let mut root = connect_as(&server, "root", "r").await;
    assert_eq!(all(&mut ann, "a/x").await, ["a/x=1"]);
    root.user_revoke_role("ann", "reader").await.expect("revoke role");
    assert_eq!(refused(ann.get("a/x", None).await), status(PERMISSION_DENIED, DENIED));
    root.user_grant_role("ann", "reader").await.expect("grant role");
    assert_eq!(all(&mut ann, "a/x").await, ["a/x=1"]);
}

/// Tokens end after four seconds without use. With automatic renewal a client does not notice.
async fn renewed(server: Server) {
    with_users(&server).await;
    let mut stale = connect_as(&server, "ann", "a").await;
    let options = ConnectOptions::new().with_user("ann", "a").with_auto_token_refresh(true);
    let mut fresh = connect_with(&server, options).await;
    // A call would keep the token of `stale` alive; so ask rarely.
    let deadline = std::time::Instant::now() + REPLY_TIMEOUT;
    let answer = loop {
        tokio::time::sleep(std::time::Duration::from_millis(5500)).await;
        match stale.get("b", None).await {
            Ok(_) => assert!(std::time::Instant::now() < deadline, "the token does not end"),
            Err(error) => break Err::<(), _>(error),
        }
    };
    assert_eq!(refused(answer), status(UNAUTHENTICATED, "etcdserver: invalid auth token"));
    assert_eq!(pairs(fresh.get("b", None).await.expect("get").kvs()), ["b=2"]);
    stale.refresh_token().await.expect("a new token");
    assert_eq!(pairs(stale.get("b", None).await.expect("get").kvs()), ["b=2"]);
}

async fn another_user(server: Server) {
    with_users(&server).await;
    let mut client = connect_as(&server, "ann", "a").await;
    assert_eq!(refused(client.get("c", None).await), status(PERMISSION_DENIED, DENIED));
    client.update_user(Some(("root".to_owned(), "r".to_owned()))).await.expect("log in as root");
    assert_eq!(pairs(client.get("c", None).await.expect("get").kvs()), ["c=3"]);
    let wrong = client.update_user(Some(("ann".to_owned(), "wrong".to_owned()))).await;
    assert_eq!(
        refused(wrong),
        status(INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password")
    );
    assert_eq!(pairs(client.get("c", None).await.expect("get").kvs()), ["c=3"], "still root");
}

async fn disable(server: Server) {
    with_users(&server).await;
    let mut root = connect_as(&server, "root", "r").await;
    root.auth_disable().await.expect("disable");
    let mut anybody = connect(&server).await;
    assert_eq!(all(&mut anybody, "").await, ["a/x=1", "b=2", "c=3"]);
    let options = ConnectOptions::new().with_user("ann", "a");
    let login = Client::connect([&server.endpoint], Some(options)).await.map(drop);
    assert_eq!(refused(login), status(FAILED_PRECONDITION, "etcdserver: authentication is not enabled"));
}
