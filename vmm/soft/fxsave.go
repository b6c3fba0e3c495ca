package soft

import (
	"encoding/binary"

	"fifovm/vmm/x86"
)

// The image of FXSAVE (SDM volume 1, 10.5.1 and table 10-2): x87, MMX, XMM
// registers and MXCSR, in that order.
const (
	fxFCW      = 0
	fxFSW      = 2
	fxFTW      = 4 // a bit for each physical register that is not empty
	fxFOP      = 6
	fxFIP      = 8
	fxFDP      = 16
	fxMXCSR    = 24
	fxMask     = 28
	fxST       = 32     // 16 bytes for each, ST(0) first
	fxXMM      = 160    // 16 bytes for each
	fxSize     = 512    // what follows the XMM registers is reserved, or the program's
	mxcsrValid = 0xffff // bits that exist: DAZ is one of them
)

// saveFPU stores the state of x87 and SSE as FXSAVE64 does.
func (c *cpu) saveFPU(b *[fxSize]byte) {
	le := binary.LittleEndian
	f := &c.fpu
	*b = [fxSize]byte{}
	le.PutUint16(b[fxFCW:], f.control)
	le.PutUint16(b[fxFSW:], f.statusWord())
	b[fxFTW] = ^f.empty
	le.PutUint16(b[fxFOP:], f.fop)
	le.PutUint64(b[fxFIP:], f.fip)
	le.PutUint64(b[fxFDP:], f.fdp)
	le.PutUint32(b[fxMXCSR:], c.mxcsr)
	le.PutUint32(b[fxMask:], mxcsrValid)
	for i := range 8 {
		v := f.get(uint8(i))
		le.PutUint64(b[fxST+16*i:], v.Mant)
		le.PutUint16(b[fxST+16*i+8:], v.SE)
	}
	for i, v := range c.xmm {
		le.PutUint64(b[fxXMM+16*i:], v.lo)
		le.PutUint64(b[fxXMM+16*i+8:], v.hi)
	}
}

// loadFPU replaces the state of x87 and SSE. Bits that the processor doesn't
// have are dropped.
func (c *cpu) loadFPU(b *[fxSize]byte) { c.loadFX(b, len(c.xmm)) }

// loadFX is loadFPU for the first n XMM registers.
func (c *cpu) loadFX(b *[fxSize]byte, n int) {
	le := binary.LittleEndian
	f := &c.fpu
	f.setControl(le.Uint16(b[fxFCW:]))
	f.setStatusWord(le.Uint16(b[fxFSW:]))
	f.empty = ^b[fxFTW]
	f.fop = le.Uint16(b[fxFOP:]) & fopBits
	f.fip = le.Uint64(b[fxFIP:])
	f.fdp = le.Uint64(b[fxFDP:])
	c.mxcsr = le.Uint32(b[fxMXCSR:]) & mxcsrValid
	for i := range 8 {
		p := &f.st[f.physical(uint8(i))]
		p.Mant = le.Uint64(b[fxST+16*i:])
		p.SE = le.Uint16(b[fxST+16*i+8:])
	}
	for i := range n {
		c.xmm[i] = xmm{le.Uint64(b[fxXMM+16*i:]), le.Uint64(b[fxXMM+16*i+8:])}
	}
}

// fxRegisters is how many XMM registers an image has.
func (c *cpu) fxRegisters() int {
	if c.mode&mode64 == 0 {
		return 8
	}
	return len(c.xmm)
}

// opFxsave is FXSAVE. Without REX.W the pointers have 32 bits each, and the
// selectors behind them are 0.
func opFxsave(c *cpu, o *op) {
	a := o.ea(c)
	if a&15 != 0 {
		c.raiseGP(0)
	}
	c.probeWrite(a, fxSize)
	var b [fxSize]byte
	c.saveFPU(&b)
	if o.size != 8 {
		clear(b[fxFIP+4 : fxFDP])
		clear(b[fxFDP+4 : fxMXCSR])
	}
	for i := 0; i < fxXMM+16*c.fxRegisters(); i += 8 {
		c.store64(a+uint64(i), binary.LittleEndian.Uint64(b[i:]))
	}
}

// opFxrstor is FXRSTOR.
func opFxrstor(c *cpu, o *op) {
	a := o.ea(c)
	if a&15 != 0 {
		c.raiseGP(0)
	}
	c.probeRead(a, fxSize)
	var b [fxSize]byte
	n := c.fxRegisters()
	for i := 0; i < fxXMM+16*n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], c.load64(a+uint64(i)))
	}
	if binary.LittleEndian.Uint32(b[fxMXCSR:])&^mxcsrValid != 0 {
		c.raiseGP(0)
	}
	if o.size != 8 {
		clear(b[fxFIP+4 : fxFDP])
		clear(b[fxFDP+4 : fxMXCSR])
	}
	c.loadFX(&b, n)
}

// opLdmxcsr is LDMXCSR.
func opLdmxcsr(c *cpu, o *op) {
	v := uint32(c.load32(o.ea(c)))
	if v&^mxcsrValid != 0 {
		c.raiseGP(0)
	}
	c.mxcsr = v
}

// opStmxcsr is STMXCSR.
func opStmxcsr(c *cpu, o *op) { c.store32(o.ea(c), uint64(c.mxcsr)) }

// opFwait is FWAIT. CR0.EM means nothing to it, and CR0.TS only with CR0.MP (SDM
// volume 3, table 2-2).
func opFwait(c *cpu, _ *op) {
	const monitored = x86.CR0MP | x86.CR0TS
	if c.cr0&monitored == monitored {
		c.raise(x86.NM)
	}
	c.raiseX87()
}
