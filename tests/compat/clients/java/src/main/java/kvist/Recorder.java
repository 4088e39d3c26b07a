package kvist;

import static kvist.Check.until;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import io.etcd.jetcd.watch.WatchEvent.EventType;
import io.etcd.jetcd.watch.WatchResponse;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/** A watcher that keeps everything that it was told. */
final class Recorder implements Watch.Listener, AutoCloseable {
    final List<WatchResponse> responses = new CopyOnWriteArrayList<>();
    final List<Throwable> errors = new CopyOnWriteArrayList<>();
    final CountDownLatch completed = new CountDownLatch(1);
    private final CountDownLatch created = new CountDownLatch(1);
    Watch.Watcher watcher;

    private Recorder() {
    }

    /** Watches, and returns when the server has answered; {@code option} must not ask to hear of the creation. */
    static Recorder start(Client client, ByteSequence key, WatchOption.Builder option) throws Exception {
        Recorder recorder = open(client, key, option);
        if (!recorder.created.await(Check.WAIT_SECS, TimeUnit.SECONDS)) {
            throw new AssertionError("the watch was not created; errors: " + recorder.errors);
        }
        return recorder;
    }

    /** Watches without waiting: for watches that are to be refused. */
    static Recorder open(Client client, ByteSequence key, WatchOption.Builder option) {
        Recorder recorder = new Recorder();
        recorder.watcher = client.getWatchClient().watch(key, option.withCreateNotify(true).build(), recorder);
        return recorder;
    }

    @Override
    public void onNext(WatchResponse response) {
        if (response.isCreatedNotify()) {
            created.countDown();
        } else {
            responses.add(response);
        }
    }

    @Override
    public void onError(Throwable error) {
        errors.add(error);
    }

    @Override
    public void onCompleted() {
        completed.countDown();
    }

    List<WatchEvent> events() {
        return responses.stream().flatMap(response -> response.getEvents().stream()).collect(Collectors.toList());
    }

    /** Events as text, such as {@code PUT key=value@7} and {@code DELETE key@8}. */
    List<String> told() {
        return events().stream().map(Recorder::text).collect(Collectors.toList());
    }

    private static String text(WatchEvent event) {
        String value = event.getEventType() == EventType.PUT ? "=" + event.getKeyValue().getValue() : "";
        return event.getEventType() + " " + event.getKeyValue().getKey() + value + "@"
            + event.getKeyValue().getModRevision();
    }

    /** Waits for as many events as there are in {@code want}, and compares. */
    void expect(List<String> want) throws Exception {
        try {
            until("there are " + want.size() + " events", () -> events().size() >= want.size());
        } catch (AssertionError e) {
            throw new AssertionError(e.getMessage() + "; there are " + told() + ", errors " + errors, e);
        }
        Check.eq(told(), want, "what the watcher was told");
    }

    @Override
    public void close() {
        watcher.close();
    }
}
