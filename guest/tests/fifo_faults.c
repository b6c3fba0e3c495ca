// SPDX-License-Identifier: MIT
/*
 * fifo_faults - what the driver does when the hardware misbehaves
 *
 * Each check has the host break the device (docs/faults.md) and looks at what
 * becomes of the requests, at the statistics, and at whether all goes on
 * afterwards. Requests must end in a bounded time, in one of the ways that
 * docs/driver.md has; no byte may be wrong, twice or out of order where a count
 * says that it was moved.
 */
#define _GNU_SOURCE
#include <limits.h>

#include "fifo.h"
#include "job.h"
#include "module.h"

/* Lengths are multiples of 8, so that words of streams stay words. */
#define N		96

/* Channel 0. */
static int fd;

/* Time passes by itself, also while this machine waits for a host that is busy. */
static bool real_time;

/* The name that the host knows the device by. */
static const char *const device = "fifo0";

/* Where things are, for plans. */

/* The physical address of the page that has p, which is in use. */
static uint64_t physical(const void *p)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (pread(pagemap, &entry, sizeof(entry), (uintptr_t)p / FIFO_PAGE * sizeof(entry)) != sizeof(entry))
		entry = 0;
	close(pagemap);
	return (entry & ((1ull << 55) - 1)) * FIFO_PAGE;
}

/* Page that the requests of this program are in. */
static uint8_t *buffer(void)
{
	static uint8_t *page;

	if (!page) {
		page = mmap(NULL, FIFO_PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0);
		memset(page, 0, FIFO_PAGE);
	}
	return page;
}

/* The range of addresses that a plan calls {NAME}; false if there is none. */
static bool place(const char *name, uint64_t *from, uint64_t *to)
{
	char ring[3] = { name[0], name[1], 0 };
	long long at;

	if (!strcmp(name, "all")) {
		*from = 0;
		*to = UINT64_MAX;
		return true;
	}
	if (!strcmp(name, "data")) {
		*from = physical(buffer());
		*to = *from + FIFO_PAGE - 1;
		return *from;
	}
	at = fifo_debug(0, ring, name + 3);	/* tx.desc, rx.comp... */
	*from = at;
	*to = at + fifo_info(fd).ring_entries * 32ull - 1;
	return at > 0;
}

/* Writes out a plan: names in braces become ranges, and each fault is our device's. */
static int expand(char *out, size_t size, const char *plan)
{
	size_t len = snprintf(out, size, "%s/", device);

	for (const char *p = plan; *p && len < size - 64; p++) {
		char name[16] = "";
		uint64_t from, to;

		if (*p == ';') {
			len += snprintf(out + len, size - len, "; %s/", device);
			while (p[1] == ' ')
				p++;
		} else if (*p == '{') {
			size_t n = strcspn(p + 1, "}");

			snprintf(name, sizeof(name), "%.*s", (int)n, p + 1);
			if (!place(name, &from, &to)) {
				ktap_diag("%s: nothing is known of {%s}", plan, name);
				return -1;
			}
			len += snprintf(out + len, size - len, "[%#llx..%#llx]", (unsigned long long)from,
					(unsigned long long)to);
			p += n + 1;
		} else {
			out[len++] = *p;
			out[len] = 0;
		}
	}
	return 0;
}

/* Arms a plan. */
__attribute__((format(printf, 1, 2)))
static int arm(const char *fmt, ...)
{
	char plan[256], text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(plan, sizeof(plan), fmt, ap);
	va_end(ap);
	return expand(text, sizeof(text), plan) ? -1 : ktap_host(NULL, 0, "fault %s", text);
}

/* Disarms it: how often its faults have fired, or -1 if one of them never has. */
static long long disarm(void)
{
	char answer[64];

	return ktap_host(answer, sizeof(answer), "clear") ? -1 : strtoll(answer, NULL, 10);
}

/* Statistics. */

/* Bits of a set of them: struct fifo_aio_ring_stats, and the device's resets. */
enum {
	ERRORS = 1 << 2,
	CANCELLED = 1 << 3,
	TIMEOUTS = 1 << 4,
	ABORTS = 1 << 5,
	RESETS = 1 << 6,
	SPURIOUS = 1 << 8,
	LOST = 1 << 9,
	DOORBELLS = 1 << 10,
	DEVICE = 1 << 11,
	TROUBLE = ERRORS | CANCELLED | TIMEOUTS | ABORTS | RESETS | SPURIOUS | LOST | DOORBELLS | DEVICE,
};

static const char *const stat_names[] = {
	"requests", "bytes", "errors", "cancelled", "timeouts", "aborts", "resets", "interrupts",
	"spurious", "lost_interrupts", "doorbells", "device_resets",
};

#define STATS	FIFO_ARRAY_SIZE(stat_names)

struct stats {
	const char *ring;
	uint64_t n[STATS];
};

static struct stats stats_of(const char *ring)
{
	struct fifo_aio_stats both = fifo_stats(fd);
	struct stats s = { .ring = ring };

	_Static_assert(sizeof(both.tx) == (STATS - 1) * sizeof(s.n[0]), "a name for each");
	memcpy(s.n, ring[0] == 't' ? &both.tx : &both.rx, sizeof(both.tx));
	s.n[STATS - 1] = slurp_number("/sys/class/fifo/fifo0/device_resets", -1);
	return s;
}

struct grown {
	const struct stats *since;
	int must;
};

static int grown_since(const struct stats *since)
{
	struct stats now = stats_of(since->ring);
	int set = 0;

	for (size_t i = 0; i < STATS; i++) {
		if (now.n[i] != since->n[i])
			set |= 1 << i;
	}
	return set;
}

static bool have_grown(void *arg)
{
	const struct grown *g = arg;

	if ((grown_since(g->since) & g->must) == g->must)
		return true;
	usleep(5000);	/* it may be a second from now */
	return false;
}

/* Whether those that must have grown have, and of the others only those that may. */
static bool grown(const struct stats *since, int must, int may, const char *what)
{
	int set;

	/*
	 * An error has two interrupts, its own and the ring's, and so have bytes
	 * that somebody polled for: one of them may come to nothing.
	 */
	may |= SPURIOUS;
	if (real_time) {
		/* Interrupts of one vector may become one. */
		must &= ~SPURIOUS;
		may |= LOST;
	}
	if (fifo_until(have_grown, &(struct grown){ since, must }, "the statistics"))
		ktap_diag("%s:", what);
	set = grown_since(since);
	for (size_t i = 0; i < STATS; i++) {
		int bit = 1 << i;

		if (must & bit && !(set & bit))
			ktap_diag("%s: %s of %s has not grown", what, stat_names[i], since->ring);
		if (set & TROUBLE & bit & ~(must | may))
			ktap_diag("%s: %s of %s has grown", what, stat_names[i], since->ring);
	}
	return !(must & ~set) && !(set & TROUBLE & ~(must | may));
}

/* What else the checks need. */

/* Settings of this program's; the old ones come back at its end. */
static struct {
	const char *name;
	long long value, old;
} settings[] = {
	{ "timeout_ms", 100, 0 },
	{ "abort_ms", 20, 0 },
	{ "wait_ms", 1000, 0 },
};

static int set_parameters(void)
{
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(settings); i++) {
		if (fifo_parameter_set(settings[i].name, settings[i].value))
			return ktap_fail("%s: %s", settings[i].name, strerror(errno));
	}
	return KTAP_PASS;
}

/* Says why faults can't be had here, or opens the channel. */
static int begin(void)
{
	if (!ktap_has_host())
		return ktap_skip("there is no host to break the device");
	fd = fifo_open(0, O_RDWR);
	return fd < 0 ? KTAP_FAIL : set_parameters();
}

static int put(uint64_t stream)
{
	uint8_t p[N];

	fifo_fill(p, N, stream, 0);
	return fifo_write_all(fd, p, N);
}

static int take(uint64_t stream)
{
	uint8_t p[N];

	return fifo_read_all(fd, p, N) || fifo_verify(p, N, stream, 0) ? -1 : 0;
}

/* Takes what is in the FIFO; how many bytes, of which size at most go to buf. -1 if that can't be done. */
static ssize_t drain(void *buf, size_t size)
{
	int own = fifo_open(0, O_RDONLY | O_NONBLOCK);
	uint8_t rest[FIFO_PAGE];
	ssize_t n, total = 0;

	if (own < 0)
		return -1;
	for (;;) {
		size_t left = (size_t)total < size ? size - total : 0;

		n = read(own, left ? (uint8_t *)buf + total : rest, left ? left : sizeof(rest));
		if (n <= 0)
			break;
		total += n;
	}
	if (n == 0 || errno != EAGAIN) {
		ktap_diag("read of what is left: %zd, %s", n, n ? strerror(errno) : "nothing");
		total = -1;
	}
	close(own);
	return total;
}

/* Nothing is left, and bytes pass by each way: 0, or what ended otherwise. */
static ssize_t passes(const char *what, bool quiet)
{
	static uint64_t stream = 1000;
	uint8_t *p = buffer();

	if (drain(NULL, 0) < 0) {
		ktap_diag("%s: afterwards the channel can't be read", what);
		return -EIO;
	}
	for (enum way way = WAY_SYNC; way <= WAY_AIO; way++) {
		ssize_t n, m;

		stream++;
		fifo_fill(p, N, stream, 0);
		n = job_do(way, fd, JOB_WRITE, p, N);
		memset(p, 0, N);
		m = n < 0 ? n : job_do(way, fd, JOB_READ, p, N);
		if (n == N && m == N && !fifo_verify(p, N, stream, 0))
			continue;
		if (!quiet)
			ktap_diag("%s: afterwards, by %s, a write ended with %zd, a read with %zd", what,
				  way_names[way], n, m);
		return n < 0 ? n : m < 0 ? m : -EILSEQ;
	}
	return 0;
}

/* All goes on. */
static int goes_on(const char *what)
{
	return passes(what, false) ? -1 : 0;
}

/* It does so before long. */
static int goes_on_again(const char *what)
{
	ssize_t err = 0;

	for (int tries = 0; tries < 30; tries++) {
		err = passes(what, true);
		if (err != -EIO && err != -ETIMEDOUT)
			break;
	}
	return err ? goes_on(what) : 0;
}

