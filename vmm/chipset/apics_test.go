package chipset

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fifovm/vmm/clock"
	"fifovm/vmm/x86"
)

// bench is the interrupt controllers of some CPUs.
type bench struct {
	t     testing.TB
	now   hand
	clock *clock.Clock
	*APICs
	cpus []*listener
}

// listener is a CPU that only notes what it is told.
type listener struct {
	interrupts int
	seen       []string // but for interrupts
}

func (c *listener) Interrupt()     { c.interrupts++ }
func (c *listener) NMI()           { c.seen = append(c.seen, "NMI") }
func (c *listener) INIT()          { c.seen = append(c.seen, "INIT") }
func (c *listener) SIPI(vec uint8) { c.seen = append(c.seen, fmt.Sprintf("SIPI %#x", vec)) }

func newBench(t testing.TB, cpus int) *bench {
	b := &bench{t: t}
	b.clock = clock.New(&b.now)
	var list []CPU
	for range cpus {
		c := &listener{}
		b.cpus = append(b.cpus, c)
		list = append(list, c)
	}
	b.APICs = NewAPICs(b.clock, list)
	return b
}

// enabled is a bench whose local APICs are enabled by software.
func enabled(t testing.TB, cpus int) *bench {
	b := newBench(t, cpus)
	for i := range cpus {
		b.write(i, apicSVR, svrEnable|0xff)
	}
	return b
}

const x2apicBase = LocalAPICBase | baseEnable | baseX2APIC

// x2apic puts some CPUs into x2APIC mode.
func (b *bench) x2apic(cpus ...int) {
	for _, i := range cpus {
		if !b.Local[i].SetBase(x2apicBase) {
			b.t.Fatalf("CPU %d does not enter x2APIC mode", i)
		}
	}
}

// write and read are accesses to a register of a CPU's xAPIC.
func (b *bench) write(cpu, n int, v uint32) {
	b.Local[cpu].Write(uint64(n)<<4, binary.LittleEndian.AppendUint32(nil, v))
}

func (b *bench) read(cpu, n int) uint32 {
	var data [4]byte
	b.Local[cpu].Read(uint64(n)<<4, data[:])
	return binary.LittleEndian.Uint32(data[:])
}

func (b *bench) expectRegister(cpu, n int, want uint32) {
	b.t.Helper()
	if got := b.read(cpu, n); got != want {
		b.t.Errorf("CPU %d: register %#x is %#x, want %#x", cpu, n, got, want)
	}
}

// take is what a CPU's APIC has for it: accepted and ended. -1 is nothing.
func (b *bench) take(cpu int) int {
	l := b.Local[cpu]
	v, ok := l.Pending()
	if !ok {
		return -1
	}
	if got := l.Accept(); got != v {
		b.t.Errorf("CPU %d: accepted %#x, pending was %#x", cpu, got, v)
	}
	l.endOfInterrupt()
	return int(v)
}

func (b *bench) expectTake(cpu, want int) {
	b.t.Helper()
	if got := b.take(cpu); got != want {
		b.t.Errorf("CPU %d takes %#x, want %#x", cpu, got, want)
	}
}

// pass lets time go by event by event, and counts them.
func (b *bench) pass(ns int64) int {
	n := 0
	end := b.now + hand(ns)
	for b.clock.Next() <= int64(end) {
		b.now = max(b.now, hand(b.clock.Next()))
		b.clock.RunDue()
		n++
	}
	b.now = end
	return n
}

// got is what each CPU has been told or has pending, in words.
func (b *bench) got() []string {
	var all []string
	for i, c := range b.cpus {
		words := c.seen
		c.seen = nil
		for v := b.take(i); v >= 0; v = b.take(i) {
			words = append(words, fmt.Sprintf("%#x", v))
		}
		all = append(all, strings.Join(words, ","))
	}
	return all
}

func TestNewAPICsRefusesTooMany(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("256 CPUs: no panic")
		}
	}()
	newBench(t, 256)
}

