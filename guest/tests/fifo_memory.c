// SPDX-License-Identifier: MIT
/*
 * fifo_memory - the programs' memory that the driver hands to the hardware
 *
 * Every kind of page, what a program may do with its memory while a request is
 * in flight, and addresses that are none. Then the kernel's own memory: what
 * happens when there is none, with fail-nth where the kernel has it.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/userfaultfd.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>

#include "fail_nth.h"
#include "job.h"

#define PAGE	((size_t)FIFO_PAGE)
#define HUGE	((size_t)2 << 20)
#define AREA	(8 * PAGE)	/* of each kind of memory */
#define ODD	123		/* where the buffer begins in it */
#define LENGTH	10000

/* A page of our own that nothing else has been in. */
static void *pages(size_t n)
{
	void *p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		ktap_diag("no memory: %s", strerror(errno));
		_exit(KTAP_FAIL);
	}
	return p;
}

/* An address that nobody is given who does not ask for it. */
#define FAR	((void *)0x100000000ul)

/* Pages at an address. */
static void *pages_at(void *at, size_t n, int protection)
{
	void *p = mmap(at, n * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (p == MAP_FAILED) {
		ktap_diag("no memory at %p: %s", at, strerror(errno));
		_exit(KTAP_FAIL);
	}
	return p;
}

/* A file in memory with n pages, all of them holes. */
static int memory_file(size_t n, unsigned int flags)
{
	int fd = memfd_create("fifo_memory", flags);

	if (fd >= 0 && ftruncate(fd, n * PAGE)) {
		close(fd);
		return -1;
	}
	return fd;
}

static void *map_file(int fd, size_t size, int protection, int flags)
{
	void *p = mmap(NULL, size, protection, flags, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Whether a job ended with n; says so if not. */
static bool ended_with(ssize_t got, ssize_t want, const char *what)
{
	if (got == want)
		return true;
	ktap_diag("%s: %zd%s%s, not %zd", what, got, got < 0 ? " " : "", got < 0 ? strerror(-got) : "", want);
	return false;
}

/* Puts n bytes of a stream into the FIFO. */
static int put(int fd, size_t n, uint64_t stream)
{
	uint8_t *p = malloc(n);
	int err;

	fifo_fill(p, n, stream, 0);
	err = fifo_write_all(fd, p, n);
	free(p);
	return err;
}

/* Takes them out, and looks at them. */
static int take(int fd, size_t n, uint64_t stream, uint64_t at)
{
	uint8_t *p = malloc(n);
	int err = fifo_read_all(fd, p, n) || fifo_verify(p, n, stream, at) ? -1 : 0;

	free(p);
	return err;
}

/* Bytes of the FIFO that are not the buffer's must not change either. */
static bool untouched(const uint8_t *area, size_t size, size_t from, size_t to, int value, const char *what)
{
	if (fifo_all(area, value, from) && fifo_all(area + to, value, size - to))
		return true;
	ktap_diag("%s: memory around the buffer has changed", what);
	return false;
}

/*
 * Sends LENGTH bytes out of the area and others into it, by each way. The area
 * is AREA bytes at least, readable and writable.
 */
static int area_works(uint8_t *area)
{
	int fd = fifo_open(0, O_RDWR);
	uint64_t stream = 1;

	if (fd < 0)
		return KTAP_FAIL;
	for (enum way way = 0; way < WAYS; way++) {
		const char *name = way_names[way];
		uint8_t *p = area + ODD;

		memset(area, 0x5a, AREA);
		fifo_fill(p, LENGTH, stream, 0);
		if (!ended_with(job_do(way, fd, JOB_WRITE, p, LENGTH), LENGTH, name) || take(fd, LENGTH, stream++, 0))
			return ktap_fail("%s: what was written from it is not right", name);
		memset(area, 0x5a, AREA);
		if (put(fd, LENGTH, stream) ||
		    !ended_with(job_do(way, fd, JOB_READ, p, LENGTH), LENGTH, name) ||
		    fifo_verify(p, LENGTH, stream++, 0) ||
		    !untouched(area, AREA, ODD, ODD + LENGTH, 0x5a, name))
			return ktap_fail("%s: what was read into it is not right", name);
	}
	close(fd);
	return KTAP_PASS;
}

static int anonymous(void)
{
	return area_works(pages(AREA / PAGE));
}

static int stack(void)
{
	uint8_t area[AREA];

	return area_works(area);
}

static int data(void)
{
	static uint8_t area[AREA] = { 1 };

	return area_works(area);
}

static int locked(void)
{
	uint8_t *p = pages(AREA / PAGE);

	if (mlock(p, AREA))
		return ktap_skip("mlock: %s", strerror(errno));
	return area_works(p);
}

static int sysv(void)
{
	int id = shmget(IPC_PRIVATE, AREA, 0600);
	void *p = id < 0 ? (void *)-1 : shmat(id, NULL, 0);

	if (p == (void *)-1)
		return ktap_skip("shared memory: %s", strerror(errno));
	shmctl(id, IPC_RMID, NULL);
	return area_works(p);
}

static int shared_anonymous(void)
{
	void *p = fifo_shared(AREA);

	return p ? area_works(p) : ktap_fail("no shared memory: %s", strerror(errno));
}

static int page_cache(void)
{
	int fd = memory_file(AREA / PAGE, MFD_CLOEXEC);
	uint8_t *p = fd < 0 ? NULL : map_file(fd, AREA, PROT_READ | PROT_WRITE, MAP_SHARED), *copy = malloc(AREA);

	if (!p)
		return ktap_fail("memfd: %s", strerror(errno));
	if (area_works(p))
		return KTAP_FAIL;
	/* The file has it as well. */
	if (pread(fd, copy, AREA, 0) != (ssize_t)AREA || memcmp(copy, p, AREA))
		return ktap_fail("the file is not what was read into its mapping");
	return KTAP_PASS;
}

/* What was read into a file's mapping stays in the file when all is closed. */
static int file_stays(void)
{
	char dir[] = "/tmp/fifo_memory.XXXXXX", path[64];
	int fifo = fifo_open(0, O_RDWR), fd, result = KTAP_PASS;
	uint8_t *p;

	if (fifo < 0)
		return KTAP_FAIL;
	mkdir("/tmp", 01777);
	if (!mkdtemp(dir) || mount("none", dir, "tmpfs", 0, NULL))
		return ktap_skip("no tmpfs: %s", strerror(errno));
	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, AREA) || !(p = map_file(fd, AREA, PROT_READ | PROT_WRITE, MAP_SHARED))) {
		result = ktap_fail("%s: %s", path, strerror(errno));
	} else if (put(fifo, LENGTH, 1) ||
		   !ended_with(job_do(WAY_AIO, fifo, JOB_READ, p + ODD, LENGTH), LENGTH, "read")) {
		result = KTAP_FAIL;
	} else {
		munmap(p, AREA);
		close(fd);
		sync();
		spit("/proc/sys/vm/drop_caches", "3");
		fd = open(path, O_RDWR | O_CLOEXEC);
		p = malloc(AREA);
		if (pread(fd, p, AREA, 0) != (ssize_t)AREA || fifo_verify(p + ODD, LENGTH, 1, 0) ||
		    !untouched(p, AREA, ODD, ODD + LENGTH, 0, "the file"))
			result = ktap_fail("the file has lost what was read into it");
	}
	if (fd >= 0)
		close(fd);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	return result;
}

/* Holes of a file, that no page was ever in: written from they are zeros. */
static int file_holes(void)
{
	int fifo = fifo_open(0, O_RDWR), fd = memory_file(4, MFD_CLOEXEC);
	uint8_t *p = fd < 0 ? NULL : map_file(fd, 4 * PAGE, PROT_READ, MAP_SHARED), *copy = calloc(4, PAGE);

	if (fifo < 0 || !p)
		return ktap_fail("memfd: %s", strerror(errno));
	if (!ended_with(job_do(WAY_AIO, fifo, JOB_WRITE, p + 1, 3 * PAGE), 3 * PAGE, "write from holes"))
		return KTAP_FAIL;
	memset(copy, 0xff, 4 * PAGE);
	if (fifo_read_all(fifo, copy, 3 * PAGE) || !fifo_all(copy, 0, 3 * PAGE))
		return ktap_fail("a hole is not zeros");
	return KTAP_PASS;
}

/* A private mapping of a file gets pages of its own: the file stays as it is. */
static int private_file(void)
{
	int fifo = fifo_open(0, O_RDWR), fd = memory_file(AREA / PAGE, MFD_CLOEXEC);
	uint8_t *shared = fd < 0 ? NULL : map_file(fd, AREA, PROT_READ | PROT_WRITE, MAP_SHARED);

	if (fifo < 0 || !shared)
		return ktap_fail("memfd: %s", strerror(errno));
	fifo_fill(shared, AREA, 99, 0);
	for (enum way way = 0; way < WAYS; way++) {
		uint8_t *p = map_file(fd, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE);
		volatile uint8_t *touch = p;

		(void)touch[2 * PAGE];	/* one of the pages is mapped: the file's */
		if (put(fifo, LENGTH, 1) ||
		    !ended_with(job_do(way, fifo, JOB_READ, p + ODD, LENGTH), LENGTH, way_names[way]) ||
		    fifo_verify(p + ODD, LENGTH, 1, 0) || fifo_verify(p, ODD, 99, 0) ||
		    fifo_verify(p + ODD + LENGTH, PAGE, 99, ODD + LENGTH))
			return ktap_fail("%s: the mapping is not right", way_names[way]);
		if (fifo_verify(shared, AREA, 99, 0))
			return ktap_fail("%s: the file has changed under a private mapping", way_names[way]);
		munmap(p, AREA);
	}
	return area_works(map_file(fd, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE));
}

/* Memory that was only read so far is the zero page, which everybody has. */
static int zero_page(void)
{
	int fd = fifo_open(0, O_RDWR);
	uint8_t *other = pages(AREA / PAGE), *copy = malloc(AREA);

	if (fd < 0 || !fifo_all(other, 0, AREA))
		return KTAP_FAIL;
	for (enum way way = 0; way < WAYS; way++) {
		uint8_t *p = pages(AREA / PAGE);

		/* As a source. */
		if (!fifo_all(p, 0, AREA) ||
		    !ended_with(job_do(way, fd, JOB_WRITE, p + ODD, LENGTH), LENGTH, way_names[way]))
			return KTAP_FAIL;
		memset(copy, 0xff, AREA);
		if (fifo_read_all(fd, copy, LENGTH) || !fifo_all(copy, 0, LENGTH))
			return ktap_fail("%s: zeros arrive as something else", way_names[way]);
		/* And read into: it is to be replaced. */
		if (put(fd, LENGTH, 7) ||
		    !ended_with(job_do(way, fd, JOB_READ, p + ODD, LENGTH), LENGTH, way_names[way]) ||
		    fifo_verify(p + ODD, LENGTH, 7, 0) ||
		    !untouched(p, AREA, ODD, ODD + LENGTH, 0, way_names[way]))
			return ktap_fail("%s: what was read into it is not right", way_names[way]);
		if (!fifo_all(other, 0, AREA))
			return ktap_fail("%s: the zero page has been written to", way_names[way]);
		munmap(p, AREA);
	}
	return KTAP_PASS;
}

/* Memory that nobody has touched at all. */
static int untouched_memory(void)
{
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0)
		return KTAP_FAIL;
	for (enum way way = 0; way < WAYS; way++) {
		uint8_t *p = pages(AREA / PAGE);

		if (put(fd, LENGTH, 7) ||
		    !ended_with(job_do(way, fd, JOB_READ, p + ODD, LENGTH), LENGTH, way_names[way]) ||
		    fifo_verify(p + ODD, LENGTH, 7, 0) ||
		    !untouched(p, AREA, ODD, ODD + LENGTH, 0, way_names[way]))
			return KTAP_FAIL;
		munmap(p, AREA);
	}
	return KTAP_PASS;
}

