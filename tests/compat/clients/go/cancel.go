package main

// Deadlines and cancellation, at the client's side and as the server feels them.

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc/codes"
)

func init() {
	add("cancel", "a deadline on a server that stands still", cancelPaused)
	add("cancel", "a context that is over before the call", cancelBefore)
	add("cancel", "a cancelled watch ends alone", cancelWatch)
	add("cancel", "Close of the watcher ends its watches", cancelWatcherClose)
	add("cancel", "Close of the client ends everything", cancelClose)
	add("cancel", "a watch without permission to wait has no leader", cancelRequireLeader)
	add("cancel", "a cancelled lock and campaign leave no keys", cancelLock)
	add("cancel", "a cancelled stream of pairs", cancelStream)
	add("cancel", "no server at all", cancelNoServer)
	add("cancel", "watches come and go by the hundred", cancelChurn)
}

func cancelPaused(t *T) {
	s := t.start()
	c := t.connect(s)
	put(t, c, "k", "1")
	watch := c.Watch(t.ctx, "k", clientv3.WithRev(2))
	sees(t, watch, "PUT k=1 @2")
	s.do("pause")
	t.defers(func() { _, _ = control("POST", fmt.Sprintf("/servers/%d/resume", s.ID), nil) })
	for name, call := range map[string]func(context.Context) error{
		"get":    func(ctx context.Context) error { _, err := c.Get(ctx, "k"); return err },
		"put":    func(ctx context.Context) error { _, err := c.Put(ctx, "k", "2"); return err },
		"txn":    func(ctx context.Context) error { _, err := c.Txn(ctx).Then(clientv3.OpGet("k")).Commit(); return err },
		"grant":  func(ctx context.Context) error { _, err := c.Grant(ctx, 60); return err },
		"status": func(ctx context.Context) error { _, err := c.Status(ctx, s.Endpoint); return err },
	} {
		ctx, cancel := t.short()
		err := call(ctx)
		cancel()
		check(err != nil && ctx.Err() == context.DeadlineExceeded, "%s: got %v", name, err)
		refused(err, context.DeadlineExceeded)
	}
	s.do("resume")
	put(t, c, "k", "3")
	until(t, "the watch goes on", func() bool { return string(events(t, watch, 1)[0].Kv.Value) == "3" })
}

func cancelBefore(t *T) {
	c := t.fresh()
	ctx, cancel := t.child()
	cancel()
	_, err := c.Put(ctx, "k", "v")
	refused(err, context.Canceled)
	closed(t, "the watch", c.Watch(ctx, "k"))
	eq("revision", get(t, c, "k").Header.Revision, int64(1))
}

func cancelWatch(t *T) {
	c := t.fresh()
	ctx, cancel := t.child()
	one := c.Watch(ctx, "k", clientv3.WithCreatedNotify())
	two := c.Watch(t.ctx, "k", clientv3.WithCreatedNotify())
	receive(t, "created", one)
	receive(t, "created", two)
	put(t, c, "k", "1")
	sees(t, one, "PUT k=1 @2")
	cancel()
	closed(t, "the cancelled watch", one)
	put(t, c, "k", "2")
	sees(t, two, "PUT k=1 @2", "PUT k=2 @3")
}

func cancelWatcherClose(t *T) {
	c := t.fresh()
	watcher := clientv3.NewWatcher(c)
	watch := watcher.Watch(t.ctx, "k", clientv3.WithCreatedNotify())
	other := c.Watch(t.ctx, "k", clientv3.WithCreatedNotify())
	receive(t, "created", watch)
	receive(t, "created", other)
	ok(watcher.Close())
	closed(t, "the watch", watch)
	put(t, c, "k", "1")
	sees(t, other, "PUT k=1 @2")
}

func cancelClose(t *T) {
	s := t.start()
	c := t.connect(s)
	lease := must(c.Grant(t.ctx, 60)).ID
	renewals := must(c.KeepAlive(t.ctx, lease))
	watch := c.Watch(t.ctx, "k", clientv3.WithCreatedNotify())
	receive(t, "created", watch)
	ok(c.Close())
	closed(t, "the watch", watch)
	closed(t, "renewals", renewals)
	_, err := c.Get(t.ctx, "k")
	check(clientv3.IsConnCanceled(err), "got %v", err)
	eq("the lease lives on", must(t.connect(s).TimeToLive(t.ctx, lease)).GrantedTTL, int64(60))
}

func cancelRequireLeader(t *T) {
	c := t.fresh()
	ctx := clientv3.WithRequireLeader(t.ctx)
	put(t, c, "k", "1")
	sees(t, c.Watch(ctx, "k", clientv3.WithRev(1)), "PUT k=1 @2")
	eq("read", brief(must(c.Get(ctx, "k")).Kvs), "k=1")
}

func cancelLock(t *T) {
	s := t.start()
	c := t.connect(s)
	holder, waiter := session(t, s, 60), session(t, s, 60)
	ok(concurrency.NewMutex(holder, "lock").Lock(t.ctx))
	ok(concurrency.NewElection(holder, "e").Campaign(t.ctx, "v"))
	ctx, cancel := t.short()
	defer cancel()
	lock := async(func() error { return concurrency.NewMutex(waiter, "lock").Lock(ctx) })
	campaign := async(func() error { return concurrency.NewElection(waiter, "e").Campaign(ctx, "w") })
	refused(receive(t, "the lock", lock), context.DeadlineExceeded)
	refused(receive(t, "the campaign", campaign), context.DeadlineExceeded)
	waiting(t, c, "lock/", 1)
	waiting(t, c, "e/", 1)
}

func cancelStream(t *T) {
	c := t.fresh()
	fill(t, c, 2000, 10_000)
	ctx, cancel := t.child()
	stream := must(c.GetStream(ctx, "k", clientv3.WithPrefix()))
	chunk := receive(t, "a chunk", stream)
	ok(chunk.Err())
	cancel()
	rest := closed(t, "the stream", stream)
	last := rest[len(rest)-1]
	refused(last.Err(), context.Canceled)
	eq("count", get(t, c, "k", clientv3.WithPrefix(), clientv3.WithCountOnly()).Count, int64(2000))
}

func cancelNoServer(t *T) {
	s := t.start()
	c := t.connect(s)
	put(t, c, "k", "v")
	s.do("kill")
	ctx, cancel := t.short()
	defer cancel()
	_, err := c.Put(ctx, "k", "w")
	check(err != nil, "a put without a server succeeded")
	ctx, cancel = t.short()
	defer cancel()
	_, err = t.connect(s).Get(ctx, "k")
	refused(err, context.DeadlineExceeded)
	_, err = t.dial(s, func(config *clientv3.Config) { config.Endpoints = nil })
	refused(err, clientv3.ErrNoAvailableEndpoints)
}

func cancelChurn(t *T) {
	c := t.fresh()
	for i := range 300 {
		ctx, cancel := context.WithCancel(t.ctx)
		watch := c.Watch(ctx, fmt.Sprintf("k%d", i%3), clientv3.WithCreatedNotify())
		if i%2 == 0 {
			receive(t, "created", watch)
		}
		cancel()
		closed(t, "the watch", watch)
	}
	put(t, c, "k0", "v")
	sees(t, c.Watch(t.ctx, "k0", clientv3.WithRev(1)), "PUT k0=v @2")
	_, err := c.Get(t.ctx, "k", clientv3.WithRev(99))
	refusedWith(err, codes.OutOfRange, rpctypes.ErrFutureRev.Error())
}
