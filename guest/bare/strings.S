/* SPDX-License-Identifier: MIT */
/*
 * String instructions and atomic ones in ring 3, and segments: for strings.c,
 * locked.c and segments.c.
 */
#include "probes.h"

	fragment3	bare_user_fs_base
	wrfsbase %rdi
	rdgsbase %rax
	int	$VECTOR_EXIT

	fragment3	bare_user_load_ds
	mov	%edi, %ds
	mov	%ds, %eax
	int	$VECTOR_EXIT

/* 16 bytes, from the window's page 2 to the end of page 0. */
	fragment3	bare_user_movs
	movabs	$BARE_WINDOW + 2 * BARE_PAGE, %rsi
	movabs	$BARE_WINDOW + BARE_PAGE - 6, %rdi
	mov	$16, %ecx
	.globl	bare_user_movs_at
bare_user_movs_at:
	rep movsb
	int	$VECTOR_EXIT

	fragment0	bare_movs
	movabs	$BARE_WINDOW + 2 * BARE_PAGE, %rsi
	movabs	$BARE_WINDOW + BARE_PAGE - 6, %rdi
	mov	$16, %ecx
	.globl	bare_movs_at
bare_movs_at:
	rep movsb
	ret

/* A store across the end of the page at RDI. */
	fragment3	bare_user_store_across
	mov	$-1, %rax
	.globl	bare_user_store_across_at
bare_user_store_across_at:
	mov	%rax, BARE_PAGE - 3(%rdi)
	int	$VECTOR_EXIT

/* CMPXCHG16B of the 16 bytes at RDI, twice: it fits, then it does not. */
	fragment3	bare_user_cmpxchg16b
	mov	(%rdi), %rax
	mov	8(%rdi), %rdx
	mov	$0x55, %ebx
	mov	$0x66, %ecx
	lock cmpxchg16b (%rdi)
	setz	%r8b
	xor	%eax, %eax
	xor	%edx, %edx
	lock cmpxchg16b (%rdi)
	setz	%r9b
	int	$VECTOR_EXIT

	fragment3	bare_user_cmpxchg16b_odd
	cmpxchg16b 8(%rdi)
	int	$VECTOR_EXIT

	.section .note.GNU-stack, "", @progbits