/* Gives n huge pages of the pool, or NULL. The pool stays until the machine's end. */
static uint8_t *huge_pages(size_t n)
{
	char number[16];
	void *p;

	if (slurp_number("/proc/sys/vm/nr_hugepages", 0) < 4) {
		snprintf(number, sizeof(number), "%d", 4);
		if (spit("/proc/sys/vm/nr_hugepages", number))
			return NULL;
	}
	p = mmap(NULL, n * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

/*
 * Sends size bytes from p through the FIFO, which holds less, and then as much
 * as that into the middle.
 */
static int large(int fd, enum way way, uint8_t *p, size_t size)
{
	size_t depth = fifo_info(fd).depth, done = 0, from = 0, length = size;
	uint8_t *copy = malloc(depth);
	struct job j;

	/* io_uring does not wait for room: it is short. */
	if (way == WAY_URING || way == WAY_URING_ASYNC) {
		from = size / 2 - depth / 2 + 5;
		length = depth;
	}
	fifo_fill(p, size, 3, 0);
	if (job_start(&j, way, fd, JOB_WRITE, p + from, size - from))
		return -1;
	while (done < length) {
		size_t want = length - done < depth ? length - done : depth;

		if (fifo_read_all(fd, copy, want) || fifo_verify(copy, want, 3, from + done))
			return -1;
		done += want;
	}
	if (!ended_with(job_end(&j), length, "large write"))
		return -1;
	/* A read takes what there is, into the middle: across both of its pages. */
	memset(p, 0x5a, size);
	if (put(fd, depth, 4) ||
	    !ended_with(job_do(way, fd, JOB_READ, p + size / 2 - 1001, size / 2), depth, "large read") ||
	    fifo_verify(p + size / 2 - 1001, depth, 4, 0) ||
	    !untouched(p, size, size / 2 - 1001, size / 2 - 1001 + depth, 0x5a, "large read"))
		return -1;
	free(copy);
	return 0;
}

static int huge_tlb(void)
{
	int fd = fifo_open(0, O_RDWR);
	uint8_t *p = huge_pages(2);
	struct job j;

	if (fd < 0)
		return KTAP_FAIL;
	if (!p)
		return ktap_skip("no huge pages: %s", strerror(errno));
	if (area_works(p + HUGE - 2 * PAGE))	/* across the two */
		return KTAP_FAIL;
	for (enum way way = 0; way < WAYS; way++) {
		if (large(fd, way, p, 2 * HUGE))
			return ktap_fail("%s: huge pages", way_names[way]);
	}
	/* Given back to the pool while a read is in flight: it goes on to where nobody sees it. */
	if (job_start(&j, WAY_AIO, fd, JOB_READ, p + HUGE - 50, 100) || munmap(p, 2 * HUGE) || put(fd, 100, 1) ||
	    !ended_with(job_end(&j), 100, "read into huge pages that were unmapped"))
		return KTAP_FAIL;
	p = huge_pages(2);
	if (!p || !fifo_all(p, 0, 2 * HUGE))
		return ktap_fail("the huge pages %s", p ? "are not zeroed" : "have not come back");
	return KTAP_PASS;
}

/* The same as a file. */
static int huge_file(void)
{
	uint8_t *p = huge_pages(1);
	int fd = memory_file(HUGE / PAGE, MFD_CLOEXEC | MFD_HUGETLB);

	if (!p || fd < 0)
		return ktap_skip("no huge pages: %s", strerror(errno));
	munmap(p, HUGE);
	p = map_file(fd, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	if (!p)
		return ktap_skip("no huge page: %s", strerror(errno));
	return area_works(p);
}

/* KiB of huge pages in the mapping that begins at p. */
static long long huge_in(const void *p)
{
	char line[256], start[32];
	FILE *f = fopen("/proc/self/smaps", "r");
	bool here = false;
	long long n = -1;

	snprintf(start, sizeof(start), "%lx-", (unsigned long)p);
	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, start, strlen(start)))
			here = true;
		if (here && sscanf(line, "AnonHugePages: %lld", &n) == 1)
			break;
	}
	if (f)
		fclose(f);
	return n;
}

