package soft

import (
	"encoding/binary"

	"fifovm/vmm/x86"
)

// The software TLB. Its entries are direct-mapped by the page's number and hold
// what a walk of the page tables has permitted, so that a hit needs no check of
// rights: for that there is a TLB of its own for each kind of privilege, one for
// reads and one for writes. Pages that are not RAM, or that hold decoded code
// (for writes), are never in it: their accesses take the slow way.
const (
	pageShift  = 12
	pageSize   = 1 << pageShift
	pageMask   = pageSize - 1
	tlbEntries = 512
)

// page is a page of guest RAM.
type page [pageSize]byte

// tlbEntry translates the page whose number is tag.
type tlbEntry struct {
	tag   uint64 // linear address >> pageShift, or noPage
	page  *page
	frame uint64 // of code: the page's number in guest-physical memory
	flags tlbFlags
}

// noPage is no page's number: those have at most 52 bits.
const noPage = ^uint64(0)

type tlbFlags uint8

const (
	tlbGlobal tlbFlags = 1 << iota // survives a load of CR3
	tlbLarge                       // a part of a larger page
)

type tlb struct {
	entry [tlbEntries]tlbEntry
	large bool // some entry has been tlbLarge since the last flush
}

type tlbPair struct{ rd, wr tlb }

// The kinds of privilege.
const (
	tlbUser       = iota
	tlbSupervisor // user pages are out of reach, if SMAP is on
	tlbSupervisorAC
	tlbAligned // alignment is checked: stays empty, so that all accesses come the slow way
	tlbModes
)

func (t *tlb) flush() {
	for i := range t.entry {
		t.entry[i].tag = noPage
	}
	t.large = false
}

// flushLocal drops what isn't global.
func (t *tlb) flushLocal() {
	for i := range t.entry {
		if e := &t.entry[i]; e.flags&tlbGlobal == 0 {
			e.tag = noPage
		}
	}
}

// number is an entry's tag without tagWatched.
func (e *tlbEntry) number() uint64 { return e.tag &^ tagWatched }

// drop drops the translation of addr, and of all of the larger page that it may
// be a part of.
func (t *tlb) drop(addr uint64) {
	const gib = 30 - pageShift // the largest page's size
	if e := &t.entry[addr>>pageShift%tlbEntries]; e.number() == addr>>pageShift {
		e.tag = noPage
	}
	if !t.large {
		return
	}
	for i := range t.entry {
		if e := &t.entry[i]; e.flags&tlbLarge != 0 && e.number()>>gib == addr>>pageShift>>gib {
			e.tag = noPage
		}
	}
}

// insert puts the last translation into one of the CPU's TLBs.
func (c *cpu) insert(t *tlb, addr uint64, p *page) {
	t.entry[addr>>pageShift%tlbEntries] = tlbEntry{tag: c.watchTag(addr >> pageShift), page: p, flags: c.walked}
	t.large = t.large || c.walked&tlbLarge != 0
}

// flushTLB drops all translations, or all that are not global.
func (c *cpu) flushTLB(global bool) {
	for m := range c.tlbs {
		for _, t := range []*tlb{&c.tlbs[m].rd, &c.tlbs[m].wr} {
			if global {
				t.flush()
			} else {
				t.flushLocal()
			}
		}
	}
	for i := range c.execTLB {
		if global {
			c.execTLB[i].flush()
		} else {
			c.execTLB[i].flushLocal()
		}
	}
	c.unlink(global)
}

// dropTLB drops the translations of one address (INVLPG).
func (c *cpu) dropTLB(addr uint64) {
	for m := range c.tlbs {
		c.tlbs[m].rd.drop(addr)
		c.tlbs[m].wr.drop(addr)
	}
	for i := range c.execTLB {
		c.execTLB[i].drop(addr)
	}
	if c.fetched.has(addr) {
		c.unlink(true)
	}
}

