//! Keys and values: every shape of read, put and delete that the client has.

use etcd_client::{
    CompactionOptions, DeleteOptions, GetOptions, KvClientPrefix, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp,
};

use crate::control::Server;
use crate::help::*;
use crate::suite::Case;

pub const CASES: &[Case] = &[
    crate::case!("kv/put and get with their revisions", put_and_get),
    crate::case!("kv/put with the previous pair", put_previous),
    crate::case!("kv/put that keeps value or lease", put_keeps),
    crate::case!("kv/get by point, range, prefix, from a key, all", get_ranges),
    crate::case!("kv/get with a limit", get_limit),
    crate::case!("kv/get sorted by every target", get_sorted),
    crate::case!("kv/get keys only, count only", get_parts),
    crate::case!("kv/get between revisions of keys", get_between),
    crate::case!("kv/get at old, future and compacted revisions", get_revisions),
    crate::case!("kv/get serializable", get_serializable),
    crate::case!("kv/get as a stream", get_stream),
    crate::case!("kv/delete by point, range, prefix, from a key", delete_forms),
    crate::case!("kv/empty keys are refused", empty_keys),
    crate::case!("kv/any bytes", any_bytes),
    crate::case!("kv/compaction", compaction),
    crate::case!("kv/namespace", namespace),
];

async fn put_and_get(server: Server) {
    let mut client = connect(&server).await;
    let first = client.put("a", "1", None).await.expect("put");
    let header = first.header().expect("a header").clone();
    assert_eq!(header.revision(), 2);
    assert!(header.cluster_id() != 0 && header.member_id() != 0 && header.raft_term() >= 1);
    assert!(first.prev_key().is_none());
    put(&mut client, &["b=2", "a=3"]).await;
    let found = client.get("a", None).await.expect("get");
    assert_eq!((pairs(found.kvs()), found.count(), found.more()), (vec!["a=3".to_owned()], 1, false));
    let kv = &found.kvs()[0];
    assert_eq!((kv.create_revision(), kv.mod_revision(), kv.version(), kv.lease()), (2, 4, 2, 0));
    assert_eq!(found.header().expect("a header").revision(), 4);
    let absent = client.get("c", None).await.expect("get");
    assert_eq!((absent.kvs().len(), absent.count()), (0, 0));
    client.delete("a", None).await.expect("delete");
    put(&mut client, &["a=4"]).await;
    let kv = one(&mut client, "a").await;
    assert_eq!((kv.create_revision(), kv.mod_revision(), kv.version()), (6, 6, 1));
}

async fn put_previous(server: Server) {
    let mut client = connect(&server).await;
    let options = || Some(PutOptions::new().with_prev_key());
    assert!(client.put("a", "1", options()).await.expect("put").prev_key().is_none());
    let second = client.put("a", "2", options()).await.expect("put");
    let previous = second.prev_key().expect("the previous pair");
    assert_eq!((previous.value(), previous.mod_revision(), previous.version()), (&b"1"[..], 2, 1));
}

async fn put_keeps(server: Server) {
    let mut client = connect(&server).await;
    let lease = client.lease_grant(600, None).await.expect("grant").id();
    client.put("a", "1", Some(PutOptions::new().with_lease(lease))).await.expect("put");
    client.put("a", "2", Some(PutOptions::new().with_ignore_lease())).await.expect("keep the lease");
    let kv = one(&mut client, "a").await;
    assert_eq!((kv.value(), kv.lease()), (&b"2"[..], lease));
    client.put("a", "", Some(PutOptions::new().with_ignore_value())).await.expect("keep the value");
    let kv = one(&mut client, "a").await;
    assert_eq!((kv.value(), kv.lease(), kv.version()), (&b"2"[..], 0, 3));
    let options = PutOptions::new().with_ignore_value();
    assert_eq!(
        refused(client.put("a", "3", Some(options)).await),
        status(INVALID_ARGUMENT, "etcdserver: value is provided")
    );
    let options = PutOptions::new().with_ignore_lease().with_lease(lease);
    assert_eq!(
        refused(client.put("a", "3", Some(options)).await),
        status(INVALID_ARGUMENT, "etcdserver: lease is provided")
    );
    for options in [PutOptions::new().with_ignore_value(), PutOptions::new().with_ignore_lease()] {
        assert_eq!(
            refused(client.put("absent", "", Some(options)).await),
            status(INVALID_ARGUMENT, "etcdserver: key not found")
        );
    }
    let options = PutOptions::new().with_lease(lease + 1);
    assert_eq!(
        refused(client.put("a", "3", Some(options)).await),
        status(NOT_FOUND, "etcdserver: requested lease not found")
    );
}

