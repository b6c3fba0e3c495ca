package soft

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"fifovm/vmm/soft/float"
	"fifovm/vmm/x86"
)

// noFault is what try gives for an instruction that raises nothing.
const noFault = -1

// try executes one instruction without a block around it, and gives the vector of
// the exception that it throws. RBX points to memory.
func (g *guest) try(code ...byte) (vector int) {
	g.Helper()
	var d decoder
	var o op
	padded := make([]byte, maxInstruction)
	copy(padded, code)
	if d.decode(padded, 0, g.cpu.mode, &o); int(o.length) != len(code) {
		g.Fatalf("% x has %d bytes, not %d", code, o.length, len(code))
	}
	defer func() {
		switch p := recover(); p {
		case nil:
		case throwFault:
			vector = int(g.cpu.fault.vector)
		default:
			panic(p)
		}
	}()
	o.fn(g.cpu, &o)
	return noFault
}

// newX87 is a guest for try.
func newX87(t testing.TB) *guest {
	g := newGuest(t, 1, hlt)
	g.cpu.r[x86.RBX] = testData
	g.cpu.fpu.reset()
	return g
}

// image is the state that only a part of the processor's instructions may touch.
func (g *guest) image() (b [fxSize]byte) {
	g.cpu.saveFPU(&b)
	return b
}

func (g *guest) read(at uint64, n int) []byte {
	g.Helper()
	b := make([]byte, n)
	if err := g.ram.Read(at, b); err != nil {
		g.Fatal(err)
	}
	return b
}

// recorded is what an AMD Zen 5 made of instructions: the state before, and the
// status word, tags, ST(0), ST(1) and memory after. The other registers are 0.
func f80(mant uint64, se uint16) float.F80 { return float.F80{Mant: mant, SE: se} }

