package float

import (
	"math"
	"math/bits"
)

type class uint8

const (
	zero class = iota
	finite
	infinity
	quietNaN
	signalingNaN
	unsupported // an 80-bit encoding that the x87 rejects (8.2.2)
)

// number is an operand taken apart. A finite one is sig/2^63 * 2^exp with sig's
// top bit set, so that the three formats share their arithmetic.
type number struct {
	sig      uint64
	exp      int
	class    class
	sign     bool
	denormal bool
}

// exact is a result before rounding: hi and lo are one significand of 128 bits,
// hi's top bit is set, and lo's last bit also stands for everything below it.
type exact struct {
	hi, lo uint64
	exp    int
	sign   bool
}

func (x number) exact() exact { return exact{hi: x.sig, exp: x.exp, sign: x.sign} }

// shiftRight shifts 128 bits right by n; what falls out is or'ed into the last bit.
func shiftRight(hi, lo uint64, n uint) (uint64, uint64) {
	var out uint64
	switch {
	case n == 0:
		return hi, lo
	case n < 64:
		out = lo << (64 - n)
		lo = hi<<(64-n) | lo>>n
		hi >>= n
	case n < 128:
		// A shift by 64 gives 0 in Go, as wanted for n == 64.
		out = lo | hi<<(128-n)
		lo = hi >> (n - 64)
		hi = 0
	default:
		return 0, nonzero(hi | lo)
	}
	return hi, lo | nonzero(out)
}

func nonzero(x uint64) uint64 {
	if x != 0 {
		return 1
	}
	return 0
}

// roundBits rounds hi:lo to a multiple of 2^drop in hi, drop < 64. When the sum
// carries out of hi, carry is true and what is left in hi is 0.
func roundBits(mode uint8, sign bool, hi, lo uint64, drop uint) (rounded uint64, carry, up, inexact bool) {
	rest := lo
	if drop > 0 {
		rest = hi<<(64-drop) | nonzero(lo)
		hi &^= 1<<drop - 1
	}
	if rest == 0 {
		return hi, false, false, false
	}
	switch mode {
	case Nearest:
		up = rest > 1<<63 || rest == 1<<63 && hi>>drop&1 != 0
	case Down:
		up = sign
	case Up:
		up = !sign
	}
	if up {
		hi += 1 << drop
		carry = hi == 0
	}
	return hi, carry, up, true
}

// overflowsToInfinity tells what the masked response to an overflow is (table
// 4-11): infinity, else the largest finite number.
func overflowsToInfinity(mode uint8, sign bool) bool {
	switch mode {
	case Down:
		return sign
	case Up:
		return !sign
	case Zero:
		return false
	}
	return true
}

// add gives x+y for finite operands that aren't zero; isZero tells that they
// cancel.
func add(x, y number) (r exact, isZero bool) {
	if x.exp < y.exp || x.exp == y.exp && x.sig < y.sig {
		x, y = y, x
	}
	hi, lo := shiftRight(y.sig, 0, uint(x.exp-y.exp))
	r = exact{exp: x.exp, sign: x.sign}
	if x.sign == y.sign {
		var carry uint64
		r.lo = lo
		r.hi, carry = bits.Add64(x.sig, hi, 0)
		if carry != 0 {
			r.hi, r.lo = shiftRight(r.hi, r.lo, 1)
			r.hi |= 1 << 63
			r.exp++
		}
		return r, false
	}
	var borrow uint64
	r.lo, borrow = bits.Sub64(0, lo, 0)
	r.hi, _ = bits.Sub64(x.sig, hi, borrow)
	if r.hi|r.lo == 0 {
		return r, true
	}
	// Bits are lost below lo only when y is far smaller, and then at most one
	// place is cancelled, so that the last bit stays far below what is rounded.
	r.normalize()
	return r, false
}

// normalize moves the first bit that is set to the top.
func (r *exact) normalize() {
	if r.hi == 0 {
		r.hi, r.lo, r.exp = r.lo, 0, r.exp-64
	}
	n := bits.LeadingZeros64(r.hi)
	r.hi = r.hi<<n | r.lo>>(64-n)
	r.lo <<= n
	r.exp -= n
}

