package soft

import (
	"math/bits"

	"fifovm/vmm/x86"
)

// The integer instructions that are not in alu.go. Those that programs are made
// of have a handler for each size and form; the others look at op.size.

// highByte and up are the numbers of AH, CH, DH and BH.
const highByte = 16

// byteReg reads a byte register by the number that the decoder gave it.
func (c *cpu) byteReg(n uint8) uint64 {
	if n < highByte {
		return c.r[n&15] & 0xff
	}
	return c.r[n&3] >> 8 & 0xff
}

func (c *cpu) setByteReg(n uint8, v uint64) {
	if n < highByte {
		c.r[n&15] = c.r[n&15]&^0xff | v
		return
	}
	c.r[n&3] = c.r[n&3]&^0xff00 | v<<8
}

// reg reads register n as an operand of size bytes.
func (c *cpu) reg(n, size uint8) uint64 {
	switch size {
	case 1:
		return c.byteReg(n)
	case 2:
		return c.r[n&31] & 0xffff
	case 4:
		return c.r[n&31] & 0xffff_ffff
	}
	return c.r[n&31]
}

// setReg writes the low size bytes of v to register n: 4 bytes clear the upper
// half, 1 and 2 leave the rest.
func (c *cpu) setReg(n, size uint8, v uint64) {
	switch size {
	case 1:
		c.setByteReg(n, v&0xff)
	case 2:
		c.r[n&31] = c.r[n&31]&^0xffff | v&0xffff
	case 4:
		c.r[n&31] = v & 0xffff_ffff
	default:
		c.r[n&31] = v
	}
}

// readRM reads the r/m operand.
func (c *cpu) readRM(o *op) uint64 {
	if o.flags&flagMem != 0 {
		return c.load(o.ea(c), o.size)
	}
	return c.reg(o.rm, o.size)
}

// writeRM writes the r/m operand.
func (c *cpu) writeRM(o *op, v uint64) {
	if o.flags&flagMem != 0 {
		c.store(o.ea(c), o.size, v)
		return
	}
	c.setReg(o.rm, o.size, v)
}

// modifyRM reads the r/m operand that the instruction is going to write; after
// it the write does not fault.
func (c *cpu) modifyRM(o *op) uint64 {
	if o.flags&flagMem != 0 {
		return c.loadRMW(o.ea(c), o.size)
	}
	return c.reg(o.rm, o.size)
}

func signExtend(v uint64, size uint8) uint64 {
	s := 64 - 8*uint(size)
	return uint64(int64(v<<s) >> s)
}

func opNop(*cpu, *op) {}

// MOV.
var (
	movRR = [4]handler{
		func(c *cpu, o *op) { c.setByteReg(o.rm, c.byteReg(o.reg)) },
		func(c *cpu, o *op) { c.r[o.rm&31] = c.r[o.rm&31]&^0xffff | c.r[o.reg&31]&0xffff },
		func(c *cpu, o *op) { c.r[o.rm&31] = c.r[o.reg&31] & 0xffff_ffff },
		func(c *cpu, o *op) { c.r[o.rm&31] = c.r[o.reg&31] },
	}
	movRM = [4]handler{
		func(c *cpu, o *op) { c.setByteReg(o.reg, c.load8(o.ea(c))) },
		func(c *cpu, o *op) { c.r[o.reg&31] = c.r[o.reg&31]&^0xffff | c.load16(o.ea(c)) },
		func(c *cpu, o *op) { c.r[o.reg&31] = c.load32(o.ea(c)) },
		func(c *cpu, o *op) { c.r[o.reg&31] = c.load64(o.ea(c)) },
	}
	movMR = [4]handler{
		func(c *cpu, o *op) { c.store8(o.ea(c), c.byteReg(o.reg)) },
		func(c *cpu, o *op) { c.store16(o.ea(c), c.r[o.reg&31]) },
		func(c *cpu, o *op) { c.store32(o.ea(c), c.r[o.reg&31]) },
		func(c *cpu, o *op) { c.store64(o.ea(c), c.r[o.reg&31]) },
	}
	movRI = [4]handler{
		func(c *cpu, o *op) { c.setByteReg(o.rm, o.imm&0xff) },
		func(c *cpu, o *op) { c.r[o.rm&31] = c.r[o.rm&31]&^0xffff | o.imm&0xffff },
		func(c *cpu, o *op) { c.r[o.rm&31] = o.imm & 0xffff_ffff },
		func(c *cpu, o *op) { c.r[o.rm&31] = o.imm },
	}
	movMI = [4]handler{
		func(c *cpu, o *op) { c.store8(o.ea(c), o.imm) },
		func(c *cpu, o *op) { c.store16(o.ea(c), o.imm) },
		func(c *cpu, o *op) { c.store32(o.ea(c), o.imm) },
		func(c *cpu, o *op) { c.store64(o.ea(c), o.imm) },
	}
)

