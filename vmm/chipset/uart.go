package chipset

import (
	"fmt"

	"fifovm/vmm/clock"
)

// The registers and bits of the National PC16550D data sheet, table II. LCR.DLAB
// decides between the two at offsets 0 and 1. Sections and tables named below are
// of that sheet.
const (
	uartRBR = 0 // read: receiver buffer
	uartTHR = 0 // write: transmitter holding
	uartDLL = 0 // DLAB: divisor, low
	uartIER = 1 // interrupt enable
	uartDLM = 1 // DLAB: divisor, high
	uartIIR = 2 // read: interrupt identification
	uartFCR = 2 // write: FIFO control
	uartLCR = 3 // line control
	uartMCR = 4 // modem control
	uartLSR = 5 // line status
	uartMSR = 6 // modem status
	uartSCR = 7 // scratch

	ierReceived = 1 << 0
	ierEmpty    = 1 << 1
	ierLine     = 1 << 2
	ierModem    = 1 << 3
	ierMask     = 0x0f

	// IIR by falling priority (table IV), and its FIFO bits.
	iirLine     = 0x06
	iirReceived = 0x04
	iirTimeout  = 0x0c
	iirEmpty    = 0x02
	iirModem    = 0x00
	iirNone     = 0x01
	iirFIFO     = 0xc0

	fcrEnable       = 1 << 0
	fcrClearReceive = 1 << 1
	fcrDMAMode      = 1 << 3
	fcrTrigger      = 0xc0

	lcrWordLength = 0x03
	lcrStopBits   = 1 << 2
	lcrParity     = 1 << 3
	lcrBreak      = 1 << 6
	lcrDLAB       = 1 << 7

	mcrDTR  = 1 << 0
	mcrRTS  = 1 << 1
	mcrOUT1 = 1 << 2
	mcrOUT2 = 1 << 3 // on a PC: lets the interrupt out
	mcrLoop = 1 << 4
	mcrMask = 0x1f

	lsrReady     = 1 << 0
	lsrOverrun   = 1 << 1
	lsrBreak     = 1 << 4
	lsrErrors    = 0x1e
	lsrEmpty     = 1<<5 | 1<<6 // holding register, and transmitter
	lsrFIFOError = 1 << 7

	msrChanges = 0x0f
	msrRing    = 1 << 2 // of the changes: only when ring ends
	msrCTS     = 1 << 4
	msrDSR     = 1 << 5
	msrRI      = 1 << 6
	msrDCD     = 1 << 7
)

const (
	uartDepth = 16
	// uartBaud is the rate at divisor 1: 1.8432 MHz / 16.
	uartBaud = 115200
	// uartTimeoutChars is how long received characters may wait below the
	// trigger level (section 8.11), in times of a character.
	uartTimeoutChars = 4
)

// uartTimeout is the kind of the UART's only event: the receive timeout.
const uartTimeout = 0

// UART is a 16550A serial port with a null-modem cable to the host.
//
// What the guest sends is handed on in the write itself, so the transmitter is
// always empty: THRE and TEMT are always set, and the interrupt that a write
// takes back comes again in the same moment. The line of the interrupt then
// stays up. What the guest sends to itself in loopback mode is received at once
// too. Word length, parity and stop bits count for the time of a character and
// nothing else; no parity or framing error ever comes, and a break that the
// guest sends is not heard outside.
//
// The host's end of the cable has DCD, DSR and CTS up, and sends only while the
// guest has RTS up, so a byte is never sent to a guest whose driver does not
// listen yet and would clear its FIFO.
type UART struct {
	clock  *clock.Clock
	name   string
	irq    func(level bool)
	output func(b byte)

	// OnRoom, if set, is called when an access of the guest has made the UART
	// ready for input: all that was received is read and RTS is up. It may call
	// Input. Reset and SetState don't call it.
	OnRoom func()

	s UARTState
}

