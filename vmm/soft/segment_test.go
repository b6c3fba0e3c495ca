package soft

import (
	"errors"
	"testing"

	"fifovm/vmm/x86"
)

// TestLinear: limits of all kinds of segments, at their edges.
func TestLinear(t *testing.T) {
	data := x86.Segment{Limit: 0x1000, Type: x86.TypeData, S: 1, P: 1, DB: 1}
	down := data
	down.Type |= typeExpandDown
	down16 := down
	down16.DB = 0
	flat := data
	flat.Limit = 0xffff_ffff
	code := data
	code.Type = x86.TypeCode | typeConforming
	unusable := flat
	unusable.Unusable = true
	for _, test := range []struct {
		name   string
		s      x86.Segment
		offset uint64
		n      uint8
		ok     bool
	}{
		{"data, first", data, 0, 1, true},
		{"data, last", data, 0xffd, 4, true},
		{"data, across", data, 0xffe, 4, false},
		{"data, behind", data, 0x1001, 1, false},
		{"down, first", down, 0x1001, 1, true},
		{"down, at the limit", down, 0x1000, 1, false},
		{"down, last", down, 0xffff_fffc, 4, true},
		{"down, across the top", down, 0xffff_fffd, 4, false},
		{"down 16, last", down16, 0xfffe, 2, true},
		{"down 16, across the top", down16, 0xffff, 2, false},
		{"flat, last", flat, 0xffff_fffc, 4, true},
		{"flat, across the top", flat, 0xffff_fffd, 4, false},
		{"conforming code is not expand-down", code, 0x10, 4, true},
		{"unusable", unusable, 0, 1, false},
	} {
		a, ok := linear(&test.s, 0xffff_f000, test.offset, test.n)
		if want := (0xffff_f000 + test.offset) & 0xffff_ffff; ok != test.ok || ok && a != want {
			t.Errorf("%s: %#x, %v", test.name, a, ok)
		}
	}
}

// TestDescriptor takes a descriptor apart whose fields are all different.
func TestDescriptor(t *testing.T) {
	const d = descriptor(0x89d7_bb67_4523_cdef)
	got := d.segment(0x123)
	want := x86.Segment{Selector: 0x123, Base: 0x8967_4523, Limit: 0x7cdef<<12 | 0xfff, Type: 0xb, S: 1, DPL: 1, P: 1, AVL: 1, L: 0, DB: 1, G: 1}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if d := d &^ (1 << 55); d.limit() != 0x7cdef {
		t.Errorf("limit %#x", d.limit())
	}
}

// TestLoadSegment: MOV to a segment register of every selector that means
// something.
func TestLoadSegment(t *testing.T) {
	const fine = -1
	for _, test := range []struct {
		n        uint8
		selector uint16
		user     bool
		vector   int
		code     uint64
	}{
		{x86.DS, selData, false, fine, 0},
		{x86.ES, selUserData, false, fine, 0},
		{x86.FS, selUserData &^ 3, false, fine, 0},
		{x86.GS, selCode, false, fine, 0},
		{x86.DS, selReadOnly, false, fine, 0},
		{x86.DS, selConform | 3, false, fine, 0},
		{x86.DS, 0, false, fine, 0},
		{x86.DS, 3, false, fine, 0},
		{x86.SS, selData, false, fine, 0},
		{x86.SS, 0, false, fine, 0},
		{x86.DS, selUserData, true, fine, 0},
		{x86.SS, selUserData, true, fine, 0},
		{x86.DS, selConform, true, fine, 0},
		{x86.DS, selData | 3, false, x86.GP, selData},
		{x86.DS, selData, true, x86.GP, selData},
		{x86.DS, selAbsent, false, x86.NP, selAbsent},
		{x86.SS, selAbsent, false, x86.SSFault, selAbsent},
		{x86.SS, selReadOnly, false, x86.GP, selReadOnly},
		{x86.SS, selCode, false, x86.GP, selCode},
		{x86.SS, selUserData, false, x86.GP, selUserData &^ 3},
		{x86.SS, 3, false, x86.GP, 0},
		{x86.SS, 3, true, x86.GP, 0},
		{x86.SS, selData, true, x86.GP, selData},
		{x86.DS, selTSS, false, x86.GP, selTSS},
		{x86.DS, 0x100, false, x86.GP, 0x100},
		{x86.DS, 0xc, false, x86.GP, 0xc},
	} {
		g := newSystem(t, []byte{0x8e, 0xc0 | test.n<<3, 0xeb, 0xfe})
		c := &g.start.CPUs[0]
		if test.user {
			c = g.user()
		}
		c.RIP, c.GPR[x86.RSP], c.GPR[x86.RAX] = testCode, testStack, uint64(test.selector)
		g.set()
		before := g.cpu.seg[test.n]
		g.run(1)
		p := g.cpu
		if test.vector != fine {
			if p.r[slotRIP] != sysHandlers+16*uint64(test.vector) || g.get64(p.r[x86.RSP]) != test.code {
				t.Errorf("segment %d, selector %#x, user %v: RIP %#x, code %#x", test.n, test.selector, test.user, p.r[slotRIP], g.get64(p.r[x86.RSP]))
			}
			if test.n != x86.SS && p.seg[test.n] != before {
				t.Errorf("segment %d, selector %#x: is now %+v", test.n, test.selector, p.seg[test.n])
			}
			continue
		}
		s := p.seg[test.n]
		if p.r[slotRIP] != testCode+2 || s.Selector != test.selector || s.Unusable != (test.selector < 4) {
			t.Errorf("segment %d, selector %#x, user %v: RIP %#x, %+v", test.n, test.selector, test.user, p.r[slotRIP], s)
		}
	}
}

