// SPDX-License-Identifier: MIT
/*
 * What asynchrony brings: the same data through /dev/fifo0 and back, by read
 * and write, libaio, and io_uring, with so many requests in flight; and fio. A
 * program for `fifovm test`; make bench-aio boots the guest. It reports lines
 *
 *	# bench: MODE DEPTH SIZE COMPLETIONS INSTRUCTIONS INTERRUPTS
 *	# bench: NAME: VALUE
 *
 * with completions per second of the guest's time, and the CPUs' instructions
 * and the interrupts for each request. A request is a read or a write of SIZE
 * bytes; each is checked to be whole and, but for io_uring, which does not
 * promise it, in order. DEPTH counts both directions: 32 are 16 reads and 16
 * writes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <liburing.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../tests/file.h"
#include "../tests/ktap.h"

#define DEVICE		"/dev/fifo0"
#define DATA		(2u << 20)	/* bytes that a row moves, each way */
#define SIZE		512		/* of a request, where the table is about depth */
#define MIN_SIZE	64
#define MAX_SIZE	4096
#define MAX_DEPTH	64
#define FIO		"/bin/fio"

static const unsigned int depths[] = { 1, 2, 4, 8, 16, 32, 64 };
static const unsigned int sizes[] = { MIN_SIZE, SIZE, MAX_SIZE };

/* A request, again and again; its index is its name in the engine. */
struct slot {
	bool write;
	unsigned char *buf;
};

/* What puts requests into flight, and takes at least one out. */
struct engine {
	const char *name;
	bool ordered;			/* reads end in the order of their submission */
	int (*setup)(void);
	void (*prepare)(unsigned int index);
	int (*submit)(unsigned int n);
	int (*reap)(void);		/* calls ended() */
	void (*teardown)(void);
};

/* A row of the table that is being made. */
static struct row {
	const struct engine *engine;
	int fd;
	unsigned int size, depth;
	uint64_t requests;		/* each way */
	uint64_t issued[2], done[2];	/* [1]: writes */
	unsigned char seen[DATA / MIN_SIZE];	/* the numbers of what was written, as read */
	struct slot slots[MAX_DEPTH];
} row;

static unsigned char buffers[MAX_DEPTH][MAX_SIZE] __attribute__((aligned(4096)));

/* A number at both ends, so that it is seen whether the request is whole. */
static void stamp(unsigned char *buf, unsigned int size, uint64_t number)
{
	memcpy(buf, &number, sizeof(number));
	memcpy(buf + size - sizeof(number), &number, sizeof(number));
}

/* The number of a whole request, else -1. */
static uint64_t stamped(const unsigned char *buf, unsigned int size)
{
	uint64_t number;

	memcpy(&number, buf, sizeof(number));
	return memcmp(buf + size - sizeof(number), &number, sizeof(number)) ? UINT64_MAX : number;
}

/* Measuring. */

struct sample {
	uint64_t ns, interrupts;
	long long instructions;	/* -1: nobody counts them */
};

static struct sample now(void)
{
	char retired[32] = "-1";
	struct timespec ts;
	struct sample s;

	if (ktap_has_host() && ktap_host(retired, sizeof(retired), "retired"))
		strcpy(retired, "-1");
	s.instructions = atoll(retired);
	s.interrupts = slurp_number("/sys/class/fifo/fifo0/tx/interrupts", 0) +
		       slurp_number("/sys/class/fifo/fifo0/rx/interrupts", 0);
	clock_gettime(CLOCK_MONOTONIC, &ts);
	s.ns = ts.tv_sec * 1000000000ull + ts.tv_nsec;
	return s;
}

static void table_line(const char *mode, unsigned int depth, unsigned int size, double rate,
		       const char *instructions, double interrupts)
{
	ktap_diag("bench: %-20s %5u %5u %10.0f %12s %10.3f", mode, depth, size, rate, instructions,
		  interrupts);
}

/* Reports the row; returns completions per second. */
static double report(const char *mode, unsigned int depth, unsigned int size, struct sample from)
{
	struct sample to = now();
	double n = 2.0 * (DATA / size), rate = n * 1e9 / (to.ns - from.ns);
	char instructions[32] = "-";

	if (from.instructions >= 0 && to.instructions >= 0)
		snprintf(instructions, sizeof(instructions), "%.0f",
			 (to.instructions - from.instructions) / n);
	table_line(mode, depth, size, rate, instructions, (to.interrupts - from.interrupts) / n);
	return rate;
}

/* Synchronous: in one process, and as a writer and a reader. */

