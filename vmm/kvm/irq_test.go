//go:build linux && amd64

package kvm

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fifovm/vmm/x86"
)

// sleeper takes interrupts while it is halted, and tells by a port write when
// it is ready for them.
var sleeper = []byte{
	0xe6, vectorPort + 1, //       out vectorPort+1, al
	0xfb,       //           loop: sti
	0xf4,       //                 hlt
	0xeb, 0xfc, //                 jmp loop
}

// newSleeper gives a guest that runs sleeper and calls ready when it has begun.
func newSleeper(t *testing.T, ready func(g *guest)) *guest {
	g := newGuest(t, 1, sleeper)
	g.check(g.cfg.Ports.Map(vectorPort+1, 1, "ready", probe(func(bool, []byte) { ready(g) })))
	return g
}

// expectVectors compares which interrupts the guest handled.
func (g *guest) expectVectors(want ...byte) {
	g.Helper()
	if !bytes.Equal(g.vectors, want) {
		g.Errorf("the guest handled vectors %#x, want %#x", g.vectors, want)
	}
}

// TestSignalMSI raises each interrupt from the handler of the one before.
func TestSignalMSI(t *testing.T) {
	g := newSleeper(t, func(g *guest) { g.check(g.engine.SignalMSI(msiAtCPU0, 0x50)) })
	g.onVector = func(v byte) {
		if v == 0x59 {
			g.stop()
			return
		}
		g.check(g.engine.SignalMSI(msiAtCPU0, uint32(v)+1))
	}
	g.mustRun()
	g.expectVectors(0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59)
}

// TestMSIToNobody: whatever a guest has a device send is no error.
func TestMSIToNobody(t *testing.T) {
	g := newGuest(t, 1, sleeper)
	for _, data := range []uint32{0, 0x50, 0x150, 0x4650, 0xff, 0xffff_ffff} {
		for _, address := range []uint64{msiAtCPU0, msiAtCPU0 | 0x55<<12, msiAtCPU0 | 0x55<<12 | 4, msiAtCPU0 | 0xff<<12 | 8, 0xfeef_fffc} {
			if data != 0x150 && address == msiAtCPU0 {
				continue // CPU 0 is to sleep on
			}
			if err := g.engine.SignalMSI(address, data); err != nil {
				t.Errorf("%#x to %#x: %v", data, address, err)
			}
		}
	}
}

func TestVector(t *testing.T) {
	var v, other *Vector
	g := newSleeper(t, func(g *guest) { g.check(v.Raise()) })
	newVector := func() *Vector {
		v, err := g.engine.NewVector()
		g.check(err)
		return v
	}
	v, other = newVector(), newVector()
	g.check(v.Route(msiAtCPU0, 0x60))
	g.check(other.Route(msiAtCPU0, 0x61))
	g.onVector = func(got byte) {
		switch got {
		case 0x60:
			g.check(other.Raise())
		case 0x61: // another message
			g.check(v.Route(msiAtCPU0, 0x62))
			g.check(v.Route(msiAtCPU0, 0x62)) // the same again is nothing
			g.check(v.Raise())
		case 0x62: // one goes, the other stays as it is
			g.check(v.Close())
			g.check(other.Raise())
			g.onVector = func(byte) { g.stop() }
		}
	}
	g.mustRun()
	g.expectVectors(0x60, 0x61, 0x62, 0x61)
	// The place of the one that was closed is taken again.
	again := newVector()
	if again.gsi != v.gsi {
		t.Errorf("a new vector has GSI %d, want %d, which is free", again.gsi, v.gsi)
	}
	g.check(again.Close())
	g.check(other.Close())
	if n := g.engine.irq.routing.count; n != ioapicInputs {
		t.Errorf("%d routes are left, want the I/O APIC's %d", n, ioapicInputs)
	}
}

// TestVectorLimit: every route can be in use at once, and one more is an error.
func TestVectorLimit(t *testing.T) {
	g := newGuest(t, 1, done)
	var all []*Vector
	for range maxRoutes - ioapicInputs {
		v, err := g.engine.NewVector()
		g.check(err)
		all = append(all, v)
	}
	for i, v := range all {
		if i < 3 || i >= len(all)-3 { // a route takes KVM a while
			g.check(v.Route(msiAtCPU0, uint32(i)))
		}
	}
	if _, err := g.engine.NewVector(); err == nil {
		t.Error("a vector more than there are routes")
	}
	for _, v := range all {
		g.check(v.Close())
	}
}

