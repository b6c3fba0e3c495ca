// SPDX-License-Identifier: MIT
/*
 * fifo_io - reads, writes and waiting on /dev/fifoN by the calls that block
 *
 * What they are to do is in docs/driver.md, "What the files do".
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/utsname.h>

#include "fifo.h"

/* Newer than Debian 12's headers. */
#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND	0x20	/* Linux 6.9 */
#endif

#define MIB	(1u << 20)

/* Memory of its own pages, with a page on either side that nobody may touch. */
static uint8_t *pages(size_t len)
{
	size_t size = (len + FIFO_PAGE - 1) / FIFO_PAGE * FIFO_PAGE;
	uint8_t *p = mmap(NULL, size + 2 * FIFO_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || mprotect(p + FIFO_PAGE, size, PROT_READ | PROT_WRITE)) {
		ktap_diag("%zu bytes of memory: %s", len, strerror(errno));
		_exit(KTAP_FAIL);
	}
	return p + FIFO_PAGE;
}

static void free_pages(uint8_t *p, size_t len)
{
	munmap(p - FIFO_PAGE, (len + FIFO_PAGE - 1) / FIFO_PAGE * FIFO_PAGE + 2 * FIFO_PAGE);
}

/* Opens a channel, or ends the check. */
static int opened(int channel, int flags)
{
	int fd = fifo_open(channel, flags);

	if (fd < 0)
		_exit(KTAP_FAIL);
	return fd;
}

static unsigned int depth_of(int fd)
{
	return fifo_info(fd).depth;
}

/* What a process at the other end does. */
struct transfer {
	int fd;
	size_t len;
	size_t piece;		/* bytes a call at most; 0: len */
	uint64_t stream;
	int gate;		/* opened before each piece but the first; 0: none */
};

/* Writes the stream; each write has to take all that it is given. */
static int sender(void *arg)
{
	const struct transfer *t = arg;
	size_t piece = t->piece && t->piece < t->len ? t->piece : t->len;
	uint8_t *buf = pages(piece);

	for (size_t done = 0; done < t->len; done += piece) {
		ssize_t n;

		if (piece > t->len - done)
			piece = t->len - done;
		fifo_fill(buf, piece, t->stream, done);
		n = write(t->fd, buf, piece);
		if (n != (ssize_t)piece)
			return ktap_fail("write of %zu bytes, %zu done: %zd, %s", piece, done, n, strerror(errno));
	}
	return KTAP_PASS;
}

/* Reads the stream, as much as there is each time. */
static int receiver(void *arg)
{
	const struct transfer *t = arg;
	size_t piece = t->piece ? t->piece : t->len;
	uint8_t *buf = pages(piece);

	for (size_t done = 0; done < t->len; ) {
		size_t want = piece < t->len - done ? piece : t->len - done;
		ssize_t n = read(t->fd, buf, want);

		if (n <= 0 || (size_t)n > want)
			return ktap_fail("read of %zu bytes, %zu done: %zd, %s", want, done, n, strerror(errno));
		if (fifo_verify(buf, n, t->stream, done))
			return KTAP_FAIL;
		done += n;
	}
	return KTAP_PASS;
}

/* Waits until n requests of channel 0's ring are in flight; 0 if they are. */
static int in_flight(const char *ring, long long n)
{
	return fifo_wait_flight(0, ring, n, "requests to be in flight");
}

/* A process that runs fn(arg), and blocks in the system call there; -1 if it does not. */
static pid_t blocking(int (*fn)(void *arg), void *arg, long call)
{
	pid_t pid = fifo_fork(fn, arg);

	return pid < 0 || fifo_blocked(pid, call, "a call to block") ? -1 : pid;
}

/* A stream from another process to this one. */
static int through(int fd, size_t len, size_t written, size_t read, uint64_t stream)
{
	struct transfer to = { .fd = fd, .len = len, .piece = written, .stream = stream };
	struct transfer from = { .fd = fd, .len = len, .piece = read, .stream = stream };
	pid_t writer = fifo_fork(sender, &to), reader = fifo_fork(receiver, &from);
	int failed = 0;

	if (writer < 0 || reader < 0)
		return -1;
	failed |= fifo_reap_passed(reader, "the reader");
	failed |= fifo_reap_passed(writer, "the writer");
	if (failed)
		ktap_diag("%zu bytes, written by %zu, read by %zu", len, written, read);
	return failed;
}

/* A write or read without waiting: by O_NONBLOCK or by RWF_NOWAIT. */
static ssize_t write_now(int fd, const void *buf, size_t len)
{
	struct iovec v = { (void *)buf, len };

	return fcntl(fd, F_GETFL) & O_NONBLOCK ? write(fd, buf, len) : pwritev2(fd, &v, 1, -1, RWF_NOWAIT);
}

static ssize_t read_now(int fd, void *buf, size_t len)
{
	struct iovec v = { buf, len };

	return fcntl(fd, F_GETFL) & O_NONBLOCK ? read(fd, buf, len) : preadv2(fd, &v, 1, -1, RWF_NOWAIT);
}

/* Takes out what is there, without waiting; the bytes, or -1. */
static ssize_t drain(int fd, uint64_t stream, uint64_t at)
{
	struct iovec v = { .iov_len = MIB };
	ssize_t n, done = 0;

	v.iov_base = pages(v.iov_len);
	while ((n = preadv2(fd, &v, 1, -1, RWF_NOWAIT)) > 0) {
		if (fifo_verify(v.iov_base, n, stream, at + done))
			return -1;
		done += n;
	}
	free_pages(v.iov_base, v.iov_len);
	if (n == 0 || errno != EAGAIN) {
		ktap_diag("read without waiting: %zd, %s", n, strerror(errno));
		return -1;
	}
	return done;
}

/*
 * Reads len bytes that are there. It takes one call, but for a ring of so few
 * entries that a request can't have them all.
 */
static bool get_by(ssize_t (*call)(int fd, void *buf, size_t len), int fd, uint8_t *buf, size_t len)
{
	size_t pages_of = ((uintptr_t)buf % FIFO_PAGE + len + FIFO_PAGE - 1) / FIFO_PAGE;
	bool few = pages_of > fifo_info(fd).max_segments;

	do {
		ssize_t n = call(fd, buf, len);

		if (n <= 0 || (size_t)n > len || ((size_t)n < len && !few)) {
			ktap_diag("read of %zu bytes that are there: %zd, %s", len, n, strerror(errno));
			return false;
		}
		buf += n;
		len -= n;
	} while (len);
	return true;
}

static bool get(int fd, uint8_t *buf, size_t len)
{
	return get_by(read, fd, buf, len);
}

/* Puts bytes from..from+len-1 of the stream into the FIFO, which has room. */
static int put(int fd, size_t len, uint64_t stream, uint64_t from)
{
	uint8_t *buf = pages(len);
	int err;

	fifo_fill(buf, len, stream, from);
	err = fifo_write_all(fd, buf, len);
	free_pages(buf, len);
	return err;
}

/* Round trips. */

/* All sizes to 70, then around powers of two and of pages, up to 4 MiB. */
static int sizes(void)
{
	int fd = opened(0, O_RDWR);
	unsigned int depth = depth_of(fd);
	uint8_t *buf = pages(depth);
	uint64_t stream = 100;

	for (size_t len = 1; len <= 70; len++) {
		if (fifo_round_trip(fd, buf, len, stream++))
			return ktap_fail("%zu bytes", len);
	}
	for (size_t edge = 128; edge <= 4 * MIB; edge *= 2) {
		for (size_t len = edge - 1; len <= edge + 1 && len <= 4 * MIB; len++) {
			if (len <= depth ? fifo_round_trip(fd, buf, len, stream++) :
					   through(fd, len, 0, 0, stream++))
				return ktap_fail("%zu bytes", len);
		}
	}
	for (size_t edge = FIFO_PAGE; edge <= depth; edge += FIFO_PAGE) {
		/* From one end of a page, and to the other. */
		for (size_t len = edge - 2; len <= edge + 2 && len <= depth; len++) {
			if (fifo_round_trip(fd, buf, len, stream++))
				return ktap_fail("%zu bytes", len);
		}
	}
	return KTAP_PASS;
}

