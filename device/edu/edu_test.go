package edu

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"testing"

	"fifovm/device"
	"fifovm/device/devicetest"
)

func newHost() *devicetest.Host { return devicetest.New(New(Config{}), 64<<10) }

// TestRegisters writes all ones and another value to each register and reads it
// back, in both sizes.
func TestRegisters(t *testing.T) {
	const ones = math.MaxUint32
	for _, reg := range []struct {
		name           string
		off            uint64
		reset          uint32
		written, reads uint32
		wide           bool
	}{
		{"identification", 0x00, 0x010000ed, 0x5555aaaa, 0x010000ed, false},
		{"liveness", 0x04, 0, 0x5555aaaa, 0xaaaa5555, false},
		{"factorial", 0x08, 0, 5, 5, false}, // not yet computed
		{"none", 0x0c, ones, 0, ones, false},
		{"status", 0x20, 0, 0xff, 0x80, false},
		{"interrupt", 0x24, 0, 0x55, 0, false},
		{"raise", 0x60, ones, 0x55, ones, false},
		{"acknowledge", 0x64, ones, 0x55, ones, false},
		{"source", 0x80, 0, 0x12345678, 0x12345678, true},
		{"source, upper half", 0x84, ones, 0, ones, true},
		{"destination", 0x88, 0, 0x12345678, 0x12345678, true},
		{"count", 0x90, 0, 0x12345678, 0x12345678, true},
		{"command without start", 0x98, 0, 0xfe, 0, true},
		{"command", 0x98, 0, 0xff, 7, true},
		{"beyond", 0xa0, ones, 0, ones, true},
		{"the buffer", 0x40000, ones, 0, ones, true},
		{"the last", 0xffff8, ones, 0, ones, true},
	} {
		t.Run(reg.name, func(t *testing.T) {
			h := newHost()
			if v := h.Read32(0, reg.off); v != reg.reset {
				t.Errorf("%#x after power-on, want %#x", v, reg.reset)
			}
			h.Write32(0, reg.off, reg.written)
			if v := h.Read32(0, reg.off); v != reg.reads {
				t.Errorf("%#x after a write of %#x, want %#x", v, reg.written, reg.reads)
			}
			h.Reset()
			if v := h.Read32(0, reg.off); v != reg.reset {
				t.Errorf("%#x after a reset, want %#x", v, reg.reset)
			}
			wide := uint64(reg.written)<<32 | uint64(reg.written)
			h.Write64(0, reg.off, wide)
			got := h.Read64(0, reg.off)
			switch {
			case !reg.wide && (got != math.MaxUint64 || h.Read32(0, reg.off) != reg.reset):
				t.Errorf("takes an access of 8 bytes: reads %#x", got)
			case reg.wide && reg.off < regCommand && reg.off%8 == 0 && got != wide:
				t.Errorf("%#x after a write of %#x in 8 bytes", got, wide)
			case reg.wide && reg.off == regCommand && got != uint64(reg.reads):
				t.Errorf("%#x after a write of %#x in 8 bytes, want %#x", got, wide, reg.reads)
			}
			for _, n := range []int{1, 2} {
				p := make([]byte, n)
				h.Write(0, reg.off, p)
				if h.Read(0, reg.off, p); !bytes.Equal(p, []byte{0xff, 0xff}[:n]) {
					t.Errorf("reads %x in %d bytes", p, n)
				}
			}
		})
	}
}

