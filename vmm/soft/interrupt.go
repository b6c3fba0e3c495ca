package soft

import "fifovm/vmm/x86"

// Bits of an error code (SDM volume 3, 6.13).
const (
	codeEXT = 1 << 0 // what is delivered comes from outside of the program
	codeIDT = 1 << 1 // the index is one of the IDT
)

// dr7GD is cleared when a #DB is delivered (SDM volume 3, 17.2.4).
const dr7GD = 1 << 13

// event is an exception or interrupt to be delivered through the IDT.
type event struct {
	vector  uint8
	soft    bool // INT n, INT3, INTO: the gate's DPL counts
	hasCode bool
	code    uint32
	ext     uint32 // codeEXT, but for those of INT n and its like
	rip     uint64 // to return to
	flags   uint64 // to be pushed
}

// benign, contributory exceptions and page faults: SDM volume 3, table 6-4.
func contributory(vector uint8) bool {
	switch vector {
	case x86.DE, x86.TS, x86.NP, x86.SSFault, x86.GP:
		return true
	}
	return false
}

// deliver takes the CPU to the handler of a fault of the instruction at RIP, or
// of the trap that comes before it. Faults on the way follow SDM volume 3, table
// 6-5: a serious one on top of another is a double fault, and one on top of
// that shuts the CPU down.
func (c *cpu) deliver(f fault) {
	for {
		e := event{vector: f.vector, hasCode: f.hasCode, code: f.code, ext: codeEXT, rip: c.r[slotRIP], flags: c.rflags()}
		switch f.vector {
		case x86.PF:
			c.cr2 = f.cr2
			e.flags |= x86.FlagRF
		case x86.DB:
			c.dr7 &^= dr7GD
		case x86.DF, x86.MC: // aborts
		default:
			e.flags |= x86.FlagRF // SDM volume 3, 17.3.1.1
		}
		switch c.try(&e) {
		case tryDone, tryStuck:
			return
		}
		next := c.fault
		switch {
		case f.vector == x86.DF && (contributory(next.vector) || next.vector == x86.PF):
			if next.vector == x86.PF {
				c.cr2 = next.cr2
			}
			c.engine.fail(c, x86.ErrTripleFault)
			return
		case contributory(f.vector) && contributory(next.vector),
			f.vector == x86.PF && (contributory(next.vector) || next.vector == x86.PF):
			if next.vector == x86.PF {
				c.cr2 = next.cr2
			}
			next = fault{vector: x86.DF, hasCode: true}
		}
		f = next
	}
}

// interrupt takes the CPU to the handler of an external interrupt.
func (c *cpu) interrupt(vector uint8) { c.external(vector) }

// nmi takes the CPU to the handler of a non-maskable interrupt; until IRET the
// next one waits.
func (c *cpu) nmi() {
	c.nmiPending, c.nmiMasked = false, true
	c.external(x86.NMI)
}

func (c *cpu) external(vector uint8) {
	c.activity = x86.Running
	e := event{vector: vector, ext: codeEXT, rip: c.r[slotRIP], flags: c.rflags()}
	if c.try(&e) == tryFault {
		c.deliver(c.fault)
	}
}

// What came of a delivery.
type tried uint8

const (
	tryDone  tried = iota
	tryFault       // cpu.fault is what it ran into
	tryStuck
)

// try delivers an event, and catches what that throws.
func (c *cpu) try(e *event) (result tried) {
	defer func() {
		switch r := recover(); r {
		case nil:
		case throwFault:
			result = tryFault
		case throwStuck:
			result = tryStuck
		default:
			panic(r)
		}
	}()
	c.enter(e)
	return tryDone
}

// enter delivers an event. Where it throws, the CPU is as before.
func (c *cpu) enter(e *event) {
	switch {
	case c.longMode():
		c.enterLong(e)
	case c.protected():
		c.enterProtected(e)
	default:
		c.enterReal(e)
	}
	c.shadow = 0
}

