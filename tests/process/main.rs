//! The process seen from outside: flags, environment, exit codes, log lines, the data directory, signals.
//! Cases that etcd shares are also run against it (`KVIST_TEST_SERVER=/path/to/etcd`), which checks the cases.

mod bench;
mod config;
mod dump;
mod lifecycle;
#[path = "../support/mod.rs"]
mod support;

mod failure;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{READY, Server, free_port, is_foreign_server, server_binary, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

/// A command that neither inherits `ETCD_*` variables nor writes into the source tree.
fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(server_binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(name);
        }
    }
    command.args(args).current_dir(dir).stdin(Stdio::null());
    command
}

/// Runs a command that ends by itself.
fn finish(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start the server");
    let mut child = KillOnDrop(Some(child));
    let deadline = Instant::now() + PATIENCE;
    while child.0.as_mut().expect("not taken yet").try_wait().expect("wait for the server").is_none() {
        assert!(Instant::now() < deadline, "{command:?} should end by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.0.take().expect("not taken yet").wait_with_output().expect("output of the server")
}

struct KillOnDrop(Option<Child>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn run(args: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().expect("temporary directory");
    texts(finish(command(dir.path(), args)))
}

fn texts(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn assert_refused(args: &[&str], message: &str) {
    let (code, _, err) = run(args);
    assert_eq!(code, 1, "{args:?}: {err}");
    // Messages stand inside JSON, where quotes are escaped.
    assert!(err.contains(&message.replace('"', "\\\"")), "{args:?}: {err}");
}

#[test]
fn a_command_line_that_cannot_be_read_ends_with_2() {
    for (args, message) in [
        (["--bogus"].as_slice(), "flag provided but not defined: -bogus"),
        (&["---x"], "bad flag syntax: ---x"),
        (&["--snapshot-count"], "flag needs an argument: -snapshot-count"),
        (&["--snapshot-count=abc"], "invalid value \"abc\" for flag -snapshot-count: parse error"),
        (&["--pre-vote=maybe"], "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        (
            &["--grpc-keepalive-interval", "5"],
            "invalid value \"5\" for flag -grpc-keepalive-interval: parse error",
        ),
        (
            &["--initial-cluster-state=bad"],
            "invalid value \"bad\" for flag -initial-cluster-state: invalid value",
        ),
        (
            &["--listen-client-urls=foo"],
            "invalid value \"foo\" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: foo",
        ),
        (
            &["--feature-gates=Foo=true"],
            "invalid value \"Foo=true\" for flag -feature-gates: unrecognized feature gate: Foo",
        ),
        (&["--quota-backend-bytes=99999999999999999999"], "value out of range"),
        (&["--version", "--bogus"], "flag provided but not defined: -bogus"),
    ] {
        let (code, _, err) = run(args);
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(err.contains(message) && err.contains("Usage:"), "{args:?}: {err}");
    }
}

#[test]
fn values_that_cannot_be_run_with_end_with_1() {
    for (args, message) in [
        (["--pre-vote", "true"].as_slice(), "\"true\" is not a valid flag"),
        (&["--log-format=foo"], "unknown log format: foo, supported values json, console"),
        (&["--election-timeout=100"], "should be at least as 5 times as --heartbeat-interval"),
        (&["--auto-compaction-mode=foo"], "unknown auto-compaction-mode \"foo\""),
        (&["--listen-client-urls=http://127.0.0.1:1"], "--advertise-client-urls is required when"),
        (
            &["--listen-peer-urls=http://example.com:1"],
            "expected IP in URL for binding (http://example.com:1)",
        ),
        (&["--initial-cluster=a=http://127.0.0.1:2380"], "couldn't find local name \"default\""),
    ] {
        assert_refused(args, message);
    }
}

#[test]
fn what_must_not_be_ignored_is_refused() {
    if is_foreign_server() {
        return;
    }
    for flag in ["--discovery-srv=x", "--wal-dir=/proc/none"] {
        let (code, _, err) = run(&[flag]);
        assert_eq!(code, 1, "{flag}: {err}");
        let expected = if flag.contains("wal-dir") { "cannot access" } else { "this build does not support" };
        assert!(err.contains(expected), "{flag}: {err}");
    }
}

#[test]
fn help_and_version_end_with_0() {
    for flag in ["-h", "--help"] {
        let (code, out, err) = run(&[flag]);
        assert_eq!(code, 0, "{flag}: {err}");
        for text in ["--listen-client-urls 'http://localhost:2379'", "\nSecurity:\n", "--unsafe-no-fsync"] {
            assert!(out.contains(text), "{text} is missing in:\n{out}");
        }
        assert!(is_foreign_server() || (out.starts_with("Usage:") && err.is_empty()), "{err}");
    }
    let (code, out, _) = run(&["--version"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("etcd Version: 3.7.1\n"), "{out}");
    assert!(is_foreign_server() || out.contains("\nkvist Version: "), "{out}");
}

#[test]
fn a_variable_and_its_flag_exclude_each_other() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let with = |args: &[&str], name: &str, value: &str| {
        let mut command = command(dir.path(), args);
        command.env(name, value);
        texts(finish(command))
    };
    let (code, _, err) = with(&["--name=b"], "ETCD_NAME", "a");
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("\"level\":\"fatal\"") && err.contains("conflicting environment variable"), "{err}");
    assert!(err.contains("\"environment-variable\":\"ETCD_NAME\""), "{err}");
    let (code, _, err) = with(&[], "ETCD_SNAPSHOT_COUNT", "zz");
    assert_eq!(code, 1, "{err}");
    assert!(err.contains(r#"invalid value \"zz\" for ETCD_SNAPSHOT_COUNT: parse error"#), "{err}");
    let (code, _, err) = with(&["--log-format=foo"], "ETCD_FOO", "1");
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("unrecognized environment variable"), "{err}");
}

#[test]
fn every_log_line_is_json_with_the_keys_of_etcd() {
    let mut server = Server::start();
    server.terminate();
    let lines = server.log_lines();
    assert!(lines.len() > 3);
    for line in &lines {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for key in ["level", "ts", "caller", "msg"] {
            assert!(line[key].is_string(), "{key} in {line}");
        }
    }
}

#[test]
fn console_lines_go_to_the_outputs_that_are_named() {
    if is_foreign_server() {
        return;
    }
    let temp = tempfile::tempdir().expect("temporary directory");
    let file = temp.path().join("log");
    let outputs = format!("--log-outputs=stderr,{}", file.display());
    let mut server = Server::start_with(&["--log-format=console", &outputs]);
    server.terminate();
    let text = std::fs::read_to_string(&file).expect("log file");
    assert!(text.contains("\tinfo\t") && text.contains("ready to serve client requests"), "{text}");
}

/// P-4: the server stops in order, frees its directory, and ends by the signal that it got.
#[test]
fn p_4_a_server_ends_by_the_signal_that_stopped_it() {
    let mut server = Server::start();
    for (signal, number, name) in [("TERM", 15, "terminated"), ("INT", 2, "interrupt")] {
        let begin = Instant::now();
        let status = server.stop_by(signal);
        assert_eq!(status.signal(), Some(number), "{status:?}");
        assert!(begin.elapsed() < Duration::from_secs(10));
        let logged = |text: &str| server.log_lines().iter().any(|line| line.contains(text));
        wait_until("the last lines", PATIENCE, || logged("closed etcd server"));
        assert!(logged("received signal; shutting down") && logged(&format!("\"signal\":\"{name}\"")));
        server.restart();
    }
}

/// P-4: no signal ends process 1 (of a container), so it leaves with 0.
#[test]
fn p_4_process_1_leaves_with_0() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let url = format!("http://127.0.0.1:{}", free_port());
    let peer_url = format!("http://127.0.0.1:{}", free_port());
    let log = dir.path().join("log");
    let mut unshare = Command::new("unshare")
        .args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"])
        .arg(server_binary())
        .arg(format!("--data-dir={}", dir.path().join("data").display()))
        .args([&format!("--listen-client-urls={url}"), &format!("--advertise-client-urls={url}")])
        .args([
            &format!("--listen-peer-urls={peer_url}"),
            &format!("--initial-advertise-peer-urls={peer_url}"),
        ])
        .arg(format!("--initial-cluster=default={peer_url}"))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("log file"))
        .spawn()
        .expect("unshare, of util-linux");
    let text = || std::fs::read_to_string(&log).expect("log file");
    wait_until("the server", PATIENCE, || text().contains(READY) || text().contains("unshare: "));
    if text().contains("unshare: ") {
        eprintln!("skipped: this system gives no process namespace: {}", text());
        unshare.wait().expect("the end of unshare");
        return;
    }
    let children = format!("/proc/{0}/task/{0}/children", unshare.id());
    let child = std::fs::read_to_string(children).expect("the child of unshare");
    send(child.trim().parse().expect("a process id"), "TERM");
    assert_eq!(unshare.wait().expect("the end of the server").code(), Some(0), "{}", text());
}

fn send(pid: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().expect("kill");
    assert!(status.success());
}

#[test]
fn a_data_directory_belongs_to_one_process() {
    if is_foreign_server() {
        return; // etcd waits for the other one
    }
    let mut server = Server::start();
    let dir = server.data_dir().display().to_string();
    assert_refused(
        &["--data-dir", &dir],
        &format!("data directory {dir} is in use by another process (pid {})", server.pid()),
    );
    server.kill();
    server.restart();
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let file = temp.path().join("file");
    std::fs::write(&file, "").expect("write a file");
    assert_refused(&["--data-dir", &file.display().to_string()], &file.display().to_string());
    assert_refused(&["--data-dir=/proc/none"], "cannot access data directory");
    // Root may write everywhere, so a directory without permission only stops others.
    let locked = temp.path().join("locked");
    std::fs::create_dir(&locked).expect("make a directory");
    let mut permissions = std::fs::metadata(&locked).expect("metadata").permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&locked, permissions).expect("make it read-only");
    if std::fs::write(locked.join("probe"), "").is_ok() {
        eprintln!("skipped: this user may write into read-only directories");
        return;
    }
    assert_refused(&["--data-dir", &locked.display().to_string()], "ermission denied");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("address").to_string();
    let (client, peer) = (format!("http://{address}"), format!("http://127.0.0.1:{}", free_port()));
    assert_refused(
        &["--listen-client-urls", &client, "--advertise-client-urls", &client, "--listen-peer-urls", &peer],
        &format!("listen tcp {address}: "),
    );
}

#[test]
fn the_data_of_etcd_is_left_alone() {
    if is_foreign_server() {
        return;
    }
    let temp = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir_all(temp.path().join("member/snap")).expect("make directories");
    assert_refused(&["--data-dir", &temp.path().display().to_string()], "holds the data of an etcd server");
}

#[test]
fn the_service_manager_hears_when_the_server_is_ready() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let path = temp.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("bind the socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let urls = [free_port(), free_port()].map(|port| format!("http://127.0.0.1:{port}"));
    let mut command = command(
        temp.path(),
        &[
            "--listen-client-urls",
            &urls[0],
            "--advertise-client-urls",
            &urls[0],
            "--listen-peer-urls",
            &urls[1],
        ],
    );
    let child = command.env("NOTIFY_SOCKET", &path).stderr(Stdio::null()).spawn().expect("start the server");
    let _child = KillOnDrop(Some(child));
    let mut bytes = [0; 256];
    let count = socket.recv(&mut bytes).expect("a message");
    assert!(String::from_utf8_lossy(&bytes[..count]).contains("READY=1"));
}
