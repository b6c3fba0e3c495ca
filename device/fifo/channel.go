package fifo

// Ends of a channel: what is behind its FIFO.
const (
	endLoopback = iota // what is transmitted is received
	endSource          // a source makes the pattern, what is transmitted is dropped
	endSink            // what is transmitted is compared with the pattern; nothing is received
	endHost            // both go to the host's side: Feed and OnOutput
	ends
)

// The source makes sourceBytes, at most, each sourcePeriod ns, in time with
// Rate. Those that the FIFO has no room for are lost.
const (
	sourcePeriod = 10_000
	nsPerUs      = 1000
)

// channel is a FIFO and what is behind it.
type channel struct {
	fifo  *FIFO
	index int
	data  []byte // the FIFO's memory
	s     ChannelState
}

// ChannelState is the state of a channel but for the FIFO's bytes.
type ChannelState struct {
	End                    uint32
	Start, Fill            uint32 // of the bytes in the FIFO's memory
	Parity                 bool   // the next bytes to be received are bad
	Overrun, Mismatches    uint32
	TXBytes, RXBytes       uint64
	TXRequests, RXRequests uint64
	Made, Checked          uint64 // bytes of the pattern so far
	Ticking                bool   // the source's event is due
}

func (c *channel) init(f *FIFO, i int) {
	*c = channel{fifo: f, index: i, data: make([]byte, f.cfg.Depth)}
}

func (c *channel) reset() { c.s = ChannelState{} }

func (c *channel) tx() *ring { return &c.fifo.rings[2*c.index] }
func (c *channel) rx() *ring { return &c.fifo.rings[2*c.index+1] }

func (c *channel) read(off uint32) uint32 {
	s := &c.s
	switch off {
	case regFill:
		return s.Fill
	case regEnd:
		return s.End
	case regOverrun:
		return s.Overrun
	case regMismatches:
		return s.Mismatches
	case regTXBytes, regTXBytes + 4:
		return half(s.TXBytes, off != regTXBytes)
	case regRXBytes, regRXBytes + 4:
		return half(s.RXBytes, off != regRXBytes)
	case regTXRequests, regTXRequests + 4:
		return half(s.TXRequests, off != regTXRequests)
	case regRXRequests, regRXRequests + 4:
		return half(s.RXRequests, off != regRXRequests)
	}
	return 0
}

func (c *channel) write(off, v uint32) {
	switch off {
	case regEnd:
		// Only while both rings are stopped. What another end has made is not this
		// one's.
		if v < ends && c.tx().s.State == stateStopped && c.rx().s.State == stateStopped {
			c.s.End, c.s.Made, c.s.Checked = v, 0, 0
			c.flush()
		}
	case regChControl:
		if v&chFlush != 0 {
			c.flush()
		}
		if v&chParity != 0 {
			c.s.Parity = true
		}
	}
}

// flush empties the FIFO.
func (c *channel) flush() {
	c.s.Start, c.s.Fill, c.s.Parity = 0, 0, false
	c.tx().wake()
	c.tx().checkLevel()
}

// room gives the FIFO's free memory from its end on, in one piece: fewer bytes
// than are free where it wraps.
func (c *channel) room() []byte {
	mask := uint32(len(c.data) - 1)
	at := (c.s.Start + c.s.Fill) & mask
	n := min(uint32(len(c.data))-c.s.Fill, uint32(len(c.data))-at)
	return c.data[at : at+n]
}

// oldest gives the FIFO's bytes from its start on, in one piece.
func (c *channel) oldest() []byte {
	n := min(c.s.Fill, uint32(len(c.data))-c.s.Start)
	return c.data[c.s.Start : c.s.Start+n]
}

// filled takes n bytes of room into the FIFO.
func (c *channel) filled(n int) {
	c.s.Fill += uint32(n)
	c.rx().wake()
	c.rx().checkLevel()
}

// taken drops the oldest n bytes.
func (c *channel) taken(n int) {
	c.s.Start = (c.s.Start + uint32(n)) & uint32(len(c.data)-1)
	c.s.Fill -= uint32(n)
	c.tx().wake()
	c.tx().checkLevel()
}

// accept takes p, which is in room's memory, from the transmit ring.
func (c *channel) accept(p []byte) {
	c.s.TXBytes += uint64(len(p))
	switch c.s.End {
	case endLoopback:
		c.filled(len(p))
	case endSink:
		for _, b := range p {
			if b != pattern(c.s.Checked) {
				c.s.Mismatches++
			}
			c.s.Checked++
		}
	case endHost:
		if c.fifo.OnOutput != nil {
			c.fifo.OnOutput(c.index, p)
		}
	}
}

// pattern is byte n of what the source makes and the sink expects.
func pattern(n uint64) byte { return byte(n ^ (n>>8)*3 ^ (n>>16)*7) }

// producing is whether the channel has a source, and it runs: somebody receives.
func (c *channel) producing() bool {
	return c.s.End == endSource && c.fifo.running() && c.rx().s.State == stateRunning
}

// start begins the source's work.
func (c *channel) start() {
	if c.producing() && !c.s.Ticking {
		c.s.Ticking = true
		c.fifo.host.Schedule(c.fifo.host.Now()+sourcePeriod, eventSource|uint32(2*c.index), 0)
	}
}

// produce is the source's event.
func (c *channel) produce() {
	c.s.Ticking = false
	if !c.producing() {
		return
	}
	n := int(min(c.fifo.cfg.Rate*sourcePeriod/nsPerUs, int64(len(c.data))))
	for n > 0 {
		p := c.room()
		if len(p) == 0 {
			c.s.Overrun += uint32(n)
			c.s.Made += uint64(n)
			c.fifo.fail(errorOverrun)
			break
		}
		p = p[:min(n, len(p))]
		for i := range p {
			p[i] = pattern(c.s.Made)
			c.s.Made++
		}
		c.filled(len(p))
		n -= len(p)
	}
	c.start()
}

// Feed is the host's side of a channel whose end it is: p goes into the FIFO as
// far as there is room. It says how many bytes did. It is called with the machine
// locked, as a model is, and at the same times in each run that is to be the same.
func (f *FIFO) Feed(channel int, p []byte) int {
	c := &f.channels[channel]
	if c.s.End != endHost || !f.running() {
		return 0
	}
	done := 0
	for done < len(p) {
		n := copy(c.room(), p[done:])
		if n == 0 {
			break
		}
		c.filled(n)
		done += n
	}
	return done
}