// gateCode is the error code that names the event's gate.
func (e *event) gateCode() uint32 { return uint32(e.vector)<<3 | codeIDT | e.ext }

// checkGate throws what using the event's gate faults with.
func (c *cpu) checkGate(e *event, g descriptor) {
	if e.soft && g.dpl() < c.cpl {
		c.raiseGP(e.gateCode())
	}
	if !g.present() {
		c.raiseCode(x86.NP, e.gateCode())
	}
}

// enteredCode checks the code segment that a gate leads to (SDM volume 2, INT n)
// and gives its CPL.
func (c *cpu) enteredCode(selector uint16, ext uint32) (d descriptor, at uint64, cpl uint8) {
	if isNull(selector) {
		c.raiseGP(ext)
	}
	d, at = c.descriptorAt(selector, x86.GP, ext)
	if !d.isCode() || d.dpl() > c.cpl || c.longMode() && (!d.long() || d.big()) {
		c.raiseGP(code(selector) | ext)
	}
	if !d.present() {
		c.raiseCode(x86.NP, code(selector)|ext)
	}
	cpl = c.cpl
	if !d.conforming() {
		cpl = d.dpl()
	}
	return d, at, cpl
}

// flagsCleared are the flags that every delivery in protected mode clears.
const flagsCleared = x86.FlagTF | x86.FlagNT | x86.FlagRF | x86.FlagVM

// enterLong is delivery in IA-32e mode (SDM volume 3, 6.14).
func (c *cpu) enterLong(e *event) {
	if uint64(e.vector)*16+15 > uint64(c.idt.Limit) {
		c.raiseGP(e.gateCode())
	}
	at := c.idt.Base + uint64(e.vector)*16
	g := descriptor(c.load64System(at))
	if g>>40&0x1f&^1 != sysInterrupt {
		c.raiseGP(e.gateCode())
	}
	c.checkGate(e, g)
	rip := g.offset() | c.load64System(at+8)<<32
	d, dAt, cpl := c.enteredCode(g.selector(), e.ext)
	sp := c.r[x86.RSP]
	if ist := uint64(g>>32) & 7; ist != 0 {
		sp = c.tss64(0x24+8*(ist-1), e.ext)
	} else if cpl != c.cpl {
		sp = c.tss64(4+8*uint64(cpl), e.ext)
	}
	if !isCanonical(rip) {
		c.raiseGP(e.ext)
	}
	c.setAccessed(&d, dAt)
	sp &^= 15
	frame := [6]uint64{uint64(e.code), e.rip, uint64(c.seg[x86.CS].Selector), e.flags, c.r[x86.RSP], uint64(c.seg[x86.SS].Selector)}
	first := 1
	if e.hasCode {
		first = 0
	}
	sp -= uint64(6-first) * 8
	c.storeFrame(sp, &frame, first, cpl, e.ext)
	c.r[x86.RSP] = sp
	was := c.cpl
	c.setCS(g.selector(), d, cpl)
	if cpl != was {
		c.setNull(x86.SS, uint16(cpl))
	}
	c.flags &^= flagsCleared
	if g>>40&1 == 0 {
		c.flags &^= x86.FlagIF
	}
	c.r[slotRIP] = rip
	c.updateMode()
	if cpl != was {
		c.updatePrivilege()
	}
}

// tss64 reads a stack pointer from the 64-bit TSS (SDM volume 3, figure 7-11).
func (c *cpu) tss64(offset uint64, ext uint32) uint64 {
	if offset+7 > uint64(c.tr.Limit) {
		c.raiseCode(x86.TS, code(c.tr.Selector)|ext)
	}
	return c.load64System(c.tr.Base + offset)
}

