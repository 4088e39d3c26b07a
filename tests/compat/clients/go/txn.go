package main

// Transactions: compares, branches, nesting, limits; and those that Kubernetes makes of them.

import (
	"fmt"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/clientv3util"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

func init() {
	add("txn", "compares of every target and result", txnCompares)
	add("txn", "compares on a range and on missing keys", txnRangeCompares)
	add("txn", "both branches, answers in order", txnBranches)
	add("txn", "nested transactions", txnNested)
	add("txn", "one revision, reads see earlier writes", txnOneRevision)
	add("txn", "read-only makes no revision", txnReadOnly)
	add("txn", "duplicate keys are refused", txnDuplicates)
	add("txn", "too many operations are refused", txnTooMany)
	add("txn", "a failing operation undoes all", txnAtomic)
	add("txn", "compare-and-swap by many clients", txnCompareAndSwap)
	add("txn", "kubernetes client: optimistic put and delete, pages", txnKubernetes)
}

// holds says which branch a transaction with these compares takes.
func holds(t *T, c clientv3.KV, compares ...clientv3.Cmp) bool {
	return must(c.Txn(t.ctx).If(compares...).Commit()).Succeeded
}

func txnCompares(t *T) {
	c := t.fresh()
	lease := must(c.Grant(t.ctx, 600)).ID
	put(t, c, "pad", "v")
	put(t, c, "k", "m")
	put(t, c, "k", "m", clientv3.WithLease(lease)) // create 3, mod 4, version 2
	for _, target := range []struct {
		name          string
		of            clientv3.Cmp
		below, at, up any
	}{
		{"value", clientv3.Value("k"), "l", "m", "n"},
		{"version", clientv3.Version("k"), 1, 2, 3},
		{"create", clientv3.CreateRevision("k"), 2, 3, 4},
		{"mod", clientv3.ModRevision("k"), 3, 4, 5},
		{"lease", clientv3.LeaseValue("k"), lease - 1, lease, lease + 1},
	} {
		for _, operand := range []struct {
			value any
			true_ string
		}{{target.below, "> !="}, {target.at, "="}, {target.up, "< !="}} {
			for _, result := range []string{"=", "!=", "<", ">"} {
				want := false
				for _, word := range strings.Fields(operand.true_) {
					want = want || word == result
				}
				got := holds(t, c, clientv3.Compare(target.of, result, operand.value))
				eq(fmt.Sprintf("%s %s %v", target.name, result, operand.value), got, want)
			}
		}
	}
	check(!holds(t, c, clientv3.Compare(clientv3.Version("k"), "=", 2), clientv3.Compare(clientv3.Version("k"), "=", 3)),
		"all compares have to hold")
	check(holds(t, c), "no compare holds")
}

func txnRangeCompares(t *T) {
	c := t.fresh()
	put(t, c, "k1", "a")
	put(t, c, "k2", "b")
	all := clientv3.Compare(clientv3.Value("k").WithPrefix(), "<", "c")
	check(holds(t, c, all), "every value is below c")
	check(!holds(t, c, clientv3.Compare(clientv3.Value("k").WithPrefix(), "<", "b")), "not every value is below b")
	check(holds(t, c, clientv3.Compare(clientv3.ModRevision("k1").WithRange("k2"), "=", 2)), "a range with one key")
	check(holds(t, c, clientv3util.KeyExists("k1")), "k1 exists")
	check(!holds(t, c, clientv3util.KeyMissing("k1")), "k1 is not missing")
	check(holds(t, c, clientv3util.KeyMissing("x"), clientv3.Compare(clientv3.Version("x"), "=", 0)), "x is missing")
	check(!holds(t, c, clientv3.Compare(clientv3.Value("x"), "=", "")), "a missing key has no value")
	check(!holds(t, c, clientv3.Compare(clientv3.Value("x"), "!=", "v")), "nor another one")
}

func txnBranches(t *T) {
	c := t.fresh()
	run := func() *clientv3.TxnResponse {
		return must(c.Txn(t.ctx).If(clientv3util.KeyMissing("k")).
			Then(clientv3.OpPut("k", "1", clientv3.WithPrevKV()), clientv3.OpGet("k"), clientv3.OpDelete("x")).
			Else(clientv3.OpDelete("k", clientv3.WithPrevKV()), clientv3.OpGet("k", clientv3.WithCountOnly())).Commit())
	}
	first := run()
	eq("succeeded", first.Succeeded, true)
	eq("answers", len(first.Responses), 3)
	eq("put", full(first.Responses[0].GetResponsePut().PrevKv), "none")
	eq("get", brief(first.Responses[1].GetResponseRange().Kvs), "k=1")
	eq("delete", first.Responses[2].GetResponseDeleteRange().Deleted, int64(0))
	second := run()
	eq("succeeded", second.Succeeded, false)
	eq("delete", brief(second.Responses[0].GetResponseDeleteRange().PrevKvs), "k=1")
	eq("count", second.Responses[1].GetResponseRange().Count, int64(0))
	eq("revision", second.Header.Revision, int64(3))
}

func txnNested(t *T) {
	c := t.fresh()
	inner := clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.Value("k"), "=", "1")},
		[]clientv3.Op{clientv3.OpPut("yes", "v"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet("yes")}, nil)},
		[]clientv3.Op{clientv3.OpPut("no", "v")})
	put(t, c, "k", "1")
	answer := must(c.Txn(t.ctx).Then(clientv3.OpPut("k", "2"), inner).Commit())
	nested := answer.Responses[1].GetResponseTxn()
	eq("the inner compare sees the state before", nested.Succeeded, true)
	eq("innermost read", brief(nested.Responses[1].GetResponseTxn().Responses[0].GetResponseRange().Kvs), "yes=v")
	reads(t, c, "k=2 yes=v", "", clientv3.WithPrefix())
	eq("one revision", get(t, c, "yes").Kvs[0].ModRevision, get(t, c, "k").Kvs[0].ModRevision)
	answer = must(c.Txn(t.ctx).Then(inner).Commit())
	eq("other branch", answer.Responses[0].GetResponseTxn().Succeeded, false)
}

