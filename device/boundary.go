package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
)

// Boundary stands between a model and its machine. It is the Model to the
// machine and the Host to the model; all that passes is a Crossing, which is
// numbered, shown to an Injector, which may break it, and told to a Tracer.
// Without the two it passes everything on as it is, and allocates nothing.
//
// Like the model it is called with the machine locked, arming and clearing
// faults included.
type Boundary struct {
	name  string
	model Model
	host  Host

	injector Injector
	faults   Faults // the injector's for this device; nil without
	tracer   Tracer

	// OnRemove, if set, is called when the device has gone: its configuration
	// space is to answer all ones as well.
	OnRemove func()

	s BoundaryState

	// depth counts the model's calls under way. What would call the model again
	// waits until they are over.
	depth     int
	resetting bool
	resets    uint64 // made since the start, for event to see one
	resetDue  bool
	removeDue bool
}

// Class is a kind of crossing.
type Class uint8

// The classes. An access to a BAR with ports is "mmio" as well.
const (
	ClassMMIORead Class = iota
	ClassMMIOWrite
	ClassDMARead
	ClassDMAWrite
	ClassIRQ     // an interrupt by message, or the pin going up
	ClassINTxOff // the pin going down
	ClassEvent   // what the model has scheduled comes
	ClassReset   // of the function
	ClassDevice  // the device as a whole: see Crossing.Note
	Classes      = iota
)

var classNames = [Classes]string{"mmio.read", "mmio.write", "dma.read", "dma.write", "irq", "intx.off", "event", "reset", "device"}

// String is the class's name in the fault language and in traces.
func (c Class) String() string {
	if int(c) >= len(classNames) {
		return fmt.Sprintf("Class(%d)", uint8(c))
	}
	return classNames[c]
}

// INTx is the vector of the interrupt pin.
const INTx = -1

// Crossing is one thing that passes the boundary.
type Crossing struct {
	Device string
	// Seq is the crossing's number on its device, Number that in its class, Nth
	// (interrupts only) that of its vector. All start at 1, and faults do not
	// change them: what a fault adds has none of them, and what comes late is
	// recorded when the model sends it, and again, without numbers, when it gets
	// out.
	Seq, Number, Nth uint64
	Time             int64 // ns
	Class            Class
	BAR              int    // MMIO
	Addr             uint64 // offset in the BAR, guest-physical address, or the event's kind
	Size             int
	Data             uint64 // the first eight bytes, little endian; the event's payload
	Vector           int    // interrupts
	Err              error  // DMA that failed
	Fault            string // the text of the fault that was applied; "" if none was
	Note             string // of what has no number: what it is
}

// Injector breaks crossings; device/fault.Plan is the one there is.
type Injector interface {
	// Bind gives the faults of one device: nil if there are none. Bound again to
	// the same boundary it gives the same.
	Bind(b *Boundary) Faults
}

// Faults is an injector's part for one device.
type Faults interface {
	// Inject decides what becomes of a crossing, before it takes place: of an MMIO
	// or DMA read, the data is not known yet. It may call the boundary's Spurious,
	// Storm, Stall, ResetItself and RemoveBy. What they do comes before the crossing.
	Inject(c Crossing) Effect
	// Observe is told of an MMIO read that the model has answered.
	Observe(c Crossing)
	// Next is when something is to happen by time; MaxInt64 if nothing is. Then
	// Due is called, at that time or later.
	Next() int64
	Due(now int64)
	// State and SetState are as a model's.
	State() []FaultState
	SetState([]FaultState) error
}

// FaultState is what one fault remembers of one device.
type FaultState struct {
	Text        string      // of the fault
	Seen, Fired uint64      // crossings that it is about, and those that it broke
	Values      []ReadValue // what it has seen reads give
}

// ReadValue is what a read gave.
type ReadValue struct {
	BAR, Size int
	Addr      uint64
	Value     uint64
}

// Tracer is told of each crossing once it has taken place; device/trace.Log is
// the one there is. Crossings that an MMIO read brings about are told of before
// the read.
type Tracer interface {
	Cross(c Crossing)
}

// Action is what becomes of a crossing.
type Action uint8

