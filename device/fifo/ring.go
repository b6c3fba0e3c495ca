package fifo

import (
	"encoding/binary"
	"errors"

	"fifovm/device"
)

// States of a ring, as in its status register (docs/hardware.md, "States").
const (
	stateStopped  = 0
	stateRunning  = 1
	stateDraining = 2
	stateError    = 3
)

// Status of a completion, and the reason of an error state.
const (
	statusOK         = 0
	statusAborted    = 1
	statusDescriptor = 2 // a descriptor is bad
	statusDMA        = 3 // the data, or a descriptor, could not be moved
	statusParity     = 4 // the FIFO's memory gave bad bytes
	statusDrained    = 5 // the ring was drained before all was there
	statusCompletion = 6 // the completion could not be written: only as a reason
	statusNotMaster  = 7 // as statusDMA: bus mastering is off
)

// Values of ABORT_STATUS.
const (
	abortIdle     = 0
	abortDone     = 1
	abortNotFound = 2
	abortPending  = 3
)

// Descriptors and completions (docs/hardware.md, "Formats").
const (
	descSize = 32
	compSize = 32

	maxLength   = 1 << 20 // of a descriptor's buffer
	maxChainLog = 10      // of a chain's descriptors
	maxChain    = 1 << maxChainLog

	descMore      = 1 << 0
	descInterrupt = 1 << 1
	descFlags     = descMore | descInterrupt
)

// Bounds of the work of one event, so that the guest runs in between.
const (
	chunkBytes    = 64 << 10
	chunkSegments = 64
	eventRequests = 64 // that end without a movement
)

// What a ring waits for.
const (
	phaseIdle    = iota // nothing is to be done, or it can't go on
	phaseFetch          // the event that looks at the next request is due
	phaseMoving         // the event that ends the movement of a chunk is due
	phaseBlocked        // the FIFO has no room or too few bytes, or there is no room for a completion
)

// ring is a ring of descriptors and its ring of completions.
type ring struct {
	fifo    *FIFO
	channel *channel
	index   int
	receive bool
	s       RingState

	desc [descSize]byte // scratch, so that nothing is allocated
	comp [compSize]byte
}

// RingState is the state of a ring.
type RingState struct {
	State, Reason       uint32
	Base, Comp          uint64 // guest-physical
	Size, CompSize      uint32 // logarithms of the numbers of entries; 0: not set
	Head, Tail          uint32 // of descriptors
	CompHead, CompTail  uint32
	Phase               uint32 // bit of the next completion, 1 in the first round
	Coalesce, Threshold uint32
	AbortLow            uint32
	AbortCookie         uint64
	AbortStatus         uint32
	AbortWaits          bool // for room in the completion ring
	ErrorIndex          uint32
	ErrorAddr           uint64
	Vector              uint32
	Notify              uint32 // level that sends the interrupt; 0: none
	NotifyAt            int64  // when it does so, in ns, as the FIFO is at it; 0: it is not

	Doing     uint32 // a phase, as above
	Request   Request
	Aborted   [1 << maxRingLog / 64]uint64 // requests, by the index of their first descriptor, to be passed over
	Unsent    uint32                       // completions since the last interrupt
	Waiting   bool                         // the coalescing event is due
	DrainTail uint32
}

// Request is the chain of descriptors that a ring works on.
type Request struct {
	Valid   bool
	Cookie  uint64
	Length  uint32 // of the chain, in descriptors
	Total   uint64 // bytes
	Done    uint64 // bytes moved
	Urgent  bool   // asks for its interrupt at once
	Segment uint32 // descriptors that are done
	Offset  uint32 // bytes of the present one that are done
	Addr    uint64 // of the present one's buffer
	Size    uint32 // of the present one's buffer; 0: it is still to be read
}

func (r *ring) init(f *FIFO, i int) {
	*r = ring{fifo: f, channel: &f.channels[i/2], index: i, receive: i%2 != 0}
}

func (r *ring) reset() { r.s = RingState{Phase: 1, Vector: uint32(causeOf(r.index))} }

