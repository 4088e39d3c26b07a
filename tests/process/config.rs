//! Where the configuration comes from: file, old names of flags, `kvist config --check`. Rows F-1 to F-7.

use crate::support::{READY, Server, free_port, is_foreign_server, wait_until};
use crate::{KillOnDrop, PATIENCE, assert_refused, command, finish, run, texts};
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

/// A file with this content, and the directory that holds it.
fn file(content: &str) -> (tempfile::TempDir, String) {
    let temp = tempfile::tempdir().expect("temporary directory");
    let path = temp.path().join("config.yml");
    std::fs::write(&path, content).expect("write the file");
    let path = path.display().to_string();
    (temp, path)
}

/// Listeners on free ports, in the form of a file.
fn listeners() -> String {
    let [client, peer] = [free_port(), free_port()];
    format!(
        "listen-client-urls: http://127.0.0.1:{client}\nadvertise-client-urls: http://127.0.0.1:{client}\n\
         listen-peer-urls: http://127.0.0.1:{peer}\n"
    )
}

fn with_file(content: &str, args: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let (temp, path) = file(content);
    let mut command = command(temp.path(), &[&["--config-file", &path], args].concat());
    command.envs(variables.iter().copied());
    texts(finish(command))
}

#[test]
fn f_4_with_a_file_nothing_else_counts() {
    let (temp, path) = file(&format!("{}name: from-file\nsnapshot-count: 5000\n", listeners()));
    // The flag and the variable would contradict each other, and the port is nobody's.
    let args = ["--name=from-flag", "--listen-peer-urls=http://192.0.2.1:1"];
    let mut command = command(temp.path(), &args);
    command.env("ETCD_CONFIG_FILE", &path).env("ETCD_NAME", "from-variable");
    let child = command.stderr(Stdio::piped()).spawn().expect("start the server");
    let mut child = KillOnDrop(Some(child));
    let mut stderr = child.0.as_mut().and_then(|child| child.stderr.take()).expect("stderr is piped");
    let (mut log, mut part) = (String::new(), [0; 4096]);
    wait_until("the server to be ready", PATIENCE, || {
        let count = stderr.read(&mut part).expect("read the log");
        assert!(count > 0, "the server ended: {log}");
        log.push_str(&String::from_utf8_lossy(&part[..count]));
        log.contains(READY)
    });
    assert!(log.contains("loaded server configuration, other configuration command line flags"), "{log}");
    assert!(log.contains("\"name\":\"from-file\"") && !log.contains("from-variable"), "{log}");
}

