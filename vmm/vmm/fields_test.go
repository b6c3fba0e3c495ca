package vmm

import (
	"reflect"
	"testing"

	"fifovm/device"
)

// where says for each field of what makes up a machine where its state is, or why
// there is nothing to keep.
var where = map[string]string{
	"Machine.mu": "wiring", "Machine.cfg": "the machine's making", "Machine.ram": "beside the state", "Machine.time": "State.Now",
	"Machine.clock": "State.Clock", "Machine.ports": "wiring; BARs follow from PCI's state", "Machine.mmio": "as ports", "Machine.engine": "State.CPU",
	"Machine.serial": "State.UART, Waiting, Converses", "Machine.cmos": "State.CMOS", "Machine.power": "State.Power", "Machine.pciRoot": "State.PCI",
	"Machine.bridge": "State.Bridge", "Machine.decoder": "follows from the endpoints", "Machine.devices": "State.Devices",
	"Machine.intx": "follows from the endpoints", "Machine.base": "the host's", "Machine.stop": "of a run", "Machine.broken": "such a machine has no state",
	"Machine.cancel": "of a run",

	"serialPort.machine": "wiring", "serialPort.index": "wiring", "serialPort.uart": "State.UART", "serialPort.out": "the host's",
	"serialPort.waiting": "State.Waiting", "serialPort.writer": "wiring", "serialPort.room": "wiring", "serialPort.closed": "the host's",
	"serialPort.converses": "State.Converses", "serialPort.resets": "the host's",

	"attached.machine": "wiring", "attached.name": "DeviceState.Name", "attached.owner": "wiring", "attached.slot": "wiring", "attached.info": "constant",
	"attached.boundary": "DeviceState.Boundary", "attached.endpoint": "DeviceState.Function", "attached.events": "counted in State.Clock",
	"attached.broken": "such a machine has no state",

	"Boundary.name": "wiring", "Boundary.model": "BoundaryState.Model", "Boundary.host": "wiring", "Boundary.injector": "State.Plans",
	"Boundary.faults": "BoundaryState.Faults", "Boundary.tracer": "the host's", "Boundary.OnRemove": "wiring", "Boundary.s": "BoundaryState",
	"Boundary.depth": "of a call", "Boundary.resetting": "of a call", "Boundary.resets": "of a call", "Boundary.resetDue": "of a call",
	"Boundary.removeDue": "of a call",
}

// TestEveryFieldHasItsPlace: who adds a field has to think of the state.
func TestEveryFieldHasItsPlace(t *testing.T) {
	left := map[string]bool{}
	for name := range where {
		left[name] = true
	}
	for _, s := range []reflect.Type{reflect.TypeFor[Machine](), reflect.TypeFor[serialPort](), reflect.TypeFor[attached](), reflect.TypeFor[device.Boundary]()} {
		for i := range s.NumField() {
			name := s.Name() + "." + s.Field(i).Name
			if !left[name] {
				t.Errorf("where in the state is %s?", name)
			}
			delete(left, name)
		}
	}
	for name := range left {
		t.Errorf("there is no field %s", name)
	}
}
