// Package bus routes guest accesses to the devices that claim their addresses.
//
// A Space is one address space: the 64 KiB of x86 I/O ports, or the
// guest-physical addresses that are not RAM (MMIO). A device maps a range with
// a Handler and from then on answers every access that lies in it.
//
// The package knows nothing of the devices, of interrupts or of RAM, and it
// does no locking: the machine holds its lock around each access and each
// change of the map.
package bus

import (
	"fmt"
	"slices"
	"sort"
)

// Handler answers the accesses to one mapped range. off is the offset in bytes
// from the start of the range; len(data) is the width of the access: 1, 2, 4 or
// 8 bytes, little endian. The handler must not keep data.
type Handler interface {
	Read(off uint64, data []byte)
	Write(off uint64, data []byte)
}

// Range is a claimed part of a space: [Base, Base+Size).
type Range struct {
	Base, Size uint64
	Name       string // of the device, for listings and errors
	Handler    Handler
}

func (r *Range) last() uint64 { return r.Base + (r.Size - 1) }

// Space is one address space, made by NewPorts or NewMMIO.
type Space struct {
	name   string
	last   uint64  // the highest address of the space
	ranges []Range // sorted by Base, disjoint
}

// NewPorts gives the x86 I/O port space: 65,536 ports.
func NewPorts() *Space { return &Space{name: "port", last: 0xffff} }

// NewMMIO gives the space of guest-physical addresses.
func NewMMIO() *Space { return &Space{name: "mmio", last: ^uint64(0)} }

// Map claims [base, base+size) for h. It fails where the range is empty, leaves
// the space or overlaps one that is mapped.
func (s *Space) Map(base, size uint64, name string, h Handler) error {
	r := Range{Base: base, Size: size, Name: name, Handler: h}
	if size == 0 || r.last() < base || r.last() > s.last {
		return fmt.Errorf("bus: %s: %s range %#x+%#x is empty or outside the space", name, s.name, base, size)
	}
	i := sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].Base > base })
	for _, j := range []int{i - 1, i} {
		if j >= 0 && j < len(s.ranges) && s.ranges[j].Base <= r.last() && base <= s.ranges[j].last() {
			o := s.ranges[j]
			return fmt.Errorf("bus: %s: %s range %#x+%#x overlaps %s at %#x+%#x", name, s.name, base, size, o.Name, o.Base, o.Size)
		}
	}
	s.ranges = slices.Insert(s.ranges, i, r)
	return nil
}

// Unmap gives up the range that starts at base.
func (s *Space) Unmap(base uint64) error {
	i := sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].Base >= base })
	if i == len(s.ranges) || s.ranges[i].Base != base {
		return fmt.Errorf("bus: no %s range starts at %#x", s.name, base)
	}
	s.ranges = slices.Delete(s.ranges, i, i+1)
	return nil
}

// Ranges lists what is mapped, by address.
func (s *Space) Ranges() []Range { return slices.Clone(s.ranges) }

// Read fills data from the device that claims addr. An access that no single
// range covers reads as all ones, as on a bus that nothing drives.
func (s *Space) Read(addr uint64, data []byte) {
	if r := s.find(addr, len(data)); r != nil {
		r.Handler.Read(addr-r.Base, data)
		return
	}
	for i := range data {
		data[i] = 0xff
	}
}

// Write hands data to the device that claims addr; a write that no single range
// covers is lost.
func (s *Space) Write(addr uint64, data []byte) {
	if r := s.find(addr, len(data)); r != nil {
		r.Handler.Write(addr-r.Base, data)
	}
}

// find is on the path of every exit, so it is a plain loop without closures.
func (s *Space) find(addr uint64, n int) *Range {
	lo, hi := 0, len(s.ranges)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s.ranges[mid].Base <= addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return nil
	}
	r := &s.ranges[lo-1]
	if off := addr - r.Base; off >= r.Size || uint64(n) > r.Size-off {
		return nil
	}
	return r
}
