package float

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestProcessor compares with what a processor answered. The transcendental
// functions may differ in the last place, as processors do among themselves.
func TestProcessor(t *testing.T) {
	f, err := os.Open("testdata/processor.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[string]int{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		w := strings.Fields(line)
		if w[0] == "#" {
			continue
		}
		seen[w[0]+" "+w[1]]++
		var err error
		if w[0] == "x87" {
			err = checkX87(w[1], w[2:6], w[7:])
		} else {
			err = checkSSE(w[1], w[2:5], w[6:])
		}
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if len(seen) != len(x87Ops)+len(sseOps) {
		t.Errorf("the recording has %d operations, the test knows %d", len(seen), len(x87Ops)+len(sseOps))
	}
	for op, n := range seen {
		if n < 10 {
			t.Errorf("only %d cases of %s", n, op)
		}
	}
}

func hexNumber(s string) uint64 {
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		panic(err)
	}
	return v
}

func hexF80(s string) F80 { return F80{hexNumber(s[4:]), uint16(hexNumber(s[:4]))} }

func hexMemory(s string) (m [10]byte) {
	if s == "-" {
		return m
	}
	if _, err := hex.Decode(m[:], []byte(s)); err != nil {
		panic(err)
	}
	return m
}

// x87Case is one instruction: its operands, and what it left.
type x87Case struct {
	a, b   F80 // ST(0), ST(1)
	m      [10]byte
	st     [2]F80
	status uint16 // condition codes
	memory []byte // stored
}

func (c *x87Case) m64() (v uint64) {
	for i := range 8 {
		v |= uint64(c.m[i]) << (8 * i)
	}
	return v
}

func (c *x87Case) m32() uint32 { return uint32(c.m64()) }

func (c *x87Case) store(v uint64, size int) {
	for i := range size {
		c.memory = append(c.memory, byte(v>>(8*i)))
	}
}

func (c *x87Case) set(v F80) { c.st[0] = v }

const (
	c0 = 1 << 8
	c1 = 1 << 9
	c2 = 1 << 10
	c3 = 1 << 14
)

func (c *x87Case) compared(order int) {
	c.st[0] = c.a
	c.status = [...]uint16{c0, c3, 0, c0 | c2 | c3}[order+1]
}

func (c *x87Case) remainder(v F80, quotient uint8, complete bool) {
	c.st[0] = v
	c.status = uint16(quotient)>>2&1*c0 | uint16(quotient)>>1&1*c3 | uint16(quotient)&1*c1
	if !complete {
		c.status |= c2
	}
}

func (c *x87Case) inRange(complete bool) {
	if !complete {
		c.status = c2
	}
}

