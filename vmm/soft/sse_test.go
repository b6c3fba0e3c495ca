package soft

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"fifovm/vmm/soft/float"
	"fifovm/vmm/x86"
)

// simdState is what an instruction of the tests may use: registers 0 to 2 (and
// RBX and RDI with an address), and 16 bytes of memory.
type simdState struct {
	gpr   [3]uint64 // RAX, RCX, RDX
	xmm   [3]xmm
	mm    [3]uint64
	mem   xmm
	mxcsr uint32
	flags uint64
	valid uint8 // x87 registers that aren't empty
	fault int   // vector, or -1
}

// drawState gives the state that the line of that number in testdata/sse.txt
// starts from.
func drawState(line int) simdState {
	r := rand.New(rand.NewPCG(uint64(line), 0))
	singles := []uint64{0, 1 << 31, 1, 0x80_0000, 0x3f80_0000, 0xbf80_0000, 0x7f7f_ffff, 0x7f80_0000, 0xff80_0000,
		0x7fc0_0001, 0x7f80_0001, 0x4020_0000, 0x4f00_0000, 0xcf00_0000}
	doubles := []uint64{0, 1 << 63, 1, 1 << 52, 0x3ff << 52, 0xbff << 52, 1<<63 - 1<<52 - 1, 0x7ff << 52, 0xfff << 52,
		0x7ff8_0000_0000_0001, 0x7ff0_0000_0000_0001, 0x4004 << 48, 0x41e << 52, 0xc1e << 52}
	single := func() uint64 {
		if r.IntN(2) == 0 {
			return singles[r.IntN(len(singles))]
		}
		return uint64(r.Uint32()&^(0xff<<23)) | uint64(118+r.IntN(20))<<23
	}
	draw := func() uint64 {
		switch r.IntN(5) {
		case 0:
			return doubles[r.IntN(len(doubles))]
		case 1:
			return single() | single()<<32
		case 2: // bytes for strings
			return r.Uint64() & 0x0303_0303_0303_0303
		case 3:
			return r.Uint64()&^(0x7ff<<52) | uint64(1003+r.IntN(40))<<52
		}
		return r.Uint64()
	}
	s := simdState{mxcsr: 0x1f80 | r.Uint32()&0xe07f, flags: 2 | r.Uint64()&statusFlags, valid: uint8(r.Uint32()), fault: -1}
	if r.IntN(4) == 0 {
		s.mxcsr = r.Uint32() & 0xffff
	}
	for i := range s.gpr {
		s.gpr[i] = uint64(int64(r.IntN(40) - 20))
	}
	for i := range s.xmm {
		s.xmm[i] = xmm{draw(), draw()}
		s.mm[i] = draw()
	}
	s.mem = xmm{draw(), draw()}
	return s
}

// simdAddress is what RBX and RDI have.
const simdAddress = testData + 0x800

// executeSIMD executes one instruction.
func executeSIMD(t *testing.T, g *guest, code []byte, s simdState) simdState {
	t.Helper()
	c := g.cpu
	c.r[x86.RAX], c.r[x86.RCX], c.r[x86.RDX], c.r[x86.RBX], c.r[x86.RDI] = s.gpr[0], s.gpr[1], s.gpr[2], simdAddress, simdAddress
	copy(c.xmm[:], s.xmm[:])
	c.fpu.reset()
	c.fpu.top, c.fpu.empty = 3, ^s.valid
	for i, v := range s.mm {
		c.fpu.st[i] = float.F80{Mant: v}
	}
	c.mxcsr = s.mxcsr
	c.setRFLAGS(c.rflags()&^statusFlags | s.flags&statusFlags)
	c.store128(simdAddress, s.mem)
	s.fault = throws(c, code)
	s.gpr = [3]uint64{c.r[x86.RAX], c.r[x86.RCX], c.r[x86.RDX]}
	copy(s.xmm[:], c.xmm[:])
	s.valid = ^c.fpu.empty
	for i := range s.mm {
		s.mm[i] = c.fpu.st[i].Mant
	}
	s.mxcsr, s.flags, s.mem = c.mxcsr, c.rflags()&statusFlags|2, c.load128(simdAddress)
	return s
}

