/* SPDX-License-Identifier: MIT */
/*
 * What the test programs of /dev/fifoN have in common.
 *
 *	static int one_byte(void)
 *	{
 *		int fd = fifo_open(0, O_RDWR);
 *		...
 *		return KTAP_PASS;
 *	}
 *
 *	int main(int argc, char **argv)
 *	{
 *		static const struct ktap_check checks[] = { { "one_byte", one_byte } };
 *
 *		return fifo_run(checks, FIFO_ARRAY_SIZE(checks), argc, argv);
 *	}
 *
 * fifo_run makes each check in a process of its own, with all FIFOs empty, and
 * fails it if afterwards a FIFO is not empty, a request is still in flight, a
 * threshold is another, or pinned pages, DMA mappings or references to the
 * module are not what they were before. What a check leaves open or running is
 * taken back by its process's end. All waits have a bound and say what they
 * waited for; no bound decides whether the driver is right, but that it hangs.
 */
#ifndef FIFOVM_FIFO_H
#define FIFOVM_FIFO_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE first"
#endif

#include <dirent.h>
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "../driver/fifo_aio.h"
#include "file.h"
#include "ktap.h"

#define FIFO_ARRAY_SIZE(a)	(sizeof(a) / sizeof(*(a)))
#define FIFO_PAGE		4096
#define FIFO_CHANNELS		8	/* at most */
#define FIFO_WAIT_MS		10000	/* bound of each wait */
#define FIFO_CHECK_MS		180000	/* bound of a check; ten times that with fifovm.long, and on a debug kernel */

/* What is on the kernel's command line for us. */

/* Where every random choice begins: fifovm.seed=N. */
static inline uint64_t fifo_seed(void)
{
	return kernel_number("fifovm.seed", 1);
}

/* How often to do something: all of n times with fifovm.long, else a tenth. */
static inline unsigned int fifo_rounds(unsigned int n)
{
	return kernel_word("fifovm.long", NULL, 0) ? n : (n + 9) / 10;
}

/* The same for what takes long each time: a fiftieth. */
static inline unsigned int fifo_few_rounds(unsigned int n)
{
	return kernel_word("fifovm.long", NULL, 0) ? n : (n + 49) / 50;
}

/* Random numbers: splitmix64. */

struct fifo_rng {
	uint64_t state;
};

