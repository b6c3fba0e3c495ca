package chipset

import (
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"fifovm/vmm/clock"
	"fifovm/vmm/x86"
)

// TestRegisters has every register of the page: what it is after power-on, and
// what is left of ones written to it while software has the APIC enabled.
func TestRegisters(t *testing.T) {
	const r, w = true, true
	type register struct {
		number      int
		reset, ones uint32
		x2read      bool
		x2write     bool
		x2bits      uint32 // that can be set in x2APIC mode
	}
	list := []register{
		{0x02, 1 << 24, 1 << 24, r, false, 0},
		{0x03, 0x5_0014, 0x5_0014, r, false, 0},
		{0x08, 0, 0xff, r, w, 0xff},
		{0x09, 0, 0, false, false, 0},
		{0x0a, 0, 0xff, r, false, 0}, // follows the task priority
		{0x0b, 0, 0, false, w, 0},
		{0x0c, 0, 0, false, false, 0},
		{0x0d, 0, 0xff00_0000, r, false, 0},
		{0x0e, 0xffff_ffff, 0xffff_ffff, false, false, 0},
		{0x0f, 0xff, 0x3ff, r, w, 0x3ff},
		{0x28, 0, 0, r, w, 0},
		{0x30, 0, 0xc_cfff, r, w, 0xc_dfff},
		{0x31, 0, 0xff00_0000, false, false, 0},
		{0x32, 0x1_0000, 0x7_00ff, r, w, 0x7_10ff},
		{0x33, 0x1_0000, 0x1_07ff, r, w, 0x1_17ff},
		{0x34, 0x1_0000, 0x1_07ff, r, w, 0x1_17ff},
		{0x35, 0x1_0000, 0x1_a7ff, r, w, 0x1_f7ff},
		{0x36, 0x1_0000, 0x1_a7ff, r, w, 0x1_f7ff},
		{0x37, 0x1_0000, 0x1_00ff, r, w, 0x1_10ff},
		{0x38, 0, 0xffff_ffff, r, w, 0xffff_ffff},
		{0x39, 0, 0xffff_ffff, r, false, 0}, // follows the initial count
		{0x3e, 0, 0xb, r, w, 0xb},
	}
	for i := range 24 {
		list = append(list, register{0x10 + i, 0, 0, r, false, 0})
	}
	known := map[int]register{0x3f: {x2write: w, x2bits: 0xff}}
	power := newBench(t, 2)
	ones := enabled(t, 2)
	ones.write(1, apicSVR, 0xffff_ffff)
	ones.write(1, apicDFR, 0) // reads as ones again after the write of ones
	ones.expectRegister(1, apicDFR, 0x0fff_ffff)
	for _, g := range list {
		known[g.number] = g
		power.expectRegister(1, g.number, g.reset)
		// A count that runs could not be seen to follow: with the timer's vector
		// all ones the mode is the reserved one, which is one-shot.
		ones.write(1, g.number, 0xffff_ffff)
	}
	for _, g := range list {
		ones.expectRegister(1, g.number, g.ones)
	}
	for n := range 0x100 {
		_, there := known[n]
		power.write(1, apicESR, 0)
		power.read(1, n)
		power.write(1, apicESR, 0)
		if got, want := power.read(1, apicESR) != 0, !there || n == 0x3f; got != want {
			t.Errorf("reading register %#x: an error %v, want %v", n, got, want)
		}
	}
	for n := 0x40; n < 0x100; n++ {
		power.write(1, n, 1)
		power.write(1, apicESR, 0)
		power.expectRegister(1, apicESR, esrIllegalRegister)
	}

	x := enabled(t, 2)
	l := x.Local[1]
	for n := range uint32(0x100) {
		if _, ok := l.ReadMSR(0x800 + n); ok {
			t.Errorf("MSR %#x can be read in xAPIC mode", 0x800+n)
		}
		if l.WriteMSR(0x800+n, 0) {
			t.Errorf("MSR %#x can be written in xAPIC mode", 0x800+n)
		}
	}
	x.x2apic(1)
	for n := range uint32(0x100) {
		g := known[int(n)]
		if _, ok := l.ReadMSR(0x800 + n); ok != g.x2read {
			t.Errorf("MSR %#x can be read: %v", 0x800+n, ok)
		}
		if ok := l.WriteMSR(0x800+n, 0); ok != g.x2write {
			t.Errorf("MSR %#x can be written: %v", 0x800+n, ok)
		}
		for bit := range 64 {
			want := g.x2bits>>min(bit, 32)&1 != 0 || n == apicICR && bit >= 32
			if ok := l.WriteMSR(0x800+n, 1<<bit); ok != want {
				t.Errorf("MSR %#x, bit %d can be set: %v", 0x800+n, bit, ok)
			}
		}
	}
	for _, index := range []uint32{0, 0x7ff, 0x900, 0xffff_ffff} {
		if _, ok := l.ReadMSR(index); ok {
			t.Errorf("MSR %#x can be read", index)
		}
	}
	l.WriteMSR(0x830, 0x1234_5678_000c_0041)
	if v, ok := l.ReadMSR(0x830); !ok || v != 0x1234_5678_000c_0041 {
		t.Errorf("ICR is %#x, %v", v, ok)
	}
	if v, ok := l.ReadMSR(0x802); !ok || v != 1 {
		t.Errorf("ID is %#x, %v", v, ok)
	}
	for _, n := range []uint32{apicVersion, apicTPR, apicSVR, apicInitial} {
		if _, ok := l.ReadMSR(0x800 + n); !ok {
			t.Errorf("MSR %#x can't be read", 0x800+n)
		}
	}
	if x.expectRegister(1, apicVersion, 0xffff_ffff); x.read(1, 0x3f) != 0xffff_ffff {
		t.Error("the page is still there in x2APIC mode")
	}
	x.write(1, apicTPR, 0x50)
	if v, _ := l.ReadMSR(0x808); v != 0x80 { // the last bit written above
		t.Errorf("the page can still be written in x2APIC mode: %#x", v)
	}
}

