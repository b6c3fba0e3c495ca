package soft

import (
	"reflect"
	"testing"

	"golang.org/x/arch/x86/x86asm"

	"fifovm/vmm/x86"
)

// FuzzDecode: no bytes have the decoder panic or read on without end, and of
// those that another decoder knows it finds the same length.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x48, 0x8b, 0x05, 1, 2, 3, 4})
	f.Add([]byte{0x66, 0x0f, 0x3a, 0x0f, 0xc1, 8})
	f.Add([]byte{0xf0, 0x48, 0x0f, 0xc7, 0x0c, 0x24})
	f.Fuzz(func(t *testing.T, code []byte) {
		for _, m := range []mode{mode64, mode32, 0} {
			var d decoder
			var o op
			d.decode(code, 0, m|modeFPU|modeSSE, &o)
			if d.short {
				continue
			}
			if o.fn == nil || o.length == 0 {
				t.Fatalf("% x: no handler, or %d bytes", code, o.length)
			}
			bits := map[mode]int{mode64: 64, mode32: 32, 0: 16}[m]
			inst, err := x86asm.Decode(code, bits)
			if err != nil || inst.Op == 0 || isHandler(o.fn, opUD) || isHandler(o.fn, opGP) || strange(code) {
				continue // where there is no instruction, its length means nothing
			}
			if inst.Len != int(o.length) {
				t.Errorf("% x in %d-bit mode: %d bytes, x86asm says %d: %v", code[:o.length], bits, o.length, inst.Len, inst)
			}
		}
	})
}

func isHandler(a, b handler) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

// strange is whether x86asm and processors differ about code: with several
// prefixes, and in MOV to and from control and debug registers, which have
// registers for operands whatever ModR/M says (SDM volume 2, MOV).
func strange(code []byte) bool {
	return isPrefix(code[0]) || code[0]&0xf0 == 0x40 || code[0] == 0x0f && len(code) > 1 && code[1]&0xfc == 0x20
}

// FuzzCPU executes bytes in every mode: no panic, no hang, and nothing is
// touched outside of RAM.
func FuzzCPU(f *testing.F) {
	f.Add([]byte{0xf3, 0xaa, 0xeb, 0xfe}, uint8(0), uint64(1))
	f.Add([]byte{0x0f, 0x22, 0xd8, 0xcf}, uint8(1), uint64(2))
	f.Add([]byte{0xea, 0, 0, 0, 0, 8, 0}, uint8(2), uint64(3))
	f.Add([]byte{0xdd, 0x30, 0x0f, 0xae, 0x0b}, uint8(3), uint64(4))
	f.Fuzz(func(t *testing.T, code []byte, where uint8, registers uint64) {
		if len(code) > 4096 {
			return
		}
		g := newGuest(t, 1, code)
		c := &g.start.CPUs[0]
		switch where % 5 {
		case 1:
			c.LongMode(testTables, 3)
		case 2: // protected mode, without paging
			c.CR0 &^= x86.CR0PG
			c.EFER = 0
			c.Seg[x86.CS].L, c.Seg[x86.CS].DB = 0, 1
		case 3: // real mode
			*c = x86.Reset(0)
			c.Seg[x86.CS].Base, c.Seg[x86.CS].Selector = 0, 0
		case 4: // compatibility mode
			c.Seg[x86.CS].L, c.Seg[x86.CS].DB = 0, 1
		}
		c.RIP = testCode
		if where%5 == 3 {
			c.Seg[x86.CS].Base, c.Seg[x86.CS].Selector, c.RIP = testCode, testCode>>4, 0
		}
		for i := range c.GPR {
			registers = registers*6364136223846793005 + 1442695040888963407
			switch registers >> 62 {
			case 0:
				c.GPR[i] = testData + registers>>40&0xfff
			case 1:
				c.GPR[i] = registers
			case 2:
				c.GPR[i] = registers >> 56
			}
		}
		c.GPR[x86.RSP] = testStack
		g.set()
		g.run(2_000)
		if _, err := g.engine.State(); err != nil {
			t.Error(err)
		}
	})
}