var x87Ops = map[string]func(e *Env, c *x87Case){
	"add":     func(e *Env, c *x87Case) { c.set(e.Add80(c.a, c.b)) },
	"sub":     func(e *Env, c *x87Case) { c.set(e.Sub80(c.a, c.b)) },
	"mul":     func(e *Env, c *x87Case) { c.set(e.Mul80(c.a, c.b)) },
	"div":     func(e *Env, c *x87Case) { c.set(e.Div80(c.a, c.b)) },
	"sqrt":    func(e *Env, c *x87Case) { c.set(e.Sqrt80(c.a)) },
	"prem":    func(e *Env, c *x87Case) { c.remainder(e.Rem80(c.a, c.b)) },
	"prem1":   func(e *Env, c *x87Case) { c.remainder(e.Rem180(c.a, c.b)) },
	"rndint":  func(e *Env, c *x87Case) { c.set(e.Round80(c.a)) },
	"scale":   func(e *Env, c *x87Case) { c.set(e.Scale80(c.a, c.b)) },
	"xtract":  func(e *Env, c *x87Case) { c.st[0], c.st[1] = e.Extract80(c.a) },
	"com":     func(e *Env, c *x87Case) { c.compared(e.Cmp80(c.a, c.b, true)) },
	"f2xm1":   func(e *Env, c *x87Case) { c.set(e.Exp2m1_80(c.a)) },
	"patan":   func(e *Env, c *x87Case) { c.set(e.Atan2_80(c.b, c.a)) },
	"yl2x":    func(e *Env, c *x87Case) { c.set(e.Log2_80(c.b, c.a)) },
	"yl2xp1":  func(e *Env, c *x87Case) { c.set(e.Log2p1_80(c.b, c.a)) },
	"fst32":   func(e *Env, c *x87Case) { c.store(uint64(e.F80ToF32(c.a)), 4) },
	"fst64":   func(e *Env, c *x87Case) { c.store(e.F80ToF64(c.a), 8) },
	"fist16":  func(e *Env, c *x87Case) { c.store(uint64(e.F80ToInt16(c.a, false)), 2) },
	"fist32":  func(e *Env, c *x87Case) { c.store(uint64(e.F80ToInt32(c.a, false)), 4) },
	"fist64":  func(e *Env, c *x87Case) { c.store(uint64(e.F80ToInt64(c.a, false)), 8) },
	"fistt16": func(e *Env, c *x87Case) { c.store(uint64(e.F80ToInt16(c.a, true)), 2) },
	"fistt32": func(e *Env, c *x87Case) { c.store(uint64(e.F80ToInt32(c.a, true)), 4) },
	"fistt64": func(e *Env, c *x87Case) { c.store(uint64(e.F80ToInt64(c.a, true)), 8) },
	"fbstp":   func(e *Env, c *x87Case) { bcd := e.F80ToBCD(c.a); c.memory = append(c.memory, bcd[:]...) },
	"fbld":    func(e *Env, c *x87Case) { c.set(e.BCDToF80(c.m)) },
	"fld32":   func(e *Env, c *x87Case) { c.set(e.F32ToF80(c.m32())) },
	"fld64":   func(e *Env, c *x87Case) { c.set(e.F64ToF80(c.m64())) },
	"fild32":  func(e *Env, c *x87Case) { c.set(e.Int64ToF80(int64(int32(c.m32())))) },
	"fild64":  func(e *Env, c *x87Case) { c.set(e.Int64ToF80(int64(c.m64()))) },
	"fadd32":  func(e *Env, c *x87Case) { c.set(e.Add80(c.a, e.Operand32(c.m32()))) },
	"fadd64":  func(e *Env, c *x87Case) { c.set(e.Add80(c.a, e.Operand64(c.m64()))) },
	"fmul64":  func(e *Env, c *x87Case) { c.set(e.Mul80(c.a, e.Operand64(c.m64()))) },
	"fdiv32":  func(e *Env, c *x87Case) { c.set(e.Div80(c.a, e.Operand32(c.m32()))) },
	"fdivr32": func(e *Env, c *x87Case) { c.set(e.Div80(e.Operand32(c.m32()), c.a)) },
	"fcom32":  func(e *Env, c *x87Case) { c.compared(e.Cmp80(c.a, e.Operand32(c.m32()), true)) },
	"sin":     func(e *Env, c *x87Case) { v, ok := e.Sin80(c.a); c.set(v); c.inRange(ok) },
	"cos":     func(e *Env, c *x87Case) { v, ok := e.Cos80(c.a); c.set(v); c.inRange(ok) },
	"sincos": func(e *Env, c *x87Case) {
		v, ok := e.Sin80(c.a)
		c.set(v)
		if c.inRange(ok); ok {
			c.st[1] = v
			if e.Flags&^e.Masks&7 == 0 {
				c.st[0], _ = e.Cos80(c.a)
			}
		}
	},
	"ptan": func(e *Env, c *x87Case) {
		v, ok := e.Tan80(c.a)
		c.set(v)
		if c.inRange(ok); ok {
			c.st[1] = v
			if v.SE&special != special { // a NaN is pushed in the place of the 1
				c.st[0] = F80{1 << 63, bias80}
			}
		}
	},
}

// approximate are the operations whose last bit is the processor's own.
var approximate = map[string]bool{
	"sin": true, "cos": true, "sincos": true, "ptan": true, "patan": true, "f2xm1": true, "yl2x": true, "yl2xp1": true,
}

func checkX87(name string, in, out []string) error {
	control := hexNumber(in[0])
	status := uint16(hexNumber(out[2]))
	e := &Env{Masks: uint8(control & 0x3f), Precision: uint8(control >> 8 & 3), Rounding: uint8(control >> 10 & 3)}
	c := &x87Case{a: hexF80(in[1]), b: hexF80(in[2]), m: hexMemory(in[3]), st: [2]F80{hexF80(out[0]), hexF80(out[1])}}
	want := c.st
	op := x87Ops[name]
	if op == nil {
		return fmt.Errorf("no such operation")
	}
	op(e, c)
	if flags := uint8(status & 0x3f); e.Flags != flags {
		return fmt.Errorf("flags %#x, want %#x", e.Flags, flags)
	}
	if e.fromDenormal {
		return fmt.Errorf("the memory operand's denormal was not cleared")
	}
	unmasked := e.Flags &^ e.Masks
	if unmasked&(Invalid|Denormal|DivideByZero) != 0 {
		return nil
	}
	const codes = c0 | c1 | c2 | c3
	if e.C1 {
		c.status |= c1
	}
	switch {
	case approximate[name]:
		status &^= c1
		c.status &^= c1
	case name != "com" && name != "fcom32" && name != "prem" && name != "prem1":
		status &= c1
	}
	if c.status != status&codes {
		return fmt.Errorf("condition codes %#x, want %#x", c.status, status&codes)
	}
	for i, v := range c.st {
		if v != want[i] && !(approximate[name] && oneApart(v, want[i])) {
			return fmt.Errorf("ST(%d) is %04x %016x", i, v.SE, v.Mant)
		}
	}
	if m := hexMemory(out[3]); unmasked&(Overflow|Underflow) == 0 && string(c.memory) != string(m[:len(c.memory)]) {
		return fmt.Errorf("stored %x", c.memory)
	}
	return nil
}

