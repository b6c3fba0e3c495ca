package fifo

import (
	"errors"
	"fmt"
	"testing"
)

var errBus = errors.New("bus error")

// failing has the n-th access fail that fits.
func (g *rig) failing(n int, fits func(op string, addr uint64, size int) bool) {
	g.FailDMA = func(op string, addr uint64, size int) error {
		if fits(op, addr, size) {
			if n--; n == 0 {
				return errBus
			}
		}
		return nil
	}
}

// TestErrors has each error of the manual's table happen, in both directions.
func TestErrors(t *testing.T) {
	const beyond = 1 << 30
	type want struct {
		completion completion
		none       bool // no completion
		index      uint32
		addr       uint64
	}
	type test struct {
		reason  string
		about   string
		receive bool
		// post posts the request that is bad, of which descriptor 3 is the first.
		post func(g *rig, r int, ok piece) want
	}
	bad := func(n uint32, edit func(b []byte)) func(g *rig, r int, ok piece) want {
		return func(g *rig, r int, ok piece) want {
			b := g.describe(r, piece{ok.addr, n}, 0, 5)
			edit(b)
			g.bell(r)
			return want{completion: completion{cookie: 5}, index: 3}
		}
	}
	same := func([]byte) {}
	tests := []test{
		{"2 DESCRIPTOR", "length 0", false, bad(0, same)},
		{"2 DESCRIPTOR", "length 0", true, bad(0, same)},
		{"2 DESCRIPTOR", "too long", false, bad(maxLength+1, same)},
		{"2 DESCRIPTOR", "flags", true, bad(1, func(b []byte) { b[12] = 4 })},
		{"2 DESCRIPTOR", "flags", false, bad(1, func(b []byte) { b[15] = 0x80 })},
		{"2 DESCRIPTOR", "reserved", false, bad(1, func(b []byte) { b[24] = 1 })},
		{"2 DESCRIPTOR", "reserved", true, bad(1, func(b []byte) { b[31] = 1 })},
		{"2 DESCRIPTOR", "without end", true, func(g *rig, r int, ok piece) want {
			g.describe(r, ok, descMore, 5)
			g.describe(r, ok, descMore, 6)
			g.bell(r)
			return want{completion: completion{cookie: 5, residual: 2 * uint64(ok.n)}, index: 5}
		}},
		{"2 DESCRIPTOR", "second of a chain", false, func(g *rig, r int, ok piece) want {
			g.post(r, 5, 0, ok, piece{ok.addr, 0})
			return want{completion: completion{cookie: 5, residual: uint64(ok.n)}, index: 4}
		}},
		{"3 DMA", "no memory", false, func(g *rig, r int, ok piece) want {
			g.post(r, 5, 0, piece{beyond, 100})
			return want{completion: completion{cookie: 5, residual: 100}, index: 3, addr: beyond}
		}},
		{"3 DMA", "no memory, second piece", true, func(g *rig, r int, ok piece) want {
			g.post(r, 5, 0, piece{ok.addr, 10}, piece{beyond, 10})
			return want{completion: completion{cookie: 5, done: 10, residual: 10}, index: 4, addr: beyond}
		}},
		{"3 DMA", "end of memory", false, func(g *rig, r int, ok piece) want {
			g.post(r, 5, 0, piece{1<<20 - 10, 20})
			return want{completion: completion{cookie: 5, residual: 20}, index: 3, addr: 1<<20 - 10}
		}},
		{"3 DMA", "wraps", true, func(g *rig, r int, ok piece) want {
			g.post(r, 5, 0, piece{^uint64(0) - 3, 20})
			return want{completion: completion{cookie: 5, residual: 20}, index: 3, addr: ^uint64(0) - 3}
		}},
		{"3 DMA", "first descriptor", false, func(g *rig, r int, ok piece) want {
			at := g.rings[r].base + 3*descSize
			g.failing(1, func(op string, addr uint64, _ int) bool { return addr == at })
			g.post(r, 5, 0, ok)
			return want{none: true, index: 3, addr: at}
		}},
		{"3 DMA", "second descriptor", true, func(g *rig, r int, ok piece) want {
			at := g.rings[r].base + 4*descSize
			g.failing(1, func(op string, addr uint64, _ int) bool { return addr == at })
			g.post(r, 5, 0, ok, ok)
			return want{completion: completion{cookie: 5, residual: uint64(ok.n)}, index: 4, addr: at}
		}},
		{"3 DMA", "second descriptor, at its turn", false, func(g *rig, r int, ok piece) want {
			at := g.rings[r].base + 4*descSize
			g.failing(2, func(op string, addr uint64, _ int) bool { return addr == at })
			g.post(r, 5, 0, ok, ok)
			return want{completion: completion{cookie: 5, done: uint64(ok.n), residual: uint64(ok.n)}, index: 4, addr: at}
		}},
		{"2 DESCRIPTOR", "changed before its turn", false, func(g *rig, r int, ok piece) want {
			at := g.rings[r].base + 4*descSize
			n := 0
			g.FailDMA = func(op string, addr uint64, size int) error {
				if addr == at {
					if n++; n == 2 {
						g.RAM[at+12] = 0xf0
					}
				}
				return nil
			}
			g.post(r, 5, 0, ok, ok)
			return want{completion: completion{cookie: 5, done: uint64(ok.n), residual: uint64(ok.n)}, index: 4}
		}},
		{"2 DESCRIPTOR", "made shorter before its turn", false, func(g *rig, r int, ok piece) want {
			at := g.rings[r].base + 4*descSize
			n := 0
			g.FailDMA = func(op string, addr uint64, size int) error {
				if addr == at {
					if n++; n == 2 {
						g.RAM[at+8]--
					}
				}
				return nil
			}
			g.post(r, 5, 0, ok, ok)
			return want{completion: completion{cookie: 5, done: 2*uint64(ok.n) - 1, residual: 1}, index: 5}
		}},
		{"6 COMPLETION", "bus error", false, func(g *rig, r int, ok piece) want {
			at := g.rings[r].comp + 3*compSize
			g.failing(1, func(op string, addr uint64, _ int) bool { return addr == at })
			g.post(r, 5, 0, ok)
			return want{none: true, index: 3, addr: at}
		}},
		{"7 NOT_MASTER", "bus master off", true, func(g *rig, r int, ok piece) want {
			g.post(r, 5, 0, ok)
			g.Master = false
			return want{none: true, index: 3, addr: g.rings[r].base + 3*descSize}
		}},
		{"4 PARITY", "injected", true, func(g *rig, r int, ok piece) want {
			g.Write32(0, channelBase+regChControl, chParity)
			g.post(r, 5, 0, piece{ok.addr, 30}, piece{ok.addr, 70})
			return want{completion: completion{cookie: 5, residual: 100}, index: 3}
		}},
	}
	rows := map[string][]string{}
	for _, row := range manual(t, "## Errors") {
		if row[0] != "" {
			rows[row[0]] = row
		}
	}
	seen := map[string]bool{}
	for _, test := range tests {
		seen[test.reason] = true
		row := rows[test.reason]
		if row == nil {
			t.Errorf("the manual has no %q", test.reason)
			continue
		}
		var reason uint32
		fmt.Sscan(test.reason, &reason)
		causes := map[string]uint32{"PARITY": errorParity, "DMA": errorDMA, "DESCRIPTOR": errorDescriptor}
		r := tx
		if test.receive {
			r = rx
		}
		t.Run(test.reason+"/"+test.about+[]string{", TX", ", RX"}[r], func(t *testing.T) {
			g := newPair(t, Config{})
			ok := g.buffer(64)
			for range 3 { // so that the ring is somewhere
				g.post(tx, 1, 0, ok)
				g.post(rx, 1, 0, ok)
				g.run()
			}
			g.take(tx)
			g.take(rx)
			if r == rx {
				g.post(tx, 2, 0, ok, ok)
				g.run()
				g.take(tx)
			}
			fill, moved := g.fill(), [2]uint64{g.Read64(0, channelBase+regTXBytes), g.Read64(0, channelBase+regRXBytes)}
			g.Interrupts = nil
			w := test.post(g, r, ok)
			g.post(r, 6, 0, ok) // is not begun
			if test.about == "without end" {
				g.Write32(0, g.rings[r].tailBell, 5)
			}
			g.run()
			w.completion.status = uint16(reason)
			cs := g.take(r)
			switch {
			case w.none && len(cs) != 0:
				t.Errorf("completion %+v", cs[0])
			case !w.none && (len(cs) != 1 || cs[0].head != 3):
				t.Errorf("completions %+v", cs)
			case !w.none:
				cs[0].head = 0
				if cs[0] != w.completion {
					t.Errorf("completion %+v, want %+v", cs[0], w.completion)
				}
			}
			if (row[4] == "yes" && w.none) || ((row[4] == "no" || row[4] == "it can't be written") && !w.none) {
				t.Errorf("the manual says of completions: %q", row[4])
			}
			g.check("RING_STATUS", g.ring(r, regRingStatus), stateError|reason<<8)
			g.check("RING_CONTROL", g.ring(r, regRingControl), 0)
			g.check("ERROR_CAUSE", g.Read32(0, regErrorCause), causes[row[1]])
			g.check("ERROR_INDEX", g.ring(r, regErrorIndex), w.index)
			if v := uint64(g.ring(r, regErrorHigh))<<32 | uint64(g.ring(r, regErrorLow)); v != w.addr {
				t.Errorf("ERROR_ADDRESS %#x, want %#x", v, w.addr)
			}
			g.check("STATUS", g.Read32(0, regStatus), statusReady|statusError)
			head := uint32(3)
			if reason == statusCompletion {
				head = 4 // the request has ended
			}
			g.check("HEAD", g.ring(r, regHead), head)
			// Once each, and the error's first.
			if len(g.Interrupts) != 2 || g.Interrupts[0].Vector != 0 || g.Interrupts[1].Vector != 1+r {
				t.Errorf("interrupts: %v", g.Interrupts)
			}
			// What has not been moved is where it was.
			now := [2]uint64{g.Read64(0, channelBase+regTXBytes), g.Read64(0, channelBase+regRXBytes)}
			if n := uint64(fill) + now[0] - moved[0] - (now[1] - moved[1]); n != uint64(g.fill()) {
				t.Errorf("FILL %d, want %d", g.fill(), n)
			}
			if d := now[r] - moved[r]; d != w.completion.done && !w.none {
				t.Errorf("%d bytes moved, DONE %d", d, w.completion.done)
			}
			// Nothing but a reset gets it out of there.
			g.FailDMA, g.Master = nil, true
			g.setRing(r, regRingControl, ringRun)
			g.Write32(0, g.rings[r].tailBell, 1)
			g.abort(r, 6)
			g.run()
			g.check("RING_STATUS", g.ring(r, regRingStatus), stateError|reason<<8)
			g.check("ABORT_STATUS", g.ring(r, regAbortStatus), abortNotFound)
			// The other ring goes on.
			other := 1 - r
			g.post(other, 7, 0, ok)
			g.run()
			if r == rx {
				g.expect(other, completion{cookie: 7, done: 64})
			}
			// After it all is well, and the same error is told again.
			g.Write32(0, channelBase+regChControl, chFlush)
			g.reset(r)
			g.check("STATUS", g.Read32(0, regStatus), statusReady)
			g.Write32(0, regErrorCause, errorMask)
			g.Interrupts = nil
			g.post(tx, 8, 0, ok)
			g.post(rx, 8, 0, ok)
			g.run()
			g.post(r, 9, 0, piece{ok.addr, 0})
			g.run()
			if g.Count(0) != 1 {
				t.Errorf("interrupts: %v", g.Interrupts)
			}
		})
	}
	for reason := range rows {
		if !seen[reason] {
			t.Errorf("no test has error %q", reason)
		}
	}
}

