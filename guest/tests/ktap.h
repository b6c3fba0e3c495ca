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
 *	int main(int argc, char **argv)
 *	{
 *		static const struct ktap_check checks[] = { { "adds", adds } };
 *
 *		return ktap_run(checks, sizeof(checks) / sizeof(*checks), argc, argv);
 *	}
 *
 * The program's arguments name the checks to make; without any it makes all.
 * The exit status is 0 only if a check passed and none failed.
 */
#ifndef FIFOVM_KTAP_H
#define FIFOVM_KTAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

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

/* What makes a check, if it is to be made inside of something. */
static int (*ktap_bracket)(const struct ktap_check *check);

/* Whether the check is among those that the arguments name. */
static inline bool ktap_wanted(const struct ktap_check *check, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], check->name))
			return true;
	}
	return argc < 2;
}

/* Runs the checks and returns the program's exit status. */
static inline int ktap_run(const struct ktap_check *checks, unsigned int n, int argc, char **argv)
{
	unsigned int wanted = 0, number = 0, passed = 0, failed = 0;

	/* Line by line, so that a crash doesn't take earlier results with it. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (unsigned int i = 0; i < n; i++)
		wanted += ktap_wanted(&checks[i], argc, argv);
	if (argc > 1 && wanted != (unsigned int)argc - 1) {
		printf("Bail out! not all of the checks that are asked for are here\n");
		return KTAP_EXIT_FAIL;
	}
	printf("KTAP version 1\n1..%u\n", wanted);
	for (unsigned int i = 0; i < n; i++) {
		if (!ktap_wanted(&checks[i], argc, argv))
			continue;
		number++;
		switch (ktap_bracket ? ktap_bracket(&checks[i]) : checks[i].run()) {
		case KTAP_PASS:
			printf("ok %u %s\n", number, checks[i].name);
			passed++;
			break;
		case KTAP_SKIP:
			printf("ok %u %s # SKIP\n", number, checks[i].name);
			break;
		default:
			printf("not ok %u %s\n", number, checks[i].name);
			failed++;
		}
	}
	if (failed)
		return KTAP_EXIT_FAIL;
	return passed ? KTAP_EXIT_PASS : KTAP_EXIT_SKIP;
}

#endif
