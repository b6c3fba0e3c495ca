// SPDX-License-Identifier: MIT
/*
 * The local APIC (SDM 3, 11): how the program uses it, and tests of what it
 * holds back and what it lets through.
 */
#include "bare.h"

#define TIMEOUT_NS	3000000000ul	/* the timer's clock has 1 GHz */
#define SLEEP_SHORT	2000
#define SLEEP_LONG	1000000

u32 bare_apic_read(u32 reg)
{
	if (bare_this_cpu()->x2apic)
		return bare_rdmsr(MSR_X2APIC + reg / 16);
	return *(volatile u32 *)(u64)(BARE_APIC + reg);
}

void bare_apic_write(u32 reg, u32 v)
{
	if (bare_this_cpu()->x2apic)
		bare_wrmsr(MSR_X2APIC + reg / 16, v);
	else
		*(volatile u32 *)(u64)(BARE_APIC + reg) = v;
}

/* The vector's bit in ISR, TMR or IRR. */
bool bare_apic_bit(u32 reg, u8 vector)
{
	return bare_apic_read(reg + vector / 32 * 16) >> vector % 32 & 1;
}

void bare_send(u32 apic_id, u32 command)
{
	if (bare_this_cpu()->x2apic) {
		bare_wrmsr(MSR_X2APIC + APIC_ICR / 16, (u64)apic_id << 32 | command);
		return;
	}
	bare_apic_write(APIC_ICR_HIGH, apic_id << 24);
	bare_apic_write(APIC_ICR, command);
}

void bare_eoi(void)
{
	bare_apic_write(APIC_EOI, 0);
}

void bare_init_apic(void)
{
	bare_this_cpu()->x2apic = false;
	bare_apic_write(APIC_SVR, APIC_SVR_ENABLE | VECTOR_SPURIOUS);
	bare_apic_write(APIC_TIMER_DIVIDE, APIC_DIVIDE_16);
	bare_set_interrupt(VECTOR_TIMEOUT);
}

void bare_use_x2apic(void)
{
	bare_wrmsr(MSR_APIC_BASE, bare_rdmsr(MSR_APIC_BASE) | APIC_BASE_X2);
	bare_this_cpu()->x2apic = true;
}

/* A moment, in which an NMI may come. */
void bare_pass(void)
{
	asm volatile("outb %%al, $0x80; nop" : : : "memory");
}

/*
 * Lets in the interrupts that are pending. A KVM that emulates ring 0 looks for
 * one only when it comes back from user space, so that a port that nobody has is
 * written, once for each that may be pending.
 */
void bare_let_in(void)
{
	asm volatile("sti; nop" : : : "memory");
	for (u32 i = 0; i < 4; i++)
		bare_pass();
	asm volatile("cli" : : : "memory");
}

static bool bare_reached(volatile u32 *count, u32 want)
{
	return (s32)(*count - want) >= 0;
}

/* Halts until *count, which interrupts raise, is at least want. */
void bare_doze(volatile u32 *count, u32 want)
{
	while (!bare_reached(count, want))
		bare_idle();
}

/* A KVM has a one-shot timer that has run out expire anew with another divider. */
static void bare_start_timer(u64 ns)
{
	bare_apic_write(APIC_TIMER_INITIAL, 0);
	bare_apic_write(APIC_TIMER_DIVIDE, APIC_DIVIDE_16);
	bare_apic_write(APIC_LVT_TIMER, VECTOR_TIMEOUT);
	bare_apic_write(APIC_TIMER_INITIAL, ns / 16);
}

static void bare_stop_timer(void)
{
	bare_apic_write(APIC_TIMER_INITIAL, 0);
	bare_apic_write(APIC_LVT_TIMER, APIC_LVT_MASKED);
}

/* The same, by the timer for a bounded time; false: it did not come. */
bool bare_wait(volatile u32 *count, u32 want)
{
	volatile u32 *timeouts = &bare_this_cpu()->taken[VECTOR_TIMEOUT];
	u32 before = *timeouts;

	bare_start_timer(TIMEOUT_NS);
	while (!bare_reached(count, want) && *timeouts == before)
		bare_idle();
	bare_stop_timer();
	return bare_reached(count, want);
}

/* Halts for a while. */
void bare_sleep(u32 ns)
{
	volatile u32 *timeouts = &bare_this_cpu()->taken[VECTOR_TIMEOUT];

	bare_start_timer(ns);
	bare_doze(timeouts, *timeouts + 1);
	bare_stop_timer();
}

/*
 * Waits for a bounded time until something holds that no interrupt tells of. On
 * one engine its time costs instructions, on another one a look costs time.
 */