/* A write of more than the driver's largest request, and odd sizes at both ends. */
static int large(void)
{
	int fd = opened(0, O_RDWR);

	if (through(fd, 17 * MIB + 4321, 0, 0, 1) || through(fd, 3 * MIB + 5, 99991, 12345, 2) ||
	    through(fd, 20000, 7, 0, 3) || through(fd, 20000, 0, 7, 4))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* Every byte of alignment at the start and the end of both buffers, and nothing around them changes. */
static int alignments(void)
{
	enum { AROUND = 64 };
	bool full = kernel_word("fifovm.long", NULL, 0);
	int fd = opened(0, O_RDWR);
	uint8_t *from = pages(3 * FIFO_PAGE), *to = pages(3 * FIFO_PAGE);

	for (unsigned int start = 0; start < 64; start++) {
		for (unsigned int i = 0; i < (full ? 64 : 8); i++) {
			unsigned int end = full ? i : (start * 5 + i * 9) % 64;
			/* Every other one crosses into the next page. */
			unsigned int page = i % 2 ? FIFO_PAGE - 64 : 128;
			unsigned int len = 128 + end - start;
			uint8_t *src = from + page + start, *dst = to + page + 63 - start;

			memset(to, 0xa5, 3 * FIFO_PAGE);
			fifo_fill(src, len, start, end);
			if (!FIFO_GIVES(write(fd, src, len), len) || !get(fd, dst, len) ||
			    fifo_verify(dst, len, start, end))
				return ktap_fail("%u bytes from %p to %p", len, src, dst);
			if (!fifo_all(dst - AROUND, 0xa5, AROUND) || !fifo_all(dst + len, 0xa5, AROUND))
				return ktap_fail("%u bytes to %p: those around have changed", len, dst);
		}
	}
	return KTAP_PASS;
}

/* A read gives what is there, not more than it has room for, and leaves the rest. */
static int short_reads(void)
{
	int fd = opened(0, O_RDWR);
	uint8_t *buf = pages(2 * FIFO_PAGE);

	if (put(fd, 5000, 1, 0))
		return KTAP_FAIL;
	memset(buf, 0xa5, 2 * FIFO_PAGE);
	if (!FIFO_GIVES(read(fd, buf, 1), 1) || fifo_verify(buf, 1, 1, 0) ||
	    !FIFO_GIVES(read(fd, buf, 999), 999) || fifo_verify(buf, 999, 1, 1) ||
	    !FIFO_GIVES(read(fd, buf, 2 * FIFO_PAGE), 4000) || fifo_verify(buf, 4000, 1, 1000))
		return KTAP_FAIL;
	if (!fifo_all(buf + 4000, 0xa5, 2 * FIFO_PAGE - 4000))
		return ktap_fail("bytes behind those that were read have changed");
	return KTAP_PASS;
}

/* Many writes come out in order, with other edges than they went in with. */
static int order(void)
{
	int fd = opened(0, O_RDWR);
	struct fifo_rng rng = fifo_rng(1);
	unsigned int depth = depth_of(fd), in = 0, out = 0;
	uint8_t *buf = pages(depth);

	for (unsigned int i = 0; i < 300; i++) {
		size_t room = depth - (in - out), len = fifo_between(&rng, 1, 700);

		if (len <= room && put(fd, len, 5, in))
			return KTAP_FAIL;
		in += len <= room ? len : 0;
		len = fifo_below(&rng, in - out + 1);
		if (len && (!FIFO_GIVES(read(fd, buf, len), len) || fifo_verify(buf, len, 5, out)))
			return KTAP_FAIL;
		out += len;
	}
	return drain(fd, 5, out) == in - out ? KTAP_PASS : ktap_fail("%u bytes in, not so many out", in);
}

/* Nothing to do is done at once, whatever state the FIFO is in, and moves nothing. */
static int zero_length(void)
{
	int fd = opened(0, O_RDWR);
	unsigned int depth = depth_of(fd);
	char byte = 0;
	struct iovec empty[3] = { { NULL, 0 }, { &byte, 0 }, { &byte, 0 } };

	for (int i = 0; i < 3; i++) {
		if (!FIFO_GIVES(read(fd, &byte, 0), 0) || !FIFO_GIVES(write(fd, &byte, 0), 0) ||
		    !FIFO_GIVES(read(fd, NULL, 0), 0) || !FIFO_GIVES(write(fd, NULL, 0), 0) ||
		    !FIFO_GIVES(readv(fd, empty, 3), 0) || !FIFO_GIVES(writev(fd, empty, 3), 0) ||
		    !FIFO_GIVES(readv(fd, empty, 0), 0) || !FIFO_GIVES(writev(fd, empty, 0), 0) ||
		    !FIFO_GIVES(preadv2(fd, empty, 3, -1, RWF_NOWAIT), 0) ||
		    !FIFO_GIVES(pwritev2(fd, empty, 3, -1, RWF_NOWAIT), 0))
			return ktap_fail("with %u bytes in the FIFO", fifo_info(fd).fill);
		/* Empty, then some, then full. */
		if (i < 2 && put(fd, i ? depth - 10 : 10, 1, i ? 10 : 0))
			return KTAP_FAIL;
	}
	return drain(fd, 1, 0) == depth ? KTAP_PASS : KTAP_FAIL;
}

/* Vectors. */

enum shape {
	BYTES,		/* single bytes, apart from each other */
	PAGES,		/* across the edge of a page each, at most one page long */
	EMPTY,		/* two of three are empty */
	MIXED,
	SHAPES,
};

/*
 * Lays out n segments for at most limit bytes in all; returns how many. mem has
 * four pages a segment at most.
 */
static size_t lay_out(struct iovec *v, int n, enum shape shape, uint8_t *mem, struct fifo_rng *rng, size_t limit)
{
	size_t total = 0;

	for (int i = 0; i < n; i++) {
		size_t len = 1, skip = 1 + fifo_below(rng, 40);

		switch (shape) {
		case PAGES:
			len = fifo_between(rng, 2, FIFO_PAGE);
			skip = FIFO_PAGE - (uintptr_t)mem % FIFO_PAGE + FIFO_PAGE - fifo_between(rng, 1, len - 1);
			break;
		case EMPTY:
			len = i % 3 == 1 ? fifo_between(rng, 1, 100) : 0;
			break;
		case MIXED:
			len = fifo_below(rng, 8) ? fifo_below(rng, 65) : fifo_below(rng, 6000);
			break;
		default:
			break;
		}
		if (len > limit - total)
			len = limit - total;
		mem += skip;
		v[i] = (struct iovec){ mem, len };
		mem += len;
		total += len;
	}
	return total;
}

static void fill_vector(const struct iovec *v, int n, uint64_t stream)
{
	for (size_t i = 0, at = 0; (int)i < n; at += v[i++].iov_len)
		fifo_fill(v[i].iov_base, v[i].iov_len, stream, at);
}

/* Looks at the first len bytes of the vector, which begin at the at-th of the stream. */
static int verify_vector(const struct iovec *v, int n, size_t len, uint64_t stream, uint64_t at)
{
	for (int i = 0; i < n && len; i++) {
		size_t part = v[i].iov_len < len ? v[i].iov_len : len;

		if (fifo_verify(v[i].iov_base, part, stream, at)) {
			ktap_diag("in segment %d of %d", i, n);
			return -1;
		}
		at += part;
		len -= part;
	}
	return len ? -1 : 0;
}

/* Takes the first len bytes off the vector. */
static int advance(struct iovec **v, int n, size_t len)
{
	while (n && len >= (*v)->iov_len) {
		len -= (*v)->iov_len;
		(*v)++;
		n--;
	}
	if (n) {
		(*v)->iov_base = (uint8_t *)(*v)->iov_base + len;
		(*v)->iov_len -= len;
	}
	return n;
}

/* A page is at most two pieces of a segment; a segment without bytes is none. */
static size_t pieces(const struct iovec *v, int n)
{
	size_t sum = 0;

	for (int i = 0; i < n; i++) {
		uintptr_t first = (uintptr_t)v[i].iov_base / FIFO_PAGE;

		if (v[i].iov_len)
			sum += ((uintptr_t)v[i].iov_base + v[i].iov_len - 1) / FIFO_PAGE - first + 1;
	}
	return sum;
}

static int vector(int fd, int n, enum shape shape, uint64_t stream)
{
	static struct iovec out[IOV_MAX], in[IOV_MAX];
	const struct fifo_aio_info info = fifo_info(fd);
	struct fifo_rng rng = fifo_rng(stream);
	size_t size = (size_t)n * 3 * FIFO_PAGE + FIFO_PAGE;
	uint8_t *from = pages(size), *to = pages(size);
	size_t total = lay_out(out, n, shape, from, &rng, info.depth), done = 0;
	struct iovec *left = in;
	int segments = n;

	/* The same sum by other segments. */
	if (lay_out(in, n, shape, to, &rng, total) < total)
		in[n - 1].iov_len += total - lay_out(in, n, shape, to, &rng, total);
	fill_vector(out, n, stream);
	if (!FIFO_GIVES(writev(fd, out, n), (ssize_t)total))
		return -1;
	do {
		size_t want = total - done;
		ssize_t got = readv(fd, left, segments);

		if (got <= 0 && total) {
			ktap_diag("readv: %zd, %s", got, strerror(errno));
			return -1;
		}
		/* It may be short only if it has more pieces than a request takes. */
		if ((size_t)got > want || ((size_t)got < want && pieces(left, segments) <= info.max_segments)) {
			ktap_diag("readv: %zd of %zu bytes", got, want);
			return -1;
		}
		if (verify_vector(left, segments, got, stream, done))
			return -1;
		done += got;
		segments = advance(&left, segments, got);
	} while (done < total);
	free_pages(from, size);
	free_pages(to, size);
	return 0;
}

static int vectors(void)
{
	static const int counts[] = { 1, 2, 3, 7, 8, 9, 31, 63, 64, 65, 127, 128, 255, 256, 257, 511, 512, 1023, 1024 };
	int fd = opened(0, O_RDWR);

	for (size_t i = 0; i < FIFO_ARRAY_SIZE(counts); i++) {
		for (enum shape shape = 0; shape < SHAPES; shape++) {
			if (vector(fd, counts[i], shape, counts[i] * 10 + shape))
				return ktap_fail("%d segments of shape %d", counts[i], shape);
		}
	}
	return KTAP_PASS;
}

/* What the vector's length and its segments' may be. */
static int vector_limits(void)
{
	static struct iovec v[IOV_MAX + 1];
	int fd = opened(0, O_RDWR);
	char byte = 0;

	for (int i = 0; i <= IOV_MAX; i++)
		v[i] = (struct iovec){ &byte, 0 };
	v[IOV_MAX - 1].iov_len = 1;
	if (!FIFO_GIVES(writev(fd, v, IOV_MAX), 1) || !FIFO_GIVES(readv(fd, v, IOV_MAX), 1) ||
	    !FIFO_FAILS(writev(fd, v, IOV_MAX + 1), EINVAL) || !FIFO_FAILS(readv(fd, v, IOV_MAX + 1), EINVAL) ||
	    !FIFO_FAILS(syscall(SYS_writev, fd, v, -1L), EINVAL) ||
	    !FIFO_FAILS(syscall(SYS_readv, fd, v, -1L), EINVAL) ||
	    !FIFO_FAILS(syscall(SYS_writev, fd, 1L, 1L), EFAULT) ||
	    !FIFO_FAILS(syscall(SYS_readv, fd, 1L, 1L), EFAULT))
		return KTAP_FAIL;
	v[0].iov_len = -1;
	if (!FIFO_FAILS(writev(fd, v, 1), EINVAL) || !FIFO_FAILS(readv(fd, v, 1), EINVAL))
		return KTAP_FAIL;
	return fifo_info(fd).fill ? ktap_fail("a call that failed has written") : KTAP_PASS;
}

/*
 * A vector that does not fit is short, and goes on where it stopped: in the
 * midst of a segment, at its end, before an empty one.
 */
static int vector_progress(void)
{
	static struct iovec v[101];
	int fd = opened(0, O_RDWR | O_NONBLOCK), n = FIFO_ARRAY_SIZE(v);
	unsigned int depth = depth_of(fd), done = 0, out = 0;
	size_t total = depth + depth / 2, each = total / 50, room = depth;
	uint8_t *from = pages(total + 101), *to = pages(depth);
	static const size_t taken[] = { 1, 4096, 4097, 5000, 20000 };
	struct iovec *left = v;

	/* Every other one is empty. */
	for (int i = 0; i < n; i++) {
		v[i] = (struct iovec){ from + i / 2 * (each + 1), i % 2 ? each : 0 };
		fifo_fill(v[i].iov_base, v[i].iov_len, 1, i / 2 * each);
	}
	v[n - 1] = (struct iovec){ from + 50 * (each + 1), total - 50 * each };
	fifo_fill(v[n - 1].iov_base, v[n - 1].iov_len, 1, 50 * each);
	for (size_t i = 0; done < total; i++) {
		size_t want = room < total - done ? room : total - done, take;

		if (!FIFO_GIVES(writev(fd, left, n), (ssize_t)want))
			return ktap_fail("after %u of %zu bytes, with room for %zu", done, total, room);
		n = advance(&left, n, want);
		done += want;
		/* Room for less than PIPE_BUF is taken too, since more is left than that. */
		take = taken[i % FIFO_ARRAY_SIZE(taken)];
		if (take > done - out)
			take = done - out;
		if (!get(fd, to, take) || fifo_verify(to, take, 1, out))
			return KTAP_FAIL;
		out += take;
		room = depth - (done - out);
		if (total - done <= PIPE_BUF && room < total - done) {
			if (!FIFO_FAILS(writev(fd, left, n), EAGAIN))
				return KTAP_FAIL;
			take = total - done - room;
			if (!get(fd, to, take) || fifo_verify(to, take, 1, out))
				return KTAP_FAIL;
			out += take;
			room += take;
		}
	}
	return drain(fd, 1, out) == (ssize_t)total - out ? KTAP_PASS : KTAP_FAIL;
}

/* Flags and positions. */

static int rw_flags(void)
{
	static const int good[] = { 0, RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_DSYNC | RWF_SYNC, RWF_NOWAIT, RWF_APPEND,
				    RWF_NOWAIT | RWF_DSYNC };
	static const int bad[] = { 1 << 12, 1 << 30, INT_MIN, RWF_NOWAIT | 1 << 20 };
	int fd = opened(0, O_RDWR), n;
	char out[100], in[100];
	struct iovec w = { out, sizeof(out) }, r = { in, sizeof(in) };

	for (size_t i = 0; i < FIFO_ARRAY_SIZE(good); i++) {
		fifo_fill(out, sizeof(out), 1, i);
		if (!FIFO_GIVES(pwritev2(fd, &w, 1, -1, good[i]), 100) ||
		    !FIFO_GIVES(preadv2(fd, &r, 1, -1, good[i]), 100) || fifo_verify(in, sizeof(in), 1, i))
			return ktap_fail("flags %#x", good[i]);
	}
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(bad); i++) {
		if (!FIFO_FAILS(pwritev2(fd, &w, 1, -1, bad[i]), EOPNOTSUPP) ||
		    !FIFO_FAILS(preadv2(fd, &r, 1, -1, bad[i]), EOPNOTSUPP))
			return ktap_fail("flags %#x", bad[i]);
	}
	/* Where the kernel has it, it means nothing here. */
	n = pwritev2(fd, &w, 1, -1, RWF_NOAPPEND);
	if (n < 0 ? errno != EOPNOTSUPP : n != 100 || read(fd, in, 100) != 100)
		return ktap_fail("RWF_NOAPPEND: %d, %s", n, strerror(errno));
	/* Nothing that was refused has been done. */
	return fifo_info(fd).fill ? ktap_fail("a call that failed has written") : KTAP_PASS;
}

static int positions(void)
{
	int fd = opened(0, O_RDWR);
	char buf[8] = { 0 }, path[64], text[512];
	struct iovec v = { buf, sizeof(buf) };

	for (int whence = SEEK_SET; whence <= SEEK_HOLE; whence++) {
		if (!FIFO_FAILS(lseek(fd, 0, whence), ESPIPE))
			return KTAP_FAIL;
	}
	if (!FIFO_FAILS(pread(fd, buf, 8, 0), ESPIPE) || !FIFO_FAILS(pwrite(fd, buf, 8, 0), ESPIPE) ||
	    !FIFO_FAILS(preadv(fd, &v, 1, 0), ESPIPE) || !FIFO_FAILS(pwritev(fd, &v, 1, 0), ESPIPE) ||
	    !FIFO_FAILS(preadv2(fd, &v, 1, 5, 0), ESPIPE) || !FIFO_FAILS(pwritev2(fd, &v, 1, 5, 0), ESPIPE))
		return KTAP_FAIL;
	if (fifo_info(fd).fill)
		return ktap_fail("a call that failed has written");
	/* What goes through moves none. */
	if (!FIFO_GIVES(write(fd, buf, 8), 8) || !FIFO_GIVES(read(fd, buf, 8), 8))
		return KTAP_FAIL;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	if (slurp(path, text, sizeof(text)) < 0 || strncmp(text, "pos:\t0\n", 7))
		return ktap_fail("there is a position: %.20s", text);
	return KTAP_PASS;
}

/* No waiting. */

/* Requests that were given to the hardware and taken back, of both rings. */
static uint64_t aborts(int fd)
{
	struct fifo_aio_stats s = fifo_stats(fd);

	return s.tx.aborts + s.rx.aborts;
}

/* What a write of len bytes gives where there is room for that many. */
static ssize_t written_now(size_t len, size_t room)
{
	if (len <= PIPE_BUF)
		return len <= room ? (ssize_t)len : -1;
	return room ? (ssize_t)(len < room ? len : room) : -1;
}

static int without_waiting(int fd)
{
	unsigned int depth = depth_of(fd);
	const size_t lens[] = { 1, 2, PIPE_BUF - 1, PIPE_BUF, PIPE_BUF + 1, depth - 1, depth, depth + 1, 4 * depth };
	const size_t fills[] = { 0, 1, depth - PIPE_BUF - 1, depth - PIPE_BUF, depth - PIPE_BUF + 1,
				 depth - 2, depth - 1, depth };
	uint8_t *buf = pages(4 * depth);
	uint64_t before = aborts(fd);

	for (size_t i = 0; i < FIFO_ARRAY_SIZE(fills); i++) {
		for (size_t j = 0; j < FIFO_ARRAY_SIZE(lens); j++) {
			ssize_t want = written_now(lens[j], depth - fills[i]), out;

			if (fills[i] > depth)
				continue;	/* a FIFO of less than PIPE_BUF */
			if (fills[i] && put(fd, fills[i], 1, 0))
				return KTAP_FAIL;
			fifo_fill(buf, lens[j], 1, fills[i]);
			if (want < 0 ? !FIFO_FAILS(write_now(fd, buf, lens[j]), EAGAIN) :
				       !FIFO_GIVES(write_now(fd, buf, lens[j]), want))
				return ktap_fail("a write of %zu with %zu in the FIFO", lens[j], fills[i]);
			out = fills[i] + (want < 0 ? 0 : want);
			/* In two: less than there is, then more. */
			if (out > 1) {
				if (!get_by(read_now, fd, buf, out - 1) || fifo_verify(buf, out - 1, 1, 0))
					return KTAP_FAIL;
				if (!FIFO_GIVES(read_now(fd, buf, 4 * depth), 1) || fifo_verify(buf, 1, 1, out - 1))
					return KTAP_FAIL;
			} else if (out && !FIFO_GIVES(read_now(fd, buf, 1), 1)) {
				return KTAP_FAIL;
			}
			if (!FIFO_FAILS(read_now(fd, buf, 1), EAGAIN) || !FIFO_FAILS(read_now(fd, buf, depth), EAGAIN))
				return ktap_fail("with an empty FIFO");
		}
	}
	/* What has to be EAGAIN is so at once, not when it has been tried. */
	return aborts(fd) == before ? KTAP_PASS : ktap_fail("%llu aborts", (unsigned long long)(aborts(fd) - before));
}

static int nonblock(void)
{
	return without_waiting(opened(0, O_RDWR | O_NONBLOCK));
}

static int nowait(void)
{
	return without_waiting(opened(0, O_RDWR));
}

