package initramfs

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
)

// entry is what a test compares of an archive's entry.
type entry struct {
	Name, Content string
	Mode          uint64
}

// readArchive returns the first archive in b and its length.
func readArchive(t *testing.T, b []byte) ([]entry, int) {
	t.Helper()
	var entries []entry
	r := cpio.Newc.Reader(bytes.NewReader(b))
	end := 0
	err := cpio.ForEachRecord(r, func(rec cpio.Record) error {
		if rec.MTime != 0 || rec.UID != 0 || rec.GID != 0 {
			t.Errorf("%s: time %d, owner %d:%d, not all 0", rec.Name, rec.MTime, rec.UID, rec.GID)
		}
		content, err := io.ReadAll(io.NewSectionReader(rec, 0, int64(rec.FileSize)))
		entries = append(entries, entry{rec.Name, string(content), rec.Mode})
		end = int(rec.FilePos) + int(rec.FileSize)
		return err
	})
	if err != nil {
		t.Fatalf("read archive: %v", err)
	}
	trailer := bytes.Index(b[end:], []byte(cpio.Trailer))
	if trailer < 0 {
		t.Fatal("no trailer")
	}
	// The trailer's name, its zero, and up to a multiple of 4.
	return entries, (end + trailer + len(cpio.Trailer) + 1 + 3) &^ 3
}

