package chipset

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"

	"fifovm/vmm/clock"
	"fifovm/vmm/x86"
)

// The registers of a local APIC by number (SDM volume 3, tables 11-1 and 11-6):
// register n is at offset 16n of the xAPIC's page and is MSR 0x800+n in x2APIC
// mode. Sections and tables named below are of that volume.
const (
	apicID          = 0x02
	apicVersion     = 0x03
	apicTPR         = 0x08 // task priority
	apicAPR         = 0x09 // arbitration priority
	apicPPR         = 0x0a // processor priority
	apicEOI         = 0x0b
	apicRRD         = 0x0c // remote read
	apicLDR         = 0x0d // logical destination
	apicDFR         = 0x0e // destination format
	apicSVR         = 0x0f // spurious interrupt vector
	apicISR         = 0x10 // in service: 256 bits in 8 registers, as the next two
	apicTMR         = 0x18 // trigger mode
	apicIRR         = 0x20 // requested
	apicESR         = 0x28 // error status
	apicICR         = 0x30 // interrupt command
	apicICRHigh     = 0x31
	apicLVTTimer    = 0x32 // local vector table
	apicLVTThermal  = 0x33
	apicLVTCounters = 0x34
	apicLVTLINT0    = 0x35
	apicLVTLINT1    = 0x36
	apicLVTError    = 0x37
	apicInitial     = 0x38 // initial count of the timer
	apicCurrent     = 0x39 // current count
	apicDivide      = 0x3e
	apicSelfIPI     = 0x3f
	apicRegisters   = 0x40

	apicWords = 8 // registers of ISR, TMR and IRR each
	apicShift = 4 // from a register's number to its offset

	x2apicFirst = 0x800 // MSR
)

const (
	// IA32_APIC_BASE (11.4.4, 11.12.1).
	baseBSP     = 1 << 8
	baseX2APIC  = 1 << 10
	baseEnable  = 1 << 11
	baseAddress = (1<<x86.PhysBits - 1) &^ 0xfff

	dfrWritable = 0xf000_0000 // the rest are ones (figure 11-14)
	dfrFlat     = 0xf
	dfrCluster  = 0
	ldrShift    = 24 // of the logical ID in xAPIC mode
	idShift     = 24

	svrEnable = 1 << 8
	svrBits   = 0x3ff // vector, enable, focus checking: the suppression of EOI messages is not offered

	// ESR (11.5.3).
	esrSendIllegal     = 1 << 5 // vector 0 to 15
	esrReceiveIllegal  = 1 << 6
	esrIllegalRegister = 1 << 7
	esrBits            = esrSendIllegal | esrReceiveIllegal | esrIllegalRegister

	// ICR (11.6.1).
	icrLogical        = 1 << 11
	icrStatus         = 1 << 12 // read only: always idle
	icrAssert         = 1 << 14
	icrLevel          = 1 << 15
	icrBits           = 0xc_cfff
	icrModeShift      = 8
	icrShorthandShift = 18

	// LVT (11.5.1).
	lvtVector     = 0xff
	lvtMode       = 7 << 8
	lvtStatus     = 1 << 12 // read only: always idle
	lvtPolarity   = 1 << 13
	lvtRemoteIRR  = 1 << 14 // read only: nothing comes in at the LINT pins
	lvtLevel      = 1 << 15
	lvtMasked     = 1 << 16
	lvtTimerMode  = 3 << 17
	lvtTimerShift = 17

	// Timer modes; 0 is one-shot, and so is 3, which is reserved.
	timerPeriodic = 1
	timerDeadline = 2

	divideBits = 0xb // of the divide configuration (figure 11-10)

	// A vector's upper half is its priority class (11.8.3); those of class 0
	// are illegal (11.5.2).
	firstVector    = 16
	priorityMask   = 0xf0
	priorityShift  = 4
	cr8Mask        = 0xf
	vectorsPerWord = 32
)

// access is what software may do with a register.
type access uint8

