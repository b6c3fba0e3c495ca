/* SPDX-License-Identifier: GPL-2.0 */
/*
 * fifo_aio - the driver's own structures
 *
 * main.c	the PCI function: probe, interrupts, power, resets, removal
 * channel.c	a channel: its device, claims on its FIFO, readiness
 * file.c	the file operations
 * request.c	a read or a write: its memory, from submission to its end
 * ring.c	a ring: descriptors, completions, aborts, time
 * stats.c	what sysfs and debugfs show
 *
 * Locks, in the order in which they are taken:
 *	fifo_device.recovery	whole-device matters: resets, power
 *	fifo_ring.service	one at a time takes completions and ends requests
 *	fifo_ring.lock		all of a ring's state; taken with interrupts off, since
 *				kiocb's cancellation comes so
 * kiocb's ki_complete() is called without a ring's lock: it takes the lock under
 * which libaio cancels.
 *
 * A request is in one list of its ring at a time, or in none while it is
 * being made: queued, posted, done, finishing.
 */
#ifndef FIFO_H
#define FIFO_H

#include <linux/cdev.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/interrupt.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "fifo_aio.h"
#include "hw.h"

#define FIFO_NAME		"fifo_aio"
#define FIFO_MINORS		256

/* A request has this many bytes at most: it pins its memory. */
#define FIFO_MAX_REQUEST	(16UL << 20)
/* Pages of it: one more for a ragged end, and the pieces of a vector. */
#define FIFO_MAX_PAGES		(FIFO_MAX_REQUEST / PAGE_SIZE + 1 + UIO_MAXIOV)
/* Requests of so many pages need no memory but their own. */
#define FIFO_FEW_PAGES		3
/* How long a request that must not wait waits for the hardware, in ms. */
#define FIFO_NOWAIT_MS		100
/* Completions that are taken without giving up the lock. */
#define FIFO_TAKE_AT_ONCE	64
/* Resets of a ring, or of the device, without a good completion since: then the next step. */
#define FIFO_MAX_RESETS		2
/* So often two registers are read that must be of the same moment. */
#define FIFO_TRIES		8
/* So often a doorbell is rung again. */
#define FIFO_MAX_BELLS		2

/* Parameters of the module; main.c has them. */
extern unsigned int fifo_timeout_ms;
extern unsigned int fifo_abort_ms;
extern unsigned int fifo_wait_ms;
extern unsigned int fifo_queue_limit;

struct fifo_channel;
struct fifo_device;

/**
 * enum fifo_ring_state - what a ring does with requests
 * @FIFO_STOPPED: keeps them for later: a reset or suspend is under way
 * @FIFO_RUNNING: gives them to the hardware
 * @FIFO_FAILED: ends them with EIO: the hardware doesn't do its work
 * @FIFO_GONE: ends them with ENODEV
 */
enum fifo_ring_state {
	FIFO_STOPPED,
	FIFO_RUNNING,
	FIFO_FAILED,
	FIFO_GONE,
};

