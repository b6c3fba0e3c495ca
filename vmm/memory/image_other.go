//go:build !linux

package memory

import (
	"errors"
	"io"
	"os"
	"slices"
)

// image is a copy in Go's heap, and so is each RAM that begins with it.
type image struct{ copied []byte }

func newImage(from []byte) (image, error) { return image{slices.Clone(from)}, nil }

func openImage(f *os.File, offset int64, size int) (image, error) {
	b := make([]byte, size)
	_, err := io.ReadFull(io.NewSectionReader(f, offset, int64(size)), b)
	if err = errors.Join(err, f.Close()); err != nil {
		return image{}, err
	}
	return image{b}, nil
}

func (i *image) bytes() []byte { return i.copied }

func (i *image) mapped() ([]byte, error) {
	if i.copied == nil {
		return nil, os.ErrClosed
	}
	return slices.Clone(i.copied), nil
}

// replace has nothing to do: the bytes are there.
func (i *image) replace([]byte) error { return nil }

func (i *image) close() error {
	*i = image{}
	return nil
}
