package chipset

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"fifovm/vmm/clock"
)

// rtc is a CMOS with both of its ends in the test's hands.
type rtc struct {
	t     testing.TB
	now   hand
	clock *clock.Clock
	*CMOS
	line  bool
	edges int // rising
}

func newRTC(t testing.TB, start time.Time) *rtc {
	r := &rtc{t: t}
	r.clock = clock.New(&r.now)
	r.CMOS = NewCMOS(r.clock, "cmos", func(level bool) {
		if level == r.line {
			t.Errorf("the line is set to %v again", level)
		}
		if r.line = level; level {
			r.edges++
		}
	}, start.UnixNano())
	return r
}

func (r *rtc) in(index uint8) uint8 {
	var b [1]byte
	r.Write(0, []byte{index})
	r.Read(1, b[:])
	return b[0]
}

func (r *rtc) out(index, v uint8) {
	r.Write(0, []byte{index})
	r.Write(1, []byte{v})
}

// pass lets time go by as the machine does: event by event.
func (r *rtc) pass(d time.Duration) {
	end := r.now + hand(d)
	for r.clock.Next() <= int64(end) {
		r.now = max(r.now, hand(r.clock.Next()))
		r.clock.RunDue()
	}
	r.now = end
}

var timeRegisters = []uint8{cmosSeconds, cmosMinutes, cmosHours, cmosDay, cmosMonth, cmosYear, CMOSCentury}

func (r *rtc) times() []uint8 {
	var b []uint8
	for _, i := range timeRegisters {
		b = append(b, r.in(i))
	}
	return b
}

// linuxTime is mc146818_get_time() of Linux 6.12, with the FADT's century.
func (r *rtc) linuxTime() time.Time {
	for r.in(cmosA)&aUpdating != 0 {
		r.pass(100 * time.Microsecond)
	}
	b := r.times()
	if r.in(cmosB)&bBinary == 0 {
		for i, v := range b {
			b[i] = v>>4*10 + v&15
		}
	}
	return time.Date(int(b[6])*100+int(b[5]), time.Month(b[4]), int(b[3]), int(b[2]), int(b[1]), int(b[0]), 0, time.UTC)
}

// linuxSetTime is mc146818_set_time(), as on Intel's CPUs.
func (r *rtc) linuxSetTime(t time.Time) {
	v := []uint8{uint8(t.Second()), uint8(t.Minute()), uint8(t.Hour()), uint8(t.Day()), uint8(t.Month()), uint8(t.Year() % 100), uint8(t.Year() / 100)}
	b := r.in(cmosB)
	if b&bBinary == 0 {
		for i := range v {
			v[i] = v[i]/10<<4 | v[i]%10
		}
	}
	r.out(cmosB, b|bSet)
	a := r.in(cmosA)
	r.out(cmosA, a|0x70)
	for i, reg := range timeRegisters {
		r.out(reg, v[i])
	}
	r.out(cmosB, b)
	r.out(cmosA, a)
}

