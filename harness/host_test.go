package harness

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"fifovm/initramfs"
	"fifovm/vmm/vmm"
)

// script is a program for a guest.
func script(path, text string) initramfs.File {
	return initramfs.File{Path: path, Data: []byte("#!/bbin/gosh\n" + text + "\n"), Mode: 0o755}
}

// ask is what a script does to ask its host, and to print the answer.
func ask(command string) string {
	return "echo '# host: " + command + "'; read answer; echo \"# $answer\"\n"
}

// pass is what a script does that has passed.
const pass = "echo 1..1; echo ok 1 it\n"

// slowHost takes its time.
type slowHost struct{ *DeviceHost }

func (h slowHost) Do(command string) (string, error) {
	time.Sleep(20 * time.Millisecond)
	return h.DeviceHost.Do(command)
}

// failingHost has no good answer to anything.
type failingHost struct{}

func (failingHost) Do(command string) (string, error) {
	return "", errors.New(strings.Repeat(command+"\n", 1000))
}

func (failingHost) End() error { return nil }

// TestHost has a test ask its host, and another one after it.
func TestHost(t *testing.T) {
	engine := engine(t)
	kernel := defaultKernel(t)
	cases := []hostCase{
		{name: "answers", script: ask("fault edu0/irq:drop; fifo0/irq:dup; edu0/device:stall@time 1ms") + ask("clear") + ask("retired") + pass,
			reason: "invalid: the faults edu0/irq:drop and fifo0/irq:dup never fired", // nobody uses their interrupts
			output: []string{"ok", "error never fired: edu0/irq:drop; fifo0/irq:dup"}},
		{name: "a fault that fires", script: ask("fault edu0/device:stall@time 1ms") + ask("fired") + ask("clear") + ask("fired") + pass,
			output: []string{"ok", "ok 1", "ok 1", "error there is no fault armed"}},
		{name: "a fault that never fires", script: ask("fault irq[3]:drop") + pass, reason: "invalid: the fault irq[3]:drop never fired", output: []string{"ok"}},
		{name: "a fault that never fires, of a test that fails", script: ask("fault irq[3]:drop") + "echo 1..1; echo '# no'; echo not ok 1 it; false",
			reason: "no; invalid: the fault irq[3]:drop never fired"},
		{name: "a fault that never fires, of a test that is skipped", script: ask("fault irq[3]:drop") + "exit 4"},
		{name: "what it can't do", script: ask("fault") + ask("fault irq:dorp") + ask("fault edu1/irq:drop") + ask("plug edu0") + ask("plug fifo7") + ask("boot") + ask("fired 1") + pass,
			output: []string{"error there is no fault in it", "error fault plan, line 1, column 5: irq has no fault", `error there is no device "edu1": there is edu0 and fifo0`,
				"error edu0 is where it was", `error there is no device "fifo7"`, `error there is no command "boot"`, "error fired: want no argument"}},
		{name: "no answer is read", script: strings.Repeat("echo '# host: fired'\n", 20) + pass},
		{name: "all are asked for", script: "for i in 0 1 2 3 4 5 6 7 8 9; do " + strings.ReplaceAll(ask("fired"), "\n", ";") + " done\n" + pass,
			output: []string{"error there is no fault armed"}},
		{name: "not in a subtest", script: "echo '  # host: fault nonsense'\n" + ask("clear") + pass, output: []string{"ok 0"}},
		{name: "a long answer", script: ask("why") + pass, host: func(*DeviceHost) Host { return failingHost{} }, output: []string{"error why why why why"}},
		{name: "a slow host", script: ask("clear") + pass, host: func(h *DeviceHost) Host { return slowHost{h} }, output: []string{"ok 0"}},
	}
	// Those with the same host share a guest.
	for _, test := range cases {
		if test.host != nil {
			t.Run(test.name, func(t *testing.T) { askHost(t, engine, kernel, test) })
		}
	}
	t.Run("usual", func(t *testing.T) {
		askHost(t, engine, kernel, slices.DeleteFunc(cases, func(c hostCase) bool { return c.host != nil })...)
	})
}

// hostCase is a test that asks its host.
type hostCase struct {
	name, script string
	host         func(*DeviceHost) Host // nil: the usual one
	reason       string                 // of the failure; empty: there is none
	output       []string               // answers, in order
}

