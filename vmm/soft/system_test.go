package soft

import (
	"bytes"
	"testing"

	"fifovm/vmm/bus"
	"fifovm/vmm/x86"
)

// step executes one instruction from the start state that change makes, and
// says which vector's handler is next, or -1.
func (g *guest) step(change func(c *x86.CPU)) (vector int, code uint64) {
	g.Helper()
	g.start.CPUs[0].RIP, g.start.CPUs[0].GPR[x86.RSP] = testCode, testStack
	if change != nil {
		change(&g.start.CPUs[0])
	}
	g.set()
	g.run(1)
	if g.engine.err != nil {
		g.Fatal(g.engine.err)
	}
	if rip := g.cpu.r[slotRIP]; rip >= sysHandlers && rip < sysHandlers+0x1000 {
		return int(rip-sysHandlers) / 16, g.get64(g.cpu.r[x86.RSP])
	}
	return -1, 0
}

// TestPrivilege: what a program must not do is #GP(0) at CPL 3, and fine at 0.
func TestPrivilege(t *testing.T) {
	for name, code := range map[string][]byte{
		"HLT": {0xf4}, "CLI": {0xfa}, "STI": {0xfb}, "CLTS": {0x0f, 0x06}, "WBINVD": {0x0f, 0x09}, "INVD": {0x0f, 0x08},
		"INVLPG": {0x0f, 0x01, 0x38}, "MOV from CR0": {0x0f, 0x20, 0xc0}, "MOV from CR8": {0x44, 0x0f, 0x20, 0xc0},
		"MOV to CR2": {0x0f, 0x22, 0xd0}, "MOV from DR7": {0x0f, 0x21, 0xf8}, "RDMSR": {0x0f, 0x32}, "LMSW": {0x0f, 0x01, 0xf3},
		"SWAPGS": {0x0f, 0x01, 0xf8}, "LGDT": {0x0f, 0x01, 0x10}, "LIDT": {0x0f, 0x01, 0x18}, "LLDT": {0x0f, 0x00, 0xd3}, "LTR": {0x0f, 0x00, 0xd9},
		"IN": {0xe5, 0x40}, "OUT": {0xee},
	} {
		g := newSystem(t, code, []byte{0xeb, 0xfe})
		set := func(c *x86.CPU) {
			c.GPR[x86.RAX], c.GPR[x86.RCX], c.GPR[x86.RDX] = testData, x86.MSREFER, 0x40
			c.GPR[x86.RBX] = 0
			if name == "LTR" {
				c.GPR[x86.RCX] = selTSS
			}
		}
		if v, _ := g.step(set); v != -1 {
			t.Errorf("%s: vector %d at CPL 0", name, v)
		}
		g.user()
		if v, e := g.step(set); v != x86.GP || e != 0 {
			t.Errorf("%s: vector %d, code %#x at CPL 3", name, v, e)
		}
	}
	for name, code := range map[string][]byte{"CLAC": {0x0f, 0x01, 0xca}, "STAC": {0x0f, 0x01, 0xcb}, "CR1": {0x0f, 0x20, 0xc8}} {
		g := newSystem(t, code, []byte{0xeb, 0xfe})
		g.user()
		if v, _ := g.step(nil); v != x86.UD {
			t.Errorf("%s: vector %d at CPL 3", name, v)
		}
	}
	// With IOPL 3 a program may.
	for name, code := range map[string][]byte{"CLI": {0xfa}, "STI": {0xfb}, "IN": {0xe5, 0x40}} {
		g := newSystem(t, code, []byte{0xeb, 0xfe})
		g.user()
		if v, _ := g.step(func(c *x86.CPU) { c.RFLAGS |= x86.FlagIOPL }); v != -1 {
			t.Errorf("%s: vector %d at CPL 3 with IOPL 3", name, v)
		}
	}
}

