// SPDX-License-Identifier: MIT
/*
 * fifo_lifecycle - the driver of /dev/fifoN comes and goes
 *
 * Bound and unbound, loaded with each parameter and unloaded, reset, suspended,
 * its device taken away: idle, with files open, and with requests in flight.
 * What was accepted ends, in the way that docs/driver.md says, and afterwards
 * the device works as before.
 */
#define _GNU_SOURCE
#include <linux/netlink.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "fail_nth.h"
#include "module.h"
#include "port.h"

#define PCI		"/sys/bus/pci"
#define DRIVER		PCI "/drivers/fifo_aio"
#define MODULE		"/sys/module/fifo_aio"
#define VENDOR		0x1234
#define DEVICE		0xf1f0

#define RECORD		64	/* bytes of a small request */
#define EVERY_WAY	((1u << WAYS) - 1)
#define HELD		(1u << WAY_SYNC | 1u << WAY_AIO)	/* by the driver: io_uring waits for poll first */

/* The function, and its driver. */

static char address[NAME_MAX + 1];	/* as sysfs names it */

/* The name of a file of the function. */
static const char *function(const char *name)
{
	static char path[512];

	snprintf(path, sizeof(path), PCI "/devices/%s/%s", address, name);
	return path;
}

/* Finds the function with the lowest address: it has /dev/fifo0. */
static bool find_function(void)
{
	struct dirent **names;
	bool found = false;
	int n = scandir(PCI "/devices", &names, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		if (!found && names[i]->d_name[0] != '.') {
			snprintf(address, sizeof(address), "%s", names[i]->d_name);
			found = slurp_number(function("vendor"), -1) == VENDOR &&
				slurp_number(function("device"), -1) == DEVICE;
		}
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	return found;
}

static int put(const char *path, const char *text)
{
	if (!spit(path, text))
		return 0;
	ktap_diag("writing %s to %s: %s", text, path, strerror(errno));
	return -1;
}

static int attach(void)
{
	return put(DRIVER "/bind", address);
}

static int detach(void)
{
	return put(DRIVER "/unbind", address);
}

static bool bound(void)
{
	return !access(function("driver"), F_OK);
}

/* Unloads the module and loads it with other parameters. */
static int reload(const char *parameters)
{
	if (module_reload(parameters))
		return -1;
	if (bound())
		return 0;
	ktap_diag("the module with \"%s\" does not take the device", parameters);
	return -1;
}

/* Has the host put the device back, which was taken away unasked. */
static int plug(void)
{
	if (put(function("remove"), "1") || !ktap_has_host() || ktap_host(NULL, 0, "plug fifo0"))
		return -1;
	return put(PCI "/rescan", "1");
}

/* Puts back what a check that failed has left. */
static int restore(void)
{
	bool works;
	int fd;

	if (!find_function() && (put(PCI "/rescan", "1") || !find_function()))
		return 0;	/* the bracket knows whether there should be one */
	if (access(MODULE, F_OK) && module_load(module_usual())) {
		ktap_diag("finit_module: %s", strerror(errno));
		return -1;
	}
	if (!bound())
		return attach();
	/* It may be bound to a device that it takes for gone. */
	fd = open("/dev/fifo0", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return 0;
	works = fifo_info(fd).depth;
	close(fd);
	if (works || !(detach() || attach()))
		return 0;
	return plug();
}

/* Lines of /proc/interrupts with a handler of the driver's: it calls them by the function's address. */
static int interrupt_lines(void)
{
	static char buf[1 << 16];
	int n = 0;

	if (slurp("/proc/interrupts", buf, sizeof(buf)) < 0)
		return -1;
	for (char *p = buf; (p = strstr(p, address)); n++)
		p += strcspn(p, "\n");
	return n;
}

/* Whether nothing of the driver's is to be seen but the module itself. */
static int vanished(void)
{
	static const char *const paths[] = {
		"/dev/fifo0", "/dev/fifo1", "/sys/class/fifo/fifo0", "/sys/class/fifo/fifo1",
		"/sys/kernel/debug/fifo_aio/fifo0", "/sys/kernel/debug/fifo_aio/fifo1",
	};
	char buf[4096];
	int failed = 0;

	for (size_t i = 0; i < FIFO_ARRAY_SIZE(paths); i++) {
		if (!access(paths[i], F_OK)) {
			ktap_diag("%s is still there", paths[i]);
			failed = -1;
		}
	}
	if (!access(function("msi_irqs"), F_OK)) {
		ktap_diag("%s is still there", function("msi_irqs"));
		failed = -1;
	}
	if (interrupt_lines()) {
		ktap_diag("%d lines of /proc/interrupts are still the driver's", interrupt_lines());
		failed = -1;
	}
	if (slurp("/proc/iomem", buf, sizeof(buf)) > 0 && strstr(buf, "fifo_aio")) {
		ktap_diag("the registers are still the driver's");
		failed = -1;
	}
	return failed;
}

/* Whether nothing at all is to be seen. */
static int unloaded(void)
{
	static const char *const paths[] = {
		MODULE, DRIVER, "/sys/class/fifo", "/sys/kernel/debug/fifo_aio", "/sys/kernel/tracing/events/fifo_aio",
	};
	static char buf[1 << 16];
	int failed = vanished();

	for (size_t i = 0; i < FIFO_ARRAY_SIZE(paths); i++) {
		if (!access(paths[i], F_OK)) {
			ktap_diag("%s is still there", paths[i]);
			failed = -1;
		}
	}
	if (slurp("/proc/devices", buf, sizeof(buf)) > 0 && strstr(buf, "fifo")) {
		ktap_diag("the device number is still the driver's");
		failed = -1;
	}
	if (slurp("/proc/slabinfo", buf, sizeof(buf)) > 0 && strstr(buf, "\nfifo")) {
		ktap_diag("a cache of the driver's is still there");
		failed = -1;
	}
	return failed;
}

/* Whether all channels work, by each way. */
static int works(void)
{
	/* In one page: a ring of two entries takes no more in one transfer. */
	char in[RECORD] __attribute__((aligned(RECORD))), out[RECORD] __attribute__((aligned(RECORD)));

	if (fifo_channels() < 1) {
		ktap_diag("no channel");
		return -1;
	}
	for (int c = 0; c < fifo_channels(); c++) {
		int fd = fifo_open(c, O_RDWR);

		if (fd < 0)
			return -1;
		for (enum way way = 0; way < WAYS; way++) {
			struct job reader;
			ssize_t n;

			fifo_fill(out, RECORD, c, way * RECORD);
			if (job_start(&reader, way, fd, JOB_READ, in, RECORD))
				return -1;
			n = job_do(way, fd, JOB_WRITE, out, RECORD);
			if (n == RECORD)
				n = job_end(&reader);
			if (n != RECORD || fifo_verify(in, RECORD, c, way * RECORD)) {
				ktap_diag("channel %d by %s: %zd", c, way_names[way], n);
				return -1;
			}
		}
		close(fd);
	}
	return 0;
}

/* Many bytes through a channel by libaio, so that rings wrap and completions are many. */
static int streams(int channel)
{
	enum { DEPTH = 16, SIZE = 3000 };	/* all of them fit into the FIFO */
	static char buf[DEPTH][SIZE];
	struct iovec iov[DEPTH];
	ssize_t results[DEPTH];
	uint64_t at = 0, taken = 0;
	struct port p;

	if (port_open(&p, channel, O_RDWR))
		return -1;
	for (int round = 0; round < 8; round++) {
		for (int i = 0; i < DEPTH; i++, at += SIZE) {
			fifo_fill(buf[i], SIZE, 7, at);
			iov[i] = (struct iovec){ buf[i], SIZE };
		}
		if (port_do(&p, WAY_AIO, true, iov, DEPTH, results))
			return -1;
		for (int i = 0; i < DEPTH; i++) {
			if (results[i] != SIZE) {
				ktap_diag("write: %zd", results[i]);
				return -1;
			}
		}
		while (taken < at) {
			int n = 0;

			/* Short ones leave some for the next batch; none finds nothing. */
			while (n < DEPTH && taken + n * SIZE < at)
				n++;
			if (port_do(&p, WAY_AIO, false, iov, n, results))
				return -1;
			for (int i = 0; i < n; taken += results[i++]) {
				if (results[i] <= 0 || fifo_verify(buf[i], results[i], 7, taken)) {
					ktap_diag("read: %zd", results[i]);
					return -1;
				}
			}
		}
	}
	port_close(&p);
	return 0;
}

/* Requests in flight: reads of the empty channel 0, writes to the full channel 1. */

#define EACH	8	/* of each way and direction */

struct flight {
	int reader, writer;
	unsigned int ways;
	size_t filled;			/* channel 1 has these bytes of stream 1, then those of the writers */
	int n;
	struct job reads[WAYS * EACH], writes[WAYS * EACH];
	char in[WAYS * EACH][RECORD], out[WAYS * EACH][RECORD];
};

/* Fills the FIFO with the bytes of stream 1 from 0 on; returns how many. */
static ssize_t fill_up(int channel)
{
	int fd = fifo_open(channel, O_WRONLY | O_NONBLOCK);
	char buf[4096];
	size_t filled = 0;
	ssize_t n;

	if (fd < 0)
		return -1;
	do {
		fifo_fill(buf, sizeof(buf), 1, filled);
		n = write(fd, buf, sizeof(buf));
		if (n > 0)
			filled += n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	if (errno == EAGAIN && filled != fifo_info(fd).fill)
		ktap_diag("%zu bytes were written, %u are in the FIFO", filled, fifo_info(fd).fill);
	else if (errno == EAGAIN && filled != fifo_info(fd).depth)
		ktap_diag("%zu bytes are in the FIFO, %u fit", filled, fifo_info(fd).depth);
	else if (errno == EAGAIN)
		n = filled;
	else
		ktap_diag("write: %s", strerror(errno));
	close(fd);
	return n;
}

static int flight_start(struct flight *f, unsigned int ways)
{
	int held = 0;	/* by the driver, in one direction */
	ssize_t n;

	f->n = 0;
	f->ways = ways;
	f->reader = fifo_open(0, O_RDWR);
	f->writer = fifo_open(1, O_RDWR);
	if (f->reader < 0 || f->writer < 0)
		return -1;
	n = fill_up(1);
	if (n < 0)
		return -1;
	f->filled = n;
	for (enum way way = 0; way < WAYS; way++) {
		for (int i = 0; ways & 1u << way && i < EACH; i++, f->n++) {
			fifo_fill(f->out[f->n], RECORD, 1, f->filled + f->n * RECORD);
			memset(f->in[f->n], 0, RECORD);
			if (job_start(&f->reads[f->n], way, f->reader, JOB_READ, f->in[f->n], RECORD) ||
			    job_start(&f->writes[f->n], way, f->writer, JOB_WRITE, f->out[f->n], RECORD))
				return -1;
			/* The next one is to come behind it. */
			held += HELD >> way & 1;
			if (fifo_wait_flight(0, "rx", held, "a read in flight") ||
			    fifo_wait_flight(1, "tx", held, "a write in flight"))
				return -1;
		}
	}
	return 0;
}

/* All of them end with result. */
static int flight_end(struct flight *f, ssize_t result)
{
	int failed = 0;

	for (int i = 0; i < f->n; i++) {
		ssize_t in = job_end(&f->reads[i]), out = job_end(&f->writes[i]);

		if (in != result || out != result) {
			ktap_diag("%s: read %zd, write %zd, not %zd", way_names[f->reads[i].way], in, out, result);
			failed = -1;
		}
	}
	close(f->reader);
	close(f->writer);
	return failed;
}

/* They go on as if nothing had been. What was in the FIFO may be lost, but not a part of it. */
static int flight_goes_on(struct flight *f)
{
	bool matched[WAYS * EACH] = { false };
	size_t all = f->filled + f->n * RECORD, got = 0;
	char *bytes = malloc(all + 1), out[RECORD];

	/* A read for a record, each of a stream of its own: whose is whose, a signal or poll may have changed. */
	for (int i = 0; i < f->n; i++) {
		fifo_fill(out, RECORD, 100 + i, 0);
		if (job_do(WAY_SYNC, f->reader, JOB_WRITE, out, RECORD) != RECORD)
			return ktap_fail("channel 0 takes no bytes");
	}
	for (int i = 0; i < f->n; i++) {
		ssize_t n = job_end(&f->reads[i]);
		int j = 0;

		if (n != RECORD)
			return ktap_fail("%s: read %zd", way_names[f->reads[i].way], n);
		while (j < f->n && (matched[j] || fifo_differs(f->in[i], RECORD, 100 + j, 0) >= 0))
			j++;
		if (j == f->n)
			return ktap_fail("%s: read what nobody wrote", way_names[f->reads[i].way]);
		matched[j] = true;
	}
	if (!bytes)
		return ktap_fail("no memory");
	/* Room for all: they end with their counts. */
	while (got <= all && fifo_wait(f->writer, POLLIN, "the bytes of the writers") >= 0) {
		ssize_t n = read(f->writer, bytes + got, all + 1 - got);

		if (n <= 0)
			return ktap_fail("read: %s", strerror(errno));
		got += n;
		if (got == all || (got == (size_t)f->n * RECORD && fifo_differs(bytes, RECORD, 1, 0) >= 0))
			break;
	}
	for (int i = 0; i < f->n; i++) {
		ssize_t n = job_end(&f->writes[i]);

		if (n != RECORD)
			return ktap_fail("%s: write %zd", way_names[f->writes[i].way], n);
	}
	if (got == all && f->filled) {
		if (fifo_verify(bytes, f->filled, 1, 0))
			return KTAP_FAIL;
		memmove(bytes, bytes + f->filled, got - f->filled);
		got -= f->filled;
	}
	if (got != (size_t)f->n * RECORD)
		return ktap_fail("%zu bytes of %d writers", got, f->n);
	memset(matched, 0, sizeof(matched));
	for (int i = 0; i < f->n; i++) {
		int j = 0;

		while (j < f->n && (matched[j] || memcmp(bytes + i * RECORD, f->out[j], RECORD)))
			j++;
		if (j == f->n)
			return ktap_fail("record %d of %d is none that was written, or is one twice", i, f->n);
		matched[j] = true;
	}
	free(bytes);
	close(f->reader);
	close(f->writer);
	return KTAP_PASS;
}

/* Two channels, and the driver's debugfs, are what most checks need. */
static int two_channels(void)
{
	if (fifo_channels() < 2)
		return ktap_skip("%d channel, two are needed", fifo_channels());
	return KTAP_PASS;
}

/* Unbind and bind. */

static int unbind_idle(void)
{
	struct stat st;
	char buf[64], number[64];

	for (int i = 0; i < 3; i++) {
		if (detach() || vanished())
			return KTAP_FAIL;
		if (fifo_references())
			return ktap_fail("%lld references to the module", fifo_references());
		if (attach())
			return KTAP_FAIL;
		if (interrupt_lines() < 1)
			return ktap_fail("no line in /proc/interrupts is the driver's");
		if (stat("/dev/fifo0", &st) || !S_ISCHR(st.st_mode))
			return ktap_fail("/dev/fifo0 is no character device");
		snprintf(number, sizeof(number), "%u:%u\n", major(st.st_rdev), minor(st.st_rdev));
		if (slurp("/sys/class/fifo/fifo0/dev", buf, sizeof(buf)) < 0 || strcmp(buf, number))
			return ktap_fail("/dev/fifo0 is %s, sysfs has %s", number, buf);
		if (works())
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/* A driver that is asked for what it has already says no, and goes on. */
static int twice(void)
{
	if (!FIFO_FAILS(module_load(""), EEXIST))
		return KTAP_FAIL;
	if (!spit(DRIVER "/bind", address))
		return ktap_fail("a bound device was bound");
	if (detach())
		return KTAP_FAIL;
	if (!spit(DRIVER "/unbind", address))
		return ktap_fail("an unbound device was unbound");
	if (attach() || works())
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* Every file operation of a file whose device has gone. */
static int gone(int fd)
{
	struct fifo_aio_thresholds thresholds = { 0 };
	struct fifo_aio_stats stats;
	struct fifo_aio_info info;
	char buf[RECORD];
	struct iovec iov = { buf, sizeof(buf) };
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };
	fd_set in, out;
	int pipes[2];

	if (!FIFO_FAILS(read(fd, buf, RECORD), ENODEV) || !FIFO_FAILS(write(fd, buf, RECORD), ENODEV) ||
	    !FIFO_FAILS(readv(fd, &iov, 1), ENODEV) || !FIFO_FAILS(writev(fd, &iov, 1), ENODEV) ||
	    !FIFO_FAILS(preadv2(fd, &iov, 1, -1, RWF_NOWAIT), ENODEV) ||
	    !FIFO_FAILS(pwritev2(fd, &iov, 1, -1, RWF_NOWAIT), ENODEV) ||
	    !FIFO_FAILS(fsync(fd), ENODEV) || !FIFO_FAILS(fdatasync(fd), ENODEV) ||
	    !FIFO_FAILS(ioctl(fd, FIFO_AIO_GET_INFO, &info), ENODEV) ||
	    !FIFO_FAILS(ioctl(fd, FIFO_AIO_GET_STATS, &stats), ENODEV) ||
	    !FIFO_FAILS(ioctl(fd, FIFO_AIO_GET_THRESHOLDS, &thresholds), ENODEV) ||
	    !FIFO_FAILS(ioctl(fd, FIFO_AIO_SET_THRESHOLDS, &thresholds), ENODEV) ||
	    !FIFO_FAILS(ioctl(fd, FIFO_AIO_RESET), ENODEV))
		return -1;
	if (poll(&p, 1, 0) != 1 || (p.revents & (POLLERR | POLLHUP)) != (POLLERR | POLLHUP)) {
		ktap_diag("poll gives %#x", p.revents);
		return -1;
	}
	/* select calls a file ready when read and write would not wait. */
	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_SET(fd, &in);
	FD_SET(fd, &out);
	if (!FIFO_GIVES(select(fd + 1, &in, &out, NULL, &(struct timeval){ 0 }), 2))
		return -1;
	for (enum way way = 0; way < WAYS; way++) {
		if (!FIFO_GIVES(job_do(way, fd, JOB_READ, buf, RECORD), -ENODEV) ||
		    !FIFO_GIVES(job_do(way, fd, JOB_WRITE, buf, RECORD), -ENODEV)) {
			ktap_diag("by %s", way_names[way]);
			return -1;
		}
	}
	if (pipe2(pipes, O_CLOEXEC) || write(pipes[1], buf, RECORD) != RECORD)
		return -1;
	if (!FIFO_FAILS(splice(pipes[0], NULL, fd, NULL, RECORD, 0), ENODEV))
		return -1;
	close(pipes[0]);
	close(pipes[1]);
	return 0;
}

/* Files that are open meanwhile are of no use, and do no harm; new ones work. */
static int unbind_open(void)
{
	static const int flags[] = { O_RDWR, O_RDWR | O_NONBLOCK, O_RDWR | O_DIRECT };
	int fds[FIFO_ARRAY_SIZE(flags) * FIFO_CHANNELS], n = 0, channels = fifo_channels();

	for (int c = 0; c < channels; c++) {
		for (size_t i = 0; i < FIFO_ARRAY_SIZE(flags); i++) {
			fds[n] = fifo_open(c, flags[i]);
			if (fds[n++] < 0)
				return KTAP_FAIL;
		}
	}
	if (detach() || vanished())
		return KTAP_FAIL;
	for (int i = 0; i < n; i++) {
		if (gone(fds[i]))
			return KTAP_FAIL;
	}
	/* The device's number may be the new one's: the file is still the old one's. */
	if (attach() || works())
		return KTAP_FAIL;
	for (int i = 0; i < n; i++) {
		if (gone(fds[i]))
			return KTAP_FAIL;
	}
	/* The module stays as long as they do, and so does the memory behind them. */
	if (detach() || !FIFO_FAILS(module_unload(), EWOULDBLOCK))
		return KTAP_FAIL;
	for (int i = 0; i < n; i++) {
		if (gone(fds[i]))
			return KTAP_FAIL;
		if (!FIFO_FAILS(module_unload(), EWOULDBLOCK))
			return KTAP_FAIL;
		close(fds[i]);
	}
	if (!FIFO_GIVES(module_unload(), 0) || unloaded() || module_load(module_usual()) || works())
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* What is in flight ends with ENODEV, and unbinding does not wait for anything else. */
static int unbind_in_flight(void)
{
	static struct flight f;
	int result = two_channels();

	if (result != KTAP_PASS)
		return result;
	if (flight_start(&f, EVERY_WAY) || detach())
		return KTAP_FAIL;
	if (flight_end(&f, -ENODEV))
		return KTAP_FAIL;
	if (attach() || works())
		return KTAP_FAIL;
	return KTAP_PASS;
}

struct waiter {
	const char *name;
	long call;
	int (*wait)(int in, int out);	/* KTAP_PASS when it was told that the device has gone */
};

static int wait_read(int in, int out)
{
	char c;

	(void)out;
	return FIFO_FAILS(read(in, &c, 1), ENODEV) ? KTAP_PASS : KTAP_FAIL;
}

static int wait_write(int in, int out)
{
	(void)in;
	return FIFO_FAILS(write(out, "x", 1), ENODEV) ? KTAP_PASS : KTAP_FAIL;
}

static int wait_poll(int in, int out)
{
	struct pollfd p[] = { { .fd = in, .events = POLLIN }, { .fd = out, .events = POLLOUT } };

	if (!FIFO_GIVES(poll(p, 1, FIFO_WAIT_MS), 1) || !FIFO_GIVES(poll(p + 1, 1, FIFO_WAIT_MS), 1))
		return KTAP_FAIL;
	if (p[0].revents & p[1].revents & POLLERR && p[0].revents & p[1].revents & POLLHUP)
		return KTAP_PASS;
	return ktap_fail("poll gives %#x and %#x", p[0].revents, p[1].revents);
}

static int wait_events_only(int in, int out)
{
	struct pollfd p = { .fd = in };

	(void)out;
	/* POLLERR and POLLHUP come unasked. */
	if (!FIFO_GIVES(poll(&p, 1, FIFO_WAIT_MS), 1))
		return KTAP_FAIL;
	return p.revents == (POLLERR | POLLHUP) ? KTAP_PASS : ktap_fail("poll gives %#x", p.revents);
}

static int wait_select(int in, int out)
{
	struct timespec limit = { .tv_sec = FIFO_WAIT_MS / 1000 };
	fd_set set;

	FD_ZERO(&set);
	FD_SET(out, &set);
	(void)in;
	return FIFO_GIVES(pselect(out + 1, NULL, &set, NULL, &limit, NULL), 1) ? KTAP_PASS : KTAP_FAIL;
}

static int wait_epoll(int in, int out)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLET }, got = { 0 };
	int ep = epoll_create1(EPOLL_CLOEXEC);

	(void)out;
	if (epoll_ctl(ep, EPOLL_CTL_ADD, in, &e) || !FIFO_GIVES(epoll_wait(ep, &got, 1, FIFO_WAIT_MS), 1))
		return KTAP_FAIL;
	if ((got.events & (EPOLLERR | EPOLLHUP)) == (EPOLLERR | EPOLLHUP))
		return KTAP_PASS;
	return ktap_fail("epoll gives %#x", got.events);
}

static int wait_fsync(int in, int out)
{
	struct job j;
	char c = 0;

	(void)in;
	if (job_start(&j, WAY_AIO, out, JOB_WRITE, &c, 1))
		return KTAP_FAIL;
	if (!FIFO_FAILS(fsync(out), ENODEV) || !FIFO_GIVES(job_end(&j), -ENODEV))
		return KTAP_FAIL;
	return KTAP_PASS;
}

static const struct waiter waiters[] = {
	{ "a reader", SYS_read, wait_read },
	{ "a writer", SYS_write, wait_write },
	{ "a process in poll", SYS_poll, wait_poll },
	{ "a process in poll for nothing", SYS_poll, wait_events_only },
	{ "a process in select", SYS_pselect6, wait_select },
	{ "a process in epoll_wait", SYS_epoll_wait, wait_epoll },
	{ "a process in fsync", SYS_fsync, wait_fsync },
};

static int be_waiter(void *arg)
{
	const struct waiter *w = arg;
	int in = fifo_open(0, O_RDWR), out = fifo_open(1, O_RDWR);

	return in < 0 || out < 0 ? KTAP_FAIL : w->wait(in, out);
}

/* Processes that wait in whatever system call come back from it. */
static int unbind_blocked(void)
{
	pid_t pids[FIFO_ARRAY_SIZE(waiters)];
	int result = two_channels();

	if (result != KTAP_PASS)
		return result;
	if (fill_up(1) < 0)
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(waiters); i++) {
		pids[i] = fifo_fork(be_waiter, (void *)&waiters[i]);
		if (pids[i] < 0 || fifo_blocked(pids[i], waiters[i].call, waiters[i].name))
			return KTAP_FAIL;
	}
	if (detach())
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(waiters); i++) {
		if (fifo_reap_passed(pids[i], waiters[i].name))
			result = KTAP_FAIL;
	}
	if (attach() || works())
		return KTAP_FAIL;
	return result;
}

/* Traffic by several processes, for checks in which the device comes and goes meanwhile. */

struct traffic {
	uint32_t stop;		/* in shared memory */
	uint32_t done;		/* requests that moved bytes */
	uint64_t accepted;	/* errors that may be met, by bit */
	pid_t pids[8];
	int n;
};

struct player {
	struct traffic *traffic;
	int number;
};

static bool accepted(const struct traffic *t, ssize_t result)
{
	return result > 0 || result == -EAGAIN || (result < 0 && result > -64 && t->accepted & 1ull << -result);
}

/* Opens a channel that may be away; -1 if it does not come, or the traffic is over. */
static int open_again(struct traffic *t, int channel)
{
	long long end = fifo_now_ms() + FIFO_WAIT_MS;
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/fifo%d", channel);
	while (!__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE) && fifo_now_ms() < end) {
		fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0 || (errno != ENOENT && errno != ENODEV && errno != ENXIO))
			return fd;
		usleep(500);
	}
	return -1;
}

