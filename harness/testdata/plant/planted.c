// SPDX-License-Identifier: MIT
/*
 * A test whose checks fail, each in a way of its own: plant.c says which way is
 * the kernel's. "first" and "last" pass.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "ktap.h"

static int passes(void)
{
	return KTAP_PASS;
}

static int assertion(void)
{
	return ktap_fail("two and two are %d", 5);
}

static int skip(void)
{
	return ktap_skip("no such card");
}

static int hang(void)
{
	while (pause())
		;
	return KTAP_PASS;
}

static int busy(void)
{
	for (volatile unsigned int n = 1; n; n |= 1)
		;
	return KTAP_PASS;
}

static int leave(void)
{
	exit(0);
}

static int leave_badly(void)
{
	exit(7);
}

static int crash(void)
{
	raise(SIGSEGV);
	return KTAP_PASS;
}

static int nonsense(void)
{
	printf("not ok 77 nonsense\n");
	return KTAP_PASS;
}

static int power_off(void)
{
	return reboot(RB_POWER_OFF) ? ktap_fail("reboot: %s", strerror(errno)) : KTAP_PASS;
}

static int reset(void)
{
	return reboot(RB_AUTOBOOT) ? ktap_fail("reboot: %s", strerror(errno)) : KTAP_PASS;
}

/* Nobody answers the harness any more. */
static int silence(void)
{
	kill(getppid(), SIGSTOP);
	return hang();
}

static int no_fault(void)
{
	return ktap_host(NULL, 0, "fault edu0/device:reset@1000000 on event") ? KTAP_FAIL : KTAP_PASS;
}

/*
 * Two processes count without a lock: whether a count is lost, and when, is decided
 * by how the CPUs take turns.
 */
static int race(void)
{
	enum { COUNTS = 100, WINDOW = 10, GAP = 1000 };
	volatile struct {
		int ready[2], sum;
	} *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int me = 0, sum;
	pid_t pid;

	if (shared == MAP_FAILED)
		return ktap_fail("mmap: %s", strerror(errno));
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return ktap_fail("fork: %s", strerror(errno));
	me = !pid;
	shared->ready[me] = 1;
	while (!shared->ready[!me])
		;
	for (int i = 0; i < COUNTS; i++) {
		sum = shared->sum;
		for (volatile int n = 0; n < WINDOW; n++)
			;
		shared->sum = sum + 1;
		for (volatile int n = 0; n < GAP; n++)
			;
	}
	if (!pid)
		_exit(0);
	if (waitpid(pid, NULL, 0) != pid)
		return ktap_fail("waitpid: %s", strerror(errno));
	sum = shared->sum;
	return sum == 2 * COUNTS ? KTAP_PASS : ktap_fail("%d counts of %d", sum, 2 * COUNTS);
}

/* Has the module go wrong. */
static int plant(const char *word)
{
	int fd = open("/sys/kernel/debug/plant/do", O_WRONLY | O_CLOEXEC);
	/* A page of our own, that can be pinned for writing. */
	static char page[4096] __attribute__((aligned(4096)));

	if (fd < 0)
		return ktap_fail("plant/do: %s", strerror(errno));
	snprintf(page, sizeof(page), "%s", word);
	if (write(fd, page, strlen(word)) < 0)
		return ktap_fail("%s: %s", word, strerror(errno));
	close(fd);
	return KTAP_PASS;
}

#define PLANT(word) static int word(void) { return plant(#word); }
PLANT(oops)
PLANT(warn)
PLANT(panic)
PLANT(use_after_free)
PLANT(inversion)
PLANT(spin)
PLANT(spin_irqs_off)
PLANT(sleep_in_kernel)
PLANT(forget_memory)
PLANT(forget_reference)
PLANT(forget_pin)
PLANT(forget_mapping)

/* Two at once. */
static int forget_both(void)
{
	return plant("forget_reference") || plant("forget_pin");
}

int main(int argc, char **argv)
{
	static const struct ktap_check checks[] = {
		{ "first", passes },
		{ "assertion", assertion },
		{ "skip", skip },
		{ "hang", hang },
		{ "busy", busy },
		{ "leave", leave },
		{ "leave_badly", leave_badly },
		{ "crash", crash },
		{ "nonsense", nonsense },
		{ "power_off", power_off },
		{ "reset", reset },
		{ "silence", silence },
		{ "no_fault", no_fault },
		{ "race", race },
		{ "oops", oops },
		{ "warn", warn },
		{ "panic", panic },
		{ "use_after_free", use_after_free },
		{ "inversion", inversion },
		{ "spin", spin },
		{ "spin_irqs_off", spin_irqs_off },
		{ "sleep_in_kernel", sleep_in_kernel },
		{ "forget_memory", forget_memory },
		{ "forget_reference", forget_reference },
		{ "forget_pin", forget_pin },
		{ "forget_mapping", forget_mapping },
		{ "forget_both", forget_both },
		{ "last", passes },
	};

	return ktap_run(checks, sizeof(checks) / sizeof(*checks), argc, argv);
}
