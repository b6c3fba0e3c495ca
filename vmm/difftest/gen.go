package difftest

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"

	"fifovm/vmm/x86"
)

// newCase makes the case of a number. It depends on nothing but seed, number
// and the table.
func newCase(seed uint64, number int) *testCase {
	s := source{rand.New(rand.NewPCG(seed, uint64(number)))}
	for {
		b := &builder{source: s, f: forms[s.IntN(len(forms))], c: &testCase{seed: seed, number: number}}
		if b.build() {
			return b.c
		}
	}
}

// builder makes one case of a form. Where its choices don't fit together it
// gives up, and the next one has other choices.
type builder struct {
	source
	f *form
	c *testCase

	size    int  // of the operand in bytes
	lock    bool // with a LOCK prefix
	addr32  bool // with an address size prefix
	segment byte // FS or GS prefix that counts, or 0
	repeat  byte // REP or REPNE of a string instruction, or 0
	rex     byte
	modrm   []byte // with SIB and displacement
	imm     []byte
	reg     int // ModRM.reg, or the register in the opcode
	rm      int // ModRM.rm of a register

	mem    bool   // the operand is memory
	target uint64 // its linear address
	at     int    // and its offset in the data pages, -1 if it is not wholly there
	bad    bool   // something about the case's memory is meant to fault
	relRIP bool   // the displacement counts from the next instruction
	used   uint16 // registers whose values are settled
	rel    int    // bytes of a branch's displacement
	filled bool   // a set-up has filled in the operand
}

// Bits of REX.
const (
	rexB = 1 << iota
	rexX
	rexR
	rexW
)

func (b *builder) build() bool {
	f, c := b.f, b.c
	c.form = f
	b.at = -1
	b.background()
	b.operandSize()
	switch f.inOpcode {
	case 'r':
		b.reg = b.IntN(16)
		b.rex |= byte(b.reg>>3) * rexB
	case 'c':
		b.reg = b.IntN(16)
	case 'i':
		b.reg = b.IntN(8)
	}
	if f.modrm {
		if b.reg = f.digit; b.reg < 0 {
			b.reg = b.IntN(16)
			b.rex |= byte(b.reg>>3) * rexR
		}
		b.mem = f.rm == 'M' || f.rm == 'E' && b.IntN(5) < 3
	}
	b.addr32 = b.one(12)
	if b.one(8) {
		b.segment = pick[byte](b.source, 0x64, 0x65)
	}
	b.lock = b.mem && f.is("lock") && b.one(3)
	illegalLock := !b.lock && !f.is("nolock") && b.one(150)
	b.immediates()
	if f.modrm && !b.operand() {
		return false
	}
	b.place()
	for _, w := range f.words {
		if set := setups[w]; set != nil && !set(b) {
			return false
		}
	}
	if b.mem && !f.untouched && b.at >= 0 && !b.filled && f.flavour != 'i' {
		b.fill(c.memory[b.at:min(b.at+max(16, f.memory), dataSize)], f.flavour)
	}
	b.assemble(illegalLock)
	if b.relRIP && !b.patchRelative() || b.rel != 0 && !b.patchBranch() {
		return false
	}
	if len(c.code) > maxCode {
		return false
	}
	if illegalLock || len(c.code) > 15 || f.is("undefined") {
		// Which comes first, the fault of the fetch or that of the decoder, is open.
		if c.before.RIP+16 > codePage+codePages*pageSize {
			return false
		}
	}
	c.at = b.at
	return b.openResults()
}

// background fills registers and memory before anything is decided.
func (b *builder) background() {
	c := b.c
	for i := range c.before.GPR {
		c.before.GPR[i] = b.integer()
	}
	c.before.RFLAGS = fixedFlags | b.Uint64()&statusFlags
	for _, rare := range []struct{ n, flag int }{{4, flagDF}, {20, flagNT}, {20, flagID}, {50, x86.FlagTF}} {
		if b.one(rare.n) {
			c.before.RFLAGS |= uint64(rare.flag)
		}
	}
	base := func() uint64 {
		return pick(b.source, 0, uint64(b.IntN(1<<20)), lowData+uint64(b.IntN(pageSize)), highData+uint64(b.IntN(pageSize)), b.Uint64N(1<<47), -b.Uint64N(1<<46))
	}
	c.before.FSBase, c.before.GSBase = base(), base()
	c.before.FPU = b.fpuState(b.f)
	le := binary.LittleEndian
	for i := 0; i < dataSize; i += 8 {
		le.PutUint64(c.memory[i:], b.Uint64())
	}
	if b.one(2) { // integers with edges in some place of it
		at := b.IntN(dataSize - 256)
		b.fill(c.memory[at:at+256], 'i')
	}
}

