// SPDX-License-Identifier: MIT
/*
 * QEMU's educational device (its docs/specs/edu): a function with MSI and a pin,
 * by which those two and DMA are tested.
 */
#include "bare.h"

#define EDU	0x11e81234

#define REG_ID		0x00
#define REG_LIVENESS	0x04
#define REG_FACTORIAL	0x08
#define REG_STATUS	0x20
#define REG_INTERRUPT	0x24
#define REG_RAISE	0x60
#define REG_ACK		0x64
#define REG_SOURCE	0x80
#define REG_DEST	0x88
#define REG_COUNT	0x90
#define REG_COMMAND	0x98

#define STATUS_COMPUTING	(1 << 0)
#define STATUS_INTERRUPT	(1 << 7)
#define INTERRUPT_FACTORIAL	0x001
#define INTERRUPT_DMA		0x100
#define COMMAND_START		(1 << 0)
#define COMMAND_TO_RAM		(1 << 1)
#define COMMAND_INTERRUPT	(1 << 2)
#define BUFFER			0x40000	/* as its DMA knows it */

/* MSI with a 64-bit address and a mask (PCI Local Bus 3.0, 6.8.1). */
#define MSI_CONTROL	0x00
#define MSI_ADDRESS	0x04
#define MSI_DATA	0x0c
#define MSI_MASK	0x10
#define MSI_PENDING	0x14
#define MSI_ENABLE	(1 << 16)
#define MSI_64		(1 << 23)
#define MSI_MASKABLE	(1 << 24)

#define VECTOR		0x98
#define VECTOR_PIN	0x99
#define BYTES		256
#define A_WHILE		100000	/* ns */

static u32 edu, msi;
static u64 registers;
static u8 sent[BYTES], received[BYTES];

static u32 bare_edu_read(u32 reg)
{
	return bare_read_device(registers + reg);
}

static void bare_edu_write(u32 reg, u32 v)
{
	bare_write_device(registers + reg, v);
}

static volatile u32 *bare_edu_taken(void)
{
	return &bare_this_cpu()->taken[VECTOR];
}

static bool bare_edu_idle(const void *unused)
{
	(void)unused;
	return !(bare_edu_read(REG_STATUS) & STATUS_COMPUTING) && !(bare_edu_read(REG_COMMAND) & COMMAND_START);
}

static void bare_test_edu_registers(void)
{
	bare_check("edu: ID", bare_edu_read(REG_ID), 0x010000ed);
	bare_edu_write(REG_LIVENESS, 0x12345678);
	bare_check("edu: it inverts", bare_edu_read(REG_LIVENESS), ~0x12345678u);
	bare_edu_write(REG_FACTORIAL, 10);
	bare_true("edu: it computes", bare_until(bare_edu_idle, NULL));
	bare_check("edu: a factorial", bare_edu_read(REG_FACTORIAL), 3628800);
}

static void bare_msi(u32 apic_id, u8 vector, bool masked)
{
	bare_config_write(edu, msi + MSI_ADDRESS, BARE_APIC | apic_id << 12);
	bare_config_write(edu, msi + MSI_ADDRESS + 4, 0);
	bare_config_write(edu, msi + MSI_DATA, vector);
	bare_config_write(edu, msi + MSI_MASK, masked);
	bare_config_write(edu, msi + MSI_CONTROL, MSI_ENABLE);
}

static void bare_test_msi(void)
{
	volatile u32 *taken = bare_edu_taken();
	u32 kind = MSI_64 | MSI_MASKABLE;

	bare_set_interrupt(VECTOR);
	bare_check("MSI: 64 bits, a mask, not enabled", bare_config_read(edu, msi) & (MSI_ENABLE | kind), kind);
	bare_msi(0, VECTOR, false);
	bare_edu_write(REG_STATUS, STATUS_INTERRUPT);
	bare_edu_write(REG_FACTORIAL, 5);
	bare_true("MSI: it comes", bare_wait(taken, 1));
	bare_check("MSI: the device says why", bare_edu_read(REG_INTERRUPT), INTERRUPT_FACTORIAL);
	bare_check("MSI: and has done it", bare_edu_read(REG_FACTORIAL), 120);
	bare_edu_write(REG_ACK, INTERRUPT_FACTORIAL);
	bare_check("MSI: acknowledged", bare_edu_read(REG_INTERRUPT), 0);
	bare_msi(0, VECTOR, true);
	bare_edu_write(REG_RAISE, 2);
	bare_edu_write(REG_RAISE, 4);
	bare_let_in();
	bare_check("MSI: not while it is masked", *taken, 1);
	bare_check("MSI: it pends", bare_config_read(edu, msi + MSI_PENDING), 1);
	bare_config_write(edu, msi + MSI_MASK, 0);
	bare_true("MSI: it comes when it is masked no more", bare_wait(taken, 2));
	bare_let_in();
	bare_check("MSI: once, raised twice", *taken, 2);
	bare_check("MSI: nothing pends", bare_config_read(edu, msi + MSI_PENDING), 0);
	bare_edu_write(REG_ACK, 6);
}

