// SPDX-License-Identifier: GPL-2.0
/*
 * A module that goes wrong on request, to show what the harness makes of it: a
 * word written to debugfs's plant/do, or a parameter, says how. It is the driver
 * of the device edu as well, with which it does nothing good. The test is
 * planted.c, the judge of the judgement planted_test.go.
 */
#include <linux/debugfs.h>
#include <linux/dma-mapping.h>
#include <linux/irqflags.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

static bool init_fails;
module_param(init_fails, bool, 0444);
MODULE_PARM_DESC(init_fails, "do not load");

static struct dentry *plant_folder;
static struct pci_dev *plant_card;
static void *plant_buffer;
static int *plant_nowhere;
static DECLARE_WAIT_QUEUE_HEAD(plant_wait);
static DEFINE_MUTEX(plant_first);
static DEFINE_MUTEX(plant_second);

static noinline void plant_oops(unsigned long user)
{
	WRITE_ONCE(*READ_ONCE(plant_nowhere), 1);
}

static noinline void plant_warn(unsigned long user)
{
	WARN_ON(!READ_ONCE(plant_nowhere));
}

static noinline void plant_panic(unsigned long user)
{
	panic("planted");
}

/* KASAN's. */
static noinline void plant_use_after_free(unsigned long user)
{
	int *p = kzalloc(sizeof(*p), GFP_KERNEL);

	if (!p)
		return;
	OPTIMIZER_HIDE_VAR(p);
	kfree(p);
	plant_nowhere = READ_ONCE(*p) ? p : NULL;
}

/* Lockdep's: nobody waits here, but two who did both might. */
static noinline void plant_inversion(unsigned long user)
{
	mutex_lock(&plant_first);
	mutex_lock(&plant_second);
	mutex_unlock(&plant_second);
	mutex_unlock(&plant_first);
	mutex_lock(&plant_second);
	mutex_lock(&plant_first);
	mutex_unlock(&plant_first);
	mutex_unlock(&plant_second);
}

/* Interrupts go on. */
static noinline void plant_spin(unsigned long user)
{
	preempt_disable();
	for (;;)
		cpu_relax();
}

static noinline void plant_spin_irqs_off(unsigned long user)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

/* Nothing wakes it, and no signal does. */
static noinline void plant_sleep(unsigned long user)
{
	wait_event(plant_wait, READ_ONCE(plant_nowhere));
}

/* kmemleak's. */
static noinline void plant_forget_memory(unsigned long user)
{
	void *p = kmalloc(4000, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
}

static noinline void plant_forget_reference(unsigned long user)
{
	__module_get(THIS_MODULE);
}

static noinline void plant_forget_pin(unsigned long user)
{
	struct page *page;

	if (pin_user_pages_fast(user & PAGE_MASK, 1, FOLL_WRITE | FOLL_LONGTERM, &page) != 1)
		pr_err("plant: no page to pin\n");
}

/* The DMA API's debugging knows. */
static noinline void plant_forget_mapping(unsigned long user)
{
	dma_addr_t addr;

	if (!plant_card || plant_buffer)
		return;
	plant_buffer = kzalloc(PAGE_SIZE, GFP_KERNEL);
	if (!plant_buffer)
		return;
	addr = dma_map_single(&plant_card->dev, plant_buffer, PAGE_SIZE, DMA_FROM_DEVICE);
	if (dma_mapping_error(&plant_card->dev, addr))
		pr_err("plant: no mapping\n");
}

static const struct {
	const char *word;
	void (*wrong)(unsigned long user);
} plants[] = {
	{ "oops", plant_oops },
	{ "warn", plant_warn },
	{ "panic", plant_panic },
	{ "use_after_free", plant_use_after_free },
	{ "inversion", plant_inversion },
	{ "spin", plant_spin },
	{ "spin_irqs_off", plant_spin_irqs_off },
	{ "sleep_in_kernel", plant_sleep },
	{ "forget_memory", plant_forget_memory },
	{ "forget_reference", plant_forget_reference },
	{ "forget_pin", plant_forget_pin },
	{ "forget_mapping", plant_forget_mapping },
};

static ssize_t plant_write(struct file *file, const char __user *buf, size_t len, loff_t *pos)
{
	char word[32] = "";
	unsigned int i;

	if (len >= sizeof(word))
		return -EINVAL;
	if (copy_from_user(word, buf, len))
		return -EFAULT;
	for (i = 0; i < ARRAY_SIZE(plants); i++) {
		if (!strcmp(word, plants[i].word)) {
			plants[i].wrong((unsigned long)buf);
			return len;
		}
	}
	return -EINVAL;
}

/* No owner: a forgotten reference is the plant's own doing. */
static const struct file_operations plant_operations = {
	.write = plant_write,
};

static int plant_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	int err = pcim_enable_device(pdev);

	if (!err)
		plant_card = pdev;
	return err;
}

static void plant_remove(struct pci_dev *pdev)
{
	plant_card = NULL;
}

static const struct pci_device_id plant_ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) }, /* edu */
	{ }
};
MODULE_DEVICE_TABLE(pci, plant_ids);

static struct pci_driver plant_driver = {
	.name = "plant",
	.id_table = plant_ids,
	.probe = plant_probe,
	.remove = plant_remove,
};

static int __init plant_init(void)
{
	int err;

	if (init_fails)
		return -ENODEV;
	err = pci_register_driver(&plant_driver);
	if (err)
		return err;
	plant_folder = debugfs_create_dir("plant", NULL);
	debugfs_create_file("do", 0200, plant_folder, NULL, &plant_operations);
	return 0;
}
module_init(plant_init);

static void __exit plant_exit(void)
{
	debugfs_remove(plant_folder);
	pci_unregister_driver(&plant_driver);
	kfree(plant_buffer);
}
module_exit(plant_exit);

MODULE_DESCRIPTION("Goes wrong on request");
MODULE_LICENSE("GPL");
