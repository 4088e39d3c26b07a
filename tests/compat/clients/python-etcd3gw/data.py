"""KV, transactions and watches."""

import threading
from base64 import b64encode

from etcd3gw.exceptions import WatchTimedOut

from cases import PATIENCE, Server, case, eq, fresh, raises
from common import connect, refused

# Codes of gRPC.
INVALID_ARGUMENT, NOT_FOUND, OUT_OF_RANGE = 3, 5, 11


def revision_of(client, key):
    return int(client.get(key, metadata=True)[0][1]["mod_revision"])


@case("kv/put and get with all numbers of a key")
def put_and_get():
    client, key = connect(), fresh() + "key"
    eq(client.get(key), [], "a missing key")
    eq(client.put(key, "one"), True, "put")
    client.put(key, b"two")
    ((value, meta),) = client.get(key, metadata=True)
    eq((value, meta["key"], meta["version"]), (b"two", key.encode(), "2"), "pair")
    eq(int(meta["mod_revision"]), int(meta["create_revision"]) + 1, "revisions")
    eq(client.get(key, serializable=True), [b"two"], "serializable")
    eq(client.get(key, revision=int(meta["create_revision"])), [b"one"], "an old revision")


@case("kv/any bytes in keys and values")
def any_bytes():
    client, prefix = connect(), fresh()
    key, value = prefix.encode() + b"\x00\xff\x80\n", bytes(range(256))
    client.put(key, value)
    client.put(prefix + "empty", "")
    got = client.get_prefix(prefix)
    eq([(v, meta["key"]) for v, meta in got], [(value, key), (b"", prefix.encode() + b"empty")])


@case("kv/prefixes, ranges, limits, bounds and every order")
def orders():
    client, prefix = connect(), fresh()
    # By key: a b c; by creation: b a c; by change: c b a; by value: c a b; by version: c, then b, then a.
    for key, value in [("b", "x"), ("a", "y"), ("c", "1"), ("b", "z"), ("a", "y"), ("a", "y")]:
        client.put(prefix + key, value)
    for target, names in {"key": "abc", "create": "bac", "mod": "cba", "value": "cab", "version": "cba"}.items():
        for order, wanted in [("ascend", names), ("descend", names[::-1])]:
            got = client.get_prefix(prefix, sort_order=order, sort_target=target)
            eq([meta["key"] for _, meta in got], [(prefix + name).encode() for name in wanted], f"{order} by {target}")
    end = prefix + "z"
    eq(client.get(prefix + "a", range_end=prefix + "c"), [b"y", b"z"], "a range")
    eq(client.get(prefix, range_end=end, limit=2), [b"y", b"z"], "limited")
    eq(client.get(prefix, range_end=end, keys_only=True), [b""] * 3, "keys only")
    eq(client.get(prefix, range_end=end, count_only=True), [], "count only")
    eq(client.get(prefix, range_end=end, min_mod_revision=revision_of(client, prefix + "b")), [b"y", b"z"], "changed since")
    eq(client.get(prefix, range_end=end, max_mod_revision=revision_of(client, prefix + "b")), [b"z", b"1"], "changed until")


@case("kv/delete in all forms")
def delete():
    client, prefix = connect(), fresh()
    for name in ("a", "b/1", "b/2", "c", "d"):
        client.put(prefix + name, name)
    eq(client.delete(prefix + "missing"), False, "a missing key")
    eq(client.delete(prefix + "a", prev_kv=True), True, "a key")
    eq(client.delete_prefix(prefix + "b/"), True, "a prefix")
    eq(client.delete(prefix + "c", range_end=prefix + "d"), True, "a range")
    eq([value for value, _ in client.get_prefix(prefix)], [b"d"], "what is left")


