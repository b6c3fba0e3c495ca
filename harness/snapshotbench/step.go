//go:build linux

package main

import (
	"errors"

	"fifovm/vmm/x86"
)

// firstInstruction has a run end behind one of CPU 0's.
var firstInstruction = &x86.Debug{Stepping: true}

func stepped(err error) bool {
	var t *x86.Trap
	return errors.As(err, &t) && t.Kind == x86.TrapStep
}
