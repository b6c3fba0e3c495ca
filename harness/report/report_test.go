package report

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fifovm/harness"
)

// results are one of each verdict, and a failure with all that one can have.
func results() []*harness.Result {
	return []*harness.Result{
		{Program: "io", Check: "reads", Verdict: harness.Passed, Time: 1500 * time.Millisecond},
		{Program: "io", Check: "writes", Verdict: harness.Failed, Kind: harness.KindAssertion, Reason: "got 5 <\x1b[31m>", Where: "io.c:7",
			Output: []string{"# io.c:7: got 5", "not ok 2 writes"}, Console: []string{"up", "# \x07"}, Seed: 3, Command: "fifovm test io/writes"},
		{Program: "io", Check: "locks", Verdict: harness.Skipped, Reason: "no card"},
		{Program: "load", Verdict: harness.Failed, Kind: harness.KindKernel, Reason: "the kernel's log says: WARNING", Splat: []string{"WARNING: at f+0x1/0x2"},
			Console: []string{"before", "WARNING: at f+0x1/0x2"}},
		{Program: "load", Check: "again", Verdict: harness.NotRun, Reason: "interrupted"},
	}
}

// tell has a reporter go through all of it.
func tell(r harness.Reporter, all []*harness.Result, err error) {
	r.Started(len(all))
	for _, result := range all {
		r.Running(result.Name())
		if result.Verdict != harness.NotRun {
			r.Done(result)
		}
	}
	r.Finished(all, err)
}

const plain = `passed   io/reads (1.50 s)
FAILED   io/writes: got 5 <?[31m>
  at io.c:7
  | # io.c:7: got 5
  | not ok 2 writes
  the last lines of the console:
  > up
  > # ?
  again: fifovm test io/writes
skipped  io/locks (0.00 s): no card
FAILED   load: the kernel's log says: WARNING
  the kernel's report:
  ! decoded WARNING: at f+0x1/0x2
  the last lines of the console:
  > before
failed:
  io/writes
  load
1 passed, 2 failed, 1 skipped, 1 not run
`

func decode(lines []string) (decoded []string) {
	for _, line := range lines {
		decoded = append(decoded, "decoded "+line)
	}
	return decoded
}

func TestTerminal(t *testing.T) {
	var b strings.Builder
	tell(NewTerminal(&b, 0, decode), results(), nil)
	if diff := cmp.Diff(plain, b.String()); diff != "" {
		t.Error(diff)
	}
	// What a live line leaves on the screen is the same.
	b.Reset()
	tell(NewTerminal(&b, 20, decode), results(), nil)
	text := b.String()
	if !strings.Contains(text, "\r\x1b[K1/5  io/writes") || !strings.Contains(text, "2/5, 1 FAILED  io/") {
		t.Errorf("no live line: %q", text)
	}
	var screen strings.Builder
	for i, part := range strings.Split(text, "\r\x1b[K") {
		if shown, below, found := strings.Cut(part, "\n"); !found && len(shown) > 19 && i > 0 {
			t.Errorf("a live line is too long: %q", shown)
		} else if found {
			screen.WriteString(shown + "\n" + below)
		}
	}
	if diff := cmp.Diff(plain, screen.String()); diff != "" {
		t.Error(diff)
	}
}