/* Reads a register, so that a fault has a crossing: FILL, at offset 0x1000. */
static int read_register(void)
{
	struct fifo_aio_info info;

	return ioctl(fd, FIFO_AIO_GET_INFO, &info);
}

/* One request, one fault. */

/* What becomes of the data. */
enum data {
	INTACT,
	ONE_BIT,	/* is wrong */
	OTHER,		/* something is wrong */
	STAYS,		/* of a read that failed: all of it is in the FIFO yet */
};

struct fault {
	const char *plan;
	int must, may;		/* statistics that grow */
	ssize_t result;		/* 0: N bytes; or -errno */
	ssize_t other;		/* another that is all right; 0: none */
	enum data data;
	bool lasts;		/* requests after it may suffer too, a while */
};

static const struct fault write_faults[] = {
	/* Interrupts. */
	{ .plan = "irq[1]:drop@next", .must = LOST },
	{ .plan = "irq[1]:delay=3ms@next" },
	{ .plan = "irq[1]:delay=1s@next", .must = LOST | SPURIOUS },
	{ .plan = "irq[1]:dup=500@next", .must = SPURIOUS },
	{ .plan = "irq[1]:swap@next", .must = LOST, .may = SPURIOUS },
	{ .plan = "irq[1]:storm=500/20ms@next", .must = SPURIOUS },
	/* Descriptors. */
	{ .plan = "dma.read{tx.desc}:error@next", .must = ERRORS | RESETS, .result = -EIO },
	{ .plan = "dma.read{tx.desc}:short@next", .must = ERRORS | RESETS, .result = -EIO },
	{ .plan = "dma.read{tx.desc}:ones@next", .must = ERRORS | RESETS, .result = -EIO },
	{ .plan = "dma.read{tx.desc}:xor=0x8000000000000000@next", .must = ERRORS | RESETS, .result = -EIO },
	{ .plan = "dma.read{tx.desc}:delay=3ms@next" },
	/* Data. */
	{ .plan = "dma.read{data}:error@next", .must = ERRORS | RESETS, .result = -EIO },
	{ .plan = "dma.read{data}:short@next", .must = ERRORS | RESETS, .result = -EIO },
	{ .plan = "dma.read{data}:flip@next", .data = ONE_BIT },
	{ .plan = "dma.read{data}:xor=0x80@next", .data = ONE_BIT },
	{ .plan = "dma.read{data}:ones@next", .data = OTHER },
	{ .plan = "dma.read{data}:delay=3ms@next" },
	/* Completions. */
	{ .plan = "dma.write{tx.comp}:error@next", .must = RESETS, .may = ERRORS, .other = -EIO },
	{ .plan = "dma.write{tx.comp}:short@next", .must = RESETS, .may = ERRORS, .other = -EIO },
	{ .plan = "dma.write{tx.comp}:short=31@next", .must = RESETS, .may = ERRORS, .other = -EIO },
	{ .plan = "dma.write{tx.comp}:xor=0xffffffffffffffff@next", .must = RESETS, .may = ERRORS, .other = -EIO },
	{ .plan = "dma.write{tx.comp}:drop@next", .must = RESETS, .may = ERRORS | TIMEOUTS | ABORTS, .result = -ETIMEDOUT,
	  .other = -EIO },
	{ .plan = "dma.write{tx.comp}:delay=3ms@next" },
	/* Doorbells: of descriptors, of completions. */
	{ .plan = "mmio.write[0x10000]:drop@next", .must = DOORBELLS },
	{ .plan = "mmio.write[0x10008]:drop@next" },
	/* Events: the ring looks, and has moved the bytes. */
	{ .plan = "event[0]:delay=3ms@next" },
	{ .plan = "event[0]:drop@1", .must = TIMEOUTS | ABORTS, .may = RESETS, .result = -ETIMEDOUT },
	{ .plan = "event[0]:drop@2", .must = TIMEOUTS | ABORTS, .may = RESETS, .result = -ETIMEDOUT, .other = N },
	{ .plan = "event[0]:delay=1s@next", .must = TIMEOUTS | ABORTS, .may = RESETS | ERRORS | DEVICE,
	  .result = -ETIMEDOUT, .other = -EIO, .lasts = true },
	/* The device. */
	{ .plan = "device:stall=3ms@next" },
	{ .plan = "device:stall=1s@next", .must = TIMEOUTS | ABORTS | RESETS, .may = ERRORS | DEVICE,
	  .result = -ETIMEDOUT, .lasts = true },
	{ .plan = "device:stall@next", .must = TIMEOUTS | ABORTS | RESETS, .may = ERRORS | DEVICE,
	  .result = -ETIMEDOUT, .lasts = true },
	{ .plan = "device:reset@next", .must = ERRORS | DEVICE, .result = -EIO },
	{ .plan = "device:reset@next on event[0]", .must = ERRORS | DEVICE, .result = -EIO },
	{ .plan = "device:reset@next on dma.read{tx.desc}", .must = ERRORS | DEVICE, .result = -EIO },
	{ .plan = "device:reset@next on dma.read{data}", .must = ERRORS | DEVICE, .result = -EIO },
	{ .plan = "device:reset@next on dma.write{tx.comp}", .must = ERRORS | DEVICE, .result = -EIO },
};

static const struct fault read_faults[] = {
	{ .plan = "irq[2]:drop@next", .must = LOST },
	{ .plan = "irq[2]:delay=3ms@next" },
	{ .plan = "irq[2]:delay=1s@next", .must = LOST | SPURIOUS },
	{ .plan = "irq[2]:dup=500@next", .must = SPURIOUS },
	{ .plan = "irq[2]:swap@next", .must = LOST, .may = SPURIOUS },
	{ .plan = "irq[2]:storm=500/20ms@next", .must = SPURIOUS },
	{ .plan = "dma.read{rx.desc}:error@next", .must = ERRORS | RESETS, .result = -EIO, .data = STAYS },
	{ .plan = "dma.read{rx.desc}:short@next", .must = ERRORS | RESETS, .result = -EIO, .data = STAYS },
	{ .plan = "dma.read{rx.desc}:ones@next", .must = ERRORS | RESETS, .result = -EIO, .data = STAYS },
	{ .plan = "dma.read{rx.desc}:xor=0x8000000000000000@next", .must = ERRORS | RESETS, .result = -EIO, .data = STAYS },
	{ .plan = "dma.read{rx.desc}:delay=3ms@next" },
	{ .plan = "dma.write{data}:error@next", .must = ERRORS | RESETS, .result = -EIO, .data = STAYS },
	{ .plan = "dma.write{data}:short@next", .must = ERRORS | RESETS, .result = -EIO, .data = STAYS },
	{ .plan = "dma.write{data}:flip@next", .data = ONE_BIT },
	{ .plan = "dma.write{data}:xor=0x80@next", .data = ONE_BIT },
	{ .plan = "dma.write{data}:drop@next", .data = OTHER },
	{ .plan = "dma.write{data}:delay=3ms@next" },
	{ .plan = "dma.write{rx.comp}:error@next", .must = RESETS, .may = ERRORS, .other = -EIO },
	{ .plan = "dma.write{rx.comp}:short@next", .must = RESETS, .may = ERRORS, .other = -EIO },
	{ .plan = "dma.write{rx.comp}:short=31@next", .must = RESETS, .may = ERRORS, .other = -EIO },
	{ .plan = "dma.write{rx.comp}:xor=0xffffffffffffffff@next", .must = RESETS, .may = ERRORS, .other = -EIO },
	{ .plan = "dma.write{rx.comp}:drop@next", .must = RESETS, .may = ERRORS | TIMEOUTS | ABORTS, .result = -ETIMEDOUT,
	  .other = -EIO },
	{ .plan = "dma.write{rx.comp}:delay=3ms@next" },
	{ .plan = "mmio.write[0x10004]:drop@next", .must = DOORBELLS },
	{ .plan = "mmio.write[0x1000c]:drop@next" },
	{ .plan = "event[1]:delay=3ms@next" },
	{ .plan = "event[1]:drop@1", .must = TIMEOUTS | ABORTS, .may = RESETS, .result = -ETIMEDOUT, .data = STAYS },
	{ .plan = "event[1]:drop@2", .must = ABORTS, .may = TIMEOUTS | RESETS, .other = -ETIMEDOUT },
	{ .plan = "event[1]:delay=1s@next", .must = TIMEOUTS | ABORTS, .may = RESETS | ERRORS | DEVICE,
	  .result = -ETIMEDOUT, .other = -EIO, .lasts = true },
	{ .plan = "device:stall=3ms@next" },
	{ .plan = "device:stall=1s@next", .must = TIMEOUTS | ABORTS | RESETS, .may = ERRORS | DEVICE,
	  .result = -ETIMEDOUT, .lasts = true },
	{ .plan = "device:stall@next", .must = TIMEOUTS | ABORTS | RESETS, .may = ERRORS | DEVICE,
	  .result = -ETIMEDOUT, .lasts = true },
	{ .plan = "device:reset@next", .must = ERRORS | DEVICE, .result = -EIO },
	{ .plan = "device:reset@next on event[1]", .must = ERRORS | DEVICE, .result = -EIO },
	{ .plan = "device:reset@next on dma.read{rx.desc}", .must = ERRORS | DEVICE, .result = -EIO },
	{ .plan = "device:reset@next on dma.write{data}", .must = ERRORS | DEVICE, .result = -EIO },
	{ .plan = "device:reset@next on dma.write{rx.comp}", .must = ERRORS | DEVICE, .result = -EIO },
};

static unsigned int wrong_bits(const uint8_t *got, uint64_t stream)
{
	uint8_t want[N];
	unsigned int bits = 0;

	fifo_fill(want, N, stream, 0);
	for (size_t i = 0; i < N; i++)
		bits += __builtin_popcount(got[i] ^ want[i]);
	return bits;
}

/* Looks at the data that a request has moved. */
static int data_right(const struct fault *f, const uint8_t *p, uint64_t stream)
{
	unsigned int bits = wrong_bits(p, stream);

	if (f->data == ONE_BIT ? bits == 1 : f->data == OTHER ? bits > 1 : bits == 0)
		return 0;
	ktap_diag("%s: %u bits of the data are wrong", f->plan, bits);
	return -1;
}

