// SPDX-License-Identifier: GPL-2.0
/*
 * fifo_aio - the file operations of /dev/fifoN
 *
 * They may be called as long as a file is open, also when the device has gone
 * and the driver has let go of it: then they find a ring FIFO_GONE.
 */
#include <linux/compat.h>
#include <linux/limits.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/uaccess.h>

#include "fifo.h"

static struct fifo_channel *fifo_channel_of(struct file *file)
{
	struct fifo_file *f = file->private_data;

	return f->channel;
}

static int fifo_open(struct inode *inode, struct file *file)
{
	struct fifo_channel *ch = container_of(inode->i_cdev, struct fifo_channel, cdev);
	struct fifo_file *f;

	/* Opened while the driver goes: the name was still there. */
	if (READ_ONCE(ch->rx.state) == FIFO_GONE)
		return -ENODEV;
	f = kzalloc(sizeof(*f), GFP_KERNEL);
	if (!f)
		return -ENOMEM;
	f->channel = ch;
	file->private_data = f;
	/*
	 * No wait for the other side, and no allocation that sleeps, under
	 * IOCB_NOWAIT. Pages are pinned as direct I/O of files does it.
	 */
	file->f_mode |= FMODE_NOWAIT | FMODE_CAN_ODIRECT;
	return stream_open(inode, file);
}

static int fifo_fasync(int fd, struct file *file, int on)
{
	struct fifo_channel *ch = fifo_channel_of(file);
	int err;

	err = fasync_helper(fd, file, on, &ch->fasync);
	if (err < 0)
		return err;
	if (on)
		fifo_expect(ch);
	return 0;
}

static int fifo_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static ssize_t fifo_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	return fifo_transfer(iocb, to, &fifo_channel_of(iocb->ki_filp)->rx);
}

static ssize_t fifo_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	return fifo_transfer(iocb, from, &fifo_channel_of(iocb->ki_filp)->tx);
}

/* What poll says of a ring. */
static __poll_t fifo_poll_ring(struct fifo_ring *ring)
{
	__poll_t ready = ring->write ? EPOLLOUT | EPOLLWRNORM : EPOLLIN | EPOLLRDNORM;
	__poll_t mask = 0;

	spin_lock_irq(&ring->lock);
	if (ring->state >= FIFO_FAILED)
		mask = ready | EPOLLERR | (ring->state == FIFO_GONE ? EPOLLHUP : 0);
	else if (fifo_ready(ring))
		mask = ready;
	spin_unlock_irq(&ring->lock);
	return mask;
}

static __poll_t fifo_poll(struct file *file, struct poll_table_struct *table)
{
	struct fifo_channel *ch = fifo_channel_of(file);
	__poll_t events = poll_requested_events(table), mask = 0;

	poll_wait(file, &ch->wait, table);
	/* Only what is asked for: to be told costs the hardware an interrupt. */
	if (file->f_mode & FMODE_READ && events & (EPOLLIN | EPOLLRDNORM))
		mask |= fifo_poll_ring(&ch->rx);
	if (file->f_mode & FMODE_WRITE && events & (EPOLLOUT | EPOLLWRNORM))
		mask |= fifo_poll_ring(&ch->tx);
	if (READ_ONCE(ch->rx.state) == FIFO_GONE)
		mask |= EPOLLHUP | EPOLLERR;
	return mask;
}

static bool fifo_flushed(struct fifo_ring *ring, struct file *file, fl_owner_t owner, u64 cookie)
{
	bool flushed;

	spin_lock_irq(&ring->lock);
	flushed = !fifo_has(ring, file, owner, cookie);
	spin_unlock_irq(&ring->lock);
	return flushed;
}

/*
 * A process closes a descriptor, or exits. What it has in flight would keep the
 * file open, so that ->release would never see it.
 */
static int fifo_flush(struct file *file, fl_owner_t owner)
{
	struct fifo_channel *ch = fifo_channel_of(file);
	struct fifo_ring *rings[] = { &ch->tx, &ch->rx };
	bool any = false;
	int i;

	for (i = 0; i < ARRAY_SIZE(rings); i++) {
		spin_lock_irq(&rings[i]->lock);
		any |= fifo_cancel_all(rings[i], file, owner);
		spin_unlock_irq(&rings[i]->lock);
	}
	if (!any)
		return 0;
	/* Not for long: an abort that isn't answered has the ring reset. */
	for (i = 0; i < ARRAY_SIZE(rings); i++)
		wait_event(ch->wait, fifo_flushed(rings[i], file, owner, U64_MAX));
	return 0;
}

/* Waits for the writes that were made through this file until now. */
static int fifo_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	struct fifo_file *f = file->private_data;
	struct fifo_ring *tx = &f->channel->tx;
	unsigned int ms = READ_ONCE(fifo_wait_ms);
	long timeout = ms ? msecs_to_jiffies(ms) : MAX_SCHEDULE_TIMEOUT;
	bool failed;
	u64 last;

	spin_lock_irq(&tx->lock);
	last = tx->cookie;
	spin_unlock_irq(&tx->lock);
	timeout = wait_event_interruptible_timeout(f->channel->wait,
						   fifo_flushed(tx, file, NULL, last), timeout);
	if (timeout < 0)
		return timeout;
	if (!timeout)
		return -ETIMEDOUT;
	if (READ_ONCE(tx->state) == FIFO_GONE)
		return -ENODEV;
	spin_lock_irq(&tx->lock);
	failed = f->write_failed;
	f->write_failed = false;
	spin_unlock_irq(&tx->lock);
	return failed ? -EIO : 0;
}

