package harness_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"fifovm/harness"
)

// planted is what the tests here share: fifovm itself, and the module and the test
// that go wrong on request (testdata/plant).
type planted struct {
	fifovm, dir string
	kernel      string
}

// plant builds all of it for a kernel.
func plant(t *testing.T, kernel string) *planted {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it boots guests")
	}
	for _, need := range []string{filepath.Join("../build/kernel", kernel, "vmlinux"), "../build/guest.cpio"} {
		if _, err := os.Stat(need); err != nil {
			t.Skipf("%v: run `make kernel image KERNEL=%s`", err, kernel)
		}
	}
	for _, need := range []string{"go", "make", "cc"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("%v: it is to build what fails", err)
		}
	}
	p := &planted{fifovm: filepath.Join(t.TempDir(), "fifovm"), dir: t.TempDir(), kernel: kernel}
	for _, c := range []*exec.Cmd{exec.Command("testdata/plant/build", kernel), exec.Command("go", "build", "-o", p.fifovm, "../cmd/fifovm")} {
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
	return p
}

// args are the command line of a run on engine soft, on which each run is the same.
func (p *planted) args(parameters, timeout string, more ...string) []string {
	return append([]string{"test", "--engine", "soft", "--kernel", filepath.Join("../build/kernel", p.kernel, "vmlinux"),
		"--initrd", "../build/guest.cpio", "--device", "edu",
		"--module", filepath.Join("../build/plant", p.kernel, "plant.ko") + parameters,
		"--test-program", "../build/plant/planted", "--timeout", timeout}, more...)
}

// run runs fifovm, and reads the results from the file that it writes.
func (p *planted) run(t *testing.T, args ...string) (status int, output string, results []*harness.Result) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	file := filepath.Join(t.TempDir(), "results.json")
	c := exec.CommandContext(ctx, p.fifovm, append(args, "--json", file)...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	var report struct{ Results []*harness.Result }
	if err := json.Unmarshal(data, &report); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	return c.ProcessState.ExitCode(), out.String(), report.Results
}

// A verdict is what is expected of a check that goes wrong.
type verdict struct {
	check string
	args  []string // more of fifovm's
	// want are regular expressions for the results as lines, between those of the
	// checks before and behind, which pass.
	want []string
	// splat is what the kernel's report must have: the function that went wrong.
	splat string
	// place is text in plant.c: the kernel's report names its line.
	place string
}