/* As job_end_within; the freezer wakes who waits, and then it is waited again. */
static ssize_t job_end_or_freeze(struct job *j, int ms)
{
	long long end = fifo_now_ms() + ms;
	ssize_t n;

	do
		n = job_end_within(j, ms);
	while (n == JOB_HUNG && fifo_now_ms() < end);
	return n;
}

/* Reads and writes by all ways until it is told to stop. No request is left to wait for another process. */
static int play(void *arg)
{
	struct player *p = arg;
	struct traffic *t = p->traffic;
	struct fifo_rng rng = fifo_rng(1000 + p->number);
	int channel = p->number % 2, fd = -1;
	static char in[RECORD], out[RECORD];

	while (!__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE)) {
		enum way way = fifo_below(&rng, WAYS);
		struct job reader, writer;
		ssize_t n, m;

		if (fd < 0) {
			fd = open_again(t, channel);
			if (fd < 0)
				break;
			if (fifo_below(&rng, 2))
				fcntl(fd, F_SETFL, O_RDWR);
		}
		if (job_start(&writer, way, fd, JOB_WRITE, out, fifo_between(&rng, 1, RECORD)))
			return KTAP_FAIL;
		/* A read that waits: bytes of some writer come, as long as all play, or the device goes. */
		if (job_start(&reader, fifo_below(&rng, 2) ? way : WAY_AIO, fd, JOB_READ, in, fifo_between(&rng, 1, RECORD)))
			return KTAP_FAIL;
		n = job_end_or_freeze(&writer, FIFO_WAIT_MS);
		while ((m = job_end_or_freeze(&reader, 20)) == JOB_HUNG) {
			/* Others took what there was: give it something. */
			ssize_t k = write(fd, out, 1);

			if (k < 0 && !accepted(t, -errno))
				return ktap_fail("write: %s", strerror(errno));
			if (k < 0 && errno == ENODEV)
				break;
		}
		if (m == JOB_HUNG)
			m = job_end_or_freeze(&reader, FIFO_WAIT_MS);
		if (!accepted(t, n) || !accepted(t, m))
			return ktap_fail("%s: write %zd, read %zd", way_names[way], n, m);
		if (n > 0 && m > 0)
			__atomic_fetch_add(&t->done, 1, __ATOMIC_RELEASE);
		else
			usleep(1000);	/* nothing moves at the moment */
		if (n == -ENODEV || m == -ENODEV || !fifo_below(&rng, 16)) {
			close(fd);
			fd = -1;
		}
	}
	return __atomic_load_n(&t->stop, __ATOMIC_ACQUIRE) ? KTAP_PASS : ktap_fail("channel %d does not come back", channel);
}

