// In ring 0, the instructions that KVM's own emulator lacks. Where it runs ring 0 they reach the monitor, whose software
// CPU must execute them on the processor's own state; everywhere else the processor itself says what is right.
#include "guest.h"

typedef struct { u64 low, high; } pair __attribute__((aligned(16)));
enum { VECTORS = 256, AREA = 4096, BYTES_BEFORE_XMM = 160 };

static u8 area[AREA] __attribute__((aligned(64))), other[AREA] __attribute__((aligned(64)));
static u8 pattern[VECTORS] __attribute__((aligned(16))), seen_vectors[VECTORS] __attribute__((aligned(16)));

// MARK: Exceptions

static volatile struct { u64 vector, error, rip, cr2; } seen;
volatile u64 fault_rip, resume_rip;

static void on_exception(struct frame *frame) {
    seen.vector = frame->vector;
    seen.error = frame->error;
    seen.rip = frame->rip;
    seen.cr2 = read_cr2();
    frame->rip = resume_rip;
}

// Runs one instruction with RAX, RCX, RDX, which must raise `vector` with `code`, and not be done.
#define FAULT(name, wanted, code, rax, rcx, rdx, instruction)                                                          \
    do {                                                                                                               \
        u64 a = (u64)(rax), c = (u64)(rcx), d = (u64)(rdx);                                                            \
        seen.vector = (u64)-1;                                                                                         \
        __asm__ volatile("leaq 1f(%%rip), %%rsi; movq %%rsi, fault_rip(%%rip)\n\t"                                     \
                         "leaq 2f(%%rip), %%rsi; movq %%rsi, resume_rip(%%rip)\n"                                      \
                         "1:\t" instruction "\n2:" : "+a"(a), "+c"(c), "+d"(d) : "b"((u64)0) : "rsi", "memory");       \
        check(seen.vector == wanted, "%s: vector %ld, not %u", name, seen.vector, wanted);                             \
        check(seen.error == (code), "%s: error code %lx", name, seen.error);                                           \
        check(seen.rip == fault_rip, "%s: at %lx, not %lx", name, seen.rip, fault_rip);                                \
    } while (0)

static u64 *page_entry(u64 address) {
    extern u64 page_pointers[];
    u64 *directory = (u64 *)(page_pointers[address >> 30] & ~0xFFFull);
    return &directory[address >> 21 & 511];
}

static void set_entry(u64 address, u64 value) {
    *page_entry(address) = value;
    write_cr3(read_cr3());
}

// MARK: Control registers

static u64 read_cr0(void) { u64 v; __asm__ volatile("mov %%cr0, %0" : "=r"(v)); return v; }
static void write_cr0(u64 v) { __asm__ volatile("mov %0, %%cr0" ::"r"(v)); }
static u64 read_cr4(void) { u64 v; __asm__ volatile("mov %%cr4, %0" : "=r"(v)); return v; }
static void write_cr4(u64 v) { __asm__ volatile("mov %0, %%cr4" ::"r"(v)); }

static void enable_vectors(u32 index) {
    (void)index;
    write_cr0((read_cr0() & ~0xCull) | 0x22);  // not EM, not TS; MP, NE
    write_cr4(read_cr4() | 0x600);             // OSFXSR, OSXMMEXCPT
    __asm__ volatile("fninit");
}

// MARK: CMPXCHG16B

static pair shared;

static bool compare_exchange(pair *at, pair *expected, pair desired) {
    bool equal;
    __asm__ volatile("lock cmpxchg16b %1; sete %0"
                     : "=q"(equal), "+m"(*at), "+a"(expected->low), "+d"(expected->high)
                     : "b"(desired.low), "c"(desired.high) : "memory", "cc");
    return equal;
}

enum { ROUNDS = 64 };

// Both halves count; a torn one would let them drift apart.
static void count(u32 index) {
    (void)index;
    for (u32 i = 0; i < ROUNDS; i++) {
        pair old = { 0, 0 };
        while (!compare_exchange(&shared, &old, (pair){ old.low + 1, old.high + 3 })) pause();
    }
}