bool bare_until(bool (*holds)(const void *what), const void *what)
{
	u64 passed = 0;
	u32 ns = SLEEP_SHORT;

	while (!holds(what)) {
		if (passed >= TIMEOUT_NS)
			return false;
		bare_sleep(ns);
		passed += ns;
		if (ns < SLEEP_LONG)
			ns *= 2;
	}
	return true;
}

/* The order in which interrupts came and went: a vector, or its negative. */
static s32 order[16];
static u32 orders;

static void bare_note_order(s32 v)
{
	if (orders < ARRAY_SIZE(order))
		order[orders++] = v;
}

static void bare_check_order(const char *name, const s32 *want, u32 n)
{
	bool good = bare_part(name, " (events)", orders, n);

	for (u32 i = 0; good && i < n; i++)
		good = bare_part(name, " (order)", (u32)order[i], (u32)want[i]);
	if (good)
		bare_ok(name);
	orders = 0;
}

static void bare_send_self(u8 vector)
{
	bare_send(0, ICR_SELF | ICR_ASSERT | vector);
}

static void bare_test_registers(void)
{
	u64 base = bare_rdmsr(MSR_APIC_BASE);

	bare_check("APIC: where it is, enabled, the boot CPU's", base, BARE_APIC | APIC_BASE_ENABLE | APIC_BASE_BSP);
	bare_check("APIC: ID", bare_apic_read(APIC_ID), 0);
	bare_check("APIC: version", bare_apic_read(APIC_VERSION) & 0xff, 0x14);
	bare_check("APIC: spurious vector and enable", bare_apic_read(APIC_SVR), APIC_SVR_ENABLE | VECTOR_SPURIOUS);
	bare_check("APIC: LINT0 is masked", bare_apic_read(APIC_LVT_LINT0) & APIC_LVT_MASKED, APIC_LVT_MASKED);
	bare_apic_write(APIC_LVT_LINT1, 0x7a);
	bare_check("APIC: LINT1 as written", bare_apic_read(APIC_LVT_LINT1), 0x7a);
	bare_apic_write(APIC_SVR, VECTOR_SPURIOUS);
	bare_check("APIC: disabled, its local vectors are masked", bare_apic_read(APIC_LVT_LINT1), APIC_LVT_MASKED | 0x7a);
	bare_apic_write(APIC_LVT_LINT1, 0x7b);
	bare_check("APIC: and stay so", bare_apic_read(APIC_LVT_LINT1), APIC_LVT_MASKED | 0x7b);
	bare_apic_write(APIC_SVR, APIC_SVR_ENABLE | VECTOR_SPURIOUS);
}

static void bare_test_held(void)
{
	volatile u32 *taken = &bare_this_cpu()->taken[0x51];

	bare_set_interrupt(0x51);
	bare_send_self(0x51);
	bare_check("an IPI to oneself is held while IF is clear", *taken, 0);
	bare_true("and pends in IRR", bare_apic_bit(APIC_IRR, 0x51));
	bare_send_self(0x51);
	bare_let_in();
	bare_check("it comes once, sent twice", *taken, 1);
	bare_true("and has left IRR", !bare_apic_bit(APIC_IRR, 0x51));
	bare_true("and ISR", !bare_apic_bit(APIC_ISR, 0x51));
	if (bare_unless(FLAW_TCG, "not between STI and the instruction behind it")) {
		bare_send_self(0x51);
		asm volatile("sti; cli" : : : "memory");
		bare_check("not between STI and the instruction behind it", *taken, 1);
	}
	if (bare_unless(FLAW_RING3, "but at once behind POPF")) {
		bare_send_self(0x51);
		asm volatile("pushfq; orl %0, (%%rsp); popfq; cli" : : "i"(FLAG_IF) : "memory", "cc");
		bare_check("but at once behind POPF", *taken, 2);
	}
	*taken = 0;
	bare_send_self(0x51);
	bare_idle();
	bare_check("HLT ends by what was pending", *taken, 1);
}

static bool bare_hook_note(struct bare_frame *f)
{
	bare_note_order(f->vector);
	bare_eoi();
	return true;
}

static u32 in_service, priority;

/* Sends a higher, a lower and an equal class, and lets in what may come. */
static bool bare_hook_nest(struct bare_frame *f)
{
	bare_note_order(f->vector);
	in_service = bare_apic_bit(APIC_ISR, f->vector);
	priority = bare_apic_read(APIC_PPR);
	bare_send_self(0x31);
	bare_send_self(0x5f);
	bare_send_self(0x71);
	bare_let_in();
	bare_note_order(-(s32)f->vector);
	bare_eoi();
	return true;
}

