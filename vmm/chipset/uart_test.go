package chipset

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"fifovm/vmm/clock"
)

// port is a UART with both of its ends in the test's hands.
type port struct {
	t     testing.TB
	now   hand
	clock *clock.Clock
	*UART
	sent  []byte
	line  bool
	edges int // rising
}

func newPort(t testing.TB) *port {
	p := &port{t: t}
	p.clock = clock.New(&p.now)
	p.UART = NewUART(p.clock, "uart", func(level bool) {
		if level == p.line {
			t.Errorf("the line is set to %v again", level)
		}
		if p.line = level; level {
			p.edges++
		}
	}, func(b byte) { p.sent = append(p.sent, b) })
	return p
}

func (p *port) in(reg uint64) uint8 {
	var b [1]byte
	p.Read(reg, b[:])
	return b[0]
}

func (p *port) out(reg uint64, v uint8) { p.Write(reg, []byte{v}) }

func (p *port) pass(ns int64) {
	p.now += hand(ns)
	p.clock.RunDue()
}

func (p *port) expect(what string, got, want uint8) {
	p.t.Helper()
	if got != want {
		p.t.Errorf("%s is %#02x, want %#02x", what, got, want)
	}
}

// open does what a driver does before it receives.
func (p *port) open(fcr, ier uint8) {
	p.out(uartFCR, fcr)
	p.out(uartIER, ier)
	p.out(uartMCR, mcrDTR|mcrRTS|mcrOUT2)
}

func TestUARTRegisters(t *testing.T) {
	p := newPort(t)
	for reg, want := range []uint8{0, 0, 0x01, 0, 0, 0x60, 0xb0, 0} {
		p.expect(fmt.Sprintf("register %d after power on", reg), p.in(uint64(reg)), want)
	}
	for _, c := range []struct {
		reg              uint64
		dlab             bool
		wrote, want, iir uint8
	}{
		{reg: uartIER, wrote: 0xff, want: 0x0f},
		{reg: uartIER, wrote: 0xa5, want: 0x05},
		{reg: uartIER, wrote: 0x00, want: 0x00},
		{reg: uartLCR, wrote: 0x7f, want: 0x7f},
		{reg: uartLCR, wrote: 0x03, want: 0x03},
		{reg: uartMCR, wrote: 0xff, want: 0x1f},
		{reg: uartMCR, wrote: 0x00, want: 0x00},
		{reg: uartLSR, wrote: 0x1f, want: 0x60},
		{reg: uartSCR, wrote: 0xff, want: 0xff},
		{reg: uartSCR, wrote: 0x5a, want: 0x5a},
		{reg: uartDLL, dlab: true, wrote: 0x34, want: 0x34},
		{reg: uartDLM, dlab: true, wrote: 0x12, want: 0x12},
		{reg: uartDLL, dlab: true, wrote: 0x00, want: 0x00},
		{reg: uartFCR, wrote: 0x01, want: 0xc1}, // reads as IIR
		{reg: uartFCR, wrote: 0xef, want: 0xc1},
		{reg: uartFCR, wrote: 0xe6, want: 0x01},
	} {
		if c.dlab {
			p.out(uartLCR, lcrDLAB)
		}
		p.out(c.reg, c.wrote)
		p.expect(fmt.Sprintf("register %d (DLAB %v) after %#02x", c.reg, c.dlab, c.wrote), p.in(c.reg), c.want)
		if c.dlab {
			p.out(uartLCR, 0)
		}
	}
	if len(p.sent) != 0 {
		t.Errorf("the divisor was sent as %x", p.sent)
	}
	p.out(uartMSR, 0)
	p.in(uartMSR) // the changes of the MCR writes
	p.expect("MSR after a write", p.in(uartMSR), 0xb0)
}

// TestUARTWide: a wide access is byte accesses, lowest address first.
func TestUARTWide(t *testing.T) {
	p := newPort(t)
	p.Write(uartLCR, []byte{0x83, 0x03, 0xff, 0xff})
	p.Write(0, []byte{0x34, 0x12})
	b := make([]byte, 8)
	p.Read(0, b)
	if want := []byte{0x34, 0x12, 0x01, 0x83, 0x03, 0x60, 0xb0, 0}; !bytes.Equal(b, want) {
		t.Errorf("all registers are %x, want %x", b, want)
	}
}

