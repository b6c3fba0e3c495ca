package fifo

import (
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// The manual's tables are the specification: these tests read them.

// manual gives the table below a heading of docs/hardware.md, its head left out.
func manual(t *testing.T, heading string) (rows [][]string) {
	text, err := os.ReadFile("../../docs/hardware.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text2, ok := strings.Cut(string(text), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("the manual has no %q", heading)
	}
	for line := range strings.Lines(text2) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
			return rows[2:]
		case strings.HasPrefix(line, "|"):
			cells := strings.Split(strings.Trim(line, "|"), "|")
			for i := range cells {
				cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
			}
			rows = append(rows, cells)
		case len(rows) > 0:
			return rows[2:]
		}
	}
	return rows[2:]
}

// register is a row of the manual's register tables, at its place in BAR 0.
type register struct {
	name           string
	at             uint64
	wide           bool
	reset          uint64
	hasReset       bool
	access         string
	mask, from, to uint64 // what can be written: a mask, or else a range
	ring           int    // whose it is; -1
}

func (r register) String() string { return fmt.Sprintf("%s at %#x", r.name, r.at) }

func (r register) read(g *rig) uint64 {
	if r.wide {
		return g.Read64(0, r.at)
	}
	return uint64(g.Read32(0, r.at))
}

// write writes a register, a wide one in halves.
func (r register) write(g *rig, v uint64) {
	g.Write32(0, r.at, uint32(v))
	if r.wide {
		g.Write32(0, r.at+4, uint32(v>>32))
	}
}

// registers gives all registers of a device with two channels.
func registers(t *testing.T) (all []register) {
	add := func(heading, prefix string, base uint64, ring int) {
		for _, row := range manual(t, heading) {
			r := register{name: prefix + row[1], access: row[4], wide: row[2] == "64", ring: ring}
			number := func(s string) uint64 {
				n, err := strconv.ParseUint(s, 0, 64)
				if err != nil {
					t.Fatalf("%s: %v", r.name, err)
				}
				return n
			}
			r.at = base + number(row[0])
			if row[3] != "" {
				r.reset, r.hasReset = number(row[3]), true
			}
			if from, to, ok := strings.Cut(row[5], ".."); ok {
				r.from, r.to = number(from), number(to)
			} else if row[5] != "" {
				r.mask = number(row[5])
			}
			switch {
			case row[1] == "VECTOR":
				r.reset, r.hasReset = uint64(1+ring), true
			case row[1] == "THRESHOLD" && ring%2 == 0:
				r.access = "RO"
			}
			if row[2] != "32" && row[2] != "64" || !strings.Contains(" RO RW RE W1C WO ", " "+r.access+" ") {
				t.Fatalf("%s: width %q, access %q", r.name, row[2], row[4])
			}
			all = append(all, r)
		}
	}
	add("### Global registers", "", 0, -1)
	for c := range 2 {
		page := uint64(channelBase + c*pageSize)
		add("### Channel registers", fmt.Sprintf("channel %d: ", c), page, -1)
		add("### Ring registers", fmt.Sprintf("TX ring %d: ", c), page+ringTX, 2*c)
		add("### Ring registers", fmt.Sprintf("RX ring %d: ", c), page+ringRX, 2*c+1)
		add("### Doorbells", fmt.Sprintf("channel %d: ", c), uint64(doorbellBase+c*pageSize), -1)
	}
	return all
}

func checkResetValues(t *testing.T, g *rig, after string, except ...string) {
	t.Helper()
next:
	for _, r := range registers(t) {
		for _, name := range except {
			if r.name == name {
				continue next
			}
		}
		if v := r.read(g); r.hasReset && v != r.reset {
			t.Errorf("%v: %#x after %s, want %#x", r, v, after, r.reset)
		}
	}
}

// scribble has all registers differ from their reset values that can.
func scribble(g *rig) {
	g.Write32(0, regErrorCause, errorMask)
	g.Write32(0, regScratch, 0x1234_5678)
	g.Write32(0, regIRQEnable, 0x1f)
	g.Write32(0, regVector, 3)
	g.Read64(0, regTimeLow)
	for c := range 2 {
		g.Write32(0, uint64(channelBase+c*pageSize+regEnd), uint32(endSource+c))
	}
	for r := range g.rings {
		g.free = 0x1000 // the same memory for all
		g.setUp(r, 3, 3)
		g.setRing(r, regCoalesce, 0xffff_ffff)
		g.setRing(r, regThreshold, 100)
		g.setRing(r, regRingVector, 0)
		g.abort(r, 1)
		g.post(r, 1, 0, piece{0x2000, 100})
	}
	g.Advance(1_000_000)
	for r := range g.rings {
		g.post(r, 2, 0, piece{1 << 40, 100}) // fails, if the ring has not
	}
	g.Advance(1_000_000)
	for r := range g.rings {
		g.setRing(r, regNotify, 1)
	}
	var b [1]byte
	g.Read(0, 0, b[:])
}

