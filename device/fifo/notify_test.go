package fifo

import (
	"fmt"
	"testing"
)

// notified checks how many interrupts a ring has sent so far and what NOTIFY
// reads.
func (g *rig) notified(what string, r, interrupts int, notify uint32) {
	g.Helper()
	if n := g.Count(1 + r); n != interrupts {
		g.Errorf("%s: %d interrupts, want %d", what, n, interrupts)
	}
	g.check(what+": NOTIFY", g.ring(r, regNotify), notify)
}

// bytesIn has n bytes more in the FIFO, by requests.
func (g *rig) bytesIn(n uint32) {
	g.post(tx, 1, 0, piece{0x8000, n})
	g.run()
	g.take(tx)
}

// bytesOut takes n of them out.
func (g *rig) bytesOut(n uint32) {
	g.post(rx, 1, 0, piece{0x8000, n})
	g.run()
	g.take(rx)
}

// TestNotifyReceive: the level in bytes, before it is there and after.
func TestNotifyReceive(t *testing.T) {
	g := newPair(t, Config{})
	g.setRing(rx, regNotify, 100)
	g.bytesIn(99)
	g.notified("one byte is missing", rx, 0, 100)
	g.post(tx, 1, 0, piece{0x8000, 1})
	g.Advance(defaultLatency) // the byte is moved
	g.check("FILL", g.fill(), 100)
	g.notified("before the latency is over", rx, 0, 100)
	g.Advance(defaultLatency - 1)
	g.notified("shortly before", rx, 0, 100)
	g.Advance(1)
	g.notified("all are there", rx, 1, 0)
	g.check("IRQ_CAUSE", g.Read32(0, regIRQCause)>>2, 1)
	// It is one shot.
	g.bytesIn(1000)
	g.notified("more of them", rx, 1, 0)
	// The level is there already; never in the write.
	g.setRing(rx, regNotify, 1100)
	g.notified("in the write", rx, 1, 1100)
	g.Advance(defaultLatency - 1)
	g.notified("shortly after", rx, 1, 1100)
	g.Advance(1)
	g.notified("after the latency", rx, 2, 0)
	// 0 takes it back, before the level and after.
	g.setRing(rx, regNotify, 2000)
	g.setRing(rx, regNotify, 0)
	g.bytesIn(2000)
	g.setRing(rx, regNotify, 1)
	g.Advance(defaultLatency / 2)
	g.setRing(rx, regNotify, 0)
	g.run()
	g.notified("taken back", rx, 2, 0)
	// So does a level that is not there. One that is there as well postpones nothing.
	g.setRing(rx, regNotify, 1)
	g.setRing(rx, regNotify, 60_000)
	g.run()
	g.notified("replaced", rx, 2, 60_000)
	g.setRing(rx, regNotify, 1)
	g.Advance(defaultLatency - 1)
	g.setRing(rx, regNotify, 2)
	g.Advance(1)
	g.notified("replaced by another that is there", rx, 3, 0)
	// Nobody else is told.
	if len(g.Interrupts) != 3+g.Count(1+tx) {
		t.Error(g.Interrupts)
	}
}

// TestNotifyLost: where the event was lost, writing NOTIFY again brings another.
func TestNotifyLost(t *testing.T) {
	g := newPair(t, Config{})
	g.setRing(tx, regNotify, 1)
	g.Host.Cancel(eventNotify | tx)
	g.Advance(10_000)
	g.setRing(tx, regNotify, 1)
	g.Advance(defaultLatency - 1)
	g.notified("soon", tx, 0, 1)
	g.Advance(1)
	g.notified("then", tx, 1, 0)
}

// TestNotifyTransmit: the level is room.
func TestNotifyTransmit(t *testing.T) {
	g := newPair(t, Config{Depth: MinDepth})
	g.setRing(tx, regCoalesce, 200) // no interrupts of requests
	g.setRing(rx, regCoalesce, 200)
	g.bytesIn(MinDepth)
	g.setRing(tx, regNotify, 10)
	g.run()
	g.notified("full", tx, 0, 10)
	g.bytesOut(9)
	g.notified("room for 9", tx, 0, 10)
	g.bytesOut(1)
	g.notified("room for 10", tx, 1, 0)
	g.bytesOut(1)
	g.notified("again", tx, 1, 0)
	g.setRing(tx, regNotify, 11)
	g.run()
	g.notified("room for 11 already", tx, 2, 0)
	// FLUSH makes room, and END does.
	g.setRing(tx, regNotify, MinDepth+1) // counts as DEPTH
	g.run()
	g.notified("all of it", tx, 2, MinDepth)
	g.Write32(0, channelBase+regChControl, chFlush)
	g.notified("FLUSH, in the write", tx, 2, MinDepth)
	g.run()
	g.notified("FLUSH", tx, 3, 0)
	g.bytesIn(MinDepth)
	g.setRing(tx, regNotify, MinDepth)
	g.setEnd(endLoopback)
	g.run()
	g.notified("END", tx, 4, 0)
	// Room that a receiver makes in the midst of its request counts.
	g.bytesIn(MinDepth)
	g.setRing(tx, regNotify, 1)
	g.setRing(rx, regThreshold, 0)
	g.post(rx, 1, 0, piece{0x8000, 1}, piece{1 << 40, 1})
	g.run()
	g.check("RING_STATUS", g.ring(rx, regRingStatus), stateError|statusDMA<<8)
	g.notified("an error after the first byte", tx, 5, 0)
}

