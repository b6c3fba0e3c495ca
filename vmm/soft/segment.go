package soft

import "fifovm/vmm/x86"

// descriptor is the low 8 bytes of a segment or gate descriptor (SDM volume 3,
// 3.4.5 and 3.5).
type descriptor uint64

// Bits of a descriptor's type.
const (
	typeAccessed   = 1 << 0
	typeWrite      = 1 << 1 // of data
	typeRead       = 1 << 1 // of code
	typeExpandDown = 1 << 2 // of data
	typeConforming = 1 << 2 // of code
	typeIsCode     = 1 << 3
)

// Types of system descriptors (SDM volume 3, table 3-2).
const (
	sysTSS16       = 1
	sysLDT         = 2
	sysBusy        = 2 // the bit that tells a busy TSS from an available one
	sysCall16      = 4
	sysTaskGate    = 5
	sysInterrupt16 = 6
	sysTrap16      = 7
	sysTSS         = 9
	sysCall        = 12
	sysInterrupt   = 14
	sysTrap        = 15
)

func (d descriptor) kind() uint8      { return uint8(d>>40) & 0xf }
func (d descriptor) isSegment() bool  { return d>>44&1 != 0 } // code or data, not system
func (d descriptor) dpl() uint8       { return uint8(d>>45) & 3 }
func (d descriptor) present() bool    { return d>>47&1 != 0 }
func (d descriptor) long() bool       { return d>>53&1 != 0 }
func (d descriptor) big() bool        { return d>>54&1 != 0 }
func (d descriptor) isCode() bool     { return d.isSegment() && d.kind()&typeIsCode != 0 }
func (d descriptor) conforming() bool { return d.kind()&typeConforming != 0 }
func (d descriptor) readable() bool {
	return d.isSegment() && (d.kind()&typeIsCode == 0 || d.kind()&typeRead != 0)
}
func (d descriptor) writable() bool {
	return d.isSegment() && d.kind()&typeIsCode == 0 && d.kind()&typeWrite != 0
}
func (d descriptor) base() uint64 { return uint64(d>>16&0xff_ffff | d>>56<<24) }
func (d descriptor) limit() uint32 {
	l := uint32(d&0xffff | d>>32&0xf_0000)
	if d>>55&1 != 0 {
		l = l<<12 | 0xfff
	}
	return l
}

// selector and offset are those of a gate.
func (d descriptor) selector() uint16 { return uint16(d >> 16) }
func (d descriptor) offset() uint64   { return uint64(d&0xffff | d>>48<<16) }

// segment is what a segment register has of the descriptor behind selector.
func (d descriptor) segment(selector uint16) x86.Segment {
	return x86.Segment{
		Selector: selector,
		Base:     d.base(),
		Limit:    d.limit(),
		Type:     d.kind(),
		S:        uint8(d>>44) & 1,
		DPL:      d.dpl(),
		P:        uint8(d>>47) & 1,
		AVL:      uint8(d>>52) & 1,
		L:        uint8(d>>53) & 1,
		DB:       uint8(d>>54) & 1,
		G:        uint8(d>>55) & 1,
	}
}

// isNull is true of the four null selectors.
func isNull(selector uint16) bool { return selector&^3 == 0 }

// code is the selector as an error code has it.
func code(selector uint16) uint32 { return uint32(selector &^ 3) }

// isCanonical says whether an address is one of 48 bits, sign-extended.
func isCanonical(a uint64) bool { return int64(a)<<16>>16 == int64(a) }

func (c *cpu) is64() bool      { return c.mode&mode64 != 0 }
func (c *cpu) protected() bool { return c.cr0&x86.CR0PE != 0 }
func (c *cpu) longMode() bool  { return c.efer&x86.EFERLMA != 0 }
func (c *cpu) iopl() uint8     { return uint8(c.flags>>12) & 3 }

// after is the address of the instruction behind o.
func (c *cpu) after(o *op) uint64 {
	a := c.r[slotRIP] + uint64(o.off) + uint64(o.length)
	if c.mode&mode64 == 0 {
		a &= 0xffff_ffff
	}
	return a
}

// jump continues at rip.
func (c *cpu) jump(rip uint64) {
	c.r[slotRIP] = rip
	c.jumped = true
}

// needCPL0 throws #GP(0) unless the CPL is 0.
func (c *cpu) needCPL0() {
	if c.cpl != 0 {
		c.raiseGP(0)
	}
}

