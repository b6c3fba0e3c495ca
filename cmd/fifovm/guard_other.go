//go:build !unix

package main

import "syscall"

var apart *syscall.SysProcAttr

func ignoreTerminalSignals() {}
