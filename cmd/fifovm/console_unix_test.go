//go:build unix

package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// console is a session with the monitor beside it. It asks one question at a time:
// the next one when the answer to the last has come.
type console struct{ *session }

const (
	toggle        = "\x01c" // between guest and monitor
	monitorPrompt = "(fifovm) "
	shellPrompt   = "\n$ "
)

// openConsole boots the guest of `fifovm console`, up to its shell.
func openConsole(t *testing.T, program string, args ...string) *console {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it boots a guest")
	}
	const vmlinux, image = "../../build/kernel/6.12/vmlinux", "../../build/guest.cpio"
	for _, path := range []string{vmlinux, image} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%v: make image builds it", err)
		}
	}
	// Without line editing: its redrawing would look like answers.
	c := &console{startProgram(t, program, append([]string{"console", "-e", "soft", "-k", vmlinux, "-i", image, "-a", "TERM=dumb"}, args...)...)}
	c.next(shellPrompt)
	return c
}

// open goes from the guest to the monitor; close goes back.
func (c *console) open() {
	c.t.Helper()
	c.send(toggle)
	c.next(monitorPrompt)
}

func (c *console) close() { c.send(toggle) }

// ask gives the monitor a command, and gives what it says up to and behind want.
func (c *console) ask(command, want string) string {
	c.t.Helper()
	c.send(command + "\r")
	c.next(command[len(command)-1:]) // the end of the echo, or something before it
	said := c.next(want)
	return said + want + c.next(monitorPrompt)
}

// run has the guest's shell do a line. What the shell says has to differ from what
// is typed, which is echoed: write in"" two pieces.
func (c *console) run(line, want string) string {
	c.t.Helper()
	c.send(line + "\r")
	return c.next(want)
}

// well checks what the kernel has said.
func (c *console) well() {
	c.t.Helper()
	for _, bad := range []string{"Call Trace", "WARNING", "BUG", "Oops", "general protection", "unhandled"} {
		if strings.Contains(c.text(), bad) {
			c.t.Errorf("the kernel says %q in %q", bad, c.text())
		}
	}
}

// TestConsole is a session with the driver: an interrupt is lost, which the driver
// notices and its own statistics tell; then the device goes in the midst of
// traffic, and comes back.
func TestConsole(t *testing.T) {
	c := openConsole(t, program)
	const stat = "cat /sys/class/fifo/fifo0/tx/"
	if before := c.run(stat+"lost_interrupts; echo coun''ted", "counted"); !strings.Contains(before, "\n0\r\n") {
		t.Errorf("interrupts were lost before: %q", before)
	}
	c.open()
	c.ask("drop fifo0 1", "armed: fifo0/irq[1]:drop@next")
	c.close()
	c.run("dd if=/dev/zero of=/dev/fifo0 bs=4096 count=4; echo wro''te", "wrote")
	if after := c.run(stat+"lost_interrupts; "+stat+"requests; "+stat+"errors; echo coun''ted", "counted"); !strings.Contains(after, "\n1\r\n4\r\n0\r\n") {
		t.Errorf("lost interrupts, requests, errors: %q", after)
	}
	c.open()
	c.ask("faults", "drop@next: fired 1 times")
	c.ask("device fifo0", "tx 16384 bytes in 4 requests")
	c.close()

	// Traffic until there is an error.
	c.run("cat /dev/fifo0 >/dev/null &", shellPrompt)
	c.run("(dd if=/dev/zero of=/dev/fifo0 bs=4096 count=100000000; echo the traffic''ended) &", shellPrompt)
	c.open()
	requests := regexp.MustCompile(`tx \d+ bytes in (\d+) requests`)
	for moved := ""; ; {
		m := requests.FindStringSubmatch(c.ask("device fifo0", "channel 1: "))
		if m == nil {
			t.Fatalf("the device does not say what it has moved: %q", c.text())
		}
		if moved != "" && moved != "4" && m[1] != moved {
			break // it is under way
		}
		moved = m[1]
	}
	c.send("unplug fifo0\r")
	c.next("write /dev/fifo0: no such device")
	c.next("the trafficended")
	c.ask("device fifo0", "unplugged; what it was:")
	c.ask("info", ", unplugged")
	again := c.ask("plug fifo0", "/sys/bus/pci/rescan")
	c.close()
	c.run(again[strings.Index(again, "echo"):strings.Index(again, "rescan")+len("rescan")], shellPrompt)
	c.run("dd if=/dev/zero of=/dev/fifo0 bs=4096 count=3 && echo wro''te again", "wrote again")
	c.open()
	c.ask("device fifo0", "tx 12288 bytes in 3 requests")
	c.well()
	c.send("quit\r")
	c.end(0)
}