var recorded = []struct {
	name, code   string
	control      uint16
	status       uint16
	tags         uint8
	st0, st1     float.F80
	memory       string // at RBX
	wantStatus   uint16
	wantTags     uint8
	want0, want1 float.F80
	wantMemory   string // "" if it doesn't change
}{
	{"FADD rounds up", "d8c1", 0xb7f, 0x4700, 0x03, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3f00), "",
		0x4720, 0x03, f80(0x8000000000000001, 0x3fff), f80(0x8000000000000000, 0x3f00), ""},
	{"FADD to nearest", "d8c1", 0x37f, 0x4700, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xaaaaaaaaaaaaaaab, 0x3ffd), "",
		0x4720, 0x03, f80(0xaaaaaaaaaaaaaaab, 0x3fff), f80(0xaaaaaaaaaaaaaaab, 0x3ffd), ""},
	{"FADD single precision", "d8c1", 0x7f, 0x0000, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xaaaaaaaaaaaaaaab, 0x3ffd), "",
		0x0220, 0x03, f80(0xaaaaab0000000000, 0x3fff), f80(0xaaaaaaaaaaaaaaab, 0x3ffd), ""},
	{"FADD of signaling NaNs", "d8c1", 0x37f, 0x0000, 0x03, f80(0xa000000000000000, 0x7fff), f80(0xd000000000000000, 0xffff), "",
		0x0001, 0x03, f80(0xd000000000000000, 0xffff), f80(0xd000000000000000, 0xffff), ""},
	{"FADD unsupported", "d8c1", 0x37f, 0x0000, 0x03, f80(0x4000000000000000, 0x4000), f80(0x8000000000000000, 0x3fff), "",
		0x0001, 0x03, f80(0xc000000000000000, 0xffff), f80(0x8000000000000000, 0x3fff), ""},
	{"FADD infinities", "d8c1", 0x37f, 0x0000, 0x03, f80(0x8000000000000000, 0x7fff), f80(0x8000000000000000, 0xffff), "",
		0x0001, 0x03, f80(0xc000000000000000, 0xffff), f80(0x8000000000000000, 0xffff), ""},
	{"FADD unmasked invalid", "d8c1", 0x340, 0x0700, 0x03, f80(0x8000000000000000, 0x7fff), f80(0x8000000000000000, 0xffff), "",
		0x8581, 0x03, f80(0x8000000000000000, 0x7fff), f80(0x8000000000000000, 0xffff), ""},
	{"FADD stack underflow", "d8c1", 0x37f, 0x0700, 0x01, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), "",
		0x0541, 0x01, f80(0xc000000000000000, 0xffff), f80(0x8000000000000000, 0x3fff), ""},
	{"FADD stack underflow, unmasked", "d8c1", 0x340, 0x0700, 0x01, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), "",
		0x85c1, 0x01, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), ""},
	{"FADD m32", "d803", 0x37f, 0x0000, 0x01, f80(0x8000000000000000, 0x3fff), f80(0, 0), "0000803f",
		0x0000, 0x01, f80(0x8000000000000000, 0x4000), f80(0, 0), ""},
	{"FADD m32 denormal", "d803", 0x37f, 0x0000, 0x01, f80(0x8000000000000000, 0x3fff), f80(0, 0), "01000000",
		0x0022, 0x01, f80(0x8000000000000000, 0x3fff), f80(0, 0), ""},
	{"FADD m32 denormal, unmasked", "d803", 0x340, 0x0000, 0x01, f80(0x8000000000000000, 0x3fff), f80(0, 0), "01000000",
		0x8082, 0x01, f80(0x8000000000000000, 0x3fff), f80(0, 0), ""},
	{"FIADD m16", "de03", 0x37f, 0x0000, 0x01, f80(0x8000000000000000, 0x3fff), f80(0, 0), "feff",
		0x0000, 0x01, f80(0x8000000000000000, 0xbfff), f80(0, 0), ""},
	{"FSUBR m64", "dc2b", 0x37f, 0x0000, 0x01, f80(0x8000000000000000, 0x3fff), f80(0, 0), "0000000000001440",
		0x0000, 0x01, f80(0x8000000000000000, 0x4001), f80(0, 0), ""},
	{"FSUBP", "dee9", 0x37f, 0x0000, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0800, 0x02, f80(0x890fdaa22168c235, 0x4000), f80(0, 0), ""},
	{"FSUBRP", "dee1", 0x37f, 0x0000, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0800, 0x02, f80(0x890fdaa22168c235, 0xc000), f80(0, 0), ""},
	{"FDIV by zero", "d8f1", 0x37f, 0x0000, 0x03, f80(0x8000000000000000, 0x3fff), f80(0, 0), "",
		0x0004, 0x03, f80(0x8000000000000000, 0x7fff), f80(0, 0), ""},
	{"FDIV by zero, unmasked", "d8f1", 0x340, 0x0000, 0x03, f80(0x8000000000000000, 0x3fff), f80(0, 0), "",
		0x8084, 0x03, f80(0x8000000000000000, 0x3fff), f80(0, 0), ""},
	{"FDIVRP", "def1", 0x37f, 0x0000, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0a20, 0x02, f80(0xa2f9836e4e44152a, 0x3ffd), f80(0, 0), ""},
	{"FMULP overflow", "dec9", 0x37f, 0x0000, 0x03, f80(0xc000000000000000, 0x7ffe), f80(0xc000000000000000, 0x7ffe), "",
		0x0a28, 0x02, f80(0x8000000000000000, 0x7fff), f80(0, 0), ""},
	{"FMULP overflow, unmasked", "dec9", 0x377, 0x0000, 0x03, f80(0xc000000000000000, 0x7ffe), f80(0xc000000000000000, 0x7ffe), "",
		0x8888, 0x02, f80(0x9000000000000000, 0x5ffe), f80(0, 0), ""},
	{"FMUL underflow, unmasked", "dcc9", 0x36f, 0x0000, 0x03, f80(0x8000000000000000, 0x1), f80(0x8000000000000000, 0x1), "",
		0x8090, 0x03, f80(0x8000000000000000, 0x1), f80(0x8000000000000000, 0x2003), ""},
	{"FCOM less", "d8d1", 0x37f, 0x0700, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0100, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), ""},
	{"FCOMP greater", "d8d9", 0x37f, 0x4700, 0x03, f80(0xc90fdaa22168c235, 0x4000), f80(0x8000000000000000, 0x3fff), "",
		0x0800, 0x02, f80(0x8000000000000000, 0x3fff), f80(0, 0), ""},
	{"FCOMPP equal", "ded9", 0x37f, 0x0700, 0x03, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), "",
		0x5000, 0x00, f80(0, 0), f80(0, 0), ""},
	{"FCOM quiet NaN", "d8d1", 0x37f, 0x0200, 0x03, f80(0xc000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), "",
		0x4501, 0x03, f80(0xc000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), ""},
	{"FUCOM quiet NaN", "dde1", 0x37f, 0x0200, 0x03, f80(0xc000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), "",
		0x4500, 0x03, f80(0xc000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), ""},
	{"FUCOMPP signaling NaN", "dae9", 0x37f, 0x0200, 0x03, f80(0xa000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), "",
		0x5501, 0x00, f80(0, 0), f80(0, 0), ""},
	{"FCOMP unmasked NaN", "d8d9", 0x340, 0x0200, 0x03, f80(0xc000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), "",
		0xc581, 0x03, f80(0xc000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), ""},
	{"FCOMP empty", "d8d9", 0x37f, 0x0200, 0x01, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), "",
		0x4d41, 0x00, f80(0x8000000000000000, 0x3fff), f80(0, 0), ""},
	{"FCOM2", "dcd1", 0x37f, 0x0000, 0x03, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), "",
		0x4000, 0x03, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), ""},
	{"FCOMP5", "ded1", 0x37f, 0x0000, 0x03, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), "",
		0x4800, 0x02, f80(0x8000000000000000, 0x3fff), f80(0, 0), ""},
	{"FICOM m16", "de13", 0x37f, 0x0000, 0x01, f80(0x8000000000000000, 0x3fff), f80(0, 0), "0200",
		0x0100, 0x01, f80(0x8000000000000000, 0x3fff), f80(0, 0), ""},
	{"FTST minus", "d9e4", 0x37f, 0x4700, 0x01, f80(0x8000000000000000, 0xbfff), f80(0, 0), "",
		0x0100, 0x01, f80(0x8000000000000000, 0xbfff), f80(0, 0), ""},
	{"FXAM pseudo-denormal", "d9e5", 0x37f, 0x0000, 0x01, f80(0x8000000000000000, 0x0), f80(0, 0), "",
		0x4400, 0x01, f80(0x8000000000000000, 0x0), f80(0, 0), ""},
	{"FXAM unsupported", "d9e5", 0x37f, 0x0000, 0x01, f80(0x4000000000000000, 0x4000), f80(0, 0), "",
		0x0000, 0x01, f80(0x4000000000000000, 0x4000), f80(0, 0), ""},
	{"FXAM empty and negative", "d9e5", 0x37f, 0x0000, 0x00, f80(0x8000000000000000, 0xbfff), f80(0, 0), "",
		0x4300, 0x00, f80(0x8000000000000000, 0xbfff), f80(0, 0), ""},
	{"FXAM infinity", "d9e5", 0x37f, 0x4700, 0x01, f80(0x8000000000000000, 0xffff), f80(0, 0), "",
		0x0700, 0x01, f80(0x8000000000000000, 0xffff), f80(0, 0), ""},
	{"FLD m32 signaling NaN", "d903", 0x37f, 0x0700, 0x00, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), "0000a07f",
		0x3d01, 0x80, f80(0xe000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), ""},
	{"FLD m32 denormal, unmasked", "d903", 0x340, 0x0000, 0x00, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), "01000000",
		0xb882, 0x80, f80(0x8000000000000000, 0x3f6a), f80(0x8000000000000000, 0x3fff), ""},
	{"FLD m64 into a full stack", "dd03", 0x37f, 0x0500, 0xff, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), "000000000000f03f",
		0x3f41, 0xff, f80(0xc000000000000000, 0xffff), f80(0x8000000000000000, 0x3fff), ""},
	{"FLD m64 into a full stack, unmasked", "dd03", 0x340, 0x0500, 0xff, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), "000000000000f03f",
		0x87c1, 0xff, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), ""},
	{"FLD m80 signaling NaN", "db2b", 0x37f, 0x0000, 0x00, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), "00000000000000a0ff7f",
		0x3800, 0x80, f80(0xa000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), ""},
	{"FLD ST(1)", "d9c1", 0x37f, 0x0000, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x3800, 0x83, f80(0xc90fdaa22168c235, 0x4000), f80(0x8000000000000000, 0x3fff), ""},
	{"FLD of an empty register", "d9c1", 0x37f, 0x0200, 0x01, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x3841, 0x81, f80(0xc000000000000000, 0xffff), f80(0x8000000000000000, 0x3fff), ""},
	{"FILD m64", "df2b", 0x37f, 0x0000, 0x00, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "0000000000000080",
		0x3800, 0x80, f80(0x8000000000000000, 0xc03e), f80(0x8000000000000000, 0x3fff), ""},
	{"FBLD", "df23", 0x37f, 0x0000, 0x00, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "78563412000000000080",
		0x3800, 0x80, f80(0xbc614e0000000000, 0xc016), f80(0x8000000000000000, 0x3fff), ""},
	{"FLDPI down", "d9eb", 0x77f, 0x0200, 0x00, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x3800, 0x80, f80(0xc90fdaa22168c234, 0x4000), f80(0x8000000000000000, 0x3fff), ""},
	{"FLDL2T up", "d9e9", 0xb7f, 0x0200, 0x00, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x3800, 0x80, f80(0xd49a784bcd1b8aff, 0x4000), f80(0x8000000000000000, 0x3fff), ""},
	{"FLDLN2", "d9ed", 0x37f, 0x0200, 0x00, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x3800, 0x80, f80(0xb17217f7d1cf79ac, 0x3ffe), f80(0x8000000000000000, 0x3fff), ""},
	{"FST m32 rounds", "d913", 0x37f, 0x0000, 0x01, f80(0xc90fdaa22168c235, 0x4000), f80(0x8000000000000000, 0x3fff), "",
		0x0220, 0x01, f80(0xc90fdaa22168c235, 0x4000), f80(0x8000000000000000, 0x3fff), "db0f4940"},
	{"FSTP m32 overflow", "d91b", 0x37f, 0x0000, 0x01, f80(0xc000000000000000, 0x7ffe), f80(0x8000000000000000, 0x3fff), "",
		0x0a28, 0x00, f80(0x8000000000000000, 0x3fff), f80(0, 0), "0000807f"},
	{"FSTP m32 overflow, unmasked", "d91b", 0x377, 0x0000, 0x01, f80(0xc000000000000000, 0x7ffe), f80(0x8000000000000000, 0x3fff), "5555555555555555",
		0x8088, 0x01, f80(0xc000000000000000, 0x7ffe), f80(0x8000000000000000, 0x3fff), ""},
	{"FSTP m64 inexact, unmasked", "dd1b", 0x35f, 0x0000, 0x01, f80(0xc90fdaa22168c235, 0x4000), f80(0x8000000000000000, 0x3fff), "",
		0x88a0, 0x00, f80(0x8000000000000000, 0x3fff), f80(0, 0), "182d4454fb210940"},
	{"FSTP m64 signaling NaN", "dd1b", 0x37f, 0x0000, 0x01, f80(0xa000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), "",
		0x0801, 0x00, f80(0x8000000000000000, 0x3fff), f80(0, 0), "000000000000fc7f"},
	{"FSTP m80 signaling NaN", "db3b", 0x37f, 0x0200, 0x01, f80(0xa000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), "",
		0x0800, 0x00, f80(0x8000000000000000, 0x3fff), f80(0, 0), "00000000000000a0ff7f"},
	{"FSTP m80 empty", "db3b", 0x37f, 0x0200, 0x00, f80(0xa000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), "",
		0x0841, 0x00, f80(0x8000000000000000, 0x3fff), f80(0, 0), "00000000000000c0ffff"},
	{"FIST m16 too large", "df13", 0x37f, 0x0000, 0x01, f80(0x8000000000000000, 0x400e), f80(0x8000000000000000, 0x3fff), "",
		0x0001, 0x01, f80(0x8000000000000000, 0x400e), f80(0x8000000000000000, 0x3fff), "0080"},
	{"FISTP m32", "db1b", 0x37f, 0x0000, 0x01, f80(0xc800000000000000, 0x4005), f80(0x8000000000000000, 0x3fff), "",
		0x0800, 0x00, f80(0x8000000000000000, 0x3fff), f80(0, 0), "6400"},
	{"FISTP m64", "df3b", 0xb7f, 0x0000, 0x01, f80(0xc90fdaa22168c235, 0x4000), f80(0x8000000000000000, 0x3fff), "",
		0x0a20, 0x00, f80(0x8000000000000000, 0x3fff), f80(0, 0), "0400"},
	{"FISTTP m16", "df0b", 0xb7f, 0x0000, 0x01, f80(0xc90fdaa22168c235, 0x4000), f80(0x8000000000000000, 0x3fff), "",
		0x0820, 0x00, f80(0x8000000000000000, 0x3fff), f80(0, 0), "0300"},
	{"FISTTP m64 NaN, unmasked", "dd0b", 0x340, 0x0000, 0x01, f80(0xc000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), "5555555555555555",
		0x8081, 0x01, f80(0xc000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), ""},
	{"FBSTP", "df33", 0x37f, 0x0000, 0x01, f80(0xc800000000000000, 0x4005), f80(0x8000000000000000, 0x3fff), "",
		0x0800, 0x00, f80(0x8000000000000000, 0x3fff), f80(0, 0), "0001"},
	{"FBSTP NaN", "df33", 0x37f, 0x0000, 0x01, f80(0xc000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), "",
		0x0801, 0x00, f80(0x8000000000000000, 0x3fff), f80(0, 0), "00000000000000c0ffff"},
	{"FXCH", "d9c9", 0x37f, 0x0200, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0000, 0x03, f80(0xc90fdaa22168c235, 0x4000), f80(0x8000000000000000, 0x3fff), ""},
	{"FXCH with an empty register", "d9c9", 0x37f, 0x0200, 0x01, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0041, 0x03, f80(0xc000000000000000, 0xffff), f80(0x8000000000000000, 0x3fff), ""},
	{"FSTP1 of an empty register", "d9d9", 0x340, 0x0200, 0x00, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0800, 0x00, f80(0xc90fdaa22168c235, 0x4000), f80(0, 0), ""},
	{"FSTP9", "dfd9", 0x37f, 0x0200, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0800, 0x02, f80(0x8000000000000000, 0x3fff), f80(0, 0), ""},
	{"FFREEP", "dfc1", 0x37f, 0x0200, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0800, 0x00, f80(0xc90fdaa22168c235, 0x4000), f80(0, 0), ""},
	{"FCMOVNB", "dbc1", 0x37f, 0x0200, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0200, 0x03, f80(0xc90fdaa22168c235, 0x4000), f80(0xc90fdaa22168c235, 0x4000), ""},
	{"FCMOVB of an empty register", "dac1", 0x37f, 0x0200, 0x01, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0041, 0x01, f80(0xc000000000000000, 0xffff), f80(0xc90fdaa22168c235, 0x4000), ""},
	{"FCOMI", "dbf1", 0x37f, 0x0200, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0200, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), ""},
	{"FCHS", "d9e0", 0x37f, 0x0200, 0x01, f80(0xc000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), "",
		0x0000, 0x01, f80(0xc000000000000000, 0xffff), f80(0x8000000000000000, 0x3fff), ""},
	{"FABS", "d9e1", 0x37f, 0x0200, 0x01, f80(0x8000000000000000, 0xffff), f80(0x8000000000000000, 0x3fff), "",
		0x0000, 0x01, f80(0x8000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), ""},
	{"FSQRT of minus one", "d9fa", 0x37f, 0x0200, 0x01, f80(0x8000000000000000, 0xbfff), f80(0x8000000000000000, 0x3fff), "",
		0x0001, 0x01, f80(0xc000000000000000, 0xffff), f80(0x8000000000000000, 0x3fff), ""},
	{"FRNDINT up", "d9fc", 0xb7f, 0x0000, 0x01, f80(0xc90fdaa22168c235, 0x4000), f80(0x8000000000000000, 0x3fff), "",
		0x0220, 0x01, f80(0x8000000000000000, 0x4001), f80(0x8000000000000000, 0x3fff), ""},
	{"FSCALE overflow", "d9fd", 0x37f, 0x0000, 0x03, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x400f), "",
		0x0228, 0x03, f80(0x8000000000000000, 0x7fff), f80(0x8000000000000000, 0x400f), ""},
	{"FXTRACT", "d9f4", 0x37f, 0x0200, 0x01, f80(0xc90fdaa22168c235, 0x4000), f80(0x8000000000000000, 0x3fff), "",
		0x3800, 0x81, f80(0xc90fdaa22168c235, 0x3fff), f80(0x8000000000000000, 0x3fff), ""},
	{"FXTRACT zero", "d9f4", 0x37f, 0x0200, 0x01, f80(0, 0), f80(0x8000000000000000, 0x3fff), "",
		0x3804, 0x81, f80(0, 0), f80(0x8000000000000000, 0xffff), ""},
	{"FXTRACT with a full stack", "d9f4", 0x37f, 0x0000, 0xff, f80(0xc90fdaa22168c235, 0x4000), f80(0x8000000000000000, 0x3fff), "",
		0x3a41, 0xff, f80(0xc000000000000000, 0xffff), f80(0xc000000000000000, 0xffff), ""},
	{"FPREM", "d9f8", 0x37f, 0x4700, 0x03, f80(0xc800000000000000, 0x4005), f80(0xc90fdaa22168c235, 0x4000), "",
		0x4300, 0x03, f80(0xa714865df4507b95, 0x4000), f80(0xc90fdaa22168c235, 0x4000), ""},
	{"FPREM goes on", "d9f8", 0x37f, 0x4700, 0x03, f80(0xc000000000000000, 0x40ff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0400, 0x03, f80(0x8bf98e76ea9d71aa, 0x40bf), f80(0xc90fdaa22168c235, 0x4000), ""},
	{"FPREM of infinity", "d9f8", 0x37f, 0x4700, 0x03, f80(0x8000000000000000, 0x7fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x4101, 0x03, f80(0xc000000000000000, 0xffff), f80(0xc90fdaa22168c235, 0x4000), ""},
	{"FPREM1", "d9f5", 0x37f, 0x4700, 0x03, f80(0xc800000000000000, 0x4005), f80(0x8000000000000000, 0x4001), "",
		0x0200, 0x03, f80(0, 0), f80(0x8000000000000000, 0x4001), ""},
	{"FPTAN out of range", "d9f2", 0x37f, 0x0200, 0x01, f80(0x8000000000000000, 0x403e), f80(0x8000000000000000, 0x3fff), "",
		0x0400, 0x01, f80(0x8000000000000000, 0x403e), f80(0x8000000000000000, 0x3fff), ""},
	{"FPTAN NaN", "d9f2", 0x37f, 0x0600, 0x01, f80(0xc000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), "",
		0x3800, 0x81, f80(0xc000000000000000, 0x7fff), f80(0xc000000000000000, 0x7fff), ""},
	{"FPTAN with a full stack", "d9f2", 0x37f, 0x0400, 0xff, f80(0x8000000000000000, 0x403e), f80(0x8000000000000000, 0x3fff), "",
		0x3a41, 0xff, f80(0xc000000000000000, 0xffff), f80(0xc000000000000000, 0xffff), ""},
	{"FSIN zero", "d9fe", 0x37f, 0x0600, 0x01, f80(0, 0), f80(0x8000000000000000, 0x3fff), "",
		0x0000, 0x01, f80(0, 0), f80(0x8000000000000000, 0x3fff), ""},
	{"FCOS zero", "d9ff", 0x37f, 0x0600, 0x01, f80(0, 0), f80(0x8000000000000000, 0x3fff), "",
		0x0000, 0x01, f80(0x8000000000000000, 0x3fff), f80(0x8000000000000000, 0x3fff), ""},
	{"FSINCOS infinity", "d9fb", 0x37f, 0x0600, 0x01, f80(0x8000000000000000, 0x7fff), f80(0x8000000000000000, 0x3fff), "",
		0x3801, 0x81, f80(0xc000000000000000, 0xffff), f80(0xc000000000000000, 0xffff), ""},
	{"FPATAN zero", "d9f3", 0x37f, 0x0600, 0x03, f80(0x8000000000000000, 0x3fff), f80(0, 0), "",
		0x0c00, 0x02, f80(0, 0), f80(0, 0), ""},
	{"FYL2X of zero, unmasked", "d9f1", 0x37b, 0x0600, 0x03, f80(0, 0), f80(0x8000000000000000, 0x3fff), "",
		0x8484, 0x03, f80(0, 0), f80(0x8000000000000000, 0x3fff), ""},
	{"F2XM1 zero", "d9f0", 0x37f, 0x0600, 0x01, f80(0, 0), f80(0x8000000000000000, 0x3fff), "",
		0x0400, 0x01, f80(0, 0), f80(0x8000000000000000, 0x3fff), ""},
	{"FINCSTP", "d9f7", 0x37f, 0x4700, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x4d00, 0x03, f80(0xc90fdaa22168c235, 0x4000), f80(0, 0), ""},
	{"FDECSTP", "d9f6", 0x37f, 0x4700, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x7d00, 0x03, f80(0, 0), f80(0x8000000000000000, 0x3fff), ""},
	{"FNOP", "d9d0", 0x37f, 0x4700, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x4700, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), ""},
	{"FNCLEX", "dbe2", 0x340, 0x477f, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x4700, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), ""},
	{"FNINIT", "dbe3", 0x340, 0x477f, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0x0000, 0x00, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), ""},
	{"FNSTSW with a pending exception", "dd3b", 0x340, 0x4701, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0xc781, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "81c7"},
	{"FLDCW unmasks", "d92b", 0x37f, 0x4704, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "0000",
		0xc784, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), ""},
	{"FENI", "dbe0", 0x340, 0x4701, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), "",
		0xc781, 0x03, f80(0x8000000000000000, 0x3fff), f80(0xc90fdaa22168c235, 0x4000), ""},
}

