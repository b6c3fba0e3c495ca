package fifo

import (
	"bytes"
	"fmt"
	"testing"
)

// TestLoop goes round all rings many times, with chains, in all channels.
func TestLoop(t *testing.T) {
	g := newRig(t, Config{Channels: 8, Depth: MinDepth})
	src, dst := g.buffer(64), [2]piece{g.buffer(40), g.buffer(60)}
	for c := range 8 {
		g.setUp(2*c, 1+uint32(c)%3+1, 1+uint32(c)%2)
		g.setUp(2*c+1, 2, 1)
	}
	for n := range 100 {
		for c := range 8 {
			for i := range g.bytes(src) {
				g.bytes(src)[i] = byte(n*5 + c*13 + i)
			}
			clear(g.bytes(dst[0]))
			clear(g.bytes(dst[1]))
			cookie := uint64(n)<<40 | uint64(c)
			g.post(2*c+1, cookie, 0, dst[:]...)
			g.post(2*c, cookie, 0, piece{src.addr, 30}, piece{src.addr + 30, 34})
			g.expect(2*c, completion{cookie: cookie, done: 64})
			g.expect(2*c+1, completion{cookie: cookie, done: 64, residual: 36})
			if got := append(bytes.Clone(g.bytes(dst[0])), g.bytes(dst[1])[:24]...); !bytes.Equal(got, g.bytes(src)) {
				t.Fatalf("round %d, channel %d: %x, want %x", n, c, got, g.bytes(src))
			}
			if rest := g.bytes(dst[1])[24:]; !bytes.Equal(rest, make([]byte, len(rest))) {
				t.Fatalf("round %d, channel %d: bytes behind: %x", n, c, rest)
			}
		}
	}
	for c := range 8 {
		page := uint64(channelBase + c*pageSize)
		for reg, want := range map[uint64]uint64{regTXBytes: 6400, regRXBytes: 6400, regTXRequests: 100, regRXRequests: 100} {
			if v := g.Read64(0, page+reg); v != want {
				t.Errorf("channel %d: register %#x is %d, want %d", c, reg, v, want)
			}
		}
		for side := range 2 {
			if n := g.Count(1 + 2*c + side); n != 100 {
				t.Errorf("channel %d: %d interrupts of side %d, want 100", c, n, side)
			}
		}
	}
	g.check("INTERRUPTS", g.Read32(0, regInterrupts), 1600)
	g.check("FILL", g.fill(), 0)
}

// TestOrdering: nothing happens in the doorbell; data come before the completion,
// the completion before the interrupt, and HEAD is the driver's room.
func TestOrdering(t *testing.T) {
	g := newPair(t, Config{})
	src, dst := g.buffer(100), g.buffer(100)
	clear(g.bytes(dst))
	var order []string
	g.FailDMA = func(op string, addr uint64, size int) error {
		switch {
		case addr == dst.addr:
			order = append(order, "data")
		case op == "write" && addr == g.rings[rx].comp:
			order = append(order, fmt.Sprintf("completion after %d interrupts", g.Count(2)))
		case op == "read" && addr == g.rings[rx].base:
			order = append(order, "descriptor")
		}
		return nil
	}
	g.post(rx, 1, 0, dst)
	g.post(tx, 2, 0, src)
	if len(order) != 0 || g.fill() != 0 {
		t.Fatalf("in the doorbell: %v", order)
	}
	g.Advance(defaultLatency - 1)
	if len(order) != 0 {
		t.Fatalf("before the latency is over: %v", order)
	}
	g.run()
	if s := fmt.Sprint(order); s != "[descriptor data completion after 0 interrupts]" {
		t.Error(s)
	}
	if g.Count(2) != 1 {
		t.Errorf("%d interrupts", g.Count(2))
	}
	c := g.take(rx)
	if len(c) != 1 || c[0].head != 1 || g.ring(rx, regHead) != 1 || g.ring(rx, regTail) != 1 || g.ring(rx, regCompHead) != 1 || g.ring(rx, regCompTail) != 1 {
		t.Errorf("%+v, HEAD %d, TAIL %d, COMP_HEAD %d", c, g.ring(rx, regHead), g.ring(rx, regTail), g.ring(rx, regCompHead))
	}
	// A completion's reserved bits are zero.
	b := g.RAM[g.rings[rx].comp:]
	if !bytes.Equal(b[28:32], []byte{1, 0, 0, 0}) {
		t.Errorf("phase: %x", b[28:32])
	}
}