// TestControlRegisters writes values to CR0, CR3, CR4 and CR8 in 64-bit mode.
func TestControlRegisters(t *testing.T) {
	const cr0 = x86.CR0PE | x86.CR0MP | x86.CR0ET | x86.CR0NE | x86.CR0WP | x86.CR0PG
	const cr4 = x86.CR4PAE | x86.CR4OSFXSR | x86.CR4OSXMMEXCPT
	for _, test := range []struct {
		n     uint8
		value uint64
		want  uint64
		gp    bool
	}{
		{0, cr0 | x86.CR0TS | x86.CR0AM, cr0 | x86.CR0TS | x86.CR0AM, false},
		{0, cr0&^x86.CR0ET | 1<<6 | 1<<17, cr0, false}, // reserved bits are ignored
		{0, cr0 &^ x86.CR0WP, cr0 &^ x86.CR0WP, false},
		{0, cr0 | x86.CR0CD | x86.CR0NW, cr0 | x86.CR0CD | x86.CR0NW, false},
		{0, cr0 | x86.CR0NW, 0, true},
		{0, cr0 &^ x86.CR0PE, 0, true},
		{0, cr0 &^ x86.CR0PG, 0, true}, // in 64-bit mode
		{0, cr0 | 1<<32, 0, true},
		{3, testTables | 0x18, testTables | 0x18, false},
		{3, testTables | 1<<x86.PhysBits, 0, true},
		{3, testTables | 1<<63, 0, true},
		{4, cr4Bits, cr4Bits, false},
		{4, cr4 &^ x86.CR4PAE, 0, true},
		{4, cr4 | 1<<0, 0, true},  // VME
		{4, cr4 | 1<<6, 0, true},  // MCE
		{4, cr4 | 1<<11, 0, true}, // UMIP
		{4, cr4 | 1<<12, 0, true}, // LA57
		{4, cr4 | 1<<17, 0, true}, // PCIDE
		{4, cr4 | 1<<18, 0, true}, // OSXSAVE
		{4, cr4 | 1<<32, 0, true},
		{8, 15, 15, false},
		{8, 16, 0, true},
	} {
		code := []byte{0x0f, 0x22, 0xc0 | test.n&7<<3, 0xeb, 0xfe}
		back := []byte{0x0f, 0x20, 0xc3 | test.n&7<<3, 0xeb, 0xfe}
		if test.n == 8 {
			code, back = append([]byte{0x44}, code...), append([]byte{0x44}, back...)
		}
		g := newSystem(t, code)
		if test.n == 4 { // the tables' pages are the user's, which SMEP and SMAP forbid
			g.write(testTables, x86.IdentityMap(testTables, 4, false))
		}
		v, e := g.step(func(c *x86.CPU) { c.GPR[x86.RAX] = test.value })
		if test.gp {
			if v != x86.GP || e != 0 {
				t.Errorf("CR%d, %#x: vector %d, code %#x", test.n, test.value, v, e)
			}
			continue
		}
		if v != -1 {
			t.Errorf("CR%d, %#x: vector %d", test.n, test.value, v)
			continue
		}
		g.write(testCode+0x100, back)
		g.cpu.r[slotRIP] = testCode + 0x100
		g.run(1)
		if got := g.cpu.r[x86.RBX]; got != test.want {
			t.Errorf("CR%d, %#x: reads %#x, want %#x", test.n, test.value, got, test.want)
		}
	}
}

// TestDebugRegisters: what DR6 and DR7 keep, their other names, and DR7.GD.
func TestDebugRegisters(t *testing.T) {
	g := newSystem(t, []byte{0x0f, 0x23, 0xf8, 0x0f, 0x23, 0xe1, 0x0f, 0x21, 0xfb, 0x0f, 0x21, 0xf2, 0xf4})
	c := &g.start.CPUs[0]
	c.GPR[x86.RAX], c.GPR[x86.RCX] = 0xffff_ffff&^(1<<13), 0xffff_ffff
	if o := g.finish(); o.vector != -1 || o.err != nil {
		t.Fatal(o)
	}
	if p := g.cpu; p.r[x86.RBX] != 0xffff_07ff || p.r[x86.RDX] != 0xffff_efff {
		t.Errorf("DR7 %#x, DR6 %#x", p.r[x86.RBX], p.r[x86.RDX])
	}
	c.CR4 |= x86.CR4DE
	if o := g.finish(); o.vector != x86.UD {
		t.Errorf("DR4 with CR4.DE: %v", o)
	}
	c.DR7 = 0x400 | 1<<13
	if o := g.finish(); o.vector != x86.DB || g.cpu.dr6&(1<<13) == 0 || g.cpu.dr7 != 0x400 || g.get64(g.cpu.r[x86.RSP]) != testCode {
		t.Errorf("DR7.GD: %v, DR6 %#x, DR7 %#x", o, g.cpu.dr6, g.cpu.dr7)
	}
	c.DR7 = 0x400
	c.GPR[x86.RAX] |= 1 << 32
	if o := g.finish(); o.vector != x86.GP {
		t.Errorf("DR7 of 33 bits: %v", o)
	}
}