/* Two huge pages that the kernel has made of anonymous memory; NULL if it doesn't. */
static uint8_t *transparent_pages(void)
{
	uint8_t *p = pages(4 * HUGE / PAGE), *aligned = (uint8_t *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));

	/* A small machine has them off. */
	spit("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	munmap(p, aligned - p);
	munmap(aligned + 2 * HUGE, p + 4 * HUGE - (aligned + 2 * HUGE));
	if (madvise(aligned, 2 * HUGE, MADV_HUGEPAGE))
		return NULL;
	memset(aligned, 0x5a, 2 * HUGE);
	if (huge_in(aligned) == 2 * (long long)HUGE >> 10)
		return aligned;
	munmap(aligned, 2 * HUGE);
	return NULL;
}

static int huge_transparent(void)
{
	int fd = fifo_open(0, O_RDWR);
	uint8_t *p = transparent_pages();
	struct job j, k;

	if (fd < 0)
		return KTAP_FAIL;
	if (!p)
		return ktap_skip("the kernel makes no huge pages");
	for (enum way way = 0; way < WAYS; way++) {
		if (large(fd, way, p, 2 * HUGE))
			return ktap_fail("%s: huge pages", way_names[way]);
	}
	/* Broken up while requests are in flight: the pages stay the same ones. */
	memset(p, 0x5a, 2 * HUGE);
	if (job_start(&j, WAY_AIO, fd, JOB_READ, p + HUGE - 50, 100) ||
	    job_start(&k, WAY_AIO, fd, JOB_READ, p + 3 * PAGE, 100) ||
	    mprotect(p + HUGE, PAGE, PROT_READ) || madvise(p + PAGE, PAGE, MADV_DONTNEED) ||
	    munmap(p + 2 * HUGE - PAGE, PAGE) || put(fd, 100, 1) ||
	    !ended_with(job_end(&j), 100, "read across two huge pages") || put(fd, 100, 2) ||
	    !ended_with(job_end(&k), 100, "read into a huge page") ||
	    fifo_verify(p + HUGE - 50, 100, 1, 0) || fifo_verify(p + 3 * PAGE, 100, 2, 0))
		return ktap_fail("huge pages that were split");
	return KTAP_PASS;
}

/*
 * What the hardware has written is to be kept. Nobody else knows that the page
 * has changed: here it is one that the kernel may throw away as long as it has
 * not (MADV_FREE), and is then told to throw away.
 */
static int dirty(void)
{
	int fd = fifo_open(0, O_RDWR);
	cpu_set_t one;

	if (fd < 0)
		return KTAP_FAIL;
	/* The kernel collects such pages in lists of each CPU. */
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	for (enum way way = 0; way < WAYS; way++) {
		uint8_t *p = pages(1), *control = pages(1);

		memset(p, 0x5a, PAGE);
		memset(control, 0x5a, PAGE);
		if (madvise(p, PAGE, MADV_FREE) || madvise(control, PAGE, MADV_FREE))
			return ktap_skip("MADV_FREE: %s", strerror(errno));
		if (put(fd, 100, way) ||
		    !ended_with(job_do(way, fd, JOB_READ, p + 7, 100), 100, way_names[way]))
			return KTAP_FAIL;
		if (madvise(p, PAGE, MADV_PAGEOUT) || madvise(control, PAGE, MADV_PAGEOUT))
			return ktap_skip("MADV_PAGEOUT: %s", strerror(errno));
		if (fifo_verify(p + 7, 100, way, 0))
			return ktap_fail("%s: what was read has been thrown away: the page was not marked dirty",
					 way_names[way]);
		if (!fifo_all(control, 0, PAGE))
			return ktap_skip("the kernel does not throw clean pages away");
		munmap(p, PAGE);
		munmap(control, PAGE);
	}
	return KTAP_PASS;
}

/* A page of a mapping that the kernel has made for itself: NAME of /proc/self/maps. */
static void *special(const char *name)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long start;
	void *found = NULL;
	char line[256];

	while (f && fgets(line, sizeof(line), f)) {
		if (strstr(line, name) && sscanf(line, "%lx-", &start) == 1) {
			found = (void *)start;
			break;
		}
	}
	if (f)
		fclose(f);
	return found;
}

struct address {
	const char *name;
	uint8_t *p;
	bool readable;	/* a write from it is all right */
};

#define ADDRESSES	10

