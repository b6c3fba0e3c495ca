package pci

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"fifovm/vmm/bus"
)

const (
	ports = 0xcf8
	ecam  = 0xe0000000
)

// machine is a root with its functions, as a guest reaches it.
type machine struct {
	root       Root
	bridge     *Config
	card       *Config // at 00:03.1
	io, memory *bus.Space
}

func newMachine(t testing.TB) *machine {
	m := &machine{bridge: NewHostBridge(), card: new(Config), io: bus.NewPorts(), memory: bus.NewMMIO()}
	for i := range ConfigSize / 4 {
		m.card.Set(4*i, 4, uint64(0xa0000000|i*4))
	}
	m.card.Allow(0x40, 4, 0x0000ffff, 0x00ff0000)
	m.card.Allow(0x100, 8, ^uint64(0), 0)
	for _, err := range []error{
		m.root.Add(Address{0, 0}, m.bridge),
		m.root.Add(Address{3, 1}, m.card),
		m.io.Map(ports, 8, "pci", m.root.Ports()),
		m.memory.Map(ecam, 256<<20, "pci", m.root.ECAM()),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m *machine) outl(port uint64, v uint32) {
	m.io.Write(port, binary.LittleEndian.AppendUint32(nil, v))
}

func (m *machine) inl(port uint64) uint32 {
	var b [4]byte
	m.io.Read(port, b[:])
	return binary.LittleEndian.Uint32(b[:])
}

func read(s *bus.Space, addr uint64, n int) []byte {
	b := bytes.Repeat([]byte{0x77}, n)
	s.Read(addr, b)
	return b
}

// TestLinuxChecksType1 follows pci_check_type1() and pci_sanity_check() of Linux
// 6.12's arch/x86/pci/direct.c.
func TestLinuxChecksType1(t *testing.T) {
	m := newMachine(t)
	m.io.Write(0xcfb, []byte{1})
	saved := m.inl(0xcf8)
	m.outl(0xcf8, 0x80000000)
	if v := m.inl(0xcf8); v != 0x80000000 {
		t.Errorf("CONFIG_ADDRESS reads %#x", v)
	}
	m.outl(0xcf8, 0x80000008)
	if class := read(m.io, 0xcfe, 2); !bytes.Equal(class, []byte{0x00, 0x06}) {
		t.Errorf("class is %x", class)
	}
	m.outl(0xcf8, saved)
	if v := m.inl(0xcf8); v != 0 {
		t.Errorf("CONFIG_ADDRESS was %#x before, now %#x", saved, v)
	}
}

func TestAddressRegister(t *testing.T) {
	m := newMachine(t)
	m.outl(0xcf8, 0xffffffff)
	if v := m.inl(0xcf8); v != 0x80fffffc {
		t.Errorf("all ones written, %#x read", v)
	}
	// Anything but 4 bytes at 0xcf8 passes the register by.
	m.outl(0xcf8, 0x80001940)
	for _, c := range []struct {
		port uint64
		n    int
	}{{0xcf8, 1}, {0xcf8, 2}, {0xcf9, 1}, {0xcfa, 2}, {0xcfb, 1}, {0xcfa, 4}, {0xcfb, 2}} {
		m.io.Write(c.port, make([]byte, c.n))
		if b := read(m.io, c.port, c.n); !bytes.Equal(b, bytes.Repeat([]byte{0xff}, c.n)) {
			t.Errorf("%d bytes at %#x read %x", c.n, c.port, b)
		}
	}
	if v := m.inl(0xcf8); v != 0x80001940 {
		t.Errorf("CONFIG_ADDRESS is %#x after narrow writes", v)
	}
}

// TestWidths: both ways in, every width and offset, see the same bytes.
func TestWidths(t *testing.T) {
	m := newMachine(t)
	bdf := uint64(3<<3 | 1)
	want := m.card.State()
	for off := uint64(0); off < 256; off++ {
		for n := 1; n <= 4; n++ {
			if off%4+uint64(n) > 4 {
				continue // the ports end
			}
			m.outl(0xcf8, uint32(0x80000000|bdf<<8|off&^3))
			if b := read(m.io, 0xcfc+off%4, n); !bytes.Equal(b, want[off:off+uint64(n)]) {
				t.Errorf("ports, %d bytes at %#x: %x, want %x", n, off, b, want[off:off+uint64(n)])
			}
		}
	}
	for off := uint64(0); off < ConfigSize; off++ {
		for _, n := range []int{1, 2, 4, 8} {
			w := slices.Concat(want, bytes.Repeat([]byte{0xff}, 8))[off : off+uint64(n)] // then 00:03.2, which is absent
			if b := read(m.memory, ecam|bdf<<12|off, n); !bytes.Equal(b, w) {
				t.Errorf("ECAM, %d bytes at %#x: %x, want %x", n, off, b, w)
			}
		}
	}
}

func TestAbsent(t *testing.T) {
	m := newMachine(t)
	before := []any{m.bridge.State(), m.card.State()}
	ones := func(what string, b []byte) {
		t.Helper()
		if !bytes.Equal(b, bytes.Repeat([]byte{0xff}, len(b))) {
			t.Errorf("%s reads %x", what, b)
		}
	}
	for bus := range uint64(256) {
		for devfn := range uint64(256) {
			if bus == 0 && (devfn == 0 || devfn == 3<<3|1) {
				continue
			}
			a := ecam | bus<<20 | devfn<<12
			m.memory.Write(a|0x100, make([]byte, 4))
			ones("an absent function by ECAM", read(m.memory, a, 4))
			m.outl(0xcf8, uint32(0x80000000|bus<<16|devfn<<8))
			m.outl(0xcfc, 0)
			ones("an absent function by ports", read(m.io, 0xcfc, 4))
		}
	}
	m.outl(0xcf8, 3<<11|1<<8|0x40) // not enabled
	m.outl(0xcfc, 0)
	ones("without the enable bit", read(m.io, 0xcfc, 4))
	for i, c := range []*Config{m.bridge, m.card} {
		if !bytes.Equal(c.State(), before[i].([]byte)) {
			t.Errorf("writes to others have changed function %d", i)
		}
	}
}

func TestHostBridgeIsReadOnly(t *testing.T) {
	m := newMachine(t)
	want := make([]byte, ConfigSize)
	copy(want, []byte{0x36, 0x1b, 0x08, 0x00, 0x06, 0x00, 0, 0, 0, 0, 0, 6})
	for _, v := range []byte{0x00, 0xff, 0x5a} {
		for off := uint64(0); off < ConfigSize; off += 4 {
			m.memory.Write(ecam|off, []byte{v, v, v, v})
		}
		if got := m.bridge.State(); !bytes.Equal(got, want) {
			t.Fatalf("after writes of %#x the bridge is %x", v, got)
		}
	}
}

func TestWrites(t *testing.T) {
	m := newMachine(t)
	const at = ecam | (3<<3|1)<<12 | 0x40 // 0xa0000040, 16 bits to write, 8 to clear
	m.card.Set(0x40, 4, 0xa0f0_0040)
	for _, c := range []struct {
		off   uint64
		value []byte
		want  uint32
	}{
		{0, []byte{0x34, 0x12, 0, 0}, 0xa0f0_1234},
		{1, []byte{0xff}, 0xa0f0_ff34},
		{0, []byte{0, 0, 0x30, 0x5f}, 0xa0c0_0000},
		{2, []byte{0x0f}, 0xa0c0_0000},
		{2, []byte{0x80, 0xff}, 0xa040_0000},
		{1, []byte{0x11, 0x40}, 0xa000_1100}, // not aligned
	} {
		m.memory.Write(at+c.off, c.value)
		if v := uint32(m.card.Get(0x40, 4)); v != c.want {
			t.Errorf("%x written at %d: %#x, want %#x", c.value, c.off, v, c.want)
		}
	}
	m.memory.Write(at+0xc0, []byte("abcdefgh"))
	if b := read(m.memory, at+0xc0, 8); string(b) != "abcdefgh" {
		t.Errorf("8 bytes come back as %q", b)
	}
}

// widths remembers how it was asked.
type widths struct{ got []string }

func (w *widths) ReadConfig(off, width int) uint32 {
	w.got = append(w.got, fmt.Sprintf("%#x/%d", off, width))
	return ^uint32(0)
}

func (w *widths) WriteConfig(off, width int, v uint32) {
	w.got = append(w.got, fmt.Sprintf("%#x/%d=%#x", off, width, v))
}

// TestFunctionSeesAligned is the promise of Function.
func TestFunctionSeesAligned(t *testing.T) {
	var r Root
	w := &widths{}
	if err := r.Add(Address{0, 0}, w); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off  uint64
		n    int
		want []string
	}{
		{0, 8, []string{"0x0/4", "0x4/4"}},
		{4, 4, []string{"0x4/4"}},
		{2, 4, []string{"0x2/2", "0x4/2"}},
		{1, 2, []string{"0x1/1", "0x2/1"}},
		{3, 4, []string{"0x3/1", "0x4/2", "0x6/1"}},
		{1, 8, []string{"0x1/1", "0x2/2", "0x4/4", "0x8/1"}},
		{0xffe, 8, []string{"0xffe/2"}},
	} {
		w.got = nil
		if r.ECAM().Read(c.off, make([]byte, c.n)); !slices.Equal(w.got, c.want) {
			t.Errorf("%d bytes at %#x: %q, want %q", c.n, c.off, w.got, c.want)
		}
	}
	w.got = nil
	r.ECAM().Write(6, []byte{1, 2, 3, 4})
	if want := []string{"0x6/2=0x201", "0x8/2=0x403"}; !slices.Equal(w.got, want) {
		t.Errorf("write: %q, want %q", w.got, want)
	}
}

