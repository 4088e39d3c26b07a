package kvist;

import static kvist.Check.b;
import static kvist.Check.eq;
import static kvist.Check.get;
import static kvist.Check.refused;
import static kvist.Check.values;
import static kvist.Check.yes;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.kv.TxnResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.PutOption;
import io.grpc.Status.Code;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** Transactions: jetcd's builder, with compare-and-swap and nesting. */
final class TxnCases {
    private static final String DUPLICATE = "etcdserver: duplicate key given in txn request";

    private TxnCases() {
    }

    static void run(Tap tap, Server server) throws Exception {
        try (Client client = server.client()) {
            KV kv = client.getKVClient();
            tap.test("txn/if, then, else by every target and operator", () -> targets(kv));
            tap.test("txn/a missing key in comparisons", () -> missing(kv));
            tap.test("txn/create once", () -> createOnce(kv));
            tap.test("txn/counters by compare-and-swap from four clients", () -> counter(server, kv));
            tap.test("txn/answers in order, reads see earlier writes, one revision", () -> order(kv));
            tap.test("txn/transactions inside a transaction", () -> nested(kv));
            tap.test("txn/put, delete and previous pairs", () -> previous(kv));
            tap.test("txn/an unknown lease undoes everything", () -> allOrNothing(kv));
            tap.test("txn/duplicate keys are refused", () -> duplicates(kv));
            tap.test("txn/too many operations are refused", () -> tooMany(kv));
            tap.test("txn/a namespace", () -> namespace(server, kv));
        }
    }

    private static Op put(String key, String value) {
        return Op.put(b(key), b(value), PutOption.DEFAULT);
    }

    private static Op read(String key) {
        return Op.get(b(key), GetOption.DEFAULT);
    }

    private static Op delete(String key) {
        return Op.delete(b(key), DeleteOption.DEFAULT);
    }

    private static boolean holds(KV kv, String key, Cmp.Op op, CmpTarget<?> target) throws Exception {
        return get(kv.txn().If(new Cmp(b(key), op, target)).commit()).isSucceeded();
    }

    private static void targets(KV kv) throws Exception {
        get(kv.put(b("t1"), b("m")));
        get(kv.put(b("t1"), b("m")));
        KeyValue pair = get(kv.get(b("t1"))).getKvs().get(0);
        List<List<CmpTarget<?>>> lowEqualHigh = List.of(
            List.of(CmpTarget.version(1), CmpTarget.version(2), CmpTarget.version(3)),
            List.of(CmpTarget.createRevision(pair.getCreateRevision() - 1),
                CmpTarget.createRevision(pair.getCreateRevision()),
                CmpTarget.createRevision(pair.getCreateRevision() + 1)),
            List.of(CmpTarget.modRevision(pair.getModRevision() - 1), CmpTarget.modRevision(pair.getModRevision()),
                CmpTarget.modRevision(pair.getModRevision() + 1)),
            List.of(CmpTarget.value(b("l")), CmpTarget.value(b("m")), CmpTarget.value(b("n"))));
        for (List<CmpTarget<?>> row : lowEqualHigh) {
            for (int i = 0; i < 3; i++) {
                String what = row.get(i).getTarget() + " number " + i;
                eq(holds(kv, "t1", Cmp.Op.EQUAL, row.get(i)), i == 1, "equal to " + what);
                eq(holds(kv, "t1", Cmp.Op.NOT_EQUAL, row.get(i)), i != 1, "not equal to " + what);
                eq(holds(kv, "t1", Cmp.Op.GREATER, row.get(i)), i == 0, "greater than " + what);
                eq(holds(kv, "t1", Cmp.Op.LESS, row.get(i)), i == 2, "less than " + what);
            }
        }
        TxnResponse answer = get(kv.txn()
            .If(new Cmp(b("t1"), Cmp.Op.EQUAL, CmpTarget.version(2)), new Cmp(b("t1"), Cmp.Op.EQUAL, CmpTarget.version(3)))
            .Then(put("t1", "then")).Else(put("t1", "else"), read("t1")).commit());
        eq(answer.isSucceeded(), false, "one of two comparisons fails");
        eq(values(answer.getGetResponses().get(0).getKvs()), List.of("else"), "the branch that was taken");
    }

