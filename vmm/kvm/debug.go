//go:build linux && amd64

package kvm

import (
	"errors"
	"fmt"
	"slices"
	"time"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"

	"fifovm/vmm/x86"
)

// A processor has four debug registers, and KVM lends them to a debugger: for
// watchpoints, and for as many breakpoints as there is room for. The other
// breakpoints are INT3 instructions, which are in memory only while CPUs run.

// debugger is what an engine knows of its debugger's wishes.
type debugger struct {
	x86.Debug
	points   []point // at most len(x86.CPU.DR)
	dr7      uint64
	patches  []*patch
	queued   []*x86.Trap // of CPUs that met something while another's stop was told
	blockIRQ bool        // KVM can hold interrupts off in a single step
}

// point is what a debug register is for.
type point struct {
	address, size uint64
	watch         *x86.Watchpoint // nil: a breakpoint
}

// patch is a breakpoint by INT3.
type patch struct {
	linear, physical uint64
	was              byte
	in               bool // INT3 is in memory
}

const int3 = 0xcc // SDM volume 2, INT n

// passTime bounds how long a CPU alone goes past its breakpoint: an instruction
// may wait for another CPU.
const passTime = 100 * time.Millisecond

// CPU takes the state of one CPU. The engine must not be running.
func (e *Engine) CPU(i int, s *x86.CPU) error {
	if i < 0 || i >= len(e.vcpus) {
		return fmt.Errorf("kvm: there is no CPU %d", i)
	}
	c := e.vcpus[i]
	return c.do(func() error { return c.state(s) })
}

// SetCPU replaces a CPU's registers, but for those of its local APIC and the
// MSRs. The engine must not be running.
func (e *Engine) SetCPU(i int, s *x86.CPU) error {
	if i < 0 || i >= len(e.vcpus) {
		return fmt.Errorf("kvm: there is no CPU %d", i)
	}
	c := e.vcpus[i]
	c.passing = false
	return c.do(func() error {
		// The registers clear what is on its way into the guest.
		var now x86.CPU
		return c.sequence("set", []call{
			{"events", func() error { return c.events(&now) }},
			{"registers", func() error { return c.setGeneral(s) }},
			{"FPU", func() error { return c.setFPU(s) }},
			{"debug registers", func() error { return c.setDebug(s) }},
			{"events", func() error { return c.setEvents(&now) }},
		})
	})
}

// SetDebug has the next run stop where d says; nil: nowhere. The engine must not
// be running.
func (e *Engine) SetDebug(d *x86.Debug) error {
	if d == nil {
		d = new(x86.Debug)
	}
	next := debugger{Debug: x86.Debug{Breakpoints: slices.Clone(d.Breakpoints), Watchpoints: slices.Clone(d.Watchpoints),
		Stepping: d.Stepping, Step: d.Step}}
	if d.Stepping && (d.Step < 0 || d.Step >= len(e.vcpus)) {
		return fmt.Errorf("kvm: there is no CPU %d to step", d.Step)
	}
	var able Stops
	if next.on() {
		var err error
		if able, err = CanStop(e.cfg.Device); err != nil {
			return err
		}
	}
	if next.Stepping && !able.Steps {
		return fmt.Errorf("kvm: %w single steps: use --engine soft", errCantStop)
	}
	if err := next.place(able); err != nil {
		return err
	}
	flags, err := kvm.CheckExtension(uintptr(e.fd), kvm.CapSetGuestDebug2)
	next.blockIRQ = err == nil && flags&debugBlockIRQ != 0
	for _, t := range e.debug.queued {
		if slices.Contains(next.Watchpoints, t.Watch) {
			next.queued = append(next.queued, t)
		}
	}
	e.debug = next
	return nil
}

func (d *debugger) on() bool { return len(d.Breakpoints)+len(d.Watchpoints) > 0 || d.Stepping }

// errCantStop is about hosts whose KVM takes the call and then does not stop.
var errCantStop = errors.New("this host's KVM has no")

