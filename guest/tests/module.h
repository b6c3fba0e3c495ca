/* SPDX-License-Identifier: MIT */
/* The driver's module: loading it with parameters. */
#ifndef FIFOVM_MODULE_H
#define FIFOVM_MODULE_H

#include <errno.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "file.h"
#include "ktap.h"

/* Loads it: 0 or -1 with errno. */
static inline int module_load(const char *parameters)
{
	struct utsname name;
	char path[256];
	int fd, err;

	uname(&name);
	snprintf(path, sizeof(path), "/lib/modules/%s/fifo_aio.ko", name.release);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	err = syscall(SYS_finit_module, fd, parameters, 0);
	close(fd);
	return err;
}

static inline int module_unload(void)
{
	return syscall(SYS_delete_module, "fifo_aio", O_NONBLOCK);
}

/* The parameters that the agent has loaded it with: words fifo_aio.NAME=VALUE. */
static inline const char *module_usual(void)
{
	static const char word[] = "fifo_aio.";
	static char parameters[1024];
	char buf[4096], *save;
	size_t len = 0;

	if (slurp("/proc/cmdline", buf, sizeof(buf)) < 0)
		return "";
	for (char *w = strtok_r(buf, " \n", &save); w; w = strtok_r(NULL, " \n", &save)) {
		if (!strncmp(w, word, strlen(word)) && len < sizeof(parameters))
			len += snprintf(parameters + len, sizeof(parameters) - len, "%s ", w + strlen(word));
	}
	return parameters;
}

/* Unloads it and loads it with other parameters; 0, or -1 after saying what was in the way. */
static inline int module_reload(const char *parameters)
{
	if (module_unload()) {
		ktap_diag("delete_module: %s", strerror(errno));
		return -1;
	}
	if (module_load(parameters)) {
		ktap_diag("finit_module with \"%s\": %s", parameters, strerror(errno));
		return -1;
	}
	return 0;
}

#endif
