// Package vmm is the machine: RAM, clock, buses, chipset, PCI and CPUs wired
// together, and the calls to load it, run it, pause it and carry its state.
//
// It is the same machine whichever engine runs its CPUs. It knows neither the
// terminal nor tests: what its serial ports say goes to writers, and what ends
// a run is a value.
package vmm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"fifovm/vmm/boot"
	"fifovm/vmm/bus"
	"fifovm/vmm/chipset"
	"fifovm/vmm/clock"
	"fifovm/vmm/kvm"
	"fifovm/vmm/memory"
	"fifovm/vmm/pci"
	"fifovm/vmm/soft"
	"fifovm/vmm/x86"
)

// MaxCPUs is the most CPUs that a machine has.
const MaxCPUs = 64

// Config is what a machine is made of.
type Config struct {
	Engine    string // EngineKVM or EngineSoft; what ChooseEngine gave
	KVMDevice string // KVM's device file; empty means the usual one
	CPUs      int    // 1 to MaxCPUs
	Memory    uint64 // bytes of RAM; not used where RAM is given
	// RAM is memory that outlives the machine and stays its owner's. Nil means
	// fresh memory, which the machine closes.
	RAM *memory.RAM
	// Serial takes what the guest sends on ttyS0 and ttyS1; nil drops it. A
	// writer may be slow: the guest waits for it after some output.
	Serial [2]io.Writer
	// Devices are on PCI bus 0.
	Devices []Device
	// WallClock is the time at the start, in ns from 1970, UTC.
	WallClock int64
	// Seed decides the order in which the soft engine's CPUs take turns. With
	// the same seed, and everything else the same, a run is the same.
	Seed uint64
	// Paced has an idle guest on the soft engine wait as long as it would on
	// real hardware, for a person to talk to. Without, it skips to what comes
	// next, and its runs are repeatable.
	Paced bool
	// Input is what comes in on the serial ports at set times.
	Input []Input
	// OnInput, if not nil, is told of what comes in otherwise, so that it can be
	// Input in another run: on the soft engine that run is then the same, though
	// this one be paced. It is called with the machine locked.
	OnInput func(Input)
}

// Stop is why a run ended.
type Stop uint8

// The reasons.
const (
	Paused   Stop = iota // the context was done; Run goes on where it left off
	PowerOff             // the guest powered the machine off
	Reset                // the guest asked for a reset
)

func (s Stop) String() string {
	switch s {
	case Paused:
		return "paused"
	case PowerOff:
		return "power off"
	case Reset:
		return "reset"
	}
	return fmt.Sprintf("Stop(%d)", uint8(s))
}

// Machine is a whole computer. Run, State, SetState, Load and Close are for one
// goroutine at a time; Serial's writers are for any.
type Machine struct {
	// mu is held around everything that a device does: bus accesses, events,
	// input.
	mu      sync.Mutex
	cfg     Config
	ram     *memory.RAM
	time    timeSource
	clock   *clock.Clock
	ports   *bus.Space
	mmio    *bus.Space
	engine  Engine
	serial  [2]*serialPort
	cmos    *chipset.CMOS
	power   *chipset.Power
	pciRoot pci.Root
	bridge  *pci.Config
	decoder *pci.Decoder
	devices []*attached
	intx    [intxInputs]uint32 // the slots whose pin is up, at each input
	base    *State             // what Reset goes back to; nil: nothing

	stop   Stop               // why the guest ended the run; Paused if it did not
	broken error              // what a device could not do
	cancel context.CancelFunc // of the run
}

// New makes a machine at power-on, without anything to run.
func New(cfg Config) (_ *Machine, err error) {
	if cfg.CPUs < 1 || cfg.CPUs > MaxCPUs {
		return nil, fmt.Errorf("vmm: %d CPUs: want 1 to %d", cfg.CPUs, MaxCPUs)
	}
	m := &Machine{cfg: cfg, ram: cfg.RAM, ports: bus.NewPorts(), mmio: bus.NewMMIO()}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if m.ram == nil {
		if m.ram, err = memory.New(cfg.Memory); err != nil {
			return nil, err
		}
	}
	virtual := new(clock.Virtual)
	if m.time = clock.NewHost(); cfg.Engine == EngineSoft {
		m.time = virtual
	}
	m.clock = clock.New(m.time)
	if err := m.wire(); err != nil {
		return nil, err
	}
	switch cfg.Engine {
	case EngineKVM:
		m.engine, err = newKVM(kvm.Config{Device: cfg.KVMDevice, CPUs: cfg.CPUs, RAM: m.ram,
			Ports: m.ports, MMIO: m.mmio, Clock: m.clock, Lock: &m.mu, OnStop: func() { m.holdOutput(false) }})
	case EngineSoft:
		m.engine, err = newSoft(soft.Config{CPUs: cfg.CPUs, RAM: m.ram, Ports: m.ports, MMIO: m.mmio,
			Time: virtual, Clock: m.clock, Lock: &m.mu, Seed: cfg.Seed, Paced: cfg.Paced})
	default:
		err = fmt.Errorf("vmm: there is no engine %q", cfg.Engine)
	}
	if err != nil {
		return nil, err
	}
	if err := m.attachDevices(); err != nil {
		return nil, err
	}
	return m, m.scheduleInput()
}

