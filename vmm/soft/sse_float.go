package soft

import (
	"cmp"
	"math"

	"fifovm/vmm/soft/float"
	"fifovm/vmm/x86"
)

// Floating-point instructions of SSE (SDM volume 1, chapters 10 and 11). Each
// computes all its elements in one [float.Env], so that their exceptions come
// together, and writes its result only if none of them is unmasked.

// Fields of MXCSR (SDM volume 1, 10.2.3).
const (
	mxcsrFlags      = 0x3f
	mxcsrDAZ        = 1 << 6
	mxcsrMasksShift = 7
	mxcsrRCShift    = 13
	mxcsrFTZ        = 1 << 15
)

// sseEnv is what MXCSR asks for. The flags of masked exceptions are in it from the
// start, which makes the arithmetic faster.
func (c *cpu) sseEnv() float.Env {
	m := c.mxcsr
	masks := uint8(m>>mxcsrMasksShift) & mxcsrFlags
	return float.Env{
		Rounding: uint8(m>>mxcsrRCShift) & 3,
		DAZ:      m&mxcsrDAZ != 0,
		FTZ:      m&mxcsrFTZ != 0,
		Masks:    masks,
		Flags:    uint8(m) & masks,
	}
}

// finishFloat puts the exceptions into MXCSR, and throws if one is not masked.
func (c *cpu) finishFloat(e *float.Env) {
	if e.Flags&^e.Masks != 0 {
		c.raiseFloat(e)
	}
	c.mxcsr |= uint32(e.Flags)
}

func (c *cpu) raiseFloat(e *float.Env) {
	// With an exception of the operands nothing is computed, for no element (SDM
	// volume 1, 11.5.2).
	const before = float.Invalid | float.Denormal | float.DivideByZero
	flags := e.Flags
	if flags&^e.Masks&before != 0 {
		flags &= before
	}
	c.mxcsr |= uint32(flags)
	if c.cr4&x86.CR4OSXMMEXCPT == 0 {
		c.raiseUD()
	}
	c.raise(x86.XM)
}

// arithmetic is what an instruction does with each pair of elements. Numbers and
// a switch: through a function's value the Env would have to be allocated.
type arithmetic uint8

const (
	addition arithmetic = iota
	subtraction
	multiplication
	division
	minimum
	maximum
	squareRoot // of the second operand
)

func arithmetic32(e *float.Env, k arithmetic, a, b uint32) uint32 {
	switch k {
	case addition:
		return e.Add32(a, b)
	case subtraction:
		return e.Sub32(a, b)
	case multiplication:
		return e.Mul32(a, b)
	case division:
		return e.Div32(a, b)
	case minimum:
		return e.Min32(a, b)
	case maximum:
		return e.Max32(a, b)
	}
	return e.Sqrt32(b)
}

func arithmetic64(e *float.Env, k arithmetic, a, b uint64) uint64 {
	switch k {
	case addition:
		return e.Add64(a, b)
	case subtraction:
		return e.Sub64(a, b)
	case multiplication:
		return e.Mul64(a, b)
	case division:
		return e.Div64(a, b)
	case minimum:
		return e.Min64(a, b)
	case maximum:
		return e.Max64(a, b)
	}
	return e.Sqrt64(b)
}

func scalar32(k arithmetic) handler {
	return func(c *cpu, o *op) {
		b := c.operand32(o)
		a := &c.xmm[o.reg&15].lo
		e := c.sseEnv()
		v := arithmetic32(&e, k, uint32(*a), b)
		c.finishFloat(&e)
		*a = low32(*a, v)
	}
}

func scalar64(k arithmetic) handler {
	return func(c *cpu, o *op) {
		b := c.operand64(o)
		a := &c.xmm[o.reg&15].lo
		e := c.sseEnv()
		v := arithmetic64(&e, k, *a, b)
		c.finishFloat(&e)
		*a = v
	}
}

