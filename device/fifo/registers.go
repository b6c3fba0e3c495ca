package fifo

import "encoding/binary"

// The register map of BAR 0 (docs/hardware.md, "Registers"). Registers are 32
// bits wide, little endian; 64-bit quantities are two of them, the low half
// first.
const (
	barSize = 0x2_0000

	channelBase  = 0x1000 // of channel 0; a page for each
	doorbellBase = 0x1_0000
	pageSize     = 0x1000

	regID         = 0x00
	regVersion    = 0x04
	regCaps       = 0x08
	regMaxLength  = 0x0c
	regControl    = 0x10
	regStatus     = 0x14
	regScratch    = 0x18
	regDepth      = 0x1c
	regIRQCause   = 0x20
	regIRQEnable  = 0x24
	regErrorCause = 0x28
	regInterrupts = 0x2c
	regTimeLow    = 0x30
	regTimeHigh   = 0x34
	regVector     = 0x38

	identification = 0x4f464946 // "FIFO"
	versionNumber  = 0x0001_0001

	capsRingShift  = 8 // of the logarithm of the largest ring
	capsEndsShift  = 16
	capsChainShift = 24 // of the logarithm of the longest chain

	controlEnable = 1 << 0
	controlReset  = 1 << 31

	statusReady = 1 << 0
	statusError = 1 << 1 // a ring is in the error state

	// Bits of ERROR_CAUSE.
	errorParity     = 1 << 0
	errorAccess     = 1 << 1
	errorDMA        = 1 << 2
	errorDescriptor = 1 << 3
	errorOverrun    = 1 << 4
	errorMask       = 0x1f
)

// Registers of a channel, from the start of its page.
const (
	regFill       = 0x00
	regEnd        = 0x04
	regChControl  = 0x08
	regOverrun    = 0x0c
	regMismatches = 0x10
	regTXBytes    = 0x20 // 64 bits, as all to RXRequests
	regRXBytes    = 0x28
	regTXRequests = 0x30
	regRXRequests = 0x38

	chFlush  = 1 << 0
	chParity = 1 << 1

	ringTX   = 0x100
	ringRX   = 0x200
	ringSize = 0x100
)

// Registers of a ring, from its start in the channel's page.
const (
	regRingControl = 0x00
	regRingStatus  = 0x04
	regBaseLow     = 0x08
	regBaseHigh    = 0x0c
	regSize        = 0x10
	regHead        = 0x14
	regTail        = 0x18
	regCompLow     = 0x20
	regCompHigh    = 0x24
	regCompSize    = 0x28
	regCompHead    = 0x2c
	regCompTail    = 0x30
	regCoalesce    = 0x34
	regThreshold   = 0x38
	regNotify      = 0x3c
	regAbortLow    = 0x40
	regAbortHigh   = 0x44
	regAbortStatus = 0x48
	regErrorIndex  = 0x4c
	regRingVector  = 0x50
	regErrorLow    = 0x58
	regErrorHigh   = 0x5c

	ringRun   = 1 << 0
	ringDrain = 1 << 1
	ringReset = 1 << 31

	maxRingLog      = 12
	baseAlign       = 64
	coalesceCount   = 0xff
	coalesceTime    = 16 // shift, in us
	statusCodeShift = 8
)

// Doorbells, from the start of the channel's doorbell page.
const (
	bellTXTail     = 0x00
	bellRXTail     = 0x04
	bellTXCompHead = 0x08
	bellRXCompHead = 0x0c
)

// Read answers the guest. What is no 32-bit register, or two of them, reads as
// zero.
func (f *FIFO) Read(_ int, off uint64, data []byte) {
	switch {
	case len(data) == 4 && off%4 == 0:
		binary.LittleEndian.PutUint32(data, f.read(uint32(off)))
	case len(data) == 8 && off%8 == 0:
		binary.LittleEndian.PutUint32(data, f.read(uint32(off)))
		binary.LittleEndian.PutUint32(data[4:], f.read(uint32(off+4)))
	default:
		clear(data)
		f.badAccess()
	}
}

// Write takes what the guest writes.
func (f *FIFO) Write(_ int, off uint64, data []byte) {
	switch {
	case len(data) == 4 && off%4 == 0:
		f.write(uint32(off), binary.LittleEndian.Uint32(data))
	case len(data) == 8 && off%8 == 0:
		f.write(uint32(off), binary.LittleEndian.Uint32(data))
		f.write(uint32(off+4), binary.LittleEndian.Uint32(data[4:]))
	default:
		f.badAccess()
	}
}

