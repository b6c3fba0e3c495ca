package difftest

import (
	"strings"
	"testing"
)

// TestRealByHand has the real processor run cases whose results are known.
func TestRealByHand(t *testing.T) { testByHand(t, newReal(t)) }

// TestRealRepeats runs the cases on the real processor twice: what a case
// leaves in the machine, and what the manual leaves open, must not show.
func TestRealRepeats(t *testing.T) {
	p := newReal(t)
	sum := runBoth(t, 20_000, "real", p, "real again", p)
	if sum.bad > 0 {
		t.Error(sum.report())
	}
	if single() {
		return
	}
	// Cases that never get as far as the instruction test nothing.
	for _, f := range forms {
		n := sum.forms[f.text]
		switch always := alwaysFaults(f); {
		case n == nil:
			t.Errorf("%s: no case", f.text)
		case !always && 3*n.ends[vectorBP] < n.cases:
			t.Errorf("%s: only %d of %d cases end normally", f.text, n.ends[vectorBP], n.cases)
		case always && n.ends[vectorBP] > 0:
			t.Errorf("%s: %d of %d cases raise nothing", f.text, n.ends[vectorBP], n.cases)
		}
	}
	for _, v := range []uint8{vectorDE, vectorDB, vectorUD, vectorSS, vectorGP, vectorPF, vectorMF, vectorXM} {
		total := 0
		for _, n := range sum.forms {
			total += n.ends[v]
		}
		if total == 0 {
			t.Errorf("no case raises %s", vectorNames[v])
		}
	}
	t.Logf("%d cases of %d forms; %d answers were not repeated", sum.cases, len(sum.forms), sum.unsteady)
}

// TestSoft is the differential test: the soft CPU against the real processor.
func TestSoft(t *testing.T) {
	p := newReal(t)
	n := 200_000
	if testing.Short() {
		n = 20_000
	}
	sum := runBoth(t, n, "real", p, "soft", newSoft(t))
	if sum.bad > 0 {
		t.Error(sum.report())
	}
	t.Logf("%d cases of %d forms; %d answers of the real processor were not repeated, %d cases it could not tell about",
		sum.cases, len(sum.forms), sum.unsteady, sum.unknown)
	if most := (sum.cases + sum.unknown) / 50; sum.unknown > most && !single() {
		t.Errorf("%d cases that the real processor can't tell about are too many", sum.unknown)
	}
}

// flipping is a processor with one mistake: a flag of one instruction.
type flipping struct {
	processor
	name string
	flag uint64
}

func (p *flipping) run(c *testCase, r *result) error {
	err := p.processor.run(c, r)
	if c.form.name == p.name {
		r.RFLAGS ^= p.flag
	}
	return err
}

// TestFindsMistake: a wrong flag in one instruction is found, and nothing else.
func TestFindsMistake(t *testing.T) {
	if single() {
		t.Skip("skipped: one case alone does not show it")
	}
	p := newReal(t)
	sum := runBoth(t, 5_000, "real", p, "with a mistake", &real{processor: &flipping{p.processor, "sbb", flagAF}})
	wrong := 0
	for text, n := range sum.forms {
		if strings.HasPrefix(text, "sbb ") {
			wrong += n.bad
			if n.bad != n.cases {
				t.Errorf("%s: found in %d of %d cases", text, n.bad, n.cases)
			}
		} else if n.bad != 0 {
			t.Errorf("%s: found %d times where nothing was changed:\n%s", text, n.bad, strings.Join(n.examples, ""))
		}
	}
	if r := sum.report(); wrong == 0 || !strings.Contains(r, "sbb ") || !strings.Contains(r, "AF") {
		t.Errorf("found in %d cases; the report:\n%s", wrong, r)
	}
}
