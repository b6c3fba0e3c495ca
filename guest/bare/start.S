/* SPDX-License-Identifier: MIT */
/*
 * The ways in and out: entry, traps, ring 3, and the second CPU's way up from
 * real mode.
 */
#include "layout.h"

	.text
	.globl	bare_start
bare_start:
	cld
	lea	bare_stacks + BARE_STACK, %rsp
	xor	%ebp, %ebp
	call	bare_main
1:	hlt
	jmp	1b

/*
 * Traps. All 256 gates lead here, 16 bytes apart: each leaves the same frame,
 * with a zero where the processor pushes no error code.
 */
	.balign	16
	.globl	bare_gates
bare_gates:
	.set	vector, 0
	.rept	256
	.balign	16
	.if	vector != 8 && (vector < 10 || vector > 14) && vector != 17
	push	$0
	.endif
	pushq	$vector
	jmp	bare_gate
	.set	vector, vector + 1
	.endr

bare_gate:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rbx
	push	%rbp
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%ss, bare_trap_ss
	mov	%rsp, %rdi
	cld
	call	bare_trap
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rbp
	pop	%rbx
	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$16, %rsp
	iretq

	.macro	save_context
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, (%rdi)
	.endm

/*
 * bool bare_call(u64 *context, void *fn, u64 argument): calls fn; false if a
 * trap ended it.
 */
	.globl	bare_call
bare_call:
	save_context
	mov	%rdi, %rbx
	mov	%rdx, %rdi
	sub	$8, %rsp
	call	*%rsi
	movq	$0, (%rbx)
	add	$8, %rsp
	mov	$1, %eax
	jmp	restore_context

/*
 * void bare_unwind(u64 context): returns from the call that set the context, with
 * clear flags.
 */
	.globl	bare_unwind
bare_unwind:
	mov	%rdi, %rsp
	mov	$SEL_DATA, %eax
	mov	%eax, %ss		/* null after a trap from ring 3 */
	pushq	$2
	popfq
	xor	%eax, %eax
restore_context:
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

/*
 * void bare_enter_user(u64 *context, void *entry, u64 rflags, u64 argument,
 * u64 code): goes to ring 3 by that code segment, with the argument in RDI;
 * returns when a trap ends it.
 */
	.globl	bare_enter_user
bare_enter_user:
	save_context
	pushq	$SEL_USER_DATA
	lea	bare_user_stack_top, %rax
	push	%rax
	push	%rdx
	push	%r8
	push	%rsi
	mov	%rcx, %rdi
	iretq

/*
 * void bare_idle(void): halts until an interrupt has come. bare_trap sends one
 * that came before the HLT past it, which is the program's way to live with a
 * flaw: see bare_unless_flawed.
 */
	.globl	bare_idle, bare_idle_hlt
bare_idle:
	sti
bare_idle_hlt:
	hlt
	cli
	ret

/*
 * The second CPU starts here in real mode, in a copy at BARE_TRAMPOLINE, and
 * goes on to 64-bit mode. It notes the segment that it started in.
 */
#define HERE(x)	((x) - bare_trampoline + BARE_TRAMPOLINE)

	.code16
	.globl	bare_trampoline
bare_trampoline:
	cli
	mov	%cs, %ax
	mov	%ax, %ds
	mov	%ax, trampoline_cs - bare_trampoline
	lgdtl	trampoline_gdtr - bare_trampoline
	mov	%cr0, %eax
	or	$1, %eax		/* PE */
	mov	%eax, %cr0
	ljmpl	$SEL_CODE32, $HERE(1f)

	.code32
1:	mov	$SEL_DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	HERE(trampoline_cr4), %eax
	mov	%eax, %cr4
	mov	HERE(trampoline_cr3), %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx	/* EFER */
	rdmsr
	or	$0x901, %eax		/* SCE, LME, NXE */
	wrmsr
	mov	HERE(trampoline_cr0), %eax
	mov	%eax, %cr0
	ljmpl	$SEL_CODE, $bare_start_second

	.balign	8
	.globl	trampoline_gdtr, trampoline_cs, trampoline_cr0, trampoline_cr3, trampoline_cr4
trampoline_gdtr:
	.skip	8
trampoline_cr0:
	.long	0
trampoline_cr3:
	.long	0
trampoline_cr4:
	.long	0
trampoline_cs:
	.long	0
	.globl	bare_trampoline_end
bare_trampoline_end:

	.code64
bare_start_second:
	lea	bare_stacks + 2 * BARE_STACK, %rsp
	xor	%ebp, %ebp
	call	bare_second
1:	hlt
	jmp	1b

/*
 * void bare_halt_for_nmi(volatile u32 *nmis): halts until *nmis isn't zero. An
 * NMI that comes between the look and the HLT would be slept through, so that
 * the handler sends an interrupted CPU to the end.
 */
	.globl	bare_halt_for_nmi, bare_halt_end
bare_halt_for_nmi:
	cmpl	$0, (%rdi)
	jne	bare_halt_end
	hlt
	jmp	bare_halt_for_nmi
bare_halt_end:
	ret

	.section .note.GNU-stack, "", @progbits
