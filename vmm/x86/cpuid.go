package x86

import "math"

// Leaf is one answer of CPUID.
type Leaf struct {
	Function, Index    uint32
	HasIndex           bool // Index (ECX) counts
	EAX, EBX, ECX, EDX uint32
}

// Signature is CPUID.1:EAX. It is that of an in-order Atom (family 6, model
// 28, stepping 10), which does not speculate: the kernel's table of
// vulnerabilities (arch/x86/kernel/cpu/common.c, cpu_vuln_whitelist) clears
// such a CPU of all of them, so that no guest spends instructions on
// mitigations. docs/rationale.md has the reasons.
const Signature = 0x0001_06ca

// PhysBits is the width of a guest-physical address: the least that a 64-bit
// processor sold today has.
const PhysBits = 39

// CrystalHz is the frequency of the clock that drives the local APIC timer:
// that of KVM's in-kernel APIC, and of virtual time.
const CrystalHz = 1_000_000_000

// Origin says who makes a feature work for a guest under KVM.
type Origin uint8

// The origins of a feature.
const (
	Processor  Origin = iota // the host's processor must have it
	Hypervisor               // KVM provides it on any processor
	Hint                     // says only that something is fast
)

// Feature is a bit of CPUID: a register ('a' to 'd') of a function, at index 0.
type Feature struct {
	Name     string
	Function uint32
	Register byte
	Bit      uint
	Origin   Origin
}

// Features are all that the CPU has (SDM volume 2, CPUID): x86-64-v2, and what
// Linux needs to find its clock and its APIC without calibration. It has no
// XSAVE, so its whole FPU state is what FXSAVE stores.
var Features = []Feature{
	{"SSE3", 1, 'c', 0, Processor},
	{"SSSE3", 1, 'c', 9, Processor},
	{"CMPXCHG16B", 1, 'c', 13, Processor},
	{"SSE4.1", 1, 'c', 19, Processor},
	{"SSE4.2", 1, 'c', 20, Processor},
	{"x2APIC", 1, 'c', 21, Hypervisor},
	{"POPCNT", 1, 'c', 23, Processor},
	{"TSC-deadline", 1, 'c', 24, Hypervisor},
	{"hypervisor", 1, 'c', 31, Hypervisor},
	{"x87", 1, 'd', 0, Processor},
	{"DE", 1, 'd', 2, Processor},
	{"PSE", 1, 'd', 3, Processor},
	{"TSC", 1, 'd', 4, Processor},
	{"MSR", 1, 'd', 5, Processor},
	{"PAE", 1, 'd', 6, Processor},
	{"CMPXCHG8B", 1, 'd', 8, Processor},
	{"APIC", 1, 'd', 9, Processor},
	{"SYSENTER", 1, 'd', 11, Processor},
	{"MTRR", 1, 'd', 12, Hypervisor},
	{"PGE", 1, 'd', 13, Processor},
	{"CMOV", 1, 'd', 15, Processor},
	{"PAT", 1, 'd', 16, Processor},
	{"PSE-36", 1, 'd', 17, Processor},
	{"CLFLUSH", 1, 'd', 19, Processor},
	{"MMX", 1, 'd', 23, Processor},
	{"FXSR", 1, 'd', 24, Processor},
	{"SSE", 1, 'd', 25, Processor},
	{"SSE2", 1, 'd', 26, Processor},
	{"ARAT", 6, 'a', 2, Hypervisor}, // the APIC timer always runs
	{"FSGSBASE", 7, 'b', 0, Processor},
	{"TSC_ADJUST", 7, 'b', 1, Hypervisor},
	{"SMEP", 7, 'b', 7, Processor},
	{"ERMS", 7, 'b', 9, Hint}, // REP MOVSB and STOSB are fast
	{"SMAP", 7, 'b', 20, Processor},
	{"LAHF64", 0x8000_0001, 'c', 0, Processor},
	{"SYSCALL", 0x8000_0001, 'd', 11, Processor},
	{"NX", 0x8000_0001, 'd', 20, Processor},
	{"RDTSCP", 0x8000_0001, 'd', 27, Processor},
	{"LM", 0x8000_0001, 'd', 29, Processor},
	{"invariant TSC", 0x8000_0007, 'd', 8, Hypervisor},
}

// features are the bits of one register.
func features(function uint32, register byte) uint32 {
	var bits uint32
	for _, f := range Features {
		if f.Function == function && f.Register == register {
			bits |= 1 << f.Bit
		}
	}
	return bits
}

// featureHTT (CPUID.1:EDX) says that the package has several processors.
const featureHTT = 1 << 28