// TestNotifyDepth: a level that the FIFO can't have is the highest that it can.
func TestNotifyDepth(t *testing.T) {
	g := newPair(t, Config{Depth: MinDepth})
	g.setRing(rx, regNotify, 0xffff_ffff)
	g.check("NOTIFY", g.ring(rx, regNotify), MinDepth)
	g.bytesIn(MinDepth - 1)
	g.notified("nearly full", rx, 0, MinDepth)
	g.bytesIn(1)
	g.notified("full", rx, 1, 0)
}

// TestNotifyBriefly: a level that is left before the interrupt counts, and so do
// bytes that are on their way out as soon as they come.
func TestNotifyBriefly(t *testing.T) {
	g := newPair(t, Config{})
	g.bytesIn(100)
	g.setRing(rx, regNotify, 100)
	g.Write32(0, channelBase+regChControl, chFlush)
	g.run()
	g.notified("flushed", rx, 1, 0)
	g.post(rx, 1, 0, piece{0x8000, 200})
	g.setRing(rx, regNotify, 50)
	g.bytesIn(50)
	g.notified("received", rx, 3, 0)
	g.check("FILL", g.fill(), 0)
}

// TestNotifyHeldBack: with the interrupt comes what coalescing has held back.
func TestNotifyHeldBack(t *testing.T) {
	for r := range 2 {
		g := newPair(t, Config{})
		for i := range 2 {
			g.setRing(i, regCoalesce, 10_000<<coalesceTime|9)
		}
		g.bytesIn(100)
		g.setRing(1-r, regNotify, 0)
		g.Interrupts = nil
		g.post(tx, 1, 0, piece{0x8000, 8})
		g.post(rx, 1, 0, piece{0x8000, 8})
		g.Advance(1_000_000)
		if len(g.Interrupts) != 0 {
			t.Fatal(g.Interrupts)
		}
		g.setRing(r, regNotify, 1)
		g.Advance(defaultLatency)
		g.notified("with completions", r, 1, 0)
		// Nothing is left for the time.
		g.Advance(20_000_000)
		g.notified("later", r, 1, 0)
		if n := g.Count(2 - r); n != 1 {
			t.Errorf("%d interrupts of the other ring", n)
		}
	}
}

// TestNotifyStates: it is about the FIFO, not about the ring.
func TestNotifyStates(t *testing.T) {
	for name, state := range map[string]func(g *rig, r int){
		"not set up": func(*rig, int) {},
		"stopped":    func(g *rig, r int) { g.setUp(r, 2, 2); g.setRing(r, regRingControl, 0) },
		"running":    func(g *rig, r int) { g.setUp(r, 2, 2) },
		"draining": func(g *rig, r int) {
			g.setUp(r, 2, 1) // its completion has no room
			g.f.rings[r].s.CompHead = 1
			g.post(r, 1, 0, piece{0x8000, 1})
			g.setRing(r, regRingControl, ringRun|ringDrain)
		},
		"error": func(g *rig, r int) { g.setUp(r, 2, 2); g.post(r, 1, 0, piece{0, 0}) },
	} {
		for r := range 2 {
			t.Run(fmt.Sprint(name, r), func(t *testing.T) {
				g := newRig(t, Config{})
				g.Write32(0, channelBase+regEnd, endHost)
				g.f.OnOutput = func(int, []byte) {}
				state(g, r)
				g.run()
				before := g.Count(1 + r)
				status := g.ring(r, regRingStatus)
				g.setRing(r, regNotify, 10)
				g.f.Feed(0, make([]byte, 10))
				g.run()
				g.notified(name, r, before+1, 0)
				g.check("RING_STATUS", g.ring(r, regRingStatus), status)
			})
		}
	}
}

// TestNotifyEnable: without ENABLE it waits for that.
func TestNotifyEnable(t *testing.T) {
	g := newPair(t, Config{})
	g.bytesIn(100)
	before := g.Count(1 + tx)
	g.Write32(0, regControl, 0)
	g.setRing(rx, regNotify, 100)
	g.setRing(tx, regNotify, 100)
	if n := len(g.Events()); n != 0 {
		t.Error(g.Events())
	}
	g.run()
	g.notified("disabled", rx, 0, 100)
	g.Write32(0, regControl, controlEnable)
	g.notified("in the write", rx, 0, 100)
	g.run()
	g.notified("enabled", rx, 1, 0)
	g.notified("enabled", tx, before+1, 0)
	// Disabled after the level was there: it is looked at anew.
	g.setRing(rx, regNotify, 100)
	g.Write32(0, regControl, 0)
	g.run()
	g.notified("disabled meanwhile", rx, 1, 100)
	g.Write32(0, channelBase+regChControl, chFlush)
	g.Write32(0, regControl, controlEnable)
	g.run()
	g.notified("enabled, and empty", rx, 1, 100)
	g.bytesIn(100)
	g.notified("filled", rx, 2, 0)
}

