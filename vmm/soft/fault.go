package soft

import "fifovm/vmm/x86"

// fault is an exception that an instruction ran into. A handler throws it by a
// panic, which run recovers: a fault may come from any depth, is rare beside
// the instructions that have none, and then nothing that follows may happen.
type fault struct {
	vector  uint8
	hasCode bool
	code    uint32
	cr2     uint64 // of a page fault
}

// thrown is what handlers panic with.
type thrown uint8

const (
	// throwFault: cpu.fault is to be delivered.
	throwFault thrown = iota
	// throwAlone: the instruction overwrites its own block, and is to be executed
	// once more in a block of its own.
	throwAlone
	// throwStuck: cpu.engine.stuck says why the CPU can't go on.
	throwStuck
	// throwStop: cpu.engine.debug.trap says why the run ends before this
	// instruction.
	throwStop
	// throwTrap: #DB as a trap comes before this instruction, with cpu.dr6 set.
	throwTrap
)

// raise throws an exception that has no error code.
func (c *cpu) raise(vector uint8) {
	c.fault = fault{vector: vector}
	panic(throwFault)
}

// raiseCode throws an exception with an error code.
func (c *cpu) raiseCode(vector uint8, code uint32) {
	c.fault = fault{vector: vector, hasCode: true, code: code}
	panic(throwFault)
}

func (c *cpu) raisePF(addr uint64, code uint32) {
	c.fault = fault{vector: x86.PF, hasCode: true, code: code, cr2: addr}
	panic(throwFault)
}

func (c *cpu) raiseUD()            { c.raise(x86.UD) }
func (c *cpu) raiseGP(code uint32) { c.raiseCode(x86.GP, code) }

// handlers that only fault, for the decoder.
func opUD(c *cpu, _ *op) { c.raiseUD() }
func opNM(c *cpu, _ *op) { c.raise(x86.NM) }
func opGP(c *cpu, _ *op) { c.raiseGP(0) }
