package harness

import "regexp"

// complaints are the kernel's own words for "something is wrong with me". A
// test during which one of them is logged has failed, whatever it says itself.
var complaints = regexp.MustCompile(`(?:` +
	`\bBUG: ` + // oopses, KASAN, sleeping in atomic context, soft lockups
	`|\bBUG \S+ \(.*\): ` + // objects of a slab: poison overwritten, still there
	`|\bWARNING: ` + // WARN, lockdep, refcounts
	`|\bOops\b` +
	`|: [0-9a-f]{4} \[#\d+\]` + // the head of any other exception in the kernel
	`|---\[ end trace ` +
	`|\bkernel BUG at ` +
	`|\bgeneral protection fault\b` +
	`|\bUBSAN: ` +
	`|\bKCSAN: ` +
	`|\bDMA-API: .*(?:device driver|DMA-API error)` +
	`|\bDMA-API: debugging out of memory` + // and so off from there on
	`|\bINFO: trying to register non-static key` + // lockdep is off from there on
	`|\bhard LOCKUP\b` +
	`|\bINFO: task .* blocked for more than` +
	`|\bINFO: rcu\w* .*(?:stall|detected)` +
	`|\bunchecked MSR access error\b` +
	`|\bscheduling while atomic\b` +
	`|\birq \d+: nobody cared\b` +
	`|\bNo irq handler for vector\b` + // a device that was not made quiet
	`|\bgenirq: Flags mismatch\b` +
	`|\bsysfs: cannot create duplicate filename\b` +
	`|\blist_(?:add|del) corruption\b` +
	`|\bkmemleak: \d+ new suspected memory leaks\b` +
	`|\bODEBUG: ` +
	`)`)

// Complaint is the first line in which the kernel complained, empty if none.
func (c *Console) Complaint() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.complaint
}

// judge looks at a whole line. The caller holds the lock.
func (c *Console) judge(line []byte) {
	if c.complaint == "" && complaints.Match(line) {
		c.complaint = string(line)
	}
}
