package soft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"fifovm/vmm/x86"
)

// The selectors of the tests of the system's side, and where their things are.
const (
	selCode     = x86.SelectorCode // 64-bit, DPL 0
	selData     = x86.SelectorData
	selUserData = x86.SelectorUserData
	selUserCode = x86.SelectorUserCode // 64-bit, DPL 3
	selUser32   = 0x30 | 3
	selCode32   = 0x38
	selTSS      = 0x40 // of 64 bits: 16 bytes
	selAbsent   = 0x50 // data that is not present
	selLDT      = 0x58 // 16 bytes
	selReadOnly = 0x68
	selConform  = 0x70 // 64-bit, DPL 0
	selGate     = 0x78 // a call gate to selCode, DPL 3: 16 bytes
	selCode16   = 0x88
	selData16   = 0x90

	sysTSSAt    = 0x2_4000
	sysIST      = 0x9_0000
	sysRSP0     = 0xa_0000
	sysHandlers = 0x4_0000 // of vector n at 16*n: HLT
	sysGateTo   = sysHandlers + 0x3000
)

// sysDescriptors are those of the tests' GDT from selector 0x10 on.
var sysDescriptors = map[uint16]uint64{
	selCode:          0x00af_9b00_0000_ffff,
	selData:          0x00cf_9300_0000_ffff,
	selUserData &^ 3: 0x00cf_f300_0000_ffff,
	selUserCode &^ 3: 0x00af_fb00_0000_ffff,
	selUser32 &^ 3:   0x00cf_fb00_0000_ffff,
	selCode32:        0x00cf_9b00_0000_ffff,
	selTSS:           0x0000_8900_0000_1067 | sysTSSAt<<16,
	selAbsent:        0x00cf_1300_0000_ffff,
	selLDT:           0x0000_8200_0000_000f | testData<<16&0xff_ffff_0000,
	selReadOnly:      0x00cf_9100_0000_ffff,
	selConform:       0x00af_9f00_0000_ffff,
	selGate:          0x0000_ec00_0000_0000 | sysGateTo&0xffff | selCode<<16 | sysGateTo>>16<<48,
	selCode16:        0x0000_9b00_0000_ffff | testCode<<16&0xff_ffff_0000,
	selData16:        0x0000_9300_0000_ffff | testData<<16&0xff_ffff_0000,
}

// newSystem gives a guest with descriptor tables, a TSS and a handler for each
// vector, which halts. LongMode's segments are those of its GDT.
func newSystem(t testing.TB, code ...[]byte) *guest {
	g := newGuest(t, 1, code...)
	for selector, d := range sysDescriptors {
		g.put64(testGDT+uint64(selector), d)
	}
	for v := range uint64(256) {
		g.put64(testIDT+16*v, gate64(sysHandlers+16*v, selCode, sysInterrupt, 0, 0))
		g.write(sysHandlers+16*v, hlt)
	}
	g.write(sysGateTo, hlt)
	g.put64(sysTSSAt+4, sysRSP0)
	g.put64(sysTSSAt+0x24, sysIST)
	g.write(sysTSSAt+0x66, []byte{0x68, 0})
	for i := range 0x1000 {
		g.write(sysTSSAt+0x68+uint64(i), []byte{0xff})
	}
	c := &g.start.CPUs[0]
	c.GDT.Limit = 0xff
	c.TR = x86.Segment{Selector: selTSS, Base: sysTSSAt, Limit: 0x1067, Type: x86.TypeBusyTSS, P: 1}
	g.set()
	return g
}

// gate64 is the low half of a gate to an address below 4 GiB.
func gate64(to uint64, selector uint16, kind, dpl, ist uint64) uint64 {
	return to&0xffff | uint64(selector)<<16 | ist<<32 | kind<<40 | dpl<<45 | 1<<47 | to>>16<<48
}

func (g *guest) put64(at, v uint64) { g.write(at, binary.LittleEndian.AppendUint64(nil, v)) }

func (g *guest) get64(at uint64) uint64 {
	g.Helper()
	b := make([]byte, 8)
	if err := g.ram.Read(at, b); err != nil {
		g.Fatal(err)
	}
	return binary.LittleEndian.Uint64(b)
}