// TestMSRs writes values, and reads back what is kept.
func TestMSRs(t *testing.T) {
	const refused = 0xdead_dead_dead_dead
	for _, test := range []struct {
		index       uint32
		value, want uint64
	}{
		{x86.MSRSTAR, ^uint64(0), ^uint64(0)},
		{x86.MSRLSTAR, 0xffff_8000_0000_0000, 0xffff_8000_0000_0000},
		{x86.MSRLSTAR, 1 << 47, refused},
		{x86.MSRFSBase, 1 << 47, refused},
		{x86.MSRGSBase, 0x7fff_ffff_ffff, 0x7fff_ffff_ffff},
		{x86.MSRKernelGSBase, 1 << 63, refused},
		{x86.MSRSysenterESP, 1 << 47, refused},
		{x86.MSRTSCAux, 0xffff_ffff, 0xffff_ffff},
		{x86.MSRTSCAux, 1 << 32, refused},
		{x86.MSREFER, x86.EFERSCE | x86.EFERLME | x86.EFERLMA, x86.EFERSCE | x86.EFERLME | x86.EFERLMA},
		{x86.MSREFER, x86.EFERLME, x86.EFERLME | x86.EFERLMA}, // LMA is not written
		{x86.MSREFER, x86.EFERSCE, refused},                   // LME, while paging is on
		{x86.MSREFER, x86.EFERLME | 1<<12, refused},
		{x86.MSRPAT, 0x0007_0406_0501_0006, 0x0007_0406_0501_0006},
		{x86.MSRPAT, 2, refused},
		{x86.MSRMTRRDefType, 1<<11 | 6, 1<<11 | 6},
		{x86.MSRMTRRDefType, 7, refused},
		{x86.MSRMTRRDefType, 1 << 9, refused},
		{x86.MSRMTRRPhysBase0 + 2, 0x4000_0006, 0x4000_0006},
		{x86.MSRMTRRPhysBase0 + 2, 0x4000_0002, refused},
		{x86.MSRMTRRPhysBase0 + 3, 0x7f_c000_0800, 0x7f_c000_0800},
		{x86.MSRMTRRPhysBase0 + 3, 1 << x86.PhysBits, refused},
		{x86.MSRMTRRPhysBase0 + 15, 0x800, 0x800},
		{x86.MSRMTRRFix64K, 0x0606_0606_0606_0606, 0x0606_0606_0606_0606},
		{x86.MSRMTRRFix16K + 1, 0x0600_0000_0000_0000, 0x0600_0000_0000_0000},
		{x86.MSRMTRRFix4K + 7, 0x0700_0000_0000_0000, refused},
		{x86.MSRMTRRCap, 0x508, refused},
		{x86.MSRMiscEnable, 1, 1},
		{x86.MSRAPICBase, 0xfee0_0900, 0xfee0_0900},
		{x86.MSRAPICBase, 0xfee0_0d00, 0xfee0_0d00},
		{x86.MSRAPICBase, 0xfee0_0500, refused},
		{msrMicrocode, 0, 0},
		{msrPlatformID, 0, refused},
		{x2apicFirst + 8, 0x20, refused}, // not in x2APIC mode
		{0x3a, 0, refused},
		{0x179, 0, refused},
	} {
		g := newSystem(t, []byte{0x0f, 0x30, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x32, 0xf4})
		c := &g.start.CPUs[0]
		c.GPR[x86.RCX], c.GPR[x86.RAX], c.GPR[x86.RDX] = uint64(test.index), 0xffff_ffff_0000_0000|test.value&0xffff_ffff, test.value>>32
		o := g.finish()
		if test.want == refused {
			if o.vector != x86.GP || o.code != 0 || g.get64(g.cpu.r[x86.RSP]+8) != testCode {
				t.Errorf("%#x takes %#x: %v", test.index, test.value, o)
			}
			continue
		}
		if v := g.cpu.r[x86.RAX] | g.cpu.r[x86.RDX]<<32; o.vector != -1 || v != test.want {
			t.Errorf("%#x, %#x: reads %#x, want %#x; %v", test.index, test.value, v, test.want, o)
		}
	}
	g := newSystem(t, hlt)
	for _, m := range []struct {
		index uint32
		want  uint64
	}{{x86.MSRMTRRCap, 0x508}, {msrPlatformID, 0}, {msrMicrocode, 0}, {x86.MSRPAT, 0x0007_0406_0007_0406}} {
		if v, ok := g.cpu.readMSR(m.index); v != m.want || !ok {
			t.Errorf("%#x reads %#x, %v", m.index, v, ok)
		}
	}
	for _, index := range x86.StateMSRs() {
		if _, ok := g.cpu.readMSR(index); !ok {
			t.Errorf("%#x is part of the state and can't be read", index)
		}
	}
}

