package monitor

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"fifovm/vmm/x86"
)

// number reads a number, in decimal or with 0x.
func number(text string) (int, error) {
	n, err := strconv.ParseInt(text, 0, 64)
	return int(n), err
}

// Bounds of what a command shows.
const (
	maxSteps  = 10_000
	maxLines  = 1000
	maxMemory = 64 << 10
	someLines = 10
)

// address reads a number, a symbol, or a symbol with +N.
func (m *Monitor) address(text string) (uint64, error) {
	if n, err := strconv.ParseUint(text, 0, 64); err == nil {
		return n, nil
	}
	name, offset, _ := strings.Cut(text, "+")
	var n uint64
	if offset != "" {
		var err error
		if n, err = strconv.ParseUint(offset, 0, 64); err != nil {
			return 0, fmt.Errorf("%q: want an address, or SYMBOL+NUMBER", text)
		}
	}
	addr, err := m.cfg.Symbols.Address(name)
	return addr + n, err
}

// find has the symbols be those of the modules that are loaded now. Where that
// can't be told, the error is what a name that is not known is told with.
func (m *Monitor) find() { _, _ = m.cfg.Symbols.Find(m.cfg.Session) }

// named is a command that uses symbols.
func (m *Monitor) named(run func([]string, io.Writer) error) func([]string, io.Writer) error {
	return func(args []string, w io.Writer) error {
		m.find()
		return run(args, w)
	}
}

func (m *Monitor) modules(args []string, w io.Writer) error {
	if len(args) != 0 {
		return errUsage
	}
	list, err := m.cfg.Symbols.Find(m.cfg.Session)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintln(w, "none")
	}
	for _, l := range list {
		about := l.File
		switch {
		case l.File == "":
			about = "its file is not known"
		case l.Other:
			about += " is of another build than the guest's: its symbols are not used"
		}
		fmt.Fprintf(w, "%s: .text at %#x, %s\n", l.Name, l.Section(".text"), about)
	}
	return nil
}

// cpu reads a CPU's number; without one it is the one that stopped last.
func (m *Monitor) cpu(args []string) (int, error) {
	if len(args) == 0 {
		e, _ := m.cfg.Session.Last()
		return e.CPU, nil
	}
	n, err := number(args[0])
	if last := m.cfg.Session.CPUs() - 1; err != nil || n < 0 || n > last {
		return 0, fmt.Errorf("cpu %q: want 0 to %d", args[0], last)
	}
	return n, nil
}

func (m *Monitor) pause(args []string, w io.Writer) error {
	if len(args) != 0 {
		return errUsage
	}
	m.cfg.Session.Pause()
	return m.where(w)
}

// where says why, and at what, the guest stands still.
func (m *Monitor) where(w io.Writer) error {
	e, ok := m.cfg.Session.Last()
	if !ok {
		return nil
	}
	fmt.Fprintln(w, m.event(e))
	if r, err := m.cfg.Session.Registers(e.CPU); err == nil {
		m.list(w, e.CPU, r.RIP, 1)
	}
	return nil
}

func (m *Monitor) goOn(args []string, _ io.Writer) error {
	if len(args) != 0 {
		return errUsage
	}
	m.cfg.Session.Continue()
	return nil
}

func (m *Monitor) step(args []string, w io.Writer) error {
	if len(args) > 2 {
		return errUsage
	}
	cpu, err := m.cpu(args[:min(len(args), 1)])
	if err != nil {
		return err
	}
	n := 1
	if len(args) == 2 {
		if n, err = number(args[1]); err != nil || n < 1 || n > maxSteps {
			return fmt.Errorf("%q: want 1 to %d instructions", args[1], maxSteps)
		}
	}
	for range n {
		if err := m.cfg.Session.Step(cpu); err != nil {
			return err
		}
	}
	return m.where(w)
}

func (m *Monitor) registers(args []string, w io.Writer) error {
	if len(args) > 1 {
		return errUsage
	}
	cpu, err := m.cpu(args)
	if err != nil {
		return err
	}
	r, err := m.cfg.Session.Registers(cpu)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "cpu %d at %s\n%s\n", cpu, m.place(r.RIP), strings.TrimSuffix(r.String(), "\n"))
	return nil
}

