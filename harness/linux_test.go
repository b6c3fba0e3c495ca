package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fifovm/initramfs"
	"fifovm/vmm/boot"
	"fifovm/vmm/memory"
	"fifovm/vmm/vmm"
)

// The tests here boot Linux, so they need an engine that can, a kernel and an
// image. `make vm-test-all` brings all of it together in the KVM lab.
const (
	kernelDir = "../build/kernel"
	imageFile = "../build/guest.cpio"
	// bootTime is generous: the debug kernel boots to a shell in half a minute
	// in the lab, four CPUs on one.
	bootTime = 3 * time.Minute
)

// kernels are ours and Debian's, as shipped: those that are there, but for the
// debug kernel, which takes long; or where the environment lists some, exactly
// those.
func kernels(t *testing.T) []string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: whole guests are run by `make test-soft` and `make test-lab`")
	}
	if list := os.Getenv("FIFOVM_TEST_KERNELS"); list != "" {
		return strings.Fields(list)
	}
	var list []string
	for _, file := range []string{"6.12/vmlinux", "6.12/bzImage", "6.1/vmlinux", "debian/vmlinuz"} {
		if _, err := os.Stat(filepath.Join(kernelDir, file)); err == nil {
			list = append(list, file)
		}
	}
	if len(list) == 0 {
		t.Skipf("no kernel in %s: run `make kernel`", kernelDir)
	}
	return list
}

// defaultKernel is the kernel for tests that one is enough for.
func defaultKernel(t *testing.T) string {
	t.Helper()
	const name = "6.12/vmlinux"
	if !slices.Contains(kernels(t), name) {
		t.Skipf("no kernel %s: run `make kernel`", name)
	}
	return filepath.Join(kernelDir, name)
}

// engine is the engine that can run Linux here. Where one has to be there, the
// environment names it, and nothing is skipped.
func engine(t *testing.T) string {
	t.Helper()
	if name := os.Getenv("FIFOVM_TEST_ENGINE"); name != "" {
		return name
	}
	name, reason, err := vmm.ChooseEngine(vmm.EngineAuto, "")
	if err != nil {
		t.Skipf("no engine that boots Linux: %v", err)
	}
	t.Logf("engine %s: %s", name, reason)
	return name
}