func packed32(k arithmetic) handler {
	return func(c *cpu, o *op) {
		b := c.operand(o).doublewords()
		r := c.xmm[o.reg&15].doublewords()
		e := c.sseEnv()
		for i := range r {
			r[i] = arithmetic32(&e, k, r[i], b[i])
		}
		c.finishFloat(&e)
		c.xmm[o.reg&15] = xmmOfDoublewords(r)
	}
}

func packed64(k arithmetic) handler {
	return func(c *cpu, o *op) {
		b := c.operand(o)
		a := c.xmm[o.reg&15]
		e := c.sseEnv()
		r := xmm{arithmetic64(&e, k, a.lo, b.lo), arithmetic64(&e, k, a.hi, b.hi)}
		c.finishFloat(&e)
		c.xmm[o.reg&15] = r
	}
}

// horizontal32 is HADDPS and HSUBPS.
func horizontal32(k arithmetic) handler {
	return func(c *cpu, o *op) {
		b := c.operand(o).doublewords()
		a := c.xmm[o.reg&15].doublewords()
		e := c.sseEnv()
		r := [4]uint32{
			arithmetic32(&e, k, a[0], a[1]), arithmetic32(&e, k, a[2], a[3]),
			arithmetic32(&e, k, b[0], b[1]), arithmetic32(&e, k, b[2], b[3]),
		}
		c.finishFloat(&e)
		c.xmm[o.reg&15] = xmmOfDoublewords(r)
	}
}

// horizontal64 is HADDPD and HSUBPD.
func horizontal64(k arithmetic) handler {
	return func(c *cpu, o *op) {
		b := c.operand(o)
		a := c.xmm[o.reg&15]
		e := c.sseEnv()
		r := xmm{arithmetic64(&e, k, a.lo, a.hi), arithmetic64(&e, k, b.lo, b.hi)}
		c.finishFloat(&e)
		c.xmm[o.reg&15] = r
	}
}

func opAddsubps(c *cpu, o *op) {
	b := c.operand(o).doublewords()
	a := c.xmm[o.reg&15].doublewords()
	e := c.sseEnv()
	r := [4]uint32{e.Sub32(a[0], b[0]), e.Add32(a[1], b[1]), e.Sub32(a[2], b[2]), e.Add32(a[3], b[3])}
	c.finishFloat(&e)
	c.xmm[o.reg&15] = xmmOfDoublewords(r)
}

func opAddsubpd(c *cpu, o *op) {
	b := c.operand(o)
	a := c.xmm[o.reg&15]
	e := c.sseEnv()
	r := xmm{e.Sub64(a.lo, b.lo), e.Add64(a.hi, b.hi)}
	c.finishFloat(&e)
	c.xmm[o.reg&15] = r
}

// opDpps adds the products that the immediate's upper half selects, and writes the
// sum where its lower half says, else zero. Products, their sums and the sum of
// these are steps: where one has an unmasked exception the next is not taken, and
// those before have left their flags.
func opDpps(c *cpu, o *op) {
	b := c.operand(o).doublewords()
	a := c.xmm[o.reg&15].doublewords()
	e := c.sseEnv()
	var p, r [4]uint32
	for i := range p {
		if o.imm>>(4+i)&1 != 0 {
			p[i] = e.Mul32(a[i], b[i])
		}
	}
	c.finishFloat(&e)
	lo, hi := e.Add32(p[0], p[1]), e.Add32(p[2], p[3])
	c.finishFloat(&e)
	sum := e.Add32(lo, hi)
	c.finishFloat(&e)
	for i := range r {
		if o.imm>>i&1 != 0 {
			r[i] = sum
		}
	}
	c.xmm[o.reg&15] = xmmOfDoublewords(r)
}