func TestFactorial(t *testing.T) {
	h := newHost()
	for n := range uint32(40) {
		h.Write32(0, regFactorial, n)
		if s := h.Read32(0, regStatus); s != statusComputing {
			t.Errorf("status %#x while %d! is computed", s, n)
		}
		h.Write32(0, regFactorial, 1) // lost
		h.Advance(factorialTime - 1)
		if s := h.Read32(0, regStatus); s != statusComputing {
			t.Errorf("status %#x before %d! can be done", s, n)
		}
		h.Advance(1)
		want := new(big.Int).MulRange(1, int64(n))
		want.And(want, big.NewInt(math.MaxUint32))
		if v := h.Read32(0, regFactorial); uint64(v) != want.Uint64() {
			t.Errorf("%d! is %d, want %d", n, v, want)
		}
		if s := h.Read32(0, regStatus); s != 0 {
			t.Errorf("status %#x when %d! is done", s, n)
		}
	}
	// It does not take as long as the guest likes.
	h.Write32(0, regFactorial, math.MaxUint32)
	h.Run()
	if v := h.Read32(0, regFactorial); v != 0 {
		t.Errorf("the largest factorial is %d, want 0", v)
	}
	if len(h.Interrupts) != 0 || h.INTx {
		t.Error("an interrupt came that nobody asked for")
	}
}

func TestInterrupts(t *testing.T) {
	for _, messages := range []bool{true, false} {
		t.Run(fmt.Sprintf("messages %v", messages), func(t *testing.T) {
			h := newHost()
			h.MessageOn = messages
			check := func(what string, bits uint32, sent int) {
				t.Helper()
				if v := h.Read32(0, regInterrupt); v != bits {
					t.Errorf("%s: interrupt register %#x, want %#x", what, v, bits)
				}
				if !messages {
					sent = 0
					if h.INTx != (bits != 0) {
						t.Errorf("%s: pin %v", what, h.INTx)
					}
				}
				if h.Count(0) != sent {
					t.Errorf("%s: %d messages, want %d", what, h.Count(0), sent)
				}
			}
			h.Write32(0, regRaise, 0)
			check("nothing raised", 0, 0)
			h.Write32(0, regRaise, 0x30)
			check("raised", 0x30, 1)
			h.Write32(0, regRaise, 0x03)
			check("more raised", 0x33, 2)
			h.Write32(0, regAck, 0x0c)
			check("something else acknowledged", 0x33, 2)
			h.Write32(0, regAck, 0x11)
			check("half acknowledged", 0x22, 2)
			h.Write32(0, regAck, math.MaxUint32)
			check("acknowledged", 0, 2)
			h.Write32(0, regStatus, statusInterrupt)
			h.Write32(0, regFactorial, 3)
			check("computing", 0, 2)
			h.Run()
			check("computed", interruptFactorial, 3)
			h.Write32(0, regStatus, 0)
			h.Write32(0, regFactorial, 3)
			h.Run()
			check("computed again", interruptFactorial, 3)
			h.Write32(0, regCommand, commandStart|commandInterrupt)
			check("transferring", interruptFactorial, 3)
			h.Run()
			check("transferred", interruptFactorial|interruptDMA, 4)
		})
	}
}

// dma programs a transfer and gives the time that it takes.
func dma(h *devicetest.Host, source, dest, count uint64, command uint32) int64 {
	h.Write64(0, regSource, source)
	h.Write64(0, regDest, dest)
	h.Write64(0, regCount, count)
	h.Write32(0, regCommand, command|commandStart)
	start := h.Now()
	for h.Read32(0, regCommand)&commandStart != 0 && h.Step() {
	}
	return h.Now() - start
}

