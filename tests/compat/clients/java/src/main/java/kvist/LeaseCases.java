package kvist;

import static kvist.Check.b;
import static kvist.Check.eq;
import static kvist.Check.error;
import static kvist.Check.etcdError;
import static kvist.Check.get;
import static kvist.Check.keys;
import static kvist.Check.refused;
import static kvist.Check.until;
import static kvist.Check.yes;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.Lease;
import io.etcd.jetcd.common.exception.ErrorCode;
import io.etcd.jetcd.lease.LeaseGrantResponse;
import io.etcd.jetcd.lease.LeaseKeepAliveResponse;
import io.etcd.jetcd.lease.LeaseTimeToLiveResponse;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.support.CloseableClient;
import io.grpc.Status.Code;
import io.grpc.stub.StreamObserver;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** Leases, with both ways of jetcd to keep them alive. */
final class LeaseCases {
    private static final String NOT_FOUND = "etcdserver: requested lease not found";

    private LeaseCases() {
    }

    static void run(Tap tap, Server server) throws Exception {
        try (Client client = server.client()) {
            tap.test("lease/grant and time to live", () -> grant(client));
            tap.test("lease/a TTL that is too large is refused", () -> tooLarge(client));
            tap.test("lease/attached keys, and revoke deletes them at one revision", () -> revoke(client));
            tap.test("lease/an unknown lease", () -> unknown(client));
            tap.test("lease/expiry deletes the keys", () -> expiry(client));
            tap.test("lease/keep-alive once", () -> keepAliveOnce(client));
            tap.test("lease/keep-alive in the background outlives the TTL", () -> keepAlive(client));
            tap.test("lease/keep-alive hears that its lease is gone", () -> keepAliveLost(client));
        }
    }

    /** Keeps what a keep-alive was told. */
    static final class Renewals implements StreamObserver<LeaseKeepAliveResponse> {
        final List<LeaseKeepAliveResponse> answers = new CopyOnWriteArrayList<>();
        final List<Throwable> errors = new CopyOnWriteArrayList<>();
        final CountDownLatch completed = new CountDownLatch(1);

        @Override
        public void onNext(LeaseKeepAliveResponse answer) {
            answers.add(answer);
        }

        @Override
        public void onError(Throwable error) {
            errors.add(error);
        }

        @Override
        public void onCompleted() {
            completed.countDown();
        }
    }

    private static void putWith(KV kv, String key, long lease) throws Exception {
        get(kv.put(b(key), b("v"), PutOption.builder().withLeaseId(lease).build()));
    }

    private static void grant(Client client) throws Exception {
        Lease leases = client.getLeaseClient();
        LeaseGrantResponse one = get(leases.grant(50));
        LeaseGrantResponse two = get(leases.grant(60, 5, TimeUnit.SECONDS));
        yes(one.getID() > 0 && two.getID() > 0 && one.getID() != two.getID(), "two ids above zero");
        eq(one.getTTL(), 50, "the TTL that was granted");
        LeaseTimeToLiveResponse left = get(leases.timeToLive(two.getID(), LeaseOption.DEFAULT));
        eq(left.getID(), two.getID(), "id");
        eq(left.getGrantedTTL(), 60, "the TTL that was granted");
        yes(left.getTTL() >= 30 && left.getTTL() <= 60, "what is left of 60 s, not " + left.getTTL());
        eq(left.getKeys(), List.of(), "keys that nobody asked for");
        get(leases.revoke(one.getID()));
        get(leases.revoke(two.getID()));
    }

    private static void tooLarge(Client client) throws Exception {
        refused(client.getLeaseClient().grant(9_000_000_001L), Code.OUT_OF_RANGE, "etcdserver: too large lease TTL");
    }

