// SPDX-License-Identifier: MIT
/*
 * devices - judges from userspace the PCI functions that the machine has
 *
 * The checks look at what the kernel made of the functions (sysfs), at their
 * configuration space, and at their registers, which they map as a driver would.
 * A driver that there is gets them back at the end. The host tells which devices it has attached by a word on
 * the kernel's command line: fifovm.devices=edu,fifo.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "file.h"
#include "ktap.h"

#define DEVICES	"/sys/bus/pci/devices"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof(*(a)))

/* Configuration space (PCI 3.0, chapter 6; PCIe 6.0, chapter 7). */
#define COMMAND			0x04
#define COMMAND_MEMORY		0x0002
#define COMMAND_MASTER		0x0004
#define STATUS			0x06
#define STATUS_CAPABILITIES	0x0010
#define CAPABILITIES		0x34
#define INTERRUPT_PIN		0x3d

#define CAP_POWER	0x01
#define CAP_MSI		0x05
#define CAP_EXPRESS	0x10
#define CAP_MSIX	0x11

#define MSI_ENABLE	0x0001
#define MSI_64BIT	0x0080
#define MSI_MASKING	0x0100

#define MSIX_ENABLE	0x8000
#define MSIX_ENTRIES	0x07ff
#define MSIX_ENTRY	16
#define MSIX_MASKED	1

#define EXPRESS_INTEGRATED	9	/* device type: root complex integrated endpoint */
#define EXPRESS_FLR		(1u << 28)

/* The registers of edu, by QEMU's docs/specs/edu. */
#define EDU_ID		0x00
#define EDU_LIVENESS	0x04
#define EDU_FACTORIAL	0x08
#define EDU_STATUS	0x20
#define EDU_INTERRUPT	0x24
#define EDU_RAISE	0x60
#define EDU_ACK		0x64

/* The registers of the FIFO, by docs/hardware.md. */
#define FIFO_ID			0x00
#define FIFO_VERSION		0x04
#define FIFO_CONTROL		0x10
#define FIFO_CONTROL_ENABLE	1
#define FIFO_SCRATCH		0x18
#define FIFO_ERROR_CAUSE	0x28
#define FIFO_ERROR_DMA		0x04
#define FIFO_TX			0x1100	/* of channel 0 */
#define FIFO_RING_CONTROL	0x00
#define FIFO_RING_RUN		1
#define FIFO_RING_BASE		0x08
#define FIFO_RING_SIZE		0x10
#define FIFO_RING_COMP		0x20
#define FIFO_RING_COMP_SIZE	0x28
#define FIFO_TX_TAIL		0x10000	/* doorbell */

#define IORESOURCE_MEM	0x200

struct function {
	const char *name;
	unsigned int vendor, device, subvendor, subdevice, class, revision;
	uint64_t bar_size[6];	/* by number of the sysfs resource */
	unsigned int msix;	/* vectors */
	bool msi;

	bool expected;
	char address[16];	/* as sysfs names it; "" if it isn't there */
};

static struct function edu = {
	.name = "edu",
	.vendor = 0x1234, .device = 0x11e8, .subvendor = 0x1af4, .subdevice = 0x1100,
	.class = 0x00ff00, .revision = 0x10,
	.bar_size = { 1 << 20 },
	.msi = true,
};

static struct function fifo = {
	.name = "fifo",
	.vendor = 0x1234, .device = 0xf1f0, .subvendor = 0x1234, .subdevice = 1,
	.class = 0xff0000, .revision = 1,
	.bar_size = { [0] = 128 << 10, [4] = 8 << 10 },
	.msix = 5,
};

static struct function *const functions[] = { &edu, &fifo };

/* Files. */

/* Writes text to a file of the function, or of sysfs where it is NULL. */
static int set(const struct function *f, const char *name, const char *text)
{
	char path[128];

	if (f)
		snprintf(path, sizeof(path), DEVICES "/%s/%s", f->address, name);
	else
		snprintf(path, sizeof(path), "%s", name);
	if (!spit(path, text))
		return 0;
	ktap_diag("%s: writing %s: %s", path, text, strerror(errno));
	return -1;
}

