// bench measures what the FIFO model costs the host: data and descriptors
// through channel 0 in loopback, from the guest's memory to the guest's memory,
// beside a plain copy of the same bytes in the same pieces from the same
// memory to the same memory. There is no guest, and no machine: devicetest's
// host has the memory and the events.
//
// It prints a line "name: value" for each figure:
//
//	bytes_per_second         that arrive, in descriptors of 64 KiB
//	copy_bytes_per_second    of the plain copy
//	ratio_to_copy            of the first to the second
//	descriptors_per_second   of both rings, with 64 bytes each
//	allocs_per_descriptor    of the Go program in all of that
//
// All data cross twice: into the FIFO and out of it. Both sides are measured in
// turn, and the figures are medians; that of the ratio is the pairs'.
package main

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"time"

	"fifovm/device/devicetest"
	"fifovm/device/fifo"
)

// The guest's memory: rings, and beyond any cache what is sent and received.
const (
	ringLog  = 6
	entries  = 1 << ringLog
	entry    = 32
	area     = 96 << 20
	source   = 1 << 20
	target   = source + area
	ramSize  = target + area
	large    = 64 << 10
	small    = 64
	register = 0x1100 // the transmit ring's; the receive ring's are 0x100 further
	bells    = 0x1_0000
)

// driver drives the device as docs/hardware.md has it.
type driver struct {
	*devicetest.Host
	tail, comp [2]uint32 // free-running, not masked
	phase      [2]uint32
	value      [4]byte
	total      int // descriptors so far
}

func (d *driver) write(off uint64, v uint32) {
	binary.LittleEndian.PutUint32(d.value[:], v)
	d.Write(0, off, d.value[:])
}

// rings gives the address of a ring's descriptors and of its completions.
func rings(side int) (descriptors, completions uint64) {
	at := uint64(0x1_0000 * side)
	return at, at + entries*entry
}

func newDriver(cfg fifo.Config) (*driver, error) {
	f, err := fifo.New(cfg)
	if err != nil {
		return nil, err
	}
	d := &driver{Host: devicetest.New(f, ramSize)}
	for i := range d.RAM[source:target] {
		d.RAM[source+i] = byte(rand.Uint32())
	}
	clear(d.RAM[target:]) // all of it is there before anything is measured
	d.write(0x10, 1)
	for side := range 2 {
		at := register + 0x100*uint64(side)
		descriptors, completions := rings(side)
		d.write(at+0x08, uint32(descriptors))
		d.write(at+0x10, ringLog)
		d.write(at+0x20, uint32(completions))
		d.write(at+0x28, ringLog)
		d.write(at+0x34, 100<<16|16)
		d.write(at, 1)
		d.phase[side] = 1
	}
	return d, nil
}

// send has n pieces of the source's bytes go through the FIFO to the target.
func (d *driver) send(n, size int) error {
	le := binary.LittleEndian
	posted, done := [2]int{}, [2]int{}
	for done[0] < n || done[1] < n {
		for side, from := range [2]uint64{source, target} {
			descriptors, completions := rings(side)
			for posted[side] < n && posted[side]-done[side] < entries/2 {
				b := d.RAM[descriptors+uint64(d.tail[side]%entries)*entry:][:entry]
				le.PutUint64(b, from+uint64(posted[side]*size))
				le.PutUint32(b[8:], uint32(size))
				le.PutUint64(b[16:], uint64(posted[side]))
				d.tail[side]++
				posted[side]++
			}
			d.write(bells+4*uint64(side), d.tail[side]%entries)
			before := done[side]
			for {
				c := d.RAM[completions+uint64(d.comp[side]%entries)*entry:][:entry]
				if le.Uint32(c[28:]) != d.phase[side] {
					break
				}
				if le.Uint64(c[8:]) != uint64(size) || le.Uint16(c[24:]) != 0 || le.Uint64(c) != uint64(done[side]) {
					return fmt.Errorf("ring %d: completion %x", side, c)
				}
				if d.comp[side]++; d.comp[side]%entries == 0 {
					d.phase[side] ^= 1
				}
				done[side]++
			}
			if done[side] != before {
				d.write(bells+8+4*uint64(side), d.comp[side]%entries)
			}
		}
		d.Interrupts = d.Interrupts[:0]
		for range 16 {
			if !d.Step() {
				break
			}
		}
	}
	d.total += 2 * n
	return nil
}

// copyPlain copies the same pieces.
func (d *driver) copyPlain(n, size int) {
	for i := range n {
		copy(d.RAM[target+i*size:][:size], d.RAM[source+i*size:])
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func run(rounds, depth int) error {
	// The threshold has a receiver wait for all that it asks for.
	d, err := newDriver(fifo.Config{Channels: 1, Depth: depth})
	if err != nil {
		return err
	}
	d.write(register+0x100+0x38, large)
	const n, nSmall = area / large, 100_000
	if err := d.send(n, large); err != nil {
		return err
	}
	if !bytes.Equal(d.RAM[source:target], d.RAM[target:]) {
		return fmt.Errorf("what arrives is not what was sent")
	}
	d.copyPlain(n, large)
	if err := d.send(nSmall, small); err != nil {
		return err
	}
	var through, plain, ratios, descriptors []float64
	var before, after runtime.MemStats
	var allocs uint64
	first := d.total
	rate := func(since time.Time, n int) float64 { return float64(n) / time.Since(since).Seconds() }
	for range rounds {
		runtime.ReadMemStats(&before)
		start := time.Now()
		d.copyPlain(n, large)
		p := rate(start, area)
		start = time.Now()
		if err := d.send(n, large); err != nil {
			return err
		}
		t := rate(start, area)
		start = time.Now()
		if err := d.send(nSmall, small); err != nil {
			return err
		}
		s := rate(start, 2*nSmall)
		runtime.ReadMemStats(&after)
		allocs += after.Mallocs - before.Mallocs
		through, plain, ratios, descriptors = append(through, t), append(plain, p), append(ratios, t/p), append(descriptors, s)
	}
	fmt.Printf("bytes_per_second: %.0f\n", median(through))
	fmt.Printf("copy_bytes_per_second: %.0f\n", median(plain))
	fmt.Printf("ratio_to_copy: %.2f\n", median(ratios))
	fmt.Printf("descriptors_per_second: %.0f\n", median(descriptors))
	// The runtime has some of its own now and then.
	fmt.Printf("allocs_per_descriptor: %.3g\n", float64(allocs*1000/uint64(d.total-first))/1000)
	return nil
}

func main() {
	rounds := flag.Int("rounds", 15, "how often both sides are measured")
	depth := flag.Int("depth", 64<<10, "bytes of the FIFO")
	flag.Parse()
	if err := run(*rounds, *depth); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
