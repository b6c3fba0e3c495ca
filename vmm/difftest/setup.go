package difftest

import (
	"encoding/binary"
	"math"
	"math/bits"

	"fifovm/vmm/x86"
)

// setups arrange what an instruction needs so that it does something of
// interest: they are the words of the table that are not about its encoding.
// One that says no gives up the case.
var setups = map[string]func(*builder) bool{
	"div":            (*builder).setDividend,
	"cmpxchg":        (*builder).setAccumulator,
	"cmpxchg8b":      (*builder).setPair,
	"cl":             func(b *builder) bool { b.maybe(x86.RCX, b.integer()); return true },
	"bits":           (*builder).setBitOffset,
	"push":           func(b *builder) bool { return b.setStack(8, 0) },
	"pop":            func(b *builder) bool { return b.setStack(0, 8) },
	"popf":           (*builder).setFlags,
	"enter":          (*builder).setEnter,
	"leave":          (*builder).setLeave,
	"xlat":           (*builder).setTable,
	"moffs":          (*builder).setOffset,
	"branch":         (*builder).setBranch,
	"loop":           func(b *builder) bool { b.count(3); return true },
	"near":           (*builder).setNear,
	"ret":            (*builder).setReturn,
	"string":         (*builder).setString,
	"base":           (*builder).setBase,
	"ldmxcsr":        (*builder).setMXCSR,
	"fxrstor":        (*builder).setImage,
	"fldenv":         (*builder).setEnvironment,
	"fldcw":          (*builder).setControl,
	"compare":        func(b *builder) bool { b.imm[0] &= 7; return true },
	"round":          func(b *builder) bool { b.imm[0] &= 15; return true },
	"strings":        func(b *builder) bool { b.imm[0] &= 127; return true },
	"lengths":        (*builder).setLengths,
	"maskmov":        (*builder).setMaskMove,
	"transcendental": (*builder).setArgument,
	"prem":           (*builder).setRemainder,
	"integers":       (*builder).setIntegers,
}

// maybe gives a register a value if it is free.
func (b *builder) maybe(reg int, v uint64) { b.settle(reg, v, false) }

// value is the operand in ModRM.rm, of b.size bytes.
func (b *builder) value() uint64 {
	le := binary.LittleEndian
	var raw [8]byte
	switch {
	case !b.mem && b.size == 1 && b.rex == 0 && b.rm >= 4:
		raw[0] = byte(b.c.before.GPR[b.rm-4] >> 8)
	case !b.mem:
		le.PutUint64(raw[:], b.c.before.GPR[b.rm])
	case b.at >= 0:
		copy(raw[:b.size], b.c.memory[b.at:])
	}
	return le.Uint64(raw[:]) & (math.MaxUint64 >> (64 - 8*min(b.size, 8)))
}

// setMemory fills in the operand, if it is where that can be.
func (b *builder) setMemory(data []byte) {
	if b.mem && b.at >= 0 {
		copy(b.c.memory[b.at:], data)
		b.filled = true
	}
}

func (b *builder) setMemory64(v uint64) {
	b.setMemory(binary.LittleEndian.AppendUint64(nil, v)[:min(8, b.memorySize())])
}

// setDividend makes quotients that fit.
func (b *builder) setDividend() bool {
	if b.one(4) {
		return true
	}
	signed := b.f.name == "idiv"
	v := b.integer()
	if b.size == 1 {
		v &= 0x7ff
		if signed && b.one(2) {
			v = -v
		}
		b.maybe(x86.RAX, v)
		return true
	}
	b.maybe(x86.RAX, v)
	high := uint64(0)
	if top := b.c.before.GPR[x86.RAX] >> (8*b.size - 1) & 1; signed && top != 0 {
		high = math.MaxUint64
	}
	if b.one(3) {
		high += uint64(b.IntN(5)) - 2
	}
	b.maybe(x86.RDX, high)
	return true
}

// setAccumulator has half of the comparisons succeed.
func (b *builder) setAccumulator() bool {
	if b.one(2) {
		v := b.value()
		if b.size == 2 || b.size == 1 {
			v |= b.integer() &^ (1<<(8*b.size) - 1)
		}
		b.maybe(x86.RAX, v)
	}
	return true
}

func (b *builder) setPair() bool {
	if b.at < 0 || b.one(2) {
		return true
	}
	half := b.memorySize() / 2
	low, high := make([]byte, 8), make([]byte, 8)
	copy(low, b.c.memory[b.at:b.at+half])
	copy(high, b.c.memory[b.at+half:b.at+2*half])
	b.maybe(x86.RAX, binary.LittleEndian.Uint64(low))
	b.maybe(x86.RDX, binary.LittleEndian.Uint64(high))
	return true
}

