//go:build linux && amd64

package kvm

import (
	"runtime"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"
)

// What gokvm's kvm package lacks or gets wrong, from the kernel's
// include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h.

// Requests. The sizes are those of the structs below, or of the fixed part
// where an array follows.
var (
	ioRun          = kvm.IIO(0x80)
	ioIRQLine      = kvm.IIOW(0x61, unsafe.Sizeof(irqLevel{}))
	ioSetRouting   = kvm.IIOW(0x6a, 8)
	ioIRQFD        = kvm.IIOW(0x76, unsafe.Sizeof(irqfd{}))
	ioIOEventFD    = kvm.IIOW(0x79, unsafe.Sizeof(ioeventfd{}))
	ioSignalMSI    = kvm.IIOW(0xa5, unsafe.Sizeof(msi{}))
	ioGetMSRs      = kvm.IIOWR(0x88, 8)
	ioSetMSRs      = kvm.IIOW(0x89, 8)
	ioGetSupported = kvm.IIOWR(0x05, 8)
	ioSetCPUID2    = kvm.IIOW(0x90, 8)
	ioSetAttribute = kvm.IIOW(0xe1, unsafe.Sizeof(attribute{}))
	ioGetAttribute = kvm.IIOW(0xe2, unsafe.Sizeof(attribute{}))
	ioGetXSAVE     = kvm.IIOR(0xa4, unsafe.Sizeof(xsave{}))
	ioSetXSAVE     = kvm.IIOW(0xa5, unsafe.Sizeof(xsave{}))
)

const (
	exitSystemEvent = 24 // KVM_EXIT_SYSTEM_EVENT, one of those that gokvm lacks

	suberrorEmulation = 1 // KVM_INTERNAL_ERROR_EMULATION

	routeIRQChip = 1 // KVM_IRQ_ROUTING_IRQCHIP
	routeMSI     = 2 // KVM_IRQ_ROUTING_MSI

	chipMaster = 0 // KVM_IRQCHIP_PIC_MASTER
	chipSlave  = 1 // KVM_IRQCHIP_PIC_SLAVE
	chipIOAPIC = 2 // KVM_IRQCHIP_IOAPIC

	irqfdDeassign     = 1 << 0
	ioeventfdDeassign = 1 << 2

	eventNMIPending = 1 << 0 // KVM_VCPUEVENT_VALID_NMI_PENDING
	eventSIPI       = 1 << 1 // KVM_VCPUEVENT_VALID_SIPI_VECTOR
	eventShadow     = 1 << 2 // KVM_VCPUEVENT_VALID_SHADOW

	shadowMovSS = 1 << 0 // KVM_X86_SHADOW_INT_MOV_SS
	shadowSTI   = 1 << 1 // KVM_X86_SHADOW_INT_STI

	cpuidSignificantIndex = 1 << 0

	groupTSC  = 0 // KVM_VCPU_TSC_CTRL
	tscOffset = 0 // KVM_VCPU_TSC_OFFSET
)

// irqLevel is struct kvm_irq_level. gokvm's IRQLineStatus has one on the stack,
// passes it as an integer and so has the kernel write to where the stack was
// before it grew.
type irqLevel struct{ gsi, level uint32 }

// irqfd is struct kvm_irqfd.
type irqfd struct {
	fd, gsi, flags, resample uint32
	_                        [16]byte
}

// ioeventfd is struct kvm_ioeventfd.
type ioeventfd struct {
	datamatch, addr uint64
	length          uint32
	fd              int32
	flags           uint32
	_               [36]byte
}

// msi is struct kvm_msi.
type msi struct {
	addressLow, addressHigh, data, flags, device uint32
	_                                            [12]byte
}

// attribute is struct kvm_device_attr. KVM reads or writes what address points
// to; it is a pointer here so that the collector sees it.
type attribute struct {
	flags, group uint32
	id           uint64
	address      *uint64
}

// route is struct kvm_irq_routing_entry: 48 bytes, where gokvm has 24. The
// fields after the padding are the union's: of an irqchip route a is the chip
// and b the pin, of an MSI a and b are the address and c the data.
type route struct {
	gsi, kind, flags, _ uint32
	a, b, c, d          uint32
	_                   [16]byte
}

// routing is struct kvm_irq_routing with room for every route.
type routing struct {
	count, flags uint32
	entries      [maxRoutes]route
}

// msrs is struct kvm_msrs with room for every register of a CPU's state.
type msrs struct {
	count, _ uint32
	entries  [64]kvm.MSREntry
}

// cpuid is struct kvm_cpuid2 with KVM_MAX_CPUID_ENTRIES.
type cpuid struct {
	count, _ uint32
	entries  [256]cpuidEntry
}

// cpuidEntry is struct kvm_cpuid_entry2.
type cpuidEntry struct {
	function, index, flags, eax, ebx, ecx, edx uint32
	_                                          [3]uint32
}

// xsave is struct kvm_xsave: the FXSAVE image, then the XSAVE header, whose
// first word names the components that are present.
type xsave struct {
	legacy   [512]byte
	xstateBV uint64
	_        [4096 - 520]byte
}

// ioctl calls the kernel with a pointer that stays valid throughout: gokvm's
// Ioctl takes an integer, which a growing stack would leave behind.
func ioctl(fd int, request uintptr, arg unsafe.Pointer) (uintptr, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	runtime.KeepAlive(arg)
	if errno != 0 {
		return 0, errno
	}
	return r, nil
}
