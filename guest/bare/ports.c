// SPDX-License-Identifier: MIT
/*
 * Port I/O: all widths, strings, ports that nobody has, and who may (SDM 1,
 * 19.5).
 */
#include "bare.h"

extern char bare_user_in8[], bare_user_in8_at[], bare_user_in16[], bare_user_in16_at[], bare_user_out8[];

/* The second UART's registers and bits (PC16550D, table II). */
#define UART_DATA	(BARE_UART + 0)
#define UART_FCR	(BARE_UART + 2)
#define UART_MCR	(BARE_UART + 4)
#define UART_LSR	(BARE_UART + 5)
#define UART_SCRATCH	(BARE_UART + 7)
#define FCR_ENABLE	7	/* and clear both FIFOs */
#define MCR_LOOP	(1 << 4)
#define LSR_READY	(1 << 0)

#define PCI_DATA	(BARE_PCI + 4)

static void bare_test_widths(void)
{
	u32 id, class;

	bare_outb(UART_SCRATCH, 0xa5);
	bare_check("OUT and IN of 1 byte", bare_inb(UART_SCRATCH), 0xa5);
	bare_outl(BARE_PCI, 0x80000008);
	bare_check("OUT and IN of 4 bytes", bare_inl(BARE_PCI), 0x80000008);
	bare_check("IN of 2 bytes: the class of a host bridge", bare_inw(PCI_DATA + 2), 0x0600);
	class = bare_inl(PCI_DATA);
	bare_check("IN of 4 bytes has the same", class >> 16, 0x0600);
	bare_outl(BARE_PCI, 0x80000000);
	id = bare_inl(PCI_DATA);
	bare_check("IN of 2 bytes, in the middle", bare_inw(PCI_DATA + 1), (u16)(id >> 8));
	for (u32 i = 0; i < 4; i++)
		if (bare_inb(PCI_DATA + i) != (u8)(id >> 8 * i))
			id = 0;
	bare_check("IN of each byte has the same", id != 0 && id != 0xffffffff, true);
	bare_outw(UART_SCRATCH - 1, 0x5a00);
	bare_check("OUT of 2 bytes reaches two registers", bare_inb(UART_SCRATCH), 0x5a);
	bare_check("IN of 2 bytes reaches two registers", bare_inw(UART_SCRATCH - 1) >> 8, 0x5a);
}

static void bare_test_nobody(void)
{
	u64 rax;

	bare_check("IN of 1 byte from nobody", bare_inb(BARE_UNCLAIMED_PORT), 0xff);
	bare_check("IN of 2 bytes from nobody", bare_inw(BARE_UNCLAIMED_PORT), 0xffff);
	bare_check("IN of 4 bytes from nobody", bare_inl(BARE_UNCLAIMED_PORT), 0xffffffff);
	bare_outl(BARE_UNCLAIMED_PORT, 0);
	bare_check("OUT to nobody changes nothing", bare_inl(BARE_UNCLAIMED_PORT), 0xffffffff);
	asm volatile("inb %%dx, %%al" : "=a"(rax) : "a"(0x1122334455667788), "d"(BARE_UNCLAIMED_PORT));
	bare_check("IN of 1 byte keeps the rest of RAX", rax, 0x11223344556677ff);
	asm volatile("inl %%dx, %%eax" : "=a"(rax) : "a"(0x1122334455667788), "d"(BARE_UNCLAIMED_PORT));
	bare_check("IN of 4 bytes clears the upper half of RAX", rax, 0xffffffff);
	asm volatile("outb %%al, $0x80; inb $0x80, %%al" : "=a"(rax) : "a"(0));
	bare_check("a port in the instruction", (u8)rax, 0xff);
}

/* The UART hears itself: 12 characters go out and come in by one REP each. */
static void bare_test_strings_of_bytes(void)
{
	static const char text[13] = "fifo of 16!!";
	char heard[13] = { 0 };
	const char *from = text;
	char *to = heard;
	u64 n = 12;

	bare_outb(UART_FCR, FCR_ENABLE);
	bare_outb(UART_MCR, MCR_LOOP);
	asm volatile("rep outsb" : "+S"(from), "+c"(n) : "d"(UART_DATA) : "memory");
	bare_check("REP OUTSB: RCX", n, 0);
	bare_check("REP OUTSB: RSI", (u64)(from - text), 12);
	n = 12;
	asm volatile("rep insb" : "+D"(to), "+c"(n) : "d"(UART_DATA) : "memory");
	bare_check("REP INSB: RCX", n, 0);
	bare_check("REP INSB: RDI", (u64)(to - heard), 12);
	n = 0;
	while (n < 12 && heard[n] == text[n])
		n++;
	bare_check("REP INSB: the bytes, in order", n, 12);
	bare_check("REP INSB: nothing is left", bare_inb(UART_LSR) & LSR_READY, 0);
	from = text + 3;
	n = 4;
	asm volatile("std; rep outsb; cld" : "+S"(from), "+c"(n) : "d"(UART_DATA) : "memory");
	bare_check("REP OUTSB backwards", bare_inb(UART_DATA) << 8 | bare_inb(UART_DATA), 'o' << 8 | 'f');
	bare_outb(UART_FCR, FCR_ENABLE);
	bare_outb(UART_MCR, 0);
	bare_outb(UART_FCR, 0);
}

