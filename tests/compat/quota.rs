//! The space quota, contract 1.11 row X-4 and contract 8: NOSPACE refuses what grows the store and only that, and stays
//! until somebody disarms it.

use kvist::pb::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use tonic::Code;

use crate::support::Server;
use crate::watch_client::{Clients, assert_refused, delete_op, put_op, put_request};

const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const QUOTA: &str = "--quota-backend-bytes=16777216";
const BIG: usize = 1 << 20;

/// Puts a MiB at a time under `big...` until the server refuses; returns the number of puts that went well.
async fn fill(clients: &Clients) -> usize {
    for i in 0..64 {
        if let Err(status) = clients.try_put(put_request(format!("big{i:02}"), vec![b'v'; BIG], 0)).await {
            assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, NO_SPACE));
            return i;
        }
    }
    panic!("64 MiB fit under a quota of 16 MiB");
}

/// X-4, contract 8 (quota), contract 2 (NOSPACE): fill, free, disarm, write again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_4_quota_full_cycle() {
    let mut server = Server::start_with(&[QUOTA]);
    let clients = Clients::connect(&server).await;
    let lease = clients.grant(600).await;
    clients.put_leased("leased", "", lease).await;
    let filled = fill(&clients).await;
    // etcd learns of its size at each commit (100 ms), so a quick client gets some way beyond the quota.
    assert!((4..=48).contains(&filled), "{filled} puts of a MiB under a quota of 16 MiB");

    // The alarm is raised by the refusal itself, through the log.
    let me = clients.status().await.header.expect("header").member_id;
    crate::watch_client::poll("the NOSPACE alarm", async || {
        let alarms = clients.alarm(AlarmAction::Get, 0, pb::AlarmType::None).await.alarms;
        alarms == [pb::AlarmMember { member_id: me, alarm: pb::AlarmType::Nospace as i32 }]
    })
    .await;
    assert_eq!(clients.status().await.errors.len(), 1);

    assert_refused(clients.try_put(put_request("small", "", 0)).await, Code::ResourceExhausted, NO_SPACE);
    assert_refused(clients.try_txn(vec![put_op("small", "")]).await, Code::ResourceExhausted, NO_SPACE);
    assert_refused(clients.try_grant(60, 0).await, Code::ResourceExhausted, NO_SPACE);
    assert_eq!(clients.range("big", "bih").await.count, i64::try_from(filled).expect("small"), "reads work");
    clients.try_revoke(lease).await.expect("revoke works");
    assert_eq!(clients.range("leased", "").await.count, 0);
    clients.txn(vec![delete_op("big00")]).await;
    clients.try_delete("big", "bih").await.expect("delete works");
    clients.compact(clients.revision().await).await;
    clients.maintenance.clone().defragment(pb::DefragmentRequest {}).await.expect("defragment works");
    let status = clients.status().await;
    assert!(status.db_size < 16 << 20, "{} bytes left", status.db_size);

    let sticky = clients.try_put(put_request("small", "", 0)).await;
    assert_refused(sticky, Code::ResourceExhausted, NO_SPACE);
    tokio::task::block_in_place(|| {
        server.terminate();
        server.restart();
    });
    let clients = Clients::connect(&server).await;
    let sticky = clients.try_put(put_request("small", "", 0)).await;
    assert_refused(sticky, Code::ResourceExhausted, NO_SPACE);
    clients.alarm(AlarmAction::Deactivate, me, pb::AlarmType::Nospace).await;
    clients.put("small", "").await;
    clients.grant(60).await;
    assert!(fill(&clients).await >= 4, "the freed space is usable again");
}

/// Contract 8 (quota): a negative quota switches it off.
#[tokio::test]
async fn contract_8_negative_quota_is_off() {
    let server = Server::start_with(&["--quota-backend-bytes=-1"]);
    let clients = Clients::connect(&server).await;
    for i in 0..20 {
        clients.put(format!("big{i}"), vec![b'v'; BIG]).await;
    }
    assert!(clients.alarm(AlarmAction::Get, 0, pb::AlarmType::None).await.alarms.is_empty());
}
