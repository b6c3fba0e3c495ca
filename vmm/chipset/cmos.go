package chipset

import (
	"fmt"
	"math"
	"time"

	"fifovm/vmm/clock"
)

// The registers and bits of the Motorola MC146818A data sheet, to which the
// tables named below belong. The PC adds more NVRAM behind its 64 bytes, and the
// century.
const (
	cmosSeconds      = 0x00
	cmosSecondsAlarm = 0x01
	cmosMinutes      = 0x02
	cmosMinutesAlarm = 0x03
	cmosHours        = 0x04
	cmosHoursAlarm   = 0x05
	cmosWeekday      = 0x06 // 1 is Sunday
	cmosDay          = 0x07
	cmosMonth        = 0x08
	cmosYear         = 0x09
	cmosA            = 0x0a
	cmosB            = 0x0b
	cmosC            = 0x0c
	cmosD            = 0x0d
	cmosSize         = 128

	// CMOSCentury is the index of the century, for the FADT to name.
	CMOSCentury = 0x32

	aRate        = 0x0f
	aDivider     = 0x70
	aDividerRun  = 0x20 // 32,768 Hz crystal; those below are for other ones (table 4)
	aDividerHold = 0x60 // with any third bit: the divider is in reset
	aUpdating    = 1 << 7

	b24Hours  = 1 << 1
	bBinary   = 1 << 2
	bSquare   = 1 << 3
	bUpdate   = 1 << 4 // the interrupt enables stand where C has the flags
	bAlarm    = 1 << 5
	bPeriodic = 1 << 6
	bSet      = 1 << 7

	cUpdate   = bUpdate
	cAlarm    = bAlarm
	cPeriodic = bPeriodic
	cFlags    = cUpdate | cAlarm | cPeriodic
	cRequest  = 1 << 7

	dValid = 1 << 7 // the battery is good

	hourPM       = 1 << 7 // in 12-hour mode
	alarmAnyMask = 0xc0   // an alarm byte with both bits matches always
)

const (
	second = int64(time.Second)
	day    = 24 * 60 * 60 // in seconds
	// cmosUpdateWarning is how long before an update UIP is set, in ns (table 6,
	// t_BUC). The update itself takes no time here.
	cmosUpdateWarning = 244_000
	// cmosFirstUpdate is when the first update comes after the divider is let
	// go, in ns (register A, DV).
	cmosFirstUpdate = second / 2
	// cmosTimes bounds the times that a state may have, in seconds from 1970.
	// The furthest that a guest can set is the year 25,776.
	cmosTimes = 1 << 40
)

// cmosCheck is the kind of the clock's only event: a flag whose interrupt is
// enabled is due.
const cmosCheck = 0

// CMOS is the battery-backed clock of a PC and its NVRAM.
//
// The time is UTC. It is not counted but derived from the machine's clock, so
// a CMOS without enabled interrupts costs nothing; flags are brought up to date
// when somebody looks. The day of the week always follows from the date.
// Daylight saving and the square wave are settings without effect.
type CMOS struct {
	clock *clock.Clock
	name  string
	irq   func(level bool)

	s CMOSState
}

// CMOSState is the state of a CMOS.
type CMOSState struct {
	Index uint8
	// Bytes are the registers and the NVRAM. Those of the time tell it only
	// while it stands still.
	Bytes [cmosSize]uint8
	// The time is Base in seconds from 1970, plus Phase in ns, plus the
	// machine's clock.
	Base, Phase int64
	// Second and Period are how far the flags in register C are up to date.
	Second, Period int64
	Line           bool // the level of the interrupt line
}

