package difftest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"fifovm/vmm/x86"
)

// difference is one thing in which two results differ.
type difference struct {
	name string
	a, b string
}

// compare lists what differs between two results, as far as the manual defines
// it.
func compare(c *testCase, a, b *result) (list []difference) {
	diff := func(name, format string, x, y any) {
		list = append(list, difference{name, fmt.Sprintf(format, x), fmt.Sprintf(format, y)})
	}
	if a.vector != b.vector {
		list = append(list, difference{"ends in", vectorName(a.vector), vectorName(b.vector)})
	} else {
		mask := ^uint32(0)
		const present, write = 1, 2 // of a page fault's code
		if c.ignore.writeBit && a.vector == vectorPF && (a.code|b.code)&present == 0 {
			mask &^= write
		}
		if (a.code^b.code)&mask != 0 {
			diff("error code", "%#x", a.code, b.code)
		}
		if a.cr2 != b.cr2 && !c.ignore.parts {
			diff("cr2", "%#x", a.cr2, b.cr2)
		}
	}
	for i := range a.GPR {
		if (a.GPR[i]^b.GPR[i])&^c.ignore.gpr[i] != 0 {
			diff(x86.GPRNames[i], "%#x", a.GPR[i], b.GPR[i])
		}
	}
	if a.RIP != b.RIP {
		diff("rip", "%#x", a.RIP, b.RIP)
	}
	if (a.RFLAGS^b.RFLAGS)&^c.ignore.flags != 0 {
		diff("rflags", "%s", flagNames(a.RFLAGS), flagNames(b.RFLAGS))
	}
	if a.FSBase != b.FSBase {
		diff("fs base", "%#x", a.FSBase, b.FSBase)
	}
	if a.GSBase != b.GSBase {
		diff("gs base", "%#x", a.GSBase, b.GSBase)
	}
	list = append(list, compareFPU(c, &a.FPU, &b.FPU)...)
	return append(list, compareMemory(c, a, b)...)
}

func compareFPU(c *testCase, a, b *fpu) (list []difference) {
	// The pointers (FOP, FIP, FDP), MXCSR_MASK and what is reserved differ
	// between processors.
	if *a == *b {
		return nil
	}
	diff := func(name string, x, y any) {
		list = append(list, difference{name, fmt.Sprintf("%#x", x), fmt.Sprintf("%#x", y)})
	}
	if x, y := a.word(fpuControl), b.word(fpuControl); x != y {
		diff("x87 control", x, y)
	}
	if x, y := a.word(fpuStatus), b.word(fpuStatus); (x^y)&^c.ignore.fsw != 0 {
		diff("x87 status", x, y)
	}
	if x, y := a[fpuTags], b[fpuTags]; x != y {
		diff("x87 tags", x, y)
	}
	if x, y := a.mxcsr(), b.mxcsr(); x != y {
		diff("mxcsr", x, y)
	}
	for i := range 8 {
		if !bytes.Equal(a.st(i), b.st(i)) && !c.nearST(a, b, i) {
			list = append(list, difference{fmt.Sprintf("st(%d)", i), stText(a, i), stText(b, i)})
		}
	}
	for i := range 16 {
		if x, y := a.xmm(i), b.xmm(i); !bytes.Equal(x, y) && !(c.ignore.estimate && nearSingles(x, y)) {
			list = append(list, difference{fmt.Sprintf("xmm%d", i), xmmText(x), xmmText(y)})
		}
	}
	return list
}

// nearST says whether two x87 registers are within the tolerance.
func (c *testCase) nearST(a, b *fpu, i int) bool {
	m, se := a.extended(i)
	n, te := b.extended(i)
	if c.ignore.tolerance == 0 || se>>15 != te>>15 {
		return false
	}
	switch { // to the larger of two neighbouring exponents
	case se == te+1:
		n >>= 1
	case te == se+1:
		m >>= 1
	case se != te:
		return false
	}
	return m-n <= c.ignore.tolerance || n-m <= c.ignore.tolerance
}

// nearSingles says whether all lanes are as near as two estimates of a relative
// error of 1.5 * 2^-12 can be.
func nearSingles(a, b []byte) bool {
	for i := 0; i < len(a); i += 4 {
		x, y := binary.LittleEndian.Uint32(a[i:]), binary.LittleEndian.Uint32(b[i:])
		if x == y {
			continue
		}
		f, g := float64(math.Float32frombits(x)), float64(math.Float32frombits(y))
		if !(math.Abs(f-g) <= math.Abs(f)*3/4096) {
			return false
		}
	}
	return true
}

func compareMemory(c *testCase, a, b *result) []difference {
	if a.memory == b.memory {
		return nil
	}
	if c.ignore.parts && a.vector != vectorBP && a.vector == b.vector {
		return nil
	}
	x, y := a.memory, b.memory
	for _, s := range c.ignore.memory {
		if s.at >= 0 {
			clear(x[s.at : s.at+s.n])
			clear(y[s.at : s.at+s.n])
		}
	}
	if x == y {
		return nil
	}
	first := 0
	for x[first] == y[first] {
		first++
	}
	last := dataSize - 1
	for x[last] == y[last] {
		last--
	}
	end := min(last+1, first+32)
	return []difference{{fmt.Sprintf("memory %#x (%#x) to %#x", lowData+first, highData+first, lowData+last),
		fmt.Sprintf("% x", x[first:end]), fmt.Sprintf("% x", y[first:end])}}
}

func vectorName(v uint8) string {
	if v == vectorBP {
		return "#BP, as usual"
	}
	if n := vectorNames[v]; n != "" {
		return n
	}
	return fmt.Sprintf("vector %d", v)
}