const (
	canRead access = 1 << iota
	canWrite
	readWrite = canRead | canWrite
)

// apicRegister says who may read and write a register in each mode, and which
// of its bits can be written. In xAPIC mode no access at all means a reserved
// address; in x2APIC mode, where a reserved bit that is set is an error, the
// bits in ignored are not.
type apicRegister struct {
	xapic, x2apic access
	bits, ignored uint32
}

var apicTable = func() (t [apicRegisters]apicRegister) {
	t[apicID] = apicRegister{xapic: canRead, x2apic: canRead}
	t[apicVersion] = apicRegister{xapic: canRead, x2apic: canRead}
	t[apicTPR] = apicRegister{xapic: readWrite, x2apic: readWrite, bits: 0xff}
	t[apicAPR] = apicRegister{xapic: canRead}
	t[apicPPR] = apicRegister{xapic: canRead, x2apic: canRead}
	t[apicEOI] = apicRegister{xapic: canWrite, x2apic: canWrite}
	t[apicRRD] = apicRegister{xapic: canRead}
	t[apicLDR] = apicRegister{xapic: readWrite, x2apic: canRead, bits: 0xff << ldrShift}
	t[apicDFR] = apicRegister{xapic: readWrite, bits: dfrWritable}
	t[apicSVR] = apicRegister{xapic: readWrite, x2apic: readWrite, bits: svrBits}
	for i := range apicWords {
		t[apicISR+i] = apicRegister{xapic: canRead, x2apic: canRead}
		t[apicTMR+i] = apicRegister{xapic: canRead, x2apic: canRead}
		t[apicIRR+i] = apicRegister{xapic: canRead, x2apic: canRead}
	}
	t[apicESR] = apicRegister{xapic: readWrite, x2apic: readWrite}
	t[apicICR] = apicRegister{xapic: readWrite, x2apic: readWrite, bits: icrBits, ignored: icrStatus}
	t[apicICRHigh] = apicRegister{xapic: readWrite, bits: 0xff << idShift}
	lvt := func(n int, bits uint32) {
		t[n] = apicRegister{xapic: readWrite, x2apic: readWrite, bits: lvtVector | lvtMasked | bits, ignored: lvtStatus}
	}
	lvt(apicLVTTimer, lvtTimerMode)
	lvt(apicLVTThermal, lvtMode)
	lvt(apicLVTCounters, lvtMode)
	lvt(apicLVTLINT0, lvtMode|lvtPolarity|lvtLevel)
	lvt(apicLVTLINT1, lvtMode|lvtPolarity|lvtLevel)
	lvt(apicLVTError, 0)
	t[apicLVTLINT0].ignored |= lvtRemoteIRR
	t[apicLVTLINT1].ignored |= lvtRemoteIRR
	t[apicInitial] = apicRegister{xapic: readWrite, x2apic: readWrite, bits: 0xffff_ffff}
	t[apicCurrent] = apicRegister{xapic: canRead, x2apic: canRead}
	t[apicDivide] = apicRegister{xapic: readWrite, x2apic: readWrite, bits: divideBits}
	t[apicSelfIPI] = apicRegister{x2apic: canWrite, bits: 0xff}
	return t
}()

// timerExpiry is the kind of a local APIC's only event.
const timerExpiry = 0

// timerTick is a tick of the timer's clock in ns, before it is divided.
const timerTick = second / x86.CrystalHz

// timerFloor is the shortest period of a periodic timer in ns. Each expiry is an
// event, and a CPU that sleeps jumps from one to the next, so a period of some ns
// would have the host do nothing else. KVM's floor is 200 us
// (arch/x86/kvm/x86.c, min_timer_period_us), for the same reason; an event costs
// less here.
const timerFloor = 10_000

