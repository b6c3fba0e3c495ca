package vmm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"fifovm/device"
	"fifovm/device/fault"
	"fifovm/vmm/chipset"
	"fifovm/vmm/clock"
	"fifovm/vmm/pci"
	"fifovm/vmm/soft"
)

// Device is a device to attach.
type Device struct {
	Name  string       // its own, in errors, fault plans and traces
	Model device.Model // for this machine alone
	Slot  int          // on PCI bus 0: 1 to 31; 0: the next that is free
}

// deviceSlots is how many places for devices PCI bus 0 has; the host bridge has
// the first one.
const deviceSlots = 32

// intxInputs is how many inputs of the I/O APIC the interrupt pins share, from
// chipset.INTxGSI on.
const intxInputs = 4

// maxEvents bounds what a device has scheduled. With device.MinDelay it bounds
// what one has the machine do in a span of the guest's time, and what it has it
// remember.
const maxEvents = 8192

// attached is a device in its place: what is between its boundary, its
// configuration space and the machine. To the boundary it is the Host.
//
// A model that panics ends the run with an error. It is not called again.
type attached struct {
	machine  *Machine
	name     string
	owner    string // of its events
	slot     int
	info     device.Info
	boundary *device.Boundary
	endpoint *pci.Endpoint
	events   int // scheduled
	broken   bool
}

// attachDevices puts the devices on PCI bus 0.
func (m *Machine) attachDevices() error {
	m.decoder = pci.NewDecoder(m.ports, m.mmio)
	taken := [deviceSlots]bool{true}
	for _, c := range m.cfg.Devices {
		if c.Slot < 0 || c.Slot >= deviceSlots {
			return fmt.Errorf("vmm: device %s: slot %d: want 1 to %d", c.Name, c.Slot, deviceSlots-1)
		}
		if c.Slot != 0 {
			taken[c.Slot] = true
		}
	}
	next := 0
	for _, c := range m.cfg.Devices {
		if c.Slot == 0 {
			for ; next < deviceSlots && taken[next]; next++ {
			}
			if next == deviceSlots {
				return fmt.Errorf("vmm: device %s: there are no more than %d slots", c.Name, deviceSlots-1)
			}
			taken[next], c.Slot = true, next
		}
		if err := m.attach(c); err != nil {
			return fmt.Errorf("vmm: device %s: %w", c.Name, err)
		}
	}
	return nil
}

func (m *Machine) attach(c Device) (err error) {
	if c.Name == "" || m.attached(c.Name) != nil {
		return errors.New("want a name that no other one has")
	}
	d := &attached{machine: m, name: c.Name, owner: "device " + c.Name, slot: c.Slot}
	defer func() {
		if d.broken {
			err = m.broken
		}
	}()
	defer d.recovered()
	d.info = c.Model.Info()
	if d.endpoint, err = pci.NewEndpoint(identity(c.Name, &d.info), m.decoder, d); err != nil {
		return err
	}
	if err := m.pciRoot.Add(pci.Address{Device: uint8(c.Slot)}, d.endpoint); err != nil {
		return err
	}
	m.clock.Register(d.owner, d)
	m.devices = append(m.devices, d)
	d.boundary = device.NewBoundary(c.Name, c.Model)
	d.boundary.OnRemove = d.endpoint.Remove
	d.boundary.Attach(d)
	return nil
}

func identity(name string, i *device.Info) pci.Identity {
	id := pci.Identity{Name: name, Vendor: i.Vendor, Device: i.Device, SubVendor: i.SubVendor, SubDevice: i.SubDevice,
		Class: i.Class, Revision: i.Revision, MSIX: i.MSIX, MSIXBAR: i.MSIXBAR, MSI: i.MSI, INTx: i.INTx}
	for _, b := range i.BARs {
		id.BARs = append(id.BARs, pci.BAR(b))
	}
	return id
}

// assignBARs does what firmware does for the devices before a kernel is there.
func (m *Machine) assignBARs() error {
	var endpoints []*pci.Endpoint
	lines := map[*pci.Endpoint]uint8{}
	for _, d := range m.devices {
		endpoints = append(endpoints, d.endpoint)
		lines[d.endpoint] = uint8(d.gsi())
	}
	return pci.Assign(endpoints, pci.Windows{
		Ports:    pci.Window{Base: chipset.PCIPortWindow, Size: chipset.PCIPortWindowSize},
		Memory32: pci.Window{Base: chipset.PCIWindow32, Size: chipset.PCIWindow32Size},
		Memory64: pci.Window{Base: chipset.PCIWindow64, Size: chipset.PCIWindow64Size},
	}, func(e *pci.Endpoint) uint8 { return lines[e] })
}

