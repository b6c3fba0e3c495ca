package harness

import (
	"bytes"
	"io"
	"regexp"
	"sync"
)

// Console reads what a guest prints on its console: it passes everything on,
// keeps the last lines, and knows a kernel panic when it sees one.
type Console struct {
	// Output takes all that the guest prints; nil drops it.
	Output io.Writer
	// OnPanic, if set, is called once when the kernel has printed the last line
	// of a panic and so will do nothing more by itself.
	OnPanic func()

	mu        sync.Mutex
	line      []byte   // the line that is not yet ended
	returned  bool     // a carriage return is the last that came
	tail      []string // the last lines that are
	panic     string
	ended     bool           // the last line of a panic was seen
	complaint string         // the first line in which the kernel complained
	splat     []string       // what it printed from there on, or from a little before
	awaited   *regexp.Regexp // what a line is waited for to have; nil: nothing
	came      chan struct{}  // closed when there was one
	recording bool
	record    []string // the lines since recording began
}

const (
	// maxLine bounds what is kept of a line, so that no guest fills the host's
	// memory. Of longer ones the end is kept: kernel messages come after what a
	// program left without a newline, and are far shorter (panic's has 1024
	// bytes at most).
	maxLine    = 4096
	tailLines  = 40
	splatLines = 200
)

// What kernel/panic.c prints, since 2.6 at the start of a panic and since 3.11
// at its end, if it does not reboot. Both may stand behind a time stamp, and
// behind what a program had printed.
var (
	panicStart = []byte("Kernel panic - not syncing: ")
	panicEnd   = []byte("---[ end Kernel panic")
)

var (
	cutHere = []byte("[ cut here ]") // above a WARN, which says nothing else that is its own
)

// Write takes what the guest prints.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	ended := false
	for _, b := range p {
		ended = c.take(b) || ended
	}
	c.mu.Unlock()
	if ended && c.OnPanic != nil {
		c.OnPanic()
	}
	if c.Output == nil {
		return len(p), nil
	}
	return c.Output.Write(p)
}

// take takes a byte and tells whether it ends the last line of a panic.
func (c *Console) take(b byte) (panicEnded bool) {
	switch {
	case b == '\n':
		panicEnded = c.look(maxLine)
		c.keep()
		c.returned = false
		return panicEnded
	case b == '\r':
		// Whether it begins a CR LF, or the line anew, is decided by what follows.
		c.returned = true
		return false
	case c.returned:
		// A line that is printed over, as progress bars and shells do.
		panicEnded = c.look(maxLine)
		c.line, c.returned = c.line[:0], false
	case len(c.line) == maxLine:
		const half = maxLine / 2
		panicEnded = c.look(half)
		c.line = append(c.line[:0], c.line[half:]...)
	}
	c.line = append(c.line, b)
	return panicEnded
}

// look searches the line for what the kernel says of itself, panics as far as
// they begin before limit, and tells whether it ends a panic.
func (c *Console) look(limit int) (panicEnded bool) {
	c.judge(c.line)
	if i := bytes.Index(c.line, panicEnd); i >= 0 && i < limit {
		// With an early console beside the real one, it comes twice.
		first := c.panic != "" && !c.ended
		c.ended = c.ended || first
		return first
	}
	if i := bytes.Index(c.line, panicStart); i >= 0 && i < limit && c.panic == "" {
		if c.panic = string(c.line[i+len(panicStart):]); c.panic == "" {
			c.panic = "no reason given"
		}
	}
	return false
}

// keep puts the line, which has ended, into the tail.
func (c *Console) keep() {
	if c.complaint != "" && len(c.splat) < splatLines {
		if before := len(c.tail) - 1; len(c.splat) == 0 && before >= 0 && bytes.Contains([]byte(c.tail[before]), cutHere) {
			c.splat = append(c.splat, c.tail[before])
		}
		c.splat = append(c.splat, string(c.line))
	}
	if c.recording && len(c.record) < splatLines {
		c.record = append(c.record, string(c.line))
	}
	if c.awaited != nil && c.awaited.Match(c.line) {
		close(c.came)
		c.awaited = nil
	}
	if len(c.tail) == tailLines {
		c.tail = append(c.tail[:0], c.tail[1:]...)
	}
	c.tail = append(c.tail, string(c.line))
	c.line = c.line[:0]
}

// Splat is what the kernel printed from its first complaint on, at most
// splatLines lines.
func (c *Console) Splat() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.splat...)
}

// await gives a channel that is closed when the guest prints the next line that
// matches.
func (c *Console) await(line *regexp.Regexp) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.awaited, c.came = line, make(chan struct{})
	return c.came
}

// startRecord begins to record what is printed, splatLines lines at most.
func (c *Console) startRecord() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recording, c.record = true, nil
}

// endRecord gives what was recorded.
func (c *Console) endRecord() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recording = false
	return c.record
}

// Panic is the reason of the kernel's panic, empty if there was none.
func (c *Console) Panic() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.panic
}

// Tail gives the last lines, the unfinished one included.
func (c *Console) Tail() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := append([]string(nil), c.tail...)
	if len(c.line) > 0 {
		t = append(t, string(c.line))
	}
	return t
}
