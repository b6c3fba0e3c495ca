//go:build unix

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// session is a fifovm on a terminal of its own, and the user before it.
type session struct {
	t         *testing.T
	user, tty *os.File
	before    *term.State
	process   *exec.Cmd
	ended     chan struct{}
	mu        sync.Mutex
	shown     bytes.Buffer
	changed   chan struct{} // something was shown
	looking   sync.Mutex    // held by others: what comes is not read
	seen      int           // how much of shown next has gone past
}

// start runs fifovm with the tiny kernel on a new terminal. It does not lead the
// terminal's session, as its end would hang the terminal up, and nobody could
// look at it any more.
func start(t *testing.T, engine, script string, args ...string) *session {
	t.Helper()
	return startProgram(t, program, append([]string{"run", "-e", engine, "-m", "16M", "-k", kernel(t, script)}, args...)...)
}

// startProgram runs any command of a fifovm so.
func startProgram(t *testing.T, program string, args ...string) *session {
	t.Helper()
	return startProcess(t, exec.Command(program, args...))
}

// startProcess runs a process so.
func startProcess(t *testing.T, c *exec.Cmd) *session {
	t.Helper()
	user, tty, err := pty.Open()
	if err != nil {
		t.Skip(err)
	}
	s := &session{t: t, user: user, tty: tty, ended: make(chan struct{}), changed: make(chan struct{}, 1)}
	s.before = s.state()
	s.process = c
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 40, Cols: 120}); err != nil {
		t.Fatal(err)
	}
	s.process.Stdin, s.process.Stdout, s.process.Stderr = tty, tty, tty
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	go s.read()
	go func() {
		_ = s.process.Wait() // the state has it
		close(s.ended)
	}()
	t.Cleanup(func() {
		_ = s.process.Process.Kill() // most have ended
		<-s.ended
		tty.Close()
		user.Close()
	})
	return s
}

