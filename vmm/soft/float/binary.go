package float

import "math"

// An operation on two normal numbers with a normal result, to the nearest, with
// Inexact set already, changes no flag and is what the host's own operation gives
// (Go rounds each to its format where it is converted or assigned). Everything
// else takes the long way. The smallest normal number can be a denormal that
// was rounded up, so a result must lie above its binade.

func (e *Env) fast() bool { return e.Flags&Inexact != 0 && e.Rounding == Nearest }

func normal32(v uint32) bool       { return v>>23&0xff-1 < 0xfe }
func normalResult32(v uint32) bool { return v>>23&0xff-2 < 0xfd }
func normal64(v uint64) bool       { return v>>52&0x7ff-1 < 0x7fe }
func normalResult64(v uint64) bool { return v>>52&0x7ff-2 < 0x7fd }

// Add32 is a+b in binary32.
func (e *Env) Add32(a, b uint32) uint32 {
	if e.fast() && normal32(a) && normal32(b) {
		if v := math.Float32bits(math.Float32frombits(a) + math.Float32frombits(b)); normalResult32(v) {
			return v
		}
	}
	return uint32(e.add(&binary32, uint64(a), uint64(b), 0))
}

// Sub32 is a-b in binary32.
func (e *Env) Sub32(a, b uint32) uint32 {
	if e.fast() && normal32(a) && normal32(b) {
		if v := math.Float32bits(math.Float32frombits(a) - math.Float32frombits(b)); normalResult32(v) {
			return v
		}
	}
	return uint32(e.add(&binary32, uint64(a), uint64(b), binary32.signBit()))
}

// Mul32 is a*b in binary32.
func (e *Env) Mul32(a, b uint32) uint32 {
	if e.fast() && normal32(a) && normal32(b) {
		if v := math.Float32bits(math.Float32frombits(a) * math.Float32frombits(b)); normalResult32(v) {
			return v
		}
	}
	return uint32(e.mul(&binary32, uint64(a), uint64(b)))
}

