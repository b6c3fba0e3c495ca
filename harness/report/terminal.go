package report

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"fifovm/harness"
)

// Terminal shows results as text: a line for each, and under that of a failure all
// that helps to find out why. The last line has the numbers.
type Terminal struct {
	w io.Writer
	// live, unless 0, is how wide the terminal is that w is: there is a line that
	// says what goes on.
	live    int
	decode  func([]string) []string
	total   int
	seen    int
	failed  int
	showing bool
}

// NewTerminal writes to w. width is that of the terminal that it is, 0 if it is
// none. decode, unless nil, makes of a kernel's report one that tells the places
// in the source.
func NewTerminal(w io.Writer, width int, decode func([]string) []string) *Terminal {
	if decode == nil {
		decode = func(lines []string) []string { return lines }
	}
	return &Terminal{w: w, live: width, decode: decode}
}

// Started implements harness.Reporter.
func (t *Terminal) Started(total int) { t.total += total }

// Running implements harness.Reporter.
func (t *Terminal) Running(name string) {
	if t.live == 0 {
		return
	}
	line := fmt.Sprintf("%d done", t.seen)
	if t.total > t.seen {
		line = fmt.Sprintf("%d/%d", t.seen, t.total)
	}
	if t.failed > 0 {
		line += fmt.Sprintf(", %d FAILED", t.failed)
	}
	line += "  " + name
	fmt.Fprintf(t.w, "\r\x1b[K%.*s", t.live-1, line)
	t.showing = true
}

// Clear takes the line away that says what goes on, for others to write.
func (t *Terminal) Clear() {
	if t.showing {
		fmt.Fprint(t.w, "\r\x1b[K")
		t.showing = false
	}
}

// Done implements harness.Reporter.
func (t *Terminal) Done(r *harness.Result) {
	t.Clear()
	t.seen++
	switch r.Verdict {
	case harness.Passed:
		fmt.Fprintf(t.w, "passed   %s (%.2f s)\n", r.Name(), r.Time.Seconds())
	case harness.Skipped:
		reason := ""
		if r.Reason != "" {
			reason = ": " + printable(r.Reason)
		}
		fmt.Fprintf(t.w, "skipped  %s (%.2f s)%s\n", r.Name(), r.Time.Seconds(), reason)
	case harness.Failed:
		t.failed++
		fmt.Fprint(t.w, Failure(r, t.decode))
	}
}

// ktapHead are the lines that every program prints first.
var ktapHead = regexp.MustCompile(`^(KTAP version 1|1\.\.\d+)$`)

// Failure is the text about a failure: the test and why, where, what the test and
// the kernel have to say, and how to run it again.
func Failure(r *harness.Result, decode func([]string) []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "FAILED   %s: %s\n", r.Name(), printable(r.Reason))
	if r.Where != "" {
		fmt.Fprintf(&b, "  at %s\n", r.Where)
	}
	block(&b, "", "  | ", slices.DeleteFunc(slices.Clone(r.Output), ktapHead.MatchString))
	splat := r.Splat
	if decode != nil {
		splat = decode(splat)
	}
	block(&b, "  the kernel's report:\n", "  ! ", splat)
	// What is of the report is not said twice.
	console := slices.DeleteFunc(slices.Clone(r.Console), func(line string) bool { return slices.Contains(r.Splat, line) })
	block(&b, "  the last lines of the console:\n", "  > ", console)
	if r.Artifacts != "" {
		fmt.Fprintf(&b, "  all of it is in %s\n", r.Artifacts)
	}
	if r.Command != "" {
		fmt.Fprintf(&b, "  again: %s\n", r.Command)
	}
	if r.Artifacts != "" && r.Run != "" {
		fmt.Fprintf(&b, "  to the instruction: fifovm replay %s\n", r.Artifacts)
	}
	return b.String()
}

// block adds lines under a title, if there are any.
func block(b *strings.Builder, title, mark string, lines []string) {
	if len(lines) == 0 {
		return
	}
	b.WriteString(title)
	for _, line := range lines {
		b.WriteString(mark + printable(line) + "\n")
	}
}

// printable keeps what a guest says from doing anything to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' {
			return '?'
		}
		return r
	}, s)
}

// Finished implements harness.Reporter.
func (t *Terminal) Finished(all []*harness.Result, err error) {
	t.Clear()
	if err != nil && len(all) == 0 {
		return // nothing was run: the error says it all
	}
	var failed []string
	for _, r := range all {
		if r.Verdict == harness.Failed {
			failed = append(failed, r.Name())
		}
	}
	if len(failed) > 1 { // the first is not on the screen any more
		fmt.Fprintf(t.w, "failed:\n")
		for _, name := range failed {
			fmt.Fprintf(t.w, "  %s\n", name)
		}
	}
	fmt.Fprintln(t.w, Summary(all))
}

// Summary is the numbers in one line.
func Summary(all []*harness.Result) string {
	s := fmt.Sprintf("%d passed, %d failed, %d skipped", harness.Count(all, harness.Passed), harness.Count(all, harness.Failed), harness.Count(all, harness.Skipped))
	if n := harness.Count(all, harness.NotRun); n > 0 {
		s += fmt.Sprintf(", %d not run", n)
	}
	return s
}
