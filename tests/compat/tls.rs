//! TLS for clients: versions, suites, ALPN, certificates of both sides, and files that change while the server runs.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::etcdctl;
use crate::support::certs::{Ca, Client};
use crate::support::{Server, free_port, is_foreign_server, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);
const AES_128: u16 = 0xc02b;
const CHACHA: u16 = 0xcca9;

/// A server with TLS on its client port, and its directory.
pub struct Secure {
    pub server: Server,
    pub ca: Ca,
    _dir: tempfile::TempDir,
}

impl Secure {
    /// Starts with a certificate of a new authority. `CA/` in flags stands for the authority's directory.
    pub fn start(flags: &[&str]) -> Secure {
        Secure::start_after(|_| {}, flags)
    }

    /// The same after the authority did more.
    pub fn start_after(prepare: impl Fn(&Ca), flags: &[&str]) -> Secure {
        let dir = tempfile::tempdir().expect("temporary directory");
        let ca = Ca::new(&dir.path().join("ca"));
        ca.issue_server();
        prepare(&ca);
        let (client, peer) = (free_port(), free_port());
        let url = format!("https://127.0.0.1:{client}");
        let mut args = vec![
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--cert-file={}", ca.path("server.pem")),
            format!("--key-file={}", ca.path("server.key")),
        ];
        args.extend(flags.iter().map(|flag| flag.replace("CA/", &format!("{}/", ca.dir.display()))));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let server = Server::start_on(&dir.path().join("data"), client, peer, &args);
        Secure { server, ca, _dir: dir }
    }

    /// A client that trusts the server and has no certificate.
    pub fn client(&self) -> Client {
        Client::trusting(&self.ca.dir.join("ca.pem"))
    }

    /// Whether a client gets an answer.
    pub fn lets_in(&self, client: &Client) -> bool {
        client.get(self.server.client_port, "/health").is_ok_and(|reply| reply.text.contains("true"))
    }

    /// A client with a certificate of the server's authority.
    pub fn client_named(&self, name: &str) -> Client {
        self.client().with_identity(&self.ca, name)
    }

    /// An etcdctl that trusts the server; with a certificate if there is a name.
    pub fn etcdctl(&self, name: Option<&str>) -> Command {
        let mut command = Command::new(&etcdctl::binaries()[0]);
        command.env("ETCDCTL_API", "3").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.arg(format!("--endpoints=https://127.0.0.1:{}", self.server.client_port));
        command.arg(format!("--cacert={}", self.ca.path("ca.pem")));
        if let Some(name) = name {
            command.arg(format!("--cert={}", self.ca.path(&format!("{name}.pem"))));
            command.arg(format!("--key={}", self.ca.path(&format!("{name}.key"))));
        }
        command
    }

    fn logged(&self, text: &str) -> bool {
        self.server.log_lines().iter().any(|line| line.contains(text))
    }
}

#[test]
fn tls_speaks_both_http_versions_by_alpn() {
    let secure = Secure::start(&[]);
    assert!(secure.logged("serving client traffic securely"));
    let mut client = secure.client();
    let port = secure.server.client_port;
    let reply = client.get(port, "/health").expect("without ALPN");
    assert!(reply.text.starts_with("HTTP/1.1 200 OK") && reply.alpn.is_none(), "{reply:?}");
    assert_eq!(reply.version, rustls::ProtocolVersion::TLSv1_3);
    client.alpn = vec!["http/1.1"];
    assert!(client.get(port, "/version").expect("HTTP/1.1").text.contains("etcdserver"));
    client.alpn = vec!["h2", "http/1.1"];
    let reply = client.get(port, "/").expect("HTTP/2");
    assert_eq!((reply.alpn.as_deref(), reply.text.as_str()), (Some("h2"), "frame 4"));
    client.alpn = vec!["spdy/3"];
    assert!(client.get(port, "/health").is_err());
    let put = secure.etcdctl(None).args(["put", "a", "b"]).output().expect("run etcdctl");
    assert!(put.status.success(), "{put:?}");
    // Who does not speak TLS gets nothing.
    let mut plain = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let answer = crate::support::certs::plain_get(&mut plain, "/health");
    assert!(!answer.is_ok_and(|text| text.contains("200")));
}