// operandSize chooses among the sizes that the form has.
func (b *builder) operandSize() {
	switch b.f.sizes {
	case sizeV:
		b.size = pick(b.source, 2, 4, 4, 8, 8)
	case sizeY:
		b.size = pick(b.source, 4, 8)
	case sizeQ:
		b.size = pick(b.source, 8, 8, 8, 2)
	default:
		b.size = max(b.f.memory, 1)
	}
	if b.size == 8 && (b.f.sizes == sizeV || b.f.sizes == sizeY) || b.f.wide {
		b.rex |= rexW
	}
}

// memorySize is how many bytes the instruction reaches in memory.
func (b *builder) memorySize() int {
	if b.f.memory != 0 {
		return b.f.memory
	}
	return b.size
}

// immediates draws the constants in the instruction; set-ups may replace them.
func (b *builder) immediates() {
	for _, kind := range b.f.imm {
		n := map[string]int{"ib": 1, "iw": 2, "rel8": 1, "rel32": 4, "imoffs": 8}[kind]
		switch kind {
		case "iz":
			n = min(b.size, 4)
		case "iv":
			n = b.size
		}
		if kind == "imoffs" && b.addr32 {
			n = 4
		}
		b.imm = append(b.imm, binary.LittleEndian.AppendUint64(nil, b.integer())[:n]...)
	}
}

// operand makes ModRM, and for an operand in memory what its address is made of.
func (b *builder) operand() bool {
	if !b.mem {
		b.rm = b.IntN(16)
		b.rex |= byte(b.rm>>3) * rexB
		b.modrm = []byte{0xc0 | byte(b.reg&7)<<3 | byte(b.rm&7)}
		return true
	}
	if !b.choose(b.memorySize()) {
		return false
	}
	for range 20 {
		if b.address() {
			return true
		}
	}
	return false
}

// choose draws the operand's place: mostly in the data pages.
func (b *builder) choose(n int) bool {
	base := pick[uint64](b.source, lowData, highData)
	if b.addr32 && b.segment == 0 {
		base = lowData
	}
	together := b.lock || b.f.is("locked") || b.f.is("cmpxchg8b")
	if !b.f.is("good") && !together && b.one(14) {
		b.bad = true
		switch b.IntN(8) {
		case 0: // into the pages from below
			b.target = base - uint64(1+b.IntN(n))
		case 1:
			b.target = base + readOnlyPage + uint64(b.IntN(pageSize-n))
		case 2: // from the pages into the read-only one
			b.target = base + readOnlyPage - uint64(b.IntN(n))
		case 3: // out of the pages
			b.target = base + readOnlyPage + pageSize - uint64(b.IntN(n))
		case 4:
			b.target = base + supervisor + uint64(b.IntN(pageSize-n))
		case 5:
			b.target = uint64(b.IntN(0x1000))
		case 6:
			b.target = 0x10_0000_0000 + b.Uint64N(1<<46)
		case 7: // not canonical
			b.target = 1<<47 + b.Uint64N(1<<63)
			if canonical(b.target) {
				return false
			}
		}
		if b.f.aligned && !b.one(4) {
			b.target &^= 15
		}
		if b.addr32 && b.segment == 0 {
			b.target &= math.MaxUint32
		}
	} else {
		at := b.IntN(dataSize - n + 1)
		switch b.IntN(6) {
		case 0, 1, 2:
			at &^= alignmentOf(n) - 1
		case 3: // over the boundary between the pages
			at = max(0, pageSize-b.IntN(n+1))
		case 4:
			at = pick(b.source, 0, dataSize-n)
		}
		if b.f.aligned && (b.f.is("good") || !b.one(12)) {
			at &^= 15
		}
		if together && (at&63)+n > 64 {
			at &^= 63
		}
		b.target = base + uint64(at)
	}
	b.locate(n)
	return true
}

// locate finds the operand in the data pages.
func (b *builder) locate(n int) {
	b.at = -1
	for _, base := range []uint64{lowData, highData} {
		if off := b.target - base; off <= uint64(dataSize-n) {
			b.at = int(off)
		}
	}
}

// alignmentOf is the largest power of two up to n.
func alignmentOf(n int) int {
	a := 1
	for 2*a <= n {
		a *= 2
	}
	return a
}