// LocalAPIC is a CPU's local APIC, in xAPIC or x2APIC mode (chapter 11). Its ID
// is the CPU's number and can't be changed, nor can its address. Nothing is
// wired to its pins, and it watches no temperature and no counters: of its local
// vectors, only the timer's and the errors' are ever used.
//
// What is written to a register is done when the write ends: delivery status
// always reads as idle.
type LocalAPIC struct {
	apics *APICs
	clock *clock.Clock
	name  string // as an owner of events
	cpu   CPU
	id    uint32

	powerOn [apicRegisters]uint32 // what the registers are after power-on

	base   uint64 // IA32_APIC_BASE
	regs   [apicRegisters]uint32
	errors uint32 // found since ESR was last written

	tsc      int64  // counter minus clock
	deadline uint64 // IA32_TSC_DEADLINE
	armed    bool   // the timer runs: it has an event
	expiry   int64  // the time of the event

	// What Pending says, from IRR, PPR and base.
	pending    uint8
	hasPending bool
}

// ownerName begins the local APICs' names as owners of events.
const ownerName = "lapic"

// IsLocalAPIC is whether an owner of events is a local APIC.
func IsLocalAPIC(owner string) bool { return strings.HasPrefix(owner, ownerName) }

func newLocalAPIC(a *APICs, clk *clock.Clock, cpu CPU, id int) *LocalAPIC {
	l := &LocalAPIC{apics: a, clock: clk, name: fmt.Sprintf("%s%d", ownerName, id), cpu: cpu, id: uint32(id)}
	c := x86.Reset(id)
	for n := range l.powerOn {
		l.powerOn[n] = binary.LittleEndian.Uint32(c.LAPIC[n<<apicShift:])
	}
	l.base = c.APICBase
	l.regs = l.powerOn
	return l
}

func (l *LocalAPIC) x2apic() bool          { return l.base&baseX2APIC != 0 }
func (l *LocalAPIC) softwareEnabled() bool { return l.regs[apicSVR]&svrEnable != 0 }

// Read answers the guest at the xAPIC's page. An access gets those of its bytes
// that lie in the 32-bit register at its start, and zeros for others. Outside
// xAPIC mode there is no page: all ones.
func (l *LocalAPIC) Read(off uint64, data []byte) {
	if l.base&(baseEnable|baseX2APIC) != baseEnable {
		for i := range data {
			data[i] = 0xff
		}
		return
	}
	var b [1 << apicShift]byte
	binary.LittleEndian.PutUint32(b[:], l.readPage(off>>apicShift))
	clear(data)
	copy(data, b[off%uint64(len(b)):])
}

func (l *LocalAPIC) readPage(n uint64) uint32 {
	if n >= apicRegisters || apicTable[n].xapic == 0 {
		l.fail(esrIllegalRegister)
		return 0
	}
	return l.register(n)
}

// Write takes the guest's bytes at the xAPIC's page. Only 32 bits at a
// register's start are an access (11.4.1); others are lost, as are those outside
// xAPIC mode.
func (l *LocalAPIC) Write(off uint64, data []byte) {
	if l.base&(baseEnable|baseX2APIC) != baseEnable || len(data) != 4 || off%(1<<apicShift) != 0 {
		return
	}
	n := off >> apicShift
	if n >= apicRegisters || apicTable[n].xapic == 0 {
		l.fail(esrIllegalRegister)
		return
	}
	if apicTable[n].xapic&canWrite != 0 {
		l.writeRegister(n, binary.LittleEndian.Uint32(data))
	}
}

// ReadMSR reads an MSR from 0x800 to 0x8ff. ok is false for a general-protection
// exception.
func (l *LocalAPIC) ReadMSR(index uint32) (v uint64, ok bool) {
	n := uint64(index - x2apicFirst)
	if !l.x2apic() || n >= apicRegisters || apicTable[n].x2apic&canRead == 0 {
		return 0, false
	}
	if n == apicICR {
		v = uint64(l.regs[apicICRHigh]) << 32
	}
	return v | uint64(l.register(n)), true
}

