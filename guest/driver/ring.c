// SPDX-License-Identifier: GPL-2.0
/*
 * fifo_aio - a ring: requests become descriptors, completions end requests
 *
 * Completions are taken by fifo_ring_service(), in process context: from the
 * interrupt's thread, from a worker where something ended without one, and
 * from the watch when time is up. What a completion says is not believed
 * before it fits what was posted: memory can be wrong where hardware is.
 */
#include <linux/dma-mapping.h>
#include <linux/log2.h>

#include "fifo.h"
#include "trace.h"

/* Descriptors. All with the ring's lock held. */

static u32 fifo_ring_room(struct fifo_ring *ring)
{
	return (ring->head - ring->tail - 1) & (ring->entries - 1);
}

/* Writes the descriptors of the request's next chain. False if there is no room. */
static bool fifo_ring_post_one(struct fifo_ring *ring, struct fifo_request *req)
{
	u32 max = ring->channel->device->chain;
	u32 flags = list_empty(&ring->posted) || !req->iocb ? FIFO_DESC_INTERRUPT : 0;
	size_t left = req->size - req->done, skip = req->next_offset;
	u32 max_length = ring->channel->device->max_length;
	struct scatterlist *sg = req->next_sg;
	u32 n, room = fifo_ring_room(ring), tail = ring->tail;
	size_t length, piece;

	/* What an IOMMU has merged may be longer than a buffer can be. */
	for (n = 0, length = 0; sg && n < max; n++) {
		piece = min_t(size_t, sg_dma_len(sg) - skip, max_length);
		skip += piece;
		if (skip == sg_dma_len(sg)) {
			skip = 0;
			sg = length + piece < left ? sg_next(sg) : NULL;
		}
		length += piece;
	}
	if (n > room)
		return false;

	sg = req->next_sg;
	skip = req->next_offset;
	req->chain_bytes = length;
	for (; length; length -= piece) {
		struct fifo_descriptor *desc = &ring->desc[tail];

		piece = min_t(size_t, sg_dma_len(sg) - skip, max_length);
		desc->address = cpu_to_le64(sg_dma_address(sg) + skip);
		desc->length = cpu_to_le32(piece);
		desc->flags = cpu_to_le32(flags | (piece < length ? FIFO_DESC_MORE : 0));
		desc->cookie = cpu_to_le64(req->cookie);
		desc->zero = 0;
		tail = (tail + 1) & (ring->entries - 1);
		skip += piece;
		if (skip == sg_dma_len(sg)) {
			skip = 0;
			sg = sg_next(sg);
		}
	}
	if (list_empty(&ring->posted)) {
		ring->look_at = jiffies + msecs_to_jiffies(fifo_timeout_ms);
		ring->looked = false;
		fifo_ring_watch_by(ring, ring->look_at);
	}
	ring->tail = tail;
	req->chain_end = tail;
	req->state = FIFO_POSTED;
	list_move_tail(&req->node, &ring->posted);
	trace_fifo_post(req);
	return true;
}

/* Is the hardware at a request that needs another chain? Then others wait. */
static bool fifo_ring_in_the_middle(struct fifo_ring *ring)
{
	struct fifo_request *last;

	if (list_empty(&ring->posted))
		return false;
	last = list_last_entry(&ring->posted, struct fifo_request, node);
	return ring->write && !last->error && last->done + last->chain_bytes < last->size;
}

/* Gives the hardware what it has room for. */
static void fifo_ring_post(struct fifo_ring *ring)
{
	u32 tail = ring->tail, head;

	if (ring->state != FIFO_RUNNING || ring->error)
		return;
	while (!list_empty(&ring->queued) && !fifo_ring_in_the_middle(ring)) {
		struct fifo_request *req;

		req = list_first_entry(&ring->queued, struct fifo_request, node);
		if (fifo_ring_post_one(ring, req))
			continue;
		if (!list_empty(&ring->posted))
			break;	/* its completion makes room */
		/* Of aborted requests no completion tells when their descriptors are free. */
		head = fifo_read(ring->regs, FIFO_RING_HEAD);
		if (head == ring->head || head >= ring->entries) {
			fifo_ring_watch_by(ring, jiffies + 1);
			break;
		}
		ring->head = head;
	}
	if (ring->tail != tail)
		writel(ring->tail, ring->tail_bell);	/* orders the descriptors before it */
}

