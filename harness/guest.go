package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"fifovm/device/fault"
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
	agent   *lineSplitter
	lines   chan string // from the agent
	// The host's ends of the cables.
	serial  [2]vmm.SerialPort
	devices *DeviceHost
	host    Host                     // devices, or what is made of it
	output  io.Writer                // takes what tests print, as it comes; nil drops it
	symbol  func(addr uint64) string // names the kernel's functions; may be nil
	fresh   bool                     // it began at the base
	patient bool                     // the host's clock does not count
	began   int64                    // instructions that the machine had executed then
	ctx     context.Context          // of the machine's run
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
	// listTime bounds a program's answer to --list.
	listTime = 10 * time.Second
	// linesAhead is how many lines of the agent may wait to be read; then the
	// guest waits.
	linesAhead = 1024
)

// newGuest is a guest without a machine yet.
func newGuest(ctx context.Context, o *Options) *Guest {
	g := &Guest{patient: o.Patient, output: o.Output, symbol: o.Symbol, lines: make(chan string, linesAhead), ended: make(chan struct{})}
	g.ctx, g.cancel = context.WithCancel(ctx)
	g.console = &Console{Output: o.Console, OnPanic: g.cancel}
	g.agent = &lineSplitter{lines: g.lines, enough: g.ctx.Done()}
	return g
}

// launch has the guest run on a machine whose serial ports' writers are its own. The
// machine is not closed when it has ended.
func (g *Guest) launch(m *vmm.Machine, o *Options) {
	g.machine = m
	g.serial = [2]vmm.SerialPort{m.Serial(0), m.Serial(1)}
	g.devices = NewDeviceHost(m, planOf(m))
	g.host = g.devices
	if o.Host != nil {
		g.host = o.Host(g.devices)
	}
	g.began, _ = m.Retired()
	run := o.Drive
	if run == nil {
		run = func(ctx context.Context, m *vmm.Machine) (vmm.Stop, error) { return m.Run(ctx) }
	}
	go func() {
		g.stop, g.err = run(g.ctx, m)
		m.Flush(0)
		m.Flush(1)
		close(g.ended)
	}()
}

// planOf is what the devices of a machine are broken by: a plan that is armed, or
// an empty one, which tests can add to.
func planOf(m *vmm.Machine) *fault.Plan {
	if plans := m.Plans(); len(plans) > 0 {
		return plans[0]
	}
	p := new(fault.Plan)
	for _, d := range m.Devices() {
		d.Inject(p)
	}
	return p
}

// start boots a guest and waits, for o.BootTime at most, until its agent says
// hello. Where it does not, failed is the result that says so.
func start(ctx context.Context, o *Options) (g *Guest, failed *Result, err error) {
	g = newGuest(ctx, o)
	m, err := o.Machine([2]io.Writer{g.console, g.agent})
	if err != nil {
		g.cancel()
		return nil, nil, err
	}
	m.Converse(1)
	g.launch(m, o)
	late := newBound(g, o.BootTime)
	defer late.stop()
	for {
		line, err := g.next(late.late)
		if err == nil && line == hello {
			return g, nil, nil
		}
		switch says, troubled := strings.CutPrefix(line, trouble); {
		case errors.Is(err, errLate):
			failed = g.failure(guestProgram, KindBoot, "no agent answers "+strings.TrimPrefix(late.why(o.BootTime), "no result "))
		case err != nil:
			failed = g.failure(guestProgram, g.lostKind(), err.Error())
			if failed.Kind == KindPowerOff {
				failed.Kind = KindBoot
			}
		case troubled:
			failed = g.failure(guestProgram, KindBoot, "the guest's agent says: "+says)
			if strings.Contains(says, "does not load") {
				failed.Kind = KindModule
			}
		default:
			continue // of before it was there
		}
		failed.Check = "boot"
		return nil, failed, g.Close()
	}
}

// errLate is the silence of a guest, and errInterrupted the end of one that the
// run's end has stopped.
var (
	errLate        = errors.New("no answer")
	errInterrupted = errors.New("interrupted")
)

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

// gone is whether the guest has ended.
func (g *Guest) gone() bool {
	select {
	case <-g.ended:
		return true
	default:
		return false
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
		return errInterrupted
	}
	return fmt.Errorf("the guest ended by %v", g.stop)
}