/**
 * struct fifo_ring - a descriptor ring, its completion ring, and its requests
 * @channel: that it is a part of
 * @write: it is the transmit ring
 * @regs: its registers
 * @tail_bell: doorbell for descriptors
 * @comp_bell: doorbell for completions
 * @cause: its bit in IRQ_CAUSE
 * @entries: of both rings; a power of two
 * @desc: descriptors
 * @comp: completions
 * @desc_dma: address of @desc
 * @comp_dma: address of @comp
 * @interrupts: that came for it
 * @service: see above
 * @work: takes completions and ends requests, where no interrupt will
 * @watch: does so when time is up, and looks after what is stuck
 * @lock: protects all that follows
 * @state: what becomes of requests
 * @error: the hardware has reported an error, or memory is not as it should be
 * @blamed: a completion told which request had the error
 * @head: of the descriptors: the first that the hardware still needs
 * @tail: behind the last that it has
 * @comp_head: index of the next completion
 * @phase: that it will have
 * @cookie: of the last request
 * @requests: that were accepted and have not ended
 * @claimed: bytes that they want
 * @moved: bytes that were moved as far as completions told, in the hardware's count
 * @queued: requests that are not with the hardware, in order
 * @posted: requests that are, in order
 * @done: requests that are over, but for telling
 * @finishing: requests whose memory is being given back
 * @aborting: what the hardware was asked to abort
 * @abort_until: when it must have done so, in jiffies
 * @abort_blocked: the hardware is still at an earlier one
 * @aborts_wanted: there are requests to abort
 * @notify: level that the hardware was asked to tell of; 0: none
 * @notify_until: when it is looked whether it forgot to
 * @signalled: SIGIO was sent for the present readiness
 * @watching: @watch will run
 * @watch_at: when, in jiffies
 * @look_at: when to look whether @posted's first request is stuck
 * @look_done: completions at the last look
 * @look_bytes: bytes moved at the last look
 * @looked: the last look found work that the hardware could do
 * @bells: that were rung again since the last completion
 * @stuck: the first request timed out: aborting it may not be enough
 * @completions: that were taken
 * @resets: since the last good completion
 * @coalesce: value of COALESCE
 * @stats: for sysfs
 */
struct fifo_ring {
	struct fifo_channel *channel;
	bool write;
	void __iomem *regs;
	void __iomem *tail_bell;
	void __iomem *comp_bell;
	u32 cause;
	u32 entries;
	struct fifo_descriptor *desc;
	struct fifo_completion *comp;
	dma_addr_t desc_dma;
	dma_addr_t comp_dma;
	atomic64_t interrupts;
	struct mutex service;		/* see above */
	struct work_struct work;
	struct delayed_work watch;

	spinlock_t lock;		/* see above */
	enum fifo_ring_state state;
	bool error;
	bool blamed;
	u32 head;
	u32 tail;
	u32 comp_head;
	u32 phase;
	u64 cookie;
	unsigned int requests;
	size_t claimed;
	u32 moved;
	struct list_head queued;
	struct list_head posted;
	struct list_head done;
	struct list_head finishing;
	struct fifo_request *aborting;
	unsigned long abort_until;
	bool abort_blocked;
	bool aborts_wanted;
	u32 notify;
	unsigned long notify_until;
	bool signalled;
	bool watching;
	unsigned long watch_at;
	unsigned long look_at;
	u64 look_done;
	u32 look_bytes;
	bool looked;
	unsigned int bells;
	bool stuck;
	u64 completions;
	unsigned int resets;
	u32 coalesce;
	struct fifo_aio_ring_stats stats;
};

/**
 * struct fifo_channel - a channel, and /dev/fifoN
 * @device: that has it
 * @index: its number there
 * @minor: N
 * @dev: in class fifo
 * @cdev: the character device
 * @regs: its registers
 * @tx: ring of writes
 * @rx: ring of reads
 * @threshold: bytes before a read begins; under @rx's lock
 * @wait: for readiness, and for requests to be over
 * @fasync: who gets SIGIO
 * @debugfs: its folder
 */
struct fifo_channel {
	struct fifo_device *device;
	int index;
	int minor;
	struct device dev;
	struct cdev cdev;
	void __iomem *regs;
	struct fifo_ring tx;
	struct fifo_ring rx;
	u32 threshold;
	wait_queue_head_t wait;
	struct fasync_struct *fasync;
	struct dentry *debugfs;
};

/**
 * struct fifo_vector - an interrupt
 * @device: that sends it
 * @causes: bits of IRQ_CAUSE that it stands for
 * @raised: causes that the pin was asserted for and that nobody looked at yet
 * @irq: Linux's number
 */
struct fifo_vector {
	struct fifo_device *device;
	u32 causes;
	atomic_t raised;
	int irq;
};