// timeSource is where the machine's time comes from.
type timeSource interface {
	clock.Source
	Set(now int64)
}

func newSoft(cfg soft.Config) (Engine, error) {
	e, err := soft.New(cfg)
	if err != nil {
		return nil, err // not a nil *soft.Engine in an Engine
	}
	return e, nil
}

// wire makes the chipset and puts it on the buses.
func (m *Machine) wire() error {
	for i, u := range []struct {
		name string
		irq  uint32
	}{{"ttyS0", chipset.COM1IRQ}, {"ttyS1", chipset.COM2IRQ}} {
		m.serial[i] = newSerialPort(m, i, u.name, m.line(u.irq), m.cfg.Serial[i])
	}
	m.cmos = chipset.NewCMOS(m.clock, "cmos", m.line(chipset.CMOSIRQ), m.cfg.WallClock)
	m.power = chipset.NewPower(m.ended)
	m.bridge = pci.NewHostBridge()
	if err := m.pciRoot.Add(pci.Address{}, m.bridge); err != nil {
		return err
	}
	return errors.Join(
		m.ports.Map(chipset.COM1Port, chipset.UARTPorts, "ttyS0", m.serial[0].uart),
		m.ports.Map(chipset.COM2Port, chipset.UARTPorts, "ttyS1", m.serial[1].uart),
		m.ports.Map(chipset.CMOSPort, chipset.CMOSPorts, "cmos", m.cmos),
		m.ports.Map(chipset.PowerPort, chipset.PowerPorts, "power", m.power),
		m.ports.Map(chipset.KeyboardPort, chipset.KeyboardPorts, "keyboard reset", m.power.KeyboardReset()),
		m.ports.Map(chipset.PCIPort, chipset.PCIPorts, "pci", m.pciRoot.Ports()),
		m.mmio.Map(chipset.ECAM, chipset.ECAMSize, "pci ecam", m.pciRoot.ECAM()),
	)
}

// line is the interrupt line from a device to an input of the I/O APIC.
func (m *Machine) line(gsi uint32) func(level bool) {
	return func(level bool) {
		if err := m.engine.SetIRQ(gsi, level); err != nil {
			m.fail(err)
		}
	}
}

// ended is called when the guest ends the run. The first reason counts.
func (m *Machine) ended(s chipset.Stop) {
	if m.stop != Paused {
		return
	}
	switch s {
	case chipset.PowerOff:
		m.stop = PowerOff
	case chipset.Reset:
		m.stop = Reset
	}
	m.cancel()
	m.engine.Stop()
}

// fail ends the run because a device could not do its work.
func (m *Machine) fail(err error) {
	m.broken = errors.Join(m.broken, err)
	if m.cancel != nil {
		m.cancel()
		m.engine.Stop()
	}
}

