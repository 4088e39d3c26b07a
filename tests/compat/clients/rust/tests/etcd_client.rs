//! The crate etcd-client against the server. With `KVIST_ENDPOINT=host:port` a running server is used; otherwise each
//! test starts the binary named by `KVIST_TEST_SERVER` on loopback.
//!
//! Only what is not already shown by raw calls in `tests/compat`: that this client library works unchanged.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etcd_client::{
    AlarmAction, AlarmType, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, EventType,
    GetOptions, LeaseTimeToLiveOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp, WatchFilterType,
    WatchOptions, WatchResponse, WatchStream,
};

const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// A client, a key prefix of its own, and the server if the test started it.
struct Fixture {
    client: Client,
    prefix: String,
    _server: Option<Server>,
}

struct Server {
    child: Child,
    _data: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// Starts the server and returns it with its endpoint once it says that it serves.
fn start(binary: &str) -> (Server, String) {
    let data = tempfile::tempdir().expect("temporary directory");
    let endpoint = format!("127.0.0.1:{}", free_port());
    let (client, peer) = (format!("http://{endpoint}"), format!("http://127.0.0.1:{}", free_port()));
    let mut child = Command::new(binary)
        .arg("--data-dir")
        .arg(data.path().join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the server");
    let mut log = BufReader::new(child.stderr.take().expect("stderr")).lines().map_while(Result::ok);
    let server = Server { child, _data: data };
    assert!(log.any(|line| line.contains("ready to serve client requests")), "the server ended");
    std::thread::spawn(move || log.for_each(drop)); // keep the pipe empty
    (server, endpoint)
}

async fn fixture() -> Fixture {
    let (server, endpoint) = match (std::env::var("KVIST_ENDPOINT"), std::env::var("KVIST_TEST_SERVER")) {
        (Ok(endpoint), _) => (None, endpoint),
        (_, Ok(binary)) => {
            let (server, endpoint) = start(&binary);
            (Some(server), endpoint)
        }
        _ => panic!("set KVIST_ENDPOINT=host:port or KVIST_TEST_SERVER=/path/to/server"),
    };
    let options = ConnectOptions::new().with_require_leader(true).with_timeout(REPLY_TIMEOUT);
    let client = Client::connect([endpoint], Some(options)).await.expect("connect");
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos();
    Fixture { client, prefix: format!("etcd-client/{nanos}/"), _server: server }
}

async fn next(stream: &mut WatchStream) -> WatchResponse {
    let message = tokio::time::timeout(REPLY_TIMEOUT, stream.message()).await.expect("a response in time");
    message.expect("a healthy stream").expect("the stream goes on")
}

/// Short form of the events of a response: kind, key after the prefix, value.
fn events(response: &WatchResponse, prefix: &str) -> Vec<(EventType, String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let short = |key: &[u8]| text(key).strip_prefix(prefix).expect("a key of this test").to_owned();
    let event = |e: &etcd_client::Event| {
        let kv = e.kv().expect("kv");
        (e.event_type(), short(kv.key()), text(kv.value()))
    };
    response.events().iter().map(event).collect()
}

#[tokio::test]
async fn kv_and_txn() {
    let Fixture { mut client, prefix, _server } = fixture().await;
    let key = |name: &str| format!("{prefix}{name}");
    client.put(key("a"), "1", None).await.expect("put");
    let put = client.put(key("a"), "2", Some(PutOptions::new().with_prev_key())).await.expect("put");
    assert_eq!(put.prev_key().expect("prev_kv").value(), b"1");
    client.put(key("b"), "3", None).await.expect("put");
    let options =
        GetOptions::new().with_prefix().with_sort(SortTarget::Value, SortOrder::Descend).with_limit(1);
    let get = client.get(prefix.as_str(), Some(options)).await.expect("get");
    assert_eq!((get.kvs()[0].value(), get.count(), get.more()), (b"3".as_slice(), 2, true));

    let swap = Txn::new()
        .when([
            Compare::value(key("a"), CompareOp::Equal, "2"),
            Compare::version(key("c"), CompareOp::Equal, 0),
        ])
        .and_then([TxnOp::put(key("c"), "4", None), TxnOp::delete(key("b"), None)])
        .or_else([TxnOp::get(key("a"), None)]);
    assert!(client.txn(swap.clone()).await.expect("txn").succeeded());
    assert!(!client.txn(swap).await.expect("txn").succeeded());
    let delete =
        client.delete(prefix.as_str(), Some(DeleteOptions::new().with_prefix().with_prev_key())).await;
    assert_eq!(delete.expect("delete").deleted(), 2);

    let revision = client.get(key("a"), None).await.expect("get").header().expect("header").revision();
    client.compact(revision, None).await.expect("compact");
    let old = client.get(key("a"), Some(GetOptions::new().with_revision(revision - 1))).await;
    match old.expect_err("a compacted revision") {
        Error::GRpcStatus(status) => {
            assert_eq!(status.message(), "etcdserver: mvcc: required revision has been compacted");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn watch_streams() {
    let Fixture { mut client, prefix, _server } = fixture().await;
    let key = |name: &str| format!("{prefix}{name}");
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = client.watch(prefix.as_str(), Some(options)).await.expect("watch");
    let created = next(&mut stream).await;
    assert!(created.created());
    let first = client.put(key("a"), "1", None).await.expect("put").header().expect("header").revision();
    client.put(key("a"), "2", None).await.expect("put");
    client.delete(key("a"), None).await.expect("delete");
    for (kind, value, previous) in
        [(EventType::Put, "1", None), (EventType::Put, "2", Some("1")), (EventType::Delete, "", Some("2"))]
    {
        let response = next(&mut stream).await;
        assert_eq!(events(&response, &prefix), [(kind, "a".to_owned(), value.to_owned())]);
        assert_eq!(response.events()[0].prev_kv().map(|kv| kv.value()), previous.map(str::as_bytes));
    }
    stream.request_progress().await.expect("request progress");
    let progress = next(&mut stream).await;
    assert!(progress.events().is_empty() && progress.watch_id() == -1);
    assert!(progress.header().expect("header").revision() >= first + 2);

    let replay = WatchOptions::new()
        .with_start_revision(first)
        .with_filters([WatchFilterType::NoPut])
        .with_watch_id(9);
    stream.watch(key("a"), Some(replay)).await.expect("second watcher");
    assert_eq!(next(&mut stream).await.watch_id(), 9);
    assert_eq!(
        events(&next(&mut stream).await, &prefix),
        [(EventType::Delete, "a".to_owned(), String::new())]
    );
    stream.cancel(9).await.expect("cancel");
    let canceled = next(&mut stream).await;
    assert!(canceled.canceled() && canceled.watch_id() == 9);
}

#[tokio::test]
async fn leases() {
    let Fixture { mut client, prefix, _server } = fixture().await;
    let key = format!("{prefix}a");
    let lease = client.lease_grant(60, None).await.expect("grant").id();
    client.put(key.as_str(), "1", Some(PutOptions::new().with_lease(lease))).await.expect("put");
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let left = client.lease_time_to_live(lease, Some(options)).await.expect("time to live");
    assert_eq!((left.granted_ttl(), left.keys()), (60, [key.clone().into_bytes()].as_slice()));
    assert!(client.leases().await.expect("leases").leases().iter().any(|l| l.id() == lease));
    let (mut keeper, mut renewals) = client.lease_keep_alive(lease).await.expect("keep alive");
    for _ in 0..3 {
        keeper.keep_alive().await.expect("renew");
        let renewal =
            tokio::time::timeout(REPLY_TIMEOUT, renewals.message()).await.expect("an answer in time");
        assert_eq!(renewal.expect("a healthy stream").expect("an answer").ttl(), 60);
    }
    client.lease_revoke(lease).await.expect("revoke");
    assert!(client.get(key, None).await.expect("get").kvs().is_empty());
}

#[tokio::test]
async fn maintenance_and_cluster() {
    let Fixture { mut client, prefix, _server } = fixture().await;
    client.put(format!("{prefix}a"), "1", None).await.expect("put");
    let status = client.status().await.expect("status");
    let member = status.header().expect("header").member_id();
    assert!(status.version().starts_with("3.") && status.db_size() > 0 && status.leader() == member);
    assert!(status.raft_applied_index() <= status.raft_index());
    let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await.expect("alarm");
    assert!(alarms.alarms().is_empty());
    let revision = status.header().expect("header").revision();
    assert_eq!(
        client.hash_kv(0).await.expect("hash").hash(),
        client.hash_kv(revision).await.expect("hash").hash()
    );
    client.hash().await.expect("hash");
    client.defragment().await.expect("defragment");
    let members = client.member_list().await.expect("members");
    assert!(members.members().iter().any(|m| m.id() == member && !m.client_urls().is_empty()));
}
