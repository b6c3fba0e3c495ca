// SPDX-License-Identifier: MIT
/*
 * The FIFO: how the tests drive it, its registers, and what goes through it.
 */
#include "fifo.h"

#define CHUNK		BARE_PAGE
#define A_WHILE		100000	/* ns */
#define RING_OFFSET	0x100
#define RING_PITCH	0x100
#define DOORBELLS	0x10000

/*
 * The source's bytes repeat after PERIOD, a prime, so that no loss or repetition
 * that one could think of falls into step with them.
 */
#define PERIOD		2039

struct bare_ring bare_rings[2 * FIFO_CHANNELS];
u8 bare_source[BARE_PAGE] __attribute__((aligned(BARE_PAGE)));
u8 bare_target[BARE_PAGE] __attribute__((aligned(BARE_PAGE)));
u32 bare_fifo;

static struct {
	struct bare_descriptor descriptors[1 << BARE_RING_LOG];
	struct bare_completion completions[1 << BARE_RING_LOG];
} memory[2 * FIFO_CHANNELS] __attribute__((aligned(BARE_PAGE)));
static u64 registers;

u32 bare_fifo_read(u32 reg)
{
	return bare_read_device(registers + reg);
}

void bare_fifo_write(u32 reg, u32 v)
{
	bare_write_device(registers + reg, v);
}

/* The low half first: reading it may hold the high one. */
u64 bare_fifo_read64(u32 reg)
{
	u32 low = bare_fifo_read(reg);

	return low | (u64)bare_fifo_read(reg + 4) << 32;
}

static void bare_fifo_write64(u32 reg, u64 v)
{
	bare_fifo_write(reg, v);
	bare_fifo_write(reg + 4, v >> 32);
}

u32 bare_ring_read(const struct bare_ring *r, u32 reg)
{
	return bare_fifo_read(r->regs + reg);
}

void bare_ring_write(const struct bare_ring *r, u32 reg, u32 v)
{
	bare_fifo_write(r->regs + reg, v);
}

/* Reaches the registers where BAR 0 says that they are. */
void bare_map_fifo(void)
{
	registers = bare_map_device(bare_read_bar(bare_fifo, 0));
}

static void bare_init_rings(void)
{
	for (u32 i = 0; i < 2 * FIFO_CHANNELS; i++) {
		struct bare_ring *r = &bare_rings[i];

		r->regs = CHANNEL(i / 2) + RING_OFFSET + RING_PITCH * (i % 2);
		r->bell = DOORBELLS + 0x1000 * (i / 2) + 4 * (i % 2);
		r->release = r->bell + 8;
		r->vector = 1 + i;
		r->descriptors = memory[i].descriptors;
		r->completions = memory[i].completions;
	}
}

static void bare_init_source(void)
{
	u64 v = 0;

	for (u32 i = 0; i < (PERIOD + 7) / 8; i++)
		((u64 *)bare_source)[i] = v += 0x9e3779b97f4a7c15;
	memcpy(bare_source + PERIOD, bare_source, PERIOD);
}

/* The source's bytes from a place in the stream on: as many as a piece has. */
static const u8 *bare_stream_at(u32 position)
{
	return bare_source + position % PERIOD;
}

/* Sets a ring up from anew, with 1 << log descriptors, and has it run. */
void bare_start_ring(struct bare_ring *r, u32 log, u32 comp_log)
{
	bare_ring_write(r, RING_CONTROL, RING_RESET);
	for (u32 i = 0; i < 1u << comp_log; i++)
		r->completions[i].phase = 0;
	r->mask = (1 << log) - 1;
	r->comp_mask = (1 << comp_log) - 1;
	r->head = r->tail = r->taken = 0;
	r->phase = 1;
	bare_fifo_write64(r->regs + RING_BASE, (u64)r->descriptors);
	bare_ring_write(r, RING_SIZE, log);
	bare_fifo_write64(r->regs + RING_COMP, (u64)r->completions);
	bare_ring_write(r, RING_COMP_SIZE, comp_log);
	bare_ring_write(r, RING_COALESCE, 0);
	bare_ring_write(r, RING_THRESHOLD, 0);
	bare_ring_write(r, RING_CONTROL, RING_RUN);
}

