//! What `/metrics` shows (contract section 6), and what the log says of slow requests (G-10).

use crate::client::{Session, own};
use crate::http_client::{curl, get};
use crate::support::{Server, free_port, is_foreign_server, tool, wait_until};
use kvist::pb::etcdserverpb as pb;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const DASHBOARD: &str = include_str!("../../packaging/grafana/kvist.json");
const RULES: &str = include_str!("../../packaging/prometheus/kvist.rules.yaml");

/// Families that etcd has and kvist does not, by the beginning of their name: Go's runtime, etcd's proxy, its v2 store,
/// its storage engine, its files of snapshots, and the insides of its watch streams. `process_` and `promhttp_` are
/// those of Go's library; the ones that dashboards use are there.
const ABSENT: &[&str] = &[
    "go_",
    "promhttp_",
    "process_network_",
    "process_virtual_memory_max_bytes",
    "etcd_grpc_proxy_",
    "etcd_debugging_store_",
    "etcd_debugging_snap_",
    "etcd_snap_",
    "etcd_debugging_disk_backend_commit_rebalance_",
    "etcd_debugging_disk_backend_commit_spill_",
    "etcd_debugging_mvcc_index_compaction_",
    "etcd_debugging_server_watch_send_loop_",
    "etcd_server_go_version",
];

/// Families about other members, which a server alone does not have; `tests/cluster` looks at them.
const OF_PEERS: &[&str] =
    &["etcd_network_peer_", "etcd_network_active_peers", "etcd_network_disconnected_peers_"];

/// A family: its type, and the names of labels that its series have.
type Families = BTreeMap<String, (String, BTreeSet<Vec<String>>)>;

fn families(text: &str) -> Families {
    let mut families = Families::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            current = name.to_owned();
            families.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |l| l.0);
            let mut names: Vec<String> = labels
                .split("\",")
                .filter_map(|label| Some(label.split_once('=')?.0.to_owned()))
                .filter(|name| name != "le")
                .collect();
            names.sort();
            families.get_mut(&current).expect("a type comes first").1.insert(names);
        }
    }
    families
}

