package kvist;

import static kvist.Check.b;
import static kvist.Check.eq;
import static kvist.Check.get;
import static kvist.Check.until;
import static kvist.Check.yes;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Watchers. jetcd opens a stream for each, and several share a connection. */
final class WatchCases {
    private WatchCases() {
    }

    static void run(Tap tap, Server server) throws Exception {
        try (Client client = server.client()) {
            tap.test("watch/a key from now on", () -> fromNow(client));
            tap.test("watch/replay from a revision, then live", () -> replay(client));
            tap.test("watch/prefix, range, and from a key on", () -> ranges(client));
            tap.test("watch/filters", () -> filters(client));
            tap.test("watch/previous pairs", () -> previous(client));
            tap.test("watch/a transaction arrives whole", () -> transaction(client));
            tap.test("watch/a start in the future", () -> future(client));
            tap.test("watch/progress on request", () -> progress(client));
            tap.test("watch/a hundred watchers on one connection", () -> many(client));
            tap.test("watch/a watcher that is closed hears no more", () -> closed(client));
            tap.test("watch/with a required leader", () -> requiredLeader(client));
            tap.test("watch/a namespace", () -> namespace(server, client));
        }
    }

    private static WatchOption.Builder option() {
        return WatchOption.builder();
    }

    private static long put(Client client, String key, String value) throws Exception {
        return get(client.getKVClient().put(b(key), b(value))).getHeader().getRevision();
    }

    private static void fromNow(Client client) throws Exception {
        put(client, "w1", "before");
        try (Recorder recorder = Recorder.start(client, b("w1"), option())) {
            long revision = put(client, "w1", "a");
            put(client, "w1-other", "x");
            put(client, "w1", "b");
            get(client.getKVClient().delete(b("w1")));
            recorder.expect(List.of("PUT w1=a@" + revision, "PUT w1=b@" + (revision + 2), "DELETE w1@" + (revision + 3)));
            WatchEvent first = recorder.events().get(0);
            eq(first.getKeyValue().getVersion(), 2, "version");
            eq(first.getKeyValue().getCreateRevision(), revision - 1, "create revision");
            WatchEvent last = recorder.events().get(2);
            eq(last.getKeyValue().getValue(), ByteSequence.EMPTY, "the value of a delete");
            eq(last.getKeyValue().getVersion(), 0, "the version of a delete");
            yes(recorder.responses.get(0).getHeader().getRevision() >= revision, "the header is not behind the event");
        }
    }

    private static void replay(Client client) throws Exception {
        long first = put(client, "w2-0", "v");
        List<String> want = new ArrayList<>();
        for (int i = 1; i < 50; i++) {
            long revision = put(client, "w2-" + i, "v");
            want.add("PUT w2-" + i + "=v@" + revision);
        }
        try (Recorder recorder = Recorder.start(client, b("w2-"), option().isPrefix(true).withRevision(first + 1))) {
            recorder.expect(want);
            want.add("PUT w2-live=v@" + put(client, "w2-live", "v"));
            recorder.expect(want);
        }
    }

    private static void ranges(Client client) throws Exception {
        ByteSequence end = ByteSequence.from(new byte[] {0});
        try (Recorder prefix = Recorder.start(client, b("w3-b"), option().isPrefix(true));
            Recorder range = Recorder.start(client, b("w3-b"), option().withRange(b("w3-c")));
            Recorder from = Recorder.start(client, b("w3-b1"), option().withRange(end))) {
            long a = put(client, "w3-a", "v");
            put(client, "w3-b", "v");
            put(client, "w3-b1", "v");
            put(client, "w3-c", "v");
            String second = "PUT w3-b=v@" + (a + 1);
            String third = "PUT w3-b1=v@" + (a + 2);
            prefix.expect(List.of(second, third));
            range.expect(List.of(second, third));
            from.expect(List.of(third, "PUT w3-c=v@" + (a + 3)));
        }
    }

    private static void filters(Client client) throws Exception {
        try (Recorder puts = Recorder.start(client, b("w4"), option().withNoDelete(true));
            Recorder deletes = Recorder.start(client, b("w4"), option().withNoPut(true))) {
            long revision = put(client, "w4", "a");
            get(client.getKVClient().delete(b("w4")));
            put(client, "w4", "b");
            get(client.getKVClient().delete(b("w4")));
            puts.expect(List.of("PUT w4=a@" + revision, "PUT w4=b@" + (revision + 2)));
            deletes.expect(List.of("DELETE w4@" + (revision + 1), "DELETE w4@" + (revision + 3)));
        }
    }