static int write_all(int fd, uint64_t n, unsigned int size)
{
	for (uint64_t i = 0; i < n; i++) {
		stamp(buffers[0], size, i);
		if (write(fd, buffers[0], size) != size)
			return ktap_fail("write: %s", strerror(errno));
	}
	return KTAP_PASS;
}

static int read_all(int fd, uint64_t n, unsigned int size)
{
	for (uint64_t i = 0; i < n; i++) {
		if (read(fd, buffers[1], size) != size)
			return ktap_fail("read: %s", strerror(errno));
		if (stamped(buffers[1], size) != i)
			return ktap_fail("read %llu has other bytes", (unsigned long long)i);
	}
	return KTAP_PASS;
}

static int run_sync(unsigned int size, double *rate)
{
	int fd = open(DEVICE, O_RDWR);
	struct sample from = now();

	if (fd < 0)
		return ktap_fail(DEVICE ": %s", strerror(errno));
	for (uint64_t i = 0; i < DATA / size; i++) {
		stamp(buffers[0], size, i);
		if (write(fd, buffers[0], size) != size || read(fd, buffers[1], size) != size)
			return ktap_fail("write and read: %s", strerror(errno));
		if (stamped(buffers[1], size) != i)
			return ktap_fail("read %llu has other bytes", (unsigned long long)i);
	}
	*rate = report("sync", 1, size, from);
	close(fd);
	return KTAP_PASS;
}

static int run_two(unsigned int size, double *rate)
{
	int fd = open(DEVICE, O_RDWR), status, result;
	struct sample from = now();
	pid_t pid;

	if (fd < 0)
		return ktap_fail(DEVICE ": %s", strerror(errno));
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return ktap_fail("fork: %s", strerror(errno));
	if (!pid)
		_exit(read_all(fd, DATA / size, size));
	result = write_all(fd, DATA / size, size);
	if (waitpid(pid, &status, 0) != pid || status)
		return ktap_fail("the reader failed");
	if (result == KTAP_PASS)
		*rate = report("sync, two processes", 2, size, from);
	close(fd);
	return result;
}

/* Asynchronous. */

/* The request ended with this: returns 0 if as it should. */
static int ended(unsigned int index, long long result)
{
	struct slot *s = &row.slots[index];

	if (result != row.size)
		return ktap_fail("a %s ended with %lld", s->write ? "write" : "read", result);
	if (!s->write) {
		uint64_t number = stamped(s->buf, row.size);

		if (number >= row.requests || row.seen[number]++ ||
		    (row.engine->ordered && number != row.done[0]))
			return ktap_fail("read %llu has the bytes of write %lld",
					 (unsigned long long)row.done[0], (long long)number);
	}
	row.done[s->write]++;
	if (row.depth == 1)
		s->write = !s->write;
	return 0;
}

/* The slots that have nothing in flight. */
static unsigned int idle[MAX_DEPTH], n_idle;

/* Readies them for submission, as far as there is something to do, and says how many. */
static unsigned int prepare(void)
{
	unsigned int prepared = 0;

	for (unsigned int i = 0; i < n_idle; i++) {
		struct slot *s = &row.slots[idle[i]];

		if (row.issued[s->write] == row.requests)
			continue;
		if (s->write)
			stamp(s->buf, row.size, row.issued[1]);
		row.issued[s->write]++;
		row.engine->prepare(idle[i]);
		prepared++;
	}
	n_idle = 0;
	return prepared;
}

static int run_async(const struct engine *engine, unsigned int depth, unsigned int size, double *rate)
{
	struct sample from;

	memset(&row, 0, sizeof(row));
	row.fd = open(DEVICE, O_RDWR);
	if (row.fd < 0)
		return ktap_fail(DEVICE ": %s", strerror(errno));
	row.engine = engine;
	row.size = size;
	row.depth = depth;
	row.requests = DATA / size;
	n_idle = 0;
	/* Writes first, so that depth 1 begins with one. */
	for (unsigned int i = 0; i < depth; i++) {
		row.slots[i] = (struct slot){ .write = i < (depth + 1) / 2, .buf = buffers[i] };
		idle[n_idle++] = i;
	}
	if (engine->setup())
		return KTAP_FAIL;
	from = now();
	while (row.done[0] < row.requests || row.done[1] < row.requests) {
		unsigned int n = prepare();

		if ((n && engine->submit(n)) || engine->reap())
			return KTAP_FAIL;
	}
	*rate = report(engine->name, depth, size, from);
	engine->teardown();
	close(row.fd);
	return KTAP_PASS;
}