// TestAccessedBit: a load marks the descriptor, and only where it succeeds.
func TestAccessedBit(t *testing.T) {
	g := newSystem(t, []byte{0x8e, 0xd8, 0x8e, 0xd1, 0xeb, 0xfe}) // mov ds, eax; mov ss, ecx
	const fresh = 0x00cf_9200_0000_ffff
	g.put64(testGDT+selData, fresh)
	g.put64(testGDT+selReadOnly, fresh&^(1<<41))
	g.start.CPUs[0].GPR[x86.RAX], g.start.CPUs[0].GPR[x86.RCX] = selData, selReadOnly
	g.set()
	g.run(2)
	if d := g.get64(testGDT + selData); d != fresh|1<<40 {
		t.Errorf("after the load the descriptor is %#x", d)
	}
	if d := g.get64(testGDT + selReadOnly); d != fresh&^(1<<41) {
		t.Errorf("after a load that failed the descriptor is %#x", d)
	}
}

// TestFarTransfers: far jumps, calls and returns of 64-bit mode, with and without
// a gate.
func TestFarTransfers(t *testing.T) {
	const pointer, to = testData, sysGateTo
	jmp := []byte{0x48, 0xff, 0x2c, 0x25, pointer & 0xff, pointer >> 8 & 0xff, pointer >> 16, 0}
	call := []byte{0x48, 0xff, 0x1c, 0x25, pointer & 0xff, pointer >> 8 & 0xff, pointer >> 16, 0}
	for _, test := range []struct {
		name     string
		code     []byte
		selector uint64
		user     bool
		vector   int // 256: the target
		want     uint64
	}{
		{"JMP", jmp, selCode, false, 256, 0},
		{"JMP, conforming", jmp, selConform, false, 256, 0},
		{"JMP through a gate", jmp, selGate, false, 256, 0},
		{"JMP to more privileged code", jmp, selCode, true, x86.GP, selCode},
		{"JMP through a gate to more privileged code", jmp, selGate, true, x86.GP, selCode},
		{"JMP to data", jmp, selData, false, x86.GP, selData},
		{"JMP to null", jmp, 3, false, x86.GP, 0},
		{"JMP to a TSS", jmp, selTSS, false, x86.GP, selTSS},
		{"CALL", call, selCode, false, 256, testStack - 16},
		{"CALL through a gate", call, selGate, false, 256, testStack - 16},
		{"CALL through a gate to more privileged code", call, selGate, true, 256, sysRSP0 - 32},
		{"CALL to less privileged code", call, selUserCode &^ 3, false, x86.GP, selUserCode &^ 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newSystem(t, test.code)
			g.put64(pointer, to)
			g.put64(pointer+8, test.selector)
			c := &g.start.CPUs[0]
			if test.user {
				c = g.user()
			}
			c.RIP, c.GPR[x86.RSP] = testCode, testStack
			o := g.finish()
			if o.vector != test.vector || o.err != nil {
				t.Fatal(o)
			}
			if test.vector != 256 {
				if o.code != test.want {
					t.Errorf("code %#x", o.code)
				}
				return
			}
			if test.want == 0 {
				return
			}
			sp := g.cpu.r[x86.RSP]
			cs := uint64(selCode)
			if test.user {
				cs = selUserCode
				if g.get64(sp+16) != testStack || g.get64(sp+24) != selUserData || g.cpu.seg[x86.SS].Selector != 0 {
					t.Errorf("saved stack %#x:%#x", g.get64(sp+24), g.get64(sp+16))
				}
			}
			if sp != test.want || g.get64(sp) != testCode+uint64(len(test.code)) || g.get64(sp+8) != cs || g.cpu.cpl != 0 {
				t.Errorf("RSP %#x, saved %#x:%#x, CPL %d", sp, g.get64(sp+8), g.get64(sp), g.cpu.cpl)
			}
		})
	}
}

