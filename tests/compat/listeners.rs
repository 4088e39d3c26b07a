//! Listeners: several of them, Unix sockets, plain and TLS on one port, slow handshakes, and as many clients as there
//! are descriptors.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::etcdctl;
use crate::support::certs::{Ca, Client, plain_get};
use crate::support::{Server, free_port, server_binary, wait_until};
use crate::tls::Secure;

const PATIENCE: Duration = Duration::from_secs(20);

fn start(dir: &std::path::Path, client: u16, peer: u16, flags: &[String]) -> Server {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Server::start_on(&dir.join("data"), client, peer, &flags)
}

fn health(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port))
        .and_then(|mut stream| plain_get(&mut stream, "/health"))
        .is_ok_and(|text| text.contains("true"))
}

#[test]
fn listeners_plain_and_with_tls_stand_side_by_side() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ca = Ca::new(&dir.path().join("ca"));
    ca.issue_server();
    let (shared, plain, metrics) = (free_port(), free_port(), free_port());
    let urls = format!("http://127.0.0.1:{shared},https://127.0.0.1:{shared},http://127.0.0.1:{plain}");
    let server = start(
        dir.path(),
        shared,
        free_port(),
        &[
            format!("--listen-client-urls={urls}"),
            format!("--advertise-client-urls=http://127.0.0.1:{shared}"),
            format!("--listen-metrics-urls=https://127.0.0.1:{metrics}"),
            format!("--cert-file={}", ca.path("server.pem")),
            format!("--key-file={}", ca.path("server.key")),
        ],
    );
    let client = Client::trusting(&ca.dir.join("ca.pem"));
    assert!(health(shared) && health(plain) && !health(metrics));
    for port in [shared, metrics] {
        assert!(client.get(port, "/health").is_ok_and(|reply| reply.text.contains("true")), "{port}");
    }
    for args in [
        vec![format!("--endpoints=http://127.0.0.1:{shared}")],
        vec![format!("--endpoints=http://127.0.0.1:{plain}")],
        vec![format!("--endpoints=https://127.0.0.1:{shared}"), format!("--cacert={}", ca.path("ca.pem"))],
    ] {
        let mut put = Command::new(&etcdctl::binaries()[0]);
        let put =
            put.env("ETCDCTL_API", "3").args(&args).args(["put", "a", "b"]).output().expect("run etcdctl");
        assert!(put.status.success(), "{args:?}: {put:?}");
    }
    let line = "scheme is http or unix while key and cert files are present; ignoring key and cert files";
    assert!(server.log_lines().iter().any(|l| l.contains(line)));
}

#[test]
fn listeners_for_http_leave_grpc_alone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (grpc, http) = (free_port(), free_port());
    let flags = [format!("--listen-client-http-urls=http://127.0.0.1:{http}")];
    let _server = start(dir.path(), grpc, free_port(), &flags);
    assert!(health(http) && !health(grpc));
    let put = |port: u16| {
        let mut put = Command::new(&etcdctl::binaries()[0]);
        put.env("ETCDCTL_API", "3").arg(format!("--endpoints=http://127.0.0.1:{port}"));
        put.args(["--command-timeout=2s", "put", "a", "b"]).output().expect("run etcdctl").status.success()
    };
    assert!(put(grpc) && !put(http));
}

#[test]
fn listeners_may_be_unix_sockets() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ca = Ca::new(&dir.path().join("ca"));
    ca.issue_server();
    let port = free_port();
    let (plain, secure) = (dir.path().join("plain.sock"), dir.path().join("localhost:1"));
    std::fs::write(&plain, "left by an earlier process").expect("write");
    let (plain_url, secure_url) =
        (format!("unix://{}", plain.display()), format!("unixs://{}", secure.display()));
    let mut server = start(
        dir.path(),
        port,
        free_port(),
        &[
            format!("--listen-client-urls=http://127.0.0.1:{port},{plain_url},{secure_url}"),
            format!("--advertise-client-urls=http://127.0.0.1:{port}"),
            format!("--cert-file={}", ca.path("server.pem")),
            format!("--key-file={}", ca.path("server.key")),
        ],
    );
    let mut put = Command::new(&etcdctl::binaries()[0]);
    put.env("ETCDCTL_API", "3").arg(format!("--endpoints={plain_url}")).args(["put", "a", "b"]);
    let put = put.output().expect("run etcdctl");
    assert!(put.status.success(), "{put:?}");
    let connect = |path| UnixStream::connect(path).expect("connect");
    assert!(plain_get(&mut connect(&plain), "/health").expect("plain").contains("true"));
    let client = Client::trusting(&ca.dir.join("ca.pem"));
    let reply = client.get_over(connect(&secure), "/health").expect("with TLS");
    assert!(reply.text.contains("true"));
    server.terminate();
    assert!(!plain.exists() && !secure.exists());
}

#[test]
fn listeners_may_share_a_port() {
    let (first, second) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let port = free_port();
    let flags = ["--socket-reuse-port=true".to_owned(), "--socket-reuse-address".to_owned()];
    let _first = start(first.path(), port, free_port(), &flags);
    let _second = start(second.path(), port, free_port(), &flags);
    assert!((0..10).all(|_| health(port)));
}

#[test]
fn listeners_do_not_wait_for_slow_handshakes() {
    let secure = Secure::start(&[]);
    let port = secure.server.client_port;
    let mut slow: Vec<TcpStream> = (0..100)
        .map(|n| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            // Half of them begin a record and leave it at that.
            stream.write_all(&b"\x16\x03\x01\x02\x00\x01"[..n % 2 * 6]).expect("write");
            stream
        })
        .collect();
    assert!(secure.lets_in(&secure.client()));
    let begin = Instant::now();
    for stream in &mut slow {
        // Closed or reset, but not for ever open.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(begin.elapsed() < PATIENCE, "silent clients stayed connected");
}

/// Contract P-7: of 200 descriptors 50 are for clients; the others wait, and fewer than 150 are not enough to start.
#[test]
fn p_7_clients_beyond_the_descriptors_wait() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (client, peer) = (free_port(), free_port());
    let run = |files: u32| {
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]).arg(server_binary());
        command.arg("--data-dir").arg(dir.path().join(format!("data{files}")));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("start the server")
    };
    let output = run(150).wait_with_output().expect("the end");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains("file descriptor limit of"), "{text}");

    let mut server = run(200);
    let mut stderr = server.stderr.take().expect("stderr");
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    wait_until("the server to be ready", PATIENCE, || health(client));
    let connect = || TcpStream::connect(("127.0.0.1", client)).expect("connect");
    let mut taken: Vec<TcpStream> = (0..50).map(|_| connect()).collect();
    let mut waiting = connect();
    waiting.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let answer = plain_get(&mut waiting, "/health");
    assert!(answer.is_err(), "a client too many was served: {answer:?}");
    taken.pop();
    waiting.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut answer = [0; 12];
    waiting.read_exact(&mut answer).expect("an answer once there is room");
    assert_eq!(&answer, b"HTTP/1.1 200");
    server.kill().expect("kill the server");
    server.wait().expect("wait for the server");
}
