// SPDX-License-Identifier: MIT
/*
 * How what the FIFO does comes to an end: paused, aborted, drained, by an error,
 * by a reset.
 */
#include "fifo.h"

#define A_WHILE		100000		/* ns */
#define LENGTH		64
#define NOBODY		BARE_UNCLAIMED	/* no memory */

/* PCI Power Management 1.2, 3.2.4, and PCI Express Base 6.0, 7.5.3. */
#define POWER_STATE	0x04
#define POWER_D3	3
#define EXPRESS_CONTROL	0x08
#define EXPRESS_FLR	(1 << 15)
#define MSIX_BAR	4
#define MSIX_ENABLE	(1u << 31)

static void bare_pause(const struct bare_ring *r)
{
	bare_ring_write(r, RING_CONTROL, 0);
}

static void bare_test_pause(void)
{
	struct bare_ring *tx = TX(0);

	bare_pause(tx);
	bare_check("paused, the ring is stopped", bare_ring_read(tx, RING_STATUS), RING_STOPPED);
	bare_request(tx, bare_source, LENGTH, 1);
	bare_sleep(A_WHILE);
	bare_true("and does not take a request", !bare_arrived(tx));
	bare_ring_write(tx, RING_CONTROL, RING_RUN);
	if (bare_took("until it runs again", tx, 1, LENGTH, 0, DONE_OK))
		bare_ok("until it runs again");
	bare_fifo_write(FIFO_CONTROL, 0);
	bare_request(tx, bare_source, LENGTH, 2);
	bare_sleep(A_WHILE);
	bare_true("nor does it while the device is disabled", !bare_arrived(tx));
	bare_fifo_write(FIFO_CONTROL, FIFO_ENABLE);
	if (bare_took("until that is enabled again", tx, 2, LENGTH, 0, DONE_OK))
		bare_ok("until that is enabled again");
	bare_fifo_write(CHANNEL(0) + CH_CONTROL, CH_FLUSH);
}

static void bare_abort(const struct bare_ring *r, u64 cookie)
{
	bare_ring_write(r, RING_ABORT, cookie);
	bare_ring_write(r, RING_ABORT + 4, cookie >> 32);
}

static bool bare_abort_becomes(const struct bare_ring *r, u32 status)
{
	return bare_becomes(r->regs + RING_ABORT_STATUS, status);
}

static void bare_test_abort_waiting(void)
{
	static const char *const name = "a request that waits is aborted";
	static const char *const behind = "and one behind it, while it goes on";
	static const char *const rest = "those beside it get their bytes";
	struct bare_ring *tx = TX(0), *rx = RX(0);

	bare_interrupts();
	bare_request(rx, bare_target, LENGTH, 0xfedcba9800000001);
	bare_abort(rx, 0xfedcba9800000001);
	bare_true("abort: the register says that it is done", bare_abort_becomes(rx, ABORT_DONE));
	if (bare_took(name, rx, 0xfedcba9800000001, 0, LENGTH, DONE_ABORTED))
		bare_check(name, bare_interrupts(), 1 << 4 * rx->vector);
	for (u32 i = 0; i < 3; i++)
		bare_post(rx, (u64)bare_target + i * LENGTH, LENGTH, 0, 10 + i);
	bare_ring_bell(rx);
	memset(bare_target, 0, 3 * LENGTH);
	bare_abort(rx, 11);
	if (bare_took(behind, rx, 11, 0, LENGTH, DONE_ABORTED))
		bare_ok(behind);
	bare_request(tx, bare_source, 2 * LENGTH, 20);
	if (bare_took(rest, tx, 20, 2 * LENGTH, 0, DONE_OK) && bare_took(rest, rx, 10, LENGTH, 0, DONE_OK) &&
	    bare_took(rest, rx, 12, LENGTH, 0, DONE_OK) &&
	    bare_part(rest, " (the first)", bare_same(bare_target, bare_source, LENGTH), true) &&
	    bare_part(rest, " (the aborted)", bare_target[LENGTH] | bare_target[2 * LENGTH - 1], 0) &&
	    bare_part(rest, " (the last)", bare_same(bare_target + 2 * LENGTH, bare_source + LENGTH, LENGTH), true))
		bare_ok(rest);
	bare_abort(rx, 12);
	bare_true("what has completed is not found", bare_abort_becomes(rx, ABORT_NOT_FOUND));
}