// oneApart tells whether two numbers of one sign are neighbours.
func oneApart(a, b F80) bool {
	if a.SE > b.SE || a.SE == b.SE && a.Mant > b.Mant {
		a, b = b, a
	}
	if a.SE == b.SE {
		return b.Mant-a.Mant == 1
	}
	last := a.Mant == 1<<64-1 || a.SE&special == 0 && a.Mant == 1<<63-1
	return b.SE-a.SE == 1 && last && b.Mant == 1<<63
}

var sseOps = map[string]func(e *Env, a, b uint64) uint64{
	"add32":     func(e *Env, a, b uint64) uint64 { return uint64(e.Add32(uint32(a), uint32(b))) },
	"add64":     (*Env).Add64,
	"sub32":     func(e *Env, a, b uint64) uint64 { return uint64(e.Sub32(uint32(a), uint32(b))) },
	"sub64":     (*Env).Sub64,
	"mul32":     func(e *Env, a, b uint64) uint64 { return uint64(e.Mul32(uint32(a), uint32(b))) },
	"mul64":     (*Env).Mul64,
	"div32":     func(e *Env, a, b uint64) uint64 { return uint64(e.Div32(uint32(a), uint32(b))) },
	"div64":     (*Env).Div64,
	"min32":     func(e *Env, a, b uint64) uint64 { return uint64(e.Min32(uint32(a), uint32(b))) },
	"min64":     (*Env).Min64,
	"max32":     func(e *Env, a, b uint64) uint64 { return uint64(e.Max32(uint32(a), uint32(b))) },
	"max64":     (*Env).Max64,
	"sqrt32":    func(e *Env, a, b uint64) uint64 { return uint64(e.Sqrt32(uint32(b))) },
	"sqrt64":    func(e *Env, a, b uint64) uint64 { return e.Sqrt64(b) },
	"comi32":    func(e *Env, a, b uint64) uint64 { return eflags(e.Cmp32(uint32(a), uint32(b), true)) },
	"comi64":    func(e *Env, a, b uint64) uint64 { return eflags(e.Cmp64(a, b, true)) },
	"ucomi32":   func(e *Env, a, b uint64) uint64 { return eflags(e.Cmp32(uint32(a), uint32(b), false)) },
	"ucomi64":   func(e *Env, a, b uint64) uint64 { return eflags(e.Cmp64(a, b, false)) },
	"round0_32": func(e *Env, a, b uint64) uint64 { return uint64(e.Round32(uint32(b), Nearest, false)) },
	"round1_32": func(e *Env, a, b uint64) uint64 { return uint64(e.Round32(uint32(b), Down, false)) },
	"round2_32": func(e *Env, a, b uint64) uint64 { return uint64(e.Round32(uint32(b), Up, false)) },
	"round3_32": func(e *Env, a, b uint64) uint64 { return uint64(e.Round32(uint32(b), Zero, false)) },
	"round0_64": func(e *Env, a, b uint64) uint64 { return e.Round64(b, Nearest, false) },
	"round1_64": func(e *Env, a, b uint64) uint64 { return e.Round64(b, Down, false) },
	"round2_64": func(e *Env, a, b uint64) uint64 { return e.Round64(b, Up, false) },
	"round3_64": func(e *Env, a, b uint64) uint64 { return e.Round64(b, Zero, false) },
	// Immediate 12: as MXCSR says, Inexact suppressed.
	"round12_32": func(e *Env, a, b uint64) uint64 { return uint64(e.Round32(uint32(b), e.Rounding, true)) },
	"round12_64": func(e *Env, a, b uint64) uint64 { return e.Round64(b, e.Rounding, true) },
	"cvt32_i32":  func(e *Env, a, b uint64) uint64 { return uint64(uint32(e.F32ToInt32(uint32(b), false))) },
	"cvtt32_i32": func(e *Env, a, b uint64) uint64 { return uint64(uint32(e.F32ToInt32(uint32(b), true))) },
	"cvt32_i64":  func(e *Env, a, b uint64) uint64 { return uint64(e.F32ToInt64(uint32(b), false)) },
	"cvtt32_i64": func(e *Env, a, b uint64) uint64 { return uint64(e.F32ToInt64(uint32(b), true)) },
	"cvt64_i32":  func(e *Env, a, b uint64) uint64 { return uint64(uint32(e.F64ToInt32(b, false))) },
	"cvtt64_i32": func(e *Env, a, b uint64) uint64 { return uint64(uint32(e.F64ToInt32(b, true))) },
	"cvt64_i64":  func(e *Env, a, b uint64) uint64 { return uint64(e.F64ToInt64(b, false)) },
	"cvtt64_i64": func(e *Env, a, b uint64) uint64 { return uint64(e.F64ToInt64(b, true)) },
	"cvti32_32":  func(e *Env, a, b uint64) uint64 { return uint64(e.Int32ToF32(int32(b))) },
	"cvti32_64":  func(e *Env, a, b uint64) uint64 { return e.Int32ToF64(int32(b)) },
	"cvti64_32":  func(e *Env, a, b uint64) uint64 { return uint64(e.Int64ToF32(int64(b))) },
	"cvti64_64":  func(e *Env, a, b uint64) uint64 { return e.Int64ToF64(int64(b)) },
	"cvt32_64":   func(e *Env, a, b uint64) uint64 { return e.F32ToF64(uint32(b)) },
	"cvt64_32":   func(e *Env, a, b uint64) uint64 { return uint64(e.F64ToF32(b)) },
}

