package soft

import (
	"encoding/binary"
	"slices"
)

// Moves and shuffles of XMM registers (SDM volume 2). A store without memory
// operand is the same move the other way.

// operand is the second operand of 16 bytes, in memory at a multiple of 16.
func (c *cpu) operand(o *op) xmm {
	if o.flags&flagMem != 0 {
		return c.load128a(o.ea(c))
	}
	return c.xmm[o.rm&15]
}

// operand64 is the second operand of an instruction that uses 8 bytes of it.
func (c *cpu) operand64(o *op) uint64 {
	if o.flags&flagMem != 0 {
		return c.load64(o.ea(c))
	}
	return c.xmm[o.rm&15].lo
}

// operand32 is the second operand of an instruction that uses 4 bytes of it.
func (c *cpu) operand32(o *op) uint32 {
	if o.flags&flagMem != 0 {
		return uint32(c.load32(o.ea(c)))
	}
	return uint32(c.xmm[o.rm&15].lo)
}

// general is a source in a general register or in memory, of 8 bytes with REX.W,
// else of 4: where 66 is the mandatory prefix it doesn't change the size.
func (c *cpu) general(o *op) uint64 {
	switch {
	case o.flags&flagMem == 0 && o.size == 8:
		return c.r[o.rm&15]
	case o.flags&flagMem == 0:
		return c.r[o.rm&15] & 0xffff_ffff
	case o.size == 8:
		return c.load64(o.ea(c))
	}
	return c.load32(o.ea(c))
}

// setGeneral is a destination as general is a source.
func (c *cpu) setGeneral(o *op, v uint64) {
	switch {
	case o.flags&flagMem == 0 && o.size == 8:
		c.r[o.rm&15] = v
	case o.flags&flagMem == 0:
		c.r[o.rm&15] = v & 0xffff_ffff
	case o.size == 8:
		c.store64(o.ea(c), v)
	default:
		c.store32(o.ea(c), v)
	}
}

// low32 is v with its lower 32 bits replaced.
func low32(v uint64, lo uint32) uint64 { return v>>32<<32 | uint64(lo) }

func (x xmm) bytes() (b [16]uint8) {
	binary.LittleEndian.PutUint64(b[:], x.lo)
	binary.LittleEndian.PutUint64(b[8:], x.hi)
	return b
}

func xmmOfBytes(b [16]uint8) xmm {
	return xmm{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])}
}

func (x xmm) doublewords() [4]uint32 {
	return [4]uint32{uint32(x.lo), uint32(x.lo >> 32), uint32(x.hi), uint32(x.hi >> 32)}
}

func xmmOfDoublewords(d [4]uint32) xmm {
	return xmm{uint64(d[0]) | uint64(d[1])<<32, uint64(d[2]) | uint64(d[3])<<32}
}

// opMovups is also MOVUPD, MOVDQU and LDDQU.
func opMovups(c *cpu, o *op) {
	if o.flags&flagMem != 0 {
		c.xmm[o.reg&15] = c.load128(o.ea(c))
		return
	}
	c.xmm[o.reg&15] = c.xmm[o.rm&15]
}

func opMovupsStore(c *cpu, o *op) {
	if o.flags&flagMem != 0 {
		c.store128(o.ea(c), c.xmm[o.reg&15])
		return
	}
	c.xmm[o.rm&15] = c.xmm[o.reg&15]
}

// opMovaps is also MOVAPD, MOVDQA and MOVNTDQA.
func opMovaps(c *cpu, o *op) {
	if o.flags&flagMem != 0 {
		c.xmm[o.reg&15] = c.load128a(o.ea(c))
		return
	}
	c.xmm[o.reg&15] = c.xmm[o.rm&15]
}

// opMovapsStore is also MOVNTPS and its like: there is no cache to go around.
func opMovapsStore(c *cpu, o *op) {
	if o.flags&flagMem != 0 {
		c.store128a(o.ea(c), c.xmm[o.reg&15])
		return
	}
	c.xmm[o.rm&15] = c.xmm[o.reg&15]
}

func opMovss(c *cpu, o *op) {
	r := &c.xmm[o.reg&15]
	if o.flags&flagMem != 0 {
		*r = xmm{lo: c.load32(o.ea(c))}
		return
	}
	r.lo = low32(r.lo, uint32(c.xmm[o.rm&15].lo))
}

