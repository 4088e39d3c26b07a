"""Leases and locks."""

import threading

from etcd3.exceptions import PreconditionFailedError

from cases import PATIENCE, Server, case, eq, fresh, raises, true, wait_until
from common import connect, refused

UNKNOWN = ("NOT_FOUND", "etcdserver: requested lease not found")


@case("lease/grant, what it holds, and revoke")
def grant():
    client, prefix = connect(), fresh()
    lease = client.lease(60)
    eq(lease.ttl, 60, "ttl")
    for name in "ab":
        client.put(prefix + name, name, lease=lease)
    client.put(prefix + "c", "c", lease=lease.id)
    client.put(prefix + "c", "c")
    eq((lease.granted_ttl, sorted(lease.keys)), (60, [(prefix + n).encode() for n in "ab"]), "what it holds")
    true(1 <= lease.remaining_ttl <= 60, f"remaining ttl {lease.remaining_ttl}")
    eq(client.get(prefix + "a")[1].lease_id, lease.id, "lease of a key")
    before = client.get(prefix + "a")[1].response_header.revision
    lease.revoke()
    left = list(client.get_prefix(prefix))
    eq([value for value, _ in left], [b"c"], "what is left")
    eq(left[0][1].response_header.revision, before + 1, "one revision for all keys")
    eq((lease.remaining_ttl, lease.granted_ttl), (-1, 0), "after the revoke")


@case("lease/an id of one's own, and what is refused")
def own_id():
    client = connect()
    lease = client.lease(60, lease_id=0x7E57)
    eq(lease.id, 0x7E57, "id")
    with refused("FAILED_PRECONDITION", "etcdserver: lease already exists", PreconditionFailedError):
        client.lease(60, lease_id=0x7E57)
    with refused("OUT_OF_RANGE", "etcdserver: too large lease TTL"):
        client.lease(9_000_000_001)
    lease.revoke()
    with refused(*UNKNOWN):
        lease.revoke()
    with refused(*UNKNOWN):
        client.put(fresh() + "key", "x", lease=lease)
    eq([(r.ID, r.TTL) for r in lease.refresh()], [(0x7E57, 0)], "refresh of a lease that is gone")


@case("lease/expiry deletes the keys; refreshing prevents it")
def expiry():
    client, prefix = connect(), fresh()
    kept, left = client.lease(4), client.lease(2)
    client.put(prefix + "kept", "x", lease=kept)
    client.put(prefix + "left", "x", lease=left)
    events, cancel = client.watch_prefix(prefix)
    gone = threading.Event()

    def keep():
        while not gone.wait(0.3):
            eq([r.TTL for r in kept.refresh()], [4], "ttl after a refresh")

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    event = next(events)
    eq(event.key, (prefix + "left").encode(), "the first to expire")
    eq(client.get(prefix + "kept")[0], b"x", "the refreshed one")
    gone.set()
    keeper.join()
    event = next(events)
    eq(event.key, (prefix + "kept").encode(), "the second to expire")
    cancel()


@case("lease/leases and their keys outlive a restart")
def restart():
    with Server() as server:
        client = connect(server)
        lease = client.lease(600)
        client.put("key", "x", lease=lease)
        server.kill()
        server.start()
        client = connect(server)
        info = wait_until(lambda: client.get_lease_info(lease.id), "the lease")
        eq((info.grantedTTL, list(info.keys)), (600, [b"key"]), "the lease")
        client.revoke_lease(lease.id)
        eq(client.get("key"), (None, None), "its key after the revoke")


@case("lock/excludes another client until it is released")
def exclusion():
    name = fresh() + "lock"
    one, two = connect().lock(name, ttl=60), connect().lock(name, ttl=60)
    eq(one.acquire(timeout=PATIENCE), True, "the first")
    eq((one.is_acquired(), two.is_acquired()), (True, False), "who has it")
    eq(two.acquire(timeout=0.3), False, "the second while it is held")
    eq(two.release(), False, "a release of another's lock")
    eq(one.is_acquired(), True, "still held")
    eq([r.TTL for r in one.refresh()], [60], "refresh")
    eq(one.release(), True, "release")
    eq(two.acquire(timeout=PATIENCE), True, "the second afterwards")
    eq(two.release(), True, "release of the second")
    with raises(ValueError):
        connect().lock(name).refresh()


@case("lock/one that waits gets it on release, and when the lease ends")
def waiting():
    name = fresh() + "lock"
    # The client looks for the release only once its watch stands; a short wait repeated covers the gap between.
    holder, waiter = connect().lock(name, ttl=60), connect().lock(name, ttl=60)
    holder.acquire()
    got = threading.Event()

    def wait():
        while not waiter.acquire(timeout=1):
            pass
        got.set()

    threading.Thread(target=wait, daemon=True).start()
    eq(got.wait(0.3), False, "taken while it was held")
    holder.release()
    eq(got.wait(PATIENCE / 2), True, "taken after the release")
    waiter.release()
    # A holder that dies: nobody refreshes its lease.
    holder = connect().lock(name, ttl=2)
    holder.acquire()
    wait_until(lambda: waiter.acquire(timeout=1), "the lock after its lease has ended")
    eq((holder.is_acquired(), waiter.is_acquired()), (False, True), "who has it")
    waiter.release()


@case("lock/four clients count without losing a step")
def counting():
    prefix = fresh()
    connect().put(prefix + "counter", "0")
    errors = []

    def count():
        try:
            client = connect()
            for _ in range(5):
                lock = client.lock(prefix + "lock", ttl=60)
                wait_until(lambda: lock.acquire(timeout=0.2), "the lock")
                value = int(client.get(prefix + "counter")[0])
                client.put(prefix + "counter", str(value + 1))
                eq(lock.release(), True, "release")
        except Exception as e:  # noqa: BLE001 - told below
            errors.append(e)

    threads = [threading.Thread(target=count, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eq(errors, [], "errors")
    eq(connect().get(prefix + "counter")[0], b"20")
