package harness

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"fifovm/vmm/x86"
)

const (
	// outputLines is how many lines of a test's output are kept at least.
	outputLines = 2000
	// idleFactor is how much longer than TestTime a test may take on the guest's
	// own clock: an idle guest skips through its time, and one that waits for
	// what never comes is found at once.
	idleFactor = 20
	// graceTime bounds what is asked of a guest that does not do what it should.
	graceTime = 5 * time.Second
	// clockEvery is how often the guest's clock is looked at.
	clockEvery = 200 * time.Millisecond
)

// judgedAsk is what a program asks behind a check: no more than that the host has
// read the result.
const judgedAsk = "judged"

// assertion is what ktap_fail of guest/tests/ktap.h prints.
var assertion = regexp.MustCompile(`^# ([\w.+-]+:\d+): (.*)$`)

// programRun is a run of a program in a guest.
type programRun struct {
	guest  *Guest
	unit   unit
	done   func(*Result)
	report Reporter

	ktap   ktap
	output []string // of the test that runs
	began  time.Time
	failed bool // a result was a failure
	bound  *bound
	time   time.Duration // that a test may take
}

// run has the guest run a program, and judges each check when it ends: by its own
// result, by the kernel's log meanwhile, by the faults that it armed, and by the
// time it took. alive is false when the guest can't be used again; left is then
// what of the unit was not run.
func (g *Guest) run(u unit, o *Options, done func(*Result)) (alive bool, left []unit) {
	p := &programRun{guest: g, unit: u, done: done, report: o.Reporter, began: time.Now(), time: o.TestTime, bound: newBound(g, o.TestTime), ktap: newKTAP(u.checks)}
	defer func() { p.bound.stop() }()
	p.report.Running(p.running())
	if err := g.send("run "+u.command(), p.bound.late); err != nil {
		return p.lost(err)
	}
	for {
		line, err := g.next(p.bound.late)
		if err != nil {
			return p.lost(err)
		}
		rest, own := strings.CutPrefix(line, "  ")
		ending, bad := strings.CutPrefix(line, "not ok 1 "+u.program+" # ")
		switch {
		case own:
			if alive, left := p.line(rest); !alive {
				return false, left
			}
		case line == "KTAP version 1" || line == "1..1":
		case line == "ok 1 "+u.program:
			return p.end(Passed, p.ktap.passed())
		case line == "ok 1 "+u.program+" # SKIP":
			return p.end(Skipped, p.ktap.skipped())
		case bad:
			return p.end(Failed, errors.New(ending))
		default:
			return p.lost(fmt.Errorf("the agent answered %q", line))
		}
	}
}

// running is the name of the test that runs, as far as it is known.
func (p *programRun) running() string {
	r := p.next()
	return r.Name()
}

// next is the result of the test that runs, without a verdict.
func (p *programRun) next() *Result {
	r := &Result{Program: p.unit.program}
	if len(p.ktap.due) > 0 {
		r.Check = p.ktap.due[0]
	}
	return r
}

// left is what has not been run when the test that runs is the last.
func (p *programRun) left() []unit { return p.behind(1) }

// behind is what is left without the next so many tests.
func (p *programRun) behind(n int) []unit {
	done := p.ktap.seen + n
	switch {
	case p.ktap.named:
		if len(p.ktap.due) > n {
			return []unit{{program: p.unit.program, checks: slices.Clone(p.ktap.due[n:])}}
		}
	case p.ktap.hasPlan && done < p.ktap.planned && p.ktap.bailOut == "":
		return []unit{{program: p.unit.program, done: done}}
	}
	return nil
}

