//go:build linux && amd64

package kvm

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"

	"fifovm/vmm/x86"
)

// buffers are the arguments of the state calls. They lie in the vcpu, which is
// on the heap and so does not move while a call goes on: gokvm passes them as
// integers, which a growing stack would leave behind.
type buffers struct {
	cpuid  cpuid
	msrs   msrs
	xsave  xsave
	xcrs   kvm.XCRS
	debug  kvm.DebugRegs
	lapic  kvm.LAPICState
	mp     kvm.MPState
	events kvm.VCPUEvents
	trans  kvm.Translation
	regs   kvm.Regs
	sregs  kvm.Sregs

	guestDebug guestDebug

	attribute attribute
	value     uint64 // of the attribute
}

// call is one of a sequence of state calls, with its name for the error.
type call struct {
	name string
	f    func() error
}

func (c *vcpu) sequence(verb string, calls []call) error {
	for _, k := range calls {
		if err := k.f(); err != nil {
			return fmt.Errorf("kvm: CPU %d: %s %s: %w", c.index, verb, k.name, err)
		}
	}
	return nil
}

// state takes the CPU's whole state. The activity comes first: reading it has
// KVM act upon an INIT or start-up IPI that has arrived.
func (c *vcpu) state(s *x86.CPU) error {
	return c.sequence("get", []call{
		{"activity", func() error { return c.activity(s) }},
		{"registers", func() error { return c.general(s) }},
		{"FPU", func() error { return c.fpu(s) }},
		{"XCR0", func() error { return c.xcr0(s) }},
		{"debug registers", func() error { return c.debug(s) }},
		{"local APIC", func() error { return c.lapic(s) }},
		{"MSRs", func() error { return c.getMSRs(s) }},
		{"events", func() error { return c.events(s) }},
	})
}

// setState replaces the CPU's whole state. The order matters: the registers
// clear pending exceptions, so they come before the events; the system
// registers hold the APIC's base, so they come before the APIC; the deadline,
// last of the MSRs, arms the APIC's timer, so the APIC and the time-stamp
// counter come before it.
func (c *vcpu) setState(s *x86.CPU) error {
	return c.sequence("set", []call{
		{"activity", func() error { return c.setActivity(s) }},
		{"registers", func() error { return c.setGeneral(s) }},
		{"FPU", func() error { return c.setFPU(s) }},
		{"XCR0", func() error { return c.setXCR0(s) }},
		{"debug registers", func() error { return c.setDebug(s) }},
		{"local APIC", func() error { return c.setLAPIC(s) }},
		{"time-stamp counter", func() error { return c.setTSC(s) }},
		{"MSRs", func() error { return c.setMSRs(c.plainMSRs(s)) }},
		{"events", func() error { return c.setEvents(s) }},
	})
}

// activities are KVM's multiprocessing states by ours.
var activities = [...]uint32{
	x86.Running:    kvm.MPStateRunnable,
	x86.WaitINIT:   kvm.MPStateUninitialized,
	x86.WaitSIPI:   kvm.MPStateInitReceived,
	x86.Halted:     kvm.MPStateHalted,
	x86.StartsSIPI: kvm.MPStateSipiReceived,
}

func (c *vcpu) activity(s *x86.CPU) error {
	if err := kvm.GetMPState(uintptr(c.fd), &c.buf.mp); err != nil {
		return err
	}
	for a, v := range activities {
		if v == c.buf.mp.State {
			s.Activity = x86.Activity(a)
			return nil
		}
	}
	return fmt.Errorf("multiprocessing state %d is unknown", c.buf.mp.State)
}

func (c *vcpu) setActivity(s *x86.CPU) error {
	if int(s.Activity) >= len(activities) {
		return fmt.Errorf("activity %d is unknown", s.Activity)
	}
	c.buf.mp.State = activities[s.Activity]
	return kvm.SetMPState(uintptr(c.fd), &c.buf.mp)
}

// gprs are the fields of KVM's registers in the order of CPU.GPR.
func gprs(r *kvm.Regs) [16]*uint64 {
	return [16]*uint64{&r.RAX, &r.RCX, &r.RDX, &r.RBX, &r.RSP, &r.RBP, &r.RSI, &r.RDI,
		&r.R8, &r.R9, &r.R10, &r.R11, &r.R12, &r.R13, &r.R14, &r.R15}
}

