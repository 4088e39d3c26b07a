package kvist;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.common.exception.ErrorCode;
import io.etcd.jetcd.common.exception.EtcdException;
import io.grpc.Status;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.Collectors;

/** Assertions, and waiting with a deadline. */
final class Check {
    /** How long anything may take before the case fails. */
    static final long WAIT_SECS = 30;

    private Check() {
    }

    /** A condition to wait for. */
    interface Condition {
        boolean holds() throws Exception;
    }

    static ByteSequence b(String text) {
        return ByteSequence.from(text, StandardCharsets.UTF_8);
    }

    static void eq(Object got, Object want, String what) {
        // Numbers of different width are compared by value.
        boolean same = got instanceof Number g && want instanceof Number w ? g.longValue() == w.longValue()
            : Objects.equals(got, want);
        if (!same) {
            throw new AssertionError(what + " is " + got + " and should be " + want);
        }
    }

    static void yes(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError("expected: " + what);
        }
    }

    /** The result of a call that has to succeed. */
    static <T> T get(CompletableFuture<T> call) throws Exception {
        try {
            return call.get(WAIT_SECS, TimeUnit.SECONDS);
        } catch (ExecutionException e) {
            throw new AssertionError("the call failed: " + e.getCause(), e.getCause());
        } catch (TimeoutException e) {
            throw new AssertionError("the call was not answered");
        }
    }

    /** What a call that has to fail failed with. */
    static Throwable error(CompletableFuture<?> call) throws Exception {
        try {
            Object answer = call.get(WAIT_SECS, TimeUnit.SECONDS);
            throw new AssertionError("the call should have failed; its answer: " + answer);
        } catch (ExecutionException e) {
            Throwable cause = e;
            while ((cause instanceof ExecutionException || cause instanceof CompletionException)
                && cause.getCause() != null) {
                cause = cause.getCause();
            }
            return cause;
        } catch (TimeoutException e) {
            throw new AssertionError("the call was not answered");
        }
    }

    /** The call has to fail with this code and text. */
    static void refused(CompletableFuture<?> call, Status.Code code, String text) throws Exception {
        Throwable error = error(call);
        if (error instanceof EtcdException etcd) {
            etcdError(etcd, ErrorCode.valueOf(code.name()), text);
            return;
        }
        Status status = Status.fromThrowable(error);
        eq(status.getCode() + ": " + status.getDescription(), code + ": " + text, "the error");
    }

    /** An error as jetcd's own exception tells it. */
    static void etcdError(Throwable error, ErrorCode code, String text) {
        yes(error instanceof EtcdException, "an EtcdException, got " + error);
        EtcdException etcd = (EtcdException) error;
        eq(etcd.getErrorCode() + ": " + etcd.getMessage(), code + ": " + text, "the error");
    }

    static void until(String what, Condition condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECS);
        while (!condition.holds()) {
            if (System.nanoTime() > end) {
                throw new AssertionError("waited in vain until " + what);
            }
            TimeUnit.MILLISECONDS.sleep(20);
        }
    }

    static List<String> keys(List<KeyValue> pairs) {
        return pairs.stream().map(pair -> pair.getKey().toString()).collect(Collectors.toList());
    }

    static List<String> values(List<KeyValue> pairs) {
        return pairs.stream().map(pair -> pair.getValue().toString()).collect(Collectors.toList());
    }
}
