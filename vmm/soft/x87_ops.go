package soft

import (
	"encoding/binary"

	"fifovm/vmm/soft/float"
	"fifovm/vmm/x86"
)

// The instructions of the x87 (SDM volume 1, 8.3; their encodings: volume 2,
// appendix A.5). ST(i) is number op.rm&7, op.imm is the opcode and in its low byte
// ModR/M.

// x87Handler gives the handler of an instruction, nil for one that is undefined.
// Opcodes that no manual has any more are here too if processors execute them.
func x87Handler(opcode, modrm uint8) handler {
	row, reg := opcode&7, modrm>>3&7
	if modrm < 0xc0 {
		return x87Memory[row][reg]
	}
	if fn := x87Register[row][reg]; fn != nil {
		return fn
	}
	return x87Single[uint16(opcode)<<8|uint16(modrm)]
}

// x87Memory are the instructions with a memory operand, by the low bits of the
// opcode and the reg field.
var x87Memory = [8][8]handler{
	arithmeticMemory(real32),
	{pushes(load32Real), nil, fst32(0), fst32(1), opFldenv, opFldcw, opFnstenv, opFnstcw},
	arithmeticMemory(int32Operand),
	{pushes(int32Operand), fist32(true, 1), fist32(false, 0), fist32(false, 1), nil, pushes(load80), nil, opFstp80},
	arithmeticMemory(real64),
	{pushes(load64Real), fist64(true), fst64(0), fst64(1), opFrstor, nil, opFnsave, opFnstswMemory},
	arithmeticMemory(int16Operand),
	{pushes(int16Operand), fist16(true, 1), fist16(false, 0), fist16(false, 1), pushes(loadBCD), pushes(int64Operand), opFbstp, fist64(false)},
}

// x87Register are those with ST(i).
var x87Register = [8][8]handler{
	{toTop((*float.Env).Add80), toTop((*float.Env).Mul80), opFcom(0), opFcom(1),
		toTop((*float.Env).Sub80), toTop(subReverse), toTop((*float.Env).Div80), toTop(divReverse)},
	{opFld, opFxch, nil, opFstp1},
	{opFcmov(x86.FlagCF), opFcmov(x86.FlagZF), opFcmov(x86.FlagCF | x86.FlagZF), opFcmov(x86.FlagPF)},
	{opFcmovn(x86.FlagCF), opFcmovn(x86.FlagZF), opFcmovn(x86.FlagCF | x86.FlagZF), opFcmovn(x86.FlagPF),
		nil, opFcomi(false, 0), opFcomi(true, 0)},
	{toRegister((*float.Env).Add80, 0), toRegister((*float.Env).Mul80, 0), opFcom(0), opFcom(1),
		toRegister(subReverse, 0), toRegister((*float.Env).Sub80, 0), toRegister(divReverse, 0), toRegister((*float.Env).Div80, 0)},
	{opFfree(0), opFxch, opFst(0), opFst(1), opFucom(0), opFucom(1)},
	{toRegister((*float.Env).Add80, 1), toRegister((*float.Env).Mul80, 1), opFcom(1), nil,
		toRegister(subReverse, 1), toRegister((*float.Env).Sub80, 1), toRegister(divReverse, 1), toRegister((*float.Env).Div80, 1)},
	{opFfree(1), opFxch, opFst(1), opFst(1), nil, opFcomi(false, 1), opFcomi(true, 1)},
}