// place finds a debug register or an INT3 for each wish.
func (d *debugger) place(able Stops) error {
	const room = len(x86.CPU{}.DR)
	if len(d.Watchpoints) > 0 && !able.Watchpoints {
		return fmt.Errorf("kvm: %w watchpoints: use --engine soft", errCantStop)
	}
	for i := range d.Watchpoints {
		w := &d.Watchpoints[i]
		// A register watches 1, 2, 4 or 8 bytes at a multiple of that.
		for a, end := w.Address, w.Address+w.Size; a < end; {
			size := uint64(8)
			for a%size != 0 || size > end-a {
				size /= 2
			}
			if d.points = append(d.points, point{a, size, w}); len(d.points) > room {
				return fmt.Errorf("kvm: a processor watches at most %d pieces of memory of 8 bytes: use --engine soft", room)
			}
			a += size
		}
	}
	for _, a := range d.Breakpoints {
		switch {
		case able.Breakpoints && len(d.points) < room:
			d.points = append(d.points, point{address: a, size: 1})
		case able.INT3:
			d.patches = append(d.patches, &patch{linear: a})
		case able.Breakpoints:
			return fmt.Errorf("kvm: this host's KVM has room for %d breakpoints and watchpoints: clear some, or use --engine soft", room)
		default:
			return fmt.Errorf("kvm: %w breakpoints: use --engine soft", errCantStop)
		}
	}
	d.dr7 = dr7Ones
	for i, p := range d.points {
		kind := uint64(drExecute)
		if p.watch != nil {
			kind = drAccess
			if p.watch.Kind == x86.WatchWrite {
				kind = drWrite
			}
		}
		length := map[uint64]uint64{1: 0, 2: 1, 8: 2, 4: 3}[p.size]
		d.dr7 |= 2<<(2*i) | kind<<(16+4*i) | length<<(18+4*i)
	}
	return nil
}

// Fields of DR7 and DR6 (SDM volume 3, 17.2).
const (
	dr7Ones   = 0x600 // reserved, and GE: exact breakpoints on old processors
	drExecute = 0
	drWrite   = 1
	drAccess  = 3
	dr6BS     = 1 << 14 // a single step
)

// guestDebug is struct kvm_guest_debug.
type guestDebug struct {
	control, _ uint32
	registers  [8]uint64
}

// Bits of guestDebug.control: KVM_GUESTDBG_*.
const (
	debugEnable   = 1 << 0
	debugStep     = 1 << 1
	debugSoftware = 1 << 16
	debugHardware = 1 << 17
	debugInjectDB = 1 << 18
	debugInjectBP = 1 << 19
	debugBlockIRQ = 1 << 20
)

var ioSetGuestDebug = kvm.IIOW(0x9b, unsafe.Sizeof(guestDebug{}))

// setGuestDebug tells KVM what the CPU is to exit for. It is called on the CPU's
// thread.
func (c *vcpu) setGuestDebug(control uint32) error {
	c.buf.guestDebug = guestDebug{control: control}
	if control&debugHardware != 0 {
		for i, p := range c.engine.debug.points {
			c.buf.guestDebug.registers[i] = p.address
		}
		c.buf.guestDebug.registers[7] = c.engine.debug.dr7
	}
	c.control = control &^ (debugInjectDB | debugInjectBP)
	if _, err := ioctl(c.fd, ioSetGuestDebug, unsafe.Pointer(&c.buf.guestDebug)); err != nil {
		return c.errorf("KVM_SET_GUEST_DEBUG: %w", err)
	}
	return nil
}

// withoutDebug takes back what setGuestDebug has set.
func (c *vcpu) withoutDebug() error {
	if c.control == 0 {
		return nil
	}
	return c.setGuestDebug(0)
}

// beginDebug has the CPU of a run exit for what the debugger wants.
func (c *vcpu) beginDebug() error {
	d := &c.engine.debug
	if d.Stepping {
		c.passing = false
		return c.beginStep()
	}
	control := uint32(0)
	if len(d.points) > 0 {
		control |= debugEnable | debugHardware
	}
	if len(d.patches) > 0 {
		control |= debugEnable | debugSoftware
	}
	if control == 0 {
		return nil
	}
	return c.setGuestDebug(control)
}

// beginStep has the CPU exit behind the next instruction. Time has passed while
// the guest stood still, so there is mostly an interrupt waiting: it waits on,
// unless it is what the CPU waits for.
func (c *vcpu) beginStep() error {
	control := uint32(debugEnable | debugStep)
	var s x86.CPU
	if err := c.activity(&s); err != nil {
		return err
	}
	if c.engine.debug.blockIRQ && s.Activity == x86.Running {
		control |= debugBlockIRQ
	}
	return c.setGuestDebug(control)
}

