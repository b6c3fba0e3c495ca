//go:build linux

// Command lab runs a command in the KVM lab, a virtual machine with a real
// /dev/kvm for hosts without; package lab does the work.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fifovm/harness/lab"
	"fifovm/initramfs"
)

const usage = `usage: lab [flags] [--] COMMAND [ARGUMENT]...

Runs COMMAND in a virtual machine that has a working /dev/kvm, and exits with
its status. u-root's commands are there; ship everything else with --file.

  --file SRC:DST[:MODE]  ship a file or folder; repeatable
  --fetch SRC:DST        copy a file out of the lab after the command; repeatable
  --env NAME=VALUE       for the command; repeatable
  --cpus N               default 1
  --memory MiB           default 2048, or more if the files need it
  --timeout DURATION     default 10m
  --console FILE         keep the console of the lab's kernel
  --qemu                 ship this machine's qemu-system-x86_64
  --print-kernel         print the path of the lab's bzImage, Debian's, and exit
  --help                 this text

Status: the command's; 128+N if signal N killed it; 127 if it isn't there;
123 if the lab fell silent (QEMU's emulation loses an interrupt now and then: try
again), 124 if the time was up, 125 if the lab failed, 2 for a mistake in the flags.
`

const (
	statusUsage   = 2
	statusSilent  = 123
	statusTimeout = 124
	statusFailed  = 125
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := lab.Config{Stdout: stdout, Stderr: stderr, Fetch: map[string]string{}}
	c.Log = func(format string, a ...any) { fmt.Fprintf(stderr, "lab: "+format+"\n", a...) }
	qemu, printKernel := false, false

	fs := flag.NewFlagSet("lab", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	fs.Func("file", "", func(s string) error {
		f, err := initramfs.ParseFile(s)
		c.Files = append(c.Files, f)
		return err
	})
	fs.Func("fetch", "", func(s string) error {
		guest, host, ok := strings.Cut(s, ":")
		if !ok || !filepath.IsAbs(guest) || host == "" {
			return errors.New("write SRC:DST, SRC an absolute path in the lab")
		}
		c.Fetch[guest] = host
		return nil
	})
	fs.Func("env", "", func(s string) error {
		if strings.Index(s, "=") < 1 {
			return errors.New("write NAME=VALUE")
		}
		c.Env = append(c.Env, s)
		return nil
	})
	fs.IntVar(&c.CPUs, "cpus", 1, "")
	fs.IntVar(&c.MemoryMiB, "memory", 0, "")
	fs.DurationVar(&c.Timeout, "timeout", 10*time.Minute, "")
	fs.StringVar(&c.Console, "console", "", "")
	fs.BoolVar(&qemu, "qemu", false, "")
	fs.BoolVar(&printKernel, "print-kernel", false, "")

	mistake := func(err error) int {
		fmt.Fprintf(stderr, "lab: %v: see --help\n", err)
		return statusUsage
	}
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return 0
	} else if err != nil {
		return mistake(err)
	}
	c.Command = fs.Args()
	switch {
	case c.CPUs < 1 || c.CPUs > 64:
		return mistake(fmt.Errorf("--cpus %d: give 1 to 64", c.CPUs))
	case c.MemoryMiB < 0:
		return mistake(fmt.Errorf("--memory %d: give MiB", c.MemoryMiB))
	case c.Timeout <= 0:
		return mistake(fmt.Errorf("--timeout %v: give a time such as 90s", c.Timeout))
	case printKernel:
		return showKernel(ctx, &c, stdout, stderr)
	case len(c.Command) == 0:
		return mistake(errors.New("no command"))
	}
	if qemu {
		files, err := lab.QEMUFiles()
		if err != nil {
			return failed(err, stderr)
		}
		c.Files = append(c.Files, files...)
	}
	status, err := lab.Run(ctx, c)
	if err != nil {
		return failed(err, stderr)
	}
	return status
}

func showKernel(ctx context.Context, c *lab.Config, stdout, stderr io.Writer) int {
	k, err := lab.FindKernel(ctx, c.Dir, c.Log)
	if err != nil {
		return failed(err, stderr)
	}
	fmt.Fprintln(stdout, k.Image)
	return 0
}

// failed reports what kept the lab from running the command.
func failed(err error, stderr io.Writer) int {
	var e *lab.Error
	if !errors.As(err, &e) {
		fmt.Fprintln(stderr, "lab:", err)
		return statusFailed
	}
	if e.Console != "" {
		fmt.Fprintf(stderr, "lab: the end of the lab's console:\n  %s\n", strings.ReplaceAll(e.Console, "\n", "\n  "))
	}
	fmt.Fprintln(stderr, e)
	switch {
	case e.Silent:
		return statusSilent
	case e.Timeout:
		return statusTimeout
	}
	return statusFailed
}
