// SPDX-License-Identifier: MIT
//
// loop: the least that a program does to run the benchmark's guest on KVM. It
// is what the Go engine is measured against, over the same ioctls, from the
// same image and start state, which it finds in the file that exitbench wrote.
//
//	loop FILE
//
// prints how many nanoseconds a round took.

#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

// What exitbench writes: this, in the file's first header_size bytes, then RAM.
struct params {
	uint64_t ram_size, rounds;
	uint64_t rip, rsp, rbx, cr0, cr3, cr4, efer, gdt, gdt_limit, idt, idt_limit;
	uint64_t start_port, end_port, msi_port; // start and end of the measurement; raises the next MSI
	uint64_t doorbell, msi_address, msi_data;
	uint64_t rings; // the doorbell raises the MSI
	uint64_t cpuid_count;
	struct kvm_cpuid_entry2 cpuid[64];
};

enum { header_size = 16384, gsi = 24 };

static volatile uint64_t sink; // what a device does with what it gets
static int bell, vector;
static const uint64_t one = 1;
static struct params *p;

static int call(int fd, unsigned long request, void *arg, const char *what)
{
	int r = ioctl(fd, request, arg);

	if (r < 0)
		err(1, "%s", what);
	return r;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void *ring(void *arg)
{
	uint64_t count;

	while (read(bell, &count, sizeof(count)) == sizeof(count)) {
		sink += count;
		if (p->rings && write(vector, &one, sizeof(one)) < 0)
			err(1, "raise");
	}
	return NULL;
}

static void set_state(int cpu)
{
	struct kvm_segment code = { .limit = ~0u, .selector = 0x10, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = ~0u, .selector = 0x18, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1 };
	struct kvm_regs r = { .rip = p->rip, .rsp = p->rsp, 
		.rbx = p->rbx, .rcx = p->rounds, .rdx = p->doorbell, .rflags = 2 };
	struct kvm_lapic_state apic;
	struct kvm_sregs s;
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[64];
	} cpuid = { .head.nent = p->cpuid_count };

	memcpy(cpuid.head.entries, p->cpuid, p->cpuid_count * sizeof(p->cpuid[0]));
	call(cpu, KVM_SET_CPUID2, &cpuid, "KVM_SET_CPUID2");
	call(cpu, KVM_SET_REGS, &r, "KVM_SET_REGS");
	call(cpu, KVM_GET_SREGS, &s, "KVM_GET_SREGS");
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cr0 = p->cr0, s.cr3 = p->cr3, s.cr4 = p->cr4, s.efer = p->efer;
	s.gdt.base = p->gdt, s.gdt.limit = p->gdt_limit;
	s.idt.base = p->idt, s.idt.limit = p->idt_limit;
	call(cpu, KVM_SET_SREGS, &s, "KVM_SET_SREGS");
	call(cpu, KVM_GET_LAPIC, &apic, "KVM_GET_LAPIC");
	memcpy(apic.regs + 0xf0, &(uint32_t){ 0x1ff }, 4); // enabled by software
	call(cpu, KVM_SET_LAPIC, &apic, "KVM_SET_LAPIC");
}

int main(int argc, char **argv)
{
	int file, dev, vm, cpu;
	uint64_t start = 0;
	pthread_t reader;
	struct kvm_run *run;

	if (argc != 2)
		errx(2, "usage: loop FILE");
	file = open(argv[1], O_RDONLY);
	if (file < 0)
		err(1, "%s", argv[1]);
	p = mmap(NULL, header_size, PROT_READ, MAP_PRIVATE, file, 0);
	if (p == MAP_FAILED)
		err(1, "map %s", argv[1]);
	dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		err(1, "/dev/kvm");
	vm = call(dev, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
	call(vm, KVM_SET_TSS_ADDR, (void *)0xfffbd000ul, "KVM_SET_TSS_ADDR");
	call(vm, KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP");

	struct kvm_userspace_memory_region ram = { .memory_size = p->ram_size };
	void *bytes = mmap(NULL, p->ram_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (bytes == MAP_FAILED || pread(file, bytes, p->ram_size, header_size) != (ssize_t)p->ram_size)
		err(1, "read %s", argv[1]);
	ram.userspace_addr = (uintptr_t)bytes;
	call(vm, KVM_SET_USER_MEMORY_REGION, &ram, "KVM_SET_USER_MEMORY_REGION");

	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry msi;
	} routing = { .head.nr = 1, .msi = { .gsi = gsi, .type = KVM_IRQ_ROUTING_MSI } };

	routing.msi.u.msi.address_lo = p->msi_address;
	routing.msi.u.msi.data = p->msi_data;
	call(vm, KVM_SET_GSI_ROUTING, &routing, "KVM_SET_GSI_ROUTING");
	vector = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	call(vm, KVM_IRQFD, &(struct kvm_irqfd){ .fd = vector, .gsi = gsi }, "KVM_IRQFD");
	bell = eventfd(0, EFD_CLOEXEC);
	call(vm, KVM_IOEVENTFD, &(struct kvm_ioeventfd){ .addr = p->doorbell, .len = 4, .fd = bell }, "KVM_IOEVENTFD");
	pthread_create(&reader, NULL, ring, NULL);

	cpu = call(vm, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
	run = mmap(NULL, call(dev, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE"), PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
	if (run == MAP_FAILED)
		err(1, "map kvm_run");
	set_state(cpu);
	for (;;) {
		call(cpu, KVM_RUN, 0, "KVM_RUN");
		switch (run->exit_reason) {
		case KVM_EXIT_IO:
			if (run->io.port == p->start_port) {
				start = now();
			} else if (run->io.port == p->end_port) {
				printf("%.2f\n", (double)(now() - start) / p->rounds);
				return 0;
			} else if (run->io.port == p->msi_port) {
				if (write(vector, &one, sizeof(one)) < 0)
					err(1, "raise");
			}
			sink = *((uint8_t *)run + run->io.data_offset);
			break;
		case KVM_EXIT_MMIO:
			if (run->mmio.is_write)
				sink = run->mmio.data[0];
			else
				memset(run->mmio.data, 0x5a, run->mmio.len);
			break;
		default:
			errx(1, "exit %d", run->exit_reason);
		}
	}
}