// The actions, and the fields of Effect that count for them.
const (
	ActPass   Action = iota
	ActDrop          // MMIO and DMA writes, interrupts, events: it does not take place, and nobody is told
	ActDelay         // DMA, interrupts, events: it comes Delay later
	ActRepeat        // interrupts: N more, Delay apart
	ActSwap          // interrupts: this one comes after the next one
	ActFail          // DMA: nothing arrives; ErrInjected
	ActShort         // DMA: N bytes arrive; ErrInjected
	ActXor           // the eight bytes from byte N on, with Value
	ActOnes          // reads: all ones; the device does not see an MMIO read
	ActStuck         // MMIO reads: Clear's bits are 0, Set's 1
	ActStale         // MMIO reads: Value; the device does not see it
)

// Effect is an injector's decision.
type Effect struct {
	Action     Action
	Fault      string // the text of the fault
	Delay      int64  // ns
	N          int
	Value      uint64
	Clear, Set uint64
}

// ErrRemoved is a DMA access of a device that has gone.
var ErrRemoved = errors.New("the device is gone")

// OwnKinds is the first of the kinds of events that are the boundary's: those
// below are the model's.
const OwnKinds = 1 << 31

const (
	kindRelease = OwnKinds + iota // the queue's first entry may go
	kindLate                      // payload: the ID of a LateIRQ
	kindFault                     // the injector's time has come
)

// Limits on what a boundary remembers. A guest could make a device emit without
// end while a fault holds it up, so what is too much goes out early.
const (
	queueEntries = 4096
	queueBytes   = 4 << 20
	lateLimit    = 4096
)

// BoundaryState is the state of a boundary and its model.
type BoundaryState struct {
	Seq     uint64
	Counts  [Classes]uint64
	Vectors []uint64 // interrupts of each vector
	Pin     uint64   // and of the pin
	Kinds   []uint32 // that the model has ever scheduled, sorted

	Removed bool
	Stall   int64 // ns: no event is delivered before; MaxInt64: none ever
	Level   bool  // of the pin, as the model has it
	Driven  bool  // the same as the machine was told, without spurious pulses
	Held    int   // 1 + the vector of the interrupt that waits for the next one
	Queue   []Queued
	Late    []LateIRQ
	LastID  uint64 // of Late

	Faults []FaultState
	Model  any
}

// Queued is something that waits for an earlier crossing that is late.
type Queued struct {
	When    int64 // ns; never earlier than that of the one before
	Class   Class // DMA, ClassIRQ, ClassINTxOff or ClassEvent
	Addr    uint64
	Data    []byte
	Vector  int
	Kind    uint32
	Payload uint64
	Fault   string // why; "" for what only waits behind
}

// LateIRQ is an interrupt that comes later, perhaps more than once.
type LateIRQ struct {
	ID     uint64
	Vector int // or INTx, or pulseEnd
	Left   int
	Every  int64 // ns
	Fault  string
}

// pulseEnd in LateIRQ.Vector: the pin is to get back the level that it should have.
const pulseEnd = -2

// pulse is how long in ns a spurious interrupt of the pin lasts.
const pulse = 1000

// Never is the time of what does not come.
const Never = int64(math.MaxInt64)

// NewBoundary stands around m. The name is the device's in plans and traces.
func NewBoundary(name string, m Model) *Boundary {
	b := &Boundary{name: name, model: m}
	info := m.Info()
	b.s.Vectors = make([]uint64, max(info.MSIX, info.MSI))
	return b
}

// Name is the device's name, Model what is inside.
func (b *Boundary) Name() string { return b.name }

// Model is the model inside.
func (b *Boundary) Model() Model { return b.model }

// Inject arms an injector's faults in place of those that were; nil clears
// them. It may be called at any time from Attach on; what is late already
// stays so.
func (b *Boundary) Inject(i Injector) {
	b.injector, b.faults = i, nil
	if i != nil {
		b.faults = i.Bind(b)
	}
	b.Retime()
}

// Injector is what Inject armed; nil: nothing.
func (b *Boundary) Injector() Injector { return b.injector }

// Retime asks the faults anew when something is to happen by time. They call it
// when that has changed.
func (b *Boundary) Retime() {
	if b.host == nil {
		return
	}
	b.host.Cancel(kindFault)
	if b.faults != nil {
		if when := b.faults.Next(); when != Never {
			b.host.Schedule(when, kindFault, 0)
		}
	}
}

// Trace has t told of each crossing; nil ends it.
func (b *Boundary) Trace(t Tracer) { b.tracer = t }

// Number is how many crossings there have been of a class, and of interrupts,
// where vector is not below INTx, of a vector.
func (b *Boundary) Number(c Class, vector int) uint64 {
	switch {
	case c != ClassIRQ || vector < INTx:
		return b.s.Counts[c]
	case vector == INTx:
		return b.s.Pin
	case vector < len(b.s.Vectors):
		return b.s.Vectors[vector]
	}
	return 0
}

