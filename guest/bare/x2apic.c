// SPDX-License-Identifier: MIT
/*
 * x2APIC mode (SDM 3, 11.12): the same local APIC, by MSRs. Both CPUs go there
 * and stay.
 */
#include "bare.h"

static volatile bool switched;

/* The answer has to wait until both are in the same mode. */
static void bare_order_x2apic(void)
{
	bare_use_x2apic();
	while (!switched)
		asm volatile("pause" : : : "memory");
}

static void bare_order_x2apic_identity(void)
{
	bare_answer = bare_apic_read(APIC_ID) | (u64)bare_apic_read(APIC_LDR) << 32;
}

static bool bare_write_msr(u64 index)
{
	bare_wrmsr(index, 0);
	return true;
}

static bool bare_leave_x2apic(u64 bit)
{
	bare_wrmsr(MSR_APIC_BASE, bare_rdmsr(MSR_APIC_BASE) & ~bit);
	return true;
}

static void bare_test_x2apic_registers(void)
{
	bare_check("x2APIC: ID", bare_apic_read(APIC_ID), 0);
	bare_check("x2APIC: logical ID", bare_apic_read(APIC_LDR), 1);
	bare_check("x2APIC: version", bare_apic_read(APIC_VERSION) & 0xff, 0x14);
	bare_probe(bare_read_msr, MSR_X2APIC + APIC_EOI / 16);
	bare_expect("#GP: read of EOI", GP, 0, NULL);
	bare_probe(bare_write_msr, MSR_X2APIC + APIC_ID / 16);
	bare_expect("#GP: write of the ID", GP, 0, NULL);
	bare_probe(bare_read_msr, MSR_X2APIC + APIC_DFR / 16);
	bare_expect("#GP: the destination format", GP, 0, NULL);
	bare_probe(bare_read_msr, MSR_X2APIC + APIC_ICR_HIGH / 16);
	bare_expect("#GP: the upper half of ICR by itself", GP, 0, NULL);
	bare_probe(bare_leave_x2apic, APIC_BASE_X2);
	bare_expect("#GP: from x2APIC to xAPIC", GP, 0, NULL);
}

static void bare_test_x2apic_interrupts(void)
{
	struct bare_cpu *cpu = bare_this_cpu();
	volatile u32 *its = &bare_cpus[SECOND].taken[VECTOR_ANSWER];
	u32 before = *its;

	bare_set_interrupt(0x55);
	bare_apic_write(APIC_SELF_IPI, 0x55);
	bare_true("x2APIC: SELF IPI pends", bare_apic_bit(APIC_IRR, 0x55));
	bare_let_in();
	bare_check("x2APIC: and comes", cpu->taken[0x55], 1);
	bare_write_cr8(6);
	bare_check("x2APIC: TPR", bare_apic_read(APIC_TPR), 0x60);
	bare_apic_write(APIC_SELF_IPI, 0x55);
	bare_let_in();
	bare_check("x2APIC: CR8 holds", cpu->taken[0x55], 1);
	bare_write_cr8(0);
	bare_let_in();
	bare_check("x2APIC: CR8 lets in", cpu->taken[0x55], 2);
	bare_send(SECOND, ICR_ASSERT | VECTOR_ANSWER);
	bare_true("x2APIC: an IPI by ID", bare_wait(its, before + 1));
	bare_send(2, ICR_ASSERT | ICR_LOGICAL | VECTOR_ANSWER);
	bare_true("x2APIC: an IPI by logical destination", bare_wait(its, before + 2));
	bare_send(0, ICR_ASSERT | ICR_OTHERS | VECTOR_ANSWER);
	bare_true("x2APIC: an IPI to all others", bare_wait(its, before + 3));
	bare_apic_write(APIC_LVT_TIMER, 0x55);
	bare_apic_write(APIC_TIMER_INITIAL, 1000);
	bare_doze(&cpu->taken[0x55], 3);
	bare_check("x2APIC: the timer", cpu->taken[0x55], 3);
}

void bare_test_x2apic(void)
{
	bare_section("x2APIC");
	bare_tell(bare_order_x2apic);
	bare_use_x2apic();
	switched = true;
	bare_true("x2APIC mode on both CPUs", bare_wait_for_second());
	bare_test_x2apic_registers();
	bare_have_done(bare_order_x2apic_identity);
	bare_check("x2APIC: the second CPU's ID", (u32)bare_answer, SECOND);
	bare_check("x2APIC: the second CPU's logical ID", bare_answer >> 32, 1 << SECOND);
	bare_test_x2apic_interrupts();
}
