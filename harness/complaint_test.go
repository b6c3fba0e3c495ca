package harness

import "testing"

// What kernels print, with the time stamp that stands before it.
func TestComplaints(t *testing.T) {
	for _, line := range []string{
		"WARNING: CPU: 0 PID: 71 at drivers/pci/msi/msi.c:423 pci_msi_shutdown+0x1/0x2",
		"WARNING: possible circular locking dependency detected",
		"WARNING: possible recursive locking detected",
		"WARNING: inconsistent lock state",
		"WARNING: suspicious RCU usage",
		"WARNING: lock held when returning to user space!",
		"INFO: trying to register non-static key.",
		"BUG: unable to handle page fault for address: ffffc90000205000",
		"BUG: kernel NULL pointer dereference, address: 0000000000000008",
		"BUG: KASAN: slab-use-after-free in fifo_request_put+0x20/0x80 [fifo_aio]",
		"BUG: KFENCE: use-after-free read in fifo_poll+0x20/0x80 [fifo_aio]",
		"BUG: sleeping function called from invalid context at kernel/locking/mutex.c:585",
		"BUG: scheduling while atomic: fifo_io/71/0x00000002",
		"BUG: Bad page state in process fifo_io  pfn:0137c",
		"BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 32s!",
		"BUG: spinlock bad magic on CPU#0, fifo_io/71",
		"BUG kmalloc-256 (Tainted: G           O      ): Poison overwritten",
		"BUG fifo_request (Not tainted): Objects remaining in fifo_request on __kmem_cache_shutdown()",
		"watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [fifo_io:71]",
		"watchdog: Watchdog detected hard LOCKUP on cpu 0",
		"rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
		"rcu: INFO: rcu_sched self-detected stall on CPU",
		"rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-.... } 21 jiffies s: 13 root: 0x1/.",
		"INFO: task fifo_io:71 blocked for more than 120 seconds.",
		"Oops: 0000 [#1] PREEMPT SMP KASAN NOPTI",
		"Oops: general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] PREEMPT SMP",
		"general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP",
		"divide error: 0000 [#1] PREEMPT SMP",
		"kernel BUG at lib/list_debug.c:29!",
		"---[ end trace 0000000000000000 ]---",
		"UBSAN: array-index-out-of-bounds in ring.c:12:9",
		"UBSAN: shift-out-of-bounds in ring.c:12:9",
		"BUG: KCSAN: data-race in fifo_poll / fifo_complete",
		"DMA-API: fifo_aio 0000:00:02.0: device driver frees DMA memory with different size [device address=0x0000000001370000] [map size=4096 bytes] [unmap size=8192 bytes]",
		"DMA-API: pci 0000:00:02.0: device driver has pending DMA allocations while released from device [count=1]",
		"DMA-API: fifo_aio 0000:00:02.0: device driver failed to check map error[device address=0x0000000001370000] [size=4096 bytes] [mapped as page]",
		"DMA-API: debugging out of memory - disabling",
		"ODEBUG: free active (active state 0) object: ffff888001234567 object type: timer_list hint: fifo_timeout+0x0/0x10 [fifo_aio]",
		"list_add corruption. prev->next should be next (ffff888001234567), but was ffff888001234560. (prev=ffff888001234568).",
		"list_del corruption, ffff888001234567->next is LIST_POISON1 (dead000000000100)",
		"kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
		"irq 18: nobody cared (try booting with the \"irqpoll\" option)",
		"__common_interrupt: 0.35 No irq handler for vector",
		"genirq: Flags mismatch irq 18. 00000000 (fifo_aio) vs. 00000080 (edu)",
		"sysfs: cannot create duplicate filename '/class/fifo/fifo0'",
		"unchecked MSR access error: RDMSR from 0x123 at rIP: 0xffffffff81000000 (do+0x1/0x2)",
	} {
		if s := watch([]byte("[    1.234567] "+line+"\r\n"), whole); s.Complaint == "" {
			t.Errorf("not taken for a complaint: %s", line)
		}
	}
	for _, line := range []string{
		"fifo_aio: loading out-of-tree module taints kernel.",
		"fifo_aio 0000:00:02.0: channel 0, tx: request 12 timed out; aborting it",
		"fifo_aio 0000:00:02.0: the device has gone",
		"DMA-API: preallocated 65536 debug entries",
		"DMA-API: debugging enabled by kernel config",
		"FAULT_INJECTION: forcing a failure.",
		"fifo_memory: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), nodemask=(null)",
		"kmemleak: Kernel memory leak detector initialized (mem pool available: 15679)",
		"pci 0000:00:02.0: not ready 1023ms after FLR; waiting",
		"rcu: Hierarchical RCU implementation.",
	} {
		if s := watch([]byte("[    1.234567] "+line+"\r\n"), whole); s.Complaint != "" {
			t.Errorf("taken for a complaint: %s", line)
		}
	}
}