// TestUARTLinuxProbe follows autoconfig(), autoconfig_16550a() with all variants
// and size_fifo() of Linux 6.12's 8250_port.c.
func TestUARTLinuxProbe(t *testing.T) {
	const efr, confModeA, confModeB = 2, 0x80, 0xbf
	p := newPort(t)

	scratch := p.in(uartIER)
	p.out(uartIER, 0)
	p.expect("IER, all off", p.in(uartIER)&0x0f, 0)
	p.out(uartIER, 0x0f)
	p.expect("IER, all on", p.in(uartIER)&0x0f, 0x0f)
	p.out(uartIER, scratch)

	saveMCR, saveLCR := p.in(uartMCR), p.in(uartLCR)
	p.out(uartMCR, mcrLoop|mcrOUT2|mcrRTS)
	p.expect("MSR in loopback", p.in(uartMSR)&0xf0, msrDCD|msrCTS)
	p.out(uartMCR, saveMCR)

	p.out(uartLCR, confModeB)
	p.out(efr, 0)
	p.out(uartLCR, 0)
	p.out(uartFCR, fcrEnable)
	p.expect("IIR's FIFO bits", p.in(uartIIR)&0xc0, 0xc0) // 16550A

	p.out(uartLCR, confModeA)
	if p.in(efr) == 0 {
		t.Error("looks like a 16650 v1")
	}
	p.out(uartLCR, confModeB)
	if p.in(efr) == 0 {
		t.Error("looks like a 16650 v2")
	}
	// National's Super I/O has EXCR1, which holds the loop bit, here.
	p.out(uartLCR, 0)
	mcr := p.in(uartMCR)
	p.out(uartLCR, 0xe0)
	if excr1 := p.in(2); (excr1^mcr)&mcrLoop == 0 {
		p.out(uartLCR, 0)
		p.out(uartMCR, mcr^mcrLoop)
		p.out(uartLCR, 0xe0)
		excr1 = p.in(2)
		p.out(uartLCR, 0)
		p.out(uartMCR, mcr)
		if (excr1^mcr)&mcrLoop != 0 {
			t.Error("looks like a National Super I/O")
		}
	}
	p.out(uartLCR, 0)
	for _, lcr := range []uint8{0, confModeA} {
		p.out(uartLCR, lcr)
		p.out(uartFCR, fcrEnable|0x20)
		p.expect("IIR's bits of a 16750", p.in(uartIIR)&0xe0, 0xc0)
		p.out(uartFCR, fcrEnable)
	}
	p.out(uartLCR, 0)
	p.out(uartIER, 0x40)
	p.expect("IER of an XScale", p.in(uartIER), 0)

	p.out(uartFCR, fcrEnable|fcrClearReceive|0x04)
	p.out(uartMCR, mcrLoop)
	p.out(uartLCR, confModeA)
	p.out(uartDLL, 1)
	p.out(uartDLM, 0)
	p.out(uartLCR, 0x03)
	for i := range 256 {
		p.out(uartTHR, uint8(i))
	}
	p.pass(20e6)
	count := 0
	for ; p.in(uartLSR)&lsrReady != 0 && count < 256; count++ {
		p.expect("looped byte", p.in(uartRBR), uint8(count))
	}
	if count != 16 {
		t.Errorf("the FIFO looks %d deep", count)
	}

	p.out(uartLCR, saveLCR)
	p.out(uartMCR, saveMCR)
	p.out(uartFCR, fcrEnable)
	p.out(uartFCR, fcrEnable|fcrClearReceive|0x04)
	p.out(uartFCR, 0)
	p.in(uartRBR)
	p.out(uartIER, 0)
	if len(p.sent) != 0 || p.edges != 0 {
		t.Errorf("probing sent %x and raised %d interrupts", p.sent, p.edges)
	}
}