// line takes a line that the program has printed.
func (p *programRun) line(text string) (alive bool, left []unit) {
	g := p.guest
	if text == asks+judgedAsk {
		// It was, when the line before came.
		if err := g.send(answers+"ok", p.bound.late); err != nil {
			return p.lost(err)
		}
		return true, nil
	}
	if len(p.output) == 2*outputLines {
		p.output = append(p.output[:0], p.output[outputLines:]...)
	}
	p.output = append(p.output, text)
	if g.output != nil {
		fmt.Fprintf(g.output, "  | %s\n", text) // what can't be shown is in the result
	}
	if ask, ok := strings.CutPrefix(text, asks); ok {
		if err := g.send(answers+g.answer(ask), p.bound.late); err != nil {
			return p.lost(err)
		}
		return true, nil
	}
	c := p.ktap.read(text)
	if c == nil {
		return true, nil
	}
	r := &Result{Program: p.unit.program, Check: c.name, Verdict: c.verdict, Reason: c.reason}
	switch c.verdict {
	case Skipped:
		if r.Reason == "" {
			r.Reason = lastWords(p.output[:len(p.output)-1])
		}
	case Failed:
		r.Kind = KindAssertion
		r.Where, r.Reason = p.assertion(c.reason)
	}
	if !p.judged(r, true) {
		return false, p.behind(0)
	}
	p.report.Running(p.running())
	return true, nil
}

// assertion finds the place and the words of the assertion that failed.
func (p *programRun) assertion(reason string) (where, why string) {
	for _, line := range p.output {
		if m := assertion.FindStringSubmatch(line); m != nil {
			return m[1], m[2]
		}
	}
	if reason == "" {
		reason = lastWords(p.output[:len(p.output)-1])
	}
	if reason == "" {
		reason = "it does not say why"
	}
	return "", reason
}

// lastWords is the last diagnosis in a test's output.
func lastWords(output []string) string {
	for _, line := range slices.Backward(output) {
		if text, ok := strings.CutPrefix(line, "# "); ok && !strings.HasPrefix(line, asks) {
			return text
		}
	}
	return ""
}

// judged completes the result of a test that has ended, with what others have to
// say of it. exact: the guest stands where it has ended. It tells whether the guest
// can be used again.
func (p *programRun) judged(r *Result, exact bool) bool {
	g := p.guest
	r.Output = slices.Clone(p.output)
	r.Time = time.Since(p.began)
	if _, retired, counted := g.now(); g.fresh && counted {
		r.Run, r.Bound = p.unit.test(), p.time
		if exact {
			r.Retired = retired - g.began
		}
	}
	if err := g.host.End(); err != nil && r.Verdict != Skipped {
		p.add(r, KindInvalid, err.Error())
	}
	// The console is another cable: what the kernel said of the test comes
	// before the verdict only if it is waited for.
	g.machine.Flush(0)
	alive := true
	if complaint := g.console.Complaint(); complaint != "" {
		// The kernel's word counts more than the test's, and its state is not to
		// be trusted any more.
		alive = false
		p.add(r, KindKernel, "the kernel's log says: "+complaint)
		r.Splat = g.console.Splat()
	}
	if r.Verdict == Failed {
		p.failed = true
		r.Console = g.console.Tail()
	}
	p.output, p.began = nil, time.Now()
	p.bound.restart(p.time)
	p.done(r)
	return alive
}

// add makes a result a failure for one more reason: the kernel's comes first.
func (p *programRun) add(r *Result, kind Kind, reason string) {
	switch {
	case r.Verdict != Failed:
		r.Kind, r.Reason = kind, reason
	case kind == KindKernel:
		r.Kind, r.Reason = kind, reason+"; the test: "+r.Reason
	default:
		r.Reason += "; " + reason
	}
	r.Verdict = Failed
}

// end judges the program as a whole, when it has ended. What its checks have said
// is not said again.
func (p *programRun) end(v Verdict, wrong error) (alive bool, left []unit) {
	r := p.next()
	r.Verdict = v
	rest := p.left()
	switch {
	case v == Failed && p.failed && wrong.Error() == "exit status 1" && (!p.ktap.hasPlan || p.ktap.seen == p.ktap.planned):
		return true, nil // as its checks have it
	case wrong != nil:
		r.Verdict, r.Kind, r.Reason = Failed, KindCrash, wrong.Error()
		if v != Failed && !p.ktap.short() {
			r.Check, rest = "", nil // it is the whole that is wrong
		}
		if where, why := p.assertion(" "); where != "" {
			r.Where = where
			r.Reason += ": " + why
		} else if v == Failed && p.ktap.bailOut != "" {
			r.Reason += ": " + p.ktap.bailOut
		}
	case p.ktap.seen > 0:
		// Even so, a fault may be left, or the kernel have something to say.
		rest = nil
		if p.guest.quiet() {
			return true, nil
		}
		r.Check, r.Verdict = "", Passed
	default: // skipped as a whole
		r.Check, rest = "", nil
		r.Reason = lastWords(p.output)
	}
	return p.judged(r, true), rest
}

