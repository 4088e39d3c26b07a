package main

// The packages that put something between a program and the client: namespace, ordering, mirror, leasing, naming.

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"go.etcd.io/etcd/client/v3/ordering"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func init() {
	add("kv", "namespace: keys, ranges, transactions", namespaceKV)
	add("watch", "namespace: watches", namespaceWatch)
	add("lease", "namespace: attached keys", namespaceLease)
	add("lock", "namespace: a lock in each", namespaceLock)
	add("kv", "ordering: newer answers pass, older are violations", orderingViolation)
	add("kv", "ordering: switching endpoints ends at last", orderingSwitch)
	add("kv", "mirror: base of more than a page", mirrorBase)
	add("watch", "mirror: updates follow the base without a gap", mirrorUpdates)
	add("kv", "leasing: cached reads are never stale", leasingReads)
	add("txn", "leasing: transactions take keys back", leasingTxn)
	add("watch", "naming: endpoints of a service", namingEndpoints)
	add("watch", "naming: a gRPC connection follows its endpoints", namingResolver)
}

func namespaceKV(t *T) {
	c := t.fresh()
	ns := namespace.NewKV(c, "ns/")
	put(t, ns, "a", "1")
	put(t, c, "outside", "v")
	eq("inside", full(get(t, ns, "a").Kvs[0]), "a=1 2/2/1")
	reads(t, c, "ns/a=1 outside=v", "", clientv3.WithPrefix())
	reads(t, ns, "a=1", "", clientv3.WithPrefix())
	reads(t, ns, "a=1", "\x00", clientv3.WithFromKey())
	answer := must(ns.Txn(t.ctx).If(clientv3.Compare(clientv3.Value("a"), "=", "1")).
		Then(clientv3.OpPut("b", "2", clientv3.WithPrevKV()), clientv3.OpGet("a", clientv3.WithFromKey()),
			clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet("b")}, nil)).Commit())
	eq("range in a transaction", brief(answer.Responses[1].GetResponseRange().Kvs), "a=1 b=2")
	eq("nested", brief(answer.Responses[2].GetResponseTxn().Responses[0].GetResponseRange().Kvs), "b=2")
	eq("previous pair", full(put(t, ns, "a", "3", clientv3.WithPrevKV()).PrevKv), "a=1 2/2/1")
	deleted := must(ns.Delete(t.ctx, "\x00", clientv3.WithFromKey(), clientv3.WithPrevKV()))
	eq("deleted", brief(deleted.PrevKvs), "a=3 b=2")
	reads(t, c, "outside=v", "", clientv3.WithPrefix())
}

func namespaceWatch(t *T) {
	c := t.fresh()
	watch := namespace.NewWatcher(c, "ns/").Watch(t.ctx, "", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(1))
	put(t, c, "a", "outside")
	put(t, c, "ns/a", "1")
	must(c.Delete(t.ctx, "ns/a"))
	all := events(t, watch, 2)
	eq("events", event(all[0])+", "+event(all[1]), "PUT a=1 @3, DELETE a @4")
	eq("previous", full(all[1].PrevKv), "a=1 3/3/1")
}

func namespaceLease(t *T) {
	c := t.fresh()
	lease := must(c.Grant(t.ctx, 600)).ID
	put(t, c, "ns/a", "v", clientv3.WithLease(lease))
	put(t, c, "outside", "v", clientv3.WithLease(lease))
	inside := must(namespace.NewLease(c, "ns/").TimeToLive(t.ctx, lease, clientv3.WithAttachedKeys()))
	eq("keys", len(inside.Keys), 1)
	eq("key", string(inside.Keys[0]), "a")
}

func namespaceLock(t *T) {
	s := t.start()
	lock := func(prefix string) {
		c := t.connect(s)
		c.KV, c.Watcher, c.Lease = namespace.NewKV(c.KV, prefix), namespace.NewWatcher(c.Watcher, prefix), namespace.NewLease(c.Lease, prefix)
		session := must(concurrency.NewSession(c, concurrency.WithTTL(60)))
		ok(concurrency.NewMutex(session, "lock").Lock(t.ctx))
	}
	lock("one/")
	lock("two/") // not in the way of the other
	eq("locks", get(t, t.connect(s), "", clientv3.WithPrefix()).Count, int64(2))
}

