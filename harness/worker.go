package harness

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"fifovm/vmm/vmm"
)

// worker has guests run what it takes from the queue, one guest at a time.
type worker struct {
	*runner
	guest   *Guest       // nil: none is up
	machine *vmm.Machine // that goes back to the base for each guest; nil: there is none yet
	ran     []string     // the programs that the guest ran
	order   int          // of the last one
}

// work runs what is left in the queue.
func (w *worker) work(ctx context.Context) error {
	for {
		u, ok := w.take()
		if !ok {
			return w.down(ctx)
		}
		if up, err := w.up(ctx, u.order); err != nil || !up {
			w.putBack(u)
			return err
		}
		if u.done > 0 {
			// Which are left, is asked only now: nobody wanted to know before.
			checks := w.guest.checks(u.program)
			if len(checks) <= u.done {
				w.done(&Result{Program: u.program, Verdict: NotRun, Reason: "the checks behind the one that failed: it does not list them"}, u.order)
			} else {
				w.putBack(unit{program: u.program, checks: checks[u.done:], order: u.order})
			}
			if err := w.closeSpoilt(); err != nil {
				return err
			}
			continue
		}
		w.ran, w.order = append(w.ran, u.program), u.order
		alive, left := w.guest.run(u, &w.o, func(result *Result) { w.done(result, u.order) })
		for i := range left {
			left[i].order = u.order
		}
		w.putBack(left...)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		var err error
		switch {
		case !alive:
			err = w.gone()
		case w.base != nil || w.o.Alone:
			err = w.down(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// up has a guest be there whose agent waits. Where none comes up, there is nothing
// to run: one result says it.
func (w *worker) up(ctx context.Context, order int) (bool, error) {
	if w.guest != nil {
		return true, nil
	}
	var failed *Result
	var err error
	if w.base != nil {
		err = w.begin(ctx)
	} else if w.guest, failed, err = start(ctx, &w.o); w.guest != nil && w.o.From != nil {
		failed, err = w.makeBase(ctx)
	}
	if cause := context.Cause(ctx); cause != nil {
		return false, errors.Join(cause, w.gone())
	}
	if failed != nil {
		w.done(failed, order)
		w.stop()
	}
	return err == nil && failed == nil, err
}

// makeBase makes a base of the guest that has just come up, and begins there.
func (w *worker) makeBase(ctx context.Context) (failed *Result, err error) {
	g := w.guest
	w.guest = nil
	if !g.quiet() {
		failed = g.failure(guestProgram, KindKernel, "the kernel's log says: "+g.console.Complaint())
		failed.Check = "boot"
		return failed, g.Close()
	}
	g.halt()
	if g.err != nil || context.Cause(ctx) != nil {
		return nil, errors.Join(g.err, g.machine.Close())
	}
	if w.base, err = g.machine.Base(); err != nil {
		return nil, errors.Join(err, g.machine.Close())
	}
	w.machine, w.console = g.machine, g.console.Tail()
	if w.o.Ready != nil {
		if err := w.o.Ready(w.machine, w.console); err != nil {
			return nil, err
		}
	}
	return nil, w.begin(ctx)
}

// begin has a guest begin at the base.
func (w *worker) begin(ctx context.Context) error {
	g := newGuest(ctx, &w.o)
	g.console.tail = slices.Clone(w.console)
	var err error
	if w.machine == nil {
		w.machine, err = w.o.From(w.base, [2]io.Writer{g.console, g.agent})
	} else {
		// Of a writer's errors, none can be one of ours.
		err = errors.Join(w.machine.SetSerial(0, g.console), w.machine.SetSerial(1, g.agent), w.machine.Reset())
	}
	if err != nil {
		g.cancel()
		return err
	}
	g.fresh = true
	g.launch(w.machine, &w.o)
	w.guest = g
	return nil
}

// down ends the guest in an orderly way, which is judged as well.
func (w *worker) down(ctx context.Context) error {
	if w.guest == nil {
		return nil
	}
	failed := w.guest.powerOff(w.o.AnswerTime)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if failed != nil {
		if len(w.ran) > 0 {
			failed.Reason += " (it ran " + strings.Join(slices.Compact(w.ran), ", ") + ")"
		}
		w.done(failed, w.order)
	}
	return w.gone()
}

// closeSpoilt ends a guest whose programs did more than to answer when they were
// asked for their checks: what it would say of the next test is not that test's.
func (w *worker) closeSpoilt() error {
	if w.base != nil || w.guest.gone() || !w.guest.quiet() {
		return w.gone()
	}
	return nil
}

// gone is for a guest that has ended, or is to.
func (w *worker) gone() (err error) {
	g := w.guest
	if g == nil {
		return nil
	}
	w.guest = nil
	g.halt()
	if len(w.ran) > 0 && w.o.Alone {
		if wrong := Unfired(g.devices.Left()); wrong != nil {
			w.done(g.failure(w.ran[len(w.ran)-1], KindInvalid, wrong.Error()), w.order)
		}
	}
	w.ran = nil
	switch {
	case w.machine == nil:
		return g.machine.Close()
	case g.err != nil: // it may have broken down
		w.machine = nil
		return g.machine.Close()
	}
	return nil
}

// close is for when there is nothing more to do. A guest that is up was interrupted:
// nothing is said of it.
func (w *worker) close() error {
	w.ran = nil
	err := w.gone()
	if w.machine != nil {
		err = errors.Join(err, w.machine.Close())
		w.machine = nil
	}
	return err
}

// chosen gives the units to run. What the guest has is asked where that matters.
func (w *worker) chosen(queue []unit) ([]unit, error) {
	each := w.base != nil && !w.o.Alone // check is a unit
	if len(queue) == 0 {
		programs, err := w.guest.List(w.o.AnswerTime)
		if err != nil {
			return nil, err
		}
		if len(programs) == 0 {
			return nil, errors.New("the guest has no tests in /tests")
		}
		for _, p := range programs {
			queue = append(queue, unit{program: p})
		}
	} else if w.o.Select == nil && w.o.Skip == nil && !each {
		return numbered(queue), nil
	}
	var chosen []unit
	for _, u := range queue {
		named := len(u.checks) > 0
		if !named {
			u.checks, u.whole = w.guest.checks(u.program), true
		}
		if len(u.checks) == 0 && w.wanted(u.program) {
			chosen = append(chosen, u)
		}
		n := len(u.checks)
		u.checks = slices.DeleteFunc(u.checks, func(c string) bool { return !w.wanted(u.program + "/" + c) })
		u.whole = u.whole && len(u.checks) == n
		switch {
		case len(u.checks) == 0:
		case each && !named:
			for _, c := range u.checks {
				chosen = append(chosen, unit{program: u.program, checks: []string{c}})
			}
		default:
			chosen = append(chosen, u)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("no test is left: none matches: `fifovm test --list` lists them")
	}
	return numbered(chosen), nil
}

// numbered gives the units their order.
func numbered(queue []unit) []unit {
	for i := range queue {
		queue[i].order = i
	}
	return queue
}
