//! Discovery, and clusters of three: who leads, what followers serve, and what is left when the leader dies.

use std::time::Duration;

use d_engine_client::{Client, ClientApi};
use tonic::Code;

use crate::control::Server;
use crate::help::{builder, connect, event, eventually, next, put, three};
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("maintenance/one member is found", alone),
    crate::case!("maintenance/three members are found by any", found_by_any),
    crate::case!("kv/three members serve", serve),
    crate::case!("watch/three members tell the same", watches),
    crate::case!("reconnect/the leader is killed", leader_killed),
    crate::case!("reconnect/a swap outlives the leader", swap_outlives),
    crate::case!("reconnect/without a majority nothing is written", no_majority),
    crate::case!("reconnect/all members are killed", all_killed),
];

async fn alone(server: Server) {
    let client = connect(&server).await;
    let members = client.list_members().await.expect("members");
    let leader = client.get_leader_id().await.expect("the leader");
    assert_eq!(members.len(), 1);
    assert_eq!(
        (Some(members[0].id), members[0].address.clone()),
        (leader, format!("127.0.0.1:{}", server.port))
    );
}

/// A cluster in the place of the server that the case was given.
async fn cluster(_: Server) -> (Vec<Server>, Client) {
    let servers = three().await;
    let client = builder(&servers).build().await.expect("connect");
    (servers, client)
}

/// The server that leads, as the client knows.
async fn leader<'s>(client: &Client, servers: &'s [Server]) -> &'s Server {
    let id = client.get_leader_id().await.expect("the leader").expect("there is one");
    let members = client.list_members().await.expect("members");
    let node = members.iter().find(|node| node.id == id).expect("the leader is a member");
    servers.iter().find(|server| node.address.ends_with(&format!(":{}", server.port))).expect("one of ours")
}

async fn found_by_any(server: Server) {
    let (servers, client) = cluster(server).await;
    let leader_id = client.get_leader_id().await.expect("the leader");
    for server in &servers {
        let other = connect(server).await;
        assert_eq!(other.get_leader_id().await.expect("the leader"), leader_id);
        assert_eq!(other.list_members().await.expect("members").len(), 3);
    }
    let mut stream = client.watch_membership().await.expect("watch membership");
    let snapshot = next(&mut stream).await.expect("no end").expect("a snapshot");
    assert_eq!((snapshot.members.len(), snapshot.learners.len()), (3, 0));
}

async fn serve(server: Server) {
    let (_servers, client) = cluster(server).await;
    for n in 0..30 {
        let key = format!("/k/{n}");
        client.put(&key, "1").await.expect("put");
        assert_eq!(client.get_linearizable(&key).await.expect("get"), Some("1".into()));
        assert_eq!(client.get_lease(&key).await.expect("get"), Some("1".into()));
        // From any member, which may be behind.
        eventually("a follower to have it", || async { client.get_eventual(&key).await.expect("get") }).await;
    }
    assert_eq!(client.scan_prefix("/k/").await.expect("scan").entries.len(), 30);
}

async fn watches(server: Server) {
    let (_servers, client) = cluster(server).await;
    // Each is with a member that the client picks.
    let mut streams = Vec::new();
    for _ in 0..9 {
        streams.push(client.watch_prefix("/w/").await.expect("watch"));
    }
    for n in 0..20 {
        client.put(format!("/w/{n}"), "1").await.expect("put");
    }
    for stream in &mut streams {
        for n in 0..20 {
            assert_eq!(event(stream).await, put(&format!("/w/{n}"), "1"));
        }
    }
}

async fn leader_killed(server: Server) {
    let (servers, client) = cluster(server).await;
    client.put("before", "1").await.expect("put");
    let old_id = client.get_leader_id().await.expect("the leader");
    let old = leader(&client, &servers).await;
    old.act("kill").await;
    eventually("another leader", || async {
        client.refresh(None).await.ok()?;
        let id = client.get_leader_id().await.ok()?;
        (id != old_id).then_some(())
    })
    .await;
    assert_eq!(client.get("before").await.expect("get"), Some("1".into()));
    client.put("after", "2").await.expect("put");
    assert_eq!(client.get_linearizable("after").await.expect("get"), Some("2".into()));
    // It comes back, and has what it missed.
    old.act("start").await;
    let again = eventually("the member to be back", || async {
        builder(std::slice::from_ref(old)).build().await.ok()
    })
    .await;
    assert_eq!(again.get("after").await.expect("get"), Some("2".into()));
}

async fn swap_outlives(server: Server) {
    let (servers, client) = cluster(server).await;
    assert!(client.compare_and_swap("lock", None::<&str>, "a").await.expect("swap"));
    leader(&client, &servers).await.act("kill").await;
    eventually("another leader", || async {
        client.refresh(None).await.ok()?;
        client.get_linearizable("lock").await.ok()
    })
    .await;
    assert!(!client.compare_and_swap("lock", None::<&str>, "b").await.expect("swap"));
    assert!(client.compare_and_swap("lock", Some("a"), "b").await.expect("swap"));
}

async fn no_majority(server: Server) {
    let (servers, client) = cluster(server).await;
    client.put("k", "1").await.expect("put");
    let left = leader(&client, &servers).await;
    for server in servers.iter().filter(|server| server.id != left.id) {
        server.act("kill").await;
    }
    client.put("k", "2").await.expect_err("nobody to agree");
    eventually("the leader to give up", || async {
        let builder = builder(std::slice::from_ref(left));
        builder.cluster_ready_timeout(Duration::from_millis(500)).build().await.is_err().then_some(())
    })
    .await;
    for server in servers.iter().filter(|server| server.id != left.id) {
        server.act("start").await;
    }
    eventually("a leader", || async {
        client.refresh(None).await.ok()?;
        client.put("k", "3").await.ok()
    })
    .await;
    assert_eq!(client.get("k").await.expect("get"), Some("3".into()));
}

async fn all_killed(server: Server) {
    let (servers, client) = cluster(server).await;
    for n in 0..50 {
        client.put(format!("/a/{n:02}"), n.to_string()).await.expect("put");
    }
    assert!(client.compare_and_swap("/a/00", Some("0"), "x").await.expect("swap"));
    let mut watch = client.watch("/a/00").await.expect("watch");
    for server in &servers {
        server.act("kill").await;
    }
    // A member that was a little behind tells the swap first.
    let end = loop {
        if let Err(status) = next(&mut watch).await {
            break status.code();
        }
    };
    assert_ne!(end, Code::Ok);
    // One alone would wait for the others.
    let starts: Vec<_> = servers.iter().cloned().map(|server| tokio::spawn(start(server))).collect();
    for start in starts {
        start.await.expect("a start");
    }
    eventually("a leader", || async { client.refresh(None).await.ok() }).await;
    let entries = client.scan_prefix("/a/").await.expect("scan").entries;
    assert_eq!((entries.len(), &entries[0].1[..]), (50, &b"x"[..]));
}

async fn start(server: Server) {
    server.act("start").await;
}
