//! Expiry of leases in time, contract 1.9 rows L-4 and L-8: never early, soon after the deadline, ten thousand at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kvist::pb::etcdserverpb as pb;

use crate::support::Server;
use crate::watch_client::{Clients, brief, put_leased_op, text, watch_range};

/// How long after its deadline a lease may still be there: the expiry loop of 500 ms, the revoke and a busy machine.
const LATE_MAX: Duration = Duration::from_millis(2500);

/// L-8, L-4, W-11: leases end at their deadline and not before; keep-alives move it; the keys of one lease end together.
#[tokio::test]
async fn l_8_expiry_is_never_early_and_soon() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let mut stream = clients.watch_stream();
    stream.create(watch_range("k", "l")).await;

    let mut before_grant = HashMap::new();
    let mut after_grant = HashMap::new();
    for ttl in [2_i64, 3, 4] {
        before_grant.insert(ttl, Instant::now());
        clients.try_grant(ttl, ttl).await.expect("grant");
        after_grant.insert(ttl, Instant::now());
        clients
            .txn(vec![put_leased_op(format!("k{ttl}b"), "", ttl), put_leased_op(format!("k{ttl}a"), "", ttl)])
            .await;
    }
    stream.events(6).await;

    // Lease 3 is renewed once, so it gets its three seconds again from then on.
    let mut renewals = clients.keep_alive_stream();
    let renew_at = after_grant[&3] + Duration::from_secs(2);
    tokio::time::sleep_until(renew_at.into()).await; // the renewal must come late in the life of the lease
    before_grant.insert(3, Instant::now());
    renewals.send(pb::LeaseKeepAliveRequest { id: 3 }).await;
    assert_eq!(renewals.next().await.ttl, 3);
    after_grant.insert(3, Instant::now());

    for _ in 0..3 {
        let batch = stream.next().await;
        let now = Instant::now();
        assert_eq!(batch.events.len(), 2, "both keys of a lease in one batch: {:?}", brief(&batch.events));
        let keys: Vec<_> = batch.events.iter().map(|e| text(&e.kv.as_ref().expect("kv").key)).collect();
        let ttl: i64 = keys[0][1..2].parse().expect("the TTL in the key");
        assert_eq!(keys, [format!("k{ttl}a"), format!("k{ttl}b")]);
        let granted = Duration::from_secs(ttl.unsigned_abs());
        assert!(now >= before_grant[&ttl] + granted, "lease of {ttl} s expired early");
        assert!(now <= after_grant[&ttl] + granted + LATE_MAX, "lease of {ttl} s expired late");
        let gone = clients.time_to_live(ttl, true).await;
        assert_eq!((gone.ttl, gone.granted_ttl), (-1, 0));
        renewals.send(pb::LeaseKeepAliveRequest { id: ttl }).await;
        assert_eq!(renewals.next().await.ttl, 0, "an expired lease cannot be renewed");
    }
    assert!(clients.leases().await.is_empty());
}

/// L-8, L-9, L-11: a lease that was due while the server was down ends after the restart, not before its full TTL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_9_leases_expire_after_a_restart() {
    let mut server = Server::start();
    let clients = Clients::connect(&server).await;
    clients.try_grant(2, 1).await.expect("grant");
    let granted = Instant::now();
    clients.put_leased("k", "", 1).await;
    tokio::task::block_in_place(|| {
        server.kill();
        server.restart();
    });
    let clients = Clients::connect(&server).await;
    let mut stream = clients.watch_stream();
    stream.create(pb::WatchCreateRequest { start_revision: 2, ..watch_range("k", "l") }).await;
    assert_eq!(stream.briefs(2).await, ["put k=@2", "delete k@3"]);
    assert!(granted.elapsed() >= Duration::from_secs(2), "the restart shortened the lease");
    assert!(clients.leases().await.is_empty());
}

/// L-8, contract 8 (leases): ten thousand leases with a key each end, each key once, none early, within the rate that
/// etcd promises (1000 a second).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_8_ten_thousand_leases_expire() {
    const LEASES: i64 = 10_000;
    const TASKS: i64 = 50;
    const TTL: i64 = 5;
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let mut stream = clients.watch_stream();
    let deletes_only = vec![pb::watch_create_request::FilterType::Noput as i32];
    stream.create(pb::WatchCreateRequest { filters: deletes_only, ..watch_range("k", "l") }).await;

    let first_grant = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let clients = clients.clone();
            tokio::spawn(async move {
                let ids: Vec<i64> = (1..=LEASES).filter(|id| id % TASKS == task).collect();
                // Few at a time: a slow machine must put the keys before the leases end.
                for chunk in ids.chunks(10) {
                    for id in chunk {
                        clients.try_grant(TTL, *id).await.expect("grant");
                    }
                    clients
                        .txn(chunk.iter().map(|id| put_leased_op(format!("k{id}"), "", *id)).collect())
                        .await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("the grants are made");
    }
    let last_grant = Instant::now();

    let mut deleted = HashMap::new();
    while deleted.len() < usize::try_from(LEASES).expect("small") {
        for event in stream.next().await.events {
            let kv = event.kv.expect("kv");
            assert!(deleted.insert(kv.key, kv.mod_revision).is_none(), "a key deleted twice");
        }
        assert!(first_grant.elapsed() >= Duration::from_secs(TTL.unsigned_abs()), "a lease expired early");
    }
    let late = last_grant.elapsed().saturating_sub(Duration::from_secs(TTL.unsigned_abs()));
    assert!(late < Duration::from_secs(15), "the last lease was {late:?} late");
    assert!(clients.leases().await.is_empty());
    assert_eq!(clients.range("k", "l").await.count, 0);
}
