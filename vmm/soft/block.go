package soft

import (
	"slices"
	"sync"

	"fifovm/vmm/x86"
)

// decoded is a run of instructions that lies in one page of guest RAM and
// ends with the first that may continue elsewhere. The last op sets RIP: where
// the last instruction does not, it is one of our own.
type decoded struct {
	ops  []op
	n    int64  // instructions; 0 for a block that was killed
	at   uint64 // guest-physical address
	size uint16 // in bytes
	mode mode
	// crosses: the only instruction goes on in another page, the one of number
	// cross.
	crosses bool
	cross   uint64
	// shared: other machines have it too, so it can't be changed.
	shared bool
	// handlers are those that ops have where they have opBreakpoint in their place;
	// nil where none has.
	handlers []handler
}

// block is decoded code in one machine, with the blocks that it leads to.
type block struct {
	*decoded
	links [2]link
	next  *block // in codePage.buckets
}

// link remembers which block is at an address. It holds while cpu.gens has not
// changed for that address.
type link struct {
	rip, gen uint64
	block    *block
}

const (
	maxBlock    = 48   // instructions
	jumpEntries = 4096 // of cpu.jumps
	genUser     = 1    // in a generation: made at CPL 3
	genStep     = 2
)

// mode is what an instruction's decoding depends on besides its bytes.
type mode uint8

const (
	mode64    mode = 1 << iota // CS.L
	mode32                     // CS.D
	modeFPU                    // x87 and MMX instructions don't fault with #NM or #UD
	modeSSE                    // nor do those of SSE
	modeTS                     // what faults faults with #NM, not #UD
	modeAlone                  // blocks of one instruction
	modeStack                  // SS.B, outside of 64-bit mode
)

// updateMode is to be called when CS, SS, CR0, CR4 or EFER may have changed.
func (c *cpu) updateMode() {
	m := c.mode & modeAlone
	cs := &c.seg[x86.CS]
	switch {
	case c.efer&x86.EFERLMA != 0 && cs.L != 0:
		m |= mode64
	case cs.DB != 0:
		m |= mode32
	}
	if m&mode64 == 0 && c.seg[x86.SS].DB != 0 {
		m |= modeStack
	}
	ts, em := c.cr0&x86.CR0TS != 0, c.cr0&x86.CR0EM != 0
	if !ts && !em {
		m |= modeFPU
	}
	if ts {
		m |= modeTS
	}
	if !ts && !em && c.cr4&x86.CR4OSFXSR != 0 {
		m |= modeSSE
	}
	if m != c.mode {
		c.mode = m
		c.unlink(true)
	}
}

// unlink makes all links stale, or those that a load of CR3 may have made.
func (c *cpu) unlink(global bool) {
	upper := global || c.fetched.localUpper
	for i := range c.gens {
		if i == 0 || upper {
			c.engine.generation += genStep
			c.gens[i] = c.engine.generation | c.gens[i]&genUser
		}
	}
	if upper {
		c.fetched = fetchedPages{}
	}
}

// fetchedPages knows from which pages there may be links, so that an INVLPG of
// others costs nothing. It errs to the safe side.
type fetchedPages struct {
	small      [64]uint64 // a bit for the pages of a number modulo 4096
	large      [64]uint64 // for large pages, by GiB
	localUpper bool       // some of the upper half was not global
}

func bit(n uint64) (word, mask uint64) { return n >> 6 & 63, 1 << (n & 63) }

func (f *fetchedPages) add(addr uint64, flags tlbFlags) {
	w, m := bit(addr >> pageShift)
	f.small[w] |= m
	if flags&tlbLarge != 0 {
		w, m := bit(addr >> 30)
		f.large[w] |= m
	}
	if addr>>63 != 0 && flags&tlbGlobal == 0 {
		f.localUpper = true
	}
}

func (f *fetchedPages) has(addr uint64) bool {
	w, m := bit(addr >> pageShift)
	v, n := bit(addr >> 30)
	return f.small[w]&m != 0 || f.large[v]&n != 0
}

