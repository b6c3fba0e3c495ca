// SPDX-License-Identifier: GPL-2.0
/*
 * fifo_aio - the PCI function: from probe to removal
 *
 * Resets of the whole device, suspend and resume are here as well; a ring's own
 * matters are in ring.c. docs/driver.md is the manual.
 */
#include <linux/dma-mapping.h>
#include <linux/iopoll.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "fifo.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

struct workqueue_struct *fifo_workqueue;

/* Devices whose memory is there, for the module's exit to wait for. */
static atomic_t fifo_devices = ATOMIC_INIT(0);
static DECLARE_WAIT_QUEUE_HEAD(fifo_devices_wait);

/* Parameters. */

struct fifo_range {
	unsigned int *value;
	unsigned int min;
	unsigned int max;
};

static int fifo_set_range(const char *text, const struct kernel_param *kp)
{
	const struct fifo_range *range = kp->arg;
	unsigned int value;
	int err;

	err = kstrtouint(text, 0, &value);
	if (err)
		return err;
	if (value < range->min || value > range->max)
		return -EINVAL;
	WRITE_ONCE(*range->value, value);
	return 0;
}

static int fifo_get_range(char *buf, const struct kernel_param *kp)
{
	const struct fifo_range *range = kp->arg;

	return sysfs_emit(buf, "%u\n", *range->value);
}

static const struct kernel_param_ops fifo_range_ops = {
	.set = fifo_set_range,
	.get = fifo_get_range,
};

unsigned int fifo_timeout_ms = 1000;
static struct fifo_range fifo_timeout_ms_range = { &fifo_timeout_ms, 10, 60000 };
module_param_cb(timeout_ms, &fifo_range_ops, &fifo_timeout_ms_range, 0644);
MODULE_PARM_DESC(timeout_ms, "Time after which hardware that does nothing is stuck, in ms");

unsigned int fifo_abort_ms = 20;
static struct fifo_range fifo_abort_ms_range = { &fifo_abort_ms, 1, 1000 };
module_param_cb(abort_ms, &fifo_range_ops, &fifo_abort_ms_range, 0644);
MODULE_PARM_DESC(abort_ms, "Time that the hardware has for an abort, in ms");

unsigned int fifo_wait_ms = 120000;
static struct fifo_range fifo_wait_ms_range = { &fifo_wait_ms, 0, 3600000 };
module_param_cb(wait_ms, &fifo_range_ops, &fifo_wait_ms_range, 0644);
MODULE_PARM_DESC(wait_ms,
		 "Longest wait of an asynchronous request for the other side, in ms; 0: for ever");

unsigned int fifo_queue_limit = 4096;
static struct fifo_range fifo_queue_limit_range = { &fifo_queue_limit, 1, 65536 };
module_param_cb(queue_limit, &fifo_range_ops, &fifo_queue_limit_range, 0444);
MODULE_PARM_DESC(queue_limit, "Requests in flight in one direction of a channel, at most");

static unsigned int fifo_ring_entries = 1024;
static struct fifo_range fifo_ring_entries_range = { &fifo_ring_entries, 2, FIFO_MAX_ENTRIES };
module_param_cb(ring_entries, &fifo_range_ops, &fifo_ring_entries_range, 0444);
MODULE_PARM_DESC(ring_entries, "Descriptors of a ring: a power of two");

static unsigned int fifo_vectors = FIFO_MAX_VECTORS;
static struct fifo_range fifo_vectors_range = { &fifo_vectors, 0, FIFO_MAX_VECTORS };
module_param_cb(vectors, &fifo_range_ops, &fifo_vectors_range, 0444);
MODULE_PARM_DESC(vectors, "Interrupts at most; 0: the pin");

static unsigned int fifo_coalesce_count = 16;
static struct fifo_range fifo_coalesce_count_range = { &fifo_coalesce_count, 0, 255 };
module_param_cb(coalesce_count, &fifo_range_ops, &fifo_coalesce_count_range, 0444);
MODULE_PARM_DESC(coalesce_count, "Completions an interrupt, of requests behind others");

