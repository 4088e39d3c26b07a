package main

// Servers, which the runner starts and stops for the suite, and clients for them.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// What the client would log is in the errors that it returns.
var quiet = zap.NewNop()

// A server, with the runner's own names.
type server struct {
	ID           int    `json:"id"`
	Endpoint     string `json:"endpoint"`
	PeerEndpoint string `json:"peer_endpoint"`
	CA           string `json:"ca"`
	Cert         string `json:"cert"`
	Key          string `json:"key"`
}

type serverOptions struct {
	TLS            bool     `json:"tls"`
	ClientCertAuth bool     `json:"client_cert_auth"`
	Flags          []string `json:"flags"`
}

// control asks the runner and returns its answer.
func control(method, path string, body any) ([]byte, error) {
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequest(method, os.Getenv("KVIST_CONTROL")+path, &content)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return answer, err
}

// startWith gives the case a fresh server, which ends with the case.
func (t *T) startWith(options serverOptions) *server {
	if options.Flags == nil {
		options.Flags = []string{}
	}
	answer := must(control("POST", "/servers", options))
	s := &server{}
	ok(json.Unmarshal(answer, s))
	t.defers(func() { _, _ = control("DELETE", fmt.Sprintf("/servers/%d", s.ID), nil) })
	return s
}

func (t *T) start(flags ...string) *server { return t.startWith(serverOptions{Flags: flags}) }

func (s *server) do(verb string) {
	must(control("POST", fmt.Sprintf("/servers/%d/%s", s.ID, verb), nil))
}

// dial makes a client that is closed with the case. change may be nil.
func (t *T) dial(s *server, change func(*clientv3.Config)) (*clientv3.Client, error) {
	config := clientv3.Config{Endpoints: []string{s.Endpoint}, DialTimeout: 10 * time.Second, Logger: quiet}
	if change != nil {
		change(&config)
	}
	client, err := clientv3.New(config)
	if err == nil {
		t.defers(func() { _ = client.Close() })
	}
	return client, err
}

// connect makes a plain client.
func (t *T) connect(s *server) *clientv3.Client { return must(t.dial(s, nil)) }

// as makes a client that logs in.
func (t *T) as(s *server, user, password string) *clientv3.Client {
	return must(t.dial(s, func(c *clientv3.Config) { c.Username, c.Password = user, password }))
}

// fresh gives a client of a fresh server: what most cases begin with. Its first change has revision 2.
func (t *T) fresh(flags ...string) *clientv3.Client { return t.connect(t.start(flags...)) }

// child is a context that ends with the case or before.
func (t *T) child() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.ctx)
	t.defers(cancel)
	return ctx, cancel
}