static bool one_of(ssize_t got, ssize_t a, ssize_t b)
{
	return got == (a ? a : N) || (b && got == b);
}

/* Puts a request through a fault. */
static int suffer(const struct fault *f, enum way way, enum job_direction direction)
{
	static uint64_t stream;
	struct stats before = stats_of(direction == JOB_WRITE ? "tx" : "rx");
	uint8_t *p = buffer(), copy[N];
	char what[256];
	ssize_t got;

	snprintf(what, sizeof(what), "%s by %s, %s", direction == JOB_WRITE ? "write" : "read", way_names[way], f->plan);
	stream++;
	if (direction == JOB_READ && put(stream))
		return -1;
	memset(p, 0, N);
	if (direction == JOB_WRITE)
		fifo_fill(p, N, stream, 0);
	if (arm("%s", f->plan))
		return -1;
	got = job_do(way, fd, direction, p, N);
	if (disarm() < 0) {
		ktap_diag("%s: the fault did not come to pass; the result was %zd", what, got);
		return -1;
	}
	if (!one_of(got, f->result, f->other)) {
		ktap_diag("%s: ended with %zd%s%s", what, got, got < 0 ? " " : "", got < 0 ? strerror(-got) : "");
		return -1;
	}
	if (!grown(&before, f->must, f->may, what))
		return -1;
	if (got > 0) {
		if (direction == JOB_WRITE && fifo_read_all(fd, copy, N))
			return -1;
		if (data_right(f, direction == JOB_WRITE ? copy : p, stream))
			return -1;
	} else if (f->data == STAYS && take(stream)) {
		ktap_diag("%s: what was not read has gone", what);
		return -1;
	}
	return f->lasts ? goes_on_again(what) : goes_on(what);
}

/* All of them; one that fails is no reason not to try the others. */
static int suffer_all(const struct fault *faults, size_t n, enum job_direction direction, const char *prefix)
{
	int failed = begin();
	size_t len = strlen(prefix), tried = 0;

	if (failed)
		return failed;
	for (size_t i = 0; i < n; i++) {
		if (strncmp(faults[i].plan, prefix, len))
			continue;
		/* What takes longer than a timeout is not told from it there. */
		if (real_time && strstr(faults[i].plan, "=1s@"))
			continue;
		for (enum way way = WAY_SYNC; way <= WAY_AIO; way++) {
			tried++;
			if (suffer(&faults[i], way, direction)) {
				failed++;
				ioctl(fd, FIFO_AIO_RESET);
				goes_on("a reset");
			}
		}
	}
	if (!tried || failed)
		return ktap_fail("%d of %zu", failed, tried);
	return KTAP_PASS;
}

#define SUFFER(direction, prefix)								\
	((direction) == JOB_WRITE ?								\
	 suffer_all(write_faults, FIFO_ARRAY_SIZE(write_faults), JOB_WRITE, prefix) :		\
	 suffer_all(read_faults, FIFO_ARRAY_SIZE(read_faults), JOB_READ, prefix))

static int write_interrupts(void)
{
	return SUFFER(JOB_WRITE, "irq");
}

static int read_interrupts(void)
{
	return SUFFER(JOB_READ, "irq");
}

static int write_dma(void)
{
	return SUFFER(JOB_WRITE, "dma");
}

static int read_dma(void)
{
	return SUFFER(JOB_READ, "dma");
}

static int write_doorbells(void)
{
	return SUFFER(JOB_WRITE, "mmio");
}

static int read_doorbells(void)
{
	return SUFFER(JOB_READ, "mmio");
}

static int write_events(void)
{
	return SUFFER(JOB_WRITE, "event");
}

static int read_events(void)
{
	return SUFFER(JOB_READ, "event");
}

static int write_device(void)
{
	return SUFFER(JOB_WRITE, "device");
}

static int read_device(void)
{
	return SUFFER(JOB_READ, "device");
}

/* Interrupts. */

/* One that nothing is behind: no request ends by it, and it is counted. */
static int spurious(void)
{
	int skip = begin();

	if (skip)
		return skip;
	for (int vector = 0; vector <= 4; vector++) {
		struct stats tx = stats_of("tx"), rx = stats_of("rx");
		uint8_t *p = buffer();
		char what[32];
		struct job j;

		snprintf(what, sizeof(what), "vector %d", vector);
		if (job_start(&j, WAY_AIO, fd, JOB_READ, p, N) || fifo_wait_flight(0, "rx", 1, "the read"))
			return KTAP_FAIL;
		if (arm("irq[%d]:spurious@next on mmio.read[0x1000]", vector) || read_register() || disarm() < 0)
			return KTAP_FAIL;
		if (!grown(&tx, vector == 1 ? SPURIOUS : 0, 0, what) || !grown(&rx, vector == 2 ? SPURIOUS : 0, 0, what))
			return KTAP_FAIL;
		if (job_end_within(&j, 0) != JOB_HUNG)
			return ktap_fail("vector %d: a read has ended by an interrupt, with %zd", vector, j.result);
		if (put(vector) || job_end(&j) != N || fifo_verify(p, N, vector, 0))
			return ktap_fail("vector %d: the read", vector);
		if (grown_since(&tx) & ERRORS || grown_since(&rx) & ERRORS)
			return ktap_fail("vector %d: errors", vector);
	}
	return goes_on("spurious interrupts") ? KTAP_FAIL : KTAP_PASS;
}

/* Two directions whose interrupts come in the other order. */
static int swapped(void)
{
	struct stats tx, rx;
	uint8_t *p, *q;
	struct job r, w;
	int skip = begin();

	if (skip)
		return skip;
	p = buffer();
	q = p + 1024;
	tx = stats_of("tx");
	rx = stats_of("rx");
	fifo_fill(q, N, 1, 0);
	if (arm("irq[1]:swap@next") || job_start(&r, WAY_AIO, fd, JOB_READ, p, N) ||
	    job_start(&w, WAY_AIO, fd, JOB_WRITE, q, N))
		return KTAP_FAIL;
	if (job_end(&r) != N || job_end(&w) != N || disarm() < 0 || fifo_verify(p, N, 1, 0))
		return ktap_fail("a read ended with %zd, a write with %zd", r.result, w.result);
	if (!grown(&tx, 0, 0, "swapped") || !grown(&rx, 0, 0, "swapped"))
		return KTAP_FAIL;
	return goes_on("swapped interrupts") ? KTAP_FAIL : KTAP_PASS;
}

/* Bytes pass while a plan is armed; errors are none. */
static int round_trips(unsigned int rounds, const char *what)
{
	uint8_t *p = buffer();

	for (unsigned int i = 0; i < rounds; i++) {
		enum way way = i % WAYS;
		ssize_t n, m;

		fifo_fill(p, N, i, 0);
		n = job_do(way, fd, JOB_WRITE, p, N);
		memset(p, 0, N);
		m = n < 0 ? n : job_do(way, fd, JOB_READ, p, N);
		if (n != N || m != N || fifo_verify(p, N, i, 0)) {
			ktap_diag("%s, round %u, %s: a write ended with %zd, a read with %zd", what, i, way_names[way], n, m);
			return -1;
		}
	}
	return 0;
}

static int storms(void)
{
	static const char *const plans[] = {
		"irq[1]:storm=2000/2ms@next on mmio.read[0x1000]",
		"irq[2]:storm=2000/2ms@next on mmio.read[0x1000]",
		"irq[0]:storm=2000/2ms@next on mmio.read[0x1000]",
		"irq[1]:storm=1000/300us@next; irq[2]:storm=1000/300us@next",	/* the work's own are among them */
	};
	struct stats tx, rx;
	int skip = begin();

	if (skip)
		return skip;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(plans); i++) {
		tx = stats_of("tx");
		rx = stats_of("rx");
		if (arm("%s", plans[i]) || read_register() || round_trips(20, plans[i]) || disarm() < 0)
			return KTAP_FAIL;
		if (!grown(&tx, i == 0 ? SPURIOUS : 0, SPURIOUS, plans[i]) ||
		    !grown(&rx, i == 1 ? SPURIOUS : 0, SPURIOUS, plans[i]))
			return KTAP_FAIL;
	}
	return goes_on("storms") ? KTAP_FAIL : KTAP_PASS;
}

/* Not one interrupt arrives, or each comes late, or more than once, or every other one is lost. */
static int all_interrupts(void)
{
	static const struct {
		const char *plan;
		unsigned int rounds;
		int must, may;
	} t[] = {
		{ "irq:drop@always", 8, LOST, 0 },
		{ "irq:delay=500us@always", 40, 0, SPURIOUS },
		{ "irq:dup=4@always", 40, 0, SPURIOUS },	/* a slow CPU takes them for one */
		{ "irq:drop@every 2; irq:delay=200us@every 3", 20, 0, LOST | SPURIOUS },
		{ "irq:swap@every 2", 20, 0, LOST | SPURIOUS },
	};
	int skip = begin();

	if (skip)
		return skip;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(t); i++) {
		struct stats tx = stats_of("tx"), rx = stats_of("rx");

		if (arm("%s", t[i].plan) || round_trips(t[i].rounds, t[i].plan) || disarm() < 0 ||
		    !grown(&tx, t[i].must, t[i].may, t[i].plan) || !grown(&rx, t[i].must, t[i].may, t[i].plan))
			return KTAP_FAIL;
	}
	return goes_on("no interrupts") ? KTAP_FAIL : KTAP_PASS;
}

/*
 * Completions that are held back so that an interrupt is for several: the event
 * that ends the wait is lost.
 */
static int held_back(void)
{
	struct fifo_aio_thresholds old, some = { .tx_count = 16, .tx_us = 1000, .rx_count = 16, .rx_us = 1000 };
	uint8_t *p;
	struct job j[4];
	struct stats rx;
	int skip = begin();

	if (skip)
		return skip;
	p = buffer();
	if (ioctl(fd, FIFO_AIO_GET_THRESHOLDS, &old) || ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &some))
		return ktap_fail("thresholds: %s", strerror(errno));
	for (int i = 0; i < 4; i++) {
		if (job_start(&j[i], WAY_AIO, fd, JOB_READ, p + i * N, N))
			return KTAP_FAIL;
	}
	rx = stats_of("rx");
	if (arm("event[0x101]:drop@next"))
		return KTAP_FAIL;
	for (int i = 0; i < 4; i++) {
		if (put(i))
			return KTAP_FAIL;
	}
	for (int i = 0; i < 4; i++) {
		if (job_end(&j[i]) != N || fifo_verify(p + i * N, N, i, 0))
			return ktap_fail("read %d ended with %zd", i, j[i].result);
	}
	if (disarm() < 0 || !grown(&rx, LOST, SPURIOUS, "lost event"))
		return KTAP_FAIL;
	if (ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &old))
		return ktap_fail("thresholds: %s", strerror(errno));
	return goes_on("a lost event of coalescing") ? KTAP_FAIL : KTAP_PASS;
}