func opMovssStore(c *cpu, o *op) {
	v := c.xmm[o.reg&15].lo & 0xffff_ffff
	if o.flags&flagMem != 0 {
		c.store32(o.ea(c), v)
		return
	}
	r := &c.xmm[o.rm&15]
	r.lo = low32(r.lo, uint32(v))
}

func opMovsd(c *cpu, o *op) {
	if o.flags&flagMem != 0 {
		c.xmm[o.reg&15] = xmm{lo: c.load64(o.ea(c))}
		return
	}
	c.xmm[o.reg&15].lo = c.xmm[o.rm&15].lo
}

func opMovsdStore(c *cpu, o *op) {
	if o.flags&flagMem != 0 {
		c.store64(o.ea(c), c.xmm[o.reg&15].lo)
		return
	}
	c.xmm[o.rm&15].lo = c.xmm[o.reg&15].lo
}

func opMovq(c *cpu, o *op) { c.xmm[o.reg&15] = xmm{lo: c.operand64(o)} }

func opMovqStore(c *cpu, o *op) {
	if o.flags&flagMem != 0 {
		c.store64(o.ea(c), c.xmm[o.reg&15].lo)
		return
	}
	c.xmm[o.rm&15] = xmm{lo: c.xmm[o.reg&15].lo}
}

func opMovd(c *cpu, o *op) { c.xmm[o.reg&15] = xmm{lo: c.general(o)} }

func opMovdStore(c *cpu, o *op) { c.setGeneral(o, c.xmm[o.reg&15].lo) }

// opMovlps is also MOVLPD, and MOVHLPS with a register.
func opMovlps(c *cpu, o *op) {
	if o.flags&flagMem != 0 {
		c.xmm[o.reg&15].lo = c.load64(o.ea(c))
		return
	}
	c.xmm[o.reg&15].lo = c.xmm[o.rm&15].hi
}

func opMovlpsStore(c *cpu, o *op) { c.store64(o.ea(c), c.xmm[o.reg&15].lo) }

// opMovhps is also MOVHPD, and MOVLHPS with a register.
func opMovhps(c *cpu, o *op) { c.xmm[o.reg&15].hi = c.operand64(o) }

func opMovhpsStore(c *cpu, o *op) { c.store64(o.ea(c), c.xmm[o.reg&15].hi) }

func opMovddup(c *cpu, o *op) {
	v := c.operand64(o)
	c.xmm[o.reg&15] = xmm{v, v}
}

func opMovsldup(c *cpu, o *op) {
	v := c.operand(o)
	c.xmm[o.reg&15] = xmm{low32(v.lo<<32, uint32(v.lo)), low32(v.hi<<32, uint32(v.hi))}
}

func opMovshdup(c *cpu, o *op) {
	v := c.operand(o)
	c.xmm[o.reg&15] = xmm{low32(v.lo, uint32(v.lo>>32)), low32(v.hi, uint32(v.hi>>32))}
}

func opMovmskps(c *cpu, o *op) {
	v := c.xmm[o.rm&15]
	c.r[o.reg&15] = v.lo>>31&1 | v.lo>>63<<1 | v.hi>>31&1<<2 | v.hi>>63<<3
}

func opMovmskpd(c *cpu, o *op) {
	v := c.xmm[o.rm&15]
	c.r[o.reg&15] = v.lo>>63 | v.hi>>63<<1
}

func opPmovmskb(c *cpu, o *op) {
	v := c.xmm[o.rm&15]
	c.r[o.reg&15] = byteSigns(v.lo) | byteSigns(v.hi)<<8
}

// byteSigns gathers the sign bits of eight bytes. The product has a copy of v for
// each of them, shifted such that the byte's bit is where it belongs.
func byteSigns(v uint64) uint64 { return v & signs8 * 0x0002_0408_1020_4081 >> 56 }

func opPshufd(c *cpu, o *op) {
	v := c.operand(o)
	c.xmm[o.reg&15] = xmm{
		v.doubleword(o.imm) | v.doubleword(o.imm>>2)<<32,
		v.doubleword(o.imm>>4) | v.doubleword(o.imm>>6)<<32,
	}
}

// doubleword is the one whose number is in n's lowest two bits.
func (x xmm) doubleword(n uint64) uint64 {
	v := x.lo
	if n&2 != 0 {
		v = x.hi
	}
	return v >> (n & 1 * 32) & 0xffff_ffff
}

