package snapshot

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fifovm/device/edu"
	"fifovm/device/fault"
	"fifovm/device/fifo"
	"fifovm/vmm/boot"
	"fifovm/vmm/boot/tiny"
	"fifovm/vmm/vmm"
)

const testMemory = 5 << 20 // two chunks and a half

func devices(t testing.TB) []vmm.Device {
	t.Helper()
	f, err := fifo.New(fifo.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return []vmm.Device{{Name: "fifo", Model: f}, {Name: "edu", Model: edu.New(edu.Config{})}}
}

func config(t testing.TB) vmm.Config {
	return vmm.Config{Engine: vmm.EngineSoft, CPUs: 2, Memory: testMemory, Seed: 3, Devices: devices(t)}
}

// enough cancels a run after some bytes.
type enough struct {
	left   int
	cancel func()
}

func (e *enough) Write(p []byte) (int, error) {
	if e.left -= len(p); e.left <= 0 {
		e.cancel()
	}
	return len(p), nil
}

// machine is one in the midst of a run, with a fault armed.
func machine(t testing.TB) *vmm.Machine {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := config(t)
	cfg.Serial[0] = &enough{left: 1000, cancel: cancel}
	m, err := vmm.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(t, m) })
	k, err := boot.Parse(tiny.Kernel("f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Load(vmm.Boot{Kernel: k}); err != nil {
		t.Fatal(err)
	}
	p, err := fault.Parse("seed=5; fifo/device:reset@time 1s; irq:drop@3")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Devices() {
		d.Inject(p)
	}
	if stop, err := m.Run(ctx); stop != vmm.Paused || err != nil {
		t.Fatalf("Run gives %v, %v, want a pause", stop, err)
	}
	return m
}