/* Addresses that are none, or not for reading into. */
static int addresses(struct address *a)
{
	uint8_t *p = pages_at(FAR, 8, PROT_READ | PROT_WRITE), *beyond;
	int fd = memory_file(1, MFD_CLOEXEC), n = 0;

	memset(p, 0x33, 8 * PAGE);
	a[n++] = (struct address){ .name = "NULL", .p = NULL };
	munmap(p, PAGE);
	a[n++] = (struct address){ .name = "unmapped", .p = p };
	mprotect(p + 2 * PAGE, PAGE, PROT_NONE);
	a[n++] = (struct address){ .name = "PROT_NONE", .p = p + 2 * PAGE };
	mprotect(p + 4 * PAGE, PAGE, PROT_READ);
	a[n++] = (struct address){ .name = "read only", .p = p + 4 * PAGE, .readable = true };
	beyond = fd < 0 ? NULL : map_file(fd, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	if (beyond)
		a[n++] = (struct address){ .name = "behind a file's end", .p = beyond + PAGE };
	a[n++] = (struct address){ .name = "the kernel's", .p = (void *)0xffffffff81000000ul };
	a[n++] = (struct address){ .name = "not canonical", .p = (void *)0x8000000000001000ul };
	a[n++] = (struct address){ .name = "the last one", .p = (void *)-1ul };
	if (special("[vvar]"))
		a[n++] = (struct address){ .name = "vvar, which has no pages", .p = special("[vvar]") };
	if (special("[vdso]"))
		a[n++] = (struct address){ .name = "the vdso", .p = special("[vdso]"), .readable = true };
	return n;
}

/* EFAULT in the first byte: nothing is written, and nothing is taken out. */
static int bad_addresses(void)
{
	int fd = fifo_open(0, O_RDWR), n;
	struct address a[ADDRESSES];

	if (fd < 0)
		return KTAP_FAIL;
	n = addresses(a);
	for (int i = 0; i < n; i++) {
		for (enum way way = 0; way < WAYS; way++) {
			char what[128];
			uint8_t copy[100];
			ssize_t want = a[i].readable ? 100 : -EFAULT;

			snprintf(what, sizeof(what), "%s: write from address %s", way_names[way], a[i].name);
			if (!ended_with(job_do(way, fd, JOB_WRITE, a[i].p, 100), want, what))
				return KTAP_FAIL;
			if (want > 0 && (fifo_read_all(fd, copy, 100) || memcmp(copy, a[i].p, 100)))
				return ktap_fail("%s: other bytes", what);
			if (fifo_info(fd).fill)
				return ktap_fail("%s: %u bytes in the FIFO", what, fifo_info(fd).fill);
			snprintf(what, sizeof(what), "%s: read into address %s", way_names[way], a[i].name);
			if (put(fd, 100, 1) || !ended_with(job_do(way, fd, JOB_READ, a[i].p, 100), -EFAULT, what))
				return KTAP_FAIL;
			if (take(fd, 100, 1, 0))
				return ktap_fail("%s: the bytes are lost", what);
		}
	}
	return KTAP_PASS;
}

/* Two pages, of which the second one can't be used. */
static uint8_t *half_bad(int kind)
{
	uint8_t *p = pages_at(FAR, 2, PROT_READ | PROT_WRITE);

	memset(p, 0x33, 2 * PAGE);
	if (kind == 0)
		munmap(p + PAGE, PAGE);
	else
		mprotect(p + PAGE, PAGE, kind == 1 ? PROT_NONE : PROT_READ);
	return p;
}

/* A bad address behind good ones: the count says how far it went. */
static int partly_bad(void)
{
	static const char *const kinds[] = { "unmapped", "PROT_NONE", "read only" };
	int fd = fifo_open(0, O_RDWR);
	uint8_t good[100];

	if (fd < 0)
		return KTAP_FAIL;
	for (enum way way = 0; way < WAYS; way++) {
		for (int kind = 0; kind < 3; kind++) {
			uint8_t *p = half_bad(kind) + PAGE - 100;
			struct iovec v[] = { { good, 50 }, { p + 100, 20 }, { good + 50, 50 } };
			struct iovec empty[] = { { p + 100, 0 }, { good, 50 }, { (void *)1, 0 } };
			struct iovec first[] = { { good, 0 }, { p + 100, 20 }, { good, 50 } };
			char what[128];

			snprintf(what, sizeof(what), "%s: %s", way_names[way], kinds[kind]);
			if (kind != 2) {
				fifo_fill(p, 100, 5, 0);
				if (!ended_with(job_do(way, fd, JOB_WRITE, p, 200), 100, what) || take(fd, 100, 5, 0))
					return ktap_fail("%s: write", what);
				fifo_fill(good, 50, 6, 0);
				if (!ended_with(job_dov(way, fd, JOB_WRITE, v, 3), 50, what) || take(fd, 50, 6, 0))
					return ktap_fail("%s: write of a vector", what);
				if (!ended_with(job_dov(way, fd, JOB_WRITE, first, 3), -EFAULT, what))
					return ktap_fail("%s: write of a vector, its first byte", what);
			}
			if (put(fd, 200, 7) || !ended_with(job_do(way, fd, JOB_READ, p, 200), 100, what) ||
			    fifo_verify(p, 100, 7, 0) || take(fd, 100, 7, 100))
				return ktap_fail("%s: read", what);
			if (put(fd, 120, 8) || !ended_with(job_dov(way, fd, JOB_READ, v, 3), 50, what) ||
			    fifo_verify(good, 50, 8, 0) || take(fd, 70, 8, 50))
				return ktap_fail("%s: read of a vector", what);
			if (put(fd, 50, 9) || !ended_with(job_dov(way, fd, JOB_READ, first, 3), -EFAULT, what) ||
			    !ended_with(job_dov(way, fd, JOB_READ, empty, 3), 50, what) ||
			    fifo_verify(good, 50, 9, 0))
				return ktap_fail("%s: read of a vector, its first byte", what);
			/* What is not needed may be bad. */
			if (put(fd, 60, 10) || !ended_with(job_do(way, fd, JOB_READ, p, 200), 60, what) ||
			    fifo_verify(p, 60, 10, 0))
				return ktap_fail("%s: read of less", what);
			munmap(p + 100 - PAGE, 2 * PAGE);
		}
	}
	return KTAP_PASS;
}

/* An iovec array that is itself at a bad address; nothing else to do with it is the driver's. */
static int bad_vectors(void)
{
	int fd = fifo_open(0, O_RDWR);
	struct iovec *v = (void *)half_bad(0);
	struct iovec *last = v + PAGE / sizeof(*v) - 1;

	if (fd < 0)
		return KTAP_FAIL;
	*last = (struct iovec){ v, 10 };
	if (writev(fd, last, 2) != -1 || errno != EFAULT || readv(fd, last, 2) != -1 || errno != EFAULT)
		return ktap_fail("half of the vectors: %s", strerror(errno));
	if (writev(fd, last, 1025) != -1 || errno != EINVAL || readv(fd, last, 1025) != -1 || errno != EINVAL)
		return ktap_fail("too many vectors: %s", strerror(errno));
	*last = (struct iovec){ v, (size_t)-1 };
	if (writev(fd, last, 1) != -1 || errno != EINVAL || readv(fd, last, 1) != -1 || errno != EINVAL)
		return ktap_fail("a negative length: %s", strerror(errno));
	if (fifo_info(fd).fill)
		return ktap_fail("%u bytes in the FIFO", fifo_info(fd).fill);
	return KTAP_PASS;
}

/* Neighbouring mappings of several kinds are one buffer. */
static int across_mappings(void)
{
	int fd = fifo_open(0, O_RDWR), file = memory_file(1, MFD_CLOEXEC), result = KTAP_PASS;
	uint8_t *p = pages(8);
	void *shared = mmap(p + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
	void *private = mmap(p + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file, 0);

	if (fd < 0 || file < 0 || shared == MAP_FAILED || private == MAP_FAILED)
		return ktap_fail("mappings: %s", strerror(errno));
	/* The file's page is written twice by memset, and read once through each mapping. */
	for (enum way way = 0; way < WAYS && !result; way++) {
		memset(p, 0x5a, 8 * PAGE);
		if (put(fd, 6 * PAGE, 3) ||
		    !ended_with(job_do(way, fd, JOB_READ, p + 700, 6 * PAGE), 6 * PAGE, way_names[way]) ||
		    fifo_verify(p + 700, 6 * PAGE, 3, 0) ||
		    !untouched(p, 8 * PAGE, 700, 700 + 6 * PAGE, 0x5a, way_names[way]))
			result = ktap_fail("%s: read", way_names[way]);
		else if (!ended_with(job_do(way, fd, JOB_WRITE, p + 700, 6 * PAGE), 6 * PAGE, way_names[way]) ||
			 take(fd, 6 * PAGE, 3, 0))
			result = ktap_fail("%s: write", way_names[way]);
	}
	return result;
}

/* Waits until the reads, or writes, of a job are in the driver's hands. */
static int in_flight(const char *ring, long long n)
{
	return fifo_wait_flight(0, ring, n, "a request to be in flight");
}

/* The ways in which a request that can't be served yet is in the driver's hands. */
static const enum way pending_ways[] = { WAY_SYNC, WAY_AIO };

/* Does something with the memory of a read that is in flight, and lets it complete with 100 bytes. */
static int while_reading(int fd, enum way way, uint8_t *p, int (*meanwhile)(uint8_t *p))
{
	struct job j;

	if (job_start(&j, way, fd, JOB_READ, p, 100) || in_flight("rx", 1))
		return -1;
	if (meanwhile(p))
		return -1;
	return put(fd, 100, 1) || !ended_with(job_end(&j), 100, way_names[way]) ? -1 : 0;
}

struct forked {
	uint8_t *p;
	int gate, changed;
};

static int fork_child(void *arg)
{
	struct forked *f = arg;

	if (!fifo_all(f->p, 'a', PAGE))
		return ktap_fail("the child does not see what was there at the fork");
	memset(f->p, 'c', PAGE);
	fifo_gate_open(f->changed, 1);
	if (fifo_gate_pass(f->gate, "the parent's read"))
		return KTAP_FAIL;
	if (!fifo_all(f->p, 'c', PAGE))
		return ktap_fail("the parent's data have arrived in the child");
	return KTAP_PASS;
}

/*
 * After a fork parent and child have the same pages, until one of them writes.
 * The page that the hardware writes to must be the parent's, whoever writes
 * first.
 */
static int fork_reading(void)
{
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0)
		return KTAP_FAIL;
	for (size_t i = 0; i < 2 * FIFO_ARRAY_SIZE(pending_ways); i++) {
		enum way way = pending_ways[i / 2];
		struct forked f = { .p = pages(1), .gate = fifo_gate(), .changed = fifo_gate() };
		bool parent_first = i % 2;
		struct job j;
		pid_t pid;

		memset(f.p, 'a', PAGE);
		if (job_start(&j, way, fd, JOB_READ, f.p + 10, 100) || in_flight("rx", 1))
			return KTAP_FAIL;
		pid = fifo_fork(fork_child, &f);
		if (parent_first)
			f.p[2000] = 'p';
		if (fifo_gate_pass(f.changed, "the child to write to its page"))
			return KTAP_FAIL;
		f.p[2000] = 'p';
		if (put(fd, 100, i) || !ended_with(job_end(&j), 100, way_names[way]))
			return KTAP_FAIL;
		if (fifo_verify(f.p + 10, 100, i, 0) || f.p[2000] != 'p' || f.p[9] != 'a' || f.p[110] != 'a')
			return ktap_fail("%s: the data have not arrived in the parent's page", way_names[way]);
		fifo_gate_open(f.gate, 1);
		if (fifo_reap_passed(pid, "the child"))
			return ktap_fail("%s: the child's page", way_names[way]);
	}
	return KTAP_PASS;
}

static int scribble(void *arg)
{
	memset(arg, 'c', PAGE);
	return KTAP_PASS;
}

/* Fills the FIFO, with stream 50; returns its depth. */
static size_t fill_up(int fd)
{
	size_t depth = fifo_info(fd).depth;

	return put(fd, depth, 50) ? 0 : depth;
}

/* What a child does to its page is not what the parent writes. */
static int fork_writing(void)
{
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0)
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(pending_ways); i++) {
		size_t depth = fill_up(fd);
		uint8_t *p = pages(1);
		struct job j;

		fifo_fill(p, PAGE, 51, 0);
		if (!depth || job_start(&j, pending_ways[i], fd, JOB_WRITE, p, PAGE) || in_flight("tx", 1) ||
		    fifo_reap_passed(fifo_fork(scribble, p), "the child") || take(fd, depth, 50, 0) ||
		    !ended_with(job_end(&j), PAGE, way_names[pending_ways[i]]) || take(fd, PAGE, 51, 0))
			return ktap_fail("%s", way_names[pending_ways[i]]);
	}
	return KTAP_PASS;
}

