package boot

import (
	"debug/elf"
	"fmt"
)

// Symbol names the function that a linear address of the guest is in, as
// "name+0x12", for reports; it is empty where the kernel's file has no symbols
// or none for that address. The kernel must be where it was linked for: without
// address space randomization.
func (k *Kernel) Symbol(addr uint64) string {
	f, err := elf.Open(k.path)
	if err != nil {
		return ""
	}
	defer f.Close() // read only: closing cannot lose anything
	symbols, err := f.Symbols()
	if err != nil {
		return ""
	}
	// A symbol without a size reaches no further than its section.
	inside := func(section elf.SectionIndex) bool {
		if int(section) >= len(f.Sections) {
			return false
		}
		s := f.Sections[section]
		return s.Flags&elf.SHF_ALLOC != 0 && addr-s.Addr < s.Size
	}
	var best *elf.Symbol
	for i := range symbols {
		s := &symbols[i]
		if t := elf.ST_TYPE(s.Info); t != elf.STT_FUNC && t != elf.STT_NOTYPE || !inside(s.Section) {
			continue
		}
		// A function written in assembly may have no size.
		if s.Value > addr || s.Size != 0 && addr-s.Value >= s.Size {
			continue
		}
		if best == nil || s.Value > best.Value {
			best = s
		}
	}
	if best == nil {
		return ""
	}
	return fmt.Sprintf("%s+%#x", best.Name, addr-best.Value)
}

// Address gives the linear address of a function or variable of the kernel, by
// its name; ok is false where the kernel's file has none of that name.
func (k *Kernel) Address(name string) (addr uint64, ok bool) {
	f, err := elf.Open(k.path)
	if err != nil {
		return 0, false
	}
	defer f.Close() // read only: closing cannot lose anything
	symbols, err := f.Symbols()
	if err != nil {
		return 0, false
	}
	for i := range symbols {
		if s := &symbols[i]; s.Name == name && s.Section != elf.SHN_UNDEF && elf.ST_TYPE(s.Info) != elf.STT_FILE {
			return s.Value, true
		}
	}
	return 0, false
}