// TestTSC: the counter counts instructions, from where it is put, and
// IA32_TSC_ADJUST follows it and moves it.
func TestTSC(t *testing.T) {
	g := newSystem(t, []byte{0x90, 0x90, 0x0f, 0x31, 0x89, 0xc3, 0x0f, 0x01, 0xf9, 0xf4}) // nop; nop; rdtsc; mov ebx, eax; rdtscp; hlt
	g.set()
	c := g.cpu
	c.tscAux = 0x1234
	c.engine.cfg.Time.Set(1000)
	if !c.writeMSR(x86.MSRTSC, 5_000_000) {
		t.Fatal("the counter is not taken")
	}
	if c.tscAdjust != 4_999_000 {
		t.Errorf("IA32_TSC_ADJUST is %d", c.tscAdjust)
	}
	g.run(100)
	if c.r[x86.RBX] != 5_000_002 || c.r[x86.RAX] != 5_000_004 || c.r[x86.RCX] != 0x1234 {
		t.Errorf("RDTSC %d, RDTSCP %d, %#x", c.r[x86.RBX], c.r[x86.RAX], c.r[x86.RCX])
	}
	before, _ := c.readMSR(x86.MSRTSC)
	c.writeMSR(x86.MSRTSCAdjust, 4_999_000+77)
	if after, _ := c.readMSR(x86.MSRTSC); after != before+77 || c.tscAdjust != 4_999_077 {
		t.Errorf("the counter went from %d to %d", before, after)
	}
	g = newSystem(t, []byte{0x0f, 0x31, 0xeb, 0xfe})
	g.user()
	if v, _ := g.step(func(c *x86.CPU) { c.CR4 |= x86.CR4TSD }); v != x86.GP {
		t.Errorf("RDTSC with CR4.TSD: vector %d", v)
	}
}

// TestCPUID asks for every leaf of the table, and for some that it does not
// have.
func TestCPUID(t *testing.T) {
	g := newGuest(t, 4)
	c := g.engine.cpus[2]
	ask := func(function, index uint32) [4]uint32 {
		c.r[x86.RAX], c.r[x86.RCX] = 0xffff_ffff_0000_0000|uint64(function), uint64(index)
		opCpuid(c, nil)
		for _, n := range []int{x86.RAX, x86.RBX, x86.RCX, x86.RDX} {
			if c.r[n]>>32 != 0 {
				t.Errorf("leaf %#x: register %d is %#x", function, n, c.r[n])
			}
		}
		return [4]uint32{uint32(c.r[x86.RAX]), uint32(c.r[x86.RBX]), uint32(c.r[x86.RCX]), uint32(c.r[x86.RDX])}
	}
	highest := [4]uint32{}
	for _, l := range x86.CPUID(2, 4, TSCkHz) {
		want := [4]uint32{l.EAX, l.EBX, l.ECX, l.EDX}
		if got := ask(l.Function, l.Index); got != want {
			t.Errorf("leaf %#x, index %d: %#x, want %#x", l.Function, l.Index, got, want)
		}
		if l.Function == 0x16 {
			highest = want
		}
	}
	for _, test := range []struct {
		function, index uint32
		want            [4]uint32
	}{
		{0x17, 0, highest}, {0x1234, 0, highest}, {0x8000_0009, 0, highest}, {0xffff_ffff, 0, highest}, {0x4000_0011, 0, highest},
		{3, 0, [4]uint32{}}, {0xd, 0, [4]uint32{}}, {4, 9, [4]uint32{}}, {7, 1, [4]uint32{}}, {0x8000_0005, 0, [4]uint32{}},
		{0x4000_0001, 0, [4]uint32{}},
		{0xb, 0x1234, [4]uint32{0, 0, 0x34, 2}},
	} {
		if got := ask(test.function, test.index); got != test.want {
			t.Errorf("leaf %#x, index %d: %#x, want %#x", test.function, test.index, got, test.want)
		}
	}
}

