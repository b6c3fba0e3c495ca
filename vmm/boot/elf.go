package boot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"fifovm/vmm/memory"
)

// lowEnd is where memory begins that the kernel's own file may claim. What lies
// below is for the boot parameters and the BIOS area.
const lowEnd = 1 << 20

const (
	elfHeaderSize  = 64
	elfSegmentSize = 56
	// maxSegments is ample: a vmlinux has five.
	maxSegments = 128
)

// Facts that a bare vmlinux doesn't carry, as any x86-64 kernel has them.
const (
	elfCommandMax = 2047       // COMMAND_LINE_SIZE - 1 in arch/x86/include/asm/setup.h
	elfInitrdMax  = 0x7fffffff // initrd_addr_max in arch/x86/boot/header.S
)

// parseELF reads a vmlinux: the segments by physical address. A bare ELF file
// doesn't say that it can run elsewhere than where it was linked for, so it
// isn't moved.
func parseELF(src source) (*Kernel, error) {
	if src.size() < elfHeaderSize {
		return nil, errors.New("is an ELF file cut off in its header: build or copy it again")
	}
	b, err := src.bytes(0, elfHeaderSize)
	if err != nil {
		return nil, err
	}
	if err := checkELFIdent(b); err != nil {
		return nil, err
	}
	var h elf.Header64
	if err := binary.Read(bytes.NewReader(b), binary.LittleEndian, &h); err != nil {
		return nil, err
	}
	if m := elf.Machine(h.Machine); m != elf.EM_X86_64 {
		return nil, fmt.Errorf("is an ELF file for %v: give a kernel that is built for x86-64", m)
	}
	if t := elf.Type(h.Type); t != elf.ET_EXEC {
		return nil, fmt.Errorf("is an ELF file of type %v, not an executable: give the vmlinux", t)
	}
	if h.Phentsize != elfSegmentSize || h.Phnum == 0 || h.Phnum > maxSegments {
		return nil, fmt.Errorf("is an ELF file with %d program headers of %d bytes: no kernel has those; build or copy it again", h.Phnum, h.Phentsize)
	}
	table := uint64(h.Phnum) * elfSegmentSize
	if h.Phoff > src.size() || table > src.size()-h.Phoff {
		return nil, errors.New("is an ELF file cut off in its program headers: build or copy it again")
	}
	if b, err = src.bytes(h.Phoff, table); err != nil {
		return nil, err
	}
	progs := make([]elf.Prog64, h.Phnum)
	if err := binary.Read(bytes.NewReader(b), binary.LittleEndian, progs); err != nil {
		return nil, err
	}
	k := &Kernel{
		header:     newHeader(),
		commandMax: elfCommandMax,
		initrdMax:  elfInitrdMax,
	}
	if err := k.addSegments(src, progs); err != nil {
		return nil, err
	}
	return k, k.setEntry(h.Entry, progs)
}

func checkELFIdent(ident []byte) error {
	if c := elf.Class(ident[elf.EI_CLASS]); c != elf.ELFCLASS64 {
		return fmt.Errorf("is an ELF file of %v: give a 64-bit kernel (CONFIG_64BIT=y)", c)
	}
	if d := elf.Data(ident[elf.EI_DATA]); d != elf.ELFDATA2LSB {
		return fmt.Errorf("is an ELF file of %v: give a kernel that is built for x86-64", d)
	}
	return nil
}

func (k *Kernel) addSegments(src source, progs []elf.Prog64) error {
	var total uint64
	for _, p := range progs {
		switch elf.ProgType(p.Type) {
		case elf.PT_INTERP, elf.PT_DYNAMIC:
			return errors.New("is a dynamically linked user program: give a vmlinux or bzImage")
		case elf.PT_LOAD:
		default:
			continue
		}
		if p.Memsz == 0 {
			continue
		}
		switch {
		case p.Filesz > p.Memsz:
			return fmt.Errorf("has a segment with %#x bytes for %#x of memory: build it again", p.Filesz, p.Memsz)
		case p.Off > src.size() || p.Filesz > src.size()-p.Off:
			return fmt.Errorf("is cut off: a segment ends at byte %d of %d; build or copy it again", p.Off+p.Filesz, src.size())
		case p.Paddr < lowEnd:
			return fmt.Errorf("has a segment at physical address %#x, below %#x, where firmware and boot parameters are: link it higher", p.Paddr, lowEnd)
		case p.Paddr >= memory.HoleStart || p.Memsz > memory.HoleStart-p.Paddr || p.Memsz > maxKernel:
			return fmt.Errorf("has a segment at physical address %#x of %#x bytes, outside of the memory below %#x: link it lower", p.Paddr, p.Memsz, uint64(memory.HoleStart))
		}
		// The pieces of an honest file don't overlap, so that together they
		// aren't larger than it; else a small file could ask for much memory.
		if total += p.Filesz; total > src.size() {
			return errors.New("has overlapping segments: build it again")
		}
		data, err := src.bytes(p.Off, p.Filesz)
		if err != nil {
			return err
		}
		if len(k.segments) == 0 || p.Paddr < k.base {
			k.base = p.Paddr
		}
		k.end = max(k.end, p.Paddr+p.Memsz)
		k.segments = append(k.segments, segment{addr: p.Paddr, data: trimZeros(data), size: p.Memsz})
	}
	if len(k.segments) == 0 {
		return errors.New("is an ELF file with nothing to load: give the vmlinux")
	}
	return nil
}

// trimZeros cuts the zeros at the end, page by page. Linux's build leaves the
// bss in the file, and pages of RAM that aren't written cost the host nothing.
func trimZeros(data []byte) []byte {
	var zeros [memory.PageSize]byte
	for n := len(data); n > 0; n = len(data) {
		rest := (n - 1) % memory.PageSize // the last page may be cut
		if !bytes.Equal(data[n-1-rest:], zeros[:rest+1]) {
			break
		}
		data = data[:n-1-rest]
	}
	return data
}

// setEntry takes the entry point as a physical address, which it is in a
// vmlinux of today, or else as a virtual one.
func (k *Kernel) setEntry(entry uint64, progs []elf.Prog64) error {
	for _, virtual := range []bool{false, true} {
		for _, p := range progs {
			start := p.Paddr
			if virtual {
				start = p.Vaddr
			}
			if elf.ProgType(p.Type) == elf.PT_LOAD && entry >= start && entry-start < p.Filesz {
				k.entry = p.Paddr + (entry - start)
				return nil
			}
		}
	}
	return fmt.Errorf("has its entry point at %#x, in none of its segments: give a vmlinux for x86-64", entry)
}