func TestAccessWidths(t *testing.T) {
	b := newBench(t, 2)
	l := b.Local[1]
	l.regs[apicTPR] = 0x4433_2211
	for _, c := range []struct {
		off  uint64
		n    int
		want string
	}{
		{0x80, 1, "\x11"}, {0x81, 1, "\x22"}, {0x83, 1, "\x44"}, {0x84, 1, "\x00"}, {0x8f, 1, "\x00"},
		{0x80, 2, "\x11\x22"}, {0x83, 2, "\x44\x00"}, {0x80, 4, "\x11\x22\x33\x44"}, {0x82, 4, "\x33\x44\x00\x00"},
		{0x80, 8, "\x11\x22\x33\x44\x00\x00\x00\x00"}, {0x8e, 8, "\x00\x00\x00\x00\x00\x00\x00\x00"},
	} {
		data := []byte("\xee\xee\xee\xee\xee\xee\xee\xee")[:c.n]
		if l.Read(c.off, data); string(data) != c.want {
			t.Errorf("%d bytes at %#x are %x, want %x", c.n, c.off, data, c.want)
		}
	}
	for _, c := range []struct {
		off uint64
		n   int
	}{{0x80, 1}, {0x80, 2}, {0x80, 8}, {0x81, 4}, {0x84, 4}, {0x7c, 4}} {
		l.Write(c.off, make([]byte, c.n))
		if l.regs[apicTPR] != 0x4433_2211 {
			t.Errorf("%d bytes at %#x are written: %#x", c.n, c.off, l.regs[apicTPR])
		}
	}
}

func TestSoftwareDisable(t *testing.T) {
	b := newBench(t, 1)
	for n := apicLVTTimer; n <= apicLVTError; n++ {
		b.write(0, n, 0x41)
		b.expectRegister(0, n, lvtMasked|0x41)
	}
	b.write(0, apicSVR, svrEnable|0xff)
	for n := apicLVTTimer; n <= apicLVTError; n++ {
		b.expectRegister(0, n, lvtMasked|0x41)
		b.write(0, n, 0x41)
		b.expectRegister(0, n, 0x41)
	}
	b.write(0, apicICR, toSelf<<icrShorthandShift|0x61)
	b.write(0, apicSVR, 0xff)
	for n := apicLVTTimer; n <= apicLVTError; n++ {
		b.expectRegister(0, n, lvtMasked|0x41)
	}
	b.write(0, apicICR, toSelf<<icrShorthandShift|0x71) // not accepted
	b.expectTake(0, 0x61)                               // what was there before is held
	b.expectTake(0, -1)
}

