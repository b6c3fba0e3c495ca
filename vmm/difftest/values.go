package difftest

import (
	"encoding/binary"
	"math"
	"math/bits"
	"math/rand/v2"
)

// source draws random values, of which the edges are a good part.
type source struct{ *rand.Rand }

// one says yes once in n.
func (s source) one(n int) bool { return s.IntN(n) == 0 }

func pick[T any](s source, list ...T) T { return list[s.IntN(len(list))] }

// integer is a value for a general register or an integer operand.
func (s source) integer() uint64 {
	switch s.IntN(10) {
	case 0:
		return pick[uint64](s, 0, 1, ^uint64(0), 2)
	case 1: // around the ends of the signed and unsigned ranges
		return uint64(1)<<pick(s, 7, 8, 15, 16, 31, 32, 63) + uint64(s.IntN(3)) - 1
	case 2:
		return -(uint64(1)<<pick(s, 7, 15, 31) + uint64(s.IntN(3)) - 1)
	case 3:
		return uint64(s.IntN(256))
	case 4:
		return -uint64(s.IntN(256))
	case 5:
		return uint64(1) << s.IntN(64)
	case 6: // different in each part
		return uint64(s.Uint32())<<32 | pick[uint64](s, 0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff)
	}
	return s.Uint64() >> s.IntN(2) // half of them with any top
}

// single is a binary32 value.
func (s source) single() uint32 {
	sign := s.Uint32() & 0x8000_0000
	switch s.IntN(12) {
	case 0:
		return sign | pick[uint32](s, 0, 1, 0x7f_ffff, 0x80_0000, 0x80_0001, 0x7f7f_ffff, 0x7f80_0000)
	case 1: // signalling and quiet NaN
		return sign | 0x7f80_0000 | 1 + s.Uint32N(0x3f_ffff)
	case 2:
		return sign | 0x7fc0_0000 | s.Uint32N(0x40_0000)
	case 3: // denormal
		return sign | s.Uint32N(0x80_0000)
	case 4: // whole numbers and halves
		return sign | math.Float32bits(float32(s.IntN(1000))/2)
	case 5: // at the edges of the integers
		return sign | math.Float32bits(float32(math.Ldexp(1, pick(s, 15, 31, 63)))) + s.Uint32N(3) - 1
	case 6:
		return math.Float32bits(1) | sign
	case 7, 8: // of the size of one
		return sign | (120+s.Uint32N(40))<<23 | s.Uint32N(1<<23)
	case 9: // few bits, so that results can be exact
		return sign | (120+s.Uint32N(16))<<23 | s.Uint32N(8)<<20
	}
	return s.Uint32()
}

// double is a binary64 value.
func (s source) double() uint64 {
	sign := s.Uint64() & (1 << 63)
	switch s.IntN(12) {
	case 0:
		return sign | pick[uint64](s, 0, 1, 1<<52-1, 1<<52, 1<<52+1, 0x7fef_ffff_ffff_ffff, 0x7ff0_0000_0000_0000)
	case 1:
		return sign | 0x7ff0_0000_0000_0000 | 1 + s.Uint64N(1<<51-1)
	case 2:
		return sign | 0x7ff8_0000_0000_0000 | s.Uint64N(1<<51)
	case 3:
		return sign | s.Uint64N(1<<52)
	case 4:
		return sign | math.Float64bits(float64(s.IntN(1000))/2)
	case 5:
		return sign | math.Float64bits(math.Ldexp(1, pick(s, 15, 31, 63))) + s.Uint64N(3) - 1
	case 6: // at the edges of binary32
		return sign | math.Float64bits(math.Ldexp(1+s.Float64(), pick(s, -150, -149, -127, -126, 126, 127, 128)))
	case 7, 8:
		return sign | (1010+s.Uint64N(70))<<52 | s.Uint64N(1<<52)
	case 9:
		return sign | (1016+s.Uint64N(32))<<52 | s.Uint64N(8)<<49
	case 10: // between two values of binary32, or in the middle
		return sign | (1010+s.Uint64N(40))<<52 | s.Uint64N(1<<23)<<29 | pick[uint64](s, 0, 1, 1<<28-1, 1<<28, 1<<28+1, 1<<29-1)
	}
	return s.Uint64()
}