// user has the program run at CPL 3.
func (g *guest) user() *x86.CPU {
	c := &g.start.CPUs[0]
	tables := [...]x86.Table{c.GDT, c.IDT}
	tr := c.TR
	c.LongMode(testTables, 3)
	c.GDT, c.IDT, c.TR = tables[0], tables[1], tr
	return c
}

// outcome is what came of a program: where it halted, or what stuck it.
type outcome struct {
	vector int    // of the handler that it ended in; -1 for the program's own HLT
	code   uint64 // the word at the stack's top
	err    error
}

func (o outcome) String() string {
	return fmt.Sprintf("vector %d, code %#x, error %v", o.vector, o.code, o.err)
}

// finish runs the program to its end.
func (g *guest) finish() outcome {
	g.Helper()
	g.set()
	g.run(10_000)
	if g.engine.err != nil {
		return outcome{-1, 0, g.engine.err}
	}
	c := g.cpu
	if c.activity != x86.Halted {
		g.Fatalf("the program did not halt: RIP %#x", c.r[slotRIP])
	}
	rip := c.r[slotRIP] + c.r[slotCS] - 1
	if rip >= sysHandlers && rip < sysHandlers+0x1000 {
		return outcome{int(rip-sysHandlers) / 16, g.get64(c.r[x86.RSP] &^ 7), nil}
	}
	if rip == sysGateTo {
		return outcome{256, 0, nil}
	}
	return outcome{-1, 0, nil}
}

// TestFrame looks at the frame of exceptions, interrupts and INT: what is saved,
// on which stack, with which flags.
func TestFrame(t *testing.T) {
	const flags = x86.FlagReserved | x86.FlagIF | x86.FlagCF | x86.FlagAC
	for _, test := range []struct {
		name    string
		program []byte
		user    bool
		ist     uint64
		trap    bool
		vector  int
		hasCode bool
		code    uint64
		rip     uint64 // saved, behind testCode
		rf      bool
	}{
		{name: "UD", program: []byte{0x0f, 0x0b}, vector: x86.UD, rf: true},
		{name: "UD, user", program: []byte{0x90, 0x0f, 0x0b}, user: true, vector: x86.UD, rip: 1, rf: true},
		{name: "UD, IST", program: []byte{0x0f, 0x0b}, ist: 1, vector: x86.UD, rf: true},
		{name: "UD, user, IST, trap gate", program: []byte{0x0f, 0x0b}, user: true, ist: 1, trap: true, vector: x86.UD, rf: true},
		{name: "GP", program: []byte{0x90, 0x90, 0xb8, 0x33, 0x01, 0, 0, 0x8e, 0xd8}, vector: x86.GP, hasCode: true, code: 0x130, rip: 7, rf: true},
		{name: "INT3", program: []byte{0xcc}, vector: x86.BP, rip: 1},
		{name: "INT n", program: []byte{0xcd, 0x45}, vector: 0x45, rip: 2},
		{name: "INT1", program: []byte{0xf1}, vector: x86.DB, rip: 1},
		{name: "INT1, user", program: []byte{0xf1}, user: true, vector: x86.DB, rip: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newSystem(t, test.program)
			kind := uint64(sysInterrupt)
			if test.trap {
				kind = sysTrap
			}
			g.put64(testIDT+16*uint64(test.vector), gate64(sysHandlers+16*uint64(test.vector), selCode, kind, 0, test.ist))
			c := &g.start.CPUs[0]
			cs, ss := uint64(selCode), uint64(selData)
			stack := uint64(testStack-4) &^ 15
			if test.user {
				c = g.user()
				c.RIP = testCode
				cs, ss = selUserCode, selUserData
				stack = sysRSP0
			}
			if test.ist != 0 {
				stack = sysIST
			}
			c.GPR[x86.RSP] = testStack - 4 // not aligned
			c.RFLAGS = flags
			if o := g.finish(); o.vector != test.vector || o.err != nil {
				t.Fatal(o)
			}
			wantFlags := uint64(flags)
			if test.rf {
				wantFlags |= x86.FlagRF
			}
			want := []uint64{testCode + test.rip, cs, wantFlags, testStack - 4, ss}
			if test.hasCode {
				want = append([]uint64{test.code}, want...)
			}
			sp := g.cpu.r[x86.RSP]
			if sp != stack-8*uint64(len(want)) {
				t.Errorf("RSP is %#x, want %#x", sp, stack-8*uint64(len(want)))
			}
			for i, w := range want {
				if v := g.get64(sp + 8*uint64(i)); v != w {
					t.Errorf("word %d of the frame is %#x, want %#x", i, v, w)
				}
			}
			after := uint64(flags) &^ x86.FlagIF
			if test.trap {
				after |= x86.FlagIF
			}
			if f := g.cpu.rflags(); f != after {
				t.Errorf("the handler has RFLAGS %#x, want %#x", f, after)
			}
			wantSS := uint16(selData)
			if test.user {
				wantSS = 0
			}
			if s := &g.cpu.seg[x86.SS]; s.Selector != wantSS || g.cpu.cpl != 0 || s.DPL != 0 {
				t.Errorf("the handler has SS %+v at CPL %d", s, g.cpu.cpl)
			}
		})
	}
}

