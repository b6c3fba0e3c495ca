/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * fifo_aio - what a program can ask of /dev/fifoN besides reading and writing
 *
 * docs/driver.md says what the files do. All numbers are in the machine's byte
 * order; what is reserved reads as zero, and must be zero in what is given.
 */
#ifndef _UAPI_FIFO_AIO_H
#define _UAPI_FIFO_AIO_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct fifo_aio_info - what the channel is, and the state of its FIFO
 * @version: of the hardware: major in the upper half, minor in the lower
 * @channels: channels of the device
 * @channel: number of this one in its device
 * @ring_entries: descriptors of each ring; a ring holds one less
 * @max_segments: descriptors of a chain at most: pieces of contiguous memory
 *	that one read can fill
 * @depth: bytes that the FIFO holds
 * @fill: bytes that are in it now
 * @reserved: zero
 */
struct fifo_aio_info {
	__u32 version;
	__u32 channels;
	__u32 channel;
	__u32 ring_entries;
	__u32 max_segments;
	__u32 depth;
	__u32 fill;
	__u32 reserved;
};

/**
 * struct fifo_aio_ring_stats - what one direction has done since the driver
 *	took the device; the same numbers are in sysfs
 * @requests: that ended, in whatever way
 * @bytes: that they moved
 * @errors: requests that ended with -EIO or -ENODEV
 * @cancelled: requests that ended since somebody wanted them no more
 * @timeouts: requests that ended since their time was up
 * @aborts: that were asked of the hardware
 * @resets: of the ring
 * @interrupts: that were handled
 * @spurious: interrupts that had nothing to tell
 * @lost_interrupts: completions that the timeout found in memory
 * @doorbells: that had to be rung again
 */
struct fifo_aio_ring_stats {
	__u64 requests;
	__u64 bytes;
	__u64 errors;
	__u64 cancelled;
	__u64 timeouts;
	__u64 aborts;
	__u64 resets;
	__u64 interrupts;
	__u64 spurious;
	__u64 lost_interrupts;
	__u64 doorbells;
};

/**
 * struct fifo_aio_stats - the statistics of a channel
 * @tx: memory to FIFO: writes
 * @rx: FIFO to memory: reads
 */
struct fifo_aio_stats {
	struct fifo_aio_ring_stats tx;
	struct fifo_aio_ring_stats rx;
};

/**
 * struct fifo_aio_thresholds - when the hardware acts
 * @rx_bytes: that have to be in the FIFO before a read begins, if it has room
 *	for them; 0 and 1 are the same; @depth at most
 * @tx_count: completed writes an interrupt, 0 to 255; 0 and 1 are the same
 * @tx_us: longest wait for them, in us, 0 to 65535; not 0 with a @tx_count above 1
 * @rx_count: the same for reads
 * @rx_us: the same for reads
 * @reserved: zero
 */
struct fifo_aio_thresholds {
	__u32 rx_bytes;
	__u32 tx_count;
	__u32 tx_us;
	__u32 rx_count;
	__u32 rx_us;
	__u32 reserved[3];
};

#define FIFO_AIO_IOC_MAGIC	0xf1

/* Information on the channel. */
#define FIFO_AIO_GET_INFO	_IOR(FIFO_AIO_IOC_MAGIC, 0, struct fifo_aio_info)
/* Its statistics. */
#define FIFO_AIO_GET_STATS	_IOR(FIFO_AIO_IOC_MAGIC, 1, struct fifo_aio_stats)
/* Its thresholds. Setting: EINVAL out of range, EBADF if the file isn't open for writing. */
#define FIFO_AIO_GET_THRESHOLDS	_IOR(FIFO_AIO_IOC_MAGIC, 2, struct fifo_aio_thresholds)
#define FIFO_AIO_SET_THRESHOLDS	_IOW(FIFO_AIO_IOC_MAGIC, 3, struct fifo_aio_thresholds)
/*
 * Resets the channel: what is in flight ends with EIO, the FIFO is emptied. It
 * needs a file open for writing (EBADF). On a device that the driver has given
 * up it resets the whole device.
 */
#define FIFO_AIO_RESET		_IO(FIFO_AIO_IOC_MAGIC, 4)

#endif /* _UAPI_FIFO_AIO_H */
