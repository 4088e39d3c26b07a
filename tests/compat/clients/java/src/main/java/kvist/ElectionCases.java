package kvist;

import static kvist.Check.b;
import static kvist.Check.eq;
import static kvist.Check.error;
import static kvist.Check.get;
import static kvist.Check.until;
import static kvist.Check.yes;

import io.etcd.jetcd.Client;
import io.etcd.jetcd.Election;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.election.CampaignResponse;
import io.etcd.jetcd.election.LeaderKey;
import io.etcd.jetcd.election.LeaderResponse;
import io.etcd.jetcd.election.NoLeaderException;
import io.etcd.jetcd.election.NotLeaderException;
import io.etcd.jetcd.options.GetOption;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.stream.Collectors;

/** The election service. */
final class ElectionCases {
    private ElectionCases() {
    }

    static void run(Tap tap, Server server) throws Exception {
        try (Client one = server.client(); Client two = server.client()) {
            tap.test("election/campaign, leader, proclaim, resign", () -> campaign(one));
            tap.test("election/without candidates there is no leader", () -> noLeader(one));
            tap.test("election/the second candidate waits for the first to resign", () -> second(one, two));
            tap.test("election/fail-over when the leader's lease expires", () -> failOver(one, two));
            tap.test("election/observe tells of every leader and proclamation", () -> observe(one, two));
            tap.test("election/proclaiming after the office is lost", () -> notLeader(one, two));
        }
    }

    private static long lease(Client client, long ttl) throws Exception {
        return get(client.getLeaseClient().grant(ttl)).getID();
    }

    private static CompletableFuture<CampaignResponse> run(Client client, String name, long lease, String proposal) {
        return client.getElectionClient().campaign(b(name), lease, b(proposal));
    }

    private static KeyValue leader(Client client, String name) throws Exception {
        return get(client.getElectionClient().leader(b(name))).getKv();
    }

    private static void queued(Client client, String name, int count) throws Exception {
        until(count + " candidates are queued", () -> get(client.getKVClient().get(b(name + "/"),
            GetOption.builder().isPrefix(true).withCountOnly(true).build())).getCount() == count);
    }

    private static void campaign(Client client) throws Exception {
        long lease = lease(client, 60);
        LeaderKey office = get(run(client, "e1", lease, "one")).getLeader();
        eq(office.getName(), b("e1"), "the election's name");
        eq(office.getKey().toString(), "e1/" + Long.toHexString(lease), "the leader's key");
        eq(office.getLease(), lease, "the leader's lease");
        KeyValue pair = leader(client, "e1");
        eq(pair.getKey(), office.getKey(), "the key of the leader");
        eq(pair.getValue(), b("one"), "the proposal");
        eq(pair.getCreateRevision(), office.getRevision(), "the revision of the office");
        get(client.getElectionClient().proclaim(office, b("two")));
        pair = leader(client, "e1");
        eq(pair.getValue(), b("two"), "what is proclaimed");
        eq(pair.getCreateRevision(), office.getRevision(), "the revision of the office");
        get(client.getElectionClient().resign(office));
        yes(error(client.getElectionClient().leader(b("e1"))) instanceof NoLeaderException, "nobody leads");
        get(client.getLeaseClient().revoke(lease));
    }

    private static void noLeader(Client client) throws Exception {
        Throwable error = error(client.getElectionClient().leader(b("e2-nobody")));
        yes(error instanceof NoLeaderException, "a NoLeaderException, got " + error);
    }

    private static void second(Client one, Client two) throws Exception {
        long leaseOne = lease(one, 60);
        long leaseTwo = lease(two, 60);
        LeaderKey first = get(run(one, "e3", leaseOne, "one")).getLeader();
        CompletableFuture<CampaignResponse> waiting = run(two, "e3", leaseTwo, "two");
        queued(one, "e3", 2);
        yes(!waiting.isDone(), "the second waits");
        eq(leader(two, "e3").getValue(), b("one"), "the leader");
        get(one.getElectionClient().resign(first));
        LeaderKey next = get(waiting).getLeader();
        yes(next.getRevision() > first.getRevision(), "the second came later");
        eq(leader(one, "e3").getValue(), b("two"), "the next leader");
        get(one.getLeaseClient().revoke(leaseOne));
        get(two.getLeaseClient().revoke(leaseTwo));
    }

    private static void failOver(Client one, Client two) throws Exception {
        long shortLease = lease(one, 2);
        long leaseTwo = lease(two, 60);
        get(run(one, "e4", shortLease, "one"));
        CompletableFuture<CampaignResponse> waiting = run(two, "e4", leaseTwo, "two");
        get(waiting);
        eq(leader(one, "e4").getValue(), b("two"), "the leader after the first one's lease expired");
        eq(leader(one, "e4").getLease(), leaseTwo, "its lease");
        get(two.getLeaseClient().revoke(leaseTwo));
    }

    /** Keeps what an observer was told. */
    private static final class Observer implements Election.Listener {
        final List<KeyValue> leaders = new CopyOnWriteArrayList<>();
        final List<Throwable> errors = new CopyOnWriteArrayList<>();

        @Override
        public void onNext(LeaderResponse response) {
            leaders.add(response.getKv());
        }

        @Override
        public void onError(Throwable error) {
            errors.add(error);
        }

        @Override
        public void onCompleted() {
            errors.add(new IllegalStateException("completed"));
        }

        /** Waits until the newest thing that was told is {@code value}. */
        void hears(String value) throws Exception {
            until("the observer hears of " + value, () -> !leaders.isEmpty()
                && leaders.get(leaders.size() - 1).getValue().equals(b(value)));
        }

        List<String> told() {
            return leaders.stream().map(pair -> pair.getValue().toString()).collect(Collectors.toList());
        }
    }

    private static void observe(Client one, Client two) throws Exception {
        Observer observer = new Observer();
        long leaseOne = lease(one, 60);
        long leaseTwo = lease(two, 60);
        LeaderKey first = get(run(one, "e5", leaseOne, "one")).getLeader();
        one.getElectionClient().observe(b("e5"), observer);
        observer.hears("one");
        get(one.getElectionClient().proclaim(first, b("one again")));
        observer.hears("one again");
        CompletableFuture<CampaignResponse> waiting = run(two, "e5", leaseTwo, "two");
        queued(one, "e5", 2);
        get(one.getElectionClient().resign(first));
        get(waiting);
        observer.hears("two");
        eq(observer.told(), List.of("one", "one again", "two"), "what the observer was told");
        eq(observer.errors, List.of(), "errors of the observer");
        get(one.getLeaseClient().revoke(leaseOne));
        get(two.getLeaseClient().revoke(leaseTwo));
    }

    private static void notLeader(Client one, Client two) throws Exception {
        long leaseOne = lease(one, 60);
        long leaseTwo = lease(two, 60);
        LeaderKey first = get(run(one, "e6", leaseOne, "one")).getLeader();
        CompletableFuture<CampaignResponse> waiting = run(two, "e6", leaseTwo, "two");
        queued(one, "e6", 2);
        get(two.getLeaseClient().revoke(leaseOne));
        get(waiting);
        Throwable error = error(one.getElectionClient().proclaim(first, b("late")));
        yes(error instanceof NotLeaderException, "a NotLeaderException, got " + error);
        // Resigning from an office that is lost changes nothing.
        get(one.getElectionClient().resign(first));
        eq(leader(one, "e6").getValue(), b("two"), "the leader");
        get(two.getLeaseClient().revoke(leaseTwo));
    }
}
