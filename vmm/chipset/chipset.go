// Package chipset is what a PC has beside CPU, memory and PCI: two 16550A
// serial ports, the CMOS clock, the registers that power the machine off or
// reset it, and the interrupt controllers: a local APIC for each CPU and the
// I/O APIC. The map of the whole platform is in layout.go.
//
// The devices work on the machine's clock and know nothing of the engine, of
// the terminal or of the host's time. They start no goroutine and do no
// locking: the machine holds its lock around every access, every event and
// every call from its own side. Callbacks are called with that lock held, must
// not block, and may call back into the device.
//
// Everything that outlives an access is in a device's State, as plain data;
// what the device has asked of the clock is in the clock's. SetState checks
// what it is given and calls nobody: the level of an interrupt line is in the
// interrupt controller's state too.
//
// The ISA devices are one byte wide, as their bus: a wider access is the byte
// accesses that the bus would make of it, lowest address first.
//
// The interrupt controllers are for engines that have none: under KVM they are
// the kernel's. Their state is therefore in the form that both engines share,
// x86.State. There is no 8259 and no second I/O APIC, nothing is wired to the
// local APICs' LINT pins, and system management interrupts lead nowhere.
package chipset
