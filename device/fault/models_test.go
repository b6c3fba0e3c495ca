package fault

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"fifovm/device"
	"fifovm/device/devicetest"
	"fifovm/device/edu"
	"fifovm/device/fifo"
	"fifovm/device/trace"
)

// modelTest is a model of the tree with some work for it: at least four
// crossings of each class but reset.
type modelTest struct {
	name  string
	model func() device.Model
	work  func(g *guest)
}

// guest drives a device and writes down what it sees.
type guest struct {
	*devicetest.Host
	seen strings.Builder
}

func (g *guest) read32(bar int, off uint64) uint32 {
	v := g.Read32(bar, off)
	fmt.Fprintf(&g.seen, "[%d:%#x] %#x\n", bar, off, v)
	return v
}

func (g *guest) read64(bar int, off uint64) uint64 {
	v := g.Read64(bar, off)
	fmt.Fprintf(&g.seen, "[%d:%#x] %#x\n", bar, off, v)
	return v
}

// outcome is all that the guest could see.
func (g *guest) outcome() string {
	return fmt.Sprintf("%s%v\n%x", g.seen.String(), g.Interrupts, sha256.Sum256(g.RAM))
}

var models = []modelTest{
	{"edu", func() device.Model { return edu.New(edu.Config{}) }, eduWork},
	{"fifo", func() device.Model {
		f, err := fifo.New(fifo.Config{})
		if err != nil {
			panic(err)
		}
		return f
	}, fifoWork},
}

// fifoWork sends bytes through channel 0, as docs/hardware.md says, and starts
// a ring again that has gone into the error state.
func fifoWork(g *guest) {
	const (
		bells   = 0x10000
		entries = 8
		run     = 1
	)
	rings := [2]uint64{0x1100, 0x1200} // transmit, receive
	g.Write32(0, 0x10, 1)
	for i, ring := range rings {
		base := 0x10000 + 0x2000*uint64(i)
		g.Write64(0, ring+0x08, base)
		g.Write32(0, ring+0x10, 3)
		g.Write64(0, ring+0x20, base+0x1000)
		g.Write32(0, ring+0x28, 3)
		g.Write32(0, ring, run)
	}
	tails := [2]uint32{}
	for round := range 8 {
		for i := range rings {
			buffer := 0x20000 + 0x10000*uint64(i) + 0x100*uint64(round)
			if i == 0 {
				for j := range uint64(64) {
					g.RAM[buffer+j] = byte(7*round + 3*int(j) + 1)
				}
			}
			d := g.RAM[0x10000+0x2000*i+32*int(tails[i]):][:32]
			clear(d)
			binary.LittleEndian.PutUint64(d, buffer)
			binary.LittleEndian.PutUint32(d[8:], 64)
			binary.LittleEndian.PutUint32(d[12:], 2) // interrupt
			binary.LittleEndian.PutUint64(d[16:], uint64(100*i+round))
			tails[i] = (tails[i] + 1) % entries
			g.Write32(0, bells+4*uint64(i), tails[i])
		}
		g.Advance(20_000)
		g.read32(0, 0x20)
		for i, ring := range rings {
			if g.read32(0, ring+0x04)&0xff == 3 {
				g.Write32(0, ring, 1<<31)
				g.Write32(0, ring, run)
				tails[i] = 0
			}
			g.Write32(0, bells+8+4*uint64(i), g.read32(0, ring+0x30)&(entries-1))
		}
	}
	g.Advance(10_000_000)
}

func eduWork(g *guest) {
	for i := range uint32(5) {
		for j := range uint32(8) { // other bytes each time
			g.RAM[0x1000+j] = byte(17*i + j + 1)
		}
		g.Write32(0, 0x04, i) // liveness
		g.read32(0, 0x04)
		g.Write32(0, 0x20, 0x80)
		g.Write32(0, 0x08, i+1) // factorial
		g.Advance(15_000)
		g.read32(0, 0x08)
		for dir := range uint64(2) {
			addr := [2]uint64{0x1000, 0x40000}
			if dir == 1 {
				addr = [2]uint64{0x40000, 0x2000 + 16*uint64(i)}
			}
			g.Write64(0, 0x80, addr[0])
			g.Write64(0, 0x88, addr[1])
			g.Write64(0, 0x90, 8)
			g.Write64(0, 0x98, 1|dir<<1|4)
			g.Advance(5_000)
			g.read64(0, 0x98)
		}
		ack := g.read32(0, 0x24)
		g.Write32(0, 0x64, ack)
	}
	g.Advance(10_000_000)
}

// plansFor has each fault of the language that does not need the interrupt pin.
func plansFor() (plans []string) {
	value := map[action]string{actDelay: "7us", actXor: "0xffffffff", actStuck0: "0xffffffffffffffff", actStuck1: "0x100"}
	for i, s := range specs {
		for _, c := range s.classes {
			plan := fmt.Sprint(c, ":", s.name)
			if v := value[action(i)]; v != "" {
				plan += "=" + v
			}
			switch {
			case c == device.ClassDevice:
				plan += "@3 on event"
			case c == device.ClassMMIORead:
				plan += "@2.."
			default:
				plan += "@2..4"
			}
			plans = append(plans, plan)
		}
	}
	return append(plans, "device:stall=40us@2 on irq", "device:remove@time 30us", "device:reset@2 on dma.write", "irq:storm=50/100us@time 20us")
}

