package clock

import "time"

// Host is the host's monotonic time.
type Host struct {
	start time.Time
}

// NewHost starts at zero.
func NewHost() *Host { return &Host{start: time.Now()} }

// Now is the time in ns since the start.
func (h *Host) Now() int64 { return int64(time.Since(h.start)) }

// Set makes now the current time, for a machine that goes on from a state.
func (h *Host) Set(now int64) { h.start = time.Now().Add(-time.Duration(now)) }
