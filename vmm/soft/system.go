package soft

import "fifovm/vmm/x86"

// Bits of CR4 that the table of CPUID does not offer by a feature of its own.
const cr4PCE = 1 << 8 // RDPMC at CPL 3: there is no counter, so it means nothing

// Bits that a control register may have set. SDM volume 3, 2.5: those of CR0
// that are reserved are ignored, those of CR4 fault.
const (
	cr0Bits = x86.CR0PE | x86.CR0MP | x86.CR0EM | x86.CR0TS | x86.CR0NE | x86.CR0WP | x86.CR0AM | x86.CR0NW | x86.CR0CD | x86.CR0PG
	cr4Bits = x86.CR4TSD | x86.CR4DE | x86.CR4PSE | x86.CR4PAE | x86.CR4PGE | cr4PCE | x86.CR4OSFXSR | x86.CR4OSXMMEXCPT |
		x86.CR4FSGSBASE | x86.CR4SMEP | x86.CR4SMAP
	eferBits = x86.EFERSCE | x86.EFERLME | x86.EFERNXE
)

func opMovFromCR(c *cpu, o *op) {
	v := uint64(0)
	switch o.reg {
	case 0:
		v = c.cr0
	case 2:
		v = c.cr2
	case 3:
		v = c.cr3
	case 4:
		v = c.cr4
	case 8:
		v = uint64(c.apic.TPR())
	default:
		c.raiseUD()
	}
	c.needCPL0()
	c.setReg(o.rm, o.size, v)
}

func opMovToCR(c *cpu, o *op) {
	switch o.reg {
	case 0, 2, 3, 4, 8:
	default:
		c.raiseUD()
	}
	c.needCPL0()
	v := c.reg(o.rm, o.size)
	switch o.reg {
	case 0:
		c.writeCR0(v)
	case 2:
		c.cr2 = v
	case 3:
		if c.longMode() && v&^(1<<x86.PhysBits-1) != 0 {
			c.raiseGP(0)
		}
		c.cr3 = v
		c.flushTLB(false)
	case 4:
		c.writeCR4(v)
	case 8:
		if v > 15 {
			c.raiseGP(0)
		}
		c.sync()
		c.apic.SetTPR(uint8(v))
		if c.irq {
			c.attend()
		}
	}
}

// writeCR0 is a write to CR0 with the checks of SDM volume 2, MOV, and volume 3,
// 10.8.5.
func (c *cpu) writeCR0(v uint64) {
	pg := v&x86.CR0PG != 0
	if v>>32 != 0 || pg && v&x86.CR0PE == 0 || v&x86.CR0NW != 0 && v&x86.CR0CD == 0 {
		c.raiseGP(0)
	}
	efer := c.efer
	switch was := c.cr0&x86.CR0PG != 0; {
	case pg && !was && c.efer&x86.EFERLME != 0:
		if c.cr4&x86.CR4PAE == 0 || c.seg[x86.CS].L != 0 || c.tr.Type == x86.TypeBusyTSS16 {
			c.raiseGP(0)
		}
		efer |= x86.EFERLMA
	case !pg && was:
		if c.is64() {
			c.raiseGP(0)
		}
		efer &^= x86.EFERLMA
	}
	v = v&cr0Bits | x86.CR0ET
	changed := v ^ c.cr0
	c.cr0, c.efer = v, efer
	if changed&(x86.CR0PG|x86.CR0WP|x86.CR0PE) != 0 {
		c.flushTLB(true)
	}
	c.updateMode()
	c.updatePrivilege()
}

func (c *cpu) writeCR4(v uint64) {
	if v&^cr4Bits != 0 || c.longMode() && v&x86.CR4PAE == 0 {
		c.raiseGP(0)
	}
	changed := v ^ c.cr4
	c.cr4 = v
	if changed&(x86.CR4PGE|x86.CR4PAE|x86.CR4PSE|x86.CR4SMEP|x86.CR4SMAP) != 0 {
		c.flushTLB(true)
	}
	c.updateMode()
	c.updatePrivilege()
}

