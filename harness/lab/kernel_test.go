//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pierrec/lz4/v4"
)

func TestDependedKernel(t *testing.T) {
	for out, want := range map[string]string{
		"linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n": "linux-image-6.1.0-56-cloud-amd64",
		"linux-image-cloud-amd64\n  Depends: kmod\n":                             "",
		"": "",
	} {
		if got := dependedKernel([]byte(out)); got != want {
			t.Errorf("%q: got %q, want %q", out, got, want)
		}
	}
}

// bzImage makes one with the fields that extractLZ4 reads.
func bzImage(t *testing.T, vmlinux string) []byte {
	t.Helper()
	var payload bytes.Buffer
	w := lz4.NewWriter(&payload)
	if err := w.Apply(lz4.LegacyOption(true)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(vmlinux)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	image := make([]byte, 2*512+0x100)
	image[0x1f1] = 1
	copy(image[0x202:], "HdrS")
	le.PutUint32(image[0x248:], 0x100)
	le.PutUint32(image[0x24c:], uint32(payload.Len()+4))
	image = append(image, payload.Bytes()...)
	image = le.AppendUint32(image, uint32(len(vmlinux)))
	return append(image, "what follows"...)
}

func TestExtractLZ4(t *testing.T) {
	want := "\x7fELF" + strings.Repeat("kernel", 1000)
	image := bzImage(t, want)
	got, err := extractLZ4(image)
	if err != nil || string(got) != want {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	for name, b := range map[string][]byte{
		"empty":   nil,
		"no elf":  bzImage(t, "no ELF file"),
		"cut off": image[:len(image)-100],
		"text":    bytes.Repeat([]byte("text"), 1000),
	} {
		if _, err := extractLZ4(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLoadOrder(t *testing.T) {
	needLab(t)
	k, err := FindKernel(context.Background(), "", t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	order, err := k.loadOrder("kvm-amd", "kvm_amd", "kvm")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range order {
		names = append(names, m.name)
	}
	if diff := cmp.Diff([]string{"irqbypass", "kvm", "kvm_amd"}, names); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if _, err := k.loadOrder("frobnicate"); err == nil || !strings.Contains(err.Error(), "no module frobnicate") {
		t.Errorf("got %v", err)
	}
}
