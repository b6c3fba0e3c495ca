package soft

import (
	"fifovm/vmm/soft/float"
	"fifovm/vmm/x86"
)

// The x87 FPU (SDM volume 1, chapter 8): its registers, its stack and how its
// instructions report exceptions. What they do is in x87_ops.go.
//
// Where the manual leaves something open, or says that it is undefined, this
// does what an AMD Zen 5 does, with two exceptions, in which it is like Intel's
// newer processors: the selectors of the last instruction and of its operand are
// not kept and read as 0, and FXSAVE stores the pointers whether an exception is
// pending or not.

// x87 is the state of the FPU. The MMX registers are the significands in st.
type x87 struct {
	st      [8]float.F80 // by physical number: ST(i) is st[(top+i)%8]
	top     uint8
	empty   uint8 // a bit for each of st
	control uint16
	// status is the status word without TOP, and without ES and B, which follow
	// from the flags and their masks.
	status   uint16
	fop      uint16 // of the last instruction that isn't a control instruction
	fip, fdp uint64

	// Of the instruction that is executed:
	env        float.Env
	stackFault bool
}

// Bits of the status word (8.1.3); below them are the flags of package float.
const (
	fswSF  = 1 << 6 // stack fault
	fswES  = 1 << 7 // some flag is set whose exception is unmasked
	fswC0  = 1 << 8
	fswC1  = 1 << 9
	fswC2  = 1 << 10
	fswC3  = 1 << 14
	fswB   = 1 << 15 // the same as ES
	fswTop = 11      // shift of TOP

	fswFlags      = 0x3f
	fswConditions = fswC0 | fswC1 | fswC2 | fswC3
)

// The control word (8.1.5): masks, rounding and precision.
const (
	fcwMasks     = 0x3f
	fcwPrecision = 8    // shift of PC
	fcwRounding  = 10   // shift of RC
	fcwOne       = 0x40 // reads as 1
	fcwWritable  = 0x1f3f
	fcwInit      = 0x37f
)

// fopBits are those of an opcode and its ModR/M byte that not all instructions
// have in common (8.1.9).
const fopBits = 0x7ff

// The indefinite, which is what a stack fault gives, and 1 (table 4-3).
var (
	indefinite80 = float.F80{Mant: 0xc000_0000_0000_0000, SE: 0xffff}
	one80        = float.F80{Mant: 1 << 63, SE: 0x3fff}
)

const (
	exponent80 = 0x7fff // of SE
	sign80     = 0x8000
)

// reset is FNINIT. The registers keep what is in them.
func (f *x87) reset() {
	f.control, f.status, f.top, f.empty = fcwInit, 0, 0, 0xff
	f.fop, f.fip, f.fdp = 0, 0, 0
}

// pending tells whether an unmasked exception waits for the next instruction to
// raise it.
func (f *x87) pending() bool { return f.status&fswFlags&^f.control != 0 }

func (f *x87) statusWord() uint16 {
	s := f.status | uint16(f.top)<<fswTop
	if f.pending() {
		s |= fswES | fswB
	}
	return s
}

func (f *x87) setStatusWord(s uint16) {
	f.top = uint8(s >> fswTop & 7)
	f.status = s & (fswFlags | fswSF | fswConditions)
}

func (f *x87) setControl(v uint16) { f.control = v&fcwWritable | fcwOne }

// tagWord gives the tags of the registers by what is in them (8.1.7).
func (f *x87) tagWord() uint16 {
	const zero, special, empty = 1, 2, 3
	var w uint16
	for i := range uint8(8) {
		tag := uint16(0)
		switch v := f.st[i]; {
		case f.empty>>i&1 != 0:
			tag = empty
		case v.Mant == 0 && v.SE&exponent80 == 0:
			tag = zero
		case v.Mant>>63 == 0, v.SE&exponent80 == 0, v.SE&exponent80 == exponent80:
			tag = special
		}
		w |= tag << (2 * i)
	}
	return w
}

// setTagWord believes only what says that a register is empty.
func (f *x87) setTagWord(w uint16) {
	f.empty = 0
	for i := range uint8(8) {
		if w>>(2*i)&3 == 3 {
			f.empty |= 1 << i
		}
	}
}

// physical is the number of ST(i).
func (f *x87) physical(i uint8) uint8 { return (f.top + i) & 7 }

