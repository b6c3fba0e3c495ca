package boot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestParseELF(t *testing.T) {
	k := parseTest(t, testELF())
	if k.base != testBase || k.end != testBase+1<<20 || k.entry != testBase || k.align != 0 {
		t.Errorf("base %#x, end %#x, entry %#x, align %#x", k.base, k.end, k.entry, k.align)
	}
	if len(k.segments) != 1 || !bytes.Equal(k.segments[0].data, testCode) {
		t.Error("the segment's data are not the file's")
	}
}

func TestParseELFVirtualEntry(t *testing.T) {
	k := parseTest(t, elfOf(testBase, testCode, 1<<20, func(h *elf.Header64, p *elf.Prog64) { h.Entry = p.Vaddr + 8 }))
	if k.entry != testBase+8 {
		t.Errorf("entry %#x, want %#x", k.entry, testBase+8)
	}
}

func TestParseELFTrimsZeros(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, 3 * 4096} {
		data := append(bytes.Clone(testCode), make([]byte, n)...)
		k := parseTest(t, elfOf(testBase, data, 1<<20, nil))
		got := k.segments[0].data
		if len(got) > len(testCode)+4096 || !bytes.Equal(append(bytes.Clone(got), make([]byte, len(data)-len(got))...), data) {
			t.Errorf("%d zeros: %d of %d bytes left", n, len(got), len(data))
		}
	}
	if k := parseTest(t, elfOf(testBase, make([]byte, 5000), 1<<20, nil)); len(k.segments[0].data) != 0 {
		t.Errorf("nothing but zeros: %d bytes left", len(k.segments[0].data))
	}
}

func TestParseBzImage(t *testing.T) {
	for name := range compressors {
		t.Run(name, func(t *testing.T) { checkBzImage(t, testBzImage(name)) })
	}
}

func checkBzImage(t *testing.T, image []byte) {
	t.Helper()
	k := parseTest(t, image)
	if k.base != testBase || k.end != testBase+1<<20 || k.entry != testBase || k.align != minAlign {
		t.Errorf("base %#x, end %#x, entry %#x, align %#x", k.base, k.end, k.entry, k.align)
	}
	if len(k.segments) != 1 || !bytes.Equal(k.segments[0].data, testCode) {
		t.Error("the segment's data are not those that were compressed")
	}
	if !bytes.Equal(k.header, image[hdrStart:hdrMinEnd]) {
		t.Error("the setup header is not the file's")
	}
}

// TestParseToolsPayload reads what the kernel's build makes, with its commands:
// scripts/Makefile.lib and scripts/xz_wrap.sh.
func TestParseToolsPayload(t *testing.T) {
	for name, command := range map[string]string{
		"gzip":  "gzip -n -f -9",
		"bzip2": "bzip2 -9",
		"lzma":  "lzma -9",
		"xz":    "xz --check=crc32 --threads=1 --x86 --lzma2=,dict=128MiB",
		"lz4":   "lz4 -l -9 - -",
		"zstd":  "zstd -22 --ultra",
	} {
		t.Run(name, func(t *testing.T) {
			args := strings.Fields(command)
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skipf("no %s: install it", args[0])
			}
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Stdin = bytes.NewReader(testELF())
			payload, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if name != "gzip" {
				payload = binary.LittleEndian.AppendUint32(payload, uint32(len(testELF())))
			}
			checkBzImage(t, bzImageOf(payload, nil))
		})
	}
}

// TestParseSavedPayload reads streams of two tools that no Go library writes: xz
// with the x86 filter, of which testCode has something to filter, and bzip2.
func TestParseSavedPayload(t *testing.T) {
	for _, file := range []string{"payload.xz", "payload.bz2"} {
		payload, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		payload = binary.LittleEndian.AppendUint32(payload, uint32(len(testELF())))
		t.Run(file, func(t *testing.T) { checkBzImage(t, bzImageOf(payload, nil)) })
	}
}

// TestParseLZ4Blocks reads a payload of several blocks.
func TestParseLZ4Blocks(t *testing.T) {
	data := make([]byte, 2*lz4Block+5)
	for i := range data {
		data[i] = byte(i>>10*i) | 1
	}
	image := elfOf(testBase, data, uint64(len(data)), nil)
	k := parseTest(t, bzImageOf(payloadOf("lz4", image), func(b []byte) {
		binary.LittleEndian.PutUint32(b[hdrInitSize:], 32<<20)
	}))
	if !bytes.Equal(k.segments[0].data, data) {
		t.Error("the data are not those that were compressed")
	}
}

