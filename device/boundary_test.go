package device

import "testing"

var _ Model = (*Boundary)(nil)

func TestClassNames(t *testing.T) {
	seen := map[string]bool{}
	for c := range Class(Classes) {
		if s := c.String(); s == "" || seen[s] {
			t.Errorf("class %d has the name %q", c, s)
		} else {
			seen[s] = true
		}
	}
}