// MOVZX, MOVSX and MOVSXD: by the logarithms of the source's and of the
// destination's size.
var (
	movzxRR = [3][4]handler{
		{nil, zero16(low8), zero(low8), zero(low8)},
		{nil, zero16(low16), zero(low16), zero(low16)},
	}
	movzxRM = [3][4]handler{
		{nil,
			func(c *cpu, o *op) { c.setReg(o.reg, 2, c.load8(o.ea(c))) },
			func(c *cpu, o *op) { c.r[o.reg&31] = c.load8(o.ea(c)) },
			func(c *cpu, o *op) { c.r[o.reg&31] = c.load8(o.ea(c)) },
		},
		{nil,
			func(c *cpu, o *op) { c.setReg(o.reg, 2, c.load16(o.ea(c))) },
			func(c *cpu, o *op) { c.r[o.reg&31] = c.load16(o.ea(c)) },
			func(c *cpu, o *op) { c.r[o.reg&31] = c.load16(o.ea(c)) },
		},
	}
	movsxRR = [3][4]handler{
		{nil,
			func(c *cpu, o *op) { c.setReg(o.reg, 2, uint64(int8(c.byteReg(o.rm)))) },
			func(c *cpu, o *op) { c.r[o.reg&31] = uint64(uint32(int8(c.byteReg(o.rm)))) },
			func(c *cpu, o *op) { c.r[o.reg&31] = uint64(int8(c.byteReg(o.rm))) },
		},
		{nil,
			func(c *cpu, o *op) { c.setReg(o.reg, 2, c.r[o.rm&31]) },
			func(c *cpu, o *op) { c.r[o.reg&31] = uint64(uint32(int16(c.r[o.rm&31]))) },
			func(c *cpu, o *op) { c.r[o.reg&31] = uint64(int16(c.r[o.rm&31])) },
		},
		{nil,
			func(c *cpu, o *op) { c.setReg(o.reg, 2, c.r[o.rm&31]) },
			func(c *cpu, o *op) { c.r[o.reg&31] = c.r[o.rm&31] & 0xffff_ffff },
			func(c *cpu, o *op) { c.r[o.reg&31] = uint64(int32(c.r[o.rm&31])) },
		},
	}
	movsxRM = [3][4]handler{
		{nil,
			func(c *cpu, o *op) { c.setReg(o.reg, 2, uint64(int8(c.load8(o.ea(c))))) },
			func(c *cpu, o *op) { c.r[o.reg&31] = uint64(uint32(int8(c.load8(o.ea(c))))) },
			func(c *cpu, o *op) { c.r[o.reg&31] = uint64(int8(c.load8(o.ea(c)))) },
		},
		{nil,
			func(c *cpu, o *op) { c.setReg(o.reg, 2, c.load16(o.ea(c))) },
			func(c *cpu, o *op) { c.r[o.reg&31] = uint64(uint32(int16(c.load16(o.ea(c))))) },
			func(c *cpu, o *op) { c.r[o.reg&31] = uint64(int16(c.load16(o.ea(c)))) },
		},
		{nil,
			func(c *cpu, o *op) { c.setReg(o.reg, 2, c.load16(o.ea(c))) },
			func(c *cpu, o *op) { c.r[o.reg&31] = c.load32(o.ea(c)) },
			func(c *cpu, o *op) { c.r[o.reg&31] = uint64(int32(c.load32(o.ea(c)))) },
		},
	}
)

func low8(c *cpu, o *op) uint64  { return c.byteReg(o.rm) }
func low16(c *cpu, o *op) uint64 { return c.r[o.rm&31] & 0xffff }

func zero(get func(*cpu, *op) uint64) handler {
	return func(c *cpu, o *op) { c.r[o.reg&31] = get(c, o) }
}

func zero16(get func(*cpu, *op) uint64) handler {
	return func(c *cpu, o *op) { c.setReg(o.reg, 2, get(c, o)) }
}

func opLea64(c *cpu, o *op) {
	c.r[o.reg&31] = c.r[o.base&31] + c.r[o.index&31]<<(o.scale&3) + o.disp
}

func opLea32(c *cpu, o *op) {
	c.r[o.reg&31] = uint64(uint32(c.r[o.base&31] + c.r[o.index&31]<<(o.scale&3) + o.disp))
}

func opLea(c *cpu, o *op) { c.setReg(o.reg, o.size, o.offset(c)) }

func opXchg(c *cpu, o *op) {
	v := c.modifyRM(o)
	c.writeRM(o, c.reg(o.reg, o.size))
	c.setReg(o.reg, o.size, v)
}

func opCmpxchg(c *cpu, o *op) {
	v := c.modifyRM(o)
	a := c.reg(x86.RAX, o.size)
	c.compare(a, v, o.size)
	if a == v {
		c.writeRM(o, c.reg(o.reg, o.size))
		return
	}
	c.writeRM(o, v) // a processor writes in either case
	c.setReg(x86.RAX, o.size, v)
}

func opCmpxchg8b(c *cpu, o *op) {
	at := o.ea(c)
	v := c.loadRMW(at, 8)
	f := c.rflags() &^ x86.FlagZF
	if v == c.r[x86.RDX]<<32|c.r[x86.RAX]&0xffff_ffff {
		c.store64(at, c.r[x86.RCX]<<32|c.r[x86.RBX]&0xffff_ffff)
		f |= x86.FlagZF
	} else {
		c.r[x86.RAX], c.r[x86.RDX] = v&0xffff_ffff, v>>32
	}
	c.setRFLAGS(f)
}

func opCmpxchg16b(c *cpu, o *op) {
	at := o.ea(c)
	if at&15 != 0 {
		c.raiseGP(0)
	}
	lo, hi := c.loadRMW(at, 8), c.loadRMW(at+8, 8)
	f := c.rflags() &^ x86.FlagZF
	if lo == c.r[x86.RAX] && hi == c.r[x86.RDX] {
		c.store64(at, c.r[x86.RBX])
		c.store64(at+8, c.r[x86.RCX])
		f |= x86.FlagZF
	} else {
		c.r[x86.RAX], c.r[x86.RDX] = lo, hi
	}
	c.setRFLAGS(f)
}