#define NEW	256

static uint8_t *unmapped_area;

/* New memory takes the place of the old, and other memory what was freed. */
static int replace(uint8_t *p)
{
	uint8_t *page = (uint8_t *)((uintptr_t)p & ~(PAGE - 1));

	munmap(page, PAGE);
	pages_at(page, 1, PROT_READ | PROT_WRITE);
	memset(page, 0x5a, PAGE);
	unmapped_area = pages(NEW);
	memset(unmapped_area, 0x5a, NEW * PAGE);
	return 0;
}

/* A read whose memory is no longer there ends well, and writes nowhere. */
static int unmap_reading(void)
{
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0)
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(pending_ways); i++) {
		uint8_t *p = pages(1);

		memset(p, 'a', PAGE);
		if (while_reading(fd, pending_ways[i], p + 40, replace))
			return KTAP_FAIL;
		if (!fifo_all(p, 0x5a, PAGE) || !fifo_all(unmapped_area, 0x5a, NEW * PAGE))
			return ktap_fail("%s: the data have arrived in memory that is not the request's",
					 way_names[pending_ways[i]]);
		munmap(unmapped_area, NEW * PAGE);
	}
	return KTAP_PASS;
}

/* A write takes the bytes of when it was submitted, even if nobody else has them any more. */
static int unmap_writing(void)
{
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0)
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(pending_ways); i++) {
		size_t depth = fill_up(fd);
		uint8_t *p = pages(1);
		struct job j;

		fifo_fill(p, PAGE, 51, 0);
		if (!depth || job_start(&j, pending_ways[i], fd, JOB_WRITE, p, PAGE) || in_flight("tx", 1))
			return KTAP_FAIL;
		replace(p);
		if (take(fd, depth, 50, 0) || !ended_with(job_end(&j), PAGE, way_names[pending_ways[i]]) ||
		    take(fd, PAGE, 51, 0))
			return ktap_fail("%s", way_names[pending_ways[i]]);
		munmap(unmapped_area, NEW * PAGE);
	}
	return KTAP_PASS;
}

static uint8_t *moved_to;

static int move(uint8_t *p)
{
	void *q = mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, moved_to);

	return q == moved_to ? 0 : -1;
}

/* Memory that moves takes its request's bytes along. */
static int remap_reading(void)
{
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0)
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(pending_ways); i++) {
		uint8_t *p = pages(1);

		moved_to = pages(1);
		memset(p, 'a', PAGE);
		if (while_reading(fd, pending_ways[i], p, move) || fifo_verify(moved_to, 100, 1, 0) ||
		    !fifo_all(moved_to + 100, 'a', PAGE - 100))
			return ktap_fail("%s: memory that was moved", way_names[pending_ways[i]]);
	}
	return KTAP_PASS;
}

static int discard(uint8_t *p)
{
	return madvise(p, PAGE, MADV_DONTNEED);
}

static int lock_out(uint8_t *p)
{
	return mprotect(p, PAGE, PROT_READ);
}

/* The kernel is asked to move and to take away what it can. */
static int shake(uint8_t *p)
{
	madvise(p, PAGE, MADV_COLD);
	madvise(p, PAGE, MADV_PAGEOUT);
	spit("/proc/sys/vm/compact_memory", "1");
	return 0;
}