/**
 * struct fifo_device - the PCI function
 * @ref: held by the driver, and by each channel's device until the last file is closed
 * @pdev: valid until removal
 * @regs: BAR 0; valid until removal
 * @version: of the hardware
 * @depth: bytes of a FIFO
 * @max_length: bytes of a descriptor's buffer at most
 * @chain: descriptors of a chain at most
 * @vectors: number of interrupts
 * @vector: them
 * @unmapped: read-held by who uses @pdev to map memory; removal waits for them
 * @recovery: see above
 * @recover: resets the device
 * @removing: the driver is going away; written under @recovery
 * @suspended: the hardware sleeps; written under @recovery
 * @resets: of the device
 * @resets_in_a_row: since the last good completion
 * @logged: what was said once, by bit
 * @channels: number of channels
 * @channel: them
 */
struct fifo_device {
	struct kref ref;
	struct pci_dev *pdev;
	void __iomem *regs;
	u32 version;
	u32 depth;
	u32 max_length;
	u32 chain;
	int vectors;
	struct fifo_vector vector[FIFO_MAX_VECTORS];
	struct srcu_struct unmapped;
	struct mutex recovery;		/* see above */
	struct work_struct recover;
	bool removing;
	bool suspended;
	atomic64_t resets;
	atomic_t resets_in_a_row;
	unsigned long logged;
	int channels;
	struct fifo_channel channel[];
};

/* What is logged once for a device. */
enum fifo_logged {
	FIFO_LOGGED_INTERRUPT,
	FIFO_LOGGED_DOORBELL,
	FIFO_LOGGED_TIMEOUT,
	FIFO_LOGGED_ABORT,
	FIFO_LOGGED_RING,
	FIFO_LOGGED_ERROR,
	FIFO_LOGGED_OVERRUN,
};