// TestTables: SGDT, LGDT, SIDT, LIDT, LLDT, SLDT, LTR and STR.
func TestTables(t *testing.T) {
	g := newSystem(t, []byte{
		0x0f, 0x01, 0x00, // sgdt [rax]
		0x0f, 0x01, 0x48, 0x10, // sidt [rax+16]
		0x0f, 0x01, 0x53, 0x20, // lgdt [rbx+32]
		0x0f, 0x00, 0xd1, // lldt cx
		0x0f, 0x00, 0xc6, // sldt esi
		0x0f, 0x00, 0xda, // ltr dx
		0x0f, 0x00, 0x48, 0x30, // str [rax+48]
		0x8e, 0xdf, // mov ds, edi: of the LDT
		0xf4,
	})
	g.write(testData+32, []byte{0xef, 0, 0, 0, 2, 0, 0, 0, 0, 0})
	g.put64(testGDT+selLDT+8, 0) // the base's upper half
	g.put64(testData+0x800+8, sysDescriptors[selData])
	g.put64(testGDT+selLDT, 0x0000_8200_0000_000f|(testData+0x800)<<16)
	c := &g.start.CPUs[0]
	c.GPR[x86.RAX], c.GPR[x86.RBX], c.GPR[x86.RCX], c.GPR[x86.RDX], c.GPR[x86.RDI] = testData, testData, selLDT, selTSS, 8|4
	if o := g.finish(); o.vector != -1 || o.err != nil {
		t.Fatal(o)
	}
	p := g.cpu
	if v := g.get64(testData); v != testGDT<<16|0xff || g.get64(testData+8) != 0 {
		t.Errorf("SGDT stores %#x", v)
	}
	if v := g.get64(testData + 16); v != testIDT<<16|0xfff {
		t.Errorf("SIDT stores %#x", v)
	}
	if p.gdt != (x86.Table{Base: testGDT, Limit: 0xef}) {
		t.Errorf("GDTR is %+v", p.gdt)
	}
	if p.ldt.Base != testData+0x800 || p.ldt.Limit != 15 || p.r[x86.RSI] != selLDT || p.seg[x86.DS].Selector != 0xc || p.seg[x86.DS].Unusable {
		t.Errorf("LDTR %+v, ESI %#x, DS %+v", p.ldt, p.r[x86.RSI], p.seg[x86.DS])
	}
	if p.tr.Base != sysTSSAt || p.tr.Limit != 0x1067 || p.tr.Type != x86.TypeBusyTSS || g.get64(testData+48) != selTSS ||
		g.get64(testGDT+selTSS)>>40&0xf != x86.TypeBusyTSS {
		t.Errorf("TR %+v, descriptor %#x", p.tr, g.get64(testGDT+selTSS))
	}
	// A busy one can't be loaded again.
	if o := g.finish(); o.vector != x86.GP || o.code != selTSS {
		t.Errorf("LTR of a busy TSS: %v", o)
	}
	for _, test := range []struct {
		code     []byte
		selector uint64
		vector   int
		want     uint64
	}{
		{[]byte{0x0f, 0x00, 0xd1}, 0, -1, 0},     // lldt null
		{[]byte{0x0f, 0x00, 0xd9}, 0, x86.GP, 0}, // ltr null
		{[]byte{0x0f, 0x00, 0xd1}, selTSS, x86.GP, selTSS},
		{[]byte{0x0f, 0x00, 0xd9}, selLDT, x86.GP, selLDT},
		{[]byte{0x0f, 0x00, 0xd1}, selLDT | 4, x86.GP, selLDT | 4},
		{[]byte{0x0f, 0x00, 0xd1}, 0xf8, x86.GP, 0xf8},
	} {
		g := newSystem(t, test.code, []byte{0xeb, 0xfe})
		if v, e := g.step(func(c *x86.CPU) { c.GPR[x86.RCX] = test.selector }); v != test.vector || e != test.want {
			t.Errorf("% x with %#x: vector %d, code %#x", test.code, test.selector, v, e)
		}
	}
}

