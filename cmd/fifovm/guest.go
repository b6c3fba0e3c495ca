package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	benches "fifovm/harness/bench"
	"fifovm/vmm/boot"
	"fifovm/vmm/kvm"
	"fifovm/vmm/memory"
	"fifovm/vmm/snapshot"
	"fifovm/vmm/vmm"
)

// guest is what the flags say of the machine and of what it boots.
type guest struct {
	kernel, initrd, append string
	memory                 memorySize
	cpus                   int
	engine, kvmDevice      string
	seed                   seed
	paced                  bool   // see vmm.Config
	gdb                    string // where gdb may connect
	bench                  bench
	modules, programs      []string // see bench.Bench

	snapshot string         // a file that the guest goes on from, in place of a boot
	file     *snapshot.File // from snapshot

	image *boot.Kernel   // from kernel
	extra []byte         // an archive behind the initrd, of modules and programs
	words string         // that go with it
	set   *pflag.FlagSet // tells which flags were given
}

func (g *guest) flags(f *pflag.FlagSet) {
	g.memory, g.cpus, g.seed, g.set = 512<<20, 1, 1, f
	f.StringVarP(&g.kernel, "kernel", "k", "", "boot the kernel in `file`, a vmlinux (ELF) or bzImage; or one that make has built: 6.12, 6.1, debug, debian")
	f.StringVarP(&g.initrd, "initrd", "i", "", "give the kernel the initial RAM disk in `file`: a cpio archive, compressed or not")
	f.StringVarP(&g.append, "append", "a", "", "more `words` for the kernel's command line")
	f.VarP(&g.memory, "memory", "m", "RAM, with M or G behind the number")
	f.VarP((*cpuCount)(&g.cpus), "cpus", "c", fmt.Sprintf("CPUs, 1 to %d", vmm.MaxCPUs))
	f.StringVarP(&g.engine, "engine", "e", vmm.EngineAuto, "`what` runs the CPUs: kvm, soft, or auto to let this host's abilities decide")
	f.Var(&g.seed, "seed", "what engine soft's turns and the guest's random numbers begin with: the same seed, the same run")
	kvmDeviceFlag(f, &g.kvmDevice)
	g.bench.flags(f)
}

func kvmDeviceFlag(f *pflag.FlagSet, path *string) {
	f.StringVar(path, "kvm-device", "", "KVM's device `file` (default "+kvm.DefaultDevice+")")
}

// memorySize is a flag's value such as 512M or 2G, in bytes.
type memorySize uint64

// Set reads a value from the command line.
func (m *memorySize) Set(s string) error {
	unit := uint64(0)
	switch number := strings.ToUpper(s); {
	case strings.HasSuffix(number, "M"):
		unit = 1 << 20
	case strings.HasSuffix(number, "G"):
		unit = 1 << 30
	}
	if unit != 0 {
		n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
		if err == nil && n > 0 && n*unit <= memory.MaxSize {
			*m = memorySize(n * unit)
			return nil
		}
	}
	return fmt.Errorf("want a number with M or G, up to %dG, such as 512M", memory.MaxSize>>30)
}

func (m *memorySize) String() string { return fmt.Sprintf("%dM", *m>>20) }

// Type is what help calls the value.
func (m *memorySize) Type() string { return "size" }

// cpuCount is a flag's value: a number of CPUs that a machine can have.
type cpuCount int

// Set reads a value from the command line.
func (c *cpuCount) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > vmm.MaxCPUs {
		return fmt.Errorf("want 1 to %d", vmm.MaxCPUs)
	}
	*c = cpuCount(n)
	return nil
}

func (c *cpuCount) String() string { return strconv.Itoa(int(*c)) }

// Type is what help calls the value.
func (c *cpuCount) Type() string { return "number" }

// seed is a flag's value: any number of 64 bits.
type seed uint64

// Set reads a value from the command line.
func (s *seed) Set(text string) error {
	n, err := strconv.ParseUint(text, 0, 64)
	if err != nil {
		return errors.New("want a number from 0 to 2^64-1")
	}
	*s = seed(n)
	return nil
}

func (s *seed) String() string { return strconv.FormatUint(uint64(*s), 10) }

// Type is what help calls the value.
func (s *seed) Type() string { return "number" }

// bytes are what the kernel's random numbers start from.
func (s seed) bytes() []byte { return benches.SeedBytes(uint64(s)) }

// open reads the kernel and what is to happen to the devices, if that was not
// done yet: it serves for every boot.
func (g *guest) open() (err error) {
	if g.image != nil {
		return nil
	}
	if g.snapshot != "" {
		return g.openSnapshot()
	}
	if g.kernel == "" {
		return errors.New("no kernel to boot: give --kernel FILE (`make kernel` builds build/kernel/6.12/vmlinux)")
	}
	if err := g.bench.open(); err != nil {
		return err
	}
	if g.extra, g.words, err = benches.Archive(g.modules, g.programs); err != nil {
		return err
	}
	g.image, err = boot.Open(builtKernel(g.kernel))
	return err
}

