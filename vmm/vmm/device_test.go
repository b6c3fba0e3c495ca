package vmm

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"fifovm/device"
	"fifovm/vmm/boot"
	"fifovm/vmm/boot/tiny"
	"fifovm/vmm/chipset"
	"fifovm/vmm/memory"
)

// probe is a model that does what the test tells it to, and writes down what
// comes.
type probe struct {
	info  device.Info
	host  device.Host
	got   []string
	s     probeState
	on    func(what string) // after each call
	state func() any        // in place of the state
}

type probeState struct {
	Register uint32
	Events   int
}

func newProbe() *probe {
	return &probe{info: device.Info{Vendor: 0x1234, Device: 0x5678, Class: 0xff0000,
		BARs: []device.BAR{{Index: 0, Size: 4096}, {Index: 2, Size: 64 << 10, Wide: true}, {Index: 4, Size: 16, Port: true}},
		MSIX: 4, MSIXBAR: 1, MSI: 2, INTx: true, DMABits: 33}}
}

func (p *probe) Info() device.Info    { return p.info }
func (p *probe) Attach(h device.Host) { p.host = h }

func (p *probe) note(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	p.got = append(p.got, what)
	if p.on != nil {
		p.on(what)
	}
}

func (p *probe) Read(bar int, off uint64, data []byte) {
	clear(data)
	copy(data, binary.LittleEndian.AppendUint32(nil, p.s.Register))
	p.note("read %d+%#x/%d", bar, off, len(data))
}

func (p *probe) Write(bar int, off uint64, data []byte) {
	var b [8]byte
	copy(b[:], data)
	p.s.Register = binary.LittleEndian.Uint32(b[:])
	p.note("write %d+%#x=%x", bar, off, data)
}

func (p *probe) Event(kind uint32, payload uint64) {
	p.s.Events++
	p.note("event %d %d at %d", kind, payload, p.host.Now())
}

func (p *probe) Reset() {
	p.s = probeState{}
	p.note("reset")
}

func (p *probe) State() any {
	if p.state != nil {
		return p.state()
	}
	return p.s
}

func (p *probe) SetState(decode func(any) error) error { return decode(&p.s) }

func (p *probe) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(p.got, want) {
		t.Errorf("the model has seen %q, want %q", p.got, want)
	}
	p.got = nil
}

// recorder is an engine whose interrupts are written down.
type recorder struct {
	Engine
	got []string
}

func (r *recorder) SetIRQ(gsi uint32, level bool) error {
	r.got = append(r.got, fmt.Sprintf("irq %d %v", gsi, level))
	return r.Engine.SetIRQ(gsi, level)
}

func (r *recorder) SignalMSI(address uint64, data uint32) error {
	r.got = append(r.got, fmt.Sprintf("%#x=%#x", address, data))
	return r.Engine.SignalMSI(address, data)
}

func (r *recorder) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(r.got, want) {
		t.Errorf("interrupts %q, want %q", r.got, want)
	}
	r.got = nil
}

// bench is a machine with devices, whose guest is the test.
type bench struct {
	*Machine
	t      *testing.T
	engine *recorder
}

func newBench(t *testing.T, engine string, devices ...Device) *bench {
	b := &bench{Machine: machine(t, Config{Engine: engine, Devices: devices}), t: t}
	b.engine = &recorder{Engine: b.Machine.engine}
	b.Machine.engine = b.engine
	load(t, b.Machine, "p")
	return b
}

func (b *bench) config(slot, reg, n int) uint64 {
	return b.load(chipset.ECAM|uint64(slot<<15|reg), n)
}

func (b *bench) setConfig(slot, reg, n int, v uint64) {
	b.store(chipset.ECAM|uint64(slot<<15|reg), n, v)
}

func (b *bench) load(addr uint64, n int) uint64 {
	var p [8]byte
	b.Do(func() { b.mmio.Read(addr, p[:n]) })
	return binary.LittleEndian.Uint64(p[:])
}

func (b *bench) store(addr uint64, n int, v uint64) {
	b.Do(func() { b.mmio.Write(addr, binary.LittleEndian.AppendUint64(nil, v)[:n]) })
}

