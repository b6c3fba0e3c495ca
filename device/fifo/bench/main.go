// Command bench measures the FIFO's model alone, without a guest: bytes that go
// from memory through a channel's FIFO into memory, in descriptors of 64 KiB,
// beside a plain copy of the same bytes in the same run. The device copies each
// byte twice, into its FIFO and out of it.
package main

import (
	"cmp"
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
// received.
const (
	logSize  = 10
	requests = 1<<logSize - 1 // posted at once
	length   = 64 << 10
	rings    = 0x1_0000 // of descriptors; 64 KiB for each
	comps    = 0x8_0000
	source   = 1 << 20
	sink     = source + requests*length
	memory   = sink + requests*length
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
	if err := run(time.Duration(*seconds * float64(time.Second))); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(d time.Duration) error {
	f, err := fifo.New(fifo.Config{Rate: 100_000})
	if err != nil {
		return err
	}
	h := devicetest.New(f, memory)
	setUp(h)
	tail := uint32(0)
	round := func() error {
		h.Interrupts = h.Interrupts[:0]
		head := tail
		tail = (tail + requests) & (1<<logSize - 1)
		post(h, head)
		for ring := range uint64(2) {
			h.Write32(0, doorbells+4*ring, tail)
		}
		h.Run()
		for ring := range uint64(2) {
			h.Write32(0, doorbells+compHead+4*ring, tail)
		}
		last := (tail - 1) & (1<<logSize - 1)
		if c := h.RAM[comps+0x1_0000+last*descSize:]; binary.LittleEndian.Uint64(c[8:]) != length {
			return fmt.Errorf("the last request received %d bytes of %d, status %d",
				binary.LittleEndian.Uint64(c[8:]), length, binary.LittleEndian.Uint16(c[24:]))
		}
		return nil
	}
	duplicate := func() error {
		for i := range requests {
			copy(h.RAM[sink+i*length:][:length], h.RAM[source+i*length:][:length])
		}
		return nil
	}
	for i := range h.RAM[source:sink] {
		h.RAM[source+i] = byte(i * 7 >> 3)
	}
	for range 3 { // warms up
		if err := cmp.Or(round(), duplicate()); err != nil {
			return err
		}
	}
	if !slices.Equal(h.RAM[source:sink], h.RAM[sink:memory]) {
		return fmt.Errorf("what was received differs from what was sent")
	}
	var times [2][]float64 // seconds of a round
	var allocs uint64
	rounds := 0
	for start := time.Now(); time.Since(start) < d; rounds++ {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for side, f := range []func() error{round, duplicate} {
			begin := time.Now()
			if err := f(); err != nil {
				return err
			}
			times[side] = append(times[side], time.Since(begin).Seconds())
		}
		runtime.ReadMemStats(&after)
		allocs += after.Mallocs - before.Mallocs
	}
	const bytes = requests * length
	device, plain := median(times[0]), median(times[1])
	fmt.Printf("bytes_per_second: %.0f\n", bytes/device)
	fmt.Printf("descriptors_per_second: %.0f\n", 2*requests/device)
	fmt.Printf("allocs_per_descriptor: %d\n", allocs/uint64(2*requests*rounds))
	fmt.Printf("copy_bytes_per_second: %.0f\n", bytes/plain)
	fmt.Printf("ratio_to_copy: %.2f\n", plain/device)
	return nil
}

// setUp starts the rings of channel 0.
func setUp(h *devicetest.Host) {
	h.Write32(0, control, 1)
	for ring := range uint64(2) {
		at := channel + ringRegs*(1+ring)
		h.Write64(0, at+ringBase, rings+ring*0x1_0000)
		h.Write32(0, at+ringSize, logSize)
		h.Write64(0, at+ringComp, comps+ring*0x1_0000)
		h.Write32(0, at+ringLogComp, logSize)
		h.Write32(0, at+ringCtl, 1)
	}
}

// post writes descriptors for all requests from index head on.
func post(h *devicetest.Host, head uint32) {
	for ring := range uint64(2) {
		for i := range uint64(requests) {
			index := (uint64(head) + i) & (1<<logSize - 1)
			d := h.RAM[rings+ring*0x1_0000+index*descSize:][:descSize]
			clear(d)
			binary.LittleEndian.PutUint64(d[0:], source+ring*(sink-source)+i*length)
			binary.LittleEndian.PutUint32(d[8:], length)
			binary.LittleEndian.PutUint64(d[16:], i)
		}
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
