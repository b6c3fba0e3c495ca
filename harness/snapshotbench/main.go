//go:build linux

// Command snapshotbench measures snapshots on engine soft, where tests begin: the
// driver is loaded, and the agent waits. It tells how long a machine takes from its
// file to the guest's first instruction, how long a reset takes after so many pages
// have been written to, and what a further machine that runs a test costs in memory;
// beside the time that QEMU's -loadvm takes with the same kernel, image, words and
// memory under its emulation.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"fifovm/device/edu"
	"fifovm/device/fifo"
	"fifovm/harness"
	"fifovm/vmm/boot"
	"fifovm/vmm/memory"
	"fifovm/vmm/snapshot"
	"fifovm/vmm/vmm"
)

const (
	megabytes = 512
	words     = harness.KernelWords
	// ready is what the agent says when it waits for tests, on the second serial
	// port; test is what a further machine runs, and ends is how that is told.
	ready = "fifovm-agent 1"
	test  = "fifo_io sizes large vectors order nonblock direct"
	ends  = "ok 1 fifo_io"
	bound = 2 * time.Minute // of anything here
)

func main() {
	rounds := flag.Int("n", 15, "rounds")
	kernel := flag.String("kernel", "build/kernel/6.12/vmlinux", "ELF `file`")
	image := flag.String("image", "build/guest.cpio", "initial RAM disk `file`")
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 {
		fmt.Fprintln(os.Stderr, "snapshotbench: no arguments, and -n of 1 or more; see -help")
		os.Exit(2)
	}
	if err := run(*rounds, *kernel, *image); err != nil {
		fmt.Fprintf(os.Stderr, "snapshotbench: %v\n", err)
		os.Exit(1)
	}
}

func run(rounds int, kernel, image string) (err error) {
	dir, err := os.MkdirTemp("", "snapshotbench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 10*bound)
	defer cancel()
	name := filepath.Join(dir, "machine")
	if err := save(ctx, name, kernel, image); err != nil {
		return err
	}
	qemu, err := newQEMU(ctx, dir, kernel, image)
	if err != nil {
		return fmt.Errorf("QEMU: %w", err)
	}
	var ours, theirs []float64
	for range 1 + rounds { // the first one fills the caches
		a, err := restore(name)
		if err != nil {
			return err
		}
		b, err := qemu.load(ctx)
		if err != nil {
			return fmt.Errorf("QEMU: %w", err)
		}
		ours, theirs = append(ours, a), append(theirs, b)
	}
	ours, theirs = ours[1:], theirs[1:]
	fmt.Printf("restore_ms: %.2f\n", median(ours))
	fmt.Printf("restore_worst_ms: %.2f\n", slices.Max(ours))
	fmt.Printf("qemu_loadvm_ms: %.1f\n", median(theirs))
	fmt.Printf("loadvm_ratio: %.0f\n", median(theirs)/median(ours))
	return inProcess(ctx, name, rounds)
}

func devices() ([]vmm.Device, error) {
	f, err := fifo.New(fifo.Config{})
	return []vmm.Device{{Name: "edu", Model: edu.New(edu.Config{})}, {Name: "fifo", Model: f}}, err
}

// agent is the host's end of the second serial port: each line goes to said, which
// tells what to answer before the guest goes on, if anything, and whether it is to.
type agent struct {
	machine *vmm.Machine
	said    func(line string) (answer string, on bool)
	line    []byte
}

func (a *agent) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != '\n' {
			a.line = append(a.line, b)
			continue
		}
		answer, on := a.said(string(a.line))
		a.line = a.line[:0]
		if answer != "" {
			if _, err := io.WriteString(a.machine.Serial(1), answer+"\n"); err != nil {
				return 0, err
			}
		}
		if on {
			a.machine.Listen()
		}
	}
	return len(p), nil
}

// until gives an agent that runs a guest until a line, and then cancels.
func until(line string, cancel func(), found *bool) *agent {
	return &agent{said: func(l string) (string, bool) {
		if l == line {
			*found = true
			cancel()
			return "", false
		}
		if strings.HasPrefix(strings.TrimSpace(l), "# host: ") {
			return "host ok", true
		}
		return "", true
	}}
}