// bar is where a BAR is.
func (b *bench) bar(slot, index int) uint64 {
	v := b.config(slot, 0x10+4*index, 4)
	if v&7 == 4 {
		v |= b.config(slot, 0x14+4*index, 4) << 32
	}
	return v &^ 15
}

const everything = 7 // command register: ports, memory, bus master

func TestDevicePlaces(t *testing.T) {
	models := []*probe{newProbe(), newProbe(), newProbe(), newProbe()}
	for i, p := range models {
		p.info.SubDevice = uint16(i)
	}
	models[3].info.INTx = false
	b := newBench(t, EngineSoft, Device{"a", models[0], 0}, Device{"b", models[1], 1}, Device{"c", models[2], 9}, Device{"d", models[3], 0})
	for i, slot := range []int{2, 1, 9, 3} {
		if v := b.config(slot, 0, 4); v != 0x5678_1234 || b.config(slot, 0x2e, 2) != uint64(i) {
			t.Errorf("in slot %d is %#x, subsystem %d", slot, v, b.config(slot, 0x2e, 2))
		}
		gsi := uint64(16 + slot%4)
		if i == 3 {
			gsi = 0
		}
		if p := b.Machine.platform().INTx[slot]; p != [4]uint32{uint32(gsi)} || b.config(slot, 0x3c, 1) != gsi {
			t.Errorf("slot %d: _PRT says %d, the interrupt line register %d", slot, p, b.config(slot, 0x3c, 1))
		}
		b.setConfig(slot, 4, 2, everything)
		for _, index := range []int{0, 2} {
			b.store(b.bar(slot, index)+8, 4, 7)
		}
		models[i].expect(t, "write 0+0x8=07000000", "write 2+0x8=07000000")
		if port := b.bar(slot, 4); port < chipset.PCIPortWindow {
			t.Errorf("slot %d: ports at %#x", slot, port)
		}
	}
	if b.Device("c").Model() != models[2] || b.Device("e") != nil || len(b.Devices()) != 4 || b.Devices()[3].Name() != "d" {
		t.Error("the devices' names lead elsewhere")
	}
}

func TestBadDevices(t *testing.T) {
	bad := newProbe()
	bad.info.BARs[0].Size = 3
	var many []Device
	for i := range 32 {
		many = append(many, Device{Name: fmt.Sprint(i), Model: newProbe()})
	}
	for want, devices := range map[string][]Device{
		"slot 32":                          {{"a", newProbe(), 32}},
		"slot -1":                          {{"a", newProbe(), -1}},
		"two functions":                    {{"a", newProbe(), 3}, {"b", newProbe(), 3}},
		"no other one":                     {{"a", newProbe(), 0}, {"a", newProbe(), 0}},
		"want a name":                      {{"", newProbe(), 0}},
		"BAR 0: 0x3 bytes":                 {{"a", bad, 0}},
		"no more than 31":                  many,
		"device a: its model panicked at ": {{"a", &struct{ *probe }{}, 0}},
	} {
		m, err := New(Config{Engine: EngineSoft, CPUs: 1, Memory: testMemory, Devices: devices})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		if err == nil {
			m.Close()
		}
	}
	big := newProbe()
	big.info.BARs[0].Size = 1 << 31
	m := machine(t, Config{Engine: EngineSoft, Devices: []Device{{"a", big, 0}}})
	if err := m.Load(Boot{Kernel: tinyKernel(t)}); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("a BAR larger than its window: %v", err)
	}
}

func TestDMA(t *testing.T) { onEngines(t, testDMA) }

