package vmm

import (
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestInput types at set times, more at once than the guest has room for: all
// comes, in order.
func TestInput(t *testing.T) {
	onEngines(t, func(t *testing.T, engine string) {
		const digits = "0123456789"
		console := newTranscript()
		heard := false
		m := machine(t, Config{Engine: engine, Serial: [2]io.Writer{console}, OnInput: func(Input) { heard = true }, Input: []Input{
			{When: 3_000_002, Data: []byte("p")},
			{When: 1_000_000, Data: []byte("ABC")},
			{When: 1_000_020, Data: []byte("DEF")},
			{When: 1_000_020, Data: []byte("GHI")},
			{When: 2_000_000, Break: true, Data: []byte("!")},
			{When: 3_000_000, Data: []byte(strings.Repeat(digits, 10))},
			{When: 3_000_001, Data: []byte("XYZ")},
			{When: 3_000_001, Port: 1, Data: []byte("not for ttyS0")},
		}})
		load(t, m, "")
		if stop, err := m.Run(t.Context()); stop != PowerOff || err != nil {
			t.Fatalf("Run gives %v, %v, want a power off", stop, err)
		}
		m.Flush(0)
		want := "ready\r\nABCDEFGHI<break>!" + strings.Repeat(digits, 10) + "XYZ"
		if got := console.String(); got != want {
			t.Errorf("the guest printed %q, want %q", got, want)
		}
		if heard {
			t.Error("OnInput is told of Config.Input")
		}
	})
}

// TestInputTime: input comes at its time, to the instruction that executes then.
func TestInputTime(t *testing.T) {
	for _, when := range []int64{50_000, 50_001, 123_456} {
		m := machine(t, Config{Engine: EngineSoft, Input: []Input{{When: when, Data: []byte("p")}}})
		load(t, m, "")
		if stop, err := m.Run(t.Context()); stop != PowerOff || err != nil {
			t.Fatalf("Run gives %v, %v, want a power off", stop, err)
		}
		n, _ := m.Retired()
		// From LSR's reading to the port that powers off are some tens.
		if n < when || n > when+100 {
			t.Errorf("typed at %d, the guest powers off after %d instructions", when, n)
		}
	}
}

// outcome is what came of a run.
type outcome struct{ console, hash string }

// finish runs m, with pauses if there are any, until it powers off.
func finish(t *testing.T, m *Machine, console *transcript, pauses *rand.Rand) outcome {
	t.Helper()
	for {
		ctx, cancel := t.Context(), func() {}
		if pauses != nil {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(pauses.IntN(500_000)))
		}
		stop, err := m.Run(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if stop == PowerOff {
			break
		}
	}
	m.Flush(0)
	hash, err := m.Hash()
	if err != nil {
		t.Fatal(err)
	}
	return outcome{console.String(), hash}
}

// TestReplay records what is typed at a guest whenever its host likes, pauses
// and breaks included, and types the same at another.
func TestReplay(t *testing.T) {
	const times = 4
	random := rand.New(rand.NewPCG(1, 2))
	for range 2 {
		var mu sync.Mutex
		var inputs []Input
		console := newTranscript()
		m := machine(t, Config{Engine: EngineSoft, Serial: [2]io.Writer{console}, OnInput: func(in Input) {
			mu.Lock()
			inputs = append(inputs, in)
			mu.Unlock()
		}})
		load(t, m, "")
		typed := make(chan error, 1)
		go func() {
			console.wait("ready")
			for range times {
				if _, err := io.WriteString(m.Serial(0), "SOME TEXT, 0 TO 9"); err != nil {
					typed <- err
					return
				}
				if err := m.Serial(0).Break(); err != nil {
					typed <- err
					return
				}
			}
			_, err := io.WriteString(m.Serial(0), "p")
			typed <- err
		}()
		live := finish(t, m, console, random)
		if err := <-typed; err != nil {
			t.Fatal(err)
		}
		if want := "ready\r\n" + strings.Repeat("SOME TEXT, 0 TO 9<break>", times); live.console != want {
			t.Fatalf("the guest printed %q", live.console)
		}
		if !slices.IsSortedFunc(inputs, func(a, b Input) int { return int(a.When - b.When) }) {
			t.Fatalf("input went back in time: %v", inputs)
		}
		console = newTranscript()
		m = machine(t, Config{Engine: EngineSoft, Serial: [2]io.Writer{console}, Input: inputs})
		load(t, m, "")
		if again := finish(t, m, console, nil); again != live {
			t.Fatalf("played back: %q, the recording: %q", again, live)
		}
	}
}

// TestHash: machines that are in the same state have the same, and any part of
// it counts.
func TestHash(t *testing.T) {
	hash := func(change func(m *Machine, s *State)) string {
		t.Helper()
		m := machine(t, Config{Engine: EngineSoft, CPUs: 2})
		load(t, m, "")
		s, err := m.State()
		if err != nil {
			t.Fatal(err)
		}
		change(m, s)
		if err := m.SetState(s); err != nil {
			t.Fatal(err)
		}
		h, err := m.Hash()
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	same := hash(func(*Machine, *State) {})
	if again := hash(func(_ *Machine, s *State) { s.Clock.Seq += 7 }); again != same {
		t.Error("the same state has another hash")
	}
	for name, change := range map[string]func(m *Machine, s *State){
		"a byte of memory": func(m *Machine, _ *State) { m.RAM().Slots()[0].Bytes[testMemory-1]++ },
		"a register":       func(_ *Machine, s *State) { s.CPU.CPUs[1].GPR[7]++ },
		"the time":         func(_ *Machine, s *State) { s.Now++ },
		"a UART":           func(_ *Machine, s *State) { s.UART[1].SCR++ },
		"the turn":         func(_ *Machine, s *State) { s.CPU.Turn.Until++ },
	} {
		if hash(change) == same {
			t.Errorf("%s does not count", name)
		}
	}
}

// lines takes a guest's lines, and has them wait to be read.
type lines struct {
	line []byte
	all  chan string
}

func (l *lines) Write(p []byte) (int, error) {
	for _, b := range p {
		if l.line = append(l.line, b); b == '\n' {
			l.all <- string(l.line)
			l.line = nil
		}
	}
	return len(p), nil
}

// TestConverse: a guest that converses does not notice how long its host thinks.
// What the host writes may be more than a UART has room for, and in pieces.
func TestConverse(t *testing.T) {
	const rounds = 10
	text := strings.Repeat("SOME TEXT, 0 TO 9; ", 10)
	talk := func(t *testing.T, engine string, think func(), pauses *rand.Rand) (outcome, int64) {
		heard := &lines{all: make(chan string, 1)}
		m := machine(t, Config{Engine: engine, Serial: [2]io.Writer{heard}})
		load(t, m, "")
		m.Converse(0)
		said := make(chan error, 1)
		go func() {
			for i := range rounds {
				line := <-heard.all
				if want := text + "\n"; i > 0 && line != want {
					t.Errorf("round %d: %q", i, line)
				}
				think()
				_, err := io.WriteString(m.Serial(0), text)
				if err == nil {
					_, err = io.WriteString(m.Serial(0), "\n")
				}
				if err != nil {
					said <- err
					return
				}
				m.Listen()
			}
			<-heard.all
			think()
			_, err := io.WriteString(m.Serial(0), "p")
			m.Listen()
			said <- err
		}()
		o := finish(t, m, newTranscript(), pauses)
		if err := <-said; err != nil {
			t.Fatal(err)
		}
		n, _ := m.Retired()
		return o, n
	}
	onEngines(t, func(t *testing.T, engine string) {
		want, n := talk(t, engine, func() {}, nil)
		if engine != EngineSoft {
			return
		}
		if n > 1_000_000 { // it polls: a thousandth of a second's
			t.Errorf("%d instructions: it has waited", n)
		}
		random := rand.New(rand.NewPCG(3, 4))
		for range 3 {
			got, m := talk(t, engine, func() { time.Sleep(time.Duration(random.IntN(5_000_000))) }, nil)
			if got != want || m != n {
				t.Errorf("with a slow host it is another run, of %d instructions", m)
			}
		}
		if got, m := talk(t, engine, func() { time.Sleep(time.Millisecond) }, rand.New(rand.NewPCG(5, 6))); got != want || m != n {
			t.Errorf("with pauses it is another run, of %d instructions", m)
		}
	})
}
