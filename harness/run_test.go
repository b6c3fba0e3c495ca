package harness

import "testing"

func TestStuckIn(t *testing.T) {
	for _, test := range []struct {
		said []string
		want string
	}{
		{nil, ""},
		{[]string{"# io, thread 34:"}, ""},
		{[]string{"# io, thread 34:", "#   [<0>] schedule_timeout+0x27/0x60", "#   [<0>] vfs_write+0xb7/0x360"}, "schedule_timeout+0x27/0x60"},
		{[]string{"#   [<0>] down+0x27/0x60", "#   [<0>] card_write.part.0+0x90/0xb0 [card]", "#   [<0>] other+0x9/0xb0 [card]"}, "card_write.part.0+0x90/0xb0 [card]"},
	} {
		if got := stuckIn(test.said); got != test.want {
			t.Errorf("%q: %q, want %q", test.said, got, test.want)
		}
	}
}

func TestInterruptedIn(t *testing.T) {
	told := []string{"[    1.0] sysrq: Show backtrace of all active CPUs", "[    1.0] RIP: 0010:default_idle+0x13/0x20",
		"[    1.0] RIP: 0010:card_spin+0x3/0x10 [card]", "[    1.0] RIP: 0010:other+0x3/0x10 [card]"}
	if got := interruptedIn(told); got != "card_spin+0x3/0x10 [card]" {
		t.Errorf("got %q", got)
	}
	if got := interruptedIn(told[:2]); got != "" {
		t.Errorf("got %q", got)
	}
}
