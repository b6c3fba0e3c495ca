// Package edu is the educational device that QEMU has as "edu", made after its
// manual (docs/specs/edu): a card to learn driver writing on, and here the
// example of how a model is written. docs/writing-a-device.md walks through it.
//
// It has a register that inverts, a factorial computed in the background,
// interrupts by MSI or by the pin, and a DMA engine that moves bytes between the
// guest's memory and a buffer of its own. A driver written for QEMU's works.
//
// What the manual leaves open is so here: a factorial takes 10 us, a transfer
// 1 us and 1 ns for each byte. Writes that come while the device is busy with
// what they are about are lost. A transfer that the bus refuses, or which isn't
// wholly inside the device's buffer, ends like any other and moves nothing:
// the device has no way to say so.
package edu

import (
	"encoding/binary"
	"fmt"
	"slices"

	"fifovm/device"
)

// The registers of BAR 0. Those below 0x80 take accesses of 4 bytes, the others
// of 4 or 8.
const (
	regID        = 0x00
	regLiveness  = 0x04 // reads as the inverse of what was written
	regFactorial = 0x08
	regStatus    = 0x20
	regInterrupt = 0x24 // what raised the interrupt
	regRaise     = 0x60
	regAck       = 0x64
	regSource    = 0x80
	regDest      = 0x88
	regCount     = 0x90
	regCommand   = 0x98

	id = 0x01_00_00_ed // version 1.0

	statusComputing = 1 << 0
	statusInterrupt = 1 << 7 // raise an interrupt when the factorial is done

	commandStart     = 1 << 0 // reads as 1 until the transfer is done
	commandToRAM     = 1 << 1
	commandInterrupt = 1 << 2
	commandMask      = 7

	// Bits of the interrupt register that the device sets by itself.
	interruptFactorial = 0x001
	interruptDMA       = 0x100
)

const (
	barSize = 1 << 20

	// The device's buffer, by the address that its DMA engine knows it under.
	// The guest can't reach it through the BAR.
	bufferBase = 0x40000
	bufferSize = 4096

	factorialTime = 10_000 // ns
	transferTime  = 1000   // ns, and 1 more for each byte
)

// The kinds of events.
const (
	eventFactorial = iota
	eventTransfer
)

// Config is what can be set of the device. The zero value is QEMU's device.
type Config struct {
	// DMABits is how many bits of an address the DMA engine has: 28 where 0, as
	// the manual says, so that a driver must set its DMA mask.
	DMABits int
}

// Device is the model.
type Device struct {
	host device.Host
	cfg  Config
	s    State
}

// State is what the device remembers.
type State struct {
	Liveness, Factorial uint32
	Status, Interrupt   uint32
	Source, Dest, Count uint64
	Command             uint64
	Buffer              []byte
}

// New gives a device in its state after power-on.
func New(cfg Config) *Device {
	if cfg.DMABits == 0 {
		cfg.DMABits = 28
	}
	return &Device{cfg: cfg, s: State{Buffer: make([]byte, bufferSize)}}
}

// Info implements device.Model.
func (d *Device) Info() device.Info {
	return device.Info{
		Vendor: 0x1234, Device: 0x11e8, SubVendor: 0x1af4, SubDevice: 0x1100,
		Class:    0x00ff00, // made before classes were defined: others
		Revision: 0x10,
		BARs:     []device.BAR{{Index: 0, Size: barSize}},
		MSI:      1,
		INTx:     true,
		DMABits:  d.cfg.DMABits,
	}
}

// Attach implements device.Model.
func (d *Device) Attach(h device.Host) { d.host = h }

// Reset implements device.Model.
func (d *Device) Reset() { d.s = State{Buffer: make([]byte, bufferSize)} }

// Read implements device.Model.
func (d *Device) Read(_ int, off uint64, data []byte) {
	value := ^uint64(0) // where there is no register
	if takes(off, len(data)) {
		switch off {
		case regID:
			value = id
		case regLiveness:
			value = uint64(d.s.Liveness)
		case regFactorial:
			value = uint64(d.s.Factorial)
		case regStatus:
			value = uint64(d.s.Status)
		case regInterrupt:
			value = uint64(d.s.Interrupt)
		case regSource:
			value = d.s.Source
		case regDest:
			value = d.s.Dest
		case regCount:
			value = d.s.Count
		case regCommand:
			value = d.s.Command
		}
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], value)
	copy(data, b[:])
}

