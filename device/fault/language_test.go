package fault

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fifovm/device"
)

func TestParseError(t *testing.T) {
	tests := []struct {
		plan   string
		column int
		what   string // in the message
	}{
		{"irq[1]:dorp@3", 8, `no fault "dorp": it is one of drop, delay`},
		{"irk[1]:drop@3", 1, `no "irk"`},
		{"fifo0/irk:drop", 7, `no "irk"`},
		{"irq[1", 6, "nothing where ]"},
		{"irq[x]:drop", 5, `"x" is not a vector`},
		{"irq[4096]:drop", 5, "no vector 4096"},
		{"irq[1..2]:drop", 6, "where ] should be"},
		{"irq drop", 5, `"drop" where a colon`},
		{"irq", 4, "nothing where a colon"},
		{"irq:", 5, "nothing where what happens"},
		{"irq:drop=3", 9, "takes no value"},
		{"irq:delay", 10, "needs a value"},
		{"irq:delay=", 11, "nothing where a time"},
		{"irq:delay=3", 11, "needs a unit"},
		{"irq:delay=3 parsecs", 11, "needs a unit"},
		{"irq:delay=3parsecs", 11, "not a time"},
		{"irq:delay=0s", 11, "not 0"},
		{"irq:delay=99999999999h", 11, "not a time"},
		{"irq:delay=-1ms", 11, "not a time"},
		{"irq:dup=0", 9, "from 1 to 1000000"},
		{"irq:storm=1000001", 11, "from 1 to 1000000"},
		{"irq:storm=10/5", 14, "needs a unit"},
		{"irq:error@3", 5, `irq has no fault "error"`},
		{"device:drop", 8, "stall, reset, remove"},
		{"mmio.read:stuck1", 17, "needs a value"},
		{"mmio.read:stuck1=0x1g", 18, "not a number"},
		{"mmio.read:stuck1=0x10000000000000000", 18, "not a number"},
		{"mmio.read[6:0]:ones", 11, "no BAR 6"},
		{"mmio.read[0:]:ones", 13, "an offset"},
		{"dma.read[9..8]:error", 10, "ends before"},
		{"device[1]:reset", 7, "no filter"},
		{"irq:drop@", 10, "nothing where a point"},
		{"irq:drop@0", 10, "counting starts at 1"},
		{"irq:drop@5..3", 10, "ends before"},
		{"irq:drop@5..x", 13, `"x" is not a number`},
		{"irq:drop@every", 15, "nothing where a count"},
		{"irq:drop@every 0", 16, "counting starts at 1"},
		{"irq:drop@every 2 from 0", 23, "counting starts at 1"},
		{"irq:drop@time 3", 15, "needs a unit"},
		{"irq:drop@time 3ms..2ms", 10, "ends before"},
		{"irq:drop@3 4", 12, "where the fault should end"},
		{"irq:drop@3, irq:drop", 11, "where the fault should end"},
		{"irq:drop@3 on dma.write", 12, `drop happens to the crossing itself`},
		{"irq:spurious@3 on dma", 19, `no "dma"`},
		{"irq:spurious@3 on", 18, "nothing where a class"},
		{"irq[intx]:storm", 11, "a level"},
		{"seed=x", 6, "not a seed"},
		{"irq:drop@3;\n\tirq:drop@3;\n\tirk:drop", 2, "no"},
		{"irq:drop # ümlaut\nüö:drop", 1, "'ü' where a fault"},
		{"  ;; irq:drop@\xff", 15, "where a point"},
		{"\x00", 1, "where a fault"},
	}
	for _, test := range tests {
		_, err := Parse(test.plan)
		e, ok := err.(*ParseError)
		if !ok {
			t.Errorf("%q: %v", test.plan, err)
			continue
		}
		if e.Column != test.column || !strings.Contains(e.Message, test.what) {
			t.Errorf("%q: column %d, want %d, %q in:\n%v", test.plan, e.Column, test.column, test.what, e)
		}
	}
	_, err := Parse("irq:drop@3\n\tirq:drop@3; irk:drop # no")
	want := "fault plan, line 2, column 14: there is no \"irk\": it is one of irq, dma.read, dma.write, mmio.read, mmio.write, event, device\n" +
		"\t\tirq:drop@3; irk:drop # no\n" +
		"\t\t            ^"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%v", err, want)
	}
}

// faultsOf is what a plan means.
func faultsOf(p *Plan) []fault {
	var all []fault
	for _, f := range p.faults {
		all = append(all, *f)
	}
	return all
}

func diff(a, b *Plan) string {
	return cmp.Diff(fmt.Sprintf("%+v", faultsOf(a)), fmt.Sprintf("%+v", faultsOf(b)))
}

