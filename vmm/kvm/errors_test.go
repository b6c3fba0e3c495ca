//go:build linux && amd64

package kvm

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"

	"fifovm/vmm/x86"
)

// TestTripleFault: a guest that can't deliver its exception ends with its
// registers.
func TestTripleFault(t *testing.T) {
	g := newGuest(t, 1, mov(x86.RBX, 0x4242), []byte{0x0f, 0x0b}) // ud2
	g.start.CPUs[0].IDT = x86.Table{}
	g.check(g.engine.SetState(g.start))
	err := g.run()
	if !errors.Is(err, x86.ErrTripleFault) {
		t.Fatalf("error %v, want a triple fault", err)
	}
	var stuck *x86.Stuck
	if !errors.As(err, &stuck) || stuck.CPU != 0 {
		t.Fatalf("%v does not say which CPU", err)
	}
	// AMD's processors lose them.
	if r := stuck.Registers; r == nil {
		t.Log("this host's processor leaves no registers after a shutdown")
	} else if r.GPR[x86.RBX] != 0x4242 || r.RIP != testCode+10 {
		t.Errorf("the registers are not those of the fault:\n%v", r)
	}
	// The other CPUs of such a machine are stopped, and it can be used anew.
	g.write(testCode, done)
	g.start.CPUs[0].IDT = x86.Table{Base: testIDT, Limit: 256*16 - 1}
	g.check(g.engine.SetState(g.start))
	g.mustRun()
}

// TestOtherCPUsStop: one CPU's failure ends the run of all.
func TestOtherCPUsStop(t *testing.T) {
	g := newGuest(t, 3, []byte{0xeb, 0xfe})
	g.everyCPU()
	c := &g.start.CPUs[1]
	c.RIP, c.IDT = testData, x86.Table{}
	g.write(testData, []byte{0x0f, 0x0b}) // ud2
	g.check(g.engine.SetState(g.start))
	var stuck *x86.Stuck
	if err := g.run(); !errors.Is(err, x86.ErrTripleFault) || !errors.As(err, &stuck) || stuck.CPU != 1 {
		t.Errorf("error %v, want CPU 1's triple fault", err)
	}
}

// TestNotEmulated: on a host that emulates CPL 0, the error names the
// instruction that it could not.
func TestNotEmulated(t *testing.T) {
	needKVM(t)
	if slow, err := emulates(); err != nil || !slow {
		t.Skipf("this host's KVM runs CPL 0 natively, it has nothing to emulate (%v)", err)
	}
	for want, program := range map[string][]byte{
		`"popcnt rax, rbx" (f3 48 0f b8 c3) at 0x30000, CPL 0`:    {0xf3, 0x48, 0x0f, 0xb8, 0xc3},
		`"xrstor ptr [rbx]" (0f ae 2b) at 0x30000, CPL 0`:         {0x0f, 0xae, 0x2b},
		`"cmpxchg16b xmmword ptr [rbx]" (48 0f c7 0b) at 0x30000`: {0x48, 0x0f, 0xc7, 0x0b},
	} {
		g := newGuest(t, 1, program)
		g.start.CPUs[0].GPR[x86.RBX] = testData
		g.check(g.engine.SetState(g.start))
		err := g.run()
		var stuck *x86.Stuck
		if !errors.Is(err, ErrNotEmulated) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want ErrNotEmulated with %q", err, want)
		} else if !errors.As(err, &stuck) || stuck.Registers == nil || stuck.Registers.RIP != testCode {
			t.Errorf("%v has not the registers", err)
		}
	}
}

// TestCodeAcrossPages: the bytes of an instruction that lies on two pages are
// found, and those that are not in RAM are not.
func TestCode(t *testing.T) {
	g := newGuest(t, 1, done)
	s := &g.start.CPUs[0]
	want := count(15)
	for _, at := range []uint64{testData, 2<<20 - 7, testRAM - 4} {
		n := 15
		if at+15 > testRAM {
			n = max(0, int(int64(testRAM)-int64(at)))
		}
		if n > 0 {
			g.write(at, want[:n])
		}
		s.RIP = at
		g.check(g.engine.SetState(g.start))
		if got := g.engine.vcpus[0].code(s); !slices.Equal(got, want[:n]) {
			t.Errorf("the code at %#x is % x, want % x", at, got, want[:n])
		}
	}
}

