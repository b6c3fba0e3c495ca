// SPDX-License-Identifier: MIT
/*
 * String instructions: across pages that are apart in RAM, backwards, and
 * through a fault in the middle.
 */
#include "bare.h"

extern char bare_user_movs[], bare_user_movs_at[], bare_movs[], bare_movs_at[];
extern char bare_user_store_across[], bare_user_store_across_at[];

#define EDGE		(BARE_WINDOW + BARE_PAGE)
#define RW		(PTE_P | PTE_W)

/* Pages 0 and 1 are frames 3 and 1; page 2, frame 0, counts up. */
static void bare_set_scene(u64 flags)
{
	u8 *frame = (u8 *)bare_frame_of(0);

	bare_map(0, bare_frame_of(3), RW | flags);
	bare_map(1, bare_frame_of(1), RW | flags);
	bare_map(2, bare_frame_of(0), RW | flags);
	for (u32 i = 0; i < 64; i++)
		frame[i] = i + 1;
	memset((u8 *)bare_frame_of(3) + BARE_PAGE - 64, 0, 64);
	memset((u8 *)bare_frame_of(1), 0, 64);
}

/* The 8 bytes on each side of the edge between pages 0 and 1, in RAM. */
static u64 bare_before_edge(void)
{
	return *(volatile u64 *)(bare_frame_of(3) + BARE_PAGE - 8);
}

static u64 bare_after_edge(void)
{
	return *(volatile u64 *)bare_frame_of(1);
}

static void bare_test_copy(void)
{
	void *to = (void *)(EDGE - 8), *from = (void *)(BARE_WINDOW + 2 * BARE_PAGE);
	u64 n = 16;

	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	bare_check("REP MOVSB to two pages: the first", bare_before_edge(), 0x0807060504030201);
	bare_check("REP MOVSB to two pages: the second", bare_after_edge(), 0x100f0e0d0c0b0a09);
	bare_check("REP MOVSB: RCX", n, 0);
	bare_check("REP MOVSB: RDI", (u64)to, EDGE + 8);
	to = (void *)(EDGE - 4);
	n = 2;
	asm volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(0xaabbccdd) : "memory");
	bare_check("REP STOSL to two pages: the first", bare_before_edge() >> 32, 0xaabbccdd);
	bare_check("REP STOSL to two pages: the second", (u32)bare_after_edge(), 0xaabbccdd);
	to = (void *)(EDGE - 3);
	asm volatile("stosq" : "+D"(to) : "a"(0x1122334455667788) : "memory");
	bare_check("STOSQ across the edge: the first page", bare_before_edge() >> 40, 0x667788);
	bare_check("STOSQ across the edge: the second", bare_after_edge() & 0xffffffffff, 0x1122334455);
	from = (void *)(EDGE - 3);
	asm volatile("lodsq" : "+S"(from), "=a"(n) : : "memory");
	bare_check("LODSQ across the edge", n, 0x1122334455667788);
}

static void bare_test_backwards(void)
{
	void *to = (void *)(EDGE + 7), *from = (void *)(BARE_WINDOW + 2 * BARE_PAGE + 15);
	u64 n = 16;

	asm volatile("std; rep movsb; cld" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	bare_check("REP MOVSB backwards: the first page", bare_before_edge(), 0x0807060504030201);
	bare_check("REP MOVSB backwards: the second", bare_after_edge(), 0x100f0e0d0c0b0a09);
	bare_check("REP MOVSB backwards: RDI", (u64)to, EDGE - 9);
	/* Overlapping, forwards: the first byte spreads. */
	to = (void *)(EDGE - 7);
	from = (void *)(EDGE - 8);
	n = 15;
	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	bare_check("REP MOVSB onto itself", bare_after_edge(), 0x0101010101010101);
}

static void bare_test_compare(void)
{
	u8 *a = (u8 *)(EDGE - 8), *b = (u8 *)BARE_WINDOW + 2 * BARE_PAGE;
	u64 n = 16;
	bool equal;

	memcpy(a, b, 16);
	a[11] = 0;
	asm volatile("repe cmpsb" : "+S"(a), "+D"(b), "+c"(n), "=@ccz"(equal) : : "memory");
	bare_check("REPE CMPSB stops where they differ", n, 4);
	bare_check("REPE CMPSB: ZF", equal, false);
	a = (u8 *)(EDGE - 8);
	n = 16;
	asm volatile("repne scasb" : "+D"(a), "+c"(n), "=@ccz"(equal) : "a"(10) : "memory");
	bare_check("REPNE SCASB stops where it is", (u64)a, EDGE + 2);
	bare_check("REPNE SCASB: ZF", equal, true);
	a = (u8 *)BARE_ABSENT;
	n = 0;
	asm volatile("rep stosb" : "+D"(a), "+c"(n) : "a"(0) : "memory");
	bare_check("REP with a count of 0 touches nothing", (u64)a, BARE_ABSENT);
}

/* The page that is missing comes, and the instruction goes on. */
static bool bare_bring_page(struct bare_frame *f)
{
	(void)f;
	bare_map(1, bare_frame_of(1), RW | PTE_U);
	return true;
}

static void bare_check_halfway(const char *name, struct bare_frame *f, void *at)
{
	if (bare_part(name, " (CR2)", bare_this_cpu()->cr2, EDGE) &&
	    bare_part(name, " (RCX)", f->rcx, 10) &&
	    bare_part(name, " (RDI)", f->rdi, EDGE) &&
	    bare_part(name, " (RSI)", f->rsi, BARE_WINDOW + 2 * BARE_PAGE + 6))
		bare_expect(name, PF, PF_W | (f->cs & 3 ? PF_U : 0), at);
}

static void bare_test_faults(void)
{
	bare_set_scene(0);
	bare_map(1, 0, 0);
	bare_check_halfway("REP MOVSB to a page that is absent", bare_probe(bare_movs, 0), bare_movs_at);
	bare_set_scene(PTE_U);
	bare_map(1, 0, 0);
	bare_check_halfway("REP MOVSB to a page that is absent, ring 3", bare_user(bare_user_movs, 0, 0),
			   bare_user_movs_at);
	bare_check("REP MOVSB to a page that is absent: the bytes before", bare_before_edge() >> 16, 0x060504030201);
	bare_set_hook(PF, bare_bring_page);
	bare_user(bare_user_movs, 0, 0);
	bare_set_hook(PF, NULL);
	bare_expect("REP MOVSB goes on when the page is there", VECTOR_EXIT, 0, NULL);
	bare_check("REP MOVSB goes on: the bytes behind", bare_after_edge(), 0x0e0d0c0b0a090807);
	bare_map(1, 0, 0);
	bare_user(bare_user_store_across, 0, BARE_WINDOW);
	bare_expect("a store to a page and one that is absent", PF, PF_W | PF_U, bare_user_store_across_at);
	bare_check("a store to a page and one that is absent: CR2", bare_this_cpu()->cr2, EDGE);
	bare_check("a store to a page and one that is absent: nothing stored", bare_before_edge() >> 40, 0x060504);
}

void bare_test_strings(void)
{
	bare_section("strings");
	bare_set_scene(0);
	bare_test_copy();
	bare_test_backwards();
	bare_test_compare();
	bare_test_faults();
	for (u32 i = 0; i < 3; i++)
		bare_map(i, 0, 0);
}
