package vmm

import "fifovm/vmm/x86"

// CPUs is how many there are.
func (m *Machine) CPUs() int { return m.cfg.CPUs }

// CPU gives the state of one CPU of a machine that is not running.
func (m *Machine) CPU(i int) (*x86.CPU, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := new(x86.CPU)
	return c, m.engine.CPU(i, c)
}

// SetCPU replaces the registers of one CPU of a machine that is not running, but
// for those of its local APIC and the MSRs.
func (m *Machine) SetCPU(i int, c *x86.CPU) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.engine.SetCPU(i, c)
}

// SetDebug has the next run end where d says, with an *x86.Trap as its error, and
// the machine able to go on. The machine must not be running. Nil is an end to
// it.
func (m *Machine) SetDebug(d *x86.Debug) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.engine.SetDebug(d)
}