func opClts(c *cpu, _ *op) {
	c.needCPL0()
	c.cr0 &^= x86.CR0TS
	c.updateMode()
}

func opSmsw(c *cpu, o *op) {
	if o.flags&flagMem != 0 {
		c.store16(c.part(o, 0, 2), c.cr0&0xffff)
		return
	}
	c.setReg(o.rm, o.size, c.cr0)
}

// opLmsw sets the lowest four bits of CR0; it can't clear PE.
func opLmsw(c *cpu, o *op) {
	c.needCPL0()
	const bits = x86.CR0PE | x86.CR0MP | x86.CR0EM | x86.CR0TS
	c.writeCR0(c.cr0&^(bits&^x86.CR0PE) | uint64(c.word(o))&bits)
}

// Bits of the debug registers (SDM volume 3, 17.2).
const (
	dr6Ones = 0xffff_0ff0
	dr6Bits = 0xe00f
	dr6BD   = 1 << 13
	dr7Ones = 0x400
	dr7Bits = 0xffff_23ff
)

// debugRegister checks an access to a debug register, and gives its number: 4
// and 5 are other names of 6 and 7 unless CR4.DE is set.
func (c *cpu) debugRegister(o *op) uint8 {
	n := o.reg
	if n >= 8 || n&^1 == 4 && c.cr4&x86.CR4DE != 0 {
		c.raiseUD()
	}
	c.needCPL0()
	if c.dr7&dr7GD != 0 {
		c.dr6 |= dr6BD
		c.raise(x86.DB)
	}
	if n&^1 == 4 {
		n += 2
	}
	return n
}

func opMovFromDR(c *cpu, o *op) {
	switch n := c.debugRegister(o); n {
	case 6:
		c.setReg(o.rm, o.size, c.dr6)
	case 7:
		c.setReg(o.rm, o.size, c.dr7)
	default:
		c.setReg(o.rm, o.size, c.dr[n&3])
	}
}

func opMovToDR(c *cpu, o *op) {
	n := c.debugRegister(o)
	v := c.reg(o.rm, o.size)
	switch n {
	case 6, 7:
		if v>>32 != 0 {
			c.raiseGP(0)
		}
		if n == 6 {
			c.dr6 = v&dr6Bits | dr6Ones
		} else {
			c.dr7 = v&dr7Bits | dr7Ones
		}
	default:
		c.dr[n&3] = v
	}
	c.drChanged()
}

func opHlt(c *cpu, _ *op) {
	c.needCPL0()
	c.activity = x86.Halted
	c.attend()
}

func (c *cpu) needIOPL() {
	if c.cpl > c.iopl() {
		c.raiseGP(0)
	}
}

func opCli(c *cpu, _ *op) {
	c.needIOPL()
	c.flags &^= x86.FlagIF
}

func opSti(c *cpu, _ *op) {
	c.needIOPL()
	c.flags |= x86.FlagIF
	c.heed()
}

func opPushf(c *cpu, o *op) { c.push(c.rflags()&^(x86.FlagRF|x86.FlagVM), o.size) }

// opPopf is POPF: VIF, VIP and VM stay as they are (SDM volume 2, POPF).
func opPopf(c *cpu, o *op) {
	v := c.pop(o.size)
	c.setRFLAGS(c.flagsFor(v, o.size, x86.FlagAC|x86.FlagID))
	c.updatePrivilege()
	c.heed()
}

// opPause gives the rest of the turn to the other CPUs, which this one most
// likely waits for.
func opPause(c *cpu, _ *op) {
	if len(c.engine.cpus) > 1 {
		c.yield = true
		c.attend()
	}
}

func opWbinvd(c *cpu, _ *op) { c.needCPL0() }

// opClflush faults as a load does. There are no caches.
func opClflush(c *cpu, o *op) { c.probeRead(c.part(o, 0, 1), 1) }

func opInvlpg(c *cpu, o *op) {
	c.needCPL0()
	a := c.r[o.seg&31] + o.offset(c)
	if !c.is64() {
		a &= 0xffff_ffff
	}
	c.dropTLB(a)
}

func opClac(c *cpu, _ *op) { c.setAC(0) }
func opStac(c *cpu, _ *op) { c.setAC(x86.FlagAC) }