async fn get_ranges(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "a/x=2", "a/y=3", "b=4", "c=5"]).await;
    for (key, options, expected) in [
        ("a", GetOptions::new(), &["a=1"][..]),
        ("a", GetOptions::new().with_range("b"), &["a=1", "a/x=2", "a/y=3"]),
        ("a/", GetOptions::new().with_prefix(), &["a/x=2", "a/y=3"]),
        ("a/y", GetOptions::new().with_from_key(), &["a/y=3", "b=4", "c=5"]),
        ("", GetOptions::new().with_all_keys(), &["a=1", "a/x=2", "a/y=3", "b=4", "c=5"]),
        ("", GetOptions::new().with_prefix(), &["a=1", "a/x=2", "a/y=3", "b=4", "c=5"]),
        ("c", GetOptions::new().with_range("b"), &[]),
        ("d", GetOptions::new().with_from_key(), &[]),
    ] {
        let found = client.get(key, Some(options.clone())).await.expect("get");
        assert_eq!(pairs(found.kvs()), expected, "{key} {options:?}");
        assert_eq!(found.count(), expected.len() as i64, "{key} {options:?}");
    }
}

async fn get_limit(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "b=2", "c=3", "d=4"]).await;
    for (limit, more) in [(1, true), (3, true), (4, false), (5, false), (0, false)] {
        let options = GetOptions::new().with_all_keys().with_limit(limit);
        let found = client.get("", Some(options)).await.expect("get");
        let expected = if limit == 0 { 4 } else { limit.min(4) };
        assert_eq!(
            (found.kvs().len() as i64, found.more(), found.count()),
            (expected, more, 4),
            "limit {limit}"
        );
    }
    // Page by page, all at one revision.
    let revision = 5;
    let (mut from, mut seen) = ("\0".to_owned(), Vec::new());
    loop {
        let options = GetOptions::new().with_from_key().with_limit(3).with_revision(revision);
        let page = client.get(from.as_str(), Some(options)).await.expect("a page");
        seen.extend(pairs(page.kvs()));
        put(&mut client, &["aa=5"]).await;
        if !page.more() {
            break;
        }
        from = format!("{}\0", text(page.kvs().last().expect("a pair").key()));
    }
    assert_eq!(seen, ["a=1", "b=2", "c=3", "d=4"]);
}

async fn get_sorted(server: Server) {
    let mut client = connect(&server).await;
    // Each target gives an order of its own.
    put(&mut client, &["b=3", "a=1", "c=2", "c=2", "c=2", "b=3"]).await;
    for (target, expected) in [
        (SortTarget::Key, ["a", "b", "c"]),
        (SortTarget::Version, ["a", "b", "c"]),
        (SortTarget::Create, ["b", "a", "c"]),
        (SortTarget::Mod, ["a", "c", "b"]),
        (SortTarget::Value, ["a", "c", "b"]),
    ] {
        for (order, reverse) in [(SortOrder::Ascend, false), (SortOrder::Descend, true)] {
            let options = GetOptions::new().with_all_keys().with_sort(target, order);
            let found = client.get("", Some(options)).await.expect("get");
            let mut expected = expected;
            if reverse {
                expected.reverse();
            }
            let keys: Vec<String> = found.kvs().iter().map(|kv| text(kv.key())).collect();
            assert_eq!(keys, expected, "{target:?} {order:?}");
        }
    }
    let options =
        GetOptions::new().with_all_keys().with_sort(SortTarget::Mod, SortOrder::Descend).with_limit(1);
    let last = client.get("", Some(options)).await.expect("get");
    assert_eq!((pairs(last.kvs()), last.more(), last.count()), (vec!["b=3".to_owned()], true, 3));
}

