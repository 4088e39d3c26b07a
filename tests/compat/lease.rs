//! Leases, contract 1.9 on one member: grant, revoke, keep-alive, time to live, list, attachment, restart.

use kvist::pb::etcdserverpb as pb;
use tonic::Code;

use crate::support::Server;
use crate::watch_client::{
    Clients, assert_refused, brief, delete_op, put_leased_op, put_op, put_request, text, watch_range,
};

const NOT_FOUND: &str = "etcdserver: requested lease not found";

fn keys(response: &pb::LeaseTimeToLiveResponse) -> Vec<String> {
    let mut keys: Vec<_> = response.keys.iter().map(|k| text(k)).collect();
    keys.sort();
    keys
}

fn assert_header(header: Option<&pb::ResponseHeader>, revision: i64) {
    let header = header.expect("header");
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0, "{header:?}");
    assert_eq!(header.revision, revision);
}

/// L-1, M-5, contract 3 (LeaseGrant): ids that the server picks, that the client picks, and that are taken.
#[tokio::test]
async fn l_1_grant_ids() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    for _ in 0..20 {
        let response = clients.try_grant(60, 0).await.expect("grant");
        assert!(response.id > 0 && response.ttl == 60 && response.error.is_empty(), "{response:?}");
        assert_header(response.header.as_ref(), 1);
    }
    for id in [7, -7, i64::MAX, i64::MIN] {
        assert_eq!(clients.try_grant(60, id).await.expect("grant").id, id);
    }
    let again = clients.try_grant(60, 7).await;
    assert_refused(again, Code::FailedPrecondition, "etcdserver: lease already exists");
    assert_eq!(clients.leases().await.len(), 24);
    clients.try_revoke(7).await.expect("revoke");
    assert_eq!(clients.try_grant(60, 7).await.expect("an id is free again after revoke").id, 7);
}

/// L-2, contract 8 (leases): the largest and the smallest TTL.
#[tokio::test]
async fn l_2_ttl_bounds() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    for ttl in [-5, 0, 1, 2] {
        assert_eq!(clients.try_grant(ttl, 0).await.expect("grant").ttl, 2, "asked for {ttl}");
    }
    assert_eq!(clients.try_grant(3, 0).await.expect("grant").ttl, 3);
    assert_eq!(clients.try_grant(9_000_000_000, 1).await.expect("grant").ttl, 9_000_000_000);
    let too_large = clients.try_grant(9_000_000_001, 2).await;
    assert_refused(too_large, Code::OutOfRange, "etcdserver: too large lease TTL");
    assert_refused(clients.try_grant(i64::MAX, 2).await, Code::OutOfRange, "etcdserver: too large lease TTL");
    let left = clients.time_to_live(1, false).await;
    assert!(left.granted_ttl == 9_000_000_000 && left.ttl > 8_999_999_990, "{left:?}");
}

/// L-2: the smallest TTL is one and a half election timeouts, rounded up to seconds.
#[tokio::test]
async fn l_2_smallest_ttl_follows_the_election_timeout() {
    let server = Server::start_with(&["--heartbeat-interval=500", "--election-timeout=5000"]);
    let clients = Clients::connect(&server).await;
    assert_eq!(clients.try_grant(1, 0).await.expect("grant").ttl, 8);
}

/// L-3, M-2, M-5, trap 16, contract 3 (LeaseRevoke): a revoke is one revision and one event batch, in byte order.
#[tokio::test]
async fn l_3_revoke() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    assert_refused(clients.try_revoke(404).await, Code::NotFound, NOT_FOUND);
    assert_refused(clients.try_revoke(0).await, Code::NotFound, NOT_FOUND);
    let mut stream = clients.watch_stream();
    stream.create(watch_range("k", "l")).await;
    let lease = clients.grant(60).await;
    for key in ["k2", "k10", "k1", "k\u{7f}", "k"] {
        clients.put_leased(key, "", lease).await; // revisions 2 to 6
    }
    stream.events(5).await;
    let response = clients.try_revoke(lease).await.expect("revoke");
    assert_header(response.header.as_ref(), 7);
    let batch = stream.next().await;
    let expected = ["delete k@7", "delete k1@7", "delete k10@7", "delete k2@7", "delete k\u{7f}@7"];
    assert_eq!(brief(&batch.events), expected);
    assert_eq!(clients.range("k", "l").await.count, 0);
    assert_refused(clients.try_revoke(lease).await, Code::NotFound, NOT_FOUND);

    let empty = clients.grant(60).await;
    let response = clients.try_revoke(empty).await.expect("revoke");
    assert_header(response.header.as_ref(), 7); // nothing changed, so no new revision
}

