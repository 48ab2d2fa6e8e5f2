// A prompt on the serial line: bytes come by interrupt, and the processor sleeps between them.
#include "builtin.h"

enum { LINE_MAX = 72, UART_VECTOR = 0x44 };

static volatile char ring[256];
static volatile u8 head, tail;
static bool by_ioapic;

static void on_uart(struct frame *frame) {
    (void)frame;
    // The input is edge-triggered: go on until no cause is left, or there will be no next edge.
    while (!(inb(COM1 + 2) & 1)) {
        while (inb(COM1 + 5) & 1) {
            char c = (char)inb(COM1);
            // A full ring drops: whoever types faster than 256 bytes an echo is not a person.
            if ((u8)(head + 1) != tail) ring[head++] = c;
        }
    }
    if (by_ioapic) lapic_eoi();
    else pic_eoi(4);
}

static void listen(void) {
    by_ioapic = acpi.ioapic_address && acpi.cpu_count;
    if (by_ioapic) {
        lapic_start();
        set_handler(UART_VECTOR, on_uart);
        ioapic_start();
        ioapic_route(acpi.isa_gsi[4], UART_VECTOR | (acpi.isa_flags[4] & 8 ? IOAPIC_LEVEL : 0), (u8)lapic_id());
    } else {
        set_handler(PIC_BASE + 4, on_uart);
        pic_unmask(4);
    }
    outb(COM1 + 1, 1); // received data available
}

static char receive(void) {
    interrupts_off();
    while (head == tail) wait_for_interrupt();
    char c = ring[tail++];
    interrupts_on();
    return c;
}

static void erase(u32 count) {
    while (count--) print("\b \b");
}

/// One line, edited: Backspace, Ctrl-U, Ctrl-W, Ctrl-C, Ctrl-L.
/// - Returns: false where it was abandoned with Ctrl-C.
static bool read_line(char *line) {
    u32 length = 0;
    static char previous;
    for (;;) {
        char c = receive();
        bool after_return = previous == '\r';
        previous = c;
        switch (c) {
        case '\n':
            if (after_return) continue; // the second half of CR LF
            // fall through
        case '\r':
            line[length] = 0;
            print("\n");
            return true;
        case 3:
            print("^C\n");
            return false;
        case 4:
            if (length == 0) {
                print("off\n");
                memcpy(line, "off", 4);
                return true;
            }
            break;
        case 8:
        case 127:
            if (length) erase(1), length--;
            break;
        case 21:
            erase(length);
            length = 0;
            break;
        case 23: {
            u32 kept = length;
            while (kept && line[kept - 1] == ' ') kept--;
            while (kept && line[kept - 1] != ' ') kept--;
            erase(length - kept);
            length = kept;
            break;
        }
        case 12:
            print("\x1b[H\x1b[2J> ");
            line[length] = 0;
            print(line);
            break;
        case 27:
            // An arrow or another key of several bytes: there is nothing for it to do.
            if (receive() == '[')
                while ((c = receive()) < 0x40 || c > 0x7E) {}
            break;
        default:
            if (c >= ' ' && c <= '~' && length < LINE_MAX) {
                line[length++] = c;
                putchar_serial(c);
            }
        }
    }
}

static void help(void);

static void crash(void) {
    print("An empty interrupt table and an invalid instruction: good-bye.\n");
    struct { u16 limit; u64 base; } __attribute__((packed)) empty = { 0, 0 };
    __asm__ volatile("lidt %0\n\tud2" ::"m"(empty));
}

static void reboot(void) {
    print("Resetting.\n");
    acpi_reset();
    outb(0x64, 0xFE);
    delay_us(10000);
    print("The machine does not reset.\n");
}

static void power_off(void) {
    print("Good-bye.\n");
    acpi_power_off();
    print("The machine does not switch off.\n");
}

static const struct command { const char *name, *purpose; void (*run)(void); } commands[] = {
    { "help", "this list", help },
    { "cpus", "the processors, and how fast they answer", report_cpus },
    { "memory", "the memory map", report_memory },
    { "timers", "every clock, measured", report_timers },
    { "acpi", "the tables, and how to switch off", report_acpi },
    { "devices", "what answers at which address", report_devices },
    { "uptime", "since the first instruction of C", report_uptime },
    { "echo", "says what you say", NULL },
    { "panic", "crashes on purpose, with a triple fault", crash },
    { "reboot", "resets the machine", reboot },
    { "off", "switches the machine off (also Ctrl-D)", power_off },
};

static void help(void) {
    for (u32 i = 0; i < sizeof commands / sizeof *commands; i++)
        printf("  %-9s%s\n", commands[i].name, commands[i].purpose);
    print("\nBackspace, Ctrl-U, Ctrl-W and Ctrl-C edit the line; Ctrl-L clears the screen.\n");
}

static void execute(char *line) {
    while (*line == ' ') line++;
    if (!*line) return;
    char *rest = line;
    while (*rest && *rest != ' ') rest++;
    if (*rest) *rest++ = 0;
    if (string_equal(line, "echo")) {
        printf("%s\n", rest);
        return;
    }
    for (u32 i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (!string_equal(line, commands[i].name)) continue;
        commands[i].run();
        return;
    }
    printf("%s is nothing this guest knows; help lists what is.\n", line);
}

void shell(void) {
    static char line[LINE_MAX + 1];
    listen();
    for (;;) {
        print("> ");
        if (read_line(line)) execute(line);
    }
}
