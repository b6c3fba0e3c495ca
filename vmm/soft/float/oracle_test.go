package float

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// operands makes numbers with a bent for edges: powers of two, long runs of equal
// bits, denormals, the ends of the exponent's range, pairs of near magnitude.
type operands struct{ *rand.Rand }

func newOperands(seed uint64) operands { return operands{rand.New(rand.NewPCG(seed, 0))} }

func (o operands) fraction(bits uint) uint64 {
	mask := uint64(1)<<bits - 1
	v := o.Uint64() & mask
	switch o.IntN(7) {
	case 0:
		v = 0
	case 1:
		v = mask
	case 2:
		v = o.Uint64N(4)
	case 3:
		v = mask>>1 + o.Uint64N(3)
	case 4:
		v &= math.MaxUint64 << o.UintN(bits)
	case 5:
		v >>= o.UintN(bits)
	}
	return v & mask
}

// exponent gives a biased exponent, often near the one of other.
func (o operands) exponent(other, bias, bits int) int {
	e := bias
	switch o.IntN(9) {
	case 0:
		e = 0
	case 1:
		e = 2*bias + 1
	case 2:
		e = 1 + o.IntN(bits+2)
	case 3:
		e = 2*bias - o.IntN(4)
	case 4:
		e = o.IntN(2 * bias)
	case 5:
		e += o.IntN(2*bits) - bits
	case 6:
		e = bias/2 + o.IntN(8) // squares underflow
	default:
		e = other + o.IntN(9) - 4
	}
	return min(max(e, 0), 2*bias+1)
}

func (o operands) next(f *format, other uint64) uint64 {
	exponent := o.exponent(int(other&^f.signBit()>>f.frac), f.bias, int(f.frac)+1)
	v := uint64(exponent)<<f.frac | o.fraction(f.frac)
	return f.withSign(v, o.IntN(2) == 0)
}

func (o operands) next80(other F80) F80 {
	e := o.exponent(int(other.SE&special), bias80, 64)
	v := F80{o.fraction(63), sign80(o.IntN(2) == 0) | uint16(e)}
	if e != 0 && o.IntN(50) != 0 || e == 0 && o.IntN(5) == 0 {
		v.Mant |= 1 << 63
	}
	return v
}

// truth is a result, computed by math/big toward zero with far more bits than
// any format has; more tells that it is not all.
type truth struct {
	v    *big.Float
	more bool
}

const truthBits = 400

func truly(op string, a, b *big.Float) (r truth) {
	z := new(big.Float).SetPrec(truthBits).SetMode(big.ToZero)
	switch op {
	case "add":
		z.Add(a, b)
	case "sub":
		z.Sub(a, b)
	case "mul":
		z.Mul(a, b)
	case "div":
		z.Quo(a, b)
	case "sqrt":
		// A root of 64 bits can't come so near to the middle between two numbers
		// that its own rounding matters.
		z.Sqrt(a)
		square := new(big.Float).SetPrec(3*truthBits).Mul(z, z)
		return truth{z, square.Cmp(a) != 0}
	case "same":
		z.Set(a)
	}
	return truth{z, z.Acc() != big.Exact}
}

// rounded is the answer of IEEE 754 for a format with bits of precision and the
// least exponent emin.
type rounded struct {
	v     *big.Float // its magnitude may have no place in the format: overflow
	flags uint8
	up    bool
}

// unit rounds t to a multiple of 2^quantum. It knows nothing of math/big's own
// rounding: it counts units.
func (t truth) unit(quantum int, mode uint8) (v *big.Float, inexact, up bool) {
	negative := t.v.Signbit()
	scaled := new(big.Float).SetMantExp(t.v, -quantum)
	n, _ := scaled.Abs(scaled).Int(nil)
	rest := new(big.Float).Sub(scaled, new(big.Float).SetInt(n))
	half := rest.Cmp(big.NewFloat(0.5))
	inexact = rest.Sign() != 0 || t.more
	switch mode {
	case Nearest:
		up = half > 0 || half == 0 && (t.more || n.Bit(0) == 1)
	case Down:
		up = inexact && negative
	case Up:
		up = inexact && !negative
	}
	if up {
		n.Add(n, big.NewInt(1))
	}
	v = new(big.Float).SetInt(n)
	v.SetMantExp(v, quantum)
	if negative {
		v.Neg(v)
	}
	return v, inexact, up
}

