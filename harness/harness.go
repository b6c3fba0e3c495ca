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
// Where to look: harness.go decides what runs in which guest, guest.go is the
// conversation with one, run.go judges the checks of a program, result.go is
// what comes of it.
package harness

import (
	"context"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Options is what to run and how.
type Options struct {
	Machine Machine
	// Tests are the tests to run: PROGRAM, PROGRAM/CHECK or PROGRAM/CHECK/CHECK...,
	// which runs these checks together. None means all that the guest has.
	Tests []string
	// Select and Skip, unless nil, look at the tests' names: those are run which
	// Select matches and Skip does not.
	Select, Skip *regexp.Regexp
	// Host, if not nil, does what tests ask for.
	Host Host
	// Alone has each program run in a guest of its own.
	Alone bool
	// Judge, if not nil, is asked when a guest that ran tests has ended: its error
	// is a failure of the program that ran in it. It goes with Alone.
	Judge func() error
	// BootTime, TestTime and AnswerTime bound a boot, a test, and every other
	// answer, on the host's clock. On engine soft a test may also take no more
	// than idleFactor times TestTime on the guest's.
	BootTime, TestTime, AnswerTime time.Duration
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
	done int
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
			return unit{program: u.program, checks: u.checks[:i]}, []unit{{program: u.program, checks: u.checks[i:]}}
		}
	}
	return u, nil
}

// The results that are no test's, but of what a guest does before and after, have
// this for their program.
const guestProgram = "guest"

// runner is a run in progress.
type runner struct {
	o       Options
	guest   *Guest // nil: none is up
	ran     []string
	results []*Result
}

// Run runs the tests, all in one guest as long as it lives, and tells the
// reporter. The error is not a test's: it says why the tests could not be run to
// the end.
func Run(ctx context.Context, o Options) (results []*Result, err error) {
	if o.Reporter == nil {
		o.Reporter = nobody{}
	}
	r := &runner{o: o}
	err = r.run(ctx)
	if r.guest != nil {
		err = errors.Join(err, r.guest.Close())
	}
	o.Reporter.Finished(r.results, err)
	return r.results, err
}

func (r *runner) run(ctx context.Context) error {
	queue, started := units(r.o.Tests), false
	for {
		if !started || len(queue) > 0 {
			if up, err := r.up(ctx, queue); err != nil || !up {
				return err
			}
		}
		if !started {
			var err error
			if queue, err = r.chosen(queue); err != nil {
				return causeOf(ctx, err)
			}
			r.o.Reporter.Started(size(queue))
			started = true
			if err := r.closeSpoilt(); err != nil {
				return err
			}
			if r.guest == nil {
				continue
			}
		}
		if len(queue) == 0 {
			return r.down(ctx)
		}
		u := queue[0]
		queue = queue[1:]
		if u.done > 0 {
			// Which are left, is asked only now: nobody wanted to know before.
			checks := r.guest.checks(u.program, r.o.AnswerTime)
			if len(checks) <= u.done {
				r.notRun([]unit{{program: u.program}}, "the checks behind the one that failed: it does not list them")
				if err := r.closeSpoilt(); err != nil {
					return err
				}
				continue
			}
			u = unit{program: u.program, checks: checks[u.done:]}
		}
		u, rest := u.split()
		queue = slices.Insert(queue, 0, rest...)
		r.ran = append(r.ran, u.program)
		alive, left := r.guest.run(u, &r.o, r.done)
		if cause := context.Cause(ctx); cause != nil {
			r.notRun(slices.Insert(queue, 0, left...), "interrupted")
			return cause
		}
		queue = slices.Insert(queue, 0, left...)
		switch {
		case !alive:
			if err := r.close(); err != nil {
				return err
			}
		case r.o.Alone || len(queue) == 0:
			if err := r.down(ctx); err != nil {
				return err
			}
			if len(queue) == 0 {
				return nil
			}
		}
	}
}

