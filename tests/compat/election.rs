//! The Election service: contract 1.13, E-3 to E-5; and one queue with the elections of Go's clients.

use std::io::BufRead;
use std::process::Stdio;
use std::time::Duration;

use kvist::pb::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ResignRequest,
};
use tonic::{Code, Status, Streaming};

use crate::client::{Client, LEASE_NOT_FOUND, expect_error, revision, shared, text};
use crate::etcdctl::for_each_etcdctl;
use crate::lock::queued;

const PATIENCE: Duration = Duration::from_secs(20);

async fn campaign(c: &Client, name: &str, lease: i64, value: &str) -> Result<CampaignResponse, Status> {
    let request = CampaignRequest { name: name.into(), lease, value: value.into() };
    Ok(c.election.clone().campaign(request).await?.into_inner())
}

async fn proclaim(c: &Client, leader: &LeaderKey, value: &str) -> Result<i64, Status> {
    let request = ProclaimRequest { leader: Some(leader.clone()), value: value.into() };
    Ok(revision(&c.election.clone().proclaim(request).await?.into_inner().header))
}

async fn resign(c: &Client, leader: &LeaderKey) -> i64 {
    let request = ResignRequest { leader: Some(leader.clone()) };
    revision(&c.election.clone().resign(request).await.expect("resign").into_inner().header)
}

async fn leader(c: &Client, name: &str) -> Result<LeaderResponse, Status> {
    Ok(c.election.clone().leader(LeaderRequest { name: name.into() }).await?.into_inner())
}

/// E-3: the key of a candidate, its revision, the header of the campaign; a second candidate waits.
#[tokio::test]
async fn e_3_candidates_wait_for_their_turn() {
    let c = shared().await;
    let (a, b) = (c.grant().await, c.grant().await);
    let won = campaign(&c, "e3", a, "one").await.expect("campaign");
    let key = won.leader.clone().expect("leader");
    assert_eq!((text(&key.name), text(&key.key), key.lease), ("e3".into(), format!("e3/{a:x}"), a));
    assert_eq!(key.rev, revision(&won.header));
    let kv = c.get(key.key.clone()).await.expect("the key");
    assert_eq!((kv.create_revision, kv.lease, text(&kv.value)), (key.rev, a, "one".into()));

    // Again with the same value: nothing is written. With another one: it is proclaimed.
    let again = campaign(&c, "e3", a, "one").await.expect("campaign again");
    assert_eq!(again.leader, won.leader);
    assert_eq!(c.get(key.key.clone()).await.expect("the key").version, 1);
    let again = campaign(&c, "e3", a, "two").await.expect("campaign with another value");
    assert_eq!(again.leader, won.leader);
    let kv = c.get(key.key.clone()).await.expect("the key");
    assert_eq!((kv.version, text(&kv.value)), (2, "two".into()));
    assert!(revision(&again.header) < kv.mod_revision, "the header is that of the campaign");

    let waiting = tokio::spawn({
        let c = (*c).clone();
        async move { campaign(&c, "e3", b, "three").await }
    });
    queued(&c, "e3", 2).await;
    assert_eq!(leader(&c, "e3").await.expect("leader").kv.expect("kv").value, b"two");
    let resigned = resign(&c, &key).await;
    let next = tokio::time::timeout(PATIENCE, waiting).await.expect("in time").unwrap().unwrap();
    let next_key = next.leader.expect("leader");
    assert_eq!(text(&next_key.key), format!("e3/{b:x}"));
    assert_eq!(next_key.rev, revision(&next.header));
    assert!(next_key.rev < resigned, "the header is that of the campaign");
    assert_eq!(leader(&c, "e3").await.expect("leader").kv.expect("kv").value, b"three");
    resign(&c, &key).await; // one who leads no more changes nothing
    assert_eq!(leader(&c, "e3").await.expect("leader").kv.expect("kv").value, b"three");
}

/// E-3: who goes away while waiting leaves the queue.
#[tokio::test]
async fn e_3_who_gives_up_leaves_the_queue() {
    let c = shared().await;
    let (a, b) = (c.grant().await, c.grant().await);
    campaign(&c, "e3-gone", a, "one").await.expect("campaign");
    let waiting = tokio::spawn({
        let c = (*c).clone();
        async move { campaign(&c, "e3-gone", b, "two").await }
    });
    queued(&c, "e3-gone", 2).await;
    waiting.abort();
    queued(&c, "e3-gone", 1).await;
    assert_eq!(leader(&c, "e3-gone").await.expect("leader").kv.expect("kv").value, b"one");
}

