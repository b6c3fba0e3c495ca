package float

import "math/bits"

// F80 is a double extended precision number as it lies in memory: Mant has an
// explicit integer bit, SE the sign (bit 15) and the biased exponent.
type F80 struct {
	Mant uint64
	SE   uint16
}

const (
	bias80  = 0x3fff
	emin80  = 1 - bias80
	emax80  = bias80
	wrap80  = 24576 // what an unmasked overflow or underflow biases the exponent by
	special = 0x7fff
)

// defaultNaN80 is the real indefinite (4.2.2).
var defaultNaN80 = F80{0xc000000000000000, 0xffff}

func sign80(sign bool) uint16 {
	if sign {
		return 0x8000
	}
	return 0
}

func zero80(sign bool) F80     { return F80{0, sign80(sign)} }
func infinity80(sign bool) F80 { return F80{1 << 63, sign80(sign) | special} }

// unpack80 takes v apart. A pseudo-denormal is a denormal with another name; a
// pseudo-NaN, pseudo-infinity or unnormal is unsupported (8.2.2).
func unpack80(v F80) number {
	x := number{sig: v.Mant, sign: v.SE>>15 != 0, class: finite}
	exp := int(v.SE & special)
	x.exp = exp - bias80
	switch {
	case exp == 0 && v.Mant == 0:
		return number{sign: x.sign}
	case exp == 0:
		n := bits.LeadingZeros64(v.Mant)
		x.sig <<= n
		x.exp = emin80 - n
		x.denormal = true
	case v.Mant>>63 == 0:
		x.class = unsupported
	case exp != special:
	case v.Mant<<1 == 0:
		x.class = infinity
	case v.Mant>>62&1 == 0:
		x.class = signalingNaN
	default:
		x.class = quietNaN
	}
	return x
}

// pack80 rounds r to bits bits by e's rounding mode, with the flags, and sets C1.
func (e *Env) pack80(r exact, bits uint) F80 {
	drop := 64 - bits
	sig, carry, up, inexact := roundBits(e.Rounding, r.sign, r.hi, r.lo, drop)
	exp := r.exp
	if carry {
		sig = 1 << 63
		exp++
	}
	switch {
	case r.exp < emin80:
		tiny := exp < emin80
		if tiny && e.Masks&Underflow == 0 {
			e.Flags |= Underflow
			exp += wrap80
			if exp < emin80 {
				// Only FSCALE gets here: massive underflow.
				sig, exp, up, inexact = 0, -bias80, false, true
			}
			break
		}
		hi, lo := shiftRight(r.hi, r.lo, uint(emin80-r.exp))
		sig, _, up, inexact = roundBits(e.Rounding, r.sign, hi, lo, drop)
		exp = -bias80 + int(sig>>63)
		if inexact && tiny {
			e.Flags |= Underflow
		}
	case exp > emax80:
		e.Flags |= Overflow
		if e.Masks&Overflow == 0 {
			exp -= wrap80
			if exp > emax80 {
				// Only FSCALE gets here: massive overflow.
				sig, exp, up, inexact = 1<<63, emax80+1, true, true
			}
			break
		}
		inexact = true
		up = overflowsToInfinity(e.Rounding, r.sign)
		sig, exp = 1<<63, emax80+1
		if !up {
			sig, exp = ^uint64(0)<<drop, emax80
		}
	}
	if inexact {
		e.Flags |= Inexact
	}
	e.C1 = up
	return F80{sig, sign80(r.sign) | uint16(exp+bias80)}
}

// precise rounds as the precision control says.
func (e *Env) precise(r exact) F80 {
	switch e.Precision {
	case Single:
		return e.pack80(r, 24)
	case Double:
		return e.pack80(r, 53)
	}
	return e.pack80(r, 64)
}

// begin80 takes the operands of an operation apart. With a NaN or an unsupported
// encoding among them, done is true and r the result.
func (e *Env) begin80(a, b F80) (x, y number, r F80, done bool) {
	e.C1 = false
	x, y = unpack80(a), unpack80(b)
	if x.class > infinity || y.class > infinity {
		e.fromDenormal = false
		return x, y, e.nan80(a, b, x.class, y.class), true
	}
	return x, y, F80{}, false
}

// nan80 is table 4-7 for the x87: a quiet NaN before a signaling one, else the
// one with the larger significand, else the positive one.
func (e *Env) nan80(a, b F80, ac, bc class) F80 {
	if ac == unsupported || bc == unsupported {
		return e.invalid80()
	}
	if ac == signalingNaN || bc == signalingNaN {
		e.Flags |= Invalid
	}
	switch {
	case ac <= infinity:
		a = b
	case bc <= infinity:
	case ac != bc:
		if ac == signalingNaN {
			a = b
		}
	case b.Mant > a.Mant || b.Mant == a.Mant && b.SE < a.SE:
		a = b
	}
	a.Mant |= 1 << 62
	return a
}