/* All rings from anew, and nothing in the channels. */
void bare_start_fifo(void)
{
	bare_fifo_write(FIFO_CONTROL, FIFO_ENABLE);
	for (u32 i = 0; i < 2 * FIFO_CHANNELS; i++)
		bare_start_ring(&bare_rings[i], BARE_RING_LOG, BARE_RING_LOG);
	for (u32 c = 0; c < FIFO_CHANNELS; c++)
		bare_fifo_write(CHANNEL(c) + CH_CONTROL, CH_FLUSH);
}

/* Writes a descriptor, of which bare_ring_bell tells the FIFO. */
void bare_post(struct bare_ring *r, u64 address, u32 length, u32 flags, u64 cookie)
{
	r->descriptors[r->tail] = (struct bare_descriptor){
		.address = address,
		.length = length,
		.flags = flags,
		.cookie = cookie,
	};
	r->tail = (r->tail + 1) & r->mask;
}

void bare_ring_bell(const struct bare_ring *r)
{
	asm volatile("" : : : "memory");
	bare_fifo_write(r->bell, r->tail);
}

/* A request of one descriptor. */
void bare_request(struct bare_ring *r, const void *at, u32 length, u64 cookie)
{
	bare_post(r, (u64)at, length, 0, cookie);
	bare_ring_bell(r);
}

/* How many more descriptors can be posted. */
static u32 bare_room(const struct bare_ring *r)
{
	return (r->head - r->tail - 1) & r->mask;
}

/* Is there a completion to take? The phase says it. */
bool bare_arrived(const void *ring)
{
	const struct bare_ring *r = ring;

	return r->completions[r->taken].phase == r->phase;
}

/* Takes the next completion; false: it did not come. */
bool bare_take(struct bare_ring *r, struct bare_completion *c)
{
	volatile struct bare_completion *next = &r->completions[r->taken];

	if (!bare_until(bare_arrived, r))
		return false;
	c->cookie = next->cookie;
	c->done = next->done;
	c->residual = next->residual;
	c->status = next->status;
	c->head = r->head = next->head;
	r->taken = (r->taken + 1) & r->comp_mask;
	if (!r->taken)
		r->phase ^= 1;
	bare_fifo_write(r->release, r->taken);
	return true;
}

/* Takes the next one, and is part of a check of it. */
bool bare_took(const char *name, struct bare_ring *r, u64 cookie, u64 done, u64 residual, u32 status)
{
	struct bare_completion c;

	return bare_part(name, " (completion)", bare_take(r, &c), true) &&
	       bare_part(name, " (status)", c.status, status) &&
	       bare_part(name, " (cookie)", c.cookie, cookie) &&
	       bare_part(name, " (done)", c.done, done) &&
	       bare_part(name, " (residual)", c.residual, residual);
}

bool bare_same(const void *a, const void *b, u32 n)
{
	const u8 *p = a, *q = b;

	for (; n >= 8; n -= 8, p += 8, q += 8) {
		if (*(const u64 *)p != *(const u64 *)q)
			return false;
	}
	for (; n; n--, p++, q++) {
		if (*p != *q)
			return false;
	}
	return true;
}

/* Part of a check: a request each way through a channel where nothing waits. */
bool bare_loops(const char *name, u32 channel, u32 length)
{
	static u64 cookie = 0xc00c1e0000000000;
	struct bare_ring *tx = TX(channel), *rx = RX(channel);

	cookie++;
	memset(bare_target, 0, length);
	bare_request(rx, bare_target, length, ~cookie);
	bare_request(tx, bare_source, length, cookie);
	return bare_took(name, tx, cookie, length, 0, DONE_OK) &&
	       bare_took(name, rx, ~cookie, length, 0, DONE_OK) &&
	       bare_part(name, " (bytes)", bare_same(bare_target, bare_source, length), true);
}

