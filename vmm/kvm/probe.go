//go:build linux && amd64

package kvm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/bobuhiro11/gokvm/kvm"

	"fifovm/vmm/bus"
	"fifovm/vmm/clock"
	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

// The measuring guest's memory: page tables, then the program.
const (
	probeRAM    = 64 << 10
	probeTables = 0x1000
	probeCode   = 0x8000
	probePort   = 0x80
)

// probeProgram counts ECX down to zero between two writes to a port. At CPL 3 it
// may write, since IOPL is 3.
var probeProgram = []byte{
	0xe6, probePort, //       out probePort, al
	0xff, 0xc9, //       loop: dec ecx
	0x75, 0xfc, //             jnz loop
	0xe6, probePort, //       out probePort, al
	0xeb, 0xfe, //       end:  jmp end
}

const (
	probeLoop = 2       // instructions in a round of the loop
	iopl3     = 3 << 12 // I/O privilege level 3 in RFLAGS
)

// NativeBelow is the time in ns, of one instruction at CPL 0, that tells a
// processor that runs the guest's kernel from a KVM that emulates it. Native is
// 0.3 to 0.5 (5 to 7 where that processor is itself emulated); emulated is 900.
const NativeBelow = 100

// Speed measures how many ns this host's KVM takes for one instruction of a
// guest at privilege level cpl (0 or 3), in a few ms.
func Speed(device string, cpl uint8) (ns float64, err error) {
	err = withProbe(device, probeProgram, func(e *Engine, p *stopwatch) (err error) {
		ns, err = e.speed(p, cpl)
		return err
	})
	return ns, err
}

// withProbe calls f with an engine for a program of a few bytes.
func withProbe(device string, program []byte, f func(*Engine, *stopwatch) error) (err error) {
	ram, err := memory.New(probeRAM)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ram.Close()) }()
	if err := errors.Join(ram.Write(probeTables, x86.IdentityMap(probeTables, 1, true)), ram.Write(probeCode, program)); err != nil {
		return err
	}
	p := new(stopwatch)
	ports := bus.NewPorts()
	if err := ports.Map(probePort, 1, "probe", p); err != nil {
		return err
	}
	e, err := New(Config{Device: device, CPUs: 1, RAM: ram, Ports: ports, MMIO: bus.NewMMIO(),
		Clock: clock.New(clock.NewHost()), Lock: new(sync.Mutex)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return f(e, p)
}

func (e *Engine) speed(p *stopwatch, cpl uint8) (float64, error) {
	// A short run tells native from emulated, if it is repeated: a busy host
	// makes some of them slow, and none fast. Only a native one is worth a
	// longer run, in which the two exits no longer count.
	const short, long, tries = 5_000, 500_000, 8
	ns := math.Inf(1)
	for range tries {
		t, err := e.timeProbe(p, cpl, short)
		if err != nil {
			return 0, err
		}
		if ns = min(ns, t); ns < NativeBelow {
			return e.timeProbe(p, cpl, long)
		}
	}
	return ns, nil
}

// timeProbe gives the ns of an instruction in a run of some rounds of the loop.
func (e *Engine) timeProbe(p *stopwatch, cpl uint8, rounds uint64) (float64, error) {
	s := x86.PowerOn(1)
	c := &s.CPUs[0]
	c.LongMode(probeTables, cpl)
	c.RFLAGS |= iopl3
	c.RIP, c.GPR[x86.RCX] = probeCode, rounds
	if err := e.SetState(s); err != nil {
		return 0, err
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	p.times, p.stop = p.times[:0], stop
	if err := e.Run(ctx); err != nil {
		return 0, err
	}
	if len(p.times) != 2 {
		return 0, fmt.Errorf("kvm: a guest of %d instructions at CPL %d does not end", probeLoop*rounds, cpl)
	}
	return float64(p.times[1].Sub(p.times[0])) / float64(probeLoop*rounds), nil
}

// Stops is what a host's KVM stops at for a debugger.
type Stops struct {
	Steps       bool
	Breakpoints bool // in debug registers
	Watchpoints bool
	INT3        bool // breakpoints by INT3
}

// stopsProgram stores where a watchpoint may be and has an instruction for a
// breakpoint.
var stopsProgram = []byte{
	0x89, 0x03, //             mov [rbx], eax
	0x90,            //       nop
	0xe6, probePort, //        out probePort, al
	0xe6, probePort, //        out probePort, al
	0xeb, 0xfe, //       end:  jmp end
}

const (
	stopsBreak = probeCode + 2
	stopsCell  = probeCode + 0x100
)

// canStop is what CanStop has found, by the device.
var canStop sync.Map

// CanStop finds out what this host's KVM stops at, in a few ms at the first call.
// That it takes the call proves nothing: emulated processors, and KVMs that
// emulate, pass by.
func CanStop(device string) (Stops, error) {
	if s, ok := canStop.Load(device); ok {
		return s.(Stops), nil
	}
	var s Stops
	err := withProbe(device, stopsProgram, func(e *Engine, p *stopwatch) error {
		if !has(e.fd, kvm.CapSetGuestDebug) {
			return nil
		}
		hits := func(d debugger, kind x86.TrapKind) (bool, error) {
			d.dr7 |= dr7Ones
			return e.probeStop(p, d, kind)
		}
		watch := x86.Watchpoint{Address: stopsCell, Size: 4, Kind: x86.WatchWrite}
		var errs [4]error
		s.Steps, errs[0] = hits(debugger{Debug: x86.Debug{Stepping: true}}, x86.TrapStep)
		s.Breakpoints, errs[1] = hits(debugger{points: []point{{address: stopsBreak, size: 1}}, dr7: 2}, x86.TrapBreakpoint)
		s.Watchpoints, errs[2] = hits(debugger{points: []point{{address: stopsCell, size: 4, watch: &watch}},
			dr7: 2 | drWrite<<16 | 3<<18}, x86.TrapWatchpoint)
		s.INT3, errs[3] = hits(debugger{patches: []*patch{{linear: stopsBreak}}}, x86.TrapBreakpoint)
		return errors.Join(errs[:]...)
	})
	if err == nil {
		canStop.Store(device, s)
	}
	return s, err
}

// probeStop is whether the program's run ends in a trap of that kind. A guest that
// gets an exception instead, or that can't be emulated, ends otherwise.
func (e *Engine) probeStop(p *stopwatch, d debugger, kind x86.TrapKind) (bool, error) {
	s := x86.PowerOn(1)
	c := &s.CPUs[0]
	c.LongMode(probeTables, 0)
	c.RIP, c.GPR[x86.RBX] = probeCode, stopsCell
	if err := e.SetState(s); err != nil {
		return false, err
	}
	e.debug = d
	e.vcpus[0].passing = false
	defer func() { e.debug = debugger{} }()
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	p.times, p.stop = p.times[:0], stop
	var t *x86.Trap
	return errors.As(e.Run(ctx), &t) && t.Kind == kind, nil
}

// stopwatch is a port that notes when it is written to, and stops the guest at
// the second time.
type stopwatch struct {
	times []time.Time
	stop  context.CancelFunc
}

func (p *stopwatch) Read(uint64, []byte) {}

func (p *stopwatch) Write(uint64, []byte) {
	if p.times = append(p.times, time.Now()); len(p.times) == 2 {
		p.stop()
	}
}
