package soft

import (
	"encoding/binary"
	"math/bits"

	"fifovm/vmm/x86"
)

// The decoder (SDM volume 2, chapter 2 and appendix A) makes an op of an
// instruction's bytes. It looks at nothing but them and the mode.

// maxInstruction is the longest instruction in bytes; a longer one is #GP.
const maxInstruction = 15

type decoder struct {
	code      []byte // from the instruction's start on
	pos       int
	start     uint64 // where in the block
	short     bool   // code ended before the instruction did
	mode      mode
	rex       uint8
	osize     bool // prefix 66
	asize     bool // prefix 67
	rep       uint8
	lock      bool
	lockOK    bool  // the instruction may be locked
	segment   uint8 // slot of the override, or 0
	modrm     uint8
	ripRel    bool
	end       bool // no further instruction in this block
	shadow    bool // interrupts are held off for one more instruction
	branch    bool // the handler sets RIP, and nothing has to follow it
	undefined bool // not even one of those that are defined as undefined
	o         *op
}

const (
	rexB = 1 << iota
	rexX
	rexR
	rexW
)

// decode fills in o from code, which begins start bytes behind the block's
// start.
func (d *decoder) decode(code []byte, start uint8, m mode, o *op) {
	*d = decoder{code: code, start: uint64(start), mode: m, o: o}
	*o = op{base: slotZero, index: slotZero, seg: slotZero, off: start}
	opcode := d.prefixes()
	o.rep = d.rep
	o.size = 4
	switch {
	case d.is64() && d.rex&rexW != 0:
		o.size = 8
	case d.osize != (m&(mode64|mode32) == 0):
		o.size = 2
	}
	switch {
	case d.is64() && !d.asize:
		o.addrSize = 8
	case d.is64() || d.asize != (m&mode32 != 0):
		o.addrSize = 4
	default:
		o.addrSize = 2
	}
	if d.rex != 0 {
		o.flags |= flagREX
	}
	d.one(opcode)
	if d.lock && (!d.lockOK || o.flags&flagMem == 0) {
		d.fault(opUD)
	}
	if d.ripRel {
		o.disp += d.start + uint64(d.pos)
	}
	if d.pos > maxInstruction {
		d.fault(opGP)
		d.short, d.undefined = false, false
	}
	if o.fn == nil {
		d.fault(opUD)
		d.undefined = true
	}
	o.length = uint8(d.pos)
}

// fault makes the instruction one that only faults.
func (d *decoder) fault(fn handler) {
	d.o.fn, d.end = fn, true
}

func (d *decoder) is64() bool { return d.mode&mode64 != 0 }

// prefixes reads up to the opcode, which it returns.
func (d *decoder) prefixes() uint8 {
	for d.pos <= maxInstruction {
		b := d.byte()
		switch b {
		case 0x66:
			d.osize = true
		case 0x67:
			d.asize = true
		case 0xf0:
			d.lock = true
		case 0xf2:
			d.rep = repN
		case 0xf3:
			d.rep = repE
		case 0x26, 0x2e, 0x36, 0x3e: // ES, CS, SS, DS: without meaning in 64-bit mode
			if !d.is64() {
				d.segment = slotES + b>>3&3
			}
		case 0x64, 0x65:
			d.segment = slotFS + b&1
		default:
			if d.is64() && b&0xf0 == 0x40 {
				d.rex = b&0xf | 0x40
				b = d.byte()
				if isPrefix(b) { // a REX that is not the last prefix doesn't count
					d.rex = 0
					d.pos--
					continue
				}
				if b&0xf0 == 0x40 {
					d.pos--
					continue
				}
			}
			return b
		}
	}
	return 0x90 // it is too long already, whatever it is
}

func isPrefix(b uint8) bool {
	switch b {
	case 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65:
		return true
	}
	return false
}

func (d *decoder) byte() uint8 {
	if d.pos >= len(d.code) {
		d.short = true
		d.pos++
		return 0
	}
	b := d.code[d.pos]
	d.pos++
	return b
}

// immediate reads n bytes, sign-extended.
func (d *decoder) immediate(n uint8) uint64 {
	var b [8]byte
	for i := range n {
		b[i] = d.byte()
	}
	v := binary.LittleEndian.Uint64(b[:])
	return uint64(int64(v<<(64-8*n)) >> (64 - 8*n))
}

// immZ reads an immediate of the operand's size, of at most 4 bytes.
func (d *decoder) immZ() uint64 { return d.immediate(min(d.o.size, 4)) }

// si is the logarithm of the operand's size.
func (d *decoder) si() int { return bits.TrailingZeros8(d.o.size) }

// sub is the opcode extension in the reg field, without REX.R.
func (d *decoder) sub() uint8 { return d.modrm >> 3 & 7 }

func (d *decoder) mem() bool { return d.o.flags&flagMem != 0 }

