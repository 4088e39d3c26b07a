"""Users, TLS, large requests and answers, deadlines, and maintenance."""

import os
import threading
from base64 import b64encode

from etcd3gw.exceptions import ConnectionFailedError, ConnectionTimeoutError, Etcd3Exception

from cases import PATIENCE, Server, case, eq, fresh, raises, true
from common import connect, refused

# Codes of gRPC.
INVALID_ARGUMENT, PERMISSION_DENIED, UNAUTHENTICATED = 3, 7, 16


def auth(client, path, **body):
    return client.post(client.get_url(f"/auth/{path}"), json=body)


def enable(client):
    """Users root and reader: the latter may read `app/` and write `app/own`."""
    auth(client, "user/add", name="root", password="secret")
    auth(client, "role/add", name="root")
    auth(client, "user/grant", user="root", role="root")
    auth(client, "user/add", name="reader", password="pass")
    auth(client, "role/add", name="app")
    for kind, key, end in [("READ", b"app/", b"app0"), ("READWRITE", b"app/own", b"")]:
        perm = {"permType": kind, "key": b64encode(key).decode(), "range_end": b64encode(end).decode()}
        auth(client, "role/grant", name="app", perm=perm)
    auth(client, "user/grant", user="reader", role="app")
    auth(client, "enable")


def login(client, user, password):
    """Lets the client speak as a user."""
    client.session.headers.pop("Authorization", None)
    client.session.headers["Authorization"] = auth(client, "authenticate", name=user, password=password)["token"]
    return client


@case("auth/permissions of a user")
def permissions():
    with Server() as server:
        enable(connect(server))
        root, reader = login(connect(server), "root", "secret"), login(connect(server), "reader", "pass")
        root.put("app/one", "1")
        root.put("other", "2")
        eq(reader.get("app/one"), [b"1"], "a key of the range")
        events, cancel = reader.watch_prefix("app/")
        reader.put("app/own", "mine")
        eq(next(events)["kv"]["value"], b"mine", "event")
        cancel()
        for call in (
            lambda: reader.put("app/one", "x"),
            lambda: reader.get("other"),
            lambda: reader.get_all(),
            lambda: reader.delete_prefix("app/"),
            lambda: reader.replace("other", "2", "3"),
            lambda: auth(reader, "user/list"),
        ):
            with refused(PERMISSION_DENIED, "etcdserver: permission denied"):
                call()
        eq(root.get("other"), [b"2"], "what was not to be changed")


