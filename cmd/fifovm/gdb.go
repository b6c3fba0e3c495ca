package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/pflag"

	"fifovm/harness/monitor"
	"fifovm/vmm/debug"
	"fifovm/vmm/gdb"
)

func gdbFlag(f *pflag.FlagSet, g *guest) {
	f.StringVar(&g.gdb, "gdb", "", "let gdb connect to `port`, or HOST:PORT; the guest does not wait for it")
}

// gdbCommand is the monitor's command that lets gdb in, once, until ctx is done or
// the guest has ended. wait is for after that: until gdb is gone. attached is told
// when one comes, and when it goes.
func gdbCommand(ctx context.Context, s *debug.Session, kernel string, symbols *monitor.Symbols, kill func(), attached func(bool), note func(string)) (c monitor.Command, wait func()) {
	open, folder := false, ""
	var served sync.WaitGroup
	c = monitor.Command{Name: "gdb", Args: "PORT", Help: "let gdb connect to a port of this host: target remote :PORT",
		Run: func(args []string, w io.Writer) error {
			switch {
			case open:
				return errors.New("it may connect already")
			case len(args) != 1:
				return errors.New("want: gdb PORT")
			}
			l, err := gdb.Listen(args[0])
			if err != nil {
				return err
			}
			cfg := gdb.Config{Session: s, Kill: kill, Attached: attached}
			// What gdb can do without, it does without.
			if folder, err = os.MkdirTemp("", "fifovm-gdb"); err == nil {
				modules := ""
				if linux, err := symbols.Linux(); err == nil {
					modules = filepath.Join(folder, "modules")
					cfg.Linux, cfg.ModuleScript = linux, modules
				}
				script, err := gdb.Script(l.Addr(), kernel, "", modules)
				file := filepath.Join(folder, "gdb")
				if err == nil && os.WriteFile(file, []byte(script), 0o644) == nil {
					fmt.Fprintf(w, "with symbols: gdb -x %s\n", file)
				}
			}
			open = true
			fmt.Fprintf(w, "gdb may connect: target remote %s\n", l.Addr())
			served.Go(func() {
				if err := gdb.Serve(ctx, l, cfg); err != nil && ctx.Err() == nil {
					note("gdb: " + err.Error())
				}
			})
			return nil
		}}
	return c, func() {
		served.Wait()
		if folder != "" {
			_ = os.RemoveAll(folder) // scratch
		}
	}
}

// listenForGDB does what the flag --gdb asks for, and notes what the command says.
func (g *guest) listenForGDB(c monitor.Command, note func(string)) error {
	var said strings.Builder
	if err := c.Run([]string{g.gdb}, &said); err != nil {
		return fmt.Errorf("--gdb: %w", err)
	}
	for line := range strings.Lines(said.String()) {
		note(strings.TrimSuffix(line, "\n"))
	}
	return nil
}

// moduleFiles are the files with the symbols of the modules that the guest loads:
// those that were given, else the driver.
func (g *guest) moduleFiles() (files []string) {
	for _, m := range g.modules {
		file, _, _ := strings.Cut(m, ",")
		files = append(files, file)
	}
	// What is in the image is stripped.
	if driver := moduleOf(builtKernel(g.kernel)); len(files) == 0 && exists(driver) {
		files = append(files, driver)
	}
	return files
}

// moduleOf is the driver with its symbols, as guest/driver/build leaves it for a
// kernel that make has built: in the build folder that the kernel is in.
func moduleOf(kernel string) string {
	folder, file := filepath.Dir(kernel), filepath.Join("driver", filepath.Base(filepath.Dir(kernel)), "fifo_aio.ko")
	if beside := filepath.Join(folder, "..", "..", file); exists(beside) {
		return beside
	}
	return built(file)
}
