package vmm

import (
	"context"
	"fmt"
	"strings"

	"fifovm/vmm/kvm"
	"fifovm/vmm/x86"
)

// Engine runs the CPUs of one machine and keeps their interrupt controllers.
type Engine interface {
	// Run runs every CPU until ctx is done, which is no error, or until one
	// can't go on: the error then is an *x86.Stuck, or the *x86.Trap of SetDebug. When it returns, no CPU runs.
	Run(ctx context.Context) error
	// Stop is called by a device, in an access or event, when the run's context
	// is done: the guest executes nothing more, if the engine can help it.
	Stop()
	// State and SetState give out and take in the whole state. The engine must
	// not be running.
	State() (*x86.State, error)
	SetState(*x86.State) error
	// TrackRAM is called when the RAM has got a base. From then on the engine
	// knows what the guest writes to, and Rewind makes the RAM the base's again and
	// replaces the state, as SetState does. The engine must not be running.
	TrackRAM() error
	Rewind(*x86.State) error
	// TSCkHz is the rate of the CPUs' time-stamp counters.
	TSCkHz() uint32
	// CPU gives the state of one CPU, and SetCPU replaces its registers, but for
	// those of the local APIC and the MSRs. The engine must not be running.
	CPU(i int, s *x86.CPU) error
	SetCPU(i int, s *x86.CPU) error
	// SetDebug has the next runs end where d says, nil for nowhere, each with an
	// *x86.Trap. The engine must not be running.
	SetDebug(d *x86.Debug) error
	// SetIRQ drives an input of the I/O APIC.
	SetIRQ(gsi uint32, level bool) error
	// SignalMSI delivers a message-signalled interrupt. An error is about the
	// message: a guest may have given its device an address where no local APIC
	// is, and the machine goes on.
	SignalMSI(address uint64, data uint32) error
	Close() error
}

// Engine names, as on the command line.
const (
	EngineAuto = "auto"
	EngineKVM  = "kvm"
	EngineSoft = "soft"
)

// ChooseEngine decides what name ("auto" or an engine's name) means on this
// host and says why in a few words. device is KVM's device file; empty means
// the usual one.
//
// An engine that was asked for by name is not tried first: a host on which it
// does badly is the user's choice.
func ChooseEngine(name, device string) (engine, reason string, err error) {
	switch name {
	case EngineKVM, EngineSoft:
		return name, "as asked for", nil
	case EngineAuto:
	default:
		return "", "", fmt.Errorf("engine %q is unknown: use %s, %s or %s", name, EngineAuto, EngineKVM, EngineSoft)
	}
	// Opening the device proves nothing: there are KVMs that answer every
	// capability and then emulate the kernel's code instruction by instruction.
	ns, err := kvm.Speed(device, 0)
	switch {
	case err != nil:
		why := strings.TrimPrefix(err.Error(), kvm.ErrUnavailable.Error()+": ")
		return EngineSoft, "KVM can't be used: " + why, nil
	case ns >= kvm.NativeBelow:
		return EngineSoft, fmt.Sprintf("this host's KVM emulates ring-0 code, %.0f ns an instruction", ns), nil
	}
	return EngineKVM, fmt.Sprintf("it runs ring-0 code natively, %.2g ns an instruction", ns), nil
}
