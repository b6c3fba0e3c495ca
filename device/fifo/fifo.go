// Package fifo is the target hardware: a PCI function with up to eight channels,
// each of them a FIFO between a transmit ring (host to FIFO) and a receive ring
// (FIFO to host) of descriptors in the guest's memory.
//
// docs/hardware.md is its manual, and what this package is tested against. The
// model knows nothing of faults and traces: those are device.Boundary's.
//
// Where to look: fifo.go is the whole function and its life, registers.go the
// register map, ring.go a descriptor ring, channel.go a channel's FIFO and what
// is behind it, state.go what is remembered.
package fifo

import (
	"fmt"

	"fifovm/device"
)

// PCI identification. The vendor is nobody's, and the one of QEMU's edu device.
const (
	VendorID = 0x1234
	DeviceID = 0xf1f0
	classID  = 0xff0000 // fits no defined class
)

// Limits of a Config.
const (
	MaxChannels = 8
	MinDepth    = 4 << 10
	MaxDepth    = 16 << 20
)

// Config is how the hardware is built. The zero Config is the default.
type Config struct {
	Channels int // 1 to MaxChannels; 0 is 2
	Depth    int // bytes of each FIFO, a power of two from MinDepth to MaxDepth; 0 is 64 KiB
	// Latency is how long the device takes in ns before it acts upon a doorbell
	// or upon what it waited for, and for each request; 0 is 1,000.
	Latency int64
	// Rate is how many bytes a ring moves in a us; 0 is 1,000.
	Rate int64
}

const (
	defaultChannels = 2
	defaultDepth    = 64 << 10
	defaultLatency  = 5000
	defaultRate     = 1000
	maxLatency      = 1_000_000_000
	maxRate         = 1_000_000
)

func (c *Config) complete() error {
	for _, d := range []struct {
		v *int64
		d int64
	}{{&c.Latency, defaultLatency}, {&c.Rate, defaultRate}} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	if c.Channels == 0 {
		c.Channels = defaultChannels
	}
	if c.Depth == 0 {
		c.Depth = defaultDepth
	}
	switch {
	case c.Channels < 1 || c.Channels > MaxChannels:
		return fmt.Errorf("fifo: %d channels: want 1 to %d", c.Channels, MaxChannels)
	case c.Depth < MinDepth || c.Depth > MaxDepth || c.Depth&(c.Depth-1) != 0:
		return fmt.Errorf("fifo: depth of %d bytes: want a power of two from %d to %d", c.Depth, MinDepth, MaxDepth)
	case c.Latency < device.MinDelay || c.Latency > maxLatency:
		return fmt.Errorf("fifo: latency of %d ns: want %d to %d", c.Latency, device.MinDelay, int64(maxLatency))
	case c.Rate < 1 || c.Rate > maxRate:
		return fmt.Errorf("fifo: rate of %d bytes a us: want 1 to %d", c.Rate, maxRate)
	}
	return nil
}

// Kinds of events: the ring's index is in the low byte.
const (
	eventWork     = 0x000 // a ring goes on
	eventCoalesce = 0x100 // a ring's interrupt has waited long enough
	eventSource   = 0x200 // the source of a ring's channel has made bytes
	eventReset    = 0x300 // the reset is over
	eventAbort    = 0x400 // a ring looks for a request to abort
	eventNotify   = 0x500 // a ring's level was reached
	eventKind     = 0xf00
)

// resetTime is how long a reset takes, in ns.
const resetTime = 10_000

// FIFO is the device.
type FIFO struct {
	cfg      Config
	host     device.Host
	global   Global
	channels []channel
	rings    []ring // by index: 2 * channel, and 1 more for receive
	intx     bool   // level that the pin was driven to

	// OnOutput takes what comes out of a channel whose end is the host's. p is
	// valid during the call, and until the call feeds the channel.
	OnOutput func(channel int, p []byte)
}

// Global is the state of the global registers.
type Global struct {
	Control    uint32 // ENABLE
	Resetting  bool
	Scratch    uint32
	IRQCause   uint32
	IRQEnable  uint32
	ErrorCause uint32
	Interrupts uint32 // sent since reset
	Vector     uint32 // of errors
	TimeHigh   uint32 // of the time when its low half was read
}