/* Takes a new request. It may have been cancelled already. */
void fifo_ring_submit(struct fifo_ring *ring, struct fifo_request *req)
{
	bool kick = false;

	spin_lock_irq(&ring->lock);
	req->cookie = ++ring->cookie;
	ring->claimed -= req->claim - req->size;
	req->claim = req->size;
	INIT_LIST_HEAD(&req->node);
	if (ring->state >= FIFO_FAILED) {
		fifo_request_end(req, ring->state == FIFO_GONE ? -ENODEV : -EIO, true);
		kick = true;
	} else if (req->error) {
		fifo_request_end(req, 0, false);
		kick = true;
	} else {
		req->state = FIFO_QUEUED;
		list_add_tail(&req->node, &ring->queued);
		trace_fifo_queue(req);
		if (req->expires)
			fifo_ring_watch_by(ring, req->deadline);
		fifo_ring_post(ring);
	}
	spin_unlock_irq(&ring->lock);
	if (kick)
		fifo_ring_kick(ring);
}

/* Completions. */

/* Something that hardware and driver must agree on does not fit: start anew. */
static void fifo_ring_broken(struct fifo_ring *ring, const char *what)
{
	ring->error = true;
	fifo_warn_once(ring->channel->device, FIFO_LOGGED_ERROR, "fifo%d %s: %s",
		       ring->channel->minor, ring->write ? "tx" : "rx", what);
}

/* The request has ended with this status, or goes on. */
static void fifo_ring_ended(struct fifo_ring *ring, struct fifo_request *req, u16 status,
			    size_t done)
{
	switch (status) {
	case FIFO_COMP_OK:
		ring->resets = 0;
		ring->stuck = false;
		atomic_set(&ring->channel->device->resets_in_a_row, 0);
		fallthrough;
	case FIFO_COMP_ABORTED:
		fifo_request_advance(req, done);
		if (ring->aborting == req)
			ring->aborting = NULL;
		/* It does aborts; does it do anything else? */
		if (status == FIFO_COMP_ABORTED && ring->stuck)
			ring->error = true;
		if (req->done < req->size && !req->error &&
		    (ring->write || (req->requeue && !req->done))) {
			req->requeue = false;
			req->abort = false;
			req->state = FIFO_QUEUED;
			list_move(&req->node, &ring->queued);
			return;
		}
		fifo_request_end(req, 0, false);
		return;
	case FIFO_COMP_DESCRIPTOR:
		fifo_ring_broken(ring, "the hardware does not like a descriptor");
		break;
	case FIFO_COMP_PARITY:
		fifo_ring_broken(ring, "parity error in the FIFO");
		fifo_write(ring->channel->regs, FIFO_CH_CONTROL, FIFO_CH_CONTROL_FLUSH);
		break;
	default:
		fifo_ring_broken(ring, "DMA error");
	}
	ring->blamed = true;
	fifo_request_end(req, -EIO, true);
}

/* Takes a completion, if there is one that makes sense. */
static bool fifo_ring_take_one(struct fifo_ring *ring)
{
	struct fifo_completion *comp = &ring->comp[ring->comp_head];
	u32 phase = le32_to_cpu(READ_ONCE(comp->phase));
	u32 mask = ring->entries - 1, head;
	struct fifo_request *req;
	u64 cookie, done;
	u16 status;

	if ((phase & 1) != ring->phase)
		return false;
	dma_rmb();	/* the rest was written before the phase */
	cookie = le64_to_cpu(comp->cookie);
	done = le64_to_cpu(comp->done);
	status = le16_to_cpu(comp->status);
	head = le16_to_cpu(comp->head);

	/* In order, but for what was aborted. */
	req = list_first_entry_or_null(&ring->posted, struct fifo_request, node);
	if (ring->aborting && cookie == ring->aborting->cookie)
		req = ring->aborting;
	if (!req || cookie != req->cookie || phase & ~1 || head >= ring->entries ||
	    ((head - ring->head) & mask) > ((ring->tail - ring->head) & mask) ||
	    done > req->chain_bytes || (status == FIFO_COMP_OK && !done) ||
	    (status == FIFO_COMP_ABORTED && req != ring->aborting) ||
	    (status == FIFO_COMP_OK && ring->write && done != req->chain_bytes) ||
	    (status != FIFO_COMP_DESCRIPTOR &&
	     le64_to_cpu(comp->residual) != req->chain_bytes - done)) {
		fifo_ring_broken(ring, "a completion makes no sense");
		return false;
	}
	if (++ring->comp_head == ring->entries) {
		ring->comp_head = 0;
		ring->phase ^= 1;
	}
	ring->head = head;
	ring->moved += done;
	ring->completions++;
	/* Whoever is first now has its time from now on. */
	ring->look_at = jiffies + msecs_to_jiffies(fifo_timeout_ms);
	ring->looked = false;
	ring->bells = 0;
	fifo_ring_ended(ring, req, status, done);
	return true;
}

