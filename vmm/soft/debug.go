package soft

import (
	"fmt"
	"math"
	"slices"

	"fifovm/vmm/x86"
)

// What a debugger does to a run. Without one it costs nothing, and a guest that
// it has stopped and let go on, by breakpoints, watchpoints or in single steps,
// runs as it would have without, to the instruction: blocks keep their ends, at
// which alone interrupts are taken, and the TLBs their entries.
//
// An instruction that may have a breakpoint has opBreakpoint as its handler, in
// place: a stop is in the midst of a block, which then goes on from there. As long
// as there are some, or something is watched, no block has code that is shared. A
// watched page has tags in the TLBs that no access finds on the fast way.

// debugger is what an engine knows of its debugger's wishes.
type debugger struct {
	x86.Debug
	breakpoints map[uint64]bool // by linear address
	offsets     map[uint64]bool // of breakpoints in their pages: for candidates
	trap        *x86.Trap       // ends the run
	guest       bool            // some CPU's own DR7 has something enabled
}

// active is whether instructions may have to be intercepted.
func (d *debugger) active() bool {
	return len(d.offsets) > 0 || len(d.Watchpoints) > 0 || d.guest
}

// inside is where in a block a CPU was stopped.
type inside struct {
	block  *block // nil: nowhere
	i      int    // the next op
	start  uint64 // RIP at the block's start
	traced bool   // a single-step trap is due behind it
}

// stops is what a CPU knows of breakpoints and watchpoints.
type stops struct {
	inside  inside
	passing bool   // the breakpoint at pass was told of: the CPU goes past it
	pass    uint64 // linear
	watched *x86.Watchpoint
	due     uint64 // of DR6: the guest's own data breakpoints that the instruction met
}

// linear is an RIP in the linear address space.
func (c *cpu) linear(rip uint64) uint64 {
	if c.mode&mode64 == 0 {
		return (rip + c.r[slotCS]) & math.MaxUint32
	}
	return rip
}

// SetDebug has the next run stop where d says; nil: nowhere. The engine must not
// be running.
func (e *Engine) SetDebug(d *x86.Debug) error {
	if d == nil {
		d = new(x86.Debug)
	}
	if d.Stepping && (d.Step < 0 || d.Step >= len(e.cpus)) {
		return fmt.Errorf("soft: there is no CPU %d to step", d.Step)
	}
	points := !slices.Equal(d.Breakpoints, e.debug.Breakpoints)
	watches := !slices.Equal(d.Watchpoints, e.debug.Watchpoints)
	e.debug.Debug = x86.Debug{Breakpoints: slices.Clone(d.Breakpoints), Watchpoints: slices.Clone(d.Watchpoints),
		Stepping: d.Stepping, Step: d.Step}
	if points {
		e.debug.breakpoints = map[uint64]bool{}
		for _, a := range d.Breakpoints {
			e.debug.breakpoints[a] = true
		}
	}
	if points || watches {
		e.refreshDebug()
	}
	return nil
}

// refreshDebug makes decoded blocks and TLBs agree with the breakpoints and
// watchpoints, the debugger's and the guest's.
func (e *Engine) refreshDebug() {
	d := &e.debug
	had := len(d.offsets) > 0
	d.offsets = map[uint64]bool{}
	for a := range d.breakpoints {
		d.offsets[a&pageMask] = true
	}
	d.guest = false
	for _, c := range e.cpus {
		for i := range c.dr {
			if kind, on := c.drKind(i); on {
				d.guest = true
				if kind == drExecute {
					d.offsets[c.dr[i]&pageMask] = true
				}
			}
		}
	}
	if had || d.active() {
		e.code.eachBlock(e.mark)
	}
	for _, c := range e.cpus {
		for m := range c.tlbs {
			for _, t := range []*tlb{&c.tlbs[m].rd, &c.tlbs[m].wr} {
				for i := range t.entry {
					if p := &t.entry[i]; p.tag != noPage {
						p.tag = c.watchTag(p.tag &^ tagWatched)
					}
				}
			}
		}
	}
}

// eachBlock calls f for all blocks in the cache.
func (cc *codeCache) eachBlock(f func(*block)) {
	for _, p := range cc.used {
		p.each(f)
	}
}

// mark gives the instructions of a block that may have a breakpoint the handler
// for that, and the others their own.
func (e *Engine) mark(b *block) {
	if !e.debug.active() && b.handlers == nil {
		return
	}
	b.own()
	for i := range b.n {
		candidate := e.debug.offsets[(b.at+uint64(b.ops[i].off))&pageMask]
		if marked := b.handlers != nil && b.handlers[i] != nil; candidate == marked {
			continue
		}
		if candidate {
			b.intercept(int(i))
		} else {
			b.ops[i].fn, b.handlers[i] = b.handlers[i], nil
		}
	}
}

