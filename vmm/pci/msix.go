package pci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// The MSI-X capability and its structures in memory (PCI Local Bus 3.0, 6.8.2).
const (
	capIDMSIX         = 0x11
	msixControl       = 0x02
	msixTable         = 0x04
	msixPending       = 0x08
	msixEnable        = 1 << 15
	msixMaskAll       = 1 << 14
	entrySize         = 16
	entryAddress      = 0 // in words of 32 bits
	entryAddressHigh  = 1
	entryData         = 2
	entryControl      = 3
	entryWords        = 4
	entryMasked       = 1 << 0
	entryAddressFlags = 3 // read as zero

	maxMSIX = 2048
)

// structureAlign keeps the pending bits out of the table's pages, as the
// specification recommends.
const structureAlign = 4096

// pendingOffset is where the pending bits are in the BAR, behind the table.
func pendingOffset(vectors int) uint64 {
	return (uint64(vectors)*entrySize + structureAlign - 1) &^ (structureAlign - 1)
}

// tableBARSize is the size of the BAR of the table and the pending bits.
func tableBARSize(vectors int) uint64 {
	return 1 << bits.Len64(pendingOffset(vectors)+structureAlign-1)
}

func (e *Endpoint) addMSIX(pointer int) int {
	n := e.id.MSIX
	if n == 0 {
		return pointer
	}
	e.msix = msix{table: make([]uint32, entryWords*n), pending: make([]uint64, (n+63)/64)}
	e.Set(capMSIX+msixControl, 2, uint64(n-1))
	e.Allow(capMSIX+msixControl, 2, msixEnable|msixMaskAll, 0)
	e.Set(capMSIX+msixTable, 4, uint64(e.id.MSIXBAR))
	e.Set(capMSIX+msixPending, 4, pendingOffset(n)|uint64(e.id.MSIXBAR))
	return e.addCapability(pointer, capMSIX, capIDMSIX)
}

func (e *Endpoint) msixEnabled() bool {
	return e.id.MSIX != 0 && e.Get(capMSIX+msixControl, 2)&msixEnable != 0
}

func (e *Endpoint) raiseMSIX(vector int) {
	if vector >= e.id.MSIX {
		return
	}
	e.msix.pending[vector/64] |= 1 << (vector % 64)
	e.settleMSIX()
}

// settleMSIX sends what is pending and not held back, by vector.
func (e *Endpoint) settleMSIX() {
	x := &e.msix
	if len(x.pending) == 0 {
		return
	}
	if !e.msixEnabled() {
		clear(x.pending)
		return
	}
	if !e.Master() || e.Get(capMSIX+msixControl, 2)&msixMaskAll != 0 {
		return
	}
	for i := range x.pending {
		for left := x.pending[i]; left != 0; left &= left - 1 {
			n := bits.TrailingZeros64(left)
			entry := x.table[entryWords*(64*i+n):]
			if entry[entryControl]&entryMasked != 0 {
				continue
			}
			x.pending[i] &^= 1 << n
			e.backend.SendMessage(uint64(entry[entryAddressHigh])<<32|uint64(entry[entryAddress]), entry[entryData])
		}
	}
}

// msix is the table and the pending bits.
type msix struct {
	table   []uint32
	pending []uint64
}

// reset masks all vectors.
func (x *msix) reset() {
	clear(x.table)
	for i := entryControl; i < len(x.table); i += entryWords {
		x.table[i] = entryMasked
	}
	clear(x.pending)
}

// read answers the guest: zero where there is nothing.
func (x *msix) read(off uint64, data []byte) {
	pending := pendingOffset(len(x.table) / entryWords)
	for i := range data {
		switch o := off + uint64(i); {
		case o < uint64(4*len(x.table)):
			data[i] = byte(x.table[o/4] >> (8 * (o % 4)))
		case o >= pending && o-pending < uint64(8*len(x.pending)):
			data[i] = byte(x.pending[(o-pending)/8] >> (8 * ((o - pending) % 8)))
		default:
			data[i] = 0
		}
	}
}

// write takes aligned words and pairs of them; what the specification leaves
// undefined, narrower writes and others, is lost. The pending bits are
// read-only.
func (x *msix) write(off uint64, data []byte) {
	if len(data) < 4 || off%uint64(len(data)) != 0 {
		return
	}
	for ; len(data) > 0; off, data = off+4, data[4:] {
		i := off / 4
		if i >= uint64(len(x.table)) {
			return
		}
		x.table[i] = binary.LittleEndian.Uint32(data) & tableWritable(int(i))
	}
}

// tableWritable is what can be written of a word of the table.
func tableWritable(i int) uint32 {
	switch i % entryWords {
	case entryAddress:
		return ^uint32(entryAddressFlags)
	case entryControl:
		return entryMasked
	}
	return ^uint32(0)
}

// MSIXState is the table, four words for each vector, and the pending bits.
type MSIXState struct {
	Table   []uint32
	Pending []uint64
}

func (x *msix) state() MSIXState {
	return MSIXState{Table: slices.Clone(x.table), Pending: slices.Clone(x.pending)}
}

func (x *msix) setState(s MSIXState) error {
	if len(s.Table) != len(x.table) || len(s.Pending) != len(x.pending) {
		return fmt.Errorf("state has an MSI-X table of %d words, want %d", len(s.Table), len(x.table))
	}
	for i, v := range s.Table {
		if v&^tableWritable(i) != 0 {
			return fmt.Errorf("state has %#x in word %d of the MSI-X table", v, i)
		}
	}
	if n := len(s.Table) / entryWords % 64; n != 0 && s.Pending[len(s.Pending)-1]>>n != 0 {
		return errors.New("state has MSI-X vectors pending that there are not")
	}
	copy(x.table, s.Table)
	copy(x.pending, s.Pending)
	return nil
}
