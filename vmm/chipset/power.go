package chipset

import "fmt"

// ACPI 6.5, 4.8.3.7: the sleep control and status registers of hardware-reduced
// ACPI.
const (
	sleepType      = 7 << 2
	sleepTypeShift = 2
	sleepEnable    = 1 << 5
)

// keyboardPulseReset is the keyboard controller's command that pulses the reset
// line (IBM PC AT Technical Reference). It is Linux's second way to reboot.
const keyboardPulseReset = 0xfe

// Stop is why a guest ends its machine.
type Stop uint8

const (
	// PowerOff: the guest has entered ACPI state S5.
	PowerOff Stop = iota + 1
	// Reset: the guest asks for a reset.
	Reset
)

func (s Stop) String() string {
	switch s {
	case PowerOff:
		return "power off"
	case Reset:
		return "reset"
	}
	return fmt.Sprintf("Stop(%d)", uint8(s))
}

// Power is how a guest ends its machine: ACPI's sleep control and reset
// registers for kernels with ACPI, the keyboard controller's reset for those
// without.
//
// There is no reset control register at 0xcf9: it would stand in the midst of
// the PCI ports, and only kernels that failed to reset by both of the others
// come to it.
type Power struct {
	stop func(Stop)
	s    PowerState
}

// PowerState is the state of a Power.
type PowerState struct {
	SleepType uint8 // as last written, in place
}

// NewPower gives the power block. stop is called in the access that asks for
// it, as often as the guest asks; the access then ends as any other.
func NewPower(stop func(Stop)) *Power { return &Power{stop: stop} }

// Reset puts the block into its state after power on.
func (p *Power) Reset() { p.s = PowerState{} }

// State gives the state.
func (p *Power) State() PowerState { return p.s }

// SetState replaces the state.
func (p *Power) SetState(s PowerState) error {
	if s.SleepType&^sleepType != 0 {
		return fmt.Errorf("chipset: power: state has sleep type %#x", s.SleepType)
	}
	p.s = s
	return nil
}

// Read answers the guest at PowerPort.
func (p *Power) Read(off uint64, data []byte) {
	for i := range data {
		switch PowerPort + off + uint64(i) {
		case SleepControlPort:
			data[i] = p.s.SleepType // sleepEnable reads as zero
		case SleepStatusPort, ResetPort:
			data[i] = 0 // the machine never sleeps, so it never woke
		default:
			data[i] = 0xff
		}
	}
}

// Write takes the guest's bytes at PowerPort.
func (p *Power) Write(off uint64, data []byte) {
	for i, v := range data {
		switch PowerPort + off + uint64(i) {
		case SleepControlPort:
			p.s.SleepType = v & sleepType
			// Other types than S5's are states that the firmware tables don't offer.
			if v&sleepEnable != 0 && v&sleepType == SleepTypePowerOff<<sleepTypeShift {
				p.stop(PowerOff)
			}
		case ResetPort:
			if v == ResetValue {
				p.stop(Reset)
			}
		}
	}
}

// KeyboardReset is the handler for KeyboardPort. It has no state.
//
// Its status reads as on an empty bus, but for the input buffer, which is free:
// so Linux's reboot goes on at once to the command, and its keyboard driver
// finds at once that there is no controller, as the output never runs dry.
func (p *Power) KeyboardReset() *KeyboardReset { return &KeyboardReset{p} }

// KeyboardReset is all that the machine has of a keyboard controller.
type KeyboardReset struct{ power *Power }

const keyboardInputFull = 1 << 1

// Read answers the guest.
func (*KeyboardReset) Read(_ uint64, data []byte) {
	for i := range data {
		data[i] = 0xff &^ keyboardInputFull
	}
}

// Write takes the guest's bytes.
func (k *KeyboardReset) Write(_ uint64, data []byte) {
	for _, v := range data {
		if v == keyboardPulseReset {
			k.power.stop(Reset)
		}
	}
}
