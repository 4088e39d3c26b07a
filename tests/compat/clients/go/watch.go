package main

// Watches within the life of a server.

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func init() {
	add("watch", "from now on, a key alone", watchKey)
	add("watch", "prefix, range, from-key and everything", watchRanges)
	add("watch", "replay from a revision, whole and in order", watchReplay)
	add("watch", "a transaction arrives in one message", watchTxn)
	add("watch", "prev_kv", watchPrevious)
	add("watch", "filters for puts and deletes", watchFilters)
	add("watch", "created notification", watchCreated)
	add("watch", "progress on request", watchProgress)
	add("watch", "progress by time", watchProgressByTime)
	add("watch", "a thousand watches on one stream", watchMany)
	add("watch", "streams of their own by metadata", watchStreams)
	add("watch", "fragments are joined", watchFragments)
	add("watch", "a future revision waits for it", watchFuture)
	add("watch", "compacted start tells the compact revision", watchCompacted)
	add("watch", "replay and live events without gap or repeat", watchUnderLoad)
}

func watchKey(t *T) {
	c := t.fresh()
	put(t, c, "k", "0")
	watch := c.Watch(t.ctx, "k", clientv3.WithCreatedNotify())
	check(receive(t, "created", watch).Created, "the first message says created")
	put(t, c, "k", "1")
	put(t, c, "kk", "other")
	must(c.Delete(t.ctx, "k"))
	put(t, c, "k", "2")
	all := events(t, watch, 3)
	eq("event", event(all[0])+" "+full(all[0].Kv), "PUT k=1 @3 k=1 2/3/2")
	eq("event", event(all[1])+" "+full(all[1].Kv), "DELETE k @5 k= 0/5/0")
	eq("event", event(all[2])+" "+full(all[2].Kv), "PUT k=2 @6 k=2 6/6/1")
	check(all[0].IsModify() && !all[0].IsCreate() && all[2].IsCreate(), "created and modified keys are told apart")
}

func watchRanges(t *T) {
	c := t.fresh()
	from := clientv3.WithRev(1)
	for _, key := range []string{"a", "b1", "b2", "c", "\xff"} {
		put(t, c, key, "v")
	}
	sees(t, c.Watch(t.ctx, "b", clientv3.WithPrefix(), from), "PUT b1=v @3", "PUT b2=v @4")
	sees(t, c.Watch(t.ctx, "a", clientv3.WithRange("b2"), from), "PUT a=v @2", "PUT b1=v @3")
	sees(t, c.Watch(t.ctx, "b2", clientv3.WithFromKey(), from), "PUT b2=v @4", "PUT c=v @5", "PUT \xff=v @6")
	sees(t, c.Watch(t.ctx, "", clientv3.WithPrefix(), from),
		"PUT a=v @2", "PUT b1=v @3", "PUT b2=v @4", "PUT c=v @5", "PUT \xff=v @6")
}

func watchReplay(t *T) {
	const changes = 3000
	c := t.fresh()
	for i := 0; i < changes; i += 100 {
		var ops []clientv3.Op
		for j := range 100 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("k%d", j), fmt.Sprint(i+j)))
		}
		must(c.Txn(t.ctx).Then(ops...).Commit())
	}
	put(t, c, "k0", "last")
	all := events(t, c.Watch(t.ctx, "k", clientv3.WithPrefix(), clientv3.WithRev(3)), changes-100+1)
	for i, ev := range all[:changes-100] {
		eq("event", event(ev), fmt.Sprintf("PUT k%d=%d @%d", i%100, 100+i, 3+i/100))
	}
	eq("the last one", event(all[changes-100]), "PUT k0=last @32")
}

