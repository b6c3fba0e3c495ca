package boot

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

// This file starts real kernels from the memory that Load made. The machine is
// QEMU, with its firmware replaced by a few instructions that bring the CPU to
// the state in Entry; what Linux finds there is ours alone.

// realKernels gives the kernels at hand: those in FIFOVM_TEST_KERNELS, a list
// like PATH, and those that were built here.
func realKernels(t testing.TB) []string {
	kernels := filepath.SplitList(os.Getenv("FIFOVM_TEST_KERNELS"))
	for _, name := range []string{"vmlinux", "bzImage"} {
		built, err := filepath.Glob(filepath.Join("..", "..", "build", "kernel", "*", name))
		must(err)
		kernels = append(kernels, built...)
	}
	if len(kernels) == 0 {
		t.Skip("no kernel at hand: build one or name some in FIFOVM_TEST_KERNELS")
	}
	return kernels
}

// code is x86 machine code in the making.
type code []byte

// add appends hexadecimal digits, and immediates little endian.
func (c *code) add(parts ...any) {
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b, err := hex.DecodeString(p)
			must(err)
			*c = append(*c, b...)
		case uint16:
			*c = binary.LittleEndian.AppendUint16(*c, p)
		case uint32:
			*c = binary.LittleEndian.AppendUint32(*c, p)
		default:
			panic(fmt.Sprintf("%T in code", p))
		}
	}
}

// addStub puts firmware into the BIOS area: from the reset vector to e.RIP.
func addStub(bios []byte, e Entry, ecam uint64) {
	const (
		segment = 0xf0000 // real-mode segment f000
		start   = segment + 0xf000
		gdtr    = segment + 0xff00
		reset   = segment + 0xfff0
	)
	copy(bios[reset-acpiBase:], []byte{0xea, 0x00, 0xf0, 0x00, 0xf0}) // jmp f000:f000
	binary.LittleEndian.PutUint16(bios[gdtr-acpiBase:], e.GDTLimit)
	binary.LittleEndian.PutUint32(bios[gdtr-acpiBase+2:], uint32(e.GDT))
	var c code
	c.add("fa") // cli
	// ECAM is where PCIEXBAR of the host bridge (Intel 82Q35) says; 1: enabled.
	c.add("66ba", uint32(pciConfig), "66b8", uint32(0x8000_0060), "66ef")    // out
	c.add("66ba", uint32(pciConfig+4), "66b8", uint32(ecam|1), "66ef")       // out
	c.add("2e660f0116", uint16(gdtr-segment))                                // lgdt
	c.add("66b8", uint32(1<<5), "0f22e0")                                    // cr4 = PAE
	c.add("66b8", uint32(e.CR3), "0f22d8")                                   // cr3
	c.add("66b9", uint32(0xc000_0080), "0f32", "66b8", uint32(1<<8), "0f30") // efer = LME
	c.add("66b8", uint32(1<<31|1), "0f22c0")                                 // cr0 = PG, PE
	c.add("66ea", uint32(start+len(c)+8), uint16(x86.SelectorCode))          // jmp, to 64-bit mode
	c.add("b8", uint32(x86.SelectorData), "8ed8", "8ec0", "8ed0")            // ds, es, ss
	c.add("be", uint32(e.RSI), "b8", uint32(e.RIP), "ffe0")                  // rsi; jmp rax
	copy(bios[start-acpiBase:], c)
}

const greeting = "init is running"

// powerOffInit is a program that prints greeting and powers the machine off.
func powerOffInit() []byte {
	const (
		base   = 0x400000
		codeAt = elfHeaderSize + elfSegmentSize
		textAt = 0x100
	)
	var c code
	c.add("b8", uint32(1), "bf", uint32(1), "be", uint32(base+textAt), "ba", uint32(len(greeting)+1), "0f05")       // write
	c.add("b8", uint32(169), "bf", uint32(0xfee1_dead), "be", uint32(672274793), "ba", uint32(0x4321_fedc), "0f05") // reboot
	image := make([]byte, 0x200)
	copy(image, c)
	copy(image[textAt-codeAt:], greeting+"\n")
	return elfOf(base+codeAt, image, uint64(len(image)), func(_ *elf.Header64, p *elf.Prog64) { p.Vaddr = p.Paddr })
}