// TestInterruptFrame: an external interrupt and an NMI save RIP as it is and no
// RF, and end a HLT.
func TestInterruptFrame(t *testing.T) {
	for _, nmi := range []bool{false, true} {
		g := newSystem(t, []byte{0x90})
		g.set()
		c := g.cpu
		c.activity = x86.Halted
		vector := uint64(0x51)
		if nmi {
			vector = x86.NMI
			c.nmi()
		} else {
			c.interrupt(0x51)
		}
		sp := c.r[x86.RSP]
		if c.r[slotRIP] != sysHandlers+16*vector || g.get64(sp) != testCode || g.get64(sp+16) != x86.FlagReserved || sp != testStack-40 {
			t.Errorf("NMI %v: RIP %#x, RSP %#x, saved %#x, %#x", nmi, c.r[slotRIP], sp, g.get64(sp), g.get64(sp+16))
		}
		if c.activity != x86.Running || c.nmiMasked != nmi {
			t.Errorf("NMI %v: activity %d, masked %v", nmi, c.activity, c.nmiMasked)
		}
	}
}

// TestGates are the ways in which a delivery fails: the exception that comes
// instead, and its error code.
func TestGates(t *testing.T) {
	const n = 0x45
	at := uint64(testIDT + 16*n)
	to := uint64(sysHandlers + 16*n)
	good := gate64(to, selCode, sysInterrupt, 0, 0)
	for _, test := range []struct {
		name   string
		change func(g *guest, c *x86.CPU)
		user   bool
		vector int
		code   uint64
		rip    uint64
	}{
		{name: "none", vector: n, code: testCode + 2},
		{name: "user, DPL 0", user: true, vector: x86.GP, code: n<<3 | 2},
		{name: "user, DPL 3", user: true, vector: n, code: testCode + 2,
			change: func(g *guest, _ *x86.CPU) { g.put64(at, gate64(to, selCode, sysTrap, 3, 0)) }},
		{name: "beyond the limit", vector: x86.GP, code: n<<3 | 2,
			change: func(_ *guest, c *x86.CPU) { c.IDT.Limit = n*16 + 14 }},
		{name: "not present", vector: x86.NP, code: n<<3 | 2,
			change: func(g *guest, _ *x86.CPU) { g.put64(at, good&^(1<<47)) }},
		{name: "a call gate", vector: x86.GP, code: n<<3 | 2,
			change: func(g *guest, _ *x86.CPU) { g.put64(at, gate64(to, selCode, sysCall, 0, 0)) }},
		{name: "null code segment", vector: x86.GP, code: 0,
			change: func(g *guest, _ *x86.CPU) { g.put64(at, gate64(to, 3, sysInterrupt, 0, 0)) }},
		{name: "data segment", vector: x86.GP, code: selData,
			change: func(g *guest, _ *x86.CPU) { g.put64(at, gate64(to, selData, sysInterrupt, 0, 0)) }},
		{name: "32-bit code", vector: x86.GP, code: selCode32,
			change: func(g *guest, _ *x86.CPU) { g.put64(at, gate64(to, selCode32, sysInterrupt, 0, 0)) }},
		{name: "less privileged", vector: x86.GP, code: selUserCode &^ 3,
			change: func(g *guest, _ *x86.CPU) { g.put64(at, gate64(to, selUserCode, sysInterrupt, 0, 0)) }},
		{name: "beyond the GDT", vector: x86.GP, code: 0x100,
			change: func(g *guest, _ *x86.CPU) { g.put64(at, gate64(to, 0x100, sysInterrupt, 0, 0)) }},
		{name: "in no LDT", vector: x86.GP, code: 0x14,
			change: func(g *guest, _ *x86.CPU) { g.put64(at, gate64(to, 0x14, sysInterrupt, 0, 0)) }},
		{name: "not canonical", vector: x86.GP, code: 0,
			change: func(g *guest, _ *x86.CPU) { g.put64(at+8, 0x8000) }},
		{name: "a short TSS", user: true, vector: x86.DF, code: 0,
			change: func(g *guest, c *x86.CPU) {
				g.put64(at, gate64(to, selCode, sysTrap, 3, 0))
				c.TR.Limit = 10
				for _, v := range []uint64{x86.DF} {
					g.put64(testIDT+16*v, gate64(sysHandlers+16*v, selConform, sysInterrupt, 0, 0))
				}
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newSystem(t, []byte{0xcd, n})
			c := &g.start.CPUs[0]
			if test.user {
				c = g.user()
				c.RIP, c.GPR[x86.RSP] = testCode, testStack
			}
			if test.change != nil {
				test.change(g, c)
			}
			if test.name == "a short TSS" {
				// At CPL 3 the handler's HLT would fault without end.
				g.set()
				g.run(1)
				if g.cpu.r[slotRIP] != sysHandlers+16*x86.DF || g.cpu.cpl != 3 {
					t.Errorf("RIP %#x, CPL %d", g.cpu.r[slotRIP], g.cpu.cpl)
				}
				return
			}
			if o := g.finish(); o.vector != test.vector || o.code != test.code || o.err != nil {
				t.Errorf("%v, want vector %d, code %#x", o, test.vector, test.code)
			}
		})
	}
}