// setBitOffset keeps what a bit offset in a register reaches on the pages.
func (b *builder) setBitOffset() bool {
	if !b.mem {
		return true
	}
	if b.bad {
		return b.settle(b.reg, uint64(b.IntN(8*b.size)), false)
	}
	// The operand reached is b.size bytes at a multiple of b.size from target.
	units := b.IntN(dataSize/b.size-2) - b.at/b.size
	if b.size == 2 {
		units = max(-1<<11, min(units, 1<<11-1))
	}
	if units*b.size+b.at < 0 || units*b.size+b.at+b.size > dataSize {
		return false
	}
	if at := (units*b.size + b.at) & 63; (b.lock) && at+b.size > 64 {
		return false
	}
	v := uint64(int64(units*8*b.size + b.IntN(8*b.size)))
	if b.size < 8 {
		v = v&(1<<(8*b.size)-1) | b.integer()<<(8*b.size)
	}
	return b.settle(b.reg, v, false)
}

// setStack points RSP to the pages, with so many bytes below and above it.
func (b *builder) setStack(below, above int) bool {
	base := pick[uint64](b.source, lowData, highData)
	at := below + b.IntN(dataSize-below-above)
	if b.one(2) {
		at &^= 7
	}
	v := base + uint64(max(at, below))
	if !b.bad && b.one(25) {
		v = pick(b.source, base+readOnlyPage+uint64(b.IntN(12)), base+uint64(b.IntN(12)), base+supervisor+64, 1<<63|b.Uint64N(1<<62), b.Uint64N(1<<46),
			base+readOnlyPage+pageSize-uint64(b.IntN(12)))
		b.bad = true
	}
	b.maybe(x86.RSP, v)
	return true
}

// atStack gives the bytes from RSP plus off on, if they are on the pages.
func (b *builder) atStack(off, n int) []byte {
	for _, base := range []uint64{lowData, highData} {
		if at := b.c.before.GPR[x86.RSP] + uint64(off) - base; at <= uint64(dataSize-n) {
			return b.c.memory[at : int(at)+n]
		}
	}
	return nil
}

// setFlags has POPF load flags of which not all may change.
func (b *builder) setFlags() bool {
	b.setStack(0, 8)
	v := b.Uint64() & (statusFlags | flagDF | flagID | fixedFlags)
	if b.one(2) {
		v = b.Uint64()
	}
	if !b.one(8) {
		v &^= x86.FlagTF
	}
	if p := b.atStack(0, 8); p != nil {
		binary.LittleEndian.PutUint64(p, v)
	}
	return true
}

// setEnter keeps both stacks on the pages: how much a faulting ENTER has
// written is the processor's matter.
func (b *builder) setEnter() bool {
	if b.c.before.RFLAGS&x86.FlagTF != 0 {
		return false
	}
	binary.LittleEndian.PutUint16(b.imm, uint16(b.IntN(2000)))
	base := pick[uint64](b.source, lowData, highData)
	b.maybe(x86.RSP, base+3000+uint64(b.IntN(5000)))
	b.maybe(x86.RBP, base+1000+uint64(b.IntN(7000)))
	return true
}

func (b *builder) setLeave() bool {
	if !b.setStack(0, 8) {
		return false
	}
	b.maybe(x86.RBP, b.c.before.GPR[x86.RSP])
	b.c.before.GPR[x86.RSP] = b.integer()
	return true
}

// setTable points RBX and AL to the pages.
func (b *builder) setTable() bool {
	if !b.choose(1) {
		return false
	}
	ea, ok := b.offset(b.target)
	return ok && b.settle(x86.RBX, ea-b.c.before.GPR[x86.RAX]&0xff, true)
}

// setOffset makes the address in MOV's own bytes.
func (b *builder) setOffset() bool {
	if !b.choose(b.memorySize()) {
		return false
	}
	ea, ok := b.offset(b.target)
	b.imm = binary.LittleEndian.AppendUint64(nil, ea)[:len(b.imm)]
	return ok
}

// count gives RCX a value up to n, or with the upper half set where ECX counts.
func (b *builder) count(n int) {
	v := uint64(b.IntN(n + 1))
	if b.addr32 && v != 0 {
		v |= uint64(b.Uint32()) << 32
	}
	b.maybe(x86.RCX, v)
}

func (b *builder) setBranch() bool {
	for _, kind := range b.f.imm {
		b.rel = map[string]int{"rel8": 1, "rel32": 4}[kind]
	}
	// An address size prefix is JRCXZ's and LOOP's.
	b.addr32 = b.addr32 && (b.f.is("loop") || b.mem)
	return true
}

