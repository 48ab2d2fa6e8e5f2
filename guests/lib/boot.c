// The boot information of Multiboot 1, Multiboot 2 and PVH, brought to one form.
#include "guest.h"

extern u32 boot_magic, boot_info;
struct boot boot = { .protocol = "unknown", .command_line = "" };

static void add_range(u64 base, u64 size, u32 type) {
    if (size == 0 || boot.range_count == MAX_RANGES) return;
    boot.ranges[boot.range_count++] = (struct memory_range){ base, size, type };
}

struct multiboot_info {
    u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4], mmap_length, mmap_addr;
};
struct multiboot_entry { u32 size; u64 base, length; u32 type; } __attribute__((packed));

static void parse_multiboot(const struct multiboot_info *info) {
    boot.protocol = "multiboot";
    if (info->flags & 4) boot.command_line = (const char *)(u64)info->cmdline;
    if (!(info->flags & 0x40)) return;
    u64 at = info->mmap_addr, end = at + info->mmap_length;
    while (at < end) {
        const struct multiboot_entry *entry = (const void *)at;
        add_range(entry->base, entry->length, entry->type);
        at += entry->size + 4;
    }
}

static void parse_multiboot2(const u8 *info) {
    boot.protocol = "multiboot2";
    const u8 *end = info + *(const u32 *)info;
    for (const u8 *tag = info + 8; tag < end;) {
        u32 type = ((const u32 *)tag)[0], size = ((const u32 *)tag)[1];
        if (type == 0) break;
        if (type == 1) boot.command_line = (const char *)tag + 8;
        if (type == 6) {
            u32 stride = ((const u32 *)tag)[2];
            for (const u8 *e = tag + 16; e + stride <= tag + size; e += stride)
                add_range(*(const u64 *)e, *(const u64 *)(e + 8), *(const u32 *)(e + 16));
        }
        if (type == 14 || type == 15) boot.rsdp = (u64)tag + 8;
        tag += (size + 7) & ~7u;
    }
}

struct pvh_info {
    u32 magic, version, flags, nr_modules;
    u64 modlist, cmdline, rsdp, memmap;
    u32 memmap_entries, reserved;
};
struct pvh_entry { u64 base, size; u32 type, reserved; };

static void parse_pvh(const struct pvh_info *info) {
    boot.protocol = "pvh";
    if (info->cmdline) boot.command_line = (const char *)info->cmdline;
    boot.rsdp = info->rsdp;
    if (info->version < 1) return;
    const struct pvh_entry *entry = (const void *)info->memmap;
    for (u32 i = 0; i < info->memmap_entries; i++, entry++) add_range(entry->base, entry->size, entry->type);
}

void boot_parse(void) {
    const void *info = (const void *)(u64)boot_info;
    if (boot_magic == 0x2BADB002) parse_multiboot(info);
    else if (boot_magic == 0x36D76289) parse_multiboot2(info);
    else if (info && *(const u32 *)info == 0x336EC578) parse_pvh(info);
}
