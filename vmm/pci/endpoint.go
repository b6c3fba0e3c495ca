package pci

import (
	"errors"
	"fmt"
	"math/bits"

	"fifovm/vmm/bus"
)

// Identity is what a function says of itself, and what it wants: the part of an
// Endpoint that never changes.
type Identity struct {
	Name                 string // for listings of the bus
	Vendor, Device       uint16
	SubVendor, SubDevice uint16
	Class                uint32 // 24 bits: base class, subclass, interface
	Revision             uint8
	BARs                 []BAR
	MSIX                 int // vectors; 0: no MSI-X
	MSIXBAR              int // index of the BAR that the Endpoint adds for them
	MSI                  int // vectors, a power of two up to 32; 0: no MSI
	INTx                 bool
}

// BAR is a base address register of a device.
type BAR struct {
	Index        int
	Size         uint64 // a power of two
	Port         bool
	Wide         bool // 64 bits, in two registers
	Prefetchable bool
}

// Backend is what an Endpoint stands in front of: the device on one side, the
// machine's interrupt controllers on the other.
type Backend interface {
	// ReadBAR and WriteBAR are accesses to the device's BARs, inside of them.
	ReadBAR(bar int, off uint64, data []byte)
	WriteBAR(bar int, off uint64, data []byte)
	// ResetDevice comes with a function-level reset, and with the one inside of
	// the way from D3hot to D0. The Endpoint is as after power-on already.
	ResetDevice()
	// SendMessage is an MSI: a write of data to address, wherever that is.
	SendMessage(address uint64, data uint32)
	// DriveLine is the interrupt pin, told when it changes. SetState, after which
	// the interrupt controllers know it already, does not call.
	DriveLine(level bool)
}

// Endpoint is a function of type 0: a root complex integrated endpoint of PCI
// Express, so that it has no link and needs no port. It has registers for BARs,
// power management, MSI and MSI-X, the interrupt pin and function-level reset,
// and has the device behind it see only what the guest has enabled:
//
//   - a BAR is on its bus while the command register says so and the function is
//     in D0 (see Decoder for BARs in each other's way);
//   - MSI and MSI-X are written only by a bus master. A message that is masked,
//     or comes while bus mastering is off, is pending, and is sent as soon as
//     neither holds it back. What is pending is dropped when the guest disables
//     MSI or MSI-X;
//   - the pin is driven while neither MSI nor MSI-X is enabled, and bit 10 of the
//     command register is clear.
//
// In D3hot the device lives on, but can't be heard: no messages, no pin.
type Endpoint struct {
	Config
	id      Identity
	backend Backend
	decoder *Decoder
	windows []*window
	powerOn []byte // the registers

	removed bool
	pin     bool // the device drives it
	line    bool // what DriveLine was told
	msi     struct{ pending uint32 }
	msix    msix
}

// Registers of the header beyond those of Config (PCI Local Bus 3.0, 6.1).
const (
	regCacheLine    = 0x0c
	regBAR          = 0x10 // six of them
	regCapabilities = 0x34 // pointer to the first one
	regLine         = 0x3c // which input the pin is wired to: a note of firmware's
	regPin          = 0x3d // 1: INTA#

	barCount = 6
)

// Bits of the command and status registers (PCI Local Bus 3.0, 6.2.2 and 6.2.3).
const (
	commandIO          = 1 << 0
	commandParity      = 1 << 6
	commandSERR        = 1 << 8
	commandINTxDisable = 1 << 10

	statusINTx         = 1 << 3
	statusCapabilities = 1 << 4
	statusMasterAbort  = 1 << 13
	statusErrors       = 0xf900 // write 1 to clear
)

// Bits of a base address register (PCI Local Bus 3.0, 6.2.5.1).
const (
	barPort         = 1 << 0
	barWide         = 2 << 1
	barPrefetchable = 1 << 3
	barPortFlags    = 0x3
	barMemoryFlags  = 0xf

	minMemoryBAR   = 16
	minPortBAR     = 4
	maxPortBAR     = 256
	maxMemoryBAR32 = 1 << 31
)