// passBreakpoint has a CPU whose breakpoint was told of go past it, alone and
// before INT3s are in memory. It is called on the CPU's thread.
func (c *vcpu) passBreakpoint() error {
	s, err := c.registers()
	if err != nil {
		return err
	}
	c.passing = false
	if s.Seg[x86.CS].Base+s.RIP != c.pass {
		return nil // somewhere else by now
	}
	if err := c.beginStep(); err != nil {
		return err
	}
	late := make(chan struct{})
	timer := time.AfterFunc(passTime, func() {
		close(late)
		c.kick()
	})
	err = c.loopUntil(late)
	if !timer.Stop() {
		<-late
		c.clearKick()
	}
	var t *x86.Trap
	if errors.As(err, &t) {
		err = nil
	}
	return errors.Join(err, c.withoutDebug())
}

// loopUntil is loop, and ends when done is closed too.
func (c *vcpu) loopUntil(done <-chan struct{}) error {
	c.clearKick()
	for {
		select {
		case <-done:
			return c.complete()
		default:
		}
		if c.engine.stopping.Load() {
			return c.complete()
		}
		if err := c.step(); err != nil {
			return err
		}
	}
}

// patch puts INT3s into memory, as far as that is mapped.
func (e *Engine) patch() error {
	for _, p := range e.debug.patches {
		for _, c := range e.vcpus {
			ok := false
			if err := c.do(func() error { p.physical, ok = c.translate(p.linear); return nil }); err != nil {
				return err
			}
			if !ok {
				continue
			}
			if b, err := e.cfg.RAM.Slice(p.physical, 1); err == nil {
				p.was, p.in = b[0], true
				b[0] = int3
				break
			}
		}
	}
	return nil
}

// unpatch takes them out again.
func (e *Engine) unpatch() {
	for _, p := range slices.Backward(e.debug.patches) {
		if b, err := e.cfg.RAM.Slice(p.physical, 1); p.in && err == nil {
			if b[0] == int3 { // else the guest has written there
				b[0] = p.was
			}
		}
		p.in = false
	}
}

// debugExit answers an exit for the debugger, with a trap, or gives the guest what
// is its own.
func (c *vcpu) debugExit() error {
	// struct kvm_debug_exit_arch
	exception, pc, dr6 := uint32(c.run.Data[0]), c.run.Data[1], c.run.Data[2]
	d := &c.engine.debug
	if exception == x86.BP {
		if slices.ContainsFunc(d.patches, func(p *patch) bool { return p.in && p.linear == pc }) {
			return c.breakpoint(pc)
		}
		return c.setGuestDebug(c.control | debugInjectBP) // the guest's own
	}
	if c.control&debugHardware != 0 {
		for i, p := range d.points {
			switch {
			case dr6>>i&1 == 0:
			case p.watch != nil:
				return &x86.Trap{CPU: c.index, Kind: x86.TrapWatchpoint, Address: p.watch.Address, Watch: *p.watch}
			case p.address == pc:
				return c.breakpoint(pc)
			}
		}
	}
	if c.control&debugStep != 0 {
		return &x86.Trap{CPU: c.index, Kind: x86.TrapStep, Address: pc}
	}
	// The guest's own single step.
	if err := kvm.GetDebugRegs(uintptr(c.fd), &c.buf.debug); err != nil {
		return c.errorf("debug registers: %w", err)
	}
	c.buf.debug.DR6 |= dr6 & dr6BS
	if err := kvm.SetDebugRegs(uintptr(c.fd), &c.buf.debug); err != nil {
		return c.errorf("debug registers: %w", err)
	}
	return c.setGuestDebug(c.control | debugInjectDB)
}

func (c *vcpu) breakpoint(pc uint64) error {
	c.passing, c.pass = true, pc
	return &x86.Trap{CPU: c.index, Kind: x86.TrapBreakpoint, Address: pc}
}

// outcome picks the error of a run from those of its CPUs. Of several that met
// something for the debugger, one is told of: the others' breakpoints are met
// again, their watchpoints are told of in the next run.
func (e *Engine) outcome(errs []error) error {
	var first *x86.Trap
	for _, err := range errs {
		var t *x86.Trap
		switch {
		case !errors.As(err, &t):
			return err // a CPU that fails makes the others' errors worthless
		case first == nil:
			first = t
		case t.Kind == x86.TrapWatchpoint:
			e.debug.queued = append(e.debug.queued, t)
		default:
			e.vcpus[t.CPU].passing = false
		}
	}
	if first == nil {
		return nil // not a nil *x86.Trap in an error
	}
	return first
}

// takeQueued gives a stop that was not told of yet.
func (e *Engine) takeQueued() error {
	if len(e.debug.queued) == 0 {
		return nil
	}
	t := e.debug.queued[0]
	e.debug.queued = e.debug.queued[1:]
	return t
}
