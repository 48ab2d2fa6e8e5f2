// ACPI tables: what the machine consists of, and how it is switched off.
#include "guest.h"

struct acpi acpi = { .lapic_address = 0xFEE00000 };

static u8 sum(const void *start, u32 count) {
    u8 total = 0;
    for (const u8 *p = start; count; count--) total += *p++;
    return total;
}

struct rsdp {
    char signature[8];
    u8 checksum;
    char oem[6];
    u8 revision;
    u32 rsdt, length;
    u64 xsdt;
} __attribute__((packed));

static const struct rsdp *find_rsdp(void) {
    if (boot.rsdp) return (const void *)boot.rsdp;
    u64 ebda = (u64) * (const volatile u16 *)0x40E << 4;
    if (ebda >= 0x80000 && ebda < 0xA0000)
        for (u64 at = ebda; at < ebda + 1024; at += 16)
            if (memcmp((const void *)at, "RSD PTR ", 8) == 0) return (const void *)at;
    for (u64 at = 0xE0000; at < 0x100000; at += 16)
        if (*(const u32 *)at == 0x20445352 && memcmp((const void *)at, "RSD PTR ", 8) == 0) return (const void *)at;
    return NULL;
}

const struct acpi_header *acpi_find(const char *signature) {
    for (u32 i = 0; i < acpi.table_count; i++)
        if (memcmp(acpi.tables[i]->signature, signature, 4) == 0) return acpi.tables[i];
    return NULL;
}

static u16 get16(const u8 *p) { return *(const u16 *)p; }
static u32 get32(const u8 *p) { return *(const u32 *)p; }
static u64 get64(const u8 *p) { return *(const u64 *)p; }

/// The first element of the package named _S5_: the value for SLP_TYP. Just enough AML for that.
static void read_s5(const u8 *dsdt) {
    u32 length = get32(dsdt + 4);
    for (u32 i = 36; i + 12 < length; i++) {
        if (memcmp(dsdt + i, "_S5_", 4) != 0 || dsdt[i + 4] != 0x12) continue;
        const u8 *p = dsdt + i + 5;
        p += (*p >> 6) + 2; // the package's length, then its element count
        if (*p == 0x0A) p++; // byte prefix; else ZeroOp, OneOp or a bare value
        acpi.sleep_type_s5 = *p;
        acpi.has_s5 = true;
        return;
    }
}

static void read_fadt(const u8 *fadt) {
    u32 length = get32(fadt + 4);
    acpi.sci = get16(fadt + 46);
    acpi.pm1a_event = (u16)get32(fadt + 56);
    acpi.pm1a_control = (u16)get32(fadt + 64);
    acpi.pm_timer = (u16)get32(fadt + 76);
    acpi.flags = get32(fadt + 112);
    acpi.pm_timer_bits = acpi.flags & 1 << 8 ? 32 : 24;
    if (length >= 129 && acpi.flags & 1 << 10) {
        acpi.has_reset = true;
        acpi.reset_space = fadt[116];
        acpi.reset_address = get64(fadt + 120);
        acpi.reset_value = fadt[128];
    }
    u64 dsdt = length >= 148 ? get64(fadt + 140) : 0;
    if (!dsdt) dsdt = get32(fadt + 40);
    if (dsdt && dsdt < 0x100000000) read_s5((const u8 *)dsdt);
}

static void read_madt(const u8 *madt) {
    acpi.lapic_address = get32(madt + 36);
    const u8 *end = madt + get32(madt + 4);
    for (const u8 *e = madt + 44; e + 2 <= end && e[1] >= 2; e += e[1]) {
        switch (e[0]) {
        case 0: // local APIC
            if (get32(e + 4) & 1 && acpi.cpu_count < MAX_CPUS) acpi.apic_ids[acpi.cpu_count++] = e[3];
            break;
        case 1: // I/O APIC
            if (!acpi.ioapic_address) acpi.ioapic_address = get32(e + 4), acpi.ioapic_gsi_base = get32(e + 8);
            break;
        case 2: // interrupt source override
            if (e[3] < 16) acpi.isa_gsi[e[3]] = get32(e + 4), acpi.isa_flags[e[3]] = get16(e + 8);
            break;
        case 9: // local x2APIC
            if (get32(e + 8) & 1 && acpi.cpu_count < MAX_CPUS) acpi.apic_ids[acpi.cpu_count++] = get32(e + 4);
            break;
        }
    }
}

bool acpi_start(void) {
    for (u32 i = 0; i < 16; i++) acpi.isa_gsi[i] = i;
    const struct rsdp *rsdp = find_rsdp();
    if (!rsdp || sum(rsdp, 20) != 0) return false;
    boot.rsdp = (u64)rsdp;
    bool wide = rsdp->revision >= 2 && rsdp->xsdt && rsdp->xsdt < 0x100000000;
    const u8 *root = wide ? (const u8 *)rsdp->xsdt : (const u8 *)(u64)rsdp->rsdt;
    u32 step = wide ? 8 : 4;
    const u8 *end = root + get32(root + 4);
    for (const u8 *p = root + 36; p + step <= end && acpi.table_count < MAX_TABLES; p += step) {
        const u8 *table = (const u8 *)(wide ? get64(p) : get32(p));
        if (sum(table, get32(table + 4)) != 0) continue;
        acpi.tables[acpi.table_count++] = (const struct acpi_header *)table;
        if (memcmp(table, "FACP", 4) == 0) read_fadt(table);
        if (memcmp(table, "APIC", 4) == 0) read_madt(table);
    }
    return acpi.table_count > 0;
}

void acpi_power_off(void) {
    if (!acpi.has_s5 || !acpi.pm1a_control) return;
    u16 control = inw(acpi.pm1a_control) & ~0x3C00;
    outw(acpi.pm1a_control, control | (u16)(acpi.sleep_type_s5 & 7) << 10 | 1 << 13); // SLP_TYP, SLP_EN
    delay_us(200000);
}

void acpi_reset(void) {
    if (!acpi.has_reset) return;
    if (acpi.reset_space == 1) outb((u16)acpi.reset_address, acpi.reset_value);
    else if (acpi.reset_space == 0) *(volatile u8 *)acpi.reset_address = acpi.reset_value;
    delay_us(200000);
}
