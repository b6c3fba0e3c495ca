// SPDX-License-Identifier: MIT
/*
 * The FIFO's interrupts: MSI-X, a vector for each ring and one for errors; how
 * many of them a ring sends; and the pin.
 */
#include "fifo.h"

/* MSI-X (PCI Local Bus 3.0, 6.8.2): the capability and an entry of the table. */
#define MSIX_CONTROL	0x00
#define MSIX_TABLE	0x04
#define MSIX_PENDING	0x08
#define MSIX_BAR	7
#define MSIX_LAST	(0x7ffu << 16)
#define MSIX_MASK_ALL	(1u << 30)
#define MSIX_ENABLE	(1u << 31)
#define ENTRY_SIZE	16
#define ENTRY_ADDRESS	0
#define ENTRY_DATA	8
#define ENTRY_CONTROL	12
#define ENTRY_OFF	1

#define VECTOR		0x90		/* of the device's vector 0 */
#define VECTOR_PIN	0x99
#define A_WHILE		100000		/* ns */
#define MANY		200		/* completions: more than come */
#define TIME_US		20000		/* longer than anything else takes */
#define COALESCE(count, us)	((us) << 16 | (count))

/* Each vector's count, in a digit of its own. */
#define COUNTS(error, tx0, rx0, tx1, rx1) \
	((error) | (tx0) << 4 | (rx0) << 8 | (tx1) << 12 | (rx1) << 16)

static u32 capability;
static u64 table, pending;

void bare_init_msix(void)
{
	u32 t, p;

	capability = bare_find_capability(bare_fifo, PCI_CAP_MSIX);
	t = bare_config_read(bare_fifo, capability + MSIX_TABLE);
	p = bare_config_read(bare_fifo, capability + MSIX_PENDING);
	table = bare_read_bar(bare_fifo, t & MSIX_BAR) + (t & ~MSIX_BAR);
	pending = bare_read_bar(bare_fifo, p & MSIX_BAR) + (p & ~MSIX_BAR);
}

static void bare_aim(u32 n, u32 apic_id, u8 vector)
{
	u64 entry = table + n * ENTRY_SIZE;

	bare_write_device(entry + ENTRY_CONTROL, ENTRY_OFF);
	bare_write_device(entry + ENTRY_ADDRESS, BARE_APIC | apic_id << 12);
	bare_write_device(entry + ENTRY_ADDRESS + 4, 0);
	bare_write_device(entry + ENTRY_DATA, vector);
	bare_write_device(entry + ENTRY_CONTROL, 0);
}

static void bare_mask(u32 n, bool masked)
{
	bare_write_device(table + n * ENTRY_SIZE + ENTRY_CONTROL, masked ? ENTRY_OFF : 0);
}

static bool bare_masked(u32 n)
{
	return bare_read_device(table + n * ENTRY_SIZE + ENTRY_CONTROL) & ENTRY_OFF;
}

/* Is the vector's interrupt pending? */
bool bare_pends(u32 n)
{
	return bare_read_device(pending + n / 32 * 4) >> n % 32 & 1;
}

/* All vectors for the first CPU, none of them taken yet. */
void bare_enable_msix(void)
{
	for (u32 n = 0; n < FIFO_VECTORS; n++) {
		bare_set_interrupt(VECTOR + n);
		bare_aim(n, 0, VECTOR + n);
	}
	bare_config_write(bare_fifo, capability + MSIX_CONTROL, MSIX_ENABLE);
}

void bare_disable_msix(void)
{
	bare_config_write(bare_fifo, capability + MSIX_CONTROL, 0);
}

bool bare_wait_vector(u32 n, u32 count)
{
	return bare_wait(&bare_this_cpu()->taken[VECTOR + n], count);
}

/*
 * The interrupts of each vector since the last call, as COUNTS. The read has all
 * come that was sent before it. Two of a vector that were sent since may have
 * become one, so that tests ask after each.
 */
