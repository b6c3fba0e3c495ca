// Package trace keeps what crossed the boundaries of a machine's devices, and
// writes it out: as text, a line a crossing, and as JSON that Perfetto
// (ui.perfetto.dev) and chrome://tracing open.
//
// A Log has room for a number of crossings and keeps the last ones. Times are the
// machine's, so that two runs that are the same have the same trace, to the byte,
// where the machine's time is virtual.
package trace

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"fifovm/device"
)

// Size is a room for crossings that suits most runs: some 20 MiB.
const Size = 1 << 17

// Log implements device.Tracer, for any number of devices. Like its boundaries
// it is used with the machine locked.
type Log struct {
	ring  []device.Crossing
	total uint64
}

var _ device.Tracer = (*Log)(nil)

// New gives a log with room for n crossings. It allocates nothing later.
func New(n int) *Log { return &Log{ring: make([]device.Crossing, max(n, 1))} }

// Cross implements device.Tracer.
func (l *Log) Cross(c device.Crossing) {
	l.ring[l.total%uint64(len(l.ring))] = c
	l.total++
}

// Dropped is how many crossings are lost, as newer ones needed their room.
func (l *Log) Dropped() uint64 { return l.total - uint64(l.len()) }

func (l *Log) len() int { return int(min(l.total, uint64(len(l.ring)))) }

// Crossings gives what is kept, oldest first, and on each device by number.
func (l *Log) Crossings() []device.Crossing {
	n := uint64(l.len())
	all := make([]device.Crossing, 0, n)
	for i := l.total - n; i < l.total; i++ {
		all = append(all, l.ring[i%uint64(len(l.ring))])
	}
	// A read is told of behind what it has brought about: that is where it is moved
	// back to its place, a short way.
	for i := range all {
		j := i
		for j > 0 && all[i].Seq != 0 && all[j-1].Device == all[i].Device && all[j-1].Seq > all[i].Seq {
			j--
		}
		if j < i {
			c := all[i]
			copy(all[j+1:i+1], all[j:i])
			all[j] = c
		}
	}
	return all
}

// WriteText writes a line for each crossing: time in s, number, device, what,
// where, size, value, and what was wrong with it.
func (l *Log) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	if d := l.Dropped(); d > 0 {
		fmt.Fprintf(b, "# %d earlier crossings were dropped\n", d)
	}
	var line []byte
	for _, c := range l.Crossings() {
		line = appendLine(line[:0], &c)
		b.Write(append(line, '\n'))
	}
	return b.Flush()
}

func appendLine(line []byte, c *device.Crossing) []byte {
	number := "-"
	if c.Seq != 0 {
		number = fmt.Sprint(c.Seq)
	}
	size := ""
	if c.Size != 0 {
		size = fmt.Sprint(c.Size)
	}
	line = fmt.Appendf(line, "%4d.%09d %7s %-10s %-18s %-20s %6s %-18s", c.Time/1e9, c.Time%1e9, number, c.Device, name(c), where(c), size, value(c))
	for _, s := range []string{c.Note, wrong(c)} {
		if s != "" {
			line = append(append(line, ' '), s...)
		}
	}
	for len(line) > 0 && line[len(line)-1] == ' ' {
		line = line[:len(line)-1]
	}
	return line
}

// name is the crossing's class and number, as a plan would name it.
func name(c *device.Crossing) string {
	s := c.Class.String()
	number := c.Number
	if c.Class == device.ClassIRQ {
		number = c.Nth
		if c.Vector == device.INTx {
			s += "[intx]"
		} else {
			s += fmt.Sprintf("[%d]", c.Vector)
		}
	}
	if number != 0 {
		s += fmt.Sprintf("@%d", number)
	}
	return s
}

func where(c *device.Crossing) string {
	switch c.Class {
	case device.ClassMMIORead, device.ClassMMIOWrite:
		return fmt.Sprintf("[%d:%#x]", c.BAR, c.Addr)
	case device.ClassDMARead, device.ClassDMAWrite:
		return fmt.Sprintf("[%#x]", c.Addr)
	case device.ClassEvent:
		return fmt.Sprintf("[%d]", c.Addr)
	}
	return ""
}

func value(c *device.Crossing) string {
	switch c.Class {
	case device.ClassMMIORead, device.ClassMMIOWrite, device.ClassDMARead, device.ClassDMAWrite, device.ClassEvent:
		if c.Err != nil {
			return ""
		}
		digits := 16
		if c.Class != device.ClassEvent {
			digits = 2 * min(c.Size, 8)
		}
		return fmt.Sprintf("0x%0*x", digits, c.Data)
	}
	return ""
}