/* A request that is larger than the FIFO, in pieces that are all the same. */
static void bare_test_abort_begun(void)
{
	static const char *const name = "a request that is in part done is aborted";
	u32 depth = bare_fifo_read(FIFO_DEPTH), pieces = depth / BARE_PAGE + 1;
	struct bare_ring *tx = TX(0);

	if (!bare_part(name, " (pieces)", pieces <= tx->mask, true))
		return;
	for (u32 i = 1; i <= pieces; i++)
		bare_post(tx, (u64)bare_source, BARE_PAGE, i < pieces ? DESC_MORE : 0, 30);
	bare_ring_bell(tx);
	bare_becomes(CHANNEL(0) + CH_FILL, depth);
	bare_abort(tx, 30);
	if (bare_took(name, tx, 30, depth, BARE_PAGE, DONE_ABORTED))
		bare_ok(name);
	bare_check("what it has sent stays", bare_fifo_read(CHANNEL(0) + CH_FILL), depth);
	bare_fifo_write(CHANNEL(0) + CH_CONTROL, CH_FLUSH);
}

static void bare_test_drain(void)
{
	static const char *const sent = "drain: what was posted before is done", *const later = "drain: it runs again";
	static const char *const received = "drain: who receives gets what there is";
	struct bare_ring *tx = TX(0), *rx = RX(0);

	bare_pause(tx);
	for (u32 i = 0; i < 3; i++)
		bare_post(tx, (u64)bare_source, LENGTH, 0, 40 + i);
	bare_ring_bell(tx);
	bare_ring_write(tx, RING_CONTROL, RING_RUN | RING_DRAIN);
	bare_request(tx, bare_source, LENGTH, 43);
	bare_true("drain: the ring stops", bare_ring_becomes(tx, RING_STOPPED));
	if (bare_took(sent, tx, 40, LENGTH, 0, DONE_OK) && bare_took(sent, tx, 41, LENGTH, 0, DONE_OK) &&
	    bare_took(sent, tx, 42, LENGTH, 0, DONE_OK))
		bare_ok(sent);
	bare_sleep(A_WHILE);
	bare_true("drain: and not what was posted behind it", !bare_arrived(tx));
	bare_ring_write(tx, RING_CONTROL, RING_RUN);
	if (bare_took(later, tx, 43, LENGTH, 0, DONE_OK))
		bare_ok(later);
	bare_fifo_write(CHANNEL(0) + CH_CONTROL, CH_FLUSH);
	bare_ring_write(rx, RING_THRESHOLD, 2 * LENGTH);
	bare_request(tx, bare_source, LENGTH, 44);
	bare_took(received, tx, 44, LENGTH, 0, DONE_OK);
	bare_post(rx, (u64)bare_target, 2 * LENGTH, 0, 50);
	bare_request(rx, bare_target, 2 * LENGTH, 51);
	bare_interrupts();
	bare_ring_write(rx, RING_CONTROL, RING_RUN | RING_DRAIN);
	if (bare_took(received, rx, 50, LENGTH, LENGTH, DONE_OK) && bare_took(received, rx, 51, 0, 2 * LENGTH, DONE_DRAINED))
		bare_ok(received);
	bare_true("drain: the receiving ring stops", bare_ring_becomes(rx, RING_STOPPED));
	bare_true("drain: and says so", bare_wait_vector(rx->vector, 1));
	bare_ring_write(rx, RING_THRESHOLD, 0);
	bare_ring_write(rx, RING_CONTROL, RING_RUN);
	if (bare_loops("drain: both go on", 0, LENGTH))
		bare_ok("drain: both go on");
}