/* The number in a file of the function, or -1. */
static long long attribute(const struct function *f, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), DEVICES "/%s/%s", f->address, name);
	return slurp_number(path, -1);
}

/* Finds the function's address. */
static void find(struct function *f)
{
	DIR *d = opendir(DEVICES);
	struct dirent *e;

	f->address[0] = 0;
	while (d && (e = readdir(d))) {
		struct function at = { 0 };

		if (e->d_name[0] == '.' || strlen(e->d_name) >= sizeof(at.address))
			continue;
		strcpy(at.address, e->d_name);
		if (attribute(&at, "vendor") == f->vendor && attribute(&at, "device") == f->device) {
			strcpy(f->address, at.address);
			break;
		}
	}
	if (d)
		closedir(d);
}

/* Takes the function from its driver. */
static int release(const struct function *f)
{
	char path[128];

	snprintf(path, sizeof(path), DEVICES "/%s/driver", f->address);
	return access(path, F_OK) ? 0 : set(f, "driver/unbind", f->address);
}

/* Configuration space. */

static int config_open(const struct function *f)
{
	char path[128];

	snprintf(path, sizeof(path), DEVICES "/%s/config", f->address);
	return open(path, O_RDWR | O_CLOEXEC);
}

/* Reads size bytes; ~0 if that fails, as from a function that isn't there. */
static uint32_t config_read(const struct function *f, int off, int size)
{
	uint32_t v = 0;
	int fd = config_open(f);

	if (fd < 0 || pread(fd, &v, size, off) != size)
		v = ~0u;
	if (fd >= 0)
		close(fd);
	return v;
}

static void config_write(const struct function *f, int off, int size, uint32_t v)
{
	int fd = config_open(f);

	if (fd < 0 || pwrite(fd, &v, size, off) != size)
		ktap_diag("%s: configuration space at %#x: %s", f->name, off, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* Where the capability is; 0 if the function hasn't got it, -1 if the list is broken. */
static int capability(const struct function *f, int id)
{
	int at = config_read(f, CAPABILITIES, 1);

	for (int n = 0; at; n++) {
		if (n == 48 || at < 0x40 || at & 3)
			return -1;
		if (config_read(f, at, 1) == (uint32_t)id)
			return at;
		at = config_read(f, at + 1, 1);
	}
	return 0;
}

/* BARs. */

struct bar {
	volatile uint8_t *base;
	size_t size;
};

static bool bar_map(const struct function *f, int index, struct bar *b)
{
	char path[128];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), DEVICES "/%s/resource%d", f->address, index);
	fd = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st)) {
		ktap_diag("%s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return false;
	}
	b->size = st.st_size;
	b->base = mmap(NULL, b->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (b->base == MAP_FAILED) {
		ktap_diag("%s: mmap: %s", path, strerror(errno));
		return false;
	}
	return true;
}

static void bar_unmap(struct bar *b)
{
	munmap((void *)b->base, b->size);
}

static uint32_t read32(const struct bar *b, size_t off)
{
	return *(volatile uint32_t *)(b->base + off);
}

static void write32(const struct bar *b, size_t off, uint32_t v)
{
	*(volatile uint32_t *)(b->base + off) = v;
}

/* Checks. Each is made of every function that the host has attached. */

static int each(int (*check)(struct function *f))
{
	int failed = 0, checked = 0;

	for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
		struct function *f = functions[i];

		if (!f->expected)
			continue;
		checked++;
		if (!f->address[0]) {
			ktap_diag("%s: isn't there", f->name);
			failed++;
		} else if (check(f) == KTAP_FAIL) {
			failed++;
		}
	}
	if (!checked)
		return ktap_skip("no fifovm.devices= on the command line");
	return failed ? KTAP_FAIL : KTAP_PASS;
}

