package splat

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// driver has a function in each of two sections, which in a relocatable file have
// the same addresses, and one that is inlined.
const driver = `
extern void warn(void);
static inline __attribute__((always_inline)) void inner(int x)
{
	if (x)
		warn();
}

__attribute__((section(".text.a"))) void first(int x)
{
	inner(x);
	warn();
}

__attribute__((section(".text.b"))) void second(int x)
{
	warn();
	inner(x);
	warn();
}
`

// compile makes a module of the driver.
func compile(t *testing.T, flags ...string) (file string) {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "driver.c")
	file = filepath.Join(dir, "bad-driver.ko")
	if err := os.WriteFile(source, []byte(driver), 0o644); err != nil {
		t.Fatal(err)
	}
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("needs a C compiler: ", err)
	}
	args := append([]string{"-O1", "-fno-reorder-blocks", "-c", "-o", file}, append(flags, source)...)
	if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		t.Skipf("needs a C compiler for this machine: %v: %s", err, out)
	}
	return file
}

// sweep collects what all offsets of a function decode to.
func sweep(s *Symbols, function string) string {
	var all []string
	for offset := 1; offset < 0x40; offset++ {
		all = append(all, s.Decode([]string{fmt.Sprintf(" %s+0x%x/0x40 [bad_driver]", function, offset)})...)
	}
	return strings.Join(all, "\n")
}

func TestModule(t *testing.T) {
	file := compile(t, "-g")
	s, err := Open("", file)
	if err != nil {
		t.Skip("not a machine whose modules are read: ", err)
	}
	defer s.Close()
	for function, want := range map[string]struct{ own, not string }{
		"first":  {"(driver.c:12)", "(driver.c:17)"},
		"second": {"(driver.c:17)", "(driver.c:12)"},
	} {
		got := sweep(s, function)
		for _, part := range []string{want.own, " inner (driver.c:6) [inlined]"} {
			if !strings.Contains(got, part) {
				t.Errorf("%s: no %q in\n%s", function, part, got)
			}
		}
		if strings.Contains(got, want.not) {
			t.Errorf("%s: %q, which is in the other section, in\n%s", function, want.not, got)
		}
	}
	// By the addresses of a guest.
	if err := s.Load("bad_driver", ".text.b", 0xffffffffc0001000); err != nil {
		t.Fatal(err)
	}
	if function, file, line := s.Address(0xffffffffc0001000); function != "second" || file != "driver.c" || line != 16 {
		t.Errorf("the begin of second: %s, %s:%d", function, file, line)
	}
	if function, _, _ := s.Address(0xffffffffc0000fff); function != "" {
		t.Errorf("before the section there is %s", function)
	}
	if s.Load("bad_driver", ".nothing", 1) == nil || s.Load("nothing", ".text", 1) == nil {
		t.Error("loaded what is not there")
	}
}

func TestNoDebugInformation(t *testing.T) {
	s, err := Open("", compile(t))
	if err != nil {
		t.Skip("not a machine whose modules are read: ", err)
	}
	defer s.Close()
	lines := []string{" second+0x5/0x40 [bad_driver]"}
	if diff := cmp.Diff(lines, s.Decode(lines)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := s.Load("bad_driver", ".text.b", 0x1000); err != nil {
		t.Fatal(err)
	}
	if function, file, _ := s.Address(0x1001); function != "second" || file != "" {
		t.Errorf("got %q in %q", function, file)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.ko")
	if err := os.WriteFile(text, []byte("text, longer than a header"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, modules := range [][]string{{text}, {filepath.Join(dir, "none.ko")}} {
		if _, err := Open("", modules...); err == nil || !strings.Contains(err.Error(), modules[0]) {
			t.Errorf("%v: %v", modules, err)
		}
	}
	// A kernel in a form without symbols.
	s, err := Open(text)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// The kernels that are built here, those with debug information.
func TestKernels(t *testing.T) {
	found := false
	for _, kernel := range []string{"6.12", "debug"} {
		s, err := Open(filepath.Join("..", "..", "build", "kernel", kernel, "vmlinux"))
		if err != nil {
			continue
		}
		defer s.Close()
		addr, ok := s.kernel.function("do_one_initcall", 0, 0)
		if !ok {
			t.Errorf("%s: no function do_one_initcall", kernel)
			continue
		}
		function, file, line := s.Address(addr)
		if file == "" {
			t.Logf("%s: no debug information", kernel)
			continue
		}
		found = true
		if function != "do_one_initcall" || file != "init/main.c" || line == 0 {
			t.Errorf("%s: got %s, %s:%d", kernel, function, file, line)
		}
		got := s.Decode([]string{"[    1.000000]  do_one_initcall+0x10/0x100"})
		if !strings.Contains(got[len(got)-1], "do_one_initcall+0x10/0x100 (init/main.c:") {
			t.Errorf("%s: got %q", kernel, got)
		}
	}
	if !found {
		t.Skip("needs a kernel with debug information in build/kernel: run: make vm-test")
	}
}