// readModRM reads ModR/M, SIB and displacement.
func (d *decoder) readModRM() {
	o := d.o
	d.modrm = d.byte()
	mod, rm := d.modrm>>6, d.modrm&7
	o.reg = d.modrm>>3&7 | d.rex&rexR<<1
	if mod == 3 {
		o.rm = rm | d.rex&rexB<<3
		return
	}
	o.flags |= flagMem
	if o.addrSize == 2 {
		d.address16(mod, rm)
		return
	}
	stack := false
	if rm == 4 {
		sib := d.byte()
		o.scale = sib >> 6
		if index := sib>>3&7 | d.rex&rexX<<2; index != 4 {
			o.index = index
		}
		rm = sib & 7
	}
	switch {
	case mod == 0 && rm == 5:
		if d.modrm&7 == 5 && d.is64() {
			o.base = slotRIP
			d.ripRel = true
		}
		mod = 2
	default:
		o.base = rm | d.rex&rexB<<3
		stack = o.base == x86.RSP || o.base == x86.RBP
	}
	switch mod {
	case 1:
		o.disp = d.immediate(1)
	case 2:
		o.disp = d.immediate(4)
	}
	d.useSegment(stack)
}

// useSegment settles the segment of a memory operand.
func (d *decoder) useSegment(stack bool) {
	o := d.o
	switch {
	case d.is64():
		if d.segment != 0 {
			o.seg = d.segment
		} else if stack {
			o.flags |= flagStack
		}
		if o.addrSize != 8 {
			o.flags |= flagSlowEA
		}
		return
	case d.segment != 0:
		o.seg = d.segment
	case stack:
		o.seg = slotSS
	default:
		o.seg = slotDS
	}
	if o.seg == slotSS {
		o.flags |= flagStack
	}
	o.flags |= flagSlowEA
}

// address16 is the addressing of 16-bit code (SDM volume 2, table 2-1).
func (d *decoder) address16(mod, rm uint8) {
	o := d.o
	pairs := [8][2]uint8{{x86.RBX, x86.RSI}, {x86.RBX, x86.RDI}, {x86.RBP, x86.RSI}, {x86.RBP, x86.RDI},
		{x86.RSI, slotZero}, {x86.RDI, slotZero}, {x86.RBP, slotZero}, {x86.RBX, slotZero}}
	if mod == 0 && rm == 6 {
		o.disp = d.immediate(2)
		d.useSegment(false)
		return
	}
	o.base, o.index = pairs[rm][0], pairs[rm][1]
	switch mod {
	case 1:
		o.disp = d.immediate(1)
	case 2:
		o.disp = d.immediate(2)
	}
	d.useSegment(o.base == x86.RBP)
}

// byteReg gives the number under which cpu.byteReg knows a byte register: 4 to 7
// are AH to BH where there is no REX prefix.
func (d *decoder) byteReg(n uint8) uint8 {
	if d.rex == 0 && n >= 4 && n < 8 {
		return n - 4 + highByte
	}
	return n
}

// bytes makes the operands byte registers.
func (d *decoder) bytes() {
	o := d.o
	o.size = 1
	o.reg = d.byteReg(o.reg)
	if !d.mem() {
		o.rm = d.byteReg(o.rm)
	}
}

// sized reads ModR/M for an instruction whose lowest opcode bit tells bytes from
// words.
func (d *decoder) sized(opcode uint8) {
	d.readModRM()
	if opcode&1 == 0 {
		d.bytes()
	}
}

// stackSize makes the operand that of PUSH, POP and the like, 8 bytes in 64-bit
// mode.
func (d *decoder) stackSize() {
	d.o.flags |= flagPush
	if d.is64() {
		d.o.size = 8
		if d.osize {
			d.o.size = 2
		}
	}
}

// branchSize makes the operand that of a near branch: 8 bytes in 64-bit mode,
// where Intel's processors ignore the prefix 66 (SDM volume 2, JMP).
func (d *decoder) branchSize() {
	if d.is64() {
		d.o.size = 8
	}
}

// relative ends the block with a branch by an immediate of n bytes.
func (d *decoder) relative(n uint8, fn, slow handler) {
	o := d.o
	d.branchSize()
	o.imm = d.immediate(n)
	o.disp = d.start + uint64(d.pos) // to the next instruction
	o.imm += o.disp
	o.fn = fn
	if !d.is64() {
		o.fn = slow
	}
	d.endBranch()
}

// endBranch ends the block with a near branch.
func (d *decoder) endBranch() { d.end, d.branch = true, true }

// finish is for instructions after which the block ends, since they may change
// what the next one depends on.
func (d *decoder) finish(fn handler) {
	d.o.fn = fn
	d.end = true
}