// TestDoubleFault is SDM volume 3, table 6-5: a first exception whose gate is not
// usable in a way that raises the second.
func TestDoubleFault(t *testing.T) {
	const hole = 5 << 30 // beyond the page tables
	for _, test := range []struct {
		name   string
		first  fault
		change func(g *guest, at uint64)
		vector int // -1: the CPU shuts down
		code   uint64
		cr2    uint64
	}{
		{name: "benign, then contributory", first: fault{vector: x86.UD}, vector: x86.GP, code: x86.UD<<3 | 3,
			change: func(g *guest, at uint64) { g.put64(at, 0) }},
		{name: "contributory, then contributory", first: fault{vector: x86.NP, hasCode: true}, vector: x86.DF,
			change: func(g *guest, at uint64) { g.put64(at, 0) }},
		{name: "contributory, then page fault", first: fault{vector: x86.NP, hasCode: true}, vector: x86.PF, code: x86.PFWrite, cr2: hole - 8,
			change: func(g *guest, at uint64) {
				g.put64(at, gate64(sysHandlers, selCode, sysInterrupt, 0, 2))
				g.put64(sysTSSAt+0x2c, hole)
			}},
		{name: "page fault, then page fault", first: fault{vector: x86.PF, hasCode: true, cr2: 5}, vector: x86.DF, cr2: hole - 8,
			change: func(g *guest, at uint64) {
				g.put64(at, gate64(sysHandlers, selCode, sysInterrupt, 0, 2))
				g.put64(sysTSSAt+0x2c, hole)
			}},
		{name: "page fault, then contributory", first: fault{vector: x86.PF, hasCode: true, cr2: 5}, vector: x86.DF, cr2: 5,
			change: func(g *guest, at uint64) { g.put64(at, 0) }},
		{name: "double fault, then contributory", first: fault{vector: x86.DF, hasCode: true}, vector: -1,
			change: func(g *guest, at uint64) { g.put64(at, 0) }},
		{name: "double fault, then page fault", first: fault{vector: x86.DF, hasCode: true}, vector: -1, cr2: hole - 8,
			change: func(g *guest, at uint64) {
				g.put64(at, gate64(sysHandlers, selCode, sysInterrupt, 0, 2))
				g.put64(sysTSSAt+0x2c, hole)
			}},
		{name: "contributory twice, no handler at all", first: fault{vector: x86.NP, hasCode: true}, vector: -1,
			change: func(g *guest, at uint64) {
				for v := range uint64(32) {
					g.put64(testIDT+16*v, 0)
				}
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newSystem(t, hlt)
			test.change(g, testIDT+16*uint64(test.first.vector))
			g.set()
			c := g.cpu
			c.deliver(test.first)
			if test.vector < 0 {
				var stuck *x86.Stuck
				if !errors.Is(g.engine.err, x86.ErrTripleFault) || !errors.As(g.engine.err, &stuck) || stuck.Registers.RIP != testCode ||
					c.r[x86.RSP] != testStack {
					t.Errorf("error %v, RIP %#x, RSP %#x", g.engine.err, c.r[slotRIP], c.r[x86.RSP])
				}
			} else if c.r[slotRIP] != sysHandlers+16*uint64(test.vector) || g.get64(c.r[x86.RSP]) != test.code || g.engine.err != nil {
				t.Errorf("RIP %#x, code %#x, error %v", c.r[slotRIP], g.get64(c.r[x86.RSP]), g.engine.err)
			}
			if c.cr2 != test.cr2 {
				t.Errorf("CR2 is %#x, want %#x", c.cr2, test.cr2)
			}
		})
	}
}