// x87Single are those that all bits of the ModR/M byte belong to.
var x87Single = map[uint16]handler{
	0xd9d0: opFnop,
	0xd9e0: sign(func(s uint16) uint16 { return s ^ sign80 }),  // FCHS
	0xd9e1: sign(func(s uint16) uint16 { return s &^ sign80 }), // FABS
	0xd9e4: opFtst,
	0xd9e5: opFxam,
	0xd9e8: constant(one80, 0, false),
	0xd9e9: constant(float.F80{Mant: 0xd49a784bcd1b8afe, SE: 0x4000}, 1, false), // log2 10
	0xd9ea: constant(float.F80{Mant: 0xb8aa3b295c17f0bb, SE: 0x3fff}, 1, true),  // log2 e
	0xd9eb: constant(float.F80{Mant: 0xc90fdaa22168c234, SE: 0x4000}, 1, true),  // pi
	0xd9ec: constant(float.F80{Mant: 0x9a209a84fbcff798, SE: 0x3ffd}, 1, true),  // log10 2
	0xd9ed: constant(float.F80{Mant: 0xb17217f7d1cf79ab, SE: 0x3ffe}, 1, true),  // ln 2
	0xd9ee: constant(float.F80{}, 0, false),
	0xd9f0: unary((*float.Env).Exp2m1_80),
	0xd9f1: binaryPop((*float.Env).Log2_80),
	0xd9f2: opFptan,
	0xd9f3: binaryPop((*float.Env).Atan2_80),
	0xd9f4: opFxtract,
	0xd9f5: remainder((*float.Env).Rem180),
	0xd9f6: opFdecstp,
	0xd9f7: opFincstp,
	0xd9f8: remainder((*float.Env).Rem80),
	0xd9f9: binaryPop((*float.Env).Log2p1_80),
	0xd9fa: unary((*float.Env).Sqrt80),
	0xd9fb: opFsincos,
	0xd9fc: unary((*float.Env).Round80),
	0xd9fd: opFscale,
	0xd9fe: trigonometric((*float.Env).Sin80),
	0xd9ff: trigonometric((*float.Env).Cos80),
	0xdae9: opFucom(2),
	0xdbe0: opX87Nothing, // FENI of the 8087
	0xdbe1: opX87Nothing, // FDISI of the 8087
	0xdbe2: opFnclex,
	0xdbe3: opFninit,
	0xdbe4: opX87Nothing, // FSETPM of the 80287
	0xded9: opFcom(2),
	0xdfe0: opFnstswAX,
}

// operation computes a result from the destination and the source.
type operation func(e *float.Env, a, b float.F80) float.F80

func subReverse(e *float.Env, a, b float.F80) float.F80 { return e.Sub80(b, a) }
func divReverse(e *float.Env, a, b float.F80) float.F80 { return e.Div80(b, a) }

// source reads a memory operand. Those of arithmetic instructions raise nothing
// by themselves.
type source func(c *cpu, o *op) float.F80

func real32(c *cpu, o *op) float.F80 { return c.fpu.env.Operand32(uint32(c.load32(o.ea(c)))) }
func real64(c *cpu, o *op) float.F80 { return c.fpu.env.Operand64(c.load64(o.ea(c))) }

func int16Operand(c *cpu, o *op) float.F80 {
	return c.fpu.env.Int64ToF80(int64(int16(c.load16(o.ea(c)))))
}

func int32Operand(c *cpu, o *op) float.F80 {
	return c.fpu.env.Int64ToF80(int64(int32(c.load32(o.ea(c)))))
}

func int64Operand(c *cpu, o *op) float.F80 { return c.fpu.env.Int64ToF80(int64(c.load64(o.ea(c)))) }

func load32Real(c *cpu, o *op) float.F80 { return c.fpu.env.F32ToF80(uint32(c.load32(o.ea(c)))) }
func load64Real(c *cpu, o *op) float.F80 { return c.fpu.env.F64ToF80(c.load64(o.ea(c))) }

// tenBytes is the size of an operand in extended precision or packed BCD.
const tenBytes = 10

func load80(c *cpu, o *op) float.F80 {
	a := o.ea(c)
	c.probeRead(a, tenBytes)
	return float.F80{Mant: c.load64(a), SE: uint16(c.load16(a + 8))}
}

func loadBCD(c *cpu, o *op) float.F80 {
	v := load80(c, o)
	var b [tenBytes]byte
	binary.LittleEndian.PutUint64(b[:], v.Mant)
	binary.LittleEndian.PutUint16(b[8:], v.SE)
	return c.fpu.env.BCDToF80(b)
}

