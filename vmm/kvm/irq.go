//go:build linux && amd64

package kvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"
)

const (
	ioapicInputs = 24
	maxRoutes    = 1024 // KVM takes 4,096; this is 1,000 MSI vectors
)

// interrupts is the way of interrupts into the kernel's controllers: the table
// that routes each global system interrupt (GSI) to an input of the I/O APIC or
// to a message.
type interrupts struct {
	mu      sync.Mutex
	routing *routing
	free    []uint32 // GSIs of messages that are not in use
	chip    *kvm.IRQChip
}

// init routes GSI 0 to 23 to the I/O APIC. KVM's own default would raise the
// 8259s as well, which this machine does not have.
func (q *interrupts) init(e *Engine) error {
	q.routing = new(routing)
	for i := range uint32(ioapicInputs) {
		q.routing.entries[i] = route{gsi: i, kind: routeIRQChip, a: chipIOAPIC, b: i}
	}
	q.routing.count = ioapicInputs
	for gsi := uint32(maxRoutes - 1); gsi >= ioapicInputs; gsi-- {
		q.free = append(q.free, gsi)
	}
	return q.commit(e)
}

func (q *interrupts) commit(e *Engine) error {
	if _, err := ioctl(e.vm, ioSetRouting, unsafe.Pointer(q.routing)); err != nil {
		return fmt.Errorf("kvm: set the interrupt routing: %w", err)
	}
	return nil
}

// SetIRQ drives an input of the I/O APIC. An error is a mistake of the caller:
// an input that there is not.
func (e *Engine) SetIRQ(gsi uint32, level bool) error {
	if gsi >= ioapicInputs {
		return fmt.Errorf("kvm: the I/O APIC has no input %d", gsi)
	}
	l := &irqLevel{gsi: gsi, level: uint32(flag(level))}
	if _, err := ioctl(e.vm, ioIRQLine, unsafe.Pointer(l)); err != nil {
		return fmt.Errorf("kvm: set input %d of the I/O APIC: %w", gsi, err)
	}
	return nil
}

// SignalMSI delivers a message-signalled interrupt, as a write of data to
// address on the bus would. One that is for nobody is no error: it is the guest
// who says whom it is for.
func (e *Engine) SignalMSI(address uint64, data uint32) error {
	m := &msi{addressLow: uint32(address), addressHigh: uint32(address >> 32), data: data}
	_, err := ioctl(e.vm, ioSignalMSI, unsafe.Pointer(m))
	if err != nil && !errors.Is(err, unix.EPERM) { // KVM's -1
		return fmt.Errorf("kvm: signal MSI %#x to %#x: %w", data, address, err)
	}
	return nil
}

// Vector is a message-signalled interrupt that can be raised from any goroutine
// with one write to an eventfd, without the machine's lock.
type Vector struct {
	engine *Engine
	gsi    uint32
	fd     int
}

// NewVector gives a vector without a message: it must be Routed before it is
// raised. Close it before the engine.
func (e *Engine) NewVector() (*Vector, error) {
	q := &e.irq
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.free) == 0 {
		return nil, fmt.Errorf("kvm: more than %d interrupt vectors", maxRoutes-ioapicInputs)
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("kvm: eventfd of an interrupt: %w", err)
	}
	gsi := q.free[len(q.free)-1]
	if _, err := ioctl(e.vm, ioIRQFD, unsafe.Pointer(&irqfd{fd: uint32(fd), gsi: gsi})); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("kvm: irqfd: %w", err)
	}
	q.free = q.free[:len(q.free)-1]
	return &Vector{engine: e, gsi: gsi, fd: fd}, nil
}

// Route sets the message that Raise sends.
func (v *Vector) Route(address uint64, data uint32) error {
	q := &v.engine.irq
	q.mu.Lock()
	defer q.mu.Unlock()
	r := route{gsi: v.gsi, kind: routeMSI, a: uint32(address), b: uint32(address >> 32), c: data}
	for i := range q.routing.entries[:q.routing.count] {
		if p := &q.routing.entries[i]; p.gsi == v.gsi {
			if *p == r {
				return nil
			}
			*p = r
			return q.commit(v.engine)
		}
	}
	q.routing.entries[q.routing.count] = r
	q.routing.count++
	return q.commit(v.engine)
}

