// The interrupt descriptor table and what happens at a vector.
#include "guest.h"

struct gate { u16 low; u16 selector; u8 ist, type; u16 middle; u32 high, zero; } __attribute__((packed));

extern u8 trap_stubs[];
static struct gate idt[256] __attribute__((aligned(16)));
static trap_handler handlers[256];

void trap(struct frame *frame);

void trap_load(void) {
    struct { u16 limit; u64 base; } __attribute__((packed)) pointer = { sizeof idt - 1, (u64)idt };
    __asm__ volatile("lidt %0" ::"m"(pointer));
}

void trap_start(void) {
    u64 stub = (u64)trap_stubs;
    for (u32 vector = 0; vector < 256; vector++, stub += 16)
        idt[vector] = (struct gate){ .low = (u16)stub, .selector = 8, .type = 0x8E, .middle = (u16)(stub >> 16) };
    trap_load();
}

void set_handler(u8 vector, trap_handler handler) { handlers[vector] = handler; }

void trap(struct frame *f) {
    trap_handler handler = handlers[(u8)f->vector];
    if (handler) {
        handler(f);
        return;
    }
    printf("\nunexpected vector %lu, error %lx\n", f->vector, f->error);
    printf("rip %016lx  cs %04lx  rflags %08lx  rsp %016lx\n", f->rip, f->cs, f->rflags, f->rsp);
    printf("rax %016lx  rbx %016lx  rcx %016lx  rdx %016lx\n", f->rax, f->rbx, f->rcx, f->rdx);
    printf("rsi %016lx  rdi %016lx  rbp %016lx  r8  %016lx\n", f->rsi, f->rdi, f->rbp, f->r8);
    printf("r9  %016lx  r10 %016lx  r11 %016lx  r12 %016lx\n", f->r9, f->r10, f->r11, f->r12);
    printf("r13 %016lx  r14 %016lx  r15 %016lx  cr2 %016lx\n", f->r13, f->r14, f->r15, read_cr2());
    debug_exit(2);
}
