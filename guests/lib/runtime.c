// The start of C, text on the serial line, and the ways to end.
#include "guest.h"
#include <stdarg.h>

void runtime_start(void);

void runtime_start(void) {
    serial_start();
    trap_start();
    boot_parse();
    pic_start();
    guest_main();
    pass();
}

// MARK: Memory
#include "bytes.h"

size_t strlen(const char *s) {
    size_t n = 0;
    while (s[n]) n++;
    return n;
}

bool string_equal(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

bool option(const char *word) {
    size_t n = strlen(word);
    for (const char *p = boot.command_line; *p;) {
        while (*p == ' ') p++;
        const char *start = p;
        while (*p && *p != ' ') p++;
        if ((size_t)(p - start) == n && memcmp(start, word, n) == 0) return true;
    }
    return false;
}

// MARK: Serial line

void serial_start(void) {
    outb(COM1 + 1, 0);    // no interrupts
    outb(COM1 + 3, 0x80); // DLAB
    outb(COM1 + 0, 1);    // 115200 baud
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3);    // 8N1
    outb(COM1 + 2, 0xC7); // FIFOs on and cleared
    outb(COM1 + 4, 0x0B); // DTR, RTS, OUT2
}

static u32 fifo_room;

void putchar_serial(char c) {
    // An empty transmitter takes 16 bytes, so the line status is asked once in 16.
    if (fifo_room == 0) {
        while (!(inb(COM1 + 5) & 0x20)) pause();
        fifo_room = 16;
    }
    fifo_room--;
    outb(COM1, (u8)c);
}

void print(const char *text) {
    for (; *text; text++) {
        if (*text == '\n') putchar_serial('\r');
        putchar_serial(*text);
    }
}

static void print_padded(const char *text, size_t count, int width, bool left, char fill) {
    int padding = width - (int)count;
    if (!left) while (padding-- > 0) putchar_serial(fill);
    while (count--) {
        if (*text == '\n') putchar_serial('\r');
        putchar_serial(*text++);
    }
    if (left) while (padding-- > 0) putchar_serial(' ');
}

static void vprintf(const char *format, va_list arguments) {
    for (const char *p = format; *p; p++) {
        if (*p != '%') {
            if (*p == '\n') putchar_serial('\r');
            putchar_serial(*p);
            continue;
        }
        p++;
        bool left = false, wide = false;
        char fill = ' ';
        int width = 0;
        for (;; p++) {
            if (*p == '-') left = true;
            else if (*p == '0') fill = '0';
            else break;
        }
        for (; *p >= '0' && *p <= '9'; p++) width = width * 10 + (*p - '0');
        for (; *p == 'l'; p++) wide = true;
        char digits[24];
        char *end = digits + sizeof digits, *start = end;
        switch (*p) {
        case 's': {
            const char *text = va_arg(arguments, const char *);
            print_padded(text, strlen(text), width, left, ' ');
            break;
        }
        case 'c': putchar_serial((char)va_arg(arguments, int)); break;
        case 'd': case 'u': case 'x': case 'p': {
            u64 value;
            bool negative = false;
            if (*p == 'd') {
                long signed_value = wide ? va_arg(arguments, long) : va_arg(arguments, int);
                negative = signed_value < 0;
                value = negative ? -(u64)signed_value : (u64)signed_value;
            } else {
                value = wide || *p == 'p' ? va_arg(arguments, unsigned long) : va_arg(arguments, unsigned);
            }
            if (*p == 'x' || *p == 'p') {
                do *--start = "0123456789abcdef"[value & 15];
                while (value >>= 4);
            } else if (value >> 32) {
                do *--start = (char)('0' + value % 10);
                while (value /= 10);
            } else {
                // 32-bit division: the common case, and much cheaper where instructions are interpreted.
                u32 small = (u32)value;
                do *--start = (char)('0' + small % 10);
                while (small /= 10);
            }
            if (negative) *--start = '-';
            print_padded(start, (size_t)(end - start), width, left, fill);
            break;
        }
        default: putchar_serial(*p);
        }
    }
}

void printf(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
}

// MARK: Endings

void debug_exit(u32 code) {
    for (;;) {
        outl(DEBUG_EXIT, code);
        __asm__ volatile("cli; hlt");
    }
}

void pass(void) {
    print("ok\n");
    debug_exit(0);
}

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print("FAIL: ");
    vprintf(format, arguments);
    print("\n");
    va_end(arguments);
    debug_exit(1);
}