/* Structures in memory that are wrong in one bit. */

/*
 * A request with a wrong bit in its descriptor or completion: its count is
 * right and so are its data, or it ends with an error. Never anything else.
 */
static int flip(enum job_direction direction, const char *target, unsigned int bit)
{
	uint8_t *p = buffer(), copy[FIFO_PAGE];
	bool completion = strstr(target, "comp");
	char what[128];
	ssize_t got;

	snprintf(what, sizeof(what), "%s, bit %u of %s", direction == JOB_WRITE ? "write" : "read", bit, target);
	if (direction == JOB_READ && put(bit))
		return -1;
	memset(p, 0, FIFO_PAGE);
	fifo_fill(p, direction == JOB_WRITE ? N : 0, bit, 0);
	if (arm("%s:flip=%u@next", target, bit))
		return -1;
	got = job_do(WAY_AIO, fd, direction, p, N);
	if (disarm() < 0)
		return -1;
	if (got > N || got == 0 || (got < 0 && got != -EIO && got != -ETIMEDOUT)) {
		ktap_diag("%s: ended with %zd", what, got);
		return -1;
	}
	/* A descriptor can say honestly that less is to be moved; a completion lies then. */
	if (got > 0 && got < N && (completion || direction == JOB_WRITE)) {
		ktap_diag("%s: a count of %zd", what, got);
		return -1;
	}
	if (got > 0 && direction == JOB_WRITE && (fifo_read_all(fd, copy, got) || fifo_verify(copy, got, bit, 0))) {
		ktap_diag("%s: other bytes were written", what);
		return -1;
	}
	if (got > 0 && direction == JOB_READ && fifo_verify(p, got, bit, 0)) {
		ktap_diag("%s: other bytes were read", what);
		return -1;
	}
	if (!fifo_all(p + N, 0, FIFO_PAGE - N)) {
		ktap_diag("%s: memory behind the buffer has changed", what);
		return -1;
	}
	return goes_on(what);
}

/* Every how many of a lot to try: all, with fifovm.long; fewer on a kernel that checks itself, and where waits are real. */
static unsigned int some(void)
{
	if (kernel_word("fifovm.long", NULL, 0))
		return 1;
	return access("/sys/kernel/debug/kmemleak", F_OK) && !real_time ? 3 : 9;
}

/* A part of the bits, chosen by the seed, or all. */
static int flips(enum job_direction direction, const char *target, unsigned int from, unsigned int to)
{
	unsigned int step = some(), failed = 0;
	int skip = begin();

	if (skip)
		return skip;
	for (unsigned int bit = from + fifo_seed() % step; bit <= to; bit += step) {
		if (flip(direction, target, bit)) {
			failed++;
			ioctl(fd, FIFO_AIO_RESET);
		}
	}
	return failed ? ktap_fail("%u bits", failed) : KTAP_PASS;
}

static int write_completion_bits(void)
{
	return flips(JOB_WRITE, "dma.write{tx.comp}", 0, 255);
}

static int read_completion_bits(void)
{
	return flips(JOB_READ, "dma.write{rx.comp}", 0, 255);
}

/* A completion that has the name of another request that is in flight: that one has not ended. */
static int wrong_cookie(void)
{
	int skip = begin();

	if (skip)
		return skip;
	for (unsigned int bit = 0; bit < 3; bit++) {
		uint8_t *p = buffer();
		struct job j[8];
		int stream = -1;

		memset(p, 0, FIFO_PAGE);
		for (int i = 0; i < 8; i++) {
			if (job_start(&j[i], WAY_AIO, fd, JOB_READ, p + i * N, N))
				return KTAP_FAIL;
		}
		if (arm("dma.write{rx.comp}:flip=%u@next", bit) || put(0))
			return KTAP_FAIL;
		for (int i = 0; i < 8; i++) {
			ssize_t n = job_end(&j[i]);

			if (n != N && n != -EIO)
				return ktap_fail("bit %u: read %d ended with %zd", bit, i, n);
			/* Some bytes may be lost with an error; what comes is in order. */
			while (n == N && ++stream <= 8 && fifo_differs(p + i * N, N, stream, 0) >= 0)
				;
			if (stream > 8)
				return ktap_fail("bit %u: read %d ended without bytes of its own", bit, i);
			for (int k = 1; i == 0 && k <= 8; k++) {
				if (put(k))
					return KTAP_FAIL;
			}
		}
		if (disarm() < 0 || goes_on("another's cookie"))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/*
 * Addresses are not among them, as nobody can tell that they are wrong: nor are
 * lengths for which the hardware would read, or write, what is not ours.
 */
static int write_descriptor_bits(void)
{
	int result = flips(JOB_WRITE, "dma.read{tx.desc}", 64, 64 + 11);

	return result ? result : flips(JOB_WRITE, "dma.read{tx.desc}", 84, 255);
}

static int read_descriptor_bits(void)
{
	int result = flips(JOB_READ, "dma.read{rx.desc}", 64, 64 + 11);

	return result ? result : flips(JOB_READ, "dma.read{rx.desc}", 84, 255);
}

/* A doorbell that says something else than was written to it. */
static int doorbell_bits(void)
{
	static const char *const bells[] = { "0x10000", "0x10008", "0x1000c" };
	int skip = begin();

	if (skip)
		return skip;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(bells); i++) {
		for (unsigned int bit = 0; bit < 12; bit += 3) {
			uint8_t *p = buffer();
			ssize_t n, m;

			fifo_fill(p, N, bit, 0);
			if (arm("mmio.write[%s]:flip=%u@next", bells[i], bit))
				return KTAP_FAIL;
			n = job_do(WAY_AIO, fd, JOB_WRITE, p, N);
			memset(p, 0, N);
			m = n < 0 ? n : job_do(WAY_AIO, fd, JOB_READ, p, N);
			if (disarm() < 0)
				return KTAP_FAIL;
			if ((n != N && n != -EIO && n != -ETIMEDOUT) || (m != N && m != -EIO && m != -ETIMEDOUT))
				return ktap_fail("%s, bit %u: %zd and %zd", bells[i], bit, n, m);
			if (n == N && m == N && fifo_verify(p, N, bit, 0))
				return ktap_fail("%s, bit %u: other bytes", bells[i], bit);
			if (goes_on(bells[i]))
				return KTAP_FAIL;
		}
	}
	return KTAP_PASS;
}

/* The hardware hears nothing of completions that were taken, until their ring is full. */
static int completions_not_taken(void)
{
	unsigned int entries, failed = 0;
	uint8_t *p;
	int skip = begin();

	if (skip)
		return skip;
	p = buffer();
	entries = fifo_info(fd).ring_entries;
	if (arm("mmio.write[0x10008]:drop@1..%u; mmio.write[0x1000c]:drop@1..%u", entries + 10, entries + 10))
		return KTAP_FAIL;
	for (unsigned int i = 0; i < entries + 100; i++) {
		ssize_t n, m;

		fifo_fill(p, 8, i, 0);
		n = write(fd, p, 8);
		m = n < 0 ? n : read(fd, p, 8);
		if (n < 0 || m < 0) {
			failed++;
			drain(NULL, 0);
		}
		if (n == 8 && m == 8 && fifo_verify(p, 8, i, 0))
			return ktap_fail("round %u: other bytes", i);
	}
	if (disarm() < 0)
		return KTAP_FAIL;
	if (failed > 20)
		return ktap_fail("%u of %u failed", failed, entries + 100);
	return goes_on("completions that were not taken") ? KTAP_FAIL : KTAP_PASS;
}

/* Registers. */

/* Reads that are wrong: bytes pass all the same, or there is an error. */
static int wrong_reads(void)
{
	static const char *const plans[] = {
		"mmio.read{all}:ones@next",
		"mmio.read{all}:flip@every 3",
		"mmio.read{all}:stale@every 2",
		"mmio.read[0x1000]:stale@every 2",
		"mmio.read[0x1000]:flip@every 2",
		"mmio.read[0x1000]:ones@next",
		"mmio.read[0x1000]:stuck0=0xffffffff@always",
	};
	int skip = begin();

	if (skip)
		return skip;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(plans); i++) {
		unsigned int errors = 0;
		uint8_t *p = buffer();

		if (arm("%s", plans[i]))
			return KTAP_FAIL;
		for (int round = 0; round < 10; round++) {
			ssize_t n, m;

			/* So that there is a read of a register even if the driver needs none. */
			for (int j = 0; j < 3; j++)
				read_register();
			fifo_fill(p, N, round, 0);
			n = job_do(WAY_AIO, fd, JOB_WRITE, p, N);
			memset(p, 0, N);
			m = n < 0 ? n : job_do(WAY_AIO, fd, JOB_READ, p, N);
			errors += n < 0 || m < 0;
			if (n > 0 && m > 0 && (n != N || m != N || fifo_verify(p, N, round, 0)))
				return ktap_fail("%s: %zd and %zd bytes", plans[i], n, m);
			if (n > 0 && m < 0)
				drain(NULL, 0);
		}
		if (disarm() < 0)
			return KTAP_FAIL;
		if (errors)
			ktap_diag("%s: %u of 10 refused", plans[i], errors);
		ioctl(fd, FIFO_AIO_RESET);
		if (goes_on(plans[i]))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/* Aborts. */

/*
 * Cancels a read, with the abort in trouble. The read behind it is what the
 * hardware is at then, and may be lost with a reset of the ring; the one behind
 * that goes on.
 */
static int cancel_in_trouble(const char *plan)
{
	struct stats rx = stats_of("rx");
	uint8_t *p = buffer();
	struct io_event event;
	struct job j[3];
	ssize_t n;
	int err;

	for (int i = 0; i < 3; i++) {
		if (job_start(&j[i], WAY_AIO, fd, JOB_READ, p + i * N, N))
			return -1;
	}
	if (arm("%s", plan))
		return -1;
	err = io_cancel(j[0].ctx, &j[0].iocb, &event);
	if (err != -EINPROGRESS) {
		ktap_diag("%s: io_cancel: %s", plan, strerror(-err));
		return -1;
	}
	n = job_end(&j[0]);
	if (n != -ECANCELED && n != -EIO) {
		ktap_diag("%s: the cancelled read ended with %zd", plan, n);
		return -1;
	}
	if (put(77) || put(78))
		return -1;
	n = job_end(&j[1]);
	if (n != -EIO && (n < N || fifo_verify(p + N, N, 77, 0))) {
		ktap_diag("%s: the second read ended with %zd", plan, n);
		return -1;
	}
	err = n == -EIO;
	n = job_end(&j[2]);
	if (n == -EIO ? !(grown_since(&rx) & DEVICE) : n != N || fifo_verify(p + 2 * N, N, err ? 77 : 78, 0)) {
		ktap_diag("%s: the third read ended with %zd", plan, n);
		return -1;
	}
	return disarm() < 0 || goes_on_again(plan) ? -1 : 0;
}

static int lost_aborts(void)
{
	static const char *const plans[] = {
		"mmio.write[0x1240..0x1247]:drop@next",
		"mmio.write[0x1240]:flip=0@next",
		"event[0x401]:drop@next",
		"event[0x401]:delay=3ms@next",
		"event[0x401]:delay=1s@next",
		"mmio.read[0x1248]:stuck1=3@always",	/* ABORT_STATUS: pending for ever */
		"dma.write{rx.comp}:drop@next",
		"dma.write{rx.comp}:error@next",
		"dma.write{rx.comp}:flip=192@next",
		"irq[2]:drop@next",
	};
	int skip = begin(), failed = 0;

	if (skip)
		return skip;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(plans); i++) {
		if (real_time && strstr(plans[i], "=1s@"))
			continue;
		if (cancel_in_trouble(plans[i])) {
			failed++;
			ioctl(fd, FIFO_AIO_RESET);
		}
	}
	return failed ? ktap_fail("%d of them", failed) : KTAP_PASS;
}

/* Escalation. */

/* The reset of a ring does not help: the device's does, or nothing does as long as the fault is there. */
static int ring_reset_lost(void)
{
	static const char *const plans[] = {
		/* The ring hangs, is not aborted, and can't be reset. */
		"event[1]:drop@next; event[0x401]:drop@next; mmio.write[0x1200]:drop@always",
		/* The reset leaves it as it is not to be. */
		"event[1]:drop@next; mmio.read[0x1208]:stuck0=0xffffffff@always",
		"dma.read{rx.desc}:error@1..100",
		"dma.write{rx.comp}:error@1..100",
	};
	int skip = begin(), failed = 0;

	if (skip)
		return skip;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(plans); i++) {
		struct stats rx = stats_of("rx");
		ssize_t n = 0, m = 0;

		if (arm("%s", plans[i]))
			return KTAP_FAIL;
		for (int tries = 0; tries < 10; tries++) {
			m = job_do(WAY_AIO, fd, JOB_WRITE, buffer(), N);
			n = m < 0 ? m : job_do(WAY_AIO, fd, JOB_READ, buffer(), N);
			if (n != N && n != -EIO && n != -ETIMEDOUT) {
				failed++;
				ktap_diag("%s: a write ended with %zd, a read with %zd", plans[i], m, n);
			}
		}
		if (disarm() < 0 || !grown(&rx, DEVICE, TROUBLE, plans[i]))
			failed++;
		/* It may have been given up. */
		if (ioctl(fd, FIFO_AIO_RESET))
			return ktap_fail("%s: reset: %s", plans[i], strerror(errno));
		if (goes_on(plans[i]))
			failed++;
	}
	return failed ? ktap_fail("%d of them", failed) : KTAP_PASS;
}

