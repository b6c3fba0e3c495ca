// SPDX-License-Identifier: MIT
/*
 * Exceptions: the probes of exceptions.S, and those that need a CPU in a
 * special state; then page faults.
 */
#include "bare.h"

/* As probes.h lays it out. */
struct bare_probe_entry {
	const char *name;
	void *code, *at;
	u32 vector, error, ring, flaws;
};

extern const struct bare_probe_entry bare_probes_start[], bare_probes_end[];
extern char bare_touch[], bare_user_exit[], bare_user_int3[], bare_user_gate[],
	    bare_user_nop[], bare_user_nop_end[];
extern char bare_user_read[], bare_user_write[], bare_user_jump[];
extern char bare_user_fninit[], bare_user_sse[], bare_user_x87[], bare_user_x87_at[];
extern char bare_user_simd[], bare_user_simd_at[], bare_user_fpu_reset[];

#define DR6_BS		(1 << 14)
#define GATE_CODE(n)	((n) << 3 | 2)	/* SDM 3, 6.13 */

static u64 bare_read_dr6(void)
{
	u64 v;

	asm volatile("mov %%dr6, %0" : "=r"(v));
	return v;
}

/* The gates' privilege, presence and stack, by INT from ring 3. */
static void bare_test_gates(void)
{
	if (bare_unless(FLAW_RING3 | FLAW_TCG, "#NP: a gate")) {
		bare_set_gate(TEST_GATE, false, 3, 0);
		bare_user(bare_user_gate, 0, 0);
		bare_expect("#NP: a gate", NP, GATE_CODE(TEST_GATE), bare_user_gate);
	}
	if (bare_unless(FLAW_RING3 | FLAW_TCG, "#GP: a gate of ring 0 that is not present")) {
		bare_set_gate(TEST_GATE, false, 0, 0);
		bare_user(bare_user_gate, 0, 0);
		bare_expect("#GP: a gate of ring 0 that is not present", GP, GATE_CODE(TEST_GATE), bare_user_gate);
	}
	if (bare_unless(FLAW_RING3, "a gate of ring 3")) {
		bare_set_gate(TEST_GATE, true, 3, 0);
		bare_user(bare_user_gate, 0, 0);
		bare_expect("a gate of ring 3", TEST_GATE, 0, bare_user_gate + 2);
	}
	if (bare_unless(FLAW_RING3 | FLAW_TCG, "#GP: INT3, a gate of ring 0")) {
		bare_set_gate(BP, true, 0, 0);
		bare_user(bare_user_int3, 0, 0);
		bare_expect("#GP: INT3, a gate of ring 0", GP, GATE_CODE(BP), bare_user_int3);
		bare_set_gate(BP, true, 3, 0);
	}
}

/*
 * A page fault whose gate is not present: both together are a double fault
 * (SDM 3, table 6-5).
 */
static void bare_test_double_fault(void)
{
	bare_set_gate(PF, false, 0, 0);
	bare_probe(bare_touch, BARE_ABSENT);
	bare_set_gate(PF, true, 0, 0);
	bare_expect("#DF: a page fault through a gate that is not present", DF, 0, bare_touch);
	bare_check("#DF: on the stack of its IST", bare_this_cpu()->frame + sizeof(struct bare_frame),
		   (u64)bare_ist_stacks[0][IST_DF]);
}

static void bare_test_debug(void)
{
	bare_user(bare_user_nop, FLAG_TF, 0);
	bare_expect("#DB: a single step", DB, 0, bare_user_nop_end);
	bare_true("#DB: DR6 says single step", bare_read_dr6() & DR6_BS);
	asm volatile("mov %0, %%dr6" : : "r"(0xffff0ff0ul));
}