// load64System reads a word of a descriptor table or TSS: with the supervisor's
// rights at any CPL (SDM volume 3, 4.6.1), and not from user pages under SMAP.
func (c *cpu) load64System(a uint64) uint64 {
	t := &c.tlbs[tlbSupervisor].rd
	if e := &t.entry[a>>pageShift%tlbEntries]; e.tag == (a+7)>>pageShift {
		b := e.page[a&pageMask:]
		_ = b[7]
		return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
	}
	return c.loadSystemSlow(a, 8)
}

// loadSystem is load64System for other sizes.
func (c *cpu) loadSystem(a uint64, size uint8) uint64 {
	if size == 8 {
		return c.load64System(a)
	}
	return c.loadSystemSlow(a, size)
}

func (c *cpu) loadSystemSlow(a uint64, size uint8) uint64 {
	if p := c.tlbs[tlbSupervisor].rd.watchedPage(a, uint64(size)); p != nil && size == 8 {
		c.touched(a, 8, accessRead)
		return p.load(a, 8)
	}
	c.withoutAC(a, accessRead)
	if (a+uint64(size)-1)>>pageShift != a>>pageShift {
		c.withoutAC((a+uint64(size)-1)&^pageMask, accessRead)
		return c.loadAs(a, size, false)
	}
	g := c.withoutAC(a, accessRead)
	if p := c.engine.page(g); p != nil {
		c.insert(&c.tlbs[tlbSupervisor].rd, a, p)
	}
	return c.loadAs(a, size, false)
}

// withoutAC translates for an implicit access, which EFLAGS.AC doesn't open
// user pages to.
func (c *cpu) withoutAC(a uint64, kind access) uint64 {
	if c.flags&x86.FlagAC == 0 {
		return c.translate(a, kind, false)
	}
	defer func(f uint64) { c.flags = f }(c.flags)
	c.flags &^= x86.FlagAC
	return c.translate(a, kind, false)
}

// storeSystem writes to a descriptor table, in at most 4 bytes that don't cross
// a page.
func (c *cpu) storeSystem(a uint64, size uint8, v uint64) {
	c.withoutAC(a, accessWrite)
	c.storeAs(a, size, v, false)
}

// descriptorAt finds a descriptor: its address and its low 8 bytes. It throws
// the exception vector with the selector as its code where there is none; ext
// is that code's EXT bit.
func (c *cpu) descriptorAt(selector uint16, vector uint8, ext uint32) (d descriptor, at uint64) {
	base, limit := c.gdt.Base, uint32(c.gdt.Limit)
	if selector&4 != 0 {
		if c.ldt.Unusable || isNull(c.ldt.Selector) {
			c.raiseCode(vector, code(selector)|ext)
		}
		base, limit = c.ldt.Base, c.ldt.Limit
	}
	if uint32(selector|7) > limit {
		c.raiseCode(vector, code(selector)|ext)
	}
	at = base + uint64(selector&^7)
	if !c.longMode() {
		at &= 0xffff_ffff
	}
	return descriptor(c.load64System(at)), at
}

// setAccessed marks a segment's descriptor at address at as used.
func (c *cpu) setAccessed(d *descriptor, at uint64) {
	if *d>>40&typeAccessed == 0 {
		*d |= typeAccessed << 40
		c.storeSystem(at+5, 1, uint64(*d>>40))
	}
}

// setSegment puts a descriptor into a segment register other than CS.
func (c *cpu) setSegment(n uint8, selector uint16, d descriptor) {
	c.seg[n] = d.segment(selector)
	c.r[slotES+n] = d.base()
}

// setNull puts a null selector into a segment register. Its base becomes zero,
// as in Intel's processors.
func (c *cpu) setNull(n uint8, selector uint16) {
	c.seg[n] = x86.Segment{Selector: selector, DPL: uint8(selector) & 3, Unusable: true}
	if n != x86.SS {
		c.seg[n].DPL = 0
	}
	c.r[slotES+n] = 0
}

// setCS puts a code segment into CS, and makes cpl the CPL. The caller calls
// updateMode, and updatePrivilege where the CPL changes.
func (c *cpu) setCS(selector uint16, d descriptor, cpl uint8) {
	base, limit := d.base(), d.limit()
	if d.long() && c.longMode() {
		base = 0
	}
	if base != c.r[slotCS] || limit != c.seg[x86.CS].Limit && c.mode&mode64 == 0 {
		// Blocks' links know the address and the limit of the code segment.
		c.unlink(true)
	}
	c.seg[x86.CS] = d.segment(selector&^3 | uint16(cpl))
	c.r[slotCS] = base
	c.cpl = cpl
}

