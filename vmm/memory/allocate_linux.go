package memory

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size of x86's large pages. A host page of that size saves the
// guest 511 of 512 faults, and the processor the lowest level of two walks.
const hugePage = 2 << 20

// allocate maps anonymous memory: zeroed, outside the collector's heap,
// committed as it is touched. It begins at a multiple of hugePage, as
// guest-physical memory does: only then can a host page back a guest's.
func allocate(n int) ([]byte, error) {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(n+hugePage), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	before := -uintptr(p) % hugePage
	start := unsafe.Add(p, before)
	for _, extra := range []struct {
		p unsafe.Pointer
		n uintptr
	}{{p, before}, {unsafe.Add(start, n), hugePage - before}} {
		if extra.n > 0 {
			if err := unix.MunmapPtr(extra.p, extra.n); err != nil {
				return nil, err
			}
		}
	}
	m := unsafe.Slice((*byte)(start), n)
	// Where the host has no huge pages, small ones do.
	_ = unix.Madvise(m, unix.MADV_HUGEPAGE)
	return m, nil
}

func release(m []byte) error {
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(m)), uintptr(len(m)))
}
