package boot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"

	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

// area is a piece of guest memory that something lies in.
type area struct {
	name      string
	base, end uint64
}

// testKernel gives a kernel of size bytes that can be moved or not.
func testKernel(t testing.TB, size uint64, movable bool) *Kernel {
	image := elfOf(testBase, testCode, size, nil)
	if !movable {
		return parseTest(t, image)
	}
	return parseTest(t, bzImageOf(payloadOf("gzip", image), nil))
}

func testParams(initrd []byte) Params {
	p := Params{CommandLine: "console=ttyS0", CPUs: 1, Platform: testPlatform()}
	if initrd != nil {
		p.Initrd = section(initrd)
	}
	return p
}

// endless is an initrd of any size that takes no memory.
type endless struct{}

func (endless) ReadAt(p []byte, off int64) (int, error) {
	if len(p) > 0 {
		p[0] = 0x30 // the rest of RAM is zero anyway
	}
	return len(p), nil
}

// checkLoaded holds what must be true of any loaded kernel, as the guest sees it.
func checkLoaded(t *testing.T, ram *memory.RAM, k *Kernel, p *Params, e Entry) {
	t.Helper()
	le := binary.LittleEndian
	read := func(at, n uint64) []byte {
		b, err := ram.Slice(at, n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	bp := read(e.RSI, bpSize)
	e820 := readE820(bp)
	checkE820(t, e820)

	// The kernel is where the entry point is.
	shift := e.RIP - k.entry
	if k.align == 0 && shift != 0 || k.align != 0 && shift%k.align != 0 {
		t.Errorf("kernel moved by %#x, aligned to %#x", shift, k.align)
	}
	for _, s := range k.segments {
		if !bytes.Equal(read(s.addr+shift, uint64(len(s.data))), s.data) {
			t.Errorf("segment at %#x: other bytes than in the file", s.addr+shift)
		}
	}
	commandLine := uint64(le.Uint32(bp[hdrCmdLinePtr:]))
	if got := read(commandLine, uint64(len(p.CommandLine))+1); string(got) != p.CommandLine+"\x00" {
		t.Errorf("command line %q", got)
	}
	areas := []area{
		{"kernel", k.base + shift, k.end + shift},
		{"boot_params", e.RSI, e.RSI + bpSize},
		{"GDT", e.GDT, e.GDT + uint64(e.GDTLimit) + 1},
		{"page tables", e.CR3, e.CR3 + 6*memory.PageSize},
		{"command line", commandLine, commandLine + uint64(len(p.CommandLine)) + 1},
	}
	initrd, size := uint64(le.Uint32(bp[hdrRamdiskImage:])), uint64(le.Uint32(bp[hdrRamdiskSize:]))
	switch {
	case p.Initrd == nil || p.Initrd.Size() == 0:
		if initrd != 0 || size != 0 {
			t.Errorf("initrd at %#x+%#x where there is none", initrd, size)
		}
	case size != uint64(p.Initrd.Size()) || initrd%memory.PageSize != 0 || initrd+size-1 > k.initrdMax:
		t.Errorf("initrd at %#x+%#x", initrd, size)
	default:
		want := make([]byte, min(size, 64))
		if _, err := p.Initrd.ReadAt(want, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if !bytes.Equal(read(initrd, uint64(len(want))), want) {
			t.Error("initrd: other bytes than in the file")
		}
		areas = append(areas, area{"initrd", initrd, initrd + size})
	}
	if at := le.Uint64(bp[hdrSetupData:]); len(p.Seed) != 0 {
		node := read(at, 16+uint64(len(p.Seed)))
		if le.Uint64(node) != 0 || le.Uint32(node[8:]) != 9 || le.Uint32(node[12:]) != uint32(len(p.Seed)) || !bytes.Equal(node[16:], p.Seed) {
			t.Errorf("setup data %x", node)
		}
		areas = append(areas, area{"setup data", at, at + uint64(len(node))})
	} else if at != 0 {
		t.Errorf("setup data at %#x where there are none", at)
	}
	for _, a := range areas {
		if !covers(e820, e820RAM, a.base, a.end) {
			t.Errorf("%s at %#x to %#x: not all RAM in %v", a.name, a.base, a.end, e820)
		}
	}
	rsdp := le.Uint64(bp[bpACPIRSDP:])
	tables := checkTables(t, read, rsdp)
	for _, a := range tables {
		if !covers(e820, e820ACPI, a.base, a.end) {
			t.Errorf("%s at %#x to %#x: not all ACPI data in %v", a.name, a.base, a.end, e820)
		}
	}
	checkDisjoint(t, append(areas, tables...))
	checkMapped(t, read, e)
}

func readE820(bp []byte) []e820Entry {
	m := make([]e820Entry, bp[bpE820Entries])
	for i := range m {
		b := bp[bpE820Table+i*e820EntrySize:]
		m[i] = e820Entry{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint32(b[16:])}
	}
	return m
}

// checkE820 wants the entries sorted and disjoint, and no RAM in the windows of
// video memory and ROMs.
func checkE820(t *testing.T, m []e820Entry) {
	t.Helper()
	var end uint64
	for _, e := range m {
		if e.addr < end || e.size == 0 {
			t.Errorf("e820 is not in order: %v", m)
		}
		end = e.addr + e.size
		if e.kind == e820RAM && e.addr < biosEnd && end > ebdaBase {
			t.Errorf("e820 has RAM in the BIOS area: %v", m)
		}
	}
}

func covers(m []e820Entry, kind uint32, base, end uint64) bool {
	for _, e := range m {
		if e.kind == kind && e.addr <= base && end <= e.addr+e.size {
			return true
		}
	}
	return false
}

func checkDisjoint(t *testing.T, areas []area) {
	t.Helper()
	sort.Slice(areas, func(i, j int) bool { return areas[i].base < areas[j].base })
	for i := 1; i < len(areas); i++ {
		if a, b := areas[i-1], areas[i]; b.base < a.end {
			t.Errorf("%s at %#x to %#x overlaps %s at %#x", a.name, a.base, a.end, b.name, b.base)
		}
	}
}

// checkMapped walks the page tables as the CPU would: all of the low 4 GiB is
// mapped to itself, writable and executable.
func checkMapped(t *testing.T, read func(at, n uint64) []byte, e Entry) {
	t.Helper()
	const address = 1<<52 - 1<<12
	entry := func(table uint64, v uint64, shift int) uint64 {
		return binary.LittleEndian.Uint64(read(table&address+(v>>shift&511)*8, 8))
	}
	for v := uint64(0); v < 1<<32; v += 1 << 20 {
		l4 := entry(e.CR3, v, 39)
		l3 := entry(l4, v, 30)
		l2 := entry(l3, v, 21)
		if l4&3 != 3 || l3&0x83 != 3 || l2&0x83 != 0x83 || (l4|l3|l2)>>63 != 0 || l2&address+v&(2<<20-1) != v {
			t.Fatalf("%#x: not mapped to itself: %#x, %#x, %#x", v, l4, l3, l2)
		}
	}
	gdt := read(e.GDT, uint64(e.GDTLimit)+1)
	if got := binary.LittleEndian.Uint64(gdt[x86.SelectorCode:]); got != codeSegment {
		t.Errorf("code segment %#x", got)
	}
	if got := binary.LittleEndian.Uint64(gdt[x86.SelectorData:]); got != dataSegment {
		t.Errorf("data segment %#x", got)
	}
}

func newRAM(t testing.TB, size uint64) *memory.RAM {
	t.Helper()
	ram, err := memory.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(ram.Close()) })
	return ram
}

func TestLoad(t *testing.T) {
	ram := newRAM(t, 64<<20)
	k := testKernel(t, 1<<20, true)
	p := testParams(bytes.Repeat([]byte("initrd"), 1000))
	p.Seed = []byte("seed")
	p.CPUs = 3
	e, err := Load(ram, k, p)
	if err != nil {
		t.Fatal(err)
	}
	checkLoaded(t, ram, k, &p, e)
	if e.RIP != testBase {
		t.Errorf("entry at %#x, want %#x, as it fits", e.RIP, testBase)
	}
	// Whatever we don't set stays zero: above all screen_info.
	bp, err := ram.Slice(e.RSI, bpSize)
	must(err)
	if !bytes.Equal(bp[:bpACPIRSDP], make([]byte, bpACPIRSDP)) {
		t.Error("boot_params: screen_info is not zero")
	}
	if bp[0x1ef] != 0 {
		t.Error("boot_params: the sentinel is set")
	}
}

// TestLoadAnySize loads kernels and initrds of random sizes into memories of
// random sizes. What fits must be in order; what doesn't must truly not fit.
func TestLoadAnySize(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	upTo := func(n uint64) uint64 { // each magnitude as likely
		return uint64(1) + r.Uint64N(1+n>>r.IntN(24))
	}
	var loaded int
	for range 3000 {
		size := 16<<20 + upTo(6<<30-16<<20)&^(memory.PageSize-1)
		k := testKernel(t, max(uint64(len(testCode)), upTo(512<<20)), r.IntN(2) == 0)
		p := testParams(nil)
		p.CPUs = 1 + r.IntN(300)
		p.CommandLine = strings.Repeat("x", r.IntN(elfCommandMax+1))
		p.Seed = make([]byte, r.IntN(maxSeed+1))
		var initrd uint64
		if r.IntN(4) != 0 {
			initrd = upTo(3 << 30)
			p.Initrd = io.NewSectionReader(endless{}, 0, int64(initrd))
			// Read, it would touch gigabytes; the place is what matters.
		}
		t.Run(fmt.Sprintf("%dMiB,kernel%dMiB,initrd%dMiB", size>>20, mib(k.end-k.base), mib(initrd)), func(t *testing.T) {
			ram := newRAM(t, size)
			e, err := Load(ram, k, p)
			if err != nil {
				checkError(t, err, "boot: kernel: ", " MiB")
				checkNoRoom(t, ram, k, initrd)
				return
			}
			loaded++
			checkLoaded(t, ram, k, &p, e)
		})
	}
	if loaded < 1000 {
		t.Errorf("only %d of 3000 loaded: the sizes test nothing", loaded)
	}
}

// checkNoRoom tries all places, 1 MiB apart, for a kernel and an initrd that
// were found not to fit.
func checkNoRoom(t *testing.T, ram *memory.RAM, k *Kernel, initrd uint64) {
	t.Helper()
	top := uint64(len(ram.Slots()[0].Bytes))
	size := k.end - k.base
	for base := k.lowest(); base+size <= top && (k.align != 0 || base == k.base); base += max(k.align, 1<<20) {
		limit := min(top, k.initrdMax+1)
		above := limit - min(limit, alignUp(base+size, memory.PageSize))
		below := min(base, limit) - lowEnd
		if max(above, below) >= alignUp(initrd, memory.PageSize) {
			t.Errorf("kernel at %#x and the initrd fit, but were refused", base)
		}
	}
}

func TestLoadMoves(t *testing.T) {
	k := testKernel(t, 8<<20, true)
	for _, c := range []struct {
		ram, initrd, want uint64
	}{
		{24 << 20, 0, testBase},        // just fits
		{24<<20 - 4096, 0, 2 << 20},    // not where it was linked for
		{10 << 20, 0, 2 << 20},         // nor anywhere else
		{32 << 20, 8 << 20, testBase},  // initrd above
		{32 << 20, 15 << 20, testBase}, // initrd below
		{32 << 20, 16 << 20, 2 << 20},  // initrd above, when the kernel goes down
		{32 << 20, 22 << 20, 2 << 20},
		{32 << 20, 23 << 20, 24 << 20}, // initrd below, when the kernel goes up
	} {
		t.Run(fmt.Sprintf("%d,%d", c.ram>>20, c.initrd>>20), func(t *testing.T) {
			p := testParams(nil)
			if c.initrd != 0 {
				p.Initrd = io.NewSectionReader(endless{}, 0, int64(c.initrd))
			}
			ram := newRAM(t, c.ram)
			e, err := Load(ram, k, p)
			if err != nil {
				t.Fatal(err)
			}
			checkLoaded(t, ram, k, &p, e)
			if e.RIP != c.want {
				t.Errorf("kernel at %#x, want %#x", e.RIP, c.want)
			}
		})
	}
}

func TestLoadErrors(t *testing.T) {
	movable, fixed := testKernel(t, 8<<20, true), testKernel(t, 8<<20, false)
	for _, c := range []struct {
		name   string
		ram    uint64
		kernel *Kernel
		change func(*Params)
		want   string
	}{
		{"memory too small", 16 << 20, fixed, nil, "does not fit the memory of 16 MiB: it needs at least 24 MiB"},
		{"memory too small to move", 8 << 20, movable, nil, "does not fit the memory of 8 MiB: it needs at least 10 MiB"},
		{"memory of a page", 4096, movable, nil, "does not fit the memory of 0 MiB: it needs at least 10 MiB"},
		{"initrd too large", 64 << 20, movable, func(p *Params) { p.Initrd = io.NewSectionReader(endless{}, 0, 100<<20) },
			"initrd of 100 MiB does not fit the memory of 64 MiB beside the kernel: it needs at least 110 MiB"},
		{"initrd too large for any memory", 64 << 20, movable, func(p *Params) { p.Initrd = io.NewSectionReader(endless{}, 0, 5<<30) },
			"initrd of 5120 MiB is too large for this kernel: it takes at most 2038 MiB"},
		{"initrd that shrank", 64 << 20, movable, func(p *Params) { p.Initrd = io.NewSectionReader(strings.NewReader("short"), 0, 100) },
			"initrd: read 5 of 100 bytes: EOF"},
		{"command line too long", 64 << 20, movable, func(p *Params) { p.CommandLine = strings.Repeat("x", 2048) },
			"command line of 2048 characters: this kernel takes at most 2047"},
		{"command line with a zero", 64 << 20, movable, func(p *Params) { p.CommandLine = "a\x00b" }, "command line with a zero byte"},
		{"no CPUs", 64 << 20, movable, func(p *Params) { p.CPUs = 0 }, "0 CPUs: want 1 to 4096"},
		{"seed too long", 64 << 20, movable, func(p *Params) { p.Seed = make([]byte, 1025) }, "seed of 1025 bytes: want at most 1024"},
		{"no APICs", 64 << 20, movable, func(p *Params) { p.Platform = Platform{} }, "APICs at 0x0 and 0x0: want"},
		{"odd ECAM", 64 << 20, movable, func(p *Params) { p.Platform.ECAM.Size++ }, "ECAM at"},
		{"ECAM in RAM", 64 << 20, movable, func(p *Params) { p.Platform.ECAM.Base = 16 << 20 }, "ECAM at 0x1000000+0x10000000: want 1 to 256 MiB between 0xc0000000 and 0x100000000"},
		{"32-bit window too long", 64 << 20, movable, func(p *Params) { p.Platform.MMIO32.Size = 1 << 32 }, "32-bit PCI window at"},
		{"64-bit window too low", 64 << 20, movable, func(p *Params) { p.Platform.MMIO64.Base = 1 << 20 }, "64-bit PCI window at 0x100000+0x4000000000: want it from 0x100000000 on"},
		{"64-bit window that wraps", 64 << 20, movable, func(p *Params) { p.Platform.MMIO64.Base = -p.Platform.MMIO64.Size + 1<<12; p.Platform.MMIO64.Size *= 2 }, "64-bit PCI window at"},
		{"many UARTs", 64 << 20, movable, func(p *Params) { p.Platform.UARTs = make([]Port, 10) }, "10 UARTs: want at most 9"},
		{"half a sleep register", 64 << 20, movable, func(p *Params) { p.Platform.SleepStatus = 0 }, "sleep control and status ports"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := testParams(nil)
			if c.change != nil {
				c.change(&p)
			}
			_, err := Load(newRAM(t, c.ram), c.kernel, p)
			checkError(t, err, "boot: kernel: ", c.want)
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, path := range realKernels(b) {
		b.Run(path, func(b *testing.B) {
			k, err := Open(path)
			if err != nil {
				b.Fatal(err)
			}
			initrd := make([]byte, 5<<20)
			for b.Loop() {
				ram, err := memory.New(256 << 20)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := Load(ram, k, testParams(initrd)); err != nil {
					b.Fatal(err)
				}
				must(ram.Close())
			}
		})
	}
}