// Seq is how many crossings there have been.
func (b *Boundary) Seq() uint64 { return b.s.Seq }

// Now is the machine's time.
func (b *Boundary) Now() int64 {
	if b.host == nil {
		return 0
	}
	return b.host.Now()
}

// Holding is whether an interrupt waits for the next one to overtake it.
func (b *Boundary) Holding() bool { return b.s.Held != 0 }

// Removed is whether the device has gone.
func (b *Boundary) Removed() bool { return b.s.Removed }

// Info is the model's.
func (b *Boundary) Info() Info { return b.model.Info() }

// Attach gives the model its host: the boundary, with h behind it.
func (b *Boundary) Attach(h Host) {
	b.host = h
	b.model.Attach((*inside)(b))
	b.Retime()
}

// Read is a guest's read of a BAR.
func (b *Boundary) Read(bar int, off uint64, data []byte) {
	if b.s.Removed {
		fill(data, 0xff)
		return
	}
	b.flush()
	c := b.crossing(ClassMMIORead)
	c.BAR, c.Addr, c.Size = bar, off, len(data)
	e := b.decide(&c)
	if b.s.Removed {
		e.Action = ActOnes
	}
	switch e.Action {
	case ActOnes:
		fill(data, 0xff)
	case ActStale:
		for i := range data {
			data[i] = byte(e.Value >> (8 * i))
		}
	default:
		b.depth++
		b.model.Read(bar, off, data)
		b.leave()
		if b.faults != nil {
			c.Data = first8(data)
			b.faults.Observe(c)
		}
		switch e.Action {
		case ActStuck:
			v := first8(data)&^e.Clear | e.Set
			for i := range data {
				data[i] = byte(v >> (8 * i))
			}
		case ActXor:
			corrupt(data, e)
		}
	}
	c.Data = first8(data)
	b.record(c)
}

// Write is a guest's write to a BAR.
func (b *Boundary) Write(bar int, off uint64, data []byte) {
	if b.s.Removed {
		return
	}
	c := b.crossing(ClassMMIOWrite)
	c.BAR, c.Addr, c.Size, c.Data = bar, off, len(data), first8(data)
	e := b.decide(&c)
	if e.Action == ActXor {
		data = slices.Clone(data)
		corrupt(data, e)
		c.Data = first8(data)
	}
	b.record(c)
	if e.Action == ActDrop || b.s.Removed {
		return
	}
	b.depth++
	b.model.Write(bar, off, data)
	b.leave()
}

// Event is an event of the model's or of the boundary's own.
func (b *Boundary) Event(kind uint32, payload uint64) {
	switch {
	case kind == kindRelease:
		b.release()
	case kind == kindLate:
		b.late(payload)
	case kind == kindFault:
		if b.faults != nil {
			b.faults.Due(b.host.Now())
			b.Retime()
		}
	case kind < OwnKinds && !b.s.Removed:
		b.event(kind, payload)
	}
}

func (b *Boundary) event(kind uint32, payload uint64) {
	c := b.crossing(ClassEvent)
	c.Addr, c.Data = uint64(kind), payload
	resets := b.resets
	e := b.decide(&c)
	b.record(c)
	now := b.host.Now()
	switch {
	case b.s.Removed, e.Action == ActDrop, b.s.Stall == Never:
	case b.resets != resets: // a device that has reset itself at this point has forgotten the event
	case e.Action == ActDelay || b.s.Stall > now || len(b.s.Queue) > 0:
		b.enqueue(Queued{When: max(now+e.Delay, b.s.Stall), Class: ClassEvent, Kind: kind, Payload: payload, Fault: e.Fault})
	default:
		b.deliver(kind, payload)
	}
}

func (b *Boundary) deliver(kind uint32, payload uint64) {
	b.depth++
	b.model.Event(kind, payload)
	b.leave()
}

// Reset resets the model and what the boundary holds back of it: its events are
// cancelled, late and queued crossings are lost, a stall is over, the interrupt
// pin is down. The faults and their counts stay. A device that has gone does
// not come back by it.
func (b *Boundary) Reset() {
	if b.s.Removed {
		return
	}
	c := b.crossing(ClassReset)
	b.decide(&c)
	b.record(c)
	if !b.s.Removed {
		b.reset()
	}
}

func (b *Boundary) reset() {
	b.resetDue, b.resetting = false, true
	b.resets++
	b.silence()
	b.depth++
	b.model.Reset()
	b.resetting = false
	b.leave()
}

