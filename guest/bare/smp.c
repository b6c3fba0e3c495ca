// SPDX-License-Identifier: MIT
/*
 * The second CPU: its start, what the two tell each other, and what one changes
 * under the other's hands.
 */
#include "bare.h"

extern char bare_trampoline[], bare_trampoline_end[];
extern struct bare_table {
	u16 limit;
	u32 base;
} __attribute__((packed)) trampoline_gdtr;
extern u32 trampoline_cr0, trampoline_cr3, trampoline_cr4, trampoline_cs;
extern char bare_halt_for_nmi[], bare_halt_end[], bare_user_exit[], bare_touch[];

_Noreturn void bare_second(void);
void bare_halt(volatile u32 *nmis) asm("bare_halt_for_nmi");

#define VECTOR	VECTOR_ANSWER
#define RW	(PTE_P | PTE_W)

/* What the first CPU wants of the second, and how far it is. */
static struct {
	volatile u32 starts;
	void (*volatile order)(void);
	volatile u32 done;
	u32 asked;
} second;

volatile u64 bare_answer;

/* A field of the trampoline, where it is copied to. */
#define PLACED(field)	((typeof(field) *)((char *)&(field) - bare_trampoline + BARE_TRAMPOLINE))

static void bare_place_trampoline(void)
{
	struct { u16 limit; u64 base; } __attribute__((packed)) gdtr;

	memcpy((void *)BARE_TRAMPOLINE, bare_trampoline, bare_trampoline_end - bare_trampoline);
	asm volatile("sgdt %0" : "=m"(gdtr));
	*PLACED(trampoline_gdtr) = (struct bare_table){ gdtr.limit, gdtr.base };
	*PLACED(trampoline_cr0) = bare_read_cr0();
	*PLACED(trampoline_cr3) = bare_read_cr3();
	*PLACED(trampoline_cr4) = bare_read_cr4();
}

/* Called by start.S on the second CPU: it does as it is told. */
void bare_second(void)
{
	bare_init_cpu(SECOND);
	bare_init_apic();
	second.starts++;
	bare_send(0, ICR_ASSERT | VECTOR_DONE);
	for (;;) {
		void (*order)(void);

		while (!second.order)
			bare_idle();
		order = second.order;
		second.order = NULL;
		order();
		second.done++;
		bare_send(0, ICR_ASSERT | VECTOR_DONE);
	}
}

void bare_tell(void (*order)(void))
{
	second.asked = second.done + 1;
	second.order = order;
	bare_send(SECOND, ICR_ASSERT | VECTOR_CALL);
}

bool bare_wait_for_second(void)
{
	return bare_wait(&second.done, second.asked);
}

/* Has the second CPU do something, and waits for it. */
bool bare_have_done(void (*order)(void))
{
	bare_tell(order);
	return bare_wait_for_second();
}

static void bare_test_start(void)
{
	bare_set_interrupt(VECTOR_CALL);
	bare_set_interrupt(VECTOR_DONE);
	bare_place_trampoline();
	bare_send(SECOND, ICR_INIT | ICR_ASSERT);
	bare_send(SECOND, ICR_STARTUP | ICR_ASSERT | BARE_TRAMPOLINE >> 12);
	bare_true("INIT and SIPI start the second CPU", bare_wait(&second.starts, 1));
	bare_check("in the segment that the SIPI says", *PLACED(trampoline_cs), BARE_TRAMPOLINE >> 4);
}

static void bare_order_identity(void)
{
	bare_answer = bare_apic_read(APIC_ID) | bare_rdmsr(MSR_APIC_BASE) << 32;
}

static void bare_order_nothing(void)
{
}

