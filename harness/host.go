package harness

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"fifovm/device/fault"
	"fifovm/vmm/vmm"
)

// Host is what a test can have done from outside of its guest: it prints a line
// "# host: COMMAND", and gets a line on its standard input, "ok", "ok RESULT" or
// "error TEXT". On the soft engine the guest stands still meanwhile.
type Host interface {
	// Do does what a test asks for.
	Do(command string) (result string, err error)
	// End is called when a test is over, or its guest is. It takes back what was
	// for that test alone. Its error is why the test, if it was not skipped, has
	// failed.
	End() error
}

// DeviceHost is the Host that breaks and plugs a machine's devices.
// guest/agent/README.md tells what it does for tests.
type DeviceHost struct {
	machine *vmm.Machine
	plan    *fault.Plan
	planned int // faults that are not a test's
	// first is the number of the first of the plan's faults that a test has armed
	// since it cleared them, the number of all faults where it has armed none.
	first int
	lost  []string // faults that were cleared before they had fired
}

var _ Host = (*DeviceHost)(nil)

// NewDeviceHost is for a machine whose devices the plan is armed on. Tests add to
// it; what it has before stays.
func NewDeviceHost(m *vmm.Machine, plan *fault.Plan) *DeviceHost {
	n := len(plan.Fired())
	return &DeviceHost{machine: m, plan: plan, planned: n, first: n}
}

// Do implements Host.
func (h *DeviceHost) Do(command string) (result string, err error) {
	name, argument, _ := strings.Cut(strings.TrimSpace(command), " ")
	argument = strings.TrimSpace(argument)
	switch name {
	case "fault":
		return "", h.arm(argument)
	case "plug":
		return "", h.plug(argument)
	case "fired", "clear", "retired":
		if argument != "" {
			return "", fmt.Errorf("%s: want no argument", name)
		}
	default:
		return "", fmt.Errorf("there is no command %q: want fault, fired, clear, plug or retired", name)
	}
	h.machine.Do(func() {
		switch name {
		case "fired":
			result, err = h.fired()
		case "clear":
			result, err = h.clear()
		case "retired":
			result, err = h.retired()
		}
	})
	return result, err
}

// arm arms more faults.
func (h *DeviceHost) arm(text string) error {
	p, err := fault.Parse(text)
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n") // what follows points into the text
		return errors.New(first)
	}
	if p.Empty() {
		return errors.New("there is no fault in it")
	}
	if len(h.names()) == 0 {
		return errors.New("there is no device to break")
	}
	for _, name := range p.Devices() {
		if err := h.there(name); err != nil {
			return err
		}
	}
	h.machine.Do(func() { err = h.plan.Arm(text) })
	return err
}

func (h *DeviceHost) names() (names []string) {
	for _, d := range h.machine.Devices() {
		names = append(names, d.Name())
	}
	return names
}

func (h *DeviceHost) there(name string) error {
	if names := h.names(); !slices.Contains(names, name) {
		return fmt.Errorf("there is no device %q: there is %s", name, strings.Join(names, " and "))
	}
	return nil
}

// fired counts how often the faults that are armed have fired. The machine is
// locked.
func (h *DeviceHost) fired() (string, error) {
	counts := h.plan.Fired()[h.first:]
	if len(counts) == 0 {
		return "", errors.New("there is no fault armed")
	}
	return total(counts)
}

// clear disarms the test's faults. The machine is locked.
func (h *DeviceHost) clear() (string, error) {
	counts := h.plan.Fired()[h.first:]
	h.plan.ClearFrom(h.first)
	h.first += len(counts)
	h.lost = append(h.lost, unfired(counts)...)
	return total(counts)
}

// total is how often the faults have fired, if each of them has.
func total(counts []fault.Count) (string, error) {
	if left := unfired(counts); len(left) > 0 {
		return "", fmt.Errorf("never fired: %s", strings.Join(left, "; "))
	}
	var n uint64
	for _, c := range counts {
		n += c.Fired
	}
	return strconv.FormatUint(n, 10), nil
}

func unfired(counts []fault.Count) (faults []string) {
	for _, c := range counts {
		if c.Fired == 0 {
			faults = append(faults, c.Fault)
		}
	}
	return faults
}

// Left are the faults of the plan, without those of tests, that have not fired.
// The machine must not be running.
func (h *DeviceHost) Left() []string { return unfired(h.plan.Fired()[:h.planned]) }

func (h *DeviceHost) retired() (string, error) {
	n, ok := h.machine.Retired()
	if !ok {
		return "", errors.New("this engine does not count instructions")
	}
	return strconv.FormatInt(n, 10), nil
}

// plug puts a device back.
func (h *DeviceHost) plug(name string) error {
	if err := h.there(name); err != nil {
		return err
	}
	removed := false
	h.machine.Do(func() { removed = h.machine.Device(name).Removed() })
	if !removed {
		return fmt.Errorf("%s is where it was", name)
	}
	return h.machine.PlugDevice(name)
}

// End implements Host: a fault of a test's own that has not fired makes it
// invalid, and the next test has none of them.
func (h *DeviceHost) End() error {
	h.machine.Do(func() { _, _ = h.clear() }) // what never fired is in lost
	lost := h.lost
	h.lost = nil
	return Unfired(lost)
}

// Unfired is the error of a run in which these faults did not happen: it has not
// shown what it was to show.
func Unfired(faults []string) error {
	switch len(faults) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("invalid: the fault %s never fired", faults[0])
	}
	return fmt.Errorf("invalid: the faults %s never fired", strings.Join(faults, " and "))
}
