//go:build linux && amd64

package kvm

import (
	"errors"
	"testing"

	"github.com/bobuhiro11/gokvm/kvm"

	"fifovm/vmm/x86"
)

// TestDebugExits: what KVM says of debug registers, INT3 and steps becomes the
// right stop. There are few hosts on which all of them come by themselves:
// CanStop says which.
func TestDebugExits(t *testing.T) {
	g := newGuest(t, 1, done)
	e, c := g.engine, g.engine.vcpus[0]
	every := Stops{Steps: true, Breakpoints: true, Watchpoints: true, INT3: true}
	watch := x86.Watchpoint{Address: 0x6003, Size: 5, Kind: x86.WatchWrite} // 1 byte, then 4
	e.debug.Debug = x86.Debug{Breakpoints: []uint64{0x1000, 0x2000, testCode}, Watchpoints: []x86.Watchpoint{watch}}
	if err := e.debug.place(every); err != nil {
		t.Fatal(err)
	}
	if len(e.debug.points) != 4 || len(e.debug.patches) != 1 || e.debug.patches[0].linear != testCode {
		t.Fatalf("%d in registers, %d by INT3", len(e.debug.points), len(e.debug.patches))
	}
	// SDM volume 3, figure 17-1: G0 to G3, writes of 1 and 4 bytes, execution.
	if want := uint64(0x600 | 0xaa | 0x1<<16 | 0xd<<20); e.debug.dr7 != want {
		t.Errorf("DR7 is %#x, want %#x", e.debug.dr7, want)
	}
	if err := e.patch(); err != nil {
		t.Fatal(err)
	}
	code, err := e.cfg.RAM.Slice(testCode, 1)
	if err != nil {
		t.Fatal(err)
	}
	was := e.debug.patches[0].was
	if code[0] != int3 || was == int3 {
		t.Errorf("the code is %#x, was %#x", code[0], was)
	}
	for _, test := range []struct {
		name           string
		exception      uint64
		pc, dr6        uint64
		control        uint32
		kind           x86.TrapKind
		address, passT uint64
	}{
		{"the first half of the watchpoint", x86.DB, 0x500, 1, debugEnable | debugHardware, x86.TrapWatchpoint, 0x6003, 0},
		{"the second half", x86.DB, 0x500, 2, debugEnable | debugHardware, x86.TrapWatchpoint, 0x6003, 0},
		{"a breakpoint", x86.DB, 0x2000, 8, debugEnable | debugHardware, x86.TrapBreakpoint, 0x2000, 0x2000},
		{"INT3", x86.BP, testCode, 0, debugEnable | debugSoftware, x86.TrapBreakpoint, testCode, testCode},
		{"a step", x86.DB, 0x501, dr6BS, debugEnable | debugStep, x86.TrapStep, 0x501, 0},
	} {
		c.passing, c.pass, c.control = false, 0, test.control
		c.run.ExitReason = uint32(kvm.EXITDEBUG)
		c.run.Data[0], c.run.Data[1], c.run.Data[2] = test.exception, test.pc, test.dr6
		err := c.do(c.exit)
		var trap *x86.Trap
		if !errors.As(err, &trap) || trap.Kind != test.kind || trap.Address != test.address || c.passing != (test.passT != 0) || c.pass != test.passT {
			t.Errorf("%s: %v, passing %v at %#x", test.name, err, c.passing, c.pass)
		}
	}
	// What is the guest's own goes to the guest.
	c.control = debugEnable | debugHardware
	c.run.Data[0], c.run.Data[1], c.run.Data[2] = x86.DB, 0x700, dr6BS
	if err := c.do(c.exit); err != nil {
		t.Errorf("the guest's single step: %v", err)
	}
	if err := c.do(func() error { return kvm.GetDebugRegs(uintptr(c.fd), &c.buf.debug) }); err != nil || c.buf.debug.DR6&dr6BS == 0 {
		t.Errorf("DR6 is %#x, %v", c.buf.debug.DR6, err)
	}
	e.unpatch()
	if code[0] != was {
		t.Errorf("the code is %#x, was %#x", code[0], was)
	}
	g.check(c.do(c.withoutDebug))
}

// TestPlace: what a processor can't do is said, and not left out.
func TestPlace(t *testing.T) {
	watch := func(a, n uint64) x86.Watchpoint { return x86.Watchpoint{Address: a, Size: n, Kind: x86.WatchAccess} }
	every := Stops{true, true, true, true}
	for _, test := range []struct {
		name string
		want x86.Debug
		able Stops
		ok   bool
	}{
		{"four watchpoints", x86.Debug{Watchpoints: []x86.Watchpoint{watch(0, 8), watch(8, 4), watch(16, 2), watch(1, 1)}}, every, true},
		{"32 bytes", x86.Debug{Watchpoints: []x86.Watchpoint{watch(8, 32)}}, every, true},
		{"32 bytes, not aligned", x86.Debug{Watchpoints: []x86.Watchpoint{watch(4, 32)}}, every, false},
		{"a page", x86.Debug{Watchpoints: []x86.Watchpoint{watch(0, 4096)}}, every, false},
		{"watchpoints, on a host without", x86.Debug{Watchpoints: []x86.Watchpoint{watch(0, 8)}}, Stops{Breakpoints: true, INT3: true}, false},
		{"five breakpoints", x86.Debug{Breakpoints: []uint64{1, 2, 3, 4, 5}}, every, true},
		{"five breakpoints, without INT3", x86.Debug{Breakpoints: []uint64{1, 2, 3, 4, 5}}, Stops{Breakpoints: true}, false},
		{"one, without registers", x86.Debug{Breakpoints: []uint64{1}}, Stops{INT3: true}, true},
		{"one, without anything", x86.Debug{Breakpoints: []uint64{1}}, Stops{}, false},
	} {
		d := debugger{Debug: test.want}
		if err := d.place(test.able); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// TestOutcome: of several stops one is told of, and no watchpoint is lost.
func TestOutcome(t *testing.T) {
	g := newGuest(t, 3, done)
	e := g.engine
	w := x86.Watchpoint{Address: 8, Size: 8, Kind: x86.WatchWrite}
	e.vcpus[0].passing, e.vcpus[2].passing = true, true
	hit := &x86.Trap{CPU: 1, Kind: x86.TrapWatchpoint, Address: 8, Watch: w}
	err := e.outcome([]error{&x86.Trap{CPU: 0, Kind: x86.TrapBreakpoint}, hit, &x86.Trap{CPU: 2, Kind: x86.TrapBreakpoint}})
	var trap *x86.Trap
	if !errors.As(err, &trap) || trap.CPU != 0 || !e.vcpus[0].passing || e.vcpus[2].passing {
		t.Errorf("%v; CPU 0 passes: %v, CPU 2: %v", err, e.vcpus[0].passing, e.vcpus[2].passing)
	}
	if err := e.Run(t.Context()); !errors.Is(err, hit) {
		t.Errorf("the next run gives %v, want the watchpoint", err)
	}
	if err := e.outcome(nil); err != nil {
		t.Errorf("no error becomes %v", err)
	}
	broken := errors.New("broken")
	if err := e.outcome([]error{hit, broken}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}
