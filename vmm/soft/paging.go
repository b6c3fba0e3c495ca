package soft

import (
	"encoding/binary"

	"fifovm/vmm/x86"
)

// access is what an address is translated for.
type access uint8

const (
	accessRead access = iota
	accessWrite
	accessFetch
)

// Reserved bits of a 64-bit paging-structure entry (SDM volume 3, 4.5): those
// above the width of a physical address; of a large page those between its
// flags and its address as well.
const (
	reservedAddress = x86.PTEAddress &^ (1<<x86.PhysBits - 1)
	pat2M           = 1 << 12
)

// translate gives the guest-physical address for a linear one, after the checks
// of paging (SDM volume 3, 4.6), and sets accessed and dirty bits. It throws the
// page fault, or #GP for an address that isn't canonical. cpu.walked has the
// translation's properties.
func (c *cpu) translate(addr uint64, kind access, user bool) uint64 {
	c.walked = 0
	if c.cr0&x86.CR0PG == 0 {
		return addr & 0xffff_ffff
	}
	if c.efer&x86.EFERLMA == 0 {
		return c.walkLegacy(addr&0xffff_ffff, kind, user)
	}
	if !isCanonical(addr) {
		c.raiseNotCanonical(kind)
	}
	return c.walk(addr, c.cr3&x86.PTEAddress, 39, kind, user)
}

// raiseNotCanonical throws what an address does that is not canonical: #SS where
// the instruction's operand is on the stack (SDM volume 1, 3.3.7.1).
func (c *cpu) raiseNotCanonical(kind access) {
	if b := c.block; b != nil && kind != accessFetch && b.ops[c.i].flags&(flagStack|flagPush) != 0 {
		c.raiseCode(x86.SSFault, 0)
	}
	c.raiseGP(0)
}

// walk walks tables of 64-bit entries from the one at table, whose entries
// are selected by the address's bits from shift on.
func (c *cpu) walk(addr, table uint64, shift uint, kind access, user bool) uint64 {
	rights := uint64(x86.PTEWrite | x86.PTEUser)
	var nx uint64
	var path [4]uint64 // addresses of the entries that were used
	depth := 0
	for {
		at := table + addr>>shift&511*8
		e := c.entry(at)
		if e&x86.PTEPresent == 0 {
			c.raisePF(addr, pfCode(0, kind, user, c.efer, c.cr4))
		}
		reserved := uint64(reservedAddress)
		if c.efer&x86.EFERNXE == 0 {
			reserved |= x86.PTENX
		}
		last := shift == pageShift
		if e&x86.PTELarge != 0 && !last {
			if shift > 30 {
				reserved |= x86.PTELarge
			} else {
				last = true
				reserved |= (1<<shift - 1) &^ (1<<pageShift - 1) &^ pat2M
			}
		}
		if e&reserved != 0 {
			c.raisePF(addr, pfCode(x86.PFPresent|x86.PFReserved, kind, user, c.efer, c.cr4))
		}
		path[depth], depth = at, depth+1
		rights &= e
		nx |= e & x86.PTENX
		if !last {
			table = e & x86.PTEAddress
			shift -= 9
			continue
		}
		if !c.permitted(rights, nx, kind, user) {
			c.raisePF(addr, pfCode(x86.PFPresent, kind, user, c.efer, c.cr4))
		}
		for i, at := range path[:depth] {
			set := uint64(x86.PTEAccessed)
			if i == depth-1 && kind == accessWrite {
				set |= x86.PTEDirty
			}
			if v := c.entry(at); v&set != set {
				c.setEntry(at, v|set)
			}
		}
		if e&x86.PTEGlobal != 0 && c.cr4&x86.CR4PGE != 0 {
			c.walked |= tlbGlobal
		}
		if shift > pageShift {
			c.walked |= tlbLarge
		}
		offset := uint64(1)<<shift - 1
		return e&x86.PTEAddress&^offset | addr&offset
	}
}

