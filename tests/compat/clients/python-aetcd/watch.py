"""Watches, and how an application goes on after a restart of the server."""

import asyncio

import aetcd
from aetcd import ClientError, ConnectionFailedError, EventKind, RevisionCompactedError, WatchTimeoutError

from cases import PATIENCE, Server, case, eq, fresh, raises, wait_until_async
from common import QUICK_RECONNECT, connect


def short(event):
    return (event.kind, event.kv.key, event.kv.value)


async def take(watch, count):
    seen = []
    async for event in watch:
        seen.append(event)
        if len(seen) == count:
            return seen


@case("watch/from now on, until cancelled")
async def from_now():
    async with connect() as client:
        key = fresh().encode() + b"key"
        await client.put(key, b"before")
        watch = await client.watch(key)
        put = await client.put(key, b"one")
        await client.put(key + b"/other", b"not watched")
        await client.delete(key)
        seen = await take(watch, 2)
        eq([short(event) for event in seen], [("PUT", key, b"one"), ("DELETE", key, b"")], "events")
        revisions = [event.kv.mod_revision for event in seen]
        eq(revisions, [put.header.revision, put.header.revision + 2], "revisions")
        await watch.cancel()
        eq([event async for event in watch], [], "events after the cancel")


@case("watch/replay from a revision, kinds and previous pairs")
async def replay():
    async with connect() as client:
        prefix, t = fresh().encode(), client.transactions
        first = (await client.put(prefix + b"a", b"1")).header.revision
        await client.transaction([], [t.put(prefix + b"b", b"2"), t.delete(prefix + b"a")], [])
        await client.put(prefix + b"b", b"3")
        every = await client.watch_prefix(prefix, start_revision=first + 1, prev_kv=True)
        seen = [(*short(e), e.prev_kv.value, e.kv.mod_revision - first) for e in await take(every, 3)]
        wanted = [
            ("PUT", prefix + b"b", b"2", b"", 1),
            ("DELETE", prefix + b"a", b"", b"1", 1),
            ("PUT", prefix + b"b", b"3", b"2", 2),
        ]
        eq(seen, wanted, "all")
        puts = await client.watch_prefix(prefix, start_revision=first, kind=EventKind.PUT)
        eq([event.kv.value for event in await take(puts, 3)], [b"1", b"2", b"3"], "puts")
        deletes = await client.watch_prefix(prefix, start_revision=first, kind=EventKind.DELETE)
        eq([short(event) for event in await take(deletes, 1)], [("DELETE", prefix + b"a", b"")], "deletes")


@case("watch/sixty watches on one stream")
async def many():
    async with connect() as client:
        prefix = fresh().encode()
        watches = [await client.watch(prefix + b"%02d" % n) for n in range(60)]
        eq(len({watch.watch_id for watch in watches}), 60, "ids")
        for watch in watches[:30]:
            await watch.cancel()
        for n in range(60):
            await client.put(prefix + b"%02d" % n, b"%d" % n)
        seen = await asyncio.gather(*(take(watch, 1) for watch in watches[30:]))
        eq([events[0].kv.value for events in seen], [b"%d" % n for n in range(30, 60)], "events")
        eq([[event async for event in watch] for watch in watches[:30]], [[]] * 30, "the cancelled ones")


@case("watch/a prefix once, and in vain")
async def once():
    async with connect() as client:
        prefix = fresh().encode()
        with raises(WatchTimeoutError):
            await client.watch_once(prefix + b"key", timeout=0.2)
        revision = (await client.put(prefix + b"key", b"one")).header.revision
        event = await client.watch_prefix_once(prefix, timeout=PATIENCE, start_revision=revision)
        eq(short(event), ("PUT", prefix + b"key", b"one"))


@case("watch/a compacted start tells the compact revision")
async def compacted():
    with Server() as server:
        async with connect(server) as client:
            for n in range(4):
                await client.put(b"key", b"%d" % n)
            await client.compact(4)
            with raises(RevisionCompactedError) as seen:
                await take(await client.watch(b"key", start_revision=2), 1)
            eq(seen.error.compacted_revision, 4, "compact revision")
            events = await take(await client.watch(b"key", start_revision=4), 2)
            eq([event.kv.value for event in events], [b"2", b"3"], "from the compact revision on")


async def follow(server, prefix, revision, seen):
    """What an application does that has read up to a revision: after a broken stream it watches again, from the next one."""
    async with connect(server, options=QUICK_RECONNECT) as client:
        while True:
            try:
                async for event in await client.watch_prefix(prefix, start_revision=revision + 1):
                    revision = event.kv.mod_revision
                    await seen.put((event.kv.key, event.kv.value))
            except (ClientError, aetcd.rpc.AioRpcError):
                await asyncio.sleep(0.05)


async def write(client, key, value):
    """A put by a client whose connection may have to come back first."""

    async def attempt():
        try:
            return await client.put(key, value)
        except ConnectionFailedError:
            return None

    await wait_until_async(attempt, f"put of {key}")


@case("reconnect/by the application, across SIGKILL and SIGTERM, each event once")
async def reconnect():
    with Server() as server:
        async with connect(server, options=QUICK_RECONNECT) as client:
            seen = asyncio.Queue()
            revision = (await client.get_prefix(b"r/")).header.revision
            follower = asyncio.create_task(follow(server, b"r/", revision, seen))
            wanted = []
            for end in (server.kill, server.stop, None):
                for _ in range(40):
                    wanted.append((b"r/%03d" % len(wanted), b"%d" % len(wanted)))
                    await write(client, *wanted[-1])
                if end:
                    await asyncio.to_thread(end)
                    await asyncio.to_thread(server.start)
            # An event that came twice, or too late, would stand before the last one.
            wanted.append((b"r/last", b"x"))
            await write(client, *wanted[-1])
            eq([await asyncio.wait_for(seen.get(), PATIENCE / 2) for _ in wanted], wanted, "events")
            await write(client, b"r/last", b"y")
            eq(await asyncio.wait_for(seen.get(), PATIENCE / 2), (b"r/last", b"y"), "the event after all")
            follower.cancel()
