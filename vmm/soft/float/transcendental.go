package float

import "math/big"

// The transcendental functions are computed with far more bits than a result has
// and rounded once, so that they are as good as correctly rounded; a processor
// promises one unit in the last place (8.3.10). They are rare enough in today's
// programs that math/big's allocations don't matter.

// prec holds a 64-bit operand less a multiple of pi below 2^63 exactly.
const prec = 256

func newFloat() *big.Float { return new(big.Float).SetPrec(prec) }

func parse(s string) *big.Float {
	f, _, err := big.ParseFloat(s, 0, prec, big.ToNearestEven)
	if err != nil {
		panic(err)
	}
	return f
}

var (
	one = newFloat().SetInt64(1)
	two = newFloat().SetInt64(2)
	pi  = parse("3.1415926535897932384626433832795028841971693993751058209749445923078164062862089986")
	ln2 = newFloat().Mul(two, atanh(newFloat().Quo(one, newFloat().SetInt64(3))))
	// reductionPi is the processor's own pi of 66 bits, by whose multiples FSIN
	// and its like reduce their operands (8.3.8).
	reductionPi = parse("0xc90fdaa22168c234cp-66")
)

// big gives a finite operand.
func (x number) big() *big.Float {
	v := newFloat().SetUint64(x.sig)
	v.SetMantExp(v, x.exp-63)
	if x.sign {
		v.Neg(v)
	}
	return v
}

// inexactly rounds v, which is not zero and stands for a value that has no end.
func (e *Env) inexactly(v *big.Float) F80 {
	r := unbig(v)
	r.lo |= 1
	return e.pack80(r, 64)
}

// exactly is y times the logarithm of a power of two, an integer. The processor
// calls that inexact too.
func (e *Env) exactly(y number, log int) F80 {
	v := e.pack80(mul(y, fromInteger(int64(log))), 64)
	e.Flags |= Inexact
	if v.Mant>>63 == 0 {
		e.Flags |= Underflow
	}
	return v
}

func unbig(v *big.Float) exact {
	m := newFloat()
	r := exact{exp: v.MantExp(m) - 1, sign: v.Signbit()}
	m.Abs(m)
	m.SetMantExp(m, 64)
	r.hi, _ = m.Uint64()
	m.Sub(m, newFloat().SetUint64(r.hi))
	m.SetMantExp(m, 64)
	var accuracy big.Accuracy
	r.lo, accuracy = m.Uint64()
	if accuracy != big.Exact {
		r.lo |= 1
	}
	return r
}

// finished tells that term, the next one of a series, no longer matters to sum.
// It then moves sum a little in the term's direction, so that a sum which is
// still its first term isn't taken for exact: the sine of a tiny number is less
// than it, and a directed rounding shows that.
func finished(sum, term *big.Float) bool {
	const enough = 200 // bits
	if term.MantExp(nil) >= sum.MantExp(nil)-enough {
		return false
	}
	trifle := newFloat().SetMantExp(one, sum.MantExp(nil)-enough)
	if term.Signbit() {
		trifle.Neg(trifle)
	}
	sum.Add(sum, trifle)
	return true
}

// atanh gives the inverse hyperbolic tangent of |t| < 1/2: t + t^3/3 + ...
func atanh(t *big.Float) *big.Float { return oddPowers(t, false) }

// oddPowers sums t^n/n for odd n, with alternating signs for the arc tangent.
func oddPowers(t *big.Float, alternate bool) *big.Float {
	square := newFloat().Mul(t, t)
	if alternate {
		square.Neg(square)
	}
	power, sum, term := newFloat().Set(t), newFloat().Set(t), newFloat()
	for n := int64(3); ; n += 2 {
		power.Mul(power, square)
		if finished(sum, power) {
			return sum
		}
		sum.Add(sum, term.Quo(power, newFloat().SetInt64(n)))
	}
}

// taylor sums first + first*square/((n+1)(n+2)) + ..., each term from the last.
func taylor(first, square *big.Float, n int64) *big.Float {
	sum, term := newFloat().Set(first), newFloat().Set(first)
	for ; ; n += 2 {
		term.Mul(term, square)
		term.Quo(term, newFloat().SetInt64((n+1)*(n+2)))
		if finished(sum, term) {
			return sum
		}
		sum.Add(sum, term)
	}
}

func sine(x *big.Float) *big.Float {
	square := newFloat().Mul(x, x)
	return taylor(x, square.Neg(square), 1)
}

func cosine(x *big.Float) *big.Float {
	square := newFloat().Mul(x, x)
	return taylor(one, square.Neg(square), 0)
}

