package main

// Package concurrency: sessions and mutexes; and the recipes, which build on the same.

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
)

func init() {
	add("lock", "one holder at a time, in order", lockOrder)
	add("lock", "TryLock", lockTry)
	add("lock", "the same session locks twice", lockAgain)
	add("lock", "Locker keeps goroutines apart", lockLocker)
	add("lock", "an expired lease releases the lock", lockExpiry)
	add("lock", "an expired session can't get a lock", lockExpired)
	add("lock", "who gives up leaves the queue", lockGiveUp)
	add("lock", "IsOwner guards writes", lockGuard)
	add("lock", "a session on a given lease, Orphan and Close", lockSession)
	add("lock", "recipes: RWMutex", lockReadWrite)
	add("lock", "recipes: queue, priority queue, barriers", lockRecipes)
}

// session of a client of its own.
func session(t *T, s *server, ttl int) *concurrency.Session {
	session := must(concurrency.NewSession(t.connect(s), concurrency.WithTTL(ttl)))
	t.defers(session.Orphan)
	return session
}

// waiting waits until n keys are below a prefix: so many hold the lock or queue for it.
func waiting(t *T, c clientv3.KV, prefix string, n int64) {
	until(t, fmt.Sprintf("%d in the queue of %s", n, prefix), func() bool {
		return get(t, c, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly()).Count == n
	})
}

func lockOrder(t *T) {
	const waiters = 5
	s := t.start()
	c := t.connect(s)
	var mutexes [waiters]*concurrency.Mutex
	var done [waiters]<-chan error
	for i := range waiters {
		mutexes[i] = concurrency.NewMutex(session(t, s, 60), "lock")
		done[i] = async(func() error { return mutexes[i].Lock(t.ctx) })
		waiting(t, c, "lock/", int64(i+1))
	}
	for i := range waiters {
		ok(receive(t, "the lock", done[i]))
		if i+1 < waiters {
			silent("the next lock", done[i+1])
		}
		check(len(mutexes[i].Key()) > len("lock/"), "key %q", mutexes[i].Key())
		ok(mutexes[i].Unlock(t.ctx))
	}
	waiting(t, c, "lock/", 0)
	refused(mutexes[0].Unlock(t.ctx), concurrency.ErrLockReleased)
}

func lockTry(t *T) {
	s := t.start()
	one, two := session(t, s, 60), session(t, s, 60)
	first, second := concurrency.NewMutex(one, "lock"), concurrency.NewMutex(two, "lock")
	ok(first.TryLock(t.ctx))
	refused(second.TryLock(t.ctx), concurrency.ErrLocked)
	waiting(t, one.Client(), "lock/", 1)
	ok(first.Unlock(t.ctx))
	ok(second.TryLock(t.ctx))
	ok(second.Unlock(t.ctx))
}

func lockAgain(t *T) {
	s := session(t, t.start(), 60)
	first, second := concurrency.NewMutex(s, "lock"), concurrency.NewMutex(s, "lock")
	ok(first.Lock(t.ctx))
	ok(second.Lock(t.ctx))
	eq("key", second.Key(), first.Key())
	waiting(t, s.Client(), "lock/", 1)
	eq("key", first.Key(), fmt.Sprintf("lock/%x", s.Lease()))
}

func lockLocker(t *T) {
	const workers, turns = 4, 10
	s := t.start()
	var inside, total atomic.Int64
	var all sync.WaitGroup
	together := make(chan int64, workers*turns)
	for range workers {
		locker := concurrency.NewLocker(session(t, s, 60), "lock")
		all.Go(func() {
			for range turns {
				locker.Lock()
				if now := inside.Add(1); now != 1 {
					together <- now
				}
				total.Add(1)
				inside.Add(-1)
				locker.Unlock()
			}
		})
	}
	all.Wait()
	silent("two holders at once", together)
	eq("turns", total.Load(), int64(workers*turns))
}

func lockExpiry(t *T) {
	s := t.start()
	holder, next := session(t, s, 1), session(t, s, 60)
	ok(concurrency.NewMutex(holder, "lock").Lock(t.ctx))
	done := async(func() error { return concurrency.NewMutex(next, "lock").Lock(t.ctx) })
	waiting(t, next.Client(), "lock/", 2)
	silent("the second lock", done)
	holder.Orphan() // renews no longer
	ok(receive(t, "the lock", done))
	waiting(t, next.Client(), "lock/", 1)
}

func lockExpired(t *T) {
	s := t.start()
	holder, late := session(t, s, 60), session(t, s, 60)
	mutex := concurrency.NewMutex(holder, "lock")
	ok(mutex.Lock(t.ctx))
	done := async(func() error { return concurrency.NewMutex(late, "lock").Lock(t.ctx) })
	waiting(t, holder.Client(), "lock/", 2)
	must(holder.Client().Revoke(t.ctx, late.Lease()))
	waiting(t, holder.Client(), "lock/", 1)
	ok(mutex.Unlock(t.ctx))
	refused(receive(t, "the refusal", done), concurrency.ErrSessionExpired)
}

