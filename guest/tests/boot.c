// SPDX-License-Identifier: MIT
/*
 * boot - judges the booted machine from userspace
 *
 * Each check looks at one part of the platform that fifovm promises, and at
 * what the CPU must get right for programs to work at all. The host tells what
 * it has built by words on the kernel's command line: fifovm.cpus=N and
 * fifovm.memory=MiB.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <emmintrin.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <linux/serial.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "file.h"
#include "ktap.h"

#define NSEC	1000000000LL
#define PAGE	4096

static long long now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * NSEC + ts.tv_nsec;
}

/* The machine. */

static int cpus(void)
{
	long want = kernel_number("fifovm.cpus", -1);
	long got = sysconf(_SC_NPROCESSORS_ONLN);

	if (want < 0)
		return ktap_skip("no fifovm.cpus=N on the command line, %ld online", got);
	if (got != want)
		return ktap_fail("%ld CPUs online, the machine has %ld", got, want);
	return KTAP_PASS;
}

static int memory(void)
{
	long want = kernel_number("fifovm.memory", -1), total, lost;
	char buf[4096], *p;

	if (slurp("/proc/meminfo", buf, sizeof(buf)) < 0 || !(p = strstr(buf, "MemTotal:")))
		return ktap_fail("no MemTotal in /proc/meminfo");
	total = strtol(p + strlen("MemTotal:"), NULL, 10) / 1024;
	if (want < 0)
		return ktap_skip("no fifovm.memory=MiB on the command line, MemTotal %ld MiB", total);
	/*
	 * The kernel keeps itself, its page array and, where it looks for
	 * mistakes, 90 MiB of tables and with KASAN an eighth.
	 * More than that is memory that it was never told of.
	 */
	lost = 96 + want / 6;
	if (lost > want / 2)
		lost = want / 2;
	if (total > want || total < want - lost)
		return ktap_fail("MemTotal %ld MiB, the machine has %ld MiB", total, want);
	return KTAP_PASS;
}

static int cpu_features(void)
{
	/* x86-64-v2, and what catches a driver that touches user memory. */
	static const char *const flags[] = {
		"apic", "cx16", "lahf_lm", "nx", "popcnt", "smap", "smep",
		"sse4_1", "sse4_2", "ssse3", "tsc",
	};
	char buf[16384], *line, *end;
	int missing = 0;

	if (slurp("/proc/cpuinfo", buf, sizeof(buf)) < 0 || !(line = strstr(buf, "\nflags")))
		return ktap_fail("no flags in /proc/cpuinfo");
	end = strchrnul(line + 1, '\n');
	*end = 0;
	/* Every word with a space on either side. */
	if ((size_t)(end - buf) + 2 > sizeof(buf))
		return ktap_fail("/proc/cpuinfo is longer than expected");
	strcpy(end, " ");
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		char word[32];

		snprintf(word, sizeof(word), " %s ", flags[i]);
		if (!strstr(line, word)) {
			ktap_diag("the CPU lacks %s", flags[i]);
			missing++;
		}
	}
	return missing ? KTAP_FAIL : KTAP_PASS;
}

static int uart(const char *path, unsigned int minor_number, unsigned int port)
{
	struct serial_struct s;
	struct stat st;
	int fd, err;

	if (stat(path, &st))
		return ktap_fail("%s: %s", path, strerror(errno));
	if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(4, minor_number))
		return ktap_fail("%s is not character device 4:%u", path, minor_number);
	/* The name is there for UARTs that don't exist, too: ask the driver. */
	fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return ktap_fail("%s: %s", path, strerror(errno));
	err = ioctl(fd, TIOCGSERIAL, &s);
	close(fd);
	if (err)
		return ktap_fail("%s: TIOCGSERIAL: %s", path, strerror(errno));
	if (s.type != PORT_16550A || (unsigned int)s.port != port)
		return ktap_fail("%s: type %d at port %#x, not a 16550A at %#x",
				 path, s.type, s.port, port);
	return KTAP_PASS;
}

static int serial_ports(void)
{
	int err = uart("/dev/ttyS0", 64, 0x3f8);

	return err ? err : uart("/dev/ttyS1", 65, 0x2f8);
}

