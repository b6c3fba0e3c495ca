// Package snapshot keeps a whole machine in a file: docs/snapshots.md says what is
// in it and how.
//
// A file is written by Save, all of it or nothing. Open reads and checks all but
// the RAM, which machines map from the file as they need it; Verify checks that.
// A file that is cut off, damaged, of another version or of a machine with other
// CPUs is refused with an error that says which.
//
// The package knows the file. What a machine's state is, package vmm knows.
package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fxamacker/cbor/v2"

	"fifovm/vmm/memory"
	"fifovm/vmm/vmm"
)

// Version is that of the files that are written and read. It changes with the
// layout, and with what any of the states in a file consists of.
const Version = 1

// The layout: a prologue of fixed size, then the head, the state, the digests of
// the RAM's chunks, and from a multiple of ramAlign on the RAM to the end.
const (
	magic    = "fifovm snapshot\n"
	prologue = len(magic) + 4 + 4 + sha256.Size // magic, version, size of the head, digest
	// ramAlign is a multiple of every host's page size.
	ramAlign = 64 << 10
	// chunk is how much of the RAM has a digest of its own.
	chunk = 2 << 20

	maxHead  = 1 << 20
	maxState = 1 << 30
)

// Info is what a file says of itself.
type Info struct {
	Program string // that wrote it, with its version
	Engine  string
	Policy  string // vmm.Machine.CPUPolicy
	CPUs    int
	Memory  uint64 // bytes
	Now     int64  // the machine's time in ns
	// What follows is the writer's, for who makes a machine that fits.
	Devices     []string // in the words of the command line
	Seed        uint64
	Kernel      string
	CommandLine string
	Modules     []string // files of those that the guest has loaded
	Console     []string // the last lines of it
}

// head is Info and where things are.
type head struct {
	Info  Info
	State uint64 // size
}

// saved is a state with the models' states apart, whose types the reader of the
// file does not know.
type saved struct {
	State  vmm.State
	Models []cbor.RawMessage
}

var (
	encMode = must(cbor.EncOptions{Sort: cbor.SortNone}.EncMode())
	decMode = must(cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden, MaxArrayElements: 1 << 20}.DecMode())
)

func must[T any](mode T, err error) T {
	if err != nil {
		panic(err)
	}
	return mode
}

// encoded is the state of a model.
type encoded []byte

// Decode implements vmm.Encoded.
func (e encoded) Decode(into any) error { return decMode.Unmarshal(e, into) }

// Save writes a machine that is not running to a file, in place of the one that
// was there. Where that fails, the old one stays, and nothing of the new. What
// info says of the machine itself is filled in.
func Save(name string, m *vmm.Machine, info Info) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("snapshot: save %s: %w", name, err)
		}
	}()
	s, err := m.State()
	if err != nil {
		return err
	}
	info.Engine, info.Policy, info.CPUs, info.Memory, info.Now = m.Engine(), m.CPUPolicy(), m.CPUs(), m.RAM().Size(), s.Now
	state, err := encodeState(s)
	if err != nil {
		return err
	}
	h, err := encMode.Marshal(head{Info: info, State: uint64(len(state))})
	if err != nil {
		return err
	}
	return replace(name, func(f *os.File) error {
		at := ramOffset(len(h), len(state), m.RAM().Size())
		if err := f.Truncate(at + int64(m.RAM().Size())); err != nil {
			return err
		}
		table, err := writeRAM(f, at, m.RAM())
		if err != nil {
			return err
		}
		_, err = f.Write(front(h, state, table))
		return err
	})
}