func TestAddRefuses(t *testing.T) {
	var r Root
	for _, c := range []struct {
		a  Address
		ok bool
	}{{Address{0, 0}, true}, {Address{31, 7}, true}, {Address{0, 0}, false}, {Address{32, 0}, false}, {Address{0, 8}, false}} {
		if err := r.Add(c.a, new(Config)); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.a, err)
		}
	}
}

func TestState(t *testing.T) {
	a, b := newMachine(t), newMachine(t)
	a.outl(0xcf8, 0x80001940)
	a.outl(0xcfc, 0xbeef)
	if err := b.root.SetState(a.root.State()); err != nil {
		t.Error(err)
	}
	if err := b.card.SetState(a.card.State()); err != nil {
		t.Error(err)
	}
	if v, w := a.inl(0xcfc), b.inl(0xcfc); v != w || v&0xffff != 0xbeef {
		t.Errorf("%#x came back as %#x", v, w)
	}
	if err := b.root.SetState(State{Address: 1}); err == nil {
		t.Error("an impossible CONFIG_ADDRESS is taken")
	}
	if err := b.card.SetState(nil); err == nil {
		t.Error("a configuration space of no bytes is taken")
	}
	if err := b.card.SetState(a.bridge.State()); err == nil {
		t.Error("the state of another function is taken")
	}
	if b.root.Reset(); b.root.State() != (State{}) {
		t.Errorf("after reset: %+v", b.root.State())
	}
}