/*
 * One of the writes that a reset of the ring is made of is lost. What the
 * hardware has of before must not come to life: memory that was given back
 * stays as it is, and what is written is what was meant.
 */
static int half_reset(void)
{
	int skip = begin(), failed = 0;
	uint8_t *p, *old;

	if (skip)
		return skip;
	p = buffer();
	old = p + 2048;
	for (int ring = 0; ring < 2; ring++) {
		enum job_direction direction = ring ? JOB_READ : JOB_WRITE;

		for (int lost = 1; lost <= 3; lost++) {
			ssize_t n;

			if (ioctl(fd, FIFO_AIO_RESET) || (ring && put(5)))
				return KTAP_FAIL;
			fifo_fill(old, N, 6, 0);
			if (arm("event[%d]:drop@next; event[%#x]:drop@next; mmio.write[%#x]:drop@%d", ring, 0x400 + ring,
				0x1100 + 0x100 * ring, lost))
				return KTAP_FAIL;
			n = job_do(WAY_AIO, fd, direction, old, N);
			memset(old, 0x5a, N);
			if (n != -ETIMEDOUT && n != -EIO) {
				failed++;
				ktap_diag("ring %d, write %d: ended with %zd", ring, lost, n);
			}
			/* Nothing of before is to come out of the FIFO, or to go into the old memory. */
			failed += goes_on_again("half a reset") ? 1 : 0;
			failed += goes_on("half a reset") ? 1 : 0;
			if (!fifo_all(old, 0x5a, N)) {
				failed++;
				ktap_diag("ring %d, write %d: memory of before has changed", ring, lost);
			}
			if (disarm() < 0)
				failed++;
		}
	}
	return failed ? ktap_fail("%d of them", failed) : KTAP_PASS;
}

struct poller {
	int fd, revents, ended;
};

static void *poller_run(void *arg)
{
	struct poller *p = arg;
	struct pollfd f = { .fd = p->fd, .events = POLLIN };

	if (poll(&f, 1, FIFO_WAIT_MS) > 0)
		p->revents = f.revents;
	fifo_gate_open(p->ended, 1);
	return NULL;
}

/* Requests of all kinds, in flight. */
struct crowd {
	struct job sync_read, aio_read, uring_read, sync_write, aio_write;
	struct poller poller;
	pthread_t thread;
	uint8_t *p;
};

/* Reads on an empty FIFO, writes that it has no room for: not both at once. */
static int crowd_start(struct crowd *c, bool writes)
{
	size_t depth = fifo_info(fd).depth;

	c->p = mmap(NULL, 2 * depth, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	c->poller = (struct poller){ .fd = fd, .ended = fifo_gate() };
	if (writes) {
		if (job_start(&c->sync_write, WAY_SYNC, fd, JOB_WRITE, c->p, 2 * depth) ||
		    fifo_wait_flight(0, "tx", 1, "a write") ||
		    job_start(&c->aio_write, WAY_AIO, fd, JOB_WRITE, c->p, N))
			return -1;
		if (!fifo_wait_flight(0, "tx", 2, "two writes"))
			return 0;
		ktap_diag("a write of %zu bytes: %zd; one of %d: %zd", 2 * depth, job_end_within(&c->sync_write, 0), N,
			  job_end_within(&c->aio_write, 0));
		return -1;
	}
	if (pthread_create(&c->thread, NULL, poller_run, &c->poller))
		return -1;
	return job_start(&c->sync_read, WAY_SYNC, fd, JOB_READ, c->p, N) ||
	       job_start(&c->aio_read, WAY_AIO, fd, JOB_READ, c->p + N, N) ||
	       job_start(&c->uring_read, WAY_URING, fd, JOB_READ, c->p + 2 * N, N) ||
	       fifo_wait_flight(0, "rx", 2, "two reads") ? -1 : 0;
}

static bool crowd_job(struct job *j, const int *errors, const char *what)
{
	ssize_t n = job_end(j);

	for (int i = 0; errors[i]; i++) {
		if (n == -errors[i])
			return true;
	}
	ktap_diag("%s: by %s, a %s ended with %zd", what, way_names[j->way],
		  j->direction == JOB_WRITE ? "write" : "read", n);
	return false;
}

/* All have ended with one of the errors, and who polls knows. */
static int crowd_ended(struct crowd *c, bool writes, const int *errors, const char *what)
{
	bool ok;

	if (writes) {
		/* What a blocking write has got into the FIFO before may count. */
		job_end(&c->sync_write);
		return crowd_job(&c->aio_write, errors, what) ? 0 : -1;
	}
	ok = crowd_job(&c->sync_read, errors, what);
	ok = crowd_job(&c->aio_read, errors, what) && ok;
	ok = crowd_job(&c->uring_read, errors, what) && ok;
	if (fifo_gate_pass(c->poller.ended, "poll to be told"))
		return -1;
	pthread_join(c->thread, NULL);
	if (!(c->poller.revents & POLLERR)) {
		ktap_diag("%s: poll says %#x", what, c->poller.revents);
		ok = false;
	}
	return ok ? 0 : -1;
}

/* Whatever is asked of a channel that does not work gets the error, at once. */
static bool refuses(int error, const char *what)
{
	uint8_t p[N] = { 0 };
	bool ok = true;

	for (enum way way = 0; way < WAYS; way++) {
		ssize_t n = job_do(way, fd, JOB_WRITE, p, N), m = job_do(way, fd, JOB_READ, p, N);

		if (n != -error || m != -error) {
			ktap_diag("%s: by %s, a write ended with %zd, a read with %zd", what, way_names[way], n, m);
			ok = false;
		}
	}
	return ok;
}

/* Whether poll says that the channel does not work. */
static bool broken(void)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };

	return poll(&p, 1, 0) == 1 && p.revents & POLLERR;
}

/*
 * Nothing that is written arrives any more: no reset can help, and the device is
 * given up. Until it is reset when it hears again.
 */