// segments are the fields of KVM's segments in the order of CPU.Seg.
func segments(r *kvm.Sregs) [6]*kvm.Segment {
	return [6]*kvm.Segment{&r.ES, &r.CS, &r.SS, &r.DS, &r.FS, &r.GS}
}

// general takes the general and the system registers.
func (c *vcpu) general(s *x86.CPU) error {
	r, err := kvm.GetRegs(uintptr(c.fd))
	if err != nil {
		return err
	}
	for i, p := range gprs(r) {
		s.GPR[i] = *p
	}
	s.RIP, s.RFLAGS = r.RIP, r.RFLAGS
	y, err := kvm.GetSregs(uintptr(c.fd))
	if err != nil {
		return err
	}
	for i, p := range segments(y) {
		s.Seg[i] = fromSegment(p)
	}
	s.TR, s.LDT = fromSegment(&y.TR), fromSegment(&y.LDT)
	s.GDT, s.IDT = x86.Table{Base: y.GDT.Base, Limit: y.GDT.Limit}, x86.Table{Base: y.IDT.Base, Limit: y.IDT.Limit}
	s.CR0, s.CR2, s.CR3, s.CR4, s.CR8 = y.CR0, y.CR2, y.CR3, y.CR4, y.CR8
	s.EFER, s.APICBase = y.EFER, y.ApicBase
	return nil
}

func (c *vcpu) setGeneral(s *x86.CPU) error {
	r, y := &c.buf.regs, &c.buf.sregs
	*r, *y = kvm.Regs{}, kvm.Sregs{}
	for i, p := range gprs(r) {
		*p = s.GPR[i]
	}
	r.RIP, r.RFLAGS = s.RIP, s.RFLAGS
	for i, p := range segments(y) {
		*p = toSegment(&s.Seg[i])
	}
	y.TR, y.LDT = toSegment(&s.TR), toSegment(&s.LDT)
	y.GDT, y.IDT = kvm.Descriptor{Base: s.GDT.Base, Limit: s.GDT.Limit}, kvm.Descriptor{Base: s.IDT.Base, Limit: s.IDT.Limit}
	y.CR0, y.CR2, y.CR3, y.CR4, y.CR8 = s.CR0, s.CR2, s.CR3, s.CR4, s.CR8
	y.EFER, y.ApicBase = s.EFER, s.APICBase
	// The bitmap is of interrupts queued outside the APIC; the events carry the
	// one that is on its way.
	if err := kvm.SetRegs(uintptr(c.fd), r); err != nil {
		return err
	}
	return kvm.SetSregs(uintptr(c.fd), y)
}

func fromSegment(p *kvm.Segment) x86.Segment {
	return x86.Segment{Selector: p.Selector, Base: p.Base, Limit: p.Limit, Type: p.Typ, S: p.S, DPL: p.DPL,
		P: p.Present, AVL: p.AVL, L: p.L, DB: p.DB, G: p.G, Unusable: p.Unusable != 0}
}

