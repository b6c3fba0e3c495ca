// SPDX-License-Identifier: MIT
/*
 * edu - judges the driver edu_drv from userspace
 *
 * A check that breaks the card has its host do it (guest/agent/README.md), just
 * before what is to go wrong.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "edu_drv.h"
#include "file.h"
#include "ktap.h"

#define EDU		"/dev/edu0"
#define EDU_PCI		"/sys/bus/pci/drivers/edu_drv"
#define EDU_SIZE	4096

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof(*(a)))

/* The factorial by the card, or -1 with errno. */
static int64_t card_factorial(int fd, uint32_t number)
{
	__u32 value = number;

	return ioctl(fd, EDU_FACTORIAL, &value) ? -1 : (int64_t)value;
}

static uint32_t our_factorial(uint32_t number)
{
	uint32_t f = 1;

	for (; number > 1 && f; number--)
		f *= number;
	return f;
}

/* Opens the card; a check that can't has failed, and its file is closed at the program's end. */
static int edu_open(void)
{
	int fd = open(EDU, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		ktap_diag(EDU ": %s", strerror(errno));
	return fd;
}

static int factorials(void)
{
	static const uint32_t numbers[] = { 0, 1, 5, 12, 13, 33, 34, UINT32_MAX };
	int fd = edu_open();

	if (fd < 0)
		return KTAP_FAIL;
	for (unsigned int i = 0; i < ARRAY_SIZE(numbers); i++) {
		int64_t got = card_factorial(fd, numbers[i]);

		if (got < 0)
			return ktap_fail("%u!: %s", numbers[i], strerror(errno));
		if (got != our_factorial(numbers[i]))
			return ktap_fail("%u! is %u, the card says %lld", numbers[i],
					 our_factorial(numbers[i]), (long long)got);
	}
	close(fd);
	return KTAP_PASS;
}

/* What was written where comes back, and only there. */
static int buffer(void)
{
	static const struct { unsigned int offset, size; } parts[] = {
		{ 0, EDU_SIZE }, { 0, 1 }, { EDU_SIZE - 1, 1 }, { 17, 1001 },
	};
	static unsigned char want[EDU_SIZE], got[EDU_SIZE];
	int fd = edu_open();

	if (fd < 0)
		return KTAP_FAIL;
	for (unsigned int i = 0; i < ARRAY_SIZE(parts); i++) {
		unsigned int offset = parts[i].offset, size = parts[i].size;
		ssize_t n;

		for (unsigned int j = 0; j < size; j++)
			want[offset + j] = 13 * i + j + (j >> 8);
		n = pwrite(fd, want + offset, size, offset);
		if (n != size)
			return ktap_fail("write of %u at %u: %zd, %s", size, offset, n, strerror(errno));
		n = pread(fd, got, EDU_SIZE, 0);
		if (n != EDU_SIZE)
			return ktap_fail("read of all: %zd, %s", n, strerror(errno));
		if (memcmp(want, got, EDU_SIZE))
			return ktap_fail("after a write of %u at %u the card has something else", size, offset);
	}
	close(fd);
	return KTAP_PASS;
}

/* At the end of the buffer, and with pointers that are none. */
static int limits(void)
{
	void *volatile nowhere = (void *)8;	/* what the compiler must not know */
	char c = 0;
	int fd = edu_open();

	if (fd < 0)
		return KTAP_FAIL;
	if (pread(fd, &c, 1, EDU_SIZE) != 0)
		return ktap_fail("read behind the end: not 0");
	if (pwrite(fd, &c, 1, EDU_SIZE) != -1 || errno != ENOSPC)
		return ktap_fail("write behind the end: not ENOSPC");
	if (pwrite(fd, &c, 1, EDU_SIZE - 1) != 1)
		return ktap_fail("write of the last byte: %s", strerror(errno));
	if (pread(fd, nowhere, 1, 0) != -1 || errno != EFAULT)
		return ktap_fail("read to a bad address: not EFAULT");
	if (pwrite(fd, nowhere, 1, 0) != -1 || errno != EFAULT)
		return ktap_fail("write from a bad address: not EFAULT");
	if (ioctl(fd, EDU_FACTORIAL, nowhere) != -1 || errno != EFAULT)
		return ktap_fail("factorial at a bad address: not EFAULT");
	if (ioctl(fd, _IO('E', 99)) != -1 || errno != ENOTTY)
		return ktap_fail("an ioctl that there is not: not ENOTTY");
	close(fd);
	return KTAP_PASS;
}

/* A thread that has the card compute or move bytes, beside the other one. */
static void *worker(void *arg)
{
	uint32_t slot = *(int *)arg;
	int fd = open(EDU, O_RDWR | O_CLOEXEC);
	unsigned char out[64], in[64];
	bool good = fd >= 0;

	for (int i = 0; good && i < 50; i++) {
		memset(out, 100 * slot + i, sizeof(out));
		good = pwrite(fd, out, sizeof(out), slot * sizeof(out)) == sizeof(out) &&
		       card_factorial(fd, slot + 5) == our_factorial(slot + 5) &&
		       pread(fd, in, sizeof(in), slot * sizeof(in)) == sizeof(in) &&
		       !memcmp(in, out, sizeof(in));
	}
	if (fd >= 0)
		close(fd);
	return good ? NULL : "wrong";
}

static int together(void)
{
	static int slots[] = { 0, 1, 2, 3 };
	pthread_t threads[ARRAY_SIZE(slots)];
	int bad = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(slots); i++) {
		if (pthread_create(&threads[i], NULL, worker, &slots[i]))
			return ktap_fail("no thread");
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(slots); i++) {
		void *complaint;

		pthread_join(threads[i], &complaint);
		bad += complaint != NULL;
	}
	return bad ? ktap_fail("%d of %zu threads got what was not theirs", bad, ARRAY_SIZE(slots)) :
		     KTAP_PASS;
}

