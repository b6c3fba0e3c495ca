//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"fifovm/initramfs"
)

// interruptedImage has a test that passes and one that says so when it has begun,
// and does not end.
func interruptedImage(t *testing.T) (kernel, image string) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it boots guests")
	}
	const vmlinux, base = "../../build/kernel/6.12/vmlinux", "../../build/guest.cpio"
	for _, path := range []string{vmlinux, base} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%v: run `make kernel image`", err)
		}
	}
	image = filepath.Join(t.TempDir(), "image.cpio")
	// Each tells its check when it is asked, or the last one would have to be killed
	// first, which takes its time. The shell gives a script no arguments.
	const script = "#!/bbin/gosh\nif grep -q list /proc/$$/cmdline; then echo it; exit; fi\necho 1..1\n"
	err := initramfs.Append(image, base, []initramfs.File{
		{Path: "/tests/good", Mode: 0o755, Data: []byte(script + "echo ok 1 it\n")},
		{Path: "/tests/bad", Mode: 0o755, Data: []byte(script + "echo not ok 1 it\nfalse\n")},
		{Path: "/tests/endless", Mode: 0o755, Data: []byte(script + "echo it has begun\nwhile true; do :; done\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return vmlinux, image
}

// watched is standard output that tells when a text has come.
type watched struct {
	all  bytes.Buffer
	text string
	came chan struct{}
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.all.Write(p)
	if w.text != "" && strings.Contains(w.all.String(), w.text) {
		w.text = ""
		close(w.came)
	}
	return n, err
}

// TestTestInterrupted ends runs from outside: what was done is reported, the status
// says that it was not all, and nothing is left behind.
func TestTestInterrupted(t *testing.T) {
	kernel, image := interruptedImage(t)
	for _, test := range []struct {
		name   string
		signal syscall.Signal
		status int // -1: of a process that a signal has ended
	}{
		{"SIGINT", syscall.SIGINT, 128 + int(syscall.SIGINT)},
		{"SIGTERM", syscall.SIGTERM, 128 + int(syscall.SIGTERM)},
		{"SIGKILL", syscall.SIGKILL, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			out := &watched{text: "it has begun", came: make(chan struct{})}
			var errs bytes.Buffer
			c := exec.Command(program, "test", "-v", "-e", "soft", "-k", kernel, "-i", image, "--device", "edu",
				"--junit", filepath.Join(dir, "j.xml"), "--json", filepath.Join(dir, "j.json"), "--artifacts", filepath.Join(dir, "artifacts"),
				"good", "bad", "endless", "good/again")
			c.Stdout, c.Stderr = out, &errs
			c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			late := time.AfterFunc(bound, func() { c.Process.Kill() })
			defer late.Stop()
			ended := make(chan error, 1)
			go func() { ended <- c.Wait() }()
			select {
			case <-out.came:
			case err := <-ended:
				t.Fatalf("it ended before: %v\n%s%s", err, &out.all, &errs)
			}
			if err := c.Process.Signal(test.signal); err != nil {
				t.Fatal(err)
			}
			<-ended
			if got := c.ProcessState.ExitCode(); got != test.status {
				t.Errorf("status %d, want %d\n%s%s", got, test.status, &out.all, &errs)
			}
			if err := syscall.Kill(-c.Process.Pid, 0); err == nil {
				t.Error("a process is left")
			}
			left, err := filepath.Glob(filepath.Join(dir, ".*"))
			if err != nil {
				t.Fatal(err)
			}
			if len(left) > 0 {
				t.Errorf("these files are left: %v", left)
			}
			if test.status < 0 {
				// It could not write a report; so there is none that looks like one.
				for _, name := range []string{"j.xml", "j.json"} {
					if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
						t.Errorf("%s is there", name)
					}
				}
				return
			}
			if !strings.Contains(out.all.String(), "1 passed, 1 failed, 0 skipped, 2 not run") {
				t.Errorf("no report of what was done:\n%s", &out.all)
			}
			checkReports(t, dir, "good passed, bad failed, endless not run, good not run, ")
			if _, err := os.Stat(filepath.Join(dir, "artifacts", "bad-it", "result.json")); err != nil {
				t.Error(err)
			}
		})
	}
}

// checkReports reads j.json and j.xml in a folder.
func checkReports(t *testing.T, dir, want string) {
	t.Helper()
	var report struct {
		Results []struct{ Program, Verdict, Reason string }
	}
	readFile(t, filepath.Join(dir, "j.json"), func(b []byte) error { return json.Unmarshal(b, &report) })
	got := ""
	for _, r := range report.Results {
		got += r.Program + " " + r.Verdict + ", "
	}
	if got != want {
		t.Errorf("reported are %s want %s", got, want)
	}
	var doc struct {
		XMLName xml.Name `xml:"testsuites"`
	}
	readFile(t, filepath.Join(dir, "j.xml"), func(b []byte) error { return xml.Unmarshal(b, &doc) })
}

// TestTestInterruptedByKey presses Ctrl-C at a terminal, as a person does who has
// started the tests from a shell: in the midst of a test, and of a boot.
func TestTestInterruptedByKey(t *testing.T) {
	kernel, image := interruptedImage(t)
	for _, test := range []struct {
		name          string
		args          []string
		when          []string // these were shown
		summary, want string
	}{
		{"test", []string{"-v"}, []string{"it has begun"}, "1 passed, 1 failed, 0 skipped, 2 not run", "good passed, bad failed, endless not run, good not run, "},
		{"test beside its progress line", []string{"-j", "1"}, []string{"passed   good/it", "FAILED   bad/it", "2/4, 1 FAILED  endless"}, "1 passed, 1 failed, 0 skipped, 2 not run", "good passed, bad failed, endless not run, good not run, "},
		{"boot", []string{"-v"}, []string{"Welcome to u-root!"}, "0 passed, 0 failed, 0 skipped, 4 not run", "good not run, bad not run, endless not run, good not run, "},
		{"boot without a base", []string{"-v", "--no-snapshot"}, []string{"Welcome to u-root!"}, "0 passed, 0 failed, 0 skipped, 4 not run", "good not run, bad not run, endless not run, good not run, "},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			// The shell says how it ended, and keeps the terminal until that was read.
			c := exec.Command("sh", "-c", `trap : INT; "$@"; echo "status $?"; read line`, "sh", program, "test", "-e", "soft", "-k", kernel, "-i", image, "--device", "edu",
				"--junit", filepath.Join(dir, "j.xml"), "--json", filepath.Join(dir, "j.json"), "--artifacts", filepath.Join(dir, "artifacts"))
			c.Args = append(append(c.Args, test.args...), "good", "bad", "endless", "good/again")
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			s := startProcess(t, c)
			for _, text := range test.when {
				s.next(text)
			}
			s.send("\x03")
			s.next(test.summary)
			s.next("fifovm: stopped by interrupt\r\n")
			s.next("status 130\r\n")
			s.restored()
			s.send("\r")
			<-s.ended
			if err := syscall.Kill(-c.Process.Pid, 0); err == nil {
				t.Error("a process is left")
			}
			if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
				t.Errorf("these files are left: %v, %v", left, err)
			}
			checkReports(t, dir, test.want)
		})
	}
}

