//go:build linux && amd64

package kvm

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"fifovm/vmm/bus"
	"fifovm/vmm/clock"
	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

// The memory of the tests' guests: page tables, descriptor tables, programs and
// one page of stack for each CPU.
const (
	testRAM      = 1 << 20
	testTables   = 0x1_0000 // the first 4 GiB, onto themselves
	testGDT      = 0x2_0000
	testIDT      = 0x2_1000
	testCode     = 0x3_0000
	testHandlers = 0x4_0000 // of interrupts, handlerSize bytes each
	testReal     = 0x5_0000 // real-mode code, where a start-up IPI sends a CPU
	testData     = 0x6_0000
	testStack    = 0x8_0000 // CPU 0's grows down from here, the others' lie above

	handlerSize = 64

	testPort   = 0x10        // 16 ports of the recorder
	testMMIO   = 0xd000_0000 // two pages of the recorder
	unclaimed  = 0xd100_0000 // nobody's
	donePort   = 0xf4        // ends the run
	vectorPort = 0xe0        // what a handler writes its vector to (0x20 is the 8259's)

	localAPIC = 0xfee0_0000
	apicEOI   = localAPIC + 0xb0
	apicICR   = localAPIC + 0x300
	msiAtCPU0 = localAPIC // the address of a message to APIC ID 0
)

// done writes to donePort and stays there.
var done = []byte{0xe6, donePort, 0xeb, 0xfe}

// access is what a device saw.
type access struct {
	write bool
	addr  uint64
	data  []byte
}

// recorder is a device that keeps what it sees. It answers reads with bytes
// that count up from next.
type recorder struct {
	base uint64
	log  []access
	next byte
	on   func(a access) // called after each access, if set
}

func (r *recorder) Read(off uint64, data []byte) {
	for i := range data {
		data[i] = r.next
		r.next++
	}
	r.note(false, off, data)
}

func (r *recorder) Write(off uint64, data []byte) { r.note(true, off, data) }

func (r *recorder) note(write bool, off uint64, data []byte) {
	a := access{write, r.base + off, slices.Clone(data)}
	r.log = append(r.log, a)
	if r.on != nil {
		r.on(a)
	}
}

// probe is a device that calls f at each access and keeps nothing, for guests
// that access without end.
type probe func(write bool, data []byte)

func (p probe) Read(_ uint64, data []byte)  { p(false, data) }
func (p probe) Write(_ uint64, data []byte) { p(true, data) }

// guest is an engine with all that it needs around it.
type guest struct {
	testing.TB
	lock     sync.Mutex
	ram      *memory.RAM
	cfg      Config
	engine   *Engine
	port     *recorder // at testPort
	mmio     *recorder // at testMMIO
	vectors  []byte    // that were written to vectorPort
	onVector func(v byte)
	stop     context.CancelFunc // of the run
	start    *x86.State
}

// newGuest gives a guest whose CPU 0 starts with program in 64-bit mode at CPL
// 0; the others wait to be started. It skips the test where there is no KVM.
func newGuest(t testing.TB, cpus int, program ...[]byte) *guest {
	t.Helper()
	needKVM(t)
	g := &guest{TB: t, port: &recorder{base: testPort}, mmio: &recorder{base: testMMIO}, start: x86.PowerOn(cpus)}
	var err error
	if g.ram, err = memory.New(testRAM); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.check(g.ram.Close()) })
	g.load(program...)
	c := &g.start.CPUs[0]
	c.LongMode(testTables, 0)
	c.RIP, c.GPR[x86.RSP] = testCode, testStack
	c.GDT = x86.Table{Base: testGDT, Limit: 4*8 - 1}
	c.IDT = x86.Table{Base: testIDT, Limit: 256*16 - 1}
	binary.LittleEndian.PutUint32(c.LAPIC[0xf0:], 0x1ff) // enabled by software
	g.cfg = Config{CPUs: cpus, RAM: g.ram, Ports: bus.NewPorts(), MMIO: bus.NewMMIO(), Clock: clock.New(clock.NewHost()), Lock: &g.lock}
	g.check(errors.Join(
		g.cfg.Ports.Map(testPort, 16, "recorder", g.port),
		g.cfg.MMIO.Map(testMMIO, 0x2000, "recorder", g.mmio),
		g.cfg.Ports.Map(donePort, 1, "done", probe(func(bool, []byte) { g.stop() })),
		g.cfg.Ports.Map(vectorPort, 1, "vector", probe(func(_ bool, data []byte) {
			g.vectors = append(g.vectors, data[0])
			if g.onVector != nil {
				g.onVector(data[0])
			}
		})),
	))
	g.engine = g.newEngine()
	return g
}

