/* SPDX-License-Identifier: MIT */
/*
 * One read or write by each way that a program has, so that a test can say the
 * same of all of them: start it, do something meanwhile, and see how it ended.
 *
 *	struct job j;
 *
 *	if (job_start(&j, WAY_AIO, fd, JOB_READ, buf, 100))
 *		return KTAP_FAIL;
 *	...
 *	if (job_end(&j) != 100)
 *		return KTAP_FAIL;
 */
#ifndef FIFOVM_JOB_H
#define FIFOVM_JOB_H

#include <libaio.h>
#include <liburing.h>
#include <pthread.h>
#include <sys/uio.h>

#include "fifo.h"

enum way {
	WAY_SYNC,		/* readv or writev, in a thread */
	WAY_AIO,		/* io_submit */
	/* What has to wait is not in the driver's hands with these: they poll. */
	WAY_URING,
	WAY_URING_ASYNC,	/* from io-wq */
	WAYS,
};

static const char *const way_names[WAYS] = { "readv or writev", "libaio", "io_uring", "io_uring from a worker" };

enum job_direction {
	JOB_READ,
	JOB_WRITE,
};

#define JOB_VECTORS	8
#define JOB_HUNG	(-(ssize_t)ETIME)	/* it has not ended; no driver of ours says ETIME */

struct job {
	enum way way;
	enum job_direction direction;
	int fd;
	struct iovec iov[JOB_VECTORS];
	int vectors;
	int refused;		/* what the submission itself came to */
	ssize_t result;

	pthread_t thread;	/* WAY_SYNC */
	int ended;		/* a gate */
	io_context_t ctx;	/* WAY_AIO */
	struct iocb iocb;
	struct io_uring ring;	/* the others */
};

/* It has ended in the thread that called. */
static inline void *job_sync(void *arg)
{
	struct job *j = arg;

	if (j->direction == JOB_WRITE)
		j->result = writev(j->fd, j->iov, j->vectors);
	else
		j->result = readv(j->fd, j->iov, j->vectors);
	if (j->result < 0)
		j->result = -errno;
	fifo_gate_open(j->ended, 1);
	return NULL;
}

/* What it takes to submit the job; 0 or -1. */
static inline int job_prepare(struct job *j)
{
	int err = 0;

	switch (j->way) {
	case WAY_SYNC:
		j->ended = fifo_gate();
		break;
	case WAY_AIO:
		err = io_setup(1, &j->ctx);
		if (j->direction == JOB_WRITE)
			io_prep_pwritev(&j->iocb, j->fd, j->iov, j->vectors, 0);
		else
			io_prep_preadv(&j->iocb, j->fd, j->iov, j->vectors, 0);
		break;
	default:
		err = io_uring_queue_init(2, &j->ring, 0);
		break;
	}
	if (err)
		ktap_diag("%s: no context: %s", way_names[j->way], strerror(-err));
	return err ? -1 : 0;
}

/* Submits it: 0, or -errno of the submission itself. */
static inline int job_submit(struct job *j)
{
	struct iocb *iocb = &j->iocb;
	struct io_uring_sqe *sqe;
	int n;

	switch (j->way) {
	case WAY_SYNC:
		return -pthread_create(&j->thread, NULL, job_sync, j);
	case WAY_AIO:
		n = io_submit(j->ctx, 1, &iocb);
		break;
	default:
		sqe = io_uring_get_sqe(&j->ring);
		if (j->direction == JOB_WRITE)
			io_uring_prep_writev(sqe, j->fd, j->iov, j->vectors, -1);
		else
			io_uring_prep_readv(sqe, j->fd, j->iov, j->vectors, -1);
		if (j->way == WAY_URING_ASYNC)
			io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
		n = io_uring_submit(&j->ring);
		break;
	}
	return n == 1 ? 0 : n < 0 ? n : -EIO;
}

