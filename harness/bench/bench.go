// Package bench is the way to test a driver of your own from Go: which kernel,
// modules, devices and test programs go together, and a call that runs them, or
// one that has `go test` do it.
//
//	func TestCard(t *testing.T) {
//		bench.Test(t, bench.Bench{
//			Modules: []string{"build/card.ko"},
//			Tests:   []string{"build/card"},
//			Devices: func() []vmm.Device {
//				return []vmm.Device{{Name: "card0", Model: card.New()}}
//			},
//		})
//	}
//
// Modules and test programs travel in an archive behind the image, which so is
// the same for all. It builds nothing; what is there to build is make's.
package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"fifovm/device/fault"
	"fifovm/harness"
	"fifovm/initramfs"
	"fifovm/vmm/boot"
	"fifovm/vmm/vmm"
)

// Bench is what a guest is made of and what is to be run in it. The zero value of
// each field is a default.
type Bench struct {
	// Kernel is one that make has built, by its name, as in 6.12, which is the
	// default, 6.1, debug or debian; or a file, with a slash in its name.
	Kernel string
	// Image is the root file system, by default the one of `make image`.
	Image string
	// Build is the folder that kernels and image are looked for in, by default
	// build here or in the nearest folder above that has it.
	Build string
	// Modules are kernel modules, loaded in order, each as FILE.ko or
	// FILE.ko,PARAMETER=VALUE... They take the place of the image's own driver.
	Modules []string
	// Tests are static programs that take the place of the image's own tests.
	Tests []string
	// Devices makes fresh devices for a guest. Nil: it has none.
	Devices func() []vmm.Device
	// Engine runs the CPUs: auto, the default, kvm or soft; KVMDevice is KVM's
	// file, by default the usual one.
	Engine, KVMDevice string
	CPUs              int    // 1 by default
	Memory            uint64 // bytes, 512 MiB by default
	// Seed is what engine soft's turns and the guest's random numbers begin with.
	Seed   uint64
	Append string // more words for the kernel's command line
	// Faults are plans, in the language of docs/faults.md. With one, each program
	// has a guest of its own, and a fault that never fired is a failure.
	Faults []string
	// Jobs is how many guests there are at a time, 1 by default.
	Jobs int
	// Shared has tests share a guest as long as it lives. Otherwise each has its own,
	// which begins where the first one had loaded the modules.
	Shared bool
	// Timeout bounds a test, 3 minutes by default, BootTimeout a boot, 5 minutes.
	Timeout, BootTimeout time.Duration
	// Console, unless nil, takes what guests print, and Output what tests print.
	Console, Output io.Writer
}

// Selection says which tests are to be run. The zero value is all.
type Selection struct {
	// Tests are PROGRAM, or PROGRAM/CHECK/CHECK...
	Tests []string
	// Select and Skip, unless nil, look at the names PROGRAM/CHECK: a test is run
	// that Select matches and Skip does not.
	Select, Skip *regexp.Regexp
}

// Run runs the tests that are chosen and tells the reporter; nil tells nobody.
// The error is not a test's: it says why the tests could not be run to the end.
func (b *Bench) Run(ctx context.Context, s Selection, reporter harness.Reporter) ([]*harness.Result, error) {
	g, err := b.Open()
	if err != nil {
		return nil, err
	}
	plan := strings.Join(b.Faults, "\n")
	if _, err := fault.Parse(plan); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	o := harness.Options{
		Machine: func(serial [2]io.Writer) (*vmm.Machine, error) {
			m, err := g.Machine(harness.KernelWords, serial)
			if err != nil {
				return nil, err
			}
			p, err := fault.Parse(plan) // each guest has its own
			if err != nil {
				return nil, errors.Join(err, m.Close())
			}
			for _, d := range m.Devices() {
				d.Inject(p)
			}
			return m, nil
		},
		Jobs:  b.Jobs,
		Tests: s.Tests, Select: s.Select, Skip: s.Skip,
		Alone:    plan != "",
		BootTime: or(b.BootTimeout, 5*time.Minute),
		TestTime: or(b.Timeout, 3*time.Minute),
		Reporter: reporter,
		Console:  b.Console, Output: b.Output,
		Symbol: g.kernel.Symbol,
		Plan:   plan, Seed: b.Seed,
	}
	if !b.Shared {
		o.From = g.From
	}
	o.AnswerTime = o.TestTime
	return harness.Run(ctx, o)
}