/// The value of the one series that has this name and all of these labels.
#[track_caller]
fn value(text: &str, name: &str, labels: &[&str]) -> f64 {
    let found = text.lines().find(|line| {
        line.starts_with(name)
            && matches!(line.as_bytes()[name.len()], b'{' | b' ')
            && labels.iter().all(|label| line.contains(label))
    });
    let line = found.unwrap_or_else(|| panic!("no {name} with {labels:?}"));
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

fn scrape(server: &Server) -> String {
    let answer = get(server, "/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.header("Content-Type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    answer.body
}

/// A little of everything, so that each family that is born by its first use is there.
async fn use_it(session: &Session) {
    session.put("metrics/a", "value").await;
    assert!(session.get("metrics/a").await.is_some());
    session.txn(pb::TxnRequest::default()).await;
    let lease = session.grant().await;
    session.revoke(lease).await;
    for path in ["/health", "/livez", "/readyz"] {
        assert_eq!(get(session.server(), path).status, 200);
    }
}

#[tokio::test]
async fn metrics_that_dashboard_and_rules_name_are_there() {
    if is_foreign_server() {
        return; // kvist_... are among them
    }
    let session = own(&["--metrics=extensive"]).await;
    use_it(&session).await;
    let shown = families(&scrape(session.server()));
    let named = [DASHBOARD, RULES].into_iter().flat_map(|text| {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| {
            ["etcd_", "grpc_server_", "kvist_", "process_", "os_fd_"].iter().any(|p| word.starts_with(p))
        })
    });
    let named: BTreeSet<&str> = named.map(|name| name.trim_end_matches("_bucket")).collect();
    assert!(named.len() > 40, "{named:?}");
    // An alarm is a series while it is raised.
    let may_miss = |name: &str| {
        name == "etcd_debugging_server_alarms" || OF_PEERS.iter().any(|prefix| name.starts_with(prefix))
    };
    let missing: Vec<_> = named.iter().filter(|n| !shown.contains_key(**n) && !may_miss(n)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn rules_are_what_promtool_takes() {
    let Some(promtool) = tool("promtool", "the check of the alert rules") else { return };
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/prometheus/kvist.rules.yaml");
    let output = Command::new(promtool).args(["check", "rules", rules]).output().expect("promtool");
    assert!(output.status.success(), "{output:?}");
}

/// Kills the process with the test.
struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn metrics_have_the_types_and_labels_of_etcd() {
    let Some(etcd) = tool("etcd", "comparing metrics with etcd's") else { return };
    if is_foreign_server() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let (client, peer) = (url(free_port()), url(free_port()));
    let child = Command::new(etcd)
        .arg(format!("--data-dir={}", data.path().display()))
        .args(["--metrics=extensive".to_owned(), format!("--initial-cluster=default={peer}")])
        .args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")])
        .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _etcd = Etcd(child);
    let is_ready = || {
        let output = Command::new("curl").args(["-sf", &format!("{client}/health")]).output();
        output.is_ok_and(|output| output.status.success())
    };
    wait_until("etcd to be ready", PATIENCE, is_ready);
    for path in ["livez", "readyz"] {
        curl(&[&format!("{client}/{path}")]);
    }
    for body in ["{\"key\":\"YQ==\"}", "{\"key\":\"YQ==\",\"value\":\"YQ==\"}"] {
        curl(&[
            "-d",
            body,
            &format!("{client}/v3/kv/{}", if body.contains("value") { "put" } else { "range" }),
        ]);
    }
    let theirs = families(&curl(&[&format!("{client}/metrics")]).body);

    let session = own(&["--metrics=extensive"]).await;
    use_it(&session).await;
    let ours = families(&scrape(session.server()));
    let wanted = theirs.iter().filter(|(name, _)| !ABSENT.iter().any(|absent| name.starts_with(absent)));
    let mut wrong = Vec::new();
    for (name, (kind, labels)) in wanted {
        match ours.get(name) {
            None => {
                wrong.push(format!("{name} is missing"));
            }
            Some((our_kind, _)) if our_kind != kind => {
                wrong.push(format!("{name} is a {our_kind}, not a {kind}"));
            }
            Some((_, our_labels)) if our_labels != labels => {
                wrong.push(format!("{name} has labels {our_labels:?}, not {labels:?}"));
            }
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let session = own(&[]).await;
    let put = &["grpc_method=\"Put\"", "grpc_service=\"etcdserverpb.KV\"", "grpc_type=\"unary\""];
    let before = scrape(session.server());
    assert_eq!(value(&before, "grpc_server_started_total", put), 0.0);
    for n in 0..3 {
        session.put(format!("metrics/{n}"), "12345").await;
    }
    session.try_put(pb::PutRequest::default()).await.unwrap_err();
    let after = scrape(session.server());
    let with = |code: &'static str| [put[0], put[1], put[2], code];
    assert_eq!(value(&after, "grpc_server_started_total", put), 4.0);
    assert_eq!(value(&after, "grpc_server_handled_total", &with("grpc_code=\"OK\"")), 3.0);
    assert_eq!(value(&after, "grpc_server_handled_total", &with("grpc_code=\"InvalidArgument\"")), 1.0);
    assert_eq!(value(&after, "grpc_server_msg_received_total", put), 4.0);
    assert_eq!(value(&after, "etcd_debugging_mvcc_keys_total", &[]), 3.0);
    let of_puts = ["success=\"true\"", "\"Put\""];
    assert_eq!(value(&after, "etcd_server_apply_duration_seconds_count", &of_puts), 3.0);
    assert_eq!(value(&after, "etcd_server_request_duration_seconds_count", &of_puts), 3.0);
    let grown = |name: &str| value(&after, name, &[]) - value(&before, name, &[]);
    assert_eq!(grown("etcd_debugging_mvcc_current_revision"), 3.0);
    assert_eq!(grown("etcd_mvcc_put_total"), 3.0);
    assert_eq!(grown("etcd_debugging_mvcc_total_put_size_in_bytes"), 3.0 * 14.0);
    assert!(grown("etcd_network_client_grpc_received_bytes_total") >= 3.0 * 18.0);
    assert!(grown("etcd_network_client_grpc_sent_bytes_total") > 0.0);
    assert!(grown("etcd_server_proposals_applied_total") >= 3.0);
    assert!(grown("etcd_disk_wal_fsync_duration_seconds_count") >= 3.0);
    for (name, expected) in [
        ("etcd_server_has_leader", 1.0),
        ("etcd_server_is_leader", 1.0),
        ("etcd_server_leader_changes_seen_total", 1.0),
        ("etcd_server_proposals_pending", 0.0),
        ("etcd_server_proposals_failed_total", 0.0),
    ] {
        assert_eq!(value(&after, name, &[]), expected, "{name}");
    }
}

#[tokio::test]
async fn g_2_clients_are_counted_by_their_version() {
    let session = own(&[]).await;
    session.get("k").await;
    let text = scrape(session.server());
    let unknown = ["client_api_version=\"unknown\"", "type=\"unary\""];
    assert!(value(&text, "etcd_server_client_requests_total", &unknown) >= 1.0);
}

#[tokio::test]
async fn g_10_slow_requests_are_logged_without_values() {
    let session = own(&["--warning-apply-duration=1ns", "--warning-unary-request-duration=1ns"]).await;
    session.put("slow/key", "secret").await;
    session.get("slow/key").await;
    let lines = || {
        let lines = session.server().log_lines();
        let with = |text: &str| lines.iter().filter(|line| line.contains(text)).cloned().collect::<Vec<_>>();
        [with("apply request took too long"), with("request stats")]
    };
    let is_logged = |lines: &[String], texts: &[&str]| {
        lines.iter().any(|line| texts.iter().all(|text| line.contains(text)))
    };
    wait_until("the slow requests to be logged", PATIENCE, || {
        let [applied, answered] = lines();
        let put = r#"key:\"slow/key\" value_size:6"#;
        is_logged(&applied, &[put, "\"took\":", "\"expected-duration\":\"1ns\"", "\"prefix\":\"\""])
            && is_logged(
                &applied,
                &["\"prefix\":\"read-only range \"", r#"key:\"slow/key\""#, "range_response_count:1"],
            )
            && is_logged(&answered, &["\"response type\":\"/etcdserverpb.KV/Put\"", put, "\"time spent\":"])
    });
    let [applied, answered] = lines();
    assert!(applied.iter().chain(&answered).all(|line| !line.contains("secret")));
    if !is_foreign_server() {
        assert!(is_logged(&answered, &["queue:", "fsync:", "raft:", "apply:", "send:"]));
    }
}