    private static void missing(KV kv) throws Exception {
        yes(holds(kv, "t2-nothing", Cmp.Op.EQUAL, CmpTarget.version(0)), "version 0");
        yes(holds(kv, "t2-nothing", Cmp.Op.EQUAL, CmpTarget.createRevision(0)), "create revision 0");
        yes(holds(kv, "t2-nothing", Cmp.Op.LESS, CmpTarget.modRevision(1)), "mod revision below 1");
        yes(!holds(kv, "t2-nothing", Cmp.Op.EQUAL, CmpTarget.value(ByteSequence.EMPTY)), "no value is not an empty one");
        yes(!holds(kv, "t2-nothing", Cmp.Op.NOT_EQUAL, CmpTarget.value(b("x"))), "no value is not another one");
    }

    private static void createOnce(KV kv) throws Exception {
        Cmp absent = new Cmp(b("t3"), Cmp.Op.EQUAL, CmpTarget.createRevision(0));
        TxnResponse first = get(kv.txn().If(absent).Then(put("t3", "first")).Else(read("t3")).commit());
        TxnResponse second = get(kv.txn().If(absent).Then(put("t3", "second")).Else(read("t3")).commit());
        eq(first.isSucceeded(), true, "the first");
        eq(first.getPutResponses().size(), 1, "answers to puts");
        eq(second.isSucceeded(), false, "the second");
        eq(values(second.getGetResponses().get(0).getKvs()), List.of("first"), "what the second sees");
        eq(second.getHeader().getRevision(), first.getHeader().getRevision(), "a read makes no revision");
    }