static inline uint64_t fifo_mix(uint64_t z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static inline uint64_t fifo_random(struct fifo_rng *r)
{
	return fifo_mix(r->state += 0x9e3779b97f4a7c15u);
}

/* 0 to n - 1. */
static inline uint64_t fifo_below(struct fifo_rng *r, uint64_t n)
{
	return fifo_random(r) % n;
}

/* lowest to highest. */
static inline uint64_t fifo_between(struct fifo_rng *r, uint64_t lowest, uint64_t highest)
{
	return lowest + fifo_below(r, highest - lowest + 1);
}

/* Begins with fifovm.seed= and a number of the caller's: choices do not depend on what ran before. */
static inline struct fifo_rng fifo_rng(uint64_t stream)
{
	return (struct fifo_rng){ .state = fifo_mix(fifo_seed()) + stream };
}

/*
 * Streams of bytes. Every byte depends on the stream's number and on its place
 * in the stream, so that no loss, repetition, swap or shift gives the same.
 */

static inline uint64_t fifo_word(uint64_t stream, uint64_t index)
{
	return fifo_mix((stream << 40) + index * 0x9e3779b97f4a7c15u);
}

static inline void fifo_fill(void *buf, size_t len, uint64_t stream, uint64_t at)
{
	uint8_t *p = buf;

	while (len) {
		uint64_t word = fifo_word(stream, at / 8);
		size_t skip = at % 8, n = 8 - skip < len ? 8 - skip : len;

		word >>= skip * 8;
		memcpy(p, &word, n);
		p += n;
		at += n;
		len -= n;
	}
}

/* Where buf first differs from what fifo_fill writes, or -1. */
static inline ssize_t fifo_differs(const void *buf, size_t len, uint64_t stream, uint64_t at)
{
	const uint8_t *p = buf;
	size_t done = 0;

	while (done < len) {
		uint64_t word = fifo_word(stream, at / 8);
		size_t skip = at % 8, n = 8 - skip < len - done ? 8 - skip : len - done;

		word >>= skip * 8;
		if (memcmp(p + done, &word, n)) {
			while (p[done] == (uint8_t)word) {
				word >>= 8;
				done++;
			}
			return done;
		}
		done += n;
		at += n;
	}
	return -1;
}

/* The same, with words for whoever reads the result; 0 if all is right. */
static inline int fifo_verify(const void *buf, size_t len, uint64_t stream, uint64_t at)
{
	ssize_t wrong = fifo_differs(buf, len, stream, at);
	uint8_t want;

	if (wrong < 0)
		return 0;
	fifo_fill(&want, 1, stream, at + wrong);
	ktap_diag("byte %zd of %zu is %#x, not %#x (stream %llu from %llu)", wrong, len,
		  ((const uint8_t *)buf)[wrong], want, (unsigned long long)stream, (unsigned long long)at);
	return -1;
}

/* Whether all of buf is value. */
static inline bool fifo_all(const void *buf, int value, size_t len)
{
	const uint8_t *p = buf;

	return !len || (p[0] == (uint8_t)value && !memcmp(p, p + 1, len - 1));
}

/*
 * Records, for several writers on one channel: a write of a record is not torn,
 * so a reader can tell whose it is, that it is the writer's next, and that no
 * byte of it is another's.
 */
struct fifo_record {
	uint32_t magic;
	uint32_t length;	/* with this header */
	uint64_t writer;
	uint64_t sequence;
	uint64_t checksum;	/* of the above; what follows is stream writer ^ sequence << 20 */
};

#define FIFO_RECORD_MAGIC	0x4f464946u

static inline uint64_t fifo_record_checksum(const struct fifo_record *r)
{
	return fifo_mix(r->magic + fifo_mix(r->length + fifo_mix(r->writer + fifo_mix(r->sequence + 1))));
}

/* Makes a record of len bytes, sizeof(struct fifo_record) at least. */
static inline void fifo_record_make(void *buf, size_t len, uint64_t writer, uint64_t sequence)
{
	struct fifo_record r = {
		.magic = FIFO_RECORD_MAGIC, .length = len, .writer = writer, .sequence = sequence,
	};

	r.checksum = fifo_record_checksum(&r);
	memcpy(buf, &r, sizeof(r));
	fifo_fill((uint8_t *)buf + sizeof(r), len - sizeof(r), writer ^ sequence << 20, 0);
}

/* Takes a record's header to pieces; -1 if it is none. */
static inline int fifo_record_header(const void *buf, struct fifo_record *r)
{
	memcpy(r, buf, sizeof(*r));
	if (r->magic == FIFO_RECORD_MAGIC && r->length >= sizeof(*r) && r->checksum == fifo_record_checksum(r))
		return 0;
	ktap_diag("this is no record: magic %#x, length %u, writer %llu, sequence %llu", r->magic, r->length,
		  (unsigned long long)r->writer, (unsigned long long)r->sequence);
	return -1;
}

/* The bytes behind the header, from the at-th. */
static inline int fifo_record_verify(const struct fifo_record *r, const void *buf, size_t len, size_t at)
{
	return fifo_verify(buf, len, r->writer ^ r->sequence << 20, at);
}

/*
 * FIFO_GIVES(call, n) and FIFO_FAILS(call, errno): whether the call returned
 * what it is to return; if not, they say what it did return.
 */
#define FIFO_GIVES(call, n)	(errno = 0, fifo_is((call), (n), 0, #call, __LINE__))
#define FIFO_FAILS(call, err)	(errno = 0, fifo_is((call), -1, (err), #call, __LINE__))

static inline bool fifo_is(long long got, long long want, int err, const char *call, int line)
{
	int was = errno;

	if (got == want && (want != -1 || was == err))
		return true;
	ktap_diag("line %d: %s is %lld (%s), not %lld (%s)", line, call, got, got < 0 ? strerrorname_np(was) : "",
		  want, want < 0 ? strerrorname_np(err) : "");
	return false;
}

/* Bounded waits. */

static inline long long fifo_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* Waits for events on fd; returns those that there are, or -1 if the time is up. */
static inline int fifo_wait(int fd, short events, const char *what)
{
	struct pollfd p = { .fd = fd, .events = events };
	long long end = fifo_now_ms() + FIFO_WAIT_MS, left;

	while ((left = end - fifo_now_ms()) > 0) {
		int n = poll(&p, 1, left);

		/* poll looks once more when its time is up: what nobody was woken for does not count. */
		if (n > 0 && fifo_now_ms() < end)
			return p.revents;
		if (n < 0 && errno != EINTR) {
			ktap_diag("poll, for %s: %s", what, strerror(errno));
			return -1;
		}
	}
	ktap_diag("waited %d s for %s", FIFO_WAIT_MS / 1000, what);
	return -1;
}

/* Waits until is(arg) is true; for what there is no event for. 0, or -1 if the time is up. */
static inline int fifo_until(bool (*is)(void *arg), void *arg, const char *what)
{
	long long end = fifo_now_ms() + FIFO_WAIT_MS;

	/* Often at first, and not so often that a machine with virtual time does nothing else. */
	for (unsigned int us = 100; !is(arg); us = us < 50000 ? us * 3 / 2 : us) {
		if (fifo_now_ms() > end) {
			ktap_diag("waited %d s for %s", FIFO_WAIT_MS / 1000, what);
			return -1;
		}
		usleep(us);
	}
	return 0;
}

/* A gate between processes and threads: an eventfd that each passing takes one from. */
static inline int fifo_gate(void)
{
	return eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
}

/* Lets n pass. */
static inline void fifo_gate_open(int gate, uint64_t n)
{
	if (write(gate, &n, sizeof(n)) != sizeof(n))
		ktap_diag("eventfd: %s", strerror(errno));
}

static inline int fifo_gate_pass(int gate, const char *what)
{
	uint64_t one;

	if (fifo_wait(gate, POLLIN, what) < 0)
		return -1;
	return read(gate, &one, sizeof(one)) == sizeof(one) ? 0 : -1;
}

/* Waits until the word in shared memory is no longer value. */
static inline int fifo_futex_wait(uint32_t *word, uint32_t value, const char *what)
{
	struct timespec ts = { .tv_sec = FIFO_WAIT_MS / 1000 };
	long long end = fifo_now_ms() + FIFO_WAIT_MS;

	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == value) {
		if (fifo_now_ms() > end) {
			ktap_diag("waited %d s for %s", FIFO_WAIT_MS / 1000, what);
			return -1;
		}
		syscall(SYS_futex, word, FUTEX_WAIT, value, &ts, NULL, 0);
	}
	return 0;
}

