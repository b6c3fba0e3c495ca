package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"fifovm/harness"
	"fifovm/harness/monitor"
	"fifovm/vmm/debug"
	"fifovm/vmm/kvm"
	"fifovm/vmm/vmm"
	"fifovm/vmm/x86"
)

// runWords are the kernel's parameters of an interactive guest: its console,
// and a reset in place of a hang after a panic.
const runWords = "console=ttyS0 panic=-1"

func runCommand() *cobra.Command {
	var g guest
	var noReboot, stats bool
	c := &cobra.Command{
		Use:   "run --kernel FILE [flags]",
		Short: "Boot a guest with its console here",
		Long: `Boots a Linux kernel, with the guest's serial console (ttyS0) on this terminal or, where there is
none, on standard input and output. On a terminal, Ctrl-A x leaves the guest, Ctrl-A c opens the
monitor (docs/console.md) and Ctrl-A h helps.
The end of the input does not end the guest.

The kernel's command line is "` + runWords + `", then the words of --append.

Engine kvm needs a Linux host that has KVM; engine soft runs anywhere. On soft, time is the guest's
own: it starts at 2026-01-01, and an instruction takes a nanosecond. An idle guest waits for you if you
are at a terminal, and else skips to what comes next; then, with the same files and flags and no input,
a run is the same to the instruction.

--device attaches devices, --fault breaks them, --trace tells what they did. Faults count from a boot
on; a run in which one has fired in no boot is invalid: it ends with status 1. The trace of a second
boot is in FILE-2.

` + statusHelp,
		Example: `  fifovm run --kernel build/kernel/6.12/vmlinux --initrd build/guest.cpio
  fifovm run -k vmlinux -i image.cpio -c 4 -m 1G -a "quiet nokaslr" >console.log </dev/null
  fifovm run -k vmlinux -i image.cpio -e soft -c 4 --seed 7 </dev/null
  fifovm run -k vmlinux -i image.cpio --device edu --fault "mmio.read:ones@40.." --trace run.json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runGuest(c.Context(), &g, noReboot, stats) },
	}
	g.flags(c.Flags())
	gdbFlag(c.Flags(), &g)
	c.Flags().StringVar(&g.snapshot, "snapshot", "", "go on from the machine that was saved in `file`, in place of a boot; see fifovm snapshot")
	c.Flags().BoolVar(&noReboot, "no-reboot", false, "end when the guest reboots")
	c.Flags().BoolVar(&stats, "stats", false, "at the end, say how long the guest ran; on engine soft also how many instructions, and how fast")
	return c
}

func runGuest(ctx context.Context, g *guest, noReboot, stats bool) (err error) {
	// What was given is looked at before the host is: it is the faster, and the
	// terminal is touched only when there is a guest to show.
	if err := g.open(); err != nil {
		return err
	}
	g.paced = term.IsTerminal(int(os.Stdin.Fd())) // there is a person
	if err := g.chooseEngine(os.Stderr); err != nil {
		return err
	}
	// A reader of the output who goes away is an error like others, not the end
	// of the process in the midst of its work.
	signal.Ignore(syscall.SIGPIPE)
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	term := newTerminal(ctx, os.Stdin, os.Stdout, leave)
	defer func() { err = errors.Join(err, term.Close()) }()
	defer func() {
		if bad := harness.Unfired(g.bench.never); bad != nil {
			err = errors.Join(err, &statusError{statusFailed, bad})
		}
	}()
	var next *loaded
	for {
		var reboot bool
		if reboot, next, err = runOnce(ctx, g, next, term, leave, stats); next != nil {
			if err != nil { // of a guest that is no more
				term.Note(oneLine(err.Error()))
			}
			g = next.guest
			continue
		}
		if err != nil || !reboot || noReboot || g.file != nil {
			return err
		}
		term.Note("the guest reboots")
	}
}

// runOnce boots the guest, unless it was loaded, and runs it to its end, or until
// another one was loaded.
func runOnce(ctx context.Context, g *guest, from *loaded, term *terminal, leave func(), stats bool) (reboot bool, next *loaded, err error) {
	var m *vmm.Machine
	var console *harness.Console
	if from != nil {
		m, console = from.machine, from.console
	} else {
		console = &harness.Console{Output: term, OnPanic: leave}
		if m, err = g.machine(runWords, [2]io.Writer{console}); err != nil {
			return false, nil, err
		}
	}
	kernel := builtKernel(g.kernel)
	symbols := monitor.OpenSymbols(g.image, kernel, g.moduleFiles()...)
	defer symbols.Close()
	session := debug.New(m, symbols)
	run, end := context.WithCancel(ctx)
	defer end()
	letGDB, gdbGone := gdbCommand(ctx, session, kernel, symbols, leave, term.monitor.gdb, term.Note)
	monitor := monitor.New(monitor.Config{Session: session, Plan: g.bench.armed, Log: g.bench.log, Symbols: symbols,
		About: fmt.Sprintf("engine %s, %d CPUs, %v of memory, kernel %s", g.engine, g.cpus, &g.memory, g.kernel), Quit: leave,
		More: []monitor.Command{letGDB, saveCommand(g, session), loadCommand(ctx, g, session, term, leave, func(l *loaded) {
			next = l
			end()
		})}})
	if g.gdb != "" {
		if err := g.listenForGDB(letGDB, term.Note); err != nil {
			return false, nil, errors.Join(err, m.Close())
		}
	}
	if err := term.Start(); err != nil {
		return false, nil, errors.Join(err, m.Close())
	}
	if from != nil {
		if err := from.restore(session); err != nil {
			term.Note(oneLine(err.Error()))
		}
	}
	term.Attach(m.Serial(0))
	term.monitor.attach(monitor, session)
	start := time.Now()
	whole := g.verify(ctx, func(error) { leave() })
	stop, err := session.Run(run)
	took := time.Since(start)
	term.Attach(nil)
	term.monitor.detach() // when a command that is under way, as load is, has ended
	if next == nil {
		term.monitor.attach(nil, nil)
	}
	gdbGone()
	err = errors.Join(err, monitor.Close())
	bad := whole()
	retired, counted := m.Retired()
	closeErr := m.Close() // the console has everything from here on
	defer func() { err = errors.Join(err, g.bench.finish()) }()
	if next != nil {
		return false, next, errors.Join(err, closeErr)
	}
	switch {
	case stats && counted && g.paced: // the time is mostly the user's
		term.Note(fmt.Sprintf("%d instructions in %.2f s", retired, took.Seconds()))
	case stats && counted:
		term.Note(fmt.Sprintf("%d instructions in %.2f s: %.0f million a second", retired, took.Seconds(), float64(retired)/took.Seconds()/1e6))
	case stats:
		term.Note(fmt.Sprintf("the guest ran for %.2f s; engine %s does not count instructions", took.Seconds(), g.engine))
	}
	panicked := console.Panic()
	if stop == vmm.PowerOff {
		panicked = "" // a kernel that can do that has not panicked: something printed the words
	}
	switch {
	case stopped(ctx) != nil:
		return false, nil, stopped(ctx)
	case bad != nil:
		return false, nil, &statusError{statusFailed, bad}
	case panicked != "":
		return false, nil, &statusError{statusPanic, fmt.Errorf("the guest's kernel panicked: %s", panicked)}
	case err != nil:
		return false, nil, g.explain(err)
	case closeErr != nil:
		return false, nil, &statusError{statusFailed, closeErr}
	}
	return stop == vmm.Reset, nil, nil
}

// explain gives a run's error its exit status, and what there is to say of it.
func (g *guest) explain(err error) error {
	var model *vmm.ModelPanic
	switch {
	case errors.As(err, &model):
		return &statusError{statusFailed, &detailedError{err, strings.TrimSuffix(model.Stack, "\n")}}
	case errors.Is(err, x86.ErrTripleFault):
		err = fmt.Errorf("%w: the guest's kernel could not handle an exception, nor the exception in handling that", err)
		return &statusError{statusTripleFault, g.withRegisters(err)}
	case errors.Is(err, kvm.ErrNotEmulated):
		return &statusError{statusUsage, fmt.Errorf("%w: it emulates the kernel's code since the host has neither VMX nor SVM; use --engine soft, or a host that has, or the KVM lab (make lab), and see `fifovm doctor`", err)}
	}
	return &statusError{statusFailed, g.withRegisters(err)}
}

// withRegisters adds those of the CPU that err is about, if any, and where in
// the kernel it was.
func (g *guest) withRegisters(err error) error {
	var stuck *x86.Stuck
	if !errors.As(err, &stuck) || stuck.Registers == nil {
		return err
	}
	if symbol := g.image.Symbol(stuck.Registers.RIP); symbol != "" {
		err = fmt.Errorf("%w, in %s", err, symbol)
	}
	return &detailedError{err, stuck.Registers.String()}
}
