// Package debug is what a debugger does with a machine: pause and go on, single
// steps, breakpoints and watchpoints, registers, memory by linear address, and
// disassembly. The monitor of the console and the gdb server are made of it.
//
// On engine soft a guest runs under it as it would without: the same breakpoints,
// pauses and steps or none, the same final state, as long as nothing is changed.
// On KVM the host's time goes on while a guest stands still.
//
// The package knows no files and no protocol.
package debug

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"fifovm/vmm/vmm"
	"fifovm/vmm/x86"
)

// Symbolizer names addresses of the guest.
type Symbolizer interface {
	// Symbol is "function+0x12", or empty.
	Symbol(addr uint64) string
}

// Reason is why a guest stands still.
type Reason uint8

// The reasons.
const (
	Paused     Reason = iota // by Pause
	Breakpoint               // the instruction at Address is about to be executed
	Watchpoint               // memory at Address was touched
	Stepped                  // the CPU has executed one instruction
)

func (r Reason) String() string {
	switch r {
	case Paused:
		return "paused"
	case Breakpoint:
		return "breakpoint"
	case Watchpoint:
		return "watchpoint"
	case Stepped:
		return "step"
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// Event is that a guest has come to stand still.
type Event struct {
	Reason  Reason
	CPU     int
	Address uint64         // RIP as a linear address; of a watchpoint the address that is watched
	Watch   x86.Watchpoint // of a watchpoint
}

// What calls of a session fail with that come at the wrong time.
var (
	ErrRunning = errors.New("the guest runs: pause it first")
	ErrEnded   = errors.New("the guest has ended")
)

// Session is a machine under a debugger. Run is its owner's; everything else is
// for any goroutine, and fails with ErrEnded once Run has returned. What needs the machine to stand still stops it for a moment
// where it runs, and the guest does not notice.
type Session struct {
	machine *vmm.Machine
	symbols Symbolizer

	mu   sync.Mutex
	cond *sync.Cond // broadcast at each change of what follows
	// inRun: Machine.Run goes on. cancel ends it.
	inRun  bool
	cancel context.CancelFunc
	ended  bool
	paused bool
	quiet  int // calls that need the machine to stand still
	step   int // the CPU to step; none: -1
	points map[uint64]int
	watch  []watch
	subs   []chan Event
	last   Event // while paused
}

type watch struct {
	x86.Watchpoint
	n int // times that it was set
}

// New makes a session of a machine that is loaded and does not run. symbols may
// be nil.
func New(m *vmm.Machine, symbols Symbolizer) *Session {
	s := &Session{machine: m, symbols: symbols, step: -1, points: map[uint64]int{}}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// Machine is the machine.
func (s *Session) Machine() *vmm.Machine { return s.machine }

// CPUs is how many CPUs there are.
func (s *Session) CPUs() int { return s.machine.CPUs() }

// Run runs the machine to its end, through all pauses, in place of Machine.Run:
// until the guest ends, until it can't go on, or until ctx is done. A session
// that was paused before begins with the pause.
func (s *Session) Run(ctx context.Context) (vmm.Stop, error) {
	wake := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cond.Broadcast()
	})
	defer wake()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.end()
	for {
		for (s.paused || s.quiet > 0) && ctx.Err() == nil {
			s.cond.Wait()
		}
		if ctx.Err() != nil {
			return vmm.Paused, nil
		}
		stop, err := s.stretch(ctx)
		var trap *x86.Trap
		switch {
		case errors.As(err, &trap):
			s.stopped(event(trap))
		case err != nil || stop != vmm.Paused:
			return stop, err
		case s.paused: // or a call that is quiet: not even an event
			s.announce()
		}
	}
}

// stretch runs the machine until it has to stand still.
func (s *Session) stretch(ctx context.Context) (vmm.Stop, error) {
	if err := s.machine.SetDebug(s.wishes()); err != nil {
		return vmm.Paused, err
	}
	ctx, s.cancel = context.WithCancel(ctx)
	defer s.cancel()
	s.inRun = true
	s.mu.Unlock()
	stop, err := s.machine.Run(ctx)
	s.mu.Lock()
	s.inRun = false
	s.cond.Broadcast()
	return stop, err
}

// end is the end of Run. What was set for the machine is taken back.
func (s *Session) end() {
	s.ended = true
	_ = s.machine.SetDebug(nil) // taking back can't fail
	for _, c := range s.subs {
		close(c)
	}
	s.subs = nil
	s.cond.Broadcast()
}

// wishes are for the engine.
func (s *Session) wishes() *x86.Debug {
	d := &x86.Debug{Stepping: s.step >= 0, Step: max(s.step, 0)}
	for a := range s.points {
		d.Breakpoints = append(d.Breakpoints, a)
	}
	slices.Sort(d.Breakpoints)
	for _, w := range s.watch {
		d.Watchpoints = append(d.Watchpoints, w.Watchpoint)
	}
	return d
}

func event(t *x86.Trap) Event {
	e := Event{CPU: t.CPU, Address: t.Address, Watch: t.Watch}
	switch t.Kind {
	case x86.TrapBreakpoint:
		e.Reason = Breakpoint
	case x86.TrapWatchpoint:
		e.Reason = Watchpoint
	case x86.TrapStep:
		e.Reason = Stepped
	}
	return e
}

// stopped makes an event of the engine's a pause.
func (s *Session) stopped(e Event) {
	s.paused, s.step, s.last = true, -1, e
	s.announce()
}

// announce tells all who want to know that the guest stands still, and why.
func (s *Session) announce() {
	for _, c := range s.subs {
		select {
		case <-c: // an older one that nobody has looked at
		default:
		}
		c <- s.last
	}
	s.cond.Broadcast()
}

// Stopped gives a channel of one's own with what the guest stops for from now on;
// of events that come faster than they are received, the latest. It is closed
// when the run has ended, or by Forget.
func (s *Session) Stopped() <-chan Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan Event, 1)
	if s.ended {
		close(c)
		return c
	}
	s.subs = append(s.subs, c)
	return c
}