void bare_test_stops(void)
{
	bare_section("FIFO: pause, abort and drain");
	bare_start_fifo();
	bare_enable_msix();
	bare_test_pause();
	bare_test_abort_waiting();
	bare_test_abort_begun();
	bare_test_drain();
}

/*
 * Part of a check: the ring has failed, and says so in its status, by the error
 * interrupt and by its own.
 */
static bool bare_failed(const char *name, struct bare_ring *r, u32 reason, u32 error)
{
	u64 both = 1 | 1 << 4 * r->vector;

	return bare_part(name, " (state)", bare_ring_becomes(r, RING_FAILED(reason)), true) &&
	       bare_part(name, " (device)", bare_fifo_read(FIFO_STATUS), FIFO_READY | FIFO_ERROR) &&
	       bare_part(name, " (error cause)", bare_fifo_read(FIFO_ERROR_CAUSE), error) &&
	       bare_part(name, " (interrupts)", bare_interrupts(), both);
}

/* And what is done about it. */
static void bare_recover(struct bare_ring *r)
{
	bare_fifo_write(FIFO_ERROR_CAUSE, bare_fifo_read(FIFO_ERROR_CAUSE));
	bare_start_ring(r, BARE_RING_LOG, BARE_RING_LOG);
	bare_interrupts();
}

static void bare_test_bad_descriptors(void)
{
	static const struct {
		const char *name;
		u32 length, flags;
		u64 reserved;
		u32 at;		/* the descriptor that is to blame */
	} bad[] = {
		{ "a descriptor of no bytes", 0, 0, 0, 1 },
		{ "a descriptor of too many bytes", 0xffffffff, 0, 0, 1 },
		{ "a reserved flag", LENGTH, 1 << 2, 0, 1 },
		{ "a reserved word", LENGTH, 0, 1ul << 63, 1 },
		{ "a chain without an end", LENGTH, DESC_MORE, 0, 2 },
	};
	struct bare_ring *tx = TX(1);

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *name = bad[i].name;
		struct bare_completion c;

		bare_request(tx, bare_source, LENGTH, 60);
		if (bare_took(name, tx, 60, LENGTH, 0, DONE_OK))
			bare_interrupts();
		bare_post(tx, (u64)bare_source, bad[i].length, bad[i].flags, 61);
		tx->descriptors[1].reserved = bad[i].reserved;
		/* A good one behind it, of which the FIFO is not told. */
		bare_post(tx, (u64)bare_source, LENGTH, 0, 62);
		bare_fifo_write(tx->bell, 2);
		if (bare_part(name, " (completion)", bare_take(tx, &c), true) &&
		    bare_part(name, " (status)", c.status, DONE_DESCRIPTOR) &&
		    bare_part(name, " (cookie)", c.cookie, 61) && bare_part(name, " (done)", c.done, 0) &&
		    bare_failed(name, tx, DONE_DESCRIPTOR, ERROR_DESCRIPTOR) &&
		    bare_part(name, " (index)", bare_ring_read(tx, RING_ERROR_INDEX), bad[i].at))
			bare_ok(name);
		if (i + 1 < ARRAY_SIZE(bad))
			bare_recover(tx);
	}
}

/* With the second channel's transmitting ring as the test before has left it. */
static void bare_test_failed_ring(void)
{
	struct bare_ring *tx = TX(1);

	bare_request(tx, bare_source, LENGTH, 63);
	bare_ring_write(tx, RING_CONTROL, RING_RUN);
	bare_sleep(A_WHILE);
	bare_check("a ring that has failed stays so", bare_ring_read(tx, RING_STATUS), RING_FAILED(DONE_DESCRIPTOR));
	bare_true("and takes no request", !bare_arrived(tx));
	if (bare_loops("the other channel does not mind", 0, LENGTH))
		bare_ok("the other channel does not mind");
	bare_recover(tx);
	bare_check("after its reset the device has no error", bare_fifo_read(FIFO_STATUS), FIFO_READY);
	bare_fifo_write(CHANNEL(1) + CH_CONTROL, CH_FLUSH);
	if (bare_loops("and the ring works", 1, LENGTH))
		bare_ok("and the ring works");
	bare_interrupts();
}