// TestPriorities compares with an APIC of sets.
func TestPriorities(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := enabled(t, 1)
	l := b.Local[0]
	var requested, service [256]bool
	tpr := 0
	highest := func(set *[256]bool) int {
		for v := 255; v >= 0; v-- {
			if set[v] {
				return v
			}
		}
		return -1
	}
	accepted := 0
	for range 50_000 {
		interrupts := b.cpus[0].interrupts
		switch rnd.IntN(6) {
		case 0, 1:
			v := 16 + rnd.IntN(240)
			b.write(0, apicICR, toSelf<<icrShorthandShift|uint32(v))
			requested[v] = true
		case 2:
			tpr = rnd.IntN(256)
			b.write(0, apicTPR, uint32(tpr))
		case 3:
			cr8 := rnd.IntN(16)
			tpr = cr8 << 4
			l.SetTPR(uint8(cr8))
		case 4:
			if _, ok := l.Pending(); ok {
				v := highest(&requested)
				if got := l.Accept(); int(got) != v {
					t.Fatalf("accepted %#x, want %#x", got, v)
				}
				requested[v], service[v] = false, true
				accepted++
			} else if got := l.Accept(); got != 0xff {
				t.Fatalf("nothing to accept is %#x, want the spurious vector", got)
			}
		case 5:
			b.write(0, apicEOI, 0)
			if v := highest(&service); v >= 0 {
				service[v] = false
			}
		}
		ppr := tpr
		if v := highest(&service); v/16 > tpr/16 {
			ppr = v / 16 * 16
		}
		v := highest(&requested)
		want := v/16 > ppr/16
		got, ok := l.Pending()
		if ok != want || want && int(got) != v {
			t.Fatalf("pending %#x, %v, want %#x, %v (TPR %#x, PPR %#x)", got, ok, v, want, tpr, ppr)
		}
		b.expectRegister(0, apicPPR, uint32(ppr))
		if l.TPR() != uint8(tpr/16) {
			t.Fatalf("CR8 is %d with TPR %#x", l.TPR(), tpr)
		}
		if called := b.cpus[0].interrupts > interrupts; called && !want {
			t.Fatal("the CPU was called for nothing")
		}
	}
	if accepted < 1000 {
		t.Errorf("only %d interrupts were accepted: the test tests little", accepted)
	}
	for i := range apicWords {
		var irr, isr uint32
		for bit := range 32 {
			if requested[32*i+bit] {
				irr |= 1 << bit
			}
			if service[32*i+bit] {
				isr |= 1 << bit
			}
		}
		b.expectRegister(0, apicIRR+i, irr)
		b.expectRegister(0, apicISR+i, isr)
	}
}

// TestInterruptIsCalled: each way in which Pending becomes true tells the CPU.
func TestInterruptIsCalled(t *testing.T) {
	b := enabled(t, 1)
	l := b.Local[0]
	expect := func(why string, want bool) {
		t.Helper()
		if got := b.cpus[0].interrupts > 0; got != want {
			t.Errorf("%s: called %v, want %v", why, got, want)
		}
		b.cpus[0].interrupts = 0
	}
	b.write(0, apicTPR, 0xf0)
	b.write(0, apicICR, toSelf<<icrShorthandShift|0x61)
	b.write(0, apicICR, toSelf<<icrShorthandShift|0x62)
	expect("priority too low", false)
	b.write(0, apicTPR, 0)
	expect("TPR", true)
	l.Accept()
	expect("accepting", false)
	b.write(0, apicEOI, 0)
	expect("EOI", true)
	l.SetTPR(6)
	expect("CR8 up", false)
	l.SetTPR(5)
	expect("CR8", true)
}

func TestErrors(t *testing.T) {
	b := enabled(t, 2)
	b.write(0, apicLVTError, 0xfe)
	self := func(v uint32) { b.write(0, apicICR, toSelf<<icrShorthandShift|v) }
	expect := func(want uint32) {
		t.Helper()
		b.write(0, apicESR, 0)
		b.expectRegister(0, apicESR, want)
	}
	self(0x0f)
	b.expectRegister(0, apicESR, 0) // not before it is written
	b.expectTake(0, 0xfe)
	b.expectTake(0, -1) // nothing was sent
	self(0x00)
	b.expectTake(0, -1) // once until ESR is written
	expect(esrSendIllegal)
	expect(0)
	if err := b.SignalMSI(0xfee0_0000, 0x05); err != nil {
		t.Fatal(err)
	}
	b.expectTake(0, 0xfe)
	self(0x03)
	expect(esrReceiveIllegal | esrSendIllegal)
	// An error interrupt that is an error itself.
	b.write(0, apicLVTError, 0x0e)
	b.read(0, 0x3d)
	b.expectTake(0, -1)
	expect(esrIllegalRegister | esrReceiveIllegal)
	// The timer's vector.
	b.write(0, apicLVTError, 0xfe)
	b.write(0, apicLVTTimer, 0x0c)
	b.write(0, apicInitial, 100)
	b.pass(200)
	b.expectTake(0, 0xfe)
	expect(esrReceiveIllegal)
	// A self IPI in x2APIC mode.
	b.x2apic(0)
	b.Local[0].WriteMSR(0x83f, 0x08)
	b.Local[0].WriteMSR(0x828, 0)
	if v, _ := b.Local[0].ReadMSR(0x828); v != esrSendIllegal {
		t.Errorf("ESR is %#x after an illegal self IPI", v)
	}
}

