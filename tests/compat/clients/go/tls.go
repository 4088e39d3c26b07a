package main

// Encryption, and users by certificate.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func init() {
	add("tls", "the server's certificate is checked", tlsCA)
	add("tls", "a CA that the client does not know", tlsWrongCA)
	add("tls", "a client certificate is demanded", tlsClientCertificate)
	add("tls", "a certificate of another CA is refused", tlsForeignCertificate)
	add("tls", "plain text on a TLS port", tlsPlain)
	add("tls", "watch, lease and a restart over TLS", tlsRestart)
	add("tls", "a user by the name in the certificate", tlsUser)
}

// overTLS dials with what transport.TLSInfo makes of files.
func overTLS(t *T, s *server, info transport.TLSInfo) *clientv3.Client {
	config := must(info.ClientConfig())
	return must(t.dial(s, func(c *clientv3.Config) { c.TLS = config }))
}

// handshake connects without the client and returns the error, also one that comes after the handshake.
func handshake(s *server, config *tls.Config) error {
	connection, err := tls.Dial("tcp", strings.TrimPrefix(s.Endpoint, "https://"), config)
	if err != nil {
		return err
	}
	defer connection.Close()
	_ = connection.SetReadDeadline(time.Now().Add(patience))
	_, err = connection.Read(make([]byte, 1))
	return err
}

func tlsCA(t *T) {
	s := t.startWith(serverOptions{TLS: true})
	c := overTLS(t, s, transport.TLSInfo{TrustedCAFile: s.CA})
	put(t, c, "k", "v")
	reads(t, c, "k=v", "k")
	status := must(c.Status(t.ctx, s.Endpoint))
	check(status.Version != "", "no version")
	pool := x509.NewCertPool()
	check(pool.AppendCertsFromPEM(must(os.ReadFile(s.CA))), "no certificate in %s", s.CA)
	named := must(t.dial(s, func(c *clientv3.Config) {
		c.TLS = &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS13}
	}))
	reads(t, named, "k=v", "k")
}

func tlsWrongCA(t *T) {
	s := t.startWith(serverOptions{TLS: true})
	other, _ := foreign()
	config := &tls.Config{RootCAs: other}
	var unknown x509.UnknownAuthorityError
	err := handshake(s, config)
	check(errors.As(err, &unknown), "got %v", err)
	shut(t, must(t.dial(s, func(c *clientv3.Config) { c.TLS = config })))
	var mismatch x509.HostnameError
	info := transport.TLSInfo{TrustedCAFile: s.CA, ServerName: "example.org"}
	err = handshake(s, must(info.ClientConfig()))
	check(errors.As(err, &mismatch), "got %v", err)
	careless := overTLS(t, s, transport.TLSInfo{InsecureSkipVerify: true})
	put(t, careless, "k", "v")
}

func tlsClientCertificate(t *T) {
	s := t.startWith(serverOptions{TLS: true, ClientCertAuth: true})
	c := overTLS(t, s, transport.TLSInfo{TrustedCAFile: s.CA, CertFile: s.Cert, KeyFile: s.Key})
	put(t, c, "k", "v")
	reads(t, c, "k=v", "k")
	without := transport.TLSInfo{TrustedCAFile: s.CA}
	err := handshake(s, must(without.ClientConfig()))
	check(strings.Contains(err.Error(), "remote error: tls: certificate required"), "got %v", err)
	shut(t, overTLS(t, s, without))
}

func tlsForeignCertificate(t *T) {
	s := t.startWith(serverOptions{TLS: true, ClientCertAuth: true})
	_, pair := foreign()
	config := must(transport.TLSInfo{TrustedCAFile: s.CA}.ClientConfig())
	// Shown even if the server names other authorities.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	err := handshake(s, config)
	check(strings.Contains(err.Error(), "remote error: tls: unknown certificate authority"), "got %v", err)
	shut(t, must(t.dial(s, func(c *clientv3.Config) { c.TLS = config })))
}

func tlsPlain(t *T) {
	s := t.startWith(serverOptions{TLS: true})
	c := must(t.dial(s, func(c *clientv3.Config) {
		c.Endpoints = []string{strings.Replace(s.Endpoint, "https", "http", 1)}
	}))
	shut(t, c)
}

func tlsRestart(t *T) {
	s := t.startWith(serverOptions{TLS: true, ClientCertAuth: true})
	c := overTLS(t, s, transport.TLSInfo{TrustedCAFile: s.CA, CertFile: s.Cert, KeyFile: s.Key})
	lease := must(c.Grant(t.ctx, 600)).ID
	receive(t, "a renewal", must(c.KeepAlive(t.ctx, lease)))
	watch := c.Watch(t.ctx, "k", clientv3.WithRev(2))
	put(t, c, "k", "1", clientv3.WithLease(lease))
	sees(t, watch, "PUT k=1 @2")
	s.do("kill")
	s.do("start")
	other := overTLS(t, s, transport.TLSInfo{TrustedCAFile: s.CA, CertFile: s.Cert, KeyFile: s.Key})
	put(t, other, "k", "2")
	sees(t, watch, "PUT k=2 @3")
}

func tlsUser(t *T) {
	s := t.startWith(serverOptions{TLS: true, ClientCertAuth: true, Flags: cheap()})
	info := transport.TLSInfo{TrustedCAFile: s.CA, CertFile: s.Cert, KeyFile: s.Key}
	c := overTLS(t, s, info)
	pair := must(tls.LoadX509KeyPair(s.Cert, s.Key))
	name := must(x509.ParseCertificate(pair.Certificate[0])).Subject.CommonName
	if name == "" {
		skip("the client certificate has no common name")
	}
	must(c.UserAdd(t.ctx, "root", "root-pw"))
	must(c.RoleAdd(t.ctx, "root"))
	must(c.UserGrantRole(t.ctx, "root", "root"))
	must(c.UserAddWithOptions(t.ctx, name, "", &clientv3.UserAddOptions{NoPassword: true}))
	must(c.RoleAdd(t.ctx, "r"))
	must(c.RoleGrantPermission(t.ctx, "r", "k", "", both))
	must(c.UserGrantRole(t.ctx, name, "r"))
	must(c.AuthEnable(t.ctx))
	put(t, c, "k", "v")
	denied(c.Get(t.ctx, "other"))
}

// foreign makes an authority that nobody here knows, and a certificate of it.
func foreign() (authority *x509.CertPool, certificate tls.Certificate) {
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
	}
	ca, leaf := template(1, "foreign"), template(2, "client")
	ca.IsCA, ca.KeyUsage = true, x509.KeyUsageCertSign
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	leafKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ca = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key))))
	der := must(x509.CreateCertificate(rand.Reader, leaf, ca, &leafKey.PublicKey, key))
	authority = x509.NewCertPool()
	authority.AddCert(ca)
	return authority, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: leafKey}
}