// eventfdOne is what a write adds to an eventfd's counter.
var eventfdOne = binary.NativeEndian.AppendUint64(nil, 1)

// Raise sends the message.
func (v *Vector) Raise() error {
	_, err := unix.Write(v.fd, eventfdOne)
	return err
}

// Close gives the vector up.
func (v *Vector) Close() error {
	q := &v.engine.irq
	q.mu.Lock()
	defer q.mu.Unlock()
	_, err := ioctl(v.engine.vm, ioIRQFD, unsafe.Pointer(&irqfd{fd: uint32(v.fd), gsi: v.gsi, flags: irqfdDeassign}))
	for i := range q.routing.entries[:q.routing.count] {
		if q.routing.entries[i].gsi == v.gsi {
			q.routing.count--
			q.routing.entries[i] = q.routing.entries[q.routing.count]
			err = errors.Join(err, q.commit(v.engine))
			break
		}
	}
	q.free = append(q.free, v.gsi)
	return errors.Join(err, unix.Close(v.fd))
}

// Doorbell is an MMIO address whose writes the kernel turns into a wake-up,
// without the CPU leaving it. The value written is lost, and writes that come
// close together may ring once.
type Doorbell struct {
	engine  *Engine
	address uint64
	width   uint32
	ring    func()
	fd      int      // -1 when closed
	file    *os.File // of fd: Go's poller waits for it
	done    chan struct{}
}

// NewDoorbell has ring called, under the machine's lock, after a guest wrote
// width bytes to the guest-physical address; at the latest when the run in
// which it wrote ends. Close it before the engine, and without holding the
// machine's lock.
func (e *Engine) NewDoorbell(address uint64, width uint32, ring func()) (*Doorbell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("kvm: eventfd of a doorbell: %w", err)
	}
	d := &Doorbell{engine: e, address: address, width: width, ring: ring, fd: fd, done: make(chan struct{})}
	d.file = os.NewFile(uintptr(fd), "doorbell")
	conn, err := d.file.SyscallConn()
	if err == nil {
		err = d.assign(0)
	}
	if err != nil {
		_ = d.file.Close()
		return nil, fmt.Errorf("kvm: ioeventfd of %d bytes at %#x: %w", width, address, err)
	}
	e.bells.Store(d, nil)
	go func() {
		defer close(d.done)
		// The poller tells of each write, so that having read once is no
		// reason to look again before it does.
		_ = conn.Read(func(uintptr) bool { d.answer(); return false })
	}()
	return d, nil
}

// answer rings if there was a write that has not rung yet. The machine's lock
// covers the reading of the eventfd as well: whoever holds the lock finds a
// write either in the eventfd or rung.
func (d *Doorbell) answer() {
	d.engine.cfg.Lock.Lock()
	defer d.engine.cfg.Lock.Unlock()
	var count [8]byte
	if _, err := unix.Read(d.fd, count[:]); err != nil {
		return // nothing to read
	}
	d.ring()
}

// answerAll rings what the guest has written to before it stopped, so that no
// write is missing in a state that is taken now.
func (e *Engine) answerAll() {
	e.bells.Range(func(d, _ any) bool {
		d.(*Doorbell).answer()
		return true
	})
}

func (d *Doorbell) assign(flags uint32) error {
	_, err := ioctl(d.engine.vm, ioIOEventFD, unsafe.Pointer(&ioeventfd{addr: d.address, length: d.width, fd: int32(d.fd), flags: flags}))
	return err
}

// Close gives the address back to the bus, after the last write has rung.
func (d *Doorbell) Close() error {
	err := d.assign(ioeventfdDeassign)
	d.engine.bells.Delete(d)
	d.answer()
	d.engine.cfg.Lock.Lock()
	d.fd = -1 // a run that ends now must not read from a number that is free
	d.engine.cfg.Lock.Unlock()
	err = errors.Join(err, d.file.Close())
	<-d.done
	return err
}
