// Package monitor is the console's other side: a line of text is a command
// that looks at a running guest and its devices, or changes them.
//
// It is a table of commands and knows no terminal: lines come from anywhere,
// and what they say goes to a writer. What it does to a guest's CPUs and memory
// goes through package vmm/debug, to devices through their boundaries.
package monitor

import (
	"errors"
	"fmt"
	"io"
	"os"
	stack "runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"

	"fifovm/device"
	"fifovm/device/fault"
	"fifovm/device/trace"
	"fifovm/vmm/debug"
	"fifovm/vmm/vmm"
)

// Config is what a monitor works on.
type Config struct {
	Session *debug.Session
	Plan    *fault.Plan // armed on the devices
	Log     *trace.Log  // where the devices are traced already; nil: they are not
	Symbols *Symbols    // may be nil
	About   string      // what info says of the machine: the engine, the kernel
	Quit    func()      // ends the guest
	// More are commands of the caller's, behind the monitor's own.
	More []Command
}

// Command is one that can be typed.
type Command struct {
	Name, Args, Help string
	// Complete gives what the argument of a number (from 0) can be; nil: anything.
	Complete func(arg int) []string
	Run      func(args []string, w io.Writer) error
}

// Monitor is the commands for one guest. Its calls are for one goroutine at a time.
type Monitor struct {
	cfg      Config
	commands []Command
	log      *trace.Log // of "trace on"
	file     string     // for it
}

// New makes a monitor.
func New(cfg Config) *Monitor {
	m := &Monitor{cfg: cfg}
	m.commands = append(m.table(), cfg.More...)
	return m
}

// errUsage is that a command's arguments are not what its entry says.
var errUsage = errors.New("wrong arguments")

// Do does what a line says. An error is one line.
func (m *Monitor) Do(line string, w io.Writer) error {
	words := strings.Fields(line)
	if len(words) == 0 {
		return nil
	}
	c, err := m.command(words[0])
	if err != nil {
		return err
	}
	if err := c.Run(words[1:], w); errors.Is(err, errUsage) {
		return fmt.Errorf("%s: want: %s", c.Name, strings.TrimSpace(c.Name+" "+c.Args))
	} else if err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	return nil
}