// defaults has the guest be the one that `make image` builds, where nothing else
// was asked for: kernel 6.12, with the tests and one of each device.
func (g *guest) defaults() error {
	if g.kernel == "" {
		g.kernel = "6.12"
	}
	if g.initrd == "" {
		g.initrd = built("guest.cpio")
	}
	if !g.set.Changed("device") {
		for i := range models {
			if err := g.bench.devices.Set(models[i].name); err != nil {
				return err
			}
		}
	}
	return nil
}

// built is a file that make has built: in the build folder here, else in the
// command's own.
func built(name string) string {
	path := filepath.Join("build", name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), name); exists(beside) {
			return beside
		}
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// builtKernel is the file of a kernel that make has built, if name is one's and
// no file's.
func builtKernel(name string) string {
	if strings.ContainsRune(name, filepath.Separator) || exists(name) {
		return name
	}
	for _, file := range []string{"vmlinux", "vmlinuz"} {
		if path := built(filepath.Join("kernel", name, file)); exists(path) {
			return path
		}
	}
	return name
}

// openInitrd gives the initial RAM disk and its file; nil for none.
func (g *guest) openInitrd() (*io.SectionReader, *os.File, error) {
	if g.initrd == "" {
		return nil, nil, nil
	}
	f, err := os.Open(g.initrd)
	if err != nil {
		return nil, nil, fmt.Errorf("--initrd: %w: give a cpio archive", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("is not a regular file: give a cpio archive")
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("--initrd %s: %w", g.initrd, err), f.Close())
	}
	initrd := io.NewSectionReader(f, 0, info.Size())
	if len(g.extra) == 0 {
		return initrd, f, nil
	}
	image, err := io.ReadAll(initrd)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("--initrd: %w", err), f.Close())
	}
	image = benches.Append(image, g.extra)
	return io.NewSectionReader(bytes.NewReader(image), 0, int64(len(image))), f, nil
}

// machine makes the machine and loads it, with the console and the second
// serial port going to the given writers. words come before --append's on the
// kernel's command line.
func (g *guest) machine(words string, serial [2]io.Writer) (_ *vmm.Machine, err error) {
	if err := g.open(); err != nil {
		return nil, err
	}
	if g.file != nil {
		return g.load(serial)
	}
	b := vmm.Boot{Kernel: g.image, CommandLine: benches.Words(words, g.words, g.append)}
	cfg, err := g.config(serial)
	if err != nil {
		return nil, err
	}
	if g.engine == vmm.EngineSoft {
		// Nothing of the host's reaches the guest.
		b.Seed = g.seed.bytes()
	} else {
		cfg.WallClock = time.Now().UnixNano()
		b.Seed = make([]byte, 32)
		if _, err := rand.Read(b.Seed); err != nil {
			return nil, err
		}
	}
	initrd, file, err := g.openInitrd()
	if err != nil {
		return nil, err
	}
	if file != nil {
		defer file.Close() // read only: closing can't lose anything
	}
	b.Initrd = initrd
	m, err := vmm.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(m.Load(b), g.bench.arm(m)); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// config is the guest's machine, with fresh devices.
func (g *guest) config(serial [2]io.Writer) (vmm.Config, error) {
	devices, err := g.bench.make()
	return vmm.Config{Engine: g.engine, KVMDevice: g.kvmDevice, CPUs: g.cpus, Memory: uint64(g.memory), Serial: serial,
		Devices: devices, WallClock: softWallClock, Seed: uint64(g.seed), Paced: g.paced}, err
}

const softWallClock = benches.SoftWallClock

// chooseEngine settles --engine and says in one line which it is and why.
func (g *guest) chooseEngine(w io.Writer) error {
	asked := g.engine
	name, reason, err := vmm.ChooseEngine(asked, g.kvmDevice)
	if err != nil {
		return err
	}
	g.engine = name
	if asked == vmm.EngineKVM {
		// A host on which KVM does badly is the user's choice, but not one to make
		// unknowingly. Where the probe fails, making the machine says why.
		if ns, err := kvm.Speed(g.kvmDevice, 0); err == nil && ns >= kvm.NativeBelow {
			reason += fmt.Sprintf(", but this host's KVM emulates kernel code (%.0f ns an instruction): Linux will be slow and soon fail here, which engine soft does not; see `fifovm doctor`", ns)
		}
	}
	if name == vmm.EngineKVM && g.set.Changed("seed") {
		reason += "; its runs differ, whatever --seed says"
	}
	fmt.Fprintf(w, "fifovm: engine %s: %s\n", name, oneLine(reason))
	return nil
}

// stopped is the error of a run that a signal ended, nil if none did.
func stopped(ctx context.Context) error {
	var s *signalError
	if errors.As(context.Cause(ctx), &s) {
		return s
	}
	return nil
}