u64 bare_interrupts(void)
{
	volatile u32 *taken = &bare_this_cpu()->taken[VECTOR];
	u64 counts = 0;

	bare_fifo_read(FIFO_STATUS);
	bare_let_in();
	bare_let_in();
	for (u32 n = 0; n < FIFO_VECTORS; n++) {
		counts |= (u64)taken[n] << 4 * n;
		taken[n] = 0;
	}
	return counts;
}

static void bare_test_table(void)
{
	u32 masked = 0;

	for (u32 n = 0; n < FIFO_VECTORS; n++)
		masked += bare_masked(n);
	bare_check("MSI-X: vectors", (bare_config_read(bare_fifo, capability) & MSIX_LAST) >> 16, FIFO_VECTORS - 1);
	bare_check("MSI-X: each of them is masked at first", masked, FIFO_VECTORS);
	bare_enable_msix();
	bare_check("MSI-X: a message's address as written", bare_read_device(table + ENTRY_ADDRESS), BARE_APIC);
	bare_check("MSI-X: a message's data as written", bare_read_device(table + ENTRY_DATA), VECTOR);
	bare_check("MSI-X: nothing came of that", bare_interrupts(), 0);
}

static void bare_test_vectors(void)
{
	static const char *const second = "MSI-X: the other channel's rings have other vectors";
	static const char *const one = "MSI-X: two rings on one vector";

	bare_request(TX(0), bare_source, 64, 1);
	bare_true("MSI-X: a completion wakes the CPU", bare_wait_vector(TX(0)->vector, 1));
	if (bare_took("MSI-X: and is there by then", TX(0), 1, 64, 0, DONE_OK))
		bare_check("MSI-X: and is there by then", bare_interrupts(), COUNTS(0, 1, 0, 0, 0));
	bare_request(RX(0), bare_target, 64, 2);
	bare_true("MSI-X: received, on another vector", bare_wait_vector(RX(0)->vector, 1));
	if (bare_took("MSI-X: and on that alone", RX(0), 2, 64, 0, DONE_OK))
		bare_check("MSI-X: and on that alone", bare_interrupts(), COUNTS(0, 0, 1, 0, 0));
	if (bare_loops(second, 1, 64))
		bare_check(second, bare_interrupts(), COUNTS(0, 0, 0, 1, 1));
	bare_ring_write(TX(1), RING_VECTOR, RX(1)->vector);
	bare_request(TX(1), bare_source, 64, 3);
	if (bare_took(one, TX(1), 3, 64, 0, DONE_OK) &&
	    bare_part(one, " (sent)", bare_interrupts(), COUNTS(0, 0, 0, 0, 1))) {
		bare_request(RX(1), bare_target, 64, 4);
		if (bare_took(one, RX(1), 4, 64, 0, DONE_OK))
			bare_check(one, bare_interrupts(), COUNTS(0, 0, 0, 0, 1));
	}
	bare_ring_write(TX(1), RING_VECTOR, TX(1)->vector);
}

static void bare_test_masked(void)
{
	static const char *const masked = "MSI-X: masked, it does not come";

	bare_mask(TX(0)->vector, true);
	if (bare_loops(masked, 0, 64) && bare_part(masked, " (first)", bare_interrupts(), COUNTS(0, 0, 1, 0, 0)) &&
	    bare_loops(masked, 0, 64))
		bare_check(masked, bare_interrupts(), COUNTS(0, 0, 1, 0, 0));
	bare_true("MSI-X: it pends", bare_pends(TX(0)->vector));
	bare_true("MSI-X: the others do not", !bare_pends(RX(0)->vector) && !bare_pends(0));
	bare_mask(TX(0)->vector, false);
	bare_true("MSI-X: it comes when it is masked no more", bare_wait_vector(TX(0)->vector, 1));
	bare_check("MSI-X: once, for two", bare_interrupts(), COUNTS(0, 1, 0, 0, 0));
	bare_true("MSI-X: and pends no more", !bare_pends(TX(0)->vector));
}

