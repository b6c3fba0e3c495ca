//go:build linux && amd64

package main

import (
	"encoding/binary"
	"os"
	"slices"
	"unsafe"

	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

// The guest's memory and devices.
const (
	ramSize   = 256 << 10
	tables    = 0x1_0000 // 4 GiB onto themselves
	gdt       = 0x2_0000
	idt       = 0x2_1000
	handler   = 0x2_3000
	code      = 0x3_0000
	stack     = 0x4_0000
	gdtLimit  = 4*8 - 1
	idtLimit  = 256*16 - 1
	window    = 0xd000_0000 // the device's registers
	doorbell  = window + 0x1000
	port      = 0x30 // the device's
	startPort = 0x40 // the measurement starts
	endPort   = 0x50 // and ends
	msiPort   = 0x60 // raises the next MSI
	vector    = 0x51
	localAPIC = 0xfee0_0000

	endOfInterrupt = localAPIC + 0xb0
)

// kind is what a round of the guest does.
type kind struct {
	name    string
	program []byte // RCX is the rounds, RBX is at, RDX the doorbell
	handler []byte // of the interrupt
	at      uint64
	rings   bool // the doorbell raises the interrupt
}

// loop measures body, RCX times.
func loop(body ...byte) []byte {
	return slices.Concat(
		[]byte{0xe6, startPort},            //       out startPort, al
		body,                               // loop:
		[]byte{0x48, 0xff, 0xc9},           //       dec rcx
		[]byte{0x75, byte(-len(body) - 5)}, //       jnz loop
		[]byte{0xe6, endPort, 0xeb, 0xfe})  //       out endPort, al; jmp
}

// kinds are what is measured. An MSI's handler ends the interrupt and writes to
// a port, upon which the host raises the next. In a kick it writes to the
// doorbell, whose reader raises the next: the whole way of a request to a
// device's thread and back.
var kinds = []kind{
	{name: "pio_write", program: loop(0xe7, port)},              // out port, eax
	{name: "mmio_write", program: loop(0x89, 0x03), at: window}, // mov [rbx], eax
	{name: "mmio_read", program: loop(0x8b, 0x03), at: window},  // mov eax, [rbx]
	{name: "doorbell", program: loop(0x89, 0x03), at: doorbell}, // mov [rbx], eax
	{name: "msi", program: idle(0xe6, msiPort), at: endOfInterrupt, // out msiPort, al
		handler: handle(0xe6, msiPort)},
	{name: "kick", program: idle(0x89, 0x02), at: endOfInterrupt, // mov [rdx], eax
		handler: handle(0x89, 0x02), rings: true},
}

// idle does first and then waits for interrupts.
func idle(first ...byte) []byte {
	return slices.Concat(
		[]byte{0xe6, startPort},        //       out startPort, al
		first,                          //
		[]byte{0xfb, 0xf4, 0xeb, 0xfd}) // sti; loop: hlt; jmp loop
}

// handle ends the interrupt and does next, RCX times.
func handle(next ...byte) []byte {
	return slices.Concat(
		[]byte{0xc7, 0x03, 0, 0, 0, 0},    //       mov dword [rbx], 0
		[]byte{0x48, 0xff, 0xc9},          //       dec rcx
		[]byte{0x74, byte(len(next)) + 2}, //       jz end
		next,                              //
		[]byte{0x48, 0xcf},                //       iretq
		[]byte{0xe6, endPort, 0xeb, 0xfe}) // end:  out endPort, al; jmp
}

// image fills RAM.
func image(ram *memory.RAM, k *kind) error {
	le := binary.LittleEndian
	b, err := ram.Slice(0, ramSize)
	if err != nil {
		return err
	}
	copy(b[tables:], x86.IdentityMap(tables, 4, false))
	le.PutUint64(b[gdt+0x10:], 0x00af_9b00_0000_ffff)
	le.PutUint64(b[gdt+0x18:], 0x00cf_9300_0000_ffff)
	gate := b[idt+16*vector:]
	le.PutUint16(gate, handler&0xffff)
	le.PutUint16(gate[2:], x86.SelectorCode)
	gate[5] = 0x8e // 64-bit interrupt gate, present
	le.PutUint16(gate[6:], handler>>16)
	copy(b[handler:], k.handler)
	copy(b[code:], k.program)
	return nil
}

// state is that in which the guest starts.
func state(k *kind, rounds uint64) *x86.State {
	s := x86.PowerOn(1)
	c := &s.CPUs[0]
	c.LongMode(tables, 0)
	c.RIP, c.GPR[x86.RSP], c.GPR[x86.RBX], c.GPR[x86.RCX], c.GPR[x86.RDX] = code, stack, k.at, rounds, doorbell
	c.GDT = x86.Table{Base: gdt, Limit: gdtLimit}
	c.IDT = x86.Table{Base: idt, Limit: idtLimit}
	binary.LittleEndian.PutUint32(c.LAPIC[0xf0:], 0x1ff) // enabled by software
	return s
}

// params is struct params of loop.c.
type params struct {
	ramSize, rounds                                                             uint64
	rip, rsp, rbx, cr0, cr3, cr4, efer, gdt, gdtLimit, idt, idtLimit            uint64
	startPort, endPort, msiPort, doorbell, msiAddress, msiData, rings, cpuidLen uint64
	cpuid                                                                       [64]struct {
		function, index, flags, eax, ebx, ecx, edx uint32
		_                                          [3]uint32
	}
}

const headerSize = 16384

// writeFile writes for the C program what the Go side is given in memory.
func writeFile(name string, k *kind, rounds uint64, tscKHz uint32) error {
	ram, err := memory.New(ramSize)
	if err != nil {
		return err
	}
	defer ram.Close()
	if err := image(ram, k); err != nil {
		return err
	}
	c := &state(k, rounds).CPUs[0]
	p := &params{ramSize: ramSize, rounds: rounds, rip: c.RIP, rsp: c.GPR[x86.RSP], rbx: c.GPR[x86.RBX],
		cr0: c.CR0, cr3: c.CR3, cr4: c.CR4, efer: c.EFER, gdt: gdt, gdtLimit: gdtLimit, idt: idt, idtLimit: idtLimit,
		startPort: startPort, endPort: endPort, msiPort: msiPort, doorbell: doorbell, msiAddress: localAPIC, msiData: vector}
	if k.rings {
		p.rings = 1
	}
	for i, l := range x86.CPUID(0, 1, tscKHz) {
		e := &p.cpuid[i]
		e.function, e.index, e.eax, e.ebx, e.ecx, e.edx = l.Function, l.Index, l.EAX, l.EBX, l.ECX, l.EDX
		if l.HasIndex {
			e.flags = 1
		}
		p.cpuidLen++
	}
	b := make([]byte, headerSize)
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(p)), unsafe.Sizeof(*p)))
	bytes, err := ram.Slice(0, ramSize)
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, bytes...), 0o600)
}
