// Package fault breaks devices on purpose, by a plan that is text:
//
//	irq[1]:drop@3; dma.write:error@5..7; fifo0/mmio.read:ones@40..
//
// A Plan is armed with device.Boundary.Inject and says afterwards what fired. What
// it does depends on nothing but the plan and the crossings, so that a run can be
// repeated with it. docs/faults.md has the language and what each fault is.
//
// The package decides; what is decided is done by device.Boundary. It knows no
// device.
package fault

import (
	"math"
	"slices"
	"strings"

	"fifovm/device"
)

// Plan is a list of faults, with counts of what fired: one Plan is for one run.
// It is used with the machine locked, as its boundaries are.
type Plan struct {
	seed   uint64
	items  []item
	faults []*fault
	bound  []*bound
}

// item is a part of the plan's text: a fault or a setting.
type item struct{ text string }

// Count is how often a fault fired.
type Count struct {
	Fault string // as in the plan
	Fired uint64 // on all devices
}

// String is the plan as it was read, without comments, in one line.
func (p *Plan) String() string {
	texts := make([]string, len(p.items))
	for i, it := range p.items {
		texts[i] = it.text
	}
	return strings.Join(texts, "; ")
}

// Empty is whether the plan has no faults.
func (p *Plan) Empty() bool { return len(p.faults) == 0 }

// Devices are the names of devices that faults of the plan are for.
func (p *Plan) Devices() []string {
	var names []string
	for _, f := range p.faults {
		if f.device != "" && !slices.Contains(names, f.device) {
			names = append(names, f.device)
		}
	}
	return names
}

// Fired counts, for each fault of the plan, cleared ones too.
func (p *Plan) Fired() []Count {
	counts := make([]Count, len(p.faults))
	for i, f := range p.faults {
		counts[i] = Count{Fault: f.text, Fired: f.before}
	}
	for _, b := range p.bound {
		for i := range b.armed {
			a := &b.armed[i]
			counts[a.index].Fired += a.state.Fired
		}
	}
	return counts
}

// Unfired lists the faults that have not fired. A run that ends with any is
// invalid: what it was to show did not happen.
func (p *Plan) Unfired() []string {
	var texts []string
	for _, c := range p.Fired() {
		if c.Fired == 0 {
			texts = append(texts, c.Fault)
		}
	}
	return texts
}

// Arm adds the faults of a text to the plan and, where the plan is bound
// already, to its devices.
func (p *Plan) Arm(text string) error {
	more, err := parse(text, p.seed)
	if err != nil {
		return err
	}
	p.seed = more.seed
	p.items = append(p.items, more.items...)
	first := len(p.faults)
	p.faults = append(p.faults, more.faults...)
	for _, b := range p.bound {
		b.arm(p, first)
		b.boundary.Inject(p)
	}
	return nil
}

// Clear disarms all faults. Those that are under way go on: what is late comes
// late, a device that has gone stays so.
func (p *Plan) Clear() { p.ClearFrom(0) }

// ClearFrom is Clear for all but the first n faults of the plan.
func (p *Plan) ClearFrom(n int) {
	for i, c := range p.Fired() {
		if i >= n {
			p.faults[i].before, p.faults[i].cleared = c.Fired, true
		}
	}
	for _, b := range p.bound {
		b.armed = slices.DeleteFunc(b.armed, func(a armed) bool { return a.index >= n })
		b.boundary.Inject(p)
	}
}

// Bind implements device.Injector.
func (p *Plan) Bind(b *device.Boundary) device.Faults {
	i := slices.IndexFunc(p.bound, func(o *bound) bool { return o.boundary == b })
	if i < 0 {
		i = len(p.bound)
		p.bound = append(p.bound, &bound{boundary: b})
		p.bound[i].arm(p, 0)
	}
	if len(p.bound[i].armed) == 0 {
		return nil
	}
	return p.bound[i]
}

var _ device.Injector = (*Plan)(nil)

// bound is the plan's faults on one device.
type bound struct {
	boundary *device.Boundary
	armed    []armed
}

type armed struct {
	*fault
	index int // in Plan.faults
	state device.FaultState
}

// arm adds the plan's faults from the first on that are this device's.
func (b *bound) arm(p *Plan, first int) {
	for i := first; i < len(p.faults); i++ {
		if f := p.faults[i]; !f.cleared && (f.device == "" || f.device == b.boundary.Name()) {
			b.armed = append(b.armed, armed{fault: f, index: i, state: device.FaultState{Text: f.text}})
		}
	}
}

// Inject implements device.Faults. What happens to the device as a whole comes
// first; of the faults of a crossing itself, the first in the plan is applied,
// but bits that are stuck come together.
func (b *bound) Inject(c device.Crossing) device.Effect {
	var e device.Effect
	for i := range b.armed {
		if a := &b.armed[i]; a.own() && a.hits(&c) && a.act(b.boundary, &c) {
			e.Fault = a.text
		}
	}
	if b.boundary.Quiet() {
		return e
	}
	for i := range b.armed {
		if a := &b.armed[i]; !a.own() && a.hits(&c) {
			a.apply(b.boundary, &c, &e)
		}
	}
	return e
}

// hits counts a crossing that the fault is about and says whether it is one of
// those that the fault's point names.
func (a *armed) hits(c *device.Crossing) bool {
	if a.timed() || !a.trigger.matches(c) {
		return false
	}
	a.state.Seen++
	return a.point.has(a.trigger.number(c, a.state.Seen), c.Time, a.state.Fired)
}

