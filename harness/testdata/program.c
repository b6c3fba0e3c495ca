// A program that uses what programs use of a C library, dynamically linked. What
// it prints must be the same in a guest as on the machine that built it: so no
// addresses, times or numbers of processors.
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed = 88172645463325252u;

static uint64_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint64_t hash(const void *p, size_t n)
{
	const unsigned char *b = p;
	uint64_t h = 14695981039346656037u;

	while (n--)
		h = (h ^ *b++) * 1099511628211u;
	return h;
}

static void floats(void)
{
	static const double x[] = { 0.5, -1.25, 3.0, 1e-3, 100.75, 1234567.875 };
	char text[64];
	long double l;

	for (size_t i = 0; i < sizeof(x) / sizeof(x[0]); i++)
		printf("%.17g: sin %.17g cos %.17g tan %.17g atan %.17g exp %.17g log %.17g sqrt %.17g cbrt %.17g pow %.17g\n",
		       x[i], sin(x[i]), cos(x[i]), tan(x[i]), atan(x[i]), exp(x[i] / 1e4), log(fabs(x[i])),
		       sqrt(fabs(x[i])), cbrt(x[i]), pow(fabs(x[i]), 1.5));
	printf("%a %.3f %e %g %8.2f|%-8.1f|%+.0f\n", 1.0 / 3, 2.0005, 6.02214076e23, 1e-5, -3.14159, 2.5, 0.5);
	printf("%g %g %g %d\n", INFINITY, -INFINITY, 0.0 * -1, isnan(NAN));
	l = strtold("3.14159265358979323846264338327950288", NULL);
	printf("%.20Lf %La %.18Lg %.18Lg\n", l, l, sqrtl(l), l / 7);
	printf("%ld %ld %ld %.1f\n", lrint(2.5), lround(2.5), (long)-2.7, fmod(10.5, 4));
	for (int i = 0; i < 1000; i++) {
		double d, back;
		uint64_t bits = next();

		memcpy(&d, &bits, sizeof(d));
		if (!isfinite(d))
			continue;
		snprintf(text, sizeof(text), "%.17g", d);
		back = strtod(text, NULL);
		if (memcmp(&d, &back, sizeof(d)))
			printf("%s comes back as %.17g\n", text, back);
	}
}

static void strings(void)
{
	static char a[10000], b[10000];

	for (size_t n = 0; n < sizeof(a) - 64; n = n * 5 / 4 + 1) {
		for (size_t i = 0; i < n; i++)
			a[i + n % 17] = 'a' + next() % 26;
		a[n + n % 17] = 0;
		memcpy(b + n % 13, a + n % 17, n + 1);
		if (strlen(b + n % 13) != n || strcmp(b + n % 13, a + n % 17) || memcmp(b + n % 13, a + n % 17, n))
			printf("a copy of %zu bytes is none\n", n);
		memmove(b + 7, b + n % 13, n);
		if (n && memchr(b + 7, a[n % 17 + n - 1], n) == NULL)
			printf("the last of %zu bytes is not found\n", n);
		if (strchr(a + n % 17, '!') || strrchr(a + n % 17, 0) != a + n % 17 + n)
			printf("what is not in %zu bytes is found\n", n);
	}
	printf("strings %016llx, strstr at %td\n", (unsigned long long)hash(b, sizeof(b)), strstr("the dusk dances", "dance") - "the dusk dances");
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void memory(void)
{
	static void *blocks[500];
	uint32_t *v = malloc(50000 * sizeof(*v));
	uint64_t sum = 0;

	for (int i = 0; i < 50000; i++)
		v[i] = next();
	qsort(v, 50000, sizeof(*v), by_value);
	for (int i = 1; i < 50000; i++)
		if (v[i - 1] > v[i])
			printf("not sorted at %d\n", i);
	printf("sorted %016llx\n", (unsigned long long)hash(v, 50000 * sizeof(*v)));
	free(v);
	for (int i = 0; i < 20000; i++) {
		void **p = &blocks[next() % 500];
		size_t n = next() % 5000 + 8;

		if (*p)
			sum += *(uint64_t *)*p;
		*p = realloc(*p, n);
		memset(*p, i, n);
	}
	printf("blocks %016llx\n", (unsigned long long)sum);
}

#define THREADS 6

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t all;
static __thread int own;
static int turn, total;
static long atomic_total;

static void *thread(void *arg)
{
	int me = (intptr_t)arg;

	pthread_barrier_wait(&all);
	for (int i = 0; i < 2000; i++) {
		own++;
		__atomic_fetch_add(&atomic_total, me, __ATOMIC_RELAXED);
		pthread_mutex_lock(&lock);
		total++;
		pthread_mutex_unlock(&lock);
	}
	pthread_mutex_lock(&lock);
	while (turn != me)
		pthread_cond_wait(&changed, &lock);
	printf("thread %d: %d\n", me, own);
	turn++;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return (void *)(intptr_t)(me * me);
}

static void threads(void)
{
	pthread_t t[THREADS];
	long squares = 0;

	pthread_barrier_init(&all, NULL, THREADS);
	for (intptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&t[i], NULL, thread, (void *)i))
			printf("no thread\n");
	for (int i = 0; i < THREADS; i++) {
		void *v;

		pthread_join(t[i], &v);
		squares += (intptr_t)v;
	}
	printf("threads: %d %ld %ld\n", total, atomic_total, squares);
}

static sigjmp_buf back;

static void caught(int sig)
{
	siglongjmp(back, sig);
}

static void signals(void)
{
	volatile int zero = 0;
	int sig, status, fds[2];
	char *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char text[32] = "";

	signal(SIGSEGV, caught);
	signal(SIGFPE, caught);
	signal(SIGILL, caught);
	sig = sigsetjmp(back, 1);
	if (!sig)
		*p = 1;
	printf("a write to a read-only page: signal %d\n", sig);
	sig = sigsetjmp(back, 1);
	if (!sig)
		zero = 77 / zero;
	printf("a division by zero: signal %d\n", sig);
	sig = sigsetjmp(back, 1);
	if (!sig)
		__builtin_trap();
	printf("an undefined instruction: signal %d\n", sig);
	mprotect(p, 4096, PROT_READ | PROT_WRITE);
	strcpy(p, "private");
	if (pipe(fds))
		printf("no pipe: %s\n", strerror(errno));
	fflush(stdout);
	if (!fork()) {
		strcpy(p, "child's");
		_exit(write(fds[1], p, 8) == 8 ? 7 : 8);
	}
	wait(&status);
	if (read(fds[0], text, sizeof(text)) != 8)
		printf("the child said nothing\n");
	printf("child: %s, status %d; parent: %s\n", text, WEXITSTATUS(status), p);
}

static void clocks(void)
{
	struct timespec a, b;
	int back = 0;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < 10000; i++) {
		clock_gettime(CLOCK_MONOTONIC, &b);
		back += b.tv_sec < a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec < a.tv_nsec);
		a = b;
	}
	printf("the clock went back %d times\n", back);
}

int main(void)
{
	floats();
	strings();
	memory();
	threads();
	signals();
	clocks();
	return 0;
}
