package chipset

// The platform's map: what stands where, for the machine, for the firmware
// tables and for the engines. RAM is vmm/memory's matter: from 0 to the start
// of the PCI window, and from 4 GiB on.

// I/O ports and the interrupts of the devices behind them. ISA interrupt n is
// input n of the I/O APIC.
const (
	// CMOSPort is where every PC since the AT has its clock: index and data.
	CMOSPort  = 0x70
	CMOSPorts = 2
	CMOSIRQ   = 8

	// KeyboardPort is the command and status port of the keyboard controller,
	// of which we have nothing but the reset (see Power.KeyboardReset).
	KeyboardPort  = 0x64
	KeyboardPorts = 1

	// COM1 is ttyS0, the console; COM2 is ttyS1, the harness's channel.
	COM1Port  = 0x3f8
	COM1IRQ   = 4
	COM2Port  = 0x2f8
	COM2IRQ   = 3
	UARTPorts = 8

	// PowerPort starts the power block. ACPI leaves the place to the platform;
	// the FADT says it.
	PowerPort         = 0x600
	PowerPorts        = 3
	SleepControlPort  = PowerPort + 0 // FADT SLEEP_CONTROL_REG
	SleepStatusPort   = PowerPort + 1 // FADT SLEEP_STATUS_REG
	ResetPort         = PowerPort + 2 // FADT RESET_REG
	ResetValue        = 0x5a          // FADT RESET_VALUE
	SleepTypePowerOff = 5             // \_S5's SLP_TYP

	// PCIPort is CONFIG_ADDRESS and, four bytes on, CONFIG_DATA (PCI Local Bus
	// 3.0, 3.2.2.3.2).
	PCIPort  = 0xcf8
	PCIPorts = 8

	// PCIPortWindow is where BARs with ports lie.
	PCIPortWindow     = 0xc000
	PCIPortWindowSize = 0x4000

	// INTxGSI is the first of the four inputs that the devices' interrupt pins
	// share: slot n's is the (n mod 4)th from it.
	INTxGSI = 16
)

// Guest-physical addresses.
const (
	// PCIWindow32 is where 32-bit BARs lie: memory.HoleStart is its start.
	PCIWindow32     = 0xc000_0000
	PCIWindow32Size = 0x2000_0000

	// ECAM is the memory-mapped configuration space: 1 MiB for a bus (PCI
	// Express Base 6.0, 7.2.2). There is one bus, and the window says so: Linux
	// searches every bus that fits it, device by device, at each boot
	// (arch/x86/pci/legacy.c, pcibios_fixup_peer_bridges).
	ECAM     = 0xe000_0000
	ECAMSize = 1 << 20

	// IOAPICBase and LocalAPICBase are where they are after power on (Intel
	// 82093AA data sheet; Intel SDM volume 3, on the APIC).
	IOAPICBase    = 0xfec0_0000
	IOAPICSize    = 0x1000
	IOAPICInputs  = 24
	LocalAPICBase = 0xfee0_0000
	LocalAPICSize = 0x1000

	// PCIWindow64 is where 64-bit BARs lie: the upper half of the 39 physical
	// address bits that the CPU has.
	PCIWindow64     = 0x40_0000_0000
	PCIWindow64Size = 0x40_0000_0000
)
