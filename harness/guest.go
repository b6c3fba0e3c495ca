package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"fifovm/vmm/vmm"
)

// KernelWords are the kernel's parameters of a guest under test: the agent
// instead of a shell, warnings and worse on the console, a reset in place of a
// hang after a panic.
const KernelWords = "console=ttyS0 panic=-1 loglevel=5 fifovm.agent"

// Machine makes a loaded machine whose serial ports go to the given writers.
type Machine func(serial [2]io.Writer) (*vmm.Machine, error)

// Guest is a running guest and the conversation with its agent on ttyS1. The
// protocol is described in guest/agent/agent.c.
type Guest struct {
	machine *vmm.Machine
	console *Console
	lines   chan string // from the agent; closed when no more can come
	cancel  context.CancelFunc
	ended   chan struct{} // closed when the machine stopped
	stop    vmm.Stop      // valid when ended is closed
	err     error
}

const (
	hello = "fifovm-agent 1"
	bye   = "bye"
	// linesAhead is how many lines of the agent may wait to be read; then the
	// guest waits.
	linesAhead = 1024
)

// Start boots a guest and waits, for bootTime at most, until its agent says
// hello. console, if not nil, takes what the guest prints. The error of a boot
// that failed is a *Failure.
func Start(ctx context.Context, machine Machine, console io.Writer, bootTime time.Duration) (*Guest, error) {
	g := &Guest{lines: make(chan string, linesAhead), ended: make(chan struct{})}
	ctx, g.cancel = context.WithCancel(ctx)
	g.console = &Console{Output: console, OnPanic: g.cancel}
	agent := &lineSplitter{lines: g.lines, ended: g.ended}
	m, err := machine([2]io.Writer{g.console, agent})
	if err != nil {
		g.cancel()
		return nil, err
	}
	g.machine = m
	go func() {
		g.stop, g.err = m.Run(ctx)
		close(g.ended)
	}()
	late := time.NewTimer(bootTime)
	defer late.Stop()
	for {
		line, err := g.next(late.C)
		if err == nil && line == hello {
			return g, nil
		}
		if err != nil {
			return nil, errors.Join(g.failure("boot", err), g.Close())
		}
	}
}

// errLate is the silence of a guest.
var errLate = errors.New("no answer")

// next gives the agent's next line, or why there is none.
func (g *Guest) next(late <-chan time.Time) (string, error) {
	select {
	case line := <-g.lines:
		return line, nil
	case <-g.ended:
		// What it said before it ended comes first.
		select {
		case line := <-g.lines:
			return line, nil
		default:
		}
		return "", g.ending()
	case <-late:
		return "", errLate
	}
}

// ending says how the machine stopped.
func (g *Guest) ending() error {
	switch panic := g.console.Panic(); {
	case panic != "":
		return fmt.Errorf("kernel panic: %s", panic)
	case g.err != nil:
		return g.err
	case g.stop == vmm.Paused:
		return errors.New("interrupted")
	}
	return fmt.Errorf("the guest ended by %v", g.stop)
}

// send sends the agent a line.
func (g *Guest) send(line string) error {
	_, err := io.WriteString(g.machine.Serial(1), line+"\n")
	return err
}

// List asks which tests there are.
func (g *Guest) List(answerTime time.Duration) ([]string, error) {
	if err := g.send("list"); err != nil {
		return nil, g.failure("list", err)
	}
	late := time.NewTimer(answerTime)
	defer late.Stop()
	count := -1
	var names []string
	for len(names) != count {
		line, err := g.next(late.C)
		if err != nil {
			return nil, g.failure("list", err)
		}
		if n, ok := strings.CutPrefix(line, "tests "); ok && count < 0 {
			if count, err = strconv.Atoi(n); err == nil && count >= 0 {
				continue
			}
		} else if name, ok := strings.CutPrefix(line, "  "); ok && count >= 0 {
			names = append(names, name)
			continue
		}
		return nil, g.failure("list", fmt.Errorf("the agent answered %q", line))
	}
	return names, nil
}