/* Takes what there is, and gives the hardware more. Returns how many completions there were. */
static unsigned int fifo_ring_take(struct fifo_ring *ring)
{
	unsigned int n;

	/* A stopped ring may have had its requests ended: then nothing is to come. */
	if (ring->state >= FIFO_FAILED ||
	    (ring->state == FIFO_STOPPED && list_empty(&ring->posted)))
		return 0;
	for (n = 0; n < FIFO_TAKE_AT_ONCE && !ring->error && fifo_ring_take_one(ring);)
		n++;
	if (n)
		writel(ring->comp_head, ring->comp_bell);
	if (ring->aborts_wanted && !ring->aborting)
		fifo_ring_abort(ring);
	fifo_ring_post(ring);
	return n;
}

/* Did the hardware say that the level was reached? */
static bool fifo_ring_notified(struct fifo_ring *ring)
{
	if (!ring->notify || ring->state != FIFO_RUNNING ||
	    fifo_read(ring->regs, FIFO_NOTIFY) == ring->notify)
		return false;
	ring->notify = 0;
	return true;
}

/* Completes what is done. With service held. */
static void fifo_ring_finish(struct fifo_ring *ring)
{
	struct fifo_request *req;

	for (;;) {
		spin_lock_irq(&ring->lock);
		req = list_first_entry_or_null(&ring->done, struct fifo_request, node);
		if (req)
			list_move_tail(&req->node, &ring->finishing);
		spin_unlock_irq(&ring->lock);
		if (!req)
			return;
		fifo_request_complete(req);
	}
}

static unsigned int fifo_ring_service_locked(struct fifo_ring *ring, bool *notified)
{
	unsigned int n, total = 0;
	bool done;

	do {
		spin_lock_irq(&ring->lock);
		n = fifo_ring_take(ring);
		*notified |= fifo_ring_notified(ring);
		done = !list_empty(&ring->done);
		spin_unlock_irq(&ring->lock);
		total += n;
		if (done)
			fifo_ring_finish(ring);
		cond_resched();
	} while (n);
	return total;
}

static void fifo_ring_reset(struct fifo_ring *ring);

/* Does all that there is to do. Says whether there was something. */
bool fifo_ring_service(struct fifo_ring *ring, bool interrupt)
{
	bool notified = false, broken;
	unsigned int n;

	mutex_lock(&ring->service);
	n = fifo_ring_service_locked(ring, &notified);
	spin_lock_irq(&ring->lock);
	if (interrupt && ring->state == FIFO_RUNNING && !n && !notified && !ring->error) {
		/* The ring may have an error that no completion could tell of. */
		u32 status = fifo_read(ring->regs, FIFO_RING_STATUS);

		if (FIFO_RING_STATE(status) == FIFO_STATE_ERROR)
			fifo_ring_broken(ring, "the ring has stopped with an error");
		else
			ring->stats.spurious++;
	}
	broken = ring->error && ring->state == FIFO_RUNNING;
	spin_unlock_irq(&ring->lock);
	if (interrupt)
		trace_fifo_interrupt(ring, n);
	if (broken) {
		fifo_ring_reset(ring);
		fifo_ring_finish(ring);
	}
	mutex_unlock(&ring->service);
	/* A write that ended is bytes for readers, and the other way round. */
	fifo_tell(ring->channel);
	return n || notified || broken;
}

static void fifo_ring_work(struct work_struct *work)
{
	fifo_ring_service(container_of(work, struct fifo_ring, work), false);
}

