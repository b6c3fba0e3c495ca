// SPDX-License-Identifier: GPL-2.0
/* fifo_aio - statistics in sysfs, and the state of each ring in debugfs */
#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "fifo.h"

/* sysfs: /sys/class/fifo/fifoN/{tx,rx}/NAME */

static const struct {
	const char *name;
	size_t offset;	/* in struct fifo_aio_ring_stats */
} fifo_stats[] = {
	{ "requests", offsetof(struct fifo_aio_ring_stats, requests) },
	{ "bytes", offsetof(struct fifo_aio_ring_stats, bytes) },
	{ "errors", offsetof(struct fifo_aio_ring_stats, errors) },
	{ "cancelled", offsetof(struct fifo_aio_ring_stats, cancelled) },
	{ "timeouts", offsetof(struct fifo_aio_ring_stats, timeouts) },
	{ "aborts", offsetof(struct fifo_aio_ring_stats, aborts) },
	{ "resets", offsetof(struct fifo_aio_ring_stats, resets) },
	{ "interrupts", offsetof(struct fifo_aio_ring_stats, interrupts) },
	{ "spurious", offsetof(struct fifo_aio_ring_stats, spurious) },
	{ "lost_interrupts", offsetof(struct fifo_aio_ring_stats, lost_interrupts) },
	{ "doorbells", offsetof(struct fifo_aio_ring_stats, doorbells) },
};

/* One for each direction and name. */
struct fifo_stat {
	struct device_attribute attr;
	bool write;
	size_t offset;
};

static struct fifo_stat fifo_stat[2][ARRAY_SIZE(fifo_stats)];
static struct attribute *fifo_stat_attrs[2][ARRAY_SIZE(fifo_stats) + 1];

static ssize_t fifo_stat_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct fifo_channel *ch = container_of(dev, struct fifo_channel, dev);
	struct fifo_stat *stat = container_of(attr, struct fifo_stat, attr);
	struct fifo_ring *ring = stat->write ? &ch->tx : &ch->rx;
	u64 value;

	if (stat->offset == offsetof(struct fifo_aio_ring_stats, interrupts)) {
		value = atomic64_read(&ring->interrupts);
	} else {
		spin_lock_irq(&ring->lock);
		value = *(u64 *)((char *)&ring->stats + stat->offset);
		spin_unlock_irq(&ring->lock);
	}
	return sysfs_emit(buf, "%llu\n", value);
}

static const struct attribute_group fifo_rx_group = {
	.name = "rx",
	.attrs = fifo_stat_attrs[0],
};

static const struct attribute_group fifo_tx_group = {
	.name = "tx",
	.attrs = fifo_stat_attrs[1],
};

void fifo_stats_init(void)
{
	int write, i;

	for (write = 0; write < 2; write++) {
		for (i = 0; i < ARRAY_SIZE(fifo_stats); i++) {
			struct fifo_stat *stat = &fifo_stat[write][i];

			sysfs_attr_init(&stat->attr.attr);
			stat->attr.attr.name = fifo_stats[i].name;
			stat->attr.attr.mode = 0444;
			stat->attr.show = fifo_stat_show;
			stat->write = write;
			stat->offset = fifo_stats[i].offset;
			fifo_stat_attrs[write][i] = &stat->attr.attr;
		}
	}
}

static ssize_t device_resets_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct fifo_channel *ch = container_of(dev, struct fifo_channel, dev);

	return sysfs_emit(buf, "%lld\n", atomic64_read(&ch->device->resets));
}
static DEVICE_ATTR_RO(device_resets);

static struct attribute *fifo_channel_attrs[] = {
	&dev_attr_device_resets.attr,
	NULL,
};

static const struct attribute_group fifo_channel_group = {
	.attrs = fifo_channel_attrs,
};

const struct attribute_group *fifo_groups[] = {
	&fifo_channel_group,
	&fifo_tx_group,
	&fifo_rx_group,
	NULL,
};

/* debugfs: /sys/kernel/debug/fifo_aio/fifoN/{tx,rx}. It goes before the registers do. */

