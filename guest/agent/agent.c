// SPDX-License-Identifier: MIT
/*
 * agent - the guest's end of the test harness
 *
 * u-root's init starts this program as /bin/uinit. With the word
 * "fifovm.agent" on the kernel's command line it owns /dev/ttyS1 and does what
 * the host says. Without it, it starts a shell on the console, and powers the
 * machine off when the shell is left.
 *
 * README.md has the protocol. A line that starts with two spaces is a test's,
 * all others are the agent's own, so nothing that a test prints can be taken for
 * its verdict.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define CHANNEL		"/dev/ttyS1"
#define MODULE		"fifo_aio"
#define MODULE_LIST	"/lib/modules/fifovm.list"
#define KMEMLEAK	"/sys/kernel/debug/kmemleak"
#define MAX_MODULES	16
#define MAX_LINE	8192
#define MAX_ARGS	256
#define MAX_LEFT	64	/* reads; a pipe holds less */
#define MAX_TOLD	20	/* lost objects that the console tells of */
#define EXIT_SKIP	4	/* as in the kernel's selftests */

struct test {
	pid_t pid;		/* 0: none is running */
	int output;
	int input;		/* its standard input */
	char name[256];
};

static int channel = -1;
static char tests[64] = "/tests";	/* the folder that they are in */
static bool mid_line;		/* the last byte sent wasn't a newline */

static void power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	/* Only reached if the kernel refuses: init goes on to the shell. */
	perror("agent: power off");
	exit(1);
}

static void run_shell(int console)
{
	static char *const argv[] = { "/bin/sh", NULL };

	signal(SIGINT, SIG_DFL);
	signal(SIGQUIT, SIG_DFL);
	dup2(console, 0);
	dup2(console, 1);
	dup2(console, 2);
	execv(argv[0], argv);
	_exit(127);
}

/*
 * init would start the shell itself when we return, but not well: our exit, as
 * the leader of the session, hangs up the console, and the shell would write
 * to a pipe and so not edit lines. Nor would it be nice for "exit" to end in a
 * panic, "Attempted to kill init".
 */
static void interactive(void)
{
	int console = open("/dev/console", O_RDWR | O_CLOEXEC);
	const char *term = getenv("TERM");
	struct winsize ws;
	int status;
	pid_t pid;

	if (console < 0)
		return;
	/* A serial line has no size, without which a shell edits no lines. */
	if (!ioctl(console, TIOCGWINSZ, &ws) && !ws.ws_col && term && strcmp(term, "dumb")) {
		ws.ws_row = 24;
		ws.ws_col = 80;
		ioctl(console, TIOCSWINSZ, &ws);
	}
	/* Ctrl-C is for the shell and what it runs. */
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	do {
		pid = fork();
		if (!pid)
			run_shell(console);
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			return;
		/* Ctrl-C ends gosh, too, while it waits for a command. */
	} while (WIFSIGNALED(status));
	if (WEXITSTATUS(status) == 127)
		return;
	power_off();
}

/* Nobody is left to talk to: a machine that stays up would hang the harness. */
static void channel_lost(const char *what)
{
	fprintf(stderr, "agent: %s %s: %s, powering off\n", what, CHANNEL, strerror(errno));
	power_off();
}

static void send_bytes(const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(channel, buf, len);

		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			channel_lost("write");
		buf += n;
		len -= n;
	}
}

__attribute__((format(printf, 1, 2)))
static void send_line(const char *fmt, ...)
{
	char line[MAX_LINE];
	va_list ap;
	int n;

	/* A line of our own is never the end of a test's. */
	if (mid_line)
		send_bytes("\n", 1);
	mid_line = false;
	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n] = '\n';
	send_bytes(line, n + 1);
}

/* Marks a place in the kernel's log, and so on the console. */
static void mark(const char *what, const char *name)
{
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	dprintf(fd, "<6>fifovm-agent: %s %s", what, name);
	close(fd);
}

/*
 * Looks through the kernel's command line: whether the host wants the agent, where
 * the tests are, and what it wants the driver's parameters to be, MODULE.NAME=VALUE.
 */
static bool wanted(char *parameters, size_t size)
{
	char buf[4096];
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	bool agent = false;
	size_t len = 0;
	ssize_t n;

	parameters[0] = 0;
	if (fd < 0)
		return false;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n < 0)
		return false;
	buf[n] = 0;
	for (char *word = strtok(buf, " \n"); word; word = strtok(NULL, " \n")) {
		if (!strcmp(word, "fifovm.agent"))
			agent = true;
		else if (!strncmp(word, "fifovm.tests=", 13))
			snprintf(tests, sizeof(tests), "%s", word + 13);
		else if (!strncmp(word, MODULE ".", sizeof(MODULE)) && len < size)
			len += snprintf(parameters + len, size - len, "%s%s", len ? " " : "",
					word + sizeof(MODULE));
	}
	return agent;
}

