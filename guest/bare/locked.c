// SPDX-License-Identifier: MIT
/*
 * Instructions that read, change and write memory in one.
 */
#include "bare.h"

extern char bare_user_cmpxchg16b[], bare_user_cmpxchg16b_odd[];

static void bare_test_exchange(void)
{
	volatile u64 m = 5;
	u64 old = 5, new = 9;
	bool done;

	asm volatile("lock cmpxchgq %3, %0" : "+m"(m), "+a"(old), "=@ccz"(done) : "r"(new));
	bare_true("LOCK CMPXCHG that fits: ZF", done);
	bare_check("LOCK CMPXCHG that fits: memory", m, 9);
	old = 5;
	asm volatile("lock cmpxchgq %3, %0" : "+m"(m), "+a"(old), "=@ccz"(done) : "r"(1ul));
	bare_true("LOCK CMPXCHG that does not: ZF", !done);
	bare_check("LOCK CMPXCHG that does not: RAX", old, 9);
	bare_check("LOCK CMPXCHG that does not: memory", m, 9);
	asm volatile("lock xaddq %1, %0" : "+m"(m), "+r"(new));
	bare_check("LOCK XADD: the register", new, 9);
	bare_check("LOCK XADD: memory", m, 18);
	asm volatile("xchgq %1, %0" : "+m"(m), "+r"(old));
	bare_check("XCHG: the register", old, 18);
	bare_check("XCHG: memory", m, 9);
}

static void bare_test_exchange_pairs(void)
{
	volatile u64 m = 0x0000000200000001;
	struct bare_frame *f;
	u32 low = 1, high = 2;
	bool done;
	volatile u64 *pair = (u64 *)bare_frame_of(0);

	asm volatile("lock cmpxchg8b %0" : "+m"(m), "+a"(low), "+d"(high), "=@ccz"(done) : "b"(3), "c"(4));
	bare_true("LOCK CMPXCHG8B that fits: ZF", done);
	bare_check("LOCK CMPXCHG8B that fits: memory", m, 0x0000000400000003);
	asm volatile("lock cmpxchg8b %0" : "+m"(m), "+a"(low), "+d"(high), "=@ccz"(done) : "b"(5), "c"(6));
	bare_true("LOCK CMPXCHG8B that does not: ZF", !done);
	bare_check("LOCK CMPXCHG8B that does not: EDX:EAX", low | (u64)high << 32, 0x0000000400000003);

	bare_map(0, (u64)pair, PTE_P | PTE_W | PTE_U);
	pair[0] = 0x11;
	pair[1] = 0x22;
	f = bare_user(bare_user_cmpxchg16b, 0, BARE_WINDOW);
	bare_expect("LOCK CMPXCHG16B", VECTOR_EXIT, 0, NULL);
	bare_check("LOCK CMPXCHG16B that fits: ZF", f->r8 & 0xff, true);
	bare_check("LOCK CMPXCHG16B that fits: the low half", pair[0], 0x55);
	bare_check("LOCK CMPXCHG16B that fits: the high half", pair[1], 0x66);
	bare_check("LOCK CMPXCHG16B that does not: ZF", f->r9 & 0xff, false);
	bare_check("LOCK CMPXCHG16B that does not: RAX", f->rax, 0x55);
	bare_user(bare_user_cmpxchg16b_odd, 0, BARE_WINDOW);
	bare_expect("#GP: CMPXCHG16B that is not aligned", GP, 0, bare_user_cmpxchg16b_odd);
	bare_map(0, 0, 0);
}

static void bare_test_bits(void)
{
	volatile u64 m[2] = { 0, 0x100 };
	bool bit;

	asm volatile("lock btsq %2, %0" : "+m"(m[0]), "=@ccc"(bit) : "r"(7ul) : "memory");
	bare_true("LOCK BTS: CF", !bit);
	bare_check("LOCK BTS: memory", m[0], 0x80);
	asm volatile("lock btrq %2, %0" : "+m"(m[0]), "=@ccc"(bit) : "r"(64ul + 8) : "memory");
	bare_true("LOCK BTR of a bit beyond: CF", bit);
	bare_check("LOCK BTR of a bit beyond: memory", m[1], 0);
	asm volatile("lock btcq %2, %0" : "+m"(m[1]), "=@ccc"(bit) : "r"(-64l) : "memory");
	bare_check("LOCK BTC of a bit before: memory", m[0], 0x81);
	asm volatile("btq $0, %1" : "=@ccc"(bit) : "m"(m[0]));
	bare_true("BT: CF", bit);
}

static void bare_test_arithmetic(void)
{
	volatile u32 m = 10;
	bool zero;

	asm volatile("lock incl %0" : "+m"(m));
	asm volatile("lock addl $5, %0" : "+m"(m));
	bare_check("LOCK INC and ADD", m, 16);
	asm volatile("lock negl %0" : "+m"(m));
	bare_check("LOCK NEG", m, (u32)-16);
	asm volatile("lock notl %0" : "+m"(m));
	bare_check("LOCK NOT", m, 15);
	asm volatile("lock subl $15, %0" : "+m"(m), "=@ccz"(zero));
	bare_true("LOCK SUB: ZF", zero);
	asm volatile("lock orl $0xf0, %0; lock andl $0x30, %0; lock xorl $0x11, %0" : "+m"(m));
	bare_check("LOCK OR, AND and XOR", m, 0x21);
}

void bare_test_locked(void)
{
	bare_section("read, change and write");
	bare_test_exchange();
	bare_test_exchange_pairs();
	bare_test_bits();
	bare_test_arithmetic();
}
