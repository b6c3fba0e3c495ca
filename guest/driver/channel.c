// SPDX-License-Identifier: GPL-2.0
/*
 * fifo_aio - a channel: its device in class fifo, and who may have its bytes
 *
 * A request claims the bytes that it has room for, or brings. So one that must
 * not wait can tell what is left for it: what is in the FIFO, or has room
 * there, less the claims of those before it.
 */
#include <linux/debugfs.h>
#include <linux/idr.h>
#include <linux/limits.h>

#include "fifo.h"

static struct class *fifo_class;
static dev_t fifo_first;
static DEFINE_IDA(fifo_minors);

/* Claims and readiness. */

/*
 * How full is the FIFO? False if the device has gone. Called with a ring's lock
 * held, and that ring not FIFO_GONE: so the registers are mapped.
 */
bool fifo_channel_fill(struct fifo_channel *ch, u32 *fill)
{
	*fill = fifo_read(ch->regs, FIFO_FILL);
	return *fill <= ch->device->depth;
}

/*
 * Bytes that a new request could move without waiting; with the lock held. What
 * the hardware has moved, though no completion has told yet, is in FILL already:
 * claims of it don't count. For that, both have to be of the same moment.
 */
static size_t fifo_available(struct fifo_ring *ring)
{
	struct fifo_channel *ch = ring->channel;
	size_t claimed = ring->claimed;
	u32 fill, all, moved, before;
	int tries = FIFO_TRIES;

	if (ring->state != FIFO_RUNNING || !fifo_channel_fill(ch, &fill))
		return 0;
	if (claimed) {
		moved = fifo_moved(ring);
		do {
			if (!tries-- || !fifo_channel_fill(ch, &fill))
				return 0;
			before = moved;
			moved = fifo_moved(ring);
		} while (moved != before);
		claimed -= min_t(size_t, claimed, moved - ring->moved);
	}
	all = ring->write ? ch->device->depth - fill : fill;
	return all > claimed ? all - claimed : 0;
}

/* Bytes without which a request of size is not begun. */
static size_t fifo_needs(struct fifo_ring *ring, size_t size)
{
	struct fifo_channel *ch = ring->channel;

	if (!ring->write)
		return fifo_read_needs(ch, size);
	/* As a pipe has it: PIPE_BUF bytes stay together. */
	return size <= PIPE_BUF ? size : 1;
}

/*
 * Would a request not have to wait? If it would, and nothing is in flight whose
 * end would tell when no more, the hardware is asked to. With the lock held.
 */
bool fifo_ready(struct fifo_ring *ring)
{
	struct fifo_channel *ch = ring->channel;
	size_t needs = ring->write ? min_t(size_t, PIPE_BUF, ch->device->depth) :
				     fifo_read_needs(ch, ch->device->depth);

	if (ring->state != FIFO_RUNNING)
		return false;
	if (fifo_available(ring) >= needs)
		return true;
	ring->signalled = false;
	if (!ring->claimed && ring->notify != needs) {
		ring->notify = needs;
		fifo_write(ring->regs, FIFO_NOTIFY, needs);
		ring->notify_until = jiffies + msecs_to_jiffies(fifo_timeout_ms);
		fifo_ring_watch_by(ring, ring->notify_until);
	}
	return false;
}

/* Claims up to want bytes for a request. Returns how many, or why there can't be one. */
ssize_t fifo_claim(struct fifo_ring *ring, size_t want, bool nowait)
{
	ssize_t ret = want;
	size_t available;

	spin_lock_irq(&ring->lock);
	if (ring->state == FIFO_GONE) {
		ret = -ENODEV;
	} else if (ring->state == FIFO_FAILED) {
		ret = -EIO;
	} else if (ring->requests >= fifo_queue_limit) {
		ret = -EAGAIN;
	} else if (nowait) {
		available = fifo_available(ring);
		if (available < fifo_needs(ring, want)) {
			fifo_ready(ring);	/* for SIGIO */
			ret = -EAGAIN;
		} else {
			ret = min(want, available);
		}
	}
	if (ret > 0) {
		ring->claimed += ret;
		ring->requests++;
	}
	spin_unlock_irq(&ring->lock);
	return ret;
}

/* Gives back the claim of a request that did not come to be. */
void fifo_unclaim(struct fifo_ring *ring, size_t bytes)
{
	spin_lock_irq(&ring->lock);
	ring->claimed -= bytes;
	ring->requests--;
	spin_unlock_irq(&ring->lock);
	/* Others may have been refused since. */
	fifo_tell(ring->channel);
}

