package difftest

import (
	"encoding/binary"
	"flag"
	"slices"
	"strings"
	"testing"

	"fifovm/vmm/x86"
)

var (
	flagSeed = flag.Uint64("difftest.seed", 1, "seed of the cases")
	flagCase = flag.Int("difftest.case", -1, "run only the case of this number")
	flagN    = flag.Int("difftest.n", 0, "number of cases (0: each test's own, for TestSoft 200,000, or 20,000 with -short)")
	flagForm = flag.String("difftest.form", "", "run only cases of forms that begin so, as a report names them")
)

// single says that one case is to be run, not all.
func single() bool { return *flagCase >= 0 || *flagForm != "" }

// numbers gives the first and the end of the numbers of the cases to run: n
// of them, if the flags don't say otherwise.
func numbers(n int) (first, end int) {
	switch {
	case *flagCase >= 0:
		return *flagCase, *flagCase + 1
	case *flagN > 0:
		return 0, *flagN
	}
	return 0, n
}

// newProcessor gives a processor on the engine that open makes.
func newProcessor(t testing.TB, open func(hardware) (engine, error)) processor {
	t.Helper()
	g, err := newGuest(open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// real is a real processor, as KVM lets one ask it. A KVM without VMX or SVM now
// and then emulates an instruction, and not well (it loses NT, or knows no x87):
// only what it says again and again, with other cases in between, is its word.
type real struct {
	processor
	// emulates says that KVM also handles each #GP of CPL 3 by emulation. What
	// it has no code for then ends in #UD, FXRSTOR in a page fault, and MMX
	// registers may be read on the way.
	emulates bool
}

// unknown says that the other processor's fault may be right and this one's
// KVM's mistake.
func (p *real) unknown(c *testCase, a, b *result) bool {
	if !p.emulates || b.vector != vectorGP && b.vector != vectorSS {
		return false
	}
	return a.vector == vectorUD || c.form.is("fxrstor") || c.form.is("mmx") && a.vector == b.vector
}

// settle asks until the last three answers agree; r has the first. It gives how
// many answers were not repeated.
func (p *real) settle(c *testCase, r *result) (unsteady int, err error) {
	const enough, between = 3, 8
	var other result
	for same, tries := 1, 0; same < enough && tries < 10*enough; tries++ {
		for i := range between {
			if err := p.run(newCase(c.seed, c.number+1+i), &other); err != nil {
				return unsteady, err
			}
		}
		last := *r
		if err := p.run(c, r); err != nil {
			return unsteady, err
		}
		if same++; len(compare(c, r, &last)) > 0 {
			same = 1
			unsteady++
		}
	}
	return unsteady, nil
}

// runBoth runs the cases on two processors.
func runBoth(t *testing.T, n int, nameA string, a processor, nameB string, b processor) *tally {
	t.Helper()
	var sum tally
	var x, y result
	failed := func(name string, c *testCase, err error) bool {
		if err != nil {
			t.Errorf("%s: seed %d case %d: %s (% x): %v", name, c.seed, c.number, disassemble(c), c.code, err)
		}
		return err != nil
	}
	for i, end := numbers(n); i < end; i++ {
		c := newCase(*flagSeed, i)
		if !strings.HasPrefix(c.form.text, *flagForm) {
			continue
		}
		if failed(nameA, c, a.run(c, &x)) || failed(nameB, c, b.run(c, &y)) {
			continue
		}
		// A form that has shown itself to be wrong needs no further proof.
		if len(compare(c, &x, &y)) > 0 && sum.badOf(c.form) < 10 {
			for _, side := range []struct {
				name string
				p    processor
				r    *result
			}{{nameA, a, &x}, {nameB, b, &y}} {
				if p, ok := side.p.(*real); ok {
					n, err := p.settle(c, side.r)
					sum.unsteady += n
					if failed(side.name, c, err) {
						return &sum
					}
				}
			}
		}
		if p, ok := a.(*real); ok && len(compare(c, &x, &y)) > 0 && p.unknown(c, &x, &y) {
			sum.unknown++
			continue
		}
		sum.add(c, &x, &y, nameA, nameB)
	}
	return &sum
}

// byHand are cases that begin with registers of zero but those given, RSP and
// RSI in the data pages, and whose results are worked out by hand.
var byHand = []struct {
	name   string
	code   []byte
	set    func(c *testCase)
	vector uint8
	code32 uint32
	cr2    uint64
	rip    int64 // from the instruction's start
	check  func(r *result) bool
}{
	{"add eax, ecx overflows", []byte{0x01, 0xc8}, func(c *testCase) { c.before.GPR[x86.RAX], c.before.GPR[x86.RCX] = 0xffff_ffff_7fff_ffff, 1 }, vectorBP, 0, 0, 3,
		func(r *result) bool {
			return r.GPR[x86.RAX] == 0x8000_0000 && r.RFLAGS&statusFlags == flagOF|flagSF|flagAF|flagPF
		}},
	{"sub al, 1 borrows", []byte{0x2c, 1}, nil, vectorBP, 0, 0, 3,
		func(r *result) bool {
			return r.GPR[x86.RAX] == 0xff && r.RFLAGS&statusFlags == flagCF|flagSF|flagAF|flagPF
		}},
	{"inc keeps CF", []byte{0x48, 0xff, 0xc0}, func(c *testCase) { c.before.GPR[x86.RAX] = ^uint64(0); c.before.RFLAGS |= flagCF }, vectorBP, 0, 0, 4,
		func(r *result) bool {
			return r.GPR[x86.RAX] == 0 && r.RFLAGS&statusFlags == flagCF|flagZF|flagAF|flagPF
		}},
	{"div by zero", []byte{0xf7, 0xf1}, nil, vectorDE, 0, 0, 0, nil},
	{"mov from nowhere", []byte{0x8b, 0x04, 0x25, 8, 0, 0, 0}, nil, vectorPF, 4, 8, 0, nil},
	{"mov to what is read-only", []byte{0x89, 0x46, 0xff}, func(c *testCase) { c.before.GPR[x86.RSI] = lowData + readOnlyPage }, vectorPF, 7, lowData + readOnlyPage, 0,
		func(r *result) bool { return r.RFLAGS&flagRF != 0 }},
	{"mov from an address that is not canonical", []byte{0x8b, 0x06}, func(c *testCase) { c.before.GPR[x86.RSI] = 1 << 62 }, vectorGP, 0, 0, 0, nil},
	{"push to one", []byte{0x50}, func(c *testCase) { c.before.GPR[x86.RSP] = 1 << 62 }, vectorSS, 0, 0, 0, nil},
	{"jmp to data", []byte{0xff, 0xe6}, nil, vectorPF, 0x15, lowData + 0x100, lowData - codePage, nil},
	{"hlt", []byte{0xf4}, nil, vectorGP, 0, 0, 0, nil},
	{"ud2", []byte{0x0f, 0x0b}, nil, vectorUD, 0, 0, 0, nil},
	{"one step", []byte{0x90}, func(c *testCase) { c.before.RFLAGS |= x86.FlagTF }, vectorDB, 0, 0, 1, nil},
	{"pushf", []byte{0x9c}, nil, vectorBP, 0, 0, 2, func(r *result) bool {
		return r.GPR[x86.RSP] == lowData+0x200-8 && binary.LittleEndian.Uint64(r.memory[0x200-8:]) == fixedFlags
	}},
	{"rep movsb", []byte{0xf3, 0xa4}, func(c *testCase) {
		c.before.GPR[x86.RDI], c.before.GPR[x86.RCX] = highData+0x300, 3
		copy(c.memory[0x100:], "abcd")
	}, vectorBP, 0, 0, 3, func(r *result) bool {
		return string(r.memory[0x300:0x304]) == "abc\x00" && r.GPR[x86.RSI] == lowData+0x103 && r.GPR[x86.RDI] == highData+0x303 && r.GPR[x86.RCX] == 0
	}},
	{"divss by zero, unmasked", []byte{0xf3, 0x0f, 0x5e, 0xc1}, func(c *testCase) {
		copy(c.before.FPU.xmm(0), []byte{0, 0, 0x80, 0x3f})
		c.before.FPU.setMXCSR(0x1d80)
	}, vectorXM, 0, 0, 0, func(r *result) bool { return r.FPU.mxcsr() == 0x1d84 && r.FPU.xmm(0)[3] == 0x3f }},
	{"fld1", []byte{0xd9, 0xe8}, nil, vectorBP, 0, 0, 3, func(r *result) bool {
		m, se := r.FPU.extended(0)
		return m == 1<<63 && se == 0x3fff && r.FPU.word(fpuStatus) == 7<<statusTop && r.FPU[fpuTags] == 0x80
	}},
	{"mov rax, fs:[0]", []byte{0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0}, func(c *testCase) { c.before.FSBase = highData + 8; c.memory[8] = 42 }, vectorBP, 0, 0, 10,
		func(r *result) bool { return r.GPR[x86.RAX] == 42 && r.FSBase == highData+8 }},
}

func testByHand(t *testing.T, p processor) {
	for _, h := range byHand {
		c := &testCase{form: forms[0], code: h.code}
		c.before.RIP, c.before.RFLAGS = codePage+0x100, fixedFlags
		c.before.GPR[x86.RSP], c.before.GPR[x86.RSI] = lowData+0x200, lowData+0x100
		c.before.FPU.setWord(fpuControl, 0x37f)
		c.before.FPU.setMXCSR(0x1f80)
		if h.set != nil {
			h.set(c)
		}
		var r result
		if err := p.run(c, &r); err != nil {
			t.Fatalf("%s: %v", h.name, err)
		}
		if r.vector != h.vector || r.code != h.code32 || r.cr2 != h.cr2 || r.RIP != c.before.RIP+uint64(h.rip) || h.check != nil && !h.check(&r) {
			t.Errorf("%s: %s code %#x cr2 %#x rip %#x (from %#x) rflags %s registers %x", h.name, vectorName(r.vector), r.code, r.cr2, r.RIP, c.before.RIP, flagNames(r.RFLAGS), r.GPR)
		}
	}
}

// alwaysFaults tells the forms that CPL 3 can't execute.
func alwaysFaults(f *form) bool {
	return strings.HasPrefix(f.name, "bad-") || slices.Contains([]string{"ud1", "ud2", "sti", "cli", "in", "out", "movcr", "movdr",
		"lgdt", "lmsw", "invlpg", "lldt", "ltr", "wbinvd", "invd", "swapgs", "hlt", "clts", "wrmsr", "rdmsr"}, f.name)
}

// TestCasesAreStable: a number always gives the same case.
func TestCasesAreStable(t *testing.T) {
	for i := range 2000 {
		a, b := newCase(7, i), newCase(7, i)
		if !slices.Equal(a.code, b.code) || a.before != b.before || a.memory != b.memory || a.form != b.form {
			t.Fatalf("case %d differs from itself: % x and % x", i, a.code, b.code)
		}
	}
	if a, b := newCase(7, 1), newCase(8, 1); a.before == b.before {
		t.Error("two seeds give the same case")
	}
}

// TestCasesAreLegal: none has an instruction that the CPUID table does not
// offer but a processor may have: those with VEX and EVEX prefixes.
func TestCasesAreLegal(t *testing.T) {
	for i := range 50_000 {
		c := newCase(3, i)
		code := c.code
		for len(code) > 0 && slices.Contains([]byte{0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65}, code[0]) || code[0]&0xf0 == 0x40 {
			code = code[1:]
		}
		if slices.Contains([]byte{0xc4, 0xc5, 0x62, 0x8f}, code[0]) && c.form.name != "pop" {
			t.Fatalf("case %d of %s begins with a VEX prefix: % x", i, c.form.text, c.code)
		}
		const forbidden = 1 << 18 // AC, where the host checks alignment
		if c.before.RFLAGS&forbidden != 0 || c.before.RFLAGS&fixedFlags != fixedFlags {
			t.Fatalf("case %d starts with flags %#x", i, c.before.RFLAGS)
		}
	}
}

// TestCompare: a change of anything that is compared is seen, of anything that
// is left open is not.
func TestCompare(t *testing.T) {
	c := &testCase{form: forms[0], at: -1}
	changes := []struct {
		name string
		f    func(r *result)
		seen bool
	}{
		{"nothing", func(r *result) {}, false},
		{"vector", func(r *result) { r.vector = vectorUD }, true},
		{"error code", func(r *result) { r.code ^= 4 }, true},
		{"cr2", func(r *result) { r.cr2++ }, true},
		{"r15", func(r *result) { r.GPR[15] ^= 1 << 63 }, true},
		{"rip", func(r *result) { r.RIP++ }, true},
		{"flag", func(r *result) { r.RFLAGS ^= flagAF }, true},
		{"RF", func(r *result) { r.RFLAGS ^= flagRF }, true},
		{"fs", func(r *result) { r.FSBase++ }, true},
		{"gs", func(r *result) { r.GSBase++ }, true},
		{"control", func(r *result) { r.FPU[0]++ }, true},
		{"status", func(r *result) { r.FPU[2]++ }, true},
		{"tags", func(r *result) { r.FPU[4]++ }, true},
		{"x87 pointers", func(r *result) { r.FPU[8]++ }, false},
		{"mxcsr", func(r *result) { r.FPU[24]++ }, true},
		{"mxcsr mask", func(r *result) { r.FPU[28]++ }, false},
		{"st7", func(r *result) { r.FPU[32+7*16+9]++ }, true},
		{"beside st7", func(r *result) { r.FPU[32+7*16+10]++ }, false},
		{"xmm15", func(r *result) { r.FPU[160+255]++ }, true},
		{"memory", func(r *result) { r.memory[dataSize-1]++ }, true},
	}
	for _, change := range changes {
		var a, b result
		a.vector, b.vector = vectorPF, vectorPF
		change.f(&b)
		if got := len(compare(c, &a, &b)) > 0; got != change.seen {
			t.Errorf("%s: seen is %v", change.name, got)
		}
	}
	open := *c
	open.ignore = ignored{flags: flagAF, fsw: statusC0, memory: []span{{8, 2}}, writeBit: true, tolerance: 2}
	open.ignore.gpr[3] = 0xff
	for name, test := range map[string]struct {
		f    func(r *result)
		seen bool
	}{
		"flag":           {func(r *result) { r.RFLAGS ^= flagAF }, false},
		"other flag":     {func(r *result) { r.RFLAGS ^= flagCF }, true},
		"rbx":            {func(r *result) { r.GPR[3] ^= 0x81 }, false},
		"rbx above":      {func(r *result) { r.GPR[3] ^= 0x181 }, true},
		"C0":             {func(r *result) { r.FPU[3] ^= 1 }, false},
		"C1":             {func(r *result) { r.FPU[3] ^= 2 }, true},
		"memory":         {func(r *result) { r.memory[9]++ }, false},
		"memory beside":  {func(r *result) { r.memory[10]++ }, true},
		"write bit":      {func(r *result) { r.code ^= 2 }, false},
		"st near":        {func(r *result) { r.FPU.setExtended(1, 1<<63|2, 0x3fff) }, false},
		"st far":         {func(r *result) { r.FPU.setExtended(1, 1<<63|3, 0x3fff) }, true},
		"st sign":        {func(r *result) { r.FPU.setExtended(1, 1<<63, 0xbfff) }, true},
		"st next binade": {func(r *result) { r.FPU.setExtended(1, 1<<64-2, 0x3ffe) }, false},
	} {
		var a, b result
		a.vector, b.vector = vectorPF, vectorPF
		a.FPU.setExtended(1, 1<<63, 0x3fff)
		b.FPU.setExtended(1, 1<<63, 0x3fff)
		test.f(&b)
		if got := len(compare(&open, &a, &b)) > 0; got != test.seen {
			t.Errorf("%s: seen is %v", name, got)
		}
	}
}