func testDMA(t *testing.T, engine string) {
	p := newProbe()
	b := newBench(t, engine, Device{"dev", p, 1})
	buf := make([]byte, 16)
	expect := func(what string, got error, op string, addr uint64, want error) {
		t.Helper()
		var e *device.Error
		if want == nil && got == nil {
			return
		}
		if !errors.Is(got, want) || !errors.As(got, &e) || e.Op != op || e.Addr != addr || e.Size != len(buf) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	expect("not enabled", p.host.DMARead(0x1000, buf), "read", 0x1000, device.ErrNotMaster)
	expect("not enabled", p.host.DMAWrite(0x1000, buf), "write", 0x1000, device.ErrNotMaster)
	b.setConfig(1, 4, 2, everything)
	if b.config(1, 6, 2)&0x2000 != 0 {
		t.Error("master abort already")
	}
	for _, addr := range []uint64{testMemory - 15, testMemory, chipset.ECAM, b.bar(1, 0), ^uint64(0), ^uint64(0) - 15, 1 << 33} {
		expect("no RAM", p.host.DMAWrite(addr, buf), "write", addr, device.ErrAddress)
		expect("no RAM", p.host.DMARead(addr, buf), "read", addr, device.ErrAddress)
	}
	if b.config(1, 6, 2)&0x2000 == 0 {
		t.Error("no master abort in the status register")
	}
	copy(buf, "0123456789abcdef")
	expect("RAM", p.host.DMAWrite(testMemory-16, buf), "", 0, nil)
	back := make([]byte, 16)
	if err := b.RAM().Read(testMemory-16, back); err != nil || !bytes.Equal(back, buf) {
		t.Errorf("in RAM is %q (%v)", back, err)
	}
	clear(back)
	if err := p.host.DMARead(testMemory-16, back); err != nil || !bytes.Equal(back, buf) {
		t.Errorf("read %q (%v)", back, err)
	}
	if err := p.host.DMARead(0, nil); err != nil {
		t.Errorf("nothing: %v", err)
	}
	b.setConfig(1, 0x44, 2, 3) // D3hot
	expect("D3hot", p.host.DMARead(0x1000, buf), "read", 0x1000, device.ErrNotMaster)
}

// TestDMABits: it counts where RAM is, too.
func TestDMABits(t *testing.T) {
	p := newProbe()
	p.info.DMABits = 20
	b := newBench(t, EngineSoft, Device{"dev", p, 1})
	b.setConfig(1, 4, 2, everything)
	buf := make([]byte, 16)
	if err := p.host.DMAWrite(1<<20-16, buf); err != nil {
		t.Error(err)
	}
	for _, addr := range []uint64{1<<20 - 15, 1 << 20} {
		if err := p.host.DMAWrite(addr, buf); !errors.Is(err, device.ErrAddress) {
			t.Errorf("%#x: %v", addr, err)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		if p.host.DMAWrite(0x8000, buf) != nil || p.host.DMARead(0x8000, buf) != nil {
			t.Error("DMA fails")
		}
	}); n != 0 {
		t.Errorf("DMA allocates %v times", n)
	}
}

func TestInterrupts(t *testing.T) { onEngines(t, testInterrupts) }

func testInterrupts(t *testing.T, engine string) {
	p, q := newProbe(), newProbe()
	b := newBench(t, engine, Device{"p", p, 1}, Device{"q", q, 5}) // one input for both
	in := func(f func()) { b.Do(f) }
	in(func() { p.host.SetINTx(true) })
	in(func() { q.host.SetINTx(true) })
	b.engine.expect(t, "irq 17 true")
	in(func() { p.host.SetINTx(false) })
	b.engine.expect(t)
	b.setConfig(5, 4, 2, 0x400)
	b.engine.expect(t, "irq 17 false")
	b.setConfig(5, 4, 2, 0)
	b.engine.expect(t, "irq 17 true")
	if err := b.RemoveDevice("q"); err != nil {
		t.Error(err)
	}
	b.engine.expect(t, "irq 17 false")

	// Messages to a local APIC, to nobody's, to RAM and to nowhere.
	b.setConfig(1, 4, 2, everything)
	b.setConfig(1, 0x72, 2, 0x8000)
	if !p.host.Message() {
		t.Error("no messages")
	}
	for i, address := range []uint64{0xfee0_0000, 0xfee5_5000, 0x2000, 0xffff_ffff_ffff_fffc} {
		b.store(b.bar(1, 1)+16*uint64(i), 8, address)
		b.store(b.bar(1, 1)+16*uint64(i)+8, 8, 0x40+uint64(i))
		in(func() { p.host.Raise(i) })
	}
	b.engine.expect(t, "0xfee00000=0x40", "0xfee55000=0x41")
	got := make([]byte, 5)
	if err := b.RAM().Read(0x2000, got); err != nil || !bytes.Equal(got, []byte{0x42, 0, 0, 0, 0}) {
		t.Errorf("the message in RAM is %x (%v)", got, err)
	}
	if stop, err := b.Run(t.Context()); err != nil || stop != PowerOff {
		t.Errorf("Run gives %v, %v", stop, err)
	}
}

// TestDeviceEvents: a device that wants to be called at once leaves the guest
// time, and has no more than so many events.
func TestDeviceEvents(t *testing.T) {
	p := newProbe()
	b := newBench(t, EngineSoft, Device{"dev", p, 0})
	p.host.Schedule(5000, 2, 22)
	p.host.Schedule(-1, 1, 11)
	p.host.Schedule(1000, 3, 33)
	p.host.Schedule(1000, 3, 34)
	if n := p.host.Cancel(3); n != 2 {
		t.Errorf("%d events cancelled", n)
	}
	ctx, pause := context.WithCancel(t.Context())
	p.on = func(what string) {
		if p.s.Events < 10 {
			p.host.Schedule(p.host.Now(), 4, 0)
		} else {
			pause()
		}
	}
	load(t, b.Machine, "") // it waits
	if stop, err := b.Run(ctx); err != nil || stop != Paused {
		t.Fatalf("Run gives %v, %v", stop, err)
	}
	last := int64(0)
	for i, what := range p.got {
		var kind, payload, now int64
		if _, err := fmt.Sscanf(what, "event %d %d at %d", &kind, &payload, &now); err != nil {
			t.Fatal(err)
		}
		if i == 0 && (kind != 1 || payload != 11) || i > 0 && kind != 4 || now < last+device.MinDelay || now > last+2*device.MinDelay {
			t.Errorf("after %d comes %q", last, what)
		}
		last = now
	}
	if len(p.got) != 10 {
		t.Errorf("%d events", len(p.got))
	}
	p.on = nil
	p.host.Cancel(2)
	if n := b.attached("dev").events; n != b.clock.Count("device dev") {
		t.Errorf("%d events are counted, there are %d", n, b.clock.Count("device dev"))
	}
	b.Do(func() {
		defer b.attached("dev").recovered()
		for range maxEvents + 1 {
			p.host.Schedule(1<<40, 9, 0)
		}
	})
	if _, err := b.Run(t.Context()); err == nil || !strings.Contains(err.Error(), ": 8192 events") {
		t.Errorf("Run gives %v", err)
	}
}

// TestModelPanics: whichever call it is, the run ends with an error that names
// the device and the line, and the model is not called again.
func TestModelPanics(t *testing.T) { onEngines(t, testModelPanics) }

func testModelPanics(t *testing.T, engine string) {
	for what, call := range map[string]func(*bench, *probe){
		"read":  func(b *bench, _ *probe) { b.load(b.bar(1, 0), 4) },
		"write": func(b *bench, _ *probe) { b.store(b.bar(1, 0), 4, 0) },
		"reset": func(b *bench, _ *probe) { b.setConfig(1, 0x88, 2, 0x8000) },
		"event": func(b *bench, p *probe) { b.Do(func() { p.host.Schedule(0, 0, 0) }) },
	} {
		t.Run(what, func(t *testing.T) {
			p := newProbe()
			b := newBench(t, engine, Device{"dev", p, 1})
			load(t, b.Machine, "")
			b.setConfig(1, 4, 2, everything)
			p.on = func(got string) { panic("the model's own " + got) }
			if what == "event" {
				call(b, p)
			} else {
				go call(b, p) // before the run, or in the midst of it
			}
			_, err := b.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), "device dev: its model panicked at device_test.go:") || !strings.Contains(err.Error(), ": the model's own "+what) {
				t.Fatalf("Run gives %v", err)
			}
			p.got = nil
			b.store(b.bar(1, 0), 4, 0)
			if v := b.load(b.bar(1, 0), 4); what != "reset" && v != 0xffff_ffff {
				t.Errorf("a broken model reads %#x", v)
			}
			p.expect(t)
			if _, err := b.State(); err == nil || !strings.Contains(err.Error(), "panic") {
				t.Errorf("the state of a broken model: %v", err)
			}
			if _, again := b.Run(t.Context()); again == nil {
				t.Error("a machine with a broken model runs again")
			}
		})
	}
}