func TestX87Recorded(t *testing.T) {
	g := newX87(t)
	f := &g.cpu.fpu
	for _, r := range recorded {
		t.Run(r.name, func(t *testing.T) {
			g.TB = t
			f.st = [8]float.F80{}
			f.setControl(r.control)
			f.setStatusWord(r.status)
			f.empty = 0
			f.st[f.physical(0)], f.st[f.physical(1)] = r.st0, r.st1
			f.empty = ^r.tags
			var before, after [tenBytes]byte
			if _, err := hex.Decode(before[:], []byte(r.memory)); err != nil {
				t.Fatal(err)
			}
			after = before
			if r.wantMemory != "" {
				after = [tenBytes]byte{}
				if _, err := hex.Decode(after[:], []byte(r.wantMemory)); err != nil {
					t.Fatal(err)
				}
			}
			g.write(testData, before[:])
			code, err := hex.DecodeString(r.code)
			if err != nil {
				t.Fatal(err)
			}
			if v := g.try(code...); v != noFault {
				t.Fatalf("exception %d", v)
			}
			if f.statusWord() != r.wantStatus || ^f.empty != r.wantTags {
				t.Errorf("status %#04x tags %#02x, want %#04x %#02x", f.statusWord(), ^f.empty, r.wantStatus, r.wantTags)
			}
			if f.get(0) != r.want0 || f.get(1) != r.want1 {
				t.Errorf("ST(0) %#x ST(1) %#x, want %#x %#x", f.get(0), f.get(1), r.want0, r.want1)
			}
			if m := g.read(testData, tenBytes); [tenBytes]byte(m) != after {
				t.Errorf("memory %x, want %x", m, after)
			}
		})
	}
}