// opDppd is opDpps for two elements.
func opDppd(c *cpu, o *op) {
	b := c.operand(o)
	a := c.xmm[o.reg&15]
	e := c.sseEnv()
	var p xmm
	if o.imm>>4&1 != 0 {
		p.lo = e.Mul64(a.lo, b.lo)
	}
	if o.imm>>5&1 != 0 {
		p.hi = e.Mul64(a.hi, b.hi)
	}
	c.finishFloat(&e)
	sum := e.Add64(p.lo, p.hi)
	c.finishFloat(&e)
	c.xmm[o.reg&15] = xmm{sum & -(o.imm & 1), sum & -(o.imm >> 1 & 1)}
}

// RCPPS and RSQRTPS approximate: SDM volume 2 bounds the relative error by
// 1.5*2^-12, and processors differ within that. They look at MXCSR no more than
// that they raise anything: denormals are zeros, on either side.

// approximate gives v with 12 bits after the point, and with the sign of a.
func approximate(a uint32, v float64) uint32 {
	const dropped = 23 - 12
	sign := a >> 31 << 31
	if v < 0x1p-126 {
		return sign
	}
	r := math.Float32bits(float32(v)) + 1<<(dropped-1)
	return sign | r>>dropped<<dropped
}

func rcp32(a uint32) uint32 {
	magnitude := a &^ (1 << 31)
	switch {
	case magnitude > infinity32:
		return a | quiet32
	case magnitude == infinity32:
		return a ^ infinity32
	case magnitude < smallest32:
		return a>>31<<31 | infinity32
	}
	return approximate(a, 1/float64(math.Float32frombits(magnitude)))
}

func rsqrt32(a uint32) uint32 {
	magnitude := a &^ (1 << 31)
	switch {
	case magnitude > infinity32:
		return a | quiet32
	case magnitude < smallest32:
		return a>>31<<31 | infinity32
	case a>>31 != 0:
		return 1<<31 | infinity32 | quiet32
	case magnitude == infinity32:
		return 0
	}
	return approximate(a, 1/math.Sqrt(float64(math.Float32frombits(a))))
}

// Encodings of binary32.
const (
	infinity32 = 0xff << 23
	quiet32    = 1 << 22 // set in a NaN that is quiet
	smallest32 = 1 << 23 // of the normal numbers
)

func packedApproximation(f func(uint32) uint32) handler {
	return func(c *cpu, o *op) {
		v := c.operand(o).doublewords()
		for i := range v {
			v[i] = f(v[i])
		}
		c.xmm[o.reg&15] = xmmOfDoublewords(v)
	}
}

func scalarApproximation(f func(uint32) uint32) handler {
	return func(c *cpu, o *op) {
		v := f(c.operand32(o))
		a := &c.xmm[o.reg&15].lo
		*a = low32(*a, v)
	}
}

// holds tells whether a comparison's outcome (as float.Env gives it) fulfills a
// predicate of CMPPS. From LT on, but for UNORD and EQ, a quiet NaN is invalid.
func holds(predicate uint64, outcome int) bool {
	var r bool
	switch predicate & 3 {
	case 0: // EQ
		r = outcome == 0
	case 1: // LT
		r = outcome == -1
	case 2: // LE
		r = outcome == -1 || outcome == 0
	case 3: // UNORD
		r = outcome == 2
	}
	return r != (predicate&4 != 0)
}

func signalsQuiet(predicate uint64) bool { return predicate&3 == 1 || predicate&3 == 2 }

func compare32(e *float.Env, predicate uint64, a, b uint32) uint32 {
	if holds(predicate, e.Cmp32(a, b, signalsQuiet(predicate))) {
		return ^uint32(0)
	}
	return 0
}

func compare64(e *float.Env, predicate, a, b uint64) uint64 {
	if holds(predicate, e.Cmp64(a, b, signalsQuiet(predicate))) {
		return ^uint64(0)
	}
	return 0
}

func opCmpps(c *cpu, o *op) {
	b := c.operand(o).doublewords()
	r := c.xmm[o.reg&15].doublewords()
	e := c.sseEnv()
	for i := range r {
		r[i] = compare32(&e, o.imm, r[i], b[i])
	}
	c.finishFloat(&e)
	c.xmm[o.reg&15] = xmmOfDoublewords(r)
}