// one decodes an instruction of the one-byte map.
func (d *decoder) one(opcode uint8) {
	o := d.o
	switch {
	case opcode == 0x0f:
		d.two()
		return
	case opcode < 0x40 && opcode&7 < 6:
		d.alu(opcode)
		return
	case opcode >= 0x40 && opcode < 0x50: // a REX prefix in 64-bit mode
		o.rm = opcode & 7
		o.fn = incDec[opcode>>3&1][0][d.si()]
		return
	case opcode >= 0x50 && opcode < 0x60:
		d.stackSize()
		o.rm = opcode&7 | d.rex&rexB<<3
		switch fast := o.size == 8; {
		case fast && opcode < 0x58:
			o.fn = opPush64
		case fast:
			o.fn = opPop64
		case opcode < 0x58:
			o.fn = opPush
		default:
			o.fn = opPop
		}
		return
	case opcode >= 0x70 && opcode < 0x80:
		o.cond = opcode & 0xf
		d.relative(1, jcc[o.cond], opJccLegacy)
		return
	case opcode >= 0x80 && opcode < 0x84:
		d.group1(opcode)
		return
	case opcode >= 0x91 && opcode < 0x98:
		o.reg, o.rm = x86.RAX, opcode&7|d.rex&rexB<<3
		o.fn = opXchg
		return
	case opcode >= 0xb0 && opcode < 0xb8:
		o.size = 1
		o.rm = d.byteReg(opcode&7 | d.rex&rexB<<3)
		o.imm = d.immediate(1)
		o.fn = movRI[0]
		return
	case opcode >= 0xb8 && opcode < 0xc0:
		o.rm = opcode&7 | d.rex&rexB<<3
		o.imm = d.immediate(o.size)
		o.fn = movRI[d.si()]
		return
	case opcode >= 0xd8 && opcode < 0xe0:
		d.readModRM()
		o.imm = uint64(opcode)<<8 | uint64(d.modrm) // for FOP
		if d.mode&modeFPU == 0 {
			d.fault(opNM)
			return
		}
		o.fn = x87Handler(opcode, d.modrm)
		return
	}
	switch opcode {
	case 0x06, 0x0e, 0x16, 0x1e: // PUSH ES, CS, SS, DS
		if !d.is64() {
			o.reg = opcode >> 3
			d.stackSize()
			o.fn = opPushSegment
		}
	case 0x07, 0x17, 0x1f: // POP ES, SS, DS
		if !d.is64() {
			o.reg = opcode >> 3
			d.stackSize()
			d.finish(opPopSegment)
			d.shadow = o.reg == x86.SS
		}
	case 0x27, 0x2f, 0x37, 0x3f: // DAA, DAS, AAA, AAS
		if !d.is64() {
			o.fn = [4]handler{opDAA, opDAS, opAAA, opAAS}[opcode>>3&3]
		}
	case 0x60, 0x61: // PUSHA, POPA
		if !d.is64() {
			o.fn = [2]handler{opPusha, opPopa}[opcode&1]
		}
	case 0x62: // BOUND; EVEX in 64-bit mode
		if !d.is64() {
			d.readModRM()
			if d.mem() {
				o.fn = opBound
			} else {
				d.fault(opUD)
			}
		}
	case 0x63: // MOVSXD, ARPL
		d.readModRM()
		switch {
		case !d.is64():
			o.size = 2
			o.fn = opARPL
		case d.mem():
			o.fn = movsxRM[2][d.si()]
		default:
			o.fn = movsxRR[2][d.si()]
		}
	case 0x68, 0x6a: // PUSH immediate
		d.stackSize()
		if opcode == 0x68 {
			o.imm = d.immZ()
		} else {
			o.imm = d.immediate(1)
		}
		o.fn = opPushImm
	case 0x69, 0x6b: // IMUL with an immediate
		d.readModRM()
		if opcode == 0x69 {
			o.imm = d.immZ()
		} else {
			o.imm = d.immediate(1)
		}
		o.fn = opImul3
	case 0x6c, 0x6d, 0x6e, 0x6f: // INS, OUTS
		d.string(opcode)
		o.size = min(o.size, 4)
		d.finish([2]handler{opIns, opOuts}[opcode>>1&1])
	case 0x84, 0x85: // TEST
		d.sized(opcode)
		d.aluRM(8, false)
	case 0x86, 0x87: // XCHG
		d.sized(opcode)
		d.lockOK = true
		o.fn = opXchg
	case 0x88, 0x89: // MOV
		d.sized(opcode)
		if d.mem() {
			o.fn = movMR[d.si()]
		} else {
			o.fn = movRR[d.si()]
		}
	case 0x8a, 0x8b:
		d.sized(opcode)
		if d.mem() {
			o.fn = movRM[d.si()]
		} else {
			o.rm, o.reg = o.reg, o.rm
			o.fn = movRR[d.si()]
		}
	case 0x8c: // MOV from a segment register
		d.readModRM()
		o.reg &= 7
		if o.reg <= x86.GS {
			o.fn = opMovFromSegment
		} else {
			d.fault(opUD)
		}
	case 0x8d: // LEA
		d.readModRM()
		switch {
		case !d.mem():
			d.fault(opUD)
		case o.addrSize == 8 && o.size == 8:
			o.seg = slotZero
			o.fn = opLea64
		case o.addrSize == 8 && o.size == 4:
			o.seg = slotZero
			o.fn = opLea32
		default:
			o.fn = opLea
		}
	case 0x8e: // MOV to a segment register
		d.readModRM()
		o.reg &= 7
		if o.reg <= x86.GS && o.reg != x86.CS {
			d.finish(opMovToSegment)
			d.shadow = o.reg == x86.SS
		} else {
			d.fault(opUD)
		}
	case 0x8f: // POP
		d.readModRM()
		if d.sub() != 0 { // XOP
			d.fault(opUD)
			return
		}
		d.stackSize()
		if d.mem() {
			o.fn = opPopMem
		} else {
			o.fn = opPop
		}
	case 0x90: // NOP, PAUSE, XCHG with R8
		if d.rex&rexB != 0 {
			o.reg, o.rm = x86.RAX, x86.R8
			o.fn = opXchg
			return
		}
		o.fn = opNop
		if d.rep == repE {
			d.finish(opPause)
		}
	case 0x98: // CBW, CWDE, CDQE
		o.fn = opCbw
	case 0x99: // CWD, CDQ, CQO
		o.fn = opCwd
	case 0x9a, 0xea: // CALL and JMP far
		if !d.is64() {
			o.imm = d.immediate(o.size) & sizeMask(o.size)
			o.disp = d.immediate(2) & 0xffff
			d.finish([2]handler{opCallFarImm, opJmpFarImm}[opcode>>6&1])
		}
	case 0x9b: // FWAIT
		o.fn = opFwait
	case 0x9c: // PUSHF
		d.stackSize()
		o.fn = opPushf
	case 0x9d: // POPF
		d.stackSize()
		d.finish(opPopf)
	case 0x9e: // SAHF
		o.fn = opSahf
	case 0x9f: // LAHF
		o.fn = opLahf
	case 0xa0, 0xa1, 0xa2, 0xa3: // MOV at an absolute address
		if opcode&1 == 0 {
			o.size = 1
		}
		o.disp = d.immediate(o.addrSize)
		if o.addrSize == 4 {
			o.disp &= 0xffff_ffff
		}
		o.flags |= flagMem
		o.reg = x86.RAX
		d.useSegment(false)
		if opcode < 0xa2 {
			o.fn = movRM[d.si()]
		} else {
			o.fn = movMR[d.si()]
		}
	case 0xa4, 0xa5:
		d.string(opcode)
		o.fn = opMovs
	case 0xa6, 0xa7:
		d.string(opcode)
		o.fn = opCmps
	case 0xa8, 0xa9: // TEST
		d.accumulator(opcode, 8)
	case 0xaa, 0xab:
		d.string(opcode)
		o.fn = opStos
	case 0xac, 0xad:
		d.string(opcode)
		o.fn = opLods
	case 0xae, 0xaf:
		d.string(opcode)
		o.fn = opScas
	case 0xc0, 0xc1: // shifts
		d.sized(opcode)
		o.imm = d.immediate(1) & 0xff
		d.shift()
	case 0xd0, 0xd1:
		d.sized(opcode)
		o.imm = 1
		d.shift()
	case 0xd2, 0xd3:
		d.sized(opcode)
		o.cond = d.sub()
		o.fn = opShiftCL
	case 0xc2, 0xc3: // RET
		d.stackSize()
		d.branchSize()
		if opcode == 0xc2 {
			o.imm = d.immediate(2) & 0xffff
		}
		d.endBranch()
		if d.is64() {
			o.fn = opRet64
		} else {
			o.fn = opRet
		}
	case 0xc4, 0xc5: // LES, LDS; VEX in 64-bit mode
		if d.is64() {
			d.fault(opUD)
			d.undefined = true
			return
		}
		d.readModRM()
		o.cond = [2]uint8{x86.ES, x86.DS}[opcode&1]
		d.loadFarPointer()
	case 0xc6, 0xc7: // MOV immediate
		d.sized(opcode)
		if d.sub() != 0 {
			d.fault(opUD)
			return
		}
		if o.size == 1 {
			o.imm = d.immediate(1)
		} else {
			o.imm = d.immZ()
		}
		if d.mem() {
			o.fn = movMI[d.si()]
		} else {
			o.fn = movRI[d.si()]
		}
	case 0xc8: // ENTER
		d.stackSize()
		o.imm = d.immediate(2) & 0xffff
		o.disp = d.immediate(1) & 0x1f
		o.fn = opEnter
	case 0xc9: // LEAVE
		d.stackSize()
		o.fn = opLeave
	case 0xca, 0xcb: // RET far
		o.flags |= flagPush
		if opcode == 0xca {
			o.imm = d.immediate(2) & 0xffff
		}
		d.finish(opRetFar)
	case 0xcc: // INT3
		o.imm = x86.BP
		d.finish(opInt3)
	case 0xcd: // INT
		o.imm = d.immediate(1) & 0xff
		d.finish(opInt)
	case 0xce: // INTO
		if !d.is64() {
			d.finish(opInto)
		}
	case 0xcf: // IRET
		o.flags |= flagPush
		d.finish(opIret)
	case 0xd4, 0xd5: // AAM, AAD
		if !d.is64() {
			o.imm = d.immediate(1) & 0xff
			o.fn = [2]handler{opAAM, opAAD}[opcode&1]
		}
	case 0xd6: // SALC, which no manual of Intel's has
		if !d.is64() {
			o.fn = opSalc
		}
	case 0xd7: // XLAT
		o.flags |= flagMem
		o.base = x86.RBX
		d.useSegment(false)
		o.fn = opXlat
	case 0xe0, 0xe1, 0xe2, 0xe3: // LOOPNE, LOOPE, LOOP, JCXZ
		o.cond = opcode & 3
		d.relative(1, opLoop, opLoop)
	case 0xe4, 0xe5, 0xe6, 0xe7: // IN, OUT
		if opcode&1 == 0 {
			o.size = 1
		}
		o.size = min(o.size, 4)
		o.imm = d.immediate(1) & 0xff
		d.finish([2]handler{opIn, opOut}[opcode>>1&1])
	case 0xec, 0xed, 0xee, 0xef:
		if opcode&1 == 0 {
			o.size = 1
		}
		o.size = min(o.size, 4)
		d.finish([2]handler{opInDX, opOutDX}[opcode>>1&1])
	case 0xe8: // CALL
		o.flags |= flagPush
		d.relative(d.relSize(), opCall64, opCallLegacy)
	case 0xe9: // JMP
		d.relative(d.relSize(), opJmp, opJmpLegacy)
	case 0xeb:
		d.relative(1, opJmp, opJmpLegacy)
	case 0xf1: // INT1
		o.imm = x86.DB
		d.finish(opInt1)
	case 0xf4:
		d.finish(opHlt)
	case 0xf5:
		o.fn = opCmc
	case 0xf6, 0xf7:
		d.group3(opcode)
	case 0xf8:
		o.fn = opClc
	case 0xf9:
		o.fn = opStc
	case 0xfa:
		o.fn = opCli
	case 0xfb:
		o.fn = opSti
		d.end, d.shadow = true, true
	case 0xfc:
		o.fn = opCld
	case 0xfd:
		o.fn = opStd
	case 0xfe, 0xff:
		d.group5(opcode)
	}
}

