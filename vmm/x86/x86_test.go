package x86

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const someTSC = 2_595_123 // kHz

// table is a CPU's answers by function and index.
func table(t *testing.T, index, cpus int) map[[2]uint32]Leaf {
	t.Helper()
	m := map[[2]uint32]Leaf{}
	for _, l := range CPUID(index, cpus, someTSC) {
		k := [2]uint32{l.Function, l.Index}
		if _, ok := m[k]; ok {
			t.Errorf("function %#x, index %d, is there twice", l.Function, l.Index)
		}
		if l.Index != 0 && !l.HasIndex {
			t.Errorf("function %#x has an index that does not count", l.Function)
		}
		m[k] = l
	}
	return m
}

func text(words ...uint32) string {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return string(b)
}

// TestCPUIDRanges: the highest functions that leaf 0, 0x40000000 and 0x80000000
// promise are there, and nothing is beyond.
func TestCPUIDRanges(t *testing.T) {
	m := table(t, 0, 1)
	for _, base := range []uint32{0, 0x4000_0000, 0x8000_0000} {
		highest := m[[2]uint32{base, 0}].EAX
		if _, ok := m[[2]uint32{highest, 0}]; !ok {
			t.Errorf("function %#x promises up to %#x, which is not there", base, highest)
		}
		for k := range m {
			if k[0] >= base && k[0] < base+0x1000_0000 && k[0] > highest {
				t.Errorf("function %#x is beyond %#x", k[0], highest)
			}
		}
	}
	// KVM takes at most 256, of which the engine has room for as many.
	if n := len(CPUID(0, 64, someTSC)); n > 64 {
		t.Errorf("%d entries", n)
	}
}

func TestCPUIDNames(t *testing.T) {
	m := table(t, 0, 1)
	l := m[[2]uint32{0, 0}]
	if got := text(l.EBX, l.EDX, l.ECX); got != "GenuineIntel" {
		t.Errorf("vendor %q", got)
	}
	l = m[[2]uint32{0x4000_0000, 0}]
	if got := text(l.EBX, l.ECX, l.EDX); got != "fifovmfifovm" {
		t.Errorf("hypervisor %q", got)
	}
	var brand string
	for f := uint32(0x8000_0002); f <= 0x8000_0004; f++ {
		l = m[[2]uint32{f, 0}]
		brand += text(l.EAX, l.EBX, l.ECX, l.EDX)
	}
	if len(brand) != 48 || strings.TrimRight(strings.TrimRight(brand, " "), "\x00") != "fifovm virtual CPU" {
		t.Errorf("brand %q", brand)
	}
}

// TestCPUIDFeatures: every feature of the list is in the table, and nothing
// else is in the registers that are made of features alone.
func TestCPUIDFeatures(t *testing.T) {
	m := table(t, 0, 1)
	register := func(l Leaf, r byte) uint32 { return map[byte]uint32{'a': l.EAX, 'b': l.EBX, 'c': l.ECX, 'd': l.EDX}[r] }
	want := map[[2]uint32]uint32{}
	names := map[string]bool{}
	for _, f := range Features {
		if names[f.Name] {
			t.Errorf("%s is listed twice", f.Name)
		}
		names[f.Name] = true
		k := [2]uint32{f.Function, uint32(f.Register)}
		if want[k]>>f.Bit&1 != 0 {
			t.Errorf("%s has another's bit", f.Name)
		}
		want[k] |= 1 << f.Bit
	}
	for k, bits := range want {
		if got := register(m[[2]uint32{k[0], 0}], byte(k[1])); got != bits {
			t.Errorf("function %#x, E%cX, is %#x, the list says %#x", k[0], byte(k[1])-'a'+'A', got, bits)
		}
	}
	// x86-64-v2 (the psABI's table of levels).
	for _, name := range []string{"CMOV", "CMPXCHG8B", "FXSR", "MMX", "SYSCALL", "SSE", "SSE2",
		"CMPXCHG16B", "LAHF64", "POPCNT", "SSE3", "SSE4.1", "SSE4.2", "SSSE3", "SMEP", "SMAP", "NX"} {
		if !names[name] {
			t.Errorf("%s is missing", name)
		}
	}
	for _, name := range []string{"XSAVE", "AVX"} {
		if names[name] {
			t.Errorf("%s needs more state than a CPU has", name)
		}
	}
}