// TestRetFar returns to the same and to less privileged code, and drops
// parameters from both stacks.
func TestRetFar(t *testing.T) {
	g := newSystem(t, []byte{0x48, 0xca, 8, 0}) // retfq 8
	g.frame(testCode+0x100, selCode, 0x11)
	g.set()
	g.run(1)
	if p := g.cpu; p.r[slotRIP] != testCode+0x100 || p.r[x86.RSP] != testStack+24 || p.cpl != 0 {
		t.Errorf("same privilege: RIP %#x, RSP %#x, CPL %d", p.r[slotRIP], p.r[x86.RSP], p.cpl)
	}
	g.frame(testCode+0x100, selUserCode, 0x11, 0x1230, selUserData)
	g.set()
	g.run(1)
	if p := g.cpu; p.r[slotRIP] != testCode+0x100 || p.r[x86.RSP] != 0x1238 || p.cpl != 3 || p.seg[x86.SS].Selector != selUserData {
		t.Errorf("to the user: RIP %#x, RSP %#x, CPL %d", p.r[slotRIP], p.r[x86.RSP], p.cpl)
	}
	g.frame(testCode+0x100, selUserCode, 0x11, 0x1230, selData)
	if o := g.finish(); o.vector != x86.GP || o.code != selData {
		t.Errorf("to a stack of the kernel: %v", o)
	}
}

// TestStackWidths: PUSH and POP in segments of 16 and 32 bits.
func TestStackWidths(t *testing.T) {
	for _, test := range []struct {
		cs, ss    uint16
		sp, after uint64
		at        uint64
	}{
		{selCode32, selData, 0x8_0000, 0x7_fffc, 0x7_fffc},
		{selCode32, selData16, 0x1_1234_0000, 0x1_1234_fffc, testData + 0xfffc},
		{selCode16, selData16, 0x8000, 0x7ffe, testData + 0x7ffe},
	} {
		g := newSystem(t)
		c := &g.start.CPUs[0]
		for n, s := range map[int]uint16{x86.CS: test.cs, x86.SS: test.ss} {
			c.Seg[n] = descriptor(sysDescriptors[s]).segment(s)
		}
		c.GPR[x86.RSP] = test.sp
		g.set()
		p := g.cpu
		size := uint8(4)
		if test.cs == selCode16 {
			size = 2
		}
		p.push(0x1234_5678, size)
		if p.r[x86.RSP] != test.after || g.get64(test.at)&sizeMask(size) != 0x1234_5678&sizeMask(size) {
			t.Errorf("%#x: RSP is %#x after a push, %#x there", test.ss, p.r[x86.RSP], g.get64(test.at))
		}
		if v := p.pop(size); v != 0x1234_5678&sizeMask(size) || p.r[x86.RSP] != test.sp {
			t.Errorf("%#x: popped %#x, RSP %#x", test.ss, v, p.r[x86.RSP])
		}
	}
}

