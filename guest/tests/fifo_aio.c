// SPDX-License-Identifier: MIT
/*
 * fifo_aio - /dev/fifoN by the kernel's asynchronous I/O: io_submit, io_getevents, io_cancel, io_destroy
 */
#define _GNU_SOURCE
#include <libaio.h>
#include <linux/ioprio.h>
#include <pthread.h>
#include <sys/uio.h>

#include "async.h"

/* Of linux/aio_abi.h, which libaio.h does not go together with. */
#define FLAG_RESFD	(1 << 0)
#define FLAG_IOPRIO	(1 << 1)

#define REQUESTS	256	/* in flight at most */

/*
 * A context, with its requests: an event has to be that of a request which is
 * in flight, so none is lost, doubled or mixed up unnoticed.
 */
struct request {
	struct iocb iocb;
	bool pending;
	long result;		/* of its event */
	unsigned int order;	/* of its event, from 0 */
};

struct queue {
	io_context_t ctx;
	int fd;
	unsigned int depth;	/* bytes of the FIFO */
	unsigned int pending, ended;
	struct request requests[REQUESTS];
};

static int queue_init_on(struct queue *q, int channel)
{
	int err;

	memset(q, 0, sizeof(*q));
	err = io_setup(REQUESTS, &q->ctx);
	if (err) {
		ktap_diag("io_setup: %s", strerror(-err));
		return -1;
	}
	q->fd = fifo_open(channel, O_RDWR);
	if (q->fd < 0)
		return -1;
	q->depth = depth_of(q->fd);
	return q->depth ? 0 : -1;
}

static int queue_init(struct queue *q)
{
	return queue_init_on(q, 0);
}

static void queue_end(struct queue *q)
{
	io_destroy(q->ctx);
	close(q->fd);
}

static void prepare_read(struct queue *q, unsigned int i, void *buf, size_t len)
{
	io_prep_pread(&q->requests[i].iocb, q->fd, buf, len, 0);
}

static void prepare_write(struct queue *q, unsigned int i, const void *buf, size_t len)
{
	io_prep_pwrite(&q->requests[i].iocb, q->fd, (void *)buf, len, 0);
}

/* Submits what is prepared in n requests; the result is io_submit's. It may not wait for the device. */
static int submit_some(struct queue *q, unsigned int first, unsigned int n)
{
	struct iocb *list[REQUESTS];
	int got;

	for (unsigned int i = 0; i < n; i++) {
		struct request *r = &q->requests[first + i];

		r->iocb.data = r;
		list[i] = &r->iocb;
	}
	alarm(FIFO_WAIT_MS / 1000);
	got = io_submit(q->ctx, n, list);
	alarm(0);
	for (int i = 0; i < got; i++) {
		struct request *r = &q->requests[first + i];

		if (r->pending)
			ktap_diag("request %u is submitted twice", first + i);
		r->pending = true;
		q->pending++;
	}
	return got;
}

static int submit(struct queue *q, unsigned int first, unsigned int n)
{
	int got = submit_some(q, first, n);

	if (got == (int)n)
		return 0;
	ktap_diag("io_submit of %u requests: %d, %s", n, got, got < 0 ? strerror(-got) : "");
	return -1;
}

static int note(struct queue *q, const struct io_event *e)
{
	struct request *r = e->data;

	if (r < q->requests || r >= q->requests + REQUESTS || e->obj != &r->iocb) {
		ktap_diag("an event of no request of ours");
		return -1;
	}
	if (!r->pending || e->res2) {
		ktap_diag("an event of request %td, which is %sin flight: %ld, %ld", r - q->requests,
			  r->pending ? "" : "not ", (long)e->res, (long)e->res2);
		return -1;
	}
	r->pending = false;
	r->result = (long)e->res;
	r->order = q->ended++;
	q->pending--;
	return 0;
}

/* Takes the events that there are; how many, or -1. */
static int take(struct queue *q)
{
	struct io_event events[64];
	struct timespec now = { 0 };
	int n, all = 0;

	do {
		n = io_getevents(q->ctx, 0, FIFO_ARRAY_SIZE(events), events, &now);
		if (n < 0) {
			ktap_diag("io_getevents: %s", strerror(-n));
			return -1;
		}
		for (int i = 0; i < n; i++) {
			if (note(q, &events[i]))
				return -1;
		}
		all += n;
	} while (n == FIFO_ARRAY_SIZE(events));
	return all;
}

/* Waits for the events of n more requests. */
static int wait_for(struct queue *q, unsigned int n, const char *what)
{
	struct timespec limit = { .tv_sec = FIFO_WAIT_MS / 1000 };
	struct io_event events[64];

	while (n) {
		unsigned int most = n < FIFO_ARRAY_SIZE(events) ? n : FIFO_ARRAY_SIZE(events);
		int got = io_getevents(q->ctx, 1, most, events, &limit);

		if (got == -EINTR)
			continue;
		if (got <= 0) {
			ktap_diag("waited %d s for %s: %u events are missing (%d)", FIFO_WAIT_MS / 1000, what, n, got);
			return -1;
		}
		for (int i = 0; i < got; i++) {
			if (note(q, &events[i]))
				return -1;
		}
		n -= got;
	}
	return 0;
}

/* Sees that none of the requests ends by itself, as far as a while tells. */
static int all_pending(struct queue *q)
{
	struct timespec a_while = { .tv_nsec = 5000000 };
	struct io_event e;
	int n = io_getevents(q->ctx, 1, 1, &e, &a_while);

	if (!n)
		return 0;
	ktap_diag("a request that is to wait has ended with %ld", n == 1 ? (long)e.res : n);
	return -1;
}

static int gives(const struct queue *q, unsigned int i, long want)
{
	const struct request *r = &q->requests[i];

	if (!r->pending && r->result == want)
		return 0;
	ktap_diag("request %u %s %ld, not %ld", i, r->pending ? "is in flight; it had" : "ended with", r->result, want);
	return -1;
}

/* io_cancel, by the request's number: it has to be found. */
static int cancel(struct queue *q, unsigned int i)
{
	struct io_event e;
	int err = io_cancel(q->ctx, &q->requests[i].iocb, &e);

	if (err == -EINPROGRESS)
		return 0;
	ktap_diag("io_cancel of request %u: %s", i, strerror(-err));
	return -1;
}

/* The same for one that is not to be found. */
static int cancel_fails(io_context_t ctx, struct iocb *iocb, int err, const char *what)
{
	struct io_event e;
	int got = io_cancel(ctx, iocb, &e);

	if (got == -err)
		return 0;
	ktap_diag("io_cancel of %s: %s, not %s", what, got ? strerrorname_np(-got) : "0", strerrorname_np(err));
	return -1;
}

/*
 * Sees that reads i to i + n - 1 ended in this order, with the stream's next
 * bytes each; *at moves on.
 */
static int in_order(const struct queue *q, unsigned int i, unsigned int n, uint64_t stream, uint64_t *at)
{
	for (unsigned int end = i + n; i < end; i++) {
		const struct request *r = &q->requests[i];

		if (r->pending || r->result <= 0) {
			ktap_diag("read %u ended with %ld", i, r->result);
			return -1;
		}
		if (i + 1 < end && r[1].order < r->order) {
			ktap_diag("request %u ended as number %u, request %u as number %u", i, r->order, i + 1, r[1].order);
			return -1;
		}
		if (fifo_verify(r->iocb.u.c.buf, r->result, stream, *at))
			return -1;
		*at += r->result;
	}
	return 0;
}

static struct queue queue, second;
static uint8_t memory[16 * DEPTH] __attribute__((aligned(FIFO_PAGE)));

/* The first thing that asynchronous I/O is about. */

static int empty_read(void)
{
	struct queue *q = &queue;

	if (queue_init(q))
		return KTAP_FAIL;
	prepare_read(q, 0, memory, 512);
	if (submit(q, 0, 1) || all_pending(q))
		return KTAP_FAIL;
	if (other_writes(100, 1, 0) || wait_for(q, 1, "the read") || gives(q, 0, 100))
		return KTAP_FAIL;
	if (fifo_verify(memory, 100, 1, 0) || !fifo_all(memory + 100, 0, 412))
		return ktap_fail("not what was written");
	return KTAP_PASS;
}

static int full_write(void)
{
	struct queue *q = &queue;

	if (queue_init(q) || put(q->fd, q->depth, 1, 0))
		return KTAP_FAIL;
	fifo_fill(memory, 512, 1, q->depth);
	prepare_write(q, 0, memory, 512);
	if (submit(q, 0, 1) || all_pending(q))
		return KTAP_FAIL;
	if (other_reads(q->depth, 1, 0) || wait_for(q, 1, "the write") || gives(q, 0, 512))
		return KTAP_FAIL;
	return other_reads(512, 1, q->depth) ? KTAP_FAIL : KTAP_PASS;
}

static const unsigned int depths[] = { 1, 2, 3, 7, 8, 16, 63, 64, 65, 128, 255, 256 };

/* How many are submitted at a time. */
static const unsigned int batches[] = { 1, 5, REQUESTS };

static int submit_batches(struct queue *q, unsigned int n, unsigned int batch)
{
	for (unsigned int i = 0; i < n; i += batch) {
		if (submit(q, i, n - i < batch ? n - i : batch))
			return -1;
	}
	return 0;
}

static int read_depths(void)
{
	struct queue *q = &queue;

	for (unsigned int d = 0; d < FIFO_ARRAY_SIZE(depths); d++) {
		unsigned int n = depths[d];
		uint64_t at = 0;

		if (queue_init(q))
			return KTAP_FAIL;
		memset(memory, 0, sizeof(memory));
		for (unsigned int i = 0; i < n; i++)
			prepare_read(q, i, memory + i * 256, 200);
		if (submit_batches(q, n, batches[d % FIFO_ARRAY_SIZE(batches)]) || all_pending(q))
			return KTAP_FAIL;
		if (other_writes(n * 200, n, 0) || wait_for(q, n, "the reads") || in_order(q, 0, n, n, &at))
			return ktap_fail("with %u reads", n);
		/* A read that saw the write half done is short. */
		if (get(q->fd, n * 200 - at, n, at))
			return ktap_fail("behind %u reads", n);
		for (unsigned int i = 0; i < n; i++) {
			if (!fifo_all(memory + i * 256 + 200, 0, 56))
				return ktap_fail("read %u went beyond its end", i);
		}
		queue_end(q);
	}
	return KTAP_PASS;
}

static int write_depths(void)
{
	struct queue *q = &queue;

	for (unsigned int d = 0; d < FIFO_ARRAY_SIZE(depths); d++) {
		unsigned int n = depths[d];

		if (queue_init(q) || put(q->fd, q->depth, n, 0))
			return KTAP_FAIL;
		for (unsigned int i = 0; i < n; i++) {
			fifo_fill(memory + i * 256, 200, n, q->depth + i * 200);
			prepare_write(q, i, memory + i * 256, 200);
		}
		if (submit_batches(q, n, batches[d % FIFO_ARRAY_SIZE(batches)]) || all_pending(q))
			return KTAP_FAIL;
		if (other_reads(q->depth, n, 0) || wait_for(q, n, "the writes"))
			return ktap_fail("with %u writes", n);
		for (unsigned int i = 0; i < n; i++) {
			if (gives(q, i, 200))
				return KTAP_FAIL;
			if (q->requests[i].order != i)
				return ktap_fail("write %u ended as number %u", i, q->requests[i].order);
		}
		if (other_reads(n * 200, n, q->depth))
			return ktap_fail("behind %u writes", n);
		queue_end(q);
	}
	return KTAP_PASS;
}