func orderingViolation(t *T) {
	ahead, behind := t.start(), t.start()
	c := t.connect(ahead)
	put(t, c, "k", "1")
	put(t, c, "k", "2")
	stale := errors.New("stale")
	var known int64
	kv := ordering.NewKV(c.KV, func(_ clientv3.Op, answer clientv3.OpResponse, prevRev int64) error {
		known = prevRev
		return stale
	})
	reads(t, kv, "k=2", "k", clientv3.WithSerializable())
	put(t, c, "k", "3")
	reads(t, kv, "k=3", "k", clientv3.WithSerializable())
	// A server with a shorter history looks like a member that lags behind.
	c.SetEndpoints(behind.Endpoint)
	until(t, "the other server", func() bool { return get(t, c, "k").Header.Revision == 1 })
	_, err := kv.Get(t.ctx, "k", clientv3.WithSerializable())
	refused(err, stale)
	eq("what was seen before", known, int64(4))
	_, err = kv.Txn(t.ctx).Then(clientv3.OpGet("k")).Commit()
	refused(err, stale)
}

func orderingSwitch(t *T) {
	ahead, behind := t.start(), t.start()
	c := t.connect(ahead)
	put(t, c, "k", "1")
	kv := ordering.NewKV(c.KV, ordering.NewOrderViolationSwitchEndpointClosure(c))
	reads(t, kv, "k=1", "k", clientv3.WithSerializable())
	c.SetEndpoints(behind.Endpoint)
	until(t, "the other server", func() bool { return get(t, c, "k").Header.Revision == 1 })
	_, err := kv.Get(t.ctx, "k", clientv3.WithSerializable())
	refused(err, ordering.ErrNoGreaterRev)
	c.SetEndpoints(ahead.Endpoint)
	until(t, "the first server", func() bool { return get(t, c, "k").Header.Revision == 2 })
	reads(t, kv, "k=1", "k", clientv3.WithSerializable())
}

func mirrorBase(t *T) {
	const keys = 2500
	c := t.fresh()
	fill(t, c, keys, 10)
	put(t, c, "a", "v")
	for prefix, want := range map[string]int{"": keys + 1, "k": keys} {
		base, failed := mirror.NewSyncer(c, prefix, 0).SyncBase(t.ctx)
		var got []string
		for _, page := range closed(t, "the base", base) {
			for _, kv := range page.Kvs {
				got = append(got, string(kv.Key))
			}
		}
		eq("errors", len(closed(t, "errors", failed)), 0)
		eq("keys", len(got), want)
		check(slices.IsSorted(got), "not in order")
		must(c.Put(t.ctx, "k00000", "again"))
	}
}

func mirrorUpdates(t *T) {
	c := t.fresh()
	put(t, c, "k1", "v")
	put(t, c, "k2", "v")
	syncer := mirror.NewSyncer(c, "k", 2)
	base, failed := syncer.SyncBase(t.ctx)
	eq("base at a revision", brief(receive(t, "the base", base).Kvs), "k1=v")
	closed(t, "errors", failed)
	updates := syncer.SyncUpdates(t.ctx)
	must(c.Txn(t.ctx).Then(clientv3.OpDelete("k1"), clientv3.OpPut("k3", "v")).Commit())
	sees(t, updates, "PUT k2=v @3", "DELETE k1 @4", "PUT k3=v @4")
}

// leased gives a client with a cache that the server's leases keep true.
func leased(t *T, s *server) clientv3.KV {
	kv, stop, err := leasing.NewKV(t.connect(s), "leasing/")
	ok(err)
	t.defers(stop)
	return kv
}

