// Package x86 holds the facts of the architecture that both engines share: the
// state of a CPU as plain data, register bits, model-specific registers and the
// CPUID table that every guest sees.
//
// It runs nothing. Section numbers are those of Intel's Software Developer's
// Manual (SDM), order number 325462.
package x86

// Bits of CR0 (SDM volume 3, 2.5).
const (
	CR0PE = 1 << 0  // protected mode
	CR0MP = 1 << 1  // monitor coprocessor
	CR0EM = 1 << 2  // no x87: its instructions fault
	CR0TS = 1 << 3  // task switched: the FPU's instructions fault
	CR0ET = 1 << 4  // always one
	CR0NE = 1 << 5  // x87 errors as #MF
	CR0WP = 1 << 16 // read-only pages bind CPL 0 too
	CR0AM = 1 << 18 // alignment checks allowed
	CR0NW = 1 << 29 // not write-through
	CR0CD = 1 << 30 // cache disable
	CR0PG = 1 << 31 // paging
)

// Bits of CR4 (SDM volume 3, 2.5).
const (
	CR4TSD        = 1 << 2 // RDTSC at CPL 0 only
	CR4DE         = 1 << 3
	CR4PSE        = 1 << 4
	CR4PAE        = 1 << 5
	CR4PGE        = 1 << 7
	CR4OSFXSR     = 1 << 9
	CR4OSXMMEXCPT = 1 << 10
	CR4FSGSBASE   = 1 << 16
	CR4SMEP       = 1 << 20
	CR4SMAP       = 1 << 21
)

// Bits of the EFER register (SDM volume 3, 2.2.1).
const (
	EFERSCE = 1 << 0  // SYSCALL enabled
	EFERLME = 1 << 8  // long mode enabled
	EFERLMA = 1 << 10 // long mode active
	EFERNXE = 1 << 11 // execute-disable enabled
)

// Bits of RFLAGS (SDM volume 1, 3.4.3).
const (
	FlagCF       = 1 << 0
	FlagReserved = 1 << 1 // always one
	FlagPF       = 1 << 2
	FlagAF       = 1 << 4
	FlagZF       = 1 << 6
	FlagSF       = 1 << 7
	FlagTF       = 1 << 8
	FlagIF       = 1 << 9
	FlagDF       = 1 << 10
	FlagOF       = 1 << 11
	FlagIOPL     = 3 << 12
	FlagNT       = 1 << 14
	FlagRF       = 1 << 16
	FlagVM       = 1 << 17
	FlagAC       = 1 << 18
	FlagVIF      = 1 << 19
	FlagVIP      = 1 << 20
	FlagID       = 1 << 21
)

// Bits of a page-table entry (SDM volume 3, 4.5).
const (
	PTEPresent  = 1 << 0
	PTEWrite    = 1 << 1
	PTEUser     = 1 << 2
	PTEAccessed = 1 << 5
	PTEDirty    = 1 << 6
	PTELarge    = 1 << 7
	PTEGlobal   = 1 << 8
	PTENX       = 1 << 63
	// PTEAddress masks the physical address of a 4 KiB page or a table.
	PTEAddress = 0x000f_ffff_ffff_f000
)

// Indices into CPU.GPR: the encoding of the registers in instructions (SDM
// volume 2, 2.1).
const (
	RAX = iota
	RCX
	RDX
	RBX
	RSP
	RBP
	RSI
	RDI
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
)

// Indices into CPU.Seg: the encoding of the segment registers (SDM volume 2,
// appendix B.1.4).
const (
	ES = iota
	CS
	SS
	DS
	FS
	GS
)

// Exceptions (SDM volume 3, table 6-1).
const (
	DE      = 0  // divide error
	DB      = 1  // debug
	NMI     = 2  // non-maskable interrupt
	BP      = 3  // breakpoint
	OF      = 4  // overflow
	BR      = 5  // BOUND
	UD      = 6  // invalid opcode
	NM      = 7  // no math coprocessor
	DF      = 8  // double fault
	TS      = 10 // invalid TSS
	NP      = 11 // segment not present
	SSFault = 12 // stack-segment fault
	GP      = 13 // general protection
	PF      = 14 // page fault
	MF      = 16 // x87 floating-point error
	AC      = 17 // alignment check
	MC      = 18 // machine check
	XM      = 19 // SIMD floating-point exception
)

// Bits of a page fault's error code (SDM volume 3, 4.7).
const (
	PFPresent  = 1 << 0 // the page was there: its rights forbid it
	PFWrite    = 1 << 1
	PFUser     = 1 << 2
	PFReserved = 1 << 3 // a reserved bit is set in an entry
	PFFetch    = 1 << 4
)

// Types of system and code segments (SDM volume 3, 3.4.5.1 and 3.5).
const (
	TypeData      = 0x3 // read, write, accessed
	TypeCode      = 0xb // execute, read, accessed
	TypeLDT       = 0x2
	TypeBusyTSS   = 0xb
	TypeBusyTSS16 = 0x3
)

// GPRNames are the names of CPU.GPR in order.
var GPRNames = [16]string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}
