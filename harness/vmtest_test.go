//go:build linux

package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// vmTest runs harness/vm-test on a host without KVM, where these are the labs,
// and returns its status, what it printed, and the labs' last arguments.
func vmTest(t *testing.T, labs []labRun, args ...string) (status int, output string, calls []string) {
	t.Helper()
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
	write("build/fifovm", "#!/bin/bash\nexit 1\n")
	write("build/fifovm-lab", fakeLab)
	write("path/go", "#!/bin/bash\n")
	write("path/objcopy", "#!/bin/bash\n")
	for i, l := range labs {
		write(fmt.Sprintf("runs/%d.output", i+1), l.output)
		write(fmt.Sprintf("runs/%d.status", i+1), fmt.Sprint(l.status))
	}
	cmd := exec.Command(filepath.Join(root, "harness/vm-test"), args...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(root, "path")+":"+os.Getenv("PATH"), "FIFOVM_REQUIRE_KVM=", "APPEND=")
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
	late   = beginC + "panic: test timed out after 9m0s\n\trunning tests:\n\t\tTestC (9m0s)\n"
	crash  = "=== RUN   TestE\npanic: runtime error: index out of range\n"
	silent = "lab: the end of the lab's console:\n  up\nlab: fell silent: nothing came for 1m0s\n"
	timeUp = "lab: no end after 11m0s: killed\n"
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
		{"all passes", []labRun{all, all}, []call{{"harness", ""}, {"vmm/kvm", ""}}, 0, 0},
		{"the lab falls silent",
			[]labRun{{passA + skipB + beginC + silent, 123}, all, all},
			[]call{{"harness", ""}, {"harness", "TestA|TestB"}, {"vmm/kvm", ""}}, 0, 1},
		{"a lab's time is up",
			[]labRun{all, {passA + beginC + timeUp, 124}, all},
			[]call{{"harness", ""}, {"vmm/kvm", ""}, {"vmm/kvm", "TestA"}}, 0, 1},
		{"a lab never starts", []labRun{{silent, 123}, all, all},
			[]call{{"harness", ""}, {"harness", ""}, {"vmm/kvm", ""}}, 0, 1},
		{"a guest falls silent",
			[]labRun{{passA + silentC + "FAIL\n", 1}, all, all},
			[]call{{"harness", ""}, {"harness", "TestA"}, {"vmm/kvm", ""}}, 0, 1},
		{"a test's time is up",
			[]labRun{{passA + late, 2}, all, all},
			[]call{{"harness", ""}, {"harness", "TestA"}, {"vmm/kvm", ""}}, 0, 1},
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
			status, output, got := vmTest(t, tt.labs, "--go", "6.12")
			if status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			var calls []call
			for _, c := range got {
				m := regexp.MustCompile(`cd /(\S+) && .*-test\.timeout 9m -test\.skip '\^\((.*)\)\$'$`).FindStringSubmatch(c)
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
		passed = "passed   boot (1.00 s)\n1 passed, 0 failed\n"
		quiet  = "FAILED   boot: the guest's agent does not answer\n  the last lines of the console:\n  > up\n0 passed, 1 failed\n"
		failed = "FAILED   aio: exit status 1, failed: read\n  | not ok 1 read\n"
	)
	for _, tt := range []struct {
		name   string
		labs   []labRun
		calls  int
		status int
	}{
		{"passes", []labRun{{passed, 0}}, 1, 0},
		{"the guest falls silent", []labRun{{quiet, 1}, {passed, 0}}, 2, 0},
		{"the lab falls silent", []labRun{{silent, 123}, {passed, 0}}, 2, 0},
		{"three silences", []labRun{{quiet, 1}, {silent, 123}, {quiet, 1}}, 3, 1},
		{"a test fails", []labRun{{failed, 1}}, 1, 1},
		{"a silence and a failure", []labRun{{quiet + failed, 1}}, 1, 1},
		{"a failure and a silence", []labRun{{failed + silent, 123}}, 1, 123},
		{"no such file", []labRun{{"fifovm: no such file\n", 2}}, 1, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, output, calls := vmTest(t, tt.labs, "6.12")
			if status != tt.status || len(calls) != tt.calls {
				t.Errorf("status %d after %d labs, want %d after %d; it printed:\n%s", status, len(calls), tt.status, tt.calls, output)
			}
		})
	}
}