// flagNames lists the flags that are set.
func flagNames(v uint64) string {
	var names []string
	for i, n := range []string{"CF", "", "PF", "", "AF", "", "ZF", "SF", "TF", "IF", "DF", "OF", "IOPL0", "IOPL1", "NT", "", "RF", "VM", "AC", "VIF", "VIP", "ID"} {
		if v>>i&1 != 0 && n != "" {
			names = append(names, n)
		}
	}
	return fmt.Sprintf("%#x %s", v, strings.Join(names, " "))
}

func stText(f *fpu, i int) string {
	m, se := f.extended(i)
	return fmt.Sprintf("%04x:%016x", se, m)
}

func xmmText(b []byte) string {
	return fmt.Sprintf("%016x:%016x", binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b))
}

// disassemble names the case's instruction.
func disassemble(c *testCase) string {
	inst, err := x86asm.Decode(c.code, 64)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	return x86asm.IntelSyntax(inst, c.before.RIP, nil)
}

// describe shows a case and what differs, for a report. nameA and nameB are the
// processors.
func describe(c *testCase, nameA, nameB string, a, b *result, list []difference) string {
	var s strings.Builder
	fmt.Fprintf(&s, "seed %d case %d: %s   % x   form: %s\n", c.seed, c.number, disassemble(c), c.code, c.form.text)
	fmt.Fprintf(&s, "  %-28s %-40s %s\n", "", nameA, nameB)
	for _, d := range list {
		fmt.Fprintf(&s, "  %-28s %-40s %s\n", d.name, d.a, d.b)
	}
	fmt.Fprintf(&s, "  before: rip %#x rflags %s fs %#x gs %#x ignored flags %s\n", c.before.RIP, flagNames(c.before.RFLAGS), c.before.FSBase, c.before.GSBase, flagNames(c.ignore.flags))
	for i, v := range c.before.GPR {
		fmt.Fprintf(&s, "  %-3s %016x", x86.GPRNames[i], v)
		if i%4 == 3 {
			s.WriteByte('\n')
		}
	}
	f := &c.before.FPU
	if c.form.is("x87") || c.form.is("mmx") || c.form.is("fxsave") {
		fmt.Fprintf(&s, "  x87 control %#x status %#x tags %#x", f.word(fpuControl), f.word(fpuStatus), f[fpuTags])
		for i := range 8 {
			if i%4 == 0 {
				s.WriteString("\n ")
			}
			fmt.Fprintf(&s, " st%d %s", i, stText(f, i))
		}
		s.WriteByte('\n')
	}
	if text := disassemble(c); strings.Contains(text, "xmm") || c.form.is("fxrstor") || c.form.is("fxsave") {
		fmt.Fprintf(&s, "  mxcsr %#x", f.mxcsr())
		for i := range 16 {
			if i%4 == 0 {
				s.WriteString("\n ")
			}
			fmt.Fprintf(&s, " xmm%-2d %s", i, xmmText(f.xmm(i)))
		}
		s.WriteByte('\n')
	}
	if at, ok := c.operand(a); ok {
		fmt.Fprintf(&s, "  memory before, from %#x on: % x\n", lowData+at, c.memory[at:min(at+32, dataSize)])
	}
	return s.String()
}

// operand finds a place of interest in the case's memory: what the case changed
// on the first processor, or else its operand.
func (c *testCase) operand(r *result) (int, bool) {
	for i := range c.memory {
		if c.memory[i] != r.memory[i] {
			return i &^ 7, true
		}
	}
	return max(c.at, 0), c.at >= 0
}

// tally counts cases by form and keeps some examples of those that differ.
type tally struct {
	forms map[string]*count
	cases int
	bad   int
	// unsteady counts answers of the first processor that it did not repeat.
	unsteady int
	// unknown counts cases that it could not tell about.
	unknown int
}

type count struct {
	cases, bad int
	ends       [vectors]int // on the first processor
	examples   []string
}

// examplesPerForm is how many differing cases of a form a report shows.
const examplesPerForm = 2

// badOf is how many cases of a form differed so far.
func (t *tally) badOf(f *form) int {
	if n := t.forms[f.text]; n != nil {
		return n.bad
	}
	return 0
}

func (t *tally) add(c *testCase, a, b *result, nameA, nameB string) {
	if t.forms == nil {
		t.forms = map[string]*count{}
	}
	n := t.forms[c.form.text]
	if n == nil {
		n = &count{}
		t.forms[c.form.text] = n
	}
	t.cases++
	n.cases++
	n.ends[a.vector%vectors]++
	list := compare(c, a, b)
	if len(list) == 0 {
		return
	}
	t.bad++
	if n.bad++; n.bad <= examplesPerForm {
		n.examples = append(n.examples, describe(c, nameA, nameB, a, b, list))
	}
}

// report gives the examples and then a line for each form that is wrong, the
// worst last.
func (t *tally) report() string {
	var wrong []string
	for text, n := range t.forms {
		if n.bad > 0 {
			wrong = append(wrong, text)
		}
	}
	slices.SortFunc(wrong, func(a, b string) int {
		x, y := t.forms[a], t.forms[b]
		if d := x.bad*y.cases - y.bad*x.cases; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	var s strings.Builder
	for _, text := range wrong {
		for _, e := range t.forms[text].examples {
			s.WriteString(e + "\n")
		}
	}
	for _, text := range wrong {
		n := t.forms[text]
		fmt.Fprintf(&s, "%6d of %6d  %s\n", n.bad, n.cases, text)
	}
	fmt.Fprintf(&s, "%d of %d cases differ, in %d of %d forms\n", t.bad, t.cases, len(wrong), len(t.forms))
	return s.String()
}