struct bare_register {
	u32 reg, value;
};

static bool bare_has(const void *what)
{
	const struct bare_register *r = what;

	return bare_fifo_read(r->reg) == r->value;
}

/* Waits until a register has a value; false: it did not come to that. */
bool bare_becomes(u32 reg, u32 v)
{
	struct bare_register r = { reg, v };

	return bare_until(bare_has, &r);
}

bool bare_ring_becomes(const struct bare_ring *r, u32 status)
{
	return bare_becomes(r->regs + RING_STATUS, status);
}

static void bare_test_widths(void)
{
	volatile u8 *at = (u8 *)registers;

	bare_check("a register and the next one in 8 bytes", *(volatile u64 *)(at + FIFO_ID),
		   FIFO_IS | (u64)bare_fifo_read(FIFO_VERSION) << 32);
	bare_check("no error so far", bare_fifo_read(FIFO_ERROR_CAUSE), 0);
	bare_check("2 bytes of a register read as 0", *(volatile u16 *)(at + FIFO_ID), 0);
	bare_check("and are an error", bare_fifo_read(FIFO_ERROR_CAUSE), ERROR_ACCESS);
	bare_fifo_write(FIFO_ERROR_CAUSE, ~ERROR_ACCESS);
	bare_check("which no other bit clears", bare_fifo_read(FIFO_ERROR_CAUSE), ERROR_ACCESS);
	bare_fifo_write(FIFO_ERROR_CAUSE, ERROR_ACCESS);
	bare_check("but its own does", bare_fifo_read(FIFO_ERROR_CAUSE), 0);
	at[FIFO_SCRATCH] = 1;
	bare_check("1 byte written is an error as well", bare_fifo_read(FIFO_ERROR_CAUSE), ERROR_ACCESS);
	bare_check("and lost", bare_fifo_read(FIFO_SCRATCH), 0);
	bare_fifo_write(FIFO_ERROR_CAUSE, ERROR_ACCESS);
}

static void bare_test_identity(void)
{
	u32 caps = bare_fifo_read(FIFO_CAPS), depth = bare_fifo_read(FIFO_DEPTH);
	u64 before = bare_fifo_read64(FIFO_TIME);

	bare_check("ID", bare_fifo_read(FIFO_ID), FIFO_IS);
	bare_check("major version", bare_fifo_read(FIFO_VERSION) >> 16, 1);
	bare_check("channels", caps & 0xff, FIFO_CHANNELS);
	bare_true("rings of 2^5 at least", (caps >> 8 & 0xff) >= BARE_RING_LOG);
	bare_check("ends: loopback, source and sink at least", caps >> 16 & 7, 7);
	bare_true("buffers of 4 KiB at least", bare_fifo_read(FIFO_MAX_LENGTH) >= BARE_PAGE);
	bare_true("a depth that is a power of two", depth >= BARE_PAGE && !(depth & (depth - 1)));
	bare_true("its time goes on", bare_fifo_read64(FIFO_TIME) > before);
	bare_check("what is no register reads as 0", bare_fifo_read(CHANNEL(FIFO_CHANNELS)), 0);
}

static void bare_test_ring_registers(void)
{
	struct bare_ring *r = TX(0);

	bare_ring_write(r, RING_CONTROL, RING_RUN);
	bare_check("a ring that is not set up does not run", bare_ring_read(r, RING_STATUS), RING_STOPPED);
	bare_fifo_write64(r->regs + RING_BASE, 0x123456789abcdeff);
	bare_check("a ring's base is aligned", bare_fifo_read64(r->regs + RING_BASE), 0x123456789abcdec0);
	bare_ring_write(r, RING_SIZE, 31);
	bare_check("a size that there is not", bare_ring_read(r, RING_SIZE), 0);
	bare_fifo_write(FIFO_CONTROL, FIFO_ENABLE);
	bare_start_ring(r, BARE_RING_LOG, BARE_RING_LOG);
	bare_check("a ring that is set up runs", bare_ring_read(r, RING_STATUS), RING_RUNNING);
	bare_fifo_write64(r->regs + RING_BASE, 0);
	bare_check("and keeps its base", bare_fifo_read64(r->regs + RING_BASE), (u64)r->descriptors);
	bare_ring_write(r, RING_SIZE, 1);
	bare_check("and its size", bare_ring_read(r, RING_SIZE), BARE_RING_LOG);
}

