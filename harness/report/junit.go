package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"time"

	"fifovm/harness"
)

// JUnit writes a file in the form that CI systems read: a testsuite for each
// program, a testcase for each check. Elements and attributes are those of the
// schema that Jenkins' plugin and its like share.
type JUnit struct {
	path   string
	decode func([]string) []string
	host   string
	now    func() time.Time
	err    error
}

var _ Writer = (*JUnit)(nil)

// NewJUnit writes the file path when the run has finished. decode, unless nil,
// adds to the kernel's reports.
func NewJUnit(path string, decode func([]string) []string) *JUnit {
	return &JUnit{path: path, decode: decode, host: "fifovm", now: time.Now}
}

type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name       string          `xml:"name,attr"`
		ID         int             `xml:"id,attr"`
		Package    string          `xml:"package,attr"`
		Timestamp  string          `xml:"timestamp,attr"`
		Hostname   string          `xml:"hostname,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
		Out        string          `xml:"system-out"`
		Err        string          `xml:"system-err"`

		seconds float64
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    string        `xml:"time,attr"`
		Skipped *junitMessage `xml:"skipped"`
		Error   *junitMessage `xml:"error"`
		Failure *junitMessage `xml:"failure"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// Started, Running and Done implement harness.Reporter.
func (*JUnit) Started(int) {}

// Running has nothing to tell.
func (*JUnit) Running(string) {}

// Done has nothing to tell yet.
func (*JUnit) Done(*harness.Result) {}

// Finished writes the file.
func (j *JUnit) Finished(all []*harness.Result, err error) {
	var doc junitSuites
	suite := func(name string) *junitSuite {
		for i := range doc.Suites {
			if doc.Suites[i].Name == name {
				return &doc.Suites[i]
			}
		}
		doc.Suites = append(doc.Suites, junitSuite{Name: name, ID: len(doc.Suites), Package: "fifovm", Hostname: j.host, Timestamp: j.now().UTC().Format("2006-01-02T15:04:05")})
		return &doc.Suites[len(doc.Suites)-1]
	}
	for _, r := range all {
		s := suite(r.Program)
		name := r.Check
		if name == "" {
			name = r.Program
		}
		c := junitCase{Name: name, Class: r.Program, Time: fmt.Sprintf("%.3f", r.Time.Seconds())}
		switch r.Verdict {
		case harness.Skipped, harness.NotRun:
			s.Skipped++
			c.Skipped = &junitMessage{Message: strings.TrimSpace(r.Verdict.String() + ": " + r.Reason)}
		case harness.Failed:
			m := &junitMessage{Message: r.Reason, Type: string(r.Kind), Text: Failure(r, j.decode)}
			if r.Kind == harness.KindAssertion {
				s.Failures++
				c.Failure = m
			} else {
				s.Errors++
				c.Error = m
			}
		}
		s.Tests++
		s.seconds += r.Time.Seconds()
		if len(s.Properties) == 0 {
			s.Properties = []junitProperty{{"seed", fmt.Sprint(r.Seed)}, {"fault", r.Plan}}
		}
		s.Cases = append(s.Cases, c)
	}
	if err != nil {
		s := suite("fifovm")
		s.Tests++
		s.Errors++
		s.Cases = append(s.Cases, junitCase{Name: "run", Class: "fifovm", Time: "0.000", Error: &junitMessage{Message: err.Error(), Type: "run"}})
	}
	for i := range doc.Suites {
		doc.Suites[i].Time = fmt.Sprintf("%.3f", doc.Suites[i].seconds)
	}
	b := bytes.NewBufferString(xml.Header)
	e := xml.NewEncoder(b)
	e.Indent("", "  ")
	if j.err = e.Encode(doc); j.err == nil {
		b.WriteByte('\n')
		j.err = writeFile(j.path, b.Bytes())
	}
	if j.err != nil {
		j.err = fmt.Errorf("--junit: %w", j.err)
	}
}

// Err is why the file was not written.
func (j *JUnit) Err() error { return j.err }