#define fifo_warn_once(device, what, fmt, ...)						\
do {											\
	struct fifo_device *__d = (device);						\
											\
	if (!test_and_set_bit(what, &__d->logged))					\
		dev_warn(&__d->pdev->dev, fmt " (said once)\n", ##__VA_ARGS__);		\
} while (0)

/**
 * struct fifo_file - an open file
 * @channel: that it is of
 * @write_failed: since the last fsync; under the lock of @channel's tx
 */
struct fifo_file {
	struct fifo_channel *channel;
	bool write_failed;
};

/* Where a request is. */
enum fifo_request_state {
	FIFO_NEW,
	FIFO_QUEUED,
	FIFO_POSTED,
	FIFO_DONE,
};

/**
 * struct fifo_request - a read or a write
 * @node: in a list of the ring
 * @ring: that does it
 * @iocb: to complete; NULL if somebody waits for @finished
 * @finished: it has ended
 * @file: that it was made through, which it keeps open
 * @owner: whose it is: only compared
 * @pages: its memory
 * @npages: number of @pages
 * @pinned: @pages are pinned, by us
 * @sg: the same as a scatterlist
 * @nents: entries of @sg
 * @dma_nents: entries after mapping; 0: not mapped
 * @few_pages: @pages of a small request
 * @few_sg: @sg of a small request
 * @next_sg: what comes next, and
 * @next_offset: bytes of it that are done
 * @claim: bytes of the ring's claims that are its own
 * @size: bytes that it has memory for
 * @done: bytes that were moved
 * @chain_bytes: bytes that the hardware has
 * @chain_end: index behind their descriptors
 * @cookie: its name
 * @state: where it is
 * @nowait: it must not wait for the other side
 * @abort: it is to be aborted
 * @requeue: by suspend: it goes on later
 * @error: why it ended
 * @hard: the error counts more than the bytes
 * @expires: @deadline counts
 * @deadline: in jiffies
 */
struct fifo_request {
	struct list_head node;
	struct fifo_ring *ring;
	struct kiocb *iocb;
	struct completion finished;
	struct file *file;
	fl_owner_t owner;

	struct page **pages;
	unsigned int npages;
	bool pinned;
	struct scatterlist *sg;
	unsigned int nents;
	unsigned int dma_nents;
	struct page *few_pages[FIFO_FEW_PAGES];
	struct scatterlist few_sg[FIFO_FEW_PAGES];

	struct scatterlist *next_sg;
	size_t next_offset;
	size_t claim;
	size_t size;
	size_t done;
	size_t chain_bytes;
	u32 chain_end;
	u64 cookie;
	enum fifo_request_state state;
	bool nowait;
	bool abort;
	bool requeue;
	int error;
	bool hard;
	bool expires;
	unsigned long deadline;
};

/* main.c */
extern struct workqueue_struct *fifo_workqueue;
void fifo_device_get(struct fifo_device *fd);
void fifo_device_put(struct fifo_device *fd);
void fifo_device_recover(struct fifo_device *fd);
void fifo_device_lost_interrupt(struct fifo_device *fd);
int fifo_channel_reset(struct fifo_channel *ch);

/* channel.c */
int fifo_channel_init(void);
void fifo_channel_exit(void);
int fifo_channel_create(struct fifo_device *fd, int index, u32 entries);
int fifo_channel_add(struct fifo_channel *ch);
void fifo_channel_remove(struct fifo_channel *ch);
ssize_t fifo_claim(struct fifo_ring *ring, size_t want, bool nowait);
void fifo_unclaim(struct fifo_ring *ring, size_t bytes);
bool fifo_ready(struct fifo_ring *ring);
void fifo_tell(struct fifo_channel *ch);
void fifo_expect(struct fifo_channel *ch);
bool fifo_channel_fill(struct fifo_channel *ch, u32 *fill);

/* file.c */
extern const struct file_operations fifo_fops;

/* request.c */
int fifo_request_init(void);
void fifo_request_exit(void);
ssize_t fifo_transfer(struct kiocb *iocb, struct iov_iter *iter, struct fifo_ring *ring);
void fifo_request_advance(struct fifo_request *req, size_t bytes);
void fifo_request_end(struct fifo_request *req, int error, bool hard);
void fifo_request_cancel(struct fifo_request *req, int error);
void fifo_request_release(struct fifo_request *req);
void fifo_request_complete(struct fifo_request *req);
bool fifo_cancel_all(struct fifo_ring *ring, struct file *file, fl_owner_t owner);
bool fifo_has(struct fifo_ring *ring, struct file *file, fl_owner_t owner, u64 cookie);

/* ring.c */
int fifo_ring_create(struct fifo_ring *ring, u32 entries);
void fifo_ring_free(struct fifo_ring *ring);
bool fifo_ring_setup(struct fifo_ring *ring);
bool fifo_ring_run(struct fifo_ring *ring);
void fifo_ring_submit(struct fifo_ring *ring, struct fifo_request *req);
bool fifo_ring_service(struct fifo_ring *ring, bool interrupt);
void fifo_ring_kick(struct fifo_ring *ring);
void fifo_ring_abort(struct fifo_ring *ring);
void fifo_ring_watch_by(struct fifo_ring *ring, unsigned long when);
void fifo_ring_suspend(struct fifo_ring *ring);
void fifo_ring_fail(struct fifo_ring *ring, enum fifo_ring_state state, int error);
bool fifo_ring_halt(struct fifo_ring *ring);

/* stats.c */
extern const struct attribute_group *fifo_groups[];
void fifo_stats_init(void);
void fifo_debugfs_init(void);
void fifo_debugfs_exit(void);
void fifo_debugfs_add(struct fifo_channel *ch);

static inline u32 fifo_read(void __iomem *base, unsigned int offset)
{
	return readl(base + offset);
}

static inline void fifo_write(void __iomem *base, unsigned int offset, u32 value)
{
	writel(value, base + offset);
}

static inline void fifo_write64(void __iomem *base, unsigned int offset, u64 value)
{
	fifo_write(base, offset, lower_32_bits(value));
	fifo_write(base, offset + 4, upper_32_bits(value));
}

/* The bytes that a read waits for; under the ring's lock. */
static inline size_t fifo_read_needs(struct fifo_channel *ch, size_t room)
{
	return min_t(size_t, max_t(u32, 1, ch->threshold), room);
}

/* The hardware's count of bytes that were moved, its lower half. */
static inline u32 fifo_moved(struct fifo_ring *ring)
{
	return fifo_read(ring->channel->regs, ring->write ? FIFO_TX_BYTES : FIFO_RX_BYTES);
}

#endif /* FIFO_H */