/* What tests look into; init may have mounted it, or the kernel not have it. */
static void mount_all(void)
{
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL);
}

/* The modules that we have loaded, in that order. */
static struct {
	char names[MAX_MODULES][64];
	int n;
} loaded;

/* Loads a module from a file: 0, or -1 with errno. */
static int load_module(const char *path, const char *parameters)
{
	const char *name = strrchr(path, '/') + 1;
	int fd = open(path, O_RDONLY | O_CLOEXEC), err;
	char *c;

	if (fd < 0)
		return -1;
	err = syscall(SYS_finit_module, fd, parameters, 0);
	close(fd);
	/* Init, or a kernel with the driver inside, may have been faster. */
	if (err)
		return errno == EEXIST ? 0 : -1;
	if (loaded.n == MAX_MODULES)
		return 0;
	c = loaded.names[loaded.n++];
	snprintf(c, sizeof(loaded.names[0]), "%.*s", (int)strcspn(name, "."), name);
	while ((c = strchr(c, '-')))
		*c = '_';
	return 0;
}

/*
 * Loads the modules that a list in the image names, a line for each with its file
 * and its parameters; without a list the driver, if the image has it for this
 * kernel. Returns what is wrong, or NULL.
 */
static const char *load_modules(const char *parameters)
{
	static char wrong[2 * MAX_LINE];
	char line[MAX_LINE], path[512];
	FILE *list = fopen(MODULE_LIST, "re");
	struct utsname u;

	if (!list) {
		if (uname(&u))
			return "uname fails";
		snprintf(path, sizeof(path), "/lib/modules/%s/" MODULE ".ko", u.release);
		if (!load_module(path, parameters) || (errno == ENOENT && access(path, F_OK)))
			return NULL;
		snprintf(wrong, sizeof(wrong), MODULE ".ko \"%s\" does not load: %s", parameters, strerror(errno));
		return wrong;
	}
	while (fgets(line, sizeof(line), list)) {
		char *rest = line, *file = strsep(&rest, " \n");

		if (!rest || *file != '/')
			continue;
		rest[strcspn(rest, "\n")] = 0;
		if (load_module(file, rest)) {
			snprintf(wrong, sizeof(wrong), "%s \"%s\" does not load: %s", strrchr(file, '/') + 1, rest,
				 strerror(errno));
			break;
		}
	}
	fclose(list);
	return *wrong ? wrong : NULL;
}

/* A number of /proc/vmstat, 0 where the kernel does not count it. */
static long long vmstat(const char *name)
{
	FILE *f = fopen("/proc/vmstat", "re");
	long long value, found = 0;
	char line[64];

	while (f && fscanf(f, "%63s %lld", line, &value) == 2) {
		if (!strcmp(line, name))
			found = value;
	}
	if (f)
		fclose(f);
	return found;
}

/* What the modules have, by address, to name their functions when they are gone. */
static struct symbol {
	unsigned long addr;
	char name[96], module[64];
} *symbols;
static int n_symbols;

static int by_address(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	return (x->addr > y->addr) - (x->addr < y->addr);
}

/* Reads them, which takes a while: the kernel's come first. */
static void read_symbols(void)
{
	FILE *f = fopen("/proc/kallsyms", "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		struct symbol s, *more;

		if (!strchr(line, '[') ||
		    sscanf(line, "%lx %*c %95s [%63[^]]]", &s.addr, s.name, s.module) != 3)
			continue;
		more = realloc(symbols, (n_symbols + 1) * sizeof(*symbols));
		if (!more)
			break;
		symbols = more;
		symbols[n_symbols++] = s;
	}
	if (f)
		fclose(f);
	qsort(symbols, n_symbols, sizeof(*symbols), by_address);
}

/* The function of a module at an address, as the kernel writes it; false if it is in none. */
static bool function_at(unsigned long addr, char *text, size_t size)
{
	int i = n_symbols - 1, next;

	while (i >= 0 && symbols[i].addr > addr)
		i--;
	for (next = i + 1; i >= 0 && next < n_symbols; next++) {
		if (symbols[next].addr > symbols[i].addr)
			break;
	}
	if (i < 0 || next >= n_symbols || strcmp(symbols[i].module, symbols[next].module))
		return false;
	snprintf(text, size, "%s+0x%lx/0x%lx [%s]", symbols[i].name, addr - symbols[i].addr,
		 symbols[next].addr - symbols[i].addr, symbols[i].module);
	return true;
}

