package symbols

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"fifovm/vmm/boot/tiny"
)

const source = `
int counter = 1;
int first(int x) { return x + counter; }
__attribute__((section(".text.b"))) int second(int x) { return x - counter; }
__attribute__((section(".init.text"))) int early(int x) { return x * counter; }
`

// A module's sections are where the guest has put them, or nowhere.
func TestModule(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("needs a C compiler: ", err)
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "m.c"), filepath.Join(dir, "m.o")
	if err := os.WriteFile(in, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-O1", "-c", "-o", out, in).CombinedOutput(); err != nil {
		t.Skipf("needs a C compiler for this machine: %v: %s", err, out)
	}
	f, err := elf.Open(out)
	if err != nil {
		t.Skip("the C compiler's files are no ELF: ", err)
	}
	defer f.Close()
	at := map[string]uint64{".text": 0xffffffffa0000000, ".text.b": 0xffffffffa0010000, ".data": 0xffffffffa0020000}
	table, err := Read(f, func(s *elf.Section) (uint64, bool) {
		addr, ok := at[s.Name]
		return addr, ok
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint64{"first": at[".text"], "second": at[".text.b"], "counter": at[".data"], "early": 0, "m.c": 0, "none": 0} {
		if got, ok := table.Address(name); got != want || ok != (want != 0) {
			t.Errorf("%s: %#x, %v; want %#x", name, got, ok, want)
		}
	}
	for addr, want := range map[uint64]string{
		at[".text"]:           "first+0x0",
		at[".text"] + 1:       "first+0x1",
		at[".text.b"] + 2:     "second+0x2",
		at[".text"] - 1:       "",
		at[".text"] + 0x8000:  "",
		at[".data"]:           "",
		at[".text.b"] + 0x400: "",
	} {
		if got := table.Symbol(addr); got != want {
			t.Errorf("%#x: %q, want %q", addr, got, want)
		}
	}
	if got := table.Functions(); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("functions: %q", got)
	}
	var none *Table
	if _, ok := none.Address("first"); ok || none.Symbol(at[".text"]) != "" || none.Functions() != nil {
		t.Error("no table has symbols")
	}
}

// A mark at the begin of a function does not hide it, nor does one within it that
// has an end.
func TestMarks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vmlinux")
	image := tiny.Image(make([]byte, 0x100),
		tiny.Symbol{Name: "mark", Offset: 0x20},
		tiny.Symbol{Name: "function", Offset: 0x20, Size: 0x40},
		tiny.Symbol{Name: "entry", Offset: 0x28, Size: 0x8},
	)
	if err := os.WriteFile(path, image, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := Read(f, Linked)
	if err != nil {
		t.Fatal(err)
	}
	for offset, want := range map[uint64]string{0x20: "function+0x0", 0x27: "function+0x7", 0x28: "entry+0x0", 0x30: "function+0x10"} {
		if got := table.Symbol(tiny.Base + offset); got != want {
			t.Errorf("%#x: %q, want %q", offset, got, want)
		}
	}
}