// storeFrame writes the words of a frame from the first one on at sp, a multiple
// of 8, with the rights of cpl.
func (c *cpu) storeFrame(sp uint64, frame *[6]uint64, first int, cpl uint8, ext uint32) {
	n := uint64(6-first) * 8
	m := tlbSupervisor
	switch {
	case cpl == 3:
		m = tlbUser
	case c.cpl != 3 && c.flags&x86.FlagAC != 0:
		m = tlbSupervisorAC
	}
	t := &c.tlbs[m].wr
	if e := &t.entry[sp>>pageShift%tlbEntries]; e.number() == (sp+n-1)>>pageShift && e.number() == sp>>pageShift {
		if e.tag&tagWatched != 0 {
			c.touched(sp, n, accessWrite)
		}
		b := e.page[sp&pageMask:][:n]
		for i, v := range frame[first:] {
			b := b[8*i:][:8]
			b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
			b[4], b[5], b[6], b[7] = byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56)
		}
		return
	}
	if !isCanonical(sp) || !isCanonical(sp+n-1) {
		c.raiseCode(x86.SSFault, ext)
	}
	// The words are pushed from the highest one down, and fault in that order.
	for a := sp + n - 8; ; a = a&^pageMask - 8 {
		g := c.translate(a, accessWrite, cpl == 3)
		low := max(sp, a&^pageMask)
		c.checkAlone(g-(a-low), a+8-low)
		if p := c.engine.page(g); p != nil && c.engine.code.at(g) == nil {
			c.engine.cfg.RAM.MarkDirty(g)
			c.insert(t, a, p)
		}
		if low == sp {
			break
		}
	}
	for i, v := range frame[first:] {
		c.storeAs(sp+8*uint64(i), 8, v, cpl == 3)
	}
}

// enterReal is delivery in real mode (SDM volume 3, 20.1.4).
func (c *cpu) enterReal(e *event) {
	if uint64(e.vector)*4+3 > uint64(c.idt.Limit) {
		c.raiseGP(e.gateCode())
	}
	to := c.loadSystem((c.idt.Base+uint64(e.vector)*4)&0xffff_ffff, 4)
	frame := [3]uint64{e.flags, uint64(c.seg[x86.CS].Selector), e.rip}
	c.pushAll(frame[:], 2)
	c.flags &^= x86.FlagIF | x86.FlagTF | x86.FlagAC | x86.FlagRF
	c.setRealCS(uint16(to >> 16))
	c.r[slotRIP] = to & 0xffff
	c.updatePrivilege()
}

// enterProtected is delivery in protected mode outside of IA-32e mode (SDM
// volume 3, 6.12).
func (c *cpu) enterProtected(e *event) {
	if uint64(e.vector)*8+7 > uint64(c.idt.Limit) {
		c.raiseGP(e.gateCode())
	}
	g := descriptor(c.load64System((c.idt.Base + uint64(e.vector)*8) & 0xffff_ffff))
	if g.isSegment() {
		c.raiseGP(e.gateCode())
	}
	size := uint8(4)
	rip := g.offset()
	switch g.kind() {
	case sysInterrupt16, sysTrap16:
		size = 2
		rip &= 0xffff
	case sysInterrupt, sysTrap:
	case sysTaskGate:
		c.checkGate(e, g)
		c.lackTask("a task switch by an interrupt")
	default:
		c.raiseGP(e.gateCode())
	}
	c.checkGate(e, g)
	d, at, cpl := c.enteredCode(g.selector(), e.ext)
	was := c.cpl
	s := c.currentStack()
	s.code = e.ext
	var ss uint16
	var sd descriptor
	var frame [6]uint64
	n := 0
	if cpl != was {
		frame[0], frame[1] = uint64(c.seg[x86.SS].Selector), c.r[x86.RSP]
		n = 2
		ss, sd, s = c.tssStack(cpl, e.ext)
	}
	frame[n], frame[n+1], frame[n+2] = e.flags, uint64(c.seg[x86.CS].Selector), e.rip
	n += 3
	if e.hasCode {
		frame[n] = uint64(e.code)
		n++
	}
	rip = c.checkTarget(d, rip, e.ext)
	c.pushOn(&s, frame[:n], size)
	c.setAccessed(&d, at)
	c.setCS(g.selector(), d, cpl)
	if cpl != was {
		c.setSegment(x86.SS, ss, sd)
	}
	c.r[x86.RSP] = s.sp
	c.flags &^= flagsCleared
	if g>>40&1 == 0 {
		c.flags &^= x86.FlagIF
	}
	c.r[slotRIP] = rip
	c.updateMode()
	c.updatePrivilege()
}

