package monitor

import (
	"debug/elf"
	"errors"
	"fmt"
	"strings"
	"sync"

	"fifovm/harness/splat"
	"fifovm/vmm/boot"
	"fifovm/vmm/debug"
	"fifovm/vmm/symbols"
)

// Symbols knows the names of a guest's code and where in the source it is: the
// kernel's, and those of the modules that the guest has loaded, at which addresses
// it says itself. It is the debug.Symbolizer of a session. A nil *Symbols knows
// nothing.
type Symbols struct {
	kernel *boot.Kernel
	lines  *splat.Symbols
	linux  func() (*debug.Linux, error) // reads the files at the first call

	mu     sync.Mutex
	loaded []loadedModule
	tables map[string]*symbols.Table // what was read, by module and where it is
}

// loadedModule is one whose symbols are known.
type loadedModule struct {
	debug.Module
	table *symbols.Table
}

// OpenSymbols prepares for look-ups: image is the guest's kernel, kernel its
// vmlinux, modules are .ko files with symbols. What can't be read of them is not
// known.
func OpenSymbols(image *boot.Kernel, kernel string, modules ...string) *Symbols {
	s := &Symbols{kernel: image, tables: map[string]*symbols.Table{}}
	s.linux = sync.OnceValues(func() (*debug.Linux, error) { return debug.OpenLinux(kernel, modules...) })
	// A kernel without lines leaves those of the modules, and the other way round.
	var err error
	if s.lines, err = splat.Open(kernel, modules...); err != nil {
		s.lines, _ = splat.Open(kernel)
	}
	return s
}

// Close gives back the files.
func (s *Symbols) Close() {
	if s != nil {
		s.lines.Close()
	}
}

// Linux finds modules in the guest.
func (s *Symbols) Linux() (*debug.Linux, error) {
	if s == nil {
		return nil, errNoSymbols
	}
	return s.linux()
}

var errNoSymbols = errors.New("no file with symbols is known; an address is a number such as 0xffffffff81000000")

// Find looks which modules the guest has loaded now, and gives all of them. An
// error says why it can't; before the guest's kernel has come so far, it can't.
func (s *Symbols) Find(session *debug.Session) ([]debug.Module, error) {
	linux, err := s.Linux()
	if err != nil {
		return nil, err
	}
	list, err := linux.Modules(session)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded = nil
	for _, m := range list {
		if m.File == "" || m.Other {
			continue
		}
		s.loaded = append(s.loaded, loadedModule{m, s.read(&m)})
		for _, section := range m.Sections {
			if !gone(&m, section.Name) {
				_ = s.lines.Load(m.Name, section.Name, section.Address) // or the file does not have it
			}
		}
	}
	return list, err
}

// gone is whether a section was freed when its module's init function had returned,
// and may be another's now.
func gone(m *debug.Module, section string) bool {
	return m.Live && strings.HasPrefix(section, ".init")
}

// read gives a module's table, and nil where its file can't be read.
func (s *Symbols) read(m *debug.Module) *symbols.Table {
	key := fmt.Sprint(m.File, m.Live, m.Sections)
	if t, ok := s.tables[key]; ok {
		return t
	}
	s.tables[key] = nil
	f, err := elf.Open(m.File)
	if err != nil {
		return nil
	}
	defer f.Close() // read only: closing can't lose anything
	t, err := symbols.Read(f, func(section *elf.Section) (uint64, bool) {
		addr := m.Section(section.Name)
		return addr, addr != 0 && !gone(m, section.Name)
	})
	if err != nil {
		return nil
	}
	s.tables[key] = t
	return t
}

// Symbol implements debug.Symbolizer: "function+0x12", with the module behind it if
// it is one's.
func (s *Symbols) Symbol(addr uint64) string {
	if s == nil {
		return ""
	}
	if name := s.kernel.Symbol(addr); name != "" {
		return name
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.loaded {
		if name := s.loaded[i].table.Symbol(addr); name != "" {
			return name + " [" + s.loaded[i].Name + "]"
		}
	}
	return ""
}

// function gives the function that addr is in, and how far.
func (s *Symbols) function(addr uint64) (name string, offset uint64, ok bool) {
	if s == nil {
		return "", 0, false
	}
	if name, offset, ok = s.kernel.Function(addr); ok {
		return name, offset, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.loaded {
		if name, offset, ok = s.loaded[i].table.Function(addr); ok {
			return name, offset, true
		}
	}
	return "", 0, false
}

// functions are the names of all functions of modules that are loaded.
func (s *Symbols) functions() (names []string) {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.loaded {
		names = append(names, s.loaded[i].table.Functions()...)
	}
	return names
}

// freed is whether an address is in code that the kernel has freed after its boot.
func (s *Symbols) freed(addr uint64) bool {
	if s == nil {
		return false
	}
	low, ok := s.kernel.Address("_sinittext")
	high, ok2 := s.kernel.Address("_einittext")
	return ok && ok2 && low <= addr && addr < high
}

// Address gives the address of a function or variable, the kernel's or a module's.
func (s *Symbols) Address(name string) (uint64, error) {
	if s == nil {
		return 0, fmt.Errorf("there is no symbol %q: %w", name, errNoSymbols)
	}
	if addr, ok := s.kernel.Address(name); ok {
		return addr, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var where []string
	for i := range s.loaded {
		if addr, ok := s.loaded[i].table.Address(name); ok {
			return addr, nil
		}
		where = append(where, s.loaded[i].Name)
	}
	_, err := s.linux()
	switch {
	case err != nil:
		return 0, fmt.Errorf("there is no symbol %q in the kernel's file, and modules can't be found: %w", name, err)
	case len(where) == 0:
		return 0, fmt.Errorf("there is no symbol %q in the kernel's file, and no module is loaded whose file is known", name)
	}
	return 0, fmt.Errorf("there is no symbol %q in the kernel's file, nor in %s's: has the compiler inlined it?", name, strings.Join(where, "'s or "))
}

// line is where in the source an address is: "file.c:12", with the function before
// it where it is one that was inlined there; empty if that is not known.
func (s *Symbols) line(addr uint64) string {
	if s == nil {
		return ""
	}
	name, _, _ := strings.Cut(s.Symbol(addr), "+")
	if name == "" { // a module that is no longer there, perhaps
		return ""
	}
	function, file, line := s.lines.Address(addr)
	if file == "" || line == 0 {
		return ""
	}
	if function != "" && function != name {
		return fmt.Sprintf("%s, %s:%d", function, file, line)
	}
	return fmt.Sprintf("%s:%d", file, line)
}