static inline void job_init(struct job *j, enum way way, int fd, enum job_direction direction,
			    const struct iovec *iov, int vectors)
{
	*j = (struct job){ .way = way, .fd = fd, .direction = direction, .vectors = vectors };
	memcpy(j->iov, iov, vectors * sizeof(*iov));
}

/* Begins it; 0, or -1 after saying what was in the way. */
static inline int job_startv(struct job *j, enum way way, int fd, enum job_direction direction,
			     const struct iovec *iov, int vectors)
{
	job_init(j, way, fd, direction, iov, vectors);
	if (job_prepare(j))
		return -1;
	j->refused = job_submit(j);
	return 0;
}

static inline int job_start(struct job *j, enum way way, int fd, enum job_direction direction, void *p, size_t n)
{
	return job_startv(j, way, fd, direction, &(struct iovec){ p, n }, 1);
}

/* Gives back what it took. */
static inline void job_forget(struct job *j)
{
	switch (j->way) {
	case WAY_SYNC:
		close(j->ended);
		break;
	case WAY_AIO:
		io_destroy(j->ctx);
		break;
	default:
		io_uring_queue_exit(&j->ring);
		break;
	}
}

/* The result of what was submitted, within a time: a count, -errno, or JOB_HUNG. */
static inline ssize_t job_end_within(struct job *j, int ms)
{
	struct __kernel_timespec limit = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
	struct pollfd p = { .fd = j->ended, .events = POLLIN };
	struct io_uring_cqe *cqe = NULL;
	struct io_event event;
	int n;

	if (j->refused) {
		job_forget(j);
		return j->result = j->refused;
	}
	switch (j->way) {
	case WAY_SYNC:
		if (poll(&p, 1, ms) <= 0)
			return JOB_HUNG;
		pthread_join(j->thread, NULL);
		break;
	case WAY_AIO:
		/* Work of an io_uring of this thread interrupts it. */
		do
			n = io_getevents(j->ctx, 1, 1, &event, &ts);
		while (n == -EINTR);
		if (n != 1)
			return JOB_HUNG;
		j->result = (long)event.res;
		break;
	default:
		if (io_uring_wait_cqe_timeout(&j->ring, &cqe, &limit) || !cqe)
			return JOB_HUNG;
		j->result = cqe->res;
		break;
	}
	job_forget(j);
	return j->result;
}

/* What debugfs knows of a ring of channel 0. */
static inline void job_show(const char *ring)
{
	char path[64], buf[4096], *save;

	snprintf(path, sizeof(path), "/sys/kernel/debug/fifo_aio/fifo0/%s", ring);
	if (slurp(path, buf, sizeof(buf)) < 0)
		return;
	for (char *line = strtok_r(buf, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		ktap_diag("%s: %s", ring, line);
}

/* The same with a bound: beyond it the check is over, since the job's memory is still in use. */
static inline ssize_t job_end(struct job *j)
{
	ssize_t n = job_end_within(j, FIFO_WAIT_MS);

	if (n != JOB_HUNG)
		return n;
	ktap_diag("waited %d s for a %s by %s", FIFO_WAIT_MS / 1000, j->direction == JOB_WRITE ? "write" : "read",
		  way_names[j->way]);
	job_show(j->direction == JOB_WRITE ? "tx" : "rx");
	fflush(stdout);
	_exit(KTAP_FAIL);
}

/* Begins and ends it. ENOBUFS: it could not be submitted, which was said. */
static inline ssize_t job_do(enum way way, int fd, enum job_direction direction, void *p, size_t n)
{
	struct job j;

	return job_start(&j, way, fd, direction, p, n) ? -ENOBUFS : job_end(&j);
}

static inline ssize_t job_dov(enum way way, int fd, enum job_direction direction, const struct iovec *iov, int n)
{
	struct job j;

	return job_startv(&j, way, fd, direction, iov, n) ? -ENOBUFS : job_end(&j);
}

#endif