// TestCPUIDTopology checks, for 1 to 64 CPUs, that the APIC IDs are told apart
// by as many bits as the leaves say, and that they agree with each other.
func TestCPUIDTopology(t *testing.T) {
	for cpus := 1; cpus <= 64; cpus++ {
		packages := map[uint32]bool{}
		ids := map[uint32]bool{}
		for i := range cpus {
			m := table(t, i, cpus)
			one := m[[2]uint32{1, 0}]
			threads, cores := m[[2]uint32{0xb, 0}], m[[2]uint32{0xb, 1}]
			end := m[[2]uint32{0xb, 2}]
			id := cores.EDX
			if one.EBX>>24 != id || threads.EDX != id || end.EDX != id || id != uint32(i) {
				t.Fatalf("CPU %d of %d: APIC IDs %d, %d, %d", i, cpus, one.EBX>>24, threads.EDX, cores.EDX)
			}
			ids[id] = true
			if threads.EAX != 0 || threads.EBX != 1 || threads.ECX != 1<<8 {
				t.Fatalf("CPU %d of %d: threads %+v", i, cpus, threads)
			}
			if cores.EBX != uint32(cpus) || cores.ECX != 2<<8|1 {
				t.Fatalf("CPU %d of %d: cores %+v", i, cpus, cores)
			}
			if end.EBX != 0 || end.ECX>>8 != 0 {
				t.Fatalf("CPU %d of %d: the last level is %+v", i, cpus, end)
			}
			packages[id>>cores.EAX] = true
			if n := one.EBX >> 16 & 0xff; n != 1<<cores.EAX || n < uint32(cpus) {
				t.Fatalf("CPU %d of %d: room for %d in leaf 1, %d bits in leaf 0xb", i, cpus, n, cores.EAX)
			}
			if htt := one.EDX>>28&1 != 0; htt != (cpus > 1) {
				t.Fatalf("CPU %d of %d: HTT is %v", i, cpus, htt)
			}
			if n := m[[2]uint32{4, 0}].EAX>>26 + 1; n != 1<<cores.EAX {
				t.Fatalf("CPU %d of %d: leaf 4 has room for %d cores", i, cpus, n)
			}
		}
		if len(packages) != 1 || len(ids) != cpus {
			t.Fatalf("%d CPUs: %d packages, %d APIC IDs", cpus, len(packages), len(ids))
		}
	}
}

// TestCPUIDCaches: the sizes are those that leaf 0x80000006 says as well.
func TestCPUIDCaches(t *testing.T) {
	m := table(t, 0, 1)
	size := func(i uint32) uint32 {
		l := m[[2]uint32{4, i}]
		return (l.EBX>>22 + 1) * (l.EBX&0xfff + 1) * (l.ECX + 1)
	}
	if size(0) != 32<<10 || size(1) != 32<<10 || size(2) != 1<<20 {
		t.Errorf("caches of %d, %d and %d bytes", size(0), size(1), size(2))
	}
	if l2 := m[[2]uint32{0x8000_0006, 0}].ECX; l2>>16<<10 != size(2) || l2&0xff != 64 {
		t.Errorf("leaf 0x80000006 has a second-level cache of %d KiB", l2>>16)
	}
	if m[[2]uint32{4, 3}].EAX&31 != 0 {
		t.Error("leaf 4 has no end")
	}
}

// TestRatio compares with all fractions that the kernel's arithmetic allows:
// none is nearer.
func TestRatio(t *testing.T) {
	const crystal = CrystalHz / 1000
	rnd := rand.New(rand.NewPCG(1, 2))
	rates := []uint32{500_000, 999_999, 1_000_000, 1_000_001, 2_000_000, 2_000_200, 2_595_123, 3_000_000, 4_294_000, 6_000_000, 1, 4_294_967_295}
	for range 300 {
		rates = append(rates, 500_000+rnd.Uint32N(5_500_001))
	}
	var errors []float64
	for _, tsc := range rates {
		den, num := ratio(tsc, crystal)
		if den == 0 || num == 0 {
			t.Fatalf("%d kHz: %d/%d", tsc, num, den)
		}
		if uint64(crystal)*uint64(num) >= 1<<32 {
			t.Fatalf("%d kHz: %d/%d is too much for the kernel's 32 bits", tsc, num, den)
		}
		off := func(num, den float64) float64 { return math.Abs(crystal*num/den/float64(tsc) - 1) }
		got, best := off(float64(num), float64(den)), math.Inf(1)
		for n := 1.0; n*crystal < 1<<32; n++ {
			d := math.Floor(n * crystal / float64(tsc))
			if d > 0 {
				best = min(best, off(n, d))
			}
			best = min(best, off(n, d+1))
		}
		if got > best*(1+1e-9)+1e-15 {
			t.Errorf("%d kHz: %d/%d is off by %.3g, there is one by %.3g", tsc, num, den, got, best)
		}
		if tsc >= 500_000 && tsc <= 6_000_000 {
			errors = append(errors, got)
		}
	}
	slices.Sort(errors)
	t.Logf("off by %.3g ppm in the middle, %.3g ppm at most", errors[len(errors)/2]*1e6, errors[len(errors)-1]*1e6)
}

