package difftest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"fifovm/vmm/bus"
	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

// The guest that runs cases is a loop at CPL 3. It loads the registers from a
// record and ends with an IRETQ, after which the tested instruction is the next.
// All around that is INT3, so that every case ends in an exception, whose frame
// says where. The ring-0 stub of an exception is as short as can be, since some
// KVMs emulate ring 0 slowly: it notes the vector and goes back to CPL 3, where
// the registers are stored. Then an INT3 has the ring-0 stub write to a port,
// and the handler of that port exchanges the result for the next case.

// engine is what the runner needs of an engine.
type engine interface {
	Run(ctx context.Context) error
	SetState(*x86.State) error
	Close() error
}

// hardware is what an engine is made from.
type hardware struct {
	ram   *memory.RAM
	ports *bus.Space
	mmio  *bus.Space
	lock  sync.Locker
}

// Guest-physical addresses. Those below gpTables are mapped onto themselves for
// ring 0.
const (
	ramSize    = 1 << 20
	gpGDT      = 0x2000
	gpIDT      = 0x3000
	gpTSS      = 0x4000
	gpReturn   = 0x4800 // a frame of IRETQ to userStore
	gpBegin    = 0x4840 // one to userLoad
	gpStack    = 0x5000 // of ring 0: one page
	gpStubs    = 0x6000
	gpProgram  = 0x7000
	gpRecord   = 0x8000
	gpResult   = 0x9000
	gpCode     = 0xa000 // codePages
	gpData     = 0xc000 // two pages, then the read-only one
	gpSuper    = 0xf000
	gpTables   = 0x1_0000
	stubSize   = 64
	gpNoted    = gpStack // vector, as a byte
	gpNotedCR2 = gpStack + 8
	stackTop   = gpStack + pageSize
	frameSize  = 6 * 8 // error code, RIP, CS, RFLAGS, RSP, SS
	donePort   = 0x80
)

// Where CPL 3 has the loop, far from everything that a case is likely to reach.
const (
	userProgram   = 0x7edc_ba98_0000
	userRecord    = userProgram + 0x1000
	userResult    = userProgram + 0x2000
	userFrame     = userProgram + 0x4000 - frameSize // the frame of ring 0's stack, to read
	userCodeWrite = userProgram + 0x4000             // the code pages, to write
)

// The record of a case. Its first part is what the loop pops: the general
// registers but RSP, from R15 down to RAX, then IRETQ's frame.
const (
	recordFrame  = 15 * 8
	recordErase  = 0x100 // address of the code before, to be erased
	recordTo     = 0x108 // address of the code
	recordLength = 0x110
	recordFS     = 0x118
	recordGS     = 0x120
	recordCode   = 0x140
	recordFPU    = 0x200
)

// The result: the general registers but RSP end at resultGPR, RAX highest.
const (
	resultGPR   = 0x80
	resultFS    = 0x100
	resultGS    = 0x108
	resultPhase = 0x110 // where the ring-0 stub of INT3 goes
	resultFrame = 0x120 // a copy of the exception's frame, which the last INT3 overwrites
	resultFPU   = 0x200
)

// Selectors: those of Linux, since a KVM without VMX or SVM runs CPL 3 with the
// host's descriptor table, and an IRETQ there needs them to be the same.
const (
	kernelCode = 0x10
	kernelData = 0x18
	userData   = 0x28 | 3
	userCode   = 0x30 | 3
)

// userStore, userExit and userLoad are the program's entries.
var program, userStore, userExit, userLoad = assemble()