// loadSegment is a load of ES, SS, DS, FS or GS by an instruction (SDM volume 2,
// MOV).
func (c *cpu) loadSegment(n uint8, selector uint16) {
	if !c.protected() {
		s := &c.seg[n]
		s.Selector, s.Unusable = selector, false
		s.Type, s.S, s.P, s.DPL = x86.TypeData, 1, 1, 0
		c.r[slotES+n] = uint64(selector) << 4
		return
	}
	rpl := uint8(selector) & 3
	if isNull(selector) {
		if n == x86.SS && (!c.is64() || c.cpl == 3 || rpl != c.cpl) {
			c.raiseGP(0)
		}
		c.setNull(n, selector)
		if n == x86.SS {
			c.updateMode()
		}
		return
	}
	d, at := c.descriptorAt(selector, x86.GP, 0)
	if n == x86.SS {
		if rpl != c.cpl || !d.writable() || d.dpl() != c.cpl {
			c.raiseGP(code(selector))
		}
		if !d.present() {
			c.raiseCode(x86.SSFault, code(selector))
		}
	} else {
		if !d.readable() || (!d.isCode() || !d.conforming()) && (rpl > d.dpl() || c.cpl > d.dpl()) {
			c.raiseGP(code(selector))
		}
		if !d.present() {
			c.raiseCode(x86.NP, code(selector))
		}
	}
	c.setAccessed(&d, at)
	c.setSegment(n, selector, d)
	if n == x86.SS {
		c.updateMode()
	}
}

// linear is the linear address of n bytes at an offset in a segment outside of
// 64-bit mode; ok is false where the segment's limit forbids it.
func linear(s *x86.Segment, base, offset uint64, n uint8) (a uint64, ok bool) {
	last := offset + uint64(n) - 1
	switch {
	case s.Unusable:
		return 0, false
	case s.Type&(typeIsCode|typeExpandDown) == typeExpandDown && s.S != 0:
		top := uint64(0xffff)
		if s.DB != 0 {
			top = 0xffff_ffff
		}
		if offset <= uint64(s.Limit) || last > top {
			return 0, false
		}
	case last > uint64(s.Limit):
		return 0, false
	}
	return (base + offset) & 0xffff_ffff, true
}

// slowEA is the linear address of n bytes (0: as many as the operand has) at an
// offset in a memory operand's segment.
func (c *cpu) slowEA(o *op, offset uint64, n uint8) uint64 {
	if n == 0 {
		n = o.size
	}
	return c.inSegment(o.seg, offset, n)
}

// inSegment is the linear address of n bytes at an offset in the segment whose
// base is in a slot of cpu.r.
func (c *cpu) inSegment(slot uint8, offset uint64, n uint8) uint64 {
	if c.is64() || slot < slotES {
		return c.r[slot&31] + offset
	}
	a, ok := linear(&c.seg[(slot-slotES)%6], c.r[slot&31], offset, n)
	if !ok {
		if slot == slotSS {
			c.raiseCode(x86.SSFault, 0)
		}
		c.raiseGP(0)
	}
	return a
}

// part is the linear address of n bytes at a distance from the start of the
// memory operand.
func (c *cpu) part(o *op, distance uint64, n uint8) uint64 {
	if o.flags&flagSlowEA == 0 {
		return o.ea(c) + distance
	}
	offset := o.offset(c) + distance
	if o.addrSize == 4 && !c.is64() {
		offset &= 0xffff_ffff
	}
	return c.slowEA(o, offset, n)
}

// codeAddress is the linear address of code outside of 64-bit mode.
func (c *cpu) codeAddress(rip uint64) uint64 {
	if rip > uint64(c.seg[x86.CS].Limit) {
		c.raiseGP(0)
	}
	return (c.r[slotCS] + rip) & 0xffff_ffff
}

// stack is a stack to push on: that of the CPU, or the one to switch to.
type stack struct {
	seg  x86.Segment
	base uint64
	sp   uint64
	mask uint64 // of the stack's address size
	long bool   // in 64-bit mode: no segment
	user bool   // accesses are a user's
	code uint32 // of #SS
}

