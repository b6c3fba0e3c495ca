//go:build linux && amd64

package kvm

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"fifovm/vmm/x86"
)

// pauseBound is within how long a pause answers, and pauseSlack how late a
// single one may be on a host whose two processors do other work.
const (
	pauseBound = 10 * time.Millisecond
	pauseSlack = 50 * pauseBound
)

// TestPause pauses a guest again and again in the midst of what it does, each
// time going on where it was.
func TestPause(t *testing.T) {
	started := []byte{0xe6, vectorPort} // out vectorPort, al
	spin := []byte{0xeb, 0xfe}
	for _, c := range []struct {
		name    string
		program [][]byte
		cpl     uint8
		// batch says that KVM does 1,024 accesses before it lets go: a string
		// instruction that reads MMIO it executes to that many items, an exit
		// each. How long that takes is the host's matter.
		batch bool
	}{
		{"spins", [][]byte{started, spin}, 0, false},
		{"spins at CPL 3", [][]byte{started, spin}, 3, false},
		{"halted, interrupts off", [][]byte{started, {0xf4, 0xeb, 0xfd}}, 0, false},
		{"halted, interrupts on", [][]byte{started, {0xfb, 0xf4, 0xeb, 0xfd}}, 0, false},
		{"floods port writes", [][]byte{started, forever([]byte{0xe6, 0x30})}, 0, false},
		{"floods port reads", [][]byte{started, forever([]byte{0xe4, 0x30})}, 0, false},
		{"floods string output", [][]byte{started, mov(x86.RDX, 0x30), // rep outsb
			forever(mov(x86.RSI, testData), mov(x86.RCX, 0x10000), []byte{0xf3, 0x6e})}, 0, false},
		{"floods string input", [][]byte{started, mov(x86.RDX, 0x30), // rep insb
			forever(mov(x86.RDI, testData), mov(x86.RCX, 0x10000), []byte{0xf3, 0x6c})}, 0, false},
		{"floods MMIO writes", [][]byte{mov(x86.RBX, unclaimed), started, forever(stores[4])}, 0, false},
		{"floods MMIO reads", [][]byte{mov(x86.RBX, unclaimed), started, forever(loads[4])}, 0, false},
		{"floods string writes of MMIO", [][]byte{started, // rep movsb
			forever(mov(x86.RSI, testData), mov(x86.RDI, unclaimed), mov(x86.RCX, 0x10000), []byte{0xf3, 0xa4})}, 0, false},
		{"floods string reads of MMIO", [][]byte{started,
			forever(mov(x86.RSI, unclaimed), mov(x86.RDI, testData), mov(x86.RCX, 0x10000), []byte{0xf3, 0xa4})}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuest(t, 1, c.program...)
			g.check(g.cfg.Ports.Map(0x30, 4, "flood", probe(func(bool, []byte) {})))
			if c.cpl == 3 {
				cpu := &g.start.CPUs[0]
				gdt := cpu.GDT
				cpu.LongMode(testTables, 3)
				cpu.GDT = gdt
				cpu.RFLAGS |= iopl3
				g.check(g.engine.SetState(g.start))
			}
			begun := make(chan struct{}, 1)
			g.onVector = func(byte) { begun <- struct{}{} }
			bound := pauseBound
			if c.batch {
				bound = pauseSlack
			}
			g.pauseOften(bound, func() { <-begun })
		})
	}
	t.Run("waits for a start-up IPI", func(t *testing.T) {
		// CPU 0 waits as well: only it would otherwise make the run busy.
		g := newGuest(t, 2, started, spin)
		g.start.CPUs[0].Activity, g.start.CPUs[1].Activity = x86.WaitSIPI, x86.WaitINIT
		g.check(g.engine.SetState(g.start))
		g.pauseOften(pauseBound, func() {})
		s := g.state()
		if s.CPUs[0].Activity != x86.WaitSIPI || s.CPUs[1].Activity != x86.WaitINIT {
			t.Errorf("afterwards the CPUs' activities are %d and %d", s.CPUs[0].Activity, s.CPUs[1].Activity)
		}
	})
	t.Run("four CPUs spin", func(t *testing.T) {
		g := newGuest(t, 4, started, spin)
		g.everyCPU()
		begun := make(chan struct{}, 4)
		g.onVector = func(byte) { begun <- struct{}{} }
		g.pauseOften(pauseBound, func() {
			for range 4 {
				<-begun
			}
		})
	})
}