static void bare_test_msi_for_second(void)
{
	volatile u32 *its = &bare_cpus[SECOND].taken[VECTOR_ANSWER];
	u32 before = *its;

	bare_msi(SECOND, VECTOR_ANSWER, false);
	bare_edu_write(REG_RAISE, 1);
	bare_true("MSI: for the second CPU", bare_wait(its, before + 1));
	bare_edu_write(REG_ACK, 1);
	bare_msi(0, VECTOR, false);
}

static void bare_edu_move(const void *source, u32 from, void *dest, u32 to)
{
	u32 command = source ? COMMAND_START : COMMAND_START | COMMAND_TO_RAM;

	bare_edu_write(REG_SOURCE, source ? (u64)source : from);
	bare_edu_write(REG_DEST, dest ? (u64)dest : to);
	bare_edu_write(REG_COUNT, BYTES);
	bare_edu_write(REG_COMMAND, command | COMMAND_INTERRUPT);
}

static void bare_test_dma(void)
{
	volatile u32 *taken = bare_edu_taken();
	u32 differ = 0;

	for (u32 i = 0; i < BYTES; i++)
		sent[i] = 7 * i + 3;
	*taken = 0;
	bare_edu_move(sent, 0, NULL, BUFFER);
	bare_true("DMA: read from memory", bare_wait(taken, 1));
	bare_check("DMA: the device says so", bare_edu_read(REG_INTERRUPT), INTERRUPT_DMA);
	bare_edu_move(NULL, BUFFER, received, 0);
	bare_true("DMA: written to memory", bare_wait(taken, 2));
	for (u32 i = 0; i < BYTES; i++)
		differ += received[i] != sent[i];
	bare_check("DMA: the same bytes", differ, 0);
	bare_edu_write(REG_ACK, INTERRUPT_DMA);
	bare_config_write(edu, PCI_COMMAND, PCI_COMMAND_MEMORY);
	memset(received, 0, BYTES);
	bare_edu_move(NULL, BUFFER, received, 0);
	bare_true("DMA: no bus master, it ends", bare_until(bare_edu_idle, NULL));
	for (u32 i = 0; i < BYTES; i++)
		differ += received[i] != 0;
	bare_check("DMA: and has written nothing", differ, 0);
	bare_let_in();
	bare_check("MSI: not from what is no bus master", *taken, 2);
	bare_config_write(edu, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	bare_true("MSI: but from what is one again", bare_wait(taken, 3));
	bare_edu_write(REG_ACK, INTERRUPT_DMA);
}

/* The device holds the line until it is told. */
static bool bare_hook_pin(struct bare_frame *f)
{
	bare_edu_write(REG_ACK, bare_edu_read(REG_INTERRUPT));
	bare_this_cpu()->taken[f->vector]++;
	bare_eoi();
	return true;
}

static void bare_test_pin(void)
{
	volatile u32 *taken = &bare_this_cpu()->taken[VECTOR_PIN], before;
	u32 input = bare_config_read(edu, PCI_LINE) & 0xff;

	bare_config_write(edu, msi + MSI_CONTROL, 0);
	bare_check("pin: INTA#", bare_config_read(edu, PCI_LINE) >> 8 & 0xff, 1);
	bare_route_input(input, 0, ENTRY_LEVEL | VECTOR_PIN);
	bare_set_hook(VECTOR_PIN, bare_hook_pin);
	*taken = 0;
	bare_config_write(edu, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_NO_INTX);
	bare_edu_write(REG_RAISE, 8);
	bare_let_in();
	bare_check("pin: not while the command register forbids it", *taken, 0);
	bare_check("pin: the status register has it", bare_config_read(edu, PCI_COMMAND) & PCI_STATUS_INTX,
		   PCI_STATUS_INTX);
	bare_config_write(edu, PCI_COMMAND, PCI_COMMAND_MEMORY);
	bare_true("pin: it comes when it is permitted", bare_wait(taken, 1));
	bare_let_in();
	bare_check("pin: acknowledged, the line is down", bare_config_read(edu, PCI_COMMAND) & PCI_STATUS_INTX, 0);
	before = *taken;
	bare_sleep(A_WHILE);
	bare_let_in();
	bare_check("pin: and it comes no more", *taken, before);
	bare_edu_write(REG_RAISE, 16);
	bare_true("pin: the next one", bare_wait(taken, before + 1));
	bare_let_in();
	bare_route_input(input, 0, ENTRY_MASKED);
	bare_set_hook(VECTOR_PIN, NULL);
}

void bare_test_edu(void)
{
	bare_section("edu: MSI, pin and DMA");
	edu = bare_find_function(EDU);
	bare_true("edu: it is there", edu != BARE_NO_FUNCTION);
	if (edu == BARE_NO_FUNCTION)
		return;
	registers = bare_map_device(bare_read_bar(edu, 0));
	msi = bare_find_capability(edu, PCI_CAP_MSI);
	bare_true("edu: MSI", msi);
	bare_config_write(edu, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	bare_test_edu_registers();
	bare_test_msi();
	bare_test_msi_for_second();
	bare_test_dma();
	bare_test_pin();
	bare_config_write(edu, PCI_COMMAND, 0);
}