// updatePrivilege makes the TLB that of the present CPL and of EFLAGS.AC: to be
// called when one of them, CR0.AM or CR4.SMAP may have changed.
func (c *cpu) updatePrivilege() {
	m := tlbSupervisor
	c.aligned = c.cpl == 3 && c.flags&x86.FlagAC != 0 && c.cr0&x86.CR0AM != 0
	switch {
	case c.aligned:
		m = tlbAligned
	case c.cpl == 3:
		m = tlbUser
	case c.flags&x86.FlagAC != 0:
		m = tlbSupervisorAC
	}
	c.rd, c.wr = &c.tlbs[m].rd, &c.tlbs[m].wr
	for i := range c.gens {
		c.gens[i] &^= genUser
		if c.cpl == 3 {
			c.gens[i] |= genUser
		}
	}
}

// load8 and its like read at a linear address. They throw what the access
// faults with.
func (c *cpu) load8(a uint64) uint64 {
	if e := &c.rd.entry[a>>pageShift%tlbEntries]; e.tag == a>>pageShift {
		return uint64(e.page[a&pageMask])
	}
	return c.loadSlow(a, 1)
}

func (c *cpu) load16(a uint64) uint64 {
	if e := &c.rd.entry[a>>pageShift%tlbEntries]; e.tag == (a+1)>>pageShift {
		return uint64(binary.LittleEndian.Uint16(e.page[a&pageMask:]))
	}
	return c.loadSlow(a, 2)
}

func (c *cpu) load32(a uint64) uint64 {
	if e := &c.rd.entry[a>>pageShift%tlbEntries]; e.tag == (a+3)>>pageShift {
		return uint64(binary.LittleEndian.Uint32(e.page[a&pageMask:]))
	}
	return c.loadSlow(a, 4)
}

func (c *cpu) load64(a uint64) uint64 {
	if e := &c.rd.entry[a>>pageShift%tlbEntries]; e.tag == (a+7)>>pageShift {
		return binary.LittleEndian.Uint64(e.page[a&pageMask:])
	}
	return c.loadSlow(a, 8)
}

// load reads size bytes: 1, 2, 4 or 8.
func (c *cpu) load(a uint64, size uint8) uint64 {
	switch size {
	case 1:
		return c.load8(a)
	case 2:
		return c.load16(a)
	case 4:
		return c.load32(a)
	}
	return c.load64(a)
}

