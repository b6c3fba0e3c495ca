package pci

import "fifovm/vmm/bus"

// Decoder puts BARs on the buses, wherever the guest moves them.
//
// A guest may put them in each other's way, or in that of the platform's own
// devices, or out of the bus: that is no error, but the access goes to nobody,
// or to one of them. The rule needs no history, so that a state can be taken
// back: what the platform has mapped comes first, then the endpoints in the
// order of their making, and in an endpoint the order of its BARs, MSI-X's last.
// Of two that overlap anywhere the later one is not on the bus at all, and comes
// back when the other one goes. RAM is before all of it: an access to RAM never
// comes to a bus.
//
// The zero Decoder is not usable.
type Decoder struct {
	ports, mmio *bus.Space
	windows     []*window
}

// NewDecoder gives a decoder without endpoints. The platform's devices must be
// on the buses before the first BAR is.
func NewDecoder(ports, mmio *bus.Space) *Decoder { return &Decoder{ports: ports, mmio: mmio} }

func (d *Decoder) add(e *Endpoint) { d.windows = append(d.windows, e.windows...) }

// follow has the buses follow the registers of e.
func (d *Decoder) follow(e *Endpoint) {
	changed := false
	for _, w := range e.windows {
		base, decodes := w.registers()
		changed = changed || decodes != w.decodes || decodes && base != w.base
		w.base, w.decodes = base, decodes
	}
	if changed {
		d.arrange()
	}
}

// arrange maps anew all that decodes. There are few BARs, and they seldom move.
func (d *Decoder) arrange() {
	for _, w := range d.windows {
		if w.space != nil {
			_ = w.space.Unmap(w.at) // it is mapped
			w.space = nil
		}
	}
	for _, w := range d.windows {
		if !w.decodes {
			continue
		}
		s := d.mmio
		if w.bar.Port {
			s = d.ports
		}
		if s.Map(w.base, w.bar.Size, w.endpoint.id.Name, w) == nil {
			w.space, w.at = s, w.base
		}
	}
}
