// SPDX-License-Identifier: MIT
/*
 * The ways between the rings: SYSCALL and SYSRET, IRET, far returns, the stacks
 * that a trap switches to, and what each does to the flags.
 */
#include "bare.h"

/* What bare_syscall_entry finds. */
extern struct {
	u64 rcx, r11, rsp, rflags, cs, ss, count, reserved;
} bare_syscall_seen;
extern u64 bare_syscall_flags;

extern char bare_syscall_entry[], bare_user_syscall[], bare_user_syscall_end[], bare_user_stack_top[];
extern char bare_sysret_noncanonical[], bare_syscall_from_kernel[];
extern char bare_syscall_from_kernel_at[], bare_syscall_from_kernel_end[];
extern char bare_user_popf[], bare_user_iret[], bare_user_far_end[], bare_user_exit[];
extern char bare_user_compat[], bare_user_compat_end[];
u64 bare_iret_flags(u64 rflags);
u64 bare_iret_stack(u64 rsp);
u64 bare_far_return(void);
bool bare_far_return_user(u64 argument);
u64 bare_far_jump(void);
bool bare_trap_odd(u64 argument);

/* STAR's upper halves: SYSCALL's code, and 16 below SYSRET's. */
#define STAR	((u64)SEL_CODE << 32 | (u64)(SEL_USER_CODE - 16) << 48)

/* The flags that a program can set in ring 3 and that harm nobody. */
#define FLAGS	(FLAG_CF | FLAG_ZF | FLAG_DF | FLAG_AC | FLAG_ID)
#define MASK	(FLAG_IF | FLAG_DF | FLAG_CF | FLAG_AC)

/* What SYSCALL did, wherever it came from. */
static void bare_check_call(const char *name, u64 rip, u64 rsp, u64 rflags)
{
	if (bare_part(name, " (times)", bare_syscall_seen.count, 1) &&
	    bare_part(name, " (RCX)", bare_syscall_seen.rcx, rip) &&
	    bare_part(name, " (R11)", bare_syscall_seen.r11 & ~FLAG_RF, rflags) &&
	    bare_part(name, " (RSP)", bare_syscall_seen.rsp, rsp) &&
	    bare_part(name, " (CS)", bare_syscall_seen.cs, SEL_CODE) &&
	    bare_part(name, " (SS)", bare_syscall_seen.ss, SEL_DATA) &&
	    bare_part(name, " (RFLAGS)", bare_syscall_seen.rflags, rflags & ~MASK))
		bare_ok(name);
	bare_syscall_seen.count = 0;
}

/* What SYSRET did, to the user's code behind his SYSCALL. */
static void bare_check_sysret(const char *name, struct bare_frame *f, u64 rsp)
{
	if (bare_part(name, " (vector)", f->vector, VECTOR_EXIT) &&
	    bare_part(name, " (RFLAGS)", f->rflags, bare_syscall_flags & ~FLAG_RF) &&
	    bare_part(name, " (RSP)", f->rsp, rsp) &&
	    bare_part(name, " (CS)", f->rax, SEL_USER_CODE) &&
	    bare_part(name, " (SS)", f->rdx, SEL_USER_DATA))
		bare_ok(name);
}

static void bare_test_user_call(void)
{
	u64 rflags = FLAG_ONE | FLAGS | FLAG_IF, rsp = (u64)bare_user_stack_top;
	struct bare_frame *f;

	if (!bare_unless(FLAW_RING3 | FLAW_TCG, "SYSCALL from ring 3", "SYSRET to ring 3"))
		return;
	f = bare_user(bare_user_syscall, rflags, 0);
	bare_check_call("SYSCALL from ring 3", (u64)bare_user_syscall_end, rsp, rflags);
	bare_check_sysret("SYSRET to ring 3", f, rsp);
}