// TestHalfAFrame: a frame that would lie half in a page that is not there
// changes nothing, and the fault is that of the first word which does not find
// its place, from the highest down.
func TestHalfAFrame(t *testing.T) {
	const edge = 4 << 30 // the end of the page tables
	const hole = 4 << 20 // the end of one that the test makes
	for _, test := range []struct {
		rsp    uint64
		vector uint64
		cr2    uint64
	}{
		{edge + 16, x86.PF, edge + 8},
		{hole + 16, x86.PF, hole - 8},
		{1<<47 + 16, x86.SSFault, 0},
	} {
		g := newSystem(t, hlt)
		g.put64(testTables+2*pageSize+8, 0)
		g.put64(testIDT+16*x86.UD, gate64(sysHandlers, selCode, sysInterrupt, 0, 2))
		g.put64(sysTSSAt+0x2c, test.rsp)
		g.set()
		c := g.cpu
		c.deliver(fault{vector: x86.UD})
		if c.r[slotRIP] != sysHandlers+16*test.vector || c.r[x86.RSP] != testStack-48 || c.cr2 != test.cr2 {
			t.Errorf("a stack at %#x: RIP %#x, RSP %#x, CR2 %#x", test.rsp, c.r[slotRIP], c.r[x86.RSP], c.cr2)
		}
	}
}

// frame makes the stack's top an IRET frame.
func (g *guest) frame(words ...uint64) {
	for i, w := range words {
		g.put64(testStack+8*uint64(i), w)
	}
}

var iretq = []byte{0x48, 0xcf}