static int advise_reading(void)
{
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0)
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(pending_ways); i++) {
		const char *name = way_names[pending_ways[i]];
		uint8_t *p = pages(1), *q = pages(1), *r = pages(1);

		memset(p, 'a', PAGE);
		memset(q, 'a', PAGE);
		memset(r, 'a', PAGE);
		if (while_reading(fd, pending_ways[i], p, discard) || !fifo_all(p, 0, PAGE))
			return ktap_fail("%s: memory that was discarded is not empty", name);
		if (while_reading(fd, pending_ways[i], q, lock_out) || fifo_verify(q, 100, 1, 0))
			return ktap_fail("%s: memory that was made read only meanwhile", name);
		if (while_reading(fd, pending_ways[i], r, shake) || fifo_verify(r, 100, 1, 0) ||
		    !fifo_all(r + 100, 'a', PAGE - 100))
			return ktap_fail("%s: memory that the kernel would like to move", name);
	}
	return KTAP_PASS;
}

static int punched;

static int punch(uint8_t *p)
{
	(void)p;
	return fallocate(punched, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE);
}

static int cut(uint8_t *p)
{
	(void)p;
	return ftruncate(punched, 0) || ftruncate(punched, PAGE);
}

/* A file's page that was taken out of the file: what arrives in it is not the file's. */
static int truncate_reading(void)
{
	int (*const how[])(uint8_t *) = { punch, cut };
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0)
		return KTAP_FAIL;
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(how); i++) {
		uint8_t *p;

		punched = memory_file(1, MFD_CLOEXEC);
		p = punched < 0 ? NULL : map_file(punched, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
		if (!p)
			return ktap_fail("memfd: %s", strerror(errno));
		memset(p, 'a', PAGE);
		if (while_reading(fd, WAY_AIO, p, how[i]))
			return KTAP_FAIL;
		if (!fifo_all(p, 0, PAGE))
			return ktap_fail("bytes have arrived in a file that was %s", i ? "cut off" : "punched");
		close(punched);
	}
	return KTAP_PASS;
}

/* Two requests with the same memory: the later one's bytes stay. */
static int same_buffer(void)
{
	int fd = fifo_open(0, O_RDWR);
	uint8_t *p = pages(2);
	struct job a, b;

	if (fd < 0)
		return KTAP_FAIL;
	if (job_start(&a, WAY_AIO, fd, JOB_READ, p, 100) || job_start(&b, WAY_AIO, fd, JOB_READ, p, 100) ||
	    put(fd, 100, 1) || !ended_with(job_end(&a), 100, "first read") || fifo_verify(p, 100, 1, 0) ||
	    put(fd, 100, 2) || !ended_with(job_end(&b), 100, "second read") || fifo_verify(p, 100, 2, 0))
		return ktap_fail("two reads");
	fifo_fill(p, 2 * PAGE, 3, 0);
	if (job_start(&a, WAY_AIO, fd, JOB_WRITE, p, PAGE) || job_start(&b, WAY_AIO, fd, JOB_WRITE, p + 50, PAGE) ||
	    !ended_with(job_end(&a), PAGE, "first write") || !ended_with(job_end(&b), PAGE, "second write") ||
	    take(fd, PAGE, 3, 0) || take(fd, PAGE, 3, 50))
		return ktap_fail("two writes");
	/* Out of it and into it, at the same time. */
	if (job_start(&a, WAY_AIO, fd, JOB_READ, p, 2 * PAGE) || job_start(&b, WAY_AIO, fd, JOB_WRITE, p, 100) ||
	    !ended_with(job_end(&b), 100, "write") || !ended_with(job_end(&a), 100, "read") ||
	    fifo_verify(p, 2 * PAGE, 3, 0))
		return ktap_fail("a read and a write");
	return KTAP_PASS;
}

/* Segments of a vector may overlap. */
static int overlap(void)
{
	int fd = fifo_open(0, O_RDWR);
	uint8_t *p = pages(3), want[250], got[250];

	if (fd < 0)
		return KTAP_FAIL;
	for (enum way way = 0; way < WAYS; way++) {
		struct iovec v[] = { { p + PAGE - 50, 100 }, { p + PAGE - 50, 100 }, { p + PAGE, 50 } };

		fifo_fill(p, 3 * PAGE, 4, 0);
		memcpy(want, p + PAGE - 50, 100);
		memcpy(want + 100, want, 100);
		memcpy(want + 200, p + PAGE, 50);
		if (!ended_with(job_dov(way, fd, JOB_WRITE, v, 3), 250, way_names[way]) ||
		    fifo_read_all(fd, got, 250) || memcmp(want, got, 250))
			return ktap_fail("%s: write from segments that overlap", way_names[way]);
		memset(p, 0x5a, 3 * PAGE);
		if (put(fd, 250, 5) || !ended_with(job_dov(way, fd, JOB_READ, v, 3), 250, way_names[way]) ||
		    fifo_verify(p + PAGE - 50, 50, 5, 100) || fifo_verify(p + PAGE, 50, 5, 200) ||
		    !untouched(p, 3 * PAGE, PAGE - 50, PAGE + 50, 0x5a, way_names[way]))
			return ktap_fail("%s: read into segments that overlap", way_names[way]);
	}
	return KTAP_PASS;
}

struct resolver {
	int uffd;
	unsigned int faults, pages;
	uint8_t *source;
};

/* Gives each page that is missed a copy of the source's. */
static void *resolve(void *arg)
{
	struct resolver *r = arg;
	struct uffd_msg msg;

	while (r->faults < r->pages) {
		struct uffdio_copy copy = { .src = (uintptr_t)r->source, .len = PAGE };

		if (fifo_wait(r->uffd, POLLIN, "a fault") < 0 || read(r->uffd, &msg, sizeof(msg)) != sizeof(msg))
			break;
		copy.dst = msg.arg.pagefault.address & ~(PAGE - 1);
		if (ioctl(r->uffd, UFFDIO_COPY, &copy))
			break;
		r->faults++;
	}
	return NULL;
}

/* Pages that another thread of the program brings when they are missed. */
static int user_faults(void)
{
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0)
		return KTAP_FAIL;
	for (size_t i = 0; i < 2 * FIFO_ARRAY_SIZE(pending_ways); i++) {
		enum way way = pending_ways[i / 2];
		struct resolver r = { .uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), .pages = 2, .source = pages(1) };
		struct uffdio_api api = { .api = UFFD_API };
		struct uffdio_register reg = { .range.len = 2 * PAGE, .mode = UFFDIO_REGISTER_MODE_MISSING };
		uint8_t *p = pages(2);
		pthread_t thread;
		bool ok;

		reg.range.start = (uintptr_t)p;
		if (r.uffd < 0 || ioctl(r.uffd, UFFDIO_API, &api) || ioctl(r.uffd, UFFDIO_REGISTER, &reg))
			return ktap_skip("userfaultfd: %s", strerror(errno));
		fifo_fill(r.source, PAGE, 8, 0);
		pthread_create(&thread, NULL, resolve, &r);
		if (i % 2)
			ok = put(fd, PAGE, 9) == 0 &&
			     ended_with(job_do(way, fd, JOB_READ, p + 1000, PAGE), PAGE, way_names[way]) &&
			     !fifo_verify(p, 1000, 8, 0) && !fifo_verify(p + 1000, PAGE, 9, 0) &&
			     !fifo_verify(p + 1000 + PAGE, PAGE - 1000, 8, 1000);
		else
			ok = ended_with(job_do(way, fd, JOB_WRITE, p + 1000, PAGE), PAGE, way_names[way]) &&
			     !take(fd, PAGE - 1000, 8, 1000) && !take(fd, 1000, 8, 0);
		pthread_join(thread, NULL);
		close(r.uffd);
		if (!ok || r.faults != 2)
			return ktap_fail("%s: %s, %u faults", way_names[way], i % 2 ? "read" : "write", r.faults);
	}
	return KTAP_PASS;
}