func opXadd(c *cpu, o *op) {
	a, b := c.modifyRM(o), c.reg(o.reg, o.size)
	r := (a + b) & sizeMask(o.size)
	if o.flags&flagMem != 0 {
		c.writeRM(o, r)
		c.setReg(o.reg, o.size, a)
	} else { // of one register with itself the sum stays
		c.setReg(o.reg, o.size, a)
		c.setReg(o.rm, o.size, r)
	}
	c.fRes, c.fB, c.fKind = r, b, add8+flagKind(bits.TrailingZeros8(o.size))
}

// compare sets the flags of a - b.
func (c *cpu) compare(a, b uint64, size uint8) {
	c.fRes, c.fB, c.fKind = (a-b)&sizeMask(size), b, sub8+flagKind(bits.TrailingZeros8(size))
}

// adc adds with carry, and sets the flags.
func (c *cpu) adc(a, b uint64, size uint8) uint64 {
	carry := flag(c.cf(), 1)
	m := sizeMask(size)
	r := (a + b + carry) & m
	cf := r < a || carry != 0 && r == a
	f := resultFlags(r, size) | flag(cf, x86.FlagCF) | flag((a^b^r)&0x10 != 0, x86.FlagAF) |
		flag((a^r)&(b^r)>>(8*size-1)&1 != 0, x86.FlagOF)
	c.setStatus(f)
	return r
}

// sbb subtracts with borrow, and sets the flags.
func (c *cpu) sbb(a, b uint64, size uint8) uint64 {
	borrow := flag(c.cf(), 1)
	m := sizeMask(size)
	r := (a - b - borrow) & m
	cf := a < b || borrow != 0 && a == b
	f := resultFlags(r, size) | flag(cf, x86.FlagCF) | flag((a^b^r)&0x10 != 0, x86.FlagAF) |
		flag((a^b)&(a^r)>>(8*size-1)&1 != 0, x86.FlagOF)
	c.setStatus(f)
	return r
}

// incDec are INC and DEC, of registers and of memory.
var incDec = [2][2][4]handler{
	{
		{opInc, opInc,
			func(c *cpu, o *op) {
				c.keepCF()
				r := uint64(uint32(c.r[o.rm&31] + 1))
				c.r[o.rm&31] = r
				c.fRes, c.fKind = r, inc32
			},
			func(c *cpu, o *op) {
				c.keepCF()
				r := c.r[o.rm&31] + 1
				c.r[o.rm&31] = r
				c.fRes, c.fKind = r, inc64
			}},
		{opInc, opInc, opInc, opInc},
	},
	{
		{opDec, opDec,
			func(c *cpu, o *op) {
				c.keepCF()
				r := uint64(uint32(c.r[o.rm&31] - 1))
				c.r[o.rm&31] = r
				c.fRes, c.fKind = r, dec32
			},
			func(c *cpu, o *op) {
				c.keepCF()
				r := c.r[o.rm&31] - 1
				c.r[o.rm&31] = r
				c.fRes, c.fKind = r, dec64
			}},
		{opDec, opDec, opDec, opDec},
	},
}

// keepCF puts CF where INC and DEC leave it.
func (c *cpu) keepCF() { c.flags = c.flags&^x86.FlagCF | flag(c.cf(), x86.FlagCF) }

func opInc(c *cpu, o *op) {
	r := (c.modifyRM(o) + 1) & sizeMask(o.size)
	c.writeRM(o, r)
	c.keepCF()
	c.fRes, c.fKind = r, inc8+flagKind(bits.TrailingZeros8(o.size))
}

func opDec(c *cpu, o *op) {
	r := (c.modifyRM(o) - 1) & sizeMask(o.size)
	c.writeRM(o, r)
	c.keepCF()
	c.fRes, c.fKind = r, dec8+flagKind(bits.TrailingZeros8(o.size))
}

func opNot(c *cpu, o *op) { c.writeRM(o, ^c.modifyRM(o)) }

func opNeg(c *cpu, o *op) {
	v := c.modifyRM(o)
	c.writeRM(o, -v)
	c.compare(0, v, o.size)
}

// Shifts and rotations (SDM volume 2, RCL/RCR/ROL/ROR and SAL/SAR/SHL/SHR). Of
// what the manual leaves undefined, CF and OF of counts beyond the size are as
// the formulas have them.

// shiftRI are shifts of a register by a count from 1 to its size less 1, by the
// extension in ModR/M: nil where opShiftImm does.
var shiftRI = [8][2]handler{
	4: {shl32, shl64}, 5: {shr32, shr64}, 6: {shl32, shl64}, 7: {sar32, sar64},
}

func shl32(c *cpu, o *op) {
	v, n := uint32(c.r[o.rm&31]), o.imm&31
	r := v << n
	c.r[o.rm&31] = uint64(r)
	cf := v>>(32-n)&1 != 0
	c.setShift(uint64(r), 4, cf, r>>31 != 0 != cf)
}

func shl64(c *cpu, o *op) {
	v, n := c.r[o.rm&31], o.imm&63
	r := v << n
	c.r[o.rm&31] = r
	cf := v>>(64-n)&1 != 0
	c.setShift(r, 8, cf, r>>63 != 0 != cf)
}

func shr32(c *cpu, o *op) {
	v, n := uint32(c.r[o.rm&31]), o.imm&31
	r := uint64(v >> n)
	c.r[o.rm&31] = r
	c.setShift(r, 4, v>>(n-1)&1 != 0, v>>31 != 0)
}

func shr64(c *cpu, o *op) {
	v, n := c.r[o.rm&31], o.imm&63
	r := v >> n
	c.r[o.rm&31] = r
	c.setShift(r, 8, v>>(n-1)&1 != 0, v>>63 != 0)
}

