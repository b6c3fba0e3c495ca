// SPDX-License-Identifier: MIT
/*
 * Paging beyond the faults: sizes, aliases, what the upper levels say, the
 * accessed and dirty bits, what CR0.WP, SMAP and AC change, and that a changed
 * entry counts after what the manual says makes it count (SDM 3, 4.10.4).
 */
#include "bare.h"

extern char bare_user_read[], bare_user_write[];

#define PAGE(n)		((volatile u64 *)(BARE_WINDOW + (n) * BARE_PAGE))
#define FRAME(n)	((volatile u64 *)bare_frame_of(n))
#define RW		(PTE_P | PTE_W)

static bool bare_write_page(u64 address)
{
	*(volatile u64 *)address = 7;
	return true;
}

/* Two pages of the window are one of RAM. */
static void bare_test_alias(void)
{
	bare_map(0, bare_frame_of(0), RW);
	bare_map(1, bare_frame_of(0), RW);
	PAGE(0)[3] = 0x1122334455667788;
	bare_check("a write through one page is read through another", PAGE(1)[3], 0x1122334455667788);
	bare_check("and in the RAM behind both", FRAME(0)[3], 0x1122334455667788);
}

static void bare_test_large(void)
{
	volatile u64 *ram = (u64 *)BARE_LARGE_AT;
	volatile u64 *page = (u64 *)(BARE_WINDOW + BARE_LARGE);
	u32 last = BARE_LARGE / sizeof(u64) - 1;

	bare_directory()[1] = BARE_LARGE_AT | RW | PTE_PS;
	page[0] = 0x5a5a;
	page[last] = 0xa5a5;
	bare_check("a page of 2 MiB: its start", ram[0], 0x5a5a);
	bare_check("a page of 2 MiB: its end", ram[last], 0xa5a5);
	bare_check("a page of 2 MiB: accessed and dirty", bare_directory()[1],
		   BARE_LARGE_AT | RW | PTE_PS | PTE_A | PTE_D);
	bare_directory()[1] = BARE_LARGE_AT | PTE_P | PTE_PS;
	bare_invlpg((u64)page);
	bare_probe(bare_write_page, (u64)page);
	bare_expect("a page of 2 MiB: read-only", PF, PF_P | PF_W, NULL);
	if (bare_unless(FLAW_TCG, "#PF: a reserved bit, ring 3", "#PF: a reserved bit, write in ring 3")) {
		/* Bit 13 of such an entry is one. */
		bare_directory()[1] = BARE_LARGE_AT | RW | PTE_U | PTE_PS | 1 << 13;
		bare_invlpg((u64)page);
		bare_user(bare_user_read, 0, (u64)page);
		bare_expect("#PF: a reserved bit, ring 3", PF, PF_P | PF_U | PF_RSVD, bare_user_read);
		bare_user(bare_user_write, 0, (u64)page);
		bare_expect("#PF: a reserved bit, write in ring 3", PF, PF_P | PF_W | PF_U | PF_RSVD, bare_user_write);
	}
	bare_directory()[1] = 0;
	bare_invlpg((u64)page);
}

/* A page is only as open as each level above it. */
static void bare_test_levels(void)
{
	u64 *directory = bare_directory(), saved = directory[0];

	bare_map(0, bare_frame_of(0), RW | PTE_U);
	directory[0] = saved & ~PTE_U;
	bare_write_cr3(bare_read_cr3());
	bare_user(bare_user_read, 0, BARE_WINDOW);
	bare_expect("ring 0's directory, ring 3's page", PF, PF_P | PF_U, bare_user_read);
	directory[0] = saved & ~PTE_W;
	bare_write_cr3(bare_read_cr3());
	bare_user(bare_user_write, 0, BARE_WINDOW);
	bare_expect("read-only directory, writable page", PF, PF_P | PF_U | PF_W, bare_user_write);
	directory[0] = saved | PTE_NX;
	bare_write_cr3(bare_read_cr3());
	bare_user((void *)BARE_WINDOW, 0, 0);
	bare_expect("directory with NX, page without", PF, PF_P | PF_U | PF_I, (void *)BARE_WINDOW);
	directory[0] = 0;
	bare_write_cr3(bare_read_cr3());
	bare_user(bare_user_read, 0, BARE_WINDOW);
	bare_expect("absent directory entry", PF, PF_U, bare_user_read);
	directory[0] = saved;
	bare_write_cr3(bare_read_cr3());
	bare_user(bare_user_read, 0, BARE_WINDOW);
	bare_expect("the directory as before", VECTOR_EXIT, 0, NULL);
}

static u64 bare_marks(void)
{
	return *bare_entry(0) & (PTE_A | PTE_D);
}

static void bare_test_marks(void)
{
	u64 *directory = bare_directory();

	bare_map(0, bare_frame_of(0), RW);
	directory[0] &= ~PTE_A;
	bare_write_cr3(bare_read_cr3());
	bare_check("no access, no mark", bare_marks(), 0);
	(void)PAGE(0)[0];
	bare_check("a read sets accessed", bare_marks(), PTE_A);
	bare_check("and so in the directory", directory[0] & (PTE_A | PTE_D), PTE_A);
	PAGE(0)[0] = 1;
	bare_check("a write sets dirty", bare_marks(), PTE_A | PTE_D);
	*bare_entry(0) &= ~(PTE_A | PTE_D);
	bare_invlpg(BARE_WINDOW);
	PAGE(0)[0] = 2;
	bare_check("a write sets both", bare_marks(), PTE_A | PTE_D);
	*bare_entry(0) = bare_frame_of(0) | PTE_P | PTE_U;
	bare_invlpg(BARE_WINDOW);
	bare_user(bare_user_write, 0, BARE_WINDOW);
	bare_check("a write that faults sets no dirty", bare_marks() & PTE_D, 0);
}

