//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"fifovm/vmm/boot/tiny"
	"fifovm/vmm/kvm"
	"fifovm/vmm/vmm"
)

// program is the real fifovm, built for the tests of its behavior as a process.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "fifovm-test")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "fifovm")
		if err := build(program); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func build(path string, flags ...string) error {
	args := append([]string{"build", "-o", path}, flags...)
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	return nil
}

// bound is far above what any of these runs takes: a hang is what it finds.
const bound = 3 * time.Minute

// result is how a process ended.
type result struct {
	status         int
	stdout, stderr string
}

// execute runs a program without a terminal.
func execute(t *testing.T, path, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	var out, errs bytes.Buffer
	c := exec.CommandContext(ctx, path, args...)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &errs
	err := c.Run()
	if ctx.Err() != nil {
		t.Fatalf("%v hangs; it printed %q, %q", args, out.String(), errs.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{c.ProcessState.ExitCode(), out.String(), errs.String()}
}

// needKVM skips where no guest at all can run.
func needKVM(t *testing.T) {
	t.Helper()
	if _, err := kvm.Speed("", 0); err != nil {
		t.Skip(err)
	}
}

// executeAsNobody runs a program as a user who owns nothing.
func executeAsNobody(t *testing.T, path string, args ...string) result {
	t.Helper()
	const nobody = 65534
	var out, errs bytes.Buffer
	c := exec.Command(path, args...)
	c.Dir = "/"
	c.Stdout, c.Stderr = &out, &errs
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Skip(err) // no right to become somebody else, as in some containers
	}
	return result{c.ProcessState.ExitCode(), out.String(), errs.String()}
}

// file makes a file for a test.
func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func kernel(t *testing.T, script string) string { return file(t, "tiny", tiny.Kernel(script)) }

// engineLine is the line that names the engine.
var engineLine = regexp.MustCompile(`^fifovm: engine (kvm|soft): `)

// errorLine checks that stderr, but for the line that names the engine, is one
// clear line with all of words in it, and no trace of Go's.
func errorLine(t *testing.T, stderr string, words ...string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(stderr) {
		if !engineLine.MatchString(line) {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "fifovm: ") || !strings.HasSuffix(lines[0], "\n") {
		t.Errorf("standard error is not one line: %q", stderr)
	}
	for _, w := range append(words, "") {
		if !strings.Contains(stderr, w) {
			t.Errorf("%q is missing in %q", w, stderr)
		}
	}
	for _, w := range []string{"goroutine", "panic:", ".go:", "%!", "<nil>", "strconv"} {
		if strings.Contains(stderr, w) {
			t.Errorf("%q in %q", w, stderr)
		}
	}
}

// Issue 2, point 6: what can't work is one clear line that names the thing and
// the way out, with status 2.
func TestUsageErrors(t *testing.T) {
	good := kernel(t, "p")
	truncated := file(t, "truncated", tiny.Kernel("p")[:200])
	short := file(t, "short", tiny.Kernel("p")[:40])
	foreign := tiny.Kernel("p")
	foreign[18] = 183 // e_machine: AArch64
	arm := file(t, "arm", foreign)
	dir := t.TempDir()
	unreadable := file(t, "unreadable", nil)
	big := file(t, "big", nil)
	if err := os.Truncate(big, 300<<20); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		args  []string
		words []string
	}{
		{"unknown command", []string{"rum"}, []string{`"rum"`, "did you mean run?"}},
		{"unknown word", []string{"frobnicate"}, []string{`"frobnicate"`, "--help"}},
		{"help on nothing", []string{"help", "rum"}, []string{`"rum"`, "did you mean run?"}},
		{"unknown flag", []string{"--nope"}, []string{"--nope", "fifovm --help"}},
		{"unknown flag of a command", []string{"run", "--nope"}, []string{"--nope", "fifovm run --help"}},
		{"argument", []string{"run", "vmlinux"}, []string{`"vmlinux"`, "flags only", "fifovm run --help"}},
		{"doctor's argument", []string{"doctor", "x"}, []string{`"x"`, "fifovm doctor --help"}},
		{"doctor's flag", []string{"doctor", "-z"}, []string{"-z", "fifovm doctor --help"}},
		{"flag without value", []string{"run", "--kernel"}, []string{"--kernel", "fifovm run --help"}},
		{"no kernel", []string{"run"}, []string{"--kernel FILE", "make kernel"}},
		{"kernel missing", []string{"run", "-k", dir + "/nope"}, []string{dir + "/nope", "no such file"}},
		{"kernel is a folder", []string{"run", "-k", dir}, []string{dir, "not a regular file", "vmlinux"}},
		{"kernel empty", []string{"run", "-k", unreadable}, []string{unreadable, "is empty"}},
		{"kernel truncated", []string{"run", "-k", truncated}, []string{truncated, "cut off", "copy it again"}},
		{"kernel's header truncated", []string{"run", "-k", short}, []string{short, "cut off", "copy it again"}},
		{"kernel for another processor", []string{"run", "-k", arm}, []string{arm, "EM_AARCH64", "x86-64"}},
		{"kernel is text", []string{"run", "-k", file(t, "text", []byte("hello"))}, []string{"text", "neither an ELF file nor a bzImage"}},
		{"kernel is a user's program", []string{"run", "-k", "/bin/true"}, []string{"/bin/true", "vmlinux"}},
		{"kernel's name has a newline", []string{"run", "-k", dir + "/a\nb\x1b[2J"}, []string{"/a; b?[2J"}},
		{"cpus 0", []string{"run", "-k", good, "--cpus", "0"}, []string{`"0"`, "--cpus", "want 1 to 64"}},
		{"cpus 65", []string{"run", "-k", good, "--cpus", "65"}, []string{`"65"`, "--cpus", "want 1 to 64"}},
		{"cpus -1", []string{"run", "-k", good, "--cpus", "-1"}, []string{`"-1"`, "--cpus", "want 1 to 64"}},
		{"cpus x", []string{"run", "-k", good, "--cpus", "x"}, []string{`"x"`, "--cpus", "want 1 to 64"}},
		{"memory 0", []string{"run", "-k", good, "--memory", "0"}, []string{`"0"`, "--memory", "such as 512M"}},
		{"memory 0M", []string{"run", "-k", good, "--memory", "0M"}, []string{`"0M"`, "--memory", "such as 512M"}},
		{"memory 10", []string{"run", "-k", good, "--memory", "10"}, []string{`"10"`, "--memory", "such as 512M"}},
		{"memory 10T", []string{"run", "-k", good, "--memory", "10T"}, []string{`"10T"`, "--memory", "up to 128G"}},
		{"memory 129G", []string{"run", "-k", good, "--memory", "129G"}, []string{`"129G"`, "--memory", "up to 128G"}},
		{"memory -1", []string{"run", "-k", good, "--memory", "-1"}, []string{`"-1"`, "--memory", "such as 512M"}},
		{"memory empty", []string{"run", "-k", good, "--memory", ""}, []string{`""`, "--memory", "such as 512M"}},
		{"memory M", []string{"run", "-k", good, "--memory", "M"}, []string{`"M"`, "--memory", "such as 512M"}},
		{"engine", []string{"run", "-k", good, "-e", "warp"}, []string{`"warp"`, "use auto, kvm or soft"}},
		{"doctor's engine", []string{"doctor", "-e", "warp"}, []string{`"warp"`, "use auto, kvm or soft"}},
		{"seed x", []string{"run", "-k", good, "--seed", "x"}, []string{`"x"`, "--seed", "want a number from 0 to 2^64-1"}},
		{"seed -1", []string{"run", "-k", good, "--seed", "-1"}, []string{`"-1"`, "--seed", "want a number from 0 to 2^64-1"}},
		{"seed empty", []string{"run", "-k", good, "--seed", ""}, []string{`""`, "--seed", "want a number from 0 to 2^64-1"}},
		{"seed too large", []string{"run", "-k", good, "--seed", "18446744073709551616"}, []string{"18446744073709551616", "--seed", "want a number from 0 to 2^64-1"}},
		{"KVM absent", []string{"run", "-k", good, "-e", "kvm", "--kvm-device", dir + "/kvm"}, []string{dir + "/kvm", "does not exist"}},
		{"KVM is another file", []string{"run", "-k", good, "-e", "kvm", "--kvm-device", good}, []string{good, "does not answer as KVM"}},
		{"KVM is another device", []string{"run", "-e", "kvm", "-k", good, "--kvm-device", "/dev/null"}, []string{"/dev/null", "does not answer as KVM"}},
		{"KVM is a folder", []string{"run", "-e", "kvm", "-k", good, "--kvm-device", dir}, []string{dir}},
		{"memory too small", []string{"run", "-e", "soft", "-k", good, "-m", "1M"}, []string{"memory of 1 MiB", "needs at least 2 MiB"}},
		{"initrd missing", []string{"run", "-e", "soft", "-k", good, "-i", dir + "/nope"}, []string{"--initrd", dir + "/nope", "cpio"}},
		{"initrd is a folder", []string{"run", "-e", "soft", "-k", good, "-i", dir}, []string{"--initrd", dir, "cpio"}},
		{"initrd too large", []string{"run", "-e", "soft", "-k", good, "-i", big, "-m", "256M"}, []string{"initrd of 300 MiB", "needs at least"}},
		{"command line too long", []string{"run", "-e", "soft", "-k", good, "-a", strings.Repeat("x", 3000)}, []string{"command line", "at most 2047"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := execute(t, program, "", test.args...)
			if r.status != statusUsage || r.stdout != "" {
				t.Errorf("status %d, standard output %q", r.status, r.stdout)
			}
			errorLine(t, r.stderr, test.words...)
		})
	}
}

// As root every file opens, so the process gives root up.
func TestKVMUnreadable(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: can't make a file that root made unreadable")
	}
	// The test's folders are for root only.
	dir, err := os.MkdirTemp("/tmp", "fifovm-public")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, content := range map[string][]byte{"kernel": tiny.Kernel("p"), "kvm": nil, "secret": tiny.Kernel("p")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mine := filepath.Join(dir, "fifovm")
	if err := os.Link(program, mine); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755, filepath.Join(dir, "kvm"): 0o600, filepath.Join(dir, "secret"): 0o600} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name   string
		args   []string
		status int
		words  []string
	}{
		{"kvm", []string{"run", "-e", "kvm", "-k", dir + "/kernel", "--kvm-device", dir + "/kvm"}, 2, []string{"no permission to open " + dir + "/kvm", "usermod"}},
		{"kernel", []string{"run", "-k", dir + "/secret"}, 2, []string{dir + "/secret", "permission denied"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := executeAsNobody(t, mine, test.args...)
			if r.status != test.status {
				t.Errorf("status %d", r.status)
			}
			errorLine(t, r.stderr, test.words...)
		})
	}
	t.Run("auto", func(t *testing.T) {
		r := executeAsNobody(t, mine, "run", "-k", dir+"/kernel", "--kvm-device", dir+"/kvm")
		if r.status != 0 || r.stdout != "ready\r\n" || !strings.HasPrefix(r.stderr, "fifovm: engine soft: KVM can't be used: no permission to open "+dir+"/kvm") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("doctor", func(t *testing.T) {
		r := executeAsNobody(t, mine, "doctor", "--engine", "kvm", "--kvm-device", dir+"/kvm")
		if r.status != statusFailed || r.stderr != "" || !strings.Contains(r.stdout, "You may not open "+dir+"/kvm") {
			t.Errorf("%+v", r)
		}
	})
}

// The program is linked once more, as one that finds a capability missing.
func TestKVMLacksCapability(t *testing.T) {
	needKVM(t)
	path := filepath.Join(t.TempDir(), "fifovm")
	if err := build(path, "-ldflags", "-X fifovm/vmm/kvm.without=IRQFD"); err != nil {
		t.Fatal(err)
	}
	r := execute(t, path, "", "run", "-e", "kvm", "-k", kernel(t, "p"))
	if r.status != statusUsage {
		t.Errorf("status %d", r.status)
	}
	errorLine(t, r.stderr, "KVM_CAP_IRQFD", "use a newer kernel")
	r = execute(t, path, "", "run", "-k", kernel(t, "p"))
	if r.status != 0 || r.stdout != "ready\r\n" || !strings.HasPrefix(r.stderr, "fifovm: engine soft: KVM can't be used: this host's KVM lacks KVM_CAP_IRQFD") {
		t.Errorf("%+v", r)
	}
	for engine, status := range map[string]int{"auto": 0, "soft": 0, "kvm": statusFailed} {
		r = execute(t, path, "", "doctor", "-e", engine)
		if r.status != status || !strings.Contains(r.stdout, "lacks KVM_CAP_IRQFD") || !strings.Contains(r.stdout, "newer kernel") || !strings.Contains(r.stdout, "guests run here on engine soft") {
			t.Errorf("engine %s: %+v", engine, r)
		}
	}
}

// forEngines runs a test on each engine that there is here.
func forEngines(t *testing.T, test func(t *testing.T, engine string)) {
	for _, engine := range []string{vmm.EngineKVM, vmm.EngineSoft} {
		t.Run(engine, func(t *testing.T) {
			if engine == vmm.EngineKVM {
				needKVM(t)
			}
			test(t, engine)
		})
	}
}

// Without a terminal: files and pipes, and how a guest's end becomes a status.
func TestRunStatus(t *testing.T) { forEngines(t, testRunStatus) }

func testRunStatus(t *testing.T, engine string) {
	for _, test := range []struct {
		name, script, stdin string
		args                []string
		status              int
		stdout              string
		words               []string // on standard error, whose line is the only one; none: nothing is said
	}{
		{"power off", "p", "", nil, 0, "ready\r\n", nil},
		{"input", "", "hello p", nil, 0, "ready\r\nhello ", nil},
		{"input with the escape character", "", "\x01xp", nil, 0, "ready\r\n\x01x", nil},
		{"much input", "", strings.Repeat("0123456789", 50) + "p", nil, 0, "ready\r\n" + strings.Repeat("0123456789", 50), nil},
		{"panic", "k", "", nil, statusPanic, "ready\r\nKernel panic - not syncing: test\r\n", []string{"panicked: test"}},
		{"panic and hang", "K", "", nil, statusPanic, "ready\r\nKernel panic - not syncing: test\r\n---[ end Kernel panic - not syncing: test ]---\r\n", []string{"panicked: test"}},
		{"reset", "r", "", []string{"--no-reboot"}, 0, "ready\r\n", nil},
		{"two CPUs", "p", "", []string{"-c", "2"}, 0, "ready\r\n", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := execute(t, program, test.stdin, append([]string{"run", "-e", engine, "-m", "16M", "-k", kernel(t, test.script)}, test.args...)...)
			if r.status != test.status || test.stdout != "" && r.stdout != test.stdout {
				t.Errorf("status %d, want %d; standard output %q, want %q", r.status, test.status, r.stdout, test.stdout)
			}
			if test.words != nil {
				errorLine(t, r.stderr, test.words...)
			} else if strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("standard error has more than the engine: %q", r.stderr)
			}
		})
	}
	t.Run("reboot", func(t *testing.T) {
		// The input is one write, of which the first machine takes all that its
		// UART has room for: 16 bytes are lost with it at most.
		r := execute(t, program, "ar"+strings.Repeat("x", 16)+"p", "run", "-e", engine, "-k", kernel(t, ""))
		if r.status != 0 || !strings.HasPrefix(r.stdout, "ready\r\na") || strings.Count(r.stdout, "ready\r\n") != 2 || !strings.Contains(r.stderr, "the guest reboots\n") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("triple fault", func(t *testing.T) {
		r := execute(t, program, "", "run", "-e", engine, "-k", kernel(t, "t"))
		if r.status != statusTripleFault || !strings.Contains(r.stderr, "triple fault") || !strings.Contains(r.stderr, "\nrip 0000000000100") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("output to a file", func(t *testing.T) {
		path := file(t, "out", nil)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		c := exec.Command(program, "run", "-e", engine, "-k", kernel(t, "ap")) // standard input is /dev/null
		c.Stdout = f
		if err := c.Run(); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "ready\r\na" {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("output breaks", func(t *testing.T) {
		c := exec.Command("sh", "-c", `{ "$0" run -e "$2" -k "$1"; echo "status $?" >&2; } | head -c 20`, program, kernel(t, "f"), engine)
		var errs bytes.Buffer
		c.Stderr = &errs
		if err := c.Run(); err != nil {
			t.Fatal(err)
		}
		text, ok := strings.CutSuffix(errs.String(), "status 1\n")
		if !ok {
			t.Errorf("%q", errs.String())
		}
		errorLine(t, text, "output can't be written", "broken pipe")
	})
	t.Run("output is full", func(t *testing.T) {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Skip(err)
		}
		defer full.Close()
		var errs bytes.Buffer
		c := exec.Command(program, "run", "-e", engine, "-k", kernel(t, "f"))
		c.Stdout, c.Stderr = full, &errs
		_ = c.Run() // the status says it
		if c.ProcessState.ExitCode() != statusFailed {
			t.Errorf("status %d", c.ProcessState.ExitCode())
		}
		errorLine(t, errs.String(), "output can't be written", "no space")
	})
}

// What an emulating KVM does not know, engine soft does, and auto takes it.
func TestNotEmulated(t *testing.T) {
	needEmulated(t)
	r := execute(t, program, "", "run", "-e", "kvm", "-k", kernel(t, "np"))
	if r.status != statusUsage || !strings.Contains(r.stderr, "emulates kernel code") {
		t.Errorf("%+v", r)
	}
	errorLine(t, r.stderr, `"popcnt rax, rbx"`, "--engine soft", "make lab", "fifovm doctor")
	r = execute(t, program, "", "run", "-k", kernel(t, "np"))
	if r.status != 0 || r.stdout != "ready\r\n" || strings.Count(r.stderr, "\n") != 1 ||
		!strings.HasPrefix(r.stderr, "fifovm: engine soft: this host's KVM emulates ring-0 code, ") {
		t.Errorf("%+v", r)
	}
}

// needEmulated skips where KVM is real, or not there.
func needEmulated(t *testing.T) {
	t.Helper()
	needKVM(t)
	if ns, err := kvm.Speed("", 0); err != nil || ns < kvm.NativeBelow {
		t.Skip("this host's KVM does not emulate kernel code")
	}
}

// The guest kernel, cut off and on a KVM that can't run it.
func TestRunLinux(t *testing.T) {
	const dir = "../../build/kernel/6.12/"
	for _, name := range []string{"vmlinux", "bzImage"} {
		t.Run("truncated "+name, func(t *testing.T) {
			image, err := os.ReadFile(dir + name)
			if err != nil {
				t.Skipf("%v: run `make kernel`", err)
			}
			for _, n := range []int{1 << 10, min(len(image)/2, 8<<20)} { // most of a vmlinux is for debuggers, and not missed
				path := file(t, name, image[:n])
				r := execute(t, program, "", "run", "-k", path)
				if r.status != statusUsage || r.stdout != "" {
					t.Errorf("%d bytes: status %d, standard output %q", n, r.status, r.stdout)
				}
				errorLine(t, r.stderr, path, "cut off", "copy it again")
			}
		})
	}
	t.Run("not emulated", func(t *testing.T) {
		needEmulated(t)
		if _, err := os.Stat(dir + "vmlinux"); err != nil {
			t.Skipf("%v: run `make kernel`", err)
		}
		if testing.Short() {
			t.Skip("-short: it takes 20 s")
		}
		r := execute(t, program, "", "run", "-e", "kvm", "-k", dir+"vmlinux")
		if r.status != statusUsage {
			t.Errorf("status %d, standard output %q", r.status, r.stdout)
		}
		errorLine(t, r.stderr, "could not emulate an instruction", "make lab")
	})
}

func TestVersion(t *testing.T) {
	r := execute(t, program, "", "--version")
	if r.status != 0 || r.stderr != "" || !strings.HasPrefix(r.stdout, "fifovm ") || !strings.HasSuffix(r.stdout, runtime.GOOS+"/"+runtime.GOARCH+"\n") {
		t.Errorf("%+v", r)
	}
	for _, test := range []struct {
		want string
		info debug.BuildInfo
	}{
		{"of unknown revision", debug.BuildInfo{}},
		{"of unknown revision", debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}},
		{"v1.2.3", debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}},
		{"0123456789ab of 2026-01-02", debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.time", Value: "2026-01-02"}, {Key: "vcs.modified", Value: "false"}}}},
		{"01234567 with changes", debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "01234567"}, {Key: "vcs.modified", Value: "true"}}}},
	} {
		if got := revision(&test.info); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"help"}, {"run", "--help"}, {"test", "--help"}, {"doctor", "--help"}, {"help", "run"}} {
		r := execute(t, program, "", args...)
		if r.status != 0 || r.stderr != "" || !strings.Contains(r.stdout, "Exit status:") || strings.Contains(r.stdout, guardName) {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

// The commands' errors in words and statuses, without a process.
func TestReport(t *testing.T) {
	for _, test := range []struct {
		name   string
		err    error
		status int
		text   string
	}{
		{"plain", errors.New("x"), statusUsage, "fifovm: x\n"},
		{"two lines", errors.Join(errors.New("a"), errors.New("b")), statusUsage, "fifovm: a; b\n"},
		{"status", &statusError{statusPanic, errors.New("x")}, statusPanic, "fifovm: x\n"},
		{"said already", &statusError{status: statusFailed}, statusFailed, ""},
		{"details", &statusError{statusFailed, &detailedError{errors.New("x"), "a\nb"}}, statusFailed, "fifovm: x\na\nb\n"},
		{"signal", errors.Join(&signalError{syscall.SIGTERM}, errors.New("x")), 143, "fifovm: stopped by terminated\n"},
		{"control characters", errors.New("\x1b[2Jé\a"), statusUsage, "fifovm: ?[2Jé?\n"},
	} {
		if status, text := outcome(test.err); status != test.status || text != test.text {
			t.Errorf("%s: %d, %q; want %d, %q", test.name, status, text, test.status, test.text)
		}
	}
}