// TestErrorFull: without room for the completion the error is told all the same.
func TestErrorFull(t *testing.T) {
	g := newRig(t, Config{Depth: MinDepth})
	g.setUp(tx, 4, 1)
	g.post(tx, 1, 0, piece{0, MinDepth + 100}, piece{1 << 40, 1})
	g.post(tx, 2, 0, piece{0, 1})
	g.run()
	g.abort(tx, 2) // takes the place
	g.run()
	g.Write32(0, channelBase+regChControl, chFlush)
	g.run()
	g.check("RING_STATUS", g.ring(tx, regRingStatus), stateError|statusDMA<<8)
	if cs := g.take(tx); len(cs) != 1 || cs[0].cookie != 2 || g.Count(0) != 1 {
		t.Errorf("%+v, %v", cs, g.Interrupts)
	}
}

// TestErrorOnce: while a cause is set it sends no more interrupts.
func TestErrorOnce(t *testing.T) {
	g := newPair(t, Config{})
	g.setUp(2, 4, 4)
	for r := range 3 {
		g.post(r, 1, 0, piece{0, 0})
		g.run()
	}
	g.check("ERROR_CAUSE", g.Read32(0, regErrorCause), errorDescriptor)
	if g.Count(0) != 1 || g.Count(1) != 1 || g.Count(2) != 1 || g.Count(3) != 1 {
		t.Error(g.Interrupts)
	}
}