static unsigned int fifo_coalesce_us = 30;
static struct fifo_range fifo_coalesce_us_range = { &fifo_coalesce_us, 1, 65535 };
module_param_cb(coalesce_us, &fifo_range_ops, &fifo_coalesce_us_range, 0444);
MODULE_PARM_DESC(coalesce_us, "Longest wait for them, in us");

/* The device's memory, which open files keep. */

static void fifo_device_free(struct kref *ref)
{
	struct fifo_device *fd = container_of(ref, struct fifo_device, ref);

	cleanup_srcu_struct(&fd->unmapped);
	mutex_destroy(&fd->recovery);
	kfree(fd);
	if (atomic_dec_and_test(&fifo_devices))
		wake_up_all(&fifo_devices_wait);
}

void fifo_device_get(struct fifo_device *fd)
{
	kref_get(&fd->ref);
}

void fifo_device_put(struct fifo_device *fd)
{
	kref_put(&fd->ref, fifo_device_free);
}

/* All rings of the device. */

static struct fifo_ring *fifo_ring_at(struct fifo_device *fd, int i)
{
	struct fifo_channel *ch = &fd->channel[i / 2];

	return i & 1 ? &ch->rx : &ch->tx;
}

static void fifo_fail_rings(struct fifo_device *fd, enum fifo_ring_state state, int error)
{
	int i;

	for (i = 0; i < 2 * fd->channels; i++)
		fifo_ring_fail(fifo_ring_at(fd, i), state, error);
}

/* Stops all DMA; if the device does not say that it has, by cutting it off. */
static void fifo_quiesce(struct fifo_device *fd)
{
	fifo_write(fd->regs, FIFO_CONTROL, 0);
	if (fifo_read(fd->regs, FIFO_CONTROL) & FIFO_CONTROL_ENABLE)
		pci_clear_master(fd->pdev);
}

/* Soft reset. */
static int fifo_reset(struct fifo_device *fd)
{
	u32 status;
	int i;

	fifo_write(fd->regs, FIFO_CONTROL, FIFO_CONTROL_RESET);
	if (readx_poll_timeout(readl, fd->regs + FIFO_STATUS, status,
			       PCI_POSSIBLE_ERROR(status) || status & FIFO_STATUS_READY,
			       10, FIFO_RESET_US))
		return -ETIMEDOUT;
	if (PCI_POSSIBLE_ERROR(status))
		return -ENODEV;
	/* It was ready before, too. */
	for (i = 0; i < fd->channels; i++)
		if (fifo_read(fd->regs, FIFO_CHANNEL(i) + FIFO_TX + FIFO_RING_SIZE) ||
		    fifo_read(fd->regs, FIFO_CHANNEL(i) + FIFO_RX + FIFO_RING_SIZE))
			return -ETIMEDOUT;
	return 0;
}

/* The interrupt of a cause, with as many as there are. Errors have the first for themselves. */
static int fifo_vector_of(struct fifo_device *fd, int cause)
{
	if (!cause || fd->vectors == 1)
		return 0;
	return 1 + (cause - 1) % (fd->vectors - 1);
}

