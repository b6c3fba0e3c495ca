package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	"fifovm/vmm/vmm"
)

func serialTo(w io.Writer) [len(vmm.Config{}.Serial)]io.Writer {
	return [len(vmm.Config{}.Serial)]io.Writer{w}
}

const escape = 'A' & 0x1f // Ctrl-A

const escapeHelp = "\r\n" +
	"Ctrl-A x  leave the guest\r\n" +
	"Ctrl-A h  this help\r\n" +
	"Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n"

// terminal connects standard input and output with a guest's console. If the
// input is a terminal, it is in raw mode until Close.
type terminal struct {
	in, out *os.File
	saved   *term.State // nil: not a terminal
	leave   func()

	mu    sync.Mutex
	guest io.Writer
}

// openTerminal begins to read. leave is called on Ctrl-A x.
func openTerminal(in, out *os.File, leave func()) (*terminal, error) {
	t := &terminal{in: in, out: out, leave: leave}
	if term.IsTerminal(int(in.Fd())) {
		saved, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return nil, fmt.Errorf("terminal: %w", err)
		}
		t.saved = saved
		fmt.Fprint(os.Stderr, "fifovm: Ctrl-A x leaves, Ctrl-A h helps\r\n")
	}
	go t.read()
	return t, nil
}

// Attach sends the input to a guest's serial port; nil drops it.
func (t *terminal) Attach(guest io.Writer) {
	t.mu.Lock()
	t.guest = guest
	t.mu.Unlock()
}

// Write shows what the guest prints.
func (t *terminal) Write(p []byte) (int, error) { return t.out.Write(p) }

// Close restores the terminal. The reading goroutine ends with the program.
func (t *terminal) Close() error {
	if t.saved == nil {
		return nil
	}
	return term.Restore(int(t.in.Fd()), t.saved)
}

// read passes the input on until it ends, which does not end the guest.
func (t *terminal) read() {
	buf := make([]byte, 4096)
	escaped := false
	for {
		n, err := t.in.Read(buf)
		input := buf[:n]
		if t.saved != nil {
			input, escaped = t.commands(input, escaped)
		}
		t.mu.Lock()
		guest := t.guest
		t.mu.Unlock()
		if guest != nil && len(input) > 0 {
			// A guest that is gone takes no input; the next one will.
			if _, err := guest.Write(input); err != nil && !errors.Is(err, io.ErrClosedPipe) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// commands obeys the escape sequences in input and gives what is left, and
// whether an escape character was the last.
func (t *terminal) commands(input []byte, escaped bool) (rest []byte, _ bool) {
	rest = input[:0]
	for _, b := range input {
		switch {
		case !escaped && b == escape:
			escaped = true
			continue
		case !escaped:
			rest = append(rest, b)
		case b == 'x' || b == 'X':
			t.leave()
		case b == 'h' || b == 'H' || b == '?':
			fmt.Fprint(t.out, escapeHelp)
		case b == escape:
			rest = append(rest, escape)
		}
		escaped = false
	}
	return rest, escaped
}
