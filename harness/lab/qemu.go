//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/u-root/u-root/pkg/ldd"

	"fifovm/initramfs"
)

const qemuName = "qemu-system-x86_64"

// firmwareFolders are where Debian keeps what QEMU loads at run time.
var firmwareFolders = []string{"/usr/share/qemu", "/usr/share/seabios"}

// firmware is what the machine types microvm, pc and q35 load without a
// display, a disk or a network card.
var firmware = []string{
	"bios-256k.bin", "bios-microvm.bin", "bios.bin", "kvmvapic.bin", "linuxboot.bin",
	"linuxboot_dma.bin", "pvh.bin", "qboot.rom",
}

// QEMUFiles returns this machine's QEMU with all that it loads, as files for
// the lab, where it is then the command qemu-system-x86_64. It is how our KVM
// engine is compared with QEMU's on the same KVM.
func QEMUFiles() ([]initramfs.File, error) {
	path, err := findQEMU()
	if err != nil {
		return nil, err
	}
	// The loader and the libraries, by the names that the loader looks for. A
	// link is shipped as the file that it leads to.
	names, err := ldd.List(path)
	if err != nil {
		return nil, fmt.Errorf("list the libraries of %s: %w", path, err)
	}
	var files []initramfs.File
	add := func(guest, host string) {
		files = append(files, initramfs.File{Path: guest, Source: host})
	}
	for _, n := range names {
		add(n, n)
	}
	add("/usr/bin/"+qemuName, path)
	for _, f := range firmware {
		host, err := findFirmware(f)
		if err != nil {
			return nil, err
		}
		add("/usr/share/qemu/"+f, host)
	}
	return files, nil
}

func findQEMU() (string, error) {
	path, err := exec.LookPath(qemuName)
	if err != nil {
		return "", fmt.Errorf("no %s: run: sudo apt-get install --no-install-recommends qemu-system-x86", qemuName)
	}
	return filepath.EvalSymlinks(path)
}

func findFirmware(name string) (string, error) {
	for _, dir := range firmwareFolders {
		p := filepath.Join(dir, name)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("QEMU's firmware %s is not in %s: run: sudo apt-get install seabios qemu-system-data", name, firmwareFolders[0])
}
