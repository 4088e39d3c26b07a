package kvist;

import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Runs cases one by one and prints a TAP line as soon as each is over. A case that hangs is given up, as a failure. */
final class Tap {
    private static final long CASE_SECS_MAX = 90;

    private final PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private final ExecutorService threads = Executors.newCachedThreadPool(r -> {
        Thread thread = new Thread(r, "case");
        thread.setDaemon(true);
        return thread;
    });
    private final String[] wanted;
    private int count;

    /** One case; whatever it throws is its failure. */
    interface Case {
        void run() throws Exception;
    }

    /** With {@code wanted} empty, every case runs; else those whose name begins with one of these. */
    Tap(String[] wanted) {
        this.wanted = wanted;
    }

    /** Runs {@code body} and prints its line; {@code name} begins with the feature and a slash. */
    void test(String name, Case body) {
        if (!selected(name)) {
            return;
        }
        count++;
        Future<?> result = threads.submit(() -> {
            body.run();
            return null;
        });
        try {
            result.get(CASE_SECS_MAX, TimeUnit.SECONDS);
            out.println("ok - " + name);
        } catch (ExecutionException e) {
            fail(name, e.getCause());
        } catch (TimeoutException e) {
            result.cancel(true);
            fail(name, new AssertionError("not over after " + CASE_SECS_MAX + " s"));
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    private boolean selected(String name) {
        for (String prefix : wanted) {
            if (name.startsWith(prefix)) {
                return true;
            }
        }
        return wanted.length == 0;
    }

    private void fail(String name, Throwable why) {
        String reason = why instanceof AssertionError ? why.getMessage() : why.toString();
        out.println("not ok - " + name + ": " + reason.replaceAll("\\s+", " "));
        for (StackTraceElement frame : why.getStackTrace()) {
            if (frame.getClassName().startsWith("kvist.")) {
                out.println("#   at " + frame);
            }
        }
    }

    void end() {
        out.println("1.." + count);
    }
}
