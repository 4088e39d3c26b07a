package kvist;

import static kvist.Check.b;
import static kvist.Check.eq;
import static kvist.Check.error;
import static kvist.Check.get;
import static kvist.Check.yes;

import io.etcd.jetcd.Client;
import io.etcd.jetcd.options.WatchOption;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.netty.GrpcSslContexts;
import io.netty.handler.ssl.SslContextBuilder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.time.Duration;
import java.util.List;
import javax.net.ssl.KeyManagerFactory;

/** TLS through the JDK's own implementation. */
final class TlsCases {
    private TlsCases() {
    }

    static void run(Tap tap, Control control) throws Exception {
        try (Server server = control.tlsServer(false)) {
            tap.test("tls/a server that the CA vouches for", () -> trusted(server));
            tap.test("tls/a server of an unknown CA is refused", () -> unknownCa(server));
            tap.test("tls/a name that is not in the certificate is refused", () -> wrongName(server));
            tap.test("tls/a client without TLS is refused", () -> plain(server));
        }
        try (Server server = control.tlsServer(true)) {
            tap.test("tls/a client with its certificate", () -> clientCertificate(server));
            tap.test("tls/a client without a certificate is refused", () -> noCertificate(server));
            tap.test("tls/a client whose certificate is of an unknown CA is refused", () -> strangeCertificate(server));
            tap.test("tls/a watcher over a restart", () -> restart(server));
        }
    }

    private static SslContextBuilder ssl() {
        return GrpcSslContexts.forClient();
    }

    /** A client that gives up at once when it cannot connect. */
    private static Client client(Server server, SslContextBuilder ssl) throws Exception {
        return server.builder().waitForReady(false).retryMaxAttempts(1).retryDelay(10).retryMaxDelay(20)
            .connectTimeout(Duration.ofSeconds(5)).sslContext(ssl.build()).build();
    }

    private static SslContextBuilder withCertificate(Server server) {
        return ssl().trustManager(server.file("ca")).keyManager(server.file("cert"), server.file("key"));
    }

    private static void works(Client client, String key) throws Exception {
        long revision = get(client.getKVClient().put(b(key), b("v"))).getHeader().getRevision();
        eq(get(client.getKVClient().get(b(key))).getKvs().get(0).getModRevision(), revision, "mod revision");
        try (Recorder recorder = Recorder.start(client, b(key), WatchOption.builder().withRevision(revision))) {
            recorder.expect(List.of("PUT " + key + "=v@" + revision));
        }
    }

    private static void unavailable(Client client, String... words) throws Exception {
        Throwable error = error(client.getKVClient().get(b("tls")));
        eq(Status.fromThrowable(error).getCode(), Code.UNAVAILABLE, "the code");
        StringBuilder causes = new StringBuilder();
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            causes.append(cause).append("; ");
        }
        boolean said = words.length == 0;
        for (String word : words) {
            said |= causes.toString().contains(word);
        }
        yes(said, "an error with one of " + List.of(words) + ", got " + causes);
    }

    private static void trusted(Server server) throws Exception {
        try (Client client = client(server, ssl().trustManager(server.file("ca")))) {
            works(client, "tls1");
        }
        String localhost = server.endpoint().replace("127.0.0.1", "localhost");
        try (Client client = Client.builder().endpoints(localhost)
            .sslContext(ssl().trustManager(server.file("ca")).build()).build()) {
            works(client, "tls1-localhost");
        }
    }

    private static void unknownCa(Server server) throws Exception {
        // Only the authorities that the JDK knows.
        try (Client client = client(server, ssl())) {
            unavailable(client, "unable to find valid certification path");
        }
    }

    private static void wrongName(Server server) throws Exception {
        try (Client client = server.builder().waitForReady(false).retryMaxAttempts(1).retryDelay(10).retryMaxDelay(20)
            .authority("elsewhere.example").sslContext(ssl().trustManager(server.file("ca")).build()).build()) {
            unavailable(client, "No subject alternative DNS name matching elsewhere.example found",
                "No name matching elsewhere.example found");
        }
    }

    private static void plain(Server server) throws Exception {
        String endpoint = server.endpoint().replace("https:", "http:");
        try (Client client = Client.builder().endpoints(endpoint).waitForReady(false).retryMaxAttempts(1).retryDelay(10)
            .retryMaxDelay(20).build()) {
            // Internal if the server ends the connection with an alert of TLS, which is no HTTP; unavailable if without.
            Code code = Status.fromThrowable(error(client.getKVClient().get(b("tls")))).getCode();
            yes(code == Code.UNAVAILABLE || code == Code.INTERNAL, "unavailable or internal, got " + code);
        }
    }

    private static void clientCertificate(Server server) throws Exception {
        try (Client client = client(server, withCertificate(server))) {
            works(client, "tls5");
        }
    }

    private static void noCertificate(Server server) throws Exception {
        try (Client client = client(server, ssl().trustManager(server.file("ca")))) {
            unavailable(client);
        }
    }

    private static void strangeCertificate(Server server) throws Exception {
        Path store = Files.createTempDirectory(Path.of(System.getenv("KVIST_WORK")), "stranger").resolve("store");
        char[] password = "stranger".toCharArray();
        try {
            Process keytool = new ProcessBuilder("keytool", "-genkeypair", "-alias", "stranger", "-dname", "CN=stranger",
                "-keyalg", "EC", "-groupname", "secp256r1", "-storetype", "PKCS12", "-storepass", "stranger", "-keystore",
                store.toString()).redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.DISCARD).start();
            eq(keytool.waitFor(), 0, "the exit code of keytool");
            KeyStore keys = KeyStore.getInstance(store.toFile(), password);
            KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            factory.init(keys, password);
            try (Client client = client(server, ssl().trustManager(server.file("ca")).keyManager(factory))) {
                unavailable(client);
            }
        } finally {
            Files.deleteIfExists(store);
            Files.delete(store.getParent());
        }
    }

    private static void restart(Server server) throws Exception {
        try (Client client = server.builder().sslContext(withCertificate(server).build()).build();
            Recorder recorder = Recorder.start(client, b("tls8"), WatchOption.builder())) {
            long revision = get(client.getKVClient().put(b("tls8"), b("1"))).getHeader().getRevision();
            recorder.expect(List.of("PUT tls8=1@" + revision));
            server.kill();
            server.start();
            get(client.getKVClient().put(b("tls8"), b("2")));
            recorder.expect(List.of("PUT tls8=1@" + revision, "PUT tls8=2@" + (revision + 1)));
        }
    }
}
