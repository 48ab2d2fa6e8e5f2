// Writes to samples of every usable range and reads them back once all are written, so that aliases show.
// Memory above 4 GiB is seen through a window of 1 GiB.
#include "guest.h"

enum { STEP = 16 << 20 };
static const u64 WINDOW = 4ull << 30;
static u64 window_directory[512] __attribute__((aligned(4096)));
static u64 window_at = ~0ull;

static volatile u64 *reach(u64 address) {
    if (address < WINDOW) return (volatile u64 *)address;
    u64 page = address >> 30;
    if (page != window_at) {
        extern u64 page_pointers[];
        for (u64 i = 0; i < 512; i++) window_directory[i] = (page << 30 | i << 21) + 0x83;
        page_pointers[4] = (u64)window_directory + 3;
        write_cr3(read_cr3());
        window_at = page;
    }
    return (volatile u64 *)(WINDOW + (address & 0x3FFFFFFF));
}

static bool is_ours(u64 address) {
    // The image, and all of the first 640 KiB: boot information and tables lie there.
    return address + 8 <= 0xA0000 || (address + 8 > (u64)image_start && address < (u64)image_end);
}

static u64 pattern(u64 address) { return address * 0x9E3779B97F4A7C15 + 0x5A5A; }

/// Visits the samples of a range: first and last word, and one every step.
static u32 visit(const struct memory_range *range, bool write) {
    u32 count = 0;
    u64 end = range->base + range->size;
    for (u64 at = range->base;;) {
        if (!is_ours(at)) {
            count++;
            if (write) *reach(at) = pattern(at);
            else check(*reach(at) == pattern(at), "%lx holds %lx", at, *reach(at));
        }
        if (at == end - 8) break;
        at = at + STEP < end - 8 ? at + STEP : end - 8;
    }
    return count;
}

void guest_main(void) {
    check(boot.range_count > 0, "no memory map");
    u64 usable = 0;
    u32 samples = 0;
    for (u32 i = 0; i < boot.range_count; i++) {
        struct memory_range *r = &boot.ranges[i];
        for (u32 j = 0; j < i; j++) {
            struct memory_range *o = &boot.ranges[j];
            check(r->base >= o->base + o->size || o->base >= r->base + r->size, "%lx and %lx overlap", r->base, o->base);
        }
        if (r->type != MEMORY_USABLE) continue;
        check(r->base % 16 == 0 && r->size >= 16, "a range of %lu bytes at %lx", r->size, r->base);
        usable += r->size;
        samples += visit(r, true);
    }
    for (u32 i = 0; i < boot.range_count; i++)
        if (boot.ranges[i].type == MEMORY_USABLE) visit(&boot.ranges[i], false);
    printf("%lu MiB usable, %u samples hold\n", (usable + 0xFFFFF) >> 20, samples);
}