static struct dentry *fifo_debugfs;

static const char *const fifo_state_names[] = {
	[FIFO_STOPPED] = "stopped",
	[FIFO_RUNNING] = "running",
	[FIFO_FAILED] = "failed",
	[FIFO_GONE] = "gone",
};

static void fifo_show_requests(struct seq_file *s, const char *name, struct list_head *list)
{
	struct fifo_request *req;

	list_for_each_entry(req, list, node)
		seq_printf(s, "%s cookie %llu %s size %zu done %zu error %d%s\n", name, req->cookie,
			   req->iocb ? "async" : "sync", req->size, req->done, req->error,
			   req->abort ? " abort" : "");
}

static unsigned int fifo_count_requests(struct list_head *list)
{
	struct list_head *node;
	unsigned int n = 0;

	list_for_each(node, list)
		n++;
	return n;
}

static const struct {
	const char *name;
	unsigned int offset;
} fifo_registers[] = {
	{ "control", FIFO_RING_CONTROL },
	{ "status", FIFO_RING_STATUS },
	{ "head", FIFO_RING_HEAD },
	{ "tail", FIFO_RING_TAIL },
	{ "comp_head", FIFO_COMP_HEAD },
	{ "comp_tail", FIFO_COMP_TAIL },
	{ "abort_status", FIFO_ABORT_STATUS },
	{ "notify", FIFO_NOTIFY },
};

static int fifo_ring_show(struct seq_file *s, void *unused)
{
	struct fifo_ring *ring = s->private;
	int i;

	spin_lock_irq(&ring->lock);
	/* Those that are submitted; accepted are also those that are still being made. */
	seq_printf(s, "in_flight %u\n",
		   fifo_count_requests(&ring->posted) + fifo_count_requests(&ring->queued) +
		   fifo_count_requests(&ring->done) + fifo_count_requests(&ring->finishing));
	seq_printf(s, "accepted %u\n", ring->requests);
	seq_printf(s, "state %s\n", fifo_state_names[ring->state]);
	seq_printf(s, "entries %u\n", ring->entries);
	seq_printf(s, "desc %pad\n", &ring->desc_dma);
	seq_printf(s, "comp %pad\n", &ring->comp_dma);
	seq_printf(s, "head %u\n", ring->head);
	seq_printf(s, "tail %u\n", ring->tail);
	seq_printf(s, "comp_head %u\n", ring->comp_head);
	seq_printf(s, "phase %u\n", ring->phase);
	seq_printf(s, "claimed %zu\n", ring->claimed);
	seq_printf(s, "notify %u\n", ring->notify);
	/* While it is stopped its registers may not be there. */
	for (i = 0; ring->state == FIFO_RUNNING && i < ARRAY_SIZE(fifo_registers); i++)
		seq_printf(s, "hw_%s %#x\n", fifo_registers[i].name,
			   fifo_read(ring->regs, fifo_registers[i].offset));
	if (ring->state == FIFO_RUNNING)
		seq_printf(s, "hw_fill %u\n", fifo_read(ring->channel->regs, FIFO_FILL));
	fifo_show_requests(s, "posted", &ring->posted);
	fifo_show_requests(s, "queued", &ring->queued);
	fifo_show_requests(s, "done", &ring->done);
	fifo_show_requests(s, "finishing", &ring->finishing);
	spin_unlock_irq(&ring->lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(fifo_ring);

void fifo_debugfs_add(struct fifo_channel *ch)
{
	ch->debugfs = debugfs_create_dir(dev_name(&ch->dev), fifo_debugfs);
	debugfs_create_file("tx", 0400, ch->debugfs, &ch->tx, &fifo_ring_fops);
	debugfs_create_file("rx", 0400, ch->debugfs, &ch->rx, &fifo_ring_fops);
}

void fifo_debugfs_init(void)
{
	fifo_debugfs = debugfs_create_dir(FIFO_NAME, NULL);
}

void fifo_debugfs_exit(void)
{
	debugfs_remove(fifo_debugfs);
}
