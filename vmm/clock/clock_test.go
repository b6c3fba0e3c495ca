package clock

import (
	"cmp"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// hand is a time that the test sets.
type hand int64

func (h *hand) Now() int64 { return int64(*h) }

// log remembers payloads in the order of delivery; then, if set, runs after
// each.
type log struct {
	got  []uint64
	then func(kind uint32, payload uint64)
}

func (l *log) HandleEvent(kind uint32, payload uint64) {
	l.got = append(l.got, payload)
	if l.then != nil {
		l.then(kind, payload)
	}
}

func newClock() (*Clock, *hand, *log) {
	h, l := new(hand), new(log)
	c := New(h)
	c.Register("dev", l)
	return c, h, l
}

func (l *log) expect(t *testing.T, want ...uint64) {
	t.Helper()
	if !slices.Equal(l.got, want) {
		t.Errorf("delivered %v, want %v", l.got, want)
	}
	l.got = nil
}

func TestOrder(t *testing.T) {
	c, now, l := newClock()
	if c.Next() != Never {
		t.Errorf("next of an empty queue is %d", c.Next())
	}
	c.Schedule(30, "dev", 0, 3)
	c.Schedule(10, "dev", 0, 1)
	c.Schedule(20, "dev", 0, 21)
	c.Schedule(20, "dev", 0, 22)
	c.Schedule(20, "dev", 1, 23)
	if c.Next() != 10 {
		t.Errorf("next is %d", c.Next())
	}
	*now = 9
	c.RunDue()
	l.expect(t)
	*now = 20
	c.RunDue()
	l.expect(t, 1, 21, 22, 23)
	if c.Next() != 30 {
		t.Errorf("next is %d", c.Next())
	}
	*now = 1000
	c.RunDue()
	l.expect(t, 3)
}

// TestHandlerSchedules: an event that a handler adds waits for the next call,
// whatever its time, and keeps nothing back that was due.
func TestHandlerSchedules(t *testing.T) {
	for _, when := range []int64{-5, 0, 1, 2, 10} {
		c, now, l := newClock()
		l.then = func(_ uint32, payload uint64) {
			if payload < 100 {
				c.Schedule(when, "dev", 0, 100+payload)
			}
		}
		c.Schedule(1, "dev", 0, 1)
		c.Schedule(2, "dev", 0, 2)
		c.Schedule(10, "dev", 0, 3)
		*now = 10
		c.RunDue()
		l.expect(t, 1, 2, 3)
		c.RunDue()
		l.expect(t, 101, 102, 103)
	}
}

func TestHandlerCancels(t *testing.T) {
	c, now, l := newClock()
	l.then = func(uint32, uint64) { c.Cancel("dev", 7) }
	c.Schedule(1, "dev", 0, 1)
	c.Schedule(1, "dev", 7, 2)
	c.Schedule(1, "dev", 0, 3)
	*now = 1
	c.RunDue()
	l.expect(t, 1, 3)
}

func TestCancel(t *testing.T) {
	c, now, l := newClock()
	c.Register("other", l)
	for i := range uint64(10) {
		c.Schedule(int64(10-i), "dev", uint32(i%2), i)
	}
	c.Schedule(5, "other", 0, 50)
	if n := c.Cancel("dev", 0); n != 5 {
		t.Errorf("%d events taken back, want 5", n)
	}
	if n := c.Cancel("dev", 0); n != 0 {
		t.Errorf("%d events taken back the second time", n)
	}
	*now = 100
	c.RunDue()
	l.expect(t, 9, 7, 5, 50, 3, 1)
}

func TestPending(t *testing.T) {
	c, now, l := newClock()
	c.Register("other", l)
	expect := func(owner string, kind uint32, want int64, wantOK bool) {
		t.Helper()
		if when, ok := c.Pending(owner, kind); when != want || ok != wantOK {
			t.Errorf("%s, kind %d: pending at %d, %v, want %d, %v", owner, kind, when, ok, want, wantOK)
		}
	}
	expect("dev", 0, 0, false)
	c.Schedule(30, "dev", 0, 0)
	c.Schedule(20, "dev", 0, 0)
	c.Schedule(10, "dev", 1, 0)
	c.Schedule(5, "other", 0, 0)
	expect("dev", 0, 20, true)
	expect("dev", 1, 10, true)
	expect("other", 0, 5, true)
	expect("other", 1, 0, false)
	*now = 20
	c.RunDue()
	expect("dev", 0, 30, true)
	expect("dev", 1, 0, false)
	c.Cancel("dev", 0)
	expect("dev", 0, 0, false)
}

func TestCount(t *testing.T) {
	c, _, l := newClock()
	c.Register("other", l)
	for i := range int64(5) {
		c.Schedule(i, "dev", uint32(i), 0)
	}
	c.Schedule(2, "other", 0, 0)
	c.Cancel("dev", 3)
	if a, b, n := c.Count("dev"), c.Count("other"), c.Count("nobody"); a != 4 || b != 1 || n != 0 {
		t.Errorf("%d, %d and %d events", a, b, n)
	}
}

func TestFree(t *testing.T) {
	c := New(new(Virtual))
	c.Register("a", none{})
	for _, when := range []int64{5, 6, 6, 7, 9} {
		c.Schedule(when, "a", 0, 0)
	}
	for when, want := range map[int64]int64{4: 4, 5: 8, 6: 8, 7: 8, 8: 8, 9: 10, 11: 11} {
		if got := c.Free(when); got != want {
			t.Errorf("from %d on, %d is free, want %d", when, got, want)
		}
	}
}

func TestOnEarlier(t *testing.T) {
	c, now, _ := newClock()
	calls := 0
	c.OnEarlier = func() { calls++ }
	for _, s := range []struct {
		when int64
		want int
	}{{100, 1}, {100, 1}, {200, 1}, {99, 2}, {0, 3}, {0, 3}} {
		if c.Schedule(s.when, "dev", 0, 0); calls != s.want {
			t.Errorf("after an event at %d: %d calls, want %d", s.when, calls, s.want)
		}
	}
	*now = 300
	c.RunDue()
	if c.Schedule(0, "dev", 0, 0); calls != 4 {
		t.Errorf("first event of an empty queue: %d calls", calls)
	}
}

// TestModel compares with a list that is searched for the smallest.
func TestModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	c, now, l := newClock()
	var model []Event
	seq := uint64(0)
	for range 50000 {
		switch rnd.IntN(8) {
		default:
			seq++
			e := Event{When: max(int64(*now), int64(*now)+rnd.Int64N(50)-5), Seq: seq, Kind: rnd.Uint32N(4), Payload: seq}
			model = append(model, e)
			c.Schedule(e.When, "dev", e.Kind, e.Payload)
		case 0:
			kind := rnd.Uint32N(4)
			c.Cancel("dev", kind)
			model = slices.DeleteFunc(model, func(e Event) bool { return e.Kind == kind })
		case 1, 2:
			*now += hand(rnd.IntN(20))
			slices.SortFunc(model, func(a, b Event) int {
				return cmp.Or(cmp.Compare(a.When, b.When), cmp.Compare(a.Seq, b.Seq))
			})
			var due []uint64
			for len(model) > 0 && model[0].When <= int64(*now) {
				due, model = append(due, model[0].Payload), model[1:]
			}
			c.RunDue()
			l.expect(t, due...)
		}
		next := Never
		for _, e := range model {
			next = min(next, e.When)
		}
		if c.Next() != next {
			t.Fatalf("next is %d, want %d", c.Next(), next)
		}
	}
}