// TestIRET returns with all kinds of frames.
func TestIRET(t *testing.T) {
	const to = testCode + 0x100
	const f = x86.FlagReserved
	for _, test := range []struct {
		name  string
		frame [5]uint64
		flags uint64 // before
		user  bool
		// vector of a fault and its code, or -1, and then what is to be there
		vector int
		code   uint64
		cpl    uint8
		mode   mode
		after  uint64 // flags
		rsp    uint64
	}{
		{name: "same privilege", frame: [5]uint64{to, selCode, f | x86.FlagIF | x86.FlagAC | x86.FlagIOPL, 0x1238, selData}, vector: -1,
			mode: mode64, after: f | x86.FlagIF | x86.FlagAC | x86.FlagIOPL, rsp: 0x1238},
		{name: "null SS", frame: [5]uint64{to, selCode, f, 0x1238, 0}, vector: -1, mode: mode64, after: f, rsp: 0x1238},
		{name: "RF goes", frame: [5]uint64{to, selCode, f | x86.FlagRF | x86.FlagVM, 0x1238, 0}, vector: -1, mode: mode64, after: f, rsp: 0x1238},
		{name: "reserved flags", frame: [5]uint64{to, selCode, ^uint64(0) &^ (x86.FlagNT | x86.FlagTF), 0x1238, selData}, vector: -1, mode: mode64,
			after: 0x3c_3ed7, rsp: 0x1238},
		{name: "to the user", frame: [5]uint64{to, selUserCode, f | x86.FlagIF, 0x1238, selUserData}, vector: -1, cpl: 3, mode: mode64,
			after: f | x86.FlagIF, rsp: 0x1238},
		{name: "to 32-bit code", frame: [5]uint64{to, selUser32, f, 0xffff_ffff_0000_1238, selUserData}, vector: -1, cpl: 3, mode: mode32 | modeStack,
			after: f, rsp: 0x1238},
		{name: "user to user, with IOPL 0", frame: [5]uint64{to, selUserCode, f | x86.FlagIF | x86.FlagIOPL | x86.FlagCF, 0x1238, selUserData},
			user: true, vector: -1, cpl: 3, mode: mode64, after: f | x86.FlagCF, rsp: 0x1238},
		{name: "user to user, with IOPL 3", frame: [5]uint64{to, selUserCode, f | x86.FlagIF, 0x1238, selUserData}, flags: x86.FlagIOPL,
			user: true, vector: -1, cpl: 3, mode: mode64, after: f | x86.FlagIF | x86.FlagIOPL, rsp: 0x1238},
		{name: "NT", frame: [5]uint64{to, selCode, f, 0, selData}, flags: x86.FlagNT, vector: x86.GP},
		{name: "user to kernel", frame: [5]uint64{to, selCode, f, 0, selData}, user: true, vector: x86.GP, code: selCode},
		{name: "null CS", frame: [5]uint64{to, 3, f, 0, selUserData}, vector: x86.GP},
		{name: "data in CS", frame: [5]uint64{to, selData, f, 0, selData}, vector: x86.GP, code: selData},
		{name: "RPL is not DPL", frame: [5]uint64{to, selCode | 3, f, 0, selUserData}, vector: x86.GP, code: selCode},
		{name: "beyond the GDT", frame: [5]uint64{to, 0x100 | 3, f, 0, selUserData}, vector: x86.GP, code: 0x100},
		{name: "null SS for the user", frame: [5]uint64{to, selUserCode, f, 0, 3}, vector: x86.GP},
		{name: "null SS for 32-bit code", frame: [5]uint64{to, selCode32, f, 0, 0}, vector: x86.GP},
		{name: "SS of the kernel", frame: [5]uint64{to, selUserCode, f, 0, selData}, vector: x86.GP, code: selData},
		{name: "SS read-only", frame: [5]uint64{to, selCode, f, 0, selReadOnly}, vector: x86.GP, code: selReadOnly},
		{name: "SS not present", frame: [5]uint64{to, selCode, f, 0, selAbsent}, vector: x86.SSFault, code: selAbsent},
		{name: "RIP not canonical", frame: [5]uint64{1 << 47, selUserCode, f, 0, selUserData}, vector: x86.GP},
		{name: "EIP of 33 bits", frame: [5]uint64{1<<32 | to, selUser32, f, 0x1238, selUserData}, vector: -1, cpl: 3, mode: mode32 | modeStack, after: f, rsp: 0x1238},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newSystem(t, iretq)
			g.write(to, []byte{0xeb, 0xfe})
			c := &g.start.CPUs[0]
			if test.user {
				c = g.user()
			}
			c.RIP, c.GPR[x86.RSP] = testCode, testStack
			c.RFLAGS = x86.FlagReserved | test.flags
			g.frame(test.frame[:]...)
			g.set()
			g.cpu.nmiMasked = true
			g.run(1)
			p := g.cpu
			if test.vector >= 0 {
				if p.r[slotRIP] != sysHandlers+16*uint64(test.vector) || g.get64(p.r[x86.RSP]) != test.code || g.get64(p.r[x86.RSP]+8) != testCode ||
					g.get64(p.r[x86.RSP]+32) != testStack {
					t.Errorf("RIP %#x, code %#x", p.r[slotRIP], g.get64(p.r[x86.RSP]))
				}
				return
			}
			const modes = mode64 | mode32 | modeStack
			if p.r[slotRIP] != to || p.cpl != test.cpl || p.mode&modes != test.mode || p.rflags() != test.after || p.r[x86.RSP] != test.rsp {
				t.Errorf("RIP %#x, CPL %d, mode %#x, RFLAGS %#x, RSP %#x", p.r[slotRIP], p.cpl, p.mode&modes, p.rflags(), p.r[x86.RSP])
			}
			if p.seg[x86.CS].Selector != uint16(test.frame[1]) || p.seg[x86.SS].Selector != uint16(test.frame[4]) || p.nmiMasked {
				t.Errorf("CS %#x, SS %#x, NMI masked %v", p.seg[x86.CS].Selector, p.seg[x86.SS].Selector, p.nmiMasked)
			}
			// Data segments of the kernel don't reach the user.
			wantDS := uint16(selData)
			if test.cpl == 3 && !test.user {
				wantDS = 0
			}
			if test.user {
				wantDS = selUserData
			}
			if ds := p.seg[x86.DS]; ds.Selector != wantDS {
				t.Errorf("DS is %+v", ds)
			}
		})
	}
}

