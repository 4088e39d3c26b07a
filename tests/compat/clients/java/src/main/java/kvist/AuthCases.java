package kvist;

import static kvist.Check.b;
import static kvist.Check.eq;
import static kvist.Check.error;
import static kvist.Check.etcdError;
import static kvist.Check.get;
import static kvist.Check.refused;
import static kvist.Check.until;
import static kvist.Check.values;
import static kvist.Check.yes;

import io.etcd.jetcd.Auth;
import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.auth.AuthRoleGetResponse;
import io.etcd.jetcd.auth.Permission;
import io.etcd.jetcd.common.exception.ErrorCode;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.grpc.Status.Code;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/**
 * Users, roles and permissions. One server through its life: the cases build on each other, from making users to
 * disabling auth. A second server forgets tokens quickly.
 */
final class AuthCases {
    private static final String DENIED = "etcdserver: permission denied";

    private AuthCases() {
    }

    static void run(Tap tap, Control control) throws Exception {
        try (Server server = control.server();
            Client open = server.client();
            Client root = as(server, "root", "secret");
            Client alice = as(server, "alice", "wonder")) {
            tap.test("auth/users, roles and permissions", () -> prepare(open.getAuthClient()));
            tap.test("auth/users and roles that are there already, or not", () -> refusals(open.getAuthClient()));
            tap.test("auth/enabling", () -> enable(open, root));
            tap.test("auth/reading and writing by permission", () -> permissions(root, alice));
            tap.test("auth/transactions need all their permissions", () -> transactions(alice.getKVClient()));
            tap.test("auth/a watch needs permission", () -> watch(root, alice));
            tap.test("auth/a lease with keys of others", () -> leases(root, alice));
            tap.test("auth/managing users is for root", () -> managing(alice));
            tap.test("auth/a wrong password and an unknown user", () -> wrongPassword(server));
            tap.test("auth/rights change while a client is connected", () -> changes(root, alice));
            tap.test("auth/a changed password", () -> changePassword(server, root));
            tap.test("auth/clients log in again after a restart", () -> restart(server, root, alice));
            tap.test("auth/disabling", () -> disable(open, root));
        }
        try (Server server = control.server("--auth-token-ttl=1")) {
            tap.test("auth/clients log in again when their token expires", () -> expiry(server));
        }
    }

    private static Client as(Server server, String user, String password) {
        return server.builder().user(b(user)).password(b(password)).build();
    }

    private static CompletableFuture<?> grant(Auth auth, String role, String key, String end, Permission.Type type) {
        return auth.roleGrantPermission(b(role), b(key), end == null ? ByteSequence.EMPTY : b(end), type);
    }

    private static void prepare(Auth auth) throws Exception {
        get(auth.userAdd(b("root"), b("secret")));
        get(auth.userAdd(b("alice"), b("wonder")));
        get(auth.roleAdd(b("root")));
        get(auth.roleAdd(b("staff")));
        get(grant(auth, "staff", "shared/", "shared0", Permission.Type.READWRITE));
        get(grant(auth, "staff", "notice", null, Permission.Type.READ));
        get(auth.userGrantRole(b("root"), b("root")));
        get(auth.userGrantRole(b("alice"), b("staff")));
        eq(get(auth.userList()).getUsers(), List.of("alice", "root"), "users");
        eq(get(auth.roleList()).getRoles(), List.of("root", "staff"), "roles");
        eq(get(auth.userGet(b("alice"))).getRoles(), List.of("staff"), "alice's roles");
        AuthRoleGetResponse staff = get(auth.roleGet(b("staff")));
        List<String> told = staff.getPermissions().stream()
            .map(p -> p.getPermType() + " " + p.getKey() + " " + p.getRangeEnd()).toList();
        eq(told, List.of("READ notice ", "READWRITE shared/ shared0"), "the permissions of staff");
    }