/* Has somebody else, in process context, do what there is to do. */
void fifo_ring_kick(struct fifo_ring *ring)
{
	queue_work(fifo_workqueue, &ring->work);
}

/* Aborts. With the ring's lock held. */

/* Has the hardware abort the next request that is to be, the last one first: so none begins. */
void fifo_ring_abort(struct fifo_ring *ring)
{
	struct fifo_request *req;

	if (ring->aborting || ring->state >= FIFO_FAILED || ring->error)
		return;
	list_for_each_entry_reverse(req, &ring->posted, node)
		if (req->abort)
			break;
	if (list_entry_is_head(req, &ring->posted, node)) {
		ring->aborts_wanted = false;
		return;
	}
	/* It takes one at a time, and an earlier one may have found nothing to do. */
	if (fifo_read(ring->regs, FIFO_ABORT_STATUS) == FIFO_ABORT_PENDING) {
		if (!ring->abort_blocked)
			ring->abort_until = jiffies + msecs_to_jiffies(fifo_abort_ms) + 1;
		ring->abort_blocked = true;
		fifo_ring_watch_by(ring, jiffies + 1);
		return;
	}
	ring->abort_blocked = false;
	ring->aborting = req;
	ring->abort_until = jiffies + msecs_to_jiffies(fifo_abort_ms) + 1;
	ring->stats.aborts++;
	fifo_write64(ring->regs, FIFO_ABORT, req->cookie);
	fifo_ring_watch_by(ring, ring->abort_until);
}

/* Recovery. */

/* Ends all requests that the ring has, and gives up on the hardware's. With the lock held. */
static void fifo_ring_end_all(struct fifo_ring *ring, int error)
{
	struct fifo_request *req, *next;

	ring->aborting = NULL;
	ring->aborts_wanted = false;
	list_for_each_entry_safe(req, next, &ring->posted, node) {
		req->error = 0;		/* nobody knows what was moved before its abort */
		fifo_request_end(req, error, true);
	}
	list_for_each_entry_safe(req, next, &ring->queued, node)
		fifo_request_end(req, error, true);
}

/*
 * Stops the hardware's work on the ring. False if it does not say that it has.
 * When it has, no DMA is under way: the read comes back after all writes to
 * memory. With the lock held, and the ring not FIFO_GONE.
 */
bool fifo_ring_halt(struct fifo_ring *ring)
{
	fifo_write(ring->regs, FIFO_RING_CONTROL, 0);
	return !(fifo_read(ring->regs, FIFO_RING_CONTROL) & FIFO_RING_RUN);
}

/* Takes back what the hardware has, in order, to post it again. With the lock held. */
static void fifo_ring_unpost(struct fifo_ring *ring)
{
	struct fifo_request *req, *next;

	ring->aborting = NULL;
	ring->aborts_wanted = false;
	list_for_each_entry_safe(req, next, &ring->posted, node) {
		req->state = FIFO_QUEUED;
		if (req->error)		/* it was to be aborted */
			fifo_request_end(req, 0, false);
	}
	list_splice_init(&ring->posted, &ring->queued);
}

/* Forgets all that was posted; the hardware has done so. With the lock held. */
static void fifo_ring_forget(struct fifo_ring *ring)
{
	ring->head = 0;
	ring->tail = 0;
	ring->comp_head = 0;
	ring->phase = 1;
	ring->error = false;
	ring->blamed = false;
	ring->stuck = false;
	ring->abort_blocked = false;
	ring->bells = 0;
	ring->notify = 0;
	ring->moved = fifo_moved(ring);
	memset(ring->comp, 0, ring->entries * sizeof(*ring->comp));
}