func leasingReads(t *T) {
	s := t.start()
	plain := t.connect(s)
	one, two := leased(t, s), leased(t, s)
	put(t, plain, "k", "1")
	reads(t, one, "k=1", "k")
	eq("the key is owned", get(t, plain, "leasing/", clientv3.WithPrefix()).Count, int64(1))
	reads(t, one, "k=1", "k") // from the cache
	for i := range 10 {
		put(t, one, "k", fmt.Sprint("one ", i))
		reads(t, two, fmt.Sprint("k=one ", i), "k")
		put(t, two, "k", fmt.Sprint("two ", i))
		reads(t, one, fmt.Sprint("k=two ", i), "k")
	}
	must(two.Delete(t.ctx, "k"))
	eq("count", get(t, one, "k").Count, int64(0))
	reads(t, plain, "", "k")
}

func leasingTxn(t *T) {
	s := t.start()
	one, two := leased(t, s), leased(t, s)
	put(t, one, "k", "1")
	reads(t, one, "k=1", "k")
	answer := must(two.Txn(t.ctx).If(clientv3.Compare(clientv3.Value("k"), "=", "1")).
		Then(clientv3.OpPut("k", "2"), clientv3.OpPut("l", "2")).Commit())
	eq("succeeded", answer.Succeeded, true)
	reads(t, one, "k=2", "k")
	reads(t, one, "l=2", "l")
	answer = must(one.Txn(t.ctx).If(clientv3.Compare(clientv3.Value("k"), "=", "1")).Else(clientv3.OpGet("k")).Commit())
	eq("succeeded", answer.Succeeded, false)
	eq("read", brief(answer.Responses[0].GetResponseRange().Kvs), "k=2")
	eq("deleted", must(two.Delete(t.ctx, "k", clientv3.WithRange("m"))).Deleted, int64(2))
	eq("count", get(t, one, "k").Count, int64(0))
}

func namingEndpoints(t *T) {
	c := t.fresh()
	manager := must(endpoints.NewManager(c, "service"))
	changes := must(manager.NewWatchChannel(t.ctx))
	one := endpoints.Endpoint{Addr: "127.0.0.1:1", Metadata: "first"}
	ok(manager.AddEndpoint(t.ctx, "service/one", one))
	update := receive(t, "the first endpoint", changes)
	eq("update", *update[0], endpoints.Update{Op: endpoints.Add, Key: "service/one", Endpoint: one})
	lease := must(c.Grant(t.ctx, 600)).ID
	ok(manager.AddEndpoint(t.ctx, "service/two", endpoints.Endpoint{Addr: "127.0.0.1:2"}, clientv3.WithLease(lease)))
	eq("update", receive(t, "the second endpoint", changes)[0].Key, "service/two")
	eq("endpoints", len(must(manager.List(t.ctx))), 2)
	must(c.Revoke(t.ctx, lease))
	gone := receive(t, "the second endpoint goes", changes)[0]
	eq("update", gone.Op, endpoints.Delete)
	eq("update", gone.Key, "service/two")
	ok(manager.DeleteEndpoint(t.ctx, "service/one"))
	eq("endpoints", len(must(manager.List(t.ctx))), 0)
}

func namingResolver(t *T) {
	directory := t.fresh()
	one, two := t.start(), t.start()
	put(t, t.connect(one), "who", "one")
	put(t, t.connect(two), "who", "two")
	manager := must(endpoints.NewManager(directory, "service"))
	point := func(s *server) {
		address := strings.TrimPrefix(s.Endpoint, "http://")
		ok(manager.AddEndpoint(t.ctx, "service/main", endpoints.Endpoint{Addr: address}))
	}
	point(one)
	connection := must(grpc.NewClient("etcd:///service", grpc.WithResolvers(must(resolver.NewBuilder(directory))),
		grpc.WithTransportCredentials(insecure.NewCredentials())))
	t.defers(func() { _ = connection.Close() })
	who := func() string {
		answer := must(etcdserverpb.NewKVClient(connection).Range(t.ctx, &etcdserverpb.RangeRequest{Key: []byte("who")}))
		return string(answer.Kvs[0].Value)
	}
	eq("the first server", who(), "one")
	point(two)
	until(t, "the second server", func() bool { return who() == "two" })
}