// relSize is the size of a near branch's displacement in bytes.
func (d *decoder) relSize() uint8 {
	if d.is64() {
		return 4
	}
	return min(d.o.size, 4)
}

// alu decodes the eight arithmetic instructions with registers and memory.
func (d *decoder) alu(opcode uint8) {
	n := int(opcode >> 3)
	if opcode&7 >= 4 {
		d.accumulator(opcode, n)
		return
	}
	d.sized(opcode)
	d.aluRM(n, opcode&2 != 0)
}

// aluRM settles the handler of instruction n of alu.go; load says that reg is
// the destination.
func (d *decoder) aluRM(n int, load bool) {
	o, si := d.o, d.si()
	switch {
	case !d.mem():
		if load {
			o.reg, o.rm = o.rm, o.reg
		}
		o.fn = aluRR[n][si]
	case load:
		o.fn = aluRM[n][si]
	default:
		o.fn = aluMR[n][si]
		d.lockOK = n < 7
	}
}

// accumulator is instruction n of alu.go with AL or eAX and an immediate.
func (d *decoder) accumulator(opcode uint8, n int) {
	o := d.o
	o.rm = x86.RAX
	if opcode&1 == 0 {
		o.size = 1
		o.imm = d.immediate(1)
	} else {
		o.imm = d.immZ()
	}
	o.fn = aluRI[n][d.si()]
}