func toSegment(s *x86.Segment) kvm.Segment {
	return kvm.Segment{Selector: s.Selector, Base: s.Base, Limit: s.Limit, Typ: s.Type, S: s.S, DPL: s.DPL,
		Present: s.P, AVL: s.AVL, L: s.L, DB: s.DB, G: s.G, Unusable: flag(s.Unusable)}
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

func (c *vcpu) fpu(s *x86.CPU) error {
	_, err := ioctl(c.fd, ioGetXSAVE, unsafe.Pointer(&c.buf.xsave))
	s.FPU = c.buf.xsave.legacy
	return err
}

func (c *vcpu) setFPU(s *x86.CPU) error {
	const x87, sse = 1, 2 // XSTATE_BV (SDM volume 1, 13.4.2)
	c.buf.xsave = xsave{legacy: s.FPU, xstateBV: x87 | sse}
	_, err := ioctl(c.fd, ioSetXSAVE, unsafe.Pointer(&c.buf.xsave))
	return err
}

// xcr0 is 1, as after reset, on hosts that don't have the register.
func (c *vcpu) xcr0(s *x86.CPU) error {
	s.XCR0 = 1
	if !has(c.engine.fd, kvm.CapXCRS) {
		return nil
	}
	if err := kvm.GetXCRS(uintptr(c.fd), &c.buf.xcrs); err != nil {
		return err
	}
	for _, r := range c.buf.xcrs.Registers[:c.buf.xcrs.NrXRCS] {
		if r.XRC == 0 {
			s.XCR0 = r.Value
		}
	}
	return nil
}

func (c *vcpu) setXCR0(s *x86.CPU) error {
	if !has(c.engine.fd, kvm.CapXCRS) {
		if s.XCR0 != 1 {
			return fmt.Errorf("value %#x on a host without XSAVE", s.XCR0)
		}
		return nil
	}
	c.buf.xcrs = kvm.XCRS{NrXRCS: 1}
	c.buf.xcrs.Registers[0].Value = s.XCR0
	return kvm.SetXCRS(uintptr(c.fd), &c.buf.xcrs)
}

func (c *vcpu) debug(s *x86.CPU) error {
	err := kvm.GetDebugRegs(uintptr(c.fd), &c.buf.debug)
	s.DR, s.DR6, s.DR7 = c.buf.debug.DB, c.buf.debug.DR6, c.buf.debug.DR7
	return err
}

func (c *vcpu) setDebug(s *x86.CPU) error {
	c.buf.debug = kvm.DebugRegs{DB: s.DR, DR6: s.DR6, DR7: s.DR7}
	return kvm.SetDebugRegs(uintptr(c.fd), &c.buf.debug)
}

func (c *vcpu) lapic(s *x86.CPU) error {
	err := kvm.GetLocalAPIC(uintptr(c.fd), &c.buf.lapic)
	s.LAPIC = c.buf.lapic.Regs
	return err
}

func (c *vcpu) setLAPIC(s *x86.CPU) error {
	c.buf.lapic.Regs = s.LAPIC
	return kvm.SetLocalAPIC(uintptr(c.fd), &c.buf.lapic)
}

// getMSRs takes the registers of x86.StateMSRs one after the other where KVM
// stops at one that this host lacks: those are left out.
func (c *vcpu) getMSRs(s *x86.CPU) error {
	s.MSRs = s.MSRs[:0]
	list := x86.StateMSRs()
	for len(list) > 0 {
		m := &c.buf.msrs
		m.count = uint32(len(list))
		for i, index := range list {
			m.entries[i] = kvm.MSREntry{Index: index}
		}
		n, err := ioctl(c.fd, ioGetMSRs, unsafe.Pointer(m))
		if err != nil {
			return err
		}
		for _, r := range m.entries[:n] {
			s.MSRs = append(s.MSRs, x86.MSR{Index: r.Index, Value: r.Data})
		}
		list = list[min(int(n)+1, len(list)):]
	}
	return nil
}

// setMSRs checks the count of registers that KVM took, which gokvm drops.
func (c *vcpu) setMSRs(list []x86.MSR) error {
	m := &c.buf.msrs
	if len(list) > len(m.entries) {
		return fmt.Errorf("%d registers, at most %d", len(list), len(m.entries))
	}
	m.count = uint32(len(list))
	for i, r := range list {
		m.entries[i] = kvm.MSREntry{Index: r.Index, Data: r.Value}
	}
	n, err := ioctl(c.fd, ioSetMSRs, unsafe.Pointer(m))
	if err != nil {
		return err
	}
	if int(n) < len(list) {
		return fmt.Errorf("register %#x does not take %#x", list[n].Index, list[n].Value)
	}
	return nil
}

// A write to the counter's MSR is not what it seems: KVM takes one that comes
// within a second of what the counter would show anyway for an attempt to have
// the CPUs agree, and keeps the old offset from the host's counter. A guest that
// goes on in a new machine would see its counter go back. So the offset itself
// is set, where KVM (from Linux 5.16 on) has it as an attribute of the CPU.

// offset gives the difference of the guest's counter from the host's; ok is
// false where KVM does not tell.
func (c *vcpu) offset() (v uint64, ok bool) {
	c.buf.attribute = attribute{group: groupTSC, id: tscOffset, address: &c.buf.value}
	_, err := ioctl(c.fd, ioGetAttribute, unsafe.Pointer(&c.buf.attribute))
	return c.buf.value, err == nil
}

// setTSC sets the counter by its offset from hostTSC, the host's counter at a
// moment that is the same for all CPUs.
func (c *vcpu) setTSC(s *x86.CPU) error {
	i := indexTSC(s)
	if !c.exactTSC || i < 0 {
		return nil
	}
	c.buf.value = s.MSRs[i].Value - c.hostTSC
	c.buf.attribute = attribute{group: groupTSC, id: tscOffset, address: &c.buf.value}
	_, err := ioctl(c.fd, ioSetAttribute, unsafe.Pointer(&c.buf.attribute))
	return err
}

// plainMSRs are the registers that are set as such.
func (c *vcpu) plainMSRs(s *x86.CPU) []x86.MSR {
	i := indexTSC(s)
	if !c.exactTSC || i < 0 {
		return s.MSRs
	}
	return slices.Concat(s.MSRs[:i], s.MSRs[i+1:])
}

func indexTSC(s *x86.CPU) int {
	return slices.IndexFunc(s.MSRs, func(m x86.MSR) bool { return m.Index == x86.MSRTSC })
}

// hostTSC is the host's counter, in the guest's units, as CPU 0 sees it now.
func (e *Engine) hostTSC() (v uint64, ok bool, err error) {
	c := e.vcpus[0]
	err = c.do(func() error {
		offset, has := c.offset()
		if ok = has; !ok {
			return nil
		}
		now, err := c.tsc()
		v = now - offset
		return err
	})
	return v, ok, err
}

func (c *vcpu) tsc() (uint64, error) {
	m := &c.buf.msrs
	m.count = 1
	m.entries[0] = kvm.MSREntry{Index: x86.MSRTSC}
	n, err := ioctl(c.fd, ioGetMSRs, unsafe.Pointer(m))
	if err == nil && n != 1 {
		err = fmt.Errorf("kvm: CPU %d: the time-stamp counter can't be read", c.index)
	}
	return m.entries[0].Data, err
}

// alignTSC makes the counters in s, which were read one after the other, those
// of one moment: that at which CPU 0's was read.
func (e *Engine) alignTSC(s *x86.State) error {
	var moment uint64 // the host's counter then
	for i, c := range e.vcpus {
		if err := c.do(func() error {
			at := indexTSC(&s.CPUs[i])
			offset, ok := c.offset()
			if !ok || at < 0 {
				return nil
			}
			if i == 0 {
				moment = s.CPUs[i].MSRs[at].Value - offset
			}
			s.CPUs[i].MSRs[at].Value = moment + offset
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (c *vcpu) events(s *x86.CPU) error {
	v := &c.buf.events
	if err := kvm.GetVCPUEvents(uintptr(c.fd), v); err != nil {
		return err
	}
	s.Exception = x86.Event{Valid: v.E.Inject != 0, Vector: v.E.Nr, HasCode: v.E.HadErrorCode != 0, ErrorCode: v.E.ErrorCode}
	s.Interrupt = x86.Event{Valid: v.I.Inject != 0, Vector: v.I.Nr, Soft: v.I.Soft != 0}
	s.NMIInjected, s.NMIPending, s.NMIMasked = v.N.Inject != 0, v.N.Pending != 0, v.N.Masked != 0
	s.SIPIVector = uint8(v.SipiVector)
	s.Shadow = 0
	if v.I.Shadow&shadowMovSS != 0 {
		s.Shadow |= x86.ShadowMovSS
	}
	if v.I.Shadow&shadowSTI != 0 {
		s.Shadow |= x86.ShadowSTI
	}
	return nil
}

func (c *vcpu) setEvents(s *x86.CPU) error {
	v := &c.buf.events
	*v = kvm.VCPUEvents{
		E:          kvm.Exception{Inject: flag(s.Exception.Valid), Nr: s.Exception.Vector, HadErrorCode: flag(s.Exception.HasCode), ErrorCode: s.Exception.ErrorCode},
		I:          kvm.Interrupt{Inject: flag(s.Interrupt.Valid), Nr: s.Interrupt.Vector, Soft: flag(s.Interrupt.Soft)},
		N:          kvm.NMI{Inject: flag(s.NMIInjected), Pending: flag(s.NMIPending), Masked: flag(s.NMIMasked)},
		SipiVector: uint32(s.SIPIVector),
		Flags:      eventNMIPending | eventShadow,
	}
	if s.Activity == x86.StartsSIPI {
		v.Flags |= eventSIPI
	}
	if s.Shadow&x86.ShadowMovSS != 0 {
		v.I.Shadow |= shadowMovSS
	}
	if s.Shadow&x86.ShadowSTI != 0 {
		v.I.Shadow |= shadowSTI
	}
	return kvm.SetVCPUEvents(uintptr(c.fd), v)
}

// setCPUID gives the CPU its table of answers.
func (c *vcpu) setCPUID(leaves []x86.Leaf) error {
	t := &c.buf.cpuid
	t.count = uint32(len(leaves))
	for i, l := range leaves {
		t.entries[i] = cpuidEntry{function: l.Function, index: l.Index, eax: l.EAX, ebx: l.EBX, ecx: l.ECX, edx: l.EDX}
		if l.HasIndex {
			t.entries[i].flags = cpuidSignificantIndex
		}
	}
	if _, err := ioctl(c.fd, ioSetCPUID2, unsafe.Pointer(t)); err != nil {
		return fmt.Errorf("set the CPUID table: %w", err)
	}
	return nil
}

// translate gives the guest-physical address of a linear one.
func (c *vcpu) translate(linear uint64) (gpa uint64, ok bool) {
	c.buf.trans = kvm.Translation{LinearAddress: linear}
	err := kvm.Translate(uintptr(c.fd), &c.buf.trans)
	return c.buf.trans.PhysicalAddress, err == nil && c.buf.trans.Valid != 0
}

// Offsets in struct kvm_ioapic_state: base_address, ioregsel, id, irr, pad,
// then the 24 redirection entries.
const (
	ioapicSelect      = 8
	ioapicID          = 12
	ioapicIRR         = 16
	ioapicRedirection = 24
	ioapicBase        = 0xfec0_0000 // KVM's is nowhere else
)

// chips takes the state of the interrupt controllers that the CPUs share.
func (e *Engine) chips(s *x86.State) error {
	for i := range s.PIC {
		b, err := e.chip(chipMaster + i)
		if err != nil {
			return err
		}
		s.PIC[i] = *(*x86.PIC)(unsafe.Pointer(b))
	}
	b, err := e.chip(chipIOAPIC)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	s.IOAPIC = x86.IOAPIC{ID: le.Uint32(b[ioapicID:]), Select: le.Uint32(b[ioapicSelect:]), IRR: le.Uint32(b[ioapicIRR:])}
	for i := range s.IOAPIC.Redirection {
		s.IOAPIC.Redirection[i] = le.Uint64(b[ioapicRedirection+8*i:])
	}
	return nil
}

func (e *Engine) chip(id int) (*[512]byte, error) {
	c := &kvm.IRQChip{ChipID: uint32(id)}
	e.irq.chip = c // on the heap: gokvm passes it as an integer
	if err := kvm.GetIRQChip(uintptr(e.vm), c); err != nil {
		return nil, fmt.Errorf("kvm: get interrupt controller %d: %w", id, err)
	}
	return &c.Chip, nil
}

func (e *Engine) setChips(s *x86.State) error {
	set := func(id int, fill func(b *[512]byte)) error {
		c := &kvm.IRQChip{ChipID: uint32(id)}
		e.irq.chip = c
		fill(&c.Chip)
		if err := kvm.SetIRQChip(uintptr(e.vm), c); err != nil {
			return fmt.Errorf("kvm: set interrupt controller %d: %w", id, err)
		}
		return nil
	}
	for i := range s.PIC {
		if err := set(chipMaster+i, func(b *[512]byte) { *(*x86.PIC)(unsafe.Pointer(b)) = s.PIC[i] }); err != nil {
			return err
		}
	}
	return set(chipIOAPIC, func(b *[512]byte) {
		le := binary.LittleEndian
		le.PutUint64(b[0:], ioapicBase)
		le.PutUint32(b[ioapicSelect:], s.IOAPIC.Select)
		le.PutUint32(b[ioapicID:], s.IOAPIC.ID)
		le.PutUint32(b[ioapicIRR:], s.IOAPIC.IRR)
		for i, r := range s.IOAPIC.Redirection {
			le.PutUint64(b[ioapicRedirection+8*i:], r)
		}
	})
}
