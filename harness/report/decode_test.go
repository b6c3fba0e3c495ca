package report

import (
	"strings"
	"testing"

	"fifovm/harness"
)

func TestDecoder(t *testing.T) {
	const title = "[    1.000001] WARNING: CPU: 0 PID: 7 at request.c:12 fifo_put+0x1/0x20 [fifo_aio]"
	splat := []string{"[    1.000000] ------------[ cut here ]------------", title, "[    1.000002] RIP: 0010:fifo_put+0x1/0x20 [fifo_aio]",
		"[    1.000003] RAX: 0000000000000000", "[    1.000004] ---[ end trace 0000000000000000 ]---"}
	after := "[    1.000005] fifo_aio 0000:00:02.0: the device has gone"
	d := NewDecoder(nil)
	for _, test := range []struct {
		kind         harness.Kind
		reason, want string
	}{
		{harness.KindKernel, "the kernel's log says: " + title + "; the test: exit status 1", "the kernel's log says: WARNING in fifo_put [fifo_aio]; the test: exit status 1"},
		{harness.KindPanic, "kernel panic: Fatal exception", "kernel panic: Fatal exception (WARNING in fifo_put [fifo_aio])"},
		{harness.KindHangUser, "no result after 3m0s", "no result after 3m0s"},
	} {
		r := &harness.Result{Program: "fifo_io", Verdict: harness.Failed, Kind: test.kind, Reason: test.reason, Splat: append(append([]string{}, splat...), after)}
		d.Done(r)
		if r.Reason != test.want {
			t.Errorf("reason %q, want %q", r.Reason, test.want)
		}
		if got := strings.Join(r.Splat, "\n"); got != strings.Join(splat, "\n") {
			t.Errorf("left of the console:\n%s", got)
		}
		if short := strings.Join(d.Short(r.Splat), "\n"); strings.Contains(short, "RAX") || !strings.Contains(short, "RIP: 0010:fifo_put") {
			t.Errorf("for a terminal:\n%s", short)
		}
		if diff := len(d.Whole(r.Splat)) - len(r.Splat); diff != 0 {
			t.Errorf("%d lines more", diff)
		}
	}
	// Of a leak there is no report, but a place.
	leak := &harness.Result{Verdict: harness.Failed, Kind: harness.KindLeak, Reason: "left behind: kmemleak: an object of 8 bytes, by fifo_open+0x1/0x20 [fifo_aio] (it ran fifo_io)"}
	if d.Done(leak); leak.Reason != "left behind: kmemleak: an object of 8 bytes, by fifo_open [fifo_aio] (it ran fifo_io)" {
		t.Errorf("reason %q", leak.Reason)
	}
	// What is no report stays as it is.
	r := &harness.Result{Verdict: harness.Failed, Kind: harness.KindKernel, Reason: "x", Splat: []string{after}}
	if d.Done(r); len(r.Splat) != 1 || r.Reason != "x" {
		t.Errorf("got %+v", r)
	}
}
