package soft

// MMX: the registers are the significands of the x87's (SDM volume 1, 9.2), and
// each instruction makes the x87 look used (enterMMX). REX does not extend their
// numbers.

// mmOperand is the second operand of 8 bytes.
func (c *cpu) mmOperand(o *op) uint64 {
	if o.flags&flagMem != 0 {
		return c.load64(o.ea(c))
	}
	return c.mm(o.rm & 7)
}

// mmxStore readies the x87 for an instruction that writes n bytes of memory: it
// must not have changed when that faults.
func (c *cpu) mmxStore(o *op, n uint64) {
	if o.flags&flagMem != 0 {
		c.probeWrite(o.ea(c), n)
	}
	c.enterMMX()
}

func opEmms(c *cpu, _ *op) { c.emptyMMX() }

func mmxLanes(f lanes) handler {
	return func(c *cpu, o *op) {
		b := c.mmOperand(o)
		c.enterMMX()
		c.setMM(o.reg&7, f(c.mm(o.reg&7), b))
	}
}

// mmxUnpackLow is PUNPCKL, which reads only 4 bytes of memory.
func mmxUnpackLow(f lanes) handler {
	return func(c *cpu, o *op) {
		var b uint64
		if o.flags&flagMem != 0 {
			b = c.load32(o.ea(c))
		} else {
			b = c.mm(o.rm & 7)
		}
		c.enterMMX()
		c.setMM(o.reg&7, f(c.mm(o.reg&7), b))
	}
}

func mmxUnpackHigh(f lanes) handler {
	return mmxLanes(func(a, b uint64) uint64 { return f(a>>32, b>>32) })
}

func mmxShift(f laneShift) handler { return mmxLanes(lanes(f)) }

func mmxShiftImm(group [8]laneShift) handler {
	return func(c *cpu, o *op) {
		f := group[o.reg&7]
		if f == nil {
			c.raiseUD()
		}
		c.enterMMX()
		c.setMM(o.rm&7, f(c.mm(o.rm&7), o.imm))
	}
}

// opMovdMM is MOVD, and MOVQ with REX.W.
func opMovdMM(c *cpu, o *op) {
	v := c.general(o)
	c.enterMMX()
	c.setMM(o.reg&7, v)
}

func opMovdMMStore(c *cpu, o *op) {
	c.mmxStore(o, uint64(max(o.size, 4)))
	c.setGeneral(o, c.mm(o.reg&7))
}

func opMovqMM(c *cpu, o *op) {
	v := c.mmOperand(o)
	c.enterMMX()
	c.setMM(o.reg&7, v)
}

// opMovqMMStore is also MOVNTQ.
func opMovqMMStore(c *cpu, o *op) {
	c.mmxStore(o, 8)
	if o.flags&flagMem != 0 {
		c.store64(o.ea(c), c.mm(o.reg&7))
		return
	}
	c.setMM(o.rm&7, c.mm(o.reg&7))
}

func opPshufw(c *cpu, o *op) {
	v := c.mmOperand(o)
	c.enterMMX()
	c.setMM(o.reg&7, shuffleWords(v, o.imm))
}

func opPshufbMM(c *cpu, o *op) {
	b := c.mmOperand(o)
	c.enterMMX()
	a := c.mm(o.reg & 7)
	var r uint64
	for i := uint(0); i < 64; i += 8 {
		if n := b >> i; n&0x80 == 0 {
			r |= a >> (n & 7 * 8) & 0xff << i
		}
	}
	c.setMM(o.reg&7, r)
}

func opPalignrMM(c *cpu, o *op) {
	b := c.mmOperand(o)
	c.enterMMX()
	n := 8 * o.imm
	if n < 64 {
		b = b>>n | c.mm(o.reg&7)<<(64-n)
	} else {
		b = c.mm(o.reg&7) >> (n - 64)
	}
	c.setMM(o.reg&7, b)
}

func opPinsrwMM(c *cpu, o *op) {
	v := c.smallSource(o, 2)
	c.enterMMX()
	n := o.imm & 3 * 16
	c.setMM(o.reg&7, blend(c.mm(o.reg&7), v<<n, 0xffff<<n))
}

func opPextrwMM(c *cpu, o *op) {
	c.enterMMX()
	c.r[o.reg&15] = c.mm(o.rm&7) >> (o.imm & 3 * 16) & 0xffff
}

func opPmovmskbMM(c *cpu, o *op) {
	c.enterMMX()
	c.r[o.reg&15] = byteSigns(c.mm(o.rm & 7))
}

func opMaskmovq(c *cpu, o *op) {
	v, mask := xmm{lo: c.mm(o.reg & 7)}.bytes(), xmm{lo: c.mm(o.rm & 7)}.bytes()
	c.probeMasked(o, mask[:8])
	c.enterMMX()
	c.maskedStore(o, v[:8], mask[:8])
}

func opMovq2dq(c *cpu, o *op) {
	c.enterMMX()
	c.xmm[o.reg&15] = xmm{lo: c.mm(o.rm & 7)}
}

func opMovdq2q(c *cpu, o *op) {
	c.enterMMX()
	c.setMM(o.reg&7, c.xmm[o.rm&15].lo)
}
