//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestAttachments(t *testing.T) {
	for _, test := range []struct {
		flags []string
		names string // of the devices; or
		err   string
	}{
		{[]string{"edu"}, "edu0", ""},
		{[]string{"edu", "edu,slot=31"}, "edu0,edu1", ""},
		{[]string{"edu,name=left", "edu"}, "left,edu1", ""},
		{[]string{"edu,dma-bits=64,name=x"}, "x", ""},
		{[]string{""}, "", `there is no device "": want edu or fifo`},
		{[]string{"edux"}, "", `there is no device "edux": want edu or fifo`},
		{[]string{"edu,"}, "", `edu has no option ""`},
		{[]string{"edu,speed=1"}, "", `edu has no option "speed=1": see`},
		{[]string{"edu,slot"}, "", `edu has no option "slot"`},
		{[]string{"edu,slot=32"}, "", "slot=32: want 1 to 31"},
		{[]string{"edu,slot=-1"}, "", "slot=-1: want 1 to 31"},
		{[]string{"edu,dma-bits=many"}, "", "dma-bits=many: want a number"},
		{[]string{"edu,dma-bits=65"}, "", "dma-bits: want 1 to 64"},
		{[]string{"fifo", "edu", "fifo,channels=8,depth=4096,latency=1.5ms,rate=1"}, "fifo0,edu0,fifo1", ""},
		{[]string{"fifo,channels=9"}, "", "9 channels: want 1 to 8"},
		{[]string{"fifo,channels=0"}, "", "channels, depth, latency and rate: want more than 0"},
		{[]string{"fifo,depth=5000"}, "", "want a power of two"},
		{[]string{"fifo,rate=0x"}, "", "rate=0x: want a number"},
		{[]string{"fifo,latency=10"}, "", "latency=10: want a time such as 10us"},
		{[]string{"edu", "edu,name=edu0"}, "", "two devices have the name edu0"},
	} {
		var a attachments
		var err error
		for _, f := range test.flags {
			if err = a.Set(f); err != nil {
				break
			}
		}
		switch {
		case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
			t.Errorf("%q: %v, want %q", test.flags, err, test.err)
		case test.err == "" && (err != nil || a.String() != test.names):
			t.Errorf("%q: %v, %v, want %s", test.flags, &a, err, test.names)
		}
	}
}

// Each model can be made as it is, twice, and is described.
func TestModels(t *testing.T) {
	var list bytes.Buffer
	if err := listDevices(&list); err != nil {
		t.Fatal(err)
	}
	for _, m := range models {
		var a attachments
		if err := a.Set(m.name); err != nil {
			t.Error(err)
			continue
		}
		first, err1 := a[0].make()
		second, err2 := a[0].make()
		if err1 != nil || err2 != nil || first == second {
			t.Errorf("%s: %v, %v, the same: %v", m.name, err1, err2, first == second)
		}
		if !strings.Contains(list.String(), m.name+": "+m.about+"\n") {
			t.Errorf("%s is missing in the list:\n%s", m.name, &list)
		}
	}
	if !strings.Contains(list.String(), "\n  dma-bits=  bits of the addresses that its DMA engine can emit, 1 to 64 (28)\n") {
		t.Errorf("an option is missing in the list:\n%s", &list)
	}
}

func TestDeviceFlagErrors(t *testing.T) {
	k := kernel(t, "p")
	for _, test := range []struct {
		args  []string
		words []string
	}{
		{[]string{"--device", "edux"}, []string{`there is no device "edux"`}},
		{[]string{"--fault", "irq:drop"}, []string{"--fault: there is no device to break"}},
		{[]string{"--device", "edu", "--fault", "edu/irq:drop"}, []string{`--fault: there is no device "edu": there is edu0`}},
		{[]string{"--trace", "x"}, []string{"--trace: there is no device to trace"}},
		{[]string{"--device", "edu", "--fault", " # nothing"}, []string{"--fault: there is no fault in it"}},
		{[]string{"--device", "edu", "--fault", "@/nowhere/plan"}, []string{"--fault: open /nowhere/plan"}},
		{[]string{"--device", "edu", "--trace", "/nowhere/trace"}, []string{"--trace: open /nowhere/trace"}},
	} {
		r := execute(t, program, "", append([]string{"run", "-e", "soft", "-k", k}, test.args...)...)
		if r.status != statusUsage || r.stdout != "" {
			t.Errorf("%q: %+v", test.args, r)
		}
		errorLine(t, r.stderr, test.words...)
	}
	// A plan that can't be read is shown, with the place.
	plan := file(t, "plan", []byte("# a plan\nirq[0]:dorp@3\n"))
	r := execute(t, program, "", "run", "-e", "soft", "-k", k, "--device", "edu", "--fault", "@"+plan)
	if r.status != statusUsage || !strings.HasPrefix(r.stderr, "fifovm: --fault @"+plan+": fault plan, line 2, column 8: ") ||
		!strings.HasSuffix(r.stderr, "\n\tirq[0]:dorp@3\n\t       ^\n") {
		t.Errorf("%+v", r)
	}
}