// SoftReset is for a model that the guest has reset by one of the device's own
// registers. Of the model's host h it takes back what Reset does, where that is
// a boundary: the model's events, what is late, held back or stalled. The model
// does the rest, to its events too, as not every host is one.
func SoftReset(h Host) {
	if i, ok := h.(*inside); ok && !(*Boundary)(i).Quiet() {
		(*Boundary)(i).silence()
	}
}

// silence takes back all that the device would still do.
func (b *Boundary) silence() {
	for _, kind := range b.s.Kinds {
		b.host.Cancel(kind)
	}
	b.host.Cancel(kindRelease)
	b.host.Cancel(kindLate)
	b.s.Kinds, b.s.Queue, b.s.Late = nil, nil, nil
	b.s.Stall, b.s.Held, b.s.Level = 0, 0, false
	b.s.Driven = false
	b.host.SetINTx(false)
	b.Retime()
}

// ResetItself has the device lose all its state, unasked: the model is reset,
// while configuration space stays as it is. Of the model's call under way, what
// it still sends is lost. fault is for the trace, here and below.
func (b *Boundary) ResetItself(fault string) {
	if !b.s.Removed && !b.resetting {
		b.note("resets by itself", fault)
		b.resetDue = true
		b.settle()
	}
}

// Stall keeps events from the model for d ns, or, where d is 0, until it is
// reset. They are delivered after that time; those of a device that waits for
// its reset are lost.
func (b *Boundary) Stall(d int64, fault string) {
	b.note("stalls", fault)
	if d == 0 {
		b.s.Stall = Never
		b.s.Queue = slices.DeleteFunc(b.s.Queue, isEvent)
	} else {
		b.s.Stall = b.host.Now() + d
		// Events that wait already wait longer, and what is behind them.
		if i := slices.IndexFunc(b.s.Queue, isEvent); i >= 0 {
			for j := i; j < len(b.s.Queue); j++ {
				b.s.Queue[j].When = max(b.s.Queue[j].When, b.s.Stall)
			}
		}
	}
	if len(b.s.Queue) == 0 {
		b.s.Queue = nil
	}
	b.rearm()
}

func isEvent(q Queued) bool { return q.Class == ClassEvent }

// Remove makes the device gone: reads give all ones, writes are lost, the model
// gets no event, and nothing of it gets out. OnRemove is told.
func (b *Boundary) Remove() { b.RemoveBy("") }

// RemoveBy is Remove, as a fault does it.
func (b *Boundary) RemoveBy(fault string) {
	if b.s.Removed {
		return
	}
	b.note("is removed", fault)
	b.silence()
	b.s.Removed, b.removeDue = true, true
	b.settle()
}

// Plug brings a device back that was removed, in its state after power-on.
func (b *Boundary) Plug() {
	if b.s.Removed {
		b.s.Removed = false
		b.note("is plugged in", "")
		b.reset()
	}
}

// Spurious sends an interrupt that the model has not raised; by the pin, for a
// microsecond, where vector is INTx or the guest has enabled no messages. It
// reports whether there was a way to send one.
func (b *Boundary) Spurious(vector int, fault string) bool {
	if b.s.Removed || b.resetDue {
		return false
	}
	message := vector != INTx && b.host.Message()
	switch {
	case message && vector < len(b.s.Vectors):
		b.recordExtra(vector, fault, "spurious")
		b.host.Raise(vector)
	case !message && b.model.Info().INTx && len(b.s.Late) < lateLimit:
		b.recordExtra(INTx, fault, "spurious")
		b.host.SetINTx(true)
		b.addLate(pulseEnd, 1, pulse, fault)
	default:
		return false
	}
	return true
}

// Storm sends n interrupts that the model has not raised, one each every ns,
// the first one now. It reports whether there was a way to.
func (b *Boundary) Storm(vector, n int, every int64, fault string) bool {
	if !b.Spurious(vector, fault) {
		return false
	}
	if n > 1 && vector != INTx && b.host.Message() {
		b.addLate(vector, n-1, every, fault)
	}
	return true
}

// leave ends a call of the model.
func (b *Boundary) leave() {
	b.depth--
	b.settle()
}

// settle does what has waited for the model's call to end.
func (b *Boundary) settle() {
	if b.depth > 0 {
		return
	}
	if b.removeDue {
		b.removeDue, b.resetDue = false, false
		if b.OnRemove != nil {
			b.OnRemove()
		}
	}
	if b.resetDue {
		b.reset()
	}
}

