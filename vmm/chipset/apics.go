package chipset

import (
	"fmt"

	"fifovm/vmm/clock"
)

// CPU is the CPU behind a local APIC. The calls come in the access or the event
// that causes them.
type CPU interface {
	// Interrupt: LocalAPIC.Pending has something. It may be called again for
	// the same; the CPU looks at its next instruction boundary.
	Interrupt()
	NMI()
	// INIT is a request: a CPU that acts upon it calls LocalAPIC.INIT.
	INIT()
	// SIPI is the start-up IPI, also where the CPU does not wait for one.
	SIPI(vector uint8)
}

// APICs is the machine's interrupt controllers: one local APIC per CPU and the
// I/O APIC, and the messages between them.
type APICs struct {
	Local []*LocalAPIC // by APIC ID, which is the CPU's number
	IO    *IOAPIC
}

// NewAPICs gives the controllers at power-on. It registers the clock's owners
// "lapic0" and so on, one for each CPU.
func NewAPICs(clk *clock.Clock, cpus []CPU) *APICs {
	if len(cpus) > broadcast8 {
		panic(fmt.Sprintf("chipset: %d CPUs are more than an xAPIC's IDs", len(cpus)))
	}
	a := &APICs{}
	a.IO = newIOAPIC(a)
	for id, cpu := range cpus {
		l := newLocalAPIC(a, clk, cpu, id)
		clk.Register(l.name, l)
		a.Local = append(a.Local, l)
	}
	return a
}

// Delivery modes (SDM volume 3, 11.6.1 and 11.11.2; 82093AA data sheet, 3.2.4).
// System management (2), and external (7), which would ask an 8259 for the
// vector, reach nobody.
const (
	deliverFixed   = 0
	deliverLowest  = 1
	deliverNMI     = 4
	deliverINIT    = 5
	deliverStartup = 6 // IPIs only
)

// Destination shorthands of an IPI (SDM volume 3, 11.6.1).
const (
	toDestination = iota
	toSelf
	toAll
	toOthers
)

const (
	broadcast8  = 0xff        // a destination field of 8 bits that means all
	broadcastID = 0xffff_ffff // the same with the 32 bits of x2APIC mode
)

// message is an interrupt on its way from one controller to others.
type message struct {
	from        *LocalAPIC // of an IPI
	shorthand   uint8
	destination uint32 // as in x2APIC mode: all ones is the only broadcast
	logical     bool
	mode        uint8
	vector      uint8
	level       bool
	one         bool // only one of those whom it reaches gets it
}

// destination8 widens a destination of 8 bits.
func destination8(d uint8) uint32 {
	if d == broadcast8 {
		return broadcastID
	}
	return uint32(d)
}

// deliver hands m to all whom it reaches and tells whether any accepted it.
func (a *APICs) deliver(m message) bool {
	if m.one || m.mode == deliverLowest {
		l := a.lowest(&m)
		return l != nil && l.receive(&m)
	}
	accepted := false
	for _, l := range a.Local {
		if m.reaches(l) && l.receive(&m) {
			accepted = true
		}
	}
	return accepted
}

// lowest is who gets a message of lowest-priority delivery: of those whose
// processor priority is the lowest, the next from the CPU that the vector picks.
// Hardware passes the turn around (SDM volume 3, 11.6.2.4); the vector spreads
// devices over the CPUs as well, and needs no state.
func (a *APICs) lowest(m *message) *LocalAPIC {
	var best *LocalAPIC
	for i := range a.Local {
		l := a.Local[(int(m.vector)+i)%len(a.Local)]
		if m.reaches(l) && l.softwareEnabled() && (best == nil || l.class() < best.class()) {
			best = l
		}
	}
	return best
}

// reaches tells whether l is one of the destinations (SDM volume 3, 11.6.2).
func (m *message) reaches(l *LocalAPIC) bool {
	if l.base&baseEnable == 0 {
		return false
	}
	switch m.shorthand {
	case toSelf:
		return l == m.from
	case toAll:
		return true
	case toOthers:
		return l != m.from
	}
	switch {
	case m.destination == broadcastID:
		return true
	case m.logical:
		return l.inLogical(m.destination)
	}
	return m.destination == l.id
}

// A message-signalled interrupt in the compatible format (SDM volume 3, 11.11).
const (
	msiPrefix     = 0xfee // address bits 20 and up
	msiLogical    = 1 << 2
	msiOne        = 1 << 3 // redirection hint: to one of the destinations
	msiAssert     = 1 << 14
	msiLevel      = 1 << 15
	msiDestShift  = 12
	msiModeShift  = 8
	msiPrefixBits = 20
)

// SignalMSI delivers a message-signalled interrupt, as a write of data to
// address on the bus would. What the guest wrote into it is no error, whatever
// it says, as long as the address is the local APICs'.
func (a *APICs) SignalMSI(address uint64, data uint32) error {
	if address>>msiPrefixBits != msiPrefix {
		return fmt.Errorf("chipset: an MSI to %#x, where no local APIC is", address)
	}
	if data&msiLevel != 0 && data&msiAssert == 0 {
		return nil // the end of a level: nobody waits for it
	}
	m := message{
		destination: destination8(uint8(address >> msiDestShift)),
		logical:     address&msiLogical != 0,
		mode:        uint8(data>>msiModeShift) & 7,
		vector:      uint8(data),
		level:       data&msiLevel != 0,
		one:         address&msiOne != 0,
	}
	if m.mode != deliverStartup {
		a.deliver(m)
	}
	return nil
}