static inline void fifo_futex_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* Memory that parents and children share, zeroed; NULL if there is none. */
static inline void *fifo_shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Processes. */

/* A child that runs fn(arg), exits with what it returns, and dies with its parent. */
static inline pid_t fifo_fork(int (*fn)(void *arg), void *arg)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		ktap_diag("fork: %s", strerror(errno));
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(KTAP_FAIL);
	_exit(fn(arg));
}

/* Waits for the child's end; its status as waitpid has it, or -1 if the time is up: then it is killed. */
static inline int fifo_reap_within(pid_t pid, int ms, const char *what)
{
	struct pollfd p = { .fd = syscall(SYS_pidfd_open, pid, 0), .events = POLLIN };
	long long end = fifo_now_ms() + ms, left;
	int status = -1, n = 0;

	if (p.fd < 0) {
		ktap_diag("pidfd_open of %d: %s", pid, strerror(errno));
		return -1;
	}
	while ((left = end - fifo_now_ms()) > 0 && (n = poll(&p, 1, left)) <= 0)
		;
	if (n <= 0) {
		char path[64], where[256] = "";

		snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
		slurp(path, where, sizeof(where));
		where[strcspn(where, "\n")] = 0;
		ktap_diag("waited %d s for the end of %s, which is in system call %s", ms / 1000, what, where);
		kill(pid, SIGKILL);
		if (poll(&p, 1, FIFO_WAIT_MS) <= 0)
			ktap_diag("%s can't be killed", what);
		else
			waitpid(pid, NULL, 0);
	} else if (waitpid(pid, &status, 0) != pid) {
		ktap_diag("waitpid of %d: %s", pid, strerror(errno));
		status = -1;
	}
	close(p.fd);
	return status;
}

