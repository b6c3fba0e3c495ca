// Package soft is the engine that runs a machine's CPUs in pure Go: an
// interpreter of decoded blocks with a software TLB. It needs nothing of the
// host's processor or system, and it is deterministic.
//
// Time is virtual: an instruction takes a nanosecond, a machine that waits skips
// to its next event. The CPUs take turns on one goroutine, in slices whose
// lengths are drawn from a seed, so the same machine with the same seed and
// input runs the same way, to the instruction.
//
// The CPU is that of package x86's table: long mode with 4-level paging, the
// real and protected modes that lead there, x87, MMX and SSE to SSE4.2. It has
// no task switches, no virtual-8086 mode and no caches; a guest that asks for
// those, or at CPL 0 for an instruction that the table does not have, ends in an
// error that names the instruction.
//
// Where to look: soft.go is the engine and its schedule, cpu.go a CPU's state,
// run.go its loop, block.go the decoded code, decode.go the decoder, memory.go
// and paging.go the way to memory. The other files are instructions.
package soft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"fifovm/vmm/bus"
	"fifovm/vmm/chipset"
	"fifovm/vmm/clock"
	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

// Config is what an engine is given by its machine.
type Config struct {
	CPUs  int
	RAM   *memory.RAM
	Ports *bus.Space
	MMIO  *bus.Space
	// Time is what Clock shows; the engine moves it.
	Time  *clock.Virtual
	Clock *clock.Clock
	// Lock is held whenever the guest runs, and left to others in between.
	Lock sync.Locker
	// Seed decides how long the CPUs' turns are.
	Seed uint64
	// Paced has a machine whose CPUs all wait do so until the host's time has
	// come as far, for a guest that a person talks to. Its runs are not
	// repeatable.
	Paced bool
}

// TSCkHz is the rate of the time-stamp counter: the clock's.
const TSCkHz = 1_000_000

// TSCkHz is the rate of the time-stamp counter.
func (e *Engine) TSCkHz() uint32 { return TSCkHz }

// Turns of a CPU, in instructions. Where it is the only one, the bound is how
// long the host's other business waits.
const (
	shortestTurn = 2_000
	longestTurn  = 20_000
	aloneTurn    = 100_000
)

// Engine runs the CPUs of one machine.
type Engine struct {
	cfg   Config
	cpus  []*cpu
	apics *chipset.APICs
	cpuid [][]x86.Leaf // by CPU
	low   []byte       // RAM from address 0
	high  []byte       // RAM from 4 GiB
	code  codeCache

	generation uint64 // the last that cpu.gens got
	running    *cpu   // executes now; nil between turns
	err        error  // why the run ends
	wake       chan struct{}
	retired    int64     // instructions since New
	idleFrom   int64     // the time when a paced machine began to wait
	idleSince  time.Time // the same on the host's clock; zero when it does not wait
	held       bool      // see Hold
	debug      debugger

	random *rand.PCG
	turn   int   // whose turn it is
	until  int64 // when it ends
}

// New makes the CPUs as after power-on.
func New(cfg Config) (*Engine, error) {
	e := &Engine{cfg: cfg, wake: make(chan struct{}, 1), random: rand.NewPCG(cfg.Seed, 0)}
	for _, s := range cfg.RAM.Slots() {
		if s.Base == 0 {
			e.low = s.Bytes
		} else {
			e.high = s.Bytes
		}
	}
	frames := uint64(len(e.low)) >> pageShift
	if len(e.high) > 0 {
		frames = (memory.HoleEnd + uint64(len(e.high))) >> pageShift
	}
	e.code = codeCache{engine: e, pages: make([]*[tablePages]*codePage, (frames+tablePages-1)/tablePages)}
	var targets []chipset.CPU
	for i := range cfg.CPUs {
		c := &cpu{engine: e, index: i}
		e.cpus = append(e.cpus, c)
		e.cpuid = append(e.cpuid, x86.CPUID(i, cfg.CPUs, TSCkHz))
		targets = append(targets, c)
	}
	e.apics = chipset.NewAPICs(cfg.Clock, targets)
	for i, c := range e.cpus {
		c.apic = e.apics.Local[i]
	}
	if err := cfg.MMIO.Map(chipset.IOAPICBase, chipset.IOAPICSize, "I/O APIC", e.apics.IO); err != nil {
		return nil, fmt.Errorf("soft: %w", err)
	}
	cfg.Clock.OnEarlier = e.attention
	cfg.RAM.Watch(e.code.changed)
	return e, e.SetState(x86.PowerOn(cfg.CPUs))
}

// Close gives up the place on the bus. The RAM stays its owner's.
func (e *Engine) Close() error { return e.cfg.MMIO.Unmap(chipset.IOAPICBase) }

