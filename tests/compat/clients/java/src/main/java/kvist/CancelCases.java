package kvist;

import static kvist.Check.b;
import static kvist.Check.eq;
import static kvist.Check.error;
import static kvist.Check.get;
import static kvist.Check.until;
import static kvist.Check.yes;

import io.etcd.jetcd.Client;
import io.etcd.jetcd.common.exception.ClosedClientException;
import io.etcd.jetcd.lock.LockResponse;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.WatchOption;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.Status.Code;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/** Deadlines, and what clients give up. */
final class CancelCases {
    private static final String WATCHERS = "etcd_debugging_mvcc_watcher_total";

    private CancelCases() {
    }

    static void run(Tap tap, Control control) throws Exception {
        try (Server server = control.server()) {
            tap.test("cancel/deadlines on a server that stands still", () -> deadlines(server));
            tap.test("cancel/a deadline ends waiting for a lock, and the place in the queue", () -> lockDeadline(server));
            tap.test("cancel/a closed watcher is gone at the server", () -> watchers(server));
            tap.test("cancel/a closed client leaves no watchers", () -> clientWatchers(server));
            tap.test("cancel/a closed client leaves the queue of a lock", () -> clientLock(server));
            tap.test("cancel/a closed client fails its calls", () -> closed(server));
        }
    }

    /** A client of which every unary call has this deadline; jetcd has one of its own for granting leases alone. */
    private static Client withDeadline(Server server, long millis) {
        return server.builder().interceptor(new ClientInterceptor() {
            @Override
            public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
                boolean unary = method.getType() == MethodDescriptor.MethodType.UNARY;
                return next.newCall(method,
                    unary ? options.withDeadlineAfter(millis, TimeUnit.MILLISECONDS) : options);
            }
        }).build();
    }

    private static void exceeded(CompletableFuture<?> call) throws Exception {
        Status status = Status.fromThrowable(error(call));
        eq(status.getCode(), Code.DEADLINE_EXCEEDED, "the code");
    }

    /** Puts until it is done within the deadline: a busy machine may take longer, above all to connect. */
    private static void inTime(Client client, String value) throws Exception {
        until("the server answers in time", () -> {
            try {
                client.getKVClient().put(b("d1"), b(value)).get(Check.WAIT_SECS, TimeUnit.SECONDS);
                return true;
            } catch (ExecutionException e) {
                return false;
            }
        });
    }

    private static void deadlines(Server server) throws Exception {
        try (Client client = withDeadline(server, 500); Client patient = server.client()) {
            get(patient.getKVClient().put(b("d1"), b("v")));
            inTime(client, "v");
            server.pause();
            try {
                exceeded(client.getKVClient().get(b("d1")));
                exceeded(client.getKVClient().put(b("d1"), b("w")));
                exceeded(client.getKVClient().txn().commit());
                exceeded(patient.getLeaseClient().grant(5, 500, TimeUnit.MILLISECONDS));
            } finally {
                server.resume();
            }
            // The connection still works, and so does a call with a deadline.
            inTime(client, "x");
            eq(get(patient.getKVClient().get(b("d1"))).getKvs().get(0).getValue(), b("x"), "value");
        }
    }

    private static long queue(Client client, String name) throws Exception {
        return get(client.getKVClient().get(b(name + "/"),
            GetOption.builder().isPrefix(true).withCountOnly(true).build())).getCount();
    }

    private static void lockDeadline(Server server) throws Exception {
        try (Client holder = server.client(); Client hasty = withDeadline(server, 3000)) {
            long lease = get(holder.getLeaseClient().grant(60)).getID();
            long other = get(holder.getLeaseClient().grant(60)).getID();
            LockResponse held = get(holder.getLockClient().lock(b("d2"), lease));
            CompletableFuture<LockResponse> waiting = hasty.getLockClient().lock(b("d2"), other);
            until("the second is queued", () -> queue(holder, "d2") == 2);
            exceeded(waiting);
            until("the second has left the queue", () -> queue(holder, "d2") == 1);
            get(holder.getLockClient().unlock(held.getKey()));
            eq(queue(holder, "d2"), 0, "the queue");
        }
    }

    private static void watchers(Server server) throws Exception {
        long before = server.metric(WATCHERS);
        try (Client client = server.client()) {
            List<Recorder> recorders = new ArrayList<>();
            for (int i = 0; i < 10; i++) {
                recorders.add(Recorder.start(client, b("d3"), WatchOption.builder()));
            }
            eq(server.metric(WATCHERS), before + 10, "watchers");
            for (Recorder recorder : recorders.subList(0, 7)) {
                recorder.close();
            }
            until("three watchers are left", () -> server.metric(WATCHERS) == before + 3);
            long revision = get(client.getKVClient().put(b("d3"), b("v"))).getHeader().getRevision();
            recorders.get(9).expect(List.of("PUT d3=v@" + revision));
            eq(recorders.get(0).events(), List.of(), "events of a closed watcher");
        }
    }

    private static void clientWatchers(Server server) throws Exception {
        until("no watchers are left of earlier cases", () -> server.metric(WATCHERS) == 0);
        Client client = server.client();
        Recorder recorder = Recorder.start(client, b("d4"), WatchOption.builder());
        eq(server.metric(WATCHERS), 1, "watchers");
        client.close();
        yes(recorder.completed.await(Check.WAIT_SECS, TimeUnit.SECONDS), "the listener hears of the end");
        until("the server has no watchers", () -> server.metric(WATCHERS) == 0);
    }

    private static void clientLock(Server server) throws Exception {
        try (Client holder = server.client()) {
            long lease = get(holder.getLeaseClient().grant(60)).getID();
            long other = get(holder.getLeaseClient().grant(60)).getID();
            get(holder.getLockClient().lock(b("d5"), lease));
            Client second = server.client();
            second.getLockClient().lock(b("d5"), other);
            until("the second is queued", () -> queue(holder, "d5") == 2);
            second.close();
            until("the second has left the queue", () -> queue(holder, "d5") == 1);
            get(holder.getLeaseClient().revoke(lease));
        }
    }

    private static void closed(Server server) throws Exception {
        Client client = server.client();
        get(client.getKVClient().put(b("d6"), b("v")));
        var watch = client.getWatchClient();
        var lease = client.getLeaseClient();
        client.close();
        error(client.getKVClient().get(b("d6")));
        try {
            watch.watch(b("d6"), response -> {
            });
            throw new AssertionError("a closed client watches");
        } catch (ClosedClientException e) {
            eq(e.getMessage(), "Watch Client has been closed", "the text");
        }
        try {
            lease.keepAlive(1, new LeaseCases.Renewals());
            throw new AssertionError("a closed client keeps leases alive");
        } catch (ClosedClientException e) {
            eq(e.getMessage(), "Lease Client has been closed", "the text");
        }
    }
}
