package x86

import (
	"fmt"

	"golang.org/x/arch/x86/x86asm"
)

// CodeBits is the size of the code that the CPU executes: 16, 32 or 64 bits.
func (c *CPU) CodeBits() int {
	switch {
	case c.Seg[CS].L != 0:
		return 64
	case c.Seg[CS].DB != 0:
		return 32
	}
	return 16
}

// Disassemble describes the instruction that code begins with, for reports: in
// Intel's syntax and as bytes. The CPU says how it is to be read.
func Disassemble(code []byte, c *CPU) string {
	if len(code) == 0 {
		return "bytes that are not in RAM"
	}
	mode := c.CodeBits()
	if mode == 64 && len(code) >= 3 && code[0] == 0xc5 && code[2] == 0x77 {
		// x86asm takes these for instructions with operands.
		name := "vzeroupper"
		if code[1]&4 != 0 { // VEX.L: 256 bits
			name = "vzeroall"
		}
		return fmt.Sprintf("%q (% x)", name, code[:3])
	}
	inst, err := x86asm.Decode(code, mode)
	if err != nil || inst.Op == 0 { // 0: prefixes alone
		return fmt.Sprintf("bytes that the disassembler doesn't know (% x)", code)
	}
	return fmt.Sprintf("%q (% x)", x86asm.IntelSyntax(inst, c.RIP, nil), code[:inst.Len])
}
