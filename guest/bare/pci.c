// SPDX-License-Identifier: MIT
/*
 * PCI: what is on the bus, by both ways to configuration space, and how large
 * its BARs are. Which devices there are is the platform's matter: nothing of it
 * is printed.
 */
#include "bare.h"

#define FUNCTIONS	256
#define PCI_DATA	(BARE_PCI + 4)

/* Configuration space (PCI Local Bus 3.0, 6.1 and 6.2.5). */
#define REG_COMMAND	0x04
#define REG_CLASS	0x08
#define REG_HEADER	0x0c
#define REG_BAR0	0x10
#define COMMAND_DECODE	3	/* I/O and memory space */
#define BARS		6
#define BAR_IO		(1 << 0)
#define BAR_TYPE	(3 << 1)
#define BAR_64		(2 << 1)
#define NO_FUNCTION	0xffffffff

static u32 bare_config_read(u32 function, u32 reg)
{
	bare_outl(BARE_PCI, 1u << 31 | function << 8 | reg);
	return bare_inl(PCI_DATA);
}

static void bare_config_write(u32 function, u32 reg, u32 v)
{
	bare_outl(BARE_PCI, 1u << 31 | function << 8 | reg);
	bare_outl(PCI_DATA, v);
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
		if (id == NO_FUNCTION)
			continue;
		found++;
		for (u32 reg = 4; reg < 64; reg += 4)
			differ += bare_config_read(f, reg) != bare_ecam_read(f, reg);
	}
	bare_true("there are functions", found > 0);
	bare_check("ports and ECAM agree", differ, 0);
	bare_check("function 0 is a host bridge", bare_config_read(0, REG_CLASS) >> 16, 0x0600);
	bare_check("ECAM beyond 256 bytes: no extended capability", bare_ecam_read(0, 0x100), 0);
	bare_outl(BARE_PCI, 0);
	bare_check("CONFIG_DATA without the enable bit", bare_inl(PCI_DATA), NO_FUNCTION);
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

/* Counts what is wrong with the BAR at *reg, and steps over its second half. */
static u32 bare_wrong_bar(u32 function, u32 *reg)
{
	u32 first = *reg, low = bare_config_read(function, first);
	u64 base, size, bits = (s64)(s32)bare_bar_bits(function, first);

	if (!bits)
		return low != 0;
	if (low & BAR_IO) {
		base = low & ~3u;
		bits &= ~3ul;
	} else {
		base = low & ~15u;
		bits &= ~15ul;
		if ((low & BAR_TYPE) == BAR_64) {
			*reg += 4;
			base |= (u64)bare_config_read(function, *reg) << 32;
			bits = (u32)bits | (u64)bare_bar_bits(function, *reg) << 32;
		}
	}
	size = -bits;
	return !size || size & (size - 1) || !base || base & (size - 1) ||
	       bare_config_read(function, first) != low;
}

static void bare_test_bars(void)
{
	u32 wrong = 0;

	for (u32 f = 0; f < FUNCTIONS; f++) {
		u32 command;

		if (bare_config_read(f, 0) == NO_FUNCTION || bare_config_read(f, REG_HEADER) >> 16 & 0x7f)
			continue;
		command = bare_config_read(f, REG_COMMAND) & 0xffff;
		bare_config_write(f, REG_COMMAND, command & ~COMMAND_DECODE);
		for (u32 reg = REG_BAR0; reg < REG_BAR0 + 4 * BARS; reg += 4)
			wrong += bare_wrong_bar(f, &reg);
		bare_config_write(f, REG_COMMAND, command);
	}
	bare_check("each BAR has a size, and a base that fits it", wrong, 0);
}

void bare_test_pci(void)
{
	bare_section("PCI");
	bare_test_agreement();
	bare_test_bars();
}