// intercept has opBreakpoint called in place of a block's instruction.
func (b *block) intercept(i int) {
	if b.handlers == nil {
		b.handlers = make([]handler, b.n)
	}
	if b.handlers[i] == nil {
		b.handlers[i], b.ops[i].fn = b.ops[i].fn, opBreakpoint
	}
}

// opBreakpoint stands for an instruction that may have a breakpoint, or that
// comes after one that touched watched memory.
func opBreakpoint(c *cpu, o *op) {
	own := c.block.handlers[c.i]
	d := &c.engine.debug
	if c.stops.watched != nil {
		c.stop(x86.Trap{Kind: x86.TrapWatchpoint, Address: c.stops.watched.Address, Watch: *c.stops.watched})
	}
	if c.stops.due != 0 {
		c.raiseDue()
	}
	here := c.linear(c.r[slotRIP] + uint64(o.off))
	if c.stops.passing && c.stops.pass == here {
		own(c, o)
		// A repeated instruction begins again after a portion of its elements.
		again := o.rep != repNone && c.jumped && c.linear(c.r[slotRIP]) == here
		if c.stops.pass == here && !again {
			c.stops.passing = false
		}
		return
	}
	if d.breakpoints[here] {
		c.stops.passing, c.stops.pass = true, here
		c.stop(x86.Trap{Kind: x86.TrapBreakpoint, Address: here})
	}
	if bits := c.drExecute(here); bits != 0 {
		c.dr6 |= bits
		c.raise(x86.DB)
	}
	own(c, o)
}

// stop ends the run before the instruction that is executed.
func (c *cpu) stop(t x86.Trap) {
	t.CPU = c.index
	c.stops.watched = nil
	c.engine.debug.trap = &t
	panic(throwStop)
}

// stopAfter has opBreakpoint, or the end of the block, look at what the
// instruction has met.
func (c *cpu) stopAfter() {
	c.limit = 0
	if b := c.block; b != nil && int64(c.i)+1 < b.n {
		b.intercept(c.i + 1)
	}
}

// stopInside remembers how to go on in the midst of block b, whose op i is next.
func (c *cpu) stopInside(b *block, i int, start uint64) {
	if b.n == 0 || i >= len(b.ops) {
		// It was killed while it was executed, by DMA that one of its instructions
		// began, say: it begins anew here, with a look at the interrupts that the
		// guest would not have had without the stop.
		return
	}
	c.stops.inside = inside{block: b, i: i, start: start}
}

// enterBlock puts the CPU back to where stopInside left it, and gives the ops of
// the block.
func (c *cpu) enterBlock() (in inside, ops []op, n int64) {
	in = c.stops.inside
	c.stops.inside = inside{}
	c.block, c.i = in.block, in.i
	c.now -= int64(in.i)
	c.r[slotRIP] = in.start
	c.shadow = 0
	return in, in.block.ops, in.block.n
}

// goOn executes the rest of the block that the CPU was stopped in.
func (c *cpu) goOn() {
	c.limit = 0 // a look around behind it changes nothing
	in := c.stops.inside
	c.entered = false
	c.guard(func() {
		_, ops, n := c.enterBlock()
		for i := in.i; i < len(ops); i++ {
			c.i = i
			ops[i].fn(c, &ops[i])
		}
		c.leaveBlock(n)
		if in.traced {
			c.trap()
		}
	})
	c.stops.inside.traced = in.traced && c.stops.inside.block != nil
}

// leaveBlock is the end of a block.
func (c *cpu) leaveBlock(n int64) {
	c.now += n
	c.i, c.block = 0, nil
}

// step executes one instruction, or takes one interrupt.
func (c *cpu) step() {
	c.limit = 0
	c.stops.passing, c.stops.pass = true, c.linear(c.r[slotRIP])
	switch {
	case c.stops.inside.block != nil && c.stops.inside.traced:
		c.goOn()
	case c.stops.inside.block != nil:
		c.guard(c.stepInside)
	case c.shadow != 0 || c.flags&x86.FlagTF != 0:
		c.normally()
	case c.accept():
	default:
		c.guard(func() {
			var first link
			b := c.follow(&first)
			c.stopInside(b, 0, c.r[slotRIP])
			c.stepInside()
		})
	}
	c.stops.passing = false
	if c.engine.debug.trap == nil && c.stops.watched == nil {
		c.engine.debug.trap = &x86.Trap{CPU: c.index, Kind: x86.TrapStep, Address: c.linear(c.r[slotRIP])}
	}
}

// stepInside executes the next op of the block that the CPU was stopped in.
func (c *cpu) stepInside() {
	in, ops, n := c.enterBlock()
	ops[in.i].fn(c, &ops[in.i])
	next := in.i + 1
	if int64(next) < n {
		c.now += int64(next)
		c.r[slotRIP] = in.start + uint64(ops[next].off)
		if c.mode&mode64 == 0 {
			c.r[slotRIP] &= c.ripMask()
		}
		c.i, c.block = 0, nil
		c.stopInside(in.block, next, in.start)
		return
	}
	for i := next; i < len(ops); i++ {
		c.i = i
		ops[i].fn(c, &ops[i])
	}
	c.leaveBlock(n)
}