static io_context_t context;
static struct iocb iocbs[MAX_DEPTH], *submission[MAX_DEPTH];
static unsigned int n_submission;

static int aio_setup(void)
{
	int ret;

	context = NULL;
	n_submission = 0;
	ret = io_setup(MAX_DEPTH, &context);
	return ret ? ktap_fail("io_setup: %s", strerror(-ret)) : 0;
}

static void aio_prepare(unsigned int index)
{
	struct slot *s = &row.slots[index];

	if (s->write)
		io_prep_pwrite(&iocbs[index], row.fd, s->buf, row.size, 0);
	else
		io_prep_pread(&iocbs[index], row.fd, s->buf, row.size, 0);
	iocbs[index].data = (void *)(uintptr_t)index;
	submission[n_submission++] = &iocbs[index];
}

static int aio_submit(unsigned int n)
{
	int ret = io_submit(context, n, submission);

	n_submission = 0;
	return ret == (int)n ? 0 : ktap_fail("io_submit of %u: %d", n, ret);
}

static int aio_reap(void)
{
	struct io_event events[MAX_DEPTH];
	int n = io_getevents(context, 1, MAX_DEPTH, events, NULL);

	if (n < 1)
		return ktap_fail("io_getevents: %s", strerror(-n));
	for (int i = 0; i < n; i++) {
		idle[n_idle] = (uintptr_t)events[i].data;
		if (ended(idle[n_idle++], (long)events[i].res))
			return KTAP_FAIL;
	}
	return 0;
}

static void aio_teardown(void)
{
	io_destroy(context);
}

static struct io_uring ring;
static bool fixed;

static int uring_setup(void)
{
	int ret = io_uring_queue_init(MAX_DEPTH, &ring, 0);

	fixed = false;
	return ret ? ktap_fail("io_uring_queue_init: %s", strerror(-ret)) : 0;
}

static int fixed_setup(void)
{
	struct iovec iov = { buffers, sizeof(buffers) };
	int ret;

	if (uring_setup())
		return KTAP_FAIL;
	ret = io_uring_register_buffers(&ring, &iov, 1);
	if (!ret)
		ret = io_uring_register_files(&ring, &row.fd, 1);
	fixed = true;
	return ret ? ktap_fail("io_uring_register: %s", strerror(-ret)) : 0;
}

static void uring_prepare(unsigned int index)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	struct slot *s = &row.slots[index];

	if (fixed && s->write)
		io_uring_prep_write_fixed(sqe, 0, s->buf, row.size, 0, 0);
	else if (fixed)
		io_uring_prep_read_fixed(sqe, 0, s->buf, row.size, 0, 0);
	else if (s->write)
		io_uring_prep_write(sqe, row.fd, s->buf, row.size, 0);
	else
		io_uring_prep_read(sqe, row.fd, s->buf, row.size, 0);
	if (fixed)
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data64(sqe, index);
}

static int uring_submit(unsigned int n)
{
	int ret = io_uring_submit_and_wait(&ring, 1);

	return ret == (int)n ? 0 : ktap_fail("io_uring_submit of %u: %d", n, ret);
}

static int uring_reap(void)
{
	struct io_uring_cqe *cqe;
	unsigned int head, n = 0;
	int ret = io_uring_wait_cqe(&ring, &cqe);

	if (ret)
		return ktap_fail("io_uring_wait_cqe: %s", strerror(-ret));
	io_uring_for_each_cqe(&ring, head, cqe) {
		idle[n_idle] = io_uring_cqe_get_data64(cqe);
		if (ended(idle[n_idle++], cqe->res))
			return KTAP_FAIL;
		n++;
	}
	io_uring_cq_advance(&ring, n);
	return 0;
}

static void uring_teardown(void)
{
	io_uring_queue_exit(&ring);
}

static const struct engine libaio = {
	"libaio", true, aio_setup, aio_prepare, aio_submit, aio_reap, aio_teardown,
};

static const struct engine uring = {
	"io_uring", false, uring_setup, uring_prepare, uring_submit, uring_reap, uring_teardown,
};

static const struct engine uring_fixed = {
	"io_uring, fixed", false, fixed_setup, uring_prepare, uring_submit, uring_reap, uring_teardown,
};

static void header(void)
{
	ktap_diag("bench: %-20s %5s %5s %10s %12s %10s", "mode", "depth", "size", "per second",
		  "instructions", "interrupts");
}