/*
 * Tells what kmemleak has found, and to the console more of it. The modules are
 * gone: the kernel does not name what they had.
 */
static void tell_leaks(void)
{
	char line[256], function[256], where[272] = "";
	int fd = open(KMEMLEAK, O_WRONLY | O_CLOEXEC), objects = 0;
	unsigned long addr, size = 0;
	FILE *f;

	if (fd < 0)
		return;
	/*
	 * It does not tell of what is younger than 5 s; what the first scan finds
	 * may be an error of its own.
	 */
	sleep(6);
	for (int i = 0; i < 2; i++) {
		if (write(fd, "scan", 4) != 4)
			break;
	}
	close(fd);
	f = fopen(KMEMLEAK, "re");
	while (f && fgets(line, sizeof(line), f)) {
		bool frame = false;

		if (!strncmp(line, "unreferenced object ", 20) && !objects++)
			sscanf(line, "%*s %*s %*s (size %lu)", &size);
		/* A frame without a name; in 6.1 behind its address, which is hashed. */
		if (sscanf(line, " 0x%lx", &addr) == 1 ||
		    sscanf(line, " [<%*x>] 0x%lx", &addr) == 1)
			frame = function_at(addr, function, sizeof(function));
		if (frame && objects == 1 && !*where)
			snprintf(where, sizeof(where), ", by %s", function);
		if (objects > MAX_TOLD)
			continue;
		if (frame)
			fprintf(stderr, "    %s\n", function);
		else
			fputs(line, stderr);
	}
	if (f)
		fclose(f);
	if (objects == 1)
		send_line("error: left behind: kmemleak: an object of %lu bytes%s", size, where);
	else if (objects)
		send_line("error: left behind: kmemleak: %d objects, the first of %lu bytes%s",
			  objects, size, where);
}

/* Unloads what we have loaded, and tells of what is there still though nobody uses it. */
static void leave(void)
{
	long long pins;
	int fd;

	if (loaded.n && !access(KMEMLEAK, F_OK))
		read_symbols();
	for (int i = loaded.n; i--;) {
		if (syscall(SYS_delete_module, loaded.names[i], O_NONBLOCK) && errno != ENOENT)
			send_line("error: left behind: module %s, which can't be unloaded: %s", loaded.names[i],
				  errno == EAGAIN ? "it is still in use" : strerror(errno));
	}
	/* Each CPU counts for itself, up to some ten, until it is asked to tell. */
	fd = open("/proc/sys/vm/stat_refresh", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "1", 1) < 0)
			send_line("error: left behind: stat_refresh: %s", strerror(errno));
		close(fd);
	}
	pins = vmstat("nr_foll_pin_acquired") - vmstat("nr_foll_pin_released");
	if (pins)
		send_line("error: left behind: %lld pinned pages", pins);
	if (loaded.n)
		tell_leaks();
}

static void open_channel(void)
{
	struct termios t;

	channel = open(CHANNEL, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (channel < 0)
		channel_lost("open");
	/* Fails with EIO where the kernel found no UART behind the name. */
	if (tcgetattr(channel, &t))
		channel_lost("set up");
	cfmakeraw(&t);
	t.c_cflag |= CLOCAL | CREAD;
	t.c_cflag &= ~(HUPCL | CRTSCTS);
	cfsetspeed(&t, B115200);
	if (tcsetattr(channel, TCSANOW, &t))
		channel_lost("set up");
}

/* Sends a test's output, each line indented, however it is cut into reads. */
static void forward(const char *buf, size_t len)
{
	while (len) {
		const char *nl = memchr(buf, '\n', len);
		size_t n = nl ? (size_t)(nl - buf) + 1 : len;

		if (!mid_line)
			send_bytes("  ", 2);
		send_bytes(buf, n);
		mid_line = !nl;
		buf += n;
		len -= n;
	}
}

/* Returns false when there is no more for now, or for ever. */
static bool pump(struct test *t)
{
	char buf[4096];
	ssize_t n = read(t->output, buf, sizeof(buf));

	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0)
		return false;
	forward(buf, n);
	return true;
}

static bool good_name(const char *name)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	return *name && *name != '.' && strlen(name) < sizeof(((struct test *)0)->name) &&
	       name[strspn(name, letters)] == 0;
}