func (c *cpu) setAC(ac uint64) {
	if c.cpl != 0 {
		c.raiseUD()
	}
	c.flags = c.flags&^x86.FlagAC | ac
	c.updatePrivilege()
}

func opSwapgs(c *cpu, _ *op) {
	c.needCPL0()
	c.r[slotGS], c.kernelGSBase = c.kernelGSBase, c.r[slotGS]
}

// opFSGSBase is RDFSBASE, RDGSBASE, WRFSBASE and WRGSBASE.
func opFSGSBase(c *cpu, o *op) {
	if c.cr4&x86.CR4FSGSBASE == 0 {
		c.raiseUD()
	}
	slot := slotFS + o.cond&1
	if o.cond < 2 {
		c.setReg(o.rm, o.size, c.r[slot])
		return
	}
	v := c.reg(o.rm, o.size)
	if !isCanonical(v) {
		c.raiseGP(0)
	}
	c.r[slot] = v
}

// tsc is the time-stamp counter at the instruction that is executed.
func (c *cpu) tsc() uint64 { return uint64(c.now+int64(c.i)) + c.tscOffset }

// needTSC throws #GP(0) where CR4.TSD keeps the counter from programs.
func (c *cpu) needTSC() {
	if c.cr4&x86.CR4TSD != 0 && c.cpl != 0 {
		c.raiseGP(0)
	}
}

func opRdtsc(c *cpu, _ *op) {
	c.needTSC()
	v := c.tsc()
	c.r[x86.RAX], c.r[x86.RDX] = v&0xffff_ffff, v>>32
}

func opRdtscp(c *cpu, o *op) {
	opRdtsc(c, o)
	c.r[x86.RCX] = c.tscAux & 0xffff_ffff
}

// opRdpmc: there is no performance counter.
func opRdpmc(c *cpu, _ *op) { c.raiseGP(0) }

// opCpuid answers from the table of package x86. Leaves above the highest basic
// one are answered as that one, and indices that a leaf does not have with zeros
// (SDM volume 2, CPUID).
func opCpuid(c *cpu, _ *op) {
	function, index := uint32(c.r[x86.RAX]), uint32(c.r[x86.RCX])
	table := c.engine.cpuid[c.index]
	l, ok := findLeaf(table, function, index)
	if !ok && !hasLeaf(table, function) {
		basic, _ := findLeaf(table, 0, 0)
		extended, _ := findLeaf(table, firstExtended, 0)
		hypervisor, _ := findLeaf(table, firstHypervisor, 0)
		inside := function <= basic.EAX || function >= firstExtended && function <= extended.EAX ||
			function >= firstHypervisor && function <= hypervisor.EAX
		if !inside {
			l, _ = findLeaf(table, basic.EAX, index)
		}
	}
	c.r[x86.RAX], c.r[x86.RBX] = uint64(l.EAX), uint64(l.EBX)
	c.r[x86.RCX], c.r[x86.RDX] = uint64(l.ECX), uint64(l.EDX)
	if !ok && function == leafTopology {
		level, _ := findLeaf(table, leafTopology, 0)
		c.r[x86.RCX], c.r[x86.RDX] = uint64(index&0xff), uint64(level.EDX)
	}
}

const (
	leafTopology    = 0xb
	firstHypervisor = 0x4000_0000
	firstExtended   = 0x8000_0000
)

func findLeaf(table []x86.Leaf, function, index uint32) (x86.Leaf, bool) {
	for i := range table {
		if l := &table[i]; l.Function == function && (!l.HasIndex || l.Index == index) {
			return *l, true
		}
	}
	return x86.Leaf{}, false
}

func hasLeaf(table []x86.Leaf, function uint32) bool {
	for i := range table {
		if table[i].Function == function {
			return true
		}
	}
	return false
}

// Descriptor tables and system segments.

func opStoreTable(c *cpu, o *op) {
	t := &c.gdt
	if o.cond == 1 {
		t = &c.idt
	}
	size := uint8(4)
	if c.is64() {
		size = 8
	}
	limit, base := c.part(o, 0, 2), c.part(o, 2, size)
	c.probeWrite(limit, 2)
	c.probeWrite(base, uint64(size))
	c.store16(limit, uint64(t.Limit))
	c.store(base, size, t.Base)
}

