package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"fifovm/harness/monitor"
	"fifovm/vmm/debug"
	"fifovm/vmm/gdb"
)

// gdbCommand is the monitor's command that lets gdb in until ctx is done, once.
func gdbCommand(ctx context.Context, s *debug.Session, kill func(), note func(string)) monitor.Command {
	open := false
	return monitor.Command{Name: "gdb", Args: "PORT", Help: "let gdb connect to a port of this host: target remote :PORT",
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
			go func() {
				if err := gdb.Serve(ctx, l, gdb.Config{Session: s, Kill: kill}); err != nil && ctx.Err() == nil {
					note("gdb: " + err.Error())
				}
			}()
			return nil
		}}
}