// TestTiming: n bytes take n / RATE + LATENCY, and requests follow each other.
func TestTiming(t *testing.T) {
	g := newPair(t, Config{Rate: 100, Latency: 5000})
	src := g.buffer(1000)
	g.post(tx, 1, 0, src)
	g.post(tx, 2, 0, piece{src.addr, 500})
	g.run()
	want := []int64{5000 + 10_000 + 5000, 5000 + 10_000 + 5000 + 5000 + 5000}
	for i, at := range want {
		if i >= len(g.Interrupts) || g.Interrupts[i].Time != at {
			t.Fatalf("%v, want them at %v", g.Interrupts, want)
		}
	}
	// Large requests go in pieces.
	g = newRig(t, Config{Depth: 1 << 20})
	g.setUp(tx, 4, 4)
	g.post(tx, 1, 0, piece{0, 200 << 10})
	steps := 0
	for g.Step() {
		steps++
	}
	if steps != 5 {
		t.Errorf("200 KiB took %d events, want 1 and 4", steps)
	}
	g.expect(tx, completion{cookie: 1, done: 200 << 10})
}

// TestFull: a request that is larger than the FIFO waits for a receiver.
func TestFull(t *testing.T) {
	g := newPair(t, Config{Depth: MinDepth})
	src, dst := g.buffer(10_000), g.buffer(10_000)
	clear(g.bytes(dst))
	g.post(tx, 1, 0, src)
	g.expect(tx)
	g.check("FILL", g.fill(), MinDepth)
	g.check("HEAD", g.ring(tx, regHead), 0)
	g.setRing(rx, regThreshold, MinDepth)
	g.post(rx, 2, 0, dst)
	g.run()
	g.expect(tx, completion{cookie: 1, done: 10_000})
	if cs := g.take(rx); len(cs) != 1 || cs[0].done < MinDepth || cs[0].done+cs[0].residual != 10_000 {
		t.Fatalf("%+v", cs)
	} else if n := cs[0].done; !bytes.Equal(g.bytes(dst)[:n], g.bytes(src)[:n]) {
		t.Error("the bytes are others")
	}
}

func TestThreshold(t *testing.T) {
	g := newPair(t, Config{})
	src, dst := g.buffer(200), g.buffer(200)
	g.setRing(rx, regThreshold, 64)
	g.post(rx, 1, 0, piece{dst.addr, 128})
	g.post(tx, 2, 0, piece{src.addr, 63})
	g.expect(rx)
	g.expect(tx, completion{cookie: 2, done: 63})
	g.post(tx, 3, 0, piece{src.addr, 1})
	g.expect(rx, completion{cookie: 1, done: 64, residual: 64})
	// A request that can't take that many does not wait for them.
	g.post(tx, 4, 0, piece{src.addr, 32})
	g.post(rx, 5, 0, piece{dst.addr, 32})
	g.expect(rx, completion{cookie: 5, done: 32})
	// A lower one counts at once.
	g.post(tx, 6, 0, piece{src.addr, 10})
	g.post(rx, 7, 0, piece{dst.addr, 100})
	g.expect(rx)
	g.setRing(rx, regThreshold, 10)
	g.expect(rx, completion{cookie: 7, done: 10, residual: 90})
	// None is one byte.
	g.setRing(rx, regThreshold, 0)
	g.post(rx, 8, 0, piece{dst.addr, 100})
	g.expect(rx)
	g.post(tx, 9, 0, piece{src.addr, 1})
	g.expect(rx, completion{cookie: 8, done: 1, residual: 99})
}