// TestUARTLinuxStartup follows the tests of serial8250_do_startup(): THRE must
// be raised again by the enable, with and without OUT2, and TXEN must work.
func TestUARTLinuxStartup(t *testing.T) {
	p := newPort(t)
	p.out(uartFCR, 0)
	p.in(uartLSR)
	p.in(uartRBR)
	p.in(uartIIR)
	p.in(uartMSR)

	p.expect("LSR", p.in(uartLSR), lsrEmpty)
	p.out(uartIER, ierEmpty)
	p.expect("first IIR", p.in(uartIIR), iirEmpty)
	p.out(uartIER, 0)
	p.out(uartIER, ierEmpty)
	p.expect("second IIR", p.in(uartIIR), iirEmpty) // else UART_BUG_THRE
	p.out(uartIER, 0)
	if p.edges != 0 {
		t.Errorf("%d interrupts without OUT2", p.edges)
	}

	p.out(uartLCR, 0x03)
	p.out(uartMCR, mcrOUT2)
	p.out(uartIER, ierEmpty)
	if !p.line {
		t.Error("no interrupt with OUT2")
	}
	lsr, iir := p.in(uartLSR), p.in(uartIIR)
	p.out(uartIER, 0)
	if lsr&0x40 != 0 && iir&iirNone != 0 {
		t.Error("looks like UART_BUG_TXEN")
	}
	if p.line {
		t.Error("the interrupt stays after the enable is off")
	}
}

// TestUARTEmptyInterrupt is the life of the THRE interrupt and its line.
func TestUARTEmptyInterrupt(t *testing.T) {
	p := newPort(t)
	p.out(uartMCR, mcrOUT2)
	step := func(what string, line bool, edges int) {
		t.Helper()
		if p.line != line || p.edges != edges {
			t.Errorf("%s: line %v after %d edges, want %v after %d", what, p.line, p.edges, line, edges)
		}
	}
	p.out(uartTHR, 'a')
	step("sent with the interrupt off", false, 0)
	p.out(uartIER, ierEmpty)
	step("enabled", true, 1)
	p.in(uartLSR)
	step("LSR read", true, 1)
	p.expect("IIR", p.in(uartIIR), iirEmpty)
	step("IIR read", false, 1)
	p.expect("IIR again", p.in(uartIIR), iirNone)
	p.out(uartIER, ierEmpty)
	step("enabled while on", false, 1)
	p.out(uartTHR, 'b')
	step("sent", true, 2)
	p.out(uartTHR, 'c')
	step("sent more", true, 2)
	p.out(uartIER, ierEmpty|ierLine)
	step("another enabled", true, 2)
	p.out(uartMCR, 0)
	step("OUT2 off", false, 2)
	p.out(uartMCR, mcrOUT2)
	step("OUT2 on", true, 3)
	p.out(uartMCR, mcrOUT2|mcrLoop)
	step("loopback", false, 3)
	p.out(uartMCR, mcrLoop)
	step("loopback without OUT2", false, 3)
	p.out(uartMCR, mcrOUT2)
	step("no loopback", true, 4)
	p.out(uartIER, 0)
	step("disabled", false, 4)
	p.out(uartIER, ierEmpty)
	step("enabled again", true, 5)
	p.Reset()
	step("reset", false, 5)
	if string(p.sent) != "abc" {
		t.Errorf("sent %q", p.sent)
	}
}

// TestUARTPriority: IIR shows the most urgent, and each is ended by its own
// cure.
func TestUARTPriority(t *testing.T) {
	p := newPort(t)
	p.open(fcrEnable, ierMask) // trigger level 1
	p.in(uartMSR)
	p.out(uartMCR, mcrLoop|mcrOUT2|mcrRTS) // DSR falls
	p.out(uartMCR, mcrRTS|mcrOUT2)         // and comes back
	p.Break()
	for _, c := range []struct {
		iir, cure uint8
	}{{iirLine, uartLSR}, {iirReceived, uartRBR}, {iirEmpty, 0xff}, {iirModem, uartMSR}, {iirNone, 0xff}} {
		if c.iir != iirNone && !p.line {
			t.Errorf("no interrupt for IIR %#x", c.iir)
		}
		p.expect("IIR", p.in(uartIIR), c.iir|iirFIFO)
		if c.cure != 0xff {
			p.in(uint64(c.cure))
		}
	}
	if p.line {
		t.Error("the line stays up")
	}
}

func TestUARTTrigger(t *testing.T) {
	for fcr, level := range map[uint8]int{0x00: 1, 0x01: 1, 0x41: 4, 0x81: 8, 0xc1: 14} {
		p := newPort(t)
		p.open(fcr, ierReceived)
		for n := 1; n <= level; n++ {
			if p.Input([]byte{byte(n)}) != 1 {
				t.Fatalf("FCR %#x: no room for byte %d", fcr, n)
			}
			if p.line != (n == level) {
				t.Errorf("FCR %#x: line is %v with %d bytes", fcr, p.line, n)
			}
		}
		p.expect("IIR", p.in(uartIIR)&0x0f, iirReceived)
		p.expect("byte", p.in(uartRBR), 1)
		if p.line {
			t.Errorf("FCR %#x: line is up with %d bytes", fcr, level-1)
		}
	}
}

