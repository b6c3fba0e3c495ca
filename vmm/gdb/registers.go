package gdb

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"fifovm/vmm/x86"
)

// register is one of the target's, as gdb sees it. Its number is its place in
// registers.
type register struct {
	name, kind string // kind is a type of the description
	size       int    // in bytes
	get        func(c *x86.CPU, b []byte)
	set        func(c *x86.CPU, b []byte) // nil: it can't be written
}

// feature is a part of the description. Those of org.gnu.gdb are gdb's own, with
// the names and the order that it wants (appendix G.5.10).
type feature struct {
	name      string
	registers []register
}

var features = []feature{
	{"org.gnu.gdb.i386.core", coreRegisters()},
	{"org.gnu.gdb.i386.sse", sseRegisters()},
	{"org.gnu.gdb.i386.segments", []register{
		word("fs_base", "int", 8, func(c *x86.CPU) *uint64 { return &c.Seg[x86.FS].Base }),
		word("gs_base", "int", 8, func(c *x86.CPU) *uint64 { return &c.Seg[x86.GS].Base }),
	}},
	{"org.fifovm.system", []register{
		word("cr0", "int", 8, func(c *x86.CPU) *uint64 { return &c.CR0 }),
		word("cr2", "int", 8, func(c *x86.CPU) *uint64 { return &c.CR2 }),
		word("cr3", "int", 8, func(c *x86.CPU) *uint64 { return &c.CR3 }),
		word("cr4", "int", 8, func(c *x86.CPU) *uint64 { return &c.CR4 }),
		word("cr8", "int", 8, func(c *x86.CPU) *uint64 { return &c.CR8 }),
		word("efer", "int", 8, func(c *x86.CPU) *uint64 { return &c.EFER }),
		{"kernel_gs_base", "int", 8, func(c *x86.CPU, b []byte) {
			i := slices.IndexFunc(c.MSRs, func(m x86.MSR) bool { return m.Index == x86.MSRKernelGSBase })
			if i >= 0 {
				binary.LittleEndian.PutUint64(b, c.MSRs[i].Value)
			}
		}, nil},
	}},
}

// registers are those of all features.
var registers = func() (all []register) {
	for _, f := range features {
		all = append(all, f.registers...)
	}
	return all
}()

// word is a register that is a field of the state, or the lower part of one.
func word(name, kind string, size int, field func(*x86.CPU) *uint64) register {
	return register{name, kind, size,
		func(c *x86.CPU, b []byte) {
			var v [8]byte
			binary.LittleEndian.PutUint64(v[:], *field(c))
			copy(b, v[:])
		},
		func(c *x86.CPU, b []byte) {
			p := field(c)
			var v [8]byte
			binary.LittleEndian.PutUint64(v[:], *p)
			copy(v[:], b)
			*p = binary.LittleEndian.Uint64(v[:])
		}}
}

// inFPU is a register that has so many bytes of FXSAVE's image, which may be
// fewer than gdb wants.
func inFPU(name, kind string, size, at, bytes int) register {
	return register{name, kind, size,
		func(c *x86.CPU, b []byte) { copy(b, c.FPU[at:at+bytes]) },
		func(c *x86.CPU, b []byte) { copy(c.FPU[at:at+bytes], b) }}
}

// zero is a register that this machine has no trace of.
func zero(name string, size int) register {
	return register{name, "int", size, func(*x86.CPU, []byte) {}, func(*x86.CPU, []byte) {}}
}

// Places in the image of FXSAVE64 (SDM volume 1, table 10-2).
const (
	fxControl     = 0
	fxStatus      = 2
	fxTag         = 4
	fxOpcode      = 6
	fxInstruction = 8
	fxData        = 16
	fxMXCSR       = 24
	fxST          = 32
	fxXMM         = 160
)

func coreRegisters() (all []register) {
	order := []int{x86.RAX, x86.RBX, x86.RCX, x86.RDX, x86.RSI, x86.RDI, x86.RBP, x86.RSP,
		x86.R8, x86.R9, x86.R10, x86.R11, x86.R12, x86.R13, x86.R14, x86.R15}
	for _, n := range order {
		kind := "int64"
		if n == x86.RBP || n == x86.RSP {
			kind = "data_ptr"
		}
		all = append(all, word(x86.GPRNames[n], kind, 8, func(c *x86.CPU) *uint64 { return &c.GPR[n] }))
	}
	all = append(all,
		word("rip", "code_ptr", 8, func(c *x86.CPU) *uint64 { return &c.RIP }),
		word("eflags", "i386_eflags", 4, func(c *x86.CPU) *uint64 { return &c.RFLAGS }))
	for _, s := range []struct {
		name string
		n    int
	}{{"cs", x86.CS}, {"ss", x86.SS}, {"ds", x86.DS}, {"es", x86.ES}, {"fs", x86.FS}, {"gs", x86.GS}} {
		// A selector alone is not written: it would have the hidden part of another.
		all = append(all, register{s.name, "int32", 4,
			func(c *x86.CPU, b []byte) { binary.LittleEndian.PutUint16(b, c.Seg[s.n].Selector) }, nil})
	}
	for i := range 8 {
		all = append(all, inFPU(fmt.Sprintf("st%d", i), "i387_ext", 10, fxST+16*i, 10))
	}
	return append(all,
		inFPU("fctrl", "int", 4, fxControl, 2),
		inFPU("fstat", "int", 4, fxStatus, 2),
		register{"ftag", "int", 4, getTags, setTags},
		zero("fiseg", 4),
		inFPU("fioff", "int", 4, fxInstruction, 4),
		zero("foseg", 4),
		inFPU("fooff", "int", 4, fxData, 4),
		inFPU("fop", "int", 4, fxOpcode, 2))
}

