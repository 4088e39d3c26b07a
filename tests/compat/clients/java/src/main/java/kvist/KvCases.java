package kvist;

import static kvist.Check.b;
import static kvist.Check.eq;
import static kvist.Check.get;
import static kvist.Check.keys;
import static kvist.Check.refused;
import static kvist.Check.values;
import static kvist.Check.yes;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.kv.DeleteResponse;
import io.etcd.jetcd.kv.GetResponse;
import io.etcd.jetcd.kv.PutResponse;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.GetOption.SortOrder;
import io.etcd.jetcd.options.GetOption.SortTarget;
import io.etcd.jetcd.options.PutOption;
import io.grpc.Status.Code;
import java.util.List;
import java.util.Map;

/** Put, get and delete, in all forms that jetcd has. Each case has keys of its own. */
final class KvCases {
    /** As a range end, this stands for the end of all keys. */
    private static final ByteSequence END = ByteSequence.from(new byte[] {0});

    private KvCases() {
    }

    static void run(Tap tap, Server server) throws Exception {
        try (Client client = server.client()) {
            KV kv = client.getKVClient();
            tap.test("kv/put and get", () -> putAndGet(kv));
            tap.test("kv/a key that is not there", () -> missing(kv));
            tap.test("kv/any bytes in key and value", () -> anyBytes(kv));
            tap.test("kv/ranges: prefix, end, from a key on", () -> ranges(kv));
            tap.test("kv/limit, more and count", () -> limit(kv));
            tap.test("kv/sorted by every target, both ways", () -> sorted(kv));
            tap.test("kv/count only and keys only", () -> countAndKeys(kv));
            tap.test("kv/an old revision, linearizable and serializable", () -> oldRevision(kv));
            tap.test("kv/bounds of create and mod revisions", () -> bounds(kv));
            tap.test("kv/put with the previous pair", () -> previousPair(kv));
            tap.test("kv/put with a lease, and with an unknown one", () -> leases(client));
            tap.test("kv/delete a key, a range, a prefix", () -> deletes(kv));
            tap.test("kv/delete with previous pairs", () -> deletePrevious(kv));
            tap.test("kv/an empty key is refused", () -> emptyKey(kv));
            tap.test("kv/a namespace", () -> namespace(server, kv));
        }
    }

    private static void putAndGet(KV kv) throws Exception {
        PutResponse first = get(kv.put(b("kv1"), b("a")));
        long revision = first.getHeader().getRevision();
        yes(!first.hasPrevKv(), "no previous pair that nobody asked for");
        eq(get(kv.put(b("kv1"), b("b"))).getHeader().getRevision(), revision + 1, "the second revision");
        GetResponse answer = get(kv.get(b("kv1")));
        eq(answer.getHeader().getRevision(), revision + 1, "the header's revision");
        eq(answer.getCount(), 1, "count");
        eq(answer.isMore(), false, "more");
        KeyValue pair = answer.getKvs().get(0);
        eq(pair.getKey(), b("kv1"), "key");
        eq(pair.getValue(), b("b"), "value");
        eq(pair.getCreateRevision(), revision, "create revision");
        eq(pair.getModRevision(), revision + 1, "mod revision");
        eq(pair.getVersion(), 2, "version");
        eq(pair.getLease(), 0, "lease");
        yes(answer.getHeader().getClusterId() != 0 && answer.getHeader().getMemberId() != 0, "ids in the header");
        yes(answer.getHeader().getRaftTerm() > 0, "a term in the header");
    }

    private static void missing(KV kv) throws Exception {
        GetResponse answer = get(kv.get(b("kv2-nothing")));
        eq(answer.getKvs(), List.of(), "pairs");
        eq(answer.getCount(), 0, "count");
        long revision = answer.getHeader().getRevision();
        DeleteResponse gone = get(kv.delete(b("kv2-nothing")));
        eq(gone.getDeleted(), 0, "deleted");
        eq(gone.getHeader().getRevision(), revision, "the revision after deleting nothing");
    }