    private static void counter(Server server, KV kv) throws Exception {
        get(kv.put(b("t4"), b("0")));
        long before = get(kv.get(b("t4"))).getHeader().getRevision();
        List<CompletableFuture<Void>> workers = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            workers.add(CompletableFuture.runAsync(() -> {
                try (Client client = server.client()) {
                    for (int n = 0; n < 25; n++) {
                        increment(client.getKVClient(), "t4");
                    }
                } catch (Exception e) {
                    throw new IllegalStateException(e);
                }
            }, task -> new Thread(task, "counter").start()));
        }
        for (CompletableFuture<Void> worker : workers) {
            get(worker);
        }
        KeyValue pair = get(kv.get(b("t4"))).getKvs().get(0);
        eq(pair.getValue(), b("100"), "the counter");
        eq(pair.getVersion(), 101, "its version");
        eq(pair.getModRevision(), before + 100, "a revision for each increment and none for attempts that failed");
    }

    private static void increment(KV kv, String key) throws Exception {
        while (true) {
            KeyValue pair = get(kv.get(b(key))).getKvs().get(0);
            String next = String.valueOf(Integer.parseInt(pair.getValue().toString()) + 1);
            TxnResponse answer = get(kv.txn()
                .If(new Cmp(b(key), Cmp.Op.EQUAL, CmpTarget.modRevision(pair.getModRevision())))
                .Then(put(key, next)).commit());
            if (answer.isSucceeded()) {
                return;
            }
        }
    }

    private static void order(KV kv) throws Exception {
        get(kv.put(b("t5-b"), b("gone")));
        long before = get(kv.put(b("t5-a"), b("old"))).getHeader().getRevision();
        TxnResponse answer = get(kv.txn().Then(
            read("t5-a"), put("t5-a", "new"), read("t5-a"), put("t5-c", "c"), delete("t5-b"), read("t5-b")).commit());
        eq(answer.isSucceeded(), true, "a transaction without comparisons");
        eq(answer.getHeader().getRevision(), before + 1, "one revision for all");
        eq(values(answer.getGetResponses().get(0).getKvs()), List.of("old"), "the read before the put");
        eq(values(answer.getGetResponses().get(1).getKvs()), List.of("new"), "the read after the put");
        eq(answer.getGetResponses().get(2).getCount(), 0, "the read after the delete");
        eq(answer.getDeleteResponses().get(0).getDeleted(), 1, "deleted");
        eq(answer.getPutResponses().size(), 2, "answers to puts");
    }

    private static void nested(KV kv) throws Exception {
        get(kv.put(b("t6"), b("x")));
        Cmp yes = new Cmp(b("t6"), Cmp.Op.EQUAL, CmpTarget.value(b("x")));
        Cmp no = new Cmp(b("t6"), Cmp.Op.EQUAL, CmpTarget.value(b("y")));
        Op inmost = Op.txn(new Cmp[] {no}, new Op[] {put("t6-wrong", "v")}, new Op[] {put("t6-inmost", "v"), read("t6")});
        Op inner = Op.txn(new Cmp[] {yes}, new Op[] {put("t6-inner", "v"), inmost}, new Op[] {});
        TxnResponse answer = get(kv.txn().If(yes).Then(inner, put("t6-outer", "v")).commit());
        TxnResponse second = answer.getTxnResponses().get(0);
        TxnResponse third = second.getTxnResponses().get(0);
        eq(List.of(answer.isSucceeded(), second.isSucceeded(), third.isSucceeded()), List.of(true, true, false),
            "the branches");
        eq(values(third.getGetResponses().get(0).getKvs()), List.of("x"), "the read inside");
        List<KeyValue> pairs = get(kv.get(b("t6-"), GetOption.builder().isPrefix(true).build())).getKvs();
        eq(Check.keys(pairs), List.of("t6-inmost", "t6-inner", "t6-outer"), "what was written");
        for (KeyValue pair : pairs) {
            eq(pair.getModRevision(), answer.getHeader().getRevision(), "the revision of " + pair.getKey());
        }
    }

    private static void previous(KV kv) throws Exception {
        get(kv.put(b("t7-a"), b("1")));
        get(kv.put(b("t7-b"), b("2")));
        TxnResponse answer = get(kv.txn().Then(
            Op.put(b("t7-a"), b("new"), PutOption.builder().withPrevKV().build()),
            Op.delete(b("t7-b"), DeleteOption.builder().withPrevKV(true).build())).commit());
        eq(answer.getPutResponses().get(0).getPrevKv().getValue(), b("1"), "the value before the put");
        eq(values(answer.getDeleteResponses().get(0).getPrevKvs()), List.of("2"), "the value before the delete");
    }

    private static void allOrNothing(KV kv) throws Exception {
        long before = get(kv.put(b("t8"), b("kept"))).getHeader().getRevision();
        refused(kv.txn().Then(put("t8", "lost"),
            Op.put(b("t8-b"), b("v"), PutOption.builder().withLeaseId(0x1234567L).build())).commit(), Code.NOT_FOUND,
            "etcdserver: requested lease not found");
        KeyValue pair = get(kv.get(b("t8"))).getKvs().get(0);
        eq(pair.getValue(), b("kept"), "value");
        eq(get(kv.get(b("t8-b"))).getHeader().getRevision(), before, "revision");
    }

    private static void duplicates(KV kv) throws Exception {
        refused(kv.txn().Then(put("t9", "1"), put("t9", "2")).commit(), Code.INVALID_ARGUMENT, DUPLICATE);
        refused(kv.txn().Then(put("t9", "1"), Op.delete(b("t"), DeleteOption.builder().isPrefix(true).build())).commit(),
            Code.INVALID_ARGUMENT, DUPLICATE);
        refused(kv.txn().Then(put("t9", "1"), Op.txn(new Cmp[] {}, new Op[] {put("t9", "2")}, new Op[] {})).commit(),
            Code.INVALID_ARGUMENT, DUPLICATE);
        // The two branches of one transaction may write the same key.
        eq(get(kv.txn().Then(put("t9", "1")).Else(put("t9", "2")).commit()).isSucceeded(), true, "one key in both branches");
    }

    private static void tooMany(KV kv) throws Exception {
        List<Op> ops = new ArrayList<>();
        for (int i = 0; i < 128; i++) {
            ops.add(put("t10-" + i, "v"));
        }
        eq(get(kv.txn().Then(ops.toArray(new Op[0])).commit()).getPutResponses().size(), 128, "answers to 128 puts");
        ops.add(put("t10-128", "v"));
        refused(kv.txn().Then(ops.toArray(new Op[0])).commit(), Code.INVALID_ARGUMENT,
            "etcdserver: too many operations in txn request");
    }

    private static void namespace(Server server, KV plain) throws Exception {
        try (Client client = server.builder().namespace(b("t11/")).build()) {
            TxnResponse answer = get(client.getKVClient().txn()
                .If(new Cmp(b("k"), Cmp.Op.EQUAL, CmpTarget.version(0)))
                .Then(put("k", "v"), read("k")).commit());
            eq(Check.keys(answer.getGetResponses().get(0).getKvs()), List.of("k"), "the key inside");
            eq(values(get(plain.get(b("t11/k"))).getKvs()), List.of("v"), "the value outside");
        }
    }
}