/* SIGIO for a ring that has become ready since it was told last. */
static void fifo_tell_fasync(struct fifo_ring *ring)
{
	bool ready, tell;

	spin_lock_irq(&ring->lock);
	ready = fifo_ready(ring);
	tell = ready && !ring->signalled;
	ring->signalled |= tell;
	spin_unlock_irq(&ring->lock);
	if (tell)
		kill_fasync(&ring->channel->fasync, SIGIO, ring->write ? POLL_OUT : POLL_IN);
}

/* Somebody wants SIGIO, from now on: for what will be, not for what is. */
void fifo_expect(struct fifo_channel *ch)
{
	struct fifo_ring *rings[] = { &ch->rx, &ch->tx };
	int i;

	for (i = 0; i < ARRAY_SIZE(rings); i++) {
		spin_lock_irq(&rings[i]->lock);
		rings[i]->signalled = fifo_ready(rings[i]);
		spin_unlock_irq(&rings[i]->lock);
	}
}

/* Tells all who wait that something has changed. */
void fifo_tell(struct fifo_channel *ch)
{
	if (wq_has_sleeper(&ch->wait))
		wake_up_all(&ch->wait);
	if (READ_ONCE(ch->fasync)) {
		fifo_tell_fasync(&ch->rx);
		fifo_tell_fasync(&ch->tx);
	}
}

/* The device in class fifo. */

static void fifo_channel_release(struct device *dev)
{
	struct fifo_channel *ch = container_of(dev, struct fifo_channel, dev);

	fifo_device_put(ch->device);
}

/* Makes the channel's rings; fifo_channel_add() makes it known. */
int fifo_channel_create(struct fifo_device *fd, int index, u32 entries)
{
	struct fifo_channel *ch = &fd->channel[index];
	int err;

	ch->device = fd;
	ch->index = index;
	ch->regs = fd->regs + FIFO_CHANNEL(index);
	ch->tx.write = true;
	init_waitqueue_head(&ch->wait);
	ch->tx.channel = ch;
	ch->rx.channel = ch;

	err = fifo_ring_create(&ch->tx, entries);
	if (err)
		return err;
	err = fifo_ring_create(&ch->rx, entries);
	if (err)
		fifo_ring_free(&ch->tx);
	return err;
}

/* Makes /dev/fifoN. From here on requests come. */
int fifo_channel_add(struct fifo_channel *ch)
{
	int err;

	err = ida_alloc_max(&fifo_minors, FIFO_MINORS - 1, GFP_KERNEL);
	if (err < 0)
		return err;
	ch->minor = err;

	device_initialize(&ch->dev);
	fifo_device_get(ch->device);
	ch->dev.class = fifo_class;
	ch->dev.parent = &ch->device->pdev->dev;
	ch->dev.devt = MKDEV(MAJOR(fifo_first), ch->minor);
	ch->dev.groups = fifo_groups;
	ch->dev.release = fifo_channel_release;
	cdev_init(&ch->cdev, &fifo_fops);
	ch->cdev.owner = THIS_MODULE;

	err = dev_set_name(&ch->dev, "fifo%d", ch->minor);
	if (!err)
		err = cdev_device_add(&ch->cdev, &ch->dev);
	if (err)
		goto put;
	fifo_debugfs_add(ch);
	return 0;

put:
	ida_free(&fifo_minors, ch->minor);
	put_device(&ch->dev);
	return err;
}

void fifo_channel_remove(struct fifo_channel *ch)
{
	debugfs_remove(ch->debugfs);
	cdev_device_del(&ch->cdev, &ch->dev);
	ida_free(&fifo_minors, ch->minor);
	put_device(&ch->dev);
}

int fifo_channel_init(void)
{
	int err;

	err = alloc_chrdev_region(&fifo_first, 0, FIFO_MINORS, FIFO_NAME);
	if (err)
		return err;
	fifo_class = fifo_class_create("fifo");
	if (IS_ERR(fifo_class)) {
		unregister_chrdev_region(fifo_first, FIFO_MINORS);
		return PTR_ERR(fifo_class);
	}
	return 0;
}

void fifo_channel_exit(void)
{
	class_destroy(fifo_class);
	unregister_chrdev_region(fifo_first, FIFO_MINORS);
	ida_destroy(&fifo_minors);
}