// TestX87Pending: an unmasked exception waits for the next instruction that is
// not one of those that don't wait.
func TestX87Pending(t *testing.T) {
	waiting := []string{"d8c1", "d9d0", "d903", "d92b", "d923", "dd23", "dd1b", "9b", "d9f7", "ddc0"}
	quiet := []string{"dbe0", "dbe1", "dbe2", "dbe3", "dbe4", "dfe0", "dd3b", "d93b", "d933", "dd33", "0fae03", "0fae0b"}
	for _, list := range [][]string{waiting, quiet} {
		want := noFault
		if &list[0] == &waiting[0] {
			want = x86.MF
		}
		for _, s := range list {
			code, err := hex.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			g := newX87(t)
			g.cpu.fpu.setControl(0)
			if v := g.try(0xd9, 0xc0); v != noFault { // FLD of an empty register
				t.Fatalf("the instruction at fault throws %d itself", v)
			}
			if want == x86.MF {
				g.cpu.r[x86.RBX] = 1 << 33 // its page fault would come later
			}
			before := g.image()
			if v := g.try(code...); v != want {
				t.Errorf("%s: exception %d, want %d", s, v, want)
			}
			if g.image() != before && want == x86.MF {
				t.Errorf("%s changes the state in spite of #MF", s)
			}
		}
	}
	g := newX87(t)
	g.cpu.fpu.setControl(0)
	g.try(0xd9, 0xc0)
	for name, f := range map[string]func(){"enterMMX": g.cpu.enterMMX, "emptyMMX": g.cpu.emptyMMX} {
		func() {
			defer func() {
				if p := recover(); p != throwFault || g.cpu.fault.vector != x86.MF {
					t.Errorf("%s: %v, vector %d", name, p, g.cpu.fault.vector)
				}
			}()
			f()
		}()
	}
}