// quiet is whether the guest's kernel has not complained.
func (g *Guest) quiet() bool {
	g.machine.Flush(0)
	return g.console.Complaint() == ""
}

// lost judges the test during which the guest went, or did not go on.
func (p *programRun) lost(err error) (alive bool, left []unit) {
	g := p.guest
	if errors.Is(err, errInterrupted) {
		// That says nothing of the test: it was not run.
		u := unit{program: p.unit.program, done: p.ktap.seen}
		if p.ktap.named {
			u = unit{program: p.unit.program, checks: slices.Clone(p.ktap.due)}
		}
		return false, []unit{u}
	}
	r := p.next()
	r.Verdict = Failed
	rest := p.left()
	if errors.Is(err, errLate) {
		r.Kind, r.Reason, r.Splat = g.unstick(p.bound, p.time)
	} else {
		r.Kind, r.Reason = g.lostKind(), err.Error()
	}
	p.judged(r, r.Kind == KindPowerOff)
	return false, rest
}

// unstick finds out what a test that does not end is stuck in. What is said of that
// beside the reason is as good as a report of the kernel's.
func (g *Guest) unstick(b *bound, testTime time.Duration) (kind Kind, reason string, said []string) {
	why := b.why(testTime)
	idle, known := b.idle()
	// A program can be killed; the agent then tells of its end.
	if g.killed() {
		return KindHangUser, why + "; it could be killed", nil
	}
	late := newBound(g, graceTime)
	defer late.stop()
	// An agent that answers, shows that the kernel works: but for that process.
	agent := false
	if err := g.send("stuck", late.late); err == nil {
		for !agent {
			line, err := g.next(late.late)
			if err != nil {
				break
			}
			if text, own := strings.CutPrefix(line, "  "); own {
				said = append(said, strings.TrimPrefix(text, "# "))
			}
			agent = line == "stuck"
		}
	}
	if agent {
		reason = why + "; it can't be killed: it is stuck in the kernel"
		in := stuckIn(said)
		if !strings.HasSuffix(in, "]") {
			// It may be on a CPU: then it has no stack for others to see.
			told, _ := g.askKernel()
			if at := interruptedIn(told); at != "" {
				in, said = at, append(said, told...)
			}
		}
		if in != "" {
			reason += ", in " + in
		}
		return KindHangKernel, reason, said
	}
	told, answered := g.askKernel()
	sysRq := ", and the kernel no SysRq key"
	if answered {
		sysRq = "; the kernel answers SysRq"
	}
	in := interruptedIn(told)
	kind, reason = KindHangKernel, why+"; the guest is busy, its agent does not answer"+sysRq
	if known && idle || !known && (!answered || in == "") {
		kind, reason = KindSilent, why+"; the guest's agent does not answer"+sysRq
	}
	if !answered {
		return kind, reason, append(said, g.whereabouts()...)
	}
	if in != "" && kind == KindHangKernel {
		reason += ": a CPU is in " + in
	}
	return kind, reason, append(said, told...)
}

// instruction is where in a module the kernel says that a CPU was, when it was asked.
var instruction = regexp.MustCompile(`RIP: 0010:([\w.]+\+0x[0-9a-f]+/0x[0-9a-f]+ \[[\w-]+\])`)

// interruptedIn is the first place in a module where a CPU was.
func interruptedIn(told []string) string {
	for _, line := range told {
		if m := instruction.FindStringSubmatch(line); m != nil {
			return m[1]
		}
	}
	return ""
}