// walk translates by the page tables in b, which lie at address at.
func walk(t *testing.T, b []byte, at, linear uint64) (physical, flags uint64, ok bool) {
	t.Helper()
	table, flags := at, ^uint64(0)
	for level := 3; level >= 0; level-- {
		off := table - at + 8*(linear>>(12+9*level)&511)
		if off+8 > uint64(len(b)) {
			t.Fatalf("the walk of %#x leaves the tables at level %d", linear, level)
		}
		e := binary.LittleEndian.Uint64(b[off:])
		if e&PTEPresent == 0 {
			return 0, 0, false
		}
		flags &= e
		if table = e & PTEAddress; level == 1 && e&PTELarge != 0 {
			return table | linear&(2<<20-1), flags, true
		}
	}
	return table | linear&0xfff, flags, true
}

func TestIdentityMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, gib := range []int{1, 2, 4, 16, 512} {
		for _, user := range []bool{false, true} {
			const at = 0x7000
			b := IdentityMap(at, gib, user)
			if want := (2 + gib) * 4096; len(b) != want {
				t.Errorf("%d GiB take %d bytes, want %d", gib, len(b), want)
			}
			end := uint64(gib) << 30
			for _, a := range []uint64{0, 1, 0x1f_ffff, 0x20_0000, end - 1, rnd.Uint64N(end), rnd.Uint64N(end), rnd.Uint64N(end)} {
				physical, flags, ok := walk(t, b, at, a)
				if !ok || physical != a {
					t.Errorf("%d GiB: %#x is mapped to %#x, %v", gib, a, physical, ok)
				}
				if flags&PTEWrite == 0 || flags&PTENX != 0 || flags&PTEUser != 0 != user {
					t.Errorf("%d GiB, user %v: %#x has flags %#x", gib, user, a, flags)
				}
			}
			if _, _, ok := walk(t, b, at, end); ok {
				t.Errorf("%d GiB: %#x is mapped too", gib, end)
			}
		}
	}
}

// TestReset checks what the SDM's table 9-1 and its chapter on the APIC say.
func TestReset(t *testing.T) {
	const cpus = 3
	s := PowerOn(cpus)
	if len(s.CPUs) != cpus {
		t.Fatalf("%d CPUs", len(s.CPUs))
	}
	for i := range s.CPUs {
		c := &s.CPUs[i]
		if c.RIP != 0xfff0 || c.RFLAGS != 2 || c.CR0 != 0x6000_0010 || c.CR3 != 0 || c.CR4 != 0 || c.EFER != 0 {
			t.Errorf("CPU %d: %v", i, c)
		}
		if cs := c.Seg[CS]; cs.Selector != 0xf000 || cs.Base != 0xffff_0000 || cs.Limit != 0xffff {
			t.Errorf("CPU %d: CS is %+v", i, cs)
		}
		if c.GPR[RDX] != Signature || c.DR6 != 0xffff_0ff0 || c.DR7 != 0x400 {
			t.Errorf("CPU %d: EDX %#x, DR6 %#x, DR7 %#x", i, c.GPR[RDX], c.DR6, c.DR7)
		}
		if fcw, mxcsr := binary.LittleEndian.Uint16(c.FPU[0:]), binary.LittleEndian.Uint32(c.FPU[24:]); fcw != 0x40 || mxcsr != 0x1f80 {
			t.Errorf("CPU %d: FCW %#x, MXCSR %#x", i, fcw, mxcsr)
		}
		apic := func(offset int) uint32 { return binary.LittleEndian.Uint32(c.LAPIC[offset:]) }
		if apic(0x20) != uint32(i)<<24 || apic(0xe0) != 0xffff_ffff || apic(0xf0) != 0xff || apic(0x320) != 1<<16 || apic(0x370) != 1<<16 {
			t.Errorf("CPU %d: APIC ID %#x, DFR %#x, SVR %#x, timer %#x", i, apic(0x20), apic(0xe0), apic(0xf0), apic(0x320))
		}
		if bsp := c.APICBase>>8&1 != 0; bsp != (i == 0) || (c.Activity == Running) != bsp || c.APICBase&^0x100 != 0xfee0_0800 {
			t.Errorf("CPU %d: APIC base %#x, activity %d", i, c.APICBase, c.Activity)
		}
	}
	for i, r := range s.IOAPIC.Redirection {
		if r != 1<<16 {
			t.Errorf("I/O APIC input %d: %#x, want it masked", i, r)
		}
	}
}

