package float

import "math"

// What the host can answer. An operation on two normal numbers or zeros with a
// normal result, to the nearest, with Inexact set already, changes no flag and is
// what the host's own operation gives (Go rounds each to its format where it is
// converted). Comparisons and exact conversions need less. Everything else takes
// the long way. The smallest normal number can be a denormal that was rounded up,
// so a result must lie above its binade.

func (e *Env) fast() bool { return e.Flags&Inexact != 0 && e.Rounding == Nearest }

func zero32(v uint32) bool   { return v<<1 == 0 }
func normal32(v uint32) bool { return v>>23&0xff-1 < 0xfe }
func plain32(v uint32) bool  { return zero32(v) || normal32(v) }

// above32: normal and above the first binade.
func above32(v uint32) bool { return v>>23&0xff-2 < 0xfd }

// ordered32: neither a NaN nor a denormal.
func ordered32(v uint32) bool { return zero32(v) || v<<1-1<<24 <= 0xfe<<24 }

func zero64(v uint64) bool   { return v<<1 == 0 }
func normal64(v uint64) bool { return v>>52&0x7ff-1 < 0x7fe }
func plain64(v uint64) bool  { return zero64(v) || normal64(v) }

// above64: normal and above the first binade.
func above64(v uint64) bool { return v>>52&0x7ff-2 < 0x7fd }

// ordered64: neither a NaN nor a denormal.
func ordered64(v uint64) bool { return zero64(v) || v<<1-1<<53 <= 0x7fe<<53 }

// Add32 is a+b in binary32.
func (e *Env) Add32(a, b uint32) uint32 {
	if e.fast() && plain32(a) && plain32(b) {
		v := math.Float32bits(math.Float32frombits(a) + math.Float32frombits(b))
		if above32(v) || zero32(v) {
			return v
		}
	}
	return uint32(e.add(&binary32, uint64(a), uint64(b), 0))
}

// Sub32 is a-b in binary32.
func (e *Env) Sub32(a, b uint32) uint32 {
	if e.fast() && plain32(a) && plain32(b) {
		v := math.Float32bits(math.Float32frombits(a) - math.Float32frombits(b))
		if above32(v) || zero32(v) {
			return v
		}
	}
	return uint32(e.add(&binary32, uint64(a), uint64(b), binary32.signBit()))
}

// Mul32 is a*b in binary32.
func (e *Env) Mul32(a, b uint32) uint32 {
	if e.fast() && plain32(a) && plain32(b) {
		v := math.Float32bits(math.Float32frombits(a) * math.Float32frombits(b))
		if above32(v) || zero32(v) && (zero32(a) || zero32(b)) {
			return v
		}
	}
	return uint32(e.mul(&binary32, uint64(a), uint64(b)))
}

// Div32 is a/b in binary32.
func (e *Env) Div32(a, b uint32) uint32 {
	if e.fast() && plain32(a) && plain32(b) {
		v := math.Float32bits(math.Float32frombits(a) / math.Float32frombits(b))
		if above32(v) || zero32(v) && zero32(a) {
			return v
		}
	}
	return uint32(e.div(&binary32, uint64(a), uint64(b)))
}

// Sqrt32 is the square root of a.
func (e *Env) Sqrt32(a uint32) uint32 {
	if e.fast() && normal32(a) && a>>31 == 0 {
		return math.Float32bits(float32(math.Sqrt(float64(math.Float32frombits(a)))))
	}
	return uint32(e.sqrt(&binary32, uint64(a)))
}

// Min32 is MIN of SSE: a if it is less than b, else b, which is the answer also
// with a NaN (Invalid, even for a quiet one) or two zeros.
func (e *Env) Min32(a, b uint32) uint32 {
	if ordered32(a) && ordered32(b) {
		if math.Float32frombits(a) < math.Float32frombits(b) {
			return a
		}
		return b
	}
	return uint32(e.pick(&binary32, uint64(a), uint64(b), -1))
}

// Max32 is MAX of SSE: a if it is greater than b, else b, as for Min32.
func (e *Env) Max32(a, b uint32) uint32 {
	if ordered32(a) && ordered32(b) {
		if math.Float32frombits(a) > math.Float32frombits(b) {
			return a
		}
		return b
	}
	return uint32(e.pick(&binary32, uint64(a), uint64(b), 1))
}

