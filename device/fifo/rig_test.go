package fifo

import (
	"encoding/binary"
	"testing"

	"fifovm/device/devicetest"
)

// rig is the device with a driver as docs/hardware.md has it, of the tests.
type rig struct {
	testing.TB
	*devicetest.Host
	f     *FIFO
	rings []rigRing
	free  uint64 // memory from here on is unused
}

// rigRing is what the driver knows of a ring.
type rigRing struct {
	regs, tailBell, compBell uint64
	base, comp               uint64
	mask, compMask           uint32
	head, tail, compHead     uint32
	phase                    uint32
}

// Rings of channel 0.
const (
	tx = 0
	rx = 1
)

func newFIFO(t testing.TB, cfg Config) *FIFO {
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// newRig gives a device that is enabled; no ring is set up.
func newRig(t testing.TB, cfg Config) *rig {
	f := newFIFO(t, cfg)
	g := &rig{TB: t, f: f, Host: devicetest.New(f, 1<<20), rings: make([]rigRing, len(f.rings)), free: 0x1000}
	for i := range g.rings {
		page, bells := uint64(channelBase+i/2*pageSize), uint64(doorbellBase+i/2*pageSize)
		side := uint64(i % 2)
		g.rings[i] = rigRing{regs: page + ringTX + side*ringSize, tailBell: bells + 4*side, compBell: bells + 8 + 4*side}
	}
	g.Write32(0, regControl, controlEnable)
	return g
}

// newPair gives one with the rings of channel 0 running.
func newPair(t testing.TB, cfg Config) *rig {
	g := newRig(t, cfg)
	g.setUp(tx, 4, 4)
	g.setUp(rx, 4, 4)
	return g
}

// alloc gives n bytes of memory.
func (g *rig) alloc(n int) uint64 {
	at := g.free
	g.free = (g.free + uint64(n) + baseAlign - 1) &^ (baseAlign - 1)
	if g.free > uint64(len(g.RAM)) {
		g.Fatal("the rig has no memory left")
	}
	return at
}

func (g *rig) ring(r int, reg uint64) uint32         { return g.Read32(0, g.rings[r].regs+reg) }
func (g *rig) setRing(r int, reg uint64, v uint32)   { g.Write32(0, g.rings[r].regs+reg, v) }
func (g *rig) setRing64(r int, reg uint64, v uint64) { g.Write64(0, g.rings[r].regs+reg, v) }
func (g *rig) fill() uint32                          { return g.Read32(0, channelBase+regFill) }

// setUp sets a ring up that is as after reset, and has it run.
func (g *rig) setUp(r int, log, compLog uint32) {
	d := &g.rings[r]
	d.base, d.comp = g.alloc(descSize<<log), g.alloc(compSize<<compLog)
	d.mask, d.compMask = 1<<log-1, 1<<compLog-1
	g.setRing64(r, regBaseLow, d.base)
	g.setRing(r, regSize, log)
	g.setRing64(r, regCompLow, d.comp)
	g.setRing(r, regCompSize, compLog)
	g.start(r)
}

// start has a ring run whose indices are as after reset.
func (g *rig) start(r int) {
	d := &g.rings[r]
	clear(g.RAM[d.comp:][:compSize*(d.compMask+1)])
	d.head, d.tail, d.compHead, d.phase = 0, 0, 0, 1
	g.setRing(r, regRingControl, ringRun)
}

// reset resets a ring and has it run again.
func (g *rig) reset(r int) {
	g.setRing(r, regRingControl, ringReset)
	g.start(r)
}

// piece is a buffer.
type piece struct {
	addr uint64
	n    uint32
}

// describe writes a descriptor behind those that are posted.
func (g *rig) describe(r int, p piece, flags uint32, cookie uint64) []byte {
	d := &g.rings[r]
	b := g.RAM[d.base+uint64(d.tail)*descSize:][:descSize]
	le := binary.LittleEndian
	le.PutUint64(b, p.addr)
	le.PutUint32(b[8:], p.n)
	le.PutUint32(b[12:], flags)
	le.PutUint64(b[16:], cookie)
	le.PutUint64(b[24:], 0)
	d.tail = (d.tail + 1) & d.mask
	return b
}

func (g *rig) bell(r int) { g.Write32(0, g.rings[r].tailBell, g.rings[r].tail) }

// post posts a request.
func (g *rig) post(r int, cookie uint64, flags uint32, pieces ...piece) {
	for i, p := range pieces {
		f := flags
		if i < len(pieces)-1 {
			f |= descMore
		}
		g.describe(r, p, f, cookie)
	}
	g.bell(r)
}

// completion is one that was taken.
type completion struct {
	cookie, done, residual uint64
	status, head           uint16
}

// peek gives the next completion if it is there.
func (g *rig) peek(r int) (c completion, ok bool) {
	d := &g.rings[r]
	b := g.RAM[d.comp+uint64(d.compHead)*compSize:][:compSize]
	le := binary.LittleEndian
	if le.Uint32(b[28:]) != d.phase {
		return c, false
	}
	return completion{le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint16(b[24:]), le.Uint16(b[26:])}, true
}

// take takes all completions that are there.
func (g *rig) take(r int) (cs []completion) {
	d := &g.rings[r]
	for {
		c, ok := g.peek(r)
		if !ok {
			break
		}
		if d.compHead = (d.compHead + 1) & d.compMask; d.compHead == 0 {
			d.phase ^= 1
		}
		d.head = uint32(c.head)
		cs = append(cs, c)
	}
	if cs != nil {
		g.Write32(0, d.compBell, d.compHead)
	}
	return cs
}

// expect runs the device until nothing happens, and compares what completes.
func (g *rig) expect(r int, want ...completion) {
	g.Helper()
	g.run()
	got := g.take(r)
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			g.Fatalf("ring %d: no completion %+v", r, want[i])
		case i >= len(want):
			g.Fatalf("ring %d: one completion more: %+v", r, got[i])
		}
		got[i].head = 0 // has a test of its own
		if got[i] != want[i] {
			g.Fatalf("ring %d: completion %d is %+v, want %+v", r, i, got[i], want[i])
		}
	}
}

// run runs the device until it waits for the driver.
func (g *rig) run() {
	g.Helper()
	if !g.Run() {
		g.Fatal("the device does not come to rest")
	}
}

func (g *rig) abort(r int, cookie uint64) { g.setRing64(r, regAbortLow, cookie) }

// check compares a register.
func (g *rig) check(what string, got, want uint32) {
	g.Helper()
	if got != want {
		g.Errorf("%s: %#x, want %#x", what, got, want)
	}
}

// buffer gives memory with n bytes that differ from each other and from those of
// other buffers, somewhat.
func (g *rig) buffer(n int) piece {
	p := piece{g.alloc(n), uint32(n)}
	for i := range g.bytes(p) {
		g.RAM[p.addr+uint64(i)] = byte(int(p.addr>>6)*31 + i*7 + i>>8 + 1)
	}
	return p
}

func (g *rig) bytes(p piece) []byte { return g.RAM[p.addr:][:p.n] }