/* Tells the device, which is stopped, all that it has to know, and lets it work. */
static int fifo_start(struct fifo_device *fd)
{
	bool ok = true;
	int i;

	pci_set_master(fd->pdev);
	fifo_write(fd->regs, FIFO_ERROR_VECTOR, 0);
	fifo_write(fd->regs, FIFO_ERROR_CAUSE, ~0);
	fifo_write(fd->regs, FIFO_IRQ_CAUSE, ~0);
	fifo_write(fd->regs, FIFO_IRQ_ENABLE, pci_dev_msi_enabled(fd->pdev) ? 0 :
		   GENMASK(2 * fd->channels, 0));
	for (i = 0; i < 2 * fd->channels; i++) {
		struct fifo_ring *ring = fifo_ring_at(fd, i);

		spin_lock_irq(&ring->lock);
		fifo_write(ring->regs, FIFO_VECTOR, fifo_vector_of(fd, i + 1));
		ok &= fifo_ring_setup(ring);
		ring->resets = 0;
		spin_unlock_irq(&ring->lock);
	}
	fifo_write(fd->regs, FIFO_CONTROL, FIFO_CONTROL_ENABLE);
	if (!ok || fifo_read(fd->regs, FIFO_CONTROL) != FIFO_CONTROL_ENABLE)
		return -EIO;
	for (i = 0; i < 2 * fd->channels; i++) {
		struct fifo_ring *ring = fifo_ring_at(fd, i);

		spin_lock_irq(&ring->lock);
		ok &= fifo_ring_run(ring);
		spin_unlock_irq(&ring->lock);
		fifo_tell(ring->channel);
	}
	return ok ? 0 : -EIO;
}

/* Recovery. */

/* The device has gone, or will not work any more: everybody is told so. With recovery held. */
static void fifo_give_up(struct fifo_device *fd, bool gone)
{
	dev_err(&fd->pdev->dev, gone ? "the device has gone\n" :
		"the device does not work any more; it is given up until it is reset\n");
	fifo_quiesce(fd);
	if (!gone)
		pci_clear_master(fd->pdev);
	fifo_fail_rings(fd, gone ? FIFO_GONE : FIFO_FAILED, gone ? -ENODEV : -EIO);
}

static bool fifo_is_gone(struct fifo_device *fd)
{
	return PCI_POSSIBLE_ERROR(fifo_read(fd->regs, FIFO_ID));
}

/*
 * Resets the device: what is in flight ends with EIO. Returns -EAGAIN if that
 * did not help and a function-level reset is due. With recovery held.
 */
static int fifo_device_reset(struct fifo_device *fd)
{
	if (fifo_is_gone(fd)) {
		fifo_give_up(fd, true);
		return -ENODEV;
	}
	atomic64_inc(&fd->resets);
	dev_warn(&fd->pdev->dev, "device reset\n");
	fifo_quiesce(fd);
	fifo_fail_rings(fd, FIFO_STOPPED, -EIO);
	if (atomic_inc_return(&fd->resets_in_a_row) > FIFO_MAX_RESETS ||
	    fifo_reset(fd) || fifo_start(fd))
		return -EAGAIN;
	return 0;
}

static void fifo_recover_work(struct work_struct *work)
{
	struct fifo_device *fd = container_of(work, struct fifo_device, recover);
	int err = 0;

	mutex_lock(&fd->recovery);
	if (!fd->removing && !fd->suspended)
		err = fifo_device_reset(fd);
	mutex_unlock(&fd->recovery);
	if (err != -EAGAIN)
		return;
	if (atomic_read(&fd->resets_in_a_row) <= FIFO_MAX_RESETS + 1) {
		/* It calls fifo_reset_prepare() and fifo_reset_done(). */
		dev_warn(&fd->pdev->dev, "function-level reset\n");
		if (!pci_try_reset_function(fd->pdev))
			return;
	}
	mutex_lock(&fd->recovery);
	if (!fd->removing && !fd->suspended)
		fifo_give_up(fd, fifo_is_gone(fd));
	mutex_unlock(&fd->recovery);
}

/* Has the device reset, or found to have gone. From any context. */
void fifo_device_recover(struct fifo_device *fd)
{
	queue_work(fifo_workqueue, &fd->recover);
}

