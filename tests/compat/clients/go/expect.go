package main

// Assertions in the words of the client: pairs, events, errors, and waiting with a deadline.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How long something may take that takes milliseconds, or a lease's second, on an idle machine.
const patience = 15 * time.Second

// refused asserts an error that the client surfaces as one of etcd's own, with its text.
func refused(err, want error) {
	var known rpctypes.EtcdError
	switch {
	case err == nil:
		fail("succeeded, want %q", want)
	case !errors.Is(err, want):
		fail("got %q, want %q", err, want)
	case errors.As(want, &known) && err.Error() != want.Error():
		fail("got the text %q, want %q", err, want)
	}
}

// denied asserts that a call is not permitted.
func denied(_ any, err error) { refused(err, rpctypes.ErrPermissionDenied) }

// refusedWith asserts code and text of an error that the client has no name for.
func refusedWith(err error, code codes.Code, text string) {
	check(err != nil, "succeeded, want %q", text)
	got := status.Code(err)
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		got = known.Code()
	}
	check(got == code && strings.Contains(err.Error(), text), "got %v %q, want %v %q", got, err, code, text)
}

// brief writes pairs as "key=value", separated by spaces.
func brief(kvs []*mvccpb.KeyValue) string {
	words := make([]string, len(kvs))
	for i, kv := range kvs {
		words[i] = fmt.Sprintf("%s=%s", kv.Key, kv.Value)
	}
	return strings.Join(words, " ")
}

// full writes a pair with create revision, mod revision, version, and the lease where there is one.
func full(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return "none"
	}
	text := fmt.Sprintf("%s=%s %d/%d/%d", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version)
	if kv.Lease != 0 {
		text += fmt.Sprintf(" lease %x", kv.Lease)
	}
	return text
}

// event writes "PUT key=value @revision" or "DELETE key @revision".
func event(ev *clientv3.Event) string {
	if ev.Type == clientv3.EventTypeDelete {
		return fmt.Sprintf("DELETE %s @%d", ev.Kv.Key, ev.Kv.ModRevision)
	}
	return fmt.Sprintf("PUT %s=%s @%d", ev.Kv.Key, ev.Kv.Value, ev.Kv.ModRevision)
}

// receive takes the next value of a channel, or fails if there is none in time.
func receive[V any](t *T, what string, from <-chan V) V {
	select {
	case value, open := <-from:
		check(open, "%s: the channel is closed", what)
		return value
	case <-time.After(patience):
		fail("%s: nothing came within %v", what, patience)
	case <-t.ctx.Done():
		fail("%s: the case ran out of time", what)
	}
	panic("unreachable")
}

// closed asserts that a channel is closed in time, and returns what came before.
func closed[V any](t *T, what string, from <-chan V) (rest []V) {
	deadline := time.After(patience)
	for {
		select {
		case value, open := <-from:
			if !open {
				return rest
			}
			rest = append(rest, value)
		case <-deadline:
			fail("%s: still open after %v", what, patience)
		case <-t.ctx.Done():
			fail("%s: the case ran out of time", what)
		}
	}
}

// silent asserts that nothing has come on a channel so far.
func silent[V any](what string, from <-chan V) {
	select {
	case value, open := <-from:
		fail("%s: got %v (open: %v) too early", what, value, open)
	default:
	}
}

// events takes n events from a watch, whatever messages they come in.
func events(t *T, from clientv3.WatchChan, n int) (all []*clientv3.Event) {
	for len(all) < n {
		response := receive(t, fmt.Sprintf("event %d of %d", len(all)+1, n), from)
		ok(response.Err())
		all = append(all, response.Events...)
	}
	return all
}

// sees asserts the next events of a watch.
func sees(t *T, from clientv3.WatchChan, want ...string) {
	var got []string
	for _, ev := range events(t, from, len(want)) {
		got = append(got, event(ev))
	}
	eq("events", got, want)
}

// until waits for a condition with a deadline.
func until(t *T, what string, holds func() bool) {
	deadline := time.Now().Add(patience)
	for !holds() {
		check(time.Now().Before(deadline) && t.ctx.Err() == nil, "%s: not within %v", what, patience)
		time.Sleep(20 * time.Millisecond)
	}
}

// async runs a call in the background; its error comes on the channel.
func async(call func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	return done
}

// put, get and del with the fewest words.
func put(t *T, c clientv3.KV, key, value string, opts ...clientv3.OpOption) *clientv3.PutResponse {
	return must(c.Put(t.ctx, key, value, opts...))
}

func get(t *T, c clientv3.KV, key string, opts ...clientv3.OpOption) *clientv3.GetResponse {
	return must(c.Get(t.ctx, key, opts...))
}

// reads asserts the pairs that a read gives.
func reads(t *T, c clientv3.KV, want, key string, opts ...clientv3.OpOption) {
	eq("get "+key, brief(get(t, c, key, opts...).Kvs), want)
}

// short is a context for calls that must not be answered.
func (t *T) short() (context.Context, context.CancelFunc) {
	return t.within(300 * time.Millisecond)
}

func (t *T) within(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.ctx, limit)
}

// shut asserts that a client gets no answer. It goes on trying to connect, so that its error is a deadline; the
// reason is in what `handshake` returns.
func shut(t *T, c *clientv3.Client) {
	ctx, cancel := t.within(time.Second)
	defer cancel()
	_, err := c.Get(ctx, "k")
	refused(err, context.DeadlineExceeded)
}