// TestModes goes the way of a PC: from real mode at a start-up IPI's page through
// protected mode to 64-bit mode, and by way of compatibility mode back.
func TestModes(t *testing.T) {
	const page = 0x9000 // where the IPI says
	g := newSystem(t)
	const gdtr, far32 = page + 0x100, page + 0x110
	g.write(gdtr, []byte{0xff, 0, 0, 0, testGDT >> 16, 0})
	real16 := []byte{
		0x8c, 0xc8, // mov ax, cs
		0x8e, 0xd8, // mov ds, ax
		0xa3, 0x80, 0x02, // mov [0x280], ax
		0x0f, 0x01, 0x16, 0x00, 0x01, // lgdt [0x100]
		0x0f, 0x20, 0xc0, // mov eax, cr0
		0x0c, 0x01, // or al, 1
		0x0f, 0x22, 0xc0, // mov cr0, eax
		0x66, 0xea, far32 & 0xff, far32 >> 8, 0, 0, selCode32, 0, // jmp far
	}
	g.write(page, real16)
	prot32 := []byte{
		0xb8, selData, 0, 0, 0, 0x8e, 0xd0, 0x8e, 0xd8, // mov eax, data; mov ss, eax; mov ds, eax
		0xeb, 0x30, // jmp on: there is a GDTR between
	}
	g.write(far32, prot32)
	on := uint64(far32 + len(prot32) + 0x30)
	g.write(on, []byte{
		0xbc, 0, 0, 8, 0, // mov esp, 0x80000
		0x6a, 0x5a, // push 0x5a
		0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0, // cr4 |= PAE
		0xb8, 0, 0, testTables >> 16, 0, 0x0f, 0x22, 0xd8, // cr3
		0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32, 0x0d, 0, 1, 0, 0, 0x0f, 0x30, // efer |= LME
		0x0f, 0x20, 0xc0, 0x0d, 0, 0, 0, 0x80, 0x0f, 0x22, 0xc0, // cr0 |= PG
		0xea, 0x00, 0x94, 0, 0, selCode, 0, // jmp to 0x9400
	})
	g.write(0x9400, []byte{
		0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, // mov rax, imm64
		0x5b,                                           // pop rbx (8 bytes)
		0x48, 0x8d, 0x0c, 0x25, 0x00, 0x95, 0x00, 0x00, // lea rcx, [0x9500]
		0x6a, selCode32, 0x51, 0x48, 0xcb, // push cs32; push rcx; retfq
	})
	g.write(0x9500, []byte{
		0x48,                                   // dec eax: a REX prefix in 64-bit mode
		0x0f, 0x20, 0xc2, 0x0f, 0xba, 0xf2, 31, // mov edx, cr0; btr edx, 31
		0x0f, 0x22, 0xc2, // mov cr0, edx
		0xf4,
	})
	c := &g.start.CPUs[0]
	apic := c.LAPIC
	*c = x86.Reset(0)
	c.LAPIC = apic
	c.Activity = x86.WaitSIPI
	g.set()
	g.cpu.SIPI(page >> 12)
	g.run(1000)
	p := g.cpu
	if g.engine.err != nil || p.activity != x86.Halted || p.r[slotRIP] != 0x9500+12 {
		t.Fatalf("activity %d, RIP %#x, error %v", p.activity, p.r[slotRIP], g.engine.err)
	}
	if v := g.get64(page+0x280) & 0xffff; v != page>>4 {
		t.Errorf("CS was %#x in real mode", v)
	}
	if p.r[x86.RAX] != 0x0403_0201-1 || p.r[x86.RBX]&0xffff_ffff != 0x5a {
		t.Errorf("RAX %#x, RBX %#x", p.r[x86.RAX], p.r[x86.RBX])
	}
	if p.efer&(x86.EFERLMA|x86.EFERLME) != x86.EFERLME || p.cr0&(x86.CR0PG|x86.CR0PE) != x86.CR0PE || p.mode&(mode64|mode32) != mode32 {
		t.Errorf("CR0 %#x, EFER %#x, mode %#x", p.cr0, p.efer, p.mode)
	}
}

