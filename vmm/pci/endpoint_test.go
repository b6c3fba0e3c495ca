package pci

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fifovm/vmm/bus"
)

// card is an Endpoint on a machine's buses, and the device behind it, which
// writes down what comes.
type card struct {
	t         testing.TB
	root      Root
	io, mmio  *bus.Space
	decoder   *Decoder
	e         *Endpoint
	id        Identity
	got       []string
	messages  int
	line      bool
	lineMoves int
}

func (c *card) ReadBAR(bar int, off uint64, data []byte) {
	c.note("read %d+%#x/%d", bar, off, len(data))
	for i := range data {
		data[i] = byte(bar<<4 | i)
	}
}

func (c *card) WriteBAR(bar int, off uint64, data []byte) { c.note("write %d+%#x=%x", bar, off, data) }
func (c *card) ResetDevice()                              { c.note("reset") }

func (c *card) SendMessage(address uint64, data uint32) {
	c.messages++
	c.note("%#x=%#x", address, data)
}

func (c *card) DriveLine(level bool) {
	if level == c.line {
		c.t.Errorf("the line is driven %v again", level)
	}
	c.line = level
	c.lineMoves++
}

// note writes down; not for ever, as a fuzz test needs it bounded.
func (c *card) note(format string, args ...any) {
	if len(c.got) < 1000 {
		c.got = append(c.got, fmt.Sprintf(format, args...))
	}
}

func (c *card) expect(want ...string) {
	c.t.Helper()
	if !slices.Equal(c.got, want) {
		c.t.Errorf("the device has seen %q, want %q", c.got, want)
	}
	c.got = nil
}

const cardAt = ecam | 4<<15 // 00:04.0

func fullCard() Identity {
	return Identity{Name: "card", Vendor: 0x1234, Device: 0x5678, SubVendor: 0x1111, SubDevice: 0x2222, Class: 0x078000, Revision: 7,
		BARs: []BAR{{Index: 0, Size: 1 << 16, Wide: true, Prefetchable: true}, {Index: 2, Size: 4096}, {Index: 3, Size: 32, Port: true}},
		MSIX: 70, MSIXBAR: 4, MSI: 8, INTx: true}
}

