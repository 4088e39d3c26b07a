"""Large requests and answers, deadlines and cancellation, and maintenance."""

import asyncio
import io
import json
import os
import subprocess
import tempfile

from aetcd import ClientError, ConnectionFailedError, ConnectionTimeoutError, InvalidArgumentError, WatchTimeoutError, rpc

from cases import PATIENCE, Server, case, eq, fresh, raises, true, wait_until_async
from common import LARGE_ANSWERS, QUICK_RECONNECT, connect, refused


@case("large/a value of a mebibyte, and requests above the limit")
async def large_values():
    async with connect() as client:
        key, value = fresh().encode() + b"key", os.urandom(1 << 20)
        watch = await client.watch(key)
        await client.put(key, value)
        true((await client.get(key)).value == value, "another value came back")
        async for event in watch:
            true(event.kv.value == value, "another value was watched")
            break
        with refused(InvalidArgumentError, "etcdserver: request is too large"):
            await client.put(key, b"x" * (1600 << 10))
        with raises(ClientError) as seen:
            await client.put(key, b"x" * (8 << 20))
        eq(seen.error.__cause__.code().name, "RESOURCE_EXHAUSTED", "far above the limit")
        eq((await client.get(key)).version, 1, "nothing was written")


@case("large/ten thousand keys in one answer")
async def many_keys():
    async with connect() as client:
        prefix, t = fresh().encode(), client.transactions
        for start in range(0, 10_000, 100):
            puts = [t.put(prefix + b"%05d" % n, b"value %d" % n) for n in range(start, start + 100)]
            await client.transaction([], puts, [])
        got = await client.get_prefix(prefix)
        wanted = [(prefix + b"%05d" % n, b"value %d" % n) for n in range(10_000)]
        true([(kv.key, kv.value) for kv in got] == wanted, "other keys or values came back")
        eq((await client.delete_prefix(prefix)).deleted, 10_000, "deleted")


@case("large/an answer above the client's limit, and with a larger one")
async def large_answer():
    async with connect() as client, connect(options=LARGE_ANSWERS) as wide:
        prefix = fresh().encode()
        for n in range(6):
            await client.put(prefix + b"%d" % n, bytes([n]) * (1 << 20))
        with raises(ClientError) as seen:
            await client.get_prefix(prefix)
        eq(seen.error.__cause__.code().name, "RESOURCE_EXHAUSTED", "with gRPC's 4 MiB")
        values = [kv.value for kv in await wide.get_prefix(prefix)]
        true(values == [bytes([n]) * (1 << 20) for n in range(6)], "other values came back")
        await client.delete_prefix(prefix)


@case("cancel/a deadline passes while the server stands still")
async def deadline():
    with Server() as server:
        async with connect(server, timeout=0.5) as client, connect(server) as patient:
            await patient.put(b"key", b"one")
            server.pause()
            for call in (client.get(b"key"), client.status(), client.lease(60)):
                with raises(ConnectionTimeoutError):
                    await call
            with raises(WatchTimeoutError):
                await client.watch(b"key")
            server.resume()
            eq((await patient.get(b"key")).value, b"one", "afterwards")


@case("cancel/a cancelled task lets its client go on")
async def cancelled_task():
    with Server() as server:
        async with connect(server) as client:
            await client.put(b"key", b"one")
            server.pause()
            call = asyncio.create_task(client.get(b"key"))
            eq((await asyncio.wait([call], timeout=0.2))[0], set(), "an answer of a paused server")
            call.cancel()
            with raises(asyncio.CancelledError):
                await call
            with raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.get(b"key"), 0.2)
            server.resume()
            eq((await client.get(b"key")).value, b"one", "afterwards")


@case("cancel/no server there, and back again")
async def no_server():
    with Server() as server:
        server.kill()
        async with connect(server, options=QUICK_RECONNECT) as client:
            with raises(ConnectionFailedError):
                await client.get(b"key")
            server.start()

            async def connected():
                try:
                    return await client.get(b"key") is None
                except ConnectionFailedError:
                    return False

            await wait_until_async(connected, "the connection after the start")


@case("cancel/watches end with their cancel and with their client")
async def ended_watches():
    key = fresh().encode() + b"key"
    async with connect() as client:
        one, two = await client.watch(key), await client.watch(key)
        ended = asyncio.create_task(collect(one))
        await one.cancel()
        eq(await asyncio.wait_for(ended, PATIENCE / 2), [], "the cancelled one")
        await client.put(key, b"x")
        eq((await two.__aiter__().__anext__()).kv.value, b"x", "the other one")
        ended = asyncio.create_task(collect(await client.watch(key)))
    eq(await asyncio.wait_for(ended, PATIENCE / 2), [], "with the client")


async def collect(watch):
    return [event.kv.value async for event in watch]


@case("maintenance/status and members")
async def status():
    with Server() as server:
        async with connect(server) as client:
            await client.put(b"key", b"x")
            seen = await client.status()
            eq(seen.version, "3.7.1", "version")
            true(seen.db_size > 0 and seen.raft_index > 0 and seen.raft_term > 0, "a number is missing")
            (member,) = [member async for member in client.members()]
            eq(seen.leader.id, member.id, "leader")
            eq(list(member.client_urls), [server.endpoint], "client URLs")
            eq(list(member.peer_urls), [server.peer_endpoint], "peer URLs")


@case("maintenance/hash, compaction and defragmentation")
async def defragment():
    with Server() as server:
        async with connect(server) as client:
            for n in range(100):
                await client.put(b"key", b"%d" % n)
            first = await client.hash()
            await client.put(b"key", b"changed")
            true(await client.hash() != first, "the same hash after a change")
            await client.compact(102, physical=True)
            await client.defragment()
            got = await client.get(b"key")
            eq((got.value, got.version), (b"changed", 101), "afterwards")


@case("maintenance/alarms")
async def alarms():
    with Server() as server:
        async with connect(server) as client:
            await client.put(b"key", b"x")
            member = (await client.status()).leader.id
            eq([a async for a in client.list_alarms()], [], "at first")
            created = await client.create_alarm(member)
            eq([(a.alarm_type, a.member_id) for a in created], [(rpc.NOSPACE, member)], "created")
            eq([a.alarm_type async for a in client.list_alarms()], [rpc.NOSPACE], "listed")
            with refused(ClientError, "etcdserver: mvcc: database space exceeded"):
                await client.put(b"key", b"y")
            eq((await client.get(b"key")).value, b"x", "reads go on")
            eq([a.member_id for a in await client.disarm_alarm(member)], [member], "disarmed")
            await client.put(b"key", b"y")


@case("maintenance/a snapshot that etcdutl takes for good")
async def snapshot():
    with Server() as server, tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "snapshot.db")
        async with connect(server) as client:
            for n in range(50):
                await client.put(b"key%d" % n, b"x" * 1000)
            blob = io.BytesIO()
            await client.snapshot(blob)
        with open(path, "wb") as file:
            file.write(blob.getvalue())
        etcdutl = os.path.join(os.environ["KVIST_TOOLS"], "etcdutl")
        told = json.loads(subprocess.check_output([etcdutl, "snapshot", "status", path, "-w", "json"], text=True))
        eq((told["revision"], told["totalKey"] >= 50), (51, True), "revision and keys")
