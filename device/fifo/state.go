package fifo

import "fmt"

// State is everything that the device has to remember.
type State struct {
	Global   Global
	Channels []ChannelState
	Data     [][]byte // what is in each FIFO, the oldest first
	Rings    []RingState
	INTx     bool
}

// State gives the state.
func (f *FIFO) State() any {
	s := State{Global: f.global, INTx: f.intx}
	for i := range f.channels {
		c := &f.channels[i]
		data := append([]byte(nil), c.oldest()...)
		if rest := int(c.s.Fill) - len(data); rest > 0 {
			data = append(data, c.data[:rest]...)
		}
		s.Channels = append(s.Channels, c.s)
		s.Data = append(s.Data, data)
	}
	for i := range f.rings {
		s.Rings = append(s.Rings, f.rings[i].s)
	}
	return s
}

// SetState takes it back.
func (f *FIFO) SetState(decode func(into any) error) error {
	var s State
	if err := decode(&s); err != nil {
		return err
	}
	if len(s.Channels) != len(f.channels) || len(s.Data) != len(f.channels) || len(s.Rings) != len(f.rings) {
		return fmt.Errorf("fifo: state of %d channels, %d FIFOs and %d rings: this device has %d channels",
			len(s.Channels), len(s.Data), len(s.Rings), len(f.channels))
	}
	for i := range s.Channels {
		c := &s.Channels[i]
		if int(c.Fill) != len(s.Data[i]) || len(s.Data[i]) > f.cfg.Depth || int(c.Start) >= f.cfg.Depth || c.End >= ends {
			return fmt.Errorf("fifo: state of channel %d does not fit a FIFO of %d bytes", i, f.cfg.Depth)
		}
	}
	for i := range s.Rings {
		if err := f.checkRing(&s.Rings[i]); err != nil {
			return fmt.Errorf("fifo: state of ring %d: %w", i, err)
		}
	}
	if g := &s.Global; g.Control&^controlEnable != 0 || g.ErrorCause&^errorMask != 0 || g.Vector >= f.vectors() ||
		(g.IRQCause|g.IRQEnable)>>f.vectors() != 0 {
		return fmt.Errorf("fifo: state has global registers %+v", *g)
	}
	f.global, f.intx = s.Global, s.INTx
	for i := range f.channels {
		c := &f.channels[i]
		c.s = s.Channels[i]
		n := copy(c.data[c.s.Start:], s.Data[i])
		copy(c.data, s.Data[i][n:])
	}
	for i := range f.rings {
		f.rings[i].s = s.Rings[i]
	}
	return nil
}

// checkRing refuses what no ring can have come to.
func (f *FIFO) checkRing(s *RingState) error {
	q := &s.Request
	mask, compMask := uint32(1)<<min(s.Size, maxRingLog)-1, uint32(1)<<min(s.CompSize, maxRingLog)-1
	switch {
	case s.State > stateError || s.Doing > phaseBlocked || s.Phase > 1:
		return fmt.Errorf("state %d, phase %d, bit %d", s.State, s.Doing, s.Phase)
	case s.Size > maxRingLog || s.CompSize > maxRingLog:
		return fmt.Errorf("2^%d descriptors and 2^%d completions", s.Size, s.CompSize)
	case s.Head > mask || s.Tail > mask || s.DrainTail > mask || s.CompHead > compMask || s.CompTail > compMask:
		return fmt.Errorf("indices beyond its size")
	case s.Vector >= f.vectors() || s.AbortStatus > abortPending || int(s.Threshold) > f.cfg.Depth:
		return fmt.Errorf("vector %d, abort status %d, threshold %d", s.Vector, s.AbortStatus, s.Threshold)
	case int(s.Notify) > f.cfg.Depth || s.NotifyAt != 0 && s.Notify == 0:
		return fmt.Errorf("level %d, its interrupt at %d", s.Notify, s.NotifyAt)
	case q.Done > q.Total || q.Length > mask+1 || q.Segment > q.Length || q.Size > maxLength || q.Offset > q.Size:
		return fmt.Errorf("a request that is further than it goes")
	}
	return nil
}
