package debug

import "fifovm/vmm/vmm"

// Still calls f with the machine while it does not run, to take its state, say. A
// guest that runs goes on afterwards, and does not notice on engine soft.
func (s *Session) Still(f func(*vmm.Machine) error) error {
	return s.still(func() error { return f(s.machine) })
}
