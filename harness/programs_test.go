//go:build linux

package harness

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/ldd"

	"fifovm/initramfs"
	"fifovm/vmm/vmm"
)

// TestPrograms runs programs of this machine in guests: what they print must be
// the same as here.
func TestPrograms(t *testing.T) {
	engine, kernel := engine(t), defaultKernel(t)
	for _, program := range []struct {
		name  string
		build []string // the output's path comes behind
	}{
		{"glibc", []string{"gcc", "-O2", "testdata/program.c", "-lm", "-pthread", "-o"}},
		{"go", []string{"go", "build", "-trimpath", "-o"}},
	} {
		t.Run(program.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "program")
			build(t, program.build, path)
			c := exec.Command(path)
			c.Env = append(os.Environ(), withoutFMA...)
			b, err := c.Output()
			if err != nil {
				t.Fatal(err)
			}
			want := string(b)
			files := append(libraries(t, path), initramfs.File{Path: "/bin/program", Source: path})
			for _, cpus := range []int{1, 4} {
				t.Run(fmt.Sprintf("%dcpus", cpus), func(t *testing.T) {
					s := newShell(t)
					m := load(t, vmm.Config{Engine: engine, CPUs: cpus, Memory: testMemory, Serial: [2]io.Writer{&s.console}}, kernel,
						"console=ttyS0 panic=-1 loglevel=5", files...)
					wait := s.run(t.Context(), m)
					s.expect("Setting console log level")
					s.expect("$ ")
					s.command("program; echo 'end of' the program", "program\r\n") // the echo
					got := strings.ReplaceAll(s.expect("end of the program"), "\r\n", "\n")
					compareLines(t, got, want)
					s.powerOff(wait)
				})
			}
		})
	}
}

// withoutFMA has the C library and Go compute as they do in the guest: a fused
// multiplication and addition rounds once, not twice.
var withoutFMA = []string{"GLIBC_TUNABLES=glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2", "GODEBUG=cpu.fma=off"}

// build compiles a program, where there is the compiler.
func build(t *testing.T, command []string, path string) {
	t.Helper()
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Skip(err)
	}
	args := append(command[1:], path)
	if command[0] == "go" {
		args = append(args, "./testdata/goprogram")
	}
	c := exec.Command(command[0], args...)
	// The guest's processor is x86-64-v2, the program need not be for more.
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOAMD64=v1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", c, err, out)
	}
}

// libraries are the loader and the libraries of a program, by the names that the
// loader looks for; none for one that is statically linked.
func libraries(t *testing.T, path string) (files []initramfs.File) {
	t.Helper()
	names, err := ldd.List(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		files = append(files, initramfs.File{Path: n, Source: n})
	}
	return files
}