func (t truth) round(bits, emin int, mode uint8) rounded {
	exp := t.v.MantExp(nil) - 1
	v, inexact, up := t.unit(exp-bits+1, mode)
	r := rounded{v: v, up: up}
	if exp < emin {
		tiny := v.MantExp(nil)-1 < emin
		r.v, inexact, r.up = t.unit(emin-bits+1, mode)
		if tiny && inexact {
			r.flags |= Underflow
		}
	}
	if inexact {
		r.flags |= Inexact
	}
	if r.v.Sign() != 0 && r.v.MantExp(nil)-1 > 1-emin {
		// What overflows is the largest number or infinity: next to zero.
		r.flags = Overflow | Inexact
		negative := t.v.Signbit()
		r.up = mode == Nearest || mode == Down && negative || mode == Up && !negative
		r.v = new(big.Float).SetMantExp(one, 2-emin)
		if r.up {
			r.v.SetInf(false)
		} else {
			r.v.Sub(r.v, new(big.Float).SetMantExp(one, 2-emin-bits))
		}
		if negative {
			r.v.Neg(r.v)
		}
	}
	return r
}

// value64 and value80 are independent of the package's unpacking.
func value64(v uint64) *big.Float { return new(big.Float).SetFloat64(math.Float64frombits(v)) }
func value32(v uint64) *big.Float {
	return new(big.Float).SetFloat64(float64(math.Float32frombits(uint32(v))))
}

func value80(v F80) *big.Float {
	r := new(big.Float).SetUint64(v.Mant)
	r.SetMantExp(r, max(int(v.SE&special), 1)-bias80-63)
	if v.SE&special == special {
		r.SetInf(false)
	}
	if v.SE>>15 != 0 {
		r.Neg(r)
	}
	return r
}

// ordinary tells whether a number needs no special rule: neither zero nor
// infinite, nor a NaN.
func ordinary(f *format, v uint64) bool {
	v &^= f.signBit()
	return v != 0 && v < f.infinity()
}

// TestExactOracle compares results and flags in all rounding modes with exact
// arithmetic.
func TestExactOracle(t *testing.T) {
	n := 30_000
	if testing.Short() {
		n = 8_000
	}
	for _, f := range []struct {
		*format
		value func(uint64) *big.Float
	}{{&binary32, value32}, {&binary64, value64}} {
		o := newOperands(uint64(f.size))
		emin := 1 - f.bias
		for range n {
			a := o.next(f.format, 0)
			b := o.next(f.format, a)
			if !ordinary(f.format, a) || !ordinary(f.format, b) {
				continue
			}
			mode := uint8(o.IntN(4))
			for _, op := range []string{"add", "sub", "mul", "div", "sqrt"} {
				e := &Env{Rounding: mode, Masks: 0x3f}
				denormal := a&^f.signBit() < 1<<f.frac || b&^f.signBit() < 1<<f.frac
				if op == "sqrt" {
					b = a &^ f.signBit()
					denormal = b < 1<<f.frac
				}
				got := sseOps[fmt.Sprint(op, f.size)](e, a, b)
				x, y := f.value(a), f.value(b)
				if op == "sqrt" {
					x = y
				}
				truth := truly(op, x, y)
				want := rounded{v: new(big.Float)}
				if truth.v.Sign() != 0 {
					want = truth.round(int(f.frac)+1, emin, mode)
				} else if mode == Down {
					want.v.Neg(want.v)
				}
				if denormal {
					want.flags |= Denormal
				}
				if v := f.value(got); v.Cmp(want.v) != 0 || v.Signbit() != want.v.Signbit() || e.Flags != want.flags {
					t.Fatalf("%s%d(%x, %x) mode %d: %x (%v) flags %#x, want %v flags %#x",
						op, f.size, a, b, mode, got, v, e.Flags, want.v, want.flags)
				}
			}
		}
	}
}