// setNear puts the destination where JMP and CALL look for it.
func (b *builder) setNear() bool {
	if b.mem {
		if b.at < 0 && !b.bad {
			return false
		}
		if b.at < 0 && b.target-(lowData+readOnlyPage-8) < pageSize+16 || b.at < 0 && b.target-(highData+readOnlyPage-8) < pageSize+16 {
			return false // it would be what the read-only page holds
		}
		b.setMemory64(b.destination())
		return true
	}
	return b.rm != x86.RSP && b.settle(b.rm, b.destination(), false)
}

func (b *builder) setReturn() bool {
	b.setStack(0, 8)
	p := b.atStack(0, 8)
	if p == nil {
		// Bytes that can't be chosen must not be a destination.
		at := b.c.before.GPR[x86.RSP]
		for _, base := range []uint64{lowData, highData} {
			if at-(base+dataSize-8) < pageSize+8 {
				return false
			}
		}
		return true
	}
	binary.LittleEndian.PutUint64(p, b.destination())
	return true
}

// setString points RSI and RDI to the pages. One of them may run out of them.
func (b *builder) setString() bool {
	size := b.memorySize()
	n := 1
	b.repeat = pick[byte](b.source, 0, 0xf2, 0xf3, 0xf3)
	if b.repeat != 0 {
		b.count(24)
		n = 24
	}
	if b.one(2) {
		b.c.before.RFLAGS ^= flagDF
	}
	down := b.c.before.RFLAGS&flagDF != 0
	place := func() uint64 {
		at := 0
		if room := n * size; down {
			at = room + b.IntN(dataSize-2*room)
		} else {
			at = b.IntN(dataSize - room)
		}
		return uint64(at)
	}
	base := func(segmented bool) uint64 {
		if b.addr32 && !segmented {
			return lowData
		}
		return pick[uint64](b.source, lowData, highData)
	}
	source := base(b.segment != 0) + place()
	to := base(false) + place()
	if b.one(6) {
		if v := source + uint64(b.IntN(2*size+2)) - uint64(size); v-to < 1<<40 || to-v < 1<<40 {
			to = v
		}
		if b.addr32 && to > math.MaxUint32 {
			return false
		}
	}
	// Fast strings look at linear addresses alone: where the same memory has two,
	// what is read of what was just written is the processor's own affair.
	if far := int64(source&0xffff) - int64(to&0xffff); b.repeat != 0 && source>>16 != to>>16 && max(far, -far) < int64(n*size) {
		return false
	}
	if b.one(10) { // one of them soon leaves the pages
		edge, near := uint64(lowData), uint64(b.IntN(6*size))
		if !b.addr32 && b.one(2) {
			edge = highData
		}
		p := pick(b.source, &source, &to)
		switch {
		case down:
			*p = edge + near
		case p == &source:
			*p = edge + readOnlyPage + pageSize - near
		default:
			*p = edge + readOnlyPage - near
		}
	}
	ea, ok := b.offset(source)
	if !ok {
		return false
	}
	b.settle(x86.RSI, ea, true)
	b.settle(x86.RDI, to, true)
	if b.f.name == "cmps" || b.f.name == "scas" { // long runs that match
		v := b.integer()
		if b.one(2) {
			v &= 0xff
			v *= 0x0101_0101_0101_0101
		}
		for i := 0; i < dataSize; i += 8 {
			binary.LittleEndian.PutUint64(b.c.memory[i:], v)
		}
		for range 200 {
			b.c.memory[b.IntN(dataSize)] ^= byte(1 << b.IntN(8))
		}
		if b.one(2) {
			b.c.before.GPR[x86.RAX] = v
			b.used |= 1 << x86.RAX
		}
	}
	return true
}

// setBase makes most addresses canonical.
func (b *builder) setBase() bool {
	if b.size == 8 && !b.one(8) {
		return b.settle(b.rm, uint64(int64(b.Uint64())>>17), false)
	}
	return true
}

// reservedMXCSR is a bit of MXCSR that no processor has (17 is AMD's).
const reservedMXCSR = 1 << 16

func (b *builder) setMXCSR() bool {
	v := b.mxcsrValue()
	if b.one(10) {
		v |= reservedMXCSR << pick(b.source, 0, 2, 5, 15)
	}
	b.setMemory(binary.LittleEndian.AppendUint32(nil, v))
	return true
}

func (b *builder) setImage() bool {
	f := b.fpuState(forms[b.IntN(len(forms))])
	if b.one(10) {
		f.setMXCSR(f.mxcsr() | reservedMXCSR)
	}
	b.setMemory(f[:])
	return true
}

// setEnvironment makes the operand of FLDENV and FRSTOR (SDM volume 1, figure
// 8-9): control, status and tag word, four words of pointers, registers.
func (b *builder) setEnvironment() bool {
	data := make([]byte, b.f.memory)
	le := binary.LittleEndian
	for i := range data {
		data[i] = byte(b.Uint32())
	}
	control := b.control()
	le.PutUint16(data[0:], control)
	le.PutUint16(data[4:], b.status(control, b.one(8)))
	le.PutUint16(data[8:], pick[uint16](b.source, 0, 0xffff, uint16(b.Uint32())))
	for at := 28; at < len(data); at += 10 {
		m, se := b.extended()
		le.PutUint64(data[at:], m)
		le.PutUint16(data[at+8:], se)
	}
	b.setMemory(data)
	return true
}

