//go:build linux && amd64

package kvm

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"fifovm/vmm/x86"
)

// expect compares what a device saw.
func (r *recorder) expect(t *testing.T, want ...access) {
	t.Helper()
	if !reflect.DeepEqual(r.log, want) && len(r.log)+len(want) > 0 {
		t.Errorf("the device saw\n%v\nwant\n%v", r.log, want)
	}
}

func (a access) String() string {
	verb := "read"
	if a.write {
		verb = "write"
	}
	return fmt.Sprintf("%s %#x: % x", verb, a.addr, a.data)
}

func TestPortWrite(t *testing.T) {
	g := newGuest(t, 1,
		mov(x86.RAX, 0x8877_6655_4433_2211),
		[]byte{0xe6, testPort},                 // out testPort, al
		[]byte{0x66, 0xe7, testPort + 2},       // out testPort+2, ax
		[]byte{0xe7, testPort + 4},             // out testPort+4, eax
		mov(x86.RDX, testPort+8), []byte{0xef}, // out dx, eax
		done)
	g.mustRun()
	g.port.expect(t, access{true, testPort, []byte{0x11}}, access{true, testPort + 2, []byte{0x11, 0x22}},
		access{true, testPort + 4, []byte{0x11, 0x22, 0x33, 0x44}}, access{true, testPort + 8, []byte{0x11, 0x22, 0x33, 0x44}})
}

// TestPortRead: IN changes what its width says and no more (a 32-bit result
// clears the upper half, as every 32-bit result does).
func TestPortRead(t *testing.T) {
	for _, c := range []struct {
		name    string
		program []byte
		rax     uint64
	}{
		{"al", []byte{0xe4, testPort}, 0x8877_6655_4433_22a0},
		{"ax", []byte{0x66, 0xe5, testPort}, 0x8877_6655_4433_a1a0},
		{"eax", []byte{0xe5, testPort}, 0xa3a2_a1a0},
	} {
		g := newGuest(t, 1, mov(x86.RAX, 0x8877_6655_4433_2211), c.program, done)
		g.port.next = 0xa0
		g.mustRun()
		if got := g.state().CPUs[0].GPR[x86.RAX]; got != c.rax {
			t.Errorf("in %s: rax is %#x, want %#x", c.name, got, c.rax)
		}
	}
}

// items splits b into accesses of width bytes at one port.
func items(write bool, width int, b []byte) []access {
	var list []access
	for c := range slices.Chunk(b, width) {
		list = append(list, access{write, testPort, c})
	}
	return list
}