func TestExactOracle80(t *testing.T) {
	n := 40_000
	if testing.Short() {
		n = 10_000
	}
	o := newOperands(80)
	ordinary := func(v F80) bool {
		return v.Mant != 0 && v.SE&special != special && (v.SE&special == 0 || v.Mant>>63 != 0)
	}
	compared := 0
	for range n {
		a := o.next80(F80{})
		b := o.next80(a)
		if !ordinary(a) || !ordinary(b) {
			continue
		}
		mode := uint8(o.IntN(4))
		precision := []uint8{Single, Double, Extended, Extended}[o.IntN(4)]
		bits := map[uint8]int{Single: 24, Double: 53, Extended: 64}[precision]
		for _, op := range []string{"add", "sub", "mul", "div", "sqrt"} {
			e := &Env{Rounding: mode, Precision: precision, Masks: 0x3f}
			denormal := a.SE&special == 0 || b.SE&special == 0
			if op == "sqrt" {
				a.SE &^= 0x8000
				denormal = a.SE&special == 0
			}
			c := &x87Case{a: a, b: b}
			x87Ops[op](e, c)
			got := c.st[0]
			truth := truly(op, value80(a), value80(b))
			want := rounded{v: new(big.Float)}
			if truth.v.Sign() != 0 {
				want = truth.round(bits, emin80, mode)
			} else if mode == Down {
				want.v.Neg(want.v)
			}
			if denormal {
				want.flags |= Denormal
			}
			if v := value80(got); v.Cmp(want.v) != 0 || v.Signbit() != want.v.Signbit() || e.Flags != want.flags || e.C1 != want.up {
				t.Fatalf("%s(%04x %016x, %04x %016x) mode %d precision %d: %04x %016x flags %#x C1 %v, want %v flags %#x C1 %v",
					op, a.SE, a.Mant, b.SE, b.Mant, mode, bits, got.SE, got.Mant, e.Flags, e.C1, want.v, want.flags, want.up)
			}
			compared++
		}
	}
	if compared < n {
		t.Errorf("only %d comparisons", compared)
	}
}

// TestNarrow compares the narrowing conversions with exact rounding.
func TestNarrow(t *testing.T) {
	o := newOperands(3)
	for range 40_000 {
		mode := uint8(o.IntN(4))
		a := F80{o.Uint64() | 1<<63, uint16(o.IntN(1 << 16))}
		if o.IntN(2) == 0 {
			a.SE = a.SE&0x8000 | uint16(bias80-1080+o.IntN(2200)) // about binary64's range
		}
		if o.IntN(2) == 0 {
			a.SE = a.SE&0x8000 | uint16(bias80-155+o.IntN(300)) // about binary32's
		}
		if o.IntN(2) == 0 {
			a.Mant = 1<<63 | o.fraction(63)
		}
		if a.SE&special == special || a.SE&special == 0 {
			continue
		}
		check := func(name string, got *big.Float, e *Env, v *big.Float, f *format) {
			t.Helper()
			want := truly("same", v, nil).round(int(f.frac)+1, 1-f.bias, mode)
			if got.Cmp(want.v) != 0 || e.Flags&^Denormal != want.flags {
				t.Fatalf("%s of %v mode %d: %v flags %#x, want %v flags %#x", name, v, mode, got, e.Flags, want.v, want.flags)
			}
			if name != "F64ToF32" && e.C1 != want.up {
				t.Fatalf("%s of %v mode %d: C1 %v", name, v, mode, e.C1)
			}
		}
		e := &Env{Rounding: mode, Masks: 0x3f}
		d := e.F80ToF64(a)
		check("F80ToF64", value64(d), e, value80(a), &binary64)
		e = &Env{Rounding: mode, Masks: 0x3f}
		check("F80ToF32", value32(uint64(e.F80ToF32(a))), e, value80(a), &binary32)
		if ordinary(&binary64, d) {
			e = &Env{Rounding: mode, Masks: 0x3f}
			check("F64ToF32", value32(uint64(e.F64ToF32(d))), e, value64(d), &binary32)
		}
	}
}