static int serial_interrupts(void)
{
	char buf[16384];
	bool seen = false;

	if (slurp("/proc/interrupts", buf, sizeof(buf)) < 0)
		return ktap_fail("/proc/interrupts: %s", strerror(errno));
	for (char *line = strtok(buf, "\n"); line; line = strtok(NULL, "\n")) {
		unsigned long count = 0;
		char *p = strchr(line, ':');

		if (!strstr(line, "ttyS") || !p)
			continue;
		seen = true;
		/* One column a CPU. */
		for (long i = sysconf(_SC_NPROCESSORS_ONLN); i > 0; i--)
			count += strtoul(p + 1, &p, 10), p--;
		if (!count)
			return ktap_fail("no interrupt yet: %s", line);
		if (!strstr(line, "IO-APIC"))
			return ktap_fail("not through the I/O APIC: %s", line);
	}
	return seen ? KTAP_PASS : ktap_fail("no serial port in /proc/interrupts");
}

static int pci_host_bridge(void)
{
	static const char path[] = "/sys/bus/pci/devices/0000:00:00.0/class";
	char buf[32];

	if (slurp(path, buf, sizeof(buf)) < 0)
		return ktap_fail("%s: %s", path, strerror(errno));
	if (strcmp(buf, "0x060000\n"))
		return ktap_fail("0000:00:00.0 is of class %s", buf);
	return KTAP_PASS;
}

static int clocksource(void)
{
	static const char path[] = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
	char buf[64];

	/* Until it has calibrated the TSC, the kernel calls it tsc-early. */
	for (int i = 0; i < 30; i++) {
		if (slurp(path, buf, sizeof(buf)) < 0)
			return ktap_fail("%s: %s", path, strerror(errno));
		if (!strcmp(buf, "tsc\n"))
			return KTAP_PASS;
		usleep(100000);
	}
	buf[strcspn(buf, "\n")] = 0;
	return ktap_fail("the clocksource is %s, not tsc", buf);
}

static int kernel_log(void)
{
	static const char *const bad[] = {
		"WARNING:", "BUG:", "BUG ", "Oops", "Call Trace", "Kernel panic",
		"general protection fault", "soft lockup", "self-detected stall",
		"INFO: task", "INFO: possible", "DMA-API: debugging out",
		"device driver tries", "UBSAN:", "unchecked MSR", "do_IRQ:",
		"spurious", "nobody cared",
	};
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int records = 0, found = 0;
	char buf[8192];

	if (fd < 0)
		return ktap_fail("/dev/kmsg: %s", strerror(errno));
	for (;;) {
		ssize_t n = read(fd, buf, sizeof(buf) - 1);
		char *text;

		if (n < 0 && (errno == EPIPE || errno == EINTR))
			continue;	/* overtaken by newer records */
		if (n <= 0)
			break;
		buf[n] = 0;
		/* "priority,...;text"; facility 0 is the kernel itself. */
		text = strchr(buf, ';');
		if (!text || strtol(buf, NULL, 10) > 7)
			continue;
		records++;
		text[strcspn(text, "\n")] = 0;
		for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
			if (strstr(text, bad[i])) {
				ktap_diag("%s", text + 1);
				found++;
				break;
			}
		}
	}
	close(fd);
	if (records < 20)
		return ktap_fail("only %d lines in the kernel's log", records);
	return found ? KTAP_FAIL : KTAP_PASS;
}

static int aio_calls(void)
{
	aio_context_t ctx = 0;

	if (syscall(SYS_io_setup, 8, &ctx))
		return ktap_fail("io_setup: %s", strerror(errno));
	if (syscall(SYS_io_destroy, ctx))
		return ktap_fail("io_destroy: %s", strerror(errno));
	return KTAP_PASS;
}

static int io_uring_calls(void)
{
	struct io_uring_params p = { 0 };
	int fd = syscall(SYS_io_uring_setup, 8, &p);

	if (fd < 0)
		return ktap_fail("io_uring_setup: %s", strerror(errno));
	close(fd);
	if (p.sq_entries != 8)
		return ktap_fail("io_uring_setup: %u entries, not 8", p.sq_entries);
	return KTAP_PASS;
}

/* Time. */