async fn get_parts(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "b=2"]).await;
    let keys = client.get("", Some(GetOptions::new().with_all_keys().with_keys_only())).await.expect("get");
    assert_eq!((pairs(keys.kvs()), keys.count()), (vec!["a=".to_owned(), "b=".to_owned()], 2));
    assert_eq!(keys.kvs()[1].mod_revision(), 3);
    let count = client.get("", Some(GetOptions::new().with_all_keys().with_count_only())).await.expect("get");
    assert_eq!((count.kvs().len(), count.count(), count.more()), (0, 2, false));
}

async fn get_between(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "b=2", "c=3", "a=4"]).await; // revisions 2 to 5
    let options = || GetOptions::new().with_all_keys();
    for (options, expected) in [
        (options().with_min_mod_revision(4), &["a=4", "c=3"][..]),
        (options().with_max_mod_revision(3), &["b=2"]),
        (options().with_min_create_revision(3), &["b=2", "c=3"]),
        (options().with_max_create_revision(3), &["a=4", "b=2"]),
        (options().with_min_mod_revision(4).with_max_create_revision(2), &["a=4"]),
    ] {
        let found = client.get("", Some(options.clone())).await.expect("get");
        assert_eq!(pairs(found.kvs()), expected, "{options:?}");
    }
}

async fn get_revisions(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "a=2", "b=3"]).await;
    client.delete("a", None).await.expect("delete");
    let at = |revision| Some(GetOptions::new().with_all_keys().with_revision(revision));
    for (revision, expected) in
        [(2, &["a=1"][..]), (3, &["a=2"]), (4, &["a=2", "b=3"]), (5, &["b=3"]), (0, &["b=3"])]
    {
        let found = client.get("", at(revision)).await.expect("get");
        assert_eq!(pairs(found.kvs()), expected, "revision {revision}");
        assert_eq!(found.header().expect("a header").revision(), 5);
    }
    assert_eq!(
        refused(client.get("", at(6)).await),
        status(OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
    );
    client.compact(4, None).await.expect("compact");
    assert_eq!(
        refused(client.get("", at(3)).await),
        status(OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
    );
    let found = client.get("", at(4)).await.expect("get");
    assert_eq!(pairs(found.kvs()), ["a=2", "b=3"]);
}

async fn get_serializable(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1"]).await;
    let found = client.get("a", Some(GetOptions::new().with_serializable())).await.expect("get");
    assert_eq!(pairs(found.kvs()), ["a=1"]);
}

async fn get_stream(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "b=2", "c=3"]).await;
    let options = GetOptions::new().with_all_keys();
    let mut stream = client.kv_client().get_stream("", Some(options)).await.expect("a stream");
    let (mut seen, mut count) = (Vec::new(), 0);
    while let Some(part) = soon("a part", stream.message()).await.expect("a healthy stream") {
        seen.extend(pairs(part.kvs()));
        count = count.max(part.count());
    }
    assert_eq!((seen, count), (vec!["a=1".to_owned(), "b=2".to_owned(), "c=3".to_owned()], 3));
}

