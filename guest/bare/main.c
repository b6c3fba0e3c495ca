// SPDX-License-Identifier: MIT
/*
 * The order of the sections: each relies only on what those before it test.
 */
#include "bare.h"

_Noreturn void bare_main(void);

void bare_main(void)
{
	bare_init_print();
	bare_print("bare\n");
	bare_init_gates();
	bare_init_paging();
	bare_init_cpu(0);
	bare_test_exceptions();
	bare_test_page_faults();
	bare_test_paging();
	bare_test_syscall();
	bare_test_returns();
	bare_test_segments();
	bare_test_strings();
	bare_test_locked();
	bare_test_code();
	bare_test_ports();
	bare_test_mmio();
	bare_test_pci();
	bare_init_apic();
	bare_test_apic();
	bare_test_timer();
	bare_test_ioapic();
	bare_test_smp();
	bare_test_x2apic();
	bare_test_edu();
	bare_test_fifo();
	bare_end();
}
