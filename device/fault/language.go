package fault

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fifovm/device"
)

// fault is a fault as the plan has it.
type fault struct {
	text    string
	seed    uint64
	device  string // "" for every one
	what    target
	action  action
	given   bool   // an argument stood there
	n       uint64 // count, bytes, bit, mask or value
	time    int64  // ns
	point   point
	trigger target // whose crossings the point counts: what, unless "on" says otherwise

	before  uint64 // how often it had fired when it was cleared
	cleared bool
}

// own is whether the fault is something that happens to the device, and not
// something that happens to a crossing.
func (f *fault) own() bool { return f.action.spec().own }

// timed is whether it happens at a time, and not at a crossing.
func (f *fault) timed() bool { return f.own() && f.point.kind == pointTime && !f.trigger.named }

// target is a class of crossings with a filter.
type target struct {
	class    device.Class // ClassDevice: all
	named    bool         // after "on"
	filtered bool
	vector   int    // interrupts
	bar      int    // MMIO; -1: any
	lo, hi   uint64 // offsets, addresses or kinds of events, inclusive
}

func (t *target) matches(c *device.Crossing) bool {
	if t.class == device.ClassDevice {
		return true
	}
	if t.class != c.Class || !t.filtered {
		return t.class == c.Class
	}
	switch t.class {
	case device.ClassIRQ:
		return c.Vector == t.vector
	case device.ClassEvent:
		return t.lo <= c.Addr && c.Addr <= t.hi
	case device.ClassMMIORead, device.ClassMMIOWrite:
		if t.bar >= 0 && t.bar != c.BAR {
			return false
		}
	}
	// Any byte of the access will do. Its end may not be beyond 2^64.
	last := c.Addr + uint64(max(c.Size, 1)) - 1
	if last < c.Addr {
		last = ^uint64(0)
	}
	return c.Addr <= t.hi && t.lo <= last
}

// number is the crossing's number for the fault's point. The boundary numbers
// crossings by class and vector; those of a range of addresses are counted from
// when the fault was armed.
func (t *target) number(c *device.Crossing, seen uint64) uint64 {
	switch {
	case t.class == device.ClassDevice:
		return c.Seq
	case !t.filtered:
		return c.Number
	case t.class == device.ClassIRQ:
		return c.Nth
	}
	return seen
}

// point says which of the crossings it is.
type point struct {
	kind         pointKind
	first, last  uint64 // of pointRange, inclusive; of pointEvery, first
	every        uint64
	start, until int64 // of pointTime and pointTimes, inclusive
}

type pointKind uint8

const (
	pointAlways pointKind = iota
	pointNext             // the first one
	pointRange
	pointEvery
	pointTime  // the first one from start on
	pointTimes // all from start until
)

func (p *point) has(number uint64, now int64, fired uint64) bool {
	switch p.kind {
	case pointNext:
		return fired == 0
	case pointRange:
		return p.first <= number && number <= p.last
	case pointEvery:
		return number >= p.first && (number-p.first)%p.every == 0
	case pointTime:
		return fired == 0 && now >= p.start
	case pointTimes:
		return p.start <= now && now <= p.until
	}
	return true
}

type action uint8

const (
	actDrop action = iota
	actDelay
	actDup
	actSwap
	actSpurious
	actStorm
	actError
	actShort
	actFlip
	actXor
	actOnes
	actStuck0
	actStuck1
	actStale
	actStall
	actReset
	actRemove
)

// argument is what may stand behind "=".
type argument uint8

const (
	argNone argument = iota
	argNumber
	argCount // 1 to countLimit
	argStorm // count, or count/time
	argTime
)

const countLimit = 1_000_000

// What stands for an argument that is left out.
const (
	dupDelay   = 10_000 // ns between an interrupt and its duplicates: handlers have run
	stormCount = 1000
	stormEach  = 1000 // ns
)

type spec struct {
	name     string
	classes  []device.Class
	arg      argument
	required bool
	own      bool
}

