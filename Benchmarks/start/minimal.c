// The least program that starts hover's cached `linux` image: the ioctls that hover makes, in its order, and the same
// files mapped at the same places. No console, no devices, no options, one thread. What hover is compared with.
//
//   minimal KERNEL-PREPARED INITRD FILE    FILE gets CLOCK_MONOTONIC in nanoseconds, taken before the first KVM_RUN
//
// The guest then runs for a moment, to show that it does, and the process ends.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MEMORY (128ul << 20)
static const char command_line[] = "console=ttyS0 panic=-1 pci=conf1,noearly quiet";

static long check(long result, const char *what) {
    if (result < 0) { perror(what); exit(1); }
    return result;
}
#define CALL(fd, request, argument) check(ioctl(fd, request, argument), #request)

static void *map(void *at, size_t count, int protection, int flags, int fd, off_t offset) {
    void *result = mmap(at, count, protection, flags, fd, offset);
    if (result == MAP_FAILED) { perror("mmap"); exit(1); }
    return result;
}

static uint64_t field(const uint8_t *bytes, size_t offset, size_t width) {
    uint64_t value = 0;
    memcpy(&value, bytes + offset, width);
    return value;
}

int main(int count, char **arguments) {
    if (count < 4) return 64;
    int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    if (CALL(kvm, KVM_GET_API_VERSION, 0) != 12) return 69;
    int run_size = CALL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    static const int required[] = {
        KVM_CAP_USER_MEMORY, KVM_CAP_IRQCHIP, KVM_CAP_SET_TSS_ADDR, KVM_CAP_EXT_CPUID, KVM_CAP_MP_STATE,
        KVM_CAP_IMMEDIATE_EXIT,
    };
    for (size_t i = 0; i < sizeof required / sizeof *required; i++)
        if (CALL(kvm, KVM_CHECK_EXTENSION, required[i]) == 0) return 69;

    uint8_t *memory = map(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(madvise(memory, MEMORY, MADV_DONTDUMP), "madvise");
    CALL(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    int vm = CALL(kvm, KVM_CREATE_VM, 0);
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY, .userspace_addr = (uintptr_t)memory};
    CALL(vm, KVM_SET_USER_MEMORY_REGION, &region);
    uint64_t identity = 0xFFFBC000;
    CALL(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    CALL(vm, KVM_SET_TSS_ADDR, 0xFFFBD000);
    CALL(vm, KVM_CREATE_IRQCHIP, 0);
    CALL(kvm, KVM_CHECK_EXTENSION, KVM_CAP_PIT2);
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    CALL(vm, KVM_CREATE_PIT2, &pit);
    struct { struct kvm_irq_routing header; struct kvm_irq_routing_entry entries[48]; } routing = {0};
    for (unsigned gsi = 0; gsi < 24; gsi++) {
        if (gsi == 2) continue;
        if (gsi < 16)
            routing.entries[routing.header.nr++] = (struct kvm_irq_routing_entry){
                .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP,
                .u.irqchip = {.irqchip = gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, .pin = gsi & 7}};
        routing.entries[routing.header.nr++] = (struct kvm_irq_routing_entry){
            .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP,
            .u.irqchip = {.irqchip = KVM_IRQCHIP_IOAPIC, .pin = gsi == 0 ? 2 : gsi}};
    }
    CALL(vm, KVM_SET_GSI_ROUTING, &routing);
    CALL(kvm, KVM_CHECK_EXTENSION, KVM_CAP_EXIT_ON_EMULATION_FAILURE);
    struct kvm_enable_cap failure = {.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args = {1}};
    ioctl(vm, KVM_ENABLE_CAP, &failure);
    CALL(kvm, KVM_CHECK_EXTENSION, KVM_CAP_X86_USER_SPACE_MSR);
    struct kvm_enable_cap msr = {.cap = KVM_CAP_X86_USER_SPACE_MSR, .args = {KVM_MSR_EXIT_REASON_UNKNOWN}};
    ioctl(vm, KVM_ENABLE_CAP, &msr);
    static struct { struct kvm_cpuid2 header; struct kvm_cpuid_entry2 entries[128]; } cpuid;
    cpuid.header.nent = 128;
    CALL(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
    CALL(kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER);

    // The kernel's runs, the initrd below the end of memory. The format is in Sources/Boot/PreparedKernel.swift.
    int file = check(open(arguments[1], O_RDONLY | O_CLOEXEC), arguments[1]);
    struct stat status;
    check(fstat(file, &status), "fstat");
    const uint8_t *header = map(NULL, status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (memcmp(header, "WNDHVRK1", 8) != 0) return 65;
    for (uint64_t i = 0; i < field(header, 40, 4); i++) {
        const uint8_t *run = header + 256 + i * 24;
        size_t bytes = field(run, 16, 8);
        void *at = memory + field(run, 0, 8);
        map(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, file, field(run, 8, 8));
        check(madvise(at, bytes, MADV_DONTDUMP), "madvise");
    }
    int disk = check(open(arguments[2], O_RDONLY | O_CLOEXEC), arguments[2]);
    check(fstat(disk, &status), "fstat");
    size_t disk_bytes = (status.st_size + 4095) & ~4095ul, disk_at = MEMORY - disk_bytes;
    map(memory + disk_at, disk_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, disk, 0);
    check(madvise(memory + disk_at, disk_bytes, MADV_DONTDUMP), "madvise");

    // Boot parameters, command line, GDT, page tables for 4 GiB.
    uint8_t *zero = memory + 0x7000;
    memcpy(zero + 0x1F1, header + 64, 0x290 - 0x1F1);
    zero[0x210] = 0xFF;
    uint32_t words[] = {disk_at, status.st_size, 0x20000};
    memcpy(zero + 0x218, words, 8);
    memcpy(zero + 0x228, words + 2, 4);
    uint64_t ram[][2] = {{0, 0x9FC00}, {0x100000, MEMORY - 0x100000}};
    zero[0x1E8] = 2;
    for (int i = 0; i < 2; i++) {
        memcpy(zero + 0x2D0 + i * 20, ram[i], 16);
        zero[0x2D0 + i * 20 + 16] = 1;
    }
    memcpy(memory + 0x20000, command_line, sizeof command_line);
    uint64_t gdt[] = {0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00008B0000000067, 0};
    memcpy(memory + 0x500, gdt, sizeof gdt);
    uint64_t *tables = (uint64_t *)(memory + 0x9000);
    tables[0] = 0xA003;
    for (uint64_t i = 0; i < 4; i++) tables[512 + i] = (0xB000 + i * 4096) | 3;
    for (uint64_t i = 0; i < 2048; i++) tables[1024 + i] = i << 21 | 0x83;

    int vcpu = CALL(vm, KVM_CREATE_VCPU, 0);
    struct kvm_run *run = map(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    CALL(kvm, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS);
    CALL(vcpu, KVM_GET_TSC_KHZ, 0);
    CALL(vcpu, KVM_SET_CPUID2, &cpuid);
    struct { struct kvm_msrs header; struct kvm_msr_entry entries[2]; } msrs = {
        {.nmsrs = 2}, {{.index = 0x1A0, .data = 1}, {.index = 0x2FF, .data = 0x806}}};
    CALL(vcpu, KVM_SET_MSRS, &msrs);
    struct kvm_lapic_state apic;
    CALL(vcpu, KVM_GET_LAPIC, &apic);
    memcpy(apic.regs + 0x350, &(uint32_t){0x700}, 4);
    memcpy(apic.regs + 0x360, &(uint32_t){0x400}, 4);
    CALL(vcpu, KVM_SET_LAPIC, &apic);
    struct kvm_sregs system;
    CALL(vcpu, KVM_GET_SREGS, &system);
    struct kvm_segment data = {.limit = ~0u, .selector = 0x18, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    system.ds = system.es = system.fs = system.gs = system.ss = data;
    system.cs = (struct kvm_segment){
        .limit = ~0u, .selector = 0x10, .type = 0xB, .present = 1, .s = 1, .l = 1, .g = 1};
    system.tr = (struct kvm_segment){.limit = 0x67, .selector = 0x20, .type = 0xB, .present = 1};
    system.gdt.base = 0x500;
    system.gdt.limit = sizeof gdt - 1;
    system.cr0 = 0x80000011;
    system.cr3 = 0x9000;
    system.cr4 = 0x20;
    system.efer = 0x500;
    run->s.regs.sregs = system;
    run->s.regs.regs = (struct kvm_regs){.rip = field(header, 24, 8), .rsi = 0x7000, .rsp = 0x8FF0, .rflags = 2};
    run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;

    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);

    FILE *out = fopen(arguments[3], "w");
    if (!out) return 66;
    fprintf(out, "%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
    fclose(out);
    // The guest's first exit, or 20 ms of it; SIGALRM ends the process.
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {.tv_usec = 20000}}, NULL);
    check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
    return run->exit_reason == KVM_EXIT_FAIL_ENTRY || run->exit_reason == KVM_EXIT_SHUTDOWN;
}
