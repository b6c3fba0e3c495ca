/* SPDX-License-Identifier: MIT */
/*
 * An open channel, and what it takes to use it by each way again and again:
 * making and destroying a context for each request, as job.h does, takes longer
 * than the request.
 */
#ifndef FIFOVM_PORT_H
#define FIFOVM_PORT_H

#include "job.h"

#define PORT_DEPTH	64	/* requests at once */

struct port {
	int fd;
	io_context_t ctx;
	struct io_uring ring;
	struct iocb iocbs[PORT_DEPTH];
	unsigned int n;		/* of them that are in flight */
};

static inline int port_open(struct port *p, int channel, int flags)
{
	int err;

	memset(p, 0, sizeof(*p));
	p->fd = fifo_open(channel, flags);
	if (p->fd < 0)
		return -1;
	err = io_setup(PORT_DEPTH, &p->ctx);
	if (!err)
		err = io_uring_queue_init(2, &p->ring, 0);
	if (err)
		ktap_diag("no context: %s", strerror(-err));
	return err;
}

static inline void port_close(struct port *p)
{
	close(p->fd);
	io_destroy(p->ctx);
	io_uring_queue_exit(&p->ring);
}

/* Submits n reads or writes at once by libaio. */
static inline int port_submit(struct port *p, bool write, const struct iovec *iov, unsigned int n)
{
	struct iocb *each[PORT_DEPTH];
	int submitted;

	for (unsigned int i = 0; i < n; i++) {
		each[i] = &p->iocbs[i];
		if (write)
			io_prep_pwrite(each[i], p->fd, iov[i].iov_base, iov[i].iov_len, 0);
		else
			io_prep_pread(each[i], p->fd, iov[i].iov_base, iov[i].iov_len, 0);
	}
	submitted = io_submit(p->ctx, n, each);
	p->n = submitted < 0 ? 0 : submitted;
	if (p->n == n)
		return 0;
	ktap_diag("io_submit of %u requests: %d", n, submitted);
	return -1;
}

/* Waits for what was submitted; the requests end in their order. */
static inline int port_wait(struct port *p, ssize_t *results)
{
	struct timespec limit = { .tv_sec = FIFO_WAIT_MS / 1000 };
	struct io_event events[PORT_DEPTH];

	for (unsigned int done = 0; done < p->n; ) {
		int got = io_getevents(p->ctx, 1, p->n - done, events, &limit);

		if (got < 1) {
			ktap_diag("waited %d s for %u of %u requests", FIFO_WAIT_MS / 1000, p->n - done, p->n);
			return -1;
		}
		for (int i = 0; i < got; i++, done++) {
			if (events[i].obj != &p->iocbs[done]) {
				ktap_diag("request %td ended before request %u", events[i].obj - p->iocbs, done);
				return -1;
			}
			results[done] = (long)events[i].res;
		}
	}
	p->n = 0;
	return 0;
}

/* Reads or writes n times at once: 0 and the results, or -1 after saying why not. Only libaio does more than one. */
static inline int port_do(struct port *p, enum way way, bool write, const struct iovec *iov, unsigned int n,
			  ssize_t *results)
{
	struct __kernel_timespec limit = { .tv_sec = FIFO_WAIT_MS / 1000 };
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	int err;

	switch (way) {
	case WAY_SYNC:
		*results = write ? writev(p->fd, iov, 1) : readv(p->fd, iov, 1);
		if (*results < 0)
			*results = -errno;
		return 0;
	case WAY_AIO:
		return port_submit(p, write, iov, n) || port_wait(p, results);
	default:
		sqe = io_uring_get_sqe(&p->ring);
		if (write)
			io_uring_prep_writev(sqe, p->fd, iov, 1, -1);
		else
			io_uring_prep_readv(sqe, p->fd, iov, 1, -1);
		if (way == WAY_URING_ASYNC)
			io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
		err = io_uring_submit(&p->ring);
		if (err == 1)
			err = io_uring_wait_cqe_timeout(&p->ring, &cqe, &limit);
		if (err) {
			ktap_diag("%s: %s", way_names[way], strerror(-err));
			return -1;
		}
		*results = cqe->res;
		io_uring_cqe_seen(&p->ring, cqe);
		return 0;
	}
}

#endif
