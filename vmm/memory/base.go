package memory

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
)

// Base is a RAM image that any number of RAMs begin with. They share its bytes
// until they write to them, where the host can do that.
type Base struct {
	size    uint64
	image   image
	once    sync.Once
	derived any
}

// NewBase makes a base of what RAM is now.
func NewBase(r *RAM) (*Base, error) {
	i, err := newImage(r.mapping)
	if err != nil {
		return nil, fmt.Errorf("memory: base image of %d MiB: %w", r.Size()>>20, err)
	}
	return &Base{size: r.Size(), image: i}, nil
}

// OpenBase makes a base of the size bytes of a file from offset on, a multiple of
// PageSize. It takes the file over. The file must stay as it is as long as the
// base is open.
func OpenBase(f *os.File, offset int64, size uint64) (*Base, error) {
	if offset < 0 || offset%PageSize != 0 {
		return nil, errors.Join(fmt.Errorf("memory: image at %d: want a multiple of %d", offset, PageSize), f.Close())
	}
	if err := checkSize(size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	i, err := openImage(f, offset, int(size))
	if err != nil {
		return nil, fmt.Errorf("memory: image of %d MiB: %w", size>>20, err)
	}
	return &Base{size: size, image: i}, nil
}

// Size is that of the RAM, in bytes.
func (b *Base) Size() uint64 { return b.size }

// Derived gives what was made of the image's bytes, of code that was decoded say, to
// be shared by those who share the bytes. Who asks first makes it.
func (b *Base) Derived(make func() any) any {
	b.once.Do(func() { b.derived = make() })
	return b.derived
}

// Close gives the image back. RAMs that began with it can be used and closed
// after it, but not Reset.
func (b *Base) Close() error { return b.image.close() }

// NewRAM gives RAM that begins as the base and can be Reset to it.
func (b *Base) NewRAM() (*RAM, error) {
	m, err := b.image.mapped()
	if err != nil {
		return nil, fmt.Errorf("memory: cannot map %d MiB: %w", b.size>>20, err)
	}
	r := layOut(m)
	r.track(b)
	return r, nil
}

// SetBase makes b, which has the same bytes as the RAM, the one that it is Reset
// to. The bytes stay where they are; the host no longer keeps them twice.
func (r *RAM) SetBase(b *Base) error {
	if r.Size() != b.size {
		return fmt.Errorf("memory: a base of %d bytes does not fit RAM of %d", b.size, r.Size())
	}
	if err := b.image.replace(r.mapping); err != nil {
		return fmt.Errorf("memory: map the base: %w", err)
	}
	r.track(b)
	return nil
}

// dirty is which pages may differ from the base: a bit for each, and those that
// have it in the order in which they got it, so that a reset looks at no others.
type dirty struct {
	bits  []uint64
	pages []uint32
}

func (r *RAM) track(b *Base) {
	r.base = b
	r.dirty = dirty{bits: make([]uint64, (r.Size()/PageSize+63)/64)}
}

// Base is what the RAM is Reset to; nil: there is none.
func (r *RAM) Base() *Base { return r.base }

// MarkDirty notes that the page at a guest-physical address is written to, or may
// be from now on until the next Reset. Who writes to RAM by other ways than Write
// has to call it. Without a base it does nothing.
func (r *RAM) MarkDirty(gpa uint64) {
	if r.base != nil {
		r.mark(r.page(gpa))
	}
}

// Marked is whether the page at a guest-physical address, which is one of RAM's, may
// differ from the base. Without a base it is.
func (r *RAM) Marked(gpa uint64) bool {
	if r.base == nil {
		return true
	}
	page := r.page(gpa)
	return r.dirty.bits[page/64]&(1<<(page%64)) != 0
}

// page is the number of a page, as if RAM had no hole.
func (r *RAM) page(gpa uint64) uint32 {
	if gpa >= HoleEnd {
		gpa -= HoleEnd - uint64(len(r.slots[0].Bytes))
	}
	return uint32(gpa / PageSize)
}

func (r *RAM) mark(page uint32) {
	if w := &r.dirty.bits[page/64]; *w&(1<<(page%64)) == 0 {
		*w |= 1 << (page % 64)
		r.dirty.pages = append(r.dirty.pages, page)
	}
}

// MarkLog marks the pages that a slot's bitmap has, bit 0 of the first word for
// the slot's first page.
func (r *RAM) MarkLog(slot int, log []uint64) {
	first := uint32(0)
	if slot > 0 {
		first = uint32(len(r.slots[0].Bytes) / PageSize)
	}
	for i, w := range log {
		for ; w != 0; w &= w - 1 {
			r.mark(first + uint32(i*64+bits.TrailingZeros64(w)))
		}
	}
}

// Dirty is how many pages have been marked since the base was set or since the
// last Reset.
func (r *RAM) Dirty() int { return len(r.dirty.pages) }

// Reset makes the RAM the base's again: it copies the pages back that were marked,
// and none else.
func (r *RAM) Reset() error {
	if r.base == nil {
		return errors.New("memory: RAM without a base can't be reset")
	}
	from := r.base.image.bytes()
	if from == nil {
		return errors.New("memory: the base is closed")
	}
	for _, page := range r.dirty.pages {
		off := uint64(page) * PageSize
		copy(r.mapping[off:off+PageSize], from[off:])
		r.dirty.bits[page/64] &^= 1 << (page % 64)
	}
	r.dirty.pages = r.dirty.pages[:0]
	return nil
}
