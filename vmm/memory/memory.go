// Package memory is the guest's RAM.
//
// RAM lies at guest-physical address 0 up to the PCI hole and, what does not
// fit there, from 4 GiB on. Every access from the host's side (loader, DMA,
// debugger) goes through the bounds-checked calls here; the CPUs reach the same
// bytes through Slots.
//
// The package does no locking: bytes that a running CPU and a device touch at
// once race as they do on real hardware.
package memory

import (
	"bytes"
	"errors"
	"fmt"
)

const (
	// PageSize is the granularity of everything about RAM, in bytes.
	PageSize = 4096
	// HoleStart and HoleEnd bound the guest-physical addresses below 4 GiB that
	// are kept free of RAM, for PCI and the interrupt controllers.
	HoleStart = 0xc000_0000
	HoleEnd   = 1 << 32
	// MaxSize is the most RAM that leaves the 64-bit PCI window free, in bytes.
	MaxSize = 128 << 30
)

// ErrBounds is wrapped by the error of an access that is not wholly inside RAM.
var ErrBounds = errors.New("not in guest RAM")

// Slot is a piece of RAM that is contiguous in guest-physical addresses.
type Slot struct {
	Base  uint64 // guest-physical
	Bytes []byte // page aligned in the host
}

// RAM is all of the guest's memory. Close it when no CPU can run any more.
type RAM struct {
	mapping []byte
	slots   []Slot
	watch   func(gpa, n uint64)
	base    *Base // nil: none
	dirty   dirty // since the RAM was the base's
}

// New gives size bytes of zeroed RAM, a positive multiple of PageSize. The host
// commits a page when it is first touched.
func New(size uint64) (*RAM, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	m, err := allocate(int(size))
	if err != nil {
		return nil, fmt.Errorf("memory: cannot get %d MiB from the host: %w", size>>20, err)
	}
	return layOut(m), nil
}

func checkSize(size uint64) error {
	if size == 0 || size%PageSize != 0 || size > MaxSize {
		return fmt.Errorf("memory: size of %d bytes: want a multiple of %d up to %d GiB", size, PageSize, MaxSize>>30)
	}
	return nil
}

// layOut is RAM whose bytes are m.
func layOut(m []byte) *RAM {
	r, size := &RAM{mapping: m}, uint64(len(m))
	low := min(size, HoleStart)
	r.slots = append(r.slots, Slot{Base: 0, Bytes: m[:low:low]})
	if size > low {
		r.slots = append(r.slots, Slot{Base: HoleEnd, Bytes: m[low:]})
	}
	return r
}

// Close gives the memory back to the host. No slice of it may be used after.
func (r *RAM) Close() error {
	m := r.mapping
	r.mapping, r.slots, r.base = nil, nil, nil
	if m == nil {
		return nil
	}
	return release(m)
}

// Size is the amount of RAM in bytes.
func (r *RAM) Size() uint64 { return uint64(len(r.mapping)) }

// Slots lists the pieces by address. The bytes are the RAM itself.
func (r *RAM) Slots() []Slot { return r.slots }

// Slice gives the n bytes of RAM at guest-physical address gpa themselves, not
// a copy. They must lie in one slot. Who writes to them has to call MarkDirty.
func (r *RAM) Slice(gpa, n uint64) ([]byte, error) {
	for i := range r.slots {
		s := &r.slots[i]
		if off := gpa - s.Base; gpa >= s.Base && off < uint64(len(s.Bytes)) && n <= uint64(len(s.Bytes))-off {
			return s.Bytes[off : off+n : off+n], nil
		}
	}
	return nil, fmt.Errorf("memory: %d bytes at %#x: %w", n, gpa, ErrBounds)
}

// Read copies RAM at guest-physical address gpa to p: all of it or nothing.
func (r *RAM) Read(gpa uint64, p []byte) error {
	b, err := r.Slice(gpa, uint64(len(p)))
	if err != nil {
		return err
	}
	copy(p, b)
	return nil
}

// Write copies p to RAM at guest-physical address gpa: all of it or nothing.
func (r *RAM) Write(gpa uint64, p []byte) error {
	b, err := r.Slice(gpa, uint64(len(p)))
	if err != nil {
		return err
	}
	copy(b, p)
	if r.base != nil && len(p) > 0 {
		for page := gpa / PageSize; page <= (gpa+uint64(len(p))-1)/PageSize; page++ {
			r.MarkDirty(page * PageSize)
		}
	}
	if r.watch != nil && len(p) > 0 {
		r.watch(gpa, uint64(len(p)))
	}
	return nil
}

// Watch has f told of each Write: where and how many bytes, all in one slot. It
// replaces the f before; nil is none. CPUs that keep something made from RAM,
// decoded code say, need to know.
func (r *RAM) Watch(f func(gpa, n uint64)) { r.watch = f }

var zeros [PageSize]byte

// zero is whether a page has nothing but zeros.
func zero(page []byte) bool { return bytes.Equal(page, zeros[:]) }