func wrong(c *device.Crossing) string {
	switch {
	case c.Err == nil && c.Fault == "":
		return ""
	case c.Err == nil:
		return "fault " + c.Fault
	case c.Fault == "":
		return c.Err.Error()
	}
	return "fault " + c.Fault + ": " + c.Err.Error()
}

// The tracks of a device.
const (
	trackIRQ = 1 + iota
	trackDMA
	trackMMIO
	trackDevice
	trackFaults
)

var tracks = [...]string{trackIRQ: "interrupts", trackDMA: "DMA", trackMMIO: "MMIO", trackDevice: "device", trackFaults: "faults"}

func track(c *device.Crossing) int {
	switch c.Class {
	case device.ClassIRQ, device.ClassINTxOff:
		return trackIRQ
	case device.ClassDMARead, device.ClassDMAWrite:
		return trackDMA
	case device.ClassMMIORead, device.ClassMMIOWrite:
		return trackMMIO
	}
	return trackDevice
}

// event is one of the Trace Event Format (Google, "Trace Event Format", 2016:
// instant events with thread scope, and metadata).
type event struct {
	Name  string      `json:"name"`
	Cat   string      `json:"cat,omitempty"`
	Phase string      `json:"ph"`
	Scope string      `json:"s,omitempty"`
	Time  json.Number `json:"ts,omitempty"`
	PID   int         `json:"pid"`
	TID   int         `json:"tid"`
	Args  any         `json:"args,omitempty"`
}

type metadata struct {
	Name      string `json:"name,omitempty"`
	SortIndex int    `json:"sort_index,omitempty"`
}

type details struct {
	Number uint64 `json:"number,omitempty"`
	Where  string `json:"where,omitempty"`
	Size   int    `json:"size,omitempty"`
	Value  string `json:"value,omitempty"`
	Note   string `json:"note,omitempty"`
	Fault  string `json:"fault,omitempty"`
	Error  string `json:"error,omitempty"`
	What   string `json:"what,omitempty"` // of a fault: what it broke
}

// WriteJSON writes the trace for Perfetto: a process for each device, with
// tracks for its interrupts, DMA, MMIO, the device itself and the faults. Times
// are the machine's in µs, with three digits for the ns.
func (l *Log) WriteJSON(w io.Writer) error {
	b := bufio.NewWriter(w)
	var firstErr error
	sep := ""
	put := func(e event) {
		text, err := json.Marshal(e)
		if err != nil && firstErr == nil {
			firstErr = err
		}
		b.WriteString(sep)
		b.Write(text)
		sep = ",\n"
	}
	fmt.Fprintf(b, "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"dropped\":%d},\"traceEvents\":[\n", l.Dropped())
	var devices []string
	for _, c := range l.Crossings() {
		pid := 1 + slices.Index(devices, c.Device)
		if pid == 0 {
			devices = append(devices, c.Device)
			pid = len(devices)
			put(event{Name: "process_name", Phase: "M", PID: pid, Args: metadata{Name: c.Device}})
			for tid := trackIRQ; tid <= trackFaults; tid++ {
				put(event{Name: "thread_name", Phase: "M", PID: pid, TID: tid, Args: metadata{Name: tracks[tid]}})
				put(event{Name: "thread_sort_index", Phase: "M", PID: pid, TID: tid, Args: metadata{SortIndex: tid}})
			}
		}
		d := details{Number: c.Seq, Where: where(&c), Size: c.Size, Value: value(&c), Note: c.Note, Fault: c.Fault}
		if c.Err != nil {
			d.Error = c.Err.Error()
		}
		title := name(&c)
		if c.Class == device.ClassDevice {
			title = c.Note
		}
		e := event{
			Name: title, Cat: c.Class.String(), Phase: "i", Scope: "t",
			Time: json.Number(fmt.Sprintf("%d.%03d", c.Time/1000, c.Time%1000)),
			PID:  pid, TID: track(&c), Args: d,
		}
		put(e)
		if c.Fault != "" {
			e.Name, e.Cat, e.TID = c.Fault, "fault", trackFaults
			e.Args = details{Number: c.Seq, What: title, Note: c.Note}
			put(e)
		}
	}
	b.WriteString("\n]}\n")
	if err := b.Flush(); err != nil {
		return err
	}
	return firstErr
}