func TestCoalescing(t *testing.T) {
	send := func(g *rig, n int, flags uint32) {
		for range n {
			g.post(tx, 0, flags, piece{0, 8})
			g.run()
			g.take(tx)
		}
	}
	count := func(g *rig, want int) {
		t.Helper()
		if n := g.Count(1); n != want {
			t.Errorf("%d interrupts, want %d", n, want)
		}
	}
	g := newPair(t, Config{})
	g.setRing(tx, regCoalesce, 4)
	send(g, 3, 0)
	count(g, 0)
	send(g, 1, 0)
	count(g, 1)
	send(g, 9, 0)
	count(g, 3)
	send(g, 1, descInterrupt) // with those that were held back
	count(g, 4)
	send(g, 3, 0)
	count(g, 4)

	const latency = 1000
	g = newPair(t, Config{Latency: latency})
	g.setRing(tx, regCoalesce, 50<<coalesceTime|4)
	g.post(tx, 0, 0, piece{0, 8})
	g.Advance(20_000)
	first := g.Now() - 20_000 + 2*latency + 8
	g.post(tx, 0, 0, piece{0, 8})
	g.Advance(20_000)
	count(g, 0)
	g.run()
	count(g, 1)
	if at := g.Interrupts[0].Time; at != first+50_000 {
		t.Errorf("after %d ns, want %d", at, first+50_000)
	}
	send(g, 1, descInterrupt) // and the time does not go on
	count(g, 2)
	g.Advance(1_000_000)
	count(g, 2)
	// The count before the time.
	for range 4 {
		g.post(tx, 0, 0, piece{0, 8})
	}
	g.Advance(10_000)
	count(g, 3)
	g.Advance(1_000_000)
	count(g, 3)

	// A full completion ring does not wait for the count.
	g = newRig(t, Config{})
	g.setUp(tx, 4, 2)
	g.setRing(tx, regCoalesce, 200)
	for i := range uint64(8) {
		g.post(tx, i, 0, piece{0, 8})
	}
	g.run()
	count(g, 1)
	if n := len(g.take(tx)); n != 3 {
		t.Errorf("%d completions in a ring of 4", n)
	}
	g.expect(tx, completion{cookie: 3, done: 8}, completion{cookie: 4, done: 8}, completion{cookie: 5, done: 8})
	count(g, 2)
	g.expect(tx, completion{cookie: 6, done: 8}, completion{cookie: 7, done: 8})
}

// TestVectors: causes can have other vectors, all the same one too.
func TestVectors(t *testing.T) {
	g := newPair(t, Config{})
	g.setRing(tx, regRingVector, 3)
	g.setRing(rx, regRingVector, 3)
	g.Write32(0, regVector, 3)
	g.post(tx, 1, 0, piece{0, 8})
	g.run()
	g.check("IRQ_CAUSE", g.Read32(0, regIRQCause), 1<<1)
	g.post(rx, 1, 0, piece{0x800, 0})
	g.run()
	g.check("IRQ_CAUSE", g.Read32(0, regIRQCause), 7)
	if n := g.Count(3); n != 3 || len(g.Interrupts) != n {
		t.Error(g.Interrupts)
	}
}

func TestPin(t *testing.T) {
	g := newPair(t, Config{})
	g.MessageOn = false
	send := func() {
		g.post(tx, 1, 0, piece{0, 8})
		g.run()
		g.take(tx)
	}
	pin := func(want bool) {
		t.Helper()
		if g.INTx != want {
			t.Errorf("the pin is %v", g.INTx)
		}
	}
	send()
	pin(false)
	g.Write32(0, regIRQEnable, 1<<1)
	pin(true) // it was pending
	g.Write32(0, regIRQCause, 1<<2)
	pin(true)
	g.Write32(0, regIRQCause, 1<<1)
	pin(false)
	g.check("IRQ_CAUSE", g.Read32(0, regIRQCause), 0)
	send()
	pin(true)
	g.Write32(0, regIRQEnable, 0)
	pin(false)
	g.Write32(0, regIRQEnable, 1<<1)
	pin(true)
	g.Write32(0, regControl, controlReset)
	pin(false)
	g.run()
	g.Write32(0, regControl, controlEnable)
	g.setUp(tx, 4, 4)
	g.Write32(0, regIRQEnable, 1<<1)
	send()
	pin(true)
	g.Host.Reset()
	pin(false)
}