func (f *x87) isEmpty(i uint8) bool { return f.empty>>f.physical(i)&1 != 0 }

func (f *x87) get(i uint8) float.F80 { return f.st[f.physical(i)] }

func (f *x87) put(i uint8, v float.F80) {
	p := f.physical(i)
	f.st[p] = v
	f.empty &^= 1 << p
}

func (f *x87) free(i uint8) { f.empty |= 1 << f.physical(i) }

func (f *x87) push(v float.F80) {
	f.top = (f.top - 1) & 7
	f.put(0, v)
}

func (f *x87) pop() {
	f.free(0)
	f.top = (f.top + 1) & 7
}

// raiseX87 throws the exception that is pending. Without CR0.NE a PC would send
// it by way of an interrupt controller (SDM volume 3, 2.5), which this machine
// does not wire: it is #MF too.
func (c *cpu) raiseX87() {
	if c.fpu.pending() {
		c.raise(x86.MF)
	}
}

// beginX87 is the start of all instructions that wait, which is what the manual
// calls it when they raise the exception of one before.
func (c *cpu) beginX87() *x87 {
	c.raiseX87()
	f := &c.fpu
	f.env = float.Env{
		Rounding:  uint8(f.control >> fcwRounding & 3),
		Precision: uint8(f.control >> fcwPrecision & 3),
		Masks:     uint8(f.control & fcwMasks),
		Flags:     f.initialFlags(),
	}
	f.stackFault = false
	return f
}

// initialFlags are none, so that it can be told which ones the instruction
// raises. Where all are masked nobody asks, and arithmetic is faster with those
// there that are set.
func (f *x87) initialFlags() uint8 {
	if f.control&fcwMasks == fcwMasks {
		return uint8(f.status & fswFlags)
	}
	return 0
}

// overflow and underflow are faults of the stack (8.5.1.1), which come before
// whatever is wrong with the operands. They give what the masked response is.
func (f *x87) overflow() float.F80 {
	f.env.Flags = f.initialFlags() | float.Invalid
	f.env.C1, f.stackFault = true, true
	return indefinite80
}

func (f *x87) underflow() float.F80 {
	v := f.overflow()
	f.env.C1 = false
	return v
}

// stopped tells whether an unmasked exception keeps the instruction from having
// a result in a register (8.5).
func (f *x87) stopped() bool {
	return f.env.Flags&^f.env.Masks&(float.Invalid|float.Denormal|float.DivideByZero) != 0
}

// notStored tells whether an unmasked exception keeps it from having one in memory.
func (f *x87) notStored() bool {
	return f.env.Flags&^f.env.Masks&^float.Inexact != 0
}

// end reports an instruction's exceptions and where it was. Nothing that throws
// may come behind it.
func (f *x87) end(c *cpu, o *op) {
	f.setConditions(fswC1, flag16(f.env.C1, fswC1))
	f.endKeep(c, o)
}

// endKeep is end for instructions that don't change C1, unless by a fault of the
// stack.
func (f *x87) endKeep(c *cpu, o *op) {
	f.status |= uint16(f.env.Flags)
	if f.stackFault {
		f.status |= fswSF
		f.setConditions(fswC1, flag16(f.env.C1, fswC1))
	}
	f.fip = c.r[slotRIP] + uint64(o.off)
	f.fop = uint16(o.imm) & fopBits
	if o.flags&flagMem != 0 {
		f.fdp = o.offset(c)
	}
}

// setConditions replaces those condition codes that which has.
func (f *x87) setConditions(which, v uint16) { f.status = f.status&^which | v }

func flag16(on bool, bit uint16) uint16 {
	if on {
		return bit
	}
	return 0
}

// The MMX registers (9.2.1 and 9.5.1): physical registers, whatever TOP. Their
// numbers have three bits.

func (c *cpu) mm(n uint8) uint64 { return c.fpu.st[n&7].Mant }

func (c *cpu) setMM(n uint8, v uint64) { c.fpu.st[n&7] = float.F80{Mant: v, SE: 0xffff} }

// enterMMX is what all MMX instructions but EMMS do to the FPU.
func (c *cpu) enterMMX() {
	c.raiseX87()
	c.fpu.top, c.fpu.empty = 0, 0
}

// emptyMMX is EMMS.
func (c *cpu) emptyMMX() {
	c.raiseX87()
	c.fpu.top, c.fpu.empty = 0, 0xff
}
