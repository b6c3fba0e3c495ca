package chipset

import (
	"encoding/binary"
	"fmt"

	"fifovm/vmm/x86"
)

// The I/O APIC's two registers in memory, and those behind them (82093AA data
// sheet, section 3).
const (
	ioapicSelect = 0x00 // IOREGSEL
	ioapicWindow = 0x10 // IOWIN

	ioapicID          = 0x00
	ioapicVersion     = 0x01
	ioapicArbitration = 0x02
	ioapicRedirection = 0x10 // two for each input, the low half first

	ioapicIDBits       = 0xf
	ioapicIDShift      = 24
	ioapicVersionValue = (IOAPICInputs-1)<<16 | 0x11
)

// Bits of a redirection entry (82093AA data sheet, 3.2.4).
const (
	redirModeShift   = 8
	redirLogical     = 1 << 11
	redirRemoteIRR   = 1 << 14
	redirLevel       = 1 << 15
	redirMasked      = 1 << 16
	redirDestShift   = 56
	redirWritable    = 0xff<<redirDestShift | 0x1_afff // all but the next
	redirReadOnly    = redirRemoteIRR                  // delivery status, bit 12, is always zero: nothing is ever on its way
	redirImplemented = redirWritable | redirReadOnly
)

// IOAPIC is an 82093AA: 24 inputs, each with a redirection entry that says which
// message it sends.
//
// As in KVM, whose state it shares, a line that is up is active whatever the
// entry's polarity says, and an edge that comes while the entry is masked is
// remembered as long as the line stays up, but not sent when the mask goes: only
// an entry that is or becomes level-triggered sends it. An edge that was sent is
// forgotten, so that State is all there is: raising a line twice without
// lowering it is two edges. An interrupt of another kind than fixed and lowest
// priority is an edge even where the entry says level (data sheet, 3.2.4), as
// nobody ends it.
type IOAPIC struct {
	apics *APICs
	s     x86.IOAPIC
}

func newIOAPIC(a *APICs) *IOAPIC { return &IOAPIC{apics: a, s: x86.PowerOn(0).IOAPIC} }

// State gives the state. IRR has the level lines that are up and the edges that
// were not sent.
func (c *IOAPIC) State() x86.IOAPIC { return c.s }

// SetState replaces the state. It sends nothing.
func (c *IOAPIC) SetState(s x86.IOAPIC) error {
	if s.ID&^ioapicIDBits != 0 || s.Select > 0xff || s.IRR>>IOAPICInputs != 0 {
		return fmt.Errorf("chipset: I/O APIC: state has ID %#x, register %#x or inputs %#x that an 82093AA does not have", s.ID, s.Select, s.IRR)
	}
	for i := range s.Redirection {
		e := &s.Redirection[i]
		*e &= redirImplemented // KVM keeps what a guest writes elsewhere
		if edge(*e) {
			*e &^= redirRemoteIRR
		}
	}
	c.s = s
	return nil
}

// Read answers the guest. Registers are 32 bits wide; a narrower access gets the
// low part, a wider one zeros above, and nothing lies between the registers.
func (c *IOAPIC) Read(off uint64, data []byte) {
	var b [4]byte
	switch off {
	case ioapicSelect:
		binary.LittleEndian.PutUint32(b[:], c.s.Select)
	case ioapicWindow:
		binary.LittleEndian.PutUint32(b[:], c.readRegister())
	}
	clear(data)
	copy(data, b[:])
}

// Write takes the guest's bytes: those that are missing count as zero, those
// above 32 bits are lost.
func (c *IOAPIC) Write(off uint64, data []byte) {
	var b [4]byte
	copy(b[:], data)
	v := binary.LittleEndian.Uint32(b[:])
	switch off {
	case ioapicSelect:
		c.s.Select = v & 0xff
	case ioapicWindow:
		c.writeRegister(v)
	}
}

func (c *IOAPIC) readRegister() uint32 {
	switch n := c.s.Select; {
	case n == ioapicID, n == ioapicArbitration:
		return c.s.ID << ioapicIDShift
	case n == ioapicVersion:
		return ioapicVersionValue
	case n >= ioapicRedirection && n < ioapicRedirection+2*IOAPICInputs:
		return uint32(c.s.Redirection[(n-ioapicRedirection)/2] >> (n % 2 * 32))
	}
	return 0xffff_ffff
}

func (c *IOAPIC) writeRegister(v uint32) {
	n := c.s.Select
	if n == ioapicID {
		c.s.ID = v >> ioapicIDShift & ioapicIDBits
		return
	}
	if n < ioapicRedirection || n >= ioapicRedirection+2*IOAPICInputs {
		return
	}
	i, shift := (n-ioapicRedirection)/2, n%2*32
	e := &c.s.Redirection[i]
	half := uint64(0xffff_ffff) << shift & redirWritable
	*e = *e&^half | uint64(v)<<shift&half
	if edge(*e) {
		// Linux ends a level interrupt so where there is no EOI register
		// (arch/x86/kernel/apic/io_apic.c, __eoi_ioapic_pin).
		*e &^= redirRemoteIRR
		return
	}
	c.service(i)
}

// edge tells whether the entry's interrupt ends when it is sent.
func edge(e uint64) bool {
	mode := e >> redirModeShift & 7
	return e&redirLevel == 0 || mode != deliverFixed && mode != deliverLowest
}

// SetIRQ drives an input. An error is a mistake of the caller: an input that
// there is not.
func (c *IOAPIC) SetIRQ(gsi uint32, level bool) error {
	if gsi >= IOAPICInputs {
		return fmt.Errorf("chipset: the I/O APIC has no input %d", gsi)
	}
	bit := uint32(1) << gsi
	switch {
	case !level:
		c.s.IRR &^= bit
	case edge(c.s.Redirection[gsi]) && c.s.IRR&bit != 0:
		// The line has been up since an edge that was masked.
	default:
		c.s.IRR |= bit
		c.service(gsi)
	}
	return nil
}

// EOI is a local APIC's word that a level interrupt is over. A line that is
// still up sends its message again.
func (c *IOAPIC) EOI(vector uint8) {
	for i := range c.s.Redirection {
		e := &c.s.Redirection[i]
		if uint8(*e) == vector && !edge(*e) {
			*e &^= redirRemoteIRR
			c.service(uint32(i))
		}
	}
}

// service sends the message of input i if there is reason to.
func (c *IOAPIC) service(i uint32) {
	e := &c.s.Redirection[i]
	bit := uint32(1) << i
	if c.s.IRR&bit == 0 || *e&(redirMasked|redirRemoteIRR) != 0 {
		return
	}
	m := message{
		destination: destination8(uint8(*e >> redirDestShift)),
		logical:     *e&redirLogical != 0,
		mode:        uint8(*e>>redirModeShift) & 7,
		vector:      uint8(*e),
		level:       !edge(*e),
	}
	if !m.level {
		c.s.IRR &^= bit
	}
	if m.mode == deliverStartup {
		return // reserved here
	}
	if c.apics.deliver(m) && m.level {
		*e |= redirRemoteIRR
	}
}
