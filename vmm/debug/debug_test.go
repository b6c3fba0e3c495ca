package debug

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"fifovm/vmm/boot"
	"fifovm/vmm/boot/tiny"
	"fifovm/vmm/kvm"
	"fifovm/vmm/vmm"
	"fifovm/vmm/x86"
)

const testMemory = 64 << 20

// program counts to three in memory, then powers off.
var program = []byte{
	0xb9, 0x03, 0x00, 0x00, 0x00, //                   0x00 mov ecx, 3
	0xbb, 0x00, 0x00, 0x20, 0x00, //                   0x05 mov ebx, 0x200000
	0x31, 0xc0, //                                     0x0a xor eax, eax
	0xff, 0xc0, //                                     0x0c again: inc eax
	0x89, 0x03, //                                     0x0e mov [rbx], eax
	0x8b, 0x13, //                                     0x10 mov edx, [rbx]
	0xff, 0xc9, //                                     0x12 dec ecx
	0x75, 0xf6, //                                     0x14 jnz again
	0xba, 0x00, 0x06, 0x00, 0x00, 0xb0, 0x34, 0xee, // 0x16 mov edx, 0x600; mov al, 0x34; out dx, al: power off
	0xf4, 0xeb, 0xfd, //                               0x1e hlt; jmp
}

const (
	codeAt = tiny.Base
	again  = codeAt + 0xc
	cell   = 0x20_0000
)

// onEngines runs a test on each engine that runs guests here.
func onEngines(t *testing.T, f func(t *testing.T, engine string)) {
	for _, engine := range []string{vmm.EngineSoft, vmm.EngineKVM} {
		t.Run(engine, func(t *testing.T) { f(t, engine) })
	}
}