// stackMask is that of the CPU's stack.
func (c *cpu) stackMask() uint64 {
	switch {
	case c.is64():
		return ^uint64(0)
	case c.seg[x86.SS].DB != 0:
		return 0xffff_ffff
	}
	return 0xffff
}

func (c *cpu) currentStack() stack {
	return stack{seg: c.seg[x86.SS], base: c.r[slotSS], sp: c.r[x86.RSP], mask: c.stackMask(), long: c.is64(), user: c.user()}
}

// at is the linear address of n bytes at an offset in the stack.
func (c *cpu) at(s *stack, offset uint64, n uint8) uint64 {
	offset &= s.mask
	if s.long {
		if !isCanonical(offset) || !isCanonical(offset+uint64(n)-1) {
			c.raiseCode(x86.SSFault, s.code)
		}
		return offset
	}
	a, ok := linear(&s.seg, s.base, offset, n)
	if !ok {
		c.raiseCode(x86.SSFault, s.code)
	}
	return a
}

// pushOn pushes values of size bytes. It throws what any of the pushes faults
// with before it writes the first.
func (c *cpu) pushOn(s *stack, values []uint64, size uint8) {
	sp := s.sp
	for range values {
		sp -= uint64(size)
		a := c.at(s, sp, size)
		g := c.translate(a, accessWrite, s.user)
		c.checkAlone(g, min(uint64(size), pageSize-a&pageMask))
		if last := a + uint64(size) - 1; last>>pageShift != a>>pageShift {
			g = c.translate(last&^pageMask, accessWrite, s.user)
			c.checkAlone(g, last&pageMask+1)
		}
	}
	for _, v := range values {
		s.sp = s.sp&^s.mask | (s.sp-uint64(size))&s.mask
		c.storeAs(c.at(s, s.sp, size), size, v, s.user)
	}
}

// pushAll pushes values of size bytes on the CPU's stack, and throws as pushOn
// does.
func (c *cpu) pushAll(values []uint64, size uint8) {
	s := c.currentStack()
	c.pushOn(&s, values, size)
	c.r[x86.RSP] = s.sp
}

// stackAddress is the linear address of size bytes at an offset in the CPU's
// stack.
func (c *cpu) stackAddress(sp uint64, size uint8) uint64 {
	if c.is64() {
		if !isCanonical(sp) || !isCanonical(sp+uint64(size)-1) {
			c.raiseCode(x86.SSFault, 0)
		}
		return sp
	}
	return c.inSegment(slotSS, sp&c.stackMask(), size)
}

// push pushes a value of size bytes, in any mode.
func (c *cpu) push(v uint64, size uint8) {
	c.store(c.stackAddress(c.r[x86.RSP]-uint64(size), size), size, v)
	c.setSP(c.r[x86.RSP] - uint64(size))
}

// pop takes a value of size bytes off the stack, in any mode.
func (c *cpu) pop(size uint8) uint64 {
	v := c.peek(0, size)
	c.setSP(c.r[x86.RSP] + uint64(size))
	return v
}

// peek reads size bytes at a distance above the stack pointer.
func (c *cpu) peek(distance uint64, size uint8) uint64 {
	return c.load(c.stackAddress(c.r[x86.RSP]+distance, size), size)
}

// opPushSegment pushes a selector, with zeros above it.
func opPushSegment(c *cpu, o *op) { c.push(uint64(c.seg[o.reg].Selector), o.size) }

func opPopSegment(c *cpu, o *op) {
	v := c.peek(0, o.size)
	width := c.stackWidth() // of the old SS
	c.loadSegment(o.reg, uint16(v))
	c.setReg(x86.RSP, width, c.r[x86.RSP]+uint64(o.size))
}

func opMovFromSegment(c *cpu, o *op) {
	v := uint64(c.seg[o.reg].Selector)
	if o.flags&flagMem != 0 {
		c.store16(c.part(o, 0, 2), v)
		return
	}
	c.setReg(o.rm, o.size, v)
}

// word is the 16-bit operand of instructions on selectors.
func (c *cpu) word(o *op) uint16 {
	if o.flags&flagMem != 0 {
		return uint16(c.load16(c.part(o, 0, 2)))
	}
	return uint16(c.r[o.rm&15])
}

func opMovToSegment(c *cpu, o *op) { c.loadSegment(o.reg, c.word(o)) }