func (m *Machine) attached(name string) *attached {
	for _, d := range m.devices {
		if d.name == name {
			return d
		}
	}
	return nil
}

// Device is the boundary of a device, nil if there is none of that name; Devices
// are all of them, in the order of Config.Devices. Use them while the machine is
// not running, or in a call of Do.
func (m *Machine) Device(name string) *device.Boundary {
	if d := m.attached(name); d != nil {
		return d.boundary
	}
	return nil
}

// Devices are the boundaries of all devices.
func (m *Machine) Devices() []*device.Boundary {
	var all []*device.Boundary
	for _, d := range m.devices {
		all = append(all, d.boundary)
	}
	return all
}

// DeviceAddress is where the guest finds a device, as Linux writes it: 0000:00:02.0.
// It is empty if there is no device of that name.
func (m *Machine) DeviceAddress(name string) string {
	d := m.attached(name)
	if d == nil {
		return ""
	}
	return fmt.Sprintf("0000:00:%02x.0", d.slot)
}

// Do calls f between two things that the guest does, at any time, and from any
// goroutine but in a call of a device.
func (m *Machine) Do(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.engine.(*soft.Engine); ok {
		e.CatchUp()
	}
	f()
}

// RemoveDevice takes a device out, whatever it is doing, as by surprise. The
// guest finds all ones where it was.
func (m *Machine) RemoveDevice(name string) error {
	return m.withDevice(name, func(d *attached) { d.boundary.Remove() })
}

// PlugDevice puts one back that was removed. It is as after power-on, without
// addresses: Linux finds it when something is written to /sys/bus/pci/rescan.
func (m *Machine) PlugDevice(name string) error {
	return m.withDevice(name, func(d *attached) {
		if d.endpoint.Removed() {
			d.endpoint.Plug()
			d.boundary.Plug()
		}
	})
}

func (m *Machine) withDevice(name string, f func(*attached)) error {
	d := m.attached(name)
	if d == nil {
		return fmt.Errorf("vmm: there is no device %q", name)
	}
	m.Do(func() {
		if !d.broken {
			defer d.recovered()
			f(d)
		}
	})
	return nil
}

// recovered, deferred around each call of a model, makes a panic an error of the
// run: one model's mistake must not take the whole process with it, and must not
// go unseen.
func (d *attached) recovered() {
	if r := recover(); r != nil {
		d.broken = true
		d.machine.fail(&ModelPanic{Device: d.name, Value: r, Place: panicPlace(), Stack: string(debug.Stack())})
	}
}

// ModelPanic is that a device's model has panicked: a mistake in its code.
type ModelPanic struct {
	Device string
	Value  any    // of the panic
	Place  string // the model's line, as in fifo.go:12
	Stack  string // of the goroutine: many lines
}

func (p *ModelPanic) Error() string {
	return fmt.Sprintf("device %s: its model panicked at %s: %v", p.Device, p.Place, p.Value)
}

// panicPlace is where a panic, which a deferred call recovers, has begun: in the
// model, if what found the mistake is the host or the boundary.
func panicPlace() string {
	var pc [64]uintptr
	frames := runtime.CallersFrames(pc[:runtime.Callers(0, pc[:])])
	place := "an unknown place"
	for panicking, first := false, true; ; {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			panicking = true
		case !panicking, strings.HasPrefix(f.Function, "runtime."): // which finds an index out of range, and its like
		default:
			here := fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line)
			if !strings.HasPrefix(f.Function, "fifovm/vmm/vmm.(*attached).") && !strings.HasPrefix(f.Function, "fifovm/device.") {
				return here
			}
			if first {
				place, first = here, false
			}
		}
		if !more {
			return place
		}
	}
}

// gsi is the input of the I/O APIC that the interrupt pin is wired to.
func (d *attached) gsi() uint32 { return chipset.INTxGSI + uint32(d.slot%intxInputs) }

// The guest's side: pci.Backend and clock.Handler.
var (
	_ pci.Backend   = (*attached)(nil)
	_ clock.Handler = (*attached)(nil)
)

// ReadBAR is a guest's access.
func (d *attached) ReadBAR(bar int, off uint64, data []byte) {
	if d.broken {
		for i := range data {
			data[i] = 0xff
		}
		return
	}
	defer d.recovered()
	d.boundary.Read(bar, off, data)
}

