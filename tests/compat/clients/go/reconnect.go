package main

// What the client does when its server goes away and comes back.

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/mirror"
	"google.golang.org/grpc/codes"
)

func init() {
	add("reconnect", "a watch across kills misses and repeats nothing", func(t *T) { watchRestarts(t, "kill") })
	add("reconnect", "a watch across orderly stops misses and repeats nothing", func(t *T) { watchRestarts(t, "stop") })
	add("reconnect", "many watches come back", reconnectMany)
	add("reconnect", "a watch that is behind finds its history", reconnectBehind)
	add("reconnect", "reads and writes are tried again", reconnectCalls)
	add("reconnect", "a session outlives a restart", reconnectSession)
	add("reconnect", "mirror: updates across a restart", reconnectMirror)
}

// again puts until it succeeds; a put that failed may have been carried out all the same.
func again(t *T, c *clientv3.Client, key, value string) {
	until(t, "a put", func() bool {
		ctx, cancel := context.WithTimeout(t.ctx, 5*time.Second)
		defer cancel()
		_, err := c.Put(ctx, key, value)
		return err == nil
	})
}

func watchRestarts(t *T, verb string) {
	s := t.start()
	c := t.connect(s)
	watch := c.Watch(t.ctx, "k", clientv3.WithPrefix(), clientv3.WithRev(2))
	var seen []*clientv3.Event
	for round := range 4 {
		for i := range 20 {
			again(t, c, fmt.Sprintf("k%d", i), fmt.Sprint(round))
		}
		if round%2 == 0 { // else the events are still on their way when the server goes
			until(t, "the events so far", func() bool {
				seen = append(seen, events(t, watch, 1)...)
				return string(seen[len(seen)-1].Kv.Key) == "k19" && string(seen[len(seen)-1].Kv.Value) == fmt.Sprint(round)
			})
		}
		s.do(verb)
		s.do("start")
	}
	again(t, c, "k-end", "v")
	until(t, "the last event", func() bool {
		seen = append(seen, events(t, watch, 1)...)
		return string(seen[len(seen)-1].Kv.Key) == "k-end"
	})
	for i, ev := range seen {
		eq("revisions follow each other", ev.Kv.ModRevision, int64(2+i))
	}
	eq("changes", int64(len(seen)), get(t, c, "k").Header.Revision-1)
}

func reconnectMany(t *T) {
	const watches = 200
	s := t.start()
	c := t.connect(s)
	all := make([]clientv3.WatchChan, watches)
	for i := range all {
		all[i] = c.Watch(t.ctx, fmt.Sprintf("k%d", i), clientv3.WithRev(2))
	}
	put(t, c, "k0", "before")
	sees(t, all[0], "PUT k0=before @2")
	s.do("kill")
	s.do("start")
	for i := range all {
		again(t, c, fmt.Sprintf("k%d", i), "after")
	}
	for i := range all {
		ev := events(t, all[i], 1)[0]
		eq("event", fmt.Sprintf("%s=%s", ev.Kv.Key, ev.Kv.Value), fmt.Sprintf("k%d=after", i))
	}
}

func reconnectBehind(t *T) {
	s := t.start()
	c := t.connect(s)
	watch := c.Watch(t.ctx, "k", clientv3.WithRev(2))
	put(t, c, "k", "1")
	sees(t, watch, "PUT k=1 @2")
	s.do("kill")
	s.do("start")
	// Written by somebody else before the first client is back, or after: it must not matter.
	other := t.connect(s)
	put(t, other, "k", "2")
	put(t, other, "k", "3")
	sees(t, watch, "PUT k=2 @3", "PUT k=3 @4")
}

func reconnectCalls(t *T) {
	s := t.start()
	c := t.connect(s)
	put(t, c, "k", "1")
	s.do("kill")
	ctx, cancel := t.short()
	defer cancel()
	_, err := c.Get(ctx, "k")
	check(err != nil, "a read without a server succeeded")
	// A read is repeated by the client itself until the server is back.
	answer := make(chan *clientv3.GetResponse, 1)
	done := async(func() error {
		got, err := c.Get(t.ctx, "k")
		answer <- got
		return err
	})
	s.do("start")
	if err := receive(t, "the read", done); err == nil {
		eq("read", brief(receive(t, "the answer", answer).Kvs), "k=1")
	} else {
		refusedWith(err, codes.Unavailable, "")
	}
	again(t, c, "k", "2")
	reads(t, c, "k=2", "k")
}

func reconnectSession(t *T) {
	s := t.start()
	c := t.connect(s)
	session := must(concurrency.NewSession(c, concurrency.WithTTL(10)))
	mutex := concurrency.NewMutex(session, "lock")
	ok(mutex.Lock(t.ctx))
	s.do("kill")
	s.do("start")
	again(t, c, "k", "v")
	silent("the end of the session", session.Done())
	eq("the lock is held", must(c.Txn(t.ctx).If(mutex.IsOwner()).Commit()).Succeeded, true)
	until(t, "the lease is renewed again", func() bool { return must(c.TimeToLive(t.ctx, session.Lease())).TTL >= 8 })
	ok(mutex.Unlock(t.ctx))
	ok(session.Close())
}

func reconnectMirror(t *T) {
	s := t.start()
	c := t.connect(s)
	put(t, c, "a/1", "v")
	put(t, c, "b", "v")
	syncer := mirror.NewSyncer(c, "a/", 0)
	base, failed := syncer.SyncBase(t.ctx)
	eq("base", brief(receive(t, "the base", base).Kvs), "a/1=v")
	closed(t, "the base", base)
	eq("errors", len(closed(t, "errors", failed)), 0)
	updates := syncer.SyncUpdates(t.ctx)
	put(t, c, "a/2", "v")
	put(t, c, "b", "w")
	sees(t, updates, "PUT a/2=v @4")
	s.do("kill")
	s.do("start")
	other := t.connect(s)
	put(t, other, "a/3", "v")
	must(other.Delete(t.ctx, "a/1"))
	sees(t, updates, "PUT a/3=v @6", "DELETE a/1 @7")
}