// frame is a line of /proc/PID/stack: the function, and its module if it is in one.
var frame = regexp.MustCompile(`\[<0>\] ([\w.]+\+0x[0-9a-f]+/0x[0-9a-f]+( \[[\w-]+\])?)`)

// stuckIn is the innermost place in a module in what the agent says of a stuck test's
// stacks, the innermost of all if there is none in a module.
func stuckIn(said []string) (in string) {
	for _, line := range said {
		m := frame.FindStringSubmatch(line)
		switch {
		case m == nil:
		case m[2] != "":
			return m[1]
		case in == "":
			in = m[1]
		}
	}
	return in
}

// whereabouts stops the guest and tells where its CPUs are.
func (g *Guest) whereabouts() (said []string) {
	g.halt()
	s, err := g.machine.State()
	if err != nil {
		return []string{"where the CPUs are can't be told: " + err.Error()}
	}
	for i := range s.CPU.CPUs {
		c := &s.CPU.CPUs[i]
		where := fmt.Sprintf("at %#x", c.RIP)
		if g.symbol != nil {
			if name := g.symbol(c.RIP); name != "" {
				where = "in " + name + ", " + where
			}
		}
		mode := "in the kernel"
		if c.Seg[x86.CS].Selector&3 != 0 {
			mode = "in a program"
		}
		interrupts := "on"
		if c.RFLAGS&x86.FlagIF == 0 {
			interrupts = "off"
		}
		halted := ""
		if c.Activity == x86.Halted {
			halted = ", halted"
		}
		said = append(said, fmt.Sprintf("CPU %d is %s, %s, interrupts %s%s", i, mode, where, interrupts, halted))
	}
	return said
}

// What drivers/tty/sysrq.c says to a key; some systems forbid some keys.
var (
	sysRqObeys    = regexp.MustCompile(`\bsysrq: `)
	sysRqLoglevel = regexp.MustCompile(`\bsysrq: (?:Loglevel set to |This sysrq operation is disabled)`)
)

// askKernel has the kernel say on the console where its tasks that can't be
// interrupted are, and its CPUs, and gives what it says.
func (g *Guest) askKernel() (told []string, answers bool) {
	g.console.startRecord()
	// All that it says is to be seen; at the end as little as before (KernelWords).
	// When the last key is answered, the others are done with.
	answers = g.sysRq("7", sysRqLoglevel) && g.sysRq("w", sysRqObeys) && g.sysRq("l", sysRqObeys) && g.sysRq("5", sysRqLoglevel)
	return g.console.endRecord(), answers
}

// sysRq gives the kernel a SysRq key, and tells whether it answers.
func (g *Guest) sysRq(key string, reply *regexp.Regexp) bool {
	// Between the break and the key, an idle guest's clock may jump over the seconds
	// for which the kernel waits: then it has been typed for nothing.
	for range 3 {
		if g.typeSysRq(key, reply) {
			return true
		}
		if g.gone() {
			break
		}
	}
	return false
}

func (g *Guest) typeSysRq(key string, reply *regexp.Regexp) bool {
	late := newBound(g, graceTime)
	defer late.stop()
	answer := g.console.await(reply)
	sent := make(chan error, 1)
	go func() { // ends with the machine at the latest
		if err := g.serial[0].Break(); err != nil {
			sent <- err
			return
		}
		_, err := g.serial[0].Write([]byte(key))
		sent <- err
	}()
	g.machine.Listen()
	for {
		select {
		case err := <-sent:
			if err != nil {
				return false
			}
			sent = nil
		case <-answer:
			return true
		case <-g.ended:
			return false
		case <-late.late:
			return false
		}
	}
}

// lostKind is the kind of failure of a test whose guest has ended.
func (g *Guest) lostKind() Kind {
	switch {
	case !g.gone():
		return KindCrash // it talks nonsense
	case g.console.Panic() != "":
		return KindPanic
	case g.err != nil:
		return KindMachine
	}
	return KindPowerOff
}