// inside is the boundary as the model's Host.
type inside Boundary

func (i *inside) Now() int64    { return i.host.Now() }
func (i *inside) Message() bool { return i.host.Message() }

func (i *inside) Schedule(when int64, kind uint32, payload uint64) {
	b := (*Boundary)(i)
	if kind >= OwnKinds {
		panic(fmt.Sprintf("device: %s schedules an event of kind %#x, which is not below %#x", b.name, kind, uint32(OwnKinds)))
	}
	if b.Quiet() {
		return
	}
	if j, ok := slices.BinarySearch(b.s.Kinds, kind); !ok {
		b.s.Kinds = slices.Insert(b.s.Kinds, j, kind)
	}
	b.host.Schedule(when, kind, payload)
}

func (i *inside) Cancel(kind uint32) int {
	if kind >= OwnKinds {
		return 0
	}
	waiting := len(i.s.Queue)
	if waiting > 0 {
		i.s.Queue = slices.DeleteFunc(i.s.Queue, func(q Queued) bool { return isEvent(q) && q.Kind == kind })
	}
	return i.host.Cancel(kind) + waiting - len(i.s.Queue)
}

func (i *inside) DMARead(addr uint64, p []byte) error {
	b := (*Boundary)(i)
	if err := b.refuse("read", addr, len(p)); err != nil {
		return err
	}
	c := b.crossing(ClassDMARead)
	c.Addr, c.Size = addr, len(p)
	e := b.decide(&c)
	err := b.refuse("read", addr, len(p))
	switch {
	case err != nil:
	case e.Action == ActFail:
		err = injected("read", addr, len(p))
	case e.Action == ActShort:
		if err = b.read(addr, p[:min(e.N, len(p))]); err == nil {
			err = injected("read", addr, len(p))
		}
	default:
		err = b.read(addr, p)
	}
	if err == nil {
		switch e.Action {
		case ActXor:
			corrupt(p, e)
		case ActOnes:
			fill(p, 0xff)
		case ActDelay:
			// The data is here, as the model can't wait; what it does with it waits.
			b.enqueue(Queued{When: b.host.Now() + e.Delay, Class: ClassDMARead, Addr: addr, Fault: e.Fault})
		}
		c.Data = first8(p)
	}
	c.Err = err
	b.record(c)
	return err
}

func (i *inside) DMAWrite(addr uint64, p []byte) error {
	b := (*Boundary)(i)
	if err := b.refuse("write", addr, len(p)); err != nil {
		return err
	}
	c := b.crossing(ClassDMAWrite)
	c.Addr, c.Size, c.Data = addr, len(p), first8(p)
	e := b.decide(&c)
	err := b.refuse("write", addr, len(p))
	switch {
	case err != nil:
	case e.Action == ActFail:
		err = injected("write", addr, len(p))
	case e.Action == ActShort:
		if err = b.write(addr, p[:min(e.N, len(p))], e); err == nil {
			err = injected("write", addr, len(p))
		}
	case e.Action == ActXor:
		p = slices.Clone(p)
		corrupt(p, e)
		c.Data = first8(p)
		err = b.write(addr, p, e)
	case e.Action == ActDrop:
		err = b.probe(addr, len(p))
	default:
		err = b.write(addr, p, e)
	}
	c.Err = err
	b.record(c)
	return err
}

func (i *inside) Raise(vector int) {
	b := (*Boundary)(i)
	if vector < 0 || vector >= len(b.s.Vectors) {
		panic(fmt.Sprintf("device: %s raises vector %d of %d", b.name, vector, len(b.s.Vectors)))
	}
	if b.Quiet() || !b.host.Message() {
		return // nothing would be sent
	}
	c := b.crossing(ClassIRQ)
	b.s.Vectors[vector]++
	c.Vector, c.Nth = vector, b.s.Vectors[vector]
	held := b.s.Held
	e := b.decide(&c)
	b.record(c)
	if b.Quiet() {
		return
	}
	switch e.Action {
	case ActDrop:
	case ActDelay:
		b.addLate(vector, 1, e.Delay, e.Fault)
	case ActSwap:
		b.s.Held = vector + 1
		return
	case ActRepeat:
		b.send(vector)
		b.addLate(vector, e.N, e.Delay, e.Fault)
	default:
		b.send(vector)
	}
	if held != 0 {
		b.s.Held = 0
		b.send(held - 1)
	}
}