func TestRemoveAndPlug(t *testing.T) { onEngines(t, testRemoveAndPlug) }

func testRemoveAndPlug(t *testing.T, engine string) {
	p := newProbe()
	b := newBench(t, engine, Device{"dev", p, 1})
	b.setConfig(1, 4, 2, everything)
	at := b.bar(1, 0)
	b.Do(func() { p.host.Schedule(1<<50, 1, 0) })
	b.store(at, 4, 5)
	p.expect(t, "write 0+0x0=05000000")
	for range 2 {
		if err := b.RemoveDevice("dev"); err != nil {
			t.Fatal(err)
		}
	}
	if v, c := b.load(at, 4), b.config(1, 0, 4); v != 0xffff_ffff || c != 0xffff_ffff {
		t.Errorf("removed it reads %#x and %#x", v, c)
	}
	if n := b.clock.Count("device dev"); n != 0 {
		t.Errorf("%d events of a device that has gone", n)
	}
	for range 2 {
		if err := b.PlugDevice("dev"); err != nil {
			t.Fatal(err)
		}
	}
	p.expect(t, "reset")
	if b.config(1, 0, 4) != 0x5678_1234 || b.bar(1, 0) != 0 || b.config(1, 4, 2) != 0 {
		t.Error("plugged in it is not as after power-on")
	}
	b.setConfig(1, 0x10, 4, 0xd000_0000)
	b.setConfig(1, 4, 2, everything)
	if v := b.load(0xd000_0000, 4); v != 0 {
		t.Errorf("its register is %#x", v)
	}
	// Removed from inside: the function goes as well.
	b.Do(b.Device("dev").Remove)
	if b.config(1, 0, 4) != 0xffff_ffff {
		t.Error("the configuration space of a device that disappeared is there")
	}
	if b.RemoveDevice("x") == nil || b.PlugDevice("x") == nil {
		t.Error("a device that there is not can be removed and plugged in")
	}
}

