package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"fifovm/harness"
	"fifovm/harness/monitor"
	"fifovm/vmm/debug"
	"fifovm/vmm/snapshot"
	"fifovm/vmm/vmm"
	"fifovm/vmm/x86"
)

// errFile is that save or load has got something else.
var errFile = errors.New("want: one file")

// snapshots are what the argument of save or load can be.
func snapshots(arg int) []string {
	if arg != 0 {
		return nil
	}
	files, _ := filepath.Glob("*.snapshot") // the pattern is right
	return files
}

// saveCommand is the monitor's command that saves the guest to a file.
func saveCommand(g *guest, s *debug.Session) monitor.Command {
	return monitor.Command{Name: "save", Args: "FILE", Help: "save the whole machine to a file (docs/snapshots.md)", Complete: snapshots,
		Run: func(args []string, w io.Writer) error {
			if len(args) != 1 {
				return errFile
			}
			if exists(args[0]) {
				f, err := snapshot.Open(args[0])
				if err != nil {
					return fmt.Errorf("%s is there, and is no snapshot that could be replaced", args[0])
				}
				if err := f.Close(); err != nil {
					return err
				}
			}
			return s.Still(func(m *vmm.Machine) error {
				if err := snapshot.Save(args[0], m, g.about()); err != nil {
					return err
				}
				fmt.Fprintf(w, "%s: saved at %.6f s of the guest's time\n", args[0], time.Duration(m.Now()).Seconds())
				return nil
			})
		}}
}

// about is what a snapshot of the guest says of itself.
func (g *guest) about() snapshot.Info {
	info := snapshot.Info{Program: "fifovm " + version(), Seed: uint64(g.seed), Kernel: g.kernel, CommandLine: g.append}
	if g.file != nil {
		info.CommandLine = g.file.CommandLine
	}
	for _, d := range g.bench.devices {
		info.Devices = append(info.Devices, d.text)
	}
	// Whoever loads it may be in another folder.
	if path, err := filepath.Abs(builtKernel(g.kernel)); err == nil {
		info.Kernel = path
	}
	for _, file := range g.moduleFiles() {
		if path, err := filepath.Abs(file); err == nil {
			info.Modules = append(info.Modules, path)
		}
	}
	return info
}

// loaded is a guest that takes the place of the one that runs: one from a file, and
// what the person has set at the other.
type loaded struct {
	guest       *guest
	machine     *vmm.Machine
	console     *harness.Console
	stands      bool // it stood still
	breakpoints []uint64
	watchpoints []x86.Watchpoint
}

// loadCommand is the monitor's command that goes on from a file. The guest in it
// may have other CPUs, memory and devices: it is another machine, made beside the
// one that runs, which is given up only when that has succeeded.
func loadCommand(ctx context.Context, g *guest, s *debug.Session, t *terminal, leave func(), instead func(*loaded)) monitor.Command {
	return monitor.Command{Name: "load", Args: "FILE", Help: "go on from a file that was saved, in place of this guest; breakpoints stay", Complete: snapshots,
		Run: func(args []string, w io.Writer) (err error) {
			switch {
			case len(args) != 1:
				return errFile
			case t.monitor.hasGDB():
				return errors.New("gdb would not know the other guest: let it detach first")
			}
			n := &guest{snapshot: args[0], kvmDevice: g.kvmDevice, paced: g.paced, gdb: g.gdb, set: new(pflag.FlagSet)}
			n.bench.trace, n.bench.boots = g.bench.trace, g.bench.boots
			if err := n.open(); err != nil {
				return err
			}
			l := &loaded{guest: n, console: &harness.Console{Output: t, OnPanic: leave}, stands: s.Paused(),
				breakpoints: s.Breakpoints(), watchpoints: s.Watchpoints()}
			err = n.file.Verify(ctx)
			if err == nil {
				l.machine, err = n.machine("", [2]io.Writer{l.console})
			}
			if err != nil {
				return errors.Join(err, n.file.Close())
			}
			n.bench.boots = g.bench.boots + 1 // for the trace's name
			fmt.Fprintf(w, "loaded: engine %s, %d CPUs, %.6f s of the guest's time\n", n.engine, n.cpus, time.Duration(l.machine.Now()).Seconds())
			t.monitor.await()
			instead(l)
			return nil
		}}
}

// restore sets what was set at the guest before.
func (l *loaded) restore(s *debug.Session) error {
	var errs []error
	for _, addr := range l.breakpoints {
		errs = append(errs, s.SetBreakpoint(addr))
	}
	for _, p := range l.watchpoints {
		errs = append(errs, s.SetWatchpoint(p.Address, p.Size, p.Kind))
	}
	if l.stands {
		s.Pause()
	}
	return errors.Join(errs...)
}