func (d *decoder) group1(opcode uint8) {
	o := d.o
	if opcode == 0x82 && d.is64() {
		d.fault(opUD)
		return
	}
	d.sized(opcode)
	if opcode == 0x81 {
		o.imm = d.immZ()
	} else {
		o.imm = d.immediate(1)
	}
	n := d.sub()
	if d.mem() {
		o.fn = aluMI[n][d.si()]
		d.lockOK = n < 7
	} else {
		o.fn = aluRI[n][d.si()]
	}
}

// shift settles the handler for a count in imm.
func (d *decoder) shift() {
	o := d.o
	o.cond = d.sub()
	count := o.shiftCount(uint(o.imm))
	o.fn = opShiftImm
	if !d.mem() && count != 0 && o.size >= 4 {
		if f := shiftRI[o.cond][d.si()-2]; f != nil {
			o.imm, o.fn = uint64(count), f
		}
	}
}

func (d *decoder) group3(opcode uint8) {
	o := d.o
	d.sized(opcode)
	switch n := d.sub(); n {
	case 0, 1: // TEST; 1 is undocumented and the same
		if o.size == 1 {
			o.imm = d.immediate(1)
		} else {
			o.imm = d.immZ()
		}
		if d.mem() {
			o.fn = aluMI[8][d.si()]
		} else {
			o.fn = aluRI[8][d.si()]
		}
	case 2:
		o.fn = opNot
		d.lockOK = true
	case 3:
		o.fn = opNeg
		d.lockOK = true
	default:
		o.fn = [4]handler{opMul, opImul1, opDiv, opIdiv}[n-4]
	}
}

