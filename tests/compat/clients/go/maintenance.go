package main

// Status, alarms, snapshots and members.

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/snapshot"
)

func init() {
	add("maintenance", "status", maintenanceStatus)
	add("maintenance", "defragment", maintenanceDefragment)
	add("maintenance", "HashKV follows the history", maintenanceHash)
	add("maintenance", "alarms: none, NOSPACE, disarm", maintenanceAlarm)
	add("maintenance", "snapshot with its digest, read by etcdutl", maintenanceSnapshot)
	add("maintenance", "snapshot.SaveWithVersion", maintenanceSnapshotPackage)
	add("maintenance", "members: list, add, remove, update, promote", maintenanceMembers)
	add("maintenance", "endpoints by Sync", maintenanceSync)
	add("maintenance", "MoveLeader and Downgrade", maintenanceLeader)
}

func maintenanceStatus(t *T) {
	s := t.start()
	c := t.connect(s)
	put(t, c, "k", "v")
	status := must(c.Status(t.ctx, s.Endpoint))
	members := must(c.MemberList(t.ctx))
	eq("version", strings.Split(status.Version, ".")[0], "3")
	eq("leader", status.Leader, members.Members[0].ID)
	eq("member", status.Header.MemberId, members.Members[0].ID)
	eq("revision", status.Header.Revision, int64(2))
	eq("learner", status.IsLearner, false)
	eq("errors", len(status.Errors), 0)
	check(status.RaftIndex > 0 && status.RaftAppliedIndex > 0 && status.RaftTerm > 0, "raft of %v", status)
	check(status.DbSize >= status.DbSizeInUse && status.DbSizeInUse > 0, "sizes of %v", status)
	check(status.DbSizeQuota > 0, "quota of %v", status)
}

func maintenanceDefragment(t *T) {
	s := t.start()
	c := t.connect(s)
	fill(t, c, 1000, 4000)
	must(c.Delete(t.ctx, "k", clientv3.WithPrefix()))
	put(t, c, "left", "v")
	must(c.Compact(t.ctx, get(t, c, "left").Header.Revision, clientv3.WithCompactPhysical()))
	before := must(c.Status(t.ctx, s.Endpoint)).DbSize
	must(c.Defragment(t.ctx, s.Endpoint))
	after := must(c.Status(t.ctx, s.Endpoint)).DbSize
	check(after < before, "%d bytes before, %d after", before, after)
	reads(t, c, "left=v", "", clientv3.WithPrefix())
}

func maintenanceHash(t *T) {
	one, two := t.start(), t.start()
	hash := func(s *server, rev int64) *clientv3.HashKVResponse {
		return must(t.connect(s).HashKV(t.ctx, s.Endpoint, rev))
	}
	for _, s := range []*server{one, two} {
		c := t.connect(s)
		put(t, c, "k", "1")
		put(t, c, "k", "2")
	}
	put(t, t.connect(two), "k", "3")
	eq("same history, same hash", hash(one, 3).Hash, hash(two, 3).Hash)
	check(hash(two, 4).Hash != hash(two, 3).Hash, "more history, same hash")
	eq("revision 0 is now", hash(two, 0).Hash, hash(two, 4).Hash)
	eq("hash revision", hash(two, 0).HashRevision, int64(4))
	eq("compact revision", hash(two, 0).CompactRevision, int64(-1))
	must(t.connect(two).Compact(t.ctx, 3))
	eq("compact revision", hash(two, 0).CompactRevision, int64(3))
	_, err := t.connect(two).HashKV(t.ctx, two.Endpoint, 2)
	refused(err, rpctypes.ErrCompacted)
	_, err = t.connect(two).HashKV(t.ctx, two.Endpoint, 99)
	refused(err, rpctypes.ErrFutureRev)
}

func maintenanceAlarm(t *T) {
	s := t.start("--quota-backend-bytes=2000000")
	c := t.connect(s)
	eq("alarms", len(must(c.AlarmList(t.ctx)).Alarms), 0)
	var err error
	for i := 0; err == nil; i++ {
		check(i < 100, "ten megabytes fit under a quota of two")
		_, err = c.Put(t.ctx, fmt.Sprintf("k%d", i), varied(100_000))
	}
	refused(err, rpctypes.ErrNoSpace)
	until(t, "the alarm", func() bool { return len(must(c.AlarmList(t.ctx)).Alarms) == 1 })
	alarm := must(c.AlarmList(t.ctx)).Alarms[0]
	eq("alarm", alarm.Alarm, etcdserverpb.AlarmType_NOSPACE)
	eq("member", alarm.MemberID, must(c.MemberList(t.ctx)).Members[0].ID)
	status := must(c.Status(t.ctx, s.Endpoint))
	check(strings.Contains(strings.Join(status.Errors, " "), "NOSPACE"), "errors %v", status.Errors)
	_, err = c.Put(t.ctx, "small", "v")
	refused(err, rpctypes.ErrNoSpace)
	get(t, c, "k0")
	must(c.Delete(t.ctx, "k", clientv3.WithPrefix()))
	must(c.Compact(t.ctx, get(t, c, "k").Header.Revision, clientv3.WithCompactPhysical()))
	must(c.Defragment(t.ctx, s.Endpoint))
	disarmed := must(c.AlarmDisarm(t.ctx, &clientv3.AlarmMember{}))
	eq("disarmed", len(disarmed.Alarms), 1)
	eq("alarms", len(must(c.AlarmList(t.ctx)).Alarms), 0)
	put(t, c, "small", "v")
}