// TestIntegers compares the conversions from and to integers, and rounding to an
// integer, with exact ones.
func TestIntegers(t *testing.T) {
	o := newOperands(4)
	for range 40_000 {
		mode := uint8(o.IntN(4))
		truncate := o.IntN(3) == 0
		a := F80{1<<63 | o.fraction(63), sign80(o.IntN(2) == 0) | uint16(bias80-3+o.IntN(70))}
		// Numbers about n/2 have the ties.
		if o.IntN(2) == 0 {
			a.Mant = a.Mant&(math.MaxUint64<<max(0, 62-(int(a.SE&special)-bias80))) | 1<<63
		}
		e := &Env{Rounding: mode, Masks: 0x3f, Precision: Extended}
		as64 := e.F80ToF64(a)
		as32 := e.F80ToF32(a)
		for _, c := range []struct {
			name string
			v    *big.Float
			size uint
			f    func(e *Env) int64
		}{
			{"F80ToInt16", value80(a), 16, func(e *Env) int64 { return int64(e.F80ToInt16(a, truncate)) }},
			{"F80ToInt32", value80(a), 32, func(e *Env) int64 { return int64(e.F80ToInt32(a, truncate)) }},
			{"F80ToInt64", value80(a), 64, func(e *Env) int64 { return e.F80ToInt64(a, truncate) }},
			{"F64ToInt32", value64(as64), 32, func(e *Env) int64 { return int64(e.F64ToInt32(as64, truncate)) }},
			{"F64ToInt64", value64(as64), 64, func(e *Env) int64 { return e.F64ToInt64(as64, truncate) }},
			{"F32ToInt32", value32(uint64(as32)), 32, func(e *Env) int64 { return int64(e.F32ToInt32(as32, truncate)) }},
			{"F32ToInt64", value32(uint64(as32)), 64, func(e *Env) int64 { return e.F32ToInt64(as32, truncate) }},
		} {
			e := &Env{Rounding: mode, Masks: 0x3f}
			used := mode
			if truncate {
				used = Zero
			}
			got := c.f(e)
			v, inexact, _ := truth{c.v, false}.unit(0, used)
			i, _ := v.Int(nil)
			want, flags := int64(-1)<<(c.size-1), uint8(Invalid)
			if i.IsInt64() && i.Int64()>>(c.size-1) == i.Int64()>>63 {
				want, flags = i.Int64(), 0
				if inexact {
					flags = Inexact
				}
			}
			if got != want || e.Flags != flags {
				t.Fatalf("%s of %v mode %d truncate %v: %d flags %#x, want %d flags %#x", c.name, c.v, mode, truncate, got, e.Flags, want, flags)
			}
		}
		for _, c := range []struct {
			name string
			v    *big.Float
			f    func(e *Env) *big.Float
		}{
			{"Round80", value80(a), func(e *Env) *big.Float { return value80(e.Round80(a)) }},
			{"Round64", value64(as64), func(e *Env) *big.Float { return value64(e.Round64(as64, mode, false)) }},
			{"Round32", value32(uint64(as32)), func(e *Env) *big.Float { return value32(uint64(e.Round32(as32, mode, false))) }},
		} {
			e := &Env{Rounding: mode, Masks: 0x3f}
			got := c.f(e)
			want, inexact, _ := truth{c.v, false}.unit(0, mode)
			if got.Cmp(want) != 0 || got.Signbit() != c.v.Signbit() || (e.Flags == Inexact) != inexact || e.Flags&^Inexact != 0 {
				t.Fatalf("%s of %v mode %d: %v flags %#x, want %v", c.name, c.v, mode, got, e.Flags, want)
			}
		}
		n := int64(o.Uint64() >> o.UintN(64))
		if o.IntN(2) == 0 {
			n = -n
		}
		for _, c := range []struct {
			name string
			f    func(e *Env) *big.Float
			n    int64
			*format
		}{
			{"Int32ToF32", func(e *Env) *big.Float { return value32(uint64(e.Int32ToF32(int32(n)))) }, int64(int32(n)), &binary32},
			{"Int32ToF64", func(e *Env) *big.Float { return value64(e.Int32ToF64(int32(n))) }, int64(int32(n)), &binary64},
			{"Int64ToF32", func(e *Env) *big.Float { return value32(uint64(e.Int64ToF32(n))) }, n, &binary32},
			{"Int64ToF64", func(e *Env) *big.Float { return value64(e.Int64ToF64(n)) }, n, &binary64},
			{"Int64ToF80", func(e *Env) *big.Float { return value80(e.Int64ToF80(n)) }, n, &format{frac: 63, bias: bias80}},
		} {
			e := &Env{Rounding: mode, Masks: 0x3f}
			got := c.f(e)
			want := rounded{v: new(big.Float)}
			if c.n != 0 {
				want = truth{new(big.Float).SetInt64(c.n), false}.round(int(c.frac)+1, 1-c.bias, mode)
			}
			if got.Cmp(want.v) != 0 || e.Flags != want.flags {
				t.Fatalf("%s of %d mode %d: %v flags %#x, want %v flags %#x", c.name, c.n, mode, got, e.Flags, want.v, want.flags)
			}
		}
	}
}