async fn delete_forms(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "a/x=2", "a/y=3", "b=4", "c=5", "d=6", "e=7"]).await; // revisions 2 to 8
    let delete = |options: DeleteOptions| Some(options.with_prev_key());
    for (key, options, expected) in [
        ("absent", DeleteOptions::new(), &[][..]),
        ("a", DeleteOptions::new(), &["a=1"]),
        ("a/", DeleteOptions::new().with_prefix(), &["a/x=2", "a/y=3"]),
        ("b", DeleteOptions::new().with_range("d"), &["b=4", "c=5"]),
        ("e", DeleteOptions::new().with_from_key(), &["e=7"]),
    ] {
        let deleted = client.delete(key, delete(options)).await.expect("delete");
        assert_eq!(pairs(deleted.prev_kvs()), expected, "{key}");
        assert_eq!(deleted.deleted(), expected.len() as i64, "{key}");
    }
    let all = client.delete("", Some(DeleteOptions::new().with_all_keys())).await.expect("delete");
    assert_eq!((all.deleted(), all.prev_kvs().len()), (1, 0));
    // One that deletes nothing takes no revision: five did.
    assert_eq!(all.header().expect("a header").revision(), 13);
}

async fn empty_keys(server: Server) {
    let mut client = connect(&server).await;
    let expected = status(INVALID_ARGUMENT, "etcdserver: key is not provided");
    assert_eq!(refused(client.put("", "1", None).await), expected);
    assert_eq!(refused(client.get("", None).await), expected);
    assert_eq!(refused(client.delete("", None).await), expected);
    let txn = Txn::new().and_then([TxnOp::put("", "1", None)]);
    assert_eq!(refused(client.txn(txn).await), expected);
}

async fn any_bytes(server: Server) {
    let mut client = connect(&server).await;
    let bytes: Vec<u8> = (0..=255).collect();
    client.put(bytes.clone(), bytes.clone(), None).await.expect("put");
    client.put("empty", "", None).await.expect("put");
    let found = client.get(bytes.clone(), None).await.expect("get");
    assert_eq!((found.kvs()[0].key(), found.kvs()[0].value()), (&bytes[..], &bytes[..]));
    assert_eq!(one(&mut client, "empty").await.value(), b"");
    let options = GetOptions::new().with_range([1]);
    assert_eq!(client.get([0], Some(options)).await.expect("get").count(), 1);
}

async fn compaction(server: Server) {
    let mut client = connect(&server).await;
    put(&mut client, &["a=1", "a=2", "a=3"]).await;
    let physical = || Some(CompactionOptions::new().with_physical());
    let done = client.compact(3, physical()).await.expect("compact");
    assert_eq!(done.header().expect("a header").revision(), 4);
    for (revision, text) in [
        (3, "etcdserver: mvcc: required revision has been compacted"),
        (2, "etcdserver: mvcc: required revision has been compacted"),
        (5, "etcdserver: mvcc: required revision is a future revision"),
    ] {
        assert_eq!(
            refused(client.compact(revision, physical()).await),
            status(OUT_OF_RANGE, text),
            "{revision}"
        );
    }
    assert_eq!(all(&mut client, "a").await, ["a=3"]);
}

async fn namespace(server: Server) {
    let mut client = connect(&server).await;
    let mut inner = KvClientPrefix::new(client.kv_client(), b"ns/".to_vec());
    inner.put("a", "1", None).await.expect("put");
    put(&mut client, &["a=outer", "ns0=outer"]).await;
    let found = inner.get("a", Some(GetOptions::new().with_prefix())).await.expect("get");
    assert_eq!(pairs(found.kvs()), ["a=1"]);
    let txn = Txn::new().and_then([TxnOp::put("b", "2", None), TxnOp::get("b", None)]);
    assert!(inner.txn(txn).await.expect("txn").succeeded());
    assert_eq!(all(&mut client, "ns").await, ["ns/a=1", "ns/b=2", "ns0=outer"]);
    let deleted = inner.delete("a", Some(DeleteOptions::new().with_range("z"))).await.expect("delete");
    assert_eq!(deleted.deleted(), 2);
    assert_eq!(all(&mut client, "").await, ["a=outer", "ns0=outer"]);
}