func sar32(c *cpu, o *op) {
	v, n := int32(c.r[o.rm&31]), o.imm&31
	r := uint64(uint32(v >> n))
	c.r[o.rm&31] = r
	c.setShift(r, 4, v>>(n-1)&1 != 0, false)
}

func sar64(c *cpu, o *op) {
	v, n := int64(c.r[o.rm&31]), o.imm&63
	r := uint64(v >> n)
	c.r[o.rm&31] = r
	c.setShift(r, 8, v>>(n-1)&1 != 0, false)
}

func opShiftImm(c *cpu, o *op) { c.shift(o, uint(o.imm)) }
func opShiftCL(c *cpu, o *op)  { c.shift(o, uint(c.r[x86.RCX]&0xff)) }

// shiftCount is what counts of a shift's count.
func (o *op) shiftCount(count uint) uint {
	if o.size == 8 {
		return count & 63
	}
	return count & 31
}

// shift is every shift and rotation, by the extension in op.cond.
func (c *cpu) shift(o *op, count uint) {
	count = o.shiftCount(count)
	v := c.modifyRM(o)
	if count == 0 {
		c.writeRM(o, v) // the upper half of a 32-bit register is cleared even so
		return
	}
	bits, m := 8*uint(o.size), sizeMask(o.size)
	sign := func(x uint64) bool { return x>>(bits-1)&1 != 0 }
	var r uint64
	var cf, of bool
	switch o.cond {
	case 0: // ROL
		n := count % bits
		r = (v<<n | v>>(bits-n)) & m
		cf = r&1 != 0
		of = sign(r) != cf
	case 1: // ROR
		n := count % bits
		r = (v>>n | v<<(bits-n)) & m
		cf = sign(r)
		of = sign(r) != sign(r<<1)
	case 2: // RCL
		n := count % (bits + 1)
		r, cf = v, c.cf()
		for range n {
			out := sign(r)
			r = (r<<1 | flag(cf, 1)) & m
			cf = out
		}
		of = sign(r) != cf
	case 3: // RCR
		n := count % (bits + 1)
		r, cf = v, c.cf()
		for range n {
			out := r&1 != 0
			r = r>>1 | flag(cf, 1)<<(bits-1)
			cf = out
		}
		of = sign(r) != sign(r<<1)
	case 4, 6: // SHL
		r = v << count & m
		cf = count <= bits && v>>(bits-count)&1 != 0
		of = sign(r) != cf
	case 5: // SHR
		r = v >> count
		cf = v>>(count-1)&1 != 0
		of = sign(v)
	case 7: // SAR
		s := int64(signExtend(v, o.size))
		r = uint64(s>>count) & m
		cf = s>>(count-1)&1 != 0
	}
	c.writeRM(o, r)
	if o.cond < 4 { // rotations leave the other flags
		f := c.rflags() &^ (x86.FlagCF | x86.FlagOF)
		c.setRFLAGS(f | flag(cf, x86.FlagCF) | flag(of, x86.FlagOF))
		return
	}
	c.setShift(r, o.size, cf, of)
}

func opDoubleShiftImm(c *cpu, o *op) { c.doubleShift(o, uint(o.imm)) }
func opDoubleShiftCL(c *cpu, o *op)  { c.doubleShift(o, uint(c.r[x86.RCX]&0xff)) }

// doubleShift is SHLD and SHRD.
func (c *cpu) doubleShift(o *op, count uint) {
	count = o.shiftCount(count)
	v := c.modifyRM(o)
	if count == 0 {
		c.writeRM(o, v)
		return
	}
	bits, m := 8*uint(o.size), sizeMask(o.size)
	in := c.reg(o.reg, o.size)
	var r uint64
	var cf bool
	if o.cond == 0 {
		switch {
		case count <= bits:
			r = (v<<count | in>>(bits-count)) & m
			cf = v>>(bits-count)&1 != 0
		default: // of 16 bits: undefined; the bits come in again
			r = (in<<(count-bits) | v>>(2*bits-count)) & m
			cf = in>>(2*bits-count)&1 != 0
		}
	} else {
		switch {
		case count <= bits:
			r = (v>>count | in<<(bits-count)) & m
			cf = v>>(count-1)&1 != 0
		default:
			r = (in>>(count-bits) | v<<(2*bits-count)) & m
			cf = in>>(count-bits-1)&1 != 0
		}
	}
	c.writeRM(o, r)
	c.setShift(r, o.size, cf, (r^v)>>(bits-1)&1 != 0)
}

// Multiplication and division.

func opImul64(c *cpu, o *op) {
	a, b := c.r[o.reg&31], c.r[o.rm&31]
	c.r[o.reg&31] = c.imul(a, b, 8)
}

func opImul2(c *cpu, o *op) {
	c.setReg(o.reg, o.size, c.imul(c.reg(o.reg, o.size), c.readRM(o), o.size))
}
func opImul3(c *cpu, o *op) { c.setReg(o.reg, o.size, c.imul(c.readRM(o), o.imm, o.size)) }

// imul gives the low half of a signed product, and sets the flags.
func (c *cpu) imul(a, b uint64, size uint8) uint64 {
	var r uint64
	var over bool
	if size == 8 {
		hi, lo := mulSigned(a, b)
		r, over = lo, hi != uint64(int64(lo)>>63)
	} else {
		p := int64(signExtend(a, size)) * int64(signExtend(b, size))
		r = uint64(p) & sizeMask(size)
		over = uint64(p) != signExtend(r, size)
	}
	c.setShift(r, size, over, over)
	return r
}

