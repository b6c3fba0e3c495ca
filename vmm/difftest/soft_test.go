package difftest

import (
	"testing"

	"fifovm/vmm/clock"
	"fifovm/vmm/soft"
)

// newSoft gives the soft CPU.
func newSoft(t testing.TB) processor {
	return newProcessor(t, func(hw hardware) (engine, error) {
		now := new(clock.Virtual)
		e, err := soft.New(soft.Config{CPUs: 1, RAM: hw.ram, Ports: hw.ports, MMIO: hw.mmio, Time: now, Clock: clock.New(now), Lock: hw.lock})
		if err != nil {
			return nil, err // not a nil *soft.Engine in an engine
		}
		return e, nil
	})
}

// TestSoftByHand has the soft CPU run cases whose results are known, on any host.
func TestSoftByHand(t *testing.T) { testByHand(t, newSoft(t)) }
