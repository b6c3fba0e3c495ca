package x86

import "fmt"

// Debug is what a debugger wants of an engine: where the guest is to stop.
type Debug struct {
	Breakpoints []uint64 // linear addresses of instructions
	Watchpoints []Watchpoint
	// Step is the CPU, if Stepping, that is to execute one instruction, after which
	// the guest stops. The other CPUs run meanwhile, as they would anyway.
	Stepping bool
	Step     int
}

// Watchpoint is a piece of linear memory.
type Watchpoint struct {
	Address uint64
	Size    uint64 // in bytes
	Kind    WatchKind
}

// WatchKind is which accesses a watchpoint is for.
type WatchKind uint8

// The kinds.
const (
	WatchWrite  WatchKind = iota + 1
	WatchRead             // on KVM a WatchAccess: a processor has none for reads alone
	WatchAccess           // a read or a write
)

func (k WatchKind) String() string {
	switch k {
	case WatchWrite:
		return "write"
	case WatchRead:
		return "read"
	case WatchAccess:
		return "access"
	}
	return fmt.Sprintf("WatchKind(%d)", uint8(k))
}

// Overlaps is whether the n bytes at address a have some of the watchpoint's.
func (w *Watchpoint) Overlaps(a, n uint64) bool {
	return a-w.Address < w.Size || w.Address-a < n
}

// TrapKind is why a debugger's guest stopped.
type TrapKind uint8

// The kinds.
const (
	TrapBreakpoint TrapKind = iota + 1 // an instruction with a breakpoint is about to be executed
	TrapWatchpoint                     // the instruction before has touched watched memory
	TrapStep                           // the CPU has executed the instruction that was asked for
)

func (k TrapKind) String() string {
	switch k {
	case TrapBreakpoint:
		return "breakpoint"
	case TrapWatchpoint:
		return "watchpoint"
	case TrapStep:
		return "step"
	}
	return fmt.Sprintf("TrapKind(%d)", uint8(k))
}

// Trap is the error of a run that a debugger's wish has ended: the guest is whole
// and can go on.
type Trap struct {
	CPU     int
	Kind    TrapKind
	Address uint64     // RIP as a linear address; of a watchpoint the address that it watches
	Watch   Watchpoint // which one, of TrapWatchpoint
}

func (t *Trap) Error() string {
	return fmt.Sprintf("CPU %d: %v at %#x", t.CPU, t.Kind, t.Address)
}
