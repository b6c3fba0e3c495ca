// SPDX-License-Identifier: MIT
/*
 * fifo_uring - /dev/fifoN by io_uring
 *
 * A read or write that would have to wait for the other side gets EAGAIN at
 * first. io_uring then waits for poll, and tries again: so requests that wait
 * have no order among each other, and a write may be short, as pwritev2's with
 * RWF_NOWAIT is. Most checks use pieces of one length, and see that each comes
 * once.
 */
#define _GNU_SOURCE
#include <liburing.h>
#include <sys/uio.h>

#include "async.h"

/* Of newer kernels than liburing.h is. */
#define OP_READ_MULTISHOT	49	/* 6.7 */

#define REQUESTS	256	/* in flight at most */

/* How requests are made: the same checks for each. */
struct mode {
	const char *name;
	unsigned int setup;	/* IORING_SETUP_ */
	unsigned int flags;	/* IOSQE_ */
	bool fixed;		/* buffer */
};

struct ring {
	struct io_uring ring;
	const struct mode *mode;
	int fd;			/* the FIFO, or its number among the registered files */
	int own_fd;		/* descriptor of it */
	unsigned int depth;	/* bytes of the FIFO */
	unsigned int prepared, pending;
	struct {
		bool pending;
		int result;
		unsigned int flags;	/* of its CQE */
	} requests[REQUESTS];
};

static uint8_t memory[16 * DEPTH] __attribute__((aligned(FIFO_PAGE)));
static struct ring ring, second;

static const struct mode plain = { .name = "plain" };

static int ring_init(struct ring *r, const struct mode *mode)
{
	struct io_uring_params p = { .flags = mode->setup };
	int err;

	memset(r, 0, sizeof(*r));
	r->mode = mode;
	err = io_uring_queue_init_params(REQUESTS, &r->ring, &p);
	if (err) {
		ktap_diag("io_uring_queue_init_params: %s", strerror(-err));
		return -1;
	}
	r->fd = r->own_fd = fifo_open(0, O_RDWR);
	if (r->fd < 0)
		return -1;
	r->depth = depth_of(r->fd);
	if (!r->depth)
		return -1;
	if (mode->flags & IOSQE_FIXED_FILE) {
		int files[3] = { -1, -1, r->own_fd };

		err = io_uring_register_files(&r->ring, files, 3);
		r->fd = 2;
	}
	if (!err && mode->fixed)
		err = io_uring_register_buffers(&r->ring, &(struct iovec){ memory, sizeof(memory) }, 1);
	if (err)
		ktap_diag("registering: %s", strerror(-err));
	return err ? -1 : 0;
}

/* Prepares request i; of what is in flight already it only takes the number. */
static struct io_uring_sqe *prepare(struct ring *r, unsigned int i, int op, const void *buf, size_t len)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);

	/* A thread may still be at those of before. */
	if (!sqe && r->mode->setup & IORING_SETUP_SQPOLL && io_uring_sqring_wait(&r->ring) >= 0)
		sqe = io_uring_get_sqe(&r->ring);
	if (!sqe) {
		ktap_diag("no room for another request");
		_exit(KTAP_FAIL);
	}
	io_uring_prep_rw(op, sqe, r->fd, buf, len, -1);
	sqe->flags = r->mode->flags;
	sqe->user_data = i;
	r->requests[i].pending = true;
	r->prepared++;
	return sqe;
}

static struct io_uring_sqe *prepare_read(struct ring *r, unsigned int i, void *buf, size_t len)
{
	return prepare(r, i, r->mode->fixed ? IORING_OP_READ_FIXED : IORING_OP_READ, buf, len);
}

static struct io_uring_sqe *prepare_write(struct ring *r, unsigned int i, const void *buf, size_t len)
{
	return prepare(r, i, r->mode->fixed ? IORING_OP_WRITE_FIXED : IORING_OP_WRITE, buf, len);
}

/* Submits what is prepared. It may not wait for the device. */
static int submit(struct ring *r)
{
	int got;

	alarm(FIFO_WAIT_MS / 1000);
	got = io_uring_submit(&r->ring);
	alarm(0);
	/* With a thread that takes them, it counts those that it has not taken yet. */
	if (r->mode->setup & IORING_SETUP_SQPOLL ? got < 0 : got != (int)r->prepared) {
		ktap_diag("io_uring_submit of %u requests: %d", r->prepared, got);
		return -1;
	}
	r->pending += r->prepared;
	r->prepared = 0;
	return 0;
}

static int note(struct ring *r, struct io_uring_cqe *cqe)
{
	uint64_t i = cqe->user_data;

	if (i >= REQUESTS || !r->requests[i].pending) {
		ktap_diag("an event of request %llu, which is not in flight: %d", (unsigned long long)i, cqe->res);
		return -1;
	}
	r->requests[i].result = cqe->res;
	r->requests[i].flags = cqe->flags;
	if (!(cqe->flags & IORING_CQE_F_MORE)) {
		r->requests[i].pending = false;
		r->pending--;
	}
	io_uring_cqe_seen(&r->ring, cqe);
	return 0;
}

/* Waits for n events. */
static int wait_for(struct ring *r, unsigned int n, const char *what)
{
	long long end = fifo_now_ms() + FIFO_WAIT_MS;

	while (n) {
		struct __kernel_timespec limit = { .tv_sec = FIFO_WAIT_MS / 1000 };
		struct io_uring_cqe *cqe = NULL;
		int err = io_uring_wait_cqe_timeout(&r->ring, &cqe, &limit);

		if ((err == -EINTR || err == -EAGAIN) && fifo_now_ms() < end)
			continue;
		if (err || !cqe) {
			ktap_diag("waited %d s for %s: %u events are missing (%d)", FIFO_WAIT_MS / 1000, what, n, err);
			return -1;
		}
		if (note(r, cqe))
			return -1;
		n--;
	}
	return 0;
}

/* Sees that none of the requests ends by itself, as far as a while tells. */
static int all_pending(struct ring *r)
{
	struct __kernel_timespec a_while = { .tv_nsec = 5000000 };
	struct io_uring_cqe *cqe = NULL;

	if (io_uring_wait_cqe_timeout(&r->ring, &cqe, &a_while) == -ETIME || !cqe)
		return 0;
	ktap_diag("request %llu, which is to wait, has ended with %d", (unsigned long long)cqe->user_data, cqe->res);
	return -1;
}

static int gives(const struct ring *r, unsigned int i, int want)
{
	if (!r->requests[i].pending && r->requests[i].result == want)
		return 0;
	ktap_diag("request %u %s %d, not %d", i, r->requests[i].pending ? "is in flight; it had" : "ended with",
		  r->requests[i].result, want);
	return -1;
}

/* Cancels request i, by request c. */
static int cancel(struct ring *r, unsigned int i, unsigned int c)
{
	struct io_uring_sqe *sqe = prepare(r, c, IORING_OP_ASYNC_CANCEL, NULL, 0);

	sqe->fd = -1;
	sqe->off = 0;
	sqe->addr = i;
	sqe->flags = 0;
	return submit(r);
}

/* Sees that the n pieces at buf are those of the stream from at, each once, in whichever order. */
static int all_pieces(const uint8_t *buf, unsigned int n, uint64_t stream, uint64_t at)
{
	bool seen[REQUESTS] = { false };

	for (unsigned int i = 0; i < n; i++) {
		unsigned int k = 0;

		while (k < n && (seen[k] || fifo_differs(buf + i * PIECE, PIECE, stream, at + k * PIECE) >= 0))
			k++;
		if (k == n) {
			ktap_diag("piece %u is none of the %u that are missing", i, n - i);
			return -1;
		}
		seen[k] = true;
	}
	return 0;
}

/* What holds in all modes. */

static int reads_wait(struct ring *r)
{
	static const unsigned int depths[] = { 1, 2, 3, 32, 64, 255, 256 };

	/* The first thing that asynchronous I/O is about. */
	memset(memory, 0, 512);
	prepare_read(r, 0, memory, 512);
	if (submit(r) || all_pending(r) || other_writes(100, 1, 0) || wait_for(r, 1, "the read") || gives(r, 0, 100))
		return -1;
	if (fifo_verify(memory, 100, 1, 0) || !fifo_all(memory + 100, 0, 412))
		return -1;
	for (unsigned int d = 0; d < FIFO_ARRAY_SIZE(depths); d++) {
		unsigned int n = depths[d];

		for (unsigned int i = 0; i < n; i++)
			prepare_read(r, i, memory + i * PIECE, PIECE);
		if (submit(r) || all_pending(r) || other_writes(n * PIECE, n, 0) || wait_for(r, n, "the reads"))
			return -1;
		for (unsigned int i = 0; i < n; i++) {
			if (gives(r, i, PIECE))
				return -1;
		}
		if (all_pieces(memory, n, n, 0))
			return -1;
	}
	return 0;
}