// follow finds the block at RIP, and remembers it in l.
func (c *cpu) follow(l *link) *block {
	rip := c.r[slotRIP]
	j := &c.jumps[(rip^rip>>12)%jumpEntries]
	if j.rip != rip || j.gen != c.gens[rip>>63] || j.block.n == 0 {
		b := c.resolve(rip)
		*j = link{rip, c.gens[rip>>63], b}
	}
	*l = *j
	return j.block
}

// resolve finds the block at rip, or decodes it. It throws what fetching its
// first instruction faults with.
func (c *cpu) resolve(rip uint64) *block {
	linear := rip
	if c.mode&mode64 == 0 {
		linear = c.codeAddress(rip)
	}
	g := c.translateFetch(linear)
	cc := &c.engine.code
	if b := cc.find(g, c.mode); b != nil {
		if !b.crosses || c.translateFetch(c.nextPage(linear))>>pageShift == b.cross {
			return b
		}
		cc.kill(b)
	}
	var b *block
	if known := cc.known(g, c.mode); known != nil {
		b = &block{decoded: known}
	} else if cc.shared != nil {
		code := new(decoded)
		c.decode(code, linear, g)
		b = &block{decoded: cc.publish(code)}
	} else {
		one := new(struct { // one thing for the collector
			block
			code decoded
		})
		c.decode(&one.code, linear, g)
		b = &one.block
		b.decoded = &one.code
	}
	c.engine.mark(b)
	cc.add(b)
	return b
}

// translateFetch gives the guest-physical address of code.
func (c *cpu) translateFetch(linear uint64) uint64 {
	t := &c.execTLB[0]
	if c.user() {
		t = &c.execTLB[1]
	}
	e := &t.entry[linear>>pageShift%tlbEntries]
	if e.tag != linear>>pageShift {
		g := c.translate(linear, accessFetch, c.user())
		c.fetched.add(linear, c.walked)
		e.tag, e.flags, e.frame = linear>>pageShift, c.walked, g>>pageShift
		t.large = t.large || c.walked&tlbLarge != 0
		return g
	}
	c.fetched.add(linear, e.flags)
	return e.frame<<pageShift | linear&pageMask
}

// codeCache has the decoded blocks of a machine. All CPUs share it.
//
// What was decoded of the pages that are still as in the RAM's base, others that
// began there have too: sharedCode has it, and a machine only what leads from one
// block to the next.
type codeCache struct {
	engine *Engine
	// pages are those that have blocks, by number: where no page of so many has any,
	// there is no table of them.
	pages  []*[tablePages]*codePage
	used   []*codePage // those that are in pages
	shared *sharedCode // nil: there is no base
	spare  []op        // of the block that is being decoded
}

// tablePages is the size of codeCache.pages' tables.
const tablePages = 512

// at gives the page that g is in; nil where it has no code, or is not RAM.
func (cc *codeCache) at(g uint64) *codePage {
	frame := g >> pageShift
	if i := frame / tablePages; i < uint64(len(cc.pages)) && cc.pages[i] != nil {
		return cc.pages[i][frame%tablePages]
	}
	return nil
}

// codePage is a page with code in it.
type codePage struct {
	frame uint64 // its number
	used  int    // its place in codeCache.used
	// buckets has the blocks by where they are: lists, of two blocks on average at
	// most. How many there are is a power of two.
	buckets []*block
	n       int // blocks
	// crossing are blocks of the page before whose instruction ends in this one.
	crossing []*block
	// beside counts writes to the page that changed no block. After some, the
	// page is taken for one that has no code any more: while it has, each write
	// to it takes the slow way.
	beside int
}

// manyBeside is that number: code that is executed again after it costs its
// decoding, about as much as so many slow writes.
const manyBeside = 32

// bucket is the list that a block at g is in.
func (p *codePage) bucket(g uint64) **block {
	const golden = 0x9e37_79b9_7f4a_7c15 // 2^64 divided by the golden ratio: it spreads what lies close together
	return &p.buckets[g&pageMask*golden>>32&uint64(len(p.buckets)-1)]
}