// page gives the page of RAM that g is in, nil if it is not RAM.
func (e *Engine) page(g uint64) *page {
	g &^= pageMask
	switch {
	case g < uint64(len(e.low)):
		return (*page)(e.low[g:])
	case g >= memory.HoleEnd && g-memory.HoleEnd < uint64(len(e.high)):
		return (*page)(e.high[g-memory.HoleEnd:])
	}
	return nil
}

// Stop has a run end after the access that a device makes it in, for a context
// that is done.
func (e *Engine) Stop() { e.attention() }

// Hold has the guest stand still, its time too, until it is held no longer. It is
// called with the lock held; in an access of the guest's, that is the last thing
// that happens before.
func (e *Engine) Hold(on bool) {
	e.held = on
	e.attention()
}

// Held is whether the guest stands still.
func (e *Engine) Held() bool { return e.held }

// attention has the engine look at what has changed: from outside of a run, or
// in the midst of it from the CPU that runs.
func (e *Engine) attention() {
	if e.running != nil {
		e.running.limit = 0
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// fail ends the run with an error of a CPU.
func (e *Engine) fail(c *cpu, err error) {
	s := new(x86.CPU)
	c.state(s)
	e.err = &x86.Stuck{CPU: c.index, Err: err, Registers: s}
	e.attention()
}

// Retired is the number of instructions executed since New.
func (e *Engine) Retired() int64 { return e.retired }

// SetIRQ drives an input of the I/O APIC.
func (e *Engine) SetIRQ(gsi uint32, level bool) error { return e.apics.IO.SetIRQ(gsi, level) }

// SignalMSI delivers a message-signalled interrupt.
func (e *Engine) SignalMSI(address uint64, data uint32) error {
	return e.apics.SignalMSI(address, data)
}

// Run runs the CPUs until ctx is done, which is no error, or until one of them
// can't go on.
func (e *Engine) Run(ctx context.Context) error {
	e.cfg.Lock.Lock()
	defer e.cfg.Lock.Unlock()
	for ctx.Err() == nil && e.err == nil {
		if t := e.debug.trap; t != nil {
			e.debug.trap = nil
			return t
		}
		if e.held {
			e.wait(ctx, nil)
			continue
		}
		c := e.stopped()
		if c == nil {
			e.cfg.Clock.RunDue()
			c = e.next()
		}
		if c != nil {
			e.runTurn(c)
			// Others have a chance between turns.
			e.cfg.Lock.Unlock()
			e.cfg.Lock.Lock()
			continue
		}
		e.idle(ctx)
	}
	return e.err
}

// stopped gives the CPU that a debugger has stopped in the midst of a block,
// which it has to end first; nil if there is none.
func (e *Engine) stopped() *cpu {
	for _, c := range e.cpus {
		if c.stops.inside.block != nil {
			return c
		}
	}
	return nil
}

// next gives the CPU that has something to do: the one whose turn it is, or the
// next one after it, whose turn begins.
func (e *Engine) next() *cpu {
	now := e.cfg.Clock.Now()
	if c := e.cpus[e.turn]; now < e.until && c.ready() {
		return c
	}
	for i := range e.cpus {
		t := (e.turn + 1 + i) % len(e.cpus)
		if e.cpus[t].ready() {
			e.turn = t
			e.until = now + e.draw()
			return e.cpus[t]
		}
	}
	return nil
}

// Reseed has the turns behind the present one be of lengths that the seed decides.
func (e *Engine) Reseed(seed uint64) { e.random = rand.NewPCG(seed, 0) }

// draw gives the length of a turn.
func (e *Engine) draw() int64 {
	if len(e.cpus) == 1 {
		return aloneTurn
	}
	return shortestTurn + int64(e.random.Uint64()%(longestTurn-shortestTurn))
}

// runTurn runs c until its turn ends, an event is due, or something wants to be
// looked at.
func (e *Engine) runTurn(c *cpu) {
	e.running = c
	start := e.cfg.Time.Now()
	c.now = start
	c.limit = min(e.until, e.cfg.Clock.Next())
	if e.debug.Stepping && e.debug.Step == c.index {
		c.step()
	} else {
		c.run()
	}
	c.afterTurn()
	e.running = nil
	e.retired += c.now - start
	e.cfg.Time.Set(c.now)
	if c.initPending {
		c.initPending = false
		c.initReset()
	}
	if c.yield {
		c.yield = false
		e.until = c.now
	}
}

// idle moves on to the next event, or waits for what comes from outside.
func (e *Engine) idle(ctx context.Context) {
	next, now := e.cfg.Clock.Next(), e.cfg.Time.Now()
	if next != clock.Never && !e.cfg.Paced {
		e.cfg.Time.Set(max(next, now))
		return
	}
	var due <-chan time.Time
	if next != clock.Never {
		timer := time.NewTimer(time.Duration(next - now))
		defer timer.Stop()
		due = timer.C
	}
	e.idleFrom, e.idleSince = now, time.Now()
	e.wait(ctx, due)
	e.CatchUp()
	e.idleSince = time.Time{}
}

// wait waits, without the lock, until something is to be looked at, or due.
func (e *Engine) wait(ctx context.Context, due <-chan time.Time) {
	e.cfg.Lock.Unlock()
	defer e.cfg.Lock.Lock()
	select {
	case <-ctx.Done():
	case <-e.wake:
	case <-due:
	}
}

// CatchUp makes the clock of a paced machine that waits show how long it has
// waited: for what comes from outside in the meantime, with the lock held. It
// does not go past the next event.
func (e *Engine) CatchUp() {
	if !e.cfg.Paced || e.idleSince.IsZero() {
		return
	}
	now := e.cfg.Time.Now()
	e.cfg.Time.Set(max(now, min(e.idleFrom+int64(time.Since(e.idleSince)), e.cfg.Clock.Next())))
}

// State takes the whole state of the CPUs and the interrupt controllers. The
// engine must not be running.
func (e *Engine) State() (*x86.State, error) {
	s := &x86.State{CPUs: make([]x86.CPU, len(e.cpus)), IOAPIC: e.apics.IO.State()}
	for i, c := range e.cpus {
		c.state(&s.CPUs[i])
	}
	random, err := e.random.MarshalBinary()
	s.Turn = x86.Turn{CPU: e.turn, Until: e.until, Random: random}
	return s, err
}

// SetState replaces the whole state. The engine must not be running, and the
// clock has its events already.
func (e *Engine) SetState(s *x86.State) error {
	if len(s.CPUs) != len(e.cpus) {
		return fmt.Errorf("soft: a state of %d CPUs does not fit a machine of %d", len(s.CPUs), len(e.cpus))
	}
	e.code.clear() // the RAM may be another's too
	errs := []error{e.apics.IO.SetState(s.IOAPIC)}
	for i, c := range e.cpus {
		errs = append(errs, c.setState(&s.CPUs[i]))
	}
	e.refreshDebug()
	e.err, e.debug.trap = nil, nil
	// A state of another engine has no turns: they begin.
	e.turn, e.until = 0, 0
	e.random = rand.NewPCG(e.cfg.Seed, 0)
	if len(s.Turn.Random) > 0 {
		if s.Turn.CPU < 0 || s.Turn.CPU >= len(e.cpus) {
			return fmt.Errorf("soft: state has a turn of CPU %d", s.Turn.CPU)
		}
		e.turn, e.until = s.Turn.CPU, s.Turn.Until
		errs = append(errs, e.random.UnmarshalBinary(s.Turn.Random))
	}
	return errors.Join(errs...)
}

// TrackRAM forgets what the CPUs may write to without a mark. What is decoded from
// now on of the base's bytes is shared with others that have it.
func (e *Engine) TrackRAM() error {
	for _, c := range e.cpus {
		c.flushTLB(true)
	}
	e.code.clear()
	e.code.shared, _ = e.cfg.RAM.Base().Derived(func() any { return newSharedCode() }).(*sharedCode)
	return nil
}

// Rewind makes the RAM its base's again and replaces the state. Nothing of what the
// CPUs knew stays: a run from here does not depend on the ones before.
func (e *Engine) Rewind(s *x86.State) error {
	if err := e.cfg.RAM.Reset(); err != nil {
		return err
	}
	return e.SetState(s)
}

// readDevice reads size bytes of guest-physical memory that is not RAM: 1, 2, 4
// or 8.
func (c *cpu) readDevice(g uint64, size uint8) uint64 {
	c.sync()
	c.access = [8]byte{}
	b := c.access[:size]
	if c.apicPage(g) {
		c.apic.Read(g&pageMask, b)
	} else {
		c.engine.cfg.MMIO.Read(g, b)
	}
	return binary.LittleEndian.Uint64(c.access[:])
}

// writeDevice writes guest-physical memory that is not RAM; b is cpu.access or a
// part of it.
func (c *cpu) writeDevice(g uint64, b []byte) {
	c.sync()
	if c.apicPage(g) {
		c.apic.Write(g&pageMask, b)
		return
	}
	c.engine.cfg.MMIO.Write(g, b)
}

// sync makes the clock show the time of the instruction that is executed.
func (c *cpu) sync() { c.engine.cfg.Time.Set(c.now + int64(c.i)) }

// apicPage is whether g is in the local APIC's page, as long as it is in xAPIC
// mode.
func (c *cpu) apicPage(g uint64) bool {
	const enabled, x2 = 1 << 11, 1 << 10
	return g>>pageShift == chipset.LocalAPICBase>>pageShift && c.apic.Base()&(enabled|x2) == enabled
}