func (r *ring) mask() uint32     { return 1<<r.s.Size - 1 }
func (r *ring) compMask() uint32 { return 1<<r.s.CompSize - 1 }

func (r *ring) read(off uint32) uint32 {
	s := &r.s
	switch off {
	case regRingControl:
		v := uint32(0)
		if s.State == stateRunning || s.State == stateDraining {
			v |= ringRun
		}
		if s.State == stateDraining {
			v |= ringDrain
		}
		return v
	case regRingStatus:
		return s.State | s.Reason<<statusCodeShift
	case regBaseLow, regBaseHigh:
		return half(s.Base, off == regBaseHigh)
	case regSize:
		return s.Size
	case regHead:
		return s.Head
	case regTail:
		return s.Tail
	case regCompLow, regCompHigh:
		return half(s.Comp, off == regCompHigh)
	case regCompSize:
		return s.CompSize
	case regCompHead:
		return s.CompHead
	case regCompTail:
		return s.CompTail
	case regCoalesce:
		return s.Coalesce
	case regThreshold:
		return s.Threshold
	case regNotify:
		return s.Notify
	case regAbortStatus:
		return s.AbortStatus
	case regErrorIndex:
		return s.ErrorIndex
	case regRingVector:
		return s.Vector
	case regErrorLow, regErrorHigh:
		return half(s.ErrorAddr, off == regErrorHigh)
	}
	return 0
}

func (r *ring) write(off, v uint32) {
	s := &r.s
	// Where the rings are can be changed while nothing is under way.
	empty := s.State == stateStopped && !s.Request.Valid && s.Head == s.Tail
	switch off {
	case regRingControl:
		r.control(v)
	case regBaseLow, regBaseHigh:
		if empty {
			s.Base = setHalf(s.Base, off == regBaseHigh, v) &^ (baseAlign - 1)
		}
	case regSize:
		if empty && v >= 1 && v <= maxRingLog {
			s.Size, s.Head, s.Tail = v, 0, 0
		}
	case regCompLow, regCompHigh:
		if empty {
			s.Comp = setHalf(s.Comp, off == regCompHigh, v) &^ (baseAlign - 1)
		}
	case regCompSize:
		if empty && v >= 1 && v <= maxRingLog {
			s.CompSize, s.CompHead, s.CompTail, s.Phase = v, 0, 0, 1
		}
	case regCoalesce:
		s.Coalesce = v & (0xffff<<coalesceTime | coalesceCount)
	case regThreshold:
		if r.receive {
			s.Threshold = min(v, uint32(r.fifo.cfg.Depth))
			r.wake()
		}
	case regNotify:
		s.Notify = min(v, uint32(r.fifo.cfg.Depth))
		if !r.atLevel() || r.fifo.host.Now() > s.NotifyAt { // the event is of no use, or was lost
			r.fifo.host.Cancel(eventNotify | uint32(r.index))
			s.NotifyAt = 0
		}
		r.checkLevel()
	case regAbortLow:
		s.AbortLow = v
	case regAbortHigh:
		if s.AbortStatus != abortPending {
			s.AbortCookie, s.AbortStatus = uint64(v)<<32|uint64(s.AbortLow), abortPending
			r.abortLater()
		}
	case regRingVector:
		if v < r.fifo.vectors() {
			s.Vector = v
		}
	}
}

// control starts, stops, drains and resets the ring.
func (r *ring) control(v uint32) {
	s := &r.s
	if v&ringReset != 0 {
		r.fifo.host.Cancel(eventWork | uint32(r.index))
		r.fifo.host.Cancel(eventCoalesce | uint32(r.index))
		r.fifo.host.Cancel(eventAbort | uint32(r.index))
		r.fifo.host.Cancel(eventNotify | uint32(r.index))
		keep := *s
		r.reset()
		// What the driver has set up stays, so that it can start again.
		s.Base, s.Size, s.Comp, s.CompSize = keep.Base, keep.Size, keep.Comp, keep.CompSize
		s.Coalesce, s.Threshold, s.Vector = keep.Coalesce, keep.Threshold, keep.Vector
		return
	}
	switch {
	case s.State == stateError:
	case v&ringRun == 0:
		s.State = stateStopped
	case s.Size == 0 || s.CompSize == 0:
		// Not set up: it does not start.
	case s.State == stateDraining:
		// It ends by itself.
	case v&ringDrain != 0:
		s.State, s.DrainTail = stateDraining, s.Tail
		r.wake()
	case s.State == stateStopped:
		s.State = stateRunning
		r.wake()
		r.channel.start()
	}
}