// permitted checks the rights of a translation (SDM volume 3, 4.6.1).
func (c *cpu) permitted(rights, nx uint64, kind access, user bool) bool {
	userPage := rights&x86.PTEUser != 0
	if user && !userPage {
		return false
	}
	switch kind {
	case accessFetch:
		return nx == 0 && (user || !userPage || c.cr4&x86.CR4SMEP == 0)
	case accessWrite:
		if rights&x86.PTEWrite == 0 && (user || c.cr0&x86.CR0WP != 0) {
			return false
		}
	}
	if !user && userPage && c.cr4&x86.CR4SMAP != 0 {
		// An implicit access, to a descriptor table say, is never let through; at
		// CPL 3 all supervisor accesses are such.
		return c.cpl != 3 && c.flags&x86.FlagAC != 0
	}
	return true
}

func pfCode(code uint32, kind access, user bool, efer, cr4 uint64) uint32 {
	if user {
		code |= x86.PFUser
	}
	switch {
	case kind == accessWrite:
		code |= x86.PFWrite
	case kind == accessFetch && (efer&x86.EFERNXE != 0 || cr4&x86.CR4SMEP != 0):
		code |= x86.PFFetch
	}
	return code
}

// entry reads a paging-structure entry. One that is not in RAM reads as all
// ones, as nothing does on the bus.
func (c *cpu) entry(g uint64) uint64 {
	if p := c.engine.page(g); p != nil {
		return binary.LittleEndian.Uint64(p[g&pageMask:])
	}
	return ^uint64(0)
}

func (c *cpu) setEntry(g, v uint64) {
	if p := c.engine.page(g); p != nil {
		c.engine.code.written(g, 8)
		binary.LittleEndian.PutUint64(p[g&pageMask:], v)
	}
}

// walkLegacy is 32-bit and PAE paging (SDM volume 3, 4.3 and 4.4).
func (c *cpu) walkLegacy(addr uint64, kind access, user bool) uint64 {
	if c.cr4&x86.CR4PAE != 0 {
		// The four top entries have no rights. They are read at each walk, where a
		// processor keeps them from the last load of CR3.
		e := c.entry(c.cr3&0xffff_ffe0 + addr>>30*8)
		if e&x86.PTEPresent == 0 {
			c.raisePF(addr, pfCode(0, kind, user, c.efer, c.cr4))
		}
		return c.walk(addr&(1<<30-1)|addr&^(1<<30-1), e&x86.PTEAddress, 21, kind, user)
	}
	read := func(at uint64) uint64 { return c.entry(at&^7) >> (8 * (at & 4)) & 0xffff_ffff }
	write := func(at, v uint64) {
		old := c.entry(at &^ 7)
		s := 8 * (at & 4)
		c.setEntry(at&^7, old&^(0xffff_ffff<<s)|v<<s)
	}
	set := uint64(x86.PTEAccessed)
	dirty := uint64(0)
	if kind == accessWrite {
		dirty = x86.PTEDirty
	}
	dirAt := c.cr3&0xffff_f000 + addr>>22*4
	dir := read(dirAt)
	if dir&x86.PTEPresent == 0 {
		c.raisePF(addr, pfCode(0, kind, user, c.efer, c.cr4))
	}
	if dir&x86.PTELarge != 0 && c.cr4&x86.CR4PSE != 0 {
		if dir>>21&1 != 0 {
			c.raisePF(addr, pfCode(x86.PFPresent|x86.PFReserved, kind, user, c.efer, c.cr4))
		}
		if !c.permitted(dir, 0, kind, user) {
			c.raisePF(addr, pfCode(x86.PFPresent, kind, user, c.efer, c.cr4))
		}
		write(dirAt, dir|set|dirty)
		c.walked = tlbLarge
		if dir&x86.PTEGlobal != 0 && c.cr4&x86.CR4PGE != 0 {
			c.walked |= tlbGlobal
		}
		return dir>>13&0x7f<<32 | dir&0xffc0_0000 | addr&0x3f_ffff // PSE-36: 7 more bits
	}
	at := dir&0xffff_f000 + addr>>12&1023*4
	e := read(at)
	if e&x86.PTEPresent == 0 {
		c.raisePF(addr, pfCode(0, kind, user, c.efer, c.cr4))
	}
	if !c.permitted(dir&e, 0, kind, user) {
		c.raisePF(addr, pfCode(x86.PFPresent, kind, user, c.efer, c.cr4))
	}
	write(dirAt, dir|set)
	write(at, e|set|dirty)
	if e&x86.PTEGlobal != 0 && c.cr4&x86.CR4PGE != 0 {
		c.walked |= tlbGlobal
	}
	return e&0xffff_f000 | addr&pageMask
}