// binary computes from ST(i) and b, whose register is empty if noB.
func (f *x87) binary(fn operation, i uint8, b float.F80, noB bool) float.F80 {
	if noB || f.isEmpty(i) {
		return f.underflow()
	}
	return fn(&f.env, f.get(i), b)
}

// arithmeticMemory is a row of x87Memory: the eight instructions of FADD's kind.
func arithmeticMemory(src source) [8]handler {
	toTop := func(fn operation) handler {
		return func(c *cpu, o *op) {
			f := c.beginX87()
			b := src(c, o)
			if v := f.binary(fn, 0, b, false); !f.stopped() {
				f.put(0, v)
			}
			f.end(c, o)
		}
	}
	compare := func(pops uint8) handler {
		return func(c *cpu, o *op) {
			f := c.beginX87()
			b := src(c, o)
			f.compare(c, o, b, false, true, pops)
		}
	}
	return [8]handler{toTop((*float.Env).Add80), toTop((*float.Env).Mul80), compare(0), compare(1),
		toTop((*float.Env).Sub80), toTop(subReverse), toTop((*float.Env).Div80), toTop(divReverse)}
}

// toTop is an instruction of FADD's kind from ST(i) to ST(0).
func toTop(fn operation) handler {
	return func(c *cpu, o *op) {
		f, i := c.beginX87(), o.rm&7
		if v := f.binary(fn, 0, f.get(i), f.isEmpty(i)); !f.stopped() {
			f.put(0, v)
		}
		f.end(c, o)
	}
}

// toRegister is one from ST(0) to ST(i).
func toRegister(fn operation, pops int) handler {
	return func(c *cpu, o *op) {
		f, i := c.beginX87(), o.rm&7
		if v := f.binary(fn, i, f.get(0), f.isEmpty(0)); !f.stopped() {
			f.put(i, v)
			f.popTimes(pops)
		}
		f.end(c, o)
	}
}

func (f *x87) popTimes(n int) {
	for range n {
		f.pop()
	}
}

// compare compares ST(0) with b and sets the condition codes. With signal a quiet
// NaN is an invalid operand.
func (f *x87) compare(c *cpu, o *op, b float.F80, noB, signal bool, pops uint8) {
	// Less, equal, greater, unordered.
	codes := [4]uint16{fswC0, fswC3, 0, fswC3 | fswC2 | fswC0}
	r := f.order(b, noB, signal)
	f.setConditions(fswC3|fswC2|fswC0, codes[r])
	if !f.stopped() {
		f.popTimes(int(pops))
	}
	f.env.C1 = false
	f.end(c, o)
}

// order gives 0 for less, 1 for equal, 2 for greater, 3 for unordered.
func (f *x87) order(b float.F80, noB, signal bool) int {
	if noB || f.isEmpty(0) {
		f.underflow()
		return 3
	}
	return f.env.Cmp80(f.get(0), b, signal) + 1
}

func opFcom(pops uint8) handler  { return compareRegister(true, pops) }
func opFucom(pops uint8) handler { return compareRegister(false, pops) }

func compareRegister(signal bool, pops uint8) handler {
	return func(c *cpu, o *op) {
		f, i := c.beginX87(), o.rm&7
		f.compare(c, o, f.get(i), f.isEmpty(i), signal, pops)
	}
}

// opFcomi compares into the status flags.
func opFcomi(signal bool, pops int) handler {
	return func(c *cpu, o *op) {
		f, i := c.beginX87(), o.rm&7
		flags := [4]uint64{x86.FlagCF, x86.FlagZF, 0, x86.FlagZF | x86.FlagPF | x86.FlagCF}
		c.setStatus(flags[f.order(f.get(i), f.isEmpty(i), signal)])
		if !f.stopped() {
			f.popTimes(pops)
		}
		f.endKeep(c, o)
	}
}

func opFtst(c *cpu, o *op) {
	f := c.beginX87()
	f.compare(c, o, float.F80{}, false, true, 0)
}