// NewCMOS gives a clock that shows unixNano, in ns from 1970, at time 0 of the
// machine's clock. name is its owner's name there, irq sets its interrupt line.
func NewCMOS(c *clock.Clock, name string, irq func(level bool), unixNano int64) *CMOS {
	r := &CMOS{clock: c, name: name, irq: irq}
	t := time.Unix(0, unixNano)
	r.s.Base, r.s.Phase = t.Unix(), int64(t.Nanosecond())
	r.s.Bytes[cmosA] = aDividerRun | 6 // 1,024 Hz, as firmware leaves it
	r.s.Bytes[cmosB] = b24Hours
	r.s.Bytes[cmosD] = dValid
	r.resync()
	c.Register(name, r)
	return r
}

// Reset is the RESET pin: interrupts are off, the time and the NVRAM stay.
func (r *CMOS) Reset() {
	r.s.Bytes[cmosB] &^= bPeriodic | bAlarm | bUpdate | bSquare
	r.s.Bytes[cmosC] = 0
	r.s.Index = 0
	r.resync()
	r.settle()
}

// State gives the state.
func (r *CMOS) State() CMOSState { return r.s }

// SetState replaces the state.
func (r *CMOS) SetState(s CMOSState) error {
	inTime := func(t int64) bool { return -cmosTimes <= t && t <= cmosTimes }
	switch {
	case s.Index >= cmosSize:
		return fmt.Errorf("chipset: %s: state has index %#x", r.name, s.Index)
	case s.Bytes[cmosA]&aUpdating != 0, s.Bytes[cmosC]&^(cFlags|cRequest) != 0, s.Bytes[cmosD] != dValid:
		return fmt.Errorf("chipset: %s: state has bits set in registers A, C or D that can't be", r.name)
	case !inTime(s.Base), !inTime(s.Second), s.Phase < 0 || s.Phase >= second:
		return fmt.Errorf("chipset: %s: state has a time out of range", r.name)
	}
	r.s = s
	return nil
}

// Read answers the guest. The index can't be read back.
func (r *CMOS) Read(off uint64, data []byte) {
	for i := range data {
		if data[i] = 0xff; off+uint64(i) == 1 {
			data[i] = r.readByte()
		}
	}
}

// Write takes the guest's bytes.
func (r *CMOS) Write(off uint64, data []byte) {
	for i, v := range data {
		switch off + uint64(i) {
		case 0:
			r.s.Index = v % cmosSize // bit 7 masks the NMI, which we don't have
		case 1:
			r.writeByte(v)
		}
	}
}

// HandleEvent looks which flags are due.
func (r *CMOS) HandleEvent(uint32, uint64) {
	r.catchUp()
	r.settle()
}

func (r *CMOS) readByte() uint8 {
	b := &r.s.Bytes
	switch i := r.s.Index; i {
	case cmosSeconds, cmosMinutes, cmosHours, cmosWeekday, cmosDay, cmosMonth, cmosYear, CMOSCentury:
		if r.running() {
			r.showTime()
		}
		return b[i]
	case cmosA:
		if _, ns := r.now(); r.running() && ns >= second-cmosUpdateWarning {
			return b[cmosA] | aUpdating
		}
		return b[cmosA]
	case cmosC:
		r.catchUp()
		r.settle()
		v := b[cmosC]
		b[cmosC] = 0
		r.settle()
		return v
	default:
		return b[i]
	}
}

func (r *CMOS) writeByte(v uint8) {
	r.catchUp()
	b := &r.s.Bytes
	switch i := r.s.Index; i {
	case cmosSeconds, cmosMinutes, cmosHours, cmosWeekday, cmosDay, cmosMonth, cmosYear, CMOSCentury:
		if r.running() {
			r.showTime()
			b[i] = v
			r.setTime()
		} else {
			b[i] = v
		}
	case cmosA:
		r.control(v&^aUpdating, b[cmosB])
	case cmosB:
		if v&^b[cmosB]&bSet != 0 {
			v &^= bUpdate // SET going high clears it
		}
		r.control(b[cmosA], v)
	case cmosC, cmosD: // read only
	default:
		b[i] = v
	}
	r.settle()
}