static void run_child(const char *path, char **argv, int input, int output)
{
	char search[sizeof(tests) + 32];
	char *const env[] = { search, "HOME=/root", "TERM=dumb", "FIFOVM_HOST=1", NULL };
	sigset_t none;

	snprintf(search, sizeof(search), "PATH=/bbin:/bin:%s", tests);
	setpgid(0, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGQUIT, SIG_DFL);
	dup2(input, 0);
	dup2(output, 1);
	dup2(output, 2);
	execve(path, argv, env);
	dprintf(2, "exec %s: %s\n", path, strerror(errno));
	_exit(127);
}

static void start(struct test *t, char **argv)
{
	char path[sizeof(tests) + sizeof(t->name)];
	struct stat st;
	int in[2], out[2];

	if (!argv[0] || !good_name(argv[0])) {
		send_line("error: run: give a name from list");
		return;
	}
	snprintf(path, sizeof(path), "%s/%s", tests, argv[0]);
	if (stat(path, &st) || !S_ISREG(st.st_mode) || access(path, X_OK)) {
		send_line("error: run: no test %s", argv[0]);
		return;
	}
	if (pipe2(in, O_CLOEXEC)) {
		send_line("error: run: pipe: %s", strerror(errno));
		return;
	}
	if (pipe2(out, O_CLOEXEC)) {
		send_line("error: run: pipe: %s", strerror(errno));
		close(in[0]);
		close(in[1]);
		return;
	}
	mark("run", argv[0]);
	t->pid = fork();
	if (!t->pid)
		run_child(path, argv, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	if (t->pid < 0) {
		send_line("error: run: fork: %s", strerror(errno));
		t->pid = 0;
		close(in[1]);
		close(out[0]);
		return;
	}
	/* Also here, so that a kill can't come before the child did it. */
	setpgid(t->pid, t->pid);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(in[1], F_SETFL, O_NONBLOCK);
	t->output = out[0];
	t->input = in[1];
	strcpy(t->name, argv[0]);
	send_line("KTAP version 1");
	send_line("1..1");
}

/* Tells the verdict once the test's first process is gone. */
static void finish(struct test *t)
{
	int status;

	if (waitpid(t->pid, &status, WNOHANG) != t->pid)
		return;
	/*
	 * What it left behind would hold the pipe open and disturb the next
	 * test. Output that is already in the pipe is still its own.
	 */
	kill(-t->pid, SIGKILL);
	for (int i = 0; i < MAX_LEFT && pump(t); i++)
		;
	close(t->output);
	close(t->input);

	if (WIFSIGNALED(status))
		send_line("not ok 1 %s # killed by signal %d (%s)", t->name,
			  WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) == EXIT_SKIP)
		send_line("ok 1 %s # SKIP", t->name);
	else if (WEXITSTATUS(status))
		send_line("not ok 1 %s # exit status %d", t->name, WEXITSTATUS(status));
	else
		send_line("ok 1 %s", t->name);
	mark("end", t->name);
	t->pid = 0;
}

/* Gives the test a line. One that has gone, or does not read, misses it. */
static void tell(const struct test *t, const char *text)
{
	char line[MAX_LINE + 1];
	int n = snprintf(line, sizeof(line), "%s\n", text);

	if (t->pid && write(t->input, line, n) < 0 && errno != EAGAIN && errno != EPIPE)
		fprintf(stderr, "agent: %s: standard input: %s\n", t->name, strerror(errno));
}

/* Sends a file's lines as a test's, each behind a mark. */
static void forward_file(const char *path)
{
	char line[256];
	FILE *f = fopen(path, "re");

	while (f && fgets(line, sizeof(line), f)) {
		forward("#   ", 4);
		forward(line, strlen(line));
	}
	if (f)
		fclose(f);
}

/* Tells where in the kernel each thread of a process is. */
static void tell_threads(pid_t pid, const char *name)
{
	char path[64], line[128];
	struct dirent *d;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		if (d->d_name[0] == '.')
			continue;
		forward(line, snprintf(line, sizeof(line), "# %s, thread %.16s:\n", name, d->d_name));
		snprintf(path, sizeof(path), "/proc/%d/task/%.16s/stack", pid, d->d_name);
		forward_file(path);
	}
	if (dir)
		closedir(dir);
}

/*
 * Tells where the processes of a test are that does not end, and has the kernel
 * tell on the console of all tasks that can't be interrupted.
 */
