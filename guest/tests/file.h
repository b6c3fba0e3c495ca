/* SPDX-License-Identifier: MIT */
/* Small files of proc and sysfs, and the words of the kernel's command line. */
#ifndef FIFOVM_FILE_H
#define FIFOVM_FILE_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* Reads a whole file, with a zero behind it; returns its length or -1. */
static inline ssize_t slurp(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n = 0;

	if (fd < 0)
		return -1;
	while (len < size - 1 && (n = read(fd, buf + len, size - 1 - len)) > 0)
		len += n;
	close(fd);
	if (n < 0)
		return -1;
	buf[len] = 0;
	return len;
}

/* Writes text with one write; returns 0, or -1 with errno. */
static inline int spit(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = write(fd, text, strlen(text));
	close(fd);
	return n < 0 ? -1 : 0;
}

/* The number that the file begins with, or otherwise. */
static inline long long slurp_number(const char *path, long long otherwise)
{
	char buf[64];

	return slurp(path, buf, sizeof(buf)) > 0 ? strtoll(buf, NULL, 0) : otherwise;
}

/*
 * Whether the word NAME or NAME=VALUE is on the kernel's command line. The
 * value, which is "" where there is none, goes to where value points to unless
 * that is NULL.
 */
static inline bool kernel_word(const char *name, char *value, size_t size)
{
	size_t len = strlen(name);
	char buf[4096], *save;

	if (slurp("/proc/cmdline", buf, sizeof(buf)) < 0)
		return false;
	for (char *w = strtok_r(buf, " \n", &save); w; w = strtok_r(NULL, " \n", &save)) {
		if (strncmp(w, name, len) || (w[len] && w[len] != '='))
			continue;
		if (value)
			snprintf(value, size, "%s", w[len] ? w + len + 1 : "");
		return true;
	}
	return false;
}

/* The number behind NAME= on the kernel's command line, or otherwise. */
static inline long long kernel_number(const char *name, long long otherwise)
{
	char value[32];

	return kernel_word(name, value, sizeof(value)) ? strtoll(value, NULL, 0) : otherwise;
}

#endif
