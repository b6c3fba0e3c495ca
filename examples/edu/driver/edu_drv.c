// SPDX-License-Identifier: GPL-2.0
/*
 * edu_drv - the educational PCI card that QEMU has as "edu"
 *
 * The card is described in QEMU's docs/specs/edu. /dev/eduN has its buffer, by
 * DMA, and its factorials, by an ioctl. A caller sleeps until the card's interrupt
 * (MSI) has come. The interrupt is only a hint: whether the card is done, its
 * registers say, so one that is lost costs time and not the result.
 */
#include <linux/completion.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/idr.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/kref.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "edu_drv.h"

/* The registers of BAR 0. */
#define EDU_FACTORIAL_REG	0x08
#define EDU_STATUS		0x20
#define EDU_STATUS_COMPUTING	0x01
#define EDU_STATUS_INTERRUPT	0x80	/* raise one when the factorial is done */
#define EDU_INTERRUPT		0x24	/* what raised it */
#define EDU_ACK			0x64
#define EDU_DMA_SOURCE		0x80
#define EDU_DMA_DEST		0x88
#define EDU_DMA_COUNT		0x90
#define EDU_DMA_COMMAND		0x98
#define EDU_DMA_START		0x01	/* reads as 1 until the transfer is done */
#define EDU_DMA_TO_RAM		0x02
#define EDU_DMA_INTERRUPT	0x04

#define EDU_GONE		0xffffffff	/* what a card that is not there reads as */

/* The card's buffer, by the address that its DMA engine knows it under. */
#define EDU_BUFFER		0x40000
#define EDU_BUFFER_SIZE		4096

#define EDU_DMA_BITS		28
#define EDU_TIMEOUT_MS		100

/* A card, until it has gone and the last file on it is closed. */
struct edu {
	struct kref kref;
	struct miscdevice misc;
	struct pci_dev *pdev;
	void __iomem *regs;
	void *buffer;			/* what DMA moves goes through here */
	dma_addr_t buffer_dma;
	struct completion interrupt;
	struct mutex lock;		/* one piece of work at a time; protects gone */
	bool gone;
	int id;
	char name[16];
};

static DEFINE_IDA(edu_ids);

static void edu_free(struct kref *kref)
{
	kfree(container_of(kref, struct edu, kref));
}

static irqreturn_t edu_irq(int irq, void *data)
{
	struct edu *edu = data;
	u32 cause = readl(edu->regs + EDU_INTERRUPT);

	if (!cause || cause == EDU_GONE)
		return IRQ_NONE;
	writel(cause, edu->regs + EDU_ACK);
	complete(&edu->interrupt);
	return IRQ_HANDLED;
}

/* Before work: a card that was too slow last time may still be at it. */
static int edu_idle(struct edu *edu)
{
	u32 status, command;

	if (edu->gone)
		return -ENODEV;
	status = readl(edu->regs + EDU_STATUS);
	command = readl(edu->regs + EDU_DMA_COMMAND);
	if (status == EDU_GONE || command == EDU_GONE)
		return -ENODEV;
	if (status & EDU_STATUS_COMPUTING || command & EDU_DMA_START)
		return -EBUSY;
	reinit_completion(&edu->interrupt);
	return 0;
}

/* Sleeps until the bits of the register are clear. */
static int edu_wait(struct edu *edu, unsigned int reg, u32 bits)
{
	unsigned long left = msecs_to_jiffies(EDU_TIMEOUT_MS);
	u32 value;

	for (;;) {
		value = readl(edu->regs + reg);
		if (value == EDU_GONE)
			return -ENODEV;
		if (!(value & bits))
			return 0;
		if (!left)
			return -ETIMEDOUT;
		left = wait_for_completion_timeout(&edu->interrupt, left);
	}
}

static int edu_factorial(struct edu *edu, u32 *number)
{
	int err;

	err = edu_idle(edu);
	if (err)
		return err;
	writel(EDU_STATUS_INTERRUPT, edu->regs + EDU_STATUS);
	writel(*number, edu->regs + EDU_FACTORIAL_REG);
	err = edu_wait(edu, EDU_STATUS, EDU_STATUS_COMPUTING);
	if (err)
		return err;
	*number = readl(edu->regs + EDU_FACTORIAL_REG);
	return 0;
}

/* Moves bytes between our buffer and the card's, at offset. */
static int edu_transfer(struct edu *edu, u32 offset, u32 count, u32 direction)
{
	u64 from = edu->buffer_dma, to = EDU_BUFFER + offset;
	int err;

	err = edu_idle(edu);
	if (err)
		return err;
	if (direction)
		swap(from, to);
	/* The card takes halves of a register, too: 28 bits are in the lower one. */
	writel(from, edu->regs + EDU_DMA_SOURCE);
	writel(to, edu->regs + EDU_DMA_DEST);
	writel(count, edu->regs + EDU_DMA_COUNT);
	writel(EDU_DMA_START | EDU_DMA_INTERRUPT | direction, edu->regs + EDU_DMA_COMMAND);
	return edu_wait(edu, EDU_DMA_COMMAND, EDU_DMA_START);
}

static ssize_t edu_read(struct file *file, char __user *to, size_t count, loff_t *pos)
{
	struct edu *edu = file->private_data;
	ssize_t n;
	int err;

	if (*pos >= EDU_BUFFER_SIZE || !count)
		return 0;
	n = min_t(size_t, count, EDU_BUFFER_SIZE - *pos);
	if (mutex_lock_interruptible(&edu->lock))
		return -ERESTARTSYS;
	err = edu_transfer(edu, *pos, n, EDU_DMA_TO_RAM);
	if (!err && copy_to_user(to, edu->buffer, n))
		err = -EFAULT;
	mutex_unlock(&edu->lock);
	if (err)
		return err;
	*pos += n;
	return n;
}