// TestUnroutedVector: a vector without a message sends none.
func TestUnroutedVector(t *testing.T) {
	var v *Vector
	g := newSleeper(t, func(g *guest) {
		g.check(v.Raise())
		g.check(g.engine.SignalMSI(msiAtCPU0, 0x70))
	})
	var err error
	v, err = g.engine.NewVector()
	g.check(err)
	g.onVector = func(byte) { g.stop() }
	g.mustRun()
	g.expectVectors(0x70)
	g.check(v.Close())
}

// TestSetIRQ: an edge into the I/O APIC arrives once; a level arrives again
// after its end for as long as it stays.
func TestSetIRQ(t *testing.T) {
	const gsi = 5
	t.Run("edge", func(t *testing.T) {
		g := newSleeper(t, func(g *guest) {
			g.check(g.engine.SetIRQ(gsi, true))
			g.check(g.engine.SetIRQ(gsi, true)) // no edge
		})
		g.start.IOAPIC.Redirection[gsi] = 0x75 // fixed, edge, to APIC ID 0
		g.check(g.engine.SetState(g.start))
		g.onVector = func(byte) {
			switch len(g.vectors) {
			case 1:
				g.check(g.engine.SetIRQ(gsi, false))
				g.check(g.engine.SetIRQ(gsi, true))
			case 2: // a later one shows that no third of 0x75 was on its way
				g.check(g.engine.SignalMSI(msiAtCPU0, 0x40))
			case 3:
				g.stop()
			}
		}
		g.mustRun()
		g.expectVectors(0x75, 0x75, 0x40)
	})
	t.Run("level", func(t *testing.T) {
		const level = 1 << 15
		g := newSleeper(t, func(g *guest) { g.check(g.engine.SetIRQ(gsi, true)) })
		g.start.IOAPIC.Redirection[gsi] = level | 0x76
		g.check(g.engine.SetState(g.start))
		g.onVector = func(v byte) {
			switch len(g.vectors) {
			case 3:
				g.check(g.engine.SetIRQ(gsi, false))
				g.check(g.engine.SignalMSI(msiAtCPU0, 0x41))
			}
			if v == 0x41 {
				g.stop()
			}
		}
		g.mustRun()
		// A KVM without VMX or SVM ends an interrupt as it delivers it, so that
		// there the next one is pending before the handler has run.
		if len(g.vectors) == 5 {
			g.vectors = g.vectors[1:]
		}
		g.expectVectors(0x76, 0x76, 0x76, 0x41)
	})
	t.Run("refused", func(t *testing.T) {
		g := newGuest(t, 1, done)
		if err := g.engine.SetIRQ(ioapicInputs, true); err == nil {
			t.Error("an input that there is not")
		}
	})
}

// TestDoorbell: a write of the right width rings and does not come to the bus;
// after Close it comes to the bus.
func TestDoorbell(t *testing.T) {
	g := newGuest(t, 1, mov(x86.RBX, testMMIO+0x40), mov(x86.RAX, 7),
		stores[4],                // rings
		[]byte{0xe6, vectorPort}, // waits for the ring
		stores[1],                // another width: the bus
		stores[4], stores[4], done)
	rings := 0
	rang := make(chan struct{}, 10)
	d, err := g.engine.NewDoorbell(testMMIO+0x40, 4, func() { rings++; rang <- struct{}{} })
	g.check(err)
	g.onVector = func(byte) {
		g.lock.Unlock() // the ring needs it
		<-rang
		g.lock.Lock()
	}
	g.mustRun()
	g.mmio.expect(t, access{true, testMMIO + 0x40, []byte{7}})
	g.check(d.Close())
	if rings < 2 || rings > 3 {
		t.Errorf("3 writes rang %d times, want 2 or 3", rings)
	}
	before := rings
	g.mmio.log, g.onVector = nil, nil
	g.check(g.engine.SetState(g.start))
	g.mustRun()
	g.mmio.expect(t, access{true, testMMIO + 0x40, []byte{7, 0, 0, 0}}, access{true, testMMIO + 0x40, []byte{7}},
		access{true, testMMIO + 0x40, []byte{7, 0, 0, 0}}, access{true, testMMIO + 0x40, []byte{7, 0, 0, 0}})
	if rings != before {
		t.Error("a closed doorbell rang")
	}
}

