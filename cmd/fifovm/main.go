// Command fifovm boots Linux guests in virtual machines of its own.
//
// The commands are thin: they read flags, call the packages that do the work,
// and turn errors into one line and an exit status.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses, as every command's help says.
const (
	statusFailed      = 1 // the work was done and the answer is no
	statusUsage       = 2 // the command or what it was given can't work here
	statusPanic       = 3 // the guest's kernel panicked
	statusTripleFault = 4 // a CPU of the guest shut down
	statusSignal      = 128
)

const statusHelp = `Exit status:
  0  the guest powered off, or you left it
  1  a test failed, or the machine broke down
  2  wrong flags, files that can't be used, or a host that can't do it
  3  the guest's kernel panicked
  4  triple fault: a CPU of the guest shut down
  128+N  ended by signal N`

// statusError is an error that has decided on the exit status.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func main() {
	// The terminal is restored by deferred calls, so the program ends nowhere
	// but here.
	os.Exit(run())
}

func run() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		s := <-signals
		signal.Stop(signals) // a second one ends the program at once
		cancel(&signalError{s})
	}()
	root := &cobra.Command{
		Use:           "fifovm",
		Short:         "Boots Linux guests to test drivers of DMA devices in",
		Long:          "fifovm boots a Linux guest in a virtual machine of its own, to run and test drivers of\nDMA devices in.\n\n" + statusHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(runCommand(), testCommand(), doctorCommand())
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var sig *signalError
	if errors.As(err, &sig) {
		fmt.Fprintf(os.Stderr, "fifovm: stopped by %v\n", sig)
		if n, ok := sig.signal.(syscall.Signal); ok {
			return statusSignal + int(n)
		}
		return statusFailed
	}
	fmt.Fprintf(os.Stderr, "fifovm: %v\n", err)
	var s *statusError
	if errors.As(err, &s) {
		return s.status
	}
	return statusUsage
}

// signalError is the cause of a context that a signal ended.
type signalError struct{ signal os.Signal }

func (e *signalError) Error() string { return e.signal.String() }
