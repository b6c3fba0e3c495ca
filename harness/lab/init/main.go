//go:build linux

// Command init is process 1 of the KVM lab: it mounts what a program expects,
// loads the modules, runs one command, sends its output and status to the
// host, and switches the machine off. It knows nothing else; package lab is
// the host's side.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fifovm/harness/lab/wire"
)

const (
	channelWait = 10 * time.Second // for the channel's device to appear
	outputWait  = time.Second      // for processes that the command left behind
	pulsePeriod = time.Second
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this is the KVM lab's process 1, not a program to run")
		os.Exit(2)
	}
	if err := run(); err != nil {
		// The console is in the host's log.
		fmt.Println("lab init:", err)
	}
	unix.Sync()
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Println("lab init: power off:", err)
	select {}
}

func run() error {
	if err := mountAll(); err != nil {
		return err
	}
	job, err := readJob()
	if err != nil {
		return err
	}
	for _, m := range job.Modules {
		if err := loadModule(m); err != nil {
			return err
		}
	}
	channel, err := openChannel(job.Channel)
	if err != nil {
		return err
	}
	// Process 1 doesn't end, and the machine's end closes everything.
	out := wire.NewWriter(channel)
	go pulse(channel, out)
	status, err := do(job, out)
	if err != nil {
		return errors.Join(err, out.Send(wire.Failed, []byte(err.Error())), drain(channel))
	}
	return errors.Join(out.SendExit(status), drain(channel))
}

// do runs the command and sends all but the last frame.
func do(job *wire.Job, out *wire.Writer) (int, error) {
	if job.NeedKVM {
		if err := checkKVM(); err != nil {
			return 0, err
		}
	}
	if err := out.Send(wire.Ready, nil); err != nil {
		return 0, err
	}
	status, err := runCommand(job, out)
	if err != nil {
		return 0, err
	}
	for _, name := range job.Fetch {
		if err := sendFile(out, name); err != nil {
			// The command may have failed before it could write the file;
			// its status says more than this.
			if status == 0 || !errors.Is(err, os.ErrNotExist) {
				return 0, err
			}
		}
	}
	return status, nil
}

func mountAll() error {
	mounts := []struct{ fstype, target, options string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", "ptmxmode=666"},
		{"tmpfs", "/dev/shm", ""},
		{"tmpfs", "/tmp", ""},
		{"debugfs", "/sys/kernel/debug", ""},
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, 0, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

func readJob() (*wire.Job, error) {
	b, err := os.ReadFile(wire.JobPath)
	if err != nil {
		return nil, err
	}
	var job wire.Job
	if err := json.Unmarshal(b, &job); err != nil {
		return nil, fmt.Errorf("%s: %w", wire.JobPath, err)
	}
	if len(job.Command) == 0 {
		return nil, fmt.Errorf("%s: no command", wire.JobPath)
	}
	return &job, nil
}

func loadModule(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", name, err)
	}
	return nil
}

func openChannel(name string) (*os.File, error) {
	// The port appears when the device has answered its driver.
	deadline := time.Now().Add(channelWait)
	for {
		f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
		if err == nil {
			return f, setRaw(f)
		}
		if time.Now().After(deadline) {
			return nil, err
		}
		time.Sleep(time.Millisecond)
	}
}

// pulse answers the host's heartbeat, to show that this machine lives: that its
// interrupts come, since bytes of the heartbeat did, and that its timer does,
// since a tick ended the wait.
func pulse(channel io.Reader, out *wire.Writer) {
	heard := make(chan struct{}, 1)
	go func() {
		// Without a pause: bytes that are not read fill the device's queue, and
		// then it makes no interrupt.
		buf := make([]byte, 512)
		for {
			if _, err := channel.Read(buf); err != nil {
				return
			}
			select {
			case heard <- struct{}{}:
			default:
			}
		}
	}()
	for range time.Tick(pulsePeriod) {
		<-heard
		if err := out.Send(wire.Pulse, nil); err != nil {
			return
		}
	}
}

// setRaw keeps a terminal from changing bytes; other devices don't.
func setRaw(f *os.File) error {
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if errors.Is(err, unix.ENOTTY) {
		return nil
	}
	if err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	return unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}

// drain waits until the device has taken what was written.
func drain(f *os.File) error {
	err := unix.IoctlSetInt(int(f.Fd()), unix.TCSBRK, 1)
	if errors.Is(err, unix.ENOTTY) {
		return nil
	}
	return err
}

func checkKVM() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("the lab's kernel offers no KVM: %w", err)
	}
	return f.Close()
}

func runCommand(job *wire.Job, out *wire.Writer) (int, error) {
	if err := os.Setenv("PATH", "/bbin:/bin:/usr/bin"); err != nil {
		return 0, err
	}
	path, err := exec.LookPath(job.Command[0])
	if err != nil {
		return notFound(job.Command[0], err, out)
	}
	stdout, stdoutDone, err := pipeTo(out.Stream(wire.Stdout))
	if err != nil {
		return 0, err
	}
	stderr, stderrDone, err := pipeTo(out.Stream(wire.Stderr))
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	p, err := os.StartProcess(path, job.Command, &os.ProcAttr{
		Env:   append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "TERM=dumb", "TMPDIR=/tmp"}, job.Env...),
		Files: []*os.File{null, stdout, stderr},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	stdout.Close()
	stderr.Close()
	if err != nil {
		return notFound(job.Command[0], err, out)
	}
	ws, err := reap(p.Pid)
	if err != nil {
		return 0, err
	}
	// What runs on may hold the pipes open.
	timeout := time.After(outputWait)
	for _, done := range []<-chan struct{}{stdoutDone, stderrDone} {
		select {
		case <-done:
		case <-timeout:
		}
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

// notFound reports a command that can't be started, with a shell's status.
func notFound(name string, err error, out *wire.Writer) (int, error) {
	var e *exec.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	message := fmt.Sprintf("lab: cannot run %s: %v\n", name, err)
	return 127, out.Send(wire.Stderr, []byte(message))
}

// pipeTo returns a pipe's end to write to, and copies what comes to w.
func pipeTo(w io.Writer) (*os.File, <-chan struct{}, error) {
	r, end, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Not io.Copy: it might splice. A frame for each read keeps the
		// output live.
		buf := make([]byte, wire.MaxPayload)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				if _, err := w.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	return end, done, nil
}

// reap waits for the process pid, and buries the orphans that process 1 gets.
func reap(pid int) (unix.WaitStatus, error) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for the command: %w", err)
		}
		if got == pid {
			return ws, nil
		}
	}
}

func sendFile(out *wire.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	defer f.Close()
	if err := out.Send(wire.File, []byte(name)); err != nil {
		return err
	}
	buf := make([]byte, wire.MaxPayload)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			if err := out.Send(wire.Data, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return out.Send(wire.Data, nil)
		}
		if err != nil {
			return fmt.Errorf("fetch: %w", err)
		}
	}
}