static inline int fifo_reap(pid_t pid, const char *what)
{
	return fifo_reap_within(pid, FIFO_WAIT_MS, what);
}

/* The same for a child that is to exit with KTAP_PASS: 0, or -1 after saying how it ended. */
static inline int fifo_reap_passed(pid_t pid, const char *what)
{
	int status = fifo_reap(pid, what);

	if (!status)
		return 0;
	if (status != -1 && WIFSIGNALED(status))
		ktap_diag("%s was killed by signal %d", what, WTERMSIG(status));
	else if (status != -1)
		ktap_diag("%s exited with %d", what, WEXITSTATUS(status));
	return -1;
}

struct fifo_blocked {
	pid_t tid;
	long call;
};

static inline bool fifo_is_blocked(void *arg)
{
	const struct fifo_blocked *b = arg;
	char path[64], buf[256], *end;

	snprintf(path, sizeof(path), "/proc/%d/syscall", b->tid);
	if (slurp(path, buf, sizeof(buf)) <= 0)
		return false;
	/* "running", or the system call's number, or -1 for a wait outside of one. */
	return strtol(buf, &end, 10) == b->call && end != buf;
}

/* Waits until the process or thread sleeps in the system call SYS_x. */
static inline int fifo_blocked(pid_t tid, long call, const char *what)
{
	return fifo_until(fifo_is_blocked, &(struct fifo_blocked){ tid, call }, what);
}

/* Channels. */

static inline int fifo_open(int channel, int flags)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/fifo%d", channel);
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		ktap_diag("%s: %s", path, strerror(errno));
	return fd;
}

/* Channels that there are. */
static inline int fifo_channels(void)
{
	char path[32];
	int n = 0;

	do
		snprintf(path, sizeof(path), "/dev/fifo%d", n);
	while (n < FIFO_CHANNELS && !access(path, F_OK) && ++n);
	return n;
}

static inline struct fifo_aio_info fifo_info(int fd)
{
	struct fifo_aio_info info = { 0 };

	if (ioctl(fd, FIFO_AIO_GET_INFO, &info))
		ktap_diag("FIFO_AIO_GET_INFO: %s", strerror(errno));
	return info;
}

static inline struct fifo_aio_stats fifo_stats(int fd)
{
	struct fifo_aio_stats stats = { 0 };

	if (ioctl(fd, FIFO_AIO_GET_STATS, &stats))
		ktap_diag("FIFO_AIO_GET_STATS: %s", strerror(errno));
	return stats;
}

/* One of a ring's numbers in sysfs; ring is "tx" or "rx". -1 if it isn't there. */
static inline long long fifo_stat(int channel, const char *ring, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/class/fifo/fifo%d/%s/%s", channel, ring, name);
	return slurp_number(path, -1);
}

/* One of the module's parameters. -1 if it isn't there. */
static inline long long fifo_parameter(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/module/fifo_aio/parameters/%s", name);
	return slurp_number(path, -1);
}

