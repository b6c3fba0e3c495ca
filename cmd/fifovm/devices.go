package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fifovm/device"
	"fifovm/device/edu"
	"fifovm/device/fault"
	"fifovm/device/fifo"
	"fifovm/device/trace"
	"fifovm/harness"
	"fifovm/vmm/vmm"
)

// models are what --device can attach. A model of yours takes an entry here.
var models = []model{
	{"edu", "QEMU's educational device: factorials, interrupts and DMA (device/edu)", func(o *pflag.FlagSet) func() (device.Model, error) {
		var cfg edu.Config
		o.IntVar(&cfg.DMABits, "dma-bits", 28, "bits of the addresses that its DMA engine can emit, 1 to 64")
		return func() (device.Model, error) {
			if cfg.DMABits < 1 || cfg.DMABits > 64 {
				return nil, errors.New("dma-bits: want 1 to 64")
			}
			return edu.New(cfg), nil
		}
	}},
	{"fifo", "the target hardware: FIFOs behind DMA rings, with MSI-X (docs/hardware.md)", func(o *pflag.FlagSet) func() (device.Model, error) {
		var cfg fifo.Config
		var latency time.Duration
		o.IntVar(&cfg.Channels, "channels", 2, fmt.Sprintf("channels, 1 to %d", fifo.MaxChannels))
		o.IntVar(&cfg.Depth, "depth", 64<<10, fmt.Sprintf("bytes of each FIFO, a power of two from %d to %d", fifo.MinDepth, fifo.MaxDepth))
		o.DurationVar(&latency, "latency", 5*time.Microsecond, "time that it takes to act upon a doorbell, and for each request")
		o.Int64Var(&cfg.Rate, "rate", 1000, "bytes that a ring moves in a microsecond")
		return func() (device.Model, error) {
			if cfg.Latency = latency.Nanoseconds(); cfg.Channels == 0 || cfg.Depth == 0 || cfg.Latency == 0 || cfg.Rate == 0 {
				return nil, errors.New("channels, depth, latency and rate: want more than 0") // which is the default to it
			}
			return fifo.New(cfg)
		}
	}},
}

// model is a device model that the command knows.
type model struct {
	name, about string
	// options adds the model's to a set, and gives the call that makes a device
	// by them once they are read.
	options func(*pflag.FlagSet) func() (device.Model, error)
}

// attachment is what one --device asks for.
type attachment struct {
	text  string // the flag's value
	model string
	name  string // in fault plans and traces
	slot  int
	make  func() (device.Model, error)
}

// attachments is the value of --device, which may be there more than once.
type attachments []attachment

// Set reads a value from the command line: NAME[,option=value...].
func (a *attachments) Set(text string) error {
	words := strings.Split(text, ",")
	var m *model
	var names []string
	for i := range models {
		names = append(names, models[i].name)
		if models[i].name == words[0] {
			m = &models[i]
		}
	}
	if m == nil {
		return fmt.Errorf("there is no device %q: want %s; see `fifovm devices`", words[0], strings.Join(names, " or "))
	}
	d := attachment{text: text, model: m.name}
	var o pflag.FlagSet
	d.make = d.describe(&o, m)
	for _, word := range words[1:] {
		name, value, found := strings.Cut(word, "=")
		f := o.Lookup(name)
		if f == nil || !found {
			return fmt.Errorf("%s has no option %q: see `fifovm devices`", m.name, word)
		}
		if err := f.Value.Set(value); err != nil {
			return fmt.Errorf("%s: %w", word, readable(err))
		}
	}
	if d.slot < 0 || d.slot > 31 {
		return fmt.Errorf("slot=%d: want 1 to 31, or 0 for the next that is free", d.slot)
	}
	if _, err := d.make(); err != nil {
		return err
	}
	if d.name == "" {
		same := 0
		for _, other := range *a {
			if other.model == d.model {
				same++
			}
		}
		d.name = d.model + strconv.Itoa(same)
	}
	for _, other := range *a {
		if other.name == d.name {
			return fmt.Errorf("two devices have the name %s: give one another by name=", d.name)
		}
	}
	*a = append(*a, d)
	return nil
}

