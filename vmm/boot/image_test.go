package boot

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// This file makes the kernels that the tests load: small, but of the same build
// as real ones.

const testBase = 16 << 20

// elfOf gives an ELF file of one segment at physical address addr with data and
// as much memory; change may alter the headers.
func elfOf(addr uint64, data []byte, size uint64, change func(*elf.Header64, *elf.Prog64)) []byte {
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: addr,
		Phoff: elfHeaderSize, Ehsize: elfHeaderSize, Phentsize: elfSegmentSize, Phnum: 1,
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	p := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W | elf.PF_X),
		Off: elfHeaderSize + elfSegmentSize, Paddr: addr, Vaddr: 0xffff_ffff_8000_0000 + addr,
		Filesz: uint64(len(data)), Memsz: size,
	}
	if change != nil {
		change(&h, &p)
	}
	var b bytes.Buffer
	must(binary.Write(&b, binary.LittleEndian, h))
	must(binary.Write(&b, binary.LittleEndian, p))
	b.Write(data)
	return b.Bytes()
}

// testCode compresses a little, and has x86 calls in it: the x86 filter of xz
// changes what follows an e8.
var testCode = []byte(strings.Repeat("some instructions\xe8\x10\x00\x00\x00", 40))

func testELF() []byte { return elfOf(testBase, testCode, 1<<20, nil) }

// bzImageOf wraps a payload, whose last four bytes are its uncompressed size;
// change may alter the first sectors.
func bzImageOf(payload []byte, change func([]byte)) []byte {
	const sectors, payloadOffset = 1, 16
	b := make([]byte, (1+sectors)*sectorSize+payloadOffset)
	copy(b[hdrStart:], newHeader())
	le := binary.LittleEndian
	b[hdrStart] = sectors
	le.PutUint32(b[hdrAlignment:], 2<<20)
	b[hdrRelocatable] = 1
	le.PutUint32(b[hdrPayloadOffset:], payloadOffset)
	le.PutUint32(b[hdrPayloadLength:], uint32(len(payload)))
	le.PutUint32(b[hdrInitSize:], 4<<20)
	if change != nil {
		change(b)
	}
	return append(b, payload...)
}

// compressors write what `gzip -9`, `lz4 -l` and so on do.
var compressors = map[string]func(io.Writer) (io.WriteCloser, error){
	"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
	"lzma": func(w io.Writer) (io.WriteCloser, error) {
		return lzma.WriterConfig{DictCap: 1 << 20}.NewWriter(w)
	},
	"xz": func(w io.Writer) (io.WriteCloser, error) {
		return xz.WriterConfig{DictCap: 1 << 20, CheckSum: xz.CRC32}.NewWriter(w)
	},
	"lz4": func(w io.Writer) (io.WriteCloser, error) {
		z := lz4.NewWriter(w)
		return z, z.Apply(lz4.LegacyOption(true))
	},
	"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
}

// payloadOf compresses data as the kernel's build does.
func payloadOf(format string, data []byte) []byte {
	var b bytes.Buffer
	w, err := compressors[format](&b)
	must(err)
	_, err = w.Write(data)
	must(err)
	must(w.Close())
	if format == "gzip" {
		return b.Bytes()
	}
	return binary.LittleEndian.AppendUint32(b.Bytes(), uint32(len(data)))
}

func testBzImage(format string) []byte { return bzImageOf(payloadOf(format, testELF()), nil) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// cpioOf gives an initramfs with one executable: Documentation/driver-api/
// early-userspace/buffer-format.rst.
func cpioOf(name string, data []byte) []byte {
	var b bytes.Buffer
	entry := func(name string, mode int, data []byte) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		pad := func() { b.Write(make([]byte, -b.Len()&3)) }
		pad()
		b.Write(data)
		pad()
	}
	entry(name, 0o100755, data)
	entry("TRAILER!!!", 0, nil)
	return b.Bytes()
}

func section(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

func testPlatform() Platform {
	p := Platform{
		LocalAPIC: 0xfee0_0000, IOAPIC: 0xfec0_0000,
		ECAM:         Window{0xe000_0000, 256 << 20},
		MMIO32:       Window{0xc000_0000, 512 << 20},
		MMIO64:       Window{1 << 38, 1 << 38},
		UARTs:        []Port{{0x3f8, 4}, {0x2f8, 3}},
		RTC:          Port{0x70, 8},
		SleepControl: 0x600, SleepStatus: 0x601, SleepType: 5,
		Reset: 0xcf9, ResetValue: 6,
	}
	for slot := range p.INTx {
		for pin := range p.INTx[slot] {
			p.INTx[slot][pin] = 16 + uint32(slot+pin)%8
		}
	}
	return p
}

func parseTest(t testing.TB, image []byte) *Kernel {
	t.Helper()
	k, err := Parse(image)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
