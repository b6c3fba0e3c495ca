//go:build unix

// Command bootbench boots the same kernel and image to power-off, in turn with
// fifovm and with QEMU, and compares the times. It runs where the engine under
// test runs: for KVM on hosts without, that is the KVM lab.
//
// A time is that of the whole process, from its start to its end.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// words end the boot in the first program: the kernel starts it in place of
// init, and it powers the machine off. Both sides print the same little.
const words = "loglevel=5 rdinit=/bbin/poweroff"

func main() {
	pairs := flag.Int("n", 5, "pairs of boots, after one that does not count")
	fifovm := flag.String("fifovm", "build/fifovm", "the fifovm command")
	kernel := flag.String("kernel", "build/kernel/6.12/vmlinux", "ELF kernel")
	image := flag.String("image", "build/guest.cpio", "initial RAM disk")
	flag.Parse()
	if flag.NArg() > 0 || *pairs < 1 {
		fmt.Fprintln(os.Stderr, "bootbench: no arguments, and -n of 1 or more; see -help")
		os.Exit(2)
	}
	if err := run(*pairs, *fifovm, *kernel, *image); err != nil {
		fmt.Fprintf(os.Stderr, "bootbench: %v\n", err)
		os.Exit(1)
	}
}

func run(pairs int, fifovm, kernel, image string) error {
	const memory = "512M"
	sides := [2][]string{
		{fifovm, "run", "--engine", "kvm", "--no-reboot", "--memory", memory, "--kernel", kernel, "--initrd", image, "--append", words},
		{"qemu-system-x86_64", "-M", "microvm", "-enable-kvm", "-cpu", "host", "-m", memory, "-nodefaults", "-no-user-config",
			"-nographic", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", image, "-append", "console=ttyS0 panic=-1 " + words}, // as `fifovm run` has it
	}
	var times [2][]float64 // ms
	var ratios []float64
	for i := range 1 + pairs {
		var ms [2]float64
		for s, args := range sides {
			t, err := boot(args)
			if err != nil {
				return err
			}
			ms[s] = t
		}
		if i == 0 {
			continue // fills the caches
		}
		fmt.Printf("pair %d of %d: fifovm %.0f ms, QEMU %.0f ms\n", i, pairs, ms[0], ms[1])
		for s := range sides {
			times[s] = append(times[s], ms[s])
		}
		ratios = append(ratios, ms[0]/ms[1])
	}
	fmt.Printf("kvm_boot_ms: %.0f\n", median(times[0]))
	fmt.Printf("qemu_kvm_boot_ms: %.0f\n", median(times[1]))
	fmt.Printf("kvm_boot_ratio_pairwise: %.2f\n", median(ratios))
	fmt.Printf("kvm_boot_ratio_to_qemu: %.2f\n", median(times[0])/median(times[1]))
	return nil
}

// boot runs a command to its end, which must be a power-off without complaint.
func boot(args []string) (ms float64, err error) {
	start := time.Now()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	ms = float64(time.Since(start)) / float64(time.Millisecond)
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", args[0], err, out)
	}
	if strings.Contains(string(out), "Kernel panic") {
		return 0, fmt.Errorf("%s: the guest panicked\n%s", args[0], out)
	}
	return ms, nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
