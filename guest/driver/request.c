// SPDX-License-Identifier: GPL-2.0
/*
 * fifo_aio - a read or a write, from the system call to its end
 *
 * The program's pages are pinned and mapped when the request is made, since
 * only then are we in its process and is the vector there. The hardware moves
 * the bytes. When it is over, the pages are given back in process context, as
 * marking them dirty takes locks that sleep, and then the request is completed.
 */
#include <linux/aio.h>
#include <linux/dma-mapping.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "fifo.h"
#include "trace.h"

static struct kmem_cache *fifo_request_cache;

int fifo_request_init(void)
{
	fifo_request_cache = KMEM_CACHE(fifo_request, 0);
	return fifo_request_cache ? 0 : -ENOMEM;
}

void fifo_request_exit(void)
{
	kmem_cache_destroy(fifo_request_cache);
}

/* Memory. */

/* Appends bytes of a page to the scatterlist, if there is room: max entries. */
static bool fifo_append(struct fifo_request *req, struct page *page, size_t offset, size_t length,
			unsigned int max)
{
	size_t max_length = req->ring->channel->device->max_length;
	struct scatterlist *sg;

	if (req->nents) {
		sg = &req->sg[req->nents - 1];
		if (page_to_phys(sg_page(sg)) + sg->offset + sg->length ==
		    page_to_phys(page) + offset && sg->length + length <= max_length) {
			sg->length += length;
			return true;
		}
	}
	if (req->nents == max)
		return false;
	sg_set_page(&req->sg[req->nents++], page, length, offset);
	return true;
}

/* Gives back pages from number first on. */
static void fifo_unpin(struct fifo_request *req, unsigned int first, bool dirty)
{
	if (req->pinned)
		unpin_user_pages_dirty_lock(req->pages + first, req->npages - first, dirty);
	req->npages = first;
}

/*
 * Takes memory from the iterator, size bytes at most, and moves it on. Less is
 * no error if it is something: a pipe, too, goes as far as the memory does.
 */
static int fifo_extract(struct fifo_request *req, struct iov_iter *iter, size_t size, gfp_t gfp)
{
	struct fifo_ring *ring = req->ring;
	/* A write can go on in another chain, a read can't: its end is not known. */
	unsigned int max = ring->write ? UINT_MAX : ring->channel->device->chain;
	unsigned int room = iov_iter_npages(iter, FIFO_MAX_PAGES);
	size_t offset, left, n;
	ssize_t got;

	room = min_t(size_t, room, size);	/* a page for each byte, at worst */
	if (room <= FIFO_FEW_PAGES) {
		req->pages = req->few_pages;
		req->sg = req->few_sg;
	} else {
		req->pages = kvmalloc_array(room, sizeof(*req->pages), gfp);
		req->sg = kvmalloc_array(room, sizeof(*req->sg), gfp);
		if (!req->pages || !req->sg)
			return -ENOMEM;
	}
	sg_init_table(req->sg, room);
	req->pinned = iov_iter_extract_will_pin(iter);

	while (req->size < size && req->npages < room) {
		struct page **pages = req->pages + req->npages;
		unsigned int first = req->npages;

		got = iov_iter_extract_pages(iter, &pages, size - req->size, room - first, 0,
					     &offset);
		if (got <= 0)
			return req->size ? 0 : got ?: -EFAULT;
		req->npages += DIV_ROUND_UP(offset + got, PAGE_SIZE);
		for (left = got; left; left -= n, offset = 0, first++) {
			n = min_t(size_t, left, PAGE_SIZE - offset);
			if (!fifo_append(req, req->pages[first], offset, n, max)) {
				fifo_unpin(req, first, false);
				iov_iter_revert(iter, left);
				return 0;
			}
			req->size += n;
		}
	}
	return 0;
}

static enum dma_data_direction fifo_direction(struct fifo_request *req)
{
	return req->ring->write ? DMA_TO_DEVICE : DMA_FROM_DEVICE;
}

