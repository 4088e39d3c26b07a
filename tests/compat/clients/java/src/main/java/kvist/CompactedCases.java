package kvist;

import static kvist.Check.b;
import static kvist.Check.eq;
import static kvist.Check.get;
import static kvist.Check.refused;
import static kvist.Check.until;
import static kvist.Check.values;
import static kvist.Check.yes;

import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.common.exception.CompactedException;
import io.etcd.jetcd.common.exception.ErrorCode;
import io.etcd.jetcd.options.CompactOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.WatchOption;
import io.grpc.Status.Code;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Compaction, and what it does to reads and watchers. On a server of its own, since it concerns all keys. */
final class CompactedCases {
    private static final String COMPACTED = "etcdserver: mvcc: required revision has been compacted";

    private CompactedCases() {
    }

    static void run(Tap tap, Control control) throws Exception {
        try (Server server = control.server(); Client client = server.client()) {
            tap.test("kv/compaction, and reads below it", () -> reads(client.getKVClient()));
            tap.test("watch/a compacted start tells the compact revision", () -> watch(client));
        }
    }

    /** Six values of one key, of which the first four are compacted; returns the compacted revision. */
    private static long compacted(KV kv, String key, CompactOption option) throws Exception {
        long first = get(kv.put(b(key), b("1"))).getHeader().getRevision();
        for (int i = 2; i <= 6; i++) {
            get(kv.put(b(key), b(String.valueOf(i))));
        }
        get(kv.compact(first + 4, option));
        return first + 4;
    }

    private static GetOption at(long revision) {
        return GetOption.builder().withRevision(revision).build();
    }

    private static void reads(KV kv) throws Exception {
        long compacted = compacted(kv, "c1", CompactOption.builder().withCompactPhysical(true).build());
        eq(values(get(kv.get(b("c1"), at(compacted))).getKvs()), List.of("5"), "the value at the compacted revision");
        eq(values(get(kv.get(b("c1"))).getKvs()), List.of("6"), "the value now");
        refused(kv.get(b("c1"), at(compacted - 1)), Code.OUT_OF_RANGE, COMPACTED);
        refused(kv.compact(compacted), Code.OUT_OF_RANGE, COMPACTED);
        refused(kv.compact(compacted + 100), Code.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision is a future revision");
    }

    private static void watch(Client client) throws Exception {
        long compacted = compacted(client.getKVClient(), "c2", CompactOption.DEFAULT);
        Recorder refused = Recorder.open(client, b("c2"), WatchOption.builder().withRevision(compacted - 3));
        yes(refused.completed.await(Check.WAIT_SECS, TimeUnit.SECONDS), "the watcher ends");
        until("an error is told", () -> !refused.errors.isEmpty());
        Check.etcdError(refused.errors.get(0), ErrorCode.OUT_OF_RANGE, COMPACTED);
        yes(refused.errors.get(0) instanceof CompactedException, "a CompactedException");
        CompactedException error = (CompactedException) refused.errors.get(0);
        eq(error.getCompactedRevision(), compacted, "the compact revision");
        eq(refused.events(), List.of(), "events");
        // What a client does next: it begins at the revision that it was told.
        try (Recorder recorder = Recorder.start(client, b("c2"),
            WatchOption.builder().withRevision(error.getCompactedRevision()))) {
            recorder.expect(List.of("PUT c2=5@" + compacted, "PUT c2=6@" + (compacted + 1)));
        }
    }
}
