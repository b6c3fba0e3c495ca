package chipset

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"fifovm/vmm/x86"
)

func (b *bench) writeIO(n uint8, v uint32) {
	b.IO.Write(ioapicSelect, []byte{n, 0, 0, 0})
	b.IO.Write(ioapicWindow, binary.LittleEndian.AppendUint32(nil, v))
}

func (b *bench) readIO(n uint8) uint32 {
	var data [4]byte
	b.IO.Write(ioapicSelect, []byte{n, 0, 0, 0})
	b.IO.Read(ioapicWindow, data[:])
	return binary.LittleEndian.Uint32(data[:])
}

// redirect writes an entry as Linux does: the high half first.
func (b *bench) redirect(input uint8, e uint64) {
	b.writeIO(0x11+2*input, uint32(e>>32))
	b.writeIO(0x10+2*input, uint32(e))
}

func (b *bench) line(input uint32, level bool) {
	b.t.Helper()
	if err := b.IO.SetIRQ(input, level); err != nil {
		b.t.Error(err)
	}
}

func (b *bench) expectRemote(input uint8, want bool) {
	b.t.Helper()
	if got := b.readIO(0x10+2*input)&redirRemoteIRR != 0; got != want {
		b.t.Errorf("remote IRR of input %d is %v", input, got)
	}
}

func TestIOAPICRegisters(t *testing.T) {
	b := newBench(t, 1)
	for n := range 0x100 {
		reset, ones := uint32(0xffff_ffff), uint32(0xffff_ffff)
		switch {
		case n == 0 || n == 2:
			reset, ones = 0, 0x0f00_0000
		case n == 1:
			reset, ones = 0x17_0011, 0x17_0011
		case n >= 0x10 && n < 0x40 && n%2 == 0:
			reset, ones = 0x1_0000, 0x1_afff
		case n >= 0x10 && n < 0x40:
			reset, ones = 0, 0xff00_0000
		}
		if got := b.readIO(uint8(n)); got != reset && n != 2 { // 2 is the ID that 0 has set
			t.Errorf("register %#x is %#x at power-on, want %#x", n, got, reset)
		}
		b.writeIO(uint8(n), 0xffff_ffff)
		if got := b.readIO(uint8(n)); got != ones {
			t.Errorf("register %#x is %#x after ones, want %#x", n, got, ones)
		}
	}
	if s := b.IO.State(); s.ID != 0xf || s.Select != 0xff {
		t.Errorf("ID %#x, select %#x", s.ID, s.Select)
	}
	b.writeIO(0, 3<<24)
	b.writeIO(2, 0) // read only
	if got := b.readIO(2); got != 3<<24 {
		t.Errorf("arbitration ID is %#x", got)
	}
}

func TestIOAPICWidths(t *testing.T) {
	b := newBench(t, 1)
	read := func(off uint64, n int) string {
		data := []byte("\xee\xee\xee\xee\xee\xee\xee\xee")[:n]
		b.IO.Read(off, data)
		return string(data)
	}
	b.IO.Write(ioapicSelect, []byte{0x10})
	b.IO.Write(ioapicWindow, []byte{0x41, 0xa0, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff})
	for _, c := range []struct {
		off  uint64
		n    int
		want string
	}{
		{0, 1, "\x10"}, {0, 4, "\x10\x00\x00\x00"}, {0x10, 1, "\x41"}, {0x10, 2, "\x41\xa0"},
		{0x10, 8, "\x41\xa0\x01\x00\x00\x00\x00\x00"}, {0x11, 1, "\x00"}, {0x20, 4, "\x00\x00\x00\x00"}, {0xffc, 4, "\x00\x00\x00\x00"},
	} {
		if got := read(c.off, c.n); got != c.want {
			t.Errorf("%d bytes at %#x are %x, want %x", c.n, c.off, got, c.want)
		}
	}
	b.IO.Write(ioapicWindow, []byte{0x42})
	if got := read(ioapicWindow, 4); got != "\x42\x00\x00\x00" {
		t.Errorf("after a write of one byte: %x", got)
	}
	before := b.IO.State()
	for _, off := range []uint64{1, 4, 0x11, 0x14, 0x20, 0x40, 0xffc} {
		b.IO.Write(off, []byte{0xff, 0xff, 0xff, 0xff})
	}
	if b.IO.State() != before {
		t.Errorf("state %+v, was %+v", b.IO.State(), before)
	}
}

