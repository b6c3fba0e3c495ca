package vmm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"fifovm/vmm/boot"
	"fifovm/vmm/boot/tiny"
	"fifovm/vmm/kvm"
	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

const testMemory = 64 << 20

// transcript is what a guest printed, and a way to wait for it.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
	grew chan struct{}
}

func newTranscript() *transcript { return &transcript{grew: make(chan struct{}, 1)} }

func (c *transcript) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.text.Write(p)
	c.mu.Unlock()
	select {
	case c.grew <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (c *transcript) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// wait blocks until the guest has printed text; the test's own deadline ends a
// wait in vain.
func (c *transcript) wait(text string) {
	for !strings.Contains(c.String(), text) {
		<-c.grew
	}
}

// onEngines runs a test on each engine. Where there is no KVM, the test of it is
// skipped.
func onEngines(t *testing.T, test func(t *testing.T, engine string)) {
	for _, engine := range []string{EngineKVM, EngineSoft} {
		t.Run(engine, func(t *testing.T) { test(t, engine) })
	}
}

// machine is a fresh machine.
func machine(t *testing.T, cfg Config) *Machine {
	t.Helper()
	if cfg.CPUs == 0 {
		cfg.CPUs = 1
	}
	if cfg.RAM == nil {
		cfg.Memory = testMemory
	}
	m, err := New(cfg)
	if errors.Is(err, kvm.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// load loads the tiny kernel with a script.
func load(t *testing.T, m *Machine, script string) {
	t.Helper()
	k, err := boot.Parse(tiny.Kernel(script))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Load(Boot{Kernel: k}); err != nil {
		t.Fatal(err)
	}
}

func TestEndings(t *testing.T) { onEngines(t, testEndings) }

func testEndings(t *testing.T, engine string) {
	for script, want := range map[string]Stop{"p": PowerOff, "r": Reset} {
		m := machine(t, Config{Engine: engine})
		load(t, m, script)
		if stop, err := m.Run(t.Context()); stop != want || err != nil {
			t.Errorf("script %q: Run gives %v, %v, want %v", script, stop, err, want)
		}
	}
	m := machine(t, Config{Engine: engine})
	load(t, m, "t")
	_, err := m.Run(t.Context())
	var stuck *x86.Stuck
	if !errors.Is(err, x86.ErrTripleFault) || !errors.As(err, &stuck) || stuck.Registers == nil {
		t.Errorf("Run gives %v, want a triple fault with registers", err)
	}
}

// TestMove moves a guest from machine to machine in the midst of a
// conversation: what it is told on one it answers on that or on the next.
func TestMove(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) { testMove(t, engine, engine) })
	t.Run("both", func(t *testing.T) { testMove(t, EngineKVM, EngineSoft) })
}

// testMove moves between two engines in turn.
func testMove(t *testing.T, engines ...string) {
	ram, err := memory.New(testMemory)
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	console := newTranscript()
	cfg := Config{Engine: engines[0], RAM: ram, Serial: [2]io.Writer{console}}
	m := machine(t, cfg)
	load(t, m, "")
	want := "ready"
	// None of them is a command, or in what the guest prints by itself.
	const letters = "0123456789ABCDEFGHIJ"
	for i := range letters {
		ctx, pause := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			stop, err := m.Run(ctx)
			if err == nil && stop != Paused {
				err = errors.New("the guest ended by " + stop.String())
			}
			done <- err
		}()
		console.wait(want)
		letter := letters[i : i+1]
		if _, err := io.WriteString(m.Serial(0), letter); err != nil {
			t.Fatal(err)
		}
		// The pause comes at any moment of the answer.
		pause()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want = letter // each comes once
		s, err := m.State()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil { // all that was printed is in console
			t.Fatal(err)
		}
		cfg.Engine = engines[(i+1)%len(engines)]
		m = machine(t, cfg)
		if err := m.SetState(s); err != nil {
			t.Fatal(err)
		}
	}
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(m.Serial(0), "p")
		written <- err
	}()
	if stop, err := m.Run(t.Context()); stop != PowerOff || err != nil {
		t.Fatalf("Run gives %v, %v, want a power off", stop, err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, answers, _ := strings.Cut(console.String(), "ready"); strings.TrimSpace(answers) != letters {
		t.Errorf("the guest answered %q", answers)
	}
}

// stuckWriter takes nothing until it is released.
type stuckWriter struct{ release chan struct{} }

func (w *stuckWriter) Write(p []byte) (int, error) {
	<-w.release
	return len(p), nil
}

// TestSlowOutput has a guest flood a console that nobody reads: it must wait,
// and yet stop when it is told to.
func TestSlowOutput(t *testing.T) { onEngines(t, testSlowOutput) }

func testSlowOutput(t *testing.T, engine string) {
	w := &stuckWriter{release: make(chan struct{})}
	m := machine(t, Config{Engine: engine, Serial: [2]io.Writer{w}})
	load(t, m, "f")
	ctx, pause := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		if stop, err := m.Run(ctx); stop != Paused || err != nil {
			t.Errorf("Run gives %v, %v, want a pause", stop, err)
		}
		close(done)
	}()
	out := m.serial[0].out
	full := func() bool {
		out.mu.Lock()
		defer out.mu.Unlock()
		return len(out.buf) >= outputLimit
	}
	for !full() {
		time.Sleep(time.Millisecond) // nothing tells of a guest that waits
	}
	pause()
	<-done
	out.mu.Lock()
	if n := len(out.buf); n > outputLimit+16 {
		t.Errorf("%d bytes wait for the writer, the limit is %d", n, outputLimit)
	}
	out.mu.Unlock()
	close(w.release)
}