func opCmppd(c *cpu, o *op) {
	b := c.operand(o)
	a := c.xmm[o.reg&15]
	e := c.sseEnv()
	r := xmm{compare64(&e, o.imm, a.lo, b.lo), compare64(&e, o.imm, a.hi, b.hi)}
	c.finishFloat(&e)
	c.xmm[o.reg&15] = r
}

func opCmpss(c *cpu, o *op) {
	b := c.operand32(o)
	a := &c.xmm[o.reg&15].lo
	e := c.sseEnv()
	v := compare32(&e, o.imm, uint32(*a), b)
	c.finishFloat(&e)
	*a = low32(*a, v)
}

func opCmpsd(c *cpu, o *op) {
	b := c.operand64(o)
	a := &c.xmm[o.reg&15].lo
	e := c.sseEnv()
	v := compare64(&e, o.imm, *a, b)
	c.finishFloat(&e)
	*a = v
}

func opUcomiss(c *cpu, o *op) { c.comiss(o, false) }
func opComiss(c *cpu, o *op)  { c.comiss(o, true) }
func opUcomisd(c *cpu, o *op) { c.comisd(o, false) }
func opComisd(c *cpu, o *op)  { c.comisd(o, true) }

func (c *cpu) comiss(o *op, signalQuiet bool) {
	b := c.operand32(o)
	e := c.sseEnv()
	outcome := e.Cmp32(uint32(c.xmm[o.reg&15].lo), b, signalQuiet)
	c.finishFloat(&e)
	c.setOutcome(outcome)
}

func (c *cpu) comisd(o *op, signalQuiet bool) {
	b := c.operand64(o)
	a := c.xmm[o.reg&15].lo
	if plain64(a) && plain64(b) {
		c.setOutcome(cmp.Compare(math.Float64frombits(a), math.Float64frombits(b)))
		return
	}
	e := c.sseEnv()
	outcome := e.Cmp64(a, b, signalQuiet)
	c.finishFloat(&e)
	c.setOutcome(outcome)
}

// plain64 tells that v is a normal number or zero, whose comparison raises
// nothing.
func plain64(v uint64) bool { return v>>52&0x7ff-1 < 0x7fe || v<<1 == 0 }

// setOutcome sets the flags by a comparison (SDM volume 2, COMISS).
func (c *cpu) setOutcome(outcome int) {
	c.setStatus([4]uint64{x86.FlagCF, x86.FlagZF, 0, x86.FlagZF | x86.FlagPF | x86.FlagCF}[outcome+1&3])
}

// Conversions.

// pair is two doublewords.
func pair(lo, hi uint32) uint64 { return uint64(lo) | uint64(hi)<<32 }

func opCvtsi2ss(c *cpu, o *op) {
	v := c.general(o)
	a := &c.xmm[o.reg&15].lo
	e := c.sseEnv()
	var r uint32
	if o.size == 8 {
		r = e.Int64ToF32(int64(v))
	} else {
		r = e.Int32ToF32(int32(v))
	}
	c.finishFloat(&e)
	*a = low32(*a, r)
}

func opCvtsi2sd(c *cpu, o *op) {
	v := c.general(o)
	e := c.sseEnv()
	var r uint64
	if o.size == 8 {
		r = e.Int64ToF64(int64(v))
	} else {
		r = e.Int32ToF64(int32(v))
	}
	c.finishFloat(&e)
	c.xmm[o.reg&15].lo = r
}

func opCvtss2si(c *cpu, o *op)  { c.cvtss2si(o, false) }
func opCvttss2si(c *cpu, o *op) { c.cvtss2si(o, true) }
func opCvtsd2si(c *cpu, o *op)  { c.cvtsd2si(o, false) }
func opCvttsd2si(c *cpu, o *op) { c.cvtsd2si(o, true) }

