//go:build !(linux && amd64)

package difftest

import "testing"

// newReal skips the test: only KVM can ask the real processor.
func newReal(t testing.TB) *real {
	t.Skip("skipped: the real processor can't be asked: KVM is Linux's on x86-64")
	return nil
}
