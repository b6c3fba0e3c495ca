/* SPDX-License-Identifier: MIT */
/*
 * Code that changes itself, for code.c.
 */
#include "probes.h"

/* u64 bare_patch_ahead(void): 0x4044 if the store counts at once. */
	fragment0	bare_patch_ahead
	movb	$0x11, 1f + 1(%rip)
	jmp	2f
2:	movb	$0x44, 1f + 1(%rip)
1:	mov	$0x4000, %eax
	ret

	fragment3	bare_user_patch_self
	movb	$0x33, 1f + 1(%rip)
1:	mov	$0x3000, %eax
	int	$VECTOR_EXIT

/* A loop of 5 that adds what it has raised each time: 1 + 2 + 3 + 4 + 5. */
	fragment3	bare_user_patch
	movl	$0, 1f + 1(%rip)
	mov	$5, %ecx
	xor	%edx, %edx
2:	incl	1f + 1(%rip)
1:	mov	$0, %eax
	add	%eax, %edx
	dec	%ecx
	jnz	2b
	mov	%edx, %eax
	int	$VECTOR_EXIT

	.section .note.GNU-stack, "", @progbits