// TestPlanted has everything go wrong for which there is a verdict, and looks at
// what fifovm makes of it: the verdict, its reason, where it was, that the checks
// before and behind are run all the same, and the exit status.
func TestPlanted(t *testing.T) {
	p := plant(t, "6.12")
	p.judge(t, "2s", []verdict{
		{check: "assertion", want: []string{`^failed planted/assertion: assertion: planted\.c:LINE: two and two are 5$`}},
		{check: "skip", want: []string{`^skipped planted/skip: no such card$`}},
		{check: "hang", want: []string{`^failed planted/hang: hang in the test: no result after 40s of the guest's time; it could be killed$`}},
		{check: "busy", want: []string{`^failed planted/busy: hang in the test: no result after 2s; it could be killed$`}},
		{check: "leave", want: []string{`^failed planted/leave: test crashed: it ended well after 1 of 3 checks$`}},
		{check: "leave_badly", want: []string{`^failed planted/leave_badly: test crashed: exit status 7$`}},
		{check: "crash", want: []string{`^failed planted/crash: test crashed: killed by signal 11 \(Segmentation fault\)$`}},
		{check: "nonsense", want: []string{`^passed planted/nonsense$`}},
		{check: "power_off", want: []string{`^failed planted/power_off: guest ended early: the guest ended by power off$`}},
		{check: "reset", want: []string{`^failed planted/reset: guest ended early: the guest ended by reset$`}},
		{check: "silence", splat: "NMI backtrace for cpu 0", want: []string{`^failed planted/silence: guest silent: no result after 40s of the guest's time; the guest's agent does not answer; the kernel answers SysRq$`}},
		{check: "no_fault", want: []string{`^failed planted/no_fault: fault never fired: .*edu0/device:reset@1000000 on event never fired$`}},
		{check: "oops", splat: "plant_oops", want: []string{`^failed planted/oops: kernel report: .*NULL pointer dereference.* in plant_oops, plant\.c:.*killed by signal 9`}},
		{check: "warn", splat: "plant_warn", place: "WARN_ON", want: []string{`^failed planted/warn: kernel report: .*WARNING in plant_warn, plant\.c:`}},
		{check: "panic", want: []string{`^failed planted/panic: kernel panic: kernel panic: planted$`}},
		{check: "spin", splat: "RIP: 0010:plant_spin+", want: []string{`^failed planted/spin: hang in the kernel: no result after 2s; the guest is busy, its agent does not answer; the kernel answers SysRq: a CPU is in plant_spin, plant\.c:\d+$`}},
		{check: "spin", args: []string{"--cpus", "2"}, splat: "RIP: 0010:plant_spin+", want: []string{`^failed planted/spin: hang in the kernel: no result after 2s; it can't be killed: it is stuck in the kernel, in plant_spin, plant\.c:\d+$`}},
		{check: "spin_irqs_off", splat: "CPU 0 is in the kernel", want: []string{`^failed planted/spin_irqs_off: hang in the kernel: no result after 2s; the guest is busy, its agent does not answer, and the kernel no SysRq key$`}},
		{check: "sleep_in_kernel", splat: "plant_sleep", want: []string{`^failed planted/sleep_in_kernel: hang in the kernel: .*it can't be killed: it is stuck in the kernel, in plant_sleep, plant\.c:\d+$`}},
	})
	for _, test := range []struct {
		check, reason string
	}{
		{"forget_reference", `module plant, which can't be unloaded: it is still in use`},
		{"forget_pin", `1 pinned pages`},
		{"forget_both", `module plant, which can't be unloaded: it is still in use; 1 pinned pages`},
	} {
		t.Run(test.check, func(t *testing.T) { p.leak(t, "2s", test.check, test.reason) })
	}
	t.Run("module", func(t *testing.T) {
		status, output, results := p.run(t, p.args(",init_fails=1", "2s", "planted/first")...)
		compare(t, status, output, results, 1, `^failed guest/boot: module did not load: .*plant\.ko "init_fails=1" does not load: No such device$`, `^not run planted`)
	})
	t.Run("boot", func(t *testing.T) {
		status, output, results := p.run(t, p.args("", "2s", "--append", "rdinit=/bbin/true", "planted/first")...)
		compare(t, status, output, results, 1, `^failed guest/boot: kernel panic: kernel panic: Attempted to kill init!`, `^not run planted`)
	})
	t.Run("fault", func(t *testing.T) {
		status, output, results := p.run(t, p.args("", "2s", "--fault", "edu0/device:reset@1000000 on event", "planted/first")...)
		compare(t, status, output, results, 1, `^passed planted/first$`, `^failed planted.*: fault never fired: `)
	})
}

// TestRace finds a seed under which a race is lost, and replays that: it is lost in
// the same way each time.
func TestRace(t *testing.T) {
	p := plant(t, "6.12")
	dir := t.TempDir()
	status := 0
	for seed := 1; status == 0 && seed <= 20; seed++ {
		status, _, _ = p.run(t, p.args("", "1m", "--cpus", "2", "--artifacts", dir, "--seed", fmt.Sprint(seed), "planted/race")...)
	}
	if status != 1 {
		t.Fatalf("status %d: no seed loses it", status)
	}
	const times = "100"
	out, err := exec.Command(p.fifovm, "replay", "--repeat", times, filepath.Join(dir, "planted-race")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "planted/race has failed in the same way, after the same ") || !strings.Contains(string(out), times+" times\n") {
		t.Errorf("%v: %s", err, out)
	}
	t.Logf("%s", out)
}

