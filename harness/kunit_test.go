package harness_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fifovm/device/edu"
	"fifovm/harness"
	"fifovm/harness/bench"
	"fifovm/vmm/vmm"
)

// kunit has the kernel's own parser of KTAP read standard input and tell what it
// makes of it.
const kunit = `
import io, json, sys
sys.path.insert(0, sys.argv[1])
out, sys.stdout = sys.stdout, io.StringIO() # it prints as well
import kunit_parser
c = kunit_parser.parse_run_tests(sys.stdin.read().splitlines()).counts
json.dump({"passed": c.passed, "failed": c.failed, "skipped": c.skipped, "broken": c.crashed + c.errors}, out)
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
	for _, test := range []struct {
		program string
		checks  string
	}{
		{"boot", ""}, {"devices", ""}, {"planted", "/first/assertion/skip/last"},
	} {
		t.Run(test.program, func(t *testing.T) {
			b := bench.Bench{Kernel: p.kernel, Engine: vmm.EngineSoft, Devices: func() []vmm.Device {
				return []vmm.Device{{Name: "edu0", Model: edu.New(edu.Config{})}}
			}}
			if test.program == "planted" {
				b.Tests = []string{"../build/plant/planted"}
			}
			guests, err := b.Open()
			if err != nil {
				t.Fatal(err)
			}
			var said bytes.Buffer
			results, err := harness.Run(t.Context(), harness.Options{
				Machine: func(serial [2]io.Writer) (*vmm.Machine, error) {
					serial[1] = io.MultiWriter(&said, serial[1])
					return guests.Machine(harness.KernelWords, serial)
				},
				Tests:    []string{test.program + test.checks},
				BootTime: 5 * time.Minute, TestTime: 3 * time.Minute, AnswerTime: time.Minute,
			})
			if err != nil {
				t.Fatal(err)
			}
			want := counts{harness.Count(results, harness.Passed), harness.Count(results, harness.Failed), harness.Count(results, harness.Skipped), 0}
			if want.Passed == 0 {
				t.Errorf("nothing passed")
			}
			// The run's own report is the last; before it the program may have been asked what it has.
			text := said.String()
			begin := strings.LastIndex(text, "\nKTAP version 1\n")
			if begin < 0 {
				t.Fatalf("the agent said no KTAP:\n%s", text)
			}
			text = text[begin+1:]
			c := exec.Command("python3", "-c", kunit, parser)
			c.Stdin = strings.NewReader(text)
			var errs bytes.Buffer
			c.Stderr = &errs
			out, err := c.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, &errs)
			}
			var got counts
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got != want {
				t.Errorf("the kernel's parser counts %+v, we %+v:\n%s", got, want, text)
			}
		})
	}
}
