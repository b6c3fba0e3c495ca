// Package difftest compares the soft CPU with a real processor, instruction by
// instruction.
//
// A generator (gen.go, with the instructions of table.go) makes random cases:
// one user-mode instruction with the registers and the memory that it starts
// from. A processor runs a case at CPL 3 and gives what came of it (guest.go
// does so on any engine: code at CPL 3 in a KVM guest is the host's processor
// itself). The comparer (compare.go) finds what differs between two processors
// in all that the manual defines.
//
//	go test ./vmm/difftest -run TestSoft
//	go test ./vmm/difftest -run TestSoft -difftest.seed 1 -difftest.case 4711
//
// are the whole test and one case of it, as its report names them. A report has
// a few examples of each form of an instruction that differs, and at its end how
// often each does.
//
// It tests no system instruction, no interrupt and no timing, and nothing that
// the CPUID table of package x86 does not offer. It leaves out what depends on
// the processor and not on the manual: BSF and BSR with REP (TZCNT and LZCNT
// where there are those), branches with an operand size prefix or to addresses
// that are not canonical, reading segment registers and descriptor tables, far
// transfers, INT n, RDTSC, CPUID. Sections are those of Intel's Software
// Developer's Manual (SDM).
package difftest

import "fifovm/vmm/x86"

// Where things are in the linear addresses of a case. The data pages are there
// twice, since an operand with a 32-bit address reaches only what is low.
const (
	pageSize = 4096

	codePage  = 0x3000_0000 // two pages, to execute and read; nothing is behind them
	codePages = 2

	lowData  = 0x2000_0000
	highData = 0x5a5a_a5a5_0000
	// From lowData and highData on; nothing is before and between.
	dataSize     = 2 * pageSize // to read and write
	readOnlyPage = 2 * pageSize
	supervisor   = 4 * pageSize // a page that CPL 3 may not touch
)

// registers are what CPL 3 sees of a CPU.
type registers struct {
	GPR            [16]uint64 // by encoding, as in x86.CPU
	RIP, RFLAGS    uint64
	FSBase, GSBase uint64
	FPU            fpu
}

// testCase is one instruction, and where it starts.
type testCase struct {
	seed   uint64
	number int
	form   *form
	code   []byte // at before.RIP
	before registers
	memory [dataSize]byte
	at     int // offset of the operand in memory, or -1
	ignore ignored
}

// ignored is what the manual leaves open in a case's results. The zero value
// ignores nothing.
type ignored struct {
	flags  uint64
	gpr    [16]uint64 // bits of the registers
	fsw    uint16
	memory []span
	// writeBit is that of a page fault's code on a page that is not present:
	// an instruction that reads and then writes may ask for either first.
	writeBit bool
	// parts says that a faulting access may have done some of its parts.
	parts bool
	// tolerance is how far apart the x87 registers may be, in units in the last
	// place.
	tolerance uint64
	// estimate says that XMM results are approximations (RCPPS and its like).
	estimate bool
}

// span is some of the data pages.
type span struct{ at, n int }

// result is what came of a case.
type result struct {
	registers
	vector uint8 // of the exception: vectorBP, of the INT3 behind the instruction, is the normal end
	code   uint32
	cr2    uint64
	memory [dataSize]byte
}

// Exception vectors (SDM volume 3, 6.3.1).
const (
	vectorDE = 0
	vectorDB = 1
	vectorBP = 3
	vectorUD = 6
	vectorDF = 8
	vectorTS = 10
	vectorNP = 11
	vectorSS = 12
	vectorGP = 13
	vectorPF = 14
	vectorMF = 16
	vectorAC = 17
	vectorXM = 19
	vectors  = 32
)

var vectorNames = map[uint8]string{vectorDE: "#DE", vectorDB: "#DB", vectorBP: "#BP", vectorUD: "#UD", vectorDF: "#DF",
	vectorTS: "#TS", vectorNP: "#NP", vectorSS: "#SS", vectorGP: "#GP", vectorPF: "#PF", vectorMF: "#MF", vectorAC: "#AC", vectorXM: "#XM"}

// hasCode says whether the processor pushes an error code with an exception.
func hasCode(vector uint8) bool {
	switch vector {
	case vectorDF, vectorTS, vectorNP, vectorSS, vectorGP, vectorPF, vectorAC:
		return true
	}
	return false
}

// processor runs cases.
type processor interface {
	run(c *testCase, r *result) error
}

// Bits of RFLAGS (SDM volume 1, 3.4.3).
const (
	flagCF = 1 << 0
	flagPF = 1 << 2
	flagAF = 1 << 4
	flagZF = 1 << 6
	flagSF = 1 << 7
	flagDF = 1 << 10
	flagOF = 1 << 11
	flagNT = 1 << 14
	flagRF = 1 << 16
	flagID = 1 << 21

	statusFlags = flagCF | flagPF | flagAF | flagZF | flagSF | flagOF
	fixedFlags  = x86.FlagReserved | x86.FlagIF // in every case
)
