/* SPDX-License-Identifier: MIT */
/*
 * System calls and returns, for syscall.c.
 */
#include "probes.h"

/*
 * Where SYSCALL comes to. It keeps what it finds and returns by SYSRET, with the
 * flags that bare_syscall_flags says.
 */
	fragment0	bare_syscall_entry
	mov	%rcx, bare_syscall_seen
	mov	%r11, bare_syscall_seen + 8
	mov	%rsp, bare_syscall_seen + 16
	mov	$bare_syscall_stack_top, %rsp
	pushfq
	popq	bare_syscall_seen + 24
	mov	%cs, bare_syscall_seen + 32
	mov	%ss, bare_syscall_seen + 40
	incq	bare_syscall_seen + 48
	mov	bare_syscall_seen + 16, %rsp
	mov	bare_syscall_flags, %r11
	lea	bare_syscall_from_kernel_end, %rax
	cmp	%rax, %rcx
	je	1f
	sysretq
1:	pushq	$2
	popfq
	ud2

/* To a non-canonical address. */
	fragment0	bare_sysret_noncanonical
	movabs	$BARE_NONCANONICAL, %rcx
	mov	$2, %r11d
	sysretq

/*
 * SYSCALL in ring 0 with the flags in RDI. SYSRET would go to ring 3, so that
 * the entry goes to a trap; R10 is RSP.
 */
	fragment0	bare_syscall_from_kernel
	mov	%rsp, %r10
	push	%rdi
	popfq
	.globl	bare_syscall_from_kernel_at, bare_syscall_from_kernel_end
bare_syscall_from_kernel_at:
	syscall
bare_syscall_from_kernel_end:
	ud2

	fragment3	bare_user_syscall
	syscall
	.globl	bare_user_syscall_end
bare_user_syscall_end:
	mov	%cs, %eax
	mov	%ss, %edx
	int	$VECTOR_EXIT

/* Tries to set what only ring 0 may. */
	fragment3	bare_user_popf
	push	%rdi
	popfq
	pushfq
	pop	%rax
	int	$VECTOR_EXIT

	fragment3	bare_user_iret
	mov	%rsp, %rdx
	pushq	$SEL_USER_DATA
	push	%rdx
	push	%rdi
	pushq	$SEL_USER_CODE
	lea	1f(%rip), %rax
	push	%rax
	iretq
1:	pushfq
	pop	%rax
	sub	%rsp, %rdx
	int	$VECTOR_EXIT

/* u64 bare_iret_flags(u64 rflags): RFLAGS after an IRET to ring 0 with them. */
	fragment0	bare_iret_flags
	mov	%rsp, %rdx
	pushq	$SEL_DATA
	push	%rdx
	push	%rdi
	pushq	$SEL_CODE
	pushq	$1f
	iretq
1:	pushfq
	pop	%rax
	pushq	$2
	popfq
	ret

/* u64 bare_iret_stack(u64 rsp): RSP after an IRET to ring 0 with it. */
	fragment0	bare_iret_stack
	mov	%rsp, %rcx
	pushq	$0
	push	%rdi
	pushq	$2
	pushq	$SEL_CODE
	pushq	$1f
	iretq
1:	mov	%rsp, %rax
	mov	%rcx, %rsp
	ret

/* u64 bare_far_return(void): CS after a far return within ring 0. */
	fragment0	bare_far_return
	pushq	$SEL_CODE
	pushq	$1f
	lretq
1:	mov	%cs, %eax
	ret

/* Ring 3, by a far return from ring 0. */
	fragment0	bare_far_return_user
	pushq	$SEL_USER_DATA
	pushq	$bare_user_stack_top
	pushq	$SEL_USER_CODE
	pushq	$bare_user_far
	lretq

	fragment3	bare_user_far
	mov	%cs, %eax
	int	$VECTOR_EXIT
	.globl	bare_user_far_end
bare_user_far_end:

/* u64 bare_far_jump(void): CS after a jump through a far pointer. */
	fragment0	bare_far_jump
	sub	$16, %rsp
	movq	$1f, (%rsp)
	movw	$SEL_CODE, 8(%rsp)
	rex.w ljmp *(%rsp)
1:	mov	%cs, %eax
	add	$16, %rsp
	ret

/* A trap with a stack that is not aligned, which RAX tells. */
	fragment0	bare_trap_odd
	sub	$3, %rsp
	mov	%rsp, %rax
	ud2

/* 32-bit code in ring 3: what is INC there is a REX prefix in 64-bit mode. */
	fragment3	bare_user_compat
	.code32
	mov	$0xffffffff, %eax
	inc	%eax
	inc	%eax
	mov	%cs, %edx
	int	$VECTOR_EXIT
	.globl	bare_user_compat_end
bare_user_compat_end:
	.code64

	.bss
	.balign	16
	.globl	bare_syscall_seen, bare_syscall_flags
bare_syscall_seen:
	.skip	64
bare_syscall_flags:
	.skip	8
	.balign	16
	.skip	256
bare_syscall_stack_top:

	.section .note.GNU-stack, "", @progbits