static int given_up(void)
{
	static const int errors[] = { EIO, ETIMEDOUT, 0 };
	int skip = begin();
	struct crowd c;

	if (skip)
		return skip;
	for (int writes = 0; writes < 2; writes++) {
		if (crowd_start(&c, writes) || arm("mmio.write{all}:drop@always"))
			return KTAP_FAIL;
		/* One request after the other shows that resets do not help. */
		for (int tries = 0; tries < 20 && !broken(); tries++)
			job_do(WAY_AIO, fd, writes ? JOB_READ : JOB_WRITE, c.p, N);
		if (!broken())
			return ktap_fail("the device is not given up");
		if (crowd_ended(&c, writes, errors, "given up"))
			return KTAP_FAIL;
		if (!refuses(EIO, "given up"))
			return KTAP_FAIL;
		if (disarm() < 0)
			return KTAP_FAIL;
		if (!broken() || !refuses(EIO, "given up, and not reset yet"))
			return KTAP_FAIL;
		if (ioctl(fd, FIFO_AIO_RESET))
			return ktap_fail("given up: FIFO_AIO_RESET: %s", strerror(errno));
		if (goes_on("given up, and reset"))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/* The PCI function, and the driver's being there. */

/* The function's address, as sysfs has it. */
static int address_of(char *address, size_t size)
{
	char path[PATH_MAX];
	const char *name;

	if (!realpath("/sys/class/fifo/fifo0/device", path)) {
		ktap_diag("/sys/class/fifo/fifo0/device: %s", strerror(errno));
		return -1;
	}
	name = strrchr(path, '/') + 1;
	snprintf(address, size, "%s", name);
	return 0;
}

static bool is_there(void *arg)
{
	(void)arg;
	return !access("/dev/fifo0", F_OK) && !access("/dev/fifo1", F_OK);
}

/* Opens the channel anew, when it has come. */
static int reopen(void)
{
	close(fd);
	if (fifo_until(is_there, NULL, "/dev/fifo0 to be there again"))
		return -1;
	fd = fifo_open(0, O_RDWR);
	return fd < 0 ? -1 : 0;
}

/* Has the driver take the function, or let it go: file bind or unbind. */
static int driver_file(const char *file, const char *address)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/fifo_aio/%s", file);
	return spit(path, address);
}

/* Gets the channel to work again after whatever there was. */
static int recover(void)
{
	char address[32];

	if (!ioctl(fd, FIFO_AIO_RESET))
		return 0;
	if (errno != ENODEV) {
		ktap_diag("FIFO_AIO_RESET: %s", strerror(errno));
		return -1;
	}
	/* It is taken for gone. */
	if (address_of(address, sizeof(address)) || driver_file("unbind", address) || driver_file("bind", address)) {
		ktap_diag("it can't be bound again: %s", strerror(errno));
		return -1;
	}
	return reopen();
}

/*
 * A bit of all registers in a range is stuck. A read is cancelled meanwhile, and
 * a write makes the driver look what the matter is: they end.
 */
static int stuck_bit(const char *range, unsigned int bit, int value)
{
	uint8_t *p = buffer();
	struct io_event event;
	char what[96];
	struct job r;
	ssize_t n, m;

	snprintf(what, sizeof(what), "mmio.read%s:stuck%d=%#x@always", range, value, 1u << bit);
	if (job_start(&r, WAY_AIO, fd, JOB_READ, p + 1024, N) || arm("%s; event[0]:drop@next", what))
		return -1;
	if (!r.refused)
		io_cancel(r.ctx, &r.iocb, &event);
	n = job_end(&r);
	if (n != -ECANCELED && n != -EIO && n != -ENODEV) {
		ktap_diag("%s: a cancelled read ended with %zd", what, n);
		return -1;
	}
	fifo_fill(p, N, bit, 0);
	n = job_do(WAY_AIO, fd, JOB_WRITE, p, N);
	memset(p, 0, N);
	m = n == N ? job_do(WAY_AIO, fd, JOB_READ, p, N) : 0;
	if (n != N && n != -EIO && n != -ETIMEDOUT && n != -ENODEV && n != -EAGAIN) {
		ktap_diag("%s: a write ended with %zd", what, n);
		return -1;
	}
	if (m > 0 && (m != N || fifo_verify(p, N, bit, 0))) {
		ktap_diag("%s: other bytes", what);
		return -1;
	}
	/* The event is lost at the next doorbell, if none has arrived; a FIFO that looks full is a reason to wait. */
	if (n < 0)
		job_do(WAY_AIO, fd, JOB_WRITE, p, N);
	if (disarm() < 0)
		return -1;
	return recover() || goes_on_again(what) ? -1 : 0;
}

static int stuck_bits(void)
{
	static const char *const ranges[] = {
		"[0x1100..0x11ff]",	/* the TX ring's */
		"[0x1200..0x12ff]",	/* the RX ring's */
		"[0x1000..0x10ff]",	/* the channel's */
		"[0x10..0x13]",		/* CONTROL */
	};
	unsigned int step, failed = 0;
	int skip = begin();

	if (skip)
		return skip;
	step = some();
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(ranges); i++) {
		for (unsigned int n = fifo_seed() % step; n < 64; n += step) {
			if (stuck_bit(ranges[i], n / 2, n % 2)) {
				failed++;
				ktap_host(NULL, 0, "clear");
				if (recover() || goes_on_again("a stuck bit"))
					return KTAP_FAIL;
			}
		}
	}
	return failed ? ktap_fail("%u bits", failed) : KTAP_PASS;
}

/* The device has been pulled out: the kernel gets to know, and it is put back. */
static int replug(const char *address)
{
	char path[96];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove", address);
	if (spit(path, "1")) {
		ktap_diag("%s: %s", path, strerror(errno));
		return -1;
	}
	if (!access("/dev/fifo0", F_OK)) {
		ktap_diag("/dev/fifo0 is there without a device");
		return -1;
	}
	if (ktap_host(NULL, 0, "plug %s", device))
		return -1;
	if (spit("/sys/bus/pci/rescan", "1")) {
		ktap_diag("/sys/bus/pci/rescan: %s", strerror(errno));
		return -1;
	}
	return reopen();
}

/* Pulled out with requests in flight: all end with ENODEV, and so does all else. */
static int removal(void)
{
	static const int errors[] = { ENODEV, 0 };
	int skip = begin(), old;
	struct crowd c;
	char address[32];

	if (skip)
		return skip;
	for (int writes = 0; writes < 2; writes++) {
		struct fifo_aio_info info;
		struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };

		if (address_of(address, sizeof(address)) || crowd_start(&c, writes))
			return KTAP_FAIL;
		if (arm("device:remove@next on mmio.read[0x1000]"))
			return KTAP_FAIL;
		if (!read_register() || errno != ENODEV)
			return ktap_fail("FIFO_AIO_GET_INFO without a device: %s", strerror(errno));
		if (crowd_ended(&c, writes, errors, "removed"))
			return KTAP_FAIL;
		if (!refuses(ENODEV, "removed"))
			return KTAP_FAIL;
		if (poll(&p, 1, 0) != 1 || (p.revents & (POLLERR | POLLHUP)) != (POLLERR | POLLHUP))
			return ktap_fail("removed: poll says %#x", p.revents);
		if (!ioctl(fd, FIFO_AIO_RESET) || errno != ENODEV)
			return ktap_fail("removed: FIFO_AIO_RESET: %s", strerror(errno));
		if (disarm() < 0)
			return KTAP_FAIL;
		/* An open file of before stays without a device, also when there is one again. */
		old = dup(fd);
		if (replug(address))
			return KTAP_FAIL;
		if (!ioctl(old, FIFO_AIO_GET_INFO, &info) || errno != ENODEV)
			return ktap_fail("an open file has another device now");
		close(old);
		if (goes_on("plugged in again"))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/* All registers read as ones, but the device is there: afterwards it can be had back. */
static int all_ones(void)
{
	static const int errors[] = { ENODEV, EIO, 0 };
	char address[32];
	int skip = begin();
	struct crowd c;

	if (skip)
		return skip;
	if (address_of(address, sizeof(address)) || crowd_start(&c, false) || arm("mmio.read:ones@always"))
		return KTAP_FAIL;
	read_register();
	if (crowd_ended(&c, false, errors, "all ones") || disarm() < 0)
		return KTAP_FAIL;
	if (ioctl(fd, FIFO_AIO_RESET)) {
		if (errno != ENODEV)
			return ktap_fail("all ones: FIFO_AIO_RESET: %s", strerror(errno));
		if (driver_file("unbind", address) || driver_file("bind", address) || reopen())
			return ktap_fail("can't be bound again: %s", strerror(errno));
	}
	return goes_on("all ones") ? KTAP_FAIL : KTAP_PASS;
}

/* Faults at setup. */

/* What becomes of binding. */
enum bound {
	EITHER,		/* it works, or is refused */
	WORKS,
	REFUSED,
};

/*
 * The driver takes a device that is not in order: it refuses in time, or what
 * it says works does.
 */
static int binding(void)
{
	static const struct {
		const char *plan;
		enum bound bound;
	} t[] = {
		{ "mmio.read:ones@always", REFUSED },
		{ "mmio.read[0]:flip=3@always", REFUSED },		/* ID */
		{ "mmio.read[4]:xor=0x30000@always", REFUSED },		/* VERSION: another major one */
		{ "mmio.read[4]:xor=0x10@always", WORKS },		/* another minor one */
		{ "mmio.read[8]:stuck0=0xff@always", REFUSED },		/* CAPS: no channel */
		{ "mmio.read[8]:stuck1=0xff@always", REFUSED },		/* 255 of them */
		{ "mmio.read[0xc]:stuck0=0xffffffff@always", REFUSED },	/* MAX_LENGTH */
		{ "mmio.read[0x1c]:stuck0=0xffffffff@always", REFUSED },	/* DEPTH */
		{ "mmio.read[0x14]:stuck0=1@always", REFUSED },		/* never READY */
		{ "mmio.read[0x14]:stuck0=1@1..3", WORKS },
		{ "event[0x300]:drop@next", WORKS },			/* so the soft reset does not end */
		{ "device:stall@next", WORKS },
		{ "mmio.write[0x10]:drop@1", EITHER },			/* CONTROL: reset */
		{ "mmio.write[0x10]:drop@2", EITHER },			/* or ENABLE */
		{ "mmio.write[0x38]:flip=1@next", EITHER },		/* ERROR_VECTOR */
		{ "mmio.write[0x1108]:flip=13@next", EITHER },		/* TX: BASE */
		{ "mmio.write[0x1110]:flip=0@next", EITHER },		/* SIZE */
		{ "mmio.write[0x1110]:drop@next", EITHER },
		{ "mmio.write[0x1120]:flip=13@next", EITHER },		/* COMP_BASE */
		{ "mmio.write[0x1128]:flip=0@next", EITHER },		/* COMP_SIZE */
		{ "mmio.write[0x1128]:drop@next", EITHER },
		{ "mmio.write[0x1150]:flip=1@next", EITHER },		/* VECTOR */
		{ "mmio.write[0x1100]:drop@always", EITHER },		/* RING_CONTROL */
		{ "mmio.write[0x1208]:flip=13@next", EITHER },		/* RX */
		{ "mmio.write[0x1210]:flip=1@next", EITHER },
		{ "mmio.write[0x1220]:flip=13@next", EITHER },
		{ "mmio.write[0x1228]:flip=1@next", EITHER },
		{ "mmio.write[0x1250]:flip=0@next", EITHER },
		{ "mmio.write:drop@always", REFUSED },
		{ "device:remove@next", REFUSED },
	};
	char address[32];
	int skip = begin(), failed = 0;

	if (skip)
		return skip;
	if (address_of(address, sizeof(address)))
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(t); i++) {
		bool removed = strstr(t[i].plan, "remove"), bound;

		close(fd);
		fd = -1;
		if (driver_file("unbind", address))
			return ktap_fail("unbind: %s", strerror(errno));
		if (arm("%s", t[i].plan))
			return KTAP_FAIL;
		bound = !driver_file("bind", address);
		if (bound == (t[i].bound == REFUSED) && t[i].bound != EITHER) {
			failed++;
			ktap_diag("%s: the driver %s the device", t[i].plan, bound ? "takes" : "refuses");
		}
		if (bound && (reopen() || goes_on(t[i].plan)))
			failed++;
		if (disarm() < 0)
			failed++;
		if (removed) {
			if (replug(address))
				return KTAP_FAIL;
			bound = true;
		}
		if (!bound && driver_file("bind", address))
			return ktap_fail("%s: afterwards it can't be bound: %s", t[i].plan, strerror(errno));
		if (reopen())
			return KTAP_FAIL;
		/* Broken as it was taken, it may not be in order before a reset. */
		if (goes_on(t[i].plan))
			failed++;
	}
	return failed ? ktap_fail("%d of %zu", failed, FIFO_ARRAY_SIZE(t)) : KTAP_PASS;
}