// control writes registers A and B, which start and stop the time.
func (r *CMOS) control(a, b uint8) {
	wasRunning, wasHeld := r.running(), r.held()
	if wasRunning {
		r.showTime() // in the format that it has until now
	}
	r.s.Bytes[cmosA], r.s.Bytes[cmosB] = a, b
	if wasHeld && !r.held() {
		r.s.Phase = mod(second-cmosFirstUpdate-r.clock.Now(), second)
	}
	if !wasRunning && r.running() {
		r.setTime()
	}
	r.resync()
}

// running says that the time goes on: SET is clear and the divider works.
func (r *CMOS) running() bool {
	return r.s.Bytes[cmosB]&bSet == 0 && r.s.Bytes[cmosA]&aDivider <= aDividerRun
}

// held says that the divider is in reset.
func (r *CMOS) held() bool { return r.s.Bytes[cmosA]&aDividerHold == aDividerHold }

// now is the time in seconds from 1970, and ns into the second.
func (r *CMOS) now() (sec, ns int64) {
	t := r.s.Phase + r.clock.Now()
	return r.s.Base + t/second, t % second
}

// when is the machine's time at ns into the second sec.
func (r *CMOS) when(sec, ns int64) int64 { return (sec-r.s.Base)*second + ns - r.s.Phase }

// showTime writes the time to its registers.
func (r *CMOS) showTime() {
	sec, _ := r.now()
	t := time.Unix(sec, 0).UTC()
	b := &r.s.Bytes
	b[cmosSeconds] = r.encode(t.Second())
	b[cmosMinutes] = r.encode(t.Minute())
	b[cmosHours] = r.encodeHour(t.Hour())
	b[cmosWeekday] = r.encode(int(t.Weekday()) + 1)
	b[cmosDay] = r.encode(t.Day())
	b[cmosMonth] = r.encode(int(t.Month()))
	b[cmosYear] = r.encode(int(mod(int64(t.Year()), 100)))
	b[CMOSCentury] = r.encode(t.Year() / 100)
}

// setTime takes the time from its registers. A date that doesn't exist counts
// on from the last that does.
func (r *CMOS) setTime() {
	b := &r.s.Bytes
	t := time.Date(r.decode(b[CMOSCentury])*100+r.decode(b[cmosYear]), time.Month(r.decode(b[cmosMonth])), r.decode(b[cmosDay]),
		r.decodeHour(b[cmosHours]), r.decode(b[cmosMinutes]), r.decode(b[cmosSeconds]), 0, time.UTC)
	sec, _ := r.now()
	r.s.Base += t.Unix() - sec
	r.resync()
}

func (r *CMOS) encode(v int) uint8 {
	if r.s.Bytes[cmosB]&bBinary != 0 {
		return uint8(v)
	}
	return uint8(v/10<<4 | v%10)
}

func (r *CMOS) decode(v uint8) int {
	if r.s.Bytes[cmosB]&bBinary != 0 {
		return int(v)
	}
	return int(v>>4)*10 + int(v&0x0f)
}

// encodeHour gives 0 to 23 or, in 12-hour mode, 12, 1 to 11 and the same with
// the bit for the afternoon.
func (r *CMOS) encodeHour(h int) uint8 {
	if r.s.Bytes[cmosB]&b24Hours != 0 {
		return r.encode(h)
	}
	v := r.encode((h+11)%12 + 1)
	if h >= 12 {
		v |= hourPM
	}
	return v
}

func (r *CMOS) decodeHour(v uint8) int {
	if r.s.Bytes[cmosB]&b24Hours != 0 {
		return r.decode(v)
	}
	h := r.decode(v&^hourPM) % 12
	if v&hourPM != 0 {
		h += 12
	}
	return h
}

// resync forgets what happened until now, for a change of the time's course.
func (r *CMOS) resync() {
	r.s.Second, _ = r.now()
	r.s.Period = r.period()
}