func TestUARTTimeout(t *testing.T) {
	p := newPort(t)
	p.out(uartLCR, lcrDLAB)
	p.out(uartDLL, 12) // 9,600 baud
	p.out(uartLCR, 0x03)
	p.open(0x81, ierReceived)
	const timeout = 4 * (10 * int64(1e9) / 9600)
	edge := func(what string, want int) {
		t.Helper()
		if p.edges != want {
			t.Errorf("%s: %d interrupts, want %d", what, p.edges, want)
		}
	}

	p.Input([]byte("ab"))
	p.pass(timeout - 1)
	edge("before the timeout", 0)
	p.Input([]byte("c"))
	p.pass(timeout - 1)
	edge("a character starts it anew", 0)
	p.pass(1)
	edge("timeout", 1)
	p.expect("IIR", p.in(uartIIR), iirTimeout|iirFIFO)
	p.expect("IIR stays", p.in(uartIIR), iirTimeout|iirFIFO)
	p.expect("byte", p.in(uartRBR), 'a')
	p.expect("IIR after a read", p.in(uartIIR), iirNone|iirFIFO)
	p.pass(timeout)
	edge("what is left times out too", 2)
	p.Input([]byte("defgh"))
	p.expect("IIR at the trigger level", p.in(uartIIR)&^iirFIFO, iirTimeout) // 7 bytes
	p.Input([]byte("i"))
	p.expect("IIR at the trigger level", p.in(uartIIR)&^iirFIFO, iirReceived)
	for p.in(uartLSR)&lsrReady != 0 {
		p.in(uartRBR)
	}
	p.pass(10 * timeout)
	if edge("read to the end", 2); p.clock.Next() != clock.Never {
		t.Error("an event waits for an empty FIFO")
	}

	p.Input([]byte("j"))
	p.out(uartFCR, 0x81|fcrClearReceive)
	p.pass(10 * timeout)
	edge("cleared", 2)
}

func TestUARTCharTime(t *testing.T) {
	for _, c := range []struct {
		lcr     uint8
		divisor uint16
		bits    int64
	}{
		{0x00, 1, 7}, {0x03, 1, 10}, {0x07, 1, 11}, {0x0b, 1, 11}, {0x1f, 1, 12}, {0x03, 12, 120}, {0x03, 0xffff, 655350}, {0x03, 0, 10},
	} {
		s := UARTState{LCR: c.lcr, Divisor: c.divisor}
		if got, want := s.charTime(), c.bits*1e9/115200; got != want {
			t.Errorf("LCR %#x, divisor %d: %d ns, want %d", c.lcr, c.divisor, got, want)
		}
	}
}

func TestUARTOverrun(t *testing.T) {
	for _, c := range []struct {
		fcr  uint8
		want string
	}{{0, "z"}, {fcrEnable, "abcdefghijklmnop"}} {
		p := newPort(t)
		p.open(c.fcr, 0)
		p.out(uartMCR, mcrLoop)
		for _, b := range []byte("abcdefghijklmnopqz") {
			p.out(uartTHR, b)
		}
		p.out(uartIER, ierLine)
		p.expect("IIR", p.in(uartIIR)&0x0f, iirLine)
		p.expect("LSR", p.in(uartLSR), lsrEmpty|lsrOverrun|lsrReady)
		p.expect("LSR again", p.in(uartLSR), lsrEmpty|lsrReady)
		var got []byte
		for p.in(uartLSR)&lsrReady != 0 {
			got = append(got, p.in(uartRBR))
		}
		if string(got) != c.want {
			t.Errorf("FCR %#x: received %q, want %q", c.fcr, got, c.want)
		}
		if len(p.sent) != 0 {
			t.Errorf("loopback sent %q", p.sent)
		}
	}
}

