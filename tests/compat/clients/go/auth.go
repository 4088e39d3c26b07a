package main

// Users, roles and permissions.

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc/codes"
)

func init() {
	add("auth", "enable needs root, status and revision", authEnable)
	add("auth", "users: add, list, get, passwords, delete", authUsers)
	add("auth", "roles: add, list, permissions, delete", authRoles)
	add("auth", "permissions on keys, ranges and prefixes", authPermissions)
	add("auth", "transactions need all that they could touch", authTxn)
	add("auth", "wrong password, no password, nobody", authLogin)
	add("auth", "an expired token makes the client log in again", authExpiry)
	add("auth", "a restart makes the client log in again", authRestart)
	add("auth", "changes of roles count at once", authAtOnce)
	add("auth", "watches are refused without permission", authWatch)
	add("auth", "leases with keys of others", authLease)
	add("auth", "only root manages", authRootOnly)
	add("auth", "signed tokens", authSigned)
	add("auth", "locks and elections as a user", authLocks)
	add("auth", "disable", authDisable)
}

const read, write, both = clientv3.PermissionType(clientv3.PermRead), clientv3.PermissionType(clientv3.PermWrite),
	clientv3.PermissionType(clientv3.PermReadWrite)

// cheap makes hashing passwords quick, which is not what is tested.
func cheap(flags ...string) []string { return append(flags, "--bcrypt-cost=4") }

// guarded gives a server with users on, and its root. User "ann" (password "ann-pw") may read and write "ann/...", and
// read "shared".
func guarded(t *T, flags ...string) (*server, *clientv3.Client) {
	s := t.start(cheap(flags...)...)
	c := t.connect(s)
	must(c.UserAdd(t.ctx, "root", "root-pw"))
	must(c.RoleAdd(t.ctx, "root"))
	must(c.UserGrantRole(t.ctx, "root", "root"))
	must(c.UserAdd(t.ctx, "ann", "ann-pw"))
	must(c.RoleAdd(t.ctx, "r"))
	must(c.UserGrantRole(t.ctx, "ann", "r"))
	must(c.RoleGrantPermission(t.ctx, "r", "ann/", clientv3.GetPrefixRangeEnd("ann/"), both))
	must(c.RoleGrantPermission(t.ctx, "r", "shared", "", read))
	must(c.AuthEnable(t.ctx))
	return s, t.as(s, "root", "root-pw")
}

func authEnable(t *T) {
	c := t.fresh(cheap()...)
	status := must(c.AuthStatus(t.ctx))
	eq("enabled", status.Enabled, false)
	eq("revision", status.AuthRevision, uint64(1))
	_, err := c.AuthEnable(t.ctx)
	refused(err, rpctypes.ErrRootUserNotExist)
	must(c.UserAdd(t.ctx, "root", "pw"))
	_, err = c.AuthEnable(t.ctx)
	refused(err, rpctypes.ErrRootRoleNotExist)
	must(c.RoleAdd(t.ctx, "root"))
	must(c.UserGrantRole(t.ctx, "root", "root"))
	must(c.AuthEnable(t.ctx))
	eq("enabled", must(c.AuthStatus(t.ctx)).Enabled, true)
	_, err = c.AuthEnable(t.ctx)
	refused(err, rpctypes.ErrUserEmpty)
}

func authUsers(t *T) {
	c := t.fresh(cheap()...)
	must(c.UserAdd(t.ctx, "b", "pw"))
	must(c.UserAdd(t.ctx, "a", "pw"))
	must(c.UserAddWithOptions(t.ctx, "c", "", &clientv3.UserAddOptions{NoPassword: true}))
	_, err := c.UserAdd(t.ctx, "a", "pw")
	refused(err, rpctypes.ErrUserAlreadyExist)
	_, err = c.UserAdd(t.ctx, "", "pw")
	refused(err, rpctypes.ErrUserEmpty)
	eq("users", must(c.UserList(t.ctx)).Users, []string{"a", "b", "c"})
	_, err = c.UserGrantRole(t.ctx, "a", "missing")
	refused(err, rpctypes.ErrRoleNotFound)
	must(c.RoleAdd(t.ctx, "r2"))
	must(c.RoleAdd(t.ctx, "r1"))
	must(c.UserGrantRole(t.ctx, "a", "r2"))
	must(c.UserGrantRole(t.ctx, "a", "r1"))
	eq("roles", must(c.UserGet(t.ctx, "a")).Roles, []string{"r1", "r2"})
	must(c.UserRevokeRole(t.ctx, "a", "r1"))
	_, err = c.UserRevokeRole(t.ctx, "a", "r1")
	refused(err, rpctypes.ErrRoleNotGranted)
	must(c.UserChangePassword(t.ctx, "a", "new"))
	_, err = c.UserChangePassword(t.ctx, "missing", "new")
	refused(err, rpctypes.ErrUserNotFound)
	_, err = c.UserGet(t.ctx, "missing")
	refused(err, rpctypes.ErrUserNotFound)
	must(c.UserDelete(t.ctx, "a"))
	_, err = c.UserDelete(t.ctx, "a")
	refused(err, rpctypes.ErrUserNotFound)
	eq("users", must(c.UserList(t.ctx)).Users, []string{"b", "c"})
}