// readable leaves of a number's error what a user can use.
func readable(err error) error {
	var n *strconv.NumError
	switch {
	case errors.As(err, &n):
		return errors.New("want a number")
	case strings.HasPrefix(err.Error(), "time: "):
		return errors.New("want a time such as 10us")
	}
	return err
}

// describe adds to o all that can be said of the device.
func (a *attachment) describe(o *pflag.FlagSet, m *model) func() (device.Model, error) {
	o.SortFlags = false
	build := m.options(o)
	o.StringVar(&a.name, "name", "", "its name in fault plans and traces; "+m.name+"0, "+m.name+"1... unless given")
	o.IntVar(&a.slot, "slot", 0, "its slot on PCI bus 0, 1 to 31; 0: the next that is free")
	return build
}

func (a *attachments) String() string {
	var names []string
	for _, d := range *a {
		names = append(names, d.name)
	}
	return strings.Join(names, ",")
}

// Type is what help calls the value.
func (a *attachments) Type() string { return "name[,option=value...]" }

// GetSlice gives the values that were set. With Append and Replace it makes the
// flag a pflag.SliceValue, one whose values are many.
func (a *attachments) GetSlice() (values []string) {
	for _, d := range *a {
		values = append(values, d.text)
	}
	return values
}

// Append is Set.
func (a *attachments) Append(text string) error { return a.Set(text) }

// Replace sets all values anew.
func (a *attachments) Replace(texts []string) error {
	*a = nil
	for _, text := range texts {
		if err := a.Set(text); err != nil {
			return err
		}
	}
	return nil
}

// models are the devices by model, as a guest's test wants to know them.
func (a attachments) models() string {
	var names []string
	for _, d := range a {
		names = append(names, d.model)
	}
	return strings.Join(names, ",")
}

// bench is the devices of a guest, how they are to be broken, and what is to be
// written down of them.
type bench struct {
	devices attachments
	faults  []string // texts of --fault
	trace   string   // file, or -

	plan string // the faults, all in one
	// The guest that was booted last, while it runs: the plan, to which tests may
	// add through the host, and the trace.
	armed *fault.Plan
	log   *trace.Log
	host  harness.DeviceHost
	boots int
	// Faults that have not fired in the last boot, and in none.
	left, never []string
}

func (b *bench) flags(f *pflag.FlagSet) {
	f.Var(&b.devices, "device", "attach a `device`, such as edu or edu,dma-bits=40; see fifovm devices; may be repeated")
	f.StringArrayVar(&b.faults, "fault", nil, "break devices by the `plan`, such as \"irq[0]:drop@3\", or @FILE to read it from there; may be repeated; see docs/faults.md")
	f.StringVar(&b.trace, "trace", "", "write what the devices do to `file`: as text, for Perfetto if the name ends in .json; - is standard output")
}

// open reads the plan and makes the trace's file, so that what is wrong with
// them is said before anything runs.
func (b *bench) open() error {
	var texts []string
	for _, text := range b.faults {
		what := "--fault"
		if path, found := strings.CutPrefix(text, "@"); found {
			file, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("--fault: %w", err)
			}
			what, text = "--fault "+text, string(file)
		}
		p, err := fault.Parse(text)
		var bad *fault.ParseError
		switch {
		case errors.As(err, &bad):
			first, detail, _ := strings.Cut(bad.Error(), "\n")
			return &detailedError{fmt.Errorf("%s: %s", what, first), detail}
		case err != nil:
			return fmt.Errorf("%s: %w", what, err)
		case p.Empty():
			return fmt.Errorf("%s: there is no fault in it", what)
		}
		for _, name := range p.Devices() {
			if len(b.devices) > 0 && !b.devices.has(name) {
				return fmt.Errorf("%s: there is no device %q: there is %s", what, name, b.devices.names())
			}
		}
		texts = append(texts, text)
	}
	b.plan = strings.Join(texts, "\n")
	switch {
	case b.plan != "" && len(b.devices) == 0:
		return errors.New("--fault: there is no device to break: give --device")
	case b.trace != "" && len(b.devices) == 0:
		return errors.New("--trace: there is no device to trace: give --device")
	case b.trace == "" || b.trace == "-":
		return nil
	}
	f, err := os.Create(b.trace)
	if err != nil {
		return fmt.Errorf("--trace: %w", err)
	}
	return f.Close()
}