// opFxam classifies ST(0) (volume 2, FXAM). It sees the sign of an empty one too.
func opFxam(c *cpu, o *op) {
	f := c.beginX87()
	v := f.get(0)
	var class uint16 // 0: unsupported
	switch exp := v.SE & exponent80; {
	case f.isEmpty(0):
		class = fswC3 | fswC0
	case exp == 0 && v.Mant == 0:
		class = fswC3
	case exp == 0:
		class = fswC3 | fswC2
	case v.Mant>>63 == 0:
	case exp < exponent80:
		class = fswC2
	case v.Mant<<1 == 0:
		class = fswC2 | fswC0
	default:
		class = fswC0
	}
	f.setConditions(fswC3|fswC2|fswC0, class)
	f.env.C1 = v.SE&sign80 != 0
	f.end(c, o)
}

// pushes is FLD, FILD or FBLD from memory.
func pushes(src source) handler {
	return func(c *cpu, o *op) {
		f := c.beginX87()
		f.load(c, o, src(c, o))
	}
}

// load pushes v, if there is room. A denormal is pushed even where that is an
// unmasked exception.
func (f *x87) load(c *cpu, o *op, v float.F80) {
	if !f.isEmpty(7) {
		v = f.overflow()
	}
	if f.env.Flags&^f.env.Masks&float.Invalid == 0 {
		f.push(v)
	}
	f.end(c, o)
}

func opFld(c *cpu, o *op) {
	f, i := c.beginX87(), o.rm&7
	if f.isEmpty(i) {
		if v := f.underflow(); !f.stopped() {
			f.push(v)
		}
		f.end(c, o)
		return
	}
	f.load(c, o, f.get(i))
}

// constant pushes v, which is cut off after 64 bits; up is 1 if it isn't exact,
// and nearest says that what was cut off is more than half of the last bit.
func constant(v float.F80, up uint64, nearest bool) handler {
	return func(c *cpu, o *op) {
		f := c.beginX87()
		w := v
		if r := f.env.Rounding; r == float.Up || r == float.Nearest && nearest {
			w.Mant += up
		}
		f.load(c, o, w)
	}
}

// value gives ST(0), or the indefinite and a fault where it is empty.
func (f *x87) value() float.F80 {
	if f.isEmpty(0) {
		return f.underflow()
	}
	return f.get(0)
}

// fst32 is FST m32.
func fst32(pops int) handler {
	return func(c *cpu, o *op) {
		f, a := c.beginX87(), o.ea(c)
		f.store(c, o, a, 4, uint64(f.env.F80ToF32(f.value())), pops)
	}
}

func fst64(pops int) handler {
	return func(c *cpu, o *op) {
		f, a := c.beginX87(), o.ea(c)
		f.store(c, o, a, 8, f.env.F80ToF64(f.value()), pops)
	}
}

// store ends an instruction that stores v, of size bytes, unless an exception
// forbids it. The address must be good even then.
func (f *x87) store(c *cpu, o *op, a uint64, size uint8, v uint64, pops int) {
	if f.notStored() {
		c.probeWrite(a, uint64(size))
	} else {
		c.store(a, size, v)
		f.popTimes(pops)
	}
	f.end(c, o)
}

// fist16 is FIST m16, or FISTTP.
func fist16(truncate bool, pops int) handler {
	return func(c *cpu, o *op) {
		f, a := c.beginX87(), o.ea(c)
		f.store(c, o, a, 2, uint64(f.env.F80ToInt16(f.value(), truncate)), pops)
	}
}

func fist32(truncate bool, pops int) handler {
	return func(c *cpu, o *op) {
		f, a := c.beginX87(), o.ea(c)
		f.store(c, o, a, 4, uint64(f.env.F80ToInt32(f.value(), truncate)), pops)
	}
}

func fist64(truncate bool) handler {
	return func(c *cpu, o *op) {
		f, a := c.beginX87(), o.ea(c)
		f.store(c, o, a, 8, uint64(f.env.F80ToInt64(f.value(), truncate)), 1)
	}
}

