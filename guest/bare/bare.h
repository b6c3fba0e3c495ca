/* SPDX-License-Identifier: MIT */
/*
 * bare - tests the machine from inside, without a kernel
 *
 * The program owns the machine. It judges itself and says so on ttyS0: a line
 * for each check, and the count at the end. The same binary prints the same on
 * every engine, so nothing that is an engine's own, such as a time or a count
 * of ticks, is ever printed.
 *
 * There are KVMs that emulate ring 0 instruction by instruction, at a million
 * a second, and don't know all of them. So the whole program stays well below a
 * million, waits in HLT and not in loops, and does in ring 3 what such a KVM
 * can't do in ring 0.
 *
 * SDM is Intel's Software Developer's Manual, by volume and section.
 */
#ifndef BARE_H
#define BARE_H

#include "layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

/* What a trap leaves on the stack: start.S pushes the first part. */
struct bare_frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8;
	u64 rdi, rsi, rbp, rbx, rdx, rcx, rax;
	u64 vector, error;
	u64 rip, cs, rflags, rsp, ss;
};

/* The 64-bit TSS with a bit for each I/O port below 0x400 (SDM 3, 7.7). */
struct bare_tss {
	u32 reserved0;
	u64 rsp[3];
	u64 reserved1;
	u64 ist[7];
	u64 reserved2;
	u16 reserved3;
	u16 iomap;
	u8 ports[0x400 / 8 + 1];
} __attribute__((packed));

/*
 * One CPU. start.S knows the first field. A trap that comes while a context is
 * set ends the code that runs in it: see bare_probe and bare_user.
 */
struct bare_cpu {
	u64 context;
	u32 index;
	bool x2apic;
	volatile u32 nmis;
	volatile u32 taken[256];	/* interrupts, by vector */
	struct bare_frame trap;		/* the last that ended a context */
	u64 cr2, frame;			/* at that trap; where the frame was */
	struct bare_tss tss;
};

/* Not a trap's vector: the code returned. */
#define BARE_RETURNED	0x100

extern struct bare_cpu bare_cpus[BARE_CPUS];
struct bare_cpu *bare_this_cpu(void);

/* Stacks: each CPU's first, that of traps from ring 3, and the ISTs'. */
extern u8 bare_stacks[BARE_CPUS][BARE_STACK];
extern u8 bare_user_traps[BARE_CPUS][BARE_STACK];
extern u8 bare_ist_stacks[BARE_CPUS][3][BARE_STACK];

/* print.c */
void bare_init_print(void);
void bare_print(const char *s);
void bare_note(const char *s);
void bare_section(const char *name);
void bare_ok(const char *name);
void bare_not_ok(const char *name, const char *part, u64 got, u64 want);
void bare_check(const char *name, u64 got, u64 want);
void bare_true(const char *name, bool holds);
bool bare_part(const char *name, const char *part, u64 got, u64 want);
_Noreturn void bare_end(void);

/* traps.c */
typedef bool bare_hook(struct bare_frame *f);	/* true: go on where it came */

extern u16 bare_trap_ss;		/* SS when the last trap came */

void bare_init_cpu(u32 index);
void bare_init_gates(void);
void bare_set_gate(u8 vector, bool present, u8 dpl, u8 ist);
void bare_set_hook(u8 vector, bare_hook *hook);
void bare_set_interrupt(u8 vector);
void bare_trap(struct bare_frame *f);
struct bare_frame *bare_probe(void *fn, u64 argument);
struct bare_frame *bare_user_in(u16 code, void *entry, u64 rflags, u64 argument);
struct bare_frame *bare_user(void *entry, u64 rflags, u64 argument);
bool bare_unless_flawed(u32 flaws, const char *const *names);
#define bare_unless(flaws, ...)	bare_unless_flawed(flaws, (const char *const[]){ __VA_ARGS__, NULL })
void bare_expect(const char *name, u64 vector, u64 error, const void *rip);

/* page.c */
void bare_init_paging(void);
void bare_map(u32 page, u64 physical, u64 flags);
u64 *bare_entry(u32 page);
u64 *bare_directory(void);
u64 bare_frame_of(u32 n);
u64 bare_map_device(u64 physical);

/* pci.c: configuration space, by bus, device and function number. */
#define BARE_NO_FUNCTION	0xffffffff

u32 bare_config_read(u32 function, u32 reg);
void bare_config_write(u32 function, u32 reg, u32 v);
u32 bare_find_function(u32 id);
u32 bare_find_capability(u32 function, u8 id);
u64 bare_read_bar(u32 function, u32 n);
void bare_write_bar(u32 function, u32 n, u64 base);
u64 bare_bar_size(u32 function, u32 n);