    private static void revoke(Client client) throws Exception {
        KV kv = client.getKVClient();
        Lease leases = client.getLeaseClient();
        long lease = get(leases.grant(100)).getID();
        putWith(kv, "l2-b", lease);
        putWith(kv, "l2-a", lease);
        long before = get(kv.put(b("l2-free"), b("v"))).getHeader().getRevision();
        LeaseOption withKeys = LeaseOption.builder().withAttachedKeys().build();
        List<ByteSequence> attached = get(leases.timeToLive(lease, withKeys)).getKeys();
        eq(attached.stream().map(ByteSequence::toString).sorted().toList(), List.of("l2-a", "l2-b"), "attached keys");
        try (Recorder recorder = Recorder.start(client, b("l2-"), WatchOption.builder().isPrefix(true))) {
            get(leases.revoke(lease));
            recorder.expect(List.of("DELETE l2-a@" + (before + 1), "DELETE l2-b@" + (before + 1)));
        }
        eq(keys(get(kv.get(b("l2-"), GetOption.builder().isPrefix(true).build())).getKvs()), List.of("l2-free"), "left");
        eq(get(leases.timeToLive(lease, withKeys)).getTTL(), -1, "the TTL of a lease that is gone");
    }

    private static void unknown(Client client) throws Exception {
        Lease leases = client.getLeaseClient();
        refused(leases.revoke(0x7abcdefL), Code.NOT_FOUND, NOT_FOUND);
        LeaseTimeToLiveResponse answer = get(leases.timeToLive(0x7abcdefL, LeaseOption.DEFAULT));
        eq(answer.getTTL(), -1, "TTL");
        eq(answer.getGrantedTTL(), 0, "the TTL that was granted");
        etcdError(error(leases.keepAliveOnce(0x7abcdefL)), ErrorCode.NOT_FOUND, NOT_FOUND);
    }

    private static void expiry(Client client) throws Exception {
        KV kv = client.getKVClient();
        LeaseGrantResponse lease = get(client.getLeaseClient().grant(2));
        eq(lease.getTTL(), 2, "the TTL that was granted");
        try (Recorder recorder = Recorder.start(client, b("l4"), WatchOption.builder().withPrevKV(true))) {
            putWith(kv, "l4", lease.getID());
            until("the key is deleted", () -> recorder.events().size() >= 2);
            long put = recorder.events().get(0).getKeyValue().getModRevision();
            recorder.expect(List.of("PUT l4=v@" + put, "DELETE l4@" + (put + 1)));
            eq(recorder.events().get(1).getPrevKV().getLease(), lease.getID(), "the lease of the pair before");
        }
        eq(get(kv.get(b("l4"))).getCount(), 0, "count");
    }

    private static void keepAliveOnce(Client client) throws Exception {
        Lease leases = client.getLeaseClient();
        long lease = get(leases.grant(30)).getID();
        LeaseKeepAliveResponse answer = get(leases.keepAliveOnce(lease));
        eq(answer.getID(), lease, "id");
        eq(answer.getTTL(), 30, "TTL");
        get(leases.revoke(lease));
    }

    private static void keepAlive(Client client) throws Exception {
        KV kv = client.getKVClient();
        Lease leases = client.getLeaseClient();
        long lease = get(leases.grant(4)).getID();
        putWith(kv, "l6", lease);
        Renewals renewals = new Renewals();
        // jetcd renews when a third of the TTL has passed: from the first renewal to the fifth it is more than the TTL.
        CloseableClient keeper = leases.keepAlive(lease, renewals);
        until("there are five renewals", () -> renewals.answers.size() >= 5);
        eq(get(kv.get(b("l6"))).getCount(), 1, "the key is there");
        for (LeaseKeepAliveResponse answer : renewals.answers) {
            eq(answer.getID() == lease ? answer.getTTL() : -1, 4, "the TTL of each renewal");
        }
        keeper.close();
        until("the key goes when nobody renews", () -> get(kv.get(b("l6"))).getCount() == 0);
        eq(renewals.errors, List.of(), "errors");
    }

    private static void keepAliveLost(Client client) throws Exception {
        Lease leases = client.getLeaseClient();
        long lease = get(leases.grant(3)).getID();
        Renewals renewals = new Renewals();
        try (CloseableClient keeper = leases.keepAlive(lease, renewals)) {
            until("there is a renewal", () -> !renewals.answers.isEmpty());
            get(leases.revoke(lease));
            until("an error is told", () -> !renewals.errors.isEmpty());
            etcdError(renewals.errors.get(0), ErrorCode.NOT_FOUND, NOT_FOUND);
        }
    }
}
