package soft

import (
	"encoding/binary"

	"fifovm/vmm/x86"
)

// needPort throws #GP(0) where neither the IOPL nor the TSS's bitmap permits
// size ports from port on (SDM volume 1, 19.5).
func (c *cpu) needPort(port uint16, size uint8) {
	if !c.protected() || c.cpl <= c.iopl() {
		return
	}
	const (
		mapBase = 0x66 // of the bitmap's offset in a 32- or 64-bit TSS
		minimum = 0x67 // limit of such a TSS
	)
	if c.tr.Type != x86.TypeBusyTSS || c.tr.Limit < minimum {
		c.raiseGP(0)
	}
	at := c.loadSystem(c.tr.Base+mapBase, 2) + uint64(port>>3)
	if at+1 > uint64(c.tr.Limit) {
		c.raiseGP(0)
	}
	// Two bytes: the ports' bits may be in both.
	bits := c.loadSystem(c.tr.Base+at, 2) >> (port & 7)
	if bits&(1<<size-1) != 0 {
		c.raiseGP(0)
	}
}

// in reads size bytes from a port.
func (c *cpu) in(port uint16, size uint8) uint64 {
	c.sync()
	c.access = [8]byte{}
	c.engine.cfg.Ports.Read(uint64(port), c.access[:size])
	return binary.LittleEndian.Uint64(c.access[:])
}

func (c *cpu) out(port uint16, size uint8, v uint64) {
	c.sync()
	binary.LittleEndian.PutUint64(c.access[:], v)
	c.engine.cfg.Ports.Write(uint64(port), c.access[:size])
}

func opIn(c *cpu, o *op)    { c.input(o, uint16(o.imm)) }
func opInDX(c *cpu, o *op)  { c.input(o, uint16(c.r[x86.RDX])) }
func opOut(c *cpu, o *op)   { c.output(o, uint16(o.imm)) }
func opOutDX(c *cpu, o *op) { c.output(o, uint16(c.r[x86.RDX])) }

func (c *cpu) input(o *op, port uint16) {
	c.needPort(port, o.size)
	c.setReg(x86.RAX, o.size, c.in(port, o.size))
}

func (c *cpu) output(o *op, port uint16) {
	c.needPort(port, o.size)
	c.out(port, o.size, c.r[x86.RAX])
}

// opIns is INS. The destination is known to be writable before the port, whose
// reading may change something, is read. Where the next one is to follow, it is
// an instruction of its own.
func opIns(c *cpu, o *op) {
	if c.counted(o) {
		return
	}
	port := uint16(c.r[x86.RDX])
	c.needPort(port, o.size)
	a := c.destination(o)
	c.probeWrite(a, uint64(o.size))
	c.store(a, o.size, c.in(port, o.size))
	c.advance(o, x86.RDI)
	c.count(o)
}

// opOuts is OUTS.
func opOuts(c *cpu, o *op) {
	if c.counted(o) {
		return
	}
	port := uint16(c.r[x86.RDX])
	c.needPort(port, o.size)
	c.out(port, o.size, c.load(c.source(o), o.size))
	c.advance(o, x86.RSI)
	c.count(o)
}

// counted says that a repeated instruction is at its end.
func (c *cpu) counted(o *op) bool { return o.rep != repNone && c.reg(x86.RCX, o.addrSize) == 0 }

// count counts an element of a repeated instruction, which continues with itself
// unless it was the last.
func (c *cpu) count(o *op) {
	if o.rep == repNone {
		return
	}
	n := c.reg(x86.RCX, o.addrSize) - 1
	c.setReg(x86.RCX, o.addrSize, n)
	if n != 0 {
		c.again(o)
	}
}
