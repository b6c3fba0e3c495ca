// SPDX-License-Identifier: MIT
/*
 * fifo_stress - everything at once on /dev/fifoN
 *
 * Channel 0 has a stream of records, of several writers to one reader, which
 * must arrive whole and in order whatever happens beside it. On channel 1 others
 * cancel, close, unmap, reset and are killed. What each process does is drawn
 * from fifovm.seed= and its own number; how these interleave is the machine's.
 */
#define _GNU_SOURCE
#include <sys/time.h>

#include "port.h"

#define WRITERS		3
#define DISTURBERS	4
#define DEPTH		8		/* requests at once of a writer, and of the reader */
#define LARGEST		8192		/* bytes of a record */
#define BURST		16		/* requests at once of a disturber */
#define ROOM		20000		/* bytes of a disturber's request at most */
#define BLANK		0xee		/* what no read has written to */

/* What all processes of a check share. */
struct stress {
	uint32_t stop;		/* who looks at sysfs and debugfs may end */
	uint32_t operations;	/* of the disturbers, so far */
	unsigned int records;	/* of each writer */
	unsigned int turns;	/* of each disturber */
	bool everywhere;	/* the disturbers are on all channels, and there is no stream */
	const int *accepted;	/* errors that requests may end with, and 0 */
};

/* One of the processes. */
struct actor {
	struct stress *stress;
	int number;		/* from 0 in its trade */
	struct fifo_rng rng;
};

static bool accepted(const struct stress *s, ssize_t result)
{
	const int *err = s->accepted;

	while (*err && result != -*err)
		err++;
	return result > 0 || *err;
}

/* The stream of records. */

/* Known to writer and reader. */
static size_t record_length(int writer, unsigned int sequence)
{
	struct fifo_rng rng = fifo_rng((uint64_t)(writer + 1) << 32 | sequence);
	/* As many small ones as large ones. */
	size_t limit = 64u << fifo_below(&rng, 8);

	return fifo_between(&rng, sizeof(struct fifo_record), limit < LARGEST ? limit : LARGEST);
}

static int be_writer(void *arg)
{
	static uint8_t buf[DEPTH][LARGEST];
	struct actor *a = arg;
	struct port patient, impatient;
	unsigned int sequence = 0;

	if (port_open(&patient, 0, O_WRONLY) || port_open(&impatient, 0, O_WRONLY | O_NONBLOCK))
		return KTAP_FAIL;
	while (sequence < a->stress->records) {
		enum way way = fifo_below(&a->rng, WAYS);
		/* With several at once only libaio keeps them in order. */
		unsigned int n = way == WAY_AIO ? fifo_between(&a->rng, 1, DEPTH) : 1;
		struct port *port = &patient;
		struct iovec iov[DEPTH];
		ssize_t results[DEPTH];

		if (n > a->stress->records - sequence)
			n = a->stress->records - sequence;
		for (unsigned int i = 0; i < n; i++) {
			iov[i] = (struct iovec){ buf[i], record_length(a->number, sequence + i) };
			fifo_record_make(buf[i], iov[i].iov_len, a->number, sequence + i);
		}
		/* What must not wait is whole only up to PIPE_BUF, and io_uring's first try must not. */
		if (iov->iov_len > PIPE_BUF && way != WAY_AIO)
			way = WAY_SYNC;
		else if (way == WAY_SYNC && fifo_below(&a->rng, 2))
			port = &impatient;
		do {
			if (port_do(port, way, true, iov, n, results))
				return ktap_fail("writer %d", a->number);
		} while (port == &impatient && *results == -EAGAIN && fifo_wait(port->fd, POLLOUT, "room for a record") > 0);
		for (unsigned int i = 0; i < n; i++) {
			if (results[i] != (ssize_t)iov[i].iov_len)
				return ktap_fail("writer %d: %s: %zd of %zu bytes", a->number, way_names[way], results[i],
						 iov[i].iov_len);
		}
		sequence += n;
	}
	return KTAP_PASS;
}

/* Takes the stream to pieces. */
struct parser {
	unsigned int records;		/* of each writer */
	unsigned int next[WRITERS];
	uint8_t buf[LARGEST];
	size_t len;			/* bytes of the record that is not whole yet */
};

