//! Users and roles, contract 1.12 rows A-1 to A-7 and A-12: what may be managed, by whom, and how the revision grows.

use base64::Engine;
use kvist::pb::authpb::permission::Type::{Read, Readwrite, Write};
use kvist::pb::etcdserverpb as pb;
use tonic::Code::{FailedPrecondition, InvalidArgument, Unknown};

use crate::auth_client::{
    AUTH_FAILED, As, DENIED, INVALID_TOKEN, USER_EMPTY, add_user, permission, refuses, server, with_root,
};

#[tokio::test]
async fn a_1_enabling_needs_root_and_happens_once() {
    let server = server(&[]);
    let nobody = As::nobody(&server).await;
    refuses(nobody.enable().await, (FailedPrecondition, "etcdserver: root user does not exist"));
    nobody.user_add("root").await.expect("add");
    refuses(nobody.enable().await, (FailedPrecondition, "etcdserver: root user does not have root role"));
    nobody.grant_role("root", "root").await.expect("the role root need not exist to be granted");
    nobody.disable().await.expect("disabling what is off is no error");
    assert!(!nobody.status().await.expect("status").enabled);
    nobody.enable().await.expect("enable");
    let root = nobody.login("root").await;
    root.enable().await.expect("enabling again changes nothing");
    let status = nobody.status().await.expect("anyone may ask");
    assert_eq!((status.enabled, status.auth_revision), (true, 3));
    root.disable().await.expect("disable");
    let status = root.status().await.expect("a token does not matter now");
    assert_eq!((status.enabled, status.auth_revision), (false, 4));
    nobody.user_list().await.expect("everyone may do everything");
    nobody.enable().await.expect("enable");
    refuses(root.user_list().await, INVALID_TOKEN); // disabling dropped all tokens
}

#[tokio::test]
async fn a_2_root_stays_while_auth_is_on() {
    let (_server, root, _) = with_root(&[]).await;
    let invalid = (InvalidArgument, "etcdserver: invalid auth management");
    root.role_add("root").await.expect("the role may exist");
    refuses(root.user_delete("root").await, invalid);
    refuses(root.role_delete("root").await, invalid);
    refuses(root.revoke_role("root", "root").await, invalid);
    root.disable().await.expect("disable");
    root.revoke_role("root", "root").await.expect("off, all may go");
    root.role_delete("root").await.expect("off, all may go");
    root.user_delete("root").await.expect("off, all may go");
}

#[tokio::test]
async fn a_3_a_4_users_and_passwords() {
    let (_server, root, nobody) = with_root(&[]).await;
    refuses(root.user_add("").await, USER_EMPTY);
    refuses(root.user_add("root").await, (FailedPrecondition, "etcdserver: user name already exists"));
    root.user_add_with("empty", "", false).await.expect("an empty password is one");
    nobody.authenticate("empty", "").await.expect("log in");
    refuses(nobody.authenticate("empty", "x").await, AUTH_FAILED);
    root.user_add_with("cn", "ignored", true).await.expect("no password");
    let given = "auth: authentication failed, password was given for no password user";
    refuses(nobody.authenticate("cn", "ignored").await, (Unknown, given));
    refuses(nobody.authenticate("who", "who").await, AUTH_FAILED);
    let too_long = "bcrypt: password length exceeds 72 bytes";
    refuses(root.user_add_with("long", &"p".repeat(73), false).await, (Unknown, too_long));
    root.user_add_with("long", &"p".repeat(72), false).await.expect("72 bytes are taken");
    nobody.authenticate("long", &"p".repeat(72)).await.expect("log in");
    let unknown = (FailedPrecondition, "etcdserver: user name not found");
    refuses(root.user_get("who").await, unknown);
    refuses(root.user_delete("who").await, unknown);
    refuses(root.change_password("who", "p").await, unknown);
    refuses(root.grant_role("who", "root").await, unknown);
    refuses(root.revoke_role("who", "root").await, unknown);
    root.change_password("long", "short").await.expect("change");
    refuses(nobody.authenticate("long", &"p".repeat(72)).await, AUTH_FAILED);
    nobody.authenticate("long", "short").await.expect("log in");
    // No new password at all: nobody can log in.
    root.change_password("long", "").await.expect("change");
    refuses(nobody.authenticate("long", "").await, AUTH_FAILED);
    assert_eq!(root.user_list().await.expect("list"), ["cn", "empty", "long", "root"]);
    root.user_delete("empty").await.expect("delete");
    assert_eq!(root.user_list().await.expect("list"), ["cn", "long", "root"]);
}

