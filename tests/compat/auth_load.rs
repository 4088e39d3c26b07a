//! Users are managed while others work: nobody who may do something is refused, and whoever may not any more is at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kvist::pb::authpb::permission::Type::Readwrite;
use kvist::pb::etcdserverpb as pb;

use crate::auth_client::{As, DENIED, add_user, refuses, with_root};
use crate::client::{delete, get, put, range};
use crate::support::{is_foreign_server, wait_until};

/// Every kind of request with a key, over and over; counts them, and fails with the first that is refused.
async fn work(ann: As, key: String, is_over: Arc<AtomicBool>, count: Arc<AtomicU64>) {
    let id = ann.lease_grant(0).await.expect("a lease").id;
    let read = || pb::request_op::Request::RequestRange(get(key.clone()));
    let reads =
        || pb::TxnRequest { success: vec![pb::RequestOp { request: Some(read()) }], ..Default::default() };
    while !is_over.load(Ordering::Relaxed) {
        let leased = pb::PutRequest { lease: id, prev_kv: true, ..put(key.clone(), "v") };
        ann.put(leased).await.expect("put");
        ann.range(get(key.clone())).await.expect("get");
        ann.range(range(key.clone(), format!("{key}~"))).await.expect("range");
        ann.txn(reads()).await.expect("txn");
        ann.keep_alive(id).await.expect("renew");
        ann.delete(delete(key.clone())).await.expect("delete");
        count.fetch_add(6, Ordering::Relaxed);
    }
}

/// etcd refuses what was under way when users changed, and its clients try again; kvist tries by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_12_changes_of_others_disturb_nobody() {
    if is_foreign_server() {
        return;
    }
    let (_server, root, nobody) = with_root(&[]).await;
    add_user(&root, "ann", &[(Readwrite, "a", "b")]).await;
    add_user(&root, "eve", &[(Readwrite, "e", "f")]).await;
    let (ann, eve) = (nobody.login("ann").await, nobody.login("eve").await);
    let (is_over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (0..4)
        .map(|n| tokio::spawn(work(ann.clone(), format!("a{n}"), Arc::clone(&is_over), Arc::clone(&count))))
        .collect();
    for round in 0..60 {
        eve.put(put("e", "v")).await.expect("granted");
        root.revoke("eve", "e", "f").await.expect("revoke");
        refuses(eve.put(put("e", "v")).await, DENIED);
        refuses(eve.range(get("e")).await, DENIED);
        root.grant("eve", Readwrite, "e", "f").await.expect("grant");
        root.user_add(&format!("u{round}")).await.expect("add");
        nobody.authenticate("ann", "ann").await.expect("log in");
    }
    let seen = count.load(Ordering::Relaxed);
    wait_until("every worker to go on", Duration::from_secs(10), || {
        count.load(Ordering::Relaxed) > seen + 24
    });
    is_over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.expect("no request was refused");
    }
}
