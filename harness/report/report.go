// Package report shows the results of package harness: to a person at a terminal
// or the reader of a log (Terminal), to CI (JUnit), to other programs (JSON), and
// as folders of what is left of a failure (Artifacts). It judges nothing.
package report

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"fifovm/harness"
)

// Writer is a Reporter that writes something at the end, which can go wrong.
type Writer interface {
	harness.Reporter
	// Err is what has gone wrong, after Finished.
	Err() error
}

// Tee tells several reporters, in order. One that completes a result comes before
// those that show it.
type Tee []harness.Reporter

// Started implements harness.Reporter.
func (t Tee) Started(total int) {
	for _, r := range t {
		r.Started(total)
	}
}

// Running implements harness.Reporter.
func (t Tee) Running(name string) {
	for _, r := range t {
		r.Running(name)
	}
}

// Done implements harness.Reporter.
func (t Tee) Done(result *harness.Result) {
	for _, r := range t {
		r.Done(result)
	}
}

// Finished implements harness.Reporter.
func (t Tee) Finished(all []*harness.Result, err error) {
	for _, r := range t {
		r.Finished(all, err)
	}
}

// Err is what has gone wrong in all of them.
func (t Tee) Err() error {
	var errs []error
	for _, r := range t {
		if w, ok := r.(Writer); ok {
			errs = append(errs, w.Err())
		}
	}
	return errors.Join(errs...)
}

// writeFile has a file of that name be there wholly or not at all.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