static int monotonic_clock(void)
{
	long long first = now(CLOCK_MONOTONIC), last = first;

	for (int i = 0; i < 100000; i++) {
		long long t = now(CLOCK_MONOTONIC);

		if (t < last)
			return ktap_fail("went back by %lld ns", last - t);
		last = t;
	}
	if (last == first)
		return ktap_fail("stood still over 100000 readings");
	return KTAP_PASS;
}

static int sleeping(void)
{
	struct timespec ts = { .tv_nsec = NSEC / 100 };

	for (int i = 0; i < 5; i++) {
		long long start = now(CLOCK_MONOTONIC), took;

		if (nanosleep(&ts, NULL))
			return ktap_fail("nanosleep: %s", strerror(errno));
		took = now(CLOCK_MONOTONIC) - start;
		if (took < ts.tv_nsec || took > 5 * NSEC)
			return ktap_fail("10 ms of sleep took %lld us", took / 1000);
	}
	return KTAP_PASS;
}

static int wall_clock(void)
{
	/* Without a CMOS clock the kernel starts in 1970. */
	long long year = 1970 + now(CLOCK_REALTIME) / NSEC / 31556952;

	if (year < 2000 || year > 2100)
		return ktap_fail("it is the year %lld", year);
	return KTAP_PASS;
}

static volatile sig_atomic_t alarms;

static void on_alarm(int sig)
{
	(void)sig;
	alarms++;
}

static int preemption(void)
{
	struct itimerval tv = { { 0, 5000 }, { 0, 5000 } }, off = { 0 };
	long long end = now(CLOCK_MONOTONIC) + 30 * NSEC;

	/* Makes no system call: only a timer interrupt gets us out. */
	alarms = 0;
	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &tv, NULL);
	while (alarms < 5 && now(CLOCK_MONOTONIC) < end)
		;
	setitimer(ITIMER_REAL, &off, NULL);
	signal(SIGALRM, SIG_DFL);
	if (alarms < 5)
		return ktap_fail("%d of 5 timer signals in 30 s", (int)alarms);
	return KTAP_PASS;
}

/* Programs. */

struct sums {
	double sse;
	long double x87;
	uint64_t integer;
};

/*
 * Keeps values in SSE, x87 and general registers for long, over interrupts and
 * switches to other threads, so that one lost register shows in the sums.
 */
static struct sums work(unsigned int seed, bool yield)
{
	struct sums s = { .sse = seed, .x87 = seed, .integer = seed };
	__m128i v = _mm_set_epi32(seed, 1, 2, 3), k = _mm_set1_epi32(0x9e3779b9);
	uint32_t lanes[4];

	for (unsigned int i = 1; i <= 20000; i++) {
		s.sse += 1.0 / ((double)i * i);
		s.x87 += 1.0L / ((long double)i * i);
		s.integer = s.integer * 6364136223846793005u + 1442695040888963407u;
		v = _mm_add_epi32(_mm_xor_si128(v, _mm_slli_epi32(v, 5)), k);
		if (yield && i % 1000 == 0)
			sched_yield();
	}
	_mm_storeu_si128((__m128i *)lanes, v);
	for (int i = 0; i < 4; i++)
		s.integer = s.integer * 31 + lanes[i];
	return s;
}

static bool same(struct sums a, struct sums b)
{
	return a.sse == b.sse && a.x87 == b.x87 && a.integer == b.integer;
}

static int arithmetic(void)
{
	/* What real processors compute, and exact fractions, rounded. */
	static const struct sums want = {
		.sse = 0x1.a5171f4e31786p+0,
		.x87 = 0xd.28b8fa718bbc295p-3L,
		.integer = 0x5e029e06bc585de,
	};
	struct sums got = work(0, false);

	if (!same(got, want))
		return ktap_fail("got %a %La %#lx, want %a %La %#lx", got.sse, got.x87,
				 (unsigned long)got.integer, want.sse, want.x87,
				 (unsigned long)want.integer);
	return KTAP_PASS;
}

struct worker {
	pthread_t thread;
	int cpu;
	unsigned int seed;
	bool right_cpu;
	struct sums got;
};

