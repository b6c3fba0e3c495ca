package boot

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// This file encodes the little of the ACPI Machine Language that a DSDT of ours
// needs. ACPI 6.5, chapter 20. Each function gives the bytes of one term; a
// block takes the terms in it.

// term is the encoding of one AML term.
type term []byte

func join(terms ...term) term {
	var b term
	for _, t := range terms {
		b = append(b, t...)
	}
	return b
}

// AML opcodes: ACPI 6.5, table 20.4 (in section 20.3).
const (
	opZero         = 0x00
	opOne          = 0x01
	opName         = 0x08
	opByte         = 0x0a
	opWord         = 0x0b
	opDWord        = 0x0c
	opQWord        = 0x0e
	opScope        = 0x10
	opBuffer       = 0x11
	opPackage      = 0x12
	opMethod       = 0x14
	opDualName     = 0x2e
	opMultiName    = 0x2f
	opExtended     = 0x5b
	opExtDevice    = 0x82
	opArg0         = 0x68
	opOr           = 0x7d
	opCreateDWord  = 0x8a
	opLEqual       = 0x93
	opIf           = 0xa0
	opReturn       = 0xa4
	rootPrefix     = '\\'
	nameSegmentLen = 4
)

// pkgLength encodes PkgLength for a block with n bytes after it: the length
// counts its own bytes too. ACPI 6.5, section 20.2.4.
func pkgLength(n int) term {
	if n+1 < 1<<6 {
		return term{byte(n + 1)}
	}
	for more := 1; more <= 3; more++ {
		if total := n + 1 + more; total < 1<<(4+8*more) {
			b := term{byte(more)<<6 | byte(total&0xf)}
			for total >>= 4; len(b) <= more; total >>= 8 {
				b = append(b, byte(total))
			}
			return b
		}
	}
	panic(fmt.Sprintf("boot: AML block of %d bytes", n)) // our tables are some KiB
}

// block is an opcode, the length of what follows, and that.
func block(op []byte, contents ...term) term {
	c := join(contents...)
	return join(op, pkgLength(len(c)), c)
}

// path encodes a NameString such as `\_SB` or `PCI0` or `_SB.PCI0`: section 20.2.2.
func path(s string) term {
	var b term
	if s != "" && s[0] == rootPrefix {
		b, s = append(b, rootPrefix), s[1:]
	}
	segments := strings.Split(s, ".")
	switch n := len(segments); {
	case n == 2:
		b = append(b, opDualName)
	case n > 2:
		b = append(b, opMultiName, byte(n))
	}
	for _, seg := range segments {
		if len(seg) == 0 || len(seg) > nameSegmentLen {
			panic(fmt.Sprintf("boot: AML name %q", s)) // names are constants of ours
		}
		b = append(b, seg...)
		b = append(b, "____"[len(seg):]...)
	}
	return b
}

// integer encodes v in as few bytes as can be.
func integer(v uint64) term {
	le := binary.LittleEndian
	switch {
	case v == 0:
		return term{opZero}
	case v == 1:
		return term{opOne}
	case v < 1<<8:
		return term{opByte, byte(v)}
	case v < 1<<16:
		return le.AppendUint16(term{opWord}, uint16(v))
	case v < 1<<32:
		return le.AppendUint32(term{opDWord}, uint32(v))
	}
	return le.AppendUint64(term{opQWord}, v)
}

// eisaID encodes a device's identification of the form "PNP0A08" as the
// compressed integer that EISAID() stands for: section 19.3.4, "EISA ID".
func eisaID(s string) term {
	letter := func(i int) uint32 { return uint32(s[i]-'A'+1) & 0x1f }
	v := letter(0)<<26 | letter(1)<<21 | letter(2)<<16
	for i := 3; i < 7; i++ {
		v |= uint32(strings.IndexByte("0123456789ABCDEF", s[i])) << (4 * (6 - i))
	}
	return binary.BigEndian.AppendUint32(term{opDWord}, v)
}

func buffer(data []byte) term {
	return block([]byte{opBuffer}, integer(uint64(len(data))), data)
}

func pkg(elements ...term) term {
	return block([]byte{opPackage}, append([]term{{byte(len(elements))}}, elements...)...)
}