// TestConsoleDebugs has a look at the driver while it works.
func TestConsoleDebugs(t *testing.T) {
	c := openConsole(t, program)
	trace := filepath.Join(t.TempDir(), "trace.json")
	c.open()
	c.ask("modules", "fifo_aio: .text at 0x")
	c.ask("break nowhere", `there is no symbol "nowhere" in the kernel's file, nor in fifo_aio's`)
	c.ask("break fifo_write_iter", "fifo_write_iter+0x0 [fifo_aio] (")
	c.ask("trace on "+trace, "")
	c.close()
	c.send("dd if=/dev/zero of=/dev/fifo0 bs=64 count=1; echo wro''te\r")
	c.next("breakpoint on cpu 0 at 0x") // the monitor opens by itself
	c.next(" fifo_write_iter+0x0 [fifo_aio] (")
	c.next(monitorPrompt)
	c.ask("info", "the guest stands still: breakpoint")
	for _, frame := range c.lines("backtrace", "entry_SYSCALL_64_after_hwframe+", "#1 ", "vfs_write+", "read_write.c:", "ksys_write+") {
		t.Errorf("backtrace has no %q", frame)
	}
	c.ask("registers", "cpu 0 at 0x")
	for _, part := range c.lines("disassemble fifo_write_iter 9", "ret", "push rbp", "call fifo_transfer", "file.c:7") {
		t.Errorf("the function has no %q", part)
	}
	c.ask("step", "step on cpu 0 at 0x")
	c.ask("step 0 3", "step on cpu 0 at 0x")
	c.ask("memory linux_banner 13", "Linux version")
	c.ask("break delete fifo_write_iter", "")
	// What the device moves it does by its own way. The request's number the driver
	// writes.
	c.ask("watch jiffies 8", "8 bytes at 0x")
	c.send("continue\r")
	c.next("watchpoint on cpu 0: 8 bytes at 0x")
	c.next(monitorPrompt)
	c.ask("watch delete jiffies 8", "")
	c.ask("continue", "")
	c.close()
	c.expect("wrote") // before the watchpoint or behind it

	// The driver takes each message for a hint, and counts those for nothing.
	spurious := "cat /sys/class/fifo/fifo0/tx/spurious; echo coun''ted"
	c.run(spurious, "\n0\r\ncounted")
	c.open()
	c.ask("raise fifo0 1", "")
	c.ask("raise fifo0 99", "want 0 to ")
	c.ask("intx fifo0", "")
	c.close()
	c.run(spurious, "\n1\r\ncounted")
	c.open()
	c.ask("trace show 100", "irq")
	c.ask("trace off", "written to "+trace)
	c.well()
	c.send("quit\r")
	c.end(0)
	readFile(t, trace, func(b []byte) error { return json.Unmarshal(b, new(any)) })
}

// TestConsoleSnapshot goes back to a moment that was saved; a file that can't be
// used leaves the guest as it is.
func TestConsoleSnapshot(t *testing.T) {
	c := openConsole(t, program, "-m", "128M", "-c", "2")
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	c.run("moment=''then; echo it is $moment", "it is then")
	c.open()
	c.ask("save "+good, good+": saved at ")
	c.ask("save "+bad, bad+": saved at ")
	c.close()
	c.run("moment=''later; rmmod fifo_aio; echo it is $moment", "it is later")
	f, err := os.OpenFile(bad, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff}, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	c.open()
	c.ask("load "+bad, "it is damaged")
	c.ask("load "+dir+"/none", "no such file")
	c.ask("load "+program, "it is no snapshot")
	c.ask("save "+program, "is no snapshot that could be replaced")
	c.ask("modules", "none")
	c.ask("pause", "paused")
	c.ask("load "+good, "loaded: engine soft, 2 CPUs, ")
	c.ask("info", "the guest stands still: paused")
	c.ask("modules", "fifo_aio: .text at 0x")
	c.ask("break fifo_write_iter", "fifo_write_iter+0x0")
	c.ask("load "+good, "loaded: engine soft, 2 CPUs, ") // breakpoints stay
	c.ask("continue", "")
	c.close()
	c.send("echo it is now $moment; dd if=/dev/zero of=/dev/fifo0 bs=64 count=1; echo wro''te\r")
	c.next("it is now then")
	c.next("breakpoint on cpu ")
	c.next(monitorPrompt)
	c.ask("break delete fifo_write_iter", "")
	c.send("continue\r")
	c.expect("wrote")
	c.well()
	c.send("quit\r")
	c.end(0)
}

