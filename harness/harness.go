// Package harness runs guests for tests and judges them: it boots a machine,
// talks to the agent in it, and makes a verdict of what each test says of
// itself, of the kernel's log and of how the guest ended.
//
// A test is a check of a program in the guest's /tests, and has the name
// PROGRAM/CHECK; a program that does not tell checks apart is one test.
//
// It does not know how kernels, images or machines are made: its caller hands
// it a function that makes one. How results are shown is package report's.
//
// Where to look: harness.go is the queue of what is to be run, worker.go decides
// which guest it runs in, guest.go is the conversation with one, run.go judges the
// checks of a program, result.go is what comes of it.
package harness

import (
	"context"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"fifovm/vmm/vmm"
)

// Options is what to run and how.
type Options struct {
	// Machine makes a machine at its start. What its devices' faults are armed with
	// by then counts from the boot on.
	Machine Machine
	// From makes the same machine at a base. With it, each test has a guest of its
	// own, which begins where an agent was ready. Nil: guests are booted, and each
	// runs tests as long as it lives.
	From func(b *vmm.Base, serial [2]io.Writer) (*vmm.Machine, error)
	// Base is where the guests of From begin, and BaseConsole the end of what had been
	// printed by then. Nil: one is booted for that, and Ready, unless nil, is called
	// with its machine, which stands at the base.
	Base        *vmm.Base
	BaseConsole []string
	Ready       func(m *vmm.Machine, console []string) error
	// Jobs is how many guests there are at a time; 0 is 1.
	Jobs int
	// Tests are the tests to run: PROGRAM, PROGRAM/CHECK or PROGRAM/CHECK/CHECK...,
	// which runs these checks together. None means all that the guest has.
	Tests []string
	// Select and Skip, unless nil, look at the tests' names: those are run which
	// Select matches and Skip does not.
	Select, Skip *regexp.Regexp
	// Host, unless nil, makes the host that does what tests ask for of the usual
	// one.
	Host func(*DeviceHost) Host
	// Alone has each of Tests in a guest of its own. Where faults are armed from the
	// start, one that has not fired in a guest is a failure of what ran there.
	Alone bool
	// BootTime, TestTime and AnswerTime bound a boot, a test, and every other
	// answer, on the host's clock. On engine soft a test may also take no more
	// than idleFactor times TestTime on the guest's.
	BootTime, TestTime, AnswerTime time.Duration
	// Patient has the host's clock not count: somebody may hold the guest up.
	Patient bool
	// Drive, unless nil, runs the machines in the place of their Run.
	Drive func(context.Context, *vmm.Machine) (vmm.Stop, error)
	// Reporter is told of everything; nil: nobody is.
	Reporter Reporter
	// Console, if not nil, takes what the guests print, and Output what the tests
	// print, both as it comes.
	Console, Output io.Writer
	// Symbol, if not nil, gives the kernel's function at an address, as in
	// do_idle+0x12, empty where it does not know one.
	Symbol func(addr uint64) string
	// Plan and Seed are noted in the results; Command gives the command that runs
	// a test again.
	Plan    string
	Seed    uint64
	Command func(test string) string
}

// unit is what one run of a program is to do.
type unit struct {
	program string
	checks  []string // none: all that it has
	whole   bool     // checks are all that it has
	// done is how many of its checks, where none are named, have been run in
	// guests that are gone.
	done  int
	order int // results are in this order
}

// What one command names, well below what the agent takes (guest/agent/agent.c:
// MAX_ARGS, MAX_LINE).
const (
	maxChecks     = 30
	maxCheckBytes = 700
)

// units are the tests as they are named to Options.
func units(tests []string) (all []unit) {
	for _, name := range tests {
		words := strings.Split(name, "/")
		all = append(all, unit{program: words[0], checks: words[1:]})
	}
	return all
}

// test is the unit as Options names it.
func (u *unit) test() string {
	if u.whole {
		return u.program
	}
	return strings.Join(append([]string{u.program}, u.checks...), "/")
}

// command is what the agent is to run.
func (u *unit) command() string {
	if u.whole {
		return u.program
	}
	return strings.Join(append([]string{u.program}, u.checks...), " ")
}

// split gives as much of the unit as a command can name, and the rest.
func (u unit) split() (first unit, rest []unit) {
	if u.whole {
		return u, nil
	}
	size := 0
	for i, c := range u.checks {
		if size += len(c) + 1; i == maxChecks || i > 0 && size > maxCheckBytes {
			first, second := u, u
			first.checks, second.checks = u.checks[:i], u.checks[i:]
			return first, []unit{second}
		}
	}
	return u, nil
}

// The results that are no test's, but of what a guest does before and after, have
// this for their program.
const guestProgram = "guest"

// runner is a run in progress.
type runner struct {
	o    Options
	base *vmm.Base // where guests begin; nil: they are booted
	// console is the end of what had been printed by then.
	console []string

	mu      sync.Mutex
	queue   []unit
	results []placed
	noGuest bool // none came up: what is left is not run
}