// opFstp80 copies: a signaling NaN stays one.
func opFstp80(c *cpu, o *op) {
	f, a := c.beginX87(), o.ea(c)
	f.store80(c, o, a, f.value())
}

// store80 is store for ten bytes.
func (f *x87) store80(c *cpu, o *op, a uint64, v float.F80) {
	c.probeWrite(a, tenBytes)
	if !f.notStored() {
		c.store64(a, v.Mant)
		c.store16(a+8, uint64(v.SE))
		f.pop()
	}
	f.end(c, o)
}

func opFbstp(c *cpu, o *op) {
	f, a := c.beginX87(), o.ea(c)
	b := f.env.F80ToBCD(f.value())
	f.store80(c, o, a, float.F80{Mant: binary.LittleEndian.Uint64(b[:]), SE: binary.LittleEndian.Uint16(b[8:])})
}

// opFst copies ST(0) to ST(i).
func opFst(pops int) handler {
	return func(c *cpu, o *op) {
		f, i := c.beginX87(), o.rm&7
		if v := f.value(); !f.stopped() {
			f.put(i, v)
			f.popTimes(pops)
		}
		f.end(c, o)
	}
}

// opFstp1 is an FSTP of the 8087 that doesn't care whether there is anything to
// copy.
func opFstp1(c *cpu, o *op) {
	f, i := c.beginX87(), o.rm&7
	if !f.isEmpty(0) {
		f.put(i, f.get(0))
	}
	f.pop()
	f.end(c, o)
}

func opFxch(c *cpu, o *op) {
	f, i := c.beginX87(), o.rm&7
	a, b := f.get(0), f.get(i)
	if f.isEmpty(0) {
		a = f.underflow()
	}
	if f.isEmpty(i) {
		b = f.underflow()
	}
	if !f.stopped() {
		f.put(0, b)
		f.put(i, a)
	}
	f.end(c, o)
}

// opFcmov copies ST(i) if one of flags is set, opFcmovn if none is.
func opFcmov(flags uint64) handler {
	return func(c *cpu, o *op) { c.fcmov(o, c.rflags()&flags != 0) }
}

func opFcmovn(flags uint64) handler {
	return func(c *cpu, o *op) { c.fcmov(o, c.rflags()&flags == 0) }
}

func (c *cpu) fcmov(o *op, take bool) {
	f, i := c.beginX87(), o.rm&7
	switch {
	case f.isEmpty(0) || f.isEmpty(i):
		if v := f.underflow(); !f.stopped() {
			f.put(0, v)
		}
	case take:
		f.put(0, f.get(i))
	}
	f.endKeep(c, o)
}

// sign is FCHS or FABS.
func sign(change func(uint16) uint16) handler {
	return func(c *cpu, o *op) {
		f := c.beginX87()
		v := f.value()
		if !f.stackFault {
			v.SE = change(v.SE)
		}
		if !f.stopped() {
			f.put(0, v)
		}
		f.end(c, o)
	}
}

// unary replaces ST(0).
func unary(fn func(*float.Env, float.F80) float.F80) handler {
	return func(c *cpu, o *op) {
		f := c.beginX87()
		v := f.value()
		if !f.stackFault {
			v = fn(&f.env, v)
		}
		if !f.stopped() {
			f.put(0, v)
		}
		f.end(c, o)
	}
}

// binaryPop replaces ST(1) by what becomes of it and ST(0), which is popped.
func binaryPop(fn operation) handler {
	return func(c *cpu, o *op) {
		f := c.beginX87()
		if v := f.binary(fn, 1, f.get(0), f.isEmpty(0)); !f.stopped() {
			f.put(1, v)
			f.pop()
		}
		f.end(c, o)
	}
}

func opFscale(c *cpu, o *op) {
	f := c.beginX87()
	if v := f.binary((*float.Env).Scale80, 0, f.get(1), f.isEmpty(1)); !f.stopped() {
		f.put(0, v)
	}
	f.end(c, o)
}

