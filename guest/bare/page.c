// SPDX-License-Identifier: MIT
/*
 * The page tables: the first 4 GiB onto themselves, and a window for the tests.
 */
#include "bare.h"

#define GIB	4

extern char bare_user_start[], bare_user_end[];

typedef u64 bare_page_table[512];

static bare_page_table pml4 __attribute__((aligned(4096)));
static bare_page_table low_pointers __attribute__((aligned(4096)));
static bare_page_table low_directory[GIB] __attribute__((aligned(4096)));
static bare_page_table low_pages __attribute__((aligned(4096)));
static bare_page_table window_pointers __attribute__((aligned(4096)));
static bare_page_table window_directory __attribute__((aligned(4096)));
static bare_page_table window_pages __attribute__((aligned(4096)));

/* RAM for the window's pages. */
static u8 frames[8][BARE_PAGE] __attribute__((aligned(4096)));

static u64 bare_table(bare_page_table table)
{
	return (u64)table | PTE_P | PTE_W | PTE_U;
}

static void bare_map_low(void)
{
	u64 at = 0;

	for (u32 g = 0; g < GIB; g++) {
		low_pointers[g] = bare_table(low_directory[g]);
		for (u32 i = 0; i < 512; i++, at += BARE_LARGE) {
			/* The last GiB has all the devices. */
			low_directory[g][i] = at | PTE_PS | PTE_W | PTE_P | (g == 3 ? PTE_PCD : 0);
		}
	}
	low_directory[0][0] = bare_table(low_pages);
	for (u32 i = 0; i < 512; i++)
		low_pages[i] = (u64)i * BARE_PAGE | PTE_W | PTE_P;
	for (u64 p = (u64)bare_user_start; p < (u64)bare_user_end; p += BARE_PAGE)
		low_pages[p / BARE_PAGE] |= PTE_U;
}

/* Takes the tables and turns on all that protects. */
void bare_init_paging(void)
{
	bare_map_low();
	pml4[0] = bare_table(low_pointers);
	pml4[BARE_WINDOW >> 39] = bare_table(window_pointers);
	window_pointers[0] = bare_table(window_directory);
	window_directory[0] = bare_table(window_pages);
	bare_write_cr3((u64)pml4);
	bare_write_cr4(CR4_DE | CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_SMEP | CR4_SMAP);
}

/* Maps page number page of the window; flags 0: not at all. */
void bare_map(u32 page, u64 physical, u64 flags)
{
	window_pages[page] = physical | flags;
	bare_invlpg(BARE_WINDOW + page * BARE_PAGE);
}

/* The entry of that page. */
u64 *bare_entry(u32 page)
{
	return &window_pages[page];
}

/* The window's page directory. */
u64 *bare_directory(void)
{
	return window_directory;
}

/* The physical address of a page of RAM that the tests may use. */
u64 bare_frame_of(u32 n)
{
	return (u64)frames[n];
}

/*
 * Gives where to reach a device's memory, one device's at a time: as it is, or,
 * beyond what is mapped onto itself, in the window.
 */
u64 bare_map_device(u64 physical)
{
	if (physical >> 30 < GIB)
		return physical;
	window_directory[(BARE_DEVICE - BARE_WINDOW) / BARE_LARGE] =
		(physical & -(u64)BARE_LARGE) | PTE_PS | PTE_PCD | PTE_W | PTE_P | PTE_NX;
	bare_invlpg(BARE_DEVICE);
	return BARE_DEVICE + physical % BARE_LARGE;
}
