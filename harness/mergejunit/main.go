// Mergejunit makes one JUnit file of the runs of harness/vm-test.
//
//	mergejunit -o OUT LABEL=FILE...
//
// Each run is a LABEL, such as "6.12, 1 CPU, seed 1", which the names of its
// suites get where there are several. A label may come again, with the file of a
// repetition: of a test that is in several files of a label, the last result
// counts. A FILE.log is what fifovm test printed where its JUnit file is lost; the
// tests that passed or were skipped by it count, if nothing else tells of them.
package main

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// testcase is kept as it is. So is all else in a suite that isn't one.
type testcase struct {
	Attrs []xml.Attr `xml:",any,attr"`
	Inner string     `xml:",innerxml"`
}

type raw struct {
	Inner string `xml:",innerxml"`
}

type suite struct {
	XMLName    xml.Name   `xml:"testsuite"`
	Attrs      []xml.Attr `xml:",any,attr"`
	Properties *raw       `xml:"properties"`
	Cases      []testcase `xml:"testcase"`
	SystemOut  *raw       `xml:"system-out"`
	SystemErr  *raw       `xml:"system-err"`
}

type suites struct {
	XMLName xml.Name `xml:"testsuites"`
	Suites  []*suite `xml:"testsuite"`
}

// run is what the files of a label say together.
type run struct {
	label  string
	suites []*suite
}

func main() {
	out := flag.String("o", "", "the file to write")
	flag.Parse()
	if err := merge(*out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mergejunit:", err)
		os.Exit(1)
	}
}

func merge(out string, args []string) error {
	var runs []*run
	for _, arg := range args {
		label, file, ok := strings.Cut(arg, "=")
		if !ok || out == "" {
			return errors.New("want -o OUT LABEL=FILE, and more of these")
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		r := find(&runs, label)
		if strings.HasSuffix(file, ".log") {
			r.readLog(bytes.NewReader(text))
			continue
		}
		all, err := parse(text)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, s := range all.Suites {
			r.add(s)
		}
	}
	text, err := xml.MarshalIndent(joined(runs), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append([]byte(xml.Header), append(text, '\n')...), 0o644)
}

func parse(text []byte) (all suites, err error) {
	err = xml.Unmarshal(text, &all)
	return all, err
}

func find(runs *[]*run, label string) *run {
	for _, r := range *runs {
		if r.label == label {
			return r
		}
	}
	r := &run{label: label}
	*runs = append(*runs, r)
	return r
}

// add takes a suite of a file; its results count more than what was there.
func (r *run) add(s *suite) {
	old := r.suite(attr(s.Attrs, "name"))
	if old == nil {
		r.suites = append(r.suites, s)
		return
	}
	for _, c := range s.Cases {
		old.set(c)
	}
}

func (r *run) suite(name string) *suite {
	for _, s := range r.suites {
		if attr(s.Attrs, "name") == name {
			return s
		}
	}
	return nil
}

func (s *suite) get(name string) *testcase {
	for i := range s.Cases {
		if attr(s.Cases[i].Attrs, "name") == name {
			return &s.Cases[i]
		}
	}
	return nil
}

func (s *suite) set(c testcase) {
	if old := s.get(attr(c.Attrs, "name")); old != nil {
		*old = c
		return
	}
	s.Cases = append(s.Cases, c)
}

// verdict is a line of fifovm test; harness/vm-test reads them, too.
var verdict = regexp.MustCompile(`^(passed|skipped)  +(\S+) \(([0-9.]+) s\)`)

func (r *run) readLog(log io.Reader) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m := verdict.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		program, check, ok := strings.Cut(m[2], "/")
		if !ok {
			check = program
		}
		s := r.suite(program)
		if s == nil {
			s = &suite{Properties: &raw{}, SystemOut: &raw{}, SystemErr: &raw{}}
			for _, a := range [][2]string{{"name", program}, {"package", "fifovm"}, {"hostname", "lab"}, {"time", "0"},
				{"timestamp", time.Now().UTC().Format("2006-01-02T15:04:05")}} {
				set(&s.Attrs, a[0], a[1])
			}
			r.suites = append(r.suites, s)
		}
		c := testcase{Attrs: []xml.Attr{
			{Name: xml.Name{Local: "name"}, Value: check},
			{Name: xml.Name{Local: "classname"}, Value: program},
			{Name: xml.Name{Local: "time"}, Value: m[3]},
		}}
		if m[1] == "skipped" {
			c.Inner = "<skipped></skipped>"
		}
		// A failure before is a silence, or there would be no repetition.
		if old := s.get(check); old == nil || old.has("failure") || old.has("error") {
			s.set(c)
		}
	}
}

// has tells whether the element is a child, and not what a test printed.
func (c *testcase) has(element string) bool {
	d := xml.NewDecoder(strings.NewReader(c.Inner))
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			return false
		}
		switch t := token.(type) {
		case xml.StartElement:
			if depth == 0 && t.Name.Local == element {
				return true
			}
			depth++
		case xml.EndElement:
			depth--
		}
	}
}

// joined counts anew.
func joined(runs []*run) *suites {
	all := &suites{}
	for _, r := range runs {
		for _, s := range r.suites {
			if len(runs) > 1 {
				set(&s.Attrs, "name", fmt.Sprintf("%s (%s)", attr(s.Attrs, "name"), r.label))
			}
			failures, errors, skipped := 0, 0, 0
			for _, c := range s.Cases {
				switch {
				case c.has("failure"):
					failures++
				case c.has("error"):
					errors++
				case c.has("skipped"):
					skipped++
				}
			}
			set(&s.Attrs, "tests", strconv.Itoa(len(s.Cases)))
			set(&s.Attrs, "failures", strconv.Itoa(failures))
			set(&s.Attrs, "errors", strconv.Itoa(errors))
			set(&s.Attrs, "skipped", strconv.Itoa(skipped))
			set(&s.Attrs, "id", strconv.Itoa(len(all.Suites)))
			all.Suites = append(all.Suites, s)
		}
	}
	return all
}

func attr(attrs []xml.Attr, name string) string {
	for _, a := range attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func set(attrs *[]xml.Attr, name, value string) {
	for i := range *attrs {
		if (*attrs)[i].Name.Local == name {
			(*attrs)[i].Value = value
			return
		}
	}
	*attrs = append(*attrs, xml.Attr{Name: xml.Name{Local: name}, Value: value})
}
