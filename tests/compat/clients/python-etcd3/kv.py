"""KV: reads of every shape, puts, deletes, compaction, and what the server refuses."""

from etcd3 import etcdrpc

from cases import Server, case, eq, fresh, true
from common import connect, refused

EMPTY_KEY = ("INVALID_ARGUMENT", "etcdserver: key is not provided")


def values(pairs):
    return [value for value, _ in pairs]


def keys(pairs):
    return [meta.key for _, meta in pairs]


@case("kv/put and get with all numbers of a key")
def put_and_get():
    client, key = connect(), fresh() + "key"
    first = client.put(key, "one")
    second = client.put(key, b"two")
    eq(second.header.revision, first.header.revision + 1, "revision of the second put")
    value, meta = client.get(key)
    eq(value, b"two")
    eq(meta.key, key.encode(), "key")
    eq((meta.create_revision, meta.mod_revision), (first.header.revision, second.header.revision), "revisions")
    eq((meta.version, meta.lease_id), (2, 0), "version and lease")
    eq(meta.response_header.revision, second.header.revision, "revision of the answer")
    true(meta.response_header.cluster_id and meta.response_header.member_id, "no cluster or member id")
    eq(client.get(key, serializable=True)[0], b"two", "serializable")


@case("kv/a missing key is (None, None)")
def missing():
    eq(connect().get(fresh() + "missing"), (None, None))


@case("kv/any bytes in keys and values")
def any_bytes():
    client, prefix = connect(), fresh().encode()
    key, value = prefix + b"\x00\xff\x80/\n", bytes(range(256))
    client.put(key, value)
    client.put(prefix + b"empty", b"")
    eq(client.get(key)[0], value)
    eq(client.get(prefix + b"empty")[0], b"", "empty value")
    eq(keys(client.get_prefix(prefix)), [key, prefix + b"empty"], "keys")


@case("kv/put with prev_kv")
def put_prev_kv():
    client, key = connect(), fresh() + "key"
    true(not client.put(key, "one", prev_kv=True).HasField("prev_kv"), "a new key has a previous pair")
    prev = client.put(key, "two", prev_kv=True).prev_kv
    eq((prev.key, prev.value, prev.version), (key.encode(), b"one", 1), "previous pair")


@case("kv/prefixes, ranges and every order")
def orders():
    client, prefix = connect(), fresh()
    # By key: a b c; by creation: b a c; by change: c b a; by value: c a b; by version: c, then b, then a.
    for key, value in [("b", "x"), ("a", "y"), ("c", "1"), ("b", "z"), ("a", "y"), ("a", "y")]:
        client.put(prefix + key, value)
    orders = {"key": "abc", "create": "bac", "mod": "cba", "value": "cab", "version": "cba"}
    for target, names in orders.items():
        wanted = [(prefix + name).encode() for name in names]
        eq(keys(client.get_prefix(prefix, sort_order="ascend", sort_target=target)), wanted, f"by {target}")
        wanted.reverse()
        eq(keys(client.get_prefix(prefix, sort_order="descend", sort_target=target)), wanted, f"down by {target}")
    eq(values(client.get_range(prefix + "a", prefix + "c")), [b"y", b"z"], "a range without its end")
    only_keys = list(client.get_prefix(prefix, keys_only=True))
    eq((values(only_keys), len(only_keys)), ([b""] * 3, 3), "keys only")
    eq(list(client.get_prefix(prefix + "none")), [], "an empty prefix")
    eq(client.get_prefix_response(prefix).count, 3, "count")


@case("kv/get_all of a fresh server")
def get_all():
    with Server() as server:
        client = connect(server)
        eq(list(client.get_all()), [], "before the first put")
        eq(client.put("b", "2").header.revision, 2, "the first revision")
        client.put("a", "1")
        eq(values(client.get_all()), [b"1", b"2"])
        eq(values(client.get_all(sort_order="descend")), [b"2", b"1"], "descending")