/* Each depth, with requests of SIZE bytes. */
static int by_depth(void)
{
	const struct engine *engines[] = { &libaio, &uring, &uring_fixed };
	double alone, two, rate, at_32[3] = { 0 };

	header();
	if (run_sync(SIZE, &alone) || run_two(SIZE, &two))
		return KTAP_FAIL;
	for (unsigned int e = 0; e < 3; e++) {
		for (unsigned int d = 0; d < sizeof(depths) / sizeof(*depths); d++) {
			if (run_async(engines[e], depths[d], SIZE, &rate))
				return KTAP_FAIL;
			if (depths[d] == 32)
				at_32[e] = rate;
		}
	}
	ktap_diag("bench: sync_per_second: %.0f", alone);
	ktap_diag("bench: sync_two_processes_per_second: %.0f", two);
	ktap_diag("bench: libaio_32_per_second: %.0f", at_32[0]);
	ktap_diag("bench: io_uring_32_per_second: %.0f", at_32[1]);
	ktap_diag("bench: io_uring_fixed_32_per_second: %.0f", at_32[2]);
	ktap_diag("bench: libaio_32_over_sync: %.2f", at_32[0] / alone);
	ktap_diag("bench: libaio_32_over_sync_two_processes: %.2f", at_32[0] / two);
	return KTAP_PASS;
}

/* Each size, at depth 32. */
static int by_size(void)
{
	const struct engine *engines[] = { &libaio, &uring, &uring_fixed };
	double rate;

	header();
	for (unsigned int s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
		if (run_sync(sizes[s], &rate) || run_two(sizes[s], &rate))
			return KTAP_FAIL;
		for (unsigned int e = 0; e < 3; e++) {
			if (run_async(engines[e], 32, sizes[s], &rate))
				return KTAP_FAIL;
		}
	}
	return KTAP_PASS;
}

/*
 * fio, as a writer and a reader, each with half of the depth. It tells how fast
 * that was itself; its own instructions, mostly before and after, are not
 * counted.
 */
static int run_fio(const char *engine, unsigned int depth, double *rate)
{
	const unsigned int data = 4 * DATA, read_iops = 7, write_iops = 48;
	char command[512], line[4096] = "", mode[32], *field, *rest = line;
	double iops = 0, n = 2.0 * (data / SIZE);
	struct sample from = now(), to;
	int status;
	FILE *out;

	snprintf(command, sizeof(command),
		 FIO " --allow_file_create=0 --filename=" DEVICE " --bs=%u --size=%u --ioengine=%s"
		 " --iodepth=%u --gtod_reduce=1 --group_reporting --output-format=terse"
		 " --name=w --rw=write --name=r --rw=read",
		 SIZE, data, engine, depth / 2);
	fflush(stdout);
	out = popen(command, "r");
	if (!out)
		return ktap_fail("popen: %s", strerror(errno));
	/* There may be notes before the line that counts. */
	do {
		if (!fgets(line, sizeof(line), out))
			break;
	} while (strncmp(line, "3;", 2));
	status = pclose(out);
	to = now();
	if (status || strncmp(line, "3;", 2))
		return ktap_fail("fio ended with status %#x: %s", status, line);
	for (unsigned int i = 0; (field = strsep(&rest, ";")); i++) {
		if (i == read_iops || i == write_iops)
			iops += atof(field);
	}
	snprintf(mode, sizeof(mode), "fio, %s", engine);
	table_line(mode, depth, SIZE, iops, "-", (to.interrupts - from.interrupts) / n);
	*rate = iops;
	return KTAP_PASS;
}

static int fio(void)
{
	const unsigned int fio_depths[] = { 2, 8, 32, 64 };
	const char *engines[] = { "libaio", "io_uring" };
	double alone, rate;

	if (access(FIO, X_OK))
		return ktap_skip("there is no " FIO);
	header();
	if (run_fio("sync", 2, &alone))
		return KTAP_FAIL;
	for (unsigned int e = 0; e < 2; e++) {
		for (unsigned int d = 0; d < sizeof(fio_depths) / sizeof(*fio_depths); d++) {
			if (run_fio(engines[e], fio_depths[d], &rate))
				return KTAP_FAIL;
			if (!e && fio_depths[d] == 32)
				ktap_diag("bench: fio_libaio_32_over_sync: %.2f", rate / alone);
		}
	}
	return KTAP_PASS;
}

int main(int argc, char **argv)
{
	static const struct ktap_check checks[] = {
		{ "by_depth", by_depth },
		{ "by_size", by_size },
		{ "fio", fio },
	};

	return ktap_run(checks, sizeof(checks) / sizeof(*checks), argc, argv);
}
