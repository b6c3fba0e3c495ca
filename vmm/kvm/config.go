// Package kvm is the engine that runs a machine's CPUs on Linux's KVM.
//
// Each CPU has an operating-system thread of its own. The interrupt controllers
// (local APIC, I/O APIC) live in the kernel; port I/O and MMIO come back here
// and go to the buses under the machine's lock. Time is the host's.
//
// The package decides nothing about the guest: what the CPU looks like is
// package x86's table, where devices are is the machine's. github.com/bobuhiro11/gokvm/kvm
// makes the calls that it gets right, abi.go the others.
package kvm

import (
	"errors"
	"sync"

	"fifovm/vmm/bus"
	"fifovm/vmm/clock"
	"fifovm/vmm/memory"
)

// DefaultDevice is KVM's device file.
const DefaultDevice = "/dev/kvm"

// Config is what an engine is given by its machine.
type Config struct {
	Device string // KVM's device file; empty means DefaultDevice
	CPUs   int
	RAM    *memory.RAM
	Ports  *bus.Space
	MMIO   *bus.Space
	Clock  *clock.Clock // of host time
	// Lock is held around every bus access and every clock event.
	Lock sync.Locker
	// OnStop, if not nil, is called in each run when its CPUs are told to stop,
	// on any goroutine and without the lock: a device that makes a CPU wait in
	// an access lets go.
	OnStop func()
}

// ErrUnavailable is wrapped by every error that says that this host has no KVM
// that the engine could use.
var ErrUnavailable = errors.New("KVM is not available")

// ErrNotEmulated is wrapped by the error of a CPU whose next instruction KVM
// would have to emulate and can't. It is what a host without VMX and SVM ends
// in, where KVM emulates all of the kernel's code.
var ErrNotEmulated = errors.New("this host's KVM could not emulate an instruction")
