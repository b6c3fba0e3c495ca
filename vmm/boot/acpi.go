package boot

import (
	"encoding/binary"
	"errors"
	"fmt"

	"fifovm/vmm/memory"
)

// Platform is what the firmware tables tell the guest about the machine. Zero
// values mean that a thing is absent.
type Platform struct {
	LocalAPIC uint64 // address of each CPU's own
	IOAPIC    uint64 // address of the one I/O APIC, whose pins are GSI 0 on

	ECAM   Window // PCI configuration space, 1 MiB for each bus from 0 on
	MMIO32 Window // addresses for BARs below 4 GiB
	MMIO64 Window // and above
	// INTx gives the GSI of each of bus 0's slots' four interrupt pins; 0: the
	// pin isn't wired. They are level triggered and active low. Guests evaluate
	// each entry at boot, so leave out those of empty slots.
	INTx [32][4]uint32

	UARTs []Port // 16550s, COM1 first
	RTC   Port   // the CMOS clock: index and data port
	// RTCCentury is the clock's register of the century; 0: it has none.
	RTCCentury uint8

	SleepControl uint16 // port: SLP_EN with SleepType powers the machine off
	SleepType    uint8  // \_S5's SLP_TYP (ACPI 6.5, section 4.8.3.7)
	SleepStatus  uint16 // port: bit 7 is the wake status; always 0 will do
	Reset        uint16 // port: ResetValue resets the machine
	ResetValue   uint8
}

// Window is a range of guest-physical addresses.
type Window struct{ Base, Size uint64 }

// Port is a device on I/O ports: the first of them, and its GSI.
type Port struct {
	Port uint16
	GSI  uint32
}

// Who the tables are from.
const (
	oemID     = "FIFOVM"
	oemTable  = "FIFOVM  "
	creatorID = "FIFO"
	revision  = 1
)

// The tables lie in the BIOS area, where also a kernel finds them that looks for
// the signature: ACPI 6.5, section 5.2.5.1.
const (
	acpiBase = 0xe0000
	acpiEnd  = 0x100000
)

// maxCPUs leaves room for the tables that list them.
const maxCPUs = 4096

// checkPlatform refuses what the tables cannot say, and what lies in RAM.
func checkPlatform(p *Platform, cpus int, ram *memory.RAM) error {
	slots := ram.Slots()
	last := slots[len(slots)-1]
	end := max(last.Base+uint64(len(last.Bytes)), memory.HoleEnd)
	inHole := func(w Window) bool {
		return w.Size == 0 || w.Base >= memory.HoleStart && w.Base < memory.HoleEnd && w.Size <= memory.HoleEnd-w.Base
	}
	switch {
	case cpus < 1 || cpus > maxCPUs:
		return fmt.Errorf("%d CPUs: want 1 to %d", cpus, maxCPUs)
	case !inHole(Window{p.LocalAPIC, memory.PageSize}) || !inHole(Window{p.IOAPIC, memory.PageSize}):
		return fmt.Errorf("APICs at %#x and %#x: want them between %#x and %#x", p.LocalAPIC, p.IOAPIC, memory.HoleStart, uint64(memory.HoleEnd))
	case !inHole(p.ECAM) || p.ECAM.Size%ecamBus != 0 || p.ECAM.Size > 256*ecamBus:
		return fmt.Errorf("ECAM at %#x+%#x: want 1 to 256 MiB between %#x and %#x", p.ECAM.Base, p.ECAM.Size, memory.HoleStart, uint64(memory.HoleEnd))
	case !inHole(p.MMIO32):
		return fmt.Errorf("32-bit PCI window at %#x+%#x: want it between %#x and %#x", p.MMIO32.Base, p.MMIO32.Size, memory.HoleStart, uint64(memory.HoleEnd))
	case p.MMIO64.Size != 0 && (p.MMIO64.Base < end || p.MMIO64.Base+p.MMIO64.Size < p.MMIO64.Base):
		return fmt.Errorf("64-bit PCI window at %#x+%#x: want it from %#x on", p.MMIO64.Base, p.MMIO64.Size, end)
	case (p.SleepControl == 0) != (p.SleepStatus == 0):
		return errors.New("one of the sleep control and status ports without the other")
	case len(p.UARTs) > 9:
		return fmt.Errorf("%d UARTs: want at most 9", len(p.UARTs))
	}
	return nil
}

