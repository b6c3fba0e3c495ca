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
 * The program's arguments name the checks to make, in that order; without any it
 * makes all, and with --list it lists them. The exit status is 0 only if a check passed and
 * none failed.
 */
#ifndef FIFOVM_KTAP_H
#define FIFOVM_KTAP_H

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* Says where and why a check failed; the check returns what this returns. */
#define ktap_fail(...)	ktap_fail_at(__FILE__, __LINE__, __VA_ARGS__)

__attribute__((format(printf, 3, 4)))
static inline int ktap_fail_at(const char *file, int line, const char *fmt, ...)
{
	const char *slash = strrchr(file, '/');
	va_list ap;

	printf("# %s:%d: ", slash ? slash + 1 : file, line);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
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

/*
 * The host: what runs the guest, and can do to it what nobody inside can. It
 * obeys a line "# host: COMMAND" of a test's output, and answers on its standard
 * input; ../agent/README.md has the commands. Without a harness there is none.
 */
static inline bool ktap_has_host(void)
{
	return getenv("FIFOVM_HOST") != NULL;
}

#define KTAP_HOST_MS	60000	/* bound of the wait for an answer */

/* Reads a line without reading ahead: another process of the test may be the next to ask. */
static inline int ktap_read_line(char *line, size_t size)
{
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
	size_t len = 0;
	char c;

	for (;;) {
		int n = poll(&p, 1, KTAP_HOST_MS);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 || read(STDIN_FILENO, &c, 1) != 1)
			return -1;
		if (c == '\n')
			break;
		if (len < size - 1)
			line[len++] = c;
	}
	line[len] = 0;
	return 0;
}

/*
 * Has the host do something; one process of the test at a time. Returns 0, with
 * the result in answer unless that is NULL, or -1 after saying what is wrong.
 */
__attribute__((format(printf, 3, 4)))
static inline int ktap_host(char *answer, size_t size, const char *fmt, ...)
{
	char command[2048], line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	ktap_diag("host: %s", command);
	fflush(stdout);
	if (ktap_read_line(line, sizeof(line))) {
		ktap_diag("the host does not answer");
		return -1;
	}
	if (strncmp(line, "ok", 2) || (line[2] && line[2] != ' ')) {
		ktap_diag("the host answers: %s", line);
		return -1;
	}
	if (answer && snprintf(answer, size, "%s", line[2] ? line + 3 : "") >= (int)size) {
		ktap_diag("there is no room for the host's answer: %s", line);
		return -1;
	}
	return 0;
}

/*
 * Has the host judge the check that has ended, before anything else happens: what
 * the kernel says from then on is not that one's.
 */
static inline void ktap_judged(void)
{
	char line[16];

	if (!ktap_has_host())
		return;
	ktap_diag("host: judged");
	fflush(stdout);
	ktap_read_line(line, sizeof(line)); /* where nobody answers, the verdict is a coarser one */
}

/* What makes a check, if it is to be made inside of something. */
static int (*ktap_bracket)(const struct ktap_check *check);

/* The check with that name, NULL if there is none. */
static inline const struct ktap_check *ktap_find(const struct ktap_check *checks, unsigned int n,
						 const char *name)
{
	for (unsigned int i = 0; i < n; i++) {
		if (!strcmp(checks[i].name, name))
			return &checks[i];
	}
	return NULL;
}

/* Runs the checks and returns the program's exit status. */
static inline int ktap_run(const struct ktap_check *checks, unsigned int n, int argc, char **argv)
{
	unsigned int wanted = n, passed = 0, failed = 0;

	/* Line by line, so that a crash doesn't take earlier results with it. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (unsigned int i = 0; i < n; i++)
			printf("%s\n", checks[i].name);
		return KTAP_EXIT_PASS;
	}
	for (int i = 1; i < argc; i++) {
		if (!ktap_find(checks, n, argv[i])) {
			printf("Bail out! there is no check %s\n", argv[i]);
			return KTAP_EXIT_FAIL;
		}
	}
	if (argc > 1)
		wanted = argc - 1;
	printf("KTAP version 1\n1..%u\n", wanted);
	for (unsigned int number = 1; number <= wanted; number++) {
		const struct ktap_check *c = &checks[number - 1];

		if (argc > 1)
			c = ktap_find(checks, n, argv[number]);
		switch (ktap_bracket ? ktap_bracket(c) : c->run()) {
		case KTAP_PASS:
			printf("ok %u %s\n", number, c->name);
			passed++;
			break;
		case KTAP_SKIP:
			printf("ok %u %s # SKIP\n", number, c->name);
			break;
		default:
			printf("not ok %u %s\n", number, c->name);
			failed++;
		}
		ktap_judged();
	}
	if (failed)
		return KTAP_EXIT_FAIL;
	return passed ? KTAP_EXIT_PASS : KTAP_EXIT_SKIP;
}

#endif