/* Looks at sysfs and debugfs until it is told to stop. */
static int look(void *arg)
{
	struct player *p = arg;

	while (!__atomic_load_n(&p->traffic->stop, __ATOMIC_ACQUIRE)) {
		fifo_look();
		usleep(100);
	}
	return KTAP_PASS;
}

/* Starts players, and with look also somebody who looks. */
static struct traffic *traffic_start(uint64_t errors)
{
	struct traffic *t = fifo_shared(sizeof(*t));

	if (!t)
		return NULL;
	t->accepted = errors;
	for (int i = 0; i < 5; i++) {
		struct player p = { t, i };

		t->pids[i] = fifo_fork(i < 4 ? play : look, &p);
		if (t->pids[i] < 0)
			return NULL;
		t->n++;
	}
	return t;
}

struct progress {
	struct traffic *traffic;
	uint32_t done;
};

static bool has_progressed(void *arg)
{
	const struct progress *p = arg;

	return (int32_t)(__atomic_load_n(&p->traffic->done, __ATOMIC_ACQUIRE) - p->done) >= 0;
}

/* Waits until n more requests have moved bytes. */
static int traffic_flows(struct traffic *t, uint32_t n)
{
	struct progress p = { t, __atomic_load_n(&t->done, __ATOMIC_ACQUIRE) + n };

	return fifo_until(has_progressed, &p, "requests to go through");
}