func TestPause(t *testing.T) {
	for name, write := range map[string]func(*rig, bool){
		"RUN": func(g *rig, on bool) {
			g.setRing(tx, regRingControl, map[bool]uint32{true: ringRun}[on])
			g.setRing(rx, regRingControl, map[bool]uint32{true: ringRun}[on])
		},
		"ENABLE": func(g *rig, on bool) { g.Write32(0, regControl, map[bool]uint32{true: controlEnable}[on]) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newPair(t, Config{Depth: MinDepth})
			src, dst := g.buffer(20_000), g.buffer(20_000)
			clear(g.bytes(dst))
			g.setRing(rx, regThreshold, 1000)
			g.post(tx, 1, 0, src)
			moved := uint64(0)
			for i := uint64(0); moved < 20_000; i++ {
				if i > 1000 {
					t.Fatal("no progress")
				}
				g.post(rx, i, 0, piece{dst.addr + moved, uint32(min(1500, 20_000-moved))})
				g.Advance(int64(i%7) * 700)
				write(g, false)
				g.FailDMA = func(op string, addr uint64, size int) error {
					t.Errorf("DMA %s of %d bytes while paused", op, size)
					return nil
				}
				g.Advance(100_000)
				g.FailDMA = nil
				write(g, true)
				g.run()
				for _, c := range g.take(rx) {
					if c.cookie != i || c.status != statusOK {
						t.Fatalf("%+v", c)
					}
					moved += c.done
				}
			}
			g.expect(tx, completion{cookie: 1, done: 20_000})
			if !bytes.Equal(g.bytes(src), g.bytes(dst)) {
				t.Error("the bytes are others")
			}
		})
	}
}

func TestDrainReceive(t *testing.T) {
	g := newPair(t, Config{})
	src, dst := g.buffer(100), g.buffer(100)
	g.setRing(rx, regThreshold, 1000)
	for i := range uint64(4) {
		g.post(rx, i, 0, piece{dst.addr, 60})
	}
	g.post(tx, 9, 0, src)
	g.run()
	before := g.Count(2)
	g.setRing(rx, regRingControl, ringRun|ringDrain)
	g.check("RING_CONTROL", g.ring(rx, regRingControl), ringRun|ringDrain)
	g.check("RING_STATUS", g.ring(rx, regRingStatus), stateDraining)
	g.post(rx, 5, 0, dst) // is not part of it
	g.expect(rx, completion{cookie: 0, done: 60}, completion{cookie: 1, done: 40, residual: 20},
		completion{cookie: 2, residual: 60, status: statusDrained}, completion{cookie: 3, residual: 60, status: statusDrained})
	g.check("RING_STATUS", g.ring(rx, regRingStatus), stateStopped)
	if n := g.Count(2) - before; n != 2 { // one that is OK, and the end
		t.Errorf("%d interrupts", n)
	}
	g.setRing(rx, regRingControl, ringRun)
	g.setRing(rx, regThreshold, 0)
	g.post(tx, 9, 0, src)
	g.expect(rx, completion{cookie: 5, done: 100})
	// More of them than an event's bound, and than there are completions.
	g = newRig(t, Config{})
	g.setUp(rx, 8, 7)
	for i := range uint64(250) {
		g.post(rx, i, 0, piece{0, 60})
	}
	g.setRing(rx, regRingControl, ringRun|ringDrain)
	for n := uint64(0); n < 250; {
		g.run()
		cs := g.take(rx)
		if len(cs) == 0 {
			t.Fatalf("%d drained", n)
		}
		for _, c := range cs {
			if c.cookie != n || c.status != statusDrained {
				t.Fatalf("%d: %+v", n, c)
			}
			n++
		}
	}
	g.run()
	g.check("RING_STATUS", g.ring(rx, regRingStatus), stateStopped)
	if n := g.Count(2); n > 6 {
		t.Errorf("%d interrupts of a drain", n)
	}
	// An empty ring: the interrupt tells that it is over, but not in the write.
	g = newPair(t, Config{})
	g.setRing(rx, regRingControl, 0)
	g.setRing(rx, regRingControl, ringRun|ringDrain)
	g.check("RING_STATUS", g.ring(rx, regRingStatus), stateDraining)
	g.setRing(rx, regRingControl, ringRun) // does not end it
	g.check("RING_STATUS", g.ring(rx, regRingStatus), stateDraining)
	g.run()
	g.check("RING_STATUS", g.ring(rx, regRingStatus), stateStopped)
	if g.Count(2) != 1 {
		t.Error(g.Interrupts)
	}
	g.setRing(rx, regRingControl, ringRun|ringDrain)
	g.setRing(rx, regRingControl, 0) // does
	g.check("RING_STATUS", g.ring(rx, regRingStatus), stateStopped)
}