static void cmpxchg16b(void) {
    if (!(cpuid(1, 0).ecx & 1 << 13)) { print("cmpxchg16b: not offered\n"); return; }
    pair value = { 1, 2 }, expected = { 1, 2 };
    check(compare_exchange(&value, &expected, (pair){ 3, 4 }), "cmpxchg16b: equal is unequal");
    check(value.low == 3 && value.high == 4, "cmpxchg16b: %lx, %lx", value.low, value.high);
    check(!compare_exchange(&value, &expected, (pair){ 5, 6 }), "cmpxchg16b: unequal is equal");
    check(expected.low == 3 && expected.high == 4 && value.low == 3, "cmpxchg16b: it tells %lx, %lx", expected.low, expected.high);
    FAULT("cmpxchg16b, misaligned", 13, 0, (u64)&value + 8, 0, 0, "cmpxchg16b (%%rax)");
    u64 page = 0x10200000, kept = *page_entry(page);
    set_entry(page, kept & ~2ull);
    FAULT("cmpxchg16b, read-only", 14, 3, page + 0x1230, 0, 0, "lock cmpxchg16b (%%rax)");
    check(seen.cr2 == page + 0x1230, "cmpxchg16b, read-only: CR2 is %lx", seen.cr2);
    set_entry(page, kept);

    u32 cpus = acpi.cpu_count;
    check(run_on_aps(count, 20000000), "cmpxchg16b: a processor hangs");
    count(0);
    check(shared.low == cpus * ROUNDS && shared.high == cpus * ROUNDS * 3, "cmpxchg16b: counts %lu, %lu", shared.low, shared.high);
    print("cmpxchg16b: exchanged\n");
}

// MARK: x87 and SSE registers

#define ALL_VECTORS(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define LOAD(n) "movups " #n "*16(%0), %%xmm" #n "\n\t"
#define STORE(n) "movups %%xmm" #n ", " #n "*16(%0)\n\t"
static void load_vectors(const u8 *from) { __asm__ volatile(ALL_VECTORS(LOAD) ::"r"(from) : "memory"); }
static void store_vectors(u8 *to) { __asm__ volatile(ALL_VECTORS(STORE) ::"r"(to) : "memory"); }

static const u64 pi_significand = 0xC90FDAA22168C235;
static const u16 pi_exponent = 0x4000;

// MXCSR rounds towards zero, XMM holds the pattern, ST(0) pi.
static void fill(u8 seed) {
    for (u32 i = 0; i < VECTORS; i++) pattern[i] = (u8)(seed + i * 7);
    load_vectors(pattern);
    u32 mxcsr = 0x7F80;
    __asm__ volatile("ldmxcsr %0; fninit; fldpi" ::"m"(mxcsr));
}

static void check_image(const char *name, const u8 *image) {
    check(memcmp(image + BYTES_BEFORE_XMM, pattern, VECTORS) == 0, "%s: XMM registers differ", name);
    check(*(const u32 *)(image + 24) == 0x7F80, "%s: MXCSR is %x", name, *(const u32 *)(image + 24));
    check(*(const u16 *)image == 0x37F && image[4] == 0x80, "%s: FCW is %x, FTW %x", name, *(const u16 *)image, image[4]);
    check(*(const u64 *)(image + 32) == pi_significand && *(const u16 *)(image + 40) == pi_exponent, "%s: ST(0) is not pi", name);
}

static void check_registers(const char *name) {
    store_vectors(seen_vectors);
    check(memcmp(seen_vectors, pattern, VECTORS) == 0, "%s: XMM registers differ", name);
    u32 mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    check(mxcsr == 0x7F80, "%s: MXCSR is %x", name, mxcsr);
    struct { u64 significand; u16 exponent; } __attribute__((packed)) top;
    __asm__ volatile("fstpt %0; fninit; fldpi" : "=m"(top));
    check(top.significand == pi_significand && top.exponent == pi_exponent, "%s: ST(0) is not pi", name);
}

static void spoil_registers(void) {
    memset(seen_vectors, 0xEE, VECTORS);
    load_vectors(seen_vectors);
    u32 mxcsr = 0x1F80;
    __asm__ volatile("ldmxcsr %0; fninit; fldz; fld1" ::"m"(mxcsr));
}

static void fxsave(void) {
    fill(1);
    memset(area, 0xA5, AREA);
    __asm__ volatile("fxsave64 %0" : "+m"(area));
    check_image("fxsave", area);
    // A processor leaves the area from byte 464 on alone; KVM, which emulates this one, does from 512 on.
    for (u32 i = 512; i < 1024; i++) check(area[i] == 0xA5, "fxsave: byte %u is written", i);
    spoil_registers();
    __asm__ volatile("fxrstor64 %0" ::"m"(area));
    check_registers("fxrstor");
    *(u32 *)(area + 24) = 0x80000000;
    FAULT("fxrstor, bad MXCSR", 13, 0, area, 0, 0, "fxrstor64 (%%rax)");
    check_registers("fxrstor, bad MXCSR");
    write_cr0(read_cr0() | 8);
    FAULT("fxsave, CR0.TS", 7, 0, area, 0, 0, "fxsave64 (%%rax)");
    __asm__ volatile("clts");
    print("fxsave, fxrstor: saved and restored\n");
}

