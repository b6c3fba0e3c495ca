/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the asynchronous interfaces share: streams that come from
 * another process or go there, and processes that end with requests in flight.
 * For channel 0.
 */
#ifndef FIFOVM_ASYNC_H
#define FIFOVM_ASYNC_H

#include "fifo.h"

#define DEPTH	65536	/* the largest FIFO that the checks fill */
#define PIECE	64	/* bytes of a request where there are many */

/* How many requests are in flight when something ends. */
static const unsigned int crowds[] = { 1, 2, 17, 256 };

static uint8_t filling[2 * DEPTH], draining[2 * DEPTH];

/* Bytes that the FIFO holds, or 0 after saying that the checks can't do with so many or few. */
static inline unsigned int depth_of(int fd)
{
	unsigned int depth = fifo_info(fd).depth;

	if (depth >= 4 * FIFO_PAGE && depth <= DEPTH)
		return depth;
	ktap_diag("the checks are not made for a FIFO of %u bytes", depth);
	return 0;
}

/* Writes len bytes of the stream. */
static inline int put(int fd, size_t len, uint64_t stream, uint64_t at)
{
	fifo_fill(filling, len, stream, at);
	return fifo_write_all(fd, filling, len);
}

/* Reads len bytes, which have to be the stream's. */
static inline int get(int fd, size_t len, uint64_t stream, uint64_t at)
{
	if (fifo_read_all(fd, draining, len))
		return -1;
	return fifo_verify(draining, len, stream, at);
}

static inline int fill_is(int fd, unsigned int want)
{
	unsigned int fill = fifo_info(fd).fill;

	if (fill == want)
		return 0;
	ktap_diag("%u bytes in the FIFO, not %u", fill, want);
	return -1;
}

/* A stalled device: requests fail, until the driver finds that only a reset of all of it helps. */
static inline int revive(int fd)
{
	char byte = 0;
	int n = -1;

	for (int i = 0; i < 10 && n < 0; i++) {
		n = write(fd, &byte, 1);
		if (n < 0 && errno != ETIMEDOUT && errno != EIO)
			break;
	}
	if (n == 1 && FIFO_GIVES(ioctl(fd, FIFO_AIO_RESET), 0))
		return 0;
	ktap_diag("the device does not come back: %s", strerror(errno));
	return -1;
}

/* The same in another process, with a file of its own. */

struct bytes {
	size_t len;
	uint64_t stream, at;
};

static inline int bytes_write(void *arg)
{
	const struct bytes *b = arg;
	int fd = fifo_open(0, O_WRONLY);

	return fd < 0 || put(fd, b->len, b->stream, b->at) ? KTAP_FAIL : KTAP_PASS;
}

static inline int other_writes(size_t len, uint64_t stream, uint64_t at)
{
	pid_t pid = fifo_fork(bytes_write, &(struct bytes){ len, stream, at });

	return pid < 0 ? -1 : fifo_reap_passed(pid, "a process that writes");
}

static inline int bytes_read(void *arg)
{
	const struct bytes *b = arg;
	int fd = fifo_open(0, O_RDONLY);

	return fd < 0 || get(fd, b->len, b->stream, b->at) ? KTAP_FAIL : KTAP_PASS;
}

static inline int other_reads(size_t len, uint64_t stream, uint64_t at)
{
	pid_t pid = fifo_fork(bytes_read, &(struct bytes){ len, stream, at });

	return pid < 0 ? -1 : fifo_reap_passed(pid, "a process that reads");
}

/*
 * Requests that are gone: reads, or writes behind a FIFO that is full of stream
 * 1. None is in flight, what is in the FIFO is what was, and their memory, n
 * pieces, stays as it is.
 */
static inline int nothing_moves(int fd, uint8_t *buf, unsigned int n, bool writes)
{
	const char *ring = writes ? "tx" : "rx";

	if (fifo_in_flight(0, ring) > 0) {
		ktap_diag("%lld requests are in flight", fifo_in_flight(0, ring));
		return -1;
	}
	if (writes && (get(fd, fifo_info(fd).depth, 1, 0) || fill_is(fd, 0)))
		return -1;
	return fifo_untouched(fd, buf, n * PIECE);
}

/* How a process ends while it has requests in flight. */
enum ending {
	EXIT,
	KILL,
	EXEC,
};

static const char *const ending_names[] = { "exit", "SIGKILL", "exec" };

struct doomed {
	/* In the child: puts the requests in flight. 0, or -1 after saying what is wrong. */
	int (*begin)(const struct doomed *d);
	enum ending ending;
	uint8_t *buf;		/* shared; n pieces */
	unsigned int n;
	bool writes;
	unsigned int kind;	/* of requests; begin's business */
	int ready;		/* gate: all is in flight */
	int linger[2];		/* pipe: what exec has made lives until nobody can write */
	int execed[2];		/* pipe: nobody can write after exec */
};