// tssStack gives the stack of a more privileged level from the TSS (SDM volume
// 3, 5.8.5).
func (c *cpu) tssStack(cpl uint8, ext uint32) (ss uint16, d descriptor, s stack) {
	var sp uint64
	if c.tr.Type == x86.TypeBusyTSS16 {
		offset := 2 + 4*uint64(cpl)
		if offset+3 > uint64(c.tr.Limit) {
			c.raiseCode(x86.TS, code(c.tr.Selector)|ext)
		}
		v := c.loadSystem(c.tr.Base+offset, 4)
		sp, ss = v&0xffff, uint16(v>>16)
	} else {
		offset := 4 + 8*uint64(cpl)
		if offset+5 > uint64(c.tr.Limit) {
			c.raiseCode(x86.TS, code(c.tr.Selector)|ext)
		}
		sp, ss = c.loadSystem(c.tr.Base+offset, 4), uint16(c.loadSystem(c.tr.Base+offset+4, 2))
	}
	if isNull(ss) {
		c.raiseCode(x86.TS, ext)
	}
	d, at := c.descriptorAt(ss, x86.TS, ext)
	if uint8(ss)&3 != cpl || d.dpl() != cpl || !d.writable() {
		c.raiseCode(x86.TS, code(ss)|ext)
	}
	if !d.present() {
		c.raiseCode(x86.SSFault, code(ss)|ext)
	}
	c.setAccessed(&d, at)
	s = stack{seg: d.segment(ss), base: d.base(), sp: sp, mask: 0xffff, user: cpl == 3, code: code(ss) | ext}
	if d.big() {
		s.mask = 0xffff_ffff
	}
	return ss, d, s
}

// software is INT n and its like: RIP is the next instruction's.
func (c *cpu) software(o *op, vector uint8, soft bool) {
	e := event{vector: vector, soft: soft, rip: c.after(o), flags: c.rflags()}
	if !soft {
		e.ext = codeEXT
		if vector == x86.DB {
			c.dr7 &^= dr7GD
		}
	}
	c.enter(&e)
	c.jumped = true
	c.entered = true
}

func opInt3(c *cpu, o *op) { c.software(o, x86.BP, true) }
func opInt(c *cpu, o *op)  { c.software(o, uint8(o.imm), true) }
func opInt1(c *cpu, o *op) { c.software(o, x86.DB, false) }

func opInto(c *cpu, o *op) {
	if c.of() {
		c.software(o, x86.OF, true)
	}
}

// opBound is BOUND, on signed numbers.
func opBound(c *cpu, o *op) {
	lower := int64(signExtend(c.load(c.part(o, 0, o.size), o.size), o.size))
	upper := int64(signExtend(c.load(c.part(o, uint64(o.size), o.size), o.size), o.size))
	if i := int64(signExtend(c.reg(o.reg, o.size), o.size)); i < lower || i > upper {
		c.raise(x86.BR)
	}
}

// returnFlags are those that IRET takes from the stack at any privilege.
const returnFlags = x86.FlagCF | x86.FlagPF | x86.FlagAF | x86.FlagZF | x86.FlagSF | x86.FlagTF | x86.FlagDF | x86.FlagOF | x86.FlagNT

