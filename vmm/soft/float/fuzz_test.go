package float

import "testing"

// FuzzX87 gives every operation any operands and any environment: a program in
// the guest chooses them all. Whatever comes out must be a number that the
// processor could have made.
func FuzzX87(f *testing.F) {
	f.Add(uint16(0x33f), uint64(1<<63), uint16(bias80), uint64(3<<62), uint16(bias80+1))
	f.Add(uint16(0x73f), uint64(1), uint16(0), uint64(1<<63), uint16(special))
	f.Add(uint16(0x300), uint64(1<<63-1), uint16(0xfffe), ^uint64(0), uint16(0x7ffe))
	f.Fuzz(func(t *testing.T, control uint16, am uint64, as uint16, bm uint64, bs uint16) {
		for name, op := range x87Ops {
			e := &Env{Masks: uint8(control & 0x3f), Precision: uint8(control >> 8 & 3), Rounding: uint8(control >> 10 & 3)}
			c := &x87Case{a: F80{am, as}, b: F80{bm, bs}}
			for i := range 8 {
				c.m[i] = byte(bm >> (8 * i))
			}
			c.m[8], c.m[9] = byte(bs), byte(bs>>8)
			op(e, c)
			if e.fromDenormal {
				t.Errorf("%s: the memory operand's denormal was not cleared", name)
			}
			if e.Flags&^e.Masks&(Invalid|Denormal|DivideByZero) != 0 {
				continue
			}
			// Only an operand that is handed on may be an unnormal or a
			// pseudo-denormal, and C2 says when.
			if v := c.st[0]; unpack80(v).class == unsupported && v != c.a {
				t.Errorf("%s: %04x %016x", name, v.SE, v.Mant)
			}
			if e.Flags&(Overflow|Underflow) != 0 && e.Flags&Inexact == 0 && e.Flags&^e.Masks&(Overflow|Underflow) == 0 {
				t.Errorf("%s: masked flags %#x without Inexact", name, e.Flags)
			}
		}
	})
}

// FuzzSSE does the same for SSE, and compares the host's way with the long one.
func FuzzSSE(f *testing.F) {
	f.Add(uint16(0x1f80), uint64(0x3ff0000000000000), uint64(0x4008000000000000))
	f.Add(uint16(0x9fc0), uint64(1), uint64(0x800fffffffffffff))
	f.Add(uint16(0x7f80), uint64(0x7ff0000000000001), uint64(0x7f7fffff))
	f.Fuzz(func(t *testing.T, csr uint16, a, b uint64) {
		for name, op := range sseOps {
			slow := fromMXCSR(uint64(csr) &^ 0x3f)
			v := op(slow, a, b)
			if slow.Flags&^slow.Masks != 0 {
				continue
			}
			fast := fromMXCSR(uint64(csr)&^0x3f | Inexact)
			if w := op(fast, a, b); w != v || fast.Flags != slow.Flags|Inexact {
				t.Errorf("%s: %x flags %#x, with Inexact set %x flags %#x", name, v, slow.Flags, w, fast.Flags)
			}
		}
	})
}

// TestNoAllocation: only the transcendental functions may allocate.
func TestNoAllocation(t *testing.T) {
	o := newOperands(8)
	for name, op := range x87Ops {
		if approximate[name] {
			continue
		}
		e, c := &Env{Masks: 0x3f}, &x87Case{memory: make([]byte, 0, 10)} // room for the test's own append
		if n := testing.AllocsPerRun(50, func() {
			c.a = o.next80(c.b)
			c.b = o.next80(c.a)
			c.memory = c.memory[:0]
			op(e, c)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	for name, op := range sseOps {
		e := &Env{Masks: 0x3f}
		if n := testing.AllocsPerRun(50, func() {
			e.Flags, e.Rounding = 0, uint8(o.IntN(4))
			a := o.next(&binary64, 0)
			op(e, a, o.next(&binary64, a))
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
