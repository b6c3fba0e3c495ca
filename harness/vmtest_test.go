//go:build linux

package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// labRun is what a lab prints, and the status it ends with.
type labRun struct {
	output string
	status int
}

// fakeLab notes how it is called, and plays the next of the runs it was given.
const fakeLab = `#!/bin/bash
[[ $1 != --print-kernel ]] || exec echo kernel
cd runs
for ((n = 1; ; n++)); do [[ -e $n.call ]] || break; done
printf '%s' "${*: -1}" >$n.call
cat $n.output || exit 99
exit "$(cat $n.status)"
`

// fakeFifovm notes how it is called. Its tests fail on the kernel in fails, and
// KVM works if there is a file kvm.
const fakeFifovm = `#!/bin/bash
echo "fifovm $*" >>direct
[[ $1 != doctor ]] || exec test -e kvm
[[ $5 != "$(cat fails)" ]]
`

// fakeTests is a package's tests, which note how they are called.
const fakeTests = `#!/bin/bash
root=$(cd "$(dirname "$0")" && while [[ ! -e direct ]]; do cd ..; done && pwd)
echo "${PWD#"$root"/} $FIFOVM_TEST_ENGINE [$FIFOVM_TEST_KERNELS] $*" >>"$root/direct"
`

// vmTestHost is where harness/vm-test runs.
type vmTestHost struct {
	labs    []labRun
	kvm     bool   // KVM works
	require string // FIFOVM_REQUIRE_KVM
	fails   string // the kernel on which fifovm's tests fail
	env     []string
	direct  string // how fifovm and tests were called outside of a lab
}

// vmTest runs harness/vm-test on a host without KVM, where these are the labs,
// and returns its status, what it printed, and the labs' last arguments.
func vmTest(t *testing.T, labs []labRun, args ...string) (status int, output string, calls []string) {
	t.Helper()
	return (&vmTestHost{labs: labs}).run(t, args...)
}

