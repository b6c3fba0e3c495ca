package pci

import (
	"cmp"
	"fmt"
	"slices"
)

// Windows are the addresses that BARs may have.
type Windows struct {
	Ports, Memory32, Memory64 Window
}

// Window is a range of addresses.
type Window struct{ Base, Size uint64 }

// Assign gives each BAR of the endpoints an address, as firmware would, and the
// interrupt line registers what line says. 64-bit BARs are in Memory64. Nothing
// is enabled: that is for drivers to do.
func Assign(endpoints []*Endpoint, w Windows, line func(*Endpoint) uint8) error {
	var all []*window
	for _, e := range endpoints {
		all = append(all, e.windows...)
		if e.id.INTx {
			e.WriteConfig(regLine, 1, uint32(line(e)))
		}
	}
	// The largest first: then nothing is lost between them.
	slices.SortStableFunc(all, func(a, b *window) int { return cmp.Compare(b.bar.Size, a.bar.Size) })
	for _, b := range all {
		from := &w.Memory32
		switch {
		case b.bar.Port:
			from = &w.Ports
		case b.bar.Wide:
			from = &w.Memory64
		}
		base, ok := from.take(b.bar.Size)
		if !ok {
			return fmt.Errorf("pci: %s: no room for the %#x bytes of BAR %d", b.endpoint.id.Name, b.bar.Size, b.bar.Index)
		}
		reg := regBAR + 4*b.bar.Index
		b.endpoint.WriteConfig(reg, 4, uint32(base))
		if b.bar.Wide {
			b.endpoint.WriteConfig(reg+4, 4, uint32(base>>32))
		}
	}
	return nil
}

// take cuts size bytes, aligned to their size, from the start of w.
func (w *Window) take(size uint64) (base uint64, ok bool) {
	base = (w.Base + size - 1) &^ (size - 1)
	if base < w.Base || base-w.Base > w.Size || size > w.Size-(base-w.Base) {
		return 0, false
	}
	w.Size -= base + size - w.Base
	w.Base = base + size
	return base, true
}