func TestDrainTransmit(t *testing.T) {
	g := newPair(t, Config{Depth: MinDepth})
	src, dst := g.buffer(3000), g.buffer(8000)
	g.post(tx, 1, 0, src)
	g.post(tx, 2, 0, src)
	g.setRing(tx, regRingControl, ringRun|ringDrain)
	g.post(tx, 3, 0, src)
	g.expect(tx, completion{cookie: 1, done: 3000})
	g.check("RING_STATUS", g.ring(tx, regRingStatus), stateDraining)
	g.post(rx, 1, 0, dst)
	g.expect(tx, completion{cookie: 2, done: 3000})
	g.check("RING_STATUS", g.ring(tx, regRingStatus), stateStopped)
	g.check("HEAD", g.ring(tx, regHead), 2)
	g.setRing(tx, regRingControl, ringRun)
	g.run()
	if cs := g.take(tx); len(cs) != 1 || cs[0].cookie != 3 {
		t.Errorf("%+v", cs)
	}
	// FLUSH makes room as a receiver does.
	g = newPair(t, Config{Depth: MinDepth})
	g.post(tx, 1, 0, piece{0, MinDepth + 1})
	g.setRing(tx, regRingControl, ringRun|ringDrain)
	g.expect(tx)
	g.Write32(0, channelBase+regChControl, chFlush)
	g.check("FILL", g.fill(), 0)
	g.expect(tx, completion{cookie: 1, done: MinDepth + 1})
	g.check("FILL", g.fill(), 1)
}

