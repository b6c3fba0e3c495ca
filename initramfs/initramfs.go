// Package initramfs makes a Linux guest's root file system: u-root's init,
// shell and commands as one busybox-like program, plus the caller's files.
//
// The image is a cpio archive in the newc format, uncompressed unless asked
// otherwise, since unpacking costs a guest more instructions than copying.
// The same inputs give the same bytes: entries are sorted, times are zero,
// everything belongs to root.
//
// It needs the go command and, the first time, a module proxy: u-root's
// commands are compiled in u-root's own module, at the version that go.mod
// names, with the versions of their dependencies that u-root's go.sum pins.
// The result is cached by a hash of all that went into it.
//
// It does not build C programs or kernels, does not know what the files are
// for, and doesn't run anything.
package initramfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
)

// Compression says how the image is packed.
type Compression string

// The kernel must be configured to unpack what isn't None.
const (
	None Compression = "none"
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// ParseCompression returns the compression with that name.
func ParseCompression(name string) (Compression, error) {
	switch c := Compression(name); c {
	case None, Gzip, Zstd:
		return c, nil
	}
	return "", fmt.Errorf("unknown compression %q: use none, gzip or zstd", name)
}

// Options says what goes into an image.
type Options struct {
	// Commands are names of u-root commands, as in DefaultCommands, which
	// nil means. init and gosh are always there: without them nothing boots.
	Commands []string

	// Files are added to the image. A file replaces one of the base's own
	// of the same path; the same path twice is an error.
	Files []File

	// Compression of the image; "" is None.
	Compression Compression

	// ModuleDir is a folder in a Go module that requires u-root; "" is the
	// working folder.
	ModuleDir string

	// CacheDir keeps what was compiled; "" is build/initramfs beside the
	// module's go.mod.
	CacheDir string

	// Log, if set, is told of steps that take long.
	Log func(format string, args ...any)
}

// Create writes an image to the file output. The file appears whole or not
// at all.
func Create(ctx context.Context, output string, o Options) error {
	archive, err := Archive(ctx, o)
	if err != nil {
		return err
	}
	return writeFile(output, func(w io.Writer) error {
		return compress(w, archive, o.Compression)
	})
}

// Archive returns an image's uncompressed cpio archive.
func Archive(ctx context.Context, o Options) ([]byte, error) {
	if o.Compression != "" {
		if _, err := ParseCompression(string(o.Compression)); err != nil {
			return nil, err
		}
	}
	commands, err := commandSet(o.Commands)
	if err != nil {
		return nil, err
	}
	// The caller's files first: a wrong path is reported at once and not
	// after a minute of compiling.
	added := newTree()
	for _, f := range o.Files {
		if err := added.add(f); err != nil {
			return nil, err
		}
	}
	program, err := busybox(ctx, o, commands)
	if err != nil {
		return nil, err
	}
	t := newTree()
	if err := t.addBase(program, commands); err != nil {
		return nil, err
	}
	for name, r := range added.records {
		t.records[name] = r
	}
	var b bytes.Buffer
	if err := t.write(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// WriteFiles writes an archive of files alone. Behind an image it adds to
// it: the kernel unpacks one archive after the other, and a later file takes
// an earlier one's place.
func WriteFiles(w io.Writer, files []File) error {
	t := newTree()
	for _, f := range files {
		if err := t.add(f); err != nil {
			return err
		}
	}
	return t.write(w)
}

// Append writes the image in the file image to the file output, with files
// as a second archive behind it. It compiles nothing, so that a test can
// bring its own files to an image that many share.
func Append(output, image string, files []File) error {
	var second bytes.Buffer
	if err := WriteFiles(&second, files); err != nil {
		return err
	}
	in, err := os.Open(image)
	if err != nil {
		return fmt.Errorf("open image: %w", err)
	}
	defer in.Close()
	return writeFile(output, func(w io.Writer) error {
		n, err := io.Copy(w, in)
		if err != nil {
			return err
		}
		// The kernel looks for an archive at multiples of 4 only.
		if _, err := w.Write(make([]byte, -n&3)); err != nil {
			return err
		}
		_, err = w.Write(second.Bytes())
		return err
	})
}

func compress(w io.Writer, archive []byte, c Compression) error {
	var z io.WriteCloser
	var err error
	switch c {
	case Gzip:
		z, err = gzip.NewWriterLevel(w, gzip.BestCompression)
	case Zstd:
		// One goroutine: the frame must not depend on scheduling.
		z, err = zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	default:
		_, err = w.Write(archive)
		return err
	}
	if err != nil {
		return err
	}
	if _, err := z.Write(archive); err != nil {
		return err
	}
	return z.Close()
}

// writeFile makes a file by way of a temporary one beside it, so that nobody
// ever boots half an image.
func writeFile(name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", name, err)
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// addBase adds what every image has.
func (t *tree) addBase(program string, commands []string) error {
	for _, dir := range []string{
		"bbin", "bin", "dev", "etc", "lib", "proc", "root", "sys", "tmp", "usr/lib", "var/log",
	} {
		t.records[dir] = cpio.Directory(dir, 0o755)
	}
	t.records["tmp"] = cpio.Directory("tmp", 0o777|cpio.S_ISVTX)
	// The kernel opens the console before init can mount /dev.
	t.records["dev/console"] = cpio.CharDev("dev/console", 0o600, 5, 1)
	t.records["dev/null"] = cpio.CharDev("dev/null", 0o666, 1, 3)
	t.records["etc/passwd"] = cpio.StaticFile("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644)
	t.records["etc/group"] = cpio.StaticFile("etc/group", "root:x:0:\n", 0o644)
	if err := t.add(File{Source: program, Path: "/bbin/bb", Mode: 0o755}); err != nil {
		return err
	}
	for _, c := range commands {
		t.records["bbin/"+c] = cpio.Symlink("bbin/"+c, "bb")
	}
	t.records["init"] = cpio.Symlink("init", "bbin/init")
	t.records["bin/sh"] = cpio.Symlink("bin/sh", "../bbin/gosh")
	return nil
}

// File is something to put into an image. One of Source, Data and Link says
// what it contains; a file with none of them is empty.
type File struct {
	Path   string // where, in the guest; absolute
	Source string // a file or a whole folder on this machine
	Data   []byte
	Link   string // makes a symbolic link that points there

	// Mode is the permission bits. 0 means the source's own, as 0755 or
	// 0644 (an image must not depend on somebody's umask), and 0644 for Data.
	Mode fs.FileMode
}

// ParseFile reads a file from "SOURCE:PATH" or "SOURCE:PATH:MODE", MODE in
// octal.
func ParseFile(s string) (File, error) {
	parts := strings.Split(s, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		return File{}, fmt.Errorf("bad file %q: write SOURCE:PATH or SOURCE:PATH:MODE", s)
	}
	f := File{Source: parts[0], Path: parts[1]}
	if len(parts) == 3 {
		var mode uint32
		if n, err := fmt.Sscanf(parts[2]+" ", "%o ", &mode); n != 1 || err != nil || mode == 0 || mode > 0o7777 {
			return File{}, fmt.Errorf("bad file %q: mode %q is not an octal number from 1 to 7777", s, parts[2])
		}
		f.Mode = fs.FileMode(mode)
	}
	return f, nil
}