func (i *inside) SetINTx(asserted bool) {
	b := (*Boundary)(i)
	if b.Quiet() || asserted == b.s.Level {
		return
	}
	b.s.Level = asserted
	if b.host.Message() {
		b.drive(asserted) // nobody sees it
		return
	}
	if !asserted {
		c := b.crossing(ClassINTxOff)
		c.Vector = INTx
		b.decide(&c)
		b.record(c)
		if !b.Quiet() {
			b.drive(false)
		}
		return
	}
	c := b.crossing(ClassIRQ)
	b.s.Pin++
	c.Vector, c.Nth = INTx, b.s.Pin
	e := b.decide(&c)
	b.record(c)
	switch {
	case b.Quiet(), e.Action == ActDrop:
	case e.Action == ActDelay:
		b.addLate(INTx, 1, e.Delay, e.Fault)
	default:
		b.drive(true)
	}
}

// Quiet is whether nothing more of the model's gets out: the device has gone, or
// is about to be reset.
func (b *Boundary) Quiet() bool { return b.s.Removed || b.resetDue }

// refuse is the error of a DMA access that the device can't make any more.
func (b *Boundary) refuse(op string, addr uint64, size int) error {
	switch {
	case b.s.Removed:
		return &Error{Op: op, Addr: addr, Size: size, Err: ErrRemoved}
	case b.resetDue:
		return injected(op, addr, size)
	}
	return nil
}

func injected(op string, addr uint64, size int) error {
	return &Error{Op: op, Addr: addr, Size: size, Err: ErrInjected}
}

// crossing numbers a new one.
func (b *Boundary) crossing(class Class) Crossing {
	b.s.Seq++
	b.s.Counts[class]++
	return Crossing{Device: b.name, Seq: b.s.Seq, Number: b.s.Counts[class], Time: b.host.Now(), Class: class}
}

func (b *Boundary) decide(c *Crossing) (e Effect) {
	if b.faults != nil {
		e = b.faults.Inject(*c)
		c.Fault = e.Fault
	}
	return e
}

func (b *Boundary) record(c Crossing) {
	if b.tracer != nil {
		b.tracer.Cross(c)
	}
}

// note records something that happens to the device as a whole.
func (b *Boundary) note(what, fault string) {
	b.record(Crossing{Device: b.name, Time: b.Now(), Class: ClassDevice, Note: what, Fault: fault})
}

// recordExtra records an interrupt that the model has not sent now.
func (b *Boundary) recordExtra(vector int, fault, note string) {
	b.record(Crossing{Device: b.name, Time: b.Now(), Class: ClassIRQ, Vector: vector, Fault: fault, Note: note})
}

// read reads memory as it will be when what is queued has been written.
func (b *Boundary) read(addr uint64, p []byte) error {
	if err := b.host.DMARead(addr, p); err != nil {
		return err
	}
	for i := range b.s.Queue {
		q := &b.s.Queue[i]
		if q.Class != ClassDMAWrite {
			continue
		}
		if d := q.Addr - addr; d < uint64(len(p)) {
			copy(p[d:], q.Data)
		} else if d := addr - q.Addr; d < uint64(len(q.Data)) {
			copy(p, q.Data[d:])
		}
	}
	return nil
}

// write writes memory, or queues the write where it, or one before it, is late.
func (b *Boundary) write(addr uint64, p []byte, e Effect) error {
	if e.Action != ActDelay && len(b.s.Queue) == 0 {
		return b.host.DMAWrite(addr, p)
	}
	if err := b.probe(addr, len(p)); err != nil {
		return err
	}
	q := Queued{Class: ClassDMAWrite, Addr: addr, Data: slices.Clone(p)}
	if e.Action == ActDelay {
		q.When, q.Fault = b.host.Now()+e.Delay, e.Fault
	}
	b.enqueue(q)
	return nil
}

// probe tells whether a write would succeed.
func (b *Boundary) probe(addr uint64, n int) error {
	err := b.host.DMARead(addr, make([]byte, n))
	var dma *Error
	if errors.As(err, &dma) {
		return &Error{Op: "write", Addr: dma.Addr, Size: dma.Size, Err: dma.Err}
	}
	return err
}

func (b *Boundary) send(vector int) {
	if len(b.s.Queue) > 0 {
		b.enqueue(Queued{Class: ClassIRQ, Vector: vector})
		return
	}
	b.host.Raise(vector)
}

func (b *Boundary) drive(level bool) {
	if len(b.s.Queue) > 0 {
		q := Queued{Class: ClassIRQ, Vector: INTx}
		if !level {
			q.Class = ClassINTxOff
		}
		b.enqueue(q)
		return
	}
	b.s.Driven = level
	b.host.SetINTx(level)
}

