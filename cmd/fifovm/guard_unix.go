//go:build unix

package main

import (
	"os/signal"
	"syscall"
)

// apart keeps what is sent to our process group, such as an interrupt, from
// ending the guard before us.
var apart = &syscall.SysProcAttr{Setpgid: true}

// ignoreTerminalSignals lets a guard outlive its terminal's hangup, and set the
// terminal although it is in the background there.
func ignoreTerminalSignals() {
	signal.Ignore(syscall.SIGTTOU, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
}