// WriteMSR writes an MSR from 0x800 to 0x8ff. ok is false for a
// general-protection exception, which a reserved bit is a reason for too.
func (l *LocalAPIC) WriteMSR(index uint32, v uint64) (ok bool) {
	n := uint64(index - x2apicFirst)
	if !l.x2apic() || n >= apicRegisters {
		return false
	}
	r := &apicTable[n]
	if r.x2apic&canWrite == 0 || uint32(v)&^(r.bits|r.ignored) != 0 || v>>32 != 0 && n != apicICR {
		return false
	}
	if n == apicICR {
		l.regs[apicICRHigh] = uint32(v >> 32)
	}
	l.writeRegister(n, uint32(v))
	return true
}

// register is what a register reads as. Those that can only be written are
// never stored.
func (l *LocalAPIC) register(n uint64) uint32 {
	if n == apicCurrent {
		return l.currentCount()
	}
	return l.regs[n]
}

func (l *LocalAPIC) writeRegister(n uint64, v uint32) {
	v &= apicTable[n].bits
	switch n {
	case apicTPR:
		l.regs[n] = v
		l.update()
	case apicEOI:
		l.endOfInterrupt()
	case apicDFR:
		l.regs[n] = v | ^uint32(dfrWritable)
	case apicSVR:
		l.regs[n] = v
		l.maskIfDisabled()
	case apicESR:
		l.regs[n], l.errors = l.errors, 0
	case apicICR:
		l.regs[n] = v
		l.sendIPI(v)
	case apicLVTTimer:
		l.writeTimerVector(v)
		l.maskIfDisabled()
	case apicInitial:
		l.writeInitialCount(v)
	case apicDivide:
		l.writeDivide(v)
	case apicSelfIPI:
		l.selfIPI(uint8(v))
	default:
		l.regs[n] = v
		l.maskIfDisabled()
	}
}

// maskIfDisabled keeps the local vectors masked while software has the APIC
// disabled (11.4.7.2).
func (l *LocalAPIC) maskIfDisabled() {
	if l.softwareEnabled() {
		return
	}
	for n := apicLVTTimer; n <= apicLVTError; n++ {
		l.regs[n] |= lvtMasked
	}
}

// Base is IA32_APIC_BASE.
func (l *LocalAPIC) Base() uint64 { return l.base }

// SetBase writes IA32_APIC_BASE. ok is false for a general-protection exception:
// a reserved bit, another address than the usual one, which this machine does
// not offer, or a change of mode that there is not (11.12.5, figure 11-27). An
// APIC that is disabled forgets all but its ID.
func (l *LocalAPIC) SetBase(v uint64) (ok bool) {
	const modes = baseEnable | baseX2APIC
	from, to := l.base&modes, v&modes
	if !validBase(v) || from == modes && to == baseEnable || from == 0 && to == modes {
		return false
	}
	l.base = v
	switch {
	case to == 0:
		l.reset()
	case to == modes && from != modes:
		l.enterX2APIC()
	}
	l.update()
	return true
}

func validBase(v uint64) bool {
	return v&^(baseAddress|baseEnable|baseX2APIC|baseBSP) == 0 && v&baseAddress == LocalAPICBase &&
		v&(baseEnable|baseX2APIC) != baseX2APIC
}

// enterX2APIC sets the two registers that look different in x2APIC mode
// (11.12.5.1, 11.12.10.2).
func (l *LocalAPIC) enterX2APIC() {
	l.regs[apicID] = l.id
	l.regs[apicLDR] = l.id>>4<<16 | 1<<(l.id&0xf)
}

// INIT puts the registers into their state after INIT: that of power-on, but
// IA32_APIC_BASE, and with it the mode, stays (11.4.7.3, 11.12.5.1).
func (l *LocalAPIC) INIT() {
	l.reset()
	if l.x2apic() {
		l.enterX2APIC()
	}
	l.update()
}

func (l *LocalAPIC) reset() {
	l.disarm()
	l.regs, l.errors, l.deadline = l.powerOn, 0, 0
}