// replace has write make a file that takes the place of the one of that name when
// all of it is on the disk, and of nothing else before.
func replace(name string, write func(*os.File) error) (err error) {
	// The name begins with a dot and ends in a random number: none that is asked for.
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	// Without this a file could have its name, after a power cut, before its bytes.
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	done = true
	if err := f.Close(); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func encodeState(s *vmm.State) ([]byte, error) {
	all := saved{State: *s}
	all.State.Devices = append([]vmm.DeviceState(nil), s.Devices...)
	for i := range all.State.Devices {
		b := &all.State.Devices[i].Boundary
		var model []byte
		var err error
		if e, ok := b.Model.(encoded); ok {
			model = e
		} else if model, err = encMode.Marshal(b.Model); err != nil {
			return nil, err
		}
		b.Model = nil
		all.Models = append(all.Models, model)
	}
	return encMode.Marshal(all)
}

func decodeState(b []byte) (*vmm.State, error) {
	var all saved
	if err := decMode.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	if len(all.Models) != len(all.State.Devices) {
		return nil, fmt.Errorf("%d models' states for %d devices", len(all.Models), len(all.State.Devices))
	}
	for i := range all.State.Devices {
		b := &all.State.Devices[i].Boundary
		if b.Model != nil {
			return nil, errors.New("a model's state is in the wrong place")
		}
		b.Model = encoded(all.Models[i])
	}
	return &all.State, nil
}

// chunks is how many digests there are for so much RAM.
func chunks(memory uint64) int { return int((memory + chunk - 1) / chunk) }

// ramOffset is where the RAM begins.
func ramOffset(head, state int, memory uint64) int64 {
	n := prologue + head + state + chunks(memory)*sha256.Size
	return int64((n + ramAlign - 1) / ramAlign * ramAlign)
}

// front is all of the file that comes before the RAM.
func front(head, state []byte, table [][sha256.Size]byte) []byte {
	b := append([]byte(magic), make([]byte, prologue-len(magic))...)
	binary.LittleEndian.PutUint32(b[len(magic):], Version)
	binary.LittleEndian.PutUint32(b[len(magic)+4:], uint32(len(head)))
	b = append(append(b, head...), state...)
	for i := range table {
		b = append(b, table[i][:]...)
	}
	seal(b)
	return b
}

// digestAt is where in the file the digest of the rest of its front is.
const digestAt = len(magic) + 8

// seal puts the digest of the front into it.
func seal(b []byte) {
	sum := digest(b)
	copy(b[digestAt:prologue], sum[:])
}

func digest(b []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(b[:digestAt])
	h.Write(b[prologue:])
	h.Sum(sum[:0])
	return sum
}

// writeRAM writes what is not zero to f from at on, and gives the chunks' digests.
func writeRAM(f *os.File, at int64, ram *memory.RAM) (table [][sha256.Size]byte, err error) {
	size := ram.Size()
	for off := uint64(0); off < size; off += chunk {
		b := slice(ram, off, min(chunk, size-off))
		table = append(table, sum(b))
		if err := writeSparse(f, b, at+int64(off)); err != nil {
			return nil, err
		}
	}
	return table, nil
}

// writeSparse writes pages to a file, but for those of zeros.
func writeSparse(f *os.File, b []byte, at int64) error {
	for start := 0; start < len(b); {
		end := start
		for end < len(b) && !zero(b[end:end+memory.PageSize]) {
			end += memory.PageSize
		}
		if end > start {
			if _, err := f.WriteAt(b[start:end], at+int64(start)); err != nil {
				return err
			}
		}
		for start = end; start < len(b) && zero(b[start:start+memory.PageSize]); {
			start += memory.PageSize
		}
	}
	return nil
}

// slice gives the n bytes at an offset in the RAM, as if it had no hole. The hole
// begins at a multiple of chunk.
func slice(ram *memory.RAM, off, n uint64) []byte {
	for _, s := range ram.Slots() {
		if off < uint64(len(s.Bytes)) {
			return s.Bytes[off:][:n]
		}
		off -= uint64(len(s.Bytes))
	}
	return nil
}

var (
	zeros    [chunk]byte
	zerosSum = sha256.Sum256(zeros[:])
)

func zero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

// sum is the digest of a chunk. Most are of zeros.
func sum(b []byte) [sha256.Size]byte {
	if len(b) == chunk && zero(b) {
		return zerosSum
	}
	return sha256.Sum256(b)
}

// readFront reads and checks what comes before the RAM, of a file of that size.
func readFront(r io.ReaderAt, size int64) (info Info, state []byte, table [][sha256.Size]byte, ram int64, err error) {
	fail := func(format string, args ...any) (Info, []byte, [][sha256.Size]byte, int64, error) {
		return Info{}, nil, nil, 0, fmt.Errorf(format, args...)
	}
	p := make([]byte, prologue)
	if n, err := r.ReadAt(p, 0); n < prologue {
		if n < len(magic) || string(p[:len(magic)]) != magic {
			return fail("it is no snapshot")
		}
		return fail("it is cut off in its first %d bytes: %w", prologue, err)
	}
	if string(p[:len(magic)]) != magic {
		return fail("it is no snapshot")
	}
	if v := binary.LittleEndian.Uint32(p[len(magic):]); v != Version {
		return fail("it has version %d, this program reads and writes %d: make it again", v, Version)
	}
	n := binary.LittleEndian.Uint32(p[len(magic)+4:])
	if n > maxHead {
		return fail("it is damaged: a head of %d bytes", n)
	}
	b := append(p, make([]byte, n)...)
	if _, err := r.ReadAt(b[prologue:], int64(prologue)); err != nil {
		return fail("it is cut off in its head: %w", err)
	}
	var h head
	if err := decMode.Unmarshal(b[prologue:], &h); err != nil {
		return fail("it is damaged: its head can't be read: %w", err)
	}
	i := &h.Info
	if h.State > maxState || i.Memory == 0 || i.Memory%memory.PageSize != 0 || i.Memory > memory.MaxSize {
		return fail("it is damaged: %d bytes of state and %d of memory", h.State, i.Memory)
	}
	ram = ramOffset(int(n), int(h.State), i.Memory)
	if want := ram + int64(i.Memory); size < want {
		return fail("it is cut off: it has %d bytes of %d", size, want)
	} else if size > want {
		return fail("it is damaged: there are %d bytes behind its end", size-want)
	}
	rest := make([]byte, int(h.State)+chunks(i.Memory)*sha256.Size)
	if _, err := r.ReadAt(rest, int64(len(b))); err != nil {
		return fail("it can't be read: %w", err)
	}
	b = append(b, rest...)
	if digest(b) != [sha256.Size]byte(p[digestAt:]) {
		return fail("it is damaged: its checksum is another")
	}
	table = make([][sha256.Size]byte, chunks(i.Memory))
	for k := range table {
		copy(table[k][:], rest[int(h.State)+k*sha256.Size:])
	}
	return *i, rest[:h.State:h.State], table, ram, nil
}