/* Resets one channel, or a device that was given up. */
int fifo_channel_reset(struct fifo_channel *ch)
{
	struct fifo_ring *rings[] = { &ch->tx, &ch->rx };
	struct fifo_device *fd = ch->device;
	bool ok = true, again;
	int i, err = 0;

	/* During a function-level reset the registers are not there. */
	do {
		if (wait_event_interruptible(ch->wait, READ_ONCE(fd->removing) ||
					     !READ_ONCE(fd->suspended)))
			return -ERESTARTSYS;
		mutex_lock(&fd->recovery);
		again = fd->suspended && !fd->removing;
		if (again)
			mutex_unlock(&fd->recovery);
	} while (again);
	if (fd->removing || ch->rx.state == FIFO_GONE) {
		err = -ENODEV;
		goto unlock;
	}
	if (ch->rx.state != FIFO_RUNNING || ch->tx.state != FIFO_RUNNING) {
		atomic_set(&fd->resets_in_a_row, 0);
		err = fifo_device_reset(fd) ? -EIO : 0;
		if (err && !fifo_is_gone(fd))
			fifo_give_up(fd, false);
		goto unlock;
	}
	for (i = 0; i < ARRAY_SIZE(rings); i++) {
		spin_lock_irq(&rings[i]->lock);
		ok &= fifo_ring_halt(rings[i]);
		spin_unlock_irq(&rings[i]->lock);
	}
	if (!ok) {
		err = -EIO;
		fifo_device_recover(fd);
		goto unlock;
	}
	for (i = 0; i < ARRAY_SIZE(rings); i++)
		fifo_ring_fail(rings[i], FIFO_STOPPED, -EIO);
	fifo_write(ch->regs, FIFO_CH_CONTROL, FIFO_CH_CONTROL_FLUSH);
	for (i = 0; i < ARRAY_SIZE(rings); i++) {
		spin_lock_irq(&rings[i]->lock);
		ok &= fifo_ring_setup(rings[i]) && fifo_ring_run(rings[i]);
		spin_unlock_irq(&rings[i]->lock);
	}
	if (!ok) {
		err = -EIO;
		fifo_device_recover(fd);
	}
unlock:
	mutex_unlock(&fd->recovery);
	fifo_tell(ch);
	return err;
}

/* Interrupts. */

/* Looks after what the device says of its errors. Says whether there was one. */
static bool fifo_handle_error(struct fifo_device *fd)
{
	u32 cause = fifo_read(fd->regs, FIFO_ERROR_CAUSE);
	int i;

	if (PCI_POSSIBLE_ERROR(cause)) {
		fifo_device_recover(fd);
		return true;
	}
	if (!cause)
		return false;
	fifo_write(fd->regs, FIFO_ERROR_CAUSE, cause);
	if (cause & FIFO_ERROR_OVERRUN)
		fifo_warn_once(fd, FIFO_LOGGED_OVERRUN, "overrun: bytes were lost");
	if (!(cause & (FIFO_ERROR_PARITY | FIFO_ERROR_DMA | FIFO_ERROR_DESCRIPTOR)))
		return true;
	for (i = 0; i < 2 * fd->channels; i++)
		fifo_ring_service(fifo_ring_at(fd, i), true);
	return true;
}

static irqreturn_t fifo_thread(int irq, void *data)
{
	struct fifo_vector *vector = data;
	struct fifo_device *fd = vector->device;
	u32 causes = vector->causes;
	bool handled = false;
	int i;

	if (!pci_dev_msi_enabled(fd->pdev))
		causes = atomic_xchg(&vector->raised, 0);
	if (causes & BIT(0))
		handled |= fifo_handle_error(fd);
	for (i = 0; i < 2 * fd->channels; i++)
		if (causes & fifo_ring_at(fd, i)->cause)
			handled |= fifo_ring_service(fifo_ring_at(fd, i), true);
	return handled ? IRQ_HANDLED : IRQ_NONE;
}

static void fifo_count(struct fifo_device *fd, u32 causes)
{
	int i;

	for (i = 0; i < 2 * fd->channels; i++)
		if (causes & fifo_ring_at(fd, i)->cause)
			atomic64_inc(&fifo_ring_at(fd, i)->interrupts);
}