func TestLongMode(t *testing.T) {
	for _, cpl := range []uint8{0, 3} {
		c := Reset(1)
		c.LongMode(0x5000, cpl)
		if c.CR0&(CR0PE|CR0PG) != CR0PE|CR0PG || c.CR4&CR4PAE == 0 || c.EFER&(EFERLME|EFERLMA) != EFERLME|EFERLMA || c.CR3 != 0x5000 {
			t.Errorf("CPL %d: %v", cpl, &c)
		}
		if c.CR0&(CR0CD|CR0NW) != 0 {
			t.Errorf("CPL %d: caches are off", cpl)
		}
		if c.Seg[CS].L != 1 || c.Seg[CS].DB != 0 || c.Activity != Running || c.RFLAGS&FlagIF != 0 {
			t.Errorf("CPL %d: CS %+v, RFLAGS %#x", cpl, c.Seg[CS], c.RFLAGS)
		}
		for i, s := range c.Seg {
			if s.DPL != cpl || uint8(s.Selector&3) != cpl || s.P != 1 || s.Base != 0 {
				t.Errorf("CPL %d: segment %d is %+v", cpl, i, s)
			}
		}
	}
}

// TestStateMSRs: no register twice, the deadline last and after the counter,
// and what boot sets is part of the state.
func TestStateMSRs(t *testing.T) {
	list := StateMSRs()
	if list[len(list)-1] != MSRTSCDeadline || slices.Index(list, MSRTSC) < 0 {
		t.Errorf("the order is %#x", list)
	}
	seen := map[uint32]bool{}
	for _, i := range list {
		if seen[i] {
			t.Errorf("%#x is there twice", i)
		}
		seen[i] = true
	}
	for _, m := range BootMSRs() {
		if !seen[m.Index] {
			t.Errorf("%#x is set at boot and is not part of the state", m.Index)
		}
	}
	for _, i := range []uint32{MSREFER, MSRFSBase, MSRGSBase, MSRAPICBase} {
		if seen[i] {
			t.Errorf("%#x has a field of its own", i)
		}
	}
	if n := len(list); n > 64 {
		t.Errorf("%d registers, engines have room for 64", n)
	}
}

func TestStuck(t *testing.T) {
	s := &Stuck{CPU: 3, Err: ErrTripleFault}
	if s.Error() != "CPU 3: triple fault" || s.Unwrap() != ErrTripleFault {
		t.Errorf("%v", s)
	}
	c := Reset(0)
	c.GPR[R15] = 0x1234
	text := c.String()
	for _, want := range []string{"rip 000000000000fff0", "r15 0000000000001234", "cs f000", "cpl 0"} {
		if !strings.Contains(text, want) {
			t.Errorf("the registers' text has no %q:\n%s", want, text)
		}
	}
}

func TestDisassemble(t *testing.T) {
	for _, test := range []struct {
		name string
		l, d uint8 // CS.L and CS.D
		code []byte
		want string
	}{
		{"64-bit", 1, 0, []byte{0x48, 0x89, 0xd8, 0x90}, `"mov rax, rbx" (48 89 d8)`},
		{"32-bit", 0, 1, []byte{0x89, 0xd8, 0x90}, `"mov eax, ebx" (89 d8)`},
		{"16-bit", 0, 0, []byte{0x89, 0xd8, 0x90}, `"mov ax, bx" (89 d8)`},
		{"relative to RIP", 1, 0, []byte{0xeb, 0xfe}, `"jmp 0x1000" (eb fe)`},
		{"AVX", 1, 0, []byte{0xc5, 0xf5, 0xfe, 0xc2, 0x90}, `"vpaddd ymm0, ymm1, ymm2" (c5 f5 fe c2)`},
		{"without operands", 1, 0, []byte{0xc5, 0xf8, 0x77, 0xf4}, `"vzeroupper" (c5 f8 77)`},
		{"without operands", 1, 0, []byte{0xc5, 0xfc, 0x77, 0x90}, `"vzeroall" (c5 fc 77)`},
		{"unknown", 1, 0, []byte{0x0f, 0x01, 0xc1, 0x90}, "bytes that the disassembler doesn't know (0f 01 c1 90)"},
		{"cut off", 1, 0, []byte{0x66}, "bytes that the disassembler doesn't know (66)"},
		{"none", 1, 0, nil, "bytes that are not in RAM"},
	} {
		c := &CPU{RIP: 0x1000}
		c.Seg[CS].L, c.Seg[CS].DB = test.l, test.d
		if got := Disassemble(test.code, c); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
