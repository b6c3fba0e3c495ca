package harness

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"fifovm/vmm/vmm"
)

// TestOrder: what comes of a test does not depend on what was run before it or
// beside it, nor on whether its guest was booted or began at a base; from a base it
// is the same to the instruction.
func TestOrder(t *testing.T) {
	engine := engine(t)
	kernel := defaultKernel(t)
	run := func(o Options) []*Result {
		t.Helper()
		o.Machine = func(serial [2]io.Writer) (*vmm.Machine, error) {
			return tryLoad(t.TempDir(), vmm.Config{Engine: engine, CPUs: 2, Memory: testMemory, Serial: serial, Devices: newDevices(t)},
				kernel, KernelWords+" fifovm.cpus=2 fifovm.memory=512"+deviceWords)
		}
		o.BootTime, o.TestTime, o.AnswerTime = bootTime, bootTime, bootTime
		results, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return results
	}
	from := func(b *vmm.Base, serial [2]io.Writer) (*vmm.Machine, error) {
		return vmm.NewFrom(vmm.Config{Engine: engine, CPUs: 2, Serial: serial, Devices: newDevices(t)}, b)
	}
	tests := []string{"boot", "devices", "fifo_memory/alignments", "fifo_memory/fork"}
	if engine != vmm.EngineSoft {
		tests = tests[:1] // where a boot takes many seconds, one program is enough
	}
	booted := run(Options{Tests: tests})
	alone := run(Options{Tests: tests, From: from})
	beside := run(Options{Tests: tests, From: from, Jobs: 2})
	var reversed []string
	for _, r := range slices.Backward(alone) {
		reversed = append(reversed, r.Name())
	}
	backward := run(Options{Tests: reversed, From: from, Jobs: 3})
	slices.Reverse(backward)

	if len(booted) < 10 || engine == vmm.EngineSoft && len(booted) < 30 {
		t.Fatalf("only %d tests", len(booted))
	}
	same(t, "from a base", booted, alone, func(r *Result) string { return r.String() })
	exact := func(r *Result) string {
		return fmt.Sprintf("%s after %d instructions: %s", r, r.Retired, strings.Join(r.Output, "\n"))
	}
	if engine != vmm.EngineSoft {
		exact = (*Result).String
	}
	same(t, "two at a time", alone, beside, exact)
	same(t, "the other way round", alone, backward, exact)
	if engine == vmm.EngineSoft && alone[0].Retired <= 0 {
		t.Error("no instructions are counted")
	}
}

// same wants results that say the same.
func same(t *testing.T, how string, want, got []*Result, say func(*Result) string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d results, want %d", how, len(got), len(want))
	}
	for i, r := range got {
		if a, b := say(want[i]), say(r); a != b {
			t.Errorf("%s:\n%s\nwant:\n%s", how, b, a)
		}
	}
}