/* Tells the hardware of the ring, which is stopped. Does it take that? With the lock held. */
bool fifo_ring_setup(struct fifo_ring *ring)
{
	void __iomem *regs = ring->regs;

	fifo_write(regs, FIFO_RING_CONTROL, FIFO_RING_RESET);
	/* If it has not, it would go on with memory that is no more its own. */
	if (fifo_read(regs, FIFO_RING_STATUS) || fifo_read(regs, FIFO_RING_HEAD) ||
	    fifo_read(regs, FIFO_RING_TAIL) || fifo_read(regs, FIFO_COMP_TAIL))
		return false;
	fifo_ring_forget(ring);
	fifo_write64(regs, FIFO_RING_BASE, ring->desc_dma);
	fifo_write(regs, FIFO_RING_SIZE, ilog2(ring->entries));
	fifo_write64(regs, FIFO_COMP_BASE, ring->comp_dma);
	fifo_write(regs, FIFO_COMP_SIZE, ilog2(ring->entries));
	fifo_write(regs, FIFO_COALESCE, ring->coalesce);
	if (!ring->write)
		fifo_write(regs, FIFO_THRESHOLD, ring->channel->threshold);
	return fifo_read(regs, FIFO_RING_BASE) == lower_32_bits(ring->desc_dma) &&
	       fifo_read(regs, FIFO_RING_SIZE) == ilog2(ring->entries) &&
	       fifo_read(regs, FIFO_COMP_BASE) == lower_32_bits(ring->comp_dma) &&
	       fifo_read(regs, FIFO_COMP_SIZE) == ilog2(ring->entries);
}

/* Lets the ring work, on all that has come meanwhile. Does it? With the lock held. */
bool fifo_ring_run(struct fifo_ring *ring)
{
	fifo_write(ring->regs, FIFO_RING_CONTROL, FIFO_RING_RUN);
	if (!(fifo_read(ring->regs, FIFO_RING_CONTROL) & FIFO_RING_RUN))
		return false;
	ring->state = FIFO_RUNNING;
	fifo_ring_post(ring);
	return true;
}

/*
 * Ends what the hardware may have touched, and nobody knows how far it got. The
 * hardware stands still. With the lock held.
 */
static void fifo_ring_end_touched(struct fifo_ring *ring, u32 status)
{
	u32 mask = ring->entries - 1;
	u32 passed = (fifo_read(ring->regs, FIFO_RING_HEAD) - ring->head) & mask;
	/* With an error, it is at the request of which a completion told, or not. */
	bool at_first = FIFO_RING_STATE(status) != FIFO_STATE_ERROR ||
			(!ring->blamed && FIFO_RING_REASON(status) != FIFO_REASON_COMPLETION);
	struct fifo_request *req, *next;

	list_for_each_entry_safe(req, next, &ring->posted, node) {
		if (((req->chain_end - ring->head - 1) & mask) < passed) {
			fifo_request_end(req, -EIO, true);	/* its completion was lost */
		} else {
			if (at_first && !req->error)
				fifo_request_end(req, -EIO, true);
			break;
		}
	}
}

/*
 * Resets the ring. What the hardware was at ends, the others begin anew. Leaves
 * the rest to the device's reset if that does not help. With service held.
 */
static void fifo_ring_reset(struct fifo_ring *ring)
{
	struct fifo_device *fd = ring->channel->device;
	bool ok = false;
	u32 status;

	spin_lock_irq(&ring->lock);
	if (ring->state != FIFO_RUNNING) {
		spin_unlock_irq(&ring->lock);
		return;
	}
	status = fifo_read(ring->regs, FIFO_RING_STATUS);
	if (!PCI_POSSIBLE_ERROR(status) && fifo_ring_halt(ring)) {
		/* What has ended meanwhile, has. */
		ring->error = false;
		while (!ring->error && fifo_ring_take_one(ring))
			;
		fifo_ring_end_touched(ring, status);
		fifo_ring_unpost(ring);
		ring->stats.resets++;
		if (FIFO_RING_REASON(status) == FIFO_REASON_NOT_MASTER)
			pci_set_master(fd->pdev);
		ok = ++ring->resets <= FIFO_MAX_RESETS && fifo_ring_setup(ring);
	}
	trace_fifo_reset(ring, status);
	ok = ok && fifo_ring_run(ring);
	if (!ok)
		ring->state = FIFO_STOPPED;	/* until the device's reset */
	spin_unlock_irq(&ring->lock);
	fifo_warn_once(fd, FIFO_LOGGED_RING, "fifo%d %s: ring reset, status %#x",
		       ring->channel->minor, ring->write ? "tx" : "rx", status);
	if (!ok)
		fifo_device_recover(fd);
}