func watchTxn(t *T) {
	c := t.fresh()
	put(t, c, "b", "old")
	watch := c.Watch(t.ctx, "", clientv3.WithPrefix(), clientv3.WithRev(3))
	must(c.Txn(t.ctx).Then(clientv3.OpPut("a", "1"), clientv3.OpDelete("b"), clientv3.OpPut("c", "1")).Commit())
	answer := receive(t, "the transaction", watch)
	eq("header", answer.Header.Revision, int64(3))
	var got []string
	for _, ev := range answer.Events {
		got = append(got, event(ev))
	}
	eq("events", strings.Join(got, ", "), "PUT a=1 @3, DELETE b @3, PUT c=1 @3")
}

func watchPrevious(t *T) {
	c := t.fresh()
	watch := c.Watch(t.ctx, "k", clientv3.WithPrevKV(), clientv3.WithRev(2))
	put(t, c, "k", "1")
	put(t, c, "k", "2")
	must(c.Delete(t.ctx, "k"))
	all := events(t, watch, 3)
	eq("of the first put", full(all[0].PrevKv), "none")
	eq("of the second put", full(all[1].PrevKv), "k=1 2/2/1")
	eq("of the delete", full(all[2].PrevKv), "k=2 2/3/2")
	all = events(t, c.Watch(t.ctx, "k", clientv3.WithRev(2)), 3)
	eq("unless asked for", full(all[2].PrevKv), "none")
	must(c.Compact(t.ctx, 3))
	all = events(t, c.Watch(t.ctx, "k", clientv3.WithPrevKV(), clientv3.WithRev(3)), 2)
	eq("what compaction removed", full(all[0].PrevKv), "none")
	eq("what it kept", full(all[1].PrevKv), "k=2 2/3/2")
}

func watchFilters(t *T) {
	c := t.fresh()
	put(t, c, "k", "1")
	must(c.Delete(t.ctx, "k"))
	put(t, c, "k", "2")
	must(c.Delete(t.ctx, "k"))
	sees(t, c.Watch(t.ctx, "k", clientv3.WithFilterPut(), clientv3.WithRev(1)), "DELETE k @3", "DELETE k @5")
	sees(t, c.Watch(t.ctx, "k", clientv3.WithFilterDelete(), clientv3.WithRev(1)), "PUT k=1 @2", "PUT k=2 @4")
}

func watchCreated(t *T) {
	c := t.fresh()
	put(t, c, "k", "1")
	watch := c.Watch(t.ctx, "k", clientv3.WithCreatedNotify(), clientv3.WithRev(1))
	created := receive(t, "created", watch)
	check(created.Created && len(created.Events) == 0, "%v", created)
	eq("header", created.Header.Revision, int64(2))
	sees(t, watch, "PUT k=1 @2")
}

func watchProgress(t *T) {
	c := t.fresh()
	ctx := clientv3.WithRequireLeader(t.ctx)
	quiet := c.Watch(ctx, "quiet", clientv3.WithCreatedNotify())
	busy := c.Watch(ctx, "busy", clientv3.WithCreatedNotify())
	receive(t, "created", quiet)
	receive(t, "created", busy)
	put(t, c, "busy", "1")
	put(t, c, "busy", "2")
	sees(t, busy, "PUT busy=1 @2", "PUT busy=2 @3")
	ok(c.RequestProgress(ctx))
	for _, watch := range []clientv3.WatchChan{quiet, busy} {
		progress := receive(t, "progress", watch)
		check(progress.IsProgressNotify(), "%v", progress)
		eq("progress", progress.Header.Revision, int64(3))
	}
}

func watchProgressByTime(t *T) {
	c := t.fresh("--watch-progress-notify-interval=200ms")
	watch := c.Watch(t.ctx, "quiet", clientv3.WithProgressNotify())
	put(t, c, "other", "1")
	until(t, "progress at revision 2", func() bool {
		progress := receive(t, "progress", watch)
		check(progress.IsProgressNotify(), "%v", progress)
		return progress.Header.Revision == 2
	})
}

