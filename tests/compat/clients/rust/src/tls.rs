//! TLS, by rustls as etcd-client brings it.

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use serde_json::json;

use crate::control::Server;
use crate::help::*;
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("tls/a server's certificate", server_certificate),
    crate::case!("tls/a client's certificate", client_certificate),
    crate::case!("tls/a wrong authority is refused", wrong_authority),
    crate::case!("tls/in the clear is refused", in_the_clear),
    crate::case!("tls/users", users),
];

fn read(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn trusting(server: &Server) -> TlsOptions {
    TlsOptions::new().ca_certificate(Certificate::from_pem(read(&server.ca))).domain_name("localhost")
}

fn identified(server: &Server) -> TlsOptions {
    trusting(server).identity(Identity::from_pem(read(&server.cert), read(&server.key)))
}

/// A client that is there only if a first call was answered.
async fn try_connect(server: &Server, tls: TlsOptions) -> Result<Client, Error> {
    let options = ConnectOptions::new().with_tls(tls).with_timeout(REPLY_TIMEOUT);
    let mut client = Client::connect([&server.endpoint], Some(options)).await?;
    client.get("a", None).await?;
    Ok(client)
}

fn not_let_in(what: &str, result: Result<Client, Error>) {
    assert!(result.is_err(), "{what} was let in");
}

async fn works(mut client: Client) {
    put(&mut client, &["a=1"]).await;
    let mut stream = client.watch("a", None).await.expect("watch");
    assert!(next(&mut stream).await.created());
    put(&mut client, &["a=2"]).await;
    assert_eq!(next_events(&mut stream, 1).await, ["put a=2 @3"]);
}

async fn server_certificate(_: Server) {
    let server = Server::wish(json!({ "tls": true })).await;
    assert!(server.endpoint.starts_with("https://"));
    works(try_connect(&server, trusting(&server)).await.expect("connect")).await;
}

async fn client_certificate(_: Server) {
    let server = Server::wish(json!({ "tls": true, "client_cert_auth": true })).await;
    works(try_connect(&server, identified(&server)).await.expect("connect")).await;
    not_let_in("a client without a certificate", try_connect(&server, trusting(&server)).await);
    let other = Server::wish(json!({ "tls": true })).await;
    let tls = trusting(&server).identity(Identity::from_pem(read(&other.cert), read(&other.key)));
    not_let_in("a certificate of another authority", try_connect(&server, tls).await);
}

async fn wrong_authority(_: Server) {
    let server = Server::wish(json!({ "tls": true })).await;
    let other = Server::wish(json!({ "tls": true })).await;
    not_let_in("another authority", try_connect(&server, trusting(&other)).await);
    let name = trusting(&server).domain_name("example.org");
    not_let_in("another name", try_connect(&server, name).await);
}

async fn in_the_clear(_: Server) {
    let server = Server::wish(json!({ "tls": true })).await;
    let clear = server.endpoint.replace("https://", "http://");
    let mut client = Client::connect([clear], None).await.expect("a client that has not tried yet");
    soon("a refusal", client.get("a", None)).await.expect_err("no TLS");
}

async fn users(_: Server) {
    let server = Server::wish(json!({ "tls": true })).await;
    let mut client = try_connect(&server, trusting(&server)).await.expect("connect");
    client.user_add("root", "r", None).await.expect("user add");
    client.user_grant_role("root", "root").await.expect("grant role");
    client.auth_enable().await.expect("enable");
    let options = ConnectOptions::new().with_tls(trusting(&server)).with_user("root", "r");
    let mut root = Client::connect([&server.endpoint], Some(options)).await.expect("connect as root");
    put(&mut root, &["a=1"]).await;
    assert_eq!(
        refused(client.get("a", None).await),
        status(INVALID_ARGUMENT, "etcdserver: user name is empty")
    );
}
