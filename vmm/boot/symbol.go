package boot

import (
	"debug/elf"

	"fifovm/vmm/symbols"
)

// Symbol names the function that a linear address of the guest is in, as
// "name+0x12", for reports; it is empty where the kernel's file has no symbols
// or none for that address. The kernel must be where it was linked for: without
// address space randomization.
func (k *Kernel) Symbol(addr uint64) string { return k.table().Symbol(addr) }

// Function is Symbol in its parts: the function, and how far in it the address is.
func (k *Kernel) Function(addr uint64) (name string, offset uint64, ok bool) {
	return k.table().Function(addr)
}

// Address gives the linear address of a function or variable of the kernel, by
// its name; ok is false where the kernel's file has none of that name.
func (k *Kernel) Address(name string) (addr uint64, ok bool) { return k.table().Address(name) }

func (k *Kernel) table() *symbols.Table {
	if k.symbols == nil {
		return nil
	}
	return k.symbols()
}

// readSymbols gives nil for a file without symbols, such as a bzImage.
func readSymbols(path string) *symbols.Table {
	f, err := elf.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close() // read only: closing cannot lose anything
	t, err := symbols.Read(f, symbols.Linked)
	if err != nil {
		return nil
	}
	return t
}
