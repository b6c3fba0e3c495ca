package bus

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// recorder remembers the last access and answers reads with its id.
type recorder struct {
	id    byte
	off   uint64
	wrote []byte
}

func (r *recorder) Read(off uint64, data []byte) {
	r.off = off
	for i := range data {
		data[i] = r.id
	}
}

func (r *recorder) Write(off uint64, data []byte) {
	r.off, r.wrote = off, append(r.wrote[:0], data...)
}

func TestAccess(t *testing.T) {
	s := NewMMIO()
	a, b, top := &recorder{id: 0xa}, &recorder{id: 0xb}, &recorder{id: 0xc}
	for _, r := range []struct {
		base, size uint64
		h          Handler
	}{{0x1010, 0x10, b}, {0x1000, 0x10, a}, {^uint64(0) - 7, 8, top}} {
		if err := s.Map(r.base, r.size, "dev", r.h); err != nil {
			t.Fatal(err)
		}
	}
	const none = 0xff
	for _, c := range []struct {
		addr  uint64
		width int
		want  byte
		off   uint64
	}{
		{0x0fff, 1, none, 0},
		{0x0fff, 2, none, 0}, // begins before the range
		{0x1000, 1, 0xa, 0},
		{0x1008, 8, 0xa, 8},
		{0x100f, 1, 0xa, 15},
		{0x100f, 2, none, 0}, // in two ranges
		{0x1010, 4, 0xb, 0},
		{0x101f, 1, 0xb, 15},
		{0x101e, 4, none, 0}, // ends after the range
		{0x1020, 1, none, 0},
		{^uint64(0) - 7, 8, 0xc, 0},
		{^uint64(0), 1, 0xc, 7},
		{^uint64(0), 8, none, 0}, // wraps
		{0, 1, none, 0},
	} {
		got := make([]byte, c.width)
		s.Read(c.addr, got)
		if want := bytes.Repeat([]byte{c.want}, c.width); !bytes.Equal(got, want) {
			t.Errorf("read of %d at %#x: %x, want %x", c.width, c.addr, got, want)
		}
		a.wrote, b.wrote, top.wrote = nil, nil, nil
		s.Write(c.addr, []byte("abcdefgh")[:c.width])
		for _, r := range []*recorder{a, b, top} {
			if (r.wrote != nil) != (r.id == c.want) {
				t.Errorf("write of %d at %#x: device %#x got %q", c.width, c.addr, r.id, r.wrote)
			}
			if r.id == c.want && r.off != c.off {
				t.Errorf("write of %d at %#x: offset %#x, want %#x", c.width, c.addr, r.off, c.off)
			}
		}
	}
}

func TestMapRefuses(t *testing.T) {
	for _, c := range []struct {
		name       string
		space      *Space
		base, size uint64
		want       string
	}{
		{"empty", NewMMIO(), 0, 0, "empty or outside"},
		{"wraps", NewMMIO(), ^uint64(0), 2, "empty or outside"},
		{"above the ports", NewPorts(), 0xffff, 2, "empty or outside"},
		{"same", NewPorts(), 0x100, 0x10, "overlaps old at 0x100+0x10"},
		{"end of the old", NewPorts(), 0x10f, 1, "overlaps old"},
		{"start of the old", NewPorts(), 0x0f0, 0x11, "overlaps old"},
		{"around the old", NewPorts(), 0, 0x1000, "overlaps old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.space.Map(0x100, 0x10, "old", &recorder{}); err != nil {
				t.Fatal(err)
			}
			err := c.space.Map(c.base, c.size, "new", &recorder{})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "new") {
				t.Errorf("error %v, want one with %q that names both", err, c.want)
			}
			if n := len(c.space.Ranges()); n != 1 {
				t.Errorf("%d ranges are mapped", n)
			}
		})
	}
	if err := NewMMIO().Map(0, ^uint64(0), "all but one", &recorder{}); err != nil {
		t.Error(err)
	}
	if err := NewPorts().Map(0, 1<<16, "all", &recorder{}); err != nil {
		t.Error(err)
	}
}

// TestModel maps and unmaps at random and compares with a table of every
// address.
func TestModel(t *testing.T) {
	const size = 64
	rnd := rand.New(rand.NewPCG(1, 2))
	s := NewMMIO()
	var owner [size + 16]byte // 0: none
	for step := range 20000 {
		id := byte(1 + step%250)
		base, n := rnd.Uint64N(size), 1+rnd.Uint64N(8)
		if rnd.IntN(3) == 0 {
			start := base < size && owner[base] != 0 && (base == 0 || owner[base-1] != owner[base])
			if err := s.Unmap(base); (err == nil) != start {
				t.Fatalf("step %d: unmap %d: %v, starts there: %v", step, base, err, start)
			}
			if start {
				for i, id := base, owner[base]; owner[i] == id; i++ {
					owner[i] = 0
				}
			}
			continue
		}
		free := true
		for i := base; i < base+n; i++ {
			free = free && owner[i] == 0
		}
		// Neighbours of one id would look like one range.
		if owner[base+n] == id || (base > 0 && owner[base-1] == id) {
			continue
		}
		if err := s.Map(base, n, "dev", &recorder{id: id}); (err == nil) != free {
			t.Fatalf("step %d: map %d+%d: %v, free: %v", step, base, n, err, free)
		}
		if free {
			for i := base; i < base+n; i++ {
				owner[i] = id
			}
		}
		var b [1]byte
		for a := range uint64(size) {
			want := owner[a]
			if want == 0 {
				want = 0xff
			}
			if s.Read(a, b[:]); b[0] != want {
				t.Fatalf("step %d: %d reads %d, want %d", step, a, b[0], want)
			}
		}
	}
}

func BenchmarkAccess(b *testing.B) {
	s := NewPorts()
	for i := range uint64(16) {
		if err := s.Map(i*0x100, 8, "dev", &recorder{wrote: make([]byte, 8)}); err != nil {
			b.Fatal(err)
		}
	}
	data := make([]byte, 4)
	b.ReportAllocs()
	for i := range b.N {
		s.Write(uint64(i%16)*0x100, data)
		s.Read(uint64(i%16)*0x100, data)
	}
}

func TestAccessDoesNotAllocate(t *testing.T) {
	s := NewPorts()
	if err := s.Map(0x3f8, 8, "dev", &recorder{wrote: make([]byte, 8)}); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 1)
	if n := testing.AllocsPerRun(1000, func() { s.Write(0x3f8, data); s.Read(0x3fd, data); s.Read(0x80, data) }); n != 0 {
		t.Errorf("an access allocates %v times", n)
	}
}