func at(s string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05.999999999", s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestCMOSTime(t *testing.T) {
	for _, c := range []struct {
		start   string
		b       uint8
		want    []uint8 // seconds to century
		weekday uint8
	}{
		{"2024-02-29 23:59:58", 0x02, []uint8{0x58, 0x59, 0x23, 0x29, 0x02, 0x24, 0x20}, 5},
		{"2024-02-29 23:59:58", 0x06, []uint8{58, 59, 23, 29, 2, 24, 20}, 5},
		{"2024-02-29 23:59:58", 0x00, []uint8{0x58, 0x59, 0x91, 0x29, 0x02, 0x24, 0x20}, 5},
		{"2024-02-29 23:59:58", 0x04, []uint8{58, 59, 0x80 | 11, 29, 2, 24, 20}, 5},
		{"2000-01-01 00:00:00", 0x00, []uint8{0, 0, 0x12, 1, 1, 0, 0x20}, 7},
		{"2000-01-01 00:30:00", 0x04, []uint8{0, 30, 12, 1, 1, 0, 20}, 7},
		{"2000-01-01 12:00:00", 0x00, []uint8{0, 0, 0x92, 1, 1, 0, 0x20}, 7},
		{"2000-01-01 13:00:00", 0x04, []uint8{0, 0, 0x81, 1, 1, 0, 20}, 7},
		{"2000-01-01 01:00:00", 0x00, []uint8{0, 0, 1, 1, 1, 0, 0x20}, 7},
		{"2000-01-01 11:00:00", 0x00, []uint8{0, 0, 0x11, 1, 1, 0, 0x20}, 7},
		{"1999-12-31 23:59:59.999999999", 0x02, []uint8{0x59, 0x59, 0x23, 0x31, 0x12, 0x99, 0x19}, 6},
		{"1969-07-20 20:17:40", 0x02, []uint8{0x40, 0x17, 0x20, 0x20, 0x07, 0x69, 0x19}, 1},
	} {
		r := newRTC(t, at(c.start))
		r.out(cmosB, c.b)
		if got := r.times(); !slices.Equal(got, c.want) {
			t.Errorf("%s with B %#x: %x, want %x", c.start, c.b, got, c.want)
		}
		if got := r.in(cmosWeekday); got != c.weekday {
			t.Errorf("%s: day of the week %d, want %d", c.start, got, c.weekday)
		}
	}
}

// TestCMOSEdges: the second after each, in every format.
func TestCMOSEdges(t *testing.T) {
	for _, c := range []struct{ before, after string }{
		{"2023-02-28 23:59:59", "2023-03-01 00:00:00"},
		{"2024-02-28 23:59:59", "2024-02-29 00:00:00"},
		{"2024-02-29 23:59:59", "2024-03-01 00:00:00"},
		{"2000-02-28 23:59:59", "2000-02-29 00:00:00"},
		{"2100-02-28 23:59:59", "2100-03-01 00:00:00"}, // not a leap year
		{"1999-12-31 23:59:59", "2000-01-01 00:00:00"},
		{"2099-12-31 23:59:59", "2100-01-01 00:00:00"},
		{"2038-01-19 03:14:07", "2038-01-19 03:14:08"},
		{"2024-06-30 11:59:59", "2024-06-30 12:00:00"},
		{"2024-06-30 12:59:59", "2024-06-30 13:00:00"},
	} {
		for _, b := range []uint8{0x00, 0x02, 0x04, 0x06} {
			r := newRTC(t, at(c.before))
			want := newRTC(t, at(c.after))
			r.out(cmosB, b)
			want.out(cmosB, b)
			r.pass(time.Second)
			if got := r.times(); !slices.Equal(got, want.times()) {
				t.Errorf("a second after %s, B %#x: %x, want %x", c.before, b, got, want.times())
			}
		}
	}
}

// TestCMOSLinuxSets: what Linux sets it reads again, and the first second ends
// half a second later.
func TestCMOSLinuxSets(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	r := newRTC(t, at("2024-01-01 00:00:00.123"))
	for range 3000 {
		r.out(cmosB, uint8(rnd.IntN(2))*bBinary|b24Hours)
		r.pass(time.Duration(rnd.Int64N(3e9)))
		want := time.Unix(rnd.Int64N(8e9)-1e9, 0).UTC() // 1938 to 2191
		r.linuxSetTime(want)
		if got := r.linuxTime(); !got.Equal(want) {
			t.Fatalf("set %v, read %v", want, got)
		}
		r.pass(500*time.Millisecond - 1)
		if got := r.times()[0]; got != r.encode(want.Second()) {
			t.Fatalf("just before half a second later it is second %x of %v", got, want)
		}
		r.pass(1)
		if got := r.linuxTime(); !got.Equal(want.Add(time.Second)) {
			t.Fatalf("half a second after %v it is %v", want, got)
		}
		d := time.Duration(rnd.Int64N(1e15))
		r.pass(d)
		if got := r.linuxTime(); got.Sub(want.Add(time.Second+d).Truncate(time.Second)).Abs() > time.Second {
			t.Fatalf("%v after %v it is %v", d, want, got)
		}
	}
}

