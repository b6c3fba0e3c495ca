package harness

import (
	"strings"
	"testing"
)

func TestKTAP(t *testing.T) {
	for _, test := range []struct {
		output string
		failed string // names
		wrong  string // with the claim to have passed; empty: nothing
	}{
		{"KTAP version 1\n1..2\nok 1 a\n# why\nok 2 - b", "", ""},
		{"1..2\nok 1 a\nok 2 b # SKIP no such device", "", ""},
		{"1..2\nnot ok 1 a # TODO later\nok 2 b", "", ""},
		{"1..1\nok 1 a#b", "", ""},
		{"1..2\nok 1 a\nok 1 a", "", "out of order"},
		{"1..1\nok 1 a\nBail out! no device", "", "out of order"},
		{"1..1\nok 1 a # SKIP", "", "without a check that passed"},
		{"1..2\nok 1 a\nnot ok 2 a#b", "a#b", "failed: a#b"},
		{"1..1\n    1..2\n    not ok 1 inner\nok 1 a", "", ""},
		{"", "", "without a plan"},
		{"ok 1 a", "", "without a plan"},
		{"1..0", "", "without a check that passed"},
		{"1..3\nok 1 a\nok 2 b", "", "2 of 3 checks"},
		{"1..1\nok 1 a\nok 2 b", "", "2 of 1 checks"},
		{"1..2\nok 1 a\nnot ok 2 sleeping # line 7", "sleeping", "failed: sleeping"},
		{"1..1\nnot ok 1", "1", "failed: 1"},
		{"1..1\nokay 1 a", "", "0 of 1 checks"},
	} {
		var k ktap
		for line := range strings.SplitSeq(test.output, "\n") {
			k.read(line)
		}
		if got := strings.Join(k.failed, ","); got != test.failed {
			t.Errorf("%q: failed checks %q, want %q", test.output, got, test.failed)
		}
		err := k.passed()
		if test.wrong == "" && err != nil || test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
			t.Errorf("%q: %v, want %q", test.output, err, test.wrong)
		}
	}
}