static int traffic_stop(struct traffic *t)
{
	int failed = 0;

	__atomic_store_n(&t->stop, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < t->n; i++) {
		if (fifo_reap_passed(t->pids[i], i < 4 ? "a player" : "who looks at sysfs and debugfs"))
			failed = -1;
	}
	/* Bytes of those that ended first are nobody's. */
	for (int c = 0; c < fifo_channels(); c++) {
		int fd = fifo_open(c, O_RDWR);

		if (fd < 0 || ioctl(fd, FIFO_AIO_RESET))
			failed = -1;
		close(fd);
	}
	return failed;
}

static int unbind_under_load(void)
{
	unsigned int rounds = fifo_few_rounds(100);
	int result = two_channels();
	struct fifo_rng rng = fifo_rng(1);
	struct traffic *t;

	if (result != KTAP_PASS)
		return result;
	t = traffic_start(1ull << ENODEV);
	if (!t)
		return KTAP_FAIL;
	for (unsigned int i = 0; i < rounds && result == KTAP_PASS; i++) {
		if (traffic_flows(t, fifo_below(&rng, 10)) || detach() || attach())
			result = KTAP_FAIL;
	}
	return traffic_stop(t) ? KTAP_FAIL : result;
}

/* Processes are killed, with requests in flight, while the driver goes. */

struct doomed {
	uint32_t ready;		/* in shared memory */
	unsigned int ways;
};

static int be_doomed(void *arg)
{
	static struct flight f;
	struct doomed *d = arg;

	if (flight_start(&f, d->ways))
		return KTAP_FAIL;
	__atomic_store_n(&d->ready, 1, __ATOMIC_RELEASE);
	fifo_futex_wake(&d->ready);
	for (;;)
		pause();
}

static int unbind_dying(void)
{
	struct fifo_rng rng = fifo_rng(2);
	unsigned int rounds = fifo_rounds(50);
	int result = two_channels(), status;
	struct doomed *d;

	if (result != KTAP_PASS)
		return result;
	d = fifo_shared(sizeof(*d));
	if (!d)
		return ktap_fail("no memory");
	for (unsigned int i = 0; i < rounds; i++) {
		bool first = fifo_below(&rng, 2);
		pid_t pid;

		d->ready = 0;
		d->ways = fifo_between(&rng, 1, EVERY_WAY);
		pid = fifo_fork(be_doomed, d);
		if (pid < 0 || fifo_futex_wait(&d->ready, 0, "requests in flight"))
			return KTAP_FAIL;
		if (first)
			kill(pid, SIGKILL);
		if (detach())
			return KTAP_FAIL;
		if (!first)
			kill(pid, SIGKILL);
		status = fifo_reap(pid, "a killed process");
		if (status == -1 || !WIFSIGNALED(status))
			return ktap_fail("the killed process ended with status %#x", status);
		if (attach())
			return KTAP_FAIL;
	}
	return works() ? KTAP_FAIL : KTAP_PASS;
}

