//go:build linux && amd64

package kvm

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fifovm/vmm/x86"
)

// stopAt ends the run from within the n-th access to a recorder.
func (g *guest) stopAt(r *recorder, n int) {
	r.on = func(access) {
		if len(r.log) == n {
			g.inHandler()
		}
	}
}

// TestPendingAccess stops in the midst of an access: the state is that after
// it, whatever KVM still had to do.
func TestPendingAccess(t *testing.T) {
	const rax = 0x8877_6655_4433_2211
	for _, c := range []struct {
		name    string
		program []byte
		rax     uint64
	}{
		{"out al", []byte{0xe6, testPort}, rax},
		{"in al", []byte{0xe4, testPort}, rax&^0xff | 0xa0},
		{"in ax", []byte{0x66, 0xe5, testPort}, rax&^0xffff | 0xa1a0},
		{"in eax", []byte{0xe5, testPort}, 0xa3a2_a1a0},
		{"mmio write", stores[8], rax},
		{"mmio read 1", loads[1], rax&^0xff | 0xa0},
		{"mmio read 4", loads[4], 0xa3a2_a1a0},
		{"mmio read 8", loads[8], 0xa7a6_a5a4_a3a2_a1a0},
		{"mmio add", []byte{0x48, 0x03, 0x03}, (rax + 0xa7a6_a5a4_a3a2_a1a0) & (1<<64 - 1)}, // add rax, [rbx]
	} {
		t.Run(c.name, func(t *testing.T) {
			set := slices.Concat(mov(x86.RAX, rax), mov(x86.RBX, testMMIO))
			g := newGuest(t, 1, set, c.program, done)
			g.port.next, g.mmio.next = 0xa0, 0xa0
			g.stopAt(g.port, 1)
			g.stopAt(g.mmio, 1)
			g.mustRun()
			s := g.state().CPUs[0]
			if want := uint64(testCode + len(set) + len(c.program)); s.RIP != want {
				t.Errorf("rip is %#x, want %#x, after the instruction", s.RIP, want)
			}
			if s.GPR[x86.RAX] != c.rax {
				t.Errorf("rax is %#x, want %#x", s.GPR[x86.RAX], c.rax)
			}
			if n := len(g.port.log) + len(g.mmio.log); n != 1 {
				t.Errorf("%d accesses, want 1", n)
			}
			g.mustRun() // goes on, and does not do it again
			if n := len(g.port.log) + len(g.mmio.log); n != 1 {
				t.Errorf("%d accesses after it went on, want 1", n)
			}
		})
	}
}

// TestPendingParts stops in the first of an instruction's two accesses: the
// state is that after both.
func TestPendingParts(t *testing.T) {
	const at = testMMIO + 0x1000 - 3
	set := slices.Concat(mov(x86.RAX, 0), mov(x86.RBX, at))
	for _, c := range []struct {
		name    string
		program []byte
		rax     uint64
	}{
		{"page-crossing read", loads[8], 0xa7a6_a5a4_a3a2_a1a0},
		{"page-crossing write", stores[8], 0},
		{"read and write", []byte{0x80, 0x0b, 0x04}, 0}, // or byte [rbx], 4
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuest(t, 1, set, c.program, done)
			g.mmio.next = 0xa0
			g.stopAt(g.mmio, 1)
			g.mustRun()
			s := g.state().CPUs[0]
			if want := uint64(testCode + len(set) + len(c.program)); s.RIP != want || s.GPR[x86.RAX] != c.rax {
				t.Errorf("rip %#x, rax %#x; want %#x, %#x", s.RIP, s.GPR[x86.RAX], want, c.rax)
			}
			if len(g.mmio.log) != 2 {
				t.Errorf("accesses %v, want 2", g.mmio.log)
			}
		})
	}
}