// TestConsoleGDB has gdb stop the guest: the monitor leaves that to it, and the
// keyboard to the guest.
func TestConsoleGDB(t *testing.T) {
	gdb, err := exec.LookPath("gdb")
	if err != nil {
		t.Skip("no gdb: apt-get install gdb")
	}
	socket := filepath.Join(t.TempDir(), "gdb")
	c := openConsole(t, program, "--gdb", socket)
	c.open()
	code := regexp.MustCompile("[0-9a-f]{16}").FindString(c.ask("disassemble fifo_write_iter 1", "fifo_write_iter+0x0"))
	if code == "" {
		t.Fatalf("no address in %q", c.text())
	}
	c.close()
	c.run("(while true; do dd if=/dev/zero of=/dev/fifo0 bs=1 count=1 2>/dev/null; sleep 0.1; done) &", shellPrompt)
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	out, err := exec.CommandContext(ctx, gdb, "-nx", "-batch", "-ex", "set architecture i386:x86-64", "-ex", "target remote "+socket,
		"-ex", "hbreak *0x"+code, "-ex", "continue", "-ex", "continue", "-ex", "info registers rip", "-ex", "detach").CombinedOutput()
	if err != nil || strings.Count(string(out), "Breakpoint 1, 0x"+code) != 2 || !strings.Contains(string(out), "detached]") {
		t.Fatalf("gdb: %v: %s", err, out)
	}
	c.run("echo to the''guest", "to theguest")
	if strings.Contains(c.text(), "breakpoint on cpu") {
		t.Errorf("the monitor had a say: %q", c.text())
	}
	c.open()
	c.ask("info", "the guest runs")
	c.ask("break", "")
	c.send("quit\r")
	c.end(0)
}

// lines asks for what is several lines, up to last, and gives those of wanted that
// are not there.
func (c *console) lines(command, last string, wanted ...string) (missing []string) {
	c.t.Helper()
	said := c.ask(command, last)
	for _, w := range wanted {
		if !strings.Contains(said, w) {
			missing = append(missing, w)
		}
	}
	return missing
}

// TestConsoleCrashes ends in several bad ways while the monitor is open.
func TestConsoleCrashes(t *testing.T) {
	t.Run("model", func(t *testing.T) {
		c := openConsole(t, withFuse(t), "--device", "fuse")
		c.open()
		// What it shows is only looked at: nothing happens to the guest.
		c.ask("device fuse0", "device: its model panicked when it was to show its state: runtime error: invalid memory address")
		c.ask("info", "the guest runs")
		c.ask("unplug fuse0", "")
		c.send("plug fuse0\r")
		c.end(statusFailed)
		c.oneLine("device fuse0: its model panicked at fuse.go:", "index out of range")
	})
	t.Run("guest's kernel", func(t *testing.T) {
		c := openConsole(t, program)
		// It waits until the monitor is open, and says so by an interrupt.
		c.run("(while test $(cat /sys/class/fifo/fifo0/tx/spurious) = 0; do sleep 0.1; done; echo c >/proc/sysrq-trigger) &", shellPrompt)
		c.open()
		c.send("raise fifo0 1\r")
		c.end(statusPanic)
		c.oneLine("the guest's kernel panicked: sysrq triggered crash")
	})
	t.Run("fifovm", func(t *testing.T) {
		c := openConsole(t, program)
		c.open()
		c.signal(syscall.SIGKILL)
		c.end(128 + int(syscall.SIGKILL))
	})
}

// oneLine checks the line of fifovm's own with which it has ended.
func (c *console) oneLine(words ...string) {
	c.t.Helper()
	c.next("fifovm: " + words[0])
	_, line, _ := strings.Cut(c.text(), "fifovm: "+words[0])
	line, _, found := strings.Cut(line, "\n")
	for _, w := range words[1:] {
		found = found && strings.Contains(line, w)
	}
	if !found || strings.Contains(line, "goroutine") {
		c.t.Errorf("it ended with %q, want %q", line, words)
	}
}

// withFuse builds fifovm with one device more, whose model has mistakes.
func withFuse(t *testing.T) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(here, "fuse.go"): filepath.Join(here, "testdata", "fuse.go")}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "fifovm")
	if err := build(path, "-overlay", file(t, "overlay.json", overlay)); err != nil {
		t.Fatal(err)
	}
	return path
}
