package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/term"

	"fifovm/vmm/vmm"
)

const escape = 'A' & 0x1f // Ctrl-A

const escapeHelp = "\r\n" +
	"Ctrl-A x       leave the guest\r\n" +
	"Ctrl-A c       the monitor, and back: look at the guest, and break its devices\r\n" +
	"Ctrl-A b       send a break: the next key is a SysRq command to Linux\r\n" +
	"Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n" +
	"Ctrl-A h       this help\r\n"

// terminal connects standard input and output with a guest's console. If the
// input is a terminal, it is in raw mode from Start to Close, and obeys the
// escape sequences.
type terminal struct {
	in      *os.File
	screen  *screen
	keys    *keys
	leave   func()
	started bool
	saved   *term.State // nil: not a terminal
	guard   *guard
	monitor *prompt
}

// newTerminal makes a terminal that is not used yet. leave is called on Ctrl-A
// x, and when there is nobody any more who reads the output. When ctx is done,
// output that is stuck is given up soon.
func newTerminal(ctx context.Context, in, out *os.File, leave func()) *terminal {
	t := &terminal{in: in, screen: newScreen(ctx, out, leave), keys: newKeys(), leave: leave}
	t.monitor = newPrompt(t.screen)
	return t
}

// Start begins to read, if that was not done yet.
func (t *terminal) Start() error {
	if t.started {
		return nil
	}
	t.started = true
	if fd := int(t.in.Fd()); term.IsTerminal(fd) {
		fmt.Fprintln(os.Stderr, "fifovm: Ctrl-A x leaves, Ctrl-A h helps")
		t.guard = startGuard(t.in)
		saved, err := term.MakeRaw(fd)
		if err != nil {
			t.guard.dismiss()
			return fmt.Errorf("terminal: %w", err)
		}
		t.guard.armed()
		t.saved = saved
	}
	go t.read(t.saved != nil)
	go t.keys.send()
	if t.saved != nil {
		go t.monitor.serve()
	}
	return nil
}

// Attach sends the input to a guest's serial port; nil lets it wait.
func (t *terminal) Attach(guest vmm.SerialPort) { t.keys.attach(guest) }

// Write shows what the guest prints.
func (t *terminal) Write(p []byte) (int, error) { return t.monitor.show(p) }

// Note says something of our own on standard error, among the guest's output.
func (t *terminal) Note(text string) {
	start, end := "", "\n"
	if t.saved != nil {
		// Raw mode, and the guest may have left off anywhere in a line.
		start, end = "\r\n", "\r\n"
	}
	fmt.Fprintf(os.Stderr, "%sfifovm: %s%s", start, text, end)
}

// Close restores the terminal. What still reads and writes ends with the program.
func (t *terminal) Close() error {
	if t.saved == nil {
		return nil
	}
	err := term.Restore(int(t.in.Fd()), t.saved)
	t.saved = nil
	t.guard.dismiss()
	return err
}

// read passes the input on until it ends, which does not end the guest.
func (t *terminal) read(raw bool) {
	// Who types is told by a bell that it is too much, and must not be kept from
	// leaving. A pipe can wait.
	buf := make([]byte, 4096)
	escaped := false
	for {
		n, err := t.in.Read(buf)
		if raw {
			escaped = t.obey(buf[:n], escaped)
		} else if n > 0 {
			t.keys.put(buf[:n], true)
		}
		if err != nil {
			return
		}
	}
}

// obey does what the escape sequences in input say and passes the rest on.
// escaped is whether an escape character was the last before, or is now.
func (t *terminal) obey(input []byte, escaped bool) bool {
	var rest []byte
	flush := func() {
		put := func(p []byte) bool { return t.keys.put(p, false) }
		if t.monitor.open() {
			put = t.monitor.put
		}
		if len(rest) > 0 && !put(rest) {
			t.say("\a")
		}
		rest = nil
	}
	for _, b := range input {
		switch {
		case !escaped && b == escape:
			escaped = true
			continue
		case !escaped:
			rest = append(rest, b)
		case b == escape:
			rest = append(rest, escape)
		case b == 'x' || b == 'X':
			t.leave()
		case b == 'b' || b == 'B':
			flush()
			t.keys.put(nil, false)
		case b == 'c' || b == 'C':
			flush()
			t.monitor.toggle()
		case b == 'h' || b == 'H' || b == '?':
			t.say(escapeHelp)
		}
		escaped = false
	}
	flush()
	return escaped
}

