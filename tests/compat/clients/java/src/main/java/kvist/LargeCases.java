package kvist;

import static kvist.Check.b;
import static kvist.Check.eq;
import static kvist.Check.error;
import static kvist.Check.get;
import static kvist.Check.refused;
import static kvist.Check.yes;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.kv.GetResponse;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.grpc.Status;
import io.grpc.Status.Code;
import java.util.Arrays;
import java.util.List;

/** Large requests and answers. */
final class LargeCases {
    private static final int MIB = 1 << 20;

    private LargeCases() {
    }

    static void run(Tap tap, Server server) throws Exception {
        try (Client client = server.builder().maxInboundMessageSize(64 * MIB).build()) {
            KV kv = client.getKVClient();
            tap.test("large/a value of 1 MiB, read and watched", () -> mebibyte(client));
            tap.test("large/a request above the limit of requests is refused", () -> tooLarge(kv));
            tap.test("large/a message above the limit of messages is refused", () -> messageTooLarge(kv));
            tap.test("large/ten thousand keys in one answer", () -> tenThousand(server, client));
            tap.test("large/a key of 100 KiB", () -> longKey(kv));
        }
    }

    private static ByteSequence bytes(int size, int fill) {
        byte[] bytes = new byte[size];
        Arrays.fill(bytes, (byte) fill);
        return ByteSequence.from(bytes);
    }

    private static void mebibyte(Client client) throws Exception {
        KV kv = client.getKVClient();
        ByteSequence value = bytes(MIB, 0xab);
        try (Recorder recorder = Recorder.start(client, b("large1"), WatchOption.builder())) {
            get(kv.put(b("large1"), value));
            yes(get(kv.get(b("large1"))).getKvs().get(0).getValue().equals(value), "the value that was put");
            Check.until("the event arrives", () -> !recorder.events().isEmpty());
            yes(recorder.events().get(0).getKeyValue().getValue().equals(value), "the value in the event");
        }
        get(kv.delete(b("large1")));
    }

    private static void tooLarge(KV kv) throws Exception {
        String text = "etcdserver: request is too large";
        // The limit of requests is 1.5 MiB, and that of messages 512 KiB above it.
        refused(kv.put(b("large2"), bytes(MIB + MIB / 2 + 4096, 1)), Code.INVALID_ARGUMENT, text);
        refused(kv.txn().Then(Op.put(b("large2"), bytes(MIB, 1), PutOption.DEFAULT),
            Op.put(b("large2b"), bytes(MIB * 3 / 4, 1), PutOption.DEFAULT)).commit(), Code.INVALID_ARGUMENT, text);
        eq(get(kv.get(b("large2"), GetOption.builder().isPrefix(true).build())).getCount(), 0, "nothing was written");
    }

    private static void messageTooLarge(KV kv) throws Exception {
        Status status = Status.fromThrowable(error(kv.put(b("large3"), bytes(2 * MIB + 1024, 1))));
        eq(status.getCode(), Code.RESOURCE_EXHAUSTED, "the code");
        yes(status.getDescription().matches("grpc: received message larger than max \\(\\d+ vs\\. 2097152\\)"),
            "the text about the size of the message, not " + status.getDescription());
        // The connection goes on.
        get(kv.put(b("large3"), b("small")));
    }

    private static void tenThousand(Server server, Client client) throws Exception {
        KV kv = client.getKVClient();
        ByteSequence value = bytes(600, 'v');
        for (int i = 0; i < 10_000; i += 100) {
            Op[] ops = new Op[100];
            for (int n = 0; n < 100; n++) {
                ops[n] = Op.put(b(String.format("large4-%05d", i + n)), value, PutOption.DEFAULT);
            }
            get(kv.txn().Then(ops).commit());
        }
        GetOption all = GetOption.builder().isPrefix(true).build();
        GetResponse answer = get(kv.get(b("large4-"), all));
        eq(answer.getCount(), 10_000, "count");
        List<KeyValue> pairs = answer.getKvs();
        eq(pairs.size(), 10_000, "pairs");
        for (int i = 0; i < pairs.size(); i++) {
            KeyValue pair = pairs.get(i);
            yes(pair.getKey().toString().equals(String.format("large4-%05d", i)) && pair.getValue().equals(value),
                "pair number " + i + ", not " + pair.getKey());
        }
        // Without its own limit raised, a client takes 4 MiB, and says so itself.
        try (Client small = server.client()) {
            Status status = Status.fromThrowable(error(small.getKVClient().get(b("large4-"), all)));
            eq(status.getCode(), Code.RESOURCE_EXHAUSTED, "the code of the client with the default limit");
            eq(get(small.getKVClient().get(b("large4-00000"))).getCount(), 1, "a small answer after the large one");
        }
        eq(get(kv.delete(b("large4-"), DeleteOption.builder().isPrefix(true).build())).getDeleted(), 10_000, "deleted");
    }

    private static void longKey(KV kv) throws Exception {
        ByteSequence key = bytes(100 << 10, 'k');
        get(kv.put(key, b("v")));
        KeyValue pair = get(kv.get(key)).getKvs().get(0);
        yes(pair.getKey().equals(key), "the key that was put");
        eq(pair.getValue(), b("v"), "value");
        eq(get(kv.delete(key)).getDeleted(), 1, "deleted");
    }
}