func newCard(t testing.TB, id Identity) *card {
	c := &card{t: t, io: bus.NewPorts(), mmio: bus.NewMMIO(), id: id}
	c.decoder = NewDecoder(c.io, c.mmio)
	for _, err := range []error{
		c.io.Map(ports, 8, "pci", c.root.Ports()),
		c.mmio.Map(ecam, 1<<20, "pci", c.root.ECAM()),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c.e = c.add(4, id)
	return c
}

func (c *card) add(slot uint8, id Identity) *Endpoint {
	e, err := NewEndpoint(id, c.decoder, c)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.root.Add(Address{Device: slot}, e); err != nil {
		c.t.Fatal(err)
	}
	return e
}

func (c *card) get(off uint64, n int) uint64 { return c.load(cardAt|off, n) }

func (c *card) load(addr uint64, n int) uint64 {
	var b [8]byte
	c.mmio.Read(addr, b[:n])
	return binary.LittleEndian.Uint64(b[:])
}

func (c *card) set(off uint64, n int, v uint64) { c.store(cardAt|off, n, v) }

func (c *card) store(addr uint64, n int, v uint64) {
	c.mmio.Write(addr, binary.LittleEndian.AppendUint64(nil, v)[:n])
}

// find gives where a capability is, by the list.
func (c *card) find(id uint64) uint64 {
	c.t.Helper()
	for at, n := c.get(0x34, 1), 0; at != 0 && n < 48; at, n = c.get(at+1, 1), n+1 {
		if c.get(at, 1) == id {
			return at
		}
	}
	c.t.Fatalf("no capability %#x", id)
	return 0
}

// enable sets addresses and all enable bits: BARs at 1 TiB, 0xc0000000, port
// 0xc000 and 0xc0010000.
func (c *card) enable() {
	c.set(0x10, 8, 1<<40)
	c.set(0x18, 4, 0xc000_0000)
	c.set(0x1c, 4, 0xc000)
	c.set(0x20, 4, 0xc001_0000)
	c.set(0x04, 2, 7)
}

func TestIdentity(t *testing.T) {
	c := newCard(t, fullCard())
	for _, r := range []struct {
		name string
		off  uint64
		n    int
		want uint64
	}{
		{"vendor", 0, 2, 0x1234}, {"device", 2, 2, 0x5678}, {"command", 4, 2, 0}, {"status", 6, 2, 0x10},
		{"revision", 8, 1, 7}, {"class", 9, 3, 0x078000}, {"header type", 0xe, 1, 0},
		{"subsystem vendor", 0x2c, 2, 0x1111}, {"subsystem", 0x2e, 2, 0x2222},
		{"BAR 0", 0x10, 8, 0xc}, {"BAR 2", 0x18, 4, 0}, {"BAR 3", 0x1c, 4, 1}, {"BAR 4", 0x20, 4, 0}, {"BAR 5", 0x24, 4, 0},
		{"ROM", 0x30, 4, 0}, {"pin", 0x3d, 1, 1}, {"line", 0x3c, 1, 0},
		{"extended capabilities", 0x100, 4, 0},
	} {
		n := r.n
		if n == 3 {
			n = 4
		}
		if got := c.get(r.off, n) & (1<<(8*r.n) - 1); got != r.want {
			t.Errorf("%s reads %#x, want %#x", r.name, got, r.want)
		}
	}
	var ids []uint64
	for at := c.get(0x34, 1); at != 0; at = c.get(at+1, 1) {
		if ids = append(ids, c.get(at, 1)); at%4 != 0 || at < 0x40 {
			t.Errorf("a capability at %#x", at)
		}
	}
	if want := []uint64{1, 5, 0x11, 0x10}; !slices.Equal(ids, want) {
		t.Errorf("capabilities %x, want %x", ids, want)
	}
	express := c.find(0x10)
	if v := c.get(express+2, 2); v != 0x92 {
		t.Errorf("PCI Express capability is %#x: want version 2 of an integrated endpoint", v)
	}
	if v := c.get(express+4, 4); v&(1<<28) == 0 {
		t.Errorf("device capabilities %#x: no function-level reset", v)
	}
	if v := c.get(express+8, 2); v != 0x2810 {
		t.Errorf("device control is %#x", v)
	}
	for off := express + 0xc; off < express+0x3c; off += 4 {
		if v := c.get(off, 4); v != 0 {
			t.Errorf("a link, slot or root register: %#x at %#x", v, off)
		}
	}

	plain := newCard(t, Identity{Vendor: 1, Device: 2, BARs: []BAR{{Index: 5, Size: 16}}})
	ids = nil
	for at := plain.get(0x34, 1); at != 0; at = plain.get(at+1, 1) {
		ids = append(ids, plain.get(at, 1))
	}
	if want := []uint64{1, 0x10}; !slices.Equal(ids, want) || plain.get(0x3d, 1) != 0 {
		t.Errorf("a plain function has capabilities %x and pin %d", ids, plain.get(0x3d, 1))
	}
}

func TestNewEndpointRefuses(t *testing.T) {
	for want, change := range map[string]func(*Identity){
		"vendor ID 0xffff": func(i *Identity) { i.Vendor = 0xffff },
		"24 bits":          func(i *Identity) { i.Class = 1 << 24 },
		"MSI-X vectors":    func(i *Identity) { i.MSIX = 2049 },
		"-1 MSI-X":         func(i *Identity) { i.MSIX = -1 },
		"3 MSI vectors":    func(i *Identity) { i.MSI = 3 },
		"64 MSI vectors":   func(i *Identity) { i.MSI = 64 },
		"registers 0 to 5": func(i *Identity) { i.BARs[1].Index = 6 },
		"BAR 5":            func(i *Identity) { i.BARs[1] = BAR{Index: 5, Size: 4096, Wide: true} },
		"BAR -1":           func(i *Identity) { i.BARs[1].Index = -1 },
		"its register 1":   func(i *Identity) { i.BARs[1].Index = 1 },
		"its register 3":   func(i *Identity) { i.MSIXBAR = 3 },
		"0x300 bytes":      func(i *Identity) { i.BARs[0].Size = 0x300 },
		"0x8 bytes":        func(i *Identity) { i.BARs[1].Size = 8 },
		"0x100000000":      func(i *Identity) { i.BARs[1].Size = 1 << 32 },
		"0x200 bytes":      func(i *Identity) { i.BARs[2].Size = 512 },
		"0x0 bytes":        func(i *Identity) { i.BARs[0].Size = 0 },
		"prefetching":      func(i *Identity) { i.BARs[2].Prefetchable = true },
	} {
		id := fullCard()
		change(&id)
		d := NewDecoder(bus.NewPorts(), bus.NewMMIO())
		if _, err := NewEndpoint(id, d, nil); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "card") {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// writable is an independent account of fullCard's configuration space: for
// each word the bits that a guest can change, and those that are set in any
// case. Words that are not here are zero and read-only.
var writable = map[uint64]struct{ mask, fixed uint32 }{
	0x00: {0, 0x5678_1234},
	0x04: {0x0000_0547, 0x0010_0000},
	0x08: {0, 0x0780_0007},
	0x0c: {0x0000_00ff, 0},
	0x10: {0xffff_0000, 0xc}, 0x14: {0xffff_ffff, 0},
	0x18: {0xffff_f000, 0},
	0x1c: {0xffff_ffe0, 1},
	0x20: {0xffff_e000, 0},
	0x2c: {0, 0x2222_1111},
	0x34: {0, 0x40},
	0x3c: {0xff, 0x100},
	0x40: {0, 0x0003_5001}, // power management; its control is apart
	0x50: {0x0071_0000, 0x0186_7005},
	0x54: {0xffff_fffc, 0}, 0x58: {0xffff_ffff, 0}, 0x5c: {0x0000_ffff, 0}, 0x60: {0xff, 0},
	0x70: {0xc000_0000, 69<<16 | 0x8011}, 0x74: {0, 4}, 0x78: {0, 0x1004},
	0x80: {0, 0x0092_0010}, 0x84: {0, 0x1000_8000},
	0x88: {0x0000_781f, 0},
}

// TestConfigSpace writes at random and compares with the account.
func TestConfigSpace(t *testing.T) {
	c := newCard(t, fullCard())
	model := make([]byte, ConfigSize)
	mask := make([]byte, ConfigSize)
	for off, w := range writable {
		binary.LittleEndian.PutUint32(model[off:], w.fixed)
		binary.LittleEndian.PutUint32(mask[off:], w.mask)
	}
	model[0x88], model[0x89] = 0x10, 0x28
	rnd := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 8)
	for range 200_000 {
		n := 1 << rnd.IntN(3)
		off := rnd.IntN(ConfigSize/n) * n
		if rnd.IntN(4) > 0 {
			off %= 0x100
		}
		v := rnd.Uint64() | rnd.Uint64()*uint64(rnd.IntN(2))
		for i := range n {
			switch off + i {
			case 0x44: // not into another power state
				v &^= 3 << (8 * i)
			case 0x89: // and no reset
				v &^= 0x80 << (8 * i)
			}
		}
		c.set(uint64(off), n, v)
		for i := range n {
			o, w := off+i, byte(v>>(8*i))
			model[o] = model[o]&^mask[o] | w&mask[o]
		}
		o := rnd.IntN(ConfigSize/8) * 8 &^ 4
		if c.mmio.Read(cardAt|uint64(o), b); !bytes.Equal(b, model[o:o+8]) {
			t.Fatalf("%#x reads %x, want %x", o, b, model[o:o+8])
		}
	}
	c.expect()
}

// TestSizing follows PCI Local Bus 3.0, 6.2.5.1, and Linux's __pci_read_base.
func TestSizing(t *testing.T) {
	for _, b := range []BAR{
		{Index: 0, Size: 16}, {Index: 5, Size: 4096, Prefetchable: true}, {Index: 1, Size: 1 << 31},
		{Index: 4, Size: 1 << 20, Wide: true}, {Index: 2, Size: 8 << 30, Wide: true, Prefetchable: true}, {Index: 0, Size: 1 << 32, Wide: true},
		{Index: 3, Size: 4, Port: true}, {Index: 0, Size: 256, Port: true},
	} {
		c := newCard(t, Identity{Vendor: 1, Device: 2, BARs: []BAR{b}})
		reg := uint64(0x10 + 4*b.Index)
		was := c.get(reg, 4)
		c.set(reg, 4, 0xffff_ffff)
		low := c.get(reg, 4)
		c.set(reg, 4, was)
		var size uint64
		switch {
		case b.Port:
			if low&3 != 1 {
				t.Errorf("%+v: %#x is not a port BAR", b, low)
			}
			size = uint64(^uint32(low&^3) + 1)
		case b.Wide:
			if low&7 != 4 {
				t.Errorf("%+v: %#x is not a 64-bit BAR", b, low)
			}
			c.set(reg+4, 4, 0xffff_ffff)
			size = ^(c.get(reg+4, 4)<<32 | low&^15) + 1
		default:
			if low&7 != 0 {
				t.Errorf("%+v: %#x is not a 32-bit BAR", b, low)
			}
			size = uint64(^uint32(low&^15) + 1)
		}
		if !b.Port && low&8 != 0 != b.Prefetchable {
			t.Errorf("%+v: prefetchable bit in %#x", b, low)
		}
		if size != b.Size {
			t.Errorf("%+v: size reads as %#x", b, size)
		}
		for other := uint64(0x10); other < 0x28; other += 4 {
			if other != reg && !(b.Wide && other == reg+4) && c.get(other, 4) != 0 {
				t.Errorf("%+v: register %#x is %#x", b, other, c.get(other, 4))
			}
		}
	}
}

func TestDecode(t *testing.T) {
	c := newCard(t, fullCard())
	c.enable()
	access := func(s *bus.Space, addr uint64, n int) string {
		c.got = nil
		s.Write(addr, make([]byte, n))
		if len(c.got) == 0 {
			return ""
		}
		return c.got[0]
	}
	all := func() string {
		return fmt.Sprint(access(c.mmio, 1<<40|0x10, 8), access(c.mmio, 0xc000_0ffc, 4), access(c.io, 0xc01f, 1))
	}
	const everything = "write 0+0x10=0000000000000000write 2+0xffc=00000000write 3+0x1f=00"
	if got := all(); got != everything {
		t.Errorf("the device sees %q", got)
	}
	if b := read(c.mmio, 0xc000_0002, 2); !bytes.Equal(b, []byte{0x20, 0x21}) {
		t.Errorf("BAR 2 reads %x", b)
	}
	// Where a BAR ends.
	for addr, want := range map[uint64]string{0xbfff_ffff: "", 0xc000_0fff: "write 2+0xfff=00", 0xc000_1000: ""} {
		if got := access(c.mmio, addr, 1); got != want {
			t.Errorf("a byte at %#x: %q, want %q", addr, got, want)
		}
	}
	if got := access(c.mmio, 0xc000_0ffe, 4); got != "" {
		t.Errorf("an access across the end: %q", got)
	}
	for command, want := range map[uint64]string{0: "", 4: "", 1: "write 3+0x1f=00", 2: "write 0+0x10=0000000000000000write 2+0xffc=00000000"} {
		if c.set(4, 2, command); all() != want {
			t.Errorf("with command %d the device sees %q", command, all())
		}
	}
	c.set(4, 2, 7)
	// D3hot, and back by a reset.
	pm := c.find(1)
	c.set(pm+4, 2, 3)
	if got := all(); got != "" {
		t.Errorf("in D3hot the device sees %q", got)
	}
	if c.get(pm+4, 2) != 3 || c.get(0, 4) != 0x5678_1234 {
		t.Error("configuration space is not there in D3hot")
	}
	for _, state := range []uint64{1, 2} {
		if c.set(pm+4, 1, state); c.get(pm+4, 2) != 3 {
			t.Errorf("from D3hot to D%d", c.get(pm+4, 2))
		}
	}
	c.got = nil
	c.set(pm+4, 2, 0)
	c.expect("reset")
	if c.get(4, 2) != 0 || c.get(0x10, 8) != 0xc || c.get(0x18, 4) != 0 {
		t.Error("the way from D3hot to D0 has not reset the registers")
	}
	for _, state := range []uint64{1, 2} {
		if c.set(pm+4, 2, state); c.get(pm+4, 2) != 0 {
			t.Errorf("from D0 to D%d", c.get(pm+4, 2))
		}
	}
	if c.enable(); all() != everything {
		t.Errorf("after D3hot the device sees %q", all())
	}
}

// TestMove moves a BAR while it decodes, and has accesses follow it.
func TestMove(t *testing.T) {
	c := newCard(t, fullCard())
	c.enable()
	at := uint64(0xc000_0000)
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		to := uint64(rnd.Uint32()) &^ 0xfff
		if to >= ecam-1<<12 && to < ecam+1<<20 || to>>13 == 0xc001_0000>>13 {
			continue
		}
		c.set(0x18, 4, to)
		c.got = nil
		c.store(to+4, 4, 0x11223344)
		c.expect("write 2+0x4=44332211")
		if at != to {
			c.store(at+4, 4, 0)
			c.expect()
		}
		at = to
	}
}

// TestOverlap: the first one has it, and the others are back when it goes.
func TestOverlap(t *testing.T) {
	c := newCard(t, Identity{Name: "a", Vendor: 1, Device: 1, BARs: []BAR{{Index: 0, Size: 4096}, {Index: 1, Size: 8192}}})
	c.add(5, Identity{Name: "b", Vendor: 1, Device: 2, BARs: []BAR{{Index: 2, Size: 4096}, {Index: 3, Size: 4, Port: true}}})
	b := uint64(0x8000) // from a's configuration space to b's
	who := func(addr uint64) string {
		c.got = nil
		c.store(addr, 1, 0)
		if len(c.got) == 0 {
			return ""
		}
		return c.got[0][:len("write 0")]
	}
	c.set(0x10, 4, 0xc000_0000)
	c.set(0x14, 4, 0xc000_0000)
	c.set(b+0x18, 4, 0xc000_1000)
	c.set(b+4, 1, 2) // the last one comes first, which must not count
	c.set(4, 1, 2)
	check := func(at0, at1 string) {
		t.Helper()
		if g0, g1 := who(0xc000_0000), who(0xc000_1000); g0 != at0 || g1 != at1 {
			t.Errorf("%q and %q, want %q and %q", g0, g1, at0, at1)
		}
	}
	check("write 0", "write 2")
	c.set(0x10, 4, 0xd000_0000)
	check("write 1", "write 1")
	c.set(4, 1, 0)
	check("", "write 2")
	c.set(4, 1, 2)
	check("write 1", "write 1")
	c.set(0x14, 4, 0xd800_0000)
	check("", "write 2")

	// The platform's own come first; beyond the bus there is nobody.
	c.set(0x10, 4, ecam)
	c.set(b+0x1c, 4, 0xcf8)
	c.set(b+4, 1, 3)
	if c.get(0, 4) != 0x0001_0001 || c.get(0x10, 4) != ecam {
		t.Error("a BAR hides configuration space")
	}
	c.got = nil
	c.set(b+0x1c, 4, 0xffff_fffc)
	if c.io.Write(0xfffc, []byte{0}); len(c.got) != 0 {
		t.Errorf("a port BAR beyond the ports: %q", c.got)
	}
	c.set(b+0x1c, 4, 0xfffc)
	c.io.Write(0xfffc, []byte{0})
	c.expect("write 3+0x0=00")
}

func (c *card) entry(v int) uint64 { return 0xc001_0000 + 16*uint64(v) }

func (c *card) setEntry(v int, address uint64, data uint32, masked uint64) {
	c.store(c.entry(v), 8, address)
	c.store(c.entry(v)+8, 4, uint64(data))
	c.store(c.entry(v)+12, 4, masked)
}

const pba = 0xc001_1000

func TestMSIX(t *testing.T) {
	c := newCard(t, fullCard())
	x := c.find(0x11)
	if v := c.get(x+2, 2); v != 69 {
		t.Errorf("message control is %#x", v)
	}
	c.enable()
	for v := range 70 {
		if w := c.load(c.entry(v)+12, 4); w != 1 {
			t.Fatalf("vector control %d is %#x after power-on", v, w)
		}
		c.setEntry(v, 0xfee0_0000|uint64(v)<<12, uint32(v), 0)
	}
	c.e.Raise(3) // not enabled
	c.expect()
	c.set(x+2, 2, 0x8000)
	c.expect()
	if !c.e.Message() {
		t.Error("MSI-X is not enabled")
	}
	c.e.Raise(3)
	c.e.Raise(69)
	c.e.Raise(70)
	c.e.Raise(-1)
	c.expect("0xfee03000=0x3", "0xfee45000=0x45")
	// Masked vectors are pending, once each, and are sent when unmasked.
	c.store(c.entry(3)+12, 4, 1)
	c.store(c.entry(66)+12, 4, 0xffff_ffff)
	if w := c.load(c.entry(66)+12, 4); w != 1 {
		t.Errorf("vector control has %#x", w)
	}
	c.e.Raise(3)
	c.e.Raise(3)
	c.e.Raise(66)
	c.expect()
	if lo, hi := c.load(pba, 8), c.load(pba+8, 8); lo != 1<<3 || hi != 1<<2 {
		t.Errorf("pending %#x %#x", lo, hi)
	}
	c.store(pba, 8, 0)
	c.store(pba+8, 8, ^uint64(0))
	if lo, hi := c.load(pba, 8), c.load(pba+8, 8); lo != 1<<3 || hi != 1<<2 {
		t.Errorf("a write changes the pending bits to %#x %#x", lo, hi)
	}
	c.store(c.entry(3)+12, 4, 0)
	c.expect("0xfee03000=0x3")
	if lo := c.load(pba, 8); lo != 0 {
		t.Errorf("pending %#x after the message", lo)
	}
	// Function mask.
	c.set(x+2, 2, 0xc000)
	c.e.Raise(5)
	c.e.Raise(1)
	c.store(c.entry(66)+8, 8, 0x42) // data, and unmasked: by 8 bytes
	c.expect()
	c.set(x+2, 2, 0x8000)
	c.expect("0xfee01000=0x1", "0xfee05000=0x5", "0xfee42000=0x42")
	// Bus mastering off holds back as well.
	c.set(4, 2, 3)
	c.e.Raise(8)
	c.expect()
	c.set(4, 2, 7)
	c.expect("0xfee08000=0x8")
	// In D3hot nothing is sent, nor later.
	c.set(c.find(1)+4, 2, 3)
	c.e.Raise(8)
	c.set(4, 2, 7)
	c.expect()
	c.set(c.find(1)+4, 2, 0)
	c.expect("reset")
	if c.enable(); c.load(c.entry(5), 8) != 0 || c.load(c.entry(5)+12, 4) != 1 {
		t.Error("the table is not reset")
	}
	// What is pending is gone when MSI-X is disabled.
	c.set(x+2, 2, 0x8000)
	c.e.Raise(9)
	if lo := c.load(pba, 4); lo != 1<<9 {
		t.Errorf("pending %#x", lo)
	}
	c.set(x+2, 2, 0)
	c.setEntry(9, 0xfee0_0000, 9, 0)
	c.set(x+2, 2, 0x8000)
	c.expect()
	// Undefined accesses change nothing.
	c.setEntry(0, 0xfee0_0000, 0x1234, 1)
	for _, n := range []int{1, 2} {
		c.store(c.entry(0)+8, n, 0)
	}
	c.store(c.entry(0)+6, 4, 0)
	c.store(c.entry(0)+4, 8, 0)
	if a, d := c.load(c.entry(0), 8), c.load(c.entry(0)+8, 8); a != 0xfee0_0000 || d != 1<<32|0x1234 {
		t.Errorf("the entry is %#x %#x", a, d)
	}
	if c.store(c.entry(0), 8, ^uint64(0)); c.load(c.entry(0), 8) != ^uint64(3) {
		t.Errorf("address %#x", c.load(c.entry(0), 8))
	}
	if v := c.load(c.entry(70), 8) | c.load(0xc001_1010, 8) | c.load(0xc001_1ff8, 8); v != 0 {
		t.Errorf("where nothing is: %#x", v)
	}
}

func TestMSIXSizes(t *testing.T) {
	for n, want := range map[int]uint64{1: 8192, 256: 8192, 257: 16384, 2048: 65536} {
		c := newCard(t, Identity{Vendor: 1, Device: 2, MSIX: n, MSIXBAR: 0})
		c.set(0x10, 4, 0xffff_ffff)
		if size := uint64(^uint32(c.get(0x10, 4)) + 1); size != want {
			t.Errorf("%d vectors: a BAR of %#x, want %#x", n, size, want)
		}
		x := c.find(0x11)
		table, pending := c.get(x+4, 4)&^7, c.get(x+8, 4)&^7
		if table != 0 || pending < uint64(16*n) || pending%4096 != 0 || pending+uint64(n+63)/64*8 > want {
			t.Errorf("%d vectors: table at %#x, pending bits at %#x", n, table, pending)
		}
	}
}

func TestMSI(t *testing.T) {
	c := newCard(t, fullCard())
	m := c.find(5)
	c.enable()
	c.set(m+4, 8, 0x1_fee0_1007)
	c.set(m+0xc, 2, 0x41ff)
	c.e.Raise(0)
	c.expect()
	c.set(m+2, 2, 1) // one vector
	c.e.Raise(0)
	c.e.Raise(5)
	c.expect("0x1fee01004=0x41ff", "0x1fee01004=0x41ff")
	c.set(m+2, 2, 1|2<<4) // four
	c.e.Raise(0)
	c.e.Raise(5)
	c.e.Raise(7)
	c.expect("0x1fee01004=0x41fc", "0x1fee01004=0x41fd", "0x1fee01004=0x41ff")
	c.set(m+2, 2, 1|5<<4) // more than there are: all
	c.e.Raise(7)
	c.e.Raise(6)
	c.expect("0x1fee01004=0x41ff", "0x1fee01004=0x41fe")
	c.set(m+0x10, 4, 0xffff_ff44)
	if v := c.get(m+0x10, 4); v != 0x44 {
		t.Errorf("mask bits %#x", v)
	}
	c.e.Raise(6)
	c.e.Raise(6)
	c.e.Raise(2)
	c.e.Raise(1)
	c.expect("0x1fee01004=0x41f9")
	for off, want := range map[uint64]uint64{0x14: 0x44, 0x15: 0, 0x16: 0} {
		if v := c.get(m+off, 1); v != want {
			t.Errorf("pending byte %#x is %#x, want %#x", off, v, want)
		}
	}
	c.set(m+0x14, 4, 0)
	c.set(m+0x10, 4, 4)
	c.expect("0x1fee01004=0x41fe")
	c.set(4, 2, 3)
	c.set(m+0x10, 4, 0)
	c.expect()
	c.set(4, 2, 7)
	c.expect("0x1fee01004=0x41fa")
	c.set(m+0x10, 4, 1)
	c.e.Raise(0)
	c.set(m+2, 2, 0)
	c.set(m+0x10, 4, 0)
	c.set(m+2, 2, 1)
	c.expect()
	// MSI-X goes first where a guest enables both.
	c.set(c.find(0x11)+2, 2, 0x8000)
	c.setEntry(0, 0xfee0_0000, 0x30, 0)
	c.e.Raise(0)
	c.expect("0xfee00000=0x30")
}

func TestINTx(t *testing.T) {
	c := newCard(t, fullCard())
	check := func(line bool, status uint64) {
		t.Helper()
		if c.line != line || c.e.Line() != line || c.get(6, 2)&8 != status<<3 || c.get(6, 1)&8 != status<<3 || c.get(4, 4)>>16&8 != status<<3 {
			t.Errorf("line %v, status %#x, want %v, %d", c.line, c.get(6, 2), line, status)
		}
	}
	check(false, 0)
	c.e.SetPin(true)
	check(true, 1)
	c.set(4, 2, 0x400)
	check(false, 1)
	c.set(4, 2, 0)
	check(true, 1)
	c.set(c.find(5)+2, 2, 1)
	check(false, 0)
	c.set(c.find(5)+2, 2, 0)
	check(true, 1)
	c.set(c.find(0x11)+2, 2, 0x8000)
	check(false, 0)
	c.e.SetPin(false)
	c.set(c.find(0x11)+2, 2, 0)
	check(false, 0)
	c.e.SetPin(true)
	c.set(c.find(1)+4, 2, 3)
	check(false, 0)
	c.set(c.find(1)+4, 2, 0)
	check(false, 0) // reset
	c.expect("reset")
	c.e.SetPin(true)
	c.e.Remove()
	if c.line {
		t.Error("the line is up after removal")
	}
	id := fullCard()
	id.INTx = false
	n := newCard(t, id)
	if n.e.SetPin(true); n.line || n.get(6, 2)&8 != 0 {
		t.Error("a pin that there is not")
	}
}

func TestReset(t *testing.T) {
	c := newCard(t, fullCard())
	fresh := c.e.State()
	c.enable()
	c.set(0x3c, 1, 17)
	c.set(c.find(5)+2, 2, 0x51)
	c.set(c.find(5)+0x10, 4, 1)
	c.e.Raise(0)
	c.set(c.find(0x11)+2, 2, 0x8000)
	c.setEntry(7, 0xfee0_0000, 7, 1)
	c.e.Raise(7)
	c.e.SetPin(true)
	c.e.MasterAborted()
	if c.get(6, 2)&0x2000 == 0 {
		t.Error("no master abort in the status register")
	}
	express := c.find(0x10)
	for _, w := range []struct {
		off uint64
		n   int
		v   uint64
	}{{8, 2, 0x8000}, {8, 4, 0xffff_ffff}, {9, 1, 0x80}} {
		c.got = nil
		c.set(express+w.off, w.n, w.v)
		c.expect("reset")
		if got := c.e.State(); !reflect.DeepEqual(got, fresh) {
			t.Fatalf("after the reset %+v, want %+v", got, fresh)
		}
		c.store(0xc000_0000, 4, 0)
		c.expect()
		c.enable()
	}
	// The bit reads as zero, and other bytes do not reset.
	c.set(express+8, 1, 0x80)
	c.set(express+0xa, 2, 0x8000)
	c.set(express+8, 2, 0x7fff)
	c.expect()
	if v := c.get(express+8, 2); v != 0x781f {
		t.Errorf("device control is %#x", v)
	}
}

func TestStatusClears(t *testing.T) {
	c := newCard(t, fullCard())
	c.e.MasterAborted()
	c.set(4, 4, 0) // zeros do nothing
	c.set(6, 2, 0xd900)
	if v := c.get(6, 2); v != 0x2010 {
		t.Errorf("status %#x", v)
	}
	c.set(7, 1, 0x20)
	if v := c.get(6, 2); v != 0x10 {
		t.Errorf("status %#x", v)
	}
}

func TestRemoval(t *testing.T) {
	c := newCard(t, fullCard())
	fresh := c.e.State()
	c.enable()
	c.e.SetPin(true)
	c.set(c.find(0x11)+2, 2, 0x8000)
	c.setEntry(0, 0xfee0_0000, 0x30, 0)
	c.e.Remove()
	for off := uint64(0); off < ConfigSize; off += 4 {
		if v := c.get(off, 4); v != 0xffff_ffff {
			t.Fatalf("%#x reads %#x", off, v)
		}
	}
	if b, w := c.get(0, 1), c.get(2, 2); b != 0xff || w != 0xffff {
		t.Errorf("narrow reads: %#x %#x", b, w)
	}
	c.set(4, 2, 7)
	c.set(c.find2(0x10)+8, 2, 0x8000)
	c.store(0xc000_0000, 4, 0)
	if v := c.load(c.entry(0), 4); v != 0xffff_ffff {
		t.Errorf("the MSI-X table reads %#x", v)
	}
	c.e.Raise(0)
	c.e.SetPin(true)
	c.expect()
	if c.line || c.e.Master() || !c.e.Removed() {
		t.Error("the function is still there")
	}
	c.e.Plug()
	c.expect()
	if got := c.e.State(); !reflect.DeepEqual(got, fresh) {
		t.Errorf("plugged in again: %+v", got)
	}
	c.enable()
	c.store(0xc000_0000, 4, 0)
	c.expect("write 2+0x0=00000000")
}

// find2 is where a capability of fullCard is, without a look.
func (c *card) find2(id int) uint64 {
	return map[int]uint64{1: 0x40, 5: 0x50, 0x11: 0x70, 0x10: 0x80}[id]
}

func TestAssign(t *testing.T) {
	c := newCard(t, fullCard())
	second := fullCard()
	second.BARs[1].Size = 1 << 20
	e2 := c.add(5, second)
	w := Windows{Ports: Window{0xc000, 0x1000}, Memory32: Window{0xc000_0000, 1 << 24}, Memory64: Window{1 << 38, 1 << 30}}
	if err := Assign([]*Endpoint{c.e, e2}, w, func(e *Endpoint) uint8 {
		if e == e2 {
			return 18
		}
		return 17
	}); err != nil {
		t.Fatal(err)
	}
	if c.get(0x3c, 1) != 17 || e2.ReadConfig(0x3c, 1) != 18 || c.get(4, 2) != 0 {
		t.Error("interrupt lines or command registers are not as they should be")
	}
	c.set(4, 2, 7)
	c.set(0x8004, 2, 7)
	mapped := 0
	for _, r := range append(c.io.Ranges(), c.mmio.Ranges()...) {
		if r.Name != "card" {
			continue
		}
		mapped++
		in := func(w Window) bool { return r.Base >= w.Base && r.Base-w.Base+r.Size <= w.Size }
		if !in(w.Ports) && !in(w.Memory32) && !in(w.Memory64) {
			t.Errorf("a BAR at %#x+%#x", r.Base, r.Size)
		}
	}
	if mapped != 8 {
		t.Errorf("%d BARs of 8 are on the bus: some overlap", mapped)
	}
	for _, small := range []Windows{
		{Ports: Window{0xc000, 0x20}, Memory32: w.Memory32, Memory64: w.Memory64},
		{Ports: w.Ports, Memory32: Window{0xc000_0000, 1 << 20}, Memory64: w.Memory64},
		{Ports: w.Ports, Memory32: w.Memory32, Memory64: Window{^uint64(0xfffff), 0x10000}},
		{Ports: w.Ports, Memory32: w.Memory32},
	} {
		if err := Assign([]*Endpoint{c.e, e2}, small, func(*Endpoint) uint8 { return 0 }); err == nil {
			t.Errorf("%+v has room", small)
		}
	}
}

// throughJSON is a state as it comes back from a file.
func throughJSON(t testing.TB, s EndpointState) (back EndpointState) {
	b, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(b, &back)
	}
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func TestEndpointState(t *testing.T) {
	a, b := newCard(t, fullCard()), newCard(t, fullCard())
	a.enable()
	a.setEntry(3, 0xfee0_0000, 0x33, 1)
	a.set(a.find(0x11)+2, 2, 0x8000)
	a.e.Raise(3)
	a.e.SetPin(true)
	if err := b.e.SetState(throughJSON(t, a.e.State())); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a.e.State(), b.e.State()) {
		t.Errorf("%+v came back as %+v", a.e.State(), b.e.State())
	}
	for _, c := range []*card{a, b} {
		c.store(0xc000_0000, 4, 5)
		c.store(c.entry(3)+12, 4, 0)
		c.expect("write 2+0x0=05000000", "0xfee00000=0x33")
		c.set(c.find(0x11)+2, 2, 0)
		if !c.line {
			t.Error("the pin is forgotten")
		}
	}
	// The line is not driven again, and known.
	d := newCard(t, fullCard())
	if err := d.e.SetState(a.e.State()); err != nil || d.line || !d.e.Line() {
		t.Errorf("%v: line %v, noted %v", err, d.line, d.e.Line())
	}
	a.e.Remove()
	if err := b.e.SetState(throughJSON(t, a.e.State())); err != nil || !b.e.Removed() || b.get(0, 4) != 0xffff_ffff {
		t.Errorf("%v: a removed function is back", err)
	}
	b.got = nil
	b.store(0xc000_0000, 4, 5)
	b.expect()

	for want, change := range map[string]func(*EndpointState){
		"0 bytes":          func(s *EndpointState) { s.Config = nil },
		"another function": func(s *EndpointState) { s.Config[0]++ },
		"in D1":            func(s *EndpointState) { s.Config[0x44] = 1 },
		"MSI vectors":      func(s *EndpointState) { s.Pending = 1 << 8 },
		"table of 0":       func(s *EndpointState) { s.MSIX = MSIXState{} },
		"word 3":           func(s *EndpointState) { s.MSIX.Table[3] = 2 },
		"word 4":           func(s *EndpointState) { s.MSIX.Table[4] = 1 },
		"that there are":   func(s *EndpointState) { s.MSIX.Pending[1] = 1 << 6 },
	} {
		s := throughJSON(t, newCard(t, fullCard()).e.State())
		change(&s)
		if err := newCard(t, fullCard()).e.SetState(s); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "card") {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	id := fullCard()
	id.INTx = false
	n := newCard(t, id)
	s := n.e.State()
	s.Pin = true
	if err := n.e.SetState(s); err == nil {
		t.Error("a pin that there is not is taken")
	}
}

// FuzzConfig lets a guest loose on configuration space and BARs, with a device
// that raises interrupts. Whatever it does, a twin with the state goes on alike,
// and a reset makes all as it was.
func FuzzConfig(f *testing.F) {
	f.Add([]byte{0, 0x04, 0, 4, 7, 0, 0, 0, 1, 0, 0x10, 4, 1, 2, 3, 4})
	f.Add([]byte{0, 0x88, 0, 2, 0xff, 0xff, 0, 0, 0, 0x44, 0, 1, 3, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		a, b := newCard(t, fullCard()), newCard(t, fullCard())
		b.add(5, fullCard())
		a.add(5, fullCard())
		fresh := a.e.State()
		for _, c := range []*card{a, b} {
			c.enable()
		}
		half := len(program) / 16 * 8
		for i := 0; i+8 <= len(program); i += 8 {
			if i == half {
				if err := b.e.SetState(a.e.State()); err != nil {
					t.Fatal(err)
				}
				b.line = b.e.Line()
			}
			if fuzzStep(a, program[i:i+8]); i >= half {
				fuzzStep(b, program[i:i+8])
			} else if program[i]%8 == 1 || program[i]%8 == 2 {
				fuzzStep(b, program[i:i+8]) // the neighbour
			}
		}
		if half < len(program)/8*8 && !reflect.DeepEqual(a.e.State(), b.e.State()) {
			t.Fatalf("%+v\nand the twin %+v", a.e.State(), b.e.State())
		}
		if n := len(a.mmio.Ranges()) + len(a.io.Ranges()); n > 2+2*4 {
			t.Fatalf("%d ranges are mapped", n)
		}
		a.e.Plug()
		if got := a.e.State(); !reflect.DeepEqual(got, fresh) {
			t.Fatalf("plugged in: %+v", got)
		}
	})
}

func fuzzStep(c *card, p []byte) {
	off := uint64(p[1]) | uint64(p[2]&0xf)<<8
	n := []int{1, 2, 4, 8}[p[3]%4]
	data := slices.Concat(p[4:], p[4:])[:n]
	switch p[0] % 8 {
	case 0:
		c.mmio.Write(cardAt|off&^uint64(n-1), data)
	case 1:
		c.mmio.Write(cardAt|0x8000|off&^uint64(n-1), data)
	case 2:
		c.io.Write(ports+off%8, data)
	case 3:
		c.mmio.Write(0xc000_0000|uint64(p[2]&1)<<16|off, data)
	case 4:
		c.mmio.Read(uint64(binary.LittleEndian.Uint32(p[4:])), data)
		c.io.Read(off, data)
	case 5:
		c.e.SetPin(p[1]&1 != 0)
	case 6:
		c.e.Raise(int(p[1]) % 80)
	case 7:
		if p[1] == 0 {
			c.e.Remove()
		} else {
			c.set(off&^3, 4, uint64(binary.LittleEndian.Uint32(p[4:])))
		}
	}
}

func TestBARAccessDoesNotAllocate(t *testing.T) {
	c := newCard(t, fullCard())
	c.enable()
	c.set(c.find(0x11)+2, 2, 0x8000)
	c.setEntry(0, 0xfee0_0000, 0x30, 0)
	quiet := &quiet{}
	c.e.backend = quiet
	data := make([]byte, 4)
	if n := testing.AllocsPerRun(1000, func() {
		c.mmio.Read(0xc000_0000, data)
		c.mmio.Write(0xc000_0000, data)
		c.mmio.Read(0xc001_0000, data)
		c.mmio.Write(0xc001_000c, data)
		c.e.Raise(0)
		c.e.SetPin(true)
		c.e.SetPin(false)
		c.mmio.Read(cardAt|4, data)
		c.mmio.Write(cardAt|4, data)
		copy(data, []byte{7, 0, 0, 0})
	}); n != 0 {
		t.Errorf("accesses allocate %v times", n)
	}
}

// quiet is a Backend that does nothing.
type quiet struct{}

func (*quiet) ReadBAR(int, uint64, []byte)  {}
func (*quiet) WriteBAR(int, uint64, []byte) {}
func (*quiet) ResetDevice()                 {}
func (*quiet) SendMessage(uint64, uint32)   {}
func (*quiet) DriveLine(bool)               {}
