// SPDX-License-Identifier: MIT
/*
 * PCI: what is on the bus, by both ways to configuration space, and how large
 * its BARs are. Which devices there are is the platform's matter: nothing of it
 * is printed.
 */
#include "bare.h"

#define FUNCTIONS	256
#define PCI_DATA	(BARE_PCI + 4)

/* Base address registers (PCI Local Bus 3.0, 6.2.5). */
#define BARS		6
#define BAR_IO		(1 << 0)
#define BAR_TYPE	(3 << 1)
#define BAR_64		(2 << 1)

#define CAPABILITIES	48	/* there is no room for more */

u32 bare_config_read(u32 function, u32 reg)
{
	bare_outl(BARE_PCI, 1u << 31 | function << 8 | reg);
	return bare_inl(PCI_DATA);
}

void bare_config_write(u32 function, u32 reg, u32 v)
{
	bare_outl(BARE_PCI, 1u << 31 | function << 8 | reg);
	bare_outl(PCI_DATA, v);
}

/* The function with that vendor and device ID, or BARE_NO_FUNCTION. */
u32 bare_find_function(u32 id)
{
	u32 f = 0;

	while (f < FUNCTIONS && bare_config_read(f, 0) != id)
		f++;
	return f < FUNCTIONS ? f : BARE_NO_FUNCTION;
}

/* Where its capability is; 0: it has none of that kind. */
u32 bare_find_capability(u32 function, u8 id)
{
	u32 at = bare_config_read(function, PCI_CAPABILITIES) & 0xfc;

	for (u32 i = 0; at && i < CAPABILITIES; i++) {
		u32 v = bare_config_read(function, at);

		if ((u8)v == id)
			return at;
		at = v >> 8 & 0xfc;
	}
	return 0;
}

u64 bare_read_bar(u32 function, u32 n)
{
	u32 low = bare_config_read(function, PCI_BAR(n));

	if (low & BAR_IO)
		return low & ~3u;
	if ((low & BAR_TYPE) != BAR_64)
		return low & ~15u;
	return (low & ~15u) | (u64)bare_config_read(function, PCI_BAR(n + 1)) << 32;
}

/* Of a BAR with a 64-bit address. */
void bare_write_bar(u32 function, u32 n, u64 base)
{
	bare_config_write(function, PCI_BAR(n), base);
	bare_config_write(function, PCI_BAR(n + 1), base >> 32);
}

static u32 bare_ecam_read(u32 function, u32 reg)
{
	return *(volatile u32 *)(u64)(BARE_ECAM + function * 4096 + reg);
}

/* Both ways, over the whole bus and over all of the functions' headers. */
static void bare_test_agreement(void)
{
	u32 found = 0, differ = 0;

	for (u32 f = 0; f < FUNCTIONS; f++) {
		u32 id = bare_config_read(f, 0);

		differ += id != bare_ecam_read(f, 0);
		if (id == BARE_NO_FUNCTION)
			continue;
		found++;
		for (u32 reg = 4; reg < 64; reg += 4)
			differ += bare_config_read(f, reg) != bare_ecam_read(f, reg);
	}
	bare_true("there are functions", found > 0);
	bare_check("ports and ECAM agree", differ, 0);
	bare_check("function 0 is a host bridge", bare_config_read(0, PCI_CLASS) >> 16, 0x0600);
	bare_check("ECAM beyond 256 bytes: no extended capability", bare_ecam_read(0, 0x100), 0);
	bare_outl(BARE_PCI, 0);
	bare_check("CONFIG_DATA without the enable bit", bare_inl(PCI_DATA), BARE_NO_FUNCTION);
}

/* What reads back of all ones; the BAR is as before afterwards. */
static u32 bare_bar_bits(u32 function, u32 reg)
{
	u32 saved = bare_config_read(function, reg), bits;

	bare_config_write(function, reg, 0xffffffff);
	bits = bare_config_read(function, reg);
	bare_config_write(function, reg, saved);
	return bits;
}

/* The size of BAR n, which decodes nothing meanwhile; 0: there is none. */
u64 bare_bar_size(u32 function, u32 n)
{
	u32 command = bare_config_read(function, PCI_COMMAND) & 0xffff;
	u64 bits;

	bare_config_write(function, PCI_COMMAND, command & ~(PCI_COMMAND_IO | PCI_COMMAND_MEMORY));
	bits = (s64)(s32)bare_bar_bits(function, PCI_BAR(n));
	if (bits & BAR_IO)
		bits &= ~3ul;
	else if ((bits & BAR_TYPE) == BAR_64)
		bits = (bits & 0xfffffff0) | (u64)bare_bar_bits(function, PCI_BAR(n + 1)) << 32;
	else
		bits &= ~15ul;
	bare_config_write(function, PCI_COMMAND, command);
	return -bits;
}

/* All BARs that there are, and what is wrong with them. */
static struct {
	struct { u64 base, size; bool io; } all[32];
	u32 count, misplaced, changed, overlap;
} bars;

/* Takes BAR n, and gives how many registers it has. */
static u32 bare_take_bar(u32 function, u32 n)
{
	u32 low = bare_config_read(function, PCI_BAR(n)), registers = 1;
	u64 base = bare_read_bar(function, n), size = bare_bar_size(function, n);
	bool io = low & BAR_IO;

	if (!io && (low & BAR_TYPE) == BAR_64)
		registers = 2;
	if (!size && !low)
		return 1;
	bars.misplaced += !size || size & (size - 1) || !base || base & (size - 1);
	bars.changed += bare_config_read(function, PCI_BAR(n)) != low || bare_read_bar(function, n) != base;
	for (u32 i = 0; i < bars.count; i++) {
		bars.overlap += bars.all[i].io == io && base < bars.all[i].base + bars.all[i].size &&
				bars.all[i].base < base + size;
	}
	if (bars.count < ARRAY_SIZE(bars.all)) {
		bars.all[bars.count].base = base;
		bars.all[bars.count].size = size;
		bars.all[bars.count++].io = io;
	}
	return registers;
}

static void bare_test_bars(void)
{
	for (u32 f = 0; f < FUNCTIONS; f++) {
		if (bare_config_read(f, 0) == BARE_NO_FUNCTION || bare_config_read(f, PCI_HEADER) >> 16 & 0x7f)
			continue;
		for (u32 n = 0; n < BARS;)
			n += bare_take_bar(f, n);
	}
	bare_true("there are BARs", bars.count > 0);
	bare_check("each BAR has a size, and a base that fits it", bars.misplaced, 0);
	bare_check("and is as before it was sized", bars.changed, 0);
	bare_check("no two BARs overlap", bars.overlap, 0);
}

void bare_test_pci(void)
{
	bare_section("PCI");
	bare_test_agreement();
	bare_test_bars();
}