// TestParseErrors holds for each wrong file that the error says what is wrong
// and what to do, on one line.
func TestParseErrors(t *testing.T) {
	le := binary.LittleEndian
	head := func(change func(*elf.Header64)) []byte {
		return elfOf(testBase, testCode, 1<<20, func(h *elf.Header64, _ *elf.Prog64) { change(h) })
	}
	prog := func(change func(*elf.Prog64)) []byte {
		return elfOf(testBase, testCode, 1<<20, func(_ *elf.Header64, p *elf.Prog64) { change(p) })
	}
	bz := func(change func([]byte)) []byte { return bzImageOf(payloadOf("gzip", testELF()), change) }
	at := func(n, off int, magic string) []byte {
		b := make([]byte, n)
		copy(b[off:], magic)
		return b
	}
	lzo := append([]byte("\x89LZO\x00\x0d\x0a\x1a\x0a"), 0, 4, 0, 0)
	for _, c := range []struct {
		name  string
		image []byte
		want  string
	}{
		{"empty", nil, "is empty: build or copy"},
		{"one byte", []byte{0x7f}, "neither an ELF file nor a bzImage: give"},
		{"text", []byte("#!/bin/sh\n"), "neither an ELF file nor a bzImage: give"},
		{"zeros", make([]byte, 1<<20), "neither an ELF file nor a bzImage: give"},
		{"arm64 Image", at(64<<10, 0x38, "ARM\x64"), "is a kernel for arm64: give"},
		{"riscv Image", at(64<<10, 0x38, "RSC\x05"), "is a kernel for RISC-V: give"},
		{"EFI program", at(64<<10, 0, "MZ"), "is an EFI program without a Linux setup header: give"},
		{"vmlinux.gz", payloadOf("gzip", testELF()), "is a bare gzip file: decompress it"},
		{"vmlinux.zst", payloadOf("zstd", testELF()), "is a bare zstd file: decompress it"},

		{"ELF cut in the header", testELF()[:63], "cut off in its header: build"},
		{"ELF cut in the program headers", testELF()[:100], "cut off in its program headers: build"},
		{"ELF cut in a segment", testELF()[:500], "is cut off: a segment ends at byte 1000 of 500; build"},
		{"ELF of 32 bits", head(func(h *elf.Header64) { h.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS32) }), "is an ELF file of ELFCLASS32: give a 64-bit kernel"},
		{"ELF of a big-endian machine", head(func(h *elf.Header64) { h.Ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB) }), "is an ELF file of ELFDATA2MSB: give"},
		{"ELF for arm64", head(func(h *elf.Header64) { h.Machine = uint16(elf.EM_AARCH64) }), "is an ELF file for EM_AARCH64: give"},
		{"module", head(func(h *elf.Header64) { h.Type = uint16(elf.ET_REL) }), "of type ET_REL, not an executable: give"},
		{"program", prog(func(p *elf.Prog64) { p.Type = uint32(elf.PT_INTERP) }), "is a dynamically linked user program: give"},
		{"ELF with many segments", head(func(h *elf.Header64) { h.Phnum = 0xffff }), "with 65535 program headers of 56 bytes: no kernel"},
		{"ELF with odd segments", head(func(h *elf.Header64) { h.Phentsize = 32 }), "with 1 program headers of 32 bytes: no kernel"},
		{"ELF with nothing to load", prog(func(p *elf.Prog64) { p.Type = uint32(elf.PT_NOTE) }), "with nothing to load: give"},
		{"ELF with far headers", head(func(h *elf.Header64) { h.Phoff = 1<<64 - 8 }), "cut off in its program headers: build"},
		{"segment larger than its memory", prog(func(p *elf.Prog64) { p.Memsz = 1 }), "has a segment with 0x370 bytes for 0x1 of memory: build"},
		{"segment far in the file", prog(func(p *elf.Prog64) { p.Off = 1<<64 - 8 }), "is cut off: a segment ends"},
		{"segment in the BIOS area", prog(func(p *elf.Prog64) { p.Paddr = 0xf0000 }), "has a segment at physical address 0xf0000, below 0x100000"},
		{"segment in the PCI hole", prog(func(p *elf.Prog64) { p.Paddr = 0xc0000000 - 4096 }), "outside of the memory below 0xc0000000: link"},
		{"segment that wraps around", prog(func(p *elf.Prog64) { p.Memsz = 1<<64 - 1 }), "outside of the memory below 0xc0000000: link"},
		{"entry nowhere", head(func(h *elf.Header64) { h.Entry = 1 << 40 }), "has its entry point at 0x10000000000, in none of its segments: give"},

		{"bzImage cut in the header", bz(nil)[:0x230], "cut off in its header: build"},
		{"bzImage cut in the payload", bz(nil)[:1100], "is a bzImage cut off: 1100 of at least"},
		{"old bzImage", bz(func(b []byte) { le.PutUint16(b[hdrVersion:], 0x20b) }), "with boot protocol 2.11"},
		{"zImage", bz(func(b []byte) { b[hdrLoadFlags] = 0 }), "is a zImage"},
		{"32-bit bzImage", bz(func(b []byte) { b[hdrXLoadFlags] = 0 }), "is a 32-bit kernel: give"},
		{"short header", bz(func(b []byte) { b[hdrJump+1] = 2 }), "setup header ends at 0x204, before 0x268: build"},
		{"far payload", bz(func(b []byte) { le.PutUint32(b[hdrPayloadOffset:], 1<<32-1) }), "is a bzImage cut off"},
		{"no payload", bzImageOf(nil, nil), "no known compression: build"},
		{"unknown payload", bzImageOf(make([]byte, 100), nil), "no known compression: build"},
		{"lzo payload", bzImageOf(lzo, nil), "compressed with lzo, which fifovm cannot read: give its vmlinux, or build"},
		{"payload larger than announced", bz(func(b []byte) { le.PutUint32(b[hdrInitSize:], 100) }), "payload of 1000 bytes does not fit the 100"},
		{"payload that is no ELF file", bzImageOf(payloadOf("gzip", testCode), nil), "whose payload is no ELF file: build"},
		{"payload for arm64", bzImageOf(payloadOf("xz", head(func(h *elf.Header64) { h.Machine = uint16(elf.EM_AARCH64) })), nil), "whose payload is an ELF file for EM_AARCH64: give"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.image)
			checkError(t, err, "boot: kernel: ", c.want)
		})
	}
}

