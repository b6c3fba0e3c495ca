/* SPDX-License-Identifier: MIT */
/*
 * Faults in the kernel's allocations: /proc/self/task/N/fail-nth has the n-th
 * one of this thread fail, where the kernel has it.
 */
#ifndef FIFOVM_FAIL_NTH_H
#define FIFOVM_FAIL_NTH_H

#include "fifo.h"

#define INJECTORS "failslab", "fail_page_alloc", "fail_usercopy"

static inline int injector_set(const char *injector, const char *name, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", injector, name);
	return spit(path, value);
}

/* Opens fail-nth of this thread, or says why there is none. */
static inline int fail_nth_open(void)
{
	static const char *const injectors[] = { INJECTORS };
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/fail-nth", (int)gettid());
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -1;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(injectors); i++) {
		/* Each kind of allocation, and no word of it in the log. */
		injector_set(injectors[i], "verbose", "0");
		injector_set(injectors[i], "ignore-gfp-wait", "N");
		injector_set(injectors[i], "ignore-gfp-highmem", "N");
		injector_set(injectors[i], "min-order", "0");
	}
	return fd;
}

static inline void fail_nth(int fd, unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	/* Of switching it off, it may be the copy of the text that fails. */
	if (pwrite(fd, text, len, 0) != len && (n || errno != EFAULT))
		ktap_diag("fail-nth: %s", strerror(errno));
}

/* Whether it failed; it is off then. */
static inline bool failed_nth(int fd)
{
	char text[16] = "";
	bool failed = pread(fd, text, sizeof(text) - 1, 0) > 0 && atoi(text) == 0;

	fail_nth(fd, 0);
	return failed;
}

#endif
