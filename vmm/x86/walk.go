package x86

// Translate walks the page tables of a CPU for a linear address, with the
// supervisor's rights and without a trace of it in the tables, as a debugger
// wants (SDM volume 3, 4.3 to 4.5). read gives 8 bytes of guest-physical memory,
// at a multiple of 8.
func Translate(c *CPU, linear uint64, read func(gpa uint64) (entry uint64, ok bool)) (gpa uint64, ok bool) {
	switch {
	case c.CR0&CR0PG == 0:
		return linear & 0xffff_ffff, true
	case c.EFER&EFERLMA != 0:
		if int64(linear)<<16>>16 != int64(linear) {
			return 0, false // not canonical
		}
		return walkTables(linear, c.CR3&PTEAddress, 39, read)
	case c.CR4&CR4PAE != 0:
		linear &= 0xffff_ffff
		top, ok := read(c.CR3&0xffff_ffe0 + linear>>30*8)
		if !ok || top&PTEPresent == 0 {
			return 0, false
		}
		return walkTables(linear, top&PTEAddress, 21, read)
	}
	return walk32(linear&0xffff_ffff, c, read)
}

// walkTables goes through tables of 64-bit entries.
func walkTables(linear, table uint64, shift uint, read func(uint64) (uint64, bool)) (uint64, bool) {
	for ; ; shift -= 9 {
		e, ok := read(table + linear>>shift&511*8)
		if !ok || e&PTEPresent == 0 {
			return 0, false
		}
		if shift == 12 || e&PTELarge != 0 && shift <= 30 {
			offset := uint64(1)<<shift - 1
			return e&PTEAddress&^offset | linear&offset, true
		}
		table = e & PTEAddress
	}
}

// walk32 goes through tables of 32-bit entries.
func walk32(linear uint64, c *CPU, read func(uint64) (uint64, bool)) (uint64, bool) {
	entry := func(at uint64) (uint64, bool) {
		e, ok := read(at &^ 7)
		e = e >> (8 * (at & 4)) & 0xffff_ffff
		return e, ok && e&PTEPresent != 0
	}
	dir, ok := entry(c.CR3&0xffff_f000 + linear>>22*4)
	switch {
	case !ok:
		return 0, false
	case dir&PTELarge != 0 && c.CR4&CR4PSE != 0:
		return dir>>13&0x7f<<32 | dir&0xffc0_0000 | linear&0x3f_ffff, true // PSE-36
	}
	e, ok := entry(dir&0xffff_f000 + linear>>12&1023*4)
	return e&0xffff_f000 | linear&0xfff, ok
}