/* O_NONBLOCK can be set and taken back, and is the open file's, not the channel's. */
static int nonblock_flag(void)
{
	int a = opened(0, O_RDWR), b = opened(0, O_RDWR | O_NONBLOCK);
	struct transfer t = { .fd = a, .len = 1, .stream = 1 };
	char byte;
	pid_t pid;

	if (!FIFO_FAILS(read(b, &byte, 1), EAGAIN) || !FIFO_GIVES(fcntl(b, F_SETFL, 0), 0) ||
	    !FIFO_GIVES(fcntl(a, F_SETFL, O_NONBLOCK), 0) || !FIFO_FAILS(read(a, &byte, 1), EAGAIN) ||
	    !FIFO_GIVES(fcntl(a, F_SETFL, 0), 0))
		return KTAP_FAIL;
	for (int i = 0; i < 2; i++) {
		t.fd = i ? b : a;
		pid = blocking(receiver, &t, SYS_read);
		if (pid < 0 || put(i ? a : b, 1, 1, 0) ||
		    fifo_reap_passed(pid, "the reader"))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/* The events that there are right now, by poll, select and epoll, which have to agree. */
static int events_of(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM | POLLPRI | POLLRDHUP };
	struct epoll_event want = { .events = EPOLLIN | EPOLLOUT }, got = { 0 };
	int set = epoll_create1(EPOLL_CLOEXEC), selected;
	struct timeval zero = { 0, 0 };
	fd_set in, out, other;

	FD_ZERO(&in);
	FD_SET(fd, &in);
	out = in;
	other = in;
	if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, fd, &want) || poll(&p, 1, 0) < 0 ||
	    epoll_wait(set, &got, 1, 0) < 0 || select(fd + 1, &in, &out, &other, &zero) < 0) {
		ktap_diag("poll, select, epoll: %s", strerror(errno));
		close(set);
		return -1;
	}
	close(set);
	selected = (FD_ISSET(fd, &in) ? POLLIN : 0) | (FD_ISSET(fd, &out) ? POLLOUT : 0);
	if ((int)got.events != (p.revents & (POLLIN | POLLOUT)) ||
	    selected != (int)got.events || FD_ISSET(fd, &other) ||
	    p.revents & ~(POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM) ||
	    !(p.revents & POLLIN) != !(p.revents & POLLRDNORM) || !(p.revents & POLLOUT) != !(p.revents & POLLWRNORM)) {
		ktap_diag("poll says %#x, epoll %#x, select %#x and %d", p.revents, got.events, selected,
			  FD_ISSET(fd, &other));
		return -1;
	}
	return selected;
}

/* In all states of the FIFO, poll says what a call that does not wait would find. */
static int poll_states(void)
{
	int fd = opened(0, O_RDWR | O_NONBLOCK);
	unsigned int depth = depth_of(fd);
	const unsigned int fills[] = { 0, 1, 2, depth / 2, depth - PIPE_BUF - 1, depth - PIPE_BUF, depth - PIPE_BUF + 1,
				       depth - 1, depth };
	uint8_t *buf = pages(depth);

	for (size_t i = 0; i < FIFO_ARRAY_SIZE(fills); i++) {
		int events, want;

		if (fills[i] > depth)
			continue;
		want = (fills[i] ? POLLIN : 0) | (depth - fills[i] >= PIPE_BUF ? POLLOUT : 0);
		if (fills[i] && put(fd, fills[i], 1, 0))
			return KTAP_FAIL;
		events = events_of(fd);
		if (events != want)
			return ktap_fail("events %#x with %u of %u bytes, not %#x", events, fills[i], depth, want);
		fifo_fill(buf, PIPE_BUF, 1, fills[i]);
		if ((write(fd, buf, PIPE_BUF) == PIPE_BUF) != !!(events & POLLOUT))
			return ktap_fail("POLLOUT is not so, with %u of %u bytes", fills[i], depth);
		if (events & POLLOUT) {
			/* Out again, so that the first byte is asked for on its own. */
			if (!FIFO_GIVES(read(fd, buf, PIPE_BUF), PIPE_BUF) || fifo_verify(buf, PIPE_BUF, 1, 0))
				return KTAP_FAIL;
		}
		if ((read(fd, buf, 1) == 1) != !!(events & POLLIN))
			return ktap_fail("POLLIN is not so, with %u of %u bytes", fills[i], depth);
		if (!fills[i])
			continue;
		if (drain(fd, 1, 1 + (events & POLLOUT ? PIPE_BUF : 0)) != fills[i] - 1)
			return ktap_fail("not all of %u bytes came out", fills[i]);
	}
	return events_of(fd) == POLLOUT ? KTAP_PASS : ktap_fail("not empty afterwards");
}

/* What waits has a claim on the bytes, or on the room, that come. */
static int claims(void)
{
	int fd = opened(0, O_RDWR), now = opened(0, O_RDWR | O_NONBLOCK);
	unsigned int depth = depth_of(fd);
	struct transfer t = { .fd = fd, .len = 100, .stream = 1 };
	struct fifo_aio_thresholds was, thresholds;
	uint8_t *buf = pages(2 * depth);
	uint64_t before;
	pid_t pid;

	/* A reader that waits: others get nothing. */
	pid = blocking(receiver, &t, SYS_read);
	if (pid < 0 || in_flight("rx", 1))
		return KTAP_FAIL;
	if (events_of(now) != POLLOUT || !FIFO_FAILS(read(now, buf, 1), EAGAIN))
		return ktap_fail("with a reader waiting");
	if (put(now, 100, 1, 0) || fifo_reap_passed(pid, "the reader"))
		return KTAP_FAIL;

	/* With bytes that it waits for the rest of, too: they are its own. */
	if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_GET_THRESHOLDS, &was), 0))
		return KTAP_FAIL;
	thresholds = was;
	thresholds.rx_bytes = 1000;
	if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &thresholds), 0))
		return KTAP_FAIL;
	t.len = 1000;
	pid = blocking(receiver, &t, SYS_read);
	if (pid < 0 || put(now, 900, 1, 0))
		return KTAP_FAIL;
	before = aborts(fd);
	if (!FIFO_FAILS(read(now, buf, 10), EAGAIN) || aborts(fd) != before)
		return ktap_fail("with 900 bytes that a reader of 1000 waits with");
	if (put(now, 100, 1, 900) || fifo_reap_passed(pid, "the reader") ||
	    !FIFO_GIVES(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &was), 0))
		return KTAP_FAIL;

	/* A writer that waits: others can't write in between, whatever room there is. */
	t = (struct transfer){ .fd = fd, .len = 3 * depth, .stream = 2 };
	pid = blocking(sender, &t, SYS_write);
	if (pid < 0 || fifo_wait(fd, POLLIN, "bytes") < 0)
		return KTAP_FAIL;
	for (unsigned int done = 0; done < 2 * depth; ) {
		ssize_t n = read(fd, buf, depth / 2);

		if (n <= 0 || fifo_verify(buf, n, 2, done))
			return ktap_fail("read: %zd, %s", n, strerror(errno));
		done += n;
		/* Until its last byte is in the FIFO it is in front of us. */
		if (done < 2 * depth && (events_of(now) & POLLOUT || !FIFO_FAILS(write(now, buf, 1), EAGAIN) ||
					 !FIFO_FAILS(write(now, buf, depth), EAGAIN)))
			return ktap_fail("%u bytes of a write of %u are out", done, 3 * depth);
		if (done >= 2 * depth) {
			if (fifo_reap_passed(pid, "the writer"))
				return KTAP_FAIL;
			return drain(now, 2, done) == 3 * depth - done ? KTAP_PASS : KTAP_FAIL;
		}
	}
	return KTAP_FAIL;
}

/* Being woken. */

struct wake {
	int fd, gate;
	short events;
	int how;
};

/* Says when it is about to wait; passes if the event comes. */
static int waiter(void *arg)
{
	const struct wake *w = arg;
	struct epoll_event e = { .events = w->events };
	struct timeval tv = { .tv_sec = FIFO_WAIT_MS / 1000 };
	struct pollfd p = { .fd = w->fd, .events = w->events };
	static const char *const how[] = { "poll", "select", "epoll" };
	long long end = fifo_now_ms() + FIFO_WAIT_MS;
	int set, n;
	fd_set s;

	FD_ZERO(&s);
	FD_SET(w->fd, &s);
	fifo_gate_open(w->gate, 1);
	switch (w->how) {
	case 0:
		n = poll(&p, 1, FIFO_WAIT_MS) == 1 && p.revents & w->events;
		break;
	case 1:
		n = select(w->fd + 1, w->events == POLLIN ? &s : NULL, w->events == POLLOUT ? &s : NULL, NULL, &tv);
		break;
	default:
		set = epoll_create1(0);
		n = !epoll_ctl(set, EPOLL_CTL_ADD, w->fd, &e) && epoll_wait(set, &e, 1, FIFO_WAIT_MS) == 1 &&
		    e.events & w->events;
	}
	/* All look once more when the time is up: who was not woken does not pass. */
	return n == 1 && fifo_now_ms() < end ? KTAP_PASS : ktap_fail("waiting by %s", how[w->how]);
}

/* Several processes wait in each of the three ways, and all are woken by one event. */
static int woken(int fd, short events, int (*cause)(int fd))
{
	static const long call[] = { SYS_poll, SYS_select, SYS_epoll_wait };
	struct wake w[6];
	pid_t pid[6];

	for (int i = 0; i < 6; i++) {
		w[i] = (struct wake){ .fd = fd, .gate = fifo_gate(), .events = events, .how = i % 3 };
		pid[i] = fifo_fork(waiter, &w[i]);
		if (pid[i] < 0 || fifo_gate_pass(w[i].gate, "a process to start"))
			return -1;
		/* The C library may use the newer call. */
		if (i % 3 == 0 && fifo_blocked(pid[i], call[0], "poll to block"))
			return -1;
	}
	if (cause(fd))
		return -1;
	for (int i = 0; i < 6; i++) {
		if (fifo_reap_passed(pid[i], "a process that waits"))
			return -1;
	}
	return 0;
}

static int cause_one_byte(int fd)
{
	return put(fd, 1, 1, 0);
}

static int wake_in(void)
{
	int fd = opened(0, O_RDWR);

	if (events_of(fd) != POLLOUT || woken(fd, POLLIN, cause_one_byte))
		return KTAP_FAIL;
	return drain(fd, 1, 0) == 1 ? KTAP_PASS : KTAP_FAIL;
}

/*
 * Lets time go by: more than the moment after which the driver looks whether
 * requests that must not wait have ended, and wakes all. That is to be over
 * where one wake-up is meant.
 */
static void let_settle(void)
{
	usleep(300000);
}

static struct transfer long_write;
static pid_t long_writer;

static int cause_long_write(int fd)
{
	long_write = (struct transfer){ .fd = fd, .len = 3 * depth_of(fd), .stream = 1 };
	long_writer = fifo_fork(sender, &long_write);
	return long_writer < 0 ? -1 : 0;
}

/* The bytes of a write that has not ended, and does not before somebody reads, are there as well. */
static int wake_in_by_part(void)
{
	int fd = opened(0, O_RDWR);

	/* More than once, as the hardware is asked anew each time. */
	for (int i = 0; i < 3; i++) {
		pid_t reader;

		let_settle();
		if (events_of(fd) != POLLOUT || woken(fd, POLLIN, cause_long_write))
			return ktap_fail("round %d", i);
		reader = fifo_fork(receiver, &long_write);
		if (reader < 0 || fifo_reap_passed(long_writer, "the writer") || fifo_reap_passed(reader, "the reader"))
			return ktap_fail("round %d", i);
	}
	return KTAP_PASS;
}

static int cause_room(int fd)
{
	uint8_t *buf = pages(PIPE_BUF);

	return FIFO_GIVES(read(fd, buf, PIPE_BUF), PIPE_BUF) ? 0 : -1;
}

static int wake_out(void)
{
	int fd = opened(0, O_RDWR);
	unsigned int depth = depth_of(fd);

	if (put(fd, depth, 1, 0) || events_of(fd) != POLLIN || woken(fd, POLLOUT, cause_room))
		return KTAP_FAIL;
	return drain(fd, 1, PIPE_BUF) == depth - PIPE_BUF ? KTAP_PASS : KTAP_FAIL;
}

/* Room that comes bit by bit wakes whoever waits for PIPE_BUF of it. */
static int wake_out_slowly(void)
{
	int fd = opened(0, O_RDWR);
	unsigned int depth = depth_of(fd);
	struct wake w = { .fd = fd, .gate = fifo_gate(), .events = POLLOUT };
	uint8_t *buf = pages(PIPE_BUF);
	pid_t pid;

	if (put(fd, depth, 1, 0))
		return KTAP_FAIL;
	pid = fifo_fork(waiter, &w);
	if (pid < 0 || fifo_gate_pass(w.gate, "a process to start") || fifo_blocked(pid, SYS_poll, "poll to block"))
		return KTAP_FAIL;
	for (unsigned int done = 0; done < PIPE_BUF; done += 256) {
		if (!FIFO_GIVES(read(fd, buf, 256), 256) || fifo_verify(buf, 256, 1, done))
			return KTAP_FAIL;
		if (done + 256 < PIPE_BUF && waitpid(pid, NULL, WNOHANG))
			return ktap_fail("woken by %u bytes of room", done + 256);
	}
	if (fifo_reap_passed(pid, "a process that waits"))
		return KTAP_FAIL;
	return drain(fd, 1, PIPE_BUF) == depth - PIPE_BUF ? KTAP_PASS : KTAP_FAIL;
}

/* Edge-triggered: one event for what comes, none without, and none is missing. */
static int epoll_edges(void)
{
	int fd = opened(0, O_RDWR | O_NONBLOCK), set = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event e = { .events = EPOLLIN | EPOLLET }, got;
	uint8_t byte;

	if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, fd, &e))
		return ktap_fail("epoll: %s", strerror(errno));
	if (!FIFO_GIVES(epoll_wait(set, &got, 1, 0), 0))
		return KTAP_FAIL;
	for (int i = 0; i < 20; i++) {
		if (put(fd, 1, 1, i) || !FIFO_GIVES(epoll_wait(set, &got, 1, FIFO_WAIT_MS), 1))
			return ktap_fail("round %d", i);
		/* The bytes told of it; the end of the write may do so again, but no more than that. */
		let_settle();
		epoll_wait(set, &got, 1, 0);
		if (!FIFO_GIVES(epoll_wait(set, &got, 1, 0), 0))
			return ktap_fail("round %d", i);
		if (!FIFO_GIVES(read(fd, &byte, 1), 1) || fifo_verify(&byte, 1, 1, i) ||
		    !FIFO_FAILS(read(fd, &byte, 1), EAGAIN))
			return ktap_fail("round %d", i);
	}
	return KTAP_PASS;
}

