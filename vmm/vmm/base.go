package vmm

import (
	"errors"
	"fmt"

	"fifovm/vmm/memory"
	"fifovm/vmm/soft"
)

// Base is a moment of a machine that others begin at, and go back to by Reset.
// They share its RAM until they write to it. It can be used from any goroutine
// but for Close.
type Base struct {
	RAM   *memory.Base
	State *State // not to be changed
}

// Close gives the RAM image back. Machines that began at the base can go on, but
// not be Reset.
func (b *Base) Close() error { return b.RAM.Close() }

// Base makes a base of a machine that is not running. From then on the machine
// itself can be Reset to it, as one that NewFrom made.
func (m *Machine) Base() (*Base, error) {
	s, err := m.State()
	if err != nil {
		return nil, err
	}
	ram, err := memory.NewBase(m.ram)
	if err != nil {
		return nil, err
	}
	b := &Base{RAM: ram, State: s}
	err = m.ram.SetBase(ram)
	if err == nil {
		err = m.begin(b)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// NewFrom makes a machine that is at a base. Of cfg, Memory, RAM and Input do not
// count; what else makes out the machine must be as the base's. Each of checks may
// refuse the machine before the base's state is put into it.
func NewFrom(cfg Config, b *Base, checks ...func(*Machine) error) (*Machine, error) {
	ram, err := b.RAM.NewRAM()
	if err != nil {
		return nil, err
	}
	cfg.RAM, cfg.Input = ram, nil
	m, err := New(cfg)
	if err != nil {
		return nil, errors.Join(err, ram.Close())
	}
	m.cfg.RAM = nil // the machine closes it
	for _, check := range checks {
		if err := check(m); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	if err := m.begin(b); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// begin puts the machine, whose RAM has the base's bytes, at the base.
func (m *Machine) begin(b *Base) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.engine.TrackRAM(); err != nil {
		return err
	}
	// An engine that has not begun here may keep what others do not know of, such
	// as translations: machines are alike only if all of them lose that.
	if err := m.setState(b.State, m.engine.SetState); err != nil {
		return err
	}
	// What comes from a file is decoded once. The engine's part is as it was: on
	// KVM its clocks have gone on.
	devices, err := m.deviceStates()
	if err != nil {
		return err
	}
	for i := range devices {
		devices[i].Plan = b.State.Devices[i].Plan
	}
	s := *b.State
	s.Devices = devices
	m.base = &s
	return nil
}

// Reset puts the machine, which is not running, back to its base. It copies back
// what the guest or a device has written to, and nothing else. What the guest had
// sent before may still be on its way to the serial ports' writers: see Flush and
// SetSerial. The ends that Serial gave before are those of a guest that is gone.
func (m *Machine) Reset() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.base == nil:
		return errors.New("vmm: a machine without a base can't be reset")
	case m.broken != nil:
		return fmt.Errorf("vmm: a machine that broke down can't be reset: %w", m.broken)
	}
	for _, s := range m.serial {
		s.reset()
	}
	return m.setState(m.base, m.engine.Rewind)
}

// Reseed has the soft engine's CPUs take turns from now on in an order that the
// seed decides: that of Config.Seed is as old as the machine, and is in its base
// too. On other engines it does nothing. The machine must not be running.
func (m *Machine) Reseed(seed uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.engine.(*soft.Engine); ok {
		e.Reseed(seed)
	}
}

// Dirty is how many pages of RAM a Reset would copy back at least: those that the
// guest writes to on KVM are counted when it begins.
func (m *Machine) Dirty() int { return m.ram.Dirty() }