func TestIOAPICEdge(t *testing.T) {
	b := enabled(t, 2)
	b.redirect(4, 1<<redirDestShift|0x44)
	b.line(4, true)
	b.expectTake(0, -1)
	b.expectTake(1, 0x44)
	b.expectRemote(4, false)
	if b.IO.State().IRR != 0 {
		t.Errorf("IRR is %#x after the edge was sent", b.IO.State().IRR)
	}
	b.line(4, true) // without a fall between
	b.expectTake(1, 0x44)
	b.line(4, false)
	b.expectTake(1, -1)
	b.line(4, true)
	b.expectTake(1, 0x44)
	b.line(4, false)

	// Masked: as long as the line is up the edge is remembered, but unmasking
	// does not send it, nor does raising the line that is up.
	b.redirect(4, 1<<redirDestShift|redirMasked|0x44)
	b.line(4, true)
	b.redirect(4, 1<<redirDestShift|0x44)
	b.expectTake(1, -1)
	if b.IO.State().IRR != 1<<4 {
		t.Errorf("IRR is %#x", b.IO.State().IRR)
	}
	b.line(4, true)
	b.expectTake(1, -1)
	b.line(4, false)
	if b.IO.State().IRR != 0 {
		t.Errorf("IRR is %#x", b.IO.State().IRR)
	}
	b.line(4, true)
	b.expectTake(1, 0x44)
	b.line(4, false)

	// An edge that is remembered is a level when the entry becomes one.
	b.redirect(4, 1<<redirDestShift|redirMasked|0x44)
	b.line(4, true)
	b.redirect(4, 1<<redirDestShift|redirLevel|0x44)
	b.expectTake(1, 0x44)
}

func TestIOAPICLevel(t *testing.T) {
	for _, x2 := range []bool{false, true} {
		b := enabled(t, 2)
		if x2 {
			b.x2apic(0, 1)
		}
		end := func(cpu int) {
			b.write(cpu, apicEOI, 0)
			b.Local[cpu].WriteMSR(0x80b, 0)
		}
		l := b.Local[1]
		b.redirect(9, 1<<redirDestShift|redirLevel|0x49)
		b.redirect(10, 1<<redirDestShift|redirLevel|0x4a)
		b.line(9, true)
		b.expectRemote(9, true)
		if v := l.Accept(); v != 0x49 {
			t.Fatalf("accepted %#x", v)
		}
		if got := l.regs[apicTMR+2]; got != 1<<9 {
			t.Errorf("TMR is %#x", got)
		}
		b.line(9, true) // again, not ended yet: nothing
		b.line(9, false)
		b.line(9, true)
		if got := l.regs[apicIRR+2]; got != 0 {
			t.Errorf("IRR is %#x before the end of the interrupt", got)
		}
		end(1) // the line is still up
		b.expectRemote(9, true)
		if v := l.Accept(); v != 0x49 {
			t.Fatalf("accepted %#x", v)
		}
		b.line(9, false)
		end(1)
		b.expectRemote(9, false)
		b.expectTake(1, -1)

		// The end of another vector is none of this one, nor is that of an edge.
		b.line(9, true)
		l.Accept()
		b.line(9, false)
		_ = b.SignalMSI(0xfee0_1000, msiLevel|msiAssert|0x59)
		l.Accept()
		end(1)
		b.expectRemote(9, true)
		end(1)
		b.expectRemote(9, false)
		_ = b.SignalMSI(0xfee0_1000, 0x49) // the same vector, by edge: TMR says so
		b.line(9, true)
		b.line(9, false)
		_ = b.SignalMSI(0xfee0_1000, 0x49)
		l.Accept()
		end(1)
		b.expectRemote(9, true)

		// Linux's way to end it without an EOI register: edge and masked for a moment.
		b.redirect(9, 1<<redirDestShift|redirMasked|0x49)
		b.expectRemote(9, false)
		b.redirect(9, 1<<redirDestShift|redirLevel|0x49)
		b.expectTake(1, -1)

		// Masked while the line is up, also between the interrupt and its end.
		b.line(10, true)
		l.Accept()
		b.redirect(10, 1<<redirDestShift|redirLevel|redirMasked|0x4a)
		b.expectRemote(10, true)
		end(1)
		b.expectRemote(10, false)
		b.expectTake(1, -1)
		b.redirect(10, 1<<redirDestShift|redirLevel|0x4a)
		b.expectTake(1, 0x4a)
		b.line(10, false)
		b.redirect(10, 1<<redirDestShift|redirLevel|0x4a)
		for range 2 { // what take ended while the line was up came once more
			b.take(1)
		}
		b.expectTake(1, -1)
	}
}