// throws executes an instruction and gives the vector of the fault that it
// throws, or -1.
func throws(c *cpu, code []byte) (vector int) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case throwFault:
			vector = int(c.fault.vector)
		default:
			panic(p)
		}
	}()
	var d decoder
	var o op
	d.decode(append(slices.Clone(code), make([]byte, maxInstruction)...), 0, c.mode, &o)
	o.fn(c, &o)
	return -1
}

// changes tells how a state differs from the one before.
func (s simdState) changes(before simdState) string {
	var b strings.Builder
	note := func(changed bool, format string, args ...any) {
		if changed {
			fmt.Fprintf(&b, " "+format, args...)
		}
	}
	note(s.fault != before.fault, "fault=%d", s.fault)
	for i, name := range []string{"rax", "rcx", "rdx"} {
		note(s.gpr[i] != before.gpr[i], "%s=%x", name, s.gpr[i])
	}
	for i := range s.xmm {
		note(s.xmm[i] != before.xmm[i], "xmm%d=%016x:%016x", i, s.xmm[i].hi, s.xmm[i].lo)
		note(s.mm[i] != before.mm[i], "mm%d=%x", i, s.mm[i])
	}
	note(s.mem != before.mem, "mem=%016x:%016x", s.mem.hi, s.mem.lo)
	note(s.mxcsr != before.mxcsr, "mxcsr=%x", s.mxcsr)
	note(s.flags != before.flags, "flags=%x", s.flags)
	note(s.valid != before.valid, "valid=%x", s.valid)
	return b.String()
}

// TestProcessorSIMD compares all instructions with what an AMD Zen 5 did with
// them: each line of the file is an instruction and what it changes.
func TestProcessorSIMD(t *testing.T) {
	g := newGuest(t, 1)
	f, err := os.Open("testdata/sse.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tested := map[*simdOp]bool{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text, want, _ := strings.Cut(lines.Text(), " ")
		code, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		tested[tableEntry(code)] = true
		before := drawState(n)
		if got := strings.TrimSpace(executeSIMD(t, g, code, before).changes(before)); got != want {
			t.Errorf("line %d: % x on %x:\ngot  %s\nwant %s", n, code, before, got, want)
		}
	}
	if lines.Err() != nil {
		t.Error(lines.Err())
	}
	for m := range simdOps {
		for prefix := range simdOps[m] {
			for opcode := range simdOps[m][prefix] {
				s := &simdOps[m][prefix][opcode]
				approximate := m == 0 && opcode&0xfe == 0x52 // by TestApproximations
				if s.fn != nil && !tested[s] && !approximate {
					t.Errorf("no test for map %d, prefix %d, opcode %#x", m, prefix, opcode)
				}
			}
		}
	}
}

// tableEntry is the instruction's place in simdOps.
func tableEntry(code []byte) *simdOp {
	prefix := map[byte]int{0x66: simd66, 0xf3: simdF3, 0xf2: simdF2}[code[0]]
	if prefix != simdNone {
		code = code[1:]
	}
	for code[0] != 0x0f { // REX
		code = code[1:]
	}
	switch code[1] {
	case 0x38:
		return &simdOps[1][prefix][code[2]]
	case 0x3a:
		return &simdOps[2][prefix][code[2]]
	}
	return &simdOps[0][prefix][code[1]]
}

