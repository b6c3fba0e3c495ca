// SPDX-License-Identifier: MIT
/*
 * What the FIFO is as a PCI function: where it is found, and when its registers
 * are where its BAR says.
 */
#include "fifo.h"

#define CLASS		0xff0000
#define MSIX_TABLE	0x04
#define MSIX_PENDING	0x08
#define ELSEWHERE	0xd0000000	/* for BAR 0: nobody's */
#define INPUTS		24		/* of the I/O APIC */

static bool bare_config_changes(u32 reg)
{
	u32 v = bare_config_read(bare_fifo, reg), now;

	bare_config_write(bare_fifo, reg, ~v);
	now = bare_config_read(bare_fifo, reg);
	bare_config_write(bare_fifo, reg, v);
	return now != v;
}

static void bare_test_header(void)
{
	u32 table, pending, msix = bare_find_capability(bare_fifo, PCI_CAP_MSIX), line;

	bare_check("its class", bare_config_read(bare_fifo, PCI_CLASS) >> 8, CLASS);
	bare_true("its IDs are read-only", !bare_config_changes(0) && !bare_config_changes(PCI_CLASS));
	bare_true("it has power management", bare_find_capability(bare_fifo, PCI_CAP_POWER));
	bare_true("it has MSI-X", msix);
	bare_true("it is PCI Express", bare_find_capability(bare_fifo, PCI_CAP_EXPRESS));
	bare_true("it has no MSI", !bare_find_capability(bare_fifo, PCI_CAP_MSI));
	line = bare_config_read(bare_fifo, PCI_LINE);
	bare_true("its pin is wired to the I/O APIC", (line & 0xff) < INPUTS && (line >> 8 & 0xff) == 1);
	bare_check("its registers' size", bare_bar_size(bare_fifo, 0), FIFO_BAR_SIZE);
	table = bare_config_read(bare_fifo, msix + MSIX_TABLE);
	pending = bare_config_read(bare_fifo, msix + MSIX_PENDING);
	bare_true("MSI-X has a BAR of its own", (table & 7) > 1 && (table & 7) == (pending & 7));
	bare_true("in which both tables are", (table & ~7u) + 16 * FIFO_VECTORS <= (pending & ~7u) &&
		  (pending & ~7u) + 8 <= bare_bar_size(bare_fifo, pending & 7));
}

/* Is the FIFO where it was mapped last? */
static bool bare_is_there(void)
{
	return bare_fifo_read(FIFO_ID) == FIFO_IS;
}

static bool bare_is_nowhere(void)
{
	return bare_fifo_read(FIFO_ID) == 0xffffffff;
}

static void bare_test_decoding(void)
{
	u64 base = bare_read_bar(bare_fifo, 0);

	bare_config_write(bare_fifo, PCI_COMMAND, 0);
	bare_map_fifo();
	bare_true("memory disabled: nobody answers", bare_is_nowhere());
	bare_config_write(bare_fifo, PCI_COMMAND, PCI_COMMAND_MEMORY);
	bare_check("memory enabled: its ID", bare_fifo_read(FIFO_ID), FIFO_IS);
	bare_check("the command register as written", bare_config_read(bare_fifo, PCI_COMMAND) & 0xffff,
		   PCI_COMMAND_MEMORY);
	bare_fifo_write(FIFO_SCRATCH, 0x5aa50ff0);
	bare_write_bar(bare_fifo, 0, ELSEWHERE);
	bare_true("its BAR moved: it is gone from there", bare_is_nowhere());
	bare_map_fifo();
	bare_true("and is where the BAR says", bare_is_there());
	bare_check("with what it had", bare_fifo_read(FIFO_SCRATCH), 0x5aa50ff0);
	bare_write_bar(bare_fifo, 0, base);
	bare_true("its BAR moved back: it is gone again", bare_is_nowhere());
	bare_map_fifo();
	bare_true("and is where it was", bare_is_there());
}

void bare_test_function(void)
{
	bare_test_header();
	bare_test_decoding();
}
