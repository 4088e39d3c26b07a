"""KV and transactions."""

import asyncio

from aetcd import ClientError, InvalidArgumentError, rpc

from cases import Server, case, eq, fresh, true
from common import connect, refused

EMPTY_KEY = (InvalidArgumentError, "etcdserver: key is not provided")
COMPACTED = (ClientError, "etcdserver: mvcc: required revision has been compacted")
FUTURE = (ClientError, "etcdserver: mvcc: required revision is a future revision")
UNKNOWN_LEASE = (ClientError, "etcdserver: requested lease not found")


def new_prefix():
    return fresh().encode()


def pairs(answer):
    return [(kv.key, kv.value) for kv in answer]


@case("kv/put and get with all numbers of a key")
async def put_and_get():
    async with connect() as client:
        key = new_prefix() + b"key"
        eq(await client.get(key), None, "a missing key")
        first = await client.put(key, b"one")
        second = await client.put(key, b"two", prev_kv=True)
        eq((second.prev_kv.value, second.prev_kv.version), (b"one", 1), "previous pair")
        eq(second.header.revision, first.header.revision + 1, "revision of the second put")
        got = await client.get(key)
        eq((got.key, got.value), (key, b"two"), "pair")
        eq((got.create_revision, got.mod_revision), (first.header.revision, second.header.revision), "revisions")
        eq((got.version, got.lease, got.header.revision), (2, 0, second.header.revision), "version, lease, header")
        eq((await client.get(key, serializable=True)).value, b"two", "serializable")


@case("kv/any bytes in keys and values")
async def any_bytes():
    async with connect() as client:
        prefix = new_prefix()
        wanted = [(prefix + b"\x00\xff\x80\n", bytes(range(256))), (prefix + b"empty", b"")]
        for key, value in wanted:
            await client.put(key, value)
        eq(pairs(await client.get_prefix(prefix)), wanted)


@case("kv/prefixes, ranges and every order")
async def orders():
    async with connect() as client:
        prefix = new_prefix()
        # By key: a b c; by creation: b a c; by change: c b a; by value: c a b; by version: c, then b, then a.
        for key, value in [(b"b", b"x"), (b"a", b"y"), (b"c", b"1"), (b"b", b"z"), (b"a", b"y"), (b"a", b"y")]:
            await client.put(prefix + key, value)
        for target, names in {"key": "abc", "create": "bac", "mod": "cba", "value": "cab", "version": "cba"}.items():
            for order, wanted in [("ascend", names), ("descend", names[::-1])]:
                got = await client.get_prefix(prefix, sort_order=order, sort_target=target)
                eq([kv.key for kv in got], [prefix + name.encode() for name in wanted], f"{order} by {target}")
        got = await client.get_range(prefix + b"a", prefix + b"c")
        eq((pairs(got), got.count, got.more), ([(prefix + b"a", b"y"), (prefix + b"b", b"z")], 2, False), "a range")
        only_keys = await client.get_prefix(prefix, keys_only=True)
        eq([kv.value for kv in only_keys], [b""] * 3, "keys only")
        true(not await client.get_prefix(prefix + b"none"), "an empty prefix is not false")


@case("kv/limit, count and old revisions by the client's stub")
async def stub_reads():
    async with connect() as client:
        prefix = new_prefix()
        revisions = [(await client.put(prefix + str(n).encode(), b"%d" % n)).header.revision for n in range(5)]
        await client.put(prefix + b"0", b"changed")
        ends = {"key": prefix, "range_end": prefix[:-1] + b"0"}

        async def ask(**fields):
            return await client.kvstub.Range(rpc.RangeRequest(**ends, **fields))

        page = await ask(limit=2)
        eq(([kv.value for kv in page.kvs], page.more, page.count), ([b"changed", b"1"], True, 5), "first page")
        counted = await ask(count_only=True)
        eq((len(counted.kvs), counted.count), (0, 5), "count only")
        eq([kv.value for kv in (await ask(revision=revisions[1])).kvs], [b"0", b"1"], "an old revision")
        eq([kv.value for kv in (await ask(min_mod_revision=revisions[3])).kvs], [b"changed", b"3", b"4"], "changed since")


@case("kv/delete in all forms")
async def delete():
    async with connect() as client:
        prefix = new_prefix()
        for name in (b"a", b"b/1", b"b/2", b"c", b"d"):
            await client.put(prefix + name, name)
        eq(await client.delete(prefix + b"missing"), None, "a missing key")
        gone = await client.delete(prefix + b"a", prev_kv=True)
        eq((gone.deleted, gone.prev_kv.value), (1, b"a"), "one key")
        gone = await client.delete_prefix(prefix + b"b/", prev_kv=True)
        eq((gone.deleted, [kv.value for kv in gone]), (2, [b"b/1", b"b/2"]), "a prefix")
        eq((await client.delete_range(prefix + b"c", prefix + b"d")).deleted, 1, "a range")
        eq(pairs(await client.get_prefix(prefix)), [(prefix + b"d", b"d")], "what is left")