static void *worker(void *arg)
{
	struct worker *w = arg;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(w->cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		return NULL;
	w->right_cpu = sched_getcpu() == w->cpu;
	w->got = work(w->seed, true);
	w->right_cpu = w->right_cpu && sched_getcpu() == w->cpu;
	return NULL;
}

static int work_on_every_cpu(void)
{
	enum { PER_CPU = 3, MAX = 256 };
	static struct worker w[MAX * PER_CPU];
	int failed = 0, n = 0;
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return ktap_fail("sched_getaffinity: %s", strerror(errno));
	for (int cpu = 0; cpu < MAX; cpu++) {
		for (int i = 0; i < PER_CPU && CPU_ISSET(cpu, &set); i++, n++) {
			w[n].cpu = cpu;
			w[n].seed = n + 1;
			if (pthread_create(&w[n].thread, NULL, worker, &w[n]))
				return ktap_fail("cannot start thread %d", n);
		}
	}
	for (int i = 0; i < n; i++) {
		pthread_join(w[i].thread, NULL);
		if (!w[i].right_cpu) {
			ktap_diag("thread %d didn't stay on CPU %d", i, w[i].cpu);
			failed++;
		} else if (!same(w[i].got, work(w[i].seed, false))) {
			ktap_diag("thread %d on CPU %d computed something else", i, w[i].cpu);
			failed++;
		}
	}
	if (n < PER_CPU)
		return ktap_fail("no CPU to work on");
	return failed ? KTAP_FAIL : KTAP_PASS;
}

static void *echo(void *arg)
{
	int *fd = arg;
	char c;

	while (read(fd[0], &c, 1) == 1 && write(fd[1], &c, 1) == 1)
		;
	return NULL;
}

/* Two threads wake each other, on two CPUs where there are two. */
static int wakeups(void)
{
	int to[2], from[2], fd[2], rounds = 0;
	pthread_attr_t attr;
	cpu_set_t all, set;
	pthread_t thread;
	int last = 0;
	char c = 0;

	sched_getaffinity(0, sizeof(all), &all);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &all))
			last = cpu;
	}
	if (pipe(to) || pipe(from))
		return ktap_fail("pipe: %s", strerror(errno));
	fd[0] = to[0];
	fd[1] = from[1];
	CPU_ZERO(&set);
	CPU_SET(last, &set);
	pthread_attr_init(&attr);
	pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	if (pthread_create(&thread, &attr, echo, fd))
		return ktap_fail("cannot start a thread on CPU %d", last);
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	sched_setaffinity(0, sizeof(set), &set);
	for (; rounds < 500; rounds++, c++) {
		char back;

		if (write(to[1], &c, 1) != 1 || read(from[0], &back, 1) != 1 || back != c)
			break;
	}
	sched_setaffinity(0, sizeof(all), &all);
	close(to[1]);
	pthread_join(thread, NULL);
	close(to[0]);
	close(from[0]);
	close(from[1]);
	return rounds == 500 ? KTAP_PASS : ktap_fail("round %d of 500 went wrong", rounds);
}

static sigjmp_buf resume;
static volatile sig_atomic_t last_signal, last_code;
static void *volatile last_address;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	last_signal = sig;
	last_code = info->si_code;
	last_address = info->si_addr;
	siglongjmp(resume, 1);
}

static void null_write(void)
{
	volatile int *volatile p = NULL;

	*p = 1;
}

static char *read_only;

static void read_only_write(void)
{
	*(volatile char *)read_only = 1;
}

static void not_executable(void)
{
	((void (*)(void))(uintptr_t)read_only)();
}

static void divide(void)
{
	volatile int zero = 0, one = 1;

	one /= zero;
}

static void undefined(void)
{
	asm volatile("ud2");
}

static void privileged(void)
{
	asm volatile("hlt");
}

static void kernel_address(void)
{
	*(volatile char *)0xffffffff81000000;
}

/* On its own, since a jump back leaves a function's variables undefined. */
static void provoke(void (*cause)(void))
{
	last_signal = 0;
	last_code = 0;
	if (!sigsetjmp(resume, 1))
		cause();
}

