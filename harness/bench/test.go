package bench

import (
	"flag"
	"regexp"
	"strings"
	"testing"

	"fifovm/harness"
	"fifovm/harness/report"
	"fifovm/harness/splat"
)

// Test runs the bench's tests and makes a subtest of each, PROGRAM/CHECK, so that
// `go test -run TestCard/card/overrun` runs one check. A failure has the text that
// `fifovm test` prints.
func Test(t *testing.T, b Bench) {
	t.Helper()
	var s Selection
	if f := flag.Lookup("test.run"); f != nil {
		s.Select = selection(f.Value.String(), strings.Count(t.Name(), "/")+1)
	}
	results, err := b.Run(t.Context(), s, nil)
	if err != nil {
		t.Error(err)
	}
	symbols, err := b.symbols()
	if err != nil {
		t.Logf("the kernel's reports have no lines of source: %v", err)
	}
	defer symbols.Close()
	for len(results) > 0 {
		n := 1
		for n < len(results) && results[n].Program == results[0].Program {
			n++
		}
		program := results[:n]
		results = results[n:]
		t.Run(program[0].Program, func(t *testing.T) {
			for _, r := range program {
				if r.Check == "" {
					show(t, r, symbols)
					continue
				}
				t.Run(r.Check, func(t *testing.T) { show(t, r, symbols) })
			}
		})
	}
}

// symbols are those of the kernel and the modules.
func (b *Bench) symbols() (*splat.Symbols, error) {
	build, err := b.build()
	if err != nil {
		return nil, err
	}
	var modules []string
	for _, m := range b.Modules {
		file, _, _ := strings.Cut(m, ",")
		modules = append(modules, file)
	}
	return splat.Open(kernelFile(build, or(b.Kernel, "6.12")), modules...)
}

// show gives a test the result's verdict.
func show(t *testing.T, r *harness.Result, symbols *splat.Symbols) {
	t.Helper()
	switch r.Verdict {
	case harness.Passed:
		t.Logf("%.2f s in the guest's machine", r.Time.Seconds())
	case harness.Failed:
		t.Error("\n" + report.Failure(r, symbols.Decode))
	case harness.Skipped, harness.NotRun:
		t.Skip(r.Reason)
	}
}

// simple is an element of -run's pattern that can be part of another expression.
var simple = regexp.MustCompile(`^\^?[\w.-]*\$?$`)

// selection is what go test's -run asks for behind the first elements, which are
// tests of Go; nil for all. What it can't tell, go test sorts out itself.
func selection(run string, skip int) *regexp.Regexp {
	elements := strings.Split(run, "/")
	if len(elements) <= skip {
		return nil
	}
	var parts []string
	for _, e := range elements[skip:min(len(elements), skip+2)] {
		if !simple.MatchString(e) {
			return nil
		}
		part := "[^/]*" + strings.Trim(e, "^$") + "[^/]*"
		if strings.HasPrefix(e, "^") {
			part = strings.TrimPrefix(part, "[^/]*")
		}
		if strings.HasSuffix(e, "$") {
			part = strings.TrimSuffix(part, "[^/]*")
		}
		parts = append(parts, part)
	}
	if len(parts) == 1 {
		parts = append(parts, ".*")
	}
	return regexp.MustCompile("^" + parts[0] + "(?:/" + parts[1] + ")?$")
}