func TestResetValues(t *testing.T) {
	g := newRig(t, Config{})
	g.Write32(0, regControl, 0)
	checkResetValues(t, g, "power-on")

	g = newRig(t, Config{})
	power := newFIFO(t, Config{}).State()
	scribble(g)
	// The test has teeth: most registers have another value now.
	same := 0
	for _, r := range registers(t) {
		if r.access != "WO" && r.read(g) == r.reset {
			same++
		}
	}
	if same > 40 {
		t.Fatalf("scribble leaves %d registers as they are", same)
	}
	g.Write32(0, regControl, controlReset)
	g.check("STATUS in reset", g.Read32(0, regStatus), 0)
	checkResetValues(t, g, "RESET, not yet READY", "STATUS", "SCRATCH")
	g.Advance(resetTime - 1)
	g.Write32(0, regScratch, 5) // is lost
	g.check("STATUS shortly before", g.Read32(0, regStatus), 0)
	g.Advance(1)
	checkResetValues(t, g, "soft reset", "SCRATCH")
	g.check("SCRATCH", g.Read32(0, regScratch), 0x1234_5678)
	if n := len(g.Events()); n != 0 {
		t.Errorf("%d events after reset: %v", n, g.Events())
	}
	g.Read64(0, regTimeLow)

	g.Write32(0, regControl, controlEnable)
	scribble(g)
	g.Host.Reset()
	checkResetValues(t, g, "function-level reset")
	if s := g.f.State(); !reflect.DeepEqual(s, power) {
		t.Errorf("state after reset:\n%+v, want\n%+v", s, power)
	}
}

// TestAccess writes every register of the manual as its access permits, and as it
// does not.
func TestAccess(t *testing.T) {
	for _, r := range registers(t) {
		g := newRig(t, Config{})
		all := ^uint64(0)
		name := r.name[strings.LastIndexByte(r.name, ' ')+1:]
		switch name {
		case "TIME", "CH_CONTROL":
			continue // TestTime; TestFlush, TestParity
		case "CONTROL":
			all = controlReset - 1
		case "RING_CONTROL":
			g.setUp(r.ring, 3, 3)
			r.write(g, uint64(ringReset-1)) // RUN and DRAIN: nothing is left, and it stops
			if v := r.read(g); v != r.mask {
				t.Errorf("%v: %#x, want %#x", r, v, r.mask)
			}
			g.Run()
			r.write(g, uint64(ringRun))
			if v := r.read(g); v != ringRun {
				t.Errorf("%v: %#x, want RUN", r, v)
			}
			continue
		}
		before := r.read(g)
		try := func(v, want uint64) {
			t.Helper()
			r.write(g, v)
			if got := r.read(g); got != want {
				t.Errorf("%v: %#x after %#x was written, want %#x", r, got, v, want)
			}
		}
		switch {
		case r.access == "RO" || r.access == "W1C":
			try(all, before)
			try(0, before)
			continue
		case r.access == "WO":
			try(all, 0)
			continue
		case r.mask != 0:
			if !r.wide {
				all &= 0xffff_ffff
			}
			try(all&0x5555_5555_5555_5555, r.mask&0x5555_5555_5555_5555)
			try(all, r.mask)
			try(0, 0)
			try(all, r.mask)
		default:
			try(r.to, r.to)
			try(r.from, r.from)
			want := r.from // a value that is too large is ignored
			if name == "THRESHOLD" || name == "NOTIFY" {
				want = r.to
			}
			try(r.to+1, want)
			try(0xffff_ffff, want)
			try(r.to, r.to)
			if r.from > 0 {
				try(r.from-1, r.to)
			}
		}
		if r.access != "RE" {
			continue
		}
		// Neither a running ring nor one with requests lets it be written.
		g = newRig(t, Config{})
		g.setUp(r.ring, 3, 3)
		before = r.read(g)
		try(0x3c0, before)
		try(2, before)
		g.setRing(r.ring, regRingControl, 0)
		g.post(r.ring, 1, 0, piece{0x1000, 1})
		try(2, before)
		g.setRing(r.ring, regRingControl, ringReset)
		r.write(g, 2)
		if r.read(g) == before {
			t.Errorf("%v can't be written in an empty ring", r)
		}
	}
}

