package main

// Reads, puts, deletes and compaction.

import (
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
)

func init() {
	add("kv", "header and fields of a pair", kvFields)
	add("kv", "point, prefix, range, from-key and everything", kvRanges)
	add("kv", "limit, more and pages", kvLimit)
	add("kv", "sorted by every target, both ways", kvSort)
	add("kv", "first and last by key, revision, creation", kvTop)
	add("kv", "count-only and keys-only", kvCountAndKeys)
	add("kv", "bounds on revisions", kvRevisionBounds)
	add("kv", "old, compacted and future revisions", kvOldRevisions)
	add("kv", "serializable read", kvSerializable)
	add("kv", "GetStream equals Get", kvGetStream)
	add("kv", "put with prev_kv", kvPutPrev)
	add("kv", "put with a lease, ignore_value, ignore_lease", kvPutIgnore)
	add("kv", "put with what can't be", kvPutErrors)
	add("kv", "every form of delete", kvDelete)
	add("kv", "empty keys are refused", kvEmptyKeys)
	add("kv", "any bytes in keys and values", kvBytes)
	add("kv", "Do with every kind of Op", kvDo)
	add("kv", "compact, logical and physical", kvCompact)
}

// letters puts a=3, b=1, c=2, then b=4 at revisions 2 to 5.
func letters(t *T, c clientv3.KV) {
	for _, pair := range []string{"a=3", "b=1", "c=2", "b=4"} {
		key, value, _ := strings.Cut(pair, "=")
		put(t, c, key, value)
	}
}

func kvFields(t *T) {
	c := t.fresh()
	empty := get(t, c, "k")
	eq("first revision", empty.Header.Revision, int64(1))
	eq("count", empty.Count, int64(0))
	check(empty.Header.ClusterId != 0 && empty.Header.MemberId != 0 && empty.Header.RaftTerm > 0, "header %v", empty.Header)
	eq("put", put(t, c, "k", "1").Header.Revision, int64(2))
	eq("put", put(t, c, "k", "1").Header.Revision, int64(3))
	answer := get(t, c, "k")
	eq("pair", full(answer.Kvs[0]), "k=1 2/3/2")
	eq("count", answer.Count, int64(1))
	eq("more", answer.More, false)
	eq("revision of a read", answer.Header.Revision, int64(3))
	eq("cluster", answer.Header.ClusterId, empty.Header.ClusterId)
	must(c.Delete(t.ctx, "k"))
	put(t, c, "k", "2")
	eq("second life", full(get(t, c, "k").Kvs[0]), "k=2 5/5/1")
}

func kvRanges(t *T) {
	c := t.fresh()
	for _, key := range []string{"a", "a/1", "a/2", "b", "\xff"} {
		put(t, c, key, "v")
	}
	reads(t, c, "a=v", "a")
	reads(t, c, "", "missing")
	reads(t, c, "a/1=v a/2=v", "a/", clientv3.WithPrefix())
	reads(t, c, "a=v a/1=v", "a", clientv3.WithRange("a/2"))
	reads(t, c, "", "b", clientv3.WithRange("a"))
	reads(t, c, "a/2=v b=v \xff=v", "a/2", clientv3.WithFromKey())
	reads(t, c, "\xff=v", "\xff", clientv3.WithPrefix())
	reads(t, c, "a=v a/1=v a/2=v b=v \xff=v", "", clientv3.WithPrefix())
	reads(t, c, "a=v a/1=v a/2=v b=v \xff=v", "", clientv3.WithFromKey())
}