func TestSetBase(t *testing.T) {
	const bsp, xapic, x2, off = LocalAPICBase | baseBSP, LocalAPICBase | baseEnable, LocalAPICBase | baseEnable | baseX2APIC, LocalAPICBase
	b := newBench(t, 2)
	if got := b.Local[0].Base(); got != bsp|baseEnable {
		t.Errorf("base of CPU 0 is %#x", got)
	}
	if got := b.Local[1].Base(); got != xapic {
		t.Errorf("base of CPU 1 is %#x", got)
	}
	for _, c := range []struct {
		from, to uint64
		ok       bool
	}{
		{xapic, xapic, true}, {xapic, x2, true}, {xapic, off, true},
		{x2, x2, true}, {x2, xapic, false}, {x2, off, true},
		{off, off, true}, {off, xapic, true}, {off, x2, false},
		{xapic, LocalAPICBase | baseX2APIC, false}, {x2, LocalAPICBase | baseX2APIC, false}, {off, LocalAPICBase | baseX2APIC, false},
		{xapic, 0xfed0_0000 | baseEnable, false}, {xapic, 1<<38 | xapic, false}, {xapic, 1<<39 | xapic, false},
		{xapic, 1 | xapic, false}, {xapic, 1<<9 | xapic, false}, {xapic, bsp | baseEnable, true},
	} {
		b := newBench(t, 2)
		l := b.Local[1]
		if c.from == x2 || c.from == off {
			l.SetBase(c.from)
		}
		if ok := l.SetBase(c.to); ok != c.ok {
			t.Errorf("from %#x to %#x: %v", c.from, c.to, ok)
		}
		want := c.from
		if c.ok {
			want = c.to
		}
		if l.Base() != want {
			t.Errorf("from %#x to %#x: base is %#x", c.from, c.to, l.Base())
		}
	}
	// What was set survives the way into x2APIC mode, but not the way out.
	b = enabled(t, 2)
	l := b.Local[1]
	b.write(1, apicLDR, 0xff<<24)
	b.write(1, apicLVTTimer, 0xec)
	b.write(1, apicInitial, 1000)
	b.write(1, apicICR, toSelf<<icrShorthandShift|0x41)
	l.SetBase(x2)
	for n, want := range map[uint32]uint64{apicID: 1, apicLDR: 2, apicLVTTimer: 0xec, apicCurrent: 1000, apicIRR + 2: 2} {
		if v, ok := l.ReadMSR(0x800 + n); !ok || v != want {
			t.Errorf("in x2APIC mode register %#x is %#x, %v, want %#x", n, v, ok, want)
		}
	}
	if _, ok := l.Pending(); !ok {
		t.Error("an interrupt is lost on the way into x2APIC mode")
	}
	l.SetBase(off)
	if _, ok := l.Pending(); ok {
		t.Error("a disabled APIC has an interrupt")
	}
	if b.clock.Next() != clock.Never {
		t.Error("a disabled APIC's timer runs")
	}
	b.expectRegister(1, apicVersion, 0xffff_ffff)
	l.SetBase(xapic)
	fresh := newBench(t, 2)
	for n := range apicRegisters {
		b.expectRegister(1, n, fresh.read(1, n))
	}
}

func TestINIT(t *testing.T) {
	for _, x2 := range []bool{false, true} {
		b := enabled(t, 2)
		l := b.Local[1]
		b.write(1, apicLVTTimer, timerDeadline<<lvtTimerShift|0xec)
		b.write(1, apicICR, toSelf<<icrShorthandShift|0x41)
		b.write(1, apicTPR, 0x20)
		b.read(1, 0)
		if x2 {
			b.x2apic(1)
		}
		base := l.Base()
		l.SetDeadline(1000)
		l.Accept()
		l.INIT()
		want := newBench(t, 2)
		if x2 {
			want.x2apic(1)
		}
		if l.Base() != base || l.Deadline() != 0 || b.clock.Next() != clock.Never {
			t.Errorf("base %#x, deadline %d, next event at %d", l.Base(), l.Deadline(), b.clock.Next())
		}
		if a, b := b.state().CPUs[1], want.state().CPUs[1]; a.LAPIC != b.LAPIC {
			t.Errorf("x2APIC %v: INIT leaves\n%x, want\n%x", x2, a.LAPIC, b.LAPIC)
		}
	}
}