// TestModels has every fault happen to every model, without a line in the
// models for it: each fires, can be seen by the guest, and is the same again.
func TestModels(t *testing.T) {
	for _, m := range models {
		run := func(t *testing.T, text string) (*Plan, *guest, string) {
			p, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			b := device.NewBoundary(m.name+"0", m.model())
			g := &guest{Host: devicetest.New(b, 1<<20)}
			log := trace.New(1 << 14)
			b.Trace(log)
			b.Inject(p)
			m.work(g)
			var w bytes.Buffer
			if err := log.WriteText(&w); err != nil {
				t.Fatal(err)
			}
			if log.Dropped() != 0 {
				t.Fatalf("%d crossings are not in the trace", log.Dropped())
			}
			return p, g, w.String()
		}
		_, g, healthy := run(t, "")
		for _, c := range onTarget {
			if n := strings.Count(healthy, " "+c.String()); n < 4 && c != device.ClassReset {
				t.Errorf("%s: the work has %d crossings of class %v:\n%s", m.name, n, c, healthy)
			}
		}
		for _, plan := range plansFor() {
			t.Run(m.name+"/"+strings.ReplaceAll(plan, "/", " per "), func(t *testing.T) {
				p, broken, text := run(t, plan)
				want := uint64(3)
				if plan[:6] == "device" || strings.Contains(plan, "@time") {
					want = 1
				}
				switch n := p.Fired()[0].Fired; {
				case strings.HasPrefix(plan, "irq:swap"): // 2, and 4 after 3
					want = 2
				case strings.HasPrefix(plan, "mmio.read"), strings.HasPrefix(plan, "event:drop"):
					want = max(n, 1) // what the model does about it decides how many there are
				}
				if n := p.Fired()[0].Fired; n != want {
					t.Errorf("fired %d times, want %d, in\n%s", n, want, text)
				}
				if len(p.Unfired()) != 0 {
					t.Errorf("unfired: %q", p.Unfired())
				}
				if broken.outcome() == g.outcome() {
					t.Errorf("the guest sees nothing of it:\n%s", text)
				}
				if !strings.Contains(text, "fault "+plan) {
					t.Errorf("the trace does not name it:\n%s", text)
				}
				if _, again, text2 := run(t, plan); text != text2 || broken.outcome() != again.outcome() {
					t.Error("it is not the same when run again")
				}
			})
		}
	}
}

// A device that resets itself when an event is to come does not get the event:
// edu would compute a factorial that nobody has asked it for.
func TestResetOnEvent(t *testing.T) {
	plan, err := Parse("device:reset@1 on event")
	if err != nil {
		t.Fatal(err)
	}
	b := device.NewBoundary("edu0", edu.New(edu.Config{}))
	h := devicetest.New(b, 0)
	b.Inject(plan)
	h.Write32(0, 0x08, 5)
	h.Run()
	if v, left := h.Read32(0, 0x08), plan.Unfired(); v != 0 || len(left) != 0 {
		t.Errorf("the factorial register has %d, never fired: %q", v, left)
	}
}

// TestSoftReset: a reset by the device's own register ends what function-level
// reset does, and comes to its own end.
func TestSoftReset(t *testing.T) {
	const (
		control, status, ringControl = 0x10, 0x14, 0x1100
		reset                        = 1 << 31
	)
	for _, text := range []string{
		"device:stall@3 on event", "device:stall=1s@3 on event", "irq:delay=1ms@1", "irq:dup=30@1", "irq:swap@2", "irq:storm=100@time 30us",
		"event:delay=1ms@3", "dma.write:delay=1ms@1", "dma.read:delay=1ms@1", "irq[intx]:spurious@time 43us",
	} {
		t.Run(strings.ReplaceAll(text, "/", " per "), func(t *testing.T) {
			plan, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			f, err := fifo.New(fifo.Config{})
			if err != nil {
				t.Fatal(err)
			}
			b := device.NewBoundary("fifo0", f)
			g := &guest{Host: devicetest.New(b, 1<<20)}
			g.MessageOn = !strings.Contains(text, "intx")
			b.Inject(plan)
			g.Write32(0, control, 1)
			for reg, v := range map[uint64]uint64{0x08: 0x10000, 0x10: 3, 0x20: 0x11000, 0x28: 3} {
				g.Write64(0, ringControl+reg, v)
			}
			g.Write32(0, ringControl, 1)
			g.RAM[0x10008] = 64  // length
			g.RAM[0x10028] = 100 // and of the second descriptor
			g.Write32(0, 0x10000, 2)
			g.Advance(43_500)
			if left := plan.Unfired(); len(left) != 0 {
				t.Fatalf("never fired: %q", left)
			}
			seen := len(g.Interrupts)
			g.Write32(0, ringControl, reset) // of a ring: ends no stall
			if stalls := strings.HasPrefix(text, "device:stall"); stalls {
				g.Write32(0, ringControl+0x3c, 1) // NOTIFY
				g.Advance(100_000)
				if v := g.Read32(0, ringControl+0x3c); v != 1 {
					t.Errorf("after the ring's reset NOTIFY is %d, and the device stalls no more", v)
				}
			}
			g.Write32(0, control, reset)
			if events := g.Events(); len(events) != 1 || g.INTx {
				t.Errorf("events %v are left, the pin is %v", events, g.INTx)
			}
			memory := bytes.Clone(g.RAM)
			g.Advance(10_000)
			if v := g.Read32(0, status); v != 1 {
				t.Errorf("STATUS is %#x", v)
			}
			g.Run()
			if n := len(g.Interrupts) - seen; n != 0 || !bytes.Equal(memory, g.RAM) {
				t.Errorf("after the reset there were %d interrupts, or memory was written", n)
			}
			// It works.
			g.Write32(0, control, 1)
			g.Write32(0, ringControl+0x3c, 1)
			g.Advance(10_000)
			if v := g.Read32(0, ringControl+0x3c); v != 0 {
				t.Errorf("NOTIFY is %d", v)
			}
			if n := len(g.Interrupts) - seen; g.MessageOn && n != 1 {
				t.Errorf("%d interrupts for one", n)
			}
		})
	}
}