// UARTState is the state of a UART.
type UARTState struct {
	IER, FCR, LCR, MCR, MSR, SCR uint8
	Divisor                      uint16

	Received [uartDepth]Received // the first Count of them, oldest first
	Count    int
	Errors   uint8 // LSR's error bits: set until LSR is read
	Timeout  bool  // the receive timeout interrupt is pending
	Empty    bool  // the THRE interrupt is pending
	Line     bool  // the level of the interrupt line
}

// Received is a character in the receive FIFO and the errors that LSR shows
// when it is the next to be read.
type Received struct {
	Char, Errors uint8
}

// NewUART gives a UART in its state after power on. name is its owner's name on
// the clock, irq sets its interrupt line, output takes what the guest sends.
func NewUART(c *clock.Clock, name string, irq func(level bool), output func(b byte)) *UART {
	u := &UART{clock: c, name: name, irq: irq, output: output}
	u.s = uartPowerOn
	c.Register(name, u)
	return u
}

// uartPowerOn has the divisor of 115,200 baud, where the chip's is undefined.
var uartPowerOn = UARTState{Divisor: 1, MSR: msrDCD | msrDSR | msrCTS}

// Reset puts the UART into its state after power on. What was received and not
// read is lost, and the interrupt line falls.
func (u *UART) Reset() {
	line := u.s.Line
	u.s = uartPowerOn
	u.s.Line = line
	u.restartTimeout()
	u.updateLine()
}

// State gives the state.
func (u *UART) State() UARTState { return u.s }

// SetState replaces the state.
func (u *UART) SetState(s UARTState) error {
	switch {
	case s.IER&^ierMask != 0, s.FCR&^(fcrEnable|fcrDMAMode|fcrTrigger) != 0, s.MCR&^mcrMask != 0, s.Errors&^lsrErrors != 0:
		return fmt.Errorf("chipset: %s: state has bits set that a 16550A does not have", u.name)
	case s.FCR&fcrEnable == 0 && s.FCR != 0:
		return fmt.Errorf("chipset: %s: state has FIFO settings %#x without FIFOs", u.name, s.FCR)
	case s.Count < 0 || s.Count > s.depth():
		return fmt.Errorf("chipset: %s: state has %d received characters, room is for %d", u.name, s.Count, s.depth())
	}
	for _, r := range s.Received {
		if r.Errors&^lsrErrors != 0 {
			return fmt.Errorf("chipset: %s: state has a received character with errors %#x", u.name, r.Errors)
		}
	}
	u.s = s
	return nil
}

// Input sends p to the guest and tells how much of it fitted. For the rest,
// call again on OnRoom.
func (u *UART) Input(p []byte) int {
	n := 0
	for n < len(p) && u.canReceive() {
		u.receive(p[n], 0)
		n++
	}
	if n > 0 {
		u.restartTimeout()
		u.updateLine()
	}
	return n
}

// Room tells how much an Input would take now.
func (u *UART) Room() int {
	if !u.connected() {
		return 0
	}
	return u.s.depth() - u.s.Count
}

// Break sends a break to the guest, as the key for Linux's SysRq does. It
// reports whether there was room; if not, call again on OnRoom.
func (u *UART) Break() bool {
	if !u.canReceive() {
		return false
	}
	u.receive(0, lsrBreak)
	u.restartTimeout()
	u.updateLine()
	return true
}

// Read answers the guest.
func (u *UART) Read(off uint64, data []byte) {
	for i := range data {
		wasReady := u.ready()
		data[i] = u.readRegister(off + uint64(i))
		u.settle(wasReady)
	}
}

// Write takes the guest's bytes.
func (u *UART) Write(off uint64, data []byte) {
	for i, v := range data {
		wasReady := u.ready()
		u.writeRegister(off+uint64(i), v)
		u.settle(wasReady)
	}
}

// HandleEvent is the receive timeout.
func (u *UART) HandleEvent(uint32, uint64) {
	u.s.Timeout = u.s.Count > 0
	u.updateLine()
}

