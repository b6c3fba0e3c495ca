package edu

import (
	"fmt"
	"io"
)

// Inspect implements device.Inspector.
func (d *Device) Inspect(w io.Writer, _ func(uint64, []byte) error) {
	s := &d.s
	fmt.Fprintf(w, "liveness  %#x\n", s.Liveness)
	fmt.Fprintf(w, "factorial %d, status %#x\n", s.Factorial, s.Status)
	fmt.Fprintf(w, "interrupt %#x\n", s.Interrupt)
	fmt.Fprintf(w, "transfer  from %#x to %#x, %d bytes, command %#x\n", s.Source, s.Dest, s.Count, s.Command)
}
