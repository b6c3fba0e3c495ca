package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"

	"fifovm/vmm/memory"
	"fifovm/vmm/vmm"
)

// File is a snapshot that is open. Close it when no machine begins at it or is
// Reset to it any more.
type File struct {
	Info
	name  string
	state *vmm.State
	table [][sha256.Size]byte
	file  *os.File
	ram   int64 // where the RAM is
	base  *vmm.Base
}

// Open opens a snapshot and checks all of it but the RAM.
func Open(name string) (_ *File, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("snapshot %s: %w", name, err), f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	s := &File{name: name, file: f}
	var state []byte
	if s.Info, state, s.table, s.ram, err = readFront(f, info.Size()); err != nil {
		return nil, err
	}
	if s.state, err = decodeState(state); err != nil {
		return nil, fmt.Errorf("it is damaged: its state can't be read: %w", err)
	}
	return s, nil
}

// Close closes the file. Machines that began at it can go on.
func (f *File) Close() error {
	var err error
	if f.base != nil {
		err = f.base.Close()
	}
	return errors.Join(err, f.file.Close())
}

// Verify checks the RAM, which takes longer than the rest: it reads all of it. It
// can go on beside machines that run.
func (f *File) Verify(ctx context.Context) error {
	err := f.chunks(func(i int, off int64, b []byte) error {
		if sum(b) != f.table[i] {
			return fmt.Errorf("it is damaged: the memory from %#x on has another checksum", off)
		}
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", f.name, err)
	}
	return nil
}

// chunks reads the RAM piece by piece.
func (f *File) chunks(do func(i int, off int64, b []byte) error) error {
	b := make([]byte, chunk)
	for i := range f.table {
		off := int64(i) * chunk
		b := b[:min(chunk, int64(f.Memory)-off)]
		if _, err := f.file.ReadAt(b, f.ram+off); err != nil {
			return err
		}
		if err := do(i, off, b); err != nil {
			return err
		}
	}
	return nil
}

// CopyTo makes the file that was opened appear under another name too, in place of
// what was there: as a link where that can be, since nobody changes a snapshot's
// file, else as a copy.
func (f *File) CopyTo(name string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("snapshot: copy %s to %s: %w", f.name, name, err)
		}
	}()
	// Where there is a file of that name already, there can be no link.
	if f.is(name) || f.is(f.name) && os.Link(f.name, name) == nil && f.is(name) {
		return nil
	}
	return replace(name, func(to *os.File) error {
		b := make([]byte, f.ram)
		if _, err := f.file.ReadAt(b, 0); err != nil {
			return err
		}
		if _, err := to.Write(b); err != nil {
			return err
		}
		if err := to.Truncate(f.ram + int64(f.Memory)); err != nil {
			return err
		}
		return f.chunks(func(_ int, off int64, b []byte) error { return writeSparse(to, b, f.ram+off) })
	})
}

// is whether name is the file that was opened.
func (f *File) is(name string) bool {
	a, err := f.file.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(name)
	return err == nil && os.SameFile(a, b)
}

// Base is the moment that the file is of. It is the file's: it is closed with it.
func (f *File) Base() (*vmm.Base, error) {
	if f.base != nil {
		return f.base, nil
	}
	// A file of its own, as the base closes it.
	own, err := os.Open(f.name)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	// The name may be another file's by now.
	a, err := f.file.Stat()
	b, errOwn := own.Stat()
	if err = errors.Join(err, errOwn); err == nil && !os.SameFile(a, b) {
		err = errors.New("it was replaced")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("snapshot %s: %w", f.name, err), own.Close())
	}
	ram, err := memory.OpenBase(own, f.ram, f.Memory)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", f.name, err)
	}
	f.base = &vmm.Base{RAM: ram, State: f.state}
	return f.base, nil
}

// Machine makes a machine that is at the snapshot. Of cfg, Engine is the file's
// where it is empty; CPUs, Memory, RAM and Input do not count. The devices must be
// made as those of the machine that was saved.
func (f *File) Machine(cfg vmm.Config) (*vmm.Machine, error) {
	if cfg.Engine == "" {
		cfg.Engine = f.Engine
	}
	cfg.CPUs = f.CPUs
	base, err := f.Base()
	if err != nil {
		return nil, err
	}
	m, err := vmm.NewFrom(cfg, base, f.check)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", f.name, err)
	}
	return m, nil
}

// check refuses a machine whose CPUs are not those of the one that was saved.
func (f *File) check(m *vmm.Machine) error {
	if p := m.CPUPolicy(); p != f.Policy {
		return fmt.Errorf("it is of other CPUs: engine %s, %s; here engine %s has %s", f.Engine, f.Policy, m.Engine(), p)
	}
	return nil
}
