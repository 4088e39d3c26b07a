// The suite of etcdctl: scripts of commands with what they print. Each script has a server of its own, which it asks the
// runner for, and prints one line of TAP. Arguments: the version (3.4 or 3.7), the binary, the folder of scripts; then
// names of scripts, of which only those that contain one of them run. With -record first, output that differs is written
// into the scripts: run it against etcd, and read the difference.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

const scriptsAtOnce = 4

var versions = []string{"3.7", "3.4"}

// The binary under test.
var etcdctl string

// A server, with the runner's own names.
type server struct {
	ID           int    `json:"id"`
	Port         int    `json:"port"`
	Endpoint     string `json:"endpoint"`
	PeerEndpoint string `json:"peer_endpoint"`
	CA           string `json:"ca"`
	Cert         string `json:"cert"`
	Key          string `json:"key"`
}

// control asks the runner and returns its answer.
func control(method, path string, body any) ([]byte, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(method, os.Getenv("KVIST_CONTROL")+path, bytes.NewReader(content))
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

func startServer(s *script) (*server, error) {
	flags := append([]string{}, s.flags...)
	answer, err := control("POST", "/servers", map[string]any{
		"tls": s.tls, "client_cert_auth": s.secrets, "flags": flags,
	})
	if err != nil {
		return nil, err
	}
	started := &server{}
	return started, json.Unmarshal(answer, started)
}

func (s *server) do(verb string) error {
	_, err := control("POST", fmt.Sprintf("/servers/%d/%s", s.ID, verb), struct{}{})
	return err
}

func (s *server) remove() { _, _ = control("DELETE", fmt.Sprintf("/servers/%d", s.ID), struct{}{}) }

func fatal(problem any) {
	fmt.Fprintln(os.Stderr, problem)
	os.Exit(2)
}

// selected says whether a script is asked for and is of this version.
func selected(s *script, version string, parts []string) bool {
	if s.only != "" && s.only != version {
		return false
	}
	for _, part := range parts {
		if strings.Contains(s.name, part) {
			return true
		}
	}
	return len(parts) == 0
}

func main() {
	args := os.Args[1:]
	record := len(args) > 0 && args[0] == "-record"
	if record {
		args = args[1:]
	}
	if len(args) < 3 {
		fatal("usage: suite [-record] VERSION ETCDCTL FOLDER [NAME ...]")
	}
	version, parts := args[0], args[3:]
	etcdctl = args[1]
	files, err := readAll(args[2], version)
	if err != nil {
		fatal(err)
	}
	var printing sync.Mutex
	var running sync.WaitGroup
	turns := make(chan struct{}, scriptsAtOnce)
	count, failed, changed := 0, false, map[*file]bool{}
	for _, file := range files {
		for _, script := range file.scripts {
			if !selected(script, version, parts) {
				continue
			}
			turns <- struct{}{}
			running.Go(func() {
				defer func() { <-turns }()
				differs, err := script.execute(version, record)
				printing.Lock()
				defer printing.Unlock()
				count++
				changed[file] = changed[file] || differs
				if err != nil {
					failed = true
					fmt.Printf("not ok - %s: %s\n", script.name, strings.ReplaceAll(err.Error(), "\n", " "))
				} else {
					fmt.Printf("ok - %s\n", script.name)
				}
			})
		}
	}
	running.Wait()
	for file, differs := range changed {
		if differs {
			if err := file.write(); err != nil {
				fatal(err)
			}
		}
	}
	fmt.Printf("1..%d\n", count)
	if failed {
		os.Exit(1)
	}
}
