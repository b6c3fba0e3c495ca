/* SPDX-License-Identifier: MIT */
/*
 * What C and assembly both know: where things are and the selectors. The places
 * of devices are those of fifovm's platform, vmm/chipset/layout.go.
 */
#ifndef BARE_LAYOUT_H
#define BARE_LAYOUT_H

#define BARE_CPUS	2
#define BARE_STACK	8192

/* The global descriptor table; SYSRET wants the user's in this order. */
#define SEL_CODE32	0x08
#define SEL_CODE	0x10
#define SEL_DATA	0x18
#define SEL_USER_DATA	0x23
#define SEL_USER_CODE	0x2b
#define SEL_ABSENT_DATA	0x30	/* not present */
#define SEL_BASED	0x3b	/* the user's data at BARE_BASED */
#define SEL_TSS		0x40	/* 16 bytes for each CPU */
#define SEL_ABSENT_CODE	0x60	/* not present */
#define SEL_USER_CODE32	0x6b
#define SEL_END		0x70
#define SEL_BEYOND	0x7f8	/* beyond the table */
#define SEL_LOCAL	0x0c	/* in the local table, which there is not */

#define BARE_BASED	0x12345000

/*
 * Virtual addresses. The first 4 GiB are mapped onto themselves; the window has
 * 512 pages of 4 KiB and behind them one of 2 MiB, for the tests to map.
 */
#define BARE_WINDOW	0x8000000000
#define BARE_PAGE	4096
#define BARE_LARGE	0x200000
#define BARE_ABSENT	(BARE_WINDOW + 2 * BARE_LARGE)
#define BARE_DEVICE	(BARE_WINDOW + 3 * BARE_LARGE)	/* see bare_map_device */
#define BARE_NONCANONICAL	0x800000000000

/* Physical addresses. */
#define BARE_TRAMPOLINE	0x8000		/* real mode: below 1 MiB */
#define BARE_LARGE_AT	0x800000	/* RAM for the page of 2 MiB */
#define BARE_ECAM	0xe0000000
#define BARE_IOAPIC	0xfec00000
#define BARE_APIC	0xfee00000
#define BARE_UNCLAIMED	0xfe000000	/* nobody's */

/* Ports. */
#define BARE_CONSOLE	0x3f8		/* ttyS0 */
#define BARE_UART	0x2f8		/* ttyS1, which the tests use */
#define BARE_UART_IRQ	3
#define BARE_SLEEP	0x600
#define BARE_PCI	0xcf8
#define BARE_UNCLAIMED_PORT	0x2000	/* and the next 4 */

/* Interrupt vectors that the program always uses. */
#define VECTOR_EXIT	4	/* INT 4 from ring 3: the end of its code */
#define VECTOR_ANSWER	0x43	/* whoever takes it tells the first CPU */
#define VECTOR_CALL	0xa0	/* to the second CPU: there is something to do */
#define VECTOR_DONE	0xa1	/* to the first: it is done */
#define TEST_GATE	0xf0	/* that the tests set as they need it */
#define VECTOR_TIMEOUT	0xe0	/* a wait took too long */
#define VECTOR_SPURIOUS	0xff

/*
 * Hosts on which not all can be checked; see bare_unless_flawed. RING3: a KVM
 * without VMX or SVM, that runs ring 3 on the host's own tables and registers
 * and emulates ring 0, each in part. TCG: QEMU's CPU, as of 7.2, which is what a
 * KVM in it runs on.
 */
#define FLAW_RING3	1
#define FLAW_TCG	2

/* Which stack of the interrupt stack table (IST) is whose. */
#define IST_DF		1
#define IST_NMI		2
#define IST_TEST	3

#endif