static irqreturn_t fifo_message(int irq, void *data)
{
	struct fifo_vector *vector = data;

	fifo_count(vector->device, vector->causes);
	return IRQ_WAKE_THREAD;
}

/* The pin, which others may share, and which is up until its causes are cleared. */
static irqreturn_t fifo_pin(int irq, void *data)
{
	struct fifo_vector *vector = data;
	struct fifo_device *fd = vector->device;
	u32 causes = fifo_read(fd->regs, FIFO_IRQ_CAUSE);

	if (PCI_POSSIBLE_ERROR(causes) || !(causes & vector->causes))
		return IRQ_NONE;
	fifo_write(fd->regs, FIFO_IRQ_CAUSE, causes);
	fifo_count(fd, causes);
	atomic_or(causes, &vector->raised);
	return IRQ_WAKE_THREAD;
}

/* An interrupt was lost. The pin stays up until its causes are cleared: then no other comes. */
void fifo_device_lost_interrupt(struct fifo_device *fd)
{
	u32 causes;
	int i;

	if (pci_dev_msi_enabled(fd->pdev))
		return;
	causes = fifo_read(fd->regs, FIFO_IRQ_CAUSE);
	if (PCI_POSSIBLE_ERROR(causes))
		return;
	fifo_write(fd->regs, FIFO_IRQ_CAUSE, causes);
	for (i = 0; i < 2 * fd->channels; i++)
		if (causes & fifo_ring_at(fd, i)->cause)
			fifo_ring_kick(fifo_ring_at(fd, i));
}

static void fifo_free_interrupts(struct fifo_device *fd)
{
	while (fd->vectors--)
		free_irq(fd->vector[fd->vectors].irq, &fd->vector[fd->vectors]);
	pci_free_irq_vectors(fd->pdev);
}

static int fifo_request_interrupts(struct fifo_device *fd)
{
	int want = min_t(int, fifo_vectors, 1 + 2 * fd->channels);
	int cause, err, n, got;
	bool message;

	got = pci_alloc_irq_vectors(fd->pdev, 1, max(want, 1),
				    want ? PCI_IRQ_ALL_TYPES : PCI_IRQ_INTX);
	if (got < 0)
		return got;
	message = pci_dev_msi_enabled(fd->pdev);
	fd->vectors = got;
	for (n = 0; n < got; n++)
		fd->vector[n].device = fd;
	for (cause = 0; cause <= 2 * fd->channels; cause++)
		fd->vector[fifo_vector_of(fd, cause)].causes |= BIT(cause);

	for (fd->vectors = 0; fd->vectors < got; fd->vectors++) {
		struct fifo_vector *vector = &fd->vector[fd->vectors];

		vector->irq = pci_irq_vector(fd->pdev, fd->vectors);
		err = request_threaded_irq(vector->irq, message ? fifo_message : fifo_pin,
					   fifo_thread, message ? 0 : IRQF_SHARED,
					   pci_name(fd->pdev), vector);
		if (err)
			goto free;
	}
	return 0;

free:
	fifo_free_interrupts(fd);
	return err;
}

/* Probe and removal. */

static int fifo_identify(struct fifo_device *fd)
{
	struct device *dev = &fd->pdev->dev;
	u32 id = fifo_read(fd->regs, FIFO_ID), caps;

	fd->version = fifo_read(fd->regs, FIFO_VERSION);
	caps = fifo_read(fd->regs, FIFO_CAPS);
	if (id != FIFO_ID_VALUE || FIFO_VERSION_MAJOR(fd->version) != 1 ||
	    fd->version < FIFO_VERSION_NOTIFY) {
		dev_err(dev, "unknown device: id %#x, version %#x\n", id, fd->version);
		return -ENODEV;
	}
	fd->depth = fifo_read(fd->regs, FIFO_DEPTH);
	fd->max_length = fifo_read(fd->regs, FIFO_MAX_LENGTH);
	fd->chain = BIT(min_t(u32, FIFO_CAPS_CHAIN_LOG(caps), 12));
	if (FIFO_CAPS_CHANNELS(caps) != fd->channels || !fd->depth || !fd->max_length ||
	    PCI_POSSIBLE_ERROR(fd->max_length) || PCI_POSSIBLE_ERROR(fd->depth) ||
	    fifo_ring_entries > BIT(min_t(u32, FIFO_CAPS_RING_LOG(caps), 12))) {
		dev_err(dev, "can't work with capabilities %#x, depth %u, length %u, %u entries\n",
			caps, fd->depth, fd->max_length, fifo_ring_entries);
		return -ENODEV;
	}
	/* A chain has to fit in the ring. */
	fd->chain = min(fd->chain, fifo_ring_entries - 1);
	return 0;
}

