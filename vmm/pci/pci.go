// Package pci is the PCI root: the configuration space of bus 0, reached by
// ports (type 1) and by memory (ECAM), the host bridge, and Endpoint, what the
// guest sees of a device.
//
// A function is whatever answers its configuration registers; Config is the
// register file that such a function is usually made of. An Endpoint has one,
// with BARs, MSI, MSI-X, the interrupt pin, power management and function-level
// reset; what is behind its BARs is its Backend's matter. There are no bridges,
// so every other bus is empty.
//
// The package does no locking: the machine holds its lock around each access.
package pci

import "fmt"

// Address names a function on bus 0.
type Address struct {
	Device   uint8 // 0 to 31
	Function uint8 // 0 to 7
}

func (a Address) String() string { return fmt.Sprintf("00:%02x.%x", a.Device, a.Function) }

// ConfigSize is the size of a function's configuration space in bytes. Ports
// reach the first 256 of them.
const ConfigSize = 4096

// Function is a function's configuration space. The root makes every access of
// the guest one or more that are 1, 2 or 4 bytes wide, aligned to their width
// and inside ConfigSize; values have no bits above their width.
type Function interface {
	ReadConfig(off, width int) uint32
	WriteConfig(off, width int, v uint32)
}

// Root is the root of PCI. The zero Root has no functions.
type Root struct {
	functions [256]Function // by device and function, as in an address
	s         State
}

// State is the state of a Root; that of its functions is their own.
type State struct {
	Address uint32 // CONFIG_ADDRESS
}

// Add puts a function at its place. A guest looks for functions 1 to 7 of a
// device only where function 0 says that there are more (header type, bit 7).
func (r *Root) Add(a Address, f Function) error {
	if a.Device > 31 || a.Function > 7 {
		return fmt.Errorf("pci: %s is not on a bus", a)
	}
	slot := &r.functions[a.Device<<3|a.Function]
	if *slot != nil {
		return fmt.Errorf("pci: there are two functions at %s", a)
	}
	*slot = f
	return nil
}

// Reset puts the root into its state after power on; its functions have their
// own.
func (r *Root) Reset() { r.s = State{} }

// State gives the state.
func (r *Root) State() State { return r.s }

// SetState replaces the state.
func (r *Root) SetState(s State) error {
	if s.Address&^addressMask != 0 {
		return fmt.Errorf("pci: state has CONFIG_ADDRESS %#x", s.Address)
	}
	r.s = s
	return nil
}

// read fills data from a function's configuration space, all ones where there
// is no function. bdf is bus, device and function as in an address.
func (r *Root) read(bdf, off int, data []byte) {
	f := r.function(bdf)
	for len(data) > 0 {
		n := width(off, len(data))
		v := ^uint32(0)
		if f != nil {
			v = f.ReadConfig(off, n)
		}
		for i := range n {
			data[i] = byte(v >> (8 * i))
		}
		off, data = off+n, data[n:]
	}
}

func (r *Root) write(bdf, off int, data []byte) {
	f := r.function(bdf)
	if f == nil {
		return
	}
	for len(data) > 0 {
		n := width(off, len(data))
		var v uint32
		for i := range n {
			v |= uint32(data[i]) << (8 * i)
		}
		f.WriteConfig(off, n, v)
		off, data = off+n, data[n:]
	}
}

func (r *Root) function(bdf int) Function {
	if bdf >= len(r.functions) {
		return nil
	}
	return r.functions[bdf]
}

// width is the widest aligned access at off that n bytes have.
func width(off, n int) int {
	switch {
	case off%4 == 0 && n >= 4:
		return 4
	case off%2 == 0 && n >= 2:
		return 2
	}
	return 1
}