static int identity_of(struct function *f)
{
	const struct {
		const char *name;
		unsigned int want;
	} t[] = {
		{ "vendor", f->vendor }, { "device", f->device },
		{ "subsystem_vendor", f->subvendor }, { "subsystem_device", f->subdevice },
		{ "class", f->class }, { "revision", f->revision },
	};
	int failed = 0;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		long long got = attribute(f, t[i].name);

		if (got != t[i].want) {
			ktap_diag("%s: %s is %#llx, not %#x", f->name, t[i].name, got, t[i].want);
			failed++;
		}
	}
	return failed ? KTAP_FAIL : KTAP_PASS;
}

static int identity(void)
{
	return each(identity_of);
}

/* The kernel has given each BAR an address, of the right size. */
static int resources_of(struct function *f)
{
	char path[128], buf[4096], *p = buf;
	int failed = 0;

	snprintf(path, sizeof(path), DEVICES "/%s/resource", f->address);
	if (slurp(path, buf, sizeof(buf)) < 0)
		return ktap_fail("%s: %s", path, strerror(errno));
	for (size_t i = 0; i < ARRAY_SIZE(f->bar_size); i++) {
		uint64_t start = strtoull(p, &p, 16);
		uint64_t end = strtoull(p, &p, 16);
		uint64_t flags = strtoull(p, &p, 16);
		uint64_t want = f->bar_size[i], size = end ? end - start + 1 : 0;

		if (size != want) {
			ktap_diag("%s: BAR %zu is %#lx bytes, not %#lx", f->name, i, size, want);
			failed++;
		} else if (want && (!start || start & (want - 1) || !(flags & IORESOURCE_MEM))) {
			ktap_diag("%s: BAR %zu is at %#lx, flags %#lx", f->name, i, start, flags);
			failed++;
		}
	}
	return failed ? KTAP_FAIL : KTAP_PASS;
}

static int resources(void)
{
	return each(resources_of);
}

static int capabilities_of(struct function *f)
{
	int express = capability(f, CAP_EXPRESS), power = capability(f, CAP_POWER);
	int msi = capability(f, CAP_MSI), msix = capability(f, CAP_MSIX);
	unsigned int v;

	if (!(config_read(f, STATUS, 2) & STATUS_CAPABILITIES))
		return ktap_fail("%s: has no capabilities", f->name);
	if (express <= 0 || power <= 0 || msi < 0 || msix < 0)
		return ktap_fail("%s: capabilities: PCIe at %d, power management at %d, MSI at %d, MSI-X at %d",
				 f->name, express, power, msi, msix);
	if ((msi > 0) != f->msi || (msix > 0) != (f->msix > 0))
		return ktap_fail("%s: MSI at %#x, MSI-X at %#x", f->name, msi, msix);
	v = config_read(f, express + 2, 2);
	if ((v & 0xf) != 2 || (v >> 4 & 0xf) != EXPRESS_INTEGRATED)
		return ktap_fail("%s: PCIe capability %#x, not of an integrated endpoint", f->name, v);
	if (!(config_read(f, express + 4, 4) & EXPRESS_FLR))
		return ktap_fail("%s: no function-level reset", f->name);
	v = config_read(f, power + 2, 2) & 7;
	if (v < 2)
		return ktap_fail("%s: power management of version %u", f->name, v);
	if (f->msix) {
		v = (config_read(f, msix + 2, 2) & MSIX_ENTRIES) + 1;
		if (v != f->msix)
			return ktap_fail("%s: %u vectors of MSI-X, not %u", f->name, v, f->msix);
	}
	/* Extended configuration space is there, and has nothing in it. */
	v = config_read(f, 0x100, 4);
	if (v != 0 && v != ~0u)
		return ktap_fail("%s: extended capability %#x", f->name, v);
	return KTAP_PASS;
}

static int capabilities(void)
{
	return each(capabilities_of);
}

