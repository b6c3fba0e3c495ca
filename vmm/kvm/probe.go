//go:build linux && amd64

package kvm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

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
func Speed(device string, cpl uint8) (_ float64, err error) {
	ram, err := memory.New(probeRAM)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ram.Close()) }()
	if err := errors.Join(ram.Write(probeTables, x86.IdentityMap(probeTables, 1, true)), ram.Write(probeCode, probeProgram)); err != nil {
		return 0, err
	}
	p := new(stopwatch)
	ports := bus.NewPorts()
	if err := ports.Map(probePort, 1, "probe", p); err != nil {
		return 0, err
	}
	e, err := New(Config{Device: device, CPUs: 1, RAM: ram, Ports: ports, MMIO: bus.NewMMIO(),
		Clock: clock.New(clock.NewHost()), Lock: new(sync.Mutex)})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
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