// load makes a machine that boots kernel with the image and more files.
func load(t *testing.T, cfg vmm.Config, kernel, words string, files ...initramfs.File) *vmm.Machine {
	t.Helper()
	m, err := tryLoad(t.TempDir(), cfg, kernel, words, files...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func tryLoad(dir string, cfg vmm.Config, kernel, words string, files ...initramfs.File) (*vmm.Machine, error) {
	k, err := boot.Open(kernel)
	if err != nil {
		return nil, err
	}
	image := imageFile
	if len(files) > 0 {
		image = filepath.Join(dir, "image.cpio")
		if err := initramfs.Append(image, imageFile, files); err != nil {
			return nil, err
		}
	}
	f, err := os.Open(image)
	if err != nil {
		return nil, fmt.Errorf("%w: run `make image`", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if cfg.WallClock = time.Now().UnixNano(); cfg.Engine == vmm.EngineSoft {
		cfg.WallClock = softWallClock // all runs are to be the same
	}
	m, err := vmm.New(cfg)
	if err != nil {
		return nil, err
	}
	err = m.Load(vmm.Boot{Kernel: k, Initrd: io.NewSectionReader(f, 0, info.Size()), CommandLine: words, Seed: []byte("a seed of some bytes")})
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// softWallClock is the start of 2026 in ns from 1970.
const softWallClock = 1_767_225_600 * int64(time.Second)

// testMemory is enough for the debug kernel, of which KASAN takes an eighth.
const testMemory = 512 << 20

// shell is a guest's console as a person uses it.
type shell struct {
	t       *testing.T
	console Console
	mu      sync.Mutex
	seen    strings.Builder
	grew    chan struct{}
	ended   chan struct{}
	input   io.Writer
}

func newShell(t *testing.T) *shell {
	s := &shell{t: t, grew: make(chan struct{}, 1)}
	s.console.Output = s
	return s
}

func (s *shell) Write(p []byte) (int, error) {
	s.mu.Lock()
	s.seen.Write(p)
	s.mu.Unlock()
	select {
	case s.grew <- struct{}{}:
	default:
	}
	return len(p), nil
}

// has tells whether text came and was not forgotten.
func (s *shell) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.seen.String(), text)
}

// expect waits for text, and forgets everything up to its end. It gives what was
// before.
func (s *shell) expect(text string) string {
	s.t.Helper()
	late := time.After(bootTime)
	for {
		s.mu.Lock()
		all := s.seen.String()
		if before, after, found := strings.Cut(all, text); found {
			s.seen.Reset()
			s.seen.WriteString(after)
			s.mu.Unlock()
			return before
		}
		s.mu.Unlock()
		select {
		case <-s.grew:
		case <-s.ended:
			s.t.Fatalf("the guest ended before %q came; console:\n%s", text, strings.Join(s.console.Tail(), "\n"))
		case <-late:
			s.t.Fatalf("%q did not come; console:\n%s", text, strings.Join(s.console.Tail(), "\n"))
		}
	}
}

// command types a command and waits for its output, which must not be part of
// what is typed: the terminal echoes.
func (s *shell) command(typed, output string) {
	s.t.Helper()
	if strings.Contains(typed, output) {
		s.t.Fatalf("the echo of %q would be taken for its output", typed)
	}
	if _, err := io.WriteString(s.input, typed+"\n"); err != nil {
		s.t.Fatal(err)
	}
	s.expect(output)
}

// run runs the machine until it ends by itself and gives the reason. The
// machine is closed with the test.
func (s *shell) run(ctx context.Context, m *vmm.Machine) func() vmm.Stop {
	s.input = m.Serial(0)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	s.ended = ended
	var stop vmm.Stop
	var err error
	go func() {
		stop, err = m.Run(ctx)
		close(ended)
	}()
	s.t.Cleanup(func() {
		cancel()
		<-ended
		if err := m.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return func() vmm.Stop {
		s.t.Helper()
		select {
		case <-ended:
		case <-time.After(bootTime):
			s.t.Fatalf("the guest's end did not come; console:\n%s", strings.Join(s.console.Tail(), "\n"))
		}
		if err != nil {
			s.t.Fatal(err)
		}
		return stop
	}
}

// powerOff types it, waits for the end of the run, and judges how the guest
// ended.
func (s *shell) powerOff(wait func() vmm.Stop) {
	s.t.Helper()
	if _, err := io.WriteString(s.input, "poweroff\n"); err != nil {
		s.t.Fatal(err)
	}
	if stop := wait(); stop != vmm.PowerOff {
		s.t.Errorf("the guest ended by %v, want a power off", stop)
	}
	if c := s.console.Complaint(); c != "" {
		s.t.Errorf("the kernel complained: %s", c)
	}
}

// TestShell boots every kernel with one and four CPUs to a shell, uses it, and
// powers the guest off from it.
func TestShell(t *testing.T) {
	engine := engine(t)
	for _, name := range kernels(t) {
		for _, cpus := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s/%dcpus", name, cpus), func(t *testing.T) {
				start := time.Now()
				s := newShell(t)
				m := load(t, vmm.Config{Engine: engine, CPUs: cpus, Memory: testMemory, Serial: [2]io.Writer{&s.console}},
					filepath.Join(kernelDir, name), "console=ttyS0 panic=-1 loglevel=5")
				wait := s.run(t.Context(), m)
				s.expect("Setting console log level")
				s.expect("$ ")
				t.Logf("shell after %.1f s", time.Since(start).Seconds())
				s.command("echo six times seven is $((6 * 7))", "seven is 42")
				s.command("grep -c ^processor /proc/cpuinfo", fmt.Sprintf("\n%d", cpus))
				s.command("cat /sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc")
				s.command("echo fifo | hexdump", "00000000  66 69 66 6f 0a")
				s.command("ls /sys/bus/pci/devices", "0000:00:00.0")
				s.powerOff(wait)
			})
		}
	}
}

// TestReboot has the guest ask for a reset.
func TestReboot(t *testing.T) {
	engine := engine(t)
	s := newShell(t)
	m := load(t, vmm.Config{Engine: engine, CPUs: 1, Memory: testMemory, Serial: [2]io.Writer{&s.console}},
		defaultKernel(t), "console=ttyS0 panic=-1 loglevel=5")
	wait := s.run(t.Context(), m)
	s.expect("Setting console log level")
	s.expect("$ ")
	if _, err := io.WriteString(m.Serial(0), "shutdown -r\n"); err != nil {
		t.Fatal(err)
	}
	if stop := wait(); stop != vmm.Reset {
		t.Errorf("the guest ended by %v, want a reset", stop)
	}
}

// forever is a sleep, in seconds, that does not end even where an idle guest skips
// its time.
const forever = "1000000000"

// compareResults wants results that begin as the lines of want do.
func compareResults(t *testing.T, results []*Result, want ...string) {
	t.Helper()
	for i, r := range results {
		if i >= len(want) || !strings.HasPrefix(r.String(), want[i]) {
			t.Errorf("result %d: %s", i, r)
		}
		if r.Verdict == Failed && r.Program != "nothing" && len(r.Console) == 0 {
			t.Errorf("%s has nothing of the console", r.Name())
		}
	}
	if len(results) != len(want) || t.Failed() {
		t.Errorf("%d results, want these %d:\n%s", len(results), len(want), strings.Join(want, "\n"))
	}
}

// TestVerdicts plants failures in the guest and looks at what is said of them: in
// guests that are booted and shared, and where each program begins at a base, which
// is to make no difference.
func TestVerdicts(t *testing.T) {
	t.Run("booted", func(t *testing.T) { testVerdicts(t, nil) })
	t.Run("fresh", func(t *testing.T) { testVerdicts(t, vmm.NewFrom) })
}

func testVerdicts(t *testing.T, newFrom func(vmm.Config, *vmm.Base, ...func(*vmm.Machine) error) (*vmm.Machine, error)) {
	engine := engine(t)
	kernel := defaultKernel(t)
	const passes = "passed next/it"
	for _, test := range []struct {
		name     string
		script   string // of the program "bad", behind which "next" is run
		words    string
		want     []string
		silent   bool // it takes a bound to find out
		oneGuest bool // what is behind is run in the same
	}{
		{name: "passes", script: pass, want: []string{"passed bad/it", passes}, oneGuest: true},
		{name: "init that ends", words: "rdinit=/bbin/true", want: []string{"failed guest/boot: kernel panic: kernel panic: Attempted to kill init!",
			"not run bad: no guest came up for it", "not run next: no guest"}},
		{name: "init that says nothing", words: "loglevel=7 rdinit=/bbin/sleep -- " + forever, silent: true,
			want: []string{"failed guest/boot: boot failed: no agent answers after", "not run bad", "not run next"}},
		{name: "an assertion", script: "echo 1..2; echo ok 1 a; echo '# bad.c:7: got 5'; echo '# more'; echo not ok 2 b; false",
			want: []string{"passed bad/a", "failed bad/b: assertion: bad.c:7: got 5", passes}, oneGuest: true},
		{name: "a failure without a place", script: "echo 1..1; echo '# why'; echo not ok 1 b; false",
			want: []string{"failed bad/b: assertion: why", passes}, oneGuest: true},
		{name: "an assertion without checks", script: "echo '# bad.c:7: got 5'; exit 3",
			want: []string{"failed bad: test crashed: bad.c:7: exit status 3: got 5", passes}, oneGuest: true},
		{name: "tests nothing", script: "true", want: []string{"failed bad: test crashed: it ended well without a plan", passes}, oneGuest: true},
		{name: "tests less than it says", script: "echo 1..3; echo ok 1 a; echo ok 2 b",
			want: []string{"passed bad/a", "passed bad/b", "failed bad: test crashed: it ended well after 2 of 3 checks", passes}, oneGuest: true},
		{name: "leaves in the midst", script: "echo 1..3; echo ok 1 a",
			want: []string{"passed bad/a", "failed bad: test crashed: it ended well after 1 of 3 checks", "not run bad: the checks behind", passes}, oneGuest: true},
		{name: "asks its host before it lists", script: `echo "# host: x"; read x; if grep -q list /proc/$$/cmdline; then echo one; echo two; elif grep -q two /proc/$$/cmdline; then echo 1..1; echo ok 1 two; else echo 1..2; exit 7; fi`,
			want: []string{"failed bad", "passed bad/two", passes}, oneGuest: true}, // "bad/one", where it has been asked before
		{name: "prints results of its own", script: "echo 1..2; echo not ok 7 x; echo ok 1 a; echo ok; echo not ok 1 a; echo ok 2 b",
			want: []string{"passed bad/a", "passed bad/b", passes}, oneGuest: true},
		{name: "skips", script: "echo 1..2; echo ok 1 a; echo '# no card'; echo 'ok 2 b # SKIP'", want: []string{"passed bad/a", "skipped bad/b: no card", passes}, oneGuest: true},
		{name: "is skipped", script: "echo '# no card'; exit 4", want: []string{"skipped bad: no card", passes}, oneGuest: true},
		{name: "no such program", script: "", want: []string{"failed bad: test crashed: the agent answered", passes}},
		{name: "dies of a signal", script: "echo 1..3; echo ok 1 a; kill -s 9 $$; sleep 5",
			want: []string{"passed bad/a", "failed bad: test crashed: killed by signal 9", "not run bad", passes}, oneGuest: true},
		{name: "powers off", script: "echo 1..3; echo ok 1 a; poweroff; sleep " + forever,
			want: []string{"passed bad/a", "failed bad: guest ended early: the guest ended by power off", "not run bad: the checks behind", passes}},
		// Behind a, it waits for its verdict, as ktap.h does: else the host may have the warning before that.
		{name: "a warning", script: `echo 1..2; echo ok 1 a; echo "# host: judged"; read x; echo "<4>WARNING: planted" > /dev/kmsg; echo ok 2 b`,
			want: []string{"passed bad/a", "failed bad/b: kernel report: the kernel's log says: [", passes}},
		{name: "a warning whenever it is run", script: `echo 1..2; echo "<4>WARNING: planted" > /dev/kmsg; echo ok 1 a; echo ok 2 b`,
			want: []string{"failed bad/a: kernel report: the kernel's log says: [", "not run bad: the checks behind", passes}},
		{name: "fails with a warning", script: `echo 1..1; echo "<4>WARNING: planted" > /dev/kmsg; echo not ok 1 b; false`,
			want: []string{"failed bad/b: kernel report: the kernel's log says: [", passes}},
		{name: "a panic", script: "echo 1..1; echo c > /proc/sysrq-trigger", want: []string{"failed bad: kernel panic: kernel panic: sysrq triggered crash", passes}},
		{name: "hangs", script: "echo 1..2; echo ok 1 a; sleep " + forever, silent: true,
			want: []string{"passed bad/a", "failed bad: hang in the test: no result after", passes}},
		{name: "the agent hangs", script: "echo 1..1; kill -s 19 $PPID; sleep " + forever, silent: true,
			want: []string{"failed bad: guest silent: no result after", passes}},
	} {
		t.Run(test.name, func(t *testing.T) {
			few := []string{"passes", "a warning", "powers off"}
			if newFrom != nil && engine != vmm.EngineSoft && !slices.Contains(few, test.name) {
				t.Skip("in the lab, where a base takes seconds, a few are enough")
			}
			dir := t.TempDir()
			// Of a silence, the end is the point.
			bootTime, testTime, boots := bootTime, bootTime, 0
			if test.silent {
				testTime = time.Second
			}
			if test.silent && test.words != "" {
				bootTime = 5 * time.Second
			}
			files := []initramfs.File{script("/tests/next", pass)}
			if test.script != "" {
				files = append(files, script("/tests/bad", test.script))
			}
			o := Options{
				Machine: func(serial [2]io.Writer) (*vmm.Machine, error) {
					boots++
					return tryLoad(dir, vmm.Config{Engine: engine, CPUs: 1, Memory: testMemory, Serial: serial}, kernel,
						KernelWords+" fifovm.cpus=1 fifovm.memory=512 "+test.words, files...)
				},
				Tests:    []string{"bad", "next"},
				BootTime: bootTime, TestTime: testTime, AnswerTime: bootTime,
			}
			if newFrom != nil {
				o.Jobs = 2
				o.From = func(b *vmm.Base, serial [2]io.Writer) (*vmm.Machine, error) {
					return newFrom(vmm.Config{Engine: engine, CPUs: 1, Serial: serial}, b)
				}
			}
			results, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			compareResults(t, results, test.want...)
			if (test.oneGuest || newFrom != nil) && boots != 1 {
				t.Errorf("%d boots", boots)
			}
		})
	}
}

// TestInterrupted: what was done when the run is interrupted is told, and what was
// not.
func TestInterrupted(t *testing.T) {
	engine := engine(t)
	kernel := defaultKernel(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	because := errors.New("planted")
	dir := t.TempDir()
	results, err := Run(ctx, Options{
		Machine: func(serial [2]io.Writer) (*vmm.Machine, error) {
			return tryLoad(dir, vmm.Config{Engine: engine, CPUs: 1, Memory: testMemory, Serial: serial}, kernel, KernelWords,
				script("/tests/good", pass), script("/tests/endless", "echo '# host: stop'; sleep "+forever))
		},
		Tests:    []string{"good", "endless", "good"},
		Host:     func(*DeviceHost) Host { return stopper{func() { cancel(because) }} },
		BootTime: bootTime, TestTime: bootTime, AnswerTime: bootTime,
	})
	if !errors.Is(err, because) {
		t.Errorf("error %v", err)
	}
	if len(results) < 2 || results[0].String() != "passed good/it" {
		t.Fatalf("%d results", len(results))
	}
	if last := results[len(results)-1]; last.String() != "not run good: interrupted" {
		t.Errorf("the last result: %s", last)
	}
}

// stopper is a host that does one thing.
type stopper struct{ stop func() }

func (s stopper) Do(string) (string, error) { s.stop(); return "", nil }
func (stopper) End() error                  { return nil }

// TestMove takes the state out of a Linux guest, puts it into a new machine over
// the same memory, and so on: at first while the kernel boots, then while a test
// computes on all CPUs, looks at the clocks and takes page faults. The guest
// must not notice.
func TestMove(t *testing.T) {
	engine := engine(t)
	stay := 100 * time.Millisecond // in a machine
	if engine == vmm.EngineSoft {
		stay = 10 * time.Millisecond // its guests have nothing to wait for
	}
	for _, cpus := range []int{1, 4} {
		t.Run(fmt.Sprintf("%dcpus", cpus), func(t *testing.T) {
			ram, err := memory.New(testMemory)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ram.Close() })
			s := newShell(t)
			cfg := vmm.Config{Engine: engine, CPUs: cpus, RAM: ram, Serial: [2]io.Writer{&s.console}}
			m := load(t, cfg, defaultKernel(t), fmt.Sprintf("console=ttyS0 panic=-1 loglevel=5 fifovm.cpus=%d", cpus))
			// move runs the guest for a while and moves it.
			move := func() {
				t.Helper()
				ctx, pause := context.WithTimeout(t.Context(), stay)
				defer pause()
				if stop := s.run(ctx, m)(); stop != vmm.Paused {
					t.Fatalf("the guest ended by %v; console:\n%s", stop, strings.Join(s.console.Tail(), "\n"))
				}
				state, err := m.State()
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Close(); err != nil {
					t.Fatal(err)
				}
				if m, err = vmm.New(cfg); err != nil {
					t.Fatal(err)
				}
				if err := m.SetState(state); err != nil {
					t.Fatal(err)
				}
			}
			for range 10 {
				move()
			}
			ctx, pause := context.WithCancel(t.Context())
			wait := s.run(ctx, m)
			s.expect("$ ")
			const end = "end of the work"
			if _, err := io.WriteString(s.input, "for i in 1 2 3 4 5; do /tests/boot; done | grep -c '^ok'; echo 'end of' the work\n"); err != nil {
				t.Fatal(err)
			}
			pause()
			wait()
			moves := 0
			for start := time.Now(); !s.has(end); moves++ {
				if time.Since(start) > bootTime {
					t.Fatalf("%q did not come; console:\n%s", end, strings.Join(s.console.Tail(), "\n"))
				}
				move()
			}
			t.Logf("moved %d times while the guest worked", moves)
			if moves < 5 {
				t.Error("that is too few to tell")
			}
			// Of 19 checks, memory is skipped, with an "ok" too.
			if !s.has(fmt.Sprintf("\n%d\r\n", 5*19)) {
				t.Errorf("not all checks passed; console:\n%s", strings.Join(s.console.Tail(), "\n"))
			}
			wait = s.run(t.Context(), m)
			s.command("grep -c ^processor /proc/cpuinfo", fmt.Sprintf("\n%d", cpus))
			s.powerOff(wait)
		})
	}
}