func watchMany(t *T) {
	const watches = 1000
	c := t.fresh()
	all := make([]clientv3.WatchChan, watches)
	ctxs := make([]context.CancelFunc, watches)
	for i := range all {
		ctx, cancel := t.child()
		ctxs[i] = cancel
		all[i] = c.Watch(ctx, fmt.Sprintf("k%d", i), clientv3.WithRev(1))
	}
	for i := 0; i < watches; i += 2 {
		ctxs[i]()
		closed(t, "a cancelled watch", all[i])
	}
	for i := 0; i < watches; i += 100 {
		var ops []clientv3.Op
		for j := range 100 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("k%d", i+j), "v"))
		}
		must(c.Txn(t.ctx).Then(ops...).Commit())
	}
	for i := 1; i < watches; i += 2 {
		sees(t, all[i], fmt.Sprintf("PUT k%d=v @%d", i, 2+i/100))
	}
}

func watchStreams(t *T) {
	c := t.fresh()
	one := c.Watch(clientv3.WithRequireLeader(t.ctx), "k", clientv3.WithRev(1))
	two := c.Watch(t.ctx, "k", clientv3.WithRev(1))
	put(t, c, "k", "v")
	sees(t, one, "PUT k=v @2")
	sees(t, two, "PUT k=v @2")
}

func watchFragments(t *T) {
	s := t.start("--max-request-bytes=1048576")
	c := t.connect(s)
	value := strings.Repeat("v", 100_000)
	for i := range 30 {
		put(t, c, fmt.Sprintf("k%02d", i), value)
	}
	must(c.Delete(t.ctx, "k", clientv3.WithPrefix()))
	// Three megabytes of history, and then a revision whose previous pairs alone are as much.
	watch := c.Watch(t.ctx, "k", clientv3.WithPrefix(), clientv3.WithFragment(), clientv3.WithPrevKV(), clientv3.WithRev(2))
	all := events(t, watch, 60)
	for i := range 30 {
		eq("put", string(all[i].Kv.Key), fmt.Sprintf("k%02d", i))
		eq("delete", event(all[30+i]), fmt.Sprintf("DELETE k%02d @32", i))
		eq("previous value", len(all[30+i].PrevKv.Value), len(value))
	}
}

func watchFuture(t *T) {
	c := t.fresh()
	watch := c.Watch(t.ctx, "k", clientv3.WithRev(4), clientv3.WithCreatedNotify())
	receive(t, "created", watch)
	for i := range 4 {
		put(t, c, "k", fmt.Sprint(i))
	}
	sees(t, watch, "PUT k=2 @4", "PUT k=3 @5")
}

func watchCompacted(t *T) {
	c := t.fresh()
	for i := range 5 {
		put(t, c, "k", fmt.Sprint(i))
	}
	must(c.Compact(t.ctx, 4))
	watch := c.Watch(t.ctx, "k", clientv3.WithRev(2))
	answer := receive(t, "the refusal", watch)
	check(answer.Canceled, "%v", answer)
	eq("compact revision", answer.CompactRevision, int64(4))
	refused(answer.Err(), rpctypes.ErrCompacted)
	closed(t, "the watch", watch)
	sees(t, c.Watch(t.ctx, "k", clientv3.WithRev(answer.CompactRevision)), "PUT k=2 @4", "PUT k=3 @5", "PUT k=4 @6")
}

func watchUnderLoad(t *T) {
	const changes = 2000
	c := t.fresh()
	written := async(func() error {
		for i := range changes {
			if _, err := c.Put(t.ctx, "k", fmt.Sprint(i)); err != nil {
				return err
			}
		}
		return nil
	})
	// Each watcher begins in the past while the present moves on.
	next := int64(2)
	for next < changes/2 {
		ctx, cancel := context.WithCancel(t.ctx)
		watch := c.Watch(ctx, "k", clientv3.WithRev(next))
		for _, ev := range events(t, watch, 150) {
			eq("revision", ev.Kv.ModRevision, next)
			eq("value", string(ev.Kv.Value), fmt.Sprint(next-2))
			next++
		}
		cancel()
		closed(t, "the watch", watch)
	}
	ok(receive(t, "the writer", written))
}