func count(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// TestString moves more than fits into one exit, in every width and either
// direction of the addresses.
func TestString(t *testing.T) {
	const n = 3000
	for _, c := range []struct {
		name  string
		width int
		ins   []byte // instructions without REP
		outs  []byte
	}{
		{"byte", 1, []byte{0x6c}, []byte{0x6e}},
		{"word", 2, []byte{0x66, 0x6d}, []byte{0x66, 0x6f}},
		{"dword", 4, []byte{0x6d}, []byte{0x6f}},
	} {
		t.Run("outs "+c.name, func(t *testing.T) {
			g := newGuest(t, 1, mov(x86.RSI, testData), mov(x86.RCX, n), mov(x86.RDX, testPort), []byte{0xf3}, c.outs, done)
			g.write(testData, count(n*c.width))
			g.mustRun()
			g.port.expect(t, items(true, c.width, count(n*c.width))...)
			s := g.state().CPUs[0]
			if s.GPR[x86.RCX] != 0 || s.GPR[x86.RSI] != testData+uint64(n*c.width) {
				t.Errorf("rcx %d, rsi %#x afterwards", s.GPR[x86.RCX], s.GPR[x86.RSI])
			}
		})
		t.Run("ins "+c.name, func(t *testing.T) {
			g := newGuest(t, 1, mov(x86.RDI, testData), mov(x86.RCX, n), mov(x86.RDX, testPort), []byte{0xf3}, c.ins, done)
			g.mustRun()
			got := make([]byte, n*c.width)
			g.check(g.ram.Read(testData, got))
			if !bytes.Equal(got, count(n*c.width)) {
				t.Error("the memory differs from what was read")
			}
			if len(g.port.log) != n {
				t.Errorf("the device was read %d times, want %d", len(g.port.log), n)
			}
			s := g.state().CPUs[0]
			if s.GPR[x86.RCX] != 0 || s.GPR[x86.RDI] != testData+uint64(n*c.width) {
				t.Errorf("rcx %d, rdi %#x afterwards", s.GPR[x86.RCX], s.GPR[x86.RDI])
			}
		})
	}
	t.Run("ins backwards", func(t *testing.T) {
		g := newGuest(t, 1, []byte{0xfd}, mov(x86.RDI, testData+4), mov(x86.RCX, 5), mov(x86.RDX, testPort), []byte{0xf3, 0x6c}, done)
		g.mustRun()
		got := make([]byte, 5)
		g.check(g.ram.Read(testData, got))
		if !bytes.Equal(got, []byte{4, 3, 2, 1, 0}) {
			t.Errorf("memory is % x", got)
		}
	})
}

// Loads and stores of RAX at [RBX], by width.
var (
	loads  = map[int][]byte{1: {0x8a, 0x03}, 2: {0x66, 0x8b, 0x03}, 4: {0x8b, 0x03}, 8: {0x48, 0x8b, 0x03}}
	stores = map[int][]byte{1: {0x88, 0x03}, 2: {0x66, 0x89, 0x03}, 4: {0x89, 0x03}, 8: {0x48, 0x89, 0x03}}
)

func TestMMIOWrite(t *testing.T) {
	for width, store := range stores {
		for _, off := range []uint64{0, 8, 3, 13} { // aligned, and not
			g := newGuest(t, 1, mov(x86.RAX, 0x8877_6655_4433_2211), mov(x86.RBX, testMMIO+off), store, done)
			g.mustRun()
			g.mmio.expect(t, access{true, testMMIO + off, []byte{0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}[:width]})
		}
	}
}

func TestMMIORead(t *testing.T) {
	for width, load := range loads {
		g := newGuest(t, 1, mov(x86.RAX, 0x8877_6655_4433_2211), mov(x86.RBX, testMMIO+0x18), load, done)
		g.mmio.next = 0xa0
		g.mustRun()
		want := map[int]uint64{1: 0x8877_6655_4433_22a0, 2: 0x8877_6655_4433_a1a0, 4: 0xa3a2_a1a0, 8: 0xa7a6_a5a4_a3a2_a1a0}[width]
		if got := g.state().CPUs[0].GPR[x86.RAX]; got != want {
			t.Errorf("%d bytes: rax is %#x, want %#x", width, got, want)
		}
		if len(g.mmio.log) != 1 || g.mmio.log[0].addr != testMMIO+0x18 || len(g.mmio.log[0].data) != width {
			t.Errorf("%d bytes: the device saw %v", width, g.mmio.log)
		}
	}
}

// TestMMIOPageCrossing: an access over a page's end is two, in order, and the
// guest gets both halves.
func TestMMIOPageCrossing(t *testing.T) {
	const at = testMMIO + 0x1000 - 3
	g := newGuest(t, 1, mov(x86.RAX, 0x8877_6655_4433_2211), mov(x86.RBX, at), stores[8], done)
	g.mustRun()
	g.mmio.expect(t, access{true, at, []byte{0x11, 0x22, 0x33}}, access{true, at + 3, []byte{0x44, 0x55, 0x66, 0x77, 0x88}})

	g = newGuest(t, 1, mov(x86.RBX, at), loads[8], done)
	g.mustRun()
	g.mmio.expect(t, access{false, at, []byte{0, 1, 2}}, access{false, at + 3, []byte{3, 4, 5, 6, 7}})
	if got := g.state().CPUs[0].GPR[x86.RAX]; got != 0x0706_0504_0302_0100 {
		t.Errorf("rax is %#x", got)
	}
}

// TestMMIOReadModifyWrite is one read and one write.
func TestMMIOReadModifyWrite(t *testing.T) {
	g := newGuest(t, 1, mov(x86.RBX, testMMIO), []byte{0x83, 0x0b, 0x04}, done) // or dword [rbx], 4
	g.mustRun()
	g.mmio.expect(t, access{false, testMMIO, []byte{0, 1, 2, 3}}, access{true, testMMIO, []byte{4, 1, 2, 3}})
}

// TestMMIOString copies between a device's window and RAM, as memcpy_fromio and
// memcpy_toio do.
func TestMMIOString(t *testing.T) {
	const n = 300
	from := newGuest(t, 1, mov(x86.RSI, testMMIO), mov(x86.RDI, testData), mov(x86.RCX, n), []byte{0xf3, 0xa5}, done) // rep movsd
	from.mustRun()
	got := make([]byte, 4*n)
	from.check(from.ram.Read(testData, got))
	if !bytes.Equal(got, count(4*n)) {
		t.Error("what came from the device differs")
	}
	to := newGuest(t, 1, mov(x86.RSI, testData), mov(x86.RDI, testMMIO), mov(x86.RCX, n), []byte{0xf3, 0xa5}, done)
	to.write(testData, count(4*n))
	to.mustRun()
	var sent []byte
	for _, a := range to.mmio.log {
		sent = append(sent, a.data...)
	}
	if !bytes.Equal(sent, count(4*n)) {
		t.Error("what went to the device differs")
	}
}

// TestUnclaimed: nobody's address reads as all ones, and a write is lost.
func TestUnclaimed(t *testing.T) {
	for name, in := range map[string][]byte{"al": {0xe4, 0xf0}, "ax": {0x66, 0xe5, 0xf0}, "eax": {0xe5, 0xf0}} {
		g := newGuest(t, 1, mov(x86.RAX, 0), []byte{0xe7, 0xf0}, mov(x86.RAX, 0), in, done)
		g.mustRun()
		want := map[string]uint64{"al": 0xff, "ax": 0xffff, "eax": 0xffff_ffff}[name]
		if got := g.state().CPUs[0].GPR[x86.RAX]; got != want {
			t.Errorf("in %s: %#x", name, got)
		}
	}
	for width, load := range loads {
		g := newGuest(t, 1, mov(x86.RAX, 0), mov(x86.RBX, unclaimed), stores[width], load, done)
		g.mustRun()
		if got, want := g.state().CPUs[0].GPR[x86.RAX], ^uint64(0)>>(64-8*width); got != want {
			t.Errorf("%d bytes read as %#x, want %#x", width, got, want)
		}
	}
	// An access that begins in a device and ends outside is nobody's.
	g := newGuest(t, 1, mov(x86.RDX, testPort+14), []byte{0xed}, done) // in eax, dx
	g.mustRun()
	if got := g.state().CPUs[0].GPR[x86.RAX]; got != 0xffff_ffff || len(g.port.log) != 0 {
		t.Errorf("half outside: eax is %#x, the device saw %v", got, g.port.log)
	}
}

// TestExitsDoNotAllocate runs a guest of many exits of every kind: what a run
// allocates is that of its start and end, however many exits it has.
func TestExitsDoNotAllocate(t *testing.T) {
	const short, long = 100, 2100
	program := slices.Concat(
		mov(x86.RBX, testMMIO+0x100000), mov(x86.RDX, 0x100),
		[]byte{0xe7, 0x30},  // loop: out 0x30, eax
		[]byte{0xe5, 0x30},  //       in eax, 0x30
		stores[4], loads[8], //       mov [rbx], eax; mov rax, [rbx]
		[]byte{0xff, 0xc9}, //       dec ecx
		[]byte{0x75, 0},    //       jnz loop, filled in below
		done)
	loop := bytes.Index(program, []byte{0xe7, 0x30})
	jump := bytes.Index(program, []byte{0xff, 0xc9, 0x75}) + 3
	program[jump] = byte(loop - (jump + 1))
	g := newGuest(t, 1, program)
	exits := 0
	p := probe(func(bool, []byte) { exits++ })
	g.check(g.cfg.Ports.Map(0x30, 4, "probe", p))
	g.check(g.cfg.MMIO.Map(testMMIO+0x100000, 0x1000, "probe", p))
	allocations := func(rounds uint64) float64 {
		g.start.CPUs[0].GPR[x86.RCX] = rounds
		return testing.AllocsPerRun(5, func() {
			g.check(g.engine.SetState(g.start))
			g.mustRun()
		})
	}
	few, many := allocations(short), allocations(long)
	if want := 6 * 4 * (short + long); exits != want {
		t.Fatalf("%d exits, want %d", exits, want)
	}
	// A run's own few dozen vary by some with the scheduler's caches.
	if per := (many - few) / (4 * (long - short)); per > 0.001 {
		t.Errorf("%v allocations an exit: %v in a run of %d exits, %v in one of %d", per, few, 4*short, many, 4*long)
	}
}
