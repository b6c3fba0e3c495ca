// SPDX-License-Identifier: MIT
/*
 * The local APIC's timer (SDM 3, 11.5.4): that it comes, and when not. How long
 * it takes is another matter on each engine.
 */
#include "bare.h"

#define VECTOR	0x42
#define SOON	100000		/* ns, or ticks of the time-stamp counter */
#define LATER	1000000
#define NEVER	(1ul << 44)

static volatile u32 *bare_taken(void)
{
	return &bare_this_cpu()->taken[VECTOR];
}

static void bare_test_one_shot(void)
{
	u32 first, second;

	bare_set_interrupt(VECTOR);
	bare_apic_write(APIC_TIMER_DIVIDE, APIC_DIVIDE_1);
	bare_check("timer: the divider as written", bare_apic_read(APIC_TIMER_DIVIDE), APIC_DIVIDE_1);
	bare_apic_write(APIC_LVT_TIMER, VECTOR);
	bare_apic_write(APIC_TIMER_INITIAL, SOON);
	bare_doze(bare_taken(), 1);
	bare_check("timer: one shot", *bare_taken(), 1);
	bare_check("timer: the count has run out", bare_apic_read(APIC_TIMER_CURRENT), 0);
	bare_check("timer: the initial count stays", bare_apic_read(APIC_TIMER_INITIAL), SOON);
	bare_apic_write(APIC_TIMER_INITIAL, 0xffffffff);
	first = bare_apic_read(APIC_TIMER_CURRENT);
	second = bare_apic_read(APIC_TIMER_CURRENT);
	bare_true("timer: the count runs down", first < 0xffffffff && second < first);
	bare_apic_write(APIC_TIMER_INITIAL, 0);
	bare_check("timer: an initial count of 0 stops it", bare_apic_read(APIC_TIMER_CURRENT), 0);
	bare_check("timer: one shot came once", *bare_taken(), 1);
}

static void bare_test_periodic(void)
{
	bare_set_interrupt(VECTOR);
	bare_apic_write(APIC_LVT_TIMER, APIC_PERIODIC | VECTOR);
	bare_apic_write(APIC_TIMER_INITIAL, LATER);
	bare_doze(bare_taken(), 3);
	bare_true("timer: periodic", *bare_taken() >= 3);
	bare_apic_write(APIC_TIMER_INITIAL, 0);
	bare_check("timer: periodic no more", bare_apic_read(APIC_TIMER_CURRENT), 0);
	bare_let_in();
}

static void bare_test_masked(void)
{
	bare_set_interrupt(VECTOR);
	bare_apic_write(APIC_LVT_TIMER, APIC_LVT_MASKED | VECTOR);
	bare_apic_write(APIC_TIMER_INITIAL, 1000);
	while (bare_apic_read(APIC_TIMER_CURRENT))
		;
	bare_let_in();
	bare_check("timer: masked, it runs out in silence", *bare_taken(), 0);
	bare_true("timer: masked, nothing pends", !bare_apic_bit(APIC_IRR, VECTOR));
	bare_apic_write(APIC_TIMER_INITIAL, 0);
}

static void bare_test_deadline(void)
{
	u64 never = bare_rdtsc() + NEVER;

	bare_set_interrupt(VECTOR);
	bare_wrmsr(MSR_TSC_DEADLINE, never);
	bare_check("deadline: ignored in another mode", bare_rdmsr(MSR_TSC_DEADLINE), 0);
	bare_apic_write(APIC_LVT_TIMER, APIC_DEADLINE | VECTOR);
	bare_wrmsr(MSR_TSC_DEADLINE, never);
	bare_check("deadline: as written", bare_rdmsr(MSR_TSC_DEADLINE), never);
	bare_wrmsr(MSR_TSC_DEADLINE, 0);
	bare_check("deadline: taken back", bare_rdmsr(MSR_TSC_DEADLINE), 0);
	bare_wrmsr(MSR_TSC_DEADLINE, bare_rdtsc() + SOON);
	bare_doze(bare_taken(), 1);
	bare_check("deadline: it comes", *bare_taken(), 1);
	bare_check("deadline: and is over", bare_rdmsr(MSR_TSC_DEADLINE), 0);
	bare_wrmsr(MSR_TSC_DEADLINE, 1);
	bare_doze(bare_taken(), 2);
	bare_check("deadline: in the past, it comes", *bare_taken(), 2);
	bare_apic_write(APIC_TIMER_INITIAL, SOON);
	bare_check("deadline: there is no count", bare_apic_read(APIC_TIMER_CURRENT), 0);
	bare_apic_write(APIC_LVT_TIMER, APIC_LVT_MASKED);
}

void bare_test_timer(void)
{
	bare_section("timer");
	bare_test_one_shot();
	bare_test_periodic();
	bare_test_masked();
	bare_test_deadline();
}