/* Each step of the way to a bound device fails once for want of memory; not all of them, unless there is time. */
static int bind_without_memory(void)
{
	int nth = fail_nth_open(), refused = 0;
	unsigned int step = fifo_rounds(50) < 50 ? 7 : 1, n = 1 + fifo_seed() % step;
	bool failed;

	if (nth < 0)
		return ktap_skip("this kernel has no fail-nth");
	/*
	 * With the pin, and enabled already: ACPI's interpreter and the files of
	 * interrupts in /proc, which messages get anew each time, do not bear it.
	 */
	if (reload("vectors=0") || detach() || put(function("enable"), "1"))
		return KTAP_FAIL;
	do {
		int fd = open(DRIVER "/bind", O_WRONLY | O_CLOEXEC), err = 0;

		if (fd < 0)
			return ktap_fail("%s/bind: %s", DRIVER, strerror(errno));
		fail_nth(nth, n);
		if (write(fd, address, strlen(address)) < 0)
			err = errno;
		failed = failed_nth(nth);
		close(fd);
		if (err) {
			refused++;
			/*
			 * EFAULT: the address itself did not come to the kernel. EBUSY: it had no memory
			 * to note who has the registers (pci_request_region).
			 */
			if (err != ENOMEM && err != ENOSPC && err != EFAULT && err != EBUSY)
				return ktap_fail("without allocation %u: %s", n, strerror(err));
			if (bound() || vanished())
				return ktap_fail("refused without allocation %u, but not wholly", n);
		} else if (works() || detach()) {
			return ktap_fail("without allocation %u", n);
		}
		n += step;
	} while (failed);
	if (put(function("enable"), "0") || attach() || works() || reload(module_usual()))
		return KTAP_FAIL;
	return refused > 5 ? KTAP_PASS : ktap_fail("only %d were refused, up to allocation %u", refused, n);
}

/* The module. */

static int rmmod_busy(void)
{
	char c;
	struct job j;
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0 || !FIFO_FAILS(module_unload(), EWOULDBLOCK))
		return KTAP_FAIL;
	/* A failed try leaves it as it was. */
	if (works())
		return KTAP_FAIL;
	if (job_start(&j, WAY_AIO, fd, JOB_READ, &c, 1) || !FIFO_FAILS(module_unload(), EWOULDBLOCK))
		return KTAP_FAIL;
	if (!FIFO_GIVES(write(fd, "x", 1), 1) || !FIFO_GIVES(job_end(&j), 1))
		return KTAP_FAIL;
	close(fd);
	if (!FIFO_GIVES(module_unload(), 0) || unloaded())
		return KTAP_FAIL;
	if (!FIFO_GIVES(module_load(module_usual()), 0) || works())
		return KTAP_FAIL;
	return KTAP_PASS;
}

/* Bytes of the kernel's memory that are not to be had back. */
static long long unreclaimable(void)
{
	char buf[8192], *p;

	if (slurp("/proc/meminfo", buf, sizeof(buf)) < 0 || !(p = strstr(buf, "SUnreclaim:")))
		return -1;
	return strtoll(p + strlen("SUnreclaim:"), NULL, 10) << 10;
}

/* A thousand times loaded and unloaded, with I/O in between and without. */
static int reloads(void)
{
	unsigned int rounds = fifo_few_rounds(500) * 2;
	long long before = -1, after;

	for (unsigned int i = 0; i < rounds; i++) {
		if (reload(module_usual()))
			return ktap_fail("round %u", i);
		if (i % 2 && works())
			return ktap_fail("round %u", i);
		if (i == 9)
			before = unreclaimable();
	}
	/* A page a round would be a leak; the allocator itself keeps some. */
	after = unreclaimable();
	if (after - before > (long long)(rounds - 10) * FIFO_PAGE)
		return ktap_fail("%u rounds cost %lld bytes", rounds, after - before);
	return KTAP_PASS;
}

static const struct parameter {
	const char *name;
	bool at_any_time;
	const char *good[4], *bad[6];
} parameters[] = {
	{ "timeout_ms", true, { "10", "60000" }, { "9", "60001", "-1", "x" } },
	{ "abort_ms", true, { "1", "1000" }, { "0", "1001", "", "4294967297" } },
	{ "wait_ms", true, { "0", "3600000" }, { "3600001", "-1" } },
	{ "ring_entries", false, { "2", "4096" }, { "0", "1", "3", "1000", "8192", "4294967298" } },
	{ "vectors", false, { "0", "17" }, { "18", "-1" } },
	{ "coalesce_count", false, { "0", "255" }, { "256", "-1" } },
	{ "coalesce_us", false, { "1", "65535" }, { "0", "65536" } },
	{ "queue_limit", false, { "1", "65536" }, { "0", "65537" } },
};

/* What a parameter with an unfit value says: out of range, or no number at all. */
static bool refused(int err)
{
	return err == EINVAL || err == ERANGE;
}

static int parameters_load(void)
{
	char text[64];

	if (!FIFO_GIVES(module_unload(), 0))
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(parameters); i++) {
		const struct parameter *p = &parameters[i];

		for (const char *const *v = p->bad; v < p->bad + 6 && *v; v++) {
			snprintf(text, sizeof(text), "%s=%s", p->name, *v);
			if (!module_load(text))
				return ktap_fail("the module was loaded with %s", text);
			if (!refused(errno))
				return ktap_fail("%s: %s", text, strerror(errno));
			if (!access(MODULE, F_OK))
				return ktap_fail("%s: refused, and there nevertheless", text);
		}
		for (const char *const *v = p->good; v < p->good + 4 && *v; v++) {
			snprintf(text, sizeof(text), "%s=%s", p->name, *v);
			if (module_load(text))
				return ktap_fail("%s: %s", text, strerror(errno));
			if (fifo_parameter(p->name) != atoll(*v))
				return ktap_fail("%s, but sysfs has %lld", text, fifo_parameter(p->name));
			if (!bound() || works())
				return ktap_fail("with %s", text);
			if (!FIFO_GIVES(module_unload(), 0))
				return KTAP_FAIL;
		}
	}
	if (!FIFO_FAILS(module_load("timeout_ms=20 ring_entries=5"), EINVAL))
		return KTAP_FAIL;
	return FIFO_GIVES(module_load(module_usual()), 0) && !works() ? KTAP_PASS : KTAP_FAIL;
}

