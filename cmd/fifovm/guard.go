package main

import (
	"io"
	"os"
	"os/exec"
	"reflect"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// guard is a small process beside this one that restores the terminal if this
// one ends without having done so. No deferred call does that: a panic on
// another goroutine, a fatal error of Go's runtime, SIGKILL and the kernel's
// out-of-memory killer all end the process at once, and leave the user with a
// shell that shows nothing of what is typed. A nil guard guards nothing.
type guard struct {
	process *exec.Cmd
	life    io.WriteCloser // a byte: the terminal is raw; closed, by whatever: we are gone
}

// guardName is the hidden command that is the guard.
const guardName = "restore-terminal"

// startGuard gives nil where a guard can't be had: it is a second net only.
func startGuard(tty *os.File) *guard {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	c := exec.Command(self, guardName)
	// It wants three files: the terminal, our life, and a way to say that it is
	// ready. The usual three places do.
	c.Stderr = tty
	c.SysProcAttr = apart
	life, err := c.StdinPipe()
	if err != nil {
		return nil
	}
	ready, err := c.StdoutPipe()
	if err != nil || c.Start() != nil {
		return nil
	}
	g := &guard{process: c, life: life}
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		g.dismiss()
		return nil
	}
	return g
}

// armed says that the terminal is in raw mode now.
func (g *guard) armed() {
	if g != nil {
		_, _ = g.life.Write([]byte{0}) // a guard that is gone can't be told
	}
}

// dismiss ends the guard when the terminal is as it was.
func (g *guard) dismiss() {
	if g == nil {
		return
	}
	_ = g.process.Process.Kill()
	_ = g.process.Wait() // says that it was killed
}

func guardCommand() *cobra.Command {
	return &cobra.Command{Use: guardName, Hidden: true, Args: noArgs, RunE: func(*cobra.Command, []string) error {
		ignoreTerminalSignals()
		return guardTerminal(int(os.Stderr.Fd()), os.Stdin, os.Stdout)
	}}
}

// guardTerminal waits until life ends, and restores the terminal unless
// somebody, such as the user's shell, has set it since.
func guardTerminal(fd int, life io.Reader, ready io.Writer) error {
	saved, err := term.GetState(fd)
	if err != nil {
		return err
	}
	if _, err := ready.Write([]byte{0}); err != nil {
		return err
	}
	if _, err := io.ReadFull(life, make([]byte, 1)); err != nil {
		return nil // gone before it touched the terminal
	}
	raw, err := term.GetState(fd)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, life); err != nil {
		return err
	}
	now, err := term.GetState(fd)
	if err != nil || !reflect.DeepEqual(now, raw) {
		return err
	}
	return term.Restore(fd, saved)
}