// remainder is FPREM or FPREM1. The low bits of the quotient are in C0, C3 and
// C1; C2 says that there is more to do.
func remainder(fn func(e *float.Env, a, b float.F80) (float.F80, uint8, bool)) handler {
	return func(c *cpu, o *op) {
		f := c.beginX87()
		v, q, complete := indefinite80, uint8(0), true
		if f.isEmpty(0) || f.isEmpty(1) {
			f.underflow()
		} else {
			v, q, complete = fn(&f.env, f.get(0), f.get(1))
		}
		f.setConditions(fswC2, flag16(!complete, fswC2))
		if !f.stopped() {
			f.put(0, v)
			if v.SE&exponent80 != exponent80 { // not a NaN
				f.setConditions(fswC0|fswC3, flag16(q&4 != 0, fswC0)|flag16(q&2 != 0, fswC3))
				f.env.C1 = q&1 != 0
			}
		}
		f.end(c, o)
	}
}

// trigonometric is FSIN or FCOS. C2 says that the operand is out of range.
func trigonometric(fn func(*float.Env, float.F80) (float.F80, bool)) handler {
	return func(c *cpu, o *op) {
		f := c.beginX87()
		v, complete := f.value(), true
		if !f.stackFault {
			v, complete = fn(&f.env, v)
		}
		f.setConditions(fswC2, flag16(!complete, fswC2))
		if !f.stopped() {
			f.put(0, v)
		}
		f.end(c, o)
	}
}

// room gives ST(0) for an instruction that will push one more than it replaces;
// not ok is a fault of the stack, for which there is v.
func (f *x87) room() (v float.F80, ok bool) {
	switch {
	case f.isEmpty(0):
		return f.underflow(), false
	case !f.isEmpty(7):
		return f.overflow(), false
	}
	return f.get(0), true
}

// replace ends an instruction that has two results.
func (f *x87) replace(c *cpu, o *op, below, top float.F80) {
	if !f.stopped() {
		f.put(0, below)
		f.push(top)
	}
	f.end(c, o)
}

func opFptan(c *cpu, o *op) {
	f := c.beginX87()
	f.setConditions(fswC2, 0)
	v, ok := f.room()
	if !ok {
		f.replace(c, o, v, v)
		return
	}
	v, complete := f.env.Tan80(v)
	switch {
	case !complete:
		f.setConditions(fswC2, fswC2)
		f.end(c, o)
	case v.SE&exponent80 == exponent80: // a NaN
		f.replace(c, o, v, v)
	default:
		f.replace(c, o, v, one80)
	}
}

func opFsincos(c *cpu, o *op) {
	f := c.beginX87()
	f.setConditions(fswC2, 0)
	v, ok := f.room()
	if !ok {
		f.replace(c, o, v, v)
		return
	}
	sin, complete := f.env.Sin80(v)
	if !complete {
		f.setConditions(fswC2, fswC2)
		f.end(c, o)
		return
	}
	cos, _ := f.env.Cos80(v)
	f.replace(c, o, sin, cos)
}

func opFxtract(c *cpu, o *op) {
	f := c.beginX87()
	v, ok := f.room()
	if !ok {
		f.replace(c, o, v, v)
		return
	}
	significand, exponent := f.env.Extract80(v)
	f.replace(c, o, exponent, significand)
}

// Control instructions. Those that are named FN do not wait, and none of them
// but FNOP and those of the stack pointer is what FIP points to.

func opFnop(c *cpu, o *op) { c.beginX87().endKeep(c, o) }

// opX87Nothing does nothing, and not even waits.
func opX87Nothing(*cpu, *op) {}

func opFincstp(c *cpu, o *op) {
	f := c.beginX87()
	f.top = (f.top + 1) & 7
	f.end(c, o)
}

func opFdecstp(c *cpu, o *op) {
	f := c.beginX87()
	f.top = (f.top - 1) & 7
	f.end(c, o)
}

