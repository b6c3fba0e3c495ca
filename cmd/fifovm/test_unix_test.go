//go:build unix

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"fifovm/initramfs"
)

// TestTest runs tests in a guest as a user does: what they are told, which of
// their checks are run, and what is shown of it.
func TestTest(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it boots guests")
	}
	const kernel, base = "../../build/kernel/6.12/vmlinux", "../../build/guest.cpio"
	for _, path := range []string{kernel, base} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%v: run `make kernel image`", err)
		}
	}
	image := filepath.Join(t.TempDir(), "image.cpio")
	err := initramfs.Append(image, base, []initramfs.File{{Path: "/tests/words", Mode: 0o755, Data: []byte(`#!/bbin/gosh
echo 1..1
cat /proc/cmdline
cat /proc/interrupts
echo ok 1 it
`)}, {Path: "/tests/say", Mode: 0o755, Data: []byte("#!/bbin/echo\n")}})
	if err != nil {
		t.Fatal(err)
	}
	seconds := regexp.MustCompile(`\(\d+\.\d\d s\)`)
	run := func(args ...string) (status int, output string) {
		r := execute(t, program, "", append([]string{"test", "-e", "soft", "-k", kernel, "-i", image}, args...)...)
		return r.status, seconds.ReplaceAllString(r.stdout, "(TIME)") + r.stderr
	}
	args := []string{"-v", "-c", "2", "-m", "256M", "--seed", "7", "--device", "fifo", "words", "words/one"}
	status, output := run(args...)
	if status != 0 {
		t.Errorf("status %d", status)
	}
	rest := output
	for _, want := range []string{
		"  | 1..1\n", " fifovm.cpus=2 fifovm.memory=256 fifovm.seed=7 fifovm.devices=fifo\n", "passed   words (TIME)\n",
		"passed   words/one (TIME)\n2 passed, 0 failed\n",
	} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Fatalf("%q is missing in\n%s", want, output)
		}
		rest = after
	}
	if _, again := run(args...); again != output {
		t.Errorf("the second run is another:\n%s\nthe first:\n%s", again, output)
	}
	status, output = run("say/one/two", "nothing/one")
	if status != statusFailed || !strings.Contains(output, "FAILED   say/one/two: it ended well without a plan") || !strings.Contains(output, "  | /tests/say one two\n") ||
		!strings.Contains(output, `FAILED   nothing/one: the agent answered "error: run: no test nothing"`) {
		t.Errorf("status %d:\n%s", status, output)
	}
}
