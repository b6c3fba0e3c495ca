package float

import (
	"math"
	"testing"
)

// benchmark runs f on ordinary operands: 256 pairs, so that branches don't learn them.
func benchmark(b *testing.B, inexact bool, f func(e *Env, x, y uint64)) {
	e := &Env{Masks: 0x3f, Precision: Extended}
	o := newOperands(9)
	var v [256][2]uint64
	for i := range v {
		v[i] = [2]uint64{math.Float64bits(o.NormFloat64()), math.Float64bits(o.NormFloat64())}
	}
	i := 0
	for b.Loop() {
		e.Flags = 0
		if inexact {
			e.Flags = Inexact
		}
		f(e, v[i&255][0], v[i&255][1])
		i++
	}
}

func BenchmarkAdd64(b *testing.B) { benchmark(b, true, func(e *Env, x, y uint64) { e.Add64(x, y) }) }
func BenchmarkAdd64Slow(b *testing.B) {
	benchmark(b, false, func(e *Env, x, y uint64) { e.Add64(x, y) })
}
func BenchmarkMul64Slow(b *testing.B) {
	benchmark(b, false, func(e *Env, x, y uint64) { e.Mul64(x, y) })
}
func BenchmarkDiv64Slow(b *testing.B) {
	benchmark(b, false, func(e *Env, x, y uint64) { e.Div64(x, y) })
}
func BenchmarkSqrt64Slow(b *testing.B) {
	benchmark(b, false, func(e *Env, x, y uint64) { e.Sqrt64(x &^ (1 << 63)) })
}
func BenchmarkCmp64(b *testing.B) {
	benchmark(b, true, func(e *Env, x, y uint64) { e.Cmp64(x, y, false) })
}
func BenchmarkMax64(b *testing.B) { benchmark(b, true, func(e *Env, x, y uint64) { e.Max64(x, y) }) }
func BenchmarkF64ToInt64(b *testing.B) {
	benchmark(b, true, func(e *Env, x, y uint64) { e.F64ToInt64(x, true) })
}
func BenchmarkInt64ToF64(b *testing.B) {
	benchmark(b, true, func(e *Env, x, y uint64) { e.Int64ToF64(int64(x)) })
}
func BenchmarkF32ToF64(b *testing.B) {
	benchmark(b, true, func(e *Env, x, y uint64) { e.F32ToF64(uint32(x >> 32)) })
}
func BenchmarkF64ToF32(b *testing.B) {
	benchmark(b, true, func(e *Env, x, y uint64) { e.F64ToF32(x) })
}
func BenchmarkAdd80(b *testing.B) {
	benchmark(b, true, func(e *Env, x, y uint64) { e.Add80(F80{x | 1<<63, 0x3fff}, F80{y | 1<<63, 0xbffe}) })
}
func BenchmarkMul80(b *testing.B) {
	benchmark(b, true, func(e *Env, x, y uint64) { e.Mul80(F80{x | 1<<63, 0x3fff}, F80{y | 1<<63, 0xbffe}) })
}
func BenchmarkDiv80(b *testing.B) {
	benchmark(b, true, func(e *Env, x, y uint64) { e.Div80(F80{x | 1<<63, 0x3fff}, F80{y | 1<<63, 0xbffe}) })
}
func BenchmarkSqrt80(b *testing.B) {
	benchmark(b, true, func(e *Env, x, y uint64) { e.Sqrt80(F80{x | 1<<63, 0x3fff}) })
}
func BenchmarkSin80(b *testing.B) {
	benchmark(b, true, func(e *Env, x, y uint64) { e.Sin80(F80{x | 1<<63, 0x3ffe}) })
}