func opLoadTable(c *cpu, o *op) {
	c.needCPL0()
	size := uint8(4)
	if c.is64() {
		size = 8
	}
	limit := c.load16(c.part(o, 0, 2))
	base := c.load(c.part(o, 2, size), size)
	if !isCanonical(base) {
		c.raiseGP(0)
	}
	if o.size == 2 && !c.is64() {
		base &= 0xff_ffff
	}
	t := &c.gdt
	if o.cond == 1 {
		t = &c.idt
	}
	*t = x86.Table{Base: base, Limit: uint16(limit)}
}

// needProtected throws #UD in real mode, which has no selectors.
func (c *cpu) needProtected() {
	if !c.protected() {
		c.raiseUD()
	}
}

// opStoreSystemSegment is SLDT and STR.
func opStoreSystemSegment(c *cpu, o *op) {
	c.needProtected()
	v := uint64(c.ldt.Selector)
	if o.cond == 1 {
		v = uint64(c.tr.Selector)
	}
	if o.flags&flagMem != 0 {
		c.store16(c.part(o, 0, 2), v)
		return
	}
	c.setReg(o.rm, o.size, v)
}

// opLoadSystemSegment is LLDT and LTR.
func opLoadSystemSegment(c *cpu, o *op) {
	c.needProtected()
	c.needCPL0()
	selector := c.word(o)
	task := o.cond == 3
	if isNull(selector) {
		if task {
			c.raiseGP(0)
		}
		c.ldt = x86.Segment{Selector: selector, Type: x86.TypeLDT, Unusable: true}
		return
	}
	if selector&4 != 0 {
		c.raiseGP(code(selector))
	}
	d, at := c.descriptorAt(selector, x86.GP, 0)
	kind := d.kind()
	good := kind == sysLDT
	if task {
		good = kind == sysTSS || kind == sysTSS16 && !c.longMode()
	}
	if d.isSegment() || !good {
		c.raiseGP(code(selector))
	}
	if !d.present() {
		c.raiseCode(x86.NP, code(selector))
	}
	high := uint64(0)
	if c.longMode() { // 16 bytes (SDM volume 3, 3.5)
		if uint32(selector|15)&^8 > uint32(c.gdt.Limit) || uint32(selector&^7)+15 > uint32(c.gdt.Limit) {
			c.raiseGP(code(selector))
		}
		high = c.load64System(at + 8)
		if high>>40&0x1f != 0 || !isCanonical(high<<32|d.base()) {
			c.raiseGP(code(selector))
		}
	}
	if !task {
		c.ldt = d.segment(selector)
		c.ldt.Base |= high << 32
		return
	}
	d |= sysBusy << 40
	c.storeSystem(at+5, 1, uint64(d>>40))
	c.tr = d.segment(selector)
	c.tr.Base |= high << 32
}

// inspected finds the descriptor of an instruction that only looks at one; ok is
// false where there is none.
func (c *cpu) inspected(selector uint16) (d descriptor, ok bool) {
	base, limit := c.gdt.Base, uint32(c.gdt.Limit)
	if selector&4 != 0 {
		if c.ldt.Unusable || isNull(c.ldt.Selector) {
			return 0, false
		}
		base, limit = c.ldt.Base, c.ldt.Limit
	}
	if isNull(selector) || uint32(selector|7) > limit {
		return 0, false
	}
	at := base + uint64(selector&^7)
	if !c.longMode() {
		at &= 0xffff_ffff
	}
	return descriptor(c.load64System(at)), true
}

// visible is whether the CPL and a selector's RPL may see a descriptor.
func (c *cpu) visible(selector uint16, d descriptor) bool {
	return d.isCode() && d.conforming() || d.dpl() >= c.cpl && d.dpl() >= uint8(selector)&3
}

// setZF changes only ZF.
func (c *cpu) setZF(on bool) { c.setRFLAGS(c.rflags()&^x86.FlagZF | flag(on, x86.FlagZF)) }

