/* SPDX-License-Identifier: MIT */
/*
 * What traps, and how. Error codes that name a selector or a gate are in SDM 3,
 * 6.13: bit 0 EXT, bit 1 IDT, bit 2 the local table.
 */
#include "probes.h"

#define GATE(n)	((n) << 3 | 2)

/* Ring 0. */

	ring0	"#DE: DIV by zero", 0, 0
	xor	%edx, %edx
	mov	$1, %eax
	xor	%ecx, %ecx
1:	div	%ecx

	ring0	"#DE: IDIV overflow", 0, 0
	mov	$0x80000000, %eax
	cltd
	mov	$-1, %ecx
1:	idiv	%ecx

	ring0	"#DE: DIV of 128 bits, overflow", 0, 0
	mov	$2, %edx
	xor	%eax, %eax
	mov	$2, %ecx
1:	div	%rcx

	ring0	"#GP: load from a non-canonical address", 13, 0
	movabs	$BARE_NONCANONICAL, %rax
1:	mov	(%rax), %rax

	ring0	"#GP: store to a non-canonical address", 13, 0
	movabs	$BARE_NONCANONICAL, %rax
1:	mov	%rax, (%rax)

	ring0	"#SS: load by RBP from a non-canonical address", 12, 0, FLAW_TCG
	movabs	$BARE_NONCANONICAL, %rbp
1:	mov	(%rbp), %rax

	ring0	"#GP: RDMSR of a register that there is not", 13, 0
	mov	$0x12345678, %ecx
1:	rdmsr

	ring0	"#GP: WRMSR of a register that there is not", 13, 0
	mov	$0x12345678, %ecx
	xor	%eax, %eax
	xor	%edx, %edx
1:	wrmsr

	ring0	"#GP: WRMSR of a reserved bit of EFER", 13, 0
	mov	$0xc0000080, %ecx
	rdmsr
	or	$2, %eax
1:	wrmsr

	ring0	"#GP: WRMSR of a non-canonical base", 13, 0, FLAW_TCG
	mov	$0xc0000101, %ecx
	xor	%eax, %eax
	mov	$0x8000, %edx
1:	wrmsr

	ring0	"#GP: paging without protection in CR0", 13, 0
	mov	%cr0, %rax
	and	$-2, %rax
1:	mov	%rax, %cr0

	ring0	"#GP: 64-bit mode without PAE in CR4", 13, 0
	mov	%cr4, %rax
	and	$~(1 << 5), %rax
1:	mov	%rax, %cr4

	ring0	"#GP: a reserved bit of CR4", 13, 0
	mov	%cr4, %rax
	or	$1 << 15, %rax
1:	mov	%rax, %cr4

	ring0	"#GP: a reserved bit of CR8", 13, 0, FLAW_TCG
	mov	$16, %eax
1:	mov	%rax, %cr8

	ring0	"#GP: a selector beyond the table", 13, SEL_BEYOND
	mov	$SEL_BEYOND, %eax
1:	mov	%eax, %ds

	ring0	"#GP: a selector of the local table", 13, SEL_LOCAL
	mov	$SEL_LOCAL, %eax
1:	mov	%eax, %es

	ring0	"#GP: a TSS as a data segment", 13, SEL_TSS
	mov	$SEL_TSS, %eax
1:	mov	%eax, %ds

	ring0	"#NP: a data segment", 11, SEL_ABSENT_DATA
	mov	$SEL_ABSENT_DATA, %eax
1:	mov	%eax, %ds

	ring0	"#SS: a stack segment that is not present", 12, SEL_ABSENT_DATA
	mov	$SEL_ABSENT_DATA, %eax
1:	mov	%eax, %ss

	ring0	"#GP: code as a stack segment", 13, SEL_CODE
	mov	$SEL_CODE, %eax
1:	mov	%eax, %ss

	ring0	"#GP: a stack segment of ring 3 in ring 0", 13, SEL_USER_DATA & ~3
	mov	$SEL_USER_DATA, %eax
1:	mov	%eax, %ss

	ring0	"#GP: LTR of a data segment", 13, SEL_DATA
	mov	$SEL_DATA, %eax
1:	ltr	%ax

	ring0	"#GP: LTR of a busy TSS", 13, SEL_TSS
	mov	$SEL_TSS, %eax
1:	ltr	%ax

	ring0	"#GP: LLDT of a data segment", 13, SEL_DATA
	mov	$SEL_DATA, %eax
1:	lldt	%ax

	ring0	"#GP: far return to a data segment", 13, SEL_DATA
	pushq	$SEL_DATA
	pushq	$0
1:	lretq

	ring0	"#NP: far return to a code segment", 11, SEL_ABSENT_CODE
	pushq	$SEL_ABSENT_CODE
	pushq	$0
1:	lretq

	ring0	"#GP: IRET to a null code segment", 13, 0
	mov	%rsp, %rax
	pushq	$SEL_DATA
	push	%rax
	pushfq
	pushq	$0
	pushq	$0
1:	iretq

	ring0	"#GP: IRET to a null stack segment in ring 3", 13, 0
	pushq	$3
	pushq	$0
	pushfq
	pushq	$SEL_USER_CODE
	pushq	$0
1:	iretq

	ring0	"#GP: IRET with NT set", 13, 0
	pushfq
	orq	$1 << 14, (%rsp)
	popfq
1:	iretq

/* Ring 3. */

	ring3	"#OF: INT 4", VECTOR_EXIT, 0
	int	$VECTOR_EXIT
1:

	ring3	"#DE: DIV by zero in ring 3", 0, 0
	xor	%edx, %edx
	xor	%ecx, %ecx