static void bare_test_soft_reset(void)
{
	bare_fifo_write(FIFO_SCRATCH, 0x600df00d);
	bare_fifo_write(FIFO_CONTROL, FIFO_RESET);
	bare_true("reset: it is ready again", bare_becomes(FIFO_STATUS, FIFO_READY));
	bare_check("reset: not enabled", bare_fifo_read(FIFO_CONTROL), 0);
	bare_check("reset: the ring stands", bare_ring_read(TX(0), RING_STATUS), RING_STOPPED);
	bare_check("reset: and has no size", bare_ring_read(TX(0), RING_SIZE), 0);
	bare_check("reset: nor a base", bare_fifo_read64(TX(0)->regs + RING_BASE), 0);
	bare_check("reset: the scratch register stays", bare_fifo_read(FIFO_SCRATCH), 0x600df00d);
}

void bare_test_registers(void)
{
	bare_section("FIFO: registers and reset");
	bare_fifo_write(FIFO_SCRATCH, 0);
	bare_test_identity();
	bare_test_widths();
	bare_test_ring_registers();
	bare_test_soft_reset();
}

static void bare_test_loop(void)
{
	static const char *const name = "fewer bytes than were asked for";
	struct bare_ring *tx = TX(0), *rx = RX(0);

	if (bare_loops("a request each way", 0, 1000))
		bare_ok("a request each way");
	if (bare_loops("and in the other channel", 1, 1000))
		bare_ok("and in the other channel");
	bare_target[100] = 0x77;
	bare_request(rx, bare_target, BARE_PAGE, 1);
	bare_request(tx, bare_source + 1, 100, 2);
	if (bare_took(name, tx, 2, 100, 0, DONE_OK) && bare_took(name, rx, 1, 100, BARE_PAGE - 100, DONE_OK) &&
	    bare_part(name, " (bytes)", bare_same(bare_target, bare_source + 1, 100), true))
		bare_ok(name);
	bare_check("and none behind them", bare_target[100], 0x77);
}

/* Pieces of all alignments, in and out of step, one of them across two pages. */
static void bare_test_scatter_gather(void)
{
	static const char *const name = "scattered, and gathered otherwise";
	static u8 two_pages[2 * BARE_PAGE] __attribute__((aligned(BARE_PAGE)));
	struct bare_ring *tx = TX(0), *rx = RX(0);
	u8 *across = two_pages + BARE_PAGE - 9;
	bool good;

	memset(bare_target, 0, 512);
	memset(across, 0, 21);
	bare_ring_write(rx, RING_THRESHOLD, 400);
	bare_post(rx, (u64)bare_target + 3, 130, DESC_MORE, 0x11);
	bare_post(rx, (u64)across, 21, DESC_MORE, 0x12);
	bare_post(rx, (u64)bare_target + 200, 249, 0, 0x13);
	bare_ring_bell(rx);
	bare_post(tx, (u64)bare_source, 1, DESC_MORE, 0x21);
	bare_post(tx, (u64)bare_source + 1, 63, DESC_MORE, 0x22);
	bare_post(tx, (u64)bare_source + 64, 64, DESC_MORE, 0x23);
	bare_post(tx, (u64)bare_source + 128, 272, 0, 0x24);
	bare_ring_bell(tx);
	good = bare_took(name, tx, 0x21, 400, 0, DONE_OK) && bare_took(name, rx, 0x11, 400, 0, DONE_OK) &&
	       bare_part(name, " (first)", bare_same(bare_target + 3, bare_source, 130), true) &&
	       bare_part(name, " (second)", bare_same(across, bare_source + 130, 21), true) &&
	       bare_part(name, " (third)", bare_same(bare_target + 200, bare_source + 151, 249), true) &&
	       bare_part(name, " (before)", bare_target[2], 0) &&
	       bare_part(name, " (between)", bare_target[133] | bare_target[199], 0) &&
	       bare_part(name, " (behind)", bare_target[449], 0);
	if (good)
		bare_ok(name);
	bare_ring_write(rx, RING_THRESHOLD, 0);
}

