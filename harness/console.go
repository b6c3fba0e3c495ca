package harness

import (
	"bytes"
	"io"
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
	tail      []string // the last lines that are
	panic     string
	complaint string // the first line in which the kernel complained
}

const (
	maxLine   = 4096 // longer ones are cut, so that no guest fills the host's memory
	tailLines = 40
)

// What kernel/panic.c prints, since 2.6 at the start of a panic and since 3.11
// at its end, if it does not reboot.
var (
	panicStart = []byte("Kernel panic - not syncing: ")
	panicEnd   = []byte("---[ end Kernel panic")
)

// Write takes what the guest prints.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	ended := false
	for _, b := range p {
		switch {
		case b == '\n':
			ended = c.endLine() || ended
		case b != '\r' && len(c.line) < maxLine:
			c.line = append(c.line, b)
		}
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

// endLine looks at a whole line and tells whether it ends a panic.
func (c *Console) endLine() (panicEnded bool) {
	c.judge(c.line)
	if i := bytes.Index(c.line, panicEnd); i >= 0 {
		panicEnded = c.panic != ""
	} else if i := bytes.Index(c.line, panicStart); i >= 0 && c.panic == "" {
		c.panic = string(c.line[i+len(panicStart):])
	}
	if len(c.tail) == tailLines {
		c.tail = append(c.tail[:0], c.tail[1:]...)
	}
	c.tail = append(c.tail, string(c.line))
	c.line = c.line[:0]
	return panicEnded
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