// askHost has a guest run tests, all with the first one's host, and each with
// another test behind it.
func askHost(t *testing.T, engine, kernel string, cases ...hostCase) {
	const after = "after"
	var output strings.Builder
	files := []initramfs.File{script("/tests/"+after, ask("fired")+pass)}
	var tests []string
	for i, c := range cases {
		name := fmt.Sprint("case", i)
		files = append(files, script("/tests/"+name, c.script))
		tests = append(tests, name, after)
	}
	o := Options{
		Machine: func(serial [2]io.Writer) (*vmm.Machine, error) {
			m, err := tryLoad(t.TempDir(), vmm.Config{Engine: engine, CPUs: 1, Memory: testMemory, Serial: serial, Devices: newDevices(t)},
				kernel, KernelWords, files...)
			if err == nil {
				broken(t, m, "edu0/event:drop@1000000") // which is nobody's
			}
			return m, err
		},
		Tests: tests,
		Host:  cases[0].host, Output: &output,
		BootTime: bootTime, TestTime: bootTime, AnswerTime: bootTime,
	}
	usual := o.Host == nil
	results, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(tests) {
		for _, r := range results {
			t.Log(r)
		}
		t.Fatalf("%d results, want %d", len(results), len(tests))
	}
	for i, c := range cases {
		got, next := results[2*i], results[2*i+1]
		if got.Verdict == Failed != (c.reason != "") || got.Verdict == Failed && got.Reason != c.reason {
			t.Errorf("%s: %s, want %q", c.name, got, c.reason)
		}
		if next.Verdict != Passed {
			t.Errorf("%s: the test after it: %s", c.name, next)
		}
		if usual && (len(next.Output) < 2 || next.Output[1] != "# error there is no fault armed") {
			t.Errorf("%s: the test after it finds what it has left: %q", c.name, next.Output)
		}
		rest := got.Output
		for _, want := range c.output {
			for len(rest) > 0 && !strings.HasPrefix(rest[0], "# "+want) {
				rest = rest[1:]
			}
			if len(rest) == 0 {
				t.Errorf("%s: %q is missing in what it was told:\n%s", c.name, want, strings.Join(got.Output, "\n"))
				break
			}
			rest = rest[1:]
		}
	}
	var want strings.Builder
	for _, r := range results {
		for _, line := range r.Output {
			want.WriteString("  | " + line + "\n")
		}
	}
	if output.String() != want.String() {
		t.Errorf("what the tests print comes as\n%s\nwant\n%s", &output, &want)
	}
}

// TestHostReplay: what a test asks for, and how long its host thinks about it,
// leaves a run what it is.
func TestHostReplay(t *testing.T) {
	if engine := engine(t); engine != vmm.EngineSoft {
		t.Skipf("runs on engine %s are not repeatable", engine)
	}
	kernel := defaultKernel(t)
	var count strings.Builder
	for range 5 {
		count.WriteString(ask("retired"))
	}
	run := func(host func(*DeviceHost) Host, cpus int) string {
		dir := t.TempDir()
		results, err := Run(t.Context(), Options{
			Machine: func(serial [2]io.Writer) (*vmm.Machine, error) {
				return tryLoad(dir, vmm.Config{Engine: vmm.EngineSoft, CPUs: cpus, Memory: testMemory, Serial: serial, Devices: newDevices(t), Seed: 5}, kernel,
					KernelWords+fmt.Sprintf(" fifovm.cpus=%d fifovm.memory=512", cpus)+deviceWords,
					script("/tests/count", count.String()+"cat /proc/interrupts /proc/stat\necho 1..1; echo ok 1 it"))
			},
			Tests:    []string{"count", "boot", "devices", "count"},
			Host:     host,
			BootTime: bootTime, TestTime: bootTime, AnswerTime: bootTime,
		})
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, r := range results {
			if r.Verdict == Failed {
				t.Error(r)
			}
			all.WriteString(strings.Join(r.Output, "\n") + "\n")
		}
		return all.String()
	}
	for _, cpus := range []int{1, 4} {
		want := run(func(h *DeviceHost) Host { return h }, cpus)
		if !strings.Contains(want, "ok 1 it") || strings.Count(want, "# host: retired\n# ok ") != 10 {
			t.Fatalf("%d CPUs: the tests do not count:\n%s", cpus, want)
		}
		t.Run(fmt.Sprintf("%dcpus", cpus), func(t *testing.T) {
			compareLines(t, run(func(h *DeviceHost) Host { return slowHost{h} }, cpus), want)
		})
	}
}

// TestDriverLoading: what can't be loaded is said at once; parameters are taken
// from the kernel's command line.
func TestDriverLoading(t *testing.T) {
	engine := engine(t)
	kernel := defaultKernel(t)
	module := initramfs.File{Path: "/lib/modules/" + release(t, kernel) + "/fifo_aio.ko", Data: []byte("no module"), Mode: 0o644}
	results, err := Run(t.Context(), Options{
		Machine: func(serial [2]io.Writer) (*vmm.Machine, error) {
			return tryLoad(t.TempDir(), vmm.Config{Engine: engine, CPUs: 1, Memory: testMemory, Serial: serial}, kernel,
				KernelWords+" fifo_aio.first=1 fifo_aiox.second=2 fifo_aio.third=three", module)
		},
		BootTime: bootTime, TestTime: bootTime, AnswerTime: bootTime,
	})
	if err != nil {
		t.Fatal(err)
	}
	compareResults(t, results, `failed guest/boot: module did not load: the guest's agent says: fifo_aio.ko "first=1 third=three" does not load: Exec format error`)
	// A person gets a shell.
	s := newShell(t)
	m := load(t, vmm.Config{Engine: engine, CPUs: 1, Memory: testMemory, Serial: [2]io.Writer{&s.console}}, kernel,
		"console=ttyS0 panic=-1 loglevel=5", module)
	wait := s.run(t.Context(), m)
	s.expect(`agent: fifo_aio.ko "" does not load: Exec format error`)
	s.expect("$ ")
	s.command("ls -d /sys/kernel/tracing/events /sys/kernel/debug/bdi && echo both are 'there'", "both are there")
	s.powerOff(wait)
}

// release is what a kernel calls itself.
func release(t *testing.T, vmlinux string) string {
	t.Helper()
	b, err := os.ReadFile(vmlinux)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := bytes.Cut(b, []byte("\nLinux version "))
	if len(after) == 0 {
		_, after, _ = bytes.Cut(b, []byte("Linux version "))
	}
	name, _, _ := strings.Cut(string(after[:min(len(after), 100)]), " ")
	if name == "" {
		t.Fatalf("%s does not say what it is", vmlinux)
	}
	return name
}