// load writes the tables and the program.
func (g *guest) load(program ...[]byte) {
	g.write(testTables, x86.IdentityMap(testTables, 4, true))
	le := binary.LittleEndian
	var gdt []byte
	for _, d := range []uint64{0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff} { // 0x10 and 0x18
		gdt = le.AppendUint64(gdt, d)
	}
	g.write(testGDT, gdt)
	for v := range 256 {
		var gate [16]byte
		at := uint32(testHandlers + handlerSize*v)
		le.PutUint16(gate[0:], uint16(at))
		le.PutUint16(gate[2:], x86.SelectorCode)
		gate[5] = 0x8e // 64-bit interrupt gate, present, DPL 0
		le.PutUint16(gate[6:], uint16(at>>16))
		g.write(testIDT+uint64(v)*16, gate[:])
		g.write(uint64(at), handler(byte(v)))
	}
	g.write(testCode, slices.Concat(program...))
}

// handler writes its vector to vectorPort and ends the interrupt.
func handler(v byte) []byte {
	return slices.Concat(
		[]byte{0x50, 0x57},             // push rax; push rdi
		[]byte{0xb0, v},                // mov al, v
		[]byte{0xe6, vectorPort},       // out vectorPort, al
		mov(x86.RDI, apicEOI),          // mov rdi, apicEOI
		[]byte{0xc7, 0x07, 0, 0, 0, 0}, // mov dword [rdi], 0
		[]byte{0x5f, 0x58},             // pop rdi; pop rax
		[]byte{0x48, 0xcf},             // iretq
	)
}

// mov sets a 64-bit register.
func mov(reg int, v uint64) []byte {
	return binary.LittleEndian.AppendUint64([]byte{0x48 | byte(reg>>3), 0xb8 | byte(reg&7)}, v)
}

func (g *guest) newEngine() *Engine {
	g.Helper()
	e, err := New(g.cfg)
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { g.check(e.Close()) })
	g.check(e.SetState(g.start))
	return e
}

func (g *guest) check(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

func (g *guest) write(gpa uint64, b []byte) {
	g.Helper()
	g.check(g.ram.Write(gpa, b))
}

func (g *guest) read64(gpa uint64) uint64 {
	g.Helper()
	var b [8]byte
	g.check(g.ram.Read(gpa, b[:]))
	return binary.LittleEndian.Uint64(b[:])
}

// patience is how long a guest that should end may take.
const patience = 10 * time.Second

// run runs the guest until it writes to donePort and gives its error.
func (g *guest) run() error {
	g.Helper()
	ctx, cancel := contextWithPatience()
	defer cancel()
	g.lock.Lock()
	g.stop = cancel
	g.lock.Unlock()
	err := g.engine.Run(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		s, _ := g.engine.State()
		g.Fatalf("the guest did not end:\n%v", &s.CPUs[0])
	}
	return err
}

// mustRun is run for a guest that fails only by mistake.
func (g *guest) mustRun() {
	g.Helper()
	if err := g.run(); err != nil {
		var stuck *x86.Stuck
		if errors.As(err, &stuck) {
			g.Fatalf("%v\n%v", err, stuck.Registers)
		}
		g.Fatal(err)
	}
}

// state takes the state of the guest, which is not running.
func (g *guest) state() *x86.State {
	g.Helper()
	s, err := g.engine.State()
	g.check(err)
	return s
}

// inHandler stops the run from within a device and waits until the engine
// knows, so that the access is the last thing that the CPU does.
func (g *guest) inHandler() {
	g.stop()
	for !g.engine.stopping.Load() {
		time.Sleep(10 * time.Microsecond)
	}
}

// needKVM skips where the host has no KVM that can be opened.
func needKVM(t testing.TB) {
	t.Helper()
	if _, err := Look(""); err != nil {
		t.Skipf("needs KVM: %v", err)
	}
}

// emulates says whether this host's KVM emulates code at CPL 0.
var emulates = sync.OnceValues(func() (bool, error) {
	ns, err := Speed("", 0)
	return ns >= NativeBelow, err
})

func contextWithPatience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}
