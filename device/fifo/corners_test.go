package fifo

import (
	"encoding/binary"
	"errors"
	"testing"

	"fifovm/device/devicetest"
)

var errTest = errors.New("test")

type rig struct {
	t    *testing.T
	f    *FIFO
	h    *devicetest.Host
	tail [16]uint32
}

func sq(r int) uint64   { return 0x10000 + uint64(r)*0x4000 }
func cq(r int) uint64   { return 0x12000 + uint64(r)*0x4000 }
func base(r int) uint64 { return uint64(channelBase + r/2*pageSize + ringTX + r%2*ringSize) }

func newRig(t *testing.T, cfg Config, log, clog uint32) *rig {
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{t: t, f: f, h: devicetest.New(f, 1<<20)}
	g.h.Write32(0, regControl, 1)
	for r := 0; r < 2; r++ {
		g.h.Write32(0, base(r)+regBaseLow, uint32(sq(r)))
		g.h.Write32(0, base(r)+regSize, log)
		g.h.Write32(0, base(r)+regCompLow, uint32(cq(r)))
		g.h.Write32(0, base(r)+regCompSize, clog)
		g.h.Write32(0, base(r)+regRingControl, 1)
	}
	return g
}
func (g *rig) desc(r int, addr uint64, n, flags uint32, cookie uint64) {
	p := g.h.RAM[sq(r)+uint64(g.tail[r])*32:]
	le := binary.LittleEndian
	le.PutUint64(p, addr)
	le.PutUint32(p[8:], n)
	le.PutUint32(p[12:], flags)
	le.PutUint64(p[16:], cookie)
	le.PutUint64(p[24:], 0)
	g.tail[r] = (g.tail[r] + 1) & (1<<g.f.rings[r].s.Size - 1)
}
func (g *rig) bell(r int) { g.h.Write32(0, uint64(doorbellBase+r/2*pageSize+r%2*4), g.tail[r]) }
func (g *rig) abort(r int, c uint64) {
	g.h.Write32(0, base(r)+regAbortLow, uint32(c))
	g.h.Write32(0, base(r)+regAbortHigh, uint32(c>>32))
}
func (g *rig) comp(r, i int) (cookie, done, res uint64, st uint16) {
	p := g.h.RAM[cq(r)+uint64(i)*32:]
	le := binary.LittleEndian
	return le.Uint64(p), le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint16(p[24:])
}
func (g *rig) st(r int) uint32 { return g.h.Read32(0, base(r)+regRingStatus) }

// A source's late tick lands in a loopback FIFO.
func TestSourceLeaks(t *testing.T) {
	g := newRig(t, Config{}, 3, 3)
	for r := 0; r < 2; r++ {
		g.h.Write32(0, base(r)+regRingControl, 0)
	}
	g.h.Write32(0, channelBase+regEnd, endSource)
	g.h.Write32(0, base(1)+regRingControl, 1)
	g.h.Advance(1000)
	g.h.Write32(0, base(1)+regRingControl, 0)
	g.h.Write32(0, channelBase+regEnd, endLoopback)
	g.h.Write32(0, channelBase+regChControl, chFlush)
	g.h.Advance(20000)
	if n := g.h.Read32(0, channelBase+regFill); n != 0 {
		t.Errorf("loopback FIFO has %d bytes that nobody wrote", n)
	}
}

// Overrun: error interrupts while the cause has not been cleared.
func TestOverrunStorm(t *testing.T) {
	g := newRig(t, Config{}, 3, 3)
	for r := 0; r < 2; r++ {
		g.h.Write32(0, base(r)+regRingControl, 0)
	}
	g.h.Write32(0, channelBase+regEnd, endSource)
	g.h.Write32(0, base(1)+regRingControl, 1)
	g.h.Advance(10_000_000)
	if n := g.h.Count(0); n > 1 {
		t.Errorf("%d error interrupts in 10 ms, cause never cleared", n)
	}
}

// Abort of a queued request that is bad: second completion?
func TestAbortedBadTwice(t *testing.T) {
	g := newRig(t, Config{}, 3, 3)
	g.desc(1, 0x80000, 64, 0, 1) // waits for data
	g.desc(1, 0x80000, 0, 0, 2)  // bad, queued
	g.bell(1)
	g.h.Run()
	g.abort(1, 2)
	g.h.Run()
	g.desc(0, 0x90000, 64, 0, 7)
	g.bell(0)
	g.h.Run()
	seen := 0
	for i := range 8 {
		if c, _, _, _ := g.comp(1, i); c == 2 {
			seen++
		}
	}
	if seen != 1 || g.st(1) != stateRunning {
		t.Errorf("cookie 2 completed %d times, ring status %#x", seen, g.st(1))
	}
}

// Abort with a full completion ring.
func TestAbortFull(t *testing.T) {
	g := newRig(t, Config{}, 4, 1)
	g.desc(0, 0x90000, 64, 0, 1)
	g.desc(0, 0x90000, 64, 0, 2)
	g.bell(0)
	g.h.Run()
	g.abort(0, 2)
	g.h.Run()
	if s := g.h.Read32(0, base(0)+regAbortStatus); s == abortNotFound {
		t.Errorf("ABORT_STATUS %d: request 2 is in the queue", s)
	}
}

