// The suite of etcd's own Go client. Each case is a small program against a server of its own, which it asks the runner
// for; it prints one line of TAP. Cases run a few at a time, since most of them wait for the server or for a lease.
package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

const (
	// No case takes this long unless something hangs.
	caseTimeout = 45 * time.Second
	// Below the number of servers that the runner allows at once; no case has more than three.
	casesAtOnce = 4
)

// A case of the suite; feature is a column of the table.
type testCase struct {
	feature string
	name    string
	run     func(t *T)
}

var cases []testCase

// add is called by the init functions of the other files.
func add(feature, name string, run func(t *T)) {
	cases = append(cases, testCase{feature, name, run})
}

// T is a running case: its context and what is to be put away when it is over.
type T struct {
	ctx     context.Context
	cleanup []func()
}

func (t *T) defers(f func()) { t.cleanup = append(t.cleanup, f) }

// Thrown by the assertions, and only in the goroutine of a case.
type failure struct{ text string }

type skipped struct{ reason string }

// skip ends the case as one that can't be shown.
func skip(reason string) { panic(skipped{reason}) }

// fail ends the case, with the line of the suite that found the fault.
func fail(format string, args ...any) {
	place := ""
	for depth := 1; depth < 12; depth++ {
		_, file, line, ok := runtime.Caller(depth)
		name := file[strings.LastIndexByte(file, '/')+1:]
		if ok && name != "main.go" && name != "expect.go" {
			place = fmt.Sprintf("%s:%d: ", name, line)
			break
		}
	}
	panic(failure{place + fmt.Sprintf(format, args...)})
}

// must returns the value of a call that has to succeed.
func must[V any](value V, err error) V {
	if err != nil {
		fail("%v", err)
	}
	return value
}

// ok asserts that a call without a value succeeded.
func ok(err error) {
	if err != nil {
		fail("%v", err)
	}
}

// eq asserts that two values are the same.
func eq[V any](what string, got, want V) {
	if !reflect.DeepEqual(got, want) {
		fail("%s: got %v, want %v", what, got, want)
	}
}

// check asserts a condition.
func check(holds bool, format string, args ...any) {
	if !holds {
		fail(format, args...)
	}
}

// runCase returns "" if the case passed, else why not.
func runCase(c testCase) (problem, skipReason string) {
	ctx, cancel := context.WithTimeout(context.Background(), caseTimeout)
	defer cancel()
	t := &T{ctx: ctx}
	defer func() {
		for i := len(t.cleanup) - 1; i >= 0; i-- {
			t.cleanup[i]()
		}
	}()
	defer func() {
		switch thrown := recover().(type) {
		case nil:
		case failure:
			problem = thrown.text
		case skipped:
			skipReason = thrown.reason
		default:
			problem = fmt.Sprintf("%v at %s", thrown, debug.Stack())
		}
	}()
	c.run(t)
	return "", ""
}

func selected(c testCase) bool {
	for _, part := range os.Args[1:] {
		if strings.Contains(c.feature+"/"+c.name, part) {
			return true
		}
	}
	return len(os.Args) == 1
}

// oneLine keeps TAP readable whatever an error holds.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 600 {
		text = text[:600] + "..."
	}
	return strings.ReplaceAll(text, "#", "")
}

func main() {
	var printing sync.Mutex
	var running sync.WaitGroup
	turns := make(chan struct{}, casesAtOnce)
	count, failed := 0, false
	for _, c := range cases {
		if !selected(c) {
			continue
		}
		turns <- struct{}{}
		running.Go(func() {
			defer func() { <-turns }()
			problem, skipReason := runCase(c)
			printing.Lock()
			defer printing.Unlock()
			count++
			switch {
			case problem != "":
				failed = true
				fmt.Printf("not ok - %s/%s: %s\n", c.feature, c.name, oneLine(problem))
			case skipReason != "":
				fmt.Printf("ok - %s/%s # SKIP %s\n", c.feature, c.name, oneLine(skipReason))
			default:
				fmt.Printf("ok - %s/%s\n", c.feature, c.name)
			}
		})
	}
	running.Wait()
	fmt.Printf("1..%d\n", count)
	if failed {
		os.Exit(1)
	}
}