func (m *Monitor) disassemble(args []string, w io.Writer) (err error) {
	if len(args) > 2 {
		return errUsage
	}
	cpu, _ := m.cpu(nil)
	var addr uint64
	if len(args) > 0 {
		if addr, err = m.address(args[0]); err != nil {
			return err
		}
	} else {
		r, err := m.cfg.Session.Registers(cpu)
		if err != nil {
			return err
		}
		addr = r.RIP
	}
	n := someLines
	if len(args) == 2 {
		if n, err = number(args[1]); err != nil || n < 1 || n > maxLines {
			return fmt.Errorf("%q: want 1 to %d instructions", args[1], maxLines)
		}
	}
	if m.list(w, cpu, addr, n) == 0 {
		return fmt.Errorf("there is no memory at %#x", addr)
	}
	return nil
}

func (m *Monitor) list(w io.Writer, cpu int, addr uint64, n int) int {
	lines := m.cfg.Session.Disassemble(cpu, addr, n)
	before := ""
	for _, l := range lines {
		// The source's line where it changes: an instruction is one of many of it.
		place := l.Symbol
		if line := m.cfg.Symbols.line(l.Address); line != before {
			before = line
			if line != "" {
				place += " (" + line + ")"
			}
		}
		fmt.Fprintf(w, "%016x  %-22x  %-36s %s\n", l.Address, l.Bytes, l.Text, place)
	}
	return len(lines)
}

func (m *Monitor) memory(args []string, w io.Writer) error {
	read := func(addr uint64, b []byte) error {
		cpu, _ := m.cpu(nil)
		return m.cfg.Session.Read(cpu, addr, b)
	}
	if len(args) == 3 && args[0] == "physical" {
		args = args[1:]
		read = func(addr uint64, b []byte) (err error) {
			m.locked(func() { err = m.machine().RAM().Read(addr, b) })
			return err
		}
	}
	if len(args) != 2 {
		return errUsage
	}
	addr, err := m.address(args[0])
	if err != nil {
		return err
	}
	n, err := number(args[1])
	if err != nil || n < 1 || n > maxMemory {
		return fmt.Errorf("%q: want 1 to %d bytes", args[1], maxMemory)
	}
	b := make([]byte, n)
	if err := read(addr, b); err != nil {
		return err
	}
	for at := 0; at < n; at += 16 {
		line := b[at:min(n, at+16)]
		text := make([]byte, len(line))
		for i, c := range line {
			if text[i] = c; c < ' ' || c > '~' {
				text[i] = '.'
			}
		}
		fmt.Fprintf(w, "%016x  %-32s  %s\n", addr+uint64(at), hex.EncodeToString(line), text)
	}
	return nil
}

func (m *Monitor) breakpoint(args []string, w io.Writer) error {
	s := m.cfg.Session
	switch len(args) {
	case 0:
		for _, addr := range s.Breakpoints() {
			fmt.Fprintln(w, m.place(addr))
		}
		return nil
	case 1:
		addr, err := m.address(args[0])
		if err != nil {
			return err
		}
		if err := s.SetBreakpoint(addr); err != nil {
			return err
		}
		fmt.Fprintf(w, "at %s\n", m.place(addr))
		return nil
	case 2:
		addr, err := m.address(args[1])
		if args[0] != "delete" {
			return errUsage
		}
		if err != nil {
			return err
		}
		return s.ClearBreakpoint(addr)
	}
	return errUsage
}

func (m *Monitor) watch(args []string, w io.Writer) error {
	s := m.cfg.Session
	if len(args) == 0 {
		for _, p := range s.Watchpoints() {
			fmt.Fprintf(w, "%d bytes at %s\n", p.Size, m.place(p.Address))
		}
		return nil
	}
	remove := args[0] == "delete"
	if remove {
		args = args[1:]
	}
	if len(args) != 2 {
		return errUsage
	}
	addr, err := m.address(args[0])
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(args[1], 0, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q: want a number of bytes", args[1])
	}
	if remove {
		return s.ClearWatchpoint(addr, n, x86.WatchWrite)
	}
	if err := s.SetWatchpoint(addr, n, x86.WatchWrite); err != nil {
		return err
	}
	fmt.Fprintf(w, "%d bytes at %s\n", n, m.place(addr))
	return nil
}

func (m *Monitor) quit(args []string, _ io.Writer) error {
	if len(args) != 0 {
		return errUsage
	}
	if m.cfg.Quit == nil {
		return errors.New("there is no way to end the guest from here")
	}
	m.cfg.Quit()
	return nil
}