/*
 * Programs' buffers may share cache lines, and be in several requests at once.
 * That is their matter, as with any direct I/O; the kernel's DMA debugging takes it
 * for a mistake of ours unless caches are looked after separately.
 */
#define FIFO_DMA_ATTRS	DMA_ATTR_SKIP_CPU_SYNC

static int fifo_map(struct fifo_request *req)
{
	struct device *dev = &req->ring->channel->device->pdev->dev;
	int n;

	sg_mark_end(&req->sg[req->nents - 1]);
	n = dma_map_sg_attrs(dev, req->sg, req->nents, fifo_direction(req), FIFO_DMA_ATTRS);
	if (!n)
		return -ENOMEM;
	dma_sync_sg_for_device(dev, req->sg, req->nents, fifo_direction(req));
	req->dma_nents = n;
	req->next_sg = req->sg;
	return 0;
}

/* Gives the memory back; the hardware has done with it. */
static void fifo_give_back(struct fifo_request *req)
{
	struct device *dev = &req->ring->channel->device->pdev->dev;

	if (req->dma_nents) {
		dma_sync_sg_for_cpu(dev, req->sg, req->nents, fifo_direction(req));
		dma_unmap_sg_attrs(dev, req->sg, req->nents, fifo_direction(req), FIFO_DMA_ATTRS);
	}
	req->dma_nents = 0;
	fifo_unpin(req, 0, !req->ring->write && (req->done || req->hard));
	if (req->pages != req->few_pages) {
		kvfree(req->pages);
		kvfree(req->sg);
	}
	req->pages = NULL;
	req->sg = NULL;
}

static struct fifo_request *fifo_request_alloc(struct fifo_ring *ring, struct kiocb *iocb,
					       bool nowait)
{
	struct fifo_request *req;
	unsigned int ms = READ_ONCE(fifo_wait_ms);

	req = kmem_cache_alloc(fifo_request_cache, nowait ? GFP_NOWAIT : GFP_KERNEL);
	if (!req)
		return NULL;
	/* But for few_pages and few_sg, which are large and written when used. */
	memset(req, 0, offsetof(struct fifo_request, few_pages));
	memset_startat(req, 0, next_sg);
	req->ring = ring;
	req->file = iocb->ki_filp;
	req->owner = current->files;
	req->nowait = nowait;
	if (is_sync_kiocb(iocb))
		init_completion(&req->finished);
	else
		req->iocb = iocb;
	if (nowait)
		ms = FIFO_NOWAIT_MS;
	req->expires = nowait || (req->iocb && ms);
	req->deadline = jiffies + msecs_to_jiffies(ms);
	return req;
}

void fifo_request_release(struct fifo_request *req)
{
	kmem_cache_free(fifo_request_cache, req);
}

/* Its way through the ring. All of these are called with the ring's lock held. */

/* Moves the request on by bytes that were done. */
void fifo_request_advance(struct fifo_request *req, size_t bytes)
{
	req->done += bytes;
	req->claim -= bytes;
	req->ring->claimed -= bytes;
	bytes += req->next_offset;
	while (bytes && bytes >= sg_dma_len(req->next_sg)) {
		bytes -= sg_dma_len(req->next_sg);
		req->next_sg = sg_next(req->next_sg);
	}
	req->next_offset = bytes;
}

/* It is over: service does the rest. */
void fifo_request_end(struct fifo_request *req, int error, bool hard)
{
	struct fifo_ring *ring = req->ring;

	if (error && !req->error) {
		req->error = error;
		req->hard = hard;
	}
	if (ring->aborting == req)
		ring->aborting = NULL;
	if (ring->write && req->error && req->error != -ECANCELED && !req->nowait) {
		struct fifo_file *f = req->file->private_data;

		f->write_failed = true;
	}
	ring->claimed -= req->claim;
	req->claim = 0;
	req->state = FIFO_DONE;
	list_move_tail(&req->node, &ring->done);
}

