// Package symbols is the symbol table of a kernel or a module: what address a
// name has, and which function an address is in.
//
// It reads ELF files and knows nothing of source lines (harness/splat does), nor
// of where a guest has put a module: who calls it says where the sections are.
package symbols

import (
	"debug/elf"
	"fmt"
	"sort"
)

// Table is the symbols of a file. A nil Table has none.
type Table struct {
	code   []symbol // by address
	byName map[string]uint64
}

type symbol struct {
	name string
	addr uint64
	end  uint64 // behind the last byte that may be its
}

// Read reads the symbols of a file. at gives the address of a section's first
// byte; ok is false where the section is nowhere.
func Read(f *elf.File, at func(*elf.Section) (addr uint64, ok bool)) (*Table, error) {
	all, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	t := &Table{byName: map[string]uint64{}}
	for i := range all {
		s := &all[i]
		kind := elf.ST_TYPE(s.Info)
		if kind == elf.STT_FILE || kind == elf.STT_SECTION || s.Name == "" || s.Section == elf.SHN_UNDEF {
			continue
		}
		value := s.Value
		var section *elf.Section
		if int(s.Section) < len(f.Sections) {
			section = f.Sections[s.Section]
			start, ok := at(section)
			if !ok {
				continue
			}
			if f.Type == elf.ET_REL { // its symbols count from their section's begin
				value += start
			}
		}
		if _, there := t.byName[s.Name]; !there {
			t.byName[s.Name] = value
		}
		if kind != elf.STT_FUNC && kind != elf.STT_NOTYPE || section == nil || section.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		start, _ := at(section)
		// A function written in assembly may have no size. It reaches no further than
		// its section.
		if value < start || value-start >= section.Size {
			continue
		}
		end := start + section.Size
		if s.Size != 0 {
			end = min(end, value+s.Size)
		}
		t.code = append(t.code, symbol{s.Name, value, end})
	}
	// Of several with the same address the narrowest comes first: the others are
	// marks of the linker's.
	sort.SliceStable(t.code, func(i, j int) bool {
		a, b := &t.code[i], &t.code[j]
		return a.addr < b.addr || a.addr == b.addr && a.end < b.end
	})
	return t, nil
}

// Linked is for Read: sections are where the file says, as a vmlinux's are.
func Linked(s *elf.Section) (uint64, bool) { return s.Addr, true }

// Function gives the function that an address is in, and how far.
func (t *Table) Function(addr uint64) (name string, offset uint64, ok bool) {
	if t == nil {
		return "", 0, false
	}
	i := sort.Search(len(t.code), func(i int) bool { return t.code[i].addr > addr }) - 1
	// One that ends before addr may lie within another, as an entry point in assembly
	// does.
	for last := max(i-nested, 0); i >= last; i-- {
		if s := &t.code[i]; addr < s.end {
			for i > 0 && t.code[i-1].addr == s.addr && addr < t.code[i-1].end {
				i--
			}
			return t.code[i].name, addr - s.addr, true
		}
	}
	return "", 0, false
}

// nested is how many symbols with an end there may be in a function before an
// address in it.
const nested = 16

// Symbol is "name+0x12" for an address in a function, else empty.
func (t *Table) Symbol(addr uint64) string {
	name, offset, ok := t.Function(addr)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s+%#x", name, offset)
}

// Functions gives the names of all functions, by address.
func (t *Table) Functions() (names []string) {
	if t == nil {
		return nil
	}
	for i := range t.code {
		names = append(names, t.code[i].name)
	}
	return names
}

// Address gives the address of a function or variable. Of several with the same
// name it is the first one's in the file.
func (t *Table) Address(name string) (addr uint64, ok bool) {
	if t == nil {
		return 0, false
	}
	addr, ok = t.byName[name]
	return addr, ok
}