/* Soft reset; where that does not work, function-level reset, once. */
static int fifo_first_reset(struct fifo_device *fd)
{
	int err;

	err = fifo_reset(fd);
	if (err != -ETIMEDOUT)
		return err;
	err = pci_save_state(fd->pdev);
	if (!err)
		err = pcie_flr(fd->pdev);
	if (err)
		return err;
	pci_restore_state(fd->pdev);
	return fifo_reset(fd);
}

static int fifo_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device *dev = &pdev->dev;
	struct fifo_device *fd;
	void __iomem *regs;
	int err, made, added, channels;

	err = pci_enable_device_mem(pdev);
	if (err)
		return err;
	err = pci_request_mem_regions(pdev, FIFO_NAME);
	if (err)
		goto disable;
	if (pci_resource_len(pdev, FIFO_BAR) < FIFO_BAR_SIZE) {
		err = -ENODEV;
		goto release;
	}
	regs = pci_iomap(pdev, FIFO_BAR, FIFO_BAR_SIZE);
	if (!regs) {
		err = -ENOMEM;
		goto release;
	}
	channels = FIFO_CAPS_CHANNELS(fifo_read(regs, FIFO_CAPS));
	if (channels < 1 || channels > FIFO_MAX_CHANNELS) {
		dev_err(dev, "%d channels\n", channels);
		err = -ENODEV;
		goto unmap;
	}
	fd = kzalloc(struct_size(fd, channel, channels), GFP_KERNEL);
	if (!fd) {
		err = -ENOMEM;
		goto unmap;
	}
	err = init_srcu_struct(&fd->unmapped);
	if (err) {
		kfree(fd);
		goto unmap;
	}
	kref_init(&fd->ref);
	atomic_inc(&fifo_devices);
	mutex_init(&fd->recovery);
	INIT_WORK(&fd->recover, fifo_recover_work);
	fd->pdev = pdev;
	fd->regs = regs;
	fd->channels = channels;

	err = fifo_identify(fd);
	if (err)
		goto put;
	err = fifo_first_reset(fd);
	if (err) {
		dev_err(dev, "the device does not come out of reset\n");
		goto put;
	}
	err = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (err)
		goto put;
	/* Bounce buffers, where DMA goes through them, are shorter. */
	fd->max_length = min_t(size_t, fd->max_length, dma_max_mapping_size(dev));
	dma_set_max_seg_size(dev, fd->max_length);
	dma_set_seg_boundary(dev, ULONG_MAX);

	for (made = 0; made < channels; made++) {
		struct fifo_channel *ch = &fd->channel[made];

		err = fifo_channel_create(fd, made, fifo_ring_entries);
		if (err)
			goto free_rings;
		ch->tx.coalesce = FIFO_COALESCE_VALUE(fifo_coalesce_count, fifo_coalesce_us);
		ch->rx.coalesce = ch->tx.coalesce;
	}
	err = fifo_request_interrupts(fd);
	if (err)
		goto free_rings;
	err = fifo_start(fd);
	if (err) {
		dev_err(dev, "the device does not take its setup\n");
		goto quiesce;
	}
	pci_set_drvdata(pdev, fd);
	for (added = 0; added < channels; added++) {
		err = fifo_channel_add(&fd->channel[added]);
		if (err)
			goto remove;
	}
	dev_info(dev, "%d channels of %u bytes, fifo%d on, %d interrupts\n", channels, fd->depth,
		 fd->channel[0].minor, fd->vectors);
	return 0;