// TestNothingElse looks at all of BAR 0 between the registers.
func TestNothingElse(t *testing.T) {
	for _, channels := range []int{1, 2, 8} {
		g := newRig(t, Config{Channels: channels})
		known := map[uint64]bool{}
		for _, r := range registers(t) {
			known[r.at], known[r.at+4] = true, known[r.at+4] || r.wide
		}
		// The tables are for two channels: those of channel 1 are those of others.
		place := func(at uint64) uint64 {
			page := at / pageSize
			for _, first := range []uint64{channelBase / pageSize, doorbellBase / pageSize} {
				if page > first && page < first+uint64(channels) {
					return (first+1)*pageSize + at%pageSize
				}
			}
			return at
		}
		before := g.f.State()
		n := 0
		for at := uint64(0); at < barSize; at += 4 {
			there := at/pageSize == 0 || at/pageSize-1 < uint64(channels) || at >= doorbellBase && at < doorbellBase+uint64(channels)*pageSize
			if there && known[place(at)] {
				n++
				continue
			}
			if v := g.Read32(0, at); v != 0 {
				t.Errorf("%d channels: %#x at %#x", channels, v, at)
			}
			g.Write32(0, at, 0xffff_ffff)
		}
		if s := g.f.State(); !reflect.DeepEqual(s, before) {
			t.Errorf("%d channels: writes where there is no register have an effect: %+v", channels, s)
		}
		if n < 20 {
			t.Errorf("%d channels: only %d registers", channels, n)
		}
	}
}

// TestWidths: accesses that are not of 4 or 8 bytes, or not aligned.
func TestWidths(t *testing.T) {
	g := newRig(t, Config{})
	g.Write32(0, regScratch, 0x1122_3344)
	for _, a := range []struct {
		off  uint64
		size int
	}{{regScratch, 1}, {regScratch + 3, 1}, {regScratch, 2}, {regScratch + 2, 4}, {regScratch - 1, 8}, {regControl + 4, 8}} {
		p := []byte{9, 9, 9, 9, 9, 9, 9, 9}[:a.size]
		for range 2 {
			g.Read(0, a.off, p)
			for _, b := range p {
				if b != 0 {
					t.Errorf("%d bytes at %#x read as %x", a.size, a.off, p)
				}
			}
			g.check("ERROR_CAUSE", g.Read32(0, regErrorCause), errorAccess)
		}
		g.Write32(0, regErrorCause, errorAccess)
		p[0] = 1
		g.Write(0, a.off, p)
		g.check("SCRATCH", g.Read32(0, regScratch), 0x1122_3344)
		g.check("ERROR_CAUSE", g.Read32(0, regErrorCause), errorAccess)
		g.Write32(0, regErrorCause, errorAccess)
		g.check("ERROR_CAUSE, cleared", g.Read32(0, regErrorCause), 0)
	}
	if len(g.Interrupts) != 0 {
		t.Errorf("interrupts: %v", g.Interrupts)
	}
	g.Write64(0, regScratch, 0x5566_7788)
	g.check("SCRATCH", uint32(g.Read64(0, regScratch)), 0x5566_7788)
	g.check("DEPTH", uint32(g.Read64(0, regScratch)>>32), defaultDepth)
}

// TestTime: the low half holds the high half.
func TestTime(t *testing.T) {
	g := newRig(t, Config{})
	g.Advance(1<<33 - 1)
	low := g.Read32(0, regTimeLow)
	g.Advance(1)
	if v := uint64(g.Read32(0, regTimeHigh))<<32 | uint64(low); v != 1<<33-1 {
		t.Errorf("TIME is %#x", v)
	}
	if v := g.Read64(0, regTimeLow); v != 1<<33 {
		t.Errorf("TIME is %#x", v)
	}
}

// TestFormats compares the manual's codes with the device's.
func TestFormats(t *testing.T) {
	var status string
	for _, row := range manual(t, "## Formats") {
		if row[2] == "FLAGS" && !strings.Contains(row[3], fmt.Sprintf("%d MORE", log2(descMore))) {
			t.Error(row)
		}
	}
	for _, row := range manual(t, "### Ring registers") {
		if row[1] == "ABORT_STATUS" {
			status = row[6]
		}
	}
	want := fmt.Sprintf("%d idle, %d done, %d not found, %d pending", abortIdle, abortDone, abortNotFound, abortPending)
	if status != want {
		t.Errorf("ABORT_STATUS: %q, want %q", status, want)
	}
}

func log2(v uint32) (n int) {
	for ; v > 1; v >>= 1 {
		n++
	}
	return n
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{{Channels: 9}, {Channels: -1}, {Depth: 2048}, {Depth: 5000}, {Depth: 32 << 20}, {Latency: 1}, {Latency: -5}, {Rate: -1}, {Rate: 2_000_000}} {
		if f, err := New(cfg); err == nil || f != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	g := newRig(t, Config{Channels: 8, Depth: MaxDepth, Rate: maxRate, Latency: maxLatency})
	g.check("CAPS", g.Read32(0, regCaps), 0x0a0f_0c08)
	g.check("DEPTH", g.Read32(0, regDepth), MaxDepth)
	if i := g.f.Info(); i.MSIX != 17 || i.Vendor != 0x1234 || i.Device != 0xf1f0 || i.Class != 0xff0000 || i.BARs[0].Size != 128<<10 {
		t.Errorf("%+v", i)
	}
}
