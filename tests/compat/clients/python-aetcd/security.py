"""Users and roles."""

import asyncio

from aetcd import ClientError, InvalidArgumentError, rpc
from aetcd.exceptions import UnauthenticatedError

from cases import Server, case, eq, raises, wait_until_async
from common import QUICK_RECONNECT, connect, refused

WRONG = (InvalidArgumentError, "etcdserver: authentication failed, invalid user ID or password")
DENIED = (ClientError, "etcdserver: permission denied")
NO_USER = (InvalidArgumentError, "etcdserver: user name is empty")


class Auth:
    """The calls for users and roles that the client lacks, by its generated messages on its connection."""

    def __init__(self, client):
        self._stub, self._metadata = rpc.AuthStub(client.channel), client.metadata

    def __getattr__(self, call):
        # AuthEnable takes an AuthEnableRequest, and UserAdd an AuthUserAddRequest.
        request = getattr(rpc, f"Auth{call.removeprefix('Auth')}Request")
        stub = getattr(self._stub, call)
        return lambda **fields: stub(request(**fields), metadata=self._metadata)

    async def allow(self, role, kind, key, range_end=b""):
        perm = rpc.Permission(permType=kind, key=key, range_end=range_end)
        await self.RoleGrantPermission(name=role, perm=perm)


async def enable(server):
    """Users root and reader: the latter may read `app/` and write `app/own`."""
    async with connect(server) as client:
        auth = Auth(client)
        await auth.UserAdd(name="root", password="secret")
        await auth.RoleAdd(name="root")
        await auth.UserGrantRole(user="root", role="root")
        await auth.UserAdd(name="reader", password="pass")
        await auth.RoleAdd(name="app")
        await auth.allow("app", rpc.Permission.READ, b"app/", b"app0")
        await auth.allow("app", rpc.Permission.READWRITE, b"app/own")
        await auth.UserGrantRole(user="reader", role="app")
        await auth.AuthEnable()


def login(server, username="root", password="secret"):
    return connect(server, username=username, password=password, options=QUICK_RECONNECT)


@case("auth/permissions of a user")
async def permissions():
    with Server() as server:
        await enable(server)
        async with login(server) as root, login(server, "reader", "pass") as reader:
            await root.put(b"app/one", b"1")
            await root.put(b"other", b"2")
            eq((await reader.get(b"app/one")).value, b"1", "a key of the range")
            eq((await reader.get_prefix(b"app/")).count, 1, "the range")
            watch = await reader.watch_prefix(b"app/")
            await reader.put(b"app/own", b"mine")
            async for event in watch:
                eq((event.kv.key, event.kv.value), (b"app/own", b"mine"), "event")
                break
            t = reader.transactions
            for call in (
                reader.put(b"app/one", b"x"),
                reader.get(b"other"),
                reader.get_prefix(b"ap"),
                reader.get_all(),
                reader.delete_prefix(b"app/"),
                reader.replace(b"other", b"2", b"3"),
                reader.transaction([], [t.put(b"app/own", b"x"), t.get(b"other")], []),
            ):
                with refused(*DENIED):
                    await call
            eq((await root.get(b"app/own")).value, b"mine", "the refused transaction")


@case("auth/logins, and calls without one")
async def logins():
    with Server() as server:
        await enable(server)
        for user, password in [("root", "wrong"), ("nobody", "secret")]:
            with refused(*WRONG):
                await login(server, user, password).connect()
        async with connect(server) as anonymous:
            with refused(*NO_USER):
                await anonymous.get(b"app/one")
            with refused(*NO_USER):
                await anonymous.put(b"app/one", b"x")


@case("auth/users and roles")
async def users_and_roles():
    with Server() as server:
        await enable(server)
        async with login(server) as root:
            auth = Auth(root)
            eq(list((await auth.UserList()).users), ["reader", "root"], "users")
            eq(list((await auth.UserGet(name="reader")).roles), ["app"], "roles of a user")
            perms = [(p.permType, p.key, p.range_end) for p in (await auth.RoleGet(role="app")).perm]
            wanted = [(rpc.Permission.READ, b"app/", b"app0"), (rpc.Permission.READWRITE, b"app/own", b"")]
            eq(perms, wanted, "permissions of a role")
            with raises(rpc.AioRpcError) as seen:
                await auth.UserAdd(name="reader", password="x")
            eq(seen.error.details(), "etcdserver: user name already exists", "text")
            await auth.UserRevokeRole(name="reader", role="app")
            async with login(server, "reader", "pass") as reader:
                with refused(*DENIED):
                    await reader.get(b"app/one")
            await auth.AuthDisable()
        async with connect(server) as client:
            await client.put(b"app/one", b"x")
            eq((await client.get(b"app/one")).value, b"x", "without users")


@case("auth/an expired token is refused; a new login works")
async def expired():
    with Server("--auth-token-ttl=2") as server:
        await enable(server)
        client = login(server)
        await client.put(b"key", b"x")
        pause = 1

        async def refused_now():
            # The token lives on as long as it is used, so the pauses grow.
            nonlocal pause
            pause *= 1.5
            await asyncio.sleep(pause)
            try:
                eq((await client.get(b"key")).value, b"x", "with the token")
                return None
            except UnauthenticatedError as e:
                return e

        error = await wait_until_async(refused_now, "the end of the token")
        eq(str(error), "etcdserver: invalid auth token", "text")
        # The same client logs in when it connects again.
        await client.close()
        eq((await client.get(b"key")).value, b"x", "after a new connection")
        await client.close()
