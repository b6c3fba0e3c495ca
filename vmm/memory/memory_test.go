package memory

import (
	"bytes"
	"errors"
	"testing"
)

func newRAM(t testing.TB, size uint64) *RAM {
	t.Helper()
	r, err := New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestNewRefuses(t *testing.T) {
	for _, size := range []uint64{0, 1, PageSize - 1, PageSize + 1, MaxSize + PageSize, 1 << 63, ^uint64(0)} {
		if r, err := New(size); err == nil {
			r.Close()
			t.Errorf("%#x bytes of RAM were granted", size)
		}
	}
}

func TestSlots(t *testing.T) {
	for _, c := range []struct {
		size uint64
		want []Slot // Bytes only for its length
	}{
		{PageSize, []Slot{{0, make([]byte, PageSize)}}},
		{HoleStart, []Slot{{0, nil}}},
		{HoleStart + PageSize, []Slot{{0, nil}, {HoleEnd, nil}}},
		{8 << 30, []Slot{{0, nil}, {HoleEnd, nil}}},
	} {
		r := newRAM(t, c.size)
		got := r.Slots()
		if len(got) != len(c.want) {
			t.Fatalf("%#x bytes: %d slots, want %d", c.size, len(got), len(c.want))
		}
		total := uint64(0)
		for i := range got {
			if got[i].Base != c.want[i].Base {
				t.Errorf("%#x bytes: slot %d at %#x, want %#x", c.size, i, got[i].Base, c.want[i].Base)
			}
			total += uint64(len(got[i].Bytes))
		}
		if total != c.size || r.Size() != c.size {
			t.Errorf("%#x bytes: slots have %#x, Size says %#x", c.size, total, r.Size())
		}
		if low := uint64(len(got[0].Bytes)); low != min(c.size, HoleStart) {
			t.Errorf("%#x bytes: %#x of them below the hole", c.size, low)
		}
	}
}

// TestBounds tries the edges of both slots, with lengths that overflow too.
func TestBounds(t *testing.T) {
	const high = 2 * PageSize
	r := newRAM(t, HoleStart+high)
	for _, c := range []struct {
		gpa, n uint64
		ok     bool
	}{
		{0, 0, true}, {0, 1, true}, {0, HoleStart, true}, {0, HoleStart + 1, false},
		{HoleStart - 1, 1, true}, {HoleStart - 1, 2, false},
		{HoleStart, 0, false}, {HoleStart, 1, false}, {HoleEnd - 1, 1, false}, {HoleEnd - 1, 2, false},
		{HoleEnd, high, true}, {HoleEnd, high + 1, false}, {HoleEnd + high - 8, 8, true}, {HoleEnd + high, 1, false},
		{0, ^uint64(0), false}, {8, ^uint64(0) - 7, false}, {^uint64(0), 1, false}, {HoleEnd, ^uint64(0) - HoleEnd + 1, false},
	} {
		b, err := r.Slice(c.gpa, c.n)
		if (err == nil) != c.ok {
			t.Errorf("slice %#x+%#x: %v", c.gpa, c.n, err)
		}
		if err != nil && !errors.Is(err, ErrBounds) {
			t.Errorf("slice %#x+%#x: error %v is not ErrBounds", c.gpa, c.n, err)
		}
		if uint64(len(b)) != c.n && c.ok {
			t.Errorf("slice %#x+%#x has %#x bytes", c.gpa, c.n, len(b))
		}
		if c.ok && cap(b) != len(b) {
			t.Errorf("slice %#x+%#x can grow over what follows", c.gpa, c.n)
		}
	}
}

func TestReadWrite(t *testing.T) {
	r := newRAM(t, HoleStart+PageSize)
	for _, gpa := range []uint64{0, 12345, HoleStart - 4, HoleEnd, HoleEnd + PageSize - 4} {
		got := make([]byte, 4)
		if err := r.Read(gpa, got); err != nil || !bytes.Equal(got, make([]byte, 4)) {
			t.Errorf("new RAM at %#x: %x, %v", gpa, got, err)
		}
		want := []byte{1, 2, 3, byte(gpa)}
		if err := r.Write(gpa, want); err != nil {
			t.Error(err)
		}
		if err := r.Read(gpa, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("at %#x: %x, %v, want %x", gpa, got, err, want)
		}
		if s, _ := r.Slice(gpa, 4); !bytes.Equal(s, want) {
			t.Errorf("slice at %#x is %x, want %x", gpa, s, want)
		}
	}
}

// TestAllOrNothing: an access that doesn't fit changes nothing.
func TestAllOrNothing(t *testing.T) {
	r := newRAM(t, PageSize)
	if err := r.Write(PageSize-2, []byte("abcd")); !errors.Is(err, ErrBounds) {
		t.Errorf("write over the end: %v", err)
	}
	if b, _ := r.Slice(PageSize-2, 2); !bytes.Equal(b, []byte{0, 0}) {
		t.Errorf("a refused write left %q", b)
	}
	p := []byte("abcd")
	if err := r.Read(PageSize-2, p); !errors.Is(err, ErrBounds) || string(p) != "abcd" {
		t.Errorf("a refused read: %v, left %q", err, p)
	}
}

func TestClose(t *testing.T) {
	r, err := New(PageSize)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := r.Read(0, make([]byte, 1)); !errors.Is(err, ErrBounds) {
		t.Errorf("read of closed RAM: %v", err)
	}
	if r.Size() != 0 || len(r.Slots()) != 0 {
		t.Error("closed RAM has a size")
	}
}

func TestAccessDoesNotAllocate(t *testing.T) {
	r := newRAM(t, HoleStart+PageSize)
	p := make([]byte, 64)
	if n := testing.AllocsPerRun(1000, func() { r.Write(HoleEnd, p); r.Read(0x1000, p) }); n != 0 {
		t.Errorf("an access allocates %v times", n)
	}
}

func BenchmarkAccess(b *testing.B) {
	r := newRAM(b, HoleStart+PageSize)
	p := make([]byte, 64)
	b.ReportAllocs()
	for range b.N {
		r.Write(HoleEnd, p)
		r.Read(0x1000, p)
	}
}