static int parse(struct parser *p, const uint8_t *bytes, size_t len)
{
	struct fifo_record r;

	while (len) {
		size_t want = sizeof(r), n;

		if (p->len >= sizeof(r)) {
			memcpy(&r, p->buf, sizeof(r));
			want = r.length;
		}
		n = want - p->len < len ? want - p->len : len;
		memcpy(p->buf + p->len, bytes, n);
		p->len += n;
		bytes += n;
		len -= n;
		if (p->len < want)
			break;
		if (want == sizeof(r)) {
			if (fifo_record_header(p->buf, &r))
				return -1;
			if (r.writer >= WRITERS || r.length > LARGEST || r.sequence != p->next[r.writer]) {
				ktap_diag("record %llu of writer %llu, with %u bytes; its next is %u",
					  (unsigned long long)r.sequence, (unsigned long long)r.writer, r.length,
					  r.writer < WRITERS ? p->next[r.writer] : 0);
				return -1;
			}
			if (r.length > sizeof(r))
				continue;
		}
		if (fifo_record_verify(&r, p->buf + sizeof(r), r.length - sizeof(r), 0)) {
			ktap_diag("record %llu of writer %llu", (unsigned long long)r.sequence, (unsigned long long)r.writer);
			return -1;
		}
		p->next[r.writer]++;
		p->len = 0;
	}
	return 0;
}

static int be_reader(void *arg)
{
	static uint8_t buf[DEPTH][LARGEST * 2];
	static struct parser p;
	struct actor *a = arg;
	struct port port;
	size_t left = 0;

	if (port_open(&port, 0, O_RDONLY))
		return KTAP_FAIL;
	for (int w = 0; w < WRITERS; w++) {
		for (unsigned int i = 0; i < a->stress->records; i++)
			left += record_length(w, i);
	}
	while (left) {
		enum way way = fifo_below(&a->rng, WAYS);
		unsigned int n = 0, most = way == WAY_AIO ? fifo_between(&a->rng, 1, DEPTH) : 1;
		struct iovec iov[DEPTH];
		ssize_t results[DEPTH];
		size_t room = 0, size;

		/* No more than there will be bytes for. */
		while (n < most && room < left) {
			size = fifo_between(&a->rng, 1, 1u << fifo_between(&a->rng, 1, 14));
			if (size > left - room)
				size = left - room;
			iov[n] = (struct iovec){ buf[n], size };
			n++;
			room += size;
		}
		if (port_do(&port, way, false, iov, n, results))
			return ktap_fail("reader, with %zu bytes to come", left);
		for (unsigned int i = 0; i < n; i++) {
			if (results[i] <= 0)
				return ktap_fail("reader: %s: %zd, with %zu bytes to come", way_names[way], results[i], left);
			if (parse(&p, buf[i], results[i]))
				return KTAP_FAIL;
			left -= results[i];
		}
	}
	return p.len ? ktap_fail("%zu bytes of no record", p.len) : KTAP_PASS;
}

/* Disturbers. An operation returns 0, or -1 after saying what was wrong. */

