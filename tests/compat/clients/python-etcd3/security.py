"""Users, roles and TLS.

Users log in over TLS: the client sends its token as credentials of gRPC, which no gRPC of a Python of today lets through on
a plain connection.
"""

import etcd3
import grpc
from etcd3 import etcdrpc
from etcd3.etcdrpc.auth_pb2 import Permission
from etcd3.exceptions import ConnectionFailedError

from cases import Server, case, eq, raises
from common import QUICK_RECONNECT, connect, refused

WRONG = ("INVALID_ARGUMENT", "etcdserver: authentication failed, invalid user ID or password")
DENIED = ("PERMISSION_DENIED", "etcdserver: permission denied")
NO_USER = ("INVALID_ARGUMENT", "etcdserver: user name is empty")
INVALID_TOKEN = ("UNAUTHENTICATED", "etcdserver: invalid auth token")


class Auth:
    """The calls for users and roles that the client lacks, by its generated messages on its connection."""

    def __init__(self, client):
        self._stub, self._metadata = etcdrpc.AuthStub(client.channel), client.metadata

    def __getattr__(self, call):
        # AuthEnable takes an AuthEnableRequest, and UserAdd an AuthUserAddRequest.
        request = getattr(etcdrpc, f"Auth{call.removeprefix('Auth')}Request")
        stub = getattr(self._stub, call)
        return lambda **fields: stub(request(**fields), metadata=self._metadata)

    def allow(self, role, kind, key, range_end=b""):
        perm = Permission(permType=kind, key=key, range_end=range_end)
        self.RoleGrantPermission(name=role, perm=perm)


def plain(server):
    """A client without a user, over TLS."""
    return connect(server, ca_cert=server.ca, grpc_options=QUICK_RECONNECT)


def login(server, user, password):
    return connect(server, ca_cert=server.ca, user=user, password=password, grpc_options=QUICK_RECONNECT)


def enable(server):
    """Users root and reader: the latter may read `app/` and write `app/own`. Returns root's client."""
    auth = Auth(plain(server))
    auth.UserAdd(name="root", password="secret")
    auth.RoleAdd(name="root")
    auth.UserGrantRole(user="root", role="root")
    auth.UserAdd(name="reader", password="pass")
    auth.RoleAdd(name="app")
    auth.allow("app", Permission.READ, b"app/", b"app0")
    auth.allow("app", Permission.READWRITE, b"app/own")
    auth.UserGrantRole(user="reader", role="app")
    auth.AuthEnable()
    return login(server, "root", "secret")


@case("auth/permissions of a user")
def permissions():
    with Server(tls=True) as server:
        root = enable(server)
        root.put("app/one", "1")
        root.put("other", "2")
        reader = login(server, "reader", "pass")
        eq(reader.get("app/one")[0], b"1", "a key of the range")
        eq([value for value, _ in reader.get_prefix("app/")], [b"1"], "the range")
        reader.put("app/own", "mine")
        eq(reader.delete("app/own"), True, "delete of its own key")
        for call in (
            lambda: reader.put("app/one", "x"),
            lambda: reader.get("other"),
            lambda: list(reader.get_prefix("ap")),
            lambda: list(reader.get_all()),
            lambda: reader.delete_prefix("app/"),
            lambda: reader.replace("other", "2", "3"),
            lambda: reader.transaction([], [reader.transactions.put("app/own", "x"), reader.transactions.get("other")], []),
        ):
            with refused(*DENIED):
                call()
        with refused(*DENIED):
            Auth(reader).UserList()
        eq(root.get("app/own"), (None, None), "the refused transaction")


@case("auth/logins, and calls without one")
def logins():
    with Server(tls=True) as server:
        root = enable(server)
        for user, password in [("root", "wrong"), ("nobody", "secret"), ("reader", "")]:
            with refused(*WRONG):
                login(server, user, password)
        anonymous = plain(server)
        with refused(*NO_USER):
            anonymous.get("app/one")
        with refused(*NO_USER):
            anonymous.put("app/one", "x")
        with raises(Exception) as seen:
            etcd3.client(host=server.host, port=server.port, user="root")
        eq("both user and password" in str(seen.error), True, "a user without a password")
        Auth(root).UserChangePassword(name="reader", password="new")
        with refused(*WRONG):
            login(server, "reader", "pass")
        eq(login(server, "reader", "new").get("app/one"), (None, None), "the new password")