// reduce gives x less a multiple of pi/2, at most pi/4 and a trifle in
// magnitude, and that multiple's last two bits.
func reduce(x *big.Float) (rest *big.Float, quadrant uint) {
	half := newFloat().SetMantExp(reductionPi, -1)
	q := newFloat().Quo(x, half)
	q.Add(q, newFloat().SetMantExp(one, -1))
	n, accuracy := q.Int(nil)
	if q.Sign() < 0 && accuracy != big.Exact {
		n.Sub(n, big.NewInt(1)) // Int rounds toward zero, we want the floor
	}
	rest = newFloat().Sub(x, half.Mul(half, newFloat().SetInt(n)))
	return rest, n.Bit(0) | n.Bit(1)<<1
}

// trigonometric answers what the trigonometric functions have in common. complete is false
// for an operand of 2^63 or more, which the processor leaves alone (C2).
func (e *Env) trigonometric(a F80) (x number, v F80, complete, done bool) {
	x, _, v, done = e.begin80(a, a)
	switch {
	case done:
		return x, v, true, true
	case x.class == infinity:
		return x, e.invalid80(), true, true
	case x.exp >= 63:
		return x, a, false, true
	case e.denormal80(x, x):
		return x, F80{}, true, true
	}
	return x, a, true, x.class == zero
}

// Sin80 is FSIN. With complete false (C2) the operand is out of range and the
// result is the operand.
func (e *Env) Sin80(a F80) (v F80, complete bool) {
	x, v, complete, done := e.trigonometric(a)
	if done {
		return v, complete
	}
	r, quadrant := reduce(x.big())
	if quadrant&1 != 0 {
		r = cosine(r)
	} else {
		r = sine(r)
	}
	if quadrant&2 != 0 {
		r.Neg(r)
	}
	return e.inexactly(r), true
}

// Cos80 is FCOS, complete as for Sin80.
func (e *Env) Cos80(a F80) (v F80, complete bool) {
	x, v, complete, done := e.trigonometric(a)
	if done {
		if x.class == zero {
			v = F80{1 << 63, bias80}
		}
		return v, complete
	}
	r, quadrant := reduce(x.big())
	if quadrant&1 != 0 {
		r = sine(r)
	} else {
		r = cosine(r)
	}
	if quadrant == 1 || quadrant == 2 {
		r.Neg(r)
	}
	return e.inexactly(r), true
}

// Tan80 is FPTAN without the 1 that it pushes, complete as for Sin80.
func (e *Env) Tan80(a F80) (v F80, complete bool) {
	x, v, complete, done := e.trigonometric(a)
	if done {
		return v, complete
	}
	r, quadrant := reduce(x.big())
	s, c := sine(r), cosine(r)
	if quadrant&1 != 0 {
		s, c = c.Neg(c), s
	}
	return e.inexactly(s.Quo(s, c)), true
}

// arctangent takes 0 < t <= 1.
func arctangent(t *big.Float) *big.Float {
	// atan(t) = 2 atan(t / (1+sqrt(1+t^2))), three times: below 1/8 the series is short.
	const halvings = 3
	for range halvings {
		d := newFloat().Mul(t, t)
		d.Sqrt(d.Add(d, one))
		t = newFloat().Quo(t, d.Add(d, one))
	}
	t = oddPowers(t, true)
	return t.SetMantExp(t, halvings)
}

// Atan2_80 is FPATAN: the angle of the point (x, y), for FPATAN ST(0) and ST(1).
func (e *Env) Atan2_80(y, x F80) F80 {
	b, a, v, done := e.begin80(y, x)
	if done {
		return v
	}
	if e.denormal80(a, b) {
		return F80{}
	}
	var r *big.Float // the magnitude
	switch {
	case b.class == zero || b.class == finite && a.class == infinity:
		if !a.sign {
			return zero80(b.sign)
		}
		r = newFloat().Set(pi)
	case b.class == infinity && a.class == infinity:
		r = newFloat().SetMantExp(pi, -2)
		if a.sign {
			r.Mul(r, newFloat().SetInt64(3))
		}
	case b.class == infinity || a.class == zero:
		r = newFloat().SetMantExp(pi, -1)
	default:
		p, q := b.big(), a.big()
		p.Abs(p)
		q.Abs(q)
		if p.Cmp(q) <= 0 {
			t := newFloat().Quo(p, q)
			// The quotient of a power of two is exact, its angle is not.
			r = arctangent(t)
			if a.sign {
				r.Sub(pi, r)
			}
		} else {
			r = arctangent(newFloat().Quo(q, p))
			half := newFloat().SetMantExp(pi, -1)
			if a.sign {
				r.Add(half, r)
			} else {
				r.Sub(half, r)
			}
		}
	}
	if b.sign {
		r.Neg(r)
	}
	return e.inexactly(r)
}

