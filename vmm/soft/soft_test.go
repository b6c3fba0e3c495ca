package soft

import (
	"bytes"
	"context"
	"os/exec"
	"slices"
	"sync"
	"testing"

	"fifovm/vmm/bus"
	"fifovm/vmm/clock"
	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

// The memory of the tests' guests: page tables, descriptor tables, a program, and
// two pages for data with the stack above them.
const (
	testRAM    = 1 << 20
	testTables = 0x1_0000 // the first 4 GiB, onto themselves
	testGDT    = 0x2_0000
	testIDT    = 0x2_1000
	testCode   = 0x3_0000
	testData   = 0x6_0000
	testStack  = 0x8_0000
	testMMIO   = 0xd000_0000
)

// recorder is a device that counts its accesses, and answers with bytes that
// count up.
type recorder struct {
	reads, writes int
	last          []byte
	next          byte
	quiet         bool // remembers nothing
}

func (r *recorder) Read(_ uint64, data []byte) {
	r.reads++
	for i := range data {
		data[i] = r.next
		r.next++
	}
}

func (r *recorder) Write(_ uint64, data []byte) {
	r.writes++
	if !r.quiet {
		r.last = slices.Clone(data)
	}
}

// guest is an engine with what it needs around it.
type guest struct {
	testing.TB
	engine *Engine
	cpu    *cpu // CPU 0
	ram    *memory.RAM
	mmio   recorder
	start  *x86.State
}

// newGuest gives a guest whose CPU 0 is about to execute code in 64-bit mode at
// CPL 0.
func newGuest(t testing.TB, cpus int, code ...[]byte) *guest {
	t.Helper()
	g := &guest{TB: t}
	var err error
	if g.ram, err = memory.New(testRAM); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.ram.Close() })
	now := new(clock.Virtual)
	mmio := bus.NewMMIO()
	if err := mmio.Map(testMMIO, 0x2000, "recorder", &g.mmio); err != nil {
		t.Fatal(err)
	}
	if g.engine, err = New(Config{CPUs: cpus, RAM: g.ram, Ports: bus.NewPorts(), MMIO: mmio, Time: now,
		Clock: clock.New(now), Lock: new(sync.Mutex), Seed: 1}); err != nil {
		t.Fatal(err)
	}
	g.cpu = g.engine.cpus[0]
	g.write(testTables, x86.IdentityMap(testTables, 4, true))
	g.write(testGDT, []byte{0x10: 0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0, 0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0})
	g.write(testCode, bytes.Join(code, nil))
	g.start = x86.PowerOn(cpus)
	c := &g.start.CPUs[0]
	c.LongMode(testTables, 0)
	c.RIP, c.GPR[x86.RSP] = testCode, testStack
	c.GDT, c.IDT = x86.Table{Base: testGDT, Limit: 0x1f}, x86.Table{Base: testIDT, Limit: 0xfff}
	g.set()
	return g
}

func (g *guest) write(at uint64, b []byte) {
	g.Helper()
	if err := g.ram.Write(at, b); err != nil {
		g.Fatal(err)
	}
}

// set puts the machine into the start state.
func (g *guest) set() {
	g.Helper()
	if err := g.engine.SetState(g.start); err != nil {
		g.Fatal(err)
	}
}

// run runs until no CPU has anything to do, for n instructions at most.
func (g *guest) run(n int64) {
	e := g.engine
	for end := e.retired + n; e.retired < end && e.err == nil; {
		c := e.next()
		if c == nil {
			return
		}
		e.until = min(e.until, e.cfg.Time.Now()+end-e.retired)
		e.runTurn(c)
	}
}

// hlt ends the tests' programs.
var hlt = []byte{0xf4}

// TestGenerated: alu.go is what its generator makes.
func TestGenerated(t *testing.T) {
	dir := t.TempDir()
	out, err := exec.Command("go", "run", "gen_alu.go", "-o", dir+"/alu.go").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	diff, err := exec.Command("cmp", "alu.go", dir+"/alu.go").CombinedOutput()
	if err != nil {
		t.Errorf("run `go generate ./vmm/soft`: %s", diff)
	}
}