var (
	onlyIRQ     = []device.Class{device.ClassIRQ}
	onlyDevice  = []device.Class{device.ClassDevice}
	onlyRead    = []device.Class{device.ClassMMIORead}
	allReads    = []device.Class{device.ClassMMIORead, device.ClassDMARead}
	anyDMA      = []device.Class{device.ClassDMARead, device.ClassDMAWrite}
	anyData     = []device.Class{device.ClassMMIORead, device.ClassMMIOWrite, device.ClassDMARead, device.ClassDMAWrite}
	lossy       = []device.Class{device.ClassMMIOWrite, device.ClassDMAWrite, device.ClassIRQ, device.ClassEvent}
	delayable   = []device.Class{device.ClassDMARead, device.ClassDMAWrite, device.ClassIRQ, device.ClassEvent}
	faultTarget = []device.Class{device.ClassIRQ, device.ClassDMARead, device.ClassDMAWrite, device.ClassMMIORead, device.ClassMMIOWrite, device.ClassEvent, device.ClassDevice}
	onTarget    = []device.Class{device.ClassIRQ, device.ClassDMARead, device.ClassDMAWrite, device.ClassMMIORead, device.ClassMMIOWrite, device.ClassEvent, device.ClassReset}
)

var specs = [...]spec{
	actDrop:     {name: "drop", classes: lossy},
	actDelay:    {name: "delay", classes: delayable, arg: argTime, required: true},
	actDup:      {name: "dup", classes: onlyIRQ, arg: argCount},
	actSwap:     {name: "swap", classes: onlyIRQ},
	actSpurious: {name: "spurious", classes: onlyIRQ, own: true},
	actStorm:    {name: "storm", classes: onlyIRQ, arg: argStorm, own: true},
	actError:    {name: "error", classes: anyDMA},
	actShort:    {name: "short", classes: anyDMA, arg: argNumber},
	actFlip:     {name: "flip", classes: anyData, arg: argNumber},
	actXor:      {name: "xor", classes: anyData, arg: argNumber, required: true},
	actOnes:     {name: "ones", classes: allReads},
	actStuck0:   {name: "stuck0", classes: onlyRead, arg: argNumber, required: true},
	actStuck1:   {name: "stuck1", classes: onlyRead, arg: argNumber, required: true},
	actStale:    {name: "stale", classes: onlyRead},
	actStall:    {name: "stall", classes: onlyDevice, arg: argTime, own: true},
	actReset:    {name: "reset", classes: onlyDevice, own: true},
	actRemove:   {name: "remove", classes: onlyDevice, own: true},
}

func (a action) spec() *spec { return &specs[a] }

// ParseError says where a plan can't be read.
type ParseError struct {
	Line, Column int    // from 1; Column counts characters
	Source       string // the line
	Message      string
}

// Error has the line and a caret under the place.
func (e *ParseError) Error() string {
	caret := make([]rune, 0, e.Column)
	for _, r := range []rune(e.Source)[:e.Column-1] {
		if r != '\t' {
			r = ' '
		}
		caret = append(caret, r)
	}
	return fmt.Sprintf("fault plan, line %d, column %d: %s\n\t%s\n\t%s^", e.Line, e.Column, e.Message, e.Source, string(caret))
}

// Parse reads a plan. An error is a *ParseError.
func Parse(text string) (*Plan, error) { return parse(text, 0) }

func parse(text string, seed uint64) (plan *Plan, err error) {
	p := &parser{src: text}
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(*ParseError)
			if !ok {
				panic(r)
			}
			plan, err = nil, e
		}
	}()
	plan = &Plan{seed: seed}
	for p.separators(); p.pos < len(p.src); p.separators() {
		start := p.pos
		f := p.item(plan)
		it := item{text: strings.TrimRight(p.src[start:p.pos], blanks)}
		p.end()
		plan.items = append(plan.items, it)
		if f != nil {
			f.text = it.text
			plan.faults = append(plan.faults, f)
		}
	}
	// A seed is for the whole text, wherever it stands.
	for _, f := range plan.faults {
		f.seed = plan.seed
	}
	return plan, nil
}

const blanks = " \t\r"

// parser reads from pos on. Its methods panic with a *ParseError.
type parser struct {
	src string
	pos int
}

func (p *parser) fail(pos int, format string, args ...any) {
	start := strings.LastIndexByte(p.src[:pos], '\n') + 1
	line, _, _ := strings.Cut(p.src[start:], "\n")
	panic(&ParseError{
		Line:    1 + strings.Count(p.src[:pos], "\n"),
		Column:  1 + len([]rune(p.src[start:pos])),
		Source:  string([]rune(line)), // what is not UTF-8 becomes a character for each byte
		Message: fmt.Sprintf(format, args...),
	})
}

func (p *parser) blank() {
	for p.pos < len(p.src) && strings.IndexByte(blanks, p.src[p.pos]) >= 0 {
		p.pos++
	}
}

