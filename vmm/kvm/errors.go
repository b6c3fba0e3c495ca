//go:build linux && amd64

package kvm

import (
	"fmt"

	"fifovm/vmm/x86"
)

// errorf is an error of a CPU that can't go on, with its registers.
func (c *vcpu) errorf(format string, args ...any) error {
	err := &x86.Stuck{CPU: c.index, Err: fmt.Errorf("kvm: "+format, args...)}
	err.Registers, _ = c.registers()
	return err
}

// tripleFault has no registers on AMD's processors, where they are undefined
// after a shutdown and KVM puts the CPU into the state after INIT.
func (c *vcpu) tripleFault() error {
	err := &x86.Stuck{CPU: c.index, Err: x86.ErrTripleFault}
	if s, e := c.registers(); e == nil && (s.RIP != 0xfff0 || s.CR0&x86.CR0PE != 0) {
		err.Registers = s
	}
	return err
}

// registers are the CPU's state for a report, as far as it can be had.
func (c *vcpu) registers() (*x86.CPU, error) {
	s := new(x86.CPU)
	return s, c.general(s)
}

// internalError reports an exit by which KVM gives up. Where it could not
// emulate an instruction, the error names it.
func (c *vcpu) internalError() error {
	suberror := uint32(c.run.Data[0])
	if suberror != suberrorEmulation {
		return c.errorf("internal error, suberror %d, data %#x", suberror, c.run.Data[1])
	}
	s, err := c.registers()
	if err != nil {
		return c.errorf("could not emulate an instruction, nor give the registers: %w", err)
	}
	return &x86.Stuck{CPU: c.index, Registers: s, Err: fmt.Errorf("%w: %s at %#x, CPL %d", ErrNotEmulated,
		x86.Disassemble(c.code(s), s), s.RIP, s.Seg[x86.SS].DPL)}
}

// code reads the bytes at the instruction pointer, up to the longest
// instruction's 15, as far as they are mapped to RAM.
func (c *vcpu) code(s *x86.CPU) []byte {
	var code []byte
	for i := range uint64(15) {
		var b [1]byte
		gpa, ok := c.translate(s.Seg[x86.CS].Base + s.RIP + i)
		if !ok || c.engine.cfg.RAM.Read(gpa, b[:]) != nil {
			break
		}
		code = append(code, b[0])
	}
	return code
}