/* Opens the disturber's channel, which may be away for a moment. */
static int open_channel(struct actor *a, int flags)
{
	int channel = a->stress->everywhere ? fifo_below(&a->rng, 2) : 1, fd;
	long long end = fifo_now_ms() + FIFO_WAIT_MS;
	char path[32];

	snprintf(path, sizeof(path), "/dev/fifo%d", channel);
	do {
		fd = open(path, flags | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		if (!a->stress->everywhere)
			break;
		usleep(500);
	} while (fifo_now_ms() < end);
	ktap_diag("%s: %s", path, strerror(errno));
	return -1;
}

static size_t some_size(struct actor *a)
{
	return fifo_between(&a->rng, 1, fifo_below(&a->rng, 4) ? 300 : ROOM);
}

/* A call's result, with -errno for -1. */
static int judge(struct actor *a, const char *what, ssize_t result)
{
	if (result == -1)
		result = -errno;
	if (accepted(a->stress, result))
		return 0;
	ktap_diag("%s: %zd", what, result);
	return -1;
}

/* Requests of a burst, each with memory of its own. */
static struct burst {
	uint8_t buf[BURST][ROOM];
	size_t size[BURST];
	bool reads[BURST], ended[BURST];
	int n;
} burst;

static void burst_draw(struct actor *a)
{
	burst.n = fifo_between(&a->rng, 1, BURST);
	for (int i = 0; i < burst.n; i++) {
		burst.size[i] = some_size(a);
		burst.reads[i] = fifo_below(&a->rng, 2);
		burst.ended[i] = false;
		memset(burst.buf[i], BLANK, burst.size[i]);
	}
}

/* Request i has ended: only once, as it may, and the memory behind what was read is as it was. */
static int burst_end(struct actor *a, int i, long result)
{
	size_t untouched;

	if (i < 0 || i >= burst.n || burst.ended[i]) {
		ktap_diag("request %d of %d has ended%s", i, burst.n, i < 0 || i >= burst.n ? "" : " twice");
		return -1;
	}
	burst.ended[i] = true;
	if (!accepted(a->stress, result) || result > (long)burst.size[i]) {
		ktap_diag("%s of %zu bytes: %ld", burst.reads[i] ? "read" : "write", burst.size[i], result);
		return -1;
	}
	/* Of what failed in the hardware there may be more than nothing in memory. */
	if (!burst.reads[i] || result == -EIO || result == -ENODEV || result == -ETIMEDOUT)
		return 0;
	untouched = result < 0 ? 0 : result;
	if (fifo_all(burst.buf[i] + untouched, BLANK, burst.size[i] - untouched) &&
	    (untouched == burst.size[i] || burst.buf[i][untouched] == BLANK))
		return 0;
	ktap_diag("a read of %zu bytes that gave %ld has written more", burst.size[i], result);
	return -1;
}

/* Gives the readers something, if there is room. */
static int feed(struct actor *a, int fd)
{
	static const uint8_t bytes[512];
	struct iovec iov = { (void *)bytes, fifo_between(&a->rng, 1, sizeof(bytes)) };

	return judge(a, "write that does not wait", pwritev2(fd, &iov, 1, -1, RWF_NOWAIT));
}

/* Requests by libaio, of which some are cancelled, some complete, and the rest ends with the context. */
static int by_aio(struct actor *a)
{
	struct iocb iocbs[BURST], *each[BURST];
	struct io_event events[BURST];
	io_context_t ctx = NULL;
	int fd = open_channel(a, O_RDWR), err, failed = -1;

	if (fd < 0)
		return -1;
	burst_draw(a);
	for (int i = 0; i < burst.n; i++) {
		each[i] = &iocbs[i];
		if (burst.reads[i])
			io_prep_pread(&iocbs[i], fd, burst.buf[i], burst.size[i], 0);
		else
			io_prep_pwrite(&iocbs[i], fd, burst.buf[i], burst.size[i], 0);
	}
	err = io_setup(BURST, &ctx);
	if (err) {
		ktap_diag("io_setup: %s", strerror(-err));
		goto close;
	}
	err = io_submit(ctx, burst.n, each);
	if (err != burst.n) {
		ktap_diag("io_submit of %d requests: %d", burst.n, err);
		goto destroy;
	}
	for (int turn = fifo_below(&a->rng, 4); turn >= 0; turn--) {
		struct timespec limit = { .tv_nsec = fifo_below(&a->rng, 300) * 1000 };
		int n;

		if (fifo_below(&a->rng, 2) && feed(a, fd))
			goto destroy;
		for (int i = 0; i < burst.n; i++) {
			if (fifo_below(&a->rng, 4))
				continue;
			err = io_cancel(ctx, &iocbs[i], events);
			/* Linux before 6.8 may know of no request that can be cancelled. */
			if (err != -EINPROGRESS && err != -EINVAL) {
				ktap_diag("io_cancel: %d", err);
				goto destroy;
			}
		}
		n = io_getevents(ctx, 0, BURST, events, &limit);
		for (int i = 0; i < n; i++) {
			if (burst_end(a, events[i].obj - iocbs, (long)events[i].res))
				goto destroy;
		}
	}
	failed = 0;
destroy:
	if (fifo_below(&a->rng, 2)) {
		/* Closing ends them: then all of them are to be had. */
		close(fd);
		fd = -1;
		for (int i = 0, n; i < burst.n && !failed; i += burst.ended[i]) {
			if (burst.ended[i])
				continue;
			n = io_getevents(ctx, 1, BURST, events, &(struct timespec){ .tv_sec = FIFO_WAIT_MS / 1000 });
			if (n < 1) {
				ktap_diag("a request of a closed file has not ended: %d", n);
				failed = -1;
			}
			for (int k = 0; k < n; k++)
				failed |= burst_end(a, events[k].obj - iocbs, (long)events[k].res);
		}
	}
	err = io_destroy(ctx);
	if (err) {
		ktap_diag("io_destroy: %s", strerror(-err));
		failed = -1;
	}
close:
	if (fd >= 0)
		close(fd);
	return failed;
}

/* The same by io_uring, with and without registered buffers and files. */
static int by_uring(struct actor *a)
{
	bool fixed = fifo_below(&a->rng, 2), registered = fifo_below(&a->rng, 2);
	struct io_uring ring;
	int fd = open_channel(a, O_RDWR), file = fd, left, err;
	struct iovec iov[BURST];
	int failed = -1;

	if (fd < 0)
		return -1;
	err = io_uring_queue_init(2 * BURST + 2, &ring, 0);
	if (err) {
		close(fd);
		ktap_diag("io_uring_queue_init: %s", strerror(-err));
		return -1;
	}
	burst_draw(a);
	for (int i = 0; i < burst.n; i++)
		iov[i] = (struct iovec){ burst.buf[i], burst.size[i] };
	if (fixed && (err = io_uring_register_buffers(&ring, iov, burst.n))) {
		ktap_diag("io_uring_register_buffers: %s", strerror(-err));
		goto exit;
	}
	if (registered && (err = io_uring_register_files(&ring, &fd, 1))) {
		ktap_diag("io_uring_register_files: %s", strerror(-err));
		goto exit;
	}
	if (registered)
		file = 0;
	for (int i = 0; i < burst.n; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

		if (fixed && burst.reads[i])
			io_uring_prep_read_fixed(sqe, file, burst.buf[i], burst.size[i], -1, i);
		else if (fixed)
			io_uring_prep_write_fixed(sqe, file, burst.buf[i], burst.size[i], -1, i);
		else if (burst.reads[i])
			io_uring_prep_read(sqe, file, burst.buf[i], burst.size[i], -1);
		else
			io_uring_prep_write(sqe, file, burst.buf[i], burst.size[i], -1);
		if (registered)
			sqe->flags |= IOSQE_FIXED_FILE;
		if (!fifo_below(&a->rng, 4))
			sqe->flags |= IOSQE_ASYNC;
		sqe->user_data = i;
	}
	err = io_uring_submit(&ring);
	if (err != burst.n) {
		ktap_diag("io_uring_submit of %d requests: %d", burst.n, err);
		goto exit;
	}
	if (fifo_below(&a->rng, 2) && feed(a, fd))
		goto exit;
	/* What is left over is cancelled; each has an event of its own. */
	for (int i = 0; i < burst.n; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

		io_uring_prep_cancel64(sqe, i, 0);
		sqe->user_data = BURST;
	}
	if (fifo_below(&a->rng, 2))
		usleep(fifo_below(&a->rng, 300));
	err = io_uring_submit(&ring);
	if (err != burst.n) {
		ktap_diag("io_uring_submit of %d cancellations: %d", burst.n, err);
		goto exit;
	}
	failed = 0;
	for (left = 2 * burst.n; left && !failed; left--) {
		struct __kernel_timespec limit = { .tv_sec = FIFO_WAIT_MS / 1000 };
		struct io_uring_cqe *cqe;

		err = io_uring_wait_cqe_timeout(&ring, &cqe, &limit);
		if (err) {
			ktap_diag("waited for %d of %d events: %s", left, 2 * burst.n, strerror(-err));
			failed = -1;
			break;
		}
		if (cqe->user_data != BURST)
			failed = burst_end(a, cqe->user_data, cqe->res);
		io_uring_cqe_seen(&ring, cqe);
	}
exit:
	io_uring_queue_exit(&ring);
	close(fd);
	return failed;
}

/* Calls that do not wait. */
static int by_calls(struct actor *a)
{
	int fd = open_channel(a, O_RDWR | O_NONBLOCK), failed = 0;
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };

	if (fd < 0)
		return -1;
	for (int i = fifo_between(&a->rng, 1, 20); i && !failed; i--) {
		size_t n = some_size(a);

		switch (fifo_below(&a->rng, 4)) {
		case 0:
			failed = judge(a, "read", read(fd, burst.buf[0], n));
			break;
		case 1:
			failed = judge(a, "write", write(fd, burst.buf[1], n));
			break;
		case 2:
			failed = poll(&p, 1, fifo_below(&a->rng, 2)) < 0;
			break;
		default:
			/* Others may have them, or the room: no more than that it says something. */
			failed = poll(&p, 1, 0) < 0 || p.revents & POLLNVAL;
		}
	}
	close(fd);
	return failed ? -1 : 0;
}