/* Nobody in particular, with no memory to lock. */
static int unprivileged_child(void *arg)
{
	struct rlimit none = { 0, 0 };
	int fd = *(int *)arg;

	if (setrlimit(RLIMIT_MEMLOCK, &none) || setgid(65534) || setuid(65534))
		return ktap_fail("no privileges less: %s", strerror(errno));
	for (enum way way = 0; way <= WAY_AIO; way++) {
		uint8_t *p = pages(16);

		fifo_fill(p, 15 * PAGE, 1, 0);
		if (!ended_with(job_do(way, fd, JOB_WRITE, p, 15 * PAGE), 15 * PAGE, way_names[way]) ||
		    !ended_with(job_do(way, fd, JOB_READ, p + 1, 15 * PAGE), 15 * PAGE, way_names[way]) ||
		    fifo_verify(p + 1, 15 * PAGE, 1, 0))
			return KTAP_FAIL;
	}
	return KTAP_PASS;
}

/* Pages are pinned for the time of a request, which is no locking of memory. */
static int memory_limit(void)
{
	int fd = fifo_open(0, O_RDWR);

	if (fd < 0)
		return KTAP_FAIL;
	return fifo_reap_passed(fifo_fork(unprivileged_child, &fd), "an unprivileged process") ? KTAP_FAIL : KTAP_PASS;
}

/* The kernel's own memory. */

#define SWEEP	500	/* more allocations than this nothing makes */

/* Answers to a program for which there was no memory. EFAULT: that of a copy from the program's memory. */
static bool short_of_memory(ssize_t n)
{
	return n == -ENOMEM || n == -EAGAIN || n == -EFAULT;
}

/* Submits a job in this thread, with the n-th allocation failing. */
static ssize_t submit_failing(struct job *j, int nth, unsigned int n, bool *failed)
{
	ssize_t result;
	int err = 0;

	fail_nth(nth, n);
	if (j->way == WAY_SYNC) {
		result = j->direction == JOB_WRITE ? writev(j->fd, j->iov, j->vectors) : readv(j->fd, j->iov, j->vectors);
		if (result < 0)
			result = -errno;
	} else {
		err = job_submit(j);
		result = err;
	}
	*failed = failed_nth(nth);
	if (j->way != WAY_SYNC && !err)
		return job_end(j);
	job_forget(j);
	return result;
}

/*
 * Each allocation of a read or write fails once. It ends well or says that
 * there was no memory, it takes or leaves no byte of which it says nothing, and
 * all goes on.
 */
static int sweep(int fd, int nth, enum way way, enum job_direction direction)
{
	const char *what = direction == JOB_WRITE ? "write" : "read";
	unsigned int n, refused = 0;

	for (n = 1; n < SWEEP; n++) {
		uint8_t *p = pages(4);
		struct iovec v[] = { { p + 1000, 3000 }, { p + 4000, 6000 } };
		uint32_t before, after;
		bool failed = false;
		struct job j;
		ssize_t got;

		if (direction == JOB_WRITE)
			fifo_fill(p + 1000, 9000, n, 0);
		else if (put(fd, 9000, n))
			return -1;
		job_init(&j, way, fd, direction, v, 2);
		if (job_prepare(&j))
			return -1;
		before = fifo_info(fd).fill;
		got = submit_failing(&j, nth, n, &failed);
		after = fifo_info(fd).fill;
		if (got < 0 && !(failed && short_of_memory(got))) {
			ktap_diag("%s, %s, allocation %u: %zd %s", way_names[way], what, n, got, strerror(-got));
			return -1;
		}
		if ((got == 0 || got > 9000) || (!failed && got != 9000)) {
			ktap_diag("%s, %s, allocation %u: %zd of 9000", way_names[way], what, n, got);
			return -1;
		}
		refused += got < 0;
		if (got < 0)
			got = 0;
		if ((ssize_t)after - before != (direction == JOB_WRITE ? got : -got)) {
			ktap_diag("%s, %s, allocation %u: %zd bytes, but the FIFO has %u, and had %u",
				  way_names[way], what, n, got, after, before);
			return -1;
		}
		if (direction == JOB_WRITE ? take(fd, got, n, 0) :
		    fifo_verify(p + 1000, got, n, 0) || take(fd, 9000 - got, n, got)) {
			ktap_diag("%s, %s, allocation %u: other bytes", way_names[way], what, n);
			return -1;
		}
		munmap(p, 4 * PAGE);
		if (!failed)
			break;
	}
	if (n == SWEEP || n == 1 || !refused) {
		ktap_diag("%s, %s: %u allocations, %u refused", way_names[way], what, n - 1, refused);
		return -1;
	}
	return 0;
}

static int no_memory(enum way way)
{
	int fd = fifo_open(0, O_RDWR), nth = fail_nth_open();

	if (fd < 0)
		return KTAP_FAIL;
	if (nth < 0)
		return ktap_skip("this kernel has no fail-nth");
	return sweep(fd, nth, way, JOB_WRITE) || sweep(fd, nth, way, JOB_READ) ? KTAP_FAIL : KTAP_PASS;
}

static int no_memory_sync(void)
{
	return no_memory(WAY_SYNC);
}

static int no_memory_aio(void)
{
	return no_memory(WAY_AIO);
}

static int no_memory_uring(void)
{
	return no_memory(WAY_URING);
}