func TestFwait(t *testing.T) {
	g := newX87(t)
	for _, test := range []struct {
		cr0  uint64
		want int
	}{{x86.CR0MP, noFault}, {x86.CR0TS, noFault}, {x86.CR0EM, noFault}, {x86.CR0TS | x86.CR0MP, x86.NM}} {
		g.cpu.cr0 = g.cpu.cr0&^(x86.CR0MP|x86.CR0TS|x86.CR0EM) | test.cr0
		if v := g.try(0x9b); v != test.want {
			t.Errorf("CR0 %#x: exception %d, want %d", test.cr0, v, test.want)
		}
	}
}

// TestX87Faults: an instruction whose operand can't be reached leaves everything
// as it was, whatever exceptions of its own it would have had.
func TestX87Faults(t *testing.T) {
	g := newX87(t)
	c := g.cpu
	// The page below 4 GiB is that of the data, the one behind it is not there.
	const unmapped, table = 1 << 32, 0x5_0000
	entry := func(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v|x86.PTEPresent|x86.PTEWrite) }
	g.write(testTables+5*pageSize+511*8, entry(table))
	g.write(table+511*8, entry(testData))
	sizes := map[[2]uint8]int{{0xd9, 4}: 28, {0xd9, 6}: 28, {0xdd, 4}: 108, {0xdd, 6}: 108, {0xdb, 5}: 10, {0xdb, 7}: 10, {0xdf, 4}: 10, {0xdf, 6}: 10}
	data := g.read(testData, pageSize)
	random := rand.New(rand.NewPCG(1, 2))
	n := 0
	for opcode := range uint8(8) {
		for reg := range uint8(8) {
			code := []byte{0xd8 + opcode, reg<<3 | x86.RBX}
			if x87Handler(code[0], code[1]) == nil {
				continue
			}
			n++
			for range 200 {
				c.fpu.setControl(uint16(random.Uint32()))
				c.fpu.setStatusWord(uint16(random.Uint32()))
				c.fpu.status &= c.fpu.control | ^uint16(fswFlags)
				c.fpu.empty = uint8(random.Uint32())
				for i := range c.fpu.st {
					c.fpu.st[i] = float.F80{Mant: random.Uint64(), SE: uint16(random.Uint32())}
				}
				size := max(2, sizes[[2]uint8{code[0], reg}])
				c.r[x86.RBX] = unmapped - uint64(random.IntN(size))
				before := g.image()
				if v := g.try(code...); v != x86.PF || c.fault.cr2 != unmapped {
					t.Fatalf("% x: exception %d, address %#x", code, v, c.fault.cr2)
				}
				if g.image() != before || !bytes.Equal(g.read(testData, pageSize), data) {
					t.Fatalf("% x changes the state", code)
				}
			}
		}
	}
	if n != 60 {
		t.Errorf("%d forms, want 60", n)
	}
}