/* Sets it; 0, or -1 with errno. */
static inline int fifo_parameter_set(const char *name, long long value)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), "/sys/module/fifo_aio/parameters/%s", name);
	snprintf(text, sizeof(text), "%lld\n", value);
	return spit(path, text);
}

/* A number that debugfs has in a line "NAME VALUE" of the ring's state. -1 if it isn't there. */
static inline long long fifo_debug(int channel, const char *ring, const char *name)
{
	char path[128], buf[65536];
	size_t len = strlen(name);

	snprintf(path, sizeof(path), "/sys/kernel/debug/fifo_aio/fifo%d/%s", channel, ring);
	if (slurp(path, buf, sizeof(buf)) <= 0)
		return -1;
	for (char *p = buf; p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
		if (!strncmp(p, name, len) && p[len] == ' ')
			return strtoll(p + len, NULL, 0);
	}
	return -1;
}

/* Requests of a ring in flight, and in order from then on; -1 if debugfs isn't there. */
static inline long long fifo_in_flight(int channel, const char *ring)
{
	return fifo_debug(channel, ring, "in_flight");
}

struct fifo_flight {
	int channel;
	const char *ring;
	long long n;
};

static inline bool fifo_flight_is(void *arg)
{
	const struct fifo_flight *f = arg;
	long long n = fifo_in_flight(f->channel, f->ring);

	return n == f->n || n < 0;
}

/* Waits until n requests are in flight. */
static inline int fifo_wait_flight(int channel, const char *ring, long long n, const char *what)
{
	return fifo_until(fifo_flight_is, &(struct fifo_flight){ channel, ring, n }, what);
}

/* Reads all that sysfs and debugfs have of the channels, for tests in which these come and go: nothing is judged. */
static inline void fifo_look(void)
{
	static const char *const folders[] = { "/sys/class/fifo", "/sys/kernel/debug/fifo_aio" };
	static const char *const rings[] = { "", "/tx", "/rx" };
	static char buf[65536];

	for (size_t i = 0; i < FIFO_ARRAY_SIZE(folders) * 2 * FIFO_ARRAY_SIZE(rings); i++) {
		char folder[128], path[512];
		struct dirent *e;
		DIR *d;

		/* In sysfs a ring is a folder, in debugfs a file. */
		snprintf(folder, sizeof(folder), "%s/fifo%zu%s", folders[i / 6], i / 3 % 2, rings[i % 3]);
		d = opendir(folder);
		if (!d)
			slurp(folder, buf, sizeof(buf));
		while (d && (e = readdir(d))) {
			snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
			slurp(path, buf, sizeof(buf));
		}
		if (d)
			closedir(d);
	}
	slurp("/proc/interrupts", buf, sizeof(buf));
}

/* Writes all of buf; 0, or -1 after saying what went wrong. */
static inline int fifo_write_all(int fd, const void *buf, size_t len)
{
	for (size_t done = 0; done < len; ) {
		ssize_t n = write(fd, (const uint8_t *)buf + done, len - done);

		if (n <= 0) {
			ktap_diag("write of %zu bytes: %zd, %s", len - done, n, strerror(errno));
			return -1;
		}
		done += n;
	}
	return 0;
}

/* Reads until buf is full; bounded, since what is missing never comes. */
static inline int fifo_read_all(int fd, void *buf, size_t len)
{
	for (size_t done = 0; done < len; ) {
		ssize_t n;

		if (fifo_wait(fd, POLLIN, "bytes to read") < 0) {
			ktap_diag("%zu of %zu bytes are missing", len - done, len);
			return -1;
		}
		n = read(fd, (uint8_t *)buf + done, len - done);
		if (n <= 0) {
			ktap_diag("read of %zu bytes: %zd, %s", len - done, n, strerror(errno));
			return -1;
		}
		done += n;
	}
	return 0;
}