// MARK: SSE and memory

static void sse_memory(void) {
    fill(2);
    // Across two pages: bytes that no aligned access covers.
    u8 *edge = (u8 *)0x10000FF9;
    memset(edge - 16, 0, 64);
    __asm__ volatile("movups %%xmm3, (%0); movq %%xmm4, 16(%0); movntdq %%xmm5, 0x27(%0); movd %%xmm6, 0x40(%0)" ::"r"(edge) : "memory");
    check(memcmp(edge, pattern + 48, 16) == 0 && memcmp(edge + 16, pattern + 64, 8) == 0, "sse: a store is wrong");
    check(memcmp(edge + 0x27, pattern + 80, 16) == 0 && memcmp(edge + 0x40, pattern + 96, 4) == 0, "sse: a store is wrong");
    check(edge[-1] == 0 && edge[24] == 0, "sse: a store is too long");
    u64 sums[2];
    __asm__ volatile("movdqu (%1), %%xmm0; paddq 0x27(%2), %%xmm0; movdqu %%xmm0, %0" : "=m"(sums) : "r"(edge), "r"(edge) : "memory");
    for (u32 i = 0; i < 2; i++) {
        u64 wanted = *(u64 *)(pattern + 48 + 8 * i) + *(u64 *)(pattern + 80 + 8 * i);
        check(sums[i] == wanted, "sse: the sum is %lx, not %lx", sums[i], wanted);
    }
    FAULT("movaps, misaligned", 13, 0, edge, 0, 0, "movaps (%%rax), %%xmm0");
    u64 page = 0x10200000, kept = *page_entry(page);
    set_entry(page, kept & ~2ull);
    FAULT("sse, read-only", 14, 3, page + 0x100, 0, 0, "movhps %%xmm0, (%%rax)");
    check(seen.cr2 == page + 0x100, "sse, read-only: CR2 is %lx", seen.cr2);
    set_entry(page, 0);
    FAULT("sse, not present", 14, 0, page + 0x200, 0, 0, "pxor (%%rax), %%xmm0");
    check(seen.cr2 == page + 0x200, "sse, not present: CR2 is %lx", seen.cr2);
    set_entry(page, kept & ~0x60ull);
    __asm__ volatile("movlps %%xmm3, (%0)" ::"r"(page) : "memory");
    check((*page_entry(page) & 0x60) == 0x60, "sse: the entry has %lx, not accessed and dirty", *page_entry(page) & 0xFFF);
    check(memcmp((void *)page, pattern + 48, 8) == 0, "sse: a store through a clean entry is lost");
    set_entry(page, kept);
    // An unmasked division by zero: at the instruction, with the registers as they were.
    u32 mxcsr = 0x1D80;
    u64 zeros[2] = { 0, 0 }, ones[2] = { 0x3F8000003F800000, 0x3F8000003F800000 }, after[2];
    __asm__ volatile("ldmxcsr %0; movups %1, %%xmm1; movups %2, %%xmm2" ::"m"(mxcsr), "m"(zeros), "m"(ones));
    FAULT("divps, by zero", 19, 0, 0, 0, 0, "divps %%xmm1, %%xmm2");
    __asm__ volatile("movups %%xmm2, %0" : "=m"(after));
    check(after[0] == ones[0] && after[1] == ones[1], "divps, by zero: the register has changed");
    print("sse, memory: moved\n");
}

static void sse_device(void) {
    fill(3);
    // Nobody is there: stores go nowhere, loads give ones.
    u64 nobody = 0xD0000000, words[2];
    __asm__ volatile("movups %%xmm1, (%1); movq %%xmm2, 16(%1); pxor %%xmm3, %%xmm3; por (%1), %%xmm3; movups %%xmm3, %0"
                     : "=m"(words) : "r"(nobody) : "memory");
    check(words[0] == ~0ull && words[1] == ~0ull, "sse, device: %lx, %lx", words[0], words[1]);
    __asm__ volatile("movlps 8(%1), %%xmm4; movups %%xmm4, %0" : "=m"(words) : "r"(nobody) : "memory");
    check(words[0] == ~0ull && words[1] == *(u64 *)(pattern + 72), "sse, device: %lx, %lx", words[0], words[1]);
    print("sse, memory-mapped: moved\n");
}