/* An interrupt that never comes costs time, and nothing else. */
static int lost_interrupt(void)
{
	int fd;

	if (!ktap_has_host())
		return ktap_skip("there is no host to lose an interrupt");
	fd = edu_open();
	if (fd < 0 || ktap_host(NULL, 0, "fault edu0/irq:drop@next"))
		return KTAP_FAIL;
	if (card_factorial(fd, 5) != 120)
		return ktap_fail("5! with a lost interrupt: %s", strerror(errno));
	if (ktap_host(NULL, 0, "fired") || ktap_host(NULL, 0, "clear"))
		return KTAP_FAIL;
	close(fd);
	return KTAP_PASS;
}

/* A card that hangs for a while: an error in time, no new work before it has ended the old. */
static int stall(void)
{
	int fd;

	if (!ktap_has_host())
		return ktap_skip("there is no host to stall the card");
	fd = edu_open();
	if (fd < 0 || ktap_host(NULL, 0, "fault edu0/device:stall=300ms@next on mmio.write[0x08]"))
		return KTAP_FAIL;
	if (card_factorial(fd, 5) != -1 || errno != ETIMEDOUT)
		return ktap_fail("5! of a card that hangs: not ETIMEDOUT");
	if (card_factorial(fd, 6) != -1 || errno != EBUSY)
		return ktap_fail("6! of a card that is at 5! still: not EBUSY");
	usleep(300000);
	if (card_factorial(fd, 7) != 5040)
		return ktap_fail("7! after it has come back: %s", strerror(errno));
	close(fd);
	return ktap_host(NULL, 0, "clear") ? KTAP_FAIL : KTAP_PASS;
}

/* Writes 1 to a file of the card's in sysfs. */
static int poke_card(const char *name)
{
	DIR *d = opendir(EDU_PCI);
	struct dirent *e;
	char path[512];
	int err = -1;

	while (d && err && (e = readdir(d))) {
		if (strncmp(e->d_name, "0000:", 5))
			continue;
		snprintf(path, sizeof(path), EDU_PCI "/%s/%s", e->d_name, name);
		err = spit(path, "1");
	}
	if (d)
		closedir(d);
	return err;
}

/* The card is pulled while a file is open, and put back. */
static int unplug(void)
{
	int fd = edu_open(), again;

	if (fd < 0)
		return KTAP_FAIL;
	if (poke_card("remove"))
		return ktap_fail("the card can't be removed: %s", strerror(errno));
	if (card_factorial(fd, 5) != -1 || errno != ENODEV)
		return ktap_fail("5! of a card that has gone: not ENODEV");
	if (spit("/sys/bus/pci/rescan", "1"))
		return ktap_fail("no rescan: %s", strerror(errno));
	again = edu_open();
	if (again < 0 || card_factorial(again, 5) != 120)
		return ktap_fail("5! of the card that is back: %s", strerror(errno));
	close(again);
	close(fd);
	return KTAP_PASS;
}

int main(int argc, char **argv)
{
	static const struct ktap_check checks[] = {
		{ "factorials", factorials },
		{ "buffer", buffer },
		{ "limits", limits },
		{ "together", together },
		{ "lost_interrupt", lost_interrupt },
		{ "stall", stall },
		{ "unplug", unplug },
	};

	return ktap_run(checks, ARRAY_SIZE(checks), argc, argv);
}
