package soft

import "fifovm/vmm/x86"

// Integer instructions on packed elements (SDM volume 2). Most treat each 64 bits
// of their operands alike: those are functions of 64 bits, from which handlers
// for XMM and for MMX registers are made.

// lanes is an instruction on 64 bits of packed elements.
type lanes func(a, b uint64) uint64

// xmmLanes is for the instructions that do the same to both halves.
func xmmLanes(f lanes) handler {
	return func(c *cpu, o *op) {
		b := c.operand(o)
		a := &c.xmm[o.reg&15]
		*a = xmm{f(a.lo, b.lo), f(a.hi, b.hi)}
	}
}

// xmmPairs is for those that make half a register of each operand.
func xmmPairs(f lanes) handler {
	return func(c *cpu, o *op) {
		b := c.operand(o)
		a := &c.xmm[o.reg&15]
		*a = xmm{f(a.lo, a.hi), f(b.lo, b.hi)}
	}
}

// laneType is the type of an element.
type laneType interface {
	int8 | uint8 | int16 | uint16 | int32 | uint32 | int64 | uint64
}

// laneWidth is the size of an element in bits.
func laneWidth[T laneType]() uint {
	w := uint(0)
	for x := T(1); x != 0; x <<= 1 {
		w++
	}
	return w
}

// eachLane makes an instruction of what it does to each pair of elements.
func eachLane[T laneType](f func(x, y T) T) lanes {
	w := laneWidth[T]()
	mask := ^uint64(0) >> (64 - w)
	return func(a, b uint64) uint64 {
		var r uint64
		for i := uint(0); i < 64; i += w {
			r |= uint64(f(T(a>>i), T(b>>i))) & mask << i
		}
		return r
	}
}

// neighbours makes an instruction of what it does to each two elements side by
// side, first those of a and then those of b.
func neighbours[T laneType](f func(x, y T) T) lanes {
	w := laneWidth[T]()
	mask := ^uint64(0) >> (64 - w)
	return func(a, b uint64) uint64 {
		var r uint64
		for i := uint(0); i < 32; i += w {
			r |= uint64(f(T(a>>(2*i)), T(a>>(2*i+w)))) & mask << i
			r |= uint64(f(T(b>>(2*i)), T(b>>(2*i+w)))) & mask << (32 + i)
		}
		return r
	}
}

// saturate is v, or the number of T that is nearest to it.
func saturate[T laneType](v int) T {
	highest := ^T(0)
	if highest < 0 {
		highest = T(1)<<(laneWidth[T]()-1) - 1
	}
	return T(min(max(v, int(^highest)), int(highest)))
}

// packLanes makes elements of half the size, first of a and then of b.
func packLanes[From, To laneType](a, b uint64) uint64 {
	w := laneWidth[To]()
	mask := ^uint64(0) >> (64 - w)
	var r uint64
	for i := uint(0); i < 32; i += w {
		r |= uint64(saturate[To](int(From(a>>(2*i))))) & mask << i
		r |= uint64(saturate[To](int(From(b>>(2*i))))) & mask << (32 + i)
	}
	return r
}