// TestPendingString stops within string I/O and carries the state to another
// engine over the same memory: no item is lost, none comes twice, and the
// registers are those between two items.
func TestPendingString(t *testing.T) {
	const n = 2500
	for _, c := range []struct {
		name    string
		program []byte
		pointer int
	}{
		{"ins", slices.Concat(mov(x86.RDI, testData), []byte{0xf3, 0x6c}), x86.RDI},
		{"outs", slices.Concat(mov(x86.RSI, testData), []byte{0xf3, 0x6e}), x86.RSI},
		{"from mmio", slices.Concat(mov(x86.RSI, testMMIO), mov(x86.RDI, testData), []byte{0xf3, 0xa4}), x86.RDI},
		{"to mmio", slices.Concat(mov(x86.RSI, testData), mov(x86.RDI, testMMIO), []byte{0xf3, 0xa4}), x86.RSI},
	} {
		for _, stop := range []int{1, 2, 700, 1500, 2499, n} {
			g := newGuest(t, 1, mov(x86.RDX, testPort), mov(x86.RCX, n), c.program, done)
			input := c.pointer == x86.RDI
			if !input {
				g.write(testData, count(n))
			}
			g.stopAt(g.port, stop)
			g.stopAt(g.mmio, stop)
			g.mustRun()
			s := g.state()
			cpu := &s.CPUs[0]
			seen := len(g.port.log) + len(g.mmio.log)
			if did := n - cpu.GPR[x86.RCX]; did != uint64(seen) || cpu.GPR[c.pointer] != testData+did {
				t.Errorf("%s, stopped at %d: the device saw %d items, rcx %d, pointer %#x", c.name, stop, seen, cpu.GPR[x86.RCX], cpu.GPR[c.pointer])
			}
			g.engine = g.newEngine()
			g.check(g.engine.SetState(s))
			g.mustRun()
			if seen := len(g.port.log) + len(g.mmio.log); seen != n {
				t.Errorf("%s, stopped at %d: the device saw %d items in all", c.name, stop, seen)
			}
			got := make([]byte, n)
			if input {
				g.check(g.ram.Read(testData, got))
			} else {
				got = got[:0]
				for _, a := range append(g.port.log, g.mmio.log...) {
					got = append(got, a.data...)
				}
			}
			if !bytes.Equal(got, count(n)) {
				t.Errorf("%s, stopped at %d: the data differ", c.name, stop)
			}
		}
	}
}

// msr is the value of a register in the state.
func msr(c *x86.CPU, index uint32) *uint64 {
	for i := range c.MSRs {
		if c.MSRs[i].Index == index {
			return &c.MSRs[i].Value
		}
	}
	return nil
}