func txnOneRevision(t *T) {
	c := t.fresh()
	put(t, c, "a", "old")
	answer := must(c.Txn(t.ctx).Then(clientv3.OpPut("a", "new"), clientv3.OpGet("a"), clientv3.OpPut("b", "v"),
		clientv3.OpGet("a", clientv3.WithRev(2)), clientv3.OpDelete("c")).Commit())
	eq("revision", answer.Header.Revision, int64(3))
	eq("own write", full(answer.Responses[1].GetResponseRange().Kvs[0]), "a=new 2/3/2")
	eq("explicit revision", brief(answer.Responses[3].GetResponseRange().Kvs), "a=old")
	eq("b", full(get(t, c, "b").Kvs[0]), "b=v 3/3/1")
}

func txnReadOnly(t *T) {
	c := t.fresh()
	put(t, c, "a", "1")
	answer := must(c.Txn(t.ctx).Then(clientv3.OpGet("a"), clientv3.OpGet("a", clientv3.WithSerializable())).Commit())
	eq("reads", brief(answer.Responses[1].GetResponseRange().Kvs), "a=1")
	eq("revision", answer.Header.Revision, int64(2))
	eq("deleting nothing", must(c.Txn(t.ctx).Then(clientv3.OpDelete("x")).Commit()).Header.Revision, int64(2))
}

func txnDuplicates(t *T) {
	c := t.fresh()
	for _, ops := range [][]clientv3.Op{
		{clientv3.OpPut("k", "1"), clientv3.OpPut("k", "2")},
		{clientv3.OpPut("k1", "1"), clientv3.OpDelete("k", clientv3.WithPrefix())},
		{clientv3.OpPut("k", "1"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("k", "2")}, nil)},
	} {
		_, err := c.Txn(t.ctx).Then(ops...).Commit()
		refused(err, rpctypes.ErrDuplicateKey)
		_, err = c.Txn(t.ctx).Else(ops...).Commit()
		refused(err, rpctypes.ErrDuplicateKey)
	}
	must(c.Txn(t.ctx).Then(clientv3.OpDelete("k", clientv3.WithPrefix()), clientv3.OpDelete("k")).Commit())
}

func txnTooMany(t *T) {
	c := t.fresh("--max-txn-ops=4")
	ops := make([]clientv3.Op, 5)
	for i := range ops {
		ops[i] = clientv3.OpPut(fmt.Sprint(i), "v")
	}
	must(c.Txn(t.ctx).Then(ops[:4]...).Else(ops[:4]...).Commit())
	_, err := c.Txn(t.ctx).Then(ops...).Commit()
	refused(err, rpctypes.ErrTooManyOps)
	_, err = c.Txn(t.ctx).If(make([]clientv3.Cmp, 5)...).Commit()
	refused(err, rpctypes.ErrTooManyOps)
}