// TestSyscall goes from CPL 3 to 0 by SYSCALL and back by SYSRET, in both sizes.
func TestSyscall(t *testing.T) {
	for _, long := range []bool{false, true} {
		g := newSystem(t, []byte{0x90, 0x0f, 0x05})
		const entry = testCode + 0x200
		sysret := []byte{0x48, 0x0f, 0x07}
		if !long {
			sysret = sysret[1:]
		}
		g.write(entry, sysret)
		c := g.user()
		c.RIP = testCode
		c.RFLAGS = x86.FlagReserved | x86.FlagIF | x86.FlagDF | x86.FlagCF
		g.set()
		p := g.cpu
		for index, v := range map[uint32]uint64{
			x86.MSRSTAR: (selUser32)<<48 | selCode<<32, x86.MSRLSTAR: entry, x86.MSRSFMASK: x86.FlagIF | x86.FlagDF,
		} {
			if !p.writeMSR(index, v) {
				t.Fatalf("%#x does not take %#x", index, v)
			}
		}
		g.run(2)
		if p.r[slotRIP] != entry || p.r[x86.RCX] != testCode+3 || p.r[x86.R11] != c.RFLAGS || p.rflags() != x86.FlagReserved|x86.FlagCF ||
			p.cpl != 0 || p.mode&mode64 == 0 {
			t.Errorf("SYSCALL: RIP %#x, RCX %#x, R11 %#x, RFLAGS %#x, CPL %d", p.r[slotRIP], p.r[x86.RCX], p.r[x86.R11], p.rflags(), p.cpl)
		}
		if cs, ss := p.seg[x86.CS], p.seg[x86.SS]; cs.Selector != selCode || cs.L != 1 || cs.DPL != 0 || ss.Selector != selData || ss.DPL != 0 {
			t.Errorf("SYSCALL: CS %+v, SS %+v", cs, ss)
		}
		if !long {
			p.r[x86.RCX] |= 1 << 40 // is cut
		}
		g.run(1)
		if p.r[slotRIP] != testCode+3 || p.rflags() != c.RFLAGS || p.cpl != 3 || (p.mode&mode64 != 0) != long {
			t.Errorf("SYSRET: RIP %#x, RFLAGS %#x, CPL %d, mode %#x", p.r[slotRIP], p.rflags(), p.cpl, p.mode)
		}
		wantCS := uint16(selUser32)
		if long {
			wantCS += 16
		}
		if cs, ss := p.seg[x86.CS], p.seg[x86.SS]; cs.Selector != wantCS || ss.Selector != selUser32+8 || ss.DPL != 3 || cs.DPL != 3 {
			t.Errorf("SYSRET: CS %+v, SS %+v", cs, ss)
		}
	}
}