static int writes_wait(struct ring *r)
{
	static const unsigned int depths[] = { 1, 2, 3, 32, 64, 255, 256 };

	for (unsigned int d = 0; d < FIFO_ARRAY_SIZE(depths); d++) {
		unsigned int n = depths[d];

		if (put(r->own_fd, r->depth, n, 0))
			return -1;
		fifo_fill(memory, n * PIECE, n, r->depth);
		for (unsigned int i = 0; i < n; i++)
			prepare_write(r, i, memory + i * PIECE, PIECE);
		if (submit(r) || all_pending(r) || other_reads(r->depth, n, 0) || wait_for(r, n, "the writes"))
			return -1;
		for (unsigned int i = 0; i < n; i++) {
			if (gives(r, i, PIECE))
				return -1;
		}
		if (fifo_read_all(r->own_fd, draining, n * PIECE) || all_pieces(draining, n, n, r->depth))
			return -1;
	}
	return 0;
}

/* What can be done at once is done in order, where one thread does it. */
static int in_order(struct ring *r)
{
	uint64_t at = 0;

	fifo_fill(memory, 32 * 600, 1, 0);
	for (unsigned int i = 0; i < 32; i++)
		prepare_write(r, i, memory + i * 600, 600);
	if (submit(r) || wait_for(r, 32, "writes with room"))
		return -1;
	for (unsigned int i = 0; i < 32; i++) {
		if (gives(r, i, 600))
			return -1;
		prepare_read(r, i, memory + 100000 + i * 1000, i % 5 * 200 + 200);
	}
	if (submit(r) || wait_for(r, 32, "reads of what is there"))
		return -1;
	for (unsigned int i = 0; i < 32; i++) {
		unsigned int len = i % 5 * 200 + 200;

		if (at + len > 32 * 600)
			len = 32 * 600 - at;
		if (gives(r, i, len) || fifo_verify(memory + 100000 + i * 1000, len, 1, at))
			return -1;
		at += len;
	}
	if (get(r->own_fd, 32 * 600 - at, 1, at) || put(r->own_fd, 3 * PIECE, 1, 0))
		return -1;
	/* Two for which there is nothing left wait for poll, and not in the driver. */
	for (unsigned int i = 0; i < 5; i++)
		prepare_read(r, i, memory + i * PIECE, PIECE);
	if (submit(r) || wait_for(r, 3, "reads of what is there") || fifo_verify(memory, 3 * PIECE, 1, 0))
		return -1;
	if (all_pending(r) || fifo_in_flight(0, "rx") > 0) {
		ktap_diag("%lld reads are in the driver", fifo_in_flight(0, "rx"));
		return -1;
	}
	return put(r->own_fd, 2 * PIECE, 1, 3 * PIECE) || wait_for(r, 2, "reads that wait") ||
	       all_pieces(memory + 3 * PIECE, 2, 1, 3 * PIECE);
}

static int counts(struct ring *r)
{
	static const unsigned int rooms[] = { 1, 100, 4096, 5000, 3 * DEPTH };

	for (unsigned int i = 0; i < FIFO_ARRAY_SIZE(rooms); i++) {
		unsigned int want = rooms[i] < 4500 ? rooms[i] : 4500;

		memset(memory, 0x77, rooms[i] + 1);
		prepare_read(r, 0, memory, rooms[i]);
		if (put(r->own_fd, 4500, 1, 0) || submit(r) || wait_for(r, 1, "the read") || gives(r, 0, want))
			return -1;
		if (fifo_verify(memory, want, 1, 0) || !fifo_all(memory + want, 0x77, rooms[i] + 1 - want)) {
			ktap_diag("a read of %u bytes where 4500 are", rooms[i]);
			return -1;
		}
		if (get(r->own_fd, 4500 - want, 1, want))
			return -1;
	}
	/* A long write is short, since it may not wait. */
	fifo_fill(memory, 3 * DEPTH, 2, 1000);
	prepare_write(r, 0, memory, 3 * DEPTH);
	if (put(r->own_fd, 1000, 2, 0) || submit(r) || wait_for(r, 1, "a long write") || gives(r, 0, r->depth - 1000) ||
	    get(r->own_fd, r->depth, 2, 0))
		return -1;
	prepare_read(r, 0, memory, 0);
	prepare_write(r, 1, memory, 0);
	return submit(r) || wait_for(r, 2, "requests for nothing") || gives(r, 0, 0) || gives(r, 1, 0);
}

static int cancels(struct ring *r)
{
	memset(memory, 0x11, 9 * PIECE);
	for (unsigned int i = 0; i < 9; i++)
		prepare_read(r, i, memory + i * PIECE, PIECE);
	if (submit(r) || all_pending(r))
		return -1;
	for (unsigned int i = 0; i < 9; i += 4) {
		if (cancel(r, i, 100) || wait_for(r, 2, "a cancelled read") || gives(r, 100, 0) || gives(r, i, -ECANCELED))
			return -1;
		if (cancel(r, i, 100) || wait_for(r, 1, "cancelling once more") || gives(r, 100, -ENOENT))
			return -1;
	}
	if (all_pending(r) || put(r->own_fd, 6 * PIECE, 1, 0) || wait_for(r, 6, "the other reads"))
		return -1;
	for (unsigned int i = 0; i < 9; i++) {
		if (i % 4 ? gives(r, i, PIECE) : !fifo_all(memory + i * PIECE, 0x11, PIECE))
			return -1;
	}
	/* And a write. */
	if (put(r->own_fd, r->depth, 1, 0))
		return -1;
	prepare_write(r, 0, memory, PIECE);
	if (submit(r) || all_pending(r) || cancel(r, 0, 100) || wait_for(r, 2, "a cancelled write") ||
	    gives(r, 0, -ECANCELED) || gives(r, 100, 0))
		return -1;
	return get(r->own_fd, r->depth, 1, 0) || fill_is(r->own_fd, 0);
}

static const struct {
	const char *name;
	int (*run)(struct ring *r);
} basics[] = {
	{ "reads that wait", reads_wait },
	{ "writes that wait", writes_wait },
	{ "counts", counts },
	{ "cancellation", cancels },
};

static int in_mode(const struct mode *mode)
{
	struct ring *r = &ring;

	if (ring_init(r, mode))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < FIFO_ARRAY_SIZE(basics); i++) {
		if (basics[i].run(r))
			return ktap_fail("%s: %s", mode->name, basics[i].name);
	}
	if (!(mode->flags & IOSQE_ASYNC) && in_order(r))
		return ktap_fail("%s: order", mode->name);
	return KTAP_PASS;
}

static int mode_plain(void)
{
	return in_mode(&plain);
}

static int mode_async(void)
{
	return in_mode(&(struct mode){ .name = "from workers", .flags = IOSQE_ASYNC });
}

static int mode_file(void)
{
	return in_mode(&(struct mode){ .name = "registered file", .flags = IOSQE_FIXED_FILE });
}

static int mode_buffer(void)
{
	return in_mode(&(struct mode){ .name = "fixed buffer", .fixed = true });
}

static int mode_buffer_file_async(void)
{
	return in_mode(&(struct mode){ .name = "fixed buffer and file, from workers", .fixed = true,
				       .flags = IOSQE_FIXED_FILE | IOSQE_ASYNC });
}

static int mode_sqpoll(void)
{
	return in_mode(&(struct mode){ .name = "SQPOLL", .setup = IORING_SETUP_SQPOLL });
}

static int mode_sqpoll_fixed(void)
{
	return in_mode(&(struct mode){ .name = "SQPOLL, fixed buffer and file", .setup = IORING_SETUP_SQPOLL,
				       .flags = IOSQE_FIXED_FILE, .fixed = true });
}

static int mode_cooperative(void)
{
	return in_mode(&(struct mode){ .name = "COOP_TASKRUN",
				       .setup = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG });
}

static int mode_deferred(void)
{
	return in_mode(&(struct mode){ .name = "DEFER_TASKRUN",
				       .setup = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN });
}

/* Vectors, whose array is gone as soon as it is submitted. */