// TestUARTBreak: a break is told of when it is the next to be read, not before.
func TestUARTBreak(t *testing.T) {
	p := newPort(t)
	p.open(0x81, ierLine)
	p.Input([]byte("a"))
	p.Break()
	p.Input([]byte("h")) // as for SysRq
	if p.line {
		t.Error("interrupt before the break is the next to be read")
	}
	p.expect("LSR", p.in(uartLSR), lsrEmpty|lsrReady|lsrFIFOError)
	p.expect("byte", p.in(uartRBR), 'a')
	if !p.line {
		t.Error("no interrupt for the break")
	}
	p.expect("LSR", p.in(uartLSR), lsrEmpty|lsrReady|lsrFIFOError|lsrBreak)
	p.expect("LSR again", p.in(uartLSR), lsrEmpty|lsrReady)
	p.expect("byte", p.in(uartRBR), 0)
	p.expect("LSR", p.in(uartLSR), lsrEmpty|lsrReady)
	p.expect("byte", p.in(uartRBR), 'h')

	p.out(uartMCR, mcrLoop)
	p.out(uartLCR, 0x03|lcrBreak)
	p.out(uartLCR, 0x03|lcrBreak)
	p.expect("LSR after a break in loopback", p.in(uartLSR), lsrEmpty|lsrReady|lsrFIFOError|lsrBreak)
	p.in(uartRBR)
	p.expect("LSR", p.in(uartLSR), lsrEmpty)
	if p.Break() {
		t.Error("a break came in through the loopback")
	}
}

func TestUARTModemStatus(t *testing.T) {
	p := newPort(t)
	for _, c := range []struct{ mcr, want uint8 }{
		{0, 0xb0},
		{mcrLoop, 0x0b},           // CTS, DSR, DCD fall
		{mcrLoop | mcrRTS, 0x11},  // CTS comes
		{mcrLoop | mcrDTR, 0x23},  // CTS goes, DSR comes
		{mcrLoop | mcrOUT1, 0x42}, // DSR goes, RI comes: no change of ring
		{mcrLoop | mcrOUT2, 0x8c}, // RI goes, DCD comes
		{mcrLoop | mcrDTR | mcrRTS | mcrOUT1 | mcrOUT2, 0xf0 | 3}, // the others come
		{mcrLoop | mcrDTR | mcrRTS | mcrOUT1 | mcrOUT2, 0xf0},     // nothing
		{mcrDTR | mcrRTS | mcrOUT1 | mcrOUT2, 0xb0 | 4},           // the cable has no ring
		{0, 0xb0},
	} {
		p.out(uartMCR, c.mcr)
		p.expect(fmt.Sprintf("MSR with MCR %#02x", c.mcr), p.in(uartMSR), c.want)
		p.expect("MSR again", p.in(uartMSR), c.want&0xf0)
	}
}

// TestUARTInputWaits: input goes to a driver that listens, and OnRoom says when.
func TestUARTInputWaits(t *testing.T) {
	p := newPort(t)
	rooms := 0
	p.OnRoom = func() { rooms++ }
	accepts := func(what string, n, wantRooms int) {
		t.Helper()
		if got := p.Input(make([]byte, 20)); got != n || rooms != wantRooms {
			t.Errorf("%s: %d bytes fit after %d calls of OnRoom, want %d after %d", what, got, rooms, n, wantRooms)
		}
	}
	accepts("power on", 0, 0)
	p.out(uartFCR, fcrEnable)
	p.out(uartMCR, mcrDTR|mcrOUT2)
	accepts("RTS down", 0, 0)
	p.out(uartMCR, mcrRTS|mcrLoop)
	accepts("loopback", 0, 0)
	p.out(uartMCR, mcrRTS)
	accepts("RTS up", 16, 1)
	accepts("full", 0, 1)
	p.in(uartRBR)
	accepts("one byte read", 1, 1)
	p.out(uartMCR, 0)
	for range 16 {
		p.in(uartRBR)
	}
	accepts("all read, RTS down", 0, 1)
	p.out(uartMCR, mcrRTS)
	accepts("RTS up", 16, 2)
	p.out(uartFCR, fcrEnable|fcrClearReceive)
	accepts("cleared", 16, 3)
	p.out(uartFCR, 0)
	accepts("no FIFOs", 1, 4)
	p.in(uartRBR)
	p.in(uartRBR)
	accepts("read", 1, 5)
}

