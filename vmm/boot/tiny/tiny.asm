# The tiny kernel: see tiny.go for what it obeys. It has neither stack nor
# interrupts; RSI is where it is in its script, RBX where print returns to.
# Only instructions that an emulating KVM knows are used, but for 'n'.

.intel_syntax noprefix
.code64

.set COM1, 0x3f8
.set MCR, COM1 + 4
.set LSR, COM1 + 5
.set SLEEP, 0x600		# ACPI's sleep control register
.set RESET, 0x602		# ACPI's reset register

.macro say text, then
	lea	rdi, [rip + \text]
	lea	rbx, [rip + \then]
	jmp	print
.endm

.macro on letter, label
	cmp	al, \letter
	je	\label
.endm

	lea	rsi, [rip + script]
	mov	dx, MCR
	mov	al, 3			# DTR and RTS: the host may send
	out	dx, al
	say	ready, next

next:	mov	al, [rsi]		# the script comes first
	test	al, al
	jz	poll
	inc	rsi
	jmp	act
poll:	mov	dx, LSR
	in	al, dx
	test	al, 1 << 4
	jnz	break
	test	al, 1 << 0
	jz	poll
	mov	dx, COM1
	in	al, dx

act:	on	'p', off
	on	'r', reset
	on	't', triple
	on	'k', panic
	on	'K', panichang
	on	'f', flood
	on	'd', deaf
	on	'n', popcount
	mov	dx, COM1		# all else is echoed
	out	dx, al
	jmp	next

break:	mov	dx, COM1		# a break comes with a zero character
	in	al, dx
	say	broken, next

off:	mov	dx, SLEEP
	mov	al, 5 << 2 | 1 << 5	# sleep type of \_S5, and enable
	out	dx, al
	jmp	next

reset:	mov	dx, RESET
	mov	al, 0x5a
	out	dx, al
	jmp	next

triple:	lidt	[rip + noidt]
	ud2

panic:	say	panicked, reset

panichang:
	say	panicked, 1f
1:	say	ended, spin

flood:	say	flooded, flood

deaf:	mov	dx, MCR			# no RTS: the host may not send
	xor	eax, eax
	out	dx, al
spin:	jmp	spin

popcount:
	popcnt	rax, rbx
	jmp	next

print:	mov	dx, COM1
1:	mov	al, [rdi]
	test	al, al
	jz	2f
	out	dx, al
	inc	rdi
	jmp	1b
2:	jmp	rbx

noidt:	.zero	10
ready:	.asciz	"ready\r\n"
broken:	.asciz	"<break>"
panicked: .asciz "Kernel panic - not syncing: test\r\n"
ended:	.asciz	"---[ end Kernel panic - not syncing: test ]---\r\n"
flooded: .asciz	"0123456789abcdef\r\n"
script:				# what Kernel appends
