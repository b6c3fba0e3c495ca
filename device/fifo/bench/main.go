// Command bench measures the FIFO's model alone, without a guest: bytes that go
// from memory through a channel's FIFO into memory, in descriptors of 64 KiB,
// beside a plain copy of the same bytes in the same run.
//
// The device copies each byte twice, into its FIFO and out of it, which for data
// in the processor's cache can't be faster than half a copy. So there are two
// measurements: of 64 MiB, which no cache holds, and of 8 MiB, which one may.
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"fifovm/device/devicetest"
	"fifovm/device/fifo"
)

// The guest's memory: two rings with their completions, and what is sent and
// received from source on.
const (
	length = 64 << 10
	rings  = 0x1_0000 // of descriptors; 64 KiB for each
	comps  = 0x8_0000
	source = 1 << 20
)

// Registers and formats of docs/hardware.md.
const (
	control     = 0x10
	channel     = 0x1000
	doorbells   = 0x1_0000
	ringRegs    = 0x100
	ringBase    = 0x08
	ringSize    = 0x10
	ringComp    = 0x20
	ringLogComp = 0x28
	ringCtl     = 0x00
	compHead    = 0x08 // of the doorbells, TX's
	descSize    = 32
)

func main() {
	seconds := flag.Float64("seconds", 3, "how long to measure")
	flag.Parse()
	if flag.NArg() > 0 || *seconds <= 0 {
		fmt.Fprintln(os.Stderr, "bench: no arguments, and a positive number of -seconds")
		os.Exit(2)
	}
	for _, m := range []struct {
		prefix string
		log    uint32 // of the ring
	}{{"", 10}, {"cached_", 7}} {
		if err := run(m.prefix, m.log, time.Duration(*seconds*float64(time.Second))); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %v\n", err)
			os.Exit(1)
		}
	}
}

// rig is the device with its two rings, and all the requests that they hold.
type rig struct {
	h        *devicetest.Host
	log      uint32
	requests uint32
	tail     uint32
	source   []byte
	sink     []byte
}

func newRig(log uint32) (*rig, error) {
	f, err := fifo.New(fifo.Config{Rate: 100_000})
	if err != nil {
		return nil, err
	}
	r := &rig{log: log, requests: 1<<log - 1}
	n := int(r.requests) * length
	r.h = devicetest.New(f, source+2*n)
	r.source, r.sink = r.h.RAM[source:source+n], r.h.RAM[source+n:]
	for i := range r.source {
		r.source[i] = byte(i * 7 >> 3)
	}
	r.setUp()
	return r, nil
}

// transfer sends and receives everything once.
func (r *rig) transfer() error {
	h, mask := r.h, uint32(1)<<r.log-1
	h.Interrupts = h.Interrupts[:0]
	r.post()
	r.tail = (r.tail + r.requests) & mask
	for ring := range uint64(2) {
		h.Write32(0, doorbells+4*ring, r.tail)
	}
	h.Run()
	for ring := range uint64(2) {
		h.Write32(0, doorbells+compHead+4*ring, r.tail)
	}
	last := (r.tail - 1) & mask
	if c := h.RAM[comps+0x1_0000+last*descSize:]; binary.LittleEndian.Uint64(c[8:]) != length {
		return fmt.Errorf("the last request received %d bytes of %d, status %d",
			binary.LittleEndian.Uint64(c[8:]), length, binary.LittleEndian.Uint16(c[24:]))
	}
	return nil
}

// duplicate is the plain copy, in pieces of the same size.
func (r *rig) duplicate() error {
	for at := 0; at < len(r.source); at += length {
		copy(r.sink[at:][:length], r.source[at:][:length])
	}
	return nil
}

func run(prefix string, log uint32, d time.Duration) error {
	r, err := newRig(log)
	if err != nil {
		return err
	}
	for range 3 { // warms up
		if err := r.transfer(); err != nil {
			return err
		}
	}
	if !slices.Equal(r.source, r.sink) {
		return fmt.Errorf("what was received differs from what was sent")
	}
	var times [2][]float64 // seconds of a round
	var allocs uint64
	rounds := uint64(0)
	for start := time.Now(); time.Since(start) < d; rounds++ {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for side, f := range []func() error{r.transfer, r.duplicate} {
			begin := time.Now()
			if err := f(); err != nil {
				return err
			}
			times[side] = append(times[side], time.Since(begin).Seconds())
		}
		runtime.ReadMemStats(&after)
		allocs += after.Mallocs - before.Mallocs
	}
	device, plain := median(times[0]), median(times[1])
	bytes, descriptors := float64(len(r.source)), 2*uint64(r.requests)
	fmt.Printf("%sbytes_per_second: %.0f\n", prefix, bytes/device)
	fmt.Printf("%sdescriptors_per_second: %.0f\n", prefix, float64(descriptors)/device)
	fmt.Printf("%sallocs_per_descriptor: %d\n", prefix, allocs/(descriptors*rounds))
	fmt.Printf("%scopy_bytes_per_second: %.0f\n", prefix, bytes/plain)
	fmt.Printf("%sratio_to_copy: %.2f\n", prefix, plain/device)
	return nil
}

// setUp starts the rings of channel 0.
func (r *rig) setUp() {
	h := r.h
	h.Write32(0, control, 1)
	for ring := range uint64(2) {
		at := channel + ringRegs*(1+ring)
		h.Write64(0, at+ringBase, rings+ring*0x1_0000)
		h.Write32(0, at+ringSize, r.log)
		h.Write64(0, at+ringComp, comps+ring*0x1_0000)
		h.Write32(0, at+ringLogComp, r.log)
		h.Write32(0, at+ringCtl, 1)
	}
}

// post writes the descriptors of all requests behind the tail.
func (r *rig) post() {
	for ring := range uint64(2) {
		for i := range r.requests {
			index := uint64((r.tail + i) & (1<<r.log - 1))
			d := r.h.RAM[rings+ring*0x1_0000+index*descSize:][:descSize]
			clear(d)
			binary.LittleEndian.PutUint64(d[0:], source+ring*uint64(len(r.source))+uint64(i)*length)
			binary.LittleEndian.PutUint32(d[8:], length)
			binary.LittleEndian.PutUint64(d[16:], uint64(i))
		}
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