// readable asserts that etcdutl takes a file for a database with so many keys at this revision.
func readable(t *T, path string, revision string) {
	etcdutl := filepath.Join(os.Getenv("KVIST_TOOLS"), "etcdutl")
	said, err := exec.CommandContext(t.ctx, etcdutl, "snapshot", "status", path).CombinedOutput()
	check(err == nil, "etcdutl: %v: %s", err, said)
	columns := strings.Split(string(said), ", ")
	check(len(columns) >= 4 && columns[1] == revision, "etcdutl says %s", said)
}

func maintenanceSnapshot(t *T) {
	c := t.fresh()
	fill(t, c, 500, 1000)
	saved := must(c.SnapshotWithVersion(t.ctx))
	content := must(io.ReadAll(saved.Snapshot))
	ok(saved.Snapshot.Close())
	eq("version", strings.Split(saved.Version, ".")[0], "3")
	body, digest := content[:len(content)-sha256.Size], content[len(content)-sha256.Size:]
	sum := sha256.Sum256(body)
	check(bytes.Equal(sum[:], digest), "the digest at the end is another")
	folder := must(os.MkdirTemp("", "kvist-go-"))
	t.defers(func() { _ = os.RemoveAll(folder) })
	path := filepath.Join(folder, "db")
	ok(os.WriteFile(path, content, 0o600))
	readable(t, path, "6")
	ctx, cancel := t.child()
	partly := must(c.Snapshot(ctx))
	must(partly.Read(make([]byte, 1)))
	cancel()
	_, err := io.ReadAll(partly)
	check(err == nil || errors.Is(err, ctx.Err()), "%v", err)
}

func maintenanceSnapshotPackage(t *T) {
	s := t.start()
	c := t.connect(s)
	put(t, c, "k", "v")
	folder := must(os.MkdirTemp("", "kvist-go-"))
	t.defers(func() { _ = os.RemoveAll(folder) })
	path := filepath.Join(folder, "db")
	version := must(snapshot.SaveWithVersion(t.ctx, quiet, clientv3.Config{Endpoints: []string{s.Endpoint}, Logger: quiet}, path))
	check(strings.HasPrefix(version, "3."), "version %q", version)
	readable(t, path, "2")
	two := clientv3.Config{Endpoints: []string{s.Endpoint, s.Endpoint}, Logger: quiet}
	_, err := snapshot.SaveWithVersion(t.ctx, quiet, two, path)
	check(err != nil, "two endpoints were taken")
}

func maintenanceMembers(t *T) {
	s := t.start()
	c := t.connect(s)
	list := must(c.MemberList(t.ctx))
	eq("members", len(list.Members), 1)
	member := list.Members[0]
	eq("peer", member.PeerURLs, []string{s.PeerEndpoint})
	eq("client", member.ClientURLs, []string{s.Endpoint})
	eq("learner", member.IsLearner, false)
	_, err := c.MemberAdd(t.ctx, []string{s.PeerEndpoint})
	refused(err, rpctypes.ErrPeerURLExist)
	_, err = c.MemberAdd(t.ctx, []string{"no url"})
	check(err != nil, "a member without a URL was added")
	_, err = c.MemberRemove(t.ctx, 42)
	refused(err, rpctypes.ErrMemberNotFound)
	_, err = c.MemberPromote(t.ctx, 42)
	refused(err, rpctypes.ErrMemberNotFound)
	_, err = c.MemberPromote(t.ctx, member.ID)
	refused(err, rpctypes.ErrMemberNotLearner)
	urls := []string{s.PeerEndpoint, "http://127.0.0.1:1"}
	must(c.MemberUpdate(t.ctx, member.ID, urls))
	eq("peers", must(c.MemberList(t.ctx, clientv3.WithSerializable())).Members[0].PeerURLs, urls)
}

func maintenanceSync(t *T) {
	s := t.start()
	c := t.connect(s)
	ok(c.Sync(t.ctx))
	eq("endpoints", c.Endpoints(), []string{s.Endpoint})
	put(t, c, "k", "v")
	other := t.start()
	c.SetEndpoints(other.Endpoint)
	until(t, "the other server", func() bool { return get(t, c, "k").Count == 0 })
	eq("peer of a strict client", must(must(t.dial(s, func(config *clientv3.Config) {
		config.RejectOldCluster = true
	})).Get(t.ctx, "k")).Count, int64(1))
}

func maintenanceLeader(t *T) {
	c := t.fresh()
	own := must(c.MemberList(t.ctx)).Members[0].ID
	must(c.MoveLeader(t.ctx, own))
	_, err := c.MoveLeader(t.ctx, 42)
	refused(err, rpctypes.ErrBadLeaderTransferee)
	var version string
	until(t, "the version of the cluster", func() bool {
		answer, err := c.Downgrade(t.ctx, clientv3.DowngradeValidate, "3.6.0")
		if err == nil {
			version = answer.Version
		}
		return err == nil
	})
	eq("version", version, "3.7")
	_, err = c.Downgrade(t.ctx, clientv3.DowngradeValidate, "3.5.0")
	refused(err, rpctypes.ErrInvalidDowngradeTargetVersion)
}
