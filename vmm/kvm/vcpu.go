//go:build linux && amd64

package kvm

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"

	"fifovm/vmm/x86"
)

// immediateExit is the byte of kvm_run that makes KVM_RUN return at once, seen
// as a part of the first 32-bit word, since there are no atomic bytes.
const immediateExit = 1 << 8

// threadName and the CPU's number is what top and perf call its thread.
const threadName = "kvm-cpu-"

// vcpu is one CPU: a file descriptor, the area it shares with the kernel, and
// the only thread that makes calls on it.
type vcpu struct {
	engine   *Engine
	index    int
	fd       int
	area     []byte       // kvm_run and the data page of port I/O
	run      *kvm.RunData // the start of area
	word     *uint32      // the first word of area
	thread   int          // the thread's ID
	commands chan func()  // what the thread does; closed to end it
	ended    chan struct{}
	tscKHz   uint32
	hostTSC  uint64 // see setTSC
	exactTSC bool
	buf      buffers
	control  uint32 // what setGuestDebug has set
	passing  bool   // the breakpoint at pass was told of: the CPU goes past it
	pass     uint64 // linear
}

func newVCPU(e *Engine, index int) (*vcpu, error) {
	c := &vcpu{engine: e, index: index, fd: -1, commands: make(chan func()), ended: make(chan struct{})}
	started := make(chan struct{})
	go c.serve(started)
	<-started
	if err := c.do(c.create); err != nil {
		_ = c.close() // the first error says it all
		return nil, fmt.Errorf("kvm: CPU %d: %w", index, err)
	}
	return c, nil
}

// serve is the CPU's thread. It is never unlocked from its goroutine, so it
// ends with it.
func (c *vcpu) serve(started chan<- struct{}) {
	runtime.LockOSThread()
	c.thread = unix.Gettid()
	name, _ := unix.BytePtrFromString(fmt.Sprintf("%s%d", threadName, c.index))
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0) // only for who looks
	close(started)
	for f := range c.commands {
		f()
	}
	close(c.ended)
}

// do has the CPU's thread call f.
func (c *vcpu) do(f func() error) error {
	result := make(chan error)
	c.commands <- func() { result <- f() }
	return <-result
}

func (c *vcpu) create() error {
	fd, err := kvm.CreateVCPU(uintptr(c.engine.vm), c.index)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	c.fd = int(fd)
	c.area, err = unix.Mmap(c.fd, 0, c.engine.pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the shared area: %w", err)
	}
	c.run = (*kvm.RunData)(unsafe.Pointer(&c.area[0]))
	c.word = (*uint32)(unsafe.Pointer(&c.area[0]))
	khz, err := kvm.GetTSCKHz(fd)
	if err != nil {
		return fmt.Errorf("rate of the time-stamp counter: %w", err)
	}
	c.tscKHz = uint32(khz)
	if err := c.setCPUID(x86.CPUID(c.index, c.engine.cfg.CPUs, c.tscKHz)); err != nil {
		return err
	}
	return c.setMSRs(x86.BootMSRs())
}

func (c *vcpu) close() error {
	close(c.commands)
	<-c.ended
	var err error
	if c.area != nil {
		err = unix.Munmap(c.area)
	}
	if c.fd >= 0 {
		if e := unix.Close(c.fd); err == nil {
			err = e
		}
	}
	return err
}

// kick makes the CPU leave KVM_RUN, from any thread. The flag covers the time
// before it enters, the signal the time after. SIGURG is the one that Go's
// runtime handles on every thread and that means nothing when it comes unasked
// (runtime/signal_unix.go).
func (c *vcpu) kick() {
	atomic.OrUint32(c.word, immediateExit)
	// The thread lives until close, which can't be concurrent with a run.
	_ = unix.Tgkill(unix.Getpid(), c.thread, unix.SIGURG)
}

// loop runs the CPU until the engine stops, with no access left half done.
func (c *vcpu) loop() error {
	if err := c.beginDebug(); err != nil {
		return err
	}
	err := c.loopUntil(nil)
	if e := c.withoutDebug(); err == nil {
		err = e
	}
	return err
}

// clearKick forgets the kicks up to now.
func (c *vcpu) clearKick() { atomic.AndUint32(c.word, ^uint32(immediateExit)) }

// complete finishes an access whose exit has been answered but which the CPU
// has not taken yet: KVM does so on the next entry, and with the flag set it
// executes nothing more. An access in several parts exits for each of them.
func (c *vcpu) complete() error {
	atomic.OrUint32(c.word, immediateExit)
	defer c.clearKick()
	for {
		switch errno := c.enter(); errno {
		case unix.EINTR, unix.EAGAIN:
			return nil
		case 0:
			if err := c.exit(); err != nil {
				return err
			}
		default:
			return c.errorf("KVM_RUN: %w", errno)
		}
	}
}

// step enters the guest once and answers the exit.
func (c *vcpu) step() error {
	switch errno := c.enter(); errno {
	case 0:
		return c.exit()
	case unix.EINTR, unix.EAGAIN:
		// A kick or a stray signal; EAGAIN is a CPU that waits for its start-up
		// IPI. The exit reason is a stale one: gokvm's Run would hide that.
		return nil
	default:
		return c.errorf("KVM_RUN: %w", errno)
	}
}

func (c *vcpu) enter() unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), ioRun, 0)
	return errno
}

// exit answers the access that made the CPU leave the guest.
func (c *vcpu) exit() error {
	if kvm.ExitType(c.run.ExitReason) == kvm.EXITDEBUG && c.control != 0 {
		return c.debugExit()
	}
	switch kvm.ExitType(c.run.ExitReason) {
	case kvm.EXITIO:
		c.port()
	case kvm.EXITMMIO:
		c.mmio()
	case kvm.EXITINTR, kvm.EXITIRQWINDOWOPEN:
	case kvm.EXITSHUTDOWN:
		return c.tripleFault()
	case kvm.EXITINTERNALERROR:
		return c.internalError()
	case kvm.EXITFAILENTRY:
		return c.errorf("the processor refused to enter the guest: hardware reason %#x", c.run.Data[0])
	case exitSystemEvent:
		return c.errorf("system event %d", uint32(c.run.Data[0]))
	default:
		return c.errorf("exit %d (%v) is not one that this engine knows", c.run.ExitReason, kvm.ExitType(c.run.ExitReason))
	}
	return nil
}

// port answers port I/O. A string instruction comes as several items at once.
func (c *vcpu) port() {
	direction, size, port, count, offset := c.run.IO()
	e := c.engine
	data := c.area[offset : offset+size*count]
	e.cfg.Lock.Lock()
	for ; len(data) > 0; data = data[size:] {
		if direction == kvm.EXITIOIN {
			e.cfg.Ports.Read(port, data[:size])
		} else {
			e.cfg.Ports.Write(port, data[:size])
		}
	}
	e.cfg.Lock.Unlock()
}

// mmio answers an access to guest-physical memory that is not RAM: address,
// eight bytes of data, length and direction, from kvm_run.
func (c *vcpu) mmio() {
	const dataOffset = 32 + 8 // of the union in kvm_run, of data in it
	e := c.engine
	n := uint32(c.run.Data[2])
	data := c.area[dataOffset : dataOffset+n]
	e.cfg.Lock.Lock()
	if write := c.run.Data[2]>>32&0xff != 0; write {
		e.cfg.MMIO.Write(c.run.Data[0], data)
	} else {
		e.cfg.MMIO.Read(c.run.Data[0], data)
	}
	e.cfg.Lock.Unlock()
}