static int parameters_written(void)
{
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(parameters); i++) {
		const struct parameter *p = &parameters[i];
		char path[128];
		long long was = fifo_parameter(p->name);

		snprintf(path, sizeof(path), MODULE "/parameters/%s", p->name);
		if (was < 0)
			return ktap_fail("%s: %s", path, strerror(errno));
		if (!p->at_any_time) {
			if (!FIFO_FAILS(spit(path, p->good[0]), EACCES))
				return ktap_fail("%s can be set", p->name);
			continue;
		}
		for (const char *const *v = p->bad; v < p->bad + 6 && *v; v++) {
			/* A write of no bytes does not come to the driver. */
			if (**v && (!spit(path, *v) || !refused(errno)))
				return ktap_fail("%s: %s was accepted, or %s", p->name, *v, strerror(errno));
			if (fifo_parameter(p->name) != was)
				return ktap_fail("%s: %s was refused, but has changed it", p->name, *v);
		}
		for (const char *const *v = p->good; v < p->good + 4 && *v; v++) {
			if (!FIFO_GIVES(spit(path, *v), 0) || fifo_parameter(p->name) != atoll(*v))
				return ktap_fail("%s=%s", p->name, *v);
			if (works())
				return ktap_fail("with %s=%s", p->name, *v);
		}
		if (fifo_parameter_set(p->name, was))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/* Entries of a folder. */
static int entries(const char *path)
{
	struct dirent *e;
	DIR *d = opendir(path);
	int n = 0;

	if (!d)
		return 0;
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

/* As many interrupts as it may have, down to the pin. */
static int vectors(void)
{
	static const int counts[] = { 0, 1, 2, 3, 4, 5, 17 };

	for (size_t i = 0; i < FIFO_ARRAY_SIZE(counts); i++) {
		int all = 1 + 2 * fifo_channels(), want = counts[i] < all ? counts[i] : all, have;
		long long before;
		char text[32];

		snprintf(text, sizeof(text), "vectors=%d", counts[i]);
		if (reload(text))
			return KTAP_FAIL;
		have = entries(function("msi_irqs"));
		/* The machine has as many as it is asked for. */
		if (have != want)
			return ktap_fail("%s: %d vectors, not %d", text, have, want);
		before = fifo_stat(0, "rx", "interrupts");
		if (interrupt_lines() < (have ? have : 1) || works() || streams(0) || streams(1))
			return ktap_fail("%s, %d lines in /proc/interrupts", text, interrupt_lines());
		if (fifo_stat(0, "rx", "interrupts") <= before)
			return ktap_fail("%s: no interrupts", text);
		if (fifo_stat(0, "rx", "lost_interrupts") || fifo_stat(1, "tx", "lost_interrupts"))
			return ktap_fail("%s: completions that no interrupt told of", text);
	}
	return reload(module_usual()) ? KTAP_FAIL : KTAP_PASS;
}

/* Requests of more pieces than the ring holds, and more of them, by rings of each size. */
static int ring_entries(void)
{
	static const int counts[] = { 2, 4, 16, 64, 4096 };
	enum { PIECES = 200, PIECE = 61 };
	static char in[PIECES * 2][PIECE], out[PIECES * 2][PIECE];
	struct iovec iov[PIECES];

	for (size_t i = 0; i < FIFO_ARRAY_SIZE(counts); i++) {
		char text[32];
		size_t done;
		ssize_t n;
		int fd;

		snprintf(text, sizeof(text), "ring_entries=%d", counts[i]);
		if (reload(text))
			return KTAP_FAIL;
		fd = fifo_open(0, O_RDWR);
		if (fd < 0)
			return KTAP_FAIL;
		if (fifo_info(fd).ring_entries != (unsigned int)counts[i])
			return ktap_fail("%s: %u", text, fifo_info(fd).ring_entries);
		/* With gaps between them, so that pieces do not become one. */
		for (int k = 0; k < PIECES; k++) {
			fifo_fill(out[k * 2], PIECE, i, k * PIECE);
			iov[k] = (struct iovec){ out[k * 2], PIECE };
		}
		if (!FIFO_GIVES(writev(fd, iov, PIECES), PIECES * PIECE))
			return ktap_fail("with %s", text);
		memset(in, 0, sizeof(in));
		for (done = 0; done < PIECES * PIECE; done += n) {
			size_t first = done / PIECE, skip = done % PIECE;

			for (size_t k = first; k < PIECES; k++)
				iov[k] = (struct iovec){ in[k * 2], PIECE };
			iov[first].iov_base = in[first * 2] + skip;
			iov[first].iov_len -= skip;
			if (fifo_wait(fd, POLLIN, "the pieces") < 0)
				return ktap_fail("with %s", text);
			n = readv(fd, iov + first, PIECES - first);
			if (n <= 0)
				return ktap_fail("%s: readv: %s", text, n ? strerror(errno) : "0");
		}
		for (int k = 0; k < PIECES; k++) {
			if (fifo_verify(in[k * 2], PIECE, i, k * PIECE) || !fifo_all(in[k * 2 + 1], 0, PIECE))
				return ktap_fail("%s: piece %d, or the gap behind it", text, k);
		}
		close(fd);
		if (streams(0) || works())
			return ktap_fail("with %s", text);
	}
	return reload(module_usual()) ? KTAP_FAIL : KTAP_PASS;
}

/* One request more than there may be is refused at once; the other direction has its own. */
static int queue_limit(void)
{
	static const int limits[] = { 1, 2, 7 };
	char in[8], out = 'x';

	for (size_t i = 0; i < FIFO_ARRAY_SIZE(limits); i++) {
		struct job jobs[7];
		char text[32];
		int fd;

		snprintf(text, sizeof(text), "queue_limit=%d", limits[i]);
		if (reload(text))
			return KTAP_FAIL;
		fd = fifo_open(0, O_RDWR);
		if (fd < 0)
			return KTAP_FAIL;
		for (int k = 0; k < limits[i]; k++) {
			if (job_start(&jobs[k], WAY_AIO, fd, JOB_READ, in + k, 1))
				return KTAP_FAIL;
		}
		for (int k = 0; k < 3; k++) {
			if (!FIFO_GIVES(job_do(WAY_AIO, fd, JOB_READ, in + 7, 1), -EAGAIN))
				return ktap_fail("with %s", text);
		}
		/* A place that has become free can be had again. */
		for (int k = 0; k < limits[i]; k++) {
			if (!FIFO_GIVES(write(fd, &out, 1), 1) || !FIFO_GIVES(job_end(&jobs[k]), 1) ||
			    job_start(&jobs[k], WAY_AIO, fd, JOB_READ, in + k, 1))
				return ktap_fail("with %s", text);
		}
		if (!FIFO_GIVES(job_do(WAY_AIO, fd, JOB_READ, in + 7, 1), -EAGAIN))
			return ktap_fail("with %s", text);
		for (int k = 0; k < limits[i]; k++) {
			if (!FIFO_GIVES(write(fd, &out, 1), 1) || !FIFO_GIVES(job_end(&jobs[k]), 1))
				return ktap_fail("with %s", text);
		}
		close(fd);
		if (works())
			return KTAP_FAIL;
	}
	return reload(module_usual()) ? KTAP_FAIL : KTAP_PASS;
}

/* Interrupts held back for as many completions as can be: all come nevertheless, by few. */
static int coalesce(void)
{
	static const struct {
		int count, us;
	} t[] = { { 0, 1 }, { 1, 1 }, { 2, 65535 }, { 255, 1 }, { 255, 65535 } };
	/* A cache line for each read: the DMA-API's debugging does not count more than 7 that share one. */
	static char in[PORT_DEPTH][64] __attribute__((aligned(64))), out[PORT_DEPTH], got[PORT_DEPTH];
	struct iovec iov[PORT_DEPTH];

	for (int k = 0; k < PORT_DEPTH; k++)
		iov[k] = (struct iovec){ in[k], 1 };
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(t); i++) {
		struct fifo_aio_thresholds now;
		ssize_t results[PORT_DEPTH];
		long long interrupts;
		char text[64];
		struct port p;

		snprintf(text, sizeof(text), "coalesce_count=%d coalesce_us=%d", t[i].count, t[i].us);
		if (reload(text) || port_open(&p, 0, O_RDWR) || !FIFO_GIVES(ioctl(p.fd, FIFO_AIO_GET_THRESHOLDS, &now), 0))
			return KTAP_FAIL;
		if ((int)now.tx_count != t[i].count || (int)now.rx_count != t[i].count ||
		    (t[i].count > 1 && ((int)now.tx_us != t[i].us || (int)now.rx_us != t[i].us)))
			return ktap_fail("%s: tx %u, %u us, rx %u, %u us", text, now.tx_count, now.tx_us, now.rx_count,
					 now.rx_us);
		if (port_submit(&p, false, iov, PORT_DEPTH))
			return KTAP_FAIL;
		interrupts = fifo_stat(0, "rx", "interrupts");
		fifo_fill(out, PORT_DEPTH, i, 0);
		if (!FIFO_GIVES(write(p.fd, out, PORT_DEPTH), PORT_DEPTH) || port_wait(&p, results))
			return ktap_fail("with %s", text);
		for (int k = 0; k < PORT_DEPTH; k++) {
			if (results[k] != 1)
				return ktap_fail("%s: read %d: %zd", text, k, results[k]);
			got[k] = in[k][0];
		}
		if (fifo_verify(got, PORT_DEPTH, i, 0))
			return ktap_fail("with %s", text);
		interrupts = fifo_stat(0, "rx", "interrupts") - interrupts;
		/* The last of a batch is not held back; that one, and two whose time was up on a slow machine. */
		if (t[i].count == 255 && t[i].us == 65535 && interrupts > 3)
			return ktap_fail("%s: %lld interrupts for %d reads", text, interrupts, PORT_DEPTH);
		port_close(&p);
	}
	return reload(module_usual()) ? KTAP_FAIL : KTAP_PASS;
}

/* Resets. */

static long long device_resets(void)
{
	return slurp_number("/sys/class/fifo/fifo0/device_resets", -1);
}

/* Function-level reset of an idle device: the FIFO is empty, files go on. */
static int flr_idle(void)
{
	long long before = device_resets();
	int fd = fifo_open(0, O_RDWR | O_NONBLOCK);
	char buf[RECORD];

	if (fd < 0 || !FIFO_GIVES(write(fd, buf, RECORD), RECORD))
		return KTAP_FAIL;
	for (int i = 0; i < 3; i++) {
		if (put(function("reset"), "1"))
			return KTAP_FAIL;
		if (!FIFO_FAILS(read(fd, buf, RECORD), EAGAIN))
			return ktap_fail("what was in the FIFO is still there");
		if (fifo_round_trip(fd, buf, RECORD, i) || works())
			return KTAP_FAIL;
	}
	if (before < 0 || device_resets() != before + 3)
		return ktap_fail("device_resets is %lld, and was %lld before 3 resets", device_resets(), before);
	return KTAP_PASS;
}

static int resets_in_flight(const char *what, int (*reset)(const struct flight *f), long long of_device)
{
	static struct flight f;
	long long rx, tx, resets = device_resets();
	int result = two_channels();

	if (result != KTAP_PASS)
		return result;
	for (int i = 0; i < 3; i++) {
		if (flight_start(&f, HELD))
			return KTAP_FAIL;
		rx = fifo_stat(0, "rx", "errors");
		tx = fifo_stat(1, "tx", "errors");
		if (reset(&f) || flight_end(&f, -EIO))
			return ktap_fail("%s", what);
		rx = fifo_stat(0, "rx", "errors") - rx;
		tx = fifo_stat(1, "tx", "errors") - tx;
		if (rx != f.n || tx != f.n)
			return ktap_fail("%d reads and %d writes ended with EIO, %lld and %lld errors were counted", f.n, f.n,
					 rx, tx);
		if (works())
			return ktap_fail("after %s", what);
	}
	if (device_resets() != resets + 3 * of_device)
		return ktap_fail("device_resets is %lld, and was %lld", device_resets(), resets);
	return KTAP_PASS;
}

static int do_flr(const struct flight *f)
{
	(void)f;
	return put(function("reset"), "1");
}

static int flr_in_flight(void)
{
	return resets_in_flight("function-level reset", do_flr, 1);
}

static int do_ioctl(const struct flight *f)
{
	return FIFO_GIVES(ioctl(f->reader, FIFO_AIO_RESET), 0) && FIFO_GIVES(ioctl(f->writer, FIFO_AIO_RESET), 0) ? 0 : -1;
}

static int reset_in_flight(void)
{
	return resets_in_flight("FIFO_AIO_RESET", do_ioctl, 0);
}

/* A channel's reset is that channel's. */
static int reset_of_one(void)
{
	int result = two_channels(), mine, other;
	struct job read_mine, read_other;
	char a, b, c;

	if (result != KTAP_PASS)
		return result;
	mine = fifo_open(0, O_RDWR);
	other = fifo_open(1, O_RDWR);
	if (mine < 0 || other < 0 || !FIFO_GIVES(write(other, "12", 2), 2) ||
	    !FIFO_GIVES(job_do(WAY_AIO, other, JOB_READ, &c, 1), 1) ||
	    job_start(&read_mine, WAY_AIO, mine, JOB_READ, &a, 1))
		return KTAP_FAIL;
	if (!FIFO_GIVES(ioctl(mine, FIFO_AIO_RESET), 0) || !FIFO_GIVES(job_end(&read_mine), -EIO))
		return KTAP_FAIL;
	if (!FIFO_GIVES(read(other, &b, 1), 1) || c != '1' || b != '2')
		return ktap_fail("the other channel has lost its bytes");
	if (job_start(&read_other, WAY_AIO, other, JOB_READ, &b, 1) || !FIFO_GIVES(ioctl(mine, FIFO_AIO_RESET), 0))
		return KTAP_FAIL;
	if (!FIFO_GIVES(write(other, "3", 1), 1) || !FIFO_GIVES(job_end(&read_other), 1) || b != '3')
		return ktap_fail("the other channel's read");
	return KTAP_PASS;
}

struct resetter {
	struct traffic *traffic;
	bool flr;
};

static int be_resetter(void *arg)
{
	struct resetter *r = arg;
	int fds[] = { fifo_open(0, O_RDWR), fifo_open(1, O_RDWR) };

	for (int i = 0; !__atomic_load_n(&r->traffic->stop, __ATOMIC_ACQUIRE); i++) {
		if (r->flr ? put(function("reset"), "1") : !FIFO_GIVES(ioctl(fds[i % 2], FIFO_AIO_RESET), 0))
			return KTAP_FAIL;
		usleep(1000);
	}
	return KTAP_PASS;
}

/* Everybody resets at once, under load. */
static int resets_at_once(void)
{
	int result = two_channels();
	struct traffic *t;
	pid_t pids[3];

	if (result != KTAP_PASS)
		return result;
	t = traffic_start(1ull << EIO);
	if (!t)
		return KTAP_FAIL;
	for (int i = 0; i < 3; i++) {
		struct resetter r = { t, i == 0 };

		pids[i] = fifo_fork(be_resetter, &r);
		if (pids[i] < 0)
			return KTAP_FAIL;
	}
	if (traffic_flows(t, fifo_few_rounds(300)))
		result = KTAP_FAIL;
	__atomic_store_n(&t->stop, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < 3; i++) {
		if (fifo_reap_passed(pids[i], "who resets"))
			result = KTAP_FAIL;
	}
	if (traffic_stop(t) || works())
		return KTAP_FAIL;
	return result;
}

/* Suspend to idle, as deep as a machine without an alarm comes back from. */

static const char *const depths[] = { "freezer", "devices", "platform" };

/* Suspends and resumes; 0, or -1 after saying why not. */
static int nap(const char *depth)
{
	/* Without waiting there: it is done with a busy loop. */
	if (put("/sys/module/suspend/parameters/pm_test_delay", "0") || put("/sys/power/pm_test", depth) ||
	    put("/sys/power/state", "freeze") || put("/sys/power/pm_test", "none"))
		return -1;
	return 0;
}

static bool can_nap(void)
{
	return !access("/sys/power/pm_test", W_OK) && !access("/sys/module/suspend/parameters/pm_test_delay", W_OK);
}

static int suspend_idle(void)
{
	if (!can_nap())
		return ktap_skip("this kernel has no /sys/power/pm_test");
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(depths); i++) {
		if (nap(depths[i]) || works())
			return ktap_fail("%s", depths[i]);
	}
	return KTAP_PASS;
}