#[test]
fn f_4_what_is_wrong_in_a_file_ends_with_1() {
    for (line, message) in [
        ("snapshot-count: abc", "cannot unmarshal string into"),
        ("snapshot-count: -5", "cannot unmarshal number -5 into"),
        ("auto-compaction-retention: 1", "cannot unmarshal number"),
        ("pre-vote: \"true\"", "cannot unmarshal string into"),
        ("warning-apply-duration: 100ms", "of type time.Duration"),
        ("log-outputs: stderr", "of type []string"),
        ("name: [a]", "cannot unmarshal array into"),
        ("client-transport-security: {client-cert-auth: x}", "client-transport-security.client-cert-auth"),
        ("feature-gates: Foo=true", "unrecognized feature gate: Foo"),
        ("initial-cluster-state: bad", "failed to verify flags"),
        (
            "discovery-srv: x\ninitial-cluster: a=http://127.0.0.1:1",
            "multiple discovery or bootstrap flags are set",
        ),
        ("name: \"a", "YAML"),
    ] {
        let (code, _, err) = with_file(&format!("{}{line}\n", listeners()), &[], &[]);
        assert_eq!(code, 1, "{line}: {err}");
        assert!(err.contains(message), "{line}: {err}");
    }
    let (code, _, err) = run(&["--config-file=/none/such.yml"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("/none/such.yml") && err.to_lowercase().contains("no such file"), "{err}");
    let (code, _, err) = with_file("name: a", &["--bogus"], &[]);
    assert_eq!(code, 2, "flags are read before the file: {err}");
}

#[test]
fn f_5_bootstrap_and_log_flags_are_checked_as_etcd_does() {
    for (args, message) in [
        (["--discovery-token=x"].as_slice(), "both --discovery-token and --discovery-endpoints must be set"),
        (
            &["--discovery-srv=x", "--initial-cluster=default=http://localhost:2380"],
            "multiple discovery or bootstrap flags are set. Choose one of",
        ),
        (
            &["--discovery-fallback=proxy"],
            "v2 proxy is deprecated, and --discovery-fallback can't be configured",
        ),
        (&["--compact-hash-check-time=0"], "--compact-hash-check-time must be >0 (set to 0s)"),
        (&["--logger=capnslog"], "--logger=capnslog is removed in v3.5"),
        (&["--log-outputs=default,stderr"], "multi logoutput for \"default\" is not supported yet"),
        (
            &["--enable-log-rotation"],
            "--log-outputs requires a single file path when --log-rotate-config-json",
        ),
        (
            &["--enable-log-rotation", "--log-outputs=a,b"],
            "--log-outputs requires a single file path when --log-rotate-config-json",
        ),
        (
            &["--enable-log-rotation", "--log-outputs=a", "--log-rotation-config-json={x"],
            "improperly formatted log rotation config",
        ),
        (
            &["--enable-log-rotation", "--log-outputs=a", "--log-rotation-config-json={\"maxsize\":\"x\"}"],
            "invalid log rotation config",
        ),
    ] {
        assert_refused(args, message);
    }
    let (code, _, err) = run(&["--v2-deprecation=not-yet"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("invalid value \"not-yet\" for flag -v2-deprecation: invalid value"), "{err}");
}

#[test]
fn f_5_flags_that_etcd_means_to_drop_are_warned_about() {
    let server = Server::start_with(&["--max-snapshots=3", "--v2-deprecation=gone"]);
    let lines = server.log_lines().join("\n");
    assert!(lines.contains("--max-snapshots is deprecated in 3.6"), "{lines}");
    assert!(lines.contains("--v2-deprecation is deprecated and scheduled for removal in v3.8."), "{lines}");
}

#[test]
fn old_names_of_flags_work_with_a_warning() {
    if is_foreign_server() {
        return; // etcd 3.7 ends with 2
    }
    let server = Server::start_with(&[
        "--experimental-initial-corrupt-check=true",
        "--experimental-watch-progress-notify-interval=5s",
    ]);
    let lines = server.log_lines().join("\n");
    assert!(lines.contains("\"new-name\":\"feature-gates=InitialCorruptCheck\""), "{lines}");
    assert!(lines.contains("\"new-name\":\"watch-progress-notify-interval\""), "{lines}");
    let (code, _, err) = run(&["--experimental-no-such-flag"]);
    assert_eq!(code, 2, "{err}");
}

#[test]
fn memory_is_locked_when_asked() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let (client, peer) = (free_port(), free_port());
    let urls = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
    let args = ["--memory-mlock", "--listen-client-urls", &urls[0], "--advertise-client-urls", &urls[0]];
    let mut command = command(temp.path(), &[&args[..], &["--listen-peer-urls", &urls[1]]].concat());
    let child = command.stderr(Stdio::piped()).spawn().expect("start the server");
    let mut child = KillOnDrop(Some(child));
    let process = child.0.as_mut().expect("not taken yet");
    let status = format!("/proc/{}/status", process.id());
    let mut ended = None;
    wait_until("memory to be locked, or refused", PATIENCE, || {
        ended = process.try_wait().expect("wait for the server");
        ended.is_some() || locked_kib(Path::new(&status)) > 0
    });
    if let Some(status) = ended {
        // Without the right to lock memory, the reason is given.
        let mut log = String::new();
        process.stderr.take().expect("stderr is piped").read_to_string(&mut log).expect("read the log");
        assert!(status.code() == Some(1) && log.contains("lock"), "{log}");
    }
}

fn locked_kib(status: &Path) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[test]
fn a_configuration_is_checked_without_a_server() {
    if is_foreign_server() {
        return;
    }
    let check = |content: &str| {
        let (_temp, path) = file(content);
        run(&["config", "--check", &path])
    };
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/kvist.conf.yml");
    let (code, out, err) = run(&["config", "--check", sample]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "ok\n", ""), "the sample is clean");
    let (code, out, err) = check("name: a\nproxy: 'off'\nmax-wals: 3\n");
    assert_eq!((code, out.as_str()), (0, "ok\n"), "{err}");
    assert!(err.contains("warning: proxy is an unknown key and ignored"), "{err}");
    assert!(err.contains("warning: max-wals is accepted without effect"), "{err}");
    let (code, _, err) = check("name: a\nsnapshot-count: x\n");
    assert_eq!(code, 1);
    assert!(
        err.contains("snapshot-count: cannot unmarshal string") && err.contains("at line 2 column 17"),
        "{err}"
    );
    let (code, _, err) = check("initial-cluster: b=http://127.0.0.1:1\n");
    assert_eq!(code, 1);
    assert!(err.contains("couldn't find local name \"default\""), "{err}");
    let (code, out, _) = run(&["config", "--check", "--", "--name=a"]);
    assert_eq!((code, out.as_str()), (0, "ok\n"));
    let (code, _, err) = run(&["config", "--check", "--", "--election-timeout=100"]);
    assert_eq!(code, 1);
    assert!(err.contains("error: --election-timeout[100ms] should be"), "{err}");
    assert_eq!(run(&["config"]).0, 2);
    assert_eq!(run(&["config", "--help"]).0, 0);
}
