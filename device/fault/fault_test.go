package fault

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fifovm/device"
	"fifovm/device/devicetest"
	"fifovm/device/trace"
)

// toy copies eight bytes at a time. Its registers:
//
//	0x00 doorbell: a write of v starts a job with vector v&1
//	0x08 jobs done; 0x10 jobs failed
//	0x18 cleared by reading: jobs done since
//	0x20 the interrupt pin: 1 while a job's end is not acknowledged; write: acknowledge
//
// A job takes 1 µs. It reads at 0x100, writes at 0x200 + 8*jobs done and raises
// its interrupt.
type toy struct {
	host device.Host
	s    toyState
}

type toyState struct{ Done, Failed, Since, Pin uint64 }

const jobTime = 1000

func (m *toy) Info() device.Info {
	return device.Info{
		Vendor: 1, Device: 2, MSIX: 2, MSIXBAR: 1, INTx: true,
		BARs: []device.BAR{{Index: 0, Size: 4096}, {Index: 2, Size: 4096}},
	}
}

func (m *toy) Attach(h device.Host) { m.host = h }

func (m *toy) Read(bar int, off uint64, data []byte) {
	v := [...]uint64{0, m.s.Done, m.s.Failed, m.s.Since, m.s.Pin}[min(off/8, 4)]
	if off/8 == 3 {
		m.s.Since = 0
	}
	for i := range data {
		data[i] = byte(v >> (8 * i))
	}
}

func (m *toy) Write(bar int, off uint64, data []byte) {
	switch off {
	case 0:
		m.host.Schedule(m.host.Now()+jobTime, uint32(data[0]&1), 0)
	case 0x20:
		m.s.Pin = 0
		m.host.SetINTx(false)
	}
}

func (m *toy) Event(kind uint32, _ uint64) {
	var p [8]byte
	err := m.host.DMARead(0x100, p[:])
	if err == nil {
		err = m.host.DMAWrite(0x200+8*m.s.Done, p[:])
	}
	if err != nil {
		m.s.Failed++
	} else {
		m.s.Done++
		m.s.Since++
	}
	m.s.Pin = 1
	m.host.SetINTx(true)
	m.host.Raise(int(kind))
}

func (m *toy) Reset()     { m.s = toyState{}; m.host.SetINTx(false) }
func (m *toy) State() any { return m.s }
func (m *toy) SetState(decode func(any) error) error {
	var s toyState
	if err := decode(&s); err != nil {
		return err
	}
	m.s = s
	return nil
}

// bench is a toy behind a boundary, with a plan and a trace.
type bench struct {
	*devicetest.Host
	b    *device.Boundary
	plan *Plan
	log  *trace.Log
}

const source = 0x1122334455667788

func newBench(t testing.TB, plan string) *bench {
	t.Helper()
	p, err := Parse(plan)
	if err != nil {
		t.Fatal(err)
	}
	b := device.NewBoundary("toy0", &toy{})
	h := devicetest.New(b, 64<<10)
	binary.LittleEndian.PutUint64(h.RAM[0x100:], source)
	log := trace.New(10000)
	b.Trace(log)
	b.Inject(p)
	return &bench{h, b, p, log}
}

// jobs runs n jobs, one after another, and acknowledges each.
func (b *bench) jobs(n int) {
	for range n {
		b.Write32(0, 0, 0)
		b.Advance(2 * jobTime)
		b.Write32(0, 0x20, 0)
	}
}

func (b *bench) done() uint64   { return b.b.Model().(*toy).s.Done }
func (b *bench) failed() uint64 { return b.b.Model().(*toy).s.Failed }

// out is what was written for job i.
func (b *bench) out(i int) uint64 { return binary.LittleEndian.Uint64(b.RAM[0x200+8*i:]) }

func (b *bench) times() []int64 {
	var times []int64
	for _, i := range b.Interrupts {
		times = append(times, i.Time)
	}
	return times
}

