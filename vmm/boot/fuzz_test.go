package boot

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"fifovm/vmm/memory"
)

// The seeds in testdata/fuzz are what the functions of image_test.go make:
// TestFuzzSeeds in this file writes them again with -update.

// Fuzz with -fuzzminimizetime=10x: else Go spends its time on making each new
// input smaller, a minute at a time.

// fuzzLimit keeps an input from being slow only because it is large.
const fuzzLimit = 64 << 10

// FuzzParse wants that no file leads to a panic, and that what is accepted is
// sound.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, image []byte) {
		if len(image) > fuzzLimit {
			return
		}
		k, err := Parse(image)
		if err != nil {
			checkError(t, err, "boot: kernel: ", "")
			return
		}
		checkKernel(t, k)
	})
}

func checkKernel(t *testing.T, k *Kernel) {
	if k.base < lowEnd || k.base >= k.end || k.end > memory.HoleStart || k.entry < k.base || k.entry >= k.end {
		t.Errorf("base %#x, end %#x, entry %#x", k.base, k.end, k.entry)
	}
	for _, s := range k.segments {
		if s.addr < k.base || s.size > k.end-s.addr || uint64(len(s.data)) > s.size {
			t.Errorf("segment at %#x+%#x with %#x bytes", s.addr, s.size, len(s.data))
		}
	}
	if k.align&(k.align-1) != 0 {
		t.Errorf("align %#x", k.align)
	}
}

// FuzzLoad wants that whatever Parse accepts is loaded in order, into any memory
// with any parameters, or refused.
func FuzzLoad(f *testing.F) {
	f.Fuzz(func(t *testing.T, image []byte, pages uint32, initrd uint32, cpus uint16, commandLine string, seed []byte, ecam, mmio32, mmio64 uint64) {
		if len(image) > fuzzLimit {
			return
		}
		k, err := Parse(image)
		if err != nil {
			return
		}
		size := (1 + uint64(pages)%(6<<30/memory.PageSize)) * memory.PageSize
		p := testParams(make([]byte, initrd%(1<<20)))
		p.CPUs, p.CommandLine, p.Seed = int(cpus), commandLine, seed
		p.Platform.ECAM.Base = ecam
		p.Platform.MMIO32.Base = mmio32
		p.Platform.MMIO64.Base = mmio64
		ram, err := memory.New(size)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { must(ram.Close()) }()
		e, err := Load(ram, k, p)
		if err != nil {
			checkError(t, err, "boot: kernel: ", "")
			return
		}
		checkLoaded(t, ram, k, &p, e)
	})
}

var update = flag.Bool("update", false, "write the seeds in testdata/fuzz")

// TestFuzzSeeds writes the seeds when asked to. Without them in place the fuzz
// tests would pass for want of anything to read.
func TestFuzzSeeds(t *testing.T) {
	parse := map[string]string{}
	load := map[string]string{}
	add := func(name string, image []byte) {
		parse[name] = fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", image)
		load[name] = parse[name] + "uint32(16383)\nuint32(5000)\nuint16(2)\nstring(\"console=ttyS0\")\n[]byte(\"seed\")\n" +
			"uint64(3758096384)\nuint64(3221225472)\nuint64(274877906944)\n"
	}
	add("elf", testELF())
	for name := range compressors {
		add(name, testBzImage(name))
	}
	for _, name := range []string{"payload.xz", "payload.bz2"} {
		payload, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		add(name, bzImageOf(binary.LittleEndian.AppendUint32(payload, uint32(len(testELF()))), nil))
	}
	for target, seeds := range map[string]map[string]string{"FuzzParse": parse, "FuzzLoad": load} {
		dir := filepath.Join("testdata", "fuzz", target)
		for name, seed := range seeds {
			path := filepath.Join(dir, name)
			if *update {
				must(os.MkdirAll(dir, 0o755))
				must(os.WriteFile(path, []byte(seed), 0o644))
			} else if _, err := os.Stat(path); err != nil {
				t.Errorf("a seed is missing: %v; write them with: go test -run TestFuzzSeeds -update", err)
			}
		}
	}
}