// badAccess notes an access of another width. It sends no interrupt: a guest
// that maps the registers could make a storm of them.
func (f *FIFO) badAccess() { f.global.ErrorCause |= errorAccess }

func (f *FIFO) read(off uint32) uint32 {
	switch {
	case off < channelBase:
		return f.readGlobal(off)
	case off >= doorbellBase:
		return 0
	}
	i := int(off/pageSize - channelBase/pageSize)
	if i >= len(f.channels) {
		return 0
	}
	switch off %= pageSize; {
	case off < ringTX:
		return f.channels[i].read(off)
	case off < ringRX:
		return f.rings[2*i].read(off - ringTX)
	case off < ringRX+ringSize:
		return f.rings[2*i+1].read(off - ringRX)
	}
	return 0
}

func (f *FIFO) write(off, v uint32) {
	if f.global.Resetting && (off != regControl || v&controlReset == 0) {
		return
	}
	switch {
	case off < channelBase:
		f.writeGlobal(off, v)
		return
	case off >= doorbellBase:
		f.ringBell(off-doorbellBase, v)
		return
	}
	i := int(off/pageSize - channelBase/pageSize)
	if i >= len(f.channels) {
		return
	}
	switch off %= pageSize; {
	case off < ringTX:
		f.channels[i].write(off, v)
	case off < ringRX:
		f.rings[2*i].write(off-ringTX, v)
	case off < ringRX+ringSize:
		f.rings[2*i+1].write(off-ringRX, v)
	}
}

func (f *FIFO) ringBell(off, v uint32) {
	i := int(off / pageSize)
	if i >= len(f.channels) {
		return
	}
	switch off % pageSize {
	case bellTXTail:
		f.rings[2*i].setTail(v)
	case bellRXTail:
		f.rings[2*i+1].setTail(v)
	case bellTXCompHead:
		f.rings[2*i].setCompHead(v)
	case bellRXCompHead:
		f.rings[2*i+1].setCompHead(v)
	}
}

func (f *FIFO) readGlobal(off uint32) uint32 {
	g := &f.global
	switch off {
	case regID:
		return identification
	case regVersion:
		return versionNumber
	case regCaps:
		return uint32(len(f.channels)) | maxRingLog<<capsRingShift | (1<<ends-1)<<capsEndsShift | maxChainLog<<capsChainShift
	case regMaxLength:
		return maxLength
	case regControl:
		return g.Control
	case regStatus:
		return f.status()
	case regScratch:
		return g.Scratch
	case regDepth:
		return uint32(f.cfg.Depth)
	case regIRQCause:
		return g.IRQCause
	case regIRQEnable:
		return g.IRQEnable
	case regErrorCause:
		return g.ErrorCause
	case regInterrupts:
		return g.Interrupts
	case regTimeLow: // and holds the high half, so that the two fit together
		now := uint64(f.host.Now())
		g.TimeHigh = uint32(now >> 32)
		return uint32(now)
	case regTimeHigh:
		return g.TimeHigh
	case regVector:
		return g.Vector
	}
	return 0
}

func (f *FIFO) status() uint32 {
	if f.global.Resetting {
		return 0
	}
	v := uint32(statusReady)
	for i := range f.rings {
		if f.rings[i].s.State == stateError {
			v |= statusError
		}
	}
	return v
}

func (f *FIFO) writeGlobal(off, v uint32) {
	g := &f.global
	switch off {
	case regControl:
		if v&controlReset != 0 {
			f.beginReset()
			return
		}
		g.Control = v & controlEnable
		for i := range f.rings {
			f.rings[i].wake()
			f.rings[i].checkLevel()
		}
		for i := range f.channels {
			f.channels[i].start()
		}
	case regScratch:
		g.Scratch = v
	case regIRQCause:
		g.IRQCause &^= v
		f.pin()
	case regIRQEnable:
		g.IRQEnable = v & (1<<(1+len(f.rings)) - 1)
		f.pin()
	case regErrorCause:
		g.ErrorCause &^= v
	case regVector:
		if v < f.vectors() {
			g.Vector = v
		}
	}
}

// half gives the low or the high half of a 64-bit register pair.
func half(v uint64, high bool) uint32 {
	if high {
		return uint32(v >> 32)
	}
	return uint32(v)
}

// setHalf replaces it.
func setHalf(v uint64, high bool, h uint32) uint64 {
	if high {
		return v&0xffff_ffff | uint64(h)<<32
	}
	return v&^0xffff_ffff | uint64(h)
}