func assemble() (code []byte, store, exit, load uint64) {
	here := func() uint64 { return userProgram + uint64(len(code)) }
	emit := func(parts ...[]byte) { code = append(code, slices.Concat(parts...)...) }
	offset := func(op []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(op, v) }
	pushes := []byte{0x50, 0x51, 0x52, 0x53, 0x55, 0x56, 0x57}
	store = here()
	emit(pushes) // push rax, rcx, rdx, rbx, rbp, rsi, rdi
	for r := range byte(8) {
		emit([]byte{0x41, 0x50 + r}) // push r8 to r15
	}
	emit(setReg(x86.RBX, userResult),
		[]byte{0xf3, 0x48, 0x0f, 0xae, 0xc0},              // rdfsbase rax
		offset([]byte{0x48, 0x89, 0x83}, resultFS),        // mov [rbx+resultFS], rax
		[]byte{0xf3, 0x48, 0x0f, 0xae, 0xc8},              // rdgsbase rax
		offset([]byte{0x48, 0x89, 0x83}, resultGS),        // mov [rbx+resultGS], rax
		offset([]byte{0x48, 0x0f, 0xae, 0x83}, resultFPU), // fxsave64 [rbx+resultFPU]
		setReg(x86.RSI, userFrame),
		offset([]byte{0x48, 0x8d, 0xbb}, resultFrame),          // lea rdi, [rbx+resultFrame]
		[]byte{0xb9, frameSize / 8, 0, 0, 0, 0xf3, 0x48, 0xa5}, // mov ecx, frameSize/8; rep movsq
		setReg(x86.RAX, uint64(stubExit)),
		offset([]byte{0x48, 0x89, 0x83}, resultPhase)) // mov [rbx+resultPhase], rax
	exit = here()
	emit([]byte{0xcc}) // int3
	load = here()
	emit(setReg(x86.RBX, userResult),
		setReg(x86.RAX, uint64(stubNote)),
		offset([]byte{0x48, 0x89, 0x83}, resultPhase),           // mov [rbx+resultPhase], rax
		setReg(x86.RSP, userRecord),                             //
		offset([]byte{0x48, 0x8b, 0xbc, 0x24}, recordErase),     // mov rdi, [rsp+recordErase]
		[]byte{0xb9, maxCode, 0, 0, 0, 0xb0, 0xcc},              // mov ecx, maxCode; mov al, 0xcc
		[]byte{0xf3, 0xaa},                                      // rep stosb
		offset([]byte{0x48, 0x8b, 0xbc, 0x24}, recordTo),        // mov rdi, [rsp+recordTo]
		offset([]byte{0x8b, 0x8c, 0x24}, recordLength),          // mov ecx, [rsp+recordLength]
		offset([]byte{0x48, 0x8d, 0xb4, 0x24}, recordCode),      // lea rsi, [rsp+recordCode]
		[]byte{0xf3, 0xa4},                                      // rep movsb
		offset([]byte{0x48, 0x0f, 0xae, 0x8c, 0x24}, recordFPU), // fxrstor64 [rsp+recordFPU]
		offset([]byte{0x48, 0x8b, 0x84, 0x24}, recordFS),        // mov rax, [rsp+recordFS]
		[]byte{0xf3, 0x48, 0x0f, 0xae, 0xd0},                    // wrfsbase rax
		offset([]byte{0x48, 0x8b, 0x84, 0x24}, recordGS),        // mov rax, [rsp+recordGS]
		[]byte{0xf3, 0x48, 0x0f, 0xae, 0xd8})                    // wrgsbase rax
	for r := range byte(8) {
		emit([]byte{0x41, 0x5f - r}) // pop r15 to r8
	}
	for _, p := range slices.Backward(pushes) {
		emit([]byte{p + 8})
	}
	emit([]byte{0x48, 0xcf}) // iretq
	return code, store, exit, load
}

// popped are the registers in the order of the record.
var popped = [15]int{x86.R15, x86.R14, x86.R13, x86.R12, x86.R11, x86.R10, x86.R9, x86.R8,
	x86.RDI, x86.RSI, x86.RBP, x86.RBX, x86.RDX, x86.RCX, x86.RAX}

// maxCode is the room for a case's instruction.
const maxCode = 32

// The stub of INT3 has two ends: stubNote for a case, stubExit for the loop.
const (
	stubNote = gpStubs + stubSize*vectorBP + 8
	stubExit = gpStubs + stubSize*vectors
)