/* The firmware tables route pin A of slot N to input 16 + N % 4 of the I/O APIC. */
static int pin_of(struct function *f)
{
	unsigned int slot, pin = config_read(f, INTERRUPT_PIN, 1);
	char path[64], buf[64] = "";
	long long irq;

	if (sscanf(f->address, "%*x:%*x:%x.", &slot) != 1)
		return ktap_fail("%s: at %s", f->name, f->address);
	if (pin != 1)
		return ktap_fail("%s: interrupt pin %u, not A", f->name, pin);
	if (set(f, "enable", "1"))
		return KTAP_FAIL;
	/* The kernel's number is its own; behind it stands the input. */
	irq = attribute(f, "irq");
	snprintf(path, sizeof(path), "/sys/kernel/irq/%lld/hwirq", irq);
	slurp(path, buf, sizeof(buf));
	if (set(f, "enable", "0"))
		return KTAP_FAIL;
	if (strtoul(buf, NULL, 10) != 16 + slot % 4)
		return ktap_fail("%s: interrupt %lld is input %s, not %u", f->name, irq, buf, 16 + slot % 4);
	return KTAP_PASS;
}

static int pin(void)
{
	return each(pin_of);
}

/* The kernel would let a driver have MSI or MSI-X. */
static int messages_of(struct function *f)
{
	if (attribute(f, "msi_bus") != 1)
		return ktap_fail("%s: msi_bus is %lld", f->name, attribute(f, "msi_bus"));
	return KTAP_PASS;
}

static int messages(void)
{
	return each(messages_of);
}

/* Without memory enable, nobody answers. */
static int decode_of(struct function *f)
{
	uint16_t command = config_read(f, COMMAND, 2);
	uint32_t on, off;
	struct bar b;

	if (!bar_map(f, 0, &b))
		return KTAP_FAIL;
	config_write(f, COMMAND, 2, command | COMMAND_MEMORY);
	on = read32(&b, 0);
	config_write(f, COMMAND, 2, command & ~COMMAND_MEMORY);
	off = read32(&b, 0);
	config_write(f, COMMAND, 2, command);
	bar_unmap(&b);
	if (on == ~0u || off != ~0u)
		return ktap_fail("%s: reads %#x, and %#x where it isn't to answer", f->name, on, off);
	return KTAP_PASS;
}

static int decode(void)
{
	return each(decode_of);
}

/* edu computes; the lot of a driver's polling. */
static int edu_works(void)
{
	static const struct {
		uint32_t n, factorial;
	} t[] = { { 0, 1 }, { 1, 1 }, { 5, 120 }, { 12, 479001600 }, { 20, 2192834560u }, { 40, 0 } };
	int result = KTAP_PASS;
	struct bar b;

	if (!edu.expected)
		return ktap_skip("no edu");
	if (!edu.address[0] || set(&edu, "enable", "1"))
		return KTAP_FAIL;
	if (!bar_map(&edu, 0, &b))
		return KTAP_FAIL;
	if (read32(&b, EDU_ID) != 0x010000ed)
		result = ktap_fail("identification %#x", read32(&b, EDU_ID));
	write32(&b, EDU_LIVENESS, 0x12345678);
	if (read32(&b, EDU_LIVENESS) != ~0x12345678u)
		result = ktap_fail("liveness %#x", read32(&b, EDU_LIVENESS));
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		int polls = 0;

		write32(&b, EDU_FACTORIAL, t[i].n);
		while (read32(&b, EDU_STATUS) & 1 && ++polls < 10000000)
			;
		if (read32(&b, EDU_FACTORIAL) != t[i].factorial)
			result = ktap_fail("%u! is %u, not %u, after %d polls", t[i].n,
					   read32(&b, EDU_FACTORIAL), t[i].factorial, polls);
	}
	bar_unmap(&b);
	if (set(&edu, "enable", "0"))
		return KTAP_FAIL;
	return result;
}

/*
 * A message that is masked waits in the pending bit: so far one gets without a
 * driver, since the kernel has no vector for it.
 */