/* ioctls. */

static int fifo_get_info(struct fifo_channel *ch, struct fifo_aio_info __user *arg)
{
	struct fifo_device *fd = ch->device;
	struct fifo_aio_info info = {
		.version = fd->version,
		.channels = fd->channels,
		.channel = ch->index,
		.ring_entries = ch->rx.entries,
		.max_segments = fd->chain,
		.depth = fd->depth,
	};
	bool there = true;

	spin_lock_irq(&ch->rx.lock);
	if (ch->rx.state == FIFO_GONE)
		there = false;
	else if (ch->rx.state == FIFO_RUNNING)
		there = fifo_channel_fill(ch, &info.fill);
	spin_unlock_irq(&ch->rx.lock);
	if (!there)
		return -ENODEV;
	return copy_to_user(arg, &info, sizeof(info)) ? -EFAULT : 0;
}

static void fifo_ring_stats(struct fifo_ring *ring, struct fifo_aio_ring_stats *stats)
{
	spin_lock_irq(&ring->lock);
	*stats = ring->stats;
	spin_unlock_irq(&ring->lock);
	stats->interrupts = atomic64_read(&ring->interrupts);
}

static int fifo_get_stats(struct fifo_channel *ch, struct fifo_aio_stats __user *arg)
{
	struct fifo_aio_stats stats;

	fifo_ring_stats(&ch->tx, &stats.tx);
	fifo_ring_stats(&ch->rx, &stats.rx);
	return copy_to_user(arg, &stats, sizeof(stats)) ? -EFAULT : 0;
}

static int fifo_get_thresholds(struct fifo_channel *ch, struct fifo_aio_thresholds __user *arg)
{
	struct fifo_aio_thresholds t = {
		.rx_bytes = READ_ONCE(ch->threshold),
		.tx_count = READ_ONCE(ch->tx.coalesce) & 0xff,
		.tx_us = READ_ONCE(ch->tx.coalesce) >> 16,
		.rx_count = READ_ONCE(ch->rx.coalesce) & 0xff,
		.rx_us = READ_ONCE(ch->rx.coalesce) >> 16,
	};

	return copy_to_user(arg, &t, sizeof(t)) ? -EFAULT : 0;
}

static bool fifo_good_coalesce(u32 count, u32 us)
{
	return count <= 255 && us <= U16_MAX && (count <= 1 || us);
}

static void fifo_set_ring(struct fifo_ring *ring, u32 count, u32 us, u32 threshold)
{
	spin_lock_irq(&ring->lock);
	ring->coalesce = FIFO_COALESCE_VALUE(count, us);
	if (!ring->write)
		ring->channel->threshold = threshold;
	if (ring->state == FIFO_RUNNING) {
		fifo_write(ring->regs, FIFO_COALESCE, ring->coalesce);
		if (!ring->write)
			fifo_write(ring->regs, FIFO_THRESHOLD, threshold);
	}
	spin_unlock_irq(&ring->lock);
}

static int fifo_set_thresholds(struct fifo_channel *ch, struct fifo_aio_thresholds __user *arg)
{
	struct fifo_aio_thresholds t;
	int i;

	if (copy_from_user(&t, arg, sizeof(t)))
		return -EFAULT;
	for (i = 0; i < ARRAY_SIZE(t.reserved); i++)
		if (t.reserved[i])
			return -EINVAL;
	if (t.rx_bytes > ch->device->depth || !fifo_good_coalesce(t.tx_count, t.tx_us) ||
	    !fifo_good_coalesce(t.rx_count, t.rx_us))
		return -EINVAL;
	fifo_set_ring(&ch->tx, t.tx_count, t.tx_us, 0);
	fifo_set_ring(&ch->rx, t.rx_count, t.rx_us, t.rx_bytes);
	fifo_tell(ch);
	return 0;
}

static long fifo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct fifo_channel *ch = fifo_channel_of(file);
	void __user *user = (void __user *)arg;

	if (READ_ONCE(ch->rx.state) == FIFO_GONE)
		return -ENODEV;
	switch (cmd) {
	case FIFO_AIO_GET_INFO:
		return fifo_get_info(ch, user);
	case FIFO_AIO_GET_STATS:
		return fifo_get_stats(ch, user);
	case FIFO_AIO_GET_THRESHOLDS:
		return fifo_get_thresholds(ch, user);
	case FIFO_AIO_SET_THRESHOLDS:
		if (!(file->f_mode & FMODE_WRITE))
			return -EBADF;
		return fifo_set_thresholds(ch, user);
	case FIFO_AIO_RESET:
		if (!(file->f_mode & FMODE_WRITE))
			return -EBADF;
		return fifo_channel_reset(ch);
	}
	return -ENOTTY;
}

const struct file_operations fifo_fops = {
	.owner = THIS_MODULE,
	.open = fifo_open,
	.release = fifo_release,
	.flush = fifo_flush,
	.read_iter = fifo_read_iter,
	.write_iter = fifo_write_iter,
	.splice_read = fifo_splice_read,
	.splice_write = iter_file_splice_write,
	.poll = fifo_poll,
	.fasync = fifo_fasync,
	.fsync = fifo_fsync,
	.unlocked_ioctl = fifo_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};