// TestSelfModifying has programs overwrite code that was executed: of another
// block, of the block that is executed, and of the instruction itself.
func TestSelfModifying(t *testing.T) {
	for _, test := range []struct {
		name string
		code []byte
		want uint64 // of RAX
	}{
		{"the next instruction", []byte{
			0xc6, 0x05, 0x01, 0x00, 0x00, 0x00, 0x07, // mov byte [rip+1], 7
			0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax, 1
			0xf4,
		}, 7},
		{"behind the next one", []byte{
			0xc6, 0x05, 0x02, 0x00, 0x00, 0x00, 0x07,
			0x90,
			0xb8, 0x01, 0x00, 0x00, 0x00,
			0xf4,
		}, 7},
		{"another block, executed before", []byte{
			0x31, 0xdb, //                               xor ebx, ebx
			0xb8, 0x01, 0x00, 0x00, 0x00, //       again: mov eax, 1
			0x85, 0xdb, //                               test ebx, ebx
			0x75, 0x0b, //                               jnz end
			0xff, 0xc3, //                               inc ebx
			0xc6, 0x05, 0xef, 0xff, 0xff, 0xff, 0x09, // mov byte [again+1], 9
			0xeb, 0xec, //                               jmp again
			0xf4, //                                end: hlt
		}, 9},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t, 1, test.code)
			g.run(1000)
			if got := g.cpu.r[x86.RAX]; got != test.want || g.engine.err != nil {
				t.Errorf("rax is %d, want %d; %v", got, test.want, g.engine.err)
			}
			if g.cpu.activity != x86.Halted {
				t.Error("the program did not come to its end")
			}
		})
	}
}

// TestDeviceAccess: a device sees each access once, of the width that the
// instruction has.
func TestDeviceAccess(t *testing.T) {
	g := newGuest(t, 1, []byte{
		0x48, 0x8b, 0x03, //       mov rax, [rbx]
		0x89, 0x43, 0x08, //       mov [rbx+8], eax
		0x66, 0x01, 0x43, 0x10, // add [rbx+16], ax
	}, hlt)
	g.start.CPUs[0].GPR[x86.RBX] = testMMIO
	g.set()
	g.run(100)
	if g.cpu.r[x86.RAX] != 0x0706050403020100 {
		t.Errorf("read %#x", g.cpu.r[x86.RAX])
	}
	if g.mmio.reads != 2 || g.mmio.writes != 2 || len(g.mmio.last) != 2 {
		t.Errorf("%d reads, %d writes, the last of %d bytes; want 2, 2, 2", g.mmio.reads, g.mmio.writes, len(g.mmio.last))
	}
}

// loop is a program that loads, adds, stores, counts and branches.
var loop = []byte{
	0x48, 0x8b, 0x03, // again: mov rax, [rbx]
	0x48, 0x01, 0xc8, //        add rax, rcx
	0x48, 0x89, 0x03, //        mov [rbx], rax
	0xff, 0xc9, //              dec ecx
	0x75, 0xf3, //              jnz again
	0xf4,
}

func TestDoesNotAllocate(t *testing.T) {
	g := newGuest(t, 1, loop)
	g.start.CPUs[0].GPR[x86.RBX] = testData
	g.start.CPUs[0].GPR[x86.RCX] = 1 << 31
	g.set()
	g.run(1000) // decodes
	if n := testing.AllocsPerRun(10, func() { g.run(100_000) }); n != 0 {
		t.Errorf("%v allocations in 100,000 instructions", n)
	}
}

// BenchmarkLoop gives the speed of a loop of five instructions.
func BenchmarkLoop(b *testing.B) {
	g := newGuest(b, 1, loop)
	g.start.CPUs[0].GPR[x86.RBX] = testData
	g.start.CPUs[0].GPR[x86.RCX] = 1 << 31
	g.set()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		g.run(1_000_000)
	}
	b.ReportMetric(float64(b.N)*1e6/1e6/b.Elapsed().Seconds(), "MIPS")
}

// TestRunStops: a context that is done ends a guest that never does.
func TestRunStops(t *testing.T) {
	g := newGuest(t, 1, []byte{0xeb, 0xfe})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- g.engine.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestChangedCode: code that a device writes over is decoded anew.
func TestChangedCode(t *testing.T) {
	g := newGuest(t, 1, []byte{0xb8, 1, 0, 0, 0}, hlt) // mov eax, 1
	g.run(10)
	g.write(testCode+1, []byte{2})
	g.start.CPUs[0].Activity = x86.Running
	g.cpu.activity, g.cpu.r[slotRIP] = x86.Running, testCode
	g.run(10)
	if got := g.cpu.r[x86.RAX]; got != 2 {
		t.Errorf("rax is %d, want 2", got)
	}
}

// TestDeviceAccessDoesNotAllocate loops over reads and writes of a device.
func TestDeviceAccessDoesNotAllocate(t *testing.T) {
	g := newGuest(t, 1, []byte{
		0x8b, 0x03, //       again: mov eax, [rbx]
		0x66, 0x89, 0x43, 4, //     mov [rbx+4], ax
		0xe6, 0x80, //              out 0x80, al
		0xeb, 0xf6, //              jmp again
	})
	g.start.CPUs[0].GPR[x86.RBX] = testMMIO
	g.set()
	g.mmio.quiet = true
	g.run(100)
	if n := testing.AllocsPerRun(10, func() { g.run(1000) }); n != 0 {
		t.Errorf("%v allocations in 1,000 instructions", n)
	}
}
