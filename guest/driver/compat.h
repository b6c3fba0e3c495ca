/* SPDX-License-Identifier: GPL-2.0 */
/*
 * fifo_aio - what Linux 6.1 has not, or has under another name
 *
 * All that depends on the kernel's version is in here. Kbuild looks into the
 * kernel's headers: stable and distribution kernels have newer things in them
 * than their numbers say.
 */
#ifndef FIFO_COMPAT_H
#define FIFO_COMPAT_H

#include <linux/bvec.h>
#include <linux/device/class.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/uio.h>

/* 6.4 took the owner away. */
static inline struct class *fifo_class_create(const char *name)
{
#ifdef FIFO_CLASS_CREATE_OWNER
	return class_create(THIS_MODULE, name);
#else
	return class_create(name);
#endif
}

/* The pin's name until 6.8. */
#ifndef PCI_IRQ_INTX
#define PCI_IRQ_INTX	PCI_IRQ_LEGACY
#endif

/*
 * Without this flag, which came in 6.8 and went into stable kernels, nobody can
 * tell libaio's kiocbs from others, and cancelling has to be left alone.
 */
#ifndef IOCB_AIO_RW
#define IOCB_AIO_RW	0
#endif

/* What was there before 6.5 could not read from a device that waits. */
#ifdef FIFO_COPY_SPLICE_READ
#define fifo_splice_read	copy_splice_read
#else
#define fifo_splice_read	NULL
#endif

/* It came with 6.3. */
#ifndef FIFO_EXTRACT_PAGES

static inline bool iov_iter_extract_will_pin(const struct iov_iter *i)
{
	return user_backed_iter(i);
}

/* The next bytes that are contiguous in the process's memory. */
static inline ssize_t fifo_extract_user(struct iov_iter *i, struct page **pages, size_t size,
					unsigned int maxpages, size_t *offset)
{
	unsigned int flags = iov_iter_rw(i) == READ ? FOLL_WRITE : 0;
	size_t skip = i->iov_offset;
	unsigned long address;
	int n;

	if (iter_is_ubuf(i)) {
		address = (unsigned long)i->ubuf + skip;
	} else {
		const struct iovec *v = i->iov;

		while (v->iov_len == skip) {	/* an empty one, or at its end */
			skip = 0;
			v++;
		}
		address = (unsigned long)v->iov_base + skip;
		size = min(size, v->iov_len - skip);
	}
	*offset = offset_in_page(address);
	maxpages = min_t(size_t, maxpages, DIV_ROUND_UP(*offset + size, PAGE_SIZE));
	if (i->nofault)
		flags |= FOLL_NOFAULT;
	n = pin_user_pages_fast(untagged_addr(address) & PAGE_MASK, maxpages, flags, pages);
	if (n <= 0)
		return n ? n : -EFAULT;
	size = min_t(size_t, size, n * PAGE_SIZE - *offset);
	iov_iter_advance(i, size);
	return size;
}

/* The next bytes of a page that the kernel has, which is not pinned. */
static inline ssize_t fifo_extract_bvec(struct iov_iter *i, struct page **pages, size_t size,
					unsigned int maxpages, size_t *offset)
{
	const struct bio_vec *v = i->bvec;
	size_t skip = i->iov_offset;
	unsigned int n;

	while (v->bv_len == skip) {
		skip = 0;
		v++;
	}
	size = min_t(size_t, size, v->bv_len - skip);
	skip += v->bv_offset;
	*offset = offset_in_page(skip);
	size = min_t(size_t, size, maxpages * PAGE_SIZE - *offset);
	for (n = 0; n * PAGE_SIZE < *offset + size; n++)
		pages[n] = v->bv_page + (skip >> PAGE_SHIFT) + n;
	iov_iter_advance(i, size);
	return size;
}

static inline ssize_t iov_iter_extract_pages(struct iov_iter *i, struct page ***pages,
					     size_t maxsize, unsigned int maxpages,
					     unsigned int flags, size_t *offset0)
{
	maxsize = min(maxsize, iov_iter_count(i));
	if (!maxsize)
		return 0;
	if (user_backed_iter(i))
		return fifo_extract_user(i, *pages, maxsize, maxpages, offset0);
	if (iov_iter_is_bvec(i))
		return fifo_extract_bvec(i, *pages, maxsize, maxpages, offset0);
	return -EFAULT;
}
#endif

#endif /* FIFO_COMPAT_H */
