package kvist;

import io.vertx.core.json.JsonArray;
import io.vertx.core.json.JsonObject;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;

/** The runner's service that starts and stops servers. */
final class Control {
    private final HttpClient http = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private final String base;

    Control(String base) {
        this.base = base;
    }

    Server server(String... flags) throws Exception {
        return create(new JsonObject(), flags);
    }

    Server tlsServer(boolean clientCertAuth) throws Exception {
        return create(new JsonObject().put("tls", true).put("client_cert_auth", clientCertAuth));
    }

    private Server create(JsonObject body, String... flags) throws Exception {
        JsonArray list = new JsonArray();
        for (String flag : flags) {
            list.add(flag);
        }
        return new Server(this, new JsonObject(send("POST", "/servers", body.put("flags", list).encode())));
    }

    String send(String method, String path, String body) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(base + path))
            .timeout(Duration.ofSeconds(60))
            .header("content-type", "application/json")
            .method(method, BodyPublishers.ofString(body))
            .build();
        HttpResponse<String> answer = http.send(request, BodyHandlers.ofString());
        if (answer.statusCode() / 100 != 2) {
            throw new IllegalStateException(method + " " + path + ": " + answer.statusCode() + " " + answer.body());
        }
        return answer.body();
    }

    /** A page of a server without TLS, such as its metrics. */
    String page(String url) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(10)).build();
        return http.send(request, BodyHandlers.ofString()).body();
    }
}