static void bare_test_kernel_call(void)
{
	struct bare_frame *f;

	if (!bare_unless(FLAW_TCG, "SYSCALL from ring 0"))
		return;
	f = bare_probe(bare_syscall_from_kernel, FLAG_ONE | FLAGS);
	bare_check_call("SYSCALL from ring 0", (u64)bare_syscall_from_kernel_end, f->r10, FLAG_ONE | FLAGS);
}

void bare_test_syscall(void)
{
	bare_section("system calls");
	bare_wrmsr(MSR_STAR, STAR);
	bare_wrmsr(MSR_LSTAR, (u64)bare_syscall_entry);
	bare_wrmsr(MSR_SFMASK, MASK);
	bare_check("LSTAR reads as written", bare_rdmsr(MSR_LSTAR), (u64)bare_syscall_entry);
	bare_check("STAR reads as written", bare_rdmsr(MSR_STAR), STAR);
	bare_check("FMASK reads as written", bare_rdmsr(MSR_SFMASK), MASK);
	bare_syscall_flags = FLAG_ONE | FLAG_ZF | FLAG_ID | FLAG_IF | FLAG_RF;
	bare_test_user_call();
	bare_test_kernel_call();
	bare_wrmsr(MSR_EFER, bare_rdmsr(MSR_EFER) & ~EFER_SCE);
	bare_probe(bare_syscall_from_kernel, FLAG_ONE);
	bare_expect("#UD: SYSCALL without EFER.SCE", UD, 0, bare_syscall_from_kernel_at);
	bare_wrmsr(MSR_EFER, bare_rdmsr(MSR_EFER) | EFER_SCE);
	if (bare_unless(FLAW_RING3, "#GP: SYSRET to a non-canonical address")) {
		/* On an Intel in ring 0, on an AMD behind it in ring 3. */
		bare_probe(bare_sysret_noncanonical, 0);
		bare_expect("#GP: SYSRET to a non-canonical address", GP, 0, NULL);
	}
}

static void bare_test_iret(void)
{
	u64 stack = (u64)bare_user_traps[0] + 1000;

	bare_check("IRET in ring 0 sets the flags", bare_iret_flags(FLAG_ONE | FLAGS), FLAG_ONE | FLAGS);
	if (bare_unless(FLAW_RING3, "IRET in ring 0 sets IOPL"))
		bare_check("IRET in ring 0 sets IOPL", bare_iret_flags(FLAG_ONE | FLAG_IOPL), FLAG_ONE | FLAG_IOPL);
	bare_check("IRET in ring 0 sets NT", bare_iret_flags(FLAG_ONE | FLAG_NT), FLAG_ONE | FLAG_NT);
	bare_check("IRET in ring 0 takes RSP, and a null SS", bare_iret_stack(stack + 3), stack + 3);
	asm volatile("mov %0, %%ss" : : "r"(SEL_DATA));
}

static void bare_test_user_flags(void)
{
	struct bare_frame *f;

	if (bare_unless(FLAW_RING3, "POPF in ring 3 sets neither IF nor IOPL")) {
		f = bare_user(bare_user_popf, 0, FLAGS | FLAG_IF | FLAG_IOPL);
		bare_check("POPF in ring 3 sets neither IF nor IOPL", f->rax, FLAG_ONE | FLAGS);
	}
	if (bare_unless(FLAW_RING3, "POPF in ring 3 sets IF with IOPL 3")) {
		f = bare_user(bare_user_popf, FLAG_IOPL, FLAG_IF);
		bare_check("POPF in ring 3 sets IF with IOPL 3", f->rax, FLAG_ONE | FLAG_IF | FLAG_IOPL);
	}
	if (bare_unless(FLAW_RING3 | FLAW_TCG, "IRET in ring 3 sets neither IF nor IOPL")) {
		f = bare_user(bare_user_iret, 0, FLAGS | FLAG_IF | FLAG_IOPL);
		bare_check("IRET in ring 3 sets neither IF nor IOPL", f->rax, FLAG_ONE | FLAGS);
	}
	f = bare_user(bare_user_popf, FLAG_IF, FLAGS);
	bare_check("POPF in ring 3 does not clear IF", f->rax, FLAG_ONE | FLAG_IF | FLAGS);
	if (bare_unless(FLAW_TCG, "IRET in ring 3 does not clear IF", "IRET in ring 3 takes RSP")) {
		f = bare_user(bare_user_iret, FLAG_IF, FLAGS);
		bare_check("IRET in ring 3 does not clear IF", f->rax, FLAG_ONE | FLAG_IF | FLAGS);
		bare_check("IRET in ring 3 takes RSP", f->rdx, 0);
	}
}

