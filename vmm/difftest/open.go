package difftest

import (
	"math"

	"fifovm/vmm/x86"
)

// openResults notes what the manual leaves open in the case's results. It says
// no to a case of which all is open.
func (b *builder) openResults() bool {
	f, c := b.f, b.c
	open := &c.ignore
	switch f.undefined {
	case "rot", "shift", "sar", "double":
		if !b.openShift() {
			return false
		}
	default:
		for _, letter := range f.undefined {
			open.flags |= map[rune]uint64{'o': flagOF, 's': flagSF, 'z': flagZF, 'a': flagAF, 'p': flagPF, 'c': flagCF}[letter]
		}
	}
	if f.is("scan") && b.size == 4 && b.value() == 0 {
		// The destination is undefined; processors keep it, or its lower half.
		open.gpr[b.reg] = math.MaxUint32 << 32
	}
	if f.is("cmpxchg") && b.size == 4 && !b.mem {
		// Where the comparison fails, some processors write the destination.
		open.gpr[b.rm] = math.MaxUint32 << 32
	}
	open.writeBit = f.is("lock") || f.is("rw")
	if f.is("x87") {
		b.openX87()
	}
	// A store in several parts may have done some of them.
	open.parts = f.memory > 8 && f.memory != 16
	switch {
	case f.is("fxsave"):
		b.openMemory(6, 18)
		b.openMemory(28, 4)
		for i := range 8 {
			b.openMemory(fpuST+16*i+10, 6)
		}
	case f.is("fnstenv"):
		for _, at := range []int{2, 6, 10} {
			b.openMemory(at, 2)
		}
		b.openMemory(12, 16)
	}
	open.estimate = f.is("estimate")
	return true
}

// openMemory leaves open n bytes of the operand.
func (b *builder) openMemory(off, n int) {
	b.c.ignore.memory = append(b.c.ignore.memory, span{b.at + off, n})
}

// openShift is about the flags of shifts and rotates by more than one bit (SDM
// volume 2, SAL and its neighbours).
func (b *builder) openShift() bool {
	f, open := b.f, &b.c.ignore
	count := uint64(1)
	switch op := f.opcode[len(f.opcode)-1]; {
	case f.is("cl"):
		count = b.c.before.GPR[x86.RCX]
	case len(f.imm) > 0 || op&0xfe == 0xc0:
		count = uint64(b.imm[0])
	}
	mask := uint64(31)
	if b.size == 8 {
		mask = 63
	}
	count &= mask
	width := uint64(8 * b.size)
	if count == 0 {
		return true
	}
	if count != 1 {
		open.flags |= flagOF
	}
	switch f.undefined {
	case "shift":
		open.flags |= flagAF
		if count >= width {
			open.flags |= flagCF
		}
	case "sar":
		open.flags |= flagAF
	case "double":
		open.flags |= flagAF
		return count <= width
	}
	return true
}

// openX87 is about the condition codes (SDM volume 1, table 8-1; volume 2).
func (b *builder) openX87() {
	f, open := b.f, &b.c.ignore
	switch f.name {
	case "fldcw", "fnstcw", "fnclex", "fnstenv", "fnstsw", "ffree", "fnop", "fwait":
		open.fsw = statusC0 | statusC1 | statusC2 | statusC3
	case "fsin", "fcos", "fsincos", "fptan":
		open.fsw = statusC0 | statusC3
	default:
		if !f.is("cc") && !f.is("prem") {
			open.fsw = statusC0 | statusC2 | statusC3
		}
	}
	if f.is("transcendental") {
		// What is within the tolerance can be exact on one side only.
		open.fsw |= statusC1 | precisionBit | underflowBit
	}
}