// afterTurn makes what the last instruction of a block has met a stop, or a trap
// of the guest's.
func (c *cpu) afterTurn() {
	if w := c.stops.watched; w != nil {
		c.stops.watched = nil
		if c.engine.debug.trap == nil {
			c.engine.debug.trap = &x86.Trap{CPU: c.index, Kind: x86.TrapWatchpoint, Address: w.Address, Watch: *w}
		}
	}
	if c.stops.due != 0 {
		c.dr6 |= c.stops.due
		c.stops.due, c.stops.inside = 0, inside{}
		c.deliver(fault{vector: x86.DB})
	}
	if in := &c.stops.inside; in.block != nil {
		c.engine.mark(in.block) // what stopAfter put there has done its work
	}
}

// tagWatched is set in the tag of a TLB's entry whose page is watched: only the
// slow way finds it.
const tagWatched = 1 << 63

// watchTag gives the tag for a page's number.
func (c *cpu) watchTag(number uint64) uint64 {
	d := &c.engine.debug
	for i := range d.Watchpoints {
		if w := &d.Watchpoints[i]; w.Overlaps(number<<pageShift, pageSize) {
			return number | tagWatched
		}
	}
	if d.guest {
		for i := range c.dr {
			if kind, on := c.drKind(i); on && kind != drExecute && c.dr[i]>>pageShift == number {
				return number | tagWatched
			}
		}
	}
	return number
}

// watchedPage gives the page for an access to n bytes at a that the TLB has, but
// for its being watched.
func (t *tlb) watchedPage(a, n uint64) *page {
	if e := &t.entry[a>>pageShift%tlbEntries]; e.tag == (a+n-1)>>pageShift|tagWatched && (a+n-1)>>pageShift == a>>pageShift {
		return e.page
	}
	return nil
}

// touched is called for each access that comes the slow way, once it can't fault
// any more.
func (c *cpu) touched(a, n uint64, kind access) {
	d := &c.engine.debug
	for i := range d.Watchpoints {
		w := &d.Watchpoints[i]
		if w.Overlaps(a, n) && (w.Kind == x86.WatchAccess || (w.Kind == x86.WatchWrite) == (kind == accessWrite)) {
			if c.stops.watched == nil {
				c.stops.watched = w
			}
			c.stopAfter()
		}
	}
	if d.guest {
		if bits := c.drData(a, n, kind); bits != 0 {
			c.stops.due |= bits
			c.stopAfter()
		}
	}
}

// Kinds of the guest's own breakpoints: DR7's R/W fields (SDM volume 3, 17.2.4).
const (
	drExecute = 0
	drWrite   = 1
	drIO      = 2 // if CR4.DE is set; not implemented
	drAccess  = 3
)

// drKind gives the kind of the breakpoint in DR0 to DR3, if it is enabled.
func (c *cpu) drKind(i int) (kind uint8, on bool) {
	kind = uint8(c.dr7 >> (16 + 4*i) & 3)
	return kind, c.dr7>>(2*i)&3 != 0 && kind != drIO
}

// drExecute gives the bits of DR6 for an instruction at a linear address.
func (c *cpu) drExecute(a uint64) (bits uint64) {
	if !c.engine.debug.guest {
		return 0
	}
	for i := range c.dr {
		if kind, on := c.drKind(i); on && kind == drExecute && c.dr[i] == a {
			bits |= 1 << i
		}
	}
	return bits
}

// drData gives the bits of DR6 for an access to data.
func (c *cpu) drData(a, n uint64, access access) (bits uint64) {
	for i := range c.dr {
		kind, on := c.drKind(i)
		if !on || kind == drExecute || kind == drWrite && access != accessWrite {
			continue
		}
		size := [4]uint64{1, 2, 8, 4}[c.dr7>>(18+4*i)&3]
		if w := (x86.Watchpoint{Address: c.dr[i] &^ (size - 1), Size: size}); w.Overlaps(a, n) {
			bits |= 1 << i
		}
	}
	return bits
}

// raiseDue throws the trap for data that the instruction before has met.
func (c *cpu) raiseDue() {
	c.dr6 |= c.stops.due
	c.stops.due = 0
	panic(throwTrap)
}

// drChanged follows a change of the debug registers.
func (c *cpu) drChanged() {
	on := false
	for i := range c.dr {
		_, enabled := c.drKind(i)
		on = on || enabled
	}
	if on || c.engine.debug.guest {
		c.engine.refreshDebug()
	}
}

// resumeFlag follows an IRET that has loaded RF: a breakpoint at the instruction
// at RIP is passed by (SDM volume 3, 17.3.1.1).
func (c *cpu) resumeFlag() {
	if rip := c.linear(c.r[slotRIP]); c.engine.debug.offsets[rip&pageMask] {
		c.stops.passing, c.stops.pass = true, rip
	}
}
