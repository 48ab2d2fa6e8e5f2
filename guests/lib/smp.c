// Application processors: INIT, SIPI, and work for them.
#include "guest.h"

enum { TRAMPOLINE = 0x8000, STACK_SIZE = 2048 };

extern u8 ap_trampoline[], ap_trampoline_end[];
u64 ap_stack;
volatile u32 cpus_online = 1;

static u8 stacks[MAX_CPUS][STACK_SIZE] __attribute__((aligned(16)));
static void (*volatile job)(u32);
static volatile u32 job_number;
static volatile u32 job_left;
static volatile u32 starting;

void ap_start(void);

u32 cpu_index(void) {
    u32 id = lapic_id();
    for (u32 i = 0; i < acpi.cpu_count; i++)
        if (acpi.apic_ids[i] == id) return i;
    return 0;
}

static void wake_up(struct frame *frame) {
    (void)frame;
    lapic_eoi();
}

enum { WAKE_VECTOR = 0xFD };

void ap_start(void) {
    trap_load();
    lapic_start();
    u32 index = starting;
    u32 seen = 0;
    __atomic_add_fetch(&cpus_online, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        interrupts_off();
        if (job_number == seen) {
            wait_for_interrupt();
            continue;
        }
        seen = job_number;
        job(index);
        __atomic_sub_fetch(&job_left, 1, __ATOMIC_SEQ_CST);
    }
}

void smp_start(void) {
    lapic_start();
    set_handler(WAKE_VECTOR, wake_up);
    memcpy((void *)TRAMPOLINE, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
    u32 self = lapic_id();
    for (u32 i = 0; i < acpi.cpu_count; i++) {
        if (acpi.apic_ids[i] == self) continue;
        u32 before = cpus_online;
        starting = i;
        ap_stack = (u64)stacks[i] + STACK_SIZE;
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        lapic_send(acpi.apic_ids[i], 0x4500); // INIT, assert
        delay_us(20);
        lapic_send(acpi.apic_ids[i], 0x4600 | TRAMPOLINE >> 12); // SIPI
        u32 start = pm_timer();
        bool again = false;
        while (cpus_online == before && pm_elapsed(start) < us_to_pm(1000000)) {
            pause();
            // The SDM's second SIPI, for a processor that missed the first.
            if (!again && pm_elapsed(start) > us_to_pm(300000)) {
                again = true;
                lapic_send(acpi.apic_ids[i], 0x4600 | TRAMPOLINE >> 12);
            }
        }
    }
}

bool run_on_aps(void (*work)(u32 index), u32 timeout) {
    if (cpus_online == 1) return true;
    job = work;
    job_left = cpus_online - 1;
    __atomic_add_fetch(&job_number, 1, __ATOMIC_SEQ_CST);
    lapic_send(0, 0xC4000 | WAKE_VECTOR); // all but self
    u32 start = pm_timer();
    while (job_left) {
        pause();
        if (pm_elapsed(start) > us_to_pm(timeout)) return false;
    }
    return true;
}