// TPR is the task priority as CR8 shows it: 0 to 15 (11.8.6).
func (l *LocalAPIC) TPR() uint8 { return uint8(l.regs[apicTPR] >> priorityShift) }

// SetTPR is a write to CR8.
func (l *LocalAPIC) SetTPR(cr8 uint8) {
	l.regs[apicTPR] = uint32(cr8&cr8Mask) << priorityShift
	l.update()
}

// Pending is the interrupt that the CPU should take now if it takes interrupts:
// the highest in IRR, where its class is above the processor's priority.
func (l *LocalAPIC) Pending() (vector uint8, ok bool) { return l.pending, l.hasPending }

// Accept is the CPU taking what Pending said: it moves from IRR to ISR. Where
// there is nothing it is the spurious vector (11.9).
func (l *LocalAPIC) Accept() uint8 {
	if !l.hasPending {
		return uint8(l.regs[apicSVR])
	}
	v := l.pending
	word, bit := vectorBit(v)
	l.regs[apicIRR+word] &^= bit
	l.regs[apicISR+word] |= bit
	l.update()
	return v
}

// endOfInterrupt ends the highest interrupt in service (11.8.5).
func (l *LocalAPIC) endOfInterrupt() {
	v := l.highest(apicISR)
	if v < 0 {
		return
	}
	word, bit := vectorBit(uint8(v))
	l.regs[apicISR+word] &^= bit
	if l.regs[apicTMR+word]&bit != 0 {
		l.apics.IO.EOI(uint8(v))
	}
	l.update()
}

// update follows a change of IRR, ISR, TPR or base.
func (l *LocalAPIC) update() {
	l.settle()
	if l.hasPending {
		l.cpu.Interrupt()
	}
}

// settle derives PPR (11.8.3.1) and what is pending (11.8.4).
func (l *LocalAPIC) settle() {
	priority := int(l.regs[apicTPR])
	if isr := l.highest(apicISR); isr>>priorityShift > priority>>priorityShift {
		priority = isr & priorityMask
	}
	l.regs[apicPPR] = uint32(priority)
	irr := l.highest(apicIRR)
	l.pending, l.hasPending = 0, false
	if l.base&baseEnable != 0 && irr>>priorityShift > priority>>priorityShift {
		l.pending, l.hasPending = uint8(irr), true
	}
}

// class is the processor's priority class.
func (l *LocalAPIC) class() uint32 { return l.regs[apicPPR] >> priorityShift }

// highest is the highest vector in IRR or ISR, -1 if there is none.
func (l *LocalAPIC) highest(first int) int {
	for i := apicWords - 1; i >= 0; i-- {
		if w := l.regs[first+i]; w != 0 {
			return i*vectorsPerWord + bits.Len32(w) - 1
		}
	}
	return -1
}

// vectorBit is where a vector stands in ISR, TMR and IRR.
func vectorBit(v uint8) (word int, bit uint32) {
	return int(v / vectorsPerWord), 1 << (v % vectorsPerWord)
}

// request puts an interrupt into IRR and tells whether it was accepted.
func (l *LocalAPIC) request(vector uint8, level bool) bool {
	if !l.softwareEnabled() {
		return false
	}
	if vector < firstVector {
		l.fail(esrReceiveIllegal)
		return false
	}
	word, bit := vectorBit(vector)
	l.regs[apicIRR+word] |= bit
	if level {
		l.regs[apicTMR+word] |= bit
	} else {
		l.regs[apicTMR+word] &^= bit
	}
	l.update()
	return true
}

// local raises the interrupt of a local vector, whose delivery mode is fixed.
func (l *LocalAPIC) local(n int) {
	if lvt := l.regs[n]; lvt&lvtMasked == 0 {
		l.request(uint8(lvt), false)
	}
}

