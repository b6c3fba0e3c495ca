package fifo

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"fifovm/device"
)

// program is a random program of a driver, on channel 0 in loopback, and the
// reference that it is compared with: a queue of bytes. All that it does is
// decided by its seed.
type program struct {
	*rig
	cfg    Config
	rand   *rand.Rand
	faults bool // DMA fails now and then, and descriptors are bad
	failed int  // DMA accesses

	cookie   uint64
	requests [2][]*request // not completed, in order
	queue    []byte        // what is in the FIFO
	counted  [2]uint64     // bytes that are accounted for
	from     uint64        // where the buffers begin
	image    []byte        // what must be in them
	slots    [32]bool      // those in use
	log      strings.Builder
	did      map[string]int
}

type request struct {
	cookie      uint64
	pieces      []piece
	slot        int
	total, seen uint64 // bytes, and those that are accounted for
	aborted     bool   // was asked for
	bad         bool
}

const slotSize = 4096

func newProgram(t testing.TB, seed uint64, faults bool) *program {
	random := rand.New(rand.NewPCG(seed, 1))
	p := &program{rand: random, faults: faults, did: map[string]int{}}
	p.cfg = Config{Depth: MinDepth << random.IntN(3), Rate: 1 + random.Int64N(2000), Latency: 100 + random.Int64N(2000)}
	p.rig = newRig(t, p.cfg)
	for r := range 2 {
		p.setUp(r, 1+random.Uint32N(5), 1+random.Uint32N(4))
	}
	p.from = p.alloc(slotSize * len(p.slots))
	for i := range p.buffers() {
		p.buffers()[i] = 0xee
	}
	p.image = bytes.Clone(p.buffers())
	if faults {
		p.FailDMA = func(string, uint64, int) error {
			if p.faults && random.IntN(100) == 0 {
				p.failed++
				return errBus
			}
			return nil
		}
	}
	return p
}

func (p *program) buffers() []byte { return p.RAM[p.from:][:slotSize*len(p.slots)] }

// submit posts a request of random pieces with random gaps, if it can.
func (p *program) submit(r int) bool {
	d := &p.rings[r]
	// Aborted requests are passed over without a completion. One that is there
	// already would have an older head.
	if h := p.ring(r, regHead); p.rand.IntN(10) == 0 {
		if _, ok := p.peek(r); !ok {
			d.head = h
		}
	}
	room, slot := int((d.head-d.tail-1)&d.mask), p.rand.IntN(len(p.slots))
	if p.slots[slot] || room == 0 {
		return false
	}
	p.slots[slot] = true
	p.cookie++
	q := &request{cookie: p.cookie<<32 | p.cookie, slot: slot}
	at := p.from + uint64(slot)*slotSize
	largest := []uint32{1, 7, 100, 600}[p.rand.IntN(4)]
	for range 1 + p.rand.IntN(min(room, 6)) {
		at += p.rand.Uint64N(60)
		s := piece{at, 1 + p.rand.Uint32N(largest)}
		q.pieces = append(q.pieces, s)
		q.total += uint64(s.n)
		at += uint64(s.n)
		if r == tx {
			for i := range p.bytes(s) {
				p.bytes(s)[i] = byte(p.rand.Uint32())
			}
			copy(p.image[s.addr-p.from:], p.bytes(s))
		}
	}
	if p.faults && p.rand.IntN(40) == 0 {
		q.pieces[len(q.pieces)-1].n, q.bad = maxLength+1, true
	}
	p.requests[r] = append(p.requests[r], q)
	p.post(r, q.cookie, p.rand.Uint32N(2)*descInterrupt, q.pieces...)
	return true
}

// account takes a request's bytes up to the n-th into the queue, or out of it,
// where they must be the oldest.
func (p *program) account(r int, q *request, n uint64) {
	if n < q.seen || n > q.total {
		p.Fatalf("ring %d, request %#x of %d bytes: %d are done, and were %d", r, q.cookie, q.total, n, q.seen)
	}
	p.counted[r] += n - q.seen
	at := uint64(0) // of the piece, in the request
	for _, s := range q.pieces {
		from, to := max(q.seen, at), min(n, at+uint64(s.n))
		if from < to {
			addr := s.addr + from - at
			b := p.RAM[addr:][:to-from]
			if r == tx {
				p.queue = append(p.queue, b...)
			} else {
				if len(b) > len(p.queue) || !bytes.Equal(b, p.queue[:len(b)]) {
					p.Fatalf("request %#x has received %x, want %x", q.cookie, b, p.queue[:min(len(b), len(p.queue))])
				}
				p.queue = p.queue[len(b):]
				copy(p.image[addr-p.from:], b)
			}
		}
		at += uint64(s.n)
	}
	q.seen = n
}