func (b *builder) setControl() bool {
	b.setMemory(binary.LittleEndian.AppendUint16(nil, b.control()))
	return true
}

func (b *builder) setLengths() bool {
	for _, reg := range []int{x86.RAX, x86.RDX} {
		if !b.one(4) {
			b.maybe(reg, uint64(b.IntN(40)-20))
		}
	}
	return true
}

// setMaskMove points RDI to the pages; what a mask of zeros touches is open.
func (b *builder) setMaskMove() bool {
	base := uint64(lowData)
	if !b.addr32 {
		base = pick[uint64](b.source, lowData, highData)
	}
	ea, ok := b.offset(base + uint64(b.IntN(dataSize-16)))
	if !ok {
		return false
	}
	if b.c.before.RFLAGS&x86.FlagTF != 0 {
		return false
	}
	return b.settle(x86.RDI, ea, true)
}

// setArgument draws the arguments of transcendental functions, mostly from
// where they are as exact as the manual promises (SDM volume 1, 8.3.10).
func (b *builder) setArgument() bool {
	const one = 0x3fff
	f := &b.c.before.FPU
	normal := func(low, high int) (uint64, uint16) {
		return 1<<63 | b.Uint64(), uint16(one + low + b.IntN(high-low+1))
	}
	sign := func() uint16 { return uint16(b.IntN(2)) << 15 }
	special := func() (uint64, uint16) {
		switch b.IntN(5) {
		case 0:
			return 0, 0
		case 1:
			return 1 << 63, 0x7fff
		case 2:
			return 3<<62 | b.Uint64()>>2, 0x7fff
		case 3:
			return 1<<63 | 1 + b.Uint64()>>2, 0x7fff
		}
		return 1 << 63, one
	}
	set := func(i int, m uint64, se uint16) { f.setExtended(i, m, se) }
	m, se := normal(-20, -1)
	switch b.f.name {
	case "f2xm1":
		set(0, m, se|sign())
	case "fsin", "fcos", "fsincos", "fptan": // below pi/4
		if se == one-1 && m > 0xc90f_daa2_2168_0000 {
			se--
		}
		set(0, m, se|sign())
	case "fpatan":
		m, se = normal(-20, 20)
		set(0, m, se|sign())
		m, se = normal(-20, 20)
		set(1, m, se|sign())
	case "fyl2x":
		m, se = normal(-30, 30)
		set(0, m, se)
		m, se = normal(-20, 20)
		set(1, m, se|sign())
	case "fyl2xp1": // below 1 - sqrt(2)/2
		m, se = normal(-30, -3)
		set(0, m, se|sign())
		m, se = normal(-20, 20)
		set(1, m, se|sign())
	}
	if b.one(5) {
		m, se = special()
		set(b.IntN(2), m, se|sign())
		if b.one(3) {
			m, se = special()
			set(b.IntN(2), m, se|sign())
		}
	} else if b.one(10) { // too large to be reduced
		switch b.f.name {
		case "fsin", "fcos", "fsincos", "fptan":
			m, se = normal(63, 1000)
			set(0, m, se|sign())
		}
	}
	b.c.ignore.tolerance = 2
	return true
}

// setRemainder keeps the exponents so near that one step gives the remainder:
// how far a step goes otherwise is the processor's matter.
func (b *builder) setRemainder() bool {
	f := &b.c.before.FPU
	exponent := func(i int) (e int, number bool) {
		m, se := f.extended(i)
		e = int(se & 0x7fff)
		return max(e, 1) - bits.LeadingZeros64(m), m != 0 && e != 0x7fff
	}
	e0, number0 := exponent(0)
	e1, number1 := exponent(1)
	if !number0 || !number1 || e0-e1 < 63 {
		return true
	}
	m, _ := f.extended(0)
	f.setExtended(0, m|1<<63, uint16(max(1, min(0x7ffe, e1+b.IntN(70)-8)))|uint16(b.IntN(2))<<15)
	e0, _ = exponent(0)
	return e0-e1 < 63
}

// setIntegers gives ST(0) a value of about the range of integers.
func (b *builder) setIntegers() bool {
	if !b.one(3) {
		b.c.before.FPU.setExtended(0, 1<<63|b.Uint64()<<pick(b.source, 0, 0, 31, 47, 56), uint16(0x3fff-3+b.IntN(69))|uint16(b.IntN(2))<<15)
	}
	return true
}