// MARK: XSAVE and its kin

#define SAVE(instruction, at, mask) \
    __asm__ volatile(instruction " (%0)" ::"r"(at), "a"((u32)(mask)), "d"((u32)((u64)(mask) >> 32)) : "memory")
enum { X87 = 1, SSE = 2, AVX = 4 };

static u64 header(const u8 *at, u32 word) { return *(const u64 *)(at + 512 + 8 * word); }

static u64 read_xcr(u32 index) {
    u32 low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(index));
    return (u64)high << 32 | low;
}

static void xsave(void) {
    struct cpuid one = cpuid(1, 0), kinds = cpuid(0xD, 1);
    if (!(one.ecx & 1 << 26) || cpuid(0, 0).eax < 0xD) {
        FAULT("xgetbv", 6, 0, 0, 0, 0, "xgetbv");
        print("xsave, xrstor: not offered\nxsaveopt: not offered\nxsavec: not offered\nxsaves, xrstors: not offered\n");
        return;
    }
    write_cr4(read_cr4() & ~0x40000ull);
    FAULT("xsave, CR4.OSXSAVE clear", 6, 0, 3, 0, 0, "xsave64 area(%%rip)");
    write_cr4(read_cr4() | 0x40000);
    u64 offered = (u64)cpuid(0xD, 0).edx << 32 | cpuid(0xD, 0).eax;
    u64 enabled = offered & (X87 | SSE | AVX);
    bool has_avx = one.ecx & 1 << 28 && enabled & AVX;
    if (!has_avx) enabled &= X87 | SSE;
    __asm__ volatile("xsetbv" ::"a"((u32)enabled), "d"(0), "c"(0));
    check(read_xcr(0) == enabled, "xgetbv: %lx, not %lx", read_xcr(0), enabled);
    FAULT("xsetbv, no x87", 13, 0, SSE, 0, 0, "xsetbv");
    FAULT("xgetbv, XCR 5", 13, 0, 0, 5, 0, "xgetbv");

    fill(4);
    memset(area, 0xA5, AREA);
    memset(area + 512, 0, 64);
    area[512] = AVX;
    SAVE("xsave64", area, X87 | SSE);
    check_image("xsave", area);
    check(header(area, 0) == (X87 | SSE | AVX) && header(area, 1) == 0, "xsave: XSTATE_BV is %lx, XCOMP_BV %lx", header(area, 0), header(area, 1));
    for (u32 i = 416; i < 512; i++) check(area[i] == 0xA5, "xsave: byte %u is written", i);
    area[512] = X87 | SSE;
    spoil_registers();
    SAVE("xrstor64", area, X87 | SSE);
    check_registers("xrstor");
    // A component whose bit is clear goes to its initial state; one that is not asked for stays.
    area[512] = 0;
    SAVE("xrstor64", area, X87);
    store_vectors(seen_vectors);
    check(memcmp(seen_vectors, pattern, VECTORS) == 0, "xrstor of x87: XMM registers differ");
    SAVE("xrstor64", area, SSE);
    store_vectors(seen_vectors);
    for (u32 i = 0; i < VECTORS; i++) check(seen_vectors[i] == 0, "xrstor of nothing: byte %u is %x", i, seen_vectors[i]);
    // MXCSR is loaded all the same.
    u32 mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    check(mxcsr == 0x7F80, "xrstor of nothing: MXCSR is %x", mxcsr);
    if (has_avx) {
        // The upper halves travel though no instruction here touches them.
        struct cpuid leaf = cpuid(0xD, 2);
        for (u32 i = 0; i < leaf.eax; i++) area[leaf.ebx + i] = (u8)(i * 5 + 1);
        area[512] = AVX | SSE;
        SAVE("xrstor64", area, X87 | SSE | AVX);
        memset(other, 0xA5, AREA);
        memset(other + 512, 0, 64);
        SAVE("xsave64", other, AVX);
        check(header(other, 0) == AVX, "xsave of AVX: XSTATE_BV is %lx", header(other, 0));
        check(memcmp(other + leaf.ebx, area + leaf.ebx, leaf.eax) == 0, "xsave of AVX: upper halves differ");
        check(other[160] == 0xA5 && other[32] == 0xA5, "xsave of AVX: more is written");
    }
    fill(5);
    FAULT("xsave, misaligned", 13, 0, 3, area + 32, 0, "xsave64 (%%rcx)");
    area[512] = 3, area[519] = 0x40;
    FAULT("xrstor, component 62", 13, 0, 3, area, 0, "xrstor64 (%%rcx)");
    area[519] = 0, area[520] = 1;
    FAULT("xrstor, bad header", 13, 0, 3, area, 0, "xrstor64 (%%rcx)");
    check_registers("xrstor, bad header");
    print("xsave, xrstor: saved and restored\n");

    if (kinds.eax & 1) {
        fill(6);
        memset(other, 0, AREA);
        SAVE("xsaveopt64", other, X87 | SSE);
        check_image("xsaveopt", other);
        check(header(other, 0) == (X87 | SSE), "xsaveopt: XSTATE_BV is %lx", header(other, 0));
        print("xsaveopt: saved\n");
    } else print("xsaveopt: not offered\n");

    if (kinds.eax & 2) {
        fill(7);
        memset(other, 0, AREA);
        SAVE("xsavec64", other, enabled);
        check_image("xsavec", other);
        check((header(other, 0) & 3) == 3 && header(other, 1) == (1ull << 63 | enabled), "xsavec: XSTATE_BV %lx, XCOMP_BV %lx", header(other, 0), header(other, 1));
        spoil_registers();
        SAVE("xrstor64", other, enabled);
        check_registers("xrstor, compacted");
        if (kinds.eax & 4) check((read_xcr(1) & 3) == 3, "xgetbv, XCR 1: %lx", read_xcr(1));
        if (has_avx) {
            // Right behind the header, wherever the standard form has it.
            u32 size = cpuid(0xD, 2).eax;
            for (u32 i = 0; i < size; i++) other[576 + i] = (u8)(i * 3 + 2);
            other[512] = X87 | SSE | AVX;
            SAVE("xrstor64", other, enabled);
            memset(area, 0, AREA);
            SAVE("xsavec64", area, AVX | X87);
            check(header(area, 1) == (1ull << 63 | AVX | X87) && memcmp(area + 576, other + 576, size) == 0, "xsavec of AVX: upper halves differ");
        }
        *(u64 *)(other + 520) = 1ull << 63 | X87;
        FAULT("xrstor, XSTATE_BV beyond XCOMP_BV", 13, 0, 3, other, 0, "xrstor64 (%%rcx)");
        print("xsavec: saved and restored\n");
    } else print("xsavec: not offered\n");

    if (kinds.eax & 8) {
        fill(8);
        memset(other, 0, AREA);
        SAVE("xsaves64", other, enabled);
        check_image("xsaves", other);
        check(header(other, 1) == (1ull << 63 | enabled), "xsaves: XCOMP_BV is %lx", header(other, 1));
        spoil_registers();
        SAVE("xrstors64", other, enabled);
        check_registers("xrstors");
        *(u64 *)(other + 520) = 0;
        FAULT("xrstors, standard form", 13, 0, 3, other, 0, "xrstors64 (%%rcx)");
        print("xsaves, xrstors: saved and restored\n");
    } else print("xsaves, xrstors: not offered\n");
}