// TestNotifyPin: without messages it is the pin that goes up.
func TestNotifyPin(t *testing.T) {
	g := newPair(t, Config{})
	g.MessageOn = false
	g.Write32(0, regIRQEnable, 1<<2)
	g.bytesIn(10)
	g.setRing(rx, regNotify, 11)
	g.run()
	if g.INTx {
		t.Error("the pin is up before the level is there")
	}
	g.bytesIn(1)
	if !g.INTx {
		t.Error("the pin is not up")
	}
	g.Write32(0, regIRQCause, 1<<2)
	g.run()
	if g.INTx || g.ring(rx, regNotify) != 0 {
		t.Errorf("the pin is %v, NOTIFY %d", g.INTx, g.ring(rx, regNotify))
	}
	// With another vector.
	g.MessageOn = true
	g.setRing(rx, regRingVector, 4)
	g.setRing(rx, regNotify, 1)
	g.Interrupts = nil
	g.run()
	if g.Count(4) != 1 || len(g.Interrupts) != 1 {
		t.Error(g.Interrupts)
	}
}

// TestNotifyEnds: nothing that is transmitted to other ends waits for room, and
// what they make is received.
func TestNotifyEnds(t *testing.T) {
	for _, end := range []uint32{endSource, endSink, endHost} {
		g := newPair(t, Config{Depth: MinDepth, Rate: 100})
		g.setEnd(end)
		g.setRing(tx, regNotify, MinDepth)
		g.setRing(rx, regNotify, MinDepth)
		g.Advance(defaultLatency)
		g.notified(fmt.Sprintf("end %d", end), tx, 1, 0)
		switch end {
		case endSource: // 1000 bytes each 10 us
			g.Advance(40_000)
			g.notified("4000 bytes", rx, 0, MinDepth)
			g.Advance(10_000)
			g.notified("full of the source's bytes", rx, 1, 0)
			g.setRing(tx, regNotify, MinDepth)
			g.Advance(defaultLatency)
			g.notified("full, and there is no need of room", tx, 2, 0)
			// Loopback looks at the room.
			g.setRing(tx, regNotify, 0)
			g.setEnd(endLoopback)
			g.bytesIn(1)
			before := g.Count(1 + tx)
			g.setRing(tx, regNotify, MinDepth)
			g.run()
			g.notified("back in loopback", tx, before, MinDepth)
		case endSink:
			g.bytesIn(5000)
			g.notified("sink", rx, 0, MinDepth)
		case endHost:
			g.f.Feed(0, make([]byte, MinDepth-1))
			g.run()
			g.notified("fed", rx, 0, MinDepth)
			g.f.Feed(0, make([]byte, 100))
			g.notified("in Feed", rx, 0, MinDepth)
			g.run()
			g.notified("fed more", rx, 1, 0)
		}
	}
}

// TestNotifyResets: each reset takes it back, whether the level is there or not.
func TestNotifyResets(t *testing.T) {
	for name, reset := range map[string]func(g *rig){
		"ring": func(g *rig) {
			g.setRing(tx, regRingControl, ringReset)
			g.setRing(rx, regRingControl, ringReset)
		},
		"soft":     func(g *rig) { g.Write32(0, regControl, controlReset) },
		"function": func(g *rig) { g.Host.Reset() },
	} {
		for _, level := range []uint32{1, 2000} {
			t.Run(fmt.Sprint(name, level), func(t *testing.T) {
				g := newPair(t, Config{Depth: MinDepth})
				g.bytesIn(MinDepth / 2)
				before := g.Count(1 + tx)
				g.setRing(tx, regNotify, level+100)
				g.setRing(rx, regNotify, level+100)
				reset(g)
				for _, e := range g.Events() {
					if e.Kind != eventReset {
						t.Error(g.Events())
					}
				}
				g.run()
				g.Write32(0, regControl, controlEnable)
				g.Write32(0, channelBase+regChControl, chFlush)
				g.setRing(tx, regRingControl, ringRun)
				g.run()
				g.notified("after the reset", tx, before, 0)
				g.notified("after the reset", rx, 0, 0)
			})
		}
	}
}

// TestNotifyState: a device goes on with it that has taken the state of another,
// while it waits and while its interrupt is due.
func TestNotifyState(t *testing.T) {
	for _, fill := range []uint32{99, 100} {
		g := newPair(t, Config{})
		g.bytesIn(fill)
		g.setRing(rx, regNotify, 100)
		to := newFIFO(t, Config{})
		if err := g.Move(to); err != nil {
			t.Fatal(err)
		}
		g.f = to
		g.notified("moved", rx, 0, 100)
		g.run()
		if fill == 99 {
			g.notified("waits", rx, 0, 100)
			g.bytesIn(1)
		}
		g.notified("done", rx, 1, 0)
	}
}