// load128 reads 16 bytes at any address.
func (c *cpu) load128(a uint64) xmm {
	if e := &c.rd.entry[a>>pageShift%tlbEntries]; e.tag == (a+15)>>pageShift {
		b := e.page[a&pageMask:]
		return xmm{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
	}
	// The fault of the second half is that of the whole, so nothing is done twice.
	return xmm{c.load64(a), c.load64(a + 8)}
}

// load128a is load128 for instructions that want a multiple of 16 (#GP).
func (c *cpu) load128a(a uint64) xmm {
	if a&15 != 0 {
		c.raiseMisaligned(a)
	}
	return c.load128(a)
}

// store8 and its like write at a linear address. Where they throw, nothing is
// written.
func (c *cpu) store8(a, v uint64) {
	if e := &c.wr.entry[a>>pageShift%tlbEntries]; e.tag == a>>pageShift {
		e.page[a&pageMask] = uint8(v)
		return
	}
	c.storeSlow(a, 1, v)
}

func (c *cpu) store16(a, v uint64) {
	if e := &c.wr.entry[a>>pageShift%tlbEntries]; e.tag == (a+1)>>pageShift {
		binary.LittleEndian.PutUint16(e.page[a&pageMask:], uint16(v))
		return
	}
	c.storeSlow(a, 2, v)
}

func (c *cpu) store32(a, v uint64) {
	if e := &c.wr.entry[a>>pageShift%tlbEntries]; e.tag == (a+3)>>pageShift {
		binary.LittleEndian.PutUint32(e.page[a&pageMask:], uint32(v))
		return
	}
	c.storeSlow(a, 4, v)
}

func (c *cpu) store64(a, v uint64) {
	if e := &c.wr.entry[a>>pageShift%tlbEntries]; e.tag == (a+7)>>pageShift {
		binary.LittleEndian.PutUint64(e.page[a&pageMask:], v)
		return
	}
	c.storeSlow(a, 8, v)
}

// store writes size bytes: 1, 2, 4 or 8.
func (c *cpu) store(a uint64, size uint8, v uint64) {
	switch size {
	case 1:
		c.store8(a, v)
	case 2:
		c.store16(a, v)
	case 4:
		c.store32(a, v)
	default:
		c.store64(a, v)
	}
}

// store128 writes 16 bytes at any address.
func (c *cpu) store128(a uint64, v xmm) {
	if e := &c.wr.entry[a>>pageShift%tlbEntries]; e.tag == (a+15)>>pageShift {
		b := e.page[a&pageMask:]
		binary.LittleEndian.PutUint64(b, v.lo)
		binary.LittleEndian.PutUint64(b[8:], v.hi)
		return
	}
	if c.wr.watchedPage(a, 16) == nil {
		c.probeWrite(a, 16)
	}
	c.store64(a, v.lo)
	c.store64(a+8, v.hi)
}

// store128a is store128 for instructions that want a multiple of 16 (#GP).
func (c *cpu) store128a(a uint64, v xmm) {
	if a&15 != 0 {
		c.raiseMisaligned(a)
	}
	c.store128(a, v)
}

// raiseMisaligned is #GP, unless the address has a worse fault.
func (c *cpu) raiseMisaligned(a uint64) {
	if c.mode&mode64 != 0 && !isCanonical(a) {
		c.raiseNotCanonical(accessRead)
	}
	c.raiseGP(0)
}

// probeRead and probeWrite throw what an access to n bytes, at most a page,
// would fault with, and do nothing else: for instructions that access memory
// more than once.
func (c *cpu) probeRead(a, n uint64) {
	c.translate(a, accessRead, c.user())
	if (a+n-1)>>pageShift != a>>pageShift {
		c.translate((a+n-1)&^pageMask, accessRead, c.user())
	}
}

func (c *cpu) probeWrite(a, n uint64) {
	g := c.translate(a, accessWrite, c.user())
	first := min(n, pageSize-a&pageMask)
	c.checkAlone(g, first)
	if first < n {
		g = c.translate(a+first, accessWrite, c.user())
		c.checkAlone(g, n-first)
	}
}

func (c *cpu) user() bool { return c.cpl == 3 }

// loadRMW reads what the instruction is about to write: it faults as a write
// does (SDM volume 3, 4.7).
func (c *cpu) loadRMW(a uint64, size uint8) uint64 {
	if e := &c.wr.entry[a>>pageShift%tlbEntries]; e.tag == (a+uint64(size)-1)>>pageShift {
		b := e.page[a&pageMask:]
		switch size {
		case 1:
			return uint64(b[0])
		case 2:
			return uint64(binary.LittleEndian.Uint16(b))
		case 4:
			return uint64(binary.LittleEndian.Uint32(b))
		}
		return binary.LittleEndian.Uint64(b)
	}
	if c.aligned {
		c.checkAlignment(a, size, c.user())
	}
	if p := c.wr.watchedPage(a, uint64(size)); p != nil {
		c.touched(a, uint64(size), accessRead)
		return p.load(a, size)
	}
	c.probeWrite(a, uint64(size))
	return c.load(a, size)
}

// loadSlow is a read that the TLB does not answer: it misses, crosses a page, or
// is not RAM.
func (c *cpu) loadSlow(a uint64, size uint8) uint64 {
	if p := c.rd.watchedPage(a, uint64(size)); p != nil {
		c.touched(a, uint64(size), accessRead)
		return p.load(a, size)
	}
	return c.loadAs(a, size, c.user())
}

// load reads at the offset of a, within the page.
func (p *page) load(a uint64, size uint8) uint64 {
	var b [8]byte
	copy(b[:size], p[a&pageMask:])
	return binary.LittleEndian.Uint64(b[:])
}

// loadAs reads with the rights of a user's access or of the supervisor's, which
// accesses to descriptor tables and the TSS have at any CPL.
func (c *cpu) loadAs(a uint64, size uint8, user bool) uint64 {
	if c.aligned {
		c.checkAlignment(a, size, user)
	}
	if a&pageMask+uint64(size) > pageSize {
		n := pageSize - a&pageMask
		lo, hi := c.translate(a, accessRead, user), c.translate(a+n, accessRead, user)
		c.touched(a, uint64(size), accessRead)
		var b [8]byte
		c.readPhysical(lo, b[:n])
		c.readPhysical(hi, b[n:size])
		return binary.LittleEndian.Uint64(b[:])
	}
	g := c.translate(a, accessRead, user)
	c.touched(a, uint64(size), accessRead)
	if p := c.engine.page(g); p != nil {
		if user == c.user() && !c.aligned {
			c.insert(c.rd, a, p)
		}
		return p.load(a, size)
	}
	return c.readDevice(g, size)
}

func (c *cpu) storeSlow(a uint64, size uint8, v uint64) {
	if p := c.wr.watchedPage(a, uint64(size)); p != nil {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], v)
		copy(p[a&pageMask:], b[:size])
		c.touched(a, uint64(size), accessWrite)
		return
	}
	c.storeAs(a, size, v, c.user())
}