/* Ends all that the ring has, and what will come. */
void fifo_ring_fail(struct fifo_ring *ring, enum fifo_ring_state state, int error)
{
	mutex_lock(&ring->service);
	spin_lock_irq(&ring->lock);
	/* What has ended before, has. */
	if (ring->state == FIFO_RUNNING && fifo_ring_halt(ring))
		while (!ring->error && fifo_ring_take_one(ring))
			;
	if (ring->state != FIFO_GONE)
		ring->state = state;
	fifo_ring_end_all(ring, error);
	ring->notify = 0;
	spin_unlock_irq(&ring->lock);
	fifo_ring_finish(ring);
	mutex_unlock(&ring->service);
	fifo_tell(ring->channel);
}

/* Stops the ring, and keeps its requests to go on where they were. */
void fifo_ring_suspend(struct fifo_ring *ring)
{
	struct fifo_request *req, *first;
	bool ok;

	spin_lock_irq(&ring->lock);
	ok = ring->state == FIFO_RUNNING && fifo_ring_halt(ring);
	if (ring->state == FIFO_RUNNING)
		ring->state = FIFO_STOPPED;
	spin_unlock_irq(&ring->lock);
	/* How far the first one has got is in the completion of its abort. */
	fifo_ring_service(ring, false);
	spin_lock_irq(&ring->lock);
	req = list_first_entry_or_null(&ring->posted, struct fifo_request, node);
	if (ok && req) {
		req->requeue = true;
		req->abort = true;
		ring->aborts_wanted = true;
		fifo_ring_abort(ring);
	}
	spin_unlock_irq(&ring->lock);
	wait_event_timeout(ring->channel->wait, !READ_ONCE(ring->aborting),
			   msecs_to_jiffies(fifo_abort_ms) + 1);
	fifo_ring_service(ring, false);

	spin_lock_irq(&ring->lock);
	if (ring->aborting)
		fifo_request_end(ring->aborting, -EIO, true);
	first = list_first_entry_or_null(&ring->queued, struct fifo_request, node);
	fifo_ring_unpost(ring);
	/* It goes on before the others. It may have ended, too: it is only compared. */
	if (ok && req && first == req)
		list_move(&first->node, &ring->queued);
	spin_unlock_irq(&ring->lock);
	fifo_ring_service(ring, false);
}

/* Time. */

/* Has the watch run at that time (in jiffies) at the latest. With the lock held. */
void fifo_ring_watch_by(struct fifo_ring *ring, unsigned long when)
{
	unsigned long now = jiffies;

	if (ring->watching && !time_before(when, ring->watch_at))
		return;
	ring->watching = true;
	ring->watch_at = when;
	mod_delayed_work(fifo_workqueue, &ring->watch, time_after(when, now) ? when - now : 0);
}

/* Should the hardware have answered an abort? */
static bool fifo_ring_abort_late(struct fifo_ring *ring)
{
	return (ring->aborting || ring->abort_blocked) && !time_before(jiffies, ring->abort_until);
}

/* Has the time come of something that the watch was set for? With the lock held. */
static bool fifo_ring_is_late(struct fifo_ring *ring)
{
	struct fifo_request *req;

	if (!list_empty(&ring->posted) && !time_before(jiffies, ring->look_at))
		return true;
	if (fifo_ring_abort_late(ring))
		return true;
	list_for_each_entry(req, &ring->posted, node)
		if (req->expires && !time_before(jiffies, req->deadline))
			return true;
	return false;
}

/* Ends requests whose time is up. With the lock held. */
static void fifo_ring_expire(struct fifo_ring *ring)
{
	struct list_head *lists[] = { &ring->posted, &ring->queued };
	struct fifo_request *req, *next;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		list_for_each_entry_safe(req, next, lists[i], node) {
			if (!req->expires)
				continue;
			if (time_before(jiffies, req->deadline)) {
				fifo_ring_watch_by(ring, req->deadline);
				continue;
			}
			req->expires = false;
			fifo_request_cancel(req, req->nowait ? -EAGAIN : -ETIMEDOUT);
		}
	}
}

/*
 * Could the hardware do something for the first request? It has moved so many
 * bytes so far; a read that has got some ends when there are no more.
 */
static bool fifo_ring_has_work(struct fifo_ring *ring, struct fifo_request *req, u32 fill,
			       u32 moved)
{
	struct fifo_channel *ch = ring->channel;

	if (ring->write)
		return fill < ch->device->depth;
	return fill >= fifo_read_needs(ch, req->chain_bytes) || moved != ring->moved;
}