// TestHost compares results to the nearest with the host's own, all operands
// allowed, and the two ways to each of them with each other: with Inexact set
// already the answer may come from the host.
func TestHost(t *testing.T) {
	n := 400_000
	if testing.Short() {
		n = 60_000
	}
	o := newOperands(1)
	same64 := func(op string, a, b, got, fast uint64, want float64) {
		t.Helper()
		w := math.Float64bits(want)
		if got != fast || got != w && !(want != want && binary64.isNaN(got)) {
			t.Fatalf("%s(%x, %x): %x, with Inexact set %x, host %x", op, a, b, got, fast, w)
		}
	}
	same32 := func(op string, a, b, got, fast uint32, want float32) {
		t.Helper()
		w := math.Float32bits(want)
		if got != fast || got != w && !(want != want && binary32.isNaN(uint64(got))) {
			t.Fatalf("%s(%x, %x): %x, with Inexact set %x, host %x", op, a, b, got, fast, w)
		}
	}
	for range n {
		slow, fast := &Env{Masks: 0x3f}, &Env{Masks: 0x3f, Flags: Inexact}
		sameFlags := func(op string, a, b uint64) {
			t.Helper()
			if slow.Flags|Inexact != fast.Flags {
				t.Fatalf("%s(%x, %x): flags %#x, with Inexact set %#x", op, a, b, slow.Flags, fast.Flags)
			}
			slow.Flags, fast.Flags = 0, Inexact
		}
		a := o.next(&binary64, 0)
		b := o.next(&binary64, a)
		x, y := math.Float64frombits(a), math.Float64frombits(b)
		same64("Add64", a, b, slow.Add64(a, b), fast.Add64(a, b), x+y)
		sameFlags("Add64", a, b)
		same64("Sub64", a, b, slow.Sub64(a, b), fast.Sub64(a, b), x-y)
		sameFlags("Sub64", a, b)
		same64("Mul64", a, b, slow.Mul64(a, b), fast.Mul64(a, b), x*y)
		sameFlags("Mul64", a, b)
		same64("Div64", a, b, slow.Div64(a, b), fast.Div64(a, b), x/y)
		sameFlags("Div64", a, b)
		same64("Sqrt64", a, b, slow.Sqrt64(a), fast.Sqrt64(a), math.Sqrt(x))
		sameFlags("Sqrt64", a, b)

		c := uint32(o.next(&binary32, 0))
		d := uint32(o.next(&binary32, uint64(c)))
		v, w := math.Float32frombits(c), math.Float32frombits(d)
		same32("Add32", c, d, slow.Add32(c, d), fast.Add32(c, d), v+w)
		sameFlags("Add32", uint64(c), uint64(d))
		same32("Sub32", c, d, slow.Sub32(c, d), fast.Sub32(c, d), v-w)
		sameFlags("Sub32", uint64(c), uint64(d))
		same32("Mul32", c, d, slow.Mul32(c, d), fast.Mul32(c, d), v*w)
		sameFlags("Mul32", uint64(c), uint64(d))
		same32("Div32", c, d, slow.Div32(c, d), fast.Div32(c, d), v/w)
		sameFlags("Div32", uint64(c), uint64(d))
		same32("Sqrt32", c, d, slow.Sqrt32(c), fast.Sqrt32(c), float32(math.Sqrt(float64(v))))
		sameFlags("Sqrt32", uint64(c), uint64(d))

		same32("F64ToF32", 0, 0, slow.F64ToF32(a), slow.F64ToF32(a), float32(x))
		same64("F32ToF64", 0, 0, slow.F32ToF64(c), slow.F32ToF64(c), float64(v))
		order := 2
		switch {
		case x < y:
			order = -1
		case x == y:
			order = 0
		case x > y:
			order = 1
		}
		if got := slow.Cmp64(a, b, false); got != order {
			t.Fatalf("Cmp64(%x, %x): %d, want %d", a, b, got, order)
		}
		least, most := b, b
		if order == -1 {
			least = a
		}
		if order == 1 {
			most = a
		}
		if slow.Min64(a, b) != least || slow.Max64(a, b) != most {
			t.Fatalf("%x, %x: minimum %x, maximum %x", a, b, slow.Min64(a, b), slow.Max64(a, b))
		}
	}
}

