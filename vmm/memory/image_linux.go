package memory

import (
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// image is a file, in memory or on a disk, that RAMs map privately: what they do
// not write to is in the host's page cache, once for all.
type image struct {
	file   *os.File
	offset int64
	shared []byte // read only
}

// newImage copies bytes to a file in memory, but for pages of zeros, which take
// no room there.
func newImage(from []byte) (image, error) {
	fd, err := unix.MemfdCreate("fifovm base", unix.MFD_CLOEXEC)
	if err != nil {
		return image{}, err
	}
	f := os.NewFile(uintptr(fd), "base image")
	err = f.Truncate(int64(len(from)))
	for at := 0; at < len(from) && err == nil; {
		for at < len(from) && zero(from[at:at+PageSize]) {
			at += PageSize
		}
		start := at
		for at < len(from) && !zero(from[at:at+PageSize]) {
			at += PageSize
		}
		if at > start {
			_, err = f.WriteAt(from[start:at], int64(start))
		}
	}
	if err != nil {
		return image{}, errors.Join(err, f.Close())
	}
	return openImage(f, 0, len(from))
}

func openImage(f *os.File, offset int64, size int) (image, error) {
	info, err := f.Stat()
	if err == nil && info.Size() < offset+int64(size) {
		err = io.ErrUnexpectedEOF // an access behind the end of a file is a SIGBUS
	}
	var shared []byte
	if err == nil {
		shared, err = unix.Mmap(int(f.Fd()), offset, size, unix.PROT_READ, unix.MAP_SHARED)
	}
	if err != nil {
		return image{}, errors.Join(err, f.Close())
	}
	return image{file: f, offset: offset, shared: shared}, nil
}

func (i *image) bytes() []byte { return i.shared }

func (i *image) mapped() ([]byte, error) {
	if i.file == nil {
		return nil, os.ErrClosed
	}
	p, err := unix.MmapPtr(int(i.file.Fd()), i.offset, nil, uintptr(len(i.shared)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(p), len(i.shared)), nil
}

// replace maps the image where RAM is already.
func (i *image) replace(m []byte) error {
	_, err := unix.MmapPtr(int(i.file.Fd()), i.offset, unsafe.Pointer(unsafe.SliceData(m)), uintptr(len(m)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_NORESERVE|unix.MAP_FIXED)
	return err
}

func (i *image) close() error {
	if i.file == nil {
		return nil
	}
	err := errors.Join(unix.Munmap(i.shared), i.file.Close())
	*i = image{}
	return err
}