// settle takes the completions, and accounts for them and for what is done of
// the present requests. The sender comes first: what a receiver has is known then.
func (p *program) settle() {
	for r := range 2 {
		for _, c := range p.take(r) {
			p.completed(r, c)
		}
		more := p.Read64(0, channelBase+[2]uint64{regTXBytes, regRXBytes}[r]) - p.counted[r]
		if more > 0 {
			if len(p.requests[r]) == 0 {
				p.Fatalf("ring %d has moved %d bytes for nobody", r, more)
			}
			q := p.requests[r][0]
			p.account(r, q, q.seen+more)
		}
	}
	if n := p.fill(); int(n) != len(p.queue) {
		p.Fatalf("FILL is %d, want %d", n, len(p.queue))
	}
}

func (p *program) completed(r int, c completion) {
	fmt.Fprintln(&p.log, p.Now(), r, c)
	i := slices.IndexFunc(p.requests[r], func(q *request) bool { return q.cookie == c.cookie })
	if i < 0 {
		p.Fatalf("ring %d: completion %+v of no request", r, c)
	}
	q := p.requests[r][i]
	good := c.done+c.residual == q.total
	switch c.status {
	case statusOK:
		good = good && i == 0 && !q.bad && (c.residual == 0 || r == rx && c.done > 0)
	case statusAborted:
		good = (good || q.bad) && q.aborted && (i == 0 || c.done == 0)
	case statusDrained:
		good = good && i == 0 && r == rx && c.done == 0
	case statusDMA:
		good = i == 0 && p.failed > 0 && c.done+c.residual <= q.total
	case statusDescriptor:
		good = i == 0 && q.bad && c.done == 0
	default:
		good = false
	}
	if !good {
		p.Fatalf("ring %d: completion %+v, %d in the order, of %+v", r, c, i, *q)
	}
	p.account(r, q, c.done)
	p.did[fmt.Sprint("status ", c.status)]++
	p.requests[r] = slices.Delete(p.requests[r], i, i+1)
	p.slots[q.slot] = false
}

// forget drops a ring's requests: it has been reset.
func (p *program) forget(r int) {
	for _, q := range p.requests[r] {
		p.slots[q.slot] = false
	}
	p.requests[r] = nil
}

func (p *program) resetRing(r int) {
	p.settle()
	p.reset(r)
	p.forget(r)
}

// bringUp sets everything up after a reset of all.
func (p *program) bringUp() {
	p.Master, p.MessageOn = true, true
	p.Write32(0, regControl, controlEnable)
	for r := range p.requests {
		d := &p.rings[r]
		p.setRing64(r, regBaseLow, d.base)
		p.setRing(r, regSize, uint32(log2(d.mask+1)))
		p.setRing64(r, regCompLow, d.comp)
		p.setRing(r, regCompSize, uint32(log2(d.compMask+1)))
		p.start(r)
		p.forget(r)
	}
	p.queue, p.counted = nil, [2]uint64{}
}