// Run has the guest run a test and judges it: by its own result, by the
// kernel's log meanwhile, and by the time it took. alive is false when the
// guest can't be used again.
func (g *Guest) Run(name string, testTime time.Duration) (r Result, alive bool) {
	r.Name = name
	start := time.Now()
	late := time.NewTimer(testTime)
	defer late.Stop()
	r.Err = func() error {
		if err := g.send("run " + name); err != nil {
			return err
		}
		for {
			line, err := g.next(late.C)
			if errors.Is(err, errLate) {
				return fmt.Errorf("no result after %v", testTime)
			}
			if err != nil {
				return err
			}
			rest, own := strings.CutPrefix(line, "  ")
			switch {
			case own:
				r.Output = append(r.Output, rest)
			case line == "KTAP version 1" || line == "1..1":
			case line == "ok 1 "+name:
				alive = true
				return parseKTAP(r.Output).passed()
			case line == "ok 1 "+name+" # SKIP":
				alive, r.Skipped = true, true
				return nil
			case strings.HasPrefix(line, "not ok 1 "+name+" # "):
				alive = true
				return errors.New(failedChecks(r.Output, strings.TrimPrefix(line, "not ok 1 "+name+" # ")))
			default:
				return fmt.Errorf("the agent answered %q", line)
			}
		}
	}()
	r.Time = time.Since(start)
	if complaint := g.console.Complaint(); r.Err == nil && complaint != "" {
		// The kernel's state is not to be trusted any more.
		r.Err, alive = fmt.Errorf("the kernel's log says: %s", complaint), false
	}
	if r.Err != nil {
		r.Err = g.failure(name, r.Err)
	}
	return r, alive
}

// failedChecks is how a failed test ended, and the names of the checks that
// failed.
func failedChecks(output []string, ending string) string {
	if failed := parseKTAP(output).failed; len(failed) > 0 {
		return ending + ", failed: " + strings.Join(failed, ", ")
	}
	return ending
}

// PowerOff ends the guest in an orderly way and judges that as well.
func (g *Guest) PowerOff(answerTime time.Duration) error {
	if err := g.send("poweroff"); err != nil {
		return g.failure("power off", err)
	}
	late := time.NewTimer(answerTime)
	defer late.Stop()
	for {
		select {
		case line := <-g.lines:
			if line != bye {
				return g.failure("power off", fmt.Errorf("the agent answered %q", line))
			}
		case <-g.ended:
			if g.stop != vmm.PowerOff || g.err != nil || g.console.Panic() != "" {
				return g.failure("power off", g.ending())
			}
			if c := g.console.Complaint(); c != "" {
				return g.failure("power off", fmt.Errorf("the kernel's log says: %s", c))
			}
			return nil
		case <-late.C:
			return g.failure("power off", fmt.Errorf("the guest is still up after %v", answerTime))
		}
	}
}

// Close stops the guest whatever it does and gives the machine back.
func (g *Guest) Close() error {
	g.cancel()
	<-g.ended
	return g.machine.Close()
}

// Failure is why a test or a step of a guest's life failed, and the end of what
// the guest printed.
type Failure struct {
	What    string
	Err     error
	Console []string
}

func (f *Failure) Error() string { return f.What + ": " + f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

func (g *Guest) failure(what string, err error) error {
	if errors.Is(err, errLate) {
		err = errors.New("the guest's agent does not answer")
	}
	return &Failure{What: what, Err: err, Console: g.console.Tail()}
}

// lineSplitter makes lines of what the agent sends.
type lineSplitter struct {
	lines chan<- string
	ended <-chan struct{} // nobody reads any more
	line  []byte
}

func (l *lineSplitter) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != '\n' {
			if len(l.line) < maxLine {
				l.line = append(l.line, b)
			}
			continue
		}
		select {
		case l.lines <- string(l.line):
		case <-l.ended:
		}
		l.line = l.line[:0]
	}
	return len(p), nil
}