func (d *decoder) group5(opcode uint8) {
	o := d.o
	d.sized(opcode)
	n := d.sub()
	if opcode == 0xfe && n > 1 {
		d.fault(opUD)
		return
	}
	switch n {
	case 0, 1: // INC, DEC
		form := 0
		if d.mem() {
			form = 1
			d.lockOK = true
		}
		o.fn = incDec[n][form][d.si()]
	case 2: // CALL
		d.branchSize()
		d.endBranch()
		o.flags |= flagPush
		o.fn = opCallIndirect
	case 4: // JMP
		d.branchSize()
		d.endBranch()
		o.fn = opJmpIndirect
	case 3, 5: // far
		if !d.mem() {
			d.fault(opUD)
			return
		}
		d.finish([2]handler{opCallFarMem, opJmpFarMem}[n>>2])
	case 6: // PUSH
		d.stackSize()
		if d.mem() {
			o.fn = opPushMem
		} else {
			o.fn = opPush
		}
	default:
		d.fault(opUD)
	}
}

// string settles size and segment of a string instruction.
func (d *decoder) string(opcode uint8) {
	o := d.o
	if opcode&1 == 0 {
		o.size = 1
	}
	o.seg = slotDS
	if d.segment != 0 {
		o.seg = d.segment
	} else if d.is64() {
		o.seg = slotZero
	}
	// One that is interrupted goes on with the same instruction.
	if d.rep != repNone {
		d.end = true
	}
}

// loadFarPointer is LDS and its like, into the segment register in o.cond.
func (d *decoder) loadFarPointer() {
	if !d.mem() {
		d.fault(opUD)
		return
	}
	d.finish(opLoadFarPointer)
	d.shadow = d.o.cond == x86.SS
}