func TestAbort(t *testing.T) {
	status := func(g *rig, r int, want uint32) {
		t.Helper()
		g.check("ABORT_STATUS", g.ring(r, regAbortStatus), want)
	}
	g := newPair(t, Config{Depth: MinDepth})
	dst := g.buffer(100)
	g.setRing(tx, regCoalesce, 200) // an abort does not wait
	g.setRing(rx, regCoalesce, 200)
	// The present one, that has bytes in the FIFO; a queued one; one that follows.
	g.post(tx, 1, 0, piece{0, 5000})
	g.post(tx, 0xffff_ffff_0000_0002, 0, piece{0, 10}, piece{0, 20}, piece{0, 30})
	g.post(tx, 3, 0, piece{0, 10})
	g.run()
	g.abort(tx, 0xffff_ffff_0000_0002)
	status(g, tx, abortPending)
	g.abort(tx, 1) // while it is pending: ignored
	g.expect(tx, completion{cookie: 0xffff_ffff_0000_0002, residual: 60, status: statusAborted})
	status(g, tx, abortDone)
	g.check("HEAD", g.ring(tx, regHead), 0)
	if g.Count(1) != 1 {
		t.Error(g.Interrupts)
	}
	g.abort(tx, 0xffff_ffff_0000_0002) // twice
	g.expect(tx)
	status(g, tx, abortNotFound)
	g.abort(tx, 1)
	g.expect(tx, completion{cookie: 1, done: MinDepth, residual: 5000 - MinDepth, status: statusAborted})
	status(g, tx, abortDone)
	if g.Count(1) != 2 {
		t.Error(g.Interrupts)
	}
	g.abort(tx, 77)
	g.expect(tx)
	status(g, tx, abortNotFound)
	g.Write32(0, channelBase+regChControl, chFlush)
	g.setRing(tx, regCoalesce, 0)
	g.expect(tx, completion{cookie: 3, done: 10})
	g.check("HEAD", g.ring(tx, regHead), 5)
	if v := g.Read64(0, channelBase+regTXRequests); v != 2 {
		t.Errorf("TX_REQUESTS is %d: the queued one does not count", v)
	}
	g.Write32(0, channelBase+regChControl, chFlush)
	// A receiver that waits, with the halves written singly.
	g.post(rx, 5<<32|6, 0, dst)
	g.run()
	g.setRing(rx, regAbortLow, 6)
	g.expect(rx)
	status(g, rx, abortIdle)
	g.setRing(rx, regAbortHigh, 5)
	g.expect(rx, completion{cookie: 5<<32 | 6, residual: 100, status: statusAborted})
	// A queued one that is bad completes once, and the ring goes on.
	g.post(rx, 1, 0, dst)
	g.post(rx, 2, 0, piece{dst.addr, 0})
	g.post(rx, 3, 0, dst)
	g.run()
	g.abort(rx, 2)
	g.expect(rx, completion{cookie: 2, status: statusAborted})
	g.setRing(rx, regCoalesce, 0)
	g.post(tx, 1, 0, dst)
	g.post(tx, 2, 0, dst)
	g.run()
	g.expect(rx, completion{cookie: 1, done: 100}, completion{cookie: 3, done: 100})
	// More than the bound of an event are passed over.
	g = newRig(t, Config{})
	g.setUp(rx, 9, 9)
	g.setUp(tx, 2, 2)
	g.post(rx, 1000, 0, dst)
	for i := range uint64(300) {
		g.post(rx, i, 0, dst)
	}
	g.post(rx, 1001, 0, dst)
	g.run()
	for i := range uint64(300) {
		g.abort(rx, i)
		g.expect(rx, completion{cookie: i, residual: 100, status: statusAborted})
	}
	g.post(tx, 1, 0, dst)
	g.expect(rx, completion{cookie: 1000, done: 100})
	g.post(tx, 1, 0, dst)
	g.expect(rx, completion{cookie: 1001, done: 100})
	// In a ring that is paused it works as well, disabled it does not.
	g.post(rx, 1, 0, dst)
	g.post(rx, 2, 0, dst)
	g.setRing(rx, regRingControl, 0)
	g.abort(rx, 1)
	g.expect(rx, completion{cookie: 1, residual: 100, status: statusAborted})
	g.Write32(0, regControl, 0)
	g.abort(rx, 2)
	g.expect(rx)
	status(g, rx, abortNotFound)
	// Neither a ring that is not set up.
	g.Write32(0, regControl, controlEnable)
	g.abort(2, 2)
	g.run()
	status(g, 2, abortNotFound)
}

// TestAbortFull: without room for its completion an abort waits.
func TestAbortFull(t *testing.T) {
	g := newRig(t, Config{})
	g.setUp(tx, 4, 1)
	g.setRing(tx, regCoalesce, 200)
	for i := range uint64(3) {
		g.post(tx, i, 0, piece{0, 8})
	}
	g.run()
	g.abort(tx, 2)
	g.run()
	g.check("ABORT_STATUS", g.ring(tx, regAbortStatus), abortPending)
	if g.Count(1) == 0 {
		t.Error("nobody is told")
	}
	g.Write32(0, g.rings[tx].compBell, 0) // no room yet
	g.run()
	g.check("ABORT_STATUS", g.ring(tx, regAbortStatus), abortPending)
	var got []completion
	for range 3 {
		g.run()
		got = append(got, g.take(tx)...)
	}
	g.run()
	g.check("ABORT_STATUS", g.ring(tx, regAbortStatus), abortDone)
	aborted := 0
	for _, c := range got {
		if c.status == statusAborted && c.cookie == 2 {
			aborted++
		}
	}
	if len(got) != 3 || aborted != 1 {
		t.Errorf("%+v", got)
	}
}

