//go:build linux

// Command kvm is what the lab's test runs inside: it makes a virtual machine,
// and leaves traces of itself on every way out.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	kvmGetAPIVersion = 0xae00
	kvmCreateVM      = 0xae01
	kvmCreateVCPU    = 0xae41
)

func main() {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		fail(err)
	}
	version, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
	if err != nil {
		fail(err)
	}
	vm, err := unix.IoctlRetInt(int(f.Fd()), kvmCreateVM)
	if err != nil {
		fail(err)
	}
	if _, err := unix.IoctlRetInt(vm, kvmCreateVCPU); err != nil {
		fail(err)
	}
	if err := os.WriteFile("/tmp/out", []byte("fetched\x00\r\n"), 0o644); err != nil {
		fail(err)
	}
	fmt.Printf("api %d, GREETING=%s, args %q\n", version, os.Getenv("GREETING"), os.Args[1:])
	fmt.Fprintln(os.Stderr, "to stderr")
	os.Exit(7)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