func (e *Env) invalid80() F80 {
	e.Flags |= Invalid
	e.fromDenormal = false
	return defaultNaN80
}

func (e *Env) divideByZero80(sign bool) F80 {
	e.Flags |= DivideByZero
	e.fromDenormal = false
	return infinity80(sign)
}

// denormal80 raises Denormal if an operand is one, or was one in memory; true
// ends the operation.
func (e *Env) denormal80(x, y number) bool {
	d := x.denormal || y.denormal || e.fromDenormal
	e.fromDenormal = false
	return d && e.stop(Denormal)
}

// Add80 is a+b.
func (e *Env) Add80(a, b F80) F80 { return e.add80(a, b, 0) }

// Sub80 is a-b.
func (e *Env) Sub80(a, b F80) F80 { return e.add80(a, b, 0x8000) }

func (e *Env) add80(a, b F80, negate uint16) F80 {
	x, y, v, done := e.begin80(a, b)
	if done {
		return v
	}
	y.sign = y.sign != (negate != 0)
	if x.class == infinity && y.class == infinity && x.sign != y.sign {
		return e.invalid80()
	}
	if e.denormal80(x, y) {
		return F80{}
	}
	switch {
	case x.class == infinity:
		return infinity80(x.sign)
	case y.class == infinity:
		return infinity80(y.sign)
	case x.class == zero && y.class == zero:
		return zero80(e.zeroSum(x.sign, y.sign))
	case x.class == zero:
		return e.precise(y.exact())
	case y.class == zero:
		return e.precise(x.exact())
	}
	r, isZero := add(x, y)
	if isZero {
		return zero80(e.Rounding == Down)
	}
	return e.precise(r)
}

// Mul80 is a*b.
func (e *Env) Mul80(a, b F80) F80 {
	x, y, v, done := e.begin80(a, b)
	if done {
		return v
	}
	if x.class == infinity && y.class == zero || x.class == zero && y.class == infinity {
		return e.invalid80()
	}
	if e.denormal80(x, y) {
		return F80{}
	}
	sign := x.sign != y.sign
	switch {
	case x.class == infinity || y.class == infinity:
		return infinity80(sign)
	case x.class == zero || y.class == zero:
		return zero80(sign)
	}
	return e.precise(mul(x, y))
}

// Div80 is a/b.
func (e *Env) Div80(a, b F80) F80 {
	x, y, v, done := e.begin80(a, b)
	if done {
		return v
	}
	sign := x.sign != y.sign
	switch {
	case x.class == y.class && x.class != finite:
		return e.invalid80()
	case y.class == zero && x.class == finite:
		return e.divideByZero80(sign)
	}
	if e.denormal80(x, y) {
		return F80{}
	}
	switch {
	case x.class == infinity:
		return infinity80(sign)
	case x.class == zero || y.class == infinity:
		return zero80(sign)
	}
	return e.precise(div(x, y))
}

// Sqrt80 is the square root of a.
func (e *Env) Sqrt80(a F80) F80 {
	x, _, v, done := e.begin80(a, a)
	switch {
	case done:
		return v
	case x.class == zero:
		return a
	case x.sign:
		return e.invalid80()
	case e.denormal80(x, x):
		return F80{}
	case x.class == infinity:
		return a
	}
	return e.precise(sqrt(x))
}

// Cmp80 compares: -1 less, 0 equal, 1 greater, 2 unordered. A signaling NaN or
// an unsupported encoding is Invalid, with signalQuiet (FCOM) a quiet NaN too.
func (e *Env) Cmp80(a, b F80, signalQuiet bool) int {
	x, y, _, unordered := e.begin80(a, b)
	if unordered {
		if signalQuiet {
			e.Flags |= Invalid
		}
		return 2
	}
	e.denormal80(x, y)
	return compare(x, y)
}

// Round80 is FRNDINT.
func (e *Env) Round80(a F80) F80 {
	x, _, v, done := e.begin80(a, a)
	switch {
	case done:
		return v
	case e.denormal80(x, x):
		return F80{}
	case x.class != finite || x.exp >= 63:
		return a
	}
	n, _, up, inexact := x.integer(e.Rounding)
	if inexact {
		e.Flags |= Inexact
	}
	e.C1 = up
	if n == 0 {
		return zero80(x.sign)
	}
	i := fromInteger(int64(n))
	return F80{i.sig, sign80(x.sign) | uint16(i.exp+bias80)}
}

