//go:build linux

package lab

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// metaPackage is Debian's package that depends on the newest stock kernel for
// virtual machines.
const metaPackage = "linux-image-cloud-amd64"

// Kernel is Debian's stock kernel, unpacked, as it was shipped.
type Kernel struct {
	Package string // with its version
	Image   string // the bzImage; it is a guest kernel for tests, too
	Modules string // the folder of its modules

	// vmlinux is what the bzImage holds, which QEMU starts a second earlier.
	vmlinux string
}

// FindKernel returns Debian's kernel from dir, and gets it with apt, without
// installing it, when it isn't there. A kernel that is there stays in use
// until its folder is removed. "" is build/lab beside go.mod.
func FindKernel(ctx context.Context, dir string, log func(format string, args ...any)) (*Kernel, error) {
	if dir == "" {
		root, err := moduleRoot()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(root, "build", "lab")
	}
	if k, err := openKernel(dir); err == nil {
		return k, k.link(dir)
	}
	name, err := kernelPackage(ctx)
	if err != nil {
		return nil, err
	}
	if log != nil {
		log("getting %s, once", name)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(dir, "work-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	// As root apt would fetch as a user who can't write here, and warn.
	if out, err := command(ctx, work, "apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name); err != nil {
		return nil, fmt.Errorf("apt-get download %s: %w%s: if its lists are old, run: sudo apt-get update", name, err, lastLine(out))
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(debs) != 1 {
		return nil, fmt.Errorf("apt-get download %s: left %d packages, not 1", name, len(debs))
	}
	root := filepath.Join(work, "root")
	if out, err := command(ctx, work, "dpkg", "-x", debs[0], root); err != nil {
		return nil, fmt.Errorf("unpack %s: %w%s", name, err, lastLine(out))
	}
	if err := unpackVmlinux(root); err != nil {
		return nil, err
	}
	// name_version_arch: the folder tells what is in it.
	final := filepath.Join(dir, kernelPrefix+strings.TrimSuffix(filepath.Base(debs[0]), ".deb"))
	// Whoever got the same at the same time got the same.
	if err := os.Rename(root, final); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	k, err := openKernel(dir)
	if err != nil {
		return nil, err
	}
	return k, k.link(dir)
}

const kernelPrefix = "kernel-"

// openKernel returns the newest kernel in dir.
func openKernel(dir string) (*Kernel, error) {
	images, err := filepath.Glob(filepath.Join(dir, kernelPrefix+"*", "boot", "vmlinuz-*"))
	if err != nil {
		return nil, err
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("no kernel in %s", dir)
	}
	slices.Sort(images)
	image := images[len(images)-1]
	root := filepath.Dir(filepath.Dir(image))
	release := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
	k := &Kernel{
		Package: strings.TrimPrefix(filepath.Base(root), kernelPrefix),
		Image:   image,
		Modules: filepath.Join(root, "lib", "modules", release),
		vmlinux: filepath.Join(root, "boot", vmlinuxName),
	}
	for _, p := range []string{k.Modules, k.vmlinux} {
		if _, err := os.Stat(p); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// link makes the kernel known under a name without a version.
func (k *Kernel) link(dir string) error {
	target, err := filepath.Rel(dir, k.Image)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, "vmlinuz")
	if old, err := os.Readlink(name); err == nil && old == target {
		return nil
	}
	temp := fmt.Sprintf("%s.%d", name, os.Getpid())
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	return os.Rename(temp, name)
}

// kernelPackage returns the name of the package that has the kernel itself.
func kernelPackage(ctx context.Context) (string, error) {
	for _, tool := range []string{"apt-cache", "apt-get", "dpkg"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("no %s: the lab takes its kernel from Debian's package %s, so it needs Debian or a derivative", tool, metaPackage)
		}
	}
	out, err := command(ctx, "", "apt-cache", "depends", "--important", metaPackage)
	if err != nil {
		return "", fmt.Errorf("apt knows no package %s: run: sudo apt-get update", metaPackage)
	}
	if name := dependedKernel(out); name != "" {
		return name, nil
	}
	return "", fmt.Errorf("apt names no kernel for %s: run: sudo apt-get update", metaPackage)
}

// dependedKernel finds the kernel in what apt-cache depends prints.
func dependedKernel(out []byte) string {
	for line := range strings.Lines(string(out)) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && strings.HasPrefix(name, "linux-image-") {
			return name
		}
	}
	return ""
}

const vmlinuxName = "vmlinux"

// unpackVmlinux puts the ELF kernel that the bzImage holds beside it. QEMU
// starts it directly (PVH), and a lab comes up a second earlier than when the
// emulated CPU must decompress it. A bzImage that isn't packed with lz4, as
// Debian's is today, is copied as it is, and works.
func unpackVmlinux(root string) error {
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil {
		return err
	}
	if len(images) != 1 {
		return fmt.Errorf("the kernel package has %d kernels, not 1", len(images))
	}
	image, err := os.ReadFile(images[0])
	if err != nil {
		return err
	}
	vmlinux, err := extractLZ4(image)
	if err != nil {
		vmlinux = image
	}
	return os.WriteFile(filepath.Join(root, "boot", vmlinuxName), vmlinux, 0o644)
}

// extractLZ4 returns the lz4-packed ELF file in a bzImage. The offsets are
// those of Linux's Documentation/arch/x86/boot.rst.
func extractLZ4(image []byte) ([]byte, error) {
	const (
		setupSects    = 0x1f1
		magic         = 0x202
		payloadOffset = 0x248
		payloadLength = 0x24c
		headerEnd     = 0x250
		sizeField     = 4 // behind the payload, counted in its length
	)
	if len(image) < headerEnd || string(image[magic:magic+4]) != "HdrS" {
		return nil, errors.New("not a bzImage")
	}
	le := binary.LittleEndian
	start := (uint64(image[setupSects])+1)*512 + uint64(le.Uint32(image[payloadOffset:]))
	end := start + uint64(le.Uint32(image[payloadLength:]))
	if end > uint64(len(image)) || end < start+sizeField {
		return nil, errors.New("bzImage cut off")
	}
	vmlinux, err := io.ReadAll(lz4.NewReader(bytes.NewReader(image[start : end-sizeField])))
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(vmlinux, []byte(elf.ELFMAG)) {
		return nil, errors.New("no ELF file in the bzImage")
	}
	return vmlinux, nil
}

// module is a kernel module, unpacked.
type module struct {
	name string
	data []byte
}

// loadOrder returns the named modules and all that they depend on, in an
// order in which they can be loaded. A module that the kernel has built in
// is left out.
func (k *Kernel) loadOrder(names ...string) ([]module, error) {
	files := map[string]string{}
	err := filepath.WalkDir(k.Modules, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, rest, ok := strings.Cut(d.Name(), ".ko"); ok && (rest == "" || rest == ".xz") {
			files[moduleName(name)] = p
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(builtin)) {
		name := strings.TrimSuffix(filepath.Base(strings.TrimSpace(line)), ".ko")
		files[moduleName(name)] = ""
	}

	var order []module
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		name = moduleName(name)
		if seen[name] {
			return nil
		}
		seen[name] = true
		p, ok := files[name]
		if !ok {
			return fmt.Errorf("%s has no module %s", k.Package, name)
		}
		if p == "" {
			return nil
		}
		data, err := readModule(p)
		if err != nil {
			return err
		}
		depends, err := moduleDepends(data)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		for _, d := range depends {
			if err := visit(d); err != nil {
				return err
			}
		}
		order = append(order, module{name, data})
		return nil
	}
	for _, n := range names {
		if err := visit(n); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// moduleName is the kernel's own spelling: files have dashes, too.
func moduleName(s string) string {
	return strings.ReplaceAll(s, "-", "_")
}

func readModule(p string) ([]byte, error) {
	f, err := os.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !strings.HasSuffix(p, ".xz") {
		return io.ReadAll(f)
	}
	r, err := xz.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	return data, nil
}

// moduleDepends reads a module's own word on what it needs. An unpacked
// package has no modules.dep: its installation would make that.
func moduleDepends(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}

func command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd.CombinedOutput()
}

// lastLine returns ": " and the last line of a command's output that isn't
// empty, or nothing.
func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if l := strings.TrimSpace(lines[len(lines)-1]); l != "" {
		return ": " + l
	}
	return ""
}
