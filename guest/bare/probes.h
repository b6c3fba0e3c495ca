/* SPDX-License-Identifier: MIT */
/*
 * Probes, for assembly: a name, what must end the code, and the code. The macro
 * makes an entry of the table that exceptions.c goes through. The instruction
 * that is to trap has the label 1, or for a trap that is reported behind it, the
 * one that follows.
 *
 *	ring0	"#UD: UD2", 6, 0
 *	1:	ud2
 *
 * A fourth argument says on which flawed hosts it can't be done.
 *
 * A fragment is code that C calls by its name.
 */
#ifndef BARE_PROBES_H
#define BARE_PROBES_H

#include "layout.h"

	.macro	probe	ring, name, vector, error, flaws
	.pushsection .rodata
8:	.asciz	"\name"
	.popsection
	.pushsection .probes, "a"
	.quad	8b, 9f, 1f
	.long	\vector, \error, \ring, \flaws
	.popsection
9:
	.endm

	.macro	ring0	name, vector, error, flaws=0
	.text
	ud2				/* ends the probe before */
	probe	0, "\name", "\vector", "\error", "\flaws"
	.endm

	.macro	ring3	name, vector, error, flaws=0
	.section .user, "awx", @progbits
	ud2
	probe	3, "\name", "\vector", "\error", "\flaws"
	.endm

	.macro	fragment0	name
	.text
	.globl	\name
\name:
	.endm

	.macro	fragment3	name
	.section .user, "awx", @progbits
	.globl	\name
\name:
	.endm

#endif