func authRoles(t *T) {
	c := t.fresh(cheap()...)
	permissions := func() string {
		var all []string
		for _, p := range must(c.RoleGet(t.ctx, "r")).Perm {
			all = append(all, fmt.Sprintf("%s %q %q", p.PermType, p.Key, p.RangeEnd))
		}
		return strings.Join(all, ", ")
	}
	must(c.RoleAdd(t.ctx, "r"))
	must(c.RoleAdd(t.ctx, "a"))
	_, err := c.RoleAdd(t.ctx, "r")
	refused(err, rpctypes.ErrRoleAlreadyExist)
	_, err = c.RoleAdd(t.ctx, "")
	refused(err, rpctypes.ErrRoleEmpty)
	eq("roles", must(c.RoleList(t.ctx)).Roles, []string{"a", "r"})
	must(c.RoleGrantPermission(t.ctx, "r", "k", "", read))
	must(c.RoleGrantPermission(t.ctx, "r", "a", "b", both))
	must(c.RoleGrantPermission(t.ctx, "r", "z", "\x00", write))
	eq("permissions", permissions(), `READWRITE "a" "b", READ "k" "", WRITE "z" "\x00"`)
	must(c.RoleGrantPermission(t.ctx, "r", "k", "", write))
	eq("the last one counts", permissions(), `READWRITE "a" "b", WRITE "k" "", WRITE "z" "\x00"`)
	must(c.RoleRevokePermission(t.ctx, "r", "a", "b"))
	_, err = c.RoleRevokePermission(t.ctx, "r", "a", "b")
	refused(err, rpctypes.ErrPermissionNotGranted)
	eq("permissions", permissions(), `WRITE "k" "", WRITE "z" "\x00"`)
	_, err = c.RoleGrantPermission(t.ctx, "missing", "k", "", read)
	refused(err, rpctypes.ErrRoleNotFound)
	must(c.UserAdd(t.ctx, "u", "pw"))
	must(c.UserGrantRole(t.ctx, "u", "r"))
	must(c.RoleDelete(t.ctx, "r"))
	eq("roles of its users", len(must(c.UserGet(t.ctx, "u")).Roles), 0)
	_, err = c.RoleGet(t.ctx, "r")
	refused(err, rpctypes.ErrRoleNotFound)
	level := must(clientv3.StrToPermissionType("readwrite"))
	eq("permission by name", authpb.Permission_Type(level), authpb.Permission_READWRITE)
}

func authPermissions(t *T) {
	s, root := guarded(t)
	ann := t.as(s, "ann", "ann-pw")
	put(t, root, "other", "v")
	put(t, root, "shared", "v")
	put(t, ann, "ann/1", "v")
	reads(t, ann, "ann/1=v", "ann/", clientv3.WithPrefix())
	reads(t, ann, "shared=v", "shared", clientv3.WithSerializable())
	denied(ann.Put(t.ctx, "shared", "w"))
	denied(ann.Get(t.ctx, "other"))
	denied(ann.Get(t.ctx, "ann/", clientv3.WithFromKey()))
	denied(ann.Get(t.ctx, "", clientv3.WithPrefix()))
	denied(ann.Delete(t.ctx, "ann", clientv3.WithPrefix()))
	eq("deleted", must(ann.Delete(t.ctx, "ann/", clientv3.WithPrefix())).Deleted, int64(1))
	denied(ann.Put(t.ctx, "missing", "v", clientv3.WithIgnoreLease()))
	eq("root may do everything", get(t, root, "", clientv3.WithPrefix()).Count, int64(2))
}

func authTxn(t *T) {
	s, root := guarded(t)
	ann := t.as(s, "ann", "ann-pw")
	put(t, root, "other", "v")
	must(ann.Txn(t.ctx).If(clientv3.Compare(clientv3.Value("shared"), "=", "v")).
		Then(clientv3.OpPut("ann/1", "v")).Else(clientv3.OpGet("shared")).Commit())
	for _, txn := range []clientv3.Txn{
		ann.Txn(t.ctx).If(clientv3.Compare(clientv3.Value("other"), "=", "v")),
		ann.Txn(t.ctx).Then(clientv3.OpPut("ann/1", "v"), clientv3.OpGet("other")),
		ann.Txn(t.ctx).Else(clientv3.OpDelete("other")),
		ann.Txn(t.ctx).Then(clientv3.OpTxn(nil, nil, []clientv3.Op{clientv3.OpPut("shared", "w")})),
	} {
		denied(txn.Commit())
	}
}