// segmentBase is what the segment prefix adds.
func (b *builder) segmentBase() uint64 {
	switch b.segment {
	case 0x64:
		return b.c.before.FSBase
	case 0x65:
		return b.c.before.GSBase
	}
	return 0
}

// offset gives the effective address that reaches linear, if the segment's base
// lets one. Whether one that is not canonical may lead to a linear address that
// is, processors differ in.
func (b *builder) offset(linear uint64) (uint64, bool) {
	ea := linear - b.segmentBase()
	return ea, (!b.addr32 || ea <= math.MaxUint32) && (b.segment == 0 || canonical(ea) || !canonical(linear))
}

func canonical(v uint64) bool { return uint64(int64(v)<<16>>16) == v }

// settle gives a register its value, once. Where the address size is 32 bits
// and v is part of an address, the upper half is anything.
func (b *builder) settle(reg int, v uint64, address bool) bool {
	if b.used>>reg&1 != 0 {
		return false
	}
	if address && b.addr32 {
		v = v&math.MaxUint32 | b.integer()<<32
	}
	b.used |= 1 << reg
	b.c.before.GPR[reg] = v
	return true
}

// address makes one form of address that reaches the target (SDM volume 2,
// 2.1.5).
func (b *builder) address() bool {
	const sibNone, sibRSP, baseNone = 4, 4, 5
	ea, ok := b.offset(b.target)
	if !ok {
		return false
	}
	b.rex &^= rexB | rexX
	b.relRIP = false
	reg := byte(b.reg&7) << 3
	if b.addr32 {
		ea = uint64(uint32(ea))
	}
	fits := func(v uint64) bool { return v == uint64(int64(int32(v))) }
	le := binary.LittleEndian
	switch b.IntN(8) {
	case 0: // absolute
		if !fits(ea) && !b.addr32 {
			return false
		}
		b.modrm = le.AppendUint32([]byte{reg | sibRSP, sibNone<<3 | baseNone}, uint32(ea))
		return true
	case 1: // by RIP
		if b.segment != 0 {
			return false
		}
		b.relRIP = true
		b.modrm = le.AppendUint32([]byte{reg | baseNone}, 0)
		return true
	}
	mod := byte(b.IntN(3))
	var disp uint64
	switch mod {
	case 1:
		disp = uint64(int64(int8(b.Uint32())))
	case 2:
		disp = uint64(int64(int32(b.integer())))
	}
	base := b.IntN(16)
	withIndex := b.one(3)
	index, scale, scaled := sibNone, byte(0), uint64(0)
	if withIndex {
		if index = b.IntN(16); index == sibNone || index == base {
			return false
		}
		scale = byte(b.IntN(4))
		if mod == 0 && base&7 == baseNone { // no base: the index reaches the target
			v := (ea - uint64(int64(int32(b.integer())))) >> scale
			disp = ea - v<<scale
			if !fits(disp) || b.addr32 || !b.settle(index, v, true) {
				return false
			}
			b.rex |= byte(index>>3)*rexX | byte(b.IntN(2))*rexB
			b.modrm = le.AppendUint32([]byte{reg | sibRSP, scale<<6 | byte(index&7)<<3 | baseNone}, uint32(disp))
			return true
		}
		v := b.integer()
		scaled = v << scale
		if !b.settle(index, v, false) {
			return false
		}
		b.rex |= byte(index>>3) * rexX
	} else if mod == 0 && base&7 == baseNone {
		return false
	}
	if !b.settle(base, ea-disp-scaled, true) {
		return false
	}
	b.rex |= byte(base>>3) * rexB
	if withIndex || base&7 == sibRSP || b.one(6) {
		b.modrm = []byte{mod<<6 | reg | sibRSP, scale<<6 | byte(index&7)<<3 | byte(base&7)}
	} else {
		b.modrm = []byte{mod<<6 | reg | byte(base&7)}
	}
	switch mod {
	case 1:
		b.modrm = append(b.modrm, byte(disp))
	case 2:
		b.modrm = le.AppendUint32(b.modrm, uint32(disp))
	}
	return true
}

// place chooses where the instruction is on the code pages.
func (b *builder) place() {
	const last = codePages * pageSize
	at := 64 + b.IntN(last-256)
	switch b.IntN(24) {
	case 0: // over the boundary
		at = pageSize - b.IntN(8)
	case 1: // over the end, or just before it
		at = last - 1 - b.IntN(8)
	}
	b.c.before.RIP = codePage + uint64(at)
}