static void bare_test_threshold(void)
{
	static const char *const name = "then both complete";
	struct bare_ring *tx = TX(0), *rx = RX(0);
	struct bare_completion c;

	bare_ring_write(rx, RING_THRESHOLD, 64);
	bare_request(rx, bare_target, 128, 3);
	bare_request(tx, bare_source, 63, 4);
	bare_true("below the threshold the sender completes", bare_take(tx, &c));
	bare_sleep(A_WHILE);
	bare_true("and the receiver waits", !bare_arrived(rx));
	bare_request(tx, bare_source + 63, 1, 5);
	if (bare_took(name, tx, 5, 1, 0, DONE_OK) && bare_took(name, rx, 3, 64, 64, DONE_OK) &&
	    bare_part(name, " (bytes)", bare_same(bare_target, bare_source, 64), true))
		bare_ok(name);
	bare_ring_write(rx, RING_THRESHOLD, 0);
}

static void bare_test_full_completions(void)
{
	static const char *const name = "and goes on when one is taken";
	struct bare_ring *tx = TX(1);

	bare_start_ring(tx, 3, 1);
	bare_post(tx, (u64)bare_source, 8, 0, 6);
	bare_request(tx, bare_source, 8, 7);
	bare_true("completions as many as there is room", bare_becomes(tx->regs + RING_COMP_TAIL, 1));
	bare_sleep(A_WHILE);
	bare_check("then the ring waits", bare_ring_read(tx, RING_COMP_TAIL), 1);
	if (bare_took(name, tx, 6, 8, 0, DONE_OK) && bare_took(name, tx, 7, 8, 0, DONE_OK))
		bare_ok(name);
}

/* A chain of pieces of 4 KiB, all of them the same: more than it has room for. */
static void bare_test_full(void)
{
	static const char *const name = "a request that is larger completes when there is room";
	u32 depth = bare_fifo_read(FIFO_DEPTH), pieces = depth / CHUNK + 1;
	struct bare_ring *tx = TX(0), *rx = RX(0);

	if (!bare_part(name, " (pieces)", pieces <= tx->mask, true))
		return;
	for (u32 i = 1; i <= pieces; i++)
		bare_post(tx, (u64)bare_source, CHUNK, i < pieces ? DESC_MORE : 0, 8);
	bare_ring_bell(tx);
	bare_true("it takes as much as is its depth", bare_becomes(CHANNEL(0) + CH_FILL, depth));
	bare_sleep(A_WHILE);
	bare_true("and no more", !bare_arrived(tx) && bare_fifo_read(CHANNEL(0) + CH_FILL) == depth);
	bare_request(rx, bare_target, CHUNK, 9);
	if (bare_took(name, rx, 9, CHUNK, 0, DONE_OK) && bare_took(name, tx, 8, depth + CHUNK, 0, DONE_OK) &&
	    bare_part(name, " (bytes)", bare_same(bare_target, bare_source, CHUNK), true))
		bare_ok(name);
	bare_check("it is full again", bare_fifo_read(CHANNEL(0) + CH_FILL), depth);
	bare_fifo_write(CHANNEL(0) + CH_CONTROL, CH_FLUSH);
	bare_check("flushed, it is empty", bare_fifo_read(CHANNEL(0) + CH_FILL), 0);
}