// farPointer reads a pointer of an offset and a selector from memory.
func (c *cpu) farPointer(o *op) (selector uint16, offset uint64) {
	offset = c.load(c.part(o, 0, o.size), o.size)
	return uint16(c.load16(c.part(o, uint64(o.size), 2))), offset
}

// opLoadFarPointer is LDS and its like.
func opLoadFarPointer(c *cpu, o *op) {
	selector, offset := c.farPointer(o)
	c.loadSegment(o.cond, selector)
	c.setReg(o.reg, o.size, offset)
}

func opJmpFarImm(c *cpu, o *op) { c.jmpFar(o, uint16(o.disp), o.imm) }

func opJmpFarMem(c *cpu, o *op) {
	selector, offset := c.farPointer(o)
	c.jmpFar(o, selector, offset)
}

func opCallFarImm(c *cpu, o *op) { c.callFar(o, uint16(o.disp), o.imm) }

func opCallFarMem(c *cpu, o *op) {
	selector, offset := c.farPointer(o)
	c.callFar(o, selector, offset)
}

// setRealCS loads CS in real mode.
func (c *cpu) setRealCS(selector uint16) {
	base := uint64(selector) << 4
	if base != c.r[slotCS] {
		c.unlink(true)
	}
	s := &c.seg[x86.CS]
	s.Selector, s.Unusable = selector, false
	s.Type, s.S, s.P, s.DPL = x86.TypeCode, 1, 1, 0
	c.r[slotCS] = base
	c.updateMode()
}

// checkTarget throws #GP(code) where rip is not an address in the code segment
// of descriptor d. It gives what RIP becomes.
func (c *cpu) checkTarget(d descriptor, rip uint64, code uint32) uint64 {
	if c.longMode() && d.long() {
		if !isCanonical(rip) {
			c.raiseGP(code)
		}
		return rip
	}
	rip &= 0xffff_ffff
	if rip > uint64(d.limit()) {
		c.raiseGP(code)
	}
	return rip
}

// farCode checks a descriptor for a far jump or call without a gate to it (SDM
// volume 2, JMP).
func (c *cpu) farCode(selector uint16, d descriptor) {
	rpl := uint8(selector) & 3
	switch {
	case d.long() && d.big() && c.longMode():
		c.raiseGP(code(selector))
	case d.conforming():
		if d.dpl() > c.cpl {
			c.raiseGP(code(selector))
		}
	case rpl > c.cpl || d.dpl() != c.cpl:
		c.raiseGP(code(selector))
	}
	if !d.present() {
		c.raiseCode(x86.NP, code(selector))
	}
}

// jmpFar is a far jump (SDM volume 2, JMP).
func (c *cpu) jmpFar(o *op, selector uint16, offset uint64) {
	if !c.protected() {
		if offset > uint64(c.seg[x86.CS].Limit) {
			c.raiseGP(0)
		}
		c.setRealCS(selector)
		c.jump(offset)
		return
	}
	if isNull(selector) {
		c.raiseGP(0)
	}
	d, at := c.descriptorAt(selector, x86.GP, 0)
	if !d.isCode() {
		selector, offset, d, at = c.gate(o, selector, d, at)
		// A jump through a gate doesn't change the CPL.
		if !d.isCode() || d.conforming() && d.dpl() > c.cpl || !d.conforming() && d.dpl() != c.cpl {
			c.raiseGP(code(selector))
		}
		if !d.present() {
			c.raiseCode(x86.NP, code(selector))
		}
	} else {
		c.farCode(selector, d)
	}
	offset = c.checkTarget(d, offset, 0)
	c.setAccessed(&d, at)
	c.setCS(selector, d, c.cpl)
	c.updateMode()
	c.jump(offset)
}

// gate looks through a call gate: it gives what the code segment's selector,
// the offset and the descriptor are. What else is no code segment is a task or
// nothing.
func (c *cpu) gate(o *op, selector uint16, d descriptor, at uint64) (uint16, uint64, descriptor, uint64) {
	if d.isSegment() {
		c.raiseGP(code(selector))
	}
	long := c.longMode()
	switch kind := d.kind(); {
	case kind == sysCall || kind == sysCall16 && !long:
	case !long && (kind == sysTaskGate || kind == sysTSS || kind == sysTSS16):
		c.lackTask("a task switch by a far transfer")
	default:
		c.raiseGP(code(selector))
	}
	if d.dpl() < c.cpl || d.dpl() < uint8(selector)&3 {
		c.raiseGP(code(selector))
	}
	offset := d.offset()
	if d.kind() == sysCall16 {
		offset &= 0xffff
	}
	if long {
		if uint32(selector&^7)+15 > c.tableLimit(selector) {
			c.raiseGP(code(selector))
		}
		high := c.load64System(at + 8)
		if high>>40&0x1f != 0 {
			c.raiseGP(code(selector))
		}
		offset |= high << 32
	}
	if !d.present() {
		c.raiseCode(x86.NP, code(selector))
	}
	target := d.selector()
	if isNull(target) {
		c.raiseGP(0)
	}
	t, tAt := c.descriptorAt(target, x86.GP, 0)
	if !t.isCode() || t.dpl() > c.cpl || long && (!t.long() || t.big()) {
		c.raiseGP(code(target))
	}
	return target, offset, t, tAt
}

