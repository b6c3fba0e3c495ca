package boot

import (
	"testing"

	"fifovm/vmm/memory"
)

// The seeds in testdata/fuzz are what the functions of image_test.go make:
// TestFuzzSeeds in this file writes them again with -update.

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
