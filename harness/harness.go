// Package harness runs guests for tests and judges them: it boots a machine,
// talks to the agent in it, and makes a verdict of the test's own result, of
// the kernel's log and of how the guest ended.
//
// It does not know how kernels, images or machines are made: its caller hands
// it a function that makes one.
package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Result is the verdict on one test.
type Result struct {
	Name    string
	Err     error // nil: passed, or skipped; else a *Failure
	Skipped bool
	Output  []string // what the test printed, the last lines if it was much
	Time    time.Duration

	dropped int // lines before Output
}

// outputLines is how many lines of a test's output are kept at least.
const outputLines = 2000

// print takes a line of the test's output.
func (r *Result) print(line string) {
	if len(r.Output) == 2*outputLines {
		r.dropped += outputLines
		r.Output = append(r.Output[:0], r.Output[outputLines:]...)
	}
	r.Output = append(r.Output, line)
}

// Options is what to run and how.
type Options struct {
	Machine Machine
	// Tests are the names of the tests to run; none means all that the guest has.
	// NAME/CHECK, or NAME/CHECK/CHECK..., runs these checks of a test alone.
	Tests []string
	// Host, if not nil, does what tests ask for.
	Host Host
	// Alone has each test run in a guest of its own.
	Alone bool
	// Judge, if not nil, is asked when the guest that ran a test has ended. Its
	// error is why the test, if it was not skipped, has failed. It goes with Alone.
	Judge func() error
	// BootTime, TestTime and AnswerTime bound a boot, a test, and every other
	// answer.
	BootTime, TestTime, AnswerTime time.Duration
	// Report takes a line for each test and the failures' details.
	Report io.Writer
	// Console, if not nil, takes what the guests print, and Output what the tests
	// print, both as it comes.
	Console, Output io.Writer
}

// Run runs the tests, all in one guest as long as it lives, and reports. It
// ends with a line "N passed, N failed", with skipped tests named behind. The
// error is not a test's: it says why the tests could not be run to the end.
func Run(ctx context.Context, o Options) (results []Result, err error) {
	var g *Guest
	defer func() {
		if g != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	record := func(r Result) {
		results = append(results, r)
		report(o.Report, r)
	}
	tests := o.Tests
	for i := 0; i < len(tests) || len(tests) == 0; {
		if g == nil {
			g, err = Start(ctx, o)
			var failed *Failure
			if errors.As(err, &failed) && context.Cause(ctx) == nil {
				// Without a guest there is nothing to run: one verdict says it.
				record(Result{Name: "boot", Err: err})
				err = nil
				break
			}
			if err != nil {
				return results, err
			}
		}
		if len(tests) == 0 {
			tests, err = g.List(o.AnswerTime)
			if cause := context.Cause(ctx); cause != nil {
				return results, cause
			}
			if err != nil {
				record(Result{Name: "list", Err: err})
				err = nil
				break
			}
			if len(tests) == 0 {
				return results, errors.New("the guest has no tests in /tests")
			}
			continue
		}
		r, alive := g.Run(tests[i], o.TestTime)
		if cause := context.Cause(ctx); cause != nil {
			summary(o.Report, results)
			return results, cause
		}
		i++
		if alive && (o.Alone || i == len(tests)) {
			// The last test answers for the way the guest ends.
			if err := g.PowerOff(o.AnswerTime); err != nil && r.Err == nil {
				r.Err = err
			}
			alive = false
		}
		var closeErr error
		if !alive {
			ended := g
			g = nil
			closeErr = ended.Close()
			if o.Judge != nil && !r.Skipped {
				r.Err = ended.judged(r, o.Judge())
			}
		}
		record(r)
		if closeErr != nil {
			return results, closeErr
		}
	}
	summary(o.Report, results)
	return results, err
}

// judged is the test's error with the judge's verdict, if there is one.
func (g *Guest) judged(r Result, verdict error) error {
	var f *Failure
	switch {
	case verdict == nil:
		return r.Err
	case errors.As(r.Err, &f):
		return &Failure{What: f.What, Err: join(f.Err, verdict), Console: f.Console}
	}
	return g.failure(r.Name, verdict)
}

func report(w io.Writer, r Result) {
	var f *Failure
	switch {
	case r.Err == nil && r.Skipped:
		fmt.Fprintf(w, "skipped  %s (%.2f s)\n", r.Name, r.Time.Seconds())
		for _, line := range r.Output {
			fmt.Fprintf(w, "  | %s\n", line)
		}
	case r.Err == nil:
		fmt.Fprintf(w, "passed   %s (%.2f s)\n", r.Name, r.Time.Seconds())
	case errors.As(r.Err, &f):
		fmt.Fprintf(w, "FAILED   %s: %v\n", r.Name, f.Err)
		if r.dropped > 0 {
			fmt.Fprintf(w, "  | (%d lines before)\n", r.dropped)
		}
		for _, line := range r.Output {
			fmt.Fprintf(w, "  | %s\n", line)
		}
		fmt.Fprintf(w, "  the last lines of the console:\n")
		for _, line := range f.Console {
			fmt.Fprintf(w, "  > %s\n", line)
		}
	default:
		fmt.Fprintf(w, "FAILED   %s: %v\n", r.Name, r.Err)
	}
}

// Failed counts the tests that failed.
func Failed(results []Result) int {
	n := 0
	for _, r := range results {
		if r.Err != nil {
			n++
		}
	}
	return n
}

// Passed counts the tests that passed.
func Passed(results []Result) int {
	n := 0
	for _, r := range results {
		if r.Err == nil && !r.Skipped {
			n++
		}
	}
	return n
}

func summary(w io.Writer, results []Result) {
	passed, failed := Passed(results), Failed(results)
	fmt.Fprintf(w, "%d passed, %d failed", passed, failed)
	if skipped := len(results) - passed - failed; skipped > 0 {
		fmt.Fprintf(w, ", %d skipped", skipped)
	}
	fmt.Fprintln(w)
}
