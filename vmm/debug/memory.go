package debug

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

// Translate gives the guest-physical address of a linear address of a CPU, with
// the supervisor's rights.
func (s *Session) Translate(cpu int, linear uint64) (phys uint64, ok bool) {
	_ = s.still(func() error {
		if c, err := s.registers(cpu); err == nil {
			phys, ok = s.translate(c, linear)
		}
		return nil
	})
	return phys, ok
}

func (s *Session) translate(c *x86.CPU, linear uint64) (uint64, bool) {
	ram := s.machine.RAM()
	return x86.Translate(c, linear, func(gpa uint64) (uint64, bool) {
		var b [8]byte
		err := ram.Read(gpa, b[:])
		return binary.LittleEndian.Uint64(b[:]), err == nil
	})
}

// Read reads memory at a linear address of a CPU, whatever the rights of its
// pages. Devices are not read.
func (s *Session) Read(cpu int, linear uint64, b []byte) error {
	_, err := s.ReadSome(cpu, linear, b)
	return err
}

// ReadSome is Read, and says how much it read before an error.
func (s *Session) ReadSome(cpu int, linear uint64, b []byte) (n int, err error) {
	err = s.still(func() error {
		n, err = s.access(cpu, linear, b, s.machine.RAM().Read)
		return err
	})
	return n, err
}

// Write writes memory at a linear address of a CPU, code and read-only pages as
// well. What comes before an error is written.
func (s *Session) Write(cpu int, linear uint64, b []byte) error {
	return s.still(func() error {
		_, err := s.access(cpu, linear, b, s.machine.RAM().Write)
		return err
	})
}

// access calls f for each page of a piece of linear memory.
func (s *Session) access(cpu int, linear uint64, b []byte, f func(gpa uint64, b []byte) error) (n int, err error) {
	c, err := s.registers(cpu)
	if err != nil {
		return 0, err
	}
	for n < len(b) {
		a := linear + uint64(n)
		part := b[n:min(uint64(len(b)), uint64(n)+memory.PageSize-a%memory.PageSize)]
		gpa, ok := s.translate(c, a)
		if !ok {
			return n, fmt.Errorf("%#x is not mapped on CPU %d", a, cpu)
		}
		if err := f(gpa, part); err != nil {
			return n, fmt.Errorf("%#x: guest-physical %#x is not RAM", a, gpa)
		}
		n += len(part)
	}
	return n, nil
}

// Line is an instruction.
type Line struct {
	Address uint64
	Bytes   []byte
	Text    string // in Intel's syntax
	Symbol  string // "function+0x12", or empty
}

const maxInstruction = 15 // bytes (SDM volume 2, 2.3.11)

// Disassemble gives n instructions from a linear address on, fewer where memory
// ends.
func (s *Session) Disassemble(cpu int, addr uint64, n int) (lines []Line) {
	_ = s.still(func() error {
		c, err := s.registers(cpu)
		if err != nil {
			return err
		}
		for range n {
			var code [maxInstruction]byte
			have, _ := s.access(cpu, addr, code[:], s.machine.RAM().Read)
			if have == 0 {
				break
			}
			l := Line{Address: addr, Symbol: s.Symbol(addr)}
			l.Bytes, l.Text = s.decode(code[:have], addr, c)
			lines = append(lines, l)
			addr += uint64(len(l.Bytes))
		}
		return nil
	})
	return lines
}

// decode gives the bytes and the text of the instruction that code begins with.
func (s *Session) decode(code []byte, addr uint64, c *x86.CPU) ([]byte, string) {
	inst, err := x86asm.Decode(code, c.CodeBits())
	if err != nil || inst.Op == 0 || inst.Len == 0 || inst.Len > len(code) {
		return code[:1], "(bad)"
	}
	name := func(a uint64) (string, uint64) {
		symbol, _, _ := strings.Cut(s.Symbol(a), "+0x0")
		if symbol == "" {
			return "", 0
		}
		return symbol, a
	}
	return code[:inst.Len], x86asm.IntelSyntax(inst, addr, name)
}