static void bare_test_alignment(void)
{
	u64 odd = (u64)bare_user_read + 1;

	if (bare_unless(FLAW_RING3, "no #AC without CR0.AM")) {
		bare_user(bare_user_read, FLAG_AC, odd);
		bare_expect("no #AC without CR0.AM", VECTOR_EXIT, 0, NULL);
	}
	bare_write_cr0(bare_read_cr0() | CR0_AM);
	if (bare_unless(FLAW_TCG, "#AC: an unaligned load")) {
		bare_user(bare_user_read, FLAG_AC, odd);
		bare_expect("#AC: an unaligned load", AC, 0, bare_user_read);
	}
	bare_user(bare_user_read, FLAG_AC, (u64)bare_user_exit & ~7ul);
	bare_expect("no #AC for an aligned load", VECTOR_EXIT, 0, NULL);
	bare_user(bare_user_read, 0, odd);
	bare_expect("no #AC without the flag", VECTOR_EXIT, 0, NULL);
	bare_write_cr0(bare_read_cr0() & ~CR0_AM);
}

static void bare_test_fpu(void)
{
	if (bare_unless(FLAW_RING3, "#NM: x87 with CR0.TS")) {
		bare_write_cr0(bare_read_cr0() | CR0_TS);
		bare_user(bare_user_fninit, 0, 0);
		bare_expect("#NM: x87 with CR0.TS", NM, 0, bare_user_fninit);
	}
	if (bare_unless(FLAW_RING3, "#NM: SSE with CR0.TS")) {
		bare_user(bare_user_sse, 0, 0);
		bare_expect("#NM: SSE with CR0.TS", NM, 0, bare_user_sse);
	}
	asm volatile("clts");
	bare_user(bare_user_fninit, 0, 0);
	bare_expect("x87 after CLTS", VECTOR_EXIT, 0, NULL);
	bare_user(bare_user_x87, 0, 0);
	bare_expect("#MF: x87 division by zero", MF, 0, bare_user_x87_at);
	if (bare_unless(FLAW_TCG, "#XM: SSE division by zero")) {
		bare_user(bare_user_simd, 0, 0);
		bare_expect("#XM: SSE division by zero", XM, 0, bare_user_simd_at);
	}
	if (bare_unless(FLAW_RING3, "#UD: SSE without CR4.OSFXSR")) {
		bare_write_cr4(bare_read_cr4() & ~CR4_OSFXSR);
		bare_user(bare_user_sse, 0, 0);
		bare_expect("#UD: SSE without CR4.OSFXSR", UD, 0, bare_user_sse);
		bare_write_cr4(bare_read_cr4() | CR4_OSFXSR);
	}
	bare_user(bare_user_fpu_reset, 0, 0);
	bare_expect("SSE with CR4.OSFXSR", VECTOR_EXIT, 0, NULL);
}

void bare_test_exceptions(void)
{
	bare_section("exceptions");
	for (const struct bare_probe_entry *p = bare_probes_start; p < bare_probes_end; p++) {
		if (!bare_unless(p->flaws, p->name))
			continue;
		if (p->ring)
			bare_user(p->code, 0, 0);
		else
			bare_probe(p->code, 0);
		bare_expect(p->name, p->vector, p->error, p->at);
	}
	bare_test_gates();
	bare_test_double_fault();
	bare_test_debug();
	bare_test_alignment();
	bare_test_fpu();
}

enum bare_access { READ, WRITE, JUMP };

static bool bare_read_at(u64 address)
{
	asm volatile("mov (%0), %%al" : : "r"(address) : "rax", "memory");
	return true;
}

static bool bare_write_at(u64 address)
{
	asm volatile("mov %0, (%0)" : : "r"(address) : "memory");
	return true;
}

/* An access to the window's page 0 by a ring; the page has code. */
static void bare_page_access(u32 ring, enum bare_access access)
{
	void *const ring0[] = { bare_read_at, bare_write_at, (void *)BARE_WINDOW };
	void *const ring3[] = { bare_user_read, bare_user_write, bare_user_jump };

	if (ring)
		bare_user(ring3[access], 0, BARE_WINDOW);
	else
		bare_probe(ring0[access], BARE_WINDOW);
}