// TestX87Undefined: every other opcode is one.
func TestX87Undefined(t *testing.T) {
	undefined := map[uint16]bool{0xd9e2: true, 0xd9e3: true, 0xd9e6: true, 0xd9e7: true, 0xd9ef: true,
		0xded8: true}
	undefinedMemory := map[[2]uint8]bool{{0xd9, 1}: true, {0xdb, 4}: true, {0xdb, 6}: true, {0xdd, 5}: true}
	rows := func(from, to uint16) {
		for i := from; i <= to; i++ {
			undefined[i] = true
		}
	}
	rows(0xd9d1, 0xd9d7)
	rows(0xdae0, 0xdae8)
	rows(0xdaea, 0xdaff)
	rows(0xdbe5, 0xdbe7)
	rows(0xdbf8, 0xdbff)
	rows(0xddf0, 0xddff)
	rows(0xdeda, 0xdedf)
	rows(0xdfe1, 0xdfe7)
	rows(0xdff8, 0xdfff)
	for opcode := uint8(0xd8); opcode <= 0xdf; opcode++ {
		for modrm := range 0x100 {
			want := undefined[uint16(opcode)<<8|uint16(modrm)]
			if modrm < 0xc0 {
				want = undefinedMemory[[2]uint8{opcode, uint8(modrm >> 3 & 7)}]
			}
			if got := x87Handler(opcode, uint8(modrm)) == nil; got != want {
				t.Errorf("%02x %02x: undefined is %v", opcode, modrm, got)
			}
		}
	}
}