// act has an own fault happen.
func (a *armed) act(b *device.Boundary, c *device.Crossing) bool {
	ok := true
	switch a.action {
	case actSpurious:
		ok = b.Spurious(a.vector(c), a.text)
	case actStorm:
		ok = b.Storm(a.vector(c), int(a.n), a.each(), a.text)
	case actStall:
		ok = !b.Quiet()
		if ok {
			b.Stall(a.time, a.text)
		}
	case actReset:
		ok = !b.Quiet()
		b.ResetItself(a.text)
	case actRemove:
		ok = !b.Removed()
		b.RemoveBy(a.text)
	}
	if ok {
		a.state.Fired++
	}
	return ok
}

// vector is that of a spurious interrupt; c is nil where its point is a time.
func (a *armed) vector(c *device.Crossing) int {
	switch {
	case a.what.filtered:
		return a.what.vector
	case c != nil && c.Class == device.ClassIRQ:
		return c.Vector
	}
	return 0
}

// each is the time between the interrupts of a storm.
func (f *fault) each() int64 { return max(f.time/int64(f.n), 1) }

// apply puts the fault's effect on a crossing into e, if there is none yet.
func (a *armed) apply(b *device.Boundary, c *device.Crossing, e *device.Effect) {
	next := device.Effect{Fault: a.text}
	bits := uint64(c.Size) * 8
	pin := c.Class == device.ClassIRQ && c.Vector == device.INTx
	switch a.action {
	case actDrop:
		next.Action = device.ActDrop
	case actDelay:
		next.Action, next.Delay = device.ActDelay, a.time
	case actDup:
		if pin {
			return // a level can't come twice
		}
		next.Action, next.N, next.Delay = device.ActRepeat, int(a.n), dupDelay
	case actSwap:
		if pin || b.Holding() {
			return
		}
		next.Action = device.ActSwap
	case actError:
		next.Action = device.ActFail
	case actShort:
		next.Action, next.N = device.ActShort, int(min(a.n, uint64(c.Size)))
		if !a.given {
			next.N = c.Size / 2
		}
	case actFlip:
		if bits == 0 {
			return
		}
		bit := a.n % bits
		if !a.given {
			bit = a.draw(c.Seq) % bits
		}
		next.Action, next.N, next.Value = device.ActXor, int(bit/8), 1<<(bit%8)
	case actXor:
		if bits == 0 {
			return
		}
		next.Action, next.Value = device.ActXor, a.n
	case actOnes:
		next.Action = device.ActOnes
	case actStuck0:
		next.Action, next.Clear = device.ActStuck, a.n
	case actStuck1:
		next.Action, next.Set = device.ActStuck, a.n
	case actStale:
		i := slices.IndexFunc(a.state.Values, func(v device.ReadValue) bool { return sameRead(v, c) })
		if i < 0 {
			return // nothing to be stale
		}
		next.Action, next.Value = device.ActStale, a.state.Values[i].Value
	}
	switch {
	case e.Action == device.ActPass:
		*e = next
	case e.Action == device.ActStuck && next.Action == device.ActStuck:
		e.Clear |= next.Clear
		e.Set |= next.Set
		e.Fault += "; " + next.Fault
	default:
		return
	}
	a.state.Fired++
}

// draw is a number that depends on nothing but the seed, the fault's place in
// the plan and the crossing (SplitMix64, Steele, Lea and Flood, 2014).
func (a *armed) draw(seq uint64) uint64 {
	x := a.seed
	for _, v := range [...]uint64{uint64(a.index), seq} {
		x += v + 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
	}
	return x
}

// staleReads is how many registers a stale fault knows the values of.
const staleReads = 256

// Observe implements device.Faults.
func (b *bound) Observe(c device.Crossing) {
	for i := range b.armed {
		a := &b.armed[i]
		if a.action != actStale || !a.trigger.matches(&c) {
			continue
		}
		v := device.ReadValue{BAR: c.BAR, Size: c.Size, Addr: c.Addr, Value: c.Data}
		values := a.state.Values
		j := slices.IndexFunc(values, func(v device.ReadValue) bool { return sameRead(v, &c) })
		switch {
		case j >= 0:
			values[j] = v
		case len(values) < staleReads:
			a.state.Values = append(values, v)
		default:
			copy(values, values[1:])
			values[staleReads-1] = v
		}
	}
}

func sameRead(v device.ReadValue, c *device.Crossing) bool {
	return v.BAR == c.BAR && v.Addr == c.Addr && v.Size == c.Size
}

// Next implements device.Faults.
func (b *bound) Next() int64 {
	next := int64(math.MaxInt64)
	for i := range b.armed {
		if a := &b.armed[i]; a.timed() && a.state.Seen == 0 {
			next = min(next, a.point.start)
		}
	}
	return next
}

// Due implements device.Faults. A fault that can't happen at its time has not
// fired.
func (b *bound) Due(now int64) {
	for i := range b.armed {
		if a := &b.armed[i]; a.timed() && a.state.Seen == 0 && a.point.start <= now {
			a.state.Seen++
			a.act(b.boundary, nil)
		}
	}
}

// State implements device.Faults.
func (b *bound) State() []device.FaultState {
	states := make([]device.FaultState, len(b.armed))
	for i := range b.armed {
		states[i] = b.armed[i].state
		states[i].Values = append([]device.ReadValue(nil), states[i].Values...)
	}
	return states
}

// SetState implements device.Faults.
func (b *bound) SetState(states []device.FaultState) error {
	if len(states) != len(b.armed) {
		return &stateError{"state has another number of faults"}
	}
	for i, s := range states {
		if s.Text != b.armed[i].text || s.Fired > s.Seen || len(s.Values) > staleReads {
			return &stateError{"state of fault " + b.armed[i].text + " does not fit"}
		}
	}
	for i, s := range states {
		s.Values = append([]device.ReadValue(nil), s.Values...)
		b.armed[i].state = s
	}
	return nil
}

type stateError struct{ text string }

func (e *stateError) Error() string { return "fault: " + e.text }