/* What is in flight is kept, and goes on. */
static int suspend_in_flight(void)
{
	static struct flight f;
	int result = two_channels();

	if (!can_nap())
		return ktap_skip("this kernel has no /sys/power/pm_test");
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(depths) && result == KTAP_PASS; i++) {
		if (flight_start(&f, EVERY_WAY) || nap(depths[i]))
			return ktap_fail("%s", depths[i]);
		result = flight_goes_on(&f);
		if (result == KTAP_FAIL)
			ktap_diag("%s", depths[i]);
	}
	return result;
}

/* The largest FIFO that this is made for, and as much again. */
static uint8_t order_out[131072], order_in[131072];

static bool is_full(void *arg)
{
	struct fifo_aio_info info = fifo_info(((struct port *)arg)->fd);

	return info.fill == info.depth;
}

/* Nor does the order of requests change: the one that the hardware was at goes on, or begins, before the others. */
static int suspend_order(void)
{
	enum { N = 5, LEN = 1000, BEGUN = 500 };
	ssize_t results[PORT_DEPTH];
	struct iovec iov[N];
	struct port p;

	if (!can_nap())
		return ktap_skip("this kernel has no /sys/power/pm_test");
	if (port_open(&p, 0, O_RDWR))
		return KTAP_FAIL;
	for (size_t i = 0; i < 2 * FIFO_ARRAY_SIZE(depths); i++) {
		bool write = i % 2;
		size_t ahead = write ? fifo_info(p.fd).depth : 0, len = ahead + N * LEN;

		if (len > sizeof(order_out))
			return ktap_skip("a FIFO of %zu bytes", ahead);
		fifo_fill(order_out, len, i, 0);
		for (int j = 0; j < N; j++)
			iov[j] = (struct iovec){ (write ? order_out + ahead : order_in) + j * LEN, LEN };
		/* Of the writes, the first has begun. */
		if (fifo_write_all(p.fd, order_out, ahead) || port_submit(&p, write, iov, N) ||
		    (write && (fifo_read_all(p.fd, order_in, BEGUN) || fifo_until(is_full, &p, "a write to begin"))) ||
		    nap(depths[i / 2]))
			return ktap_fail("%s", depths[i / 2]);
		if (write ? fifo_read_all(p.fd, order_in + BEGUN, len - BEGUN) : fifo_write_all(p.fd, order_out, len))
			return ktap_fail("%s, %s", depths[i / 2], write ? "writes" : "reads");
		if (port_wait(&p, results))
			return ktap_fail("%s, %s", depths[i / 2], write ? "writes" : "reads");
		for (int j = 0; j < N; j++) {
			if (results[j] != LEN)
				return ktap_fail("%s: request %d ended with %zd", depths[i / 2], j, results[j]);
		}
		if (fifo_verify(order_in, len, i, 0))
			return ktap_fail("%s, %s", depths[i / 2], write ? "writes" : "reads");
	}
	port_close(&p);
	return KTAP_PASS;
}

static int suspend_under_load(void)
{
	unsigned int rounds = fifo_rounds(50);
	int result = two_channels();
	struct traffic *t;

	if (!can_nap())
		return ktap_skip("this kernel has no /sys/power/pm_test");
	if (result != KTAP_PASS)
		return result;
	/* Nothing but success, and what suspend does to every program: nothing. */
	t = traffic_start(0);
	if (!t)
		return KTAP_FAIL;
	for (unsigned int i = 0; i < rounds && result == KTAP_PASS; i++) {
		if (traffic_flows(t, 5) || nap(depths[i % FIFO_ARRAY_SIZE(depths)]))
			result = KTAP_FAIL;
	}
	return traffic_stop(t) ? KTAP_FAIL : result;
}

