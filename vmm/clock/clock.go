// Package clock keeps the machine's time and its queue of future events.
//
// Everything that a device does later is an Event: plain data (time, owner,
// kind, payload), never a closure, so that a snapshot can hold the whole queue.
// The owner is told of the event by its kind.
//
// Time is in nanoseconds since the machine was made. Where it comes from is the
// engine's matter: the package asks a Source, so it serves host time (KVM) and
// virtual time (the soft CPU) alike. It starts no goroutine and does no
// locking; the machine holds its lock around each call.
package clock

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Source tells the time in nanoseconds since the machine was made. It never
// goes back.
type Source interface {
	Now() int64
}

// Handler is an owner of events.
type Handler interface {
	HandleEvent(kind uint32, payload uint64)
}

// Event is something that will happen.
type Event struct {
	When    int64  // ns, in the clock's time
	Seq     uint64 // order of scheduling: decides between events of one time
	Owner   string
	Kind    uint32
	Payload uint64
}

// Never is the time of an event that does not come.
const Never = int64(math.MaxInt64)

// Clock is a time source and the events to come.
type Clock struct {
	source Source
	owners map[string]Handler
	// queue has the events to come, the next one last. A machine has tens of
	// them, so that a sorted slice is the fastest queue as well as the simplest.
	queue []Event
	seq   uint64
	// OnEarlier, if set, is called when a newly scheduled event became the next
	// one, so that a waiting engine can look again.
	OnEarlier func()
}

// New gives a clock without events.
func New(s Source) *Clock { return &Clock{source: s, owners: map[string]Handler{}} }

// Now is the current time in ns.
func (c *Clock) Now() int64 { return c.source.Now() }

// Register names an owner of events. A name has one owner for the life of the
// clock: a second registration is a mistake in the machine's wiring.
func (c *Clock) Register(owner string, h Handler) {
	if _, ok := c.owners[owner]; ok {
		panic("clock: two owners named " + owner)
	}
	c.owners[owner] = h
}

// Schedule tells owner, who is registered, of kind and payload at time when; a
// time that has passed means now.
func (c *Clock) Schedule(when int64, owner string, kind uint32, payload uint64) {
	if c.owners[owner] == nil {
		panic("clock: no owner named " + owner)
	}
	c.seq++
	e := Event{When: max(when, c.Now()), Seq: c.seq, Owner: owner, Kind: kind, Payload: payload}
	i, _ := slices.BinarySearchFunc(c.queue, e, latestFirst)
	c.queue = slices.Insert(c.queue, i, e)
	if i == len(c.queue)-1 && c.OnEarlier != nil {
		c.OnEarlier()
	}
}

// Cancel takes back every event of owner with that kind and tells how many.
func (c *Clock) Cancel(owner string, kind uint32) int {
	n := len(c.queue)
	c.queue = slices.DeleteFunc(c.queue, func(e Event) bool { return e.Kind == kind && e.Owner == owner })
	return n - len(c.queue)
}

// Pending tells when the next event of owner with that kind comes; ok is false
// if there is none. A device that takes its state back asks, as the queue's
// state has come back before.
func (c *Clock) Pending(owner string, kind uint32) (when int64, ok bool) {
	for i := len(c.queue) - 1; i >= 0; i-- {
		if e := &c.queue[i]; e.Kind == kind && e.Owner == owner {
			return e.When, true
		}
	}
	return 0, false
}

// Count is how many events of owner are to come.
func (c *Clock) Count(owner string) int {
	n := 0
	for i := range c.queue {
		if c.queue[i].Owner == owner {
			n++
		}
	}
	return n
}

// Free is the first time from when on that has no event yet.
func (c *Clock) Free(when int64) int64 {
	for i := len(c.queue) - 1; i >= 0 && c.queue[i].When <= when; i-- {
		if c.queue[i].When == when {
			when++
		}
	}
	return when
}

// Next is the time of the earliest event, Never if there is none.
func (c *Clock) Next() int64 {
	if len(c.queue) == 0 {
		return Never
	}
	return c.queue[len(c.queue)-1].When
}

// RunDue delivers, in order, every event whose time has come when RunDue is
// called; those that a handler adds wait for the next call, so that one owner
// can't hold the machine here for ever.
func (c *Clock) RunDue() {
	now, seq := c.Now(), c.seq
	for len(c.queue) > 0 {
		last := len(c.queue) - 1
		e := c.queue[last]
		// What a handler adds is not before now, so it is behind all that is due.
		if e.When > now || e.Seq > seq {
			return
		}
		c.queue = c.queue[:last]
		c.owners[e.Owner].HandleEvent(e.Kind, e.Payload)
	}
}

// State is the queue as plain data, in the order of delivery.
type State struct {
	Seq    uint64
	Events []Event
}

// State gives the events to come. The time itself is the source's state.
func (c *Clock) State() State {
	events := slices.Clone(c.queue)
	slices.Reverse(events)
	return State{Seq: c.seq, Events: events}
}

// SetState replaces the events to come. Every owner must be registered.
func (c *Clock) SetState(s State) error {
	for _, e := range s.Events {
		if c.owners[e.Owner] == nil {
			return fmt.Errorf("clock: state has an event of %q, which this machine does not have", e.Owner)
		}
		if e.Seq > s.Seq {
			return fmt.Errorf("clock: state has event %d after the last one, %d", e.Seq, s.Seq)
		}
	}
	queue := slices.Clone(s.Events)
	slices.SortFunc(queue, latestFirst)
	for i := 1; i < len(queue); i++ {
		if latestFirst(queue[i-1], queue[i]) == 0 {
			return fmt.Errorf("clock: state has event %d twice", queue[i].Seq)
		}
	}
	c.seq, c.queue = s.Seq, queue
	return nil
}

// latestFirst orders events from the last to the next.
func latestFirst(a, b Event) int {
	if d := cmp.Compare(b.When, a.When); d != 0 {
		return d
	}
	return cmp.Compare(b.Seq, a.Seq)
}
