package float

// The operations of SSE on one element, for both formats. Where the two operands
// are NaNs the first one's place decides (table 4-7), and each operation checks
// in the order of 4.9.2: NaNs, other invalid operands and division by zero,
// denormal operands, and only then the result.

// nan is the result of an operation with a NaN among its operands.
func (e *Env) nan(f *format, a, b uint64) uint64 {
	if f.isSignaling(a) || f.isSignaling(b) {
		e.Flags |= Invalid
	}
	if f.isNaN(a) {
		return a | f.quietBit()
	}
	return b | f.quietBit()
}

func (e *Env) invalid(f *format) uint64 {
	e.Flags |= Invalid
	return f.defaultNaN()
}

// unpack takes an operand apart, a denormal as zero where DAZ says so.
func (e *Env) unpack(f *format, v uint64) number {
	x := f.unpack(v)
	if x.denormal && e.DAZ {
		return number{sign: x.sign}
	}
	return x
}

// denormal raises Denormal if an operand is one; true ends the operation.
func (e *Env) denormal(x, y number) bool {
	return (x.denormal || y.denormal) && e.stop(Denormal)
}

// zeroSum is the sign of an exact zero that a sum with operands of different
// signs gives.
func (e *Env) zeroSum(x, y bool) bool {
	if x == y {
		return x
	}
	return e.Rounding == Down
}

func (e *Env) result(f *format, r exact) uint64 {
	v, _ := e.pack(f, r)
	return v
}

func (e *Env) add(f *format, a, b, negate uint64) uint64 {
	if f.isNaN(a) || f.isNaN(b) {
		return e.nan(f, a, b)
	}
	x, y := e.unpack(f, a), e.unpack(f, b^negate)
	if x.class == infinity && y.class == infinity && x.sign != y.sign {
		return e.invalid(f)
	}
	if e.denormal(x, y) {
		return 0
	}
	switch {
	case x.class == infinity:
		return a
	case y.class == infinity:
		return b ^ negate
	case x.class == zero && y.class == zero:
		return f.withSign(0, e.zeroSum(x.sign, y.sign))
	case x.class == zero:
		return e.result(f, y.exact())
	case y.class == zero:
		return e.result(f, x.exact())
	}
	r, isZero := add(x, y)
	if isZero {
		return f.withSign(0, e.Rounding == Down)
	}
	return e.result(f, r)
}

func (e *Env) mul(f *format, a, b uint64) uint64 {
	if f.isNaN(a) || f.isNaN(b) {
		return e.nan(f, a, b)
	}
	x, y := e.unpack(f, a), e.unpack(f, b)
	sign := x.sign != y.sign
	if x.class == infinity && y.class == zero || x.class == zero && y.class == infinity {
		return e.invalid(f)
	}
	if e.denormal(x, y) {
		return 0
	}
	switch {
	case x.class == infinity || y.class == infinity:
		return f.withSign(f.infinity(), sign)
	case x.class == zero || y.class == zero:
		return f.withSign(0, sign)
	}
	return e.result(f, mul(x, y))
}

func (e *Env) div(f *format, a, b uint64) uint64 {
	if f.isNaN(a) || f.isNaN(b) {
		return e.nan(f, a, b)
	}
	x, y := e.unpack(f, a), e.unpack(f, b)
	sign := x.sign != y.sign
	switch {
	case x.class == y.class && x.class != finite:
		return e.invalid(f)
	case y.class == zero && x.class == finite:
		e.Flags |= DivideByZero
		return f.withSign(f.infinity(), sign)
	}
	if e.denormal(x, y) {
		return 0
	}
	switch {
	case x.class == infinity:
		return f.withSign(f.infinity(), sign)
	case x.class == zero || y.class == infinity:
		return f.withSign(0, sign)
	}
	return e.result(f, div(x, y))
}