// TestCMOSSet: SET holds the time but not the divider; formats may change
// meanwhile; a write without SET counts at once.
func TestCMOSSet(t *testing.T) {
	r := newRTC(t, at("2024-05-06 07:08:09.400"))
	r.out(cmosB, bSet|bUpdate|b24Hours)
	if b := r.in(cmosB); b != bSet|b24Hours {
		t.Errorf("B is %#x, SET must clear the update interrupt", b)
	}
	r.pass(10 * time.Second)
	if got := r.times(); !slices.Equal(got, []uint8{0x09, 0x08, 0x07, 0x06, 0x05, 0x24, 0x20}) {
		t.Errorf("held time is %x", got)
	}
	r.out(cmosB, bSet|bBinary) // and 12 hours
	for i, v := range []uint8{1, 2, 0x80 | 12, 3, 4, 25, 20} {
		r.out(timeRegisters[i], v)
		if got := r.in(timeRegisters[i]); got != v {
			t.Errorf("register %#x is %#x, wrote %#x", timeRegisters[i], got, v)
		}
	}
	r.out(cmosB, bBinary)
	r.out(cmosB, bBinary|b24Hours)
	if got := r.linuxTime(); !got.Equal(at("2025-04-03 12:02:01")) {
		t.Errorf("set time is %v", got)
	}
	r.pass(599 * time.Millisecond)
	if got := r.linuxTime(); !got.Equal(at("2025-04-03 12:02:01")) {
		t.Errorf("SET has moved the divider: %v", got)
	}
	r.pass(time.Millisecond)
	if got := r.linuxTime(); !got.Equal(at("2025-04-03 12:02:02")) {
		t.Errorf("SET has moved the divider: %v", got)
	}

	r.out(cmosMinutes, 30)
	r.out(cmosDay, 4)
	if got := r.linuxTime(); !got.Equal(at("2025-04-04 12:30:02")) {
		t.Errorf("without SET: %v", got)
	}
}

// TestCMOSNonsense: no value of any register, in any format, stops the clock.
func TestCMOSNonsense(t *testing.T) {
	for _, b := range []uint8{0x00, 0x02, 0x04, 0x06} {
		for v := range 256 {
			r := newRTC(t, at("2024-01-01 00:00:00"))
			r.out(cmosB, b|bSet)
			for _, reg := range timeRegisters {
				r.out(reg, uint8(v))
			}
			r.out(cmosB, b)
			before, _ := r.CMOS.now()
			r.pass(time.Second)
			if after, _ := r.CMOS.now(); after != before+1 {
				t.Errorf("B %#x, all registers %#x: from %d to %d", b, v, before, after)
			}
			if err := r.SetState(r.State()); err != nil {
				t.Errorf("B %#x, all registers %#x: %v", b, v, err)
			}
		}
	}
}

func TestCMOSUpdateInProgress(t *testing.T) {
	r := newRTC(t, at("2024-01-01 00:00:00"))
	uip := func() bool { return r.in(cmosA)&aUpdating != 0 }
	for _, c := range []struct {
		ns   time.Duration
		want bool
	}{{0, false}, {999_755_999, false}, {999_756_000, true}, {999_999_999, true}, {1_000_000_000, false}, {1_999_800_000, true}} {
		r.now = hand(c.ns)
		if uip() != c.want {
			t.Errorf("at %d ns: UIP is %v", c.ns, !c.want)
		}
	}
	r.out(cmosB, bSet)
	if uip() {
		t.Error("UIP while SET")
	}
	r.out(cmosA, 0xff)
	if a := r.in(cmosA); a != 0x7f {
		t.Errorf("A is %#x", a)
	}
}