    private static void refusals(Auth auth) throws Exception {
        refused(auth.userAdd(b("alice"), b("x")), Code.FAILED_PRECONDITION, "etcdserver: user name already exists");
        refused(auth.userAdd(ByteSequence.EMPTY, b("x")), Code.INVALID_ARGUMENT, "etcdserver: user name is empty");
        refused(auth.userGet(b("nobody")), Code.FAILED_PRECONDITION, "etcdserver: user name not found");
        refused(auth.userDelete(b("nobody")), Code.FAILED_PRECONDITION, "etcdserver: user name not found");
        refused(auth.roleAdd(b("staff")), Code.FAILED_PRECONDITION, "etcdserver: role name already exists");
        refused(auth.roleGet(b("nothing")), Code.FAILED_PRECONDITION, "etcdserver: role name not found");
        refused(auth.userGrantRole(b("alice"), b("nothing")), Code.FAILED_PRECONDITION, "etcdserver: role name not found");
        refused(auth.userRevokeRole(b("alice"), b("root")), Code.FAILED_PRECONDITION,
            "etcdserver: role is not granted to the user");
        refused(auth.roleRevokePermission(b("staff"), b("other"), ByteSequence.EMPTY), Code.FAILED_PRECONDITION,
            "etcdserver: permission is not granted to the role");
        // What comes, goes: a user, a role and a permission for a moment.
        get(auth.userAdd(b("guest"), b("x")));
        get(auth.roleAdd(b("passing")));
        get(grant(auth, "passing", "a", "b", Permission.Type.WRITE));
        get(auth.userGrantRole(b("guest"), b("passing")));
        get(auth.roleRevokePermission(b("passing"), b("a"), b("b")));
        eq(get(auth.roleGet(b("passing"))).getPermissions(), List.of(), "permissions");
        get(auth.userRevokeRole(b("guest"), b("passing")));
        eq(get(auth.userGet(b("guest"))).getRoles(), List.of(), "roles of the guest");
        get(auth.roleDelete(b("passing")));
        get(auth.userDelete(b("guest")));
        eq(get(auth.userList()).getUsers(), List.of("alice", "root"), "users");
    }

    private static void enable(Client open, Client root) throws Exception {
        get(open.getKVClient().put(b("secret"), b("v")));
        get(open.getAuthClient().authEnable());
        refused(open.getKVClient().get(b("secret")), Code.INVALID_ARGUMENT, "etcdserver: user name is empty");
        eq(values(get(root.getKVClient().get(b("secret"))).getKvs()), List.of("v"), "what root reads");
    }

    private static void permissions(Client rootClient, Client aliceClient) throws Exception {
        KV root = rootClient.getKVClient();
        KV alice = aliceClient.getKVClient();
        get(root.put(b("notice"), b("hello")));
        get(alice.put(b("shared/a"), b("1")));
        eq(values(get(alice.get(b("shared/"), GetOption.builder().isPrefix(true).build())).getKvs()), List.of("1"),
            "what alice reads");
        eq(values(get(alice.get(b("notice"))).getKvs()), List.of("hello"), "what alice may only read");
        refused(alice.put(b("notice"), b("mine")), Code.PERMISSION_DENIED, DENIED);
        refused(alice.get(b("secret")), Code.PERMISSION_DENIED, DENIED);
        refused(alice.get(b("shared/"), GetOption.builder().withRange(b("shared1")).build()), Code.PERMISSION_DENIED, DENIED);
        refused(alice.delete(b("s"), DeleteOption.builder().isPrefix(true).build()), Code.PERMISSION_DENIED, DENIED);
        eq(get(alice.delete(b("shared/a"))).getDeleted(), 1, "deleted by alice");
        eq(values(get(root.get(b("notice"))).getKvs()), List.of("hello"), "the notice");
    }

    private static void transactions(KV alice) throws Exception {
        Op fine = Op.put(b("shared/t"), b("v"), PutOption.DEFAULT);
        Op wrong = Op.put(b("notice"), b("v"), PutOption.DEFAULT);
        refused(alice.txn().Then(fine, wrong).commit(), Code.PERMISSION_DENIED, DENIED);
        // Also in the branch that is not taken.
        refused(alice.txn().Then(fine).Else(wrong).commit(), Code.PERMISSION_DENIED, DENIED);
        eq(get(alice.get(b("shared/t"))).getCount(), 0, "nothing was written");
        get(alice.txn().Then(fine, Op.get(b("notice"), GetOption.DEFAULT)).commit());
    }

    private static void watch(Client root, Client alice) throws Exception {
        try (Recorder recorder = Recorder.start(alice, b("shared/"), WatchOption.builder().isPrefix(true));
            // jetcd logs in again and tries again when a watch is denied, so it goes on being told.
            Recorder denied = Recorder.open(alice, b("secret"), WatchOption.builder())) {
            long revision = get(root.getKVClient().put(b("shared/w"), b("v"))).getHeader().getRevision();
            recorder.expect(List.of("PUT shared/w=v@" + revision));
            until("an error is told", () -> !denied.errors.isEmpty());
            etcdError(denied.errors.get(0), ErrorCode.CANCELLED,
                "rpc error: code = PermissionDenied desc = " + DENIED);
            get(root.getKVClient().put(b("secret"), b("w")));
            eq(denied.events(), List.of(), "events of what is denied");
        }
    }

    private static void leases(Client root, Client alice) throws Exception {
        long lease = get(root.getLeaseClient().grant(60)).getID();
        get(root.getKVClient().put(b("leased"), b("x"), PutOption.builder().withLeaseId(lease).build()));
        refused(alice.getLeaseClient().revoke(lease), Code.PERMISSION_DENIED, DENIED);
        long own = get(alice.getLeaseClient().grant(60)).getID();
        get(alice.getKVClient().put(b("shared/l"), b("x"), PutOption.builder().withLeaseId(own).build()));
        eq(get(alice.getLeaseClient().keepAliveOnce(own)).getTTL(), 60, "the TTL of alice's lease");
        get(alice.getLeaseClient().revoke(own));
        get(root.getLeaseClient().revoke(lease));
    }

