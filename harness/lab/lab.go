//go:build linux

// Package lab runs one command in a small virtual machine whose kernel offers
// a real KVM: Debian's stock kernel under QEMU, which emulates a CPU with AMD's
// virtualization. It is for hosts that have no KVM, or none that can run a
// Linux guest.
//
// The command gets what Config ships and u-root's commands; no disk, no
// network, no terminal. Its output and its exit status come back over a port
// of their own, so that they are exactly the command's. Each run is a new
// machine, and nothing of it is left when Run returns.
//
// The package needs QEMU, the go command and, the first time, apt. What it
// gets and builds it keeps in build/lab.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fifovm/harness/lab/wire"
	"fifovm/initramfs"
)

// Config says what to run, and in what machine.
type Config struct {
	// Command and its arguments. A name without a slash is looked for in
	// /bbin, /bin and /usr/bin.
	Command []string
	Env     []string // more environment, NAME=VALUE

	// Files are shipped to the lab. See QEMUFiles for one use.
	Files []initramfs.File

	// Fetch copies files out after the command: from the path in the lab to
	// the path here. A file that is missing is an error only where the
	// command succeeded.
	Fetch map[string]string

	CPUs      int // 0 is 1, the fastest for what needs no more
	MemoryMiB int // 0 is 2048, or more if the files need it

	Stdout io.Writer // nil discards, as for Stderr
	Stderr io.Writer

	// Timeout bounds the whole run; 0 is 10 minutes.
	Timeout time.Duration

	// Silence bounds how long nothing may come from a lab that has started;
	// 0 is a minute. A lab that lives sends a pulse every second.
	Silence time.Duration

	// Console keeps the lab's kernel console in that file, if set.
	Console string

	// Dir is the cache; "" is build/lab beside go.mod.
	Dir string

	// Log, if set, is told of steps that take long.
	Log func(format string, args ...any)
}

// Error says why the lab didn't run a command to its end. Where the command
// itself fails, there is a status and no error.
type Error struct {
	Reason  string
	Timeout bool   // the time was up
	Silent  bool   // nothing came from the lab any more, not even its pulse
	Console string // the end of the lab's kernel console, several lines
}

func (e *Error) Error() string { return "lab: " + e.Reason }

const (
	defaultTimeout = 10 * time.Minute
	defaultSilence = time.Minute     // for a busy host; a busy lab stays within seconds
	startTime      = 3 * time.Minute // for the lab's first word, which comes after seconds
	defaultMemory  = 2048            // MiB
	ownMemory      = 512             // MiB that the lab needs beside its files
	consoleTail    = 40              // lines in an Error
	panicLines     = 200             // lines of the console in which a panic is looked for

	// channel is the first port of the first virtio-serial device: 22 MB/s
	// where a 16550, with an exit for each byte, makes 0.9.
	channel = "/dev/vport0p1"
)

// modules are what the lab needs of the kernel's: KVM, and the channel.
var modules = []string{"kvm-amd", "virtio_pci", "virtio_console"}

// Run runs the command in a new lab, and returns its exit status: 128 and the
// number of the signal that killed it, 127 if it isn't there. A canceled ctx
// ends the lab at once.
func Run(ctx context.Context, c Config) (status int, err error) {
	if len(c.Command) == 0 {
		return 0, &Error{Reason: "no command given"}
	}
	qemu, err := findQEMU()
	if err != nil {
		return 0, &Error{Reason: err.Error()}
	}
	work, err := os.MkdirTemp("", "fifovm-lab-")
	if err != nil {
		return 0, &Error{Reason: err.Error()}
	}
	defer os.RemoveAll(work)

	kernel, image, err := prepare(ctx, &c, work)
	if err != nil {
		return 0, &Error{Reason: err.Error()}
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	runCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	console := c.Console
	if console == "" {
		console = filepath.Join(work, "console")
	}
	m := machine{
		qemu:    qemu,
		args:    arguments(&c, kernel, image, console),
		console: console,
		silence: c.Silence,
	}
	if m.silence == 0 {
		m.silence = defaultSilence
	}
	status, err = m.run(runCtx, receiver{stdout: c.Stdout, stderr: c.Stderr, fetch: c.Fetch})
	if err == nil {
		return status, nil
	}
	e := &Error{Reason: err.Error(), Console: tail(console, consoleTail)}
	switch {
	case ctx.Err() != nil:
		e.Reason = "interrupted"
	case runCtx.Err() != nil:
		e.Reason = fmt.Sprintf("no end after %v: killed", timeout)
		e.Timeout = true
	case errors.Is(err, errSilent):
		e.Silent = true
	default:
		// A panic is said before its registers and its call trace.
		if words := panicLine(tail(console, panicLines)); words != "" {
			e.Reason = "the lab's kernel died: " + words
		}
	}
	return 0, e
}

// panicLine returns the kernel's last words in a console, if it panicked.
func panicLine(console string) string {
	_, words, ok := strings.Cut(console, "Kernel panic - ")
	if !ok {
		return ""
	}
	words, _, _ = strings.Cut(words, "\n")
	return words
}

// prepare gets the kernel and writes the image.
func prepare(ctx context.Context, c *Config, work string) (*Kernel, string, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, "", err
	}
	kernel, err := FindKernel(ctx, c.Dir, c.Log)
	if err != nil {
		return nil, "", err
	}
	files, err := labFiles(ctx, c, kernel, root, work)
	if err != nil {
		return nil, "", err
	}
	base := filepath.Join(work, "base")
	if err := initramfs.Create(ctx, base, initramfs.Options{ModuleDir: root, Log: c.Log}); err != nil {
		return nil, "", err
	}
	image := filepath.Join(work, "image")
	if err := initramfs.Append(image, base, files); err != nil {
		return nil, "", err
	}
	info, err := os.Stat(image)
	if err != nil {
		return nil, "", err
	}
	// While the kernel unpacks the image, it is there twice.
	need := ownMemory + 2*int(info.Size()>>20)
	if c.MemoryMiB == 0 {
		c.MemoryMiB = max(defaultMemory, need)
	} else if c.MemoryMiB < need {
		return nil, "", fmt.Errorf("%d MiB of memory are too little for these files: give %d", c.MemoryMiB, need)
	}
	return kernel, image, nil
}

