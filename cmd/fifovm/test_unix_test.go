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
	args := []string{"-v", "-c", "2", "-m", "256M", "--seed", "7", "--device", "fifo", "words", "words/it"}
	status, output := run(args...)
	if status != 0 {
		t.Errorf("status %d", status)
	}
	rest := output
	for _, want := range []string{
		"  | 1..1\n", " fifovm.cpus=2 fifovm.memory=256 fifovm.seed=7 fifovm.devices=fifo\n", "passed   words/it (TIME)\n",
		"passed   words/it (TIME)\n", "\n2 passed, 0 failed, 0 skipped\n",
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
	if status != statusFailed || !strings.Contains(output, "FAILED   say: it ended well without a plan") || !strings.Contains(output, "  | /tests/say one two\n") ||
		!strings.Contains(output, `FAILED   nothing/one: the agent answered "error: run: no test nothing"`) {
		t.Errorf("status %d:\n%s", status, output)
	}
	status, output = run("--list", "--run", "^(boot/c|words)")
	if status != 0 || !strings.Contains(output, "boot/clocksource\n") || !strings.Contains(output, "\nwords\n") || strings.Contains(output, "boot/memory") {
		t.Errorf("--list: status %d:\n%s", status, output)
	}
	if status, output = run("--run", "^nosuch"); status != statusUsage || !strings.Contains(output, "no test is left") {
		t.Errorf("--run without a match: status %d:\n%s", status, output)
	}

	// Reports.
	dir := t.TempDir()
	junit, results, artifacts := filepath.Join(dir, "report.xml"), filepath.Join(dir, "report.json"), filepath.Join(dir, "failures")
	status, output = run("--junit", junit, "--json", results, "--artifacts", artifacts, "--repeat", "3", "say", "boot/cpus")
	if status != statusFailed || strings.Count(output, "passed   boot/cpus") != 1 {
		t.Errorf("status %d:\n%s", status, output)
	}
	for path, want := range map[string]string{
		junit:   `<testcase name="cpus" classname="boot"`,
		results: `"passed": 1,`,
		filepath.Join(artifacts, "say", "output.txt"): "/tests/say",
	} {
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v: want %q in\n%s", path, err, want, text)
		}
	}
	if again, err := os.ReadFile(filepath.Join(artifacts, "say", "command.txt")); err != nil || !strings.Contains(string(again), " --seed 1 say\n") {
		t.Errorf("the command to run it again: %q, %v", again, err)
	}
	if status, output = run("--junit", filepath.Join(dir, "no/report.xml"), "boot/cpus"); status != statusUsage || !strings.Contains(output, "--junit: stat") {
		t.Errorf("status %d:\n%s", status, output)
	}
}
