//go:build linux && amd64

package kvm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"

	"fifovm/vmm/x86"
)

// tssAddress is where KVM may put the three pages that it needs on Intel's
// processors without unrestricted guest mode: below the firmware's place, in
// the hole where no RAM is.
const tssAddress = 0xfffb_d000

// Engine runs the CPUs of one machine. Its file descriptors are plain integers,
// closed by Close alone: no finalizer can close one in use.
type Engine struct {
	cfg      Config
	fd, vm   int
	pageSize int // of a CPU's kvm_run area, in bytes
	slots    []kvm.UserspaceMemoryRegion
	logs     [][]uint64 // by slot: pages that the guest has written to; nil: not told
	vcpus    []*vcpu
	reserved int // of Go's processors, see reserveProcessors
	stopping atomic.Bool
	irq      interrupts
	bells    sync.Map      // the set of *Doorbell that are open
	wake     chan struct{} // an earlier clock event was scheduled
	debug    debugger
}

// New makes the virtual machine and its CPUs, all as after power-on.
func New(cfg Config) (_ *Engine, err error) {
	e := &Engine{cfg: cfg, fd: -1, vm: -1, wake: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if e.fd, err = openDevice(cfg.Device); err != nil {
		return nil, err
	}
	if err := checkHost(e.fd); err != nil {
		return nil, err
	}
	vm, err := createVM(e.fd)
	if err != nil {
		return nil, fmt.Errorf("kvm: create a virtual machine: %w", err)
	}
	e.vm = int(vm)
	if err := kvm.SetTSSAddr(vm, tssAddress); err != nil {
		return nil, fmt.Errorf("kvm: set the TSS address: %w", err)
	}
	if err := kvm.CreateIRQChip(vm); err != nil {
		return nil, fmt.Errorf("kvm: create the interrupt controllers: %w", err)
	}
	if err := e.irq.init(e); err != nil {
		return nil, err
	}
	for i, s := range cfg.RAM.Slots() {
		e.slots = append(e.slots, kvm.UserspaceMemoryRegion{Slot: uint32(i), GuestPhysAddr: s.Base,
			MemorySize: uint64(len(s.Bytes)), UserspaceAddr: uint64(uintptr(unsafe.Pointer(&s.Bytes[0])))})
		if err := kvm.SetUserMemoryRegion(vm, &e.slots[i]); err != nil {
			return nil, fmt.Errorf("kvm: map %d MiB of RAM at %#x: %w", len(s.Bytes)>>20, s.Base, err)
		}
	}
	size, err := kvm.GetVCPUMMmapSize(uintptr(e.fd))
	if err != nil {
		return nil, fmt.Errorf("kvm: size of a CPU's shared area: %w", err)
	}
	e.pageSize = int(size)
	for i := range cfg.CPUs {
		c, err := newVCPU(e, i)
		if err != nil {
			return nil, err
		}
		e.vcpus = append(e.vcpus, c)
	}
	e.reserved = cfg.CPUs
	reserveProcessors(e.reserved)
	cfg.Clock.OnEarlier = func() {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
	return e, nil
}

// createVM makes the virtual machine. The kernel gives up on it when a signal is
// pending (mm/vma.c, mm_take_all_locks), and Go's runtime sends itself signals;
// it does not send them for ever.
func createVM(fd int) (vm uintptr, err error) {
	const tries = 100
	for range tries {
		if vm, err = kvm.CreateVM(uintptr(fd)); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return vm, err
}

// Close ends the CPUs' threads and gives everything back to the host. The
// engine must not be running; the RAM stays its owner's.
func (e *Engine) Close() error {
	var errs []error
	for _, c := range e.vcpus {
		errs = append(errs, c.close())
	}
	for _, fd := range []*int{&e.vm, &e.fd} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	reserveProcessors(-e.reserved)
	e.vcpus, e.reserved = nil, 0
	return errors.Join(errs...)
}

// running is how many CPUs there are in all of the process's engines.
var running struct {
	sync.Mutex
	cpus int
}

// reserveProcessors adds to that number and gives Go's scheduler one processor
// more than it. Where all are in system calls, as those of CPUs mostly are, the
// runtime's monitor wakes every 20 us to take them away (runtime/proc.go,
// retake), and each exit pays for getting one back: in the one-processor lab
// half as much again as the exit itself. An idle one keeps it asleep.
func reserveProcessors(cpus int) {
	running.Lock()
	defer running.Unlock()
	running.cpus += cpus
	if n := running.cpus + 1; runtime.GOMAXPROCS(0) < n {
		runtime.GOMAXPROCS(n)
	}
}

// TSCkHz is the rate of the guest's time-stamp counter.
func (e *Engine) TSCkHz() uint32 { return e.vcpus[0].tscKHz }

// Run runs every CPU until ctx is done, which is no error, or until one of them
// can't go on. When it returns no CPU runs and the state can be taken.
func (e *Engine) Run(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil // without this the CPUs would do a little before they hear of it
	}
	if t := e.takeQueued(); t != nil {
		return t
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e.stopping.Store(false)
	kicked := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		defer close(kicked)
		e.stopping.Store(true)
		if e.cfg.OnStop != nil {
			e.cfg.OnStop()
		}
		for _, c := range e.vcpus {
			c.kick()
		}
	})
	events := make(chan struct{})
	go func() {
		defer close(events)
		e.runEvents(ctx)
	}()
	cpus := e.vcpus
	var errs []error
	if e.debug.Stepping {
		cpus = cpus[e.debug.Step:][:1]
	} else {
		for _, c := range cpus {
			if c.passing {
				errs = append(errs, c.do(c.passBreakpoint))
			}
		}
		errs = append(errs, e.patch())
		if err := errors.Join(errs...); err != nil {
			cancel()
		}
		errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	}
	results := make(chan error, len(cpus))
	for _, c := range cpus {
		c.commands <- func() {
			err := c.loop()
			cancel()
			results <- err
		}
	}
	for range cpus {
		if err := <-results; err != nil {
			errs = append(errs, err)
		}
	}
	if !release() {
		<-kicked
	}
	<-events
	e.unpatch()
	e.answerAll()
	return e.outcome(errs)
}

// Stop does nothing: a context that is done reaches the CPUs by itself.
func (e *Engine) Stop() {}

// runEvents delivers the clock's events at their time until ctx is done.
func (e *Engine) runEvents(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-e.wake:
		}
		e.cfg.Lock.Lock()
		e.cfg.Clock.RunDue()
		wait := e.cfg.Clock.Next() - e.cfg.Clock.Now()
		e.cfg.Lock.Unlock()
		timer.Reset(time.Duration(max(wait, 0)))
	}
}

// State takes the whole state of the CPUs and the interrupt controllers. The
// engine must not be running.
func (e *Engine) State() (*x86.State, error) {
	s := &x86.State{CPUs: make([]x86.CPU, len(e.vcpus))}
	for i, c := range e.vcpus {
		if err := c.do(func() error { return c.state(&s.CPUs[i]) }); err != nil {
			return nil, err
		}
	}
	if err := e.alignTSC(s); err != nil {
		return nil, err
	}
	if err := e.chips(s); err != nil {
		return nil, err
	}
	return s, nil
}

// SetState replaces the whole state. The engine must not be running.
func (e *Engine) SetState(s *x86.State) error {
	if len(s.CPUs) != len(e.vcpus) {
		return fmt.Errorf("kvm: a state of %d CPUs does not fit a machine of %d", len(s.CPUs), len(e.vcpus))
	}
	host, exact, err := e.hostTSC()
	if err != nil {
		return err
	}
	for i, c := range e.vcpus {
		c.hostTSC, c.exactTSC = host, exact
		if err := c.do(func() error { return c.setState(&s.CPUs[i]) }); err != nil {
			return err
		}
	}
	return e.setChips(s)
}