/// A password is given by its hash (A-3), as clients of older servers do.
#[tokio::test]
async fn a_3_a_changed_password_may_come_as_a_hash() {
    let (_server, root, nobody) = with_root(&[]).await;
    root.user_add("ann").await.expect("add");
    let change = |hashed_password: &str| {
        let request = pb::AuthUserChangePasswordRequest {
            name: "ann".into(),
            hashed_password: hashed_password.into(),
            ..Default::default()
        };
        let root = root.clone();
        async move { root.auth().user_change_password(root.request(request)).await }
    };
    // A published test vector: what bcrypt makes of U*U.
    let hash = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    change(&base64::engine::general_purpose::STANDARD.encode(hash)).await.expect("change");
    nobody.authenticate("ann", "U*U").await.expect("log in");
    let given = "auth: authentication failed, password was given for no password user";
    refuses(change("not base64!").await, (Unknown, given));
    refuses(nobody.authenticate("ann", "ann").await, AUTH_FAILED);
}

#[tokio::test]
async fn a_4_a_5_roles() {
    let (_server, root, _) = with_root(&[]).await;
    refuses(root.role_add("").await, (InvalidArgument, "etcdserver: role name is empty"));
    for role in ["b", "a", "c"] {
        root.role_add(role).await.expect("add");
    }
    refuses(root.role_add("a").await, (FailedPrecondition, "etcdserver: role name already exists"));
    let unknown = (FailedPrecondition, "etcdserver: role name not found");
    refuses(root.role_get("who").await, unknown);
    refuses(root.role_delete("who").await, unknown);
    refuses(root.grant("who", Read, "k", "").await, unknown);
    refuses(root.revoke("who", "k", "").await, unknown);
    root.user_add("ann").await.expect("add");
    root.user_add("bob").await.expect("add");
    refuses(root.grant_role("ann", "who").await, unknown);
    for role in ["c", "a", "b"] {
        root.grant_role("ann", role).await.expect("grant");
    }
    root.grant_role("bob", "a").await.expect("grant");
    let before = root.auth_revision().await;
    root.grant_role("ann", "a").await.expect("granting again is no error");
    assert_eq!(root.auth_revision().await, before, "and no change");
    assert_eq!(root.user_get("ann").await.expect("get"), ["a", "b", "c"]);
    root.revoke_role("ann", "b").await.expect("revoke");
    let not_held = (FailedPrecondition, "etcdserver: role is not granted to the user");
    refuses(root.revoke_role("ann", "b").await, not_held);
    refuses(root.revoke_role("ann", "who").await, not_held);
    root.role_delete("a").await.expect("delete");
    assert_eq!(root.user_get("ann").await.expect("get"), ["c"], "a deleted role leaves its holders");
    assert!(root.user_get("bob").await.expect("get").is_empty());
    assert_eq!(root.role_list().await.expect("list"), ["b", "c"]);
}

#[tokio::test]
async fn a_6_permissions_of_a_role() {
    let (_server, root, _) = with_root(&[]).await;
    root.role_add("r").await.expect("add");
    let nothing = pb::AuthRoleGrantPermissionRequest { name: "r".into(), perm: None };
    let answer = root.auth().role_grant_permission(root.request(nothing)).await;
    refuses(answer, (InvalidArgument, "etcdserver: permission not given"));
    let invalid = (InvalidArgument, "etcdserver: invalid auth management");
    for (key, range_end) in [("", ""), ("", "\0"), ("", "b"), ("b", "b"), ("b", "a"), ("b", "\0\0")] {
        refuses(root.grant("r", Read, key, range_end).await, invalid);
    }
    refuses(root.grant("who", Read, "b", "a").await, invalid); // the range is looked at first
    for (kind, key, range_end) in
        [(Read, "m", ""), (Write, "a", "c"), (Readwrite, "z", "\0"), (Read, "\0", "\0"), (Write, "m", "")]
    {
        root.grant("r", kind, key, range_end).await.expect("grant");
    }
    let held = root.role_get("r").await.expect("get");
    let expected = [
        permission(Read, "\0", "\0"),
        permission(Write, "a", "c"),
        permission(Write, "m", ""),
        permission(Readwrite, "z", "\0"),
    ];
    assert_eq!(held, expected);
    let missing = (FailedPrecondition, "etcdserver: permission is not granted to the role");
    refuses(root.revoke("r", "a", "b").await, missing);
    refuses(root.revoke("r", "a", "").await, missing);
    root.revoke("r", "a", "c").await.expect("revoke");
    refuses(root.revoke("r", "a", "c").await, missing);
    root.role_add("root").await.expect("add");
    root.grant("root", Read, "only", "").await.expect("grant");
    assert_eq!(root.role_get("root").await.expect("get"), [permission(Readwrite, "", "\0")]);
}