// A fault that never fires makes a run invalid, whatever else it was.
func TestUnfired(t *testing.T) {
	const fires, never, other = "device:reset@time 0ns", "irq:drop@3", "dma.read:error@1"
	long := strings.Repeat("-", 100) + "p" // so that there is a time for it
	for _, test := range []struct {
		name   string
		script string
		faults []string
		status int
		words  string
	}{
		{"one that fires", long, []string{fires}, 0, ""},
		{"one that does not", "p", []string{never}, statusFailed, "fifovm: invalid: the fault irq:drop@3 never fired\n"},
		{"some", long, []string{fires + ";" + never, other}, statusFailed, "fifovm: invalid: the faults irq:drop@3 and dma.read:error@1 never fired\n"},
		{"triple fault", "t", []string{never}, statusTripleFault, "; invalid: the fault irq:drop@3 never fired\n"},
		{"panic", "k", []string{never}, statusPanic, "; invalid: the fault irq:drop@3 never fired\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := []string{"run", "-e", "soft", "-k", kernel(t, test.script), "--device", "edu"}
			for _, f := range test.faults {
				args = append(args, "--fault", f)
			}
			r := execute(t, program, "", args...)
			if r.status != test.status || !strings.Contains(r.stderr, test.words) || test.words == "" && strings.Contains(r.stderr, "invalid") {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestTrace(t *testing.T) {
	const resets = "resets by itself fault device:reset@time 0ns"
	k := kernel(t, strings.Repeat("-", 100)+"p")
	run := func(trace string) string {
		t.Helper()
		r := execute(t, program, "", "run", "-e", "soft", "-k", k, "--device", "edu,name=card", "--fault", "device:reset@time 0ns", "--trace", trace)
		if r.status != 0 {
			t.Fatalf("%+v", r)
		}
		return r.stdout
	}
	if out := run("-"); !strings.Contains(out, "card") || !strings.Contains(out, resets) {
		t.Errorf("standard output is %q", out)
	}
	dir := t.TempDir()
	run(filepath.Join(dir, "trace"))
	if text, err := os.ReadFile(filepath.Join(dir, "trace")); err != nil || !strings.Contains(string(text), resets) {
		t.Errorf("the trace is %q, %v", text, err)
	}
	run(filepath.Join(dir, "trace.json"))
	text, err := os.ReadFile(filepath.Join(dir, "trace.json"))
	if err != nil || !json.Valid(text) || !strings.Contains(string(text), "traceEvents") {
		t.Errorf("the trace is %q, %v", text, err)
	}
}

// Each boot has its plan and its trace; a fault that fires in one boot has fired.
func TestBoots(t *testing.T) {
	dir := t.TempDir()
	b := bench{faults: []string{"irq:drop@1; dma.read:error@1; device:reset@time 0ns"}, trace: filepath.Join(dir, "run.txt")}
	if err := b.devices.Set("edu"); err != nil {
		t.Fatal(err)
	}
	if err := b.open(); err != nil {
		t.Fatal(err)
	}
	g := guest{kernel: kernel(t, "p"), engine: "soft", memory: 16 << 20, cpus: 1, bench: b}
	for boot, want := range [][]string{{"dma.read:error@1", "device:reset@time 0ns"}, {"irq:drop@1", "device:reset@time 0ns"}} {
		m, err := g.machine("", [2]io.Writer{})
		if err != nil {
			t.Fatal(err)
		}
		// What the guest would do: it has enabled nothing, so the pin it is.
		card := m.Device("edu0")
		if boot == 0 {
			card.Write(0, 0x60, []byte{1, 0, 0, 0})
		} else {
			card.Write(0, 0x90, []byte{4, 0, 0, 0})
			card.Write(0, 0x88, []byte{0, 0, 4, 0})
			card.Write(0, 0x98, []byte{1, 0, 0, 0})
			card.Event(1, 0)
		}
		if err := errors.Join(m.Close(), g.bench.finish(), g.bench.finish()); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(g.bench.left, want) {
			t.Errorf("boot %d: left are %q, want %q", boot, g.bench.left, want)
		}
	}
	if want := []string{"device:reset@time 0ns"}; !slices.Equal(g.bench.never, want) {
		t.Errorf("never fired %q, want %q", g.bench.never, want)
	}
	for name, want := range map[string]string{"run.txt": "irq:drop@1", "run-2.txt": "dma.read:error@1"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %q, %v, want %q in it", name, text, err, want)
		}
	}
}
