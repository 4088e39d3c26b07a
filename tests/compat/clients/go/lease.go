package main

// Leases and the keys on them.

import (
	"bytes"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func init() {
	add("lease", "grant and time to live", leaseGrant)
	add("lease", "attached keys follow puts and deletes", leaseKeys)
	add("lease", "revoke is one revision", leaseRevoke)
	add("lease", "unknown leases", leaseUnknown)
	add("lease", "list", leaseList)
	add("lease", "keep-alive once", leaseKeepAliveOnce)
	add("lease", "keep-alive holds a lease, its end lets it go", leaseKeepAlive)
	add("lease", "keep-alive of many leases on one stream", leaseKeepAliveMany)
	add("lease", "keep-alive of a revoked lease ends", leaseKeepAliveEnds)
	add("lease", "expiry deletes keys and is watched", leaseExpiry)
	add("lease", "TTLs that can't be", leaseBounds)
}

func leaseGrant(t *T) {
	c := t.fresh()
	granted := must(c.Grant(t.ctx, 100))
	check(granted.ID > 0, "id %d", granted.ID)
	eq("ttl", granted.TTL, int64(100))
	eq("revision", granted.Revision, int64(1))
	left := must(c.TimeToLive(t.ctx, granted.ID))
	eq("id", left.ID, granted.ID)
	eq("granted ttl", left.GrantedTTL, int64(100))
	check(left.TTL > 60 && left.TTL <= 100, "ttl %d", left.TTL)
	eq("keys", len(left.Keys), 0)
	check(must(c.Grant(t.ctx, 100)).ID != granted.ID, "two leases have one id")
}

func leaseKeys(t *T) {
	c := t.fresh()
	one, two := must(c.Grant(t.ctx, 600)).ID, must(c.Grant(t.ctx, 600)).ID
	keys := func(id clientv3.LeaseID) string {
		attached := must(c.TimeToLive(t.ctx, id, clientv3.WithAttachedKeys())).Keys
		slices.SortFunc(attached, bytes.Compare) // they come in any order
		return string(bytes.Join(attached, []byte(" ")))
	}
	put(t, c, "a", "v", clientv3.WithLease(one))
	put(t, c, "b", "v", clientv3.WithLease(one))
	put(t, c, "c", "v", clientv3.WithLease(two))
	eq("keys", keys(one)+" | "+keys(two), "a b | c")
	put(t, c, "a", "v", clientv3.WithLease(two))
	put(t, c, "b", "v")
	eq("moved", keys(one)+" | "+keys(two), " | a c")
	must(c.Delete(t.ctx, "c"))
	eq("deleted", keys(two), "a")
	eq("field", clientv3.LeaseID(get(t, c, "a").Kvs[0].Lease), two)
}

func leaseRevoke(t *T) {
	c := t.fresh()
	lease := must(c.Grant(t.ctx, 600)).ID
	watch := c.Watch(t.ctx, "k", clientv3.WithPrefix(), clientv3.WithRev(4))
	put(t, c, "k1", "v", clientv3.WithLease(lease))
	put(t, c, "k2", "v", clientv3.WithLease(lease))
	eq("revision", must(c.Revoke(t.ctx, lease)).Header.Revision, int64(4))
	sees(t, watch, "DELETE k1 @4", "DELETE k2 @4")
	eq("count", get(t, c, "k", clientv3.WithPrefix()).Count, int64(0))
	empty := must(c.Grant(t.ctx, 600)).ID
	eq("without keys", must(c.Revoke(t.ctx, empty)).Header.Revision, int64(4))
}

func leaseUnknown(t *T) {
	c := t.fresh()
	_, err := c.Revoke(t.ctx, 7)
	refused(err, rpctypes.ErrLeaseNotFound)
	_, err = c.KeepAliveOnce(t.ctx, 7)
	refused(err, rpctypes.ErrLeaseNotFound)
	_, err = c.Put(t.ctx, "k", "v", clientv3.WithLease(7))
	refused(err, rpctypes.ErrLeaseNotFound)
	left := must(c.TimeToLive(t.ctx, 7, clientv3.WithAttachedKeys()))
	eq("ttl of an unknown lease", left.TTL, int64(-1))
	eq("id", left.ID, clientv3.LeaseID(7))
}

func leaseList(t *T) {
	c := t.fresh()
	eq("none", len(must(c.Leases(t.ctx)).Leases), 0)
	want := map[clientv3.LeaseID]bool{}
	for range 5 {
		want[must(c.Grant(t.ctx, 600)).ID] = true
	}
	got := map[clientv3.LeaseID]bool{}
	for _, lease := range must(c.Leases(t.ctx)).Leases {
		got[lease.ID] = true
	}
	eq("leases", got, want)
}

func leaseKeepAliveOnce(t *T) {
	c := t.fresh()
	lease := must(c.Grant(t.ctx, 100)).ID
	renewed := must(c.KeepAliveOnce(t.ctx, lease))
	eq("id", renewed.ID, lease)
	eq("ttl", renewed.TTL, int64(100))
}

func leaseKeepAlive(t *T) {
	c := t.fresh()
	lease := must(c.Grant(t.ctx, 2)).ID
	put(t, c, "k", "v", clientv3.WithLease(lease))
	ctx, stop := t.child()
	renewals := must(c.KeepAlive(ctx, lease))
	for range 6 { // twice its life and more, by the third of a TTL that the client leaves between renewals
		renewal := receive(t, "a renewal", renewals)
		eq("id", renewal.ID, lease)
		eq("ttl", renewal.TTL, int64(2))
	}
	reads(t, c, "k=v", "k")
	stop()
	closed(t, "renewals", renewals)
	until(t, "the key goes with its lease", func() bool { return get(t, c, "k").Count == 0 })
	eq("ttl", must(c.TimeToLive(t.ctx, lease)).TTL, int64(-1))
}

func leaseKeepAliveMany(t *T) {
	c := t.fresh()
	var channels []<-chan *clientv3.LeaseKeepAliveResponse
	var leases []clientv3.LeaseID
	for range 100 {
		lease := must(c.Grant(t.ctx, 600)).ID
		leases = append(leases, lease)
		channels = append(channels, must(c.KeepAlive(t.ctx, lease)))
	}
	twice := must(c.KeepAlive(t.ctx, leases[0]))
	for i, channel := range channels {
		eq("id", receive(t, "a renewal", channel).ID, leases[i])
	}
	_ = twice // it hears of the next renewal, which is minutes away
	ok(c.Lease.Close())
	for _, channel := range append(channels, twice) {
		closed(t, "renewals", channel)
	}
}

func leaseKeepAliveEnds(t *T) {
	c := t.fresh()
	lease := must(c.Grant(t.ctx, 2)).ID
	renewals := must(c.KeepAlive(t.ctx, lease))
	receive(t, "a renewal", renewals)
	must(c.Revoke(t.ctx, lease))
	closed(t, "renewals", renewals)
	unknown := must(c.KeepAlive(t.ctx, 4242))
	eq("of an unknown lease", len(closed(t, "renewals", unknown)), 0)
}

func leaseExpiry(t *T) {
	c := t.fresh()
	lease := must(c.Grant(t.ctx, 1)).ID
	watch := c.Watch(t.ctx, "k", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(4))
	put(t, c, "k1", "v", clientv3.WithLease(lease))
	put(t, c, "k2", "v", clientv3.WithLease(lease))
	all := events(t, watch, 2)
	eq("events", event(all[0])+" "+event(all[1]), "DELETE k1 @4 DELETE k2 @4")
	eq("previous", full(all[1].PrevKv), fmt.Sprintf("k2=v 3/3/1 lease %x", lease))
	eq("leases", len(must(c.Leases(t.ctx)).Leases), 0)
}

func leaseBounds(t *T) {
	c := t.fresh()
	_, err := c.Grant(t.ctx, 9_000_000_001)
	refused(err, rpctypes.ErrLeaseTTLTooLarge)
	// Three halves of the election timeout, in whole seconds, are the shortest life of a lease.
	eq("ttl", must(c.Grant(t.ctx, 1)).TTL, int64(2))
	eq("ttl", must(c.Grant(t.ctx, 0)).TTL, int64(2))
}