/* The function may sleep when nobody uses it, if it is let; the driver's counts of its uses add up. */
static int runtime_power(void)
{
	long long usage = slurp_number(function("power/runtime_usage"), -1), now;
	char control[32] = "", buf[RECORD];
	struct job j;
	int fd;

	if (usage < 0)
		return ktap_skip("this kernel does not show its counts");
	if (slurp(function("power/control"), control, sizeof(control)) < 0)
		return ktap_fail("power/control: %s", strerror(errno));
	for (int i = 0; i < 3; i++) {
		if (detach() || attach())
			return KTAP_FAIL;
	}
	now = slurp_number(function("power/runtime_usage"), -1);
	if (now != usage)
		return ktap_fail("runtime_usage is %lld, and was %lld before it was unbound and bound", now, usage);
	if (put(function("power/control"), "auto"))
		return KTAP_FAIL;
	fd = fifo_open(0, O_RDWR);
	if (fd < 0 || job_start(&j, WAY_AIO, fd, JOB_READ, buf, RECORD) || !FIFO_GIVES(write(fd, "x", 1), 1) ||
	    !FIFO_GIVES(job_end(&j), 1))
		return KTAP_FAIL;
	close(fd);
	if (detach() || attach() || works() || put(function("power/control"), control))
		return KTAP_FAIL;
	now = slurp_number(function("power/runtime_usage"), -1);
	return now == usage ? KTAP_PASS : ktap_fail("runtime_usage is %lld, and was %lld", now, usage);
}

/* The device goes. */

/* By sysfs: as with a hotplug slot's button. */
static int remove_rescan(void)
{
	static struct flight f;
	int result = two_channels(), fd;

	if (result != KTAP_PASS)
		return result;
	for (int i = 0; i < 2; i++) {
		fd = fifo_open(0, O_RDWR);
		if (fd < 0 || (i && flight_start(&f, EVERY_WAY)) || put(function("remove"), "1"))
			return KTAP_FAIL;
		if ((i && flight_end(&f, -ENODEV)) || gone(fd) || vanished())
			return KTAP_FAIL;
		if (put(PCI "/rescan", "1") || !bound() || works() || gone(fd))
			return KTAP_FAIL;
		close(fd);
	}
	return KTAP_PASS;
}

/* Unasked, with requests in flight; and the module is unloaded before it comes back. */
static int surprise(void)
{
	static struct flight f;
	int result = two_channels();
	char c;

	if (result != KTAP_PASS)
		return result;
	if (!ktap_has_host())
		return ktap_skip("no host to take the device away");
	if (flight_start(&f, EVERY_WAY) || ktap_host(NULL, 0, "fault fifo0/device:remove"))
		return KTAP_FAIL;
	/* Something has to be asked of it, or it would be noticed when the first request's time is up. */
	if (job_do(WAY_AIO, f.reader, JOB_WRITE, &c, 1) != -ENODEV)
		ktap_diag("a write after that did not end with ENODEV");
	if (flight_end(&f, -ENODEV) || !FIFO_GIVES(module_unload(), 0) || unloaded())
		result = KTAP_FAIL;
	if (ktap_host(NULL, 0, "clear") || plug())
		return KTAP_FAIL;
	if (access(MODULE, F_OK) && !FIFO_GIVES(module_load(module_usual()), 0))
		return KTAP_FAIL;
	return works() ? KTAP_FAIL : result;
}

/* What is told to those who make the nodes. */

/* The value behind name= in a message of strings, or "". */
static const char *uevent_value(const char *message, size_t len, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = message; p < message + len; p += strlen(p) + 1) {
		if (!strncmp(p, name, n) && p[n] == '=')
			return p + n + 1;
	}
	return "";
}

/* Waits for the message on /dev/fifoN; copies it to message. */
static ssize_t uevent(int s, const char *action, const char *name, char *message, size_t size)
{
	while (fifo_wait(s, POLLIN, action) >= 0) {
		ssize_t n = recv(s, message, size - 1, 0);

		if (n < 0) {
			ktap_diag("recv: %s", strerror(errno));
			break;
		}
		message[n] = 0;
		if (!strcmp(uevent_value(message, n, "ACTION"), action) &&
		    !strcmp(uevent_value(message, n, "SUBSYSTEM"), "fifo") &&
		    !strcmp(uevent_value(message, n, "DEVNAME"), name))
			return n;
	}
	ktap_diag("no message \"%s\" on %s", action, name);
	return -1;
}

static int uevents(void)
{
	struct sockaddr_nl group = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int s = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	int channels = fifo_channels();
	char message[8192], name[16], path[32];
	struct stat st;
	ssize_t n;

	if (s < 0 || bind(s, (struct sockaddr *)&group, sizeof(group)))
		return ktap_skip("no messages of the kernel: %s", strerror(errno));
	for (int i = 0; i < channels; i++) {
		/* One channel a round: in which order they go is the driver's business. */
		snprintf(name, sizeof(name), "fifo%d", i);
		snprintf(path, sizeof(path), "/dev/%s", name);
		if (detach() || uevent(s, "remove", name, message, sizeof(message)) < 0 || attach())
			return KTAP_FAIL;
		n = uevent(s, "add", name, message, sizeof(message));
		if (n < 0 || stat(path, &st))
			return ktap_fail("%s", path);
		if (atoi(uevent_value(message, n, "MAJOR")) != (int)major(st.st_rdev) ||
		    atoi(uevent_value(message, n, "MINOR")) != (int)minor(st.st_rdev))
			return ktap_fail("%s is %u:%u, the message has %s:%s", path, major(st.st_rdev), minor(st.st_rdev),
					 uevent_value(message, n, "MAJOR"), uevent_value(message, n, "MINOR"));
		if (fifo_stat(i, "tx", "requests") < 0 || fifo_stat(i, "rx", "requests") < 0)
			return ktap_fail("%s has no statistics", name);
	}
	close(s);
	return KTAP_PASS;
}

/* The last one: of all that was done before nothing is left when the module has gone. */
static int nothing_is_left(void)
{
	static const char path[] = "/sys/kernel/debug/kmemleak";
	static char buf[1 << 16];

	if (!FIFO_GIVES(module_unload(), 0) || unloaded())
		return KTAP_FAIL;
	if (!access(path, F_OK)) {
		/* It does not tell of what is younger than 5 s; what it finds at first may be an error of its own. */
		sleep(6);
		for (int i = 0; i < 2; i++) {
			if (put(path, "scan"))
				return KTAP_FAIL;
		}
		if (slurp(path, buf, sizeof(buf)) > 0) {
			for (char *save, *line = strtok_r(buf, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
				ktap_diag("%s", line);
			module_load(module_usual());
			return ktap_fail("memory that nobody has");
		}
	}
	return FIFO_GIVES(module_load(module_usual()), 0) && !works() ? KTAP_PASS : KTAP_FAIL;
}

static int lifecycle_bracket(const struct ktap_check *check)
{
	return restore() ? KTAP_FAIL : fifo_bracket(check);
}

int main(int argc, char **argv)
{
	static const struct ktap_check checks[] = {
		{ "unbind_idle", unbind_idle },
		{ "twice", twice },
		{ "unbind_open", unbind_open },
		{ "unbind_in_flight", unbind_in_flight },
		{ "unbind_blocked", unbind_blocked },
		{ "unbind_under_load", unbind_under_load },
		{ "unbind_dying", unbind_dying },
		{ "bind_without_memory", bind_without_memory },
		{ "rmmod_busy", rmmod_busy },
		{ "reloads", reloads },
		{ "parameters_load", parameters_load },
		{ "parameters_written", parameters_written },
		{ "vectors", vectors },
		{ "ring_entries", ring_entries },
		{ "queue_limit", queue_limit },
		{ "coalesce", coalesce },
		{ "flr_idle", flr_idle },
		{ "flr_in_flight", flr_in_flight },
		{ "reset_in_flight", reset_in_flight },
		{ "reset_of_one", reset_of_one },
		{ "resets_at_once", resets_at_once },
		{ "suspend_idle", suspend_idle },
		{ "suspend_in_flight", suspend_in_flight },
		{ "suspend_order", suspend_order },
		{ "suspend_under_load", suspend_under_load },
		{ "runtime_power", runtime_power },
		{ "remove_rescan", remove_rescan },
		{ "surprise", surprise },
		{ "uevents", uevents },
		{ "nothing_is_left", nothing_is_left },
	};

	ktap_bracket = lifecycle_bracket;
	return ktap_run(checks, FIFO_ARRAY_SIZE(checks), argc, argv);
}