// command gives the command of a name, or of the only one that begins so.
func (m *Monitor) command(name string) (*Command, error) {
	var found []*Command
	for i := range m.commands {
		switch c := &m.commands[i]; {
		case c.Name == name:
			return c, nil
		case strings.HasPrefix(c.Name, name):
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("there is no command %q: see help", name)
	case 1:
		return found[0], nil
	}
	var names []string
	for _, c := range found {
		names = append(names, c.Name)
	}
	return nil, fmt.Errorf("%q may be %s", name, strings.Join(names, " or "))
}

// Complete gives what the last word of a line, which may be empty, can become.
func (m *Monitor) Complete(line string) (all []string) {
	words := strings.Fields(line)
	if len(words) == 0 || strings.HasSuffix(line, " ") {
		words = append(words, "")
	}
	last := words[len(words)-1]
	var choices []string
	if len(words) == 1 {
		choices = m.names()
	} else if c, err := m.command(words[0]); err == nil && c.Complete != nil {
		choices = c.Complete(len(words) - 2)
	}
	for _, s := range choices {
		if strings.HasPrefix(s, last) {
			all = append(all, s)
		}
	}
	return all
}

func (m *Monitor) names() (all []string) {
	for i := range m.commands {
		all = append(all, m.commands[i].Name)
	}
	return all
}

// Close writes a trace that is still on, when the guest has ended.
func (m *Monitor) Close() error {
	if m.log == nil {
		return nil
	}
	return m.writeTrace()
}

func (m *Monitor) help(args []string, w io.Writer) error {
	if len(args) > 1 {
		return errUsage
	}
	if len(args) == 1 {
		c, err := m.command(args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\n  %s\n", strings.TrimSpace(c.Name+" "+c.Args), c.Help)
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := range m.commands {
		c := &m.commands[i]
		fmt.Fprintf(t, "%s\t%s\n", strings.TrimSpace(c.Name+" "+c.Args), c.Help)
	}
	return t.Flush()
}

func (m *Monitor) machine() *vmm.Machine { return m.cfg.Session.Machine() }

// device does something with a device, with the machine locked.
func (m *Monitor) device(name string, f func(*device.Boundary) error) (err error) {
	if !slices.Contains(m.devices(), name) {
		return fmt.Errorf("there is no device %q: there is %s", name, strings.Join(m.devices(), ", "))
	}
	m.locked(func() { err = f(m.machine().Device(name)) })
	return err
}

// locked does something between two things that the guest does.
func (m *Monitor) locked(f func()) { m.machine().Do(f) }

func (m *Monitor) devices() (names []string) {
	for _, b := range m.machine().Devices() {
		names = append(names, b.Name())
	}
	return names
}

func (m *Monitor) info(args []string, w io.Writer) error {
	if len(args) != 0 {
		return errUsage
	}
	s := m.cfg.Session
	state := "runs"
	switch {
	case s.Ended():
		state = "has ended"
	case s.Paused():
		state = "stands still"
	}
	if e, ok := s.Last(); ok {
		state += ": " + m.event(e)
	}
	fmt.Fprintf(w, "%s\nthe guest %s\n", m.cfg.About, state)
	m.locked(func() {
		for _, b := range m.machine().Devices() {
			gone := ""
			if b.Removed() {
				gone = ", unplugged"
			}
			i := b.Info()
			fmt.Fprintf(w, "device %s: %s, %04x:%04x, %d crossings, %d interrupts%s\n",
				b.Name(), m.machine().DeviceAddress(b.Name()), i.Vendor, i.Device, b.Seq(), b.Number(device.ClassIRQ, device.INTx-1), gone)
		}
	})
	if s.Ended() {
		return nil
	}
	for cpu := range s.CPUs() {
		r, err := s.Registers(cpu)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "cpu %d: %s\n", cpu, m.place(r.RIP))
	}
	return nil
}

// place is an address with its symbol and its line.
func (m *Monitor) place(addr uint64) string {
	text := fmt.Sprintf("%#x", addr)
	if symbol := m.cfg.Session.Symbol(addr); symbol != "" {
		text += " " + symbol
	}
	if line := m.cfg.Symbols.line(addr); line != "" {
		text += " (" + line + ")"
	}
	return text
}

func (m *Monitor) event(e debug.Event) string {
	switch e.Reason {
	case debug.Paused:
		return e.Reason.String() // at no address in particular
	case debug.Watchpoint:
		return fmt.Sprintf("%v on cpu %d: %d bytes at %s", e.Reason, e.CPU, e.Watch.Size, m.place(e.Address))
	}
	return fmt.Sprintf("%v on cpu %d at %s", e.Reason, e.CPU, m.place(e.Address))
}

// Event says in a line why the guest came to stand still.
func (m *Monitor) Event(e debug.Event) string {
	m.find()
	return m.event(e)
}

func (m *Monitor) showDevice(args []string, w io.Writer) error {
	if len(args) != 1 {
		return errUsage
	}
	ram := m.machine().RAM()
	return m.device(args[0], func(b *device.Boundary) error {
		if b.Removed() {
			fmt.Fprintln(w, "unplugged; what it was:")
		}
		i, ok := b.Model().(device.Inspector)
		if !ok {
			return errors.New("its model does not show its state: see device.Inspector")
		}
		return inspect(i, w, ram.Read)
	})
}

// inspect has a model show its state. A mistake in that is told, and no more: the
// device works as before.
func inspect(i device.Inspector, w io.Writer, read func(uint64, []byte) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(w, "%s\n", stack.Stack())
			err = fmt.Errorf("its model panicked when it was to show its state: %v", r)
		}
	}()
	i.Inspect(w, read)
	return nil
}

func (m *Monitor) fault(args []string, w io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	return m.arm(strings.Join(args, " "), w)
}

func (m *Monitor) arm(text string, w io.Writer) (err error) {
	p, err := fault.Parse(text)
	if err != nil {
		return oneLine(err)
	}
	if p.Empty() {
		return errors.New("there is no fault in it")
	}
	for _, name := range p.Devices() {
		if !slices.Contains(m.devices(), name) {
			return fmt.Errorf("there is no device %q: there is %s", name, strings.Join(m.devices(), ", "))
		}
	}
	m.locked(func() { err = m.cfg.Plan.Arm(text) })
	if err != nil {
		return oneLine(err)
	}
	fmt.Fprintf(w, "armed: %s\n", p)
	return nil
}

// oneLine leaves of a plan's error what and where.
func oneLine(err error) error {
	var p *fault.ParseError
	if errors.As(err, &p) {
		return fmt.Errorf("column %d: %s", p.Column, p.Message)
	}
	return err
}

func (m *Monitor) faults(args []string, w io.Writer) error {
	if len(args) != 0 {
		return errUsage
	}
	var all []fault.Count
	m.locked(func() { all = m.cfg.Plan.Fired() })
	if len(all) == 0 {
		fmt.Fprintln(w, "none")
	}
	for _, c := range all {
		fmt.Fprintf(w, "%s: fired %d times\n", c.Fault, c.Fired)
	}
	return nil
}

func (m *Monitor) clear(args []string, _ io.Writer) error {
	if len(args) != 0 {
		return errUsage
	}
	m.locked(m.cfg.Plan.Clear)
	return nil
}