    private static void anyBytes(KV kv) throws Exception {
        byte[] all = new byte[256];
        for (int i = 0; i < all.length; i++) {
            all[i] = (byte) i;
        }
        ByteSequence key = b("kv3").concat(ByteSequence.from(all));
        get(kv.put(key, ByteSequence.from(all)));
        KeyValue pair = get(kv.get(key)).getKvs().get(0);
        eq(pair.getKey(), key, "key");
        eq(pair.getValue(), ByteSequence.from(all), "value");
        get(kv.put(b("kv3-empty"), ByteSequence.EMPTY));
        eq(get(kv.get(b("kv3-empty"))).getKvs().get(0).getValue(), ByteSequence.EMPTY, "an empty value");
    }

    private static void ranges(KV kv) throws Exception {
        for (String key : List.of("zz-a", "zz-b", "zz-b1", "zz-c", "zzz")) {
            get(kv.put(b(key), b(key)));
        }
        eq(keys(get(kv.get(b("zz-"), GetOption.builder().isPrefix(true).build())).getKvs()),
            List.of("zz-a", "zz-b", "zz-b1", "zz-c"), "the prefix zz-");
        eq(keys(get(kv.get(b("zz-b"), GetOption.builder().withRange(b("zz-c")).build())).getKvs()),
            List.of("zz-b", "zz-b1"), "from zz-b to zz-c");
        eq(keys(get(kv.get(b("zz-b1"), GetOption.builder().withRange(END).build())).getKvs()),
            List.of("zz-b1", "zz-c", "zzz"), "from zz-b1 on");
        eq(keys(get(kv.get(b("zz-c"), GetOption.builder().withRange(b("zz-a")).build())).getKvs()),
            List.of(), "an empty range");
        get(kv.delete(b("zz"), DeleteOption.builder().isPrefix(true).build()));
    }

    private static void limit(KV kv) throws Exception {
        for (int i = 0; i < 5; i++) {
            get(kv.put(b("kv5-" + i), b("v")));
        }
        GetResponse some = get(kv.get(b("kv5-"), GetOption.builder().isPrefix(true).withLimit(2).build()));
        eq(keys(some.getKvs()), List.of("kv5-0", "kv5-1"), "the first two");
        eq(some.isMore(), true, "more");
        eq(some.getCount(), 5, "count");
        GetResponse exact = get(kv.get(b("kv5-"), GetOption.builder().isPrefix(true).withLimit(5).build()));
        eq(exact.isMore(), false, "more, at the limit exactly");
        // Paging: the next page begins just behind the last key.
        ByteSequence next = some.getKvs().get(1).getKey().concat(END);
        GetResponse page = get(kv.get(next, GetOption.builder().withRange(b("kv5.")).withLimit(2).build()));
        eq(keys(page.getKvs()), List.of("kv5-2", "kv5-3"), "the second page");
    }

    private static void sorted(KV kv) throws Exception {
        // Created in the order b, c, a; changed last in the order c, a, b; versions a 1, b 3, c 2; values c < b < a.
        get(kv.put(b("kv6-b"), b("0")));
        get(kv.put(b("kv6-c"), b("0")));
        get(kv.put(b("kv6-c"), b("1")));
        get(kv.put(b("kv6-a"), b("3")));
        get(kv.put(b("kv6-b"), b("0")));
        get(kv.put(b("kv6-b"), b("2")));
        Map<SortTarget, List<String>> ascending = Map.of(
            SortTarget.KEY, List.of("kv6-a", "kv6-b", "kv6-c"),
            SortTarget.CREATE, List.of("kv6-b", "kv6-c", "kv6-a"),
            SortTarget.MOD, List.of("kv6-c", "kv6-a", "kv6-b"),
            SortTarget.VERSION, List.of("kv6-a", "kv6-c", "kv6-b"),
            SortTarget.VALUE, List.of("kv6-c", "kv6-b", "kv6-a"));
        for (SortTarget target : SortTarget.values()) {
            List<String> up = ascending.get(target);
            List<String> down = List.of(up.get(2), up.get(1), up.get(0));
            eq(keys(get(kv.get(b("kv6-"), sort(target, SortOrder.ASCEND))).getKvs()), up, "ascending by " + target);
            eq(keys(get(kv.get(b("kv6-"), sort(target, SortOrder.DESCEND))).getKvs()), down, "descending by " + target);
        }
        GetResponse last = get(kv.get(b("kv6-"), GetOption.builder().isPrefix(true).withSortField(SortTarget.MOD)
            .withSortOrder(SortOrder.DESCEND).withLimit(1).build()));
        eq(keys(last.getKvs()), List.of("kv6-b"), "the key that changed last");
        eq(last.isMore(), true, "more");
        eq(last.getCount(), 3, "count");
    }