// extended is an 80-bit value: significand, and sign with exponent.
func (s source) extended() (mant uint64, se uint16) {
	const one = 0x3fff
	sign := uint16(s.Uint32()) & 0x8000
	switch s.IntN(16) {
	case 0: // zero, denormal, infinity
		return pick(s, 0, 0, 1, s.Uint64()>>1), sign
	case 1:
		return 1 << 63, sign | 0x7fff
	case 2: // NaN
		return 1<<63 | 1 + s.Uint64N(1<<62-1), sign | 0x7fff
	case 3:
		return 3<<62 | s.Uint64N(1<<62), sign | 0x7fff
	case 4: // whole numbers
		v := uint64(1 + s.IntN(1000))
		n := bits.Len64(v)
		return v << (64 - n), sign | uint16(one+n-1)
	case 5: // edges of the integers
		return pick[uint64](s, 1<<63, 1<<63+1, ^uint64(0), 0xffff_ffff_0000_0000, 0xffff_fffe_0000_0000, 0xffff_0000_0000_0000), sign | uint16(one+pick(s, 14, 15, 30, 31, 62, 63))
	case 6: // edges of the range and of those of the shorter formats
		return 1<<63 | s.Uint64(), sign | uint16(pick(s, 1, 2, 0x7ffe, 0x7ffd, one-1022, one-1023, one-1074, one-126, one-127, one-149, one+127, one+128, one+1023, one+1024, 0x7ffe-40, 40))
	case 7: // unsupported encodings and pseudo-denormals (SDM volume 1, 8.2.2)
		if s.one(3) {
			return s.Uint64() >> pick(s, 0, 1), sign | uint16(pick(s, 0, 1, one, 0x7fff))
		}
		return 1<<63 | s.Uint64(), sign
	case 8:
		return 1 << 63, sign | one
	case 9: // few bits
		return 1<<63 | s.Uint64N(8)<<60, sign | uint16(one-8+s.IntN(40))
	case 10: // halfway for the shorter formats
		return 1<<63 | s.Uint64()<<12 | pick[uint64](s, 0, 1<<10, 1<<10+1, 1<<10-1, 1<<11-1), sign | uint16(one-20+s.IntN(60))
	case 11:
		return 1<<63 | s.Uint64(), sign | uint16(1+s.IntN(0x7ffe))
	}
	return 1<<63 | s.Uint64(), sign | uint16(one-30+s.IntN(80))
}

// fill fills b with values of a flavour of the table.
func (s source) fill(b []byte, flavour byte) {
	le := binary.LittleEndian
	if s.one(12) {
		flavour = pick[byte](s, 'i', 's', 'd', 't')
	}
	var unit [16]byte
	for len(b) > 0 {
		n := 8
		switch flavour {
		case 's':
			n = 4
			le.PutUint32(unit[:], s.single())
		case 'd':
			le.PutUint64(unit[:], s.double())
		case 't': // few different bytes, and zeros that end strings
			for i := range 8 {
				unit[i] = pick[byte](s, 'a', 'b', 'c', 'a', 'b', 0x80, 0xff, 0)
			}
		case 'x':
			n = 16
			m, se := s.extended()
			le.PutUint64(unit[:], m)
			le.PutUint64(unit[8:], uint64(se)|s.Uint64()<<16)
		case 'b': // packed decimal; sometimes with digits that are none
			n = 16
			digits := 10
			if s.one(20) {
				digits = 16
			}
			for i := range 9 {
				unit[i] = byte(s.IntN(digits)<<4 | s.IntN(digits))
			}
			unit[9] = byte(s.IntN(2) << 7)
		default:
			le.PutUint64(unit[:], s.integer())
			if s.one(4) { // packed small ones
				w := pick[uint64](s, 0x8000, 0x7fff, 0xffff, 0x80, 0x7f, uint64(s.Uint32()&0xffff))
				le.PutUint64(unit[:], w*0x0001_0001_0001_0001)
			}
		}
		b = b[copy(b, unit[:n]):]
	}
}
