package harness

import (
	"fmt"
	"sync"
	"time"
)

// Verdict is what came of a test.
type Verdict uint8

// The verdicts.
const (
	Passed Verdict = iota
	Failed
	Skipped
	NotRun // the run was interrupted, or no guest came up for it
)

var verdictNames = [...]string{Passed: "passed", Failed: "failed", Skipped: "skipped", NotRun: "not run"}

func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// MarshalText has a verdict be its name in JSON.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads what MarshalText has written.
func (v *Verdict) UnmarshalText(text []byte) error {
	for i, name := range verdictNames {
		if name == string(text) {
			*v = Verdict(i)
			return nil
		}
	}
	return fmt.Errorf("there is no verdict %q", text)
}

// Kind is why a test failed, empty where it did not.
type Kind string

// The kinds of failures.
const (
	KindAssertion  Kind = "assertion"          // the test says so itself
	KindKernel     Kind = "kernel report"      // WARN, oops, KASAN, lockdep...
	KindPanic      Kind = "kernel panic"       //
	KindHangUser   Kind = "hang in the test"   // it could be killed
	KindHangKernel Kind = "hang in the kernel" // it could not be killed, or the guest is busy and its agent does not answer
	KindSilent     Kind = "guest silent"       // it is idle, and its agent does not answer
	KindPowerOff   Kind = "guest ended early"  // powered off or reset by itself
	KindBoot       Kind = "boot failed"        // no agent came up
	KindModule     Kind = "module did not load"
	KindInvalid    Kind = "fault never fired"
	KindLeak       Kind = "leak"
	KindCrash      Kind = "test crashed" // a signal, an exit status, KTAP that is none
	KindMachine    Kind = "machine"      // the emulator could not go on
)

// Result is what came of one test: a check of a program, or a program that does
// not tell checks apart.
type Result struct {
	Program string  `json:"program"`
	Check   string  `json:"check,omitempty"`
	Verdict Verdict `json:"verdict"`
	Kind    Kind    `json:"kind,omitempty"`
	// Reason is one line: why it failed, was skipped, or was not run.
	Reason string `json:"reason,omitempty"`
	// Where is the place of the assertion that failed, as in fifo_io.c:123; empty
	// if it isn't known.
	Where string `json:"where,omitempty"`
	// Output is what the test printed, the end of it if it was much.
	Output []string `json:"output,omitempty"`
	// Splat is the kernel's report, its raw lines.
	Splat []string `json:"splat,omitempty"`
	// Console is the end of what the guest printed on its console.
	Console []string `json:"console,omitempty"`
	// Plan is the fault plan under which it ran, without what it armed itself.
	Plan string        `json:"plan,omitempty"`
	Seed uint64        `json:"seed"`
	Time time.Duration `json:"time_ns"` // the host's
	// Run is the test, as Options.Tests has it, that was run from the base when this
	// came of it; empty: it can't be replayed, as the guest had run others before, or
	// its engine does not count instructions. Retired is how many
	// instructions that took, up to the verdict; 0: the host's clock has a part in that.
	Run     string `json:"run,omitempty"`
	Retired int64  `json:"retired,omitempty"`
	// Bound is how long the test might have taken.
	Bound time.Duration `json:"bound_ns,omitempty"`
	// Artifacts is the folder with what else there is of the failure; empty: none.
	Artifacts string `json:"artifacts,omitempty"`
	// Command runs the test again.
	Command string `json:"command,omitempty"`
}

// Name is the test's: PROGRAM/CHECK, or PROGRAM.
func (r *Result) Name() string {
	if r.Check == "" {
		return r.Program
	}
	return r.Program + "/" + r.Check
}

// String is the result in a line, without what was printed.
func (r *Result) String() string {
	s := r.Verdict.String() + " " + r.Name()
	for _, more := range []string{string(r.Kind), r.Where, r.Reason} {
		if more != "" {
			s += ": " + more
		}
	}
	return s
}

// nobody is the Reporter of a run of which nobody is told.
type nobody struct{}

func (nobody) Started(int)               {}
func (nobody) Running(string)            {}
func (nobody) Done(*Result)              {}
func (nobody) Finished([]*Result, error) {}

// oneAtATime has calls come one at a time.
type oneAtATime struct {
	mu sync.Mutex
	Reporter
}

func (o *oneAtATime) Running(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Reporter.Running(name)
}

func (o *oneAtATime) Done(r *Result) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Reporter.Done(r)
}

// Reporter tells of a run as it goes on. The calls come one at a time.
type Reporter interface {
	// Started comes once, when it is known how many tests there are.
	Started(total int)
	// Running comes when a test begins.
	Running(name string)
	// Done comes for each result but those of tests that were not run. A failure
	// that is nobody's alone, such as that of a boot, is a result more than the
	// total.
	Done(r *Result)
	// Finished comes once, and last, with all results, those of tests that were
	// not run included. err is why the run ended early, nil if it did not.
	Finished(all []*Result, err error)
}

// Count gives how many of the results there are with the verdict.
func Count(results []*Result, v Verdict) int {
	n := 0
	for _, r := range results {
		if r.Verdict == v {
			n++
		}
	}
	return n
}