// deaf makes a doorbell whose reader has ended, as one that does not get to run
// in time.
func (g *guest) deaf(ring func()) *Doorbell {
	g.Helper()
	d, err := g.engine.NewDoorbell(testMMIO, 4, ring)
	g.check(err)
	g.check(d.file.SetReadDeadline(time.Now()))
	<-d.done
	return d
}

// TestDoorbellBeforeStop: what the guest wrote before it stopped has rung when
// Run returns, or its state would lack the write for ever.
func TestDoorbellBeforeStop(t *testing.T) {
	g := newGuest(t, 1, mov(x86.RBX, testMMIO), stores[4], done)
	rings := 0
	d := g.deaf(func() { rings++ })
	for i := range 3 {
		g.check(g.engine.SetState(g.start))
		g.mustRun()
		if rings != i+1 {
			t.Fatalf("%d rings after %d runs with one write each", rings, i+1)
		}
	}
	g.check(d.Close())
	// And with a reader that competes with the stop.
	d, err := g.engine.NewDoorbell(testMMIO, 4, func() { rings++ })
	g.check(err)
	rings = 0
	for i := range 200 {
		g.check(g.engine.SetState(g.start))
		g.mustRun()
		g.lock.Lock()
		got := rings
		g.lock.Unlock()
		if got != i+1 {
			t.Fatalf("%d rings after %d runs with one write each", got, i+1)
		}
	}
	g.check(d.Close())
}

// TestDoorbellClosedAfterWrite: nor does closing it lose a write.
func TestDoorbellClosedAfterWrite(t *testing.T) {
	g := newGuest(t, 1)
	rings := 0
	d := g.deaf(func() { rings++ })
	_, err := unix.Write(d.fd, binary.NativeEndian.AppendUint64(nil, 1)) // as the kernel does for a write
	g.check(err)
	g.check(d.Close())
	if rings != 1 {
		t.Errorf("a doorbell that was written to and closed rang %d times", rings)
	}
}

// TestManyDoorbells ring each its own function.
func TestManyDoorbells(t *testing.T) {
	const n = 16
	var program []byte
	for i := range n {
		program = slices.Concat(program, mov(x86.RBX, testMMIO+uint64(4*i)), stores[4])
	}
	g := newGuest(t, 1, program, done)
	var rings [n]int
	var all []*Doorbell
	for i := range n {
		d, err := g.engine.NewDoorbell(testMMIO+uint64(4*i), 4, func() { rings[i]++ })
		g.check(err)
		all = append(all, d)
	}
	g.mustRun()
	for i, d := range all {
		g.check(d.Close())
		if rings[i] != 1 {
			t.Errorf("doorbell %d rang %d times", i, rings[i])
		}
	}
	if len(g.mmio.log) != 0 {
		t.Errorf("the bus saw %v", g.mmio.log)
	}
	if _, err := g.engine.NewDoorbell(testMMIO, 3, func() {}); err == nil {
		t.Error("a doorbell of 3 bytes")
	}
}

// store32 writes v to the absolute address at, by RBX and EAX.
func store32(at uint64, v uint32) []byte {
	return slices.Concat(mov(x86.RBX, at), mov(x86.RAX, uint64(v)), stores[4])
}

// realHello is what a started CPU does in real mode.
var realHello = []byte{
	0xb0, 0x77, //       mov al, 0x77
	0xe6, vectorPort, // out vectorPort, al
	0xf4,       // loop: hlt
	0xeb, 0xfd, //       jmp loop
}