static void bare_test_all_masked(void)
{
	static const char *const masked = "MSI-X: all masked, none comes";

	bare_config_write(bare_fifo, capability + MSIX_CONTROL, MSIX_ENABLE | MSIX_MASK_ALL);
	if (bare_loops(masked, 0, 64))
		bare_check(masked, bare_interrupts(), 0);
	bare_true("MSI-X: both pend", bare_pends(TX(0)->vector) && bare_pends(RX(0)->vector));
	bare_config_write(bare_fifo, capability + MSIX_CONTROL, MSIX_ENABLE);
	bare_true("MSI-X: both come", bare_wait_vector(TX(0)->vector, 1) && bare_wait_vector(RX(0)->vector, 1));
	bare_check("MSI-X: and nothing else", bare_interrupts(), COUNTS(0, 1, 1, 0, 0));
}

static void bare_test_for_second(void)
{
	static const char *const name = "MSI-X: and not to the first";
	volatile u32 *its = &bare_cpus[SECOND].taken[VECTOR_ANSWER];
	u32 before = *its;

	bare_aim(TX(0)->vector, SECOND, VECTOR_ANSWER);
	bare_request(TX(0), bare_source, 64, 3);
	bare_true("MSI-X: to the second CPU", bare_wait(its, before + 1));
	if (bare_took(name, TX(0), 3, 64, 0, DONE_OK))
		bare_check(name, bare_interrupts(), 0);
	bare_aim(TX(0)->vector, 0, VECTOR + TX(0)->vector);
	bare_fifo_write(CHANNEL(0) + CH_CONTROL, CH_FLUSH);
}

void bare_test_msix(void)
{
	bare_section("FIFO: MSI-X");
	bare_start_fifo();
	bare_test_table();
	bare_test_vectors();
	bare_test_masked();
	bare_test_all_masked();
	bare_test_for_second();
}

static void bare_send_one(u64 cookie, u32 flags)
{
	bare_post(TX(0), (u64)bare_source, 8, flags, cookie);
	bare_ring_bell(TX(0));
}

/* Never times, only counts: what is soon on one engine is late on another. */
void bare_test_coalescing(void)
{
	static const char *const below = "below the count none comes", *const at = "at the count it comes";
	static const char *const urgent = "a request that asks for it has one at once";
	static const char *const late = "and so has one for two";
	struct bare_ring *tx = TX(0);

	bare_section("FIFO: coalescing");
	bare_start_fifo();
	bare_interrupts();
	bare_ring_write(tx, RING_COALESCE, COALESCE(3, 0));
	bare_send_one(1, 0);
	bare_send_one(2, 0);
	if (bare_took(below, tx, 1, 8, 0, DONE_OK) && bare_took(below, tx, 2, 8, 0, DONE_OK))
		bare_check(below, bare_interrupts(), 0);
	bare_send_one(3, 0);
	if (bare_took(at, tx, 3, 8, 0, DONE_OK))
		bare_check(at, bare_interrupts(), COUNTS(0, 1, 0, 0, 0));
	for (u32 i = 0; i < 5; i++)
		bare_post(tx, (u64)bare_source, 8, 0, i);
	bare_ring_bell(tx);
	bare_true("then for the next three", bare_wait_vector(tx->vector, 1));
	for (u32 i = 0; i < 5; i++)
		bare_took("and for no more", tx, i, 8, 0, DONE_OK);
	bare_check("and for no more", bare_interrupts(), COUNTS(0, 1, 0, 0, 0));
	bare_ring_write(tx, RING_COALESCE, COALESCE(MANY, 0));
	bare_send_one(4, 0);
	bare_send_one(5, DESC_INTERRUPT);
	if (bare_took(urgent, tx, 4, 8, 0, DONE_OK) && bare_took(urgent, tx, 5, 8, 0, DONE_OK))
		bare_check(urgent, bare_interrupts(), COUNTS(0, 1, 0, 0, 0));
	bare_ring_write(tx, RING_COALESCE, COALESCE(MANY, TIME_US));
	bare_post(tx, (u64)bare_source, 8, 0, 6);
	bare_send_one(7, 0);
	bare_true("when its time is up it comes", bare_wait_vector(tx->vector, 1));
	if (bare_took(late, tx, 6, 8, 0, DONE_OK) && bare_took(late, tx, 7, 8, 0, DONE_OK))
		bare_check(late, bare_interrupts(), COUNTS(0, 1, 0, 0, 0));
	bare_fifo_write(CHANNEL(0) + CH_CONTROL, CH_FLUSH);
}