func TestJUnit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.xml")
	j := NewJUnit(path, nil)
	j.now = func() time.Time { return time.Unix(1_800_000_000, 999) }
	tell(j, results(), errors.New("stopped"))
	if j.Err() != nil {
		t.Fatal(j.Err())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var doc junitSuites
	if err := xml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range doc.Suites {
		got = append(got, strings.Join([]string{s.Name, s.Timestamp, s.Time}, " "))
		tests, failures, errs, skipped := 0, 0, 0, 0
		for _, c := range s.Cases {
			tests++
			state := "passed"
			for _, m := range []struct {
				m    *junitMessage
				name string
				n    *int
			}{{c.Failure, "failure", &failures}, {c.Error, "error", &errs}, {c.Skipped, "skipped", &skipped}} {
				if m.m != nil {
					*m.n++
					state = m.name + " " + m.m.Type + " " + m.m.Message
				}
			}
			got = append(got, c.Class+"/"+c.Name+" "+c.Time+" "+state)
		}
		if tests != s.Tests || failures != s.Failures || errs != s.Errors || skipped != s.Skipped {
			t.Errorf("%s: the numbers are %d, %d, %d, %d; it has %d, %d, %d, %d", s.Name, s.Tests, s.Failures, s.Errors, s.Skipped, tests, failures, errs, skipped)
		}
	}
	want := []string{
		"io 2027-01-15T08:00:00 1.500", "io/reads 1.500 passed", "io/writes 0.000 failure assertion got 5 <\ufffd[31m>", "io/locks 0.000 skipped  skipped: no card",
		"load 2027-01-15T08:00:00 0.000", "load/load 0.000 error kernel report the kernel's log says: WARNING", "load/again 0.000 skipped  not run: interrupted",
		"fifovm 2027-01-15T08:00:00 0.000", "fifovm/run 0.000 error run stopped",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	j := NewJSON(path)
	all := results()
	tell(j, all, errors.New("stopped"))
	text, err := os.ReadFile(path)
	if err != nil || j.Err() != nil {
		t.Fatal(err, j.Err())
	}
	var doc struct {
		Format, Passed, Failed, Skipped int
		NotRun                          int `json:"not_run"`
		Error                           string
		Results                         []*harness.Result
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Format != 1 || doc.Passed != 1 || doc.Failed != 2 || doc.Skipped != 1 || doc.NotRun != 1 || doc.Error != "stopped" {
		t.Errorf("%+v", doc)
	}
	if diff := cmp.Diff(all, doc.Results); diff != "" {
		t.Error(diff)
	}
}

func TestArtifacts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "failures")
	if err := os.MkdirAll(filepath.Join(dir, "load", "old"), 0o755); err != nil {
		t.Fatal(err)
	}
	a, err := NewArtifacts(dir, decode, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := results()
	tell(a, append(all, all[3]), nil) // the second time another folder
	if a.Err() != nil {
		t.Fatal(a.Err())
	}
	var got []string
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			got = append(got, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"io-writes/command.txt", "io-writes/console.txt", "io-writes/output.txt", "io-writes/report.txt", "io-writes/result.json", "io-writes/seed.txt",
		"load/console.txt", "load/report.txt", "load/result.json", "load/seed.txt", "load/splat.txt",
		"load-2/console.txt", "load-2/report.txt", "load-2/result.json", "load-2/seed.txt", "load-2/splat.txt",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if all[1].Artifacts != filepath.Join(dir, "io-writes") {
		t.Errorf("the result says %q", all[1].Artifacts)
	}
}

// TestUnwritable: what can't be written is said, the rest is told, and no part of
// a file is left.
func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := NewArtifacts(filepath.Join(file, "failures"), nil, nil); err == nil || !strings.HasPrefix(err.Error(), "--artifacts: ") {
		t.Errorf("artifacts in a file: %v", err)
	}
	failures := filepath.Join(dir, "failures")
	a, err := NewArtifacts(failures, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(failures); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	all := Tee{a, NewTerminal(&b, 0, decode), NewJUnit(filepath.Join(dir, "no", "report.xml"), nil), NewJSON(filepath.Join(dir, "no", "report.json"))}
	tell(all, results(), nil)
	if !strings.HasSuffix(b.String(), "1 passed, 2 failed, 1 skipped, 1 not run\n") {
		t.Errorf("the terminal has\n%s", &b)
	}
	for _, want := range []string{"--artifacts: ", "--junit: ", "--json: "} {
		if err := all.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	// A file that can't be finished.
	if err := writeFile(filepath.Join(dir, "failures-as-a-folder"), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(filepath.Join(dir, "taken"), []byte("x")); err == nil {
		t.Error("a folder was written over")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}