@case("kv/what is refused")
async def refusals():
    async with connect() as client:
        for call in (client.put(b"", b"x"), client.get(b""), client.delete(b"")):
            with refused(*EMPTY_KEY):
                await call
        with refused(*UNKNOWN_LEASE):
            await client.put(new_prefix() + b"key", b"x", lease=4242)


@case("kv/compaction, and reads before it and after the present")
async def compaction():
    with Server() as server:
        async with connect(server) as client:
            eq(pairs(await client.get_all()), [], "a fresh server")
            for n in range(5):
                eq((await client.put(b"key", b"%d" % n)).header.revision, n + 2, "revision")
            await client.compact(4, physical=True)
            with refused(*COMPACTED):
                await client.compact(4)
            with refused(*FUTURE):
                await client.compact(7)
            eq(pairs(await client.get_all()), [(b"key", b"4")], "the present")


@case("txn/compares of every target and operator")
async def compares():
    async with connect() as client:
        prefix, t = new_prefix(), client.transactions
        key = prefix + b"key"
        created = (await client.put(key, b"one")).header.revision
        changed = (await client.put(key, b"two")).header.revision
        holds = [
            t.value(key) == b"two", t.value(key) != b"one", t.value(key) > b"twn", t.value(key) < b"twp",
            t.version(key) == 2, t.version(key) != 1, t.version(key) > 1, t.version(key) < 3,
            t.create(key) == created, t.create(key) > 0, t.create(key) < changed, t.create(key) != changed,
            t.mod(key) == changed, t.mod(key) > created, t.mod(key) < changed + 1, t.mod(key) != 0,
            t.create(prefix + b"missing") == 0, t.value(prefix, prefix + b"z") == b"two",
        ]
        fails = [
            t.value(key) == b"one", t.version(key) > 2, t.create(key) == 0, t.mod(key) != changed,
            t.value(prefix + b"missing") == b"",
        ]
        for compare in holds:
            eq((await client.transaction([compare], [], []))[0], True, repr(compare))
        eq((await client.transaction(holds, [], []))[0], True, "all that hold")
        for compare in fails:
            eq((await client.transaction([*holds, compare], [], []))[0], False, repr(compare))


@case("txn/answers of each operation, nested ones too")
async def answers():
    async with connect() as client:
        prefix, t = new_prefix(), client.transactions
        a, b = prefix + b"a", prefix + b"b"
        before = (await client.put(a, b"one")).header.revision
        inner = t.txn(compare=[t.value(a) == b"one"], success=[t.put(b, b"inner")], failure=[t.put(b, b"never")])
        succeeded, (put, got, nested) = await client.transaction(
            compare=[t.version(a) == 1], success=[t.put(a, b"changed", prev_kv=True), t.get(a), inner], failure=[]
        )
        eq((succeeded, nested.response_txn.succeeded), (True, True), "all compares are made before the first write")
        eq(put.response_put.prev_kv.value, b"one", "what the put replaced")
        ((value, meta),) = got
        eq((value, meta.mod_revision), (b"changed", before + 1), "reads see the writes before them")
        eq((await client.get(b)).mod_revision, before + 1, "one revision for all")
        succeeded, responses = await client.transaction([t.version(a) == 1], [], [t.delete(b), t.get(prefix, prefix + b"z")])
        eq((succeeded, responses[0].response_delete_range.deleted), (False, 1), "the other branch")
        eq([value for value, _ in responses[1]], [b"changed"], "its range")


@case("txn/what is refused")
async def txn_refusals():
    async with connect() as client:
        prefix, t = new_prefix(), client.transactions
        twice = [t.put(prefix + b"a", b"1"), t.put(prefix + b"a", b"2")]
        with refused(InvalidArgumentError, "etcdserver: duplicate key given in txn request"):
            await client.transaction([], [], twice)
        many = [t.put(prefix + b"%d" % n, b"x") for n in range(129)]
        with refused(InvalidArgumentError, "etcdserver: too many operations in txn request"):
            await client.transaction([], many, [])
        with refused(*UNKNOWN_LEASE):
            await client.transaction([], [t.put(prefix + b"b", b"x"), t.put(prefix + b"c", b"x", lease=4242)], [])
        eq((await client.get_prefix(prefix)).count, 0, "nothing was written")


@case("txn/counting by replace from fifty tasks of one client")
async def replace():
    async with connect() as client:
        key = new_prefix() + b"counter"
        await client.put(key, b"0")

        async def count():
            while True:
                seen = (await client.get(key)).value
                if await client.replace(key, seen, b"%d" % (int(seen) + 1)):
                    return

        await asyncio.gather(*(count() for _ in range(50)))
        got = await client.get(key)
        eq((got.value, got.version), (b"50", 51), "value and version")
