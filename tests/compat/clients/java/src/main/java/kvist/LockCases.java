package kvist;

import static kvist.Check.b;
import static kvist.Check.eq;
import static kvist.Check.get;
import static kvist.Check.refused;
import static kvist.Check.until;
import static kvist.Check.yes;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.Lock;
import io.etcd.jetcd.lock.LockResponse;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.GetOption.SortTarget;
import io.grpc.Status.Code;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** The lock service. */
final class LockCases {
    private LockCases() {
    }

    static void run(Tap tap, Server server) throws Exception {
        try (Client one = server.client(); Client two = server.client()) {
            tap.test("lock/a lock is a key with its lease", () -> key(one));
            tap.test("lock/the second session waits for the first", () -> exclusion(one, two));
            tap.test("lock/handed on when the holder's lease expires", () -> expiry(one, two));
            tap.test("lock/granted in the order of arrival", () -> order(one, two));
            tap.test("lock/one session locks twice", () -> twice(one));
            tap.test("lock/an unknown lease is refused", () -> unknownLease(one));
            tap.test("lock/a counter behind a lock", () -> counter(server, one));
            tap.test("lock/a namespace", () -> namespace(server, one));
        }
    }

    private static long lease(Client client, long ttl) throws Exception {
        return get(client.getLeaseClient().grant(ttl)).getID();
    }

    private static List<KeyValue> below(Client client, String name) throws Exception {
        return get(client.getKVClient().get(b(name + "/"), GetOption.builder().isPrefix(true)
            .withSortField(SortTarget.CREATE).build())).getKvs();
    }

    /** The key of a lock: its name and the lease in hexadecimal. */
    private static String ownKey(String name, long lease) {
        return name + "/" + Long.toHexString(lease);
    }

    private static void key(Client client) throws Exception {
        long lease = lease(client, 60);
        LockResponse locked = get(client.getLockClient().lock(b("k1"), lease));
        eq(locked.getKey().toString(), ownKey("k1", lease), "the lock's key");
        KeyValue pair = below(client, "k1").get(0);
        eq(pair.getLease(), lease, "the lease of the key");
        eq(pair.getValue(), ByteSequence.EMPTY, "the value of the key");
        get(client.getLockClient().unlock(locked.getKey()));
        eq(below(client, "k1"), List.of(), "keys after unlocking");
        // Unlocking what is not locked is no error.
        get(client.getLockClient().unlock(locked.getKey()));
        get(client.getLeaseClient().revoke(lease));
    }

    private static void exclusion(Client one, Client two) throws Exception {
        long leaseOne = lease(one, 60);
        long leaseTwo = lease(two, 60);
        LockResponse held = get(one.getLockClient().lock(b("k2"), leaseOne));
        CompletableFuture<LockResponse> waiting = two.getLockClient().lock(b("k2"), leaseTwo);
        until("the second is queued", () -> below(one, "k2").size() == 2);
        yes(!waiting.isDone(), "the second waits");
        get(one.getLockClient().unlock(held.getKey()));
        eq(get(waiting).getKey().toString(), ownKey("k2", leaseTwo), "the key of the second");
        eq(below(one, "k2").size(), 1, "keys below the lock");
        get(two.getLeaseClient().revoke(leaseTwo));
        eq(below(one, "k2").size(), 0, "keys after the lease is revoked");
        get(one.getLeaseClient().revoke(leaseOne));
    }

    private static void expiry(Client one, Client two) throws Exception {
        long shortLease = lease(one, 2);
        long leaseTwo = lease(two, 60);
        get(one.getLockClient().lock(b("k3"), shortLease));
        LockResponse taken = get(two.getLockClient().lock(b("k3"), leaseTwo));
        eq(taken.getKey().toString(), ownKey("k3", leaseTwo), "the key of the second");
        List<KeyValue> left = below(one, "k3");
        eq(left.size(), 1, "keys below the lock");
        eq(left.get(0).getLease(), leaseTwo, "whose lock it is");
        get(two.getLeaseClient().revoke(leaseTwo));
    }

    private static void order(Client one, Client two) throws Exception {
        List<Long> leases = new ArrayList<>();
        List<CompletableFuture<LockResponse>> locks = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            Client client = i % 2 == 0 ? one : two;
            leases.add(lease(client, 60));
            locks.add(client.getLockClient().lock(b("k4"), leases.get(i)));
            int queued = i + 1;
            until("number " + i + " is queued", () -> below(one, "k4").size() == queued);
        }
        for (int i = 0; i < 4; i++) {
            get(locks.get(i));
            for (int later = i + 1; later < 4; later++) {
                yes(!locks.get(later).isDone(), "number " + later + " waits for number " + i);
            }
            get(one.getLeaseClient().revoke(leases.get(i)));
        }
    }

    private static void twice(Client client) throws Exception {
        long lease = lease(client, 60);
        LockResponse first = get(client.getLockClient().lock(b("k5"), lease));
        LockResponse again = get(client.getLockClient().lock(b("k5"), lease));
        eq(again.getKey(), first.getKey(), "the key of the second lock");
        get(client.getLeaseClient().revoke(lease));
    }

    private static void unknownLease(Client client) throws Exception {
        // The lock service passes on the text of the lease's refusal, without its code.
        refused(client.getLockClient().lock(b("k6"), 0x7654321L), Code.UNKNOWN,
            "etcdserver: requested lease not found");
        eq(below(client, "k6"), List.of(), "keys below the lock");
    }

    private static void counter(Server server, Client reader) throws Exception {
        get(reader.getKVClient().put(b("k7-counter"), b("0")));
        List<CompletableFuture<Void>> workers = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            workers.add(CompletableFuture.runAsync(() -> {
                try (Client client = server.client()) {
                    work(client);
                } catch (Exception e) {
                    throw new IllegalStateException(e);
                }
            }, task -> new Thread(task, "locker").start()));
        }
        for (CompletableFuture<Void> worker : workers) {
            get(worker);
        }
        eq(get(reader.getKVClient().get(b("k7-counter"))).getKvs().get(0).getValue(), b("30"), "the counter");
    }

    /** Adds 1 ten times, by a read and a blind write that only the lock protects. */
    private static void work(Client client) throws Exception {
        KV kv = client.getKVClient();
        Lock locks = client.getLockClient();
        long lease = lease(client, 60);
        for (int n = 0; n < 10; n++) {
            ByteSequence held = get(locks.lock(b("k7"), lease)).getKey();
            int value = Integer.parseInt(get(kv.get(b("k7-counter"))).getKvs().get(0).getValue().toString());
            get(kv.put(b("k7-counter"), b(String.valueOf(value + 1))));
            get(locks.unlock(held));
        }
        get(client.getLeaseClient().revoke(lease));
    }

    private static void namespace(Server server, Client plain) throws Exception {
        try (Client client = server.builder().namespace(b("k8/")).build()) {
            long lease = lease(client, 60);
            LockResponse locked = get(client.getLockClient().lock(b("a"), lease));
            eq(locked.getKey().toString(), ownKey("a", lease), "the key inside");
            eq(below(plain, "k8").get(0).getKey().toString(), "k8/" + ownKey("a", lease), "the key outside");
            get(client.getLockClient().unlock(locked.getKey()));
            eq(below(plain, "k8"), List.of(), "keys after unlocking");
            get(client.getLeaseClient().revoke(lease));
        }
    }
}
