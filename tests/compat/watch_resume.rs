//! Watch across a crash or a stop of the server: a client that resumes after the last revision it saw misses nothing
//! that was acknowledged and sees nothing twice. Contract 1.8 rows W-13 and W-18 as far as one member shows them.

use kvist::pb::etcdserverpb as pb;

use crate::support::Server;
use crate::watch_client::{Clients, REPLY_TIMEOUT, WatchStream, watch_key};

const WRITERS: usize = 4;

/// Puts "k" until the server goes away; returns every acknowledged (revision, value).
async fn write_until_down(clients: Clients, tag: String) -> Vec<(i64, Vec<u8>)> {
    let mut acknowledged = Vec::new();
    for i in 0.. {
        let value = format!("{tag}-{i}").into_bytes();
        let request = crate::watch_client::put_request("k", value.clone(), 0);
        let Ok(response) = clients.try_put(request).await else { break };
        acknowledged.push((response.header.expect("header").revision, value));
    }
    acknowledged
}

/// Appends what the stream delivers until it breaks or `enough` holds.
async fn read_until(
    stream: &mut WatchStream,
    seen: &mut Vec<(i64, Vec<u8>)>,
    enough: impl Fn(&[(i64, Vec<u8>)]) -> bool,
) {
    while !enough(seen) {
        let next =
            tokio::time::timeout(REPLY_TIMEOUT, stream.try_next()).await.expect("a message or the end");
        let Ok(Some(response)) = next else { return };
        for event in response.events {
            let kv = event.kv.expect("kv");
            seen.push((kv.mod_revision, kv.value));
        }
    }
}

async fn resume(server: &Server, seen: &[(i64, Vec<u8>)]) -> (Clients, WatchStream) {
    let clients = Clients::connect(server).await;
    let mut stream = clients.watch_stream();
    let start_revision = seen.last().map_or(2, |(revision, _)| revision + 1);
    stream.create(pb::WatchCreateRequest { start_revision, ..watch_key("k") }).await;
    (clients, stream)
}

async fn write_watch_and_break(rounds: usize, stop: impl Fn(&mut Server)) {
    let mut server = Server::start();
    let mut seen = Vec::new();
    let mut acknowledged = Vec::new();
    for round in 0..rounds {
        let (clients, mut stream) = resume(&server, &seen).await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| tokio::spawn(write_until_down(clients.clone(), format!("{round}-{w}"))))
            .collect();
        let goal = seen.len() + 200;
        read_until(&mut stream, &mut seen, |seen| seen.len() >= goal).await;
        tokio::task::block_in_place(|| stop(&mut server));
        read_until(&mut stream, &mut seen, |_| false).await; // what was on its way
        for writer in writers {
            acknowledged.extend(writer.await.expect("the writer ends"));
        }
        tokio::task::block_in_place(|| server.restart());
    }
    let (clients, mut stream) = resume(&server, &seen).await;
    let last = clients.revision().await;
    read_until(&mut stream, &mut seen, |seen| seen.last().is_some_and(|(revision, _)| *revision >= last))
        .await;

    let revisions: Vec<i64> = seen.iter().map(|(revision, _)| *revision).collect();
    assert_eq!(revisions, (2..=last).collect::<Vec<_>>(), "every revision once and in order");
    for (revision, value) in acknowledged {
        let index = usize::try_from(revision - 2).expect("an index");
        assert!(seen[index].1 == value, "the acknowledged write at {revision} is another one in the watch");
    }
}

/// W-13, W-18: the server is killed amid writes, three times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w_18_resume_after_kill() {
    write_watch_and_break(3, Server::kill).await;
}

/// W-18, W-19: the same with an orderly stop; once, since etcd takes seconds to stop while streams are open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w_18_resume_after_terminate() {
    write_watch_and_break(1, |server| {
        server.terminate();
    })
    .await;
}

/// W-3, W-5, trap 11: history, the compaction bound and a future start mean the same after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w_3_w_5_history_survives_a_restart() {
    let mut server = Server::start();
    let clients = Clients::connect(&server).await;
    for value in ["1", "2", "3", "4"] {
        clients.put("k", value).await; // revisions 2 to 5
    }
    clients.compact(3).await;
    tokio::task::block_in_place(|| {
        server.kill();
        server.restart();
    });
    let clients = Clients::connect(&server).await;
    let from = |start_revision| pb::WatchCreateRequest { start_revision, ..watch_key("k") };
    let mut stream = clients.watch_stream();
    stream.create(from(2)).await;
    let canceled = stream.next().await;
    assert!(canceled.canceled && canceled.compact_revision == 3, "{canceled:?}");
    stream.create(from(3)).await;
    assert_eq!(stream.briefs(3).await, ["put k=2@3", "put k=3@4", "put k=4@5"]);
    stream.create(from(7)).await;
    clients.put("other", "").await;
    clients.put("k", "5").await;
    let first = stream.briefs(2).await;
    assert_eq!(first, ["put k=5@7", "put k=5@7"], "one for each of the two watchers");
}