// heed has the run loop look at what IF, TF or the end of an NMI may have let in.
func (c *cpu) heed() {
	if c.irq && c.flags&x86.FlagIF != 0 || c.flags&x86.FlagTF != 0 || c.nmiPending && !c.nmiMasked {
		c.attend()
	}
}

// flagsFor gives RFLAGS after a load of size bytes by IRET or POPF at the
// present CPL: wide are the flags beyond the lower 16 that it may set. RF never
// outlives the instruction that sets it: see resumeFlag.
func (c *cpu) flagsFor(v uint64, size uint8, wide uint64) uint64 {
	mask := uint64(returnFlags)
	if c.cpl <= c.iopl() {
		mask |= x86.FlagIF
	}
	if c.cpl == 0 {
		mask |= x86.FlagIOPL
	}
	if size > 2 {
		mask |= wide
	}
	return c.rflags()&^mask&^x86.FlagRF | v&mask | x86.FlagReserved
}

// iretWide are the flags above the lower 16 that IRET sets.
func (c *cpu) iretWide() uint64 {
	if c.cpl == 0 {
		return x86.FlagAC | x86.FlagID | x86.FlagVIF | x86.FlagVIP
	}
	return x86.FlagAC | x86.FlagID
}

// opIret is IRET (SDM volume 2, IRET).
func opIret(c *cpu, o *op) {
	size := uint64(o.size)
	switch {
	case !c.protected():
		rip, cs, f := c.peek(0, o.size), c.peek(size, o.size), c.peek(2*size, o.size)
		if rip > uint64(c.seg[x86.CS].Limit) {
			c.raiseGP(0)
		}
		f = c.flagsFor(f, o.size, x86.FlagAC|x86.FlagID)
		c.setSP(c.r[x86.RSP] + 3*size)
		c.setRealCS(uint16(cs))
		c.r[slotRIP] = rip
		c.setRFLAGS(f)
	case c.flags&x86.FlagNT != 0:
		if c.longMode() {
			c.raiseGP(0)
		}
		c.lackTask("a task switch by IRET")
	default:
		c.iretProtected(o, size)
	}
	c.jumped = true
	c.nmiMasked = false
	c.updatePrivilege()
	c.heed()
}

func (c *cpu) iretProtected(o *op, size uint64) {
	rip, selector, f := c.peek(0, o.size), uint16(c.peek(size, o.size)), c.peek(2*size, o.size)
	if f&x86.FlagVM != 0 && o.size > 2 && c.cpl == 0 && !c.longMode() {
		c.lackTask("a return to virtual-8086 mode")
	}
	d, at, cpl := c.returnCode(selector)
	if c.is64() || cpl != c.cpl {
		sp, ss := c.peek(3*size, o.size), uint16(c.peek(4*size, o.size))
		sd, ssAt := c.returnStack(ss, cpl, d)
		rip = c.checkTarget(d, rip, 0)
		flags := c.flagsFor(f, o.size, c.iretWide())
		c.setAccessed(&d, at)
		c.returnTo(selector, d, cpl, ss, sd, ssAt)
		c.updateMode() // the stack is that of the code returned to
		c.setReturnedSP(sp, o.size)
		c.setRFLAGS(flags)
	} else {
		rip = c.checkTarget(d, rip, 0)
		flags := c.flagsFor(f, o.size, c.iretWide())
		c.setAccessed(&d, at)
		c.setSP(c.r[x86.RSP] + 3*size)
		c.setCS(selector, d, cpl)
		c.setRFLAGS(flags)
		c.updateMode()
	}
	c.r[slotRIP] = rip
	if f&x86.FlagRF != 0 && o.size > 2 {
		c.resumeFlag()
	}
}

// setReturnedSP sets the stack pointer that a return to another stack popped.
func (c *cpu) setReturnedSP(sp uint64, size uint8) {
	switch width := c.stackWidth(); {
	case width == 8:
		c.r[x86.RSP] = sp
	default:
		c.setReg(x86.RSP, width, sp)
	}
}