// runQEMU gives what a machine with the memory of ram prints, and its exit status.
func runQEMU(t *testing.T, ram *memory.RAM, e Entry, cpus int, ecam uint64) (string, int) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("no qemu-system-x86_64: install qemu-system-x86")
	}
	dir := t.TempDir()
	bytesOf := func(from, to uint64) []byte {
		b, err := ram.Slice(from, to-from)
		must(err)
		return b
	}
	bios := bytes.Clone(bytesOf(acpiBase, acpiEnd))
	addStub(bios, e, ecam)
	args := []string{
		"-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", fmt.Sprint(cpus), "-m", fmt.Sprint(ram.Size() >> 20),
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
		// A write of v to the port ends QEMU with status 2v+1: power off.
		"-device", fmt.Sprintf("isa-debug-exit,iobase=%#x,iosize=1", testPlatform().SleepControl),
		"-bios", filepath.Join(dir, "bios"),
	}
	must(os.WriteFile(filepath.Join(dir, "bios"), bios, 0o600))
	for i, r := range [][2]uint64{{0, 0xa0000}, {biosEnd, uint64(len(ram.Slots()[0].Bytes))}} {
		file := filepath.Join(dir, fmt.Sprintf("ram%d", i))
		must(os.WriteFile(file, bytesOf(r[0], r[1]), 0o600))
		args = append(args, "-device", fmt.Sprintf("loader,file=%s,addr=%#x,force-raw=on", file, r[0]))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, qemu, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// shifted gives k as if it had been built for an address that is by higher
// (modulo 2^64) than its own.
func (k Kernel) shifted(by uint64) *Kernel {
	k.segments = slices.Clone(k.segments)
	for i := range k.segments {
		k.segments[i].addr += by
	}
	k.base, k.end, k.entry = k.base+by, k.end+by, k.entry+by
	return &k
}

func TestLinuxBoots(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real kernels: left out of -short")
	}
	for _, path := range realKernels(t) {
		k, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) { bootLinux(t, k, 256) })
		if k.align == 0 {
			continue
		}
		// Where it was not linked for.
		t.Run(name+"/low", func(t *testing.T) { bootLinux(t, k.shifted(k.lowest()-k.base), 256) })
		t.Run(name+"/high", func(t *testing.T) { bootLinux(t, k.shifted(64<<20), 256) })
	}
}

func bootLinux(t *testing.T, k *Kernel, mib uint64) {
	ram, err := memory.New(mib << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	p := Params{
		// A busy host cannot calibrate the TSC, and there is no other clock.
		CommandLine: "console=ttyS0 panic=-1 tsc_early_khz=2000000",
		Initrd:      section(cpioOf("init", powerOffInit())),
		CPUs:        2,
		Seed:        []byte("thirty-two bytes: no randomness."),
		Platform:    testPlatform(),
	}
	e, err := Load(ram, k, p)
	if err != nil {
		t.Fatal(err)
	}
	// On a busy host QEMU's emulated timers now and then don't get Linux through
	// its calibrations, and it hangs. A boot takes seconds; one that is killed
	// after a minute gets another try, and one that ends is judged.
	const killed, tries = -1, 3
	out, status := "", killed
	for try := 1; status == killed && try <= tries; try++ {
		if out, status = runQEMU(t, ram, e, p.CPUs, p.Platform.ECAM.Base); status == killed {
			t.Logf("try %d of %d: QEMU was killed after a minute", try, tries)
		}
	}
	sleep := 1<<5 | int(p.Platform.SleepType)<<2 // SLP_EN and SLP_TYP
	if want := sleep<<1 | 1; status != want {
		t.Errorf("status %d, want %d: the power was not turned off", status, want)
	}
	for _, want := range []string{
		"Command line: " + p.CommandLine,
		"crng init done", // by our seed: before there could be another source
		"2 CPUs",         // in the words of 6.1 and 6.12
		"[mem 0xe0000000-0xefffffff] reserved",
		"root bus resource [mem 0x4000000000-0x7fffffffff window]",
		"ttyS0 at I/O 0x3f8",
		"registered as rtc0",
		greeting,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q on the console", want)
		}
	}
	for _, bad := range []string{"BUG", "WARNING", "ACPI Error", "ACPI Warning", "FW_BUG", "Firmware Bug"} {
		if strings.Contains(out, bad) {
			t.Errorf("%q on the console", bad)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}
