// SPDX-License-Identifier: MIT
/*
 * Code that changes after it ran: through its own address, through another one
 * of the same page, ahead of itself, across pages, and by another mapping
 * (SDM 3, 8.1.3).
 */
#include "bare.h"

extern char bare_user_patch[], bare_user_patch_self[];
u64 bare_patch_ahead(void);

#define RW	(PTE_P | PTE_W)

/* At address: MOV EAX, v; then RET, or in ring 3 INT VECTOR_EXIT. */
static void bare_write_code(u64 address, u32 v, bool user)
{
	volatile u8 *p = (u8 *)address;

	p[0] = 0xb8;
	for (u32 i = 0; i < 4; i++)
		p[1 + i] = v >> 8 * i;
	p[5] = user ? 0xcd : 0xc3;
	p[6] = VECTOR_EXIT;
}

static u32 bare_run_code(u64 address)
{
	return ((u32 (*)(void))address)();
}

static u32 bare_run_user_code(u64 address)
{
	return bare_user((void *)address, 0, 0)->rax;
}

/* Needed where code was changed through another address than its own. */
static void bare_serialize(void)
{
	bare_write_cr2(0);
}

static void bare_test_rewritten(void)
{
	u64 a = BARE_WINDOW + 64, b = BARE_WINDOW + BARE_PAGE + 64;

	bare_map(0, bare_frame_of(0), RW);
	bare_map(1, bare_frame_of(0), RW);
	bare_write_code(a, 0x1001, false);
	bare_check("code as written", bare_run_code(a), 0x1001);
	bare_write_code(a, 0x1002, false);
	bare_check("code rewritten", bare_run_code(a), 0x1002);
	((volatile u8 *)a)[2] = 0x77;
	bare_check("code with one byte changed", bare_run_code(a), 0x7702);
	bare_write_code(b, 0x1003, false);
	bare_serialize();
	bare_check("code rewritten through another address", bare_run_code(a), 0x1003);
	bare_check("and run by that", bare_run_code(b), 0x1003);
	bare_write_code(bare_frame_of(0) + 64, 0x1004, false);
	bare_serialize();
	bare_check("code rewritten through a third", bare_run_code(a), 0x1004);
	bare_check("and run by another", bare_run_code(b), 0x1004);
	asm volatile("lock xorl %1, %0" : "+m"(*(u32 *)(a + 1)) : "r"(0xf000));
	bare_check("code changed by LOCK XOR", bare_run_code(a), 0xe004);
}

static void bare_test_copied(void)
{
	u64 a = BARE_WINDOW + 64;

	bare_write_code(bare_frame_of(1) + 64, 0x1005, false);
	memcpy((void *)a, (void *)(bare_frame_of(1) + 64), 8);
	bare_check("code rewritten by REP MOVSB", bare_run_code(a), 0x1005);
	bare_write_code(bare_frame_of(1) + 64, 0x1006, false);
	bare_map(0, bare_frame_of(1), RW);
	bare_check("code under another mapping", bare_run_code(a), 0x1006);
	bare_map(0, bare_frame_of(0), RW);
	bare_check("and under the first again", bare_run_code(a), 0x1005);
}

/* An instruction whose last bytes are in the next page, that is elsewhere. */
static void bare_test_straddling(void)
{
	u64 a = BARE_WINDOW + BARE_PAGE - 3;

	bare_map(1, bare_frame_of(2), RW);
	bare_write_code(a, 0x11223344, false);
	bare_check("code across two pages", bare_run_code(a), 0x11223344);
	*(volatile u8 *)(BARE_WINDOW + BARE_PAGE) = 0x66;
	bare_check("its second page changed", bare_run_code(a), 0x11663344);
	*(volatile u8 *)(BARE_WINDOW + BARE_PAGE - 1) = 0x55;
	bare_check("its first page changed", bare_run_code(a), 0x11665544);
	memcpy((void *)bare_frame_of(4), (void *)bare_frame_of(2), 16);
	*(volatile u8 *)bare_frame_of(4) = 0x99;
	bare_map(1, bare_frame_of(4), RW);
	bare_check("its second page mapped elsewhere", bare_run_code(a), 0x11995544);
}

static void bare_test_user_code(void)
{
	u64 a = BARE_WINDOW + 64, frame = bare_frame_of(0) + 64;
	struct bare_frame *f;

	bare_map(0, bare_frame_of(0), RW | PTE_U);
	bare_write_code(frame, 0x2001, true);
	bare_check("ring 3's code as written", bare_run_user_code(a), 0x2001);
	bare_write_code(frame, 0x2002, true);
	bare_check("ring 3's code rewritten by ring 0", bare_run_user_code(a), 0x2002);
	bare_write_code(bare_frame_of(1) + 64, 0x2003, true);
	bare_map(0, bare_frame_of(1), RW | PTE_U);
	bare_check("ring 3's code under another mapping", bare_run_user_code(a), 0x2003);
	f = bare_user(bare_user_patch_self, 0, 0);
	bare_check("ring 3's code changes the instruction ahead", f->rax, 0x3033);
	f = bare_user(bare_user_patch, 0, 0);
	bare_check("ring 3's loop changes itself", f->rax, 1 + 2 + 3 + 4 + 5);
}

void bare_test_code(void)
{
	bare_section("code that changes");
	bare_test_rewritten();
	bare_test_copied();
	bare_test_straddling();
	bare_check("code changes the instruction ahead", bare_patch_ahead(), 0x4044);
	bare_check("and again", bare_patch_ahead(), 0x4044);
	bare_test_user_code();
	for (u32 i = 0; i < 2; i++)
		bare_map(i, 0, 0);
}