/* Several contexts, on files of their own, share a ring: its order is that of submission. */
static int two_contexts(void)
{
	struct queue *a = &queue, *b = &second;

	if (queue_init(a) || queue_init(b))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < 32; i++) {
		struct queue *q = i & 1 ? b : a;

		prepare_read(q, i / 2, memory + i * 64, 64);
		if (submit(q, i / 2, 1))
			return KTAP_FAIL;
	}
	if (all_pending(a) || all_pending(b) || put(a->fd, 32 * 64, 1, 0))
		return KTAP_FAIL;
	if (wait_for(a, 16, "one context") || wait_for(b, 16, "the other"))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < 32; i++) {
		if (gives(i & 1 ? b : a, i / 2, 64))
			return KTAP_FAIL;
	}
	return fifo_verify(memory, 32 * 64, 1, 0) ? KTAP_FAIL : KTAP_PASS;
}

/* Counts. */

static int partial_read(void)
{
	static const unsigned int rooms[] = { 1, 100, 4096, 5000, 3 * DEPTH };
	struct queue *q = &queue;

	if (queue_init(q))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < FIFO_ARRAY_SIZE(rooms); i++) {
		size_t want = rooms[i] < 4500 ? rooms[i] : 4500;

		memset(memory, 0x77, rooms[i] + 1);
		prepare_read(q, 0, memory, rooms[i]);
		if (put(q->fd, 4500, 1, 0) || submit(q, 0, 1) || wait_for(q, 1, "the read") || gives(q, 0, want))
			return KTAP_FAIL;
		if (fifo_verify(memory, want, 1, 0) || !fifo_all(memory + want, 0x77, rooms[i] + 1 - want))
			return ktap_fail("a read of %u bytes where 4500 are", rooms[i]);
		if (get(q->fd, 4500 - want, 1, want))
			return KTAP_FAIL;
	}
	/* No bytes: no waiting either, in neither direction. */
	prepare_read(q, 0, memory, 0);
	prepare_write(q, 1, memory, 0);
	if (submit(q, 0, 2) || wait_for(q, 2, "requests for nothing") || gives(q, 0, 0) || gives(q, 1, 0))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* Writes that are larger than the FIFO, than a descriptor, than a chain, and than a request, which is short then. */