static volatile u32 cause;

/* The line stays up until the cause is cleared. */
static bool bare_hook_pin(struct bare_frame *f)
{
	u32 now = bare_fifo_read(FIFO_IRQ_CAUSE);

	cause |= now;
	bare_fifo_write(FIFO_IRQ_CAUSE, now);
	bare_this_cpu()->taken[f->vector]++;
	bare_eoi();
	return true;
}

static void bare_pin_sends(u64 cookie)
{
	bare_start_ring(TX(0), BARE_RING_LOG, BARE_RING_LOG);
	bare_fifo_write(FIFO_IRQ_CAUSE, 0xffffffff);
	bare_send_one(cookie, 0);
}

void bare_test_fifo_pin(void)
{
	static const char *const message = "pin: not while MSI-X is enabled";
	static const char *const quiet = "pin: not without the enable bit";
	volatile u32 *taken = &bare_this_cpu()->taken[VECTOR_PIN], before;
	u32 input = bare_config_read(bare_fifo, PCI_LINE) & 0xff;

	bare_section("FIFO: the pin");
	*taken = 0;
	bare_set_hook(VECTOR_PIN, bare_hook_pin);
	bare_route_input(input, 0, ENTRY_LEVEL | VECTOR_PIN);
	bare_fifo_write(FIFO_IRQ_CAUSE, 0xffffffff);
	bare_fifo_write(FIFO_IRQ_ENABLE, 1 << TX(0)->vector);
	bare_pin_sends(1);
	if (bare_took(message, TX(0), 1, 8, 0, DONE_OK) &&
	    bare_part(message, " (messages)", bare_interrupts(), COUNTS(0, 1, 0, 0, 0)))
		bare_check(message, *taken, 0);
	bare_fifo_write(FIFO_IRQ_CAUSE, 0xffffffff);
	bare_disable_msix();
	bare_fifo_write(FIFO_IRQ_ENABLE, 0);
	bare_pin_sends(2);
	if (bare_took(quiet, TX(0), 2, 8, 0, DONE_OK)) {
		bare_interrupts();
		bare_check(quiet, *taken, 0);
	}
	bare_check("pin: the cause is there all the same", bare_fifo_read(FIFO_IRQ_CAUSE), 1 << TX(0)->vector);
	bare_fifo_write(FIFO_IRQ_ENABLE, 1 << TX(0)->vector);
	bare_true("pin: it comes when it is enabled", bare_wait(taken, 1));
	bare_check("pin: the cause says which ring", cause, 1 << TX(0)->vector);
	bare_let_in();
	before = *taken;
	bare_sleep(A_WHILE);
	bare_let_in();
	bare_check("pin: cleared, it comes no more", *taken, before);
	bare_pin_sends(3);
	bare_true("pin: the next one", bare_wait(taken, before + 1));
	bare_let_in();
	bare_fifo_write(FIFO_IRQ_ENABLE, 0);
	bare_route_input(input, 0, ENTRY_MASKED);
	bare_set_hook(VECTOR_PIN, NULL);
}
