package soft

import (
	"encoding/binary"

	"fifovm/vmm/x86"
)

// String instructions (SDM volume 2, REP). With a repeat prefix they work in
// portions: after each the registers are those between two elements, so that
// an interrupt, a fault or a pause finds the instruction ready to go on. A
// portion counts as one retired instruction.

// repPortion is the number of elements after which a repeated instruction lets
// others look. Of those that are done in bulk, bulkElements count as one.
const (
	repPortion   = 512
	bulkElements = 16
)

// repeat does a string instruction: one element, or the elements that RCX
// counts. bulk, if not nil, does several at once and says how many, none where
// they need one's care; more says whether another may follow.
func (c *cpu) repeat(o *op, one func(c *cpu, o *op), bulk func(c *cpu, o *op, count uint64) uint64, more func(c *cpu) bool) {
	if o.rep == repNone {
		one(c, o)
		return
	}
	portion := uint64(repPortion)
	if c.flags&x86.FlagTF != 0 {
		portion = 1 // traps after each element
	}
	count := c.reg(x86.RCX, o.addrSize)
	for done := uint64(0); count > 0; {
		if done >= portion {
			c.again(o)
			return
		}
		n := uint64(0)
		if bulk != nil && portion > 1 {
			n = bulk(c, o, count)
		}
		if n == 0 {
			one(c, o)
			n = 1
		}
		count -= n
		done += 1 + n/bulkElements
		c.setReg(x86.RCX, o.addrSize, count)
		if more != nil && !more(c) {
			return
		}
	}
}

// again has the instruction, the last of its block, continue with itself.
func (c *cpu) again(o *op) {
	c.r[slotRIP] += uint64(o.off)
	c.jumped = true
}

// source and destination are the linear addresses of the next elements.
func (c *cpu) source(o *op) uint64 {
	if o.addrSize == 8 {
		return c.r[o.seg&31] + c.r[x86.RSI]
	}
	return c.slowEA(o, c.reg(x86.RSI, o.addrSize), o.size)
}

func (c *cpu) destination(o *op) uint64 {
	if o.addrSize == 8 {
		return c.r[x86.RDI]
	}
	es := op{seg: slotES, addrSize: o.addrSize, flags: o.flags &^ flagStack}
	if c.mode&mode64 != 0 {
		es.seg = slotZero
	}
	return c.slowEA(&es, c.reg(x86.RDI, o.addrSize), o.size)
}

// advance moves a string register by one element.
func (c *cpu) advance(o *op, reg uint8) {
	d := uint64(o.size)
	if c.flags&x86.FlagDF != 0 {
		d = -d
	}
	c.setReg(reg, o.addrSize, c.r[reg]+d)
}

func opMovs(c *cpu, o *op) { c.repeat(o, movsOne, movsBulk, nil) }

func movsOne(c *cpu, o *op) {
	v := c.load(c.source(o), o.size)
	c.store(c.destination(o), o.size, v)
	c.advance(o, x86.RSI)
	c.advance(o, x86.RDI)
}

// movsBulk copies within two pages.
func movsBulk(c *cpu, o *op, count uint64) uint64 {
	if o.addrSize != 8 || c.flags&x86.FlagDF != 0 {
		return 0
	}
	src, dst := c.source(o), c.r[x86.RDI]
	n := min(count, (pageSize-src&pageMask)/uint64(o.size), (pageSize-dst&pageMask)/uint64(o.size))
	bytes := n * uint64(o.size)
	if n < 2 || dst-src < bytes { // what is written would be read again
		return 0
	}
	from := c.pageForRead(src)
	to := c.pageForWrite(dst)
	if from == nil || to == nil {
		return 0
	}
	s, d := from[src&pageMask:][:bytes], to[dst&pageMask:][:bytes]
	if from == to && dst&pageMask-src&pageMask < bytes { // the same page by another address
		return 0
	}
	copy(d, s)
	c.touched(src, bytes, accessRead)
	c.touched(dst, bytes, accessWrite)
	c.r[x86.RSI] += bytes
	c.r[x86.RDI] += bytes
	return n
}

func opStos(c *cpu, o *op) { c.repeat(o, stosOne, stosBulk, nil) }

func stosOne(c *cpu, o *op) {
	c.store(c.destination(o), o.size, c.r[x86.RAX])
	c.advance(o, x86.RDI)
}

// stosBulk fills within a page.
func stosBulk(c *cpu, o *op, count uint64) uint64 {
	if o.addrSize != 8 || c.flags&x86.FlagDF != 0 {
		return 0
	}
	dst := c.r[x86.RDI]
	n := min(count, (pageSize-dst&pageMask)/uint64(o.size))
	if n < 2 {
		return 0
	}
	to := c.pageForWrite(dst)
	if to == nil {
		return 0
	}
	d := to[dst&pageMask:][:n*uint64(o.size)]
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], c.r[x86.RAX])
	if v := c.r[x86.RAX] & sizeMask(o.size); v == 0 {
		clear(d)
	} else {
		for k := copy(d, b[:o.size]); k < len(d); k *= 2 {
			copy(d[k:], d[:k])
		}
	}
	c.touched(dst, uint64(len(d)), accessWrite)
	c.r[x86.RDI] += uint64(len(d))
	return n
}

func opLods(c *cpu, o *op) { c.repeat(o, lodsOne, nil, nil) }

func lodsOne(c *cpu, o *op) {
	c.setReg(x86.RAX, o.size, c.load(c.source(o), o.size))
	c.advance(o, x86.RSI)
}

func opCmps(c *cpu, o *op) { c.repeat(o, cmpsOne, nil, moreIf(o)) }

func cmpsOne(c *cpu, o *op) {
	a := c.load(c.source(o), o.size)
	b := c.load(c.destination(o), o.size)
	c.compare(a, b, o.size)
	c.advance(o, x86.RSI)
	c.advance(o, x86.RDI)
}

func opScas(c *cpu, o *op) { c.repeat(o, scasOne, nil, moreIf(o)) }

func scasOne(c *cpu, o *op) {
	c.compare(c.reg(x86.RAX, o.size), c.load(c.destination(o), o.size), o.size)
	c.advance(o, x86.RDI)
}

// moreIf is whether REPE or REPNE goes on.
func moreIf(o *op) func(c *cpu) bool {
	if o.rep == repE {
		return (*cpu).zf
	}
	return func(c *cpu) bool { return !c.zf() }
}

// pageForRead and pageForWrite give the page of RAM at a linear address for an
// access that the present privilege permits; nil where it is not RAM or, for a
// write, has code in it. They throw what the access faults with.
func (c *cpu) pageForRead(a uint64) *page {
	if e := &c.rd.entry[a>>pageShift%tlbEntries]; e.tag == a>>pageShift {
		return e.page
	}
	if p := c.rd.watchedPage(a, 1); p != nil {
		return p
	}
	p := c.engine.page(c.translate(a, accessRead, c.user()))
	if c.aligned {
		return nil // each element is looked at
	}
	if p != nil {
		c.insert(c.rd, a, p)
	}
	return p
}

func (c *cpu) pageForWrite(a uint64) *page {
	if e := &c.wr.entry[a>>pageShift%tlbEntries]; e.tag == a>>pageShift {
		return e.page
	}
	if p := c.wr.watchedPage(a, 1); p != nil {
		return p
	}
	g := c.translate(a, accessWrite, c.user())
	p := c.engine.page(g)
	if p == nil || c.aligned || c.engine.code.at(g) != nil {
		return nil
	}
	c.engine.cfg.RAM.MarkDirty(g)
	c.insert(c.wr, a, p)
	return p
}