static void on_alarm(int sig)
{
	(void)sig;
}

/* Calls that wait, until a signal comes, and one after the other while they do not end. */
static int by_signal(struct actor *a)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct itimerval every = { .it_interval.tv_usec = 500, .it_value.tv_usec = 500 }, off = { 0 };
	int fd = open_channel(a, O_RDWR), failed = 0;
	ssize_t n;

	if (fd < 0)
		return -1;
	/* EINTR instead of once more; by a timer that goes on, as it may come before the call waits. */
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	for (int i = fifo_between(&a->rng, 1, 3); i && !failed; i--) {
		switch (fifo_below(&a->rng, 3)) {
		case 0:
			failed = judge(a, "read", read(fd, burst.buf[0], some_size(a)));
			break;
		case 1:
			failed = judge(a, "write", write(fd, burst.buf[1], some_size(a)));
			break;
		default:
			n = fsync(fd);
			failed = n ? judge(a, "fsync", n) : 0;
		}
	}
	setitimer(ITIMER_REAL, &off, NULL);
	close(fd);
	return failed;
}

struct victim {
	struct actor *actor;
	int gate;
};

static int be_victim(void *arg)
{
	struct victim *v = arg;
	struct actor *a = v->actor;
	struct job jobs[DEPTH];
	int fd = open_channel(a, O_RDWR);

	if (fd < 0)
		return KTAP_FAIL;
	for (int i = 0; i < DEPTH; i++) {
		enum job_direction direction = fifo_below(&a->rng, 2) ? JOB_READ : JOB_WRITE;

		if (job_start(&jobs[i], fifo_below(&a->rng, WAYS), fd, direction, burst.buf[i], some_size(a)))
			return KTAP_FAIL;
		if (i == 2)
			fifo_gate_open(v->gate, 1);
	}
	for (;;)
		pause();
}