/* Reads with AC set, which SMAP honours (SDM 3, 4.6.1). */
static bool bare_read_with_ac(u64 address)
{
	u64 flags = bare_flags();

	bare_set_flags(flags | FLAG_AC);
	(void)*(volatile u64 *)address;
	bare_set_flags(flags);
	return true;
}

static bool bare_read_with_stac(u64 address)
{
	asm volatile("stac" : : : "memory");
	(void)*(volatile u64 *)address;
	asm volatile("clac" : : : "memory");
	return true;
}

static bool bare_read_after_clac(u64 address)
{
	asm volatile("stac; clac" : : : "memory");
	(void)*(volatile u64 *)address;
	return true;
}

static void bare_test_switches(void)
{
	bare_map(0, bare_frame_of(0), PTE_P);
	bare_write_cr0(bare_read_cr0() & ~CR0_WP);
	bare_probe(bare_write_page, BARE_WINDOW);
	bare_expect("without CR0.WP ring 0 writes a read-only page", BARE_RETURNED, 0, NULL);
	bare_check("and it is written", FRAME(0)[0], 7);
	bare_write_cr0(bare_read_cr0() | CR0_WP);
	bare_probe(bare_write_page, BARE_WINDOW);
	bare_expect("with CR0.WP it does not", PF, PF_P | PF_W, NULL);
	bare_map(0, bare_frame_of(0), RW | PTE_U);
	bare_probe(bare_read_with_ac, BARE_WINDOW);
	bare_expect("SMAP: read ring 3's page with AC", BARE_RETURNED, 0, NULL);
	if (bare_unless(FLAW_RING3, "SMAP: read ring 3's page after STAC")) {
		bare_probe(bare_read_with_stac, BARE_WINDOW);
		bare_expect("SMAP: read ring 3's page after STAC", BARE_RETURNED, 0, NULL);
	}
	if (bare_unless(FLAW_RING3, "SMAP: read ring 3's page after CLAC")) {
		bare_probe(bare_read_after_clac, BARE_WINDOW);
		bare_expect("SMAP: read ring 3's page after CLAC", PF, PF_P, NULL);
	}
	bare_write_cr4(bare_read_cr4() & ~CR4_SMAP);
	bare_probe(bare_write_page, BARE_WINDOW);
	bare_expect("without CR4.SMAP ring 0 writes ring 3's page", BARE_RETURNED, 0, NULL);
	bare_write_cr4(bare_read_cr4() | CR4_SMAP);
	*(volatile u8 *)bare_frame_of(0) = 0xc3;	/* RET */
	bare_write_cr4(bare_read_cr4() & ~CR4_SMEP);
	bare_probe((void *)BARE_WINDOW, 0);
	bare_expect("without CR4.SMEP ring 0 executes ring 3's page", BARE_RETURNED, 0, NULL);
	bare_write_cr4(bare_read_cr4() | CR4_SMEP);
}

/* Maps page 0 elsewhere without saying so, after an access to it. */
static void bare_remap(u64 flags)
{
	bare_map(0, bare_frame_of(0), RW | flags);
	FRAME(0)[0] = 100;
	FRAME(1)[0] = 101;
	(void)PAGE(0)[0];
	*bare_entry(0) = bare_frame_of(1) | RW | flags;
}

static void bare_test_stale(void)
{
	bare_remap(0);
	bare_invlpg(BARE_WINDOW + 123);
	bare_check("a new entry counts after INVLPG", PAGE(0)[0], 101);
	bare_remap(0);
	bare_write_cr3(bare_read_cr3());
	bare_check("a new entry counts after MOV to CR3", PAGE(0)[0], 101);
	bare_remap(PTE_G);
	bare_invlpg(BARE_WINDOW);
	bare_check("a new global entry counts after INVLPG", PAGE(0)[0], 101);
	bare_remap(PTE_G);
	bare_write_cr4(bare_read_cr4() & ~CR4_PGE);
	bare_check("a new global entry counts after a change of CR4.PGE", PAGE(0)[0], 101);
	bare_write_cr4(bare_read_cr4() | CR4_PGE);
	/* An entry that was absent is never kept. */
	bare_map(0, 0, 0);
	bare_probe(bare_write_page, BARE_WINDOW);
	*bare_entry(0) = bare_frame_of(0) | RW;
	bare_probe(bare_write_page, BARE_WINDOW);
	bare_expect("an entry that was absent counts at once", BARE_RETURNED, 0, NULL);
}

void bare_test_paging(void)
{
	bare_section("paging");
	bare_test_alias();
	bare_test_large();
	bare_test_levels();
	bare_test_marks();
	bare_test_switches();
	bare_test_stale();
	bare_map(0, 0, 0);
	bare_map(1, 0, 0);
}
