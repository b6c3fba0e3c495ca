/* SPDX-License-Identifier: MIT */
/*
 * The FIFO as its manual has it (docs/hardware.md), and how the tests use it.
 * They know nothing else of the device.
 */
#ifndef BARE_FIFO_H
#define BARE_FIFO_H

#include "bare.h"

#define FIFO		0xf1f01234	/* its device and vendor ID */
#define FIFO_BAR_SIZE	0x20000
#define FIFO_CHANNELS	2		/* the tests want */
#define FIFO_VECTORS	(1 + 2 * FIFO_CHANNELS)

/* Global registers. */
#define FIFO_ID		0x00
#define FIFO_VERSION	0x04
#define FIFO_CAPS	0x08
#define FIFO_MAX_LENGTH	0x0c
#define FIFO_CONTROL	0x10
#define FIFO_STATUS	0x14
#define FIFO_SCRATCH	0x18
#define FIFO_DEPTH	0x1c
#define FIFO_IRQ_CAUSE	0x20
#define FIFO_IRQ_ENABLE	0x24
#define FIFO_ERROR_CAUSE	0x28
#define FIFO_TIME	0x30
#define FIFO_VECTOR	0x38

#define FIFO_IS		0x4f464946	/* "FIFO" */
#define FIFO_ENABLE	(1 << 0)
#define FIFO_RESET	(1u << 31)
#define FIFO_READY	(1 << 0)
#define FIFO_ERROR	(1 << 1)

#define ERROR_PARITY	(1 << 0)
#define ERROR_ACCESS	(1 << 1)
#define ERROR_DMA	(1 << 2)
#define ERROR_DESCRIPTOR	(1 << 3)
#define ERROR_OVERRUN	(1 << 4)

/* A channel's. */
#define CHANNEL(c)	(0x1000 * (1 + (c)))
#define CH_FILL		0x00
#define CH_END		0x04
#define CH_CONTROL	0x08
#define CH_OVERRUN	0x0c
#define CH_MISMATCHES	0x10
#define CH_TX_BYTES	0x20
#define CH_RX_BYTES	0x28
#define CH_TX_REQUESTS	0x30
#define CH_RX_REQUESTS	0x38

#define END_LOOPBACK	0
#define END_SOURCE	1
#define END_SINK	2
#define CH_FLUSH	(1 << 0)
#define CH_BAD_PARITY	(1 << 1)

/* A ring's. */
#define RING_CONTROL	0x00
#define RING_STATUS	0x04
#define RING_BASE	0x08
#define RING_SIZE	0x10
#define RING_HEAD	0x14
#define RING_TAIL	0x18
#define RING_COMP	0x20
#define RING_COMP_SIZE	0x28
#define RING_COMP_HEAD	0x2c
#define RING_COMP_TAIL	0x30
#define RING_COALESCE	0x34
#define RING_THRESHOLD	0x38
#define RING_ABORT	0x40
#define RING_ABORT_STATUS	0x48
#define RING_ERROR_INDEX	0x4c
#define RING_VECTOR	0x50
#define RING_ERROR_ADDRESS	0x58

#define RING_RUN	(1 << 0)
#define RING_DRAIN	(1 << 1)
#define RING_RESET	(1u << 31)

#define RING_STOPPED	0
#define RING_RUNNING	1
#define RING_DRAINING	2
#define RING_FAILED(why)	(3 | (why) << 8)

#define ABORT_DONE	1
#define ABORT_NOT_FOUND	2
#define ABORT_PENDING	3

/* A completion's status, and why a ring has failed. */
#define DONE_OK		0
#define DONE_ABORTED	1
#define DONE_DESCRIPTOR	2
#define DONE_DMA	3
#define DONE_PARITY	4
#define DONE_DRAINED	5
#define DONE_COMPLETION	6
#define DONE_NOT_MASTER	7

#define DESC_MORE	(1 << 0)
#define DESC_INTERRUPT	(1 << 1)

struct bare_descriptor {
	u64 address;
	u32 length, flags;
	u64 cookie, reserved;
};

struct bare_completion {
	u64 cookie, done, residual;
	u16 status, head;
	u32 phase;
};

/* A ring, as its driver has it. */
struct bare_ring {
	u32 regs, bell, release;	/* where its registers and doorbells are */
	u32 vector;
	struct bare_descriptor *descriptors;
	volatile struct bare_completion *completions;
	u32 mask, head, tail;		/* of descriptors */
	u32 comp_mask, taken, phase;	/* of completions */
};

#define BARE_RING_LOG	5		/* the largest that there is memory for */

#define TX(channel)	(&bare_rings[2 * (channel)])
#define RX(channel)	(&bare_rings[2 * (channel) + 1])

/* fifo.c */
extern struct bare_ring bare_rings[2 * FIFO_CHANNELS];
extern u8 bare_source[BARE_PAGE], bare_target[BARE_PAGE];
extern u32 bare_fifo;		/* the function */

u32 bare_fifo_read(u32 reg);
void bare_fifo_write(u32 reg, u32 v);
u64 bare_fifo_read64(u32 reg);
u32 bare_ring_read(const struct bare_ring *r, u32 reg);
void bare_ring_write(const struct bare_ring *r, u32 reg, u32 v);
void bare_map_fifo(void);
void bare_start_ring(struct bare_ring *r, u32 log, u32 comp_log);
void bare_start_fifo(void);
void bare_post(struct bare_ring *r, u64 address, u32 length, u32 flags, u64 cookie);
void bare_ring_bell(const struct bare_ring *r);
void bare_request(struct bare_ring *r, const void *at, u32 length, u64 cookie);
bool bare_arrived(const void *ring);
bool bare_take(struct bare_ring *r, struct bare_completion *c);
bool bare_took(const char *name, struct bare_ring *r, u64 cookie, u64 done, u64 residual, u32 status);
bool bare_same(const void *a, const void *b, u32 n);
bool bare_loops(const char *name, u32 channel, u32 length);
bool bare_becomes(u32 reg, u32 v);
bool bare_ring_becomes(const struct bare_ring *r, u32 status);
void bare_test_function(void);
void bare_test_registers(void);
void bare_test_data(void);

/* msix.c */
void bare_init_msix(void);
void bare_enable_msix(void);
void bare_disable_msix(void);
u64 bare_interrupts(void);
bool bare_pends(u32 n);
bool bare_wait_vector(u32 n, u32 count);
void bare_test_msix(void);
void bare_test_coalescing(void);
void bare_test_fifo_pin(void);

/* stop.c */
void bare_test_stops(void);
void bare_test_errors(void);
void bare_test_resets(void);

#endif
