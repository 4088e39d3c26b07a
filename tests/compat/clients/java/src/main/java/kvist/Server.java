package kvist;

import io.etcd.jetcd.Client;
import io.etcd.jetcd.ClientBuilder;
import io.vertx.core.json.JsonObject;
import java.io.File;
import java.time.Duration;

/** A server of this suite; it ends with {@link #close}. */
final class Server implements AutoCloseable {
    private final Control control;
    private final JsonObject about;

    Server(Control control, JsonObject about) {
        this.control = control;
        this.about = about;
    }

    String endpoint() {
        return about.getString("endpoint");
    }

    String peerEndpoint() {
        return about.getString("peer_endpoint");
    }

    File file(String name) {
        return new File(about.getString(name));
    }

    /** A builder with this server's endpoint and jetcd's defaults, but for the time that it goes on trying. */
    ClientBuilder builder() {
        return Client.builder().endpoints(endpoint()).retryMaxDuration(Duration.ofSeconds(15));
    }

    Client client() {
        return builder().build();
    }

    void kill() throws Exception {
        act("kill");
    }

    void stop() throws Exception {
        act("stop");
    }

    void start() throws Exception {
        act("start");
    }

    void pause() throws Exception {
        act("pause");
    }

    void resume() throws Exception {
        act("resume");
    }

    /** The value of a metric without labels. */
    long metric(String name) throws Exception {
        for (String line : control.page(endpoint() + "/metrics").split("\n")) {
            if (line.startsWith(name + " ")) {
                return (long) Double.parseDouble(line.substring(name.length() + 1));
            }
        }
        throw new AssertionError("there is no metric " + name);
    }

    private void act(String verb) throws Exception {
        control.send("POST", path() + "/" + verb, "");
    }

    @Override
    public void close() throws Exception {
        control.send("DELETE", path(), "");
    }

    private String path() {
        return "/servers/" + about.getInteger("id");
    }
}