// Write implements device.Model.
func (d *Device) Write(_ int, off uint64, data []byte) {
	if !takes(off, len(data)) {
		return
	}
	var b [8]byte
	copy(b[:], data)
	value := binary.LittleEndian.Uint64(b[:])
	switch off {
	case regLiveness:
		d.s.Liveness = ^uint32(value)
	case regFactorial:
		if d.s.Status&statusComputing == 0 {
			d.s.Factorial = uint32(value)
			d.s.Status |= statusComputing
			d.host.Schedule(d.host.Now()+factorialTime, eventFactorial, 0)
		}
	case regStatus:
		d.s.Status = d.s.Status&^statusInterrupt | uint32(value)&statusInterrupt
	case regRaise:
		d.raise(uint32(value))
	case regAck:
		d.s.Interrupt &^= uint32(value)
		d.host.SetINTx(d.s.Interrupt != 0)
	case regSource, regDest, regCount, regCommand:
		if d.s.Command&commandStart == 0 { // else it is busy with them
			d.writeDMA(off, value)
		}
	}
}

func (d *Device) writeDMA(off, value uint64) {
	switch off {
	case regSource:
		d.s.Source = value
	case regDest:
		d.s.Dest = value
	case regCount:
		d.s.Count = value
	case regCommand:
		if value&commandStart != 0 {
			d.s.Command = value & commandMask
			time := transferTime + int64(min(d.s.Count, bufferSize))
			d.host.Schedule(d.host.Now()+time, eventTransfer, 0)
		}
	}
}

// takes tells whether the registers at off take accesses of size bytes.
func takes(off uint64, size int) bool { return size == 4 || size == 8 && off >= regSource }

// Event implements device.Model.
func (d *Device) Event(kind uint32, _ uint64) {
	switch kind {
	case eventFactorial:
		d.s.Factorial = factorial(d.s.Factorial)
		d.s.Status &^= statusComputing
		if d.s.Status&statusInterrupt != 0 {
			d.raise(interruptFactorial)
		}
	case eventTransfer:
		d.transfer()
		d.s.Command &^= commandStart
		if d.s.Command&commandInterrupt != 0 {
			d.raise(interruptDMA)
		}
	}
}

// raise sends the interrupt by a message where the guest has enabled them, else
// by the pin, which stays up until the guest has acknowledged everything.
func (d *Device) raise(bits uint32) {
	d.s.Interrupt |= bits
	if d.s.Interrupt != 0 {
		d.host.SetINTx(true)
		d.host.Raise(0)
	}
}

// transfer moves the bytes. What refuses is ignored: see the package's comment.
func (d *Device) transfer() {
	if d.s.Command&commandToRAM != 0 {
		if b := d.buffer(d.s.Source); b != nil {
			_ = d.host.DMAWrite(d.s.Dest, b)
		}
	} else if b := d.buffer(d.s.Dest); b != nil {
		_ = d.host.DMARead(d.s.Source, b)
	}
}

// buffer gives Count bytes of the device's buffer; nil if they aren't in it.
func (d *Device) buffer(addr uint64) []byte {
	off, n := addr-bufferBase, d.s.Count
	if addr < bufferBase || off > bufferSize || n > bufferSize-off {
		return nil
	}
	return d.s.Buffer[off : off+n]
}

// factorial is n! modulo 2^32. That is 0 from 34 on, which ends the loop soon,
// whatever the guest has written.
func factorial(n uint32) uint32 {
	f := uint32(1)
	for ; n > 1 && f != 0; n-- {
		f *= n
	}
	return f
}

// State implements device.Model.
func (d *Device) State() any {
	s := d.s
	s.Buffer = slices.Clone(s.Buffer)
	return s
}

// SetState implements device.Model.
func (d *Device) SetState(decode func(into any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if len(s.Buffer) != bufferSize {
		return fmt.Errorf("edu: state has a buffer of %d bytes: want %d", len(s.Buffer), bufferSize)
	}
	d.s = s
	return nil
}