// Div32 is a/b in binary32.
func (e *Env) Div32(a, b uint32) uint32 {
	if e.fast() && normal32(a) && normal32(b) {
		if v := math.Float32bits(math.Float32frombits(a) / math.Float32frombits(b)); normalResult32(v) {
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
func (e *Env) Min32(a, b uint32) uint32 { return uint32(e.pick(&binary32, uint64(a), uint64(b), -1)) }

// Max32 is MAX of SSE: a if it is greater than b, else b, as for Min32.
func (e *Env) Max32(a, b uint32) uint32 { return uint32(e.pick(&binary32, uint64(a), uint64(b), 1)) }

// Cmp32 compares: -1 less, 0 equal, 1 greater, 2 unordered. A signaling NaN is
// Invalid, with signalQuiet a quiet one too.
func (e *Env) Cmp32(a, b uint32, signalQuiet bool) int {
	return e.cmp(&binary32, uint64(a), uint64(b), signalQuiet)
}

// Round32 rounds to an integer by mode: the caller has resolved "as MXCSR says".
func (e *Env) Round32(a uint32, mode uint8, suppressInexact bool) uint32 {
	return uint32(e.round(&binary32, uint64(a), mode, suppressInexact))
}

// Int32ToF32 converts an integer.
func (e *Env) Int32ToF32(v int32) uint32 { return uint32(e.fromInt(&binary32, int64(v))) }

// F32ToInt32 converts to an integer, toward zero with truncate. What doesn't fit
// is Invalid and gives the integer indefinite, 0x80000000.
func (e *Env) F32ToInt32(a uint32, truncate bool) int32 {
	v, _ := e.toInteger(e.unpack(&binary32, uint64(a)), e.truncateOr(truncate), 32)
	return int32(v)
}

// Int64ToF32 converts an integer.
func (e *Env) Int64ToF32(v int64) uint32 { return uint32(e.fromInt(&binary32, v)) }

// F32ToInt64 converts to an integer, toward zero with truncate. What doesn't fit
// is Invalid and gives the integer indefinite, 1<<63.
func (e *Env) F32ToInt64(a uint32, truncate bool) int64 {
	v, _ := e.toInteger(e.unpack(&binary32, uint64(a)), e.truncateOr(truncate), 64)
	return v
}

// Add64 is a+b in binary64.
func (e *Env) Add64(a, b uint64) uint64 {
	if e.fast() && normal64(a) && normal64(b) {
		if v := math.Float64bits(math.Float64frombits(a) + math.Float64frombits(b)); normalResult64(v) {
			return v
		}
	}
	return e.add(&binary64, a, b, 0)
}

// Sub64 is a-b in binary64.
func (e *Env) Sub64(a, b uint64) uint64 {
	if e.fast() && normal64(a) && normal64(b) {
		if v := math.Float64bits(math.Float64frombits(a) - math.Float64frombits(b)); normalResult64(v) {
			return v
		}
	}
	return e.add(&binary64, a, b, binary64.signBit())
}

// Mul64 is a*b in binary64.
func (e *Env) Mul64(a, b uint64) uint64 {
	if e.fast() && normal64(a) && normal64(b) {
		if v := math.Float64bits(math.Float64frombits(a) * math.Float64frombits(b)); normalResult64(v) {
			return v
		}
	}
	return e.mul(&binary64, a, b)
}

// Div64 is a/b in binary64.
func (e *Env) Div64(a, b uint64) uint64 {
	if e.fast() && normal64(a) && normal64(b) {
		if v := math.Float64bits(math.Float64frombits(a) / math.Float64frombits(b)); normalResult64(v) {
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
func (e *Env) Min64(a, b uint64) uint64 { return e.pick(&binary64, a, b, -1) }

// Max64 is MAX of SSE: a if it is greater than b, else b, as for Min64.
func (e *Env) Max64(a, b uint64) uint64 { return e.pick(&binary64, a, b, 1) }

// Cmp64 compares: -1 less, 0 equal, 1 greater, 2 unordered. A signaling NaN is
// Invalid, with signalQuiet a quiet one too.
func (e *Env) Cmp64(a, b uint64, signalQuiet bool) int {
	return e.cmp(&binary64, a, b, signalQuiet)
}

// Round64 rounds to an integer by mode: the caller has resolved "as MXCSR says".
func (e *Env) Round64(a uint64, mode uint8, suppressInexact bool) uint64 {
	return e.round(&binary64, a, mode, suppressInexact)
}

// Int32ToF64 converts an integer.
func (e *Env) Int32ToF64(v int32) uint64 { return e.fromInt(&binary64, int64(v)) }

// F64ToInt32 converts to an integer, toward zero with truncate. What doesn't fit
// is Invalid and gives the integer indefinite, 0x80000000.
func (e *Env) F64ToInt32(a uint64, truncate bool) int32 {
	v, _ := e.toInteger(e.unpack(&binary64, a), e.truncateOr(truncate), 32)
	return int32(v)
}

// Int64ToF64 converts an integer.
func (e *Env) Int64ToF64(v int64) uint64 { return e.fromInt(&binary64, v) }

// F64ToInt64 converts to an integer, toward zero with truncate. What doesn't fit
// is Invalid and gives the integer indefinite, 1<<63.
func (e *Env) F64ToInt64(a uint64, truncate bool) int64 {
	v, _ := e.toInteger(e.unpack(&binary64, a), e.truncateOr(truncate), 64)
	return v
}

// F32ToF64 is CVTSS2SD.
func (e *Env) F32ToF64(a uint32) uint64 { return e.convert(&binary64, &binary32, uint64(a)) }

// F64ToF32 is CVTSD2SS.
func (e *Env) F64ToF32(a uint64) uint32 { return uint32(e.convert(&binary32, &binary64, a)) }
