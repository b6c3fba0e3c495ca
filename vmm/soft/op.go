package soft

//go:generate go run gen_alu.go

// op is a decoded instruction: what to call, and its operands. Which of the
// fields mean something is between the decoder and the handler.
type op struct {
	fn   handler
	disp uint64 // displacement, sign-extended; for RIP-relative operands from the block's start
	imm  uint64 // immediate, extended as the instruction wants it
	// The slots of cpu.r that make up the address of a memory operand; slotZero
	// for a part that isn't there.
	base, index, seg uint8
	scale            uint8 // shift of the index: 0 to 3
	reg, rm          uint8 // registers by number; rm only where the operand is a register
	size             uint8 // operand size in bytes: 1, 2, 4 or 8
	cond             uint8 // condition code, or another small number that the handler knows
	flags            opFlags
	off, length      uint8 // where the instruction begins in its block, and its bytes
	rep              uint8 // repNone, repE or repN
	addrSize         uint8 // in bytes: 2, 4 or 8
}

// handler executes an instruction. It leaves the CPU unchanged where it throws a
// fault.
type handler func(c *cpu, o *op)

type opFlags uint8

const (
	// flagMem: the r/m operand is memory.
	flagMem opFlags = 1 << iota
	// flagSlowEA: the address needs more than a sum: it is shorter than 64 bits,
	// or its segment has a limit.
	flagSlowEA
	// flagREX: byte registers 4 to 7 are SPL, BPL, SIL and DIL.
	flagREX
	// flagStack: the memory operand is in the stack segment, so that an address
	// which is not canonical is #SS.
	flagStack
	// flagPush: there is an access to the stack besides the operand.
	flagPush
)

// Values of op.rep.
const (
	repNone = iota
	repE    // F3: REP, REPE
	repN    // F2: REPNE
)

// ea is the linear address of the memory operand.
func (o *op) ea(c *cpu) uint64 {
	if o.flags&flagSlowEA != 0 {
		return c.slowEA(o, o.offset(c), 0)
	}
	return c.r[o.base&31] + c.r[o.index&31]<<(o.scale&3) + c.r[o.seg&31] + o.disp
}

// offset is the effective address: the memory operand's offset in its segment.
func (o *op) offset(c *cpu) uint64 {
	a := c.r[o.base&31] + c.r[o.index&31]<<(o.scale&3) + o.disp
	switch o.addrSize {
	case 2:
		return a & 0xffff
	case 4:
		return a & 0xffff_ffff
	}
	return a
}
