package vmm

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"fifovm/vmm/chipset"
	"fifovm/vmm/soft"
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
	// waiting is input whose time has come and that the UART had no room for.
	waiting []input

	// writer serializes Write's callers; room tells the one that waits, under
	// the machine's lock, that the UART may take more.
	writer sync.Mutex
	room   *sync.Cond
	closed bool

	converses bool // see Machine.Converse
	resets    atomic.Uint64
}

// serialEnd is the host's end of the cable, until the machine is Reset.
type serialEnd struct {
	port   *serialPort
	resets uint64
}

// Write sends p to the guest.
func (e serialEnd) Write(p []byte) (n int, err error) {
	err = e.port.send(e.resets, func() bool {
		n += e.port.take(p[n:])
		return n == len(p)
	})
	return n, err
}

// Break sends the guest a break, in the place of Write's bytes.
func (e serialEnd) Break() error { return e.port.send(e.resets, e.port.takeBreak) }

func newSerialPort(m *Machine, index int, name string, irq func(bool), w io.Writer) *serialPort {
	s := &serialPort{machine: m, index: index, out: newOutput(w), room: sync.NewCond(&m.mu)}
	s.uart = chipset.NewUART(m.clock, name, irq, func(b byte) {
		if s.out.put(b) {
			m.engine.Stop()
		}
		if b == '\n' && s.converses {
			m.hold(true)
		}
	})
	s.uart.OnRoom = s.feed
	return s
}

// Converse makes a conversation of what passes on serial port i of a guest whose
// time is its own: after each line that it sends, the guest stands still until
// Listen is called. What is written meanwhile arrives just behind the line, however
// long the host has thought about it, so that a run with a host that answers is as
// repeatable as one without. On other engines it changes nothing.
func (m *Machine) Converse(i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serial[i].converses = m.virtual() && !m.cfg.Paced
}

// EndConverse ends what Converse began, for a machine that has its state from one
// whose host conversed.
func (m *Machine) EndConverse(i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serial[i].converses = false
	if m.held() {
		m.hold(false)
	}
}

// Listen has a guest go on that stands still for Converse.
func (m *Machine) Listen() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held() {
		m.hold(false)
	}
}

func (m *Machine) hold(on bool) {
	if e, ok := m.engine.(*soft.Engine); ok {
		e.Hold(on)
	}
}

func (m *Machine) held() bool {
	e, ok := m.engine.(*soft.Engine)
	return ok && e.Held()
}

// send calls try until it has sent all, whenever the UART may take more.
func (s *serialPort) send(resets uint64, try func() (done bool)) error {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.machine.mu.Lock()
	defer s.machine.mu.Unlock()
	for !s.closed && s.resets.Load() == resets {
		if try() {
			return nil
		}
		s.room.Wait()
	}
	return io.ErrClosedPipe
}

// take sends the guest as much of p as there is room for.
func (s *serialPort) take(p []byte) (n int) {
	m := s.machine
	when := m.clock.Now()
	if n = min(len(p), s.liveRoom()); n == 0 {
		return 0
	}
	if m.virtual() {
		when = m.arrival()
		for _, b := range p[:n] {
			m.clock.Schedule(when, inputOwner, uint32(s.index)|inputLive, uint64(b))
		}
	} else {
		s.uart.Input(p[:n])
	}
	m.tell(Input{When: when, Port: s.index, Data: p[:n]})
	return n
}

func (s *serialPort) takeBreak() bool {
	m := s.machine
	when := m.clock.Now()
	if s.liveRoom() == 0 {
		return false
	}
	if m.virtual() {
		when = m.arrival()
		m.clock.Schedule(when, inputOwner, uint32(s.index)|inputLive, uint64(inputBreak))
	} else {
		s.uart.Break()
	}
	m.tell(Input{When: when, Port: s.index, Break: true})
	return true
}

// liveRoom is how much there is room for: nothing while something is on its way,
// which may be from before a move. A guest that is held makes no room before the
// host has said all that it has to say.
func (s *serialPort) liveRoom() int {
	if s.machine.held() {
		return math.MaxInt
	}
	_, ok := s.machine.clock.Pending(inputOwner, uint32(s.index)|inputLive)
	if ok || len(s.waiting) > 0 {
		return 0
	}
	return s.uart.Room()
}

