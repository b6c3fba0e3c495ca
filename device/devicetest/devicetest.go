// Package devicetest is a device.Host in memory, for unit tests of models.
//
// It has the guest's RAM as a slice, a clock that stands still until the test
// moves it, and records what the model does with its interrupts. It is as strict
// as a machine: DMA needs bus mastering, stays inside RAM and inside the
// device's DMABits, and no event comes sooner than MinDelay. What a model or a
// test must not do at all, such as raising a vector that the device has not,
// panics.
//
//	h := devicetest.New(edu.New(), 64<<10)
//	h.Write32(0, 0x04, 0x1234)
//	h.Advance(1000)
//	if h.Read32(0, 0x04) != ^uint32(0x1234) { ... }
//
// A model behind its boundary is a model too, so that a test can have faults and
// traces: New(device.NewBoundary("edu0", edu.New()), 64<<10).
//
// There is no PCI here: neither configuration space nor mask bits. That is the
// machine's, tested with it.
package devicetest

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"fifovm/device"
)

// Host is what a model under test lives on. A test may change its fields at any
// time.
type Host struct {
	RAM  []byte // the guest's memory
	Base uint64 // where it begins; 0 unless the test wants it elsewhere

	// Master is the bus master bit of the PCI command register. It is on from the
	// start and off after Reset.
	Master bool
	// MessageOn says that the guest has enabled MSI or MSI-X. It is on from the
	// start where the model has either, and off after Reset.
	MessageOn bool
	// FailDMA, if set, is asked before each access that is permitted; what it
	// gives fails the access. op is "read" or "write".
	FailDMA func(op string, addr uint64, size int) error

	// Interrupts are those that were sent, oldest first. The test may shorten it.
	Interrupts []Interrupt
	INTx       bool // the level of the interrupt pin

	model  device.Model
	info   device.Info
	now    int64
	seq    uint64
	events []Event // sorted: the next one first
}

// Interrupt is a message that was sent.
type Interrupt struct {
	Time   int64
	Vector int
}

// Event is what the model has scheduled.
type Event struct {
	When    int64
	Seq     uint64 // order of scheduling: decides between events of one time
	Kind    uint32
	Payload uint64
}

// New gives m a host with ram bytes of memory from address 0.
func New(m device.Model, ram int) *Host {
	h := &Host{RAM: make([]byte, ram), Master: true, model: m, info: m.Info()}
	h.MessageOn = h.vectors() > 0
	m.Attach(h)
	return h
}

var _ device.Host = (*Host)(nil)

func (h *Host) vectors() int { return max(h.info.MSI, h.info.MSIX) }

// Now is the time in ns. It begins with 0.
func (h *Host) Now() int64 { return h.now }

// Schedule implements device.Host.
func (h *Host) Schedule(when int64, kind uint32, payload uint64) {
	h.seq++
	e := Event{max(when, h.now+device.MinDelay), h.seq, kind, payload}
	i, _ := slices.BinarySearchFunc(h.events, e, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.When, b.When), cmp.Compare(a.Seq, b.Seq))
	})
	h.events = slices.Insert(h.events, i, e)
}

// Cancel implements device.Host.
func (h *Host) Cancel(kind uint32) int {
	n := len(h.events)
	h.events = slices.DeleteFunc(h.events, func(e Event) bool { return e.Kind == kind })
	return n - len(h.events)
}

// Events are those to come, the next one first.
func (h *Host) Events() []Event { return slices.Clone(h.events) }

// Step moves the clock to the next event and delivers it; false if there is
// none.
func (h *Host) Step() bool {
	if len(h.events) == 0 {
		return false
	}
	e := h.events[0]
	h.events = slices.Delete(h.events, 0, 1)
	h.now = max(h.now, e.When)
	h.model.Event(e.Kind, e.Payload)
	return true
}

// Advance moves the clock by ns and delivers what becomes due, each event at its
// time.
func (h *Host) Advance(ns int64) {
	end := h.now + ns
	for len(h.events) > 0 && h.events[0].When <= end {
		h.Step()
	}
	h.now = end
}

// Run delivers events until none is left, and says whether that came: a device
// that goes on for a million events is stopped.
func (h *Host) Run() bool {
	for range 1_000_000 {
		if !h.Step() {
			return true
		}
	}
	return len(h.events) == 0
}

// DMARead implements device.Host.
func (h *Host) DMARead(addr uint64, p []byte) error {
	b, err := h.slice("read", addr, len(p))
	copy(p, b)
	return err
}