// tableLimit is the limit of the table that selector is of.
func (c *cpu) tableLimit(selector uint16) uint32 {
	if selector&4 != 0 {
		return c.ldt.Limit
	}
	return uint32(c.gdt.Limit)
}

// lackTask stops the machine: hardware task switches are not implemented.
func (c *cpu) lackTask(what string) {
	c.engine.lacks(c, what)
	panic(throwStuck)
}

// callFar is a far call (SDM volume 2, CALL).
func (c *cpu) callFar(o *op, selector uint16, offset uint64) {
	back := [2]uint64{uint64(c.seg[x86.CS].Selector), c.after(o)}
	if !c.protected() {
		if offset > uint64(c.seg[x86.CS].Limit) {
			c.raiseGP(0)
		}
		c.pushAll(back[:], o.size)
		c.setRealCS(selector)
		c.jump(offset)
		return
	}
	if isNull(selector) {
		c.raiseGP(0)
	}
	d, at := c.descriptorAt(selector, x86.GP, 0)
	size := o.size
	if !d.isCode() {
		g := d
		selector, offset, d, at = c.gate(o, selector, d, at)
		size = 4
		switch {
		case c.longMode():
			size = 8
		case g.kind() == sysCall16:
			size = 2
		}
		if !d.present() {
			c.raiseCode(x86.NP, code(selector))
		}
		offset = c.checkTarget(d, offset, 0)
		if !d.conforming() && d.dpl() < c.cpl {
			c.callInner(g, selector, offset, d, at, size, back)
			return
		}
		if c.longMode() {
			// The return address goes on the stack as 64-bit code would see it.
			s := c.currentStack()
			s.long, s.mask = true, ^uint64(0)
			c.pushOn(&s, back[:], size)
			c.r[x86.RSP] = s.sp
		} else {
			c.pushAll(back[:], size)
		}
	} else {
		c.farCode(selector, d)
		offset = c.checkTarget(d, offset, 0)
		c.pushAll(back[:], size)
	}
	c.setAccessed(&d, at)
	c.setCS(selector, d, c.cpl)
	c.updateMode()
	c.jump(offset)
}

// callInner is a far call through gate g to more privileged code (SDM volume 3,
// 5.8.5).
func (c *cpu) callInner(g descriptor, selector uint16, offset uint64, d descriptor, at uint64, size uint8, back [2]uint64) {
	cpl := d.dpl()
	var s stack
	var ss uint16
	var sd descriptor
	var values [4 + 31]uint64 // SS, SP, the parameters, CS and IP
	n := 2
	values[0], values[1] = uint64(c.seg[x86.SS].Selector), c.r[x86.RSP]
	if c.longMode() {
		s = stack{sp: c.tss64(4+8*uint64(cpl), 0), mask: ^uint64(0), long: true}
		if !isCanonical(s.sp) {
			c.raiseCode(x86.SSFault, 0)
		}
		ss = uint16(cpl)
	} else {
		ss, sd, s = c.tssStack(cpl, 0)
		count := int(g>>32) & 0x1f
		for i := range count {
			values[n] = c.peek(uint64(size)*uint64(count-1-i), size)
			n++
		}
	}
	values[n], values[n+1] = back[0], back[1]
	c.pushOn(&s, values[:n+2], size)
	c.setAccessed(&d, at)
	c.setCS(selector, d, cpl)
	if c.longMode() {
		c.setNull(x86.SS, ss)
	} else {
		c.setSegment(x86.SS, ss, sd)
	}
	c.r[x86.RSP] = s.sp
	c.updateMode()
	c.updatePrivilege()
	c.jump(offset)
}
