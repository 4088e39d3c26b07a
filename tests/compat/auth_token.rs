//! Logins and tokens, contract 1.12 rows A-7 to A-10: both kinds, how they are sent, and when they end.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kvist::pb::authpb::permission::Type::Readwrite;
use kvist::pb::etcdserverpb as pb;
use tonic::{Code, Request};

use crate::auth_client::{
    AUTH_FAILED, As, INVALID_TOKEN, OLD_REVISION, add_user, enable, refuses, server, with_root,
};
use crate::client::{get, put};
use crate::support::is_foreign_server;

/// Asks for a key with headers of any kind.
async fn range_with(nobody: &As, headers: &[(&'static str, &str)]) -> Result<(), tonic::Status> {
    let mut request = Request::new(get("k"));
    for (name, value) in headers {
        request.metadata_mut().append(*name, value.parse().expect("ASCII"));
    }
    nobody.kv().range(request).await.map(drop)
}

#[tokio::test]
async fn a_7_logins() {
    let server = server(&[]);
    let nobody = As::nobody(&server).await;
    let off = (Code::FailedPrecondition, "etcdserver: authentication is not enabled");
    refuses(nobody.authenticate("root", "root").await, off);
    let root = enable(&nobody).await;
    refuses(nobody.authenticate("root", "wrong").await, AUTH_FAILED);
    refuses(nobody.authenticate("root", "").await, AUTH_FAILED);
    refuses(nobody.authenticate("", "").await, AUTH_FAILED);
    let answer = nobody.authenticate("root", "root").await.expect("log in");
    let header = answer.header.expect("a header");
    assert!(header.revision == 1 && header.member_id != 0 && header.raft_term != 0);
    assert_ne!(Some(answer.token), root.token, "each login has a token of its own");
}

#[tokio::test]
async fn a_8_simple_tokens_are_letters_and_an_index() {
    let (mut server, root, nobody) = with_root(&[]).await;
    let token = root.token.clone().expect("a token");
    let (letters, index) = token.split_once('.').expect("a dot");
    assert!(letters.len() == 16 && letters.bytes().all(|b| b.is_ascii_alphabetic()), "{token}");
    let first: u64 = index.parse().expect("an index");
    let later = nobody.authenticate("root", "root").await.expect("log in").token;
    assert!(later.split_once('.').expect("a dot").1.parse::<u64>().expect("an index") > first);
    // Tokens go with a change of the password, and with the process.
    add_user(&root, "ann", &[(Readwrite, "a", "")]).await;
    let ann = nobody.login("ann").await;
    ann.range(get("a")).await.expect("granted");
    root.change_password("ann", "other").await.expect("change");
    refuses(ann.range(get("a")).await, INVALID_TOKEN);
    server.kill();
    server.restart();
    let nobody = As::nobody(&server).await;
    let answer = nobody.with_token(token).range(get("k")).await;
    if !is_foreign_server() {
        refuses(answer, INVALID_TOKEN); // etcd applies what its log has again, with the token in it
    }
    nobody.login("root").await.range(get("k")).await.expect("log in anew");
}

/// A token lives on while it is used, and ends when it has not been for its time.
#[tokio::test]
async fn a_8_simple_tokens_expire_when_not_used() {
    let (_server, root, nobody) = with_root(&["--auth-token-ttl=2"]).await;
    let used = nobody.login("root").await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(3500) {
        used.range(get("k")).await.expect("it is in use");
        tokio::time::sleep(Duration::from_millis(50)).await; // the token must be used all along
    }
    refuses(root.range(get("k")).await, INVALID_TOKEN);
}

#[tokio::test]
async fn a_10_where_a_token_may_be() {
    let (_server, root, nobody) = with_root(&[]).await;
    let token = root.token.clone().expect("a token");
    let bearer = format!("Bearer {token}");
    let good: [&[(&str, &str)]; 6] = [
        &[("token", &token)],
        &[("authorization", &token)],
        &[("authorization", &bearer)],
        &[("token", &bearer)],
        &[("token", &token), ("authorization", "wrong.1")], // `token` comes first
        &[("token", &token), ("token", "wrong.1")],
    ];
    for headers in good {
        range_with(&nobody, headers).await.unwrap_or_else(|e| panic!("{headers:?}: {e}"));
    }
    let basic = format!("Basic {token}");
    let lower = format!("bearer {token}");
    let twice = format!("Bearer Bearer {token}");
    let bad: [&[(&str, &str)]; 10] = [
        &[("token", "wrong.1")],
        &[("token", "wrong")],
        &[("token", "")],
        &[("token", "a.b")],
        &[("token", "a.1.1")],
        &[("authorization", &basic)],
        &[("authorization", &lower)],
        &[("authorization", &twice)],
        &[("token", "wrong.1"), ("authorization", &token)],
        &[("authorization", "Bearer ")],
    ];
    for headers in bad {
        refuses(range_with(&nobody, headers).await, INVALID_TOKEN);
    }
    if !is_foreign_server() {
        // etcd waits, for as long as the client does, until its log has got as far as the index in the token.
        refuses(range_with(&nobody, &[("token", &format!("{token}999"))]).await, INVALID_TOKEN);
    }
}

/// `--auth-token=` without a kind: nobody can log in.
#[tokio::test]
async fn a_7_without_tokens_nobody_logs_in() {
    let server = server(&["--auth-token="]);
    let nobody = As::nobody(&server).await;
    nobody.user_add("root").await.expect("add");
    nobody.grant_role("root", "root").await.expect("grant");
    nobody.enable().await.expect("enable");
    refuses(nobody.authenticate("root", "root").await, AUTH_FAILED);
    refuses(nobody.with_token("x.1").range(get("k")).await, INVALID_TOKEN);
}

fn openssl(dir: &Path, args: &str) {
    let output =
        Command::new("openssl").args(args.split(' ')).current_dir(dir).output().expect("run openssl");
    assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes `key.pem` and `pub.pem` for a method, by openssl.
fn make_keys(dir: &Path, method: &str) {
    let make = match method {
        "ES256" => "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem",
        "ES384" => "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out key.pem",
        "ES512" => "ecparam -genkey -name secp521r1 -noout -out key.pem", // SEC 1
        "EdDSA" => "genpkey -algorithm ed25519 -out key.pem",
        "RS384" | "PS384" => "genrsa -traditional -out key.pem 2048", // PKCS #1
        method if method.starts_with("HS") => {
            return std::fs::write(dir.join("key.pem"), b"a shared secret\n").expect("write");
        }
        _ => "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem",
    };
    openssl(dir, make);
    if method == "PS512" {
        openssl(dir, "req -x509 -new -key key.pem -subj /CN=tokens -out pub.pem"); // a certificate will do
    } else {
        openssl(dir, "pkey -in key.pem -pubout -out pub.pem");
    }
}

fn claims(token: &str) -> serde_json::Value {
    let part = token.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

/// A-9: every method that etcd has, on a server that signs, then on one that has the public key only.
#[tokio::test]
async fn a_9_signed_tokens_by_every_method() {
    for method in [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256",
        "HS384", "HS512",
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        make_keys(dir.path(), method);
        let path = |name: &str| dir.path().join(name).display().to_string();
        let public =
            if method.starts_with("HS") { String::new() } else { format!(",pub-key={}", path("pub.pem")) };
        let flag =
            format!("--auth-token=jwt,sign-method={method},priv-key={}{public},ttl=10m", path("key.pem"));
        let (server, root, nobody) = with_root(&[&flag]).await;
        root.put(put("k", "v")).await.unwrap_or_else(|e| panic!("{method}: {e}"));
        let token = root.token.clone().expect("a token");
        let claims = claims(&token);
        assert_eq!(claims["username"], "root");
        assert_eq!(claims["revision"], 3);
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
        assert!(claims["exp"].as_u64().is_some_and(|exp| (now + 590..=now + 610).contains(&exp)), "{claims}");
        // A change of one letter, anywhere, is noticed.
        for at in [3, token.find('.').expect("a dot") + 5, token.len() - 10] {
            let letter = if &token[at..=at] == "A" { "B" } else { "A" };
            let forged = format!("{}{letter}{}", &token[..at], &token[at + 1..]);
            refuses(nobody.with_token(forged).range(get("k")).await, INVALID_TOKEN);
        }
        if !method.starts_with("HS") {
            verify_only(method, &path("pub.pem"), &token).await;
        }
        drop(server);
    }
}

/// A server with the public key alone takes tokens of others and gives out none.
async fn verify_only(method: &str, public: &str, token: &str) {
    let server = server(&[&format!("--auth-token=jwt,sign-method={method},pub-key={public}")]);
    let nobody = As::nobody(&server).await;
    nobody.user_add("root").await.expect("add");
    nobody.grant_role("root", "root").await.expect("grant");
    nobody.enable().await.expect("enable");
    nobody.with_token(token).put(put("k", "v")).await.unwrap_or_else(|e| panic!("{method}: {e}"));
    let text = "auth: token signing attempted with verify-only key";
    refuses(nobody.authenticate("root", "root").await, (Code::Unknown, text));
}

/// A-9, A-12, W-7: any change of users makes older signed tokens useless, until their holders log in again.
#[tokio::test]
async fn a_9_signed_tokens_are_of_one_auth_revision() {
    let dir = tempfile::tempdir().expect("a directory");
    make_keys(dir.path(), "ES256");
    let flag =
        format!("--auth-token=jwt,sign-method=ES256,priv-key={}", dir.path().join("key.pem").display());
    let (mut server, root, nobody) = with_root(&[&flag]).await;
    add_user(&root, "ann", &[(Readwrite, "a", "b")]).await; // managing goes on with an older token
    let ann = nobody.login("ann").await;
    ann.put(put("a", "1")).await.expect("granted");
    ann.lease_grant(7).await.expect("any user may");
    root.user_add("bob").await.expect("add");
    refuses(ann.put(put("a", "2")).await, OLD_REVISION);
    refuses(ann.range(get("a")).await, OLD_REVISION);
    refuses(ann.delete(crate::client::delete("a")).await, OLD_REVISION);
    refuses(root.range(get("a")).await, OLD_REVISION);
    ann.lease_grant(8).await.expect("nothing is asked but who it is");
    assert_eq!(nobody.login("ann").await.range(get("a")).await.expect("get").kvs[0].value, b"1");
    // Signed tokens outlive the process.
    let ann = nobody.login("ann").await;
    server.kill();
    server.restart();
    let again = As::nobody(&server).await.with_token(ann.token.expect("a token"));
    again.put(put("a", "3")).await.expect("granted");
}

/// A-9: a token ends with its time, and one from another key or method never begins.
#[tokio::test]
async fn a_9_signed_tokens_end_and_cannot_be_forged() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("key.pem"), b"secret").expect("write");
    let path = dir.path().join("key.pem").display().to_string();
    let (_server, root, nobody) =
        with_root(&[&format!("--auth-token=jwt,sign-method=HS256,priv-key={path},ttl=2s")]).await;
    let started = Instant::now();
    root.range(get("k")).await.expect("valid");
    while root.range(get("k")).await.is_ok() {
        assert!(started.elapsed() < Duration::from_secs(10), "it must end");
        tokio::time::sleep(Duration::from_millis(50)).await; // polls, with a deadline
    }
    refuses(root.range(get("k")).await, INVALID_TOKEN);
    let sign = |header: &str, claims: &str, key: &[u8]| {
        use aws_lc_rs::hmac;
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let hs256 = r#"{"alg":"HS256","typ":"JWT"}"#;
    let whoever = r#"{"username":"root","revision":3}"#;
    let good = [
        sign(hs256, whoever, b"secret"),
        sign(
            r#"{"alg":"HS256"}"#,
            r#"{"username":"root","revision":3.0,"nbf":1,"exp":9e9,"aud":"x"}"#,
            b"secret",
        ),
    ];
    for token in good {
        nobody.with_token(&token).range(get("k")).await.unwrap_or_else(|e| panic!("{token}: {e}"));
    }
    let old = sign(hs256, r#"{"username":"root","revision":2}"#, b"secret");
    refuses(nobody.with_token(old).range(get("k")).await, OLD_REVISION);
    let unsigned =
        |header: &str| format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(whoever));
    let bad = [
        sign(hs256, whoever, b"other"),
        sign(r#"{"alg":"HS384"}"#, whoever, b"secret"),
        sign(r#"{"alg":"none"}"#, whoever, b"secret"),
        sign(r#"{}"#, whoever, b"secret"),
        sign("HS256", whoever, b"secret"),
        unsigned(r#"{"alg":"none"}"#),
        unsigned(hs256),
        sign(hs256, r#"{"username":"root"}"#, b"secret"),
        sign(hs256, r#"{"revision":3}"#, b"secret"),
        sign(hs256, r#"{"username":7,"revision":3}"#, b"secret"),
        sign(hs256, r#"{"username":"root","revision":"3"}"#, b"secret"),
        sign(hs256, r#"{"username":"root","revision":3,"exp":1}"#, b"secret"),
        sign(hs256, r#"{"username":"root","revision":3,"nbf":9e9}"#, b"secret"),
        sign(hs256, r#"{"username":"root","revision":3,"exp":"never"}"#, b"secret"),
        sign(hs256, "[]", b"secret"),
        format!("{}.x", sign(hs256, whoever, b"secret")),
        format!("{}=", sign(hs256, whoever, b"secret")),
    ];
    for token in bad {
        refuses(nobody.with_token(&token).range(get("k")).await, INVALID_TOKEN);
    }
    let stranger = sign(hs256, r#"{"username":"who","revision":3}"#, b"secret");
    refuses(nobody.with_token(&stranger).range(get("k")).await, crate::auth_client::DENIED);
    let list = nobody.with_token(&stranger).user_list().await;
    refuses(list, (Code::FailedPrecondition, "etcdserver: user name not found"));
}

/// A server that is told nonsense does not start.
#[tokio::test]
async fn a_9_useless_options_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    make_keys(dir.path(), "RS256");
    std::fs::rename(dir.path().join("key.pem"), dir.path().join("rsa.pem")).expect("rename");
    std::fs::rename(dir.path().join("pub.pem"), dir.path().join("rsa.pub")).expect("rename");
    make_keys(dir.path(), "RS512");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (rsa, other) = (path("rsa.pem"), path("pub.pem"));
    for (options, text) in [
        ("plain".to_owned(), "auth: invalid auth options"),
        ("simple,x".to_owned(), "auth: invalid auth options"),
        ("jwt".to_owned(), "auth: invalid auth options"),
        (format!("jwt,sign-method=RS256,priv-key={}", path("none")), "auth: invalid auth options"),
        (format!("jwt,sign-method=RS256,priv-key={rsa},ttl=never"), "auth: invalid auth options"),
        ("jwt,sign-method=RS256".to_owned(), "auth: missing key data"),
        (
            format!("jwt,sign-method=RS256,priv-key={rsa},pub-key={other}"),
            "auth: public and private keys don't match",
        ),
        (format!("jwt,sign-method=HS256,pub-key={other}"), "auth: missing key data"),
        (format!("jwt,sign-method=ES256,priv-key={rsa}"), ""),
    ] {
        let output = Command::new(crate::support::server_binary())
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(["--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:0"])
            .args([
                "--listen-peer-urls=http://127.0.0.1:0",
                "--initial-advertise-peer-urls=http://127.0.0.1:0",
            ])
            .args(["--initial-cluster=default=http://127.0.0.1:0", &format!("--auth-token={options}")])
            .output()
            .expect("run the server");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{options}: {log}");
        assert!(log.contains(text), "{options}: {log}");
        let _ = std::fs::remove_dir_all(dir.path().join("data"));
    }
}

/// The token is checked for every message of a stream, as renewals go on for days.
#[tokio::test]
async fn a_8_l_12_a_stream_of_renewals_ends_with_its_token() {
    let (_server, root, nobody) = with_root(&[]).await;
    add_user(&root, "ann", &[(Readwrite, "a", "b")]).await;
    let ann = nobody.login("ann").await;
    ann.lease_grant(7).await.expect("any user may");
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let renewal = || pb::LeaseKeepAliveRequest { id: 7 };
    sender.send(renewal()).await.expect("send");
    let mut answers = ann.lease().lease_keep_alive(ann.request(requests)).await.expect("open").into_inner();
    assert_eq!(answers.message().await.expect("an answer").expect("an answer").ttl, 600);
    root.user_delete("ann").await.expect("delete");
    sender.send(renewal()).await.expect("send");
    refuses(answers.message().await, INVALID_TOKEN);
}
