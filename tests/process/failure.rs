//! What a server does when it can't go on: it says so, ends with 1, and has lost nothing.

use std::process::Command;
use std::time::Duration;

use kvist::pb::etcdserverpb::kv_client::KvClient;
use kvist::pb::etcdserverpb::{PutRequest, RangeRequest};
use tonic::transport::Channel;

use crate::support::{Server, is_foreign_server, wait_until};

async fn connect(server: &Server) -> KvClient<Channel> {
    KvClient::connect(server.url()).await.expect("connect")
}

async fn put(kv: &mut KvClient<Channel>, n: u32) -> Result<(), tonic::Status> {
    let request =
        PutRequest { key: format!("key{n}").into(), value: vec![b'v'; 100], ..PutRequest::default() };
    kv.put(request).await.map(|_| ())
}

/// Lets no file of the process grow, or lifts that.
fn limit_files(server: &Server, bytes: &str) {
    let args = [format!("--pid={}", server.pid()), format!("--fsize={bytes}:")];
    assert!(Command::new("prlimit").args(args).status().expect("prlimit, of util-linux").success());
}

/// The raft log can't be written any more: nothing is acknowledged from then on, the process ends with 1 and says why, and
/// the next start has everything that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_ends_the_server_with_1() {
    if is_foreign_server() {
        return;
    }
    // Without the trap, the system would kill a process that writes beyond its limit.
    let mut server = Server::start_after("trap '' XFSZ", &[]);
    let mut kv = connect(&server).await;
    for n in 0..50 {
        put(&mut kv, n).await.expect("put");
    }
    drop(kv);
    // A stop flushes: what fails first below is the log.
    tokio::task::block_in_place(|| {
        server.terminate();
        server.restart();
    });
    let mut kv = connect(&server).await;
    let mut acknowledged = 50;
    limit_files(&server, "1");
    let refused = loop {
        match put(&mut kv, acknowledged).await {
            Ok(()) => acknowledged += 1,
            Err(status) => break status,
        }
        assert!(acknowledged < 100_000, "the limit has no effect");
    };
    drop(kv);
    let status = tokio::task::block_in_place(|| server.ended());
    assert_eq!(status.code(), Some(1), "{status:?}, and the client got {refused:?}");
    let fatal = |text: &str| {
        server.log_lines().iter().any(|line| line.contains(r#""level":"fatal""#) && line.contains(text))
    };
    wait_until("the reason in the log", Duration::from_secs(10), || {
        fatal("this member can't go on") && fatal("the server failed")
    });

    tokio::task::block_in_place(|| server.restart());
    let mut kv = connect(&server).await;
    let all =
        RangeRequest { key: "key".into(), range_end: "kez".into(), count_only: true, ..Default::default() };
    let count = kv.range(all).await.expect("range").into_inner().count;
    assert!(
        (acknowledged.into()..=i64::from(acknowledged) + 1).contains(&count),
        "{count} of {acknowledged}"
    );
    put(&mut kv, 0).await.expect("put");
}