// TestMaxChain: a chain may be that long, and no longer.
func TestMaxChain(t *testing.T) {
	for _, n := range []int{maxChain, maxChain + 1} {
		g := newRig(t, Config{})
		g.setUp(tx, 11, 4)
		g.post(tx, 1, 0, make([]piece, 0, n)...)
		for i := range n {
			f := uint32(descMore)
			if i == n-1 {
				f = 0
			}
			g.describe(tx, piece{uint64(i), 3}, f, uint64(i))
		}
		g.bell(tx)
		if n == maxChain {
			g.expect(tx, completion{done: 3 * maxChain})
			continue
		}
		g.expect(tx, completion{residual: 3 * maxChain, status: statusDescriptor})
		g.check("ERROR_INDEX", g.ring(tx, regErrorIndex), maxChain)
	}
}

// TestParity: FLUSH makes the memory good again.
func TestParity(t *testing.T) {
	g := newPair(t, Config{})
	ok := g.buffer(64)
	g.Write32(0, channelBase+regChControl, chParity)
	g.Write32(0, channelBase+regChControl, chFlush)
	g.post(tx, 1, 0, ok)
	g.post(rx, 2, 0, ok)
	g.expect(rx, completion{cookie: 2, done: 64})
	// A request in the midst: what was done before counts.
	g.setRing(rx, regThreshold, 64)
	g.post(rx, 3, 0, piece{ok.addr, 64}, piece{ok.addr, 64})
	g.post(tx, 4, 0, ok)
	g.Advance(3500) // both latencies: it is moved
	g.Write32(0, channelBase+regChControl, chParity)
	g.post(tx, 5, 0, ok)
	g.run()
	cs := g.take(rx)
	if len(cs) == 0 || cs[0].cookie != 3 || cs[0].done+cs[0].residual != 128 {
		t.Errorf("%+v", cs)
	}
}
