package report

import (
	"fmt"
	"strings"

	"fifovm/harness"
	"fifovm/harness/splat"
)

// Decoder completes the results of tests during which the kernel complained: the
// reason names function, file and line, and of what the kernel printed the reports
// are left. Of a leak, the reason has file and line as well. In a Tee it is the first.
type Decoder struct {
	symbols *splat.Symbols
}

// NewDecoder decodes by symbols; nil names functions alone.
func NewDecoder(symbols *splat.Symbols) *Decoder { return &Decoder{symbols} }

// Started implements harness.Reporter.
func (*Decoder) Started(int) {}

// Running implements harness.Reporter.
func (*Decoder) Running(string) {}

// Done completes a result.
func (d *Decoder) Done(r *harness.Result) {
	if r.Verdict != harness.Failed {
		return
	}
	defer func() { r.Reason = d.symbols.Sites(r.Reason) }() // what is left of them
	reports := splat.Find(r.Splat)
	if len(reports) == 0 {
		return
	}
	reason := reports[0].Reason(d.symbols)
	switch {
	case r.Kind == harness.KindPanic && !strings.HasPrefix(reason, "kernel panic: "):
		r.Reason += fmt.Sprintf(" (%s)", reason)
	case r.Kind == harness.KindKernel:
		for _, line := range r.Splat {
			if line != "" && strings.Contains(r.Reason, ": "+line) {
				r.Reason = strings.Replace(r.Reason, line, reason, 1)
				break
			}
		}
	}
	r.Splat = nil
	for _, report := range reports {
		r.Splat = append(r.Splat, report.Lines...)
	}
}

// Finished implements harness.Reporter.
func (*Decoder) Finished([]*harness.Result, error) {}

// Whole decodes the lines of a kernel's report, for artifacts.
func (d *Decoder) Whole(lines []string) []string { return d.symbols.Decode(lines) }

// Short decodes them and leaves out what a first look needs not, for a terminal.
func (d *Decoder) Short(lines []string) []string { return splat.Condense(d.symbols.Decode(lines)) }
