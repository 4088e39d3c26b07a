"""Leases and locks."""

import asyncio

from aetcd import ClientError, DuplicateLeaseError

from cases import PATIENCE, Server, case, eq, fresh, raises, true, wait_until_async
from common import connect, refused

UNKNOWN = (ClientError, "etcdserver: requested lease not found")


@case("lease/grant, what it holds, and revoke")
async def grant():
    async with connect() as client:
        prefix = fresh().encode()
        lease = await client.lease(60)
        for name in (b"a", b"b", b"c"):
            await client.put(prefix + name, name, lease=lease)
        await client.put(prefix + b"c", b"without a lease")
        eq((lease.ttl, await lease.granted_ttl()), (60, 60), "ttl")
        eq(sorted(await lease.keys()), [prefix + b"a", prefix + b"b"], "keys")
        true(1 <= await lease.remaining_ttl() <= 60, "remaining ttl")
        answer = await lease.refresh()
        eq((answer.ID, answer.TTL), (lease.id, 60), "refresh")
        eq((await client.get(prefix + b"a")).lease, lease.id, "lease of a key")
        await lease.revoke()
        eq([kv.key for kv in await client.get_prefix(prefix)], [prefix + b"c"], "what is left")
        eq(await lease.remaining_ttl(), -1, "after the revoke")
        eq((await lease.refresh()).TTL, 0, "refresh after the revoke")
        with refused(*UNKNOWN):
            await lease.revoke()


@case("lease/an id of one's own, and what is refused")
async def own_id():
    async with connect() as client:
        lease = await client.lease(60, lease_id=0xAE7CD)
        eq(lease.id, 0xAE7CD, "id")
        with raises(DuplicateLeaseError):
            await client.lease(60, lease_id=0xAE7CD)
        with refused(ClientError, "etcdserver: too large lease TTL"):
            await client.lease(9_000_000_001)
        await lease.revoke()


@case("lease/expiry deletes the keys; refreshing prevents it")
async def expiry():
    async with connect() as client:
        prefix = fresh().encode()
        kept, left = await client.lease(4), await client.lease(2)
        await client.put(prefix + b"kept", b"x", lease=kept)
        await client.put(prefix + b"left", b"x", lease=left)
        watch = (await client.watch_prefix(prefix)).__aiter__()

        async def keep():
            while True:
                eq((await kept.refresh()).TTL, 4, "ttl after a refresh")
                await asyncio.sleep(0.3)

        keeper = asyncio.create_task(keep())
        eq((await watch.__anext__()).kv.key, prefix + b"left", "the first to expire")
        eq((await client.get(prefix + b"kept")).value, b"x", "the refreshed one")
        keeper.cancel()
        eq((await watch.__anext__()).kv.key, prefix + b"kept", "the second to expire")


@case("lease/leases and their keys outlive a restart")
async def restart():
    with Server() as server:
        async with connect(server) as client:
            lease = await client.lease(600)
            await client.put(b"key", b"x", lease=lease)
        server.kill()
        server.start()
        async with connect(server) as client:
            info = await client.get_lease_info(lease.id)
            eq((info.grantedTTL, list(info.keys)), (600, [b"key"]), "the lease")
            await client.revoke_lease(lease.id)
            eq(await client.get(b"key"), None, "its key after the revoke")


@case("lock/excludes another client until it is released")
async def exclusion():
    async with connect() as first, connect() as second:
        key = fresh().encode() + b"lock"
        one, two = first.lock(key, ttl=60), second.lock(key, ttl=60)
        eq(await one.acquire(), True, "the first")
        eq((await one.is_acquired(), await two.is_acquired()), (True, False), "who has it")
        eq(await two.acquire(timeout=0.3), False, "the second while it is held")
        eq(await two.release(), False, "a release of another's lock")
        eq((await one.refresh()).TTL, 60, "refresh")
        waiting = asyncio.create_task(two.acquire(timeout=PATIENCE / 2))
        eq((await asyncio.wait([waiting], timeout=0.3))[0], set(), "taken while it was held")
        eq(await one.release(), True, "release")
        eq(await waiting, True, "the second afterwards")
        eq(await second.get(key) is not None, True, "its key")
        await two.release()


@case("lock/ends with the lease of a holder that is gone")
async def dead_holder():
    async with connect() as first, connect() as second:
        key = fresh().encode() + b"lock"
        held, lock = first.lock(key, ttl=2), second.lock(key, ttl=60)
        await held.acquire()
        # Nobody refreshes the holder's lease; the waiting one gets the lock in the end.
        await wait_until_async(lambda: lock.acquire(timeout=1), "the lock after its lease has ended")
        eq((await held.is_acquired(), await lock.is_acquired()), (False, True), "who has it")
        await lock.release()


@case("lock/ten tasks count without losing a step")
async def counting():
    async with connect() as client:
        prefix = fresh().encode()
        await client.put(prefix + b"counter", b"0")

        async def count():
            for _ in range(2):
                async with client.lock(prefix + b"lock", ttl=60) as lock:
                    eq(await lock.is_acquired(), True, "acquired")
                    seen = int((await client.get(prefix + b"counter")).value)
                    await client.put(prefix + b"counter", b"%d" % (seen + 1))

        await asyncio.gather(*(count() for _ in range(10)))
        eq((await client.get(prefix + b"counter")).value, b"20")
