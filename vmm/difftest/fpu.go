package difftest

import "encoding/binary"

// fpu is the image of FXSAVE64 (SDM volume 1, table 10-2).
type fpu [512]byte

// Offsets in the image.
const (
	fpuControl = 0
	fpuStatus  = 2
	fpuTags    = 4 // a bit for each register that is not empty, by physical number
	fpuMXCSR   = 24
	fpuST      = 32 // 16 bytes each, ST(0) first
	fpuXMM     = 160
)

// Bits of the x87 status word (SDM volume 1, 8.1.3) and of MXCSR (10.2.3).
const (
	statusC0, statusC1, statusC2, statusC3 = 1 << 8, 1 << 9, 1 << 10, 1 << 14
	statusSummary                          = 1<<7 | 1<<15 // ES, and B which is the same
	statusTop                              = 11

	exceptionBits = 0x3f // the six, in either word and in both masks
	precisionBit  = 0x20
	underflowBit  = 0x10
	denormalBit   = 0x02

	mxcsrDAZ   = 1 << 6
	mxcsrMasks = exceptionBits << 7
	mxcsrRC    = 13
	mxcsrFTZ   = 1 << 15
)

func (f *fpu) word(at int) uint16       { return binary.LittleEndian.Uint16(f[at:]) }
func (f *fpu) setWord(at int, v uint16) { binary.LittleEndian.PutUint16(f[at:], v) }
func (f *fpu) mxcsr() uint32            { return binary.LittleEndian.Uint32(f[fpuMXCSR:]) }
func (f *fpu) setMXCSR(v uint32)        { binary.LittleEndian.PutUint32(f[fpuMXCSR:], v) }
func (f *fpu) st(i int) []byte          { return f[fpuST+16*i:][:10] }
func (f *fpu) xmm(i int) []byte         { return f[fpuXMM+16*i:][:16] }
func (f *fpu) extended(i int) (uint64, uint16) {
	return binary.LittleEndian.Uint64(f.st(i)), binary.LittleEndian.Uint16(f.st(i)[8:])
}
func (f *fpu) setExtended(i int, mant uint64, se uint16) {
	binary.LittleEndian.PutUint64(f.st(i), mant)
	binary.LittleEndian.PutUint16(f.st(i)[8:], se)
}

// control is an x87 control word, mostly that of FNINIT.
func (s source) control() uint16 {
	if s.one(2) {
		return 0x37f
	}
	masks := uint16(exceptionBits)
	if s.one(3) {
		masks = uint16(s.Uint32()) & exceptionBits
	}
	return 0x40 | masks | pick[uint16](s, 0, 2, 3)<<8 | uint16(s.IntN(4))<<10
}

// status is an x87 status word that fits a control word. Where pending is set,
// an unmasked exception may wait for the next instruction.
func (s source) status(control uint16, pending bool) uint16 {
	v := uint16(s.IntN(8))<<statusTop | uint16(s.Uint32())&(statusC0|statusC1|statusC2|statusC3)
	if s.one(3) {
		v |= uint16(s.Uint32()) & exceptionBits
	}
	if !pending {
		v &^= exceptionBits &^ control
	}
	if v&exceptionBits&^control != 0 {
		v |= statusSummary
	}
	return v
}

// mxcsrValue is a legal MXCSR.
func (s source) mxcsrValue() uint32 {
	v := uint32(mxcsrMasks)
	if s.one(2) {
		v |= uint32(s.IntN(4)) << mxcsrRC
	}
	if s.one(5) {
		v |= mxcsrDAZ
	}
	if s.one(5) {
		v |= mxcsrFTZ
	}
	if s.one(3) {
		v |= s.Uint32() & exceptionBits
	}
	if s.one(7) {
		v &^= s.Uint32() & mxcsrMasks
	}
	return v
}

// fpuState is a whole state for a form.
func (s source) fpuState(form *form) (f fpu) {
	x87 := form.is("x87")
	control := uint16(0x37f)
	if x87 || s.one(4) {
		control = s.control()
	}
	f.setWord(fpuControl, control)
	f.setWord(fpuStatus, s.status(control, (x87 || form.is("mmx")) && s.one(20)))
	tags := uint16(0xff)
	if s.one(3) {
		tags = uint16(s.Uint32()) & 0xff
	}
	f.setWord(fpuTags, tags)
	f.setMXCSR(s.mxcsrValue())
	for i := range 8 {
		if !x87 {
			s.fill(f.st(i), form.flavour)
			continue
		}
		m, se := s.extended()
		f.setExtended(i, m, se)
		if i > 0 && s.one(8) { // operands that are near to each other
			m, se = f.extended(0)
			f.setExtended(i, m+uint64(s.IntN(3))-1, se+uint16(s.IntN(3))-1)
		}
	}
	for i := range 16 {
		s.fill(f.xmm(i), form.flavour)
	}
	return f
}
