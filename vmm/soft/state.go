package soft

import (
	"fmt"

	"fifovm/vmm/x86"
)

// state gives the whole state of the CPU, between two instructions.
func (c *cpu) state(s *x86.CPU) {
	copy(s.GPR[:], c.r[:16])
	s.RIP, s.RFLAGS = c.r[slotRIP], c.rflags()
	s.Seg = c.seg
	for i := range s.Seg {
		s.Seg[i].Base = c.r[slotES+i]
	}
	s.TR, s.LDT, s.GDT, s.IDT = c.tr, c.ldt, c.gdt, c.idt
	s.CR0, s.CR2, s.CR3, s.CR4 = c.cr0, c.cr2, c.cr3, c.cr4
	s.XCR0, s.EFER = 1, c.efer
	s.DR, s.DR6, s.DR7 = c.dr, c.dr6, c.dr7
	c.saveFPU(&s.FPU)
	s.MSRs = s.MSRs[:0]
	for _, index := range x86.StateMSRs() {
		if v, ok := c.readMSR(index); ok {
			s.MSRs = append(s.MSRs, x86.MSR{Index: index, Value: v})
		}
	}
	c.apic.State(s)
	s.Activity, s.SIPIVector = c.activity, 0
	s.Exception, s.Interrupt = x86.Event{}, x86.Event{}
	s.NMIInjected, s.NMIPending, s.NMIMasked = false, c.nmiPending, c.nmiMasked
	s.Shadow = c.shadow
}

// setState replaces the whole state.
func (c *cpu) setState(s *x86.CPU) error {
	c.setRegisters(s)
	c.nmiPending, c.nmiMasked = s.NMIPending || s.NMIInjected, s.NMIMasked
	c.shadow = s.Shadow
	if s.Activity > x86.StartsSIPI {
		return fmt.Errorf("soft: CPU %d: activity %d is unknown", c.index, s.Activity)
	}
	c.activity, c.initPending = s.Activity, false
	c.i, c.block, c.jumped, c.yield = 0, nil, false, false
	c.stops = stops{}
	if err := c.apic.SetState(s); err != nil {
		return err
	}
	c.irq = true // looked at when it is run
	c.resetMSRs()
	for _, m := range s.MSRs {
		if err := c.restoreMSR(m); err != nil {
			return fmt.Errorf("soft: CPU %d: %w", c.index, err)
		}
	}
	c.renew()
	if s.Activity == x86.StartsSIPI {
		c.activity = x86.WaitSIPI
		c.sipi(s.SIPIVector)
	}
	// An interrupt that was on its way is delivered first.
	switch {
	case s.Exception.Valid:
		c.deliver(fault{vector: s.Exception.Vector, hasCode: s.Exception.HasCode, code: s.Exception.ErrorCode, cr2: s.CR2})
	case s.Interrupt.Valid:
		c.interrupt(s.Interrupt.Vector)
	}
	return nil
}

// restoreMSR sets a register as a state has it, which a guest may not always do.
func (c *cpu) restoreMSR(m x86.MSR) error {
	switch m.Index {
	case x86.MSRTSC:
		c.tscOffset = m.Value - uint64(c.engine.cfg.Clock.Now())
		c.apic.SetTSC(int64(c.tscOffset))
		return nil
	case x86.MSRTSCAdjust:
		c.tscAdjust = m.Value
		return nil
	case x86.MSRTSCDeadline:
		c.apic.RestoreDeadline(m.Value)
		return nil
	}
	if !c.writeMSR(m.Index, m.Value) {
		return fmt.Errorf("register %#x does not take %#x", m.Index, m.Value)
	}
	return nil
}

// setRegisters replaces the registers, but for the local APIC and the MSRs.
func (c *cpu) setRegisters(s *x86.CPU) {
	copy(c.r[:16], s.GPR[:])
	c.r[slotRIP], c.r[slotZero] = s.RIP, 0
	c.seg = s.Seg
	for i := range s.Seg {
		c.r[slotES+i] = s.Seg[i].Base
		c.seg[i].Base = 0
	}
	c.tr, c.ldt, c.gdt, c.idt = s.TR, s.LDT, s.GDT, s.IDT
	c.cr0, c.cr2, c.cr3, c.cr4 = s.CR0, s.CR2, s.CR3, s.CR4
	c.efer = s.EFER
	c.dr, c.dr6, c.dr7 = s.DR, s.DR6, s.DR7
	c.cpl = s.Seg[x86.SS].DPL
	if c.cr0&x86.CR0PE == 0 {
		c.cpl = 0
	}
	c.setRFLAGS(s.RFLAGS | x86.FlagReserved)
	c.loadFPU(&s.FPU)
}

// renew follows from registers that were set behind the CPU's back.
func (c *cpu) renew() {
	c.mode = 0
	c.updateMode()
	c.updatePrivilege()
	c.flushTLB(true)
}

// CPU takes the state of one CPU; SetCPU replaces its registers, but for those of
// the local APIC and the MSRs. The engine must not be running.
func (e *Engine) CPU(i int, s *x86.CPU) error {
	if i < 0 || i >= len(e.cpus) {
		return fmt.Errorf("soft: there is no CPU %d", i)
	}
	e.cpus[i].state(s)
	return nil
}

// SetCPU replaces a CPU's registers.
func (e *Engine) SetCPU(i int, s *x86.CPU) error {
	if i < 0 || i >= len(e.cpus) {
		return fmt.Errorf("soft: there is no CPU %d", i)
	}
	c := e.cpus[i]
	c.setRegisters(s)
	c.stops = stops{}
	c.renew()
	e.refreshDebug()
	return nil
}
