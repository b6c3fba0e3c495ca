package device_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"fifovm/device"
	"fifovm/device/devicetest"
)

var _ device.Model = (*device.Boundary)(nil)

// echo has one register. It gives back what was written, plus the number of
// events that have come, and sends what it is told to.
type echo struct {
	host   device.Host
	s      echoState
	resets int
}

type echoState struct{ Value, Events uint64 }

func (e *echo) Info() device.Info {
	return device.Info{MSIX: 3, MSIXBAR: 1, INTx: true, BARs: []device.BAR{{Index: 0, Size: 16}}}
}
func (e *echo) Attach(h device.Host) { e.host = h }
func (e *echo) Read(_ int, _ uint64, data []byte) {
	e.host.SetINTx(false)
	for i := range data {
		data[i] = byte((e.s.Value + e.s.Events) >> (8 * i))
	}
}
func (e *echo) Write(_ int, _ uint64, data []byte) {
	e.s.Value = uint64(data[0])
	e.host.Schedule(e.host.Now()+500, 7, 0)
}
func (e *echo) Event(uint32, uint64) {
	e.s.Events++
	e.host.SetINTx(true)
	e.host.Raise(2)
}
func (e *echo) Reset()     { e.s = echoState{}; e.resets++ }
func (e *echo) State() any { return e.s }
func (e *echo) SetState(decode func(any) error) error {
	return decode(&e.s)
}

type recorder []device.Crossing

func (r *recorder) Cross(c device.Crossing) { *r = append(*r, c) }

func TestClassNames(t *testing.T) {
	seen := map[string]bool{}
	for c := range device.Class(device.Classes) {
		if s := c.String(); s == "" || seen[s] {
			t.Errorf("class %d has the name %q", c, s)
		} else {
			seen[s] = true
		}
	}
}

// TestTransparent: a model behind a boundary is the same model, and each
// crossing is numbered and told of.
func TestTransparent(t *testing.T) {
	run := func(m device.Model) (*devicetest.Host, []uint64) {
		h := devicetest.New(m, 4096)
		var reads []uint64
		for i := range uint32(5) {
			h.Write32(0, 0, i)
			h.Advance(int64(300 * i))
			reads = append(reads, h.Read64(0, 0))
			if i == 2 {
				h.MessageOn = false
			}
		}
		h.Run()
		return h, reads
	}
	plain, reads := run(&echo{})
	b := device.NewBoundary("e0", &echo{})
	var r recorder
	b.Trace(&r)
	h, reads2 := run(b)
	for i := range reads {
		if reads[i] != reads2[i] {
			t.Errorf("read %d: %d, behind a boundary %d", i, reads[i], reads2[i])
		}
	}
	if len(h.Interrupts) != len(plain.Interrupts) || h.INTx != plain.INTx || h.Now() != plain.Now() {
		t.Errorf("%d interrupts, pin %v at %d; without a boundary %d, %v at %d",
			len(h.Interrupts), h.INTx, h.Now(), len(plain.Interrupts), plain.INTx, plain.Now())
	}
	counts := map[device.Class]uint64{}
	var pins, vectors, last uint64
	for i := range r {
		c := &r[i]
		counts[c.Class]++
		if c.Number == 0 || c.Seq == 0 || c.Device != "e0" {
			t.Errorf("%+v has no number or name", c)
		}
		if c.Class != device.ClassMMIORead {
			if c.Seq <= last {
				t.Errorf("%+v comes after %d", c, last)
			}
			last = c.Seq
		}
		switch {
		case c.Class != device.ClassIRQ:
		case c.Vector == device.INTx:
			if pins++; c.Nth != pins {
				t.Errorf("%+v: want the pin's number %d", c, pins)
			}
		default:
			if vectors++; c.Nth != vectors || c.Vector != 2 {
				t.Errorf("%+v: want vector 2's number %d", c, vectors)
			}
		}
	}
	if counts[device.ClassMMIORead] != 5 || counts[device.ClassMMIOWrite] != 5 || counts[device.ClassEvent] != 5 || pins == 0 || vectors != uint64(len(h.Interrupts)) {
		t.Errorf("%v, %d of the pin, %d of vector 2", counts, pins, vectors)
	}
	if b.Seq() != uint64(len(r)) || b.Number(device.ClassIRQ, 2) != vectors || b.Number(device.ClassIRQ, device.INTx) != pins ||
		b.Number(device.ClassIRQ, -2) != pins+vectors || b.Number(device.ClassEvent, 0) != 5 {
		t.Errorf("the boundary counts others: %+v", b.State())
	}
}

// TestReset takes back the model's events, though the machine does not.
func TestReset(t *testing.T) {
	m := &echo{}
	b := device.NewBoundary("e0", m)
	h := devicetest.New(b, 4096)
	h.Write32(0, 0, 1)
	b.Reset()
	if len(h.Events()) != 0 || m.resets != 1 {
		t.Errorf("events %v, %d resets", h.Events(), m.resets)
	}
	h.MessageOn = false
	h.Write32(0, 0, 1)
	h.Run()
	if !h.INTx {
		t.Fatal("the pin is not up")
	}
	b.Reset()
	if h.INTx {
		t.Error("the pin is up after a reset")
	}
	h.Write32(0, 0, 1)
	h.Run()
	if !h.INTx {
		t.Error("the pin does not go up again")
	}
}