// enqueue has q wait behind what waits already. If that is too much, what has
// been posted goes out; events, which only the model can make, stay.
func (b *Boundary) enqueue(q Queued) {
	size := len(q.Data)
	for i := range b.s.Queue {
		size += len(b.s.Queue[i].Data)
	}
	if len(b.s.Queue) >= queueEntries || size > queueBytes {
		b.flush()
		if q.Class != ClassEvent && (len(b.s.Queue) >= queueEntries || len(q.Data) > queueBytes) {
			b.emit(q)
			return
		}
	}
	if n := len(b.s.Queue); n > 0 {
		q.When = max(q.When, b.s.Queue[n-1].When)
	}
	b.s.Queue = append(b.s.Queue, q)
	if len(b.s.Queue) == 1 {
		b.rearm()
	}
}

// release lets go what has waited long enough. What the model emits when it gets
// an event is behind what is queued already.
func (b *Boundary) release() {
	for len(b.s.Queue) > 0 && b.s.Queue[0].When <= b.host.Now() {
		q := b.s.Queue[0]
		if b.s.Queue = b.s.Queue[1:]; len(b.s.Queue) == 0 {
			b.s.Queue = nil
		}
		if isEvent(q) {
			b.deliver(q.Kind, q.Payload)
		} else {
			b.emit(q)
		}
	}
	b.rearm()
}

func (b *Boundary) rearm() {
	b.host.Cancel(kindRelease)
	if len(b.s.Queue) > 0 {
		b.host.Schedule(b.s.Queue[0].When, kindRelease, 0)
	}
}

// flush lets go what has been posted, early, and keeps the events.
func (b *Boundary) flush() {
	if len(b.s.Queue) == 0 {
		return
	}
	queue := b.s.Queue
	b.s.Queue = nil
	for _, q := range queue {
		if isEvent(q) {
			b.s.Queue = append(b.s.Queue, q)
		} else {
			b.emit(q)
		}
	}
	b.rearm()
}

// emit lets out something that was queued.
func (b *Boundary) emit(q Queued) {
	c := Crossing{Device: b.name, Time: b.host.Now(), Class: q.Class, Addr: q.Addr, Size: len(q.Data), Data: first8(q.Data), Vector: q.Vector, Fault: q.Fault, Note: "late"}
	switch q.Class {
	case ClassDMAWrite:
		c.Err = b.host.DMAWrite(q.Addr, q.Data)
	case ClassIRQ:
		if q.Vector != INTx {
			b.host.Raise(q.Vector)
			break
		}
		b.s.Driven = true
		b.host.SetINTx(true)
	case ClassINTxOff:
		b.s.Driven = false
		b.host.SetINTx(false)
	default:
		return // a read was there already
	}
	b.record(c)
}

// addLate sends an interrupt n times, the first one after a wait of every.
func (b *Boundary) addLate(vector, n int, every int64, fault string) {
	if len(b.s.Late) >= lateLimit {
		if vector == INTx {
			b.drive(true)
		} else {
			b.send(vector)
		}
		return
	}
	b.s.LastID++
	b.s.Late = append(b.s.Late, LateIRQ{ID: b.s.LastID, Vector: vector, Left: n, Every: every, Fault: fault})
	b.host.Schedule(b.host.Now()+every, kindLate, b.s.LastID)
}

func (b *Boundary) late(id uint64) {
	i := slices.IndexFunc(b.s.Late, func(l LateIRQ) bool { return l.ID == id })
	if i < 0 {
		return
	}
	l := &b.s.Late[i]
	l.Left--
	vector, fault := l.Vector, l.Fault
	if l.Left > 0 {
		b.host.Schedule(b.host.Now()+l.Every, kindLate, id)
	} else {
		b.s.Late = slices.Delete(b.s.Late, i, i+1)
	}
	switch {
	case vector == pulseEnd:
		b.host.SetINTx(b.s.Driven)
	case vector == INTx:
		if b.s.Level { // else the reason for it has gone
			b.recordExtra(INTx, fault, "late")
			b.drive(true)
		}
	default:
		b.recordExtra(vector, fault, "late")
		b.send(vector)
	}
}

// State gives the boundary's state with the model's in it.
func (b *Boundary) State() any {
	s := b.s
	s.Vectors = slices.Clone(s.Vectors)
	s.Kinds = append([]uint32(nil), s.Kinds...)
	s.Late = append([]LateIRQ(nil), s.Late...)
	s.Queue = nil
	for _, q := range b.s.Queue {
		q.Data = slices.Clone(q.Data)
		s.Queue = append(s.Queue, q)
	}
	if b.faults != nil {
		s.Faults = b.faults.State()
	}
	s.Model = b.model.State()
	return s
}