// Close gives everything back to the host, after the serial ports' writers took
// what the guest has sent. The machine must not be running.
func (m *Machine) Close() error {
	var errs []error
	for _, s := range m.serial {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	if m.engine != nil {
		errs = append(errs, m.engine.Close())
	}
	if m.cfg.RAM == nil && m.ram != nil {
		errs = append(errs, m.ram.Close())
	}
	m.engine, m.ram = nil, nil
	return errors.Join(errs...)
}

// RAM is the guest's memory.
func (m *Machine) RAM() *memory.RAM { return m.ram }

// Serial is the host's end of ttyS0 or ttyS1. A write or a break returns when
// the guest's UART has taken all of it, or with io.ErrClosedPipe when the
// machine is closed, or was Reset since: a guest after that does not get what was
// meant for the one before.
func (m *Machine) Serial(i int) SerialPort {
	return serialEnd{port: m.serial[i], resets: m.serial[i].resets.Load()}
}

// SetSerial has w take what the guest sends on serial port i from now on, in place
// of Config.Serial's writer; nil drops it. The writer before gets all that was sent
// till then, and its error is SetSerial's. The machine must not be running.
func (m *Machine) SetSerial(i int, w io.Writer) error { return m.serial[i].out.replace(w) }

// Run runs the guest until it ends the run itself, until ctx is done (Paused),
// or until it can't go on: the error then says why.
func (m *Machine) Run(ctx context.Context) (Stop, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	m.stop, m.cancel = Paused, cancel
	broken := m.broken
	m.mu.Unlock()
	if broken != nil {
		return Paused, broken
	}
	m.holdOutput(true)
	// A guest that waits for its writers is no longer to, once it is to stop.
	released := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		m.holdOutput(false)
		close(released)
	})
	err := m.engine.Run(ctx)
	if !stop() {
		<-released
	}
	m.holdOutput(false)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cancel = nil
	if _, ok := err.(*x86.Trap); ok && m.stop != Paused {
		err = nil // the end of the guest is the end
	}
	return m.stop, errors.Join(err, m.broken)
}

// Flush waits until serial port i's writer has taken all that the guest has
// sent so far.
func (m *Machine) Flush(i int) { m.serial[i].out.flush() }

// Now is the machine's time in ns. Use it in a call of Do, or while the machine
// is not running.
func (m *Machine) Now() int64 { return m.clock.Now() }

// Retired is how many instructions the guest has executed, as far as the engine
// counts them: ok is false for KVM.
func (m *Machine) Retired() (n int64, ok bool) {
	e, ok := m.engine.(*soft.Engine)
	if !ok {
		return 0, false
	}
	return e.Retired(), true
}

// holdOutput says whether the guest waits for slow serial writers: not while it
// is to stop, since it must stop at once.
func (m *Machine) holdOutput(wait bool) {
	for _, s := range m.serial {
		s.out.hold(wait)
	}
}

// Boot is what a machine boots.
type Boot struct {
	Kernel      *boot.Kernel
	Initrd      *io.SectionReader // nil: none
	CommandLine string
	// Seed is what the kernel's random number generator starts from.
	Seed []byte
}

// Load puts a kernel into memory and the CPUs at its start, as firmware and
// boot loader would. The machine must be fresh.
func (m *Machine) Load(b Boot) error {
	entry, err := boot.Load(m.ram, b.Kernel, boot.Params{CommandLine: b.CommandLine, Initrd: b.Initrd,
		CPUs: m.cfg.CPUs, Seed: b.Seed, Platform: m.platform()})
	if err != nil {
		return err
	}
	if err := m.assignBARs(); err != nil {
		return err
	}
	s := x86.PowerOn(m.cfg.CPUs)
	c := &s.CPUs[0]
	c.LongMode(entry.CR3, 0)
	c.RIP, c.GPR[x86.RSI] = entry.RIP, entry.RSI
	c.GDT = x86.Table{Base: entry.GDT, Limit: entry.GDTLimit}
	return m.engine.SetState(s)
}

// platform tells the firmware tables where things are.
func (m *Machine) platform() boot.Platform {
	p := boot.Platform{
		LocalAPIC: chipset.LocalAPICBase,
		IOAPIC:    chipset.IOAPICBase,
		ECAM:      boot.Window{Base: chipset.ECAM, Size: chipset.ECAMSize},
		MMIO32:    boot.Window{Base: chipset.PCIWindow32, Size: chipset.PCIWindow32Size},
		MMIO64:    boot.Window{Base: chipset.PCIWindow64, Size: chipset.PCIWindow64Size},
		UARTs: []boot.Port{{Port: chipset.COM1Port, GSI: chipset.COM1IRQ},
			{Port: chipset.COM2Port, GSI: chipset.COM2IRQ}},
		RTC:          boot.Port{Port: chipset.CMOSPort, GSI: chipset.CMOSIRQ},
		RTCCentury:   chipset.CMOSCentury,
		SleepControl: chipset.SleepControlPort,
		SleepStatus:  chipset.SleepStatusPort,
		SleepType:    chipset.SleepTypePowerOff,
		Reset:        chipset.ResetPort,
		ResetValue:   chipset.ResetValue,
	}
	for _, d := range m.devices {
		if d.info.INTx {
			p.INTx[d.slot][0] = d.gsi()
		}
	}
	return p
}
