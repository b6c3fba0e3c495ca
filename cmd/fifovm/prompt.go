package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/term"

	"fifovm/harness/monitor"
	"fifovm/vmm/debug"
)

// prompt is the monitor's side of a terminal: where its lines are typed, and
// which of the guest and the monitor has the keyboard.
type prompt struct {
	screen *screen
	editor *term.Terminal
	lines  chan []byte // what was typed, for the editor
	typed  []byte      // the rest of one; the editor's

	mu      sync.Mutex
	opened  bool
	partial []byte // of the guest's last line, while the monitor is open
	held    bool   // gdb has the guest

	// busy is held while a command runs, so that the machine is not closed under
	// it.
	busy    sync.Mutex
	monitor *monitor.Monitor
	session *debug.Session
	awaited chan struct{} // closed when there is the guest that a command has asked for
}

// typeAhead is how many pieces of input may wait for a command to end.
const typeAhead = 256

const openedText = "monitor: Ctrl-A c goes back to the guest, help helps\n"

func newPrompt(s *screen) *prompt {
	p := &prompt{screen: s, lines: make(chan []byte, typeAhead)}
	p.editor = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{readerFunc(p.read), writerFunc(p.write)}, "(fifovm) ")
	p.editor.AutoCompleteCallback = p.complete
	return p
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// write is the editor's output. It always waits for a line, and so shows a
// prompt: nobody sees it while the guest has the screen.
func (p *prompt) write(b []byte) (int, error) {
	if !p.open() {
		return len(b), nil
	}
	return p.screen.Write(b)
}

// attach gives the monitor of a guest that is about to run; nil: it has ended.
// It waits for a command that is under way.
func (p *prompt) attach(m *monitor.Monitor, s *debug.Session) {
	p.busy.Lock()
	defer p.busy.Unlock()
	p.monitor, p.session = m, s
	if p.awaited != nil {
		close(p.awaited)
		p.awaited = nil
	}
	if m != nil {
		go p.follow(m, s, s.Stopped())
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened {
		p.close()
	}
}

// detach takes the monitor from a guest that has ended, when a command that is
// under way is done. attach says what comes then.
func (p *prompt) detach() {
	p.busy.Lock()
	defer p.busy.Unlock()
	p.monitor, p.session = nil, nil
}

// await, in a command, has the next one wait for another guest.
func (p *prompt) await() { p.awaited = make(chan struct{}) }

// follow opens the monitor, if it is not open, when the guest has stopped at a
// breakpoint or watchpoint, and says so. Where gdb has the guest, gdb does.
func (p *prompt) follow(m *monitor.Monitor, s *debug.Session, events <-chan debug.Event) {
	for e := range events {
		if e.Reason != debug.Breakpoint && e.Reason != debug.Watchpoint {
			continue
		}
		p.mu.Lock()
		held := p.held
		if !held {
			// Gdb lets the guest go on before it leaves it.
			_, stands := s.Last()
			held = !stands
		}
		p.mu.Unlock()
		if !held {
			p.ask(m.Event(e) + "\n")
		}
	}
}

// gdb is told when a gdb has come or gone.
func (p *prompt) gdb(here bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = here
}

// hasGDB is whether a gdb has the guest.
func (p *prompt) hasGDB() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

func (p *prompt) open() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened
}

// toggle goes from the guest to the monitor or back.
func (p *prompt) toggle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened {
		p.close()
	} else {
		p.begin("")
	}
}

// ask opens the monitor, if it is not open, and says something there.
func (p *prompt) ask(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened {
		go p.say(text)
	} else {
		p.begin(text)
	}
}

// begin and close are with mu held. They do not wait for a screen that is stuck.
func (p *prompt) begin(text string) {
	p.opened = true
	go fmt.Fprint(p.editor, "\n"+openedText+text)
}

func (p *prompt) close() {
	p.opened = false
	rest := p.partial
	p.partial = nil
	go fmt.Fprintf(p.screen, "\r\n%s", rest)
}

// put gives the editor what was typed; false: there is no room.
func (p *prompt) put(b []byte) bool {
	select {
	case p.lines <- bytes.Clone(b):
		return true
	default:
		return false
	}
}

// read is the editor's input. Ctrl-C and Ctrl-D would end it: the first gives up
// a line here, the second nothing.
func (p *prompt) read(b []byte) (int, error) {
	if len(p.typed) == 0 {
		p.typed = <-p.lines
	}
	n := copy(b, p.typed)
	p.typed = p.typed[n:]
	for i, c := range b[:n] {
		if c == 'C'&0x1f || c == 'D'&0x1f {
			b[i] = 'U' & 0x1f
		}
	}
	return n, nil
}

// show is the guest's output. While the monitor is open it comes a line at a
// time, above the prompt.
func (p *prompt) show(b []byte) (int, error) {
	p.mu.Lock()
	if !p.opened {
		p.mu.Unlock()
		return p.screen.Write(b)
	}
	p.partial = append(p.partial, b...)
	end := bytes.LastIndexByte(p.partial, '\n') + 1
	whole := bytes.ReplaceAll(p.partial[:end:end], []byte("\r\n"), []byte("\n"))
	p.partial = p.partial[end:]
	p.mu.Unlock()
	if len(whole) > 0 {
		if _, err := p.editor.Write(whole); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// say shows text of the monitor's.
func (p *prompt) say(text string) {
	// Who reads it is gone if it fails, which the guest's output finds as well.
	_, _ = io.WriteString(p.editor, text)
}

// serve does what is typed, for as long as the program runs.
func (p *prompt) serve() {
	for {
		line, err := p.editor.ReadLine()
		if err != nil && line == "" {
			continue // a pasted line, or a key that the editor does not have
		}
		p.do(line)
	}
}

func (p *prompt) do(line string) {
	if other := p.one(line); other != nil {
		<-other
	}
}

// one does one command. The channel, unless nil, is closed when there is the guest
// that it has asked for.
func (p *prompt) one(line string) <-chan struct{} {
	p.busy.Lock()
	defer p.busy.Unlock()
	if p.monitor == nil {
		p.say("there is no guest\n")
		return nil
	}
	if err := p.monitor.Do(line, p.editor); err != nil {
		p.say(err.Error() + "\n")
	}
	return p.awaited
}

// complete is Tab: the rest of a word if there is one way on, else a list.
func (p *prompt) complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' || pos != len(line) {
		return "", 0, false
	}
	p.busy.Lock()
	defer p.busy.Unlock()
	if p.monitor == nil {
		return "", 0, false
	}
	all := p.monitor.Complete(line)
	if len(all) == 0 {
		return "", 0, false
	}
	start := strings.LastIndexByte(line, ' ') + 1
	common := all[0]
	for _, s := range all[1:] {
		for !strings.HasPrefix(s, common) {
			common = common[:len(common)-1]
		}
	}
	if len(all) == 1 {
		common += " "
	} else if common == line[start:] {
		go p.say(strings.Join(all, "  ") + "\n") // the editor holds its lock here
	}
	line = line[:start] + common
	return line, len(line), true
}
