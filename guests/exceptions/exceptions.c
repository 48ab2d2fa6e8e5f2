// Provokes each exception and checks its vector, error code, saved RIP and CR2.
#include "guest.h"

static volatile struct { u64 vector, error, rip, cr2; } seen;
volatile u64 fault_rip, resume_rip;

static void on_exception(struct frame *frame) {
    seen.vector = frame->vector;
    seen.error = frame->error;
    seen.rip = frame->rip;
    seen.cr2 = read_cr2();
    frame->rip = resume_rip;
}

static void expect(const char *name, u64 vector, u64 error, u64 rip) {
    check(seen.vector == vector, "%s: vector %ld, not %lu", name, seen.vector, vector);
    check(seen.error == error, "%s: error code %lx, not %lx", name, seen.error, error);
    check(seen.rip == rip, "%s: at %lx, not %lx", name, seen.rip, rip);
    printf("%s\n", name);
}

// Runs `setup`, then one instruction that must fault, with RAX = `value`.
#define RUN(value, setup, instruction)                                                                                 \
    do {                                                                                                               \
        seen.vector = (u64)-1;                                                                                         \
        __asm__ volatile("leaq 1f(%%rip), %%rdx; movq %%rdx, fault_rip(%%rip)\n\t"                                     \
                         "leaq 2f(%%rip), %%rdx; movq %%rdx, resume_rip(%%rip)\n\t" setup "\n"                         \
                         "1:\t" instruction "\n2:" ::"a"((u64)(value)) : "rcx", "rdx", "memory");                      \
    } while (0)
#define FAULT(name, vector, error, value, setup, instruction)                                                          \
    do { RUN(value, setup, instruction); expect(name, vector, error, fault_rip); } while (0)

static u64 *page_entry(u64 address) {
    extern u64 page_pointers[];
    u64 *directory = (u64 *)(page_pointers[address >> 30] & ~0xFFFull);
    return &directory[address >> 21 & 511];
}

static void set_entry(u64 address, u64 value) {
    *page_entry(address) = value;
    write_cr3(read_cr3());
}

void guest_main(void) {
    for (u32 vector = 0; vector < 32; vector++) set_handler((u8)vector, on_exception);

    FAULT("#DE", 0, 0, 0, "xorl %%edx, %%edx", "divl %%eax");
    // Software interrupts are apart: KVM's own instruction emulator, which runs ring 0 on some hosts, lacks them.
    if (option("traps")) {
        RUN(0, "", "int3");
        expect("#BP", 3, 0, resume_rip);
        // A vector whose exception has no error code: INT pushes none, and the stub of one that has would take RIP for it.
        RUN(0, "", "int $19");
        check(seen.vector == 19, "INT 19 came as %lu", seen.vector);
        print("INT\n");
        return;
    }
    FAULT("#UD", 6, 0, 0, "", "ud2");
    FAULT("#GP by WRMSR", 13, 0, 0, "movl $0x12345678, %%ecx; xorl %%edx, %%edx", "wrmsr");
    FAULT("#GP by address", 13, 0, 0x8000000000000000, "", "movq (%%rax), %%rcx");
    FAULT("#GP by selector", 13, 0x1230, 0x1230, "", "movl %%eax, %%ds");
    FAULT("#NP", 11, 0x20, 0x20, "", "movl %%eax, %%ds");
    // RBP addresses the stack segment.
    seen.vector = (u64)-1;
    __asm__ volatile("leaq 1f(%%rip), %%rdx; movq %%rdx, fault_rip(%%rip); leaq 2f(%%rip), %%rdx; movq %%rdx, resume_rip(%%rip)\n\t"
                     "movq %%rbp, %%rcx; movq %%rax, %%rbp\n1:\tmovq (%%rbp), %%rdx\n2:\tmovq %%rcx, %%rbp"
                     ::"a"(0x8000000000000000) : "rcx", "rdx", "memory");
    expect("#SS", 12, 0, fault_rip);

    // One 2 MiB page, away from code, data and stack.
    u64 page = 0x3FE00000, kept = *page_entry(page);
    *(volatile u32 *)0x3FE00000;
    set_entry(page, 0);
    FAULT("#PF, not present, read", 14, 0, page + 8, "", "movb (%%rax), %%cl");
    check(seen.cr2 == page + 8, "CR2 is %lx", seen.cr2);
    FAULT("#PF, not present, write", 14, 2, page + 0x1234, "", "movb %%cl, (%%rax)");
    check(seen.cr2 == page + 0x1234, "CR2 is %lx", seen.cr2);
    set_entry(page, kept & ~2ull);
    FAULT("#PF, read-only, write", 14, 3, page, "", "movb %%cl, (%%rax)");
    set_entry(page, kept | 1ull << 63);
    seen.vector = (u64)-1;
    __asm__ volatile("leaq 2f(%%rip), %%rdx; movq %%rdx, resume_rip(%%rip); movq %%rsp, %%rcx; jmp *%%rax\n2: movq %%rcx, %%rsp"
                     ::"a"(page) : "rcx", "rdx", "memory");
    expect("#PF, no-execute, fetch", 14, 0x11, page);
    // NX is an instruction's matter, not a reserved bit, once EFER.NXE is set.
    set_entry(page, kept | 1ull << 51);
    if (cpuid(0x80000008, 0).eax % 256 < 52) FAULT("#PF, reserved bit", 14, 9, page, "", "movb (%%rax), %%cl");
    else print("#PF, reserved bit\n");
    set_entry(page, kept);
    RUN(page, "", "movb (%%rax), %%cl");
    check(seen.vector == (u64)-1, "vector %lu after the mapping was restored", seen.vector);

    u64 cr0;
    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    __asm__ volatile("mov %0, %%cr0" ::"r"(cr0 | 8));
    FAULT("#NM", 7, 0, 0, "", "fninit");
    __asm__ volatile("mov %0, %%cr0" ::"r"(cr0));
}
