package fifo

import (
	"encoding/binary"
	"testing"

	"fifovm/device/devicetest"
)

// guard watches what a hostile guest may not bring about: a device that works
// without bound, or has more and more to remember.
type guard struct {
	testing.TB
	*devicetest.Host
	f          *FIFO
	cfg        Config
	dma, bytes int // of the present event or access
}

const fuzzRAM = 64 << 10

func newGuard(t testing.TB, cfg Config) *guard {
	f := newFIFO(t, cfg)
	g := &guard{TB: t, Host: devicetest.New(f, fuzzRAM), f: f, cfg: f.cfg}
	g.FailDMA = func(_ string, _ uint64, size int) error {
		g.dma++
		g.bytes += size
		return nil
	}
	return g
}

// bounded does one thing, and checks what it cost.
func (g *guard) bounded(what string, do func()) {
	// A ring is read once, and the chain behind it; the chunk's data may lie in
	// two pieces each, the completions are those of an event.
	const maxDMA = 1<<maxRingLog + maxChain + 3*chunkSegments + 2*eventRequests
	g.dma, g.bytes = 0, 0
	interrupts, now := len(g.Interrupts), g.Now()
	do()
	if g.dma > maxDMA || g.bytes > chunkBytes+maxDMA*descSize {
		g.Fatalf("%s: %d DMA accesses of %d bytes", what, g.dma, g.bytes)
	}
	if n := len(g.Interrupts) - interrupts; n > eventRequests+4 {
		g.Fatalf("%s: %d interrupts", what, n)
	}
	// One event of each kind, for each ring.
	events := g.Events()
	if len(events) > 4*len(g.f.rings)+len(g.f.channels)+1 {
		g.Fatalf("%s: %d events: %v", what, len(events), events)
	}
	seen := map[uint32]bool{}
	for _, e := range events {
		if seen[e.Kind] || e.When < now {
			g.Fatalf("%s: events %v at %d", what, events, now)
		}
		seen[e.Kind] = true
	}
	g.Interrupts = g.Interrupts[:0]
}

// write is an access to a register.
func (g *guard) write(off uint64, v uint32) {
	g.bounded("write", func() {
		if g.Write32(0, off, v); g.dma != 0 {
			g.Fatalf("DMA in the write of %#x to %#x", v, off)
		}
	})
}

// advance lets time go by, a few events at most.
func (g *guard) advance(events int) {
	for range events {
		g.bounded("event", func() { g.Step() })
	}
}

// check: the state is one that the device takes, and says the same.
func (g *guard) check() {
	to := newFIFO(g.TB, g.cfg)
	if err := g.Move(to); err != nil {
		g.Fatal(err)
	}
	to.OnOutput = g.f.OnOutput
	g.f = to
	checkLevels(g, to, g.Host)
	if n := int(to.channels[0].s.Fill); n > g.cfg.Depth {
		g.Fatalf("%d bytes in a FIFO of %d", n, g.cfg.Depth)
	}
}

// checkLevels: a level of NOTIFY that the FIFO is at has its interrupt under way,
// and there is an event for each that is.
func checkLevels(t testing.TB, f *FIFO, h *devicetest.Host) {
	due := map[uint32]bool{}
	for _, e := range h.Events() {
		due[e.Kind] = true
	}
	for i := range f.rings {
		r := &f.rings[i]
		is := r.s.NotifyAt != 0
		if is != due[eventNotify|uint32(i)] || is && r.s.Notify == 0 || !is && f.running() && r.atLevel() {
			t.Fatalf("ring %d: NOTIFY %d, %d bytes, due at %d, events %v", i, r.s.Notify, r.channel.s.Fill, r.s.NotifyAt, h.Events())
		}
	}
}