func (u *UART) readRegister(reg uint64) uint8 {
	s := &u.s
	switch reg {
	case uartRBR:
		if s.LCR&lcrDLAB != 0 {
			return uint8(s.Divisor)
		}
		return u.takeReceived()
	case uartIER:
		if s.LCR&lcrDLAB != 0 {
			return uint8(s.Divisor >> 8)
		}
		return s.IER
	case uartIIR:
		v := s.interrupt()
		if v == iirEmpty {
			s.Empty = false // reading it as the source ends it (table IV)
		}
		if s.FCR&fcrEnable != 0 {
			v |= iirFIFO
		}
		return v
	case uartLCR:
		return s.LCR
	case uartMCR:
		return s.MCR
	case uartLSR:
		v := s.lineStatus()
		s.Errors = 0
		if s.Count > 0 {
			s.Received[0].Errors = 0
		}
		return v
	case uartMSR:
		v := s.MSR
		s.MSR &^= msrChanges
		return v
	case uartSCR:
		return s.SCR
	}
	return 0xff
}

func (u *UART) writeRegister(reg uint64, v uint8) {
	s := &u.s
	switch reg {
	case uartTHR:
		if s.LCR&lcrDLAB != 0 {
			s.Divisor = s.Divisor&0xff00 | uint16(v)
			return
		}
		s.Empty = s.IER&ierEmpty != 0
		if s.MCR&mcrLoop == 0 {
			u.output(v)
			return
		}
		u.receive(v, 0)
		u.restartTimeout()
	case uartIER:
		if s.LCR&lcrDLAB != 0 {
			s.Divisor = s.Divisor&0x00ff | uint16(v)<<8
			return
		}
		// Turning the interrupt on raises it, as the transmitter is empty, also
		// where IIR was read before: Linux tests for this at startup
		// (serial8250_do_startup) and relies on it to start sending.
		if (s.IER^v)&ierEmpty != 0 {
			s.Empty = v&ierEmpty != 0
		}
		s.IER = v & ierMask
	case uartFCR:
		u.writeFCR(v)
	case uartLCR:
		sent := ^s.LCR & v & lcrBreak
		s.LCR = v
		if sent != 0 && s.MCR&mcrLoop != 0 {
			u.receive(0, lsrBreak)
			u.restartTimeout()
		}
	case uartMCR:
		s.MCR = v & mcrMask
		s.updateModemStatus()
	case uartSCR:
		s.SCR = v
	}
	// LSR is written by the factory's test only, MSR and IIR by nobody.
}

// writeFCR follows section 8.5: turning the FIFOs on or off empties them, and
// without the enable bit no other is programmed.
func (u *UART) writeFCR(v uint8) {
	s := &u.s
	if v&fcrEnable == 0 {
		v = 0
	}
	if (s.FCR^v)&fcrEnable != 0 || v&fcrClearReceive != 0 {
		s.Count, s.Timeout = 0, false
	}
	s.FCR = v & (fcrEnable | fcrDMAMode | fcrTrigger)
	u.restartTimeout()
}

// receive takes a character off the cable. Without room it is an overrun: the
// FIFO keeps what it has, the single register takes the newer one (section 8.4, bit 1).
func (u *UART) receive(char, errors uint8) {
	s := &u.s
	switch {
	case s.Count < s.depth():
		s.Received[s.Count] = Received{Char: char, Errors: errors}
		s.Count++
		if s.Count == 1 {
			s.Errors |= errors
		}
	case s.FCR&fcrEnable == 0:
		s.Received[0] = Received{Char: char, Errors: errors}
		s.Errors |= errors | lsrOverrun
	default:
		s.Errors |= lsrOverrun
	}
}

// takeReceived gives the oldest character; without one, zero.
func (u *UART) takeReceived() uint8 {
	s := &u.s
	if s.Count == 0 {
		return 0
	}
	char := s.Received[0].Char
	copy(s.Received[:], s.Received[1:s.Count])
	s.Count--
	if s.Count > 0 {
		s.Errors |= s.Received[0].Errors
	}
	s.Timeout = false
	u.restartTimeout()
	return char
}