static inline int doomed_run(void *arg)
{
	struct doomed *d = arg;
	char fd[16];

	if (d->begin(d))
		return KTAP_FAIL;
	if (d->ending == EXEC) {
		close(d->linger[1]);
		close(d->execed[0]);
		snprintf(fd, sizeof(fd), "%d", d->linger[0]);
		execl("/proc/self/exe", "doomed", "--linger", fd, NULL);
		return ktap_fail("exec: %s", strerror(errno));
	}
	fifo_gate_open(d->ready, 1);
	if (d->ending == EXIT)
		return KTAP_PASS;
	for (;;)
		pause();
}

/* What exec makes of a doomed process, where main is asked for it: it lives on, without its requests. */
static inline bool lingers(int argc, char **argv)
{
	char c;

	if (argc != 3 || strcmp(argv[1], "--linger"))
		return false;
	while (read(atoi(argv[2]), &c, 1) > 0)
		;
	return true;
}

/* All numbers of requests, and all kinds of them, of which the odd ones write. */
static inline int process_ends(int (*begin)(const struct doomed *d), unsigned int kinds, enum ending ending)
{
	struct doomed d = { .begin = begin, .ending = ending, .buf = fifo_shared(256 * PIECE), .ready = fifo_gate() };
	int fd = fifo_open(0, O_RDWR), status;
	pid_t pid;
	char c;

	if (!d.buf || fd < 0)
		return KTAP_FAIL;
	for (unsigned int i = 0; i < kinds * FIFO_ARRAY_SIZE(crowds); i++) {
		d.n = crowds[i / kinds];
		d.kind = i % kinds;
		d.writes = d.kind & 1;
		if (ending == EXEC && (pipe(d.linger) || pipe2(d.execed, O_CLOEXEC)))
			return ktap_fail("pipe: %s", strerror(errno));
		pid = fifo_fork(doomed_run, &d);
		if (pid < 0)
			return KTAP_FAIL;
		if (ending == EXEC) {
			close(d.linger[0]);
			close(d.execed[1]);
			if (fifo_wait(d.execed[0], POLLIN, "exec") < 0 || read(d.execed[0], &c, 1))
				return ktap_fail("no exec");
			close(d.execed[0]);
		} else if (fifo_gate_pass(d.ready, "requests of a child")) {
			return KTAP_FAIL;
		}
		if (ending == KILL)
			kill(pid, SIGKILL);
		if (ending != EXEC) {
			status = fifo_reap(pid, "a child with requests in flight");
			if (status != (ending == KILL ? SIGKILL : 0))
				return ktap_fail("%s: status %#x", ending_names[ending], status);
		}
		if (nothing_moves(fd, d.buf, d.n, d.writes))
			return ktap_fail("%s with %u %s in flight, kind %u", ending_names[ending], d.n,
					 d.writes ? "writes" : "reads", d.kind);
		if (ending == EXEC) {
			close(d.linger[1]);
			if (fifo_reap_passed(pid, "a child after exec"))
				return KTAP_FAIL;
		}
	}
	return KTAP_PASS;
}

/*
 * Processes that read and write all the time, into shared memory of n pieces,
 * until they are killed. begin opens the gate itself, and does not return.
 */
static inline int busy_ends(int (*begin)(const struct doomed *d), unsigned int n)
{
	struct doomed d = { .begin = begin, .n = n, .buf = fifo_shared(n * PIECE), .ready = fifo_gate() };
	int fd = fifo_open(0, O_RDWR | O_NONBLOCK);
	struct fifo_rng rng = fifo_rng(900);

	if (!d.buf || fd < 0)
		return KTAP_FAIL;
	for (unsigned int round = 0; round < fifo_rounds(200); round++) {
		pid_t pid = fifo_fork(doomed_run, &d);

		if (pid < 0 || fifo_gate_pass(d.ready, "a busy child"))
			return KTAP_FAIL;
		/* At any moment: there is nothing to wait for. */
		usleep(fifo_below(&rng, 500));
		kill(pid, SIGKILL);
		if (fifo_reap(pid, "a busy child") != SIGKILL)
			return ktap_fail("it ended by itself");
		while (read(fd, draining, sizeof(draining)) > 0)
			;
		if (!FIFO_FAILS(read(fd, draining, 1), EAGAIN) || nothing_moves(fd, d.buf, n, false))
			return ktap_fail("round %u", round);
	}
	return KTAP_PASS;
}

#endif
