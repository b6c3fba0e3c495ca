package pci

import "fmt"

// The type 0 header (PCI Local Bus 3.0, 6.1 and 6.2), as far as we name it.
const (
	RegVendorID    = 0x00
	RegDeviceID    = 0x02
	RegCommand     = 0x04
	RegStatus      = 0x06
	RegRevision    = 0x08
	RegClass       = 0x09 // three bytes: programming interface, subclass, class
	RegSubVendorID = 0x2c
	RegSubDeviceID = 0x2e

	CommandMemory = 1 << 1
	CommandMaster = 1 << 2
)

// Config is a file of configuration registers: bytes, which of their bits the
// guest can write, and which it clears by writing ones. The zero Config reads as
// zero and takes no writes.
//
// It is a Function by itself; one that has to act on a write embeds it and
// looks after WriteConfig.
type Config struct {
	bytes    [ConfigSize]byte
	writable [ConfigSize]byte
	clears   [ConfigSize]byte // write 1 to clear
}

// Set gives n bytes at off the value v, little endian, as hardware does: without
// regard to what the guest can write.
func (c *Config) Set(off, n int, v uint64) { put(c.bytes[off:off+n], v) }

// Get gives the n bytes at off.
func (c *Config) Get(off, n int) uint64 {
	var v uint64
	for i := range n {
		v |= uint64(c.bytes[off+i]) << (8 * i)
	}
	return v
}

// Allow says which bits of n bytes at off the guest can write, and which others
// it clears by writing ones.
func (c *Config) Allow(off, n int, writable, clears uint64) {
	put(c.writable[off:off+n], writable)
	put(c.clears[off:off+n], clears)
}

func put(b []byte, v uint64) {
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
}

// ReadConfig answers the guest.
func (c *Config) ReadConfig(off, width int) uint32 { return uint32(c.Get(off, width)) }

// WriteConfig takes what the guest can write of v.
func (c *Config) WriteConfig(off, width int, v uint32) {
	for i := range width {
		b, o := byte(v>>(8*i)), off+i
		c.bytes[o] = c.bytes[o]&^c.writable[o] | b&c.writable[o]
		c.bytes[o] &^= b & c.clears[o]
	}
}

// State gives the bytes.
func (c *Config) State() []byte { return append([]byte(nil), c.bytes[:]...) }

// SetState replaces the bytes. They may differ from the present ones only where
// the guest can have changed them: the rest says which device it is.
func (c *Config) SetState(s []byte) error {
	if len(s) != ConfigSize {
		return fmt.Errorf("pci: state has %d bytes of configuration space, want %d", len(s), ConfigSize)
	}
	for i, b := range s {
		if (b^c.bytes[i])&^(c.writable[i]|c.clears[i]) != 0 {
			return fmt.Errorf("pci: state is of another function: byte %#x of its configuration space is %#x, here %#x", i, b, c.bytes[i])
		}
	}
	copy(c.bytes[:], s)
	return nil
}
