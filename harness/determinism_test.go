package harness

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fifovm/vmm/memory"
	"fifovm/vmm/vmm"
)

// repeatableKernel boots in each run of the tests here.
const repeatableKernel = "6.12/vmlinux"

const repeatableMemory = 256 << 20

func repeatableWords(cpus int) string {
	return fmt.Sprintf("console=ttyS0 panic=-1 loglevel=7 fifovm.cpus=%d", cpus)
}

// session is what is typed at a guest with that many CPUs: the guest waits at
// each prompt before, and is busy while the last line comes.
func session(cpus int) []vmm.Input {
	var inputs []vmm.Input
	for i, line := range []string{
		"echo six times seven is $((6 * 7))",
		"ls -l /dev /proc/self | md5sum; ps",
		"for i in 1 2; do /tests/boot; done; grep -c ^processor /proc/cpuinfo; cat /proc/interrupts /proc/stat",
		"date; dmesg | tail -n 3",
		"poweroff",
	} {
		when := 4*time.Second + time.Duration(i)*100*time.Millisecond
		inputs = append(inputs, vmm.Input{When: int64(when) + int64(i*cpus), Data: []byte(line + "\n")})
	}
	return inputs
}

// outcome is what came of a run.
type outcome struct {
	console string
	hash    string // of the machine's final state
	memory  [sha256.Size]byte
	retired int64
}

// compare reports in what two runs differ that should be the same.
func compare(t *testing.T, what string, got, want outcome) {
	t.Helper()
	g, w := strings.Split(got.console, "\n"), strings.Split(want.console, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Errorf("%s: the console's line %d is\n%q, without\n%q", what, i+1, g[i], w[i])
			break
		}
	}
	if len(g) != len(w) {
		t.Errorf("%s: the console has %d lines, without %d", what, len(g), len(w))
	}
	if got.hash != want.hash {
		t.Errorf("%s: the final state is another", what)
	}
}

// compareLines reports the lines in which two texts differ.
func compareLines(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Errorf("line %d is\n%q, on this machine\n%q", i+1, g[i], w[i])
		}
	}
	if len(g) != len(w) {
		t.Errorf("%d lines, on this machine %d; the last is %q", len(g), len(w), g[len(g)-1])
	}
}

// repeatable is a guest on the soft engine whose runs are to be the same.
type repeatable struct {
	*testing.T
	cpus  int
	seed  uint64
	pause func() time.Duration // how long the guest runs at a stretch; nil: to its end
	move  bool                 // it goes on in another machine after each pause
}

// run runs the guest to its end.
func (r repeatable) run(inputs []vmm.Input) outcome {
	r.Helper()
	ram, err := memory.New(repeatableMemory)
	if err != nil {
		r.Fatal(err)
	}
	defer ram.Close()
	var console strings.Builder
	cfg := vmm.Config{Engine: vmm.EngineSoft, CPUs: r.cpus, RAM: ram, Seed: r.seed, Serial: [2]io.Writer{&console}, Input: inputs}
	m, err := tryLoad("", cfg, filepath.Join(kernelDir, repeatableKernel), repeatableWords(r.cpus))
	if err != nil {
		r.Fatal(err)
	}
	cfg.WallClock, cfg.Input = softWallClock, nil
	start, pauses := time.Now(), 0
	var retired int64
	count := func() {
		n, _ := m.Retired()
		retired += n
	}
	for {
		ctx, cancel := r.Context(), func() {}
		if r.pause != nil {
			ctx, cancel = context.WithTimeout(ctx, r.pause())
		}
		stop, err := m.Run(ctx)
		cancel()
		if err == nil && stop == vmm.Paused && time.Since(start) > bootTime {
			err = errors.New("the guest does not come to its end")
		}
		if err != nil {
			r.Fatalf("%v; console:\n%s", err, &console)
		}
		if stop != vmm.Paused {
			break
		}
		pauses++
		if !r.move {
			continue
		}
		s, err := m.State()
		if err != nil {
			r.Fatal(err)
		}
		count()
		if err := m.Close(); err != nil {
			r.Fatal(err)
		}
		if m, err = vmm.New(cfg); err != nil {
			r.Fatal(err)
		}
		if err := m.SetState(s); err != nil {
			r.Fatal(err)
		}
	}
	if r.pause != nil && pauses < 20 {
		r.Errorf("%d pauses are too few to tell", pauses)
	}
	count()
	o := outcome{memory: sum(ram), retired: retired}
	if o.hash, err = m.Hash(); err != nil {
		r.Fatal(err)
	}
	if err := m.Close(); err != nil {
		r.Fatal(err)
	}
	o.console = console.String()
	r.Logf("%.1f s, %d instructions, %d pauses, state %.12s", time.Since(start).Seconds(), retired, pauses, o.hash)
	return o
}

