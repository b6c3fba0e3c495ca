package x86

import (
	"encoding/binary"
	"fmt"
)

// State is everything that an engine knows of the guest: its CPUs and the
// interrupt controllers. RAM, the clock's events and the devices are not in it.
type State struct {
	CPUs   []CPU
	IOAPIC IOAPIC
	// PIC are the master and the slave 8259 that KVM keeps whether they are
	// used or not. No line of this machine reaches them; they are here so that
	// a guest that wrote to them finds the same bytes after a restore.
	PIC [2]PIC
	// Turn is where the soft engine's schedule is. KVM has none: it is zero.
	Turn Turn
}

// Turn is a moment in the schedule of CPUs that take turns.
type Turn struct {
	CPU    int    // whose turn it is
	Until  int64  // when it ends, in ns
	Random []byte // state of the generator that the turns' lengths come from
}

// CPU is the whole state of one CPU.
type CPU struct {
	GPR           [16]uint64 // by encoding: see RAX and its neighbours
	RIP, RFLAGS   uint64
	Seg           [6]Segment // by encoding: see ES and its neighbours
	TR, LDT       Segment
	GDT, IDT      Table
	CR0, CR2, CR3 uint64
	CR4, CR8      uint64
	XCR0          uint64
	EFER          uint64
	APICBase      uint64    // IA32_APIC_BASE
	DR            [4]uint64 // DR0 to DR3
	DR6, DR7      uint64
	FPU           [512]byte // x87, MMX, SSE and MXCSR as FXSAVE64 stores them
	MSRs          []MSR     // those of StateMSRs that the engine has, in that order
	LAPIC         [1024]byte
	Activity      Activity
	SIPIVector    uint8 // of a start-up IPI that waits to be acted upon
	Exception     Event // an exception whose delivery has begun
	Interrupt     Event // an interrupt whose delivery has begun
	NMIInjected   bool
	NMIPending    bool
	NMIMasked     bool
	// Shadow says why interrupts are held off for one instruction.
	Shadow Shadow
}

// Segment is a segment register with its hidden part (SDM volume 3, 3.4.3).
type Segment struct {
	Selector        uint16
	Base            uint64
	Limit           uint32 // in bytes, granularity already applied
	Type, S, DPL, P uint8
	AVL, L, DB, G   uint8
	Unusable        bool
}

// Table is GDTR or IDTR.
type Table struct {
	Base  uint64
	Limit uint16
}

// MSR is a model-specific register and its value.
type MSR struct {
	Index uint32
	Value uint64
}

// Activity is what a CPU is doing (SDM volume 3, 8.4 and 24.4.2).
type Activity uint8

// The activities of a CPU.
const (
	Running    Activity = iota
	WaitINIT            // out of reset, not yet started (a further CPU at power-on)
	WaitSIPI            // got INIT, waits for the start-up IPI
	Halted              // HLT, waits for an interrupt
	StartsSIPI          // got the start-up IPI, about to begin
)

// Event is an exception or interrupt whose delivery has begun but not ended.
type Event struct {
	Valid     bool
	Vector    uint8
	Soft      bool // INT n
	HasCode   bool
	ErrorCode uint32
}

// Shadow is a set of reasons why interrupts wait for one instruction.
type Shadow uint8

// The reasons: MOV or POP to SS, STI (SDM volume 3, 6.8.3).
const (
	ShadowMovSS Shadow = 1 << iota
	ShadowSTI
)

// IOAPIC is the state of the I/O APIC (82093AA data sheet, section 3).
type IOAPIC struct {
	ID          uint32
	Select      uint32 // IOREGSEL
	IRR         uint32 // pending inputs
	Redirection [24]uint64
}

// PIC is the state of one 8259 interrupt controller.
type PIC struct {
	LastIRR, IRR, IMR, ISR                           uint8
	PriorityAdd, IRQBase, ReadRegSelect, Poll        uint8
	SpecialMask, InitState, AutoEOI, RotateOnAutoEOI uint8
	SpecialFullyNestedMode, Init4, ELCR, ELCRMask    uint8
}

// String shows the registers as a crash report wants them.
func (c *CPU) String() string {
	s := fmt.Sprintf("rip %016x rflags %08x cpl %d cr0 %08x cr2 %016x cr3 %x cr4 %x efer %x\n",
		c.RIP, c.RFLAGS, c.Seg[SS].DPL, c.CR0, c.CR2, c.CR3, c.CR4, c.EFER)
	for i, v := range c.GPR {
		s += fmt.Sprintf("%-3s %016x", GPRNames[i], v)
		if i%4 == 3 {
			s += "\n"
		} else {
			s += "  "
		}
	}
	s += fmt.Sprintf("cs %04x ss %04x ds %04x es %04x fs %04x:%x gs %04x:%x", c.Seg[CS].Selector, c.Seg[SS].Selector,
		c.Seg[DS].Selector, c.Seg[ES].Selector, c.Seg[FS].Selector, c.Seg[FS].Base, c.Seg[GS].Selector, c.Seg[GS].Base)
	return s
}

