package harness

import (
	"context"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fifovm/device/edu"
	"fifovm/device/fault"
	"fifovm/device/fifo"
	"fifovm/device/trace"
	"fifovm/vmm/memory"
	"fifovm/vmm/vmm"
)

// deviceWords tell guest/tests/devices.c what newDevices attaches.
const deviceWords = " fifovm.devices=edu,fifo"

// newDevices are both models, for one machine.
func newDevices(t *testing.T) []vmm.Device {
	t.Helper()
	f, err := fifo.New(fifo.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return []vmm.Device{{Name: "edu0", Model: edu.New(edu.Config{})}, {Name: "fifo0", Model: f, Slot: 30}}
}

// broken arms a plan on the devices of a machine.
func broken(t *testing.T, m *vmm.Machine, plan string) {
	t.Helper()
	p, err := fault.Parse(plan)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Devices() {
		d.Inject(p)
	}
}

// TestDevices has every kernel enumerate the devices. What it has made of them
// is looked at from inside, by guest/tests/devices.c, and here.
func TestDevices(t *testing.T) {
	engine := engine(t)
	for _, name := range kernels(t) {
		t.Run(name, func(t *testing.T) {
			results, err := Run(t.Context(), Options{
				Machine: func(serial [2]io.Writer) (*vmm.Machine, error) {
					return tryLoad(t.TempDir(), vmm.Config{Engine: engine, CPUs: 2, Memory: testMemory, Serial: serial, Devices: newDevices(t)},
						filepath.Join(kernelDir, name), KernelWords+deviceWords)
				},
				Tests:    []string{"devices"},
				BootTime: bootTime, TestTime: bootTime, AnswerTime: bootTime,
			})
			if err != nil {
				t.Fatal(err)
			}
			// None of the checks has found nothing to check.
			for _, r := range results {
				if r.Verdict != Passed {
					t.Error(r)
				}
			}
			if len(results) < 5 {
				t.Errorf("%d checks", len(results))
			}
		})
	}
}

// TestDeviceListing looks at the devices as a person at the console would.
func TestDeviceListing(t *testing.T) {
	engine := engine(t)
	for _, name := range kernels(t) {
		t.Run(name, func(t *testing.T) {
			s := newShell(t)
			m := load(t, vmm.Config{Engine: engine, CPUs: 1, Memory: testMemory, Serial: [2]io.Writer{&s.console}, Devices: newDevices(t)},
				filepath.Join(kernelDir, name), "console=ttyS0 panic=-1 loglevel=5")
			wait := s.run(t.Context(), m)
			s.expect("Setting console log level")
			s.expect("$ ")
			s.command("pci -n", "\n0000:00:01.0: ClassUnknown: 1234 11e8")
			s.expect("\n0000:00:1e.0: ClassUnknown: 1234 f1f0")
			s.command("dmesg | grep 0000:00:01.0", "[1234:11e8] type 00 class 0x00ff00")
			s.command("dmesg | grep 0000:00:1e.0", "[1234:f1f0] type 00 class 0xff0000")
			s.powerOff(wait)
		})
	}
}

// TestFaults runs the guest's test under faults: one that it does not notice,
// one that it does, and one that never comes.
func TestFaults(t *testing.T) {
	engine := engine(t)
	kernel := defaultKernel(t)
	for _, test := range []struct {
		plan   string
		failed string // how what failed is told, twice; empty: nothing has
	}{
		{"edu0/event:delay=20us@2", ""},
		{"edu0/mmio.read[0:0x4]:ones@1", "failed devices/edu_works: assertion: devices.c:"},
		{"edu0/irq:drop@7", "failed devices: fault never fired: invalid: the fault edu0/irq:drop@7 never fired"},
		{"edu0/mmio.read[0:0x4]:ones@1; fifo0/irq:drop@7",
			"failed devices/edu_works: assertion: devices.c:\nfailed devices: fault never fired: invalid: the fault fifo0/irq:drop@7 never fired"},
	} {
		t.Run(test.plan, func(t *testing.T) {
			boots := 0
			results, err := Run(t.Context(), Options{
				Machine: func(serial [2]io.Writer) (*vmm.Machine, error) {
					boots++
					m, err := tryLoad(t.TempDir(), vmm.Config{Engine: engine, CPUs: 1, Memory: testMemory, Serial: serial, Devices: newDevices(t)},
						kernel, KernelWords+deviceWords)
					if err == nil {
						broken(t, m, test.plan)
					}
					return m, err
				},
				Tests:    []string{"devices", "devices"},
				Alone:    true,
				BootTime: bootTime, TestTime: bootTime, AnswerTime: bootTime,
			})
			if err != nil {
				t.Fatal(err)
			}
			if boots != 2 {
				t.Errorf("%d guests, want 2", boots)
			}
			var want []string
			if test.failed != "" {
				want = strings.Split(test.failed+"\n"+test.failed, "\n")
			}
			compareResults(t, slices.DeleteFunc(results, func(r *Result) bool { return r.Verdict != Failed }), want...)
		})
	}
}

// TestDeviceReplay runs a guest that works with both devices under faults, then
// again, and again with a move to another machine every while: to the guest, to
// the faults and in the trace it must all be the same.
func TestDeviceReplay(t *testing.T) {
	if engine := engine(t); engine != vmm.EngineSoft {
		t.Skipf("runs on engine %s are not repeatable", engine)
	}
	if !slices.Contains(kernels(t), repeatableKernel) {
		t.Skipf("no kernel %s: run `make kernel`", repeatableKernel)
	}
	const plan = "seed=7; edu0/event:delay=30us@every 2; mmio.read:flip@every 1000; fifo0/device:reset@2 on mmio.write[0x18]"
	run := func(pause time.Duration) (outcome, string) {
		t.Helper()
		ram, err := memory.New(repeatableMemory)
		if err != nil {
			t.Fatal(err)
		}
		defer ram.Close()
		var console strings.Builder
		log := trace.New(trace.Size)
		var faults *fault.Plan
		arm := func(m *vmm.Machine) {
			if faults, err = fault.Parse(plan); err != nil {
				t.Fatal(err)
			}
			for _, d := range m.Devices() {
				d.Inject(faults)
				d.Trace(log)
			}
		}
		cfg := vmm.Config{Engine: vmm.EngineSoft, CPUs: 2, RAM: ram, Seed: 3, Serial: [2]io.Writer{&console}, Devices: newDevices(t),
			Input: []vmm.Input{{When: int64(4 * time.Second), Data: []byte("/tests/devices\n")}, {When: int64(10 * time.Second), Data: []byte("poweroff\n")}}}
		m, err := tryLoad("", cfg, filepath.Join(kernelDir, repeatableKernel), repeatableWords(2)+deviceWords)
		if err != nil {
			t.Fatal(err)
		}
		cfg.WallClock, cfg.Input = softWallClock, nil
		arm(m)
		moves := 0
		for {
			ctx, cancel := t.Context(), func() {}
			if pause > 0 {
				ctx, cancel = context.WithTimeout(ctx, pause)
			}
			stop, err := m.Run(ctx)
			cancel()
			if err != nil {
				t.Fatalf("%v; console:\n%s", err, &console)
			}
			if stop != vmm.Paused {
				break
			}
			s, err := m.State()
			if err == nil {
				err = m.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			cfg.Devices = newDevices(t)
			if m, err = vmm.New(cfg); err != nil {
				t.Fatal(err)
			}
			arm(m)
			if err := m.SetState(s); err != nil {
				t.Fatal(err)
			}
			moves++
		}
		if pause > 0 && moves < 5 {
			t.Errorf("%d moves are too few to tell", moves)
		}
		hash, err := m.Hash()
		if err == nil {
			err = m.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		if left := faults.Unfired(); len(left) > 0 {
			t.Errorf("never fired: %q; console:\n%s", left, &console)
		}
		var text strings.Builder
		if err := log.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		return outcome{console: console.String(), hash: hash}, text.String()
	}
	want, wantTrace := run(0)
	if !strings.Contains(wantTrace, "fifo0") || !strings.Contains(wantTrace, "fault mmio.read:flip@every 1000") {
		t.Errorf("the trace lacks what it should have:\n%.2000s", wantTrace)
	}
	for name, pause := range map[string]time.Duration{"replayed": 0, "moved": 50 * time.Millisecond} {
		got, gotTrace := run(pause)
		compare(t, name, got, want)
		if gotTrace != wantTrace {
			g, w := strings.Split(gotTrace, "\n"), strings.Split(wantTrace, "\n")
			for i := range min(len(g), len(w)) {
				if g[i] != w[i] {
					t.Errorf("%s: the trace's line %d is\n%s, and was\n%s", name, i+1, g[i], w[i])
					break
				}
			}
			t.Errorf("%s: the trace has %d lines, and had %d", name, len(g), len(w))
		}
	}
}