// stops is what an engine can stop at here.
func stops(t *testing.T, engine string) kvm.Stops {
	t.Helper()
	if engine == vmm.EngineSoft {
		return kvm.Stops{Steps: true, Breakpoints: true, Watchpoints: true, INT3: true}
	}
	s, err := kvm.CanStop("")
	if errors.Is(err, kvm.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func needBreakpoints(t *testing.T, engine string) {
	t.Helper()
	if s := stops(t, engine); !s.Breakpoints && !s.INT3 {
		t.Skip("this host's KVM has no breakpoints")
	}
}

// newSession gives a session of a guest that executes code.
func newSession(t *testing.T, engine string, code []byte, symbols ...tiny.Symbol) *Session {
	t.Helper()
	m, err := vmm.New(vmm.Config{Engine: engine, CPUs: 1, Memory: testMemory})
	if errors.Is(err, kvm.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	k, err := boot.Parse(tiny.Image(code, symbols...))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Load(vmm.Boot{Kernel: k}); err != nil {
		t.Fatal(err)
	}
	return New(m, nil)
}

// guest is a session that runs.
type guest struct {
	*Session
	*testing.T
	events <-chan Event
	done   chan error
	stop   vmm.Stop
}

// start runs a session, from a pause at its beginning.
func start(t *testing.T, s *Session) *guest {
	t.Helper()
	s.Pause()
	g := &guest{Session: s, T: t, events: s.Stopped(), done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		stop, err := s.Run(ctx)
		g.stop = stop
		g.done <- err
		close(g.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-g.done
	})
	return g
}

// next continues to the next stop.
func (g *guest) next(want Reason) Event {
	g.Helper()
	g.Continue()
	return g.wait(want)
}

func (g *guest) wait(want Reason) Event {
	g.Helper()
	select {
	case e, ok := <-g.events:
		if !ok {
			g.Fatalf("the guest has ended (%v), want %v", <-g.done, want)
		}
		if e.Reason != want {
			g.Fatalf("%v at %#x, want %v", e.Reason, e.Address, want)
		}
		return e
	case <-time.After(time.Minute):
		g.Fatalf("no %v", want)
	}
	panic("not reached")
}

func (g *guest) rip() uint64 {
	g.Helper()
	c, err := g.Registers(0)
	if err != nil {
		g.Fatal(err)
	}
	return c.RIP
}

func (g *guest) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// end continues to the end of the guest.
func (g *guest) end() {
	g.Helper()
	g.Continue()
	select {
	case err := <-g.done:
		if err != nil || g.stop != vmm.PowerOff {
			g.Errorf("the guest ended by %v, %v", g.stop, err)
		}
	case e, ok := <-g.events:
		if ok {
			g.Fatalf("%v at %#x, want the end", e.Reason, e.Address)
		}
		g.end()
	case <-time.After(time.Minute):
		g.Fatal("no end")
	}
}

func TestBreakpoint(t *testing.T) { onEngines(t, testBreakpoint) }

// TestManyBreakpoints: more than a processor has debug registers, and the code
// reads as it is.
func TestManyBreakpoints(t *testing.T) { onEngines(t, testManyBreakpoints) }

func testManyBreakpoints(t *testing.T, engine string) {
	if !stops(t, engine).INT3 {
		t.Skip("this host's KVM does not stop at INT3")
	}
	g := start(t, newSession(t, engine, program))
	at := []uint64{0x0, 0x5, 0xa, 0xc, 0xe, 0x10, 0x12, 0x14, 0x16}
	for _, a := range at {
		g.must(g.SetBreakpoint(codeAt + a))
	}
	order := slices.Concat(at[:8], at[3:8], at[3:8], at[8:])
	for i, want := range order {
		if e := g.next(Breakpoint); e.Address != codeAt+want {
			t.Fatalf("stop %d is at %#x, want %#x", i, e.Address, codeAt+want)
		}
		code := make([]byte, len(program))
		g.must(g.Read(0, codeAt, code))
		if !bytes.Equal(code, program) {
			t.Fatalf("the code reads % x", code)
		}
	}
	g.end()
}

func testBreakpoint(t *testing.T, engine string) {
	needBreakpoints(t, engine)
	g := start(t, newSession(t, engine, program))
	g.must(g.SetBreakpoint(again))
	for i := range uint64(3) {
		e := g.next(Breakpoint)
		c, err := g.Registers(0)
		g.must(err)
		if e.Address != again || e.CPU != 0 || c.RIP != again || c.GPR[x86.RAX] != i {
			t.Errorf("stop %d at %#x on CPU %d, RIP %#x, eax %d", i, e.Address, e.CPU, c.RIP, c.GPR[x86.RAX])
		}
	}
	g.must(g.ClearBreakpoint(again))
	if g.ClearBreakpoint(again) == nil {
		t.Error("a breakpoint can be cleared twice")
	}
	g.end()
	if err := g.SetBreakpoint(again); !errors.Is(err, ErrEnded) {
		t.Errorf("a breakpoint after the end: %v", err)
	}
}

func TestStep(t *testing.T) { onEngines(t, testStep) }

func testStep(t *testing.T, engine string) {
	g := start(t, newSession(t, engine, program))
	want := []uint64{5, 0xa, 0xc, 0xe, 0x10, 0x12, 0x14, 0xc, 0xe}
	for _, w := range want {
		g.must(g.Step(0))
		g.wait(Stepped)
		if got := g.rip(); got != codeAt+w {
			t.Fatalf("stepped to %#x, want %#x", got, codeAt+w)
		}
	}
	if g.Step(1) == nil {
		t.Error("a CPU that is not there steps")
	}
	if s := stops(t, engine); !s.Breakpoints && !s.INT3 {
		g.end()
		return
	}
	// A breakpoint in the way of a step is no stop, and one that is stepped onto
	// is one when the guest goes on.
	g.must(g.SetBreakpoint(codeAt + 0x10))
	g.must(g.Step(0))
	g.wait(Stepped)
	g.must(g.Step(0))
	g.wait(Stepped)
	if e := g.next(Breakpoint); e.Address != codeAt+0x10 {
		t.Errorf("breakpoint at %#x", e.Address)
	}
	g.must(g.ClearBreakpoint(codeAt + 0x10))
	g.end()
}

func TestWatchpoint(t *testing.T) { onEngines(t, testWatchpoint) }

func testWatchpoint(t *testing.T, engine string) {
	if !stops(t, engine).Watchpoints {
		t.Skip("this host's KVM has no watchpoints")
	}
	for _, test := range []struct {
		kind  x86.WatchKind
		stops []uint64
	}{
		{x86.WatchWrite, []uint64{0x10, 0x10, 0x10}},
		{x86.WatchAccess, []uint64{0x10, 0x12, 0x10, 0x12, 0x10, 0x12}},
		{x86.WatchRead, []uint64{0x12, 0x12, 0x12}},
	} {
		if engine == vmm.EngineKVM && test.kind == x86.WatchRead {
			continue
		}
		g := start(t, newSession(t, engine, program))
		g.must(g.SetWatchpoint(cell, 4, test.kind))
		for i, want := range test.stops {
			e := g.next(Watchpoint)
			if got := g.rip(); e.Address != cell || got != codeAt+want {
				t.Errorf("%v, stop %d: %#x at RIP %#x, want %#x", test.kind, i, e.Address, got, codeAt+want)
			}
		}
		g.end()
	}
	g := start(t, newSession(t, engine, program))
	g.must(g.SetWatchpoint(cell+4, 4, x86.WatchAccess)) // beside
	if g.SetWatchpoint(cell, 0, x86.WatchWrite) == nil || g.SetWatchpoint(cell, 4, 0) == nil {
		t.Error("a watchpoint of nothing is set")
	}
	if g.ClearWatchpoint(cell, 4, x86.WatchWrite) == nil {
		t.Error("a watchpoint that there is not is cleared")
	}
	g.end()
}

func TestMemoryAndRegisters(t *testing.T) { onEngines(t, testMemoryAndRegisters) }

func testMemoryAndRegisters(t *testing.T, engine string) {
	needBreakpoints(t, engine)
	g := start(t, newSession(t, engine, program))
	g.must(g.SetBreakpoint(again))
	g.next(Breakpoint)
	var b [4]byte
	g.must(g.Read(0, again, b[:]))
	if string(b[:]) != string(program[0xc:0x10]) {
		t.Errorf("the code reads % x", b)
	}
	if n, err := g.ReadSome(0, 1<<40, b[:]); n != 0 || err == nil {
		t.Errorf("%d bytes of nothing, %v", n, err)
	}
	if p, ok := g.Translate(0, cell); !ok || p != cell {
		t.Errorf("%#x translates to %#x, %v", cell, p, ok)
	}
	lines := g.Disassemble(0, again, 3)
	if len(lines) != 3 || lines[0].Text != "inc eax" || lines[1].Text != "mov dword ptr [rbx], eax" || lines[2].Address != again+4 {
		t.Errorf("disassembly: %+v", lines)
	}
	// The loop is to end now: ecx, and an instruction, are changed.
	c, err := g.Registers(0)
	g.must(err)
	c.GPR[x86.RCX], c.GPR[x86.RAX] = 1, 40
	g.must(g.SetRegisters(0, c))
	g.must(g.Write(0, again, []byte{0xff, 0xc8})) // dec eax
	g.must(g.ClearBreakpoint(again))
	g.must(g.SetBreakpoint(codeAt + 0x16))
	g.next(Breakpoint)
	g.must(g.Read(0, cell, b[:]))
	if b[0] != 39 {
		t.Errorf("the guest counted to %d, want 39", b[0])
	}
	g.end()
}

func TestPause(t *testing.T) { onEngines(t, testPause) }

func testPause(t *testing.T, engine string) {
	g := start(t, newSession(t, engine, []byte{0xff, 0xc0, 0xeb, 0xfc})) // inc eax; jmp
	for range 20 {
		g.Continue()
		g.Pause()
		g.wait(Paused)
		if !g.Paused() {
			t.Fatal("it does not stand still")
		}
		if rip := g.rip(); rip != codeAt && rip != codeAt+2 {
			t.Fatalf("RIP %#x", rip)
		}
	}
	g.Continue()
	// It runs, and is read all the same.
	before := g.rip()
	if before != codeAt && before != codeAt+2 {
		t.Errorf("RIP %#x", before)
	}
	if err := g.StartStep(0); !errors.Is(err, ErrRunning) {
		t.Errorf("a step of a guest that runs: %v", err)
	}
}

// kernel is the one that Linux's tests boot, with the addresses of its functions.
func kernel(t *testing.T) (*boot.Kernel, func(name string) uint64) {
	t.Helper()
	const path = "../../build/kernel/6.12/vmlinux"
	if testing.Short() {
		t.Skip("boots Linux: left out of -short")
	}
	k, err := boot.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no %s: make kernel builds it", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	return k, func(name string) uint64 {
		t.Helper()
		for _, s := range symbols {
			if s.Name == name {
				return s.Value
			}
		}
		t.Fatalf("no %s in %s", name, path)
		return 0
	}
}

// TestTransparent: Linux on soft comes to the same final state, whether it is
// stopped or not: at breakpoints, by watchpoints, in single steps.
func TestTransparent(t *testing.T) {
	k, address := kernel(t)
	for _, cpus := range []int{1, 4} {
		want, _ := bootLinux(t, k, cpus, nil)
		for _, test := range []struct {
			name    string
			stops   int
			set     func(*Session) error
			stopped func(*Session, int) error
		}{
			{"breakpoints", 1000, func(s *Session) error {
				return errors.Join(s.SetBreakpoint(address("__wake_up")), s.SetBreakpoint(address("kfree")),
					s.SetBreakpoint(address("asm_sysvec_apic_timer_interrupt")), s.SetBreakpoint(address("tick_handle_periodic")))
			}, nil},
			{"breakpoints in the midst of blocks", 1000, func(s *Session) error {
				return s.SetBreakpoint(address("start_kernel")) // before it nothing is mapped
			}, func(s *Session, n int) error {
				if n > 1 {
					return nil
				}
				lines := s.Disassemble(0, address("number"), 100)
				if len(lines) != 100 {
					return fmt.Errorf("%d instructions", len(lines))
				}
				for _, l := range lines {
					if err := s.SetBreakpoint(l.Address); err != nil {
						return err
					}
				}
				return nil
			}},
			{"watchpoint", 200, func(s *Session) error { return s.SetWatchpoint(address("jiffies_64"), 8, x86.WatchAccess) }, nil},
			{"a watched page", 1, func(s *Session) error {
				return errors.Join(s.SetWatchpoint(address("init_task")+8, 1, x86.WatchWrite), s.SetBreakpoint(address("start_kernel")))
			}, nil},
			{"steps", 50, func(s *Session) error { return s.SetBreakpoint(address("kfree")) }, func(s *Session, n int) error {
				if n > 100 {
					return s.ClearBreakpoint(address("kfree"))
				}
				for range 50 {
					if err := s.Step(n % cpus); err != nil {
						return err
					}
				}
				return nil
			}},
		} {
			t.Run(fmt.Sprintf("%d CPUs/%s", cpus, test.name), func(t *testing.T) {
				got, stops := bootLinux(t, k, cpus, func(s *Session) (func(int) error, error) {
					return func(n int) error {
						if test.stopped != nil {
							return test.stopped(s, n)
						}
						return nil
					}, test.set(s)
				})
				if stops < test.stops {
					t.Errorf("%d stops, want %d", stops, test.stops)
				}
				t.Logf("%d stops", stops)
				if got != want {
					t.Error("the final state is another")
				}
			})
		}
	}
}

// bootLinux boots a kernel that finds no root file system, and gives the hash of
// its final state. set says where it is to stop, and gives what is to be done
// then.
func bootLinux(t *testing.T, k *boot.Kernel, cpus int, set func(*Session) (func(stop int) error, error)) (hash string, stops int) {
	t.Helper()
	var console strings.Builder
	m, err := vmm.New(vmm.Config{Engine: vmm.EngineSoft, CPUs: cpus, Memory: 4 * testMemory, Seed: 3, Serial: [2]io.Writer{&console}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Load(vmm.Boot{Kernel: k, CommandLine: "console=ttyS0 panic=-1"}); err != nil {
		t.Fatal(err)
	}
	s := New(m, nil)
	if set != nil {
		events := s.Stopped()
		stopped, err := set(s)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for range events {
				stops++
				if err := stopped(stops); err != nil && !errors.Is(err, ErrEnded) {
					t.Error(err)
				}
				select {
				case <-events: // the last of its steps
				default:
				}
				s.Continue()
			}
		}()
	}
	stop, err := s.Run(t.Context())
	if err != nil || stop != vmm.Reset {
		t.Fatalf("Run gives %v, %v\n%s", stop, err, &console)
	}
	if hash, err = m.Hash(); err != nil {
		t.Fatal(err)
	}
	return hash, stops
}
