package vmm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"fifovm/device/edu"
	"fifovm/device/fifo"
	"fifovm/vmm/boot"
	"fifovm/vmm/kvm"
)

// Where the program that tests the machine from inside is, and what it prints.
const (
	bareProgram    = "../../build/guest/bare"
	bareTranscript = "../../guest/bare/transcript.txt"
	bareCPUs       = 2 // BARE_CPUS in guest/bare/layout.h
)

// bareGrace is the time between the end of a guest that hangs and the test's.
const bareGrace = 5 * time.Second

// bareInstructions is more than the program may execute: so few that a KVM that
// emulates them runs it in a second.
const bareInstructions = 1_000_000

// TestBare runs guest/bare on each engine that there is here: its transcript
// must be the same on all, to the letter.
func TestBare(t *testing.T) {
	b, err := os.ReadFile(bareTranscript)
	if err != nil {
		t.Fatal(err)
	}
	want := string(b)
	k, err := boot.Parse(buildBare(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Run(EngineKVM, func(t *testing.T) {
		got, left := runBare(t, Config{Engine: EngineKVM}, k)
		compareLines(t, got, want)
		switch flaw := hostFlaw(t); {
		case left == "":
		case flaw == "":
			t.Errorf("these were not done:\n%s", left)
		default:
			t.Logf("%s, so these were not done:\n%s", flaw, left)
		}
	})
	// The CPUs take turns in another order with each seed.
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("%s/seed %d", EngineSoft, seed), func(t *testing.T) {
			got, left := runBare(t, Config{Engine: EngineSoft, Seed: seed}, k)
			compareLines(t, got, want)
			if left != "" {
				t.Errorf("these were not done:\n%s", left)
			}
		})
	}
}

// compareLines reports each line in which two texts differ.
func compareLines(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	line := func(lines []string, i int) string {
		if i < len(lines) {
			return lines[i]
		}
		return "(the end)"
	}
	for i := range max(len(g), len(w)) {
		if g, w := line(g, i), line(w, i); g != w {
			t.Errorf("line %d: got %q, want %q", i+1, g, w)
		}
	}
}

// hostFlaw says why guests on this host's KVM need not be like on a processor;
// empty if they have to (guest/bare/traps.c, bare_unless_flawed).
func hostFlaw(t *testing.T) string {
	t.Helper()
	ns, err := kvm.Speed("", 0)
	if err != nil && !errors.Is(err, kvm.ErrUnavailable) {
		t.Fatal(err)
	}
	if err == nil && ns >= kvm.NativeBelow {
		return "this host's KVM emulates ring 0"
	}
	if b, _ := os.ReadFile("/proc/cpuinfo"); bytes.Contains(b, []byte("QEMU TCG CPU")) {
		return "this host's processor is QEMU's"
	}
	return ""
}

// buildBare gives the program, made anew where its sources have changed. Where
// its compiler can't be, as in the lab, it is there already, or can't be run.
func buildBare(t *testing.T) []byte {
	t.Helper()
	host := runtime.GOOS + "/" + runtime.GOARCH
	if _, err := exec.LookPath("make"); err == nil && host == "linux/amd64" {
		c := exec.CommandContext(t.Context(), "make", "-s", "-C", "../../guest", "../build/guest/bare")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
	b, err := os.ReadFile(bareProgram)
	switch {
	case err == nil:
	case host == "linux/amd64":
		t.Fatalf("%v: make -C guest builds it", err)
	default:
		t.Skipf("%v: it is built on linux/amd64, and this is %s", err, host)
	}
	return b
}

// bareDevices are those that the program expects: the FIFO with two channels,
// and the educational device.
func bareDevices(t *testing.T) []Device {
	t.Helper()
	f, err := fifo.New(fifo.Config{Channels: 2})
	if err != nil {
		t.Fatal(err)
	}
	return []Device{{Name: "fifo", Model: f}, {Name: "edu", Model: edu.New(edu.Config{})}}
}

// runBare gives what the program prints on a fresh machine until it powers the
// machine off, and the checks that it left out, which it says on ttyS1.
func runBare(t *testing.T, cfg Config, k *boot.Kernel) (transcript, left string) {
	t.Helper()
	var ports [2]bytes.Buffer
	cfg.CPUs, cfg.Memory, cfg.Serial = bareCPUs, testMemory, [2]io.Writer{&ports[0], &ports[1]}
	cfg.Devices = bareDevices(t)
	m, err := New(cfg)
	if errors.Is(err, kvm.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Load(Boot{Kernel: k}); err != nil {
		t.Fatal(errors.Join(err, m.Close()))
	}
	// A guest that hangs is to show how far it came.
	ctx, cancel := t.Context(), func() {}
	if deadline, ok := t.Deadline(); ok {
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-bareGrace))
	}
	stop, err := m.Run(ctx)
	cancel()
	if n, ok := m.Retired(); ok && n >= bareInstructions {
		t.Errorf("%d instructions, want less than %d", n, bareInstructions)
	} else if ok {
		t.Logf("%d instructions", n)
	}
	if err := m.Close(); err != nil { // the ports have all after it
		t.Fatal(err)
	}
	if stop != PowerOff || err != nil {
		t.Errorf("Run gives %v, %v, want a power off", stop, err)
	}
	return ports[0].String(), ports[1].String()
}
