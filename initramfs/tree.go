package initramfs

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// tree is the content of an archive by path, without the leading slash.
type tree struct {
	records map[string]cpio.Record
}

func newTree() *tree {
	return &tree{records: make(map[string]cpio.Record)}
}

// add puts f into the tree.
func (t *tree) add(f File) error {
	if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" || strings.ContainsRune(f.Path, 0) {
		return fmt.Errorf("add %q: not an absolute, clean path in the guest", f.Path)
	}
	name := f.Path[1:]
	mode := uint64(f.Mode & 0o7777)
	switch {
	case f.Link != "":
		return t.put(cpio.Symlink(name, f.Link))
	case f.Source == "":
		if mode == 0 {
			mode = 0o644
		}
		return t.put(cpio.StaticFile(name, string(f.Data), mode))
	}
	info, err := os.Stat(f.Source)
	if err != nil {
		return fmt.Errorf("add %s: %w", f.Path, err)
	}
	if !info.IsDir() {
		return t.addSource(name, f.Source, info, mode)
	}
	return filepath.WalkDir(f.Source, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("add %s: %w", f.Path, err)
		}
		rel, err := filepath.Rel(f.Source, p)
		if err != nil {
			return err
		}
		name := path.Join(name, filepath.ToSlash(rel))
		switch {
		case d.IsDir():
			return t.put(cpio.Directory(name, 0o755))
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return fmt.Errorf("add /%s: %w", name, err)
			}
			return t.put(cpio.Symlink(name, target))
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("add /%s: %w", name, err)
		}
		return t.addSource(name, p, info, mode)
	})
}

// addSource adds a regular file of this machine.
func (t *tree) addSource(name, source string, info fs.FileInfo, mode uint64) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("add /%s: %s is neither a regular file nor a folder", name, source)
	}
	if mode == 0 {
		mode = 0o644
		if info.Mode()&0o111 != 0 {
			mode = 0o755
		}
	}
	data, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("add /%s: %w", name, err)
	}
	return t.put(cpio.StaticFile(name, string(data), mode))
}

func (t *tree) put(r cpio.Record) error {
	if _, ok := t.records[r.Name]; ok {
		return fmt.Errorf("add /%s: it is already there", r.Name)
	}
	t.records[r.Name] = r
	return nil
}

// write writes the archive: parents before children, in one order always.
func (t *tree) write(w io.Writer) error {
	for name := range t.records {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			r, ok := t.records[dir]
			if !ok {
				t.records[dir] = cpio.Directory(dir, 0o755)
			} else if r.Mode&cpio.S_IFMT != cpio.S_IFDIR {
				return fmt.Errorf("add /%s: /%s is not a folder", name, dir)
			}
		}
	}
	names := make([]string, 0, len(t.records))
	for name := range t.records {
		names = append(names, name)
	}
	slices.Sort(names)

	rw := cpio.Newc.Writer(w)
	for i, name := range names {
		r := cpio.MakeReproducible(t.records[name])
		// Distinct numbers, and one link each: some readers take equal ones
		// for hard links.
		r.Ino, r.NLink = uint64(i+1), 1
		if err := rw.WriteRecord(r); err != nil {
			return err
		}
	}
	return cpio.WriteTrailer(rw)
}
