"""Transactions by the client's operators and helpers."""

import threading

from cases import case, eq, fresh
from common import connect, refused


@case("txn/compares of every target and operator")
def compares():
    client, prefix = connect(), fresh()
    key = prefix + "key"
    created = client.put(key, "one").header.revision
    changed = client.put(key, "two").header.revision
    t = client.transactions
    holds = [
        t.value(key) == "two", t.value(key) != "one", t.value(key) > "twn", t.value(key) < "twp",
        t.version(key) == 2, t.version(key) != 1, t.version(key) > 1, t.version(key) < 3,
        t.create(key) == created, t.create(key) > 0, t.create(key) < changed, t.create(key) != changed,
        t.mod(key) == changed, t.mod(key) > created, t.mod(key) < changed + 1, t.mod(key) != 0,
        t.version(prefix + "missing") == 0, t.create(prefix + "missing") == 0,
    ]
    fails = [
        t.value(key) == "one", t.version(key) > 2, t.create(key) == 0, t.mod(key) != changed,
        t.value(prefix + "missing") == "", t.version(prefix + "missing") > 0,
    ]
    eq(client.transaction(compare=holds, success=[], failure=[])[0], True, "all that hold")
    for compare in holds:
        eq(client.transaction(compare=[compare], success=[], failure=[])[0], True, repr(compare))
    for compare in fails:
        eq(client.transaction(compare=[*holds, compare], success=[], failure=[])[0], False, repr(compare))
    eq(client.transaction(compare=[], success=[], failure=[])[0], True, "nothing to compare")


@case("txn/compares of a range")
def range_compares():
    client, prefix = connect(), fresh()
    for name, value in [("a", "same"), ("b", "same"), ("c", "other")]:
        client.put(prefix + name, value)
    value = client.transactions.value
    eq(client.transaction([value(prefix + "a", prefix + "c") == "same"], [], [])[0], True, "two keys")
    eq(client.transaction([value(prefix + "a", prefix + "d") == "same"], [], [])[0], False, "three keys")
    eq(client.transaction([value(prefix + "x", prefix + "z") == "same"], [], [])[0], False, "a value of no key")
    version = client.transactions.version
    eq(client.transaction([version(prefix + "x", prefix + "z") == 0], [], [])[0], True, "a version of no key")


@case("txn/answers of each operation, at one revision")
def answers():
    client, prefix = connect(), fresh()
    a, b, c = (prefix + name for name in "abc")
    before = client.put(a, "one").header.revision
    client.put(b, "two")
    t = client.transactions
    succeeded, (put, got, deleted, late) = client.transaction(
        compare=[t.version(a) == 1],
        success=[
            t.put(a, "changed", prev_kv=True),
            t.get(prefix, prefix + "z"),
            t.delete(b, prev_kv=True),
            t.get(b),
        ],
        failure=[t.put(c, "never")],
    )
    eq(succeeded, True, "succeeded")
    eq(put.response_put.prev_kv.value, b"one", "what the put replaced")
    eq([value for value, _ in got], [b"changed", b"two"], "reads see the writes before them")
    eq(got[0][1].mod_revision, before + 2, "revision of the transaction")
    deleted = deleted.response_delete_range
    eq((deleted.deleted, deleted.prev_kvs[0].value), (1, b"two"), "what was deleted")
    eq(late, [], "a read after the delete")
    eq(client.get(c), (None, None), "the other branch")
    eq(client.get(a)[1].response_header.revision, before + 2, "one revision for all")


@case("txn/nested transactions")
def nested():
    client, prefix = connect(), fresh()
    t = client.transactions
    inner = t.txn(
        compare=[t.value(prefix + "outer") == "set"],
        success=[t.put(prefix + "inner", "seen")],
        failure=[t.put(prefix + "inner", "not seen"), t.get(prefix + "outer")],
    )
    succeeded, responses = client.transaction(
        compare=[t.create(prefix + "outer") == 0], success=[t.put(prefix + "outer", "set"), inner], failure=[]
    )
    eq(succeeded, True, "outer")
    answer = responses[1].response_txn
    # All compares, the nested ones too, are made before the first write.
    eq((answer.succeeded, len(answer.responses)), (False, 2), "inner")
    eq(client.get(prefix + "inner")[0], b"not seen")


@case("txn/put_if_not_exists and replace")
def helpers():
    client, key = connect(), fresh() + "key"
    lease = client.lease(60)
    eq(client.put_if_not_exists(key, "one", lease=lease), True, "the first")
    eq(client.put_if_not_exists(key, "two"), False, "the second")
    eq((client.get(key)[0], client.get(key)[1].lease_id), (b"one", lease.id), "value and lease")
    eq(client.replace(key, "other", "three"), False, "replace of another value")
    eq(client.replace(key, "one", "three"), True, "replace")
    eq(client.get(key)[0], b"three")
    lease.revoke()


@case("txn/counting by compare-and-swap from four threads")
def compare_and_swap():
    key, rounds = fresh() + "counter", 25
    connect().put(key, "0")
    errors = []

    def count():
        try:
            client = connect()
            for _ in range(rounds):
                while True:
                    seen = client.get(key)[0]
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
    value, meta = connect().get(key)
    eq((value, meta.version), (b"100", 101), "value and version")


@case("txn/what is refused")
def refusals():
    client, prefix = connect(), fresh()
    t = client.transactions
    twice = [t.put(prefix + "a", "1"), t.put(prefix + "a", "2")]
    with refused("INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request"):
        client.transaction(compare=[], success=twice, failure=[])
    with refused("INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request"):
        # In the branch that is not taken, too.
        client.transaction(compare=[], success=[], failure=twice)
    many = [t.put(f"{prefix}{n}", "x") for n in range(129)]
    with refused("INVALID_ARGUMENT", "etcdserver: too many operations in txn request"):
        client.transaction(compare=[], success=many, failure=[])
    with refused("INVALID_ARGUMENT", "etcdserver: key is not provided"):
        client.transaction(compare=[], success=[t.get("")], failure=[])
    with refused("NOT_FOUND", "etcdserver: requested lease not found"):
        client.transaction(compare=[], success=[t.put(prefix + "b", "x"), t.put(prefix + "c", "x", lease=4242)], failure=[])
    eq(list(client.get_prefix(prefix)), [], "nothing was written")
    eq(client.transaction(compare=[], success=many[:128], failure=[])[0], True, "as many as are allowed")