func name(p string, value term) term { return join(term{opName}, path(p), value) }

func scope(p string, terms ...term) term {
	return block([]byte{opScope}, append([]term{path(p)}, terms...)...)
}

func device(p string, terms ...term) term {
	return block([]byte{opExtended, opExtDevice}, append([]term{path(p)}, terms...)...)
}

// method encodes one that is not serialized and takes args arguments.
func method(p string, args int, terms ...term) term {
	return block([]byte{opMethod}, append([]term{path(p), {byte(args)}}, terms...)...)
}

func arg(n int) term { return term{byte(opArg0 + n)} }

func when(predicate term, terms ...term) term {
	return block([]byte{opIf}, append([]term{predicate}, terms...)...)
}

func equal(a, b term) term { return join(term{opLEqual}, a, b) }

func giveBack(v term) term { return join(term{opReturn}, v) }

// or stores a|b in target.
func or(a, b, target term) term { return join(term{opOr}, a, b, target) }

// dwordField names the 32 bits at byte off in buffer b.
func dwordField(b term, off uint64, p string) term {
	return join(term{opCreateDWord}, b, integer(off), path(p))
}

// uuid encodes what ToUUID() stands for: the first three groups little endian.
// ACPI 6.5, section 19.6.142.
func uuid(s string) term {
	order := [16]int{6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34}
	b := make([]byte, 16)
	for i, at := range order {
		if _, err := fmt.Sscanf(s[at:at+2], "%02x", &b[i]); err != nil {
			panic(fmt.Sprintf("boot: UUID %q", s)) // a constant of ours
		}
	}
	return buffer(b)
}

// Resource descriptors, that make up a _CRS: ACPI 6.5, section 6.4.

// resources encodes a ResourceTemplate(): the descriptors and the end tag.
func resources(descriptors ...[]byte) term {
	var b []byte
	for _, d := range descriptors {
		b = append(b, d...)
	}
	return buffer(append(b, 0x79, 0)) // section 6.4.2.9; 0: no checksum
}

// ioPorts is n ports from port on, decoded with 16 bits. Section 6.4.2.5.
func ioPorts(port uint16, n uint8) []byte {
	b := []byte{0x47, 1}
	b = binary.LittleEndian.AppendUint16(b, port)
	b = binary.LittleEndian.AppendUint16(b, port)
	return append(b, 1, n) // aligned to one port
}

// interrupt is a line of the I/O APIC that the device alone drives: edge
// triggered, active high, as on the ISA bus. Section 6.4.3.6.
func interrupt(gsi uint32) []byte {
	const consumer, edge = 1 << 0, 1 << 1
	return binary.LittleEndian.AppendUint32([]byte{0x89, 6, 0, consumer | edge, 1}, gsi)
}

// fixedMemory is an area of memory addresses below 4 GiB. Section 6.4.3.4.
func fixedMemory(base, size uint32) []byte {
	b := []byte{0x86, 9, 0, 1} // writable
	b = binary.LittleEndian.AppendUint32(b, base)
	return binary.LittleEndian.AppendUint32(b, size)
}

// Kinds of address space: section 6.4.3.5, "Resource Type".
const (
	spaceMemory = 0
	spaceIO     = 1
	spaceBus    = 2
)

// window is a range of addresses that a bridge hands on to the bus below it, in
// an address space descriptor with fields of width bytes. Section 6.4.3.5.
func window(kind byte, width int, base, size uint64) []byte {
	const minFixed, maxFixed = 1 << 2, 1 << 3 // and positive decode, and the bridge is the producer
	specific := byte(0)
	switch kind {
	case spaceMemory:
		specific = 1 // writable, not cacheable
	case spaceIO:
		specific = 3 // the whole range
	}
	tag := map[int]byte{2: 0x88, 4: 0x87, 8: 0x8a}[width]
	b := []byte{tag, byte(3 + 5*width), 0, kind, minFixed | maxFixed, specific}
	for _, v := range []uint64{0, base, base + size - 1, 0, size} { // granularity, first, last, translation, length
		f := binary.LittleEndian.AppendUint64(nil, v)
		b = append(b, f[:width]...)
	}
	return b
}
