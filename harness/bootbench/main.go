//go:build unix

// Command bootbench boots the same kernel and image to power-off, in turn with
// fifovm and with QEMU, and compares the times. It runs where the engine under
// test runs: for KVM on hosts without, that is the KVM lab.
//
// A time is that of the whole process, from its start to its end.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	kernel := flag.String("kernel", "build/kernel/kvmguest/vmlinux", "ELF kernel, which for QEMU needs kvmclock")
	image := flag.String("image", "build/guest.cpio", "initial RAM disk")
	flag.Parse()
	if flag.NArg() > 0 || *pairs < 1 {
		fmt.Fprintln(os.Stderr, "bootbench: no arguments, and -n of 1 or more; see -help")
		os.Exit(2)
	}
	if err := run(*pairs, *command, *kernel, *image); err != nil {
		fmt.Fprintf(os.Stderr, "bootbench: %v\n", err)
		os.Exit(1)
	}
}

func run(pairs int, command, kernel, image string) error {
	const memory = "512M"
	dir, err := os.MkdirTemp("", "bootbench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	qemuConsole := filepath.Join(dir, "console")
	sides := [2][]string{
		{command, "run", "--engine", "kvm", "--no-reboot", "--memory", memory, "--kernel", kernel, "--initrd", image, "--append", words},
		{"qemu-system-x86_64", "-M", "microvm", "-enable-kvm", "-cpu", "host", "-m", memory, "-nodefaults", "-no-user-config",
			"-nographic", "-serial", "file:" + qemuConsole, "-no-reboot", "-kernel", kernel, "-initrd", image, "-append", "console=ttyS0 panic=-1 " + words},
	}
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
	fmt.Printf("kvm_boot_ms: %.0f\n", median(times[fifovm]))
	fmt.Printf("qemu_kvm_boot_ms: %.0f\n", median(times[qemu]))
	fmt.Printf("kvm_boot_ratio_pairwise: %.2f\n", median(ratios))
	fmt.Printf("kvm_boot_ratio_to_qemu: %.2f\n", median(times[0])/median(times[qemu]))
	return nil
}

// boot runs a command to its end, a power-off.
func boot(args []string) (ms float64, out []byte, err error) {
	start := time.Now()
	out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
	return float64(time.Since(start)) / float64(time.Millisecond), out, err
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
