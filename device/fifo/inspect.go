package fifo

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Names of what registers hold, for Inspect.
var (
	stateNames = []string{"stopped", "running", "draining", "error"}
	phaseNames = []string{"idle", "fetching", "moving", "blocked"}
	endNames   = []string{"loopback", "source", "sink", "host"}
	codeNames  = []string{"ok", "aborted", "descriptor", "dma", "parity", "drained", "completion", "not master"}
)

// named gives the name of a value that may come from the guest's memory.
func named(names []string, n uint32) string {
	if int(n) < len(names) {
		return names[n]
	}
	return fmt.Sprintf("%#x", n)
}

// inspectEntries is how many completions behind the driver's head are shown, as
// those that it has taken already.
const inspectEntries = 4

// Inspect implements device.Inspector.
func (f *FIFO) Inspect(w io.Writer, read func(addr uint64, p []byte) error) {
	g := &f.global
	fmt.Fprintf(w, "control %#x  irq cause %#x enable %#x  error cause %#x  interrupts sent %d\n",
		g.Control, g.IRQCause, g.IRQEnable, g.ErrorCause, g.Interrupts)
	for i := range f.channels {
		c := &f.channels[i].s
		fmt.Fprintf(w, "channel %d: end %s, %d of %d bytes in the FIFO, tx %d bytes in %d requests, rx %d bytes in %d requests, overrun %d, mismatches %d\n",
			i, named(endNames, c.End), c.Fill, f.cfg.Depth, c.TXBytes, c.TXRequests, c.RXBytes, c.RXRequests, c.Overrun, c.Mismatches)
		f.channels[i].tx().inspect(w, read)
		f.channels[i].rx().inspect(w, read)
	}
}

func (r *ring) inspect(w io.Writer, read func(addr uint64, p []byte) error) {
	s := &r.s
	name := "tx"
	if r.receive {
		name = "rx"
	}
	fmt.Fprintf(w, "  %s ring: %s, %s, vector %d", name, named(stateNames, s.State), named(phaseNames, s.Doing), s.Vector)
	if s.State == stateError {
		fmt.Fprintf(w, ", reason %s at descriptor %d, address %#x", named(codeNames, s.Reason), s.ErrorIndex, s.ErrorAddr)
	}
	fmt.Fprintln(w)
	if q := &s.Request; q.Valid {
		fmt.Fprintf(w, "    request %#x: %d of %d bytes, descriptor %d of %d\n", q.Cookie, q.Done, q.Total, q.Segment, q.Length)
	}
	if s.Size != 0 {
		fmt.Fprintf(w, "    descriptors at %#x: %d, head %d, tail %d\n", s.Base, 1<<s.Size, s.Head, s.Tail)
		for i := s.Head; i != s.Tail; i = (i + 1) & r.mask() {
			r.inspectDescriptor(w, read, i)
		}
	}
	if s.CompSize == 0 {
		return
	}
	fmt.Fprintf(w, "    completions at %#x: %d, head %d, tail %d, phase %d, %d without an interrupt\n",
		s.Comp, 1<<s.CompSize, s.CompHead, s.CompTail, s.Phase, s.Unsent)
	first := (s.CompHead - min(inspectEntries, r.compMask())) & r.compMask()
	if used := (s.CompTail - s.CompHead) & r.compMask(); used+inspectEntries > r.compMask() {
		first = s.CompHead // all else would be shown twice
	}
	for i := first; i != s.CompTail; i = (i + 1) & r.compMask() {
		r.inspectCompletion(w, read, i)
	}
}

func (r *ring) inspectDescriptor(w io.Writer, read func(addr uint64, p []byte) error, i uint32) {
	var b [descSize]byte
	if err := read(r.s.Base+uint64(i)*descSize, b[:]); err != nil {
		fmt.Fprintf(w, "      %4d: %v\n", i, err)
		return
	}
	le := binary.LittleEndian
	flags := le.Uint32(b[12:])
	text := ""
	if flags&descMore != 0 {
		text += " more"
	}
	if flags&descInterrupt != 0 {
		text += " interrupt"
	}
	if bad := flags &^ descFlags; bad != 0 {
		text += fmt.Sprintf(" bad flags %#x", bad)
	}
	fmt.Fprintf(w, "      %4d: %d bytes at %#x, cookie %#x%s\n", i, le.Uint32(b[8:]), le.Uint64(b[0:]), le.Uint64(b[16:]), text)
}

func (r *ring) inspectCompletion(w io.Writer, read func(addr uint64, p []byte) error, i uint32) {
	var b [compSize]byte
	if err := read(r.s.Comp+uint64(i)*compSize, b[:]); err != nil {
		fmt.Fprintf(w, "      %4d: %v\n", i, err)
		return
	}
	if b == [compSize]byte{} {
		return // in the first round: not written yet
	}
	le := binary.LittleEndian
	who := "taken by the driver"
	if (r.s.CompTail-i)&r.compMask() <= (r.s.CompTail-r.s.CompHead)&r.compMask() {
		who = "waits for the driver"
	}
	fmt.Fprintf(w, "      %4d: cookie %#x, %s, %d bytes done, %d left, ring's head %d, phase %d, %s\n", i, le.Uint64(b[0:]),
		named(codeNames, uint32(le.Uint16(b[24:]))), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint16(b[26:]), le.Uint32(b[28:])&1, who)
}