func (r *ring) setTail(v uint32) {
	if r.s.Size == 0 || r.s.State == stateError {
		return
	}
	r.s.Tail = v & r.mask()
	r.wake()
}

func (r *ring) setCompHead(v uint32) {
	if r.s.CompSize == 0 {
		return
	}
	r.s.CompHead = v & r.compMask()
	if r.s.AbortWaits && !r.compFull() {
		r.s.AbortWaits = false
		r.abortLater()
	}
	r.wake()
}

// active is whether the ring may work.
func (r *ring) active() bool {
	return r.fifo.running() && (r.s.State == stateRunning || r.s.State == stateDraining)
}

// wake has the ring look again, after the device's latency, unless it is to do
// so anyway. Nothing happens in the access or the event that wakes it.
func (r *ring) wake() {
	if !r.active() || r.s.Doing == phaseFetch || r.s.Doing == phaseMoving {
		return
	}
	if r.s.Doing == phaseIdle && r.s.Head == r.s.Tail && !r.s.Request.Valid && r.s.State != stateDraining {
		return
	}
	r.later(phaseFetch, r.fifo.cfg.Latency)
}

func (r *ring) later(phase uint32, delay int64) {
	r.s.Doing = phase
	r.fifo.host.Schedule(r.fifo.host.Now()+delay, eventWork|uint32(r.index), 0)
}

// work is the ring's event.
func (r *ring) work() {
	s := &r.s
	s.Doing = phaseIdle
	if !r.active() {
		return // stopped meanwhile; what has been moved stays counted
	}
	if r.finished() && !r.complete(statusOK) {
		return
	}
	for range eventRequests {
		if !s.Request.Valid {
			if s.Head == s.Tail || s.State == stateDraining && s.Head == s.DrainTail {
				r.idle()
				return
			}
			if r.compFull() {
				r.noRoom()
				return
			}
			if !r.fetch() {
				return // an error
			}
			if !s.Request.Valid {
				continue // was aborted
			}
		}
		n, ok := r.move()
		if !ok {
			return
		}
		if n > 0 {
			r.later(phaseMoving, max(n*nsPerUs/r.fifo.cfg.Rate, 1)+r.fifo.cfg.Latency)
			return
		}
		if s.State == stateDraining && r.receive {
			if !r.complete(statusDrained) {
				return
			}
			continue
		}
		s.Doing = phaseBlocked
		return
	}
	r.later(phaseFetch, r.fifo.cfg.Latency)
}

// idle ends a drain, if one is under way.
func (r *ring) idle() {
	if r.s.State == stateDraining {
		r.s.State = stateStopped
		r.interrupt() // the driver waits for it
	}
}

// finished is whether the present request is: all of it is moved or, when
// receiving, all that there was.
func (r *ring) finished() bool {
	q := &r.s.Request
	return q.Valid && (q.Done == q.Total || r.receive && q.Done > 0 && r.channel.s.Fill == 0)
}

// descriptor reads the descriptor at an index.
func (r *ring) descriptor(i uint32) error {
	return r.fifo.host.DMARead(r.s.Base+uint64(i&r.mask())*descSize, r.desc[:])
}

func (r *ring) descAddr() uint64   { return binary.LittleEndian.Uint64(r.desc[0:]) }
func (r *ring) descLength() uint32 { return binary.LittleEndian.Uint32(r.desc[8:]) }
func (r *ring) descFlags() uint32  { return binary.LittleEndian.Uint32(r.desc[12:]) }
func (r *ring) descCookie() uint64 { return binary.LittleEndian.Uint64(r.desc[16:]) }