func TestState(t *testing.T) {
	a, nowA, la := newClock()
	for i := range uint64(20) {
		a.Schedule(int64(i*7%5), "dev", 0, i)
	}
	s := a.State()
	b, nowB, lb := newClock()
	b.Schedule(1, "dev", 0, 99) // is replaced
	if err := b.SetState(s); err != nil {
		t.Fatal(err)
	}
	if got := b.State(); !reflect.DeepEqual(got, s) {
		t.Errorf("state comes back as %v, was %v", got, s)
	}
	a.Schedule(2, "dev", 0, 20)
	b.Schedule(2, "dev", 0, 20)
	*nowA, *nowB = 10, 10
	a.RunDue()
	b.RunDue()
	if len(la.got) != 21 {
		t.Errorf("%d events delivered", len(la.got))
	}
	lb.expect(t, la.got...)
	if len(s.Events) != 20 {
		t.Error("the state changed with its clock")
	}
}

func TestSetStateRefuses(t *testing.T) {
	for want, s := range map[string]State{
		`event of "nobody"`: {Seq: 1, Events: []Event{{Seq: 1, Owner: "nobody"}}},
		"after the last":    {Seq: 1, Events: []Event{{Seq: 2, Owner: "dev"}}},
		"twice":             {Seq: 2, Events: []Event{{When: 1, Seq: 2, Owner: "dev"}, {Seq: 1, Owner: "dev"}, {When: 1, Seq: 2, Owner: "dev"}}},
	} {
		c, _, _ := newClock()
		c.Schedule(5, "dev", 0, 5)
		before := c.State()
		if err := c.SetState(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		if got := c.State(); !reflect.DeepEqual(got, before) {
			t.Errorf("%s: a refused state left %v", want, got)
		}
	}
}

func TestWiringMistakes(t *testing.T) {
	for name, f := range map[string]func(c *Clock){
		"two owners": func(c *Clock) { c.Register("dev", &log{}) },
		"no owner":   func(c *Clock) { c.Schedule(0, "nobody", 0, 0) },
	} {
		c, _, _ := newClock()
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f(c)
		}()
	}
}

// none takes events and keeps nothing.
type none struct{}

func (none) HandleEvent(uint32, uint64) {}

func TestDoesNotAllocate(t *testing.T) {
	now := new(hand)
	c := New(now)
	c.Register("dev", none{})
	for i := range uint32(30) {
		c.Schedule(1<<40, "dev", 100+i, 0)
	}
	if n := testing.AllocsPerRun(1000, func() {
		c.Schedule(int64(*now)+10, "dev", 0, 0)
		c.Cancel("dev", 0)
		c.Schedule(int64(*now)+10, "dev", 0, 0)
		*now += 10
		c.RunDue()
	}); n != 0 {
		t.Errorf("scheduling, cancelling and delivering allocates %v times", n)
	}
}

// BenchmarkTimer is a timer that is set anew again and again among 30 others.
func BenchmarkTimer(b *testing.B) {
	now := new(hand)
	c := New(now)
	c.Register("dev", none{})
	for i := range uint32(30) {
		c.Schedule(1<<60, "dev", 100+i, 0)
	}
	b.ReportAllocs()
	for range b.N {
		c.Cancel("dev", 0)
		c.Schedule(int64(*now)+10, "dev", 0, 0)
		*now += 5
		c.RunDue()
	}
}