// Cmp32 compares: -1 less, 0 equal, 1 greater, 2 unordered. A signaling NaN is
// Invalid, with signalQuiet a quiet one too.
func (e *Env) Cmp32(a, b uint32, signalQuiet bool) int {
	if ordered32(a) && ordered32(b) {
		switch x, y := math.Float32frombits(a), math.Float32frombits(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	return e.cmp(&binary32, uint64(a), uint64(b), signalQuiet)
}

// Round32 rounds to an integer by mode: the caller has resolved "as MXCSR says".
func (e *Env) Round32(a uint32, mode uint8, suppressInexact bool) uint32 {
	return uint32(e.round(&binary32, uint64(a), mode, suppressInexact))
}

// Int32ToF32 converts an integer.
func (e *Env) Int32ToF32(v int32) uint32 {
	const exact = 1 << 24
	if e.fast() || v > -exact && v < exact {
		return math.Float32bits(float32(v))
	}
	return uint32(e.fromInt(&binary32, int64(v)))
}

// F32ToInt32 converts to an integer, toward zero with truncate. What doesn't fit
// is Invalid and gives the integer indefinite, 0x80000000.
func (e *Env) F32ToInt32(a uint32, truncate bool) int32 {
	if plain32(a) {
		x := float64(math.Float32frombits(a))
		if v, ok := e.hostInteger(x, 1<<31, truncate); ok {
			return int32(v)
		}
	}
	v, _ := e.toInteger(e.unpack(&binary32, uint64(a)), e.truncateOr(truncate), 32)
	return int32(v)
}

// Int64ToF32 converts an integer.
func (e *Env) Int64ToF32(v int64) uint32 {
	const exact = 1 << 24
	if e.fast() || v > -exact && v < exact {
		return math.Float32bits(float32(v))
	}
	return uint32(e.fromInt(&binary32, v))
}

// F32ToInt64 converts to an integer, toward zero with truncate. What doesn't fit
// is Invalid and gives the integer indefinite, 1<<63.
func (e *Env) F32ToInt64(a uint32, truncate bool) int64 {
	if plain32(a) {
		x := float64(math.Float32frombits(a))
		if v, ok := e.hostInteger(x, 1<<63, truncate); ok {
			return v
		}
	}
	v, _ := e.toInteger(e.unpack(&binary32, uint64(a)), e.truncateOr(truncate), 64)
	return v
}

// Add64 is a+b in binary64.
func (e *Env) Add64(a, b uint64) uint64 {
	if e.fast() && plain64(a) && plain64(b) {
		v := math.Float64bits(math.Float64frombits(a) + math.Float64frombits(b))
		if above64(v) || zero64(v) {
			return v
		}
	}
	return e.add(&binary64, a, b, 0)
}

// Sub64 is a-b in binary64.
func (e *Env) Sub64(a, b uint64) uint64 {
	if e.fast() && plain64(a) && plain64(b) {
		v := math.Float64bits(math.Float64frombits(a) - math.Float64frombits(b))
		if above64(v) || zero64(v) {
			return v
		}
	}
	return e.add(&binary64, a, b, binary64.signBit())
}

// Mul64 is a*b in binary64.
func (e *Env) Mul64(a, b uint64) uint64 {
	if e.fast() && plain64(a) && plain64(b) {
		v := math.Float64bits(math.Float64frombits(a) * math.Float64frombits(b))
		if above64(v) || zero64(v) && (zero64(a) || zero64(b)) {
			return v
		}
	}
	return e.mul(&binary64, a, b)
}

// Div64 is a/b in binary64.
func (e *Env) Div64(a, b uint64) uint64 {
	if e.fast() && plain64(a) && plain64(b) {
		v := math.Float64bits(math.Float64frombits(a) / math.Float64frombits(b))
		if above64(v) || zero64(v) && zero64(a) {
			return v
		}
	}
	return e.div(&binary64, a, b)
}

// Sqrt64 is the square root of a.
func (e *Env) Sqrt64(a uint64) uint64 {
	if e.fast() && normal64(a) && a>>63 == 0 {
		return math.Float64bits(math.Sqrt(math.Float64frombits(a)))
	}
	return e.sqrt(&binary64, a)
}

// Min64 is MIN of SSE: a if it is less than b, else b, which is the answer also
// with a NaN (Invalid, even for a quiet one) or two zeros.
func (e *Env) Min64(a, b uint64) uint64 {
	if ordered64(a) && ordered64(b) {
		if math.Float64frombits(a) < math.Float64frombits(b) {
			return a
		}
		return b
	}
	return e.pick(&binary64, a, b, -1)
}

// Max64 is MAX of SSE: a if it is greater than b, else b, as for Min64.
func (e *Env) Max64(a, b uint64) uint64 {
	if ordered64(a) && ordered64(b) {
		if math.Float64frombits(a) > math.Float64frombits(b) {
			return a
		}
		return b
	}
	return e.pick(&binary64, a, b, 1)
}

// Cmp64 compares: -1 less, 0 equal, 1 greater, 2 unordered. A signaling NaN is
// Invalid, with signalQuiet a quiet one too.
func (e *Env) Cmp64(a, b uint64, signalQuiet bool) int {
	if ordered64(a) && ordered64(b) {
		switch x, y := math.Float64frombits(a), math.Float64frombits(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	return e.cmp(&binary64, a, b, signalQuiet)
}

// Round64 rounds to an integer by mode: the caller has resolved "as MXCSR says".
func (e *Env) Round64(a uint64, mode uint8, suppressInexact bool) uint64 {
	return e.round(&binary64, a, mode, suppressInexact)
}

// Int32ToF64 converts an integer.
func (e *Env) Int32ToF64(v int32) uint64 {
	return math.Float64bits(float64(v)) // exact
}

// F64ToInt32 converts to an integer, toward zero with truncate. What doesn't fit
// is Invalid and gives the integer indefinite, 0x80000000.
func (e *Env) F64ToInt32(a uint64, truncate bool) int32 {
	if plain64(a) {
		x := math.Float64frombits(a)
		if v, ok := e.hostInteger(x, 1<<31, truncate); ok {
			return int32(v)
		}
	}
	v, _ := e.toInteger(e.unpack(&binary64, a), e.truncateOr(truncate), 32)
	return int32(v)
}

// Int64ToF64 converts an integer.
func (e *Env) Int64ToF64(v int64) uint64 {
	const exact = 1 << 53
	if e.fast() || v > -exact && v < exact {
		return math.Float64bits(float64(v))
	}
	return e.fromInt(&binary64, v)
}

// F64ToInt64 converts to an integer, toward zero with truncate. What doesn't fit
// is Invalid and gives the integer indefinite, 1<<63.
func (e *Env) F64ToInt64(a uint64, truncate bool) int64 {
	if plain64(a) {
		x := math.Float64frombits(a)
		if v, ok := e.hostInteger(x, 1<<63, truncate); ok {
			return v
		}
	}
	v, _ := e.toInteger(e.unpack(&binary64, a), e.truncateOr(truncate), 64)
	return v
}

// hostInteger rounds x to an integer; ok is false where the long way has to.
func (e *Env) hostInteger(x, limit float64, truncate bool) (v int64, ok bool) {
	r := x
	switch {
	case !truncate && e.Rounding == Nearest:
		r = math.RoundToEven(x)
	case !truncate && e.Rounding != Zero:
		return 0, false
	}
	if r < -limit || r >= limit {
		return 0, false
	}
	v = int64(r)
	if float64(v) != x {
		e.Flags |= Inexact
	}
	return v, true
}

// F32ToF64 is CVTSS2SD.
func (e *Env) F32ToF64(a uint32) uint64 {
	if ordered32(a) {
		return math.Float64bits(float64(math.Float32frombits(a)))
	}
	return e.convert(&binary64, &binary32, uint64(a))
}

// F64ToF32 is CVTSD2SS.
func (e *Env) F64ToF32(a uint64) uint32 {
	if e.fast() && normal64(a) {
		if v := math.Float32bits(float32(math.Float64frombits(a))); above32(v) {
			return v
		}
	}
	return uint32(e.convert(&binary32, &binary64, a))
}
