package devicetest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"fifovm/device"
)

// recorder is a model that writes down what it is told, and keeps a register.
type recorder struct {
	host device.Host
	info device.Info
	told []string
	s    recorderState
	// again is how often an event schedules itself at once.
	again int
}

type recorderState struct{ Register uint64 }

func (r *recorder) Info() device.Info    { return r.info }
func (r *recorder) Attach(h device.Host) { r.host = h }
func (r *recorder) Reset()               { r.told = append(r.told, "reset") }
func (r *recorder) State() any           { return r.s }

func (r *recorder) SetState(decode func(into any) error) error { return decode(&r.s) }

func (r *recorder) Read(_ int, off uint64, data []byte) {
	for i := range data {
		data[i] = byte(r.s.Register >> (8 * (off + uint64(i))))
	}
}

func (r *recorder) Write(_ int, off uint64, data []byte) {
	for i, b := range data {
		shift := 8 * (off + uint64(i))
		r.s.Register = r.s.Register&^(0xff<<shift) | uint64(b)<<shift
	}
}

func (r *recorder) Event(kind uint32, payload uint64) {
	r.told = append(r.told, fmt.Sprintf("%d: event %d %d", r.host.Now(), kind, payload))
	if r.again > 0 {
		r.again--
		r.host.Schedule(r.host.Now(), kind, payload+1)
	}
}

func newRecorder() *recorder {
	return &recorder{info: device.Info{BARs: []device.BAR{{Index: 2, Size: 16}}, MSIX: 3, INTx: true}}
}

func want(t *testing.T, r *recorder, told ...string) {
	t.Helper()
	if !slices.Equal(r.told, told) {
		t.Errorf("told %q, want %q", r.told, told)
	}
	r.told = nil
}

func TestEvents(t *testing.T) {
	r := newRecorder()
	h := New(r, 0)
	h.Schedule(3000, 1, 10)
	h.Schedule(2000, 2, 20)
	h.Schedule(3000, 3, 30)
	h.Schedule(-5, 4, 40) // as soon as may be
	h.Schedule(2500, 5, 50)
	if n := h.Cancel(5); n != 1 {
		t.Errorf("cancelled %d events, want 1", n)
	}
	h.Advance(99)
	want(t, r)
	h.Advance(1)
	want(t, r, "100: event 4 40")
	h.Advance(2900)
	want(t, r, "2000: event 2 20", "3000: event 1 10", "3000: event 3 30")
	if h.Now() != 3000 {
		t.Errorf("it is %d, want 3000", h.Now())
	}
	// An event that comes again at once does not hold the clock.
	r.again = 3
	h.Schedule(3000, 7, 0)
	if len(h.Events()) != 1 {
		t.Errorf("%d events, want 1", len(h.Events()))
	}
	h.Advance(250)
	want(t, r, "3100: event 7 0", "3200: event 7 1")
	if !h.Run() {
		t.Error("events are left")
	}
	want(t, r, "3300: event 7 2", "3400: event 7 3")
	r.again = math.MaxInt
	h.Schedule(0, 7, 0)
	if h.Run() {
		t.Error("no events are left of a device that always has some")
	}
}

