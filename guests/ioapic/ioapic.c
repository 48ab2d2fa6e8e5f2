// Interrupts through the I/O APIC. The UART's transmitter-empty request is a level we can hold.
#include "guest.h"

enum { PIT_VECTOR = 0x50, RTC_VECTOR = 0x60, UART_VECTOR = 0x70 };
static volatile u32 pit_count, rtc_count, uart_count, uart_limit;

static void on_pit(struct frame *frame) { (void)frame; pit_count++; lapic_eoi(); }
static void on_rtc(struct frame *frame) { (void)frame; rtc_count++; rtc_read(0x0C); lapic_eoi(); }
static void on_uart(struct frame *frame) {
    (void)frame;
    // The request is withdrawn only at the limit: until then a level-triggered pin interrupts again after each EOI.
    if (++uart_count >= uart_limit) outb(COM1 + 1, 0);
    lapic_eoi();
}

static void idle(u32 us) {
    u32 start = pm_timer();
    interrupts_on();
    while (pm_elapsed(start) < us_to_pm(us)) pause();
    interrupts_off();
}

static u8 entry(u32 gsi) { return (u8)(0x10 + 2 * gsi); }

void guest_main(void) {
    check(acpi_start() && acpi.ioapic_address, "no I/O APIC in the MADT");
    lapic_start();
    ioapic_start();
    u8 self = (u8)lapic_id();
    printf("%u pins, version %x\n", ioapic_pins(), ioapic_read(1) & 0xFF);
    set_handler(PIT_VECTOR, on_pit);
    set_handler(RTC_VECTOR, on_rtc);
    set_handler(UART_VECTOR, on_uart);

    pit_program(0, 2, 5966); // 5 ms
    idle(20000);
    check(pit_count == 0, "delivered though masked");
    ioapic_route(acpi.isa_gsi[0], PIT_VECTOR, self);
    idle(52000);
    check(pit_count >= 2 && pit_count <= 12, "%u PIT interrupts in 50 ms", pit_count);
    ioapic_route(acpi.isa_gsi[0], PIT_VECTOR | IOAPIC_MASKED, self);
    idle(1000);
    u32 before = pit_count;
    idle(20000);
    check(pit_count == before, "delivered after masking");
    pit_program(0, 0, 0);
    print("PIT, edge\n");

    ioapic_route(acpi.isa_gsi[8], RTC_VECTOR, self);
    rtc_write(0x0A, (rtc_read(0x0A) & 0xF0) | 9);
    rtc_read(0x0C);
    rtc_write(0x0B, rtc_read(0x0B) | 0x40);
    idle(60000);
    rtc_write(0x0B, rtc_read(0x0B) & 0x8F);
    check(rtc_count >= 2, "%u RTC interrupts in 60 ms", rtc_count);
    print("RTC, edge\n");

    u32 gsi = acpi.isa_gsi[4];
    delay_us(20000); // the transmitter empties
    uart_limit = 4;
    ioapic_route(gsi, UART_VECTOR, self);
    outb(COM1 + 1, 2);
    idle(10000);
    outb(COM1 + 1, 0);
    check(uart_count == 1, "%u interrupts for one edge", uart_count);
    print("UART, edge\n");
    delay_us(20000);

    uart_count = 0;
    ioapic_route(gsi, UART_VECTOR | IOAPIC_LEVEL, self);
    outb(COM1 + 1, 2);
    idle(10000);
    // One more is tolerated: some hosts' KVM leaves a level interrupt that was already accepted pending once too often.
    check(uart_count == 4 || uart_count == 5, "%u interrupts for a level held through 4", uart_count);
    check(!(ioapic_read(entry(gsi)) & IOAPIC_REMOTE_IRR), "remote IRR is still set after the last EOI");
    print("UART, level\n");
    delay_us(20000);

    // A level that rises while masked is delivered at unmasking.
    uart_count = 0;
    uart_limit = 1;
    ioapic_route(gsi, UART_VECTOR | IOAPIC_LEVEL | IOAPIC_MASKED, self);
    outb(COM1 + 1, 2);
    idle(2000);
    check(uart_count == 0, "delivered though masked");
    ioapic_write(entry(gsi), UART_VECTOR | IOAPIC_LEVEL);
    idle(2000);
    check(uart_count == 1 || uart_count == 2, "%u interrupts at unmasking", uart_count);
    print("UART, level, unmasked\n");
}