func TestCMOSRegisters(t *testing.T) {
	r := newRTC(t, at("2024-01-01 00:00:00"))
	for reg, want := range map[uint8]uint8{cmosA: 0x26, cmosB: 0x02, cmosC: 0, cmosD: 0x80, 0x0e: 0, 0x7f: 0} {
		if got := r.in(reg); got != want {
			t.Errorf("register %#x is %#x, want %#x", reg, got, want)
		}
	}
	r.out(cmosC, 0xff)
	r.out(cmosD, 0)
	if c, d := r.in(cmosC), r.in(cmosD); c != 0 || d != 0x80 {
		t.Errorf("C and D are %#x and %#x after writes", c, d)
	}
	for i := 0x0e; i < cmosSize; i++ {
		if i != CMOSCentury {
			r.out(uint8(i)|0x80, uint8(i)^0x55) // with the NMI masked
		}
	}
	r.Reset()
	for i := 0x0e; i < cmosSize; i++ {
		if got := r.in(uint8(i)); i != CMOSCentury && got != uint8(i)^0x55 {
			t.Errorf("NVRAM %#x is %#x", i, got)
		}
	}
	b := make([]byte, 2)
	r.Write(0, []byte{0x40, 0x99})
	if r.Read(0, b); b[0] != 0xff || b[1] != 0x99 {
		t.Errorf("a wide access reads %x", b)
	}
}

// TestCMOSUpdateInterrupt: one each second, and none while nobody reads C.
func TestCMOSUpdateInterrupt(t *testing.T) {
	r := newRTC(t, at("2024-01-01 00:00:00.25"))
	if r.clock.Next() != clock.Never {
		t.Error("an event waits with interrupts off")
	}
	r.pass(3 * time.Second)
	if c := r.in(cmosC); c != cUpdate|cPeriodic { // flags are set without enables
		t.Errorf("C is %#x", c)
	}
	r.out(cmosB, b24Hours|bUpdate)
	for i := range 5 {
		r.pass(750*time.Millisecond - 1)
		if r.line {
			t.Errorf("second %d: early", i)
		}
		r.pass(1)
		if !r.line {
			t.Errorf("second %d: late", i)
		}
		if r.clock.Next() != clock.Never {
			t.Errorf("second %d: an event waits while the interrupt does", i)
		}
		r.pass(250 * time.Millisecond)
		if c := r.in(cmosC); c != cRequest|cUpdate|cPeriodic {
			t.Errorf("second %d: C is %#x", i, c)
		}
		if r.line || r.in(cmosC) != 0 {
			t.Errorf("second %d: reading C does not clear it", i)
		}
	}
	r.pass(time.Second)
	r.out(cmosB, b24Hours)
	if r.line || r.clock.Next() != clock.Never {
		t.Error("disabling does not take the interrupt back")
	}
	if r.in(cmosC)&cRequest != 0 {
		t.Error("request with interrupts off")
	}
}

func TestCMOSPeriodicInterrupt(t *testing.T) {
	for rate, hz := range []int{0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2} {
		r := newRTC(t, at("2024-01-01 00:00:00"))
		r.out(cmosA, 0x20|uint8(rate))
		r.out(cmosB, b24Hours|bPeriodic)
		end := r.now + hand(3*time.Second)
		for r.clock.Next() <= int64(end) {
			r.now = hand(r.clock.Next())
			r.clock.RunDue()
			if c := r.in(cmosC); c&(cRequest|cPeriodic) != cRequest|cPeriodic {
				t.Fatalf("rate %d: event at %d without its flag: %#x", rate, r.now, c)
			}
		}
		if r.edges != 3*hz {
			t.Errorf("rate %d: %d interrupts in 3 s, want %d", rate, r.edges, 3*hz)
		}
	}
	r := newRTC(t, at("2024-01-01 00:00:00"))
	r.out(cmosB, b24Hours|bPeriodic)
	r.out(cmosA, 0x66)
	if r.clock.Next() != clock.Never {
		t.Error("periodic interrupt with the divider held")
	}
}

