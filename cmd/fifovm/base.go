package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	benches "fifovm/harness/bench"
	"fifovm/vmm/snapshot"
	"fifovm/vmm/vmm"
)

// basesKept is how many bases are left in the build folder: those used last.
const basesKept = 8

// buildDir is the folder that make builds into: the one here, else the command's own.
// Empty: there is none.
func buildDir() string {
	if info, err := os.Stat("build"); err == nil && info.IsDir() {
		return "build"
	}
	if self, err := os.Executable(); err == nil && filepath.Base(filepath.Dir(self)) == "build" {
		return filepath.Dir(self)
	}
	return ""
}

// openBase opens the snapshot that the tests begin at, if there is one already, and
// settles where one is kept that is made. What was asked for by name has to be one.
func (t *tests) openBase() error {
	switch {
	case t.file != nil: // --snapshot
		if !strings.Contains(t.file.CommandLine, "fifovm.agent") {
			return fmt.Errorf("snapshot %s: its guest has no agent that runs tests: take one that fifovm test has left in build/bases or beside a failure", t.snapshot)
		}
		t.base = t.snapshot
		return nil
	case t.noSnapshot || t.bench.trace != "":
		return nil
	}
	dir := t.artifacts // where failures are replayed from, at the least
	if build := buildDir(); build != "" {
		dir = filepath.Join(build, "bases")
	}
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("the folder for the guests' bases: %w; --no-snapshot does without", err)
	}
	key, err := t.baseKey()
	if err != nil {
		return err
	}
	t.base = filepath.Join(dir, key+".snapshot")
	f, err := snapshot.Open(t.base)
	switch {
	case err == nil:
		t.file = f
		now := time.Now()
		return os.Chtimes(t.base, now, now) // it is used: see prune
	case errors.Is(err, os.ErrNotExist):
		return nil
	}
	fmt.Fprintf(os.Stderr, "fifovm: %v: it is made anew\n", err)
	return nil
}

// baseKey is a digest of all that the base comes of, this program included.
func (t *tests) baseKey() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, file := range []string{self, builtKernel(t.kernel), t.initrd} {
		if err := hashFile(h, file); err != nil {
			return "", err
		}
	}
	var devices []string
	for _, d := range t.bench.devices {
		devices = append(devices, d.text)
	}
	// The words have CPUs, memory and seed in them.
	fmt.Fprintf(h, "%d %x %q %q %q %q %q\n", snapshot.Version, sha256.Sum256(t.extra), benches.Words(t.agentWords(), t.words), t.append,
		t.engine, devices, t.bench.plan)
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func hashFile(h hash.Hash, name string) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.Copy(h, f)
	fmt.Fprintln(h, n)
	return err
}

// saveBase keeps the base that a machine stands at, and those used last. Where it
// can't, the tests begin at it all the same.
func (t *tests) saveBase(m *vmm.Machine, console []string) error {
	if t.base == "" {
		return nil
	}
	t.unsaved = nil
	info := t.about()
	info.CommandLine, info.Console = benches.Words(t.agentWords(), t.words, t.append), console
	if err := snapshot.Save(t.base, m, info); err != nil {
		if t.unsaved = err; filepath.Dir(t.base) != t.artifacts { // else who looks for it there is told
			fmt.Fprintf(os.Stderr, "fifovm: %s: the next run boots again\n", oneLine(err.Error()))
		}
		return nil
	}
	return pruneBases(filepath.Dir(t.base))
}

// copyBase puts the snapshot that a test has begun at into a file, for its replay.
func (t *tests) copyBase(file string) error {
	if t.unsaved != nil {
		return t.unsaved
	}
	f, err := snapshot.Open(t.base)
	if err != nil {
		return err
	}
	return errors.Join(f.CopyTo(file), f.Close())
}

// pruneBases removes all but the bases that were used last.
func pruneBases(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.snapshot"))
	if err != nil || len(names) <= basesKept {
		return err
	}
	used := map[string]time.Time{}
	for _, name := range names {
		if info, err := os.Stat(name); err == nil { // else somebody else has removed it
			used[name] = info.ModTime()
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(used[b].Compare(used[a]), strings.Compare(a, b)) })
	for _, name := range names[basesKept:] {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// fromBase makes a machine that begins at a base.
func (t *tests) fromBase(b *vmm.Base, serial [2]io.Writer) (*vmm.Machine, error) {
	cfg, err := t.config(serial)
	if err != nil {
		return nil, err
	}
	if t.file != nil {
		return t.file.Machine(cfg)
	}
	return vmm.NewFrom(cfg, b)
}

// withBase calls f with the base that the tests begin at, if it is there already, and
// checks its memory meanwhile, which takes as long as some tests: what comes of a
// damaged one counts for nothing.
func (t *tests) withBase(ctx context.Context, f func(context.Context) error) (err error) {
	if err := t.openBase(); err != nil {
		return err
	}
	if t.file == nil {
		return f(ctx)
	}
	if t.start, err = t.file.Base(); err != nil {
		return errors.Join(err, t.file.Close())
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	whole := t.verify(ctx, end)
	defer func() {
		if bad := whole(); bad != nil {
			err = &statusError{statusFailed, fmt.Errorf("%w: remove it", bad)}
		}
		t.file, t.start = nil, nil // the next repetition has another
	}()
	return f(ctx)
}
