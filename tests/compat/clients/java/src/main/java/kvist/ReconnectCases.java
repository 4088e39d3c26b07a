package kvist;

import static kvist.Check.b;
import static kvist.Check.eq;
import static kvist.Check.get;
import static kvist.Check.until;

import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.support.CloseableClient;
import java.util.ArrayList;
import java.util.List;

/** What outlives a restart of the server: watchers and keep-alives of a client that stays. */
final class ReconnectCases {
    private ReconnectCases() {
    }

    /** One of the two ways to end a server. */
    private interface Ending {
        void end(Server server) throws Exception;
    }

    static void run(Tap tap, Control control) throws Exception {
        try (Server server = control.server()) {
            tap.test("reconnect/a watcher over SIGKILL, nothing lost or repeated", () -> watch(server, Server::kill, "r1", 2));
            tap.test("reconnect/a watcher over SIGTERM, nothing lost or repeated", () -> watch(server, Server::stop, "r2", 1));
            tap.test("reconnect/calls wait for the server to come back", () -> calls(server));
            tap.test("reconnect/a lease kept alive over a restart", () -> keepAlive(server));
        }
    }

    private static void watch(Server server, Ending ending, String key, int rounds) throws Exception {
        try (Client watching = server.client();
            Recorder recorder = Recorder.start(watching, b(key), WatchOption.builder().isPrefix(true))) {
            List<String> want = new ArrayList<>();
            for (int round = 0; round < rounds; round++) {
                try (Client writing = server.client()) {
                    want.addAll(write(writing.getKVClient(), key, 20));
                }
                recorder.expect(want);
                ending.end(server);
                server.start();
                // Written before the watcher is back, in all likelihood: it has to replay.
                try (Client writing = server.client()) {
                    want.addAll(write(writing.getKVClient(), key, 20));
                }
                recorder.expect(want);
            }
            eq(recorder.completed.getCount(), 1, "the listener has not heard of an end");
        }
    }

    private static List<String> write(KV kv, String key, int count) throws Exception {
        List<String> told = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            long revision = get(kv.put(b(key + i), b("v"))).getHeader().getRevision();
            told.add("PUT " + key + i + "=v@" + revision);
        }
        return told;
    }

    private static void calls(Server server) throws Exception {
        try (Client client = server.client()) {
            long revision = get(client.getKVClient().put(b("r3"), b("kept"))).getHeader().getRevision();
            server.kill();
            var waiting = client.getKVClient().get(b("r3"));
            server.start();
            var pair = get(waiting).getKvs().get(0);
            eq(pair.getValue(), b("kept"), "value");
            eq(pair.getModRevision(), revision, "mod revision");
        }
    }

    private static void keepAlive(Server server) throws Exception {
        try (Client client = server.client()) {
            KV kv = client.getKVClient();
            long lease = get(client.getLeaseClient().grant(6)).getID();
            get(kv.put(b("r4"), b("v"), PutOption.builder().withLeaseId(lease).build()));
            LeaseCases.Renewals renewals = new LeaseCases.Renewals();
            try (CloseableClient keeper = client.getLeaseClient().keepAlive(lease, renewals)) {
                until("there is a renewal", () -> !renewals.answers.isEmpty());
                server.kill();
                server.start();
                int before = renewals.answers.size();
                until("the client renews again", () -> renewals.answers.size() >= before + 2);
                eq(get(kv.get(b("r4"))).getKvs().get(0).getLease(), lease, "the lease of the key");
            }
            get(client.getLeaseClient().revoke(lease));
        }
    }
}