// returnCode checks the code segment that a far return or IRET goes to.
func (c *cpu) returnCode(selector uint16) (d descriptor, at uint64, cpl uint8) {
	if isNull(selector) {
		c.raiseGP(0)
	}
	d, at = c.descriptorAt(selector, x86.GP, 0)
	cpl = uint8(selector) & 3
	if !d.isCode() || cpl < c.cpl || d.conforming() && d.dpl() > cpl || !d.conforming() && d.dpl() != cpl ||
		c.longMode() && d.long() && d.big() {
		c.raiseGP(code(selector))
	}
	if !d.present() {
		c.raiseCode(x86.NP, code(selector))
	}
	return d, at, cpl
}

// returnStack checks the stack segment that a far return or IRET goes to at
// cpl, with code segment d.
func (c *cpu) returnStack(ss uint16, cpl uint8, d descriptor) (sd descriptor, at uint64) {
	if isNull(ss) {
		if !c.longMode() || !d.long() || cpl == 3 || uint8(ss)&3 != cpl {
			c.raiseGP(0)
		}
		return 0, 0
	}
	sd, at = c.descriptorAt(ss, x86.GP, 0)
	if uint8(ss)&3 != cpl || !sd.writable() || sd.dpl() != cpl {
		c.raiseGP(code(ss))
	}
	if !sd.present() {
		c.raiseCode(x86.SSFault, code(ss))
	}
	return sd, at
}

// returnTo loads CS and SS for a return to cpl, and takes the data segments from
// it that it has no right to (SDM volume 2, RET).
func (c *cpu) returnTo(selector uint16, d descriptor, cpl uint8, ss uint16, sd descriptor, ssAt uint64) {
	if !isNull(ss) {
		c.setAccessed(&sd, ssAt)
	}
	was := c.cpl
	c.setCS(selector, d, cpl)
	if isNull(ss) {
		c.setNull(x86.SS, ss)
	} else {
		c.setSegment(x86.SS, ss, sd)
	}
	if cpl == was {
		return
	}
	for _, n := range [4]uint8{x86.ES, x86.DS, x86.FS, x86.GS} {
		s := &c.seg[n]
		conforming := s.Type&(typeIsCode|typeConforming) == typeIsCode|typeConforming
		if !s.Unusable && !isNull(s.Selector) && s.DPL < cpl && !conforming {
			c.setNull(n, 0)
		}
	}
}

// opRetFar is RET to another segment (SDM volume 2, RET).
func opRetFar(c *cpu, o *op) {
	size := uint64(o.size)
	rip, selector := c.peek(0, o.size), uint16(c.peek(size, o.size))
	if !c.protected() {
		if rip > uint64(c.seg[x86.CS].Limit) {
			c.raiseGP(0)
		}
		c.setSP(c.r[x86.RSP] + 2*size + o.imm)
		c.setRealCS(selector)
		c.jump(rip)
		return
	}
	d, at, cpl := c.returnCode(selector)
	if cpl == c.cpl {
		rip = c.checkTarget(d, rip, 0)
		c.setAccessed(&d, at)
		c.setSP(c.r[x86.RSP] + 2*size + o.imm)
		c.setCS(selector, d, cpl)
		c.updateMode()
		c.jump(rip)
		return
	}
	sp, ss := c.peek(2*size+o.imm, o.size), uint16(c.peek(3*size+o.imm, o.size))
	sd, ssAt := c.returnStack(ss, cpl, d)
	rip = c.checkTarget(d, rip, 0)
	c.setAccessed(&d, at)
	c.returnTo(selector, d, cpl, ss, sd, ssAt)
	c.updateMode()
	c.updatePrivilege()
	c.setReturnedSP(sp+o.imm, o.size)
	c.jump(rip)
}