// separators skips what stands between items.
func (p *parser) separators() {
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case c == '#':
			for p.pos < len(p.src) && p.src[p.pos] != '\n' {
				p.pos++
			}
		case c == ';' || c == '\n' || strings.IndexByte(blanks, c) >= 0:
			p.pos++
		default:
			return
		}
	}
}

func (p *parser) end() {
	p.blank()
	if p.pos < len(p.src) && strings.IndexByte(";\n#", p.src[p.pos]) < 0 {
		p.fail(p.pos, "%s where the fault should end: faults are separated by ; or new lines", p.here())
	}
}

// here describes what stands at pos.
func (p *parser) here() string {
	if p.pos >= len(p.src) || p.src[p.pos] == '\n' {
		return "nothing"
	}
	if w := p.peek(); w != "" {
		return strconv.Quote(w)
	}
	return strconv.QuoteRune([]rune(p.src[p.pos:])[0])
}

// accept skips blanks and s, if it comes.
func (p *parser) accept(s string) bool {
	p.blank()
	if !strings.HasPrefix(p.src[p.pos:], s) {
		return false
	}
	p.pos += len(s)
	return true
}

func (p *parser) expect(s, what string) {
	if !p.accept(s) {
		p.fail(p.pos, "%s where %s should be", p.here(), what)
	}
}

// peek gives the word at pos: letters, digits, _, - and single dots. µ, which
// stands for u in times, is two bytes.
func (p *parser) peek() string {
	i := p.pos
	for ; i < len(p.src); i++ {
		c := p.src[i]
		dot := c == '.' && i+1 < len(p.src) && p.src[i+1] != '.' && i > p.pos && p.src[i-1] != '.'
		mu := strings.HasPrefix(p.src[i:], "µ") || i > p.pos && strings.HasPrefix(p.src[i-1:], "µ")
		if !dot && !mu && c != '_' && c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			break
		}
	}
	return p.src[p.pos:i]
}

func (p *parser) word(what string) string {
	p.blank()
	w := p.peek()
	if w == "" {
		p.fail(p.pos, "%s where %s should be", p.here(), what)
	}
	p.pos += len(w)
	return w
}

// keyword skips a word if it is the next one.
func (p *parser) keyword(w string) bool {
	p.blank()
	if p.peek() != w {
		return false
	}
	p.pos += len(w)
	return true
}

func (p *parser) number(what string) uint64 {
	p.blank()
	start := p.pos
	w := p.word(what)
	n, err := strconv.ParseUint(w, 0, 64)
	if err != nil {
		p.fail(start, "%q is not %s", w, what)
	}
	return n
}

func (p *parser) positive(what string) uint64 {
	p.blank()
	start := p.pos
	n := p.number(what)
	if n == 0 {
		p.fail(start, "%s is not 0: counting starts at 1", what)
	}
	return n
}

func (p *parser) time(what string) int64 {
	p.blank()
	start := p.pos
	w := p.word(what)
	d, err := time.ParseDuration(w)
	switch _, plain := strconv.ParseUint(w, 0, 64); {
	case plain == nil:
		p.fail(start, "%q is not %s: it needs a unit, ns, us, ms or s", w, what)
	case err != nil || d < 0:
		p.fail(start, "%q is not %s, such as 250us or 2ms", w, what)
	}
	return int64(d)
}

func (p *parser) item(plan *Plan) *fault {
	f := &fault{}
	start := p.pos
	w := p.word("a fault")
	if w == "seed" && p.accept("=") {
		plan.seed = p.number("a seed")
		return nil
	}
	if p.accept("/") {
		f.device = w
		p.blank()
		start = p.pos
		w = p.word("what is broken")
	}
	f.what.class = p.class(start, w, faultTarget)
	p.filter(&f.what)
	p.expect(":", "a colon and what happens")
	p.action(f)
	f.trigger = f.what
	switch {
	case p.accept("@"):
		p.point(f)
	case f.what.class == device.ClassDevice:
		f.point.kind = pointNext
	}
	p.blank()
	start = p.pos
	if !p.keyword("on") {
		return f
	}
	if !f.own() {
		p.fail(start, "%s happens to the crossing itself: \"on\" is for spurious, storm, stall, reset and remove", f.action.spec().name)
	}
	p.blank()
	start = p.pos
	f.trigger = target{named: true, class: p.class(start, p.word("a class of crossings"), onTarget)}
	p.filter(&f.trigger)
	return f
}

func (p *parser) class(start int, w string, among []device.Class) device.Class {
	names := make([]string, len(among))
	for i, c := range among {
		if names[i] = c.String(); names[i] == w {
			return c
		}
	}
	p.fail(start, "there is no %q: it is one of %s", w, strings.Join(names, ", "))
	panic("not reached")
}