// two decodes an instruction of the two-byte map.
func (d *decoder) two() {
	o := d.o
	opcode := d.byte()
	switch {
	case opcode >= 0x40 && opcode < 0x50:
		d.readModRM()
		o.cond = opcode & 0xf
		if d.mem() {
			o.fn = opCmovMem
		} else {
			o.fn = opCmov
		}
		return
	case opcode >= 0x80 && opcode < 0x90:
		o.cond = opcode & 0xf
		d.relative(d.relSize(), jcc[o.cond], opJccLegacy)
		return
	case opcode >= 0x90 && opcode < 0xa0:
		d.readModRM()
		d.bytes()
		o.cond = opcode & 0xf
		o.fn = opSetcc
		return
	case opcode >= 0xc8 && opcode < 0xd0:
		o.rm = opcode&7 | d.rex&rexB<<3
		o.fn = opBswap
		return
	case opcode >= 0x19 && opcode < 0x20: // hints, ENDBR among them
		d.readModRM()
		o.fn = opNop
		return
	}
	switch opcode {
	case 0x00:
		d.group6()
	case 0x01:
		d.group7()
	case 0x02:
		d.readModRM()
		o.fn = opLar
	case 0x03:
		d.readModRM()
		o.fn = opLsl
	case 0x05:
		d.finish(opSyscall)
		if !d.is64() {
			d.fault(opUD) // Intel's processors have it in 64-bit mode only
		}
	case 0x06:
		d.finish(opClts)
	case 0x07:
		d.finish(opSysret)
		if !d.is64() {
			d.fault(opUD)
		}
	case 0x08, 0x09: // INVD, WBINVD
		o.fn = opWbinvd
	case 0x0b:
		d.fault(opUD)
	case 0x0d: // PREFETCHW
		d.readModRM()
		o.fn = opNop
		if !d.mem() {
			d.fault(opUD)
		}
	case 0x18: // PREFETCH
		d.readModRM()
		o.fn = opNop
	case 0x20, 0x21, 0x22, 0x23: // MOV to and from CR and DR: always registers
		d.modrm = d.byte()
		o.reg = d.modrm>>3&7 | d.rex&rexR<<1
		o.rm = d.modrm&7 | d.rex&rexB<<3
		o.size = 4
		if d.is64() {
			o.size = 8
		}
		if opcode&1 == 0 && d.lock { // AMD's way to CR8 from 32-bit code
			d.fault(opUD)
			return
		}
		d.finish([4]handler{opMovFromCR, opMovFromDR, opMovToCR, opMovToDR}[opcode&3])
	case 0x30:
		d.finish(opWrmsr)
	case 0x31:
		o.fn = opRdtsc
	case 0x32:
		d.finish(opRdmsr)
	case 0x33:
		o.fn = opRdpmc
	case 0x34:
		d.finish(opSysenter)
	case 0x35:
		d.finish(opSysexit)
	case 0x38:
		d.three38()
	case 0x3a:
		d.simd(3, d.byte())
	case 0xa0, 0xa8: // PUSH FS, GS
		d.stackSize()
		o.reg = x86.FS + opcode>>3&1
		o.fn = opPushSegment
	case 0xa1, 0xa9: // POP
		d.stackSize()
		o.reg = x86.FS + opcode>>3&1
		d.finish(opPopSegment)
	case 0xa2:
		o.fn = opCpuid
	case 0xa3, 0xab, 0xb3, 0xbb: // BT, BTS, BTR, BTC with a register
		d.readModRM()
		o.cond = opcode >> 3 & 3
		d.lockOK = o.cond != 0
		o.fn = opBitReg
	case 0xba:
		d.readModRM()
		o.imm = d.immediate(1) & 0xff
		if d.sub() < 4 {
			d.fault(opUD)
			return
		}
		o.cond = d.sub() & 3
		d.lockOK = o.cond != 0
		o.fn = opBitImm
	case 0xa4, 0xac: // SHLD, SHRD
		d.readModRM()
		o.imm = d.immediate(1) & 0xff
		o.cond = opcode >> 3 & 1
		o.fn = opDoubleShiftImm
	case 0xa5, 0xad:
		d.readModRM()
		o.cond = opcode >> 3 & 1
		o.fn = opDoubleShiftCL
	case 0xae:
		d.group15()
	case 0xaf:
		d.readModRM()
		switch {
		case o.size == 8 && !d.mem():
			o.fn = opImul64
		default:
			o.fn = opImul2
		}
	case 0xb0, 0xb1:
		d.sized(opcode)
		d.lockOK = true
		o.fn = opCmpxchg
	case 0xb2, 0xb4, 0xb5: // LSS, LFS, LGS
		d.readModRM()
		o.cond = x86.SS
		if opcode != 0xb2 {
			o.cond = x86.FS + opcode&1
		}
		d.loadFarPointer()
	case 0xb6, 0xb7, 0xbe, 0xbf: // MOVZX, MOVSX
		d.readModRM()
		if opcode&1 == 0 && !d.mem() {
			o.rm = d.byteReg(o.rm)
		}
		t := [2][2]*[3][4]handler{{&movzxRR, &movzxRM}, {&movsxRR, &movsxRM}}[opcode>>3&1]
		form := 0
		if d.mem() {
			form = 1
		}
		o.fn = t[form][opcode&1][d.si()]
	case 0xb8: // POPCNT
		d.readModRM()
		if d.rep != repE {
			d.fault(opUD)
			return
		}
		o.fn = opPopcnt
	case 0xb9, 0xff: // UD1, UD0
		d.readModRM()
		d.fault(opUD)
	case 0xbc, 0xbd: // BSF, BSR
		d.readModRM()
		o.fn = [2]handler{opBsf, opBsr}[opcode&1]
	case 0xc0, 0xc1:
		d.sized(opcode)
		d.lockOK = true
		o.fn = opXadd
	case 0xc3: // MOVNTI
		d.readModRM()
		if !d.mem() || d.osize || d.rep != repNone {
			d.fault(opUD)
			return
		}
		o.fn = movMR[d.si()]
	case 0xc7:
		d.group9()
	default:
		d.simd(1, opcode)
	}
}

// three38 is the map 0F 38.
func (d *decoder) three38() {
	o := d.o
	opcode := d.byte()
	if opcode&0xfe == 0xf0 && d.rep == repN { // CRC32
		d.readModRM()
		o.cond = o.size // of the source
		if opcode == 0xf0 {
			o.cond = 1
			if !d.mem() {
				o.rm = d.byteReg(o.rm)
			}
		}
		o.fn = opCrc32
		return
	}
	d.simd(2, opcode)
}

