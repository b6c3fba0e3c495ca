package float

import (
	"math/big"
	"testing"
)

// TestShiftRight: what falls out is remembered in the last bit, at any distance.
func TestShiftRight(t *testing.T) {
	o := newOperands(10)
	for range 20_000 {
		hi, lo := o.fraction(63), o.fraction(63)
		n := o.UintN(140)
		v := new(big.Int).SetUint64(hi)
		v.Lsh(v, 64).Add(v, new(big.Int).SetUint64(lo))
		want := new(big.Int).Rsh(v, n)
		if new(big.Int).Lsh(want, n).Cmp(v) != 0 {
			want.SetBit(want, 0, 1)
		}
		h, l := shiftRight(hi, lo, n)
		got := new(big.Int).SetUint64(h)
		if got.Lsh(got, 64).Add(got, new(big.Int).SetUint64(l)); got.Cmp(want) != 0 {
			t.Fatalf("%x %x by %d: %x, want %x", hi, lo, n, got, want)
		}
	}
}

// TestRules has the rules that random operands seldom meet.
func TestRules(t *testing.T) {
	unit := F80{1 << 63, bias80}
	largest := F80{1<<64 - 1, special - 1}
	nan := F80{0xc000000000000001, special}
	minus := func(v F80) F80 { v.SE ^= 0x8000; return v }
	for _, c := range []struct {
		name     string
		op       string
		a, b     F80
		rounding uint8
		unmasked uint8
		want     F80
		flags    uint8
		c1       bool
	}{
		{name: "of two equal NaNs the positive one", op: "add", a: nan, b: minus(nan), want: nan},
		{name: "of two equal NaNs the positive one, turned", op: "add", a: minus(nan), b: nan, want: nan},
		{name: "x-x", op: "sub", a: unit, b: unit, want: zero80(false)},
		{name: "x-x, down", op: "sub", a: unit, b: unit, rounding: Down, want: zero80(true)},
		{name: "0-0, down", op: "sub", a: zero80(false), b: zero80(false), rounding: Down, want: zero80(true)},
		{name: "-0-0, up", op: "sub", a: zero80(true), b: zero80(false), rounding: Up, want: zero80(true)},
		{name: "massive overflow", op: "scale", a: unit, b: largest, unmasked: Overflow, want: infinity80(false), flags: Overflow | Inexact, c1: true},
		{name: "massive underflow", op: "scale", a: unit, b: minus(largest), unmasked: Underflow, want: zero80(false), flags: Underflow | Inexact},
		{name: "unmasked overflow", op: "add", a: largest, b: largest, unmasked: Overflow, want: F80{1<<64 - 1, special - wrap80}, flags: Overflow},
		{name: "unmasked underflow", op: "mul", a: F80{1 << 63, 1}, b: F80{1 << 63, bias80 - 1}, unmasked: Underflow, want: F80{1 << 63, wrap80}, flags: Underflow},
		{name: "exact denormal", op: "mul", a: F80{1 << 63, 1}, b: F80{1 << 63, bias80 - 1}, want: F80{1 << 62, 0}},
		{name: "5/2 to an even 2", op: "prem1", a: F80{5 << 61, bias80 + 2}, b: F80{1 << 63, bias80 + 1}, want: unit},
		{name: "3/2 to an even 2", op: "prem1", a: F80{3 << 62, bias80 + 1}, b: F80{1 << 63, bias80 + 1}, want: minus(unit)},
		{name: "1/2 to an even 0", op: "prem1", a: unit, b: F80{1 << 63, bias80 + 1}, want: unit},
		{name: "a remainder's first step", op: "prem", a: F80{1<<63 | 12345, bias80 + 100}, b: F80{3<<62 | 1, bias80}, want: F80{0x8003038555555556, 0x403f}},
		{name: "a longer one's", op: "prem1", a: F80{1<<63 | 12345, bias80 + 127}, b: F80{3<<62 | 1, bias80}, want: F80{0xaaaaaaaaaaaa8a86, 0x403f}},
		{name: "logarithm of 0", op: "yl2x", a: zero80(false), b: unit, want: infinity80(true), flags: DivideByZero},
		{name: "logarithm of -0, negated", op: "yl2x", a: zero80(true), b: minus(unit), want: infinity80(false), flags: DivideByZero},
		{name: "sine of a trifle, down", op: "sin", a: F80{1 << 63, 0x3f00}, rounding: Down, want: F80{1<<64 - 1, 0x3eff}, flags: Inexact},
		{name: "sine of the smallest normal, down", op: "sin", a: F80{1 << 63, 1}, rounding: Down, want: F80{1<<63 - 1, 0}, flags: Underflow | Inexact},
		{name: "sine out of range", op: "sin", a: F80{1 << 63, bias80 + 63}, want: F80{1 << 63, bias80 + 63}},
		{name: "angle of two infinities", op: "patan", a: infinity80(true), b: infinity80(false), want: F80{0x96cbe3f9990e91a8, bias80 + 1}, flags: Inexact, c1: true},
		{name: "angle of two infinities, right", op: "patan", a: infinity80(false), b: infinity80(true), want: minus(F80{0xc90fdaa22168c235, bias80 - 1}), flags: Inexact, c1: true},
	} {
		e := &Env{Masks: 0x3f &^ c.unmasked, Rounding: c.rounding, Precision: Extended}
		k := &x87Case{a: c.a, b: c.b}
		x87Ops[c.op](e, k)
		if k.st[0] != c.want || e.Flags != c.flags || e.C1 != c.c1 {
			t.Errorf("%s: %04x %016x flags %#x C1 %v, want %04x %016x flags %#x C1 %v",
				c.name, k.st[0].SE, k.st[0].Mant, e.Flags, e.C1, c.want.SE, c.want.Mant, c.flags, c.c1)
		}
	}
	e := &Env{Masks: 0x3f}
	if _, ok := e.Sin80(F80{1<<64 - 1, bias80 + 62}); !ok {
		t.Error("the largest operand below 2^63 is in range")
	}
	e = &Env{Masks: 0x3f, FTZ: true, DAZ: true}
	if v := e.F80ToF32(F80{3 << 62, bias80 - 130}); v != 0x000c0000 || e.Flags != 0 || !e.FTZ {
		t.Errorf("MXCSR's FTZ reached the x87: %x flags %#x", v, e.Flags)
	}
	for _, c := range []struct {
		name  string
		op    string
		csr   uint64
		a, b  uint64
		want  uint64
		flags uint8
	}{
		// Tininess is detected after rounding: 2^-1022 less an eighth of a unit in
		// the last place of the binade below is not tiny.
		{"rounded up to normal", "mul64", 0x1f80, 0x0010000001000000, 0x3feffffffe000000, 0x0010000000000000, Inexact},
		{"rounded up to normal, tiny", "mul64", 0x1f80, 0x001fffffffffffff, 0x3fe0000000000000, 0x0010000000000000, Underflow | Inexact},
		{"the same, flushed", "mul64", 0x9f80, 0x801fffffffffffff, 0x3fe0000000000000, 0x8000000000000000, Underflow | Inexact},
		{"not tiny, not flushed", "mul64", 0x9f80, 0x0010000001000000, 0x3feffffffe000000, 0x0010000000000000, Inexact},
		{"an exact denormal is flushed too", "mul32", 0x9f80, 0x80800000, 0x3f000000, 0x80000000, Underflow | Inexact},
		{"an exact denormal", "mul32", 0x1f80, 0x80800000, 0x3f000000, 0x80400000, 0},
		{"x-x", "sub64", 0x1f80, 0x3ff0000000000000, 0x3ff0000000000000, 0, 0},
		{"x-x, down", "sub64", 0x3f80, 0x3ff0000000000000, 0x3ff0000000000000, 1 << 63, 0},
		{"0-0, down", "sub64", 0x3f80, 0, 0, 1 << 63, 0},
		{"-0-0, up", "sub64", 0x5f80, 1 << 63, 0, 1 << 63, 0},
	} {
		e := fromMXCSR(c.csr)
		if v := sseOps[c.op](e, c.a, c.b); v != c.want || e.Flags != c.flags {
			t.Errorf("%s: %x flags %#x, want %x flags %#x", c.name, v, e.Flags, c.want, c.flags)
		}
	}
}