func kvLimit(t *T) {
	c := t.fresh()
	for i := range 25 {
		put(t, c, fmt.Sprintf("k%02d", i), "v")
	}
	answer := get(t, c, "k", clientv3.WithPrefix(), clientv3.WithLimit(10))
	eq("pairs", len(answer.Kvs), 10)
	eq("more", answer.More, true)
	eq("count", answer.Count, int64(25))
	answer = get(t, c, "k", clientv3.WithPrefix(), clientv3.WithLimit(25))
	eq("more at the exact limit", answer.More, false)

	// Pages of one revision, while the keys change.
	revision, next, keys := answer.Header.Revision, "k", []string{}
	for {
		page := get(t, c, next, clientv3.WithRange("l"), clientv3.WithLimit(10), clientv3.WithRev(revision))
		for _, kv := range page.Kvs {
			keys = append(keys, string(kv.Key))
		}
		must(c.Delete(t.ctx, "k", clientv3.WithPrefix()))
		if !page.More {
			eq("count of the last page", page.Count, int64(5))
			break
		}
		next = keys[len(keys)-1] + "\x00"
	}
	eq("keys of all pages", len(keys), 25)
	eq("last key", keys[24], "k24")
}

func kvSort(t *T) {
	c := t.fresh()
	letters(t, c)
	up, down := clientv3.SortAscend, clientv3.SortDescend
	for _, sort := range []struct {
		target clientv3.SortTarget
		order  clientv3.SortOrder
		want   string
	}{
		{clientv3.SortByKey, up, "a b c"},
		{clientv3.SortByKey, down, "c b a"},
		{clientv3.SortByVersion, down, "b"},
		{clientv3.SortByCreateRevision, up, "a b c"},
		{clientv3.SortByCreateRevision, down, "c b a"},
		{clientv3.SortByModRevision, up, "a c b"},
		{clientv3.SortByModRevision, down, "b c a"},
		{clientv3.SortByValue, up, "c a b"},
		{clientv3.SortByValue, down, "b a c"},
		{clientv3.SortByKey, clientv3.SortNone, "a b c"},
	} {
		options := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(sort.target, sort.order)}
		words := len(strings.Fields(sort.want))
		if words < 3 {
			options = append(options, clientv3.WithLimit(int64(words)))
		}
		answer := get(t, c, "", options...)
		var keys []string
		for _, kv := range answer.Kvs {
			keys = append(keys, string(kv.Key))
		}
		eq(fmt.Sprintf("sorted by %v, order %v", sort.target, sort.order), strings.Join(keys, " "), sort.want)
		eq("count", answer.Count, int64(3))
	}
}

func kvTop(t *T) {
	c := t.fresh()
	letters(t, c)
	reads(t, c, "a=3", "", clientv3.WithFirstKey()...)
	reads(t, c, "c=2", "", clientv3.WithLastKey()...)
	reads(t, c, "a=3", "", clientv3.WithFirstRev()...)
	reads(t, c, "b=4", "", clientv3.WithLastRev()...)
	reads(t, c, "a=3", "", clientv3.WithFirstCreate()...)
	reads(t, c, "c=2", "", clientv3.WithLastCreate()...)
	reads(t, c, "b=1", "", append(clientv3.WithLastCreate(), clientv3.WithRev(3))...)
}

