package splat

import (
	"bytes"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
)

// object is a vmlinux or a module. The caller of its methods sees to it that they
// are not called at the same time.
type object struct {
	name   string
	file   *os.File
	elf    *elf.File
	loaded map[string]uint64 // where the kernel has put sections of a module

	symbols []elf.Symbol // functions, by address; nil: not yet read
	byName  map[string][]int

	read  bool // whether the debug information was looked for
	dwarf *dwarf.Data
	units []span        // compilation units, by address
	parts map[int]*unit // those that were needed, by their index in entries
	heads []*dwarf.Entry
	roots []string // folders whose names are left out
}

// span is a piece of code and what it belongs to.
type span struct {
	low, high uint64
	index     int
}

// unit is a compilation unit.
type unit struct {
	functions []span // by address; index is into entries
	entries   []*dwarf.Entry
	lines     []dwarf.LineEntry // by address
	files     []*dwarf.LineFile
}

var errNoELF = errors.New("not an ELF file")

// maxModule bounds a file that is taken for a module: those are read whole.
const maxModule = 512 << 20

func openObject(name string) (*object, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	o := &object{name: name, file: f}
	var magic [len(elf.ELFMAG)]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil || string(magic[:]) != elf.ELFMAG {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, errNoELF)
	}
	if o.elf, err = elf.NewFile(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if o.elf.Type == elf.ET_REL {
		if err := o.link(); err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return o, nil
}

func (o *object) close() { o.file.Close() }

// sectionStep is the distance of a module's sections of code once it is linked.
// None is longer: it is checked.
const sectionStep = 1 << 28

// link gives each section of a module's code addresses of its own. In a
// relocatable file they all begin at 0, and so would everything that the debug
// information says of them.
func (o *object) link() error {
	if o.elf.Class != elf.ELFCLASS64 || o.elf.ByteOrder != binary.LittleEndian {
		return errors.New("not a module of x86-64")
	}
	info, err := o.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() > maxModule {
		return fmt.Errorf("%d MiB is too long for a module", info.Size()>>20)
	}
	image := make([]byte, info.Size())
	if _, err := o.file.ReadAt(image, 0); err != nil {
		return err
	}
	for _, s := range o.elf.Sections {
		if s.Flags&elf.SHF_EXECINSTR != 0 && s.Size > sectionStep {
			return fmt.Errorf("section %s is too long", s.Name)
		}
		if s.Type != elf.SHT_SYMTAB || s.Flags&elf.SHF_COMPRESSED != 0 {
			continue
		}
		if s.Offset > uint64(len(image)) || s.FileSize > uint64(len(image))-s.Offset {
			return errors.New("cut off")
		}
		table := image[s.Offset : s.Offset+s.FileSize]
		for ; len(table) >= elf.Sym64Size; table = table[elf.Sym64Size:] {
			// Elf64_Sym: st_shndx is at 6, st_value at 8.
			section := int(o.elf.ByteOrder.Uint16(table[6:]))
			if base := o.base(section); base != 0 {
				value := o.elf.ByteOrder.Uint64(table[8:])
				o.elf.ByteOrder.PutUint64(table[8:], value+base)
			}
		}
	}
	o.elf, err = elf.NewFile(bytes.NewReader(image))
	return err
}

// base is the address that link gives to a section, 0 if it has no code.
func (o *object) base(section int) uint64 {
	if section <= 0 || section >= len(o.elf.Sections) || o.elf.Sections[section].Flags&elf.SHF_EXECINSTR == 0 {
		return 0
	}
	return uint64(section) * sectionStep
}

// load takes the address that the kernel gave to a section.
func (o *object) load(section string, addr uint64) error {
	if s := o.elf.Section(section); s == nil {
		return fmt.Errorf("%s has no section %s", o.name, section)
	}
	if o.loaded == nil {
		o.loaded = map[string]uint64{}
	}
	o.loaded[section] = addr
	return nil
}

// linked translates an address in a loaded module to one of link.
func (o *object) linked(addr uint64) (uint64, bool) {
	for i, s := range o.elf.Sections {
		if at, ok := o.loaded[s.Name]; ok && addr >= at && addr-at < s.Size && o.base(i) != 0 {
			return o.base(i) + addr - at, true
		}
	}
	return 0, false
}

// readSymbols reads the functions of the symbol table.
func (o *object) readSymbols() {
	if o.byName != nil {
		return
	}
	o.byName = map[string][]int{}
	all, err := o.elf.Symbols()
	if err != nil {
		return // stripped
	}
	for _, s := range all {
		i := int(s.Section)
		if i <= 0 || i >= len(o.elf.Sections) || o.elf.Sections[i].Flags&elf.SHF_EXECINSTR == 0 || s.Name == "" {
			continue
		}
		// Entry points written in assembler have no type.
		if t := elf.ST_TYPE(s.Info); t == elf.STT_FUNC || t == elf.STT_NOTYPE {
			o.symbols = append(o.symbols, s)
		}
	}
	sort.SliceStable(o.symbols, func(i, j int) bool { return o.symbols[i].Value < o.symbols[j].Value })
	for i, s := range o.symbols {
		o.byName[s.Name] = append(o.byName[s.Name], i)
	}
}

// function is the address offset bytes into a function. Of several with the same
// name, it is the one whose size fits best; the kernel prints as size the distance
// to the next symbol.
func (o *object) function(name string, offset, size uint64) (uint64, bool) {
	o.readSymbols()
	found := false
	var addr, missed uint64
	for _, i := range o.byName[name] {
		s := o.symbols[i]
		difference := o.extent(i) - size
		if int64(difference) < 0 {
			difference = -difference
		}
		if !found || difference < missed {
			found, addr, missed = true, s.Value+offset, difference
		}
	}
	// An offset behind the end is not one of this file's functions.
	return addr, found && offset <= size
}

// extent is the distance from a symbol to the next.
func (o *object) extent(i int) uint64 {
	for _, next := range o.symbols[i+1:] {
		if next.Section != o.symbols[i].Section {
			break
		}
		if next.Value > o.symbols[i].Value {
			return next.Value - o.symbols[i].Value
		}
	}
	return o.symbols[i].Size
}

// address is the function and the line of an address.
func (o *object) address(addr uint64) (function, file string, line int) {
	if places := o.places(addr); len(places) > 0 {
		p := places[0]
		return p.Function, p.File, p.Line
	}
	o.readSymbols()
	i := sort.Search(len(o.symbols), func(i int) bool { return o.symbols[i].Value > addr }) - 1
	if i < 0 || addr-o.symbols[i].Value >= max(o.extent(i), 1) {
		return "", "", 0
	}
	return o.symbols[i].Name, "", 0
}

// readUnits reads what is needed to find the unit of an address.
func (o *object) readUnits() {
	if o.read {
		return
	}
	o.read = true
	// Without it, elf makes an empty one, and of a truncated file an error: both
	// leave the functions.
	d, err := o.elf.DWARF()
	if err != nil {
		return
	}
	o.dwarf, o.parts = d, map[int]*unit{}
	r := d.Reader()
	for {
		e, err := r.Next()
		if err != nil || e == nil {
			break
		}
		if e.Tag != dwarf.TagCompileUnit {
			r.SkipChildren()
			continue
		}
		ranges, err := d.Ranges(e)
		if err == nil {
			for _, x := range ranges {
				if x[0] < x[1] {
					o.units = append(o.units, span{x[0], x[1], len(o.heads)})
				}
			}
		}
		o.heads = append(o.heads, e)
		o.readRoot(e)
		r.SkipChildren()
	}
	sort.SliceStable(o.units, func(i, j int) bool { return o.units[i].low < o.units[j].low })
}

// readRoot takes the folders of the source from the name of a unit.
func (o *object) readRoot(e *dwarf.Entry) {
	name, _ := e.Val(dwarf.AttrName).(string)
	for _, file := range []string{
		"init/main.c",             // in each kernel
		"scripts/module-common.c", // in each module, since 6.12
	} {
		if root, ok := strings.CutSuffix(name, "/"+file); ok {
			o.roots = append(o.roots, root+"/")
			return
		}
	}
	// A module's own: the folder of its first file.
	if o.elf.Type == elf.ET_REL && len(o.heads) == 1 && path.IsAbs(name) {
		o.roots = append(o.roots, path.Dir(name)+"/")
	}
}

// short leaves out of a file's name what all have in common.
func (o *object) short(file string) string {
	file = path.Clean(file)
	for _, root := range o.roots {
		if rest, ok := strings.CutPrefix(file, root); ok {
			return rest
		}
	}
	// The kernel's headers, in a module that does not name the kernel's folder.
	for _, top := range []string{"/arch/x86/", "/include/"} {
		if i := strings.Index(file, top); i >= 0 && path.IsAbs(file) {
			return file[i+1:]
		}
	}
	return file
}

// find gives the index of the last of the spans, which are sorted by their begin,
// that addr is in.
func find(spans []span, addr uint64) (int, bool) {
	i := sort.Search(len(spans), func(i int) bool { return spans[i].low > addr }) - 1
	// They do not overlap, but for what a compiler gets wrong.
	for last := max(i-8, 0); i >= last; i-- {
		if addr < spans[i].high {
			return spans[i].index, true
		}
	}
	return 0, false
}

// places is where addr is in the source: the innermost inlined function first.
func (o *object) places(addr uint64) []Place {
	o.readUnits()
	index, ok := find(o.units, addr)
	if !ok {
		return nil
	}
	u := o.unit(index)
	file, line := u.line(addr)
	if file == "" {
		return nil
	}
	at := Place{File: o.short(file), Line: line}
	function, ok := find(u.functions, addr)
	if !ok {
		return []Place{at} // assembler
	}
	var places []Place
	chain := o.inlined(u.entries[function], addr)
	for i := len(chain) - 1; i >= 0; i-- {
		at.Function = o.functionName(chain[i])
		places = append(places, at)
		// Where this one was called is a place in the next.
		called, _ := chain[i].Val(dwarf.AttrCallFile).(int64)
		line, _ := chain[i].Val(dwarf.AttrCallLine).(int64)
		if called < 0 || called >= int64(len(u.files)) || u.files[called] == nil {
			at = Place{}
			continue
		}
		at = Place{File: o.short(u.files[called].Name), Line: int(line)}
	}
	return places
}

// unit reads a compilation unit: its functions, not what is in them, and its lines.
func (o *object) unit(index int) *unit {
	if u := o.parts[index]; u != nil {
		return u
	}
	u := &unit{}
	o.parts[index] = u
	head := o.heads[index]
	r := o.dwarf.Reader()
	r.Seek(head.Offset)
	if _, err := r.Next(); err != nil {
		return u
	}
	for {
		e, err := r.Next()
		if err != nil || e == nil || e.Tag == 0 {
			break
		}
		if e.Tag == dwarf.TagSubprogram {
			if ranges, err := o.dwarf.Ranges(e); err == nil {
				for _, x := range ranges {
					u.functions = append(u.functions, span{x[0], x[1], len(u.entries)})
				}
				u.entries = append(u.entries, e)
			}
		}
		r.SkipChildren()
	}
	sort.SliceStable(u.functions, func(i, j int) bool { return u.functions[i].low < u.functions[j].low })
	lines, err := o.dwarf.LineReader(head)
	if err != nil || lines == nil {
		return u
	}
	for {
		var e dwarf.LineEntry
		if err := lines.Next(&e); err != nil {
			break
		}
		u.lines = append(u.lines, e)
	}
	u.files = lines.Files()
	// Sequences are each in order, and do not overlap. An end of one may be the
	// begin of another.
	sort.SliceStable(u.lines, func(i, j int) bool {
		a, b := &u.lines[i], &u.lines[j]
		return a.Address < b.Address || a.Address == b.Address && a.EndSequence && !b.EndSequence
	})
	return u
}

// line is the line of an address, no file if there is none.
func (u *unit) line(addr uint64) (file string, line int) {
	i := sort.Search(len(u.lines), func(i int) bool { return u.lines[i].Address > addr }) - 1
	if i < 0 || u.lines[i].EndSequence || u.lines[i].File == nil {
		return "", 0
	}
	return u.lines[i].File.Name, u.lines[i].Line
}

// inlined is the function and what is inlined there, one in the other, at addr.
func (o *object) inlined(function *dwarf.Entry, addr uint64) []*dwarf.Entry {
	chain := []*dwarf.Entry{function}
	if !function.Children {
		return chain
	}
	r := o.dwarf.Reader()
	r.Seek(function.Offset)
	if _, err := r.Next(); err != nil {
		return chain
	}
	for depth := 1; depth > 0; {
		e, err := r.Next()
		if err != nil || e == nil {
			break
		}
		if e.Tag == 0 {
			depth--
			continue
		}
		inside := false
		switch e.Tag {
		case dwarf.TagInlinedSubroutine, dwarf.TagLexDwarfBlock:
			if ranges, err := o.dwarf.Ranges(e); err == nil {
				for _, x := range ranges {
					inside = inside || x[0] <= addr && addr < x[1]
				}
			}
			if inside && e.Tag == dwarf.TagInlinedSubroutine {
				chain = append(chain, e)
			}
		}
		switch {
		case !e.Children:
		case inside:
			depth++
		default:
			r.SkipChildren()
		}
	}
	return chain
}

// functionName follows an inlined or a concrete function to what it is of.
func (o *object) functionName(e *dwarf.Entry) string {
	for range 8 { // no more than two in what compilers write
		if name, ok := e.Val(dwarf.AttrName).(string); ok {
			return name
		}
		origin, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset)
		if !ok {
			if origin, ok = e.Val(dwarf.AttrSpecification).(dwarf.Offset); !ok {
				break
			}
		}
		r := o.dwarf.Reader()
		r.Seek(origin)
		next, err := r.Next()
		if err != nil || next == nil {
			break
		}
		e = next
	}
	return "?"
}