// ecamBus is the configuration space of one bus: PCI Firmware 3.3, section 4.1.1.
const ecamBus = 1 << 20

// acpiTables gives the tables as they lie from base on; the RSDP is first.
func acpiTables(p *Platform, cpus int, base uint64) []byte {
	const rsdpSize = 36
	out := make([]byte, rsdpSize)
	place := func(table []byte) uint64 {
		for len(out)%16 != 0 {
			out = append(out, 0)
		}
		addr := base + uint64(len(out))
		out = append(out, table...)
		return addr
	}
	dsdtAt := place(dsdt(p))
	entries := []uint64{place(fadt(p, dsdtAt)), place(madt(p, cpus))}
	if p.ECAM.Size != 0 {
		entries = append(entries, place(mcfg(p)))
	}
	copy(out, rsdp(place(xsdt(entries))))
	return out
}

// rsdp is the root pointer: ACPI 6.5, section 5.2.5.3.
func rsdp(xsdt uint64) []byte {
	const (
		acpi1Size = 20
		checksum1 = 8
		checksum2 = 32
	)
	le := binary.LittleEndian
	b := append([]byte("RSD PTR \x00"+oemID), 2) // revision
	b = le.AppendUint32(b, 0)                    // no RSDT
	b = le.AppendUint32(b, 36)
	b = le.AppendUint64(b, xsdt)
	b = append(b, 0, 0, 0, 0)
	b[checksum1] = checksum(b[:acpi1Size])
	b[checksum2] = checksum(b)
	return b
}

// checksum is the byte that makes b, of which it is zero yet, sum up to zero.
func checksum(b []byte) byte {
	var sum byte
	for _, v := range b {
		sum += v
	}
	return -sum
}

// tableHeader is the size of what all tables start with.
const tableHeader = 36

// table puts the header that all tables share before body: ACPI 6.5, section
// 5.2.6.
func table(signature string, rev byte, body []byte) []byte {
	const checksumAt = 9
	le := binary.LittleEndian
	b := le.AppendUint32([]byte(signature), uint32(tableHeader+len(body)))
	b = append(b, rev, 0)
	b = append(b, oemID+oemTable...)
	b = le.AppendUint32(b, revision)
	b = append(b, creatorID...)
	b = le.AppendUint32(b, revision)
	b = append(b, body...)
	b[checksumAt] = checksum(b)
	return b
}

// xsdt lists the tables: ACPI 6.5, section 5.2.8.
func xsdt(entries []uint64) []byte {
	var b []byte
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint64(b, e)
	}
	return table("XSDT", 1, b)
}

