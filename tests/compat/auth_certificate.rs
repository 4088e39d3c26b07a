//! Callers who are known by their certificate (A-10), and callers over the JSON gateway.

use std::process::Command;

use serde_json::json;

use crate::auth_client::server;
use crate::http_client::{call, curl, post};
use crate::tls::Secure;

/// etcdctl under the certificate of `name`; what it printed, on either channel, and whether it succeeded.
fn etcdctl(secure: &Secure, name: &str, args: &[&str]) -> (bool, String) {
    let output = secure.etcdctl(Some(name)).args(args).output().expect("run etcdctl");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).trim_end().to_owned())
}

fn succeeds(secure: &Secure, name: &str, args: &[&str]) -> String {
    let (succeeded, text) = etcdctl(secure, name, args);
    assert!(succeeded, "etcdctl {args:?} as {name}: {text}");
    text
}

fn fails(secure: &Secure, name: &str, args: &[&str], expected: &str) {
    let (succeeded, text) = etcdctl(secure, name, args);
    assert!(!succeeded && text.contains(expected), "etcdctl {args:?} as {name}: {text}");
}

/// The common name of a certificate is a user, which needs no password; a token goes before it.
#[test]
fn a_10_names_in_certificates_are_users() {
    let prepare = |ca: &crate::support::certs::Ca| {
        for (serial, name) in [(11, "root"), (12, "ann"), (13, "who")] {
            ca.issue(name, name, &[], serial);
        }
    };
    let flags = ["--client-cert-auth", "--trusted-ca-file=CA/ca.pem", "--bcrypt-cost=4"];
    let secure = Secure::start_after(prepare, &flags);
    succeeds(&secure, "root", &["user", "add", "root", "--no-password"]);
    succeeds(&secure, "root", &["user", "add", "ann:ann"]);
    succeeds(&secure, "root", &["role", "add", "r"]);
    succeeds(&secure, "root", &["role", "grant-permission", "r", "readwrite", "k"]);
    succeeds(&secure, "root", &["user", "grant-role", "ann", "r"]);
    succeeds(&secure, "root", &["user", "grant-role", "root", "root"]);
    succeeds(&secure, "root", &["auth", "enable"]);
    assert_eq!(succeeds(&secure, "ann", &["put", "k", "v"]), "OK");
    fails(&secure, "ann", &["put", "x", "v"], "etcdserver: permission denied");
    fails(&secure, "ann", &["user", "list"], "etcdserver: permission denied");
    fails(&secure, "who", &["get", "k"], "etcdserver: permission denied");
    fails(&secure, "who", &["user", "list"], "etcdserver: user name not found");
    assert_eq!(succeeds(&secure, "root", &["user", "list"]), "ann\nroot");
    // A password makes a token, which counts more than the certificate.
    assert_eq!(succeeds(&secure, "who", &["--user=ann:ann", "get", "k"]), "k\nv");
    fails(&secure, "root", &["--user=ann:ann", "user", "list"], "etcdserver: permission denied");
    // What comes through the gateway has no certificate, and who brings one is told so.
    let url = format!("https://127.0.0.1:{}/v3/kv/range", secure.server.client_port);
    let path = |file: &str| secure.ca.path(file);
    let (ca, cert, key) = (path("ca.pem"), path("ann.pem"), path("ann.key"));
    let answer = curl(&["--cacert", &ca, "--cert", &cert, "--key", &key, "-d", r#"{"key":"aw=="}"#, &url]);
    assert_eq!(answer.status, 400);
    assert!(
        answer.body.starts_with("CommonName of client sending a request against gateway will be ignored")
    );
}

/// A trusted authority alone, without `--client-cert-auth`, makes nobody a user.
#[test]
fn a_10_names_count_only_where_they_are_asked_for() {
    let prepare = |ca: &crate::support::certs::Ca| ca.issue("root", "root", &[], 11);
    let secure = Secure::start_after(prepare, &["--trusted-ca-file=CA/ca.pem", "--bcrypt-cost=4"]);
    succeeds(&secure, "root", &["user", "add", "root:root"]);
    succeeds(&secure, "root", &["user", "grant-role", "root", "root"]);
    succeeds(&secure, "root", &["auth", "enable"]);
    fails(&secure, "root", &["get", "k"], "etcdserver: user name is empty");
    succeeds(&secure, "root", &["--user=root:root", "get", "k"]);
}

/// The header `Authorization` of the gateway, with or without a scheme.
#[test]
fn a_10_tokens_through_the_gateway() {
    let server = server(&[]);
    call(&server, "auth/user/add", r#"{"name":"root","password":"root"}"#);
    call(&server, "auth/user/grant", r#"{"user":"root","role":"root"}"#);
    call(&server, "auth/enable", "{}");
    let put = r#"{"key":"aw==","value":"dg=="}"#;
    post(&server, "kv/put", put).expect_error(400, 3, "etcdserver: user name is empty");
    post(&server, "auth/user/list", "{}").expect_error(400, 3, "etcdserver: user name is empty");
    let wrong = post(&server, "auth/authenticate", r#"{"name":"root","password":"x"}"#);
    wrong.expect_error(400, 3, "etcdserver: authentication failed, invalid user ID or password");
    let login = call(&server, "auth/authenticate", r#"{"name":"root","password":"root"}"#);
    let token = login["token"].as_str().expect("a token");
    let put_with = |header: &str| curl(&["-H", header, "-d", put, &(server.url() + "/v3/kv/put")]);
    for header in [format!("Authorization: {token}"), format!("authorization: Bearer {token}")] {
        assert_eq!(put_with(&header).status, 200, "{header}");
    }
    put_with("Authorization: wrong.1").expect_error(401, 16, "etcdserver: invalid auth token");
    let shown = curl(&["-d", "{}", &(server.url() + "/v3/auth/status")]).json();
    assert_eq!((&shown["enabled"], &shown["authRevision"]), (&json!(true), &json!("3")));
    // The same token is good for both ways in.
    let get = Command::new(&crate::etcdctl::binaries()[0])
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &server.endpoint(), "--user=root:root", "get", "k", "--print-value-only"])
        .output()
        .expect("run etcdctl");
    assert_eq!(String::from_utf8_lossy(&get.stdout).trim_end(), "v");
}
