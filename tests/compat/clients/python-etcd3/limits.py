"""Large requests and answers, deadlines and cancellation, and maintenance."""

import io
import json
import os
import subprocess
import tempfile
import threading

import grpc
from etcd3 import etcdrpc
from etcd3.exceptions import ConnectionFailedError, ConnectionTimeoutError, WatchTimedOut

from cases import PATIENCE, Server, case, eq, fresh, raises, true, wait_until
from common import LARGE_ANSWERS, QUICK_RECONNECT, connect, refused


@case("large/a value of a mebibyte")
def mebibyte():
    client, key = connect(), fresh() + "key"
    value = os.urandom(1 << 20)
    events, cancel = client.watch(key)
    client.put(key, value)
    true(client.get(key)[0] == value, "another value came back")
    true(next(events).value == value, "another value was watched")
    cancel()


@case("large/a request above the limit")
def too_large():
    client, prefix = connect(), fresh()
    with refused("INVALID_ARGUMENT", "etcdserver: request is too large"):
        client.put(prefix + "key", b"x" * (1_600 << 10))
    with raises(grpc.RpcError) as seen:
        client.put(prefix + "key", b"x" * (8 << 20))
    eq(seen.error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED, "far above the limit")
    eq(client.get(prefix + "key"), (None, None), "nothing was written")


@case("large/ten thousand keys in one answer")
def many_keys():
    client, prefix = connect(), fresh()
    t = client.transactions
    for start in range(0, 10_000, 100):
        puts = [t.put(f"{prefix}{n:05}", f"value {n}") for n in range(start, start + 100)]
        client.transaction([], puts, [])
    seen = [(meta.key.decode(), value.decode()) for value, meta in client.get_prefix(prefix)]
    true(seen == [(f"{prefix}{n:05}", f"value {n}") for n in range(10_000)], "other keys or values came back")
    eq(client.delete_prefix(prefix).deleted, 10_000, "deleted")


@case("large/an answer above the client's limit, and with a larger one")
def large_answer():
    client, prefix = connect(), fresh()
    for n in range(6):
        client.put(f"{prefix}{n}", bytes([n]) * (1 << 20))
    with raises(grpc.RpcError) as seen:
        list(client.get_prefix(prefix))
    eq(seen.error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED, "with gRPC's 4 MiB")
    values = [value for value, _ in connect(grpc_options=LARGE_ANSWERS).get_prefix(prefix)]
    true(values == [bytes([n]) * (1 << 20) for n in range(6)], "other values came back")
    client.delete_prefix(prefix)


@case("cancel/a deadline passes while the server stands still")
def deadline():
    with Server() as server:
        client, patient = connect(server, timeout=0.5), connect(server)
        patient.put("key", "one")
        server.pause()
        for call in (lambda: client.get("key"), lambda: client.status(), lambda: client.lease(60)):
            with raises(ConnectionTimeoutError):
                call()
        with raises(WatchTimedOut):
            client.watch("key")
        server.resume()
        eq(patient.get("key")[0], b"one", "afterwards")
        wait_until(lambda: again(client), "the client with a deadline")


def again(client):
    try:
        return client.get("key")[0] == b"one"
    except ConnectionTimeoutError:
        return False


@case("cancel/no server there")
def no_server():
    with Server() as server:
        server.kill()
        client = connect(server, grpc_options=QUICK_RECONNECT)
        with raises(ConnectionFailedError):
            client.get("key")
        with raises(ConnectionFailedError):
            client.watch("key")
        server.start()
        wait_until(lambda: connected(client), "the connection after the start")


def connected(client):
    try:
        return client.get("key") == (None, None)
    except ConnectionFailedError:
        return False


@case("cancel/a cancelled watch ends its iterator, others go on")
def cancelled_watch():
    client, prefix = connect(), fresh()
    one, cancel_one = client.watch(prefix + "key")
    two, cancel_two = client.watch(prefix + "key")
    ended = threading.Event()
    threading.Thread(target=lambda: (list(one), ended.set()), daemon=True).start()
    cancel_one()
    true(ended.wait(PATIENCE / 2), "the iterator did not end")
    client.put(prefix + "key", "x")
    eq(next(two).value, b"x", "the other watch")
    cancel_two()
    # The stream is still good for a new watch.
    eq(client.watch_once(prefix + "key", timeout=10, start_revision=client.get(prefix + "key")[1].mod_revision).value, b"x")


@case("cancel/a call under way ends with the client")
def closed():
    with Server() as server:
        client = connect(server)
        client.put("key", "x")
        server.pause()
        call = client.kvstub.Range.future(etcdrpc.RangeRequest(key=b"key"))
        client.close()
        with raises((grpc.RpcError, grpc.FutureCancelledError)):
            call.result(timeout=PATIENCE / 2)
        with raises(ValueError):
            client.get("key")
        server.resume()


@case("maintenance/status and members")
def status():
    with Server() as server:
        client = connect(server)
        client.put("key", "x")
        seen = client.status()
        eq(seen.version, "3.7.1", "version")
        true(seen.db_size > 0 and seen.raft_index > 0 and seen.raft_term > 0, "a number is missing")
        (member,) = client.members
        eq(seen.leader.id, member.id, "leader")
        eq(list(member.client_urls), [server.endpoint], "client URLs")
        eq(list(member.peer_urls), [server.peer_endpoint], "peer URLs")
        eq(list(member.active_alarms), [], "alarms")


@case("maintenance/hash, compaction and defragmentation")
def defragment():
    with Server() as server:
        client = connect(server)
        for n in range(100):
            client.put("key", str(n))
        first = client.hash()
        true(first > 0, "no hash")
        client.put("key", "changed")
        true(client.hash() != first, "the same hash after a change")
        client.compact(client.get("key")[1].mod_revision, physical=True)
        client.defragment()
        value, meta = client.get("key")
        eq((value, meta.version), (b"changed", 101), "afterwards")


@case("maintenance/alarms")
def alarms():
    with Server() as server:
        client = connect(server)
        client.put("key", "x")
        eq(list(client.list_alarms()), [], "at first")
        member = next(client.members).id
        eq([(a.alarm_type, a.member_id) for a in client.create_alarm(member)], [(etcdrpc.NOSPACE, member)], "created")
        eq([(a.alarm_type, a.member_id) for a in client.list_alarms()], [(etcdrpc.NOSPACE, member)], "listed")
        with refused("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded"):
            client.put("key", "y")
        eq(client.get("key")[0], b"x", "reads go on")
        eq([a.member_id for a in client.disarm_alarm(member)], [member], "disarmed")
        client.put("key", "y")


@case("maintenance/a snapshot that etcdutl takes for good")
def snapshot():
    with Server() as server:
        client = connect(server)
        for n in range(50):
            client.put(f"key{n}", "x" * 1000)
        blob = io.BytesIO()
        client.snapshot(blob)
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "snapshot.db")
            with open(path, "wb") as file:
                file.write(blob.getvalue())
            etcdutl = os.path.join(os.environ["KVIST_TOOLS"], "etcdutl")
            told = subprocess.check_output([etcdutl, "snapshot", "status", path, "-w", "json"], text=True)
            told = json.loads(told)
            eq((told["revision"], told["totalKey"] >= 50), (51, True), "revision and keys")
            restored = os.path.join(directory, "restored")
            command = [etcdutl, "snapshot", "restore", path, "--data-dir", restored]
            subprocess.run(command, check=True, capture_output=True)
            true(os.path.exists(os.path.join(restored, "member", "snap", "db")), "no database after the restore")
