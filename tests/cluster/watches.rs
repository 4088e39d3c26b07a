//! Watches on every member of a cluster.

use crate::cluster::api::{PATIENCE, WatchStream};
use crate::cluster::{Api, Cluster};

/// The next `count` events as (revision, value).
async fn events(stream: &mut WatchStream, count: usize) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    while found.len() < count {
        let answer =
            tokio::time::timeout(PATIENCE, stream.answers.message()).await.expect("an answer in time");
        let answer = answer.expect("the watch goes on").expect("the watch goes on");
        assert!(!answer.canceled, "{answer:?}");
        for event in answer.events {
            let pair = event.kv.expect("a pair");
            found.push((pair.mod_revision, String::from_utf8(pair.value).expect("text")));
        }
    }
    found
}

async fn watch(api: &Api, from: i64) -> WatchStream {
    api.watch(b"w", b"x", from).await.expect("watch")
}

/// Every member shows the same events; who resumes on another member misses nothing and sees nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn watches_go_on_on_another_member() {
    let mut cluster = Cluster::start(3).await;
    let apis = cluster.apis();
    let mut streams = Vec::new();
    for api in &apis {
        streams.push(watch(api, 0).await);
    }
    let mut expected = Vec::new();
    for round in 0..30 {
        let value = round.to_string();
        // A watch that begins now may miss what is written before the member has taken it in.
        let revision = apis[round % 3].put("w", &value).await.expect("put");
        expected.push((revision, value));
        if round == 0 {
            for stream in &mut streams {
                let created = stream.answers.message().await.expect("watch").expect("created");
                assert!(created.created, "{created:?}");
                assert_eq!(created.events, []);
            }
        }
    }
    for api in &apis {
        assert_eq!(events(&mut watch(api, 2).await, 30).await, expected);
    }
    let leader = cluster.leader().await;
    let other = cluster.other(leader);
    let mut stream = watch(&apis[leader], 2).await;
    let seen = events(&mut stream, 10).await;
    cluster.members[leader].kill();
    assert!(seen.len() >= 10);
    let next = seen.last().expect("events").0 + 1;
    cluster.leader().await;
    let revision = apis[other].put("w", "after").await.expect("put");
    expected.push((revision, "after".into()));
    let mut resumed = watch(&apis[other], next).await;
    let rest = events(&mut resumed, expected.len() - seen.len()).await;
    assert_eq!([seen, rest].concat(), expected);
}
