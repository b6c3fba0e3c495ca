// SPDX-License-Identifier: MIT
/*
 * Descriptor tables, and what becomes of a trap: a hook takes it and the code
 * goes on, or it ends the code that a test runs to see how it ends.
 */
#include "bare.h"

/* SDM 3, figure 6-8 and 7-11: a gate and a TSS descriptor of 64-bit mode. */
struct bare_gate {
	u16 offset_low, selector;
	u8 ist, type;
	u16 offset_middle;
	u32 offset_high, reserved;
} __attribute__((packed));

struct bare_tss_descriptor {
	u16 limit, base_low;
	u8 base_middle, type, limit_high, base_high;
	u32 base_top, reserved;
} __attribute__((packed));

struct bare_table {
	u16 limit;
	u64 base;
} __attribute__((packed));

#define GATE_INTERRUPT	0x0e
#define GATE_PRESENT	0x80
#define TSS_AVAILABLE	0x89

struct bare_cpu bare_cpus[BARE_CPUS];
u8 bare_stacks[BARE_CPUS][BARE_STACK] __attribute__((aligned(16)));
u8 bare_user_traps[BARE_CPUS][BARE_STACK] __attribute__((aligned(16)));
u8 bare_ist_stacks[BARE_CPUS][3][BARE_STACK] __attribute__((aligned(16)));

static u64 gdt[SEL_END / 8] __attribute__((aligned(16))) = {
	[SEL_CODE32 / 8]	= 0x00cf9b000000ffff,
	[SEL_CODE / 8]		= 0x00af9b000000ffff,
	[SEL_DATA / 8]		= 0x00cf93000000ffff,
	[SEL_USER_DATA / 8]	= 0x00cff3000000ffff,
	[SEL_USER_CODE / 8]	= 0x00affb000000ffff,
	[SEL_USER_CODE32 / 8]	= 0x00cffb000000ffff,
	[SEL_ABSENT_DATA / 8]	= 0x00cf13000000ffff,
	[SEL_BASED / 8]		= 0x12cff3345000ffff,
	[SEL_ABSENT_CODE / 8]	= 0x00af1b000000ffff,
};
static struct bare_gate idt[256] __attribute__((aligned(16)));
static bare_hook *hooks[256];
u16 bare_trap_ss;

struct bare_cpu *bare_this_cpu(void)
{
	u16 selector;

	asm volatile("str %0" : "=r"(selector));
	return &bare_cpus[(selector - SEL_TSS) / 16];
}

void bare_set_gate(u8 vector, bool present, u8 dpl, u8 ist)
{
	u64 offset = (u64)bare_gates + 16 * vector;

	idt[vector] = (struct bare_gate){
		.offset_low = offset,
		.selector = SEL_CODE,
		.ist = ist,
		.type = GATE_INTERRUPT | dpl << 5 | (present ? GATE_PRESENT : 0),
		.offset_middle = offset >> 16,
		.offset_high = offset >> 32,
	};
}

void bare_init_gates(void)
{
	for (u32 v = 0; v < 256; v++)
		bare_set_gate(v, true, 0, 0);
	bare_set_gate(BP, true, 3, 0);
	bare_set_gate(VECTOR_EXIT, true, 3, 0);
	bare_set_gate(DF, true, 0, IST_DF);
	bare_set_gate(NMI, true, 0, IST_NMI);
}

static void bare_init_tss(struct bare_cpu *cpu)
{
	struct bare_tss_descriptor d = {
		.limit = sizeof(cpu->tss) - 1,
		.base_low = (u64)&cpu->tss,
		.base_middle = (u64)&cpu->tss >> 16,
		.base_high = (u64)&cpu->tss >> 24,
		.type = TSS_AVAILABLE,
	};

	cpu->tss.rsp[0] = (u64)bare_user_traps[cpu->index + 1];
	for (u32 i = 0; i < 3; i++)
		cpu->tss.ist[i] = (u64)(bare_ist_stacks[cpu->index] + i + 1);
	cpu->tss.iomap = offsetof(struct bare_tss, ports);
	memset(cpu->tss.ports, 0xff, sizeof(cpu->tss.ports));
	memcpy(&gdt[SEL_TSS / 8 + 2 * cpu->index], &d, sizeof(d));
}

/* Gives this CPU, which is number index, its tables and null segments. */
void bare_init_cpu(u32 index)
{
	struct bare_table gdtr = { sizeof(gdt) - 1, (u64)gdt };
	struct bare_table idtr = { sizeof(idt) - 1, (u64)idt };
	u16 tr = SEL_TSS + 16 * index;

	bare_cpus[index].index = index;
	bare_init_tss(&bare_cpus[index]);
	asm volatile("lgdt %0; lidt %1; ltr %2" : : "m"(gdtr), "m"(idtr), "r"(tr) : "memory");
	asm volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%fs; mov %0, %%gs; lldt %w0" : : "r"(0));
}