static void tell_stuck(const struct test *t)
{
	int trigger = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
	DIR *dir = opendir("/proc");
	struct dirent *d;

	while (dir && (d = readdir(dir))) {
		char path[64], buf[512], comm[32], state;
		int fd, pid, parent, group;
		ssize_t n;

		if (sscanf(d->d_name, "%d", &pid) != 1)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);
		if (fd >= 0)
			close(fd);
		buf[n < 0 ? 0 : n] = 0;
		/* proc_pid_stat(5): pid (comm) state ppid pgrp */
		if (sscanf(buf, "%*d (%31[^)]) %c %d %d", comm, &state, &parent, &group) == 4 &&
		    group == t->pid && state != 'Z')
			tell_threads(pid, comm);
	}
	if (dir)
		closedir(dir);
	if (trigger >= 0) {
		if (write(trigger, "w", 1) != 1)
			perror("agent: sysrq-trigger");
		close(trigger);
	}
}

static int is_test(const struct dirent *d)
{
	return good_name(d->d_name);
}

static void list(void)
{
	struct dirent **names;
	int n = scandir(tests, &names, is_test, alphasort);

	if (n < 0) {
		send_line("error: list: %s: %s", tests, strerror(errno));
		return;
	}
	send_line("tests %d", n);
	for (int i = 0; i < n; i++) {
		send_line("  %s", names[i]->d_name);
		free(names[i]);
	}
	free(names);
}

static void obey(struct test *t, char *line)
{
	char *argv[MAX_ARGS + 1], *save;
	int argc = 0;

	if (!strncmp(line, "host ", 5)) {
		tell(t, line + 5);
		return;
	}
	for (char *w = strtok_r(line, " \t\r", &save); w; w = strtok_r(NULL, " \t\r", &save)) {
		if (argc == MAX_ARGS) {
			send_line("error: more than %d words", MAX_ARGS);
			return;
		}
		argv[argc++] = w;
	}
	argv[argc] = NULL;

	if (!argc) {
		send_line("error: empty command");
	} else if (!strcmp(argv[0], "kill")) {
		if (t->pid)
			kill(-t->pid, SIGKILL);
		else
			send_line("error: kill: no test is running");
	} else if (!strcmp(argv[0], "stuck")) {
		if (t->pid)
			tell_stuck(t);
		send_line("stuck");
	} else if (t->pid) {
		send_line("error: %.32s: %s is running", argv[0], t->name);
	} else if (!strcmp(argv[0], "run")) {
		start(t, argv + 1);
	} else if (!strcmp(argv[0], "list")) {
		list();
	} else if (!strcmp(argv[0], "poweroff")) {
		leave();
		send_line("bye");
		tcdrain(channel);
		power_off();
	} else {
		send_line("error: unknown command %.32s", argv[0]);
	}
}

/* Takes what has arrived, and obeys each line that is whole. */
static void receive(struct test *t)
{
	static char line[MAX_LINE];
	static size_t len;
	static bool too_long;
	char buf[256];
	ssize_t n = read(channel, buf, sizeof(buf));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		if (!n)
			errno = EPIPE;
		channel_lost("read");
	}
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] != '\n') {
			if (len < sizeof(line) - 1)
				line[len++] = buf[i];
			else
				too_long = true;
			continue;
		}
		line[len] = 0;
		if (too_long)
			send_line("error: line longer than %d bytes", MAX_LINE - 1);
		else
			obey(t, line);
		len = 0;
		too_long = false;
	}
}

int main(void)
{
	struct test t = { 0 };
	char parameters[1024];
	bool agent = wanted(parameters, sizeof(parameters));
	sigset_t child;
	const char *wrong;
	int children;

	mount_all();
	wrong = load_modules(parameters);
	if (wrong)
		fprintf(stderr, "agent: %s\n", wrong);
	if (!agent) {
		interactive();
		return 0;
	}

	signal(SIGPIPE, SIG_IGN);
	/* Typed on the console, and not meant for us. */
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	children = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	open_channel();
	if (children < 0)
		channel_lost("signalfd, needed for");
	if (wrong) {
		/* No test would tell anything but this. */
		send_line("error: %s", wrong);
		tcdrain(channel);
		power_off();
	}
	send_line("fifovm-agent 1");

	for (;;) {
		struct pollfd p[] = {
			{ .fd = channel, .events = POLLIN },
			{ .fd = children, .events = POLLIN },
			{ .fd = t.pid ? t.output : -1, .events = POLLIN },
		};

		if (poll(p, 3, -1) < 0) {
			if (errno == EINTR)
				continue;
			channel_lost("poll");
		}
		if (p[2].revents && !pump(&t)) {
			/*
			 * The test closed its output but goes on: wait for its
			 * end alone, or poll would return at once for ever.
			 */
			close(t.output);
			t.output = -1;
		}
		if (p[1].revents) {
			struct signalfd_siginfo info;

			while (read(children, &info, sizeof(info)) == sizeof(info))
				;
			if (t.pid)
				finish(&t);
		}
		if (p[0].revents)
			receive(&t);
	}
}
