package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"fifovm/harness"
	"fifovm/vmm/kvm"
	"fifovm/vmm/vmm"
	"fifovm/vmm/x86"
)

// runWords are the kernel's parameters of an interactive guest: its console,
// and a reset in place of a hang after a panic.
const runWords = "console=ttyS0 panic=-1"

func runCommand() *cobra.Command {
	var g guest
	var noReboot bool
	c := &cobra.Command{
		Use:   "run --kernel FILE [flags]",
		Short: "Boot a guest with its console here",
		Long: `Boots a Linux kernel, with the guest's serial console (ttyS0) on this terminal or, where there is
none, on standard input and output. On a terminal, Ctrl-A x leaves the guest and Ctrl-A h helps.

The kernel's command line is "` + runWords + `", then the words of --append.

` + statusHelp,
		Example: `  fifovm run --kernel build/kernel/6.12/vmlinux --initrd build/initramfs.cpio
  fifovm run -k vmlinux -i image.cpio -c 4 -m 1G -a "quiet nokaslr" >console.log </dev/null`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runGuest(c.Context(), &g, noReboot) },
	}
	g.flags(c.Flags())
	c.Flags().BoolVar(&noReboot, "no-reboot", false, "end when the guest reboots")
	return c
}

func runGuest(ctx context.Context, g *guest, noReboot bool) (err error) {
	if err := g.chooseEngine(os.Stderr); err != nil {
		return err
	}
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	term, err := openTerminal(os.Stdin, os.Stdout, leave)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, term.Close()) }()
	for {
		reboot, err := runOnce(ctx, g, term, leave)
		if err != nil || !reboot || noReboot {
			return err
		}
	}
}

// runOnce boots the guest and runs it to its end.
func runOnce(ctx context.Context, g *guest, term *terminal, leave func()) (reboot bool, err error) {
	console := &harness.Console{Output: term, OnPanic: leave}
	m, err := g.machine(runWords, serialTo(console))
	if err != nil {
		return false, err
	}
	term.Attach(m.Serial(0))
	stop, err := m.Run(ctx)
	term.Attach(nil)
	err = errors.Join(explain(err), m.Close())
	switch {
	case err != nil:
		return false, err
	case console.Panic() != "":
		return false, &statusError{statusPanic, fmt.Errorf("guest panic: %s", console.Panic())}
	case stop == vmm.Paused:
		return false, stopped(ctx)
	}
	return stop == vmm.Reset, nil
}

// explain gives a run's error its exit status, and the registers to those who
// can use them.
func explain(err error) error {
	if err == nil {
		return nil
	}
	status, help := statusFailed, ""
	switch {
	case errors.Is(err, x86.ErrTripleFault):
		status = statusTripleFault
	case errors.Is(err, kvm.ErrNotEmulated):
		status, help = statusUsage, ": it emulates the kernel's code since the host has neither VMX nor SVM; use a host that has, or the KVM lab (make lab), and see `fifovm doctor`"
	}
	var stuck *x86.Stuck
	if errors.As(err, &stuck) && stuck.Registers != nil && status != statusUsage {
		help += "\n" + stuck.Registers.String()
	}
	return &statusError{status, fmt.Errorf("%w%s", err, help)}
}
