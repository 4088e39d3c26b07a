"""Watches: iterators, callbacks, replay, and how an application goes on after a restart of the server."""

import queue
import threading

import grpc
from etcd3.events import DeleteEvent, PutEvent
from etcd3.exceptions import ConnectionFailedError, RevisionCompactedError, WatchTimedOut

from cases import PATIENCE, Server, case, eq, fresh, raises, true, wait_until
from common import QUICK_RECONNECT, connect


def take(events, count):
    return [next(events) for _ in range(count)]


def short(event):
    kind = {PutEvent: "put", DeleteEvent: "delete"}[type(event)]
    return (kind, event.key.decode(), event.value.decode())


@case("watch/from now on, until cancelled")
def from_now():
    client, prefix = connect(), fresh()
    client.put(prefix + "key", "before")
    events, cancel = client.watch(prefix + "key")
    put = client.put(prefix + "key", "one")
    client.put(prefix + "other", "not watched")
    client.delete(prefix + "key")
    first, second = take(events, 2)
    eq([short(first), short(second)], [("put", prefix + "key", "one"), ("delete", prefix + "key", "")], "events")
    eq((first.mod_revision, first.version), (put.header.revision, 2), "numbers of the put")
    eq((second.mod_revision, second.version), (put.header.revision + 2, 0), "numbers of the delete")
    cancel()
    eq(list(events), [], "events after the cancel")


@case("watch/replay from a revision, whole transactions at a time")
def replay():
    client, prefix = connect(), fresh()
    t = client.transactions
    first = client.put(prefix + "a", "1").header.revision
    client.transaction([], [t.put(prefix + "b", "2"), t.put(prefix + "c", "3"), t.delete(prefix + "a")], [])
    client.put(prefix + "a", "4")
    responses, cancel = client.watch_prefix_response(prefix, start_revision=first + 1)
    seen = []
    while len(seen) < 4:
        response = next(responses)
        true(response.header.revision >= first + 2, "the header is behind its events")
        seen += response.events
        # A revision is never torn: its events come in one response.
        eq(len({3, 4} & {len(seen)}), 1, "the transaction came in parts")
    cancel()
    wanted = [("put", "b", "2"), ("put", "c", "3"), ("delete", "a", ""), ("put", "a", "4")]
    eq([short(event) for event in seen], [(kind, prefix + key, value) for kind, key, value in wanted], "events")
    eq([event.mod_revision - first for event in seen], [1, 1, 1, 2], "revisions")


@case("watch/previous pairs")
def previous():
    client, prefix = connect(), fresh()
    events, cancel = client.watch_prefix(prefix, prev_kv=True)
    without, cancel_without = client.watch_prefix(prefix)
    client.put(prefix + "key", "one")
    client.put(prefix + "key", "two")
    client.delete(prefix + "key")
    seen = [(type(event), event.prev_value, event.prev_version) for event in take(events, 3)]
    eq(seen, [(PutEvent, b"", 0), (PutEvent, b"one", 1), (DeleteEvent, b"two", 2)], "events")
    eq([event.prev_value for event in take(without, 3)], [b""] * 3, "without being asked for")
    cancel()
    cancel_without()


@case("watch/sixty watches on one stream")
def many():
    client, prefix = connect(), fresh()
    seen, lock = {n: [] for n in range(60)}, threading.Lock()

    def callback(n):
        def add(response):
            with lock:
                seen[n] += [event.value for event in response.events]

        return add

    ids = [client.add_watch_callback(f"{prefix}{n:02}", callback(n)) for n in range(60)]
    eq(len(set(ids)), 60, "ids")
    for n in range(30):
        client.cancel_watch(ids[n])
    last, end = client.watch(prefix + "end")
    for n in range(60):
        client.put(f"{prefix}{n:02}", str(n))
    client.put(prefix + "end", "x")
    take(last, 1)
    end()
    wait_until(lambda: all(seen[n] for n in range(30, 60)), "an event for each watch")
    eq(seen, {n: [] if n < 30 else [str(n).encode()] for n in range(60)}, "events of each")


@case("watch/a prefix once, and in vain")
def once():
    client, prefix = connect(), fresh()
    with raises(WatchTimedOut):
        client.watch_once(prefix + "key", timeout=0.2)
    revision = client.put(prefix + "key", "one").header.revision
    event = client.watch_prefix_once(prefix, timeout=PATIENCE, start_revision=revision)
    eq(short(event), ("put", prefix + "key", "one"))
    response = client.watch_once_response(prefix + "key", timeout=PATIENCE, start_revision=revision)
    eq([event.value for event in response.events], [b"one"], "the response")


@case("watch/progress of an idle watch")
def progress():
    with Server("--watch-progress-notify-interval=200ms") as server:
        client = connect(server)
        responses, cancel = client.watch_response("idle", progress_notify=True)
        revision = client.put("other", "x").header.revision
        response = next(r for r in responses if r.header.revision >= revision)
        eq((response.events, response.header.revision), ([], revision), "progress")
        client.put("idle", "x")
        event = next(r for r in responses if r.events).events[0]
        eq(event.mod_revision, revision + 1, "an event after progress")
        cancel()


@case("watch/a compacted start tells the compact revision")
def compacted():
    with Server() as server:
        client = connect(server)
        revisions = [client.put("key", str(n)).header.revision for n in range(4)]
        client.compact(revisions[2])
        events, _ = client.watch("key", start_revision=revisions[0])
        with raises(RevisionCompactedError) as seen:
            next(events)
        eq(seen.error.compacted_revision, revisions[2], "compact revision")
        events, cancel = client.watch("key", start_revision=revisions[2])
        eq([event.value for event in take(events, 2)], [b"2", b"3"], "from the compact revision on")
        cancel()


def follow(server, prefix, revision, seen, done):
    """What an application does that has read up to a revision: after a broken stream it watches again, from the next one."""
    client = connect(server, grpc_options=QUICK_RECONNECT)
    while not done.is_set():
        try:
            events, _ = client.watch_prefix(prefix, start_revision=revision + 1)
            for event in events:
                revision = event.mod_revision
                seen.put((event.key.decode(), event.value.decode()))
        except (ConnectionFailedError, grpc.RpcError):
            pass


def write(client, key, value):
    """A put by a client whose connection may have to come back first."""

    def attempt():
        try:
            return client.put(key, value)
        except ConnectionFailedError:
            return None

    wait_until(attempt, f"put of {key}")


@case("reconnect/by the application, across SIGKILL and SIGTERM, each event once")
def reconnect():
    with Server() as server:
        client = connect(server, grpc_options=QUICK_RECONNECT)
        seen, done = queue.Queue(), threading.Event()
        revision = client.get_prefix_response("r/").header.revision
        threading.Thread(target=follow, args=(server, "r/", revision, seen, done), daemon=True).start()
        wanted = []
        for end in (server.kill, server.stop, None):
            for _ in range(40):
                wanted.append((f"r/{len(wanted):03}", str(len(wanted))))
                write(client, *wanted[-1])
            if end:
                end()
                server.start()
        # An event that came twice, or too late, would stand before the last one.
        wanted.append(("r/last", "x"))
        write(client, *wanted[-1])
        eq([seen.get(timeout=PATIENCE / 2) for _ in wanted], wanted, "events")
        done.set()
        write(client, "r/last", "y")
        eq(seen.get(timeout=PATIENCE / 2), ("r/last", "y"), "the event after all")