func TestRingReset(t *testing.T) {
	g := newPair(t, Config{Depth: MinDepth})
	g.setRing(tx, regCoalesce, 1000<<coalesceTime|9)
	g.setRing(tx, regRingVector, 4)
	g.post(tx, 1, 0, piece{0, 100})
	g.post(tx, 2, 0, piece{0, 5000})
	g.post(tx, 3, 0, piece{0, 100})
	g.Advance(20_000)
	g.abort(tx, 3)
	g.setRing(tx, regRingControl, ringReset|ringRun)
	if n := len(g.Events()); n != 0 {
		t.Errorf("events: %v", g.Events())
	}
	for reg, want := range map[uint64]uint32{
		regRingStatus: 0, regRingControl: 0, regHead: 0, regTail: 0, regCompHead: 0, regCompTail: 0, regAbortStatus: 0, regErrorIndex: 0,
		regBaseLow: uint32(g.rings[tx].base), regSize: 4, regCompLow: uint32(g.rings[tx].comp), regCompSize: 4,
		regCoalesce: 1000<<coalesceTime | 9, regRingVector: 4,
	} {
		g.check(fmt.Sprintf("register %#x", reg), g.ring(tx, reg), want)
	}
	g.check("FILL", g.fill(), MinDepth) // stays
	g.run()
	if len(g.Interrupts) != 0 {
		t.Errorf("interrupts: %v", g.Interrupts)
	}
	g.Write32(0, channelBase+regChControl, chFlush)
	g.start(tx)
	g.setRing(tx, regCoalesce, 0)
	g.post(tx, 4, 0, piece{0, 100})
	g.expect(tx, completion{cookie: 4, done: 100})
	if n := g.Count(4); n != 1 {
		t.Error(g.Interrupts)
	}
}

// TestResetAgain: a reset whose end got lost can be asked for again.
func TestResetAgain(t *testing.T) {
	g := newRig(t, Config{})
	g.Write32(0, regControl, controlReset)
	g.Advance(resetTime / 2)
	g.Write32(0, regControl, controlReset|controlEnable)
	g.Advance(resetTime - 1)
	g.check("STATUS", g.Read32(0, regStatus), 0)
	g.Advance(1)
	g.check("STATUS", g.Read32(0, regStatus), statusReady)
	g.check("CONTROL", g.Read32(0, regControl), 0)
	if len(g.Events()) != 0 {
		t.Error(g.Events())
	}
}

// TestSetUp: a ring needs sizes, its indices wrap, and its doorbells are deaf
// before.
func TestSetUp(t *testing.T) {
	g := newRig(t, Config{})
	g.Write32(0, g.rings[tx].tailBell, 5)
	g.Write32(0, g.rings[tx].compBell, 5)
	g.check("TAIL", g.ring(tx, regTail)+g.ring(tx, regCompHead), 0)
	g.setRing(tx, regRingControl, ringRun)
	g.check("RING_STATUS", g.ring(tx, regRingStatus), stateStopped)
	g.setRing(tx, regSize, 3)
	g.setRing(tx, regRingControl, ringRun)
	g.check("RING_STATUS", g.ring(tx, regRingStatus), stateStopped)
	g.setRing(tx, regCompSize, 2)
	g.Write32(0, g.rings[tx].tailBell, 8+3)
	g.Write32(0, g.rings[tx].compBell, 4+3)
	g.check("TAIL", g.ring(tx, regTail), 3)
	g.check("COMP_HEAD", g.ring(tx, regCompHead), 3)
	g.run() // it is stopped
	g.check("HEAD", g.ring(tx, regHead), 0)
}
