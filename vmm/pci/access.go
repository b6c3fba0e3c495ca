package pci

import "encoding/binary"

// CONFIG_ADDRESS (PCI Local Bus 3.0, figure 3-2). The other bits are reserved
// and read as zero.
const (
	addressEnable   = 1 << 31
	addressFunction = 0x00ffff00 // bus, device, function
	addressRegister = 0x000000fc
	addressMask     = addressEnable | addressFunction | addressRegister
)

const configData = 4 // CONFIG_DATA's offset in the ports

// Ports is the handler of the 8 I/O ports at 0xcf8.
//
// CONFIG_ADDRESS is there for 4-byte accesses only, as the specification wants
// (3.2.2.3.2); others pass it by and find nothing, and so does an access to
// CONFIG_DATA while the enable bit is clear.
func (r *Root) Ports() *Ports { return (*Ports)(r) }

// Ports is a Root as its I/O ports.
type Ports Root

// Read answers the guest.
func (p *Ports) Read(off uint64, data []byte) {
	switch {
	case off == 0 && len(data) == 4:
		binary.LittleEndian.PutUint32(data, p.s.Address)
	case off >= configData && p.s.Address&addressEnable != 0:
		(*Root)(p).read(p.target(), p.register(off), data)
	default:
		for i := range data {
			data[i] = 0xff
		}
	}
}

// Write takes the guest's bytes.
func (p *Ports) Write(off uint64, data []byte) {
	switch {
	case off == 0 && len(data) == 4:
		p.s.Address = binary.LittleEndian.Uint32(data) & addressMask
	case off >= configData && p.s.Address&addressEnable != 0:
		(*Root)(p).write(p.target(), p.register(off), data)
	}
}

func (p *Ports) target() int { return int(p.s.Address&addressFunction) >> 8 }
func (p *Ports) register(off uint64) int {
	return int(p.s.Address&addressRegister) + int(off-configData)
}

// ECAM is the handler of the memory-mapped configuration space, which starts
// with bus 0 (PCI Express Base 6.0, 7.2.2).
func (r *Root) ECAM() *ECAM { return (*ECAM)(r) }

// ECAM is a Root as its memory-mapped configuration space.
type ECAM Root

// Read answers the guest.
func (e *ECAM) Read(off uint64, data []byte) {
	for len(data) > 0 {
		n := inFunction(off, len(data))
		(*Root)(e).read(int(off/ConfigSize), int(off%ConfigSize), data[:n])
		off, data = off+uint64(n), data[n:]
	}
}

// Write takes the guest's bytes.
func (e *ECAM) Write(off uint64, data []byte) {
	for len(data) > 0 {
		n := inFunction(off, len(data))
		(*Root)(e).write(int(off/ConfigSize), int(off%ConfigSize), data[:n])
		off, data = off+uint64(n), data[n:]
	}
}

// inFunction is how many of n bytes at off are in the same function.
func inFunction(off uint64, n int) int { return min(n, ConfigSize-int(off%ConfigSize)) }