    private static void managing(Client alice) throws Exception {
        Auth auth = alice.getAuthClient();
        refused(auth.userAdd(b("friend"), b("x")), Code.PERMISSION_DENIED, DENIED);
        refused(auth.roleList(), Code.PERMISSION_DENIED, DENIED);
        refused(auth.authDisable(), Code.PERMISSION_DENIED, DENIED);
        refused(alice.getKVClient().compact(1), Code.PERMISSION_DENIED, DENIED);
        eq(get(auth.userGet(b("alice"))).getRoles(), List.of("staff"), "one may look at oneself");
    }

    private static void wrongPassword(Server server) throws Exception {
        String text = "etcdserver: authentication failed, invalid user ID or password";
        for (String user : List.of("alice", "nobody")) {
            try (Client client = as(server, user, "wrong")) {
                // jetcd says Unauthenticated itself, and keeps the server's words as the cause.
                Throwable error = error(client.getKVClient().get(b("shared/a")));
                eq(io.grpc.Status.fromThrowable(error).getCode(), Code.UNAUTHENTICATED, "the code");
                yes(causes(error).contains(text), "the server's words, not " + causes(error));
            }
        }
    }

    private static String causes(Throwable error) {
        StringBuilder all = new StringBuilder();
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            all.append(cause.getMessage()).append("; ");
        }
        return all.toString();
    }

    private static void changes(Client root, Client alice) throws Exception {
        Auth auth = root.getAuthClient();
        refused(alice.getKVClient().get(b("late")), Code.PERMISSION_DENIED, DENIED);
        get(grant(auth, "staff", "late", null, Permission.Type.READWRITE));
        get(alice.getKVClient().put(b("late"), b("v")));
        get(auth.roleRevokePermission(b("staff"), b("late"), ByteSequence.EMPTY));
        refused(alice.getKVClient().get(b("late")), Code.PERMISSION_DENIED, DENIED);
    }

    private static void changePassword(Server server, Client root) throws Exception {
        get(root.getAuthClient().userAdd(b("bob"), b("one")));
        get(root.getAuthClient().userGrantRole(b("bob"), b("staff")));
        get(root.getAuthClient().userChangePassword(b("bob"), b("two")));
        try (Client old = as(server, "bob", "one"); Client now = as(server, "bob", "two")) {
            get(now.getKVClient().get(b("notice")));
            eq(io.grpc.Status.fromThrowable(error(old.getKVClient().get(b("notice")))).getCode(), Code.UNAUTHENTICATED,
                "the code with the old password");
        }
        get(root.getAuthClient().userDelete(b("bob")));
    }

    private static void restart(Server server, Client root, Client alice) throws Exception {
        get(alice.getKVClient().put(b("shared/r"), b("before")));
        server.kill();
        server.start();
        get(alice.getKVClient().put(b("shared/r"), b("after")));
        eq(values(get(root.getKVClient().get(b("shared/r"))).getKvs()), List.of("after"), "value");
        refused(alice.getKVClient().get(b("secret")), Code.PERMISSION_DENIED, DENIED);
    }

    private static void disable(Client open, Client root) throws Exception {
        get(root.getAuthClient().authDisable());
        eq(get(open.getKVClient().get(b("secret"))).getCount(), 1, "count");
        eq(get(open.getAuthClient().userList()).getUsers(), List.of("alice", "root"), "users are kept");
        // A client with a user goes on, with a token that nobody looks at.
        get(root.getKVClient().put(b("secret"), b("open")));
    }

    /** Calls with a pause between them that is longer than the life of a token. */
    private static void expiry(Server server) throws Exception {
        try (Client open = server.client()) {
            prepare(open.getAuthClient());
            get(open.getAuthClient().authEnable());
        }
        try (Client root = as(server, "root", "secret");
            Client alice = as(server, "alice", "wonder");
            Recorder recorder = Recorder.start(root, b("shared/"), WatchOption.builder().isPrefix(true))) {
            long first = get(alice.getKVClient().put(b("shared/e"), b("0"))).getHeader().getRevision();
            // Alice is idle while a lease of root's lives and dies: longer than her token does.
            long lease = get(root.getLeaseClient().grant(3)).getID();
            until("the lease has expired",
                () -> get(root.getLeaseClient().timeToLive(lease, LeaseOption.DEFAULT)).getTTL() < 0);
            get(alice.getKVClient().put(b("shared/e"), b("1")));
            recorder.expect(List.of("PUT shared/e=0@" + first, "PUT shared/e=1@" + (first + 1)));
        }
    }
}