// mulSigned is bits.Mul64 for signed numbers.
func mulSigned(a, b uint64) (hi, lo uint64) {
	hi, lo = bits.Mul64(a, b)
	hi -= uint64(int64(a)>>63)&b + uint64(int64(b)>>63)&a
	return hi, lo
}

// setProduct writes the result of a multiplication by the accumulator.
func (c *cpu) setProduct(size uint8, hi, lo uint64, over bool) {
	if size == 1 {
		c.setReg(x86.RAX, 2, lo&0xff|hi<<8)
	} else {
		c.setReg(x86.RAX, size, lo)
		c.setReg(x86.RDX, size, hi)
	}
	c.setShift(lo&sizeMask(size), size, over, over)
}

func opMul(c *cpu, o *op) {
	a, b := c.reg(x86.RAX, o.size), c.readRM(o)
	if o.size == 8 {
		hi, lo := bits.Mul64(a, b)
		c.setProduct(8, hi, lo, hi != 0)
		return
	}
	p := a * b
	hi := p >> (8 * o.size)
	c.setProduct(o.size, hi, p&sizeMask(o.size), hi != 0)
}

func opImul1(c *cpu, o *op) {
	a, b := c.reg(x86.RAX, o.size), c.readRM(o)
	if o.size == 8 {
		hi, lo := mulSigned(a, b)
		c.setProduct(8, hi, lo, hi != uint64(int64(lo)>>63))
		return
	}
	p := uint64(int64(signExtend(a, o.size)) * int64(signExtend(b, o.size)))
	lo := p & sizeMask(o.size)
	c.setProduct(o.size, p>>(8*o.size)&sizeMask(o.size), lo, p != signExtend(lo, o.size))
}

// dividend is what DIV and IDIV divide.
func (c *cpu) dividend(size uint8) (hi, lo uint64) {
	if size == 1 {
		v := c.r[x86.RAX] & 0xffff
		return v >> 8, v & 0xff
	}
	return c.reg(x86.RDX, size), c.reg(x86.RAX, size)
}

func (c *cpu) setQuotient(size uint8, quo, rem uint64) {
	if size == 1 {
		c.setReg(x86.RAX, 2, quo&0xff|rem<<8&0xff00)
		return
	}
	c.setReg(x86.RAX, size, quo)
	c.setReg(x86.RDX, size, rem)
}

func opDiv(c *cpu, o *op) {
	d := c.readRM(o)
	hi, lo := c.dividend(o.size)
	if d == 0 || hi >= d {
		c.raise(x86.DE)
	}
	if o.size == 8 {
		quo, rem := bits.Div64(hi, lo, d)
		c.setQuotient(8, quo, rem)
		return
	}
	n := hi<<(8*o.size) | lo
	c.setQuotient(o.size, n/d, n%d)
}

func opIdiv(c *cpu, o *op) {
	d := c.readRM(o)
	hi, lo := c.dividend(o.size)
	if d == 0 {
		c.raise(x86.DE)
	}
	if o.size == 8 {
		c.idiv64(hi, lo, d)
		return
	}
	n := int64(hi<<(8*o.size) | lo)
	if o.size < 4 {
		n = int64(signExtend(uint64(n), 2*o.size))
	}
	s := int64(signExtend(d, o.size))
	if s == -1 && n == -n && n != 0 {
		c.raise(x86.DE) // the quotient of the smallest dividend has no place even in 64 bits
	}
	quo, rem := n/s, n%s
	if uint64(quo) != signExtend(uint64(quo), o.size) {
		c.raise(x86.DE)
	}
	c.setQuotient(o.size, uint64(quo), uint64(rem))
}

