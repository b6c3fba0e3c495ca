package soft

import (
	"fifovm/vmm/chipset"
	"fifovm/vmm/x86"
)

// Slots of cpu.r behind the 16 general registers, so that every part of an
// address is a slot.
const (
	slotRIP  = 16 // between blocks RIP; within one, the address of its start
	slotZero = 17 // always 0
	slotES   = 18 // bases of the segments, in the order of x86.ES and on
	slotCS   = slotES + x86.CS
	slotSS   = slotES + x86.SS
	slotDS   = slotES + x86.DS
	slotFS   = slotES + x86.FS
	slotGS   = slotES + x86.GS
)

// cpu is one CPU.
type cpu struct {
	r [32]uint64 // the general registers, and the slots above; a power of two, so that an index needs no check

	// The flags: see flags.go.
	fRes, fB uint64
	fKind    flagKind
	flags    uint64

	i       int    // index in block.ops of the instruction that is executed; 0 between blocks
	jumped  bool   // the block's last instruction has set RIP
	entered bool   // a software interrupt was executed
	yield   bool   // the CPU gives up the rest of its turn
	taken   uint8  // which of the block's links the last instruction followed
	now     int64  // time in ns at the start of the block
	limit   int64  // the time at which run returns
	block   *block // what is executed

	rd, wr *tlb      // for the present privilege, of tlbs
	gens   [2]uint64 // what a link must have been made under, by the top bit of its target

	cpl     uint8
	aligned bool // alignment is checked
	mode    mode
	irq     bool // the local APIC has an interrupt to offer

	engine *Engine
	index  int
	apic   *chipset.LocalAPIC

	xmm   [16]xmm
	mxcsr uint32
	fpu   x87

	seg                [6]x86.Segment // Base is in r, and here only in a state
	tr, ldt            x86.Segment
	gdt, idt           x86.Table
	cr0, cr2, cr3, cr4 uint64
	efer               uint64
	dr                 [4]uint64
	dr6, dr7           uint64

	star, lstar, cstar, sfmask, kernelGSBase uint64
	sysenterCS, sysenterESP, sysenterEIP     uint64
	tscAux, tscAdjust                        uint64
	tscOffset                                uint64 // the time-stamp counter is the time plus this
	pat, miscEnable                          uint64
	mtrr                                     mtrrs

	activity              x86.Activity
	shadow                x86.Shadow
	nmiPending, nmiMasked bool
	initPending           bool // the CPU has sent INIT to itself
	stops                 stops

	access  [8]byte // of the guest to a device: here it needs no allocation
	fault   fault   // that was thrown
	tlbs    [tlbModes]tlbPair
	execTLB [2]tlb            // of code, at CPL 0 to 2 and at CPL 3
	walked  tlbFlags          // properties of the last translation
	jumps   [jumpEntries]link // blocks by address
	fetched fetchedPages
}

// xmm is an XMM register: its low and its high half.
type xmm struct{ lo, hi uint64 }
