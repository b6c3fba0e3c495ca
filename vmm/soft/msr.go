package soft

import "fifovm/vmm/x86"

// mtrrs are the memory-type range registers: there are no caches, so they only
// keep what is written to them.
type mtrrs struct {
	defType  uint64
	fixed    [11]uint64 // one of 64 KiB, two of 16 KiB, eight of 4 KiB ranges
	variable [16]uint64 // bases and masks in turn
}

// Further model-specific registers that are read without care by Linux or by
// what runs on it.
const (
	msrPlatformID = 0x17  // read with the microcode's revision
	msrMicrocode  = 0x8b  // IA32_BIOS_SIGN_ID: no update was loaded
	msrDebugCtl   = 0x1d9 // IA32_DEBUGCTL, of ptrace's single-stepping of branches
)

const (
	// mtrrCap is IA32_MTRRCAP: 8 variable ranges, the fixed ones and
	// write-combining (SDM volume 3, 11.11.1).
	mtrrCap     = 8 | 1<<8 | 1<<10
	mtrrDefBits = 1<<11 | 1<<10 | 0xff
	x2apicFirst = 0x800
	x2apicLast  = 0x8ff
	// debugCtlBits are LBR and BTF, which are accepted and do nothing.
	debugCtlBits = 3
)

// memoryType says whether t is a memory type of an MTRR; pat allows for the one
// that only IA32_PAT has (SDM volume 3, tables 11-8 and 11-10).
func memoryType(t uint64, pat bool) bool {
	switch t & 0xff {
	case 0, 1, 4, 5, 6:
		return true
	case 7:
		return pat
	}
	return false
}

func memoryTypes(v uint64, pat bool) bool {
	for range 8 {
		if !memoryType(v, pat) {
			return false
		}
		v >>= 8
	}
	return true
}

// mtrr finds the register with an index; nil if there is none.
func (c *cpu) mtrrAt(index uint32) *uint64 {
	m := &c.mtrr
	switch {
	case index == x86.MSRMTRRDefType:
		return &m.defType
	case index == x86.MSRMTRRFix64K:
		return &m.fixed[0]
	case index >= x86.MSRMTRRFix16K && index < x86.MSRMTRRFix16K+2:
		return &m.fixed[1+index-x86.MSRMTRRFix16K]
	case index >= x86.MSRMTRRFix4K && index < x86.MSRMTRRFix4K+8:
		return &m.fixed[3+index-x86.MSRMTRRFix4K]
	case index >= x86.MSRMTRRPhysBase0 && index < x86.MSRMTRRPhysBase0+16:
		return &m.variable[index-x86.MSRMTRRPhysBase0]
	}
	return nil
}

// mtrrTakes says whether a register takes a value: not where a reserved bit is
// set or a memory type is none.
func mtrrTakes(index uint32, v uint64) bool {
	const address = 1<<x86.PhysBits - 1
	switch {
	case index == x86.MSRMTRRDefType:
		return v&^mtrrDefBits == 0 && memoryType(v, false)
	case index >= x86.MSRMTRRPhysBase0 && index < x86.MSRMTRRPhysBase0+16:
		if index&1 != 0 {
			return v&^(address&^0x7ff) == 0
		}
		return v&^(address&^0xf00) == 0 && memoryType(v, false)
	}
	return memoryTypes(v, false)
}

// msr finds the register with an index that is no more than a place for a value;
// nil if there is none.
func (c *cpu) msr(index uint32) *uint64 {
	switch index {
	case x86.MSRTSCAdjust:
		return &c.tscAdjust
	case x86.MSRSysenterCS:
		return &c.sysenterCS
	case x86.MSRSysenterESP:
		return &c.sysenterESP
	case x86.MSRSysenterEIP:
		return &c.sysenterEIP
	case x86.MSRMiscEnable:
		return &c.miscEnable
	case x86.MSRPAT:
		return &c.pat
	case x86.MSREFER:
		return &c.efer
	case x86.MSRSTAR:
		return &c.star
	case x86.MSRLSTAR:
		return &c.lstar
	case x86.MSRCSTAR:
		return &c.cstar
	case x86.MSRSFMASK:
		return &c.sfmask
	case x86.MSRFSBase:
		return &c.r[slotFS]
	case x86.MSRGSBase:
		return &c.r[slotGS]
	case x86.MSRKernelGSBase:
		return &c.kernelGSBase
	case x86.MSRTSCAux:
		return &c.tscAux
	}
	return c.mtrrAt(index)
}