/*
 * A stream, in requests of all lengths and of one to three pieces, received in
 * requests of two pieces, through rings that go round many times.
 */
#define STREAM_RING	3
#define RECEIVE_FIRST	96
#define RECEIVE_SECOND	64
#define RECEIVE_GAP	32
#define RECEIVE		(RECEIVE_FIRST + RECEIVE_SECOND)
#define RECEIVES	40
#define STREAM		(RECEIVES * RECEIVE)
#define SLOTS		4
#define SLOT		256

static struct {
	u32 sends, sent;	/* requests, bytes */
	u32 asks;
	u32 send_ends, receives;
	u32 wrong;
} stream;

static void bare_send_next(struct bare_ring *tx)
{
	u32 i = stream.sends++, pieces = 1 + i % 3, n = 8 + 37 * i % 113;

	if (n > STREAM - stream.sent)
		n = STREAM - stream.sent;
	if (n < pieces)
		pieces = 1;
	for (; pieces; pieces--) {
		u32 m = n / pieces;

		bare_post(tx, (u64)bare_stream_at(stream.sent), m, pieces > 1 ? DESC_MORE : 0, i);
		stream.sent += m;
		n -= m;
	}
}

static void bare_ask_next(struct bare_ring *rx)
{
	u32 i = stream.asks++;
	u8 *slot = bare_target + i % SLOTS * SLOT;

	bare_post(rx, (u64)slot, RECEIVE_FIRST, DESC_MORE, i);
	bare_post(rx, (u64)slot + RECEIVE_FIRST + RECEIVE_GAP, RECEIVE_SECOND, 0, i);
}

static void bare_take_sent(struct bare_ring *tx)
{
	struct bare_completion c;

	bare_take(tx, &c);
	stream.wrong += c.status != DONE_OK || c.cookie != stream.send_ends || c.residual;
	stream.send_ends++;
}

static void bare_take_received(struct bare_ring *rx)
{
	u32 i = stream.receives++;
	u8 *slot = bare_target + i % SLOTS * SLOT;
	struct bare_completion c;

	bare_take(rx, &c);
	stream.wrong += c.status != DONE_OK || c.cookie != i || c.done != RECEIVE || c.residual;
	stream.wrong += !bare_same(slot, bare_stream_at(i * RECEIVE), RECEIVE_FIRST);
	stream.wrong += !bare_same(slot + RECEIVE_FIRST + RECEIVE_GAP,
				   bare_stream_at(i * RECEIVE + RECEIVE_FIRST), RECEIVE_SECOND);
}

static bool bare_any_arrived(const void *unused)
{
	(void)unused;
	return bare_arrived(TX(0)) || bare_arrived(RX(0));
}

static bool bare_run_stream(void)
{
	struct bare_ring *tx = TX(0), *rx = RX(0);

	while (stream.receives < RECEIVES || stream.send_ends < stream.sends) {
		while (stream.sent < STREAM && bare_room(tx) >= 3)
			bare_send_next(tx);
		bare_ring_bell(tx);
		while (stream.asks < RECEIVES && bare_room(rx) >= 2)
			bare_ask_next(rx);
		bare_ring_bell(rx);
		if (!bare_until(bare_any_arrived, NULL))
			return false;
		while (bare_arrived(tx))
			bare_take_sent(tx);
		while (bare_arrived(rx))
			bare_take_received(rx);
	}
	return true;
}

