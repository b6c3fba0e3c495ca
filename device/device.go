// Package device is what a virtual device is: a Model, and the Host that it
// lives on.
//
// A model is ordinary Go and sees nothing but its Host: it reads and writes the
// guest's memory, raises interrupts, asks for events in the future, and is told
// the time. The world sees nothing of a model but its BARs, its events and its
// reset. That boundary is the one place where faults are injected and traces
// are taken (Boundary), so every model has them for nothing.
//
// A model is a PCI function. Configuration space, BARs, MSI and MSI-X are the
// machine's matter; the model says in Info what it wants of them.
//
// Everything is called on one goroutine at a time, with the machine locked. A
// model must return at once and do later what takes time, by an event; it
// starts no goroutine, and reads neither the host's clock nor its random
// numbers, so that runs can be repeated.
//
// docs/writing-a-device.md is the way in; device/edu is the example.
package device

import "errors"

// Model is a device.
type Model interface {
	// Info says what the device is. It is the same at each call.
	Info() Info
	// Attach gives the model its host, once, before anything else.
	Attach(h Host)
	// Read answers an access of the guest to a BAR; Write takes one. off is in
	// bytes from the BAR's start, and the access lies inside it. data has 1, 2, 4
	// or 8 bytes, little endian; it is the caller's.
	Read(bar int, off uint64, data []byte)
	Write(bar int, off uint64, data []byte)
	// Event is what the model has scheduled.
	Event(kind uint32, payload uint64)
	// Reset puts the device into its state after power-on. Its events are
	// cancelled already, its interrupts disabled.
	Reset()
	// State gives everything that the model has to remember, as plain data: no
	// pointers, maps, functions or interfaces in it. Events are the clock's.
	State() any
	// SetState takes it back: decode fills in a value of the type that State
	// gave. What does not fit together is refused with an error: a state may come
	// from a file that anybody has made.
	SetState(decode func(into any) error) error
}

// Host is what a model has of the machine.
type Host interface {
	// Now is the machine's time in ns.
	Now() int64
	// Schedule has Event called at time when (ns), or as soon after Now as the
	// host permits (MinDelay). Cancel takes back the events of a kind and says how
	// many.
	Schedule(when int64, kind uint32, payload uint64)
	Cancel(kind uint32) int
	// DMARead reads guest-physical memory, DMAWrite writes it: wholly, or the
	// error says why not. It is an *Error for what a bus would report.
	DMARead(addr uint64, p []byte) error
	DMAWrite(addr uint64, p []byte) error
	// Raise sends the interrupt of a vector (0 to Info's number less 1) by MSI-X
	// or MSI, whichever the guest has enabled. A masked one is pending until it
	// is unmasked. Where neither is enabled nothing is sent: see SetINTx.
	Raise(vector int)
	// SetINTx drives the function's interrupt pin, which counts while neither MSI
	// nor MSI-X is enabled.
	SetINTx(asserted bool)
	// Message tells whether the guest has enabled MSI or MSI-X.
	Message() bool
}

// MinDelay is the least time in ns between a call of Schedule and the event:
// a model that wants to be called again at once must not keep the guest from
// running.
const MinDelay = 100

// Info is what a function is.
type Info struct {
	Vendor, Device       uint16
	SubVendor, SubDevice uint16
	Class                uint32 // 24 bits: base class, subclass, interface
	Revision             uint8
	BARs                 []BAR // at most 6 less those that 64-bit ones take
	// MSIX is the number of MSI-X vectors, up to 2048; MSIXBAR the index of the BAR
	// that the host adds for the table, which no BAR of the model's may use.
	MSIX    int
	MSIXBAR int
	// MSI is the number of MSI vectors: a power of two up to 32.
	MSI  int
	INTx bool // has an interrupt pin
	// DMABits is how many bits of an address the device can emit; 0 means 64.
	// It is checked where the model can't forget it: in the host.
	DMABits int
}

// BAR is a base address register, and the memory or the ports behind it.
type BAR struct {
	Index        int
	Size         uint64 // a power of two: at least 16 for memory, 4 to 256 for ports
	Port         bool
	Wide         bool // a 64-bit address, which takes the next register too
	Prefetchable bool
}

// Error is a DMA access that failed.
type Error struct {
	Op   string // "read" or "write"
	Addr uint64 // guest-physical
	Size int
	Err  error
}

func (e *Error) Error() string { return "DMA " + e.Op + ": " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// What an Error wraps.
var (
	// ErrNotMaster: the guest has not enabled bus mastering (PCI command register,
	// bit 2).
	ErrNotMaster = errors.New("bus mastering is off")
	// ErrAddress: the address is not wholly in the guest's RAM, or beyond the
	// device's DMABits. On a bus: unsupported request.
	ErrAddress = errors.New("no memory at this address")
	// ErrInjected is a fault that a plan asked for. On a bus: completer abort, or
	// poisoned data.
	ErrInjected = errors.New("fault injected")
)
