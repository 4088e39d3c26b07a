package kvist;

import java.util.logging.Level;
import java.util.logging.Logger;

/** Runs all cases, one feature after the other, and prints the plan last. */
public final class Main {
    /** gRPC tells of each answer that comes behind a call's end; held here, since loggers are kept weakly. */
    private static final Logger LOG = Logger.getLogger("io.grpc");

    private Main() {
    }

    public static void main(String[] args) throws Exception {
        LOG.setLevel(Level.WARNING);
        Tap tap = new Tap(args);
        Control control = new Control(System.getenv("KVIST_CONTROL"));
        try (Server server = control.server()) {
            KvCases.run(tap, server);
            TxnCases.run(tap, server);
            WatchCases.run(tap, server);
            LeaseCases.run(tap, server);
            LockCases.run(tap, server);
            ElectionCases.run(tap, server);
            LargeCases.run(tap, server);
        }
        CompactedCases.run(tap, control);
        ReconnectCases.run(tap, control);
        AuthCases.run(tap, control);
        TlsCases.run(tap, control);
        CancelCases.run(tap, control);
        MaintenanceCases.run(tap, control);
        tap.end();
        // Threads of Netty that are still winding up must not hold the process back.
        System.exit(0);
    }
}
