package harness_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"fifovm/device/edu"
	"fifovm/device/fifo"
	"fifovm/harness"
	"fifovm/harness/bench"
	"fifovm/vmm/vmm"
)

// kunit has the kernel's own parser of KTAP read a list of reports and tell what it
// makes of each.
const kunit = `
import io, json, sys
sys.path.insert(0, sys.argv[1])
out, sys.stdout = sys.stdout, io.StringIO() # it prints as well
import kunit_parser
all = []
for report in json.load(sys.stdin):
    c = kunit_parser.parse_run_tests(report.splitlines()).counts
    all.append({"passed": c.passed, "failed": c.failed, "skipped": c.skipped, "broken": c.crashed + c.errors})
json.dump(all, out)
`

type counts struct{ Passed, Failed, Skipped, Broken int }

// TestKernelsParser has the kernel's own parser read what the agent says of our
// programs, as it comes through the cable: it is to count what we count.
func TestKernelsParser(t *testing.T) {
	p := plant(t, "6.12")
	parser, err := filepath.Abs("../build/kernel/source/6.12/tools/testing/kunit")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(parser, "kunit_parser.py")); err != nil {
		t.Skipf("%v: run `make kernel`", err)
	}
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip(err)
	}
	b := bench.Bench{Kernel: p.kernel, Engine: vmm.EngineSoft, Append: "fifovm.devices=edu,fifo", Devices: func() []vmm.Device {
		f, err := fifo.New(fifo.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return []vmm.Device{{Name: "edu0", Model: edu.New(edu.Config{})}, {Name: "fifo0", Model: f}}
	}}
	planted := b
	planted.Tests = []string{"../build/plant/planted"}
	for _, test := range []struct {
		name  string
		bench bench.Bench
		tests []string
	}{
		{"planted", planted, []string{"planted/first/assertion/skip/last"}},
		{"guest", b, someOfEach(t, b)},
	} {
		t.Run(test.name, func(t *testing.T) {
			results, reports := runHeard(t, test.bench, test.tests)
			c := exec.Command("python3", "-c", kunit, parser)
			in, err := json.Marshal(reports)
			if err != nil {
				t.Fatal(err)
			}
			var errs bytes.Buffer
			c.Stdin, c.Stderr = bytes.NewReader(in), &errs
			out, err := c.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, &errs)
			}
			var got []counts
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if len(got) != len(test.tests) {
				t.Fatalf("%d reports of %d programs", len(got), len(test.tests))
			}
			for i, name := range test.tests {
				program, _, _ := strings.Cut(name, "/")
				want := counts{results[program][harness.Passed], results[program][harness.Failed], results[program][harness.Skipped], 0}
				if want.Passed == 0 || got[i] != want {
					t.Errorf("of %s the kernel's parser counts %+v, we %+v:\n%s", program, got[i], want, reports[i])
				}
			}
		})
	}
}

// slow are checks that take seconds.
var slow = regexp.MustCompile(`^fifo_io/(sizes|large)$|^fifo_stress/with_`)

// someOfEach are the first checks of each program that the guest has, without those
// that are slow: all would take a minute.
func someOfEach(t *testing.T, b bench.Bench) (tests []string) {
	t.Helper()
	guests, err := b.Open()
	if err != nil {
		t.Fatal(err)
	}
	o := options()
	o.Machine = func(serial [2]io.Writer) (*vmm.Machine, error) { return guests.Machine(harness.KernelWords, serial) }
	o.Skip = slow
	names, err := harness.List(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	const some = 4
	n := 0
	for _, name := range names {
		program, check, _ := strings.Cut(name, "/")
		switch last := len(tests) - 1; {
		case last < 0 || !strings.HasPrefix(tests[last], program+"/"):
			tests, n = append(tests, name), 1
		case n < some:
			tests[last] += "/" + check
			n++
		}
	}
	if len(tests) < 9 {
		t.Errorf("the guest has no more programs than %q", tests)
	}
	return tests
}

func options() harness.Options {
	return harness.Options{BootTime: 5 * time.Minute, TestTime: 3 * time.Minute, AnswerTime: time.Minute}
}

// runHeard runs tests in one guest. It gives how many results there are of each program
// with each verdict, and the agent's reports.
func runHeard(t *testing.T, b bench.Bench, tests []string) (results map[string]map[harness.Verdict]int, reports []string) {
	t.Helper()
	guests, err := b.Open()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	o := options()
	o.Machine = func(serial [2]io.Writer) (*vmm.Machine, error) {
		serial[1] = io.MultiWriter(&said, serial[1])
		return guests.Machine(harness.KernelWords, serial)
	}
	o.Tests = tests
	all, err := harness.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	results = map[string]map[harness.Verdict]int{}
	for _, r := range all {
		if results[r.Program] == nil {
			results[r.Program] = map[harness.Verdict]int{}
		}
		results[r.Program][r.Verdict]++
		if r.Verdict == harness.Failed && b.Tests == nil {
			t.Error(r)
		}
	}
	const begin = "\nKTAP version 1\n1..1\n"
	for _, report := range strings.Split(said.String(), begin)[1:] {
		reports = append(reports, begin[1:]+report)
	}
	return results, reports
}