// lanes0F are instructions of the map 0F that come with MMX and XMM registers.
var lanes0F = map[uint8]lanes{
	0x64: eachLane(greaterMask[int8]), // PCMPGTB
	0x65: eachLane(greaterMask[int16]),
	0x66: eachLane(greaterMask[int32]),
	0x74: pcmpeqb,
	0x75: pcmpeqw,
	0x76: pcmpeqd,
	0xd4: func(a, b uint64) uint64 { return a + b },                   // PADDQ
	0xd5: eachLane(func(x, y int16) int16 { return x * y }),           // PMULLW
	0xd8: eachLane(func(x, y uint8) uint8 { return x - min(x, y) }),   // PSUBUSB
	0xd9: eachLane(func(x, y uint16) uint16 { return x - min(x, y) }), // PSUBUSW
	0xda: pminub,
	0xdb: func(a, b uint64) uint64 { return a & b },                    // PAND
	0xdc: eachLane(func(x, y uint8) uint8 { return x + min(y, ^x) }),   // PADDUSB
	0xdd: eachLane(func(x, y uint16) uint16 { return x + min(y, ^x) }), // PADDUSW
	0xde: eachLane(larger[uint8]),                                      // PMAXUB
	0xdf: func(a, b uint64) uint64 { return b &^ a },                   // PANDN
	0xe0: eachLane(average[uint8]),                                     // PAVGB
	0xe3: eachLane(average[uint16]),
	0xe4: eachLane(func(x, y uint16) uint16 { return uint16(uint32(x) * uint32(y) >> 16) }), // PMULHUW
	0xe5: eachLane(func(x, y int16) int16 { return int16(int32(x) * int32(y) >> 16) }),      // PMULHW
	0xe8: eachLane(func(x, y int8) int8 { return saturate[int8](int(x) - int(y)) }),         // PSUBSB
	0xe9: eachLane(subSaturated),                                                            // PSUBSW
	0xea: eachLane(smaller[int16]),                                                          // PMINSW
	0xeb: func(a, b uint64) uint64 { return a | b },                                         // POR
	0xec: eachLane(func(x, y int8) int8 { return saturate[int8](int(x) + int(y)) }),         // PADDSB
	0xed: eachLane(addSaturated),                                                            // PADDSW
	0xee: eachLane(larger[int16]),                                                           // PMAXSW
	0xef: func(a, b uint64) uint64 { return a ^ b },                                         // PXOR
	0xf4: func(a, b uint64) uint64 { return a & 0xffff_ffff * (b & 0xffff_ffff) },           // PMULUDQ
	0xf5: pmaddwd,
	0xf6: psadbw,
	0xf8: psubb,
	0xf9: eachLane(difference[uint16]),
	0xfa: psubd,
	0xfb: func(a, b uint64) uint64 { return a - b }, // PSUBQ
	0xfc: paddb,
	0xfd: paddw,
	0xfe: paddd,
}

// lanes0F38 are those of the map 0F 38, SSSE3's.
var lanes0F38 = map[uint8]lanes{
	0x04: pmaddubsw,
	0x08: eachLane(withSign[int8]), // PSIGNB
	0x09: eachLane(withSign[int16]),
	0x0a: eachLane(withSign[int32]),
	0x0b: eachLane(func(x, y int16) int16 { return int16((int32(x)*int32(y)>>14 + 1) >> 1) }), // PMULHRSW
	0x1c: eachLane(func(_, y int8) int8 { return withSign(y, y) }),                            // PABSB
	0x1d: eachLane(func(_, y int16) int16 { return withSign(y, y) }),
	0x1e: eachLane(func(_, y int32) int32 { return withSign(y, y) }),
}

// lanesSSE41 are those of the map 0F 38 with XMM registers only, of SSE4.1 and
// SSE4.2.
var lanesSSE41 = map[uint8]lanes{
	0x28: func(a, b uint64) uint64 { return uint64(int64(int32(a)) * int64(int32(b))) }, // PMULDQ
	0x29: eachLane(func(x, y uint64) uint64 { // PCMPEQQ
		if x == y {
			return ^uint64(0)
		}
		return 0
	}),
	0x37: eachLane(greaterMask[int64]), // PCMPGTQ
	0x38: eachLane(smaller[int8]),      // PMINSB
	0x39: eachLane(smaller[int32]),
	0x3a: eachLane(smaller[uint16]),
	0x3b: eachLane(smaller[uint32]),
	0x3c: eachLane(larger[int8]), // PMAXSB
	0x3d: eachLane(larger[int32]),
	0x3e: eachLane(larger[uint16]),
	0x3f: eachLane(larger[uint32]),
	0x40: eachLane(func(x, y uint32) uint32 { return x * y }), // PMULLD
}

// pairs0F are instructions of the map 0F that make half of their result of each
// operand; for MMX registers these are the halves of 64 bits.
var pairs0F = map[uint8]lanes{
	0x63: packLanes[int16, int8],  // PACKSSWB
	0x67: packLanes[int16, uint8], // PACKUSWB
	0x6b: packLanes[int32, int16], // PACKSSDW
}

// pairs0F38 are those of the map 0F 38.
var pairs0F38 = map[uint8]lanes{
	0x01: neighbours(sum[uint16]), // PHADDW
	0x02: neighbours(sum[uint32]),
	0x03: neighbours(addSaturated),       // PHADDSW
	0x05: neighbours(difference[uint16]), // PHSUBW
	0x06: neighbours(difference[uint32]),
	0x07: neighbours(subSaturated), // PHSUBSW
}

func packusdw(a, b uint64) uint64 { return packLanes[int32, uint16](a, b) }

func sum[T laneType](x, y T) T        { return x + y }
func difference[T laneType](x, y T) T { return x - y }
func larger[T laneType](x, y T) T     { return max(x, y) }
func smaller[T laneType](x, y T) T    { return min(x, y) }

func greaterMask[T laneType](x, y T) T {
	if x > y {
		return ^T(0)
	}
	return 0
}