remove:
	while (added--)
		fifo_channel_remove(&fd->channel[added]);
quiesce:
	fd->removing = true;
	fifo_quiesce(fd);
	pci_clear_master(pdev);
	fifo_free_interrupts(fd);
	fifo_fail_rings(fd, FIFO_GONE, -ENODEV);
	synchronize_srcu(&fd->unmapped);
free_rings:
	while (made--) {
		fifo_ring_free(&fd->channel[made].rx);
		fifo_ring_free(&fd->channel[made].tx);
	}
	cancel_work_sync(&fd->recover);
put:
	fifo_device_put(fd);
unmap:
	pci_iounmap(pdev, regs);
release:
	pci_release_mem_regions(pdev);
disable:
	pci_disable_device(pdev);
	return err;
}

/*
 * The hardware may have gone already: then its registers read as all ones, and
 * nothing here waits for it.
 */
static void fifo_remove(struct pci_dev *pdev)
{
	struct fifo_device *fd = pci_get_drvdata(pdev);
	int i;

	mutex_lock(&fd->recovery);
	fd->removing = true;
	/* No DMA from here on; then nothing can come any more. */
	fifo_quiesce(fd);
	pci_clear_master(pdev);
	mutex_unlock(&fd->recovery);

	fifo_fail_rings(fd, FIFO_GONE, -ENODEV);
	synchronize_srcu(&fd->unmapped);
	fifo_free_interrupts(fd);
	for (i = 0; i < fd->channels; i++) {
		fifo_channel_remove(&fd->channel[i]);
		fifo_ring_free(&fd->channel[i].rx);
		fifo_ring_free(&fd->channel[i].tx);
	}
	cancel_work_sync(&fd->recover);	/* nobody is left to ask for it */
	pci_iounmap(pdev, fd->regs);
	pci_release_mem_regions(pdev);
	pci_disable_device(pdev);
	/* Files that are open have it until they are closed. */
	fifo_device_put(fd);
}

/* Before power-off and kexec: no DMA into the next kernel. */
static void fifo_shutdown(struct pci_dev *pdev)
{
	struct fifo_device *fd = pci_get_drvdata(pdev);

	fifo_quiesce(fd);
	pci_clear_master(pdev);
}

/* Power. */

static int fifo_suspend(struct device *dev)
{
	struct fifo_device *fd = dev_get_drvdata(dev);
	int i;

	mutex_lock(&fd->recovery);
	fd->suspended = true;
	for (i = 0; i < 2 * fd->channels; i++)
		fifo_ring_suspend(fifo_ring_at(fd, i));
	fifo_quiesce(fd);
	mutex_unlock(&fd->recovery);
	/*
	 * Having saved the state ourselves keeps the PCI core from D3hot, where
	 * the bytes in the FIFO would be lost.
	 */
	return pci_save_state(fd->pdev);
}

static int fifo_resume(struct device *dev)
{
	struct fifo_device *fd = dev_get_drvdata(dev);

	mutex_lock(&fd->recovery);
	fd->suspended = false;
	/* A device that was given up stays so. */
	if (fd->channel[0].rx.state == FIFO_STOPPED && fifo_start(fd))
		fifo_device_recover(fd);
	mutex_unlock(&fd->recovery);
	return 0;
}

static DEFINE_SIMPLE_DEV_PM_OPS(fifo_pm_ops, fifo_suspend, fifo_resume);

/* Function-level reset, by sysfs or by ourselves; the PCI core has the device's lock. */