func sum(ram *memory.RAM) (digest [sha256.Size]byte) {
	h := sha256.New()
	for _, s := range ram.Slots() {
		h.Write(s.Bytes)
	}
	h.Sum(digest[:0])
	return digest
}

// keepBusy keeps the host's processors busy until the test ends.
func keepBusy(t *testing.T) {
	done := make(chan struct{})
	var wait sync.WaitGroup
	for range runtime.NumCPU() {
		wait.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	t.Cleanup(func() {
		close(done)
		wait.Wait()
	})
}

// TestDeterminism: the same kernel, image, input and seed give the same run, to
// the last bit of the final state, whatever else the host does and wherever the
// run is paused or goes on in another machine.
func TestDeterminism(t *testing.T) {
	needSoft(t)
	for _, cpus := range []int{1, 4} {
		t.Run(fmt.Sprintf("%dcpus", cpus), func(t *testing.T) {
			r := repeatable{T: t, cpus: cpus, seed: 1}
			inputs := session(cpus)
			want := r.run(inputs)
			checkSession(t, want, cpus)
			compare(t, "again", r.run(inputs), want)
			random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
			r.pause = func() time.Duration { return time.Duration(random.IntN(int(20 * time.Millisecond))) }
			t.Run("busy", func(t *testing.T) {
				keepBusy(t)
				r := r
				r.T = t
				compare(t, "on a busy host, with pauses", r.run(inputs), want)
			})
			r.move = true
			compare(t, "moved", r.run(inputs), want)
			if cpus == 1 {
				return
			}
			r.pause, r.move, r.seed = nil, false, 2
			other := r.run(inputs)
			if other.memory == want.memory || other.retired == want.retired {
				t.Error("another seed gives the same run")
			}
		})
	}
}

// checkSession: what was typed has been done.
func checkSession(t *testing.T, o outcome, cpus int) {
	t.Helper()
	for text, times := range map[string]int{
		"seven is 42\r\n":               1,
		"ok 19 kernel_log\r\n":          2,
		fmt.Sprintf("\r\n%d\r\n", cpus): 1,
		"reboot: Power down\r\n":        1,
	} {
		if n := strings.Count(o.console, text); n != times {
			t.Errorf("%q comes %d times, want %d; console:\n%s", text, n, times, o.console)
		}
	}
}

// TestRecording: a guest that a person talks to, at the host's pace, is recorded,
// and the recording played back at the guest's own pace is the same run.
func TestRecording(t *testing.T) {
	needSoft(t)
	for _, cpus := range []int{1, 4} {
		t.Run(fmt.Sprintf("%dcpus", cpus), func(t *testing.T) {
			s := newShell(t)
			var all strings.Builder
			s.console.Output = io.MultiWriter(s, &all)
			var inputs []vmm.Input // under the machine's lock
			m := load(t, vmm.Config{Engine: vmm.EngineSoft, Paced: true, CPUs: cpus, Memory: repeatableMemory, Seed: 1,
				Serial: [2]io.Writer{&s.console}, OnInput: func(in vmm.Input) { inputs = append(inputs, in) }},
				filepath.Join(kernelDir, repeatableKernel), repeatableWords(cpus))
			wait := s.run(t.Context(), m)
			s.expect("Setting console log level")
			s.expect("$ ")
			s.command("echo six times seven is $((6 * 7))", "seven is 42")
			time.Sleep(50 * time.Millisecond) // a person who thinks
			s.command("sleep 0.1; seq 1000 | md5sum", "53d025127ae99ab79e8502aae2d9bea6")
			s.powerOff(wait)
			m.Flush(0)
			hash, err := m.Hash()
			if err != nil {
				t.Fatal(err)
			}
			live := outcome{console: all.String(), hash: hash}
			played := repeatable{T: t, cpus: cpus, seed: 1}.run(inputs)
			compare(t, "played back", played, live)
		})
	}
}

// needSoft skips a test of what only the soft engine does, where another is to
// be tested.
func needSoft(t *testing.T) {
	t.Helper()
	if name := engine(t); name != vmm.EngineSoft {
		t.Skipf("runs on engine %s are not repeatable", name)
	}
	if !slices.Contains(kernels(t), repeatableKernel) {
		t.Skipf("no kernel %s: run `make kernel`", repeatableKernel)
	}
}