// average rounds up.
func average[T laneType](x, y T) T { return x>>1 + y>>1 + (x|y)&1 }

// withSign gives x the sign of y, or zero.
func withSign[T laneType](x, y T) T {
	switch {
	case y < 0:
		return -x
	case y == 0:
		return 0
	}
	return x
}

func addSaturated(x, y int16) int16 { return saturate[int16](int(x) + int(y)) }
func subSaturated(x, y int16) int16 { return saturate[int16](int(x) - int(y)) }

// The sign bits of the elements in 64 bits.
const (
	signs8  uint64 = 0x8080_8080_8080_8080
	signs16 uint64 = 0x8000_8000_8000_8000
	signs32 uint64 = 0x8000_0000_8000_0000
)

// Sums without the sign bits can't carry into the next element, nor can
// differences borrow from it with the sign bits set; the sign bits follow.
func addLanes(a, b, signs uint64) uint64 { return (a&^signs + b&^signs) ^ (a^b)&signs }
func subLanes(a, b, signs uint64) uint64 { return (a | signs - b&^signs) ^ (a^^b)&signs }

func paddb(a, b uint64) uint64 { return addLanes(a, b, signs8) }
func paddw(a, b uint64) uint64 { return addLanes(a, b, signs16) }
func paddd(a, b uint64) uint64 { return addLanes(a, b, signs32) }
func psubb(a, b uint64) uint64 { return subLanes(a, b, signs8) }
func psubd(a, b uint64) uint64 { return subLanes(a, b, signs32) }

// different sets the sign bits of the elements that differ.
func different(a, b, signs uint64) uint64 {
	d := a ^ b
	return (d&^signs + ^signs | d) & signs
}

func pcmpeqb(a, b uint64) uint64 { return (different(a, b, signs8) ^ signs8) >> 7 * 0xff }
func pcmpeqw(a, b uint64) uint64 { return (different(a, b, signs16) ^ signs16) >> 15 * 0xffff }
func pcmpeqd(a, b uint64) uint64 { return (different(a, b, signs32) ^ signs32) >> 31 * 0xffff_ffff }

// pminub compares by the sign bit of the difference of the lower seven bits,
// where the upper ones are the same, else by those.
func pminub(a, b uint64) uint64 {
	low := a | signs8 - b&^signs8         // the sign bit: a's lower bits are not less
	less := (^a&b | ^(a^b)&^low) & signs8 // a < b
	return blend(b, a, less>>7*0xff)
}

func pmaddwd(a, b uint64) uint64 {
	dword := func(i uint) uint64 {
		return uint64(uint32(int32(int16(a>>i))*int32(int16(b>>i)) + int32(int16(a>>(i+16)))*int32(int16(b>>(i+16)))))
	}
	return dword(0) | dword(32)<<32
}

// pmaddubsw multiplies unsigned bytes of a by signed ones of b.
func pmaddubsw(a, b uint64) uint64 {
	var r uint64
	for i := uint(0); i < 64; i += 16 {
		v := int(uint8(a>>i))*int(int8(b>>i)) + int(uint8(a>>(i+8)))*int(int8(b>>(i+8)))
		r |= uint64(uint16(saturate[int16](v))) << i
	}
	return r
}

func psadbw(a, b uint64) uint64 {
	var sum uint64
	for i := uint(0); i < 64; i += 8 {
		sum += uint64(distance(uint8(a>>i), uint8(b>>i)))
	}
	return sum
}

func distance(x, y uint8) uint8 { return max(x, y) - min(x, y) }

// Instructions that are often needed, by which C libraries and Go's runtime copy
// and search.

func opPand(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{a.lo & b.lo, a.hi & b.hi}
}

func opPandn(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{b.lo &^ a.lo, b.hi &^ a.hi}
}

func opPor(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{a.lo | b.lo, a.hi | b.hi}
}

func opPxor(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{a.lo ^ b.lo, a.hi ^ b.hi}
}

func opPcmpeqb(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{pcmpeqb(a.lo, b.lo), pcmpeqb(a.hi, b.hi)}
}

func opPcmpeqw(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{pcmpeqw(a.lo, b.lo), pcmpeqw(a.hi, b.hi)}
}

func opPcmpeqd(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{pcmpeqd(a.lo, b.lo), pcmpeqd(a.hi, b.hi)}
}

func opPminub(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{pminub(a.lo, b.lo), pminub(a.hi, b.hi)}
}

func opPaddb(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{paddb(a.lo, b.lo), paddb(a.hi, b.hi)}
}