static int edu_msi(void)
{
	uint16_t command, control;
	uint32_t before, after;
	int at, mask, pending;
	struct bar b;

	if (!edu.expected)
		return ktap_skip("no edu");
	at = capability(&edu, CAP_MSI);
	if (at <= 0)
		return ktap_fail("no MSI");
	control = config_read(&edu, at + 2, 2);
	if (!(control & MSI_MASKING))
		return ktap_skip("no mask bits");
	mask = at + (control & MSI_64BIT ? 16 : 12);
	pending = mask + 4;
	if (!bar_map(&edu, 0, &b))
		return KTAP_FAIL;
	command = config_read(&edu, COMMAND, 2);
	config_write(&edu, mask, 4, 1);
	config_write(&edu, at + 2, 2, control | MSI_ENABLE);
	config_write(&edu, COMMAND, 2, command | COMMAND_MEMORY | COMMAND_MASTER);
	before = config_read(&edu, pending, 4);
	write32(&b, EDU_RAISE, 0x10);
	after = config_read(&edu, pending, 4);
	if (read32(&b, EDU_INTERRUPT) != 0x10)
		ktap_diag("interrupt register %#x", read32(&b, EDU_INTERRUPT));
	write32(&b, EDU_ACK, 0x10);
	/* The reset takes the message back, which nobody waits for. */
	config_write(&edu, COMMAND, 2, command);
	bar_unmap(&b);
	if (set(&edu, "reset", "1"))
		return KTAP_FAIL;
	if (before || after != 1)
		return ktap_fail("pending bits %#x, then %#x", before, after);
	if (config_read(&edu, pending, 4) || config_read(&edu, at + 2, 2) & MSI_ENABLE)
		return ktap_fail("after a reset, MSI is %#x, pending %#x", config_read(&edu, at + 2, 2),
				 config_read(&edu, pending, 4));
	return KTAP_PASS;
}

/* A function-level reset empties edu's registers. */
static int edu_reset(void)
{
	uint32_t before, after;
	struct bar b;

	if (!edu.expected)
		return ktap_skip("no edu");
	if (set(&edu, "enable", "1") || !bar_map(&edu, 0, &b))
		return KTAP_FAIL;
	write32(&b, EDU_LIVENESS, 1);
	before = read32(&b, EDU_LIVENESS);
	if (set(&edu, "reset", "1"))
		return KTAP_FAIL;
	after = read32(&b, EDU_LIVENESS);
	bar_unmap(&b);
	if (set(&edu, "enable", "0"))
		return KTAP_FAIL;
	if (before != ~1u || after != 0)
		return ktap_fail("liveness %#x before, %#x after", before, after);
	return KTAP_PASS;
}

static int fifo_works(void)
{
	int result = KTAP_PASS;
	struct bar b;

	if (!fifo.expected)
		return ktap_skip("no fifo");
	if (!fifo.address[0] || set(&fifo, "enable", "1") || !bar_map(&fifo, 0, &b))
		return KTAP_FAIL;
	if (read32(&b, FIFO_ID) != 0x4f464946 || read32(&b, FIFO_VERSION) >> 16 != 1)
		result = ktap_fail("identification %#x, version %#x", read32(&b, FIFO_ID), read32(&b, FIFO_VERSION));
	write32(&b, FIFO_SCRATCH, 0x12345678);
	if (read32(&b, FIFO_SCRATCH) != 0x12345678)
		result = ktap_fail("the scratch register has %#x", read32(&b, FIFO_SCRATCH));
	bar_unmap(&b);
	if (set(&fifo, "reset", "1") || set(&fifo, "enable", "0"))
		return KTAP_FAIL;
	return result;
}

/*
 * The same for MSI-X: the vector is masked, and bus mastering is off, so that
 * the error interrupt of a ring that can't read its descriptor is pending.
 */