func kvCountAndKeys(t *T) {
	c := t.fresh()
	letters(t, c)
	answer := get(t, c, "", clientv3.WithPrefix(), clientv3.WithCountOnly())
	eq("pairs", len(answer.Kvs), 0)
	eq("count", answer.Count, int64(3))
	eq("count of old", get(t, c, "", clientv3.WithPrefix(), clientv3.WithCountOnly(), clientv3.WithRev(3)).Count, int64(2))
	answer = get(t, c, "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	reads(t, c, "a= b= c=", "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	eq("fields without the value", full(answer.Kvs[1]), "b= 3/5/2")
}

func kvRevisionBounds(t *T) {
	c := t.fresh()
	letters(t, c)
	all := clientv3.WithPrefix()
	reads(t, c, "b=4 c=2", "", all, clientv3.WithMinModRev(4))
	reads(t, c, "a=3", "", all, clientv3.WithMaxModRev(3))
	reads(t, c, "b=4 c=2", "", all, clientv3.WithMinCreateRev(3))
	reads(t, c, "a=3 b=4", "", all, clientv3.WithMaxCreateRev(3))
	reads(t, c, "c=2", "", all, clientv3.WithMinModRev(3), clientv3.WithMaxModRev(4))
	reads(t, c, "", "", all, clientv3.WithMinModRev(99))
}

func kvOldRevisions(t *T) {
	c := t.fresh()
	letters(t, c)
	reads(t, c, "a=3 b=1", "", clientv3.WithPrefix(), clientv3.WithRev(3))
	answer := get(t, c, "b", clientv3.WithRev(3))
	eq("pair", full(answer.Kvs[0]), "b=1 3/3/1")
	eq("the header has the current revision", answer.Header.Revision, int64(5))
	reads(t, c, "", "c", clientv3.WithRev(3))
	_, err := c.Get(t.ctx, "a", clientv3.WithRev(6))
	refused(err, rpctypes.ErrFutureRev)
	must(c.Compact(t.ctx, 4))
	_, err = c.Get(t.ctx, "a", clientv3.WithRev(3))
	refused(err, rpctypes.ErrCompacted)
	reads(t, c, "b=1", "b", clientv3.WithRev(4))
}

func kvSerializable(t *T) {
	c := t.fresh()
	letters(t, c)
	reads(t, c, "a=3", "a", clientv3.WithSerializable())
	reads(t, c, "a=3 b=1 c=2", "", clientv3.WithPrefix(), clientv3.WithSerializable(), clientv3.WithRev(4))
}

func kvGetStream(t *T) {
	c := t.fresh()
	for i := range 300 {
		put(t, c, fmt.Sprintf("k%03d", i), strings.Repeat("v", 2000))
	}
	options := []clientv3.OpOption{clientv3.WithPrefix()}
	collected := must(clientv3.GetStreamToGetResponse(must(c.GetStream(t.ctx, "k", options...))))
	unary := get(t, c, "k", options...)
	eq("pairs", brief(collected.Kvs), brief(unary.Kvs))
	eq("count", collected.Count, unary.Count)
	eq("more", collected.More, false)
	eq("revision", collected.Header.Revision, unary.Header.Revision)
	_, err := clientv3.GetStreamToGetResponse(must(c.GetStream(t.ctx, "k", clientv3.WithRev(999))))
	refused(err, rpctypes.ErrFutureRev)
}

func kvPutPrev(t *T) {
	c := t.fresh()
	eq("of a new key", full(put(t, c, "k", "1", clientv3.WithPrevKV()).PrevKv), "none")
	put(t, c, "k", "2")
	eq("of an old key", full(put(t, c, "k", "3", clientv3.WithPrevKV()).PrevKv), "k=2 2/3/2")
	eq("unless asked for", full(put(t, c, "k", "4").PrevKv), "none")
}

func kvPutIgnore(t *T) {
	c := t.fresh()
	lease := must(c.Grant(t.ctx, 600)).ID
	put(t, c, "k", "1", clientv3.WithLease(lease))
	put(t, c, "k", "2", clientv3.WithIgnoreLease())
	eq("ignore_lease", full(get(t, c, "k").Kvs[0]), fmt.Sprintf("k=2 2/3/2 lease %x", lease))
	put(t, c, "k", "", clientv3.WithIgnoreValue())
	eq("ignore_value", full(get(t, c, "k").Kvs[0]), "k=2 2/4/3")
	_, err := c.Put(t.ctx, "missing", "", clientv3.WithIgnoreValue())
	refused(err, rpctypes.ErrKeyNotFound)
	_, err = c.Put(t.ctx, "missing", "v", clientv3.WithIgnoreLease())
	refused(err, rpctypes.ErrKeyNotFound)
}

func kvPutErrors(t *T) {
	c := t.fresh()
	put(t, c, "k", "1")
	_, err := c.Put(t.ctx, "k", "2", clientv3.WithIgnoreValue())
	refused(err, rpctypes.ErrValueProvided)
	_, err = c.Put(t.ctx, "k", "2", clientv3.WithIgnoreLease(), clientv3.WithLease(7))
	refused(err, rpctypes.ErrLeaseProvided)
	_, err = c.Put(t.ctx, "k", "2", clientv3.WithLease(7))
	refused(err, rpctypes.ErrLeaseNotFound)
	eq("nothing happened", get(t, c, "k").Header.Revision, int64(2))
}

func kvDelete(t *T) {
	c := t.fresh()
	for _, key := range []string{"a", "b1", "b2", "c", "d", "e"} {
		put(t, c, key, "v")
	}
	missing := must(c.Delete(t.ctx, "missing"))
	eq("deleted", missing.Deleted, int64(0))
	eq("revision", missing.Header.Revision, int64(7))
	one := must(c.Delete(t.ctx, "a", clientv3.WithPrevKV()))
	eq("revision", one.Header.Revision, int64(8))
	eq("prev_kv", full(one.PrevKvs[0]), "a=v 2/2/1")
	prefix := must(c.Delete(t.ctx, "b", clientv3.WithPrefix(), clientv3.WithPrevKV()))
	eq("prefix", brief(prefix.PrevKvs), "b1=v b2=v")
	eq("range", must(c.Delete(t.ctx, "c", clientv3.WithRange("d"))).Deleted, int64(1))
	eq("from-key", must(c.Delete(t.ctx, "d", clientv3.WithFromKey())).Deleted, int64(2))
	eq("left", get(t, c, "", clientv3.WithPrefix()).Count, int64(0))
	eq("history stays", get(t, c, "", clientv3.WithPrefix(), clientv3.WithRev(7)).Count, int64(6))
}

func kvEmptyKeys(t *T) {
	c := t.fresh()
	_, err := c.Put(t.ctx, "", "v")
	refused(err, rpctypes.ErrEmptyKey)
	_, err = c.Get(t.ctx, "")
	refused(err, rpctypes.ErrEmptyKey)
	_, err = c.Delete(t.ctx, "")
	refused(err, rpctypes.ErrEmptyKey)
	_, err = c.Txn(t.ctx).Then(clientv3.OpPut("", "v")).Commit()
	refused(err, rpctypes.ErrEmptyKey)
}

func kvBytes(t *T) {
	c := t.fresh()
	var all []byte
	for b := range 256 {
		all = append(all, byte(b))
	}
	keys := []string{string(all), "\x00", "\xff\xff\xff", strings.Repeat("k", 5000)}
	for _, key := range keys {
		put(t, c, key, string(all))
		answer := get(t, c, key)
		eq("key", string(answer.Kvs[0].Key), key)
		eq("value", string(answer.Kvs[0].Value), string(all))
	}
	put(t, c, "empty", "")
	eq("empty value", len(get(t, c, "empty").Kvs[0].Value), 0)
	eq("count", get(t, c, "\x00", clientv3.WithFromKey()).Count, int64(5))
}

func kvDo(t *T) {
	c := t.fresh()
	first := must(c.Do(t.ctx, clientv3.OpPut("k", "1")))
	eq("put", first.Put().Header.Revision, int64(2))
	eq("get", brief(must(c.Do(t.ctx, clientv3.OpGet("k"))).Get().Kvs), "k=1")
	txn := clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.Value("k"), "=", "1")},
		[]clientv3.Op{clientv3.OpPut("k", "2")}, nil)
	eq("txn", must(c.Do(t.ctx, txn)).Txn().Succeeded, true)
	eq("delete", must(c.Do(t.ctx, clientv3.OpDelete("k"))).Del().Deleted, int64(1))
}

func kvCompact(t *T) {
	c := t.fresh()
	letters(t, c)
	eq("header", must(c.Compact(t.ctx, 3)).Header.Revision, int64(5))
	must(c.Compact(t.ctx, 4, clientv3.WithCompactPhysical()))
	_, err := c.Compact(t.ctx, 4)
	refused(err, rpctypes.ErrCompacted)
	_, err = c.Compact(t.ctx, 99)
	refused(err, rpctypes.ErrFutureRev)
	refusedWith(err, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision")
	reads(t, c, "a=3 b=4 c=2", "", clientv3.WithPrefix())
}