// TestProtectedDelivery: 32-bit gates, to the same and to a more privileged
// level, and the way back.
func TestProtectedDelivery(t *testing.T) {
	for _, user := range []bool{false, true} {
		g := newSystem(t, []byte{0xcd, 0x45, 0xeb, 0xfe})
		g.put64(testIDT+8*0x45, gate64(sysHandlers, selCode32, sysTrap, 3, 0))
		g.write(sysHandlers, []byte{0xcf}) // iret
		g.put64(sysTSSAt+4, sysRSP0|selData<<32)
		c := &g.start.CPUs[0]
		c.CR0 &^= x86.CR0PG
		c.EFER = 0
		cs, ss := uint16(selCode32), uint16(selData)
		if user {
			cs, ss = selUser32, selUserData
		}
		for n := range c.Seg {
			s := ss
			if n == x86.CS {
				s = cs
			}
			c.Seg[n] = descriptor(sysDescriptors[s&^3]).segment(s)
		}
		c.RFLAGS = x86.FlagReserved | x86.FlagIF
		g.set()
		g.run(1)
		p := g.cpu
		stack, words := uint64(testStack), []uint64{testCode + 2, uint64(cs), c.RFLAGS}
		if user {
			stack, words = sysRSP0, append(words, testStack, uint64(ss))
		}
		if p.r[slotRIP] != sysHandlers || p.cpl != 0 || p.r[x86.RSP] != stack-4*uint64(len(words)) {
			t.Fatalf("user %v: RIP %#x, RSP %#x, CPL %d, error %v", user, p.r[slotRIP], p.r[x86.RSP], p.cpl, g.engine.err)
		}
		for i, w := range words {
			if v := g.get64(p.r[x86.RSP]+4*uint64(i)) & 0xffff_ffff; v != w {
				t.Errorf("user %v: word %d is %#x, want %#x", user, i, v, w)
			}
		}
		g.run(1)
		if p.r[slotRIP] != testCode+2 || p.r[x86.RSP] != testStack || p.seg[x86.CS].Selector != cs || p.seg[x86.SS].Selector != ss ||
			p.rflags() != c.RFLAGS || (p.cpl == 3) != user {
			t.Errorf("user %v: back at RIP %#x, RSP %#x, CS %+v", user, p.r[slotRIP], p.r[x86.RSP], p.seg[x86.CS])
		}
	}
}

// TestRealMode: an interrupt through the vector table and back, and the limit.
func TestRealMode(t *testing.T) {
	g := newSystem(t, []byte{0xcd, 0x21, 0x67, 0x8a, 0x1d, 0, 0, 1, 0}) // int 0x21; mov bl, [0x10000]
	g.write(0x21*4, []byte{0x00, 0x02, 0x00, testCode >> 12})
	g.write(13*4, []byte{0x00, 0x03, 0x00, testCode >> 12})
	g.write(testCode+0x200, []byte{0xcf})
	g.write(testCode+0x300, hlt)
	c := &g.start.CPUs[0]
	apic := c.LAPIC
	*c = x86.Reset(0)
	c.LAPIC = apic
	c.Seg[x86.CS].Selector, c.Seg[x86.CS].Base, c.RIP = testCode>>4, testCode, 0
	c.Seg[x86.SS].Selector, c.Seg[x86.SS].Base = testData>>4, testData
	c.GPR[x86.RSP] = 0x8000
	c.RFLAGS |= x86.FlagIF
	c.IDT = x86.Table{Limit: 0x3ff}
	g.set()
	g.run(1)
	p := g.cpu
	if p.r[slotRIP] != 0x200 || p.r[x86.RSP] != 0x8000-6 || g.get64(testData+0x8000-6)&0xffff_ffff_ffff != x86.FlagIF<<32|x86.FlagReserved<<32|testCode>>4<<16|2 ||
		p.flags&x86.FlagIF != 0 {
		t.Errorf("RIP %#x, SP %#x, frame %#x", p.r[slotRIP], p.r[x86.RSP], g.get64(testData+0x8000-6))
	}
	g.run(1)
	if p.r[slotRIP] != 2 || p.r[x86.RSP] != 0x8000 || p.flags&x86.FlagIF == 0 {
		t.Errorf("back at %#x, SP %#x", p.r[slotRIP], p.r[x86.RSP])
	}
	g.run(1)
	if p.r[slotRIP] != 0x300 || g.get64(p.r[x86.RSP]+testData)&0xffff != 2 {
		t.Errorf("beyond the limit: RIP %#x", p.r[slotRIP])
	}
}

