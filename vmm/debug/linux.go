package debug

import (
	"bytes"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Linux finds the modules that a guest's kernel has loaded, and where their
// sections are, in the guest's memory: it is what the guest's own
// /sys/module/NAME/sections say. Nothing in the guest has to help.
//
// It knows where to look from the kernel's symbols, and what is there from the
// debug information of the modules' files. The kernel must be where it was linked
// for, as it is with package boot, which does what a bzImage's decompressor does
// but for address space randomization.
type Linux struct {
	list  uint64 // address of the kernel's list of modules
	files map[string]string
	struc module
}

// module is the layout of the kernel's struct module, of what hangs on it, and of
// that what is not in a header: struct module_sect_attrs (kernel/module/sysfs.c).
type module struct {
	state, list, name, nameSize, sections int64
	group, attribute                      int64 // sizes of attribute_group and bin_attribute
}

// Module is one that the guest's kernel has loaded.
type Module struct {
	Name     string
	File     string // its own, with symbols; empty where none of those known is
	Live     bool   // its init function has returned
	Sections []Section
	// Other: the file is of another build than the guest's.
	Other bool
}

// Section is a section of a module and its linear address.
type Section struct {
	Name    string
	Address uint64
}

// OpenLinux reads what has to be known of a kernel, a vmlinux with symbols, and of
// modules: .ko files, at least one of them with debug information.
func OpenLinux(kernel string, modules ...string) (*Linux, error) {
	k := &Linux{files: map[string]string{}}
	f, err := elf.Open(kernel)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: want a vmlinux with symbols", kernel, err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: want a vmlinux with symbols", kernel, err)
	}
	i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "modules" && elf.ST_TYPE(s.Info) == elf.STT_OBJECT })
	if i < 0 {
		return nil, fmt.Errorf("%s has no list of modules", kernel)
	}
	k.list = symbols[i].Value
	if len(modules) == 0 {
		return nil, errors.New("no module's file: want a .ko with debug information")
	}
	var without error
	found := false
	for _, path := range modules {
		k.files[strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")] = path
		if found {
			continue
		}
		if err := k.struc.read(path); err != nil {
			without = errors.Join(without, fmt.Errorf("%s: %w", path, err))
		} else {
			found = true
		}
	}
	if !found {
		return nil, without
	}
	return k, nil
}

// read takes the layout from a module's debug information.
func (m *module) read(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	d, err := f.DWARF()
	if err != nil {
		return fmt.Errorf("its debug information: %w", err)
	}
	structs, err := findStructs(d, "module", "attribute_group", "bin_attribute", "list_head")
	if err != nil {
		return err
	}
	s := structs["module"]
	for name, to := range map[string]*int64{"state": &m.state, "list": &m.list, "name": &m.name, "sect_attrs": &m.sections} {
		i := slices.IndexFunc(s.Field, func(f *dwarf.StructField) bool { return f.Name == name })
		if i < 0 {
			return fmt.Errorf("the kernel's struct module has no %s: it is of a kernel that this program doesn't know", name)
		}
		*to = s.Field[i].ByteOffset
		if name == "name" {
			m.nameSize = s.Field[i].Type.Size()
		}
	}
	m.group, m.attribute = structs["attribute_group"].ByteSize, structs["bin_attribute"].ByteSize
	return nil
}

// findStructs gives structs by their names.
func findStructs(d *dwarf.Data, names ...string) (map[string]*dwarf.StructType, error) {
	found := map[string]*dwarf.StructType{}
	for r := d.Reader(); len(found) < len(names); {
		e, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("its debug information: %w", err)
		}
		if e == nil {
			return nil, errors.New("it has no debug information about struct module: build it with -g")
		}
		name, _ := e.Val(dwarf.AttrName).(string)
		if e.Tag == dwarf.TagStructType && slices.Contains(names, name) && found[name] == nil && e.Val(dwarf.AttrDeclaration) == nil {
			t, err := d.Type(e.Offset)
			if err != nil {
				return nil, fmt.Errorf("its debug information: %w", err)
			}
			found[name] = t.(*dwarf.StructType)
		}
		if e.Tag != dwarf.TagCompileUnit {
			r.SkipChildren()
		}
	}
	return found, nil
}

// Bounds of what a guest's memory may say.
const (
	maxModules  = 500
	maxSections = 200
	maxName     = 64
)

// Modules lists what the guest's kernel has loaded, the last one first.
func (k *Linux) Modules(s *Session) (list []Module, err error) {
	err = s.still(func() error {
		list, err = k.modules(s)
		return err
	})
	return list, err
}