// NewEndpoint makes a function as after power-on, its BARs without addresses.
// They appear on the decoder's buses.
func NewEndpoint(id Identity, d *Decoder, b Backend) (*Endpoint, error) {
	e := &Endpoint{id: id, backend: b, decoder: d}
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("pci: %s: %w", id.Name, err)
	}
	e.header()
	next := regCapabilities
	for _, add := range []func(pointer int) int{e.addPower, e.addMSI, e.addMSIX, e.addExpress} {
		next = add(next)
	}
	e.powerOn = e.Config.State()
	e.msix.reset()
	d.add(e)
	return e, nil
}

// check refuses what can't be said in registers.
func (e *Endpoint) check() error {
	id := &e.id
	switch {
	case id.Vendor == 0xffff:
		return errors.New("vendor ID 0xffff means that there is no function")
	case id.Class >= 1<<24:
		return fmt.Errorf("class %#x has more than 24 bits", id.Class)
	case id.MSIX < 0 || id.MSIX > maxMSIX:
		return fmt.Errorf("%d MSI-X vectors: want up to %d", id.MSIX, maxMSIX)
	case id.MSI < 0 || id.MSI > maxMSI || id.MSI&(id.MSI-1) != 0:
		return fmt.Errorf("%d MSI vectors: want a power of two up to %d", id.MSI, maxMSI)
	}
	bars := id.BARs
	if id.MSIX > 0 {
		bars = append(bars[:len(bars):len(bars)], BAR{Index: id.MSIXBAR, Size: tableBARSize(id.MSIX)})
	}
	var taken [barCount]bool
	for i, b := range bars {
		w := &window{endpoint: e, bar: b, table: i == len(id.BARs)}
		registers := 1
		if b.Wide {
			registers = 2
		}
		if b.Index < 0 || b.Index+registers > barCount {
			return fmt.Errorf("BAR %d: a header has registers 0 to %d", b.Index, barCount-1)
		}
		for n := b.Index; n < b.Index+registers; n++ {
			if taken[n] {
				return fmt.Errorf("BAR %d: another one has its register %d", b.Index, n)
			}
			taken[n] = true
		}
		if err := b.check(); err != nil {
			return fmt.Errorf("BAR %d: %w", b.Index, err)
		}
		e.windows = append(e.windows, w)
	}
	return nil
}

func (b *BAR) check() error {
	low, high := uint64(minMemoryBAR), uint64(maxMemoryBAR32)
	switch {
	case b.Port:
		low, high = minPortBAR, maxPortBAR
	case b.Wide:
		high = 1 << 62
	}
	switch {
	case bits.OnesCount64(b.Size) != 1 || b.Size < low || b.Size > high:
		return fmt.Errorf("%#x bytes: want a power of two from %#x to %#x", b.Size, low, high)
	case b.Port && (b.Wide || b.Prefetchable):
		return errors.New("ports have neither 64-bit addresses nor prefetching")
	}
	return nil
}

// header makes the registers below the capabilities.
func (e *Endpoint) header() {
	id, c := &e.id, &e.Config
	c.Set(RegVendorID, 2, uint64(id.Vendor))
	c.Set(RegDeviceID, 2, uint64(id.Device))
	c.Set(RegSubVendorID, 2, uint64(id.SubVendor))
	c.Set(RegSubDeviceID, 2, uint64(id.SubDevice))
	c.Set(RegRevision, 1, uint64(id.Revision))
	c.Set(RegClass, 3, uint64(id.Class))
	c.Set(RegStatus, 2, statusCapabilities)
	c.Allow(RegStatus, 2, 0, statusErrors)
	c.Allow(regCacheLine, 1, 0xff, 0) // does nothing in PCI Express
	if id.INTx {
		c.Set(regPin, 1, 1)
		c.Allow(regLine, 1, 0xff, 0)
	}
	command := uint64(CommandMaster | commandParity | commandSERR | commandINTxDisable)
	for _, w := range e.windows {
		b := &w.bar
		switch reg := regBAR + 4*b.Index; {
		case b.Port:
			command |= commandIO
			c.Set(reg, 4, barPort)
			c.Allow(reg, 4, ^(b.Size-1)&^barPortFlags, 0)
		default:
			command |= CommandMemory
			flags, n := uint64(0), 4
			if b.Wide {
				flags, n = barWide, 8
			}
			if b.Prefetchable {
				flags |= barPrefetchable
			}
			c.Set(reg, n, flags)
			c.Allow(reg, n, ^(b.Size-1)&^barMemoryFlags, 0)
		}
	}
	c.Allow(RegCommand, 2, command, 0)
}