/* The hook is asked about each trap of the vector; NULL: none. */
void bare_set_hook(u8 vector, bare_hook *hook)
{
	hooks[vector] = hook;
}

static bool bare_count(struct bare_frame *f)
{
	bare_this_cpu()->taken[f->vector]++;
	bare_eoi();
	return true;
}

/* Interrupts of the vector are counted and ended. */
void bare_set_interrupt(u8 vector)
{
	bare_this_cpu()->taken[vector] = 0;
	bare_set_hook(vector, bare_count);
}

/* Called by start.S. */
void bare_trap(struct bare_frame *f)
{
	extern char bare_idle_hlt[];
	struct bare_cpu *cpu = bare_this_cpu();
	bare_hook *hook = hooks[f->vector];
	u64 context = cpu->context;

	if (hook && hook(f)) {
		if (f->rip == (u64)bare_idle_hlt)
			f->rip++;
		return;
	}
	if (!context) {
		bare_not_ok("unexpected trap", " (vector)", f->vector, 0);
		bare_not_ok("unexpected trap", " (error)", f->error, 0);
		bare_not_ok("unexpected trap", " (RIP)", f->rip, 0);
		bare_not_ok("unexpected trap", " (CR2)", bare_read_cr2(), 0);
		bare_end();
	}
	cpu->trap = *f;
	cpu->cr2 = bare_read_cr2();
	cpu->frame = (u64)f;
	cpu->context = 0;
	bare_unwind(context);
}

/* Runs fn in ring 0 until it returns or a trap ends it. */
struct bare_frame *bare_probe(void *fn, u64 argument)
{
	struct bare_cpu *cpu = bare_this_cpu();

	if (bare_call(&cpu->context, fn, argument))
		cpu->trap.vector = BARE_RETURNED;
	return &cpu->trap;
}

/* Runs code in ring 3 until a trap ends it; INT VECTOR_EXIT is one. */
struct bare_frame *bare_user_in(u16 code, void *entry, u64 rflags, u64 argument)
{
	struct bare_cpu *cpu = bare_this_cpu();

	bare_enter_user(&cpu->context, entry, rflags | FLAG_ONE, argument, code);
	return &cpu->trap;
}

struct bare_frame *bare_user(void *entry, u64 rflags, u64 argument)
{
	return bare_user_in(SEL_USER_CODE, entry, rflags, argument);
}

/* Checks how the last probe ended; rip NULL: wherever. */
void bare_expect(const char *name, u64 vector, u64 error, const void *rip)
{
	struct bare_frame *f = &bare_this_cpu()->trap;

	if (!bare_part(name, " (vector)", f->vector, vector))
		return;
	if (vector != BARE_RETURNED) {
		if (!bare_part(name, " (error code)", f->error, error))
			return;
		if (rip && !bare_part(name, " (RIP)", f->rip, (u64)rip))
			return;
	}
	bare_ok(name);
}

/* The gate of bare_user_gate is ring 0's, so that the INT is a #GP. */
static u32 bare_find_flaws(void)
{
	extern char bare_user_gate[];
	struct bare_frame *f = bare_user(bare_user_gate, 0, 0);

	if (f->vector == UD)
		return FLAW_RING3;
	if (f->vector == GP && f->error == (TEST_GATE << 4 | 2))
		return FLAW_TCG;
	return 0;
}

/*
 * Asks whether checks can be done that fail on hosts with these flaws, none of
 * them the engine's:
 *
 * FLAW_RING3: INT n is #UD but for INT3 and INT 4, and SYSCALL gets lost. CR0.TS,
 * CR0.AM, CR4.OSFXSR, IF and IOPL don't count in ring 3. Some instructions are
 * not known in ring 0. The local APIC ends an interrupt as soon as it has come.
 *
 * FLAW_TCG: error codes have the gate's number times 16, or lack the present bit
 * for a reserved one. There is no #AC, no #XM, no #SS for an address, nor a #GP
 * for CR8 and a segment's base. SYSCALL and SYSRET get flags wrong. An IRET in
 * ring 3 reads its stack as ring 0, which SMAP forbids. An exit from the guest
 * right behind STI ends its shadow, so that an interrupt comes before the next
 * instruction, which may be the HLT that waits for it.
 *
 * If they can't, it says so on the second UART and counts them as good, since
 * the transcript has to be the same. Who runs the program knows his host, and
 * whether he may accept that.
 */
bool bare_unless_flawed(u32 flaws, const char *const *names)
{
	static bool known;
	static u32 found;

	if (!known) {
		found = bare_find_flaws();
		known = true;
	}
	if (!(found & flaws))
		return true;
	for (; *names; names++) {
		bare_note(*names);
		bare_ok(*names);
	}
	return false;
}