func TestRemove(t *testing.T) {
	m := &echo{}
	b := device.NewBoundary("e0", m)
	h := devicetest.New(b, 4096)
	told := 0
	b.OnRemove = func() { told++ }
	h.Write32(0, 0, 1)
	b.Remove()
	b.Remove()
	h.Write32(0, 0, 5)
	if h.Read32(0, 0) != math.MaxUint32 || m.s.Value != 1 || told != 1 || len(h.Events()) != 0 || !b.Removed() {
		t.Errorf("reads %#x, value %d, told %d times, events %v", h.Read32(0, 0), m.s.Value, told, h.Events())
	}
	m.host.Raise(1)
	m.host.SetINTx(true)
	m.host.Schedule(0, 1, 1)
	if len(h.Interrupts) != 0 || h.INTx || len(h.Events()) != 0 {
		t.Error("something got out")
	}
	b.Reset()
	if m.resets != 0 {
		t.Error("the device was reset after it had gone")
	}
	b.Plug()
	if h.Read32(0, 0) != 0 || m.resets != 1 || b.Removed() {
		t.Errorf("reads %#x after %d resets", h.Read32(0, 0), m.resets)
	}
}

// faults is an injector that does what it is told.
type faults struct {
	device.Faults
	effect func(device.Crossing) device.Effect
}

func (f *faults) Bind(*device.Boundary) device.Faults    { return f }
func (f *faults) Inject(c device.Crossing) device.Effect { return f.effect(c) }
func (f *faults) Observe(device.Crossing)                {}
func (f *faults) Next() int64                            { return device.Never }
func (f *faults) State() []device.FaultState             { return nil }
func (f *faults) SetState([]device.FaultState) error     { return nil }

// TestResetAlways: a device that resets itself at each crossing, its reset's own
// included, does not run in circles.
func TestResetAlways(t *testing.T) {
	m := &resetter{}
	b := device.NewBoundary("e0", m)
	h := devicetest.New(b, 4096)
	b.Inject(&faults{effect: func(device.Crossing) device.Effect {
		b.ResetItself("")
		return device.Effect{}
	}})
	h.Write32(0, 0, 1)
	h.Run()
	b.Reset()
	if m.resets == 0 || m.resets > 20 {
		t.Errorf("%d resets", m.resets)
	}
}

// resetter raises an interrupt in its reset.
type resetter struct{ echo }

func (r *resetter) Reset() { r.echo.Reset(); r.host.Raise(0) }

// TestSetStateRefuses what does not fit together.
func TestSetStateRefuses(t *testing.T) {
	good := func() device.BoundaryState {
		b := device.NewBoundary("e0", &echo{})
		devicetest.New(b, 4096).Write32(0, 0, 1)
		return b.State().(device.BoundaryState)
	}
	queued := device.Queued{When: 5, Class: device.ClassDMAWrite, Data: []byte{1}}
	late := device.LateIRQ{ID: 1, Left: 1}
	tests := []struct {
		what   string
		change func(s *device.BoundaryState)
	}{
		{"", func(*device.BoundaryState) {}},
		{"", func(s *device.BoundaryState) {
			s.Queue, s.Late, s.LastID = []device.Queued{queued}, []device.LateIRQ{late}, 1
		}},
		{"vectors", func(s *device.BoundaryState) { s.Vectors = s.Vectors[:1] }},
		{"holds", func(s *device.BoundaryState) { s.Held = 4 }},
		{"holds", func(s *device.BoundaryState) { s.Held = -1 }},
		{"stall", func(s *device.BoundaryState) { s.Stall = -1 }},
		{"kinds", func(s *device.BoundaryState) { s.Kinds = []uint32{7, 3} }},
		{"kinds", func(s *device.BoundaryState) { s.Kinds = []uint32{device.OwnKinds} }},
		{"queued", func(s *device.BoundaryState) { s.Queue = make([]device.Queued, 20000) }},
		{"queued", func(s *device.BoundaryState) {
			s.Queue = []device.Queued{queued, {When: 4, Class: device.ClassDMAWrite}}
		}},
		{"queued", func(s *device.BoundaryState) { s.Queue = []device.Queued{{Class: device.ClassMMIORead}} }},
		{"queued", func(s *device.BoundaryState) { s.Queue = []device.Queued{{Class: device.ClassIRQ, Vector: 3}} }},
		{"queued", func(s *device.BoundaryState) {
			s.Queue = []device.Queued{{Class: device.ClassEvent, Kind: device.OwnKinds}}
		}},
		{"late", func(s *device.BoundaryState) { s.Late = []device.LateIRQ{late} }},
		{"late", func(s *device.BoundaryState) { s.Late, s.LastID = []device.LateIRQ{late, late}, 1 }},
		{"late", func(s *device.BoundaryState) { s.Late, s.LastID = []device.LateIRQ{{ID: 1, Left: 1, Vector: 3}}, 1 }},
		{"late", func(s *device.BoundaryState) { s.Late, s.LastID = []device.LateIRQ{{ID: 1}}, 1 }},
		{"model", func(s *device.BoundaryState) { s.Model = nil }},
		{"cannot unmarshal", func(s *device.BoundaryState) { s.Model = "a string" }},
	}
	for i, test := range tests {
		s := good()
		test.change(&s)
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		b := device.NewBoundary("e0", &echo{})
		devicetest.New(b, 4096)
		err = b.SetState(func(into any) error { return json.Unmarshal(text, into) })
		switch {
		case test.what == "" && err != nil:
			t.Errorf("case %d: %v", i, err)
		case test.what != "" && (err == nil || !strings.Contains(err.Error(), test.what)):
			t.Errorf("case %d: error %v, want %q", i, err, test.what)
		}
	}
	// A decoder that hands over the value itself.
	s := good()
	m := &echo{}
	b := device.NewBoundary("e0", m)
	devicetest.New(b, 4096)
	if err := b.SetState(func(into any) error { *into.(*device.BoundaryState) = s; return nil }); err != nil || m.s.Value != 1 {
		t.Errorf("value %d, %v", m.s.Value, err)
	}
}