// TestDMA is the example of the manual: 100 bytes there and back.
func TestDMA(t *testing.T) {
	h := newHost()
	for i := range 100 {
		h.RAM[0x1000+i] = byte(i + 1)
	}
	want := slices.Clone(h.RAM[0x1000:0x1064])
	if took := dma(h, 0x1000, bufferBase, 100, 0); took != transferTime+100 {
		t.Errorf("took %d ns", took)
	}
	dma(h, bufferBase, 0x2000+100, 100, commandToRAM)
	if got := h.RAM[0x2064:0x20c8]; !bytes.Equal(got, want) {
		t.Errorf("came back as %x", got)
	}
	if h.RAM[0x2063] != 0 || h.RAM[0x20c8] != 0 {
		t.Error("more was written than asked for")
	}
	if h.Read32(0, regCommand) != commandToRAM || len(h.Interrupts) != 0 {
		t.Errorf("command %#x, interrupts %v", h.Read32(0, regCommand), h.Interrupts)
	}

	// Nothing of a transfer can be changed while it goes on.
	h.Write64(0, regSource, 0x1000)
	h.Write64(0, regDest, bufferBase+50)
	h.Write64(0, regCount, 1)
	h.Write32(0, regCommand, commandStart)
	for _, reg := range []uint64{regSource, regDest, regCount, regCommand} {
		h.Write64(0, reg, 0x1111)
	}
	h.Run()
	dma(h, bufferBase+50, 0x3000, 2, commandToRAM)
	if h.RAM[0x3000] != 1 || h.RAM[0x3001] != 52 {
		t.Errorf("the buffer has %d %d, want 1 52", h.RAM[0x3000], h.RAM[0x3001])
	}
}

// TestBadDMA has transfers that end, with the interrupt, and move nothing.
func TestBadDMA(t *testing.T) {
	for _, test := range []struct {
		name                string
		source, dest, count uint64
		toRAM               bool
	}{
		{"before the buffer", 0x1000, bufferBase - 1, 4, false},
		{"behind the buffer", 0x1000, bufferBase + bufferSize, 4, false},
		{"across the buffer's end", 0x1000, bufferBase + bufferSize - 3, 4, false},
		{"larger than the buffer", 0x1000, bufferBase, bufferSize + 1, false},
		{"the largest", 0x1000, bufferBase, math.MaxUint64, false},
		{"as large as a time", 0x1000, bufferBase, math.MaxInt64 - 1<<32, false},
		{"from beyond the buffer", bufferBase + bufferSize, 0x1000, 4, true},
		{"from far beyond the buffer", math.MaxUint64, 0x1000, 4, true},
		{"both in the buffer", bufferBase, bufferBase, 4, false},
		{"no memory", 0xfffe, bufferBase, 4, false},
		{"to no memory", bufferBase, 0xfffe, 4, true},
		{"beyond 28 bits", 1<<28 + 0x1000, bufferBase, 4, false},
		{"to beyond 28 bits", bufferBase, 1<<28 + 0x1000, 4, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost()
			copy(h.RAM[0x800:], bytes.Repeat([]byte{7}, bufferSize))
			dma(h, 0x800, bufferBase, bufferSize, 0)
			for i := range h.RAM {
				h.RAM[i] = 9
			}
			command := uint32(commandInterrupt)
			if test.toRAM {
				command |= commandToRAM
			}
			// However much is asked for, the device is not busy for long.
			if took := dma(h, test.source, test.dest, test.count, command); took > transferTime+bufferSize {
				t.Errorf("took %d ns", took)
			}
			if h.Count(0) != 1 || h.Read32(0, regInterrupt) != interruptDMA {
				t.Errorf("%d interrupts, register %#x", h.Count(0), h.Read32(0, regInterrupt))
			}
			if slices.ContainsFunc(h.RAM, func(b byte) bool { return b != 9 }) {
				t.Error("memory was written")
			}
			dma(h, bufferBase, 0x800, bufferSize, commandToRAM)
			if !bytes.Equal(h.RAM[0x800:0x1800], bytes.Repeat([]byte{7}, bufferSize)) {
				t.Error("the buffer was written")
			}
		})
	}
	h := newHost()
	h.Master = false
	h.RAM[0] = 1
	dma(h, 0, bufferBase, 1, 0)
	h.Master = true
	dma(h, bufferBase, 1, 1, commandToRAM)
	if h.RAM[1] != 0 {
		t.Error("memory was read without bus mastering")
	}
}