// simd decodes an instruction of MMX or SSE: its map (1 is 0F, 2 is 0F 38, 3 is
// 0F 3A) and opcode, and the mandatory prefix.
func (d *decoder) simd(opmap int, opcode uint8) {
	o := d.o
	prefix := 0
	switch {
	case d.rep == repE:
		prefix = simdF3
	case d.rep == repN:
		prefix = simdF2
	case d.osize:
		prefix = simd66
	}
	s := &simdOps[opmap-1][prefix][opcode]
	if opmap == 1 && opcode == 0x77 { // EMMS, the only one without ModR/M
		if s.fn == nil {
			return
		}
	} else {
		d.readModRM()
		if s.imm || opmap == 3 {
			o.imm = d.immediate(1) & 0xff
		}
		if opmap == 1 && opcode == 0xf7 { // MASKMOVQ, MASKMOVDQU: to memory at RDI
			o.base = x86.RDI
			d.useSegment(false)
		}
	}
	switch {
	case s.fn == nil, s.memOnly && !d.mem(), s.regOnly && d.mem():
		d.fault(opUD)
		d.undefined = true
		return
	}
	o.fn = s.fn
	need := modeSSE
	if s.mmx {
		need = modeFPU
	}
	if d.mode&need == 0 {
		if d.mode&modeTS != 0 {
			d.fault(opNM)
		} else {
			d.fault(opUD)
		}
	}
}

// The mandatory prefixes, as indices of simdOps.
const (
	simdNone = iota
	simd66
	simdF3
	simdF2
)

// simdOp is an instruction of simdOps. Its handler finds the registers' numbers
// in op.reg and, unless op.flags has flagMem, op.rm; REX extends them also for
// MMX, whose handlers have to cut them to 3 bits. The immediate is in op.imm.
type simdOp struct {
	fn               handler
	imm              bool // an immediate byte follows (always in map 0F 3A)
	mmx              bool // uses MMX registers
	memOnly, regOnly bool
}

func (d *decoder) group6() {
	o := d.o
	d.readModRM()
	switch n := d.sub(); n {
	case 0, 1:
		o.cond = n
		o.fn = opStoreSystemSegment // SLDT, STR
	case 2, 3:
		o.cond = n
		d.finish(opLoadSystemSegment) // LLDT, LTR
	case 4, 5:
		o.cond = n & 1
		o.fn = opVerify // VERR, VERW
	default:
		d.fault(opUD)
	}
}

func (d *decoder) group7() {
	o := d.o
	d.readModRM()
	if d.mem() {
		switch n := d.sub(); n {
		case 0, 1:
			o.cond = n
			o.fn = opStoreTable // SGDT, SIDT
		case 2, 3:
			o.cond = n & 1
			d.finish(opLoadTable) // LGDT, LIDT
		case 4:
			o.fn = opSmsw
		case 6:
			d.finish(opLmsw)
		case 7:
			d.finish(opInvlpg)
		default:
			d.fault(opUD)
		}
		return
	}
	switch {
	case d.sub() == 4:
		o.fn = opSmsw
	case d.sub() == 6:
		d.finish(opLmsw)
	case d.modrm == 0xca:
		d.finish(opClac)
	case d.modrm == 0xcb:
		d.finish(opStac)
	case d.modrm == 0xf8 && d.is64():
		d.finish(opSwapgs)
	case d.modrm == 0xf9:
		o.fn = opRdtscp
	default: // VMCALL, MONITOR, XGETBV and their like
		d.fault(opUD)
		d.undefined = true
	}
}

func (d *decoder) group9() {
	o := d.o
	d.readModRM()
	switch {
	case d.sub() == 1 && d.mem():
		d.lockOK = true
		o.fn = opCmpxchg8b
		if o.size == 8 {
			o.fn = opCmpxchg16b
		}
	default: // RDRAND, XSAVES and their like
		d.fault(opUD)
		d.undefined = true
	}
}

func (d *decoder) group15() {
	o := d.o
	d.readModRM()
	if !d.mem() {
		switch n := d.sub(); {
		case d.rep == repE && n < 4 && d.is64():
			o.cond = n
			d.finish(opFSGSBase)
		case d.rep == repNone && n >= 5: // LFENCE, MFENCE, SFENCE
			o.fn = opNop
		default:
			d.fault(opUD)
			d.undefined = true
		}
		return
	}
	n := d.sub()
	if d.rep != repNone || d.osize && n < 7 {
		d.fault(opUD)
		d.undefined = true
		return
	}
	switch n {
	case 0, 1: // FXSAVE, FXRSTOR
		o.fn = [2]handler{opFxsave, opFxrstor}[n]
		if d.mode&modeFPU == 0 {
			d.fault(opNM)
		}
	case 2, 3: // LDMXCSR, STMXCSR
		o.fn = [2]handler{opLdmxcsr, opStmxcsr}[n-2]
		switch {
		case d.mode&modeSSE != 0:
		case d.mode&modeTS != 0:
			d.fault(opNM)
		default:
			d.fault(opUD)
		}
	case 7: // CLFLUSH
		if d.osize { // CLFLUSHOPT
			d.fault(opUD)
			d.undefined = true
			return
		}
		o.fn = opClflush
	default: // XSAVE and its like
		d.fault(opUD)
		d.undefined = true
	}
}