// Scale80 is FSCALE: a times 2 to the integer part of b.
func (e *Env) Scale80(a, b F80) F80 {
	x, y, v, done := e.begin80(a, b)
	if done {
		return v
	}
	if y.class == infinity && (x.class == zero && !y.sign || x.class == infinity && y.sign) {
		return e.invalid80()
	}
	if e.denormal80(x, y) {
		return F80{}
	}
	switch {
	case x.class != finite:
		return a
	case y.class == infinity && y.sign:
		return zero80(x.sign)
	case y.class == infinity:
		return infinity80(x.sign)
	}
	// Beyond 2^17 every number over- or underflows, so that more is the same.
	n, large, _, _ := y.integer(Zero)
	if large {
		n = 1 << 17
	}
	scale := int(min(n, 1<<17))
	if y.sign {
		scale = -scale
	}
	x.exp += scale
	return e.pack80(x.exact(), 64)
}

// Extract80 is FXTRACT: a's significand and its exponent.
func (e *Env) Extract80(a F80) (significand, exponent F80) {
	x, _, v, done := e.begin80(a, a)
	switch {
	case done:
		return v, v
	case x.class == zero:
		return a, e.divideByZero80(true)
	case x.class == infinity:
		return a, infinity80(false)
	case e.denormal80(x, x):
		return F80{}, F80{}
	}
	return F80{x.sig, sign80(x.sign) | bias80}, fromInt80(int64(x.exp))
}

func fromInt80(v int64) F80 {
	if v == 0 {
		return F80{}
	}
	x := fromInteger(v)
	return F80{x.sig, sign80(x.sign) | uint16(x.exp+bias80)}
}

// Rem80 is FPREM: a minus b times their truncated quotient. quotient is its low
// three bits. Where the exponents differ by 64 or more, complete is false and the
// result one that has come nearer (C2: the program repeats the instruction).
func (e *Env) Rem80(a, b F80) (r F80, quotient uint8, complete bool) {
	return e.remainder(a, b, false)
}

// Rem180 is FPREM1, the IEEE remainder: the quotient is rounded to the nearest.
func (e *Env) Rem180(a, b F80) (r F80, quotient uint8, complete bool) {
	return e.remainder(a, b, true)
}

func (e *Env) remainder(a, b F80, nearest bool) (F80, uint8, bool) {
	x, y, v, done := e.begin80(a, b)
	switch {
	case done:
		return v, 0, true
	case x.class == infinity || y.class == zero:
		return e.invalid80(), 0, true
	case e.denormal80(x, y):
		return F80{}, 0, true
	case x.class == zero:
		return a, 0, true
	}
	d := x.exp - y.exp
	// With an infinite b, or one larger than 2a, a is the remainder.
	if y.class == infinity || d < -1 || d < 0 && !nearest {
		return e.pack80(x.exact(), 64), 0, true
	}
	complete := d < 64
	r := exact{exp: y.exp, sign: x.sign}
	switch {
	case !complete:
		// The processor's choice between 32 and 63 bits at a time.
		n := 32 + d%32
		r.exp += d - n
		d = n
	case d < 0:
		// a is b's half or more, or less.
		if x.sig <= y.sig {
			return e.pack80(x.exact(), 64), 0, true
		}
		r.sign = !r.sign
		r.exp--
		r.hi = y.sig<<1 - x.sig // b is less than a: no overflow
		r.normalize()
		return e.pack80(r, 64), 1, true
	}
	// d < 64, so that the upper half is less than b.
	hi, lo := x.sig>>(64-d), x.sig<<d
	var q uint64
	q, r.hi = bits.Div64(hi, lo, y.sig)
	if nearest && complete {
		if rest := y.sig - r.hi; r.hi > rest || r.hi == rest && q&1 != 0 {
			q++
			r.hi = rest
			r.sign = !r.sign
		}
	}
	quotient := uint8(q & 7)
	if !complete {
		quotient = 0
	}
	if r.hi == 0 {
		return zero80(x.sign), quotient, complete
	}
	r.normalize()
	return e.pack80(r, 64), quotient, complete
}

// Operand32 prepares a binary32 operand in memory for the 80-bit operation that
// follows (FADD m32 and its like): unlike FLD it raises nothing and leaves a
// signaling NaN as it is, for the operation to find in its own order.
func (e *Env) Operand32(a uint32) F80 { return e.operand(&binary32, uint64(a)) }

// Operand64 is Operand32 for binary64.
func (e *Env) Operand64(a uint64) F80 { return e.operand(&binary64, a) }