// TestUARTInOrder: whatever the settings, what the host sends is what the guest
// receives, and what the guest sends is what the host receives, with a driver
// that waits for edges of the interrupt line, as an I/O APIC shows it to Linux.
func TestUARTInOrder(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		p := newPort(t)
		toGuest, toHost := make([]byte, 300+rnd.IntN(300)), make([]byte, 300+rnd.IntN(300))
		for _, b := range [][]byte{toGuest, toHost} {
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
		}

		// The host: offers what is left whenever there is room.
		left := toGuest
		offer := func() {
			n := p.Input(left[:min(len(left), 1+rnd.IntN(40))])
			left = left[n:]
		}
		p.OnRoom = offer

		// The guest: serial8250_handle_irq until IIR has nothing more.
		var got []byte
		unsent := toHost
		ier := uint8(ierReceived | ierLine | rnd.Uint32N(2)*ierModem)
		handle := func() {
			for p.in(uartIIR)&iirNone == 0 {
				lsr := p.in(uartLSR)
				for max := 1 + rnd.IntN(256); lsr&lsrReady != 0 && max > 0; max-- {
					got = append(got, p.in(uartRBR))
					lsr = p.in(uartLSR)
				}
				p.in(uartMSR)
				if lsr&0x20 != 0 && p.in(uartIER)&ierEmpty != 0 {
					n := min(len(unsent), 1+rnd.IntN(16))
					for _, b := range unsent[:n] {
						p.out(uartTHR, b)
					}
					if unsent = unsent[n:]; len(unsent) == 0 {
						p.out(uartIER, ier)
					}
				}
			}
		}
		fcr := []uint8{0, 0x01, 0x41, 0x81, 0xc1}[rnd.IntN(5)]
		p.open(fcr, ier|ierEmpty)

		for edges := 0; len(got) < len(toGuest) || len(unsent) > 0; {
			if p.edges == edges {
				// Nothing to handle: the host sends, or time goes by.
				if rnd.IntN(2) == 0 {
					offer()
				}
				if next := p.clock.Next(); p.edges == edges && next != clock.Never {
					p.now = max(p.now, hand(next))
					p.clock.RunDue()
				}
				if p.edges == edges && len(left) == 0 && p.clock.Next() == clock.Never && (len(got) < len(toGuest) || len(unsent) > 0) {
					t.Fatalf("seed %d: stuck with %d of %d received, %d to send, IIR %#x", seed, len(got), len(toGuest), len(unsent), p.in(uartIIR))
				}
				continue
			}
			edges = p.edges
			handle()
		}
		if !bytes.Equal(got, toGuest) {
			t.Errorf("seed %d: the guest received something else", seed)
		}
		if !bytes.Equal(p.sent, toHost) {
			t.Errorf("seed %d: the host received something else", seed)
		}
		if got := p.State().Errors; got != 0 {
			t.Errorf("seed %d: errors %#x", seed, got)
		}
	}
}

func TestUARTDoesNotAllocate(t *testing.T) {
	now := new(hand)
	u := NewUART(clock.New(now), "uart", func(bool) {}, func(byte) {})
	u.Write(uartFCR, []byte{0x81})
	u.Write(uartMCR, []byte{mcrRTS | mcrOUT2})
	u.Write(uartIER, []byte{ierMask})
	b, in := make([]byte, 1), []byte("0123456789")
	if n := testing.AllocsPerRun(1000, func() {
		u.Write(uartTHR, b)
		u.Read(uartIIR, b)
		u.Input(in)
		for range in {
			u.Read(uartRBR, b)
		}
	}); n != 0 {
		t.Errorf("accesses allocate %v times", n)
	}
}

func BenchmarkUARTSend(b *testing.B) {
	now := new(hand)
	u := NewUART(clock.New(now), "uart", func(bool) {}, func(byte) {})
	u.Write(uartFCR, []byte{0x81})
	data := make([]byte, 1)
	b.ReportAllocs()
	for range b.N {
		u.Read(uartLSR, data)
		u.Write(uartTHR, data)
	}
}

// TestUARTReset: a pending timeout does not outlive a reset.
func TestUARTReset(t *testing.T) {
	p := newPort(t)
	p.open(0x81, ierReceived)
	p.Input([]byte("a"))
	p.Reset()
	if p.State() != uartPowerOn || p.clock.Next() != clock.Never {
		t.Errorf("after reset: %+v, next event at %d", p.State(), p.clock.Next())
	}
	if p.line {
		t.Error("the line is up after reset")
	}
}
