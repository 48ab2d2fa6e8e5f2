// Local APIC, in xAPIC or x2APIC mode, and the I/O APIC.
#include "guest.h"

bool x2apic;

u32 lapic_read(u32 reg) {
    if (x2apic) return (u32)rdmsr(0x800 + (reg >> 4));
    return *(volatile u32 *)(acpi.lapic_address + reg);
}

void lapic_write(u32 reg, u32 value) {
    if (x2apic) wrmsr(0x800 + (reg >> 4), value);
    else *(volatile u32 *)(acpi.lapic_address + reg) = value;
}

void lapic_start(void) {
    u64 base = rdmsr(0x1B);
    if (x2apic) wrmsr(0x1B, base | 0xC00);
    else if (base & 0x400) x2apic = true; // the monitor started us in that mode
    lapic_write(LAPIC_TPR, 0);
    lapic_write(LAPIC_SVR, 0x100 | SPURIOUS_VECTOR);
}

bool lapic_use_x2apic(void) {
    if (!(cpuid(1, 0).ecx & 1 << 21)) return false;
    x2apic = true;
    lapic_start();
    return true;
}

u32 lapic_id(void) {
    u32 id = lapic_read(LAPIC_ID);
    return x2apic ? id : id >> 24;
}

void lapic_send(u32 apic_id, u32 command) {
    if (x2apic) {
        // Unlike an xAPIC write, an x2APIC one does not wait for earlier stores.
        __asm__ volatile("mfence" ::: "memory");
        wrmsr(0x830, (u64)apic_id << 32 | command);
        return;
    }
    lapic_write(LAPIC_ICR_HIGH, apic_id << 24);
    lapic_write(LAPIC_ICR, command);
    while (lapic_read(LAPIC_ICR) & 1 << 12) pause();
}

u32 ioapic_read(u8 reg) {
    *(volatile u32 *)(u64)acpi.ioapic_address = reg;
    return *(volatile u32 *)((u64)acpi.ioapic_address + 0x10);
}

void ioapic_write(u8 reg, u32 value) {
    *(volatile u32 *)(u64)acpi.ioapic_address = reg;
    *(volatile u32 *)((u64)acpi.ioapic_address + 0x10) = value;
}

u32 ioapic_pins(void) { return (ioapic_read(1) >> 16 & 0xFF) + 1; }

void ioapic_route(u32 gsi, u32 low, u8 apic_id) {
    u8 reg = (u8)(0x10 + 2 * (gsi - acpi.ioapic_gsi_base));
    ioapic_write(reg, IOAPIC_MASKED);
    ioapic_write(reg + 1, (u32)apic_id << 24);
    ioapic_write(reg, low);
}

void ioapic_start(void) {
    u32 pins = ioapic_pins();
    for (u32 pin = 0; pin < pins; pin++) ioapic_write((u8)(0x10 + 2 * pin), IOAPIC_MASKED);
}
