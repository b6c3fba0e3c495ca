/* SPDX-License-Identifier: MIT */
/*
 * KTAP, as the kernel's Documentation/dev-tools/ktap.rst has it, for tests
 * that are programs: a table of named checks, run in order.
 *
 *	static int adds(void)
 *	{
 *		if (1 + 1 != 2)
 *			return ktap_fail("got %d", 1 + 1);
 *		return KTAP_PASS;
 *	}
 *
 *	int main(void)
 *	{
 *		static const struct ktap_check checks[] = { { "adds", adds } };
 *
 *		return ktap_run(checks, sizeof(checks) / sizeof(*checks));
 *	}
 *
 * The exit status is 0 only if a check passed and none failed.
 */
#ifndef FIFOVM_KTAP_H
#define FIFOVM_KTAP_H

#include <stdarg.h>
#include <stdio.h>

enum {
	KTAP_PASS,
	KTAP_FAIL,
	KTAP_SKIP,
};

/* Exit statuses, as in the kernel's selftests. */
#define KTAP_EXIT_PASS	0
#define KTAP_EXIT_FAIL	1
#define KTAP_EXIT_SKIP	4

struct ktap_check {
	const char *name;
	int (*run)(void);
};

static inline void ktap_vdiag(const char *fmt, va_list ap)
{
	fputs("# ", stdout);
	vprintf(fmt, ap);
	putchar('\n');
}

/* Writes a line for whoever reads the result. */
__attribute__((format(printf, 1, 2)))
static inline void ktap_diag(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	ktap_vdiag(fmt, ap);
	va_end(ap);
}

/* Says why a check failed; the check returns what this returns. */
__attribute__((format(printf, 1, 2)))
static inline int ktap_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	ktap_vdiag(fmt, ap);
	va_end(ap);
	return KTAP_FAIL;
}

/* Says why a check can't be made here. */
__attribute__((format(printf, 1, 2)))
static inline int ktap_skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	ktap_vdiag(fmt, ap);
	va_end(ap);
	return KTAP_SKIP;
}

/* Runs the checks and returns the program's exit status. */
static inline int ktap_run(const struct ktap_check *checks, unsigned int n)
{
	unsigned int passed = 0, failed = 0;

	/* Line by line, so that a crash doesn't take earlier results with it. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("KTAP version 1\n1..%u\n", n);
	for (unsigned int i = 0; i < n; i++) {
		switch (checks[i].run()) {
		case KTAP_PASS:
			printf("ok %u %s\n", i + 1, checks[i].name);
			passed++;
			break;
		case KTAP_SKIP:
			printf("ok %u %s # SKIP\n", i + 1, checks[i].name);
			break;
		default:
			printf("not ok %u %s\n", i + 1, checks[i].name);
			failed++;
		}
	}
	if (failed)
		return KTAP_EXIT_FAIL;
	return passed ? KTAP_EXIT_PASS : KTAP_EXIT_SKIP;
}

#endif