func (h *vmTestHost) run(t *testing.T, args ...string) (status int, output string, calls []string) {
	t.Helper()
	labs := h.labs
	script, err := os.ReadFile("vm-test")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	write := func(name, text string) {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("harness/vm-test", string(script))
	write("kernel", "")
	write("build/kernel/6.12/bzImage", "")
	write("build/fifovm", fakeFifovm)
	write("build/guest/tests/aio", "")
	write("build/guest/tests/boot", "")
	write("direct", "")
	write("fails", h.fails)
	for _, p := range []string{"harness", "vmm/kvm", "vmm/vmm", "vmm/debug", "vmm/gdb"} {
		write("build/tests/"+p+"/test", fakeTests)
		write(p+"/doc.go", "")
	}
	if h.kvm {
		write("kvm", "")
	}
	write("build/fifovm-lab", fakeLab)
	write("path/go", "#!/bin/bash\n")
	write("path/objcopy", "#!/bin/bash\n")
	for i, l := range labs {
		write(fmt.Sprintf("runs/%d.output", i+1), l.output)
		write(fmt.Sprintf("runs/%d.status", i+1), fmt.Sprint(l.status))
	}
	cmd := exec.Command(filepath.Join(root, "harness/vm-test"), args...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(root, "path")+":"+os.Getenv("PATH"), "FIFOVM_REQUIRE_KVM="+h.require, "APPEND=a word", "CPUS=", "SEEDS=")
	cmd.Env = append(cmd.Env, h.env...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	for i := range len(labs) + 1 {
		call, err := os.ReadFile(filepath.Join(root, fmt.Sprintf("runs/%d.call", i+1)))
		if err != nil {
			break
		}
		calls = append(calls, string(call))
	}
	direct, err := os.ReadFile(filepath.Join(root, "direct"))
	if err != nil {
		t.Fatal(err)
	}
	h.direct = string(direct)
	return cmd.ProcessState.ExitCode(), string(out), calls
}

// needBash skips a test in the lab, where neither bash nor vm-test is.
func needBash(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip(err)
	}
}

// What Go's tests print in a lab.
const (
	passA   = "=== RUN   TestA\n=== RUN   TestA/6.12/1cpus\n--- PASS: TestA (1.00s)\n    --- PASS: TestA/6.12/1cpus (1.00s)\n"
	skipB   = "=== RUN   TestB\n    b_test.go:1: no device\n--- SKIP: TestB (0.00s)\n"
	passC   = "=== RUN   TestC\n--- PASS: TestC (1.00s)\n"
	beginC  = "=== RUN   TestC\n=== RUN   TestC/6.12/1cpus\n    c_test.go:1: shell after 1.9 s\n"
	silentC = beginC + "    c_test.go:2: \"$ \" did not come; console:\n        [    1.0] up\n" +
		"=== RUN   TestC/6.12/4cpus\n--- FAIL: TestC (1.00s)\n    --- FAIL: TestC/6.12/1cpus (1.00s)\n    --- PASS: TestC/6.12/4cpus (1.00s)\n"
	failD  = "=== RUN   TestD\n    d_test.go:1: got 1, want 2\n--- FAIL: TestD (0.00s)\n"
	late   = beginC + "panic: test timed out after 18m0s\n\trunning tests:\n\t\tTestC (18m0s)\n"
	crash  = "=== RUN   TestE\npanic: runtime error: index out of range\n"
	silent = "lab: the end of the lab's console:\n  up\nlab: fell silent: nothing came for 1m0s\n"
	timeUp = "lab: no end after 20m0s: killed\n"
)

// TestVMTestGo: only a silence gets a test another lab, three in all, and none
// that has passed.
func TestVMTestGo(t *testing.T) {
	needBash(t)
	all := labRun{passA + "PASS\n", 0}
	type call struct{ pkg, skip string }
	for _, tt := range []struct {
		name   string
		labs   []labRun
		calls  []call
		status int
		retold int // how often the output tells of another lab
	}{
		{"all passes", []labRun{all, all, all, all, all}, []call{{"harness", ""}, {"vmm/kvm", ""}, {"vmm/vmm", ""}, {"vmm/debug", ""}, {"vmm/gdb", ""}}, 0, 0},
		{"the lab falls silent",
			[]labRun{{passA + skipB + beginC + silent, 123}, all, all, all, all, all},
			[]call{{"harness", ""}, {"harness", "TestA|TestB"}, {"vmm/kvm", ""}, {"vmm/vmm", ""}, {"vmm/debug", ""}, {"vmm/gdb", ""}}, 0, 1},
		{"a lab's time is up",
			[]labRun{all, {passA + beginC + timeUp, 124}, all, all, all, all},
			[]call{{"harness", ""}, {"vmm/kvm", ""}, {"vmm/kvm", "TestA"}, {"vmm/vmm", ""}, {"vmm/debug", ""}, {"vmm/gdb", ""}}, 0, 1},
		{"a lab never starts", []labRun{{silent, 123}, all, all, all, all, all},
			[]call{{"harness", ""}, {"harness", ""}, {"vmm/kvm", ""}, {"vmm/vmm", ""}, {"vmm/debug", ""}, {"vmm/gdb", ""}}, 0, 1},
		{"a guest falls silent",
			[]labRun{{passA + silentC + "FAIL\n", 1}, all, all, all, all, all},
			[]call{{"harness", ""}, {"harness", "TestA"}, {"vmm/kvm", ""}, {"vmm/vmm", ""}, {"vmm/debug", ""}, {"vmm/gdb", ""}}, 0, 1},
		{"a test's time is up",
			[]labRun{{passA + late, 2}, all, all, all, all, all},
			[]call{{"harness", ""}, {"harness", "TestA"}, {"vmm/kvm", ""}, {"vmm/vmm", ""}, {"vmm/debug", ""}, {"vmm/gdb", ""}}, 0, 1},
		{"three silences",
			[]labRun{{passA + beginC + silent, 123}, {skipB + silentC, 1}, {passC + timeUp, 124}},
			[]call{{"harness", ""}, {"harness", "TestA"}, {"harness", "TestA|TestB"}}, 124, 2},
		{"a test fails", []labRun{{passA + failD + "FAIL\n", 1}}, []call{{"harness", ""}}, 1, 0},
		{"a test fails in the second lab",
			[]labRun{{beginC + silent, 123}, {failD + passC, 1}},
			[]call{{"harness", ""}, {"harness", ""}}, 1, 1},
		{"a test fails and a guest falls silent", []labRun{{failD + silentC, 1}}, []call{{"harness", ""}}, 1, 0},
		{"a guest falls silent and a test fails", []labRun{{silentC + failD, 1}}, []call{{"harness", ""}}, 1, 0},
		{"a test fails and the lab falls silent", []labRun{{failD + beginC + silent, 123}}, []call{{"harness", ""}}, 123, 0},
		{"a guest falls silent and a test crashes", []labRun{{silentC + crash, 2}}, []call{{"harness", ""}}, 2, 0},
		{"the lab breaks down", []labRun{{passA + "lab: the machine stopped before the command ended\n", 125}}, []call{{"harness", ""}}, 125, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, output, got := vmTest(t, tt.labs, "--go", "kvm", "6.12")
			if status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			var calls []call
			for _, c := range got {
				m := regexp.MustCompile(`cd /(\S+) && .*-test\.timeout 18m -test\.run '.*' -test\.skip '\^\((.*)\)\$'$`).FindStringSubmatch(c)
				if m == nil {
					t.Fatalf("the lab's command is %q", c)
				}
				calls = append(calls, call{m[1], m[2]})
			}
			if diff := cmp.Diff(tt.calls, calls, cmp.AllowUnexported(call{})); diff != "" {
				t.Errorf("labs (-want +got):\n%s", diff)
			}
			if n := strings.Count(output, "once more in a new one"); n != tt.retold {
				t.Errorf("%d labs announced, want %d", n, tt.retold)
			}
			if t.Failed() {
				t.Logf("it printed:\n%s", output)
			}
		})
	}
}