// opFfree empties ST(i), and with pops ST(0) too.
func opFfree(pops int) handler {
	return func(c *cpu, o *op) {
		f := c.beginX87()
		f.free(o.rm & 7)
		f.popTimes(pops)
		f.end(c, o)
	}
}

func opFnclex(c *cpu, _ *op) { c.fpu.status &^= fswFlags | fswSF }
func opFninit(c *cpu, _ *op) { c.fpu.reset() }

func opFnstcw(c *cpu, o *op)       { c.store16(o.ea(c), uint64(c.fpu.control)) }
func opFnstswMemory(c *cpu, o *op) { c.store16(o.ea(c), uint64(c.fpu.statusWord())) }

func opFnstswAX(c *cpu, _ *op) {
	c.r[x86.RAX] = c.r[x86.RAX]&^0xffff | uint64(c.fpu.statusWord())
}

// opFldcw may unmask an exception whose flag is set: the next instruction raises
// it.
func opFldcw(c *cpu, o *op) {
	c.raiseX87()
	c.fpu.setControl(uint16(c.load16(o.ea(c))))
}

// The environment has seven words of 16 or 32 bits (figures 8-9 and 8-11, the
// layouts of protected mode, which the others take too). In that of 32 bits, what
// is left of a word of 16 is all ones, and FOP is beside the instruction's
// selector.
const environmentWords = 7

// environmentWord is the size of a word in bytes.
func environmentWord(o *op) uint64 {
	if o.size == 2 {
		return 2
	}
	return 4
}

func (f *x87) storeEnvironment(c *cpu, a, size uint64) {
	words := [environmentWords]uint64{uint64(f.control), uint64(f.statusWord()), uint64(f.tagWord()), f.fip, 0, f.fdp, 0}
	if size == 4 {
		const unused = 0xffff_0000
		for _, i := range [...]int{0, 1, 2, 6} {
			words[i] |= unused
		}
		words[4] = uint64(f.fop) << 16
	}
	for i, w := range words {
		c.store(a+uint64(i)*size, uint8(size), w)
	}
}

func (f *x87) loadEnvironment(c *cpu, a, size uint64) {
	var words [environmentWords]uint64
	for i := range words {
		words[i] = c.load(a+uint64(i)*size, uint8(size))
	}
	f.setControl(uint16(words[0]))
	f.setStatusWord(uint16(words[1]))
	f.setTagWord(uint16(words[2]))
	f.fip, f.fdp = words[3], words[5]
	f.fop = uint16(words[4]>>16) & fopBits
}

// opFnstenv masks all exceptions, once they are stored.
func opFnstenv(c *cpu, o *op) {
	a, size := o.ea(c), environmentWord(o)
	c.probeWrite(a, environmentWords*size)
	c.fpu.storeEnvironment(c, a, size)
	c.fpu.control |= fcwMasks
}

func opFldenv(c *cpu, o *op) {
	c.raiseX87()
	c.fpu.loadEnvironment(c, o.ea(c), environmentWord(o))
}

// opFnsave stores the environment and behind it the registers, ST(0) first, and
// then does what FNINIT does.
func opFnsave(c *cpu, o *op) {
	f, a, size := &c.fpu, o.ea(c), environmentWord(o)
	c.probeWrite(a, environmentWords*size+8*tenBytes)
	f.storeEnvironment(c, a, size)
	a += environmentWords * size
	for i := range uint8(8) {
		v := f.get(i)
		c.store64(a, v.Mant)
		c.store16(a+8, uint64(v.SE))
		a += tenBytes
	}
	f.reset()
}

func opFrstor(c *cpu, o *op) {
	c.raiseX87()
	f, a, size := &c.fpu, o.ea(c), environmentWord(o)
	c.probeRead(a, environmentWords*size+8*tenBytes)
	f.loadEnvironment(c, a, size)
	a += environmentWords * size
	for i := range uint8(8) {
		f.st[f.physical(i)] = float.F80{Mant: c.load64(a), SE: uint16(c.load16(a + 8))}
		a += tenBytes
	}
}