// TestLooking: LAR, LSL, VERR, VERW.
func TestLooking(t *testing.T) {
	g := newSystem(t, []byte{
		0x0f, 0x02, 0xc1, 0x0f, 0x94, 0xc3, // lar eax, ecx; setz bl
		0x0f, 0x03, 0xd1, 0x0f, 0x94, 0xc7, // lsl edx, ecx; setz bh
		0x0f, 0x00, 0xe1, 0x40, 0x0f, 0x94, 0xc6, // verr cx; setz sil
		0x0f, 0x00, 0xe9, 0x40, 0x0f, 0x94, 0xc7, // verw cx; setz dil
		0xeb, 0xfe,
	})
	const none = 0x55
	for _, test := range []struct {
		selector           uint16
		user               bool
		lar, lsl           uint64
		readable, writable uint64
	}{
		{selCode, false, 0xaf9b00, 0xffff_ffff, 1, 0},
		{selData, false, 0xcf9300, 0xffff_ffff, 1, 1},
		{selData, true, none, none, 0, 0},
		{selUserData, true, 0xcff300, 0xffff_ffff, 1, 1},
		{selReadOnly, false, 0xcf9100, 0xffff_ffff, 1, 0},
		{selAbsent, false, 0xcf1300, 0xffff_ffff, 1, 1},
		{selConform, true, 0xaf9f00, 0xffff_ffff, 1, 0},
		{selTSS, false, 0x8900, 0x1067, 0, 0},
		{selLDT, false, 0x8200, 0xf, 0, 0},
		{selGate | 3, true, 0x4ec00, none, 0, 0},
		{0, false, none, none, 0, 0},
		{0x100, false, none, none, 0, 0},
		{0xc, false, none, none, 0, 0},
	} {
		c := &g.start.CPUs[0]
		if test.user {
			c = g.user()
		} else {
			tables := [...]x86.Table{c.GDT, c.IDT}
			c.LongMode(testTables, 0)
			c.GDT, c.IDT = tables[0], tables[1]
		}
		c.RIP = testCode
		c.GPR[x86.RAX], c.GPR[x86.RDX], c.GPR[x86.RCX], c.GPR[x86.RBX] = none, none, uint64(test.selector), 0
		g.set()
		g.run(8)
		p := g.cpu
		want := [5]uint64{test.lar, test.lsl, flag(test.lar != none, 1) | flag(test.lsl != none, 0x100), test.readable, test.writable}
		got := [5]uint64{p.r[x86.RAX] & 0xff_ffff, p.r[x86.RDX], p.r[x86.RBX], p.r[x86.RSI] & 0xff, p.r[x86.RDI] & 0xff}
		if got != want {
			t.Errorf("selector %#x, user %v: %#x, want %#x", test.selector, test.user, got, want)
		}
	}
}

// TestPorts: the TSS's bitmap for a program's accesses of each size.
func TestPorts(t *testing.T) {
	for _, test := range []struct {
		clear []uint64 // ports that are permitted
		port  uint64
		code  []byte
		ok    bool
	}{
		{[]uint64{0x70}, 0x70, []byte{0xec}, true},
		{[]uint64{0x70}, 0x71, []byte{0xec}, false},
		{[]uint64{0x70}, 0x70, []byte{0x66, 0xed}, false},
		{[]uint64{0x77, 0x78}, 0x77, []byte{0x66, 0xed}, true},
		{[]uint64{0x77, 0x78}, 0x77, []byte{0xed}, false},
		{[]uint64{0x76, 0x77, 0x78, 0x79}, 0x76, []byte{0xef}, true},
		{[]uint64{0x76, 0x77, 0x79}, 0x76, []byte{0xef}, false},
		{[]uint64{0x7ff7}, 0x7ff7, []byte{0xec}, true},
		{nil, 0xffff, []byte{0xec}, false}, // behind the limit
	} {
		g := newSystem(t, test.code, []byte{0xeb, 0xfe})
		for _, p := range test.clear {
			b := []byte{0}
			if err := g.ram.Read(sysTSSAt+0x68+p/8, b); err != nil {
				t.Fatal(err)
			}
			b[0] &^= 1 << (p % 8)
			g.write(sysTSSAt+0x68+p/8, b)
		}
		g.user()
		v, _ := g.step(func(c *x86.CPU) { c.GPR[x86.RDX] = test.port })
		if (v == -1) != test.ok || v != -1 && v != x86.GP {
			t.Errorf("port %#x, % x: vector %d", test.port, test.code, v)
		}
	}
}