/* What fifo_ring_look() found. */
enum fifo_found {
	FIFO_FINE,
	FIFO_RESET_RING,
	FIFO_RESET_DEVICE,
};

/* The first request has not moved for long: what does the hardware say? With the lock held. */
static enum fifo_found fifo_ring_look(struct fifo_ring *ring)
{
	struct fifo_channel *ch = ring->channel;
	struct fifo_device *fd = ch->device;
	struct fifo_request *req = list_first_entry(&ring->posted, struct fifo_request, node);
	u32 status = fifo_read(ring->regs, FIFO_RING_STATUS);
	u32 bytes = fifo_moved(ring);
	u32 fill;
	bool looked = ring->looked && ring->look_bytes == bytes &&
		      ring->look_done == ring->completions;

	ring->looked = false;
	ring->look_at = jiffies + msecs_to_jiffies(fifo_timeout_ms);
	if (PCI_POSSIBLE_ERROR(status) || !fifo_channel_fill(ch, &fill))
		return FIFO_RESET_DEVICE;
	if (FIFO_RING_STATE(status) == FIFO_STATE_ERROR) {
		fifo_ring_broken(ring, "the ring has stopped with an error");
		return FIFO_RESET_RING;
	}
	/* It has forgotten what it was told: it was reset behind our back. */
	if (FIFO_RING_STATE(status) != FIFO_STATE_RUNNING ||
	    fifo_read(ring->regs, FIFO_RING_BASE) != lower_32_bits(ring->desc_dma) ||
	    !(fifo_read(fd->regs, FIFO_CONTROL) & FIFO_CONTROL_ENABLE))
		return FIFO_RESET_DEVICE;
	if (fifo_read(ring->regs, FIFO_RING_TAIL) != ring->tail) {
		if (ring->bells++ == FIFO_MAX_BELLS) {
			fifo_ring_broken(ring, "doorbells are lost");
			return FIFO_RESET_RING;
		}
		fifo_warn_once(fd, FIFO_LOGGED_DOORBELL, "fifo%d %s: a doorbell was lost",
			       ch->minor, ring->write ? "tx" : "rx");
		ring->stats.doorbells++;
		writel(ring->tail, ring->tail_bell);
		return FIFO_FINE;
	}
	if (fifo_read(ring->regs, FIFO_COMP_HEAD) != ring->comp_head)
		writel(ring->comp_head, ring->comp_bell);
	if (fifo_read(ring->regs, FIFO_COMP_TAIL) != ring->comp_head) {
		/* Unless it has just come: then it is there the next time. */
		if (looked) {
			fifo_ring_broken(ring, "a completion did not reach memory");
			return FIFO_RESET_RING;
		}
	} else if (!fifo_ring_has_work(ring, req, fill, bytes)) {
		return FIFO_FINE;	/* it is the other side's turn */
	}
	/* It must have had the time: so look twice. */
	if (!looked) {
		ring->looked = true;
		ring->look_bytes = bytes;
		ring->look_done = ring->completions;
		return FIFO_FINE;
	}
	fifo_warn_once(fd, FIFO_LOGGED_TIMEOUT, "fifo%d %s: a request timed out", ch->minor,
		       ring->write ? "tx" : "rx");
	ring->stuck = true;
	fifo_request_cancel(req, -ETIMEDOUT);
	return FIFO_FINE;
}

