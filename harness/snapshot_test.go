package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fifovm/device/edu"
	"fifovm/device/fault"
	"fifovm/device/fifo"
	"fifovm/vmm/snapshot"
	"fifovm/vmm/vmm"
)

// underLoad is what is typed at a guest that is saved and loaded: the driver
// moves data on all CPUs the whole time.
func underLoad() []vmm.Input {
	return []vmm.Input{{When: int64(4 * time.Second), Data: []byte(
		"/tests/fifo_io sizes large vectors order nonblock poll_states direct coalescing writers readers; poweroff\n")}}
}

// loadFaults hold the devices up, so that there is much under way at any moment,
// and break nothing that the driver does not bear. The last one never fires: it
// waits all the time.
const loadFaults = "seed=9; fifo/irq:delay=30us@every 7; fifo/dma.write:delay=10us@every 11; fifo/irq:dup@every 13; edu/device:reset@time 1000000s"

func loadDevices(t *testing.T) []vmm.Device {
	t.Helper()
	f, err := fifo.New(fifo.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return []vmm.Device{{Name: "edu", Model: edu.New(edu.Config{})}, {Name: "fifo", Model: f}}
}

// TestSnapshotIsExact: Linux, with the driver under load on 1 and 4 CPUs, is saved
// to a file and goes on from it in another machine at hundreds of random moments,
// and back from there by Reset, and ends as a run without: in the same state, to
// the last bit, and with the same console.
func TestSnapshotIsExact(t *testing.T) {
	needSoft(t)
	for _, cpus := range []int{1, 4} {
		t.Run(fmt.Sprintf("%dcpus", cpus), func(t *testing.T) {
			want, _ := savedRun(t, cpus, nil)
			if n := strings.Count(want.console, "\nok "); n != 10 {
				t.Fatalf("%d of 10 checks passed:\n%s", n, want.console)
			}
			seed := uint64(time.Now().UnixNano())
			t.Logf("moments of seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			const rounds = 2
			moments := 0
			for range rounds {
				got, n := savedRun(t, cpus, func() time.Duration { return time.Duration(random.IntN(int(80 * time.Millisecond))) })
				compare(t, fmt.Sprintf("saved and loaded %d times", n), got, want)
				moments += n
			}
			t.Logf("%d moments", moments)
			if moments < 15*rounds {
				t.Errorf("%d moments are too few", moments)
			}
		})
	}
}

// savedRun runs the guest to its end; after each pause it goes on from a file.
func savedRun(t *testing.T, cpus int, pause func() time.Duration) (o outcome, moments int) {
	t.Helper()
	var console strings.Builder
	cfg := vmm.Config{Engine: vmm.EngineSoft, CPUs: cpus, Memory: repeatableMemory, Seed: 5, Serial: [2]io.Writer{&console},
		Devices: loadDevices(t), Input: underLoad()}
	m, err := tryLoad("", cfg, filepath.Join(kernelDir, repeatableKernel), repeatableWords(cpus))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := fault.Parse(loadFaults)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Devices() {
		d.Inject(plan)
	}
	name := filepath.Join(t.TempDir(), "moment")
	start := time.Now()
	for pauses := 0; ; pauses++ {
		ctx, cancel := t.Context(), func() {}
		if pause != nil {
			ctx, cancel = context.WithTimeout(ctx, pause())
		}
		stop, err := m.Run(ctx)
		cancel()
		if err == nil && stop == vmm.Paused && time.Since(start) > bootTime {
			err = errors.New("the guest does not come to its end")
		}
		if err != nil {
			t.Fatalf("%v; console:\n%s", err, &console)
		}
		if stop != vmm.Paused {
			break
		}
		if m.Now() < int64(4*time.Second) && pauses%10 != 0 {
			continue // of the boot, some are enough
		}
		moments++
		if err := snapshot.Save(name, m, snapshot.Info{}); err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := snapshot.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if m, err = f.Machine(vmm.Config{Devices: loadDevices(t), Serial: cfg.Serial, Seed: cfg.Seed}); err != nil {
			t.Fatal(err)
		}
		if moments%2 == 0 {
			// What it does until then is undone.
			m.Flush(0)
			said := console.Len()
			ctx, cancel := context.WithTimeout(t.Context(), pause())
			_, err := m.Run(ctx)
			cancel()
			m.Flush(0)
			if err := errors.Join(err, m.Reset()); err != nil {
				t.Fatal(err)
			}
			before := console.String()[:said]
			console.Reset()
			console.WriteString(before)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if o.hash, err = m.Hash(); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	o.console = console.String()
	t.Logf("%.1f s, %d moments, state %.12s", time.Since(start).Seconds(), moments, o.hash)
	return o, moments
}

// TestRestoredUnderLoad: on each engine, Linux whose driver moves data is saved and
// goes on in another machine at random moments, and each time the test that was at it
// passes, and the kernel has nothing to say. With FIFOVM_TEST_LONG it is a hundred
// times, which takes a quarter of an hour in the lab.
func TestRestoredUnderLoad(t *testing.T) {
	const cpus, inFile = 2, 5 // each fifth time through a file
	name := engine(t)
	rounds := 7
	if os.Getenv("FIFOVM_TEST_LONG") != "" {
		rounds = 101
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("moments of seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := newShell(t)
	cfg := vmm.Config{Engine: name, CPUs: cpus, Memory: repeatableMemory, Seed: 5, Serial: [2]io.Writer{&s.console}, Devices: loadDevices(t)}
	m := load(t, cfg, defaultKernel(t), "console=ttyS0 panic=-1 loglevel=5 TERM=dumb")
	pause := s.start(m)
	defer func() { // whichever machine it is by then
		pause()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	s.expect("$ ")
	file := filepath.Join(t.TempDir(), "moment")
	var takes, spent time.Duration // what the test takes; what it took to go on elsewhere
	during := 0
	for round := range rounds {
		s.command(fmt.Sprintf("/tests/fifo_io order vectors; echo status $? of $((%d * 7))", round), "KTAP version 1")
		began := time.Now()
		end := fmt.Sprintf(" of %d\r\n", round*7)
		if round > 0 {
			time.Sleep(time.Duration(random.Int64N(int64(takes)))) // any moment will do
			if stop := pause(); stop != vmm.Paused {
				t.Fatalf("round %d: the guest ended by %v", round, stop)
			}
			if !s.has(end) {
				during++
			}
			began := time.Now()
			m = elsewhere(t, m, cfg, file, round%inFile == 0)
			spent += time.Since(began)
			pause = s.start(m)
		}
		if said := s.expect(end); !strings.HasSuffix(said, "status 0") {
			t.Fatalf("round %d: the test has failed:\n%s", round, said)
		}
		s.expect("$ ")
		if c := s.console.Complaint(); c != "" {
			t.Fatalf("round %d: the kernel complained: %s", round, c)
		}
		if round == 0 {
			takes = time.Since(began)
		}
	}
	t.Logf("the test takes %v; of %d moments %d were in it; to go on elsewhere took %v each time", takes, rounds-1, during, spent/time.Duration(rounds-1))
	if during < rounds/3 {
		t.Errorf("%d moments in the midst of the test are too few", during)
	}
	s.powerOff(func() vmm.Stop {
		select {
		case <-s.ended:
		case <-time.After(bootTime):
			t.Errorf("the guest's end did not come; console:\n%s", strings.Join(s.console.Tail(), "\n"))
		}
		return pause()
	})
}

// start has the machine run until pause is called, which tells how it has ended.
func (s *shell) start(m *vmm.Machine) (pause func() vmm.Stop) {
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan struct{})
	var stop vmm.Stop
	var err error
	s.input, s.ended = m.Serial(0), ended
	go func() {
		stop, err = m.Run(ctx)
		m.Flush(0)
		close(ended)
	}()
	return func() vmm.Stop {
		cancel()
		<-ended
		if err != nil {
			s.t.Errorf("%v; console:\n%s", err, strings.Join(s.console.Tail(), "\n"))
		}
		return stop
	}
}

// elsewhere gives another machine that is where m was, which it closes.
func elsewhere(t *testing.T, m *vmm.Machine, cfg vmm.Config, file string, inFile bool) *vmm.Machine {
	t.Helper()
	cfg.Devices = loadDevices(t)
	var other *vmm.Machine
	var from io.Closer
	var err error
	if inFile {
		if err := snapshot.Save(file, m, snapshot.Info{}); err != nil {
			t.Fatal(err)
		}
		f, err := snapshot.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Verify(t.Context()); err != nil {
			t.Fatal(err)
		}
		from = f
		other, err = f.Machine(cfg)
		if err != nil {
			t.Fatal(err)
		}
	} else {
		b, err := m.Base()
		if err != nil {
			t.Fatal(err)
		}
		from = b
		if other, err = vmm.NewFrom(cfg, b); err != nil {
			t.Fatal(err)
		}
	}
	if err = errors.Join(m.Close(), from.Close()); err != nil {
		t.Fatal(err)
	}
	return other
}