static void bare_test_orders(void)
{
	bare_true("it does what it is told", bare_have_done(bare_order_identity));
	bare_check("its APIC's ID", (u32)bare_answer, SECOND << 24);
	bare_check("its APIC's base: not the boot CPU's", bare_answer >> 32, BARE_APIC | APIC_BASE_ENABLE);
	bare_send(SECOND, ICR_STARTUP | ICR_ASSERT | BARE_TRAMPOLINE >> 12);
	bare_true("a SIPI to a CPU that runs", bare_have_done(bare_order_nothing));
	bare_check("does not start it again", second.starts, 1);
}

/* The second CPU says that it has taken it, to wake the first. */
static bool bare_hook_answer(struct bare_frame *f)
{
	bare_this_cpu()->taken[f->vector]++;
	bare_eoi();
	if (bare_this_cpu()->index == SECOND)
		bare_send(0, ICR_ASSERT | VECTOR_DONE);
	return true;
}

static void bare_order_logical(void)
{
	bare_apic_write(APIC_DFR, 0xffffffff);
	bare_apic_write(APIC_LDR, 2 << 24);
}

static void bare_test_destinations(void)
{
	volatile u32 *mine = &bare_cpus[0].taken[VECTOR], *its = &bare_cpus[SECOND].taken[VECTOR];

	bare_set_hook(VECTOR, bare_hook_answer);
	bare_send(SECOND, ICR_ASSERT | VECTOR);
	bare_true("an IPI by ID", bare_wait(its, 1));
	bare_apic_write(APIC_DFR, 0xffffffff);
	bare_apic_write(APIC_LDR, 1 << 24);
	bare_have_done(bare_order_logical);
	bare_send(2, ICR_ASSERT | ICR_LOGICAL | VECTOR);
	bare_true("an IPI by logical destination", bare_wait(its, 2));
	bare_send(3, ICR_ASSERT | ICR_LOGICAL | VECTOR);
	bare_true("an IPI to two: the second CPU", bare_wait(its, 3));
	bare_true("an IPI to two: the first", bare_wait(mine, 1));
	bare_send(0, ICR_ASSERT | ICR_OTHERS | VECTOR);
	bare_true("an IPI to all others", bare_wait(its, 4));
	bare_let_in();
	bare_check("not to the sender", *mine, 1);
	bare_send(0, ICR_ASSERT | ICR_ALL | VECTOR);
	bare_true("an IPI to all: the second CPU", bare_wait(its, 5));
	bare_true("an IPI to all: the first", bare_wait(mine, 2));
	bare_send(0xff, ICR_ASSERT | VECTOR);
	bare_true("an IPI to the broadcast ID: the second CPU", bare_wait(its, 6));
	bare_true("an IPI to the broadcast ID: the first", bare_wait(mine, 3));
	bare_route(SECOND, VECTOR);
	bare_raise();
	bare_true("a device's interrupt for the second CPU", bare_wait(its, 7));
	bare_lower();
	bare_let_in();
	bare_check("is not the first's", *mine, 3);
}

/* Wakes the second CPU, and if it was on its way into HLT, sends it past. */
static bool bare_hook_wake(struct bare_frame *f)
{
	struct bare_cpu *cpu = bare_this_cpu();

	cpu->nmis++;
	if (f->rip >= (u64)bare_halt_for_nmi && f->rip < (u64)bare_halt_end)
		f->rip = (u64)bare_halt_end;
	bare_send(0, ICR_ASSERT | VECTOR_DONE);
	return true;
}

static void bare_order_halt(void)
{
	bare_halt(&bare_this_cpu()->nmis);
}

static void bare_test_wake(void)
{
	bare_set_hook(NMI, bare_hook_wake);
	bare_tell(bare_order_halt);
	bare_send(SECOND, ICR_NMI | ICR_ASSERT);
	bare_true("an NMI to the second CPU", bare_wait(&bare_cpus[SECOND].nmis, 1));
	bare_true("wakes it, though IF is clear", bare_wait_for_second());
	bare_check("once", bare_cpus[SECOND].nmis, 1);
	bare_set_hook(NMI, NULL);
}

#define ROUNDS	500