// TestStartup: ring-0 code starts the other CPUs by INIT and start-up IPI, and
// they begin in real mode at the page that the IPI names.
func TestStartup(t *testing.T) {
	const cpus = 4
	var ipis []byte
	for id := uint32(1); id < cpus; id++ {
		ipis = slices.Concat(ipis,
			store32(apicICR+0x10, id<<24), store32(apicICR, 0x4500), // INIT
			store32(apicICR+0x10, id<<24), store32(apicICR, 0x4600|testReal>>12))
	}
	g := newGuest(t, cpus, ipis, []byte{0xf4, 0xeb, 0xfd}) // hlt; jmp
	g.write(testReal, realHello)
	g.onVector = func(byte) {
		if len(g.vectors) == cpus-1 {
			g.stop()
		}
	}
	g.mustRun()
	g.expectVectors(0x77, 0x77, 0x77)
	for i, c := range g.state().CPUs[1:] {
		if c.Seg[x86.CS].Base != testReal || c.Seg[x86.CS].Selector != testReal>>4 {
			t.Errorf("CPU %d is at %#x:%#x", i+1, c.Seg[x86.CS].Selector, c.RIP)
		}
	}
}

// TestParallel: all CPUs, put into 64-bit mode by SetState, run at once, and
// the lock keeps their accesses apart.
func TestParallel(t *testing.T) {
	const cpus, writes = 4, 200
	g := newGuest(t, cpus, mov(x86.RCX, writes),
		[]byte{0xe7, testPort}, // loop: out testPort, eax
		[]byte{0xff, 0xc0},     //       inc eax
		[]byte{0xff, 0xc9},     //       dec ecx
		[]byte{0x75, 0xf8},     //       jnz loop
		[]byte{0xe6, vectorPort, 0xf4, 0xeb, 0xfd})
	g.everyCPU()
	g.onVector = func(byte) {
		if len(g.vectors) == cpus {
			g.stop()
		}
	}
	g.mustRun()
	var next [cpus]uint16
	for _, a := range g.port.log {
		v := binary.LittleEndian.Uint32(a.data)
		cpu, n := v>>16, uint16(v)
		if next[cpu] != n {
			t.Fatalf("CPU %d wrote %d, want %d", cpu, n, next[cpu])
		}
		next[cpu]++
	}
	if next != [cpus]uint16{writes, writes, writes, writes} {
		t.Errorf("the CPUs wrote %v times", next)
	}
}

// TestClockEvent: the clock's events come while the guest does nothing, those
// that are added meanwhile too.
func TestClockEvent(t *testing.T) {
	g := newSleeper(t, func(g *guest) {
		g.cfg.Clock.Schedule(g.cfg.Clock.Now()+int64(time.Millisecond), "test", 1, 0x44)
	})
	g.cfg.Clock.Register("test", onEvent(func(_ uint32, payload uint64) {
		g.check(g.engine.SignalMSI(msiAtCPU0, uint32(payload)))
	}))
	g.onVector = func(v byte) {
		if v == 0x46 {
			g.stop()
			return
		}
		g.cfg.Clock.Schedule(0, "test", 1, uint64(v)+1)
	}
	g.mustRun()
	g.expectVectors(0x44, 0x45, 0x46)
}

type onEvent func(kind uint32, payload uint64)

func (f onEvent) HandleEvent(kind uint32, payload uint64) { f(kind, payload) }

// TestRaiseFromAnywhere raises one vector from several goroutines without the
// machine's lock while the guest runs.
func TestRaiseFromAnywhere(t *testing.T) {
	var v *Vector
	var stop atomic.Bool
	finished := make(chan error, 3)
	g := newSleeper(t, func(*guest) {
		for range cap(finished) {
			go func() {
				for !stop.Load() {
					if err := v.Raise(); err != nil {
						finished <- err
						return
					}
					time.Sleep(50 * time.Microsecond)
				}
				finished <- nil
			}()
		}
	})
	var err error
	v, err = g.engine.NewVector()
	g.check(err)
	g.check(v.Route(msiAtCPU0, 0x80))
	g.onVector = func(byte) {
		if len(g.vectors) == 50 {
			g.stop()
		}
	}
	g.mustRun()
	stop.Store(true)
	for range cap(finished) {
		g.check(<-finished)
	}
	g.check(v.Close())
}