// stub is the ring-0 code of an exception.
func stub(v uint8) []byte {
	le := binary.LittleEndian
	var code []byte
	switch v {
	case vectorPF:
		code = append(code, 0x50, 0x0f, 0x20, 0xd0)                              //                            push rax; mov rax, cr2
		code = le.AppendUint32(append(code, 0x48, 0x89, 0x04, 0x25), gpNotedCR2) // mov [gpNotedCR2], rax
		code = append(code, 0x58)                                                //                                              pop rax
	case vectorBP:
		code = le.AppendUint32(append(code, 0xff, 0x24, 0x25), gpResult+resultPhase) // jmp [resultPhase]
		code = append(code, 0x90)
	}
	code = append(le.AppendUint32(append(code, 0xc6, 0x04, 0x25), gpNoted), v) // mov byte [gpNoted], v
	return append(code, iretFrom(gpReturn)...)
}

// iretFrom goes to CPL 3 by the frame at an address.
func iretFrom(frame uint32) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte{0x48, 0xc7, 0xc4}, frame), 0x48, 0xcf) // mov rsp, frame; iretq
}

// setReg is MOV of a constant to a 64-bit register.
func setReg(reg int, v uint64) []byte {
	return binary.LittleEndian.AppendUint64([]byte{0x48 | byte(reg>>3), 0xb8 | byte(reg&7)}, v)
}