// restartTimeout starts the wait of characters below the trigger level anew; it
// is called whenever one came or went.
func (u *UART) restartTimeout() {
	u.clock.Cancel(u.name, uartTimeout)
	if s := &u.s; s.FCR&fcrEnable != 0 && s.Count > 0 && s.Count < s.trigger() {
		u.clock.Schedule(u.clock.Now()+uartTimeoutChars*s.charTime(), u.name, uartTimeout, 0)
	}
}

// settle ends an access of the guest.
func (u *UART) settle(wasReady bool) {
	u.updateLine()
	if !wasReady && u.ready() && u.OnRoom != nil {
		u.OnRoom()
	}
}

func (u *UART) updateLine() {
	s := &u.s
	// In loopback mode OUT2's pin is inactive whatever the bit says.
	level := s.MCR&(mcrOUT2|mcrLoop) == mcrOUT2 && s.interrupt() != iirNone
	if level != s.Line {
		s.Line = level
		u.irq(level)
	}
}

func (u *UART) connected() bool  { return u.s.MCR&(mcrRTS|mcrLoop) == mcrRTS }
func (u *UART) canReceive() bool { return u.Room() > 0 }
func (u *UART) ready() bool      { return u.connected() && u.s.Count == 0 }

// interrupt is IIR without the FIFO bits.
func (s *UARTState) interrupt() uint8 {
	switch {
	case s.IER&ierLine != 0 && s.Errors != 0:
		return iirLine
	case s.IER&ierReceived != 0 && s.Count >= s.trigger():
		return iirReceived
	case s.IER&ierReceived != 0 && s.Timeout:
		return iirTimeout
	case s.IER&ierEmpty != 0 && s.Empty:
		return iirEmpty
	case s.IER&ierModem != 0 && s.MSR&msrChanges != 0:
		return iirModem
	}
	return iirNone
}

func (s *UARTState) lineStatus() uint8 {
	v := s.Errors | lsrEmpty
	if s.Count > 0 {
		v |= lsrReady
	}
	if s.FCR&fcrEnable != 0 {
		for _, r := range s.Received[:s.Count] {
			if r.Errors != 0 {
				v |= lsrFIFOError
			}
		}
	}
	return v
}

// updateModemStatus derives the lines that come in: the cable's, or in loopback
// mode MCR's own (section 8.8), and notes which have changed.
func (s *UARTState) updateModemStatus() {
	in := uint8(msrDCD | msrDSR | msrCTS)
	if s.MCR&mcrLoop != 0 {
		in = 0
		for _, wire := range [...]struct{ out, in uint8 }{
			{mcrRTS, msrCTS}, {mcrDTR, msrDSR}, {mcrOUT1, msrRI}, {mcrOUT2, msrDCD},
		} {
			if s.MCR&wire.out != 0 {
				in |= wire.in
			}
		}
	}
	changes := (s.MSR ^ in) >> 4
	if in&msrRI != 0 {
		changes &^= msrRing
	}
	s.MSR = in | s.MSR&msrChanges | changes
}

func (s *UARTState) depth() int {
	if s.FCR&fcrEnable == 0 {
		return 1
	}
	return uartDepth
}

// trigger is how many characters raise the interrupt.
func (s *UARTState) trigger() int {
	if s.FCR&fcrEnable == 0 {
		return 1
	}
	return [...]int{1, 4, 8, 14}[s.FCR>>6]
}

// charTime is the time of one character on the line in ns. Divisor 0, which
// stops the chip, counts as 1.
func (s *UARTState) charTime() int64 {
	bits := 1 + 5 + int64(s.LCR&lcrWordLength) + 1
	if s.LCR&lcrParity != 0 {
		bits++
	}
	if s.LCR&lcrStopBits != 0 {
		bits++
	}
	return bits * int64(max(s.Divisor, 1)) * second / uartBaud
}
