// Package edubench tests the driver edu_drv on the card that it is for, in guests.
// README.md tells how it came to be.
package edubench

import (
	"fmt"
	"testing"

	"fifovm/device/edu"
	"fifovm/harness"
	"fifovm/harness/bench"
	"fifovm/vmm/vmm"
)

// eduBench is a guest with the card, the driver that is in a folder of build, and
// the tests.
func eduBench(driver string) bench.Bench {
	return bench.Bench{
		Modules: []string{"build/" + driver + "/edu_drv.ko"},
		Tests:   []string{"build/edu"},
		Devices: func() []vmm.Device {
			return []vmm.Device{{Name: "edu0", Model: edu.New(edu.Config{})}}
		},
	}
}

// TestDriver: every check is a subtest, on one CPU and on four.
func TestDriver(t *testing.T) {
	for _, cpus := range []int{1, 4} {
		t.Run(fmt.Sprintf("cpus=%d", cpus), func(t *testing.T) {
			b := eduBench("driver")
			b.CPUs = cpus
			bench.Test(t, b)
		})
	}
}

// TestLateInterrupts: with every second interrupt late, and one lost, the driver
// does what it does without. If a fault of the plan never fires, the test fails.
func TestLateInterrupts(t *testing.T) {
	b := eduBench("driver")
	b.Faults = []string{"edu0/irq:drop@5", "edu0/irq:delay=2ms@every 2"}
	bench.Test(t, b)
}

// TestPlantedBug: of a driver that believes in interrupts, which is what
// bugs/lost-interrupt.patch makes of ours, the tests must say so. They see it where
// the card loses an interrupt, and nowhere else.
func TestPlantedBug(t *testing.T) {
	b := eduBench("lost-interrupt")
	results, err := b.Run(t.Context(), bench.Selection{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	caught := false
	for _, r := range results {
		switch {
		case r.Name() == "edu/lost_interrupt":
			caught = r.Verdict == harness.Failed && r.Kind == harness.KindAssertion
			t.Logf("%s: %s: %s", r.Name(), r.Where, r.Reason)
		case r.Verdict != harness.Passed:
			t.Errorf("%s: %v: %s", r.Name(), r.Verdict, r.Reason)
		}
	}
	if !caught {
		t.Error("nobody has noticed the bug")
	}
}