static void bare_test_dma_errors(void)
{
	static const char *const read = "bytes that can't be read", *const write = "bytes that can't be written";
	static const char *const again = "and are received by the next request";
	static const char *const ring = "descriptors that can't be read", *const comp = "a completion that can't be written";
	static const char *const parity = "bytes that went bad in the FIFO";
	struct bare_ring *tx = TX(0), *rx = RX(0);

	bare_post(tx, NOBODY, LENGTH, 0, 70);
	bare_ring_bell(tx);
	if (bare_took(read, tx, 70, 0, LENGTH, DONE_DMA) && bare_failed(read, tx, DONE_DMA, ERROR_DMA) &&
	    bare_part(read, " (address)", bare_fifo_read64(tx->regs + RING_ERROR_ADDRESS), NOBODY))
		bare_ok(read);
	bare_recover(tx);
	bare_request(tx, bare_source, LENGTH, 71);
	bare_took(write, tx, 71, LENGTH, 0, DONE_OK);
	bare_interrupts();
	bare_post(rx, NOBODY, LENGTH, 0, 72);
	bare_ring_bell(rx);
	if (bare_took(write, rx, 72, 0, LENGTH, DONE_DMA) && bare_failed(write, rx, DONE_DMA, ERROR_DMA))
		bare_ok(write);
	bare_check("stay in the FIFO", bare_fifo_read(CHANNEL(0) + CH_FILL), LENGTH);
	bare_recover(rx);
	memset(bare_target, 0, LENGTH);
	bare_request(rx, bare_target, LENGTH, 73);
	if (bare_took(again, rx, 73, LENGTH, 0, DONE_OK) &&
	    bare_part(again, " (bytes)", bare_same(bare_target, bare_source, LENGTH), true))
		bare_ok(again);

	bare_ring_write(tx, RING_CONTROL, RING_RESET);
	bare_ring_write(tx, RING_BASE, NOBODY);
	bare_ring_write(tx, RING_CONTROL, RING_RUN);
	bare_interrupts();
	bare_fifo_write(tx->bell, 1);
	if (bare_failed(ring, tx, DONE_DMA, ERROR_DMA) && bare_part(ring, " (completion)", bare_arrived(tx), false))
		bare_ok(ring);
	bare_recover(tx);
	bare_ring_write(tx, RING_CONTROL, RING_RESET);
	bare_ring_write(tx, RING_COMP, NOBODY);
	bare_ring_write(tx, RING_CONTROL, RING_RUN);
	bare_request(tx, bare_source, LENGTH, 74);
	if (bare_failed(comp, tx, DONE_COMPLETION, ERROR_DMA))
		bare_ok(comp);
	bare_recover(tx);
	bare_fifo_write(CHANNEL(0) + CH_CONTROL, CH_FLUSH);

	bare_request(tx, bare_source, LENGTH, 75);
	bare_took(parity, tx, 75, LENGTH, 0, DONE_OK);
	bare_interrupts();
	bare_fifo_write(CHANNEL(0) + CH_CONTROL, CH_BAD_PARITY);
	bare_request(rx, bare_target, LENGTH, 76);
	if (bare_took(parity, rx, 76, 0, LENGTH, DONE_PARITY) && bare_failed(parity, rx, DONE_PARITY, ERROR_PARITY))
		bare_ok(parity);
	bare_recover(rx);
	bare_fifo_write(CHANNEL(0) + CH_CONTROL, CH_FLUSH);
}