// forever repeats a program.
func forever(body ...[]byte) []byte {
	b := slices.Concat(body...)
	return append(b, 0xeb, byte(-len(b)-2)) // jmp
}

// everyCPU starts all CPUs as CPU 0 starts, each with its own stack.
func (g *guest) everyCPU() {
	g.Helper()
	for i := range g.start.CPUs {
		c := g.start.CPUs[0]
		c.APICBase, c.LAPIC, c.MSRs = g.start.CPUs[i].APICBase, g.start.CPUs[i].LAPIC, g.start.CPUs[i].MSRs
		c.GPR[x86.RAX] = uint64(i) << 16
		c.GPR[x86.RSP] += uint64(i) << 12
		g.start.CPUs[i] = c
	}
	g.check(g.engine.SetState(g.start))
}

// pauseOften measures how long a pause takes. begun waits for the guest to be
// in the midst of it, the first time.
func (g *guest) pauseOften(bound time.Duration, begun func()) {
	g.Helper()
	var took []time.Duration
	for range 40 {
		ctx, cancel := context.WithCancel(context.Background())
		result := make(chan error)
		go func() { result <- g.engine.Run(ctx) }()
		if begun != nil {
			begun()
			begun = nil
		}
		time.Sleep(time.Millisecond)
		start := time.Now()
		cancel()
		err := <-result
		took = append(took, time.Since(start))
		g.check(err)
	}
	slices.Sort(took)
	median, worst := took[len(took)/2], took[len(took)-1]
	g.Logf("a pause takes %v (median), %v at most", median, worst)
	if median > bound {
		g.Errorf("a pause takes %v (median of %d), want at most %v", median, len(took), bound)
	}
	if worst > pauseSlack {
		g.Errorf("a pause took %v, want at most %v even on a busy host", worst, pauseSlack)
	}
}

// TestRunWithDoneContext returns at once and executes nothing.
func TestRunWithDoneContext(t *testing.T) {
	g := newGuest(t, 2, done)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	g.stop = func() { t.Error("the guest ran") }
	for range 100 {
		g.check(g.engine.Run(ctx))
	}
	if after := g.state().CPUs[0]; after.RIP != testCode {
		t.Errorf("rip is %#x, was %#x", after.RIP, testCode)
	}
}

// TestPauseRepeatsNothing pauses a guest at any moment, some thousand times: a
// KVM_RUN that was interrupted leaves the last exit in the shared area, which
// must not be answered again.
func TestPauseRepeatsNothing(t *testing.T) {
	g := newGuest(t, 1, mov(x86.RAX, 0), mov(x86.RBX, testMMIO),
		forever([]byte{0xff, 0xc0}, []byte{0xe7, testPort}, stores[4])) // inc eax; out; mov [rbx], eax
	want := uint32(0)
	next := func(a access) {
		v := binary.LittleEndian.Uint32(a.data)
		if a.addr == testPort {
			want++
		}
		if v != want {
			t.Errorf("the device at %#x saw %d, want %d", a.addr, v, want)
			g.stop()
		}
		g.port.log, g.mmio.log = g.port.log[:0], g.mmio.log[:0]
	}
	g.port.on, g.mmio.on = next, next
	for i := range 2000 {
		ctx, cancel := context.WithCancel(context.Background())
		g.stop = cancel
		kicked := make(chan struct{})
		go func() {
			defer close(kicked)
			time.Sleep(time.Duration(i%50) * time.Microsecond)
			g.engine.vcpus[0].kick() // as a stray signal does, without a stop
			time.Sleep(time.Duration(i%7) * 10 * time.Microsecond)
			cancel()
		}()
		g.check(g.engine.Run(ctx))
		<-kicked
		if t.Failed() {
			return
		}
	}
	if want < 1000 {
		t.Logf("the guest came to %d only", want)
	}
}

// pauseOnce lets the guest run for a moment.
func (g *guest) pauseOnce() {
	g.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	g.check(g.engine.Run(ctx))
}
