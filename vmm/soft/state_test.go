package soft

import (
	"encoding/binary"
	"encoding/json"
	"testing"

	"fifovm/vmm/x86"
)

// state is the machine's state as text.
func (g *guest) state() string {
	g.Helper()
	s, err := g.engine.State()
	if err != nil {
		g.Fatal(err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		g.Fatal(err)
	}
	return string(b)
}

// TestStateBack: a state that is given back is the state then, whatever the
// machine did before.
func TestStateBack(t *testing.T) {
	g := newGuest(t, 2, []byte{
		0xb9, 0x10, 0, 0, 0, 0x31, 0xd2, 0xb8, 0, 0, 1, 0, 0x0f, 0x30, // wrmsr: the time-stamp counter
		0xb9, 0x82, 0, 0, 0xc0, 0x0f, 0x30, // LSTAR
		0x48, 0xff, 0xc0, 0xeb, 0xfb, // inc rax; jmp
	})
	fresh := g.state()
	g.run(1000)
	used := g.state()
	if used == fresh {
		t.Fatal("the guest did nothing")
	}
	s, err := g.engine.State()
	if err != nil {
		t.Fatal(err)
	}
	now := g.engine.cfg.Time.Now()
	g.engine.cfg.Time.Set(0)
	g.set()
	if got := g.state(); got != fresh {
		t.Errorf("back at the start the state is\n%s, want\n%s", got, fresh)
	}
	g.engine.cfg.Time.Set(now)
	if err := g.engine.SetState(s); err != nil {
		t.Fatal(err)
	}
	if got := g.state(); got != used {
		t.Errorf("the state that was given back is\n%s, want\n%s", got, used)
	}
}

// ipi is CPU 0's code that sends an interrupt command to the CPU with that APIC
// ID.
func ipi(id byte, icr uint32) []byte {
	b := []byte{
		0xbf, 0x00, 0x00, 0xe0, 0xfe, // mov edi, 0xfee00000
		0xc7, 0x87, 0x10, 0x03, 0, 0, 0, 0, 0, id, // mov dword [rdi+0x310], id<<24
		0xc7, 0x87, 0x00, 0x03, 0, 0, // mov dword [rdi+0x300], icr
	}
	return binary.LittleEndian.AppendUint32(b, icr)
}

const (
	icrINIT    = 0x4500
	icrStartup = 0x4600
)

// TestINITInState: an INIT has been acted upon whenever a state can be taken.
func TestINITInState(t *testing.T) {
	g := newGuest(t, 2, ipi(1, icrINIT), []byte{0xeb, 0xfe})
	g.run(10)
	s, err := g.engine.State()
	if err != nil {
		t.Fatal(err)
	}
	if a := s.CPUs[1].Activity; a != x86.WaitSIPI {
		t.Errorf("after INIT the activity is %d, want %d", a, x86.WaitSIPI)
	}
	// The start-up IPI comes in another machine.
	other := newGuest(t, 2, ipi(1, icrStartup|8), []byte{0xeb, 0xfe})
	other.write(0x8000, []byte{0xeb, 0xfe})
	s.CPUs[0].RIP = testCode
	if err := other.engine.SetState(s); err != nil {
		t.Fatal(err)
	}
	other.run(30_000)
	if c := other.engine.cpus[1]; c.activity != x86.Running || c.r[slotCS] != 0x8000 || c.r[slotRIP] != 0 {
		t.Errorf("CPU 1: activity %d at %#x:%#x", c.activity, c.r[slotCS], c.r[slotRIP])
	}
}

// TestINITOfSleeper: a CPU that has slept for long does not turn back the time.
func TestINITOfSleeper(t *testing.T) {
	g := newGuest(t, 2)
	g.engine.cfg.Time.Set(5000)
	g.engine.cpus[1].INIT()
	if now := g.engine.cfg.Time.Now(); now != 5000 {
		t.Errorf("it is %d ns, and was 5000", now)
	}
}

// TestINITOfSelf: a CPU that sends itself INIT begins anew.
func TestINITOfSelf(t *testing.T) {
	g := newGuest(t, 1, ipi(0, icrINIT), []byte{0xeb, 0xfe})
	g.engine.runTurn(g.engine.next())
	s, err := g.engine.State()
	if err != nil {
		t.Fatal(err)
	}
	if c := s.CPUs[0]; c.RIP != 0xfff0 || c.Activity != x86.Running || c.Seg[x86.CS].Selector != 0xf000 {
		t.Errorf("the CPU is at %#x:%#x, activity %d", c.Seg[x86.CS].Selector, c.RIP, c.Activity)
	}
}

// TestStartsSIPI: a state from KVM may have a start-up IPI that waits to be
// acted upon.
func TestStartsSIPI(t *testing.T) {
	g := newGuest(t, 2)
	g.start.CPUs[1].Activity, g.start.CPUs[1].SIPIVector = x86.StartsSIPI, 0x12
	g.set()
	if c := g.engine.cpus[1]; c.activity != x86.Running || c.r[slotCS] != 0x12000 || c.r[slotRIP] != 0 {
		t.Errorf("activity %d at %#x:%#x", c.activity, c.r[slotCS], c.r[slotRIP])
	}
	g.start.CPUs[1].Activity = x86.StartsSIPI + 1
	if err := g.engine.SetState(g.start); err == nil {
		t.Error("an activity that there is not is taken")
	}
}

// TestTSCOfUsedMachine: a state without the time-stamp counter, that of
// power-on, has one that shows the clock.
func TestTSCOfUsedMachine(t *testing.T) {
	g := newGuest(t, 1)
	if !g.cpu.writeMSR(x86.MSRTSC, 1<<40) {
		t.Fatal("the time-stamp counter can't be written")
	}
	g.set()
	if tsc, _ := g.cpu.readMSR(x86.MSRTSC); tsc != uint64(g.engine.cfg.Time.Now()) {
		t.Errorf("the time-stamp counter is %d", tsc)
	}
	if adjust, _ := g.cpu.readMSR(x86.MSRTSCAdjust); adjust != 0 {
		t.Errorf("IA32_TSC_ADJUST is %d", adjust)
	}
}