// TestRemainder compares FPREM and FPREM1 with exact division, and follows an
// incomplete one to its end.
func TestRemainder(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 5_000
	}
	o := newOperands(5)
	for range n {
		a := F80{1<<63 | o.fraction(63), sign80(o.IntN(2) == 0) | uint16(bias80+o.IntN(300))}
		b := F80{1<<63 | o.fraction(63), sign80(o.IntN(2) == 0) | uint16(bias80+o.IntN(150))}
		for _, nearest := range []bool{false, true} {
			e := &Env{Masks: 0x3f}
			r, quotient, complete := e.remainder(a, b, nearest)
			if d := int(a.SE&special) - int(b.SE&special); complete != (d < 64) {
				t.Fatalf("%x %x: complete %v with exponents %d apart", a, b, complete, d)
			}
			for steps := 0; !complete; steps++ {
				if steps > 10 {
					t.Fatalf("%x %x: no end", a, b)
				}
				before := r
				if r, quotient, complete = e.remainder(r, b, nearest); r == before && !complete {
					t.Fatalf("%x %x: no progress", a, b)
				}
			}
			// All are integers in units of 2^(bias80-63).
			integer := func(v F80) *big.Int {
				f := value80(v)
				i, acc := f.SetMantExp(f, 63+2).Int(nil)
				if acc != big.Exact {
					t.Fatalf("%x is no multiple of the unit", v)
				}
				return i
			}
			x, y := integer(a), integer(b)
			q, m := new(big.Int).QuoRem(x, y, new(big.Int))
			if nearest {
				twice := new(big.Int).Lsh(m, 1)
				if c := twice.CmpAbs(y); c > 0 || c == 0 && q.Bit(0) == 1 {
					sign := int64(x.Sign() * y.Sign())
					q.Add(q, big.NewInt(sign))
					m.Sub(x, new(big.Int).Mul(q, y))
				}
			}
			low := uint8(q.Abs(q).Uint64() & 7)
			if integer(r).Cmp(m) != 0 || quotient != low && q.BitLen() < 60 || e.Flags != 0 {
				t.Fatalf("%x %x nearest %v: %x quotient %d flags %#x, want %v quotient %d", a, b, nearest, r, quotient, e.Flags, m, low)
			}
			if m.Sign() == 0 && r.SE>>15 != a.SE>>15 {
				t.Fatalf("%x %x: a zero of the wrong sign", a, b)
			}
		}
	}
}

// TestBCD converts there and back.
func TestBCD(t *testing.T) {
	o := newOperands(6)
	for range 10_000 {
		n := o.Int64N(1e18) >> o.UintN(60)
		if o.IntN(2) == 0 {
			n = -n
		}
		e := &Env{Masks: 0x3f, Precision: Extended}
		v := e.Int64ToF80(n)
		bcd := e.F80ToBCD(v)
		text := ""
		for _, digits := range bcd[:9] {
			text = fmt.Sprintf("%02x", digits) + text
		}
		if want := fmt.Sprintf("%018d", max(n, -n)); text != want || bcd[9]>>7 != byte(uint64(n)>>63) {
			t.Fatalf("%d: %x", n, bcd)
		}
		if back := e.BCDToF80(bcd); back != v || e.Flags != 0 {
			t.Fatalf("%d: %x comes back as %x, flags %#x", n, v, back, e.Flags)
		}
	}
	e := &Env{Masks: 0x3f}
	if bcd := e.F80ToBCD(e.Int64ToF80(1e18)); bcd != [10]byte{7: 0xc0, 8: 0xff, 9: 0xff} || e.Flags != Invalid {
		t.Errorf("10^18: %x flags %#x", bcd, e.Flags)
	}
}