// eflags is COMISS's answer: ZF, PF and CF.
func eflags(order int) uint64 {
	return [...]uint64{1, 0x40, 0, 0x45}[order+1]
}

func fromMXCSR(csr uint64) *Env {
	return &Env{
		Rounding: uint8(csr >> 13 & 3), DAZ: csr>>6&1 != 0, FTZ: csr>>15 != 0,
		Masks: uint8(csr >> 7 & 0x3f), Flags: uint8(csr & 0x3f),
	}
}

func checkSSE(name string, in, out []string) error {
	e := fromMXCSR(hexNumber(in[0]))
	op := sseOps[name]
	if op == nil {
		return fmt.Errorf("no such operation")
	}
	if v := op(e, hexNumber(in[1]), hexNumber(in[2])); v != hexNumber(out[0]) {
		return fmt.Errorf("result %x", v)
	}
	if flags := uint8(hexNumber(out[1]) & 0x3f); e.Flags != flags {
		return fmt.Errorf("flags %#x, want %#x", e.Flags, flags)
	}
	return nil
}

// TestUnmaskedSSE has the flags that a processor left in MXCSR with a trap: the
// recording has none of them.
func TestUnmaskedSSE(t *testing.T) {
	const masked = 0x1f80
	for _, c := range []struct {
		op    string
		a, b  uint64
		csr   uint64
		flags uint8
	}{
		{"mul64", 0x7fefffffffffffff, 0x7fefffffffffffff, masked &^ 0x400, Overflow | Inexact},
		{"add64", 0x7fe0000000000000, 0x7fe0000000000000, masked &^ 0x400, Overflow},
		{"add64", 0x7fe0000000000000, 0x7fe0000000000000, masked &^ 0x1000, Overflow | Inexact},
		{"mul64", 0x0010000000000000, 0x3fe0000000000000, masked &^ 0x800, Underflow},
		{"mul64", 0x0010000000000001, 0x3fe0000000000000, masked&^0x800 | 0x8000, Underflow},
		{"mul64", 0x0010000000000001, 0x3fd5000000000000, masked &^ 0x800, Underflow | Inexact},
		{"mul64", 0x0010000000000001, 0x3fd5000000000000, masked&^0x1000 | 0x8000, Underflow | Inexact},
		{"add64", 1, 0x3ff0000000000000, masked &^ 0x100, Denormal},
		{"mul64", 1, 0x3fd5000000000000, masked &^ 0x100, Denormal},
		{"div64", 1, 0, masked &^ 0x100, DivideByZero},
		{"div64", 1, 0, masked &^ 0x200, DivideByZero},
	} {
		e := fromMXCSR(c.csr)
		sseOps[c.op](e, c.a, c.b)
		if e.Flags != c.flags {
			t.Errorf("%s %x %x, MXCSR %x: flags %#x, want %#x", c.op, c.a, c.b, c.csr, e.Flags, c.flags)
		}
	}
}