func (b *bench) text(t testing.TB) string {
	t.Helper()
	var w bytes.Buffer
	if err := b.log.WriteText(&w); err != nil {
		t.Fatal(err)
	}
	return w.String()
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func wantSlice[T comparable](t *testing.T, what string, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestKinds has each fault do what docs/faults.md says.
func TestKinds(t *testing.T) {
	tests := []struct {
		plan  string
		fired []uint64
		run   func(t *testing.T, b *bench)
	}{
		{"irq[0]:drop@2", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(3)
			wantSlice(t, "interrupts", b.times(), 1000, 5000)
		}},
		{"irq:delay=7us@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(3)
			b.Run()
			wantSlice(t, "interrupts", b.times(), 3000, 5000, 8000)
			want(t, "first output, by then", b.out(0), source)
		}},
		{"irq:dup=3@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(1)
			b.Run()
			wantSlice(t, "interrupts", b.times(), 1000, 11000, 21000, 31000)
		}},
		{"irq:dup@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(1)
			b.Run()
			wantSlice(t, "interrupts", b.times(), 1000, 11000)
		}},
		{"irq[1]:spurious@time 1500ns", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(1)
			wantSlice(t, "interrupts", b.Interrupts, devicetest.Interrupt{Time: 1000}, devicetest.Interrupt{Time: 1500, Vector: 1})
		}},
		{"irq[1]:spurious@2 on dma.write", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(2)
			wantSlice(t, "interrupts", b.Interrupts, devicetest.Interrupt{Time: 1000}, devicetest.Interrupt{Time: 3000, Vector: 1}, devicetest.Interrupt{Time: 3000})
		}},
		{"irq:swap@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.Write32(0, 0, 0)
			b.Advance(jobTime)
			b.Write32(0, 0, 1)
			b.Advance(jobTime)
			wantSlice(t, "interrupts", b.Interrupts, devicetest.Interrupt{Time: 2000, Vector: 1}, devicetest.Interrupt{Time: 2000, Vector: 0})
			b.jobs(1)
			want(t, "interrupts after", len(b.Interrupts), 3)
		}},
		{"irq:storm=100/1us@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(1)
			b.Run()
			want(t, "interrupts", len(b.Interrupts), 101)
		}},
		{"irq[1]:storm@time 5us", []uint64{1}, func(t *testing.T, b *bench) {
			b.Run()
			want(t, "interrupts", b.Count(1), 1000)
			want(t, "last one", b.Interrupts[999].Time, 5000+999*1000)
		}},
		{"irq[intx]:drop@2", []uint64{1}, func(t *testing.T, b *bench) {
			b.MessageOn = false
			var levels []bool
			for range 3 {
				b.Write32(0, 0, 0)
				b.Advance(jobTime)
				levels = append(levels, b.INTx)
				b.Write32(0, 0x20, 0)
			}
			wantSlice(t, "pin", levels, true, false, true)
			want(t, "pin at the end", b.INTx, false)
		}},
		{"irq[intx]:delay=5us@1..2", []uint64{2}, func(t *testing.T, b *bench) {
			b.MessageOn = false
			b.Write32(0, 0, 0)
			b.Advance(jobTime)
			want(t, "pin before", b.INTx, false)
			b.Advance(5000)
			want(t, "pin after", b.INTx, true)
			b.Write32(0, 0x20, 0)
			want(t, "pin acknowledged", b.INTx, false)
			b.Write32(0, 0, 0)
			b.Advance(jobTime)
			b.Write32(0, 0x20, 0)
			b.Advance(5000)
			want(t, "pin, acknowledged before it came", b.INTx, false)
		}},
		{"irq:spurious@time 5us", []uint64{1}, func(t *testing.T, b *bench) {
			b.MessageOn = false
			b.Advance(5000)
			want(t, "pin", b.INTx, true)
			b.Advance(1000)
			want(t, "pin after", b.INTx, false)
		}},

		{"dma.write:error@2", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(3)
			want(t, "failed", b.failed(), 1)
			want(t, "done", b.done(), 2)
			want(t, "third output", b.out(2), 0)
		}},
		{"dma.read:error@2..3", []uint64{2}, func(t *testing.T, b *bench) {
			b.jobs(4)
			want(t, "failed", b.failed(), 2)
		}},
		{"dma.write:short=3@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(1)
			want(t, "failed", b.failed(), 1)
			want(t, "output", b.out(0), source&0xffffff)
		}},
		{"dma.write:short@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(1)
			want(t, "output", b.out(0), source&0xffffffff)
		}},
		{"dma.read:short=0@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(1)
			want(t, "failed", b.failed(), 1)
		}},
		{"dma.write:flip=9@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(2)
			want(t, "output", b.out(0), source^1<<9)
			want(t, "next output", b.out(1), source)
			want(t, "failed", b.failed(), 0)
		}},
		{"dma.read:flip=73@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(1)
			want(t, "output", b.out(0), source^1<<9)
			want(t, "source in memory", binary.LittleEndian.Uint64(b.RAM[0x100:]), source)
		}},
		{"dma.write:xor=0xff00ff@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(1)
			want(t, "output", b.out(0), source^0xff00ff)
		}},
		{"dma.write:drop@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(2)
			want(t, "failed", b.failed(), 0)
			want(t, "output", b.out(0), 0)
			want(t, "next output", b.out(1), source)
		}},
		{"dma.read:ones@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(1)
			want(t, "output", b.out(0), ^uint64(0))
		}},
		{"dma.write:delay=10us@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.Write32(0, 0, 0)
			b.Write32(0, 0, 1)
			b.Advance(jobTime)
			b.Write32(0, 0, 0) // its event waits too
			b.Advance(9000)
			want(t, "output before", b.out(0), 0)
			want(t, "jobs before", b.done(), 1)
			want(t, "interrupts before", len(b.Interrupts), 0)
			b.Advance(1000)
			for i := range 3 {
				want(t, fmt.Sprintf("output %d", i), b.out(i), source)
			}
			wantSlice(t, "interrupts", b.Interrupts, devicetest.Interrupt{Time: 11000}, devicetest.Interrupt{Time: 11000, Vector: 1}, devicetest.Interrupt{Time: 11000})
		}},
		{"dma.write:delay=10us@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.Write32(0, 0, 0)
			b.Advance(jobTime)
			want(t, "output before", b.out(0), 0)
			want(t, "done, read", b.Read64(0, 8), 1)
			want(t, "output: a read pushes writes before it", b.out(0), source)
			want(t, "interrupts too", len(b.Interrupts), 1)
		}},
		{"dma.read:delay=10us@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.Write32(0, 0, 0)
			b.Advance(10 * jobTime)
			want(t, "output before", b.out(0), 0)
			b.Advance(jobTime)
			want(t, "output", b.out(0), source)
			wantSlice(t, "interrupts", b.times(), 11000)
		}},

		{"mmio.read:ones@2", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(1)
			want(t, "first", b.Read32(0, 8), 1)
			want(t, "second", b.Read32(0, 0x18), ^uint32(0))
			want(t, "third: not cleared by the second", b.Read32(0, 0x18), 1)
		}},
		{"mmio.read:ones@3..", []uint64{4}, func(t *testing.T, b *bench) {
			for i := range 6 {
				want(t, fmt.Sprint("read ", i+1), b.Read32(0, 8) != 0, i >= 2)
			}
		}},
		{"mmio.read[0x8]:stuck1=0x100; mmio.read[0:8]:stuck0=1", []uint64{3, 2}, func(t *testing.T, b *bench) {
			b.jobs(3)
			want(t, "stuck", b.Read32(0, 8), 0x102)
			want(t, "as bytes", b.Read64(0, 8), 0x102)
			want(t, "another register", b.Read32(0, 0x18), 3)
			want(t, "another BAR", b.Read32(2, 8), 0x103) // [0x8] is for any BAR
		}},
		{"mmio.read[0x8]:stale@3", []uint64{1}, func(t *testing.T, b *bench) {
			b.Read32(0, 8)
			b.jobs(1)
			want(t, "fresh", b.Read32(0, 8), 1)
			b.jobs(1)
			want(t, "stale", b.Read32(0, 8), 1)
			want(t, "fresh again", b.Read32(0, 8), 2)
		}},
		{"mmio.read:stale@2..", []uint64{1}, func(t *testing.T, b *bench) {
			b.Read32(0, 8)
			b.jobs(1)
			want(t, "nothing to be stale", b.Read32(0, 0x18), 1)
			want(t, "stale", b.Read32(0, 8), 0)
		}},
		{"mmio.read:xor=0x80@1", []uint64{1}, func(t *testing.T, b *bench) {
			want(t, "read", b.Read32(0, 8), 0x80)
		}},
		{"mmio.write[0]:drop@2", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(3)
			want(t, "done", b.done(), 2)
		}},
		{"mmio.write[0x0]:xor=1@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(1)
			want(t, "vector", b.Interrupts[0].Vector, 1)
		}},

		{"event:drop@1", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(2)
			want(t, "done", b.done(), 1)
		}},
		{"event[1]:delay=5us@next", []uint64{1}, func(t *testing.T, b *bench) {
			b.Write32(0, 0, 1)
			b.Advance(5999)
			want(t, "done before", b.done(), 0)
			b.Advance(1)
			want(t, "done", b.done(), 1)
		}},
		{"device:stall@3 on event", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(5)
			b.Run()
			want(t, "done", b.done(), 2)
			b.Reset()
			b.Master, b.MessageOn = true, true
			b.jobs(2)
			want(t, "done after the reset", b.done(), 2)
		}},
		{"device:stall=20us@time 2500ns", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(5)
			want(t, "done before", b.done(), 1)
			b.Advance(12_500)
			want(t, "done after", b.done(), 5)
		}},
		{"device:reset@2 on dma.write", []uint64{1}, func(t *testing.T, b *bench) {
			b.Write32(0, 0, 0)
			b.Advance(500)
			b.Write32(0, 0, 0)
			b.Advance(100)
			b.Write32(0, 0, 0)
			b.Run()
			want(t, "done", b.done(), 0)
			want(t, "interrupts", len(b.Interrupts), 1)
			want(t, "second output", b.out(1), 0)
			b.jobs(1)
			want(t, "done afterwards", b.done(), 1)
		}},
		{"device:reset@1 on mmio.read", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(3)
			want(t, "done", b.Read32(0, 8), 0)
		}},
		{"device:remove@2 on irq", []uint64{1}, func(t *testing.T, b *bench) {
			told := 0
			b.b.OnRemove = func() { told++ }
			b.jobs(3)
			want(t, "told", told, 1)
			want(t, "interrupts", len(b.Interrupts), 1)
			want(t, "read", b.Read32(0, 8), ^uint32(0))
			want(t, "events left", len(b.Events()), 0)
			b.b.Plug()
			b.jobs(2)
			want(t, "done after it came back", b.Read32(0, 8), 2)
		}},
		{"device:remove@1 on dma.read", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(1)
			want(t, "failed", b.failed(), 1) // the model has its error
			want(t, "read", b.Read32(0, 8), ^uint32(0))
		}},
		{"device:remove@time 3us", []uint64{1}, func(t *testing.T, b *bench) {
			b.jobs(3)
			want(t, "interrupts", len(b.Interrupts), 1)
		}},
		{"device:remove", []uint64{1}, func(t *testing.T, b *bench) {
			want(t, "read", b.Read32(0, 8), ^uint32(0))
		}},
	}
	tested := map[string]bool{}
	for _, test := range tests {
		t.Run(strings.ReplaceAll(test.plan, "/", " per "), func(t *testing.T) {
			b := newBench(t, test.plan)
			test.run(t, b)
			for i, c := range b.plan.Fired() {
				want(t, "fired "+c.Fault, c.Fired, test.fired[i])
			}
			text := b.text(t)
			for _, f := range b.plan.faults {
				tested[fmt.Sprint(f.what.class, ":", f.action.spec().name)] = true
				if !strings.Contains(text, f.text) {
					t.Errorf("the trace does not name %s:\n%s", f.text, text)
				}
			}
			again := newBench(t, test.plan)
			test.run(t, again)
			if d := cmp.Diff(text, again.text(t)); d != "" {
				t.Errorf("the trace differs when run again:\n%s", d)
			}
		})
	}
	for _, s := range specs {
		ok := false
		for _, c := range s.classes {
			ok = ok || tested[fmt.Sprint(c, ":", s.name)]
		}
		if !ok {
			t.Errorf("%s is not tested", s.name)
		}
	}
}