/* apic.c */
void bare_init_apic(void);
void bare_use_x2apic(void);
u32 bare_apic_read(u32 reg);
void bare_apic_write(u32 reg, u32 value);
bool bare_apic_bit(u32 reg, u8 vector);
void bare_send(u32 apic_id, u32 command);
void bare_eoi(void);
void bare_let_in(void);
void bare_pass(void);
void bare_doze(volatile u32 *count, u32 want);
bool bare_wait(volatile u32 *count, u32 want);
void bare_sleep(u32 ns);
bool bare_until(bool (*holds)(const void *what), const void *what);

bool bare_read_msr(u64 index);

/* smp.c: what the second CPU is told to do, and what it answers. */
#define SECOND	1		/* its index, and its APIC's ID */

extern volatile u64 bare_answer;

void bare_tell(void (*order)(void));
bool bare_wait_for_second(void);
bool bare_have_done(void (*order)(void));

/* ioapic.c: the second UART as a device that interrupts. */
u32 bare_ioapic_read(u32 reg);
void bare_ioapic_write(u32 reg, u32 v);
void bare_route_input(u32 input, u32 apic_id, u32 low);
void bare_route(u32 apic_id, u32 low);
void bare_raise(void);
void bare_lower(void);

/* The sections, in order. */
void bare_test_exceptions(void);
void bare_test_page_faults(void);
void bare_test_paging(void);
void bare_test_syscall(void);
void bare_test_returns(void);
void bare_test_segments(void);
void bare_test_strings(void);
void bare_test_locked(void);
void bare_test_code(void);
void bare_test_ports(void);
void bare_test_mmio(void);
void bare_test_pci(void);
void bare_test_apic(void);
void bare_test_timer(void);
void bare_test_ioapic(void);
void bare_test_smp(void);
void bare_test_x2apic(void);
void bare_test_edu(void);
void bare_test_fifo(void);

/* start.S */
extern char bare_gates[];
bool bare_call(u64 *context, void *fn, u64 argument);
void bare_enter_user(u64 *context, void *entry, u64 rflags, u64 argument, u64 code);
_Noreturn void bare_unwind(u64 context);
void bare_idle(void);

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof(*(a)))

/* Bits of control registers, EFER and RFLAGS (SDM 3, 2.3 and 2.5; 1, 3.4.3). */
#define CR0_TS		(1ul << 3)
#define CR0_WP		(1ul << 16)
#define CR0_AM		(1ul << 18)
#define CR4_DE		(1ul << 3)
#define CR4_PAE		(1ul << 5)
#define CR4_PGE		(1ul << 7)
#define CR4_OSFXSR	(1ul << 9)
#define CR4_OSXMMEXCPT	(1ul << 10)
#define CR4_FSGSBASE	(1ul << 16)
#define CR4_SMEP	(1ul << 20)
#define CR4_SMAP	(1ul << 21)
#define EFER_SCE	(1ul << 0)
#define EFER_LMA	(1ul << 10)

#define FLAG_CF		(1ul << 0)
#define FLAG_ONE	(1ul << 1)
#define FLAG_ZF		(1ul << 6)
#define FLAG_TF		(1ul << 8)
#define FLAG_IF		(1ul << 9)
#define FLAG_DF		(1ul << 10)
#define FLAG_IOPL	(3ul << 12)
#define FLAG_NT		(1ul << 14)
#define FLAG_RF		(1ul << 16)
#define FLAG_AC		(1ul << 18)
#define FLAG_ID		(1ul << 21)

/* Exceptions (SDM 3, table 6-1). */
enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC, MC, XM };

/* Paging-structure entries and page-fault codes (SDM 3, 4.5 and 4.7). */
#define PTE_P		(1ul << 0)
#define PTE_W		(1ul << 1)
#define PTE_U		(1ul << 2)
#define PTE_PCD		(1ul << 4)
#define PTE_A		(1ul << 5)
#define PTE_D		(1ul << 6)
#define PTE_PS		(1ul << 7)
#define PTE_G		(1ul << 8)
#define PTE_NX		(1ul << 63)

#define PF_P		1
#define PF_W		2
#define PF_U		4
#define PF_RSVD		8
#define PF_I		16

/* Model-specific registers (SDM 4, table 2-2). */
#define MSR_APIC_BASE		0x1b
#define MSR_TSC_DEADLINE	0x6e0
#define MSR_X2APIC		0x800
#define MSR_EFER		0xc0000080
#define MSR_STAR		0xc0000081
#define MSR_LSTAR		0xc0000082
#define MSR_SFMASK		0xc0000084
#define MSR_FS_BASE		0xc0000100
#define MSR_GS_BASE		0xc0000101
#define MSR_KERNEL_GS_BASE	0xc0000102

