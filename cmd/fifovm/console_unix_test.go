//go:build unix

package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestConsole is a session with the driver: an interrupt is lost, and the device
// goes while a write waits.
func TestConsole(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it boots a guest")
	}
	const vmlinux, image = "../../build/kernel/6.12/vmlinux", "../../build/guest.cpio"
	for _, path := range []string{vmlinux, image} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%v: make image builds it", err)
		}
	}
	const toggle = "\x01c"
	s := startCommand(t, "console", "-e", "soft", "-k", vmlinux, "-i", image)
	s.expect("\n$ ")
	s.send(toggle)
	s.expect("(fifovm) ")
	s.send("drop fifo0 1\r")
	s.expect("armed: fifo0/irq[1]:drop@next")
	// What the shell says differs from what is typed, which is echoed.
	s.send(toggle + "dd if=/dev/zero of=/dev/fifo0 bs=4096 count=4; echo wrote''it\r")
	s.expect("fifo0 tx: an interrupt was lost")
	s.expect("wroteit")
	s.send(toggle + "faults\r")
	s.expect("drop@next: fired 1 times")
	s.send("device fifo0\r")
	s.expect("tx 16384 bytes in 4 requests")
	// Nobody reads, so that this waits in the ring when the FIFO is full.
	s.send(toggle + "dd if=/dev/zero of=/dev/fifo0 bs=4096 count=100; echo went''away\r")
	s.send(toggle)
	late := time.After(bound)
	for !strings.Contains(s.text(), "65536 of 65536 bytes in the FIFO") {
		// One question at a time: the monitor is to have answered this one, of two channels.
		answers := strings.Count(s.text(), "bytes in the FIFO") + 2
		s.send("device fifo0\r")
		for strings.Count(s.text(), "bytes in the FIFO") < answers {
			select {
			case <-s.changed:
			case <-late:
				t.Fatalf("the FIFO does not fill; there is %q", s.text())
			}
		}
	}
	s.send("break nowhere\r")
	s.expect("there is no symbol")
	s.send("unplug fifo0\r" + "info\r")
	s.expect("unplugged")
	s.send(toggle)
	s.expect("wentaway")
	s.send(toggle + "quit\r")
	s.end(0)
}
