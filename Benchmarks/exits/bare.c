// The least a monitor can do for an exit: a loop around KVM_RUN that tells the reason and touches the data.
//
//   bare pio|mmio COUNT
//
// The guest, its virtual machine and the measurement are those of Exits.swift.
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

enum { WARM_UP = 2000, MEMORY = 1 << 20 };

static int call(int fd, unsigned long request, void *argument) {
    int result = ioctl(fd, request, argument);
    if (result < 0) { perror("ioctl"); exit(1); }
    return result;
}

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argument_count, char **arguments) {
    if (argument_count != 3) return 64;
    int pio = strcmp(arguments[1], "pio") == 0;
    long count = atol(arguments[2]), seen = 0;
    int kvm = open("/dev/kvm", O_RDWR);
    if (kvm < 0) { perror("/dev/kvm"); return 69; }
    int vm = call(kvm, KVM_CREATE_VM, 0);
    uint8_t *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY, .userspace_addr = (uintptr_t)memory};
    call(vm, KVM_SET_USER_MEMORY_REGION, &region);
    uint64_t identity = 0xFFFBC000;
    call(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    call(vm, KVM_SET_TSS_ADDR, (void *)0xFFFBD000);
    call(vm, KVM_CREATE_IRQCHIP, 0);
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    call(vm, KVM_CREATE_PIT2, &pit);
    static const uint8_t out[] = {0xEE, 0xEB, 0xFD}, store[] = {0x88, 0x07, 0xEB, 0xFC};
    memcpy(memory + 0x1000, pio ? out : store, pio ? sizeof out : sizeof store);

    int vcpu = call(vm, KVM_CREATE_VCPU, 0);
    struct kvm_run *run = mmap(
        NULL, call(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    struct kvm_sregs system;
    call(vcpu, KVM_GET_SREGS, &system);
    system.cs.selector = 0;
    system.cs.base = 0;
    system.ds.selector = 0xFFFF;
    system.ds.base = 0xFFFF0;
    call(vcpu, KVM_SET_SREGS, &system);
    struct kvm_regs registers = {.rip = 0x1000, .rbx = 0x10, .rdx = 0x300, .rflags = 2};
    call(vcpu, KVM_SET_REGS, &registers);

    long long start = 0, end = 0;
    volatile uint8_t sink;
    while (seen < WARM_UP + count) {
        call(vcpu, KVM_RUN, 0);
        switch (run->exit_reason) {
        case KVM_EXIT_IO:
            if (run->io.port != 0x300) return 1;
            sink = *((uint8_t *)run + run->io.data_offset);
            break;
        case KVM_EXIT_MMIO:
            if (run->mmio.phys_addr != 0x100000) return 1;
            sink = run->mmio.data[0];
            break;
        default:
            fprintf(stderr, "exit reason %u\n", run->exit_reason);
            return 1;
        }
        (void)sink;
        seen++;
        if (seen == WARM_UP) start = now();
        if (seen == WARM_UP + count) end = now();
    }
    printf("%f\n", (double)(end - start) / count);
    return 0;
}