func TestDMA(t *testing.T) {
	r := newRecorder()
	r.info.DMABits = 13
	h := New(r, 10000)
	h.Base = 1000
	injected := errors.New("injected")
	access := func(addr uint64, n int, want error) {
		t.Helper()
		p := make([]byte, n)
		for op, err := range map[string]error{"read": h.DMARead(addr, p), "write": h.DMAWrite(addr, p)} {
			if !errors.Is(err, want) {
				t.Errorf("%s of %d bytes at %d: %v, want %v", op, n, addr, err, want)
			}
			var e *device.Error
			if err != nil && (!errors.As(err, &e) || e.Op != op || e.Addr != addr || e.Size != n) {
				t.Errorf("%s of %d bytes at %d: %#v", op, n, addr, err)
			}
		}
	}
	access(1000, 1, nil)
	access(999, 1, device.ErrAddress)
	access(8191, 1, nil)
	access(8192, 0, device.ErrAddress)
	access(8191, 2, device.ErrAddress)
	access(math.MaxUint64, 2, device.ErrAddress)
	r.info.DMABits = 64
	h = New(r, 10000)
	access(9999, 1, nil)
	access(10000, 0, nil)
	access(9999, 2, device.ErrAddress)
	access(math.MaxUint64, 1, device.ErrAddress)
	h.FailDMA = func(op string, addr uint64, size int) error {
		if addr == 16 && size == 4 {
			return injected
		}
		return nil
	}
	access(16, 4, injected)
	access(16, 8, nil)
	h.Master = false
	access(16, 4, device.ErrNotMaster)
	h.Master, h.FailDMA = true, nil
	if err := h.DMAWrite(5, []byte("fifo")); err != nil || string(h.RAM[5:9]) != "fifo" {
		t.Errorf("RAM has %q, %v", h.RAM[5:9], err)
	}
	p := make([]byte, 4)
	if err := h.DMARead(5, p); err != nil || string(p) != "fifo" {
		t.Errorf("read %q, %v", p, err)
	}
}

func TestInterruptsAndReset(t *testing.T) {
	r := newRecorder()
	h := New(r, 0)
	h.Advance(7)
	h.Raise(2)
	h.Raise(1)
	h.Advance(1)
	h.Raise(2)
	if want := []Interrupt{{7, 2}, {7, 1}, {8, 2}}; !slices.Equal(h.Interrupts, want) || h.Count(2) != 2 || h.Count(0) != 0 {
		t.Errorf("interrupts %v, want %v", h.Interrupts, want)
	}
	h.SetINTx(true)
	h.Schedule(1000, 0, 0)
	if !h.INTx || !h.Message() {
		t.Errorf("pin %v, messages %v", h.INTx, h.Message())
	}
	h.Reset()
	want(t, r, "reset")
	if h.INTx || h.Message() || h.Master || len(h.Events()) != 0 {
		t.Errorf("pin %v, messages %v, master %v, events %v after reset", h.INTx, h.Message(), h.Master, h.Events())
	}
	h.Interrupts = nil
	h.Raise(0)
	if len(h.Interrupts) != 0 {
		t.Error("a message was sent though the guest has not enabled any")
	}
}

func TestAccessAndMove(t *testing.T) {
	r := newRecorder()
	h := New(r, 0)
	h.Write64(2, 0, 0x8877665544332211)
	if v := h.Read32(2, 4); v != 0x88776655 {
		t.Errorf("read %#x", v)
	}
	h.Write32(2, 4, 0xddccbbaa)
	other := newRecorder()
	if err := h.Move(other); err != nil {
		t.Fatal(err)
	}
	if v := h.Read64(2, 0); v != 0xddccbbaa44332211 || other.host != device.Host(h) {
		t.Errorf("read %#x after the move", v)
	}
	h.Schedule(200, 1, 0)
	h.Step()
	want(t, r)
	want(t, other, "200: event 1 0")
}

func TestMisuse(t *testing.T) {
	plain := &recorder{}
	for name, f := range map[string]func(h *Host){
		"a vector that is not there": func(h *Host) { h.Raise(3) },
		"a BAR that is not there":    func(h *Host) { h.Read32(0, 0) },
		"beyond the BAR":             func(h *Host) { h.Read32(2, 13) },
		"far beyond the BAR":         func(h *Host) { h.Write32(2, math.MaxUint64, 0) },
		"three bytes":                func(h *Host) { h.Read(2, 0, make([]byte, 3)) },
		"no pin":                     func(*Host) { New(plain, 0).SetINTx(true) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f(New(newRecorder(), 0))
		}()
	}
}