// descriptorGood checks what the manual asks of a descriptor.
func (r *ring) descriptorGood() bool {
	n := r.descLength()
	return n > 0 && n <= maxLength && r.descFlags()&^descFlags == 0 && binary.LittleEndian.Uint64(r.desc[24:]) == 0
}

// fetch takes the chain at the head as the present request, or passes it over if
// it was aborted. It says no where the ring has gone into the error state.
func (r *ring) fetch() bool {
	s := &r.s
	word, bit := s.Head/64, uint64(1)<<(s.Head%64)
	aborted := s.Aborted[word]&bit != 0
	q := Request{Valid: true}
	for at := s.Head; ; {
		if err := r.descriptor(at); err != nil {
			if q.Length > 0 && !aborted { // else there is nothing to complete
				s.Request = q
			}
			return r.stopDMA(err, at)
		}
		if q.Length == 0 {
			q.Cookie = r.descCookie()
		}
		if !aborted && (!r.descriptorGood() || q.Length == maxChain) {
			s.Request = q
			return r.stop(statusDescriptor, at)
		}
		if q.Length == 0 {
			q.Addr, q.Size = r.descAddr(), r.descLength()
		}
		q.Length++
		q.Total += uint64(r.descLength())
		q.Urgent = q.Urgent || r.descFlags()&descInterrupt != 0
		at = (at + 1) & r.mask()
		if r.descFlags()&descMore == 0 {
			break
		}
		if at == s.Tail { // the chain goes on where nothing was posted
			if aborted {
				break
			}
			s.Request = q
			return r.stop(statusDescriptor, at)
		}
	}
	if aborted {
		s.Aborted[word] &^= bit
		s.Head = (s.Head + q.Length) & r.mask()
		return true
	}
	s.Request = q
	return true
}

// move moves a chunk of the present request, as much as there is room or bytes
// for. ok is false where the ring has gone into the error state.
func (r *ring) move() (n int64, ok bool) {
	q := &r.s.Request
	if r.receive && q.Done == 0 {
		// A request waits for the threshold, or for all that it can take.
		if want := min(max(uint64(r.s.Threshold), 1), q.Total); uint64(r.channel.s.Fill) < want && r.s.State != stateDraining {
			return 0, true
		}
	}
	for range chunkSegments {
		if q.Done == q.Total || n >= chunkBytes {
			break
		}
		at := (r.s.Head + q.Segment) & r.mask()
		if q.Size == 0 {
			if err := r.descriptor(at); err != nil {
				return n, r.stopDMA(err, at)
			}
			// What was good may have changed meanwhile, and so may what was the last.
			if q.Segment == q.Length || !r.descriptorGood() {
				return n, r.stop(statusDescriptor, at)
			}
			q.Addr, q.Size = r.descAddr(), r.descLength()
		}
		want := min(uint64(q.Size-q.Offset), q.Total-q.Done, uint64(chunkBytes-n))
		if r.receive && r.channel.s.Parity && r.channel.s.Fill > 0 {
			r.channel.s.Parity = false
			return n, r.stop(statusParity, at)
		}
		m, err := r.transfer(q.Addr+uint64(q.Offset), int(want))
		if err != nil {
			return n, r.stopDMA(err, at)
		}
		if m == 0 {
			break
		}
		n += m
		q.Done += uint64(m)
		if q.Offset += uint32(m); q.Offset == q.Size {
			q.Segment, q.Offset, q.Size = q.Segment+1, 0, 0
		}
	}
	return n, true
}

// transfer moves up to n bytes between the FIFO and the guest's memory.
func (r *ring) transfer(addr uint64, n int) (moved int64, err error) {
	c := r.channel
	p := c.room()
	if r.receive {
		p = c.oldest()
	}
	p = p[:min(n, len(p))]
	switch {
	case len(p) == 0:
		return 0, nil
	case !r.receive:
		if err := r.fifo.host.DMARead(addr, p); err != nil {
			return 0, err
		}
		c.accept(p)
	default:
		if err := r.fifo.host.DMAWrite(addr, p); err != nil {
			return 0, err
		}
		c.s.RXBytes += uint64(len(p))
		c.taken(len(p))
	}
	return int64(len(p)), nil
}