// FuzzRings: what is in the rings is the guest's to invent, and to change at any
// time. The input is a program: an operation in a byte, and what it needs.
func FuzzRings(f *testing.F) {
	f.Add([]byte("\x00\x11\x00\x00\x00\x00\x40\x00\x00\x00\x01\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x04\x04\x04"), byte(0))
	f.Add([]byte("\x02\x00\x01\x04\x09\x02\x02\x01\x05\x03\x01\x04\x01\x07\x00\x04\x08"), byte(0x31))
	f.Add([]byte{0, 0x10, 0, 0, 0, 0, 0x10, 0, 0, 0, 3, 0, 0, 1, 0, 5, 2, 0, 8, 4, 7, 0, 0, 0, 0x11, 0, 6, 1, 4, 9}, byte(0x77))
	f.Fuzz(func(t *testing.T, program []byte, shape byte) {
		g := newGuard(t, Config{Channels: 1, Depth: MinDepth << (shape & 1)})
		g.write(regControl, controlEnable)
		bases := [2]uint64{0x1000, 0x3000}
		logs := [2]uint32{1 + uint32(shape>>1&7), 1 + uint32(shape>>4&7)}
		regs := [2]uint64{channelBase + ringTX, channelBase + ringRX}
		g.write(channelBase+regEnd, uint32(shape>>7)*endSource)
		setUp := func(r int) {
			g.write(regs[r]+regBaseLow, uint32(bases[r]))
			g.write(regs[r]+regSize, logs[r])
			g.write(regs[r]+regCompLow, uint32(bases[r]+0x8000))
			g.write(regs[r]+regCompSize, logs[1-r])
			g.write(regs[r]+regRingControl, ringRun)
		}
		setUp(tx)
		setUp(rx)
		next := func(n int) []byte {
			b := make([]byte, n)
			program = program[copy(b, program):]
			return b
		}
		le := binary.LittleEndian
		for steps := 0; len(program) > 0 && steps < 2000; steps++ {
			op := next(1)[0]
			r := int(op >> 7)
			switch op & 15 {
			case 0: // a descriptor as it is
				i := uint64(next(1)[0]) & (1<<logs[r] - 1)
				copy(g.RAM[bases[r]+i*descSize:], next(descSize))
			case 1, 2, 3: // one that is good, nearly always
				b := next(7)
				i := uint64(b[0]) & (1<<logs[r] - 1)
				d := g.RAM[bases[r]+i*descSize:][:descSize]
				clear(d)
				le.PutUint64(d, uint64(le.Uint16(b[1:])))
				le.PutUint32(d[8:], uint32(le.Uint16(b[3:])))
				d[12], d[16] = b[5]&3, b[6]
			case 4, 5:
				g.advance(1 + int(op>>4&7))
			case 6, 7:
				g.write(doorbellBase+4*uint64(r), uint32(next(1)[0]))
			case 8:
				g.write(doorbellBase+8+4*uint64(r), uint32(next(1)[0]))
			case 9: // all that was completed
				g.write(doorbellBase+8+4*uint64(r), g.Read32(0, regs[r]+regCompTail))
			case 10:
				g.write(regs[r]+regAbortLow, uint32(next(1)[0]))
				g.write(regs[r]+regAbortHigh, 0)
			case 11:
				g.write(regs[r]+regRingControl, uint32(op>>4&3))
			case 12:
				g.write(regs[r]+regRingControl, ringReset)
				logs[r] = 1 + uint32(next(1)[0]&7)
				setUp(r)
			case 13:
				b := next(5)
				g.write(regs[r]+regCoalesce, le.Uint32(b))
				g.write(regs[r]+regThreshold, uint32(b[4])*16)
				g.write(regs[r]+regNotify, uint32(b[3])*16)
			case 14:
				switch op >> 4 & 7 {
				case 0:
					g.write(regControl, uint32(next(1)[0])<<31|controlEnable)
				case 1:
					g.write(channelBase+regChControl, uint32(next(1)[0]))
				case 2:
					g.Master = !g.Master
				case 3:
					g.write(channelBase+regEnd, uint32(next(1)[0]))
				case 4:
					g.write(regControl, uint32(op>>7))
				case 5:
					g.Host.Reset()
					g.Master = true
				case 6:
					g.f.Feed(0, next(int(next(1)[0])))
				case 7:
					g.write(regErrorCause, errorMask)
				}
			case 15:
				if steps%8 == 0 {
					g.check()
				}
			}
		}
		g.advance(200)
		g.check()
	})
}

// FuzzRegisters: any accesses to BAR 0, with time between.
func FuzzRegisters(f *testing.F) {
	f.Add([]byte{0, 0, 0x10, 0, 1, 0, 0, 0, 0, 0x11, 0x10, 0, 3, 0, 0, 0, 0, 0x11, 0x28, 0, 3, 0, 0, 0, 0, 0x11, 0, 0, 1, 0, 0, 0, 4, 1, 0, 0, 5, 0, 0, 0}, byte(1))
	f.Add([]byte{3, 0, 0x30, 7, 1, 2, 3}, byte(7))
	f.Fuzz(func(t *testing.T, program []byte, shape byte) {
		g := newGuard(t, Config{Channels: 1 + int(shape&7), Depth: MinDepth})
		g.f.OnOutput = func(c int, p []byte) { g.f.Feed(c, p) }
		le := binary.LittleEndian
		if shape&8 != 0 { // as a driver would begin
			g.write(regControl, controlEnable)
		}
		for i := range g.RAM { // descriptors of some kind wherever a ring is
			if shape&16 != 0 && i%descSize == 9 {
				g.RAM[i] = 1
			}
		}
		var buf [8]byte
		for steps := 0; len(program) >= 8 && steps < 2000; steps++ {
			op := program[:8]
			program = program[8:]
			size := uint64(1) << (op[0] & 3)
			off := (uint64(le.Uint16(op[1:])) | uint64(op[3]&1)<<16) &^ (size - 1)
			if op[0]&0x80 == 0 {
				// Registers that there are: a page, and what is in it.
				page := []uint64{0, 1, 16, 1 + uint64(op[1]&7), 16 + uint64(op[1]&7)}[op[3]%5]
				off = page*pageSize + uint64(op[1]>>6)*0x100&0x200 + uint64(op[2])&^3
				if op[0]&3 != 3 {
					size = 4
				}
				off &^= size - 1
			}
			p := buf[:size]
			for i := range p {
				p[i] = op[4+i%4]
			}
			switch op[0] >> 2 & 3 {
			case 0, 1:
				g.bounded("write", func() { g.Write(0, off, p) })
			case 2:
				g.bounded("read", func() { g.Read(0, off, p) })
			case 3:
				g.advance(1 + int(op[0]>>4&7))
			}
			if steps%64 == 63 {
				g.check()
			}
		}
		g.advance(100)
		g.check()
	})
}