// legacy puts the CPU into protected mode without paging, with the segments of
// selectors cs and ss.
func (g *guest) legacy(cs, ss uint16) *x86.CPU {
	c := &g.start.CPUs[0]
	c.CR0 &^= x86.CR0PG
	c.EFER = 0
	for n := range c.Seg {
		s := ss
		if n == x86.CS {
			s = cs
		}
		c.Seg[n] = descriptor(sysDescriptors[s&^3]).segment(s)
	}
	return c
}

// TestLegacyInstructions: those that 64-bit code doesn't have.
func TestLegacyInstructions(t *testing.T) {
	type registers map[int]uint64
	for _, test := range []struct {
		name   string
		code   []byte
		before registers
		after  registers
		vector int
		rsp    uint64
	}{
		{name: "PUSH and POP of segments", code: []byte{0x1e, 0x07, 0x8c, 0xc0, 0x16, 0x5b, 0xf4}, // push ds; pop es; mov eax, es; push ss; pop ebx
			before: registers{x86.RAX: ^uint64(0) >> 32}, after: registers{x86.RAX: selData, x86.RBX: selData}, vector: -1, rsp: testStack},
		{name: "LES", code: []byte{0xc4, 0x01, 0x8c, 0xc2, 0xf4}, before: registers{x86.RCX: testData}, // les eax, [ecx]
			after: registers{x86.RAX: 0x1234_5678, x86.RDX: selReadOnly}, vector: -1, rsp: testStack},
		{name: "LSS", code: []byte{0x0f, 0xb2, 0x21, 0xf4}, before: registers{x86.RCX: testData}, // lss esp, [ecx]: read-only
			vector: x86.GP, rsp: testStack - 16},
		{name: "CALL far and back", code: []byte{0x9a, 8, 0, testCode >> 16, 0, selCode32, 0, 0xf4, 0xcb}, vector: -1, rsp: testStack},
		{name: "CALL far to data", code: []byte{0x9a, 8, 0, testCode >> 16, 0, selData, 0}, vector: x86.GP, rsp: testStack - 16},
		{name: "JMP far to a 16-bit segment", code: []byte{0xea, 8, 0, 0, 0, selCode16, 0, 0xcc, 0xb8, 0x34, 0x12, 0xf4},
			before: registers{x86.RAX: 0x5555_5555}, after: registers{x86.RAX: 0x5555_1234}, vector: -1, rsp: testStack},
		{name: "ARPL", code: []byte{0x63, 0xc8, 0x0f, 0x94, 0xc3, 0x63, 0xca, 0x0f, 0x94, 0xc7, 0xf4}, // arpl ax, cx; setz bl; arpl dx, cx; setz bh
			before: registers{x86.RAX: 0x10, x86.RCX: 2, x86.RDX: 0x13, x86.RBX: 0}, after: registers{x86.RAX: 0x12, x86.RDX: 0x13, x86.RBX: 1},
			vector: -1, rsp: testStack},
		{name: "BOUND, inside", code: []byte{0x62, 0x01, 0xf4}, before: registers{x86.RCX: testData + 16, x86.RAX: 0xffff_fffe}, vector: -1, rsp: testStack},
		{name: "BOUND, outside", code: []byte{0x62, 0x01, 0xf4}, before: registers{x86.RCX: testData + 16, x86.RAX: 6}, vector: x86.BR, rsp: testStack - 12},
		{name: "INTO", code: []byte{0xce, 0xb0, 0x7f, 0x04, 1, 0xce, 0xf4}, vector: x86.OF, rsp: testStack - 12}, // into; mov al, 127; add al, 1; into
		{name: "LMSW and SMSW", code: []byte{0x0f, 0x01, 0xf0, 0x0f, 0x01, 0xe3, 0xf4}, before: registers{x86.RAX: 0xfff8}, // lmsw ax; smsw ebx
			after: registers{x86.RBX: x86.CR0PE | x86.CR0TS | x86.CR0ET | x86.CR0NE | x86.CR0WP}, vector: -1, rsp: testStack},
		{name: "CLFLUSH behind the limit", code: []byte{0x2e, 0x0f, 0xae, 0x39}, before: registers{x86.RCX: testData}, vector: -1, rsp: testStack},
		{name: "SYSENTER off", code: []byte{0x0f, 0x34}, vector: x86.GP, rsp: testStack - 16},
		{name: "null segment", code: []byte{0x8e, 0xd8, 0x8a, 0x01}, before: registers{x86.RAX: 0, x86.RCX: testData}, vector: x86.GP, rsp: testStack - 16},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newSystem(t, test.code, hlt)
			for v := range uint64(32) {
				g.put64(testIDT+8*v, gate64(sysHandlers+16*v, selCode32, sysInterrupt, 0, 0))
			}
			g.put64(testData, selReadOnly<<32|0x1234_5678)
			g.put64(testData+16, 5<<32|0xffff_fffe) // -2 to 5
			c := g.legacy(selCode32, selData)
			for n, v := range test.before {
				c.GPR[n] = v
			}
			if o := g.finish(); o.vector != test.vector || o.err != nil {
				t.Fatal(o)
			}
			for n, v := range test.after {
				if g.cpu.r[n] != v {
					t.Errorf("%s is %#x, want %#x", x86.GPRNames[n], g.cpu.r[n], v)
				}
			}
			if g.cpu.r[x86.RSP] != test.rsp {
				t.Errorf("RSP is %#x, want %#x", g.cpu.r[x86.RSP], test.rsp)
			}
		})
	}
}

