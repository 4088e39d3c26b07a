package main

// Package concurrency: elections.

import (
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func init() {
	add("election", "campaign, leader, proclaim, resign", electionRound)
	add("election", "candidates wait for their turn", electionTurns)
	add("election", "observe sees every leader and proclamation", electionObserve)
	add("election", "fail-over when the leader's lease expires", electionFailOver)
	add("election", "who gives up leaves the queue", electionGiveUp)
	add("election", "resumed by another process", electionResume)
	add("election", "who was deposed can't proclaim", electionDeposed)
}

// leads asserts who the leader is.
func leads(t *T, election *concurrency.Election, want string) {
	eq("leader", string(must(election.Leader(t.ctx)).Kvs[0].Value), want)
}

func electionRound(t *T) {
	s := session(t, t.start(), 60)
	election := concurrency.NewElection(s, "e")
	_, err := election.Leader(t.ctx)
	refused(err, concurrency.ErrElectionNoLeader)
	refused(election.Proclaim(t.ctx, "nobody"), concurrency.ErrElectionNotLeader)
	ok(election.Campaign(t.ctx, "one"))
	eq("key", election.Key(), fmt.Sprintf("e/%x", s.Lease()))
	eq("revision", election.Rev(), int64(2))
	leads(t, election, "one")
	ok(election.Campaign(t.ctx, "one")) // again, as the leader
	ok(election.Proclaim(t.ctx, "two"))
	leads(t, election, "two")
	eq("the leader's key", full(get(t, s.Client(), election.Key()).Kvs[0]), fmt.Sprintf("%s=two 2/3/2 lease %x", election.Key(), s.Lease()))
	ok(election.Resign(t.ctx))
	_, err = election.Leader(t.ctx)
	refused(err, concurrency.ErrElectionNoLeader)
	ok(election.Resign(t.ctx))
}

func electionTurns(t *T) {
	const candidates = 4
	s := t.start()
	c := t.connect(s)
	var elections [candidates]*concurrency.Election
	var done [candidates]<-chan error
	for i := range candidates {
		elections[i] = concurrency.NewElection(session(t, s, 60), "e")
		done[i] = async(func() error { return elections[i].Campaign(t.ctx, fmt.Sprint(i)) })
		waiting(t, c, "e/", int64(i+1))
	}
	for i := range candidates {
		ok(receive(t, "the campaign", done[i]))
		leads(t, elections[candidates-1], fmt.Sprint(i))
		if i+1 < candidates {
			silent("the next campaign", done[i+1])
		}
		ok(elections[i].Resign(t.ctx))
	}
}

func electionObserve(t *T) {
	s := t.start()
	one, two := concurrency.NewElection(session(t, s, 60), "e"), concurrency.NewElection(session(t, s, 60), "e")
	ctx, stop := t.child()
	seen := concurrency.NewElection(session(t, s, 60), "e").Observe(ctx)
	next := func(want string) {
		eq("observed", string(receive(t, "an observation", seen).Kvs[0].Value), want)
	}
	ok(one.Campaign(t.ctx, "one"))
	next("one")
	ok(one.Proclaim(t.ctx, "one again"))
	next("one again")
	done := async(func() error { return two.Campaign(t.ctx, "two") })
	waiting(t, t.connect(s), "e/", 2)
	ok(one.Resign(t.ctx))
	ok(receive(t, "the campaign", done))
	next("two")
	stop()
	closed(t, "observations", seen)
}

func electionFailOver(t *T) {
	s := t.start()
	holder := session(t, s, 1)
	one, two := concurrency.NewElection(holder, "e"), concurrency.NewElection(session(t, s, 60), "e")
	ok(one.Campaign(t.ctx, "one"))
	done := async(func() error { return two.Campaign(t.ctx, "two") })
	c := t.connect(s)
	waiting(t, c, "e/", 2)
	silent("the second campaign", done)
	holder.Orphan()
	ok(receive(t, "the fail-over", done))
	leads(t, two, "two")
	waiting(t, c, "e/", 1)
}

func electionGiveUp(t *T) {
	s := t.start()
	one, two := concurrency.NewElection(session(t, s, 60), "e"), concurrency.NewElection(session(t, s, 60), "e")
	ok(one.Campaign(t.ctx, "one"))
	ctx, giveUp := t.child()
	done := async(func() error { return two.Campaign(ctx, "two") })
	c := t.connect(s)
	waiting(t, c, "e/", 2)
	giveUp()
	check(receive(t, "the end of waiting", done) != nil, "a cancelled Campaign succeeded")
	waiting(t, c, "e/", 1)
	leads(t, one, "one")
}

func electionResume(t *T) {
	s := t.start()
	first := session(t, s, 60)
	one := concurrency.NewElection(first, "e")
	ok(one.Campaign(t.ctx, "one"))
	second := must(concurrency.NewSession(t.connect(s), concurrency.WithLease(first.Lease())))
	t.defers(second.Orphan)
	resumed := concurrency.ResumeElection(second, "e/", one.Key(), one.Rev())
	leads(t, resumed, "one")
	ok(resumed.Proclaim(t.ctx, "resumed"))
	leads(t, one, "resumed")
	ok(resumed.Resign(t.ctx))
	eq("left", get(t, first.Client(), "e/", clientv3.WithPrefix()).Count, int64(0))
}

func electionDeposed(t *T) {
	s := t.start()
	one := concurrency.NewElection(session(t, s, 60), "e")
	ok(one.Campaign(t.ctx, "one"))
	must(t.connect(s).Delete(t.ctx, one.Key()))
	refused(one.Proclaim(t.ctx, "still me"), concurrency.ErrElectionNotLeader)
}
