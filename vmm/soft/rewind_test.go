package soft

import (
	"bytes"
	"sync"
	"testing"

	"fifovm/vmm/bus"
	"fifovm/vmm/clock"
	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

// TestRewind: whichever way the guest wrote, nothing of it is left after Rewind:
// not in memory, the page tables' accessed and dirty bits included, and not in
// the code that was decoded.
func TestRewind(t *testing.T) {
	const page = 0x40000 // and on: each way of writing has one of its own
	for name, code := range map[string][]byte{
		"mov":               {0x48, 0xc7, 0x07, 1, 2, 3, 4},                                     // mov qword [rdi], imm
		"two pages":         {0x48, 0xc7, 0x87, 0xfc, 0x0f, 0, 0, 1, 2, 3, 4},                   // mov qword [rdi+0xffc], imm
		"rep stos":          {0xb9, 0, 0x20, 0, 0, 0xb0, 0x55, 0xf3, 0xaa},                      // mov ecx, 0x2000; mov al, 0x55; rep stosb
		"rep movs":          {0xbe, 0, 0, 5, 0, 0xb9, 0, 0x20, 0, 0, 0xf3, 0xa4},                // mov esi, 0x50000; mov ecx; rep movsb
		"locked":            {0xf0, 0x48, 0x83, 0x0f, 1},                                        // lock or qword [rdi], 1
		"16 bytes":          {0x66, 0x0f, 0x76, 0xc0, 0x0f, 0x11, 0x07},                         // pcmpeqd xmm0, xmm0; movups [rdi], xmm0
		"FXSAVE":            {0x0f, 0xae, 0x07},                                                 // fxsave [rdi]
		"twice":             {0xc6, 0x07, 1, 0xc6, 0x47, 1, 2, 0xc6, 0x47, 2, 3},                // the TLB has it
		"push":              {0x48, 0x89, 0xfc, 0x6a, 0x01},                                     // mov rsp, rdi; push 1
		"its own code":      {0xc6, 0x05, 1, 0, 0, 0, 7, 0xb0, 1, 0xaa},                         // mov byte [rip+1], 7; mov al, 1 (now 7); stosb
		"code that has run": {0xe8, 5, 0, 0, 0, 0xc6, 0x05, 1, 0, 0, 0, 7, 0xb0, 1, 0xaa, 0xc3}, // call; mov byte [rip+1], 7; mov al, 1; stosb; ret
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, 1, []byte{0xbf, 0, 0, 4, 0}, code, hlt) // mov edi, page
			g.write(0x5_0000, bytes.Repeat([]byte("rep movs"), 0x400))
			g.set()
			base := based(g)
			image, err := base.NewRAM()
			if err != nil {
				t.Fatal(err)
			}
			defer image.Close()
			was := bytes.Clone(image.Slots()[0].Bytes)
			var first []byte
			for round := range 3 {
				g.engine.cfg.Time.Set(0)
				g.run(20_000)
				now := bytes.Clone(g.ram.Slots()[0].Bytes)
				if bytes.Equal(now[page-0x1000:page+0x3000], was[page-0x1000:page+0x3000]) {
					t.Fatalf("the guest has written nothing: %v, %x", g.engine.err, g.cpu.r[slotRIP])
				}
				if round == 0 {
					first = now
				} else if !bytes.Equal(now, first) {
					t.Errorf("run %d leaves other bytes than the first", round+1)
				}
				g.engine.cfg.Time.Set(0)
				if err := g.engine.Rewind(g.start); err != nil {
					t.Fatal(err)
				}
				for i, b := range g.ram.Slots()[0].Bytes {
					if b != was[i] {
						t.Fatalf("after Rewind the byte at %#x is %#x, in the base %#x", i, b, was[i])
					}
				}
			}
		})
	}
}

// twin is another engine that begins at the base of g's RAM.
func twin(g *guest, base *memory.Base) *guest {
	g.Helper()
	x := &guest{TB: g.TB, start: g.start}
	var err error
	if x.ram, err = base.NewRAM(); err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { x.ram.Close() })
	now := new(clock.Virtual)
	if x.engine, err = New(Config{CPUs: len(g.engine.cpus), RAM: x.ram, Ports: bus.NewPorts(), MMIO: bus.NewMMIO(), Time: now,
		Clock: clock.New(now), Lock: new(sync.Mutex), Seed: 1}); err != nil {
		g.Fatal(err)
	}
	x.cpu = x.engine.cpus[0]
	if err := x.engine.TrackRAM(); err != nil {
		g.Fatal(err)
	}
	x.set()
	return x
}

