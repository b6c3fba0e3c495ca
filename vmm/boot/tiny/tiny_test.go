package tiny

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"fifovm/vmm/boot"
)

func TestKernelIsOne(t *testing.T) {
	for _, script := range []string{"", "p", "hello\r\np"} {
		if _, err := boot.Parse(Kernel(script)); err != nil {
			t.Errorf("script %q: %v", script, err)
		}
	}
}

// tiny.bin is in the tree so that nobody needs an assembler; it must be what
// tiny.asm says.
func TestCodeIsTheSources(t *testing.T) {
	for _, tool := range []string{"as", "objcopy"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	object, binary := filepath.Join(dir, "tiny.o"), filepath.Join(dir, "tiny.bin")
	for _, c := range [][]string{{"as", "-o", object, "tiny.asm"}, {"objcopy", "-O", "binary", object, binary}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v: %v: %s", c, err, out) // not GNU's, or not for x86
		}
	}
	b, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, code) {
		t.Error("tiny.bin is not what tiny.asm gives: run go generate ./vmm/boot/tiny")
	}
}