// SYSCALL and its like have segments that no table is asked for.
const (
	flatCode   = descriptor(0x00af_9b00_0000_ffff) // 64-bit code, DPL 0
	flatCode32 = descriptor(0x00cf_9b00_0000_ffff)
	flatData   = descriptor(0x00cf_9300_0000_ffff)
	forUser    = descriptor(3 << 45) // DPL 3
)

// enterFlat is SYSCALL's and SYSENTER's change to CPL 0.
func (c *cpu) enterFlat(cs uint16, d descriptor, ss uint16) {
	c.setCS(cs, d, 0)
	c.setSegment(x86.SS, ss, flatData)
	c.updateMode()
	c.updatePrivilege()
}

// leaveFlat is the way back, to CPL 3.
func (c *cpu) leaveFlat(cs uint16, d descriptor, ss uint16) {
	c.setCS(cs, d|forUser, 3)
	c.setSegment(x86.SS, ss|3, flatData|forUser)
	c.updateMode()
	c.updatePrivilege()
	c.heed()
}

// opSyscall is SYSCALL (SDM volume 2). The decoder has it in 64-bit mode only.
func opSyscall(c *cpu, o *op) {
	if c.efer&x86.EFERSCE == 0 {
		c.raiseUD()
	}
	f := c.rflags()
	c.r[x86.RCX], c.r[x86.R11] = c.after(o), f&^x86.FlagRF
	c.setRFLAGS(f&^c.sfmask&^x86.FlagRF | x86.FlagReserved)
	cs := uint16(c.star >> 32)
	c.enterFlat(cs&^3, flatCode, cs&^3+8)
	c.jump(c.lstar)
}

// sysretFlags are those that SYSRET takes from R11.
const sysretFlags = 0x3c_7fd7

// opSysret is SYSRET (SDM volume 2).
func opSysret(c *cpu, o *op) {
	if c.efer&x86.EFERSCE == 0 {
		c.raiseUD()
	}
	c.needCPL0()
	rip, cs, d := c.r[x86.RCX], uint16(c.star>>48), flatCode
	ss := cs + 8
	if o.size == 8 {
		if !isCanonical(rip) {
			c.raiseGP(0)
		}
		cs += 16
	} else {
		rip &= 0xffff_ffff
		d = flatCode32
	}
	c.setRFLAGS(c.r[x86.R11]&sysretFlags | x86.FlagReserved)
	c.leaveFlat(cs, d, ss)
	c.jump(rip)
}

// opSysenter is SYSENTER (SDM volume 2).
func opSysenter(c *cpu, _ *op) {
	cs := uint16(c.sysenterCS)
	if !c.protected() || isNull(cs) {
		c.raiseGP(0)
	}
	c.setRFLAGS(c.rflags() &^ (x86.FlagVM | x86.FlagIF | x86.FlagRF))
	cs &^= 3
	if c.longMode() {
		c.enterFlat(cs, flatCode, cs+8)
		c.r[x86.RSP] = c.sysenterESP
		c.jump(c.sysenterEIP)
		return
	}
	c.enterFlat(cs, flatCode32, cs+8)
	c.r[x86.RSP] = c.sysenterESP & 0xffff_ffff
	c.jump(c.sysenterEIP & 0xffff_ffff)
}

// opSysexit is SYSEXIT (SDM volume 2).
func opSysexit(c *cpu, o *op) {
	cs := uint16(c.sysenterCS)
	if !c.protected() || isNull(cs) {
		c.raiseGP(0)
	}
	c.needCPL0()
	rip, sp := c.r[x86.RDX], c.r[x86.RCX]
	if c.is64() && o.size == 8 {
		if !isCanonical(rip) || !isCanonical(sp) {
			c.raiseGP(0)
		}
		c.leaveFlat(cs+32, flatCode, cs+40)
	} else {
		rip, sp = rip&0xffff_ffff, sp&0xffff_ffff
		c.leaveFlat(cs+16, flatCode32, cs+24)
	}
	c.r[x86.RSP] = sp
	c.jump(rip)
}