static int fifo_msix(void)
{
	uint32_t pba, before, after = 0, masked, unmasked;
	uint16_t command, control;
	int at, polls = 0;
	struct bar b, t;

	if (!fifo.expected)
		return ktap_skip("no fifo");
	at = capability(&fifo, CAP_MSIX);
	if (at <= 0)
		return ktap_fail("no MSI-X");
	control = config_read(&fifo, at + 2, 2);
	pba = config_read(&fifo, at + 8, 4);
	if ((config_read(&fifo, at + 4, 4) & 7) != 4 || (pba & 7) != 4)
		return ktap_fail("table %#x, pending bits %#x", config_read(&fifo, at + 4, 4), pba);
	pba &= ~7;
	if (!bar_map(&fifo, 0, &b) || !bar_map(&fifo, 4, &t))
		return KTAP_FAIL;
	command = config_read(&fifo, COMMAND, 2);
	config_write(&fifo, COMMAND, 2, (command | COMMAND_MEMORY) & ~COMMAND_MASTER);
	config_write(&fifo, at + 2, 2, control | MSIX_ENABLE);
	masked = read32(&t, 12);
	write32(&t, 0, 0xfee00000);
	write32(&t, 8, 0x55);
	write32(&t, 12, 0);
	unmasked = read32(&t, 12);
	write32(&t, 12, MSIX_MASKED);
	before = read32(&t, pba);
	write32(&b, FIFO_CONTROL, FIFO_CONTROL_ENABLE);
	write32(&b, FIFO_TX + FIFO_RING_BASE, 0x1000);
	write32(&b, FIFO_TX + FIFO_RING_SIZE, 4);
	write32(&b, FIFO_TX + FIFO_RING_COMP, 0x2000);
	write32(&b, FIFO_TX + FIFO_RING_COMP_SIZE, 4);
	write32(&b, FIFO_TX + FIFO_RING_CONTROL, FIFO_RING_RUN);
	write32(&b, FIFO_TX_TAIL, 1);
	while (!(after = read32(&t, pba)) && ++polls < 1000000)
		;
	if (read32(&b, FIFO_ERROR_CAUSE) != FIFO_ERROR_DMA)
		ktap_diag("error cause %#x", read32(&b, FIFO_ERROR_CAUSE));
	config_write(&fifo, COMMAND, 2, command);
	bar_unmap(&b);
	bar_unmap(&t);
	if (set(&fifo, "reset", "1"))
		return KTAP_FAIL;
	/* The error's vector, and the ring's own. */
	if (masked != MSIX_MASKED || unmasked || before || after != 3)
		return ktap_fail("vector control %#x, then %#x; pending bits %#x, then %#x", masked, unmasked, before, after);
	if (config_read(&fifo, at + 2, 2) & MSIX_ENABLE)
		return ktap_fail("MSI-X is still enabled after a reset");
	return KTAP_PASS;
}

/* The kernel lets the function go and finds it again, and it works. */
static int replug_of(struct function *f)
{
	if (set(f, "remove", "1"))
		return KTAP_FAIL;
	if (attribute(f, "vendor") >= 0)
		return ktap_fail("%s: still there", f->name);
	if (set(NULL, "/sys/bus/pci/rescan", "1"))
		return KTAP_FAIL;
	if (attribute(f, "vendor") < 0)
		return ktap_fail("%s: not found again at %s", f->name, f->address);
	if (release(f))
		return KTAP_FAIL;
	if (identity_of(f) || resources_of(f) || decode_of(f))
		return KTAP_FAIL;
	return KTAP_PASS;
}

static int replug(void)
{
	return each(replug_of);
}

/* The host says what it can't do. */
static int host_errors(void)
{
	static const char *const commands[] = {
		"", "faults", "fault", "fault irq:dorp", "fault nobody/irq:drop", "fired", "fired now", "plug", "plug nobody",
	};
	int result = KTAP_PASS;

	if (!ktap_has_host())
		return ktap_skip("no host");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (!ktap_host(NULL, 0, "%s", commands[i]))
			result = ktap_fail("the host obeys \"%s\"", commands[i]);
	}
	return result;
}