func authLogin(t *T) {
	s, root := guarded(t)
	login := func(user, password string) error {
		c, err := t.dial(s, func(config *clientv3.Config) { config.Username, config.Password = user, password })
		if err == nil {
			_, err = c.Get(t.ctx, "shared")
		}
		return err
	}
	ok(login("ann", "ann-pw"))
	refused(login("ann", "wrong"), rpctypes.ErrAuthFailed)
	refused(login("missing", "pw"), rpctypes.ErrAuthFailed)
	_, err := t.connect(s).Get(t.ctx, "shared")
	refused(err, rpctypes.ErrUserEmpty)
	must(root.UserAddWithOptions(t.ctx, "cert", "", &clientv3.UserAddOptions{NoPassword: true}))
	refusedWith(login("cert", "anything"), codes.Unknown, "auth: authentication failed, password was given for no password user")
	must(root.UserChangePassword(t.ctx, "ann", "new"))
	refused(login("ann", "ann-pw"), rpctypes.ErrAuthFailed)
	ok(login("ann", "new"))
	answer := must(t.connect(s).Authenticate(t.ctx, "ann", "new"))
	check(strings.Contains(answer.Token, "."), "token %q", answer.Token)
}

func authExpiry(t *T) {
	s, _ := guarded(t, "--auth-token-ttl=1")
	ann := t.as(s, "ann", "ann-pw")
	put(t, ann, "ann/1", "v")
	token := must(t.connect(s).Authenticate(t.ctx, "ann", "ann-pw")).Token
	use := func() error {
		c := must(t.dial(s, func(config *clientv3.Config) { config.Token = token }))
		defer c.Close()
		_, err := c.Get(t.ctx, "shared")
		return err
	}
	err := use()
	ok(err)
	// Use renews a token, so it is tried more and more seldom. When it has ended, so has the token of ann's client.
	for wait := time.Second; err == nil; wait *= 2 {
		check(wait < patience, "a token of one second outlives %v", wait/2)
		time.Sleep(wait)
		err = use()
	}
	refused(err, rpctypes.ErrInvalidAuthToken)
	put(t, ann, "ann/2", "v")
	reads(t, ann, "ann/1=v ann/2=v", "ann/", clientv3.WithPrefix())
}

func authRestart(t *T) {
	s, _ := guarded(t)
	ann := t.as(s, "ann", "ann-pw")
	put(t, ann, "ann/1", "v")
	s.do("kill")
	s.do("start")
	until(t, "a read", func() bool {
		_, err := ann.Get(t.ctx, "ann/1")
		return err == nil
	})
	put(t, ann, "ann/1", "w")
	denied(ann.Get(t.ctx, "other"))
}

func authAtOnce(t *T) {
	s, root := guarded(t)
	ann := t.as(s, "ann", "ann-pw")
	denied(ann.Put(t.ctx, "shared", "v"))
	must(root.RoleGrantPermission(t.ctx, "r", "shared", "", both))
	put(t, ann, "shared", "v")
	must(root.UserRevokeRole(t.ctx, "ann", "r"))
	denied(ann.Get(t.ctx, "shared"))
	must(root.UserGrantRole(t.ctx, "ann", "r"))
	reads(t, ann, "shared=v", "shared")
	must(root.UserDelete(t.ctx, "ann"))
	_, err := ann.Get(t.ctx, "shared")
	check(err != nil, "a user who is gone may read")
}

func authWatch(t *T) {
	s, root := guarded(t)
	ann := t.as(s, "ann", "ann-pw")
	allowed := ann.Watch(t.ctx, "ann/", clientv3.WithPrefix(), clientv3.WithRev(1))
	put(t, root, "ann/1", "v")
	sees(t, allowed, "PUT ann/1=v @2")
	refusal := receive(t, "the refusal", ann.Watch(t.ctx, "other"))
	check(refusal.Canceled, "%v", refusal)
	check(strings.Contains(refusal.Err().Error(), "etcdserver: permission denied"), "%v", refusal.Err())
	put(t, root, "ann/2", "v")
	sees(t, allowed, "PUT ann/2=v @3")
}