// TestCMOSAlarm compares the interrupt with a search through the day that
// matches the registers as the data sheet says.
func TestCMOSAlarm(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 1))
	for i := range 300 {
		b := uint8(rnd.IntN(4)) << 1
		start := time.Unix(rnd.Int64N(4e9), rnd.Int64N(1e9))
		r := newRTC(t, start)
		r.out(cmosB, b)
		alarm := [3]uint8{} // seconds, minutes, hours
		for j, limit := range []int{60, 60, 24} {
			switch rnd.IntN(5) {
			case 0, 1:
				alarm[j] = uint8(0xc0 + rnd.IntN(64))
			case 2:
				alarm[j] = uint8(rnd.IntN(256))
			default:
				alarm[j] = r.encode(rnd.IntN(limit))
				if j == 2 {
					alarm[j] = r.encodeHour(rnd.IntN(limit))
				}
			}
			r.out(uint8(1+2*j), alarm[j])
		}
		name := fmt.Sprintf("%d: B %#x, alarm %x, start %v", i, b, alarm, start.UTC())

		twin := newRTC(t, start)
		twin.out(cmosB, b)
		want := time.Duration(-1)
		for s := int64(1); s <= day; s++ {
			twin.now = hand(s*second - int64(start.Nanosecond()))
			twin.showTime()
			match := true
			for j := range alarm {
				match = match && (alarm[j] >= 0xc0 || alarm[j] == twin.s.Bytes[2*j])
			}
			if match {
				want = time.Duration(twin.now)
				break
			}
		}

		r.out(cmosB, b|bAlarm)
		if next := r.clock.Next(); want < 0 {
			if next != clock.Never {
				t.Errorf("%s: an event waits for an alarm that never comes", name)
			}
			continue
		} else if next != int64(want) {
			t.Errorf("%s: comes after %v, want %v", name, time.Duration(next), want)
			continue
		}
		r.pass(want - 1)
		if r.line {
			t.Errorf("%s: early", name)
		}
		r.pass(1)
		if !r.line || r.in(cmosC)&(cRequest|cAlarm) != cRequest|cAlarm {
			t.Errorf("%s: late", name)
		}
		// Without the interrupt the flag comes too, when somebody looks.
		r.out(cmosB, b)
		r.in(cmosC)
		r.pass(24 * time.Hour)
		if r.in(cmosC) != cAlarm|cUpdate|cPeriodic {
			t.Errorf("%s: no flag after a day", name)
		}
	}
}

// TestCMOSAlarmOfNow: an alarm that is set for this second comes tomorrow, and
// setting the time over an alarm does not raise it.
func TestCMOSAlarmOfNow(t *testing.T) {
	r := newRTC(t, at("2024-01-01 10:00:00"))
	for reg, v := range map[uint8]uint8{cmosSecondsAlarm: 0, cmosMinutesAlarm: 0, cmosHoursAlarm: 0x10} {
		r.out(reg, v)
	}
	r.out(cmosB, b24Hours|bAlarm)
	if want := int64(24 * time.Hour); r.clock.Next() != want {
		t.Errorf("comes at %v", time.Duration(r.clock.Next()))
	}
	r.linuxSetTime(at("2024-01-02 09:59:58"))
	r.linuxSetTime(at("2024-01-02 10:00:01"))
	r.pass(time.Hour)
	if r.line {
		t.Error("setting the time raised the alarm")
	}
	r.out(cmosHours, 0x09) // without SET too
	r.out(cmosHours, 0x10)
	r.out(cmosHours, 0x11)
	if r.line || r.in(cmosC)&cAlarm != 0 {
		t.Error("setting the hour raised the alarm")
	}
	r.linuxSetTime(at("2024-01-02 09:59:58"))
	r.pass(1500 * time.Millisecond)
	if !r.line {
		t.Error("no alarm after the time was set")
	}
}

func TestCMOSDoesNotAllocate(t *testing.T) {
	r := NewCMOS(clock.New(new(hand)), "cmos", func(bool) {}, machineStart)
	r.Write(0, []byte{cmosB})
	r.Write(1, []byte{b24Hours | bAlarm | bUpdate | bPeriodic})
	b, index := make([]byte, 1), []byte{cmosSeconds}
	if n := testing.AllocsPerRun(1000, func() { r.Write(0, index); r.Read(1, b); r.Write(1, b) }); n != 0 {
		t.Errorf("accesses allocate %v times", n)
	}
}
