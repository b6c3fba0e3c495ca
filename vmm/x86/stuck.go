package x86

import (
	"errors"
	"fmt"
)

// ErrTripleFault is a CPU that shut down because it could not even deliver a
// double fault (SDM volume 3, 6.15, interrupt 8).
var ErrTripleFault = errors.New("triple fault")

// Stuck is the error of a CPU that can't go on.
type Stuck struct {
	CPU       int
	Err       error
	Registers *CPU // for a report; nil where they could not be had
}

func (s *Stuck) Error() string { return fmt.Sprintf("CPU %d: %v", s.CPU, s.Err) }

func (s *Stuck) Unwrap() error { return s.Err }
