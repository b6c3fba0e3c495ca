//go:build linux && amd64

package kvm

import (
	"errors"
	"fmt"

	"fifovm/vmm/x86"
)

// CPU takes the state of one CPU. The engine must not be running.
func (e *Engine) CPU(i int, s *x86.CPU) error {
	if i < 0 || i >= len(e.vcpus) {
		return fmt.Errorf("kvm: there is no CPU %d", i)
	}
	c := e.vcpus[i]
	return c.do(func() error { return c.state(s) })
}

// SetCPU replaces a CPU's registers, but for those of its local APIC and the
// MSRs. The engine must not be running.
func (e *Engine) SetCPU(i int, s *x86.CPU) error {
	if i < 0 || i >= len(e.vcpus) {
		return fmt.Errorf("kvm: there is no CPU %d", i)
	}
	c := e.vcpus[i]
	return c.do(func() error {
		return c.sequence("set", []call{
			{"registers", func() error { return c.setGeneral(s) }},
			{"FPU", func() error { return c.setFPU(s) }},
			{"debug registers", func() error { return c.setDebug(s) }},
		})
	})
}

// SetDebug is not there yet.
func (e *Engine) SetDebug(d *x86.Debug) error {
	if d == nil || len(d.Breakpoints)+len(d.Watchpoints) == 0 && !d.Stepping {
		return nil
	}
	return errors.New("kvm: breakpoints, watchpoints and steps are not there yet: use --engine soft")
}