func TestDivide(t *testing.T) {
	for v, divide := range map[uint32]int64{0x0: 2, 0x1: 4, 0x2: 8, 0x3: 16, 0x8: 32, 0x9: 64, 0xa: 128, 0xb: 1, 0x4: 2, 0xf: 1} {
		b := enabled(t, 1)
		b.write(0, apicLVTTimer, 0xec)
		b.write(0, apicDivide, v)
		b.write(0, apicInitial, 1000)
		b.pass(600 * divide)
		b.expectRegister(0, apicCurrent, 400)
		b.pass(400*divide - 1)
		b.expectRegister(0, apicCurrent, 1)
		b.expectTake(0, -1)
		b.pass(1)
		b.expectRegister(0, apicCurrent, 0)
		b.expectTake(0, 0xec)
	}
}

func TestOneShot(t *testing.T) {
	b := enabled(t, 1)
	b.write(0, apicDivide, 0x3) // 16
	b.write(0, apicLVTTimer, 0xec)
	b.write(0, apicInitial, 100)
	b.expectRegister(0, apicCurrent, 100)
	b.pass(15)
	b.expectRegister(0, apicCurrent, 100) // the first count is not over
	b.pass(1)
	b.expectRegister(0, apicCurrent, 99)
	b.pass(10_000)
	b.expectRegister(0, apicCurrent, 0)
	b.expectRegister(0, apicInitial, 100)
	b.expectTake(0, 0xec)
	b.pass(10_000)
	b.expectTake(0, -1)

	b.write(0, apicInitial, 100) // again, and started over before the end
	b.pass(1599)
	b.write(0, apicInitial, 100)
	b.pass(1599)
	b.expectTake(0, -1)
	b.pass(1)
	b.expectTake(0, 0xec)

	b.write(0, apicInitial, 100) // stopped
	b.write(0, apicInitial, 0)
	b.expectRegister(0, apicCurrent, 0)
	if n := b.pass(10_000); n != 0 {
		t.Errorf("%d events of a stopped timer", n)
	}

	b.write(0, apicLVTTimer, lvtMasked|0xec) // masked: it counts, and the interrupt is lost
	b.write(0, apicInitial, 100)
	b.pass(1000)
	b.expectRegister(0, apicCurrent, 38)
	b.pass(1000)
	b.write(0, apicLVTTimer, 0xec)
	b.expectTake(0, -1)

	b.write(0, apicInitial, 100) // masked meanwhile only
	b.write(0, apicLVTTimer, lvtMasked|0xec)
	b.write(0, apicLVTTimer, 0xed)
	b.pass(1600)
	b.expectTake(0, 0xed)

	b.write(0, apicInitial, 0xffff_ffff)
	b.write(0, apicDivide, 0xa)
	b.expectRegister(0, apicCurrent, 0xffff_ffff)
	b.pass(128 << 31)
	b.expectRegister(0, apicCurrent, 0x7fff_ffff)
}

func TestDivideChanges(t *testing.T) {
	b := enabled(t, 1)
	b.write(0, apicDivide, 0xb)
	b.write(0, apicLVTTimer, 0xec)
	b.write(0, apicInitial, 1000)
	b.pass(400)
	b.write(0, apicDivide, 0x1) // 4
	b.expectRegister(0, apicCurrent, 600)
	b.pass(4 * 500)
	b.expectRegister(0, apicCurrent, 100)
	b.write(0, apicDivide, 0x0) // 2
	b.expectRegister(0, apicCurrent, 100)
	b.pass(199)
	b.expectTake(0, -1)
	b.pass(1)
	b.expectTake(0, 0xec)
}