/* A process dies with requests in flight, and perhaps while it makes more. */
static int by_killing(struct actor *a)
{
	struct victim v = { a, fifo_gate() };
	pid_t pid = fifo_fork(be_victim, &v);
	int status;

	if (pid < 0)
		return -1;
	if (fifo_gate_pass(v.gate, "a process with requests in flight"))
		kill(pid, SIGKILL);
	/* Its draws are not ours. */
	fifo_random(&a->rng);
	if (fifo_below(&a->rng, 2))
		usleep(fifo_below(&a->rng, 300));
	kill(pid, SIGKILL);
	status = fifo_reap(pid, "a process that was killed");
	close(v.gate);
	if (status != -1 && WIFSIGNALED(status))
		return 0;
	ktap_diag("the killed process ended with status %#x", status);
	return -1;
}

/* Memory goes away, and is closed behind, with reads into it in flight: nobody else's changes. */
static int by_unmapping(struct actor *a)
{
	size_t size = FIFO_PAGE * fifo_between(&a->rng, 1, 8);
	int fd = open_channel(a, O_RDWR), failed = 0;
	struct iocb iocb, *each = &iocb;
	io_context_t ctx = NULL;
	uint8_t *p, *q;

	if (fd < 0)
		return -1;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || io_setup(1, &ctx)) {
		ktap_diag("no memory");
		close(fd);
		return -1;
	}
	io_prep_pread(&iocb, fd, p, size, 0);
	if (!FIFO_GIVES(io_submit(ctx, 1, &each), 1))
		failed = -1;
	munmap(p, size);
	q = mmap(p, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(q, BLANK, size);
	failed |= feed(a, fd);
	close(fd);
	if (q == MAP_FAILED || !fifo_all(q, BLANK, size) || *q != BLANK) {
		ktap_diag("a read has written to memory that was mapped after it");
		failed = -1;
	}
	io_destroy(ctx);
	munmap(q, size);
	return failed;
}

