package harness

import (
	"slices"
	"strings"
	"testing"
)

func TestKTAP(t *testing.T) {
	for _, test := range []struct {
		checks string // that it is to make, as far as that is known
		output string
		failed string // names
		wrong  string // with the claim to have passed; empty: nothing
	}{
		{"", "KTAP version 1\n1..2\nok 1 a\n# why\nok 2 - b", "", ""},
		{"", "1..2\nok 1 a\nok 2 b # SKIP no such device", "", ""},
		{"", "1..2\nnot ok 1 a # TODO later\nok 2 b", "", ""},
		{"", "1..1\nok 1 a#b", "", ""},
		{"", "1..2\nok 1 a\nok 1 a", "", `after 1 of 2 checks; "ok 1 a" was not result 2`},
		{"", "1..1\nok 1 a\nBail out! no device", "", `said "Bail out! no device"`},
		{"", "1..1\nok 1 a # SKIP", "", "without a check that passed"},
		{"", "1..2\nok 1 a\nnot ok 2 a#b", "a#b", "failed: a#b"},
		{"", "1..1\n    1..2\n    not ok 1 inner\nok 1 a", "", ""},
		{"", "", "", "without a plan"},
		{"", "ok 1 a", "", "without a plan"},
		{"", "1..0", "", "without a check that passed"},
		{"", "1..3\nok 1 a\nok 2 b", "", "2 of 3 checks"},
		{"", "1..1\nok 1 a\nok 2 b", "", "2 of 1 checks"},
		{"", "1..2\nok 1 a\nnot ok 2 sleeping # line 7", "sleeping", "failed: sleeping"},
		{"", "1..1\nnot ok 1", "1", "failed: 1"},
		{"", "1..1\nokay 1 a", "", "0 of 1 checks"},
		{"", "1..2\nok 2 b\nok 1 a", "", `after 1 of 2 checks; "ok 2 b" was not result 2`},
		{"", "1..1\nok a", "", `after 0 of 1 checks; "ok a" was not result 1`},
		{"", "1..1\nok 1 # SKIP no card", "", "without a check that passed"},
		{"", "1..1\nnot ok 1 # why", "1", "failed: 1"},
		{"", "1..2\nnot ok 77 nonsense\nok\nnot ok\nok 1 a\nnot ok 1 a\nok 2 b", "", ""},
		{"", "1..3\nnot ok 1 a\nok 2 b", "a", "after 2 of 3 checks"},
		// What a check runs, prints results of its own.
		{"a b", "1..2\nok 1 inner\n1..3\nnot ok 2 a\nok 1 a\nok 2 b", "", ""},
		{"a b", "1..2\nok 1 a\nnot ok 2 a\nok 2 - b # why", "", ""},
		{"a b", "1..2\nok 1 a\nok 2 b\nnot ok 3 c", "", ""},
		{"a b", "1..2\nok 1 b\nnot ok 2 a", "a", "failed: a"}, // in another order than they were asked for
		{"a b", "1..2\nok 1 a\nok 2 the second", "", `after 1 of 2 checks; "ok 2 the second" was not result 2, of check b`},
		{"a a", "1..2\nok 1 a\nok 2 a", "", ""},
		{"a b", "1..3\nok 1 a\nok 2 b\nok 3 c", "", "2 of 3 checks"},
		{"a#b", "1..1\nok 1 a#b # SKIP", "", "without a check that passed"},
	} {
		k := newKTAP(strings.Fields(test.checks))
		for line := range strings.SplitSeq(test.output, "\n") {
			k.read(line)
		}
		if got := strings.Join(k.failed, ","); got != test.failed {
			t.Errorf("%s: %q: failed checks %q, want %q", test.checks, test.output, got, test.failed)
		}
		err := k.passed()
		if test.wrong == "" && err != nil || test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
			t.Errorf("%s: %q: %v, want %q", test.checks, test.output, err, test.wrong)
		}
	}
}

// FuzzKTAP has anything come before, between and behind the results of two checks:
// none of it counts, but for a plan, a result that is due, and "Bail out!".
func FuzzKTAP(f *testing.F) {
	f.Add("", "", "")
	f.Add("ok 1 x", "ok 2", "ok 3 c")
	f.Add("not ok 77 nonsense", "1..9\nnot ok 1 a", "not ok 2 b")
	f.Add("ok 1 # SKIP\nok  1  - a", "not ok 2 - b # TODO later", "okay 2 b")
	f.Add("not ok 1 a", "Bail out!", "1..0")
	f.Add("ok 99999999999999999999 a", "1..99999999999999999999", "\tok 2 b\r\n# why")
	f.Fuzz(func(t *testing.T, before, between, behind string) {
		k := newKTAP([]string{"a", "b"})
		var results []*check
		read := func(text string) {
			for line := range strings.SplitSeq(text, "\n") {
				if c := k.read(line); c != nil {
					results = append(results, c)
				}
			}
		}
		read("1..2\n" + before + "\nok 1 a\n" + between + "\nok 2 b\n" + behind)
		var names []string
		failed := 0
		for _, c := range results {
			names = append(names, c.name)
			if c.verdict == Failed {
				failed++
			}
		}
		slices.Sort(names)
		if !slices.Equal(names, []string{"a", "b"}) {
			t.Errorf("results of %q", names)
		}
		bail := strings.Contains("\n"+before+"\n"+between+"\n"+behind, "\nBail out!")
		if err := k.complete(); (err == nil) != (failed == 0 && !bail) {
			t.Errorf("%d failed, bail out: %v, complete: %v", failed, bail, err)
		}
	})
}