// based gives g's RAM a base.
func based(g *guest) *memory.Base {
	g.Helper()
	base, err := memory.NewBase(g.ram)
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { base.Close() })
	if err := g.ram.SetBase(base); err != nil {
		g.Fatal(err)
	}
	if err := g.engine.TrackRAM(); err != nil {
		g.Fatal(err)
	}
	return base
}

// TestSharedCode: what one machine has decoded another one executes, and neither
// sees what the other has changed, or where it stops.
func TestSharedCode(t *testing.T) {
	g := newGuest(t, 1, []byte{
		0xe8, 13, 0, 0, 0, //         call f
		0xc6, 0x05, 7, 0, 0, 0, 9, // mov byte [f+1], 9
		0xe8, 1, 0, 0, 0, //          call f
		0xf4,             //          hlt
		0xb8, 1, 0, 0, 0, //       f: mov eax, 1
		0xc3, //                      ret
	})
	const f, nine = testCode + 18, testCode + 11
	base := based(g)
	x, y := twin(g, base), twin(g, base)
	shared := g.engine.code.shared
	if shared == nil || x.engine.code.shared != shared || y.engine.code.shared != shared {
		t.Fatal("the machines share no code")
	}
	ends := func(what string, g *guest, want uint64) {
		t.Helper()
		g.run(1000)
		if got := g.cpu.r[x86.RAX]; got != want || g.cpu.activity != x86.Halted || g.engine.err != nil || g.engine.debug.trap != nil {
			t.Errorf("%s: rax is %d, want %d; %v, %v", what, got, want, g.engine.err, g.engine.debug.trap)
		}
	}
	ends("the first", g, 9)
	codes := len(shared.codes)
	if codes == 0 {
		t.Fatal("it has published no code")
	}
	// A breakpoint is one's own, and so is a watch, which is put into code as well.
	if err := y.engine.SetDebug(&x86.Debug{Breakpoints: []uint64{f}, Watchpoints: []x86.Watchpoint{{Address: f + 1, Size: 1, Kind: x86.WatchWrite}}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []x86.TrapKind{x86.TrapBreakpoint, x86.TrapWatchpoint, x86.TrapBreakpoint} {
		for range 20 { // turns
			if y.engine.debug.trap == nil {
				y.run(1)
			}
		}
		if trap := y.engine.debug.trap; trap == nil || trap.Kind != want {
			t.Fatalf("it stops by %v, want kind %v", trap, want)
		}
		y.engine.debug.trap = nil
		ends("another", x, 9)
		if err := x.engine.Rewind(x.start); err != nil {
			t.Fatal(err)
		}
	}
	if err := y.engine.SetDebug(nil); err != nil {
		t.Fatal(err)
	}
	ends("the one with breakpoints, without them", y, 9)
	if n := len(shared.codes); n != codes {
		t.Errorf("there are %d pieces of code now, %d before: machines have decoded for themselves", n, codes)
	}
	for _, c := range shared.codes {
		if !c.shared || c.handlers != nil || c.n == 0 {
			t.Errorf("the code at %#x was changed", c.at)
		}
	}
	// What is executed of a page that is not as in the base stays with the machine.
	g.write(nine, []byte{5})
	if err := g.engine.SetState(g.start); err != nil {
		t.Fatal(err)
	}
	ends("one with other code", g, 5)
	if n := len(shared.codes); n != codes {
		t.Errorf("code that is not the base's was published: there are %d pieces, were %d", n, codes)
	}
	ends("another after that", x, 9)
}

// TestSharedCodeAtOnce has machines decode and execute the same code at the same
// time; it is for the race detector, too.
func TestSharedCodeAtOnce(t *testing.T) {
	g := newGuest(t, 1, loop)
	g.start.CPUs[0].GPR[x86.RBX] = testData
	g.start.CPUs[0].GPR[x86.RCX] = 5000
	g.set()
	base := based(g)
	all := []*guest{g, twin(g, base), twin(g, base), twin(g, base)}
	var running sync.WaitGroup
	for _, x := range all {
		running.Go(func() {
			for range 20 {
				x.run(1 << 20)
				if x.cpu.activity != x86.Halted || x.cpu.r[x86.RCX] != 0 {
					t.Errorf("it has not come to its end: %v", x.engine.err)
				}
				if err := x.engine.Rewind(x.start); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
}