1:	div	%ecx

	ring3	"#BP: INT3", 3, 0
	int3
1:

	ring3	"#BP: INT 3 of two bytes", 3, 0
	.byte	0xcd, 3
1:

	ring3	"#GP: INT 1, a gate of ring 0", 13, GATE(1), FLAW_RING3 | FLAW_TCG
1:	.byte	0xcd, 1

	ring3	"#GP: INT 13, a gate of ring 0", 13, GATE(13), FLAW_RING3 | FLAW_TCG
1:	int	$13

	ring3	"#GP: INT 0xff, a gate of ring 0", 13, GATE(0xff), FLAW_RING3 | FLAW_TCG
1:	int	$0xff

	ring3	"#UD: UD2", 6, 0
1:	ud2

	ring3	"#UD: INTO", 6, 0
1:	.byte	0xce

	ring3	"#UD: PUSH ES", 6, 0
1:	.byte	0x06

	ring3	"#UD: LOCK NOP", 6, 0
1:	.byte	0xf0, 0x90

	ring3	"#UD: LOCK ADD to a register", 6, 0
1:	.byte	0xf0, 0x01, 0xc0

	ring3	"#UD: LEA of a register", 6, 0
1:	.byte	0x8d, 0xc0

	ring3	"#GP: an instruction of 16 bytes", 13, 0
1:	.byte	0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90

	ring3	"#GP: CLI", 13, 0
1:	cli

	ring3	"#GP: STI", 13, 0
1:	sti

	ring3	"#GP: HLT", 13, 0
1:	hlt

	ring3	"#GP: RDMSR", 13, 0
	mov	$0xc0000080, %ecx
1:	rdmsr

	ring3	"#GP: WRMSR", 13, 0
	mov	$0xc0000080, %ecx
1:	wrmsr

	ring3	"#GP: MOV from CR0", 13, 0
1:	mov	%cr0, %rax

	ring3	"#GP: MOV to CR3", 13, 0
1:	mov	%rax, %cr3

	ring3	"#GP: MOV from CR8", 13, 0
1:	mov	%cr8, %rax

	ring3	"#GP: MOV to DR7", 13, 0
1:	mov	%rax, %dr7

	ring3	"#GP: LGDT", 13, 0
1:	lgdt	(%rsp)

	ring3	"#GP: LIDT", 13, 0
1:	lidt	(%rsp)

	ring3	"#GP: LTR", 13, 0
1:	ltr	%ax

	ring3	"#GP: LMSW", 13, 0
1:	lmsw	%ax

	ring3	"#GP: CLTS", 13, 0
1:	clts

	ring3	"#GP: INVLPG", 13, 0
1:	invlpg	(%rsp)

	ring3	"#GP: INVD", 13, 0
1:	invd

	ring3	"#GP: WBINVD", 13, 0
1:	wbinvd

	ring3	"#GP: SWAPGS", 13, 0
1:	swapgs

	ring3	"#GP: SYSRET", 13, 0
1:	sysretq

	ring3	"#GP: IN without permission", 13, 0
	mov	$BARE_UART, %edx
1:	in	%dx, %al

	ring3	"#GP: OUT without permission", 13, 0
	mov	$BARE_UART, %edx
1:	out	%al, %dx

	ring3	"#GP: load from a non-canonical address in ring 3", 13, 0
	movabs	$BARE_NONCANONICAL, %rax
1:	mov	(%rax), %rax

	ring3	"#SS: PUSH to a non-canonical address in ring 3", 12, 0, FLAW_TCG
	movabs	$BARE_NONCANONICAL + 8, %rsp
1:	push	%rax

/* Called by exceptions.c. */

	fragment0	bare_touch
	mov	(%rdi), %al
	ret

	fragment3	bare_user_exit
	int	$VECTOR_EXIT

	fragment3	bare_user_int3
	int3

	fragment3	bare_user_gate
	int	$TEST_GATE

	fragment3	bare_user_nop
	nop
	.globl	bare_user_nop_end
bare_user_nop_end:
	int	$VECTOR_EXIT

	/* RDI is an address. */
	.globl	bare_user_read, bare_user_write, bare_user_jump
	fragment3	bare_user_read
	mov	(%rdi), %rax
	int	$VECTOR_EXIT
	fragment3	bare_user_write
	mov	%rdi, (%rdi)
	int	$VECTOR_EXIT
	fragment3	bare_user_jump
	jmp	*%rdi

	fragment3	bare_user_fninit
	fninit
	int	$VECTOR_EXIT

	fragment3	bare_user_sse
	xorps	%xmm0, %xmm0
	int	$VECTOR_EXIT

	/* Divides 1 by 0 with that exception unmasked. */
	fragment3	bare_user_x87
	fninit
	pushq	$0x37b
	fldcw	(%rsp)
	fld1
	fldz
	fdivrp
	.globl	bare_user_x87_at
bare_user_x87_at:
	fwait
	int	$VECTOR_EXIT

	fragment3	bare_user_simd
	pushq	$0x1d80
	ldmxcsr	(%rsp)
	mov	$1, %eax
	cvtsi2ss %eax, %xmm0
	xorps	%xmm1, %xmm1
	.globl	bare_user_simd_at
bare_user_simd_at:
	divss	%xmm1, %xmm0
	int	$VECTOR_EXIT

	fragment3	bare_user_fpu_reset
	fninit
	pushq	$0x1f80
	ldmxcsr	(%rsp)
	int	$VECTOR_EXIT

	.section .user, "awx", @progbits
	.balign	16
	.skip	1024
	.globl	bare_user_stack_top
bare_user_stack_top:

	.section .note.GNU-stack, "", @progbits