static int vectors(void)
{
	static const unsigned int segments[] = { 1, 2, 7, 8, 9, 64, 65, 256, 500 };
	struct fifo_rng rng = fifo_rng(100);
	struct ring *r = &ring;

	if (ring_init(r, &plain))
		return KTAP_FAIL;
	for (unsigned int s = 0; s < 2 * FIFO_ARRAY_SIZE(segments); s++) {
		unsigned int n = segments[s / 2];
		struct iovec kept[500], *iov = mmap(NULL, sizeof(kept), PROT_READ | PROT_WRITE,
						    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		uint8_t *p = memory;
		size_t total = 0, at = 0;
		int flags = s & 1 ? IOSQE_ASYNC : 0;

		if (iov == MAP_FAILED)
			return ktap_fail("no memory");
		/* A piece may cross a page; a read is short beyond what a chain holds. */
		if (2 * n > fifo_info(r->own_fd).max_segments)
			break;
		for (unsigned int i = 0; i < n; i++) {
			iov[i].iov_base = p;
			iov[i].iov_len = i % 7 == 3 ? 0 : fifo_between(&rng, 1, n > 64 ? 40 : 600);
			fifo_fill(p, iov[i].iov_len, s, total);
			total += iov[i].iov_len;
			p += iov[i].iov_len + fifo_below(&rng, 50);
		}
		memcpy(kept, iov, n * sizeof(*iov));
		prepare(r, 0, IORING_OP_WRITEV, iov, n)->flags = flags;
		if (submit(r) || wait_for(r, 1, "writev") || gives(r, 0, total))
			return ktap_fail("%u pieces", n);
		memset(memory, 0x33, sizeof(memory));
		prepare(r, 0, IORING_OP_READV, iov, n)->flags = flags;
		if (submit(r))
			return KTAP_FAIL;
		memset(iov, 0xff, sizeof(kept));
		munmap(iov, sizeof(kept));
		if (wait_for(r, 1, "readv") || gives(r, 0, total))
			return ktap_fail("%u pieces", n);
		p = memory;
		for (unsigned int i = 0; i < n; i++) {
			uint8_t *to = kept[i].iov_base;

			if (!fifo_all(p, 0x33, to - p) || fifo_verify(to, kept[i].iov_len, s, at))
				return ktap_fail("piece %u of %u", i, n);
			at += kept[i].iov_len;
			p = to + kept[i].iov_len;
		}
	}
	return KTAP_PASS;
}

/* One that waits: its vector is gone for long when bytes come. */
static int vector_waits(void)
{
	struct iovec *iov = malloc(3 * sizeof(*iov));
	struct ring *r = &ring;

	if (!iov || ring_init(r, &plain))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < 3; i++)
		iov[i] = (struct iovec){ memory + i * 1000, 100 };
	prepare(r, 0, IORING_OP_READV, iov, 3);
	if (submit(r))
		return KTAP_FAIL;
	memset(iov, 0xff, 3 * sizeof(*iov));
	free(iov);
	if (all_pending(r) || put(r->own_fd, 250, 1, 0) || wait_for(r, 1, "readv") || gives(r, 0, 250))
		return KTAP_FAIL;
	if (fifo_verify(memory, 100, 1, 0) || fifo_verify(memory + 1000, 100, 1, 100) ||
	    fifo_verify(memory + 2000, 50, 1, 200) || !fifo_all(memory + 2050, 0, 50))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* Registered buffers: of all kinds of memory, from any place in them. */

#define KIND_SIZE	(2 << 20)

static uint8_t *kind_anonymous(void)
{
	return mmap(NULL, KIND_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static uint8_t *kind_file(void)
{
	int fd = memfd_create("fixed", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, KIND_SIZE))
		return MAP_FAILED;
	return mmap(NULL, KIND_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static uint8_t *kind_huge(void)
{
	return mmap(NULL, KIND_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
}

static int kind_check(uint8_t *p)
{
	static const size_t lens[] = { 1, 63, 512, 4095, 4096, 4097, 12345, 61440, DEPTH - 100 };
	static const size_t offsets[] = { 0, 1, 4095, 4096, 8000, 100001, 1 << 20, KIND_SIZE - DEPTH };
	/* Requests behind a bad one are submitted all the same. */
	struct mode mode = { .name = "fixed", .setup = IORING_SETUP_SUBMIT_ALL, .fixed = true };
	struct ring *r = &ring;

	/* ring_init has registered other memory. */
	if (ring_init(r, &mode) || io_uring_unregister_buffers(&r->ring) ||
	    io_uring_register_buffers(&r->ring, &(struct iovec){ p, KIND_SIZE }, 1)) {
		ktap_diag("registering a buffer failed");
		return -1;
	}
	for (unsigned int i = 0; i < FIFO_ARRAY_SIZE(lens) * FIFO_ARRAY_SIZE(offsets); i++) {
		size_t len = lens[i % FIFO_ARRAY_SIZE(lens)], at = offsets[i / FIFO_ARRAY_SIZE(lens)];

		/* Half of the reads wait. */
		if (i & 1) {
			prepare_read(r, 1, p + at, len);
			if (submit(r) || put(r->own_fd, len, i, 0))
				return -1;
		} else {
			fifo_fill(p + at, len, i, 0);
			prepare_write(r, 0, p + at, len);
			if (submit(r) || wait_for(r, 1, "a write") || gives(r, 0, len))
				return -1;
			memset(p + at, 0, len);
			prepare_read(r, 1, p + at, len);
			if (submit(r))
				return -1;
		}
		if (wait_for(r, 1, "a read") || (!(i & 1) && gives(r, 1, len)) || r->requests[1].result <= 0)
			return -1;
		if (fifo_verify(p + at, r->requests[1].result, i, 0) ||
		    get(r->own_fd, len - r->requests[1].result, i, r->requests[1].result))
			return -1;
	}
	/* Outside of it there is nothing. */
	prepare_read(r, 0, p + KIND_SIZE - 10, 11);
	prepare_write(r, 1, memory, 10);
	prepare_read(r, 2, p, 10)->buf_index = 1;
	if (submit(r) || wait_for(r, 3, "what is outside") || gives(r, 0, -EFAULT) || gives(r, 1, -EFAULT) ||
	    gives(r, 2, -EFAULT))
		return -1;
	io_uring_queue_exit(&r->ring);
	close(r->own_fd);
	return 0;
}

static int fixed_kinds(void)
{
	uint8_t *p = kind_anonymous(), *file = kind_file();
	char huge[32];
	int failed;

	if (p == MAP_FAILED || file == MAP_FAILED)
		return ktap_fail("no memory");
	if (kind_check(p))
		return ktap_fail("anonymous memory");
	if (kind_check(file))
		return ktap_fail("page cache");
	if (slurp("/proc/sys/vm/nr_hugepages", huge, sizeof(huge)) <= 0 || spit("/proc/sys/vm/nr_hugepages", "2"))
		return ktap_fail("no huge pages");
	p = kind_huge();
	failed = p == MAP_FAILED || kind_check(p);
	if (p == MAP_FAILED)
		ktap_diag("mmap: %s", strerror(errno));
	else
		munmap(p, KIND_SIZE);
	spit("/proc/sys/vm/nr_hugepages", huge);
	return failed ? ktap_fail("a huge page") : KTAP_PASS;
}

/* Buffers and files may be taken from their tables, and descriptors closed, below a request that waits. */
static int unregister(void)
{
	struct iovec none = { 0 };
	__u64 tag = 0;
	int closed = -1;
	struct mode mode = { .name = "registered", .flags = IOSQE_FIXED_FILE, .fixed = true };
	struct ring *r = &ring;
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0 || ring_init(r, &mode))
		return KTAP_FAIL;
	prepare_read(r, 0, memory, 100);
	if (submit(r) || all_pending(r) || !FIFO_GIVES(io_uring_register_files_update(&r->ring, 2, &closed, 1), 1) ||
	    !FIFO_GIVES(io_uring_register_buffers_update_tag(&r->ring, 0, &none, &tag, 1), 1) || all_pending(r))
		return KTAP_FAIL;
	close(r->own_fd);
	r->own_fd = fd;
	if (all_pending(r) || put(r->own_fd, 100, 1, 0) || wait_for(r, 1, "the read") || gives(r, 0, 100))
		return KTAP_FAIL;
	prepare(r, 1, IORING_OP_READ, memory, 100);
	if (submit(r) || wait_for(r, 1, "a read from no file") || gives(r, 1, -EBADF))
		return KTAP_FAIL;
	return fifo_verify(memory, 100, 1, 0) ? KTAP_FAIL : KTAP_PASS;
}

/* Modes of the file and the request. */

static int nowait(void)
{
	struct ring *r = &ring;

	if (ring_init(r, &plain))
		return KTAP_FAIL;
	prepare_read(r, 0, memory, 100)->rw_flags = RWF_NOWAIT;
	if (submit(r) || wait_for(r, 1, "a read of nothing") || gives(r, 0, -EAGAIN))
		return KTAP_FAIL;
	fifo_fill(memory, 5000, 1, 0);
	prepare_write(r, 0, memory, 60)->rw_flags = RWF_NOWAIT;
	if (submit(r) || wait_for(r, 1, "a write with room") || gives(r, 0, 60))
		return KTAP_FAIL;
	prepare_read(r, 0, memory + 8192, 100)->rw_flags = RWF_NOWAIT;
	if (submit(r) || wait_for(r, 1, "a read of 60 bytes") || gives(r, 0, 60) || fifo_verify(memory + 8192, 60, 1, 0))
		return KTAP_FAIL;
	if (put(r->own_fd, r->depth - 100, 1, 60))
		return KTAP_FAIL;
	fifo_fill(memory, 5000, 1, r->depth - 40);
	prepare_write(r, 0, memory, 4096)->rw_flags = RWF_NOWAIT;
	if (submit(r) || wait_for(r, 1, "a write without room") || gives(r, 0, -EAGAIN))
		return KTAP_FAIL;
	prepare_write(r, 0, memory, 5000)->rw_flags = RWF_NOWAIT;
	if (submit(r) || wait_for(r, 1, "a long write") || gives(r, 0, 100))
		return KTAP_FAIL;
	prepare_write(r, 0, memory, 5000)->rw_flags = RWF_NOWAIT;
	if (submit(r) || wait_for(r, 1, "a write into a full FIFO") || gives(r, 0, -EAGAIN))
		return KTAP_FAIL;
	return get(r->own_fd, r->depth, 1, 60) ? KTAP_FAIL : KTAP_PASS;
}

/*
 * Of a file that knows IOCB_NOWAIT, io_uring does not take O_NONBLOCK as the wish
 * for EAGAIN: it waits for poll. It must work, from workers as well.
 */
static int nonblock(void)
{
	struct ring *r = &ring;

	if (ring_init(r, &plain) || !FIFO_GIVES(fcntl(r->own_fd, F_SETFL, O_NONBLOCK), 0))
		return KTAP_FAIL;
	prepare_read(r, 0, memory, PIECE);
	prepare_read(r, 1, memory + PIECE, PIECE)->flags = IOSQE_ASYNC;
	if (submit(r) || all_pending(r) || put(r->own_fd, 2 * PIECE, 1, 0) || wait_for(r, 2, "the reads") || gives(r, 0, PIECE) ||
	    gives(r, 1, PIECE) || all_pieces(memory, 2, 1, 0))
		return KTAP_FAIL;
	return KTAP_PASS;
}

static int poll_requests(void)
{
	struct ring *r = &ring;
	struct io_uring_sqe *sqe;

	if (ring_init(r, &plain))
		return KTAP_FAIL;
	/* Once. */
	sqe = prepare(r, 0, IORING_OP_POLL_ADD, NULL, 0);
	sqe->off = 0;
	sqe->poll32_events = POLLIN;
	sqe = prepare(r, 1, IORING_OP_POLL_ADD, NULL, 0);
	sqe->off = 0;
	sqe->poll32_events = POLLOUT;
	if (submit(r) || wait_for(r, 1, "POLLOUT") || !(r->requests[1].result & POLLOUT) || all_pending(r))
		return KTAP_FAIL;
	if (other_writes(10, 1, 0) || wait_for(r, 1, "POLLIN") || !(r->requests[0].result & POLLIN))
		return KTAP_FAIL;
	if (get(r->own_fd, 10, 1, 0))
		return KTAP_FAIL;
	/* Each time that bytes come. */
	sqe = prepare(r, 0, IORING_OP_POLL_ADD, NULL, IORING_POLL_ADD_MULTI);
	sqe->off = 0;
	sqe->poll32_events = POLLIN;
	if (submit(r) || all_pending(r))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < 20; i++) {
		r->requests[0].result = 0;
		if (put(r->own_fd, 10, 1, i * 10) || wait_for(r, 1, "POLLIN again"))
			return ktap_fail("time %u", i);
		if (!(r->requests[0].result & POLLIN) || !(r->requests[0].flags & IORING_CQE_F_MORE))
			return ktap_fail("multishot poll ends with %#x, %#x", r->requests[0].result, r->requests[0].flags);
		if (get(r->own_fd, 10, 1, i * 10))
			return KTAP_FAIL;
		/* It may have been told more than once. */
		for (;;) {
			struct io_uring_cqe *cqe;

			if (io_uring_peek_cqe(&r->ring, &cqe))
				break;
			if (note(r, cqe) || !r->requests[0].pending)
				return ktap_fail("multishot poll ended");
		}
	}
	if (all_pending(r))
		return KTAP_FAIL;
	sqe = prepare(r, 1, IORING_OP_POLL_REMOVE, NULL, 0);
	sqe->fd = -1;
	sqe->off = 0;
	if (submit(r) || wait_for(r, 2, "the end of poll") || gives(r, 0, -ECANCELED) || gives(r, 1, 0))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* All of a file, or of all, at once. */
static int cancel_all(void)
{
	struct ring *r = &ring;
	struct io_uring_sqe *sqe;
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0 || ring_init(r, &plain))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < 100; i++) {
		sqe = prepare_read(r, i, memory + i * PIECE, PIECE);
		if (i % 3 == 0)
			sqe->fd = fd;
		if (i % 5 == 0)
			sqe->flags = IOSQE_ASYNC;
	}
	if (submit(r) || all_pending(r))
		return KTAP_FAIL;
	sqe = prepare(r, 100, IORING_OP_ASYNC_CANCEL, NULL, 0);
	sqe->fd = fd;
	sqe->off = 0;
	sqe->cancel_flags = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL;
	if (submit(r) || wait_for(r, 35, "all of a file's") || gives(r, 100, 34) || all_pending(r))
		return KTAP_FAIL;
	sqe = prepare(r, 100, IORING_OP_ASYNC_CANCEL, NULL, 0);
	sqe->fd = -1;
	sqe->off = 0;
	sqe->cancel_flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
	if (submit(r) || wait_for(r, 67, "all") || gives(r, 100, 66))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < 100; i++) {
		if (gives(r, i, -ECANCELED))
			return KTAP_FAIL;
	}
	close(fd);
	return fifo_untouched(r->own_fd, memory, 100 * PIECE) ? KTAP_FAIL : KTAP_PASS;
}

/*
 * Cancellation against completion: whoever wins, a read ends once, with a piece
 * or without, and the pieces that were not read are still there.
 */
static int cancel_race(void)
{
	struct fifo_rng rng = fifo_rng(200);
	unsigned int races = fifo_rounds(10000), won = 0, lost = 0;
	struct ring *r = &ring;

	if (ring_init(r, &plain))
		return KTAP_FAIL;
	for (uint64_t round = 0; won + lost < races; round++) {
		unsigned int n = fifo_between(&rng, 1, 8), got = 0;

		fifo_fill(memory + 100000, n * PIECE, round, 0);
		for (unsigned int i = 0; i < n; i++)
			prepare_read(r, i, memory + i * PIECE, PIECE)->flags = fifo_below(&rng, 4) ? 0 : IOSQE_ASYNC;
		if (submit(r))
			return KTAP_FAIL;
		for (unsigned int i = 0; i < n; i++) {
			struct io_uring_sqe *sqe;

			prepare_write(r, 100 + i, memory + 100000 + i * PIECE, PIECE);
			sqe = prepare(r, 200 + i, IORING_OP_ASYNC_CANCEL, NULL, 0);
			sqe->fd = -1;
			sqe->off = 0;
			sqe->addr = fifo_below(&rng, n);
			if (fifo_below(&rng, 2) && submit(r))
				return KTAP_FAIL;
			for (volatile unsigned int spins = fifo_below(&rng, 4) ? 0 : fifo_below(&rng, 2000); spins; spins--)
				;
		}
		if (r->prepared && submit(r))
			return KTAP_FAIL;
		/* Reads that are left when all bytes are: a write may have come before its read was cancelled. */
		if (wait_for(r, r->pending, "the requests of a round"))
			return ktap_fail("round %llu", (unsigned long long)round);
		for (unsigned int i = 0; i < n; i++) {
			if (gives(r, 100 + i, PIECE))
				return KTAP_FAIL;
			if (r->requests[i].result == PIECE) {
				memcpy(draining + got++ * PIECE, memory + i * PIECE, PIECE);
				lost++;
			} else if (gives(r, i, -ECANCELED)) {
				return KTAP_FAIL;
			} else {
				won++;
			}
		}
		if (fill_is(r->own_fd, (n - got) * PIECE) || fifo_read_all(r->own_fd, draining + got * PIECE, (n - got) * PIECE) ||
		    all_pieces(draining, n, round, 0))
			return ktap_fail("round %llu", (unsigned long long)round);
	}
	if (won < races / 50 || lost < races / 50)
		return ktap_fail("of %u cancellations %u won, %u lost", won + lost, won, lost);
	return KTAP_PASS;
}

/* Requests that hang together. */
static int links(void)
{
	struct __kernel_timespec soon = { .tv_nsec = 5000000 };
	struct ring *r = &ring;
	struct io_uring_sqe *sqe;

	if (ring_init(r, &plain))
		return KTAP_FAIL;
	/* A read begins when the write before it has ended; a short one is the end. */
	fifo_fill(memory, 300, 1, 0);
	prepare_write(r, 0, memory, 100)->flags = IOSQE_IO_LINK;
	prepare_read(r, 1, memory + 1000, 100)->flags = IOSQE_IO_LINK;
	prepare_write(r, 2, memory + 100, 100)->flags = IOSQE_IO_LINK;
	prepare_read(r, 3, memory + 1100, 200)->flags = IOSQE_IO_LINK;
	prepare_write(r, 4, memory, 100);
	if (submit(r) || wait_for(r, 5, "a chain") || gives(r, 0, 100) || gives(r, 1, 100) || gives(r, 2, 100) ||
	    gives(r, 3, 100) || gives(r, 4, -ECANCELED) || fifo_verify(memory + 1000, 200, 1, 0) || fill_is(r->own_fd, 0))
		return KTAP_FAIL;
	/* A hard link goes on. One that waits holds up what comes after it. */
	prepare_read(r, 0, memory + 1000, 200)->flags = IOSQE_IO_HARDLINK;
	prepare_write(r, 1, memory, 50);
	if (submit(r) || all_pending(r) || put(r->own_fd, 100, 1, 0) || wait_for(r, 2, "a hard link") || gives(r, 0, 100) ||
	    gives(r, 1, 50) || get(r->own_fd, 50, 1, 0))
		return KTAP_FAIL;
	/* Time runs out for a read, and not for another. */
	for (unsigned int i = 0; i < 4; i++) {
		bool comes = i & 1;

		prepare_read(r, 0, memory, 100)->flags = IOSQE_IO_LINK | (i & 2 ? IOSQE_ASYNC : 0);
		sqe = prepare(r, 1, IORING_OP_LINK_TIMEOUT, &soon, 1);
		sqe->fd = -1;
		sqe->off = 0;
		if (comes)
			soon.tv_sec = FIFO_WAIT_MS / 1000;
		if (submit(r) || (comes && put(r->own_fd, 100, 1, 0)) || wait_for(r, 2, "a read and its time"))
			return KTAP_FAIL;
		soon.tv_sec = 0;
		if (gives(r, 0, comes ? 100 : -ECANCELED) || gives(r, 1, comes ? -ECANCELED : -ETIME))
			return KTAP_FAIL;
	}
	/* Nothing begins before what waits has ended. */
	prepare_read(r, 0, memory, 100);
	prepare(r, 1, IORING_OP_NOP, NULL, 0)->flags = IOSQE_IO_DRAIN;
	if (submit(r) || all_pending(r) || put(r->own_fd, 100, 1, 0) || wait_for(r, 2, "a barrier") || gives(r, 0, 100) ||
	    gives(r, 1, 0))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* Buffers that are chosen when bytes are there. */

static int buffer_of(const struct ring *r, unsigned int i)
{
	if (r->requests[i].flags & IORING_CQE_F_BUFFER)
		return r->requests[i].flags >> IORING_CQE_BUFFER_SHIFT;
	ktap_diag("request %u has no buffer: %d", i, r->requests[i].result);
	return -1;
}

/*
 * From a ring of buffers io_uring (6.12) takes one only when a file's read ends at once, where it can be polled as well; of one
 * that is under way it would give the buffer to others. Workers take it beforehand.
 */
static int selected(struct ring *r, unsigned int count, int flags)
{
	struct io_uring_sqe *sqe;
	bool used[16] = { false };
	int b;

	for (unsigned int i = 0; i < count; i++) {
		/* Half of them wait. */
		if (!(i & 1) && put(r->own_fd, PIECE + i, i, 0))
			return -1;
		sqe = prepare(r, 0, IORING_OP_READ, NULL, i % 3 ? 0 : 1000);
		sqe->flags = IOSQE_BUFFER_SELECT | flags;
		sqe->buf_group = 7;
		if (submit(r) || (i & 1 && (all_pending(r) || put(r->own_fd, PIECE + i, i, 0))) || wait_for(r, 1, "a read") ||
		    gives(r, 0, PIECE + i))
			return -1;
		b = buffer_of(r, 0);
		if (b < 0 || b >= (int)count || used[b] || fifo_verify(memory + b * 1024, PIECE + i, i, 0)) {
			ktap_diag("buffer %d", b);
			return -1;
		}
		used[b] = true;
	}
	/* None is left. */
	sqe = prepare(r, 0, IORING_OP_READ, NULL, 0);
	sqe->flags = IOSQE_BUFFER_SELECT | flags;
	sqe->buf_group = 7;
	return submit(r) || wait_for(r, 1, "a read without a buffer") || gives(r, 0, -ENOBUFS);
}

static int provided(void)
{
	struct io_uring_sqe *sqe;
	struct ring *r = &ring;

	if (ring_init(r, &plain))
		return KTAP_FAIL;
	sqe = prepare(r, 0, IORING_OP_PROVIDE_BUFFERS, memory, 1024);
	sqe->fd = 16;
	sqe->off = 0;
	sqe->buf_group = 7;
	if (submit(r) || wait_for(r, 1, "buffers") || gives(r, 0, 0) || selected(r, 16, 0))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* A ring of them. */
static struct io_uring_buf_ring *buffer_ring(struct ring *r, unsigned int entries)
{
	struct io_uring_buf_ring *br = mmap(NULL, FIFO_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct io_uring_buf_reg reg = { .ring_addr = (uintptr_t)br, .ring_entries = entries, .bgid = 7 };
	int err = br == MAP_FAILED ? -ENOMEM : io_uring_register_buf_ring(&r->ring, &reg, 0);

	if (err) {
		ktap_diag("io_uring_register_buf_ring: %s", strerror(-err));
		return NULL;
	}
	io_uring_buf_ring_init(br);
	return br;
}

static void buffer_add(struct io_uring_buf_ring *br, unsigned int entries, unsigned int b)
{
	io_uring_buf_ring_add(br, memory + b * 1024, 1024, b, io_uring_buf_ring_mask(entries), 0);
	io_uring_buf_ring_advance(br, 1);
}

static int provided_ring(void)
{
	struct io_uring_buf_ring *br;
	struct ring *r = &ring;

	if (ring_init(r, &plain))
		return KTAP_FAIL;
	br = buffer_ring(r, 16);
	if (!br)
		return KTAP_FAIL;
	for (unsigned int b = 0; b < 16; b++)
		buffer_add(br, 16, b);
	return selected(r, 16, IOSQE_ASYNC) ? KTAP_FAIL : KTAP_PASS;
}

/* One request, an event and a buffer each time that there are bytes. */
static int read_multishot(void)
{
	struct io_uring_probe *probe = io_uring_get_probe();
	struct io_uring_buf_ring *br;
	struct io_uring_sqe *sqe;
	struct ring *r = &ring;
	uint64_t at = 0, put_at = 0;
	struct fifo_rng rng = fifo_rng(300);
	bool ended = false;

	if (!probe || !io_uring_opcode_supported(probe, OP_READ_MULTISHOT))
		return ktap_skip("this kernel has no multishot read");
	io_uring_free_probe(probe);
	if (ring_init(r, &plain))
		return KTAP_FAIL;
	br = buffer_ring(r, 16);
	if (!br)
		return KTAP_FAIL;
	for (unsigned int b = 0; b < 16; b++)
		buffer_add(br, 16, b);
	sqe = prepare(r, 0, OP_READ_MULTISHOT, NULL, 0);
	sqe->flags = IOSQE_BUFFER_SELECT;
	sqe->buf_group = 7;
	if (submit(r) || all_pending(r))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < 300; i++) {
		size_t len = fifo_between(&rng, 1, 8000);

		if (put(r->own_fd, len, 1, put_at))
			return KTAP_FAIL;
		put_at += len;
		while (at < put_at) {
			int b;

			if (wait_for(r, 1, "bytes") || r->requests[0].result <= 0)
				return ktap_fail("multishot read: %d", r->requests[0].result);
			b = buffer_of(r, 0);
			if (b < 0 || b >= 16 || fifo_verify(memory + b * 1024, r->requests[0].result, 1, at))
				return ktap_fail("event %u", i);
			at += r->requests[0].result;
			if (!r->requests[0].pending)
				return ktap_fail("multishot read ended at %llu", (unsigned long long)at);
			buffer_add(br, 16, b);
		}
	}
	if (all_pending(r) || fill_is(r->own_fd, 0))
		return KTAP_FAIL;
	/* Without buffers it ends, and leaves the rest where it is. */
	if (put(r->own_fd, 20 * 1024, 1, at))
		return KTAP_FAIL;
	for (put_at = at; !ended; ) {
		if (wait_for(r, 1, "the buffers' end"))
			return KTAP_FAIL;
		if (r->requests[0].result > 0) {
			int b = buffer_of(r, 0);

			if (b < 0 || b >= 16 || fifo_verify(memory + b * 1024, r->requests[0].result, 1, put_at))
				return KTAP_FAIL;
			put_at += r->requests[0].result;
		}
		ended = !r->requests[0].pending;
	}
	if (r->requests[0].result != -ENOBUFS || get(r->own_fd, at + 20 * 1024 - put_at, 1, put_at) || fill_is(r->own_fd, 0))
		return ktap_fail("it ended with %d", r->requests[0].result);
	/* And it can be cancelled. */
	buffer_add(br, 16, 0);
	sqe = prepare(r, 0, OP_READ_MULTISHOT, NULL, 0);
	sqe->flags = IOSQE_BUFFER_SELECT;
	sqe->buf_group = 7;
	if (submit(r) || all_pending(r) || cancel(r, 0, 1) || wait_for(r, 2, "a cancelled read") || gives(r, 1, 0) ||
	    gives(r, 0, -ECANCELED))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* Other requests. */

static int write_blocked(void *arg)
{
	const struct ring *r = arg;

	/* Through the file that it has from its parent. */
	fifo_fill(filling, 100, 1, r->depth);
	return FIFO_GIVES(write(r->own_fd, filling, 100), 100) ? KTAP_PASS : KTAP_FAIL;
}

static int fsync_requests(void)
{
	struct io_uring_sqe *sqe;
	struct ring *r = &ring;
	pid_t pid;

	if (ring_init(r, &plain))
		return KTAP_FAIL;
	prepare(r, 0, IORING_OP_FSYNC, NULL, 0)->off = 0;
	if (submit(r) || wait_for(r, 1, "fsync without a write") || gives(r, 0, 0) || put(r->own_fd, r->depth, 1, 0))
		return KTAP_FAIL;
	pid = fifo_fork(write_blocked, r);
	if (pid < 0 || fifo_wait_flight(0, "tx", 1, "a write that waits"))
		return KTAP_FAIL;
	prepare(r, 0, IORING_OP_FSYNC, NULL, 0)->off = 0;
	sqe = prepare(r, 1, IORING_OP_FSYNC, NULL, 0);
	sqe->off = 0;
	sqe->fsync_flags = IORING_FSYNC_DATASYNC;
	if (submit(r) || all_pending(r) || get(r->own_fd, r->depth, 1, 0) || wait_for(r, 2, "fsync") || gives(r, 0, 0) ||
	    gives(r, 1, 0))
		return KTAP_FAIL;
	if (fifo_reap_passed(pid, "a process that writes") || get(r->own_fd, 100, 1, r->depth))
		return KTAP_FAIL;
	/* One that is cancelled while it waits. */
	if (put(r->own_fd, r->depth, 1, 0))
		return KTAP_FAIL;
	pid = fifo_fork(write_blocked, r);
	if (pid < 0 || fifo_wait_flight(0, "tx", 1, "a write that waits"))
		return KTAP_FAIL;
	prepare(r, 0, IORING_OP_FSYNC, NULL, 0)->off = 0;
	if (submit(r) || all_pending(r) || cancel(r, 0, 1) || wait_for(r, 2, "a cancelled fsync"))
		return KTAP_FAIL;
	if (r->requests[0].result != -EINTR && r->requests[0].result != -ECANCELED)
		return ktap_fail("a cancelled fsync ends with %d", r->requests[0].result);
	if (get(r->own_fd, r->depth + 100, 1, 0))
		return KTAP_FAIL;
	return fifo_reap_passed(pid, "a process that writes") ? KTAP_FAIL : KTAP_PASS;
}

static struct io_uring_sqe *prepare_splice(struct ring *r, unsigned int i, int from, int to, unsigned int len)
{
	struct io_uring_sqe *sqe = prepare(r, i, IORING_OP_SPLICE, NULL, 0);

	io_uring_prep_splice(sqe, from, -1, to, -1, len, 0);
	sqe->user_data = i;
	return sqe;
}

static int splices(void)
{
	struct ring *r = &ring;
	int p[2];

	if (ring_init(r, &plain) || pipe2(p, O_CLOEXEC))
		return KTAP_FAIL;
	/* Out of a pipe, which has the bytes in pages of its own. */
	fifo_fill(memory, 10000, 1, 0);
	if (!FIFO_GIVES(write(p[1], memory, 10000), 10000))
		return KTAP_FAIL;
	prepare_splice(r, 0, p[0], r->fd, 10000);
	if (submit(r) || wait_for(r, 1, "splice into the FIFO") || gives(r, 0, 10000))
		return KTAP_FAIL;
	/* Into a pipe. */
	prepare_splice(r, 0, r->fd, p[1], 10000);
	if (submit(r) || wait_for(r, 1, "splice out of the FIFO"))
		return KTAP_FAIL;
	if (r->requests[0].result == -EINVAL)
		return get(r->own_fd, 10000, 1, 0) ? KTAP_FAIL : ktap_skip("this kernel has no splice out of character devices");
	if (gives(r, 0, 10000) || !FIFO_GIVES(read(p[0], draining, 10000), 10000) || fifo_verify(draining, 10000, 1, 0))
		return KTAP_FAIL;
	/* One that waits for bytes; and one that is taken back. */
	prepare_splice(r, 0, r->fd, p[1], 10000);
	if (submit(r) || all_pending(r) || put(r->own_fd, 100, 2, 0) || wait_for(r, 1, "a splice that waits") || gives(r, 0, 100))
		return KTAP_FAIL;
	if (!FIFO_GIVES(read(p[0], draining, 10000), 100) || fifo_verify(draining, 100, 2, 0))
		return KTAP_FAIL;
	prepare_splice(r, 0, r->fd, p[1], 10000);
	if (submit(r) || all_pending(r) || cancel(r, 0, 1) || wait_for(r, 2, "a cancelled splice"))
		return KTAP_FAIL;
	if (r->requests[0].result != -EINTR && r->requests[0].result != -ECANCELED)
		return ktap_fail("a cancelled splice ends with %d", r->requests[0].result);
	return put(r->own_fd, 100, 3, 0) || get(r->own_fd, 100, 3, 0) ? KTAP_FAIL : KTAP_PASS;
}

static int bad_requests(void)
{
	struct mode polled = { .name = "IOPOLL", .setup = IORING_SETUP_IOPOLL };
	struct mode all = { .name = "SUBMIT_ALL", .setup = IORING_SETUP_SUBMIT_ALL };
	struct ring *r = &ring;
	int reader = fifo_open(0, O_RDONLY), writer = fifo_open(0, O_WRONLY);
	uint8_t *p = mmap(NULL, 2 * FIFO_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *hole = p + FIFO_PAGE;
	struct iovec iov[2] = { { p, 100 }, { hole, 100 } };

	if (reader < 0 || writer < 0 || p == MAP_FAILED || munmap(hole, FIFO_PAGE) || ring_init(r, &all))
		return KTAP_FAIL;
	prepare_read(r, 0, memory, 1)->fd = writer;
	prepare_write(r, 1, memory, 1)->fd = reader;
	prepare_read(r, 2, memory, 1)->fd = -1;
	prepare_read(r, 3, memory, 1)->rw_flags = 0x40000000;
	prepare_write(r, 4, hole, 1);
	prepare(r, 5, IORING_OP_READV, (void *)(uintptr_t)8, 1);
	prepare(r, 6, IORING_OP_READV, memory, 1025);
	prepare(r, 7, IORING_OP_READ_FIXED, memory, 1);
	prepare(r, 8, IORING_OP_URING_CMD, NULL, 0)->off = 0;
	if (submit(r) || wait_for(r, 9, "bad requests"))
		return KTAP_FAIL;
	if (gives(r, 0, -EBADF) || gives(r, 1, -EBADF) || gives(r, 2, -EBADF) || gives(r, 3, -EOPNOTSUPP) ||
	    gives(r, 4, -EFAULT) || gives(r, 5, -EFAULT) || gives(r, 6, -EINVAL) || gives(r, 7, -EFAULT) ||
	    gives(r, 8, -EOPNOTSUPP))
		return KTAP_FAIL;
	/* Addresses: when there are bytes, and as far as they are good. */
	if (put(r->own_fd, 2 * FIFO_PAGE, 1, 0))
		return KTAP_FAIL;
	prepare_read(r, 0, hole, 10);
	if (submit(r) || wait_for(r, 1, "a bad address") || gives(r, 0, -EFAULT) || fill_is(r->own_fd, 2 * FIFO_PAGE))
		return KTAP_FAIL;
	prepare_read(r, 0, p, 2 * FIFO_PAGE);
	if (submit(r) || wait_for(r, 1, "a page and none") || gives(r, 0, FIFO_PAGE) || fifo_verify(p, FIFO_PAGE, 1, 0))
		return KTAP_FAIL;
	prepare(r, 0, IORING_OP_READV, iov, 2);
	if (submit(r) || wait_for(r, 1, "a vector and a hole") || gives(r, 0, 100) || fifo_verify(p, 100, 1, FIFO_PAGE) ||
	    get(r->own_fd, FIFO_PAGE - 100, 1, FIFO_PAGE + 100))
		return KTAP_FAIL;
	prepare_read(r, 0, hole, 10)->flags = IOSQE_ASYNC;
	if (put(r->own_fd, 10, 1, 0) || submit(r) || wait_for(r, 1, "a bad address of a worker's") || gives(r, 0, -EFAULT) ||
	    get(r->own_fd, 10, 1, 0))
		return KTAP_FAIL;
	/* There is nothing to poll for completions. */
	if (ring_init(&second, &polled))
		return KTAP_FAIL;
	prepare_read(&second, 0, memory, 10);
	if (submit(&second) || wait_for(&second, 1, "a polled read") || gives(&second, 0, -EOPNOTSUPP))
		return KTAP_FAIL;
	/* Positions are not looked at. */
	prepare_write(r, 0, memory, 100)->off = 12345;
	if (submit(r) || wait_for(r, 1, "a write somewhere") || gives(r, 0, 100))
		return KTAP_FAIL;
	prepare_read(r, 0, memory, 100)->off = 0;
	return submit(r) || wait_for(r, 1, "a read somewhere") || gives(r, 0, 100) ? KTAP_FAIL : KTAP_PASS;
}

/* Streams: records that are written whole, by many requests at once. */

#define STREAM_DEPTH	32
#define RECORD_MOST	2000
#define RECORDS_MOST	20000

struct stream {
	const struct mode *mode;
	unsigned int records;
	uint64_t writer;
	bool equal;		/* all records have PIPE_BUF / 8 bytes */
};

#define RECORD_EQUAL	512

static int stream_write(void *arg)
{
	const struct stream *s = arg;
	struct fifo_rng rng = fifo_rng(400 + s->writer);
	static unsigned int lens[STREAM_DEPTH];
	struct ring *r = &ring;

	if (ring_init(r, s->mode))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < s->records; i++) {
		unsigned int slot = i % STREAM_DEPTH;
		uint8_t *buf = memory + slot * FIFO_PAGE;

		while (r->requests[slot].pending) {
			if (wait_for(r, 1, "a record to be written"))
				return KTAP_FAIL;
		}
		if (i >= STREAM_DEPTH && gives(r, slot, lens[slot]))
			return KTAP_FAIL;
		lens[slot] = s->equal ? RECORD_EQUAL : fifo_between(&rng, sizeof(struct fifo_record), RECORD_MOST);
		fifo_record_make(buf, lens[slot], s->writer, i);
		prepare_write(r, slot, buf, lens[slot]);
		if (submit(r))
			return KTAP_FAIL;
	}
	return wait_for(r, r->pending, "the last records") ? KTAP_FAIL : KTAP_PASS;
}

/* Looks at a record that has come whole; seen is by number. */
static int record_seen(const uint8_t *buf, uint8_t *seen, unsigned int records)
{
	struct fifo_record h;

	if (fifo_record_header(buf, &h) || fifo_record_verify(&h, buf + sizeof(h), h.length - sizeof(h), 0))
		return -1;
	if (h.sequence >= records || __atomic_fetch_add(&seen[h.sequence], 1, __ATOMIC_RELAXED)) {
		ktap_diag("record %llu comes twice, or is none", (unsigned long long)h.sequence);
		return -1;
	}
	return 0;
}

/* Reads all records, one read at a time with room for many: where one ends is told by the records alone. */
static int stream_read(const struct stream *s)
{
	struct fifo_rng rng = fifo_rng(401 + s->writer);
	static uint8_t seen[RECORDS_MOST];
	unsigned int got = 0;
	size_t have = 0, at;
	struct ring *r = &ring;

	if (ring_init(r, s->mode))
		return -1;
	while (got < s->records) {
		prepare_read(r, 0, memory + have, fifo_between(&rng, 1, 3 * RECORD_MOST));
		if (submit(r) || wait_for(r, 1, "records"))
			return -1;
		if (r->requests[0].result <= 0) {
			ktap_diag("a read gives %d", r->requests[0].result);
			return -1;
		}
		have += r->requests[0].result;
		for (at = 0; have - at >= sizeof(struct fifo_record); got++) {
			struct fifo_record h;

			if (fifo_record_header(memory + at, &h))
				return -1;
			if (have - at < h.length)
				break;
			if (record_seen(memory + at, seen, s->records))
				return -1;
			at += h.length;
		}
		memmove(memory, memory + at, have - at);
		have -= at;
	}
	if (have) {
		ktap_diag("%zu bytes too many", have);
		return -1;
	}
	return 0;
}

static int stream_in(const struct mode *mode)
{
	struct stream s = { .mode = mode, .records = fifo_rounds(RECORDS_MOST) };
	pid_t pid = fifo_fork(stream_write, &s);
	int failed = stream_read(&s);

	return pid < 0 || fifo_reap_passed(pid, "the writer") || failed ? KTAP_FAIL : KTAP_PASS;
}

static int stream(void)
{
	return stream_in(&plain);
}

static int stream_async(void)
{
	return stream_in(&(struct mode){ .name = "from workers", .flags = IOSQE_ASYNC });
}

static int stream_fixed(void)
{
	return stream_in(&(struct mode){ .name = "fixed", .flags = IOSQE_FIXED_FILE, .fixed = true });
}

static int stream_sqpoll(void)
{
	return stream_in(&(struct mode){ .name = "SQPOLL", .setup = IORING_SETUP_SQPOLL });
}

static int stream_deferred(void)
{
	return stream_in(&(struct mode){ .name = "DEFER_TASKRUN",
					 .setup = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN });
}

/* Many rings in several processes: writers' records, of one length, go to whichever reader is first. */

#define READERS		3
#define WRITERS		2

struct shared {
	uint32_t got, done;
	unsigned int records;
	uint8_t seen[WRITERS][RECORDS_MOST];
};

static int rings_read(void *arg)
{
	struct shared *all = arg;
	struct ring *r = &ring;

	if (ring_init(r, &plain))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < 16; i++)
		prepare_read(r, i, memory + i * RECORD_EQUAL, RECORD_EQUAL);
	if (submit(r))
		return KTAP_FAIL;
	while (!__atomic_load_n(&all->done, __ATOMIC_ACQUIRE)) {
		struct __kernel_timespec a_while = { .tv_nsec = 2000000 };
		struct io_uring_cqe *cqe = NULL;
		unsigned int i;
		uint64_t writer;

		if (io_uring_wait_cqe_timeout(&r->ring, &cqe, &a_while) || !cqe)
			continue;
		i = cqe->user_data;
		if (note(r, cqe) || gives(r, i, RECORD_EQUAL))
			return KTAP_FAIL;
		writer = ((const struct fifo_record *)(memory + i * RECORD_EQUAL))->writer;
		if (writer >= WRITERS || record_seen(memory + i * RECORD_EQUAL, all->seen[writer], all->records))
			return KTAP_FAIL;
		if (__atomic_add_fetch(&all->got, 1, __ATOMIC_ACQ_REL) == WRITERS * all->records) {
			__atomic_store_n(&all->done, 1, __ATOMIC_RELEASE);
			fifo_futex_wake(&all->done);
		}
		prepare_read(r, i, memory + i * RECORD_EQUAL, RECORD_EQUAL);
		if (submit(r))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

static int many_rings(void)
{
	struct shared *all = fifo_shared(sizeof(*all));
	struct stream s = { .mode = &plain, .equal = true };
	pid_t readers[READERS], writers[WRITERS];
	int status = KTAP_PASS;

	if (!all)
		return ktap_fail("no memory");
	all->records = s.records = fifo_rounds(10000);
	for (unsigned int i = 0; i < READERS; i++)
		readers[i] = fifo_fork(rings_read, all);
	for (; s.writer < WRITERS; s.writer++)
		writers[s.writer] = fifo_fork(stream_write, &s);
	for (unsigned int i = 0; i < WRITERS; i++) {
		if (writers[i] < 0 || fifo_reap_within(writers[i], 6 * FIFO_WAIT_MS, "a writer"))
			status = ktap_fail("writer %u", i);
	}
	if (!status && fifo_futex_wait(&all->done, 0, "all records to be read"))
		status = ktap_fail("%u of %u records", all->got, WRITERS * all->records);
	__atomic_store_n(&all->done, 1, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < READERS; i++) {
		if (readers[i] < 0 || fifo_reap_passed(readers[i], "a reader"))
			status = KTAP_FAIL;
	}
	return status;
}

/* The end of rings and processes. */

static bool references_are(void *arg)
{
	return fifo_references() == *(long long *)arg;
}

/* A ring's requests are taken back after close, by a worker: each holds its file. */
static int ring_close(void)
{
	int fd = fifo_open(0, O_RDWR);
	long long references = fifo_references();
	struct ring *r = &ring;

	for (unsigned int i = 0; i < 2 * FIFO_ARRAY_SIZE(crowds); i++) {
		unsigned int n = crowds[i / 2];

		if (fd < 0 || ring_init(r, &plain))
			return KTAP_FAIL;
		for (unsigned int j = 0; j < n; j++)
			prepare_read(r, j, memory + j * PIECE, PIECE)->flags = i & 1 ? IOSQE_ASYNC : 0;
		if (submit(r) || all_pending(r))
			return KTAP_FAIL;
		close(r->own_fd);
		io_uring_queue_exit(&r->ring);
		if (fifo_until(references_are, &references, "the ring's requests to give their file back") ||
		    fifo_untouched(fd, memory, n * PIECE))
			return ktap_fail("%u requests", n);
	}
	return KTAP_PASS;
}

/* close of the FIFO's descriptor leaves requests alone that wait for poll: they hold the file, and go on. */
static int close_file(void)
{
	struct ring *r = &ring;
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0 || ring_init(r, &plain))
		return KTAP_FAIL;
	prepare_read(r, 0, memory, PIECE);
	if (submit(r) || all_pending(r))
		return KTAP_FAIL;
	close(r->own_fd);
	r->own_fd = fd;
	if (all_pending(r) || put(r->own_fd, PIECE, 1, 0) || wait_for(r, 1, "the read") || gives(r, 0, PIECE))
		return KTAP_FAIL;
	return fifo_verify(memory, PIECE, 1, 0) ? KTAP_FAIL : KTAP_PASS;
}

static int doomed_begin(const struct doomed *d)
{
	int flags = d->kind & 2 ? IOSQE_ASYNC : 0;
	struct ring *r = &ring;

	if (ring_init(r, &plain) || (d->writes && put(r->own_fd, r->depth, 1, 0)))
		return -1;
	for (unsigned int i = 0; i < d->n; i++) {
		if (d->writes)
			prepare_write(r, i, d->buf + i * PIECE, PIECE)->flags = flags;
		else
			prepare_read(r, i, d->buf + i * PIECE, PIECE)->flags = flags;
	}
	return submit(r) || all_pending(r);
}

static int exit_pending(void)
{
	return process_ends(doomed_begin, 4, EXIT);
}

static int kill_pending(void)
{
	return process_ends(doomed_begin, 4, KILL);
}

static int exec_pending(void)
{
	return process_ends(doomed_begin, 4, EXEC);
}

static int busy_begin(const struct doomed *d)
{
	struct ring *r = &ring;

	if (ring_init(r, &plain))
		return -1;
	fifo_gate_open(d->ready, 1);
	for (unsigned int i = 0; ; i = (i + 1) % d->n) {
		struct io_uring_cqe *cqe;

		if (!r->requests[i].pending) {
			if (i & 1)
				prepare_write(r, i, d->buf + i * PIECE, PIECE);
			else
				prepare_read(r, i, d->buf + i * PIECE, PIECE);
			if (submit(r))
				return -1;
		}
		while (!io_uring_peek_cqe(&r->ring, &cqe)) {
			if (note(r, cqe))
				return -1;
		}
	}
}

static int kill_busy(void)
{
	return busy_ends(busy_begin, 32);
}

/* Requests that the driver has accepted, in a device that has stopped to work. */

struct stalled {
	uint8_t *buf;		/* shared */
	int go, ready;		/* gates */
};

static int stalled_run(void *arg)
{
	struct stalled *s = arg;
	struct ring *r = &ring;

	if (ring_init(r, &plain) || fifo_gate_pass(s->go, "the device to be stalled"))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < 16; i++)
		prepare_read(r, i, s->buf + i * PIECE, PIECE);
	if (submit(r) || fifo_wait_flight(0, "rx", 16, "reads in the device"))
		return KTAP_FAIL;
	fifo_gate_open(s->ready, 1);
	for (;;)
		pause();
}

static int kill_stalled(void)
{
	struct stalled s = { .buf = fifo_shared(16 * PIECE), .go = fifo_gate(), .ready = fifo_gate() };
	int fd = fifo_open(0, O_RDWR);
	pid_t pid;

	if (!ktap_has_host())
		return ktap_skip("no host that could stall the device");
	if (!s.buf || fd < 0)
		return KTAP_FAIL;
	pid = fifo_fork(stalled_run, &s);
	fifo_fill(filling, 16 * PIECE, 1, 0);
	if (pid < 0 || fifo_write_all(fd, filling, 16 * PIECE) || ktap_host(NULL, 0, "fault device:stall"))
		return KTAP_FAIL;
	fifo_gate_open(s.go, 1);
	if (fifo_gate_pass(s.ready, "reads in a stalled device"))
		return KTAP_FAIL;
	kill(pid, SIGKILL);
	if (fifo_reap(pid, "a child with reads in a stalled device") != SIGKILL)
		return KTAP_FAIL;
	/* Some bytes may be with the dead. */
	memset(s.buf, 0x5a, 16 * PIECE);
	if (revive(fd) || fifo_untouched(fd, s.buf, 16 * PIECE))
		return KTAP_FAIL;
	return ktap_host(NULL, 0, "clear") ? KTAP_FAIL : KTAP_PASS;
}

int main(int argc, char **argv)
{
	static const struct ktap_check checks[] = {
		{ "plain", mode_plain },
		{ "async", mode_async },
		{ "registered_file", mode_file },
		{ "fixed_buffer", mode_buffer },
		{ "fixed_async", mode_buffer_file_async },
		{ "sqpoll", mode_sqpoll },
		{ "sqpoll_fixed", mode_sqpoll_fixed },
		{ "cooperative", mode_cooperative },
		{ "deferred", mode_deferred },
		{ "vectors", vectors },
		{ "vector_waits", vector_waits },
		{ "fixed_kinds", fixed_kinds },
		{ "unregister", unregister },
		{ "nowait", nowait },
		{ "nonblock", nonblock },
		{ "poll", poll_requests },
		{ "cancel_all", cancel_all },
		{ "cancel_race", cancel_race },
		{ "links", links },
		{ "provided", provided },
		{ "provided_ring", provided_ring },
		{ "read_multishot", read_multishot },
		{ "fsync", fsync_requests },
		{ "splice", splices },
		{ "bad_requests", bad_requests },
		{ "stream", stream },
		{ "stream_async", stream_async },
		{ "stream_fixed", stream_fixed },
		{ "stream_sqpoll", stream_sqpoll },
		{ "stream_deferred", stream_deferred },
		{ "many_rings", many_rings },
		{ "ring_close", ring_close },
		{ "close_file", close_file },
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