static void bare_test_stream(void)
{
	u64 tx_bytes = bare_fifo_read64(CHANNEL(0) + CH_TX_BYTES), rx_bytes = bare_fifo_read64(CHANNEL(0) + CH_RX_BYTES);
	u64 tx_requests = bare_fifo_read64(CHANNEL(0) + CH_TX_REQUESTS);
	u64 rx_requests = bare_fifo_read64(CHANNEL(0) + CH_RX_REQUESTS);

	bare_start_ring(TX(0), STREAM_RING, 2);
	bare_start_ring(RX(0), STREAM_RING, 1);
	bare_ring_write(RX(0), RING_THRESHOLD, RECEIVE);
	bare_true("a stream through rings that go round many times", bare_run_stream());
	bare_check("each byte of it, and in order", stream.wrong, 0);
	bare_check("all that was sent", bare_fifo_read64(CHANNEL(0) + CH_TX_BYTES) - tx_bytes, STREAM);
	bare_check("is all that was received", bare_fifo_read64(CHANNEL(0) + CH_RX_BYTES) - rx_bytes, STREAM);
	bare_check("requests sent", bare_fifo_read64(CHANNEL(0) + CH_TX_REQUESTS) - tx_requests, stream.sends);
	bare_check("requests received", bare_fifo_read64(CHANNEL(0) + CH_RX_REQUESTS) - rx_requests, RECEIVES);
	bare_check("nothing is left", bare_fifo_read(CHANNEL(0) + CH_FILL), 0);
	bare_check("the ring's head is its tail", bare_ring_read(TX(0), RING_HEAD), bare_ring_read(TX(0), RING_TAIL));
}

static void bare_set_end(u32 channel, u32 end)
{
	bare_ring_write(TX(channel), RING_CONTROL, RING_RESET);
	bare_ring_write(RX(channel), RING_CONTROL, RING_RESET);
	bare_fifo_write(CHANNEL(channel) + CH_END, end);
	bare_start_ring(TX(channel), BARE_RING_LOG, BARE_RING_LOG);
	bare_start_ring(RX(channel), BARE_RING_LOG, BARE_RING_LOG);
}

/* What the source makes is what the sink expects. */
static void bare_test_ends(void)
{
	static const char *const source = "the source fills a request", *const sink = "the sink takes it";

	bare_set_end(1, END_SOURCE);
	bare_ring_write(RX(1), RING_THRESHOLD, 1024);
	bare_request(RX(1), bare_target, 1024, 10);
	if (bare_took(source, RX(1), 10, 1024, 0, DONE_OK))
		bare_ok(source);
	bare_true("and overruns where none follows", bare_becomes(FIFO_ERROR_CAUSE, ERROR_OVERRUN));
	bare_true("which the channel counts", bare_fifo_read(CHANNEL(1) + CH_OVERRUN) > 0);
	bare_set_end(1, END_SINK);
	bare_fifo_write(FIFO_ERROR_CAUSE, ERROR_OVERRUN);
	bare_request(TX(1), bare_target, 1024, 11);
	if (bare_took(sink, TX(1), 11, 1024, 0, DONE_OK))
		bare_ok(sink);
	bare_check("and knows it", bare_fifo_read(CHANNEL(1) + CH_MISMATCHES), 0);
	bare_request(TX(1), bare_target, 1, 12);
	if (bare_took("what it does not know", TX(1), 12, 1, 0, DONE_OK))
		bare_check("what it does not know", bare_fifo_read(CHANNEL(1) + CH_MISMATCHES), 1);
	bare_set_end(1, END_LOOPBACK);
}

void bare_test_data(void)
{
	bare_section("FIFO: data");
	bare_start_fifo();
	bare_test_loop();
	bare_test_scatter_gather();
	bare_test_threshold();
	bare_test_full_completions();
	bare_test_full();
	bare_test_stream();
	bare_test_ends();
}

void bare_test_fifo(void)
{
	bare_section("FIFO: the PCI function");
	bare_fifo = bare_find_function(FIFO);
	bare_true("it is there", bare_fifo != BARE_NO_FUNCTION);
	if (bare_fifo == BARE_NO_FUNCTION)
		return;
	bare_init_rings();
	bare_init_source();
	bare_test_function();
	bare_init_msix();
	bare_config_write(bare_fifo, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	bare_test_registers();
	bare_test_data();
	bare_test_msix();
	bare_test_coalescing();
	bare_test_fifo_pin();
	bare_test_stops();
	bare_test_errors();
	bare_test_resets();
}