/* A child has the file and the memory too, and does nothing with them. */
static int nothing(void *arg)
{
	(void)arg;
	return KTAP_PASS;
}

static int by_forking(struct actor *a)
{
	int fd = open_channel(a, O_RDWR), failed = 0;
	struct iocb iocb, *each = &iocb;
	struct io_event event;
	io_context_t ctx = NULL;
	pid_t pid;

	if (fd < 0)
		return -1;
	burst.n = 1;
	burst.reads[0] = true;
	burst.ended[0] = false;
	burst.size[0] = some_size(a);
	memset(burst.buf[0], BLANK, burst.size[0]);
	io_prep_pread(&iocb, fd, burst.buf[0], burst.size[0], 0);
	if (!FIFO_GIVES(io_setup(1, &ctx), 0) || !FIFO_GIVES(io_submit(ctx, 1, &each), 1))
		return -1;
	pid = fifo_fork(nothing, NULL);
	failed |= feed(a, fd);
	if (pid < 0 || fifo_reap_passed(pid, "a child that does nothing"))
		failed = -1;
	/* The child's end has not ended the parent's request; it may be that nobody feeds it, then close does. */
	close(fd);
	if (!FIFO_GIVES(io_getevents(ctx, 1, 1, &event, &(struct timespec){ .tv_sec = FIFO_WAIT_MS / 1000 }), 1))
		failed = -1;
	else
		failed |= burst_end(a, 0, (long)event.res);
	io_destroy(ctx);
	return failed;
}

static int by_ioctl(struct actor *a)
{
	int fd = open_channel(a, O_RDWR), failed;
	struct fifo_aio_thresholds t;
	struct fifo_aio_stats stats;
	struct fifo_aio_info info;

	if (fd < 0)
		return -1;
	/* All of them give 0 or an error; judge() wants bytes. */
	failed = judge(a, "FIFO_AIO_GET_INFO", ioctl(fd, FIFO_AIO_GET_INFO, &info) ?: 1) ||
		 judge(a, "FIFO_AIO_GET_STATS", ioctl(fd, FIFO_AIO_GET_STATS, &stats) ?: 1) ||
		 judge(a, "FIFO_AIO_GET_THRESHOLDS", ioctl(fd, FIFO_AIO_GET_THRESHOLDS, &t) ?: 1);
	if (!failed && fifo_below(&a->rng, 2)) {
		/* In the way of nobody for long: a read waits for a few bytes more. */
		t.rx_bytes = fifo_below(&a->rng, 16);
		t.tx_count = fifo_below(&a->rng, 32);
		t.rx_count = fifo_below(&a->rng, 32);
		t.tx_us = fifo_between(&a->rng, 1, 200);
		t.rx_us = fifo_between(&a->rng, 1, 200);
		failed = judge(a, "FIFO_AIO_SET_THRESHOLDS", ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &t) ?: 1);
	}
	close(fd);
	return failed ? -1 : 0;
}

static int by_reset(struct actor *a)
{
	int fd = open_channel(a, O_RDWR), failed;

	if (fd < 0)
		return -1;
	failed = judge(a, "FIFO_AIO_RESET", ioctl(fd, FIFO_AIO_RESET) ?: 1);
	close(fd);
	return failed;
}

static const struct operation {
	const char *name;
	int (*run)(struct actor *a);
	unsigned int share;
} operations[] = {
	{ "libaio", by_aio, 8 },
	{ "io_uring", by_uring, 8 },
	{ "calls", by_calls, 4 },
	{ "calls and signals", by_signal, 3 },
	{ "killing", by_killing, 2 },
	{ "unmapping", by_unmapping, 2 },
	{ "forking", by_forking, 2 },
	{ "ioctl", by_ioctl, 3 },
	{ "reset", by_reset, 1 },
};