func (p *parser) filter(t *target) {
	p.blank()
	start := p.pos
	if !p.accept("[") {
		return
	}
	t.filtered, t.bar = true, -1
	switch t.class {
	case device.ClassIRQ:
		if p.keyword("intx") {
			t.vector = device.INTx
			break
		}
		p.blank()
		at := p.pos
		n := p.number("a vector, or intx")
		if n > 2047 {
			p.fail(at, "there is no vector %d: MSI-X has 2048", n)
		}
		t.vector = int(n)
	case device.ClassDevice, device.ClassReset:
		p.fail(start, "%v has no filter", t.class)
	default:
		p.blank()
		at := p.pos
		t.lo = p.number("a number")
		if (t.class == device.ClassMMIORead || t.class == device.ClassMMIOWrite) && p.accept(":") {
			if t.lo > 5 {
				p.fail(at, "there is no BAR %d", t.lo)
			}
			t.bar = int(t.lo)
			p.blank()
			at = p.pos
			t.lo = p.number("an offset")
		}
		t.hi = t.lo
		if p.accept("..") {
			if t.hi = p.number("a number"); t.hi < t.lo {
				p.fail(at, "the range ends before it starts")
			}
		}
	}
	p.expect("]", "]")
}

func (p *parser) action(f *fault) {
	p.blank()
	start := p.pos
	w := p.word("what happens")
	i := slices.IndexFunc(specs[:], func(s spec) bool { return s.name == w && slices.Contains(s.classes, f.what.class) })
	if i < 0 {
		var names []string
		for _, s := range specs {
			if slices.Contains(s.classes, f.what.class) {
				names = append(names, s.name)
			}
		}
		p.fail(start, "%v has no fault %q: it is one of %s", f.what.class, w, strings.Join(names, ", "))
	}
	f.action = action(i)
	s := f.action.spec()
	if f.what.filtered && f.what.class == device.ClassIRQ && f.what.vector == device.INTx &&
		(f.action == actDup || f.action == actSwap || f.action == actStorm) {
		p.fail(start, "%s is not for the interrupt pin, which is a level", w)
	}
	switch f.action {
	case actDup:
		f.n = 1
	case actStorm:
		f.n, f.time = stormCount, stormCount*stormEach
	}
	p.blank()
	start = p.pos
	if !p.accept("=") {
		if s.required {
			p.fail(start, "%s needs a value: %s=...", w, w)
		}
		return
	}
	if s.arg == argNone {
		p.fail(start, "%s takes no value", w)
	}
	f.given = true
	p.blank()
	start = p.pos
	switch s.arg {
	case argTime:
		if f.time = p.time("a time"); f.time == 0 {
			p.fail(start, "%s needs a time that is not 0", w)
		}
	case argNumber:
		f.n = p.number("a number")
	case argCount, argStorm:
		if f.n = p.number("a count"); f.n == 0 || f.n > countLimit {
			p.fail(start, "%s takes a count from 1 to %d", w, countLimit)
		}
		f.time = int64(f.n) * stormEach
		if s.arg == argStorm && p.accept("/") {
			f.time = p.time("a time")
		}
	}
}

func (p *parser) point(f *fault) {
	p.blank()
	start := p.pos
	pt := &f.point
	switch {
	case p.keyword("always"):
		pt.kind = pointAlways
	case p.keyword("next"):
		pt.kind = pointNext
	case p.keyword("every"):
		pt.kind = pointEvery
		pt.every = p.positive("a count")
		pt.first = pt.every
		if p.keyword("from") {
			pt.first = p.positive("a number")
		}
	case p.keyword("time"):
		pt.kind = pointTime
		pt.start = p.time("a time")
		if !p.accept("..") {
			break
		}
		pt.kind, pt.until = pointTimes, device.Never
		if p.more() {
			if pt.until = p.time("a time"); pt.until < pt.start {
				p.fail(start, "the range ends before it starts")
			}
		}
	default:
		pt.kind = pointRange
		pt.first = p.positive("a point: a number, next, always, every or time")
		pt.last = pt.first
		if !p.accept("..") {
			break
		}
		pt.last = ^uint64(0)
		if p.more() {
			if pt.last = p.positive("a number"); pt.last < pt.first {
				p.fail(start, "the range ends before it starts")
			}
		}
	}
}

// more is whether the end of a range stands there.
func (p *parser) more() bool {
	p.blank()
	w := p.peek()
	return w != "" && w != "on"
}