// randomState is a state with something everywhere that a register may hold.
func randomState(g *guest, rnd *rand.Rand) *x86.State {
	s := g.state()
	canonical := func() uint64 { return uint64(int64(rnd.Uint64()) >> 17) }
	for i := range s.CPUs {
		c := &s.CPUs[i]
		c.LongMode(testTables, 0)
		for r := range c.GPR {
			c.GPR[r] = rnd.Uint64()
		}
		c.RIP = canonical()
		c.RFLAGS = rnd.Uint64()&0xad5 | x86.FlagReserved // the arithmetic flags, IF, DF
		c.Seg[x86.FS].Base, c.Seg[x86.GS].Base = canonical(), canonical()
		c.GDT = x86.Table{Base: canonical(), Limit: uint16(rnd.Uint32())}
		c.IDT = x86.Table{Base: canonical(), Limit: uint16(rnd.Uint32())}
		c.CR2, c.CR8 = rnd.Uint64(), rnd.Uint64()&15
		c.CR4 |= x86.CR4PGE
		c.DR = [4]uint64{canonical(), canonical(), canonical(), canonical()}
		c.DR6, c.DR7 = 0xffff_0ff0|rnd.Uint64()&15, 0x400|rnd.Uint64()&0x55
		for r := range 16 { // XMM0 to XMM15
			binary.LittleEndian.PutUint64(c.FPU[160+16*r:], rnd.Uint64())
			binary.LittleEndian.PutUint64(c.FPU[168+16*r:], rnd.Uint64())
		}
		for r := range 8 { // ST0 to ST7, ten bytes each
			binary.LittleEndian.PutUint64(c.FPU[32+16*r:], rnd.Uint64())
			binary.LittleEndian.PutUint16(c.FPU[40+16*r:], uint16(rnd.Uint32()))
		}
		binary.LittleEndian.PutUint16(c.FPU[0:], 0x7f&uint16(rnd.Uint32())|0x340) // FCW
		c.FPU[4] = byte(rnd.Uint32())                                             // abridged tag word
		binary.LittleEndian.PutUint32(c.FPU[24:], 0x1f80|rnd.Uint32()&0x603f)     // MXCSR
		for _, index := range []uint32{x86.MSRSysenterESP, x86.MSRSysenterEIP, x86.MSRLSTAR, x86.MSRCSTAR, x86.MSRKernelGSBase} {
			*msr(c, index) = canonical()
		}
		*msr(c, x86.MSRSTAR) = rnd.Uint64()
		*msr(c, x86.MSRSFMASK) = uint64(rnd.Uint32())
		*msr(c, x86.MSRTSCAux) = uint64(rnd.Uint32())
		*msr(c, x86.MSRMTRRFix64K) = 0x0606_0606_0606_0606
		*msr(c, x86.MSRMTRRPhysBase0) = 0xd000_0000
		apic := func(offset int, v uint32) { binary.LittleEndian.PutUint32(c.LAPIC[offset:], v) }
		apic(0x80, uint32(c.CR8)<<4) // TPR, of which CR8 is a part
		apic(0xf0, 0x1ff)            // enabled
		for w := range 8 {           // pending interrupts, from 16 on
			apic(0x200+16*w, rnd.Uint32()&^(0xffff>>min(16*w, 31)))
		}
		apic(0x320, 0x1_0000|rnd.Uint32()&0xff|0x10) // timer, masked
		apic(0x350, 0x1_0000|rnd.Uint32()&0xff|0x10)
		c.NMIPending, c.NMIMasked = rnd.IntN(2) == 0, rnd.IntN(2) == 0
		c.Activity = []x86.Activity{x86.Running, x86.Halted}[rnd.IntN(2)]
		if rnd.IntN(3) == 0 {
			c.Interrupt = x86.Event{Valid: true, Vector: byte(32 + rnd.IntN(200))}
		}
	}
	s.IOAPIC.IRR = rnd.Uint32() & (1<<ioapicInputs - 1)
	s.IOAPIC.Select = rnd.Uint32() & 0x3f
	s.IOAPIC.ID = rnd.Uint32() & 15 << 24 >> 24
	for i := range s.IOAPIC.Redirection {
		// vector, delivery, destination; masked, or it would fire
		s.IOAPIC.Redirection[i] = rnd.Uint64()&0xff00_0000_0000_a0ff | 1<<16
	}
	return s
}

// ignoreTime takes out of a state what runs on by itself.
func ignoreTime(s *x86.State) *x86.State {
	for i := range s.CPUs {
		*msr(&s.CPUs[i], x86.MSRTSC) = 0
	}
	return s
}

// TestStateRoundTrip: what was put in comes out, and what came out goes in and
// comes out the same, in another engine too.
func TestStateRoundTrip(t *testing.T) {
	g := newGuest(t, 2, done)
	other := g.newEngine()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		want := randomState(g, rnd)
		g.check(g.engine.SetState(want))
		first := g.state()
		tsc := *msr(&first.CPUs[0], x86.MSRTSC)
		if before := *msr(&want.CPUs[0], x86.MSRTSC); tsc < before {
			t.Errorf("the time-stamp counter went back from %d to %d", before, tsc)
		}
		g.check(other.SetState(first))
		second, err := other.State()
		g.check(err)
		if now := *msr(&second.CPUs[0], x86.MSRTSC); now < tsc {
			t.Errorf("in the other engine the time-stamp counter went back from %d to %d", tsc, now)
		}
		if d := cmp.Diff(ignoreTime(first), ignoreTime(second)); d != "" {
			t.Fatalf("a state differs after its way through another engine:\n%s", d)
		}
		normalize(ignoreTime(want), first)
		if d := cmp.Diff(want, first); d != "" {
			t.Fatalf("a state comes out otherwise than it went in:\n%s", d)
		}
	}
}

