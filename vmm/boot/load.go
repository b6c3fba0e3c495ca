package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

// Params is what the kernel is told.
type Params struct {
	CommandLine string
	Initrd      *io.SectionReader // nil: none; read straight into RAM
	CPUs        int
	// Seed is randomness for the kernel's generator, as a boot loader hands it
	// over, so that it needn't wait for its own. At most 1 KiB; may be empty.
	Seed     []byte
	Platform Platform
}

// Entry is the state in which the boot CPU starts: 64-bit mode with paging on
// (PE, PG, PAE, LME, LMA) and interrupts off; CS is x86.SelectorCode, DS,
// ES and SS are x86.SelectorData, both flat; RSI has the boot parameters. Whatever isn't here
// is as after reset. Documentation/arch/x86/boot.rst, "64-bit Boot Protocol".
type Entry struct {
	RIP uint64
	RSI uint64
	CR3 uint64
	// GDT is where the descriptors of the two selectors are, and its limit.
	GDT      uint64
	GDTLimit uint16
}

// The descriptors of x86.SelectorCode and x86.SelectorData, __BOOT_CS and
// __BOOT_DS of the boot protocol.
const (
	codeSegment = 0x00af_9b00_0000_ffff // 64-bit, execute and read, accessed
	dataSegment = 0x00cf_9300_0000_ffff // 4 GiB, read and write, accessed
)

// Where things are in conventional memory, which no kernel is loaded to. The
// kernel has taken over or copied all of them but the setup data, that it
// reserves itself, before it allocates memory.
const (
	gdtBase         = 0x6000
	paramsBase      = 0x7000
	pageTableBase   = 0x9000 // 6 pages
	setupDataBase   = 0xf000
	commandLineBase = 0x10000
)

// mappedGiB is how much of the address space the boot CPU finds mapped onto
// itself: all that lies below 4 GiB.
const mappedGiB = 4

const (
	maxSeed        = 1024
	maxCommandLine = ebdaBase - commandLineBase - 1
)

// layout is where the pieces lie whose place depends on their sizes.
type layout struct {
	kernel             uint64 // base
	initrd, initrdSize uint64
	setupData          uint64 // 0: none
}

// Load puts k and what it needs into ram, which is as memory.New gave it.
func Load(ram *memory.RAM, k *Kernel, p Params) (Entry, error) {
	e, err := load(ram, k, p)
	if err != nil {
		return Entry{}, fmt.Errorf("boot: %s: %w", k.name, err)
	}
	return e, nil
}

func load(ram *memory.RAM, k *Kernel, p Params) (Entry, error) {
	if err := checkPlatform(&p.Platform, p.CPUs, ram); err != nil {
		return Entry{}, err
	}
	if err := k.checkCommandLine(p.CommandLine); err != nil {
		return Entry{}, err
	}
	if len(p.Seed) > maxSeed {
		return Entry{}, fmt.Errorf("seed of %d bytes: want at most %d", len(p.Seed), maxSeed)
	}
	l, err := k.place(ram, p.Initrd)
	if err != nil {
		return Entry{}, err
	}
	if len(p.Seed) != 0 {
		l.setupData = setupDataBase
	}
	tables := acpiTables(&p.Platform, p.CPUs, acpiBase)
	if len(tables) > acpiEnd-acpiBase {
		return Entry{}, fmt.Errorf("%d bytes of ACPI tables: they do not fit in %d", len(tables), acpiEnd-acpiBase)
	}
	shift := l.kernel - k.base // modulo 2^64, as it may go down
	for _, s := range k.segments {
		if err := ram.Write(s.addr+shift, s.data); err != nil {
			return Entry{}, err
		}
	}
	if err := readInitrd(ram, p.Initrd, &l); err != nil {
		return Entry{}, err
	}
	for _, w := range []struct {
		addr uint64
		data []byte
	}{
		{gdtBase, gdt()},
		{paramsBase, k.bootParams(&l, memoryMap(ram, uint64(len(tables)), &p.Platform))},
		{pageTableBase, x86.IdentityMap(pageTableBase, mappedGiB, false)},
		{setupDataBase, setupData(p.Seed)},
		{commandLineBase, append([]byte(p.CommandLine), 0)},
		{acpiBase, tables},
	} {
		if err := ram.Write(w.addr, w.data); err != nil {
			return Entry{}, err
		}
	}
	return Entry{
		RIP:      k.entry + shift,
		RSI:      paramsBase,
		CR3:      pageTableBase,
		GDT:      gdtBase,
		GDTLimit: uint16(len(gdt()) - 1),
	}, nil
}

