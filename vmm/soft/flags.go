package soft

import (
	"math/bits"

	"fifovm/vmm/x86"
)

// The status flags (SDM volume 1, 3.4.3.1) are computed when they are looked
// at, since nearly all of them are overwritten before: an instruction leaves its
// result, its second operand and what it was. fRes is cut to the operand's size,
// and is zero exactly if ZF is set, whatever fKind.
//
//	explicit  the other status flags are those in cpu.flags
//	logic     CF and OF are 0
//	add       CF: fRes < fB
//	sub       fRes = A - fB
//	inc, dec  CF is the one in cpu.flags
//	shift     CF and OF are those in cpu.flags
type flagKind uint8

// The kinds: a group of four for the sizes of 1, 2, 4 and 8 bytes.
const (
	explicit flagKind = 0
	logic8   flagKind = 4 + iota - 1
	logic16
	logic32
	logic64
	add8
	add16
	add32
	add64
	sub8
	sub16
	sub32
	sub64
	inc8
	inc16
	inc32
	inc64
	dec8
	dec16
	dec32
	dec64
	shift8
	shift16
	shift32
	shift64
)

// statusFlags are those that fKind tells of.
const statusFlags = x86.FlagCF | x86.FlagPF | x86.FlagAF | x86.FlagZF | x86.FlagSF | x86.FlagOF

// shift is how far the sign bit is from bit 0.
func (k flagKind) shift() uint { return 8<<(k&3) - 1 }

func (c *cpu) zf() bool { return c.fRes == 0 }

func (c *cpu) cf() bool {
	switch c.fKind {
	case explicit, inc8, inc16, inc32, inc64, dec8, dec16, dec32, dec64, shift8, shift16, shift32, shift64:
		return c.flags&x86.FlagCF != 0
	case add8, add16, add32, add64:
		return c.fRes < c.fB
	case sub8:
		return uint8(c.fRes+c.fB) < uint8(c.fB)
	case sub16:
		return uint16(c.fRes+c.fB) < uint16(c.fB)
	case sub32:
		return uint32(c.fRes+c.fB) < uint32(c.fB)
	case sub64:
		return c.fRes+c.fB < c.fB
	}
	return false
}

func (c *cpu) sf() bool {
	if c.fKind == explicit {
		return c.flags&x86.FlagSF != 0
	}
	return c.fRes>>c.fKind.shift()&1 != 0
}

func (c *cpu) of() bool {
	s := c.fKind.shift() & 63
	switch c.fKind {
	case explicit, shift8, shift16, shift32, shift64:
		return c.flags&x86.FlagOF != 0
	case add8, add16, add32, add64:
		a := c.fRes - c.fB
		return (a^c.fRes)&(c.fB^c.fRes)>>s&1 != 0
	case sub8, sub16, sub32, sub64:
		a := c.fRes + c.fB
		return (a^c.fB)&(a^c.fRes)>>s&1 != 0
	case inc8, inc16, inc32, inc64:
		return c.fRes == 1<<s
	case dec8, dec16, dec32, dec64:
		return c.fRes == 1<<s-1
	}
	return false
}

func (c *cpu) af() bool {
	switch c.fKind {
	case explicit:
		return c.flags&x86.FlagAF != 0
	case add8, add16, add32, add64:
		return (c.fRes-c.fB^c.fB^c.fRes)&0x10 != 0
	case sub8, sub16, sub32, sub64:
		return (c.fRes+c.fB^c.fB^c.fRes)&0x10 != 0
	case inc8, inc16, inc32, inc64:
		return c.fRes&0xf == 0
	case dec8, dec16, dec32, dec64:
		return c.fRes&0xf == 0xf
	}
	return false // undefined after logic: cleared
}

func (c *cpu) pf() bool {
	if c.fKind == explicit {
		return c.flags&x86.FlagPF != 0
	}
	return bits.OnesCount8(uint8(c.fRes))&1 == 0
}

// rflags gives RFLAGS.
func (c *cpu) rflags() uint64 {
	f := c.flags
	if c.fKind != explicit {
		f &^= statusFlags
		f |= flag(c.cf(), x86.FlagCF) | flag(c.pf(), x86.FlagPF) | flag(c.af(), x86.FlagAF) |
			flag(c.zf(), x86.FlagZF) | flag(c.sf(), x86.FlagSF) | flag(c.of(), x86.FlagOF)
	}
	return f
}

// setRFLAGS replaces RFLAGS as it is: what an instruction may change is its own
// matter.
func (c *cpu) setRFLAGS(f uint64) {
	c.flags = f
	c.fKind = explicit
	c.fRes = ^f & x86.FlagZF
}

// setStatus replaces the status flags by those of f.
func (c *cpu) setStatus(f uint64) { c.setRFLAGS(c.flags&^statusFlags | f&statusFlags) }

func flag(on bool, bit uint64) uint64 {
	if on {
		return bit
	}
	return 0
}

// resultFlags gives PF, ZF and SF of a result of size bytes.
func resultFlags(v uint64, size uint8) uint64 {
	v &= sizeMask(size)
	return flag(bits.OnesCount8(uint8(v))&1 == 0, x86.FlagPF) | flag(v == 0, x86.FlagZF) | flag(v>>(8*size-1)&1 != 0, x86.FlagSF)
}

// sizeMask has the bits of an operand of size bytes.
func sizeMask(size uint8) uint64 { return ^uint64(0) >> (64 - 8*size) }

// condition evaluates a condition code (SDM volume 2, appendix B.1.4.7).
func (c *cpu) condition(cc uint8) bool {
	var r bool
	switch cc >> 1 & 7 {
	case 0:
		r = c.of()
	case 1:
		r = c.cf()
	case 2:
		r = c.zf()
	case 3:
		r = c.zf() || c.cf()
	case 4:
		r = c.sf()
	case 5:
		r = c.pf()
	case 6:
		r = c.less()
	case 7:
		r = c.zf() || c.less()
	}
	return r != (cc&1 != 0)
}

// less is SF != OF: after a comparison, signed less.
func (c *cpu) less() bool {
	switch c.fKind {
	case sub64:
		return int64(c.fRes+c.fB) < int64(c.fB)
	case sub32:
		return int32(c.fRes+c.fB) < int32(c.fB)
	}
	return c.sf() != c.of()
}

// setCF replaces CF alone.
func (c *cpu) setCF(on bool) {
	switch k := c.fKind; {
	case k >= logic8 && k <= logic64:
		c.flags &^= x86.FlagOF
		c.fKind = k - logic8 + shift8
	case k >= add8 && k <= sub64:
		c.setRFLAGS(c.rflags())
	}
	c.flags = c.flags&^x86.FlagCF | flag(on, x86.FlagCF)
}

// setShift sets the flags after a shift or a multiplication with result r, cut
// to size bytes.
func (c *cpu) setShift(r uint64, size uint8, cf, of bool) {
	c.flags = c.flags&^(x86.FlagCF|x86.FlagOF) | flag(cf, x86.FlagCF) | flag(of, x86.FlagOF)
	c.fRes, c.fKind = r, shift8+flagKind(bits.TrailingZeros8(size))
}