// generate makes an item of a plan, with blanks here and there.
func generate(r *rand.Rand) string {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	maybe := func(s string) string {
		if r.IntN(2) == 0 {
			return ""
		}
		return s
	}
	n := func() string { return fmt.Sprintf(pick("%d", "%#x"), 1+r.Uint64N(1000)) }
	tm := func() string { return fmt.Sprint(1+r.IntN(1000), pick("ns", "us", "µs", "ms", "s")) }
	filter := func(c device.Class) string {
		switch c {
		case device.ClassIRQ:
			return fmt.Sprintf("[%d]", r.IntN(16))
		case device.ClassMMIORead, device.ClassMMIOWrite:
			return fmt.Sprintf("[%s%d%s]", maybe("0:"), r.IntN(16), maybe("..0x20"))
		case device.ClassDevice, device.ClassReset:
			return ""
		}
		return fmt.Sprintf("[%d%s]", r.IntN(16), maybe("..0x2000"))
	}
	if r.IntN(10) == 0 {
		return "seed=" + n()
	}
	s := specs[r.IntN(len(specs))]
	c := s.classes[r.IntN(len(s.classes))]
	tokens := []string{maybe("fifo0/"), c.String(), maybe(filter(c)), ":", s.name}
	if s.arg != argNone && (s.required || r.IntN(2) == 0) {
		value := n()
		switch {
		case s.arg == argTime:
			value = tm()
		case s.arg == argStorm:
			value += maybe("/" + tm())
		}
		tokens = append(tokens, "=", value)
	}
	if r.IntN(4) != 0 {
		tokens = append(tokens, "@", pick("always", "next", n(), "7..2000", n()+"..", "every "+n(), "every "+n()+" from "+n(), "time "+tm(), "time 1us..2s", "time "+tm()+".."))
	}
	if s.own && r.IntN(2) == 0 {
		c := onTarget[r.IntN(len(onTarget))]
		tokens = append(tokens, " on ", c.String(), maybe(filter(c)))
	}
	sep := pick("", "", " ", "\t ")
	return strings.TrimSpace(strings.Join(tokens, sep))
}

// TestRoundTrip: plans print back as they were read.
func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		var items []string
		var src strings.Builder
		for range r.IntN(5) {
			item := generate(r)
			items = append(items, item)
			fmt.Fprint(&src, []string{"", " ", "\n", "# a note; irq:drop\n", ";;"}[r.IntN(5)], item, []string{";", "\n", " ; ", " # note\n"}[r.IntN(4)])
		}
		p, err := Parse(src.String())
		if err != nil {
			t.Fatalf("%q: %v", src.String(), err)
		}
		if got, want := p.String(), strings.Join(items, "; "); got != want {
			t.Fatalf("%q prints as %q, want %q", src.String(), got, want)
		}
		again, err := Parse(p.String())
		if err != nil {
			t.Fatalf("%q, printed: %v", p.String(), err)
		}
		if d := diff(p, again); d != "" {
			t.Fatalf("%q means something else than its print: %s", src.String(), d)
		}
	}
}

func FuzzParse(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		f.Add(generate(r) + ";" + generate(r))
	}
	f.Add("irq[1]:drop@3; dma.write:error@5..7\nirq:delay=2ms@every 10 # so\nmmio.read:ones@40..")
	f.Add("irq:delay=1.5µs@time 3ms..5ms")
	f.Add("irq:drop@\xff\r\n\t")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			e := err.(*ParseError)
			lines := strings.Split(text, "\n")
			if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > len([]rune(lines[e.Line-1]))+1 {
				t.Fatalf("%q: error at line %d, column %d", text, e.Line, e.Column)
			}
			_ = e.Error()
			return
		}
		again, err := Parse(p.String())
		if err != nil {
			t.Fatalf("%q prints as %q: %v", text, p.String(), err)
		}
		if again.String() != p.String() || diff(p, again) != "" {
			t.Fatalf("%q prints as %q, that as %q", text, p.String(), again.String())
		}
		// Nothing that can be written makes it fall over.
		b := newBench(t, text)
		b.jobs(1)
		b.Read32(0, 8)
		b.Reset()
		b.Advance(1000)
	})
}

// TestManual: the faults of docs/faults.md are those that there are, and its
// examples can be read.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z.]+):([a-z01]+)[^`]*` \\|").FindAllStringSubmatch(string(text), -1) {
		documented[m[1]+":"+m[2]] = true
	}
	for _, s := range specs {
		for _, c := range s.classes {
			name := fmt.Sprint(c, ":", s.name)
			if !documented[name] {
				t.Errorf("%s is not in the manual's tables", name)
			}
			delete(documented, name)
		}
	}
	for name := range documented {
		t.Errorf("the manual has %s, which there is not", name)
	}
	blocks := regexp.MustCompile("(?s)```plan\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 2 {
		t.Fatalf("%d examples", len(blocks))
	}
	for _, m := range blocks {
		if p, err := Parse(m[1]); err != nil {
			t.Errorf("an example: %v", err)
		} else if p.Empty() {
			t.Errorf("an empty example: %q", m[1])
		}
	}
}