// WriteBAR is a guest's access.
func (d *attached) WriteBAR(bar int, off uint64, data []byte) {
	if !d.broken {
		defer d.recovered()
		d.boundary.Write(bar, off, data)
	}
}

// ResetDevice is a reset by the guest.
func (d *attached) ResetDevice() {
	if !d.broken {
		defer d.recovered()
		d.boundary.Reset()
	}
}

// HandleEvent is what the device has scheduled.
func (d *attached) HandleEvent(kind uint32, payload uint64) {
	d.events--
	if !d.broken {
		defer d.recovered()
		d.boundary.Event(kind, payload)
	}
}

// msiPrefixShift: an address from 0xfee00000 to 0xfeefffff is the local APICs'
// (SDM volume 3, 11.11.1).
const msiPrefixShift = 20

// SendMessage writes data to address, wherever that is: it is the guest who has
// said so. To a local APIC it is an interrupt, and else memory like any other.
func (d *attached) SendMessage(address uint64, data uint32) {
	m := d.machine
	if address>>msiPrefixShift == chipset.LocalAPICBase>>msiPrefixShift {
		if err := m.engine.SignalMSI(address, data); err != nil {
			m.fail(err)
		}
		return
	}
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], data)
	_ = m.ram.Write(address, b[:]) // lost where no RAM is
}

// DriveLine drives the pin. Those of several slots are wired together.
func (d *attached) DriveLine(level bool) {
	was := d.wired()
	d.wire(level)
	if now := d.wired(); was != now {
		if err := d.machine.engine.SetIRQ(d.gsi(), now); err != nil {
			d.machine.fail(err)
		}
	}
}

// wire notes that the pin is up or down; wired tells whether any at its input is.
func (d *attached) wire(level bool) {
	pins := &d.machine.intx[d.slot%intxInputs]
	*pins &^= 1 << d.slot
	if level {
		*pins |= 1 << d.slot
	}
}

func (d *attached) wired() bool { return d.machine.intx[d.slot%intxInputs] != 0 }

// The model's side: device.Host.
var _ device.Host = (*attached)(nil)

// Now implements device.Host.
func (d *attached) Now() int64 { return d.machine.clock.Now() }

// Schedule implements device.Host.
func (d *attached) Schedule(when int64, kind uint32, payload uint64) {
	if d.events == maxEvents {
		panic(fmt.Sprintf("%d events are scheduled, and one more is not permitted", maxEvents))
	}
	d.events++
	c := d.machine.clock
	c.Schedule(max(when, c.Now()+device.MinDelay), d.owner, kind, payload)
}

// Cancel implements device.Host.
func (d *attached) Cancel(kind uint32) int {
	n := d.machine.clock.Cancel(d.owner, kind)
	d.events -= n
	return n
}

// DMARead implements device.Host.
func (d *attached) DMARead(addr uint64, p []byte) error {
	err := d.permits(addr, len(p))
	if err == nil && d.machine.ram.Read(addr, p) != nil {
		d.endpoint.MasterAborted()
		err = device.ErrAddress
	}
	if err != nil {
		return &device.Error{Op: "read", Addr: addr, Size: len(p), Err: err}
	}
	return nil
}

// DMAWrite implements device.Host.
func (d *attached) DMAWrite(addr uint64, p []byte) error {
	err := d.permits(addr, len(p))
	if err == nil && d.machine.ram.Write(addr, p) != nil {
		err = device.ErrAddress
	}
	if err != nil {
		return &device.Error{Op: "write", Addr: addr, Size: len(p), Err: err}
	}
	return nil
}

// permits says why the device can't access memory there, RAM or not.
func (d *attached) permits(addr uint64, size int) error {
	if !d.endpoint.Master() {
		return device.ErrNotMaster
	}
	last := addr + uint64(max(size, 1)) - 1 // where it wraps, RAM is not at addr
	if n := d.info.DMABits; n > 0 && n < 64 && last>>n != 0 {
		return device.ErrAddress
	}
	return nil
}

// Raise implements device.Host.
func (d *attached) Raise(vector int) { d.endpoint.Raise(vector) }

// SetINTx implements device.Host.
func (d *attached) SetINTx(asserted bool) {
	if asserted && !d.info.INTx {
		panic("the function has no interrupt pin: see device.Info")
	}
	d.endpoint.SetPin(asserted)
}

// Message implements device.Host.
func (d *attached) Message() bool { return d.endpoint.Message() }