func (e *Env) operand(f *format, a uint64) F80 {
	x := f.unpack(a)
	e.fromDenormal = x.denormal
	switch x.class {
	case zero:
		return zero80(x.sign)
	case finite:
		return F80{x.sig, sign80(x.sign) | uint16(x.exp+bias80)}
	}
	return F80{x.sig, sign80(x.sign) | special}
}

// F32ToF80 is FLD m32.
func (e *Env) F32ToF80(a uint32) F80 { return e.load(&binary32, uint64(a)) }

// F64ToF80 is FLD m64.
func (e *Env) F64ToF80(a uint64) F80 { return e.load(&binary64, a) }

func (e *Env) load(f *format, a uint64) F80 {
	v := e.operand(f, a)
	x, _, r, done := e.begin80(v, v)
	if done {
		return r
	}
	e.denormal80(x, x)
	return v
}

// F80ToF32 is FST m32.
func (e *Env) F80ToF32(a F80) uint32 { return uint32(e.store(&binary32, a)) }

// F80ToF64 is FST m64.
func (e *Env) F80ToF64(a F80) uint64 { return e.store(&binary64, a) }

// store narrows a. Nothing is stored in memory on an unmasked overflow or
// underflow, so that the result isn't inexact either (8.5.6).
func (e *Env) store(f *format, a F80) uint64 {
	e.C1 = false
	x := unpack80(a)
	switch x.class {
	case unsupported:
		e.Flags |= Invalid
		return f.defaultNaN()
	case signalingNaN, quietNaN:
		if x.class == signalingNaN {
			e.Flags |= Invalid
		}
		return f.nanFrom(x)
	case infinity:
		return f.withSign(f.infinity(), x.sign)
	case zero:
		return f.withSign(0, x.sign)
	}
	before, ftz := e.Flags, e.FTZ
	e.Flags, e.FTZ = 0, false // FTZ is SSE's
	v, up := e.pack(f, x.exact())
	e.FTZ = ftz
	if e.Flags&^e.Masks&(Overflow|Underflow) != 0 {
		e.Flags &^= Inexact
		up = false
	}
	e.Flags |= before
	e.C1 = up
	return v
}

// Int64ToF80 is FILD, for the shorter integers too.
func (e *Env) Int64ToF80(v int64) F80 {
	e.C1 = false
	return fromInt80(v)
}

// F80ToInt16 is FIST m16, with truncate FISTTP. What doesn't fit is Invalid and
// gives the integer indefinite, 0x8000.
func (e *Env) F80ToInt16(a F80, truncate bool) int16 { return int16(e.toInt80(a, truncate, 16)) }

// F80ToInt32 is F80ToInt16 for m32.
func (e *Env) F80ToInt32(a F80, truncate bool) int32 { return int32(e.toInt80(a, truncate, 32)) }

// F80ToInt64 is F80ToInt16 for m64.
func (e *Env) F80ToInt64(a F80, truncate bool) int64 { return e.toInt80(a, truncate, 64) }

func (e *Env) toInt80(a F80, truncate bool, size uint) (v int64) {
	v, e.C1 = e.toInteger(unpack80(a), e.truncateOr(truncate), size)
	return v
}

// F80ToBCD is FBSTP: 18 decimal digits, two in a byte, the lowest first, and the
// sign in the last byte. What doesn't fit is Invalid and gives the packed BCD
// indefinite (table 4-4).
func (e *Env) F80ToBCD(a F80) (bcd [10]byte) {
	const limit = 1e18
	e.C1 = false
	x := unpack80(a)
	n, large, up, inexact := x.integer(e.Rounding)
	if x.class > finite || large || n >= limit {
		e.Flags |= Invalid
		bcd[7], bcd[8], bcd[9] = 0xc0, 0xff, 0xff
		return bcd
	}
	if inexact {
		e.Flags |= Inexact
	}
	e.C1 = up
	for i := range 9 {
		bcd[i] = byte(n%10 | n/10%10<<4)
		n /= 100
	}
	if x.sign {
		bcd[9] = 0x80
	}
	return bcd
}

// BCDToF80 is FBLD. A digit above nine counts as what it is, which the manual
// leaves open.
func (e *Env) BCDToF80(bcd [10]byte) F80 {
	e.C1 = false
	var n int64
	for i := 8; i >= 0; i-- {
		n = n*100 + int64(bcd[i]>>4)*10 + int64(bcd[i]&15)
	}
	v := fromInt80(n)
	v.SE |= sign80(bcd[9]>>7 != 0)
	return v
}
