package main

// Commands that run beside others, such as a watch.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// A job is a command that was started and not waited for.
type job struct {
	command *exec.Cmd
	printed chan string // closed when stdout is
	stderr  bytes.Buffer
	stop    context.CancelFunc
	ended   sync.Once
	err     error
}

func (r *run) startJob(text string, input []string) (*job, error) {
	ctx, cancel := context.WithCancel(context.Background())
	command, err := r.prepare(ctx, text)
	if err != nil {
		cancel()
		return nil, err
	}
	j := &job{command: command, printed: make(chan string, 1000), stop: cancel}
	command.Stderr = &j.stderr
	stdout, err := command.StdoutPipe()
	var stdin io.WriteCloser // stays open: some commands end with it
	if err == nil {
		stdin, err = command.StdinPipe()
	}
	if err == nil {
		err = command.Start()
	}
	if err == nil && len(input) > 0 {
		_, err = io.WriteString(stdin, strings.Join(input, "\n")+"\n")
	}
	if err != nil {
		cancel()
		return nil, err
	}
	go j.read(stdout)
	return j, nil
}

func (j *job) read(stdout io.Reader) {
	defer close(j.printed)
	for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
		for _, line := range lines(append(scanner.Bytes(), '\n')) {
			j.printed <- line
		}
	}
}

// next gives the next n lines, or fewer if they do not come in time.
func (j *job) next(n int, limit time.Duration) (all []string) {
	deadline := time.After(limit)
	for len(all) < n {
		select {
		case line, open := <-j.printed:
			if !open {
				return all
			}
			all = append(all, line)
		case <-deadline:
			return all
		}
	}
	return all
}

// end waits for the job's own end and gives what it printed since.
func (j *job) end() ([]string, error) {
	late := time.AfterFunc(patience, j.stop)
	defer late.Stop()
	var rest []string
	for line := range j.printed {
		rest = append(rest, line)
	}
	j.wait()
	var exit *exec.ExitError
	for _, line := range lines(j.stderr.Bytes()) {
		rest = append(rest, "! "+line)
	}
	switch {
	case errors.As(j.err, &exit) && exit.ExitCode() < 0:
		return append(rest, exit.String()), nil
	case errors.As(j.err, &exit):
		return append(rest, fmt.Sprintf("exit %d", exit.ExitCode())), nil
	}
	return rest, j.err
}

func (j *job) wait() { j.ended.Do(func() { j.err = j.command.Wait() }) }

func (j *job) kill() {
	j.stop()
	for range j.printed {
		continue
	}
	j.wait()
}