// DeviceState is the state of a device.
type DeviceState struct {
	Name     string
	Function pci.EndpointState
	// Boundary has the model's state in it: a value of the model's type, or an
	// Encoded one.
	Boundary device.BoundaryState
	Plan     int // which of State.Plans is armed, from 1 on; 0: none
}

// Encoded is the state of a model that has come from a file: what type it is of,
// only the model knows.
type Encoded interface {
	// Decode fills in the value that into points to. What is not in its type is
	// an error: a state may be of another model, or version.
	Decode(into any) error
}

func (m *Machine) deviceStates() (all []DeviceState, err error) {
	for _, d := range m.devices {
		s, err := d.state()
		if err != nil {
			return nil, fmt.Errorf("vmm: device %s: %w", d.name, err)
		}
		all = append(all, s)
	}
	return all, nil
}

func (d *attached) state() (s DeviceState, err error) {
	defer func() {
		if d.broken {
			err = d.machine.broken
		}
	}()
	if d.broken {
		return s, nil // the deferred call has the reason
	}
	defer d.recovered()
	s = DeviceState{Name: d.name, Function: d.endpoint.State(), Boundary: d.boundary.State().(device.BoundaryState)}
	if model := s.Boundary.Model; model != nil {
		err = plain(reflect.TypeOf(model))
	}
	return s, err
}

// setDeviceStates takes states back, after the clock has its events.
func (m *Machine) setDeviceStates(all []DeviceState) error {
	var errs []error
	for i, d := range m.devices {
		if err := d.setState(&all[i]); err != nil {
			errs = append(errs, fmt.Errorf("vmm: device %s: %w", d.name, err))
		}
		d.wire(d.endpoint.Line())
	}
	return errors.Join(errs...)
}

func (d *attached) setState(s *DeviceState) (err error) {
	if err := d.endpoint.SetState(s.Function); err != nil {
		return err
	}
	if d.events = d.machine.clock.Count(d.owner); d.events > maxEvents {
		return fmt.Errorf("state has %d events, want at most %d", d.events, maxEvents)
	}
	defer func() {
		if d.broken {
			err = d.machine.broken
		}
	}()
	defer d.recovered()
	return d.boundary.SetState(func(into any) error {
		b := into.(*device.BoundaryState)
		model, encoded := b.Model, false
		*b = s.Boundary
		var e Encoded
		if e, encoded = b.Model.(Encoded); encoded {
			b.Model = nil
		}
		if *b = clone(*b); encoded && model != nil {
			b.Model = model
			return e.Decode(model)
		}
		return nil
	})
}

// planStates gives the plans of faults that are armed, and notes in the devices'
// states which of them is whose.
func (m *Machine) planStates(devices []DeviceState) (states []fault.State) {
	var plans []*fault.Plan
	for i, d := range m.devices {
		p, ok := d.boundary.Injector().(*fault.Plan)
		if !ok {
			continue
		}
		k := slices.Index(plans, p)
		if k < 0 {
			k = len(plans)
			plans, states = append(plans, p), append(states, p.State())
		}
		devices[i].Plan = k + 1
	}
	return states
}

// setPlans arms the plans of a state on the devices that have them. Where what is
// armed is the same already, it stays: who has armed it may want to ask it. It
// comes before the clock gets its events, as it schedules some.
func (m *Machine) setPlans(plans []fault.State, devices []DeviceState) error {
	made := make([]*fault.Plan, len(plans))
	for i, d := range m.devices {
		k := devices[i].Plan - 1
		if k >= len(plans) || k < -1 {
			return fmt.Errorf("vmm: device %s: state has plan %d of %d", d.name, k+1, len(plans))
		}
		is, ok := d.boundary.Injector().(*fault.Plan)
		if k < 0 {
			if ok {
				d.boundary.Inject(nil)
			}
			continue
		}
		if made[k] == nil {
			if ok && reflect.DeepEqual(is.State(), plans[k]) {
				made[k] = is
			} else {
				p, err := fault.FromState(plans[k])
				if err != nil {
					return err
				}
				made[k] = p
			}
		}
		if made[k] != is {
			d.boundary.Inject(made[k])
		}
	}
	return nil
}

// Plans are the plans of faults that are armed on the machine's devices.
func (m *Machine) Plans() (plans []*fault.Plan) {
	for _, d := range m.devices {
		if p, ok := d.boundary.Injector().(*fault.Plan); ok && !slices.Contains(plans, p) {
			plans = append(plans, p)
		}
	}
	return plans
}
