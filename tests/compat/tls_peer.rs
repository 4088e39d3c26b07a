//! TLS between members: who may connect to the peer port.

use crate::support::certs::{Ca, Client};
use crate::support::{Server, free_port, is_foreign_server};

/// A server with TLS on its peer port, and the names of those that are let in.
fn let_in(flags: &[&str], names: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ca = Ca::new(&dir.path().join("ca"));
    ca.issue("server", "member", &["127.0.0.1", "localhost"], 1);
    ca.issue("here", "here", &["127.0.0.1"], 2);
    ca.issue("named", "named", &["localhost"], 3);
    ca.issue("elsewhere", "elsewhere", &["10.1.2.3"], 4);
    ca.issue("nameless", "nameless", &[], 5);
    ca.revoke("list.crl", &[5]);
    let peer = free_port();
    let url = format!("https://127.0.0.1:{peer}");
    let mut args = vec![
        format!("--listen-peer-urls={url}"),
        format!("--initial-advertise-peer-urls={url}"),
        format!("--initial-cluster=default={url}"),
        format!("--peer-cert-file={}", ca.path("server.pem")),
        format!("--peer-key-file={}", ca.path("server.key")),
        format!("--peer-trusted-ca-file={}", ca.path("ca.pem")),
        "--peer-client-cert-auth".to_owned(),
    ];
    args.extend(flags.iter().map(|flag| flag.replace("CA/", &format!("{}/", ca.dir.display()))));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let _server = Server::start_on(&dir.path().join("data"), free_port(), peer, &args);
    let client = Client::trusting(&ca.dir.join("ca.pem"));
    assert!(client.get(peer, "/version").is_err(), "without a certificate");
    let names = names.iter().filter(|name| {
        let reply = client.with_identity(&ca, name).get(peer, "/version");
        reply.is_ok_and(|reply| reply.text.contains("etcdserver"))
    });
    names.map(|name| (*name).to_owned()).collect()
}

#[test]
fn tls_members_come_from_where_their_certificates_say() {
    let all = ["here", "named", "elsewhere", "nameless"];
    assert_eq!(let_in(&[], &all), ["here", "named", "nameless"]);
    assert_eq!(let_in(&["--peer-skip-client-san-verification"], &all), all);
}

#[test]
fn tls_members_may_have_to_have_a_name() {
    let all = ["here", "named", "nameless"];
    assert_eq!(let_in(&["--peer-cert-allowed-cn=x,here"], &all), ["here"]);
    assert_eq!(let_in(&["--peer-cert-allowed-hostname=localhost"], &all), ["named"]);
    if !is_foreign_server() {
        assert_eq!(let_in(&["--peer-crl-file=CA/absent.crl"], &all), [""; 0], "without the list");
    }
    assert_eq!(let_in(&["--peer-crl-file=CA/list.crl"], &all), ["here", "named"]);
}