// fadt describes the fixed hardware, of which a hardware-reduced machine has
// none but the sleep and reset registers: ACPI 6.5, section 5.2.9.
func fadt(p *Platform, dsdt uint64) []byte {
	const (
		size, minor = 276, 5

		// Offsets from the start of the table.
		atDSDT         = 40
		atCentury      = 108
		atBootArch     = 109
		atFlags        = 112
		atReset        = 116
		atResetValue   = 128
		atMinor        = 131
		atXDSDT        = 140
		atSleepControl = 244
		atSleepStatus  = 256

		// IA-PC boot architecture flags, section 5.2.9.3.
		noVGA = 1 << 2
		noRTC = 1 << 5

		// Fixed feature flags, table 5.10 in section 5.2.9.
		wbinvd         = 1 << 0
		procC1         = 1 << 2
		noPowerButton  = 1 << 4
		noSleepButton  = 1 << 5
		noFixedRTCWake = 1 << 6
		resetSupported = 1 << 10
		headless       = 1 << 12
		hwReduced      = 1 << 20
	)
	le := binary.LittleEndian
	b := make([]byte, size)
	arch := uint16(noVGA)
	if p.RTC.Port == 0 {
		arch |= noRTC
	} else {
		b[atCentury] = p.RTCCentury
	}
	flags := uint32(wbinvd | procC1 | noPowerButton | noSleepButton | noFixedRTCWake | headless | hwReduced)
	if p.Reset != 0 {
		flags |= resetSupported
		copy(b[atReset:], portRegister(p.Reset))
		b[atResetValue] = p.ResetValue
	}
	if p.SleepControl != 0 {
		copy(b[atSleepControl:], portRegister(p.SleepControl))
		copy(b[atSleepStatus:], portRegister(p.SleepStatus))
	}
	le.PutUint32(b[atDSDT:], uint32(dsdt))
	le.PutUint64(b[atXDSDT:], dsdt)
	le.PutUint16(b[atBootArch:], arch)
	le.PutUint32(b[atFlags:], flags)
	b[atMinor] = minor
	return table("FACP", 6, b[tableHeader:])
}

// portRegister is a Generic Address Structure for an I/O port of one byte:
// ACPI 6.5, section 5.2.3.2.
func portRegister(port uint16) []byte {
	const systemIO, byteAccess = 1, 1
	return binary.LittleEndian.AppendUint64([]byte{systemIO, 8, 0, byteAccess}, uint64(port))
}

// madt lists the interrupt controllers: ACPI 6.5, section 5.2.12. There is no
// 8259 to tell of, and the ISA interrupts are GSIs of the same numbers, so that
// no override is needed.
func madt(p *Platform, cpus int) []byte {
	const (
		localAPIC, localAPICSize     = 0, 8
		ioAPIC, ioAPICSize           = 1, 12
		localX2APIC, localX2APICSize = 9, 16
		enabled                      = 1
		broadcast                    = 255 // no CPU's, in an xAPIC
	)
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(p.LocalAPIC))
	b = le.AppendUint32(b, 0) // flags: not PC-AT compatible
	for id := range uint32(cpus) {
		if id < broadcast {
			b = append(b, localAPIC, localAPICSize, byte(id), byte(id))
			b = le.AppendUint32(b, enabled)
			continue
		}
		b = append(b, localX2APIC, localX2APICSize, 0, 0)
		b = le.AppendUint32(b, id)
		b = le.AppendUint32(b, enabled)
		b = le.AppendUint32(b, id)
	}
	b = append(b, ioAPIC, ioAPICSize, 0, 0)
	b = le.AppendUint32(b, uint32(p.IOAPIC))
	b = le.AppendUint32(b, 0) // its first GSI
	return table("APIC", 5, b)
}

// mcfg tells where PCI configuration space is: PCI Firmware 3.3, section 4.1.2.
func mcfg(p *Platform) []byte {
	le := binary.LittleEndian
	b := make([]byte, 8)
	b = le.AppendUint64(b, p.ECAM.Base)
	b = le.AppendUint16(b, 0) // segment
	b = append(b, 0, byte(p.ECAM.Size/ecamBus-1))
	b = le.AppendUint32(b, 0)
	return table("MCFG", 1, b)
}

