package x86

// Model-specific registers (SDM volume 4, table 2-2).
const (
	MSRTSC           = 0x10
	MSRAPICBase      = 0x1b
	MSRTSCAdjust     = 0x3b
	MSRMTRRCap       = 0xfe
	MSRSysenterCS    = 0x174
	MSRSysenterESP   = 0x175
	MSRSysenterEIP   = 0x176
	MSRMiscEnable    = 0x1a0
	MSRMTRRPhysBase0 = 0x200 // 8 pairs of base and mask
	MSRMTRRFix64K    = 0x250
	MSRMTRRFix16K    = 0x258 // 2
	MSRMTRRFix4K     = 0x268 // 8
	MSRPAT           = 0x277
	MSRMTRRDefType   = 0x2ff
	MSRTSCDeadline   = 0x6e0
	MSREFER          = 0xc000_0080
	MSRSTAR          = 0xc000_0081
	MSRLSTAR         = 0xc000_0082
	MSRCSTAR         = 0xc000_0083
	MSRSFMASK        = 0xc000_0084
	MSRFSBase        = 0xc000_0100
	MSRGSBase        = 0xc000_0101
	MSRKernelGSBase  = 0xc000_0102
	MSRTSCAux        = 0xc000_0103
)

const (
	// mtrrWriteBack is a default memory type of write-back with the MTRRs
	// enabled (SDM volume 3, 11.11.2.1), as firmware leaves it: what should be
	// uncached, the guest's page tables say.
	mtrrWriteBack = 1<<11 | 6
	// patDefault is the power-on value of IA32_PAT (SDM volume 3, 11.12.4).
	patDefault = 0x0007_0406_0007_0406
	// fastStrings is the only bit of IA32_MISC_ENABLE that is set.
	fastStrings = 1
)

// BootMSRs are the registers that differ from zero when the first guest
// instruction runs. The time-stamp counter starts at zero.
func BootMSRs() []MSR {
	return []MSR{{MSRMiscEnable, fastStrings}, {MSRPAT, patDefault}, {MSRMTRRDefType, mtrrWriteBack}}
}

// StateMSRs are the registers that a CPU's state consists of, in the order in
// which they have to be set: the deadline comes after the counter that it is
// compared with. Those that CPU has a field for are not repeated.
func StateMSRs() []uint32 {
	list := []uint32{
		MSRTSC, MSRTSCAdjust, MSRSysenterCS, MSRSysenterESP, MSRSysenterEIP, MSRMiscEnable, MSRPAT,
		MSRSTAR, MSRLSTAR, MSRCSTAR, MSRSFMASK, MSRKernelGSBase, MSRTSCAux,
		MSRMTRRDefType, MSRMTRRFix64K, MSRMTRRFix16K, MSRMTRRFix16K + 1,
	}
	for i := uint32(0); i < 8; i++ {
		list = append(list, MSRMTRRFix4K+i)
	}
	for i := uint32(0); i < 16; i++ {
		list = append(list, MSRMTRRPhysBase0+i)
	}
	return append(list, MSRTSCDeadline)
}