/* A fault that the host arms is there with its answer. */
static int host_fault(void)
{
	char fired[16] = "", cleared[16] = "";
	uint32_t value[4];
	struct bar b;
	int err;

	if (!ktap_has_host() || !edu.expected)
		return ktap_skip("no host, or no edu");
	if (set(&edu, "enable", "1") || !bar_map(&edu, 0, &b))
		return KTAP_FAIL;
	write32(&b, EDU_LIVENESS, 5);
	value[0] = read32(&b, EDU_LIVENESS);
	err = ktap_host(NULL, 0, "fault edu0/mmio.read[0:%#x]:ones@next", EDU_LIVENESS);
	value[1] = read32(&b, EDU_LIVENESS);
	value[2] = read32(&b, EDU_LIVENESS);
	err = err || ktap_host(fired, sizeof(fired), "fired");
	err = err || ktap_host(NULL, 0, "fault edu0/mmio.read[0:%#x]:ones@3", EDU_LIVENESS);
	if (!err && !ktap_host(NULL, 0, "fired"))
		err = ktap_fail("a fault has fired that is for later");
	read32(&b, EDU_LIVENESS);
	read32(&b, EDU_LIVENESS);
	value[3] = read32(&b, EDU_LIVENESS);
	err = err || ktap_host(cleared, sizeof(cleared), "clear");
	bar_unmap(&b);
	if (set(&edu, "enable", "0") || err)
		return KTAP_FAIL;
	if (value[0] != ~5u || value[1] != ~0u || value[2] != ~5u || value[3] != ~0u)
		return ktap_fail("read %#x before, %#x, %#x, %#x with faults", value[0], value[1], value[2], value[3]);
	if (strcmp(fired, "1") || strcmp(cleared, "2"))
		return ktap_fail("fired \"%s\", cleared \"%s\"", fired, cleared);
	return KTAP_PASS;
}

/* What is removed by surprise, the host puts back. */
static int host_plug(void)
{
	uint32_t gone, back;
	struct bar b;
	int err;

	if (!ktap_has_host() || !edu.expected)
		return ktap_skip("no host, or no edu");
	if (set(&edu, "enable", "1") || !bar_map(&edu, 0, &b))
		return KTAP_FAIL;
	err = !ktap_host(NULL, 0, "plug edu0");
	err = err || ktap_host(NULL, 0, "fault edu0/device:remove@next");
	gone = read32(&b, EDU_ID);
	err = err || ktap_host(NULL, 0, "clear");
	bar_unmap(&b);
	if (err || gone != ~0u || config_read(&edu, 0, 2) != 0xffff)
		return ktap_fail("reads %#x, vendor %#x, after its removal", gone, config_read(&edu, 0, 2));
	if (set(&edu, "remove", "1") || ktap_host(NULL, 0, "plug edu0") || set(NULL, "/sys/bus/pci/rescan", "1"))
		return KTAP_FAIL;
	if (attribute(&edu, "vendor") != edu.vendor || set(&edu, "enable", "1") || !bar_map(&edu, 0, &b))
		return ktap_fail("not found again at %s", edu.address);
	back = read32(&b, EDU_ID);
	bar_unmap(&b);
	if (set(&edu, "enable", "0"))
		return KTAP_FAIL;
	return back == 0x010000ed ? KTAP_PASS : ktap_fail("reads %#x when it is back", back);
}

/* Reads fifovm.devices= and looks for the functions. */
static void prepare(void)
{
	char buf[256], *save;

	if (!kernel_word("fifovm.devices", buf, sizeof(buf)))
		return;
	for (char *name = strtok_r(buf, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
			if (!strcmp(functions[i]->name, name))
				functions[i]->expected = true;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
		find(functions[i]);
		if (functions[i]->address[0])
			release(functions[i]);
	}
}

int main(int argc, char **argv)
{
	static const struct ktap_check checks[] = {
		{ "identity", identity },
		{ "resources", resources },
		{ "capabilities", capabilities },
		{ "messages", messages },
		{ "pin", pin },
		{ "decode", decode },
		{ "edu_works", edu_works },
		{ "edu_msi", edu_msi },
		{ "edu_reset", edu_reset },
		{ "fifo_works", fifo_works },
		{ "fifo_msix", fifo_msix },
		{ "replug", replug },
		{ "edu_works_again", edu_works },
		{ "fifo_works_again", fifo_works },
		{ "host_errors", host_errors },
		{ "host_fault", host_fault },
		{ "host_plug", host_plug },
	};
	int status;

	prepare();
	status = ktap_run(checks, ARRAY_SIZE(checks), argc, argv);
	for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
		if (functions[i]->address[0])
			set(NULL, "/sys/bus/pci/drivers_probe", functions[i]->address);
	}
	return status;
}