static volatile u32 shared;

static void bare_add(void)
{
	for (u32 i = 0; i < ROUNDS; i++)
		asm volatile("lock incl %0" : "+m"(shared));
}

static void bare_test_sharing(void)
{
	bare_tell(bare_add);
	bare_add();
	bare_true("two CPUs add", bare_wait_for_second());
	bare_check("LOCK INC by two CPUs loses nothing", shared, 2 * ROUNDS);
}

static void bare_order_traps(void)
{
	struct bare_cpu *cpu = bare_this_cpu();
	struct bare_frame *f = bare_probe(bare_touch, BARE_ABSENT);

	bare_answer = f->vector == PF && f->error == 0 && cpu->cr2 == BARE_ABSENT;
	bare_user(bare_user_exit, 0, 0);
	bare_answer += f->vector == VECTOR_EXIT &&
			 cpu->frame + sizeof(*f) == (u64)(bare_user_traps + SECOND + 1);
}

static void bare_order_read(void)
{
	bare_answer = *(volatile u64 *)BARE_WINDOW;
}

static void bare_order_flush_and_read(void)
{
	bare_invlpg(BARE_WINDOW);
	bare_order_read();
}

static void bare_order_run(void)
{
	bare_answer = ((u32 (*)(void))BARE_WINDOW)();
}

/* MOV EAX, v; RET */
static void bare_write_code(u32 v)
{
	*(volatile u64 *)bare_frame_of(0) = 0xc300000000b8 | (u64)v << 8;
}

static void bare_test_memory(void)
{
	bare_have_done(bare_order_traps);
	bare_check("the second CPU's traps, on its own stacks", bare_answer, 2);
	*(volatile u64 *)bare_frame_of(0) = 0x100;
	*(volatile u64 *)bare_frame_of(1) = 0x101;
	bare_map(0, bare_frame_of(0), RW);
	bare_have_done(bare_order_read);
	bare_check("the second CPU reads a page", bare_answer, 0x100);
	bare_map(0, bare_frame_of(1), RW);
	bare_have_done(bare_order_flush_and_read);
	bare_check("and what it is mapped to now, after INVLPG", bare_answer, 0x101);
	bare_write_code(0x7001);
	bare_map(0, bare_frame_of(0), RW);
	bare_have_done(bare_order_flush_and_read);
	bare_have_done(bare_order_run);
	bare_check("the second CPU runs code", bare_answer, 0x7001);
	bare_write_code(0x7002);
	bare_have_done(bare_order_run);
	bare_check("and what the first has made of it", bare_answer, 0x7002);
	bare_map(0, 0, 0);
}

static void bare_order_timer(void)
{
	volatile u32 *taken = &bare_this_cpu()->taken[VECTOR_TIMEOUT];
	u32 before = *taken;

	bare_apic_write(APIC_LVT_TIMER, VECTOR_TIMEOUT);
	bare_apic_write(APIC_TIMER_DIVIDE, APIC_DIVIDE_16);
	bare_apic_write(APIC_TIMER_INITIAL, 1000);
	bare_doze(taken, before + 1);
	bare_answer = *taken - before;
}

static void bare_test_restart(void)
{
	bare_send(SECOND, ICR_INIT | ICR_ASSERT);
	bare_send(SECOND, ICR_STARTUP | ICR_ASSERT | BARE_TRAMPOLINE >> 12);
	bare_true("INIT and SIPI start it anew", bare_wait(&second.starts, 2));
	bare_true("and it does what it is told", bare_have_done(bare_order_nothing));
}

void bare_test_smp(void)
{
	bare_section("two CPUs");
	bare_test_start();
	bare_test_orders();
	bare_test_destinations();
	bare_test_wake();
	bare_test_sharing();
	bare_test_memory();
	bare_have_done(bare_order_timer);
	bare_check("the second CPU's timer", bare_answer, 1);
	bare_test_restart();
}