func txnAtomic(t *T) {
	c := t.fresh()
	_, err := c.Txn(t.ctx).Then(clientv3.OpPut("a", "1"), clientv3.OpPut("b", "1", clientv3.WithLease(99))).Commit()
	refused(err, rpctypes.ErrLeaseNotFound)
	_, err = c.Txn(t.ctx).Then(clientv3.OpPut("a", "1"), clientv3.OpGet("b", clientv3.WithRev(99))).Commit()
	refused(err, rpctypes.ErrFutureRev)
	answer := get(t, c, "", clientv3.WithPrefix())
	eq("count", answer.Count, int64(0))
	eq("revision", answer.Header.Revision, int64(1))
}

func txnCompareAndSwap(t *T) {
	const workers, turns = 8, 25
	s := t.start()
	c := t.connect(s)
	put(t, c, "n", "0")
	var all sync.WaitGroup
	errors := make(chan error, workers)
	for range workers {
		all.Go(func() {
			for done := 0; done < turns; {
				now, err := c.Get(t.ctx, "n")
				if err != nil {
					errors <- err
					return
				}
				var n int
				_, _ = fmt.Sscan(string(now.Kvs[0].Value), &n)
				answer, err := c.Txn(t.ctx).If(clientv3.Compare(clientv3.ModRevision("n"), "=", now.Kvs[0].ModRevision)).
					Then(clientv3.OpPut("n", fmt.Sprint(n+1))).Commit()
				if err != nil {
					errors <- err
					return
				}
				if answer.Succeeded {
					done++
				}
			}
		})
	}
	all.Wait()
	close(errors)
	for err := range errors {
		ok(err)
	}
	eq("counter", full(get(t, c, "n").Kvs[0]), fmt.Sprintf("n=%d 2/%d/%d", workers*turns, workers*turns+2, workers*turns+1))
}

func txnKubernetes(t *T) {
	s := t.start()
	c := must(kubernetes.New(clientv3.Config{Endpoints: []string{s.Endpoint}, Logger: quiet}))
	t.defers(func() { _ = c.Close() })
	get := func(key string) kubernetes.GetResponse {
		return must(c.Kubernetes.Get(t.ctx, key, kubernetes.GetOptions{}))
	}
	created := must(c.Kubernetes.OptimisticPut(t.ctx, "/pods/a", []byte("1"), 0, kubernetes.PutOptions{}))
	eq("created", created.Succeeded, true)
	eq("revision", created.Revision, int64(2))
	again := must(c.Kubernetes.OptimisticPut(t.ctx, "/pods/a", []byte("2"), 0, kubernetes.PutOptions{GetOnFailure: true}))
	eq("created twice", again.Succeeded, false)
	eq("what is there", full(again.KV), "/pods/a=1 2/2/1")
	eq("updated", must(c.Kubernetes.OptimisticPut(t.ctx, "/pods/a", []byte("2"), 2, kubernetes.PutOptions{})).Succeeded, true)
	eq("pair", full(get("/pods/a").KV), "/pods/a=2 2/3/2")
	stale := must(c.Kubernetes.OptimisticDelete(t.ctx, "/pods/a", 2, kubernetes.DeleteOptions{GetOnFailure: true}))
	eq("stale delete", stale.Succeeded, false)
	eq("what is there", full(stale.KV), "/pods/a=2 2/3/2")
	eq("delete", must(c.Kubernetes.OptimisticDelete(t.ctx, "/pods/a", 3, kubernetes.DeleteOptions{})).Succeeded, true)
	eq("gone", full(get("/pods/a").KV), "none")

	for i := range 7 {
		put(t, c.KV, fmt.Sprintf("/pods/%d", i), "v")
	}
	put(t, c.KV, "/nodes/x", "v")
	eq("count", must(c.Kubernetes.Count(t.ctx, "/pods/", kubernetes.CountOptions{})), int64(7))
	first := must(c.Kubernetes.List(t.ctx, "/pods/", kubernetes.ListOptions{Limit: 3}))
	must(c.KV.Delete(t.ctx, "/pods/5"))
	rest := must(c.Kubernetes.List(t.ctx, "/pods/", kubernetes.ListOptions{
		Revision: first.Revision, Continue: string(first.Kvs[2].Key) + "\x00",
	}))
	eq("first page", brief(first.Kvs), "/pods/0=v /pods/1=v /pods/2=v")
	eq("count of the first page", first.Count, int64(7))
	eq("rest", brief(rest.Kvs), "/pods/3=v /pods/4=v /pods/5=v /pods/6=v")
	_, err := c.Kubernetes.List(t.ctx, "/pods/", kubernetes.ListOptions{Revision: 9999})
	refused(err, rpctypes.ErrFutureRev)
}