// SetState takes back what State gave, a BoundaryState: decode gets a pointer to
// one, and fills in what its Model points to as well. Which faults are armed is not part of it:
// where the same are, they go on from the counts of the state, and else from
// their own. The clock's events must be back before.
func (b *Boundary) SetState(decode func(into any) error) error {
	var s BoundaryState
	called := false
	err := b.model.SetState(func(into any) error {
		called = true
		s.Model = into
		if err := decode(&s); err != nil {
			return err
		}
		return take(into, s.Model)
	})
	if err == nil && !called {
		err = decode(&s)
	}
	if err == nil {
		err = b.check(&s)
	}
	if err != nil {
		return fmt.Errorf("device %s: %w", b.name, err)
	}
	faults := s.Faults
	s.Model, s.Faults = nil, nil
	b.s, b.resetDue, b.removeDue = s, false, false
	if b.faults == nil || !sameFaults(b.faults.State(), faults) {
		b.Inject(b.injector)
		return nil
	}
	return b.faults.SetState(faults)
}

// take sees to it that into has the decoded state: a decoder may have filled it
// in, or put a value of its type in its place.
func take(into, got any) error {
	if got == into {
		return nil
	}
	dst := reflect.ValueOf(into)
	src := reflect.ValueOf(got)
	if dst.Kind() != reflect.Pointer || !src.IsValid() || !src.Type().AssignableTo(dst.Type().Elem()) {
		return fmt.Errorf("state has %T for the model's", got)
	}
	dst.Elem().Set(src)
	return nil
}

func sameFaults(a, b []FaultState) bool {
	return slices.EqualFunc(a, b, func(a, b FaultState) bool { return a.Text == b.Text })
}

func (b *Boundary) check(s *BoundaryState) error {
	vectors := len(b.s.Vectors)
	known := func(v int) bool { return v >= INTx && v < vectors }
	switch {
	case len(s.Vectors) != vectors:
		return fmt.Errorf("state has counts of %d vectors, the device has %d", len(s.Vectors), vectors)
	case s.Held < 0 || s.Held > vectors:
		return fmt.Errorf("state holds an interrupt of vector %d", s.Held-1)
	case s.Stall < 0:
		return errors.New("state has a stall until before the start")
	case len(s.Queue) > 4*queueEntries || len(s.Late) > lateLimit:
		return fmt.Errorf("state has %d queued crossings and %d late interrupts", len(s.Queue), len(s.Late))
	case len(s.Kinds) > 0 && (s.Kinds[len(s.Kinds)-1] >= OwnKinds || !slices.IsSorted(s.Kinds)):
		return errors.New("state has kinds of events that are not the model's, or not sorted")
	}
	when, size := int64(0), 0
	for _, q := range s.Queue {
		ok := q.When >= when
		switch q.Class {
		case ClassDMARead, ClassDMAWrite, ClassINTxOff:
		case ClassIRQ:
			ok = ok && known(q.Vector)
		case ClassEvent:
			ok = ok && q.Kind < OwnKinds
		default:
			ok = false
		}
		if !ok {
			return fmt.Errorf("state has a queued %v that fits nowhere", q.Class)
		}
		when, size = q.When, size+len(q.Data)
	}
	if size > queueBytes {
		return fmt.Errorf("state has %d bytes of queued writes", size)
	}
	last := uint64(0)
	for _, l := range s.Late {
		if l.ID <= last || l.ID > s.LastID || l.Left < 1 || l.Every < 0 || !known(l.Vector) && l.Vector != pulseEnd {
			return fmt.Errorf("state has a late interrupt of vector %d that fits nowhere", l.Vector)
		}
		last = l.ID
	}
	return nil
}

// corrupt applies an ActXor effect. It wraps at the end of the data.
func corrupt(p []byte, e Effect) {
	for i := range min(8, len(p)) {
		p[(e.N+i)%len(p)] ^= byte(e.Value >> (8 * i))
	}
}

func first8(p []byte) uint64 {
	if len(p) >= 8 {
		return binary.LittleEndian.Uint64(p)
	}
	v := uint64(0)
	for i, c := range p {
		v |= uint64(c) << (8 * i)
	}
	return v
}

func fill(p []byte, v byte) {
	for i := range p {
		p[i] = v
	}
}