// save boots a guest and saves it when it is ready.
func save(ctx context.Context, name, kernel, image string) (err error) {
	k, err := boot.Open(kernel)
	if err != nil {
		return err
	}
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	d, err := devices()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	up := false
	a := until(ready, cancel, &up)
	m, err := vmm.New(vmm.Config{Engine: vmm.EngineSoft, CPUs: 1, Memory: megabytes << 20, Seed: 1, Devices: d, Serial: [2]io.Writer{nil, a}})
	if err != nil {
		return err
	}
	a.machine = m
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := m.Load(vmm.Boot{Kernel: k, Initrd: io.NewSectionReader(f, 0, info.Size()), CommandLine: words}); err != nil {
		return err
	}
	m.Converse(1)
	if _, err := m.Run(ctx); err != nil {
		return err
	}
	m.Flush(1)
	if !up {
		return errors.New("the guest does not get ready")
	}
	return snapshot.Save(name, m, snapshot.Info{Program: "snapshotbench"})
}

// restore is the time from the file to the guest's first instruction, in ms.
func restore(name string) (ms float64, err error) {
	d, err := devices()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	f, err := snapshot.Open(name)
	if err != nil {
		return 0, err
	}
	m, err := f.Machine(vmm.Config{Devices: d})
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	m.Listen() // its agent waits for a host
	// The first of all that the guest does, and little more.
	if err := m.SetDebug(firstInstruction); err != nil {
		return 0, err
	}
	_, err = m.Run(context.Background())
	ms = since(start)
	if !stepped(err) {
		return 0, fmt.Errorf("the first instruction: %w", err)
	}
	return ms, errors.Join(m.Close(), f.Close())
}

func inProcess(ctx context.Context, name string, rounds int) (err error) {
	f, err := snapshot.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	worker := func() (*vmm.Machine, error) {
		d, err := devices()
		if err != nil {
			return nil, err
		}
		return f.Machine(vmm.Config{Devices: d})
	}
	m, err := worker()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	for _, pages := range []int{100, 1000, 10000} {
		var all []float64
		for range 3 * rounds {
			for p := range uint64(pages) {
				// Every third page, as what a guest writes to is scattered.
				if err := m.RAM().Write(p*3*memory.PageSize+64, []byte("a guest has been here")); err != nil {
					return err
				}
			}
			if n := m.Dirty(); n != pages {
				return fmt.Errorf("%d pages are dirty, not %d", n, pages)
			}
			start := time.Now()
			if err := m.Reset(); err != nil {
				return err
			}
			all = append(all, since(start))
		}
		fmt.Printf("reset_%d_pages_ms: %.3f\n", pages, median(all[rounds:]))
	}
	// Each further worker runs a test. What it has dirtied is its own.
	var extra []float64
	for i := range 5 {
		before, err := resident()
		if err != nil {
			return err
		}
		w, err := worker()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.Close()) }() // they stay, so that none gets another's memory
		if err := runTest(ctx, w); err != nil {
			return err
		}
		after, err := resident()
		if err != nil {
			return err
		}
		dirty := float64(w.Dirty()) * memory.PageSize / (1 << 20)
		if i > 0 { // the first one decodes what is the base's from then on
			extra = append(extra, after-before-dirty)
		}
	}
	fmt.Printf("worker_extra_mib: %.1f\n", median(extra))
	return nil
}

// runTest has a machine that begins at the base run the test to its end.
func runTest(ctx context.Context, m *vmm.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	passed := false
	a := until(ends, cancel, &passed)
	a.machine = m
	if err := m.SetSerial(1, a); err != nil {
		return err
	}
	if _, err := io.WriteString(m.Serial(1), "run "+test+"\n"); err != nil {
		return err
	}
	m.Listen()
	_, err := m.Run(ctx)
	m.Flush(1)
	if err == nil && !passed {
		err = fmt.Errorf("%s does not pass", test)
	}
	return err
}

// resident is what the process has of memory for itself, in MiB: the pages of the
// file that it reads are the host's, and shared.
func resident() (float64, error) {
	debug.FreeOSMemory() // garbage is nobody's
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kb float64
		if _, err := fmt.Sscanf(line, "RssAnon: %f kB", &kb); err == nil {
			return kb / 1024, nil
		}
	}
	return 0, errors.New("/proc/self/status has no RssAnon")
}

func since(start time.Time) float64 { return float64(time.Since(start)) / float64(time.Millisecond) }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// qemu is a guest saved by QEMU.
type qemu struct {
	dir  string
	args []string
}

