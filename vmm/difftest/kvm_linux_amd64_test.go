package difftest

import (
	"testing"

	"fifovm/vmm/clock"
	"fifovm/vmm/kvm"
)

// newReal gives this host's processor. It skips the test where KVM does not open.
func newReal(t testing.TB) *real {
	t.Helper()
	if _, err := kvm.Look(""); err != nil {
		t.Skipf("skipped: the real processor can't be asked: %v", err)
	}
	ns, err := kvm.Speed("", 0)
	if err != nil {
		t.Fatal(err)
	}
	return &real{emulates: ns >= kvm.NativeBelow, processor: newProcessor(t, func(hw hardware) (engine, error) {
		e, err := kvm.New(kvm.Config{CPUs: 1, RAM: hw.ram, Ports: hw.ports, MMIO: hw.mmio, Clock: clock.New(clock.NewHost()), Lock: hw.lock})
		if err != nil {
			return nil, err // not a nil *kvm.Engine in an engine
		}
		return e, nil
	})}
}
