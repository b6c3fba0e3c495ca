package vmm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"fifovm/device"
	"fifovm/device/fault"
	"fifovm/vmm/boot"
)

// bareFaults hold things up while the bare program runs, and break nothing that it
// does not bear.
const bareFaults = "seed=7; fifo/dma.write:delay=1us@every 3; edu/irq:delay=200ns@1; fifo/irq:dup@3"

// bareMemory is little, as each hash is of all of it.
const bareMemory = 16 << 20

// pauser calls pause at crossing number at of all devices.
type pauser struct {
	seen, at int
	pause    func()
}

func (p *pauser) Cross(c device.Crossing) {
	if c.Seq == 0 {
		return // what comes late has no number
	}
	if p.seen++; p.seen == p.at {
		p.pause()
	}
}

// bareMachine is one with the bare program, not yet run; nil RAM is fresh.
func bareMachine(t *testing.T, seed uint64, console io.Writer) (Config, *Machine) {
	t.Helper()
	cfg := Config{Engine: EngineSoft, CPUs: bareCPUs, Memory: bareMemory, Seed: seed, Devices: bareDevices(t), Serial: [2]io.Writer{console}}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	k, err := boot.Parse(buildBare(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Load(Boot{Kernel: k}); err != nil {
		t.Fatal(err)
	}
	p, err := fault.Parse(bareFaults)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Devices() {
		d.Inject(p)
	}
	return cfg, m
}

// toEnd runs a machine to its end and gives its final state's hash.
func toEnd(t *testing.T, m *Machine) string {
	t.Helper()
	if stop, err := m.Run(t.Context()); stop != PowerOff || err != nil {
		t.Fatalf("Run gives %v, %v, want a power off", stop, err)
	}
	h, err := m.Hash()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func closeMachine(t *testing.T, m *Machine) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestBaseIsExact: whatever the moment of a base, what begins there and what goes
// back there ends as a run without it: with two CPUs, in the midst of DMA, with
// interrupts under way and faults armed.
func TestBaseIsExact(t *testing.T) {
	_, m := bareMachine(t, 1, nil)
	var all pauser
	for _, d := range m.Devices() {
		d.Trace(&all)
	}
	want := toEnd(t, m)
	for _, p := range m.Plans() {
		for _, c := range p.Fired() {
			t.Logf("%s: fired %d times", c.Fault, c.Fired)
			if c.Fired == 0 {
				t.Errorf("the fault %s has not fired: the test does not show much", c.Fault)
			}
		}
	}
	closeMachine(t, m)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("%d crossings; moments of seed %d", all.seen, seed)
	moments := 200
	if testing.Short() {
		moments = 20
	}
	var queued, events, pending, dirty int
	for i := range moments {
		cfg, m := bareMachine(t, 1, nil)
		ctx, cancel := context.WithCancel(t.Context())
		p := &pauser{at: 1 + random.IntN(all.seen), pause: func() {
			cancel()
			m.engine.Stop()
		}}
		for _, d := range m.Devices() {
			d.Trace(p)
		}
		stop, err := m.Run(ctx)
		cancel()
		if stop != Paused || err != nil {
			t.Fatalf("crossing %d: Run gives %v, %v, want a pause", p.at, stop, err)
		}
		// From here on it is not in the midst of an instruction of the devices' only.
		if i%2 == 1 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(int(100*time.Microsecond))))
			stop, err := m.Run(ctx)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if stop != Paused {
				closeMachine(t, m)
				continue
			}
		}
		b, err := m.Base()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range b.State.Devices {
			queued += min(len(d.Boundary.Queue), 1)
		}
		events += min(len(b.State.Clock.Events), 1)
		if b.State.CPU.IOAPIC.IRR != 0 {
			pending++
		}
		at := fmt.Sprintf("base %d at %d ns", i, b.State.Now)
		cfg.Devices = bareDevices(t)
		other, err := NewFrom(cfg, b)
		if err != nil {
			t.Fatal(err)
		}
		for round := range 2 {
			for name, x := range map[string]*Machine{"the machine": m, "another": other} {
				if got := toEnd(t, x); got != want {
					t.Fatalf("%s: %s, round %d: the final state is another", at, name, round)
				}
				dirty += x.Dirty()
				if err := x.Reset(); err != nil {
					t.Fatal(err)
				}
			}
		}
		// Not a byte is missing: what a reset leaves is what is in the image.
		for _, x := range []*Machine{m, other} {
			fresh, err := b.RAM.NewRAM()
			if err != nil {
				t.Fatal(err)
			}
			for k, s := range x.RAM().Slots() {
				if string(s.Bytes) != string(fresh.Slots()[k].Bytes) {
					t.Fatalf("%s: after a reset the memory is another", at)
				}
			}
			if err := fresh.Close(); err != nil {
				t.Fatal(err)
			}
		}
		closeMachine(t, m)
		closeMachine(t, other)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d moments: %d devices with late crossings, %d with events, %d with lines up; %d pages dirty a run", moments, queued, events, pending, dirty/(4*moments))
	if !testing.Short() && (queued == 0 || events == 0) {
		t.Error("the moments were not good ones")
	}
}

// TestResetsLeakNothing makes thousands of them.
func TestResetsLeakNothing(t *testing.T) {
	_, m := bareMachine(t, 1, nil)
	defer closeMachine(t, m)
	b, err := m.Base()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	resets := 10_000
	if testing.Short() {
		resets = 500
	}
	// What is left after the first ones is what they need.
	var before usage
	for i := range resets {
		ctx, cancel := context.WithCancel(t.Context())
		if i%10 == 0 {
			ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		} else {
			cancel() // it does not run
		}
		if i%10 != 0 {
			// The guest's part of a run, made short: any bytes.
			for page := range uint64(50) {
				if err := m.RAM().Write(page*0x3000+uint64(i%4096), []byte{byte(i)}); err != nil {
					t.Fatal(err)
				}
			}
		} else if _, err := m.Run(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := m.Reset(); err != nil {
			t.Fatal(err)
		}
		if i == resets/10 {
			before = measure(t)
		}
	}
	after := measure(t)
	t.Logf("before %+v, after %+v", before, after)
	if after.files != before.files || after.goroutines > before.goroutines || after.heap > before.heap+1<<20 || after.resident > before.resident+8<<20 {
		t.Errorf("%d resets: %+v has become %+v", resets, before, after)
	}
}

// usage is what a process holds.
type usage struct {
	files, goroutines int
	heap, resident    uint64 // bytes
}

func measure(t *testing.T) (u usage) {
	t.Helper()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	u.heap, u.goroutines = s.HeapAlloc, runtime.NumGoroutine()
	if runtime.GOOS != "linux" {
		return u
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	u.files = len(fds)
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident uint64
	if _, err := fmt.Fscan(strings.NewReader(string(b)), &size, &resident); err != nil {
		t.Fatal(err)
	}
	u.resident = resident * uint64(os.Getpagesize())
	return u
}

// TestResetWithoutBase is refused.
func TestResetWithoutBase(t *testing.T) {
	m := machine(t, Config{Engine: EngineSoft})
	if err := m.Reset(); err == nil {
		t.Error("a machine without a base is reset")
	}
}

// TestResetEndsWrites: what the host was about to send to a guest does not get to the
// one after the reset.
func TestResetEndsWrites(t *testing.T) { onEngines(t, testResetEndsWrites) }

func testResetEndsWrites(t *testing.T, engine string) {
	console := newTranscript()
	m := machine(t, Config{Engine: engine, Serial: [2]io.Writer{console}})
	load(t, m, "")
	until(t, m, console, "ready", nil)
	b, err := m.Base()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	old := m.Serial(0)
	written := make(chan error, 1)
	go func() {
		_, err := old.Write(bytes.Repeat([]byte("X"), 1000)) // more than there is room for
		written <- err
	}()
	for taken := false; !taken; { // nothing tells of a write that waits
		m.Do(func() {
			_, taken = m.clock.Pending(inputOwner, inputLive)
			taken = taken || m.serial[0].uart.Room() == 0
		})
	}
	if err := m.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := <-written; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the write that waited gives %v, want %v", err, io.ErrClosedPipe)
	}
	if _, err := old.Write([]byte("X")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a write to the guest before gives %v, want %v", err, io.ErrClosedPipe)
	}
	if err := old.Break(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a break gives %v, want %v", err, io.ErrClosedPipe)
	}
	until(t, m, console, "A", []byte("A"))
	if strings.Contains(console.String(), "X") {
		t.Errorf("the guest after the reset got what the one before was to get: %q", console)
	}
}

// failing is a writer that can't.
type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestSetSerial: each writer gets what was sent while it was there, one that fails
// not being in the way of the next.
func TestSetSerial(t *testing.T) {
	first, second := newTranscript(), newTranscript()
	m := machine(t, Config{Engine: EngineSoft, Serial: [2]io.Writer{first}})
	load(t, m, "")
	until(t, m, first, "ready", nil)
	if err := m.SetSerial(0, second); err != nil {
		t.Fatal(err)
	}
	until(t, m, second, "A", []byte("A"))
	broken := errors.New("it is broken")
	if err := m.SetSerial(0, failing{broken}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := m.Run(ctx)
		done <- err
	}()
	if _, err := m.Serial(0).Write([]byte("BBBBBBBBBBBBBBBBBBBBBBBB")); err != nil { // not all at once: some is answered
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := m.SetSerial(0, second); !errors.Is(err, broken) {
		t.Errorf("the error of the writer before is %v, want %v", err, broken)
	}
	until(t, m, second, "C", []byte("C"))
	if f, s := strings.TrimSpace(first.String()), strings.Trim(second.String(), "B"); f != "ready" || s != "AC" && !strings.HasPrefix(s, "A") {
		t.Errorf("the first got %q, the second %q", f, s)
	}
	if err := m.SetSerial(0, nil); err != nil {
		t.Error(err)
	}
}

// TestReseed: from one base, a seed decides what becomes of it.
func TestReseed(t *testing.T) {
	_, m := bareMachine(t, 1, nil)
	defer closeMachine(t, m)
	b, err := m.Base()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ends := map[uint64]string{}
	for _, seed := range []uint64{2, 3, 2, 3, 2} {
		if err := m.Reset(); err != nil {
			t.Fatal(err)
		}
		m.Reseed(seed)
		h := toEnd(t, m)
		if ends[seed] != "" && ends[seed] != h {
			t.Errorf("seed %d: the final state is another than the first time", seed)
		}
		ends[seed] = h
	}
	if ends[2] == ends[3] {
		t.Error("two seeds end in the same state")
	}
}

// BenchmarkReset is a reset after so many dirty pages.
func BenchmarkReset(b *testing.B) {
	for _, pages := range []int{0, 100, 1000, 10000} {
		b.Run(fmt.Sprint(pages), func(b *testing.B) {
			cfg := Config{Engine: EngineSoft, CPUs: 2, Memory: testMemory, Seed: 1}
			m, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			base, err := m.Base()
			if err != nil {
				b.Fatal(err)
			}
			defer base.Close()
			for b.Loop() {
				b.StopTimer()
				for p := range pages {
					if err := m.RAM().Write(uint64(p)*4096, []byte{1}); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				if err := m.Reset(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestResetAnswers: on each engine a guest that goes back to its base, and one that
// begins there, answer as the first time, and what they wrote to memory is undone.
func TestResetAnswers(t *testing.T) { onEngines(t, testResetAnswers) }

func testResetAnswers(t *testing.T, engine string) {
	console := newTranscript()
	cfg := Config{Engine: engine, Serial: [2]io.Writer{console}}
	m := machine(t, cfg)
	load(t, m, "")
	until(t, m, console, "ready", nil)
	b, err := m.Base()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	cfg.CPUs = 1
	other, err := NewFrom(cfg, b)
	if err != nil {
		t.Fatal(err)
	}
	defer closeMachine(t, other)
	image, err := b.RAM.NewRAM()
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	const letters = "0123456789ABCDEFGHIJ"
	for i := range letters {
		x := []*Machine{m, other}[i%2]
		until(t, x, console, letters[i:i+1], []byte(letters[i:i+1]))
		// A device has written as well, and the guest's stack is another.
		if err := x.RAM().Write(uint64(i)*0x10001, []byte{0xee}); err != nil {
			t.Fatal(err)
		}
		if string(x.RAM().Slots()[0].Bytes) == string(image.Slots()[0].Bytes) {
			t.Fatal("nothing has changed")
		}
		if err := x.Reset(); err != nil {
			t.Fatal(err)
		}
		if string(x.RAM().Slots()[0].Bytes) != string(image.Slots()[0].Bytes) {
			t.Fatalf("after reset %d the memory is another", i)
		}
	}
}

// TestResetMemory: on each engine, all that a guest and its devices have written in
// a whole run is undone, and it runs again.
func TestResetMemory(t *testing.T) { onEngines(t, testResetMemory) }

func testResetMemory(t *testing.T, engine string) {
	k, err := boot.Parse(buildBare(t))
	if err != nil {
		t.Fatal(err)
	}
	m := machine(t, Config{Engine: engine, CPUs: bareCPUs, Devices: bareDevices(t)})
	if err := m.Load(Boot{Kernel: k}); err != nil {
		t.Fatal(err)
	}
	b, err := m.Base()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	image, err := b.RAM.NewRAM()
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	for i := range 3 {
		if stop, err := m.Run(t.Context()); stop != PowerOff || err != nil {
			t.Fatalf("run %d gives %v, %v, want a power off", i, stop, err)
		}
		if string(m.RAM().Slots()[0].Bytes) == string(image.Slots()[0].Bytes) {
			t.Fatal("nothing has changed")
		}
		if err := m.Reset(); err != nil {
			t.Fatal(err)
		}
		now := m.RAM().Slots()[0].Bytes
		for at, v := range image.Slots()[0].Bytes {
			if now[at] != v {
				t.Fatalf("after reset %d the byte at %#x is %#x, in the base %#x", i, at, now[at], v)
			}
		}
	}
}

// until runs a machine until its guest has printed a text, with some input.
func until(t *testing.T, m *Machine, console *transcript, text string, input []byte) {
	t.Helper()
	ctx, pause := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		stop, err := m.Run(ctx)
		if err == nil && stop != Paused {
			err = fmt.Errorf("the guest ended by %v", stop)
		}
		done <- err
	}()
	if len(input) > 0 {
		if _, err := m.Serial(0).Write(input); err != nil {
			t.Fatal(err)
		}
	}
	console.wait(text)
	pause()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