#[test]
fn tls_versions_and_suites_have_bounds() {
    let both = Secure::start(&["--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]);
    let mut client = both.client();
    assert!(both.lets_in(&client));
    client.versions = vec![&rustls::version::TLS12];
    for (suite, expected) in [(AES_128, true), (CHACHA, false)] {
        client.suite = Some(suite);
        assert_eq!(both.lets_in(&client), expected, "{suite:x}");
    }
    let new = Secure::start(&["--tls-min-version=TLS1.3"]);
    assert!(new.lets_in(&new.client()));
    assert!(!new.lets_in(&Client { versions: vec![&rustls::version::TLS12], ..new.client() }));
    let old = Secure::start(&["--tls-max-version=TLS1.2"]);
    assert!(old.lets_in(&old.client()));
    assert!(!old.lets_in(&Client { versions: vec![&rustls::version::TLS13], ..old.client() }));
    let reply = old.client().get(old.server.client_port, "/health").expect("TLS 1.2");
    assert_eq!(reply.version, rustls::ProtocolVersion::TLSv1_2);
}

#[test]
fn tls_client_certificates_must_come_from_the_authority() {
    for flags in
        [["--trusted-ca-file=CA/ca.pem", "--client-cert-auth"].as_slice(), &["--trusted-ca-file=CA/ca.pem"]]
    {
        let secure = Secure::start_after(|ca| ca.issue("root", "root", &[], 7), flags);
        let stranger = Ca::new(&secure.ca.dir.join("stranger"));
        stranger.issue("root", "root", &[], 7);
        assert!(secure.lets_in(&secure.client_named("root")));
        assert!(secure.lets_in(&secure.client_named("ca")));
        assert!(!secure.lets_in(&secure.client()));
        for name in ["root", "ca"] {
            assert!(!secure.lets_in(&secure.client().with_identity(&stranger, name)), "{name}");
        }
        for (name, expected) in [(Some("root"), true), (None, false)] {
            let mut put = secure.etcdctl(name);
            let put = put.args(["--command-timeout=2s", "put", "a", "b"]).output().expect("run etcdctl");
            assert_eq!(put.status.success(), expected, "{put:?}");
        }
        wait_until("the log", PATIENCE, || secure.logged("rejected connection on client endpoint"));
    }
}

#[test]
fn tls_client_certificates_may_have_to_name_a_host() {
    let issue = |ca: &Ca| {
        ca.issue("a", "a", &["node1.example.com"], 10);
        ca.issue("b", "b", &["node2.example.com"], 11);
        ca.issue("c", "c", &["*.wild.example.com", "10.1.2.3"], 12);
    };
    let hosts = "--client-cert-allowed-hostname=node1.example.com,x.wild.example.com";
    let secure = Secure::start_after(issue, &["--trusted-ca-file=CA/ca.pem", "--client-cert-auth", hosts]);
    for (name, expected) in [("a", true), ("b", false), ("c", true)] {
        assert_eq!(secure.lets_in(&secure.client_named(name)), expected, "{name}");
    }
    wait_until("the log", PATIENCE, || secure.logged("client certificate authentication failed"));
}

#[test]
fn tls_revoked_certificates_stay_out() {
    let prepare = |ca: &Ca| {
        ca.issue("a", "a", &[], 0x80);
        ca.issue("b", "b", &[], 0x1234_5678_9abc);
        ca.revoke("list.crl", &[0x80]);
    };
    let flags = ["--trusted-ca-file=CA/ca.pem", "--client-cert-auth", "--client-crl-file=CA/list.crl"];
    let secure = Secure::start_after(prepare, &flags);
    let (a, b) = (secure.client_named("a"), secure.client_named("b"));
    assert!(!secure.lets_in(&a) && secure.lets_in(&b));
    wait_until("the log", PATIENCE, || secure.logged("transport: certificate serial 80 revoked"));
    secure.ca.revoke("list.crl", &[0x1234_5678_9abc, 5]);
    assert!(secure.lets_in(&a) && !secure.lets_in(&b));
    std::fs::write(secure.ca.dir.join("list.crl"), "no list").expect("write");
    if is_foreign_server() {
        return; // there, nobody is let in
    }
    assert!(secure.lets_in(&a) && !secure.lets_in(&b));
    assert!(secure.logged("can't use changed files for TLS"));
}

#[test]
fn tls_files_are_read_again_while_streams_stay_open() {
    let secure = Secure::start(&[]);
    let mut watch = secure.etcdctl(None).args(["watch", "k"]).spawn().expect("start etcdctl");
    let mut events = BufReader::new(watch.stdout.take().expect("stdout")).lines();
    let put = |value: &str| {
        let put = secure.etcdctl(None).args(["put", "k", value]).output().expect("run etcdctl");
        assert!(put.status.success(), "{put:?}");
    };
    let mut sees = |value: &str| {
        let mut line = || events.next().expect("a line").expect("text");
        assert_eq!((line(), line(), line()), ("PUT".into(), "k".into(), value.to_owned()));
    };
    // The watcher's start is not announced: what it sees first may be any of these.
    let started = wait_for_watcher(&secure);
    put("1");
    sees("1");
    let certificate = || secure.client().get(secure.server.client_port, "/health").map(|r| r.certificate);
    let before = certificate().expect("the old certificate");
    secure.ca.issue("server", "server", &["127.0.0.1"], 2);
    let after = certificate().expect("the new certificate");
    assert_ne!(before, after);
    put("2");
    sees("2");
    if !is_foreign_server() {
        std::fs::write(secure.ca.dir.join("server.pem"), "broken").expect("write");
        assert_eq!(certificate().expect("still the new certificate"), after);
        put("3");
        sees("3");
    }
    assert!(started && watch.try_wait().expect("wait").is_none(), "the watch has ended");
    watch.kill().expect("kill etcdctl");
    watch.wait().expect("wait for etcdctl");
}

/// Waits until the server counts a watcher, or, where it has no metrics, until its connection is there.
fn wait_for_watcher(secure: &Secure) -> bool {
    let port = secure.server.client_port;
    let pid = secure.server.pid();
    wait_until("the watcher's connection", PATIENCE, || {
        let sockets = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
        let local = format!(":{port:04X} ");
        sockets.lines().filter(|line| line.contains(&local) && line.contains(" 01 ")).count() >= 2
    });
    // The stream follows its connection at once; a put through the same path comes later.
    let get = secure.etcdctl(None).args(["get", "none"]).output().expect("run etcdctl");
    get.status.success()
}

#[test]
fn tls_can_be_made_by_the_server() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let data = dir.path().join("data");
    let (client, peer) = (free_port(), free_port());
    let url = format!("https://127.0.0.1:{client}");
    let flags = [
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        "--auto-tls".to_owned(),
        "--peer-auto-tls".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut server = Server::start_on(&data, client, peer, &flags);
    let fixtures = data.join("fixtures");
    let read = |kind: &str, file: &str| std::fs::read(fixtures.join(kind).join(file)).expect("a file");
    let first = [read("client", "cert.pem"), read("client", "key.pem"), read("peer", "cert.pem")];
    let curl = || {
        let cert = fixtures.join("client").join("cert.pem");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--cacert"]).arg(cert).arg(format!("{url}/health"));
        let output = curl.output().expect("run curl");
        assert!(String::from_utf8_lossy(&output.stdout).contains("true"), "{output:?}");
    };
    curl();
    server.terminate();
    server.restart();
    curl();
    assert_eq!(first, [read("client", "cert.pem"), read("client", "key.pem"), read("peer", "cert.pem")]);
}