// assemble puts the instruction together.
func (b *builder) assemble(illegalLock bool) {
	f := b.f
	var prefixes []byte
	add := func(p ...byte) { prefixes = append(prefixes, p...) }
	if b.size == 2 && f.sizes != sizeNone {
		add(0x66)
	}
	if f.mandatory == 0x66 {
		add(0x66)
	}
	if b.addr32 {
		add(0x67)
	}
	if b.lock || illegalLock {
		add(0xf0)
	}
	if b.segment != 0 {
		add(b.segment)
	}
	if b.repeat != 0 {
		add(b.repeat)
	}
	if f.mandatory > 0x66 {
		add(f.mandatory)
	}
	if !f.is("plain") && b.one(12) {
		b.needless(add)
	}
	b.Shuffle(len(prefixes), func(i, j int) { prefixes[i], prefixes[j] = prefixes[j], prefixes[i] })
	if b.segment != 0 { // the last one counts
		i := slices.Index(prefixes, b.segment)
		prefixes = append(slices.Delete(prefixes, i, i+1), b.segment)
	}
	// REX with nothing in it makes SPL to DIL of AH to BH.
	if b.rex != 0 || b.one(8) {
		if f.sizes == sizeNone && !f.is("plain") && b.one(10) {
			b.rex |= rexW
		}
		prefixes = append(prefixes, 0x40|b.rex)
	}
	opcode := slices.Clone(f.opcode)
	last := len(opcode) - 1
	switch f.inOpcode {
	case 'r', 'i':
		opcode[last] += byte(b.reg & 7)
	case 'c':
		opcode[last] += byte(b.reg)
	}
	b.c.code = slices.Concat(prefixes, opcode, b.modrm, b.imm)
}

// needless adds prefixes that change nothing, and once in a while so many that
// the instruction is too long.
func (b *builder) needless(add func(...byte)) {
	f := b.f
	if b.segment == 0 {
		// SS counts for nothing but whether an address that is not canonical is
		// #SS, and there the manuals differ.
		if p := pick[byte](b.source, 0x26, 0x2e, 0x36, 0x3e); p != 0x36 || !b.bad {
			add(p)
		}
	}
	if b.addr32 && b.one(2) {
		add(0x67)
	}
	if b.size == 2 && f.sizes != sizeNone && b.one(2) {
		add(0x66)
	}
	if f.mandatory == 0 && f.sizes == sizeNone && f.memory == 1 && f.opcode[0] != 0x0f && b.one(2) {
		add(0x66)
	}
	if f.mandatory == 0 && f.opcode[0] != 0x0f && f.opcode[0] != 0x90 && !f.is("string") && !f.is("branch") && b.one(3) {
		add(pick[byte](b.source, 0xf2, 0xf3))
	}
	if b.segment == 0 && b.one(15) {
		add(slices.Repeat([]byte{0x3e}, 12)...)
	}
}

// patchRelative puts the displacement from the next instruction in its place.
func (b *builder) patchRelative() bool {
	next := b.c.before.RIP + uint64(len(b.c.code))
	disp := b.target - next
	if b.addr32 {
		if b.target > math.MaxUint32 {
			return false
		}
	} else if disp != uint64(int64(int32(disp))) {
		return false
	}
	binary.LittleEndian.PutUint32(b.c.code[len(b.c.code)-len(b.imm)-4:], uint32(disp))
	return true
}

// patchBranch puts the displacement of a branch in its place: it must not lead
// into the instruction itself.
func (b *builder) patchBranch() bool {
	n := len(b.c.code)
	next := b.c.before.RIP + uint64(n)
	if b.rel == 1 {
		if d := int(int8(b.c.code[n-1])); d < 0 && d >= -n {
			b.c.code[n-1] = byte(d + 128)
		}
		return true
	}
	disp := b.destination() - next
	if disp != uint64(int64(int32(disp))) {
		return false
	}
	binary.LittleEndian.PutUint32(b.c.code[n-4:], uint32(disp))
	return true
}

// destination is where a branch may lead: mostly to other places of the code
// pages.
func (b *builder) destination() uint64 {
	for {
		to := codePage + b.Uint64N(codePages*pageSize)
		switch b.IntN(40) {
		case 0: // not to execute
			to = lowData + b.Uint64N(dataSize)
		case 1:
			to = codePage + codePages*pageSize + b.Uint64N(1<<20)
		case 2:
			to = lowData + supervisor + b.Uint64N(pageSize)
		case 3:
			to = b.Uint64N(1 << 30)
		}
		if to-(b.c.before.RIP-1) > 17 {
			return to
		}
	}
}