/* The same of open, of the ioctls, and of poll. */
static int no_memory_calls(void)
{
	int nth = fail_nth_open(), own = fifo_open(0, O_RDWR);
	struct fifo_aio_thresholds thresholds;
	struct fifo_aio_info info;
	bool failed = true;

	if (own < 0)
		return KTAP_FAIL;
	if (nth < 0)
		return ktap_skip("this kernel has no fail-nth");
	for (unsigned int n = 1; failed; n++) {
		int fd;

		fail_nth(nth, n);
		fd = open("/dev/fifo0", O_RDWR | O_CLOEXEC);
		failed = failed_nth(nth);
		if (fd < 0 && (!failed || !short_of_memory(-errno)))
			return ktap_fail("open, allocation %u: %s", n, strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	failed = true;
	for (unsigned int n = 1; failed; n++) {
		int err;

		fail_nth(nth, n);
		err = ioctl(own, FIFO_AIO_GET_INFO, &info) || ioctl(own, FIFO_AIO_GET_THRESHOLDS, &thresholds) ||
		      ioctl(own, FIFO_AIO_SET_THRESHOLDS, &thresholds) || ioctl(own, FIFO_AIO_RESET);
		failed = failed_nth(nth);
		if (err && (!failed || !short_of_memory(-errno)))
			return ktap_fail("ioctls, allocation %u: %s", n, strerror(errno));
	}
	failed = true;
	for (unsigned int n = 1; failed; n++) {
		struct pollfd p = { .fd = own, .events = POLLIN | POLLOUT };
		int ready;

		fail_nth(nth, n);
		ready = poll(&p, 1, 0);
		failed = failed_nth(nth);
		if (ready != 1 && (!failed || !short_of_memory(-errno)))
			return ktap_fail("poll, allocation %u: %d, %s", n, ready, strerror(errno));
		if (ready == 1 && p.revents != POLLOUT)
			return ktap_fail("poll, allocation %u: events %#x", n, p.revents);
	}
	return KTAP_PASS;
}

/*
 * Where the DMA-API's debugging is in the kernel's text: where it lacks memory
 * it switches itself off, and counts mappings wrong from there on.
 */
static bool dma_debug_text(unsigned long *start, unsigned long *end)
{
	FILE *f = fopen("/proc/kallsyms", "re");
	unsigned long address;
	char name[128];

	*start = ULONG_MAX;
	*end = 0;
	while (f && fscanf(f, "%lx %*c %127s%*[^\n]", &address, name) == 2) {
		if (strchr(name, '.')) /* the unlikely parts are elsewhere */
			continue;
		if (strncmp(name, "debug_dma_", 10) && strcmp(name, "add_dma_entry") && strcmp(name, "dma_entry_alloc"))
			continue;
		*start = address < *start ? address : *start;
		*end = address > *end ? address : *end;
	}
	if (f)
		fclose(f);
	*end += PAGE; /* the last one has a length, too */
	return *start < *end;
}

/*
 * One in five allocations fails that has the driver's code on its stack, in
 * whatever context: so in interrupts and workers too, where nobody can be told.
 */
static int no_memory_anywhere(void)
{
	static const char *const injectors[] = { INJECTORS };
	unsigned int refused = 0, rounds = fifo_rounds(2000);
	int fd = fifo_open(0, O_RDWR), result = KTAP_PASS;
	char start[32], end[32], reject_start[32] = "0", reject_end[32] = "0", address[32] = "";
	unsigned long text, debug, debug_end;

	if (fd < 0)
		return KTAP_FAIL;
	slurp("/sys/module/fifo_aio/sections/.text", address, sizeof(address));
	text = strtoul(address, NULL, 16);
	if (access("/sys/kernel/debug/failslab/require-start", F_OK))
		return ktap_skip("this kernel can't have allocations of one module fail");
	if (!text)
		return ktap_skip("no address of the module");
	snprintf(start, sizeof(start), "%#lx", text);
	snprintf(end, sizeof(end), "%#lx", text + 0x10000);
	if (dma_debug_text(&debug, &debug_end)) {
		snprintf(reject_start, sizeof(reject_start), "%#lx", debug);
		snprintf(reject_end, sizeof(reject_end), "%#lx", debug_end);
	}
	close(fail_nth_open());
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(injectors) - 1; i++) {
		injector_set(injectors[i], "require-start", start);
		injector_set(injectors[i], "require-end", end);
		injector_set(injectors[i], "reject-start", reject_start);
		injector_set(injectors[i], "reject-end", reject_end);
		injector_set(injectors[i], "stacktrace-depth", "32");
		injector_set(injectors[i], "interval", "1");
		injector_set(injectors[i], "times", "-1");
		injector_set(injectors[i], "probability", "20");
	}
	for (unsigned int i = 0; i < rounds && !result; i++) {
		enum way way = i % WAYS;
		uint8_t *p = pages(4), *q = pages(4);
		ssize_t n, m;

		fifo_fill(p, 9000, i, 0);
		n = job_do(way, fd, JOB_WRITE, p, 9000);
		refused += n < 0;
		if (n < 0 && !short_of_memory(n))
			result = ktap_fail("write %u: %zd %s", i, n, strerror(-n));
		for (ssize_t done = 0; done < n && !result; done += m) {
			m = job_do(way, fd, JOB_READ, q, n - done);
			if (m == 0 || (m < 0 && !short_of_memory(m)))
				result = ktap_fail("read %u: %zd %s", i, m, strerror(-m));
			refused += m < 0;
			if (m < 0)
				m = 0;
			else if (fifo_verify(q, m, i, done))
				result = ktap_fail("read %u: other bytes", i);
		}
		munmap(p, 4 * PAGE);
		munmap(q, 4 * PAGE);
	}
	for (size_t i = 0; i < FIFO_ARRAY_SIZE(injectors) - 1; i++) {
		injector_set(injectors[i], "probability", "0");
		injector_set(injectors[i], "require-start", "0");
		injector_set(injectors[i], "require-end", "0xffffffffffffffff");
		injector_set(injectors[i], "reject-start", "0");
		injector_set(injectors[i], "reject-end", "0");
	}
	if (!result && !refused)
		return ktap_fail("no allocation of the driver's has failed");
	return result;
}

/* Memory that can't be mapped for the hardware: more than there are bounce buffers for. */
static int no_mapping(void)
{
	static const enum way ways[] = { WAY_SYNC, WAY_AIO };
	int fd = fifo_open(0, O_RDWR);
	uint8_t *p = pages(2 * HUGE / PAGE);

	if (kernel_number("swiotlb", 0) != 1024)
		return ktap_skip("all memory can be mapped: give the kernel swiotlb=1024,force");
	if (fd < 0)
		return KTAP_FAIL;
	for (size_t i = 0; i < 2 * FIFO_ARRAY_SIZE(ways); i++) {
		enum job_direction direction = i % 2 ? JOB_READ : JOB_WRITE;

		if (!ended_with(job_do(ways[i / 2], fd, direction, p, 2 * HUGE), -ENOMEM, way_names[ways[i / 2]]))
			return KTAP_FAIL;
	}
	return put(fd, PAGE, 1) || take(fd, PAGE, 1, 0) ? KTAP_FAIL : KTAP_PASS;
}

int main(int argc, char **argv)
{
	static const struct ktap_check checks[] = {
		{ "anonymous", anonymous },
		{ "stack", stack },
		{ "data", data },
		{ "locked", locked },
		{ "sysv", sysv },
		{ "shared_anonymous", shared_anonymous },
		{ "untouched_memory", untouched_memory },
		{ "zero_page", zero_page },
		{ "page_cache", page_cache },
		{ "file_stays", file_stays },
		{ "file_holes", file_holes },
		{ "private_file", private_file },
		{ "huge_tlb", huge_tlb },
		{ "huge_file", huge_file },
		{ "huge_transparent", huge_transparent },
		{ "dirty", dirty },
		{ "across_mappings", across_mappings },
		{ "bad_addresses", bad_addresses },
		{ "partly_bad", partly_bad },
		{ "bad_vectors", bad_vectors },
		{ "same_buffer", same_buffer },
		{ "overlap", overlap },
		{ "fork_reading", fork_reading },
		{ "fork_writing", fork_writing },
		{ "unmap_reading", unmap_reading },
		{ "unmap_writing", unmap_writing },
		{ "remap_reading", remap_reading },
		{ "advise_reading", advise_reading },
		{ "truncate_reading", truncate_reading },
		{ "user_faults", user_faults },
		{ "memory_limit", memory_limit },
		{ "no_memory_sync", no_memory_sync },
		{ "no_memory_aio", no_memory_aio },
		{ "no_memory_uring", no_memory_uring },
		{ "no_memory_calls", no_memory_calls },
		{ "no_memory_anywhere", no_memory_anywhere },
		{ "no_mapping", no_mapping },
	};

	return fifo_run(checks, FIFO_ARRAY_SIZE(checks), argc, argv);
}