/* Looks after what no interrupt has ended. */
static void fifo_ring_watch(struct work_struct *work)
{
	struct fifo_ring *ring = container_of(to_delayed_work(work), struct fifo_ring, watch);
	struct fifo_channel *ch = ring->channel;
	enum fifo_found found = FIFO_FINE;
	bool late, notified = false;
	unsigned int n = 0;
	u32 fill;

	mutex_lock(&ring->service);
	spin_lock_irq(&ring->lock);
	ring->watching = false;
	late = fifo_ring_is_late(ring);
	spin_unlock_irq(&ring->lock);

	/* Else completions are the interrupt's matter. */
	if (late)
		n = fifo_ring_service_locked(ring, &notified);

	spin_lock_irq(&ring->lock);
	if (n) {
		ring->stats.lost_interrupts += n;
		fifo_warn_once(ch->device, FIFO_LOGGED_INTERRUPT, "fifo%d %s: an interrupt was lost",
			       ch->minor, ring->write ? "tx" : "rx");
		fifo_device_lost_interrupt(ch->device);
	}
	if (ring->state != FIFO_RUNNING)
		goto unlock;	/* who changes that looks after all */
	fifo_ring_expire(ring);
	if (ring->error) {
		found = FIFO_RESET_RING;
	} else if (fifo_ring_abort_late(ring)) {
		fifo_warn_once(ch->device, FIFO_LOGGED_ABORT, "fifo%d %s: an abort was not answered",
			       ch->minor, ring->write ? "tx" : "rx");
		found = FIFO_RESET_RING;
	} else if (ring->aborting) {
		fifo_ring_watch_by(ring, ring->abort_until);
	} else if (ring->aborts_wanted) {
		fifo_ring_abort(ring);
	}
	if (found == FIFO_FINE && !list_empty(&ring->posted)) {
		if (!time_before(jiffies, ring->look_at))
			found = fifo_ring_look(ring);
		fifo_ring_watch_by(ring, ring->look_at);
	}
	if (ring->notify) {
		if (time_before(jiffies, ring->notify_until)) {
			fifo_ring_watch_by(ring, ring->notify_until);
		} else if (!fifo_channel_fill(ch, &fill)) {
			found = FIFO_RESET_DEVICE;
		} else {
			/* Whoever waits has a look, and asks again. */
			ring->notify = 0;
			fifo_device_lost_interrupt(ch->device);
		}
	}
unlock:
	spin_unlock_irq(&ring->lock);
	if (found == FIFO_RESET_RING)
		fifo_ring_reset(ring);
	fifo_ring_finish(ring);
	mutex_unlock(&ring->service);
	fifo_tell(ch);
	if (found == FIFO_RESET_DEVICE)
		fifo_device_recover(ch->device);
}

/* The ring's memory. */

int fifo_ring_create(struct fifo_ring *ring, u32 entries)
{
	struct fifo_channel *ch = ring->channel;
	struct device *dev = &ch->device->pdev->dev;
	void __iomem *bells = ch->device->regs + FIFO_DOORBELLS(ch->index);

	ring->regs = ch->regs + (ring->write ? FIFO_TX : FIFO_RX);
	ring->tail_bell = bells + (ring->write ? FIFO_TX_TAIL : FIFO_RX_TAIL);
	ring->comp_bell = bells + (ring->write ? FIFO_TX_COMP_HEAD : FIFO_RX_COMP_HEAD);
	ring->cause = BIT(1 + 2 * ch->index + !ring->write);
	ring->entries = entries;
	spin_lock_init(&ring->lock);
	mutex_init(&ring->service);
	INIT_WORK(&ring->work, fifo_ring_work);
	INIT_DELAYED_WORK(&ring->watch, fifo_ring_watch);
	INIT_LIST_HEAD(&ring->queued);
	INIT_LIST_HEAD(&ring->posted);
	INIT_LIST_HEAD(&ring->done);
	INIT_LIST_HEAD(&ring->finishing);
	ring->state = FIFO_STOPPED;

	ring->desc = dma_alloc_coherent(dev, entries * sizeof(*ring->desc), &ring->desc_dma,
					GFP_KERNEL);
	if (!ring->desc)
		return -ENOMEM;
	ring->comp = dma_alloc_coherent(dev, entries * sizeof(*ring->comp), &ring->comp_dma,
					GFP_KERNEL);
	if (!ring->comp) {
		dma_free_coherent(dev, entries * sizeof(*ring->desc), ring->desc, ring->desc_dma);
		return -ENOMEM;
	}
	return 0;
}

/* The ring is FIFO_GONE, or was never started. */
void fifo_ring_free(struct fifo_ring *ring)
{
	struct device *dev = &ring->channel->device->pdev->dev;

	cancel_work_sync(&ring->work);
	cancel_delayed_work_sync(&ring->watch);
	fifo_ring_service(ring, false);
	dma_free_coherent(dev, ring->entries * sizeof(*ring->comp), ring->comp, ring->comp_dma);
	dma_free_coherent(dev, ring->entries * sizeof(*ring->desc), ring->desc, ring->desc_dma);
}