func closeAll(t testing.TB, all ...io.Closer) {
	t.Helper()
	for _, c := range all {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func hash(t testing.TB, m *vmm.Machine) string {
	t.Helper()
	h, err := m.Hash()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func save(t testing.TB, m *vmm.Machine) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "machine.snapshot")
	if err := Save(name, m, Info{Program: "a test", Devices: []string{"fifo", "edu"}, Seed: 3}); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestRoundTrip: what is loaded is what was saved, and so is what that saves.
func TestRoundTrip(t *testing.T) {
	m := machine(t)
	want := hash(t, m)
	name := save(t, m)
	first, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, f)
	if err := f.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	if f.Program != "a test" || f.CPUs != 2 || f.Memory != testMemory || f.Seed != 3 || len(f.Devices) != 2 || f.Now != m.Now() {
		t.Errorf("the file says %+v", f.Info)
	}
	loaded, err := f.Machine(vmm.Config{Devices: devices(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, loaded)
	if hash(t, loaded) != want {
		t.Error("what is loaded is another state")
	}
	if p := loaded.Plans(); len(p) != 1 || p[0].String() != m.Plans()[0].String() {
		t.Errorf("the plans %v are armed", p)
	}
	again := filepath.Join(t.TempDir(), "again")
	if err := Save(again, loaded, f.Info); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(again)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("saved again it is another file")
	}
	// The machine leaves the file as it is.
	if err := loaded.RAM().Write(0, bytes.Repeat([]byte{0xee}, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	if err := loaded.Reset(); err != nil {
		t.Fatal(err)
	}
	if hash(t, loaded) != want {
		t.Error("after a reset it is another state")
	}
}

// TestRefused: each file that is not what it should be is refused, and for the
// right reason.
func TestRefused(t *testing.T) {
	name := save(t, machine(t))
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	info, state, table, ram, err := readFront(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	remade := func(i Info) []byte {
		h, err := encMode.Marshal(head{Info: i, State: uint64(len(state))})
		if err != nil {
			t.Fatal(err)
		}
		b := front(h, state, table)
		b = append(b, make([]byte, int(ramOffset(len(h), len(state), i.Memory))-len(b))...)
		return append(b, good[ram:]...)
	}
	other := info
	other.Policy = "of others"
	fewer := info
	fewer.CPUs = 1
	cases := []struct {
		name, want string
		b          []byte
	}{
		{"empty", "no snapshot", nil},
		{"text", "no snapshot", []byte("fifovm snap is what this is not, whatever its name says it is, is it")},
		{"other CPUs", "of other CPUs", remade(other)},
		{"fewer CPUs", "of other CPUs", remade(fewer)},
		{"longer", "behind its end", append(bytes.Clone(good), 0)},
		{"version", "version 2", set(good, len(magic), 2)},
	}
	for _, n := range []int{20, prologue, prologue + 10, int(ram) - 1, int(ram), len(good) - 1} {
		cases = append(cases, struct {
			name, want string
			b          []byte
		}{"cut off", "cut off", good[:n]})
	}
	for at := 24; at < int(ram); at += 211 {
		if at < prologue+len(mustHead(t, info, state))+len(state)+len(table)*32 {
			cases = append(cases, struct {
				name, want string
				b          []byte
			}{"damaged", "", set(good, at, ^good[at])})
		}
	}
	for at := int(ram) + 17; at < len(good); at += 100_003 {
		cases = append(cases, struct {
			name, want string
			b          []byte
		}{"damaged memory", "memory from", set(good, at, ^good[at])})
	}
	for _, c := range cases {
		if err := os.WriteFile(name, c.b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := use(t, name); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: the error has more than one line: %v", c.name, err)
		}
	}
}

func mustHead(t *testing.T, i Info, state []byte) []byte {
	t.Helper()
	h, err := encMode.Marshal(head{Info: i, State: uint64(len(state))})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func set(b []byte, at int, v byte) []byte {
	b = bytes.Clone(b)
	b[at] = v
	return b
}

// use does all that can be done with a file.
func use(t testing.TB, name string) error {
	f, err := Open(name)
	if err != nil {
		return err
	}
	defer closeAll(t, f)
	if err := f.Verify(t.Context()); err != nil {
		return err
	}
	m, err := f.Machine(vmm.Config{Devices: devices(t)})
	if err != nil {
		return err
	}
	closeAll(t, m)
	return nil
}

// TestOldFileStays: a save that fails leaves what was there, and nothing else.
func TestOldFileStays(t *testing.T) {
	m := machine(t)
	name := save(t, m)
	was, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	limitFiles(t, 1<<20, func() {
		if err := Save(name, m, Info{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("on a full disk: %v, want an error that names the file", err)
		}
	})
	now, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(now, was) {
		t.Error("the old file has changed")
	}
	files, err := os.ReadDir(filepath.Dir(name))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 {
		t.Errorf("these are left: %v", files)
	}
	if err := Save(filepath.Join(t.TempDir(), "no", "folder"), m, Info{}); err == nil {
		t.Error("a file is saved in a folder that there is not")
	}
}

// FuzzSnapshot: whatever stands in a file, its reader and the machine that is to
// TestCopyTo: under the other name is the same machine, whether that name was free
// or not, and whatever has the first name by then.
func TestCopyTo(t *testing.T) {
	m := machine(t)
	name := save(t, m)
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, f)
	dir := t.TempDir()
	check := func(what, copied string) {
		t.Helper()
		if err := f.CopyTo(copied); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got, err := os.ReadFile(copied); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the copy is another: %v", what, err)
		}
	}
	check("a free name", filepath.Join(dir, "a"))
	check("the same again", filepath.Join(dir, "a"))
	check("itself", name)
	if err := os.WriteFile(filepath.Join(dir, "b"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("a name that is taken", filepath.Join(dir, "b"))
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("the name is another file's", filepath.Join(dir, "c"))
	if err := f.CopyTo(filepath.Join(dir, "none", "d")); err == nil {
		t.Error("a copy in a folder that is not there")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 {
		t.Errorf("there is %v, %v, want a, b and c", left, err)
	}
}

// take its state either take it or give an error.
func FuzzSnapshot(f *testing.F) {
	m := machine(f)
	name := save(f, m)
	good, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	_, state, _, ram, err := readFront(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[:ram], false)
	f.Add(good[:prologue], true)
	f.Add(state, true)
	f.Add([]byte(magic), false)
	f.Fuzz(func(t *testing.T, b []byte, isState bool) {
		if isState { // past the checksum
			s, err := decodeState(b)
			if err != nil {
				return
			}
			to, err := vmm.New(config(t))
			if err != nil {
				t.Fatal(err)
			}
			defer to.Close() // what it may complain about is the state's fault
			_ = to.SetState(s)
			return
		}
		if len(b) >= prologue { // a front whose checksum is right
			b = bytes.Clone(b)
			if n := binary.LittleEndian.Uint32(b[len(magic)+4:]); n < maxHead {
				seal(b)
			}
		}
		for _, size := range []int64{int64(len(b)), int64(len(good))} {
			if _, state, _, _, err := readFront(bytes.NewReader(b), size); err == nil {
				_, _ = decodeState(state)
			}
		}
	})
}
