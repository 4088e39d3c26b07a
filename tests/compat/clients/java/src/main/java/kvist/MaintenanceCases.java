package kvist;

import static kvist.Check.b;
import static kvist.Check.eq;
import static kvist.Check.get;
import static kvist.Check.keys;
import static kvist.Check.refused;
import static kvist.Check.until;
import static kvist.Check.yes;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.Cluster;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.Maintenance;
import io.etcd.jetcd.cluster.Member;
import io.etcd.jetcd.maintenance.AlarmMember;
import io.etcd.jetcd.maintenance.AlarmType;
import io.etcd.jetcd.maintenance.SnapshotResponse;
import io.etcd.jetcd.maintenance.StatusResponse;
import io.etcd.jetcd.options.CompactOption;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.grpc.Status.Code;
import io.grpc.stub.StreamObserver;
import io.vertx.core.json.JsonObject;
import java.io.OutputStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/** Maintenance and members. */
final class MaintenanceCases {
    private MaintenanceCases() {
    }

    static void run(Tap tap, Control control) throws Exception {
        try (Server server = control.server(); Client client = server.client()) {
            tap.test("maintenance/status", () -> status(server, client));
            tap.test("maintenance/hash of all pairs", () -> hash(server, client));
            tap.test("maintenance/defragment", () -> defragment(server, client));
            tap.test("maintenance/a snapshot that etcdutl reads", () -> snapshot(client));
            tap.test("maintenance/a snapshot in pieces", () -> pieces(client));
            tap.test("maintenance/move-leader", () -> moveLeader(server, client));
            tap.test("maintenance/members", () -> members(server, client.getClusterClient()));
        }
        try (Server server = control.server("--quota-backend-bytes=16777216"); Client client = server.client()) {
            tap.test("maintenance/a full quota raises the alarm, and space that is freed lets it be disarmed",
                () -> quota(server, client));
        }
    }

    private static void status(Server server, Client client) throws Exception {
        long revision = get(client.getKVClient().put(b("m1"), b("v"))).getHeader().getRevision();
        StatusResponse status = get(client.getMaintenanceClient().statusMember(server.endpoint()));
        eq(status.getVersion(), "3.7.1", "version");
        eq(status.getHeader().getRevision(), revision, "revision");
        eq(status.getLeader(), status.getHeader().getMemberId(), "the leader is this member");
        yes(status.getRaftTerm() > 0, "a term");
        yes(status.getRaftIndex() >= revision - 1, "an index that is not behind the revisions");
        yes(status.getRaftAppliedIndex() <= status.getRaftIndex(), "what is applied is not ahead of the log");
        yes(status.getDbSize() >= status.getDbSizeInUse() && status.getDbSizeInUse() > 0, "sizes");
        eq(status.getErrorList(), List.of(), "errors");
        eq(status.isLearner(), false, "learner");
    }