func TestPeriodic(t *testing.T) {
	b := enabled(t, 1)
	b.write(0, apicDivide, 0xb)
	b.write(0, apicLVTTimer, timerPeriodic<<lvtTimerShift|0xec)
	b.write(0, apicInitial, 100_000)
	for i := range 5 {
		b.pass(99_999)
		b.expectRegister(0, apicCurrent, 1)
		b.expectTake(0, -1)
		b.pass(1)
		b.expectTake(0, 0xec)
		if b.expectRegister(0, apicCurrent, 100_000); t.Failed() {
			t.Fatalf("in period %d", i)
		}
	}
	// An engine that looks late: one interrupt, and the next one keeps step.
	b.now += 330_000
	b.clock.RunDue()
	b.expectTake(0, 0xec)
	b.expectTake(0, -1)
	b.expectRegister(0, apicCurrent, 70_000)
	b.pass(69_999)
	b.expectTake(0, -1)
	b.pass(1)
	b.expectTake(0, 0xec)
	// One-shot from here: the period that goes on is the last.
	b.write(0, apicLVTTimer, 0xec)
	b.expectRegister(0, apicCurrent, 100_000)
	if n := b.pass(1_000_000); n != 1 {
		t.Errorf("%d events after periodic became one-shot", n)
	}
	b.expectTake(0, 0xec)
	// And back, where the one shot is over.
	b.write(0, apicLVTTimer, timerPeriodic<<lvtTimerShift|0xec)
	b.expectRegister(0, apicCurrent, 100_000)
	b.pass(100_000)
	b.expectTake(0, 0xec)
	b.write(0, apicInitial, 0)
	// A period too short for the host.
	for _, count := range []uint32{1, 100, timerFloor - 1, timerFloor} {
		b.write(0, apicLVTTimer, timerPeriodic<<lvtTimerShift|0xec)
		b.write(0, apicInitial, count)
		b.expectRegister(0, apicCurrent, count)
		if n := b.pass(100 * timerFloor); n != 100 {
			t.Errorf("initial count %d: %d events in the time of 100 at the floor", count, n)
		}
	}
	b.write(0, apicInitial, timerFloor+1)
	b.pass(timerFloor)
	b.expectRegister(0, apicCurrent, 1)
}

func TestDeadline(t *testing.T) {
	b := enabled(t, 1)
	l := b.Local[0]
	b.now = 5000
	expect := func(deadline uint64, vector int) {
		t.Helper()
		if got := l.Deadline(); got != deadline {
			t.Errorf("deadline is %d, want %d", got, deadline)
		}
		b.expectTake(0, vector)
	}
	b.write(0, apicLVTTimer, 0xec)
	l.SetDeadline(6000) // not in this mode
	b.pass(2000)
	expect(0, -1)

	b.write(0, apicInitial, 1000)
	b.write(0, apicLVTTimer, timerDeadline<<lvtTimerShift|0xec)
	b.expectRegister(0, apicInitial, 0) // the mode's change stops the timer
	b.write(0, apicInitial, 1000)       // and nothing starts it in this one
	b.expectRegister(0, apicInitial, 0)
	if n := b.pass(10_000); n != 0 {
		t.Errorf("%d events of a timer in the TSC-deadline mode", n)
	}
	b.now = 10_000
	l.SetDeadline(11_000)
	b.expectRegister(0, apicCurrent, 0)
	b.pass(999)
	expect(11_000, -1)
	b.pass(1)
	expect(0, 0xec)
	l.SetDeadline(10_500) // has passed
	expect(0, 0xec)
	l.SetDeadline(11_000) // now
	expect(0, 0xec)
	l.SetDeadline(12_000)
	l.SetDeadline(0)
	b.pass(2000)
	expect(0, -1)
	l.SetDeadline(14_000) // put off
	l.SetDeadline(15_000)
	b.pass(1999)
	expect(15_000, -1)
	b.pass(1)
	expect(0, 0xec)
	b.write(0, apicDivide, 0xa) // the divider is another timer's
	l.SetDeadline(15_100)
	b.write(0, apicDivide, 0xb)
	b.pass(99)
	expect(15_100, -1)
	b.pass(1)
	expect(0, 0xec)

	b.write(0, apicLVTTimer, timerDeadline<<lvtTimerShift|lvtMasked|0xec)
	l.SetDeadline(15_200)
	b.pass(100)
	b.write(0, apicLVTTimer, timerDeadline<<lvtTimerShift|0xec)
	expect(0, -1)

	// The counter is not the clock.
	l.SetTSC(1 << 40)
	l.SetDeadline(1<<40 + 15_300)
	b.pass(99)
	expect(1<<40+15_300, -1)
	b.pass(1)
	expect(0, 0xec)
	l.SetDeadline(1<<40 + 16_000)
	l.SetTSC(1<<40 - 1000) // later
	b.pass(1699)
	expect(1<<40+16_000, -1)
	b.pass(1)
	expect(0, 0xec)
	l.SetDeadline(1<<40 + 20_000)
	l.SetTSC(1 << 41) // it has passed
	expect(0, 0xec)
	if b.clock.Next() != clock.Never {
		t.Error("an event is left")
	}
	l.SetTSC(-20_000) // a counter before zero has wrapped
	l.SetDeadline(^uint64(0) - 1000)
	b.pass(3000)
	expect(0, 0xec)
	l.SetTSC(0)
	l.SetDeadline(1 << 63) // after the end of the clock's time
	expect(1<<63, -1)
	b.write(0, apicLVTTimer, 0xec)
	expect(0, -1)
	if _, ok := b.clock.Pending("lapic0", timerExpiry); ok {
		t.Error("the mode's change leaves the timer running")
	}
}