func (c *cpu) storeAs(a uint64, size uint8, v uint64, user bool) {
	if c.aligned {
		c.checkAlignment(a, size, user)
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	if a&pageMask+uint64(size) > pageSize {
		n := pageSize - a&pageMask
		lo, hi := c.translate(a, accessWrite, user), c.translate(a+n, accessWrite, user)
		c.checkAlone(lo, n)
		c.checkAlone(hi, uint64(size)-n)
		c.touched(a, uint64(size), accessWrite)
		c.writePhysical(lo, b[:n])
		c.writePhysical(hi, b[n:size])
		return
	}
	g := c.translate(a, accessWrite, user)
	c.checkAlone(g, uint64(size))
	c.touched(a, uint64(size), accessWrite)
	if p := c.engine.page(g); p != nil && c.engine.code.at(g) == nil && user == c.user() && !c.aligned {
		c.insert(c.wr, a, p)
	}
	c.writePhysical(g, b[:size])
}

// checkAlignment throws #AC for an access of a program that is not at a multiple
// of its size (SDM volume 3, 6.15, interrupt 17).
func (c *cpu) checkAlignment(a uint64, size uint8, user bool) {
	if user && a&uint64(size-1) != 0 {
		c.raiseCode(x86.AC, 0)
	}
}

// readPhysical reads guest-physical memory within a page. From a device it comes
// byte by byte: the access crosses a page, or is of code.
func (c *cpu) readPhysical(g uint64, b []byte) {
	if p := c.engine.page(g); p != nil {
		copy(b, p[g&pageMask:])
		return
	}
	for i := range b {
		b[i] = byte(c.readDevice(g+uint64(i), 1))
	}
}

// writePhysical writes guest-physical memory within a page.
func (c *cpu) writePhysical(g uint64, b []byte) {
	if p := c.engine.page(g); p != nil {
		c.engine.code.written(g, uint64(len(b)))
		copy(p[g&pageMask:], b)
		return
	}
	if n := len(b); n&(n-1) == 0 {
		copy(c.access[:], b)
		c.writeDevice(g, c.access[:n])
		return
	}
	for i := range b { // the part of an access that crosses a page
		c.access[0] = b[i]
		c.writeDevice(g+uint64(i), c.access[:1])
	}
}