func (c *cpu) cvtss2si(o *op, truncate bool) {
	v := c.operand32(o)
	e := c.sseEnv()
	var r uint64
	if o.size == 8 {
		r = uint64(e.F32ToInt64(v, truncate))
	} else {
		r = uint64(uint32(e.F32ToInt32(v, truncate)))
	}
	c.finishFloat(&e)
	c.r[o.reg&15] = r
}

func (c *cpu) cvtsd2si(o *op, truncate bool) {
	v := c.operand64(o)
	e := c.sseEnv()
	var r uint64
	if o.size == 8 {
		r = uint64(e.F64ToInt64(v, truncate))
	} else {
		r = uint64(uint32(e.F64ToInt32(v, truncate)))
	}
	c.finishFloat(&e)
	c.r[o.reg&15] = r
}

func opCvtss2sd(c *cpu, o *op) {
	v := c.operand32(o)
	e := c.sseEnv()
	r := e.F32ToF64(v)
	c.finishFloat(&e)
	c.xmm[o.reg&15].lo = r
}

func opCvtsd2ss(c *cpu, o *op) {
	v := c.operand64(o)
	a := &c.xmm[o.reg&15].lo
	e := c.sseEnv()
	r := e.F64ToF32(v)
	c.finishFloat(&e)
	*a = low32(*a, r)
}

func opCvtps2pd(c *cpu, o *op) {
	v := c.operand64(o)
	e := c.sseEnv()
	r := xmm{e.F32ToF64(uint32(v)), e.F32ToF64(uint32(v >> 32))}
	c.finishFloat(&e)
	c.xmm[o.reg&15] = r
}

func opCvtpd2ps(c *cpu, o *op) {
	v := c.operand(o)
	e := c.sseEnv()
	r := pair(e.F64ToF32(v.lo), e.F64ToF32(v.hi))
	c.finishFloat(&e)
	c.xmm[o.reg&15] = xmm{lo: r}
}

func opCvtdq2ps(c *cpu, o *op) {
	v := c.operand(o).doublewords()
	e := c.sseEnv()
	for i := range v {
		v[i] = e.Int32ToF32(int32(v[i]))
	}
	c.finishFloat(&e)
	c.xmm[o.reg&15] = xmmOfDoublewords(v)
}

// opCvtdq2pd is exact.
func opCvtdq2pd(c *cpu, o *op) {
	v := c.operand64(o)
	e := c.sseEnv()
	c.xmm[o.reg&15] = xmm{e.Int32ToF64(int32(v)), e.Int32ToF64(int32(v >> 32))}
}

func opCvtps2dq(c *cpu, o *op)  { c.cvtps2dq(o, false) }
func opCvttps2dq(c *cpu, o *op) { c.cvtps2dq(o, true) }

func (c *cpu) cvtps2dq(o *op, truncate bool) {
	v := c.operand(o).doublewords()
	e := c.sseEnv()
	for i := range v {
		v[i] = uint32(e.F32ToInt32(v[i], truncate))
	}
	c.finishFloat(&e)
	c.xmm[o.reg&15] = xmmOfDoublewords(v)
}

func opCvtpd2dq(c *cpu, o *op)  { c.cvtpd2dq(o, false) }
func opCvttpd2dq(c *cpu, o *op) { c.cvtpd2dq(o, true) }

func (c *cpu) cvtpd2dq(o *op, truncate bool) {
	v := c.operand(o)
	e := c.sseEnv()
	r := pair(uint32(e.F64ToInt32(v.lo, truncate)), uint32(e.F64ToInt32(v.hi, truncate)))
	c.finishFloat(&e)
	c.xmm[o.reg&15] = xmm{lo: r}
}

// Conversions between XMM and MMX registers. The x87 gets into MMX state, or
// throws its own pending exception, before the arithmetic.

