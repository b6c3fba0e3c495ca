package main

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// host finds out about the machine. What can't be found out stays empty.
func (f *facts) host() {
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		f.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	f.cpu(read("/proc/cpuinfo"))
	f.Memory = meminfo(read("/proc/meminfo"), "MemTotal")
	f.Available = meminfo(read("/proc/meminfo"), "MemAvailable")
	for _, m := range []string{"kvm", "kvm_intel", "kvm_amd"} {
		if _, err := os.Stat("/sys/module/" + m); err == nil {
			f.Modules = append(f.Modules, m)
		}
	}
}

func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

// cpu reads the first processor of /proc/cpuinfo.
func (f *facts) cpu(info string) {
	first, _, _ := strings.Cut(info, "\n\n")
	for line := range strings.Lines(first) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(name) {
		case "model name":
			f.Processor = value
		case "flags":
			for _, flag := range strings.Fields(value) {
				switch flag {
				case "vmx", "svm":
					f.Extension = strings.ToUpper(flag)
				case "hypervisor":
					f.Virtual = true
				}
			}
		}
	}
}

// meminfo gives a field of /proc/meminfo in bytes, 0 if it isn't there.
func meminfo(info, name string) uint64 {
	for line := range strings.Lines(info) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err == nil {
				return n << 10
			}
		}
	}
	return 0
}

// file finds out about the device file.
func (k *kvmFacts) file() {
	info, err := os.Stat(k.Device)
	if err != nil {
		// One that may not even be looked at is there.
		k.Exists = !os.IsNotExist(err)
		return
	}
	k.Exists = true
	k.Denied = errors.Is(unix.Access(k.Device, unix.R_OK|unix.W_OK), fs.ErrPermission)
	k.Mode = lsMode(info.Mode())
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		uid, gid := strconv.Itoa(int(s.Uid)), strconv.Itoa(int(s.Gid))
		k.Owner, k.Group = uid, gid
		if u, err := user.LookupId(uid); err == nil {
			k.Owner = u.Username
		}
		if g, err := user.LookupGroupId(gid); err == nil {
			k.Group = g.Name
		}
	}
}

// lsMode is a mode as ls shows it.
func lsMode(m fs.FileMode) string {
	b := []byte(m.Perm().String())
	switch {
	case m&fs.ModeCharDevice != 0:
		b[0] = 'c'
	case m&fs.ModeDevice != 0:
		b[0] = 'b'
	case m.IsDir():
		b[0] = 'd'
	}
	return string(b)
}