// vector reads a vector of a device.
func vector(b *device.Boundary, text string) (n int, err error) {
	i := b.Info()
	count := max(i.MSIX, i.MSI)
	if n, err = number(text); err != nil || n < 0 || n >= count {
		return 0, fmt.Errorf("vector %q: want 0 to %d", text, count-1)
	}
	return n, nil
}

func (m *Monitor) raise(args []string, _ io.Writer) error {
	if len(args) != 2 {
		return errUsage
	}
	return m.device(args[0], func(b *device.Boundary) error {
		n, err := vector(b, args[1])
		if err != nil {
			return err
		}
		return sent(b.Spurious(n, "monitor"))
	})
}

func (m *Monitor) intx(args []string, _ io.Writer) error {
	if len(args) != 1 {
		return errUsage
	}
	return m.device(args[0], func(b *device.Boundary) error {
		if !b.Info().INTx {
			return errors.New("the device has no interrupt pin")
		}
		return sent(b.Spurious(device.INTx, "monitor"))
	})
}

func sent(ok bool) error {
	if !ok {
		return errors.New("the interrupt has no way to the guest: it has enabled none, or the device is gone")
	}
	return nil
}

func (m *Monitor) drop(args []string, w io.Writer) error {
	if len(args) != 2 {
		return errUsage
	}
	err := m.device(args[0], func(b *device.Boundary) error {
		if args[1] == "intx" && b.Info().INTx {
			return nil
		}
		_, err := vector(b, args[1])
		return err
	})
	if err != nil {
		return err
	}
	return m.arm(fmt.Sprintf("%s/irq[%s]:drop@next", args[0], args[1]), w)
}

func (m *Monitor) unplug(args []string, _ io.Writer) error {
	return m.plugged(args, m.machine().RemoveDevice)
}

func (m *Monitor) plug(args []string, w io.Writer) error {
	if err := m.plugged(args, m.machine().PlugDevice); err != nil {
		return err
	}
	// Linux has the old one still: without a slot for hot plugging nobody tells it.
	fmt.Fprintf(w, "the guest finds it by: echo 1 >/sys/bus/pci/devices/%s/remove; echo 1 >/sys/bus/pci/rescan\n", m.machine().DeviceAddress(args[0]))
	return nil
}

func (m *Monitor) plugged(args []string, f func(string) error) error {
	if len(args) != 1 {
		return errUsage
	}
	// There, or the error names those that are.
	if err := m.device(args[0], func(*device.Boundary) error { return nil }); err != nil {
		return err
	}
	return f(args[0])
}

func (m *Monitor) trace(args []string, w io.Writer) error {
	switch {
	case len(args) == 2 && args[0] == "on":
		if m.log != nil {
			return fmt.Errorf("it is on already, to %s", m.file)
		}
		if m.cfg.Log != nil {
			return errors.New("the devices are traced by --trace already: see trace show")
		}
		// That the file can't be written is said before there is a trace to lose.
		f, err := os.Create(args[1])
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		m.log, m.file = trace.New(trace.Size), args[1]
		m.tracer(m.log)
		return nil
	case len(args) == 1 && args[0] == "off":
		if m.log == nil {
			return errors.New("it is not on")
		}
		m.tracer(nil)
		defer fmt.Fprintf(w, "written to %s\n", m.file)
		return m.writeTrace()
	case len(args) == 2 && args[0] == "show":
		n, err := number(args[1])
		if err != nil || n < 1 {
			return fmt.Errorf("%q: want a number of lines", args[1])
		}
		return m.showTrace(n, w)
	}
	return errUsage
}

// tracer has all devices traced by a log, or by none.
func (m *Monitor) tracer(log *trace.Log) {
	m.locked(func() {
		for _, b := range m.machine().Devices() {
			if log == nil {
				b.Trace(nil)
			} else {
				b.Trace(log)
			}
		}
	})
}

func (m *Monitor) writeTrace() (err error) {
	log := m.log
	m.log = nil
	f, err := os.Create(m.file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if strings.HasSuffix(m.file, ".json") {
		return log.WriteJSON(f)
	}
	return log.WriteText(f)
}

func (m *Monitor) showTrace(n int, w io.Writer) (err error) {
	log := m.log
	if log == nil {
		log = m.cfg.Log
	}
	if log == nil {
		return errors.New("it is not on: trace on FILE")
	}
	var text strings.Builder
	m.locked(func() { err = log.WriteText(&text) })
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(strings.TrimSuffix(text.String(), "\n"), "\n")
	_, err = fmt.Fprintln(w, strings.Join(lines[max(0, len(lines)-n):], ""))
	return err
}