// fail notes an error. The first one since ESR was written raises the error
// interrupt (11.5.3); an illegal vector of that interrupt itself is no reason
// for another.
func (l *LocalAPIC) fail(bit uint32) {
	first := l.errors == 0
	l.errors |= bit
	if first {
		l.local(apicLVTError)
	}
}

// receive takes a message and tells whether it was accepted.
func (l *LocalAPIC) receive(m *message) bool {
	switch m.mode {
	case deliverFixed, deliverLowest:
		return l.request(m.vector, m.level)
	case deliverNMI:
		l.cpu.NMI()
	case deliverINIT:
		l.cpu.INIT()
	case deliverStartup:
		l.cpu.SIPI(m.vector)
	default:
		return false
	}
	return true
}

// sendIPI sends what the interrupt command register says. The trigger mode has
// no meaning but in the de-assertion of INIT, which once set the arbitration IDs
// and now does nothing (11.6.1); here no de-assertion does.
func (l *LocalAPIC) sendIPI(icr uint32) {
	if icr&(icrLevel|icrAssert) == icrLevel {
		return
	}
	m := message{
		from:        l,
		shorthand:   uint8(icr >> icrShorthandShift),
		destination: l.regs[apicICRHigh],
		logical:     icr&icrLogical != 0,
		mode:        uint8(icr>>icrModeShift) & 7,
		vector:      uint8(icr),
	}
	if !l.x2apic() {
		m.destination = destination8(uint8(m.destination >> idShift))
	}
	if m.vector < firstVector && (m.mode == deliverFixed || m.mode == deliverLowest) {
		l.fail(esrSendIllegal)
		return
	}
	l.apics.deliver(m)
}

// selfIPI is a fixed interrupt to the APIC itself (11.12.11).
func (l *LocalAPIC) selfIPI(vector uint8) {
	if vector < firstVector {
		l.fail(esrSendIllegal)
		return
	}
	l.request(vector, false)
}

// inLogical tells whether the APIC is in a logical destination (11.6.2.2,
// 11.12.10.1).
func (l *LocalAPIC) inLogical(destination uint32) bool {
	ldr := l.regs[apicLDR]
	if l.x2apic() {
		return ldr>>16 == destination>>16 && ldr&destination&0xffff != 0
	}
	if destination > broadcast8 {
		return false
	}
	ldr >>= ldrShift
	switch l.regs[apicDFR] >> 28 {
	case dfrFlat:
		return ldr&destination != 0
	case dfrCluster:
		return ldr>>4 == destination>>4 && ldr&destination&0xf != 0
	}
	return false
}

// timerMode is the mode in the timer's vector.
func (l *LocalAPIC) timerMode() uint32 { return l.regs[apicLVTTimer] & lvtTimerMode >> lvtTimerShift }

// tick is the time of a count in ns (figure 11-10).
func (l *LocalAPIC) tick() int64 {
	d := l.regs[apicDivide]
	return timerTick << (((d&3 | d>>1&4) + 1) & 7)
}

// period is the time of the whole initial count in ns.
func (l *LocalAPIC) period() int64 {
	p := int64(l.regs[apicInitial]) * l.tick()
	if l.timerMode() == timerPeriodic {
		p = max(p, timerFloor)
	}
	return p
}

// currentCount is how many counts are left: the one that goes on is one of them.
// A period that the floor has made longer waits at its initial count.
func (l *LocalAPIC) currentCount() uint32 {
	if !l.armed || l.timerMode() == timerDeadline {
		return 0
	}
	left, tick := max(l.expiry-l.clock.Now(), 0), l.tick()
	return uint32(min((left+tick-1)/tick, int64(l.regs[apicInitial])))
}

// writeInitialCount starts the timer, or with zero stops it (11.5.4).
func (l *LocalAPIC) writeInitialCount(v uint32) {
	if l.timerMode() == timerDeadline {
		return // 11.5.4.1
	}
	l.regs[apicInitial] = v
	if v == 0 {
		l.disarm()
		return
	}
	l.arm(l.clock.Now() + l.period())
}

