package vmm

import (
	"fmt"
	"io"
	"slices"
	"sync"

	"fifovm/vmm/chipset"
)

// SerialPort is the host's end of a serial cable.
type SerialPort interface {
	io.Writer
	// Break sends a break, which on a Linux console comes before a SysRq key.
	Break() error
}

// serialPort is a UART with the host's ends of its cable.
type serialPort struct {
	machine *Machine
	index   int // of the port
	uart    *chipset.UART
	out     *output

	// writer serializes Write's callers; room tells the one that waits, under
	// the machine's lock, that the UART may take more.
	writer sync.Mutex
	room   *sync.Cond
	closed bool
}

func newSerialPort(m *Machine, index int, name string, irq func(bool), w io.Writer) *serialPort {
	s := &serialPort{machine: m, index: index, out: newOutput(w), room: sync.NewCond(&m.mu)}
	s.uart = chipset.NewUART(m.clock, name, irq, s.out.put)
	s.uart.OnRoom = s.room.Signal
	return s
}

// Write sends p to the guest.
func (s *serialPort) Write(p []byte) (n int, err error) {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.machine.mu.Lock()
	defer s.machine.mu.Unlock()
	for {
		if s.closed {
			return n, io.ErrClosedPipe
		}
		taken := s.uart.Input(p[n:])
		if f := s.machine.cfg.OnInput; f != nil && taken > 0 {
			f(Input{When: s.machine.clock.Now(), Port: s.index, Data: slices.Clone(p[n : n+taken])})
		}
		n += taken
		if n == len(p) {
			return n, nil
		}
		s.room.Wait()
	}
}

// Break sends the guest a break, in the place of Write's bytes.
func (s *serialPort) Break() error {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.machine.mu.Lock()
	defer s.machine.mu.Unlock()
	for !s.closed {
		if s.uart.Break() {
			return nil
		}
		s.room.Wait()
	}
	return io.ErrClosedPipe
}

func (s *serialPort) close() error {
	s.machine.mu.Lock()
	s.closed = true
	s.room.Broadcast()
	s.machine.mu.Unlock()
	return s.out.close()
}

// Input is what comes in on a serial port at some time.
type Input struct {
	When int64 // ns on the machine's clock
	Port int   // 0: ttyS0, 1: ttyS1
	Data []byte
}

// inputOwner is whose events the bytes of Config.Input are: one each, with the
// port as its kind and the byte as its payload.
const inputOwner = "serial input"

// inputWaits is set in the kind of an event whose byte found no room before.
const inputWaits = 1 << 8

// inputRetry is how long a byte waits, in ns, that the guest's UART has no room
// for.
const inputRetry = 100_000

func (m *Machine) scheduleInput() error {
	m.clock.Register(inputOwner, serialInput{m})
	for _, in := range m.cfg.Input {
		if in.Port < 0 || in.Port >= len(m.serial) {
			return fmt.Errorf("vmm: input for serial port %d: there are %d", in.Port, len(m.serial))
		}
		for _, b := range in.Data {
			m.clock.Schedule(in.When, inputOwner, uint32(in.Port), uint64(b))
		}
	}
	return nil
}

// serialInput has the bytes of Config.Input come in.
type serialInput struct{ m *Machine }

func (s serialInput) HandleEvent(kind uint32, payload uint64) {
	port := kind &^ inputWaits
	waits := port | inputWaits
	when := s.m.clock.Now() + inputRetry
	if kind == port {
		// A byte does not overtake those that wait.
		if last, ok := s.m.clock.Pending(inputOwner, waits); ok {
			s.m.clock.Schedule(last, inputOwner, waits, payload)
			return
		}
	}
	if s.m.serial[port].uart.Input([]byte{byte(payload)}) == 0 {
		s.m.clock.Schedule(when, inputOwner, waits, payload)
	}
}

// outputLimit is how many bytes a guest may send ahead of its writer.
const outputLimit = 64 << 10

// output hands what the guest sends to a writer on a goroutine of its own, so
// that a slow one does not hold up the machine's other devices at every byte.
type output struct {
	w       io.Writer
	mu      sync.Mutex
	changed *sync.Cond // any of what follows
	buf     []byte
	sent    uint64 // bytes from the guest, ever
	taken   uint64 // of them, those that the writer is done with
	waits   bool   // the guest waits while buf is full
	closed  bool
	err     error // of the writer; what follows is dropped
	done    chan struct{}
}

func newOutput(w io.Writer) *output {
	o := &output{w: w, done: make(chan struct{})}
	o.changed = sync.NewCond(&o.mu)
	if w == nil {
		o.w = io.Discard
	}
	go o.drain()
	return o
}

// put takes a byte from the guest.
func (o *output) put(b byte) {
	o.mu.Lock()
	for len(o.buf) >= outputLimit && o.waits {
		o.changed.Wait()
	}
	o.buf = append(o.buf, b)
	o.sent++
	if len(o.buf) == 1 {
		o.changed.Broadcast()
	}
	o.mu.Unlock()
}

// hold sets whether a full buffer makes the guest wait.
func (o *output) hold(wait bool) {
	o.mu.Lock()
	o.waits = wait
	o.changed.Broadcast()
	o.mu.Unlock()
}

func (o *output) drain() {
	defer close(o.done)
	var spare []byte
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for len(o.buf) == 0 {
			if o.closed {
				return
			}
			o.changed.Wait()
		}
		b := o.buf
		o.buf = spare[:0]
		o.changed.Broadcast()
		if o.err == nil {
			o.mu.Unlock()
			_, err := o.w.Write(b)
			o.mu.Lock()
			o.err = err
		}
		o.taken += uint64(len(b))
		o.changed.Broadcast()
		spare = b
	}
}

// flush waits until the writer has all that was sent before the call, whatever
// comes meanwhile.
func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for sent := o.sent; o.taken < sent; {
		o.changed.Wait()
	}
}

// close waits until the writer has everything and gives its error.
func (o *output) close() error {
	o.mu.Lock()
	o.closed = true
	o.changed.Broadcast()
	o.mu.Unlock()
	<-o.done
	return o.err
}