// placed is a result with its place among the others.
type placed struct {
	*Result
	order int
}

// Run runs the tests and tells the reporter. The error is not a test's: it says
// why the tests could not be run to the end.
func Run(ctx context.Context, o Options) ([]*Result, error) {
	if o.Reporter == nil {
		o.Reporter = nobody{}
	}
	o.Reporter = &oneAtATime{Reporter: o.Reporter}
	r := &runner{o: o, base: o.Base, console: o.BaseConsole}
	err := r.run(ctx)
	switch {
	case context.Cause(ctx) != nil:
		r.notRun("interrupted")
	case r.noGuest:
		r.notRun("no guest came up for it")
	}
	slices.SortStableFunc(r.results, func(a, b placed) int { return a.order - b.order })
	var results []*Result
	for _, p := range r.results {
		results = append(results, p.Result)
	}
	o.Reporter.Finished(results, err)
	return results, err
}

func (r *runner) run(ctx context.Context) (err error) {
	first := &worker{runner: r}
	defer func() { err = errors.Join(err, first.close(), r.closeBase()) }()
	r.queue = units(r.o.Tests) // which are not run, if no guest comes up
	if up, err := first.up(ctx, 0); err != nil || !up {
		return err
	}
	if r.queue, err = first.chosen(r.queue); err != nil {
		return causeOf(ctx, err)
	}
	r.o.Reporter.Started(size(r.queue))
	if err := first.closeSpoilt(); err != nil {
		return err
	}
	// What one worker could not run, the others do; the run has failed all the same.
	errs := make([]error, min(max(r.o.Jobs, 1), max(len(r.queue), 1)))
	var others sync.WaitGroup
	for i := range errs[1:] {
		others.Go(func() {
			w := &worker{runner: r}
			errs[i+1] = errors.Join(w.work(ctx), w.close())
		})
	}
	errs[0] = first.work(ctx)
	others.Wait()
	// An interruption is one, however many it has interrupted.
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return errors.Join(errs...)
}

// closeBase gives back a base that is the run's own.
func (r *runner) closeBase() error {
	if r.base == nil || r.base == r.o.Base {
		return nil
	}
	return r.base.Close()
}

// take gives what is to be run next.
func (r *runner) take() (u unit, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 || r.noGuest {
		return u, false
	}
	u, rest := r.queue[0].split()
	r.queue = slices.Concat(rest, r.queue[1:])
	return u, true
}

// putBack has what was not run be the next.
func (r *runner) putBack(left ...unit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = slices.Concat(left, r.queue)
}

// stop has nothing more be taken from the queue.
func (r *runner) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noGuest = true
}

// done takes a result.
func (r *runner) done(result *Result, order int) {
	result.Plan, result.Seed = r.o.Plan, r.o.Seed
	if result.Verdict == Failed && r.o.Command != nil {
		name := result.Name()
		if result.Program == guestProgram {
			name = ""
		}
		result.Command = r.o.Command(name)
	}
	r.mu.Lock()
	r.results = append(r.results, placed{result, order})
	r.mu.Unlock()
	if result.Verdict != NotRun {
		r.o.Reporter.Done(result)
	}
}

// notRun has all that is left in the queue be no results.
func (r *runner) notRun(why string) {
	for _, u := range r.queue {
		names := u.checks
		if len(names) == 0 {
			names = []string{""}
		}
		for _, check := range names {
			r.done(&Result{Program: u.program, Check: check, Verdict: NotRun, Reason: why}, u.order)
		}
	}
}

// causeOf is err unless that is only what an interruption looks like.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (r *runner) wanted(name string) bool {
	return (r.o.Select == nil || r.o.Select.MatchString(name)) && (r.o.Skip == nil || !r.o.Skip.MatchString(name))
}

// size is how many tests there are, as far as is known.
func size(queue []unit) (n int) {
	for _, u := range queue {
		n += max(len(u.checks), 1)
	}
	return n
}

// List gives the names of the tests that are chosen, which a guest is asked for.
func List(ctx context.Context, o Options) (names []string, err error) {
	o.Reporter = nobody{}
	r := &runner{o: o, base: o.Base, console: o.BaseConsole}
	w := &worker{runner: r}
	defer func() { err = errors.Join(err, w.close(), r.closeBase()) }()
	if up, err := w.up(ctx, 0); err != nil {
		return nil, err
	} else if !up {
		failed := r.results[0]
		return nil, causeOf(ctx, errors.New(failed.Name()+": "+failed.Reason))
	}
	queue, err := w.chosen(units(o.Tests))
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	for _, u := range queue {
		if len(u.checks) == 0 {
			u.checks = w.guest.checks(u.program)
		}
		if len(u.checks) == 0 {
			names = append(names, u.program)
		}
		for _, c := range u.checks {
			names = append(names, u.program+"/"+c)
		}
	}
	return names, nil
}