// TestTranscendental compares with package math to its precision, and the
// rounding modes with each other.
func TestTranscendental(t *testing.T) {
	type function struct {
		name string
		f    func(e *Env, a, b F80) F80
		g    func(a, b float64) float64
	}
	complete := func(f func(*Env, F80) (F80, bool)) func(e *Env, a, b F80) F80 {
		return func(e *Env, a, _ F80) F80 {
			v, ok := f(e, a)
			if !ok {
				t.Errorf("%x is out of range", a)
			}
			return v
		}
	}
	for _, c := range []function{
		{"Sin80", complete((*Env).Sin80), func(a, _ float64) float64 { return math.Sin(a) }},
		{"Cos80", complete((*Env).Cos80), func(a, _ float64) float64 { return math.Cos(a) }},
		{"Tan80", complete((*Env).Tan80), func(a, _ float64) float64 { return math.Tan(a) }},
		{"Atan2_80", (*Env).Atan2_80, math.Atan2},
		{"Exp2m1_80", func(e *Env, a, _ F80) F80 { return e.Exp2m1_80(a) }, func(a, _ float64) float64 { return math.Expm1(a * math.Ln2) }},
		{"Log2_80", func(e *Env, a, b F80) F80 { a.SE &^= 0x8000; return e.Log2_80(b, a) },
			func(a, b float64) float64 { return b * math.Log2(math.Abs(a)) }},
		{"Log2p1_80", func(e *Env, a, b F80) F80 { return e.Log2p1_80(b, a) }, func(a, b float64) float64 { return b * math.Log1p(a) / math.Ln2 }},
	} {
		o := newOperands(7)
		for range 1500 {
			x := (2*o.Float64() - 1) * math.Exp2(-float64(o.IntN(40)))
			y := (2*o.Float64() - 1) * math.Exp2(float64(o.IntN(40)-20))
			e := &Env{Masks: 0x3f, Precision: Extended}
			a, b := e.F64ToF80(math.Float64bits(x)), e.F64ToF80(math.Float64bits(y))
			var v [4]F80
			for mode := range v {
				e.Rounding = uint8(mode)
				v[mode] = c.f(e, a, b)
				if e.Flags != Inexact {
					t.Fatalf("%s(%v, %v): flags %#x", c.name, x, y, e.Flags)
				}
			}
			got, _ := value80(v[Nearest]).Float64()
			want := c.g(x, y)
			// math.Log2 adds the exponent last: about 1 it is good to an absolute error.
			// math.Tan ends its series early.
			if math.Abs(got-want) > math.Abs(want)*4e-15+1e-16*math.Abs(y) {
				t.Fatalf("%s(%v, %v) = %v, want %v", c.name, x, y, got, want)
			}
			low, high := value80(v[Down]), value80(v[Up])
			toward := low
			if low.Signbit() {
				toward = high
			}
			if !oneApart(v[Down], v[Up]) || low.Cmp(high) > 0 || value80(v[Zero]).Cmp(toward) != 0 || v[Nearest] != v[Up] && v[Nearest] != v[Down] {
				t.Fatalf("%s(%v, %v): %x", c.name, x, y, v)
			}
		}
	}
	// 80 bits of known values.
	e := &Env{Masks: 0x3f, Precision: Extended}
	unit := F80{1 << 63, bias80}
	three := e.Int64ToF80(3)
	for _, c := range []struct {
		name      string
		got, want F80
	}{
		{"atan 1 = pi/4", e.Atan2_80(unit, unit), F80{0xc90fdaa22168c235, 0x3ffe}},
		{"log2 3", e.Log2_80(unit, three), F80{0xcae00d1cfdeb43d0, 0x3fff}},
		{"log2 (1+1/2)", e.Log2p1_80(unit, F80{1 << 63, bias80 - 1}), F80{0x95c01a39fbd687a0, 0x3ffe}},
		{"2^(1/2) - 1", e.Exp2m1_80(F80{1 << 63, bias80 - 1}), F80{0xd413cccfe7799211, 0x3ffd}},
	} {
		if c.got != c.want {
			t.Errorf("%s: %04x %016x, want %04x %016x", c.name, c.got.SE, c.got.Mant, c.want.SE, c.want.Mant)
		}
	}
}