// TestSysretFaults: the faults of the fast system calls come at the privilege
// that they were executed at.
func TestSysretFaults(t *testing.T) {
	for _, test := range []struct {
		name   string
		code   []byte
		user   bool
		efer   uint64
		rcx    uint64
		vector int
	}{
		{"SYSCALL off", []byte{0x0f, 0x05}, true, 0, 0, x86.UD},
		{"SYSRET off", []byte{0x48, 0x0f, 0x07}, false, 0, 0, x86.UD},
		{"SYSRET by a program", []byte{0x48, 0x0f, 0x07}, true, x86.EFERSCE, 0, x86.GP},
		{"SYSRET, not canonical", []byte{0x48, 0x0f, 0x07}, false, x86.EFERSCE, 1 << 47, x86.GP},
		{"SYSENTER off", []byte{0x0f, 0x34}, true, 0, 0, x86.GP},
		{"SYSEXIT off", []byte{0x48, 0x0f, 0x35}, false, 0, 0, x86.GP},
	} {
		g := newSystem(t, test.code)
		c := &g.start.CPUs[0]
		if test.user {
			c = g.user()
		}
		c.RIP, c.GPR[x86.RSP], c.GPR[x86.RCX] = testCode, testStack, test.rcx
		c.EFER = c.EFER&^x86.EFERSCE | test.efer
		if o := g.finish(); o.vector != test.vector || o.err != nil {
			t.Errorf("%s: %v", test.name, o)
		}
		if cs := g.get64(g.cpu.r[x86.RSP]+8+8*uint64(flag(test.vector == x86.GP, 1))) & 3; (cs == 3) != test.user {
			t.Errorf("%s: the fault came at CPL %d", test.name, cs)
		}
	}
}

// TestSysenter goes there and back.
func TestSysenter(t *testing.T) {
	g := newSystem(t, []byte{0x0f, 0x34})
	const entry = testCode + 0x200
	g.write(entry, []byte{0x48, 0x0f, 0x35})
	c := g.user()
	c.RIP, c.RFLAGS = testCode, x86.FlagReserved|x86.FlagIF
	c.GPR[x86.RDX], c.GPR[x86.RCX] = testCode+0x300, 0x5678
	g.set()
	p := g.cpu
	p.sysenterCS, p.sysenterESP, p.sysenterEIP = selCode, sysRSP0, entry
	g.run(1)
	if p.r[slotRIP] != entry || p.r[x86.RSP] != sysRSP0 || p.cpl != 0 || p.rflags() != x86.FlagReserved || p.seg[x86.SS].Selector != selData {
		t.Errorf("SYSENTER: RIP %#x, RSP %#x, CPL %d, RFLAGS %#x", p.r[slotRIP], p.r[x86.RSP], p.cpl, p.rflags())
	}
	g.run(1)
	if p.r[slotRIP] != testCode+0x300 || p.r[x86.RSP] != 0x5678 || p.cpl != 3 || p.seg[x86.CS].Selector != (selCode+32)|3 ||
		p.seg[x86.SS].Selector != (selCode+40)|3 || p.mode&mode64 == 0 {
		t.Errorf("SYSEXIT: RIP %#x, RSP %#x, CPL %d, CS %+v", p.r[slotRIP], p.r[x86.RSP], p.cpl, p.seg[x86.CS])
	}
}

// TestDeliveryDoesNotAllocate: page faults, interrupts and returns are what a
// kernel does most.
func TestDeliveryDoesNotAllocate(t *testing.T) {
	g := newSystem(t, []byte{0xeb, 0xfe})
	g.user().RIP = testCode
	g.set()
	c := g.cpu
	o := &op{size: 8, flags: flagStack}
	allocs := testing.AllocsPerRun(100, func() {
		c.deliver(fault{vector: x86.PF, hasCode: true, code: 4, cr2: 0x1234})
		c.r[x86.RSP] += 8
		opIret(c, o)
		c.interrupt(0x51)
		opIret(c, o)
	})
	if c.cpl != 3 || c.r[slotRIP] != testCode || g.engine.err != nil {
		t.Fatalf("CPL %d, RIP %#x, error %v", c.cpl, c.r[slotRIP], g.engine.err)
	}
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkDelivery(b *testing.B) {
	g := newSystem(b, []byte{0xeb, 0xfe})
	g.user().RIP = testCode
	g.set()
	c := g.cpu
	o := &op{size: 8, flags: flagStack}
	for b.Loop() {
		c.interrupt(0x51)
		opIret(c, o)
	}
}