/* Sends len bytes of the stream through an idle channel, up to its depth, and looks at what comes out. */
static inline int fifo_round_trip(int fd, void *buf, size_t len, uint64_t stream)
{
	fifo_fill(buf, len, stream, 0);
	if (fifo_write_all(fd, buf, len))
		return -1;
	memset(buf, 0, len);
	if (fifo_read_all(fd, buf, len))
		return -1;
	return fifo_verify(buf, len, stream, 0);
}

/*
 * Pushes len bytes through the idle channel, and sees that they come out whole
 * and that not one of them went to dead, the memory of a request that is gone.
 */
static inline int fifo_untouched(int fd, void *dead, size_t len)
{
	void *buf = malloc(len);
	int failed;

	if (!buf) {
		ktap_diag("no memory");
		return -1;
	}
	memset(dead, 0x5a, len);
	failed = fifo_round_trip(fd, buf, len, 0xdead);
	free(buf);
	if (fifo_all(dead, 0x5a, len))
		return failed;
	ktap_diag("memory of a request that is gone has changed");
	return -1;
}

/* The bracket around each check. */

struct fifo_balance {
	long long pins, mappings, references;
	struct fifo_aio_thresholds thresholds[FIFO_CHANNELS];
	int channels;
};

/* Pages that are pinned for I/O. */
static inline long long fifo_pins(void)
{
	char buf[32768];
	char *acquired, *released;

	/* Each CPU counts for itself and adds up now and then, or when asked. */
	spit("/proc/sys/vm/stat_refresh", "1");
	if (slurp("/proc/vmstat", buf, sizeof(buf)) < 0)
		return -1;
	acquired = strstr(buf, "nr_foll_pin_acquired ");
	released = strstr(buf, "nr_foll_pin_released ");
	if (!acquired || !released)
		return -1;
	return strtoll(strchr(acquired, ' '), NULL, 10) - strtoll(strchr(released, ' '), NULL, 10);
}

/*
 * DMA mappings of all drivers; -1 if this kernel does not count them, or does not any
 * more: where the DMA-API's debugging lacks memory itself, it is off from there on.
 */
static inline long long fifo_mappings(void)
{
	long long total = slurp_number("/sys/kernel/debug/dma-api/nr_total_entries", -1);
	long long unused = slurp_number("/sys/kernel/debug/dma-api/num_free_entries", -1);
	char disabled[4] = "";

	if (slurp("/sys/kernel/debug/dma-api/disabled", disabled, sizeof(disabled)) > 0 && disabled[0] == 'Y')
		return -1;
	return total < 0 || unused < 0 ? -1 : total - unused;
}

static inline long long fifo_references(void)
{
	return slurp_number("/sys/module/fifo_aio/refcnt", -1);
}

static inline bool fifo_is_balanced(void *arg)
{
	const struct fifo_balance *b = arg;
	long long mappings;

	for (int i = 0; i < b->channels; i++) {
		if (fifo_debug(i, "tx", "accepted") > 0 || fifo_debug(i, "rx", "accepted") > 0)
			return false;
	}
	mappings = fifo_mappings();
	return fifo_references() == b->references && (mappings < 0 || mappings == b->mappings) && fifo_pins() == b->pins;
}

/* Empties all FIFOs and notes how things are. */
static inline int fifo_balance_begin(struct fifo_balance *b)
{
	/* The folder is there if the kernel has debugfs. */
	if (!access("/sys/kernel/debug", F_OK) && fifo_in_flight(0, "tx") < 0) {
		ktap_diag("debugfs does not tell what is in flight");
		return -1;
	}
	b->channels = fifo_channels();
	for (int i = 0; i < b->channels; i++) {
		int fd = fifo_open(i, O_RDWR | O_NONBLOCK), err;

		if (fd < 0)
			return -1;
		err = ioctl(fd, FIFO_AIO_RESET) || ioctl(fd, FIFO_AIO_GET_THRESHOLDS, &b->thresholds[i]);
		if (err)
			ktap_diag("/dev/fifo%d: reset and thresholds: %s", i, strerror(errno));
		close(fd);
		if (err)
			return -1;
	}
	b->pins = fifo_pins();
	b->mappings = fifo_mappings();
	b->references = fifo_references();
	return 0;
}