/* The local APIC's registers (SDM 3, table 11-1). */
#define APIC_ID		0x20
#define APIC_VERSION	0x30
#define APIC_TPR	0x80
#define APIC_PPR	0xa0
#define APIC_EOI	0xb0
#define APIC_LDR	0xd0
#define APIC_DFR	0xe0
#define APIC_SVR	0xf0
#define APIC_ISR	0x100
#define APIC_TMR	0x180
#define APIC_IRR	0x200
#define APIC_ICR	0x300
#define APIC_ICR_HIGH	0x310
#define APIC_LVT_TIMER	0x320
#define APIC_LVT_LINT0	0x350
#define APIC_TIMER_INITIAL	0x380
#define APIC_TIMER_CURRENT	0x390
#define APIC_TIMER_DIVIDE	0x3e0
#define APIC_LVT_LINT1	0x360
#define APIC_SELF_IPI	0x3f0	/* x2APIC only */

#define APIC_BASE_BSP	(1ul << 8)
#define APIC_BASE_X2	(1ul << 10)
#define APIC_BASE_ENABLE	(1ul << 11)

#define APIC_SVR_ENABLE	(1 << 8)
#define APIC_LVT_MASKED	(1 << 16)
#define APIC_PERIODIC	(1 << 17)
#define APIC_DEADLINE	(2 << 17)
#define APIC_DIVIDE_1	0xb
#define APIC_DIVIDE_16	0x3

#define ICR_LOWEST	(1 << 8)
#define ICR_NMI		(4 << 8)
#define ICR_INIT	(5 << 8)
#define ICR_STARTUP	(6 << 8)
#define ICR_LOGICAL	(1 << 11)
#define ICR_ASSERT	(1 << 14)
#define ICR_SELF	(1 << 18)
#define ICR_ALL		(2 << 18)
#define ICR_OTHERS	(3 << 18)

/* Entries of the I/O APIC (82093AA data sheet, 3.2.4). */
#define ENTRY_LEVEL	(1 << 15)
#define ENTRY_MASKED	(1 << 16)

/* PCI configuration space (PCI Local Bus 3.0, 6.1 and 6.2) and capabilities. */
#define PCI_COMMAND	0x04
#define PCI_CLASS	0x08
#define PCI_HEADER	0x0c
#define PCI_BAR(n)	(0x10 + 4 * (n))
#define PCI_CAPABILITIES	0x34
#define PCI_LINE	0x3c

#define PCI_COMMAND_IO		(1 << 0)
#define PCI_COMMAND_MEMORY	(1 << 1)
#define PCI_COMMAND_MASTER	(1 << 2)
#define PCI_COMMAND_NO_INTX	(1 << 10)
#define PCI_STATUS_INTX		(1 << 19)

#define PCI_CAP_POWER	0x01
#define PCI_CAP_MSI	0x05
#define PCI_CAP_MSIX	0x11
#define PCI_CAP_EXPRESS	0x10

static inline u32 bare_read_device(u64 address)
{
	return *(volatile u32 *)address;
}

static inline void bare_write_device(u64 address, u32 v)
{
	*(volatile u32 *)address = v;
}

static inline u8 bare_inb(u16 port)
{
	u8 v;

	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline u16 bare_inw(u16 port)
{
	u16 v;

	asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline u32 bare_inl(u16 port)
{
	u32 v;

	asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline void bare_outb(u16 port, u8 v)
{
	asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline void bare_outw(u16 port, u16 v)
{
	asm volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}

static inline void bare_outl(u16 port, u32 v)
{
	asm volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

static inline u64 bare_rdmsr(u32 index)
{
	u32 low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
	return low | (u64)high << 32;
}

static inline void bare_wrmsr(u32 index, u64 v)
{
	asm volatile("wrmsr" : : "c"(index), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}

static inline u64 bare_rdtsc(void)
{
	u32 low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return low | (u64)high << 32;
}

#define BARE_REGISTER(name)						\
static inline u64 bare_read_##name(void)				\
{									\
	u64 v;								\
									\
	asm volatile("mov %%" #name ", %0" : "=r"(v) : : "memory");	\
	return v;							\
}									\
									\
static inline void bare_write_##name(u64 v)				\
{									\
	asm volatile("mov %0, %%" #name : : "r"(v) : "memory");		\
}

BARE_REGISTER(cr0)
BARE_REGISTER(cr2)
BARE_REGISTER(cr3)
BARE_REGISTER(cr4)
BARE_REGISTER(cr8)

static inline u64 bare_flags(void)
{
	u64 v;

	asm volatile("pushfq; popq %0" : "=r"(v) : : "memory");
	return v;
}

static inline void bare_set_flags(u64 v)
{
	asm volatile("pushq %0; popfq" : : "r"(v) : "memory", "cc");
}

static inline void bare_cli(void)
{
	asm volatile("cli" : : : "memory");
}

static inline void bare_invlpg(u64 address)
{
	asm volatile("invlpg (%0)" : : "r"(address) : "memory");
}

#endif