/// L-4, L-13, trap 14, contract 3 (LeaseKeepAlive): many leases on one stream, answered in order; an unknown lease is
/// TTL 0 and not an error.
#[tokio::test]
async fn l_4_keep_alive_stream() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    for (id, ttl) in [(1, 60), (2, 90)] {
        clients.try_grant(ttl, id).await.expect("grant");
    }
    clients.put("a", "").await;
    let mut stream = clients.keep_alive_stream();
    let requests = [1, 404, 2, 1, 0, 2];
    for id in requests {
        stream.send(pb::LeaseKeepAliveRequest { id }).await;
    }
    for id in requests {
        let response = stream.next().await;
        let ttl = [(1, 60), (2, 90)].iter().find(|(known, _)| *known == id).map_or(0, |(_, ttl)| *ttl);
        assert_eq!((response.id, response.ttl), (id, ttl));
        assert_header(response.header.as_ref(), 2);
    }
    clients.try_revoke(1).await.expect("revoke");
    stream.send(pb::LeaseKeepAliveRequest { id: 1 }).await;
    assert_eq!(stream.next().await.ttl, 0, "a revoked lease");
    stream.half_close();
    assert!(stream.try_next().await.expect("a clean end").is_none());
}

/// L-6, trap 14, contract 3 (LeaseTimeToLive): unknown lease, remaining seconds, keys only on request.
#[tokio::test]
async fn l_6_time_to_live() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let unknown = clients.time_to_live(404, true).await;
    assert_eq!((unknown.id, unknown.ttl, unknown.granted_ttl, unknown.keys.len()), (404, -1, 0, 0));
    assert_header(unknown.header.as_ref(), 1);

    let lease = clients.grant(60).await;
    clients.put_leased("b", "", lease).await;
    clients.put_leased("a", "", lease).await;
    let known = clients.time_to_live(lease, true).await;
    assert_eq!(
        (known.id, known.granted_ttl, keys(&known)),
        (lease, 60, vec!["a".to_owned(), "b".to_owned()])
    );
    assert!((55..60).contains(&known.ttl), "the remaining seconds are rounded down: {}", known.ttl);
    assert_header(known.header.as_ref(), 3);
    assert!(clients.time_to_live(lease, false).await.keys.is_empty());
}

/// L-7, contract 3 (LeaseLeases): ids by expiry, the soonest first.
#[tokio::test]
async fn l_7_list_is_sorted_by_expiry() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    for (id, ttl) in [(1, 500), (2, 100), (3, 400), (4, 200), (5, 300)] {
        clients.try_grant(ttl, id).await.expect("grant");
    }
    assert_eq!(clients.leases().await, [2, 4, 5, 3, 1]);
    let list = clients.lease.clone().lease_leases(pb::LeaseLeasesRequest {}).await.expect("leases");
    assert_header(list.into_inner().header.as_ref(), 1);
}

/// M-6, trap 17: a put moves, keeps or drops the attachment; a delete drops it; so inside transactions.
#[tokio::test]
async fn m_6_attachment_rules() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let (first, second) = (clients.grant(60).await, clients.grant(60).await);
    let keys_of = async |lease| keys(&clients.time_to_live(lease, true).await);
    for key in ["moved", "dropped", "deleted", "kept", "untouched"] {
        clients.put_leased(key, "", first).await;
    }
    clients.put_leased("moved", "", second).await;
    clients.put("dropped", "").await;
    clients.delete("deleted").await;
    let ignore = pb::PutRequest { ignore_lease: true, ..put_request("kept", "new", 0) };
    clients.try_put(ignore).await.expect("put with ignore_lease");
    clients.put_leased("untouched", "again", first).await;
    assert_eq!(keys_of(first).await, ["kept", "untouched"]);
    assert_eq!(keys_of(second).await, ["moved"]);
    assert_eq!(clients.get("kept").await.expect("kept").lease, first);
    assert_eq!(clients.get("dropped").await.expect("dropped").lease, 0);

    let ops = vec![put_leased_op("moved", "", first), put_op("kept", ""), delete_op("untouched")];
    clients.txn(ops).await;
    assert_eq!(keys_of(first).await, ["moved"]);
    assert!(keys_of(second).await.is_empty());

    clients.put("deleted", "a new generation without lease").await;
    clients.try_revoke(first).await.expect("revoke");
    clients.try_revoke(second).await.expect("revoke");
    let left: Vec<_> = clients.range("a", "z").await.kvs.iter().map(|kv| text(&kv.key)).collect();
    assert_eq!(left, ["deleted", "dropped", "kept"]);
}

