package fifo

import (
	"bytes"
	"testing"
)

// setEnd sets the end of channel 0, whose rings are stopped meanwhile.
func (g *rig) setEnd(end uint32) {
	for r := range 2 {
		g.setRing(r, regRingControl, 0)
	}
	g.Write32(0, channelBase+regEnd, end)
	g.check("END", g.Read32(0, channelBase+regEnd), end)
	for r := range 2 {
		g.setRing(r, regRingControl, ringRun)
	}
}

func TestEndRegister(t *testing.T) {
	g := newPair(t, Config{})
	g.post(tx, 1, 0, piece{0, 100})
	g.run()
	end := func(write, want uint32) {
		t.Helper()
		g.Write32(0, channelBase+regEnd, write)
		g.check("END", g.Read32(0, channelBase+regEnd), want)
	}
	end(endSink, endLoopback) // both run
	g.setRing(tx, regRingControl, 0)
	end(endSink, endLoopback)
	g.check("FILL", g.fill(), 100)
	g.setRing(rx, regRingControl, 0)
	end(ends, endLoopback)
	end(endSink, endSink)
	g.check("FILL", g.fill(), 0)
}

func TestSource(t *testing.T) {
	g := newPair(t, Config{Depth: MinDepth, Rate: 100, Latency: 1000}) // 1000 bytes each 10 us
	g.setEnd(endSource)
	dst := g.buffer(5000)
	g.setRing(rx, regThreshold, 1000)
	g.post(rx, 1, 0, dst)
	g.Advance(9_999)
	g.check("FILL", g.fill(), 0)
	g.Advance(1)
	g.check("FILL", g.fill(), 1000)
	g.Advance(60_000)
	cs := g.take(rx)
	if len(cs) != 1 || cs[0].done == 0 || cs[0].status != statusOK {
		t.Fatalf("%+v", cs)
	}
	for i, b := range g.bytes(dst)[:cs[0].done] {
		if n := uint64(i); b != byte(n^(n>>8)*3^(n>>16)*7) {
			t.Fatalf("byte %d is %#x", i, b)
		}
	}
	// What is transmitted is dropped.
	fill, now := g.fill(), g.Now()
	g.post(tx, 2, 0, piece{0, 100})
	g.Advance(4000)
	if cs := g.take(tx); len(cs) != 1 || cs[0].done != 100 {
		t.Errorf("%+v", cs)
	}
	if n := g.fill(); n != fill && n != fill+1000 {
		t.Errorf("FILL %d, was %d at %d", n, fill, now)
	}
	// Overrun: told once until it is cleared, and the pattern goes on behind the gap.
	g.Advance(1_000_000)
	g.check("FILL", g.fill(), MinDepth)
	if n := g.Count(0); n != 1 {
		t.Errorf("%d error interrupts", n)
	}
	g.check("ERROR_CAUSE", g.Read32(0, regErrorCause), errorOverrun)
	g.check("RING_STATUS", g.ring(rx, regRingStatus), stateRunning)
	g.Write32(0, regErrorCause, errorOverrun)
	g.Advance(50_000)
	if n := g.Count(0); n != 2 {
		t.Errorf("%d error interrupts", n)
	}
	lost := g.Read32(0, channelBase+regOverrun)
	made := g.f.channels[0].s.Made
	if uint64(lost)+uint64(g.fill())+g.Read64(0, channelBase+regRXBytes) != made || made%1000 != 0 || lost == 0 {
		t.Errorf("%d made, %d lost, %d there", made, lost, g.fill())
	}
	// With its ring it stops, and leaves nothing to another end.
	g.setRing(rx, regRingControl, 0)
	g.setRing(tx, regRingControl, 0)
	g.Write32(0, channelBase+regEnd, endLoopback)
	g.run()
	g.check("FILL", g.fill(), 0)
	if len(g.Events()) != 0 {
		t.Error(g.Events())
	}
}

// TestSourceEnable: a source stops and goes on with ENABLE.
func TestSourceEnable(t *testing.T) {
	g := newPair(t, Config{Rate: 100})
	g.setEnd(endSource)
	g.Advance(25_000)
	g.check("FILL", g.fill(), 2000)
	g.Write32(0, regControl, 0)
	g.Advance(100_000)
	g.check("FILL", g.fill(), 2000)
	g.Write32(0, regControl, controlEnable)
	g.Advance(20_000)
	g.check("FILL", g.fill(), 4000)
}

func TestSink(t *testing.T) {
	g := newPair(t, Config{Depth: MinDepth})
	g.setEnd(endSink)
	p := g.buffer(9000)
	for i := range g.bytes(p) {
		g.bytes(p)[i] = pattern(uint64(i))
	}
	g.post(tx, 1, 0, p)
	g.expect(tx, completion{cookie: 1, done: 9000})
	g.check("MISMATCHES", g.Read32(0, channelBase+regMismatches), 0)
	g.check("FILL", g.fill(), 0)
	g.bytes(p)[7] ^= 0x40
	g.setEnd(endSink) // from the beginning
	g.post(tx, 2, 0, p)
	g.expect(tx, completion{cookie: 2, done: 9000})
	g.check("MISMATCHES", g.Read32(0, channelBase+regMismatches), 1)
}

func TestHostEnd(t *testing.T) {
	g := newPair(t, Config{Depth: MinDepth})
	in := bytes.Repeat([]byte("from the host's side. "), 300)
	if n := g.f.Feed(0, in); n != 0 {
		t.Errorf("fed %d bytes to loopback", n)
	}
	g.setEnd(endHost)
	var out []byte
	g.f.OnOutput = func(c int, p []byte) {
		if c != 0 {
			t.Errorf("channel %d", c)
		}
		out = append(out, p...)
	}
	src, dst := g.buffer(9000), g.buffer(9000)
	g.post(tx, 1, 0, src)
	g.expect(tx, completion{cookie: 1, done: 9000})
	if !bytes.Equal(out, g.bytes(src)) {
		t.Error("other bytes come out")
	}
	g.check("FILL", g.fill(), 0)
	g.post(rx, 2, 0, dst)
	got := 0
	for fed := 0; got < len(in); {
		n := g.f.Feed(0, in[fed:])
		if n > MinDepth {
			t.Errorf("fed %d bytes at once", n)
		}
		fed += n
		g.run()
		for _, c := range g.take(rx) {
			if !bytes.Equal(g.bytes(dst)[:c.done], in[got:got+int(c.done)]) {
				t.Fatal("other bytes arrive")
			}
			got += int(c.done)
			g.post(rx, 3, 0, dst)
		}
	}
	g.Write32(0, regControl, 0)
	if n := g.f.Feed(0, in); n != 0 {
		t.Errorf("fed %d bytes to a device that is not enabled", n)
	}
}