// writeDivide changes the rate of a timer that runs: the counts that are left
// stay.
func (l *LocalAPIC) writeDivide(v uint32) {
	old := l.tick()
	l.regs[apicDivide] = v
	if l.armed && l.timerMode() != timerDeadline && l.tick() != old {
		now := l.clock.Now()
		l.arm(now + max(l.expiry-now, 0)*l.tick()/old)
	}
}

// writeTimerVector writes the timer's vector. A change to or from the
// TSC-deadline mode stops the timer (11.5.4.1); between the others it goes on. A
// one-shot timer that is over starts again when it becomes periodic, so that a
// periodic timer with an initial count always runs, and a state can't mean two
// things.
func (l *LocalAPIC) writeTimerVector(v uint32) {
	was := l.timerMode()
	l.regs[apicLVTTimer] = v
	if (was == timerDeadline) != (l.timerMode() == timerDeadline) {
		l.disarm()
		l.regs[apicInitial], l.deadline = 0, 0
	}
	if l.timerMode() == timerPeriodic && l.regs[apicInitial] != 0 && !l.armed {
		l.arm(l.clock.Now() + l.period())
	}
}

// Deadline is IA32_TSC_DEADLINE: zero when no deadline is armed.
func (l *LocalAPIC) Deadline() uint64 { return l.deadline }

// SetDeadline writes IA32_TSC_DEADLINE, which does something in the TSC-deadline
// mode only (11.5.4.1). A deadline that has passed comes at once.
func (l *LocalAPIC) SetDeadline(v uint64) {
	if l.timerMode() != timerDeadline {
		return
	}
	l.deadline = v
	if v == 0 {
		l.disarm()
		return
	}
	l.armDeadline()
}

// SetTSC says what the time-stamp counter is: the clock and offset. It counts at
// 1 GHz. A deadline that is armed moves with it.
func (l *LocalAPIC) SetTSC(offset int64) {
	if l.tsc == offset {
		return
	}
	l.tsc = offset
	if l.deadline != 0 {
		l.armDeadline()
	}
}

// RestoreDeadline gives IA32_TSC_DEADLINE back, after SetState and SetTSC. A
// deadline that the clock has no event for has passed or comes from an engine
// with a timer of its own; unlike SetDeadline, it calls nobody.
func (l *LocalAPIC) RestoreDeadline(v uint64) {
	if l.timerMode() != timerDeadline {
		return
	}
	l.deadline = v
	switch {
	case v == 0:
		l.disarm()
	case !l.armed:
		l.arm(l.deadlineTime())
	}
}

// armDeadline waits for the deadline, or acts at once where it has passed.
func (l *LocalAPIC) armDeadline() {
	if t := l.deadlineTime(); t > l.clock.Now() {
		l.arm(t)
		return
	}
	l.disarm()
	l.expire()
}

// deadlineTime is the clock's time at the deadline, now if that has passed.
func (l *LocalAPIC) deadlineTime() int64 {
	now := l.clock.Now()
	tsc := uint64(now) + uint64(l.tsc)
	switch {
	case l.deadline <= tsc:
		return now
	case l.deadline-tsc > uint64(clock.Never-now):
		return clock.Never
	}
	return now + int64(l.deadline-tsc)
}

// HandleEvent is the timer's expiry.
func (l *LocalAPIC) HandleEvent(uint32, uint64) {
	l.armed = false
	if l.timerMode() == timerPeriodic {
		// Periods that went by unseen are one interrupt, and the next keeps step.
		period := l.period()
		late := max(l.clock.Now()-l.expiry, 0)
		l.arm(l.expiry + late/period*period + period)
	}
	l.expire()
}

// expire ends a deadline and raises the timer's interrupt, which is lost where
// it is masked.
func (l *LocalAPIC) expire() {
	l.deadline = 0
	l.local(apicLVTTimer)
}