// TestLanes compares what works on all elements at once with a loop over them.
func TestLanes(t *testing.T) {
	for name, pair := range map[string][2]lanes{
		"paddb":   {paddb, eachLane(sum[uint8])},
		"paddw":   {paddw, eachLane(sum[uint16])},
		"paddd":   {paddd, eachLane(sum[uint32])},
		"psubb":   {psubb, eachLane(difference[uint8])},
		"psubd":   {psubd, eachLane(difference[uint32])},
		"pcmpeqb": {pcmpeqb, eachLane(equalMask[uint8])},
		"pcmpeqw": {pcmpeqw, eachLane(equalMask[uint16])},
		"pcmpeqd": {pcmpeqd, eachLane(equalMask[uint32])},
		"pminub":  {pminub, eachLane(smaller[uint8])},
	} {
		r := rand.New(rand.NewPCG(1, 2))
		for range 100_000 {
			a, b := r.Uint64(), r.Uint64()
			if r.IntN(2) == 0 { // many elements that are equal, or the extremes
				b = blend(a, b, r.Uint64()&r.Uint64())
				a |= r.Uint64() & r.Uint64() & 0x8181_8181_8181_8181
			}
			if got, want := pair[0](a, b), pair[1](a, b); got != want {
				t.Fatalf("%s(%x, %x) = %x, want %x", name, a, b, got, want)
			}
		}
	}
}

func equalMask[T laneType](x, y T) T {
	if x == y {
		return ^T(0)
	}
	return 0
}

// TestApproximations: RCPSS and RSQRTSS are as near as the manual says, and exact
// about zeros, infinities and NaNs.
func TestApproximations(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 1_000_000 {
		a := r.Uint32()
		x := float64(math.Float32frombits(a))
		check := func(name string, got uint32, want float64) {
			if math.Abs(want) < 0x1p-126 { // the result may be flushed to zero
				want = math.Copysign(0, want)
			}
			g := float64(math.Float32frombits(got))
			switch {
			case math.IsNaN(want):
				if !math.IsNaN(g) || got&quiet32 == 0 {
					t.Fatalf("%s(%x) = %x, want a quiet NaN", name, a, got)
				}
			case math.IsInf(want, 0) || want == 0:
				if g != want || math.Signbit(g) != math.Signbit(want) {
					t.Fatalf("%s(%x) = %g, want %g", name, a, g, want)
				}
			case math.Abs(g-want) > math.Abs(want)*0x1.8p-12:
				t.Fatalf("%s(%x) = %g, want about %g", name, a, g, want)
			}
		}
		if a<<1 < 1<<24 { // a denormal is zero
			x = math.Copysign(0, x)
		}
		check("rcp", rcp32(a), 1/x)
		root := 1 / math.Sqrt(x)
		if x == 0 {
			root = math.Inf(int(math.Copysign(1, x)))
		}
		check("rsqrt", rsqrt32(a), root)
	}
	for a, want := range map[uint32]uint32{0: 0x7f80_0000, 1 << 31: 0xff80_0000, 1: 0x7f80_0000, 0xff80_0000: 1 << 31, 0x7f80_0001: 0x7fc0_0001, 0xffc0_1234: 0xffc0_1234} {
		if got := rcp32(a); got != want {
			t.Errorf("rcp(%x) = %x, want %x", a, got, want)
		}
	}
	for a, want := range map[uint32]uint32{0: 0x7f80_0000, 1 << 31: 0xff80_0000, 0x8000_0001: 0xff80_0000, 0x7f80_0000: 0, 0xff80_0000: 0xffc0_0000, 0xbf80_0000: 0xffc0_0000} {
		if got := rsqrt32(a); got != want {
			t.Errorf("rsqrt(%x) = %x, want %x", a, got, want)
		}
	}
}

// TestUnmaskedSIMD: an exception that isn't masked leaves its flag and nothing
// else, and where the system doesn't know of such exceptions it is #UD.
func TestUnmaskedSIMD(t *testing.T) {
	g := newGuest(t, 1)
	divps := []byte{0x0f, 0x5e, 0xca} // DIVPS XMM1, XMM2
	before := simdState{mxcsr: 0x1f80 &^ (float.DivideByZero << mxcsrMasksShift), flags: 2}
	before.xmm[1] = xmm{0x3f80_0000_3f80_0000, 0x3f80_0000_3f80_0000}
	before.xmm[2] = xmm{0x4040_0000, 0x4040_0000_4040_0000} // 1/3 is inexact, but in no element computed
	for _, test := range []struct {
		cr4   uint64
		fault int
	}{{x86.CR4OSXMMEXCPT, x86.XM}, {0, x86.UD}} {
		g.cpu.cr4 = g.cpu.cr4&^x86.CR4OSXMMEXCPT | test.cr4
		want := before
		want.fault, want.mxcsr = test.fault, before.mxcsr|float.DivideByZero
		if got := executeSIMD(t, g, divps, before); got != want {
			t.Errorf("CR4 %x: %s, want %s", test.cr4, got.changes(before), want.changes(before))
		}
	}
}