// TestPlantedDebug is the same for what a kernel notices only if it is made to.
func TestPlantedDebug(t *testing.T) {
	if !strings.Contains(os.Getenv("FIFOVM_TEST_KERNELS"), "debug/") {
		t.Skip("it takes minutes: FIFOVM_TEST_KERNELS=debug/vmlinux has it run")
	}
	p := plant(t, "debug")
	p.judge(t, "2m", []verdict{
		{check: "use_after_free", splat: "plant_use_after_free", want: []string{`^failed planted/use_after_free: kernel report: .*KASAN: slab-use-after-free in plant_use_after_free`}},
		{check: "inversion", splat: "plant_inversion", want: []string{`^failed planted/inversion: kernel report: .*lockdep: possible circular locking dependency`}},
	})
	t.Run("forget_memory", func(t *testing.T) {
		place := fmt.Sprintf(`plant_forget_memory, plant\.c:%d `, lineOf(t, "plant.c", "kmalloc(4000, "))
		p.leak(t, "2m", "forget_memory", `kmemleak: an object of 4096 bytes, by `+place)
	})
	t.Run("forget_mapping", func(t *testing.T) {
		status, output, results := p.run(t, p.args("", "2m", "planted/forget_mapping")...)
		compare(t, status, output, results, 1, `^passed planted/forget_mapping$`,
			`^failed guest/shutdown: kernel report: the kernel's log says: DMA-API: .* device driver has pending DMA allocations while released from device \[count=1\], mapped by plant_forget_mapping, plant\.c:`)
	})
}

// judge runs each of the checks between two that pass.
func (p *planted) judge(t *testing.T, timeout string, verdicts []verdict) {
	for _, v := range verdicts {
		t.Run(strings.Join(append([]string{v.check}, v.args...), " "), func(t *testing.T) {
			status, output, results := p.run(t, p.args("", timeout, append(v.args, "planted/first/"+v.check+"/last")...)...)
			want := []string{`^passed planted/first$`}
			for _, w := range v.want {
				want = append(want, strings.ReplaceAll(w, "LINE", fmt.Sprint(lineOf(t, "planted.c", "two and two"))))
			}
			wantStatus := 1
			if !strings.HasPrefix(v.want[0], "^failed") {
				wantStatus = 0
			}
			compare(t, status, output, results, wantStatus, append(want, `^passed planted/last$`)...)
			if t.Failed() || wantStatus == 0 {
				return
			}
			r := results[1]
			if splat := strings.Join(r.Splat, "\n"); !strings.Contains(splat, v.splat) || v.splat == "" && splat != "" {
				t.Errorf("the kernel's report does not have %q:\n%s", v.splat, splat)
			}
			if v.place != "" {
				if place := fmt.Sprintf("plant.c:%d ", lineOf(t, "plant.c", v.place)); !strings.Contains(strings.Join(r.Splat, "\n"), place) {
					t.Errorf("the kernel's report does not have %s:\n%s", place, strings.Join(r.Splat, "\n"))
				}
			}
			if len(r.Console) == 0 {
				t.Error("nothing of the console is told")
			}
			if !strings.HasSuffix(r.Command, " planted/"+v.check) {
				t.Errorf("the command that runs it again is %q", r.Command)
			}
			if !strings.HasSuffix(strings.Split(output, "\nfifovm: ")[0], "2 passed, 1 failed, 0 skipped") {
				t.Errorf("the last line is another:\n%s", output)
			}
		})
	}
}

// leak runs a check after which something is left when the module is unloaded.
func (p *planted) leak(t *testing.T, timeout, check, reason string) {
	status, output, results := p.run(t, p.args("", timeout, "planted/"+check)...)
	compare(t, status, output, results, 1, `^passed planted/`+check+`$`, `^failed guest/shutdown: leak: left behind: `+reason+`.*planted`)
}

func compare(t *testing.T, status int, output string, results []*harness.Result, wantStatus int, want ...string) {
	t.Helper()
	if status != wantStatus {
		t.Errorf("exit status %d, want %d", status, wantStatus)
	}
	for i, r := range results {
		if i >= len(want) || !regexp.MustCompile(want[i]).MatchString(r.String()) {
			t.Errorf("result %d: %s", i, r)
		}
	}
	if len(results) != len(want) || t.Failed() {
		t.Errorf("want these results:\n%s\nit printed:\n%s", strings.Join(want, "\n"), output)
	}
}

// lineOf finds the line of one of testdata/plant's sources that has text.
func lineOf(t *testing.T, name, text string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/plant", name))
	if err != nil {
		t.Fatal(err)
	}
	before, _, found := strings.Cut(string(b), text)
	if !found {
		t.Fatalf("%s has no %q", name, text)
	}
	return strings.Count(before, "\n") + 1
}
