package boot

import (
	"encoding/binary"

	"fifovm/vmm/memory"
)

// Offsets in struct boot_params: Documentation/arch/x86/zero-page.rst.
const (
	bpSize            = 4096
	bpACPIRSDP        = 0x070
	bpExtRamdiskImage = 0x0c0
	bpE820Entries     = 0x1e8
	bpE820Table       = 0x2d0
	e820EntrySize     = 20
)

// Types of memory in the e820 map: ACPI 6.5, table 15.4 in section 15.
const (
	e820RAM      = 1
	e820Reserved = 2
	e820ACPI     = 3
)

// Conventional memory ends where a PC has its extended BIOS data area; from
// 640 KiB to 1 MiB are the windows of video memory and ROMs.
const (
	ebdaBase = 0x9fc00
	biosEnd  = 1 << 20
)

type e820Entry struct {
	addr, size uint64
	kind       uint32
}

// memoryMap gives the e820 map, by address. acpi is what the tables take of the
// BIOS area.
func memoryMap(ram *memory.RAM, acpi uint64, p *Platform) []e820Entry {
	low := uint64(len(ram.Slots()[0].Bytes))
	acpi = alignUp(acpi, memory.PageSize)
	m := []e820Entry{
		{0, ebdaBase, e820RAM},
		{acpiBase, acpi, e820ACPI},
		{acpiBase + acpi, biosEnd - acpiBase - acpi, e820Reserved},
		{biosEnd, low - biosEnd, e820RAM},
		{p.ECAM.Base, p.ECAM.Size, e820Reserved},
	}
	for _, s := range ram.Slots()[1:] {
		m = append(m, e820Entry{s.Base, uint64(len(s.Bytes)), e820RAM})
	}
	kept := m[:0]
	for _, e := range m {
		if e.size != 0 {
			kept = append(kept, e)
		}
	}
	return kept
}

// bootParams gives the kernel's struct boot_params. All that it doesn't set is
// zero: no screen, no disks, no BIOS services.
func (k *Kernel) bootParams(l *layout, e820 []e820Entry) []byte {
	le := binary.LittleEndian
	b := make([]byte, bpSize)
	copy(b[hdrStart:], k.header)
	le.PutUint64(b[bpACPIRSDP:], acpiBase)
	b[hdrTypeOfLoader] = loaderUnknown
	le.PutUint32(b[hdrCode32Start:], uint32(l.kernel))
	le.PutUint32(b[hdrCmdLinePtr:], commandLineBase)
	// The initrd lies below 4 GiB, so the upper halves stay zero.
	le.PutUint32(b[hdrRamdiskImage:], uint32(l.initrd))
	le.PutUint32(b[hdrRamdiskSize:], uint32(l.initrdSize))
	le.PutUint64(b[hdrSetupData:], l.setupData)
	b[bpE820Entries] = byte(len(e820))
	for i, e := range e820 {
		at := b[bpE820Table+i*e820EntrySize:]
		le.PutUint64(at, e.addr)
		le.PutUint64(at[8:], e.size)
		le.PutUint32(at[16:], e.kind)
	}
	return b
}
