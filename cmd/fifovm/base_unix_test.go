//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fifovm/harness/report"
	"fifovm/initramfs"
)

// inBuildFolder goes to an empty folder with a folder build in it, and gives a run of
// fifovm test there, of an image with a program that fails.
func inBuildFolder(t *testing.T) (run func(args ...string) result) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it boots guests")
	}
	kernel, err := filepath.Abs("../../build/kernel/6.12/vmlinux")
	if err != nil {
		t.Fatal(err)
	}
	const guest = "../../build/guest.cpio"
	for _, path := range []string{kernel, guest} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%v: run `make kernel image`", err)
		}
	}
	image := filepath.Join(t.TempDir(), "image.cpio")
	err = initramfs.Append(image, guest, []initramfs.File{
		{Path: "/tests/bad", Mode: 0o755, Data: []byte("#!/bbin/gosh\necho 1..1\ncat /proc/interrupts\necho not ok 1 it\nfalse\n")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := os.Mkdir("build", 0o755); err != nil {
		t.Fatal(err)
	}
	return func(args ...string) result {
		return execute(t, program, "", append([]string{"test", "-e", "soft", "-k", kernel, "-i", image, "--device", "edu"}, args...)...)
	}
}

func bases(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("build/bases/*.snapshot")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestBase: what tests begin at is kept, used as long as nothing has changed of what
// it comes of, and refused or made anew where it is damaged.
func TestBase(t *testing.T) {
	run := inBuildFolder(t)
	passes := func(want int, args ...string) {
		t.Helper()
		if r := run(append(args, "boot/cpus")...); r.status != 0 || !strings.Contains(r.stdout, "1 passed, 0 failed") {
			t.Fatalf("status %d: %s%s", r.status, r.stdout, r.stderr)
		}
		if names := bases(t); len(names) != want {
			t.Errorf("%v: the bases are %q, want %d", args, names, want)
		}
	}
	passes(1)
	name := bases(t)[0]
	was, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(name, old, old); err != nil {
		t.Fatal(err)
	}
	passes(1)
	if is, err := os.Stat(name); err != nil || !os.SameFile(was, is) || is.ModTime().Equal(old) {
		t.Errorf("it was not used: %v, %v", is, err)
	}
	passes(1, "--no-snapshot", "--seed", "9")
	passes(1, "--snapshot", "") // as if it were not given
	passes(2, "--seed", "2")
	passes(3, "--append", "one_more")
	// A plan is armed before the boot.
	if r := run("--device", "fifo", "--fault", "edu0/event:delay=20us@2", "devices"); r.status != 0 || len(bases(t)) != 4 {
		t.Errorf("with a plan: status %d, bases %q: %s%s", r.status, bases(t), r.stdout, r.stderr)
	}

	damage := func(at int64) {
		t.Helper()
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		b[0]++
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	damage(was.Size() - 1) // of the memory
	if r := run("boot/cpus"); r.status != statusFailed || !strings.Contains(r.stderr, "another checksum") || !strings.Contains(r.stderr, "remove it") {
		t.Errorf("with a base that is damaged: status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	damage(100) // of what comes before
	if r := run("boot/cpus"); r.status != 0 || !strings.Contains(r.stderr, "it is made anew") {
		t.Errorf("with a base that can't be opened: status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	if r := run("boot/cpus"); r.status != 0 || strings.Contains(r.stderr, "anew") {
		t.Errorf("with the new one: status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	for _, args := range [][]string{{"--snapshot", name, "--no-snapshot"}, {"--snapshot", name, "--seed", "3"}, {"--jobs", "0"}, {"--jobs", "2", "--no-snapshot"}, {"--snapshot", "nothing"}} {
		r := execute(t, program, "", append([]string{"test", "boot/cpus"}, args...)...)
		if r.status == 0 {
			t.Errorf("%v: %s", args, r.stdout)
		}
		errorLine(t, r.stderr)
	}
}

// TestPruneBases: the bases that were used last are left.
func TestPruneBases(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	for i := range basesKept + 3 {
		name := filepath.Join(dir, fmt.Sprint(i, ".snapshot"))
		used := now.Add(-time.Duration(i) * time.Minute)
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, used, used); err != nil {
			t.Fatal(err)
		}
	}
	if err := pruneBases(dir); err != nil {
		t.Fatal(err)
	}
	for i := range basesKept + 3 {
		if there := exists(filepath.Join(dir, fmt.Sprint(i, ".snapshot"))); there != (i < basesKept) {
			t.Errorf("%d is there: %v", i, there)
		}
	}
}

// TestReplay: a failure is repeated to the instruction, and told from one that is not
// the same.
func TestReplay(t *testing.T) {
	run := inBuildFolder(t)
	if r := run("bad"); r.status != statusFailed || !strings.Contains(r.stdout, "fifovm replay build/failures/bad-it\n") {
		t.Fatalf("status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	const folder = "build/failures/bad-it"
	replay := func(args ...string) result { return execute(t, program, "", append([]string{"replay"}, args...)...) }
	if r := replay(folder); r.status != 0 || !strings.Contains(r.stdout, "bad/it has failed in the same way, after the same ") {
		t.Errorf("status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	if r := replay("--repeat", "5", folder); r.status != 0 || !strings.Contains(r.stdout, ", 5 times\n") {
		t.Errorf("status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	file := filepath.Join(folder, report.ResultFile)
	change := func(key string, f func(any) any) {
		t.Helper()
		var all map[string]any
		readFile(t, file, func(b []byte) error { return json.Unmarshal(b, &all) })
		all[key] = f(all[key])
		b, err := json.Marshal(all)
		if err == nil {
			err = os.WriteFile(file, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		key    string
		value  func(any) any
		status int
		says   string
	}{
		{"output", func(any) any { return []string{"nothing"} }, statusFailed, "it printed something else"},
		{"retired", func(n any) any { return n.(float64) + 1 }, statusFailed, " instructions, not "},
		{"kind", func(any) any { return "leak" }, statusFailed, "not leak"},
		{"check", func(any) any { return "other" }, statusFailed, "bad/other did not fail"},
		{"run", func(any) any { return "" }, statusUsage, "without --no-snapshot"},
	} {
		change(test.key, test.value)
		r := replay(folder)
		if r.status != test.status || !strings.Contains(r.stderr, test.says) {
			t.Errorf("with another %s: status %d: %s%s", test.key, r.status, r.stdout, r.stderr)
		}
	}
	r := replay("nothing")
	if r.status != statusUsage {
		t.Errorf("status %d", r.status)
	}
	errorLine(t, r.stderr, "give the folder of a failed test")
}