func or[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// Guests is a Bench whose files have been read, ready to boot any number of
// guests.
type Guests struct {
	// Engine is what runs the CPUs, and Reason why it was chosen.
	Engine, Reason string

	bench  Bench
	kernel *boot.Kernel
	image  []byte
	words  string
}

// Open reads what the bench names, so that what is wrong with it is said before
// anything runs.
func (b *Bench) Open() (*Guests, error) {
	g := &Guests{bench: *b}
	var err error
	if g.Engine, g.Reason, err = vmm.ChooseEngine(or(b.Engine, vmm.EngineAuto), b.KVMDevice); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	build, err := b.build()
	if err != nil {
		return nil, err
	}
	if g.kernel, err = boot.Open(kernelFile(build, or(b.Kernel, "6.12"))); err != nil {
		return nil, fmt.Errorf("bench: kernel %q: %w", or(b.Kernel, "6.12"), err)
	}
	image := or(b.Image, filepath.Join(build, "guest.cpio"))
	if g.image, err = os.ReadFile(image); err != nil {
		return nil, fmt.Errorf("bench: image: %w: `make image` builds it", err)
	}
	archive, words, err := Archive(b.Modules, b.Tests)
	if err != nil {
		return nil, err
	}
	g.image, g.words = Append(g.image, archive), words
	return g, nil
}

// Append puts an archive behind an image. The kernel unpacks one after the other,
// from multiples of 4: Documentation/driver-api/early-userspace/buffer-format.rst.
func Append(image, archive []byte) []byte {
	if len(archive) == 0 {
		return image
	}
	return append(append(image, make([]byte, -len(image)&3)...), archive...)
}

// build is the folder that it says, or build here or in the nearest folder above.
func (b *Bench) build() (string, error) {
	if b.Build != "" {
		return b.Build, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		build := filepath.Join(dir, "build")
		if info, err := os.Stat(filepath.Join(build, "kernel")); err == nil && info.IsDir() {
			return build, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("bench: there is no folder build with kernels here or above: `make image` in fifovm's folder makes it, else set Build")
		}
		dir = up
	}
}

// kernelFile is the file of a kernel.
func kernelFile(build, name string) string {
	if strings.ContainsAny(name, `/\`) {
		return name
	}
	dir := filepath.Join(build, "kernel", name)
	for _, file := range []string{"vmlinux", "vmlinuz"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
			return filepath.Join(dir, file)
		}
	}
	return filepath.Join(dir, "vmlinux")
}

// What the agent knows of a bench: guest/agent/README.md.
const (
	moduleList = "/lib/modules/fifovm.list"
	moduleDir  = "/lib/modules/fifovm/"
	testDir    = "/bench/"
	testWord   = "fifovm.tests=/bench"
)

// Archive makes an archive that has a guest load these modules and run these tests,
// if it is behind the guest's image, and the words for the kernel's command line
// that go with it. They are written as in Bench; of none, there is no archive.
func Archive(modules, tests []string) (archive []byte, words string, err error) {
	files, words, err := extra(modules, tests)
	if err != nil || len(files) == 0 {
		return nil, "", err
	}
	var b bytes.Buffer
	if err := initramfs.WriteFiles(&b, files); err != nil {
		return nil, "", fmt.Errorf("bench: %w", err)
	}
	return b.Bytes(), words, nil
}

// extra are the modules and the tests as the guest has them, and the words for its
// command line that go with them.
func extra(modules, tests []string) (files []initramfs.File, words string, err error) {
	var list strings.Builder
	seen := map[string]string{}
	add := func(what, source, path string, mode os.FileMode) error {
		info, err := os.Stat(source)
		switch {
		case err != nil:
			return fmt.Errorf("bench: %s: %w", what, err)
		case !info.Mode().IsRegular():
			return fmt.Errorf("bench: %s %s is no regular file", what, source)
		case seen[path] != "":
			return fmt.Errorf("bench: %s and %s would have the same name in the guest", seen[path], source)
		}
		seen[path] = source
		files = append(files, initramfs.File{Path: path, Source: source, Mode: mode})
		return nil
	}
	for _, m := range modules {
		file, parameters, _ := strings.Cut(m, ",")
		path := moduleDir + filepath.Base(file)
		if strings.ContainsAny(m, " \t\n") {
			return nil, "", fmt.Errorf("bench: module %q: there can't be space in it", m)
		}
		if err := add("module", file, path, 0o644); err != nil {
			return nil, "", err
		}
		fmt.Fprintf(&list, "%s %s\n", path, strings.ReplaceAll(parameters, ",", " "))
	}
	if len(modules) > 0 {
		files = append(files, initramfs.File{Path: moduleList, Data: []byte(list.String())})
	}
	for _, test := range tests {
		if err := add("test program", test, testDir+filepath.Base(test), 0o755); err != nil {
			return nil, "", err
		}
		words = testWord
	}
	return files, words, nil
}

// config is a machine's, with fresh devices.
func (g *Guests) config(serial [2]io.Writer) vmm.Config {
	b := &g.bench
	cfg := vmm.Config{Engine: g.Engine, KVMDevice: b.KVMDevice, CPUs: or(b.CPUs, 1), Memory: or(b.Memory, 512<<20),
		Serial: serial, Seed: b.Seed, WallClock: SoftWallClock}
	if b.Devices != nil {
		cfg.Devices = b.Devices()
	}
	if g.Engine != vmm.EngineSoft {
		cfg.WallClock = time.Now().UnixNano()
	}
	return cfg
}

// From makes a machine like Machine's that begins at a base.
func (g *Guests) From(base *vmm.Base, serial [2]io.Writer) (*vmm.Machine, error) {
	return vmm.NewFrom(g.config(serial), base)
}

// Machine makes a machine at its start, whose serial ports go to the writers, with
// words at the start of the kernel's command line, those that tell a test what the
// machine is, and the bench's own.
func (g *Guests) Machine(words string, serial [2]io.Writer) (*vmm.Machine, error) {
	b, cfg := &g.bench, g.config(serial)
	seed := SeedBytes(b.Seed)
	if g.Engine != vmm.EngineSoft {
		if _, err := rand.Read(seed); err != nil {
			return nil, err
		}
	}
	machine := MachineWords(cfg.CPUs, cfg.Memory, b.Seed)
	m, err := vmm.New(cfg)
	if err != nil {
		return nil, err
	}
	err = m.Load(vmm.Boot{Kernel: g.kernel, Initrd: io.NewSectionReader(bytes.NewReader(g.image), 0, int64(len(g.image))),
		CommandLine: Words(words, machine, g.words, b.Append), Seed: seed})
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// MachineWords tell the guest's tests what the machine is; memory is in bytes.
func MachineWords(cpus int, memory, seed uint64) string {
	return fmt.Sprintf("fifovm.cpus=%d fifovm.memory=%d fifovm.seed=%d", cpus, memory>>20, seed)
}

// Words joins parts of a kernel's command line, some of which may be empty.
func Words(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), " ")
}

// SeedBytes are what the random numbers of a guest's kernel start from.
func SeedBytes(seed uint64) []byte {
	b := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("fifovm"), seed))
	return b[:]
}

// SoftWallClock is the date that a guest on engine soft finds, in ns from 1970:
// the start of 2026.
const SoftWallClock = 1_767_225_600 * int64(time.Second)
