package monitor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"fifovm/vmm/debug"
	"fifovm/vmm/x86"
)

// maxFrames bounds a backtrace: a stack that was overwritten may go in circles.
const maxFrames = 100

// Where things are in what Linux pushes when an interrupt or an exception comes,
// struct pt_regs (arch/x86/include/asm/ptrace.h).
const (
	regsBP   = 4 * 8
	regsIP   = 16 * 8
	regsCS   = 17 * 8
	regsSP   = 19 * 8
	regsSize = 21 * 8
)

func (m *Monitor) backtrace(args []string, w io.Writer) error {
	if len(args) > 1 {
		return errUsage
	}
	cpu, err := m.cpu(args)
	if err != nil {
		return err
	}
	c, err := m.cfg.Session.Registers(cpu)
	if err != nil {
		return err
	}
	if user(uint64(c.Seg[x86.CS].Selector)) {
		fmt.Fprintf(w, "#0  %s, in a program\n", m.place(c.RIP))
		return nil
	}
	u := unwinder{session: m.cfg.Session, symbols: m.cfg.Symbols, cpu: cpu, pc: c.RIP, sp: c.GPR[x86.RSP], bp: c.GPR[x86.RBP], first: true}
	fmt.Fprintf(w, "#0  %s\n", m.place(c.RIP))
	for i := 1; i < maxFrames; i++ {
		f, err := u.next()
		if err != nil {
			fmt.Fprintf(w, "the rest is not known: %v\n", err)
			return nil
		}
		switch {
		case f.end:
			return nil
		case f.user:
			fmt.Fprintf(w, "#%-2d %#x, in a program\n", i, f.pc)
			return nil
		case f.interrupted:
			fmt.Fprintf(w, "#%-2d %s, interrupted here\n", i, m.place(f.pc))
		default:
			fmt.Fprintf(w, "#%-2d %s\n", i, m.called(f.pc))
		}
	}
	fmt.Fprintln(w, "and more")
	return nil
}

// called is the place of a call that returns to an address: the call may be the last
// instruction of its function, which the address is behind then.
func (m *Monitor) called(ret uint64) string {
	text := m.place(ret - 1)
	if name, offset, ok := m.cfg.Symbols.function(ret - 1); ok {
		text = strings.Replace(text, fmt.Sprintf("%s+%#x", name, offset), fmt.Sprintf("%s+%#x", name, offset+1), 1)
	}
	return strings.Replace(text, fmt.Sprintf("%#x", ret-1), fmt.Sprintf("%#x", ret), 1)
}

// user is whether a code segment's selector is a program's.
func user(cs uint64) bool { return cs&3 != 0 }

// unwinder follows frame pointers from function to caller. Our kernels keep them
// (CONFIG_UNWINDER_FRAME_POINTER), and put a mark in RBP where an interrupt has
// pushed registers (ENCODE_FRAME_POINTER in arch/x86/include/asm/frame.h).
type unwinder struct {
	session    *debug.Session
	symbols    *Symbols
	cpu        int
	pc, sp, bp uint64
	first      bool // pc is of an instruction that is to be executed, not of a return
}

type frame struct {
	pc                     uint64
	end, user, interrupted bool
}

func (u *unwinder) word(addr uint64) (uint64, error) {
	var b [8]byte
	err := u.session.Read(u.cpu, addr, b[:])
	return binary.LittleEndian.Uint64(b[:]), err
}

// next goes to the caller.
func (u *unwinder) next() (frame, error) {
	ret, bp, err := u.sp, u.bp, error(nil)
	switch at := u.prologue(); {
	case u.first && at == bare:
		// The return address is on top of the stack, the caller's frame in RBP.
	case u.first && at == pushed:
		ret += 8
	case u.bp == 0:
		return frame{end: true}, nil
	case u.bp&1 != 0:
		return u.interrupted(u.bp &^ 1)
	default:
		ret = u.bp + 8
		if bp, err = u.word(u.bp); err != nil {
			return frame{}, err
		}
		if bp&^1 == u.bp {
			return frame{}, errors.New("a frame that is its own caller's")
		}
	}
	u.first = false
	if u.pc, err = u.word(ret); err != nil {
		return frame{}, err
	}
	u.bp, u.sp = bp, ret+8
	if u.pc == 0 {
		return frame{end: true}, nil
	}
	if !u.afterCall(u.pc) && !u.symbols.freed(u.pc) {
		return frame{}, fmt.Errorf("%#x on the stack is not behind a call; a kernel without frame pointers can't be followed", u.pc)
	}
	return frame{pc: u.pc}, nil
}

// interrupted goes to what was running when an interrupt or an exception came.
func (u *unwinder) interrupted(regs uint64) (frame, error) {
	var b [regsSize]byte
	if err := u.session.Read(u.cpu, regs, b[:]); err != nil {
		return frame{}, err
	}
	at := func(offset int) uint64 { return binary.LittleEndian.Uint64(b[offset:]) }
	u.pc, u.bp, u.sp, u.first = at(regsIP), at(regsBP), at(regsSP), true
	switch {
	case u.pc == 0: // the end of a kernel thread's stack
		return frame{end: true}, nil
	case user(at(regsCS)):
		return frame{pc: u.pc, user: true}, nil
	}
	return frame{pc: u.pc, interrupted: true}, nil
}

// What a function has done of its frame.
type progress int

const (
	whole  progress = iota // or nothing is known of the function
	bare                   // nothing yet, or nothing any more
	pushed                 // the caller's RBP is on the stack
)

// prologue tells how much of its frame the function has at pc.
func (u *unwinder) prologue() progress {
	if !u.first {
		return whole
	}
	_, offset, ok := u.symbols.function(u.pc)
	if !ok {
		return whole
	}
	if here := u.session.Disassemble(u.cpu, u.pc, 1); len(here) == 1 && here[0].Text == "ret" {
		return bare
	}
	at := bare
	for _, l := range u.session.Disassemble(u.cpu, u.pc-offset, prologueLength) {
		if l.Address >= u.pc {
			return at
		}
		switch l.Text {
		case "push rbp":
			at = pushed
		case "mov rbp, rsp":
			return whole
		}
	}
	return whole
}

// prologueLength is how many instructions of a function are looked at: what it can
// do without a frame, it may do before it has one.
const prologueLength = 40

// maxCall is how long a call may be (SDM volume 2, CALL: FF /2 with SIB and disp32).
const maxCall = 7

// afterCall is whether the instruction before an address can be a call.
func (u *unwinder) afterCall(ret uint64) bool {
	var b [maxCall]byte
	if err := u.session.Read(u.cpu, ret-maxCall, b[:]); err != nil {
		return false
	}
	for n := 2; n <= maxCall; n++ {
		if inst, err := x86asm.Decode(b[maxCall-n:], 64); err == nil && inst.Op == x86asm.CALL && inst.Len == n {
			return true
		}
	}
	return false
}