// send sends the agent a line. A guest that takes no input any more must not
// hold up its judge.
func (g *Guest) send(line string, late <-chan time.Time) error {
	sent := make(chan error, 1)
	go func() { // ends with the machine at the latest
		_, err := io.WriteString(g.serial[1], line+"\n")
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

// List asks which programs there are.
func (g *Guest) List(answerTime time.Duration) ([]string, error) {
	late := newBound(g, answerTime)
	defer late.stop()
	if err := g.send("list", late.late); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	count := -1
	var names []string
	for len(names) != count {
		line, err := g.next(late.late)
		if err != nil {
			return nil, fmt.Errorf("list: %w", err)
		}
		if n, ok := strings.CutPrefix(line, "tests "); ok && count < 0 {
			if count, err = strconv.Atoi(n); err == nil && count >= 0 {
				continue
			}
		} else if name, ok := strings.CutPrefix(line, "  "); ok && count >= 0 {
			names = append(names, name)
			continue
		}
		return nil, fmt.Errorf("list: the agent answered %q", line)
	}
	return names, nil
}

// checkName is the name of a check, as far as it can be asked for.
var checkName = regexp.MustCompile(`^[A-Za-z0-9_.+-]+$`)

// checks asks a program which checks it has, with the argument --list. One that
// does not answer with names, one in a line, does not tell checks apart: nil.
// One that does its work instead is killed when it takes long.
func (g *Guest) checks(program string) (names []string) {
	late := newBound(g, listTime)
	defer late.stop()
	if g.send("run "+program+" --list", late.late) != nil {
		return nil // the run will tell
	}
	lists := true
	for {
		line, err := g.next(late.late)
		if errors.Is(err, errLate) {
			g.killed()
		}
		if err != nil {
			return nil
		}
		name, own := strings.CutPrefix(line, "  ")
		ask, asked := strings.CutPrefix(name, asks)
		switch {
		case own && asked: // one that looks around before
			if g.send(answers+g.answer(ask), late.late) != nil {
				return nil
			}
		case own && strings.HasPrefix(name, "# "):
		case own:
			lists = lists && checkName.MatchString(name)
			names = append(names, name)
		case line == "ok 1 "+program && lists:
			return names
		case strings.HasPrefix(line, "ok 1 ") || strings.HasPrefix(line, "not ok 1 ") || strings.HasPrefix(line, trouble):
			return nil
		}
	}
}

// killed has the agent kill the program that runs, and tells whether it has.
func (g *Guest) killed() bool {
	late := newBound(g, graceTime)
	defer late.stop()
	err := g.send("kill", late.late)
	for err == nil {
		var line string
		if line, err = g.next(late.late); strings.HasPrefix(line, "not ok 1 ") || strings.HasPrefix(line, "ok 1 ") {
			return true
		}
	}
	return false
}

// answer has the host do what a test asks for. It gives the line for the test.
func (g *Guest) answer(ask string) string {
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

// leftovers are what the agent finds to be left behind, and whatever else it says
// at the end.
type leftovers struct {
	n    int
	told []string // the first maxLeft
}

const (
	leftBehind = "left behind: " // how the agent begins it
	maxLeft    = 10              // of which a reason tells
)

func (l *leftovers) add(line string) {
	if l.n++; l.n > maxLeft {
		return
	}
	if l.n > 1 {
		line = strings.TrimPrefix(line, leftBehind)
	}
	l.told = append(l.told, line)
}

func (l *leftovers) String() string {
	s := strings.Join(l.told, "; ")
	if more := l.n - len(l.told); more > 0 {
		s += fmt.Sprintf("; and %d more", more)
	}
	return s
}

// powerOff ends the guest in an orderly way and judges that as well: nil, or the
// result that says what was wrong.
func (g *Guest) powerOff(answerTime time.Duration) (failed *Result) {
	late := newBound(g, answerTime)
	defer late.stop()
	var left leftovers
	wrong := func(kind Kind, format string, a ...any) *Result {
		reason := fmt.Sprintf(format, a...)
		if told := left.String(); told != "" {
			reason = strings.TrimPrefix(reason+"; "+told, "; ")
		}
		r := g.failure(guestProgram, kind, reason)
		r.Check = "shutdown"
		return r
	}
	if err := g.send("poweroff", late.late); err != nil {
		return wrong(KindSilent, "%v", err)
	}
	for {
		line, err := g.next(late.late)
		switch {
		case err == nil && line == bye:
		case err == nil:
			left.add(strings.TrimPrefix(line, trouble))
		case errors.Is(err, errLate):
			return wrong(KindSilent, "the guest is still up after %v", answerTime)
		case g.stop != vmm.PowerOff || g.err != nil || g.console.Panic() != "":
			return wrong(g.lostKind(), "%v", err)
		case g.console.Complaint() != "":
			return wrong(KindKernel, "the kernel's log says: %s", g.console.Complaint())
		case left.n > 0:
			return wrong(KindLeak, "")
		default:
			return nil
		}
	}
}

// halt stops the guest whatever it does.
func (g *Guest) halt() {
	g.cancel()
	<-g.ended
}

// Close stops the guest and gives the machine back.
func (g *Guest) Close() error {
	g.halt()
	return g.machine.Close()
}

// failure is a result with the end of what the guest printed.
func (g *Guest) failure(program string, kind Kind, reason string) *Result {
	return &Result{Program: program, Verdict: Failed, Kind: kind, Reason: reason, Splat: g.console.Splat(), Console: g.console.Tail()}
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
