// Package boot puts a Linux kernel into guest RAM the way a boot loader and a
// PC's firmware together would: the kernel's segments, its boot parameters and
// memory map, the command line, the initrd, and ACPI tables that describe the
// machine. What is left to do for the boot CPU is in the Entry that Load gives.
//
// Kernels are ELF files (vmlinux) or bzImages. The payload of a bzImage is
// decompressed here, on the host, and entered at its 64-bit entry point, so the
// guest spends no instruction on it.
//
// The package reads files that anybody may have made: nothing in them leads to
// a panic, an access outside of RAM or an allocation out of proportion.
package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"fifovm/vmm/symbols"
)

// maxKernel bounds the bytes of a kernel in memory. A Linux image has to fit in
// the 1 GiB of address space that its code model leaves it
// (KERNEL_IMAGE_SIZE in arch/x86/include/asm/page_64_types.h).
const maxKernel = 1 << 30

// maxBzImage bounds what is read of a file that holds a bzImage. Distributions'
// are 5 to 20 MiB.
const maxBzImage = 256 << 20

// Kernel is a kernel that was read, checked and decompressed. It doesn't
// change, so it can be loaded many times, and used from any goroutine.
type Kernel struct {
	name       string    // the file, for errors; "kernel" where there is none
	segments   []segment // at least one
	base, end  uint64    // guest-physical range that the segments span, unless moved
	entry      uint64    // guest-physical, inside of the range
	header     []byte    // setup header: boot_params from hdrStart on
	align      uint64    // the kernel may be moved by multiples of it; 0: not at all
	commandMax uint64    // longest command line, without the final NUL
	initrdMax  uint64    // highest address that a byte of the initrd may have

	symbols func() *symbols.Table // of the file, read at the first call; nil: none
}

// segment is memory that the kernel wants filled: data, then zeros up to size.
type segment struct {
	addr uint64 // guest-physical
	data []byte
	size uint64 // >= len(data)
}

// Open reads the kernel in the file at path.
func Open(path string) (*Kernel, error) {
	k, err := open(path)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) { // the path is in our own prefix
			err = fmt.Errorf("cannot be read (%w): give a vmlinux or bzImage", pe.Err)
		}
		return nil, fmt.Errorf("boot: %s: %w", path, err)
	}
	k.name = path
	k.symbols = sync.OnceValue(func() *symbols.Table { return readSymbols(path) })
	return k, nil
}

func open(path string) (*Kernel, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for its writer
		return nil, errors.New("is not a regular file: give a vmlinux or bzImage")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only: closing cannot lose anything
	return parse(&fileSource{f: f, n: uint64(info.Size())})
}

// Parse reads the kernel in image, of which the Kernel keeps parts: don't
// change it afterwards.
func Parse(image []byte) (*Kernel, error) {
	k, err := parse(byteSource(image))
	if err != nil {
		return nil, fmt.Errorf("boot: kernel: %w", err)
	}
	k.name = "kernel"
	return k, nil
}

// source is an image of which pieces can be had. A vmlinux with debug
// information has hundreds of megabytes that nobody needs to read.
type source interface {
	size() uint64
	// bytes gives [off, off+n), which lies inside.
	bytes(off, n uint64) ([]byte, error)
}

type byteSource []byte

func (s byteSource) size() uint64                        { return uint64(len(s)) }
func (s byteSource) bytes(off, n uint64) ([]byte, error) { return s[off : off+n : off+n], nil }

type fileSource struct {
	f *os.File
	n uint64
}

func (s *fileSource) size() uint64 { return s.n }

func (s *fileSource) bytes(off, n uint64) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(s.f, int64(off), int64(n)), b); err != nil {
		return nil, err
	}
	return b, nil
}

// probeSize is enough of a file's start to tell what it is.
const probeSize = 0x400

func parse(src source) (*Kernel, error) {
	if src.size() == 0 {
		return nil, errors.New("is empty: build or copy the kernel again")
	}
	start, err := src.bytes(0, min(src.size(), probeSize))
	if err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(start, []byte("\x7fELF")):
		return parseELF(src)
	case isBzImage(start):
		if src.size() > maxBzImage {
			return nil, fmt.Errorf("is a bzImage of %d MiB: want at most %d MiB", src.size()>>20, maxBzImage>>20)
		}
		image, err := src.bytes(0, src.size())
		if err != nil {
			return nil, err
		}
		return parseBzImage(image)
	}
	return nil, foreign(start)
}

// foreign says what a file is that is no kernel for us.
func foreign(start []byte) error {
	at := func(off int, magic string) bool {
		return len(start) >= off+len(magic) && string(start[off:off+len(magic)]) == magic
	}
	// The first two: Documentation/arch/arm64/booting.rst and
	// Documentation/arch/riscv/boot-image-header.rst.
	switch {
	case at(0x38, "ARM\x64"):
		return errors.New("is a kernel for arm64: give one that is built for x86-64")
	case at(0x38, "RSC\x05"):
		return errors.New("is a kernel for RISC-V: give one that is built for x86-64")
	case at(0, "MZ"):
		return errors.New("is an EFI program without a Linux setup header: give the bzImage or vmlinux that it was made from")
	}
	if f := formatOf(start); f != nil {
		return fmt.Errorf("is a bare %s file: decompress it, or give the bzImage or vmlinux", f.name)
	}
	return errors.New("is neither an ELF file nor a bzImage: give a vmlinux or bzImage for x86-64")
}