// opLar is LAR: of the system descriptors it shows those in the table of SDM
// volume 2, LAR.
func opLar(c *cpu, o *op) {
	c.needProtected()
	selector := c.word(o)
	d, ok := c.inspected(selector)
	ok = ok && c.visible(selector, d)
	if ok && !d.isSegment() {
		switch d.kind() {
		case sysTSS16, sysTSS16 | sysBusy, sysCall16, sysTaskGate:
			ok = !c.longMode()
		case sysLDT, sysTSS, sysTSS | sysBusy, sysCall:
		default:
			ok = false
		}
	}
	if ok {
		c.setReg(o.reg, o.size, uint64(d>>32)&0x00ff_ff00)
	}
	c.setZF(ok)
}

func opLsl(c *cpu, o *op) {
	c.needProtected()
	selector := c.word(o)
	d, ok := c.inspected(selector)
	ok = ok && c.visible(selector, d)
	if ok && !d.isSegment() {
		switch d.kind() {
		case sysTSS16, sysTSS16 | sysBusy:
			ok = !c.longMode()
		case sysLDT, sysTSS, sysTSS | sysBusy:
		default:
			ok = false
		}
	}
	if ok {
		c.setReg(o.reg, o.size, uint64(d.limit()))
	}
	c.setZF(ok)
}

// opVerify is VERR and VERW.
func opVerify(c *cpu, o *op) {
	c.needProtected()
	selector := c.word(o)
	d, ok := c.inspected(selector)
	ok = ok && c.visible(selector, d)
	if o.cond == 0 {
		ok = ok && d.readable()
	} else {
		ok = ok && d.writable()
	}
	c.setZF(ok)
}

func opARPL(c *cpu, o *op) {
	c.needProtected()
	source := uint16(c.r[o.reg&15])
	at := uint64(0)
	mem := o.flags&flagMem != 0
	if mem {
		at = c.part(o, 0, 2)
	}
	v := c.word(o)
	lower := v&3 < source&3
	if lower {
		v = v&^3 | source&3
		if mem {
			c.store16(at, uint64(v))
		} else {
			c.setReg(o.rm, 2, uint64(v))
		}
	}
	c.setZF(lower)
}

// initReset is INIT (SDM volume 3, table 9-1): like a reset, but the FPU and most
// of the model-specific registers stay.
func (c *cpu) initReset() {
	s := x86.Reset(c.index)
	copy(c.r[:16], s.GPR[:])
	c.r[slotRIP] = s.RIP
	c.setRFLAGS(s.RFLAGS)
	for i := range s.Seg {
		c.r[slotES+i] = s.Seg[i].Base
		s.Seg[i].Base = 0
	}
	c.seg, c.tr, c.ldt, c.gdt, c.idt = s.Seg, s.TR, s.LDT, s.GDT, s.IDT
	const kept = x86.CR0CD | x86.CR0NW
	c.cr0 = c.cr0&kept | s.CR0&^kept
	c.cr2, c.cr3, c.cr4, c.efer = 0, 0, 0, 0
	c.dr, c.dr6, c.dr7 = s.DR, s.DR6, s.DR7
	c.drChanged()
	c.cpl, c.shadow = 0, 0
	c.nmiPending, c.nmiMasked = false, false
	c.apic.INIT()
	c.irq = false
	// The bootstrap processor begins anew, the others wait to be started (SDM
	// volume 3, 8.4.2).
	c.activity = x86.WaitSIPI
	if c.apic.Base()&apicBaseBSP != 0 {
		c.activity = x86.Running
	}
	c.updateMode()
	c.updatePrivilege()
	c.flushTLB(true)
}

const apicBaseBSP = 1 << 8 // IA32_APIC_BASE

// sipi starts a CPU that waits for it at the page that the vector names (SDM
// volume 3, 8.4.3).
func (c *cpu) sipi(vector uint8) {
	if c.activity != x86.WaitSIPI {
		return
	}
	c.setRealCS(uint16(vector) << 8)
	c.r[slotRIP] = 0
	c.activity = x86.Running
}