// normalize gives want what KVM itself decides and no guest can tell.
func normalize(want, got *x86.State) {
	for i := range want.CPUs {
		w, g := &want.CPUs[i], &got.CPUs[i]
		copy(w.FPU[464:], g.FPU[464:]) // for software
		copy(w.LAPIC[0xa0:0xa4], g.LAPIC[0xa0:0xa4])
		w.Interrupt.Vector = g.Interrupt.Vector*flag(!w.Interrupt.Valid) | w.Interrupt.Vector*flag(w.Interrupt.Valid)
	}
}

// TestMoveTSC: the time-stamp counter goes on from where it was, in engines that
// are a little older and younger, and the CPUs' counters keep their distance.
func TestMoveTSC(t *testing.T) {
	const apart = 1_000_000
	g := newGuest(t, 2, done)
	if _, ok, _ := g.engine.hostTSC(); !ok {
		t.Skip("this host's KVM has no offset of the time-stamp counter")
	}
	if slow, err := emulates(); err != nil || slow {
		t.Skipf("a KVM without VMX or SVM shows the guest the host's counter (%v)", err)
	}
	engines := []*Engine{g.engine, g.newEngine(), g.newEngine()}
	s := g.state()
	*msr(&s.CPUs[0], x86.MSRTSC) = 1 << 40
	*msr(&s.CPUs[1], x86.MSRTSC) = 1<<40 + apart
	for round := range 9 {
		e := engines[round%len(engines)]
		g.check(e.SetState(s))
		next, err := e.State()
		g.check(err)
		before, after := *msr(&s.CPUs[0], x86.MSRTSC), *msr(&next.CPUs[0], x86.MSRTSC)
		if second := uint64(e.TSCkHz()) * 1000; after < before || after-before > 5*second {
			t.Errorf("the counter was %d and is %d", before, after)
		}
		if d := *msr(&next.CPUs[1], x86.MSRTSC) - after; d != apart {
			t.Errorf("the CPUs' counters are %d apart, want %d", int64(d), apart)
		}
		s = next
	}
}

// TestMoveRunningGuest takes the state of a guest that counts into a new engine
// over the same memory, many times: the count has no gap and no repetition.
func TestMoveRunningGuest(t *testing.T) {
	g := newGuest(t, 1, mov(x86.RCX, 20_000), mov(x86.RBX, testData),
		[]byte{0x48, 0xff, 0x03}, // loop: inc qword [rbx]
		[]byte{0x48, 0xff, 0xc0}, //       inc rax
		[]byte{0xe7, testPort},   //       out testPort, eax
		[]byte{0x48, 0xff, 0xc9}, //       dec rcx
		[]byte{0x75, 0xf3},       //       jnz loop
		done)
	moves := 0
	for g.state().CPUs[0].GPR[x86.RCX] != 0 || moves == 0 {
		limit := len(g.port.log) + 2500
		g.port.on = func(access) {
			if len(g.port.log) == limit {
				g.stop()
			}
		}
		g.mustRun()
		s := g.state()
		g.engine = g.newEngine()
		g.check(g.engine.SetState(s))
		moves++
	}
	if moves < 8 {
		t.Errorf("the guest was moved %d times, want 8", moves)
	}
	if got := g.read64(testData); got != 20_000 {
		t.Errorf("the guest counted to %d in memory", got)
	}
	for i, a := range g.port.log {
		if v := binary.LittleEndian.Uint32(a.data); v != uint32(i+1) {
			t.Fatalf("write %d was of %d", i+1, v)
		}
	}
}

