package x86

import "encoding/binary"

// IdentityMap gives the bytes of page tables, to be put at guest-physical
// address at (page aligned), that map the first gib GiB (1 to 512) onto
// themselves in pages of 2 MiB (SDM volume 3, 4.5.4). CR3 is at. The pages are
// writable and executable, and the user's too if user is set.
func IdentityMap(at uint64, gib int, user bool) []byte {
	const page, entries, large = 4096, 512, 2 << 20
	flags := uint64(PTEPresent | PTEWrite | PTEAccessed)
	if user {
		flags |= PTEUser
	}
	var b []byte
	table := func(n int, entry func(i int) uint64) { // n entries, then zeros
		for i := range n {
			b = binary.LittleEndian.AppendUint64(b, entry(i))
		}
		b = append(b, make([]byte, (entries-n)*8)...)
	}
	table(1, func(int) uint64 { return (at + page) | flags })
	table(gib, func(i int) uint64 { return (at + uint64(2+i)*page) | flags })
	for g := range gib {
		table(entries, func(i int) uint64 { return uint64(g*entries+i)*large | flags | PTEDirty | PTELarge })
	}
	return b
}