static void bare_test_strings_of_words(void)
{
	u32 words[4] = { 0, 0, 0, 0x55 }, *to = words, address = 0x80000000;
	u16 halves[3] = { 0, 0, 0x55 }, *half = halves;
	const u32 *from = &address;
	u64 n = 1;
	u32 id;

	asm volatile("rep outsl" : "+S"(from), "+c"(n) : "d"(BARE_PCI) : "memory");
	bare_check("REP OUTSL", bare_inl(BARE_PCI), 0x80000000);
	id = bare_inl(PCI_DATA);
	n = 3;
	asm volatile("rep insl" : "+D"(to), "+c"(n) : "d"(PCI_DATA) : "memory");
	bare_check("REP INSL: each has the register", words[0] == id && words[1] == id && words[2] == id, true);
	bare_check("REP INSL: no more than asked for", words[3], 0x55);
	n = 2;
	asm volatile("rep insw" : "+D"(half), "+c"(n) : "d"(PCI_DATA + 2) : "memory");
	bare_check("REP INSW: each has the half", halves[0] == id >> 16 && halves[1] == id >> 16, true);
	bare_check("REP INSW: no more than asked for", halves[2], 0x55);
}

/* INSB whose destination is absent: nothing is taken from the device. */
static bool bare_insb(u64 address)
{
	asm volatile("insb" : "+D"(address) : "d"(UART_DATA) : "memory");
	return true;
}

static void bare_test_fault(void)
{
	bare_outb(UART_FCR, FCR_ENABLE);
	bare_outb(UART_MCR, MCR_LOOP);
	bare_outb(UART_DATA, 'x');
	bare_probe(bare_insb, BARE_ABSENT);
	bare_expect("INSB to a page that is absent", PF, PF_W, NULL);
	bare_check("INSB to a page that is absent: CR2", bare_this_cpu()->cr2, BARE_ABSENT);
	bare_outb(UART_MCR, 0);
	bare_outb(UART_FCR, 0);
}

static void bare_permit(u16 port, bool may)
{
	u8 *byte = &bare_this_cpu()->tss.ports[port / 8], bit = 1 << port % 8;

	*byte = may ? *byte & ~bit : *byte | bit;
}

static void bare_test_permission(void)
{
	struct bare_frame *f;

	bare_outb(UART_SCRATCH, 0xc3);
	bare_permit(UART_SCRATCH, true);
	f = bare_user(bare_user_in8, 0, UART_SCRATCH);
	bare_expect("IN in ring 3 of a port that it may", VECTOR_EXIT, 0, NULL);
	bare_check("IN in ring 3: the byte", f->rax & 0xff, 0xc3);
	bare_user(bare_user_out8, 0, UART_SCRATCH);
	bare_check("OUT in ring 3: the byte", bare_inb(UART_SCRATCH), 0x3c);
	bare_user(bare_user_in16, 0, UART_SCRATCH);
	bare_expect("#GP: IN of two ports of which it may one", GP, 0, bare_user_in16_at);
	bare_permit(UART_SCRATCH, false);
	bare_user(bare_user_in8, 0, UART_SCRATCH);
	bare_expect("#GP: IN of a port that it may no more", GP, 0, bare_user_in8_at);
	bare_user(bare_user_in8, 0, BARE_UNCLAIMED_PORT);
	bare_expect("#GP: IN of a port beyond the map", GP, 0, bare_user_in8_at);
	if (bare_unless(FLAW_RING3, "IN in ring 3 with IOPL 3")) {
		f = bare_user(bare_user_in8, FLAG_IOPL, UART_SCRATCH);
		bare_check("IN in ring 3 with IOPL 3", f->rax & 0xff, 0x3c);
	}
}

void bare_test_ports(void)
{
	bare_section("ports");
	bare_test_widths();
	bare_test_nobody();
	bare_test_strings_of_bytes();
	bare_test_strings_of_words();
	bare_test_fault();
	bare_test_permission();
}