static int be_disturber(void *arg)
{
	struct actor *a = arg;
	unsigned int shares = 0;

	for (size_t i = 0; i < FIFO_ARRAY_SIZE(operations); i++)
		shares += operations[i].share;
	for (unsigned int turn = 0; turn < a->stress->turns; turn++) {
		unsigned int drawn = fifo_below(&a->rng, shares), i = 0;
		/* How much an operation draws is its own matter, and may depend on what it meets. */
		struct actor own = { a->stress, a->number, { fifo_random(&a->rng) } };

		while (drawn >= operations[i].share)
			drawn -= operations[i++].share;
		if (operations[i].run(&own))
			return ktap_fail("disturber %d, turn %u: %s", a->number, turn, operations[i].name);
		__atomic_fetch_add(&a->stress->operations, 1, __ATOMIC_RELEASE);
	}
	return KTAP_PASS;
}

/* Reads all that sysfs and debugfs have, again and again. */
static int be_watcher(void *arg)
{
	struct actor *a = arg;

	while (!__atomic_load_n(&a->stress->stop, __ATOMIC_ACQUIRE)) {
		fifo_look();
		usleep(1000);
	}
	return KTAP_PASS;
}

/* The company. */

struct company {
	struct stress *stress;
	struct {
		pid_t pid;
		const char *trade;
		int number;
	} member[WRITERS + DISTURBERS + 2];
	int n;
};

static int hire(struct company *c, const char *trade, int (*fn)(void *arg), int count, uint64_t stream)
{
	for (int i = 0; i < count; i++) {
		struct actor a = { c->stress, i, fifo_rng(stream + i) };

		c->member[c->n].pid = fifo_fork(fn, &a);
		if (c->member[c->n].pid < 0)
			return -1;
		c->member[c->n].trade = trade;
		c->member[c->n++].number = i;
	}
	return 0;
}

static int company_start(struct company *c, const int *errors, bool everywhere)
{
	struct stress *s = fifo_shared(sizeof(*s));

	if (!s)
		return ktap_fail("no memory");
	if (fifo_channels() < 2)
		return ktap_skip("%d channel, two are needed", fifo_channels());
	*s = (struct stress){
		.records = fifo_few_rounds(2000), .turns = fifo_few_rounds(1000), .everywhere = everywhere, .accepted = errors,
	};
	*c = (struct company){ .stress = s };
	if (!everywhere && (hire(c, "writer", be_writer, WRITERS, 100) || hire(c, "reader", be_reader, 1, 200)))
		return KTAP_FAIL;
	if (hire(c, "disturber", be_disturber, DISTURBERS, 300) || hire(c, "watcher", be_watcher, 1, 400))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* All end by themselves, the watcher after the others; and the channels are as they were. */
static int company_end(struct company *c)
{
	int result = KTAP_PASS;

	for (int i = 0; i < c->n; i++) {
		char who[64];
		int status;

		if (i == c->n - 1)
			__atomic_store_n(&c->stress->stop, 1, __ATOMIC_RELEASE);
		snprintf(who, sizeof(who), "%s %d", c->member[i].trade, c->member[i].number);
		/* Each of its waits has a bound; this one is for what has none. */
		status = fifo_reap_within(c->member[i].pid, FIFO_CHECK_MS / 2, who);
		if (status) {
			ktap_diag("%s ended with status %#x", who, status);
			result = KTAP_FAIL;
		}
	}
	for (int i = 0; i < 2; i++) {
		int fd = fifo_open(i, O_RDWR);

		if (fd < 0)
			return KTAP_FAIL;
		if (i || c->stress->everywhere) {
			struct fifo_aio_thresholds t = {
				.tx_count = fifo_parameter("coalesce_count"), .tx_us = fifo_parameter("coalesce_us"),
				.rx_count = fifo_parameter("coalesce_count"), .rx_us = fifo_parameter("coalesce_us"),
			};

			if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_RESET), 0) ||
			    !FIFO_GIVES(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &t), 0))
				result = KTAP_FAIL;
		}
		if (fifo_round_trip(fd, burst.buf[0], sizeof(burst.buf[0]), 5))
			result = KTAP_FAIL;
		close(fd);
	}
	return result;
}