func sseRegisters() (all []register) {
	for i := range 16 {
		all = append(all, inFPU(fmt.Sprintf("xmm%d", i), "vec128", 16, fxXMM+16*i, 16))
	}
	return append(all, inFPU("mxcsr", "i386_mxcsr", 4, fxMXCSR, 4))
}

// getTags makes x87's tag word of the bits that FXSAVE keeps of it: empty or not,
// by the physical register (SDM volume 1, table 10-3).
func getTags(c *x86.CPU, b []byte) {
	top := c.FPU[fxStatus+1] >> 3 & 7
	var tags uint16
	for i := range 8 {
		tags |= tag(c.FPU[fxTag]>>i&1 != 0, c.FPU[fxST+16*((i-int(top))&7):][:10]) << (2 * i)
	}
	binary.LittleEndian.PutUint16(b, tags)
}

// tag is 0 for a valid number, 1 for zero, 2 for a special one and 3 for none.
func tag(used bool, b []byte) uint16 {
	fraction, exponent := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint16(b[8:])&0x7fff
	switch {
	case !used:
		return 3
	case exponent == 0 && fraction == 0:
		return 1
	case exponent == 0 || exponent == 0x7fff || fraction>>63 == 0:
		return 2
	}
	return 0
}

func setTags(c *x86.CPU, b []byte) {
	tags := binary.LittleEndian.Uint16(b)
	c.FPU[fxTag] = 0
	for i := range 8 {
		if tags>>(2*i)&3 != 3 {
			c.FPU[fxTag] |= 1 << i
		}
	}
}

// description is the target's, as gdb asks for it.
var description = func() []byte {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0"?>
<!DOCTYPE target SYSTEM "gdb-target.dtd">
<target version="1.0"><architecture>i386:x86-64</architecture>
`)
	for _, f := range features {
		fmt.Fprintf(&b, "<feature name=%q>\n%s", f.name, types[f.name])
		for _, r := range f.registers {
			fmt.Fprintf(&b, "<reg name=%q bitsize=\"%d\" type=%q/>\n", r.name, r.size*8, r.kind)
		}
		b.WriteString("</feature>\n")
	}
	b.WriteString("</target>\n")
	return []byte(b.String())
}()

// types are those that the features' registers have beside gdb's own.
var types = map[string]string{
	"org.gnu.gdb.i386.core": flags("i386_eflags", 4, "CF", 0, "PF", 2, "AF", 4, "ZF", 6, "SF", 7, "TF", 8, "IF", 9,
		"DF", 10, "OF", 11, "NT", 14, "RF", 16, "VM", 17, "AC", 18, "VIF", 19, "VIP", 20, "ID", 21),
	"org.gnu.gdb.i386.sse": `<vector id="v4f" type="ieee_single" count="4"/>
<vector id="v2d" type="ieee_double" count="2"/>
<vector id="v16i8" type="int8" count="16"/>
<vector id="v8i16" type="int16" count="8"/>
<vector id="v4i32" type="int32" count="4"/>
<vector id="v2i64" type="int64" count="2"/>
<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>
<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>
<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>
` + flags("i386_mxcsr", 4, "IE", 0, "DE", 1, "ZE", 2, "OE", 3, "UE", 4, "PE", 5, "DAZ", 6, "IM", 7, "DM", 8, "ZM", 9,
		"OM", 10, "UM", 11, "PM", 12, "FZ", 15),
}

// flags is a type of named bits: names and numbers in turns.
func flags(id string, size int, bits ...any) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<flags id=%q size=\"%d\">", id, size)
	for i := 0; i < len(bits); i += 2 {
		fmt.Fprintf(&b, "<field name=%q start=\"%d\" end=\"%[2]d\"/>", bits[i], bits[i+1])
	}
	b.WriteString("</flags>\n")
	return b.String()
}
