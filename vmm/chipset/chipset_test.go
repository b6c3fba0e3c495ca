package chipset

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fifovm/vmm/bus"
	"fifovm/vmm/clock"
)

// hand is a time that the test sets.
type hand int64

func (h *hand) Now() int64 { return int64(*h) }

// machine is all devices of the package on one bus and one clock.
type machine struct {
	now        hand
	clock      *clock.Clock
	ports      *bus.Space
	com1, com2 *UART
	cmos       *CMOS
	power      *Power

	seen []string // what came out of the devices, in order
}

// machineStart is the wall-clock time at which a machine starts.
const machineStart = 1_700_000_000_250_000_000

func newMachine(t testing.TB) *machine {
	m := &machine{ports: bus.NewPorts()}
	m.clock = clock.New(&m.now)
	irq := func(name string) func(bool) {
		return func(level bool) { m.seen = append(m.seen, fmt.Sprintf("%s line %v", name, level)) }
	}
	out := func(name string) func(byte) {
		return func(b byte) { m.seen = append(m.seen, fmt.Sprintf("%s sends %#x", name, b)) }
	}
	m.com1 = NewUART(m.clock, "com1", irq("com1"), out("com1"))
	m.com2 = NewUART(m.clock, "com2", irq("com2"), out("com2"))
	m.com2.OnRoom = func() {
		m.seen = append(m.seen, "com2 has room")
		m.com2.Input([]byte("pasted input")[m.now%8:])
	}
	m.cmos = NewCMOS(m.clock, "cmos", irq("cmos"), machineStart)
	m.power = NewPower(func(s Stop) { m.seen = append(m.seen, s.String()) })
	for _, d := range []struct {
		port, n uint64
		h       bus.Handler
	}{
		{COM1Port, UARTPorts, m.com1},
		{COM2Port, UARTPorts, m.com2},
		{CMOSPort, CMOSPorts, m.cmos},
		{PowerPort, PowerPorts, m.power},
		{KeyboardPort, KeyboardPorts, m.power.KeyboardReset()},
	} {
		if err := m.ports.Map(d.port, d.n, "dev", d.h); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// pass lets time go by as the machine does: event by event.
func (m *machine) pass(ns int64) {
	end := m.now + hand(ns)
	for m.clock.Next() <= int64(end) {
		m.now = max(m.now, hand(m.clock.Next()))
		m.clock.RunDue()
	}
	m.now = end
}

func (m *machine) out(port uint64, v uint8) { m.ports.Write(port, []byte{v}) }

func (m *machine) in(port uint64) uint8 {
	var b [1]byte
	m.ports.Read(port, b[:])
	return b[0]
}

type machineState struct {
	Now        int64
	Clock      clock.State
	COM1, COM2 UARTState
	CMOS       CMOSState
	Power      PowerState
}

func (m *machine) state() machineState {
	return machineState{int64(m.now), m.clock.State(), m.com1.State(), m.com2.State(), m.cmos.State(), m.power.State()}
}

func (m *machine) setState(t testing.TB, s machineState) {
	t.Helper()
	m.now = hand(s.Now)
	for _, err := range []error{
		m.clock.SetState(s.Clock), m.com1.SetState(s.COM1), m.com2.SetState(s.COM2), m.cmos.SetState(s.CMOS), m.power.SetState(s.Power),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// step does what four bytes say and gives what the guest sees of it.
func (m *machine) step(op, where, width, value byte) []byte {
	bases := [...]uint64{COM1Port, COM2Port, CMOSPort, PowerPort, KeyboardPort - 2}
	port := bases[int(where)%len(bases)] + uint64(where/16)%8
	data := make([]byte, []int{1, 1, 2, 4, 8}[int(width)%5])
	switch op % 16 {
	case 0, 1, 2, 3, 4, 5:
		m.ports.Read(port, data)
	case 6, 7, 8, 9, 10, 11:
		for i := range data {
			data[i] = value + byte(i)*where
		}
		m.ports.Write(port, data)
	case 12:
		m.pass(int64(value) << (width % 32))
	case 13:
		uart := []*UART{m.com1, m.com2}[where%2]
		n := uart.Input([]byte("0123456789abcdefghij")[:value%21])
		return []byte{byte(n)}
	case 14:
		if !m.com1.Break() {
			return []byte("no room")
		}
	case 15:
		// A CMOS access in one step, as two random ones would rarely make it.
		m.out(CMOSPort, where)
		m.out(CMOSPort+1, value)
	}
	return data
}

// run does a random program of steps. At a random one of them a second machine
// takes over the state, and from then on must behave as the first.
func run(t testing.TB, program []byte) {
	m := newMachine(t)
	var twin *machine
	split := 0
	if len(program) > 0 {
		split = int(program[0]) * len(program) / 256
	}
	for i := 0; i+4 <= len(program); i += 4 {
		if twin == nil && i >= split {
			twin = newMachine(t)
			s := m.state()
			twin.setState(t, s)
			if d := cmp.Diff(s, twin.state()); d != "" {
				t.Fatalf("state does not come back (-was +is):\n%s", d)
			}
			m.seen = nil
		}
		p := program[i : i+4]
		got := m.step(p[0], p[1], p[2], p[3])
		if twin != nil {
			if again := twin.step(p[0], p[1], p[2], p[3]); !slices.Equal(got, again) {
				t.Fatalf("step %d (%x): %x, after the change of machines %x", i/4, p, got, again)
			}
		}
		if n := len(m.clock.State().Events); n > 3 {
			t.Fatalf("step %d (%x): %d events wait", i/4, p, n)
		}
		if twin == nil {
			m.seen = nil
		}
	}
	if twin == nil {
		return
	}
	if d := cmp.Diff(m.seen, twin.seen); d != "" {
		t.Fatalf("after the change of machines other things came out (-first +second):\n%s", d)
	}
	if d := cmp.Diff(m.state(), twin.state()); d != "" {
		t.Fatalf("after the change of machines the states differ (-first +second):\n%s", d)
	}
	for _, reset := range []func(){m.com1.Reset, m.com2.Reset, m.cmos.Reset, m.power.Reset} {
		reset()
	}
	s := m.state()
	if s.COM1 != uartPowerOn || s.COM2 != uartPowerOn || len(s.Clock.Events) != 0 || s.CMOS.Line {
		t.Fatalf("after reset the state is %+v", s)
	}
}

func TestStateRoundTrip(t *testing.T) {
	rnd := rand.NewChaCha8([32]byte{1})
	for range 300 {
		program := make([]byte, 4000)
		rnd.Read(program)
		run(t, program)
	}
}

func FuzzAccess(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x80\x00\x00\x00"))
	// A UART with FIFOs and interrupts on, input, and time.
	f.Add([]byte{7, 0x40, 0, 0x0b, 7, 0x20, 0, 0x87, 7, 0x10, 0, 0x0f, 13, 0, 0, 9, 12, 0, 13, 0xff, 0, 0x20, 0, 0, 0, 0, 0, 0, 7, 0, 0, 'x'})
	// A clock with all interrupts on, an alarm of every second, and time.
	f.Add([]byte{15, 1, 0, 0xff, 15, 3, 0, 0xff, 15, 5, 0, 0xff, 15, 10, 0, 0x21, 15, 11, 0, 0x72, 12, 0, 25, 0xff, 15, 11, 0, 0xf2, 15, 9, 0, 0x99, 15, 11, 0, 0x70})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 4096 {
			return
		}
		run(t, program)
	})
}

func TestSetStateRefuses(t *testing.T) {
	m := newMachine(t)
	for i, s := range []UARTState{
		{IER: 0x10}, {FCR: 0x02}, {FCR: 0x80}, {MCR: 0x20}, {Errors: 1}, {Count: -1}, {Count: 2}, {FCR: 1, Count: 17},
		{FCR: 1, Count: 1, Received: [16]Received{{Errors: 0x80}}},
	} {
		before := m.com1.State()
		if err := m.com1.SetState(s); err == nil {
			t.Errorf("UART state %d is taken: %+v", i, s)
		}
		if m.com1.State() != before {
			t.Errorf("UART state %d is refused but changed the UART", i)
		}
	}
	for i, change := range []func(s *CMOSState){
		func(s *CMOSState) { s.Index = 128 },
		func(s *CMOSState) { s.Bytes[cmosA] |= 0x80 },
		func(s *CMOSState) { s.Bytes[cmosC] = 1 },
		func(s *CMOSState) { s.Bytes[cmosD] = 0 },
		func(s *CMOSState) { s.Phase = second },
		func(s *CMOSState) { s.Phase = -1 },
		func(s *CMOSState) { s.Base = 1 << 62 },
		func(s *CMOSState) { s.Second = -1 << 63 },
	} {
		s := m.cmos.State()
		change(&s)
		if err := m.cmos.SetState(s); err == nil {
			t.Errorf("CMOS state %d is taken: %+v", i, s)
		}
	}
	if err := m.power.SetState(PowerState{SleepType: 0x20}); err == nil {
		t.Error("a sleep type out of range is taken")
	}
}

func TestPower(t *testing.T) {
	for _, c := range []struct {
		port, value int
		want        []string
	}{
		{SleepControlPort, 5<<2 | 1<<5, []string{"power off"}},
		{SleepControlPort, 5<<2 | 1<<5 | 0xc3, []string{"power off"}}, // other bits are ignored
		{SleepControlPort, 5 << 2, nil},
		{SleepControlPort, 4<<2 | 1<<5, nil},
		{SleepControlPort, 1 << 5, nil},
		{SleepStatusPort, 0x80, nil},
		{ResetPort, ResetValue, []string{"reset"}},
		{ResetPort, 0, nil},
		{ResetPort, 0xff, nil},
		{KeyboardPort, 0xfe, []string{"reset"}},
		{KeyboardPort, 0xff, nil},
		{KeyboardPort, 0x20, nil},
	} {
		m := newMachine(t)
		m.out(uint64(c.port), uint8(c.value))
		if !slices.Equal(m.seen, c.want) {
			t.Errorf("%#x to %#x: %q, want %q", c.value, c.port, m.seen, c.want)
		}
	}

	m := newMachine(t)
	m.out(SleepControlPort, 0xff&^sleepEnable)
	for port, want := range map[uint64]uint8{SleepControlPort: 7 << 2, SleepStatusPort: 0, ResetPort: 0} {
		if v := m.in(port); v != want {
			t.Errorf("%#x reads %#x, want %#x", port, v, want)
		}
	}
	// Linux waits for the input buffer to be free (kb_wait), and finds no
	// controller where the output is still not dry after 16 reads (i8042_flush).
	if v := m.in(KeyboardPort); v&2 != 0 || v&1 == 0 {
		t.Errorf("keyboard status is %#x", v)
	}
	for s, want := range map[Stop]string{PowerOff: "power off", Reset: "reset", 7: "Stop(7)"} {
		if s.String() != want {
			t.Errorf("%d is called %q, want %q", s, s, want)
		}
	}
}

// TestLayout: nothing overlaps, and the windows end where the documentation of
// the platform says.
func TestLayout(t *testing.T) {
	mmio := bus.NewMMIO()
	for _, r := range []struct {
		name       string
		base, size uint64
	}{
		{"32-bit window", PCIWindow32, PCIWindow32Size},
		{"ECAM", ECAM, ECAMSize},
		{"I/O APIC", IOAPICBase, IOAPICSize},
		{"local APIC", LocalAPICBase, LocalAPICSize},
		{"64-bit window", PCIWindow64, PCIWindow64Size},
	} {
		if err := mmio.Map(r.base, r.size, r.name, nil); err != nil {
			t.Error(err)
		}
	}
	if end := uint64(PCIWindow64 + PCIWindow64Size); end != 1<<39 {
		t.Errorf("the 64-bit window ends at %#x", end)
	}
}