static ssize_t edu_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	struct edu *edu = file->private_data;
	ssize_t n;
	int err;

	if (!count)
		return 0;
	if (*pos >= EDU_BUFFER_SIZE)
		return -ENOSPC;
	n = min_t(size_t, count, EDU_BUFFER_SIZE - *pos);
	if (mutex_lock_interruptible(&edu->lock))
		return -ERESTARTSYS;
	/* The card must be idle before what it may still read is overwritten. */
	err = edu_idle(edu);
	if (!err && copy_from_user(edu->buffer, from, n))
		err = -EFAULT;
	if (!err)
		err = edu_transfer(edu, *pos, n, 0);
	mutex_unlock(&edu->lock);
	if (err)
		return err;
	*pos += n;
	return n;
}

static long edu_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct edu *edu = file->private_data;
	u32 number;
	int err;

	if (cmd != EDU_FACTORIAL)
		return -ENOTTY;
	if (get_user(number, (u32 __user *)arg))
		return -EFAULT;
	if (mutex_lock_interruptible(&edu->lock))
		return -ERESTARTSYS;
	err = edu_factorial(edu, &number);
	mutex_unlock(&edu->lock);
	if (err)
		return err;
	return put_user(number, (u32 __user *)arg);
}

/* misc_deregister() waits for it, so the card is still there. */
static int edu_open(struct inode *inode, struct file *file)
{
	struct edu *edu = container_of(file->private_data, struct edu, misc);

	kref_get(&edu->kref);
	file->private_data = edu;
	return 0;
}

static int edu_release(struct inode *inode, struct file *file)
{
	struct edu *edu = file->private_data;

	kref_put(&edu->kref, edu_free);
	return 0;
}

static loff_t edu_llseek(struct file *file, loff_t offset, int whence)
{
	return fixed_size_llseek(file, offset, whence, EDU_BUFFER_SIZE);
}

static const struct file_operations edu_fops = {
	.owner = THIS_MODULE,
	.open = edu_open,
	.release = edu_release,
	.read = edu_read,
	.write = edu_write,
	.llseek = edu_llseek,
	.unlocked_ioctl = edu_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static int edu_setup(struct edu *edu)
{
	struct pci_dev *pdev = edu->pdev;
	int err;

	err = pcim_enable_device(pdev);
	if (err)
		return dev_err_probe(&pdev->dev, err, "cannot be enabled\n");
	err = pcim_iomap_regions(pdev, BIT(0), "edu_drv");
	if (err)
		return dev_err_probe(&pdev->dev, err, "registers cannot be mapped\n");
	edu->regs = pcim_iomap_table(pdev)[0];
	err = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(EDU_DMA_BITS));
	if (err)
		return dev_err_probe(&pdev->dev, err, "no DMA with %d bits\n", EDU_DMA_BITS);
	edu->buffer = dmam_alloc_coherent(&pdev->dev, EDU_BUFFER_SIZE, &edu->buffer_dma,
					  GFP_KERNEL);
	if (!edu->buffer)
		return -ENOMEM;
	pci_set_master(pdev);
	return 0;
}

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct edu *edu;
	int err;

	edu = kzalloc(sizeof(*edu), GFP_KERNEL);
	if (!edu)
		return -ENOMEM;
	kref_init(&edu->kref);
	mutex_init(&edu->lock);
	init_completion(&edu->interrupt);
	edu->pdev = pdev;
	edu->id = ida_alloc(&edu_ids, GFP_KERNEL);
	if (edu->id < 0) {
		err = edu->id;
		goto err_put;
	}
	err = edu_setup(edu);
	if (err)
		goto err_id;
	err = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSI);
	if (err < 0)
		goto err_id;
	err = request_irq(pci_irq_vector(pdev, 0), edu_irq, 0, "edu_drv", edu);
	if (err)
		goto err_vectors;
	snprintf(edu->name, sizeof(edu->name), "edu%d", edu->id);
	edu->misc.minor = MISC_DYNAMIC_MINOR;
	edu->misc.name = edu->name;
	edu->misc.fops = &edu_fops;
	edu->misc.parent = &pdev->dev;
	err = misc_register(&edu->misc);
	if (err)
		goto err_irq;
	pci_set_drvdata(pdev, edu);
	return 0;

err_irq:
	free_irq(pci_irq_vector(pdev, 0), edu);
err_vectors:
	pci_free_irq_vectors(pdev);
err_id:
	ida_free(&edu_ids, edu->id);
err_put:
	kref_put(&edu->kref, edu_free);
	return err;
}

/* The files that are open find the card gone. */
static void edu_remove(struct pci_dev *pdev)
{
	struct edu *edu = pci_get_drvdata(pdev);

	misc_deregister(&edu->misc);
	mutex_lock(&edu->lock);
	edu->gone = true;
	mutex_unlock(&edu->lock);
	/* What the card is still at must not reach memory that is somebody else's then. */
	pci_clear_master(pdev);
	free_irq(pci_irq_vector(pdev, 0), edu);
	pci_free_irq_vectors(pdev);
	ida_free(&edu_ids, edu->id);
	kref_put(&edu->kref, edu_free);
}

static const struct pci_device_id edu_table[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{ }
};
MODULE_DEVICE_TABLE(pci, edu_table);

static struct pci_driver edu_driver = {
	.name = "edu_drv",
	.id_table = edu_table,
	.probe = edu_probe,
	.remove = edu_remove,
};
module_pci_driver(edu_driver);

MODULE_DESCRIPTION("The educational PCI card of QEMU");
MODULE_LICENSE("GPL");