    private static void previous(Client client) throws Exception {
        put(client, "w5", "old");
        try (Recorder with = Recorder.start(client, b("w5"), option().withPrevKV(true));
            Recorder without = Recorder.start(client, b("w5"), option())) {
            long revision = put(client, "w5", "new");
            get(client.getKVClient().delete(b("w5")));
            List<String> want = List.of("PUT w5=new@" + revision, "DELETE w5@" + (revision + 1));
            with.expect(want);
            without.expect(want);
            eq(with.events().get(0).getPrevKV().getValue(), b("old"), "what was there before the put");
            eq(with.events().get(1).getPrevKV().getValue(), b("new"), "what was there before the delete");
            eq(with.events().get(1).getPrevKV().getModRevision(), revision, "its revision");
            eq(without.events().get(1).getPrevKV().getKey(), ByteSequence.EMPTY, "a previous pair that nobody asked for");
        }
    }

    private static void transaction(Client client) throws Exception {
        KV kv = client.getKVClient();
        put(client, "w6-gone", "v");
        try (Recorder recorder = Recorder.start(client, b("w6-"), option().isPrefix(true))) {
            long revision = get(kv.txn().Then(
                Op.put(b("w6-z"), b("1"), PutOption.DEFAULT),
                Op.delete(b("w6-gone"), DeleteOption.DEFAULT),
                Op.put(b("w6-a"), b("2"), PutOption.DEFAULT)).commit()).getHeader().getRevision();
            recorder.expect(List.of("PUT w6-z=1@" + revision, "DELETE w6-gone@" + revision, "PUT w6-a=2@" + revision));
            eq(recorder.responses.size(), 1, "responses");
        }
    }

    private static void future(Client client) throws Exception {
        long now = put(client, "w7", "now");
        try (Recorder recorder = Recorder.start(client, b("w7"), option().withRevision(now + 3));
            Recorder check = Recorder.start(client, b("w7"), option())) {
            put(client, "w7", "1");
            put(client, "w7", "2");
            put(client, "w7", "3");
            check.expect(List.of("PUT w7=1@" + (now + 1), "PUT w7=2@" + (now + 2), "PUT w7=3@" + (now + 3)));
            recorder.expect(List.of("PUT w7=3@" + (now + 3)));
        }
    }

    private static void progress(Client client) throws Exception {
        try (Recorder recorder = Recorder.start(client, b("w8"), option())) {
            long revision = put(client, "w8-elsewhere", "v");
            // A request is not answered while the watcher is behind; asking again is what clients do.
            until("progress is told", () -> {
                recorder.watcher.requestProgress();
                return recorder.responses.stream().anyMatch(
                    response -> response.isProgressNotify() && response.getHeader().getRevision() >= revision);
            });
            eq(recorder.events(), List.of(), "events");
            long next = put(client, "w8", "v");
            until("the event arrives", () -> !recorder.events().isEmpty());
            eq(recorder.told(), List.of("PUT w8=v@" + next), "events after progress");
        }
    }

    private static void many(Client client) throws Exception {
        List<Recorder> recorders = new ArrayList<>();
        try {
            for (int i = 0; i < 100; i++) {
                recorders.add(Recorder.start(client, b("w9-" + i + "-"), option().isPrefix(true)));
            }
            long before = put(client, "w9", "created");
            for (int i = 0; i < 100; i++) {
                put(client, "w9-" + i + "-k", "v" + i);
            }
            for (int i = 0; i < 100; i++) {
                recorders.get(i).expect(List.of("PUT w9-" + i + "-k=v" + i + "@" + (before + 1 + i)));
            }
        } finally {
            recorders.forEach(Recorder::close);
        }
    }

    private static void closed(Client client) throws Exception {
        Recorder recorder = Recorder.start(client, b("w10"), option());
        try (Recorder other = Recorder.start(client, b("w10"), option())) {
            long revision = put(client, "w10", "1");
            recorder.expect(List.of("PUT w10=1@" + revision));
            recorder.close();
            yes(recorder.completed.await(Check.WAIT_SECS, TimeUnit.SECONDS), "the listener hears of the end");
            yes(recorder.watcher.isClosed(), "the watcher is closed");
            put(client, "w10", "2");
            other.expect(List.of("PUT w10=1@" + revision, "PUT w10=2@" + (revision + 1)));
            eq(recorder.events().size(), 1, "events of the closed watcher");
            eq(recorder.errors, List.of(), "errors of the closed watcher");
        }
    }

    private static void requiredLeader(Client client) throws Exception {
        try (Recorder recorder = Recorder.start(client, b("w11"), option().withRequireLeader(true))) {
            recorder.expect(List.of("PUT w11=v@" + put(client, "w11", "v")));
        }
    }

    private static void namespace(Server server, Client plain) throws Exception {
        try (Client client = server.builder().namespace(b("w12/")).build();
            Recorder recorder = Recorder.start(client, b(""), option().withRange(ByteSequence.from(new byte[] {0})))) {
            put(plain, "w12", "outside");
            long revision = put(plain, "w12/k", "inside");
            put(plain, "w120", "outside");
            get(client.getKVClient().delete(b("k")));
            recorder.expect(List.of("PUT k=inside@" + revision, "DELETE k@" + (revision + 2)));
        }
    }
}