/* A reader that reads until EAGAIN between edges misses nothing of a stream. */
static int edge_reader(void *arg)
{
	const struct transfer *t = arg;
	int fd = opened(0, O_RDWR | O_NONBLOCK), set = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event e = { .events = EPOLLIN | EPOLLET };
	uint8_t *buf = pages(t->piece);

	if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, fd, &e))
		return ktap_fail("epoll: %s", strerror(errno));
	for (size_t done = 0; done < t->len; ) {
		ssize_t n;

		if (!FIFO_GIVES(epoll_wait(set, &e, 1, FIFO_WAIT_MS), 1))
			return ktap_fail("no edge after %zu bytes", done);
		while ((n = read(fd, buf, t->piece)) > 0) {
			if (fifo_verify(buf, n, t->stream, done))
				return KTAP_FAIL;
			done += n;
		}
		if (!n || errno != EAGAIN)
			return ktap_fail("read: %zd, %s", n, strerror(errno));
	}
	return KTAP_PASS;
}

static int edge_writer(void *arg)
{
	const struct transfer *t = arg;
	int fd = opened(0, O_RDWR | O_NONBLOCK), set = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event e = { .events = EPOLLOUT | EPOLLET };
	uint8_t *buf = pages(t->piece);

	if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, fd, &e))
		return ktap_fail("epoll: %s", strerror(errno));
	for (size_t done = 0; done < t->len; ) {
		ssize_t n = 0;

		if (!FIFO_GIVES(epoll_wait(set, &e, 1, FIFO_WAIT_MS), 1))
			return ktap_fail("no edge after %zu bytes", done);
		while (done < t->len) {
			size_t len = t->piece < t->len - done ? t->piece : t->len - done;

			fifo_fill(buf, len, t->stream, done);
			n = write(fd, buf, len);
			if (n <= 0)
				break;
			done += n;
		}
		if (n < 0 && errno != EAGAIN)
			return ktap_fail("write: %s", strerror(errno));
	}
	return KTAP_PASS;
}

/* The other end blocks, and so has its own pace. */
static int epoll_stream(void)
{
	static const size_t pieces_of[] = { 1000, PIPE_BUF, 30000 };
	int fd = opened(0, O_RDWR);
	unsigned int depth = depth_of(fd);

	for (size_t i = 0; i < FIFO_ARRAY_SIZE(pieces_of); i++) {
		struct transfer t = { .fd = fd, .len = 6 * depth + 5, .piece = pieces_of[i], .stream = i };
		pid_t reader = fifo_fork(edge_reader, &t), writer = fifo_fork(sender, &t);

		if (reader < 0 || writer < 0 || fifo_reap_passed(writer, "the writer") ||
		    fifo_reap_passed(reader, "the reader"))
			return ktap_fail("edges in, by %zu", pieces_of[i]);
		reader = fifo_fork(receiver, &t);
		writer = fifo_fork(edge_writer, &t);
		if (reader < 0 || writer < 0 || fifo_reap_passed(writer, "the writer") ||
		    fifo_reap_passed(reader, "the reader"))
			return ktap_fail("edges out, by %zu", pieces_of[i]);
	}
	return KTAP_PASS;
}

/* A reader that only polls, and reads without waiting, gets more than the FIFO holds from a blocking writer. */
static int poll_reader(void)
{
	int fd = opened(0, O_RDWR), now = opened(0, O_RDONLY | O_NONBLOCK);
	struct transfer t = { .fd = fd, .len = 8 * depth_of(fd) + 1, .stream = 1 };
	uint8_t *buf = pages(5000);
	pid_t pid = fifo_fork(sender, &t);

	if (pid < 0)
		return KTAP_FAIL;
	for (size_t done = 0; done < t.len; ) {
		ssize_t n;

		if (fifo_wait(now, POLLIN, "bytes of the blocking writer's") < 0)
			return ktap_fail("after %zu bytes", done);
		n = read(now, buf, 5000);
		if (n <= 0)
			return ktap_fail("POLLIN, and then read: %zd, %s", n, strerror(errno));
		if (fifo_verify(buf, n, t.stream, done))
			return KTAP_FAIL;
		done += n;
	}
	return fifo_reap_passed(pid, "the writer") ? KTAP_FAIL : KTAP_PASS;
}

/* The same in the other direction. */
static int poll_writer(void)
{
	int fd = opened(0, O_RDWR), now = opened(0, O_WRONLY | O_NONBLOCK);
	struct transfer t = { .fd = fd, .len = 8 * depth_of(fd), .piece = 3000, .stream = 1 };
	uint8_t *buf = pages(PIPE_BUF);
	pid_t pid = fifo_fork(receiver, &t);

	if (pid < 0)
		return KTAP_FAIL;
	for (size_t done = 0; done < t.len; done += PIPE_BUF) {
		if (fifo_wait(now, POLLOUT, "room") < 0)
			return ktap_fail("after %zu bytes", done);
		fifo_fill(buf, PIPE_BUF, t.stream, done);
		if (!FIFO_GIVES(write(now, buf, PIPE_BUF), PIPE_BUF))
			return ktap_fail("after POLLOUT and %zu bytes", done);
	}
	return fifo_reap_passed(pid, "the reader") ? KTAP_FAIL : KTAP_PASS;
}

/* Signals for I/O. */

static int take_signal(int sig, siginfo_t *info, const char *what)
{
	struct timespec ts = { .tv_sec = FIFO_WAIT_MS / 1000 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	if (sigtimedwait(&set, info, &ts) == sig)
		return 0;
	ktap_diag("no signal: %s", what);
	return -1;
}

/* Signals that are pending; they are taken. */
static int pending_signals(int sig)
{
	struct timespec zero = { 0 };
	sigset_t set;
	int n = 0;

	sigemptyset(&set);
	sigaddset(&set, sig);
	while (sigtimedwait(&set, NULL, &zero) == sig)
		n++;
	return n;
}

/* Has the signal sent to us for the file; it stays blocked, and is taken when it is wanted. */
static int async_file(int flags, int sig)
{
	int fd = opened(0, O_RDWR | flags);
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	sigaddset(&set, SIGIO);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (!FIFO_GIVES(fcntl(fd, F_SETOWN, getpid()), 0) || !FIFO_GIVES(fcntl(fd, F_SETSIG, sig), 0) ||
	    !FIFO_GIVES(fcntl(fd, F_SETFL, flags | O_ASYNC), 0))
		_exit(KTAP_FAIL);
	return fd;
}

static int sigio_in(void)
{
	int sig = SIGRTMIN + 1, fd = async_file(O_NONBLOCK, sig), other = opened(0, O_RDWR);
	struct transfer t = { .fd = other, .len = 10, .stream = 1 };
	siginfo_t info;

	if (pending_signals(sig))
		return ktap_fail("a signal for nothing");
	for (int i = 0; i < 3; i++) {
		pid_t pid = fifo_fork(sender, &t);

		if (pid < 0 || fifo_reap_passed(pid, "the writer") || take_signal(sig, &info, "bytes in an empty FIFO"))
			return KTAP_FAIL;
		if (info.si_code != POLL_IN || info.si_fd != fd || !(info.si_band & POLLIN))
			return ktap_fail("signal with code %d, band %#lx, file %d", info.si_code, info.si_band,
					 info.si_fd);
		/* More bytes are no news. */
		if (pending_signals(sig) || put(other, 10, 1, 10) || pending_signals(sig))
			return ktap_fail("a signal for bytes that are not the first");
		if (drain(fd, 1, 0) != 20)
			return KTAP_FAIL;
		pending_signals(sig);
	}
	/* Without O_ASYNC there is none. */
	if (!FIFO_GIVES(fcntl(fd, F_SETFL, O_NONBLOCK), 0) || put(other, 10, 1, 0) || pending_signals(sig) ||
	    drain(fd, 1, 0) != 10)
		return ktap_fail("a signal that is not wanted any more");
	/* The default is SIGIO. */
	if (!FIFO_GIVES(fcntl(fd, F_SETSIG, 0), 0) || !FIFO_GIVES(fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC), 0) ||
	    put(other, 10, 1, 0) || take_signal(SIGIO, &info, "SIGIO") || drain(fd, 1, 0) != 10)
		return KTAP_FAIL;
	return KTAP_PASS;
}

static int sigio_out(void)
{
	int sig = SIGRTMIN + 1, fd = async_file(O_NONBLOCK, sig), other = opened(0, O_RDWR);
	unsigned int depth = depth_of(fd);
	uint8_t *buf = pages(depth);
	siginfo_t info;

	if (put(fd, depth, 1, 0))
		return KTAP_FAIL;
	pending_signals(sig);
	if (!get(other, buf, depth) || fifo_verify(buf, depth, 1, 0))
		return KTAP_FAIL;
	do {
		if (take_signal(sig, &info, "room in a full FIFO"))
			return KTAP_FAIL;
	} while (info.si_code != POLL_OUT);
	return info.si_band & POLLOUT ? KTAP_PASS : ktap_fail("band %#lx", info.si_band);
}

/* A file that is closed sends no more signals, and does not keep the process. */
static int sigio_closed(void)
{
	int sig = SIGRTMIN + 1, fd = async_file(0, sig), other = opened(0, O_RDWR);

	close(fd);
	if (put(other, 10, 1, 0) || drain(other, 1, 0) != 10)
		return KTAP_FAIL;
	return pending_signals(sig) ? ktap_fail("a signal for a file that is closed") : KTAP_PASS;
}

/* O_DIRECT. */

static int direct(void)
{
	int fd = opened(0, O_RDWR | O_DIRECT);
	uint8_t *buf = pages(3 * FIFO_PAGE);

	if (!(fcntl(fd, F_GETFL) & O_DIRECT))
		return ktap_fail("O_DIRECT is not set");
	/* Any alignment, any size. */
	if (fifo_round_trip(fd, buf, FIFO_PAGE, 1) || fifo_round_trip(fd, buf + 1, 513, 2) ||
	    !FIFO_GIVES(fcntl(fd, F_SETFL, 0), 0) || fifo_round_trip(fd, buf + 7, 2 * FIFO_PAGE, 3) ||
	    !FIFO_GIVES(fcntl(fd, F_SETFL, O_DIRECT | O_NONBLOCK), 0) || fifo_round_trip(fd, buf + 3, 777, 4))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* fsync. */

static int sync_both(int fd)
{
	return FIFO_GIVES(fsync(fd), 0) && FIFO_GIVES(fdatasync(fd), 0) ? 0 : -1;
}

static int fsync_idle(void)
{
	int fd = opened(0, O_RDWR), in = opened(0, O_RDONLY);
	struct transfer t = { .fd = fd, .len = 1, .stream = 1 };
	pid_t pid;

	if (sync_both(fd) || sync_both(in))
		return KTAP_FAIL;
	/* What was written is in the FIFO, that is enough. */
	if (put(fd, 100, 1, 0) || sync_both(fd) || drain(fd, 1, 0) != 100)
		return KTAP_FAIL;
	/* Reads do not count. */
	pid = blocking(receiver, &t, SYS_read);
	if (pid < 0 || sync_both(fd) || put(fd, 1, 1, 0) ||
	    fifo_reap_passed(pid, "the reader"))
		return KTAP_FAIL;
	return KTAP_PASS;
}

struct sync {
	int fd;
	bool data;
	int want;
};

static int syncer(void *arg)
{
	const struct sync *s = arg;
	int err = s->data ? fdatasync(s->fd) : fsync(s->fd);

	return (err ? errno : 0) == s->want ? KTAP_PASS : ktap_fail("fsync: %d, %s", err, strerror(errno));
}

/* It waits for the file's writes of before, and neither for others' nor for later ones. */
static int fsync_waits(void)
{
	int fd = opened(0, O_RDWR), other = opened(0, O_RDWR);
	unsigned int depth = depth_of(fd);
	struct transfer first = { .fd = fd, .len = 2 * depth, .stream = 1 };
	struct transfer second = { .fd = fd, .len = 2 * depth, .stream = 2 };
	uint8_t *buf = pages(2 * depth);
	pid_t writer[2], sync[2];

	writer[0] = blocking(sender, &first, SYS_write);
	if (writer[0] < 0 || in_flight("tx", 1))
		return KTAP_FAIL;
	for (int i = 0; i < 2; i++) {
		struct sync s = { .fd = fd, .data = i };

		sync[i] = blocking(syncer, &s, i ? SYS_fdatasync : SYS_fsync);
		if (sync[i] < 0)
			return KTAP_FAIL;
	}
	/* Another open file has written nothing. */
	if (sync_both(other))
		return KTAP_FAIL;
	writer[1] = blocking(sender, &second, SYS_write);
	if (writer[1] < 0 || in_flight("tx", 2))
		return KTAP_FAIL;
	if (waitpid(sync[0], NULL, WNOHANG) || waitpid(sync[1], NULL, WNOHANG))
		return ktap_fail("fsync did not wait");
	if (fifo_read_all(fd, buf, 2 * depth) || fifo_verify(buf, 2 * depth, 1, 0) ||
	    fifo_reap_passed(writer[0], "the first writer"))
		return KTAP_FAIL;
	/* The second one can't be done: it is 2 * depth, and nobody has read of it. */
	if (fifo_reap_passed(sync[0], "fsync, with only later writes left") ||
	    fifo_reap_passed(sync[1], "fdatasync, with only later writes left"))
		return KTAP_FAIL;
	if (fifo_read_all(fd, buf, 2 * depth) || fifo_verify(buf, 2 * depth, 2, 0) ||
	    fifo_reap_passed(writer[1], "the second writer") || sync_both(fd))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* A write that the channel's reset ends has failed. */
static int failing_writer(void *arg)
{
	const struct transfer *t = arg;
	uint8_t *buf = pages(t->len);

	return FIFO_FAILS(write(t->fd, buf, t->len), EIO) ? KTAP_PASS : KTAP_FAIL;
}

static int fsync_error(void)
{
	int fd = opened(0, O_RDWR), other = opened(0, O_RDWR);
	struct transfer t = { .fd = fd, .len = 4 * depth_of(fd) };
	struct sync s = { .fd = fd, .want = EIO };
	pid_t writer, sync;

	for (int i = 0; i < 2; i++) {
		writer = blocking(failing_writer, &t, SYS_write);
		if (writer < 0 || in_flight("tx", 1))
			return KTAP_FAIL;
		s.data = i;
		sync = blocking(syncer, &s, i ? SYS_fdatasync : SYS_fsync);
		if (sync < 0 ||
		    !FIFO_GIVES(ioctl(other, FIFO_AIO_RESET), 0) || fifo_reap_passed(writer, "the writer") ||
		    fifo_reap_passed(sync, "fsync of a write that failed"))
			return KTAP_FAIL;
		/* Told once, and to that file. */
		if (sync_both(fd) || sync_both(other))
			return KTAP_FAIL;
	}
	/* It is kept until somebody asks. */
	writer = blocking(failing_writer, &t, SYS_write);
	if (writer < 0 || in_flight("tx", 1) || !FIFO_GIVES(ioctl(other, FIFO_AIO_RESET), 0) ||
	    fifo_reap_passed(writer, "the writer") || !FIFO_FAILS(fsync(fd), EIO) || sync_both(fd))
		return KTAP_FAIL;
	return KTAP_PASS;
}

struct caller {
	int fd;
	bool write;
	size_t len;
	ssize_t want;	/* or -errno */
};

/* A call that is to end in a certain way. */
static int caller(void *arg)
{
	const struct caller *c = arg;
	uint8_t *buf = pages(c->len);

	if (c->want < 0 ? FIFO_FAILS(c->write ? write(c->fd, buf, c->len) : read(c->fd, buf, c->len), (int)-c->want) :
			  FIFO_GIVES(c->write ? write(c->fd, buf, c->len) : read(c->fd, buf, c->len), c->want))
		return KTAP_PASS;
	return KTAP_FAIL;
}

/* Thresholds. */

static int read_threshold(void)
{
	int fd = opened(0, O_RDWR), now = opened(0, O_RDWR | O_NONBLOCK);
	struct fifo_aio_thresholds was, t;
	struct iovec v = { .iov_len = PIPE_BUF };
	uint8_t *buf = pages(PIPE_BUF);
	pid_t pid;

	v.iov_base = buf;
	if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_GET_THRESHOLDS, &was), 0))
		return KTAP_FAIL;
	t = was;
	t.rx_bytes = 1000;
	if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &t), 0) || put(now, 999, 1, 0))
		return KTAP_FAIL;
	/* One byte is missing: for all that do not wait, and for poll. */
	if (!FIFO_FAILS(read(now, buf, PIPE_BUF), EAGAIN) || !FIFO_FAILS(preadv2(fd, &v, 1, -1, RWF_NOWAIT), EAGAIN) ||
	    events_of(now) != POLLOUT)
		return ktap_fail("with 999 bytes, of 1000");
	pid = blocking(caller, &(struct caller){ .fd = fd, .len = PIPE_BUF, .want = 1000 }, SYS_read);
	if (pid < 0 || put(now, 1, 1, 999) || fifo_reap_passed(pid, "a read that gets all 1000"))
		return KTAP_FAIL;
	if (put(now, 1000, 1, 0) || events_of(now) != (POLLIN | POLLOUT) ||
	    !FIFO_GIVES(read(now, buf, PIPE_BUF), 1000) ||
	    fifo_verify(buf, 1000, 1, 0))
		return KTAP_FAIL;
	/* A read for less asks for no more than it has room for. */
	if (put(now, 100, 1, 0) || !FIFO_GIVES(read(fd, buf, 100), 100) || fifo_verify(buf, 100, 1, 0))
		return KTAP_FAIL;
	/* As many as the FIFO holds: the write that fills it lets the read go. */
	t.rx_bytes = depth_of(fd);
	if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &t), 0) || through(fd, t.rx_bytes, 1000, 0, 2))
		return KTAP_FAIL;
	return FIFO_GIVES(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &was), 0) ? KTAP_PASS : KTAP_FAIL;
}