// Reset is a CPU as power-on or INIT leaves it (SDM volume 3, table 9-1), with
// index its APIC ID. CPU 0 is the bootstrap processor; the others wait to be
// started.
func Reset(index int) CPU {
	c := CPU{
		RIP:      0xfff0,
		RFLAGS:   FlagReserved,
		CR0:      CR0CD | CR0NW | CR0ET,
		XCR0:     1,
		GDT:      Table{Limit: 0xffff},
		IDT:      Table{Limit: 0xffff},
		TR:       Segment{Limit: 0xffff, Type: TypeBusyTSS, P: 1},
		LDT:      Segment{Limit: 0xffff, Type: TypeLDT, P: 1},
		DR6:      0xffff0ff0,
		DR7:      0x400,
		APICBase: apicBaseDefault | apicBaseEnable,
		Activity: WaitINIT,
	}
	c.GPR[RDX] = Signature
	for i := range c.Seg {
		c.Seg[i] = Segment{Limit: 0xffff, Type: TypeData, S: 1, P: 1}
	}
	c.Seg[CS] = Segment{Selector: 0xf000, Base: 0xffff0000, Limit: 0xffff, Type: TypeCode, S: 1, P: 1}
	c.FPU[0], c.FPU[1] = 0x40, 0x00   // FCW
	c.FPU[24], c.FPU[25] = 0x80, 0x1f // MXCSR
	c.MSRs = BootMSRs()
	// The local APIC (SDM volume 3, 11.4.7.1): disabled by software, all local
	// interrupts masked, every register at a multiple of 16 bytes.
	apic := func(offset int, v uint32) { binary.LittleEndian.PutUint32(c.LAPIC[offset:], v) }
	apic(0x20, uint32(index)<<24)
	apic(0x30, 5<<16|0x14) // six local vectors, integrated APIC
	apic(0xe0, 0xffff_ffff)
	apic(0xf0, 0xff)
	for offset := 0x320; offset <= 0x370; offset += 0x10 {
		apic(offset, lvtMasked)
	}
	if index == 0 {
		c.APICBase |= apicBaseBSP
		c.Activity = Running
	}
	return c
}

// PowerOn is the state of a machine of cpus CPUs at power-on.
func PowerOn(cpus int) *State {
	s := &State{}
	for i := range cpus {
		s.CPUs = append(s.CPUs, Reset(i))
	}
	for i := range s.IOAPIC.Redirection {
		s.IOAPIC.Redirection[i] = lvtMasked
	}
	return s
}

const (
	lvtMasked       = 1 << 16 // of a local vector and of a redirection entry
	apicBaseDefault = 0xfee00000
	apicBaseBSP     = 1 << 8
	apicBaseEnable  = 1 << 11
)

// Selectors of the flat descriptor table that LongMode assumes: those of the
// 64-bit boot protocol (Documentation/arch/x86/boot.rst), and user segments
// after them.
const (
	SelectorCode     = 0x10
	SelectorData     = 0x18
	SelectorUserData = 0x20 | 3
	SelectorUserCode = 0x28 | 3
)

// LongMode puts the CPU in 64-bit mode at cpl 0 or 3 with flat segments, paging
// by the tables at guest-physical address cr3, interrupts off and the FPU ready.
func (c *CPU) LongMode(cr3 uint64, cpl uint8) {
	code, data := uint16(SelectorCode), uint16(SelectorData)
	if cpl == 3 {
		code, data = SelectorUserCode, SelectorUserData
	}
	c.CR0 = CR0PE | CR0MP | CR0ET | CR0NE | CR0WP | CR0PG
	c.CR3 = cr3
	c.CR4 = CR4PAE | CR4OSFXSR | CR4OSXMMEXCPT
	c.EFER = EFERSCE | EFERLME | EFERLMA | EFERNXE
	c.RFLAGS = FlagReserved
	for i := range c.Seg {
		c.Seg[i] = Segment{Selector: data, Limit: 0xffff_ffff, Type: TypeData, S: 1, DPL: cpl, P: 1, DB: 1, G: 1}
	}
	c.Seg[CS] = Segment{Selector: code, Limit: 0xffff_ffff, Type: TypeCode, S: 1, DPL: cpl, P: 1, L: 1, G: 1}
	c.TR = Segment{Limit: 0x67, Type: TypeBusyTSS, P: 1}
	c.LDT = Segment{Unusable: true, Type: TypeLDT}
	c.Activity = Running
}