// TestAlignedSIMD: an operand of 16 bytes must be a multiple of 16, but for the
// instructions that are made for others; a smaller one need not be.
func TestAlignedSIMD(t *testing.T) {
	any := [3][4]string{ // opcodes
		{
			simdNone: "10 11 12 13 16 17 2a 2c 2d 2e 2f 5a",
			simd66:   "10 11 12 13 16 17 2a 2e 2f 6e 7e c4 d6",
			simdF3:   "10 11 2a 2c 2d 51 52 53 58 59 5a 5c 5d 5e 5f 6f 7e 7f c2 e6",
			simdF2:   "10 11 12 2a 2c 2d 51 58 59 5a 5c 5d 5e 5f c2 f0",
		},
		{simd66: "20 21 22 23 24 25 30 31 32 33 34 35"},
		{simd66: "0a 0b 14 15 16 17 20 21 22 60 61 62 63"},
	}
	g := newGuest(t, 1)
	for m := range simdOps {
		for prefix := range simdOps[m] {
			for opcode, s := range simdOps[m][prefix] {
				if s.fn == nil || s.regOnly {
					continue
				}
				want := x86.GP
				if s.mmx || strings.Contains(any[m][prefix], fmt.Sprintf("%02x", opcode)) {
					want = -1
				}
				code := slices.Concat([][]byte{nil, {0x66}, {0xf3}, {0xf2}}[prefix], []byte{0x0f}, [][]byte{nil, {0x38}, {0x3a}}[m], []byte{uint8(opcode), 0x0b})
				g.cpu.r[x86.RBX] = simdAddress + 1
				if got := throws(g.cpu, code); got != want {
					t.Errorf("% x: fault %d, want %d", code, got, want)
				}
			}
		}
	}
}

// TestSIMDFaults: what faults changes nothing, though it is the last of what the
// instruction does.
func TestSIMDFaults(t *testing.T) {
	const unmapped = 1 << 40
	for _, text := range []string{"0f7f0b", "0f7e0b", "480f7e0b", "0fe70b", "0ff7ca", "660ff7ca", "0f110b", "f20f580b", "0ffc0b", "0f2c0b"} {
		g := newGuest(t, 1)
		c := g.cpu
		code, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		c.r[x86.RBX], c.r[x86.RDI] = unmapped, unmapped
		c.fpu.top, c.fpu.empty = 5, 0xf0
		c.fpu.st[2].Mant, c.xmm[2] = ^uint64(0), xmm{^uint64(0), ^uint64(0)}
		before, registers := c.fpu, c.xmm
		if got := throws(c, code); got != x86.PF {
			t.Errorf("% x: fault %d, want a page fault", code, got)
		}
		if c.fpu != before || c.xmm != registers {
			t.Errorf("% x has changed a register before it faulted", code)
		}
	}
}