static inline int fifo_balance_end(struct fifo_balance *b)
{
	int failed = 0;

	if (fifo_until(fifo_is_balanced, b, "everything to be given back")) {
		ktap_diag("pins %lld, were %lld; DMA mappings %lld, were %lld; references %lld, were %lld",
			  fifo_pins(), b->pins, fifo_mappings(), b->mappings, fifo_references(), b->references);
		for (int i = 0; i < b->channels; i++) {
			ktap_diag("channel %d: %lld writes, %lld reads", i,
				  fifo_debug(i, "tx", "accepted"), fifo_debug(i, "rx", "accepted"));
		}
		failed = -1;
	}
	if (fifo_channels() != b->channels) {
		ktap_diag("%d channels, were %d", fifo_channels(), b->channels);
		return -1;
	}
	for (int i = 0; i < b->channels; i++) {
		int fd = fifo_open(i, O_RDWR | O_NONBLOCK);
		struct fifo_aio_thresholds now = { 0 };

		if (fd < 0)
			return -1;
		if (ioctl(fd, FIFO_AIO_GET_THRESHOLDS, &now) || memcmp(&now, &b->thresholds[i], sizeof(now))) {
			ktap_diag("channel %d: other thresholds than before", i);
			/* The next check is to have its own. */
			ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &b->thresholds[i]);
			failed = -1;
		}
		if (fifo_info(fd).fill) {
			ktap_diag("channel %d: %u bytes are left in the FIFO", i, fifo_info(fd).fill);
			failed = -1;
		}
		close(fd);
	}
	return failed;
}

static inline int fifo_call_check(void *arg)
{
	const struct ktap_check *check = arg;

	return check->run();
}

/* Makes a check inside of the bracket. */
static inline int fifo_bracket(const struct ktap_check *check)
{
	bool full = kernel_word("fifovm.long", NULL, 0);
	struct fifo_balance b = { 0 };
	int status;
	pid_t pid;

	if (access("/dev/fifo0", F_OK)) {
		char devices[256] = "";

		kernel_word("fifovm.devices", devices, sizeof(devices));
		if (strstr(devices, "fifo"))
			return ktap_fail("no /dev/fifo0, though the machine has %s", devices);
		return ktap_skip("no /dev/fifo0, and no FIFO in the machine");
	}
	if (fifo_balance_begin(&b))
		return KTAP_FAIL;
	pid = fifo_fork(fifo_call_check, (void *)check);
	if (pid < 0)
		return KTAP_FAIL;
	/* A kernel with kmemleak holds each kobject of a module back for seconds as well (DEBUG_KOBJECT_RELEASE). */
	full = full || !access("/sys/kernel/debug/kmemleak", F_OK);
	status = fifo_reap_within(pid, FIFO_CHECK_MS * (full ? 10 : 1), check->name);
	if (status != -1 && WIFSIGNALED(status))
		ktap_diag("%s was killed by signal %d", check->name, WTERMSIG(status));
	if (fifo_balance_end(&b) || status == -1 || !WIFEXITED(status))
		status = KTAP_FAIL;
	else
		status = WEXITSTATUS(status);
	if (status == KTAP_FAIL)
		ktap_diag("%s: fifovm.seed=%llu", check->name, (unsigned long long)fifo_seed());
	return status;
}

/* Runs the checks, all or those that are named, and returns the program's exit status. */
static inline int fifo_run(const struct ktap_check *checks, unsigned int n, int argc, char **argv)
{
	ktap_bracket = fifo_bracket;
	return ktap_run(checks, n, argc, argv);
}

#endif