static int faults(void)
{
	static const struct {
		const char *name;
		void (*cause)(void);
		int sig, code;
		bool address;	/* of read_only; else 0 */
	} t[] = {
		{ "write to NULL", null_write, SIGSEGV, SEGV_MAPERR, false },
		{ "write to a read-only page", read_only_write, SIGSEGV, SEGV_ACCERR, true },
		{ "jump to a page without execute permission", not_executable, SIGSEGV, SEGV_ACCERR, true },
		{ "division by zero", divide, SIGFPE, FPE_INTDIV, false },
		{ "undefined instruction", undefined, SIGILL, ILL_ILLOPN, false },
		{ "privileged instruction", privileged, SIGSEGV, SI_KERNEL, false },
		{ "read from a kernel address", kernel_address, SIGSEGV, 0, false },
	};
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	static const int signals[] = { SIGSEGV, SIGFPE, SIGILL };
	int failed = 0;

	read_only = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (read_only == MAP_FAILED)
		return ktap_fail("mmap: %s", strerror(errno));
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		sigaction(signals[i], &sa, NULL);

	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
		provoke(t[i].cause);
		if (last_signal != t[i].sig || (t[i].code && last_code != t[i].code)) {
			ktap_diag("%s: signal %d code %d, not %d code %d", t[i].name,
				  (int)last_signal, (int)last_code, t[i].sig, t[i].code);
			failed++;
		} else if (t[i].sig == SIGSEGV && t[i].code != SI_KERNEL && t[i].code &&
			   last_address != (t[i].address ? read_only : NULL)) {
			ktap_diag("%s: reported at %p", t[i].name, last_address);
			failed++;
		}
	}
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		signal(signals[i], SIG_DFL);
	munmap(read_only, PAGE);
	return failed ? KTAP_FAIL : KTAP_PASS;
}

/* Returns the first of n pages that doesn't hold its number plus base, or -1. */
static int wrong_page(const uint32_t *p, int n, uint32_t base)
{
	for (int i = 0; i < n; i++) {
		for (int j = 0; j < PAGE / 4; j++) {
			if (p[i * PAGE / 4 + j] != base + i)
				return i;
		}
	}
	return -1;
}

static void fill(uint32_t *p, int n, uint32_t base)
{
	for (int i = 0; i < n; i++) {
		for (int j = 0; j < PAGE / 4; j++)
			p[i * PAGE / 4 + j] = base + i;
	}
}

static int copy_on_write(void)
{
	enum { N = 256 };
	uint32_t *mine, *shared;
	int status, bad;
	pid_t pid;

	mine = mmap(NULL, N * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	shared = mmap(NULL, N * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (mine == MAP_FAILED || shared == MAP_FAILED)
		return ktap_fail("mmap: %s", strerror(errno));
	fill(mine, N, 1000);
	fill(shared, N, 2000);
	pid = fork();
	if (pid < 0)
		return ktap_fail("fork: %s", strerror(errno));
	if (!pid) {
		if (wrong_page(mine, N, 1000) >= 0 || wrong_page(shared, N, 2000) >= 0)
			_exit(1);
		fill(mine, N, 3000);
		fill(shared, N, 4000);
		_exit(wrong_page(mine, N, 3000) >= 0 ? 2 : 0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		return ktap_fail("the child saw wrong pages, status %#x", status);
	bad = wrong_page(mine, N, 1000);
	if (bad >= 0)
		return ktap_fail("the child's write reached the parent's page %d", bad);
	bad = wrong_page(shared, N, 4000);
	if (bad >= 0)
		return ktap_fail("the child's write to shared page %d is lost", bad);
	munmap(mine, N * PAGE);
	munmap(shared, N * PAGE);
	return KTAP_PASS;
}

int main(int argc, char **argv)
{
	static const struct ktap_check checks[] = {
		{ "cpus", cpus },
		{ "memory", memory },
		{ "cpu_features", cpu_features },
		{ "serial_ports", serial_ports },
		{ "serial_interrupts", serial_interrupts },
		{ "pci_host_bridge", pci_host_bridge },
		{ "clocksource", clocksource },
		{ "monotonic_clock", monotonic_clock },
		{ "sleeping", sleeping },
		{ "wall_clock", wall_clock },
		{ "preemption", preemption },
		{ "arithmetic", arithmetic },
		{ "work_on_every_cpu", work_on_every_cpu },
		{ "wakeups", wakeups },
		{ "faults", faults },
		{ "copy_on_write", copy_on_write },
		{ "aio_calls", aio_calls },
		{ "io_uring_calls", io_uring_calls },
		/* Last: it also sees what the others caused. */
		{ "kernel_log", kernel_log },
	};

	return ktap_run(checks, sizeof(checks) / sizeof(*checks), argc, argv);
}