// TestStringPorts: INS and OUTS, with a count, and what a fault in their midst
// leaves.
func TestStringPorts(t *testing.T) {
	const port = 0x1f0
	g := newSystem(t, []byte{0x66, 0xf3, 0x6d, 0x66, 0xf3, 0x6f, 0xf4}) // rep insw; rep outsw of nothing; hlt
	var device recorder
	if err := g.engine.cfg.Ports.Map(port, 2, "recorder", bus.Handler(&device)); err != nil {
		t.Fatal(err)
	}
	c := &g.start.CPUs[0]
	c.GPR[x86.RDX], c.GPR[x86.RCX], c.GPR[x86.RDI], c.GPR[x86.RSI] = port, 3, testData, testData
	if o := g.finish(); o.vector != -1 || o.err != nil {
		t.Fatal(o)
	}
	p := g.cpu
	b := make([]byte, 8)
	if err := g.ram.Read(testData, b); err != nil || !bytes.Equal(b, []byte{0, 1, 2, 3, 4, 5, 0, 0}) {
		t.Errorf("INS stored % x, %v", b, err)
	}
	if device.reads != 3 || device.writes != 0 || p.r[x86.RDI] != testData+6 || p.r[x86.RCX] != 0 || p.r[x86.RSI] != testData {
		t.Errorf("%d reads, %d writes, RDI %#x, RCX %d", device.reads, device.writes, p.r[x86.RDI], p.r[x86.RCX])
	}
	c.RIP = testCode + 3
	if o := g.finish(); o.vector != -1 || device.writes != 3 || !bytes.Equal(device.last, []byte{4, 5}) || p.r[x86.RSI] != testData+6 {
		t.Errorf("%v, %d writes, last % x", o, device.writes, device.last)
	}
	// The second element is beyond the page tables.
	c.RIP = testCode
	c.GPR[x86.RDI] = 4<<30 - 2
	device.reads = 0
	if o := g.finish(); o.vector != x86.PF || device.reads != 1 || p.r[x86.RCX] != 2 || p.r[x86.RDI] != 4<<30 || p.cr2 != 4<<30 ||
		g.get64(p.r[x86.RSP]+8) != testCode {
		t.Errorf("%v, %d reads, RCX %d, RDI %#x", o, device.reads, p.r[x86.RCX], p.r[x86.RDI])
	}
}

// TestBases: SWAPGS and the instructions of FSGSBASE.
func TestBases(t *testing.T) {
	g := newSystem(t, []byte{
		0xf3, 0x48, 0x0f, 0xae, 0xd0, // wrfsbase rax
		0xf3, 0x48, 0x0f, 0xae, 0xdb, // wrgsbase rbx
		0x0f, 0x01, 0xf8, // swapgs
		0xf3, 0x48, 0x0f, 0xae, 0xc1, // rdfsbase rcx
		0xf3, 0x0f, 0xae, 0xca, // rdgsbase edx
		0xf4,
	})
	c := &g.start.CPUs[0]
	c.CR4 |= x86.CR4FSGSBASE
	c.GPR[x86.RAX], c.GPR[x86.RBX], c.GPR[x86.RDX] = 0xffff_8000_0000_1234, 0x7777_0000_5678, ^uint64(0)
	if o := g.finish(); o.vector != -1 {
		t.Fatal(o)
	}
	if p := g.cpu; p.r[x86.RCX] != c.GPR[x86.RAX] || p.kernelGSBase != c.GPR[x86.RBX] || p.r[x86.RDX] != 0 {
		t.Errorf("FS %#x, GS %#x and %#x", p.r[x86.RCX], p.kernelGSBase, p.r[x86.RDX])
	}
	c.GPR[x86.RAX] = 1 << 47
	if o := g.finish(); o.vector != x86.GP {
		t.Errorf("a base that is not canonical: %v", o)
	}
	c.CR4 &^= x86.CR4FSGSBASE
	if o := g.finish(); o.vector != x86.UD {
		t.Errorf("without CR4.FSGSBASE: %v", o)
	}
}

// TestFlags: PUSHF and POPF at both privileges.
func TestFlags(t *testing.T) {
	const all = ^uint64(x86.FlagTF)
	for _, test := range []struct {
		name  string
		code  []byte
		user  bool
		flags uint64
		want  uint64
	}{
		{"POPFQ, kernel", []byte{0x9d}, false, 0, 0x24_7ed7},
		{"POPF of 16 bits, kernel", []byte{0x66, 0x9d}, false, 0, 0x7ed7},
		{"POPFQ, user", []byte{0x9d}, true, 0, 0x24_4cd7},
		{"POPFQ, user with IOPL 3", []byte{0x9d}, true, x86.FlagIOPL, 0x24_7ed7},
	} {
		g := newSystem(t, test.code, []byte{0xeb, 0xfe})
		if test.user {
			g.user()
		}
		g.put64(testStack, all)
		if v, _ := g.step(func(c *x86.CPU) { c.RFLAGS |= test.flags }); v != -1 {
			t.Errorf("%s: vector %d", test.name, v)
		}
		if f := g.cpu.rflags(); f != test.want {
			t.Errorf("%s: RFLAGS is %#x, want %#x", test.name, f, test.want)
		}
	}
	g := newSystem(t, []byte{0x9c, 0xeb, 0xfe})
	g.step(func(c *x86.CPU) { c.RFLAGS |= x86.FlagRF | x86.FlagCF | x86.FlagID })
	if v := g.get64(testStack - 8); v != x86.FlagReserved|x86.FlagCF|x86.FlagID {
		t.Errorf("PUSHF pushes %#x", v)
	}
}

