package main

// Large requests and answers.

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
)

func init() {
	add("large", "values of a megabyte: put, read, watch, delete", largeValue)
	add("large", "a request above the limit", largeRequest)
	add("large", "a message above the client's own limits", largeForClient)
	add("large", "a limit that was raised", largeRaised)
	add("large", "an answer of ten thousand keys", largeAnswer)
	add("large", "a transaction of 128 operations and a megabyte", largeTxn)
	add("large", "an answer of thirty megabytes, streamed and not", largeStream)
}

const mebibyte = 1 << 20

// varied makes a value in which no part equals another, so that a mix-up would show.
func varied(size int) string {
	var text strings.Builder
	for i := 0; text.Len() < size; i++ {
		fmt.Fprintf(&text, "%x", sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)}))
	}
	return text.String()[:size]
}

func largeValue(t *T) {
	c := t.fresh()
	value := varied(mebibyte)
	watch := c.Watch(t.ctx, "k", clientv3.WithRev(1), clientv3.WithPrevKV())
	put(t, c, "k", value)
	check(string(get(t, c, "k").Kvs[0].Value) == value, "another value came back")
	deleted := must(c.Delete(t.ctx, "k", clientv3.WithPrevKV()))
	check(string(deleted.PrevKvs[0].Value) == value, "another value was deleted")
	all := events(t, watch, 2)
	check(string(all[0].Kv.Value) == value && string(all[1].PrevKv.Value) == value, "another value was watched")
}

func largeRequest(t *T) {
	c := t.fresh()
	put(t, c, "k", "v")
	// Above 1.5 MiB the server refuses the request; the client itself sends no more than 2 MiB.
	_, err := c.Put(t.ctx, "k", varied(mebibyte*3/2+1024))
	refused(err, rpctypes.ErrRequestTooLarge)
	refusedWith(err, codes.InvalidArgument, "etcdserver: request is too large")
	put(t, c, "k", varied(mebibyte*3/2-1024))
	_, err = c.Txn(t.ctx).Then(clientv3.OpPut("a", varied(mebibyte)), clientv3.OpPut("b", varied(mebibyte*3/4))).Commit()
	refused(err, rpctypes.ErrRequestTooLarge)
	eq("count", get(t, c, "", clientv3.WithPrefix(), clientv3.WithCountOnly()).Count, int64(1))
}

func largeForClient(t *T) {
	s := t.start()
	c := t.connect(s)
	_, err := c.Put(t.ctx, "k", varied(3*mebibyte))
	refusedWith(err, codes.ResourceExhausted, "trying to send message larger than max (")
	bold := must(t.dial(s, func(config *clientv3.Config) { config.MaxCallSendMsgSize = 10 * mebibyte }))
	_, err = bold.Put(t.ctx, "k", varied(3*mebibyte))
	refusedWith(err, codes.ResourceExhausted, "grpc: received message larger than max (")
	put(t, c, "k", varied(mebibyte))
	small := must(t.dial(s, func(config *clientv3.Config) {
		config.MaxCallSendMsgSize, config.MaxCallRecvMsgSize = 1024, 1024
	}))
	_, err = small.Get(t.ctx, "k")
	refusedWith(err, codes.ResourceExhausted, "grpc: received message larger than max (")
}

func largeRaised(t *T) {
	s := t.start("--max-request-bytes=10485760")
	c := must(t.dial(s, func(config *clientv3.Config) { config.MaxCallSendMsgSize = 16 * mebibyte }))
	value := varied(9 * mebibyte)
	put(t, c, "k", value)
	check(string(get(t, c, "k").Kvs[0].Value) == value, "another value came back")
}

// fill puts n keys with values of a size, a hundred in a transaction.
func fill(t *T, c *clientv3.Client, n, size int) {
	value := varied(size)
	for i := 0; i < n; i += 100 {
		var ops []clientv3.Op
		for j := i; j < min(i+100, n); j++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("k%05d", j), value))
		}
		must(c.Txn(t.ctx).Then(ops...).Commit())
	}
}

func largeAnswer(t *T) {
	c := t.fresh()
	fill(t, c, 10_000, 100)
	answer := get(t, c, "k", clientv3.WithPrefix())
	eq("count", answer.Count, int64(10_000))
	for i, kv := range answer.Kvs {
		eq("key", string(kv.Key), fmt.Sprintf("k%05d", i))
	}
	backwards := get(t, c, "k", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	eq("the first of the reverse order", string(backwards.Kvs[0].Key), "k09999")
	deleted := must(c.Delete(t.ctx, "k", clientv3.WithPrefix(), clientv3.WithPrevKV()))
	eq("deleted", deleted.Deleted, int64(10_000))
	eq("previous pairs", len(deleted.PrevKvs), 10_000)
}

func largeTxn(t *T) {
	c := t.fresh()
	var ops []clientv3.Op
	for i := range 128 {
		ops = append(ops, clientv3.OpPut(fmt.Sprintf("k%03d", i), varied(8*1024)))
	}
	eq("answers", len(must(c.Txn(t.ctx).Then(ops...).Commit()).Responses), 128)
	_, err := c.Txn(t.ctx).Then(append(ops, clientv3.OpGet("x"))...).Commit()
	refused(err, rpctypes.ErrTooManyOps)
	eq("count", get(t, c, "k", clientv3.WithPrefix()).Count, int64(128))
}

func largeStream(t *T) {
	c := t.fresh()
	const keys, size = 3000, 10_000
	fill(t, c, keys, size)
	unary := get(t, c, "k", clientv3.WithPrefix())
	seen, chunks := 0, 0
	for chunk := range must(c.GetStream(t.ctx, "k", clientv3.WithPrefix())) {
		ok(chunk.Err())
		if chunks++; chunks == 1 {
			must(c.Delete(t.ctx, "k02999")) // the stream goes on to show one revision
		}
		for _, kv := range chunk.Kvs {
			check(full(kv) == full(unary.Kvs[seen]), "pair %d differs", seen)
			seen++
		}
	}
	eq("pairs", seen, keys)
	check(chunks > 1, "all in one message")
}