// addCapability links a capability of n bytes at off to the list, whose last
// pointer is at pointer, and gives where the next one's is to be.
func (e *Endpoint) addCapability(pointer, off int, id uint8) int {
	e.Set(pointer, 1, uint64(off))
	e.Set(off, 1, uint64(id))
	return off + 1
}

// ReadConfig answers the guest.
func (e *Endpoint) ReadConfig(off, width int) uint32 {
	ones := ^uint32(0) >> (32 - 8*width)
	if e.removed {
		return ones
	}
	v := uint32(0) // what is not in the registers
	switch off &^ 3 {
	case RegCommand:
		if e.pinCounts() {
			v = statusINTx << 16
		}
	case capMSI + msiPending:
		v = e.msi.pending
	}
	return e.Config.ReadConfig(off, width) | v>>(8*(off&3))&ones
}

// WriteConfig takes what the guest can write of v.
func (e *Endpoint) WriteConfig(off, width int, v uint32) {
	if e.removed {
		return
	}
	power := e.power()
	e.Config.WriteConfig(off, width, v)
	if e.resets(off, v) || power == powerD3 && e.power() == powerD0 {
		e.Reset()
		e.backend.ResetDevice()
		return
	}
	if s := e.power(); s != powerD0 && s != powerD3 {
		// "the data is discarded and no state change occurs"
		// (PCI Power Management 1.2, 3.2.4)
		e.setPower(power)
	}
	e.settle()
}

// settle has everything follow the registers: the BARs, the pin, the messages.
func (e *Endpoint) settle() {
	e.decoder.follow(e)
	e.settleLine()
	e.settleMSI()
	e.settleMSIX()
}

// Reset puts the registers into their state after power-on: the BARs have no
// addresses, nothing is enabled, nothing pending.
func (e *Endpoint) Reset() {
	copy(e.bytes[:], e.powerOn)
	e.pin, e.msi.pending = false, 0
	e.msix.reset()
	e.settle()
}

// Remove takes the function off the bus in the midst of whatever it does: its
// registers read as all ones, its BARs are gone, its pin is released.
func (e *Endpoint) Remove() {
	e.removed = true
	e.settle()
}

// Plug puts it back as after power-on.
func (e *Endpoint) Plug() {
	e.removed = false
	e.Reset()
}

// Removed tells whether the function is off the bus.
func (e *Endpoint) Removed() bool { return e.removed }

// Master tells whether the device may access memory.
func (e *Endpoint) Master() bool { return e.alive() && e.command()&CommandMaster != 0 }

// MasterAborted notes that a read of the device's was answered by nobody: bit 13
// of the status register.
func (e *Endpoint) MasterAborted() {
	e.Set(RegStatus, 2, e.Get(RegStatus, 2)|statusMasterAbort)
}

// SetPin is the device's wish for the interrupt pin, if it has one.
func (e *Endpoint) SetPin(asserted bool) {
	e.pin = asserted && e.id.INTx
	e.settleLine()
}

// Line tells whether the pin is driven.
func (e *Endpoint) Line() bool { return e.line }

// Message tells whether the guest has enabled MSI or MSI-X.
func (e *Endpoint) Message() bool { return e.msiEnabled() || e.msixEnabled() }