/* Ends the request as soon as the hardware lets go of it, with error if nothing was moved. */
void fifo_request_cancel(struct fifo_request *req, int error)
{
	struct fifo_ring *ring = req->ring;

	if (req->state == FIFO_DONE || req->error)
		return;
	if (error == -ECANCELED)
		trace_fifo_cancel(req);
	else
		trace_fifo_timeout(req);
	switch (req->state) {
	case FIFO_NEW:
		req->error = error;	/* for fifo_ring_submit() to see */
		break;
	case FIFO_QUEUED:
		fifo_request_end(req, error, false);
		fifo_ring_kick(ring);
		break;
	case FIFO_POSTED:
		req->error = error;
		req->abort = true;
		ring->aborts_wanted = true;
		fifo_ring_abort(ring);
		break;
	case FIFO_DONE:
		break;
	}
}

/* Was it made through the file, and if there is an owner, by it, asynchronously? */
static bool fifo_is_of(struct fifo_request *req, struct file *file, fl_owner_t owner)
{
	return req->file == file && (!owner || (req->owner == owner && req->iocb));
}

/* Cancels what owner has in flight through the file, and says whether that was something. */
bool fifo_cancel_all(struct fifo_ring *ring, struct file *file, fl_owner_t owner)
{
	struct fifo_request *req, *next;
	bool any = false;

	list_for_each_entry_safe_reverse(req, next, &ring->posted, node) {
		if (!fifo_is_of(req, file, owner))
			continue;
		fifo_request_cancel(req, -ECANCELED);
		any = true;
	}
	list_for_each_entry_safe(req, next, &ring->queued, node) {
		if (!fifo_is_of(req, file, owner))
			continue;
		fifo_request_cancel(req, -ECANCELED);
		any = true;
	}
	return any;
}

/*
 * Is there a request of owner (or anybody: NULL) through the file, up to that
 * cookie, whose memory the hardware may still use?
 */
bool fifo_has(struct fifo_ring *ring, struct file *file, fl_owner_t owner, u64 cookie)
{
	struct list_head *lists[] = { &ring->posted, &ring->queued, &ring->done, &ring->finishing };
	struct fifo_request *req;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(lists); i++)
		list_for_each_entry(req, lists[i], node)
			if (fifo_is_of(req, file, owner) && req->cookie <= cookie)
				return true;
	return false;
}

/* libaio: called under its context's lock, with interrupts off. */
static int fifo_kiocb_cancel(struct kiocb *iocb)
{
	/* It is there: before it goes, ki_complete() takes that lock. */
	struct fifo_request *req = iocb->private;
	unsigned long flags;

	spin_lock_irqsave(&req->ring->lock, flags);
	fifo_request_cancel(req, -ECANCELED);
	spin_unlock_irqrestore(&req->ring->lock, flags);
	return 0;
}

/* What the request comes to. */
static ssize_t fifo_result(struct fifo_request *req)
{
	if (req->error && (req->hard || !req->done))
		return req->error;
	return req->done;
}

static void fifo_account(struct fifo_request *req)
{
	struct fifo_aio_ring_stats *stats = &req->ring->stats;

	stats->requests++;
	stats->bytes += req->done;
	switch (req->error) {
	case 0:
	case -EAGAIN:
		break;
	case -ECANCELED:
		stats->cancelled++;
		break;
	case -ETIMEDOUT:
		stats->timeouts++;
		break;
	default:
		stats->errors++;
	}
}

/* Ends a request that is in finishing. Its memory first: whoever is told may look at it. */
void fifo_request_complete(struct fifo_request *req)
{
	struct fifo_ring *ring = req->ring;
	struct kiocb *iocb = req->iocb;

	fifo_give_back(req);
	spin_lock_irq(&ring->lock);
	fifo_account(req);
	list_del(&req->node);
	ring->requests--;
	spin_unlock_irq(&ring->lock);
	trace_fifo_complete(req);
	if (!iocb) {
		complete(&req->finished);	/* and it is the waiter's */
		return;
	}
	iocb->ki_complete(iocb, fifo_result(req));
	/* Only now: until then it may be cancelled. */
	fifo_request_release(req);
}