// TestMovePendingInterrupt: an interrupt that the local APIC holds because the
// guest has them off, one that the I/O APIC holds because it is masked there,
// and a halted CPU, all go along.
func TestMovePendingInterrupt(t *testing.T) {
	const gsi = 7
	g := newGuest(t, 1,
		[]byte{0xe6, vectorPort + 1}, // here they arrive
		[]byte{0xfb, 0xf4},           // sti; hlt
		[]byte{0xeb, 0xfd})           // jmp
	g.start.IOAPIC.Redirection[gsi] = 0x90
	g.check(g.engine.SetState(g.start))
	g.check(g.cfg.Ports.Map(vectorPort+1, 1, "ready", probe(func(bool, []byte) {
		g.check(g.engine.SignalMSI(msiAtCPU0, 0x91))
		g.check(g.engine.SetIRQ(gsi, true))
		g.inHandler()
	})))
	g.mustRun()
	s := g.state()
	g.engine = g.newEngine()
	g.check(g.engine.SetState(s))
	g.onVector = func(byte) {
		if len(g.vectors) == 2 {
			g.stop()
		}
	}
	g.mustRun()
	g.expectVectors(0x91, 0x90) // by priority
	// Now it is halted. Moved so, an interrupt wakes it.
	for g.state().CPUs[0].Activity != x86.Halted {
		g.pauseOnce()
	}
	s = g.state()
	g.engine = g.newEngine()
	g.check(g.engine.SetState(s))
	g.onVector = func(byte) { g.stop() }
	g.check(g.engine.SignalMSI(msiAtCPU0, 0x92))
	g.mustRun()
	g.expectVectors(0x91, 0x90, 0x92)
}

// TestMovePendingNMI: an NMI that came goes along.
func TestMovePendingNMI(t *testing.T) {
	g := newGuest(t, 1, []byte{0xf4, 0xeb, 0xfd})
	s := g.state()
	s.CPUs[0].NMIPending = true
	g.check(g.engine.SetState(s))
	s = g.state()
	if !s.CPUs[0].NMIPending {
		t.Fatal("the state lost the NMI")
	}
	g.engine = g.newEngine()
	g.check(g.engine.SetState(s))
	g.onVector = func(byte) { g.stop() }
	g.mustRun()
	g.expectVectors(2)
}

// TestMoveWaitingCPU: a CPU that waits to be started is started in the other
// engine.
func TestMoveWaitingCPU(t *testing.T) {
	g := newGuest(t, 2,
		store32(apicICR+0x10, 1<<24), store32(apicICR, 0x4500), // INIT
		[]byte{0xe7, testPort}, // here it is moved
		store32(apicICR+0x10, 1<<24), store32(apicICR, 0x4600|testReal>>12),
		[]byte{0xf4, 0xeb, 0xfd})
	g.write(testReal, realHello)
	g.stopAt(g.port, 1)
	g.mustRun()
	s := g.state()
	if a := s.CPUs[1].Activity; a != x86.WaitSIPI {
		t.Errorf("after INIT the CPU's activity is %d, want WaitSIPI", a)
	}
	g.engine = g.newEngine()
	g.check(g.engine.SetState(s))
	g.onVector = func(byte) { g.stop() }
	g.mustRun()
	g.expectVectors(0x77)
}

// TestBadStates are refused with an error that names what is wrong.
func TestBadStates(t *testing.T) {
	g := newGuest(t, 2, done)
	for want, spoil := range map[string]func(s *x86.State){
		"a state of 1 CPUs does not fit a machine of 2": func(s *x86.State) { s.CPUs = s.CPUs[:1] },
		"CPU 1: set activity: activity 200 is unknown":  func(s *x86.State) { s.CPUs[1].Activity = 200 },
		"CPU 0: set MSRs: register 0x12345678": func(s *x86.State) {
			s.CPUs[0].MSRs = slices.Insert(s.CPUs[0].MSRs, 3, x86.MSR{Index: 0x1234_5678, Value: 1})
		},
		"CPU 0: set MSRs: register 0xc0000082 does not take 0x8000000000000000": func(s *x86.State) { *msr(&s.CPUs[0], x86.MSRLSTAR) = 1 << 63 },
		"CPU 0: set MSRs: 100 registers, at most 64":                            func(s *x86.State) { s.CPUs[0].MSRs = make([]x86.MSR, 100) },
		"CPU 1: set registers": func(s *x86.State) { s.CPUs[1].CR4 = 1 << 63 },
	} {
		s := g.state()
		spoil(s)
		if err := g.engine.SetState(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	g.check(g.engine.SetState(g.start)) // and it can still be used
	g.mustRun()
}
