// SPDX-License-Identifier: MIT
/*
 * The I/O APIC (82093AA data sheet), with the second UART as the device: its
 * transmitter is empty, so that turning that interrupt on raises its line, and
 * reading IIR lowers it (PC16550D, table IV).
 */
#include "bare.h"

#define REG_VERSION	1
#define REG_ENTRY(n)	(0x10 + 2 * (n))
#define ENTRY_REMOTE	(1 << 14)

#define UART_IER	(BARE_UART + 1)
#define UART_IIR	(BARE_UART + 2)
#define UART_MCR	(BARE_UART + 4)
#define IER_EMPTY	(1 << 1)
#define IIR_NONE	1
#define IIR_EMPTY	2
#define MCR_OUT2	(1 << 3)

#define VECTOR	0x54

static volatile u32 *const select = (u32 *)BARE_IOAPIC;
static volatile u32 *const window = (u32 *)(BARE_IOAPIC + 0x10);

u32 bare_ioapic_read(u32 reg)
{
	*select = reg;
	return *window;
}

void bare_ioapic_write(u32 reg, u32 v)
{
	*select = reg;
	*window = v;
}

static u32 bare_entry_low(void)
{
	return bare_ioapic_read(REG_ENTRY(BARE_UART_IRQ));
}

/* Sends an input's interrupts to a CPU. */
void bare_route_input(u32 input, u32 apic_id, u32 low)
{
	bare_ioapic_write(REG_ENTRY(input), ENTRY_MASKED);
	bare_ioapic_write(REG_ENTRY(input) + 1, apic_id << 24);
	bare_ioapic_write(REG_ENTRY(input), low);
}

/* The UART's. */
void bare_route(u32 apic_id, u32 low)
{
	bare_route_input(BARE_UART_IRQ, apic_id, low);
}

void bare_raise(void)
{
	bare_outb(UART_MCR, MCR_OUT2);
	bare_outb(UART_IER, IER_EMPTY);
}

void bare_lower(void)
{
	bare_outb(UART_IER, 0);
}

static void bare_test_inputs(void)
{
	bare_check("I/O APIC: 24 inputs", bare_ioapic_read(REG_VERSION) >> 16 & 0xff, 23);
	bare_check("I/O APIC: the register's number as written", *select & 0xff, REG_VERSION);
	bare_check("I/O APIC: an input is masked at first", bare_entry_low() & ENTRY_MASKED, ENTRY_MASKED);
	bare_route(0, ENTRY_MASKED | VECTOR);
	bare_check("I/O APIC: an input as written", bare_entry_low(), ENTRY_MASKED | VECTOR);
}

static void bare_test_edge(void)
{
	volatile u32 *taken = &bare_this_cpu()->taken[VECTOR];

	bare_set_interrupt(VECTOR);
	bare_route(0, VECTOR);
	bare_raise();
	bare_true("edge: it comes", bare_wait(taken, 1));
	bare_let_in();
	bare_check("edge: once, while the line stays up", *taken, 1);
	bare_check("the UART says why", bare_inb(UART_IIR), IIR_EMPTY);
	bare_check("and says so once", bare_inb(UART_IIR), IIR_NONE);
	bare_lower();
	bare_raise();
	bare_true("edge: the next one", bare_wait(taken, 2));
	bare_lower();
	bare_route(0, ENTRY_MASKED | VECTOR);
	bare_raise();
	bare_let_in();
	bare_check("edge: not while it is masked", *taken, 2);
	bare_lower();
}

static u32 remote, mode;

/* Lowers the line at the second time only. */
static bool bare_hook_level(struct bare_frame *f)
{
	volatile u32 *taken = &bare_this_cpu()->taken[f->vector];

	remote = bare_entry_low() & ENTRY_REMOTE;
	mode = bare_apic_bit(APIC_TMR, f->vector);
	if (++*taken % 2 == 0)
		bare_lower();
	bare_eoi();
	return true;
}

static void bare_test_level(void)
{
	volatile u32 *taken = &bare_this_cpu()->taken[VECTOR], before;

	*taken = 0;
	bare_set_hook(VECTOR, bare_hook_level);
	bare_route(0, ENTRY_LEVEL | VECTOR);
	bare_raise();
	bare_true("level: it comes until the line is down", bare_wait(taken, 2));
	bare_let_in();
	if (bare_unless(FLAW_RING3, "level: and then no more", "level: remote IRR in the handler")) {
		bare_check("level: and then no more", *taken, 2);
		bare_check("level: remote IRR in the handler", remote, ENTRY_REMOTE);
	}
	bare_true("level: the bit in TMR", mode);
	bare_check("level: no remote IRR behind it", bare_entry_low(), ENTRY_LEVEL | VECTOR);
	before = *taken;
	bare_route(0, ENTRY_LEVEL | ENTRY_MASKED | VECTOR);
	bare_raise();
	bare_let_in();
	bare_check("level: not while it is masked", *taken, before);
	bare_ioapic_write(REG_ENTRY(BARE_UART_IRQ), ENTRY_LEVEL | VECTOR);
	bare_true("level: but when it is no more", bare_wait(taken, before + 1));
	bare_lower();
	bare_route(0, ENTRY_MASKED | VECTOR);
	bare_let_in();
	bare_set_hook(VECTOR, NULL);
}

void bare_test_ioapic(void)
{
	bare_section("I/O APIC");
	bare_test_inputs();
	bare_test_edge();
	bare_test_level();
}
