//go:build linux && amd64

package kvm

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"

	"fifovm/vmm/x86"
)

// apiVersion is the only one that KVM has had since Linux 2.6.22
// (Documentation/virt/kvm/api.rst, 4.1).
const apiVersion = 12

// needed are the capabilities that the engine can't do without.
var needed = []struct {
	name string
	cap  kvm.Capability
}{
	{"IRQCHIP", kvm.CapIRQChip},
	{"USER_MEMORY", kvm.CapUserMemory},
	{"SET_TSS_ADDR", kvm.CapSetTSSAddr},
	{"EXT_CPUID", kvm.CapEXTCPUID},
	{"MP_STATE", kvm.CapMPState},
	{"IRQ_ROUTING", kvm.CapIRQRouting},
	{"IRQFD", kvm.CapIRQFD},
	{"IOEVENTFD", kvm.CapIOEventFD},
	{"SIGNAL_MSI", kvm.CapSignalMSI},
	{"VCPU_EVENTS", kvm.CapVCPUEvents},
	{"DEBUGREGS", kvm.CapDebugRegs},
	{"XSAVE", kvm.CapXSave},
	{"GET_TSC_KHZ", kvm.CapGetTSCkHz},
	{"TSC_DEADLINE_TIMER", kvm.CapTSCDeadlineTimer},
	{"IMMEDIATE_EXIT", kvm.CapImmediateExit},
}

// openDevice opens KVM's device file, or says what to do about it.
func openDevice(path string) (int, error) {
	if path == "" {
		path = DefaultDevice
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return -1, fmt.Errorf("%w: %s does not exist: load kvm_intel or kvm_amd, switch virtualization on in the firmware, or pass the device into the container", ErrUnavailable, path)
	case errors.Is(err, fs.ErrPermission):
		return -1, fmt.Errorf("%w: no permission to open %s: add yourself to its group (usermod -aG kvm NAME) and log in again", ErrUnavailable, path)
	case err != nil:
		return -1, fmt.Errorf("%w: open %s: %w", ErrUnavailable, path, err)
	}
	if v, err := kvm.GetAPIVersion(uintptr(fd)); err != nil || v != apiVersion {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("%w: %s does not answer as KVM with API version %d: give the path of KVM's device", ErrUnavailable, path, apiVersion)
	}
	return fd, nil
}

// without is a capability that this KVM is said to lack, "IRQFD" for one. It is
// empty but in tests of what is said then, which set it by the linker's -X.
var without string

func has(fd int, c kvm.Capability) bool {
	n, err := kvm.CheckExtension(uintptr(fd), c)
	return err == nil && n > 0
}

// checkHost fails where KVM lacks something that the engine is made of.
func checkHost(fd int) error {
	if m := missingCapabilities(fd); len(m) > 0 {
		return fmt.Errorf("%w: this host's KVM lacks %s: use a newer kernel", ErrUnavailable, strings.Join(m, ", "))
	}
	return nil
}

func missingCapabilities(fd int) []string {
	var list []string
	for _, n := range needed {
		if n.name == without || !has(fd, n.cap) {
			list = append(list, "KVM_CAP_"+n.name)
		}
	}
	return list
}

// missingFeatures lists what the guest's CPU has and KVM does not promise. It is
// no reason to refuse: a KVM that emulates the kernel's code promises little
// and yet runs CPL 3 with all that the processor has.
func missingFeatures(fd int) ([]string, error) {
	t := &cpuid{count: uint32(len(cpuid{}.entries))}
	if _, err := ioctl(fd, ioGetSupported, unsafe.Pointer(t)); err != nil {
		return nil, fmt.Errorf("kvm: what CPUID the host supports: %w", err)
	}
	var list []string
	for _, f := range x86.Features {
		if f.Origin == x86.Processor && !t.has(f) {
			list = append(list, f.Name)
		}
	}
	return list, nil
}

// Host is what a host offers.
type Host struct {
	API          int      // version of KVM's interface
	Capabilities []string // that the engine needs and KVM lacks
	Features     []string // that the guest's CPU has and KVM does not promise
}

// Look opens KVM's device and looks for what is missing.
func Look(device string) (h Host, err error) {
	fd, err := openDevice(device)
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	h.API = apiVersion // or it would not have opened
	h.Capabilities = missingCapabilities(fd)
	h.Features, err = missingFeatures(fd)
	return h, err
}

func (t *cpuid) has(f x86.Feature) bool {
	for _, e := range t.entries[:t.count] {
		if e.function == f.Function && e.index == 0 {
			return map[byte]uint32{'a': e.eax, 'b': e.ebx, 'c': e.ecx, 'd': e.edx}[f.Register]>>f.Bit&1 != 0
		}
	}
	return false
}