// TestX87Environment has the two layouts, and that they come back.
func TestX87Environment(t *testing.T) {
	g := newX87(t)
	f := &g.cpu.fpu
	set := func() {
		f.setControl(0xb40)
		f.setStatusWord(0x7d81)
		f.empty = 0x80
		f.st = [8]float.F80{{}, one80, indefinite80, {Mant: 1}, {Mant: 1, SE: 1}, {SE: 0x8000}, {Mant: 1 << 63}, one80}
		f.fop, f.fip, f.fdp = 0x123, 0x1_2345_6789, 0xabcd_ef01_2345
	}
	for _, test := range []struct{ name, code, load, want string }{
		{"32 bits", "d933", "d923", "400bffff81fdffffa1e6ffff8967452300002301452301ef0000ffff"},
		{"16 bits", "66d933", "66d923", "400b81fda1e68967000045230000"},
		{"REX.W", "48d933", "48d923", "400bffff81fdffffa1e6ffff8967452300002301452301ef0000ffff"},
	} {
		set()
		store, _ := hex.DecodeString(test.code)
		load, _ := hex.DecodeString(test.load)
		if v := g.try(store...); v != noFault {
			t.Fatalf("%s: exception %d", test.name, v)
		}
		if got := hex.EncodeToString(g.read(testData, len(test.want)/2)); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
		if f.control&fcwMasks != fcwMasks {
			t.Errorf("%s: FNSTENV leaves control %#x", test.name, f.control)
		}
		want := *f
		want.setControl(0xb40)
		f.reset()
		if v := g.try(load...); v != noFault {
			t.Fatalf("%s: exception %d", test.name, v)
		}
		want.fip, want.fdp = uint64(uint32(want.fip)), uint64(uint32(want.fdp))
		if len(test.want) == 28 {
			want.fip, want.fdp, want.fop = want.fip&0xffff, want.fdp&0xffff, 0
		}
		if *f != want {
			t.Errorf("%s: loaded %+v, want %+v", test.name, *f, want)
		}
	}
}

// TestX87Save: what FNSAVE and FXSAVE store is what FRSTOR and FXRSTOR load.
func TestX87Save(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	g := newX87(t)
	c := g.cpu
	for range 200 {
		for _, pair := range [][2][]byte{{{0xdd, 0x33}, {0xdd, 0x23}}, {{0x66, 0xdd, 0x33}, {0x66, 0xdd, 0x23}},
			{{0x0f, 0xae, 0x03}, {0x0f, 0xae, 0x0b}}, {{0x48, 0x0f, 0xae, 0x03}, {0x48, 0x0f, 0xae, 0x0b}}} {
			var b [fxSize]byte
			for i := range b {
				b[i] = byte(random.Uint32())
			}
			c.loadFPU(&b)
			fx := pair[0][len(pair[0])-2] == 0xae
			if !fx {
				c.fpu.fop, c.fpu.fip, c.fpu.fdp = 0, 0, 0
			} else if len(pair[0]) == 3 {
				c.fpu.fip &= 0xffff_ffff
				c.fpu.fdp &= 0xffff_ffff
			}
			before := g.image()
			if v := g.try(pair[0]...); v != noFault {
				t.Fatalf("% x: exception %d", pair[0], v)
			}
			if fx != (g.image() == before) {
				t.Fatalf("% x: state after is that before: %v", pair[0], !fx)
			}
			if fx {
				for i := range b {
					b[i] = 0
				}
				c.loadFPU(&b)
			}
			if v := g.try(pair[1]...); v != noFault {
				t.Fatalf("% x: exception %d", pair[1], v)
			}
			if after := g.image(); after != before {
				t.Fatalf("% x: got\n%x, want\n%x", pair[1], after, before)
			}
		}
	}
}

func TestFxsaveImage(t *testing.T) {
	g := newX87(t)
	c := g.cpu
	const guard = 0xa5
	fill := make([]byte, fxSize)
	for i := range fill {
		fill[i] = guard
	}
	g.write(testData, fill)
	c.fpu.top, c.fpu.empty = 5, 0x5f
	c.fpu.st[5], c.fpu.st[7] = one80, float.F80{Mant: 2, SE: 3}
	c.fpu.fop, c.fpu.fip, c.fpu.fdp = 0x7ff, 0x1234_5678_9abc, 0x7654_3210_fedc
	for i := range c.xmm {
		c.xmm[i] = xmm{uint64(i), ^uint64(i)}
	}
	if v := g.try(0x48, 0x0f, 0xae, 0x03); v != noFault {
		t.Fatalf("exception %d", v)
	}
	b := g.read(testData, fxSize)
	if got, want := hex.EncodeToString(b[:48]), "7f030028a000ff07bc9a785634120000dcfe103254760000801f0000ffff00000000000000000080ff3f000000000000"; got != want {
		t.Errorf("image begins\n%s, want\n%s", got, want)
	}
	if b[32+2*16] != 2 || b[32+2*16+8] != 3 {
		t.Error("ST(2) is not the third register")
	}
	for i := range 16 {
		if lo, hi := binary.LittleEndian.Uint64(b[160+16*i:]), binary.LittleEndian.Uint64(b[168+16*i:]); lo != uint64(i) || hi != ^uint64(i) {
			t.Errorf("XMM%d is %#x %#x", i, lo, hi)
		}
	}
	for i, v := range b[416:] {
		if v != guard {
			t.Fatalf("byte %d is written", 416+i)
		}
	}
	g.try(0x0f, 0xae, 0x03)
	if got, want := hex.EncodeToString(g.read(testData+8, 16)), "bc9a785600000000dcfe103200000000"; got != want {
		t.Errorf("pointers of 32 bits: %s, want %s", got, want)
	}
	// Outside of 64-bit mode there are eight XMM registers.
	g.write(testData, fill)
	c.mode = c.mode&^mode64 | mode32
	c.r[slotZero] = 0
	fx := func(fn handler) {
		fn(c, &op{base: x86.RBX, index: slotZero, seg: slotZero, size: 4, addrSize: 4, flags: flagMem})
	}
	fx(opFxsave)
	b = g.read(testData, fxSize)
	if b[160+7*16] != 7 || b[160+8*16] != guard {
		t.Error("FXSAVE outside of 64-bit mode doesn't store the first eight XMM registers")
	}
	c.xmm[8].lo = 88
	c.xmm[7].lo = 77
	fx(opFxrstor)
	if c.xmm[7].lo != 7 || c.xmm[8].lo != 88 {
		t.Error("FXRSTOR outside of 64-bit mode doesn't load the first eight XMM registers")
	}
}

