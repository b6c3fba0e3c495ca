// SPDX-License-Identifier: MIT
/*
 * The transcript, on the first UART, and the end of the machine.
 */
#include "bare.h"

#define UART_THR	0
#define UART_FCR	2
#define UART_LSR	5
#define UART_LSR_THRE	(1 << 5)
#define FCR_ENABLE	1
#define FIFO_DEPTH	16

/* ACPI 6.5, 4.8.3.7: sleep type 5 as the platform's \_S5 has it, and enable. */
#define SLEEP_OFF	(5 << 2 | 1 << 5)

static u32 passed, failed;

void bare_init_print(void)
{
	bare_outb(BARE_CONSOLE + UART_FCR, FCR_ENABLE);
}

/* The FIFO takes 16 characters once it is empty. */
static void bare_send_text(u16 port, const char *s)
{
	while (*s) {
		while (!(bare_inb(port + UART_LSR) & UART_LSR_THRE))
			;
		for (u32 room = FIFO_DEPTH; *s && room; room--)
			bare_outb(port + UART_THR, *s++);
	}
}

void bare_print(const char *s)
{
	bare_send_text(BARE_CONSOLE, s);
}

/* A line beside the transcript: a check that was not done. */
void bare_note(const char *s)
{
	for (; *s; s++)
		bare_send_text(BARE_UART, (char[]){ *s, 0 });
	bare_send_text(BARE_UART, "\n");
}

static void bare_print_number(u64 n, u32 base)
{
	char text[21], *p = text + sizeof(text) - 1;

	*p = 0;
	do {
		*--p = "0123456789abcdef"[n % base];
		n /= base;
	} while (n);
	if (base == 16)
		bare_print("0x");
	bare_print(p);
}

void bare_section(const char *name)
{
	bare_print("# ");
	bare_print(name);
	bare_print("\n");
}

void bare_ok(const char *name)
{
	passed++;
	bare_print("ok ");
	bare_print(name);
	bare_print("\n");
}

void bare_not_ok(const char *name, const char *part, u64 got, u64 want)
{
	failed++;
	bare_print("not ok ");
	bare_print(name);
	bare_print(part);
	bare_print(": got ");
	bare_print_number(got, 16);
	bare_print(", want ");
	bare_print_number(want, 16);
	bare_print("\n");
}

void bare_check(const char *name, u64 got, u64 want)
{
	if (bare_part(name, "", got, want))
		bare_ok(name);
}

void bare_true(const char *name, bool holds)
{
	bare_check(name, holds, true);
}

/* A part of a check: says only what is wrong. The caller ends with bare_ok. */
bool bare_part(const char *name, const char *part, u64 got, u64 want)
{
	if (got == want)
		return true;
	bare_not_ok(name, part, got, want);
	return false;
}

void bare_end(void)
{
	bare_print("end: ");
	bare_print_number(passed, 10);
	bare_print(" ok, ");
	bare_print_number(failed, 10);
	bare_print(" not ok\n");
	for (;;)
		bare_outb(BARE_SLEEP, SLEEP_OFF);
}

/* The compiler may call these on its own account. */
void *memcpy(void *to, const void *from, size_t n)
{
	void *start = to;

	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return start;
}

void *memset(void *to, int c, size_t n)
{
	void *start = to;

	asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
	return start;
}
