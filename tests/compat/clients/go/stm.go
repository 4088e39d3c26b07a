package main

// Package concurrency: software transactional memory.

import (
	"context"
	"errors"
	"fmt"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func init() {
	for _, level := range []struct {
		name  string
		value concurrency.Isolation
	}{
		{"serializable snapshot", concurrency.SerializableSnapshot},
		{"serializable", concurrency.Serializable},
		{"repeatable reads", concurrency.RepeatableReads},
	} {
		add("txn", "STM: transfers between accounts, "+level.name, func(t *T) { stmTransfers(t, level.value) })
		add("txn", "STM: a conflicting write makes it run again, "+level.name, func(t *T) { stmConflict(t, level.value) })
	}
	add("txn", "STM: read committed sees what others commit", stmReadCommitted)
	add("txn", "STM: write skew needs the snapshot level", stmWriteSkew)
	add("txn", "STM: reads see own writes, Rev, Del, prefetch", stmOwnWrites)
	add("txn", "STM: abort and cancel change nothing", stmAbort)
}

// number reads a number within a transaction.
func number(text string) (n int) {
	_, _ = fmt.Sscan(text, &n)
	return n
}

func stmTransfers(t *T, level concurrency.Isolation) {
	const accounts, workers, turns = 4, 6, 10
	s := t.start()
	c := t.connect(s)
	key := func(i int) string { return fmt.Sprintf("account%d", i%accounts) }
	for i := range accounts {
		put(t, c, key(i), "100")
	}
	var all sync.WaitGroup
	failures := make(chan error, workers*turns)
	for worker := range workers {
		client := t.connect(s)
		all.Go(func() {
			for turn := range turns {
				from, to := key(worker+turn), key(worker+2*turn+1)
				_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
					a, b := number(stm.Get(from)), number(stm.Get(to))
					if from != to {
						stm.Put(from, fmt.Sprint(a-7))
						stm.Put(to, fmt.Sprint(b+7))
					}
					return nil
				}, concurrency.WithIsolation(level), concurrency.WithAbortContext(t.ctx))
				if err != nil {
					failures <- err
				}
			}
		})
	}
	all.Wait()
	silent("failures", failures)
	sum := 0
	for _, kv := range get(t, c, "account", clientv3.WithPrefix()).Kvs {
		sum += number(string(kv.Value))
	}
	eq("sum of all accounts", sum, accounts*100)
}

func stmConflict(t *T, level concurrency.Isolation) {
	c := t.fresh()
	put(t, c, "k", "1")
	runs := 0
	answer := must(concurrency.NewSTM(c, func(stm concurrency.STM) error {
		value := number(stm.Get("k"))
		if runs++; runs == 1 {
			if _, err := c.Put(t.ctx, "k", "10"); err != nil {
				return err
			}
			if stm.Get("k") != "1" {
				return errors.New("a second read gave another value")
			}
		}
		stm.Put("k", fmt.Sprint(value+1))
		return nil
	}, concurrency.WithIsolation(level)))
	eq("runs", runs, 2)
	eq("revision", answer.Header.Revision, int64(4))
	reads(t, c, "k=11", "k")
}

func stmReadCommitted(t *T) {
	c := t.fresh()
	put(t, c, "k", "1")
	runs := 0
	must(concurrency.NewSTM(c, func(stm concurrency.STM) error {
		runs++
		value := stm.Get("k")
		if _, err := c.Put(t.ctx, "k", "10"); err != nil {
			return err
		}
		stm.Put("copy", value)
		return nil
	}, concurrency.WithIsolation(concurrency.ReadCommitted)))
	eq("runs", runs, 1)
	reads(t, c, "copy=1 k=10", "", clientv3.WithPrefix())
}

// stmWriteSkew writes a key without reading it, which somebody else changes meanwhile: only the strictest level minds.
func stmWriteSkew(t *T) {
	c := t.fresh()
	for level, want := range map[concurrency.Isolation]int{
		concurrency.SerializableSnapshot: 2,
		concurrency.Serializable:         1,
		concurrency.RepeatableReads:      1,
	} {
		put(t, c, "read", "v")
		runs := 0
		must(concurrency.NewSTM(c, func(stm concurrency.STM) error {
			stm.Get("read")
			if runs++; runs == 1 {
				if _, err := c.Put(t.ctx, "written", "by another"); err != nil {
					return err
				}
			}
			stm.Put("written", "by the transaction")
			return nil
		}, concurrency.WithIsolation(level)))
		eq(fmt.Sprintf("runs at level %d", level), runs, want)
		reads(t, c, "written=by the transaction", "written")
	}
}

func stmOwnWrites(t *T) {
	c := t.fresh()
	put(t, c, "a", "1")
	put(t, c, "b", "2")
	answer := must(concurrency.NewSTM(c, func(stm concurrency.STM) error {
		stm.Put("a", "new")
		stm.Del("b")
		if stm.Get("a") != "new" || stm.Get("b") != "" || stm.Get("c") != "" {
			return errors.New("own writes are not seen")
		}
		if stm.Rev("c") != 0 || stm.Rev("d") != 0 {
			return errors.New("missing keys have a revision")
		}
		return nil
	}, concurrency.WithPrefetch("c", "d")))
	eq("revision", answer.Header.Revision, int64(4))
	reads(t, c, "a=new", "", clientv3.WithPrefix())
	must(concurrency.NewSTM(c, func(stm concurrency.STM) error {
		if stm.Get("a", "b") != "new" || stm.Rev("a") != 4 {
			return fmt.Errorf("first of several: %q at %d", stm.Get("a", "b"), stm.Rev("a"))
		}
		return nil
	}))
}

func stmAbort(t *T) {
	c := t.fresh()
	stop := errors.New("stop")
	_, err := concurrency.NewSTM(c, func(stm concurrency.STM) error {
		stm.Put("k", "v")
		return stop
	})
	refused(err, stop)
	ctx, cancel := t.child()
	_, err = concurrency.NewSTM(c, func(stm concurrency.STM) error {
		stm.Put("k", stm.Get("other"))
		cancel()
		return nil
	}, concurrency.WithAbortContext(ctx))
	refused(err, context.Canceled)
	eq("revision", get(t, c, "k").Header.Revision, int64(1))
}