// TestMaskmov: the address is DS:RDI, another segment's with its prefix, and what
// the mask leaves out is not touched.
func TestMaskmov(t *testing.T) {
	g := newGuest(t, 1)
	c := g.cpu
	c.r[slotFS] = 0x100
	c.xmm[1], c.xmm[2] = xmm{0x1111_1111_1111_1111, 0x2222_2222_2222_2222}, xmm{0x80, 0x80 << 56}
	c.r[x86.RDI] = testData
	if got := throws(c, []byte{0x64, 0x66, 0x0f, 0xf7, 0xca}); got != -1 {
		t.Fatalf("fault %d", got)
	}
	if got, want := c.load128(testData+0x100), (xmm{0x11, 0x22 << 56}); got != want {
		t.Errorf("memory has %x, want %x", got, want)
	}

	// A page, and behind it one that can't be written.
	const tables, pages, code = 0x9_0000, 2 << 20, "\x66\x0f\xf7\xca"
	g.cpu.store64(testTables+2*pageSize+8, tables|x86.PTEPresent|x86.PTEWrite)
	g.cpu.store64(tables, testData|x86.PTEPresent|x86.PTEWrite)
	g.cpu.store64(tables+8, (testData+pageSize)|x86.PTEPresent)
	c.cr0 |= x86.CR0WP
	c.flushTLB(true)
	c.r[x86.RDI] = pages + pageSize - 8
	c.xmm[2] = xmm{lo: 0x80}
	if got := throws(c, []byte(code)); got != -1 {
		t.Errorf("without a byte for the second page: fault %d", got)
	}
	c.xmm[1], c.xmm[2] = xmm{}, xmm{lo: 0x80, hi: 0x80}
	if got := throws(c, []byte(code)); got != x86.PF {
		t.Errorf("with a byte for the second page: fault %d", got)
	}
	if got := c.load8(testData + pageSize - 8); got != 0x11 {
		t.Errorf("the first page has %#x: written by an instruction that faulted", got)
	}
}

// TestSIMDAllocations: nothing is allocated, neither by what computes nor by what
// copies.
func TestSIMDAllocations(t *testing.T) {
	g := newGuest(t, 1)
	c := g.cpu
	c.r[x86.RBX] = simdAddress
	for _, text := range []string{"f20f580b", "0f58ca", "660f3a40caff", "0fc2ca01", "f20f2aca", "660f3a63ca0c", "f20f7cca", "0f2fca", "660f38000b"} {
		code, err := hex.DecodeString(text + strings.Repeat("00", maxInstruction))
		if err != nil {
			t.Fatal(err)
		}
		var d decoder
		var o op
		d.decode(code, 0, c.mode, &o)
		if n := testing.AllocsPerRun(100, func() { o.fn(c, &o) }); n != 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}

func BenchmarkSIMD(b *testing.B) {
	for name, code := range map[string][]byte{
		"MOVDQU load": {0xf3, 0x0f, 0x6f, 0x0b},
		"MOVAPS":      {0x0f, 0x28, 0xca},
		"PXOR":        {0x66, 0x0f, 0xef, 0xca},
		"PCMPEQB":     {0x66, 0x0f, 0x74, 0x0b},
		"PMOVMSKB":    {0x66, 0x0f, 0xd7, 0xca},
		"PSHUFB":      {0x66, 0x0f, 0x38, 0, 0xca},
		"PSRLD":       {0x66, 0x0f, 0x72, 0xd2, 7},
		"ADDSD":       {0xf2, 0x0f, 0x58, 0xca},
		"CVTSI2SD":    {0xf2, 0x48, 0x0f, 0x2a, 0xca},
		"UCOMISD":     {0x66, 0x0f, 0x2e, 0xca},
		"PCMPISTRI":   {0x66, 0x0f, 0x3a, 0x63, 0xca, 0x1a},
	} {
		b.Run(name, func(b *testing.B) {
			g := newGuest(b, 1)
			c := g.cpu
			c.r[x86.RBX], c.r[x86.RDX] = simdAddress, 3
			binary.LittleEndian.PutUint64(g.engine.low[simdAddress:], 0x3ff<<52)
			c.xmm[1], c.xmm[2] = xmm{lo: 0x3ff << 52}, xmm{lo: 0x3ff<<52 + 5}
			c.mxcsr |= float.Inexact
			var d decoder
			var o op
			d.decode(append(code, make([]byte, maxInstruction)...), 0, c.mode, &o)
			for b.Loop() {
				o.fn(c, &o)
			}
		})
	}
}