// fromKVM is a state as KVM gives it: the timer's expiry is nowhere but in the
// registers.
func fromKVM(t *testing.T, prepare func(b *bench)) (b *bench) {
	old := enabled(t, 2)
	prepare(old)
	s := old.state()
	b = newBench(t, 2)
	s.Clock = clock.State{}
	b.setState(s)
	return b
}

func TestTimerFromKVM(t *testing.T) {
	// start leaves 600 of 1,000 counts of 16 ns.
	start := func(mode uint32) func(b *bench) {
		return func(b *bench) {
			b.write(1, apicDivide, 3)
			b.write(1, apicLVTTimer, mode<<lvtTimerShift|0xec)
			b.write(1, apicInitial, 1000)
			b.pass(16 * 400)
		}
	}
	for name, c := range map[string]struct {
		prepare func(b *bench)
		first   int64 // time to the first interrupt, 0 if none comes
		next    int64 // and from there to the next
	}{
		"stopped":  {func(b *bench) {}, 0, 0},
		"one-shot": {start(0), 16 * 600, 0},
		"periodic": {start(timerPeriodic), 16 * 600, 16 * 1000},
		"periodic at its end": {func(b *bench) {
			start(timerPeriodic)(b)
			b.now += 16 * 600 // the event is due
		}, 16 * 1000, 16 * 1000},
		"one-shot that is over": {func(b *bench) {
			start(0)(b)
			b.pass(16 * 1000)
			b.expectTake(1, 0xec)
		}, 0, 0},
		"deadline": {func(b *bench) {
			b.write(1, apicLVTTimer, timerDeadline<<lvtTimerShift|0xec)
			b.Local[1].SetTSC(777)
			b.Local[1].SetDeadline(5777)
		}, 5000, 0},
		"deadline without one": {func(b *bench) {
			b.write(1, apicLVTTimer, timerDeadline<<lvtTimerShift|0xec)
		}, 0, 0},
		"deadline that has passed": {func(b *bench) {
			b.write(1, apicLVTTimer, timerDeadline<<lvtTimerShift|0xec)
			b.Local[1].SetDeadline(5000)
			b.now = 9000
		}, 1, 0}, // at once, as an event
	} {
		t.Run(name, func(t *testing.T) {
			b := fromKVM(t, c.prepare)
			if b.cpus[1].interrupts != 0 {
				t.Error("taking a state calls the CPU")
			}
			for _, wait := range []int64{c.first, c.next} {
				if wait == 0 {
					if n := b.pass(1 << 30); n != 0 {
						t.Errorf("%d events come", n)
					}
					b.expectTake(1, -1)
					return
				}
				b.pass(wait - 1)
				if wait > 1 {
					b.expectTake(1, -1)
				}
				b.pass(1)
				b.expectTake(1, 0xec)
			}
		})
	}
}

// TestStateOrder: the clock's event decides, although SetTSC comes between, and
// a deadline of zero takes it back.
func TestStateOrder(t *testing.T) {
	old := enabled(t, 2)
	old.write(1, apicLVTTimer, timerDeadline<<lvtTimerShift|0xec)
	old.Local[1].SetTSC(1 << 30)
	old.Local[1].SetDeadline(1<<30 + 1000)
	s := old.state()
	b := enabled(t, 2)
	b.write(1, apicLVTTimer, timerDeadline<<lvtTimerShift|0xec)
	b.Local[1].SetDeadline(50)
	b.setState(s)
	if got := b.clock.State(); !reflect.DeepEqual(got, s.Clock) {
		t.Errorf("events are %v, were %v", got, s.Clock)
	}
	b.pass(1000)
	b.expectTake(1, 0xec)
	s.Deadline[1] = 0
	b.setState(s)
	if b.clock.Next() != clock.Never {
		t.Error("an event without a deadline is left")
	}
	b.Local[0].RestoreDeadline(99) // not in this mode
	if b.Local[0].Deadline() != 0 {
		t.Error("a deadline in one-shot mode")
	}
}