// TestVMTestGuest: the same for the guest's own tests.
func TestVMTestGuest(t *testing.T) {
	needBash(t)
	const (
		passed = "passed   boot/cpus (1.00 s)\n1 passed, 0 failed, 0 skipped\n"
		aio    = "passed   aio/read (1.00 s)\nskipped  aio/write (0.00 s): no\n1 passed, 0 failed, 1 skipped\n"
		quiet  = "FAILED   boot/cpus: no result after 5m0s; the guest's agent does not answer\n  the last lines of the console:\n  > up\n0 passed, 1 failed, 0 skipped\n"
		none   = "^()$"
		failed = "FAILED   aio/read: got 1\n  at aio.c:1\n  | not ok 1 read\n"
	)
	for _, tt := range []struct {
		name   string
		labs   []labRun
		last   []string // what each lab is to leave out
		status int
	}{
		{"passes", []labRun{{passed, 0}}, []string{none}, 0},
		{"the guest falls silent", []labRun{{quiet, 1}, {passed, 0}}, []string{none, none}, 0},
		{"the lab falls silent", []labRun{{silent, 123}, {passed, 0}}, []string{none, none}, 0},
		{"silent when one has passed", []labRun{{passed + silent, 123}, {aio, 0}}, []string{none, "^(boot/cpus)$"}, 0},
		{"silent when all have passed", []labRun{{passed + aio + silent, 123}, {passed, 0}}, []string{none, "^(boot/cpus|aio/read|aio/write)$"}, 0},
		{"three silences", []labRun{{quiet, 1}, {silent, 123}, {quiet, 1}}, []string{none, none, none}, 1},
		{"a test fails", []labRun{{failed, 1}}, []string{none}, 1},
		{"a silence and a failure", []labRun{{quiet + failed, 1}}, []string{none}, 1},
		{"a failure and a silence", []labRun{{failed + silent, 123}}, []string{none}, 123},
		{"no such file", []labRun{{"fifovm: no such file\n", 2}}, []string{none}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, output, calls := vmTest(t, tt.labs, "kvm", "6.12")
			if status != tt.status || !slices.Equal(calls, tt.last) {
				t.Errorf("status %d after labs of %q, want %d after %q; it printed:\n%s", status, calls, tt.status, tt.last, output)
			}
		})
	}
}