// Forget closes a channel that Stopped gave.
func (s *Session) Forget(events <-chan Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subs = slices.DeleteFunc(s.subs, func(c chan Event) bool {
		if c == events {
			close(c)
			return true
		}
		return false
	})
}

// Pause has the guest stand still, and waits until it does. Before Run it has the
// run begin with a pause. After the end of the run it does nothing.
func (s *Session) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.paused {
		s.paused, s.step, s.last = true, -1, Event{Reason: Paused}
		if s.inRun {
			s.cancel()
		} else if !s.ended {
			s.announce()
		}
	}
	for s.inRun && s.paused {
		s.cond.Wait()
	}
}

// Continue lets a guest that stands still go on, past the breakpoint that it
// stopped at.
func (s *Session) Continue() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = false
	s.cond.Broadcast()
}

// Paused is whether the guest stands still.
func (s *Session) Paused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paused && !s.inRun
}

// Ended is whether the run has come to its end.
func (s *Session) Ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// Last is why the guest stands still; ok is false where it does not.
func (s *Session) Last() (e Event, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.paused && !s.inRun && !s.ended
}

// StartStep has a CPU of a guest that stands still execute one instruction, or
// take one interrupt; then it stands still again, which Stopped tells. A CPU that
// waits for an interrupt does so, until Pause. On engine soft the other CPUs have
// their turns meanwhile; on KVM they stand still.
func (s *Session) StartStep(cpu int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.startStep(cpu)
}

func (s *Session) startStep(cpu int) error {
	switch {
	case cpu < 0 || cpu >= s.machine.CPUs():
		return fmt.Errorf("there is no CPU %d: there are %d", cpu, s.machine.CPUs())
	case s.ended:
		return ErrEnded
	case !s.paused || s.inRun:
		return ErrRunning
	}
	s.step, s.paused = cpu, false
	s.cond.Broadcast()
	return nil
}

// Step is StartStep, and waits until the guest stands still again.
func (s *Session) Step(cpu int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.startStep(cpu); err != nil {
		return err
	}
	for (!s.paused || s.inRun) && !s.ended {
		s.cond.Wait()
	}
	return nil
}

// still calls f while the machine does not run.
func (s *Session) still(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet++
	if s.inRun {
		s.cancel()
	}
	for s.inRun {
		s.cond.Wait()
	}
	err := ErrEnded // the machine is its owner's again, who may have closed it
	if !s.ended {
		err = f()
	}
	s.quiet--
	s.cond.Broadcast()
	return err
}