// stopDMA brings the ring into the error state for a DMA access that failed.
func (r *ring) stopDMA(err error, index uint32) bool {
	reason := uint32(statusDMA)
	if errors.Is(err, device.ErrNotMaster) {
		reason = statusNotMaster
	}
	var access *device.Error
	if errors.As(err, &access) {
		r.s.ErrorAddr = access.Addr
	}
	return r.stop(reason, index)
}

// stop brings the ring into the error state, with a completion for the request
// that it was at, if it knows one and there is room.
func (r *ring) stop(reason, index uint32) bool {
	if r.s.Request.Valid && !r.compFull() {
		r.post(reason) // where it can't be written, the status tells all the same
	}
	return r.halt(reason, index)
}

// halt is the error state.
func (r *ring) halt(reason, index uint32) bool {
	s := &r.s
	s.State, s.Reason, s.ErrorIndex, s.Doing = stateError, reason, index, phaseIdle
	s.Request = Request{}
	if s.AbortStatus == abortPending {
		s.AbortStatus, s.AbortWaits = abortNotFound, false
	}
	switch reason {
	case statusDescriptor:
		r.fifo.fail(errorDescriptor)
	case statusParity:
		r.fifo.fail(errorParity)
	default:
		r.fifo.fail(errorDMA)
	}
	r.interrupt()
	return false
}

// haltCompletion is that of a completion that could not be written.
func (r *ring) haltCompletion() bool {
	r.s.ErrorAddr = r.compAddr()
	return r.halt(statusCompletion, r.s.CompTail)
}

func (r *ring) compAddr() uint64 { return r.s.Comp + uint64(r.s.CompTail)*compSize }

func (r *ring) compFull() bool { return (r.s.CompTail+1)&r.compMask() == r.s.CompHead }

// noRoom has the ring wait for room in the completion ring. What the driver has
// not been told of yet it is told now, or both would wait for ever.
func (r *ring) noRoom() {
	r.s.Doing = phaseBlocked
	if r.s.Unsent > 0 {
		r.interrupt()
	}
}

// complete ends the present request. It says no where the completion could not
// be written: for want of room, and then the ring waits, or by an error.
func (r *ring) complete(status uint32) bool {
	s := &r.s
	if r.compFull() {
		r.noRoom()
		return false
	}
	s.Head = (s.Head + s.Request.Length) & r.mask()
	urgent := s.Request.Urgent
	if r.receive {
		r.channel.s.RXRequests++
	} else {
		r.channel.s.TXRequests++
	}
	if !r.post(status) {
		return r.haltCompletion()
	}
	s.Request = Request{}
	if status == statusDrained {
		s.Unsent++ // the end of the drain has the interrupt
	} else {
		r.notify(urgent || status != statusOK)
	}
	return true
}

// post writes a completion of the present request.
func (r *ring) post(status uint32) bool {
	q := &r.s.Request
	return r.postFor(q.Cookie, q.Done, q.Total-q.Done, status)
}

func (r *ring) postFor(cookie, done, residual uint64, status uint32) bool {
	s := &r.s
	le := binary.LittleEndian
	le.PutUint64(r.comp[0:], cookie)
	le.PutUint64(r.comp[8:], done)
	le.PutUint64(r.comp[16:], residual)
	le.PutUint16(r.comp[24:], uint16(status))
	le.PutUint16(r.comp[26:], uint16(s.Head))
	le.PutUint32(r.comp[28:], s.Phase)
	if err := r.fifo.host.DMAWrite(r.compAddr(), r.comp[:]); err != nil {
		return false
	}
	if s.CompTail = (s.CompTail + 1) & r.compMask(); s.CompTail == 0 {
		s.Phase ^= 1
	}
	return true
}

// notify sends the ring's interrupt, now or when enough has come together.
func (r *ring) notify(urgent bool) {
	s := &r.s
	s.Unsent++
	wait := int64(s.Coalesce>>coalesceTime) * nsPerUs
	switch {
	case urgent || s.Unsent >= s.Coalesce&coalesceCount:
		r.interrupt()
	case wait > 0 && !s.Waiting:
		s.Waiting = true
		r.fifo.host.Schedule(r.fifo.host.Now()+wait, eventCoalesce|uint32(r.index), 0)
	}
}