// step does something.
func (p *program) step() {
	r, what := p.rand.IntN(2), ""
	switch n := p.rand.IntN(200); {
	case n < 80:
		p.submit(r)
	case n < 150:
		p.Advance(p.rand.Int64N(1 << p.rand.IntN(17)))
	case n < 165:
		p.settle()
	case n < 175:
		cookie := uint64(12345)
		if k := len(p.requests[r]); k > 0 {
			q := p.requests[r][p.rand.IntN(k)]
			cookie, q.aborted = q.cookie, true
		}
		p.abort(r, cookie)
	case n < 180:
		what = "pause"
		p.setRing(r, regRingControl, 0)
		p.Advance(p.rand.Int64N(10_000))
		p.setRing(r, regRingControl, ringRun)
	case n < 184:
		what = "drain"
		p.setRing(r, regRingControl, ringRun|ringDrain)
	case n < 187:
		p.setRing(r, regCoalesce, p.rand.Uint32N(20)<<coalesceTime|p.rand.Uint32N(10))
	case n < 190:
		p.setRing(rx, regThreshold, p.rand.Uint32N(2000))
	case n < 191:
		what = "notify"
		p.setRing(r, regNotify, p.rand.Uint32N(uint32(p.cfg.Depth)))
	case n < 192:
		what = "flush"
		p.settle()
		p.Write32(0, channelBase+regChControl, chFlush)
		p.queue = nil
	case n < 195:
		what = "ring reset"
		p.resetRing(r)
	case n < 196:
		what = "soft reset"
		p.settle()
		p.Write32(0, regControl, controlReset)
		p.Advance(resetTime)
		p.bringUp()
	case n < 197:
		what = "function-level reset"
		p.settle()
		p.Host.Reset()
		p.bringUp()
	default:
		what = "disable"
		p.Write32(0, regControl, 0)
		p.Advance(p.rand.Int64N(10_000))
		p.Write32(0, regControl, controlEnable)
	}
	p.did[what]++
	checkLevels(p, p.f, p.Host)
	for r := range p.requests {
		switch p.ring(r, regRingStatus) & 0xff {
		case stateStopped: // a drain is over
			p.setRing(r, regRingControl, ringRun)
		case stateError:
			if !p.faults {
				p.Fatalf("ring %d: error %#x", r, p.ring(r, regRingStatus))
			}
			if p.rand.IntN(4) == 0 {
				p.did["error"]++
				p.resetRing(r)
			}
		}
	}
}

// finish has all end well: each request completes, each byte arrives.
func (p *program) finish() {
	p.faults = false
	p.FailDMA = nil
	p.setRing(rx, regThreshold, 0)
	for r := range p.requests {
		p.setRing(r, regCoalesce, 0)
		if p.ring(r, regRingStatus)&0xff == stateError {
			p.resetRing(r)
		}
		for _, q := range p.requests[r] {
			if q.bad {
				p.resetRing(r)
				break
			}
		}
	}
	for n := 0; ; n++ {
		p.run()
		p.settle()
		for r := range p.requests {
			if s := p.ring(r, regRingStatus); s == stateStopped {
				p.setRing(r, regRingControl, ringRun)
			} else if s != stateRunning && s != stateDraining {
				p.Fatalf("ring %d: status %#x", r, s)
			}
		}
		if len(p.Events()) == 0 && len(p.requests[tx]) == 0 && len(p.queue) == 0 {
			break
		}
		if n > 10_000 {
			p.Fatalf("it does not end: %d requests to send, %d bytes in the FIFO", len(p.requests[tx]), len(p.queue))
		}
		p.submit(rx)
	}
	p.setRing(rx, regRingControl, ringRun|ringDrain)
	for range p.requests[rx] {
		p.run()
		p.settle()
	}
	if n := len(p.requests[rx]); n != 0 {
		p.Fatalf("%d receivers are left", n)
	}
	if !bytes.Equal(p.image, p.buffers()) {
		for i := range p.image {
			if p.image[i] != p.buffers()[i] {
				p.Fatalf("a byte that belongs to no request has changed, at %#x of slot %d", i%slotSize, i/slotSize)
			}
		}
	}
}

// transcript is all that the program has seen.
func (p *program) transcript() string { return fmt.Sprint(p.log.String(), p.Interrupts) }

// TestPrograms: no byte is lost, invented or reordered.
func TestPrograms(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 30
	}
	did := map[string]int{}
	for seed := range seeds {
		p := newProgram(t, seed, seed%2 != 0)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p.TB = t
			for range 1000 {
				p.step()
			}
			p.finish()
		})
		for what, n := range p.did {
			did[what] += n
		}
	}
	for _, what := range []string{"pause", "drain", "notify", "flush", "ring reset", "soft reset", "function-level reset", "disable", "error",
		"status 0", "status 1", "status 2", "status 3", "status 5"} {
		if did[what] < int(seeds) {
			t.Errorf("%s: only %d times", what, did[what])
		}
	}
}

