package splat

import (
	"regexp"
	"strconv"
	"strings"
)

// Report is one thing that the kernel complained about.
type Report struct {
	Lines []string // as they came
	title string   // the text of the line that says what it is
}

const (
	// maxLines bounds a report. What comes behind is left out.
	maxLines = 1000
	// maxReports bounds how many a Scanner keeps. The first says most.
	maxReports = 100
	// maxGap is the most seconds, by the kernel's own clock, between two lines of a
	// report. A stall's backtraces of other CPUs are late.
	maxGap = 15
)

// stamp is what printk puts before each line, behind what a program may have left
// without a newline: the time and, if so configured, the caller.
var stamp = regexp.MustCompile(`\[ *(\d{1,10}\.\d{6})\](?:\[ *[TC]\d+\])? `)

// text is a line without the time stamp, and the time, -1 if there is none.
func text(line string) (string, float64) {
	line = strings.TrimRight(line, "\r")
	m := stamp.FindStringSubmatchIndex(line)
	if m == nil {
		return line, -1
	}
	at, err := strconv.ParseFloat(line[m[2]:m[3]], 64)
	if err != nil {
		at = -1
	}
	return line[m[1]:], at
}

// titles are the lines that say what a report is about, and how it ends.
var titles = regexp.MustCompile(`(?:` +
	`^BUG: ` + // oopses, KASAN, sleeping in atomic context
	`|\bBUG: (?:soft lockup|workqueue lockup)` +
	`|^BUG \S+ \(.*\): ` + // objects of a slab: poison overwritten, still there
	`|^WARNING: ` + // WARN, lockdep
	`|^Oops\b` +
	`|^[a-z][\w -]*: [0-9a-f]{4} \[#\d+\]` + // the head of any other exception in the kernel
	`|\bkernel BUG at ` +
	`|^general protection fault\b` +
	`|^UBSAN: ` +
	`|^DMA-API: .*(?:device driver|DMA-API error)` +
	`|^DMA-API: debugging out of memory` +
	`|^INFO: trying to register non-static key` +
	`|\bhard LOCKUP\b` +
	`|^INFO: task .* blocked for more than` +
	`|^(?:rcu: )?INFO: rcu\w* .*(?:stall|detected)` +
	`|^unchecked MSR access error\b` +
	`|^irq \d+: nobody cared\b` +
	`|\bNo irq handler for vector\b` +
	`|^genirq: Flags mismatch\b` +
	`|^sysfs: cannot create duplicate filename\b` +
	`|^list_(?:add|del) corruption\b` +
	`|^kmemleak: \d+ new suspected memory leaks\b` +
	`|^ODEBUG: ` +
	`|^Kernel panic - not syncing: ` +
	`)`)

const (
	cut = "------------[ cut here ]------------"
	// bar, and more of it, stands around the reports of KASAN, lockdep and others.
	bar = "=========================="
	// stackEnd is the last line of a task's backtrace, which every report's ends with.
	stackEnd = " </TASK>"
)

var (
	// framed are titles whose reports end with a bar.
	framed = regexp.MustCompile(`^BUG: (?:KASAN|KCSAN|KFENCE|KMSAN): `)
	// lone are titles that may be all there is.
	lone = regexp.MustCompile(`^kmemleak: |No irq handler|^genirq: |^DMA-API: `)
	// ended is the last line of a report that began with a cut.
	ended = regexp.MustCompile(`^---\[ end `)
	// continues is what may follow a backtrace, or the end of an oops, in a report:
	// its registers, once more; which locks are held; what becomes of the machine.
	continues = regexp.MustCompile(`^(?:` +
		`\s|` +
		`irq event stamp: |(?:hard|soft)irqs last |` +
		`R[A-Z0-9]{1,2}: |RIP: |Code: |[CDEFG]S: |CR\d: |DR\d: |PKRU: |` +
		`note: |Modules linked in: |---\[ end |Kernel panic - not syncing|Kernel Offset: |Rebooting in |` +
		`CPU: \d|Tainted: |Hardware name: |Workqueue: |Call Trace:|Sending NMI |NMI backtrace |` +
		`Showing all locks|\d+ locks? held by |no locks held by |task:|INFO: lockdep is turned off|` +
		`DMA-API: Mapped at:|Disabling lock debugging|Disabling IRQ|handlers:|\[<|FIX |Shutting down cpus` +
		`)`)
)

// stage is how far the report is that a Scanner reads.
type stage int

const (
	outside stage = iota // no report
	before               // to the end of the backtrace
	toCut                // to the line that ends what began with a cut
	toBar                // to the bar
	after                // only what continues
)

// Scanner finds reports in lines of a console as they come. Its zero value is ready.
type Scanner struct {
	reports []Report
	stage   stage
	bar     string // the line before, if it was a bar
	stamped bool   // the report's lines have times
	last    float64
}

// Add takes a line.
func (s *Scanner) Add(line string) {
	t, at := text(line)
	if s.stage != outside && s.stamped {
		if at < 0 {
			return // not the kernel's
		}
		if at-s.last > maxGap {
			s.stage = outside
		}
	}
	prior := s.bar
	s.bar = ""
	isBar := strings.HasPrefix(t, bar) && strings.Trim(t, "=") == ""
	title := titles.MatchString(t)
	switch {
	case t == cut:
		s.begin(toCut, at, line)
	case isBar && s.stage == toBar:
		s.extend(at, line)
		s.stage = outside
	case isBar:
		s.bar = line
		if s.stage == before || s.stage == toCut {
			s.extend(at, line)
		}
	case title && (s.stage == outside || s.stage == after && !continues.MatchString(t)):
		var lines []string
		if prior != "" {
			lines = append(lines, prior)
		}
		s.begin(before, at, append(lines, line)...)
		switch {
		case framed.MatchString(t):
			s.stage = toBar
		case lone.MatchString(t):
			s.stage = after
		}
		s.name(t)
	case s.stage == after && !continues.MatchString(t):
		s.stage = outside
	case s.stage != outside:
		if title {
			s.name(t)
		}
		s.extend(at, line)
		if s.stage == toCut && ended.MatchString(t) || s.stage == before && t == stackEnd {
			s.stage = after
		}
	}
}

func (s *Scanner) begin(next stage, at float64, lines ...string) {
	s.stage, s.stamped, s.last = next, at >= 0, at
	if len(s.reports) == maxReports {
		s.stage = outside
		return
	}
	s.reports = append(s.reports, Report{Lines: lines})
}

func (s *Scanner) extend(at float64, line string) {
	r := &s.reports[len(s.reports)-1]
	if len(r.Lines) < maxLines {
		r.Lines = append(r.Lines, line)
	}
	if at >= 0 {
		s.last = at
	}
}

// name takes the first title of a report for its own.
func (s *Scanner) name(title string) {
	if len(s.reports) == 0 || s.stage == outside {
		return
	}
	if r := &s.reports[len(s.reports)-1]; r.title == "" {
		r.title = title
	}
}

// Within tells whether a report has begun of which more may come.
func (s *Scanner) Within() bool { return s.stage != outside }

// Unfinished tells whether a report has begun whose main part is not all there:
// more must come, unless the kernel is dead.
func (s *Scanner) Unfinished() bool {
	return s.stage == before || s.stage == toCut || s.stage == toBar
}

// Reports are the reports so far, the one that is still coming included.
func (s *Scanner) Reports() []Report { return s.reports }

// Find finds the reports in lines of a console.
func Find(lines []string) []Report {
	var s Scanner
	for _, line := range lines {
		s.Add(line)
	}
	return s.reports
}