/* What cancelling, signals, resets, and not waiting bring. */
static const int usual[] = { ECANCELED, EINTR, EIO, EAGAIN, 0 };
static const int unbound[] = { ECANCELED, EINTR, EIO, EAGAIN, ENODEV, 0 };

static int everything(void)
{
	struct company c;
	int result = company_start(&c, usual, false);

	return result == KTAP_PASS ? company_end(&c) : result;
}

struct milestone {
	struct stress *stress;
	uint32_t operations;
};

static bool is_reached(void *arg)
{
	const struct milestone *m = arg;

	return __atomic_load_n(&m->stress->operations, __ATOMIC_ACQUIRE) >= m->operations;
}

/* Waits until step of steps of all there is to do is done; then there is as much left as each step has. */
static int reach(const struct company *c, unsigned int step, unsigned int steps)
{
	struct milestone m = { c->stress, (uint64_t)c->stress->turns * DISTURBERS * step / (steps + 1) };

	return fifo_until(is_reached, &m, "the disturbers to get on");
}

/* With hardware that loses and delays interrupts and delays its writes: nobody notices but the clock. */
static int with_faults(void)
{
	unsigned int steps = fifo_few_rounds(200);
	struct fifo_rng rng = fifo_rng(500);
	long long timeout_ms = fifo_parameter("timeout_ms");
	struct company c;
	int result;

	if (!ktap_has_host())
		return ktap_skip("no host to break the hardware");
	/* What is lost is found sooner. */
	if (fifo_parameter_set("timeout_ms", 100))
		return ktap_fail("timeout_ms: %s", strerror(errno));
	result = company_start(&c, usual, false);
	for (unsigned int i = 0; i < steps && result == KTAP_PASS; i++) {
		unsigned int n = fifo_between(&rng, 1, 20);
		char fault[64];

		switch (fifo_below(&rng, 5)) {
		case 0:
			snprintf(fault, sizeof(fault), "irq:drop@next");
			break;
		case 1:
			snprintf(fault, sizeof(fault), "irq:delay=%uus@next", n * 100);
			break;
		case 2:
			snprintf(fault, sizeof(fault), "irq:dup=%u@next", n);
			break;
		case 3:
			snprintf(fault, sizeof(fault), "irq:spurious@next");
			break;
		default:
			snprintf(fault, sizeof(fault), "dma.write:delay=%uus@next", n * 100);
		}
		if (reach(&c, i, steps) || ktap_host(NULL, 0, "fault fifo0/%s", fault))
			result = KTAP_FAIL;
	}
	if (result != KTAP_SKIP && company_end(&c))
		result = KTAP_FAIL;
	/* The last ones may have come to an idle device: the end has woken it up. */
	if (ktap_host(NULL, 0, "clear") || fifo_parameter_set("timeout_ms", timeout_ms))
		result = KTAP_FAIL;
	return result;
}

/* While the driver goes and comes. */
static int with_unbind(void)
{
	unsigned int steps = fifo_few_rounds(200);
	char link[128], *address;
	struct company c;
	ssize_t n = readlink("/sys/class/fifo/fifo0/device", link, sizeof(link) - 1);
	int result;

	if (n < 0)
		return ktap_fail("/sys/class/fifo/fifo0/device: %s", strerror(errno));
	link[n] = 0;
	address = strrchr(link, '/') + 1;
	result = company_start(&c, unbound, true);
	for (unsigned int i = 0; i < steps && result == KTAP_PASS; i++) {
		if (reach(&c, i, steps) || !FIFO_GIVES(spit("/sys/bus/pci/drivers/fifo_aio/unbind", address), 0) ||
		    !FIFO_GIVES(spit("/sys/bus/pci/drivers/fifo_aio/bind", address), 0))
			result = KTAP_FAIL;
	}
	if (result != KTAP_SKIP && company_end(&c))
		result = KTAP_FAIL;
	return result;
}

int main(int argc, char **argv)
{
	static const struct ktap_check checks[] = {
		{ "everything", everything },
		{ "with_faults", with_faults },
		{ "with_unbind", with_unbind },
	};

	return fifo_run(checks, FIFO_ARRAY_SIZE(checks), argc, argv);
}