func lockGiveUp(t *T) {
	s := t.start()
	one, two := session(t, s, 60), session(t, s, 60)
	first := concurrency.NewMutex(one, "lock")
	ok(first.Lock(t.ctx))
	ctx, giveUp := t.child()
	done := async(func() error { return concurrency.NewMutex(two, "lock").Lock(ctx) })
	waiting(t, one.Client(), "lock/", 2)
	// Its key is there, but a client that gives up before it knows of it leaves it behind.
	time.Sleep(500 * time.Millisecond)
	giveUp()
	check(receive(t, "the end of waiting", done) != nil, "a cancelled Lock succeeded")
	waiting(t, one.Client(), "lock/", 1)
	ok(first.Unlock(t.ctx))
}

func lockGuard(t *T) {
	s := t.start()
	holder := session(t, s, 60)
	c := t.connect(s)
	mutex := concurrency.NewMutex(holder, "lock")
	ok(mutex.Lock(t.ctx))
	write := func(owner clientv3.Cmp) bool {
		return must(c.Txn(t.ctx).If(owner).Then(clientv3.OpPut("k", "v")).Commit()).Succeeded
	}
	owner := mutex.IsOwner()
	eq("while it is held", write(owner), true)
	must(c.Revoke(t.ctx, holder.Lease()))
	eq("after it was lost", write(owner), false)
}

func lockSession(t *T) {
	c := t.fresh()
	lease := must(c.Grant(t.ctx, 60)).ID
	one := must(concurrency.NewSession(c, concurrency.WithLease(lease)))
	eq("lease", one.Lease(), lease)
	put(t, c, "k", "v", clientv3.WithLease(lease))
	one.Orphan()
	closed(t, "the session", one.Done())
	reads(t, c, "k=v", "k")
	two := must(concurrency.NewSession(c, concurrency.WithLease(lease)))
	ok(two.Close())
	eq("revoked by Close", get(t, c, "k").Count, int64(0))
	ctx, cancel := t.child()
	three := must(concurrency.NewSession(c, concurrency.WithTTL(60), concurrency.WithContext(ctx)))
	cancel()
	closed(t, "the session ends with its context", three.Done())
}

func lockReadWrite(t *T) {
	s := t.start()
	c := t.connect(s)
	one, two, three := session(t, s, 60), session(t, s, 60), session(t, s, 60)
	reader, other, writer := recipe.NewRWMutex(one, "rw"), recipe.NewRWMutex(two, "rw"), recipe.NewRWMutex(three, "rw")
	ok(reader.RLock())
	ok(other.RLock())
	done := async(writer.Lock)
	waiting(t, c, "rw/", 3)
	ok(reader.RUnlock())
	silent("the writer beside a reader", done)
	ok(other.RUnlock())
	ok(receive(t, "the writer", done))
	blocked := async(reader.RLock)
	waiting(t, c, "rw/", 2)
	silent("a reader beside the writer", blocked)
	ok(writer.Unlock())
	ok(receive(t, "the reader", blocked))
	ok(reader.RUnlock())
}

func lockRecipes(t *T) {
	s := t.start()
	c, other := t.connect(s), t.connect(s)

	queue := recipe.NewQueue(c, "queue")
	for _, value := range []string{"1", "2", "3"} {
		ok(queue.Enqueue(value))
	}
	for _, want := range []string{"1", "2", "3"} {
		eq("queue", must(recipe.NewQueue(other, "queue").Dequeue()), want)
	}
	empty := async(func() error {
		got, err := recipe.NewQueue(other, "queue").Dequeue()
		if err == nil && got != "late" {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
	silent("an empty queue", empty)
	ok(queue.Enqueue("late"))
	ok(receive(t, "the late element", empty))

	priority := recipe.NewPriorityQueue(c, "priority")
	for i, value := range []string{"c", "b", "a"} {
		ok(priority.Enqueue(value, uint16(3-i)))
	}
	for _, want := range []string{"a", "b", "c"} {
		eq("priority queue", must(priority.Dequeue()), want)
	}

	barrier := recipe.NewBarrier(c, "barrier")
	ok(barrier.Hold())
	waits := async(recipe.NewBarrier(other, "barrier").Wait)
	silent("a barrier that is held", waits)
	ok(barrier.Release())
	ok(receive(t, "the barrier", waits))

	one, two := session(t, s, 60), session(t, s, 60)
	first, second := recipe.NewDoubleBarrier(one, "double", 2), recipe.NewDoubleBarrier(two, "double", 2)
	entered := async(first.Enter)
	waiting(t, c, "double/waiters", 1)
	silent("half a double barrier", entered)
	ok(second.Enter())
	ok(receive(t, "both entered", entered))
	left := async(first.Leave)
	ok(second.Leave())
	ok(receive(t, "both left", left))
}