static void bare_test_far(void)
{
	struct bare_frame *f;

	bare_check("a far return within ring 0", bare_far_return(), SEL_CODE);
	bare_check("a far jump through memory", bare_far_jump(), SEL_CODE);
	if (bare_unless(FLAW_RING3, "a far return to ring 3")) {
		f = bare_probe(bare_far_return_user, 0);
		if (bare_part("a far return to ring 3", " (CS)", f->rax, SEL_USER_CODE))
			bare_expect("a far return to ring 3", VECTOR_EXIT, 0, bare_user_far_end);
	}
}

/* The top of the stack that the last trap took. */
static u64 bare_trap_stack(void)
{
	return bare_this_cpu()->frame + sizeof(struct bare_frame);
}

static void bare_test_stacks(void)
{
	struct bare_frame *f;

	bare_user(bare_user_exit, 0, 0);
	bare_check("a trap from ring 3 takes RSP0", bare_trap_stack(), (u64)bare_user_traps[1]);
	bare_set_gate(VECTOR_EXIT, true, 3, IST_TEST);
	bare_user(bare_user_exit, 0, 0);
	bare_set_gate(VECTOR_EXIT, true, 3, 0);
	bare_check("a trap from ring 3 takes the gate's IST", bare_trap_stack(), (u64)bare_ist_stacks[0][IST_TEST]);
	bare_set_gate(UD, true, 0, IST_TEST);
	bare_probe(bare_trap_odd, 0);
	bare_set_gate(UD, true, 0, 0);
	bare_check("a trap in ring 0 takes the gate's IST", bare_trap_stack(), (u64)bare_ist_stacks[0][IST_TEST]);
	f = bare_probe(bare_trap_odd, 0);
	bare_check("a trap in ring 0 stays on its stack, aligned", bare_trap_stack(), f->rsp & ~15ul);
	bare_check("a trap in ring 0 keeps RSP as it was", f->rsp, f->rax);
	bare_check("a trap in ring 0 keeps SS", f->ss, SEL_DATA);
	f = bare_user(bare_user_exit, 0, 0);
	bare_check("a trap from ring 3 keeps RSP", f->rsp, (u64)bare_user_stack_top);
	bare_check("a trap from ring 3 keeps CS", f->cs, SEL_USER_CODE);
	bare_check("a trap from ring 3 keeps SS", f->ss, SEL_USER_DATA);
	bare_check("a trap leaves a null SS in ring 0", bare_trap_ss, 0);
}

/* INC of one byte is a REX prefix in 64-bit mode. */
static void bare_test_compat(void)
{
	struct bare_frame *f;

	if (!bare_unless(FLAW_RING3, "32-bit code in ring 3"))
		return;
	f = bare_user_in(SEL_USER_CODE32, bare_user_compat, 0, 0);
	if (bare_part("32-bit code in ring 3", " (EAX)", f->rax, 1) &&
	    bare_part("32-bit code in ring 3", " (CS)", f->rdx, SEL_USER_CODE32))
		bare_expect("32-bit code in ring 3", VECTOR_EXIT, 0, bare_user_compat_end);
}

void bare_test_returns(void)
{
	bare_section("returns and stacks");
	bare_test_iret();
	bare_test_user_flags();
	bare_test_far();
	bare_test_stacks();
	bare_test_compat();
}
