package soft

import (
	"errors"
	"fmt"

	"fifovm/vmm/x86"
)

// ready is whether the CPU has something to execute.
func (c *cpu) ready() bool {
	switch c.activity {
	case x86.Running:
		return true
	case x86.Halted:
		if c.nmiPending && !c.nmiMasked {
			return true
		}
		return c.offered() && c.flags&x86.FlagIF != 0
	}
	return false
}

// offered is whether the local APIC has an interrupt for the CPU.
func (c *cpu) offered() bool {
	if !c.irq {
		return false
	}
	_, c.irq = c.apic.Pending()
	return c.irq
}

// Interrupt, NMI, INIT and SIPI are the local APIC's calls (chipset.CPU).
func (c *cpu) Interrupt() {
	c.irq = true
	c.engine.attention()
}

// NMI has a non-maskable interrupt wait for the CPU.
func (c *cpu) NMI() {
	c.nmiPending = true
	c.engine.attention()
}

// INIT resets the CPU: at once, or where it has sent the IPI itself, at the end
// of the block. Between turns no INIT is on its way, so that no state needs to
// tell of one.
func (c *cpu) INIT() {
	if c.engine.running == c {
		c.initPending = true
	} else {
		c.initReset()
	}
	c.engine.attention()
}

// SIPI starts a CPU that waits for it.
func (c *cpu) SIPI(vector uint8) {
	if c.engine.running != c {
		c.sipi(vector)
	}
	c.engine.attention()
}

// attend ends the run of blocks after the present one, so that what may have
// changed is looked at: an interrupt that is no longer held off, say.
func (c *cpu) attend() { c.limit = 0 }

// run executes until the time is c.limit or later, or attention is wanted.
func (c *cpu) run() {
	if c.stops.inside.block != nil {
		c.goOn()
		return
	}
	c.normally()
}

// normally is run for a CPU that is between two blocks.
func (c *cpu) normally() {
	if s := c.shadow; s != 0 {
		c.shadow = 0
		c.guard(c.alone)
		if c.stops.inside.block != nil {
			c.shadow = s
		}
		return
	}
	if c.accept() {
		return
	}
	if c.flags&x86.FlagTF != 0 {
		c.guard(c.traced)
		c.stops.inside.traced = c.stops.inside.block != nil
		return
	}
	c.guard(c.blocks)
}

// accept takes an NMI or an interrupt that waits, if any.
func (c *cpu) accept() bool {
	switch {
	case c.nmiPending && !c.nmiMasked:
		c.nmiPending = false
		c.activity = x86.Running
		c.nmi()
	case c.flags&x86.FlagIF != 0 && c.offered():
		c.activity = x86.Running
		c.interrupt(c.apic.Accept())
	default:
		return false
	}
	return true
}

// guard calls execute and delivers the fault that it throws.
func (c *cpu) guard(execute func()) {
	defer func() {
		if r := recover(); r != nil {
			why, ok := r.(thrown)
			if !ok {
				panic(r)
			}
			c.caught(why)
		}
	}()
	execute()
}

// caught continues after an instruction that did not come to its end: RIP is
// that of the instruction.
func (c *cpu) caught(why thrown) {
	b, i, start := c.block, c.i, c.r[slotRIP]
	if b != nil {
		c.now += int64(c.i)
		c.r[slotRIP] += uint64(b.ops[c.i].off)
		if c.mode&mode64 == 0 {
			c.r[slotRIP] &= c.ripMask()
		}
	}
	c.i, c.block, c.jumped = 0, nil, false
	switch why {
	case throwFault:
		c.now++ // what faults takes its time as well: a guest that only faults has an end
		c.stops.passing = false
		c.deliver(c.fault)
	case throwAlone:
		c.guard(c.alone)
	case throwStop:
		c.stopInside(b, i, start)
	case throwTrap:
		c.deliver(fault{vector: x86.DB})
	}
}

// blocks is the loop in which all but the exceptional happens.
func (c *cpu) blocks() {
	var first link
	b := c.follow(&first)
	for {
		c.block = b
		ops, n := b.ops, b.n // the block may be killed meanwhile
		for i := range ops {
			c.i = i
			o := &ops[i]
			o.fn(c, o)
		}
		c.now += n
		c.i = 0
		if c.now >= c.limit {
			c.block = nil
			return
		}
		l := &b.links[c.taken&1]
		if rip := c.r[slotRIP]; l.rip == rip && l.gen == c.gens[rip>>63] {
			b = l.block
		} else {
			c.block = nil
			b = c.follow(l)
		}
	}
}

// alone executes one instruction in a block of its own.
func (c *cpu) alone() {
	b := c.resolveAlone()
	c.block = b
	ops, n := b.ops, b.n
	for i := range ops {
		ops[i].fn(c, &ops[i])
	}
	c.now += n
	c.i, c.block = 0, nil
}

// resolveAlone is resolve for a single instruction.
func (c *cpu) resolveAlone() *block {
	c.mode |= modeAlone
	defer func() { c.mode &^= modeAlone }()
	return c.resolve(c.r[slotRIP])
}

// traced executes one instruction under TF, and the trap that follows it (SDM
// volume 3, 17.3.1.4). An INT has none, as its gate clears TF.
func (c *cpu) traced() {
	c.entered = false
	c.alone()
	c.trap()
}

// trap is the single-step trap, unless the instruction was an INT.
func (c *cpu) trap() {
	if c.entered {
		return
	}
	c.dr6 |= dr6BS
	c.deliver(fault{vector: x86.DB})
}

const dr6BS = 1 << 14 // single step

// ErrLacks is wrapped by the error of a CPU that met an instruction, or a part
// of the architecture, which it does not have.
var ErrLacks = errors.New("the soft CPU lacks")

// opLacking is an instruction that is none, or that the CPU does not have. A
// program is told by #UD, as it is on the processor that CPUID describes. In the
// kernel it is most likely one that was built for another processor, and then
// the instruction is worth more than the crash.
func opLacking(c *cpu, o *op) {
	if c.cpl == 3 {
		c.raiseUD()
	}
	c.r[slotRIP] += uint64(o.off)
	c.engine.lacks(c, "this instruction")
	c.r[slotRIP] -= uint64(o.off)
	panic(throwStuck)
}

// lacks ends the run at the instruction at RIP, for which what is missing.
func (e *Engine) lacks(c *cpu, what string) {
	s := new(x86.CPU)
	c.state(s)
	e.fail(c, fmt.Errorf("%w %s: %s at %#x, CPL %d", ErrLacks, what, x86.Disassemble(c.codeAt(s), s), s.RIP, c.cpl))
}

// codeAt reads the bytes of the instruction at RIP, as far as they are there.
func (c *cpu) codeAt(s *x86.CPU) (code []byte) {
	defer func() { _ = recover() }() // of a page that isn't there
	linear := s.RIP
	if c.mode&mode64 == 0 {
		linear += c.r[slotCS]
	}
	for i := range uint64(maxInstruction) {
		var b [1]byte
		c.readPhysical(c.translate(linear+i, accessFetch, c.user()), b[:])
		code = append(code, b[0])
	}
	return code
}