func (k *Linux) modules(s *Session) ([]Module, error) {
	g := &guestMemory{session: s}
	var list []Module
	for at := g.word(k.list); at != k.list && g.err == nil; at = g.word(at) {
		if len(list) == maxModules {
			return nil, errors.New("the kernel's list of modules has no end: is this the guest's kernel?")
		}
		list = append(list, k.module(g, at-uint64(k.struc.list)))
	}
	if g.err != nil {
		return nil, fmt.Errorf("the kernel's list of modules: %w: is this the guest's kernel, and has it come so far?", g.err)
	}
	return list, nil
}

func (k *Linux) module(g *guestMemory, at uint64) Module {
	l := &k.struc
	m := Module{Name: g.text(at+uint64(l.name), int(l.nameSize)), Live: g.int32(at+uint64(l.state)) == 0}
	m.File = k.files[m.Name]
	attributes := g.word(at + uint64(l.sections))
	if attributes == 0 || g.err != nil {
		return m
	}
	n := min(g.int32(attributes+uint64(l.group)), maxSections)
	first := attributes + (uint64(l.group)+4+7)&^7
	size := uint64(l.attribute) + 8
	for i := range uint64(n) {
		a := first + i*size
		m.Sections = append(m.Sections, Section{g.text(g.word(a), maxName), g.word(a + uint64(l.attribute))})
	}
	if id := buildID(m.File); id != nil && m.Section(buildIDSection) != 0 {
		have := make([]byte, len(id))
		g.read(m.Section(buildIDSection), have)
		m.Other = g.err == nil && !bytes.Equal(id, have)
	}
	return m
}

const buildIDSection = ".note.gnu.build-id"

// buildID gives the note that tells one build of a file from others; nil if there
// is none.
func buildID(path string) []byte {
	f, err := elf.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	s := f.Section(buildIDSection)
	if s == nil {
		return nil
	}
	b, err := s.Data()
	if err != nil {
		return nil
	}
	return b
}

// guestMemory reads words, until the first error. It takes each CPU's view: one
// that is in user space may not see the kernel.
type guestMemory struct {
	session *Session
	err     error
}

func (g *guestMemory) read(addr uint64, b []byte) {
	if g.err != nil {
		return
	}
	var err error
	for cpu := range g.session.CPUs() {
		if _, err = g.session.access(cpu, addr, b, g.session.machine.RAM().Read); err == nil {
			return
		}
	}
	g.err = err
	clear(b)
}

func (g *guestMemory) word(addr uint64) uint64 {
	var b [8]byte
	g.read(addr, b[:])
	return binary.LittleEndian.Uint64(b[:])
}

func (g *guestMemory) int32(addr uint64) uint32 {
	var b [4]byte
	g.read(addr, b[:])
	return binary.LittleEndian.Uint32(b[:])
}

// text reads a string of at most n bytes.
func (g *guestMemory) text(addr uint64, n int) string {
	var b []byte
	for len(b) < n && g.err == nil {
		var c [1]byte
		if g.read(addr+uint64(len(b)), c[:]); c[0] == 0 {
			break
		}
		b = append(b, c[0])
	}
	return string(bytes.ToValidUTF8(b, []byte("?")))
}

// Section gives the address of a section, 0 if there is none of that name.
func (m *Module) Section(name string) uint64 {
	for _, s := range m.Sections {
		if s.Name == name {
			return s.Address
		}
	}
	return 0
}

// GDB gives gdb's command that loads a module's symbols; empty where it has no
// file or nothing to tell.
func (m *Module) GDB() (string, error) {
	if m.File == "" || m.Section(".text") == 0 {
		return "", nil
	}
	if m.Other {
		return "", fmt.Errorf("%s is of another build than the guest's %s: make image", m.File, m.Name)
	}
	f, err := elf.Open(m.File)
	if err != nil {
		return "", fmt.Errorf("%s: %w", m.File, err)
	}
	defer f.Close()
	path, err := filepath.Abs(m.File)
	if err != nil {
		return "", err
	}
	line := fmt.Sprintf("add-symbol-file %q", path)
	for _, s := range m.Sections {
		in := f.Section(s.Name)
		if in == nil || in.Flags&elf.SHF_ALLOC == 0 || in.Size == 0 || s.Address == 0 ||
			m.Live && strings.HasPrefix(s.Name, ".init") { // gone, and another's perhaps
			continue
		}
		line += fmt.Sprintf(" -s %s %#x", s.Name, s.Address)
	}
	return line, nil
}
