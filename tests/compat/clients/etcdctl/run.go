package main

// Carries a script out.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// No command takes this long unless something hangs.
	commandTimeout = 2 * time.Minute
	// How long what is waited for may take.
	patience = 15 * time.Second
)

// A script that is being carried out.
type run struct {
	version string
	record  bool
	changed bool
	names   names
	server  *server
	jobs    map[string]*job
	environ []string
}

// execute returns nil if everything was printed as wanted.
func (s *script) execute(version string, record bool) (changed bool, err error) {
	folder, err := os.MkdirTemp("", "kvist-etcdctl-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(folder)
	r := &run{version: version, record: record, jobs: map[string]*job{}}
	r.server, err = startServer(s)
	if err != nil {
		return false, err
	}
	defer r.server.remove()
	address := fmt.Sprintf("127.0.0.1:%d", r.server.Port)
	r.names = names{
		"endpoint": address, "url": r.server.Endpoint, "peer": r.server.PeerEndpoint, "dir": folder,
		"etcdctl": etcdctl, "ca": r.server.CA, "cert": r.server.Cert, "key": r.server.Key,
	}
	if !strings.HasPrefix(r.server.Endpoint, "http://") {
		address = r.server.Endpoint
	}
	r.environ = append(os.Environ(), "ETCDCTL_API=3", "ETCDCTL_ENDPOINTS="+address, "LC_ALL=C")
	if !s.tls {
		if err := r.learnIDs(); err != nil {
			return false, err
		}
	}
	defer func() {
		for _, job := range r.jobs {
			job.kill()
		}
	}()
	for _, step := range s.steps {
		if err := r.step(step); err != nil {
			return r.changed, fmt.Errorf("line %d: %s: %w", step.line, step.text, err)
		}
	}
	return r.changed, nil
}

// learnIDs gives the scripts {cluster} and {member}, in hexadecimal.
func (r *run) learnIDs() error {
	printed, err := r.command("etcdctl member list -w json", nil)
	if err != nil || len(printed) != 1 {
		return fmt.Errorf("member list printed %q: %w", printed, err)
	}
	var list struct {
		Header struct {
			Cluster uint64 `json:"cluster_id"`
			Member  uint64 `json:"member_id"`
		} `json:"header"`
	}
	if err := json.Unmarshal([]byte(printed[0]), &list); err != nil {
		return fmt.Errorf("member list printed %q: %w", printed, err)
	}
	r.names["cluster"] = strconv.FormatUint(list.Header.Cluster, 16)
	r.names["member"] = strconv.FormatUint(list.Header.Member, 16)
	return nil
}

func (r *run) step(s *step) error {
	text, err := r.names.fill(s.text)
	if err != nil {
		return err
	}
	switch s.mark {
	case "$":
		printed, err := r.command(text, s.input)
		if err != nil {
			return err
		}
		return r.compare(s, printed)
	case "$~":
		return r.until(s, text)
	case "&":
		name, rest, _ := strings.Cut(text, " ")
		r.jobs[name], err = r.startJob(rest, s.input)
		return err
	}
	who, what, _ := strings.Cut(text, " ")
	if who == "server" {
		return r.server.do(what)
	}
	job := r.jobs[who]
	if job == nil {
		return fmt.Errorf("there is no job %s", who)
	}
	if what == "interrupt" {
		_ = job.command.Process.Signal(syscall.SIGINT)
	}
	var printed []string
	if what == "prints" {
		printed = job.next(len(s.expected(r.version)), patience)
		if len(printed) == 0 && r.record {
			printed = job.next(cap(job.printed), 2*time.Second)
		}
	} else if printed, err = job.end(); err != nil {
		return err
	}
	if what == "ends with" {
		printed = printed[max(0, len(printed)-len(s.expected(r.version))):]
	}
	return r.compare(s, printed)
}

// until repeats a command till it prints what is wanted.
func (r *run) until(s *step, text string) error {
	deadline := time.Now().Add(patience)
	for {
		printed, err := r.command(text, s.input)
		if err != nil {
			return err
		}
		last := time.Now().After(deadline)
		if last || r.same(s.expected(r.version), printed) {
			return r.compare(s, printed)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// same compares all lines, and learns names only if all of them fit.
func (r *run) same(wanted, printed []string) bool {
	if len(wanted) != len(printed) {
		return false
	}
	trial := names{}
	for key, value := range r.names {
		trial[key] = value
	}
	for i := range wanted {
		if !trial.matches(wanted[i], printed[i]) {
			return false
		}
	}
	r.names = trial
	return true
}

func (r *run) compare(s *step, printed []string) error {
	wanted := s.expected(r.version)
	if r.same(wanted, printed) {
		return nil
	}
	hidden := make([]string, len(printed))
	for i, line := range printed {
		hidden[i] = r.names.hide(line)
	}
	if r.record {
		s.record(r.version, hidden)
		r.changed = true
		return nil
	}
	for i := range max(len(wanted), len(printed)) {
		switch {
		case i >= len(wanted):
			return fmt.Errorf("printed too much: %q", hidden[i:])
		case i >= len(printed):
			return fmt.Errorf("did not print %q", wanted[i:])
		case !r.same(wanted[i:i+1], printed[i:i+1]):
			return fmt.Errorf("printed %q, want %q", hidden[i], wanted[i])
		}
	}
	return errors.New("the lines fit one by one, but not together")
}

// prepare makes a process of a line: its first word is one of the tools or a program of the system.
func (r *run) prepare(ctx context.Context, text string) (*exec.Cmd, error) {
	words, err := split(text)
	if err != nil || len(words) == 0 {
		return nil, fmt.Errorf("can't be read as a command: %v", err)
	}
	program := words[0]
	switch program {
	case "etcdctl":
		program = etcdctl
	case "etcdutl":
		program = filepath.Join(os.Getenv("KVIST_TOOLS"), "etcdutl")
	}
	command := exec.CommandContext(ctx, program, words[1:]...)
	command.Env = r.environ
	command.WaitDelay = time.Second
	return command, nil
}

// command returns what a command printed: stdout, then stderr with "! " before each line, then the exit code if it is
// not 0.
func (r *run) command(text string, input []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	command, err := r.prepare(ctx, text)
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if len(input) > 0 {
		command.Stdin = strings.NewReader(strings.ReplaceAll(strings.Join(input, "\n")+"\n", "~\n", "\n"))
	}
	err = command.Run()
	return r.result(stdout.Bytes(), stderr.Bytes(), err)
}

func (r *run) result(stdout, stderr []byte, err error) ([]string, error) {
	printed := lines(stdout)
	for _, line := range lines(stderr) {
		printed = append(printed, "! "+line)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return append(printed, fmt.Sprintf("exit %d", exit.ExitCode())), nil
	case err != nil:
		return nil, err
	}
	return printed, nil
}

// A line of a log, in both forms.
var logged = regexp.MustCompile(`^({"level":"|\d{4}-\d\d-\d\dT\S+\t[a-z]+\t)`)

// Runs of spaces and lines in tables are as long as their longest cell.
var wide = regexp.MustCompile(` +|-+|─+`)

// lines cuts what was printed. What is no text is shown as the protobuf message that it is; an empty line as "~". The
// client's own log is left out.
func lines(printed []byte) (all []string) {
	if len(printed) == 0 {
		return nil
	}
	if shown, isMessage := protobuf(printed); isMessage {
		return []string{shown}
	}
	for _, line := range strings.Split(strings.TrimSuffix(string(printed), "\n"), "\n") {
		line = strings.TrimRight(line, " \r")
		switch {
		case line == "":
			line = "~"
		case logged.MatchString(line):
			continue
		case strings.ContainsAny(line[:1], "+|") || strings.HasPrefix(line, "┌") || strings.HasPrefix(line, "│") ||
			strings.HasPrefix(line, "├") || strings.HasPrefix(line, "└"):
			line = wide.ReplaceAllStringFunc(line, func(run string) string { return string([]rune(run)[:1]) })
		}
		all = append(all, line)
	}
	return all
}

// split cuts a command at spaces; quotes and backslashes are as in a shell.
func split(text string) (words []string, err error) {
	var word strings.Builder
	var quote rune
	open, escaped := false, false
	for _, c := range text {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped, open = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, open = c, true
		case c == ' ':
			if open {
				words = append(words, word.String())
				word.Reset()
				open = false
			}
		default:
			word.WriteRune(c)
			open = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is open")
	}
	if open {
		words = append(words, word.String())
	}
	return words, nil
}
