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
// protocol is described in guest/agent/README.md.
type Guest struct {
	machine *vmm.Machine
	console *Console
	lines   chan string // from the agent
	host    Host        // nil: tests have none
	output  io.Writer   // takes what tests print, as it comes; nil drops it
	cancel  context.CancelFunc
	ended   chan struct{} // closed when the machine has stopped and all it said is here
	stop    vmm.Stop      // valid when ended is closed
	err     error
}

const (
	hello = "fifovm-agent 1"
	bye   = "bye"
	// trouble begins what the agent says that is no answer.
	trouble = "error: "
	// asks is how a test begins a line that its host is to obey, and answers how
	// the answer is given to the agent.
	asks    = "# host: "
	answers = "host "
	// maxAnswer is how many bytes of an answer there are at most: the agent takes
	// no longer line.
	maxAnswer = 900
	// linesAhead is how many lines of the agent may wait to be read; then the
	// guest waits.
	linesAhead = 1024
)

// Start boots a guest and waits, for o.BootTime at most, until its agent says
// hello. The error of a boot that failed is a *Failure.
func Start(ctx context.Context, o Options) (*Guest, error) {
	g := &Guest{host: o.Host, output: o.Output, lines: make(chan string, linesAhead), ended: make(chan struct{})}
	ctx, g.cancel = context.WithCancel(ctx)
	g.console = &Console{Output: o.Console, OnPanic: g.cancel}
	agent := &lineSplitter{lines: g.lines, enough: ctx.Done()}
	m, err := o.Machine([2]io.Writer{g.console, agent})
	if err != nil {
		g.cancel()
		return nil, err
	}
	g.machine = m
	m.Converse(1)
	go func() {
		g.stop, g.err = m.Run(ctx)
		m.Flush(0)
		m.Flush(1)
		close(g.ended)
	}()
	late := time.NewTimer(o.BootTime)
	defer late.Stop()
	for {
		line, err := g.next(late.C)
		if err == nil && line == hello {
			return g, nil
		}
		if says, ok := strings.CutPrefix(line, trouble); ok && err == nil {
			err = fmt.Errorf("the guest's agent says: %s", says)
		}
		if err != nil {
			return nil, errors.Join(g.failure("boot", err), g.Close())
		}
	}
}

// errLate is the silence of a guest.
var errLate = errors.New("no answer")

// next gives the agent's next line, or why there is none. Of the line before, all
// is done: a guest that waits for that goes on.
func (g *Guest) next(late <-chan time.Time) (string, error) {
	g.machine.Listen()
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

// send sends the agent a line. A guest that takes no input any more must not
// hold up its judge.
func (g *Guest) send(line string, late <-chan time.Time) error {
	sent := make(chan error, 1)
	go func() { // ends with the machine at the latest
		_, err := io.WriteString(g.machine.Serial(1), line+"\n")
		sent <- err
	}()
	select {
	case err := <-sent:
		return err
	case <-g.ended:
		return g.ending()
	case <-late:
		return errLate
	}
}

// List asks which tests there are.
func (g *Guest) List(answerTime time.Duration) ([]string, error) {
	late := time.NewTimer(answerTime)
	defer late.Stop()
	if err := g.send("list", late.C); err != nil {
		return nil, g.failure("list", err)
	}
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
	var results ktap
	r.Err, alive = g.conduct(&r, &results, late.C)
	if errors.Is(r.Err, errLate) {
		r.Err = fmt.Errorf("no result after %v", testTime)
	}
	if g.host != nil {
		if err := g.host.End(); err != nil && !r.Skipped {
			r.Err = join(r.Err, err)
		}
	}
	r.Time = time.Since(start)
	// The console is another cable: what the kernel said of the test comes
	// before the verdict only if it is waited for.
	g.machine.Flush(0)
	if complaint := g.console.Complaint(); complaint != "" {
		// The kernel's word counts more than the test's, and its state is not to
		// be trusted any more.
		alive = false
		if r.Err == nil {
			r.Err = fmt.Errorf("the kernel's log says: %s", complaint)
		} else {
			r.Err = fmt.Errorf("the kernel's log says: %s; the test: %w", complaint, r.Err)
		}
	}
	if r.Err != nil {
		r.Err = g.failure(name, r.Err)
	}
	return r, alive
}

// conduct has the agent run the test and reads its report. It fills in what the
// test printed, and tells whether the agent came to the report's end.
func (g *Guest) conduct(r *Result, results *ktap, late <-chan time.Time) (err error, alive bool) {
	program, words := command(r.Name)
	if err := g.send("run "+words, late); err != nil {
		return err, false
	}
	for {
		line, err := g.next(late)
		if err != nil {
			return err, false
		}
		rest, own := strings.CutPrefix(line, "  ")
		switch {
		case own:
			r.print(rest)
			if g.output != nil {
				fmt.Fprintf(g.output, "  | %s\n", rest) // what can't be shown is in the result
			}
			results.read(rest)
			if ask, ok := strings.CutPrefix(rest, asks); ok {
				if err := g.send(answers+g.answer(ask), late); err != nil {
					return err, false
				}
			}
		case line == "KTAP version 1" || line == "1..1":
		case line == "ok 1 "+program:
			return results.passed(), true
		case line == "ok 1 "+program+" # SKIP":
			r.Skipped = true
			return results.skipped(), true
		case strings.HasPrefix(line, "not ok 1 "+program+" # "):
			ending := strings.TrimPrefix(line, "not ok 1 "+program+" # ")
			if len(results.failed) > 0 {
				ending += ", failed: " + strings.Join(results.failed, ", ")
			}
			return errors.New(ending), true
		default:
			return fmt.Errorf("the agent answered %q", line), false
		}
	}
}

// command is the program and the words of a run of a test: NAME/CHECK/CHECK is
// program NAME with the checks as arguments.
func command(test string) (program, words string) {
	names := strings.Split(test, "/")
	return names[0], strings.Join(names, " ")
}

// answer has the host do what a test asks for. It gives the line for the test.
func (g *Guest) answer(ask string) string {
	if g.host == nil {
		return "error there is no host for tests here"
	}
	text, err := g.host.Do(ask)
	switch {
	case err != nil:
		text = "error " + err.Error()
	case text == "":
		text = "ok"
	default:
		text = "ok " + text
	}
	text = strings.NewReplacer("\n", " ", "\r", " ").Replace(text)
	return text[:min(len(text), maxAnswer)]
}

// join is both errors in one line.
func join(first, second error) error {
	if first == nil {
		return second
	}
	return fmt.Errorf("%w; %w", first, second)
}

// PowerOff ends the guest in an orderly way and judges that as well.
func (g *Guest) PowerOff(answerTime time.Duration) error {
	late := time.NewTimer(answerTime)
	defer late.Stop()
	if err := g.send("poweroff", late.C); err != nil {
		return g.failure("power off", err)
	}
	for {
		g.machine.Listen()
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
	lines  chan<- string
	enough <-chan struct{} // nobody reads any more
	line   []byte
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
		case <-l.enough:
		}
		l.line = l.line[:0]
	}
	return len(p), nil
}
