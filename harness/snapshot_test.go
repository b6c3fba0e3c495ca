package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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