// add puts a block into its bucket, and has more of these as there are more blocks.
func (p *codePage) add(b *block) {
	if p.n++; p.n > 2*len(p.buckets) {
		old := p.buckets
		p.buckets = make([]*block, max(2*len(old), 2))
		for _, x := range old {
			for x != nil {
				next, at := x.next, p.bucket(x.at)
				x.next, *at = *at, x
				x = next
			}
		}
	}
	at := p.bucket(b.at)
	b.next, *at = *at, b
}

// remove takes a block out that is in.
func (p *codePage) remove(b *block) {
	at := p.bucket(b.at)
	for *at != b {
		at = &(*at).next
	}
	*at, b.next = b.next, nil
	p.n--
}

// each calls f for all blocks of the page, which f may remove.
func (p *codePage) each(f func(*block)) {
	for _, b := range p.buckets {
		for b != nil {
			next := b.next
			f(b)
			b = next
		}
	}
}

// find gives the block at g in RAM that was decoded in mode m; nil: there is none.
func (cc *codeCache) find(g uint64, m mode) *block {
	p := cc.at(g)
	if p == nil || p.n == 0 {
		return nil
	}
	b := *p.bucket(g)
	for b != nil && (b.at != g || b.mode != m) {
		b = b.next
	}
	return b
}

// sharedCode is what was decoded of a base's bytes. Any number of engines use it
// at once.
type sharedCode struct {
	mu    sync.RWMutex
	codes map[codeKey]*decoded
	ops   int // of all codes
}

// maxSharedOps bounds what a base keeps decoded, to 40 bytes each: what a kernel and
// its tests ever execute is a tenth of it. What goes beyond, each machine decodes
// for itself.
const maxSharedOps = 4 << 20

// codeKey is what tells decoded code apart.
type codeKey struct {
	at   uint64
	mode mode
}

func newSharedCode() *sharedCode { return &sharedCode{codes: map[codeKey]*decoded{}} }