func (m *Machine) tell(in Input) {
	if f := m.cfg.OnInput; f != nil {
		in.Data = slices.Clone(in.Data)
		f(in)
	}
}

// virtual is whether the machine's time is the guest's own, so that a run can
// be repeated.
func (m *Machine) virtual() bool { return m.cfg.Engine == EngineSoft }

// arrival is when that arrives which is sent now: at a time that has not begun
// and at which nothing else happens. So it comes between the same two
// instructions, and the same two events, where it is Config.Input of another
// run; of the present moment, a part may be over.
func (m *Machine) arrival() int64 {
	if e, ok := m.engine.(*soft.Engine); ok {
		e.CatchUp()
	}
	return m.clock.Free(m.clock.Now() + 1)
}

// reset ends what the host was about to send: the guest that it was for is gone.
// The machine is locked.
func (s *serialPort) reset() {
	s.resets.Add(1)
	s.room.Broadcast()
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
	When  int64 // ns on the machine's clock
	Port  int   // 0: ttyS0, 1: ttyS1
	Data  []byte
	Break bool // a break, before the data
}

// inputOwner is whose events the bytes of Config.Input are, and on an engine
// with virtual time those of SerialPort: one each, with the port as its kind and
// the input as its payload.
const inputOwner = "serial input"

// inputLive is set in the kind of SerialPort's.
const inputLive = 1 << 8

// input is a byte, or a break in its place.
type input uint16

const inputBreak input = 1 << 8

func (m *Machine) scheduleInput() error {
	m.clock.Register(inputOwner, serialInput{m})
	// Where the machine has taken its time, all that is late comes now, in order.
	inputs := slices.Clone(m.cfg.Input)
	slices.SortStableFunc(inputs, func(a, b Input) int { return cmp.Compare(a.When, b.When) })
	for _, in := range inputs {
		if in.Port < 0 || in.Port >= len(m.serial) {
			return fmt.Errorf("vmm: input for serial port %d: there are %d", in.Port, len(m.serial))
		}
		if in.Break {
			m.clock.Schedule(in.When, inputOwner, uint32(in.Port), uint64(inputBreak))
		}
		for _, b := range in.Data {
			m.clock.Schedule(in.When, inputOwner, uint32(in.Port), uint64(b))
		}
	}
	return nil
}

// serialInput has the input come in that inputOwner's events are.
type serialInput struct{ m *Machine }

func (s serialInput) HandleEvent(kind uint32, payload uint64) {
	port := s.m.serial[kind&^inputLive]
	port.waiting = append(port.waiting, input(payload))
	port.feed()
}

// feed has the UART take what waits, as far as there is room. If that is all, the
// next in line may be a writer.
func (s *serialPort) feed() {
	n := 0
	for n < len(s.waiting) && s.receive(s.waiting[n]) {
		n++
	}
	s.waiting = slices.Delete(s.waiting, 0, n)
	if len(s.waiting) == 0 {
		s.room.Signal()
	}
}

func (s *serialPort) receive(in input) bool {
	if in == inputBreak {
		return s.uart.Break()
	}
	return s.uart.Input([]byte{byte(in)}) == 1
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

// put takes a byte from the guest. over says that there is more than the guest
// may send: it is to stop.
func (o *output) put(b byte) (over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.buf) >= outputLimit && o.waits {
		o.changed.Wait()
	}
	over = len(o.buf) >= outputLimit
	o.buf = append(o.buf, b)
	o.sent++
	if len(o.buf) == 1 {
		o.changed.Broadcast()
	}
	return over
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
		if w := o.w; o.err == nil {
			o.mu.Unlock()
			_, err := w.Write(b)
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

// replace has another writer take what comes from now on. The machine is not
// running. The error is that of the one before, which has all that was for it.
func (o *output) replace(w io.Writer) (err error) {
	o.flush()
	if w == nil {
		w = io.Discard
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	err, o.w, o.err = o.err, w, nil
	return err
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
