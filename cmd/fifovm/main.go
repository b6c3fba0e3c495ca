// Command fifovm boots Linux guests in virtual machines of its own.
//
// The commands are thin: they read flags, call the packages that do the work,
// and turn errors into one line and an exit status.
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
	"unicode"

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
  1  a test failed, a fault never fired, the guest's kernel needs an instruction that its CPU lacks, or the
     machine broke down
  2  wrong flags, files that can't be used, or a host that can't do it
  3  the guest's kernel panicked
  4  triple fault: a CPU of the guest shut down
  128+N  ended by signal N`

// statusError is an error that has decided on the exit status. Its err is one
// line; nil where all is said.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// detailedError is an error with more lines for those who can use them.
type detailedError struct {
	error
	detail string
}

func (e *detailedError) Unwrap() error { return e.error }

// signalError is the cause of a context that a signal ended.
type signalError struct{ signal os.Signal }

func (e *signalError) Error() string { return "stopped by " + e.signal.String() }

func main() {
	// The terminal is restored by deferred calls, so the program ends nowhere
	// but here.
	os.Exit(run())
}

func run() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go cancelOnSignal(cancel)
	err := rootCommand().ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	status, text := outcome(err)
	// Standard error may be as stuck as the terminal that the user left.
	said := make(chan struct{})
	go func() {
		defer close(said)
		_, _ = io.WriteString(os.Stderr, text) // there is no other place to complain
	}()
	select {
	case <-said:
	case <-time.After(patience):
	}
	return status
}

// cancelOnSignal cancels when the program is asked to end. The second time, it
// ends at once.
func cancelOnSignal(cancel context.CancelCauseFunc) {
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // nohup has its reasons
			signal.Notify(signals, s)
		}
	}
	s := <-signals
	signal.Stop(signals)
	cancel(&signalError{s})
}

// outcome gives the exit status of an error and what to say of it: one line, and
// the details behind it.
func outcome(err error) (status int, text string) {
	status, detail := statusUsage, ""
	var s *statusError
	if errors.As(err, &s) {
		status = s.status
	}
	var d *detailedError
	if errors.As(err, &d) {
		detail = d.detail
	}
	var sig *signalError
	if errors.As(err, &sig) {
		err, status, detail = sig, statusFailed, ""
		if n, ok := sig.signal.(syscall.Signal); ok {
			status = statusSignal + int(n)
		}
	}
	if line := oneLine(err.Error()); line != "" {
		text = "fifovm: " + line + "\n"
	}
	if detail != "" {
		text += detail + "\n"
	}
	return status, text
}

// oneLine makes one line of a text in which anything may stand, such as the
// name of a file or a guest's last words.
func oneLine(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "fifovm",
		Short:         "Boots Linux guests to test drivers of DMA devices in",
		Long:          "fifovm boots a Linux guest in a virtual machine of its own, to run and test drivers of\nDMA devices in.\n\n" + statusHelp,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetVersionTemplate("fifovm {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w: see `%s --help`", err, c.CommandPath())
	})
	root.SetHelpCommand(helpCommand())
	root.AddCommand(runCommand(), consoleCommand(), testCommand(), devicesCommand(), doctorCommand(), snapshotCommand(), replayCommand(), guardCommand())
	return root
}

// helpCommand is cobra's, but that a word which is no command is an error.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Help about any command",
		RunE: func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err == nil {
				err = knownCommand(c.Root(), rest)
			}
			if err != nil {
				return err
			}
			return about.Help()
		},
	}
}

// knownCommand is reached by words that are no command.
func knownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	help := "see `fifovm --help`"
	c.SuggestionsMinimumDistance = 2
	if s := c.SuggestionsFor(args[0]); len(s) > 0 {
		help = "did you mean " + strings.Join(s, " or ") + "?"
	}
	return fmt.Errorf("unknown command %q: %s", args[0], help)
}

// noArgs is for commands that take flags only.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("unexpected argument %q: %s takes flags only, see `%s --help`", args[0], c.Name(), c.CommandPath())
}