// TestParseDamagedPayload cuts each format's stream in half and flips bits in it.
func TestParseDamagedPayload(t *testing.T) {
	for name := range compressors {
		t.Run(name, func(t *testing.T) {
			whole := payloadOf(name, testELF())
			size := whole[len(whole)-sizeField:]
			cut := append(bytes.Clone(whole[:len(whole)/2]), size...)
			_, err := Parse(bzImageOf(cut, nil))
			checkError(t, err, "boot: kernel: ", name+" payload is damaged (")
			long := append(bytes.Clone(whole[:len(whole)-sizeField]), size...)
			binary.LittleEndian.PutUint32(long[len(long)-sizeField:], uint32(len(testELF())-1))
			_, err = Parse(bzImageOf(long, nil))
			checkError(t, err, "boot: kernel: ", name+" payload is damaged (")
			// Not every flip is found, but none may do harm.
			for i := range whole {
				bad := bytes.Clone(whole)
				bad[i] ^= 0x10
				if _, err := Parse(bzImageOf(bad, nil)); err != nil {
					checkError(t, err, "boot: kernel: ", ": ")
				}
			}
		})
	}
}

// TestParseBomb holds that a few bytes which claim to be many cost little.
func TestParseBomb(t *testing.T) {
	for name := range compressors {
		t.Run(name, func(t *testing.T) {
			payload := payloadOf(name, testELF())
			binary.LittleEndian.PutUint32(payload[len(payload)-sizeField:], maxKernel)
			image := bzImageOf(payload, func(b []byte) { binary.LittleEndian.PutUint32(b[hdrInitSize:], 1<<32-1) })
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Parse(image)
			runtime.ReadMemStats(&after)
			checkError(t, err, "boot: kernel: ", "payload is damaged (")
			if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
				t.Errorf("%d MiB allocated for a file of %d bytes", got>>20, len(image))
			}
		})
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		must(os.WriteFile(path, data, 0o600))
		return path
	}
	for _, image := range [][]byte{testELF(), testBzImage("gzip")} {
		k, err := Open(file("kernel", image))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(k.segments[0].data, testCode) {
			t.Error("the segment's data are not the file's")
		}
	}
	missing := filepath.Join(dir, "missing")
	for path, want := range map[string]string{
		missing:                      missing + ": cannot be read (",
		dir:                          dir + ": is not a regular file: give a vmlinux or bzImage",
		file("empty", nil):           "empty: is empty: build or copy",
		file("cut", testELF()[:500]): "cut: is cut off: a segment",
	} {
		_, err := Open(path)
		checkError(t, err, "boot: ", want)
	}
	if _, err := Open(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v: want fs.ErrNotExist inside", err)
	}
}

// checkError wants one line that starts with prefix and has want in it.
func checkError(t *testing.T, err error, prefix, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error: want %q", want)
	}
	s := err.Error()
	if !strings.HasPrefix(s, prefix) || !strings.Contains(s, want) || strings.Contains(s, "\n") {
		t.Errorf("error %q: want one line with %q", s, want)
	}
	if strings.Count(s, "boot:") != 1 {
		t.Errorf("error %q: wrapped more than once", s)
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, path := range realKernels(b) {
		b.Run(filepath.Base(path), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Open(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