static const struct bare_page_fault {
	const char *name;
	u64 flags;		/* of the page */
	u32 ring;
	enum bare_access access;
	int code;		/* -1: no fault */
} page_faults[] = {
	{ "read a page that is absent", 0, 0, READ, 0 },
	{ "write a page that is absent", 0, 0, WRITE, PF_W },
	{ "execute a page that is absent", 0, 0, JUMP, PF_I },
	{ "read a page that is absent, ring 3", 0, 3, READ, PF_U },
	{ "write a page that is absent, ring 3", 0, 3, WRITE, PF_U | PF_W },
	{ "execute a page that is absent, ring 3", 0, 3, JUMP, PF_U | PF_I },
	{ "read a read-only page", PTE_P, 0, READ, -1 },
	{ "write a read-only page", PTE_P, 0, WRITE, PF_P | PF_W },
	{ "execute a read-only page", PTE_P, 0, JUMP, -1 },
	{ "write a page", PTE_P | PTE_W, 0, WRITE, -1 },
	{ "read a page with NX", PTE_P | PTE_NX, 0, READ, -1 },
	{ "execute a page with NX", PTE_P | PTE_NX, 0, JUMP, PF_P | PF_I },
	{ "read ring 0's page, ring 3", PTE_P | PTE_W, 3, READ, PF_P | PF_U },
	{ "write ring 0's page, ring 3", PTE_P | PTE_W, 3, WRITE, PF_P | PF_U | PF_W },
	{ "execute ring 0's page, ring 3", PTE_P | PTE_W, 3, JUMP, PF_P | PF_U | PF_I },
	{ "read a page, ring 3", PTE_P | PTE_U, 3, READ, -1 },
	{ "write a read-only page, ring 3", PTE_P | PTE_U, 3, WRITE, PF_P | PF_U | PF_W },
	{ "write a page, ring 3", PTE_P | PTE_U | PTE_W, 3, WRITE, -1 },
	{ "execute a page, ring 3", PTE_P | PTE_U, 3, JUMP, -1 },
	{ "execute a page with NX, ring 3", PTE_P | PTE_U | PTE_NX, 3, JUMP, PF_P | PF_U | PF_I },
	{ "SMAP: read ring 3's page", PTE_P | PTE_U | PTE_W, 0, READ, PF_P },
	{ "SMAP: write ring 3's page", PTE_P | PTE_U | PTE_W, 0, WRITE, PF_P | PF_W },
	{ "SMEP: execute ring 3's page", PTE_P | PTE_U, 0, JUMP, PF_P | PF_I },
};

/* Says how the access ended. */
static void bare_expect_page_fault(const char *name, u32 ring, int code)
{
	struct bare_cpu *cpu = bare_this_cpu();
	bool fault = code >= 0;
	u32 vector = fault ? PF : ring ? VECTOR_EXIT : BARE_RETURNED;

	if (fault && !bare_part(name, " (CR2)", cpu->cr2, BARE_WINDOW))
		return;
	bare_expect(name, vector, fault ? code : 0, NULL);
}

void bare_test_page_faults(void)
{
	/* In ring 0 a RET, in ring 3 INT VECTOR_EXIT. */
	static const u8 code[2][2] = { { 0xc3 }, { 0xcd, VECTOR_EXIT } };

	bare_section("page faults");
	for (u32 i = 0; i < ARRAY_SIZE(page_faults); i++) {
		const struct bare_page_fault *p = &page_faults[i];

		memcpy((void *)bare_frame_of(0), code[p->ring != 0], sizeof(code[0]));
		bare_map(0, bare_frame_of(0), p->flags);
		bare_write_cr2(0);
		bare_page_access(p->ring, p->access);
		bare_expect_page_fault(p->name, p->ring, p->code);
	}
	bare_map(0, 0, 0);
}