// opCvtpi2ps leaves the x87 alone where its operand is in memory, as AMD's
// processors do. Intel's manual says that only of CVTPI2PD.
func opCvtpi2ps(c *cpu, o *op) {
	v := c.mmOperand(o)
	if o.flags&flagMem == 0 {
		c.enterMMX()
	}
	e := c.sseEnv()
	r := pair(e.Int32ToF32(int32(v)), e.Int32ToF32(int32(v>>32)))
	c.finishFloat(&e)
	c.xmm[o.reg&15].lo = r
}

// opCvtpi2pd is exact.
func opCvtpi2pd(c *cpu, o *op) {
	v := c.mmOperand(o)
	if o.flags&flagMem == 0 {
		c.enterMMX()
	}
	e := c.sseEnv()
	c.xmm[o.reg&15] = xmm{e.Int32ToF64(int32(v)), e.Int32ToF64(int32(v >> 32))}
}

func opCvtps2pi(c *cpu, o *op)  { c.cvtps2pi(o, false) }
func opCvttps2pi(c *cpu, o *op) { c.cvtps2pi(o, true) }

func (c *cpu) cvtps2pi(o *op, truncate bool) {
	v := c.operand64(o)
	c.enterMMX()
	e := c.sseEnv()
	r := pair(uint32(e.F32ToInt32(uint32(v), truncate)), uint32(e.F32ToInt32(uint32(v>>32), truncate)))
	c.finishFloat(&e)
	c.setMM(o.reg&7, r)
}

func opCvtpd2pi(c *cpu, o *op)  { c.cvtpd2pi(o, false) }
func opCvttpd2pi(c *cpu, o *op) { c.cvtpd2pi(o, true) }

func (c *cpu) cvtpd2pi(o *op, truncate bool) {
	v := c.operand(o)
	c.enterMMX()
	e := c.sseEnv()
	r := pair(uint32(e.F64ToInt32(v.lo, truncate)), uint32(e.F64ToInt32(v.hi, truncate)))
	c.finishFloat(&e)
	c.setMM(o.reg&7, r)
}

// Rounding to an integer (SDM volume 2, ROUNDPS, figure 4-24): the immediate's
// fields.
const (
	roundMode       = 3
	roundMXCSR      = 1 << 2 // as MXCSR says
	roundSuppresses = 1 << 3 // the inexact exception
)

func (o *op) rounding(e *float.Env) (mode uint8, suppressInexact bool) {
	mode = uint8(o.imm) & roundMode
	if o.imm&roundMXCSR != 0 {
		mode = e.Rounding
	}
	return mode, o.imm&roundSuppresses != 0
}

func opRoundps(c *cpu, o *op) {
	v := c.operand(o).doublewords()
	e := c.sseEnv()
	mode, suppress := o.rounding(&e)
	for i := range v {
		v[i] = e.Round32(v[i], mode, suppress)
	}
	c.finishFloat(&e)
	c.xmm[o.reg&15] = xmmOfDoublewords(v)
}

func opRoundpd(c *cpu, o *op) {
	v := c.operand(o)
	e := c.sseEnv()
	mode, suppress := o.rounding(&e)
	r := xmm{e.Round64(v.lo, mode, suppress), e.Round64(v.hi, mode, suppress)}
	c.finishFloat(&e)
	c.xmm[o.reg&15] = r
}

func opRoundss(c *cpu, o *op) {
	v := c.operand32(o)
	a := &c.xmm[o.reg&15].lo
	e := c.sseEnv()
	mode, suppress := o.rounding(&e)
	r := e.Round32(v, mode, suppress)
	c.finishFloat(&e)
	*a = low32(*a, r)
}

func opRoundsd(c *cpu, o *op) {
	v := c.operand64(o)
	e := c.sseEnv()
	mode, suppress := o.rounding(&e)
	r := e.Round64(v, mode, suppress)
	c.finishFloat(&e)
	c.xmm[o.reg&15].lo = r
}