func TestFxsaveFaults(t *testing.T) {
	g := newX87(t)
	c := g.cpu
	for _, code := range [][]byte{{0x0f, 0xae, 0x03}, {0x0f, 0xae, 0x0b}} {
		for _, test := range []struct {
			at   uint64
			want int
		}{{testData + 8, x86.GP}, {1<<32 - 0x200 + 0x10, x86.PF}, {1 << 33, x86.PF}} {
			c.r[x86.RBX] = test.at
			before := g.image()
			if v := g.try(code...); v != test.want || g.image() != before {
				t.Errorf("% x at %#x: exception %d, want %d, or the state changes", code, test.at, v, test.want)
			}
		}
	}
	c.r[x86.RBX] = testData
	g.try(0x0f, 0xae, 0x03)
	g.write(testData+fxMXCSR, []byte{0x80, 0x1f, 0x01, 0x00})
	before := g.image()
	if v := g.try(0x0f, 0xae, 0x0b); v != x86.GP || g.image() != before {
		t.Errorf("FXRSTOR of a reserved bit of MXCSR: exception %d", v)
	}
	if v := g.try(0x0f, 0xae, 0x53, fxMXCSR); v != x86.GP || g.image() != before {
		t.Errorf("LDMXCSR of a reserved bit: exception %d", v)
	}
	g.write(testData, []byte{0xc0, 0xff, 0, 0})
	if v := g.try(0x0f, 0xae, 0x13); v != noFault || c.mxcsr != 0xffc0 {
		t.Errorf("LDMXCSR: exception %d, MXCSR %#x", v, c.mxcsr)
	}
	if v := g.try(0x0f, 0xae, 0x5b, 0x10); v != noFault || binary.LittleEndian.Uint32(g.read(testData+0x10, 4)) != 0xffc0 {
		t.Errorf("STMXCSR: exception %d", v)
	}
}

// TestX87Pointers: they tell of the last instruction, unless that is a control
// instruction, and of its operand if it had one.
func TestX87Pointers(t *testing.T) {
	g := newX87(t)
	c, f := g.cpu, &g.cpu.fpu
	c.r[slotRIP] = testCode
	c.r[slotGS] = 0x10
	g.try(0x65, 0xd9, 0x43, 0x08) // FLD gs:[rbx+8]: the offset counts
	if f.fip != testCode || f.fdp != testData+8 {
		t.Errorf("FIP %#x FDP %#x", f.fip, f.fdp)
	}
	c.r[slotRIP] = testCode + 0x100
	for _, code := range [][]byte{{0x9b}, {0xdb, 0xe2}, {0xd9, 0x3b}, {0xd9, 0x2b}, {0xdf, 0xe0}} {
		g.try(code...)
		if f.fip != testCode {
			t.Errorf("% x moves FIP", code)
		}
	}
	opFnop(c, &op{imm: 0xd9d0})
	if f.fip != testCode+0x100 || f.fdp != testData+8 || f.fop != 0x1d0 {
		t.Errorf("FIP %#x FDP %#x FOP %#x", f.fip, f.fdp, f.fop)
	}
}

func TestMMXRegisters(t *testing.T) {
	g := newX87(t)
	c := g.cpu
	c.fpu.top = 3
	c.setMM(9, 42)
	if c.mm(1) != 42 || c.fpu.st[1].SE != 0xffff {
		t.Errorf("MM1 is %#x", c.fpu.st[1])
	}
	c.enterMMX()
	if c.fpu.top != 0 || c.fpu.tagWord() == 0xffff || c.fpu.empty != 0 {
		t.Errorf("an MMX instruction leaves TOP %d, empty %#x", c.fpu.top, c.fpu.empty)
	}
	c.fpu.top = 3
	c.emptyMMX()
	if c.fpu.top != 0 || c.fpu.tagWord() != 0xffff {
		t.Errorf("EMMS leaves TOP %d, tags %#x", c.fpu.top, c.fpu.tagWord())
	}
}

// TestFcomi: the flags are those of an unsigned comparison, and the others 0.
func TestFcomi(t *testing.T) {
	g := newX87(t)
	c := g.cpu
	nan := float.F80{Mant: 3 << 62, SE: 0x7fff}
	for _, test := range []struct {
		a, b float.F80
		want uint64
	}{{one80, float.F80{}, 0}, {float.F80{}, one80, x86.FlagCF}, {one80, one80, x86.FlagZF},
		{nan, one80, x86.FlagZF | x86.FlagPF | x86.FlagCF}} {
		for _, code := range []uint16{0xdbe9, 0xdbf1, 0xdfe9, 0xdff1} {
			c.fpu.reset()
			c.fpu.push(test.b)
			c.fpu.push(test.a)
			c.setRFLAGS(x86.FlagReserved | statusFlags)
			g.try(byte(code>>8), byte(code))
			if got := c.rflags() & statusFlags; got != test.want {
				t.Errorf("%#x: flags %#x, want %#x", code, got, test.want)
			}
			quiet := code&0x10 == 0
			if invalid := c.fpu.status&float.Invalid != 0; invalid != (test.a == nan && !quiet) {
				t.Errorf("%#x: invalid is %v", code, invalid)
			}
			if pops := uint8(code >> 10 & 1); c.fpu.top != 6+pops {
				t.Errorf("%#x: TOP %d", code, c.fpu.top)
			}
		}
	}
}

func TestX87AllocatesNothing(t *testing.T) {
	g := newX87(t)
	c := g.cpu
	var ops []op
	for _, s := range []string{"d903", "d9e8", "d8c1", "d8c9", "dec1", "d9c0", "d9c9", "d9f8", "d9fa", "d8d1", "dbf1", "dd13", "dd1b", "df33", "0fae03", "0fae0b"} {
		code, _ := hex.DecodeString(s)
		var d decoder
		var o op
		d.decode(append(code, make([]byte, maxInstruction)...), 0, c.mode, &o)
		ops = append(ops, o)
	}
	if n := testing.AllocsPerRun(100, func() {
		c.fpu.reset()
		for i := range ops {
			ops[i].fn(c, &ops[i])
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