// New makes the device.
func New(cfg Config) (*FIFO, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	f := &FIFO{cfg: cfg, channels: make([]channel, cfg.Channels), rings: make([]ring, 2*cfg.Channels)}
	for i := range f.channels {
		f.channels[i].init(f, i)
	}
	for i := range f.rings {
		f.rings[i].init(f, i)
	}
	f.clear()
	return f, nil
}

// Info says what the device is.
func (f *FIFO) Info() device.Info {
	return device.Info{
		Vendor: VendorID, Device: DeviceID, SubVendor: VendorID, SubDevice: 1, Class: classID, Revision: 1,
		BARs: []device.BAR{{Index: 0, Size: barSize, Wide: true}},
		MSIX: int(f.vectors()), MSIXBAR: 4, INTx: true,
	}
}

// Attach gives the device its host.
func (f *FIFO) Attach(h device.Host) { f.host = h }

// Reset puts everything into the state after power-on.
func (f *FIFO) Reset() {
	f.global = Global{}
	f.clear()
	f.pin()
}

// clear resets all but the global registers.
func (f *FIFO) clear() {
	for i := range f.channels {
		f.channels[i].reset()
	}
	for i := range f.rings {
		f.rings[i].reset()
	}
}

// beginReset is the soft reset: it takes its time, and READY says when it is
// over. The scratch register keeps its value.
func (f *FIFO) beginReset() {
	device.SoftReset(f.host)
	for i := range f.rings {
		f.host.Cancel(eventWork | uint32(i))
		f.host.Cancel(eventCoalesce | uint32(i))
		f.host.Cancel(eventAbort | uint32(i))
		f.host.Cancel(eventNotify | uint32(i))
	}
	for i := range f.channels {
		f.host.Cancel(eventSource | uint32(2*i))
	}
	f.host.Cancel(eventReset)
	f.global = Global{Resetting: true, Scratch: f.global.Scratch}
	f.clear()
	f.pin()
	f.host.Schedule(f.host.Now()+resetTime, eventReset, 0)
}

// Event goes on with what takes time.
func (f *FIFO) Event(kind uint32, _ uint64) {
	i := int(kind & 0xff)
	if i >= len(f.rings) { // from a state that somebody has made
		return
	}
	switch kind & eventKind {
	case eventWork:
		f.rings[i].work()
	case eventCoalesce:
		f.rings[i].interrupt()
	case eventSource:
		f.rings[i].channel.produce()
	case eventReset:
		f.global.Resetting = false
	case eventAbort:
		f.rings[i].abort()
	case eventNotify:
		f.rings[i].levelReached()
	}
}

// running is whether rings may work at all.
func (f *FIFO) running() bool { return f.global.Control&controlEnable != 0 && !f.global.Resetting }

// fail notes an error, and sends the error interrupt: once, until the driver has
// cleared that cause.
func (f *FIFO) fail(cause uint32) {
	if f.global.ErrorCause&cause == 0 {
		f.global.ErrorCause |= cause
		f.raise(causeError, f.global.Vector)
	}
}

// raise sends an interrupt: by a message with a vector, or by the pin that the
// cause drives.
func (f *FIFO) raise(cause int, vector uint32) {
	f.global.IRQCause |= 1 << cause
	f.global.Interrupts++
	f.host.Raise(int(vector))
	f.pin()
}

// pin drives the interrupt pin to what cause and enable say.
func (f *FIFO) pin() {
	if level := f.global.IRQCause&f.global.IRQEnable != 0; level != f.intx {
		f.intx = level
		f.host.SetINTx(level)
	}
}

// causeError and causeOf are the bits of IRQ_CAUSE, and the vectors that they
// have after reset.
const causeError = 0

func causeOf(ring int) int { return 1 + ring }

// vectors is how many vectors the function has.
func (f *FIFO) vectors() uint32 { return uint32(1 + len(f.rings)) }
