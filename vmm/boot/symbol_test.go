package boot

import (
	"debug/elf"
	"os"
	"path/filepath"
	"testing"

	"fifovm/vmm/boot/tiny"
)

func TestSymbol(t *testing.T) {
	code := make([]byte, 0x100)
	write := func(name string, image []byte) *Kernel {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, image, 0o644); err != nil {
			t.Fatal(err)
		}
		k, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	k := write("vmlinux", tiny.Image(code,
		tiny.Symbol{Name: "later", Offset: 0x40, Size: 0x20},
		tiny.Symbol{Name: "first", Offset: 0x10, Size: 0x10},
		tiny.Symbol{Name: "data", Offset: 0x12, Size: 4, Type: elf.STT_OBJECT},
		tiny.Symbol{Name: "assembly", Offset: 0x80},
	))
	for _, test := range []struct {
		offset uint64
		want   string
	}{
		{0, ""},
		{0xf, ""},
		{0x10, "first+0x0"},
		{0x13, "first+0x3"},
		{0x1f, "first+0xf"},
		{0x20, ""}, // behind a function whose size is known
		{0x40, "later+0x0"},
		{0x5f, "later+0x1f"},
		{0x60, ""},
		{0x80, "assembly+0x0"},
		{0xff, "assembly+0x7f"},
		{0x100, ""}, // behind the code
	} {
		if got := k.Symbol(tiny.Base + test.offset); got != test.want {
			t.Errorf("%#x: %q, want %q", test.offset, got, test.want)
		}
	}
	if got := write("stripped", tiny.Image(code)).Symbol(tiny.Base); got != "" {
		t.Errorf("in a kernel without symbols: %q", got)
	}
	k, err := Parse(tiny.Image(code, tiny.Symbol{Name: "start", Size: 1}))
	if err != nil {
		t.Fatal(err)
	}
	if got := k.Symbol(tiny.Base); got != "" {
		t.Errorf("in a kernel without a file: %q", got)
	}
}
