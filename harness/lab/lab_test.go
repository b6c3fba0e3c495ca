//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"fifovm/harness/lab/wire"
	"fifovm/initramfs"
)

// fakeQEMU has a shell stand in for QEMU. A script in a file of its own would be
// "busy" now and then: a process that another test forks holds it open.
func fakeQEMU(script string) *machine {
	return &machine{qemu: "/bin/sh", args: []string{"-c", script}, silence: time.Hour}
}

// TestMachine: however QEMU ends, run returns soon and says what happened.
func TestMachine(t *testing.T) {
	tests := []struct {
		name, script string
		status       int
		stdout, err  string
	}{
		{"status and output", `printf 'r\0\0\0\0o\2\0\0\0hiq\4\0\0\0\007\0\0\0'`, 7, "hi", ""},
		// The lab's last word counts; QEMU is not waited for.
		{"stays after the end", `printf 'q\4\0\0\0\0\0\0\0'; exec sleep 100`, 0, "", ""},
		{"ends early", `printf 'r\0\0\0\0'`, 0, "", "stopped before the command ended"},
		{"says why it fails", `echo "qemu: cannot start" >&2; exit 1`, 0, "", "QEMU failed: qemu: cannot start"},
		{"fails", `exit 3`, 0, "", "QEMU failed: exit status 3"},
		{"init fails", `printf 'x\3\0\0\0bad'; exec sleep 100`, 0, "", "bad"},
		{"babbles", `echo babble; exec sleep 100`, 0, "", "unknown kind"},
		{"cut off", `printf 'o\9\0\0\0hi'`, 0, "", "cut off"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			var stdout bytes.Buffer
			status, err := fakeQEMU(tt.script).run(ctx, receiver{stdout: &stdout})
			if ctx.Err() != nil {
				t.Error("it took the whole time")
			}
			if status != tt.status || stdout.String() != tt.stdout {
				t.Errorf("status %d, output %q, want %d, %q", status, stdout.String(), tt.status, tt.stdout)
			}
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
		})
	}
	t.Run("hangs", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if _, err := fakeQEMU("exec sleep 100").run(ctx, receiver{}); err == nil {
			t.Error("no error")
		}
	})
	// Whatever came last, the listener gives up and QEMU is killed.
	for name, script := range map[string]string{
		"silent after ready":     `printf 'r\0\0\0\0'`,
		"silent after a pulse":   `printf 'r\0\0\0\0p\0\0\0\0'`,
		"silent in the header":   `printf 'r\0\0\0\0o\9'`,
		"silent in the payload":  `printf 'r\0\0\0\0o\9\0\0\0hi'`,
		"silent, deaf to SIGINT": `trap '' INT TERM; printf 'r\0\0\0\0'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			m := fakeQEMU(script + "; exec sleep 100")
			m.silence = 10 * time.Millisecond
			if _, err := m.run(ctx, receiver{}); !errors.Is(err, errSilent) {
				t.Errorf("got error %v, want %v", err, errSilent)
			}
			if ctx.Err() != nil {
				t.Error("it took the whole time")
			}
		})
	}
	t.Run("absent", func(t *testing.T) {
		m := machine{qemu: "/does/not/exist"}
		if _, err := m.run(context.Background(), receiver{}); err == nil {
			t.Error("no error")
		}
	})
}

// TestListener: what has a pulse lives, and what has none is given up at the
// bound, to the nanosecond.
func TestListener(t *testing.T) {
	const start, silence = 10 * time.Second, 4 * time.Second
	type word struct {
		after time.Duration // the one before
		kind  wire.Kind
	}
	for _, tt := range []struct {
		name  string
		words []word
		end   time.Duration // when it is given up; 0: not at all
	}{
		{"never starts", nil, start},
		{"starts late", []word{{start - 1, wire.Ready}, {0, wire.Exit}}, 0},
		{"starts and dies", []word{{time.Second, wire.Ready}}, time.Second + silence},
		{"a slow pulse", []word{{0, wire.Ready}, {silence - 1, wire.Pulse}, {silence - 1, wire.Pulse}, {silence - 1, wire.Exit}}, 0},
		{"the pulse ends", []word{{0, wire.Ready}, {silence - 1, wire.Pulse}, {silence + 1, wire.Exit}}, 2*silence - 1},
		{"output is life too", []word{{0, wire.Ready}, {silence - 1, wire.Stdout}, {silence - 1, wire.Stderr}, {silence - 1, wire.Exit}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				host, qemu := net.Pipe()
				said := make(chan struct{})
				go func() {
					defer close(said)
					w := wire.NewWriter(qemu)
					for _, word := range tt.words {
						time.Sleep(word.after)
						if word.kind == wire.Exit {
							w.SendExit(0)
						} else {
							w.Send(word.kind, nil)
						}
					}
				}()
				_, err := receiver{}.receive(wire.NewReader(&listener{host, start, silence}))
				if tt.end == 0 && err != nil || tt.end != 0 && !errors.Is(err, errSilent) {
					t.Errorf("got error %v", err)
				}
				if d := time.Since(began); tt.end != 0 && d != tt.end {
					t.Errorf("given up after %v, want %v", d, tt.end)
				}
				host.Close()
				<-said
			})
		})
	}
}

// stopped is a lab whose word comes while this process is stopped: it goes on
// when the deadline is over.
type stopped struct{ reads int }

func (s *stopped) SetReadDeadline(time.Time) error { return nil }

func (s *stopped) Read(p []byte) (int, error) {
	if s.reads++; s.reads == 1 {
		return 0, os.ErrDeadlineExceeded
	}
	return copy(p, "x"), nil
}

func TestListenerStopped(t *testing.T) {
	n, err := (&listener{&stopped{}, time.Hour, time.Hour}).Read(make([]byte, 1))
	if n != 1 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

func TestFetch(t *testing.T) {
	dir := t.TempDir()
	fetch := map[string]string{"/a": filepath.Join(dir, "a"), "/b": filepath.Join(dir, "b")}
	send := func(f func(w *wire.Writer)) (int, error) {
		var b bytes.Buffer
		f(wire.NewWriter(&b))
		return receiver{fetch: fetch}.receive(wire.NewReader(&b))
	}
	long := bytes.Repeat([]byte("x"), wire.MaxPayload+1)
	status, err := send(func(w *wire.Writer) {
		w.Send(wire.File, []byte("/a"))
		w.Send(wire.Data, long)
		w.Send(wire.Data, nil)
		w.Send(wire.File, []byte("/b"))
		w.Send(wire.Data, nil)
		w.SendExit(3)
	})
	if status != 3 || err != nil {
		t.Fatalf("status %d, %v", status, err)
	}
	if b, err := os.ReadFile(fetch["/a"]); err != nil || !bytes.Equal(b, long) {
		t.Errorf("a: %d bytes, %v", len(b), err)
	}
	if b, err := os.ReadFile(fetch["/b"]); err != nil || len(b) != 0 {
		t.Errorf("b: %d bytes, %v", len(b), err)
	}

	// What doesn't end doesn't change what is there, and leaves nothing.
	_, err = send(func(w *wire.Writer) {
		w.Send(wire.File, []byte("/a"))
		w.Send(wire.Data, []byte("half"))
	})
	if !errors.Is(err, io.EOF) {
		t.Errorf("half a file: %v", err)
	}
	if b, _ := os.ReadFile(fetch["/a"]); !bytes.Equal(b, long) {
		t.Error("half a file took the place of a whole one")
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("left behind: %v", files)
	}
	for name, f := range map[string]func(w *wire.Writer){
		"not asked for": func(w *wire.Writer) { w.Send(wire.File, []byte("/etc/passwd")) },
		"bytes of none": func(w *wire.Writer) { w.Send(wire.Data, []byte("x")) },
		"end of none":   func(w *wire.Writer) { w.Send(wire.Data, nil) },
	} {
		if _, err := send(f); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestPanicLine(t *testing.T) {
	for console, want := range map[string]string{
		"":                          "",
		"[ 1.0] reboot: Power down": "",
		"[ 1.0] Kernel panic - not syncing: Attempted to kill init!\n[ 1.1] CPU: 0": "not syncing: Attempted to kill init!",
	} {
		if got := panicLine(console); got != want {
			t.Errorf("%q: got %q, want %q", console, got, want)
		}
	}
}

func TestTail(t *testing.T) {
	p := filepath.Join(t.TempDir(), "console")
	if err := os.WriteFile(p, []byte("one\r\n\r\ntwo\r\nthree\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := tail(p, 2); got != "two\nthree" {
		t.Errorf("got %q", got)
	}
	if got := tail(p+"x", 2); got != "" {
		t.Errorf("of no file: got %q", got)
	}
}

func TestQEMUFiles(t *testing.T) {
	needQEMU(t)
	files, err := QEMUFiles()
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	for _, want := range []string{"/usr/bin/qemu-system-x86_64", "/usr/share/qemu/bios-microvm.bin", "/lib64/ld-linux-x86-64.so.2"} {
		if !slices.Contains(paths, want) {
			t.Errorf("no %s", want)
		}
	}
	if !slices.ContainsFunc(paths, func(p string) bool { return strings.HasPrefix(filepath.Base(p), "libc.so") }) {
		t.Error("no C library")
	}
	if err := initramfs.WriteFiles(io.Discard, files); err != nil {
		t.Error(err)
	}
}

func needQEMU(t *testing.T) {
	t.Helper()
	if _, err := findQEMU(); err != nil {
		t.Skip(err)
	}
}

// needLab skips a test that needs the lab itself, which takes seconds.
func needLab(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a lab: left out by -short")
	}
	needQEMU(t)
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("no apt-get, from which the lab has its kernel")
	}
}

func TestLab(t *testing.T) {
	needLab(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "kvm")
	build := exec.Command("go", "build", "-o", program, "./testdata/kvm")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	t.Run("KVM works and all comes back", func(t *testing.T) {
		var stdout, stderr bytes.Buffer
		out := filepath.Join(dir, "out")
		status, err := Run(context.Background(), Config{
			Command: []string{"/kvm", "a b", "c"},
			Env:     []string{"GREETING=hello"},
			Files:   []initramfs.File{{Path: "/kvm", Source: program}},
			Fetch:   map[string]string{"/tmp/out": out},
			Stdout:  &stdout,
			Stderr:  &stderr,
			Timeout: 2 * time.Minute,
			Log:     t.Logf,
		})
		if err != nil {
			t.Fatal(err)
		}
		if status != 7 {
			t.Errorf("status %d, want 7", status)
		}
		if got, want := stdout.String(), "api 12, GREETING=hello, args [\"a b\" \"c\"]\n"; got != want {
			t.Errorf("stdout %q, want %q", got, want)
		}
		if got, want := stderr.String(), "to stderr\n"; got != want {
			t.Errorf("stderr %q, want %q", got, want)
		}
		if b, err := os.ReadFile(out); string(b) != "fetched\x00\r\n" {
			t.Errorf("fetched %q, %v", b, err)
		}
	})

	tests := []struct {
		name    string
		command []string
		cpus    int
		status  int
		stdout  string
		err     string
	}{
		{"modules and CPUs", []string{"sh", "-c", "grep -q kvm_amd /proc/modules && cat /sys/devices/system/cpu/online"}, 2, 0, "0-1\n", ""},
		{"killed by a signal", []string{"sh", "-c", "echo before; kill -9 $$"}, 1, 137, "before\n", ""},
		{"no such command", []string{"frobnicate"}, 1, 127, "", ""},
		{"kernel panic", []string{"sh", "-c", "echo c >/proc/sysrq-trigger"}, 1, 0, "", "kernel died: not syncing: sysrq"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout bytes.Buffer
			status, err := Run(context.Background(), Config{
				Command: tt.command,
				CPUs:    tt.cpus,
				Stdout:  &stdout,
				Timeout: 2 * time.Minute,
			})
			if status != tt.status || stdout.String() != tt.stdout {
				t.Errorf("status %d, output %q, want %d, %q", status, stdout.String(), tt.status, tt.stdout)
			}
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
		})
	}

	t.Run("time is up", func(t *testing.T) {
		start := time.Now()
		_, err := Run(context.Background(), Config{Command: []string{"sleep", "1000"}, Timeout: 2 * time.Second})
		var e *Error
		if !errors.As(err, &e) || !e.Timeout {
			t.Errorf("got %v, want a timeout", err)
		}
		if d := time.Since(start); d > time.Minute {
			t.Errorf("took %v", d)
		}
	})

	// Longer than the silence that is allowed: the pulse comes.
	t.Run("quiet but alive", func(t *testing.T) {
		status, err := Run(context.Background(), Config{Command: []string{"sleep", "8"}, Silence: 6 * time.Second, Timeout: 2 * time.Minute})
		if status != 0 || err != nil {
			t.Errorf("status %d, %v", status, err)
		}
	})

	// QEMU stopped is a machine without an interrupt.
	t.Run("silent", func(t *testing.T) {
		freeze := writerFunc(func(p []byte) (int, error) {
			for pid, name := range children(t) {
				if strings.HasPrefix(name, "qemu") {
					if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
						t.Error(err)
					}
				}
			}
			return len(p), nil
		})
		_, err := Run(context.Background(), Config{
			Command: []string{"sh", "-c", "echo now; sleep 1000"},
			Stdout:  freeze,
			Silence: 4 * time.Second,
			Timeout: 2 * time.Minute,
		})
		var e *Error
		if !errors.As(err, &e) || !e.Silent || e.Timeout {
			t.Errorf("got %v, want a silence", err)
		}
	})

	t.Run("too little memory", func(t *testing.T) {
		_, err := Run(context.Background(), Config{Command: []string{"true"}, MemoryMiB: 64})
		if err == nil || !strings.Contains(err.Error(), "too little") {
			t.Errorf("got %v", err)
		}
	})
	if left := children(t); len(left) > 0 {
		t.Errorf("processes left behind: %v", left)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// children returns this process's living children and their names.
func children(t *testing.T) map[int]string {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	names := map[int]string{}
	for _, l := range lists {
		b, err := os.ReadFile(l)
		if err != nil {
			continue // a thread that has ended
		}
		for pid := range strings.FieldsSeq(string(b)) {
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := os.ReadFile("/proc/" + pid + "/comm")
			names[n] = strings.TrimSpace(string(name))
		}
	}
	return names
}

// TestNestedQEMU: Debian's QEMU runs a kernel on the lab's KVM.
func TestNestedQEMU(t *testing.T) {
	needLab(t)
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	kernel := filepath.Join(root, "build", "kernel", "6.12", "vmlinux")
	if _, err := os.Stat(kernel); err != nil {
		t.Skipf("no guest kernel: %v", err)
	}
	files, err := QEMUFiles()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	status, err := Run(context.Background(), Config{
		Command: []string{"qemu-system-x86_64", "-M", "pc", "-enable-kvm", "-cpu", "max", "-m", "64", "-nodefaults",
			"-no-user-config", "-nographic", "-serial", "stdio", "-no-reboot", "-kernel", "/vmlinux",
			"-append", "console=ttyS0 panic=-1"},
		Files:   append(files, initramfs.File{Path: "/vmlinux", Source: kernel}),
		Stdout:  &stdout,
		Stderr:  &stderr,
		Timeout: 3 * time.Minute,
	})
	if err != nil || status != 0 {
		t.Fatalf("status %d, %v, stderr %s", status, err, stderr.String())
	}
	// Without an initrd, the end of the boot is the kernel's despair.
	for _, want := range []string{"Linux version 6.12", "Kernel panic"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in the guest's console:\n%s", want, stdout.String())
		}
	}
}