    private static GetOption sort(SortTarget target, SortOrder order) {
        return GetOption.builder().isPrefix(true).withSortField(target).withSortOrder(order).build();
    }

    private static void countAndKeys(KV kv) throws Exception {
        for (int i = 0; i < 3; i++) {
            get(kv.put(b("kv7-" + i), b("value")));
        }
        GetResponse count = get(kv.get(b("kv7-"), GetOption.builder().isPrefix(true).withCountOnly(true).build()));
        eq(count.getKvs(), List.of(), "pairs of a count");
        eq(count.getCount(), 3, "count");
        GetResponse keys = get(kv.get(b("kv7-"), GetOption.builder().isPrefix(true).withKeysOnly(true).build()));
        eq(keys(keys.getKvs()), List.of("kv7-0", "kv7-1", "kv7-2"), "keys");
        eq(values(keys.getKvs()), List.of("", "", ""), "values");
        eq(keys.getKvs().get(0).getVersion(), 1, "the version is there");
    }

    private static void oldRevision(KV kv) throws Exception {
        long first = get(kv.put(b("kv8"), b("old"))).getHeader().getRevision();
        get(kv.put(b("kv8"), b("new")));
        long deleted = get(kv.delete(b("kv8"))).getHeader().getRevision();
        for (boolean serializable : new boolean[] {false, true}) {
            GetResponse then = get(kv.get(b("kv8"),
                GetOption.builder().withRevision(first).withSerializable(serializable).build()));
            eq(values(then.getKvs()), List.of("old"), "the value at the first revision");
            eq(then.getHeader().getRevision(), deleted, "the header has the current revision");
            eq(values(get(kv.get(b("kv8"), GetOption.builder().withRevision(first + 1).withSerializable(serializable)
                .build())).getKvs()), List.of("new"), "the value one revision later");
            eq(get(kv.get(b("kv8"), GetOption.builder().withSerializable(serializable).build())).getCount(), 0, "now");
        }
        refused(kv.get(b("kv8"), GetOption.builder().withRevision(deleted + 100).build()), Code.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision is a future revision");
    }

    private static void bounds(KV kv) throws Exception {
        long base = get(kv.put(b("kv9-a"), b("1"))).getHeader().getRevision();
        get(kv.put(b("kv9-b"), b("1")));
        get(kv.put(b("kv9-c"), b("1")));
        get(kv.put(b("kv9-a"), b("2")));
        eq(keys(get(kv.get(b("kv9-"), prefix().withMinModRevision(base + 2).build())).getKvs()),
            List.of("kv9-a", "kv9-c"), "changed at or after c");
        eq(keys(get(kv.get(b("kv9-"), prefix().withMaxModRevision(base + 2).build())).getKvs()),
            List.of("kv9-b", "kv9-c"), "changed at or before c");
        eq(keys(get(kv.get(b("kv9-"), prefix().withMinCreateRevision(base + 1).build())).getKvs()),
            List.of("kv9-b", "kv9-c"), "created after a");
        eq(keys(get(kv.get(b("kv9-"), prefix().withMaxCreateRevision(base + 1).build())).getKvs()),
            List.of("kv9-a", "kv9-b"), "created before c");
    }

    private static GetOption.Builder prefix() {
        return GetOption.builder().isPrefix(true);
    }

    private static void previousPair(KV kv) throws Exception {
        PutOption option = PutOption.builder().withPrevKV().build();
        PutResponse first = get(kv.put(b("kv10"), b("one"), option));
        yes(!first.hasPrevKv(), "no previous pair of a new key");
        PutResponse second = get(kv.put(b("kv10"), b("two"), option));
        yes(second.hasPrevKv(), "a previous pair");
        eq(second.getPrevKv().getKey(), b("kv10"), "its key");
        eq(second.getPrevKv().getValue(), b("one"), "its value");
        eq(second.getPrevKv().getModRevision(), first.getHeader().getRevision(), "its mod revision");
        eq(second.getPrevKv().getVersion(), 1, "its version");
    }

    private static void leases(Client client) throws Exception {
        KV kv = client.getKVClient();
        long lease = get(client.getLeaseClient().grant(100)).getID();
        get(kv.put(b("kv11"), b("v"), PutOption.builder().withLeaseId(lease).build()));
        eq(get(kv.get(b("kv11"))).getKvs().get(0).getLease(), lease, "lease");
        get(kv.put(b("kv11"), b("v")));
        eq(get(kv.get(b("kv11"))).getKvs().get(0).getLease(), 0, "the lease after a put without one");
        get(client.getLeaseClient().revoke(lease));
        eq(get(kv.get(b("kv11"))).getCount(), 1, "the key is no longer the lease's");
        refused(kv.put(b("kv11"), b("v"), PutOption.builder().withLeaseId(lease).build()), Code.NOT_FOUND,
            "etcdserver: requested lease not found");
    }

    private static void deletes(KV kv) throws Exception {
        for (String key : List.of("kv12-a", "kv12-b", "kv12-c", "kv12-d1", "kv12-d2")) {
            get(kv.put(b(key), b("v")));
        }
        long revision = get(kv.get(b("kv12-a"))).getHeader().getRevision();
        DeleteResponse one = get(kv.delete(b("kv12-a")));
        eq(one.getDeleted(), 1, "deleted by one key");
        eq(one.getPrevKvs(), List.of(), "previous pairs that nobody asked for");
        eq(one.getHeader().getRevision(), revision + 1, "revision");
        eq(get(kv.delete(b("kv12-b"), DeleteOption.builder().withRange(b("kv12-d")).build())).getDeleted(), 2,
            "deleted by a range");
        DeleteResponse prefix = get(kv.delete(b("kv12-d"), DeleteOption.builder().isPrefix(true).build()));
        eq(prefix.getDeleted(), 2, "deleted by a prefix");
        eq(prefix.getHeader().getRevision(), revision + 3, "one revision for each delete");
        eq(get(kv.get(b("kv12"), prefix().build())).getCount(), 0, "what is left");
    }

    private static void deletePrevious(KV kv) throws Exception {
        get(kv.put(b("kv13-a"), b("1")));
        get(kv.put(b("kv13-b"), b("2")));
        DeleteResponse answer = get(kv.delete(b("kv13-"),
            DeleteOption.builder().isPrefix(true).withPrevKV(true).build()));
        eq(keys(answer.getPrevKvs()), List.of("kv13-a", "kv13-b"), "keys of the previous pairs");
        eq(values(answer.getPrevKvs()), List.of("1", "2"), "their values");
    }

    private static void emptyKey(KV kv) throws Exception {
        String text = "etcdserver: key is not provided";
        refused(kv.put(ByteSequence.EMPTY, b("v")), Code.INVALID_ARGUMENT, text);
        refused(kv.get(ByteSequence.EMPTY), Code.INVALID_ARGUMENT, text);
        refused(kv.delete(ByteSequence.EMPTY), Code.INVALID_ARGUMENT, text);
    }

    private static void namespace(Server server, KV plain) throws Exception {
        try (Client client = server.builder().namespace(b("kv15/")).build()) {
            KV kv = client.getKVClient();
            get(plain.put(b("kv16"), b("outside")));
            get(kv.put(b("a"), b("1")));
            get(kv.put(b("b"), b("2")));
            eq(keys(get(plain.get(b("kv15/"), prefix().build())).getKvs()), List.of("kv15/a", "kv15/b"), "outside");
            eq(keys(get(kv.get(b("a"), GetOption.builder().withRange(END).build())).getKvs()), List.of("a", "b"),
                "all keys inside");
            eq(get(kv.delete(b("a"), DeleteOption.builder().withRange(END).build())).getDeleted(), 2, "deleted inside");
            eq(get(plain.get(b("kv16"))).getCount(), 1, "the key outside is left");
        }
    }
}