static void bare_test_priorities(void)
{
	static const s32 by_vector[] = { 0x71, 0x5f, 0x31 };
	static const s32 nested[] = { 0x52, 0x71, -0x52, 0x5f, 0x31 };

	bare_set_hook(0x31, bare_hook_note);
	bare_set_hook(0x5f, bare_hook_note);
	bare_set_hook(0x71, bare_hook_note);
	bare_set_hook(0x52, bare_hook_nest);
	bare_send_self(0x31);
	bare_send_self(0x71);
	bare_send_self(0x5f);
	bare_let_in();
	bare_check_order("the highest vector comes first", by_vector, ARRAY_SIZE(by_vector));
	if (bare_unless(FLAW_RING3, "only a higher class interrupts a handler", "in the handler its bit is in ISR",
			"in the handler PPR has its class")) {
		bare_send_self(0x52);
		bare_let_in();
		bare_check_order("only a higher class interrupts a handler", nested, ARRAY_SIZE(nested));
		bare_true("in the handler its bit is in ISR", in_service);
		bare_check("in the handler PPR has its class", priority, 0x50);
	}
}

/* Sends itself again, which has to wait for the EOI. */
static bool bare_hook_again(struct bare_frame *f)
{
	volatile u32 *taken = &bare_this_cpu()->taken[f->vector];

	bare_note_order(f->vector);
	if (!(*taken)++) {
		bare_send_self(f->vector);
		bare_let_in();
		bare_note_order(-(s32)f->vector);
	}
	bare_eoi();
	return true;
}

static void bare_test_again(void)
{
	static const s32 after[] = { 0x53, -0x53, 0x53 };

	if (!bare_unless(FLAW_RING3, "a vector that comes in its own handler comes after it"))
		return;
	bare_set_hook(0x53, bare_hook_again);
	bare_send_self(0x53);
	bare_let_in();
	bare_check_order("a vector that comes in its own handler comes after it", after, ARRAY_SIZE(after));
}

static void bare_test_task_priority(void)
{
	struct bare_cpu *cpu = bare_this_cpu();

	bare_set_interrupt(0x51);
	bare_set_interrupt(0x61);
	bare_write_cr8(5);
	bare_check("CR8 is TPR", bare_apic_read(APIC_TPR), 0x50);
	bare_check("and PPR, if nothing is in service", bare_apic_read(APIC_PPR), 0x50);
	bare_send_self(0x51);
	bare_send_self(0x61);
	bare_let_in();
	bare_check("CR8 holds its own class", cpu->taken[0x51], 0);
	bare_check("CR8 lets a higher class in", cpu->taken[0x61], 1);
	bare_apic_write(APIC_TPR, 0x40);
	bare_check("TPR is CR8", bare_read_cr8(), 4);
	bare_let_in();
	bare_check("with a lower TPR what was held comes", cpu->taken[0x51], 1);
	bare_write_cr8(15);
	bare_send_self(0x61);
	bare_let_in();
	bare_check("CR8 of 15 holds all", cpu->taken[0x61], 1);
	bare_write_cr8(0);
	bare_let_in();
	bare_check("CR8 of 0 holds none", cpu->taken[0x61], 2);
}

static u32 nmi_depth, nmi_deepest;

/* Sends itself another, which has to wait for the IRET. */
static bool bare_hook_nmi(struct bare_frame *f)
{
	struct bare_cpu *cpu = bare_this_cpu();

	(void)f;
	nmi_depth++;
	if (nmi_depth > nmi_deepest)
		nmi_deepest = nmi_depth;
	if (!cpu->nmis++) {
		bare_send(0, ICR_NMI | ICR_ASSERT);
		bare_pass();
	}
	nmi_depth--;
	return true;
}

static void bare_test_nmi(void)
{
	struct bare_cpu *cpu = bare_this_cpu();

	bare_set_hook(NMI, bare_hook_nmi);
	bare_send(0, ICR_NMI | ICR_ASSERT);
	bare_pass();
	bare_pass();
	bare_check("an NMI comes although IF is clear, and another after it", cpu->nmis, 2);
	bare_check("but not in its handler", nmi_deepest, 1);
	bare_set_hook(NMI, NULL);
}

bool bare_read_msr(u64 index)
{
	bare_rdmsr(index);
	return true;
}

void bare_test_apic(void)
{
	bare_section("local APIC");
	bare_test_registers();
	bare_test_held();
	bare_test_priorities();
	bare_test_again();
	bare_test_task_priority();
	bare_test_nmi();
	bare_send(0, ICR_ASSERT | 0x51);
	bare_let_in();
	bare_check("an IPI to one's own ID", bare_this_cpu()->taken[0x51], 2);
	bare_probe(bare_read_msr, MSR_X2APIC + APIC_ID / 16);
	bare_expect("#GP: a register of x2APIC mode without it", GP, 0, NULL);
}
