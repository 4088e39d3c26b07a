"""Leases and locks."""

import threading

from etcd3gw.exceptions import Etcd3Exception

from cases import Server, case, eq, fresh, raises, true, wait_until
from common import connect, refused

NOT_FOUND = 5


@case("lease/grant, what it holds, and revoke")
def grant():
    client, prefix = connect(), fresh()
    lease = client.lease(60)
    for name in "ab":
        client.put(prefix + name, name, lease=lease)
    eq(client.create(prefix + "c", "c", lease=lease), True, "create")
    client.put(prefix + "c", "without a lease")
    eq(sorted(lease.keys()), [(prefix + name).encode() for name in "ab"], "keys")
    true(1 <= lease.ttl() <= 60, "ttl")
    eq(lease.refresh(), 60, "ttl after a refresh")
    eq(client.get(prefix + "a", metadata=True)[0][1]["lease"], str(lease.id), "lease of a key")
    eq(lease.revoke(), True, "revoke")
    eq([value for value, _ in client.get_prefix(prefix)], [b"without a lease"], "what is left")
    eq((lease.ttl(), lease.refresh()), (-1, -1), "ttl afterwards")
    with refused(NOT_FOUND, "etcdserver: requested lease not found"):
        lease.revoke()
    with refused(NOT_FOUND, "etcdserver: requested lease not found"):
        client.put(prefix + "a", "x", lease=lease)


@case("lease/expiry deletes the keys; refreshing prevents it")
def expiry():
    client, prefix = connect(), fresh()
    kept, left = client.lease(4), client.lease(2)
    client.put(prefix + "kept", "x", lease=kept)
    client.put(prefix + "left", "x", lease=left)
    events, cancel = client.watch_prefix(prefix)
    done = threading.Event()

    def keep():
        while not done.wait(0.3):
            kept.refresh()

    threading.Thread(target=keep, daemon=True).start()
    eq(next(events)["kv"]["key"], (prefix + "left").encode(), "the first to expire")
    eq(client.get(prefix + "kept"), [b"x"], "the refreshed one")
    done.set()
    eq(next(events)["kv"]["key"], (prefix + "kept").encode(), "the second to expire")
    cancel()


@case("lease/leases and their keys outlive a restart")
def restart():
    with Server() as server:
        client = connect(server)
        lease = client.lease(600)
        client.put("key", "x", lease=lease)
        server.kill()
        server.start()
        eq(lease.keys(), [b"key"], "its keys")
        lease.revoke()
        eq(client.get("key"), [], "its key after the revoke")


@case("lock/excludes another client until it is released")
def exclusion():
    name = fresh() + "lock"
    one, two = connect().lock(name, ttl=60), connect().lock(name, ttl=60)
    eq((one.acquire(), two.acquire()), (True, False), "who gets it")
    eq((one.is_acquired(), two.is_acquired()), (True, False), "who has it")
    eq(two.release(), False, "a release of another's lock")
    eq(one.refresh(), 60, "refresh")
    eq((one.release(), two.acquire(), two.release()), (True, True, True), "the second afterwards")
    with raises(Etcd3Exception):
        connect().lock(name).refresh()


@case("lock/ends with the lease of a holder that is gone")
def dead_holder():
    name = fresh() + "lock"
    held, lock = connect().lock(name, ttl=2), connect().lock(name, ttl=60)
    held.acquire()
    wait_until(lock.acquire, "the lock after its lease has ended")
    eq((held.is_acquired(), lock.is_acquired()), (False, True), "who has it")
    lock.release()


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
                wait_until(lock.acquire, "the lock")
                client.put(prefix + "counter", str(int(client.get(prefix + "counter")[0]) + 1))
                eq(lock.release(), True, "release")
        except Exception as e:  # noqa: BLE001 - told below
            errors.append(e)

    threads = [threading.Thread(target=count, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eq(errors, [], "errors")
    eq(connect().get(prefix + "counter"), [b"20"])