// DMAWrite implements device.Host.
func (h *Host) DMAWrite(addr uint64, p []byte) error {
	b, err := h.slice("write", addr, len(p))
	copy(b, p)
	return err
}

// slice gives the RAM that an access is about, as a machine would permit it.
func (h *Host) slice(op string, addr uint64, size int) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, &device.Error{Op: op, Addr: addr, Size: size, Err: err}
	}
	if !h.Master {
		return fail(device.ErrNotMaster)
	}
	// By its last byte, so that nothing wraps.
	last := addr + uint64(max(size, 1)) - 1
	if bits := h.info.DMABits; last < addr || bits > 0 && bits < 64 && last>>bits != 0 {
		return fail(device.ErrAddress)
	}
	off, n := addr-h.Base, uint64(size)
	if addr < h.Base || off > uint64(len(h.RAM)) || n > uint64(len(h.RAM))-off {
		return fail(device.ErrAddress)
	}
	if h.FailDMA != nil {
		if err := h.FailDMA(op, addr, size); err != nil {
			return fail(err)
		}
	}
	return h.RAM[off : off+n], nil
}

// Raise implements device.Host.
func (h *Host) Raise(vector int) {
	if vector < 0 || vector >= h.vectors() {
		panic(fmt.Sprintf("devicetest: the model raises vector %d of %d", vector, h.vectors()))
	}
	if h.MessageOn {
		h.Interrupts = append(h.Interrupts, Interrupt{h.now, vector})
	}
}

// SetINTx implements device.Host.
func (h *Host) SetINTx(asserted bool) {
	if asserted && !h.info.INTx {
		panic("devicetest: the model has no interrupt pin")
	}
	h.INTx = asserted
}

// Message implements device.Host.
func (h *Host) Message() bool { return h.MessageOn }

// Count is how often a vector was sent.
func (h *Host) Count(vector int) int {
	n := 0
	for _, i := range h.Interrupts {
		if i.Vector == vector {
			n++
		}
	}
	return n
}

// Reset resets the device as function-level reset does: its events are gone, bus
// mastering and messages off, the pin is low.
func (h *Host) Reset() {
	h.events = h.events[:0]
	h.Master, h.MessageOn, h.INTx = false, false, false
	h.model.Reset()
}

// Move puts another model of the same device in the place of this one, with the
// state of this one, as a snapshot would: by way of text. Events, memory and
// time stay. A test that calls it at any moment and sees a difference has found
// what the model forgot to put into its state.
func (h *Host) Move(to device.Model) error {
	text, err := json.Marshal(h.model.State())
	if err != nil {
		return err
	}
	h.model = to
	to.Attach(h)
	return to.SetState(func(into any) error { return json.Unmarshal(text, into) })
}

// Read is an access of the guest to a BAR, of 1, 2, 4 or 8 bytes.
func (h *Host) Read(bar int, off uint64, data []byte) {
	h.check(bar, off, len(data))
	h.model.Read(bar, off, data)
}

// Write is an access of the guest to a BAR, of 1, 2, 4 or 8 bytes.
func (h *Host) Write(bar int, off uint64, data []byte) {
	h.check(bar, off, len(data))
	h.model.Write(bar, off, data)
}

func (h *Host) check(bar int, off uint64, size int) {
	i := slices.IndexFunc(h.info.BARs, func(b device.BAR) bool { return b.Index == bar })
	switch {
	case i < 0:
		panic(fmt.Sprintf("devicetest: the model has no BAR %d", bar))
	case size != 1 && size != 2 && size != 4 && size != 8:
		panic(fmt.Sprintf("devicetest: an access of %d bytes", size))
	case off > h.info.BARs[i].Size || uint64(size) > h.info.BARs[i].Size-off:
		panic(fmt.Sprintf("devicetest: %d bytes at %#x are not inside BAR %d", size, off, bar))
	}
}

// Read32 reads a register of 32 bits.
func (h *Host) Read32(bar int, off uint64) uint32 {
	var b [4]byte
	h.Read(bar, off, b[:])
	return binary.LittleEndian.Uint32(b[:])
}

// Write32 writes a register of 32 bits.
func (h *Host) Write32(bar int, off uint64, value uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], value)
	h.Write(bar, off, b[:])
}

// Read64 reads a register of 64 bits.
func (h *Host) Read64(bar int, off uint64) uint64 {
	var b [8]byte
	h.Read(bar, off, b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// Write64 writes a register of 64 bits.
func (h *Host) Write64(bar int, off uint64, value uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], value)
	h.Write(bar, off, b[:])
}
