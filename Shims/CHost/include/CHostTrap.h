// Floating-point exceptions of generated code, on their way back into it.
//
// In C because a signal handler may not meet Swift's runtime.
#ifndef CHOST_TRAP_H
#define CHOST_TRAP_H

#include <stdint.h>

// From now on, SIGFPE at an instruction in [start, end) continues at the address in r11, with MXCSR and x87 state as the
// exception left them. Elsewhere SIGFPE does what it did before. The code stays registered for good, and threads that
// run it must not block SIGFPE. Returns 0 or -errno (ENOSPC after eight ranges).
int chost_trap_floating_point(const void *start, const void *end);

#endif