// labFiles returns what comes behind u-root in the image: init, its job, the
// modules, and the caller's files.
func labFiles(ctx context.Context, c *Config, kernel *Kernel, root, work string) ([]initramfs.File, error) {
	initPath := filepath.Join(work, "init")
	if err := buildInit(ctx, root, initPath); err != nil {
		return nil, err
	}
	ordered, err := kernel.loadOrder(modules...)
	if err != nil {
		return nil, err
	}
	job := wire.Job{
		Channel: channel,
		NeedKVM: true,
		Command: c.Command,
		Env:     c.Env,
		Fetch:   slices.Sorted(maps.Keys(c.Fetch)),
	}
	files := []initramfs.File{{Path: "/lab/init", Source: initPath, Mode: 0o755}}
	for _, m := range ordered {
		p := "/lab/modules/" + m.name + ".ko"
		files = append(files, initramfs.File{Path: p, Data: m.data})
		job.Modules = append(job.Modules, p)
	}
	b, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	files = append(files, initramfs.File{Path: wire.JobPath, Data: b})
	return append(files, c.Files...), nil
}

func buildInit(ctx context.Context, root, output string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", output, "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "./harness/lab/init")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the lab's init: %w%s", err, lastLine(out))
	}
	return nil
}

// moduleRoot returns the folder of the go.mod above the working folder.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no go.mod above %s: run this in fifovm's source tree", dir)
		}
	}
}

// arguments are QEMU's. The machine is the one that was measured to come up
// soonest: i440FX rather than q35, the kernel as an ELF file, one CPU.
func arguments(c *Config, kernel *Kernel, image, console string) []string {
	return []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "pc", "-accel", "tcg", "-cpu", "max,+svm,+npt",
		"-smp", strconv.Itoa(max(c.CPUs, 1)), "-m", strconv.Itoa(c.MemoryMiB),
		"-kernel", kernel.vmlinux, "-initrd", image,
		// panic=-1: a panic ends QEMU at once, which is how we see it.
		"-append", "console=ttyS0 quiet panic=-1 rdinit=/lab/init",
		"-serial", "file:" + console,
		"-chardev", "stdio,id=channel,signal=off",
		// event_idx=off: each byte of the heartbeat makes an interrupt, whether or
		// not that of the one before came (see heartbeat). With the index, a
		// device waits until the driver has taken what it was told of.
		"-device", "virtio-serial-pci,event_idx=off", "-device", "virtserialport,chardev=channel,name=lab",
	}
}

// machine is a QEMU process.
type machine struct {
	qemu    string
	args    []string
	console string
	silence time.Duration // see Config
}