// TestClosedSerial ends a write that the guest would never take.
func TestClosedSerial(t *testing.T) { onEngines(t, testClosedSerial) }

func testClosedSerial(t *testing.T, engine string) {
	m := machine(t, Config{Engine: engine})
	load(t, m, "d")
	ctx, pause := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() {
		_, _ = m.Run(ctx)
		close(ran)
	}()
	written := make(chan error, 1)
	go func() {
		_, err := m.Serial(0).Write(bytes.Repeat([]byte("x"), 100))
		written <- err
	}()
	pause()
	<-ran
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-written; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Write gives %v, want %v", err, io.ErrClosedPipe)
	}
}

func TestBadConfig(t *testing.T) {
	bad := []Config{{Engine: "tcg", CPUs: 1, Memory: testMemory}}
	for _, engine := range []string{EngineKVM, EngineSoft} {
		bad = append(bad,
			Config{Engine: engine, CPUs: 0, Memory: testMemory},
			Config{Engine: engine, CPUs: MaxCPUs + 1, Memory: testMemory},
			Config{Engine: engine, CPUs: 1, Memory: 0},
			Config{Engine: engine, CPUs: 1, Memory: 4097},
			Config{Engine: engine, CPUs: 1, Memory: testMemory, Input: []Input{{Port: 2}}},
		)
	}
	for _, cfg := range bad {
		if m, err := New(cfg); err == nil {
			m.Close()
			t.Errorf("New(%+v) succeeds", cfg)
		}
	}
}

// TestForeignState gives a machine states that can't be its own.
func TestForeignState(t *testing.T) { onEngines(t, testForeignState) }

func testForeignState(t *testing.T, engine string) {
	m := machine(t, Config{Engine: engine, CPUs: 2})
	load(t, m, "")
	for name, change := range map[string]func(*State){
		"fewer CPUs":        func(s *State) { s.CPU.CPUs = s.CPU.CPUs[:1] },
		"unknown activity":  func(s *State) { s.CPU.CPUs[1].Activity = 99 },
		"an MSR of no CPU":  func(s *State) { s.CPU.CPUs[0].MSRs = []x86.MSR{{Index: 0x12345678, Value: 1}} },
		"another bridge":    func(s *State) { s.Bridge[0]++ },
		"a bridge cut off":  func(s *State) { s.Bridge = s.Bridge[:10] },
		"no such input":     func(s *State) { s.Waiting[1] = []input{inputBreak + 1} },
		"too much received": func(s *State) { s.UART[0].Count = 17 },
	} {
		s, err := m.State()
		if err != nil {
			t.Fatal(err)
		}
		change(s)
		if err := m.SetState(s); err == nil {
			t.Errorf("%s: SetState succeeds", name)
		}
	}
}

// TestFlush waits for what was sent before, while the guest goes on sending.
func TestFlush(t *testing.T) {
	console := newTranscript()
	o := newOutput(console)
	o.hold(true)
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
				o.put('.')
			}
		}
	}()
	for i := range 100 {
		letter := byte('A' + i%26)
		o.put(letter)
		o.flush()
		if got := strings.Count(console.String(), string(letter)); got != i/26+1 {
			t.Fatalf("after flush %d the writer has %d of %q", i, got, letter)
		}
	}
	close(done)
	<-stopped
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
}