@case("auth/users and roles")
def users_and_roles():
    with Server(tls=True) as server:
        auth = Auth(enable(server))
        eq(list(auth.UserList().users), ["reader", "root"], "users")
        eq(list(auth.RoleList().roles), ["app", "root"], "roles")
        eq(list(auth.UserGet(name="reader").roles), ["app"], "roles of a user")
        perms = [(p.permType, p.key, p.range_end) for p in auth.RoleGet(role="app").perm]
        eq(perms, [(Permission.READ, b"app/", b"app0"), (Permission.READWRITE, b"app/own", b"")], "permissions of a role")
        with refused("FAILED_PRECONDITION", "etcdserver: user name already exists"):
            auth.UserAdd(name="reader", password="x")
        with refused("FAILED_PRECONDITION", "etcdserver: user name not found"):
            auth.UserGet(name="nobody")
        with refused("FAILED_PRECONDITION", "etcdserver: role name already exists"):
            auth.RoleAdd(name="app")
        with refused("FAILED_PRECONDITION", "etcdserver: role name not found"):
            auth.RoleGet(role="none")
        auth.UserRevokeRole(name="reader", role="app")
        with refused(*DENIED):
            login(server, "reader", "pass").get("app/one")
        auth.RoleDelete(role="app")
        auth.UserDelete(name="reader")
        eq((list(auth.UserList().users), list(auth.RoleList().roles)), (["root"], ["root"]), "what is left")
        auth.AuthDisable()
        plain(server).put("app/one", "x")
        eq(plain(server).get("app/one")[0], b"x", "without users")


@case("auth/a token ends with the password; a new client logs in again")
def ended_token():
    with Server(tls=True) as server:
        root = enable(server)
        reader = login(server, "reader", "pass")
        eq(reader.get("app/one"), (None, None), "before")
        Auth(root).UserChangePassword(name="reader", password="new")
        with refused(*INVALID_TOKEN):
            reader.get("app/one")
        eq(login(server, "reader", "new").get("app/one"), (None, None), "a new login")


@case("auth/a watch sees what its user may read")
def watches():
    with Server(tls=True) as server:
        root = enable(server)
        reader = login(server, "reader", "pass")
        events, cancel = reader.watch_prefix("app/")
        root.put("other", "x")
        root.put("app/one", "1")
        event = next(events)
        eq((event.key, event.value), (b"app/one", b"1"), "event")
        cancel()


@case("tls/an authority of one's own, on both names of the server")
def authority():
    with Server(tls=True) as server:
        for host in ("127.0.0.1", "localhost"):
            client = etcd3.client(host=host, port=server.port, ca_cert=server.ca)
            revision = client.put("key", host).header.revision
            eq(client.get("key")[0], host.encode(), host)
            eq(client.watch_once("key", timeout=30, start_revision=revision).value, host.encode(), "watch")


@case("tls/a client certificate is needed where the server asks for one")
def client_certificate():
    with Server(tls=True, client_cert_auth=True) as server:
        client = connect(server, ca_cert=server.ca, cert_cert=server.cert, cert_key=server.key)
        client.put("key", "x")
        eq(client.get("key")[0], b"x", "with a certificate")
        with raises(ConnectionFailedError):
            connect(server, ca_cert=server.ca, timeout=30, grpc_options=QUICK_RECONNECT).get("key")


@case("tls/another authority is refused, and so is plain text")
def refusals():
    with Server(tls=True) as server:
        # The client's own certificate is no authority.
        with raises(ConnectionFailedError):
            connect(server, ca_cert=server.cert, timeout=30, grpc_options=QUICK_RECONNECT).get("key")
        with raises(ConnectionFailedError):
            connect(server, timeout=30, grpc_options=QUICK_RECONNECT).get("key")
