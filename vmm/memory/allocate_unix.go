//go:build unix

package memory

import "golang.org/x/sys/unix"

// allocate maps anonymous memory: zeroed, page aligned, outside the collector's
// heap, committed page by page.
func allocate(n int) ([]byte, error) {
	m, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func release(m []byte) error { return unix.Munmap(m) }
