package float

import "math/bits"

// format is one of the two IEEE formats that SSE computes in.
type format struct {
	frac uint // bits of the fraction field
	bias int
	size uint // bits
}

var (
	binary32 = format{frac: 23, bias: 127, size: 32}
	binary64 = format{frac: 52, bias: 1023, size: 64}
)

func (f *format) signBit() uint64     { return 1 << (f.size - 1) }
func (f *format) quietBit() uint64    { return 1 << (f.frac - 1) }
func (f *format) infinity() uint64    { return f.signBit() - 1<<f.frac }
func (f *format) defaultNaN() uint64  { return f.signBit() | f.infinity() | f.quietBit() }
func (f *format) isNaN(v uint64) bool { return v&^f.signBit() > f.infinity() }
func (f *format) isSignaling(v uint64) bool {
	return f.isNaN(v) && v&f.quietBit() == 0
}

// withSign gives v the sign.
func (f *format) withSign(v uint64, sign bool) uint64 {
	if sign {
		v |= f.signBit()
	}
	return v
}

// unpack takes v apart. A NaN's fraction comes out left-aligned as the x87 would
// have it, with the integer bit set and still signaling where it was.
func (f *format) unpack(v uint64) number {
	x := number{sign: v&f.signBit() != 0, class: finite}
	exp := int(v >> f.frac & (1<<(f.size-1-f.frac) - 1))
	frac := v & (1<<f.frac - 1)
	x.sig = 1<<63 | frac<<(63-f.frac)
	x.exp = exp - f.bias
	switch {
	case exp == 2*f.bias+1:
		switch {
		case frac == 0:
			x.class = infinity
		case v&f.quietBit() == 0:
			x.class = signalingNaN
		default:
			x.class = quietNaN
		}
	case exp != 0:
	case frac == 0:
		return number{sign: x.sign}
	default:
		n := bits.LeadingZeros64(frac)
		x.sig = frac << n
		x.exp = 1 - f.bias - n + int(63-f.frac)
		x.denormal = true
	}
	return x
}

// pack rounds r to f by e's rounding mode and raises what that raises. up is
// whether the magnitude grew. Unless both masks are set, the result of an
// overflow or underflow means nothing.
func (e *Env) pack(f *format, r exact) (v uint64, up bool) {
	drop := 63 - f.frac
	emin := 1 - f.bias
	sig, carry, up, inexact := roundBits(e.Rounding, r.sign, r.hi, r.lo, drop)
	exp := r.exp
	if carry {
		sig = 1 << 63
		exp++
	}
	if r.exp < emin {
		// Tininess is detected after rounding as if the exponent had no bound.
		tiny := exp < emin
		if tiny && e.Masks&Underflow == 0 {
			e.Flags |= Underflow
			if inexact {
				e.Flags |= Inexact
			}
			return 0, false
		}
		if tiny && e.FTZ {
			e.Flags |= Underflow | Inexact
			return f.withSign(0, r.sign), false
		}
		hi, lo := shiftRight(r.hi, r.lo, uint(emin-r.exp))
		// A carry to the smallest normal number is one into the exponent field.
		sig, _, up, inexact = roundBits(e.Rounding, r.sign, hi, lo, drop)
		if inexact {
			e.Flags |= Inexact
			if tiny {
				e.Flags |= Underflow
			}
		}
		return f.withSign(sig>>drop, r.sign), up
	}
	if exp > f.bias {
		e.Flags |= Overflow
		if e.Masks&Overflow != 0 || inexact {
			e.Flags |= Inexact
		}
		if overflowsToInfinity(e.Rounding, r.sign) {
			return f.withSign(f.infinity(), r.sign), true
		}
		return f.withSign(f.infinity()-1, r.sign), false
	}
	if inexact {
		e.Flags |= Inexact
	}
	// The integer bit adds one to the exponent field.
	return f.withSign(uint64(exp+f.bias-1)<<f.frac+sig>>drop, r.sign), up
}
