package splat

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Symbols knows the functions and, where there is debug information, the source
// lines of a kernel and its modules. A nil *Symbols knows nothing, and all of its
// methods work. It may be used from several goroutines.
type Symbols struct {
	mu      sync.Mutex
	kernel  *object
	modules map[string]*object
	decoded map[string][]Place // what was asked before, by reference
}

// Place is a point in the source. Line is 0 where only the function is known.
type Place struct {
	Function string
	File     string // short: relative to the kernel's source, or to the module's folder
	Line     int
}

func (p Place) String() string {
	if p.File == "" {
		return p.Function
	}
	return p.Function + ", " + p.at()
}

// at is FILE:LINE.
func (p Place) at() string { return p.File + ":" + strconv.Itoa(p.Line) }

// Open prepares the kernel, a vmlinux, and the modules, unstripped .ko files, for
// look-ups. Nothing but headers is read before the first of them. A kernel that is
// no ELF file, a bzImage, is looked for under the name vmlinux in its folder; if
// there is none, and if kernel is empty, the kernel's functions stay undecoded.
func Open(kernel string, modules ...string) (*Symbols, error) {
	s := &Symbols{modules: map[string]*object{}, decoded: map[string][]Place{}}
	if kernel != "" {
		k, err := openObject(kernel)
		if errors.Is(err, errNoELF) {
			if k, err = openObject(filepath.Join(filepath.Dir(kernel), "vmlinux")); err != nil {
				k, err = nil, nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("symbols of the kernel: %w", err)
		}
		s.kernel = k
	}
	for _, file := range modules {
		m, err := openObject(file)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("symbols of a module: %w", err)
		}
		// The kernel's own spelling: files have dashes, too.
		name := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
		if old := s.modules[name]; old != nil {
			old.close()
		}
		s.modules[name] = m
	}
	return s, nil
}

// Close gives back the files.
func (s *Symbols) Close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kernel != nil {
		s.kernel.close()
	}
	for _, m := range s.modules {
		m.close()
	}
}

// Load tells where the kernel has put a section of a module, as the guest's
// /sys/module/NAME/sections/SECTION has it, so that Address finds it.
func (s *Symbols) Load(module, section string, addr uint64) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.modules[module]
	if m == nil {
		return fmt.Errorf("no symbols of a module %s were opened", module)
	}
	return m.load(section, addr)
}

// Address is where in the source an address of the guest is. function is empty
// if that is not known, file if there is no debug information.
func (s *Symbols) Address(addr uint64) (function, file string, line int) {
	if s == nil {
		return "", "", 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.modules {
		if a, ok := m.linked(addr); ok {
			return m.address(a)
		}
	}
	if s.kernel == nil {
		return "", "", 0
	}
	return s.kernel.address(addr)
}

// reference is how the kernel prints an address of code, %pS: function, offset
// and size, and the module if it is in one, with its build ID if the kernel is so
// configured.
var reference = regexp.MustCompile(`([A-Za-z_][\w.$]*)\+0x([0-9a-f]{1,8})/0x([0-9a-f]{1,8})(?: \[([\w-]+)(?: [0-9a-f]+)?\])?`)

// exact is what stands before the address of an instruction. All others are
// return addresses, and the call is before them.
var exact = regexp.MustCompile(`(?:\bRIP: [0-9a-f]{4}:|\bWARNING: .* at \S+ )$`)

// places finds a reference in the source: the innermost inlined function first,
// the one that was printed last. Nothing if there is no debug information.
func (s *Symbols) places(function, offset, size, module string, exact bool) []Place {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprint(function, "+", offset, "/", size, " ", module, exact)
	if places, ok := s.decoded[key]; ok {
		return places
	}
	o := s.kernel
	if module != "" {
		o = s.modules[strings.ReplaceAll(module, "-", "_")]
	}
	var places []Place
	if o != nil {
		off, _ := strconv.ParseUint(offset, 16, 64) // the expression allows nothing else
		length, _ := strconv.ParseUint(size, 16, 64)
		if addr, ok := o.function(function, off, length); ok {
			if !exact && off > 0 {
				addr--
			}
			places = o.places(addr)
		}
	}
	if len(s.decoded) < maxDecoded {
		s.decoded[key] = places
	}
	return places
}

// maxDecoded bounds what a guest that prints addresses without end makes us keep.
const maxDecoded = 10000

// frame is what stands before the reference in a line of a backtrace: "? " if the
// kernel is not sure, and the time.
var frame = regexp.MustCompile(`^(?:.*` + stamp.String() + `)?\s+(?:\? )?$`)

// Decode adds file and line to each address of code in lines of a report, and
// puts a line before each line of a backtrace for each function that was inlined
// there. Lines without an address, or one that is not known, stay as they are.
func (s *Symbols) Decode(lines []string) []string {
	if s == nil {
		return lines
	}
	decoded := make([]string, 0, len(lines))
	for _, line := range lines {
		var b strings.Builder
		end := 0
		for _, m := range reference.FindAllStringSubmatchIndex(line, maxReferences) {
			places := s.matched(line, m)
			if len(places) == 0 {
				continue
			}
			own := places[len(places)-1]
			inlined := places[:len(places)-1]
			if before := line[:m[0]]; frame.MatchString(before) {
				for _, p := range inlined {
					decoded = append(decoded, fmt.Sprintf("%s%s (%s) [inlined]", before, p.Function, p.at()))
				}
				inlined = nil
			}
			fmt.Fprintf(&b, "%s (%s", line[end:m[1]], own.at())
			for i := len(inlined) - 1; i >= 0; i-- {
				fmt.Fprintf(&b, ", inlined %s at %s", inlined[i].Function, inlined[i].at())
			}
			b.WriteString(")")
			end = m[1]
		}
		b.WriteString(line[end:])
		decoded = append(decoded, b.String())
	}
	return decoded
}

// maxReferences is how many addresses of a line are decoded.
const maxReferences = 16

// matched is the places of a match of reference.
func (s *Symbols) matched(line string, m []int) []Place {
	module := ""
	if m[8] >= 0 {
		module = line[m[8]:m[9]]
	}
	return s.places(line[m[2]:m[3]], line[m[4]:m[5]], line[m[6]:m[7]], module, exact.MatchString(line[:m[0]]))
}