func opPaddw(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{paddw(a.lo, b.lo), paddw(a.hi, b.hi)}
}

func opPaddd(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{paddd(a.lo, b.lo), paddd(a.hi, b.hi)}
}

func opPaddq(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{a.lo + b.lo, a.hi + b.hi}
}

func opPsubb(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{psubb(a.lo, b.lo), psubb(a.hi, b.hi)}
}

func opPsubd(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{psubd(a.lo, b.lo), psubd(a.hi, b.hi)}
}

func opPsubq(c *cpu, o *op) {
	b := c.operand(o)
	a := &c.xmm[o.reg&15]
	*a = xmm{a.lo - b.lo, a.hi - b.hi}
}

// unpacks0F interleave the elements of the lower halves of 64 bits: PUNPCKL, and
// with 8 added to the opcode PUNPCKH.
var unpacks0F = map[uint8]lanes{0x60: interleave8, 0x61: interleave16, 0x62: interleave32}

func interleave8(a, b uint64) uint64 { return spread8(a) | spread8(b)<<8 }

// spread8 makes words of the lower four bytes.
func spread8(v uint64) uint64 {
	v = spread16(v)
	return (v | v<<8) & 0x00ff_00ff_00ff_00ff
}

func interleave16(a, b uint64) uint64 { return spread16(a) | spread16(b)<<16 }

// spread16 makes doublewords of the lower two words.
func spread16(v uint64) uint64 {
	v &= 0xffff_ffff
	return (v | v<<16) & 0x0000_ffff_0000_ffff
}

func interleave32(a, b uint64) uint64 { return a&0xffff_ffff | b<<32 }

func opPunpcklbw(c *cpu, o *op) {
	b := c.operand(o).lo
	a := c.xmm[o.reg&15].lo
	c.xmm[o.reg&15] = xmm{interleave8(a, b), interleave8(a>>32, b>>32)}
}

func opPunpckhbw(c *cpu, o *op) {
	b := c.operand(o).hi
	a := c.xmm[o.reg&15].hi
	c.xmm[o.reg&15] = xmm{interleave8(a, b), interleave8(a>>32, b>>32)}
}

func opPunpcklwd(c *cpu, o *op) {
	b := c.operand(o).lo
	a := c.xmm[o.reg&15].lo
	c.xmm[o.reg&15] = xmm{interleave16(a, b), interleave16(a>>32, b>>32)}
}

func opPunpckhwd(c *cpu, o *op) {
	b := c.operand(o).hi
	a := c.xmm[o.reg&15].hi
	c.xmm[o.reg&15] = xmm{interleave16(a, b), interleave16(a>>32, b>>32)}
}

// opPunpckldq is also UNPCKLPS.
func opPunpckldq(c *cpu, o *op) {
	b := c.operand(o).lo
	a := c.xmm[o.reg&15].lo
	c.xmm[o.reg&15] = xmm{interleave32(a, b), interleave32(a>>32, b>>32)}
}

// opPunpckhdq is also UNPCKHPS.
func opPunpckhdq(c *cpu, o *op) {
	b := c.operand(o).hi
	a := c.xmm[o.reg&15].hi
	c.xmm[o.reg&15] = xmm{interleave32(a, b), interleave32(a>>32, b>>32)}
}

// opPunpcklqdq is also UNPCKLPD.
func opPunpcklqdq(c *cpu, o *op) { c.xmm[o.reg&15].hi = c.operand(o).lo }

// opPunpckhqdq is also UNPCKHPD.
func opPunpckhqdq(c *cpu, o *op) {
	b := c.operand(o).hi
	c.xmm[o.reg&15] = xmm{c.xmm[o.reg&15].hi, b}
}

// laneShift shifts the elements in 64 bits by n, which may exceed their size.
type laneShift func(v, n uint64) uint64

func psrld(v, n uint64) uint64 { return uint64(uint32(v)>>n) | v>>32>>n<<32 }
func psrad(v, n uint64) uint64 {
	return uint64(uint32(int32(v)>>n)) | uint64(int64(v)>>32>>n<<32)
}
func pslld(v, n uint64) uint64 { return uint64(uint32(v)<<n) | v>>32<<n<<32 }
func psrlq(v, n uint64) uint64 { return v >> n }
func psllq(v, n uint64) uint64 { return v << n }

func psrlw(v, n uint64) uint64 { return each16(v, func(x uint16) uint16 { return x >> n }) }
func psraw(v, n uint64) uint64 {
	return each16(v, func(x uint16) uint16 { return uint16(int16(x) >> n) })
}
func psllw(v, n uint64) uint64 { return each16(v, func(x uint16) uint16 { return x << n }) }