// TestStateAnywhere: a device that takes the state of another goes on as that
// would have.
func TestStateAnywhere(t *testing.T) {
	for seed := range uint64(20) {
		var want string
		for _, every := range []int{0, 1, 7} {
			p := newProgram(t, seed, seed%2 != 0)
			for i := range 300 {
				p.step()
				if every > 0 && i%every == 0 {
					f := newFIFO(t, p.cfg)
					if err := p.Move(f); err != nil {
						t.Fatal(err)
					}
					p.f = f
				}
			}
			p.finish()
			if every == 0 {
				want = p.transcript()
			} else if p.transcript() != want {
				t.Fatalf("seed %d: with the state moved each %d steps it is another run", seed, every)
			}
		}
	}
}

// TestBadState: what does not fit is refused, and changes nothing.
func TestBadState(t *testing.T) {
	g := newPair(t, Config{})
	g.post(tx, 1, 0, piece{0, 100})
	g.Advance(3 * defaultLatency / 2)
	good := func() State {
		s := g.f.State().(State)
		if !s.Rings[tx].Request.Valid || s.Channels[0].Fill != 100 {
			t.Fatalf("%+v", s)
		}
		return s
	}
	set := func(f *FIFO, s State) error {
		return f.SetState(func(into any) error {
			*into.(*State) = s
			return nil
		})
	}
	if err := set(newFIFO(t, Config{}), good()); err != nil {
		t.Fatal(err)
	}
	for i, spoil := range []func(s *State){
		func(s *State) { s.Channels = s.Channels[:1] },
		func(s *State) { s.Data = nil },
		func(s *State) { s.Rings = append(s.Rings, RingState{}) },
		func(s *State) { s.Channels[0].Fill = 99 },
		func(s *State) { s.Channels[1].Start = defaultDepth },
		func(s *State) { s.Channels[1].End = ends },
		func(s *State) { s.Channels[0].Fill, s.Data[0] = defaultDepth+1, make([]byte, defaultDepth+1) },
		func(s *State) { s.Rings[0].State = 4 },
		func(s *State) { s.Rings[0].Doing = phaseBlocked + 1 },
		func(s *State) { s.Rings[0].Phase = 2 },
		func(s *State) { s.Rings[0].Size = maxRingLog + 1 },
		func(s *State) { s.Rings[0].CompSize = 33 },
		func(s *State) { s.Rings[0].Head = 16 },
		func(s *State) { s.Rings[0].Tail = 16 },
		func(s *State) { s.Rings[0].DrainTail = 16 },
		func(s *State) { s.Rings[0].CompHead = 16 },
		func(s *State) { s.Rings[0].CompTail = 16 },
		func(s *State) { s.Rings[0].Vector = 5 },
		func(s *State) { s.Rings[0].AbortStatus = 4 },
		func(s *State) { s.Rings[1].Threshold = defaultDepth + 1 },
		func(s *State) { s.Rings[1].Notify = defaultDepth + 1 },
		func(s *State) { s.Rings[0].NotifyAt = 1 },
		func(s *State) { s.Rings[0].Request.Done = 101 },
		func(s *State) { s.Rings[0].Request.Length = 17 },
		func(s *State) { s.Rings[0].Request.Segment = 2 },
		func(s *State) { s.Rings[0].Request.Size = maxLength + 1 },
		func(s *State) { s.Rings[0].Request.Offset = 101 },
		func(s *State) { s.Global.Control = 2 },
		func(s *State) { s.Global.ErrorCause = 0x20 },
		func(s *State) { s.Global.Vector = 5 },
		func(s *State) { s.Global.IRQCause = 0x20 },
		func(s *State) { s.Global.IRQEnable = 0x20 },
	} {
		s := good()
		spoil(&s)
		f := newFIFO(t, Config{})
		if err := set(f, s); err == nil {
			t.Errorf("state %d is taken", i)
		}
		if f.rings[0].s != newFIFO(t, Config{}).rings[0].s || f.channels[0].s.Fill != 0 {
			t.Errorf("state %d is taken in part", i)
		}
	}
	if err := newFIFO(t, Config{}).SetState(func(any) error { return errBus }); !errors.Is(err, errBus) {
		t.Error(err)
	}
	// Events of nobody's.
	for _, kind := range []uint32{0xff, eventSource | 0x80, eventNotify, 0x600, eventKind, 1<<31 - 1} {
		var m device.Model = g.f
		m.Event(kind, 0)
	}
}
