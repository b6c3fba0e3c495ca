// SPDX-License-Identifier: MIT
/*
 * Memory that is a device's: the host bridge's configuration space in the ECAM
 * window, which reads as it is, and a place that nobody has.
 */
#include "bare.h"

#define ECAM(offset)	(BARE_ECAM + (offset))
#define NOBODY		BARE_UNCLAIMED

#define BARE_MMIO(bits)						\
static u##bits bare_read##bits(u64 address)			\
{								\
	return *(volatile u##bits *)address;			\
}								\
								\
static void bare_write##bits(u64 address, u##bits v)		\
{								\
	*(volatile u##bits *)address = v;			\
}

BARE_MMIO(8)
BARE_MMIO(16)
BARE_MMIO(32)
BARE_MMIO(64)

static void bare_test_reads(void)
{
	u32 id = bare_read32(ECAM(0)), bytes = 0, halves;

	bare_check("a host bridge is there", bare_read16(ECAM(10)), 0x0600);
	for (u32 i = 0; i < 4; i++)
		bytes |= (u32)bare_read8(ECAM(i)) << 8 * i;
	bare_check("reads of 1 byte are those of 4", bytes, id);
	halves = bare_read16(ECAM(0)) | (u32)bare_read16(ECAM(2)) << 16;
	bare_check("reads of 2 bytes are those of 4", halves, id);
	bare_check("reads of 8 bytes are those of 4", bare_read64(ECAM(0)), id | (u64)bare_read32(ECAM(4)) << 32);
	bare_check("a read that is not aligned", bare_read32(ECAM(9)), bare_read32(ECAM(8)) >> 8 | (u32)bare_read8(ECAM(12)) << 24);
	bare_check("a read across two pages: absent functions", bare_read32(ECAM(0x1ffe)), 0xffffffff);
}

static void bare_test_writes(void)
{
	u32 id = bare_read32(ECAM(0));

	bare_write8(ECAM(0), ~id);
	bare_write16(ECAM(0), ~id);
	bare_write32(ECAM(0), ~id);
	bare_write64(ECAM(0), ~(u64)id);
	bare_check("what is read-only stays", bare_read32(ECAM(0)), id);
}

static void bare_test_nowhere(void)
{
	bare_check("a read of 1 byte from nobody", bare_read8(NOBODY), 0xff);
	bare_check("a read of 2 bytes from nobody", bare_read16(NOBODY), 0xffff);
	bare_check("a read of 4 bytes from nobody", bare_read32(NOBODY), 0xffffffff);
	bare_check("a read of 8 bytes from nobody", bare_read64(NOBODY), 0xffffffffffffffff);
	bare_write8(NOBODY, 0);
	bare_write16(NOBODY, 0);
	bare_write32(NOBODY, 0);
	bare_write64(NOBODY, 0);
	bare_check("a write to nobody changes nothing", bare_read64(NOBODY), 0xffffffffffffffff);
}

/* Devices are not only moved from and to. */
static void bare_test_operands(void)
{
	u32 id = bare_read32(ECAM(0)), v = 1, words[3] = { 0, 0, 0x77 };
	void *to = words, *from = (void *)ECAM(0);
	u64 n = 2, wide = 0;
	bool flag;

	asm volatile("addl %1, %0" : "+r"(v) : "m"(*(volatile u32 *)ECAM(0)));
	bare_check("ADD of a device to a register", v, id + 1);
	asm volatile("cmpl %2, %1" : "=@ccz"(flag) : "m"(*(volatile u32 *)ECAM(0)), "r"(id));
	bare_true("CMP with a device", flag);
	asm volatile("testb $1, %1" : "=@ccz"(flag) : "m"(*(volatile u8 *)NOBODY));
	bare_true("TEST of a device", !flag);
	asm volatile("movzwl %1, %0" : "=r"(v) : "m"(*(volatile u16 *)ECAM(0)));
	bare_check("MOVZX from a device", v, (u16)id);
	asm volatile("movsbq %1, %0" : "=r"(wide) : "m"(*(volatile u8 *)NOBODY));
	bare_check("MOVSX from a device", wide, -1ul);
	asm volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	bare_check("REP MOVSL from a device: the first", words[0], id);
	bare_check("REP MOVSL from a device: the second", words[1], bare_read32(ECAM(4)));
	bare_check("REP MOVSL from a device: no more", words[2], 0x77);
	asm volatile("pushq %1; popq %0" : "=r"(wide) : "m"(*(volatile u64 *)NOBODY));
	bare_check("PUSH of a device", wide, -1ul);
	asm volatile("orl $1, %0" : "+m"(*(volatile u32 *)NOBODY));
	asm volatile("lock incl %0" : "+m"(*(volatile u32 *)NOBODY));
	wide = 5;
	asm volatile("xchgl %k0, %1" : "+r"(wide), "+m"(*(volatile u32 *)NOBODY));
	bare_check("XCHG with a device", wide, 0xffffffff);
	/* RAM to a device and back by one instruction of two memory operands. */
	from = words;
	to = (void *)NOBODY;
	n = 2;
	asm volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	bare_check("REP MOVSL to a device: RDI", (u64)to, NOBODY + 8);
}

void bare_test_mmio(void)
{
	bare_section("memory of devices");
	bare_test_reads();
	bare_test_writes();
	bare_test_nowhere();
	bare_test_operands();
}