// words is a list of 64-bit words as bytes.
func words(list ...uint64) []byte {
	var b []byte
	for _, w := range list {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// pageTables maps pages by a tree of four levels at gpTables (SDM volume 3,
// 4.5.4).
type pageTables struct {
	ram  *memory.RAM
	next uint64
}

func (t *pageTables) set(at, v uint64) error { return t.ram.Write(at, words(v)) }

func (t *pageTables) get(at uint64) (uint64, error) {
	var b [8]byte
	err := t.ram.Read(at, b[:])
	return binary.LittleEndian.Uint64(b[:]), err
}

func (t *pageTables) mapPages(linear, gpa uint64, n int, flags uint64) error {
	for ; n > 0; n, linear, gpa = n-1, linear+pageSize, gpa+pageSize {
		table := uint64(gpTables)
		for shift := 39; shift > 12; shift -= 9 {
			at := table + linear>>shift&0x1ff*8
			e, err := t.get(at)
			if err != nil {
				return err
			}
			if e == 0 {
				e = t.next | x86.PTEPresent | x86.PTEWrite | x86.PTEUser | x86.PTEAccessed
				t.next += pageSize
				if err := t.set(at, e); err != nil {
					return err
				}
			}
			table = e & x86.PTEAddress
		}
		if err := t.set(table+linear>>12&0x1ff*8, gpa|flags|x86.PTEPresent|x86.PTEAccessed|x86.PTEDirty); err != nil {
			return err
		}
	}
	return nil
}

// guest is a processor that runs cases on an engine.
type guest struct {
	hw                          hardware
	lock                        sync.Mutex
	open                        func(hardware) (engine, error)
	engine                      engine
	cancel                      context.CancelFunc
	ended                       chan error      // of the run
	done                        chan struct{}   // the CPU has come to the end of a case
	next                        chan struct{}   // the next case is in the record
	over                        <-chan struct{} // the run is to end
	record, result, noted, data []byte          // RAM
	erase                       uint64
}

// patience is how long a case may take.
const patience = 10 * time.Second

// newGuest gives a processor on the engine that open makes.
func newGuest(open func(hardware) (engine, error)) (*guest, error) {
	g := &guest{open: open}
	return g, g.start()
}

// start makes the machine and runs it up to where it asks for its first case.
func (g *guest) start() (err error) {
	g.hw = hardware{ports: bus.NewPorts(), mmio: bus.NewMMIO(), lock: &g.lock}
	if g.hw.ram, err = memory.New(ramSize); err != nil {
		return err
	}
	if err = errors.Join(g.load(), g.hw.ports.Map(donePort, 1, "done", g)); err != nil {
		return err
	}
	if g.engine, err = g.open(g.hw); err != nil {
		return errors.Join(err, g.hw.ram.Close())
	}
	if err := g.engine.SetState(initialState()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel, g.over = cancel, ctx.Done()
	g.ended, g.done, g.next = make(chan error, 1), make(chan struct{}), make(chan struct{})
	g.erase = userCodeWrite
	e := g.engine
	go func() { g.ended <- e.Run(ctx) }()
	return g.wait()
}

// close ends the machine.
func (g *guest) close() error {
	g.cancel()
	select {
	case <-g.ended:
	case <-time.After(patience):
		return errors.New("the engine does not stop")
	}
	return errors.Join(g.engine.Close(), g.hw.ram.Close())
}

// load fills RAM with everything but cases.
func (g *guest) load() error {
	le := binary.LittleEndian
	ram := g.hw.ram
	t := pageTables{ram: ram, next: gpTables + pageSize}
	const user, rw, nx = x86.PTEUser, x86.PTEWrite, x86.PTENX
	errs := []error{
		t.mapPages(gpGDT, gpGDT, (gpCode-gpGDT)/pageSize, rw),
		t.mapPages(codePage, gpCode, codePages, user),
		t.mapPages(userProgram, gpProgram, 1, user),
		t.mapPages(userRecord, gpRecord, 1, user|rw|nx),
		t.mapPages(userResult, gpResult, 1, user|rw|nx),
		t.mapPages(userResult+0x1000, gpStack, 1, user|nx),
		t.mapPages(userCodeWrite, gpCode, codePages, user|rw|nx),
	}
	for _, base := range []uint64{lowData, highData} {
		errs = append(errs, t.mapPages(base, gpData, 2, user|rw|nx),
			t.mapPages(base+readOnlyPage, gpData+readOnlyPage, 1, user|nx),
			t.mapPages(base+supervisor, gpSuper, 1, rw|nx))
	}
	put := func(at uint64, b []byte) { errs = append(errs, ram.Write(at, b)) }
	put(gpGDT, words(0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff))
	put(gpTSS+4, words(stackTop))       // RSP0
	put(gpTSS+0x66, []byte{0xff, 0xff}) // no map of permitted ports (SDM volume 1, 19.5.2)
	put(gpProgram, program)
	frame := func(at, rip, rsp uint64) { put(at, words(rip, userCode, fixedFlags, rsp, userData)) }
	frame(gpReturn, userStore, userResult+resultGPR)
	frame(gpBegin, userLoad, userResult+resultGPR)
	for v := range uint8(vectors) {
		at := uint32(gpStubs + stubSize*int(v))
		var gate [16]byte
		le.PutUint16(gate[0:], uint16(at))
		le.PutUint16(gate[2:], kernelCode)
		gate[5] = 0x8e // interrupt gate, present, DPL 0 (SDM volume 3, 6.14.1)
		if v == vectorBP {
			gate[5] |= 3 << 5
		}
		put(gpIDT+16*uint64(v), gate[:])
		put(uint64(at), stub(v))
	}
	put(stubExit, append([]byte{0xe6, donePort}, iretFrom(gpBegin)...)) // out donePort, al
	put(gpCode, slices.Repeat([]byte{0xcc}, codePages*pageSize))
	put(gpData+readOnlyPage, readOnly[:])
	put(gpResult+resultPhase, words(stubExit))
	for _, s := range []struct {
		p     *[]byte
		at, n uint64
	}{{&g.record, gpRecord, pageSize}, {&g.result, gpResult, pageSize}, {&g.noted, gpNoted, 16},
		{&g.data, gpData, dataSize}} {
		b, err := ram.Slice(s.at, s.n)
		*s.p, errs = b, append(errs, err)
	}
	return errors.Join(errs...)
}

// readOnly is what the read-only page holds.
var readOnly = func() (b [pageSize]byte) {
	for i := range b {
		b[i] = byte(i*7 ^ i>>8)
	}
	return b
}()

// initialState is a CPU that is about to ask for its first case.
func initialState() *x86.State {
	s := x86.PowerOn(1)
	c := &s.CPUs[0]
	c.LongMode(gpTables, 3)
	c.CR4 |= x86.CR4FSGSBASE
	c.RFLAGS = fixedFlags
	for i := range c.Seg {
		c.Seg[i].Selector = userData
	}
	c.Seg[x86.CS].Selector = userCode
	c.RIP = userExit
	c.GDT = x86.Table{Base: gpGDT, Limit: 7*8 - 1}
	c.IDT = x86.Table{Base: gpIDT, Limit: vectors*16 - 1}
	c.TR.Base = gpTSS
	return s
}

// Read answers nothing: the loop only writes.
func (g *guest) Read(uint64, []byte) {}

// Write is the end of a case. It returns when the next one is there.
func (g *guest) Write(uint64, []byte) {
	select {
	case g.done <- struct{}{}:
	case <-g.over:
		return
	}
	select {
	case <-g.next:
	case <-g.over:
	}
}

// wait waits for the end of a case.
func (g *guest) wait() error {
	select {
	case <-g.done:
		return nil
	default:
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-g.done:
		return nil
	case err := <-g.ended:
		g.ended <- err
		return fmt.Errorf("the engine ended: %w", err)
	case <-t.C:
		return fmt.Errorf("it does not end within %v", patience)
	}
}

// run runs one case. After an error it has a new machine.
func (g *guest) run(c *testCase, r *result) error {
	le := binary.LittleEndian
	for i, reg := range popped {
		le.PutUint64(g.record[8*i:], c.before.GPR[reg])
	}
	for i, v := range []uint64{c.before.RIP, userCode, c.before.RFLAGS, c.before.GPR[x86.RSP], userData} {
		le.PutUint64(g.record[recordFrame+8*i:], v)
	}
	to := c.before.RIP - codePage + userCodeWrite
	le.PutUint64(g.record[recordErase:], g.erase)
	le.PutUint64(g.record[recordTo:], to)
	// What does not fit on the pages is where nothing is mapped.
	n := min(uint64(len(c.code)), userCodeWrite+codePages*pageSize-to)
	le.PutUint64(g.record[recordLength:], n)
	g.erase = min(to, userCodeWrite+codePages*pageSize-maxCode)
	le.PutUint64(g.record[recordFS:], c.before.FSBase)
	le.PutUint64(g.record[recordGS:], c.before.GSBase)
	copy(g.record[recordCode:], c.code)
	copy(g.record[recordFPU:], c.before.FPU[:])
	copy(g.data, c.memory[:])
	copy(g.result[resultFPU:], c.before.FPU[:]) // FXSAVE leaves some bytes
	g.next <- struct{}{}
	if err := g.wait(); err != nil {
		return errors.Join(err, g.close(), g.start())
	}
	for i, reg := range popped {
		r.GPR[reg] = le.Uint64(g.result[resultGPR-15*8+8*i:])
	}
	r.vector = g.noted[0]
	r.code, r.cr2 = 0, 0
	if hasCode(r.vector) {
		r.code = le.Uint32(g.result[resultFrame:])
	}
	if r.vector == vectorPF {
		r.cr2 = le.Uint64(g.noted[8:])
	}
	r.RIP, r.RFLAGS, r.GPR[x86.RSP] = le.Uint64(g.result[resultFrame+8:]), le.Uint64(g.result[resultFrame+24:]), le.Uint64(g.result[resultFrame+32:])
	r.FSBase, r.GSBase = le.Uint64(g.result[resultFS:]), le.Uint64(g.result[resultGS:])
	copy(r.FPU[:], g.result[resultFPU:])
	copy(r.memory[:], g.data)
	return nil
}
