//go:build !(linux && amd64)

package kvm

import (
	"fmt"
	"runtime"
)

// NativeBelow is the time in ns of one instruction at CPL 0 that tells a native
// KVM from an emulating one.
const NativeBelow = 100

// Host is what a host offers.
type Host struct {
	API                    int
	Capabilities, Features []string
}

// Look fails: KVM is Linux's.
func Look(string) (Host, error) { return Host{}, errOther() }

// Speed fails: KVM is Linux's.
func Speed(string, uint8) (float64, error) { return 0, errOther() }

// Stops is what a host's KVM stops at for a debugger.
type Stops struct{ Steps, Breakpoints, Watchpoints, INT3 bool }

// CanStop fails: KVM is Linux's.
func CanStop(string) (Stops, error) { return Stops{}, errOther() }

func errOther() error {
	return fmt.Errorf("%w: it is Linux's on x86-64, this host is %s/%s", ErrUnavailable, runtime.GOOS, runtime.GOARCH)
}