// up boots a guest if there is none. Without one, there is nothing to run: one
// result says it.
func (r *runner) up(ctx context.Context, queue []unit) (bool, error) {
	if r.guest != nil {
		return true, nil
	}
	g, failed, err := start(ctx, r.o)
	if cause := context.Cause(ctx); cause != nil {
		r.notRun(queue, "interrupted")
		return false, cause
	}
	if err != nil {
		return false, err
	}
	if failed != nil {
		r.done(failed)
		r.notRun(queue, "no guest came up for it")
		return false, nil
	}
	r.guest = g
	return true, nil
}

// down ends the guest in an orderly way, which is judged as well.
func (r *runner) down(ctx context.Context) error {
	if r.guest == nil {
		return nil
	}
	failed := r.guest.powerOff(r.o.AnswerTime)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if failed != nil {
		if len(r.ran) > 0 {
			failed.Reason += " (it ran " + strings.Join(slices.Compact(r.ran), ", ") + ")"
		}
		r.done(failed)
	}
	return r.close()
}

// closeSpoilt closes a guest whose programs did more than to answer when they were
// asked for their checks: what it would say of the next test is not that test's.
func (r *runner) closeSpoilt() error {
	if r.guest.gone() || !r.guest.quiet() {
		return r.close()
	}
	return nil
}

// close is for a guest that has ended, or is to.
func (r *runner) close() error {
	g := r.guest
	r.guest = nil
	err := g.Close()
	if r.o.Judge != nil && len(r.ran) > 0 {
		if verdict := r.o.Judge(); verdict != nil {
			r.done(g.failure(r.ran[len(r.ran)-1], KindInvalid, verdict.Error()))
		}
	}
	r.ran = nil
	return err
}

// done takes a result.
func (r *runner) done(result *Result) {
	result.Plan, result.Seed = r.o.Plan, r.o.Seed
	if result.Verdict == Failed && r.o.Command != nil {
		name := result.Name()
		if result.Program == guestProgram {
			name = ""
		}
		result.Command = r.o.Command(name)
	}
	r.results = append(r.results, result)
	r.o.Reporter.Done(result)
}

// notRun has all results that are still to come be none.
func (r *runner) notRun(queue []unit, why string) {
	for _, u := range queue {
		names := u.checks
		if len(names) == 0 {
			names = []string{""}
		}
		for _, check := range names {
			r.results = append(r.results, &Result{Program: u.program, Check: check, Verdict: NotRun, Reason: why, Plan: r.o.Plan, Seed: r.o.Seed})
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

// chosen gives the units to run. What the guest has is asked where that matters.
func (r *runner) chosen(queue []unit) ([]unit, error) {
	if len(queue) == 0 {
		programs, err := r.guest.List(r.o.AnswerTime)
		if err != nil {
			return nil, err
		}
		if len(programs) == 0 {
			return nil, errors.New("the guest has no tests in /tests")
		}
		for _, p := range programs {
			queue = append(queue, unit{program: p})
		}
	} else if r.o.Select == nil && r.o.Skip == nil {
		return queue, nil
	}
	var chosen []unit
	for _, u := range queue {
		if len(u.checks) == 0 {
			u.checks, u.whole = r.guest.checks(u.program, r.o.AnswerTime), true
		}
		if len(u.checks) == 0 && r.wanted(u.program) {
			chosen = append(chosen, u)
		}
		n := len(u.checks)
		u.checks = slices.DeleteFunc(u.checks, func(c string) bool { return !r.wanted(u.program + "/" + c) })
		u.whole = u.whole && len(u.checks) == n
		if len(u.checks) > 0 {
			chosen = append(chosen, u)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("no test is left: none matches: `fifovm test --list` lists them")
	}
	return chosen, nil
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

// List boots a guest and gives the names of its tests that are chosen.
func List(ctx context.Context, o Options) (names []string, err error) {
	r := &runner{o: o}
	g, failed, err := start(ctx, o)
	if err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, causeOf(ctx, errors.New(failed.Name()+": "+failed.Reason))
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	r.guest = g
	queue, err := r.chosen(units(o.Tests))
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	for _, u := range queue {
		if len(u.checks) == 0 {
			u.checks = g.checks(u.program, o.AnswerTime)
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