@case("auth/logins, calls without one, and ended tokens")
def logins():
    with Server() as server:
        enable(connect(server))
        for user, password in [("root", "wrong"), ("nobody", "secret")]:
            with refused(INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password"):
                login(connect(server), user, password)
        with refused(INVALID_ARGUMENT, "etcdserver: user name is empty"):
            connect(server).get("app/one")
        root, reader = login(connect(server), "root", "secret"), login(connect(server), "reader", "pass")
        eq(auth(root, "user/list")["users"], ["reader", "root"], "users")
        auth(root, "user/changepw", name="reader", password="new")
        with refused(UNAUTHENTICATED, "etcdserver: invalid auth token"):
            reader.get("app/one")
        eq(login(reader, "reader", "new").get("app/one"), [], "a new login")
        auth(root, "disable")
        eq(connect(server).put("app/one", "x"), True, "without users")


@case("tls/an authority of one's own, on both names of the server")
def authority():
    with Server(tls=True) as server:
        for host in ("127.0.0.1", "localhost"):
            server.host = host
            client = connect(server, protocol="https", ca_cert=server.ca)
            client.put("key", host)
            eq(client.get("key"), [host.encode()], host)
            revision = int(client.get("key", metadata=True)[0][1]["mod_revision"])
            eq(client.watch_once("key", timeout=PATIENCE, start_revision=revision)["kv"]["value"], host.encode(), "watch")


@case("tls/another authority is refused, and so is plain text")
def other_authority():
    with Server(tls=True) as server:
        # The client's own certificate is no authority.
        with raises(ConnectionFailedError):
            connect(server, protocol="https", ca_cert=server.cert).get("key")
        with raises(Etcd3Exception):
            connect(server).get("key")


@case("tls/a client certificate is needed where the server asks for one")
def client_certificate():
    with Server(tls=True, client_cert_auth=True) as server:
        client = connect(server, protocol="https", ca_cert=server.ca, cert_cert=server.cert, cert_key=server.key)
        client.put("key", "x")
        eq(client.get("key"), [b"x"], "with a certificate")
        with raises(ConnectionFailedError):
            connect(server, protocol="https", ca_cert=server.ca).get("key")


@case("large/a value of a mebibyte, and requests above the limit")
def large_values():
    client, key = connect(), fresh() + "key"
    value = os.urandom(1 << 20)
    client.put(key, value)
    true(client.get(key) == [value], "another value came back")
    with refused(INVALID_ARGUMENT, "etcdserver: request is too large"):
        client.put(key, b"x" * (1600 << 10))
    eq(client.get(key, metadata=True)[0][1]["version"], "1", "nothing was written")


@case("large/ten thousand keys in one answer")
def many_keys():
    client, prefix = connect(), fresh()
    for start in range(0, 10_000, 100):
        names = (f"{prefix}{n:05}".encode() for n in range(start, start + 100))
        puts = [{"request_put": {"key": b64encode(name).decode(), "value": b64encode(name).decode()}} for name in names]
        client.transaction({"success": puts})
    wanted = [f"{prefix}{n:05}".encode() for n in range(10_000)]
    true([value for value, _ in client.get_prefix(prefix)] == wanted, "other values came back")
    eq(client.delete_prefix(prefix), True, "delete")


@case("cancel/a deadline passes while the server stands still")
def deadline():
    with Server() as server:
        client = connect(server, timeout=0.5)
        connect(server).put("key", "one")
        server.pause()
        with raises(ConnectionTimeoutError):
            client.get("key")
        server.resume()
        eq(connect(server).get("key"), [b"one"], "afterwards")


@case("cancel/no server there, and back again")
def no_server():
    with Server() as server:
        client = connect(server)
        client.put("key", "x")
        server.kill()
        with raises(ConnectionFailedError):
            client.get("key")
        server.start()
        eq(client.get("key"), [b"x"], "after the start")


@case("cancel/a cancelled watch ends its iterator")
def cancelled_watch():
    client, key = connect(), fresh() + "key"
    events, cancel = client.watch(key)
    ended = threading.Event()
    threading.Thread(target=lambda: (list(events), ended.set()), daemon=True).start()
    cancel()
    true(ended.wait(PATIENCE / 2), "the iterator did not end")
    client.put(key, "x")
    eq(client.get(key), [b"x"], "the client goes on")


@case("maintenance/status and members")
def status():
    with Server() as server:
        client = connect(server)
        client.put("key", "x")
        told = client.status()
        eq(told["version"], "3.7.1", "version")
        true(int(told["dbSize"]) > 0 and int(told["raftIndex"]) > 0 and int(told["raftTerm"]) > 0, "a number is missing")
        (member,) = client.members()
        eq((member["ID"], member["clientURLs"]), (told["leader"], [server.endpoint]), "leader and URLs")
        eq(client.api_path, "/v3/", "the path that the client finds by the version")


@case("maintenance/hash, alarm and defragmentation by post")
def posts():
    with Server() as server:
        client = connect(server)
        client.put("key", "x")
        true(client.post(client.get_url("/maintenance/hash"), json={})["hash"] > 0, "no hash")
        eq(client.post(client.get_url("/maintenance/alarm"), json={"action": "GET"}).get("alarms", []), [], "alarms")
        client.post(client.get_url("/maintenance/defragment"), json={})
        eq(client.get("key"), [b"x"], "afterwards")