// newQEMU boots the guest under QEMU, in the same memory, and saves it.
func newQEMU(ctx context.Context, dir, kernel, image string) (*qemu, error) {
	disk := filepath.Join(dir, "disk.qcow2")
	if err := os.WriteFile(disk, emptyDisk(), 0o600); err != nil {
		return nil, err
	}
	q := &qemu{dir: dir, args: []string{"-M", "q35", "-accel", "tcg", "-m", fmt.Sprintf("%dM", megabytes), "-nodefaults", "-no-user-config", "-display", "none",
		"-kernel", kernel, "-initrd", image, "-append", words, "-drive", "if=none,format=qcow2,file=" + disk, "-no-reboot"}}
	serial := filepath.Join(dir, "serial")
	l, err := net.Listen("unix", serial)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	monitor := filepath.Join(dir, "monitor")
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	c := exec.CommandContext(ctx, "qemu-system-x86_64", append(slices.Clone(q.args), "-serial", "null", "-serial", "unix:"+serial, "-monitor", "unix:"+monitor+",server=on,wait=off")...)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		return nil, err
	}
	defer func() {
		_ = c.Process.Kill() // it may have gone
		_ = c.Wait()
	}()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	guest, err := l.Accept()
	if err != nil {
		return nil, err
	}
	defer guest.Close()
	defer context.AfterFunc(ctx, func() { guest.Close() })()
	lines := bufio.NewScanner(guest)
	for {
		if !lines.Scan() {
			return nil, errors.New("the guest does not get ready")
		}
		if lines.Text() == ready {
			break
		}
	}
	h, err := net.Dial("unix", monitor)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if err := ask(h, "savevm bench"); err != nil {
		return nil, err
	}
	return q, nil
}

// ask has QEMU's monitor do something, and waits until that is done.
func ask(h net.Conn, command string) error {
	if err := h.SetDeadline(time.Now().Add(bound)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(h, command); err != nil {
		return err
	}
	var all []byte
	b := make([]byte, 4096)
	// The monitor greets with a prompt, and repeats what is typed at it. Its answer
	// ends with a prompt that nothing follows.
	for !strings.HasSuffix(string(all), "\n(qemu) ") || !strings.Contains(string(all), command) {
		n, err := h.Read(b)
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		all = append(all, b[:n]...)
	}
	if strings.Contains(string(all), "Error") {
		return fmt.Errorf("%s: %s", command, all)
	}
	return nil
}

// emptyDisk is a disk that QEMU can keep snapshots in, in its qcow2 format
// (docs/interop/qcow2.txt): four clusters of 64 KiB with the header, the table of
// reference counts, its only block, and the table of what is on the disk: nothing.
func emptyDisk() []byte {
	const cluster = 64 << 10
	b := make([]byte, 4*cluster)
	be := binary.BigEndian
	copy(b, "QFI\xfb")
	be.PutUint32(b[4:], 2)          // version
	be.PutUint32(b[20:], 16)        // a cluster's size, as a logarithm
	be.PutUint64(b[24:], 64<<20)    // the disk's size
	be.PutUint32(b[36:], 1)         // entries of the table of contents
	be.PutUint64(b[40:], 3*cluster) // where it is
	be.PutUint64(b[48:], cluster)   // where the table of reference counts is
	be.PutUint32(b[56:], 1)         // and its size in clusters
	be.PutUint64(b[cluster:], 2*cluster)
	for i := range 4 {
		be.PutUint16(b[2*cluster+2*i:], 1)
	}
	return b
}

// load is the time in ms that loadvm takes in a QEMU that stands ready for it: its
// own start is not in it, as our process's is not in ours.
func (q *qemu) load(ctx context.Context) (ms float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	monitor := filepath.Join(q.dir, "loader")
	l, err := net.Listen("unix", monitor)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	c := exec.CommandContext(ctx, "qemu-system-x86_64", append(slices.Clone(q.args), "-serial", "null", "-serial", "null", "-monitor", "unix:"+monitor, "-S")...)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = c.Process.Kill() // it may have gone
		_ = c.Wait()
	}()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	h, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer h.Close()
	if err := ask(h, "info status"); err != nil { // it is up
		return 0, err
	}
	start := time.Now()
	err = ask(h, "loadvm bench")
	return since(start), err
}