func TestDMABits(t *testing.T) {
	h := devicetest.New(New(Config{DMABits: 40}), 8192)
	h.Base = 1 << 32
	h.RAM[0] = 77
	dma(h, 1<<32, bufferBase, 1, 0)
	dma(h, bufferBase, 1<<32+5, 1, commandToRAM)
	if h.RAM[5] != 77 {
		t.Error("40 bits of an address were asked for and did not come out")
	}
}

func TestReset(t *testing.T) {
	h := newHost()
	copy(h.RAM, "data")
	dma(h, 0, bufferBase, 4, commandInterrupt)
	h.Write32(0, regStatus, statusInterrupt)
	h.Write32(0, regFactorial, 3)
	h.Write32(0, regCommand, commandStart)
	h.Reset()
	h.Master, h.MessageOn, h.Interrupts = true, true, nil
	if !h.Run() || len(h.Interrupts) != 0 {
		t.Errorf("interrupts %v after a reset", h.Interrupts)
	}
	dma(h, bufferBase, 100, 4, commandToRAM)
	if s := string(h.RAM[100:104]); s != "\x00\x00\x00\x00" {
		t.Errorf("the buffer has %q after a reset", s)
	}
	if got, want := h.Read32(0, regStatus), uint32(0); got != want {
		t.Errorf("status %#x after a reset", got)
	}
}

func TestBadState(t *testing.T) {
	for _, text := range []string{`{}`, `{"Buffer":"AAAA"}`, `{"Buffer":7}`} {
		d := New(Config{})
		if err := d.SetState(func(into any) error { return json.Unmarshal([]byte(text), into) }); err == nil {
			t.Errorf("state %s was taken", text)
		}
		if !reflect.DeepEqual(d.State(), New(Config{}).State()) {
			t.Errorf("state %s left traces", text)
		}
	}
}

// FuzzDevice drives the device with whatever comes: it must not panic, touch
// nothing outside RAM (devicetest would panic), have no more events than it has
// engines, and be the same after its state was moved to another.
func FuzzDevice(f *testing.F) {
	f.Add([]byte{0x08, 4, 5, 0x20, 4, 0x80, 0xff, 0, 100})
	f.Add([]byte{0x80, 8, 0, 0x88, 8, 4, 0x90, 4, 16, 0x98, 4, 5, 0xff, 0, 200, 0x98, 4, 7, 0xff, 0, 200})
	f.Fuzz(func(t *testing.T, program []byte) {
		a, b := newHost(), newHost()
		for i := 0; i+3 <= len(program); i += 3 {
			op, size, value := program[i], program[i+1], program[i+2]
			if op == 0xff { // let time pass, and move one of the two
				a.Advance(int64(value) * 50)
				b.Advance(int64(value) * 50)
				if err := b.Move(New(Config{})); err != nil {
					t.Fatal(err)
				}
				continue
			}
			// Values near what means something: the buffer, memory, its end.
			v := []uint64{0, bufferBase, bufferBase + bufferSize - 8, 1<<16 - 8, 1 << 28, math.MaxUint64 - 100}[value%6] + uint64(value/6)
			var p [8]byte
			binary.LittleEndian.PutUint64(p[:], v)
			n := 1 << (size % 4)
			for _, h := range []*devicetest.Host{a, b} {
				h.Write(0, uint64(op), p[:n])
				if n := len(h.Events()); n > 2 {
					t.Fatalf("%d events", n)
				}
			}
		}
		if !a.Run() || !b.Run() {
			t.Fatal("the device goes on for ever")
		}
		for off := uint64(0); off < 0xa0; off += 4 {
			if x, y := a.Read32(0, off), b.Read32(0, off); x != y {
				t.Errorf("register %#x is %#x, and %#x in the moved one", off, x, y)
			}
		}
		if !bytes.Equal(a.RAM, b.RAM) || !slices.Equal(a.Interrupts, b.Interrupts) || a.INTx != b.INTx {
			t.Error("the moved one has done something else")
		}
	})
}

var _ device.Model = (*Device)(nil)