// TestStatePage: the page is as KVM has it.
func TestStatePage(t *testing.T) {
	b := enabled(t, 3)
	want := x86.Reset(2)
	var c x86.CPU
	newBench(t, 3).Local[2].State(&c)
	if c.LAPIC != want.LAPIC || c.APICBase != want.APICBase {
		t.Errorf("at power-on the page is\n%x, want\n%x", c.LAPIC, want.LAPIC)
	}
	l := b.Local[2]
	b.write(2, apicTPR, 0x5a)
	b.write(2, apicLVTTimer, 0xec)
	b.write(2, apicDivide, 0xb)
	b.write(2, apicInitial, 500)
	b.now += 100
	b.write(2, apicICRHigh, 2<<24)
	b.write(2, apicICR, 0x4a)
	b.x2apic(2)
	l.State(&c)
	for offset, want := range map[int]uint32{0x20: 2, 0xd0: 4, 0x80: 0x5a, 0xa0: 0x5a, 0x220: 1 << 10, 0x300: 0x4a, 0x310: 2 << 24, 0x320: 0xec, 0x380: 500, 0x390: 400, 0x3e0: 0xb} {
		if got := binary.LittleEndian.Uint32(c.LAPIC[offset:]); got != want {
			t.Errorf("page at %#x is %#x, want %#x", offset, got, want)
		}
	}
	if c.CR8 != 5 || c.APICBase != x2apicBase {
		t.Errorf("CR8 is %#x, base %#x", c.CR8, c.APICBase)
	}
	// KVM may have the ID in its xAPIC place, keeps the high half of ICR above
	// the low one as well, and what a guest wrote to bits that are not there.
	binary.LittleEndian.PutUint32(c.LAPIC[0x20:], 2<<24)
	binary.LittleEndian.PutUint32(c.LAPIC[0x304:], 2<<24)
	binary.LittleEndian.PutUint32(c.LAPIC[0x350:], 0x1_17ff)
	binary.LittleEndian.PutUint32(c.LAPIC[0x400-16:], 0x41)
	n := newBench(t, 3)
	if err := n.Local[2].SetState(&c); err != nil {
		t.Fatal(err)
	}
	for i, want := range map[uint32]uint64{apicID: 2, apicLDR: 4, apicICR: 2<<56 | 0x4a, apicLVTLINT0: 0x1_07ff, apicPPR: 0x5a} {
		if got, _ := n.Local[2].ReadMSR(0x800 + i); got != want {
			t.Errorf("register %#x is %#x, want %#x", i, got, want)
		}
	}
	var again x86.CPU
	n.Local[2].State(&again)
	if again.LAPIC[0x400-16] != 0 {
		t.Error("a register that can only be written is in the state")
	}
	n.Local[2].SetTPR(0)
	if v, ok := n.Local[2].Pending(); !ok || v != 0x4a {
		t.Errorf("pending is %#x, %v", v, ok)
	}
}

// TestStateOfDisabled: KVM's APIC keeps registers that ours has forgotten.
func TestStateOfDisabled(t *testing.T) {
	c := x86.Reset(1)
	binary.LittleEndian.PutUint32(c.LAPIC[0x370:], 0xfe) // not masked
	b := newBench(t, 2)
	if err := b.Local[1].SetState(&c); err != nil {
		t.Fatal(err)
	}
	b.expectRegister(1, apicLVTError, lvtMasked|0xfe) // as software has it disabled
	binary.LittleEndian.PutUint32(c.LAPIC[0x380:], 1000)
	binary.LittleEndian.PutUint32(c.LAPIC[0x390:], 500)
	c.APICBase = LocalAPICBase
	if err := b.Local[1].SetState(&c); err != nil {
		t.Fatal(err)
	}
	if b.clock.Next() != clock.Never {
		t.Error("the timer of a disabled APIC runs")
	}
}

func TestLocalAPICRefusesState(t *testing.T) {
	for want, change := range map[string]func(c *x86.CPU){
		"IA32_APIC_BASE 0xfed00800": func(c *x86.CPU) { c.APICBase = 0xfed0_0800 },
		"IA32_APIC_BASE 0xfee00400": func(c *x86.CPU) { c.APICBase = 0xfee0_0400 },
		"ID register 0x2000000":     func(c *x86.CPU) { c.LAPIC[0x23] = 2 },
		"ID register 0x1, which":    func(c *x86.CPU) { c.LAPIC[0x23], c.LAPIC[0x20] = 0, 1 }, // not in xAPIC mode
		"ID register 0x3, which":    func(c *x86.CPU) { c.LAPIC[0x23], c.LAPIC[0x20], c.APICBase = 0, 3, x2apicBase },
	} {
		b := enabled(t, 2)
		b.write(1, apicTPR, 0x42)
		before := b.state()
		c := x86.Reset(1)
		change(&c)
		if err := b.Local[1].SetState(&c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		if !reflect.DeepEqual(b.state(), before) {
			t.Errorf("%s: a refused state has changed something", want)
		}
	}
}