func (s *session) read() {
	buf := make([]byte, 4096)
	for {
		s.looking.Lock()
		n, err := s.user.Read(buf)
		s.looking.Unlock()
		s.mu.Lock()
		s.shown.Write(buf[:n])
		s.mu.Unlock()
		select {
		case s.changed <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (s *session) state() *term.State {
	s.t.Helper()
	state, err := term.GetState(int(s.tty.Fd()))
	if err != nil {
		s.t.Fatal(err)
	}
	return state
}

func (s *session) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

// expect waits until text is shown.
func (s *session) expect(text string) {
	s.t.Helper()
	late := time.After(bound)
	for !strings.Contains(s.text(), text) {
		select {
		case <-s.changed:
		case <-late:
			s.t.Fatalf("%q does not come; there is %q", text, s.text())
		}
	}
}

// next waits until text is shown behind what it has found before, and gives what
// is before it.
func (s *session) next(text string) string {
	s.t.Helper()
	late, ended := time.After(bound), s.ended
	for {
		rest := s.text()[s.seen:]
		if before, _, found := strings.Cut(rest, text); found {
			s.seen += len(before) + len(text)
			return before
		}
		select {
		case <-s.changed:
		case <-ended:
			// What it has said last is on its way.
			ended, late = nil, time.After(5*time.Second)
		case <-late:
			s.t.Fatalf("%q does not come; there is %q", text, rest)
		}
	}
}

func (s *session) send(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.user, keys); err != nil {
		s.t.Fatal(err)
	}
}

// end waits for the end, and for the terminal to be as it was.
func (s *session) end(status int) {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(bound):
		s.t.Fatalf("it does not end; there is %q", s.text())
	}
	state := s.process.ProcessState
	if ws, ok := state.Sys().(syscall.WaitStatus); state.ExitCode() != status && !(ok && ws.Signaled() && statusSignal+int(ws.Signal()) == status) {
		s.t.Errorf("it ended with %v, want %d; there is %q", state, status, s.text())
	}
	s.restored()
}

// restored checks the terminal. A guard, where one has to do it, may take a moment.
func (s *session) restored() {
	s.t.Helper()
	for range 100 {
		if reflect.DeepEqual(s.state(), s.before) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.t.Error("the terminal is not as it was before")
}

func TestTerminal(t *testing.T) { forEngines(t, testTerminal) }

func testTerminal(t *testing.T, engine string) {
	const ctrlA = "\x01"
	ready := func(s *session) {
		s.t.Helper()
		s.expect("ready\r\n")
		if reflect.DeepEqual(s.state(), s.before) {
			s.t.Error("the terminal is not raw")
		}
	}
	for _, test := range []struct {
		name, script string
		do           func(*session)
	}{
		{"typing is echoed by the guest", "", func(s *session) {
			ready(s)
			s.send("hello")
			s.expect("ready\r\nhello")
			s.send("\x03") // Ctrl-C is the guest's
			s.expect("hello\x03")
			s.send("p")
			s.end(0)
		}},
		{"help", "", func(s *session) {
			s.expect("Ctrl-A x leaves, Ctrl-A h helps\r\n") // cooked mode still
			ready(s)
			s.send(ctrlA)
			s.send("h")
			s.expect("Ctrl-A b       send a break")
			s.send("a" + ctrlA + ctrlA + "b" + ctrlA + "?" + ctrlA + "zc")
			s.expect("a\x01b")
			s.send(ctrlA + "x")
			s.end(0)
			if strings.Contains(s.text(), "z") {
				s.t.Error("an unknown escape sequence reached the guest")
			}
		}},
		{"monitor", "", func(s *session) {
			ready(s)
			s.send(ctrlA + "c")
			s.expect("(fifovm) ")
			s.send("he\t\r")
			s.expect("have the guest stand still")
			s.send("nonsense\r")
			s.expect("there is no command \"nonsense\"")
			s.send("info\r")
			s.expect("cpu 0: ")
			s.send("gdb 0\r")
			s.expect("gdb may connect: target remote ")
			s.send(ctrlA + "c" + "xyz")
			s.expect("xyz") // the guest's echo
			s.send(ctrlA + "c" + "quit\r")
			s.end(0)
		}},
		{"SIGTERM in the monitor", "", func(s *session) {
			ready(s)
			s.send(ctrlA + "c")
			s.expect("(fifovm) ")
			s.send("pause\r")
			s.signal(syscall.SIGTERM)
			s.end(143)
		}},
		{"SIGKILL in the monitor", "", func(s *session) {
			ready(s)
			s.send(ctrlA + "c")
			s.expect("(fifovm) ")
			s.signal(syscall.SIGKILL)
			s.end(137)
		}},
		{"leave", "", func(s *session) {
			ready(s)
			s.send(ctrlA + "x")
			s.end(0)
		}},
		{"break", "", func(s *session) {
			ready(s)
			s.send("a" + ctrlA + "bc")
			s.expect("a<break>c")
			s.send(ctrlA + "x")
			s.end(0)
		}},
		{"power off", "p", func(s *session) { s.end(0) }},
		{"panic", "k", func(s *session) {
			s.end(statusPanic)
			s.expect("fifovm: the guest's kernel panicked: test\r\n")
		}},
		{"panic and hang", "K", func(s *session) { s.end(statusPanic) }},
		{"triple fault", "t", func(s *session) {
			s.end(statusTripleFault)
			s.expect("triple fault")
		}},
		{"SIGTERM", "", func(s *session) {
			ready(s)
			s.signal(syscall.SIGTERM)
			s.end(143)
			s.expect("stopped by terminated\r\n")
		}},
		{"SIGINT", "", func(s *session) { ready(s); s.signal(syscall.SIGINT); s.end(130) }},
		{"SIGHUP", "", func(s *session) { ready(s); s.signal(syscall.SIGHUP); s.end(129) }},
		// What no deferred call sees: the guard's business.
		{"SIGKILL", "", func(s *session) { ready(s); s.signal(syscall.SIGKILL); s.end(137) }},
		{"SIGQUIT, which is Go's crash", "", func(s *session) { ready(s); s.signal(syscall.SIGQUIT); s.end(2) }},
		{"the guest does not listen", "d", func(s *session) {
			ready(s)
			s.send(strings.Repeat("x", 100) + ctrlA + "b")
			s.send(ctrlA + "x")
			s.end(0)
		}},
		{"nobody looks, and leaves", "", func(s *session) {
			ready(s)
			s.stuck()
			s.send(ctrlA + "h" + ctrlA + "x")
			s.end(0)
			s.looking.Unlock()
		}},
		{"nobody looks, and SIGTERM", "", func(s *session) {
			ready(s)
			s.stuck()
			s.signal(syscall.SIGTERM)
			s.end(143)
			s.looking.Unlock()
		}},
		{"reboot", "", func(s *session) {
			ready(s)
			s.send("ar")
			s.expect("the guest reboots\r\nready\r\n")
			s.send("bp")
			s.end(0)
		}},
	} {
		t.Run(test.name, func(t *testing.T) { test.do(start(t, engine, test.script)) })
	}
}

func (s *session) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// stuck has the guest print until nothing goes on any more, since nobody looks.
func (s *session) stuck() {
	s.t.Helper()
	s.send("f")
	s.expect("0123456789abcdef\r\n0123456789abcdef")
	s.looking.Lock()
	time.Sleep(2 * time.Second)
}
