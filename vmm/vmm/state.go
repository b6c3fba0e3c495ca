package vmm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"fifovm/device/fault"
	"fifovm/vmm/chipset"
	"fifovm/vmm/clock"
	"fifovm/vmm/pci"
	"fifovm/vmm/x86"
)

// State is the whole machine but for its RAM, as plain data.
type State struct {
	Now   int64 // the clock's time in ns
	Clock clock.State
	CPU   x86.State // the CPUs and the interrupt controllers
	UART  [2]chipset.UARTState
	// Waiting is input on its way to the UARTs: bytes, and breaks as 256.
	Waiting [2][]input
	// Converses are the serial ports of Converse, Held whether the guest stands
	// still for it.
	Converses [2]bool
	Held      bool

	CMOS    chipset.CMOSState
	Power   chipset.PowerState
	PCI     pci.State
	Bridge  []byte // configuration space of the host bridge
	Devices []DeviceState
	Plans   []fault.State // of faults that are armed
}

// State takes the state of a machine that is not running.
func (m *Machine) State() (*State, error) {
	// The lock keeps input out: a byte that came between a device's state and
	// the interrupt controllers' would be in one and not in the other.
	m.mu.Lock()
	defer m.mu.Unlock()
	cpu, err := m.engine.State()
	if err != nil {
		return nil, err
	}
	devices, err := m.deviceStates()
	if err != nil {
		return nil, err
	}
	return &State{
		Now:       m.clock.Now(),
		Clock:     m.clock.State(),
		CPU:       *cpu,
		UART:      [2]chipset.UARTState{m.serial[0].uart.State(), m.serial[1].uart.State()},
		Waiting:   [2][]input{m.serial[0].waitingState(), m.serial[1].waitingState()},
		Converses: [2]bool{m.serial[0].converses, m.serial[1].converses},
		Held:      m.held(),
		CMOS:      m.cmos.State(),
		Power:     m.power.State(),
		PCI:       m.pciRoot.State(),
		Bridge:    m.bridge.State(),
		Plans:     m.planStates(devices), // first: it completes devices
		Devices:   devices,
	}, nil
}

// SetState replaces the state of a machine that is not running. Its memory must
// be that of the machine that the state was taken from. After an error the
// machine is good for nothing but another SetState, or Close.
func (m *Machine) SetState(s *State) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.setState(s, m.engine.SetState)
}

func (m *Machine) setState(s *State, setCPUs func(*x86.State) error) error {
	if len(s.Devices) != len(m.devices) {
		return fmt.Errorf("vmm: state has %d devices, the machine %d", len(s.Devices), len(m.devices))
	}
	for i, d := range m.devices {
		if s.Devices[i].Name != d.name {
			return fmt.Errorf("vmm: device %s: state is that of device %q", d.name, s.Devices[i].Name)
		}
	}
	m.time.Set(s.Now)
	if err := m.setPlans(s.Plans, s.Devices); err != nil {
		return err
	}
	err := errors.Join(
		m.clock.SetState(m.ownEvents(s.Clock)),
		m.serial[0].uart.SetState(s.UART[0]),
		m.serial[1].uart.SetState(s.UART[1]),
		m.cmos.SetState(s.CMOS),
		m.power.SetState(s.Power),
		m.pciRoot.SetState(s.PCI),
		m.bridge.SetState(s.Bridge),
		m.setDeviceStates(s.Devices),
		setCPUs(&s.CPU),
	)
	for i, p := range m.serial {
		if !slices.ContainsFunc(s.Waiting[i], func(in input) bool { return in > inputBreak }) {
			p.waiting = slices.Clone(s.Waiting[i])
		} else {
			err = errors.Join(err, errors.New("vmm: state has input that is neither a byte nor a break"))
		}
		p.converses = s.Converses[i] && m.virtual() && !m.cfg.Paced
		p.room.Signal() // a UART that has become ready calls nobody
	}
	m.hold(s.Held && m.virtual() && !m.cfg.Paced)
	return err
}

// waitingState is nil where nothing waits, so that a state is always the same.
func (s *serialPort) waitingState() []input { return append([]input(nil), s.waiting...) }

// ownEvents leaves out the events that another engine's interrupt controllers
// have and this one's do not: KVM keeps its timers itself, from the registers.
func (m *Machine) ownEvents(s clock.State) clock.State {
	if m.cfg.Engine == EngineKVM {
		s.Events = slices.DeleteFunc(slices.Clone(s.Events), func(e clock.Event) bool { return chipset.IsLocalAPIC(e.Owner) })
	}
	return s
}

// Hash is a digest of the whole state, RAM included, of a machine that is not
// running: two machines in the same state have the same.
func (m *Machine) Hash() (string, error) {
	s, err := m.State()
	if err != nil {
		return "", err
	}
	// Of the events' numbers only the order counts: input that was there from the
	// start has others than what comes in when it is typed.
	s.Clock.Seq = uint64(len(s.Clock.Events))
	for i := range s.Clock.Events {
		s.Clock.Events[i].Seq = uint64(i)
	}
	h := sha256.New()
	// Nothing in a state is a map, so its text is the same each time.
	if err := json.NewEncoder(h).Encode(s); err != nil {
		return "", err
	}
	for _, slot := range m.ram.Slots() {
		h.Write(slot.Bytes)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Engine is the name of the machine's engine.
func (m *Machine) Engine() string { return m.cfg.Engine }

// CPUPolicy tells CPUs apart: those of two machines are alike, as far as a guest
// and its state can tell, if this is the same. It is the rate of the time-stamp
// counters, and a digest of what CPUID says and of which MSRs there are.
func (m *Machine) CPUPolicy() string {
	h := sha256.New()
	kHz := m.engine.TSCkHz()
	for i := range m.cfg.CPUs {
		fmt.Fprintln(h, x86.CPUID(i, m.cfg.CPUs, kHz))
	}
	fmt.Fprintln(h, x86.StateMSRs())
	return fmt.Sprintf("%d kHz, CPUs %.16x", kHz, h.Sum(nil))
}