// Raise sends the message of a vector; where there are fewer, as MSI permits, the
// vectors share them. A function in D3hot, or without MSI and MSI-X enabled,
// sends none.
func (e *Endpoint) Raise(vector int) {
	switch {
	case !e.alive() || vector < 0:
	case e.msixEnabled():
		e.raiseMSIX(vector)
	case e.msiEnabled():
		e.raiseMSI(vector)
	}
}

// alive tells whether the function is there and in D0.
func (e *Endpoint) alive() bool { return !e.removed && e.power() == powerD0 }

func (e *Endpoint) command() uint64 { return e.Get(RegCommand, 2) }

// pinCounts is the interrupt status bit: the pin would be driven but for the
// disable bit.
func (e *Endpoint) pinCounts() bool { return e.pin && e.alive() && !e.Message() }

func (e *Endpoint) settleLine() {
	if e.drives() != e.line {
		e.line = !e.line
		e.backend.DriveLine(e.line)
	}
}

func (e *Endpoint) drives() bool { return e.pinCounts() && e.command()&commandINTxDisable == 0 }

// EndpointState is the state of an Endpoint.
type EndpointState struct {
	Config  []byte
	Removed bool
	Pin     bool   // the device drives it
	Pending uint32 // MSI
	MSIX    MSIXState
}

// State gives the state.
func (e *Endpoint) State() EndpointState {
	return EndpointState{Config: e.Config.State(), Removed: e.removed, Pin: e.pin, Pending: e.msi.pending, MSIX: e.msix.state()}
}

// SetState replaces the state. After an error the endpoint is good for nothing
// but another SetState.
func (e *Endpoint) SetState(s EndpointState) error {
	if err := e.Config.SetState(s.Config); err != nil {
		return fmt.Errorf("%w (%s)", err, e.id.Name)
	}
	switch p := e.power(); {
	case p != powerD0 && p != powerD3:
		return fmt.Errorf("pci: %s: state is in D%d, which the function does not have", e.id.Name, p)
	case uint64(s.Pending)>>e.id.MSI != 0:
		return fmt.Errorf("pci: %s: state has MSI vectors %#x pending, there are %d", e.id.Name, s.Pending, e.id.MSI)
	case s.Pin && !e.id.INTx:
		return fmt.Errorf("pci: %s: state drives an interrupt pin that there is not", e.id.Name)
	}
	if err := e.msix.setState(s.MSIX); err != nil {
		return fmt.Errorf("pci: %s: %w", e.id.Name, err)
	}
	e.removed, e.pin, e.msi.pending = s.Removed, s.Pin, s.Pending
	e.line = e.drives() // where the controllers' state has it
	e.decoder.follow(e)
	return nil
}

// window is a BAR on a bus.
type window struct {
	endpoint *Endpoint
	bar      BAR
	table    bool // MSI-X's, which the Endpoint answers itself
	decodes  bool
	base     uint64     // what the registers say
	space    *bus.Space // where it is mapped; nil: nowhere
	at       uint64     // and at which address
}

// Read answers the guest.
func (w *window) Read(off uint64, data []byte) {
	if w.table {
		w.endpoint.msix.read(off, data)
		return
	}
	w.endpoint.backend.ReadBAR(w.bar.Index, off, data)
}

// Write takes the guest's bytes.
func (w *window) Write(off uint64, data []byte) {
	if w.table {
		w.endpoint.msix.write(off, data)
		w.endpoint.settleMSIX()
		return
	}
	w.endpoint.backend.WriteBAR(w.bar.Index, off, data)
}

// registers gives what the registers say: where the BAR is, and whether it is
// there.
func (w *window) registers() (base uint64, decodes bool) {
	e, reg, n := w.endpoint, regBAR+4*w.bar.Index, 4
	if w.bar.Wide {
		n = 8
	}
	enable := uint64(CommandMemory)
	if w.bar.Port {
		enable = commandIO
	}
	return e.Get(reg, n) &^ (w.bar.Size - 1), e.alive() && e.command()&enable != 0
}
