package gdb

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fifovm/device/fifo"
	"fifovm/vmm/boot"
	"fifovm/vmm/debug"
	"fifovm/vmm/vmm"
)

// What gdb's test needs, built by make.
const (
	build      = "../../build/"
	kernelFile = build + "kernel/6.12/vmlinux"
	moduleFile = build + "driver/6.12/fifo_aio.ko"
	imageFile  = build + "guest.cpio"
)

// bound is for a gdb that gets no answer. It reads 100 MB of debug information.
const bound = time.Minute

// needed skips the test where a file is not there.
func needed(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if _, err := os.Stat(p); errors.Is(err, os.ErrNotExist) {
			t.Skipf("no %s: make image builds it", p)
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// lockedBuffer is a console.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// typed is what somebody types into the guest, some time after its start. The last
// CPU takes the device's interrupts.
var typed = []string{
	"for i in /proc/irq/*/smp_affinity; do echo $CPU >$i; done 2>/dev/null",
	"dd if=/dev/zero of=/dev/fifo0 bs=64 count=1",
	"cat /dev/fifo0 >/dev/null &",
	"echo the guest is well; poweroff",
}

// TestGDB has Debian's gdb debug the driver in a guest, from its load to a
// detach, after which the guest goes on to its end.
func TestGDB(t *testing.T) {
	if testing.Short() {
		t.Skip("boots Linux: left out of -short")
	}
	program, err := exec.LookPath("gdb")
	if err != nil {
		t.Skip("no gdb: apt-get install gdb")
	}
	needed(t, kernelFile, moduleFile, imageFile)
	for _, test := range []struct {
		name     string
		cpus     int
		commands []string
		want     []string
	}{
		{"from the load of the driver on", 1, []string{
			"break do_init_module", "continue", "print mod->name", "modules",
			"break fifo_read_iter", "continue",
			"backtrace 4", "print/x iocb->ki_flags", "print to->count", "info threads",
			"stepi", "info registers rip cr0 fs_base", "x/2i $pc",
			"break fifo_transfer", "continue", "next", "watch -location ring->stats.requests", "continue", "print stats->requests",
			"delete", "finish", "print $xmm0.uint128", "monitor nonsense", "modules", "detach",
		}, []string{
			`Breakpoint 1, do_init_module (mod=`, `= "fifo_aio"`, "fifo_aio: .text at 0x",
			"Breakpoint 2, fifo_read_iter (iocb=0x", "file.c:66\n", "vfs_read (file=", "= 32768\n", "CPU 0, CPL 0",
			"Breakpoint 3, fifo_transfer (iocb=0x", "Hardware watchpoint 4",
			"Old value = 0\nNew value = 1\n", "request.c:", "= 1\n", `there is no command "nonsense"`, "detached]",
		}},
		{"on two CPUs", 2, []string{
			"break do_init_module", "continue", "modules", "delete", "info threads",
			"break fifo_transfer", "continue", "delete",
			"break fifo_message", "continue", "echo interrupted\\n", "info threads", "backtrace 3", "print $_thread",
			"thread 1", "info registers rip", "print $_thread", "thread 2",
			"stepi", "print $_thread", "delete", "watch -location jiffies", "continue", "detach",
		}, []string{
			"Thread 1 (CPU 0", "Thread 2 (CPU 1", "hit Breakpoint 2, fifo_transfer (",
			"Thread 2 hit Breakpoint 3, fifo_message (irq=", "interrupted\n", "* 2    Thread 2 (CPU 1, CPL 0)", "handle_irq_event", "= 2\n",
			"[Switching to thread 1 (Thread 1)]", "= 1\n", "[Switching to thread 2 (Thread 2)]", "= 2\n",
			"Hardware watchpoint 4: -location jiffies", "detached]",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, console := debugLinux(t, program, test.cpus, test.commands)
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("gdb did not say %q", want)
				}
			}
			if !strings.Contains(console, "the guest is well\r\n") {
				t.Error("the guest was not well after it")
			}
			if t.Failed() || testing.Verbose() {
				t.Logf("gdb:\n%s\nconsole:\n%s", out, console)
			}
		})
	}
}

// debugLinux gives what gdb and the guest print. The guest has powered off then.
func debugLinux(t *testing.T, program string, cpus int, commands []string) (out, console string) {
	t.Helper()
	linux, err := debug.OpenLinux(kernelFile, moduleFile)
	if err != nil {
		t.Fatal(err)
	}
	var screen lockedBuffer
	session, done := startLinux(t, cpus, &screen)
	session.Pause()
	l, err := Listen("0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg := Config{Session: session, Linux: linux, ModuleScript: filepath.Join(dir, "modules.gdb")}
	served := make(chan error, 1)
	go func() { served <- Serve(t.Context(), l, cfg) }()
	script, err := Script(l.Addr(), kernelFile, build+"kernel/source/6.12", cfg.ModuleScript)
	if err != nil {
		t.Fatal(err)
	}
	init := filepath.Join(dir, "init.gdb")
	if err := os.WriteFile(init, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-nx", "-batch", "-x", init}
	for _, c := range commands {
		args = append(args, "-ex", c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	b, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("gdb: %v", err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the guest: %v", err)
		}
	case <-time.After(bound):
		t.Fatalf("the guest does not end; gdb:\n%s\nconsole:\n%s", b, &screen)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	return string(b), screen.String()
}

// startLinux runs a guest with the FIFO, in which somebody types. done gets an
// error unless it powers off.
func startLinux(t *testing.T, cpus int, console io.Writer) (s *debug.Session, done <-chan error) {
	t.Helper()
	k, err := boot.Open(kernelFile)
	if err != nil {
		t.Fatal(err)
	}
	model, err := fifo.New(fifo.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := vmm.Config{Engine: vmm.EngineSoft, CPUs: cpus, Memory: 256 << 20, Serial: [2]io.Writer{console},
		Devices: []vmm.Device{{Name: "fifo0", Model: model}}}
	for i, line := range typed {
		line = strings.ReplaceAll(line, "$CPU", strconv.FormatUint(1<<(cpus-1), 16))
		cfg.Input = append(cfg.Input, vmm.Input{When: int64(4*time.Second) + int64(i)*int64(200*time.Millisecond), Data: []byte(line + "\n")})
	}
	m, err := vmm.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := os.Open(imageFile)
	if err != nil {
		t.Fatal(err)
	}
	defer initrd.Close()
	info, err := initrd.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Load(vmm.Boot{Kernel: k, Initrd: io.NewSectionReader(initrd, 0, info.Size()), CommandLine: "console=ttyS0 panic=-1"}); err != nil {
		t.Fatal(err)
	}
	s = debug.New(m, k)
	ctx, cancel := context.WithCancel(t.Context())
	result, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		stop, err := s.Run(ctx)
		if err == nil && stop != vmm.PowerOff {
			err = errors.New("it ended by " + stop.String())
		}
		if e := m.Close(); err == nil { // the console has all after it
			err = e
		}
		result <- err
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return s, result
}