// Exp2m1_80 is F2XM1: 2^a - 1. The processor defines it for -1 to 1; beyond, the
// operand is the result.
func (e *Env) Exp2m1_80(a F80) F80 {
	x, _, v, done := e.begin80(a, a)
	switch {
	case done:
		return v
	case e.denormal80(x, x):
		return F80{}
	case x.class == zero || x.class == infinity && !x.sign:
		return a
	case x.class == infinity:
		return F80{1 << 63, 0x8000 | bias80}
	case x.exp >= 0:
		// 1 and -1 are exact, which the processor does not notice.
		e.Flags |= Inexact
		if x.sign && x.exp == 0 && x.sig == 1<<63 {
			a.SE--
		}
		return a
	}
	// e^t - 1 = t + t^2/2 + ...
	t := newFloat().Mul(x.big(), ln2)
	sum, term := newFloat().Set(t), newFloat().Set(t)
	for n := int64(2); ; n++ {
		term.Mul(term, t)
		term.Quo(term, newFloat().SetInt64(n))
		if finished(sum, term) {
			return e.inexactly(sum)
		}
		sum.Add(sum, term)
	}
}

// Log2_80 is FYL2X: y times the binary logarithm of x, for FYL2X ST(1) and ST(0).
func (e *Env) Log2_80(y, x F80) F80 {
	b, a, v, done := e.begin80(y, x)
	if done {
		return v
	}
	isOne := a.class == finite && a.exp == 0 && a.sig == 1<<63
	less := a.class == zero || a.class == finite && a.exp < 0 // than 1: a negative logarithm
	switch {
	case a.class != zero && a.sign,
		a.class == zero && b.class == zero,
		isOne && b.class == infinity,
		a.class == infinity && b.class == zero:
		return e.invalid80()
	case a.class == zero && b.class == finite:
		return e.divideByZero80(!b.sign)
	}
	if e.denormal80(a, b) {
		return F80{}
	}
	switch {
	case a.class == infinity || b.class == infinity || a.class == zero:
		return infinity80(b.sign != less)
	case b.class == zero || isOne:
		return zero80(b.sign != less)
	case a.sig == 1<<63:
		return e.exactly(b, a.exp)
	}
	// x = 2^n m, 1 < m < 2: log2 x = n + 2 atanh((m-1)/(m+1)) / ln 2. Just below 1
	// that cancels 64 bits, which leaves enough.
	n := a.exp
	a.exp = 0
	m := a.big()
	t := newFloat().Sub(m, one)
	t.Quo(t, m.Add(m, one))
	l := log2(t)
	l.Add(l, newFloat().SetInt64(int64(n)))
	return e.inexactly(l.Mul(l, b.big()))
}

// log2 is 2 atanh(t) / ln 2.
func log2(t *big.Float) *big.Float {
	l := atanh(t)
	l.SetMantExp(l, 1)
	return l.Quo(l, ln2)
}

// Log2p1_80 is FYL2XP1: y times the binary logarithm of x+1. The processor
// defines it for x between -(1-sqrt(1/2)) and sqrt(2)-1, but goes on as long as x+1
// is positive; where it isn't, x is the result.
func (e *Env) Log2p1_80(y, x F80) F80 {
	b, a, v, done := e.begin80(y, x)
	if done {
		return v
	}
	switch {
	case a.class == zero && b.class == infinity,
		a.class == infinity && (a.sign || b.class == zero):
		return e.invalid80()
	}
	if e.denormal80(a, b) {
		return F80{}
	}
	switch {
	case a.class == infinity || b.class == infinity:
		return infinity80(b.sign != a.sign)
	case a.class == zero || b.class == zero:
		return zero80(b.sign != a.sign)
	}
	if a.sign && a.exp >= 0 {
		e.Flags |= Inexact
		return x
	}
	m := a.big()
	var l *big.Float
	if a.exp < -1 {
		t := newFloat().Add(m, two)
		l = log2(t.Quo(m, t))
	} else {
		m.Add(m, one)
		n := m.MantExp(m) // x+1 = 2^n m, m between 1/2 and 1
		t := newFloat().Sub(m, one)
		if m.MantExp(nil) == 0 && m.MinPrec() == 1 {
			return e.exactly(b, n-1)
		}
		l = log2(t.Quo(t, m.Add(m, one)))
		l.Add(l, newFloat().SetInt64(int64(n)))
	}
	return e.inexactly(l.Mul(l, b.big()))
}
