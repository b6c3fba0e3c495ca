package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"fifovm/harness"
	"fifovm/vmm/vmm"
)

func testCommand() *cobra.Command {
	var g guest
	var verbose bool
	var bootTime, testTime time.Duration
	c := &cobra.Command{
		Use:   "test --kernel FILE --initrd FILE [flags] [TEST[/CHECK...]...]",
		Short: "Run tests in a guest and judge them",
		Long: `Boots a guest whose image has the test agent (guest/agent) and programs in /tests, runs those that
are named, or all, and judges each by its own result, by the kernel's log, and by the time it takes.
TEST/CHECK runs one check of a test alone, and TEST/CHECK/CHECK two of them. The last line is "N passed, N failed", with ", N skipped" behind where some were.

With --fault each test has a guest of its own, in which faults count from the boot on. A test in which
one never fired is invalid, and has failed. So is one that armed a fault itself (guest/agent/README.md)
which never fired. The trace of a second guest is in FILE-2, and so on.

On engine soft a guest stands still while its host thinks: with the same files and flags a run is the
same, tests included.

Exit status:
  0  all tests passed, or were skipped beside some that passed
  1  a test failed, or a fault never fired in it
  2  wrong flags, files that can't be used, or a host that can't do it
  128+N  ended by signal N`,
		Example: `  fifovm test -k build/kernel/6.12/vmlinux -i build/guest.cpio
  fifovm test -k build/kernel/6.12/vmlinux -i build/guest.cpio -c 4 boot
  fifovm test -k build/kernel/6.12/vmlinux -i build/guest.cpio -v boot/clock
  fifovm test -k build/kernel/6.12/vmlinux -i build/guest.cpio --device edu --fault "device:reset@3 on event" devices`,
		RunE: func(c *cobra.Command, names []string) error {
			if err := g.open(); err != nil {
				return err
			}
			if err := g.chooseEngine(os.Stdout); err != nil {
				return err
			}
			words := fmt.Sprintf("%s fifovm.cpus=%d fifovm.memory=%d fifovm.seed=%d", harness.KernelWords, g.cpus, g.memory>>20, g.seed)
			if len(g.bench.devices) > 0 {
				words += " fifovm.devices=" + g.bench.devices.models()
			}
			o := harness.Options{
				Machine: func(serial [2]io.Writer) (*vmm.Machine, error) {
					if err := g.bench.finish(); err != nil { // the guest before this one
						return nil, err
					}
					return g.machine(words, serial)
				},
				Tests:      names,
				Host:       &g.bench.host,
				BootTime:   bootTime,
				TestTime:   testTime,
				AnswerTime: testTime,
				Report:     os.Stdout,
			}
			if len(g.bench.faults) > 0 {
				o.Alone = true
				o.Judge = func() error {
					err := g.bench.finish()
					return errors.Join(err, harness.Unfired(g.bench.left))
				}
			}
			if verbose {
				o.Console, o.Output = os.Stdout, os.Stdout
			}
			results, err := harness.Run(c.Context(), o)
			err = errors.Join(err, g.bench.finish())
			if err != nil {
				return errors.Join(stopped(c.Context()), err)
			}
			if n := harness.Failed(results); n > 0 {
				return &statusError{statusFailed, fmt.Errorf("%d of %d tests failed", n, len(results))}
			}
			if harness.Passed(results) == 0 {
				return &statusError{statusFailed, errors.New("no test passed: all were skipped")}
			}
			return nil
		},
	}
	g.flags(c.Flags())
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the guest's console, and what the tests print, as it comes")
	c.Flags().DurationVar(&bootTime, "boot-timeout", 5*time.Minute, "bound on a boot")
	c.Flags().DurationVar(&testTime, "timeout", 3*time.Minute, "bound on a test")
	return c
}