/* Who waits for the old threshold, in a read or in poll, goes on when there is a lower one. */
static int threshold_lowered(void)
{
	int fd = opened(0, O_RDWR), other = opened(0, O_RDWR);
	struct wake w = { .fd = fd, .gate = fifo_gate(), .events = POLLIN };
	struct fifo_aio_thresholds was, t;
	pid_t pid;

	if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_GET_THRESHOLDS, &was), 0))
		return KTAP_FAIL;
	t = was;
	t.rx_bytes = 1000;
	if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &t), 0))
		return KTAP_FAIL;
	pid = blocking(caller, &(struct caller){ .fd = fd, .len = 2000, .want = 500 }, SYS_read);
	if (pid < 0 || put(other, 500, 1, 0))
		return KTAP_FAIL;
	let_settle();
	if (waitpid(pid, NULL, WNOHANG))
		return ktap_fail("a read of 500 bytes, of 1000");
	if (!FIFO_GIVES(ioctl(other, FIFO_AIO_SET_THRESHOLDS, &was), 0) || fifo_reap_passed(pid, "the reader"))
		return KTAP_FAIL;
	let_settle();
	if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &t), 0) || put(other, 500, 2, 0))
		return KTAP_FAIL;
	pid = fifo_fork(waiter, &w);
	if (pid < 0 || fifo_gate_pass(w.gate, "a process to start") || fifo_blocked(pid, SYS_poll, "poll to block") ||
	    !FIFO_GIVES(ioctl(other, FIFO_AIO_SET_THRESHOLDS, &was), 0) || fifo_reap_passed(pid, "poll"))
		return KTAP_FAIL;
	return drain(fd, 2, 0) == 500 ? KTAP_PASS : KTAP_FAIL;
}

/* However many completions an interrupt waits for, one alone comes. */
static int coalescing(void)
{
	static const struct {
		uint32_t count, us;
	} t[] = { { 0, 0 }, { 1, 0 }, { 1, 65535 }, { 255, 1 }, { 255, 65535 }, { 2, 1000 } };
	int fd = opened(0, O_RDWR), err = KTAP_PASS;
	struct fifo_aio_thresholds was, now, set;
	uint8_t *buf = pages(10000);

	if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_GET_THRESHOLDS, &was), 0))
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(t) && !err; i++) {
		set = was;
		set.tx_count = t[i].count;
		set.tx_us = t[i].us;
		set.rx_count = t[FIFO_ARRAY_SIZE(t) - 1 - i].count;
		set.rx_us = t[FIFO_ARRAY_SIZE(t) - 1 - i].us;
		if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &set), 0) ||
		    !FIFO_GIVES(ioctl(fd, FIFO_AIO_GET_THRESHOLDS, &now), 0) || memcmp(&set, &now, sizeof(now)) ||
		    fifo_round_trip(fd, buf, 10000, i) || through(fd, 30000, 1000, 100, i))
			err = ktap_fail("count %u, %u us", t[i].count, t[i].us);
	}
	if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &was), 0))
		return KTAP_FAIL;
	return err;
}

/* ioctls. */

static int ioctl_info(void)
{
	int channels = fifo_channels();

	for (int i = 0; i < channels; i++) {
		int fd = opened(i, O_RDONLY), w = opened(i, O_WRONLY);
		struct fifo_aio_info info, again;

		memset(&info, 0xa5, sizeof(info));
		if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_GET_INFO, &info), 0))
			return KTAP_FAIL;
		if (info.version >> 16 != 1 || info.channels != (uint32_t)channels || info.channel != (uint32_t)i ||
		    info.ring_entries < 2 || info.ring_entries > 4096 || info.ring_entries & (info.ring_entries - 1) ||
		    info.max_segments < 1 || info.max_segments > 1024 || info.max_segments > info.ring_entries ||
		    info.depth < 4096 || info.depth & (info.depth - 1) || info.fill || info.reserved)
			return ktap_fail("channel %d: version %#x, channel %u of %u, %u entries, "
					 "%u segments, depth %u, fill %u, reserved %u",
					 i, info.version, info.channel, info.channels, info.ring_entries,
					 info.max_segments, info.depth, info.fill, info.reserved);
		if (put(w, 123, 1, 0) || !FIFO_GIVES(ioctl(w, FIFO_AIO_GET_INFO, &again), 0))
			return KTAP_FAIL;
		info.fill = 123;
		if (memcmp(&info, &again, sizeof(info)))
			return ktap_fail("channel %d: other information with 123 bytes, fill %u", i, again.fill);
		if (drain(fd, 1, 0) != 123)
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

static int ioctl_errors(void)
{
	static const unsigned long gets[] = { FIFO_AIO_GET_INFO, FIFO_AIO_GET_STATS, FIFO_AIO_GET_THRESHOLDS };
	static const unsigned long unknown[] = {
		_IO(FIFO_AIO_IOC_MAGIC, 0), _IO(FIFO_AIO_IOC_MAGIC, 5), _IO(FIFO_AIO_IOC_MAGIC, 255), _IO(0xf2, 4),
		_IOR(FIFO_AIO_IOC_MAGIC, 0, char), _IOW(FIFO_AIO_IOC_MAGIC, 0, struct fifo_aio_info),
		_IOR(FIFO_AIO_IOC_MAGIC, 4, int), _IOW(FIFO_AIO_IOC_MAGIC, 3, int), 0, ~0u, 0x5401 /* TCGETS */,
	};
	int fd = opened(0, O_RDWR), in = opened(0, O_RDONLY);
	struct fifo_aio_thresholds t;
	uint8_t *buf = pages(FIFO_PAGE);

	for (size_t i = 0; i < FIFO_ARRAY_SIZE(gets); i++) {
		if (!FIFO_FAILS(ioctl(fd, gets[i], NULL), EFAULT) ||
		    !FIFO_FAILS(ioctl(fd, gets[i], buf + FIFO_PAGE - 1), EFAULT) ||
		    !FIFO_FAILS(ioctl(fd, gets[i], -1UL), EFAULT) || !FIFO_GIVES(ioctl(in, gets[i], buf), 0))
			return ktap_fail("ioctl %#lx", gets[i]);
	}
	if (!FIFO_FAILS(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, NULL), EFAULT) ||
	    !FIFO_FAILS(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, buf + FIFO_PAGE - 4), EFAULT) ||
	    !FIFO_GIVES(ioctl(fd, FIFO_AIO_GET_THRESHOLDS, &t), 0) ||
	    !FIFO_FAILS(ioctl(in, FIFO_AIO_SET_THRESHOLDS, &t), EBADF) || !FIFO_FAILS(ioctl(in, FIFO_AIO_RESET), EBADF))
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(unknown); i++) {
		if (!FIFO_FAILS(ioctl(fd, unknown[i], buf), ENOTTY))
			return ktap_fail("ioctl %#lx", unknown[i]);
	}
	/* Into memory that can be read only. */
	if (mprotect(buf, FIFO_PAGE, PROT_READ) || !FIFO_FAILS(ioctl(fd, FIFO_AIO_GET_INFO, buf), EFAULT))
		return KTAP_FAIL;
	return KTAP_PASS;
}

static int ioctl_thresholds(void)
{
	int fd = opened(0, O_RDWR), w = opened(0, O_WRONLY);
	struct fifo_aio_thresholds was, now, good, bad;
	unsigned int depth = depth_of(fd);

	if (!FIFO_GIVES(ioctl(fd, FIFO_AIO_GET_THRESHOLDS, &was), 0))
		return KTAP_FAIL;
	if (was.reserved[0] || was.reserved[1] || was.reserved[2])
		return ktap_fail("reserved numbers are not zero");
	good = was;
	good.rx_bytes = depth;
	good.tx_count = 255;
	good.tx_us = 65535;
	good.rx_count = 2;
	good.rx_us = 1;
	if (!FIFO_GIVES(ioctl(w, FIFO_AIO_SET_THRESHOLDS, &good), 0))
		return KTAP_FAIL;
	for (int i = 0; i < 10; i++) {
		bad = good;
		switch (i) {
		case 0: bad.rx_bytes = depth + 1; break;
		case 1: bad.rx_bytes = -1; break;
		case 2: bad.tx_count = 256; break;
		case 3: bad.rx_count = -1; break;
		case 4: bad.tx_us = 65536; break;
		case 5: bad.rx_us = -1; break;
		case 6: bad.tx_us = 0; break;	/* with a count above 1, the last ones would wait */
		case 7: bad.reserved[0] = 1; break;
		case 8: bad.reserved[1] = 1u << 31; break;
		case 9: bad.reserved[2] = 1; break;
		}
		/* What is refused is refused as a whole. */
		bad.rx_count = bad.rx_count == 2 ? 3 : bad.rx_count;
		if (!FIFO_FAILS(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &bad), EINVAL) ||
		    !FIFO_GIVES(ioctl(fd, FIFO_AIO_GET_THRESHOLDS, &now), 0) || memcmp(&now, &good, sizeof(now)))
			return ktap_fail("bad value %d", i);
	}
	return FIFO_GIVES(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &was), 0) ? KTAP_PASS : KTAP_FAIL;
}