// No DMA after ENABLE=0.
func TestDisabledAbortDMA(t *testing.T) {
	g := newRig(t, Config{}, 3, 3)
	g.desc(1, 0x80000, 64, 0, 1)
	g.bell(1)
	g.h.Run()
	g.abort(1, 1)
	g.h.Write32(0, regControl, 0)
	g.h.FailDMA = func(op string, a uint64, n int) error {
		t.Errorf("DMA %s %#x with CONTROL.ENABLE 0", op, a)
		return nil
	}
	g.h.Run()
}

// A descriptor that can't be read: what cookie is completed?
func TestFetchError(t *testing.T) {
	g := newRig(t, Config{}, 3, 3)
	g.desc(0, 0x90000, 64, 0, 0x55)
	g.bell(0)
	n := 0
	g.h.FailDMA = func(op string, a uint64, _ int) error {
		if op == "read" {
			n++
			if n == 1 {
				return errTest
			}
		}
		return nil
	}
	g.h.RAM[cq(0)] = 0xee
	g.h.Run()
	if c, _, _, st := g.comp(0, 0); st != 0 {
		t.Errorf("completion with cookie %#x, status %d for a descriptor that was not read", c, st)
	}
}

// Completion ring full below the coalescing count, no time.
func TestFullCoalesced(t *testing.T) {
	g := newRig(t, Config{}, 5, 2)
	g.h.Write32(0, base(0)+regCoalesce, 200)
	for i := range 8 {
		g.desc(0, 0x90000, 64, 0, uint64(i))
	}
	g.bell(0)
	g.h.Run()
	if g.h.Count(1) == 0 {
		t.Errorf("ring waits for room for completions (%d posted) and no interrupt was sent", g.h.Read32(0, base(0)+regCompTail))
	}
}

// Aborting the present request under coalescing.
func TestAbortPresentUrgent(t *testing.T) {
	g := newRig(t, Config{}, 3, 3)
	g.h.Write32(0, base(1)+regCoalesce, 200)
	g.desc(1, 0x80000, 64, 0, 1)
	g.bell(1)
	g.h.Run()
	g.abort(1, 1)
	g.h.Run()
	if g.h.Count(2) == 0 {
		t.Error("present request aborted: no interrupt (a queued one sends it at once)")
	}
}

// Soft reset whose event is lost.
func TestResetLost(t *testing.T) {
	g := newRig(t, Config{}, 3, 3)
	g.h.Write32(0, regControl, controlReset)
	g.h.Cancel(eventReset)
	g.h.Write32(0, regControl, controlReset)
	g.h.Run()
	if g.h.Read32(0, regStatus)&statusReady == 0 {
		t.Error("a second soft reset does not bring the device back")
	}
}

// DMA crossings after a restore are other than without.
func TestRestoreSplits(t *testing.T) {
	writes := func(move bool) (n int) {
		g := newRig(t, Config{Depth: 4096}, 3, 3)
		g.desc(0, 0x90000, 3000, 0, 1)
		g.bell(0)
		g.desc(1, 0x80000, 3000, 0, 1)
		g.bell(1)
		g.h.Run()
		g.desc(0, 0x90000, 3000, 0, 2)
		g.bell(0)
		g.h.Run()
		if move {
			f, _ := New(Config{Depth: 4096})
			if err := g.h.Move(f); err != nil {
				t.Fatal(err)
			}
		}
		g.h.FailDMA = func(op string, a uint64, _ int) error {
			if op == "write" {
				n++
			}
			return nil
		}
		g.desc(1, 0x80000, 3000, 0, 2)
		g.bell(1)
		g.h.Run()
		return
	}
	if a, b := writes(false), writes(true); a != b {
		t.Errorf("%d DMA writes, %d after a restore", a, b)
	}
}

// A drain's interrupts.
func TestDrainStorm(t *testing.T) {
	g := newRig(t, Config{}, 7, 8)
	for i := range 127 {
		g.desc(1, 0x80000, 64, 0, uint64(i))
	}
	g.bell(1)
	g.h.Run()
	before, now := g.h.Count(2), g.h.Now()
	g.h.Write32(0, base(1)+regRingControl, 3)
	g.h.Run()
	same := 0
	for _, i := range g.h.Interrupts {
		if i.Vector == 2 && i.Time == g.h.Now() {
			same++
		}
	}
	if same > 2 {
		t.Errorf("drain of 127: %d interrupts in one event (before %d at %d)", same, before, now)
	}
}

// Pausing, then another base: the open request goes on in other descriptors.
func TestPauseBase(t *testing.T) {
	g := newRig(t, Config{}, 3, 3)
	g.desc(1, 0x80000, 64, 0, 1)
	g.bell(1)
	g.h.Run()
	g.h.Write32(0, base(1)+regRingControl, 0)
	g.h.Write32(0, base(1)+regBaseLow, uint32(sq(1))+0x800)
	if g.h.Read32(0, base(1)+regBaseLow) != uint32(sq(1)) {
		t.Error("BASE can be changed while a request is open")
	}
}

// RUN and DRAIN together from stopped.
func TestRunDrain(t *testing.T) {
	g := newRig(t, Config{}, 3, 3)
	g.h.Write32(0, base(1)+regRingControl, 0)
	g.h.Write32(0, base(1)+regRingControl, 3)
	if g.st(1) == stateRunning {
		t.Error("RUN|DRAIN of a stopped ring starts it without a drain")
	}
}