/// Contract 2: a put on an unknown lease is refused and changes nothing, in a transaction too. A negative id is just unknown.
#[tokio::test]
async fn put_on_an_unknown_lease_is_refused() {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    for lease in [404, -404] {
        let put = clients.try_put(put_request("a", "", lease)).await;
        assert_refused(put, Code::NotFound, NOT_FOUND);
        let txn = clients.try_txn(vec![put_op("b", ""), put_leased_op("a", "", lease)]).await;
        assert_refused(txn, Code::NotFound, NOT_FOUND);
    }
    assert_eq!((clients.range("a", "z").await.count, clients.revision().await), (0, 1));
}

/// L-9, L-11, trap 17: leases and attachments survive a crash and an orderly stop; deadlines do not come closer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_11_restart_keeps_leases_and_attachments() {
    let mut server = Server::start();
    let clients = Clients::connect(&server).await;
    for (id, ttl) in [(1, 100), (2, 200), (3, 300), (4, 400)] {
        clients.try_grant(ttl, id).await.expect("grant");
    }
    clients.put_leased("stays", "", 1).await;
    clients.put_leased("stays", "same lease again", 1).await;
    clients.put_leased("moves", "", 1).await;
    clients.put_leased("moves", "", 2).await;
    clients.put_leased("detaches", "", 1).await;
    clients.put("detaches", "").await;
    clients.put_leased("returns", "", 2).await;
    clients.delete("returns").await;
    clients.put_leased("returns", "", 1).await;
    clients.put_leased("revoked", "", 4).await;
    clients.try_revoke(4).await.expect("revoke");
    let revision = clients.revision().await;
    for orderly in [false, true] {
        tokio::task::block_in_place(|| {
            if orderly {
                server.terminate();
            } else {
                server.kill();
            }
            server.restart();
        });
        let clients = Clients::connect(&server).await;
        assert_eq!(clients.revision().await, revision);
        let mut ids = clients.leases().await;
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3]);
        let first = clients.time_to_live(1, true).await;
        assert_eq!(keys(&first), ["returns", "stays"]);
        assert_eq!(first.granted_ttl, 100);
        assert!(first.ttl >= 90, "{}", first.ttl);
        assert_eq!(keys(&clients.time_to_live(2, true).await), ["moves"]);
        assert!(clients.time_to_live(3, true).await.keys.is_empty());
        assert_eq!(clients.time_to_live(4, true).await.ttl, -1);
    }
    let clients = Clients::connect(&server).await;
    clients.put_leased("later", "", 3).await;
    for lease in [1, 2, 3] {
        clients.try_revoke(lease).await.expect("revoke");
    }
    let left: Vec<_> = clients.range("a", "z").await.kvs.iter().map(|kv| text(&kv.key)).collect();
    assert_eq!(left, ["detaches"]);
}

/// L-11: attachments follow the latest revision of a key also when older ones are compacted away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_11_attachments_after_compaction_and_restart() {
    let mut server = Server::start();
    let clients = Clients::connect(&server).await;
    clients.try_grant(100, 1).await.expect("grant");
    clients.put_leased("a", "", 1).await;
    clients.put_leased("b", "", 1).await;
    let last = clients.put("b", "").await;
    clients.compact(last).await;
    tokio::task::block_in_place(|| {
        server.kill();
        server.restart();
    });
    let clients = Clients::connect(&server).await;
    assert_eq!(keys(&clients.time_to_live(1, true).await), ["a"]);
    clients.try_revoke(1).await.expect("revoke");
    assert_eq!(clients.range("a", "z").await.count, 1);
}