#[tokio::test]
async fn a_12_the_revision_counts_effective_changes() {
    let (_server, root, nobody) = with_root(&[]).await;
    let mut expected = root.auth_revision().await;
    assert_eq!(expected, 3, "1 at first, a user, a role");
    macro_rules! counts {
        ($by:expr, $call:expr) => {
            let answer = $call.await;
            expected += $by;
            assert_eq!(nobody.auth_revision().await, expected, "{:?}", answer.map(|_| stringify!($call)));
        };
    }
    counts!(1, root.user_add("ann"));
    counts!(0, root.user_add("ann"));
    counts!(1, root.role_add("r"));
    counts!(1, root.grant_role("ann", "r"));
    counts!(0, root.grant_role("ann", "r"));
    counts!(1, root.grant("r", Read, "k", ""));
    counts!(1, root.grant("r", Read, "k", "")); // the same again counts
    counts!(1, root.change_password("ann", "p"));
    counts!(1, root.revoke("r", "k", ""));
    counts!(0, root.revoke("r", "k", ""));
    counts!(1, root.revoke_role("ann", "r"));
    counts!(1, root.role_delete("r"));
    counts!(1, root.user_delete("ann"));
    counts!(0, nobody.authenticate("root", "root"));
    counts!(0, root.enable());
    counts!(1, root.disable());
    counts!(0, nobody.disable());
    counts!(0, nobody.enable());
}

/// Who may call what of the Auth service, from the matrix of contract 1.12.
#[tokio::test]
async fn a_11_managing_is_for_root() {
    let (_server, root, nobody) = with_root(&[]).await;
    add_user(&root, "ann", &[(Readwrite, "\0", "\0")]).await;
    root.role_add("other").await.expect("add");
    let ann = nobody.login("ann").await;
    for (caller, expected) in [(&ann, DENIED), (&nobody, USER_EMPTY)] {
        refuses(caller.user_add("x").await, expected);
        refuses(caller.user_delete("ann").await, expected);
        refuses(caller.user_delete("root").await, expected);
        refuses(caller.change_password("ann", "x").await, expected);
        refuses(caller.grant_role("ann", "root").await, expected);
        refuses(caller.revoke_role("ann", "ann").await, expected);
        refuses(caller.user_list().await, expected);
        refuses(caller.role_add("x").await, expected);
        refuses(caller.role_delete("ann").await, expected);
        refuses(caller.role_list().await, expected);
        refuses(caller.grant("ann", Read, "k", "").await, expected);
        refuses(caller.revoke("ann", "\0", "\0").await, expected);
        refuses(caller.user_get("root").await, expected);
        refuses(caller.role_get("other").await, expected);
        refuses(caller.enable().await, expected);
        refuses(caller.disable().await, expected);
    }
    assert_eq!(ann.user_get("ann").await.expect("oneself"), ["ann"]);
    ann.role_get("ann").await.expect("a role one holds");
    refuses(nobody.user_get("ann").await, USER_EMPTY);
    nobody.status().await.expect("anyone may ask");
    refuses(nobody.with_token("wrong").status().await, INVALID_TOKEN);
    nobody.with_token("wrong").authenticate("ann", "ann").await.expect("a login needs no token");
    // Two more with the role root are as good as the user root.
    root.user_add("two").await.expect("add");
    root.grant_role("two", "root").await.expect("grant");
    nobody.login("two").await.user_add("three").await.expect("add");
}

/// The users of a server are there after a restart, on both kinds of it.
#[tokio::test]
async fn a_4_users_outlive_a_restart() {
    let (mut server, root, _) = with_root(&[]).await;
    add_user(&root, "ann", &[(Read, "a", "b"), (Write, "c", "")]).await;
    root.user_add("gone").await.expect("add");
    root.user_delete("gone").await.expect("delete");
    let revision = root.auth_revision().await;
    let (users, roles) = (root.user_list().await.expect("list"), root.role_get("ann").await.expect("get"));
    for is_orderly in [false, true] {
        if is_orderly {
            server.terminate();
        } else {
            server.kill();
        }
        server.restart();
        let nobody = As::nobody(&server).await;
        let status = nobody.status().await.expect("status");
        assert_eq!((status.enabled, status.auth_revision), (true, revision));
        let root = nobody.login("root").await;
        assert_eq!(root.user_list().await.expect("list"), users);
        assert_eq!(root.role_get("ann").await.expect("get"), roles);
        assert_eq!(nobody.login("ann").await.user_get("ann").await.expect("get"), ["ann"]);
    }
}
