// SPDX-License-Identifier: MIT
/*
 * Segment registers and their bases, descriptor tables, and what CPUID says.
 */
#include "bare.h"

extern char bare_user_fs_base[], bare_user_load_ds[];

struct bare_table_register {
	u16 limit;
	u64 base;
} __attribute__((packed));

#define BARE_SEGMENT(name)					\
static void bare_load_##name(u16 selector)			\
{								\
	asm volatile("mov %0, %%" #name : : "r"((u32)selector));\
}								\
								\
static u16 bare_read_##name(void)				\
{								\
	u32 selector;						\
								\
	asm volatile("mov %%" #name ", %0" : "=r"(selector));	\
	return selector;					\
}

BARE_SEGMENT(ds)
BARE_SEGMENT(es)
BARE_SEGMENT(fs)
BARE_SEGMENT(gs)

static void bare_test_selectors(void)
{
	bare_load_ds(SEL_DATA);
	bare_check("DS: ring 0's data", bare_read_ds(), SEL_DATA);
	bare_load_ds(SEL_USER_DATA);
	bare_check("DS: ring 3's data", bare_read_ds(), SEL_USER_DATA);
	bare_load_es(SEL_CODE);
	bare_check("ES: code that can be read", bare_read_es(), SEL_CODE);
	bare_load_es(3);
	bare_check("ES: null, with a privilege", bare_read_es(), 3);
	bare_load_ds(0);
	bare_load_es(0);
	bare_check("DS: null", bare_read_ds(), 0);
}

static u64 bare_fs_word(void)
{
	u64 v;

	asm volatile("mov %%fs:8, %0" : "=r"(v));
	return v;
}

static u64 bare_gs_word(void)
{
	u64 v;

	asm volatile("mov %%gs:8, %0" : "=r"(v));
	return v;
}

static void bare_test_bases(void)
{
	static u64 one[2] = { 0, 0x1111 }, two[2] = { 0, 0x2222 };

	bare_wrmsr(MSR_FS_BASE, (u64)one);
	bare_check("FS base by MSR", bare_fs_word(), 0x1111);
	bare_wrmsr(MSR_GS_BASE, (u64)two);
	bare_check("GS base by MSR", bare_gs_word(), 0x2222);
	bare_wrmsr(MSR_KERNEL_GS_BASE, (u64)one);
	asm volatile("swapgs" : : : "memory");
	bare_check("SWAPGS: the other base", bare_gs_word(), 0x1111);
	bare_check("SWAPGS: the MSR has the first", bare_rdmsr(MSR_KERNEL_GS_BASE), (u64)two);
	bare_check("SWAPGS: the base's MSR follows", bare_rdmsr(MSR_GS_BASE), (u64)one);
	asm volatile("swapgs" : : : "memory");
	bare_check("SWAPGS: and back", bare_gs_word(), 0x2222);
	bare_wrmsr(MSR_FS_BASE, 0xffff800000000000);
	bare_check("FS base: a negative address", bare_rdmsr(MSR_FS_BASE), 0xffff800000000000);
	bare_load_fs(SEL_BASED);
	bare_check("FS: the base from a descriptor", bare_rdmsr(MSR_FS_BASE), BARE_BASED);
	bare_load_gs(SEL_BASED);
	bare_check("GS: the base from a descriptor", bare_rdmsr(MSR_GS_BASE), BARE_BASED);
	bare_check("GS: the selector", bare_read_gs(), SEL_BASED);
	bare_load_fs(0);
	bare_load_gs(0);
	bare_check("FS: null", bare_read_fs(), 0);
}

static void bare_test_base_instructions(void)
{
	struct bare_frame *f;

	if (!bare_unless(FLAW_RING3, "#UD: WRFSBASE without CR4.FSGSBASE", "WRFSBASE and RDGSBASE in ring 3"))
		return;
	bare_user(bare_user_fs_base, 0, 0x7000);
	bare_expect("#UD: WRFSBASE without CR4.FSGSBASE", UD, 0, bare_user_fs_base);
	bare_write_cr4(bare_read_cr4() | CR4_FSGSBASE);
	bare_wrmsr(MSR_GS_BASE, 0x1234);
	f = bare_user(bare_user_fs_base, 0, 0x7000);
	if (bare_part("WRFSBASE and RDGSBASE in ring 3", " (GS)", f->rax, 0x1234))
		bare_check("WRFSBASE and RDGSBASE in ring 3", bare_rdmsr(MSR_FS_BASE), 0x7000);
	bare_write_cr4(bare_read_cr4() & ~CR4_FSGSBASE);
}

static void bare_test_user_segments(void)
{
	struct bare_frame *f;

	if (!bare_unless(FLAW_RING3, "DS in ring 3: its own data", "#GP: DS in ring 3: ring 0's data"))
		return;
	f = bare_user(bare_user_load_ds, 0, SEL_USER_DATA);
	bare_check("DS in ring 3: its own data", f->rax, SEL_USER_DATA);
	bare_user(bare_user_load_ds, 0, SEL_DATA);
	bare_expect("#GP: DS in ring 3: ring 0's data", GP, SEL_DATA, bare_user_load_ds);
	bare_load_ds(0);
}

static void bare_test_tables(void)
{
	struct bare_table_register gdtr, idtr;
	u16 ldt = 1, tr;

	asm volatile("sgdt %0; sidt %1" : "=m"(gdtr), "=m"(idtr));
	bare_check("SGDT: limit", gdtr.limit, SEL_END - 1);
	bare_check("SIDT: limit", idtr.limit, 256 * 16 - 1);
	asm volatile("sldt %0; str %1" : "=m"(ldt), "=m"(tr));
	bare_check("SLDT: none", ldt, 0);
	bare_check("STR", tr, SEL_TSS);
}

/* SDM 2, LAR: the limit's bits are undefined. */
#define LAR_DEFINED	0x00f0ff00

/* LAR, LSL, VERR and VERW: ZF says that the selector is good. */
static void bare_test_rights(void)
{
	u32 rights = 0, limit = 0;
	bool good, bad;

	if (!bare_unless(FLAW_RING3, "LAR", "LSL", "VERR and VERW"))
		return;
	asm volatile("lar %2, %0" : "=r"(rights), "=@ccz"(good) : "r"(SEL_USER_DATA));
	bare_check("LAR", good ? rights & LAR_DEFINED : 0, 0x00c0f300);
	asm volatile("lsl %2, %0" : "=r"(limit), "=@ccz"(good) : "r"(SEL_USER_DATA));
	bare_check("LSL", good ? limit : 0, 0xffffffff);
	asm volatile("verw %w1" : "=@ccz"(good) : "r"(SEL_USER_DATA));
	asm volatile("verr %w1" : "=@ccz"(bad) : "r"(SEL_BEYOND));
	bare_check("VERR and VERW", good && !bad, true);
}

static void bare_cpuid(u32 leaf, u32 r[4])
{
	asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(0));
}

/* vmm/x86/cpuid.go has the table. */
static void bare_test_cpuid(void)
{
	const u32 wanted1c = 1 << 0 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 23 | 1 << 24 | 1u << 31;
	const u32 absent1c = 1 << 12 | 1 << 25 | 1 << 26 | 1 << 28;	/* FMA, AES, XSAVE, AVX */
	u32 r[4];

	if (!bare_unless(FLAW_RING3, "CPUID: features", "CPUID: the hypervisor", "CPUID: the APIC's ID"))
		return;
	bare_cpuid(1, r);
	bare_check("CPUID: features", r[2] & (wanted1c | absent1c), wanted1c);
	bare_cpuid(0x40000000, r);
	bare_check("CPUID: the hypervisor", r[1] | (u64)r[2] << 32, 0x69666d766f666966);	/* "fifovmfi" */
	bare_cpuid(0xb, r);
	bare_check("CPUID: the APIC's ID", r[3], 0);
}

static void bare_test_tsc(void)
{
	u64 first = bare_rdtsc(), second = bare_rdtsc();

	bare_true("RDTSC goes forward", second > first);
}

void bare_test_segments(void)
{
	bare_section("segments and CPUID");
	bare_test_selectors();
	bare_test_bases();
	bare_test_base_instructions();
	bare_test_user_segments();
	bare_test_tables();
	bare_test_rights();
	bare_test_cpuid();
	bare_test_tsc();
}
