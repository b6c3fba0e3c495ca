package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"fifovm/harness"
)

// Artifacts makes a folder for each failure, with a file for each thing that is
// known of it: result.json, report.txt (what the terminal shows), output.txt,
// console.txt (its end), splat.txt (the kernel's report), plan.txt, seed.txt,
// command.txt and base.snapshot, the guest from before the test. What there is not,
// has no file.
type Artifacts struct {
	dir    string
	decode func([]string) []string
	base   func(file string) error
	err    error
	used   map[string]int
}

var _ Writer = (*Artifacts)(nil)

// The files that a test is replayed from.
const (
	ResultFile = "result.json"
	BaseFile   = "base.snapshot"
)

// NewArtifacts makes folders in dir, which it makes as well. base, unless nil, puts
// the snapshot that a test has begun at into a file.
func NewArtifacts(dir string, decode func([]string) []string, base func(file string) error) (*Artifacts, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("--artifacts: %w", err)
	}
	return &Artifacts{dir: dir, decode: decode, base: base, used: map[string]int{}}, nil
}

// Started implements harness.Reporter.
func (*Artifacts) Started(int) {}

// Running has nothing to tell.
func (*Artifacts) Running(string) {}

// Done makes the folder of a failure and notes it in the result. The first thing
// that goes wrong is kept, and the run goes on.
func (a *Artifacts) Done(r *harness.Result) {
	if r.Verdict != harness.Failed {
		return
	}
	name := strings.ReplaceAll(r.Name(), "/", "-")
	if a.used[name]++; a.used[name] > 1 { // a repetition
		name += "-" + strconv.Itoa(a.used[name])
	}
	r.Artifacts = filepath.Join(a.dir, name)
	if a.base == nil {
		r.Run = "" // there is nothing to replay it from
	}
	if err := a.write(r); err != nil && a.err == nil {
		a.err = fmt.Errorf("--artifacts: %w: not all that is left of a failure is there", err)
	}
}

func (a *Artifacts) write(r *harness.Result) error {
	// What is there is of another run, and would be taken for this one's.
	if err := os.RemoveAll(r.Artifacts); err != nil {
		return err
	}
	if err := os.Mkdir(r.Artifacts, 0o755); err != nil {
		return err
	}
	result, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	files := map[string]string{
		ResultFile:    string(result) + "\n",
		"report.txt":  Failure(r, a.decode),
		"output.txt":  text(r.Output),
		"console.txt": text(r.Console),
		"splat.txt":   text(a.decoded(r.Splat)),
		"plan.txt":    r.Plan,
		"seed.txt":    strconv.FormatUint(r.Seed, 10) + "\n",
		"command.txt": text([]string{r.Command}),
	}
	for name, data := range files {
		if strings.TrimSpace(data) == "" {
			continue
		}
		if err := writeFile(filepath.Join(r.Artifacts, name), []byte(data)); err != nil {
			return err
		}
	}
	if r.Run != "" && a.base != nil {
		return a.base(filepath.Join(r.Artifacts, BaseFile))
	}
	return nil
}

// decoded is a kernel's report with what the symbols add to it.
func (a *Artifacts) decoded(lines []string) []string {
	if a.decode == nil {
		return lines
	}
	return a.decode(lines)
}

func text(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

// Finished implements harness.Reporter.
func (*Artifacts) Finished([]*harness.Result, error) {}

// Err is the first thing that has gone wrong.
func (a *Artifacts) Err() error { return a.err }
