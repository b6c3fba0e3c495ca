package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
// the guest has ended. wait is for after that: until gdb is gone.
func gdbCommand(ctx context.Context, s *debug.Session, kill func(), note func(string)) (c monitor.Command, wait func()) {
	open := false
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
			open = true
			fmt.Fprintf(w, "gdb may connect: target remote %s\n", l.Addr())
			served.Go(func() {
				if err := gdb.Serve(ctx, l, gdb.Config{Session: s, Kill: kill}); err != nil && ctx.Err() == nil {
					note("gdb: " + err.Error())
				}
			})
			return nil
		}}
	return c, served.Wait
}