// TestUnknownExits: what KVM says and the engine doesn't know is an error with
// what it was and the registers.
func TestUnknownExits(t *testing.T) {
	g := newGuest(t, 1, done)
	c := g.engine.vcpus[0]
	for _, e := range []struct {
		reason uint32
		data   [2]uint64
		want   string
	}{
		{uint32(kvm.EXITDEBUG), [2]uint64{}, "exit 4 (EXITDEBUG) is not one that this engine knows"},
		{77, [2]uint64{}, "exit 77 (ExitType(77)) is not one that this engine knows"},
		{uint32(kvm.EXITFAILENTRY), [2]uint64{0x8000_0021}, "hardware reason 0x80000021"},
		{uint32(kvm.EXITINTERNALERROR), [2]uint64{3, 0xabc}, "internal error, suberror 3, data 0xabc"},
		{exitSystemEvent, [2]uint64{2}, "system event 2"},
	} {
		c.run.ExitReason, c.run.Data[0], c.run.Data[1] = e.reason, e.data[0], e.data[1]
		err := c.exit()
		var stuck *x86.Stuck
		if !errors.As(err, &stuck) || !strings.Contains(err.Error(), e.want) || stuck.Registers == nil || stuck.Registers.RIP != testCode {
			t.Errorf("exit %d: error %v, want one with %q and the registers", e.reason, err, e.want)
		}
	}
}

// TestUnavailable: each reason why there is no KVM has its own words.
func TestUnavailable(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for device, want := range map[string]string{
		"/nonexistent/kvm": "/nonexistent/kvm does not exist: load kvm_intel or kvm_amd",
		"/dev/null":        "/dev/null does not answer as KVM with API version 12: give the path of KVM's device",
		plain:              "does not answer as KVM",
		t.TempDir():        "is a directory",
	} {
		for name, f := range map[string]func() error{
			"New":   func() error { _, err := New(Config{Device: device, CPUs: 1}); return err },
			"Look":  func() error { _, err := Look(device); return err },
			"Speed": func() error { _, err := Speed(device, 0); return err },
		} {
			if err := f(); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s of %s: error %v, want ErrUnavailable with %q", name, device, err, want)
			} else if strings.Contains(err.Error(), "\n") {
				t.Errorf("%s of %s: the error has several lines: %q", name, device, err)
			}
		}
	}
}

// TestNoPermission opens a device as somebody who may not.
func TestNoPermission(t *testing.T) {
	device := filepath.Join(t.TempDir(), "kvm")
	if err := os.WriteFile(device, nil, 0); err != nil {
		t.Fatal(err)
	}
	err := asNobody(t, func() error { _, err := openDevice(device); return err })
	if want := "no permission to open " + device + ": add yourself to its group"; !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want ErrUnavailable with %q", err, want)
	}
}

// asNobody calls f on a thread that, if the test is root's, has lost root's
// right to open every file. The thread ends with it.
func asNobody(t *testing.T, f func() error) error {
	t.Helper()
	const nobody = 65534
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			_ = unix.Setfsuid(nobody) // of this thread only
		}
		result <- f()
	}()
	return <-result
}

// TestMissingCapability: an engine is not made on a KVM that lacks something,
// and the error names it.
func TestMissingCapability(t *testing.T) {
	g := newGuest(t, 1, done)
	needed = append(needed, needed[0])
	last := &needed[len(needed)-1]
	last.name, last.cap = "FROM_THE_FUTURE", 254
	defer func() { needed = needed[:len(needed)-1] }()
	_, err := New(g.cfg)
	if want := "this host's KVM lacks KVM_CAP_FROM_THE_FUTURE"; !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want ErrUnavailable with %q", err, want)
	}
	h, err := Look("")
	if err != nil || !slices.Equal(h.Capabilities, []string{"KVM_CAP_FROM_THE_FUTURE"}) {
		t.Errorf("missing are %v, %v", h.Capabilities, err)
	}
}

// TestSpeed: the probe gives a speed for either privilege level, CPL 3 native.
func TestSpeed(t *testing.T) {
	needKVM(t)
	for _, cpl := range []uint8{0, 3} {
		ns, err := Speed("", cpl)
		if err != nil || ns <= 0 {
			t.Errorf("CPL %d: %v ns, %v", cpl, ns, err)
		}
		t.Logf("CPL %d: %.3g ns an instruction", cpl, ns)
	}
}