// say shows text without waiting for a screen that is stuck.
func (t *terminal) say(text string) { go fmt.Fprint(t.screen, text) }

// screen is an output that can be given up while a write is stuck: nobody may
// read the pipe, or the terminal may be a window that was put aside.
type screen struct {
	work   chan write
	gaveUp chan struct{} // closed: nobody waits for the file any more
}

type write struct {
	data []byte
	done chan<- error
}

// patience is how long stuck output is waited for after the end was asked for.
const patience = time.Second

func newScreen(ctx context.Context, file *os.File, broken func()) *screen {
	s := &screen{work: make(chan write), gaveUp: make(chan struct{})}
	context.AfterFunc(ctx, func() {
		time.AfterFunc(patience, func() { close(s.gaveUp) })
	})
	go func() {
		for w := range s.work {
			_, err := file.Write(w.data)
			if err != nil {
				broken()
			}
			w.done <- err
		}
	}()
	return s
}

// Write has the screen's goroutine write p. What was given up counts as written.
func (s *screen) Write(p []byte) (int, error) {
	done := make(chan error, 1)
	select {
	case s.work <- write{bytes.Clone(p), done}: // a write that is given up outlives p
	case <-s.gaveUp:
		return len(p), nil
	}
	select {
	case err := <-done:
		if err != nil {
			return 0, fmt.Errorf("the guest's output can't be written: %w", err)
		}
	case <-s.gaveUp:
	}
	return len(p), nil
}

// keysLimit is how many bytes of input may wait for the guest.
const keysLimit = 1 << 20

// keys is the input that waits for the guest, which may not listen.
type keys struct {
	mu      sync.Mutex
	changed *sync.Cond
	waiting [][]byte // nil: a break
	size    int      // bytes in waiting
	guest   vmm.SerialPort
}

func newKeys() *keys {
	k := new(keys)
	k.changed = sync.NewCond(&k.mu)
	return k
}

func (k *keys) attach(guest vmm.SerialPort) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.guest = guest
	k.changed.Broadcast()
}

// put appends p, which may be a break. Where there is no room it waits, or else
// drops p and gives false.
func (k *keys) put(p []byte, wait bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.size+len(p) > keysLimit {
		if !wait {
			return false
		}
		k.changed.Wait()
	}
	k.size += len(p)
	k.waiting = append(k.waiting, bytes.Clone(p))
	k.changed.Broadcast()
	return true
}

// send hands the input to the guests, one after the other, for as long as the
// program runs. What a guest did not take before it ended is for the next.
func (k *keys) send() {
	for {
		guest, p := k.next()
		if p == nil {
			_ = guest.Break() // or else the guest is gone, which the next write finds
			continue
		}
		if n, err := guest.Write(p); err != nil {
			k.putBack(guest, p[n:])
		}
	}
}

// putBack puts p, that a guest which is gone did not take, before all that waits.
func (k *keys) putBack(guest vmm.SerialPort, p []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.size += len(p)
	k.waiting = slices.Insert(k.waiting, 0, p)
	if k.guest == guest {
		k.guest = nil
	}
}

// next waits until there are a guest and something for it.
func (k *keys) next() (guest vmm.SerialPort, p []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.guest == nil || len(k.waiting) == 0 {
		k.changed.Wait()
	}
	p, k.waiting = k.waiting[0], k.waiting[1:]
	k.size -= len(p)
	k.changed.Broadcast()
	return k.guest, p
}
