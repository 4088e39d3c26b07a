package main

// Scripts: text files with commands and what they print. README.md has the grammar.

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What begins the lines that are no output.
var marks = []string{"== ", "-- ", "$ ", "$~ ", "& ", "@ ", "< ", "# "}

// A command, or what is to happen to the server or a job, with the lines that it prints.
type step struct {
	line   int    // in the file, from 1
	mark   string // "$", "$~", "&" or "@"
	text   string // the rest of the line
	input  []string
	wanted []string // as in the file, so with the versions that they are of
}

type script struct {
	name    string // FEATURE/what it shows
	only    string // the version that it is for, or ""
	flags   []string
	tls     bool
	secrets bool // client certificates too
	steps   []*step
}

// A file of scripts.
type file struct {
	path    string
	scripts []*script
}

// mine says whether a line is of this version, and returns it without its version.
func mine(line, version string) (string, bool) {
	if found := strings.HasPrefix(line, "[3."); !found {
		return line, true
	}
	of, rest, _ := strings.Cut(line[1:], "] ")
	return rest, of == version
}

func markOf(line string) string {
	for _, mark := range marks {
		if strings.HasPrefix(line, mark) {
			return mark
		}
	}
	return ""
}

func readFile(path, version string) (*file, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	read := &file{path: path}
	var now *script
	var last *step
	for i, full := range strings.Split(string(content), "\n") {
		line, of := mine(full, version)
		mark := markOf(line)
		if strings.TrimSpace(line) == "" || mark == "# " || mark != "" && !of {
			continue
		}
		rest := strings.TrimPrefix(line, mark)
		switch {
		case mark == "== ":
			now, last = &script{name: rest}, nil
			read.scripts = append(read.scripts, now)
		case now == nil:
			return nil, fmt.Errorf("%s:%d: before the first script", path, i+1)
		case mark == "-- ":
			err = now.option(rest)
		case mark == "$ " || mark == "$~ " || mark == "& " || mark == "@ ":
			last = &step{line: i + 1, mark: strings.TrimSpace(mark), text: rest}
			now.steps = append(now.steps, last)
		case last == nil:
			err = fmt.Errorf("output before the first command")
		case mark == "< ":
			last.input = append(last.input, rest)
		default:
			last.wanted = append(last.wanted, full)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
	}
	return read, nil
}

// option reads a line that begins with "-- ".
func (s *script) option(text string) error {
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "only":
		s.only = rest
	case "flags":
		s.flags = strings.Fields(rest)
	case "tls":
		s.tls = true
	case "certificates":
		s.tls, s.secrets = true, true
	default:
		return fmt.Errorf("unknown option %q", word)
	}
	return nil
}

func readAll(folder, version string) (files []*file, err error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.txt"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no scripts in %s", folder)
	}
	for _, path := range paths {
		read, err := readFile(path, version)
		if err != nil {
			return nil, err
		}
		files = append(files, read)
	}
	return files, nil
}

// expected is what the step prints with this version.
func (s *step) expected(version string) (lines []string) {
	for _, full := range s.wanted {
		if line, of := mine(full, version); of {
			lines = append(lines, line)
		}
	}
	return lines
}

// record makes `printed` what the step has to print with this version, and leaves other versions alone.
func (s *step) record(version string, printed []string) {
	var others []string
	for _, full := range s.wanted {
		switch line, of := mine(full, version); {
		case !of:
			others = append(others, full)
		case line == full: // of every version until now
			for _, other := range versions {
				if other != version {
					others = append(others, "["+other+"] "+full)
				}
			}
		}
	}
	s.wanted = others
	for _, line := range printed {
		if len(others) > 0 {
			line = "[" + version + "] " + line
		}
		s.wanted = append(s.wanted, line)
	}
}

// write puts the recorded output into the file.
func (f *file) write() error {
	content, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	steps := map[int]*step{}
	for _, script := range f.scripts {
		for _, step := range script.steps {
			steps[step.line] = step
		}
	}
	var lines []string
	var last *step
	for i, full := range strings.Split(string(content), "\n") {
		line, _ := mine(full, "")
		if step := steps[i+1]; step != nil {
			last = step
		} else if mark := markOf(line); mark == "== " || mark == "" && strings.TrimSpace(line) == "" || mark == "# " {
			last = nil
		} else if mark == "" && last != nil {
			continue // output, which is written again
		}
		lines = append(lines, full)
		if last != nil && len(last.input) == 0 && steps[i+1] != nil || last != nil && endOfInput(last, i+1) {
			lines = append(lines, last.wanted...)
		}
	}
	return os.WriteFile(f.path, []byte(strings.Join(lines, "\n")), 0o644)
}

func endOfInput(s *step, line int) bool { return len(s.input) > 0 && line == s.line+len(s.input) }

// A name in braces stands for text that differs from run to run. The first use takes what it finds, later ones demand
// the same; {_} stands for anything without a space, {...} for anything.
var name = regexp.MustCompile(`\{(_|\.\.\.|[a-z][a-z0-9]*)(:dec)?\}`)

type names map[string]string

// fill puts the values of names into a command.
func (n names) fill(text string) (string, error) {
	var unknown error
	filled := name.ReplaceAllStringFunc(text, func(found string) string {
		value, known := n.value(found)
		if !known {
			unknown = fmt.Errorf("nothing is known of %s", found)
		}
		return value
	})
	return filled, unknown
}

// value looks a name in braces up; with ":dec" a hexadecimal value is given in decimal.
func (n names) value(braces string) (string, bool) {
	parts := name.FindStringSubmatch(braces)
	value, known := n[parts[1]]
	if known && parts[2] != "" {
		number, err := strconv.ParseUint(value, 16, 64)
		if err != nil {
			return "", false
		}
		value = fmt.Sprint(number)
	}
	return value, known
}

// matches compares a line with what is wanted and learns the names in it.
func (n names) matches(wanted, line string) bool {
	var pattern strings.Builder
	var learned []string
	rest := wanted
	for {
		at := name.FindStringIndex(rest)
		if at == nil {
			break
		}
		pattern.WriteString(regexp.QuoteMeta(rest[:at[0]]))
		braces := rest[at[0]:at[1]]
		rest = rest[at[1]:]
		if value, known := n.value(braces); known {
			pattern.WriteString(regexp.QuoteMeta(value))
		} else if braces == "{...}" {
			pattern.WriteString(".*")
		} else {
			learned = append(learned, strings.Trim(braces, "{}"))
			pattern.WriteString(`([^\s,|"]+)`)
		}
	}
	found := regexp.MustCompile("^" + pattern.String() + regexp.QuoteMeta(rest) + "$").FindStringSubmatch(line)
	if found == nil {
		return false
	}
	for i, name := range learned {
		if name != "_" {
			n[name] = found[i+1]
		}
	}
	return true
}

// hide is the reverse of fill, for recording: the longest values first.
func (n names) hide(line string) string {
	keys := make([]string, 0, len(n))
	for key := range n {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int { return len(n[b]) - len(n[a]) })
	for _, key := range keys {
		if len(n[key]) < 8 {
			continue
		}
		line = strings.ReplaceAll(line, n[key], "{"+key+"}")
		if decimal, known := n.value("{" + key + ":dec}"); known && len(decimal) > 8 {
			line = strings.ReplaceAll(line, decimal, "{"+key+":dec}")
		}
	}
	return line
}
