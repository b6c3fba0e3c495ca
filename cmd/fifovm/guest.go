package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"fifovm/vmm/boot"
	"fifovm/vmm/memory"
	"fifovm/vmm/vmm"
)

// guest is what the flags say of the machine and of what it boots.
type guest struct {
	kernel, initrd, append string
	memory                 string
	cpus                   int
	engine, kvmDevice      string
}

func (g *guest) flags(f *pflag.FlagSet) {
	f.StringVarP(&g.kernel, "kernel", "k", "", "kernel to boot: vmlinux (ELF) or bzImage")
	f.StringVarP(&g.initrd, "initrd", "i", "", "initial RAM disk")
	f.StringVarP(&g.append, "append", "a", "", "more words for the kernel's command line")
	f.StringVarP(&g.memory, "memory", "m", "512M", "RAM, with M or G behind the number")
	f.IntVarP(&g.cpus, "cpus", "c", 1, fmt.Sprintf("CPUs, 1 to %d", vmm.MaxCPUs))
	f.StringVarP(&g.engine, "engine", "e", vmm.EngineAuto, "what runs the CPUs: kvm, or auto to let this host's abilities decide")
	f.StringVar(&g.kvmDevice, "kvm-device", "", "KVM's device file (default /dev/kvm)")
}

// parseMemory reads a size such as 512M or 2G, in bytes.
func parseMemory(s string) (uint64, error) {
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
			return n * unit, nil
		}
	}
	return 0, fmt.Errorf("--memory %q: want a number with M or G, up to %dG, such as 512M", s, memory.MaxSize>>30)
}

// machine makes the machine and loads it, with the console and the second
// serial port going to the given writers. words come before --append's on the
// kernel's command line.
func (g *guest) machine(words string, serial [2]io.Writer) (_ *vmm.Machine, err error) {
	size, err := parseMemory(g.memory)
	if err != nil {
		return nil, err
	}
	if g.cpus < 1 || g.cpus > vmm.MaxCPUs {
		return nil, fmt.Errorf("--cpus %d: want 1 to %d", g.cpus, vmm.MaxCPUs)
	}
	if g.kernel == "" {
		return nil, errors.New("no kernel to boot: give --kernel FILE (`make kernel` builds build/kernel/6.12/vmlinux)")
	}
	kernel, err := boot.Open(g.kernel)
	if err != nil {
		return nil, err
	}
	b := vmm.Boot{Kernel: kernel, CommandLine: strings.TrimSpace(words + " " + g.append), Seed: make([]byte, 32)}
	if _, err := rand.Read(b.Seed); err != nil {
		return nil, err
	}
	if g.initrd != "" {
		f, err := os.Open(g.initrd)
		if err != nil {
			return nil, fmt.Errorf("--initrd: %w", err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("--initrd: %w", err)
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("--initrd %s: not a regular file: give a cpio archive", g.initrd)
		}
		b.Initrd = io.NewSectionReader(f, 0, info.Size())
	}
	m, err := vmm.New(vmm.Config{Engine: g.engine, KVMDevice: g.kvmDevice, CPUs: g.cpus, Memory: size,
		Serial: serial, WallClock: time.Now().UnixNano()})
	if err != nil {
		return nil, err
	}
	if err := m.Load(b); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// chooseEngine settles --engine and says in one line which it is and why.
func (g *guest) chooseEngine(w io.Writer) error {
	name, reason, err := vmm.ChooseEngine(g.engine, g.kvmDevice)
	if err != nil {
		return err
	}
	g.engine = name
	fmt.Fprintf(w, "fifovm: engine %s: %s\n", name, reason)
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