// has and names are about the names of the devices.
func (a attachments) has(name string) bool {
	return slices.ContainsFunc(a, func(d attachment) bool { return d.name == name })
}

func (a attachments) names() string {
	var all []string
	for _, d := range a {
		all = append(all, d.name)
	}
	return strings.Join(all, " and ")
}

// make gives the devices for a machine.
func (b *bench) make() (all []vmm.Device, err error) {
	for _, d := range b.devices {
		m, err := d.make()
		if err != nil {
			return nil, fmt.Errorf("device %s: %w", d.name, err)
		}
		all = append(all, vmm.Device{Name: d.name, Model: m, Slot: d.slot})
	}
	return all, nil
}

// arm arms the plan and the trace on the devices of a machine that does not run
// yet. Each boot has its own.
func (b *bench) arm(m *vmm.Machine) error {
	b.boots++
	p, err := fault.Parse(b.plan)
	if err != nil {
		return err // two texts that don't go together
	}
	for _, d := range m.Devices() {
		d.Inject(p)
	}
	b.keep(m, p)
	return nil
}

// keep has the bench know the plan that is armed on a machine, and begins the
// trace.
func (b *bench) keep(m *vmm.Machine, p *fault.Plan) {
	b.armed, b.log, b.host = p, nil, *harness.NewDeviceHost(m, p)
	if b.trace != "" {
		b.log = trace.New(trace.Size)
	}
	if b.log != nil {
		for _, d := range m.Devices() {
			d.Trace(b.log)
		}
	}
}

// finish is for when the machine has come to its end: it notes which faults have
// fired, and writes the trace. A second time it does nothing.
func (b *bench) finish() error {
	if b.armed != nil {
		b.left = b.host.Left()
		if b.boots == 1 {
			b.never = slices.Clone(b.left)
		}
		b.never = slices.DeleteFunc(b.never, func(f string) bool { return !slices.Contains(b.left, f) })
	}
	var err error
	if b.log != nil {
		if err = b.write(); err != nil {
			err = &statusError{statusFailed, fmt.Errorf("--trace: %w", err)}
		}
	}
	b.armed, b.log = nil, nil
	return err
}

func (b *bench) write() (err error) {
	if b.trace == "-" {
		return b.log.WriteText(os.Stdout)
	}
	path := b.trace
	ext := filepath.Ext(path)
	if b.boots > 1 {
		path = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(path, ext), b.boots, ext)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if ext == ".json" {
		return b.log.WriteJSON(f)
	}
	return b.log.WriteText(f)
}

func devicesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "devices",
		Short: "List the devices that can be attached",
		Long: `Lists the devices that --device of run and test can attach, with their options:

  fifovm run -k vmlinux -i image.cpio --device edu --device edu,name=wide,dma-bits=40

docs/writing-a-device.md tells how to add one.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return listDevices(c.OutOrStdout()) },
	}
}

func listDevices(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i := range models {
		fmt.Fprintf(w, "%s: %s\n", models[i].name, models[i].about)
		var a attachment
		var o pflag.FlagSet
		a.describe(&o, &models[i])
		o.VisitAll(func(f *pflag.Flag) {
			usage := f.Usage
			if f.DefValue != "" && f.DefValue != "0" && f.DefValue != "false" {
				usage += fmt.Sprintf(" (%s)", f.DefValue)
			}
			fmt.Fprintf(w, "  %s=\t%s\n", f.Name, usage)
		})
	}
	return w.Flush()
}
