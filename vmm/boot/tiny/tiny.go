// Package tiny makes a kernel of a few hundred bytes for tests of what stands
// around a guest: consoles, exit statuses, reboots, a user who leaves.
//
// It is a valid 64-bit ELF kernel that runs at ring 0 wherever a kernel does,
// in milliseconds, even where KVM emulates ring 0 and no Linux boots. It prints
// "ready", then obeys the letters of its script, then those that come on ttyS0:
//
//	p  power off
//	r  reset the machine
//	t  triple fault
//	k  print what a kernel's panic prints, then reset
//	K  print a panic and its last line, then hang
//	f  flood the console
//	d  drop RTS, so that it can't be sent anything, and hang
//	n  execute POPCNT, which an emulating KVM does not know
//
// Every other character is echoed, and a break is answered with "<break>".
package tiny

import (
	"bytes"
	"debug/elf"
	_ "embed"
	"encoding/binary"
)

//go:generate sh -c "as -o tiny.o tiny.asm && objcopy -O binary tiny.o tiny.bin && rm tiny.o"

//go:embed tiny.bin
var code []byte

// Base is where the code is, in guest-physical and in linear addresses: the
// lowest address that a kernel may have.
const Base = 1 << 20

// Kernel gives an ELF image of the kernel that obeys script first. A zero byte
// in it ends it.
func Kernel(script string) []byte {
	return Image(append(append(bytes.Clone(code), script...), 0))
}

// Symbol names a part of a kernel's code, a function unless Type says otherwise.
type Symbol struct {
	Name         string
	Offset, Size uint64 // into the code
	Type         elf.SymType
}

// Image gives an ELF image of the kernel that is this code, entered at its
// start. It has a table of symbols if there are any.
func Image(code []byte, symbols ...Symbol) []byte {
	const (
		fileHeader, progHeader, sectionHeader, symbolSize = 64, 56, 64, 24

		start = fileHeader + progHeader
	)
	header := elf.Header64{
		Ident:   [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:    uint16(elf.ET_EXEC),
		Machine: uint16(elf.EM_X86_64),
		Version: uint32(elf.EV_CURRENT),
		Entry:   Base,
		Phoff:   fileHeader, Ehsize: fileHeader, Phentsize: progHeader, Phnum: 1,
	}
	parts := []any{&header, elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W | elf.PF_X),
		Off: start, Vaddr: Base, Paddr: Base,
		Filesz: uint64(len(code)), Memsz: uint64(len(code)), Align: 1,
	}, code}
	if len(symbols) > 0 {
		names := []byte{0}
		table := []elf.Sym64{{}}
		for _, s := range symbols {
			if s.Type == elf.STT_NOTYPE {
				s.Type = elf.STT_FUNC
			}
			table = append(table, elf.Sym64{Name: uint32(len(names)), Info: elf.ST_INFO(elf.STB_GLOBAL, s.Type),
				Shndx: 1, Value: Base + s.Offset, Size: s.Size})
			names = append(append(names, s.Name...), 0)
		}
		size := uint64(len(table)) * symbolSize
		tableAt := uint64(start + len(code))
		header.Shoff = tableAt + size + uint64(len(names))
		header.Shentsize, header.Shnum, header.Shstrndx = sectionHeader, 4, 3
		parts = append(parts, table, names, []elf.Section64{
			{},
			{Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR), Addr: Base, Off: start, Size: uint64(len(code))},
			{Type: uint32(elf.SHT_SYMTAB), Off: tableAt, Size: size, Link: 3, Info: 1, Entsize: symbolSize},
			{Type: uint32(elf.SHT_STRTAB), Off: tableAt + size, Size: uint64(len(names))},
		})
	}
	var b bytes.Buffer
	for _, part := range parts {
		// A bytes.Buffer takes everything, and the parts are of fixed size.
		_ = binary.Write(&b, binary.LittleEndian, part)
	}
	return b.Bytes()
}
