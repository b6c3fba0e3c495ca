package harness

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestSplit: no command is longer than the agent takes, and no check is lost.
func TestSplit(t *testing.T) {
	var many, long []string
	for i := range 100 {
		many = append(many, fmt.Sprint("c", i))
		long = append(long, strings.Repeat("c", 100)+fmt.Sprint(i))
	}
	for _, checks := range [][]string{nil, {"a"}, many[:30], many[:31], many, long, {strings.Repeat("x", 5000)}} {
		var got []string
		for left := []unit{{program: "p", checks: checks}}; len(left) > 0; {
			u, rest := left[0].split()
			if words := strings.Fields(u.command()); len(words) > maxChecks+1 || len(u.checks) > 1 && len(u.command()) > 1000 {
				t.Errorf("%d words, %d bytes", len(words), len(u.command()))
			}
			got = append(got, u.checks...)
			left = append(rest, left[1:]...)
		}
		if !slices.Equal(got, checks) {
			t.Errorf("of %d checks %d are run", len(checks), len(got))
		}
	}
	u := unit{program: "p", checks: many, whole: true}
	if first, rest := u.split(); first.command() != "p" || rest != nil || len(first.checks) != len(many) {
		t.Errorf("a whole program is %q, and %d more", first.command(), len(rest))
	}
}
