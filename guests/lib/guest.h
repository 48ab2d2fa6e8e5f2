// What every guest shares: port and register access, the serial line, traps, boot information, ACPI, APICs, time.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

// MARK: Ports, registers, instructions

static inline void outb(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static inline void outw(u16 port, u16 value) { __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
static inline void outl(u16 port, u32 value) { __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }
static inline u8 inb(u16 port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline u16 inw(u16 port) { u16 v; __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline u32 inl(u16 port) { u32 v; __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port)); return v; }

static inline u64 rdmsr(u32 index) {
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return (u64)high << 32 | low;
}
static inline void wrmsr(u32 index, u64 value) {
    __asm__ volatile("wrmsr" ::"c"(index), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}
static inline u64 rdtsc(void) {
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (u64)high << 32 | low;
}
struct cpuid { u32 eax, ebx, ecx, edx; };
static inline struct cpuid cpuid(u32 leaf, u32 subleaf) {
    struct cpuid r;
    __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
    return r;
}
static inline u64 read_cr2(void) { u64 v; __asm__ volatile("mov %%cr2, %0" : "=r"(v)); return v; }
static inline u64 read_cr3(void) { u64 v; __asm__ volatile("mov %%cr3, %0" : "=r"(v)); return v; }
static inline void write_cr3(u64 v) { __asm__ volatile("mov %0, %%cr3" ::"r"(v) : "memory"); }
static inline void interrupts_off(void) { __asm__ volatile("cli" ::: "memory"); }
static inline void interrupts_on(void) { __asm__ volatile("sti" ::: "memory"); }
static inline void pause(void) { __asm__ volatile("pause" ::: "memory"); }
/// Sleeps until an interrupt; STI's shadow makes the pair atomic.
static inline void wait_for_interrupt(void) { __asm__ volatile("sti; hlt; cli" ::: "memory"); }

// MARK: runtime.c: text and endings

enum { COM1 = 0x3F8, DEBUG_EXIT = 0xF4 };

void serial_start(void);
void putchar_serial(char c);
void print(const char *text);
/// %s %c %d %u %x %p %%, with 0, -, width and l; no floating point.
void printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
/// Ends the machine through the debug-exit port: the monitor's status is 2 * code + 1.
void debug_exit(u32 code) __attribute__((noreturn));
/// Prints "ok" and ends with code 0, or what failed and ends with code 1.
void pass(void) __attribute__((noreturn));
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
#define check(condition, ...) do { if (!(condition)) fail(__VA_ARGS__); } while (0)

void *memset(void *target, int value, size_t count);
void *memcpy(void *target, const void *source, size_t count);
int memcmp(const void *a, const void *b, size_t count);
size_t strlen(const char *s);
bool string_equal(const char *a, const char *b);
/// Whether the command line contains this word.
bool option(const char *word);

/// The guest itself.
void guest_main(void);

// MARK: trap.c: exceptions and interrupts

struct frame {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    u64 vector, error, rip, cs, rflags, rsp, ss;
};
typedef void (*trap_handler)(struct frame *);
void trap_start(void);
void trap_load(void);
/// A vector without a handler prints the registers and ends the machine with code 2.
void set_handler(u8 vector, trap_handler handler);

// MARK: boot.c: what the loader said

enum { MEMORY_USABLE = 1, MEMORY_RESERVED = 2, MEMORY_ACPI = 3, MEMORY_NVS = 4 };
struct memory_range { u64 base, size; u32 type; };
enum { MAX_RANGES = 64 };
struct boot {
    const char *protocol;
    const char *command_line;
    u64 rsdp;
    u32 range_count;
    struct memory_range ranges[MAX_RANGES];
};
extern struct boot boot;
void boot_parse(void);
extern u8 image_start[], image_end[];

// MARK: acpi.c

struct acpi_header {
    char signature[4];
    u32 length;
    u8 revision, checksum;
    char oem[6], table[8];
    u32 oem_revision, creator, creator_revision;
} __attribute__((packed));

enum { MAX_CPUS = 256, MAX_TABLES = 32 };
struct acpi {
    u32 table_count;
    const struct acpi_header *tables[MAX_TABLES];
    // FADT
    u16 pm1a_event, pm1a_control, pm_timer, sci;
    u32 flags;
    u8 pm_timer_bits;
    bool has_reset;
    u8 reset_space, reset_value;
    u64 reset_address;
    u8 sleep_type_s5;
    bool has_s5;
    // MADT
    u32 cpu_count;
    u32 apic_ids[MAX_CPUS];
    u32 ioapic_address, ioapic_gsi_base;
    u64 lapic_address;
    // For each ISA interrupt its GSI and the MADT's flags.
    u32 isa_gsi[16];
    u16 isa_flags[16];
};
extern struct acpi acpi;
/// Finds and reads the tables. False where there are none.
bool acpi_start(void);
const struct acpi_header *acpi_find(const char *signature);
/// ACPI S5. Returns only where that does not work.
void acpi_power_off(void);
/// The FADT's reset register. Returns where there is none.
void acpi_reset(void);

// MARK: pic.c: the 8259A pair

enum { PIC_BASE = 0x20 };
/// Vectors from PIC_BASE on, everything masked.
void pic_start(void);
void pic_unmask(u8 irq);
void pic_mask(u8 irq);
void pic_eoi(u8 irq);

// MARK: apic.c: local APIC and I/O APIC

enum {
    LAPIC_ID = 0x20, LAPIC_VERSION = 0x30, LAPIC_TPR = 0x80, LAPIC_EOI = 0xB0, LAPIC_SVR = 0xF0, LAPIC_ISR = 0x100,
    LAPIC_IRR = 0x200, LAPIC_ESR = 0x280, LAPIC_ICR = 0x300, LAPIC_ICR_HIGH = 0x310, LAPIC_LVT_TIMER = 0x320,
    LAPIC_LVT_LINT0 = 0x350, LAPIC_TIMER_INITIAL = 0x380, LAPIC_TIMER_CURRENT = 0x390, LAPIC_TIMER_DIVIDE = 0x3E0,
    LAPIC_LVT_MASKED = 1 << 16, LAPIC_TIMER_PERIODIC = 1 << 17, LAPIC_TIMER_DEADLINE = 2 << 17,
    SPURIOUS_VECTOR = 0xFF,
};
extern bool x2apic;
u32 lapic_read(u32 reg);
void lapic_write(u32 reg, u32 value);
/// Software-enables this processor's APIC, leaving its LVT as it is.
void lapic_start(void);
/// Switches this processor to x2APIC mode where CPUID has it; the others must follow by themselves.
bool lapic_use_x2apic(void);
u32 lapic_id(void);
/// Sends an inter-processor interrupt: `command` is the ICR's low word.
void lapic_send(u32 apic_id, u32 command);
static inline void lapic_eoi(void) { lapic_write(LAPIC_EOI, 0); }

enum { IOAPIC_MASKED = 1 << 16, IOAPIC_LEVEL = 1 << 15, IOAPIC_REMOTE_IRR = 1 << 14, IOAPIC_LOW = 1 << 13 };
u32 ioapic_read(u8 reg);
void ioapic_write(u8 reg, u32 value);
u32 ioapic_pins(void);
/// Routes a pin: `low` is the redirection entry's low word.
void ioapic_route(u32 gsi, u32 low, u8 apic_id);
/// Every pin masked.
void ioapic_start(void);

// MARK: smp.c

/// Processors that run, the boot processor included.
extern volatile u32 cpus_online;
/// Starts every processor of the MADT; each then sleeps until `run_on_aps`.
void smp_start(void);
/// This processor's index into `acpi.apic_ids`.
u32 cpu_index(void);
/// Calls `work` on each application processor at once and waits until all have returned, or `timeout` microseconds.
bool run_on_aps(void (*work)(u32 index), u32 timeout);

// MARK: time.c

enum { PM_TIMER_HZ = 3579545, PIT_HZ = 1193182 };
u32 pm_timer(void);
/// PM timer ticks since `start`, which must be less than one wrap ago.
u32 pm_elapsed(u32 start);
static inline u32 us_to_pm(u32 us) { return (u32)((u64)us * PM_TIMER_HZ / 1000000); }
static inline u32 pm_to_us(u32 ticks) { return (u32)((u64)ticks * 1000000 / PM_TIMER_HZ); }
void delay_us(u32 us);
/// Cycles a second by CPUID where it tells, else measured over `measure_us`.
u64 tsc_frequency(u32 measure_us);
void pit_program(u8 channel, u8 mode, u16 count);
/// The channel's count, latched.
u16 pit_read(u8 channel);
u8 rtc_read(u8 index);
void rtc_write(u8 index, u8 value);
