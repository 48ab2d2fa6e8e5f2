// The built-in guest: what `hover run` boots when it is given nothing to boot.
#pragma once
#include "../lib/guest.h"

/// Hertz, as CPUID tells or the PM timer measured at start.
extern u64 tsc_hz;
/// The TSC at the first line of C.
extern u64 tsc_at_start;
extern bool have_acpi;

struct cpu_record { u32 signature, apic_id, online; char vendor[13]; };
extern struct cpu_record cpu_records[MAX_CPUS];

// report.c: what was found, at start and by command
void report_summary(void);
void report_cpus(void);
void report_memory(void);
void report_timers(void);
void report_acpi(void);
void report_devices(void);
void report_uptime(void);
void collect_cpus(void);

// shell.c
void shell(void) __attribute__((noreturn));