func (l *LocalAPIC) arm(expiry int64) {
	l.disarm()
	l.armed, l.expiry = true, expiry
	l.clock.Schedule(expiry, l.name, timerExpiry, 0)
}

func (l *LocalAPIC) disarm() {
	l.armed = false
	l.clock.Cancel(l.name, timerExpiry)
}

// stateErrors is where the errors stand that ESR does not show yet: above ESR,
// in bytes that the page does not use.
const stateErrors = apicESR<<apicShift + 4

// State fills LAPIC, APICBase and CR8. The page is as KVM gives it; in x2APIC
// mode the ID is a plain number. IA32_TSC_DEADLINE is Deadline, and the timer's
// expiry is in the clock's state.
func (l *LocalAPIC) State(c *x86.CPU) {
	c.APICBase = l.base
	c.CR8 = uint64(l.TPR())
	clear(c.LAPIC[:])
	for n := range l.regs {
		binary.LittleEndian.PutUint32(c.LAPIC[n<<apicShift:], l.register(uint64(n)))
	}
	binary.LittleEndian.PutUint32(c.LAPIC[stateErrors:], l.errors)
}

// SetState takes LAPIC and APICBase; the task priority is in the page, and CR8
// only repeats it. It calls nobody: the CPU has to ask for Pending itself.
//
// The clock's state must be back before. A timer that has no event there, as in
// a state from KVM, starts with its current count, and one-shot without a count
// it has expired; one in the TSC-deadline mode waits for RestoreDeadline. After SetState the order is SetTSC, RestoreDeadline.
func (l *LocalAPIC) SetState(c *x86.CPU) error {
	var regs [apicRegisters]uint32
	for n := range regs {
		regs[n] = binary.LittleEndian.Uint32(c.LAPIC[n<<apicShift:])
	}
	if !validBase(c.APICBase) {
		return fmt.Errorf("chipset: %s: state has IA32_APIC_BASE %#x", l.name, c.APICBase)
	}
	// KVM shows the ID in x2APIC mode as its user asks for: in either place.
	if id := regs[apicID]; id != l.id<<idShift && (id != l.id || c.APICBase&baseX2APIC == 0) {
		return fmt.Errorf("chipset: %s: state has APIC ID register %#x, which is another's", l.name, id)
	}
	l.base = c.APICBase
	l.errors = binary.LittleEndian.Uint32(c.LAPIC[stateErrors:]) & esrBits
	l.deadline = 0
	for n := range regs {
		l.regs[n] = regs[n] & apicTable[n].bits
	}
	for i := range 3 * apicWords {
		l.regs[apicISR+i] = regs[apicISR+i] // and TMR and IRR
	}
	l.regs[apicID], l.regs[apicVersion] = l.powerOn[apicID], l.powerOn[apicVersion]
	l.regs[apicDFR] |= ^uint32(dfrWritable)
	l.regs[apicESR] = regs[apicESR] & esrBits
	l.regs[apicSelfIPI] = 0
	if l.x2apic() {
		l.enterX2APIC()
		l.regs[apicICRHigh] = regs[apicICRHigh]
	}
	l.maskIfDisabled()
	l.settle()
	l.restoreTimer(regs[apicCurrent])
	return nil
}

// restoreTimer goes on with the timer that the clock's event or the current
// count tell of.
func (l *LocalAPIC) restoreTimer(current uint32) {
	expiry, ok := l.clock.Pending(l.name, timerExpiry)
	initial := l.regs[apicInitial]
	deadline := l.timerMode() == timerDeadline
	switch {
	case l.base&baseEnable == 0, !deadline && initial == 0:
		l.disarm()
	case ok:
		l.armed, l.expiry = true, expiry
	case deadline:
		l.armed = false
	case current != 0:
		l.arm(l.clock.Now() + int64(min(current, initial))*l.tick())
	case l.timerMode() == timerPeriodic:
		l.arm(l.clock.Now() + l.period())
	default:
		l.armed = false
	}
}