// mul gives x*y for finite operands that aren't zero.
func mul(x, y number) exact {
	r := exact{exp: x.exp + y.exp + 1, sign: x.sign != y.sign}
	r.hi, r.lo = bits.Mul64(x.sig, y.sig)
	if r.hi>>63 == 0 {
		r.hi = r.hi<<1 | r.lo>>63
		r.lo <<= 1
		r.exp--
	}
	return r
}

// div gives x/y for finite operands that aren't zero.
func div(x, y number) exact {
	r := exact{exp: x.exp - y.exp, sign: x.sign != y.sign}
	var rem uint64
	if x.sig >= y.sig {
		r.hi, rem = bits.Div64(x.sig>>1, x.sig<<63, y.sig)
	} else {
		r.hi, rem = bits.Div64(x.sig, 0, y.sig)
		r.exp--
	}
	// One more bit of the quotient and whether anything follows.
	if rem != 0 {
		r.lo = 1
		if half := y.sig - rem; rem >= half {
			r.lo = 1<<63 | nonzero(rem-half)
		}
	}
	return r
}

// sqrt gives the root of a finite positive number.
func sqrt(x number) exact {
	r := exact{exp: x.exp >> 1}
	// The radicand as an integer of 128 bits whose root has 64.
	hi, lo := x.sig>>1, x.sig<<63
	if x.exp&1 != 0 {
		hi, lo = x.sig, 0
	}
	// 52 bits of the root from the host (IEEE 754 defines each of them), the
	// rest by one step of Newton's method, which ends on the root or above it.
	q := uint64(math.MaxUint64)
	if s := math.Sqrt(float64(hi)) * (1 << 32); s < 1<<64 && uint64(s) > hi {
		q = uint64(s)
	}
	d := uint64(math.MaxUint64)
	if hi < q {
		d, _ = bits.Div64(hi, lo, q)
	}
	sum, carry := bits.Add64(q, d, 0)
	q = sum>>1 | carry<<63
	for {
		h, l := bits.Mul64(q, q)
		remLo, borrow := bits.Sub64(lo, l, 0)
		remHi, borrow := bits.Sub64(hi, h, borrow)
		if borrow != 0 {
			q--
			continue
		}
		// The root lies above q+1/2 if and only if the remainder exceeds q.
		r.hi = q
		if remHi != 0 || remLo > q {
			r.lo = 1 << 63
		}
		r.lo |= nonzero(remHi | remLo)
		return r
	}
}

// integer rounds |x| to an integer; large tells that it doesn't fit in 64 bits.
func (x number) integer(mode uint8) (n uint64, large, up, inexact bool) {
	if x.class == zero {
		return 0, false, false, false
	}
	if x.exp > 63 {
		return 0, true, false, false
	}
	hi, lo := shiftRight(x.sig, 0, uint(63-x.exp))
	n, _, up, inexact = roundBits(mode, x.sign, hi, lo, 0)
	return n, false, up, inexact
}

// fromInteger is an integer as an operand.
func fromInteger(v int64) number {
	x := number{sign: v < 0, class: finite, exp: 63}
	if v == 0 {
		return number{}
	}
	x.sig = uint64(v)
	if x.sign {
		x.sig = -x.sig
	}
	n := bits.LeadingZeros64(x.sig)
	x.sig <<= n
	x.exp -= n
	return x
}

// compare orders two operands that aren't NaNs.
func compare(x, y number) int {
	switch {
	case x.class == zero && y.class == zero:
		return 0
	case x.class == zero:
		return bySign(!y.sign)
	case y.class == zero || x.sign != y.sign:
		return bySign(x.sign)
	}
	return bySign(x.sign) * magnitude(x, y)
}

func bySign(negative bool) int {
	if negative {
		return -1
	}
	return 1
}

// magnitude orders |x| and |y|, neither zero nor NaN.
func magnitude(x, y number) int {
	switch {
	case x.class != y.class:
		return bySign(y.class == infinity)
	case x.class == infinity:
		return 0
	case x.exp != y.exp:
		return bySign(x.exp < y.exp)
	case x.sig != y.sig:
		return bySign(x.sig < y.sig)
	}
	return 0
}
