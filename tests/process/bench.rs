//! `kvist bench` against a server: every workload runs and finds its checks to hold. With `KVIST_TEST_SERVER` the server is
//! an etcd, and the load tool stays ours.

use crate::support::{Server, free_port};
use crate::{finish, texts};
use kvist::client::{Connection, Options};
use kvist::pb::etcdserverpb::RangeRequest;
use kvist::pb::etcdserverpb::kv_client::KvClient;
use std::process::{Command, Stdio};

/// Flags that make every run short and small. Requests are counted, since a busy machine may give us no time.
const SHORT: [&str; 6] =
    ["--warmup=0s", "--key-space-size=500", "--total-keys=500", "--watchers=20", "--ttl=2", "--json"];

fn bench(workload: &[&str], endpoint: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvist"));
    command.arg("bench").args(workload).arg(format!("--endpoints={endpoint}")).stdin(Stdio::null());
    texts(finish(command))
}

/// Runs a workload for so many requests, which must go well, and returns what it says.
fn report(total: u64, workload: &[&str], server: &Server) -> serde_json::Value {
    let total = format!("--total={total}");
    let args: Vec<&str> = workload.iter().copied().chain(SHORT).chain([&*total]).collect();
    run(&args, server)
}

fn run(workload: &[&str], server: &Server) -> serde_json::Value {
    let (code, out, err) = bench(workload, &server.endpoint());
    assert_eq!(code, 0, "{workload:?}: {out}{err}");
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{workload:?}: {e}: {out}"))
}

/// All keys of the server.
fn keys(server: &Server) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = Options { endpoint: server.endpoint(), ..Options::default() };
        let connection = Connection::open(&options).await.expect("a connection");
        let (key, range_end) = (vec![0], vec![0]);
        let request = RangeRequest { key, range_end, count_only: true, ..Default::default() };
        KvClient::new(connection.link()).range(request).await.expect("an answer").into_inner().count
    })
}

#[test]
fn every_workload_runs_and_its_checks_hold() {
    let server = Server::start();
    let pid = format!("--server-pid={}", server.pid());
    for (workload, checks) in [
        (["put", "--clients=8", "--conns=2"].as_slice(), 3),
        (&["put", "--clients=4", "--threads=2", "--sequential-keys", "--val-size=2"], 3),
        (&["range", "--clients=4"], 2),
        (&["range", "--range-keys=300", "--consistency=s"], 2),
        (&["txn-put", "--clients=4", "--txn-ops=10"], 3),
        (&["txn-mixed", "--clients=4", "--limit=100", "--rw-ratio=2"], 3),
        (&["delete", "--clients=2"], 3),
        (&["watch", "--put-rate=100", "--threads=2"], 4),
        (&["watch", "--put-rate=0", "--streams=3", "--conns=2"], 4),
        (&["watch-latency", "--put-rate=100"], 4),
        (&["watch-many", "--put-rate=100"], 4),
        (&["watch-replay", "--conns=2"], 2),
        (&["lease-grant", "--clients=4"], 3),
        (&["lease-keepalive", "--clients=4"], 2),
        (&["lease-expiry", "--put-rate=50"], 3),
        (&["kubernetes", "--clients=4", "--threads=2"], 4),
        (&["snapshot"], 2),
    ] {
        let args: Vec<&str> = workload.iter().copied().chain([&*pid]).collect();
        let total = if workload[0] == "snapshot" { 2 } else { 40 };
        let report = report(total, &args, &server);
        assert_eq!(report["workload"], workload[0]);
        assert!(report["operations"].as_u64() >= Some(total), "{workload:?}: {report}");
        assert_eq!(report["errors"]["count"], 0, "{workload:?}: {report}");
        assert!(report["latency_us"]["max"].as_u64() > Some(0), "{workload:?}: {report}");
        assert_eq!(report["servers"][0]["pid"], server.pid(), "{report}");
        assert_eq!(report["checks"].as_array().map(Vec::len), Some(checks), "{workload:?}: {report}");
    }
    assert_eq!(keys(&server), 0);
}

/// Requests that were due and could not be sent are errors, and their time is in the latency.
#[test]
fn an_open_loop_does_not_wait_for_a_slow_server() {
    let server = Server::start();
    let calm = report(40, &["put", "--rate=200"], &server);
    assert_eq!(calm["operations"], 40, "{calm}");
    assert!(calm["seconds"].as_f64() > Some(0.19), "{calm}");
    let storm = run(&["put", "--rate=500000", "--clients=4", "--duration=300ms", "--json"], &server);
    assert!(storm["errors"]["by_code"]["Overflow"].as_u64() > Some(1000), "{storm}");
    assert!(storm["latency_us"]["p99"].as_u64() > Some(50_000), "{storm}");
}

#[test]
fn keys_are_cleared_unless_somebody_wants_them() {
    let server = Server::start();
    report(40, &["range"], &server);
    assert_eq!(keys(&server), 0);
    report(40, &["range", "--keep"], &server);
    assert_eq!(keys(&server), 500);
    // They were there before, so they stay, and are not put again: each still has the one version that a replay counts on.
    report(40, &["watch-replay"], &server);
    assert_eq!(keys(&server), 500);
}

#[test]
fn what_cannot_run_says_why() {
    let endpoint = format!("127.0.0.1:{}", free_port());
    for (args, code, text) in [
        (["bogus"].as_slice(), 2, "bogus"),
        (&["put", "--clients=0"], 2, "--clients must be at least 1"),
        (&["put", "--key-size=8"], 2, "--key-size has no room"),
        (&["put", "--user=root"], 2, "--user has no password"),
        (&["put", "--total=5", "--duration=1s"], 2, "cannot be used with"),
        (&["put"], 1, "cannot connect to 127.0.0.1"),
    ] {
        let (actual, out, err) = bench(args, &endpoint);
        assert_eq!(actual, code, "{args:?}: {out}{err}");
        assert!(err.contains(text), "{args:?}: {err}");
    }
    let (code, out, _) = bench(&["--help"], &endpoint);
    assert_eq!(code, 0);
    for text in ["watch-replay", "--rate", "--server-pid", "docs/bench.md"] {
        assert!(out.contains(text), "{text} is missing in {out}");
    }
}