func (k *Kernel) checkCommandLine(s string) error {
	if limit := min(k.commandMax, maxCommandLine); uint64(len(s)) > limit {
		return fmt.Errorf("command line of %d characters: this kernel takes at most %d", len(s), limit)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return errors.New("command line with a zero byte in it: remove it")
	}
	return nil
}

// place finds room for kernel and initrd: the kernel at its own address if that
// leaves room, else as low or as high as it can be moved; the initrd as high as
// it may be, out of the kernel's way.
//
// The kernel takes what its segments say. A bzImage's init_size is larger by
// the room in which its own decompressor would work.
func (k *Kernel) place(ram *memory.RAM, initrd *io.SectionReader) (layout, error) {
	top := uint64(len(ram.Slots()[0].Bytes))
	size := k.end - k.base
	var bases []uint64
	for _, b := range []uint64{k.base, k.lowest(), k.highest(top)} {
		if b+size <= top {
			bases = append(bases, b)
		}
	}
	if len(bases) == 0 {
		return layout{}, fmt.Errorf("does not fit the memory of %d MiB: it needs at least %d MiB", ram.Size()>>20, mib(k.lowest()+size))
	}
	l := layout{kernel: bases[0]}
	if initrd == nil || initrd.Size() == 0 {
		return l, nil
	}
	l.initrdSize = uint64(initrd.Size())
	limit := min(top, k.initrdMax+1)
	for _, base := range bases {
		// Above the kernel, or else below it.
		for _, gap := range [][2]uint64{{base + size, limit}, {lowEnd, min(base, limit)}} {
			if at, ok := lastFit(gap[0], gap[1], l.initrdSize); ok {
				l.kernel, l.initrd = base, at
				return l, nil
			}
		}
	}
	end := k.lowest() + size
	need := alignUp(end, memory.PageSize) + alignUp(l.initrdSize, memory.PageSize)
	if most := min(memory.HoleStart, k.initrdMax+1); need > most {
		return l, fmt.Errorf("initrd of %d MiB is too large for this kernel: it takes at most %d MiB, whatever the memory; make the initrd smaller",
			mib(l.initrdSize), (most-min(most, end))>>20)
	}
	return l, fmt.Errorf("initrd of %d MiB does not fit the memory of %d MiB beside the kernel: it needs at least %d MiB, and as much again as it unpacks to",
		mib(l.initrdSize), ram.Size()>>20, mib(need))
}

// lowest is the lowest address that the kernel can be at: by multiples of align
// from the one that it was linked for.
func (k *Kernel) lowest() uint64 {
	if k.align == 0 {
		return k.base
	}
	return lowEnd + (k.base-lowEnd)%k.align
}

// highest is the highest address for the kernel in memory that ends at top.
func (k *Kernel) highest(top uint64) uint64 {
	low, size := k.lowest(), k.end-k.base
	if k.align == 0 || low+size > top {
		return low
	}
	return low + (top-size-low)/k.align*k.align
}

// lastFit gives the highest page in [lo, hi) where n bytes fit.
func lastFit(lo, hi, n uint64) (uint64, bool) {
	if hi < lo || n > hi-lo {
		return 0, false
	}
	at := (hi - n) &^ (memory.PageSize - 1)
	return at, at >= lo
}

// mib gives n bytes in MiB, rounded up.
func mib(n uint64) uint64 { return (n + (1<<20 - 1)) >> 20 }

func alignUp(n, align uint64) uint64 { return (n + align - 1) &^ (align - 1) }

func readInitrd(ram *memory.RAM, initrd *io.SectionReader, l *layout) error {
	if l.initrdSize == 0 {
		return nil
	}
	b, err := ram.Slice(l.initrd, l.initrdSize)
	if err != nil {
		return err
	}
	if n, err := initrd.ReadAt(b, 0); n < len(b) {
		return fmt.Errorf("initrd: read %d of %d bytes: %w", n, len(b), err)
	}
	return nil
}

func gdt() []byte {
	b := make([]byte, x86.SelectorData+8)
	binary.LittleEndian.PutUint64(b[x86.SelectorCode:], codeSegment)
	binary.LittleEndian.PutUint64(b[x86.SelectorData:], dataSegment)
	return b
}

// setupData is the list of one struct setup_data: arch/x86/include/uapi/asm/
// setup_data.h, and Documentation/arch/x86/boot.rst, "setup_data".
func setupData(seed []byte) []byte {
	const rngSeed = 9 // SETUP_RNG_SEED, from Linux 6.0 on
	if len(seed) == 0 {
		return nil
	}
	le := binary.LittleEndian
	b := make([]byte, 8) // no next
	b = le.AppendUint32(b, rngSeed)
	b = le.AppendUint32(b, uint32(len(seed)))
	return append(b, seed...)
}
