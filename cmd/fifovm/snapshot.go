package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"fifovm/vmm/boot"
	"fifovm/vmm/snapshot"
	"fifovm/vmm/vmm"
)

func snapshotCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "snapshot",
		Short: "Save a whole machine to a file, go on from one, look into one",
		Long: `A snapshot is a whole machine in a file: memory, CPUs, devices with the faults that are armed, and what
is still to come. docs/snapshots.md says what is in it. A machine that goes on from it is the one that
was saved: on engine soft, to the instruction.`,
		Args: knownCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(snapshotSaveCommand(), snapshotLoadCommand(), snapshotInfoCommand())
	return c
}

func snapshotSaveCommand() *cobra.Command {
	var g guest
	var until string
	var limit time.Duration
	c := &cobra.Command{
		Use:   "save FILE --until TEXT [flags]",
		Short: "Boot a guest until it says something, and save it there",
		Long: `Boots a guest as fifovm run does, with its console on standard error, and saves it when a line of the
console has TEXT in it: on engine soft the guest stands still right behind that line, so that the same
command writes the same file. Without --kernel, --initrd or --device it is the guest of fifovm console.`,
		Example: `  fifovm snapshot save ready.snapshot --until "fifo_aio 0000:00:02.0"
  fifovm snapshot save up.snapshot -k debug -e soft -c 4 --until "Run /init"`,
		Args: oneArg("the file to write"),
		RunE: func(c *cobra.Command, args []string) error {
			if until == "" {
				return errors.New("--until: when is the guest to be saved? Give words of a line of its console")
			}
			return saveGuest(c.Context(), &g, args[0], until, limit)
		},
	}
	g.flags(c.Flags())
	c.Flags().StringVar(&until, "until", "", "save when a line of the console has `text` in it")
	c.Flags().DurationVar(&limit, "timeout", 2*time.Minute, "give up after so much time of the host's")
	return c
}

// oneArg is for commands that take one file.
func oneArg(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 1 {
			return nil
		}
		return fmt.Errorf("%s takes one argument, %s: see `%s --help`", c.Name(), what, c.CommandPath())
	}
}

// lineWaiter calls found when a line with some text has come, and next after each
// other one.
type lineWaiter struct {
	mu          sync.Mutex
	text        []byte
	line        []byte
	out         io.Writer
	found, next func()
	done        bool
}

func (w *lineWaiter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range p {
		if w.line = append(w.line, b); b != '\n' {
			continue
		}
		if !w.done && bytes.Contains(w.line, w.text) {
			w.done = true
			w.found()
		} else if !w.done {
			w.next()
		}
		w.line = w.line[:0]
	}
	return w.out.Write(p)
}

