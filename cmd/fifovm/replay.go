package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"fifovm/device/fault"
	"fifovm/harness"
	"fifovm/harness/monitor"
	"fifovm/harness/report"
	"fifovm/vmm/debug"
	"fifovm/vmm/vmm"
)

// replay is what the flags of the replay command say.
type replay struct {
	tests
	folder string
	want   *harness.Result // the failure
	// The person at the terminal, if there is one; who holds the guest up, as gdb
	// does, counts as one.
	person bool
	term   *terminal
	leave  func()
	// session is of the guest that runs.
	session atomic.Pointer[debug.Session]
}

func replayCommand() *cobra.Command {
	var r replay
	c := &cobra.Command{
		Use:   "replay FOLDER [flags]",
		Short: "Repeat a failed test, to the instruction, and look into it",
		Long: `Repeats a test that failed, from the folder that fifovm test has left of it (build/failures, --artifacts):
the guest begins at its snapshot from before the test, and does the same again, to the instruction. Tests
of engine soft can be replayed; on KVM no two runs are the same.

On a terminal the console is here, with the monitor (Ctrl-A c): the guest stands still before the test, so
that breakpoints can be set, and again when the test has its verdict. The command continue goes on. What
is typed at the guest makes it another run.

Exit status:
  0  it has failed again in the same way, after the same number of instructions
  1  it did something else
  2  wrong flags, or a folder that can't be used
  128+N  ended by signal N`,
		Example: `  fifovm replay build/failures/fifo_io-order
  fifovm replay --repeat 100 build/failures/fifo_stress-everything </dev/null
  fifovm replay --gdb 1234 build/failures/fifo_io-order`,
		Args: oneArg("the folder of a failed test"),
		RunE: func(c *cobra.Command, args []string) error {
			r.folder = args[0]
			return r.main(c.Context())
		},
	}
	f := c.Flags()
	r.set = f
	gdbFlag(f, &r.guest)
	f.IntVar(&r.repeat, "repeat", 1, "replay it so many `times`, until it does something else; without a terminal")
	f.BoolVarP(&r.verbose, "verbose", "v", false, "without a terminal: show the guest's console, and what the test prints, as it comes")
	f.DurationVar(&r.testTime, "timeout", 0, "bound on the test (default: as it was)")
	return c
}

