package main

import "github.com/spf13/cobra"

func consoleCommand() *cobra.Command {
	var g guest
	var noReboot, stats bool
	c := &cobra.Command{
		Use:   "console [flags]",
		Short: "A shell in the guest with the driver, and a monitor beside it",
		Long: `Is run with the guest that make builds, where nothing else is asked for: kernel 6.12, the image
build/guest.cpio with its shell on ttyS0, and the devices edu and fifo. --module and --test-program bring a
driver and tests of your own, as for fifovm test: the tests are in /bench.

Ctrl-A c opens the monitor, which looks at the guest and breaks its devices; its command help lists the
others. docs/console.md is a tour.

` + statusHelp,
		Example: `  fifovm console
  fifovm console --kernel debug -c 4 --fault "fifo0/irq[1]:drop@3"
  fifovm console --module card.ko,debug=1 --test-program card_test --device edu`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := g.defaults(); err != nil {
				return err
			}
			return runGuest(c.Context(), &g, noReboot, stats)
		},
	}
	g.flags(c.Flags())
	gdbFlag(c.Flags(), &g)
	c.Flags().StringArrayVar(&g.modules, "module", nil, "load the kernel module `file`, as in card.ko or card.ko,parameter=value, in place of the image's driver; may be repeated")
	c.Flags().StringArrayVar(&g.programs, "test-program", nil, "put the static program `file` into /bench; may be repeated")
	c.Flags().BoolVar(&noReboot, "no-reboot", false, "end when the guest reboots")
	c.Flags().BoolVar(&stats, "stats", false, "at the end, say how long the guest ran; on engine soft also how many instructions, and how fast")
	return c
}