// SetBreakpoint has the guest stop before the instruction at a linear address.
// One that was set several times is there until it was cleared as often.
func (s *Session) SetBreakpoint(addr uint64) error {
	return s.still(func() error {
		s.points[addr]++
		return s.check(func() { s.drop(addr) })
	})
}

func (s *Session) drop(addr uint64) {
	if s.points[addr]--; s.points[addr] <= 0 {
		delete(s.points, addr)
	}
}

// check has the engine say whether it can do what is wished for, and takes it
// back where it can't.
func (s *Session) check(undo func()) error {
	err := s.machine.SetDebug(s.wishes())
	if err != nil {
		undo()
	}
	return err
}

// ClearBreakpoint takes a breakpoint back.
func (s *Session) ClearBreakpoint(addr uint64) error {
	return s.still(func() error {
		if s.points[addr] == 0 {
			return fmt.Errorf("there is no breakpoint at %#x", addr)
		}
		s.drop(addr)
		return nil
	})
}

// Breakpoints are the addresses that have one.
func (s *Session) Breakpoints() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wishes().Breakpoints
}

// maxWatch bounds what a watchpoint watches, in bytes.
const maxWatch = 1 << 20

// SetWatchpoint has the guest stop behind an instruction that touches the n bytes
// at a linear address. What devices do to memory does not count, nor what comes
// by another linear address.
func (s *Session) SetWatchpoint(addr, n uint64, kind x86.WatchKind) error {
	if n == 0 || n > maxWatch || addr+n < addr {
		return fmt.Errorf("a watchpoint of %d bytes: want 1 to %d", n, maxWatch)
	}
	if kind < x86.WatchWrite || kind > x86.WatchAccess {
		return fmt.Errorf("there is no %v", kind)
	}
	w := x86.Watchpoint{Address: addr, Size: n, Kind: kind}
	return s.still(func() error {
		i := s.findWatch(w)
		if i < 0 {
			i = len(s.watch)
			s.watch = append(s.watch, watch{Watchpoint: w})
		}
		s.watch[i].n++
		return s.check(func() { s.dropWatch(i) })
	})
}

func (s *Session) findWatch(w x86.Watchpoint) int {
	return slices.IndexFunc(s.watch, func(x watch) bool { return x.Watchpoint == w })
}

func (s *Session) dropWatch(i int) {
	if s.watch[i].n--; s.watch[i].n <= 0 {
		s.watch = slices.Delete(s.watch, i, i+1)
	}
}

// ClearWatchpoint takes a watchpoint back.
func (s *Session) ClearWatchpoint(addr, n uint64, kind x86.WatchKind) error {
	return s.still(func() error {
		i := s.findWatch(x86.Watchpoint{Address: addr, Size: n, Kind: kind})
		if i < 0 {
			return fmt.Errorf("there is no %v watchpoint of %d bytes at %#x", kind, n, addr)
		}
		s.dropWatch(i)
		return nil
	})
}

// Watchpoints are those that are set.
func (s *Session) Watchpoints() []x86.Watchpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wishes().Watchpoints
}

// Registers gives the state of a CPU.
func (s *Session) Registers(cpu int) (c *x86.CPU, err error) {
	err = s.still(func() error {
		c, err = s.registers(cpu)
		return err
	})
	return c, err
}

func (s *Session) registers(cpu int) (*x86.CPU, error) {
	if cpu < 0 || cpu >= s.machine.CPUs() {
		return nil, fmt.Errorf("there is no CPU %d: there are %d", cpu, s.machine.CPUs())
	}
	return s.machine.CPU(cpu)
}

// SetRegisters replaces a CPU's registers, but for those of its local APIC and
// the MSRs.
func (s *Session) SetRegisters(cpu int, c *x86.CPU) error {
	return s.still(func() error { return s.machine.SetCPU(cpu, c) })
}

// Symbol names an address; it is empty where there is no name.
func (s *Session) Symbol(addr uint64) string {
	if s.symbols == nil {
		return ""
	}
	return s.symbols.Symbol(addr)
}

// Standing returns when the guest does not stand still, or has ended.
func (s *Session) Standing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.paused && !s.ended {
		s.cond.Wait()
	}
}
