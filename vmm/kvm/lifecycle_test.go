//go:build linux && amd64

package kvm

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fifovm/vmm/bus"
	"fifovm/vmm/clock"
	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

// usage is what the process holds.
type usage struct {
	fds, goroutines    int
	cpus               int // threads that are a CPU's
	threads            int // all
	rss, virtual, heap int // KiB
}

func (u usage) String() string {
	return fmt.Sprintf("%d fds, %d goroutines, %d CPU threads, %d threads; KiB: %d resident, %d virtual, %d heap",
		u.fds, u.goroutines, u.cpus, u.threads, u.rss, u.virtual, u.heap)
}

// measure takes the usage after everything that ends by itself has ended.
func measure(t *testing.T) usage {
	t.Helper()
	debug.FreeOSMemory()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage{fds: len(fds), goroutines: runtime.NumGoroutine(), heap: int(m.HeapAlloc >> 10)}
	names, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if b, _ := os.ReadFile(name); strings.HasPrefix(string(b), threadName) { // it may have ended
			u.cpus++
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.Atoi(f[1])
		switch f[0] {
		case "Threads:":
			u.threads = n
		case "VmRSS:":
			u.rss = n
		case "VmSize:":
			u.virtual = n
		}
	}
	return u
}

// settle measures until the counts are at most those of before, since a
// thread's end takes a moment after its goroutine's, or until it is clear that
// they won't be.
func settle(t *testing.T, before usage) usage {
	t.Helper()
	var u usage
	for range 100 {
		if u = measure(t); u.fds <= before.fds && u.cpus <= before.cpus && u.goroutines <= before.goroutines {
			return u
		}
		time.Sleep(20 * time.Millisecond)
	}
	return u
}

// idleThreads is how many threads more than before Go's runtime may keep: those
// that were in a system call at once by chance. It reuses them.
const idleThreads = 10

// noLeak calls cycle warm times, then n times, and compares what the process
// holds.
func noLeak(t *testing.T, warm, n int, cycle func() error) {
	t.Helper()
	repeat := func(n int) {
		for i := range n {
			if err := cycle(); err != nil {
				t.Fatalf("cycle %d: %v", i, err)
			}
		}
	}
	repeat(warm)
	time.Sleep(50 * time.Millisecond)
	before := measure(t)
	repeat(n)
	after := settle(t, before)
	t.Logf("before: %v", before)
	t.Logf("after %d cycles: %v", n, after)
	if after.fds > before.fds || after.goroutines > before.goroutines || after.cpus > before.cpus || after.threads > before.threads+idleThreads {
		t.Errorf("after %d cycles the process holds %v, before %v", n, after, before)
	}
	// A leak of one page a cycle would be n*4 KiB.
	const heap, resident = 1 << 10, 3 << 10
	virtual := 3 << 10
	if raceDetector {
		virtual = 32 << 10 // it keeps shadows of what was mapped
	}
	if after.heap > before.heap+heap || after.rss > before.rss+resident || after.virtual > before.virtual+virtual {
		t.Errorf("after %d cycles the process's memory is %v, before %v", n, after, before)
	}
}

// tinyMachine makes, runs and destroys a ring-0 guest with an MSI vector and a
// doorbell.
func tinyMachine(cpus int) (err error) {
	ram, err := memory.New(64 << 10)
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, ram.Close()) }()
	var lock sync.Mutex
	ended := new(stopwatch)
	cfg := Config{CPUs: cpus, RAM: ram, Ports: bus.NewPorts(), MMIO: bus.NewMMIO(), Clock: clock.New(clock.NewHost()), Lock: &lock}
	if err := cfg.Ports.Map(probePort, 1, "end", ended); err != nil {
		return err
	}
	e, err := New(cfg)
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, e.Close()) }()
	v, err := e.NewVector()
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, v.Close()) }()
	d, err := e.NewDoorbell(testMMIO, 4, func() {})
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, d.Close()) }()
	if err := firstOf(v.Route(msiAtCPU0, 0x50), ram.Write(probeTables, x86.IdentityMap(probeTables, 1, true)), ram.Write(probeCode, probeProgram)); err != nil {
		return err
	}
	s := x86.PowerOn(cpus)
	c := &s.CPUs[0]
	c.LongMode(probeTables, 0)
	c.RIP, c.GPR[x86.RCX] = probeCode, 10
	if err := e.SetState(s); err != nil {
		return err
	}
	ctx, cancel := contextWithPatience()
	defer cancel()
	ended.stop = cancel
	if err := e.Run(ctx); err != nil {
		return err
	}
	if len(ended.times) != 2 {
		return fmt.Errorf("the guest wrote %d times, want 2", len(ended.times))
	}
	_, err = e.State()
	return err
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestThousandCycles is the issue's: 1,000 times create, run, destroy.
func TestThousandCycles(t *testing.T) {
	needKVM(t)
	n := 1000
	if testing.Short() {
		n = 50
	}
	noLeak(t, 20, n, func() error { return tinyMachine(1) })
}

func TestCyclesOfFourCPUs(t *testing.T) {
	needKVM(t)
	noLeak(t, 10, 30, func() error { return tinyMachine(4) })
}

// TestErrorPathsDoNotLeak makes New, NewVector and NewDoorbell fail at each
// file descriptor that they need, and at a capability.
func TestErrorPathsDoNotLeak(t *testing.T) {
	needKVM(t)
	failed := map[int]int{}
	noLeak(t, 2, 20, func() error {
		for room := range 8 {
			switch err := withFDs(room, func() error { return tinyMachine(2) }); {
			case err == nil:
				if room < 6 {
					return fmt.Errorf("a machine of 2 CPUs needs only %d file descriptors", room)
				}
			default:
				failed[room]++
			}
		}
		return nil
	})
	for room := range 6 {
		if failed[room] == 0 {
			t.Errorf("nothing failed with %d file descriptors", room)
		}
	}
	noLeak(t, 10, 100, func() error {
		_, err := New(Config{Device: "/dev/null", CPUs: 1})
		if err == nil {
			return fmt.Errorf("/dev/null is not KVM")
		}
		return nil
	})
	needed = append(needed, needed[0])
	needed[len(needed)-1].cap = 254 // there is none
	defer func() { needed = needed[:len(needed)-1] }()
	noLeak(t, 10, 100, func() error {
		if err := tinyMachine(1); err == nil {
			return fmt.Errorf("a machine was made on a KVM that lacks something")
		}
		return nil
	})
}

// withFDs calls f with only so many more file descriptors to be had.
func withFDs(room int, f func() error) error {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		return err
	}
	next, err := unix.Dup(0) // the lowest free one
	if err != nil {
		return err
	}
	_ = unix.Close(next)
	limit := old
	limit.Cur = uint64(next + room)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	err = f()
	return firstOf(unix.Setrlimit(unix.RLIMIT_NOFILE, &old), err)
}
