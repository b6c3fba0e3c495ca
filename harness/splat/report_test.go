package splat

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// console is what a kernel printed, from testdata.
func console(t testing.TB, name string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// Reports of real kernels: 6.12 with the debug configuration.
func TestFind(t *testing.T) {
	for name, want := range map[string]struct {
		reason, first, last string // first and last are parts of lines
	}{
		"warn.txt":    {"WARNING in plant_init [plant]", cut, "---[ end trace "},
		"warnmsg.txt": {"WARNING in plant_init [plant]: plant: 7 is wrong", cut, "---[ end trace "},
		"uaf.txt":     {"KASAN: slab-use-after-free in plant_uaf.isra.0 [plant]", "=====", "====="},
		"null.txt":    {"KASAN: null-ptr-deref in plant_null [plant]", "Oops: general protection", "PKRU"},
	} {
		// What comes before and after is not the report's.
		lines := append([]string{"[    0.100000] fifo_aio: before"}, console(t, name)...)
		lines = append(lines, "init: of no kernel", "[   99.000000] fifo_aio: after")
		reports := Find(lines)
		if len(reports) != 1 {
			t.Errorf("%s: %d reports, want 1", name, len(reports))
			continue
		}
		r := reports[0]
		if got := r.Reason(nil); got != want.reason {
			t.Errorf("%s: reason %q, want %q", name, got, want.reason)
		}
		first, last := r.Lines[0], r.Lines[len(r.Lines)-1]
		if !strings.Contains(first, want.first) {
			t.Errorf("%s: begins with %q, want %q", name, first, want.first)
		}
		if name != "null.txt" && !strings.Contains(last, want.last) {
			t.Errorf("%s: ends with %q, want %q", name, last, want.last)
		}
		for _, line := range r.Lines {
			if strings.Contains(line, "fifo_aio: ") || strings.HasPrefix(line, "init: ") || strings.HasPrefix(line, "###") {
				t.Errorf("%s: has the line %q", name, line)
			}
		}
	}
}

// Of each form of report, the least that kernels print of it.
func TestReasons(t *testing.T) {
	const trace = "\nCPU: 0 PID: 71 Comm: fifo_io\nCall Trace:\n <TASK>\n ? stale+0x1/0x2\n schedule+0x1/0x2\n fifo_read+0x10/0x20 [fifo_aio]\n vfs_read+0x1/0x2\n </TASK>"
	for _, test := range []struct{ report, want string }{
		{"BUG: kernel NULL pointer dereference, address: 0000000000000008\n#PF: supervisor read access\nOops: 0000 [#1] SMP\nRIP: 0010:fifo_poll+0x1/0x2 [fifo_aio]" + trace + "\n---[ end trace 0 ]---\nRIP: 0010:fifo_poll+0x1/0x2 [fifo_aio]",
			"NULL pointer dereference at 0x8 in fifo_poll [fifo_aio]"},
		{"BUG: unable to handle page fault for address: ffffc90000205000\nRIP: 0010:memcpy+0x1/0x2" + trace, "page fault at 0xffffc90000205000 in memcpy, from fifo_read [fifo_aio]"},
		{"Oops: general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP\nRIP: 0010:fifo_poll+0x1/0x2 [fifo_aio]" + trace, "general protection fault in fifo_poll [fifo_aio]"},
		{"divide error: 0000 [#1] PREEMPT SMP\nRIP: 0010:fifo_poll+0x1/0x2 [fifo_aio]" + trace, "divide error in fifo_poll [fifo_aio]"},
		{cut + "\nkernel BUG at request.c:12!\nOops: invalid opcode: 0000 [#1] SMP\nRIP: 0010:fifo_poll+0x1/0x2 [fifo_aio]" + trace + "\n---[ end trace 0 ]---", "BUG in fifo_poll [fifo_aio]"},
		{cut + "\nlist_del corruption, ffff888001234567->next is LIST_POISON1 (dead000000000100)\nkernel BUG at lib/list_debug.c:56!\nRIP: 0010:__list_del_entry_valid+0x1/0x2" + trace + "\n---[ end trace 0 ]---",
			"list_del corruption, ffff888001234567->next is LIST_POISON1 (dead000000000100) in __list_del_entry_valid, from fifo_read [fifo_aio]"},
		{cut + "\nrefcount_t: underflow; use-after-free.\nWARNING: CPU: 0 PID: 71 at lib/refcount.c:28 refcount_warn_saturate+0x1/0x2\nRIP: 0010:refcount_warn_saturate+0x1/0x2" + trace + "\n---[ end trace 0 ]---",
			"WARNING in refcount_warn_saturate: refcount_t: underflow; use-after-free., from fifo_read [fifo_aio]"},
		{bar + "\nWARNING: possible circular locking dependency detected\n6.12.0 Not tainted\n------\nfifo_io/71 is trying to acquire lock:\nffff8880 (&q->lock){+.+.}-{3:3}, at: fifo_poll+0x1/0x2 [fifo_aio]\n\nbut task is already holding lock:\nffff8881 (&d->lock){+.+.}-{3:3}, at: fifo_open+0x1/0x2 [fifo_aio]\nstack backtrace:" + trace,
			"lockdep: possible circular locking dependency detected: &q->lock at fifo_poll [fifo_aio]"},
		{"BUG: sleeping function called from invalid context at kernel/locking/mutex.c:585\nin_atomic(): 1" + trace, "sleeping function called from invalid context, from fifo_read [fifo_aio]"},
		{"BUG: scheduling while atomic: fifo_io/71/0x00000002\n1 lock held by fifo_io/71:\n #0: ffff8880 (q){+.+.}-{3:3}, at: fifo_lock+0x1/0x2 [fifo_aio]" + trace, "scheduling while atomic, from fifo_read [fifo_aio]"},
		{"INFO: task fifo_io:71 blocked for more than 120 seconds." + trace, "hung task: fifo_io:71 blocked for more than 120 seconds, from fifo_read [fifo_aio]"},
		{"watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [fifo_io:71]\nRIP: 0010:fifo_poll+0x1/0x2 [fifo_aio]" + trace, "soft lockup: CPU#0 stuck for 22s in fifo_poll [fifo_aio]"},
		{"rcu: INFO: rcu_sched self-detected stall on CPU\nRIP: 0010:fifo_poll+0x1/0x2 [fifo_aio]" + trace, "RCU stall: rcu_sched self-detected stall on CPU in fifo_poll [fifo_aio]"},
		{cut + "\nUBSAN: array-index-out-of-bounds in /home/me/driver/ring.c:12:9\nindex 9 is out of range" + trace + "\n---[ end trace ]---", "UBSAN: array-index-out-of-bounds in ring.c:12, from fifo_read [fifo_aio]"},
		{"kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)", "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)"},
		{"DMA-API: pci 0000:00:02.0: device driver has pending DMA allocations while released from device [count=1]", "DMA-API: pci 0000:00:02.0: device driver has pending DMA allocations while released from device [count=1]"},
		{cut + "\nDMA-API: fifo_aio 0000:00:02.0: device driver failed to check map error [size=64 bytes]\nWARNING: CPU: 0 PID: 71 at kernel/dma/debug.c:1000 check_unmap+0x1/0x2\nRIP: 0010:check_unmap+0x1/0x2" + trace + "\n---[ end trace 0 ]---\nDMA-API: Mapped at:\n debug_dma_map_page+0x1/0x2\n fifo_map+0x1/0x2 [fifo_aio]\n fifo_read+0x10/0x20 [fifo_aio]",
			"DMA-API: fifo_aio 0000:00:02.0: device driver failed to check map error [size=64 bytes], mapped by fifo_map [fifo_aio]"},
		{cut + "\nDMA-API: fifo_aio 0000:00:02.0: device driver frees DMA memory it has not allocated\nWARNING: CPU: 0 PID: 71 at kernel/dma/debug.c:1000 check_unmap+0x1/0x2\nRIP: 0010:check_unmap+0x1/0x2" + trace + "\n---[ end trace 0 ]---",
			"DMA-API: fifo_aio 0000:00:02.0: device driver frees DMA memory it has not allocated, from fifo_read [fifo_aio]"},
		{"Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\nCPU: 0 PID: 1\nCall Trace:\n <TASK>\n panic+0x1/0x2\n mount_root+0x1/0x2\n </TASK>\nKernel Offset: disabled\n---[ end Kernel panic - not syncing: VFS ]---", "kernel panic: VFS: Unable to mount root fs on unknown-block(0,0)"},
	} {
		var lines []string
		for line := range strings.SplitSeq(test.report, "\n") {
			lines = append(lines, "[    1.234567] "+line)
		}
		reports := Find(append(lines, "[    1.300000] fifo_aio 0000:00:02.0: the device has gone"))
		if len(reports) != 1 {
			t.Errorf("%d reports, want 1: %s", len(reports), test.report)
			continue
		}
		if got := reports[0].Reason(nil); got != test.want {
			t.Errorf("reason %q,\n want %q", got, test.want)
		}
		if diff := cmp.Diff(lines, reports[0].Lines); diff != "" {
			t.Errorf("%s: lines (-want +got):\n%s", test.want, diff)
		}
	}
}

func TestFindNothing(t *testing.T) {
	for _, line := range []string{
		"fifo_aio: loading out-of-tree module taints kernel.", "DMA-API: preallocated 65536 debug entries", "rcu: Hierarchical RCU implementation.", "==========", "",
	} {
		if r := Find([]string{"[    1.0] " + line, "[    1.234567] " + line, line}); len(r) != 0 {
			t.Errorf("%q: a report", line)
		}
	}
}

// Two reports one behind the other are two.
func TestTwo(t *testing.T) {
	lines := append(console(t, "warn.txt"), console(t, "uaf.txt")...)
	if got := len(Find(append(lines, lines...))); got != 4 {
		t.Errorf("%d reports, want 4", got)
	}
}

func TestScannerTellsWhenMoreComes(t *testing.T) {
	var s Scanner
	lines := Find(console(t, "warn.txt"))[0].Lines
	for i, line := range lines {
		s.Add(line)
		if got, want := s.Unfinished(), i < len(lines)-1; got != want {
			t.Errorf("behind line %d of %d: unfinished %v, want %v", i+1, len(lines), got, want)
		}
	}
}

func TestCondense(t *testing.T) {
	for _, line := range Condense(console(t, "null.txt")) {
		for _, no := range []string{"RAX:", "Code:", "? ", "[    ", "0033"} {
			if strings.Contains(line, no) {
				t.Errorf("kept %q", line)
			}
		}
	}
	if text := strings.Join(Condense(console(t, "null.txt")), "\n"); strings.Count(text, "RIP: 0010:plant_null") != 1 {
		t.Errorf("where it was is not there once:\n%s", text)
	}
}

// FuzzFind: a guest may print what it likes.
func FuzzFind(f *testing.F) {
	// Short ones: of whole reports there are but a few runs a second.
	f.Add("[    1.000000] =====================================\n[    1.000000] BUG: KASAN: x in f+0x1/0x2 [m]\n[    1.000000]  <TASK>\n[    1.000000]  </TASK>")
	f.Add(cut)
	f.Add("[    1.000000] BUG: KASAN: a in b+0x1/0x2\n[    1.000000]")
	s, err := Open("")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, console string) {
		lines := strings.Split(console, "\n")
		for _, r := range Find(lines) {
			if len(r.Lines) == 0 || len(r.Lines) > maxLines+1 {
				t.Errorf("a report of %d lines", len(r.Lines))
			}
			if reason := r.Reason(s); len(reason) > maxReason+3 {
				t.Errorf("a reason of %d bytes", len(reason))
			}
			Condense(s.Decode(r.Lines))
		}
	})
}