func TestFunctionLevelReset(t *testing.T) {
	p := newProbe()
	b := newBench(t, EngineSoft, Device{"dev", p, 1})
	b.setConfig(1, 4, 2, everything)
	b.store(b.bar(1, 0), 4, 5)
	b.Do(func() {
		b.Device("dev").Model().(*probe).host.Schedule(1<<50, 1, 0)
		p.host.SetINTx(true)
	})
	p.got, b.engine.got = nil, nil
	b.setConfig(1, 0x88, 2, 0x8000)
	p.expect(t, "reset")
	b.engine.expect(t, "irq 17 false")
	if n := b.clock.Count("device dev"); n != 0 || b.attached("dev").events != 0 {
		t.Errorf("%d events after the reset, %d counted", n, b.attached("dev").events)
	}
	if b.bar(1, 0) != 0 || b.config(1, 0x88, 2)&0x8000 != 0 {
		t.Error("configuration space is not reset")
	}
}

// TestDeviceStates moves devices between machines, by way of text.
func TestDeviceStates(t *testing.T) {
	ram, err := memory.New(testMemory)
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	make2 := func() (*Machine, *probe, *probe) {
		p, q := newProbe(), newProbe()
		return machine(t, Config{Engine: EngineSoft, RAM: ram, Devices: []Device{{"p", p, 1}, {"q", q, 5}}}), p, q
	}
	m, p, q := make2()
	load(t, m, "")
	b := &bench{Machine: m, t: t}
	b.setConfig(1, 4, 2, everything)
	b.store(b.bar(1, 0), 4, 0x12345678)
	p.host.Schedule(1<<40, 7, 9)
	q.host.SetINTx(true)
	hash := func(m *Machine) string {
		h, err := m.Hash()
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	before := hash(m)
	if q.host.SetINTx(false); hash(m) == before {
		t.Error("the pin is not in the state")
	}
	q.host.SetINTx(true)
	before = hash(m)
	s, err := m.State()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	other, p2, q2 := make2()
	back := fromJSON(t, text)
	if err := other.SetState(back); err != nil {
		t.Fatal(err)
	}
	if hash(other) != before {
		t.Error("the state has changed on its way")
	}
	b2 := &bench{Machine: other, t: t}
	if v := b2.load(b2.bar(1, 0), 4); v != 0x12345678 {
		t.Errorf("the register reads %#x", v)
	}
	if n := p2.host.Cancel(7); n != 1 || other.attached("p").events != 0 {
		t.Errorf("%d events came along, %d are counted now", n, other.attached("p").events)
	}
	r := &recorder{Engine: other.engine}
	other.engine = r
	p2.host.SetINTx(true)
	q2.host.SetINTx(false)
	r.expect(t)
	p2.host.SetINTx(false)
	r.expect(t, "irq 17 false")

	for want, change := range map[string]func(*State){
		"has 1 devices":      func(s *State) { s.Devices = s.Devices[:1] },
		`of device "x"`:      func(s *State) { s.Devices[0].Name = "x" },
		"another function":   func(s *State) { s.Devices[0].Function.Config[0]++ },
		"unknown field":      func(s *State) { s.Devices[0].Boundary.Model = jsonModel(`{"Extra":1}`) },
		"for the model's":    func(s *State) { s.Devices[0].Boundary.Model = nil },
		"counts of 0 vector": func(s *State) { s.Devices[0].Boundary.Vectors = nil },
		"has plan 1 of 0":    func(s *State) { s.Devices[0].Plan = 1 },
	} {
		s := fromJSON(t, text)
		change(s)
		m, _, _ := make2()
		if err := m.SetState(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	p.state = func() any { return func() {} }
	if _, err := m.State(); err == nil || !strings.Contains(err.Error(), "device p") {
		t.Errorf("a state that is not plain data: %v", err)
	}
}

// jsonModel is the state of a model as text.
type jsonModel []byte

func (m jsonModel) Decode(into any) error {
	d := json.NewDecoder(bytes.NewReader(m))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// fromJSON reads a state whose models' are still to be decoded.
func fromJSON(t *testing.T, text []byte) *State {
	t.Helper()
	s := new(State)
	var models struct {
		Devices []struct {
			Boundary struct{ Model json.RawMessage }
		}
	}
	if err := errors.Join(json.Unmarshal(text, s), json.Unmarshal(text, &models)); err != nil {
		t.Fatal(err)
	}
	for i := range s.Devices {
		s.Devices[i].Boundary.Model = jsonModel(models.Devices[i].Boundary.Model)
	}
	return s
}

func tinyKernel(t *testing.T) *boot.Kernel {
	t.Helper()
	k, err := boot.Parse(tiny.Kernel("p"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestLinuxFindsDevices boots what kernels there are, without a root file
// system: they find the devices before they miss it.
func TestLinuxFindsDevices(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real kernels: left out of -short")
	}
	found := false
	for _, version := range []string{"6.1", "6.12"} {
		k, err := boot.Open("../../build/kernel/" + version + "/vmlinux")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		found = true
		t.Run(version, func(t *testing.T) { linuxFindsDevices(t, k) })
	}
	if !found {
		t.Skip("no kernel in build/kernel: make kernel builds it")
	}
}

func linuxFindsDevices(t *testing.T, k *boot.Kernel) {
	var console bytes.Buffer
	m := machine(t, Config{Engine: EngineSoft, Serial: [2]io.Writer{&console},
		Devices: []Device{{"a", newProbe(), 1}, {"b", newProbe(), 6}}})
	if err := m.Load(Boot{Kernel: k, CommandLine: "console=ttyS0 panic=-1"}); err != nil {
		t.Fatal(err)
	}
	if stop, err := m.Run(t.Context()); err != nil || stop != Reset {
		t.Errorf("Run gives %v, %v", stop, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	out := console.String()
	for _, want := range []string{
		"pci 0000:00:01.0: [1234:5678] type 00 class 0xff0000", "pci 0000:00:06.0: [1234:5678]",
		"pci 0000:00:01.0: BAR 0 [mem 0xc0004000-0xc0004fff]", "pci 0000:00:06.0: BAR 1 [mem 0xc0002000-0xc0003fff]",
		"pci 0000:00:01.0: BAR 2 [mem 0x4000000000-0x400000ffff 64bit]", "pci 0000:00:06.0: BAR 4 [io  0xc010-0xc01f]",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q on the console", want)
		}
	}
	for _, bad := range []string{"WARNING", "BUG:", "can't assign", "failed to assign", "no compatible bridge window", "ACPI Error", "Firmware Bug"} {
		if strings.Contains(out, bad) {
			t.Errorf("%q on the console", bad)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

// TestLinuxReplug has a kernel wire up a pin as _PRT says, loses it the device
// while it is enabled, and plugs it in again for a rescan.
func TestLinuxReplug(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real kernel: left out of -short")
	}
	k, err := boot.Open("../../build/kernel/6.12/vmlinux")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("no kernel in build/kernel/6.12: make kernel builds it")
	}
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := os.Open("../../build/guest.cpio")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("no build/guest.cpio: make image builds it")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer initrd.Close()
	info, err := initrd.Stat()
	if err != nil {
		t.Fatal(err)
	}
	console := newTranscript()
	b := &bench{t: t, Machine: machine(t, Config{Engine: EngineSoft, RAM: moreMemory(t), Serial: [2]io.Writer{console}, Devices: []Device{{"dev", newProbe(), 5}}})}
	if err := b.Load(Boot{Kernel: k, Initrd: io.NewSectionReader(initrd, 0, info.Size()), CommandLine: "console=ttyS0 panic=-1"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		stop, err := b.Run(ctx)
		if err == nil && stop != Paused {
			err = errors.New("the guest ended by " + stop.String())
		}
		console.Write([]byte("the end of the run")) // nobody is to wait for more
		done <- err
	}()
	n := 0
	shell := func(command string) string {
		t.Helper()
		n++
		first, last := fmt.Sprintf("begin%d", n), fmt.Sprintf("end%d", n)
		// The echo of the line has quotes in the words.
		line := fmt.Sprintf("echo beg''in%d; %s; echo e''nd%d\n", n, command, n)
		go func() { _, _ = io.WriteString(b.Serial(0), line) }()
		console.waitAny(last+"\r\n", "the end of the run")
		_, out, _ := strings.Cut(console.String(), first+"\r\n")
		out, _, ok := strings.Cut(out, last+"\r\n")
		if !ok {
			t.Fatalf("%v\n%s", <-done, console)
		}
		return strings.ReplaceAll(out, "\r\n", " ")
	}
	console.waitAny("$ ", "the end of the run")
	const at = "/sys/bus/pci/devices/0000:00:05.0"
	const enable = "cd " + at + "; echo 1 >enable; I=/sys/kernel/irq/$(cat irq); cat $I/hwirq $I/type $I/chip_name"
	for range 2 {
		if got := shell(enable); got != "17 level IO-APIC " {
			t.Errorf("the pin is wired to %q", got)
		}
		if b.config(5, 4, 2)&3 != 3 || b.bar(5, 0) == 0 || b.load(b.bar(5, 0), 4) != 0 {
			t.Errorf("command %#x, BAR 0 at %#x", b.config(5, 4, 2), b.bar(5, 0))
		}
		if err := b.RemoveDevice("dev"); err != nil {
			t.Fatal(err)
		}
		if got := shell("hexdump -n 4 config || hexdump config | head -n 1"); !strings.Contains(got, "ff ff ff ff") {
			t.Errorf("the registers of what is removed: %q", got)
		}
		if got := shell("cd /; echo 1 >" + at + "/remove; echo 1 >/sys/bus/pci/rescan; ls /sys/bus/pci/devices"); strings.TrimSpace(got) != "0000:00:00.0" {
			t.Errorf("without the device there is %q", got)
		}
		if err := b.PlugDevice("dev"); err != nil {
			t.Fatal(err)
		}
		if got := shell("echo 1 >/sys/bus/pci/rescan; ls /sys/bus/pci/devices"); !strings.Contains(got, "0000:00:05.0") {
			t.Errorf("with the device there is %q", got)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"WARNING", "BUG:", "can't assign", "failed to assign"} {
		if strings.Contains(console.String(), bad) {
			t.Errorf("%q on the console", bad)
		}
	}
	if t.Failed() {
		t.Log(console)
	}
}

func moreMemory(t *testing.T) *memory.RAM {
	ram, err := memory.New(4 * testMemory)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ram.Close(); err != nil {
			t.Error(err)
		}
	})
	return ram
}

// waitAny blocks until the guest has printed one of the texts.
func (c *transcript) waitAny(texts ...string) {
	for !slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(c.String(), text) }) {
		<-c.grew
	}
}
