package soft

import (
	"math/bits"

	"fifovm/vmm/x86"
)

// The string instructions of SSE4.2, PCMPESTRI and its like (SDM volume 2, 4.1).
// The immediate says what they do.
const (
	// compareWords: the elements are words, else bytes.
	compareWords = 1 << 0
	// compareSigned matters to ranges only.
	compareSigned = 1 << 1
	// compareNegate inverts the result; with compareMasked where the second string
	// has not ended.
	compareNegate = 1 << 4
	compareMasked = 1 << 5
	// compareHighest: the index of the last match, not of the first; or a mask of
	// elements, not of bits.
	compareHighest = 1 << 6
)

// How elements are compared, bits 3 and 2 of the immediate.
const (
	equalAny = iota
	inRanges
	equalEach
	equalOrdered
)

// packedString is an operand: its elements and how many of them count.
type packedString struct {
	element [16]int32
	length  int
}

// unpackString takes a register apart into n elements; zero ends the string.
func unpackString(v xmm, imm uint64) (s packedString, n int) {
	b := v.bytes()
	n = 16
	if imm&compareWords != 0 {
		n = 8
	}
	s.length = n
	for i := n - 1; i >= 0; i-- {
		e := int32(b[i])
		if n == 8 {
			e = int32(b[2*i]) | int32(b[2*i+1])<<8
		}
		if e == 0 {
			s.length = i
		}
		if imm&compareSigned != 0 {
			if n == 8 {
				e = int32(int16(e))
			} else {
				e = int32(int8(e))
			}
		}
		s.element[i] = e
	}
	return s, n
}

// explicitLength is a length in a register: its magnitude, at most n.
func (c *cpu) explicitLength(o *op, reg, n int) int {
	v := int64(c.r[reg])
	if o.size != 8 {
		v = int64(int32(v))
	}
	if v < 0 {
		v = -v
	}
	if v < 0 || v > int64(n) { // the most negative number stays negative
		return n
	}
	return int(v)
}

// compareElements compares the strings: a bit for each of the n places in b.
func compareElements(a, b *packedString, n int, how uint64) uint32 {
	var r uint32
	for j := range n {
		var match bool
		switch how {
		case equalAny:
			for i := range a.length {
				match = match || j < b.length && a.element[i] == b.element[j]
			}
		case inRanges:
			for i := 0; i+1 < a.length; i += 2 {
				match = match || j < b.length && a.element[i] <= b.element[j] && b.element[j] <= a.element[i+1]
			}
		case equalEach:
			inA, inB := j < a.length, j < b.length
			match = inA == inB && (!inA || a.element[j] == b.element[j])
		case equalOrdered:
			match = true
			for i := 0; i < min(a.length, n-j); i++ {
				match = match && i+j < b.length && a.element[i] == b.element[i+j]
			}
		}
		if match {
			r |= 1 << j
		}
	}
	return r
}

// compareStrings does all but to store the result, which it returns with the
// number of elements.
func (c *cpu) compareStrings(o *op, explicit bool) (result uint32, n int) {
	vb := c.xmm[o.rm&15]
	if o.flags&flagMem != 0 {
		vb = c.load128(o.ea(c))
	}
	a, n := unpackString(c.xmm[o.reg&15], o.imm)
	b, _ := unpackString(vb, o.imm)
	if explicit {
		a.length, b.length = c.explicitLength(o, x86.RAX, n), c.explicitLength(o, x86.RDX, n)
	}
	result = compareElements(&a, &b, n, o.imm>>2&3)
	if o.imm&compareNegate != 0 {
		inverted := uint32(1)<<n - 1
		if o.imm&compareMasked != 0 {
			inverted = uint32(1)<<b.length - 1
		}
		result ^= inverted
	}
	c.setStatus(flag(result != 0, x86.FlagCF) | flag(b.length < n, x86.FlagZF) |
		flag(a.length < n, x86.FlagSF) | flag(result&1 != 0, x86.FlagOF))
	return result, n
}

// storeIndex is the end of PCMPESTRI and PCMPISTRI: the result's first or last
// bit goes to ECX.
func (c *cpu) storeIndex(o *op, result uint32, n int) {
	switch {
	case result == 0:
	case o.imm&compareHighest != 0:
		n = bits.Len32(result) - 1
	default:
		n = bits.TrailingZeros32(result)
	}
	c.r[x86.RCX] = uint64(n)
}

// storeMask is the end of PCMPESTRM and PCMPISTRM: the result goes to XMM0.
func (c *cpu) storeMask(o *op, result uint32, n int) {
	if o.imm&compareHighest == 0 {
		c.xmm[0] = xmm{lo: uint64(result)}
		return
	}
	var b [16]uint8
	for i := range b {
		if result>>(i*n/16)&1 != 0 {
			b[i] = 0xff
		}
	}
	c.xmm[0] = xmmOfBytes(b)
}

func opPcmpestri(c *cpu, o *op) {
	result, n := c.compareStrings(o, true)
	c.storeIndex(o, result, n)
}

func opPcmpistri(c *cpu, o *op) {
	result, n := c.compareStrings(o, false)
	c.storeIndex(o, result, n)
}

func opPcmpestrm(c *cpu, o *op) {
	result, n := c.compareStrings(o, true)
	c.storeMask(o, result, n)
}

func opPcmpistrm(c *cpu, o *op) {
	result, n := c.compareStrings(o, false)
	c.storeMask(o, result, n)
}
