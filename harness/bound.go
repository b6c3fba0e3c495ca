package harness

import (
	"fmt"
	"sync"
	"time"
)

// bound is a bound on how long something in a guest takes: on the host's clock,
// and a longer one on the guest's where that is its own.
type bound struct {
	guest *Guest
	late  chan time.Time // gets one when it is over

	mu      sync.Mutex
	timer   *time.Timer
	limit   int64 // of the guest's clock, in ns
	began   int64 // the guest's clock, and how much it had executed, at the start
	retired int64
	virtual bool // the guest's clock has passed the limit, not the host's
	stopped chan struct{}
}

// newBound begins a bound; stop ends it.
func newBound(g *Guest, d time.Duration) *bound {
	b := &bound{guest: g, late: make(chan time.Time, 1), stopped: make(chan struct{})}
	b.timer = time.AfterFunc(d, func() { b.over(false) })
	if g.patient {
		b.timer.Stop()
	}
	now, retired, own := g.now()
	b.began, b.retired, b.limit = now, retired, now+int64(d)*idleFactor
	if own {
		go b.watch()
	}
	return b
}

// watch looks at the guest's clock.
func (b *bound) watch() {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for {
		select {
		case <-b.stopped:
			return
		case <-tick.C:
		}
		now, _, _ := b.guest.now()
		b.mu.Lock()
		over := now > b.limit
		b.mu.Unlock()
		if over {
			b.over(true)
			return
		}
	}
}

func (b *bound) over(virtual bool) {
	b.mu.Lock()
	b.virtual = virtual
	b.mu.Unlock()
	select {
	case b.late <- time.Now():
	default: // it is already
	}
}

// restart begins it anew.
func (b *bound) restart(d time.Duration) {
	now, retired, _ := b.guest.now()
	b.mu.Lock()
	if !b.guest.patient {
		b.timer.Reset(d)
	}
	b.began, b.retired, b.limit = now, retired, now+int64(d)*idleFactor
	b.mu.Unlock()
	select {
	case <-b.late:
	default:
	}
}

func (b *bound) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer.Stop()
	select {
	case <-b.stopped:
	default:
		close(b.stopped)
	}
}

// why says which bound it was.
func (b *bound) why(d time.Duration) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.virtual {
		return fmt.Sprintf("no result after %v of the guest's time", d*idleFactor)
	}
	return fmt.Sprintf("no result after %v", d)
}

// idle tells whether the guest has had next to nothing to do since the start. ok
// is false where that can't be told.
func (b *bound) idle() (idle, ok bool) {
	now, retired, ok := b.guest.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	const busy = 10 // one part in so many of the time
	return (retired-b.retired)*busy < now-b.began, ok
}

// now is the guest's clock, and how many instructions it has executed, where they
// are counted.
func (g *Guest) now() (ns, retired int64, counted bool) {
	g.machine.Do(func() {
		ns = g.machine.Now()
		retired, counted = g.machine.Retired()
	})
	return ns, retired, counted
}