static void bare_test_no_master(void)
{
	struct bare_ring *tx = TX(0);

	bare_interrupts();
	bare_config_write(bare_fifo, PCI_COMMAND, PCI_COMMAND_MEMORY);
	bare_request(tx, bare_source, LENGTH, 80);
	bare_true("bus master off: the ring fails", bare_ring_becomes(tx, RING_FAILED(DONE_NOT_MASTER)));
	bare_true("bus master off: no completion is written", !bare_arrived(tx));
	bare_check("bus master off: no interrupt comes", bare_interrupts(), 0);
	bare_true("bus master off: they pend", bare_pends(0) && bare_pends(tx->vector));
	bare_config_write(bare_fifo, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	bare_true("bus master on: they come", bare_wait_vector(0, 1) && bare_wait_vector(tx->vector, 1));
	bare_check("bus master on: once each", bare_interrupts(), 1 | 1 << 4 * tx->vector);
	bare_recover(tx);
	if (bare_loops("bus master on: it works", 0, LENGTH))
		bare_ok("bus master on: it works");
}

void bare_test_errors(void)
{
	bare_section("FIFO: errors");
	bare_start_fifo();
	bare_fifo_write(FIFO_ERROR_CAUSE, 0xffffffff);
	bare_interrupts();
	bare_test_bad_descriptors();
	bare_test_failed_ring();
	bare_test_dma_errors();
	bare_test_no_master();
}

static void bare_test_ring_reset(void)
{
	static const char *const name = "ring reset: the other direction goes on";
	struct bare_ring *tx = TX(0), *rx = RX(0);

	bare_request(rx, bare_target, LENGTH, 90);
	bare_pause(tx);
	bare_request(tx, bare_source, LENGTH, 91);
	bare_ring_write(tx, RING_CONTROL, RING_RESET);
	bare_check("ring reset: nothing is posted", bare_ring_read(tx, RING_TAIL), 0);
	bare_check("ring reset: its base stays", bare_ring_read(tx, RING_BASE), (u32)(u64)tx->descriptors);
	bare_start_ring(tx, BARE_RING_LOG, BARE_RING_LOG);
	bare_request(tx, bare_source + 1, LENGTH, 92);
	if (bare_took(name, tx, 92, LENGTH, 0, DONE_OK) && bare_took(name, rx, 90, LENGTH, 0, DONE_OK) &&
	    bare_part(name, " (bytes)", bare_same(bare_target, bare_source + 1, LENGTH), true))
		bare_ok(name);
}

/* What the registers say after power-on, a soft reset and one of the function. */
static void bare_check_cleared(const char *name)
{
	if (bare_part(name, " (control)", bare_fifo_read(FIFO_CONTROL), 0) &&
	    bare_part(name, " (status)", bare_fifo_read(FIFO_STATUS), FIFO_READY) &&
	    bare_part(name, " (error cause)", bare_fifo_read(FIFO_ERROR_CAUSE), 0) &&
	    bare_part(name, " (ring)", bare_ring_read(RX(0), RING_STATUS), RING_STOPPED) &&
	    bare_part(name, " (size)", bare_ring_read(RX(0), RING_SIZE), 0) &&
	    bare_part(name, " (tail)", bare_ring_read(RX(0), RING_TAIL), 0) &&
	    bare_part(name, " (statistics)", bare_fifo_read64(CHANNEL(0) + CH_TX_BYTES), 0) &&
	    bare_part(name, " (FIFO)", bare_fifo_read(CHANNEL(0) + CH_FILL), 0))
		bare_ok(name);
}

/* Leaves a request that waits, bytes that nobody asks for, and a failed ring. */
static void bare_leave_work(void)
{
	struct bare_completion c;

	bare_start_fifo();
	bare_request(RX(0), bare_target, LENGTH, 93);
	bare_request(TX(1), bare_source, LENGTH, 94);
	bare_take(TX(1), &c);
	bare_post(TX(0), NOBODY, LENGTH, 0, 95);
	bare_ring_bell(TX(0));
	bare_take(TX(0), &c);
	bare_ring_becomes(TX(0), RING_FAILED(DONE_DMA));
	bare_fifo_write(FIFO_SCRATCH, 0x5c7a7c4);
	bare_interrupts();
}

/* Nothing of it comes any more; all is set up again, and works. */
static void bare_check_over(const char *over, const char *works)
{
	bare_sleep(A_WHILE);
	if (bare_part(over, " (interrupts)", bare_interrupts(), 0))
		bare_check(over, bare_arrived(RX(0)), false);
	bare_fifo_write(FIFO_ERROR_CAUSE, 0xffffffff);
	bare_start_fifo();
	bare_enable_msix();
	if (bare_loops(works, 0, LENGTH) && bare_loops(works, 1, LENGTH) &&
	    bare_part(works, " (interrupts)", bare_interrupts(), 0x11110))
		bare_ok(works);
}

static void bare_test_device_reset(void)
{
	bare_leave_work();
	bare_fifo_write(FIFO_CONTROL, FIFO_RESET);
	bare_true("soft reset: it is ready again", bare_becomes(FIFO_STATUS, FIFO_READY));
	bare_check_cleared("soft reset: all is as after power-on");
	bare_check("soft reset: but for the scratch register", bare_fifo_read(FIFO_SCRATCH), 0x5c7a7c4);
	bare_check_over("soft reset: what was posted is forgotten", "soft reset: it works");
}

static struct {
	u64 registers;
	u32 msix;
} bars;

static void bare_save_bars(void)
{
	bars.registers = bare_read_bar(bare_fifo, 0);
	bars.msix = bare_config_read(bare_fifo, PCI_BAR(MSIX_BAR));
}

static void bare_restore_bars(void)
{
	bare_write_bar(bare_fifo, 0, bars.registers);
	bare_config_write(bare_fifo, PCI_BAR(MSIX_BAR), bars.msix);
	bare_config_write(bare_fifo, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* The function's own registers, after a reset of it; its BARs are restored. */
static void bare_check_function(const char *name)
{
	u32 msix = bare_find_capability(bare_fifo, PCI_CAP_MSIX);

	if (bare_part(name, " (command)", bare_config_read(bare_fifo, PCI_COMMAND) & 0xffff, 0) &&
	    bare_part(name, " (BAR)", bare_read_bar(bare_fifo, 0), 0) &&
	    bare_part(name, " (MSI-X)", bare_config_read(bare_fifo, msix) & MSIX_ENABLE, 0))
		bare_ok(name);
	bare_restore_bars();
}

static void bare_test_function_reset(void)
{
	u32 express = bare_find_capability(bare_fifo, PCI_CAP_EXPRESS);
	u32 control = bare_config_read(bare_fifo, express + EXPRESS_CONTROL);

	bare_leave_work();
	bare_config_write(bare_fifo, express + EXPRESS_CONTROL, control | EXPRESS_FLR);
	bare_check("function-level reset: its bit reads as 0",
		   bare_config_read(bare_fifo, express + EXPRESS_CONTROL) & EXPRESS_FLR, 0);
	bare_check_function("function-level reset: nothing is enabled");
	bare_check_cleared("function-level reset: all is as after power-on");
	bare_check("function-level reset: the scratch register too", bare_fifo_read(FIFO_SCRATCH), 0);
	bare_check_over("function-level reset: what was posted is forgotten", "function-level reset: it works");
}

static void bare_test_power(void)
{
	u32 power = bare_find_capability(bare_fifo, PCI_CAP_POWER) + POWER_STATE;

	bare_leave_work();
	bare_config_write(bare_fifo, power, POWER_D3);
	bare_check("D3hot: its memory is not there", bare_fifo_read(FIFO_ID), 0xffffffff);
	bare_check("D3hot: its configuration is", bare_config_read(bare_fifo, 0), FIFO);
	bare_config_write(bare_fifo, power, 0);
	bare_check_function("D0 again: nothing is enabled");
	bare_check_cleared("D0 again: all is as after power-on");
	bare_check_over("D0 again: what was posted is forgotten", "D0 again: it works");
}

void bare_test_resets(void)
{
	bare_section("FIFO: resets");
	bare_start_fifo();
	bare_save_bars();
	bare_test_ring_reset();
	bare_test_device_reset();
	bare_test_function_reset();
	bare_test_power();
	bare_disable_msix();
	bare_config_write(bare_fifo, PCI_COMMAND, 0);
}