/* Other channels have thresholds of their own. */
static int thresholds_of_channels(void)
{
	struct fifo_aio_thresholds was, t, other, after;
	int a, b;

	if (fifo_channels() < 2)
		return ktap_skip("one channel only");
	a = opened(0, O_RDWR);
	b = opened(1, O_RDWR);
	if (!FIFO_GIVES(ioctl(a, FIFO_AIO_GET_THRESHOLDS, &was), 0) ||
	    !FIFO_GIVES(ioctl(b, FIFO_AIO_GET_THRESHOLDS, &other), 0))
		return KTAP_FAIL;
	t = was;
	t.rx_bytes = 77;
	t.rx_count = 7;
	t.rx_us = 777;
	if (!FIFO_GIVES(ioctl(a, FIFO_AIO_SET_THRESHOLDS, &t), 0) ||
	    !FIFO_GIVES(ioctl(b, FIFO_AIO_GET_THRESHOLDS, &after), 0) || memcmp(&other, &after, sizeof(other)) ||
	    !FIFO_GIVES(ioctl(a, FIFO_AIO_SET_THRESHOLDS, &was), 0))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* FIFO_AIO_RESET ends what is in flight with EIO, empties the FIFO, and leaves all working. */
static int ioctl_reset(void)
{
	int fd = opened(0, O_RDWR), w = opened(0, O_WRONLY);
	unsigned int depth = depth_of(fd);
	struct caller c = { .fd = fd, .len = 100, .want = -EIO };
	struct transfer t = { .fd = fd, .len = 3 * depth };
	uint8_t *buf = pages(depth);
	pid_t pid[3];

	if (put(fd, 1000, 1, 0) || !FIFO_GIVES(ioctl(w, FIFO_AIO_RESET), 0) || fifo_info(fd).fill ||
	    events_of(fd) != POLLOUT)
		return ktap_fail("with bytes in the FIFO");
	for (int i = 0; i < 3; i++) {
		pid[i] = blocking(caller, &c, SYS_read);
		if (pid[i] < 0)
			return KTAP_FAIL;
	}
	if (in_flight("rx", 3) || !FIFO_GIVES(ioctl(fd, FIFO_AIO_RESET), 0))
		return KTAP_FAIL;
	for (int i = 0; i < 3; i++) {
		if (fifo_reap_passed(pid[i], "a reader"))
			return KTAP_FAIL;
	}
	if (fifo_round_trip(fd, buf, depth, 2))
		return KTAP_FAIL;
	for (int i = 0; i < 3; i++) {
		pid[i] = blocking(failing_writer, &t, SYS_write);
		if (pid[i] < 0)
			return KTAP_FAIL;
	}
	if (in_flight("tx", 3) || !FIFO_GIVES(ioctl(fd, FIFO_AIO_RESET), 0))
		return KTAP_FAIL;
	for (int i = 0; i < 3; i++) {
		if (fifo_reap_passed(pid[i], "a writer"))
			return KTAP_FAIL;
	}
	if (fifo_info(fd).fill)
		return ktap_fail("%u bytes after a reset", fifo_info(fd).fill);
	return fifo_round_trip(fd, buf, depth, 3) ? KTAP_FAIL : KTAP_PASS;
}

/* Numbers move as they must, and are the same by ioctl and in sysfs. */
static int statistics(void)
{
	static const char *const names[] = { "requests", "bytes", "errors", "cancelled", "timeouts", "aborts", "resets",
					     "interrupts", "spurious", "lost_interrupts", "doorbells" };
	int fd = opened(0, O_RDWR);
	struct fifo_aio_stats before = fifo_stats(fd), after;
	uint8_t *buf = pages(1000);

	for (int i = 0; i < 10; i++) {
		if (fifo_round_trip(fd, buf, 100 * (i + 1), i))
			return KTAP_FAIL;
	}
	/* With more room than there are bytes. */
	if (put(fd, 100, 1, 0) || !FIFO_GIVES(read(fd, buf, 1000), 100))
		return KTAP_FAIL;
	after = fifo_stats(fd);
	if (after.tx.requests - before.tx.requests != 11 || after.rx.requests - before.rx.requests < 11)
		return ktap_fail("%llu writes, %llu reads", after.tx.requests - before.tx.requests,
				 after.rx.requests - before.rx.requests);
	if (after.tx.bytes - before.tx.bytes != 5600 || after.rx.bytes - before.rx.bytes != 5600)
		return ktap_fail("%llu bytes written, %llu read", after.tx.bytes - before.tx.bytes,
				 after.rx.bytes - before.rx.bytes);
	if (after.tx.interrupts == before.tx.interrupts || after.rx.interrupts == before.rx.interrupts)
		return ktap_fail("no interrupts");
	for (int ring = 0; ring < 2; ring++) {
		const uint64_t *a = ring ? (uint64_t *)&after.rx : (uint64_t *)&after.tx;
		const uint64_t *b = ring ? (uint64_t *)&before.rx : (uint64_t *)&before.tx;

		for (size_t i = 0; i < FIFO_ARRAY_SIZE(names); i++) {
			long long sysfs = fifo_stat(0, ring ? "rx" : "tx", names[i]);

			if (sysfs < (long long)a[i] || (i < 7 && sysfs != (long long)a[i]))
				return ktap_fail("%s: %lld in sysfs, %llu by ioctl", names[i], sysfs,
						 (unsigned long long)a[i]);
			/* Nothing has gone wrong. */
			if (i > 1 && i != 7 && i != 8 && a[i] != b[i])
				return ktap_fail("%s: from %llu to %llu", names[i], (unsigned long long)b[i],
						 (unsigned long long)a[i]);
		}
	}
	return KTAP_PASS;
}

/* A program of 32 bits, by its own entry to the kernel. */
static long call32(long number, long a, long b, long c)
{
	long result;

	asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c)
		     : "memory", "cc", "r8", "r9", "r10", "r11");
	return (int)result;
}

static int has_call32(void *arg)
{
	(void)arg;
	/* getpid; the kernel may know no such calls. */
	return call32(20, 0, 0, 0) == getpid() ? KTAP_PASS : KTAP_FAIL;
}

static int compat(void)
{
	enum { READ = 3, WRITE = 4, IOCTL = 54, READV = 145, WRITEV = 146 };
	uint8_t *low = mmap(NULL, 2 * FIFO_PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	int fd = opened(0, O_RDWR), status;
	struct fifo_aio_info info;
	uint32_t *v = (uint32_t *)low;

	status = fifo_reap(fifo_fork(has_call32, NULL), "getpid of 32 bits");
	if (status != 0)
		return ktap_skip("the kernel has no calls of 32 bits");
	if (low == MAP_FAILED)
		return ktap_fail("no memory below 4 GiB");
	if (!FIFO_GIVES(call32(IOCTL, fd, FIFO_AIO_GET_INFO, (long)low), 0))
		return KTAP_FAIL;
	info = fifo_info(fd);
	if (memcmp(low, &info, sizeof(info)))
		return ktap_fail("other information");
	if (!FIFO_GIVES(call32(IOCTL, fd, FIFO_AIO_GET_THRESHOLDS, (long)low), 0) ||
	    !FIFO_GIVES(call32(IOCTL, fd, FIFO_AIO_SET_THRESHOLDS, (long)low), 0) ||
	    !FIFO_GIVES(call32(IOCTL, fd, FIFO_AIO_GET_STATS, (long)low), 0) ||
	    !FIFO_GIVES(call32(IOCTL, fd, FIFO_AIO_RESET, 0), 0) || !FIFO_GIVES(call32(IOCTL, fd, 0x1234, 0), -ENOTTY))
		return KTAP_FAIL;
	/* Vectors have another layout there. */
	fifo_fill(low + FIFO_PAGE, 200, 1, 0);
	v[0] = (uint32_t)(uintptr_t)low + FIFO_PAGE;
	v[1] = 77;
	v[2] = v[0] + 77;
	v[3] = 123;
	if (!FIFO_GIVES(call32(WRITEV, fd, (long)low, 2), 200))
		return KTAP_FAIL;
	memset(low + FIFO_PAGE, 0, FIFO_PAGE);
	if (!FIFO_GIVES(call32(READV, fd, (long)low, 2), 200) || fifo_verify(low + FIFO_PAGE, 200, 1, 0) ||
	    !FIFO_GIVES(call32(WRITE, fd, (long)low + FIFO_PAGE, 50), 50) ||
	    !FIFO_GIVES(call32(READ, fd, (long)low, 100), 50) || fifo_verify(low, 50, 1, 0))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* Signals that end a wait. */

static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
	(void)sig;
	signals++;
}

static void handle(int sig, int flags)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = flags };

	sigaction(sig, &sa, NULL);
}

/* A call with a handler for SIGUSR1, without SA_RESTART. */
static int interrupted(void *arg)
{
	handle(SIGUSR1, 0);
	return caller(arg);
}