func authLease(t *T) {
	s, root := guarded(t)
	ann := t.as(s, "ann", "ann-pw")
	own := must(ann.Grant(t.ctx, 600)).ID
	put(t, ann, "ann/1", "v", clientv3.WithLease(own))
	must(ann.KeepAliveOnce(t.ctx, own))
	eq("keys", len(must(ann.TimeToLive(t.ctx, own, clientv3.WithAttachedKeys())).Keys), 1)
	foreign := must(root.Grant(t.ctx, 600)).ID
	put(t, root, "other", "v", clientv3.WithLease(foreign))
	denied(ann.Revoke(t.ctx, foreign))
	denied(ann.Put(t.ctx, "ann/2", "v", clientv3.WithLease(foreign)))
	must(ann.Revoke(t.ctx, own))
	eq("gone", get(t, root, "ann/1").Count, int64(0))
}

func authRootOnly(t *T) {
	s, _ := guarded(t)
	ann := t.as(s, "ann", "ann-pw")
	denied(ann.UserAdd(t.ctx, "x", "pw"))
	denied(ann.UserList(t.ctx))
	denied(ann.UserGet(t.ctx, "root"))
	denied(ann.UserChangePassword(t.ctx, "ann", "mine"))
	denied(ann.RoleAdd(t.ctx, "x"))
	denied(ann.RoleGet(t.ctx, "root"))
	denied(ann.AuthDisable(t.ctx))
	denied(ann.Compact(t.ctx, 1))
	denied(ann.Defragment(t.ctx, s.Endpoint))
	eq("roles of herself", must(ann.UserGet(t.ctx, "ann")).Roles, []string{"r"})
	must(ann.RoleGet(t.ctx, "r"))
	must(ann.Status(t.ctx, s.Endpoint))
}

func authSigned(t *T) {
	folder := must(os.MkdirTemp("", "kvist-go-"))
	t.defers(func() { _ = os.RemoveAll(folder) })
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	save := func(name, kind string, content []byte) string {
		path := filepath.Join(folder, name)
		ok(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600))
		return path
	}
	private := save("private.pem", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	public := save("public.pem", "PUBLIC KEY", must(x509.MarshalPKIXPublicKey(&key.PublicKey)))
	s, root := guarded(t, fmt.Sprintf("--auth-token=jwt,pub-key=%s,priv-key=%s,sign-method=RS256,ttl=10m", public, private))
	ann := t.as(s, "ann", "ann-pw")
	put(t, ann, "ann/1", "v")
	// A signed token names the revision of the users; the client gets a new one when that is an old one.
	must(root.RoleGrantPermission(t.ctx, "r", "shared", "", both))
	put(t, ann, "shared", "v")
	token := must(t.connect(s).Authenticate(t.ctx, "ann", "ann-pw")).Token
	eq("parts of a signed token", len(strings.Split(token, ".")), 3)
	reads(t, must(t.dial(s, func(config *clientv3.Config) { config.Token = token })), "shared=v", "shared")
	forged := must(t.dial(s, func(config *clientv3.Config) { config.Token = token[:len(token)-8] + "AAAAAAAA" }))
	_, err := forged.Get(t.ctx, "shared")
	refused(err, rpctypes.ErrInvalidAuthToken)
}

func authLocks(t *T) {
	s, _ := guarded(t)
	ann := t.as(s, "ann", "ann-pw")
	session := must(concurrency.NewSession(ann, concurrency.WithTTL(60)))
	mutex := concurrency.NewMutex(session, "ann/lock")
	ok(mutex.Lock(t.ctx))
	ok(mutex.Unlock(t.ctx))
	refused(concurrency.NewMutex(session, "lock").Lock(t.ctx), rpctypes.ErrPermissionDenied)
	election := concurrency.NewElection(session, "ann/e")
	ok(election.Campaign(t.ctx, "ann"))
	leads(t, election, "ann")
	ok(session.Close())
}

func authDisable(t *T) {
	s, root := guarded(t)
	_, err := root.UserDelete(t.ctx, "root")
	refused(err, rpctypes.ErrInvalidAuthMgmt)
	nobody := t.connect(s)
	_, err = nobody.Put(t.ctx, "k", "v")
	refused(err, rpctypes.ErrUserEmpty)
	must(root.AuthDisable(t.ctx))
	put(t, nobody, "k", "v")
	reads(t, root, "k=v", "k")
	_, err = nobody.Authenticate(t.ctx, "ann", "ann-pw")
	refused(err, rpctypes.ErrAuthNotEnabled)
	eq("users stay", must(nobody.UserList(t.ctx)).Users, []string{"ann", "root"})
	eq("enabled", must(nobody.AuthStatus(t.ctx)).Enabled, false)
}