// run starts QEMU and hands what comes from the lab to r. QEMU is gone when
// it returns.
func (m *machine) run(ctx context.Context, r receiver) (int, error) {
	frames, theirs, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer frames.Close()
	// Open to the last: at the end of its input QEMU would take the host for
	// gone, and the lab's writes would wait for ever.
	input, pulse, err := os.Pipe()
	if err != nil {
		theirs.Close()
		return 0, err
	}
	defer pulse.Close()
	go heartbeat(pulse)
	var stderr bytes.Buffer
	cmd := exec.Command(m.qemu, m.args...)
	cmd.Stdin = input
	cmd.Stdout = theirs
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// Not in our group: Ctrl-C is for us, and we end QEMU.
		Setpgid: true,
		// And if we get no chance to, the kernel does.
		Pdeathsig: syscall.SIGKILL,
	}
	started, done := make(chan error, 1), make(chan error, 1)
	go func() {
		// The death that Pdeathsig waits for is this thread's.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	err = <-started
	input.Close()
	theirs.Close()
	if err != nil {
		return 0, fmt.Errorf("start QEMU: %w", err)
	}
	// Killing an emulator loses nothing: the lab has no disk, and its last
	// word has arrived.
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	status, err := r.receive(wire.NewReader(&listener{frames, startTime, m.silence}))
	if err == nil || !errors.Is(err, io.EOF) {
		cmd.Process.Kill()
		<-done
		return status, err
	}
	waitErr := <-done
	if line := lastLine(stderr.Bytes()); line != "" {
		return 0, fmt.Errorf("QEMU failed%s", line)
	}
	if waitErr != nil {
		return 0, fmt.Errorf("QEMU failed: %w", waitErr)
	}
	return 0, errors.New("the machine stopped before the command ended")
}

// heartbeat sends the lab a byte now and then, for the interrupt that it makes,
// until pulse is closed. QEMU loses an interrupt once in some dozens of labs:
// its emulated VMRUN and #VMEXIT change the CPU's word of pending interrupts
// (target/i386/tcg/sysemu/svm_helper.c, interrupt_request) without the lock
// under which a timer does. If that was the timer that a sleeping kernel waits
// for, it sleeps for good; any later interrupt has QEMU look at the APIC again.
// Init's answers show that it works.
func heartbeat(pulse *os.File) {
	const period = 50 * time.Millisecond
	for tick := time.NewTicker(period); ; <-tick.C {
		// A lab that is not up yet, or busy, need not take it.
		if err := pulse.SetWriteDeadline(time.Now().Add(period)); err != nil {
			return
		}
		if _, err := pulse.Write([]byte{0}); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

var errSilent = errors.New("fell silent")

// listener reads what comes from the lab until it falls silent.
type listener struct {
	lab interface {
		io.Reader
		SetReadDeadline(time.Time) error
	}
	patience time.Duration // for the next byte
	silence  time.Duration // for those after it
}

// Read fails with errSilent where nothing comes.
func (l *listener) Read(p []byte) (n int, err error) {
	// Twice half the time: where this process was stopped itself, by Ctrl-Z say,
	// the deadline is over when it goes on, but the lab's words are there.
	for range 2 {
		if err := l.lab.SetReadDeadline(time.Now().Add(l.patience / 2)); err != nil {
			return 0, err
		}
		if n, err = l.lab.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
			l.patience = l.silence
			return n, err
		}
	}
	return 0, fmt.Errorf("%w: nothing came for %v", errSilent, l.patience)
}

// receiver takes what comes from the lab.
type receiver struct {
	stdout, stderr io.Writer
	fetch          map[string]string
}

// receive returns the command's status, io.EOF if none came, or errSilent.
func (r receiver) receive(frames *wire.Reader) (int, error) {
	var file *fetched
	defer func() { file.discard() }()
	for {
		kind, payload, err := frames.Next()
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, errSilent) {
				return 0, err
			}
			return 0, fmt.Errorf("read from the lab: %w", err)
		}
		switch kind {
		case wire.Ready, wire.Pulse:
		case wire.Stdout:
			err = writeAll(r.stdout, payload)
		case wire.Stderr:
			err = writeAll(r.stderr, payload)
		case wire.File:
			file.discard()
			file, err = newFetched(r.fetch[string(payload)])
		case wire.Data:
			if len(payload) > 0 {
				err = file.write(payload)
			} else {
				err = file.keep()
				file = nil
			}
		case wire.Failed:
			err = errors.New(string(payload))
		case wire.Exit:
			return wire.Status(payload)
		}
		if err != nil {
			return 0, err
		}
	}
}

func writeAll(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	if _, err := w.Write(p); err != nil {
		return fmt.Errorf("pass on the command's output: %w", err)
	}
	return nil
}

// fetched is a file on its way out of the lab. It appears whole or not at all.
type fetched struct {
	*os.File
	name string
}

func newFetched(name string) (*fetched, error) {
	if name == "" {
		return nil, errors.New("the lab sent a file that nobody asked for")
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	return &fetched{f, name}, nil
}

func (f *fetched) write(p []byte) error {
	if f == nil {
		return errors.New("the lab sent bytes of no file")
	}
	_, err := f.Write(p)
	return err
}

func (f *fetched) keep() error {
	if f == nil {
		return errors.New("the lab ended no file")
	}
	err := errors.Join(f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), f.name)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("fetch: %w", err)
	}
	return nil
}

// discard removes what came of a file that didn't end.
func (f *fetched) discard() {
	if f != nil {
		f.Close()
		os.Remove(f.Name())
	}
}

// tail returns the last n lines of a file that have something in them.
func tail(name string, n int) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	var lines []string
	for line := range strings.SplitSeq(string(b), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(len(lines)-n, 0):], "\n")
}