func FuzzAccess(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0xf8, 4, 0x80, 0, 0x19, 0x40, 0, 0xfc, 4, 1, 2, 3, 4})
	f.Add([]byte{3, 1, 0x90, 0x40, 3, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, program []byte) {
		m, twin := newMachine(t), newMachine(t)
		for i := 0; i+8 <= len(program); i += 8 {
			p := program[i : i+8]
			n := []int{1, 2, 4, 8}[p[1]%4]
			s, addr := m.io, uint64(ports)+uint64(p[2]%8)
			if p[0]&2 != 0 {
				s, addr = m.memory, ecam+uint64(binary.LittleEndian.Uint32(p[2:])%(256<<20))
				if p[0]&4 != 0 {
					addr &= ecam | 0x1ffff
				}
			}
			data := slices.Repeat(p[4:], 2)[:n]
			if p[0]&1 != 0 {
				s.Write(addr, data)
			} else {
				s.Read(addr, data)
			}
		}
		for _, err := range []error{
			twin.root.SetState(m.root.State()), twin.bridge.SetState(m.bridge.State()), twin.card.SetState(m.card.State()),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(m.bridge.State(), NewHostBridge().State()) {
			t.Fatal("the host bridge has changed")
		}
	})
}

func TestAccessDoesNotAllocate(t *testing.T) {
	m := newMachine(t)
	b, data := []byte{0x40, 0x19, 0, 0x80}, make([]byte, 4)
	if n := testing.AllocsPerRun(1000, func() {
		m.io.Write(0xcf8, b)
		m.io.Read(0xcfc, data)
		m.io.Write(0xcfc, data)
		m.memory.Read(ecam+4, data)
	}); n != 0 {
		t.Errorf("accesses allocate %v times", n)
	}
}
