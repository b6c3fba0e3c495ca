package soft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"fifovm/vmm/x86"
)

// debugged is a program that sets its own breakpoint registers, touches data and
// comes to an instruction; its handler of #DB counts in r15, keeps DR6 in r14 and
// RIP in r13, and returns with RF set.
func debugged(t *testing.T, dr7 uint32, address uint64) *guest {
	const handler = testCode + 0x200
	g := newGuest(t, 1,
		[]byte{0x48, 0xb8}, binary.LittleEndian.AppendUint64(nil, address), // mov rax, address
		[]byte{0x0f, 0x23, 0xc0},                                 // mov dr0, rax
		[]byte{0xb8}, binary.LittleEndian.AppendUint32(nil, dr7), // mov eax, dr7
		[]byte{0x0f, 0x23, 0xf8},    //       0x12 mov dr7, rax
		[]byte{0x48, 0x89, 0x03},    //       0x15 mov [rbx], rax
		[]byte{0x90},                //       0x18 nop
		[]byte{0x48, 0x8b, 0x0b},    //       0x19 mov rcx, [rbx]
		[]byte{0x90},                //       0x1c nop
		[]byte{0x48, 0x89, 0x43, 8}, //    0x1d mov [rbx+8], rax
		hlt)                         //                            0x21
	g.write(handler, bytes.Join([][]byte{
		{0x49, 0xff, 0xc7},       // inc r15
		{0x0f, 0x21, 0xf0},       // mov rax, dr6
		{0x49, 0x89, 0xc6},       // mov r14, rax
		{0x4c, 0x8b, 0x2c, 0x24}, // mov r13, [rsp]
		{0x81, 0x4c, 0x24, 0x10}, // or dword [rsp+16], RF
		binary.LittleEndian.AppendUint32(nil, x86.FlagRF),
		{0x48, 0xcf}, // iretq
	}, nil))
	gate := make([]byte, 16)
	binary.LittleEndian.PutUint16(gate, handler&0xffff)
	binary.LittleEndian.PutUint16(gate[2:], x86.SelectorCode)
	gate[5] = 0x8e
	binary.LittleEndian.PutUint16(gate[6:], handler>>16)
	g.write(testIDT+16*x86.DB, gate)
	g.start.CPUs[0].GPR[x86.RBX] = testData
	g.set()
	return g
}

// TestGuestBreakpoints: a guest's own debug registers work (SDM volume 3, 17.2.4).
func TestGuestBreakpoints(t *testing.T) {
	for _, test := range []struct {
		name    string
		dr7     uint32
		address uint64
		count   uint64
		rip     uint64 // of the last, from the start of the code
	}{
		{"nothing", 0, testData, 0, 0},
		{"writes", 1 | drWrite<<16 | 2<<18, testData, 1, 0x18},
		{"accesses", 1 | drAccess<<16 | 2<<18, testData, 2, 0x1c},
		{"accesses, by the other enable bit", 2 | drAccess<<16, testData + 7, 2, 0x1c},
		{"the last of a block", 1 | drWrite<<16 | 3<<18, testData + 8, 1, 0x21},
		{"execution", 1, testCode + 0x18, 1, 0x18},
		{"execution of the last", 1, testCode + 0x21, 1, 0x21},
		{"of another register's enable bit", 4, testCode + 0x18, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := debugged(t, test.dr7, test.address)
			g.run(1000)
			r := &g.cpu.r
			if g.engine.err != nil || g.cpu.activity != x86.Halted || r[x86.R15] != test.count {
				t.Errorf("%d traps, want %d; %v", r[x86.R15], test.count, g.engine.err)
			}
			if test.count > 0 && (r[x86.R14]&0xf != 1 || r[x86.R13] != testCode+test.rip) {
				t.Errorf("DR6 %#x, RIP %#x, want %#x", r[x86.R14], r[x86.R13]-testCode, test.rip)
			}
		})
	}
}

// TestWatchedPage: a page that is watched, but not where it is touched, changes
// nothing in a run, nor does a breakpoint that is never met.
func TestWatchedPage(t *testing.T) {
	code := bytes.Join([][]byte{
		loop[:len(loop)-1],
		{0xfc, 0x48, 0x89, 0xdf},                   // cld; mov rdi, rbx
		{0x48, 0x8d, 0xb3, 0, 4, 0, 0},             // lea rsi, [rbx+0x400]
		{0xb9, 0, 3, 0, 0, 0xf3, 0xa4},             // mov ecx, 0x300; rep movsb
		{0xb9, 0x50, 0, 0, 0, 0xf3, 0x48, 0xab},    // mov ecx, 0x50; rep stosq
		{0x0f, 0x10, 0x03, 0x0f, 0x11, 0x43, 0x10}, // movups xmm0, [rbx]; movups [rbx+16], xmm0
		{0xf0, 0x0f, 0xc1, 0x0b, 0x50, 0x58},       // lock xadd [rbx], ecx; push rax; pop rax
		hlt,
	}, nil)
	run := func(d *x86.Debug) string {
		g := newGuest(t, 1, code)
		g.start.CPUs[0].GPR[x86.RBX], g.start.CPUs[0].GPR[x86.RCX] = testData, 100
		g.start.CPUs[0].GPR[x86.RSP] = testData + 0x800
		g.set()
		if err := g.engine.SetDebug(d); err != nil {
			t.Fatal(err)
		}
		g.run(10_000)
		if g.engine.err != nil || g.engine.debug.trap != nil || g.cpu.activity != x86.Halted {
			t.Errorf("%v, %v", g.engine.err, g.engine.debug.trap)
		}
		b := make([]byte, pageSize)
		if err := g.ram.Read(testData, b); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(g.state(), g.engine.cfg.Time.Now(), b)
	}
	want := run(nil)
	got := run(&x86.Debug{Watchpoints: []x86.Watchpoint{{Address: testData + 0xff0, Size: 8, Kind: x86.WatchAccess}},
		Breakpoints: []uint64{testCode + 1, testCode + 3<<pageShift}})
	if got != want {
		t.Errorf("with a watched page the run ends in\n%s, without in\n%s", got, want)
	}
}

// TestWatchedInvlpg: INVLPG drops the translation of a watched page as well.
func TestWatchedInvlpg(t *testing.T) {
	g := newGuest(t, 1,
		[]byte{0x8b, 0x03, 0x89, 0x43, 8, 0xeb, 0}, // mov eax, [rbx]; mov [rbx+8], eax; jmp
		[]byte{0x0f, 0x01, 0x3b},                   // invlpg [rbx]
		hlt)
	g.start.CPUs[0].GPR[x86.RBX] = testData
	g.set()
	if err := g.engine.SetDebug(&x86.Debug{Watchpoints: []x86.Watchpoint{{Address: testData + 0x100, Size: 1, Kind: x86.WatchAccess}}}); err != nil {
		t.Fatal(err)
	}
	pair := &g.cpu.tlbs[tlbSupervisor]
	g.run(2)
	for _, tlb := range []*tlb{&pair.rd, &pair.wr} {
		if tlb.watchedPage(testData, 1) == nil {
			t.Error("the page is not in the TLB: the test has no point")
		}
		tlb.entry[testData>>pageShift%tlbEntries].flags, tlb.large = 0, false // as of a small page
	}
	g.run(10)
	for _, tlb := range []*tlb{&pair.rd, &pair.wr} {
		if tlb.watchedPage(testData, 1) != nil {
			t.Error("the page is still in the TLB")
		}
	}
}