func (e *Env) sqrt(f *format, a uint64) uint64 {
	if f.isNaN(a) {
		return e.nan(f, a, a)
	}
	x := e.unpack(f, a)
	switch {
	case x.class == zero:
		return f.withSign(0, x.sign)
	case x.sign:
		return e.invalid(f)
	case e.denormal(x, x):
		return 0
	case x.class == infinity:
		return a
	}
	return e.result(f, sqrt(x))
}

// pick is MIN (less) and MAX: not symmetric, the second operand is the answer
// where there is a NaN and where both are zeros.
func (e *Env) pick(f *format, a, b uint64, want int) uint64 {
	x, y := e.unpack(f, a), e.unpack(f, b)
	isNaN := x.class > infinity || y.class > infinity
	switch {
	case isNaN:
		e.Flags |= Invalid
	case e.denormal(x, y):
		return 0
	}
	if isNaN || compare(x, y) != want {
		a, x = b, y
	}
	if x.class == zero {
		return f.withSign(0, x.sign) // a denormal that DAZ made zero
	}
	return a
}

func (e *Env) cmp(f *format, a, b uint64, signalQuiet bool) int {
	if f.isNaN(a) || f.isNaN(b) {
		if signalQuiet || f.isSignaling(a) || f.isSignaling(b) {
			e.Flags |= Invalid
		}
		return 2
	}
	x, y := e.unpack(f, a), e.unpack(f, b)
	e.denormal(x, y)
	return compare(x, y)
}

// round is ROUNDPS and its family.
func (e *Env) round(f *format, a uint64, mode uint8, suppressInexact bool) uint64 {
	if f.isNaN(a) {
		return e.nan(f, a, a)
	}
	x := e.unpack(f, a)
	if x.class == infinity || x.exp >= int(f.frac) {
		return a
	}
	n, _, _, inexact := x.integer(mode)
	if inexact && !suppressInexact {
		e.Flags |= Inexact
	}
	if n == 0 {
		return f.withSign(0, x.sign)
	}
	i := fromInteger(int64(n))
	return f.withSign(uint64(i.exp+f.bias-1)<<f.frac+i.sig>>(63-f.frac), x.sign)
}

// toInteger rounds to a signed integer of size bits; what doesn't fit gives the
// integer indefinite, its top bit alone.
func (e *Env) toInteger(x number, mode uint8, size uint) (v int64, up bool) {
	indefinite := int64(-1) << (size - 1)
	limit := uint64(1) << (size - 1)
	if x.class > finite {
		e.Flags |= Invalid
		return indefinite, false
	}
	n, large, up, inexact := x.integer(mode)
	if large || n > limit || n == limit && !x.sign {
		e.Flags |= Invalid
		return indefinite, false
	}
	if inexact {
		e.Flags |= Inexact
	}
	if x.sign {
		n = -n
	}
	return int64(n), up
}

func (e *Env) truncateOr(truncate bool) uint8 {
	if truncate {
		return Zero
	}
	return e.Rounding
}

func (e *Env) fromInt(f *format, v int64) uint64 {
	if v == 0 {
		return 0
	}
	return e.result(f, fromInteger(v).exact())
}

// convert is CVTSS2SD and CVTSD2SS. A NaN keeps the top of its payload.
func (e *Env) convert(to, from *format, a uint64) uint64 {
	x := e.unpack(from, a)
	switch x.class {
	case signalingNaN, quietNaN:
		if x.class == signalingNaN {
			e.Flags |= Invalid
		}
		return to.nanFrom(x)
	case infinity:
		return to.withSign(to.infinity(), x.sign)
	case zero:
		return to.withSign(0, x.sign)
	}
	if e.denormal(x, x) {
		return 0
	}
	return e.result(to, x.exact())
}

// nanFrom is x's payload as a quiet NaN of f.
func (f *format) nanFrom(x number) uint64 {
	return f.withSign(f.infinity()|f.quietBit()|x.sig<<1>>(64-f.frac), x.sign)
}