// TestPoints has each form of a point hit the crossings that it names.
func TestPoints(t *testing.T) {
	tests := []struct {
		plan string
		hit  []int // of 12 reads, 1 µs apart, the first one at 1 µs
	}{
		{"mmio.read:ones@3", []int{3}},
		{"mmio.read:ones@3..5", []int{3, 4, 5}},
		{"mmio.read:ones@10..", []int{10, 11, 12}},
		{"mmio.read:ones@every 5", []int{5, 10}},
		{"mmio.read:ones@every 5 from 2", []int{2, 7, 12}},
		{"mmio.read:ones@next", []int{1}},
		{"mmio.read:ones", []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		{"mmio.read:ones@always", []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		{"mmio.read:ones@time 3us", []int{3}},
		{"mmio.read:ones@time 3500ns", []int{4}},
		{"mmio.read:ones@time 3us..5us", []int{3, 4, 5}},
		{"mmio.read:ones@time 11us..", []int{11, 12}},
		{"toy0/mmio.read:ones@3", []int{3}},
		{"toy1/mmio.read:ones@3", nil},
		{"mmio.read[8]:ones@2", []int{4}}, // the even ones are at 8
		{"mmio.read[0:9..0xb]:ones@2", []int{4}},
		{"mmio.read[2:8]:ones@2", nil},
		{"mmio.read[0..0x20]:ones@2", []int{2}},
	}
	for _, test := range tests {
		b := newBench(t, test.plan)
		var hit []int
		for i := 1; i <= 12; i++ {
			b.Advance(1000)
			if b.Read32(0, uint64(8+i%2*8)) != 0 {
				hit = append(hit, i)
			}
		}
		wantSlice(t, test.plan, hit, test.hit...)
		want(t, test.plan+": fired", b.plan.Fired()[0].Fired, uint64(len(test.hit)))
		if unfired := b.plan.Unfired(); (len(unfired) == 1) != (len(test.hit) == 0) {
			t.Errorf("%s: unfired %q", test.plan, unfired)
		}
	}
}

// TestArmRunning arms and clears while the device works.
func TestArmRunning(t *testing.T) {
	b := newBench(t, "")
	b.jobs(2)
	if err := b.plan.Arm("irq[0]:drop@next; irq:drop@2; toy0/irq[1]:spurious@time 7us"); err != nil {
		t.Fatal(err)
	}
	b.jobs(2)
	wantSlice(t, "interrupts", b.Interrupts, devicetest.Interrupt{Time: 1000}, devicetest.Interrupt{Time: 3000},
		devicetest.Interrupt{Time: 7000, Vector: 1}, devicetest.Interrupt{Time: 7000})
	wantSlice(t, "unfired: its number is past", b.plan.Unfired(), "irq:drop@2")
	b.plan.Clear()
	if err := b.plan.Arm("irq:drop@6"); err != nil {
		t.Fatal(err)
	}
	b.jobs(2)
	wantSlice(t, "fired", b.plan.Fired(), Count{"irq[0]:drop@next", 1}, Count{"irq:drop@2", 0},
		Count{"toy0/irq[1]:spurious@time 7us", 1}, Count{"irq:drop@6", 1})
	if err := b.plan.Arm("irq:drop@next"); err != nil {
		t.Fatal(err)
	}
	if err := b.plan.Arm("irq:drop@8; irq:drop@9"); err != nil {
		t.Fatal(err)
	}
	b.plan.ClearFrom(5) // the others stay
	b.jobs(3)
	wantSlice(t, "fired, of which some were cleared", b.plan.Fired()[3:], Count{"irq:drop@6", 1}, Count{"irq:drop@next", 1},
		Count{"irq:drop@8", 0}, Count{"irq:drop@9", 0})
	if err := b.plan.Arm("irq:drop@x"); err == nil {
		t.Error("a plan that can't be read was armed")
	}
}

// TestSeed: a flipped bit is drawn from the seed, again the same, and of each
// transfer another.
func TestSeed(t *testing.T) {
	outputs := func(plan string) (out [8]uint64) {
		b := newBench(t, plan)
		b.jobs(8)
		for i := range out {
			out[i] = b.out(i) ^ source
		}
		return out
	}
	a, again, other := outputs("seed=7; dma.write:flip"), outputs("dma.write:flip; seed=7"), outputs("seed=8; dma.write:flip")
	want(t, "the same seed", again, a)
	if a == other {
		t.Error("another seed flips the same bits")
	}
	seen := map[uint64]bool{}
	for _, v := range a {
		if v&(v-1) != 0 || v == 0 {
			t.Errorf("%#x is not one bit", v)
		}
		seen[v] = true
	}
	if len(seen) < 3 {
		t.Errorf("8 transfers have only %d bits flipped", len(seen))
	}
}

func TestErrorsAreInjected(t *testing.T) {
	b := newBench(t, "dma.write:error@1; dma.read:short=4@1")
	h := hostOf(b)
	var dma *device.Error
	err := h.DMAWrite(0x200, []byte{1})
	if !errors.Is(err, device.ErrInjected) || !errors.As(err, &dma) || dma.Op != "write" || dma.Addr != 0x200 || dma.Size != 1 {
		t.Errorf("%#v", err)
	}
	p := make([]byte, 8)
	if err := h.DMARead(0x100, p); !errors.Is(err, device.ErrInjected) {
		t.Error(err)
	}
	want(t, "read", binary.LittleEndian.Uint64(p), source&0xffffffff)
	b.b.Remove()
	if err := h.DMARead(0x100, p); !errors.Is(err, device.ErrRemoved) {
		t.Error(err)
	}
}

func hostOf(b *bench) device.Host { return b.b.Model().(*toy).host }

// TestReadsSeeQueued: what the device has written is there for itself.
func TestReadsSeeQueued(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := newBench(t, "dma.write:delay=1ms@next")
	h := hostOf(b)
	model := slices.Clone(b.RAM[:256])
	for range 200 {
		off, n := r.IntN(200), 1+r.IntN(50)
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		if r.IntN(2) == 0 {
			if err := h.DMAWrite(uint64(off), p); err != nil {
				t.Fatal(err)
			}
			copy(model[off:], p)
		} else {
			if err := h.DMARead(uint64(off), p); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(p, model[off:off+n]) {
				t.Fatalf("read of %d at %d differs", n, off)
			}
		}
	}
	if bytes.Equal(b.RAM[:256], model) {
		t.Error("nothing was held back")
	}
	if err := h.DMAWrite(1<<40, []byte{1}); !errors.Is(err, device.ErrAddress) {
		t.Errorf("a queued write outside RAM: %v", err)
	}
	b.Run()
	if !bytes.Equal(b.RAM[:256], model) {
		t.Error("memory differs in the end")
	}
}

// TestQueueIsBounded: a device that goes on sending while it is held up does not
// make the host's memory grow.
func TestQueueIsBounded(t *testing.T) {
	b := newBench(t, "dma.write:delay=1s@next; irq:delay=1s")
	h := hostOf(b)
	p := make([]byte, 32<<10)
	for range 1000 {
		if err := h.DMAWrite(0, p); err != nil {
			t.Fatal(err)
		}
	}
	for range 10000 {
		h.Raise(0)
	}
	s := b.b.State().(device.BoundaryState)
	size := 0
	for _, q := range s.Queue {
		size += len(q.Data)
	}
	if size > 4<<20 || len(s.Queue) > 4096 || len(s.Late) > 4096 {
		t.Errorf("%d bytes, %d entries, %d late interrupts", size, len(s.Queue), len(s.Late))
	}
	b.Run()
	want(t, "interrupts", b.Count(0), 10000)

	// What is too large to be held back is not; what would find no room either.
	b = newBench(t, "dma.write:delay=1s@next; event:delay=1s")
	b.RAM = make([]byte, 8<<20)
	h = hostOf(b)
	if err := h.DMAWrite(0, bytes.Repeat([]byte{7}, 8<<20)); err != nil {
		t.Fatal(err)
	}
	want(t, "the last byte", b.RAM[8<<20-1], 7)
	for i := range 5000 {
		h.Schedule(0, 1, uint64(i))
	}
	b.Advance(jobTime)
	want(t, "events that wait", len(b.b.State().(device.BoundaryState).Queue), 5000)
	h.Raise(0)
	want(t, "interrupts beside them", b.Count(0), 1)
	b.Run()
	want(t, "jobs", b.done()+b.failed(), 5000)
}

// TestStallHoldsWaiting: a stall is also for events that wait for another reason.
func TestStallHoldsWaiting(t *testing.T) {
	for _, test := range []struct {
		stall string
		done  []uint64 // after 5, 20 and 50 µs
	}{
		{"device:stall=30us@time 2us", []uint64{0, 0, 2}},
		{"device:stall@time 2us", []uint64{0, 0, 0}},
		{"device:stall=2us@time 2us", []uint64{0, 2, 2}}, // the delay is longer
	} {
		b := newBench(t, "event:delay=9us; "+test.stall)
		b.Write32(0, 0, 0)
		b.Write32(0, 0, 0)
		for i, d := range []int64{5_000, 15_000, 30_000} {
			b.Advance(d)
			want(t, fmt.Sprintf("%s: done at %d", test.stall, b.Now()), b.done(), test.done[i])
		}
	}
}

// TestMove: a boundary and a plan that are put into the state of others, at any
// moment of a random run, go on as those would have.
func TestMove(t *testing.T) {
	faults := []string{
		"irq:drop@every 3", "irq:delay=1500ns@every 4", "irq:dup=2@every 5", "irq:swap@every 3 from 2", "irq[1]:storm=20/9us@4",
		"irq:spurious@time 9us", "dma.write:delay=3us@every 4", "dma.read:delay=2us@3", "dma.read:error@2..3", "mmio.read:stale@2..",
		"mmio.read[8]:stuck1=0x10", "device:stall=5us@5 on event", "device:reset@9 on event", "dma.write:flip", "seed=5",
		"device:remove@20", "event:delay=2us@every 2", "device:stall@time 20us", "irq[intx]:drop@2",
	}
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		var plan []string
		for range 1 + r.IntN(4) {
			plan = append(plan, faults[r.IntN(len(faults))])
		}
		steps := 40
		move := r.IntN(steps)
		message := r.IntN(4) != 0
		run := func(move int) (string, device.BoundaryState, []byte) {
			r := rand.New(rand.NewPCG(seed, 2))
			b := newBench(t, strings.Join(plan, ";"))
			b.MessageOn = message
			for i := range steps {
				// A new timer, as Attach sets one, is never closer than MinDelay.
				if n := b.Now(); i == move && (9000-n < 0 || 9000-n > device.MinDelay) && (20000-n < 0 || 20000-n > device.MinDelay) {
					to := device.NewBoundary("toy0", &toy{})
					p, err := Parse(strings.Join(plan, ";"))
					if err != nil {
						t.Fatal(err)
					}
					to.Inject(p)
					if err := b.Move(to); err != nil {
						t.Fatal(err)
					}
					to.Trace(b.log)
					b.b, b.plan = to, p
				}
				switch r.IntN(4) {
				case 0:
					b.Write32(0, 0, r.Uint32())
				case 1:
					b.Write32(0, 0x20, 0)
				case 2:
					b.Read32(0, 8*uint64(r.IntN(5)))
				case 3:
					b.Advance(r.Int64N(3000))
				}
			}
			b.Run()
			return b.text(t), b.b.State().(device.BoundaryState), b.RAM
		}
		text, state, ram := run(-1)
		text2, state2, ram2 := run(move)
		if d := cmp.Diff(text, text2); d != "" {
			t.Fatalf("seed %d, %q moved at step %d: traces differ:\n%s", seed, plan, move, d)
		}
		if d := cmp.Diff(state, state2); d != "" {
			t.Fatalf("seed %d, %q moved at step %d: states differ:\n%s", seed, plan, move, d)
		}
		if !bytes.Equal(ram, ram2) {
			t.Fatalf("seed %d, %q moved at step %d: memory differs", seed, plan, move)
		}
	}
}

// TestMoveIntoPlan: a state taken without faults goes on under a plan, which
// counts by the numbers of the state.
func TestMoveIntoPlan(t *testing.T) {
	b := newBench(t, "")
	b.jobs(3)
	to := device.NewBoundary("toy0", &toy{})
	p, err := Parse("irq[0]:drop@5; irq[1]:spurious@time 20us")
	if err != nil {
		t.Fatal(err)
	}
	to.Inject(p)
	if err := b.Move(to); err != nil {
		t.Fatal(err)
	}
	b.jobs(3)
	b.Advance(20000)
	wantSlice(t, "interrupts", b.times(), 1000, 3000, 5000, 7000, 11000, 20000)
	wantSlice(t, "unfired", p.Unfired())
}

func TestAllocations(t *testing.T) {
	work := func(b *bench) func() {
		b.Interrupts = make([]devicetest.Interrupt, 0, 1<<16)
		return func() {
			b.b.Model().(*toy).s.Done = 0
			b.Interrupts = b.Interrupts[:0]
			b.Write32(0, 0, 0)
			b.Advance(jobTime)
			b.Write32(0, 0x20, 0)
			b.Read32(0, 8)
		}
	}
	plain := devicetest.New(&toy{}, 64<<10)
	base := testing.AllocsPerRun(1000, func() {
		plain.Interrupts = plain.Interrupts[:0]
		plain.Write32(0, 0, 0)
		plain.Advance(jobTime)
		plain.Write32(0, 0x20, 0)
		plain.Read32(0, 8)
	})
	for _, test := range []struct {
		name, plan string
		trace      bool
	}{
		{"nothing armed", "", false},
		{"a trace", "", true},
		{"faults that do not fire", "irq:drop@1000000; dma.write[0x5000]:error; mmio.read:ones@time 1s", true},
	} {
		b := newBench(t, test.plan)
		if !test.trace {
			b.b.Trace(nil)
		}
		if n := testing.AllocsPerRun(1000, work(b)); n > base {
			t.Errorf("%s: %v allocations a job, %v without a boundary", test.name, n, base)
		}
	}
}

// TestFirstApplies: of several faults on one crossing one is applied, and only
// that has fired; if the device goes with it, none is.
func TestFirstApplies(t *testing.T) {
	b := newBench(t, "dma.write:flip=1@1; dma.write:error@1..2")
	b.jobs(2)
	wantSlice(t, "fired", b.plan.Fired(), Count{"dma.write:flip=1@1", 1}, Count{"dma.write:error@1..2", 1})
	want(t, "failed", b.failed(), 1)
	for _, what := range []string{"reset", "remove"} {
		b := newBench(t, "dma.write:flip=1@1; device:"+what+"@1 on dma.write")
		b.jobs(1)
		wantSlice(t, "unfired", b.plan.Unfired(), "dma.write:flip=1@1")
	}
}

// TestFilters tells vectors, kinds of events and addresses apart.
func TestFilters(t *testing.T) {
	b := newBench(t, "irq[1]:drop@2; event[1]:drop@3; dma.write[0x208..0x20f]:flip=0")
	for _, vector := range []uint32{0, 0, 1, 1, 0, 1, 0} {
		b.Write32(0, 0, vector)
		b.Advance(2 * jobTime)
	}
	want(t, "interrupts of vector 0", b.Count(0), 4)
	want(t, "interrupts of vector 1", b.Count(1), 1)
	want(t, "done", b.done(), 6)
	for i := range 6 {
		want(t, "output flipped", b.out(i) != source, i == 1)
	}
	for _, test := range []struct {
		lo, hi, addr uint64
		size         int
		want         bool
	}{
		{0x100, 0x107, 0xf8, 8, false},
		{0x100, 0x107, 0xf9, 8, true},
		{0x100, 0x107, 0x107, 8, true},
		{0x100, 0x107, 0x108, 8, false},
		{0x100, 0x107, 0, 0x1000, true},
		{0x100, 0x107, 0x100, 0, true},
		{0x100, 0x107, ^uint64(0) - 3, 8, false},
		{^uint64(0), ^uint64(0), ^uint64(0) - 3, 8, true}, // a transfer that would wrap
		{^uint64(0), ^uint64(0), ^uint64(0) - 7, 8, true},
		{^uint64(0), ^uint64(0), ^uint64(0) - 8, 8, false},
	} {
		f := target{class: device.ClassDMARead, filtered: true, bar: -1, lo: test.lo, hi: test.hi}
		c := device.Crossing{Class: device.ClassDMARead, Addr: test.addr, Size: test.size}
		want(t, fmt.Sprintf("%#x+%d in %#x..%#x", test.addr, test.size, test.lo, test.hi), f.matches(&c), test.want)
	}
}

// TestSwapHoldsOne: of interrupts that would all be swapped, every other one is.
func TestSwapHoldsOne(t *testing.T) {
	b := newBench(t, "irq:swap")
	h := hostOf(b)
	for i := range 6 {
		h.Raise(i / 2 % 2)
		h.Raise(1 - i/2%2)
	}
	want(t, "fired", b.plan.Fired()[0].Fired, uint64(6))
	want(t, "interrupts", len(b.Interrupts), 12)
	want(t, "first", b.Interrupts[0].Vector, 1)
	h.Raise(0)
	b.Reset()
	b.MessageOn = true
	h.Raise(1)
	want(t, "interrupts after a reset: the held one is lost", len(b.Interrupts), 12)
}

// TestPin: a level takes no fault that only a message can have.
func TestPin(t *testing.T) {
	for _, plan := range []string{"irq:dup", "irq:swap"} {
		b := newBench(t, plan)
		b.MessageOn = false
		b.Write32(0, 0, 0)
		b.Run()
		want(t, "pin", b.INTx, true)
		wantSlice(t, "unfired", b.plan.Unfired(), plan)
	}
	b := newBench(t, "irq:spurious@time 1500ns")
	b.MessageOn = false
	b.Write32(0, 0, 0)
	b.Run()
	want(t, "pin after a pulse while it was up", b.INTx, true)
	hostOf(b).SetINTx(true)
	want(t, "interrupts of the pin", b.b.Number(device.ClassIRQ, device.INTx), 1)

	b = newBench(t, "device:remove@1 on irq")
	b.MessageOn = false
	b.Write32(0, 0, 0)
	b.Run()
	want(t, "pin of a device that has gone", b.INTx, false)
}

// TestModelsData: what is corrupted on its way stays right where it came from,
// and what waits is what it was.
func TestModelsData(t *testing.T) {
	b := newBench(t, "dma.write:xor=0xff@1; dma.write:delay=1us@2")
	h := hostOf(b)
	p := []byte{1, 2, 3, 4}
	for range 2 {
		if err := h.DMAWrite(0x200, p); err != nil {
			t.Fatal(err)
		}
		wantSlice(t, "the model's own", p, 1, 2, 3, 4)
	}
	p[0] = 9
	b.Run()
	want(t, "written late", b.RAM[0x200], 1)
}

// TestCancelWaiting: the model can take back an event that waits.
func TestCancelWaiting(t *testing.T) {
	b := newBench(t, "event:delay=5us@1")
	b.Write32(0, 0, 0)
	b.Write32(0, 0, 0)
	b.Write32(0, 0, 1)
	b.Advance(jobTime)
	want(t, "taken back", hostOf(b).Cancel(0), 2)
	b.Run()
	want(t, "done", b.done(), 1)
}

// TestResetForgets what was late, and leaves no event behind.
func TestResetForgets(t *testing.T) {
	b := newBench(t, "irq:delay=50us@1; dma.write:delay=50us@2")
	b.Write32(0, 0, 0)
	b.Write32(0, 0, 0)
	b.Write32(0, 0, 0)
	b.Advance(jobTime)
	b.b.Reset()
	want(t, "events left", len(b.Events()), 0)
	b.jobs(1)
	want(t, "done", b.done(), 1)
	want(t, "interrupts", len(b.Interrupts), 1)
}

func TestRemoveAtWrite(t *testing.T) {
	b := newBench(t, "device:remove@1 on mmio.write")
	b.Write32(0, 0, 0)
	want(t, "events", len(b.Events()), 0)
	b = newBench(t, "device:remove@2 on mmio.write")
	b.Write32(0, 0, 0)
	b.Advance(jobTime)
	b.Write32(0, 0x20, 0)
	want(t, "a register of the model's that the write would change", b.b.Model().(*toy).s.Pin, 1)
}

// TestStaleIsBounded: the values of a few hundred registers are known, those
// read last.
func TestStaleIsBounded(t *testing.T) {
	b := newBench(t, "mmio.read[0x8..0xfff]:stale@301..")
	for i := range uint64(300) {
		b.Read32(0, 0x20+4*i)
	}
	want(t, "values", len(b.b.State().(device.BoundaryState).Faults[0].Values), staleReads)
	b.Read32(0, 0x20)
	want(t, "fired of one forgotten", b.plan.Fired()[0].Fired, uint64(0))
	b.Read32(0, 0x20+4*299)
	want(t, "fired of the last one", b.plan.Fired()[0].Fired, uint64(1))
}

// TestStateIsACopy: what happens later does not change a state.
func TestStateIsACopy(t *testing.T) {
	b := newBench(t, "irq:delay=9us@1..3; dma.write:delay=20us@4; mmio.read:stale@9")
	b.Read32(0, 8)
	for range 4 {
		b.Write32(0, 0, 0)
		b.Advance(2 * jobTime)
	}
	s := b.b.State()
	before := fmt.Sprintf("%+v", s)
	b.Read32(0, 8)
	b.jobs(3)
	b.Run()
	want(t, "state", fmt.Sprintf("%+v", s), before)
}

// TestStateRefused: the counts of a state fit the faults, or are refused.
func TestStateRefused(t *testing.T) {
	b := newBench(t, "irq:drop@1; irq:drop@2")
	f := b.plan.Bind(b.b)
	good := f.State()
	if err := f.SetState(good); err != nil {
		t.Error(err)
	}
	for _, bad := range [][]device.FaultState{
		nil,
		good[:1],
		{good[1], good[0]},
		{{Text: good[0].Text, Fired: 1}, good[1]},
		{{Text: good[0].Text, Values: make([]device.ReadValue, staleReads+1)}, good[1]},
	} {
		if f.SetState(bad) == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}