// dsdt describes the devices that cannot be discovered otherwise.
func dsdt(p *Platform) []byte {
	devices := []term{board(p)}
	if p.MMIO32.Size != 0 || p.MMIO64.Size != 0 {
		devices = append(devices, pciRoot(p))
	}
	for i, u := range p.UARTs {
		devices = append(devices, device(fmt.Sprintf("COM%d", i+1),
			name("_HID", eisaID("PNP0501")),
			name("_UID", integer(uint64(i+1))),
			name("_CRS", resources(ioPorts(u.Port, 8), interrupt(u.GSI))),
		))
	}
	if p.RTC.Port != 0 {
		devices = append(devices, device("RTC",
			name("_HID", eisaID("PNP0B00")),
			name("_CRS", resources(ioPorts(p.RTC.Port, 2), interrupt(p.RTC.GSI))),
		))
	}
	body := scope(`\_SB`, devices...)
	if p.SleepControl != 0 {
		body = join(name(`\_S5`, pkg(integer(uint64(p.SleepType)), integer(0), integer(0), integer(0))), body)
	}
	return table("DSDT", 2, body)
}

// board reserves what belongs to the machine itself. Without it Linux doesn't
// trust the ECAM window.
func board(p *Platform) term {
	var crs [][]byte
	if p.ECAM.Size != 0 {
		crs = append(crs, fixedMemory(uint32(p.ECAM.Base), uint32(p.ECAM.Size)))
	}
	for _, port := range []uint16{p.SleepControl, p.SleepStatus, p.Reset} {
		// Those among PCI's configuration ports are the host bridge's.
		if port != 0 && port-pciConfig >= pciConfigSize {
			crs = append(crs, ioPorts(port, 1))
		}
	}
	return device("MB",
		name("_HID", eisaID("PNP0C02")),
		name("_CRS", resources(crs...)),
	)
}

// Ports of the two registers by which PCI configuration space is reached without
// ECAM: PCI 3.0, section 3.2.2.3.2.
const (
	pciConfig     = 0xcf8
	pciConfigSize = 8
)

// pciRoot is the PCI Express host bridge with bus 0.
func pciRoot(p *Platform) term {
	buses := uint64(256)
	if p.ECAM.Size != 0 {
		buses = p.ECAM.Size / ecamBus
	}
	crs := [][]byte{
		window(spaceBus, 2, 0, buses),
		ioPorts(pciConfig, pciConfigSize),
		window(spaceIO, 2, 0, pciConfig),
		window(spaceIO, 2, pciConfig+pciConfigSize, 0x10000-(pciConfig+pciConfigSize)),
	}
	if w := p.MMIO32; w.Size != 0 {
		crs = append(crs, window(spaceMemory, 4, w.Base, w.Size))
	}
	if w := p.MMIO64; w.Size != 0 {
		crs = append(crs, window(spaceMemory, 8, w.Base, w.Size))
	}
	return device("PCI0",
		name("_HID", eisaID("PNP0A08")),
		name("_CID", eisaID("PNP0A03")),
		name("_UID", integer(0)),
		name("_SEG", integer(0)),
		name("_BBN", integer(0)),
		name("_CRS", resources(crs...)),
		name("_PRT", routing(p)),
		osc(),
	)
}

// routing is the table of bus 0's interrupt pins: ACPI 6.5, section 6.2.13.
func routing(p *Platform) term {
	const anyFunction = 0xffff
	var routes []term
	for slot, pins := range p.INTx {
		for pin, gsi := range pins {
			if gsi == 0 {
				continue
			}
			routes = append(routes, pkg(
				integer(uint64(slot)<<16|anyFunction),
				integer(uint64(pin)),
				integer(0), // the next is a GSI
				integer(uint64(gsi)),
			))
		}
	}
	return pkg(routes...)
}

// osc lets the operating system have every PCI Express feature that it asks for,
// since no firmware stays behind to handle them: PCI Firmware 3.3, section 4.5,
// and ACPI 6.5, section 6.2.11.
func osc() term {
	const unrecognizedUUID = 1 << 2
	return method("_OSC", 4,
		when(equal(arg(0), uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")), giveBack(arg(3))),
		dwordField(arg(3), 0, "STAT"),
		or(path("STAT"), integer(unrecognizedUUID), path("STAT")),
		giveBack(arg(3)),
	)
}