// MARK: Interrupts

static volatile u32 ticks;
static void on_tick(struct frame *frame) { (void)frame; ticks++; lapic_eoi(); }

// Interrupts that come between instructions which are rescued: none is lost, and no register is.
static void interrupts(void) {
    enum { VECTOR = 0x60, WANTED = 5 };
    fill(9);
    set_handler(VECTOR, on_tick);
    lapic_start();
    for (u32 sent = 0; sent < WANTED; sent++) {
        lapic_send(lapic_id(), VECTOR);
        // Held back by IF, then by STI's shadow: until the instruction behind it is done.
        u64 a[2] = { sent, 1 }, b[2];
        u32 before;
        __asm__ volatile("movups %2, %%xmm0; movl %3, %0; sti; paddq %%xmm0, %%xmm0; nop; cli; movups %%xmm0, %1"
                         : "=&r"(before), "=m"(b) : "m"(a), "m"(ticks) : "memory");
        check(before == sent && ticks == sent + 1, "interrupts: %u came before STI, %u after", before, ticks);
        check(b[0] == 2 * sent && b[1] == 2, "interrupts: the sum is %lu", b[0]);
    }
    print("interrupts: taken between\n");
}

void guest_main(void) {
    check(acpi_start(), "no ACPI tables");
    smp_start();
    for (u32 vector = 0; vector < 32; vector++) set_handler((u8)vector, on_exception);
    enable_vectors(0);
    if (!option("fx")) cmpxchg16b();
    fxsave();
    sse_memory();
    sse_device();
    xsave();
    interrupts();
}