// catchUp sets the flags of everything that happened since the last call.
func (r *CMOS) catchUp() {
	s, c := &r.s, &r.s.Bytes[cmosC]
	if sec, _ := r.now(); r.running() && sec > s.Second {
		*c |= cUpdate
		if r.nextAlarm(s.Second+1) <= sec {
			*c |= cAlarm
		}
	}
	if r.period() != s.Period {
		*c |= cPeriodic
	}
	r.resync()
}

// settle makes the interrupt follow the flags and the enables, and asks the
// clock for the next flag that would raise it. A flag that is set already asks
// for nothing, so there are never more events than reads of register C.
func (r *CMOS) settle() {
	b := &r.s.Bytes
	b[cmosC] &= cFlags
	level := b[cmosC]&b[cmosB]&cFlags != 0
	if level {
		b[cmosC] |= cRequest
	}
	if level != r.s.Line {
		r.s.Line = level
		r.irq(level)
	}

	next := clock.Never
	wanted := b[cmosB] &^ b[cmosC]
	sec, _ := r.now()
	if wanted&bUpdate != 0 && r.running() {
		next = min(next, r.when(sec+1, 0))
	}
	if wanted&bAlarm != 0 && r.running() {
		if alarm := r.nextAlarm(sec + 1); alarm != never {
			next = min(next, r.when(alarm, 0))
		}
	}
	if hz := r.hertz(); wanted&bPeriodic != 0 && hz != 0 {
		p := r.period() + 1
		next = min(next, r.when(p/hz, (p%hz*second+hz-1)/hz))
	}
	r.clock.Cancel(r.name, cmosCheck)
	if next != clock.Never {
		r.clock.Schedule(next, r.name, cmosCheck, 0)
	}
}

// hertz is the rate of the periodic interrupt, 0 for none (table 5: the two
// fastest settings repeat slower ones).
func (r *CMOS) hertz() int64 {
	rate := r.s.Bytes[cmosA] & aRate
	if rate == 0 || r.s.Bytes[cmosA]&aDivider > aDividerRun {
		return 0
	}
	if rate <= 2 {
		rate += 7
	}
	return 32768 >> (rate - 1)
}

// period numbers the periods of the periodic interrupt.
func (r *CMOS) period() int64 {
	hz := r.hertz()
	sec, ns := r.now()
	return sec*hz + ns*hz/second
}

// never is the second of an alarm that does not come.
const never = math.MaxInt64

// anyTime is an alarm byte that always matches.
const anyTime = -1

// nextAlarm is the first second from sec on that the alarm bytes match.
func (r *CMOS) nextAlarm(sec int64) int64 {
	b := &r.s.Bytes
	s := alarmTime(b[cmosSecondsAlarm], 60, r.encode)
	m := alarmTime(b[cmosMinutesAlarm], 60, r.encode)
	h := alarmTime(b[cmosHoursAlarm], 24, r.encodeHour)
	if s == never || m == never || h == never {
		return never
	}
	// Each step goes to the first second that may match; a few of them do.
	for {
		of := mod(sec, day)
		switch {
		case h != anyTime && of/3600 != h:
			sec += mod(h*3600-of, day)
		case m != anyTime && of/60%60 != m:
			sec += mod(m*60-of, 3600)
		case s != anyTime && of%60 != s:
			sec += mod(s-of, 60)
		default:
			return sec
		}
	}
}

// alarmTime is the time below limit that an alarm byte stands for: anyTime for
// all of them, never for none.
func alarmTime(v uint8, limit int, encode func(int) uint8) int64 {
	if v&alarmAnyMask == alarmAnyMask {
		return anyTime
	}
	for t := range limit {
		if encode(t) == v {
			return int64(t)
		}
	}
	return never
}

// mod is the remainder that is never negative.
func mod(a, n int64) int64 { return (a%n + n) % n }