func opShufps(c *cpu, o *op) {
	b := c.operand(o)
	a := c.xmm[o.reg&15]
	c.xmm[o.reg&15] = xmm{
		a.doubleword(o.imm) | a.doubleword(o.imm>>2)<<32,
		b.doubleword(o.imm>>4) | b.doubleword(o.imm>>6)<<32,
	}
}

func opShufpd(c *cpu, o *op) {
	b := c.operand(o)
	a := c.xmm[o.reg&15]
	c.xmm[o.reg&15] = xmm{a.quadword(o.imm), b.quadword(o.imm >> 1)}
}

// quadword is the one whose number is in n's lowest bit.
func (x xmm) quadword(n uint64) uint64 {
	if n&1 != 0 {
		return x.hi
	}
	return x.lo
}

// shuffleWords picks four words of v, their numbers in pairs of bits.
func shuffleWords(v, numbers uint64) uint64 {
	var r uint64
	for i := uint64(0); i < 4; i++ {
		r |= v >> (numbers >> (2 * i) & 3 * 16) & 0xffff << (16 * i)
	}
	return r
}

func opPshuflw(c *cpu, o *op) {
	v := c.operand(o)
	c.xmm[o.reg&15] = xmm{shuffleWords(v.lo, o.imm), v.hi}
}

func opPshufhw(c *cpu, o *op) {
	v := c.operand(o)
	c.xmm[o.reg&15] = xmm{v.lo, shuffleWords(v.hi, o.imm)}
}

func opPshufb(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	from := a.bytes()
	*a = xmm{shuffleBytes(&from, b.lo), shuffleBytes(&from, b.hi)}
}

// shuffleBytes picks a byte for each of numbers, or zero where its sign is set.
func shuffleBytes(from *[16]uint8, numbers uint64) uint64 {
	var r uint64
	for i := uint(0); i < 64; i += 8 {
		r |= uint64(from[numbers>>i&15]) << i
	}
	return r &^ (numbers & signs8 >> 7 * 0xff)
}

// opPalignr takes 16 bytes out of 32, from byte imm on.
func opPalignr(c *cpu, o *op) {
	b := c.operand(o)
	a := c.xmm[o.reg&15]
	v := [5]uint64{b.lo, b.hi, a.lo, a.hi}
	n, shift := o.imm/8, o.imm%8*8
	if n > 3 {
		c.xmm[o.reg&15] = xmm{}
		return
	}
	part := func(i uint64) uint64 {
		if i >= 4 {
			return 0
		}
		return v[i]>>shift | v[i+1]<<(64-shift)
	}
	c.xmm[o.reg&15] = xmm{part(n), part(n + 1)}
}

// blend takes b's bits where mask has ones.
func blend(a, b, mask uint64) uint64 { return a&^mask | b&mask }

// Masks of 128 bits from the bits of an immediate, lowest first.
func dwordMask(bits uint64) xmm {
	const one = 0xffff_ffff
	return xmm{bits&1*one | bits>>1&1*one<<32, bits>>2&1*one | bits>>3&1*one<<32}
}

func wordMask(bits uint64) uint64 {
	return bits&1*0xffff | bits>>1&1*0xffff<<16 | bits>>2&1*0xffff<<32 | bits>>3&1*0xffff<<48
}

func (c *cpu) blend(o *op, b, mask xmm) {
	a := &c.xmm[o.reg&15]
	*a = xmm{blend(a.lo, b.lo, mask.lo), blend(a.hi, b.hi, mask.hi)}
}

func opBlendps(c *cpu, o *op) { c.blend(o, c.operand(o), dwordMask(o.imm)) }

func opBlendpd(c *cpu, o *op) { c.blend(o, c.operand(o), xmm{-(o.imm & 1), -(o.imm >> 1 & 1)}) }

func opPblendw(c *cpu, o *op) {
	c.blend(o, c.operand(o), xmm{wordMask(o.imm), wordMask(o.imm >> 4)})
}

// The selector of the variable blends is XMM0.
func opPblendvb(c *cpu, o *op) {
	m := c.xmm[0]
	c.blend(o, c.operand(o), xmm{m.lo & signs8 >> 7 * 0xff, m.hi & signs8 >> 7 * 0xff})
}

func opBlendvps(c *cpu, o *op) {
	m := c.xmm[0]
	c.blend(o, c.operand(o), xmm{m.lo & signs32 >> 31 * 0xffff_ffff, m.hi & signs32 >> 31 * 0xffff_ffff})
}

