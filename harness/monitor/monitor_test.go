package monitor

import (
	"slices"
	"strings"
	"testing"

	"fifovm/device/edu"
	"fifovm/device/fault"
	"fifovm/device/fifo"
	"fifovm/vmm/debug"
	"fifovm/vmm/vmm"
)

func monitorOf(t *testing.T) *Monitor {
	t.Helper()
	f, err := fifo.New(fifo.Config{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := vmm.New(vmm.Config{Engine: vmm.EngineSoft, CPUs: 1, Memory: 16 << 20, Seed: 1,
		Devices: []vmm.Device{{Name: "edu0", Model: edu.New(edu.Config{})}, {Name: "fifo0", Model: f}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	plan, err := fault.Parse("")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Devices() {
		d.Inject(plan)
	}
	return New(Config{Session: debug.New(m, nil), Plan: plan})
}

func TestCommands(t *testing.T) {
	for _, test := range []struct{ line, want, err string }{
		{line: ""},
		{line: "help drop", want: "drop DEV VECTOR"},
		{line: "device fifo0", want: "tx ring: stopped, idle"},
		{line: "device edu0", want: "factorial 0"},
		{line: "dev edu0", want: "factorial 0"},
		{line: "device nic", err: "there is no device \"nic\": there is edu0, fifo0"},
		{line: "device", err: "want: device DEV"},
		{line: "d fifo0", err: "\"d\" may be device or drop or disassemble"},
		{line: "nonsense", err: "there is no command"},
		{line: "drop fifo0 1", want: "armed: fifo0/irq[1]:drop@next"},
		{line: "drop fifo0 99", err: "want 0 to"},
		{line: "fault fifo0/irq[1]:frob", err: "column"},
		{line: "fault nic/irq:drop", err: "there is no device"},
		{line: "faults", want: "none"},
		{line: "trace off", err: "it is not on"},
		{line: "memory nowhere 4", err: "there is no symbol"},
		{line: "break nowhere", err: "there is no symbol \"nowhere\": no file with symbols is known"},
		{line: "modules", err: "no file with symbols is known"},
		{line: "backtrace 7", err: "want 0 to 0"},
		{line: "plug fifo0", want: "/sys/bus/pci/devices/0000:00:02.0/remove"},
	} {
		var out strings.Builder
		err := monitorOf(t).Do(test.line, &out)
		switch {
		case err == nil && test.err != "", err != nil && (test.err == "" || !strings.Contains(err.Error(), test.err)):
			t.Errorf("%q: error %v, want %q", test.line, err, test.err)
		case !strings.Contains(out.String(), test.want):
			t.Errorf("%q: %q, want %q in it", test.line, out.String(), test.want)
		}
	}
}

func TestComplete(t *testing.T) {
	m := monitorOf(t)
	for _, test := range []struct {
		line string
		want []string
	}{
		{"unp", []string{"unplug"}},
		{"device ", []string{"edu0", "fifo0"}},
		{"device f", []string{"fifo0"}},
		{"trace o", []string{"on", "off"}},
		{"device fifo0 ", nil},
	} {
		if got := m.Complete(test.line); !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.line, got, test.want)
		}
	}
}