/* System calls. */

/*
 * Makes a request of what the iterator has next, and hands it to the ring.
 * Returns it, or NULL for one that will be completed, or an error.
 */
static struct fifo_request *fifo_submit(struct kiocb *iocb, struct iov_iter *iter,
					struct fifo_ring *ring, bool nowait)
{
	size_t size = min_t(size_t, iov_iter_count(iter), FIFO_MAX_REQUEST);
	struct fifo_device *fd = ring->channel->device;
	struct fifo_request *req;
	ssize_t claim;
	int err, idx;
	bool async;

	claim = fifo_claim(ring, size, nowait);
	if (claim < 0)
		return ERR_PTR(claim);
	req = fifo_request_alloc(ring, iocb, nowait);
	if (!req) {
		err = -ENOMEM;
		goto unclaim;
	}
	req->claim = claim;
	err = fifo_extract(req, iter, claim, nowait ? GFP_NOWAIT : GFP_KERNEL);
	if (err)
		goto give_back;

	idx = srcu_read_lock(&fd->unmapped);
	/* Removal sets it, then waits for us. */
	if (READ_ONCE(ring->state) == FIFO_GONE) {
		err = -ENODEV;
		goto unlock;
	}
	err = fifo_map(req);
	if (err)
		goto unlock;
	if (req->iocb && iocb->ki_flags & IOCB_AIO_RW) {
		iocb->private = req;
		kiocb_set_cancel_fn(iocb, fifo_kiocb_cancel);
	}
	/* From here on it can't fail but by completion. */
	trace_fifo_submit(req);
	async = req->iocb;
	fifo_ring_submit(ring, req);
	srcu_read_unlock(&fd->unmapped, idx);
	return async ? NULL : req;	/* it may have been completed already, and be gone */

unlock:
	srcu_read_unlock(&fd->unmapped, idx);
give_back:
	iov_iter_revert(iter, req->size);
	fifo_give_back(req);
	fifo_request_release(req);
unclaim:
	fifo_unclaim(ring, claim);
	return ERR_PTR(nowait && err == -ENOMEM ? -EAGAIN : err);
}

/* Waits for the request, and tells what it came to. */
static ssize_t fifo_wait(struct fifo_request *req)
{
	struct fifo_ring *ring = req->ring;
	ssize_t ret;

	if (req->nowait) {
		wait_for_completion(&req->finished);	/* for FIFO_NOWAIT_MS at most */
	} else if (wait_for_completion_interruptible(&req->finished)) {
		spin_lock_irq(&ring->lock);
		fifo_request_cancel(req, -ECANCELED);
		spin_unlock_irq(&ring->lock);
		/* Not for long: an abort that isn't answered has the ring reset. */
		wait_for_completion(&req->finished);
	}
	ret = fifo_result(req);
	return ret == -ECANCELED ? -ERESTARTSYS : ret;
}

/* read_iter and write_iter, after their checks. */
ssize_t fifo_transfer(struct kiocb *iocb, struct iov_iter *iter, struct fifo_ring *ring)
{
	bool nowait = iocb->ki_flags & IOCB_NOWAIT || iocb->ki_filp->f_flags & O_NONBLOCK;
	struct fifo_request *req;
	ssize_t total = 0, ret;
	size_t size;

	while (iov_iter_count(iter)) {
		req = fifo_submit(iocb, iter, ring, nowait);
		if (!req)
			return -EIOCBQUEUED;
		if (IS_ERR(req))
			return total ?: PTR_ERR(req);
		ret = fifo_wait(req);
		size = req->size;
		fifo_request_release(req);
		if (ret < 0) {
			iov_iter_revert(iter, size);
			return total ?: ret;
		}
		iov_iter_revert(iter, size - ret);
		total += ret;
		/* A read ends with what it has got, a write when all is written. */
		if (!ring->write || nowait || ret < size)
			break;
	}
	return total;
}