func writeTemp(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWriteFiles(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"b": "bee", "sub/c": "sea"} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("sub/c", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	program := writeTemp(t, "program", "\x7fELF", 0o700)
	files := []File{
		{Path: "/tests/z", Source: program},
		{Path: "/etc/motd", Data: []byte("hello\n")},
		{Path: "/etc/secret", Data: []byte("s"), Mode: 0o600},
		{Path: "/bin/uinit", Link: "/tests/z"},
		{Path: "/data", Source: dir},
		{Path: "/empty"},
	}
	var first bytes.Buffer
	if err := WriteFiles(&first, files); err != nil {
		t.Fatal(err)
	}
	got, _ := readArchive(t, first.Bytes())
	want := []entry{
		{"bin", "", cpio.S_IFDIR | 0o755},
		{"bin/uinit", "/tests/z", cpio.S_IFLNK | 0o777},
		{"data", "", cpio.S_IFDIR | 0o755},
		{"data/b", "bee", cpio.S_IFREG | 0o644},
		{"data/link", "sub/c", cpio.S_IFLNK | 0o777},
		{"data/sub", "", cpio.S_IFDIR | 0o755},
		{"data/sub/c", "sea", cpio.S_IFREG | 0o644},
		{"empty", "", cpio.S_IFREG | 0o644},
		{"etc", "", cpio.S_IFDIR | 0o755},
		{"etc/motd", "hello\n", cpio.S_IFREG | 0o644},
		{"etc/secret", "s", cpio.S_IFREG | 0o600},
		{"tests", "", cpio.S_IFDIR | 0o755},
		{"tests/z", "\x7fELF", cpio.S_IFREG | 0o755},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}

	// Another order, another time, other permissions of the group: the same.
	if err := os.Chtimes(program, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	files[0], files[3] = files[3], files[0]
	var second bytes.Buffer
	if err := WriteFiles(&second, files); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same files gave other bytes")
	}
}

func TestWriteFilesErrors(t *testing.T) {
	present := writeTemp(t, "present", "x", 0o644)
	tests := []struct {
		name  string
		files []File
		want  string
	}{
		{"relative", []File{{Path: "bin/x"}}, "not an absolute"},
		{"empty path", []File{{}}, "not an absolute"},
		{"the root", []File{{Path: "/"}}, "not an absolute"},
		{"dots", []File{{Path: "/tests/../etc/passwd"}}, "not an absolute"},
		{"missing source", []File{{Path: "/x", Source: "/does/not/exist"}}, "no such file"},
		{"device", []File{{Path: "/x", Source: "/dev/null"}}, "neither a regular file nor a folder"},
		{"twice", []File{{Path: "/x", Source: present}, {Path: "/x"}}, "already there"},
		{"file as folder", []File{{Path: "/x"}, {Path: "/x/y"}}, "/x is not a folder"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := WriteFiles(io.Discard, tt.files)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestAppend(t *testing.T) {
	var base bytes.Buffer
	if err := WriteFiles(&base, []File{{Path: "/a", Data: []byte("one")}}); err != nil {
		t.Fatal(err)
	}
	// A packed image can end anywhere.
	for pad := range 4 {
		image := writeTemp(t, "image", base.String()+strings.Repeat("\x00", pad), 0o644)
		output := filepath.Join(t.TempDir(), "out")
		if err := Append(output, image, []File{{Path: "/a", Data: []byte("two")}}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(output)
		if err != nil {
			t.Fatal(err)
		}
		start := (base.Len() + pad + 3) &^ 3
		if !bytes.HasPrefix(got, base.Bytes()) || !bytes.HasPrefix(got[start:], []byte("070701")) {
			t.Fatalf("pad %d: the second archive is not at %d", pad, start)
		}
		second, _ := readArchive(t, got[start:])
		if diff := cmp.Diff([]entry{{"a", "two", cpio.S_IFREG | 0o644}}, second); diff != "" {
			t.Errorf("pad %d: second archive (-want +got):\n%s", pad, diff)
		}
	}
	if err := Append(filepath.Join(t.TempDir(), "out"), "/does/not/exist", nil); err == nil {
		t.Error("no error for an image that isn't there")
	}
}

// TestCreate compiles u-root's commands, unless build/initramfs has them.
func TestCreate(t *testing.T) {
	dir := t.TempDir()
	o := Options{
		Files: []File{
			{Path: "/tests/t", Data: []byte("t"), Mode: 0o755},
			{Path: "/etc/group", Data: []byte("mine")},
		},
		Log: t.Logf,
	}
	plain := filepath.Join(dir, "plain")
	if err := Create(context.Background(), plain, o); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	entries, end := readArchive(t, want)
	if end != len(want) {
		t.Errorf("archive ends at %d of %d bytes", end, len(want))
	}
	found := map[string]entry{}
	for _, e := range entries {
		found[e.Name] = e
	}
	for _, e := range []entry{
		{"init", "bbin/init", cpio.S_IFLNK | 0o777},
		{"bin/sh", "../bbin/gosh", cpio.S_IFLNK | 0o777},
		{"bbin/gosh", "bb", cpio.S_IFLNK | 0o777},
		{"bbin/insmod", "bb", cpio.S_IFLNK | 0o777},
		{"dev/console", "", cpio.S_IFCHR | 0o600},
		{"tests/t", "t", cpio.S_IFREG | 0o755},
		{"etc/group", "mine", cpio.S_IFREG | 0o644},
	} {
		if diff := cmp.Diff(e, found[e.Name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", e.Name, diff)
		}
	}
	if b := found["bbin/bb"]; !strings.HasPrefix(b.Content, "\x7fELF") || b.Mode != cpio.S_IFREG|0o755 {
		t.Errorf("bbin/bb is no program: mode %#o, %d bytes", b.Mode, len(b.Content))
	}
	if len(want) > 8<<20 {
		t.Errorf("image of %d bytes, more than 8 MiB: every byte costs boot time", len(want))
	}

	for _, c := range []Compression{None, Gzip, Zstd} {
		o.Compression = c
		a, b := filepath.Join(dir, string(c)), filepath.Join(dir, string(c)+"2")
		for _, p := range []string{a, b} {
			if err := Create(context.Background(), p, o); err != nil {
				t.Fatal(err)
			}
		}
		first, err := os.ReadFile(a)
		if err != nil {
			t.Fatal(err)
		}
		second, err := os.ReadFile(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, second) {
			t.Errorf("%s: two builds differ", c)
		}
		if !bytes.Equal(unpack(t, c, first), want) {
			t.Errorf("%s: doesn't unpack to the plain image", c)
		}
	}
}

func unpack(t *testing.T, c Compression, b []byte) []byte {
	t.Helper()
	var r io.Reader = bytes.NewReader(b)
	var err error
	switch c {
	case Gzip:
		r, err = gzip.NewReader(r)
	case Zstd:
		r, err = zstd.NewReader(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err = io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCreateErrors(t *testing.T) {
	tests := []struct {
		name string
		o    Options
		want string
	}{
		{"no such command", Options{Commands: []string{"ls", "frobnicate"}}, `no command "frobnicate"`},
		{"path as command", Options{Commands: []string{"../../x"}}, "bad command name"},
		{"empty command", Options{Commands: []string{""}}, "bad command name"},
		{"compression", Options{Compression: "lzma"}, "unknown compression"},
		{"missing file", Options{Files: []File{{Path: "/x", Source: "/does/not/exist"}}}, "no such file"},
		{"outside a module", Options{ModuleDir: os.TempDir()}, "not in a Go module"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			output := writeTemp(t, "out", "old", 0o644)
			err := Create(context.Background(), output, tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, tt.want)
			}
			if b, _ := os.ReadFile(output); string(b) != "old" {
				t.Error("the old image is gone")
			}
			if files, _ := os.ReadDir(filepath.Dir(output)); len(files) != 1 {
				t.Errorf("left behind: %v", files)
			}
		})
	}
	if err := Create(context.Background(), "/does/not/exist/out", Options{}); err == nil {
		t.Error("no error for an output folder that isn't there")
	}
}

func TestParseFile(t *testing.T) {
	for s, want := range map[string]File{
		"a:/b":      {Source: "a", Path: "/b"},
		"a:/b:0755": {Source: "a", Path: "/b", Mode: 0o755},
		"a:/b:600":  {Source: "a", Path: "/b", Mode: 0o600},
	} {
		got, err := ParseFile(s)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", s, err, diff)
		}
	}
	for _, s := range []string{"", "a", ":/b", "a:/b:", "a:/b:9", "a:/b:644x", "a:/b:0", "a:/b:77777", "a:/b:644:c"} {
		if f, err := ParseFile(s); err == nil {
			t.Errorf("%q: no error but %v", s, f)
		}
	}
}
