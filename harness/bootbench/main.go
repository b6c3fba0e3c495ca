//go:build unix

// Command bootbench boots the same kernel and image to power-off, in turn with
// fifovm and with QEMU, and compares the times: engine kvm with QEMU's KVM, engine
// soft with QEMU's emulation (TCG). It runs where the engine under test runs:
// for KVM on hosts without, that is the KVM lab.
//
// A time is that of the whole process, from its start to its end.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// The sides.
const (
	fifovm = iota
	qemu
)

// words end the boot in the first program: the kernel starts it in place of
// init, and it powers the machine off. Both sides print the same little.
const words = "loglevel=5 rdinit=/bbin/poweroff"

func main() {
	pairs := flag.Int("n", 5, "pairs of boots, after one that does not count")
	command := flag.String("fifovm", "build/fifovm", "the fifovm command")
	engine := flag.String("engine", "kvm", "fifovm's `engine`: kvm or soft")
	kernel := flag.String("kernel", "build/kernel/kvmguest/vmlinux", "ELF kernel, which for QEMU's KVM needs kvmclock")
	image := flag.String("image", "build/guest.cpio", "initial RAM disk")
	flag.Parse()
	if flag.NArg() > 0 || *pairs < 1 || *engine != "kvm" && *engine != "soft" {
		fmt.Fprintln(os.Stderr, "bootbench: no arguments, -n of 1 or more, and -engine kvm or soft; see -help")
		os.Exit(2)
	}
	if err := run(*pairs, *command, *engine, *kernel, *image); err != nil {
		fmt.Fprintf(os.Stderr, "bootbench: %v\n", err)
		os.Exit(1)
	}
}

func run(pairs int, command, engine, kernel, image string) error {
	const memory = "512M"
	dir, err := os.MkdirTemp("", "bootbench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	qemuConsole := filepath.Join(dir, "console")
	accel, qemuWords := []string{"-enable-kvm", "-cpu", "host"}, "console=ttyS0 panic=-1 "+words
	if engine == "soft" {
		accel = []string{"-accel", "tcg"}
		// Under TCG the counter is the host's, and Linux often fails to measure it
		// against an emulated timer on a busy host, and then hangs. That it is told
		// saves QEMU that time as well.
		if khz := tscKHz(); khz != "" {
			qemuWords += " tsc_early_khz=" + khz
		}
	}
	sides := [2][]string{
		{command, "run", "--engine", engine, "--stats", "--no-reboot", "--memory", memory, "--kernel", kernel, "--initrd", image, "--append", words},
		slices.Concat([]string{"qemu-system-x86_64", "-M", "microvm"}, accel, []string{"-m", memory, "-nodefaults", "-no-user-config",
			"-nographic", "-serial", "file:" + qemuConsole, "-no-reboot", "-kernel", kernel, "-initrd", image, "-append", qemuWords}),
	}
	var mips []float64
	var times [2][]float64 // ms
	var ratios []float64
	for i := range 1 + pairs {
		var ms [2]float64
		for s, args := range sides {
			t, out, err := boot(args)
			if err == nil && s == qemu {
				out, err = os.ReadFile(qemuConsole)
			}
			if err == nil && !bytes.Contains(out, []byte("reboot: Power down")) {
				err = errors.New("the guest did not power off")
			}
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", args[0], err, out)
			}
			ms[s] = t
			if m := rate.FindSubmatch(out); s == fifovm && i > 0 && m != nil {
				v, _ := strconv.ParseFloat(string(m[1]), 64) // the pattern has made sure
				mips = append(mips, v)
			}
		}
		if i == 0 {
			continue // fills the caches
		}
		fmt.Printf("pair %d of %d: fifovm %.0f ms, QEMU %.0f ms\n", i, pairs, ms[fifovm], ms[qemu])
		for s := range sides {
			times[s] = append(times[s], ms[s])
		}
		ratios = append(ratios, ms[fifovm]/ms[qemu])
	}
	names := map[string][2]string{"kvm": {"kvm", "qemu_kvm"}, "soft": {"soft", "qemu_tcg"}}[engine]
	fmt.Printf("%s_boot_ms: %.0f\n", names[fifovm], median(times[fifovm]))
	fmt.Printf("%s_boot_ms: %.0f\n", names[qemu], median(times[qemu]))
	fmt.Printf("boot_ratio_pairwise: %.2f\n", median(ratios))
	ratio := median(times[fifovm]) / median(times[qemu])
	if engine == "kvm" {
		fmt.Printf("kvm_boot_ratio_to_qemu: %.2f\n", ratio)
		return nil
	}
	fmt.Printf("boot_ratio_to_qemu_tcg: %.2f\n", ratio)
	fmt.Printf("mips: %.0f\n", median(mips))
	return nil
}

// rate is what fifovm says of its speed.
var rate = regexp.MustCompile(`instructions in [0-9.]+ s: ([0-9]+) million a second`)

// tscKHz is the rate of the host's time-stamp counter, about, as a number; empty
// where Linux doesn't say.
func tscKHz() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	m := clockRate.FindSubmatch(info)
	if err != nil || m == nil {
		return ""
	}
	return string(m[1]) + string(m[2])
}

var clockRate = regexp.MustCompile(`(?m)^cpu MHz\s*: ([0-9]+)\.([0-9]{3})`)

// bound is more than a boot takes: a hang is what it finds.
const bound = 2 * time.Minute

// boot runs a command to its end, a power-off.
func boot(args []string) (ms float64, out []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	start := time.Now()
	out, err = exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("it does not end in %v", bound)
	}
	return float64(time.Since(start)) / float64(time.Millisecond), out, err
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