static int signal_read(void)
{
	int fd = opened(0, O_RDWR);
	struct caller c = { .fd = fd, .len = 100, .want = -EINTR };
	uint8_t *buf = pages(100);
	pid_t pid;

	for (int i = 0; i < 20; i++) {
		pid = blocking(interrupted, &c, SYS_read);
		if (pid < 0 || in_flight("rx", 1))
			return KTAP_FAIL;
		kill(pid, SIGUSR1);
		if (fifo_reap_passed(pid, "a reader with a signal"))
			return KTAP_FAIL;
		/* It has no claim any more: what comes is for the next. */
		if (fifo_round_trip(fd, buf, 100, i))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/* Fills the FIFO and waits for more room: the signal finds a write that has, or has not, begun. */
static int signal_write(void)
{
	int fd = opened(0, O_RDWR);
	unsigned int depth = depth_of(fd);
	struct caller c = { .fd = fd, .write = true, .len = 1000, .want = -EINTR };
	uint8_t *buf = pages(depth + 100);
	pid_t pid;

	/* The FIFO is full: not a byte of it goes in. */
	if (put(fd, depth, 1, 0))
		return KTAP_FAIL;
	pid = blocking(interrupted, &c, SYS_write);
	if (pid < 0 || in_flight("tx", 1))
		return KTAP_FAIL;
	kill(pid, SIGUSR1);
	if (fifo_reap_passed(pid, "a writer with a signal") || drain(fd, 1, 0) != depth)
		return KTAP_FAIL;
	/* There is room for a part: the count says which. */
	for (unsigned int room = 1; room <= depth; room = room * 8 + 5) {
		if (room < depth && put(fd, depth - room, 1, 0))
			return KTAP_FAIL;
		c = (struct caller){ .fd = fd, .write = true, .len = 2 * depth, .want = room };
		pid = blocking(interrupted, &c, SYS_write);
		if (pid < 0 || in_flight("tx", 1))
			return KTAP_FAIL;
		while (fifo_info(fd).fill != depth)
			usleep(200);
		kill(pid, SIGUSR1);
		if (fifo_reap_passed(pid, "a writer with a signal") ||
		    !get(fd, buf, depth) || fifo_verify(buf, depth - room, 1, 0) ||
		    !fifo_all(buf + depth - room, 0, room) || fifo_info(fd).fill)
			return ktap_fail("with room for %u bytes", room);
	}
	return KTAP_PASS;
}

struct restarted {
	struct transfer t;
	uint32_t *handled;	/* shared: signals that were handled */
};

static uint32_t *handled;

static void on_signal_tell(int sig)
{
	(void)sig;
	__atomic_add_fetch(handled, 1, __ATOMIC_RELEASE);
	fifo_futex_wake(handled);
}

static int restarted_reader(void *arg)
{
	struct restarted *r = arg;
	struct sigaction sa = { .sa_handler = on_signal_tell, .sa_flags = SA_RESTART };

	handled = r->handled;
	sigaction(SIGUSR1, &sa, NULL);
	return receiver(&r->t);
}

static int restarted_writer(void *arg)
{
	struct restarted *r = arg;
	struct sigaction sa = { .sa_handler = on_signal_tell, .sa_flags = SA_RESTART };

	handled = r->handled;
	sigaction(SIGUSR1, &sa, NULL);
	return sender(&r->t);
}

/* With SA_RESTART the program sees nothing of it. */
static int signal_restart(void)
{
	int fd = opened(0, O_RDWR);
	unsigned int depth = depth_of(fd);
	struct restarted r = { .t = { .fd = fd, .len = 500, .stream = 1 }, .handled = fifo_shared(FIFO_PAGE) };
	pid_t pid = fifo_fork(restarted_reader, &r);

	if (pid < 0)
		return KTAP_FAIL;
	for (uint32_t i = 0; i < 5; i++) {
		if (fifo_blocked(pid, SYS_read, "a read to block") || in_flight("rx", 1))
			return KTAP_FAIL;
		kill(pid, SIGUSR1);
		if (fifo_futex_wait(r.handled, i, "a signal to be handled"))
			return KTAP_FAIL;
	}
	if (fifo_blocked(pid, SYS_read, "a read to block again") || put(fd, 500, 1, 0) ||
	    fifo_reap_passed(pid, "the reader"))
		return KTAP_FAIL;
	/* A write that has not begun, since the FIFO is full. */
	*r.handled = 0;
	r.t.stream = 2;
	if (put(fd, depth, 1, 0))
		return KTAP_FAIL;
	pid = fifo_fork(restarted_writer, &r);
	if (pid < 0)
		return KTAP_FAIL;
	for (uint32_t i = 0; i < 5; i++) {
		if (fifo_blocked(pid, SYS_write, "a write to block") || in_flight("tx", 1))
			return KTAP_FAIL;
		kill(pid, SIGUSR1);
		if (fifo_futex_wait(r.handled, i, "a signal to be handled"))
			return KTAP_FAIL;
	}
	{
		uint8_t *buf = pages(depth + 500);

		if (!get(fd, buf, depth) || fifo_verify(buf, depth, 1, 0) ||
		    fifo_reap_passed(pid, "the writer") || fifo_read_all(fd, buf, 500) || fifo_verify(buf, 500, 2, 0))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/* Ends of a stream under a storm of signals: none is lost, none comes twice. */
static int stormy(const struct transfer *t, bool write_end)
{
	struct itimerval often = { { 0, 700 }, { 0, 700 } }, off = { 0 };
	uint8_t *buf = pages(t->piece);
	unsigned int cut = 0;

	handle(SIGALRM, 0);
	setitimer(ITIMER_REAL, &often, NULL);
	for (size_t done = 0; done < t->len; ) {
		size_t len = t->piece < t->len - done ? t->piece : t->len - done;
		ssize_t n;

		if (write_end)
			fifo_fill(buf, len, t->stream, done);
		n = write_end ? write(t->fd, buf, len) : read(t->fd, buf, len);
		if (n == -1 && errno == EINTR) {
			cut++;
			continue;
		}
		if (n <= 0)
			return ktap_fail("%s: %zd, %s", write_end ? "write" : "read", n, strerror(errno));
		if (!write_end && fifo_verify(buf, n, t->stream, done))
			return KTAP_FAIL;
		cut += (size_t)n < len;
		done += n;
	}
	setitimer(ITIMER_REAL, &off, NULL);
	return KTAP_PASS;
}

static int stormy_writer(void *arg)
{
	return stormy(arg, true);
}

static int stormy_reader(void *arg)
{
	return stormy(arg, false);
}

static int signal_storm(void)
{
	int fd = opened(0, O_RDWR);
	unsigned int depth = depth_of(fd);
	struct transfer t = { .fd = fd, .len = 20 * depth + 3, .piece = 3 * depth + 1, .stream = 1 };
	pid_t w = fifo_fork(stormy_writer, &t), r;

	t.piece = 7000;
	r = fifo_fork(stormy_reader, &t);
	if (w < 0 || r < 0 || fifo_reap_passed(r, "the reader") || fifo_reap_passed(w, "the writer"))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* A process that is stopped and goes on, goes on waiting. */
static int stopped(void)
{
	int fd = opened(0, O_RDWR), status;
	struct transfer t = { .fd = fd, .len = 100, .stream = 1 };
	pid_t pid = fifo_fork(receiver, &t);

	if (pid < 0)
		return KTAP_FAIL;
	for (int i = 0; i < 5; i++) {
		if (fifo_blocked(pid, SYS_read, "a read to block"))
			return KTAP_FAIL;
		kill(pid, SIGSTOP);
		if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
			return ktap_fail("not stopped: status %#x", status);
		/* What comes meanwhile is still there for it. */
		if (i == 4 && put(fd, 100, 1, 0))
			return KTAP_FAIL;
		kill(pid, SIGCONT);
	}
	return fifo_reap_passed(pid, "the reader") ? KTAP_FAIL : KTAP_PASS;
}

/* SIGKILL ends a process that waits, and what it waited for is not taken away. */
static int killed(void)
{
	int fd = opened(0, O_RDWR), status;
	unsigned int depth = depth_of(fd);
	struct transfer t = { .fd = fd, .len = 100, .stream = 1 };
	uint8_t *buf = pages(2 * depth);
	pid_t pid;

	for (int i = 0; i < 10; i++) {
		pid = blocking(receiver, &t, SYS_read);
		if (pid < 0)
			return KTAP_FAIL;
		kill(pid, SIGKILL);
		status = fifo_reap(pid, "a reader that was killed");
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			return ktap_fail("status %#x", status);
		if (fifo_round_trip(fd, buf, 100, i))
			return KTAP_FAIL;
		t.len = 3 * depth;
		pid = blocking(sender, &t, SYS_write);
		if (pid < 0 || in_flight("tx", 1))
			return KTAP_FAIL;
		while (fifo_info(fd).fill != depth)
			usleep(200);
		kill(pid, SIGKILL);
		status = fifo_reap(pid, "a writer that was killed");
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			return ktap_fail("status %#x", status);
		/* What it had put in is a whole beginning, then comes what we write. */
		if (drain(fd, 1, 0) != depth || fifo_round_trip(fd, buf, depth, i))
			return KTAP_FAIL;
		t.len = 100;
	}
	return KTAP_PASS;
}

/* The limit that wait_ms sets is not for calls that block: a signal can end those. */
static int waits_longer(int fd)
{
	unsigned int depth = depth_of(fd);
	struct transfer in = { .fd = fd, .len = 100, .stream = 1 }, out = { .fd = fd, .len = 2 * depth, .stream = 2 };
	pid_t pid = blocking(receiver, &in, SYS_read), reader;

	if (pid < 0)
		return -1;
	let_settle();
	if (put(fd, 100, 1, 0) || fifo_reap_passed(pid, "the reader"))
		return -1;
	pid = blocking(sender, &out, SYS_write);
	if (pid < 0)
		return -1;
	let_settle();
	reader = fifo_fork(receiver, &out);
	return reader < 0 || fifo_reap_passed(reader, "the reader") || fifo_reap_passed(pid, "the writer") ? -1 : 0;
}

static int wait_limit(void)
{
	long long was = fifo_parameter("wait_ms");
	int err;

	if (was < 0 || fifo_parameter_set("wait_ms", 50))
		return ktap_fail("wait_ms: %s", strerror(errno));
	err = waits_longer(opened(0, O_RDWR));
	fifo_parameter_set("wait_ms", was);
	return err ? KTAP_FAIL : KTAP_PASS;
}

/* Many processes. */

struct author {
	int fd;
	uint64_t writer;
	unsigned int records;
	size_t longest;
};

static int author(void *arg)
{
	const struct author *a = arg;
	struct fifo_rng rng = fifo_rng(a->writer);
	uint8_t *buf = pages(a->longest);

	for (uint64_t i = 0; i < a->records; i++) {
		size_t len = fifo_between(&rng, sizeof(struct fifo_record), i % 5 ? 2000 : a->longest);

		fifo_record_make(buf, len, a->writer, i);
		if (!FIFO_GIVES(write(a->fd, buf, len), (ssize_t)len))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/* Writes of several processes, some longer than the FIFO, come out whole, and each one's in order. */
static int writers(void)
{
	enum { N = 5, RECORDS = 40 };
	int fd = opened(0, O_RDWR);
	size_t longest = 2 * depth_of(fd);
	uint64_t next[N] = { 0 };
	struct fifo_record r;
	struct author a[N];
	pid_t pid[N];
	uint8_t *buf = pages(longest);

	for (int i = 0; i < N; i++) {
		a[i] = (struct author){ .fd = i % 2 ? fd : opened(0, O_WRONLY), .writer = i, .records = RECORDS,
					.longest = longest };
		pid[i] = fifo_fork(author, &a[i]);
		if (pid[i] < 0)
			return KTAP_FAIL;
	}
	for (int i = 0; i < N * RECORDS; i++) {
		if (fifo_read_all(fd, buf, sizeof(r)) || fifo_record_header(buf, &r))
			return ktap_fail("record %d", i);
		if (r.writer >= N || r.length > longest || r.sequence != next[r.writer]++)
			return ktap_fail("record %llu of writer %llu, %u bytes", (unsigned long long)r.sequence,
					 (unsigned long long)r.writer, r.length);
		if (fifo_read_all(fd, buf, r.length - sizeof(r)) ||
		    fifo_record_verify(&r, buf, r.length - sizeof(r), 0))
			return ktap_fail("record %llu of writer %llu, %u bytes", (unsigned long long)r.sequence,
					 (unsigned long long)r.writer, r.length);
	}
	for (int i = 0; i < N; i++) {
		if (fifo_reap_passed(pid[i], "a writer"))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/* A record in 1024 segments, each across the edge of two pages: more pieces than a chain can have. */
static int scattered_author(void *arg)
{
	enum { SEGMENT = 2, LEN = IOV_MAX * SEGMENT };
	static struct iovec v[IOV_MAX];
	static uint8_t record[LEN];
	const struct author *a = arg;
	uint8_t *buf = pages((IOV_MAX + 1) * 2 * FIFO_PAGE);

	for (int i = 0; i < IOV_MAX; i++)
		v[i] = (struct iovec){ buf + (2 * i + 1) * FIFO_PAGE - 1, SEGMENT };
	for (uint64_t n = 0; n < a->records; n++) {
		fifo_record_make(record, LEN, a->writer, n);
		for (int i = 0; i < IOV_MAX; i++)
			memcpy(v[i].iov_base, record + i * SEGMENT, SEGMENT);
		if (!FIFO_GIVES(writev(a->fd, v, IOV_MAX), LEN))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/* A write that takes several turns of the hardware is in one piece all the same. */
static int scattered_writers(void)
{
	enum { N = 3, RECORDS = 10 };
	int fd = opened(0, O_RDWR);
	uint64_t next[N] = { 0 };
	struct fifo_record r;
	struct author a[N];
	pid_t pid[N];
	uint8_t *buf = pages(2 * IOV_MAX);

	/* All wait for the first byte to be read, so that they are in flight together. */
	if (put(fd, depth_of(fd), 1, 0))
		return KTAP_FAIL;
	for (int i = 0; i < N; i++) {
		a[i] = (struct author){ .fd = fd, .writer = i, .records = RECORDS };
		pid[i] = fifo_fork(scattered_author, &a[i]);
		if (pid[i] < 0)
			return KTAP_FAIL;
	}
	if (in_flight("tx", N))
		return KTAP_FAIL;
	for (unsigned int done = 0; done < depth_of(fd); done += sizeof(r)) {
		size_t len = depth_of(fd) - done < sizeof(r) ? depth_of(fd) - done : sizeof(r);

		if (fifo_read_all(fd, buf, len) || fifo_verify(buf, len, 1, done))
			return KTAP_FAIL;
	}
	for (int i = 0; i < N * RECORDS; i++) {
		if (fifo_read_all(fd, buf, sizeof(r)) || fifo_record_header(buf, &r) || r.writer >= N ||
		    r.length != 2 * IOV_MAX || r.sequence != next[r.writer]++ ||
		    fifo_read_all(fd, buf, r.length - sizeof(r)) ||
		    fifo_record_verify(&r, buf, r.length - sizeof(r), 0))
			return ktap_fail("record %d", i);
	}
	for (int i = 0; i < N; i++) {
		if (fifo_reap_passed(pid[i], "a writer"))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

enum { READERS = 4, WORDS = 50000 };

struct words {
	uint32_t left;		/* numbers that nobody has seen yet */
	uint8_t seen[WORDS];
};

struct word_reader {
	int fd;
	size_t room;
	struct words *words;
};

#define NO_MORE	UINT64_MAX

/* Reads numbers until there are no more, and notes which it saw. */
static int word_reader(void *arg)
{
	const struct word_reader *w = arg;
	uint64_t *buf = (uint64_t *)pages(w->room), next = 0;

	while (__atomic_load_n(&w->words->left, __ATOMIC_ACQUIRE)) {
		struct pollfd p = { .fd = w->fd, .events = POLLIN };
		ssize_t n;

		if (fcntl(w->fd, F_GETFL) & O_NONBLOCK)
			poll(&p, 1, FIFO_WAIT_MS);
		n = read(w->fd, buf, w->room);
		if (n < 0 && errno == EAGAIN)
			continue;
		if (n <= 0 || n % 8)
			return ktap_fail("read: %zd, %s", n, strerror(errno));
		for (ssize_t i = 0; i < n / 8; i++) {
			if (buf[i] == NO_MORE)
				break;
			if (buf[i] >= WORDS || buf[i] < next)
				return ktap_fail("number %llu after %llu", (unsigned long long)buf[i],
						 (unsigned long long)next - 1);
			next = buf[i] + 1;
			if (__atomic_add_fetch(&w->words->seen[buf[i]], 1, __ATOMIC_RELAXED) != 1)
				return ktap_fail("number %llu came twice", (unsigned long long)buf[i]);
			__atomic_sub_fetch(&w->words->left, 1, __ATOMIC_RELEASE);
		}
	}
	return KTAP_PASS;
}

struct reading {
	int fd;
	int failed;
	pid_t pid[READERS];
	struct words *words;
};

/* Whether all readers have ended; one that still waits is sent the word. */
static bool have_read(void *arg)
{
	struct reading *r = arg;
	uint64_t no_more = NO_MORE;
	int running = 0, status;

	for (int i = 0; i < READERS; i++) {
		if (r->pid[i] && waitpid(r->pid[i], &status, WNOHANG) == r->pid[i]) {
			r->pid[i] = 0;
			r->failed |= status;
		}
		running += !!r->pid[i];
	}
	if (running && !__atomic_load_n(&r->words->left, __ATOMIC_ACQUIRE) && !fifo_info(r->fd).fill)
		fifo_write_all(r->fd, &no_more, sizeof(no_more));
	return !running || r->failed;
}

/* Several readers, some that block and some that do not: each byte goes to one of them, in order. */
static int readers(void)
{
	struct reading r = { .fd = opened(0, O_RDWR), .words = fifo_shared(sizeof(*r.words)) };
	struct word_reader w[READERS];
	uint64_t *buf = (uint64_t *)pages(WORDS * 8);

	r.words->left = WORDS;
	for (int i = 0; i < READERS; i++) {
		w[i] = (struct word_reader){ .fd = opened(0, i % 2 ? O_RDONLY : O_RDONLY | O_NONBLOCK),
					     .room = FIFO_PAGE << i, .words = r.words };
		r.pid[i] = fifo_fork(word_reader, &w[i]);
		if (r.pid[i] < 0)
			return KTAP_FAIL;
	}
	for (int i = 0; i < WORDS; i++)
		buf[i] = i;
	if (fifo_write_all(r.fd, buf, WORDS * 8) || fifo_until(have_read, &r, "all numbers to be read") || r.failed)
		return ktap_fail("%u of %d numbers have not come", r.words->left, WORDS);
	while (fifo_info(r.fd).fill) {
		if (!FIFO_GIVES(read(r.fd, buf, 8), 8) || buf[0] != NO_MORE)
			return ktap_fail("something is left");
	}
	return KTAP_PASS;
}

struct nth {
	int fd;
	uint64_t n;
};

/* Reads the n-th byte of the stream, and no other. */
static int nth_byte(void *arg)
{
	const struct nth *n = arg;
	uint8_t byte;

	if (!FIFO_GIVES(read(n->fd, &byte, 1), 1))
		return KTAP_FAIL;
	return fifo_verify(&byte, 1, 1, n->n) ? KTAP_FAIL : KTAP_PASS;
}

/* Many wait; each gets its byte, in the order in which they came. */
static int many_blocked(void)
{
	enum { N = 60 };
	int fd = opened(0, O_RDWR);
	struct nth n[N];
	pid_t pid[N];

	for (int i = 0; i < N; i++) {
		n[i] = (struct nth){ fd, i };
		pid[i] = blocking(nth_byte, &n[i], SYS_read);
		if (pid[i] < 0 || in_flight("rx", i + 1))
			return KTAP_FAIL;
	}
	/* One wakes one. */
	if (put(fd, 1, 1, 0) || fifo_reap_passed(pid[0], "the first reader"))
		return KTAP_FAIL;
	for (int i = 1; i < N; i++) {
		if (waitpid(pid[i], NULL, WNOHANG))
			return ktap_fail("reader %d has ended, without a byte for it", i);
	}
	if (put(fd, N - 1, 1, 1))
		return KTAP_FAIL;
	for (int i = 1; i < N; i++) {
		if (fifo_reap_passed(pid[i], "a reader"))
			return ktap_fail("reader %d", i);
	}
	return KTAP_PASS;
}

/* One of those that wait goes away: the others keep their places. */
static int blocked_leaves(void)
{
	enum { N = 9 };
	int fd = opened(0, O_RDWR);
	struct nth n[N];
	pid_t pid[N];

	for (int gone = 0; gone < N; gone += 4) {
		for (int i = 0; i < N; i++) {
			n[i] = (struct nth){ fd, i - (i > gone) };
			pid[i] = blocking(nth_byte, &n[i], SYS_read);
			if (pid[i] < 0 || in_flight("rx", i + 1))
				return KTAP_FAIL;
		}
		kill(pid[gone], SIGKILL);
		fifo_reap(pid[gone], "a reader that was killed");
		if (put(fd, N - 1, 1, 0))
			return KTAP_FAIL;
		for (int i = 0; i < N; i++) {
			if (i != gone && fifo_reap_passed(pid[i], "a reader"))
				return ktap_fail("reader %d, without %d", i, gone);
		}
	}
	return KTAP_PASS;
}

/* Channels. */

static int channels(void)
{
	struct transfer from, to;
	pid_t waiting, w, r;
	int a, b;

	if (fifo_channels() < 2)
		return ktap_skip("one channel only");
	a = opened(0, O_RDWR);
	b = opened(1, O_RDWR);
	/* What goes into one comes out of that one. */
	if (put(a, 1000, 1, 0) || put(b, 2000, 2, 0) || fifo_info(a).fill != 1000 || fifo_info(b).fill != 2000 ||
	    drain(b, 2, 0) != 2000 || drain(a, 1, 0) != 1000)
		return KTAP_FAIL;
	/* A full one, or one that is waited for, does not hold up the other. */
	from = (struct transfer){ .fd = b, .len = 100, .stream = 3 };
	waiting = blocking(receiver, &from, SYS_read);
	if (waiting < 0 || through(a, MIB, 0, 0, 4) ||
	    put(b, 100, 3, 0) || fifo_reap_passed(waiting, "the reader"))
		return KTAP_FAIL;
	from.len = 3 * depth_of(b);
	waiting = blocking(sender, &from, SYS_write);
	if (waiting < 0 || through(a, MIB, 0, 0, 5))
		return KTAP_FAIL;
	r = fifo_fork(receiver, &from);
	if (r < 0 || fifo_reap_passed(waiting, "the writer") || fifo_reap_passed(r, "the reader"))
		return KTAP_FAIL;
	/* Both at once. */
	to = (struct transfer){ .fd = b, .len = 3 * MIB, .piece = 50000, .stream = 6 };
	w = fifo_fork(sender, &to);
	r = fifo_fork(receiver, &to);
	if (w < 0 || r < 0 || through(a, 3 * MIB, 70000, 10000, 7) || fifo_reap_passed(w, "the writer") ||
	    fifo_reap_passed(r, "the reader"))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* The reset of one channel does not disturb the other. */
static int channels_reset(void)
{
	struct transfer t;
	pid_t w, r;
	int a, b;

	if (fifo_channels() < 2)
		return ktap_skip("one channel only");
	a = opened(0, O_RDWR);
	b = opened(1, O_RDWR);
	t = (struct transfer){ .fd = a, .len = 4 * MIB, .piece = 50000, .stream = 1 };
	w = fifo_fork(sender, &t);
	r = fifo_fork(receiver, &t);
	if (w < 0 || r < 0)
		return KTAP_FAIL;
	for (int i = 0; i < 10; i++) {
		if (put(b, 100, 1, 0) || !FIFO_GIVES(ioctl(b, FIFO_AIO_RESET), 0) || fifo_info(b).fill)
			return KTAP_FAIL;
	}
	if (fifo_reap_passed(w, "the writer") || fifo_reap_passed(r, "the reader"))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* Files. */

static int open_modes(void)
{
	static const int flags[] = { O_RDWR | O_APPEND, O_RDWR | O_TRUNC, O_RDWR | O_CREAT, O_RDWR | O_SYNC,
				     O_RDWR | O_NOCTTY, O_RDWR | O_DIRECT | O_DSYNC | O_NONBLOCK };
	int r = opened(0, O_RDONLY), w = opened(0, O_WRONLY), fd;
	char byte = 1, path[64];
	struct iovec v = { &byte, 1 };

	if (!FIFO_FAILS(write(r, &byte, 1), EBADF) || !FIFO_FAILS(writev(r, &v, 1), EBADF) ||
	    !FIFO_FAILS(read(w, &byte, 1), EBADF) || !FIFO_FAILS(readv(w, &v, 1), EBADF) ||
	    !FIFO_FAILS(write(r, &byte, 0), EBADF) || !FIFO_FAILS(read(w, &byte, 0), EBADF))
		return KTAP_FAIL;
	/* Both halves are of the same FIFO. */
	if (!FIFO_GIVES(write(w, &byte, 1), 1) || !FIFO_GIVES(read(r, &byte, 1), 1))
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(flags); i++) {
		fd = opened(0, flags[i]);
		if (fifo_round_trip(fd, &byte, 1, i))
			return ktap_fail("flags %#o", flags[i]);
		close(fd);
	}
	if (!FIFO_FAILS(open("/dev/fifo0", O_RDONLY | O_DIRECTORY), ENOTDIR) ||
	    !FIFO_FAILS(open("/dev/fifo0", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST))
		return KTAP_FAIL;
	/* By the name that the descriptor has: another open file. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", r);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || !FIFO_GIVES(write(fd, &byte, 1), 1) || !FIFO_GIVES(read(r, &byte, 1), 1))
		return KTAP_FAIL;
	fd = open("/dev/fifo0", O_PATH | O_CLOEXEC);
	if (fd < 0 || !FIFO_FAILS(read(fd, &byte, 1), EBADF) || !FIFO_FAILS(ioctl(fd, FIFO_AIO_RESET), EBADF))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* Opening and closing leaves nothing behind: the bracket looks. */
static int open_often(void)
{
	for (unsigned int i = 0; i < fifo_rounds(3000); i++) {
		int fd = opened(i % fifo_channels(), i % 3);

		if (close(fd))
			return ktap_fail("close: %s", strerror(errno));
	}
	return KTAP_PASS;
}

/* The other calls for files say that this is none of theirs. */
static int other_calls(void)
{
	int fd = opened(0, O_RDWR);
	struct stat st;

	if (fstat(fd, &st) || !S_ISCHR(st.st_mode) || st.st_size)
		return ktap_fail("mode %o, %lld bytes", st.st_mode, (long long)st.st_size);
	if (mmap(NULL, FIFO_PAGE, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED || errno != ENODEV)
		return ktap_fail("mmap: %s", strerror(errno));
	if (!FIFO_FAILS(ftruncate(fd, 0), EINVAL) || !FIFO_FAILS(fallocate(fd, 0, 0, 1), ENODEV) ||
	    !FIFO_FAILS(syscall(SYS_getdents64, fd, &st, sizeof(st)), ENOTDIR) ||
	    !FIFO_FAILS(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE), ESPIPE))
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* What dup and fork make is the same open file; a close of one is not the last. */
static int duplicates(void)
{
	int fd = opened(0, O_RDWR), copy = dup(fd);
	struct transfer t = { .fd = fd, .len = 10, .stream = 1 };
	uint8_t *buf = pages(FIFO_PAGE);
	pid_t pid;

	if (!FIFO_GIVES(fcntl(copy, F_SETFL, O_NONBLOCK), 0) || !FIFO_FAILS(read(fd, buf, 1), EAGAIN) ||
	    !FIFO_GIVES(fcntl(fd, F_SETFL, 0), 0))
		return KTAP_FAIL;
	close(copy);
	if (fifo_round_trip(fd, buf, FIFO_PAGE, 1))
		return KTAP_FAIL;
	/* A child waits on what it has inherited; our close is not its. */
	pid = blocking(receiver, &t, SYS_read);
	if (pid < 0 || in_flight("rx", 1))
		return KTAP_FAIL;
	close(fd);
	fd = opened(0, O_RDWR);
	if (fifo_in_flight(0, "rx") == 0)
		return ktap_fail("a close has ended another process's read");
	if (put(fd, 10, 1, 0) || fifo_reap_passed(pid, "the child"))
		return KTAP_FAIL;
	return KTAP_PASS;
}

struct reading_thread {
	int fd;
	pid_t tid;
	ssize_t result;
	int error;
	uint8_t buf[64];
};

static void *reading_thread(void *arg)
{
	struct reading_thread *t = arg;

	__atomic_store_n(&t->tid, syscall(SYS_gettid), __ATOMIC_RELEASE);
	t->result = read(t->fd, t->buf, sizeof(t->buf));
	t->error = errno;
	return NULL;
}

/* A thread that waits in a call keeps its file: a close by another thread is not its end. */
static int close_meanwhile(void)
{
	struct reading_thread t = { .fd = opened(0, O_RDWR) };
	int other = opened(0, O_RDWR);
	pthread_t thread;

	if (pthread_create(&thread, NULL, reading_thread, &t))
		return ktap_fail("no thread");
	while (!__atomic_load_n(&t.tid, __ATOMIC_ACQUIRE))
		sched_yield();
	if (fifo_blocked(t.tid, SYS_read, "a read to block") || in_flight("rx", 1))
		return KTAP_FAIL;
	close(opened(0, O_RDWR));
	close(dup(t.fd));
	close(t.fd);
	if (fifo_in_flight(0, "rx") == 0)
		return ktap_fail("a close has ended a read");
	if (put(other, sizeof(t.buf), 1, 0))
		return KTAP_FAIL;
	pthread_join(thread, NULL);
	if (t.result != sizeof(t.buf))
		return ktap_fail("read: %zd, %s", t.result, strerror(t.error));
	return fifo_verify(t.buf, sizeof(t.buf), 1, 0) ? KTAP_FAIL : KTAP_PASS;
}

/* splice and sendfile. */

static bool reads_splice(void)
{
	struct utsname u;
	int major = 0, minor = 0;

	uname(&u);
	sscanf(u.release, "%d.%d", &major, &minor);
	return major > 6 || (major == 6 && minor >= 5);
}

/* From a pipe into the FIFO, over all sizes that a pipe holds. */
static int splice_in(void)
{
	int fd = opened(0, O_RDWR), now = opened(0, O_WRONLY | O_NONBLOCK), p[2];
	uint8_t *buf = pages(65536);
	loff_t off = 0;

	if (pipe2(p, O_CLOEXEC))
		return ktap_fail("pipe: %s", strerror(errno));
	for (size_t len = 1; len <= 65536; len = len * 3 + 2) {
		fifo_fill(buf, len, len, 0);
		if (fifo_write_all(p[1], buf, len))
			return KTAP_FAIL;
		for (size_t done = 0; done < len; ) {
			ssize_t n = splice(p[0], NULL, fd, NULL, len - done, SPLICE_F_MOVE);

			if (n <= 0)
				return ktap_fail("splice of %zu bytes: %zd, %s", len - done, n, strerror(errno));
			done += n;
		}
		memset(buf, 0, len);
		if (fifo_read_all(fd, buf, len) || fifo_verify(buf, len, len, 0))
			return ktap_fail("%zu bytes", len);
	}
	/* There is no position to write to. */
	if (!FIFO_GIVES(write(p[1], buf, 1), 1) || !FIFO_FAILS(splice(p[0], NULL, fd, &off, 1, 0), EINVAL))
		return KTAP_FAIL;
	/* A full FIFO. */
	if (put(fd, depth_of(fd), 1, 0) || !FIFO_FAILS(splice(p[0], NULL, now, NULL, 1, 0), EAGAIN))
		return KTAP_FAIL;
	return drain(fd, 1, 0) == depth_of(fd) ? KTAP_PASS : KTAP_FAIL;
}

static int splice_out(void)
{
	int fd = opened(0, O_RDWR), now = opened(0, O_RDONLY | O_NONBLOCK), p[2];
	uint8_t *buf = pages(65536);

	if (!reads_splice())
		return ktap_skip("this kernel does not splice from such files");
	if (pipe2(p, O_CLOEXEC))
		return ktap_fail("pipe: %s", strerror(errno));
	for (size_t len = 1; len <= 50000; len = len * 3 + 2) {
		size_t done = 0;

		if (put(fd, len, len, 0))
			return KTAP_FAIL;
		while (done < len) {
			ssize_t n = splice(fd, NULL, p[1], NULL, len - done, 0);

			if (n <= 0)
				return ktap_fail("splice of %zu bytes: %zd, %s", len - done, n, strerror(errno));
			if (!FIFO_GIVES(read(p[0], buf, n), n) || fifo_verify(buf, n, len, done))
				return KTAP_FAIL;
			done += n;
		}
	}
	return FIFO_FAILS(splice(now, NULL, p[1], NULL, 100, 0), EAGAIN) ? KTAP_PASS : KTAP_FAIL;
}

/* A file into the FIFO, to a reader in another process. */
static int sendfile_in(void)
{
	int fd = opened(0, O_RDWR), file = memfd_create("from", MFD_CLOEXEC);
	struct transfer t = { .fd = fd, .len = 300001, .stream = 1 };
	uint8_t *buf = pages(t.len);
	off_t off = 0;
	pid_t pid;

	fifo_fill(buf, t.len, t.stream, 0);
	if (file < 0 || fifo_write_all(file, buf, t.len))
		return KTAP_FAIL;
	pid = fifo_fork(receiver, &t);
	if (pid < 0)
		return KTAP_FAIL;
	while ((size_t)off < t.len) {
		ssize_t n = sendfile(fd, file, &off, t.len - off);

		if (n <= 0)
			return ktap_fail("sendfile: %zd, %s", n, strerror(errno));
	}
	return fifo_reap_passed(pid, "the reader") ? KTAP_FAIL : KTAP_PASS;
}

/* sendfile wants a position to read from. */
static int sendfile_out(void)
{
	int fd = opened(0, O_RDWR), file = memfd_create("to", MFD_CLOEXEC);

	if (put(fd, 100, 1, 0) || !FIFO_FAILS(sendfile(file, fd, NULL, 100), EINVAL))
		return KTAP_FAIL;
	return drain(fd, 1, 0) == 100 ? KTAP_PASS : KTAP_FAIL;
}

int main(int argc, char **argv)
{
#define CHECK(name)	{ #name, name }
	static const struct ktap_check checks[] = {
		CHECK(sizes), CHECK(large), CHECK(alignments), CHECK(short_reads), CHECK(order), CHECK(zero_length),
		CHECK(vectors), CHECK(vector_limits), CHECK(vector_progress),
		CHECK(rw_flags), CHECK(positions),
		CHECK(nonblock), CHECK(nowait), CHECK(nonblock_flag), CHECK(poll_states), CHECK(claims),
		CHECK(wake_in), CHECK(wake_in_by_part), CHECK(wake_out), CHECK(wake_out_slowly),
		CHECK(epoll_edges), CHECK(epoll_stream),
		CHECK(poll_reader), CHECK(poll_writer),
		CHECK(sigio_in), CHECK(sigio_out), CHECK(sigio_closed),
		CHECK(direct),
		CHECK(fsync_idle), CHECK(fsync_waits), CHECK(fsync_error),
		CHECK(read_threshold), CHECK(threshold_lowered), CHECK(coalescing),
		CHECK(ioctl_info), CHECK(ioctl_errors), CHECK(ioctl_thresholds), CHECK(thresholds_of_channels),
		CHECK(ioctl_reset), CHECK(statistics), CHECK(compat),
		CHECK(signal_read), CHECK(signal_write), CHECK(signal_restart), CHECK(signal_storm), CHECK(stopped),
		CHECK(killed), CHECK(wait_limit),
		CHECK(writers), CHECK(scattered_writers), CHECK(readers), CHECK(many_blocked), CHECK(blocked_leaves),
		CHECK(channels), CHECK(channels_reset),
		CHECK(open_modes), CHECK(open_often), CHECK(other_calls), CHECK(duplicates), CHECK(close_meanwhile),
		CHECK(splice_in), CHECK(splice_out), CHECK(sendfile_in), CHECK(sendfile_out),
	};

	long long timeout = fifo_parameter("timeout_ms");
	int status;

	/* So long that what the driver finds out only by its timeout is too late for every check. */
	if (timeout > 0 && fifo_parameter_set("timeout_ms", 60000)) {
		ktap_diag("timeout_ms: %s", strerror(errno));
		return KTAP_EXIT_FAIL;
	}
	status = fifo_run(checks, FIFO_ARRAY_SIZE(checks), argc, argv);
	if (timeout > 0)
		fifo_parameter_set("timeout_ms", timeout);
	return status;
}