// TestIPI has one line for what a CPU sends and who gets what. CPUs 0 to 3 are
// xAPICs or x2APICs as modes says: x or 2, d for disabled, s for disabled by
// software only. Logical IDs are 1, 2, 4, 8 (flat) or 0x11, 0x12, 0x21, 0x22.
func TestIPI(t *testing.T) {
	const (
		fixed, lowest, smi, nmi, initMode, startup, external = 0 << 8, 1 << 8, 2 << 8, 4 << 8, 5 << 8, 6 << 8, 7 << 8

		logical = icrLogical
		self    = 1 << 18
		all     = 2 << 18
		others  = 3 << 18
		level   = icrLevel
		assert  = icrAssert
	)
	for _, c := range []struct {
		name    string
		modes   string
		cluster bool
		from    int
		to      uint32
		icr     uint32
		want    [4]string
	}{
		{"physical", "xxxx", false, 0, 2, 0x31, [4]string{2: "0x31"}},
		{"physical to itself", "xxxx", false, 1, 1, 0x31, [4]string{1: "0x31"}},
		{"physical to nobody", "xxxx", false, 0, 9, 0x31, [4]string{}},
		{"physical broadcast", "xxxx", false, 0, 0xff, 0x31, [4]string{"0x31", "0x31", "0x31", "0x31"}},
		{"de-asserted", "xxxx", false, 0, 2, 0x31 | level, [4]string{}},
		{"asserted", "xxxx", false, 0, 2, 0x31 | level | assert, [4]string{2: "0x31"}},
		{"flat", "xxxx", false, 0, 5, 0x31 | logical, [4]string{"0x31", "", "0x31", ""}},
		{"flat broadcast", "xxxx", false, 0, 0xff, 0x31 | logical, [4]string{"0x31", "0x31", "0x31", "0x31"}},
		{"flat to nobody", "xxxx", false, 0, 0x10, 0x31 | logical, [4]string{}},
		{"cluster", "xxxx", true, 0, 0x23, 0x31 | logical, [4]string{"", "", "0x31", "0x31"}},
		{"cluster, one", "xxxx", true, 0, 0x12, 0x31 | logical, [4]string{1: "0x31"}},
		{"cluster broadcast", "xxxx", true, 0, 0xff, 0x31 | logical, [4]string{"0x31", "0x31", "0x31", "0x31"}},
		{"other cluster", "xxxx", true, 0, 0x33, 0x31 | logical, [4]string{}},
		{"self", "xxxx", false, 2, 0, 0x31 | self, [4]string{2: "0x31"}},
		{"all", "xxxx", false, 2, 0, 0x31 | all, [4]string{"0x31", "0x31", "0x31", "0x31"}},
		{"others", "xxxx", false, 2, 0, 0x31 | others, [4]string{"0x31", "0x31", "", "0x31"}},
		{"NMI to others", "xxxx", false, 0, 0, nmi | others, [4]string{"", "NMI", "NMI", "NMI"}},
		{"NMI where software is off", "xsdx", false, 0, 0, nmi | all, [4]string{"NMI", "NMI", "", "NMI"}},
		{"fixed where software is off", "xsdx", false, 0, 0, 0x31 | all, [4]string{"0x31", "", "", "0x31"}},
		{"INIT", "xxxx", false, 0, 1, initMode | level | assert, [4]string{1: "INIT"}},
		{"INIT by edge", "xxxx", false, 0, 1, initMode | assert, [4]string{1: "INIT"}},
		{"INIT de-asserted", "xxxx", false, 0, 1, initMode | level, [4]string{}},
		{"start-up", "xxxx", false, 0, 1, startup | 0x9a, [4]string{1: "SIPI 0x9a"}},
		{"start-up with low vector", "xxxx", false, 0, 1, startup | 0x02, [4]string{1: "SIPI 0x2"}},
		{"SMI", "xxxx", false, 0, 1, smi, [4]string{}},
		{"external", "xxxx", false, 0, 1, external | 0x31, [4]string{}},
		{"reserved", "xxxx", false, 0, 1, 3<<8 | 0x31, [4]string{}},
		{"lowest of one", "xxxx", false, 0, 4, lowest | logical | 0x31, [4]string{2: "0x31"}},
		{"lowest by vector 0x30", "xxxx", false, 0, 0xff, lowest | 0x30, [4]string{"0x30"}},
		{"lowest by vector 0x33", "xxxx", false, 0, 0xff, lowest | 0x33, [4]string{3: "0x33"}},
		{"lowest where the vector's is off", "sxdx", false, 1, 0xff, lowest | 0x32, [4]string{3: "0x32"}},
		{"lowest where the vector's is off by software", "sxdx", false, 1, 0xff, lowest | 0x30, [4]string{1: "0x30"}},
		{"lowest of others", "xxxx", false, 0, 0, lowest | others | 0x30, [4]string{1: "0x30"}},
		{"lowest of none", "xsss", false, 0, 0, lowest | others | 0x31, [4]string{}},

		{"x2APIC physical", "2222", false, 0, 2, 0x31, [4]string{2: "0x31"}},
		{"x2APIC 0xff is nobody", "2222", false, 0, 0xff, 0x31, [4]string{}},
		{"x2APIC broadcast", "2222", false, 0, 0xffff_ffff, 0x31, [4]string{"0x31", "0x31", "0x31", "0x31"}},
		{"x2APIC cluster", "2222", false, 0, 0xa, 0x31 | logical, [4]string{"", "0x31", "", "0x31"}},
		{"x2APIC other cluster", "2222", false, 0, 1<<16 | 0xf, 0x31 | logical, [4]string{}},
		{"x2APIC logical broadcast", "2222", false, 0, 0xffff_ffff, 0x31 | logical, [4]string{"0x31", "0x31", "0x31", "0x31"}},
		{"x2APIC others", "2222", false, 3, 0, 0x31 | others, [4]string{"0x31", "0x31", "0x31", ""}},
		{"x2APIC to xAPIC", "2xxx", false, 0, 3, 0x31, [4]string{3: "0x31"}},
		{"x2APIC logical to xAPIC", "2xxx", false, 0, 0x106, 0x31 | logical, [4]string{}},
		{"xAPIC to x2APIC", "x222", false, 0, 3, 0x31, [4]string{3: "0x31"}},
		{"xAPIC broadcast to x2APIC", "x222", false, 0, 0xff, 0x31, [4]string{"0x31", "0x31", "0x31", "0x31"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := enabled(t, 4)
			for i, mode := range c.modes {
				id := uint32(1) << i
				if c.cluster {
					b.write(i, apicDFR, 0)
					id = uint32(i/2+1)<<4 | 1<<(i%2)
				}
				b.write(i, apicLDR, id<<24)
				switch mode {
				case '2':
					b.x2apic(i)
				case 's':
					b.write(i, apicSVR, 0xff)
				case 'd':
					b.Local[i].SetBase(LocalAPICBase)
				}
			}
			if c.modes[c.from] == '2' {
				if !b.Local[c.from].WriteMSR(0x830, uint64(c.to)<<32|uint64(c.icr)) {
					t.Fatal("#GP")
				}
			} else {
				b.write(c.from, apicICRHigh, c.to<<24)
				b.write(c.from, apicICR, c.icr)
			}
			if d := cmp.Diff(c.want[:], b.got()); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestX2APICClusters: ID 0x25 is bit 5 of cluster 2.
func TestX2APICClusters(t *testing.T) {
	b := enabled(t, 0x30)
	for i := range b.cpus {
		b.x2apic(i)
	}
	if v, ok := b.Local[0x25].ReadMSR(0x80d); !ok || v != 2<<16|1<<5 {
		t.Errorf("LDR is %#x, %v", v, ok)
	}
	b.Local[0].WriteMSR(0x830, uint64(2<<16|1<<5|1<<7)<<32|icrLogical|0x41)
	for i, got := range b.got() {
		want := ""
		if i == 0x25 || i == 0x27 {
			want = "0x41"
		}
		if got != want {
			t.Errorf("CPU %#x got %q, want %q", i, got, want)
		}
	}
}

// TestLowestPriority: the CPU with the lowest priority gets it, whatever the
// vector picks among equals.
func TestLowestPriority(t *testing.T) {
	b := enabled(t, 4)
	for i, tpr := range []uint32{0x30, 0x21, 0x2f, 0x40} {
		b.write(i, apicTPR, tpr)
	}
	for vector, want := range map[uint32]int{0x50: 1, 0x51: 1, 0x52: 2, 0x53: 1} {
		b.write(0, apicICRHigh, 0xff<<24)
		b.write(0, apicICR, deliverLowest<<8|vector)
		b.expectTake(want, int(vector))
		for i := range b.cpus {
			b.expectTake(i, -1)
		}
	}
	// An interrupt in service counts as well.
	b.write(1, apicICRHigh, 1<<24)
	b.write(1, apicICR, 0x60)
	b.Local[1].Accept()
	b.write(0, apicICRHigh, 0xff<<24)
	b.write(0, apicICR, deliverLowest<<8|0x50)
	b.expectTake(2, 0x50)
}

func TestSelfIPI(t *testing.T) {
	b := enabled(t, 2)
	b.x2apic(0, 1)
	if !b.Local[1].WriteMSR(0x83f, 0x77) {
		t.Error("#GP")
	}
	b.expectTake(0, -1)
	b.expectTake(1, 0x77)
	if b.Local[1].WriteMSR(0x83f, 0x177) {
		t.Error("a reserved bit is no #GP")
	}
	if _, ok := b.Local[1].ReadMSR(0x83f); ok {
		t.Error("reading is no #GP")
	}
}

func TestSignalMSI(t *testing.T) {
	const fee = 0xfee0_0000
	for _, c := range []struct {
		name    string
		address uint64
		data    uint32
		want    [3]string
	}{
		{"to 1", fee | 1<<12, 0x41, [3]string{1: "0x41"}},
		{"to nobody", fee | 7<<12, 0x41, [3]string{}},
		{"to all", fee | 0xff<<12, 0x41, [3]string{"0x41", "0x41", "0x41"}},
		{"assert makes no difference to an edge", fee | 1<<12, 1<<14 | 0x41, [3]string{1: "0x41"}},
		{"level", fee | 1<<12, 1<<15 | 1<<14 | 0x41, [3]string{1: "0x41"}},
		{"end of level", fee | 1<<12, 1<<15 | 0x41, [3]string{}},
		{"logical", fee | 3<<12 | 1<<2, 0x41, [3]string{"0x41", "0x41", ""}},
		{"logical, one", fee | 3<<12 | 1<<3 | 1<<2, 0x41, [3]string{"0x41"}},
		{"physical, one", fee | 2<<12 | 1<<3, 0x41, [3]string{2: "0x41"}},
		{"lowest priority", fee | 7<<12 | 1<<2, 1<<8 | 0x41, [3]string{2: "0x41"}},
		{"NMI", fee | 1<<12, 4 << 8, [3]string{1: "NMI"}},
		{"INIT", fee | 1<<12, 5 << 8, [3]string{1: "INIT"}},
		{"SMI", fee | 1<<12, 2 << 8, [3]string{}},
		{"start-up is reserved", fee | 1<<12, 6<<8 | 0x41, [3]string{}},
		{"external", fee | 1<<12, 7<<8 | 0x41, [3]string{}},
		{"illegal vector", fee | 1<<12, 0x0f, [3]string{}},
		{"ignored bits", fee | 1<<12 | 0xff3, 0xffff_3041, [3]string{1: "0x41"}},
	} {
		b := enabled(t, 3)
		for i := range b.cpus {
			b.write(i, apicLDR, 1<<(24+i))
		}
		if err := b.SignalMSI(c.address, c.data); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if d := cmp.Diff(c.want[:], b.got()); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
	b := enabled(t, 1)
	for _, address := range []uint64{0, 0xfed0_0000, 0xfef0_0000, 0x1_fee0_0000, 1<<63 | 0xfee0_0000} {
		if err := b.SignalMSI(address, 0x41); err == nil || !strings.Contains(err.Error(), "no local APIC") {
			t.Errorf("MSI to %#x: error %v", address, err)
		}
	}
	b.expectTake(0, -1)
	// With x2APICs the destination's 8 bits mean the same.
	b = enabled(t, 2)
	b.x2apic(0, 1)
	for address, want := range map[uint64][]string{
		fee | 1<<12: {"", "0x41"}, fee | 0xff<<12: {"0x41", "0x41"}, fee | 2<<12 | 1<<2: {"", "0x41"},
	} {
		if err := b.SignalMSI(address, 0x41); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(want, b.got()); d != "" {
			t.Errorf("x2APIC, %#x: %s", address, d)
		}
	}
}

// benchState is the whole state of a bench as an engine keeps it.
type benchState struct {
	Now      int64
	Clock    clock.State
	CPUs     []x86.CPU
	Deadline []uint64
	TSC      []int64
	IO       x86.IOAPIC
}

func (b *bench) state() benchState {
	s := benchState{Now: int64(b.now), Clock: b.clock.State(), IO: b.IO.State()}
	for _, l := range b.Local {
		var c x86.CPU
		l.State(&c)
		s.CPUs = append(s.CPUs, c)
		s.Deadline = append(s.Deadline, l.Deadline())
		s.TSC = append(s.TSC, l.tsc)
	}
	return s
}

func (b *bench) setState(s benchState) {
	b.t.Helper()
	b.now = hand(s.Now)
	if err := b.clock.SetState(s.Clock); err != nil {
		b.t.Fatal(err)
	}
	for i, l := range b.Local {
		if err := l.SetState(&s.CPUs[i]); err != nil {
			b.t.Fatal(err)
		}
		l.SetTSC(s.TSC[i])
		l.RestoreDeadline(s.Deadline[i])
	}
	if err := b.IO.SetState(s.IO); err != nil {
		b.t.Fatal(err)
	}
}

// stepSize is the bytes of one step.
const stepSize = 8

// step does what eight bytes say and gives what the guest sees of it.
func (b *bench) step(p []byte) []byte {
	cpu := int(p[1]) % len(b.Local)
	l := b.Local[cpu]
	n := uint64(p[2])
	v := binary.LittleEndian.Uint32(p[4:])
	data := make([]byte, []int{4, 1, 2, 4, 8, 0}[p[3]%6])
	seen := func(a ...any) []byte { return fmt.Append(data, a...) }
	switch p[0] % 20 {
	case 0, 1, 2:
		b.write(cpu, int(n%apicRegisters), v)
	case 3:
		l.Read(n<<4|uint64(v)&0xf0f, data)
	case 4:
		copy(data, p[4:])
		l.Write(n<<4|uint64(v)&0xf0f, data)
	case 5, 6:
		return seen(l.WriteMSR(0x800+uint32(n), uint64(v)))
	case 7:
		return seen(l.WriteMSR(0x830, uint64(p[3])<<32|uint64(v)))
	case 8:
		return seen(l.ReadMSR(0x800 + uint32(n)))
	case 9:
		mode := []uint64{baseEnable, baseEnable, baseEnable | baseX2APIC, baseEnable | baseX2APIC, 0, baseX2APIC, 1}[n%7]
		return seen(l.SetBase(LocalAPICBase | mode))
	case 10:
		l.SetDeadline(uint64(int64(b.now)+l.tsc) + uint64(int32(v)>>(p[3]%32)))
	case 11:
		switch n % 3 {
		case 0:
			l.SetTSC(int64(int32(v)))
		case 1:
			l.SetTPR(p[3])
		default:
			l.SetDeadline(uint64(v) << (p[3] % 64))
		}
	case 12:
		return seen(b.IO.SetIRQ(uint32(n%25), v&1 != 0))
	case 13:
		return seen(b.SignalMSI(0xfee0_0000|uint64(n)<<12|uint64(p[3])&0xf, v))
	case 14:
		const most = 1 << 18
		events := b.pass(int64(v % most))
		if events > len(b.Local)*(most/timerFloor+2) {
			b.t.Fatalf("%d events in %d ns", events, most)
		}
	case 15:
		b.now += hand(v) // a late engine
		b.clock.RunDue()
	case 16:
		if v, ok := l.Pending(); ok {
			return seen(v, l.Accept())
		}
		return seen(l.Accept())
	case 17:
		b.write(cpu, apicEOI, 0)
		l.WriteMSR(0x80b, 0)
	case 18:
		b.IO.Write(0, p[2:3])
		b.IO.Write(0x10, p[4:])
		b.IO.Read(0x10, data)
	case 19:
		switch {
		case n == 0:
			l.INIT()
		case n < 128: // what random writes rarely do: entries and vectors that make sense
			e := uint64(n%4)<<redirDestShift | redirLevel&uint64(v) | 0x20 | uint64(v)&0xff
			b.IO.Write(0, []byte{uint8(0x11 + 2*(n%24))})
			b.IO.Write(0x10, binary.LittleEndian.AppendUint32(nil, uint32(e>>32)))
			b.IO.Write(0, []byte{uint8(0x10 + 2*(n%24))})
			b.IO.Write(0x10, binary.LittleEndian.AppendUint32(nil, uint32(e)))
		default:
			b.write(cpu, apicSVR, svrEnable|0xff)
			b.write(cpu, apicLVTTimer, v&lvtTimerMode|0xec)
			b.write(cpu, apicLVTError, 0xfe)
		}
	}
	return append(data, fmt.Sprint(l.Pending())...)
}

// check looks for what must hold after every step.
func (b *bench) check() {
	for i, l := range b.Local {
		irr, isr := -1, -1
		for v := range 256 {
			word, bit := vectorBit(uint8(v))
			if l.regs[apicIRR+word]&bit != 0 {
				irr = v
			}
			if l.regs[apicISR+word]&bit != 0 {
				isr = v
			}
		}
		want := irr >= 0 && l.base&baseEnable != 0 && irr/16 > int(l.regs[apicTPR])/16 && (isr < 0 || irr/16 > isr/16)
		if got, ok := l.Pending(); ok != want || want && int(got) != irr {
			b.t.Fatalf("CPU %d: pending %#x, %v with IRR %#x, ISR %#x, TPR %#x", i, got, ok, irr, isr, l.regs[apicTPR])
		}
		if l.regs[apicIRR]&0xffff != 0 {
			b.t.Fatalf("CPU %d: IRR has illegal vectors: %#x", i, l.regs[apicIRR])
		}
		if when, ok := b.clock.Pending(l.name, timerExpiry); ok != l.armed || ok && when != l.expiry {
			b.t.Fatalf("CPU %d: timer %v at %d, event %v at %d", i, l.armed, l.expiry, ok, when)
		}
		if l.deadline != 0 && (!l.armed || l.timerMode() != timerDeadline) {
			b.t.Fatalf("CPU %d: deadline %d without a timer", i, l.deadline)
		}
		for n := apicLVTTimer; n <= apicLVTError; n++ {
			if !l.softwareEnabled() && l.regs[n]&lvtMasked == 0 {
				b.t.Fatalf("CPU %d: local vector %#x is not masked while software has the APIC off", i, n)
			}
		}
		for n, r := range apicTable {
			if r.xapic|r.x2apic == 0 && l.regs[n] != 0 {
				b.t.Fatalf("CPU %d: register %#x, which there is not, is %#x", i, n, l.regs[n])
			}
		}
	}
	for i, e := range b.IO.State().Redirection {
		if e&redirRemoteIRR != 0 && edge(e) || e&^redirImplemented != 0 {
			b.t.Fatalf("redirection entry %d is %#x", i, e)
		}
	}
}

// replay runs script on one bench and, from the middle on, on a second one that
// got the first one's state. Both must end in the same state.
func replay(t testing.TB, script []byte) {
	first, second := newBench(t, 3), newBench(t, 3)
	steps := len(script) / stepSize
	for i := range steps {
		p := script[i*stepSize : (i+1)*stepSize]
		if i == steps/2 {
			s := first.state()
			second.setState(s)
			if again := second.state(); !reflect.DeepEqual(s, again) {
				t.Fatalf("the state comes back changed: %s", cmp.Diff(s, again))
			}
		}
		saw := first.step(p)
		first.check()
		if i >= steps/2 {
			if again := second.step(p); string(again) != string(saw) {
				t.Fatalf("step %d: the guest sees %q, after a restore %q", i, saw, again)
			}
			second.check()
		}
	}
	if a, b := first.state(), second.state(); steps > 0 && !reflect.DeepEqual(a, b) {
		t.Fatalf("after a restore the machine goes on differently: %s", cmp.Diff(a, b))
	}
	for i := range first.cpus {
		if a, b := first.cpus[i].seen, second.cpus[i].seen; len(a) < len(b) {
			t.Fatalf("CPU %d got %v after the restore, %v in all", i, b, a)
		}
	}
}

// randomScript is steps that make sense more often than random bytes do.
func randomScript(rnd *rand.Rand, steps int) []byte {
	var script []byte
	for range steps {
		p := make([]byte, stepSize)
		for i := range p {
			p[i] = uint8(rnd.Uint32())
		}
		switch rnd.IntN(4) {
		case 0: // small numbers
			p[5], p[6], p[7] = p[5]&1, 0, 0
		case 1: // registers that do something
			p[2] = []byte{apicTPR, apicEOI, apicSVR, apicESR, apicICR, apicLVTTimer, apicLVTError, apicInitial, apicDivide}[rnd.IntN(9)]
		}
		script = append(script, p...)
	}
	return script
}

func TestReplay(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 150 {
		replay(t, randomScript(rnd, 200))
	}
}

func FuzzAPIC(f *testing.F) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 4 {
		f.Add(randomScript(rnd, 40))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200*stepSize {
			t.Skip("more steps than 200 only cost time")
		}
		replay(t, script)
	})
}

func TestAPICsDoNotAllocate(t *testing.T) {
	b := enabled(t, 4)
	b.x2apic(2, 3)
	b.write(0, apicLVTTimer, timerPeriodic<<lvtTimerShift|0xec)
	l, x := b.Local[0], b.Local[2]
	b.IO.s.Redirection[4] = redirLevel | 0x44
	b.IO.s.Redirection[5] = 0xff<<redirDestShift | 0x45
	buf := make([]byte, 4)
	set := func(v uint32) []byte { binary.LittleEndian.PutUint32(buf, v); return buf }
	if n := testing.AllocsPerRun(100, func() {
		l.Read(apicTPR<<4, buf)
		l.Read(apicCurrent<<4, buf)
		l.Write(apicInitial<<4, set(10_000))
		l.Write(apicICRHigh<<4, set(0xff<<24))
		l.Write(apicICR<<4, set(0x55))
		l.Write(apicICR<<4, set(deliverLowest<<8|0x56))
		x.WriteMSR(0x830, 1<<32|0x57)
		x.ReadMSR(0x830)
		x.WriteMSR(0x832, timerDeadline<<lvtTimerShift|0xec)
		x.SetDeadline(uint64(b.now) + 100)
		b.now += 10_000
		b.clock.RunDue()
		_ = b.SignalMSI(0xfee0_1000, 0x41)
		_ = b.IO.SetIRQ(4, true)
		_ = b.IO.SetIRQ(5, true)
		_ = b.IO.SetIRQ(4, false)
		_ = b.IO.SetIRQ(5, false)
		b.IO.Write(0, set(0x10))
		b.IO.Read(0x10, buf)
		for _, l := range b.Local {
			for _, ok := l.Pending(); ok; _, ok = l.Pending() {
				l.Accept()
				l.Write(apicEOI<<4, set(0))
				l.WriteMSR(0x80b, 0)
			}
			l.SetTPR(1)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTimerInterrupt(bm *testing.B) {
	b := enabled(bm, 1)
	b.x2apic(0)
	l := b.Local[0]
	l.WriteMSR(0x832, timerDeadline<<lvtTimerShift|0xec)
	bm.ReportAllocs()
	for range bm.N {
		l.SetDeadline(uint64(b.now) + 10)
		b.now += 10
		b.clock.RunDue()
		l.Accept()
		l.WriteMSR(0x80b, 0)
	}
}