    private static void hash(Server server, Client client) throws Exception {
        KV kv = client.getKVClient();
        Maintenance maintenance = client.getMaintenanceClient();
        long revision = get(kv.put(b("m2"), b("1"))).getHeader().getRevision();
        int first = get(maintenance.hashKV(server.endpoint(), 0)).getHash();
        get(kv.put(b("m2"), b("2")));
        eq(get(maintenance.hashKV(server.endpoint(), revision)).getHash(), first, "the hash of that revision later");
        yes(get(maintenance.hashKV(server.endpoint(), 0)).getHash() != first, "another hash after a change");
        eq(get(maintenance.hashKV(server.endpoint(), 0)).getCompacted(), -1, "the compacted revision of a new server");
        get(kv.compact(revision));
        eq(get(maintenance.hashKV(server.endpoint(), 0)).getCompacted(), revision, "the compacted revision");
        refused(maintenance.hashKV(server.endpoint(), revision + 1000), Code.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision is a future revision");
    }

    private static void defragment(Server server, Client client) throws Exception {
        KV kv = client.getKVClient();
        int before = get(client.getMaintenanceClient().hashKV(server.endpoint(), 0)).getHash();
        get(client.getMaintenanceClient().defragmentMember(server.endpoint()));
        eq(get(client.getMaintenanceClient().hashKV(server.endpoint(), 0)).getHash(), before, "the hash afterwards");
        get(kv.put(b("m3"), b("v")));
    }

    private static void snapshot(Client client) throws Exception {
        long revision = get(client.getKVClient().put(b("m4"), b("v"))).getHeader().getRevision();
        long count = get(client.getKVClient().get(ByteSequence.from(new byte[] {0}),
            GetOption.builder().withRange(ByteSequence.from(new byte[] {0})).withCountOnly(true).build())).getCount();
        Path file = Files.createTempFile(Path.of(System.getenv("KVIST_WORK")), "snapshot", ".db");
        try {
            long bytes;
            try (OutputStream out = Files.newOutputStream(file)) {
                bytes = get(client.getMaintenanceClient().snapshot(out));
            }
            eq(Files.size(file), bytes, "the size of the file");
            Process etcdutl = new ProcessBuilder(System.getenv("KVIST_TOOLS") + "/etcdutl", "snapshot", "status",
                file.toString(), "-w", "json").redirectError(ProcessBuilder.Redirect.INHERIT).start();
            String text = new String(etcdutl.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
            eq(etcdutl.waitFor(), 0, "the exit code of etcdutl");
            JsonObject about = new JsonObject(text);
            eq(about.getLong("revision"), revision, "the revision that etcdutl sees");
            yes(about.getLong("totalKey") >= count, "at least " + count + " keys, not " + about.getLong("totalKey"));
        } finally {
            Files.delete(file);
        }
    }

    private static void pieces(Client client) throws Exception {
        KV kv = client.getKVClient();
        for (int i = 0; i < 8; i++) {
            get(kv.put(b("m5-" + i), ByteSequence.from(new byte[256 << 10])));
        }
        CompletableFuture<String> end = new CompletableFuture<>();
        client.getMaintenanceClient().snapshot(new StreamObserver<SnapshotResponse>() {
            private long before = Long.MAX_VALUE;

            @Override
            public void onNext(SnapshotResponse piece) {
                // The last piece is a checksum behind the database, when nothing remains already.
                if (piece.getRemainingBytes() > before) {
                    end.complete(piece.getRemainingBytes() + " bytes left after " + before);
                }
                before = piece.getRemainingBytes();
            }

            @Override
            public void onError(Throwable error) {
                end.completeExceptionally(error);
            }

            @Override
            public void onCompleted() {
                end.complete(before + " bytes left");
            }
        });
        eq(get(end), "0 bytes left", "the end of the stream");
    }

    private static void moveLeader(Server server, Client client) throws Exception {
        Maintenance maintenance = client.getMaintenanceClient();
        long self = get(maintenance.statusMember(server.endpoint())).getLeader();
        // The leader itself is taken, though nothing moves.
        get(maintenance.moveLeader(self));
        refused(maintenance.moveLeader(self + 1), Code.FAILED_PRECONDITION, "etcdserver: bad leader transferee");
    }

    private static void members(Server server, Cluster cluster) throws Exception {
        List<Member> members = get(cluster.listMember()).getMembers();
        eq(members.size(), 1, "members");
        Member only = members.get(0);
        eq(only.getName(), "default", "name");
        eq(only.getClientURIs(), List.of(URI.create(server.endpoint())), "client URLs");
        eq(only.getPeerURIs(), List.of(URI.create(server.peerEndpoint())), "peer URLs");
        eq(only.isLearner(), false, "learner");
        refused(cluster.removeMember(only.getId() + 1), Code.NOT_FOUND, "etcdserver: member not found");
        refused(cluster.promoteMember(only.getId()), Code.FAILED_PRECONDITION,
            "etcdserver: can only promote a learner member");
        refused(cluster.addMember(List.of(URI.create(server.peerEndpoint()))), Code.FAILED_PRECONDITION,
            "etcdserver: Peer URLs already exists");
    }

    private static void quota(Server server, Client client) throws Exception {
        KV kv = client.getKVClient();
        Maintenance maintenance = client.getMaintenanceClient();
        eq(get(maintenance.listAlarms()).getAlarms(), List.of(), "alarms of a new server");
        String text = "etcdserver: mvcc: database space exceeded";
        int kept = 0;
        while (true) {
            yes(kept < 64, "the quota of 16 MiB is full after 64 values of 1 MiB at most");
            CompletableFuture<?> put = kv.put(b(String.format("m7-%02d", kept)), ByteSequence.from(new byte[1 << 20]));
            try {
                put.get(Check.WAIT_SECS, TimeUnit.SECONDS);
                kept++;
            } catch (ExecutionException e) {
                refused(put, Code.RESOURCE_EXHAUSTED, text);
                break;
            }
        }
        until("the alarm is there", () -> !get(maintenance.listAlarms()).getAlarms().isEmpty());
        AlarmMember alarm = get(maintenance.listAlarms()).getAlarms().get(0);
        eq(alarm.getAlarmType(), AlarmType.NOSPACE, "the alarm");
        StatusResponse status = get(maintenance.statusMember(server.endpoint()));
        eq(alarm.getMemberId(), status.getHeader().getMemberId(), "whose alarm it is");
        yes(status.getErrorList().stream().anyMatch(error -> error.contains("NOSPACE")), "the alarm in the status");
        refused(kv.put(b("m7-small"), b("v")), Code.RESOURCE_EXHAUSTED, text);
        eq(get(kv.get(b("m7-"), GetOption.builder().isPrefix(true).withKeysOnly(true).build())).getCount(), kept, "reads go on");
        long revision = get(kv.delete(b("m7-"), DeleteOption.builder().isPrefix(true).build())).getHeader().getRevision();
        get(kv.compact(revision, CompactOption.builder().withCompactPhysical(true).build()));
        get(maintenance.defragmentMember(server.endpoint()));
        eq(get(maintenance.alarmDisarm(alarm)).getAlarms().size(), 1, "alarms that were disarmed");
        eq(get(maintenance.listAlarms()).getAlarms(), List.of(), "alarms afterwards");
        get(kv.put(b("m7-small"), b("v")));
        eq(keys(get(kv.get(b("m7-"), GetOption.builder().isPrefix(true).build())).getKvs()), List.of("m7-small"), "keys");
    }
}