/*
 * Sweeps: the n-th crossing of a small piece of work is broken, for each n.
 */

#define REQUESTS	3
#define SIZE		5000	/* of each, in two pieces */
#define WORDS		(SIZE / 8)

static uint8_t *area;

/* The pieces of a request, which are not next to each other. */
static void pieces(struct iovec *v, unsigned int n)
{
	uint8_t *p = area + n * 4 * FIFO_PAGE;

	v[0] = (struct iovec){ p + 2 * FIFO_PAGE + 8, 2504 };
	v[1] = (struct iovec){ p + FIFO_PAGE - 1000, SIZE - 2504 };
}

/* Appends n bytes of a request to what has come out. */
static size_t gather(uint8_t *out, const struct iovec *v, size_t n)
{
	size_t first = n < v[0].iov_len ? n : v[0].iov_len;

	memcpy(out, v[0].iov_base, first);
	memcpy(out + first, v[1].iov_base, n - first);
	return n;
}

/* What a piece of work has come to. */
struct outcome {
	ssize_t written[REQUESTS], read[REQUESTS];
	bool failed;		/* one of them */
	uint8_t out[2 * REQUESTS * SIZE];
	ssize_t length;
};

static bool proper_end(ssize_t n, bool write, bool removed)
{
	if (n > 0)
		return write ? n == SIZE : n <= SIZE;
	return n == -EIO || n == -ETIMEDOUT || (removed && n == -ENODEV);
}

/*
 * Some reads, and some writes that they get. Words are numbered: word i of
 * write k is k * WORDS + i + 1.
 */
static int work(struct outcome *o, bool removed, const char *what)
{
	struct job reads[REQUESTS], writes[REQUESTS];
	struct iovec v[2];
	uint64_t word = 0;

	memset(o, 0, sizeof(*o));
	for (unsigned int i = 0; i < REQUESTS; i++) {
		pieces(v, i);
		if (job_startv(&reads[i], WAY_AIO, fd, JOB_READ, v, 2))
			return -1;
	}
	for (unsigned int i = 0; i < REQUESTS; i++) {
		pieces(v, REQUESTS + i);
		for (int k = 0; k < 2; k++) {
			for (size_t at = 0; at < v[k].iov_len; at += 8) {
				word++;
				memcpy((uint8_t *)v[k].iov_base + at, &word, 8);
			}
		}
		if (job_startv(&writes[i], WAY_AIO, fd, JOB_WRITE, v, 2))
			return -1;
	}
	for (unsigned int i = 0; i < REQUESTS; i++) {
		o->written[i] = job_end(&writes[i]);
		if (!proper_end(o->written[i], true, removed)) {
			ktap_diag("%s: write %u ended with %zd", what, i, o->written[i]);
			return -1;
		}
		o->failed |= o->written[i] < 0;
	}
	for (unsigned int i = 0; i < REQUESTS; i++) {
		o->read[i] = job_end(&reads[i]);
		if (!proper_end(o->read[i], false, removed)) {
			ktap_diag("%s: read %u ended with %zd", what, i, o->read[i]);
			return -1;
		}
		o->failed |= o->read[i] < 0;
		pieces(v, i);
		if (o->read[i] > 0)
			o->length += gather(o->out + o->length, v, o->read[i]);
	}
	return 0;
}

/* Looks at the words that have come out: each at most once, in order, and all if nothing has failed. */
static int work_right(const struct outcome *o, const char *what)
{
	uint64_t word, last = 0;

	for (ssize_t at = 0; at < o->length; at += 8) {
		memcpy(&word, o->out + at, 8);
		if (word <= last || word > REQUESTS * WORDS || (word != last + 1 && !o->failed)) {
			ktap_diag("%s: word %#llx behind word %llu", what, (unsigned long long)word,
				  (unsigned long long)last);
			return -1;
		}
		last = word;
	}
	if (!o->failed && last != REQUESTS * WORDS) {
		ktap_diag("%s: the last word is number %llu", what, (unsigned long long)last);
		return -1;
	}
	return 0;
}

/* Does the work with a fault armed, and looks at all that has become of it. */
static int work_with(const char *plan, bool removed)
{
	static struct outcome o;
	char address[32];
	ssize_t left;

	if (removed && address_of(address, sizeof(address)))
		return -1;
	if (ioctl(fd, FIFO_AIO_RESET) || arm("%s", plan) || work(&o, removed, plan))
		return -1;
	/* How many crossings the work has may be a matter of chance: there are others. */
	for (int tries = 0; tries < 10 && ktap_host(NULL, 0, "fired"); tries++)
		passes(plan, true);
	if (disarm() < 0)
		return -1;
	if (removed) {
		if (work_right(&o, plan) || replug(address))
			return -1;
		return goes_on(plan);
	}
	left = drain(o.out + o.length, sizeof(o.out) - o.length);
	/* What happens to the device as the work ends is the next one's trouble, and what is in the FIFO is lost. */
	if (strstr(plan, "device:")) {
		if (goes_on_again(plan))
			return -1;
		o.failed = true;
	} else if (left < 0) {
		return -1;
	}
	o.length += left < 0 ? 0 : left;
	if (work_right(&o, plan)) {
		ktap_diag("%s: writes %zd %zd %zd, reads %zd %zd %zd, and %zd left", plan, o.written[0], o.written[1],
			  o.written[2], o.read[0], o.read[1], o.read[2], left);
		return -1;
	}
	return goes_on(plan);
}

/*
 * Breaks the crossings of a class in a range, one after the other: by a fault
 * of their own, or of the device (own) when they come.
 */
static int sweep(const char *fault, const char *class, const char *range, bool own)
{
	bool removed = strstr(fault, "remove");
	unsigned int step = removed ? some() : some() / 3 ?: 1, failed = 0;
	static struct outcome o;
	int skip = begin();
	long long crossings;
	char plan[128];

	if (skip)
		return skip;
	if (fifo_parameter_set("wait_ms", 3 * settings[0].value))
		return ktap_fail("wait_ms: %s", strerror(errno));
	area = mmap(NULL, 2 * REQUESTS * 4 * FIFO_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
		    -1, 0);
	/* Events can't be changed, but be late by nothing. */
	if (arm("%s%s:%s@always", class, range, strcmp(class, "event") ? "xor=0" : "delay=1ns") ||
	    work(&o, false, "no fault") || work_right(&o, "no fault") || (crossings = disarm()) < 0)
		return KTAP_FAIL;
	for (long long n = 1 + fifo_seed() % step; n <= crossings; n += step) {
		if (own)
			snprintf(plan, sizeof(plan), "%s@%lld on %s%s", fault, n, class, range);
		else
			snprintf(plan, sizeof(plan), "%s%s:%s@%lld", class, range, fault, n);
		if (work_with(plan, removed)) {
			failed++;
			ioctl(fd, FIFO_AIO_RESET);
		}
	}
	return failed ? ktap_fail("%s, %s: %u of %lld crossings", class, fault, failed, crossings) : KTAP_PASS;
}

static int sweep_read_error(void)
{
	return sweep("error", "dma.read", "{all}", false);
}

static int sweep_write_error(void)
{
	return sweep("error", "dma.write", "{all}", false);
}

static int sweep_read_short(void)
{
	return sweep("short", "dma.read", "{all}", false);
}

static int sweep_write_short(void)
{
	return sweep("short", "dma.write", "{all}", false);
}

static int sweep_write_delay(void)
{
	return sweep("delay=1ms", "dma.write", "{all}", false);
}

static int sweep_event_drop(void)
{
	return sweep("drop", "event", "[0..0xfff]", false);
}

static int sweep_event_delay(void)
{
	return sweep("delay=1ms", "event", "[0..0xfff]", false);
}

static int sweep_mmio_drop(void)
{
	return sweep("drop", "mmio.write", "{all}", false);
}