// known gives the code at an address if it was decoded by some machine, and the page
// is still as it was then.
func (cc *codeCache) known(g uint64, m mode) *decoded {
	s := cc.shared
	if s == nil || cc.engine.page(g) == nil || cc.engine.cfg.RAM.Marked(g) {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.codes[codeKey{g, m}]
}

// publish has other machines know code that was decoded of the base's bytes alone.
// Where one of them was first, it gives what that has.
func (cc *codeCache) publish(c *decoded) *decoded {
	s := cc.shared
	if s == nil || c.crosses || cc.engine.page(c.at) == nil || cc.engine.cfg.RAM.Marked(c.at) {
		return c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := codeKey{c.at, c.mode}
	if first := s.codes[key]; first != nil {
		return first
	}
	if s.ops += len(c.ops); s.ops <= maxSharedOps {
		c.shared = true
		s.codes[key] = c
	}
	return c
}

// own makes the block's code its own, to be changed.
func (b *block) own() {
	if !b.shared {
		return
	}
	c := *b.decoded
	c.ops, c.shared = slices.Clone(c.ops), false
	b.decoded = &c
}

// add puts a block among those of its pages. From now on writes to them come to
// written.
func (cc *codeCache) add(b *block) {
	p := cc.page(b.at >> pageShift)
	if p == nil {
		return // not RAM: decoded anew each time
	}
	p.add(b)
	if b.crosses {
		if q := cc.page(b.cross); q != nil {
			q.crossing = append(q.crossing, b)
		}
	}
}

func (cc *codeCache) page(frame uint64) *codePage {
	ram := cc.engine.page(frame << pageShift)
	if ram == nil {
		return nil
	}
	if p := cc.at(frame << pageShift); p != nil {
		return p
	}
	p := &codePage{frame: frame, used: len(cc.used)}
	cc.used = append(cc.used, p)
	t := &cc.pages[frame/tablePages]
	if *t == nil {
		*t = new([tablePages]*codePage)
	}
	(*t)[frame%tablePages] = p
	for _, c := range cc.engine.cpus {
		for m := range c.tlbs {
			for i := range c.tlbs[m].wr.entry {
				if e := &c.tlbs[m].wr.entry[i]; e.page == ram {
					e.tag, e.page = noPage, nil
				}
			}
		}
	}
	return p
}

// written notes a write of n bytes at g, all in one page, that does not come from
// the TLB, and drops the blocks that it changes.
func (cc *codeCache) written(g, n uint64) {
	cc.engine.cfg.RAM.MarkDirty(g)
	cc.drop(g, n)
}

// drop drops the blocks that are in part at g and the n-1 bytes behind it, all in
// one page.
func (cc *codeCache) drop(g, n uint64) {
	p := cc.at(g)
	if p == nil {
		return
	}
	if p.beside++; p.beside > manyBeside {
		g, n = g&^pageMask, pageSize
	}
	p.each(func(b *block) {
		if b.at < g+n && g < b.at+uint64(b.size) {
			p.beside = 0
			cc.kill(b)
		}
	})
	for _, b := range slices.Clone(p.crossing) {
		if end := (b.at + uint64(b.size)) & pageMask; g&pageMask < end {
			p.beside = 0
			cc.kill(b)
		}
	}
	if p.n == 0 && len(p.crossing) == 0 {
		last := cc.used[len(cc.used)-1]
		cc.used[p.used], last.used = last, p.used
		cc.used[len(cc.used)-1] = nil
		cc.used = cc.used[:len(cc.used)-1]
		cc.pages[p.frame/tablePages][p.frame%tablePages] = nil
	}
}

// changed is told of writes to RAM that are not a CPU's: DMA, or the loader.
func (cc *codeCache) changed(g, n uint64) {
	for end := g + n; g < end; g = g&^pageMask + pageSize {
		cc.written(g, min(end-g, pageSize-g&pageMask))
	}
}

// clear forgets all blocks. The CPUs have to drop their links: those to blocks that
// are forgotten must not be followed, nor keep them in memory.
func (cc *codeCache) clear() {
	if len(cc.used) == 0 {
		return
	}
	for _, p := range cc.used {
		cc.pages[p.frame/tablePages][p.frame%tablePages] = nil
	}
	clear(cc.used)
	cc.used = cc.used[:0]
	for _, c := range cc.engine.cpus {
		c.jumps = [jumpEntries]link{}
	}
}

// kill takes a block out of the cache. Links to it stay: it becomes one that
// does nothing and leads to whatever is at its address now.
func (cc *codeCache) kill(b *block) {
	cc.at(b.at).remove(b)
	if b.crosses {
		if q := cc.at(b.cross << pageShift); q != nil {
			q.crossing = slices.DeleteFunc(q.crossing, func(x *block) bool { return x == b })
		}
	}
	b.links = [2]link{}
	if cc.engine.running == nil {
		for _, c := range cc.engine.cpus {
			if c.stops.inside.block == b { // changed by a debugger, or by what comes from outside
				c.stops.inside = inside{}
			}
		}
	}
	if c := cc.engine.running; c != nil && c.block == b {
		// The walk of a page table that lies in the code set an accessed bit. The
		// ops are still wanted: for where they are.
		ops := slices.Clone(b.ops)
		for i := range ops {
			ops[i].fn = opDead
		}
		b.decoded = &decoded{ops: ops, at: b.at, size: b.size, mode: b.mode}
		return
	}
	b.decoded = dead
}

// dead is the code of a block that was killed.
var dead = &decoded{ops: []op{{fn: opDead}}}

func opDead(c *cpu, _ *op) { c.taken = 0 }

// checkAlone is called before a write of n bytes at g. Where they belong to the
// block that is executed, the rest of it may change by them: the instruction
// then begins again, in a block of its own.
func (c *cpu) checkAlone(g, n uint64) {
	if b := c.block; b != nil && b.n > 1 && g < b.at+uint64(b.size) && b.at < g+n {
		panic(throwAlone)
	}
}

// decode decodes the instructions from linear on, which is at g, into b.
func (c *cpu) decode(b *decoded, linear, g uint64) {
	b.at, b.mode = g, c.mode
	limit := maxBlock
	if c.mode&modeAlone != 0 {
		limit = 1
	}
	var outside [2 * maxInstruction]byte // of code that isn't in one page of RAM
	code := c.codeBytes(g, outside[:])
	ops := c.engine.code.spare[:0]
	var d decoder
	pos := 0
	// What holds interrupts off for an instruction shares its block with that.
	holds := false
	for len(ops) < limit && pos < maxBlockBytes {
		ops = append(ops, op{})
		o := &ops[len(ops)-1]
		d.decode(code[pos:], uint8(pos), c.mode, o)
		if d.short {
			if len(ops) > 1 { // it begins the next block
				ops = ops[:len(ops)-1]
				d.branch = false
				break
			}
			b.crosses, b.cross = true, c.decodeCrossing(&d, o, code, linear)
		}
		pos += int(o.length)
		if d.undefined {
			o.fn = opLacking
		}
		if holds {
			holds = false
			break
		}
		holds = d.shadow
		if b.crosses || d.end && !holds {
			break
		}
	}
	b.n, b.size = int64(len(ops)), uint16(pos)
	if !d.branch {
		ops = append(ops, op{fn: advanceOp(c.mode, holds), imm: uint64(pos)})
	}
	c.engine.code.spare = ops
	b.ops = slices.Clone(ops)
}

// maxBlockBytes leaves room for a last instruction in op.off.
const maxBlockBytes = 256 - maxInstruction

// codeBytes gives the code from g to the end of its page. Where there is no RAM
// it is what a read gives there.
func (c *cpu) codeBytes(g uint64, outside []byte) []byte {
	if p := c.engine.page(g); p != nil {
		return p[g&pageMask:]
	}
	n := min(maxInstruction, pageSize-g&pageMask)
	for i := range n {
		outside[i] = byte(c.readDevice(g+i, 1))
	}
	return outside[:n]
}

// decodeCrossing decodes an instruction that begins in code, at the end of the
// page that linear is in, and continues in the next page, whose frame it gives.
func (c *cpu) decodeCrossing(d *decoder, o *op, code []byte, linear uint64) uint64 {
	g := c.translateFetch(c.nextPage(linear))
	var joined, outside [2 * maxInstruction]byte
	n := copy(joined[:maxInstruction], code)
	n += copy(joined[n:], c.codeBytes(g, outside[:])[:maxInstruction])
	d.decode(joined[:n], 0, c.mode, o)
	return g >> pageShift
}

// nextPage is the start of the page behind that of a linear address.
func (c *cpu) nextPage(linear uint64) uint64 {
	next := linear&^pageMask + pageSize
	if c.mode&mode64 == 0 {
		next &= 0xffff_ffff
	}
	return next
}

// advanceOp ends a block whose last instruction does not set RIP.
func advanceOp(m mode, shadow bool) handler {
	switch {
	case shadow:
		return opAdvanceShadow
	case m&mode64 == 0:
		return opAdvanceLegacy
	}
	return opAdvance
}

// opAdvanceShadow follows an instruction that holds interrupts off for the one
// behind the block.
func opAdvanceShadow(c *cpu, o *op) {
	c.shadow = x86.ShadowSTI
	c.attend() // run knows what to do with it
	if c.mode&mode64 == 0 {
		opAdvanceLegacy(c, o)
	} else {
		opAdvance(c, o)
	}
}

// opAdvance goes on behind the block, unless its last instruction has set RIP
// for good (c.jumped) or by its being a near branch.
func opAdvance(c *cpu, o *op) {
	if c.jumped {
		c.jumped = false
	} else {
		c.r[slotRIP] += o.imm
	}
	c.taken = 0
}

func opAdvanceLegacy(c *cpu, o *op) {
	if c.jumped {
		c.jumped = false
	} else {
		c.r[slotRIP] = (c.r[slotRIP] + o.imm) & c.ripMask()
	}
	c.taken = 0
}

// ripMask is what RIP has of bits outside of 64-bit mode.
func (c *cpu) ripMask() uint64 {
	if c.mode&mode32 != 0 {
		return 0xffff_ffff
	}
	return 0xffff
}