func readFile(t *testing.T, path string, read func([]byte) error) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = read(b)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestTestFullDisk has no room for what a run writes: the tests are run and told all
// the same, then comes a clear line, and nothing that looks like a report is left.
func TestTestFullDisk(t *testing.T) {
	kernel, image := interruptedImage(t)
	dir := fullDisk(t)
	for _, flag := range []string{"--junit", "--json", "--artifacts"} {
		t.Run(flag, func(t *testing.T) {
			path := filepath.Join(dir, "report"+flag)
			r := execute(t, program, "", "test", "-e", "soft", "-k", kernel, "-i", image, flag, path, "good", "bad")
			if r.status != statusFailed || !strings.Contains(r.stdout, "1 passed, 1 failed, 0 skipped") {
				t.Errorf("status %d\n%s", r.status, r.stdout)
			}
			errorLine(t, r.stderr, flag, "no space left on device")
			if left, err := filepath.Glob(filepath.Join(dir, ".report*")); err != nil || len(left) > 0 {
				t.Errorf("these files are left: %v, %v", left, err)
			}
			if _, err := os.Stat(path); err == nil && flag != "--artifacts" {
				t.Errorf("half of a report is left")
			}
		})
	}
}

// fullDisk is a folder on a file system that has no room.
func fullDisk(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("it takes a tmpfs")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "full", dir).CombinedOutput(); err != nil {
		t.Skipf("no right to mount a small file system: %v: %s", err, bytes.TrimSpace(out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return dir
		}
	}
}