@case("kv/limit, count, bounds and old revisions by the client's stub")
def stub_reads():
    client, prefix = connect(), fresh()
    revisions = [client.put(f"{prefix}{n}", str(n)).header.revision for n in range(5)]
    client.put(prefix + "0", "changed")
    ends = {"key": prefix.encode(), "range_end": prefix[:-1].encode() + b"0"}

    def ask(**fields):
        return client.kvstub.Range(etcdrpc.RangeRequest(**ends, **fields))

    page = ask(limit=2)
    eq(([kv.value for kv in page.kvs], page.more, page.count), ([b"changed", b"1"], True, 5), "first page")
    eq(ask(limit=5).more, False, "more on the last page")
    counted = ask(count_only=True)
    eq((len(counted.kvs), counted.count), (0, 5), "count only")
    old = ask(revision=revisions[1])
    eq([(kv.value, kv.version) for kv in old.kvs], [(b"0", 1), (b"1", 1)], "pairs of an old revision")
    eq(old.header.revision, revisions[4] + 1, "the header has the current revision")
    eq([kv.value for kv in ask(min_create_revision=revisions[3]).kvs], [b"3", b"4"], "created from a revision on")
    eq([kv.value for kv in ask(max_mod_revision=revisions[2]).kvs], [b"1", b"2"], "changed up to a revision")
    from_key = client.kvstub.Range(etcdrpc.RangeRequest(key=f"{prefix}3".encode(), range_end=b"\x00"))
    eq([kv.value for kv in from_key.kvs][:2], [b"3", b"4"], "from a key on")


@case("kv/ignore_value and ignore_lease by the client's stub")
def stub_puts():
    client, key = connect(), fresh().encode() + b"key"
    lease = client.lease(60)
    client.put(key, "one", lease=lease)
    client.kvstub.Put(etcdrpc.PutRequest(key=key, value=b"two", ignore_lease=True))
    value, meta = client.get(key)
    eq((value, meta.lease_id), (b"two", lease.id), "after ignore_lease")
    client.kvstub.Put(etcdrpc.PutRequest(key=key, ignore_value=True))
    value, meta = client.get(key)
    eq((value, meta.lease_id, meta.version), (b"two", 0, 3), "after ignore_value")
    with refused("INVALID_ARGUMENT", "etcdserver: value is provided"):
        client.kvstub.Put(etcdrpc.PutRequest(key=key, value=b"x", ignore_value=True))
    with refused("INVALID_ARGUMENT", "etcdserver: key not found"):
        client.kvstub.Put(etcdrpc.PutRequest(key=key + b"none", ignore_value=True))
    lease.revoke()


@case("kv/delete in all forms")
def delete():
    client, prefix = connect(), fresh()
    for name in ("a", "b/1", "b/2", "c"):
        client.put(prefix + name, name)
    eq(client.delete(prefix + "missing"), False, "delete of a missing key")
    before = client.get(prefix + "a")[1].response_header.revision
    answer = client.delete(prefix + "a", prev_kv=True, return_response=True)
    eq((answer.deleted, answer.header.revision), (1, before + 1), "count and revision")
    eq([(kv.key, kv.value) for kv in answer.prev_kvs], [((prefix + "a").encode(), b"a")], "what was deleted")
    eq(client.delete_prefix(prefix + "b/").deleted, 2, "deleted by prefix")
    eq(client.delete(prefix + "c"), True, "delete of a key")
    eq(list(client.get_prefix(prefix)), [], "what is left")
    client.put(prefix + "a", "again")
    eq(client.get(prefix + "a")[1].version, 1, "version of a new life")


@case("kv/empty keys are refused")
def empty_keys():
    client = connect()
    for call in (lambda: client.put("", "x"), lambda: client.get(""), lambda: client.delete("")):
        with refused(*EMPTY_KEY):
            call()
    with refused("NOT_FOUND", "etcdserver: requested lease not found"):
        client.put(fresh() + "key", "x", lease=4242)


@case("kv/compaction, and reads before it and after the present")
def compaction():
    with Server() as server:
        client = connect(server)
        revisions = [client.put("key", str(n)).header.revision for n in range(5)]
        client.compact(revisions[2], physical=True)

        def read(revision):
            return client.kvstub.Range(etcdrpc.RangeRequest(key=b"key", revision=revision)).kvs[0].value

        eq(read(revisions[2]), b"2", "at the compaction")
        with refused("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted"):
            read(revisions[1])
        with refused("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision"):
            read(revisions[4] + 1)
        with refused("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted"):
            client.compact(revisions[2])
        with refused("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision"):
            client.compact(revisions[4] + 1)
        eq(client.get("key")[0], b"4", "the present")