func saveGuest(ctx context.Context, g *guest, name, until string, limit time.Duration) (err error) {
	if err := g.defaults(); err != nil {
		return err
	}
	if err := g.open(); err != nil {
		return err
	}
	if err := g.chooseEngine(os.Stderr); err != nil {
		return err
	}
	run, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var m *vmm.Machine
	w := &lineWaiter{text: []byte(until), out: os.Stderr, found: cancel, next: func() { m.Listen() }}
	if m, err = g.machine(runWords, [2]io.Writer{w}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	m.Converse(0)
	stop, err := m.Run(run)
	m.Flush(0)
	switch {
	case stopped(ctx) != nil:
		return stopped(ctx)
	case err != nil:
		return g.explain(err)
	case !w.done && stop == vmm.Paused:
		return &statusError{statusFailed, fmt.Errorf("no line of the console had %q in it for %v; --timeout gives it more time", until, limit)}
	case !w.done:
		return &statusError{statusFailed, fmt.Errorf("the guest ended (%v) before a line of its console had %q in it", stop, until)}
	}
	m.EndConverse(0)
	if err := snapshot.Save(name, m, g.about()); err != nil {
		return &statusError{statusFailed, err}
	}
	fmt.Printf("%s: saved at %.6f s of the guest's time\n", name, time.Duration(m.Now()).Seconds())
	return nil
}

func snapshotLoadCommand() *cobra.Command {
	var g guest
	var stats bool
	c := &cobra.Command{
		Use:   "load FILE [flags]",
		Short: "Go on from a snapshot, with the console here",
		Long: `Is fifovm run --snapshot FILE: the guest goes on where it was saved, with its console here. Its devices
are made as those that were saved; --fault replaces the faults that were armed.

` + statusHelp,
		Example: "  fifovm snapshot load ready.snapshot",
		Args:    oneArg("the file to read"),
		RunE: func(c *cobra.Command, args []string) error {
			g.snapshot = args[0]
			return runGuest(c.Context(), &g, true, stats)
		},
	}
	g.flags(c.Flags())
	gdbFlag(c.Flags(), &g)
	c.Flags().BoolVar(&stats, "stats", false, "at the end, say how long the guest ran; on engine soft also how many instructions, and how fast")
	return c
}

func snapshotInfoCommand() *cobra.Command {
	var verify bool
	c := &cobra.Command{
		Use:   "info FILE [flags]",
		Short: "Say what is in a snapshot, and whether it is whole",
		Args:  oneArg("the file to read"),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := snapshot.Open(args[0])
			if err != nil {
				return &statusError{statusFailed, err}
			}
			defer f.Close() // read only: closing can't lose anything
			for _, line := range []struct {
				what  string
				value any
			}{
				{"version", snapshot.Version}, {"written by", f.Program}, {"engine", f.Engine}, {"CPUs", f.CPUs}, {"CPU policy", f.Policy},
				{"memory", fmt.Sprintf("%d MiB", f.Memory>>20)}, {"guest's time", time.Duration(f.Now)}, {"seed", f.Seed},
				{"devices", f.Devices}, {"kernel", f.Kernel}, {"words", f.CommandLine},
			} {
				fmt.Printf("%-13s %v\n", line.what, line.value)
			}
			if !verify {
				return nil
			}
			if err := f.Verify(c.Context()); err != nil {
				return &statusError{statusFailed, err}
			}
			fmt.Println("its memory is whole")
			return nil
		},
	}
	c.Flags().BoolVar(&verify, "verify", false, "check the memory too, which takes a moment")
	return c
}

// openSnapshot is open for a guest that goes on from a file.
func (g *guest) openSnapshot() error {
	for _, name := range []string{"kernel", "initrd", "append", "memory", "cpus", "seed", "device", "module", "test-program"} {
		if f := g.set.Lookup(name); f != nil && f.Changed {
			return fmt.Errorf("--%s: what a snapshot has can't be changed: give only the snapshot, --engine, --fault and --trace", name)
		}
	}
	f, err := snapshot.Open(g.snapshot)
	if err != nil {
		return err
	}
	g.file = f
	for _, text := range f.Devices {
		if err := g.bench.devices.Set(text); err != nil {
			return fmt.Errorf("snapshot %s: its device %q: %w", g.snapshot, text, err)
		}
	}
	if !g.set.Changed("engine") {
		g.engine = f.Engine
	}
	g.kernel, g.cpus, g.memory, g.seed, g.modules = f.Kernel, f.CPUs, memorySize(f.Memory), seed(f.Seed), f.Modules
	if err := g.bench.open(); err != nil {
		return err
	}
	// Without its file the kernel's addresses have no names.
	if g.image, err = boot.Open(f.Kernel); err != nil {
		g.image = new(boot.Kernel)
	}
	return nil
}

// load makes the machine that goes on from the snapshot.
func (g *guest) load(serial [2]io.Writer) (*vmm.Machine, error) {
	cfg, err := g.config(serial)
	if err != nil {
		return nil, err
	}
	m, err := g.file.Machine(cfg)
	if err != nil {
		return nil, err
	}
	for i := range serial {
		m.EndConverse(i)
	}
	if plans := m.Plans(); len(g.bench.faults) == 0 && len(plans) > 0 {
		g.bench.plan = plans[0].String()
		g.bench.keep(m, plans[0])
		return m, nil
	}
	if err := g.bench.arm(m); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// verify checks the snapshot's memory beside a run, for which end is called where it
// is damaged. wait waits for the outcome, as what came of a damaged machine counts
// for nothing, and closes the file.
func (g *guest) verify(ctx context.Context, end func(error)) (wait func() error) {
	file := g.file
	if file == nil {
		return func() error { return nil }
	}
	result := make(chan error, 1)
	go func() {
		err := file.Verify(ctx)
		switch {
		case ctx.Err() != nil:
			err = nil // somebody has ended it all
		case err != nil:
			end(err)
		}
		result <- err
	}()
	return func() error { return errors.Join(<-result, file.Close()) }
}