// idiv64 divides 128 bits by magnitudes.
func (c *cpu) idiv64(hi, lo, d uint64) {
	negative := int64(hi) < 0
	if negative {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	m := d
	if int64(d) < 0 {
		m = -d
	}
	if hi >= m {
		c.raise(x86.DE)
	}
	quo, rem := bits.Div64(hi, lo, m)
	if negative {
		rem = -rem
	}
	limit := uint64(1<<63 - 1)
	if negative != (int64(d) < 0) {
		quo = -quo
		if int64(quo) > 0 {
			c.raise(x86.DE)
		}
	} else if quo > limit {
		c.raise(x86.DE)
	}
	c.setQuotient(8, quo, rem)
}

func opCbw(c *cpu, o *op) {
	c.setReg(x86.RAX, o.size, signExtend(c.r[x86.RAX], o.size/2))
}

func opCwd(c *cpu, o *op) {
	s := int64(signExtend(c.r[x86.RAX], o.size)) >> 63
	c.setReg(x86.RDX, o.size, uint64(s))
}

// Bits.

// opBitReg is BT, BTS, BTR and BTC, by op.cond, with the bit's number in a
// register: in memory it reaches beyond the operand.
func opBitReg(c *cpu, o *op) {
	n := c.reg(o.reg, o.size)
	if o.flags&flagMem == 0 {
		c.bitOp(o, n, 0, false)
		return
	}
	words := int64(signExtend(n, o.size)) >> (3 + bits.TrailingZeros8(o.size))
	c.bitOp(o, n, uint64(words)*uint64(o.size), true)
}

func opBitImm(c *cpu, o *op) { c.bitOp(o, o.imm, 0, o.flags&flagMem != 0) }

// bitOp works on bit n, modulo the size, of a register or of the memory offset
// bytes behind the operand.
func (c *cpu) bitOp(o *op, n, offset uint64, mem bool) {
	var at, v uint64
	switch {
	case !mem:
		v = c.reg(o.rm, o.size)
	case o.cond == 0:
		at = c.eaPlus(o, offset)
		v = c.load(at, o.size)
	default:
		at = c.eaPlus(o, offset)
		v = c.loadRMW(at, o.size)
	}
	m := uint64(1) << (n & (8*uint64(o.size) - 1))
	r := v
	switch o.cond {
	case 1:
		r |= m
	case 2:
		r &^= m
	case 3:
		r ^= m
	}
	switch {
	case o.cond == 0:
	case mem:
		c.store(at, o.size, r)
	default:
		c.setReg(o.rm, o.size, r)
	}
	c.setCF(v&m != 0)
}

// eaPlus is the address of memory offset bytes behind the operand, within its
// segment.
func (c *cpu) eaPlus(o *op, offset uint64) uint64 {
	if o.flags&flagSlowEA == 0 {
		return o.ea(c) + offset
	}
	a := o.offset(c) + offset
	if o.addrSize < 8 {
		a &= sizeMask(o.addrSize)
	}
	return c.slowEA(o, a, 0)
}

func opBsf(c *cpu, o *op) { c.bitScan(o, func(v uint64) int { return bits.TrailingZeros64(v) }) }
func opBsr(c *cpu, o *op) { c.bitScan(o, func(v uint64) int { return bits.Len64(v) - 1 }) }

// bitScan leaves the destination where there is no bit, as processors do and
// Linux relies upon (arch/x86/include/asm/bitops.h, variable_ffs).
func (c *cpu) bitScan(o *op, scan func(uint64) int) {
	v := c.readRM(o)
	if v != 0 {
		c.setReg(o.reg, o.size, uint64(scan(v)))
	}
	f := c.rflags() &^ x86.FlagZF
	c.setRFLAGS(f | flag(v == 0, x86.FlagZF))
}

func opPopcnt(c *cpu, o *op) {
	v := c.readRM(o)
	c.setReg(o.reg, o.size, uint64(bits.OnesCount64(v)))
	c.setStatus(flag(v == 0, x86.FlagZF))
}

func opBswap(c *cpu, o *op) {
	switch o.size {
	case 8:
		c.r[o.rm&31] = bits.ReverseBytes64(c.r[o.rm&31])
	case 4:
		c.r[o.rm&31] = uint64(bits.ReverseBytes32(uint32(c.r[o.rm&31])))
	default: // undefined; processors clear the 16 bits
		c.setReg(o.rm, 2, 0)
	}
}

// crcTable is CRC-32C by bytes, of the reflected polynomial 0x11EDC6F41.
var crcTable = func() (t [256]uint32) {
	for i := range t {
		v := uint32(i)
		for range 8 {
			v = v>>1 ^ -(v&1)&0x82f63b78
		}
		t[i] = v
	}
	return t
}()

// opCrc32's source has op.cond bytes.
func opCrc32(c *cpu, o *op) {
	n := o.cond
	var v uint64
	if o.flags&flagMem != 0 {
		v = c.load(o.ea(c), n)
	} else {
		v = c.reg(o.rm, n)
	}
	crc := uint32(c.r[o.reg&31])
	for range n {
		crc = crcTable[uint8(crc)^uint8(v)] ^ crc>>8
		v >>= 8
	}
	c.r[o.reg&31] = uint64(crc)
}

// Conditions.

func opSetcc(c *cpu, o *op) { c.writeRM(o, flag(c.condition(o.cond), 1)) }

func opCmov(c *cpu, o *op) {
	v := c.reg(o.reg, o.size)
	if c.condition(o.cond) {
		v = c.reg(o.rm, o.size)
	}
	c.setReg(o.reg, o.size, v) // clears the upper half even if not moved
}

func opCmovMem(c *cpu, o *op) {
	v := c.load(o.ea(c), o.size) // loaded even if not moved
	if !c.condition(o.cond) {
		v = c.reg(o.reg, o.size)
	}
	c.setReg(o.reg, o.size, v)
}

// Near branches. op.disp leads from the block's start to the next instruction,
// op.imm to the target.

func (c *cpu) branch(o *op, on bool) {
	if on {
		c.r[slotRIP] += o.imm
		c.taken = 1
	} else {
		c.r[slotRIP] += o.disp
		c.taken = 0
	}
}

// jcc are the conditional branches of 64-bit mode by condition code.
var jcc = [16]handler{
	func(c *cpu, o *op) { c.branch(o, c.of()) },
	func(c *cpu, o *op) { c.branch(o, !c.of()) },
	func(c *cpu, o *op) { c.branch(o, c.cf()) },
	func(c *cpu, o *op) { c.branch(o, !c.cf()) },
	func(c *cpu, o *op) { c.branch(o, c.fRes == 0) },
	func(c *cpu, o *op) { c.branch(o, c.fRes != 0) },
	func(c *cpu, o *op) { c.branch(o, c.fRes == 0 || c.cf()) },
	func(c *cpu, o *op) { c.branch(o, c.fRes != 0 && !c.cf()) },
	func(c *cpu, o *op) { c.branch(o, c.sf()) },
	func(c *cpu, o *op) { c.branch(o, !c.sf()) },
	func(c *cpu, o *op) { c.branch(o, c.pf()) },
	func(c *cpu, o *op) { c.branch(o, !c.pf()) },
	func(c *cpu, o *op) { c.branch(o, c.less()) },
	func(c *cpu, o *op) { c.branch(o, !c.less()) },
	func(c *cpu, o *op) { c.branch(o, c.fRes == 0 || c.less()) },
	func(c *cpu, o *op) { c.branch(o, c.fRes != 0 && !c.less()) },
}

// jumpNear checks a near branch's target and goes there. Outside of 64-bit mode
// the operand's size cuts it.
func (c *cpu) jumpNear(target uint64, size uint8) {
	if c.mode&mode64 != 0 {
		if !isCanonical(target) {
			c.raiseGP(0)
		}
	} else {
		target &= sizeMask(size)
		if target > uint64(c.seg[x86.CS].Limit) {
			c.raiseGP(0)
		}
	}
	c.r[slotRIP] = target
	c.taken = 0
}

func opJccLegacy(c *cpu, o *op) {
	if c.condition(o.cond) {
		c.jumpNear(c.r[slotRIP]+o.imm, o.size)
	} else {
		c.jumpNear(c.r[slotRIP]+o.disp, 4)
	}
}

func opJmp(c *cpu, o *op) {
	c.r[slotRIP] += o.imm
	c.taken = 1
}

func opJmpLegacy(c *cpu, o *op) { c.jumpNear(c.r[slotRIP]+o.imm, o.size) }

// opLoop is LOOPNE, LOOPE, LOOP and JCXZ, by op.cond, in every mode.
func opLoop(c *cpu, o *op) {
	n := c.reg(x86.RCX, o.addrSize)
	if o.cond != 3 {
		n = (n - 1) & sizeMask(o.addrSize)
	}
	var on bool
	switch o.cond {
	case 0:
		on = n != 0 && !c.zf()
	case 1:
		on = n != 0 && c.zf()
	case 2:
		on = n != 0
	case 3:
		on = n == 0
	}
	target := c.r[slotRIP] + o.disp
	size := uint8(4)
	if on {
		target, size = c.r[slotRIP]+o.imm, o.size
	}
	c.jumpNear(target, size)
	if o.cond != 3 {
		c.setReg(x86.RCX, o.addrSize, n)
	}
}

func opCall64(c *cpu, o *op) {
	sp := c.r[x86.RSP] - 8
	c.store64(sp, c.r[slotRIP]+o.disp)
	c.r[x86.RSP] = sp
	c.r[slotRIP] += o.imm
	c.taken = 1
}

func opCallLegacy(c *cpu, o *op) { c.callNear(c.r[slotRIP]+o.imm, c.r[slotRIP]+o.disp, o.size) }

// callNear pushes the return address once the target is known to be good.
func (c *cpu) callNear(target, ret uint64, size uint8) {
	rip := c.r[slotRIP]
	c.jumpNear(target, size)
	target, c.r[slotRIP] = c.r[slotRIP], rip
	c.push(ret, size)
	c.r[slotRIP] = target
}

func opCallIndirect(c *cpu, o *op) {
	c.checkOperand(o)
	c.callNear(c.readRM(o), c.r[slotRIP]+uint64(o.off)+uint64(o.length), o.size)
}

func opJmpIndirect(c *cpu, o *op) { c.jumpNear(c.readRM(o), o.size) }

func opRet64(c *cpu, o *op) {
	target := c.load64(c.r[x86.RSP])
	c.jumpNear(target, 8)
	c.r[x86.RSP] += 8 + o.imm
}

func opRet(c *cpu, o *op) {
	sp := c.r[x86.RSP]
	target := c.pop(o.size)
	after := c.r[x86.RSP]
	c.r[x86.RSP] = sp
	c.jumpNear(target, o.size)
	c.setSP(after + o.imm)
}

// Stack.

// setSP sets the stack pointer in the stack's width.
func (c *cpu) setSP(v uint64) { c.setReg(x86.RSP, c.stackWidth(), v) }

// stackWidth is the stack pointer's size in bytes.
func (c *cpu) stackWidth() uint8 {
	switch {
	case c.mode&mode64 != 0:
		return 8
	case c.mode&modeStack != 0:
		return 4
	}
	return 2
}

func opPush64(c *cpu, o *op) {
	sp := c.r[x86.RSP] - 8
	c.store64(sp, c.r[o.rm&31])
	c.r[x86.RSP] = sp
}

func opPop64(c *cpu, o *op) {
	v := c.load64(c.r[x86.RSP])
	c.r[x86.RSP] += 8
	c.r[o.rm&31] = v
}

func opPush(c *cpu, o *op) { c.push(c.reg(o.rm, o.size), o.size) }
func opPushMem(c *cpu, o *op) {
	c.checkOperand(o)
	c.push(c.readRM(o), o.size)
}

// checkOperand tells an operand's address that is not canonical from one of the
// stack, for instructions that access both.
func (c *cpu) checkOperand(o *op) {
	if o.flags&(flagMem|flagStack) != flagMem || c.mode&mode64 == 0 {
		return
	}
	if at := o.ea(c); !isCanonical(at) {
		c.raiseGP(0)
	}
}

func opPushImm(c *cpu, o *op) { c.push(o.imm, o.size) }
func opPop(c *cpu, o *op)     { c.setReg(o.rm, o.size, c.pop(o.size)) }

// opPopMem computes the address with the stack pointer after the pop (SDM
// volume 2, POP).
func opPopMem(c *cpu, o *op) {
	sp := c.r[x86.RSP]
	v := c.pop(o.size)
	after := c.r[x86.RSP]
	at, ok := uint64(0), false
	defer func() {
		if !ok {
			c.r[x86.RSP] = sp
		}
	}()
	c.checkOperand(o)
	at = o.ea(c)
	c.store(at, o.size, v)
	ok = true
	c.r[x86.RSP] = after
}

func opPusha(c *cpu, o *op) {
	sp := c.r[x86.RSP]
	c.probeStack(8 * o.size)
	for n := range uint8(8) {
		v := c.reg(n, o.size)
		if n == x86.RSP {
			v = sp
		}
		c.push(v, o.size)
	}
}

func opPopa(c *cpu, o *op) {
	sp := c.r[x86.RSP]
	var v [8]uint64
	func() {
		defer func() {
			if r := recover(); r != nil {
				c.r[x86.RSP] = sp
				panic(r)
			}
		}()
		for n := range v {
			v[7-n] = c.pop(o.size)
		}
	}()
	for n := range uint8(8) {
		if n != x86.RSP {
			c.setReg(n, o.size, v[n])
		}
	}
}

// probeStack finds out whether n bytes can be pushed.
func (c *cpu) probeStack(n uint8) {
	c.probeWrite(c.stackAddress(c.r[x86.RSP]-uint64(n), n), uint64(n))
}

func opEnter(c *cpu, o *op) {
	level := o.disp
	sp, bp := c.r[x86.RSP], c.r[x86.RBP]
	frame := uint64(0)
	done := false
	defer func() {
		if !done {
			c.r[x86.RSP], c.r[x86.RBP] = sp, bp
		}
	}()
	c.push(c.reg(x86.RBP, o.size), o.size)
	frame = c.r[x86.RSP]
	if level > 0 {
		for range level - 1 {
			c.setReg(x86.RBP, c.stackWidth(), c.r[x86.RBP]-uint64(o.size))
			c.push(c.load(c.stackAddress(c.r[x86.RBP], o.size), o.size), o.size)
		}
		c.push(frame, o.size)
	}
	c.setSP(c.r[x86.RSP] - o.imm)
	// The processor finds out whether the new frame can be written to.
	c.probeWrite(c.stackAddress(c.r[x86.RSP], o.size), uint64(o.size))
	done = true
	c.r[x86.RBP] = bp
	c.setReg(x86.RBP, o.size, frame)
}

func opLeave(c *cpu, o *op) {
	sp := c.r[x86.RSP]
	done := false
	defer func() {
		if !done {
			c.r[x86.RSP] = sp
		}
	}()
	c.setSP(c.r[x86.RBP])
	v := c.pop(o.size)
	done = true
	c.setReg(x86.RBP, o.size, v)
}

// Flags.

func opSahf(c *cpu, _ *op) {
	const ah = x86.FlagSF | x86.FlagZF | x86.FlagAF | x86.FlagPF | x86.FlagCF
	c.setRFLAGS(c.rflags()&^ah | c.r[x86.RAX]>>8&ah)
}

func opLahf(c *cpu, _ *op) {
	c.setByteReg(highByte, c.rflags()&0xff)
}

func opCmc(c *cpu, _ *op) { c.setCF(!c.cf()) }
func opClc(c *cpu, _ *op) { c.setCF(false) }
func opStc(c *cpu, _ *op) { c.setCF(true) }
func opCld(c *cpu, _ *op) { c.flags &^= x86.FlagDF }
func opStd(c *cpu, _ *op) { c.flags |= x86.FlagDF }

func opXlat(c *cpu, o *op) {
	c.setByteReg(x86.RAX, c.load8(c.eaPlus(o, c.r[x86.RAX]&0xff)))
}

// Decimal arithmetic, of 16- and 32-bit code (SDM volume 2, AAA to DAS).

func opAAA(c *cpu, _ *op) { c.asciiAdjust(0x106) }
func opAAS(c *cpu, _ *op) { c.asciiAdjust(^uint64(0x106) + 1) }

func (c *cpu) asciiAdjust(by uint64) {
	f := c.rflags()
	ax := c.r[x86.RAX]
	if adjust := ax&0xf > 9 || f&x86.FlagAF != 0; adjust {
		ax += by
		f |= x86.FlagAF | x86.FlagCF
	} else {
		f &^= x86.FlagAF | x86.FlagCF
	}
	c.setReg(x86.RAX, 2, ax&0xff0f)
	c.setRFLAGS(f)
}

func opDAA(c *cpu, _ *op) { c.decimalAdjust(func(a, b uint64) uint64 { return a + b }) }
func opDAS(c *cpu, _ *op) { c.decimalAdjust(func(a, b uint64) uint64 { return a - b }) }

func (c *cpu) decimalAdjust(apply func(a, b uint64) uint64) {
	f := c.rflags()
	old := c.byteReg(x86.RAX)
	al, cf, af := old, f&x86.FlagCF != 0, false
	if old&0xf > 9 || f&x86.FlagAF != 0 {
		al = apply(al, 6)
		cf = cf || al > 0xff
		af = true
	}
	if old > 0x99 || f&x86.FlagCF != 0 {
		al = apply(al, 0x60)
		cf = true
	}
	al &= 0xff
	c.setByteReg(x86.RAX, al)
	c.setStatus(resultFlags(al, 1) | flag(cf, x86.FlagCF) | flag(af, x86.FlagAF))
}

func opAAM(c *cpu, o *op) {
	if o.imm == 0 {
		c.raise(x86.DE)
	}
	al := c.byteReg(x86.RAX)
	c.setReg(x86.RAX, 2, al/o.imm<<8|al%o.imm)
	c.setStatus(resultFlags(al%o.imm, 1))
}

func opAAD(c *cpu, o *op) {
	al := (c.byteReg(x86.RAX) + c.byteReg(highByte)*o.imm) & 0xff
	c.setReg(x86.RAX, 2, al)
	c.setStatus(resultFlags(al, 1))
}

func opSalc(c *cpu, _ *op) { c.setByteReg(x86.RAX, -flag(c.cf(), 1)&0xff) }