static int large_writes(void)
{
	static const size_t sizes[] = { DEPTH + 1, 1 << 20, (4 << 20) + 12345, (17 << 20) + 1 };
	uint8_t *big = mmap(NULL, 18 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct queue *q = &queue;

	if (queue_init(q) || big == MAP_FAILED)
		return ktap_fail("no memory");
	for (unsigned int i = 0; i < FIFO_ARRAY_SIZE(sizes); i++) {
		uint8_t *from = big + 4095 * i;
		size_t at = 0, most = sizes[i] < 16 << 20 ? sizes[i] : 16 << 20;

		fifo_fill(from, sizes[i], i, 0);
		prepare_write(q, 0, from, sizes[i]);
		if (submit(q, 0, 1) || all_pending(q))
			return KTAP_FAIL;
		while (at < most) {
			size_t n = most - at < DEPTH / 2 ? most - at : DEPTH / 2;

			if (get(q->fd, n, i, at))
				return ktap_fail("%zu bytes of %zu", at, sizes[i]);
			at += n;
		}
		if (wait_for(q, 1, "the write") || gives(q, 0, most) || fill_is(q->fd, 0))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/*
 * Vectors: n pieces, of them one in seven empty, in an array that is gone as
 * soon as io_submit returns.
 */
static struct iovec *vector(uint8_t *base, unsigned int n, struct fifo_rng *rng, size_t *total)
{
	struct iovec *iov = mmap(NULL, 1024 * sizeof(*iov), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	*total = 0;
	if (iov == MAP_FAILED) {
		ktap_diag("no memory");
		return NULL;
	}
	for (unsigned int i = 0; i < n; i++) {
		iov[i].iov_base = base;
		iov[i].iov_len = i % 7 == 3 ? 0 : fifo_between(rng, 1, n > 64 ? 40 : 600);
		base += iov[i].iov_len + fifo_below(rng, 50);
		*total += iov[i].iov_len;
	}
	return iov;
}

static const unsigned int segments[] = { 1, 2, 3, 8, 9, 63, 64, 65, 255, 256, 512, 1000, 1023, 1024 };

static int read_vectors(void)
{
	struct fifo_rng rng = fifo_rng(100);
	struct iovec kept[1024];
	struct queue *q = &queue;

	if (queue_init(q))
		return KTAP_FAIL;
	for (unsigned int s = 0; s < FIFO_ARRAY_SIZE(segments); s++) {
		unsigned int n = segments[s];
		size_t total, done = 0, want;
		struct iovec *iov = vector(memory, n, &rng, &total);
		bool whole;
		long got;

		if (!iov)
			return KTAP_FAIL;
		memcpy(kept, iov, sizeof(kept));
		memset(memory, 0x33, sizeof(memory));
		/* One that waits, and one that finds all of it. */
		if (!(s & 1) && put(q->fd, total, n, 0))
			return KTAP_FAIL;
		io_prep_preadv(&q->requests[0].iocb, q->fd, iov, n, 0);
		if (submit(q, 0, 1))
			return KTAP_FAIL;
		memset(iov, 0xff, sizeof(kept));
		munmap(iov, sizeof(kept));
		if (((s & 1) && put(q->fd, total, n, 0)) || wait_for(q, 1, "the read"))
			return KTAP_FAIL;
		got = q->requests[0].result;
		/* A piece may cross a page. */
		whole = 2 * n <= fifo_info(q->fd).max_segments;
		if (got <= 0 || (size_t)got > total || (whole && !(s & 1) && (size_t)got != total))
			return ktap_fail("a read into %u pieces of %zu bytes: %ld", n, total, got);
		want = got;
		for (unsigned int i = 0; i < n; i++) {
			size_t len = kept[i].iov_len < want - done ? kept[i].iov_len : want - done;
			uint8_t *end = i + 1 < n ? kept[i + 1].iov_base : memory + sizeof(memory);
			uint8_t *at = kept[i].iov_base;

			if (fifo_verify(at, len, n, done) || !fifo_all(at + len, 0x33, end - at - len))
				return ktap_fail("piece %u of %u", i, n);
			done += len;
		}
		if (get(q->fd, total - want, n, want))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

static int write_vectors(void)
{
	struct fifo_rng rng = fifo_rng(101);
	struct queue *q = &queue;

	if (queue_init(q))
		return KTAP_FAIL;
	for (unsigned int s = 0; s < FIFO_ARRAY_SIZE(segments); s++) {
		unsigned int n = segments[s];
		size_t total, done = 0;
		struct iovec *iov = vector(memory, n, &rng, &total);
		bool waits = s & 1;

		if (!iov || (waits && put(q->fd, q->depth, 0, 0)))
			return KTAP_FAIL;
		memset(memory, 0x33, sizeof(memory));
		for (unsigned int i = 0; i < n; i++) {
			fifo_fill(iov[i].iov_base, iov[i].iov_len, n, done);
			done += iov[i].iov_len;
		}
		io_prep_pwritev(&q->requests[0].iocb, q->fd, iov, n, 0);
		if (submit(q, 0, 1))
			return KTAP_FAIL;
		memset(iov, 0xff, 1024 * sizeof(*iov));
		munmap(iov, 1024 * sizeof(*iov));
		if (waits && (all_pending(q) || get(q->fd, q->depth, 0, 0)))
			return KTAP_FAIL;
		if (wait_for(q, 1, "the write") || gives(q, 0, total) || get(q->fd, total, n, 0))
			return ktap_fail("a write of %u pieces", n);
	}
	return KTAP_PASS;
}

/* Twice as many descriptors as the ring holds, and every fifth request is cancelled: order all the same. */
static int more_than_ring(void)
{
	static struct iovec iov[REQUESTS][64];
	struct queue *q = &queue;
	unsigned int pieces, each;

	if (queue_init(q))
		return KTAP_FAIL;
	pieces = 2 * fifo_info(q->fd).ring_entries / REQUESTS;
	if (pieces < 2)
		pieces = fifo_info(q->fd).max_segments > 1 ? 2 : 1;
	if (pieces > FIFO_ARRAY_SIZE(iov[0]))
		return ktap_fail("a ring of %u descriptors", fifo_info(q->fd).ring_entries);
	each = pieces * 4;
	for (unsigned int writes = 0; writes < 2; writes++) {
		uint64_t at = 0;

		memset(memory, 0x33, REQUESTS * pieces * 8);
		if (writes && put(q->fd, q->depth, 1, 0))
			return KTAP_FAIL;
		for (unsigned int i = 0; i < REQUESTS; i++) {
			for (unsigned int j = 0; j < pieces; j++) {
				uint8_t *p = memory + (i * pieces + j) * 8;

				iov[i][j] = (struct iovec){ p, 4 };
				if (writes)
					fifo_fill(p, 4, i % 5 ? 1 : 999, q->depth + at + j * 4);
			}
			if (i % 5)
				at += each;
			if (writes)
				io_prep_pwritev(&q->requests[i].iocb, q->fd, iov[i], pieces, 0);
			else
				io_prep_preadv(&q->requests[i].iocb, q->fd, iov[i], pieces, 0);
		}
		if (submit(q, 0, REQUESTS) || all_pending(q))
			return KTAP_FAIL;
		for (unsigned int i = 0; i < REQUESTS; i += 5) {
			if (cancel(q, i))
				return KTAP_FAIL;
		}
		if (wait_for(q, (REQUESTS + 4) / 5, "cancelled requests") || all_pending(q))
			return KTAP_FAIL;
		if (writes ? other_reads(q->depth, 1, 0) : other_writes(at, 1, 0))
			return KTAP_FAIL;
		if (wait_for(q, q->pending, "the others") || (writes && other_reads(at, 1, q->depth)))
			return KTAP_FAIL;
		at = 0;
		for (unsigned int i = 0; i < REQUESTS; i++) {
			if (gives(q, i, i % 5 ? (long)each : -ECANCELED))
				return ktap_fail("%s", writes ? "writes" : "reads");
			if (i % 5 > 1 && q->requests[i].order != q->requests[i - 1].order + 1)
				return ktap_fail("request %u did not end behind the one before it", i);
			for (unsigned int j = 0; j < pieces && !writes; j++) {
				if (i % 5 ? fifo_verify(iov[i][j].iov_base, 4, 1, at + j * 4) :
					    !fifo_all(iov[i][j].iov_base, 0x33, 4))
					return ktap_fail("piece %u of read %u", j, i);
			}
			at += i % 5 ? each : 0;
		}
	}
	return KTAP_PASS;
}

/*
 * A stream: one direction of it, at depth 32 with lengths of all kinds. Reads
 * end in the order of their submission, so the bytes of each are the next ones.
 */
#define STREAM_DEPTH	32
#define STREAM_LARGEST	20000

struct stream {
	int channel;
	uint64_t number, length;
	bool writer;
};

static size_t stream_len(struct fifo_rng *rng)
{
	switch (fifo_below(rng, 8)) {
	case 0:
		return fifo_between(rng, 1, 16);
	case 1:
		return fifo_between(rng, 1, STREAM_LARGEST);
	case 2:
		return fifo_between(rng, 1, 4) * FIFO_PAGE;
	default:
		return fifo_between(rng, 1, 4000);
	}
}

static int stream_run(void *arg)
{
	const struct stream *s = arg;
	struct fifo_rng rng = fifo_rng(s->number * 2 + s->writer);
	unsigned int head = 0, tail = 0;	/* requests, of which head % STREAM_DEPTH is the oldest */
	uint64_t submitted = 0, at = 0;
	struct queue *q = &queue;
	static uint8_t buffers[STREAM_DEPTH][STREAM_LARGEST + 64];

	if (queue_init_on(q, s->channel))
		return KTAP_FAIL;
	while (at < s->length) {
		unsigned int batch = fifo_between(&rng, 1, STREAM_DEPTH);

		for (; batch && tail - head < STREAM_DEPTH && submitted < s->length; batch--, tail++) {
			unsigned int i = tail % STREAM_DEPTH;
			uint8_t *buf = buffers[i] + fifo_below(&rng, 64);
			size_t len = stream_len(&rng);

			if (len > s->length - submitted)
				len = s->length - submitted;
			if (s->writer) {
				fifo_fill(buf, len, s->number, submitted);
				prepare_write(q, i, buf, len);
				submitted += len;
			} else {
				/* More of them than there are bytes may be in flight: they are cancelled. */
				prepare_read(q, i, buf, len);
			}
			if (submit(q, i, 1))
				return KTAP_FAIL;
		}
		if (wait_for(q, 1, "the stream") || take(q) < 0)
			return KTAP_FAIL;
		for (; head < tail && !q->requests[head % STREAM_DEPTH].pending; head++) {
			const struct request *r = &q->requests[head % STREAM_DEPTH];

			if (r->order != head)
				return ktap_fail("request %u ended as number %u", head, r->order);
			if (r->result <= 0 || (s->writer && (size_t)r->result != r->iocb.u.c.nbytes))
				return ktap_fail("request %u of %lu bytes ended with %ld", head, r->iocb.u.c.nbytes, r->result);
			if (!s->writer && fifo_verify(r->iocb.u.c.buf, r->result, s->number, at))
				return ktap_fail("request %u", head);
			at += r->result;
		}
	}
	for (; head < tail; head++) {
		if (cancel(q, head % STREAM_DEPTH) || wait_for(q, 1, "cancelled reads"))
			return KTAP_FAIL;
		if (gives(q, head % STREAM_DEPTH, -ECANCELED))
			return KTAP_FAIL;
	}
	return at == s->length ? KTAP_PASS : ktap_fail("%llu bytes too many", (unsigned long long)(at - s->length));
}

static int stream(void)
{
	struct stream s = { .number = 200, .length = fifo_rounds(10000) * 2000ull, .writer = true };
	pid_t pid = fifo_fork(stream_run, &s);
	int status;

	s.writer = false;
	status = stream_run(&s);
	return pid < 0 || fifo_reap_passed(pid, "the writer") ? KTAP_FAIL : status;
}

/* Channels do not know of each other. */
static int stream_each(void)
{
	pid_t pids[2 * FIFO_CHANNELS];
	int n = fifo_channels(), status = KTAP_PASS;
	struct stream s;

	for (int i = 0; i < 2 * n; i++) {
		s = (struct stream){ i / 2, 300 + i / 2, fifo_rounds(10000) * 500ull, i & 1 };
		pids[i] = fifo_fork(stream_run, &s);
	}
	for (int i = 0; i < 2 * n; i++) {
		if (pids[i] < 0 || fifo_reap_passed(pids[i], i & 1 ? "a writer" : "a reader"))
			status = ktap_fail("channel %d", i / 2);
	}
	return status;
}

/*
 * Several processes write and read records of one length. A record is neither
 * torn nor mixed with another, and each comes once.
 */
#define RECORD		512
#define RECORD_READERS	3
#define RECORD_WRITERS	3
#define RECORD_DEPTH	16

struct records {
	uint32_t got;			/* records that were read */
	uint32_t done;			/* set when all were */
	unsigned int each;		/* of each writer */
	uint8_t seen[RECORD_WRITERS][10000];
};

/* What a child gets. */
struct recorder {
	struct records *all;
	uint64_t writer;
};

static int record_writer(void *arg)
{
	const struct recorder *me = arg;
	struct queue *q = &queue;

	if (queue_init(q))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < me->all->each; i++) {
		unsigned int slot = i % RECORD_DEPTH;

		while (q->requests[slot].pending) {
			if (wait_for(q, 1, "a record to be written"))
				return KTAP_FAIL;
		}
		if (i >= RECORD_DEPTH && gives(q, slot, RECORD))
			return KTAP_FAIL;
		fifo_record_make(memory + slot * RECORD, RECORD, me->writer, i);
		prepare_write(q, slot, memory + slot * RECORD, RECORD);
		if (submit(q, slot, 1))
			return KTAP_FAIL;
	}
	return wait_for(q, q->pending, "the last records") ? KTAP_FAIL : KTAP_PASS;
}

static int record_reader(void *arg)
{
	struct records *all = ((const struct recorder *)arg)->all;
	struct queue *q = &queue;

	if (queue_init(q))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < RECORD_DEPTH; i++)
		prepare_read(q, i, memory + i * RECORD, RECORD);
	if (submit(q, 0, RECORD_DEPTH))
		return KTAP_FAIL;
	while (!__atomic_load_n(&all->done, __ATOMIC_ACQUIRE)) {
		struct timespec a_while = { .tv_nsec = 2000000 };
		struct io_event e;
		int n = io_getevents(q->ctx, 1, 1, &e, &a_while);

		if (n == 1) {
			struct request *r = e.data;
			struct fifo_record h;
			uint8_t *buf = r->iocb.u.c.buf;

			if (note(q, &e))
				return KTAP_FAIL;
			if (r->result != RECORD || fifo_record_header(buf, &h))
				return ktap_fail("a read of a record gave %ld", r->result);
			if (h.length != RECORD || h.writer >= RECORD_WRITERS || h.sequence >= all->each ||
			    fifo_record_verify(&h, buf + sizeof(h), RECORD - sizeof(h), 0))
				return KTAP_FAIL;
			if (__atomic_fetch_add(&all->seen[h.writer][h.sequence], 1, __ATOMIC_RELAXED))
				return ktap_fail("record %llu comes twice", (unsigned long long)h.sequence);
			if (__atomic_add_fetch(&all->got, 1, __ATOMIC_ACQ_REL) == RECORD_WRITERS * all->each) {
				__atomic_store_n(&all->done, 1, __ATOMIC_RELEASE);
				fifo_futex_wake(&all->done);
			}
			if (submit(q, r - q->requests, 1))
				return KTAP_FAIL;
		}
	}
	/* What waits in vain is taken back by exit. */
	return KTAP_PASS;
}

static int many_processes(void)
{
	struct recorder me = { .all = fifo_shared(sizeof(struct records)) };
	struct records *all = me.all;
	pid_t readers[RECORD_READERS], writers[RECORD_WRITERS];
	int status = KTAP_PASS;

	if (!all)
		return ktap_fail("no memory");
	all->each = fifo_rounds(10000);
	for (unsigned int i = 0; i < RECORD_READERS; i++)
		readers[i] = fifo_fork(record_reader, &me);
	for (; me.writer < RECORD_WRITERS; me.writer++)
		writers[me.writer] = fifo_fork(record_writer, &me);
	for (unsigned int i = 0; i < RECORD_WRITERS; i++) {
		if (writers[i] < 0 || fifo_reap_within(writers[i], 6 * FIFO_WAIT_MS, "a writer"))
			status = ktap_fail("writer %u", i);
	}
	if (!status && fifo_futex_wait(&all->done, 0, "all records to be read"))
		status = ktap_fail("%u of %u records", all->got, RECORD_WRITERS * all->each);
	__atomic_store_n(&all->done, 1, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < RECORD_READERS; i++) {
		if (readers[i] < 0 || fifo_reap_passed(readers[i], "a reader"))
			status = KTAP_FAIL;
	}
	return status;
}

/* Notification. */

/* The eventfd counts each event of a request that names it, and no other. */
static int eventfd_counts(void)
{
	struct queue *q = &queue;
	int efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	unsigned int naming = 0;
	uint64_t count;

	if (queue_init(q) || efd < 0)
		return KTAP_FAIL;
	for (unsigned int i = 0; i < 64; i++) {
		prepare_read(q, i, memory + i * 16, 16);
		if (i % 3) {
			io_set_eventfd(&q->requests[i].iocb, efd);
			naming++;
		}
	}
	if (submit(q, 0, 64) || all_pending(q) || !FIFO_FAILS(read(efd, &count, 8), EAGAIN))
		return KTAP_FAIL;
	/* A first one by bytes, a last one by cancellation: 0 does not name it, 61 does. */
	if (put(q->fd, 16, 1, 0) || wait_for(q, 1, "the first read") || !FIFO_FAILS(read(efd, &count, 8), EAGAIN))
		return KTAP_FAIL;
	if (cancel(q, 61) || fifo_wait(efd, POLLIN, "the eventfd") < 0)
		return KTAP_FAIL;
	if (wait_for(q, 1, "the cancelled read") || gives(q, 61, -ECANCELED))
		return KTAP_FAIL;
	if (!FIFO_GIVES(read(efd, &count, 8), 8) || count != 1)
		return ktap_fail("one event counts %llu", (unsigned long long)count);
	if (put(q->fd, 62 * 16, 1, 16) || wait_for(q, 62, "all reads"))
		return KTAP_FAIL;
	if (!FIFO_GIVES(read(efd, &count, 8), 8) || count != naming - 1)
		return ktap_fail("%u events count %llu", naming - 1, (unsigned long long)count);
	for (unsigned int i = 0; i < 64; i++) {
		if (i != 61 && gives(q, i, 16))
			return KTAP_FAIL;
	}
	/* What is no eventfd. */
	prepare_read(q, 0, memory, 16);
	io_set_eventfd(&q->requests[0].iocb, -1);
	if (submit_some(q, 0, 1) != -EBADF)
		return ktap_fail("an eventfd that isn't open is taken");
	io_set_eventfd(&q->requests[0].iocb, q->fd);
	return submit_some(q, 0, 1) == -EINVAL ? KTAP_PASS : ktap_fail("the FIFO is taken for an eventfd");
}

static int poll_requests(void)
{
	struct queue *q = &queue;
	long in = POLLIN | POLLRDNORM, out = POLLOUT | POLLWRNORM;

	if (queue_init(q))
		return KTAP_FAIL;
	/* Empty: can be written, can't be read. */
	io_prep_poll(&q->requests[0].iocb, q->fd, POLLIN);
	io_prep_poll(&q->requests[1].iocb, q->fd, POLLOUT);
	if (submit(q, 0, 2) || wait_for(q, 1, "POLLOUT") || all_pending(q))
		return KTAP_FAIL;
	if (q->requests[1].pending || (q->requests[1].result | out) != out || !(q->requests[1].result & POLLOUT))
		return ktap_fail("an empty FIFO polls %#lx", q->requests[1].result);
	if (other_writes(10, 1, 0) || wait_for(q, 1, "POLLIN"))
		return KTAP_FAIL;
	if (!(q->requests[0].result & POLLIN) || (q->requests[0].result | in) != in)
		return ktap_fail("bytes poll %#lx", q->requests[0].result);
	prepare_read(q, 0, memory, 100);
	q->requests[0].iocb.aio_rw_flags = RWF_NOWAIT;
	if (submit(q, 0, 1) || wait_for(q, 1, "a read after POLLIN") || gives(q, 0, 10) ||
	    fifo_verify(memory, 10, 1, 0))
		return KTAP_FAIL;
	/* Full: the other way about. */
	if (put(q->fd, q->depth, 2, 0))
		return KTAP_FAIL;
	io_prep_poll(&q->requests[0].iocb, q->fd, POLLOUT);
	io_prep_poll(&q->requests[1].iocb, q->fd, POLLIN);
	if (submit(q, 0, 2) || wait_for(q, 1, "POLLIN") || all_pending(q) || q->requests[1].pending)
		return KTAP_FAIL;
	if (other_reads(q->depth, 2, 0) || wait_for(q, 1, "POLLOUT"))
		return KTAP_FAIL;
	if (!(q->requests[0].result & POLLOUT) || (q->requests[0].result | out) != out)
		return ktap_fail("room polls %#lx", q->requests[0].result);
	/* One that waits can be taken back. */
	io_prep_poll(&q->requests[0].iocb, q->fd, POLLIN);
	if (submit(q, 0, 1) || all_pending(q) || cancel(q, 0) || wait_for(q, 1, "a cancelled poll"))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* fsync waits for what was written through its open file, and for nothing else. */
static int fsync_requests(void)
{
	struct queue *q = &queue;
	int other;

	if (queue_init(q))
		return KTAP_FAIL;
	other = fifo_open(0, O_RDWR);
	io_prep_fsync(&q->requests[0].iocb, q->fd);
	io_prep_fdsync(&q->requests[1].iocb, q->fd);
	if (other < 0 || submit(q, 0, 2) || wait_for(q, 2, "fsync without a write") || gives(q, 0, 0) || gives(q, 1, 0))
		return KTAP_FAIL;
	if (put(q->fd, q->depth, 1, 0))
		return KTAP_FAIL;
	fifo_fill(memory, 100, 1, q->depth);
	prepare_write(q, 0, memory, 100);
	io_prep_fsync(&q->requests[1].iocb, q->fd);
	io_prep_fdsync(&q->requests[2].iocb, q->fd);
	io_prep_fsync(&q->requests[3].iocb, other);
	if (submit(q, 0, 4) || wait_for(q, 1, "fsync of the other file") || gives(q, 3, 0) || all_pending(q))
		return KTAP_FAIL;
	if (other_reads(q->depth, 1, 0) || wait_for(q, 3, "write and fsync"))
		return KTAP_FAIL;
	if (gives(q, 0, 100) || gives(q, 1, 0) || gives(q, 2, 0) || get(q->fd, 100, 1, q->depth))
		return KTAP_FAIL;
	/* Reads are none of its business. */
	prepare_read(q, 0, memory, 100);
	io_prep_fsync(&q->requests[1].iocb, q->fd);
	if (submit(q, 0, 2) || wait_for(q, 1, "fsync beside a read") || gives(q, 1, 0) || all_pending(q))
		return KTAP_FAIL;
	if (cancel(q, 0) || wait_for(q, 1, "a cancelled read") || gives(q, 0, -ECANCELED))
		return KTAP_FAIL;
	/* A cancelled write does not keep it waiting. */
	if (put(q->fd, q->depth, 1, 0))
		return KTAP_FAIL;
	prepare_write(q, 0, memory, 100);
	io_prep_fsync(&q->requests[1].iocb, q->fd);
	if (submit(q, 0, 2) || all_pending(q) || cancel(q, 0) || wait_for(q, 2, "a cancelled write and fsync"))
		return KTAP_FAIL;
	if (gives(q, 0, -ECANCELED) || get(q->fd, q->depth, 1, 0))
		return KTAP_FAIL;
	close(other);
	q->requests[0].iocb.u.c.nbytes = 1;
	io_prep_fsync(&q->requests[0].iocb, q->fd);
	q->requests[0].iocb.u.c.nbytes = 1;
	return submit_some(q, 0, 1) == -EINVAL ? KTAP_PASS : ktap_fail("fsync takes a length");
}

/* A write that failed is told by fsync, once, and only where it was made. */
static int fsync_error(void)
{
	struct queue *q = &queue;
	int other;

	if (queue_init(q))
		return KTAP_FAIL;
	other = fifo_open(0, O_RDWR);
	if (other < 0 || put(q->fd, q->depth, 1, 0))
		return KTAP_FAIL;
	prepare_write(q, 0, memory, 100);
	if (submit(q, 0, 1) || all_pending(q) || !FIFO_GIVES(ioctl(q->fd, FIFO_AIO_RESET), 0))
		return KTAP_FAIL;
	if (wait_for(q, 1, "the write") || gives(q, 0, -EIO) || fill_is(q->fd, 0))
		return KTAP_FAIL;
	io_prep_fsync(&q->requests[0].iocb, other);
	io_prep_fsync(&q->requests[1].iocb, q->fd);
	if (submit(q, 0, 2) || wait_for(q, 2, "fsync") || gives(q, 0, 0) || gives(q, 1, -EIO))
		return KTAP_FAIL;
	if (submit(q, 0, 2) || wait_for(q, 2, "fsync") || gives(q, 0, 0) || gives(q, 1, 0))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* Modes. */

static int nowait_on(struct queue *q, int flags)
{
	struct request *r = q->requests;
	int fd = fifo_open(0, O_RDWR);	/* that waits, for what is to wait */
	long long aborts = fifo_stat(0, "rx", "aborts");

	if (fd < 0)
		return -1;
	prepare_read(q, 0, memory, 100);
	r[0].iocb.aio_rw_flags = flags;
	if (submit(q, 0, 1) || wait_for(q, 1, "a read of nothing") || gives(q, 0, -EAGAIN))
		return -1;
	/* With bytes it takes what is there, and a write goes in. */
	fifo_fill(memory + 200, 60, 1, 0);
	prepare_write(q, 0, memory + 200, 60);
	r[0].iocb.aio_rw_flags = flags;
	if (submit(q, 0, 1) || wait_for(q, 1, "a write with room") || gives(q, 0, 60))
		return -1;
	prepare_read(q, 0, memory, 100);
	r[0].iocb.aio_rw_flags = flags;
	if (submit(q, 0, 1) || wait_for(q, 1, "a read of 60 bytes") || gives(q, 0, 60) || fifo_verify(memory, 60, 1, 0))
		return -1;
	/* What is in flight without waiting has its claim, too: the last two end at once, and are not taken back later. */
	if (put(q->fd, 300, 1, 0))
		return -1;
	for (unsigned int i = 0; i < 5; i++) {
		prepare_read(q, i, memory + i * 100, 100);
		r[i].iocb.aio_rw_flags = flags;
	}
	if (submit(q, 0, 5) || wait_for(q, 5, "five reads where three find bytes") || gives(q, 3, -EAGAIN) ||
	    gives(q, 4, -EAGAIN) || fifo_verify(memory, 300, 1, 0) || fifo_stat(0, "rx", "aborts") != aborts)
		return -1;
	/* Bytes that an earlier read has a claim to do not count. */
	io_prep_pread(&r[0].iocb, fd, memory, 100, 0);
	prepare_read(q, 1, memory + 100, 100);
	r[1].iocb.aio_rw_flags = flags;
	if (submit(q, 0, 2) || wait_for(q, 1, "a read behind another") || gives(q, 1, -EAGAIN))
		return -1;
	if (put(q->fd, 30, 1, 0) || wait_for(q, 1, "the read that waits") || gives(q, 0, 30))
		return -1;
	/* Room for 100: not enough for 101, up to PIPE_BUF; more than that is short. */
	if (put(q->fd, q->depth - 100, 2, 0))
		return -1;
	fifo_fill(memory, 5000, 2, q->depth - 100);
	prepare_write(q, 0, memory, 101);
	prepare_write(q, 1, memory, 4096);
	r[0].iocb.aio_rw_flags = r[1].iocb.aio_rw_flags = flags;
	if (submit(q, 0, 2) || wait_for(q, 2, "writes without room") || gives(q, 0, -EAGAIN) || gives(q, 1, -EAGAIN))
		return -1;
	prepare_write(q, 0, memory, 4097);
	r[0].iocb.aio_rw_flags = flags;
	if (submit(q, 0, 1) || wait_for(q, 1, "a long write") || gives(q, 0, 100) || fill_is(q->fd, q->depth))
		return -1;
	prepare_write(q, 0, memory, 5000);
	prepare_write(q, 1, memory, 1);
	r[0].iocb.aio_rw_flags = r[1].iocb.aio_rw_flags = flags;
	if (submit(q, 0, 2) || wait_for(q, 2, "writes into a full FIFO") || gives(q, 0, -EAGAIN) || gives(q, 1, -EAGAIN))
		return -1;
	/* Room that an earlier write has a claim to. */
	io_prep_pwrite(&r[0].iocb, fd, memory + 100, 200, 0);
	if (submit(q, 0, 1) || all_pending(q))
		return -1;
	if (get(q->fd, 50, 2, 0) || all_pending(q))
		return -1;
	prepare_write(q, 1, memory, 1);
	r[1].iocb.aio_rw_flags = flags;
	if (submit(q, 1, 1) || wait_for(q, 1, "a write behind another") || gives(q, 1, -EAGAIN))
		return -1;
	if (get(q->fd, q->depth + 150, 2, 50) || wait_for(q, 1, "the write that waits") || gives(q, 0, 200))
		return -1;
	close(fd);
	return 0;
}

static int nowait(void)
{
	struct queue *q = &queue;

	return queue_init(q) || nowait_on(q, RWF_NOWAIT) ? KTAP_FAIL : KTAP_PASS;
}

/* O_NONBLOCK is a flag of the open file, and asked at each request. */
static int nonblock(void)
{
	struct queue *q = &queue;

	if (queue_init(q))
		return KTAP_FAIL;
	if (!FIFO_GIVES(fcntl(q->fd, F_SETFL, O_NONBLOCK), 0) || nowait_on(q, 0))
		return KTAP_FAIL;
	if (!FIFO_GIVES(fcntl(q->fd, F_SETFL, 0), 0))
		return KTAP_FAIL;
	prepare_read(q, 0, memory, 100);
	if (submit(q, 0, 1) || all_pending(q))
		return KTAP_FAIL;
	/* What waits already does not hear of it. */
	if (!FIFO_GIVES(fcntl(q->fd, F_SETFL, O_NONBLOCK), 0) || all_pending(q) || put(q->fd, 7, 1, 0))
		return KTAP_FAIL;
	return wait_for(q, 1, "the read") || gives(q, 0, 7) ? KTAP_FAIL : KTAP_PASS;
}

/* Flags, priorities and positions that a stream has no use for. */
static int odd_requests(void)
{
	static const int flags[] = { 0, RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_NOWAIT };
	static const int priorities[] = {
		IOPRIO_CLASS_NONE << IOPRIO_CLASS_SHIFT, IOPRIO_CLASS_RT << IOPRIO_CLASS_SHIFT,
		IOPRIO_CLASS_BE << IOPRIO_CLASS_SHIFT | 7, IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT,
	};
	static const long long offsets[] = { 0, 1, 4096, 1ll << 40, INT64_MAX - 100 };
	struct queue *q = &queue;
	struct iocb *w = &q->requests[0].iocb, *r = &q->requests[1].iocb;
	/* A kernel without block devices has none. */
	bool priorities_known = syscall(SYS_ioprio_get, 1, 0) >= 0;

	if (queue_init(q))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < 5; i++) {
		fifo_fill(memory, 100, i, 0);
		prepare_write(q, 0, memory, 100);
		prepare_read(q, 1, memory + 100, 100);
		w->aio_rw_flags = flags[i];
		r->aio_rw_flags = flags[i] == RWF_NOWAIT ? flags[i] : 0;
		w->u.c.offset = r->u.c.offset = offsets[i];
		if (i < FIFO_ARRAY_SIZE(priorities) && priorities_known) {
			w->u.c.flags = r->u.c.flags = FLAG_IOPRIO;
			w->aio_reqprio = r->aio_reqprio = priorities[i];
		}
		if (submit(q, 0, 1) || wait_for(q, 1, "an odd write") || gives(q, 0, 100) || submit(q, 1, 1) ||
		    wait_for(q, 1, "an odd read") || gives(q, 1, 100) || fifo_verify(memory + 100, 100, i, 0))
			return ktap_fail("number %u", i);
	}
	prepare_read(q, 1, memory, 100);
	r->u.c.flags = FLAG_IOPRIO;
	r->aio_reqprio = 7 << IOPRIO_CLASS_SHIFT;
	if (submit_some(q, 1, 1) != (priorities_known ? -EINVAL : -ENOTBLK))
		return ktap_fail("a priority of no class is taken");
	return KTAP_PASS;
}

/* Errors. */

static int refused(struct queue *q, int err, const char *what)
{
	int got = submit_some(q, 0, 1);

	if (got == -err)
		return 0;
	ktap_diag("%s: io_submit gives %d, not -%s", what, got, strerrorname_np(err));
	return -1;
}

static int bad_requests(void)
{
	struct queue *q = &queue;
	struct iocb *iocb = &q->requests[0].iocb, *list[3];
	int reader = fifo_open(0, O_RDONLY), writer = fifo_open(0, O_WRONLY);

	if (queue_init(q) || reader < 0 || writer < 0)
		return KTAP_FAIL;
	for (int opcode = -1; opcode < 20; opcode++) {
		if (opcode >= IO_CMD_PREAD && opcode <= IO_CMD_PWRITEV && opcode != 4 && opcode != IO_CMD_NOOP)
			continue;
		prepare_read(q, 0, memory, 100);
		iocb->aio_lio_opcode = opcode;
		if (refused(q, EINVAL, "a wrong opcode"))
			return KTAP_FAIL;
	}
	io_prep_pread(iocb, writer, memory, 1, 0);
	if (refused(q, EBADF, "a read from a file open for writing"))
		return KTAP_FAIL;
	io_prep_pwrite(iocb, reader, memory, 1, 0);
	if (refused(q, EBADF, "a write to a file open for reading"))
		return KTAP_FAIL;
	io_prep_pread(iocb, -1, memory, 1, 0);
	if (refused(q, EBADF, "a read from no file"))
		return KTAP_FAIL;
	prepare_read(q, 0, memory, (size_t)-1);
	if (refused(q, EINVAL, "a negative length"))
		return KTAP_FAIL;
	prepare_read(q, 0, (void *)(uintptr_t)-FIFO_PAGE, 1);
	if (refused(q, EFAULT, "an address of the kernel's"))
		return KTAP_FAIL;
	io_prep_preadv(iocb, q->fd, (void *)(uintptr_t)8, 1, 0);
	if (refused(q, EFAULT, "a vector that isn't there"))
		return KTAP_FAIL;
	io_prep_preadv(iocb, q->fd, (void *)memory, 1025, 0);
	if (refused(q, EINVAL, "a vector of 1025"))
		return KTAP_FAIL;
	prepare_read(q, 0, memory, 1);
	iocb->aio_rw_flags = 0x40000000;
	if (refused(q, EOPNOTSUPP, "a flag that there isn't"))
		return KTAP_FAIL;
	/* What stands before a bad one is submitted. */
	for (unsigned int i = 0; i < 3; i++) {
		prepare_read(q, i, memory + i * 100, 100);
		q->requests[i].iocb.data = &q->requests[i];
		list[i] = &q->requests[i].iocb;
	}
	q->requests[1].iocb.aio_lio_opcode = 99;
	if (submit_some(q, 0, 3) != 1 || all_pending(q) || put(q->fd, 10, 1, 0) || wait_for(q, 1, "the first") ||
	    gives(q, 0, 10))
		return ktap_fail("of a good, a bad and a good one");
	list[0] = NULL;
	if (io_submit(q->ctx, 1, list) != -EFAULT || io_submit(q->ctx, 0, list) || io_submit(q->ctx, -1, list) != -EINVAL ||
	    io_submit(NULL, 0, list) != -EINVAL)
		return ktap_fail("io_submit takes what it can't");
	close(reader);
	close(writer);
	return take(q) ? ktap_fail("events of refused requests") : KTAP_PASS;
}

/* Two pages, the second of which is not there. */
static uint8_t *broken_pages(void)
{
	uint8_t *p = mmap(NULL, 3 * FIFO_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	munmap(p + FIFO_PAGE, FIFO_PAGE);
	return p;
}

static int bad_addresses(void)
{
	struct queue *q = &queue;
	uint8_t *p = broken_pages(), *hole = p + FIFO_PAGE;
	struct iovec iov[3] = { { p, 100 }, { hole, 100 }, { p + 100, 100 } };

	if (queue_init(q) || !p)
		return KTAP_FAIL;
	/* At once, although nothing is there to be read. */
	prepare_read(q, 0, hole, 100);
	prepare_write(q, 1, hole, 100);
	if (submit(q, 0, 2) || wait_for(q, 2, "bad addresses") || gives(q, 0, -EFAULT) || gives(q, 1, -EFAULT) ||
	    fill_is(q->fd, 0))
		return KTAP_FAIL;
	/* They take nothing away either. */
	if (put(q->fd, 2 * FIFO_PAGE, 1, 0))
		return KTAP_FAIL;
	if (submit(q, 0, 2) || wait_for(q, 2, "bad addresses") || gives(q, 0, -EFAULT) || gives(q, 1, -EFAULT) ||
	    fill_is(q->fd, 2 * FIFO_PAGE))
		return KTAP_FAIL;
	/* Up to where it is bad. */
	prepare_read(q, 0, p + 96, 2 * FIFO_PAGE);
	if (submit(q, 0, 1) || wait_for(q, 1, "a read into a page and none") || gives(q, 0, FIFO_PAGE - 96) ||
	    fifo_verify(p + 96, FIFO_PAGE - 96, 1, 0))
		return KTAP_FAIL;
	io_prep_preadv(&q->requests[0].iocb, q->fd, iov, 3, 0);
	if (submit(q, 0, 1) || wait_for(q, 1, "a vector with a hole") || gives(q, 0, 100) ||
	    fifo_verify(p, 100, 1, FIFO_PAGE - 96))
		return KTAP_FAIL;
	if (get(q->fd, FIFO_PAGE - 4, 1, FIFO_PAGE + 4))
		return KTAP_FAIL;
	fifo_fill(p, FIFO_PAGE, 2, 0);
	prepare_write(q, 0, p, FIFO_PAGE + 1);
	io_prep_pwritev(&q->requests[1].iocb, q->fd, iov, 3, 0);
	if (submit(q, 0, 2) || wait_for(q, 2, "writes with holes") || gives(q, 0, FIFO_PAGE) || gives(q, 1, 100))
		return KTAP_FAIL;
	return get(q->fd, FIFO_PAGE, 2, 0) || get(q->fd, 100, 2, 0) ? KTAP_FAIL : KTAP_PASS;
}

/* As many as the context has room for, and not one more or less comes out. */
static int exhaust(void)
{
	struct queue *q = &queue;
	static struct iocb iocbs[4096];
	static bool ended[4096];
	struct iocb *one;
	unsigned int n = 0, count = 0;
	io_context_t ctx = NULL;
	int err = 1;

	if (queue_init(q) || io_setup(1, &ctx))
		return KTAP_FAIL;
	for (; n < FIFO_ARRAY_SIZE(iocbs) && err == 1; n += err == 1) {
		io_prep_pread(&iocbs[n], q->fd, memory + n * 16, 16, 0);
		iocbs[n].data = (void *)(uintptr_t)n;
		one = &iocbs[n];
		err = io_submit(ctx, 1, &one);
	}
	if (err != -EAGAIN || !n)
		return ktap_fail("%u requests, then %d", n, err);
	if (put(q->fd, n * 16, 1, 0))
		return KTAP_FAIL;
	for (; count < n; count++) {
		struct timespec limit = { .tv_sec = FIFO_WAIT_MS / 1000 };
		struct io_event e;
		uintptr_t i;

		if (io_getevents(ctx, 1, 1, &e, &limit) != 1)
			return ktap_fail("%u of %u events", count, n);
		i = (uintptr_t)e.data;
		if (i >= n || ended[i] || (long)e.res != 16 || e.obj != &iocbs[i])
			return ktap_fail("an event of request %lu with %ld", (unsigned long)i, (long)e.res);
		ended[i] = true;
	}
	if (fifo_verify(memory, n * 16, 1, 0))
		return KTAP_FAIL;
	/* There is room again. */
	one = &iocbs[0];
	if (io_submit(ctx, 1, &one) != 1)
		return ktap_fail("no room after all events were taken");
	return io_destroy(ctx) ? KTAP_FAIL : KTAP_PASS;
}

static void do_nothing(int signal)
{
	(void)signal;
}

/* How io_getevents waits. */
static int getevents(void)
{
	struct timespec now = { 0 }, a_while = { .tv_nsec = 10000000 };
	struct sigaction action = { .sa_handler = do_nothing };
	struct io_event e[8];
	struct queue *q = &queue;
	timer_t timer;
	struct itimerspec soon = { .it_value.tv_nsec = 10000000 };

	if (queue_init(q))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < 5; i++)
		prepare_read(q, i, memory + i * 8, 8);
	if (submit(q, 0, 5))
		return KTAP_FAIL;
	/* libaio looks itself for events where there is no time to wait: a while has the kernel asked. */
	if (!FIFO_GIVES(io_getevents(q->ctx, 1, 8, e, &now), 0) || !FIFO_GIVES(io_getevents(q->ctx, 1, 8, e, &a_while), 0) ||
	    !FIFO_GIVES(io_getevents(q->ctx, 0, 8, e, NULL), 0))
		return KTAP_FAIL;
	if (!FIFO_GIVES(io_getevents(q->ctx, 3, 2, e, &a_while), -EINVAL) ||
	    !FIFO_GIVES(io_getevents(q->ctx, -1, 2, e, &a_while), -EINVAL))
		return KTAP_FAIL;
	/* Two are there, three are waited for: the time runs out, and nothing is lost. */
	if (put(q->fd, 16, 1, 0) || fifo_wait_flight(0, "rx", 3, "two reads to end"))
		return KTAP_FAIL;
	if (!FIFO_GIVES(io_getevents(q->ctx, 3, 8, e, &a_while), 2) || note(q, &e[0]) || note(q, &e[1]))
		return KTAP_FAIL;
	/* A signal ends the wait, and no request. */
	sigaction(SIGUSR1, &action, NULL);
	if (timer_create(CLOCK_MONOTONIC, &(struct sigevent){ .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 },
			 &timer) || timer_settime(timer, 0, &soon, NULL))
		return ktap_fail("timer_create: %s", strerror(errno));
	alarm(FIFO_WAIT_MS / 1000);
	if (!FIFO_GIVES(io_getevents(q->ctx, 1, 8, e, NULL), -EINTR))
		return KTAP_FAIL;
	alarm(0);
	timer_delete(timer);
	if (put(q->fd, 24, 1, 16))
		return KTAP_FAIL;
	/* Fewer at a time than there are. */
	if (!FIFO_GIVES(io_getevents(q->ctx, 1, 1, e, &(struct timespec){ .tv_sec = FIFO_WAIT_MS / 1000 }), 1) ||
	    note(q, e) || wait_for(q, 2, "the last two") || !FIFO_GIVES(io_getevents(q->ctx, 0, 8, e, &now), 0))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < 5; i++) {
		if (gives(q, i, 8))
			return KTAP_FAIL;
	}
	return fifo_verify(memory, 40, 1, 0) ? KTAP_FAIL : KTAP_PASS;
}

/* A read waits for as many bytes as the threshold says. */
static int threshold(void)
{
	struct fifo_aio_thresholds was, set;
	struct queue *q = &queue;
	int failed;

	if (queue_init(q) || !FIFO_GIVES(ioctl(q->fd, FIFO_AIO_GET_THRESHOLDS, &was), 0))
		return KTAP_FAIL;
	set = was;
	set.rx_bytes = 100;
	/* A reset does not change it. */
	if (!FIFO_GIVES(ioctl(q->fd, FIFO_AIO_SET_THRESHOLDS, &set), 0) || !FIFO_GIVES(ioctl(q->fd, FIFO_AIO_RESET), 0))
		return KTAP_FAIL;
	prepare_read(q, 0, memory, 512);
	prepare_read(q, 1, memory + 512, 50);
	failed = submit(q, 0, 2) || all_pending(q) || put(q->fd, 99, 1, 0) || all_pending(q) || put(q->fd, 1, 1, 99) ||
		 wait_for(q, 1, "a read of 100 bytes") || gives(q, 0, 100) || all_pending(q) ||
		 /* The second has no room for 100, and asks for 50. */
		 put(q->fd, 49, 1, 100) || all_pending(q) || put(q->fd, 1, 1, 149) || wait_for(q, 1, "a read of 50 bytes") ||
		 gives(q, 1, 50) || fifo_verify(memory, 100, 1, 0) || fifo_verify(memory + 512, 50, 1, 100) ||
		 /* One that is cancelled leaves them there. */
		 submit(q, 0, 1) || put(q->fd, 99, 1, 150) || all_pending(q) || cancel(q, 0) ||
		 wait_for(q, 1, "a cancelled read") || gives(q, 0, -ECANCELED) || fill_is(q->fd, 99);
	if (!FIFO_GIVES(ioctl(q->fd, FIFO_AIO_SET_THRESHOLDS, &was), 0))
		return KTAP_FAIL;
	return failed || get(q->fd, 99, 1, 150) ? KTAP_FAIL : KTAP_PASS;
}

/* wait_ms ends what waits for nobody; one that was submitted under another value keeps that. */
static int wait_limit(void)
{
	struct queue *q = &queue;
	long long was = fifo_parameter("wait_ms");
	int failed;

	if (queue_init(q) || was < 0)
		return KTAP_FAIL;
	/* Room for 1000 of the write's 3000 bytes: it ends with its count. */
	fifo_fill(memory, 3000, 1, q->depth - 1000);
	prepare_read(q, 0, memory + 4096, 100);
	prepare_write(q, 1, memory, 3000);
	prepare_write(q, 2, memory, 3000);
	if (fifo_parameter_set("wait_ms", 20))
		return ktap_fail("wait_ms: %s", strerror(errno));
	failed = submit(q, 0, 1) || wait_for(q, 1, "a read that nobody writes for") || gives(q, 0, -ETIMEDOUT) ||
		 put(q->fd, q->depth - 1000, 1, 0) || submit(q, 1, 2) || wait_for(q, 2, "writes that nobody reads") ||
		 gives(q, 1, 1000) || gives(q, 2, -ETIMEDOUT) || get(q->fd, q->depth, 1, 0);
	failed |= fifo_parameter_set("wait_ms", 0);
	failed = failed || submit(q, 0, 1) || fifo_parameter_set("wait_ms", 20) || all_pending(q);
	usleep(100000);
	failed = failed || all_pending(q) || put(q->fd, 10, 1, 0) || wait_for(q, 1, "a read without limit") || gives(q, 0, 10);
	failed |= fifo_parameter_set("wait_ms", was);
	return failed ? KTAP_FAIL : KTAP_PASS;
}

/* Cancellation. */

static int cancel_read(void)
{
	struct queue *q = &queue;

	if (queue_init(q))
		return KTAP_FAIL;
	memset(memory, 0x11, 512);
	prepare_read(q, 0, memory, 512);
	if (submit(q, 0, 1) || all_pending(q) || cancel(q, 0) || wait_for(q, 1, "a cancelled read") ||
	    gives(q, 0, -ECANCELED))
		return KTAP_FAIL;
	if (put(q->fd, 100, 1, 0) || fill_is(q->fd, 100) || get(q->fd, 100, 1, 0))
		return KTAP_FAIL;
	return fifo_all(memory, 0x11, 512) ? KTAP_PASS : ktap_fail("a cancelled read has changed its memory");
}

/* One that waits in full, and one that is in the middle. */
static int cancel_write(void)
{
	struct queue *q = &queue;

	if (queue_init(q) || put(q->fd, q->depth, 1, 0))
		return KTAP_FAIL;
	fifo_fill(memory, 5000, 1, q->depth);
	prepare_write(q, 0, memory, 5000);
	if (submit(q, 0, 1) || all_pending(q) || cancel(q, 0) || wait_for(q, 1, "a cancelled write") ||
	    gives(q, 0, -ECANCELED))
		return KTAP_FAIL;
	if (get(q->fd, 1000, 1, 0) || fill_is(q->fd, q->depth - 1000))
		return KTAP_FAIL;
	if (submit(q, 0, 1) || all_pending(q) || fill_is(q->fd, q->depth) || cancel(q, 0) ||
	    wait_for(q, 1, "a write with 1000 bytes done") || gives(q, 0, 1000))
		return KTAP_FAIL;
	return get(q->fd, q->depth, 1, 1000) ? KTAP_FAIL : KTAP_PASS;
}

/* Of nine that wait, the first, the last, one in the middle, and several. */
static const unsigned int cancelled_sets[] = { 0x001, 0x100, 0x010, 0x003, 0x180, 0x0aa, 0x155, 0x1fe, 0x0ff, 0x1ff };

static int cancel_queued_reads(void)
{
	struct queue *q = &queue;

	if (queue_init(q))
		return KTAP_FAIL;
	for (unsigned int s = 0; s < FIFO_ARRAY_SIZE(cancelled_sets); s++) {
		unsigned int set = cancelled_sets[s];
		uint64_t at = 0;

		memset(memory, 0x11, 9 * 100);
		for (unsigned int i = 0; i < 9; i++)
			prepare_read(q, i, memory + i * 100, 100);
		if (submit(q, 0, 9) || all_pending(q))
			return KTAP_FAIL;
		for (unsigned int i = 0; i < 9; i++) {
			if (set >> i & 1 && (cancel(q, i) || wait_for(q, 1, "a cancelled read") || gives(q, i, -ECANCELED)))
				return ktap_fail("set %#x", set);
		}
		if (all_pending(q) || put(q->fd, q->pending * 100, s, 0) || wait_for(q, q->pending, "the others"))
			return ktap_fail("set %#x", set);
		for (unsigned int i = 0; i < 9; i++) {
			if (set >> i & 1) {
				if (!fifo_all(memory + i * 100, 0x11, 100))
					return ktap_fail("set %#x: %u has changed its memory", set, i);
			} else {
				if (gives(q, i, 100) || fifo_verify(memory + i * 100, 100, s, at))
					return ktap_fail("set %#x: %u", set, i);
				at += 100;
			}
		}
	}
	return KTAP_PASS;
}

static int cancel_queued_writes(void)
{
	struct queue *q = &queue;

	if (queue_init(q))
		return KTAP_FAIL;
	for (unsigned int s = 0; s < FIFO_ARRAY_SIZE(cancelled_sets); s++) {
		unsigned int set = cancelled_sets[s], left = 0;

		if (put(q->fd, q->depth, s, 0))
			return KTAP_FAIL;
		/* Those that stay make up the stream. */
		for (unsigned int i = 0; i < 9; i++) {
			fifo_fill(memory + i * 100, 100, set >> i & 1 ? 999 : s, q->depth + left * 100);
			left += !(set >> i & 1);
			prepare_write(q, i, memory + i * 100, 100);
		}
		if (submit(q, 0, 9) || all_pending(q))
			return KTAP_FAIL;
		for (unsigned int i = 9; i--; ) {
			if (set >> i & 1 && (cancel(q, i) || wait_for(q, 1, "a cancelled write") || gives(q, i, -ECANCELED)))
				return ktap_fail("set %#x", set);
		}
		if (all_pending(q) || get(q->fd, q->depth, s, 0) || wait_for(q, q->pending, "the others") ||
		    fill_is(q->fd, left * 100) || get(q->fd, left * 100, s, q->depth))
			return ktap_fail("set %#x", set);
		for (unsigned int i = 0; i < 9; i++) {
			if (!(set >> i & 1) && gives(q, i, 100))
				return ktap_fail("set %#x: %u", set, i);
		}
	}
	return KTAP_PASS;
}

/* 256 of them, in random order, without a look at the events between. */
static int cancel_many(void)
{
	struct fifo_rng rng = fifo_rng(400);
	unsigned int order[REQUESTS];
	struct queue *q = &queue;

	if (queue_init(q))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < REQUESTS; i++) {
		unsigned int j = fifo_below(&rng, i + 1);

		order[i] = order[j];
		order[j] = i;
		prepare_read(q, i, memory + i * 100, 100);
	}
	if (submit(q, 0, REQUESTS))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < REQUESTS; i++) {
		if (cancel(q, order[i]))
			return KTAP_FAIL;
	}
	if (wait_for(q, REQUESTS, "cancelled reads"))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < REQUESTS; i++) {
		if (gives(q, i, -ECANCELED))
			return KTAP_FAIL;
	}
	if (fifo_untouched(q->fd, memory, REQUESTS * 100))
		return KTAP_FAIL;
	return take(q) ? ktap_fail("more events") : KTAP_PASS;
}

static int cancel_twice(void)
{
	struct queue *q = &queue;

	if (queue_init(q))
		return KTAP_FAIL;
	prepare_read(q, 0, memory, 100);
	prepare_read(q, 1, memory + 100, 100);
	if (submit(q, 0, 2) || cancel(q, 0) || cancel_fails(q->ctx, &q->requests[0].iocb, EINVAL, "a cancelled read"))
		return KTAP_FAIL;
	if (wait_for(q, 1, "a cancelled read") || gives(q, 0, -ECANCELED) ||
	    cancel_fails(q->ctx, &q->requests[0].iocb, EINVAL, "a cancelled read that has ended"))
		return KTAP_FAIL;
	/* The same iocb again is another request. */
	if (submit(q, 0, 1) || all_pending(q) || cancel(q, 0) || wait_for(q, 1, "a cancelled read") ||
	    gives(q, 0, -ECANCELED))
		return KTAP_FAIL;
	if (put(q->fd, 100, 1, 0) || wait_for(q, 1, "the other read") || gives(q, 1, 100) ||
	    cancel_fails(q->ctx, &q->requests[1].iocb, EINVAL, "a read that has ended"))
		return KTAP_FAIL;
	return take(q) ? ktap_fail("more events") : KTAP_PASS;
}

static int stranger(void *arg)
{
	struct queue *q = arg;

	/* The context's number is an address: here is no context at it. */
	return cancel_fails(q->ctx, &q->requests[0].iocb, EINVAL, "another process's iocb") ? KTAP_FAIL : KTAP_PASS;
}

static int cancel_stranger(void)
{
	struct queue *q = &queue, *other = &second;
	struct iocb never;
	io_context_t gone;
	pid_t pid;

	if (queue_init(q) || queue_init(other))
		return KTAP_FAIL;
	prepare_read(q, 0, memory, 100);
	prepare_read(q, 1, memory, 100);
	if (submit(q, 0, 1))
		return KTAP_FAIL;
	memset(&never, 0, sizeof(never));
	if (cancel_fails(q->ctx, &never, EINVAL, "an iocb of zeros") ||
	    cancel_fails(q->ctx, &q->requests[1].iocb, EINVAL, "an iocb that was never submitted") ||
	    cancel_fails(other->ctx, &q->requests[0].iocb, EINVAL, "an iocb of another context") ||
	    cancel_fails(q->ctx, NULL, EFAULT, "no iocb") ||
	    cancel_fails(NULL, &q->requests[0].iocb, EINVAL, "an iocb of no context"))
		return KTAP_FAIL;
	/* Neither a copy of the iocb nor one with another key is the request. */
	never = q->requests[0].iocb;
	if (cancel_fails(q->ctx, &never, EINVAL, "a copy of an iocb"))
		return KTAP_FAIL;
	gone = other->ctx;
	if (!FIFO_GIVES(io_destroy(other->ctx), 0) ||
	    cancel_fails(gone, &q->requests[0].iocb, EINVAL, "an iocb in a context that is gone"))
		return KTAP_FAIL;
	pid = fifo_fork(stranger, q);
	if (pid < 0 || fifo_reap_passed(pid, "another process") || all_pending(q))
		return KTAP_FAIL;
	return cancel(q, 0) || wait_for(q, 1, "the read") || gives(q, 0, -ECANCELED) ? KTAP_FAIL : KTAP_PASS;
}

/*
 * Cancellation against completion. In each round some reads and writes are
 * submitted, in random order, which find each other's bytes, and some of them
 * are cancelled at random moments. Whoever wins, each ends once, with its count
 * or ECANCELED, and what was read is what was written, as far as it was: all of
 * it, once, and in order.
 */
#define RACERS		8
#define RACE_LARGEST	6000

static uint8_t race_read[RACERS * RACE_LARGEST];

struct race {
	struct queue *q;
	unsigned int n;			/* requests of this round */
	bool writes[RACERS];
	unsigned int victims[RACERS], victim_count;
	unsigned int spins[RACERS];	/* before each victim */
	unsigned int found, won, lost;	/* cancellations: that found the request; that it ended by; that it did not */
	bool threaded, stop, bad;
	int begin, end;			/* gates of the thread that cancels */
};

static void spin(unsigned int n)
{
	for (volatile unsigned int i = 0; i < n; i++)
		;
}

static void race_cancel(struct race *race)
{
	for (unsigned int i = 0; i < race->victim_count; i++) {
		struct io_event e;
		int err;

		spin(race->spins[i]);
		err = io_cancel(race->q->ctx, &race->q->requests[race->victims[i]].iocb, &e);
		if (err == -EINPROGRESS) {
			race->found |= 1u << race->victims[i];
		} else if (err != -EINVAL) {
			ktap_diag("io_cancel: %s", strerror(-err));
			race->bad = true;
		}
	}
}

static void *race_thread(void *arg)
{
	struct race *race = arg;

	for (;;) {
		uint64_t one;

		if (read(race->begin, &one, sizeof(one)) != sizeof(one) || race->stop)
			return NULL;
		race_cancel(race);
		fifo_gate_open(race->end, 1);
	}
}

/* Compares what was read with the part of each write that was written. */
static int race_compare(struct race *race, uint64_t number)
{
	struct queue *q = race->q;
	size_t got = 0, at = 0;

	for (unsigned int i = 0; i < race->n; i++) {
		const struct request *r = &q->requests[i];
		size_t n = r->result > 0 ? r->result : 0;

		if (r->result == -ECANCELED ? !(race->found >> i & 1) : r->result < 0) {
			ktap_diag("%s %u, which was %scancelled, ended with %ld", race->writes[i] ? "write" : "read", i,
				  race->found >> i & 1 ? "" : "not ", r->result);
			return -1;
		}
		if (race->writes[i] && n != r->iocb.u.c.nbytes && !(race->found >> i & 1)) {
			ktap_diag("write %u of %lu bytes ended with %zu", i, r->iocb.u.c.nbytes, n);
			return -1;
		}
		if (race->writes[i] || !n)
			continue;
		memcpy(race_read + got, r->iocb.u.c.buf, n);
		got += n;
	}
	while (fifo_info(q->fd).fill) {
		ssize_t n = read(q->fd, race_read + got, sizeof(race_read) - got);

		if (n <= 0) {
			ktap_diag("read of what is left: %s", strerror(errno));
			return -1;
		}
		got += n;
	}
	for (unsigned int i = 0; i < race->n; i++) {
		size_t n = q->requests[i].result > 0 ? q->requests[i].result : 0;

		if (!race->writes[i])
			continue;
		if (at + n > got) {
			ktap_diag("%zu bytes were read, fewer than were written", got);
			return -1;
		}
		if (fifo_verify(race_read + at, n, number * RACERS + i, 0))
			return -1;
		at += n;
	}
	if (at != got)
		ktap_diag("%zu bytes were written, %zu read", at, got);
	return at == got ? 0 : -1;
}

static int race_round(struct race *race, struct fifo_rng *rng, uint64_t number)
{
	struct queue *q = race->q;
	unsigned int done = 0;

	race->n = fifo_between(rng, 2, RACERS);
	race->victim_count = race->found = 0;
	for (unsigned int i = 0; i < race->n; i++) {
		uint8_t *buf = memory + i * 8192 + fifo_below(rng, 64);
		size_t len = fifo_below(rng, 4) ? fifo_between(rng, 1, 500) : fifo_between(rng, 1, RACE_LARGEST);

		race->writes[i] = fifo_below(rng, 2);
		if (race->writes[i]) {
			fifo_fill(buf, len, number * RACERS + i, 0);
			prepare_write(q, i, buf, len);
		} else {
			prepare_read(q, i, buf, len);
		}
		if (fifo_below(rng, 2)) {
			unsigned int j = fifo_below(rng, race->victim_count + 1);

			race->victims[race->victim_count] = race->victims[j];
			race->spins[race->victim_count++] = fifo_below(rng, 4) ? 0 : fifo_below(rng, 4000);
			race->victims[j] = i;
		}
	}
	if (race->threaded)
		fifo_gate_open(race->begin, 1);
	while (done < race->n) {
		unsigned int batch = fifo_between(rng, 1, race->n - done);

		if (submit(q, done, batch))
			return -1;
		done += batch;
	}
	if (race->threaded) {
		if (fifo_gate_pass(race->end, "the thread that cancels"))
			return -1;
	} else {
		race_cancel(race);
	}
	if (race->bad)
		return -1;
	/* Reads that have nothing to read wait for ever; what has ended meanwhile is not found. */
	if (fifo_info(q->fd).fill == 0 || q->pending) {
		for (unsigned int i = 0; i < race->n; i++) {
			struct io_event e;

			if (take(q) < 0)
				return -1;
			if (!race->writes[i] && q->requests[i].pending &&
			    io_cancel(q->ctx, &q->requests[i].iocb, &e) == -EINPROGRESS)
				race->found |= 1u << i;
		}
	}
	if (wait_for(q, q->pending, "the requests of a round") || race_compare(race, number))
		return -1;
	for (unsigned int i = 0; i < race->victim_count; i++) {
		if (q->requests[race->victims[i]].result == -ECANCELED)
			race->won++;
		else
			race->lost++;
	}
	return 0;
}

static int race_run(bool threaded)
{
	struct race race = { .q = &queue, .threaded = threaded };
	struct fifo_rng rng = fifo_rng(500 + threaded);
	unsigned int races = fifo_rounds(10000);
	pthread_t thread;
	int failed = 0;

	if (queue_init(race.q))
		return KTAP_FAIL;
	race.begin = fifo_gate();
	race.end = fifo_gate();
	if (threaded && pthread_create(&thread, NULL, race_thread, &race))
		return ktap_fail("pthread_create");
	for (uint64_t i = 0; !failed && race.won + race.lost < races; i++) {
		failed = race_round(&race, &rng, i);
		if (failed)
			ktap_diag("round %llu", (unsigned long long)i);
	}
	if (threaded) {
		race.stop = true;
		fifo_gate_open(race.begin, 1);
		pthread_join(thread, NULL);
	}
	/* Where one side always wins, nothing was raced. */
	if (!failed && (race.won < races / 50 || race.lost < races / 50))
		failed = -1;
	if (failed)
		ktap_diag("of %u cancellations %u won, %u lost", race.won + race.lost, race.won, race.lost);
	return failed ? KTAP_FAIL : KTAP_PASS;
}

static int cancel_race(void)
{
	return race_run(false);
}

/* The same from another thread. */
static int cancel_race_thread(void)
{
	return race_run(true);
}

/* The end of contexts, files and processes. */

/* Reads of a piece each, and writes behind a full FIFO where that is asked for. */
static int many_pending(struct queue *q, uint8_t *buf, unsigned int n, bool writes)
{
	if (writes && put(q->fd, q->depth, 1, 0))
		return -1;
	for (unsigned int i = 0; i < n; i++) {
		if (writes)
			prepare_write(q, i, buf + i * PIECE, PIECE);
		else
			prepare_read(q, i, buf + i * PIECE, PIECE);
	}
	return submit(q, 0, n);
}

static int destroy(void)
{
	struct queue *q = &queue;

	for (unsigned int i = 0; i < 2 * FIFO_ARRAY_SIZE(crowds); i++) {
		unsigned int n = crowds[i / 2];
		bool writes = i & 1;

		if (queue_init(q) || many_pending(q, memory, n, writes))
			return KTAP_FAIL;
		alarm(FIFO_WAIT_MS / 1000);
		if (!FIFO_GIVES(io_destroy(q->ctx), 0) || !FIFO_GIVES(io_destroy(q->ctx), -EINVAL))
			return KTAP_FAIL;
		alarm(0);
		if (nothing_moves(q->fd, memory, n, writes))
			return ktap_fail("%u %s", n, writes ? "writes" : "reads");
		close(q->fd);
	}
	return KTAP_PASS;
}

/* fsync in flight waits for a write that io_destroy takes back, and io_destroy for it. */
static int destroy_fsync(void)
{
	struct queue *q = &queue;

	if (queue_init(q) || many_pending(q, memory, 3, true))
		return KTAP_FAIL;
	io_prep_fsync(&q->requests[3].iocb, q->fd);
	io_prep_fdsync(&q->requests[4].iocb, q->fd);
	if (submit(q, 3, 2) || all_pending(q))
		return KTAP_FAIL;
	alarm(FIFO_WAIT_MS / 1000);
	if (!FIFO_GIVES(io_destroy(q->ctx), 0))
		return KTAP_FAIL;
	alarm(0);
	return nothing_moves(q->fd, memory, 3, true) ? KTAP_FAIL : KTAP_PASS;
}

/* While bytes move: what is in the memory when io_destroy returns is what stays there. */
static int destroy_busy(void)
{
	struct fifo_rng rng = fifo_rng(600);
	static uint8_t copy[32 * 1024];
	struct queue *q = &queue;
	int other = fifo_open(0, O_RDWR | O_NONBLOCK);

	for (unsigned int round = 0; round < fifo_rounds(300); round++) {
		if (other < 0 || queue_init(q))
			return KTAP_FAIL;
		for (unsigned int i = 0; i < 32; i++) {
			if (i & 1)
				prepare_write(q, i, memory + i * 1024, fifo_between(&rng, 1, 1024));
			else
				prepare_read(q, i, memory + i * 1024, fifo_between(&rng, 1, 1024));
		}
		if (submit(q, 0, 32))
			return KTAP_FAIL;
		spin(fifo_below(&rng, 3000));
		alarm(FIFO_WAIT_MS / 1000);
		if (!FIFO_GIVES(io_destroy(q->ctx), 0))
			return KTAP_FAIL;
		alarm(0);
		memcpy(copy, memory, sizeof(copy));
		while (read(other, draining, sizeof(draining)) > 0)
			;
		if (!FIFO_FAILS(read(other, draining, 1), EAGAIN) || fifo_round_trip(other, draining, 32 * 1024, round))
			return KTAP_FAIL;
		if (memcmp(copy, memory, sizeof(copy)))
			return ktap_fail("memory changed after io_destroy, in round %u", round);
		close(q->fd);
	}
	return KTAP_PASS;
}

/* close of any descriptor takes back what the process has in flight through the open file. */
static int close_pending(void)
{
	struct queue *q = &queue;

	for (unsigned int i = 0; i < 2 * FIFO_ARRAY_SIZE(crowds); i++) {
		int fd = fifo_open(0, O_RDWR);
		unsigned int n = crowds[i / 2];
		bool writes = i & 1;

		if (fd < 0 || queue_init(q) || many_pending(q, memory, n, writes))
			return KTAP_FAIL;
		alarm(FIFO_WAIT_MS / 1000);
		close(q->fd);
		alarm(0);
		/* It has waited for all of them, so their events are there. */
		if (take(q) != (int)n)
			return ktap_fail("%u of %u requests are in flight after close", q->pending, n);
		for (unsigned int j = 0; j < n; j++) {
			if (gives(q, j, -ECANCELED))
				return KTAP_FAIL;
		}
		if (nothing_moves(fd, memory, n, writes))
			return ktap_fail("%u %s", n, writes ? "writes" : "reads");
		close(fd);
		if (!FIFO_GIVES(io_destroy(q->ctx), 0))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

static int close_here(void *arg)
{
	struct queue *q = arg;

	return FIFO_GIVES(close(q->fd), 0) ? KTAP_PASS : KTAP_FAIL;
}

static int exit_here(void *arg)
{
	(void)arg;
	return KTAP_PASS;
}

/* Only the process's own, and only through that open file: duplicates are one. */
static int close_others(void)
{
	struct queue *q = &queue, *other = &second;
	int copy;
	pid_t pid;

	if (queue_init(q) || queue_init(other) || many_pending(other, memory + 4096, 1, false) ||
	    many_pending(q, memory, 3, false))
		return KTAP_FAIL;
	pid = fifo_fork(close_here, q);
	if (pid < 0 || fifo_reap_passed(pid, "a child that closes") || all_pending(q))
		return ktap_fail("a child's close has ended its parent's request");
	pid = fifo_fork(exit_here, q);
	if (pid < 0 || fifo_reap_passed(pid, "a child that exits") || all_pending(q))
		return ktap_fail("a child's exit has ended its parent's request");
	copy = dup(q->fd);
	if (copy < 0 || !FIFO_GIVES(close(copy), 0))
		return KTAP_FAIL;
	if (take(q) != 3 || gives(q, 0, -ECANCELED) || gives(q, 1, -ECANCELED) || gives(q, 2, -ECANCELED))
		return ktap_fail("close of a duplicate leaves requests in flight");
	if (all_pending(other))
		return ktap_fail("close has ended a request through another open file");
	/* The file is as good as before. */
	if (put(q->fd, 10, 1, 0) || wait_for(other, 1, "the other file's read") || gives(other, 0, 10) ||
	    fifo_verify(memory + 4096, 10, 1, 0))
		return KTAP_FAIL;
	prepare_read(q, 0, memory, 100);
	if (put(q->fd, 10, 1, 0) || submit(q, 0, 1) || wait_for(q, 1, "a read after the close") || gives(q, 0, 10))
		return KTAP_FAIL;
	return KTAP_PASS;
}

static int child_requests(void *arg)
{
	struct queue *q = arg;

	/* A context of its own, through the file that it got from its parent. */
	memset(&second, 0, sizeof(second));
	second.fd = q->fd;
	second.depth = q->depth;
	if (io_setup(REQUESTS, &second.ctx) || many_pending(&second, memory, 4, false))
		return KTAP_FAIL;
	if (all_pending(&second) || close(second.fd))
		return KTAP_FAIL;
	return take(&second) == 4 ? KTAP_PASS : ktap_fail("close leaves %u requests", second.pending);
}

/* A child's requests through a file that it shares with its parent. */
static int close_child(void)
{
	struct queue *q = &queue;
	pid_t pid;

	if (queue_init(q) || many_pending(q, memory + 4096, 2, false))
		return KTAP_FAIL;
	pid = fifo_fork(child_requests, q);
	if (pid < 0 || fifo_reap_passed(pid, "a child with requests") || all_pending(q))
		return KTAP_FAIL;
	if (put(q->fd, 128, 1, 0) || wait_for(q, 2, "the parent's reads") || gives(q, 0, 64) || gives(q, 1, 64))
		return KTAP_FAIL;
	return fifo_verify(memory + 4096, 128, 1, 0) ? KTAP_FAIL : KTAP_PASS;
}

/* The end of processes. */

static int doomed_begin(const struct doomed *d)
{
	struct queue *q = &queue;

	return queue_init(q) || many_pending(q, d->buf, d->n, d->writes);
}

static int exit_pending(void)
{
	return process_ends(doomed_begin, 2, EXIT);
}

static int kill_pending(void)
{
	return process_ends(doomed_begin, 2, KILL);
}

static int exec_pending(void)
{
	return process_ends(doomed_begin, 2, EXEC);
}

static int busy_begin(const struct doomed *d)
{
	struct queue *q = &queue;

	if (queue_init(q))
		return -1;
	for (unsigned int i = 0; i < 32; i++) {
		if (i & 1)
			prepare_write(q, i, d->buf + i * 1024, 1024);
		else
			prepare_read(q, i, d->buf + i * 1024, 1024);
	}
	fifo_gate_open(d->ready, 1);
	for (unsigned int i = 0; ; i = (i + 1) % 32) {
		if (!q->requests[i].pending && submit(q, i, 1))
			return -1;
		if (take(q) < 0)
			return -1;
	}
}

static int kill_busy(void)
{
	return busy_ends(busy_begin, 32 * 1024 / PIECE);
}

/* What is in the device's hands when the device has stopped to work. */
static int kill_stalled(void)
{
	struct doomed d = { .begin = doomed_begin, .buf = fifo_shared(REQUESTS * PIECE), .n = 17, .ending = KILL,
			     .ready = fifo_gate() };
	int fd = fifo_open(0, O_RDWR);
	pid_t pid;

	if (!ktap_has_host())
		return ktap_skip("no host that could stall the device");
	if (!d.buf || fd < 0)
		return KTAP_FAIL;
	pid = fifo_fork(doomed_run, &d);
	if (pid < 0 || fifo_gate_pass(d.ready, "requests of a child") || ktap_host(NULL, 0, "fault device:stall"))
		return KTAP_FAIL;
	kill(pid, SIGKILL);
	if (fifo_reap(pid, "a child with requests in a stalled device") != SIGKILL)
		return KTAP_FAIL;
	if (revive(fd) || nothing_moves(fd, d.buf, d.n, false))
		return KTAP_FAIL;
	return ktap_host(NULL, 0, "clear") ? KTAP_FAIL : KTAP_PASS;
}

int main(int argc, char **argv)
{
	static const struct ktap_check checks[] = {
		{ "empty_read", empty_read },
		{ "full_write", full_write },
		{ "read_depths", read_depths },
		{ "write_depths", write_depths },
		{ "two_contexts", two_contexts },
		{ "partial_read", partial_read },
		{ "large_writes", large_writes },
		{ "read_vectors", read_vectors },
		{ "write_vectors", write_vectors },
		{ "more_than_ring", more_than_ring },
		{ "stream", stream },
		{ "stream_each", stream_each },
		{ "many_processes", many_processes },
		{ "eventfd", eventfd_counts },
		{ "poll", poll_requests },
		{ "fsync", fsync_requests },
		{ "fsync_error", fsync_error },
		{ "nowait", nowait },
		{ "nonblock", nonblock },
		{ "odd_requests", odd_requests },
		{ "bad_requests", bad_requests },
		{ "bad_addresses", bad_addresses },
		{ "exhaust", exhaust },
		{ "getevents", getevents },
		{ "threshold", threshold },
		{ "wait_limit", wait_limit },
		{ "cancel_read", cancel_read },
		{ "cancel_write", cancel_write },
		{ "cancel_queued_reads", cancel_queued_reads },
		{ "cancel_queued_writes", cancel_queued_writes },
		{ "cancel_many", cancel_many },
		{ "cancel_twice", cancel_twice },
		{ "cancel_stranger", cancel_stranger },
		{ "cancel_race", cancel_race },
		{ "cancel_race_thread", cancel_race_thread },
		{ "destroy", destroy },
		{ "destroy_fsync", destroy_fsync },
		{ "destroy_busy", destroy_busy },
		{ "close", close_pending },
		{ "close_others", close_others },
		{ "close_child", close_child },
		{ "exit", exit_pending },
		{ "kill", kill_pending },
		{ "exec", exec_pending },
		{ "kill_busy", kill_busy },
		{ "kill_stalled", kill_stalled },
	};

	if (lingers(argc, argv))
		return 0;
	return fifo_run(checks, FIFO_ARRAY_SIZE(checks), argc, argv);
}