static int sweep_reset_dma_read(void)
{
	return sweep("device:reset", "dma.read", "{all}", true);
}

static int sweep_reset_dma_write(void)
{
	return sweep("device:reset", "dma.write", "{all}", true);
}

static int sweep_reset_mmio_write(void)
{
	return sweep("device:reset", "mmio.write", "{all}", true);
}

static int sweep_stall_event(void)
{
	return sweep("device:stall", "event", "[0..0xfff]", true);
}

static int sweep_remove_dma_read(void)
{
	return sweep("device:remove", "dma.read", "{all}", true);
}

static int sweep_remove_dma_write(void)
{
	return sweep("device:remove", "dma.write", "{all}", true);
}

static int sweep_remove_mmio_write(void)
{
	return sweep("device:remove", "mmio.write", "{all}", true);
}

/*
 * The interrupt pin, which the driver uses where there are no messages. It is
 * up until its causes are cleared: one that is lost must not be the last one.
 */
static int pin(void)
{
	static const struct fault writes[] = {
		{ .plan = "irq[intx]:drop@next", .may = LOST },	/* or found with what else the driver looks for */
		{ .plan = "irq[intx]:delay=3ms@next" },
		{ .plan = "irq[intx]:delay=1s@next", .may = LOST | SPURIOUS },
		{ .plan = "irq[intx]:spurious@next on dma.read{data}", .may = SPURIOUS },
		{ .plan = "dma.read{tx.desc}:error@next", .must = ERRORS | RESETS, .result = -EIO },
	};
	static const struct fault reads[] = {
		{ .plan = "irq[intx]:drop@next", .may = LOST },
		{ .plan = "irq[intx]:delay=3ms@next" },
		{ .plan = "dma.read{rx.desc}:error@next", .must = ERRORS | RESETS, .result = -EIO, .data = STAYS },
	};
	char parameters[1200];
	int result = begin();

	if (result)
		return result;
	close(fd);
	snprintf(parameters, sizeof(parameters), "%s vectors=0", module_usual());
	if (module_reload(parameters) || reopen() || set_parameters())
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(writes) + FIFO_ARRAY_SIZE(reads); i++) {
		bool write = i < FIFO_ARRAY_SIZE(writes);
		const struct fault *f = write ? &writes[i] : &reads[i - FIFO_ARRAY_SIZE(writes)];
		enum job_direction direction = write ? JOB_WRITE : JOB_READ;
		struct stats tx, rx;

		if (suffer(f, WAY_SYNC, direction) || suffer(f, WAY_AIO, direction))
			result = KTAP_FAIL;
		tx = stats_of("tx");
		rx = stats_of("rx");
		if (goes_on(f->plan) || !grown(&tx, 0, SPURIOUS, f->plan) || !grown(&rx, 0, SPURIOUS, f->plan))
			result = ktap_fail("%s: there are no interrupts any more", f->plan);
	}
	close(fd);
	if (module_reload(module_usual()) || reopen())
		return KTAP_FAIL;
	return result;
}

/* A ring's trouble is not the other channel's. */
static int other_channel(void)
{
	int skip = begin(), other;
	struct stats tx;
	uint8_t p[N];
	struct job j;

	if (skip)
		return skip;
	other = fifo_open(1, O_RDWR);
	if (other < 0)
		return KTAP_FAIL;
	/* A read of the other channel stays in flight through all of it. */
	if (job_start(&j, WAY_AIO, other, JOB_READ, p, N))
		return KTAP_FAIL;
	tx = stats_of("tx");
	for (int i = 0; i < 3; i++) {
		fifo_fill(buffer(), N, 1, 0);
		if (arm("dma.read{tx.desc}:error@next") || job_do(WAY_AIO, fd, JOB_WRITE, buffer(), N) != -EIO || disarm() < 0)
			return KTAP_FAIL;
		if (goes_on("an error of a descriptor"))
			return KTAP_FAIL;
	}
	if (!grown(&tx, ERRORS | RESETS, 0, "errors of descriptors"))
		return KTAP_FAIL;
	if (job_end_within(&j, 0) != JOB_HUNG)
		return ktap_fail("a read of the other channel ended with %zd", j.result);
	fifo_fill(buffer(), N, 2, 0);
	if (fifo_write_all(other, buffer(), N) || job_end(&j) != N || fifo_verify(p, N, 2, 0))
		return ktap_fail("a read of the other channel ended with %zd", j.result);
	if (fifo_stat(1, "tx", "errors") || fifo_stat(1, "tx", "resets") || fifo_stat(1, "rx", "resets"))
		ktap_diag("channel 1 has had errors of its own before");
	return KTAP_PASS;
}

/* Words of the driver in the kernel's log since the mark. */

static int log_open(void)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	lseek(log, 0, SEEK_END);
	return log;
}

static unsigned int log_lines(int log)
{
	char record[4096];
	unsigned int lines = 0;
	ssize_t n;

	while ((n = read(log, record, sizeof(record) - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		if (n < 0)
			continue;
		record[n] = 0;
		if (strstr(record, ";fifo_aio "))
			lines++;
	}
	return lines;
}

/* What goes wrong is told in the log: not in silence, and not each time, but for resets of the device. */
#define LOG_ROUNDS	4

static int logged_once(void)
{
	static const struct {
		const char *plan;
		enum job_direction direction;
		unsigned int each;	/* lines of the later ones */
	} t[] = {
		{ "dma.read{tx.desc}:error@next", JOB_WRITE, 0 },
		{ "irq[1]:drop@next", JOB_WRITE, 0 },
		{ "mmio.write[0x10000]:drop@next", JOB_WRITE, 0 },
		{ "event[1]:drop@1", JOB_READ, 0 },
		{ "device:reset@next on event[0]", JOB_WRITE, 1 },
	};
	char address[32];
	int skip = begin(), log;

	if (skip)
		return skip;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(t); i++) {
		unsigned int first = 0, later = 0;

		/* Bound anew it has said nothing yet. */
		if (address_of(address, sizeof(address)))
			return KTAP_FAIL;
		close(fd);
		if (driver_file("unbind", address) || driver_file("bind", address) || reopen())
			return ktap_fail("bind: %s", strerror(errno));
		log = log_open();
		for (int round = 0; round < LOG_ROUNDS; round++) {
			if (t[i].direction == JOB_READ && put(1))
				return KTAP_FAIL;
			if (arm("%s", t[i].plan))
				return KTAP_FAIL;
			job_do(WAY_AIO, fd, t[i].direction, buffer(), N);
			if (disarm() < 0)
				return KTAP_FAIL;
			if (goes_on(t[i].plan))
				return KTAP_FAIL;
			*(round ? &later : &first) += log_lines(log);
		}
		close(log);
		if (first < 1 || first > 4 || later != t[i].each * (LOG_ROUNDS - 1))
			return ktap_fail("%s: %u lines in the log at first, %u later", t[i].plan, first, later);
	}
	return KTAP_PASS;
}

/* What a check that has failed leaves armed is not the next one's. */
static int bracket(const struct ktap_check *check)
{
	int result = fifo_bracket(check);

	if (result == KTAP_FAIL && ktap_has_host())
		ktap_host(NULL, 0, "clear");
	return result;
}

int main(int argc, char **argv)
{
	static const struct ktap_check checks[] = {
		{ "write_interrupts", write_interrupts },
		{ "read_interrupts", read_interrupts },
		{ "spurious", spurious },
		{ "swapped", swapped },
		{ "storms", storms },
		{ "all_interrupts", all_interrupts },
		{ "held_back", held_back },
		{ "write_dma", write_dma },
		{ "read_dma", read_dma },
		{ "write_completion_bits", write_completion_bits },
		{ "read_completion_bits", read_completion_bits },
		{ "wrong_cookie", wrong_cookie },
		{ "write_descriptor_bits", write_descriptor_bits },
		{ "read_descriptor_bits", read_descriptor_bits },
		{ "write_doorbells", write_doorbells },
		{ "read_doorbells", read_doorbells },
		{ "doorbell_bits", doorbell_bits },
		{ "completions_not_taken", completions_not_taken },
		{ "wrong_reads", wrong_reads },
		{ "write_events", write_events },
		{ "read_events", read_events },
		{ "write_device", write_device },
		{ "read_device", read_device },
		{ "lost_aborts", lost_aborts },
		{ "ring_reset_lost", ring_reset_lost },
		{ "half_reset", half_reset },
		{ "given_up", given_up },
		{ "other_channel", other_channel },
		{ "sweep_read_error", sweep_read_error },
		{ "sweep_write_error", sweep_write_error },
		{ "sweep_read_short", sweep_read_short },
		{ "sweep_write_short", sweep_write_short },
		{ "sweep_write_delay", sweep_write_delay },
		{ "sweep_event_drop", sweep_event_drop },
		{ "sweep_event_delay", sweep_event_delay },
		{ "sweep_mmio_drop", sweep_mmio_drop },
		{ "sweep_reset_dma_read", sweep_reset_dma_read },
		{ "sweep_reset_dma_write", sweep_reset_dma_write },
		{ "sweep_reset_mmio_write", sweep_reset_mmio_write },
		{ "sweep_stall_event", sweep_stall_event },
		{ "pin", pin },
		{ "removal", removal },
		{ "sweep_remove_dma_read", sweep_remove_dma_read },
		{ "sweep_remove_dma_write", sweep_remove_dma_write },
		{ "sweep_remove_mmio_write", sweep_remove_mmio_write },
		{ "all_ones", all_ones },
		{ "stuck_bits", stuck_bits },
		{ "binding", binding },
		{ "logged_once", logged_once },
	};
	char retired[32];
	int status;

	/* Only a machine that counts instructions has a time of its own. */
	real_time = ktap_has_host() && ktap_host(retired, sizeof(retired), "retired");
	if (real_time) {
		settings[0].value = 500;
		settings[1].value = 100;
		settings[2].value = 2500;
	}
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(settings); i++)
		settings[i].old = fifo_parameter(settings[i].name);
	ktap_bracket = bracket;
	status = ktap_run(checks, FIFO_ARRAY_SIZE(checks), argc, argv);
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(settings); i++) {
		if (settings[i].old >= 0)
			fifo_parameter_set(settings[i].name, settings[i].old);
	}
	return status;
}