func (r *replay) main(ctx context.Context) error {
	if r.repeat < 1 {
		return errors.New("--repeat: want 1 or more")
	}
	if err := r.read(); err != nil {
		return err
	}
	r.snapshot = filepath.Join(r.folder, report.BaseFile)
	if err := r.open(); err != nil {
		return err
	}
	if r.testTime == 0 {
		r.testTime = r.want.Bound
	}
	r.bootTime, r.jobs = r.testTime, 1
	fmt.Fprintf(os.Stderr, "fifovm: %s, seed %d: %s\n", r.want.Name(), r.want.Seed, oneLine(r.want.Reason))
	r.person = r.repeat == 1 && (r.gdb != "" || term.IsTerminal(int(os.Stdin.Fd())))
	if r.person {
		signal.Ignore(syscall.SIGPIPE)
		ctx, r.leave = context.WithCancel(ctx)
		defer r.leave()
		r.term = newTerminal(ctx, os.Stdin, os.Stdout, r.leave)
		if err := r.term.Start(); err != nil {
			return errors.Join(err, r.term.Close())
		}
	}
	err := r.withBase(ctx, func(ctx context.Context) error {
		for i := range r.repeat {
			if err := r.once(ctx); err != nil && r.repeat > 1 {
				return fmt.Errorf("replay %d of %d: %w", i+1, r.repeat, err)
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	if r.person { // before anything is said
		err = errors.Join(err, r.term.Close())
	}
	if err != nil {
		return err
	}
	said := fmt.Sprintf("%s has failed in the same way", r.want.Name())
	if r.want.Retired > 0 {
		said += fmt.Sprintf(", after the same %d instructions", r.want.Retired)
	}
	if r.repeat > 1 {
		said += fmt.Sprintf(", %d times", r.repeat)
	}
	_, err = fmt.Println(said)
	return err
}

// read reads the failure.
func (r *replay) read() error {
	data, err := os.ReadFile(filepath.Join(r.folder, report.ResultFile))
	if err != nil {
		return fmt.Errorf("replay: %w: give the folder of a failed test, as fifovm test makes them in build/failures", err)
	}
	r.want = new(harness.Result)
	if err := json.Unmarshal(data, r.want); err != nil {
		return fmt.Errorf("replay %s: %s: %w", r.folder, report.ResultFile, err)
	}
	if r.want.Run == "" || r.want.Bound <= 0 {
		return fmt.Errorf("replay %s: the guest had run other tests before, or none, when it failed: run its command again (command.txt), without --no-snapshot", r.folder)
	}
	return nil
}

// once replays the test once.
func (r *replay) once(ctx context.Context) error {
	o := r.options([]string{r.want.Run}, nil)
	o.Alone, o.Plan = true, r.want.Plan
	if r.person {
		o.Patient, o.Console, o.Drive, o.Host = true, r.term, r.drive, r.host
	}
	results, err := harness.Run(ctx, o)
	switch {
	case stopped(ctx) != nil:
		return stopped(ctx)
	case r.person && ctx.Err() != nil:
		return &statusError{statusFailed, errors.New("it was left before the test had its verdict")}
	case err != nil:
		return &statusError{statusFailed, err}
	}
	i := slices.IndexFunc(results, func(got *harness.Result) bool { return got.Name() == r.want.Name() && got.Verdict == harness.Failed })
	if i < 0 {
		return &statusError{statusFailed, fmt.Errorf("%s did not fail: this is not the fifovm, or not the host, that made the snapshot", r.want.Name())}
	}
	if difference := differs(results[i], r.want); difference != "" {
		return &statusError{statusFailed, fmt.Errorf("%s has failed in another way: %s", r.want.Name(), difference)}
	}
	return nil
}

// differs says in what a result is not the one that is wanted.
func differs(got, want *harness.Result) string {
	switch {
	case got.Kind != want.Kind:
		return fmt.Sprintf("%s (%s), not %s", got.Kind, got.Reason, want.Kind)
	case want.Retired == 0: // the host's clock has a part in it
		return ""
	case got.Retired != want.Retired:
		return fmt.Sprintf("after %d instructions, not %d", got.Retired, want.Retired)
	case !slices.Equal(got.Output, want.Output):
		return "it printed something else"
	}
	return ""
}

// drive runs the machine with the terminal, the monitor and gdb at it. It begins
// with a pause.
func (r *replay) drive(ctx context.Context, m *vmm.Machine) (vmm.Stop, error) {
	kernel := builtKernel(r.kernel)
	symbols := monitor.OpenSymbols(r.image, kernel, r.moduleFiles()...)
	defer symbols.Close()
	session := debug.New(m, symbols)
	letGDB, gdbGone := gdbCommand(ctx, session, kernel, symbols, r.leave, r.term.monitor.gdb, r.term.Note)
	plan := new(fault.Plan) // without devices there is none
	if plans := m.Plans(); len(plans) > 0 {
		plan = plans[0]
	}
	mon := monitor.New(monitor.Config{Session: session, Plan: plan, Symbols: symbols, About: "replay of " + r.want.Name(), Quit: r.leave,
		More: []monitor.Command{letGDB}})
	if r.gdb != "" {
		if err := r.listenForGDB(letGDB, r.term.Note); err != nil {
			return vmm.Paused, err
		}
	}
	r.session.Store(session)
	session.Pause()
	r.term.Attach(m.Serial(0))
	r.term.monitor.attach(mon, session)
	r.term.monitor.ask("the guest stands before the test: continue goes on\n")
	stop, err := session.Run(ctx)
	r.term.Attach(nil)
	r.term.monitor.attach(nil, nil)
	gdbGone()
	return stop, errors.Join(err, mon.Close())
}

// host is what does what tests ask for, and has the guest stand still when a test
// has its verdict.
func (r *replay) host(h *harness.DeviceHost) harness.Host { return &standing{h, r} }

type standing struct {
	harness.Host
	replay *replay
}

func (s *standing) End() error {
	if session := s.replay.session.Load(); session != nil && !session.Ended() {
		session.Pause()
		s.replay.term.monitor.ask("the test has its verdict: continue goes on\n")
		session.Standing()
	}
	return s.Host.End()
}
