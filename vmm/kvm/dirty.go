//go:build linux && amd64

package kvm

import (
	"fmt"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"

	"fifovm/vmm/memory"
	"fifovm/vmm/x86"
)

// dirtyLog is struct kvm_dirty_log.
type dirtyLog struct {
	slot, _ uint32
	bitmap  *uint64 // a pointer here so that the collector sees it
}

var ioGetDirtyLog = kvm.IIOW(0x42, unsafe.Sizeof(dirtyLog{}))

const logDirtyPages = 1 << 0 // KVM_MEM_LOG_DIRTY_PAGES

// TrackRAM has KVM note which pages the guest writes to.
func (e *Engine) TrackRAM() error {
	e.logs = nil
	for i := range e.slots {
		s := &e.slots[i]
		s.Flags = logDirtyPages
		if err := kvm.SetUserMemoryRegion(uintptr(e.vm), s); err != nil {
			return fmt.Errorf("kvm: have the pages at %#x noted that are written to: %w", s.GuestPhysAddr, err)
		}
		// KVM writes whole words (virt/kvm/kvm_main.c, kvm_dirty_bitmap_bytes).
		e.logs = append(e.logs, make([]uint64, (s.MemorySize/memory.PageSize+63)/64))
	}
	return nil
}

// Rewind makes the RAM its base's again and replaces the state.
func (e *Engine) Rewind(s *x86.State) error {
	if e.logs == nil {
		return fmt.Errorf("kvm: no base to go back to")
	}
	for i, log := range e.logs {
		d := &dirtyLog{slot: e.slots[i].Slot, bitmap: &log[0]}
		if _, err := ioctl(e.vm, ioGetDirtyLog, unsafe.Pointer(d)); err != nil {
			return fmt.Errorf("kvm: get the pages that were written to: %w", err)
		}
		e.cfg.RAM.MarkLog(i, log)
	}
	if err := e.cfg.RAM.Reset(); err != nil {
		return err
	}
	return e.SetState(s)
}