// TestLegacyCallGate: a call from CPL 3 with two parameters, and the far return
// that drops them from both stacks.
func TestLegacyCallGate(t *testing.T) {
	g := newSystem(t, []byte{0x9a, 0, 0, 0, 0, selGate, 0, 0xeb, 0xfe})
	g.put64(testGDT+selGate, gate64(sysGateTo, selCode32, sysCall, 3, 2))
	g.write(sysGateTo, []byte{0xca, 8, 0}) // retf 8
	g.put64(sysTSSAt+4, sysRSP0|selData<<32)
	g.put64(testStack, 0x2222<<32|0x1111)
	g.legacy(selUser32, selUserData)
	g.set()
	g.run(1)
	p := g.cpu
	if p.r[slotRIP] != sysGateTo || p.cpl != 0 || p.r[x86.RSP] != sysRSP0-24 || p.seg[x86.SS].Selector != selData {
		t.Fatalf("RIP %#x, CPL %d, RSP %#x, error %v", p.r[slotRIP], p.cpl, p.r[x86.RSP], g.engine.err)
	}
	for i, w := range []uint64{testCode + 7, selUser32, 0x1111, 0x2222, testStack, selUserData} {
		if v := g.get64(p.r[x86.RSP]+4*uint64(i)) & 0xffff_ffff; v != w {
			t.Errorf("word %d is %#x, want %#x", i, v, w)
		}
	}
	g.run(1)
	if p.r[slotRIP] != testCode+7 || p.cpl != 3 || p.r[x86.RSP] != testStack+8 || p.seg[x86.SS].Selector != selUserData {
		t.Errorf("back at %#x, CPL %d, RSP %#x", p.r[slotRIP], p.cpl, p.r[x86.RSP])
	}
}

// TestTaskSwitches end the run with an error that says so.
func TestTaskSwitches(t *testing.T) {
	const gate = 0x0000_8500_0000_0000 | selTSS<<16
	for name, code := range map[string][]byte{
		"interrupt": {0xcd, 0x45}, "far jump": {0xea, 0, 0, 0, 0, selGate, 0}, "far call to a TSS": {0x9a, 0, 0, 0, 0, selTSS, 0},
	} {
		g := newSystem(t, code)
		g.put64(testIDT+8*0x45, gate)
		g.put64(testGDT+selGate, gate)
		g.legacy(selCode32, selData)
		if o := g.finish(); !errors.Is(o.err, ErrLacks) {
			t.Errorf("%s: %v", name, o)
		}
	}
}