// CPUID is the table that CPU number index of cpus sees, on either engine.
// tscKHz is the rate of its time-stamp counter.
func CPUID(index, cpus int, tscKHz uint32) []Leaf {
	den, num := ratio(tscKHz, CrystalHz/1000)
	edx1 := features(1, 'd')
	if cpus > 1 {
		edx1 |= featureHTT
	}
	// Topology (SDM volume 3, 8.9): one package of cpus cores without
	// hyper-threading. APIC IDs need ceil(log2(cpus)) bits.
	bits := uint32(0)
	for 1<<bits < cpus {
		bits++
	}
	id := uint32(index)
	leaf := func(f, a, b, c, d uint32) Leaf { return Leaf{Function: f, EAX: a, EBX: b, ECX: c, EDX: d} }
	sub := func(f, i, a, b, c, d uint32) Leaf {
		return Leaf{Function: f, Index: i, HasIndex: true, EAX: a, EBX: b, ECX: c, EDX: d}
	}
	vendor := words("GenuineIntel")
	hypervisor := words("fifovmfifovm")
	brand := words("fifovm virtual CPU\x00                             ")
	// cache describes a cache in the form of leaf 4: type (1 data, 2
	// instruction, 3 unified), level, ways and sets of 64-byte lines.
	cache := func(i, typ, level, ways, sets uint32) Leaf {
		return sub(4, i, typ|level<<5|1<<8|(uint32(1)<<bits-1)<<26, 63|(ways-1)<<22, sets-1, 0)
	}
	return []Leaf{
		leaf(0, 0x16, vendor[0], vendor[2], vendor[1]),
		leaf(1, Signature, id<<24|uint32(1)<<bits<<16|8<<8, features(1, 'c'), edx1),
		leaf(2, 0x01, 0, 0, 0),
		cache(0, 1, 1, 8, 64), cache(1, 2, 1, 8, 64), cache(2, 3, 2, 16, 1024),
		sub(4, 3, 0, 0, 0, 0),
		leaf(6, features(6, 'a'), 0, 0, 0),
		sub(7, 0, 0, features(7, 'b'), 0, 0),
		sub(0xb, 0, 0, 1, 1<<8, id),
		sub(0xb, 1, bits, uint32(cpus), 2<<8|1, id),
		sub(0xb, 2, 0, 0, 2, id),
		leaf(0x15, den, num, CrystalHz, 0),
		leaf(0x16, tscKHz/1000, tscKHz/1000, 0, 0),
		leaf(0x4000_0000, 0x4000_0010, hypervisor[0], hypervisor[1], hypervisor[2]),
		leaf(0x4000_0010, tscKHz, CrystalHz/1000, 0, 0),
		leaf(0x8000_0000, 0x8000_0008, 0, 0, 0),
		leaf(0x8000_0001, 0, 0, features(0x8000_0001, 'c'), features(0x8000_0001, 'd')),
		leaf(0x8000_0002, brand[0], brand[1], brand[2], brand[3]),
		leaf(0x8000_0003, brand[4], brand[5], brand[6], brand[7]),
		leaf(0x8000_0004, brand[8], brand[9], brand[10], brand[11]),
		leaf(0x8000_0006, 0, 0, 1024<<16|8<<12|64, 0),
		leaf(0x8000_0007, 0, 0, 0, features(0x8000_0007, 'd')),
		leaf(0x8000_0008, PhysBits|48<<8, 0, 0, 0),
	}
}

// words packs text into the little-endian words in which CPUID gives it.
func words(s string) []uint32 {
	w := make([]uint32, len(s)/4)
	for i := range w {
		w[i] = uint32(s[4*i]) | uint32(s[4*i+1])<<8 | uint32(s[4*i+2])<<16 | uint32(s[4*i+3])<<24
	}
	return w
}

// ratio is the best fraction num/den for tsc/crystal (both in kHz) for which
// the kernel's crystal*num stays below 2^32 (arch/x86/kernel/tsc.c,
// native_calibrate_tsc). The continued fraction gives it: its last convergent
// that fits, or the last one between that and the next that fits, whichever is
// nearer. With a crystal of 1 GHz num has 12 bits, so that a rate just beside a
// whole number of GHz is up to 120 ppm off, most by less than 1.
func ratio(tsc, crystal uint32) (den, num uint32) {
	limit := uint64(1<<32-1) / uint64(crystal)
	a, b := uint64(tsc), uint64(crystal)
	n0, n1, d0, d1 := uint64(0), uint64(1), uint64(1), uint64(0)
	for b != 0 {
		q := a / b
		if q*n1+n0 > limit {
			q = (limit - n0) / n1
			if n, d := q*n1+n0, q*d1+d0; d1 == 0 || nearer(n, d, n1, d1, uint64(tsc), uint64(crystal)) {
				n1, d1 = n, d
			}
			break
		}
		n0, n1, d0, d1 = n1, q*n1+n0, d1, q*d1+d0
		a, b = b, a%b
	}
	return uint32(d1), uint32(n1)
}

// nearer says whether n/d is nearer to tsc/crystal than m/e is.
func nearer(n, d, m, e, tsc, crystal uint64) bool {
	distance := func(n, d uint64) float64 { return math.Abs(float64(n)*float64(crystal)/float64(d) - float64(tsc)) }
	return d != 0 && distance(n, d) < distance(m, e)
}