// TestIOAPICNotAccepted: remote IRR is for interrupts that somebody will end.
func TestIOAPICNotAccepted(t *testing.T) {
	b := newBench(t, 2)
	b.redirect(9, 1<<redirDestShift|redirLevel|0x49)
	b.line(9, true) // software has it disabled
	b.expectRemote(9, false)
	b.write(1, apicSVR, svrEnable|0xff)
	b.redirect(9, 1<<redirDestShift|redirLevel|0x49)
	b.expectRemote(9, true)
	b.line(9, false)
	b.expectTake(1, 0x49)

	for name, e := range map[string]uint64{
		"nobody":            9<<redirDestShift | redirLevel | 0x49,
		"illegal vector":    1<<redirDestShift | redirLevel | 0x09,
		"start-up":          1<<redirDestShift | redirLevel | deliverStartup<<redirModeShift,
		"system management": 1<<redirDestShift | redirLevel | 2<<redirModeShift,
	} {
		b.redirect(9, e)
		b.line(9, true)
		if e := b.IO.State().Redirection[9]; e&redirRemoteIRR != 0 {
			t.Errorf("%s: entry is %#x", name, e)
		}
		b.line(9, false)
		b.expectTake(1, -1)
	}
	if len(b.cpus[1].seen) != 0 {
		t.Errorf("the CPU got %v", b.cpus[1].seen)
	}
	// An NMI is an edge whatever the entry says.
	b.redirect(9, 1<<redirDestShift|redirLevel|deliverNMI<<redirModeShift)
	b.line(9, true)
	b.redirect(9, 1<<redirDestShift|redirLevel|deliverNMI<<redirModeShift)
	if got := b.cpus[1].seen; !reflect.DeepEqual(got, []string{"NMI"}) {
		t.Errorf("the CPU got %v", got)
	}
	b.expectRemote(9, false)
}

func TestIOAPICDestinations(t *testing.T) {
	b := enabled(t, 3)
	for i := range b.cpus {
		b.write(i, apicLDR, 1<<(24+i))
	}
	for name, c := range map[string]struct {
		e    uint64
		want []string
	}{
		"logical":         {5<<redirDestShift | redirLogical | 0x41, []string{"0x41", "", "0x41"}},
		"all":             {0xff<<redirDestShift | 0x41, []string{"0x41", "0x41", "0x41"}},
		"lowest priority": {7<<redirDestShift | redirLogical | deliverLowest<<redirModeShift | 0x41, []string{"", "", "0x41"}},
		"polarity":        {1<<redirDestShift | 1<<13 | 0x41, []string{"", "0x41", ""}},
		"INIT":            {2<<redirDestShift | deliverINIT<<redirModeShift, []string{"", "", "INIT"}},
	} {
		b.redirect(20, c.e)
		b.line(20, true)
		b.line(20, false)
		if got := b.got(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestSetIRQRefuses(t *testing.T) {
	b := newBench(t, 1)
	for _, gsi := range []uint32{24, 1 << 31} {
		if err := b.IO.SetIRQ(gsi, true); err == nil || !strings.Contains(err.Error(), "no input") {
			t.Errorf("input %d: error %v", gsi, err)
		}
	}
}

func TestIOAPICState(t *testing.T) {
	b := enabled(t, 1)
	if got, want := b.IO.State(), x86.PowerOn(1).IOAPIC; got != want {
		t.Errorf("power-on state is %+v, want %+v", got, want)
	}
	b.writeIO(0, 5<<24)
	b.redirect(9, redirLevel|0x49)
	b.redirect(10, redirMasked|0x4a)
	b.line(9, true)
	b.line(10, true)
	s := b.IO.State()
	if s.ID != 5 || s.Select != 0x24 || s.IRR != 1<<9|1<<10 || s.Redirection[9] != redirLevel|redirRemoteIRR|0x49 {
		t.Errorf("state is %+v", s)
	}
	n := enabled(t, 1)
	if err := n.IO.SetState(s); err != nil {
		t.Fatal(err)
	}
	if n.IO.State() != s {
		t.Errorf("state comes back as %+v, was %+v", n.IO.State(), s)
	}
	n.expectTake(0, -1) // what was sent is the local APICs' state
	n.IO.EOI(0x49)
	n.expectTake(0, 0x49)
	// As KVM may have it.
	s.Redirection[3] = 0x00ff_ffff_fffe_1000 | deliverNMI<<redirModeShift | redirLevel | redirRemoteIRR
	if err := n.IO.SetState(s); err != nil {
		t.Fatal(err)
	}
	if got, want := n.IO.State().Redirection[3], uint64(deliverNMI<<redirModeShift|redirLevel); got != want {
		t.Errorf("entry 3 is %#x", got)
	}
	before := n.IO.State()
	for _, change := range []func(s *x86.IOAPIC){
		func(s *x86.IOAPIC) { s.ID = 16 },
		func(s *x86.IOAPIC) { s.Select = 0x100 },
		func(s *x86.IOAPIC) { s.IRR = 1 << 24 },
	} {
		bad := s
		change(&bad)
		if err := n.IO.SetState(bad); err == nil || !strings.Contains(err.Error(), "I/O APIC: state") {
			t.Errorf("%+v: error %v", bad, err)
		}
	}
	if n.IO.State() != before {
		t.Error("a refused state has changed something")
	}
}