// interrupt sends the ring's interrupt.
func (r *ring) interrupt() {
	if r.s.Waiting {
		r.fifo.host.Cancel(eventCoalesce | uint32(r.index))
	}
	r.s.Unsent, r.s.Waiting = 0, false
	r.fifo.raise(causeOf(r.index), r.s.Vector)
}

// atLevel is whether the FIFO is at the level that NOTIFY asks for.
func (r *ring) atLevel() bool {
	c := r.channel
	switch {
	case r.s.Notify == 0:
		return false
	case r.receive:
		return c.s.Fill >= r.s.Notify
	}
	// Only in loopback does what is sent take room.
	return c.s.End != endLoopback || uint32(len(c.data))-c.s.Fill >= r.s.Notify
}

// checkLevel has the ring's interrupt sent, after the device's latency, if the
// FIFO is at NOTIFY's level. It is called whenever that may have come about.
func (r *ring) checkLevel() {
	if r.fifo.running() && r.s.NotifyAt == 0 && r.atLevel() {
		r.s.NotifyAt = r.fifo.host.Now() + r.fifo.cfg.Latency
		r.fifo.host.Schedule(r.s.NotifyAt, eventNotify|uint32(r.index), 0)
	}
}

// levelReached is the event of a level that was reached, even if it is left
// again by now.
func (r *ring) levelReached() {
	due := r.s.NotifyAt != 0
	r.s.NotifyAt = 0
	if due && r.fifo.running() { // else ENABLE looks at the level anew
		r.s.Notify = 0
		r.interrupt()
	}
}

// abortLater schedules the abort that ABORT_STATUS calls pending.
func (r *ring) abortLater() {
	r.fifo.host.Cancel(eventAbort | uint32(r.index))
	r.fifo.host.Schedule(r.fifo.host.Now()+r.fifo.cfg.Latency, eventAbort|uint32(r.index), 0)
}

// abort ends the request with the cookie in AbortCookie: the present one or one
// behind it, whose descriptors are then passed over. ABORT_STATUS says how it
// went.
func (r *ring) abort() {
	s := &r.s
	cookie := s.AbortCookie
	if s.AbortStatus != abortPending {
		return // the ring was reset meanwhile
	}
	if !r.fifo.running() || s.Size == 0 || s.CompSize == 0 || s.State == stateError {
		s.AbortStatus = abortNotFound
		return
	}
	if r.compFull() { // goes on when there is room
		s.AbortWaits = true
		if s.Unsent > 0 {
			r.interrupt()
		}
		return
	}
	s.AbortStatus = abortNotFound
	first := s.Head
	if s.Request.Valid {
		if s.Request.Cookie == cookie {
			s.AbortStatus = abortDone
			r.fifo.host.Cancel(eventWork | uint32(r.index))
			s.Doing = phaseIdle
			s.Request.Urgent = true
			if r.complete(statusAborted) {
				r.wake()
			}
			return
		}
		first = (first + s.Request.Length) & r.mask()
	}
	start, length, ok := r.find(first, cookie)
	if !ok {
		return
	}
	s.AbortStatus = abortDone
	if !r.postFor(cookie, 0, length, statusAborted) {
		r.haltCompletion()
		return
	}
	s.Aborted[start/64] |= 1 << (start % 64)
	r.notify(true)
}

// find looks for a request from an index on, by its cookie, and gives the index
// of its first descriptor and its length in bytes.
func (r *ring) find(at uint32, cookie uint64) (start uint32, length uint64, ok bool) {
	for begins := true; at != r.s.Tail; {
		if r.descriptor(at) != nil {
			return 0, 0, false // its own fetch will say so
		}
		if begins {
			start, length = at, 0
			ok = r.descCookie() == cookie && r.s.Aborted[at/64]>>(at%64)&1 == 0
		}
		length += uint64(r.descLength())
		if begins = r.descFlags()&descMore == 0; begins && ok {
			return start, length, true
		}
		at = (at + 1) & r.mask()
	}
	return 0, 0, false
}