@case("kv/what is refused")
def refusals():
    with Server() as server:
        client = connect(server)
        eq(client.get_all(), [], "a fresh server")
        for n in range(4):
            client.put("key", str(n))
        for call in (lambda: client.put("", "x"), lambda: client.get(""), lambda: client.delete("")):
            with refused(INVALID_ARGUMENT, "etcdserver: key is not provided"):
                call()
        client.post(client.get_url("/kv/compaction"), json={"revision": 4, "physical": True})
        with refused(OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"):
            client.get("key", revision=3)
        with refused(OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"):
            client.get("key", revision=6)
        eq(client.get("key", revision=4), [b"2"], "at the compaction")


@case("txn/create, replace, and a transaction of one's own")
def txn():
    client, prefix = connect(), fresh()
    eq((client.create(prefix + "a", "one"), client.create(prefix + "a", "two")), (True, False), "create")
    eq((client.replace(prefix + "a", "two", "x"), client.replace(prefix + "a", "one", "three")), (False, True), "replace")
    key = b64encode((prefix + "a").encode()).decode()
    value = b64encode(b"four").decode()
    other = b64encode((prefix + "b").encode()).decode()
    request = {
        "compare": [{"key": key, "target": "VERSION", "result": "GREATER", "version": 1}],
        "success": [
            {"request_put": {"key": key, "value": value, "prev_kv": True}},
            {"request_range": {"key": key}},
            {"request_txn": {"success": [{"request_put": {"key": other, "value": value}}, {"request_range": {"key": key}}]}},
        ],
        "failure": [{"request_delete_range": {"key": key}}],
    }
    answer = client.transaction(request)
    eq(answer["succeeded"], True, "succeeded")
    put, got, nested = answer["responses"]
    eq(put["response_put"]["prev_kv"]["version"], "2", "what the put replaced")
    eq(got["response_range"]["kvs"][0]["value"], value, "reads see the writes before them")
    eq(nested["response_txn"]["responses"][1]["response_range"]["count"], "1", "the nested one")
    eq(client.get(prefix + "b"), [b"four"], "its put")
    client.delete(prefix + "a")
    client.put(prefix + "a", "new")
    answer = client.transaction(request)
    # What is false or zero is left out of JSON.
    eq("succeeded" in answer, False, "the other branch")
    eq(answer["responses"][0]["response_delete_range"]["deleted"], "1", "deleted")


@case("txn/what is refused")
def txn_refusals():
    client, prefix = connect(), fresh()
    def put(n):
        return {"request_put": {"key": b64encode(f"{prefix}{n}".encode()).decode(), "value": "eA=="}}

    with refused(INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request"):
        client.transaction({"success": [put(1), put(1)]})
    with refused(INVALID_ARGUMENT, "etcdserver: too many operations in txn request"):
        client.transaction({"success": [put(n) for n in range(129)]})
    eq(client.get_prefix(prefix), [], "nothing was written")
    eq(client.transaction({"success": [put(n) for n in range(128)]})["succeeded"], True, "as many as are allowed")


@case("txn/counting by replace from four threads")
def compare_and_swap():
    key = fresh() + "counter"
    connect().put(key, "0")
    errors = []

    def count():
        try:
            client = connect()
            for _ in range(10):
                while True:
                    (seen,) = client.get(key)
                    if client.replace(key, seen, str(int(seen) + 1)):
                        break
        except Exception as e:  # noqa: BLE001 - told below
            errors.append(e)

    threads = [threading.Thread(target=count, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eq(errors, [], "errors")
    ((value, meta),) = connect().get(key, metadata=True)
    eq((value, meta["version"]), (b"40", "41"), "value and version")


def short(event):
    return (event.get("type", "PUT"), event["kv"]["key"], event["kv"].get("value", b""))


def take(events, count):
    return [next(events) for _ in range(count)]


@case("watch/from now on, until cancelled")
def from_now():
    client, key = connect(), fresh() + "key"
    client.put(key, "before")
    events, cancel = client.watch(key)
    client.put(key, "one")
    client.put(key + "/other", "not watched")
    client.delete(key)
    name = key.encode()
    first, second = take(events, 2)
    eq([short(first), short(second)], [("PUT", name, b"one"), ("DELETE", name, b"")], "events")
    eq(int(second["kv"]["mod_revision"]), int(first["kv"]["mod_revision"]) + 2, "revisions")
    cancel()
    eq(list(events), [], "events after the cancel")


@case("watch/replay from a revision, filters and previous pairs")
def replay():
    client, prefix = connect(), fresh()
    client.put(prefix + "a", "1")
    first = revision_of(client, prefix + "a")
    client.put(prefix + "a", "2")
    client.delete(prefix + "a")
    client.put(prefix + "b", "3")
    events, cancel = client.watch_prefix(prefix, start_revision=first + 1, prev_kv=True)
    a, b = (prefix + "a").encode(), (prefix + "b").encode()
    seen = take(events, 3)
    cancel()
    eq([short(event) for event in seen], [("PUT", a, b"2"), ("DELETE", a, b""), ("PUT", b, b"3")], "events")
    eq([event.get("prev_kv", {}).get("version") for event in seen], ["1", "2", None], "previous pairs")
    events, cancel = client.watch_prefix(prefix, start_revision=first, filters=["NOPUT"])
    eq([short(event) for event in take(events, 1)], [("DELETE", a, b"")], "deletes")
    cancel()
    events, cancel = client.watch_prefix(prefix, start_revision=first, filters=["NODELETE"])
    eq([short(event)[2] for event in take(events, 3)], [b"1", b"2", b"3"], "puts")
    cancel()


@case("watch/once, and in vain")
def once():
    client, key = connect(), fresh() + "key"
    with raises(WatchTimedOut):
        client.watch_once(key, timeout=0.2)
    client.put(key, "one")
    event = client.watch_once(key, timeout=PATIENCE, start_revision=revision_of(client, key))
    eq(short(event), ("PUT", key.encode(), b"one"))


@case("watch/twenty watches, each with a connection of its own")
def many():
    client, prefix = connect(), fresh()
    watches = [client.watch(f"{prefix}{n:02}") for n in range(20)]
    for n in range(20):
        client.put(f"{prefix}{n:02}", str(n))
    eq([next(events)["kv"]["value"] for events, _ in watches], [str(n).encode() for n in range(20)], "events")
    for _, cancel in watches:
        cancel()