// TestVMTestEngine: what runs where, on which engine.
func TestVMTestEngine(t *testing.T) {
	needBash(t)
	const (
		doctor = "fifovm doctor --engine kvm\n"
		passed = "passed   boot/cpus (1.00 s)\n1 passed, 0 failed, 0 skipped\n"
	)
	guestWith := func(engine, kernel, cpus, seed, words, bound string) string {
		report := filepath.Dir(kernel) + "-" + cpus + "-" + seed
		return "fifovm test --engine " + engine + " --kernel build/kernel/" + kernel + " --initrd build/guest.cpio" +
			" --cpus " + cpus + " --seed " + seed + " --device edu --device fifo --append " + words + " --timeout " + bound +
			" --junit build/vm-test/" + report + ".xml --artifacts build/vm-test/" + report + "\n"
	}
	guest := func(engine, kernel string) string {
		return guestWith(engine, kernel, "1", "1", "a word", "5m")
	}
	for _, tt := range []struct {
		name   string
		host   vmTestHost
		args   string
		status int
		direct string
		labs   int
		said   string
	}{
		{"auto", vmTestHost{}, "auto 6.12", 0, guest("auto", "6.12/vmlinux"), 0, ""},
		{"soft", vmTestHost{kvm: true}, "soft debug", 0, guestWith("soft", "debug/vmlinux", "1", "1", "a word", "60m --no-snapshot"), 0, ""},
		{"CPUs and seeds", vmTestHost{env: []string{"CPUS=1 4", "SEEDS=7 8", "APPEND=fifovm.long"}}, "soft 6.1", 0,
			guestWith("soft", "6.1/vmlinux", "1", "7", "fifovm.long", "50m") + guestWith("soft", "6.1/vmlinux", "1", "8", "fifovm.long", "50m") +
				guestWith("soft", "6.1/vmlinux", "4", "7", "fifovm.long", "50m") + guestWith("soft", "6.1/vmlinux", "4", "8", "fifovm.long", "50m"), 0, ""},
		{"KVM here", vmTestHost{kvm: true}, "kvm 6.1", 0, doctor + guest("kvm", "6.1/vmlinux"), 0, ""},
		{"KVM in the lab", vmTestHost{labs: []labRun{{passed, 0}}}, "kvm 6.12", 0, doctor, 1, "in the KVM lab"},
		{"kernels in the lab", vmTestHost{labs: []labRun{{passed, 0}, {passed, 0}}}, "kvm 6.12 debian", 0, doctor, 2, "in the KVM lab"},
		{"KVM required, and here", vmTestHost{kvm: true, require: "1"}, "auto 6.12", 0, doctor + guest("kvm", "6.12/vmlinux"), 0, ""},
		{"KVM required, not here", vmTestHost{require: "1"}, "kvm 6.12", 1, doctor, 0, "FIFOVM_REQUIRE_KVM is set"},
		{"KVM required by auto, not here", vmTestHost{require: "1"}, "auto 6.12", 1, doctor, 0, "FIFOVM_REQUIRE_KVM is set"},
		{"kernels", vmTestHost{}, "soft 6.12 debian", 0, guest("soft", "6.12/vmlinux") + guest("soft", "debian/vmlinuz"), 0, ""},
		{"a failure", vmTestHost{fails: "build/kernel/6.12/vmlinux"}, "soft 6.1 6.12 debug", 1, guest("soft", "6.1/vmlinux") + guest("soft", "6.12/vmlinux"), 0, ""},
		{"Go on soft", vmTestHost{}, "--go soft 6.12", 0,
			"harness soft [6.12/bzImage debian/vmlinuz 6.12/vmlinux] -test.v -test.timeout 18m -test.run \n", 0, ""},
		{"Go on soft, debug", vmTestHost{}, "--go soft debug", 0,
			"harness soft [6.12/bzImage debian/vmlinuz debug/vmlinux] -test.v -test.timeout 32m -test.run \n", 0, ""},
		{"Go on KVM here", vmTestHost{kvm: true}, "--go kvm 6.12", 0, doctor +
			"harness kvm [6.12/bzImage debian/vmlinuz 6.12/vmlinux] -test.v -test.timeout 18m -test.run \n" +
			"vmm/kvm kvm [6.12/bzImage debian/vmlinuz 6.12/vmlinux] -test.v -test.timeout 18m -test.run \n" +
			"vmm/vmm kvm [6.12/bzImage debian/vmlinuz 6.12/vmlinux] -test.v -test.timeout 18m -test.run TestBare/kvm\n" +
			"vmm/debug kvm [6.12/bzImage debian/vmlinuz 6.12/vmlinux] -test.v -test.timeout 18m -test.run Test(Breakpoint|ManyBreakpoints|Step|Watchpoint|MemoryAndRegisters|Pause)/kvm\n" +
			"vmm/gdb kvm [6.12/bzImage debian/vmlinuz 6.12/vmlinux] -test.v -test.timeout 18m -test.run TestProtocol/kvm\n", 0, ""},
		{"no engine", vmTestHost{}, "", 2, "", 0, `engine ""`},
		{"wrong engine", vmTestHost{}, "warp 6.12", 2, "", 0, `engine "warp" (there is auto kvm soft)`},
		{"Go without an engine", vmTestHost{}, "--go auto 6.12", 2, "", 0, `engine "auto" (there is kvm soft)`},
		{"no kernel", vmTestHost{}, "soft", 2, "", 0, "no kernel"},
		{"wrong kernel", vmTestHost{}, "soft 5", 2, "", 0, `kernel "5"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, output, calls := tt.host.run(t, strings.Fields(tt.args)...)
			if status != tt.status || len(calls) != tt.labs || !strings.Contains(output, tt.said) {
				t.Errorf("status %d and %d labs, want %d and %d, and %q", status, len(calls), tt.status, tt.labs, tt.said)
			}
			if diff := cmp.Diff(tt.direct, tt.host.direct); diff != "" {
				t.Errorf("outside of labs (-want +got):\n%s", diff)
			}
			if t.Failed() {
				t.Logf("it printed:\n%s", output)
			}
		})
	}
}