// readMSR gives a model-specific register's value; ok is false where there is
// none. The machine's clock shows the time.
func (c *cpu) readMSR(index uint32) (v uint64, ok bool) {
	if p := c.msr(index); p != nil {
		return *p, true
	}
	switch index {
	case x86.MSRTSC:
		return uint64(c.engine.cfg.Time.Now()) + c.tscOffset, true
	case x86.MSRAPICBase:
		return c.apic.Base(), true
	case x86.MSRTSCDeadline:
		return c.apic.Deadline(), true
	case x86.MSRMTRRCap:
		return mtrrCap, true
	case msrPlatformID, msrMicrocode, msrDebugCtl:
		return 0, true
	}
	if index >= x2apicFirst && index <= x2apicLast {
		return c.apic.ReadMSR(index)
	}
	return 0, false
}

// writeMSR writes a model-specific register; ok is false for a
// general-protection exception.
func (c *cpu) writeMSR(index uint32, v uint64) (ok bool) {
	switch index {
	case x86.MSRTSC:
		now := uint64(c.engine.cfg.Time.Now())
		c.moveTSC(v - (now + c.tscOffset))
		return true
	case x86.MSRTSCAdjust:
		c.moveTSC(v - c.tscAdjust)
		return true
	case x86.MSREFER:
		return c.writeEFER(v)
	case x86.MSRAPICBase:
		return c.apic.SetBase(v)
	case x86.MSRTSCDeadline:
		c.apic.SetDeadline(v)
		return true
	case msrMicrocode:
		return true // as before the revision is read (SDM volume 3, 9.11.7.1)
	case msrDebugCtl:
		return v&^debugCtlBits == 0
	case x86.MSRSysenterESP, x86.MSRSysenterEIP, x86.MSRLSTAR, x86.MSRCSTAR, x86.MSRFSBase, x86.MSRGSBase, x86.MSRKernelGSBase:
		if !isCanonical(v) {
			return false
		}
	case x86.MSRSysenterCS, x86.MSRTSCAux, x86.MSRSFMASK:
		if v>>32 != 0 {
			return false
		}
	case x86.MSRPAT:
		if !memoryTypes(v, true) {
			return false
		}
	}
	if p := c.msr(index); p != nil {
		if p == c.mtrrAt(index) && !mtrrTakes(index, v) {
			return false
		}
		*p = v
		return true
	}
	if index >= x2apicFirst && index <= x2apicLast {
		return c.apic.WriteMSR(index, v)
	}
	return false
}

// resetMSRs zeroes the registers that a state lists, for one that has not all of
// them: at power-on, say, the time-stamp counter is not among them.
func (c *cpu) resetMSRs() {
	for _, index := range x86.StateMSRs() {
		if p := c.msr(index); p != nil {
			*p = 0
		}
	}
	c.tscOffset = 0
	c.apic.SetTSC(0)
}

// moveTSC adds to the time-stamp counter, and to IA32_TSC_ADJUST, which counts
// such changes (SDM volume 3, 17.17.3).
func (c *cpu) moveTSC(by uint64) {
	c.tscOffset += by
	c.tscAdjust += by
	c.apic.SetTSC(int64(c.tscOffset))
}

func (c *cpu) writeEFER(v uint64) (ok bool) {
	if v&^(eferBits|x86.EFERLMA) != 0 {
		return false
	}
	changed := (v ^ c.efer) & eferBits
	if changed&x86.EFERLME != 0 && c.cr0&x86.CR0PG != 0 {
		return false
	}
	c.efer ^= changed
	if changed&x86.EFERNXE != 0 {
		c.flushTLB(true)
	}
	c.updateMode()
	return true
}

func opRdmsr(c *cpu, _ *op) {
	c.needCPL0()
	c.sync()
	v, ok := c.readMSR(uint32(c.r[x86.RCX]))
	if !ok {
		c.raiseGP(0)
	}
	c.r[x86.RAX], c.r[x86.RDX] = v&0xffff_ffff, v>>32
}

func opWrmsr(c *cpu, _ *op) {
	c.needCPL0()
	c.sync()
	if !c.writeMSR(uint32(c.r[x86.RCX]), c.r[x86.RDX]<<32|c.r[x86.RAX]&0xffff_ffff) {
		c.raiseGP(0)
	}
}