func opBlendvpd(c *cpu, o *op) {
	m := c.xmm[0]
	c.blend(o, c.operand(o), xmm{-(m.lo >> 63), -(m.hi >> 63)})
}

// insert replaces size bits at bit number n of a register.
func (x *xmm) insert(n, size uint64, v uint64) {
	half := &x.lo
	if n >= 64 {
		half = &x.hi
	}
	mask := ^uint64(0) >> (64 - size) << (n & 63)
	*half = blend(*half, v<<(n&63), mask)
}

// extract gives size bits from bit number n on.
func (x xmm) extract(n, size uint64) uint64 {
	return x.quadword(n/64) >> (n & 63) & (^uint64(0) >> (64 - size))
}

// smallSource is the source of PINSRB and PINSRW, a general register or size
// bytes of memory.
func (c *cpu) smallSource(o *op, size uint8) uint64 {
	if o.flags&flagMem != 0 {
		return c.load(o.ea(c), size)
	}
	return c.r[o.rm&15]
}

// smallDestination is the destination of PEXTRB and its like: a general register,
// extended with zeros, or size bytes of memory.
func (c *cpu) smallDestination(o *op, size uint8, v uint64) {
	if o.flags&flagMem != 0 {
		c.store(o.ea(c), size, v)
		return
	}
	c.r[o.rm&15] = v
}

func opPinsrb(c *cpu, o *op) { c.xmm[o.reg&15].insert(o.imm&15*8, 8, c.smallSource(o, 1)) }
func opPinsrw(c *cpu, o *op) { c.xmm[o.reg&15].insert(o.imm&7*16, 16, c.smallSource(o, 2)) }

func opPinsrd(c *cpu, o *op) {
	v := c.general(o)
	if o.size == 8 {
		c.xmm[o.reg&15].insert(o.imm&1*64, 64, v)
	} else {
		c.xmm[o.reg&15].insert(o.imm&3*32, 32, v)
	}
}

func opPextrb(c *cpu, o *op) { c.smallDestination(o, 1, c.xmm[o.reg&15].extract(o.imm&15*8, 8)) }

func opPextrwStore(c *cpu, o *op) {
	c.smallDestination(o, 2, c.xmm[o.reg&15].extract(o.imm&7*16, 16))
}

func opPextrd(c *cpu, o *op) {
	v := c.xmm[o.reg&15]
	if o.size == 8 {
		c.setGeneral(o, v.quadword(o.imm))
	} else {
		c.setGeneral(o, v.doubleword(o.imm))
	}
}

func opExtractps(c *cpu, o *op) { c.smallDestination(o, 4, c.xmm[o.reg&15].doubleword(o.imm)) }

// opPextrw is the older PEXTRW, from a register into a register.
func opPextrw(c *cpu, o *op) { c.r[o.reg&15] = c.xmm[o.rm&15].extract(o.imm&7*16, 16) }

func opInsertps(c *cpu, o *op) {
	var v uint64
	if o.flags&flagMem != 0 {
		v = c.load32(o.ea(c))
	} else {
		v = c.xmm[o.rm&15].doubleword(o.imm >> 6)
	}
	r := c.xmm[o.reg&15]
	r.insert(o.imm>>4&3*32, 32, v)
	zero := dwordMask(o.imm)
	c.xmm[o.reg&15] = xmm{r.lo &^ zero.lo, r.hi &^ zero.hi}
}

// maskedStore writes the bytes of v whose sign is set in mask, at [RDI], which
// probeMasked has made sure of. Whether one that isn't written can fault is the
// processor's choice: here it can't.
func (c *cpu) maskedStore(o *op, v, mask []uint8) {
	a := o.ea(c)
	for i, m := range mask {
		if m&0x80 != 0 {
			c.store8(a+uint64(i), uint64(v[i]))
		}
	}
}

// probeMasked throws what maskedStore would fault with.
func (c *cpu) probeMasked(o *op, mask []uint8) {
	selected := func(m uint8) bool { return m&0x80 != 0 }
	first := slices.IndexFunc(mask, selected)
	if first < 0 {
		return
	}
	last := len(mask) - 1
	for !selected(mask[last]) {
		last--
	}
	c.probeWrite(o.ea(c)+uint64(first), uint64(last-first+1))
}

func opMaskmovdqu(c *cpu, o *op) {
	v, mask := c.xmm[o.reg&15].bytes(), c.xmm[o.rm&15].bytes()
	c.probeMasked(o, mask[:])
	c.maskedStore(o, v[:], mask[:])
}
