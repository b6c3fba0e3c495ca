package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const first = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="2" failures="1">
  <testsuite name="boot" tests="2" failures="1" time="0.5">
    <properties><property name="engine" value="kvm"></property></properties>
    <testcase name="cpus" classname="boot" time="0.1"><system-out><![CDATA[<failure>]]></system-out></testcase>
    <testcase name="clock" classname="boot" time="0.4"><failure message="silent">gone</failure></testcase>
  </testsuite>
</testsuites>`

const second = `<testsuites><testsuite name="boot"><testcase name="clock" classname="boot" time="0.3"></testcase></testsuite></testsuites>`

const log = "fifovm: engine kvm\npassed   boot/clock (0.20 s)\nskipped  fifo_io/poll (0.10 s)\nFAILED   fifo_io/read: silent\n2 passed, 1 failed\n"

func TestMerge(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"1.xml": first, "2.xml": second, "1.log": log, "bad.xml": "<testsuites>"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for _, tt := range []struct {
		name string
		args string
		want []string // suites and tests, as summary has them
	}{
		{"one", "a=1.xml", []string{"boot 2/1/0/0", "cpus passed", "clock failure"}},
		{"a repetition counts", "a=1.xml a=2.xml", []string{"boot 2/0/0/0", "cpus passed", "clock passed"}},
		{"two runs", "a=1.xml b=2.xml", []string{"boot (a) 2/1/0/0", "cpus passed", "clock failure", "boot (b) 1/0/0/0", "clock passed"}},
		{"a log", "a=1.xml a=1.log", []string{"boot 2/0/0/0", "cpus passed", "clock passed", "fifo_io 1/0/0/1", "poll skipped"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := merge("out.xml", strings.Fields(tt.args)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, summary(t, "out.xml")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, args := range []string{"a=none.xml", "a=bad.xml", "1.xml"} {
		if err := merge("out.xml", []string{args}); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
}

// summary reads the file with the program's own types.
func summary(t *testing.T, file string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all.Suites {
		var counts []string
		for _, n := range []string{"tests", "failures", "errors", "skipped"} {
			counts = append(counts, attr(s.Attrs, n))
		}
		lines = append(lines, attr(s.Attrs, "name")+" "+strings.Join(counts, "/"))
		for _, c := range s.Cases {
			verdict := "passed"
			for _, v := range []string{"failure", "error", "skipped"} {
				if c.has(v) {
					verdict = v
				}
			}
			lines = append(lines, attr(c.Attrs, "name")+" "+verdict)
		}
	}
	return lines
}
