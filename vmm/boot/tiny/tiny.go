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

const (
	base       = 1 << 20 // the lowest address that a kernel may have
	headerSize = 64 + 56 // ELF header, one program header
)

// Kernel gives an ELF image of the kernel that obeys script first. A zero byte
// in it ends it.
func Kernel(script string) []byte {
	text := append(append(bytes.Clone(code), script...), 0)
	var b bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident:   [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:    uint16(elf.ET_EXEC),
			Machine: uint16(elf.EM_X86_64),
			Version: uint32(elf.EV_CURRENT),
			Entry:   base,
			Phoff:   64, Ehsize: 64, Phentsize: 56, Phnum: 1,
		},
		elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W | elf.PF_X),
			Off: headerSize, Vaddr: base, Paddr: base,
			Filesz: uint64(len(text)), Memsz: uint64(len(text)), Align: 1,
		},
		text,
	} {
		// A bytes.Buffer takes everything, and the parts are of fixed size.
		_ = binary.Write(&b, binary.LittleEndian, part)
	}
	return b.Bytes()
}
