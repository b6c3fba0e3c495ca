package harness

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// seen is all that a Console says of what it was given.
type seen struct {
	Panic, Complaint string
	Tail             []string
	Ended            int // calls of OnPanic
	Output           string
}

// watch gives text to a new Console in pieces that end where cut says.
func watch(text []byte, cut func(i int) bool) seen {
	var s seen
	var out bytes.Buffer
	c := &Console{Output: &out, OnPanic: func() { s.Ended++ }}
	start := 0
	for i := range text {
		if cut(i) || i == len(text)-1 {
			if n, err := c.Write(text[start : i+1]); n != i+1-start || err != nil {
				panic(fmt.Sprintf("Write: %d, %v", n, err))
			}
			start = i + 1
		}
	}
	s.Panic, s.Complaint, s.Tail, s.Output = c.Panic(), c.Complaint(), c.Tail(), out.String()
	return s
}

func whole(int) bool { return false }

const (
	panicLine = "[    0.4] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
	endLine   = "[    0.5] ---[ end Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0) ]---"
	reason    = "VFS: Unable to mount root fs on unknown-block(0,0)"
)

func TestConsolePanic(t *testing.T) {
	for _, test := range []struct {
		name, text, panic string
		ended             int
	}{
		{"nothing", "", "", 0},
		{"healthy", "[    0.1] Linux\r\n$ ", "", 0},
		{"start", panicLine + "\r\n", reason, 0},
		{"bare newlines", panicLine + "\n" + endLine + "\n", reason, 1},
		{"start and end", panicLine + "\r\n[    0.4] CPU: 0\r\n" + endLine + "\r\n", reason, 1},
		{"not ended yet", panicLine, "", 0},
		{"end not ended yet", panicLine + "\r\n" + endLine, reason, 0},
		{"end alone", endLine + "\r\n", "", 0},
		{"no time stamps", "Kernel panic - not syncing: x\r\n---[ end Kernel panic - not syncing: x ]---\r\n", "x", 1},
		{"end of Linux before 4.20", panicLine + "\r\n---[ end Kernel panic - not syncing: VFS\r\n", reason, 1},
		{"no reason", "Kernel panic - not syncing: \r\n", "no reason given", 0},
		{"first reason counts", "Kernel panic - not syncing: a\nKernel panic - not syncing: b\n", "a", 0},
		{"early console beside the real one", panicLine + "\r\n" + panicLine + "\r\n" + endLine + "\r\n" + endLine + "\r\n", reason, 1},
		{"behind a prompt", "login: " + panicLine + "\r\n", reason, 0},
		{"behind a progress bar", "10%\r20%\r" + panicLine + "\r\n" + endLine + "\r\n", reason, 1},
		{"printed over", panicLine + "\r$ \n", reason, 0},
		{"doubled carriage returns", panicLine + "\r\r\n" + endLine + "\r\r\n", reason, 1},
		{"behind a long line", strings.Repeat("x", 3*maxLine) + panicLine + "\r\n" + strings.Repeat("y", maxLine) + endLine + "\r\n", reason, 1},
		{"in the midst of a long line", strings.Repeat("x", maxLine-10) + "Kernel panic - not syncing: a" + strings.Repeat("y", 5) + "\n", "ayyyyy", 0},
		{"another oops' end", "---[ end trace 0000000000000000 ]---\r\n", "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := watch([]byte(test.text), whole)
			if s.Panic != test.panic || s.Ended != test.ended {
				t.Errorf("panic %q, ended %d times; want %q, %d", s.Panic, s.Ended, test.panic, test.ended)
			}
		})
	}
}

func TestConsoleTail(t *testing.T) {
	var many strings.Builder
	var last []string
	for i := range 3 * tailLines {
		fmt.Fprintf(&many, "line %d\r\n", i)
		if i >= 2*tailLines {
			last = append(last, fmt.Sprintf("line %d", i))
		}
	}
	long := strings.Repeat("0123456789", maxLine)
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"empty lines", "a\n\n\r\nb\n", []string{"a", "", "", "b"}},
		{"unfinished line", "a\nb", []string{"a", "b"}},
		{"printed over", "10%\r20%\r100%\r\n$ ", []string{"100%", "$ "}},
		{"many", many.String(), last},
		{"many and an unfinished one", many.String() + "x", append(last[:tailLines:tailLines], "x")},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, watch([]byte(test.text), whole).Tail); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("long line keeps its end", func(t *testing.T) {
		tail := watch([]byte(long+"\n"), whole).Tail
		if len(tail) != 1 || len(tail[0]) > maxLine || len(tail[0]) < maxLine/2 || !strings.HasSuffix(long, tail[0]) {
			t.Errorf("kept %d lines, of which the first has %d bytes", len(tail), len(tail[0]))
		}
	})
}

// Complaints must not get lost where lines are cut or printed over.
func TestConsoleComplaint(t *testing.T) {
	const warning = "[    1.0] WARNING: CPU: 0 PID: 1 at x.c:1"
	for _, text := range []string{
		warning + "\r\n", warning + "\r$ ", warning + strings.Repeat("x", 2*maxLine), strings.Repeat("x", 2*maxLine) + " " + warning + "\n",
	} {
		if s := watch([]byte(text), whole); !strings.Contains(s.Complaint, "WARNING: CPU: 0") {
			t.Errorf("complaint %q of %.50q", s.Complaint, text)
		}
	}
}

// However the guest's output is cut into writes, the Console sees the same.
func TestConsoleSplits(t *testing.T) {
	text := []byte("boot\r\n10%\r20%\rlogin: " + panicLine + "\r\r\n[ 1.0] BUG: x\n\n" + endLine + "\r\nrest")
	want := watch(text, whole)
	if want.Panic != reason || want.Ended != 1 {
		t.Fatalf("%+v", want)
	}
	for i := range text { // all splits in two
		if diff := cmp.Diff(want, watch(text, func(at int) bool { return at == i })); diff != "" {
			t.Fatalf("cut at %d: %s", i, diff)
		}
	}
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 0))
		if diff := cmp.Diff(want, watch(text, func(int) bool { return rng.IntN(4) == 0 })); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

func FuzzConsole(f *testing.F) {
	for _, s := range []string{"", "a\r\nb", panicLine + "\r\n" + endLine + "\r\n", "10%\r20%\r\r\n",
		strings.Repeat("x", maxLine+1) + "\n", strings.Repeat("Kernel panic - not syncing: ", maxLine/20)} {
		f.Add([]byte(s), uint64(1))
	}
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		want := watch(text, whole)
		if want.Output != string(text) {
			t.Error("the output is not what the guest printed")
		}
		if len(want.Tail) > tailLines+1 {
			t.Errorf("%d lines kept", len(want.Tail))
		}
		for _, line := range want.Tail {
			if len(line) > maxLine || strings.ContainsAny(line, "\r\n") {
				t.Errorf("kept %q", line)
			}
		}
		if want.Ended > 0 && want.Panic == "" {
			t.Error("a panic ended that had not begun")
		}
		if bytes.Contains(text, []byte("Kernel panic - not syncing: x\n")) && want.Panic == "" {
			t.Error("a panic was missed")
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		if diff := cmp.Diff(want, watch(text, func(int) bool { return rng.IntN(8) == 0 })); diff != "" {
			t.Error(diff)
		}
	})
}
