/* SPDX-License-Identifier: MIT */
/*
 * Port I/O in ring 3, for ports.c: the port is in RDI.
 */
#include "probes.h"

	fragment3	bare_user_in8
	mov	%edi, %edx
	.globl	bare_user_in8_at
bare_user_in8_at:
	in	%dx, %al
	int	$VECTOR_EXIT

	fragment3	bare_user_in16
	mov	%edi, %edx
	.globl	bare_user_in16_at
bare_user_in16_at:
	in	%dx, %ax
	int	$VECTOR_EXIT

	fragment3	bare_user_out8
	mov	%edi, %edx
	mov	$0x3c, %eax
	out	%al, %dx
	int	$VECTOR_EXIT

	.section .note.GNU-stack, "", @progbits