static void fifo_reset_prepare(struct pci_dev *pdev)
{
	struct fifo_device *fd = pci_get_drvdata(pdev);

	mutex_lock(&fd->recovery);
	atomic64_inc(&fd->resets);
	fd->suspended = true;
	fifo_quiesce(fd);
	fifo_fail_rings(fd, FIFO_STOPPED, -EIO);
	mutex_unlock(&fd->recovery);
}

static void fifo_reset_done(struct pci_dev *pdev)
{
	struct fifo_device *fd = pci_get_drvdata(pdev);

	mutex_lock(&fd->recovery);
	fd->suspended = false;
	if (fifo_is_gone(fd) || fifo_reset(fd) || fifo_start(fd))
		fifo_give_up(fd, fifo_is_gone(fd));
	mutex_unlock(&fd->recovery);
}

/* Errors of the bus. */

static pci_ers_result_t fifo_error_detected(struct pci_dev *pdev, pci_channel_state_t state)
{
	if (state == pci_channel_io_normal)
		return PCI_ERS_RESULT_CAN_RECOVER;
	fifo_reset_prepare(pdev);
	return state == pci_channel_io_frozen ? PCI_ERS_RESULT_NEED_RESET :
						PCI_ERS_RESULT_DISCONNECT;
}

static pci_ers_result_t fifo_slot_reset(struct pci_dev *pdev)
{
	struct fifo_device *fd = pci_get_drvdata(pdev);

	pci_restore_state(pdev);
	fifo_reset_done(pdev);
	return fd->channel[0].rx.state == FIFO_RUNNING ? PCI_ERS_RESULT_RECOVERED :
							 PCI_ERS_RESULT_DISCONNECT;
}

static const struct pci_error_handlers fifo_errors = {
	.error_detected = fifo_error_detected,
	.slot_reset = fifo_slot_reset,
	.reset_prepare = fifo_reset_prepare,
	.reset_done = fifo_reset_done,
};

static const struct pci_device_id fifo_ids[] = {
	{ PCI_DEVICE(FIFO_VENDOR, FIFO_DEVICE) },
	{ }
};
MODULE_DEVICE_TABLE(pci, fifo_ids);

static struct pci_driver fifo_driver = {
	.name = FIFO_NAME,
	.id_table = fifo_ids,
	.probe = fifo_probe,
	.remove = fifo_remove,
	.shutdown = fifo_shutdown,
	.driver.pm = pm_sleep_ptr(&fifo_pm_ops),
	.err_handler = &fifo_errors,
};

/* The module. */

static int __init fifo_init(void)
{
	int err;

	if (!is_power_of_2(fifo_ring_entries))
		return -EINVAL;
	fifo_workqueue = alloc_workqueue(FIFO_NAME, WQ_UNBOUND, 0);
	if (!fifo_workqueue)
		return -ENOMEM;
	err = fifo_request_init();
	if (err)
		goto free_workqueue;
	err = fifo_channel_init();
	if (err)
		goto exit_request;
	fifo_stats_init();
	fifo_debugfs_init();
	err = pci_register_driver(&fifo_driver);
	if (err)
		goto exit_channel;
	return 0;

exit_channel:
	fifo_debugfs_exit();
	fifo_channel_exit();
exit_request:
	fifo_request_exit();
free_workqueue:
	destroy_workqueue(fifo_workqueue);
	return err;
}

static void __exit fifo_exit(void)
{
	pci_unregister_driver(&fifo_driver);
	/* The last reference to a device's name may be given back late. */
	wait_event(fifo_devices_wait, !atomic_read(&fifo_devices));
	fifo_debugfs_exit();
	fifo_channel_exit();
	fifo_request_exit();
	destroy_workqueue(fifo_workqueue);
}

module_init(fifo_init);
module_exit(fifo_exit);

MODULE_DESCRIPTION("FIFO with scatter-gather DMA: asynchronous I/O on a character device");
MODULE_AUTHOR("the fifovm authors");
MODULE_LICENSE("GPL");
