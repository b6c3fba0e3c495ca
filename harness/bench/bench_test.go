package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fifovm/device/edu"
	"fifovm/device/fifo"
	"fifovm/harness"
	"fifovm/vmm/vmm"
)

// file makes a file for a test.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// devices are one of each.
func devices() []vmm.Device {
	f, err := fifo.New(fifo.Config{})
	if err != nil {
		panic(err) // the defaults go together
	}
	return []vmm.Device{{Name: "edu0", Model: edu.New(edu.Config{})}, {Name: "fifo0", Model: f}}
}

// module is the FIFO's driver for kernel 6.12, as make has built it.
func module(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it boots guests")
	}
	for _, path := range []string{"../../build/kernel/6.12/vmlinux", "../../build/guest.cpio"} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%v: run `make image`", err)
		}
	}
	found, err := filepath.Glob("../../build/modules/6.12*fifovm/fifo_aio.ko")
	if err != nil || len(found) != 1 {
		t.Skipf("there are %d drivers for kernel 6.12, %v: run `make image`", len(found), err)
	}
	return found[0]
}

// TestRun runs programs of its own with a module of its own, on the image that is
// there; what is in that image is not run.
func TestRun(t *testing.T) {
	ko := module(t)
	good := file(t, "good", `#!/bbin/gosh
if [ "$1" = --list ]; then echo timeout; echo words; exit 0; fi
echo 1..2
if grep -q 1234 /sys/module/fifo_aio/parameters/timeout_ms; then echo ok 1 timeout; else echo not ok 1 timeout; fi
cat /proc/cmdline
if grep -q "fifovm.cpus=2 fifovm.memory=256 fifovm.seed=7 .*fifovm.tests=/bench more" /proc/cmdline; then echo ok 2 words; else echo not ok 2 words; fi
`)
	bad := file(t, "bad", "#!/bbin/gosh\nif [ \"$1\" = --list ]; then echo it; exit 0; fi\necho 1..1; echo '# bad.c:7: planted'; echo not ok 1 it; exit 1\n")
	b := Bench{Modules: []string{ko + ",timeout_ms=1234"}, Tests: []string{good, bad}, Devices: devices,
		Engine: vmm.EngineSoft, CPUs: 2, Memory: 256 << 20, Seed: 7, Append: "more"}
	results, err := b.Run(t.Context(), Selection{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range results {
		got = append(got, r.Verdict.String()+" "+r.Name()+" "+r.Where)
		t.Log(r.Name(), r.Kind, r.Reason)
	}
	want := "failed bad/it bad.c:7, passed good/timeout , passed good/words "
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("results %q, want %q; output %q", text, want, results[len(results)-1].Output)
	}

	t.Run("as Go's tests", func(t *testing.T) {
		b.Tests = []string{good}
		Test(t, b)
	})
	t.Run("a fault that never fires", func(t *testing.T) {
		b.Tests, b.Faults = []string{good}, []string{"edu0/irq:drop@7"}
		results, err := b.Run(t.Context(), Selection{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(results); n == 0 || harness.Count(results, harness.Failed) != 1 || results[n-1].Kind != harness.KindInvalid {
			t.Errorf("results %+v", results)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Run(ctx, Selection{}, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
	t.Run("a module that does not load", func(t *testing.T) {
		b.Faults, b.Modules = nil, []string{file(t, "junk.ko", "junk") + ",a=1,b=2"}
		results, err := b.Run(t.Context(), Selection{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(results) == 0 || results[0].Kind != harness.KindModule || !strings.Contains(results[0].Reason, `junk.ko "a=1 b=2" does not load: Exec format error`) {
			t.Errorf("results %+v", results)
		}
	})
}

// What can't work is said before anything runs.
func TestErrors(t *testing.T) {
	kernels := t.TempDir()
	here := file(t, "here", "")
	for _, test := range []struct {
		name string
		b    Bench
		want string
	}{
		{"engine", Bench{Engine: "warp"}, `engine "warp"`},
		{"kernel", Bench{Build: kernels, Kernel: "5"}, `kernel "5": boot: ` + kernels},
		{"module", Bench{Modules: []string{"/nowhere/x.ko,a=1"}}, "module: stat /nowhere/x.ko: no such file"},
		{"folder", Bench{Modules: []string{kernels}}, "is no regular file"},
		{"space", Bench{Modules: []string{"x.ko,a=1 b=2"}}, "there can't be space"},
		{"same name", Bench{Tests: []string{here, file(t, "here", "")}}, "would have the same name"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var err error
			if test.b.Engine != "" || test.b.Kernel != "" {
				_, err = test.b.Open()
			} else {
				_, _, err = Archive(test.b.Modules, test.b.Tests)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func TestSelection(t *testing.T) {
	for _, test := range []struct {
		run        string
		skip       int
		name       string
		all, match bool
	}{
		{run: "TestCard", skip: 1, all: true},
		{run: "", skip: 1, all: true},
		{run: "TestCard/a|b", skip: 1, all: true},
		{run: "TestCard/card", skip: 1, name: "card/irq", match: true},
		{run: "TestCard/card", skip: 1, name: "other/card"},
		{run: "TestCard/car", skip: 1, name: "mycard/irq", match: true},
		{run: "TestCard/^car$", skip: 1, name: "card/irq"},
		{run: "TestCard/card/irq", skip: 1, name: "card/irqs", match: true},
		{run: "TestCard/card/^irq$", skip: 1, name: "card/irqs"},
		{run: "TestCard/card/dma", skip: 1, name: "card/irq"},
		{run: "TestCard/card/dma", skip: 1, name: "card", match: true},
		{run: "TestCard/6.12/card/dma", skip: 2, name: "card/dma", match: true},
	} {
		re := selection(test.run, test.skip)
		if (re == nil) != test.all || re != nil && re.MatchString(test.name) != test.match {
			t.Errorf("-run %s, %d elements before: %v of %s", test.run, test.skip, re, test.name)
		}
	}
}
