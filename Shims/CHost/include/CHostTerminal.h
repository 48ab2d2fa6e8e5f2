// A terminal in raw mode that is given back on every way out of the process.
//
// In C because a signal handler may not meet Swift's lazy initialisation or its runtime, and because Swift
// has no fork. One terminal a process.
#ifndef CHOST_TERMINAL_H
#define CHOST_TERMINAL_H

#include <stdbool.h>

// Puts a terminal into raw mode, and sees to its return at exit(), at signals that end or stop the process,
// and, through a child process that outlives it, at SIGKILL.
//
// descriptor: an open terminal. terminations: also handle SIGTERM, SIGINT, SIGHUP and SIGQUIT (restore, then
// the default action); false where the caller ends the process in an orderly way at those. output: also leave the ends of lines
// that are shown to the process that prints them; false where others print to the terminal, too.
// Returns 0 or -errno. Calling it again while raw is 0 and does nothing.
int chost_terminal_raw(int descriptor, bool terminations, bool output);

// Gives the terminal back and ends the child. Harmless where it is not raw. Async-signal-safe.
void chost_terminal_restore(void);

// Whether this process holds a terminal in raw mode.
bool chost_terminal_is_raw(void);

// Drops the parent's end of the child's pipe without a word, as a process that was killed would. For tests.
void chost_terminal_vanish(void);

#endif