func each16(v uint64, f func(x uint16) uint16) uint64 {
	return uint64(f(uint16(v))) | uint64(f(uint16(v>>16)))<<16 | uint64(f(uint16(v>>32)))<<32 | uint64(f(uint16(v>>48)))<<48
}

// shifts0F are those whose count is the lower 64 bits of the other operand.
var shifts0F = map[uint8]laneShift{
	0xd1: psrlw, 0xd2: psrld, 0xd3: psrlq,
	0xe1: psraw, 0xe2: psrad,
	0xf1: psllw, 0xf2: pslld, 0xf3: psllq,
}

// Those with an immediate count, by the opcode's extension.
var (
	wordShifts       = [8]laneShift{2: psrlw, 4: psraw, 6: psllw}
	doublewordShifts = [8]laneShift{2: psrld, 4: psrad, 6: pslld}
	quadwordShifts   = [8]laneShift{2: psrlq, 6: psllq}
)

func xmmShift(f laneShift) handler {
	return func(c *cpu, o *op) {
		n := c.operand(o).lo
		a := &c.xmm[o.reg&15]
		*a = xmm{f(a.lo, n), f(a.hi, n)}
	}
}

func xmmShiftImm(group [8]laneShift) handler {
	return func(c *cpu, o *op) {
		f := group[o.reg&7]
		if f == nil {
			c.raiseUD()
		}
		a := &c.xmm[o.rm&15]
		*a = xmm{f(a.lo, o.imm), f(a.hi, o.imm)}
	}
}

var shiftQuadwords = xmmShiftImm(quadwordShifts)

// opShift73 also has PSRLDQ and PSLLDQ, which shift the register by bytes.
func opShift73(c *cpu, o *op) {
	a := &c.xmm[o.rm&15]
	n := 8 * o.imm
	switch o.reg & 7 {
	case 3:
		*a = xmm{a.lo>>n | a.hi<<(64-n) | a.hi>>(n-64), a.hi >> n}
	case 7:
		*a = xmm{a.lo << n, a.hi<<n | a.lo>>(64-n) | a.lo<<(n-64)}
	default:
		shiftQuadwords(c, o)
	}
}

// extendLanes is PMOVSX and PMOVZX, from n bytes.
func extendLanes(n uint8, f func(v uint64) xmm) handler {
	return func(c *cpu, o *op) {
		if o.flags&flagMem != 0 {
			c.xmm[o.reg&15] = f(c.load(o.ea(c), n))
			return
		}
		c.xmm[o.reg&15] = f(c.xmm[o.rm&15].lo)
	}
}

// widen makes larger elements of the lowest ones.
func widen[From, To laneType](v uint64) xmm {
	from, to := laneWidth[From](), laneWidth[To]()
	mask := ^uint64(0) >> (64 - to)
	var r [2]uint64
	for i := range 128 / to {
		r[i*to/64] |= uint64(To(From(v>>(i*from)))) & mask << (i * to % 64)
	}
	return xmm{r[0], r[1]}
}

func opPtest(c *cpu, o *op) {
	b := c.operand(o)
	a := c.xmm[o.reg&15]
	c.setStatus(flag(a.lo&b.lo|a.hi&b.hi == 0, x86.FlagZF) | flag(b.lo&^a.lo|b.hi&^a.hi == 0, x86.FlagCF))
}

// opPhminposuw finds the least of eight words and its place.
func opPhminposuw(c *cpu, o *op) {
	v := c.operand(o)
	best, place := v.extract(0, 16), uint64(0)
	for i := uint64(1); i < 8; i++ {
		if w := v.extract(16*i, 16); w < best {
			best, place = w, i
		}
	}
	c.xmm[o.reg&15] = xmm{lo: best | place<<16}
}

// opMpsadbw compares four bytes of the source with eight overlapping groups of
// the destination.
func opMpsadbw(c *cpu, o *op) {
	b := c.operand(o).bytes()
	a := c.xmm[o.reg&15].bytes()
	from, of := o.imm>>2&1*4, o.imm&3*4
	var r [2]uint64
	for i := range uint64(8) {
		var sum uint64
		for j := range uint64(4) {
			sum += uint64(distance(a[from+i+j], b[of+j]))
		}
		r[i/4] |= sum << (i % 4 * 16)
	}
	c.xmm[o.reg&15] = xmm{r[0], r[1]}
}