/// E-4: the errors, all with the code Unknown.
#[tokio::test]
async fn e_4_errors_of_elections() {
    let c = shared().await;
    let missing = "\"leader\" field must be provided";
    let request = ProclaimRequest { leader: None, value: Vec::new() };
    expect_error(c.election.clone().proclaim(request).await, Code::Unknown, missing);
    expect_error(c.election.clone().resign(ResignRequest { leader: None }).await, Code::Unknown, missing);
    expect_error(leader(&c, "e4").await, Code::Unknown, "election: no leader");
    expect_error(campaign(&c, "e4", 4711, "x").await, Code::Unknown, LEASE_NOT_FOUND);

    let lease = c.grant().await;
    let key = campaign(&c, "e4", lease, "x").await.expect("campaign").leader.expect("leader");
    let revision = proclaim(&c, &key, "y").await.expect("proclaim");
    assert_eq!(c.get(key.key.clone()).await.expect("the key").mod_revision, revision);
    let other = LeaderKey { rev: key.rev + 1, ..key.clone() };
    expect_error(proclaim(&c, &other, "z").await, Code::Unknown, "election: not leader");
    resign(&c, &key).await;
    expect_error(proclaim(&c, &key, "z").await, Code::Unknown, "election: not leader");
    let nobody = LeaderKey { key: Vec::new(), ..key };
    expect_error(proclaim(&c, &nobody, "z").await, Code::Unknown, "etcdserver: key is not provided");
}

async fn next(stream: &mut Streaming<LeaderResponse>) -> (i64, String, i64) {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time");
    let message = message.expect("no error").expect("the stream goes on");
    let kv = message.kv.clone().expect("kv");
    (revision(&message.header), text(&kv.value), kv.mod_revision)
}

/// E-5: an observer hears of the present leader, of what it proclaims, and of those who follow, across gaps.
#[tokio::test]
async fn e_5_observe() {
    let c = shared().await;
    let (a, b) = (c.grant().await, c.grant().await);
    let request = || LeaderRequest { name: "e5".into() };
    // Nobody leads yet. etcd sends no headers before the first message, and a call returns with the headers.
    let early = tokio::spawn({
        let mut election = c.election.clone();
        async move { election.observe(request()).await.expect("observe").into_inner() }
    });
    let key = campaign(&c, "e5", a, "one").await.expect("campaign").leader.expect("leader");
    let mut early = tokio::time::timeout(PATIENCE, early).await.expect("in time").expect("no panic");
    assert_eq!(next(&mut early).await.1, "one");
    let mut late = c.election.clone().observe(request()).await.expect("observe").into_inner();
    assert_eq!(next(&mut late).await.1, "one");
    for value in ["two", "three"] {
        let revision = proclaim(&c, &key, value).await.expect("proclaim");
        for stream in [&mut early, &mut late] {
            assert_eq!(next(stream).await, (revision, value.to_owned(), revision));
        }
    }
    resign(&c, &key).await;
    let key = campaign(&c, "e5", b, "four").await.expect("campaign").leader.expect("leader");
    for stream in [&mut early, &mut late] {
        assert_eq!(next(stream).await.1, "four");
    }
    proclaim(&c, &key, "five").await.expect("proclaim");
    for stream in [&mut early, &mut late] {
        assert_eq!(next(stream).await.1, "five");
    }
}

/// E-3: etcdctl, which campaigns by itself, and clients of the service wait in one queue.
#[test]
fn e_3_one_queue_with_the_clients_of_go() {
    for_each_etcdctl(|ctl| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let c = Client::connect(ctl.server.url()).await;
            let lease = c.grant().await;
            let key = campaign(&c, "both", lease, "mine").await.expect("campaign").leader.expect("leader");
            let mut candidate =
                ctl.command(&["elect", "both", "theirs"]).spawn().expect("start etcdctl elect");
            queued(&c, "both", 2).await;
            let mut observer =
                ctl.command(&["elect", "-l", "both"]).stdout(Stdio::piped()).spawn().expect("start");
            let lines = std::io::BufReader::new(observer.stdout.take().expect("stdout"));
            let mut lines = lines.lines().map(|line| line.expect("a line"));
            let mut two = || tokio::task::block_in_place(|| (lines.next(), lines.next()));
            let said = |key: &str, value: &str| (Some(key.to_owned()), Some(value.to_owned()));
            assert_eq!(two(), said(&text(&key.key), "mine"));
            resign(&c, &key).await;
            let theirs = two();
            assert_eq!(theirs.1.as_deref(), Some("theirs"));
            assert_eq!(leader(&c, "both").await.expect("leader").kv.map(|kv| text(&kv.key)), theirs.0);
            for child in [&mut candidate, &mut observer] {
                child.kill().expect("kill etcdctl");
                child.wait().expect("the end of etcdctl");
            }
        });
    });
}