// TestINIT: the registers after INIT, and the start-up IPI that follows; that of
// a CPU that does not wait is lost.
func TestINIT(t *testing.T) {
	g := newGuest(t, 2)
	for i, c := range g.engine.cpus {
		c.r[x86.RBX], c.r[slotRIP], c.cr3, c.cr4, c.efer, c.cpl = 7, 0x1234, testTables, x86.CR4PAE, 0x500, 3
		c.cr0 = x86.CR0PE | x86.CR0PG | x86.CR0ET
		c.lstar, c.xmm[3].lo, c.tscOffset = 8, 9, 10
		c.initReset()
		want := x86.Reset(i)
		var s x86.CPU
		c.state(&s)
		want.CR0 = x86.CR0ET // CD and NW stay
		if s.GPR != want.GPR || s.RIP != want.RIP || s.RFLAGS != want.RFLAGS || s.Seg != want.Seg || s.TR != want.TR || s.LDT != want.LDT ||
			s.GDT != want.GDT || s.IDT != want.IDT || s.CR0 != want.CR0 || s.CR3 != 0 || s.CR4 != 0 || s.EFER != 0 || s.DR7 != want.DR7 {
			t.Errorf("CPU %d is %v", i, &s)
		}
		if c.lstar != 8 || c.xmm[3].lo != 9 || c.tscOffset != 10 || c.cpl != 0 || c.mode&(mode64|mode32) != 0 {
			t.Errorf("CPU %d: LSTAR %d, XMM3 %d, TSC %d, CPL %d, mode %#x", i, c.lstar, c.xmm[3].lo, c.tscOffset, c.cpl, c.mode)
		}
		activity := x86.Running
		if i == 1 {
			activity = x86.WaitSIPI
		}
		if c.activity != activity {
			t.Errorf("CPU %d: activity %d", i, c.activity)
		}
		c.sipi(0x9a)
		if i == 0 {
			if c.r[slotRIP] != 0xfff0 {
				t.Errorf("a start-up IPI moved a CPU that runs to %#x", c.r[slotRIP])
			}
			continue
		}
		if c.r[slotRIP] != 0 || c.r[slotCS] != 0x9_a000 || c.seg[x86.CS].Selector != 0x9a00 || c.activity != x86.Running {
			t.Errorf("started at %#x:%#x, base %#x, activity %d", c.seg[x86.CS].Selector, c.r[slotRIP], c.r[slotCS], c.activity)
		}
	}
}

// TestImplicitAccess: descriptor tables in the user's pages are out of reach with
// SMAP on, whatever EFLAGS.AC says; without it they are not.
func TestImplicitAccess(t *testing.T) {
	for _, smap := range []bool{false, true} {
		g := newSystem(t, []byte{0x8e, 0xd8, 0xeb, 0xfe}) // mov ds, eax
		v, e := g.step(func(c *x86.CPU) {
			c.GPR[x86.RAX] = selData
			c.RFLAGS |= x86.FlagAC
			c.IDT.Base = testIDT
		})
		if v != -1 {
			t.Fatalf("vector %d, code %#x", v, e)
		}
		if !smap {
			continue
		}
		c := g.cpu
		c.cr4 |= x86.CR4SMAP
		c.flushTLB(true)
		c.updatePrivilege()
		faulted := func() (f bool) {
			defer func() { f = recover() == throwFault }()
			c.load64System(testGDT)
			return false
		}()
		if !faulted || c.fault.vector != x86.PF || c.fault.code != x86.PFPresent || c.flags&x86.FlagAC == 0 {
			t.Errorf("faulted %v, %+v, RFLAGS %#x", faulted, c.fault, c.flags)
		}
	}
}
