package memory

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestBase: RAMs that begin as one base see nothing of each other, and a Reset
// undoes what was written, and marked, on both sides of the hole.
func TestBase(t *testing.T) {
	r := newRAM(t, HoleStart+4*PageSize)
	places := []uint64{0, PageSize - 1, 77 * PageSize, HoleStart - 2, HoleEnd, HoleEnd + 3*PageSize + 5}
	for i, at := range places {
		if err := r.Write(at, []byte{byte(i + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := NewBase(r)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := r.SetBase(b); err != nil {
		t.Fatal(err)
	}
	other, err := b.NewRAM()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	at := func(r *RAM, gpa uint64) byte {
		t.Helper()
		var p [1]byte
		if err := r.Read(gpa, p[:]); err != nil {
			t.Fatal(err)
		}
		return p[0]
	}
	for _, ram := range []*RAM{r, other} {
		for i, p := range places {
			if v := at(ram, p); v != byte(i+1) {
				t.Errorf("at %#x is %d, want %d", p, v, i+1)
			}
		}
	}
	for range 3 {
		if err := r.Write(places[0], bytes.Repeat([]byte{0xee}, 3*PageSize)); err != nil { // 3 pages
			t.Fatal(err)
		}
		for _, p := range places[2:] {
			s, err := r.Slice(p, 1)
			if err != nil {
				t.Fatal(err)
			}
			r.MarkDirty(p)
			s[0] = 0xee
		}
		r.MarkLog(0, []uint64{1 << 1, 0, 1 << 63}) // pages 1 (again) and 191
		r.MarkLog(1, []uint64{1 << 2})
		if n, want := r.Dirty(), 3+4+2; n != want {
			t.Errorf("%d pages are dirty, want %d", n, want)
		}
		for i, p := range places {
			if v := at(other, p); v != byte(i+1) {
				t.Errorf("what was written to one is in the other, at %#x", p)
			}
		}
		for _, p := range places {
			if !r.Marked(p) || other.Marked(p) {
				t.Errorf("whether the page at %#x is marked is not told", p)
			}
		}
		if err := r.Reset(); err != nil {
			t.Fatal(err)
		}
		for i, p := range places {
			if v := at(r, p); v != byte(i+1) {
				t.Errorf("after Reset at %#x is %d, want %d", p, v, i+1)
			}
			if r.Marked(p) {
				t.Errorf("after Reset the page at %#x is marked", p)
			}
		}
		if r.Dirty() != 0 || at(r, 2*PageSize) != 0 {
			t.Error("something is left after Reset")
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if at(other, places[2]) != 3 {
		t.Error("the bytes went with the base")
	}
	if err := r.Reset(); err == nil {
		t.Error("a RAM is reset to a base that is closed")
	}
	if _, err := b.NewRAM(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("RAM of a closed base: %v", err)
	}
}

func TestBaseRefuses(t *testing.T) {
	r := newRAM(t, 2*PageSize)
	if err := r.Reset(); err == nil {
		t.Error("RAM without a base is reset")
	}
	r.MarkDirty(0) // without a base nobody minds
	b, err := NewBase(newRAM(t, PageSize))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := r.SetBase(b); err == nil {
		t.Error("RAM takes a base of another size")
	}
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, make([]byte, 3*PageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		offset int64
		size   uint64
		want   error
	}{{0, 4 * PageSize, io.ErrUnexpectedEOF}, {1, PageSize, nil}, {-PageSize, PageSize, nil}, {0, 0, nil}, {0, 7, nil}} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := OpenBase(f, c.offset, c.size)
		if err == nil {
			b.Close()
			t.Errorf("%d bytes at %d of a file of %d are taken", c.size, c.offset, 3*PageSize)
		}
		if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%d bytes at %d: %v, want %v", c.size, c.offset, err, c.want)
		}
		if f.Close() == nil {
			t.Error("a refused file stays open")
		}
	}
}
